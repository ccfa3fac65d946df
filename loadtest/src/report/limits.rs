//! Limits that a run must keep: what makes a load test a test.

use super::Stage;

/// Each is kept by every stage, or the program ends with an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Limits (exit code 2 when one is broken)")]
pub struct Limits {
    /// CPU time of the server per packet sent to a receiver, µs
    #[arg(long, value_name = "µs")]
    pub max_cpu_us_per_packet: Option<f64>,
    /// Packets that never came, percent
    #[arg(long, value_name = "%")]
    pub max_loss: Option<f64>,
    /// 99th percentile of the forwarding delay, ms
    #[arg(long, value_name = "ms")]
    pub max_p99_ms: Option<f64>,
    /// 99th percentile of the time from joining to connected media, ms
    #[arg(long, value_name = "ms")]
    pub max_join_p99_ms: Option<f64>,
    /// Memory of the server per participant, kB
    #[arg(long, value_name = "kB")]
    pub max_rss_kb_per_person: Option<f64>,
    /// Packets per second and busy core, thousands
    #[arg(long, value_name = "kpps")]
    pub min_kpps_per_core: Option<f64>,
}

impl Limits {
    /// A sentence for each limit that a stage breaks. A limit that cannot be measured counts as broken.
    pub fn broken(&self, stages: &[Stage]) -> Vec<String> {
        let mut broken = Vec::new();
        for stage in stages {
            let cpu = stage.cpu;
            let mut check = |what: &str, most: Option<f64>, found: Option<f64>| {
                let (Some(most), size) = (most, stage.size) else { return };
                match found {
                    Some(found) if found <= most => {}
                    Some(found) => broken.push(format!("size {size}: {what} is {found:.3}, more than {most}")),
                    None => broken.push(format!("size {size}: {what} is not known")),
                }
            };
            check("CPU µs per packet", self.max_cpu_us_per_packet, cpu.map(|cpu| cpu.per_packet()));
            check("loss in percent", self.max_loss, Some(stage.loss_after_repair));
            check("p99 delay in ms", self.max_p99_ms, (stage.delay.count > 0).then_some(stage.delay.p99));
            // A stage that nobody joined for has nothing to say about joining.
            check("p99 of joining in ms", self.max_join_p99_ms, Some(stage.join.p99));
            check(
                "memory per person in kB",
                self.max_rss_kb_per_person,
                cpu.map(|cpu| cpu.rss_per_participant / 1000.0),
            );
            if let Some(least) = self.min_kpps_per_core {
                match cpu.map(|cpu| cpu.kpps_per_core()) {
                    Some(found) if found >= least => {}
                    Some(found) => {
                        broken.push(format!("size {}: kpps per core is {found:.0}, less than {least}", stage.size));
                    }
                    None => broken.push(format!("size {}: kpps per core is not known", stage.size)),
                }
            }
            if stage.packets == 0 {
                broken.push(format!("size {}: nothing was forwarded", stage.size));
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Cpu;

    #[test]
    fn limits_are_kept_or_named() {
        let stage = Stage { size: 7, packets: 1, loss_after_repair: 0.5, ..Stage::default() };
        let none = Limits::default();
        assert!(none.broken(std::slice::from_ref(&stage)).is_empty());
        let loss = Limits { max_loss: Some(0.1), ..none };
        assert_eq!(loss.broken(std::slice::from_ref(&stage)), ["size 7: loss in percent is 0.500, more than 0.1"]);
        let cpu = Limits { max_cpu_us_per_packet: Some(2.0), min_kpps_per_core: Some(450.0), ..none };
        assert_eq!(cpu.broken(std::slice::from_ref(&stage)).len(), 2);
        let known =
            Stage { cpu: Some(Cpu { user_per_packet: 1.0, system_per_packet: 1.0, ..Cpu::default() }), ..stage };
        assert!(cpu.broken(std::slice::from_ref(&known)).is_empty());
        let silent = Stage { packets: 0, ..known };
        assert_eq!(none.broken(&[silent]), ["size 7: nothing was forwarded"]);
    }
}
