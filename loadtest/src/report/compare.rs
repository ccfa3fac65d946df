//! A run against an older one: ratios, which travel between machines better than times do.

use std::fmt::Write;

use super::{Report, Stage};

/// Its name, and how to read it off a stage that has it.
type Measure = (&'static str, fn(&Stage) -> Option<f64>);

/// What is compared; less is better in all of them.
const MEASURES: [Measure; 8] = [
    ("CPU µs/packet", |stage| stage.cpu.map(|cpu| cpu.per_packet())),
    ("… user", |stage| stage.cpu.map(|cpu| cpu.user_per_packet)),
    ("… system", |stage| stage.cpu.map(|cpu| cpu.system_per_packet)),
    ("kB per person", |stage| stage.cpu.map(|cpu| cpu.rss_per_participant / 1000.0)),
    ("delay p50 ms", |stage| (stage.delay.count > 0).then_some(stage.delay.p50)),
    ("delay p99 ms", |stage| (stage.delay.count > 0).then_some(stage.delay.p99)),
    ("join p99 ms", |stage| (stage.join.count > 0).then_some(stage.join.p99)),
    ("loss after repair %", |stage| Some(stage.loss_after_repair)),
];

/// A table of the stages that both have, by size.
pub fn render(old: &Report, new: &Report) -> String {
    let mut text = String::new();
    if old.machine != new.machine {
        text += "The machines differ: only ratios between servers of one run mean something.\n";
    }
    if (old.scenario, &old.suite, &old.pacing) != (new.scenario, &new.suite, &new.pacing) {
        let _ = writeln!(
            text,
            "The runs differ: {:?}, {}, {} before; {:?}, {}, {} now.",
            old.scenario, old.suite, old.pacing, new.scenario, new.suite, new.pacing
        );
    }
    let _ = writeln!(text, "{:>6}  {:<20} {:>10} {:>10} {:>7}", "size", "", "before", "now", "ratio");
    let mut common = 0;
    for stage in &new.stages {
        // Of stages with one size the last: a sweep comes back to a size only when it is warm.
        let Some(before) = old.stages.iter().rfind(|before| before.size == stage.size) else { continue };
        common += 1;
        for (name, measure) in MEASURES {
            let (Some(before), Some(now)) = (measure(before), measure(stage)) else { continue };
            let ratio = if before > 0.0 { format!("{:.2}", now / before) } else { "–".into() };
            let _ = writeln!(text, "{:>6}  {name:<20} {before:>10.3} {now:>10.3} {ratio:>7}", stage.size);
        }
    }
    if common == 0 {
        text += "The runs have no size in common.\n";
    }
    if let (Some(before), Some(now)) = (old.knee, new.knee) {
        let _ = writeln!(text, "knee: {before} before, {now} now, ratio {:.2}", now as f64 / before.max(1) as f64);
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::report::{Cpu, Quantiles};
    use crate::scenario::Scenario;

    pub fn report(cpu: f64, sizes: &[usize]) -> Report {
        let stage = |size: &usize| Stage {
            size: *size,
            packets: 1,
            cpu: Some(Cpu { user_per_packet: cpu / 4.0, system_per_packet: cpu * 3.0 / 4.0, ..Cpu::default() }),
            delay: Quantiles { count: 1, p50: 0.1, p95: 0.2, p99: 0.3, max: 0.4 },
            delay_curve: vec![(0.0, 0.05), (50.0, 0.1), (99.0, 0.3), (100.0, 0.4)],
            ..Stage::default()
        };
        Report {
            server: "parlour".into(),
            scenario: Scenario::V,
            suite: "AEAD_AES_128_GCM".into(),
            machine: Machine { cpu: "a <fast> one".into(), cores: 2, kernel: "6.1".into() },
            seed: 1,
            pacing: "burst".into(),
            publishers: 1,
            stages: sizes.iter().map(stage).collect(),
            knee: None,
        }
    }

    #[test]
    fn ratios_are_of_equal_sizes() {
        let text = render(&report(4.0, &[50, 100]), &report(1.0, &[100, 200]));
        let line = text.lines().find(|line| line.contains("CPU")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["100", "CPU", "µs/packet", "4.000", "1.000", "0.25"]);
        assert_eq!(text.lines().filter(|line| line.contains("CPU")).count(), 1);
        assert!(!text.contains("differ"));
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        let mut other = report(1.0, &[7]);
        other.suite = "AES128_CM_HMAC_SHA1_80".into();
        other.machine.cores = 64;
        let text = render(&report(1.0, &[5]), &other);
        assert!(text.contains("machines differ") && text.contains("runs differ") && text.contains("no size in common"));
    }

    #[test]
    fn reports_survive_their_file() {
        let mut before = report(4.0, &[50, 100]);
        before.knee = Some(100);
        let after = Report::from_json(&before.to_json()).unwrap();
        assert_eq!((after.stages, after.knee, after.machine), (before.stages, before.knee, before.machine));
        assert!(Report::from_json("{}").is_err());
    }
}
