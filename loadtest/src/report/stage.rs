//! One measurement: so many people in the room, for so long.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::server::process::Usage;
use crate::sink::{Histogram, Window};

/// Points of the delay curve in a report: enough for a smooth line.
const CURVE: [f64; 14] = [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.99, 100.0];

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// How many receive; in a meeting, how many are in it.
    pub size: usize,
    /// Publishers as well.
    pub participants: usize,
    pub seconds: f64,
    /// From the start of joining to media connected. Of those who joined for this stage.
    pub join: Quantiles,
    pub first_frame: Quantiles,
    pub delay: Quantiles,
    /// Percentile and milliseconds.
    pub delay_curve: Vec<(f64, f64)>,
    pub switch: Quantiles,
    pub recovery: Quantiles,
    /// RTP packets that the server sent to receivers.
    pub packets: u64,
    pub packets_per_s: f64,
    pub megabits_per_s: f64,
    pub retransmissions: u64,
    /// Percent of the packets that should have come.
    pub loss: f64,
    pub loss_after_repair: f64,
    pub streams: u64,
    pub silent_streams: u64,
    pub disconnected: u64,
    /// Packets whose keys did not fit.
    pub forged: u64,
    pub unknown: u64,
    /// Packets that came before the handshake was done, while people joined.
    pub early: u64,
    /// Times that a viewer had no picture to show and asked for a keyframe: while people joined, and while it was measured.
    pub blind_joins: u64,
    pub broken_pictures: u64,
    pub duplicates: u64,
    pub nacks_sent: u64,
    pub keyframes_wanted: u64,
    pub longest_pause_ms: f64,
    /// `None` when the process is not known.
    pub cpu: Option<Cpu>,
    /// Cores that the generator used, and how many it has.
    pub generator_busy: f64,
    pub generator_cores: usize,
    /// Datagrams that the generator was too slow for.
    pub generator_drops: u64,
    pub churn: Option<Churn>,
    /// Of a TURN server.
    #[serde(default)]
    pub allocations: Option<Allocations>,
    /// Of the server, for each packet sent to a receiver; counted after the measurement.
    pub syscalls_per_packet: Option<f64>,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub count: u64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// What the server's process cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Microseconds for each packet sent to a receiver.
    pub user_per_packet: f64,
    pub system_per_packet: f64,
    /// Cores.
    pub busy: f64,
    pub rss: u64,
    /// Bytes above the idle server, for each participant.
    pub rss_per_participant: f64,
    pub open_files: u64,
    /// Datagrams that the server's sockets had no room for.
    pub drops: u64,
}

impl Cpu {
    pub fn per_packet(&self) -> f64 {
        self.user_per_packet + self.system_per_packet
    }

    /// Thousands of packets that one busy core sends in a second.
    pub fn kpps_per_core(&self) -> f64 {
        if self.per_packet() > 0.0 { 1000.0 / self.per_packet() } else { 0.0 }
    }
}

/// What came and went, and what stayed behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Churn {
    pub joins: u64,
    pub failed: u64,
    pub rss_before: u64,
    pub rss_after: u64,
    pub open_files_before: u64,
    pub open_files_after: u64,
}

/// How a TURN server took the allocations that were asked of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Allocations {
    /// With a bound channel, all in all.
    pub ready: u64,
    /// New ones per second, challenge and channel included.
    pub per_s: f64,
    /// CPU time of the server for each new one, microseconds.
    pub cpu_us: Option<f64>,
    /// What else came of requests, and how often.
    pub failures: BTreeMap<String, u64>,
}

impl Quantiles {
    pub fn of(histogram: &Histogram) -> Quantiles {
        if histogram.is_empty() {
            return Quantiles::default();
        }
        let ms = |micros: u64| micros as f64 / 1000.0;
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        Quantiles { count: histogram.len(), p50: at(0.5), p95: at(0.95), p99: at(0.99), max: ms(histogram.max()) }
    }
}

/// The servers's and the generator's usage at both ends of a window.
pub struct Usages {
    /// Idle, before; at the start; at the end.
    pub server: Option<(Usage, Usage, Usage)>,
    pub generator: (Usage, Usage),
    pub generator_cores: usize,
}

impl Stage {
    /// `ramp` is what was counted while people joined, `window` what was measured for `elapsed`.
    pub fn new(
        size: usize,
        participants: usize,
        elapsed: Duration,
        ramp: &Window,
        window: &Window,
        usages: &Usages,
    ) -> Stage {
        let seconds = elapsed.as_secs_f64();
        let (generator_before, generator_after) = usages.generator;
        Stage {
            size,
            participants,
            seconds,
            join: Quantiles::of(&ramp.join),
            first_frame: Quantiles::of(&ramp.first_frame),
            delay: Quantiles::of(&window.delay),
            delay_curve: curve(&window.delay),
            switch: Quantiles::of(&window.switch),
            recovery: Quantiles::of(&window.recovery),
            packets: window.packets,
            packets_per_s: window.packets as f64 / seconds,
            megabits_per_s: window.bytes as f64 * 8.0 / seconds / 1e6,
            retransmissions: window.retransmissions,
            loss: window.loss() * 100.0,
            loss_after_repair: window.loss_after_repair() * 100.0,
            streams: window.streams,
            silent_streams: window.silent_streams,
            disconnected: window.disconnected + ramp.disconnected,
            forged: window.forged,
            unknown: window.unknown,
            early: ramp.early + window.early,
            blind_joins: ramp.broken_pictures,
            broken_pictures: window.broken_pictures,
            duplicates: window.duplicates,
            nacks_sent: window.nacks_sent,
            keyframes_wanted: window.keyframes_wanted,
            longest_pause_ms: window.longest_pause as f64 / 1000.0,
            cpu: usages
                .server
                .map(|(idle, before, after)| Cpu::new(idle, before, after, window, elapsed, participants)),
            generator_busy: cpu(generator_before, generator_after).as_secs_f64() / seconds,
            generator_cores: usages.generator_cores,
            generator_drops: generator_after.socket_drops.saturating_sub(generator_before.socket_drops),
            churn: None,
            allocations: None,
            syscalls_per_packet: None,
        }
    }

    /// What a reader of the numbers must know to believe them.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |is: bool, text: String| {
            if is {
                warnings.push(text);
            }
        };
        warn(
            self.generator_drops > 0,
            format!(
                "the generator was too slow for {} packets: loss and delay are partly its own",
                self.generator_drops
            ),
        );
        warn(
            self.generator_busy > 0.95 * self.generator_cores as f64,
            "the generator's cores are full: delay and loss may be its own".into(),
        );
        warn(self.silent_streams > 0, format!("{} of {} streams were silent", self.silent_streams, self.streams));
        warn(self.disconnected > 0, format!("{} connections were lost", self.disconnected));
        warn(self.forged > 0, format!("{} packets did not open with their keys", self.forged));
        warn(
            self.early > 0,
            format!("{} packets were sent before the handshake was done: browsers drop them", self.early),
        );
        warn(
            self.blind_joins > 0,
            format!("{} times a viewer that joined had no whole keyframe after 200 ms", self.blind_joins),
        );
        if let Some(allocations) = &self.allocations {
            for (failure, count) in &allocations.failures {
                warn(true, format!("{count} allocations failed: {failure}"));
            }
        }
        warn(self.unknown > 0, format!("{} packets belong to no stream", self.unknown));
        if let Some(cpu) = self.cpu {
            warn(cpu.drops > 0, format!("the server's sockets had no room for {} packets", cpu.drops));
        }
        warnings
    }
}

impl Cpu {
    fn new(idle: Usage, before: Usage, after: Usage, window: &Window, elapsed: Duration, participants: usize) -> Cpu {
        let per_packet =
            |time: Duration| if window.packets == 0 { 0.0 } else { time.as_secs_f64() * 1e6 / window.packets as f64 };
        Cpu {
            user_per_packet: per_packet(after.user.saturating_sub(before.user)),
            system_per_packet: per_packet(after.system.saturating_sub(before.system)),
            busy: cpu(before, after).as_secs_f64() / elapsed.as_secs_f64(),
            rss: after.rss,
            rss_per_participant: after.rss.saturating_sub(idle.rss) as f64 / participants.max(1) as f64,
            open_files: after.open_files,
            drops: after.socket_drops.saturating_sub(before.socket_drops),
        }
    }
}

fn cpu(before: Usage, after: Usage) -> Duration {
    after.cpu().saturating_sub(before.cpu())
}

fn curve(histogram: &Histogram) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    CURVE.map(|percentile| (percentile, histogram.value_at_percentile(percentile) as f64 / 1000.0)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu_ms: u64, rss: u64) -> Usage {
        Usage {
            user: Duration::from_millis(cpu_ms / 4),
            system: Duration::from_millis(cpu_ms * 3 / 4),
            rss,
            ..Usage::default()
        }
    }

    #[test]
    fn a_stage_divides_by_packets_people_and_time() {
        let window = Window {
            packets: 100_000,
            bytes: 100_000_000,
            expected: 1000,
            lost: 20,
            recovered: 15,
            ..Default::default()
        };
        let usages = Usages {
            server: Some((usage(0, 1000), usage(1000, 0), usage(2000, 51_000))),
            generator: (usage(0, 0), usage(3000, 0)),
            generator_cores: 1,
        };
        let stage = Stage::new(49, 50, Duration::from_secs(4), &Window::default(), &window, &usages);
        let cpu = stage.cpu.unwrap();
        assert_eq!((cpu.user_per_packet, cpu.system_per_packet, cpu.busy), (2.5, 7.5, 0.25));
        assert_eq!((cpu.kpps_per_core(), cpu.rss_per_participant), (100.0, 1000.0));
        assert_eq!((stage.packets_per_s, stage.megabits_per_s), (25_000.0, 200.0));
        assert_eq!((stage.loss, stage.loss_after_repair), (2.0, 0.5));
        assert_eq!(stage.generator_busy, 0.75);
        assert!(stage.warnings().is_empty());
        let full = Stage { generator_busy: 1.0, silent_streams: 2, ..stage };
        assert_eq!(full.warnings().len(), 2);
    }

    #[test]
    fn quantiles_are_milliseconds() {
        let mut histogram = Window::default().delay;
        for micros in 1..=1000 {
            histogram.record(micros * 10).unwrap();
        }
        let quantiles = Quantiles::of(&histogram);
        assert_eq!(quantiles.count, 1000);
        assert!((quantiles.p50 - 5.0).abs() < 0.02 && (quantiles.max - 10.0).abs() < 0.02, "{quantiles:?}");
        assert_eq!(curve(&histogram).len(), CURVE.len());
    }
}
