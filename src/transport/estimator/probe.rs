//! Probes: short bursts faster than the estimate, to learn quickly whether the path carries more.
//!
//! The estimate by itself rises 8 % per second and never much beyond what is sent, and an SFU sends layers: it
//! cannot send a little more of a video. So whenever more is wanted than estimated, a few packets are sent at a multiple
//! of the estimate and the rate at which they arrive is the path's. While a probe gets through, the next follows at once;
//! when it does not, the next waits, longer each time. Nothing is probed that nobody wants.

use std::num::NonZeroU16;

use super::{MAX_BITRATE, Micros, START_BITRATE};

/// Multiples of the estimate that are probed: the first time, and later.
const FIRST_SCALE: f64 = 3.0;
const SCALE: f64 = 2.0;

/// No probe exceeds what is wanted by more: a tenth to have it for sure, and what is lost where a full path counts as 95 %.
const MAX_OVER_DESIRED: f64 = 1.2;

/// The estimate is enough when it is no further below what is wanted.
const ENOUGH: f64 = 0.97;

/// Length of a probe, seconds. A longer one tells more through jitter, and when it fails fills a queue as long as itself.
const DURATION: std::ops::RangeInclusive<f64> = 0.025..=0.1;
const MIN_PACKETS: u32 = 5;

/// How wrong jitter may make the measured rate: one standard deviation.
const MAX_ERROR: f64 = 0.15;
const PACKET_BITS: f64 = 1200.0 * 8.0;

/// Share of the probe that must arrive.
const MIN_RECEIVED: f64 = 0.8;

/// Arrived at this share of the rate sent, a probe did not meet a bottleneck; a lower rate is the bottleneck's own.
const UNSATURATED: f64 = 0.9;
/// Of a bottleneck's rate this is used: the rest drains the queue that the probe made.
const UTILIZATION: f64 = 0.95;

/// A result of at least this share of the target is worth a further probe at once.
const FURTHER: f64 = 0.7;

/// A probe without a result after this has failed. Feedback may take 250 ms, a round trip a second.
const TIMEOUT: Micros = 1_500_000;

/// A probe's packets are through the path after this.
const MEASURING: Micros = 600_000;

/// Pause after a failed probe; grows by the factor with each failure in a row. The longest is how long somebody looks at small
/// pictures although the path is wide again; against it, a failed probe is a tenth of a second of queue.
const MIN_PAUSE: Micros = 2_000_000;
const MAX_PAUSE: Micros = 6_000_000;
const PAUSE_GROWTH: f64 = 1.5;

/// Pause after the estimate dropped: the path may be back soon, and what took it must be gone.
const PAUSE_AFTER_DROP: Micros = 3_000_000;
/// A drop is a fall below this share of the estimate before it.
const DROP: f64 = 0.66;

/// The least time between probes when wishes change.
const MIN_INTERVAL: Micros = 1_000_000;
/// A wish is new when it exceeds the last by this factor.
const NEW_WISH: f64 = 1.1;

/// When the path is not calm enough for a probe, look again after this.
const RETRY: Micros = 100_000;

/// The first packets that leave in a row are a probe that costs nothing: a gallery's first pictures leave faster than most
/// paths carry. A row ends with a pause this long, and tells something from so many bytes on: 16 ms of what is probed first.
const TRAIN_GAP: Micros = 10_000;
const TRAIN_BYTES: u64 = 6_000;
/// Of a bottleneck's rate this is used at first: what followed them fills its queue, which has to drain.
const TRAIN_UTILIZATION: f64 = 0.7;
/// It is given this time for it before there is another probe.
const TRAIN_PAUSE: Micros = 500_000;

/// Which probe a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProbeId(NonZeroU16);

/// A probe to send now: packets tagged with its id, evenly at `bitrate`, until both minima are met. Media first, padding
/// for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub id: ProbeId,
    /// Bits per second.
    pub bitrate: u64,
    pub min_packets: u32,
    pub min_bytes: usize,
}

/// The first packets that left in a row.
#[derive(Debug)]
struct Train {
    cluster: Cluster,
    sent: Micros,
    sent_bytes: u64,
}

/// What came of a probe so far.
#[derive(Debug)]
struct Cluster {
    probe: Probe,
    started: Micros,
    packets: u32,
    bytes: u64,
    first_sent: Micros,
    last_sent: Micros,
    /// Of the packet sent last: it lies outside of the span.
    last_bytes: u16,
    /// Number and arrival of the first packet that was reported.
    origin: (u64, Micros),
    last_number: u64,
    /// For the line of arrival (seconds) over number, relative to the origin.
    sum_x: f64,
    sum_y: f64,
    sum_xx: f64,
    sum_xy: f64,
}

#[derive(Debug)]
pub struct Probes {
    desired: f64,
    /// What was wanted when a probe was last planned for a wish.
    planned_desired: f64,
    last_id: ProbeId,
    cluster: Option<Cluster>,
    train: Option<Train>,
    /// Nothing was measured yet.
    is_first: bool,
    /// The last probe got through.
    is_through: bool,
    last_probe: Option<Micros>,
    next_probe: Micros,
    pause: Micros,
    /// The estimate that a drop is measured from.
    peak: f64,
    /// What the path carried before it fell silent.
    lost: Option<f64>,
}

impl Probes {
    pub fn new() -> Self {
        Probes {
            desired: 0.0,
            planned_desired: 0.0,
            last_id: ProbeId(NonZeroU16::MIN),
            cluster: None,
            train: None,
            is_first: true,
            is_through: false,
            last_probe: None,
            next_probe: 0,
            pause: MIN_PAUSE,
            peak: 0.0,
            lost: None,
        }
    }

    pub fn set_desired(&mut self, now: Micros, desired: f64) {
        self.desired = desired;
        if desired > self.planned_desired * NEW_WISH {
            let earliest = self.last_probe.map_or(now, |last| last + MIN_INTERVAL);
            self.next_probe = self.next_probe.min(earliest.max(now));
            self.planned_desired = desired;
        } else if desired < self.planned_desired {
            self.planned_desired = desired;
        }
    }

    /// The estimate changed.
    pub fn set_estimate(&mut self, now: Micros, estimate: f64) {
        if estimate < self.peak * DROP {
            self.pause = MIN_PAUSE;
            self.next_probe = now + PAUSE_AFTER_DROP;
            self.peak = estimate;
        }
        self.peak = self.peak.max(estimate);
    }

    /// The path answers again, which carried so much before it fell silent: mostly it is the same, so that is tried first.
    pub fn resume(&mut self, now: Micros, before: f64) {
        self.cluster = None;
        self.pause = MIN_PAUSE;
        self.next_probe = now;
        self.lost = Some(before);
    }

    fn wants(&self, estimate: f64) -> bool {
        estimate < self.desired * ENOUGH && estimate < MAX_BITRATE as f64 * ENOUGH
    }

    /// A packet of no probe leaves before anything is known of the path: which probe it is taken for.
    pub fn train(&mut self, sent: Micros, bytes: u16) -> Option<ProbeId> {
        if !self.is_first {
            return None;
        }
        let is_new = |train: &Train| sent - train.sent >= TRAIN_GAP && train.sent_bytes < TRAIN_BYTES;
        if self.train.as_ref().is_none_or(is_new) {
            let bitrate = (FIRST_SCALE * START_BITRATE as f64) as u64;
            let probe =
                Probe { id: self.next_id(), bitrate, min_packets: MIN_PACKETS, min_bytes: TRAIN_BYTES as usize };
            self.train = Some(Train { cluster: Cluster::new(probe, sent), sent, sent_bytes: 0 });
        }
        let train = self.train.as_mut().filter(|train| sent - train.sent < TRAIN_GAP)?;
        (train.sent, train.sent_bytes) = (sent, train.sent_bytes + u64::from(bytes));
        Some(train.cluster.probe.id)
    }

    /// What the first packets measured, bits per second: less than they were sent at is the rate of the path.
    fn train_result(&mut self, now: Micros) -> Option<f64> {
        let Train { cluster, .. } = self.train.take_if(|train| train.cluster.has_all())?;
        let (result, is_through) = cluster.measure();
        // As of other probes, nothing is believed that nobody wants.
        let result = if is_through { result.min(self.desired * MAX_OVER_DESIRED) } else { result };
        if is_through && result <= START_BITRATE as f64 {
            return None;
        }
        self.is_first = false;
        self.is_through = is_through;
        if is_through {
            self.next_probe = now;
            return Some(result);
        }
        self.next_probe = now + TRAIN_PAUSE;
        Some(result * TRAIN_UTILIZATION / UTILIZATION)
    }

    fn next_id(&mut self) -> ProbeId {
        self.last_id = ProbeId(self.last_id.0.checked_add(1).unwrap_or(NonZeroU16::MIN));
        self.last_id
    }

    /// The next probe, if it is time. `is_calm`: nothing queues up, few losses.
    /// `jitter`: of single packets, in seconds.
    pub fn poll(&mut self, now: Micros, estimate: f64, is_calm: bool, jitter: f64) -> Option<Probe> {
        if self.cluster.as_ref().is_some_and(|cluster| now - cluster.started >= TIMEOUT) {
            self.cluster = None;
            self.failed(now);
        }
        if self.cluster.is_some() || !self.wants(estimate) || now < self.next_probe {
            return None;
        }
        if !is_calm {
            self.next_probe = now + RETRY;
            return None;
        }
        let scale = if std::mem::take(&mut self.is_first) { FIRST_SCALE } else { SCALE };
        let bitrate = (estimate * scale).max(self.lost.take().unwrap_or(0.0));
        let bitrate = bitrate.min(self.desired * MAX_OVER_DESIRED).min(MAX_BITRATE as f64);
        let probe = Probe {
            id: self.next_id(),
            bitrate: bitrate as u64,
            min_packets: MIN_PACKETS,
            min_bytes: (bitrate * duration(bitrate, jitter) / 8.0) as usize,
        };
        self.cluster = Some(Cluster::new(probe, now));
        self.last_probe = Some(now);
        Some(probe)
    }

    /// When to poll next.
    pub fn next_timeout(&self, estimate: f64) -> Option<Micros> {
        match &self.cluster {
            Some(cluster) => Some(cluster.started + TIMEOUT),
            None => self.wants(estimate).then_some(self.next_probe),
        }
    }

    pub fn received(&mut self, id: ProbeId, number: u64, sent: Micros, arrival: Micros, bytes: u16) {
        let clusters = [self.cluster.as_mut(), self.train.as_mut().map(|train| &mut train.cluster)];
        if let Some(cluster) = clusters.into_iter().flatten().find(|cluster| cluster.probe.id == id) {
            cluster.received(number, sent, arrival, bytes);
        }
    }

    /// Whether packets of a probe are arriving, and the rest should soon.
    pub fn is_measuring(&self, now: Micros) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.packets > 0 && now - cluster.started < MEASURING)
    }

    /// Whether more is wanted than the last probe found, which met no limit.
    pub fn is_climbing(&self, estimate: f64) -> bool {
        self.is_through && self.wants(estimate)
    }

    /// What the probe measured, in bits per second, once enough of it has arrived. After each feedback.
    pub fn result(&mut self, now: Micros) -> Option<f64> {
        let Some(cluster) = self.cluster.take_if(|cluster| cluster.is_complete()) else {
            return self.train_result(now);
        };
        self.train = None;
        let (result, _) = cluster.measure();
        if result >= FURTHER * cluster.probe.bitrate as f64 {
            self.is_through = true;
            self.pause = MIN_PAUSE;
            self.next_probe = now;
        } else {
            self.failed(now);
        }
        Some(result)
    }

    fn failed(&mut self, now: Micros) {
        self.is_through = false;
        self.next_probe = now + self.pause;
        self.pause = ((self.pause as f64 * PAUSE_GROWTH) as Micros).min(MAX_PAUSE);
    }
}

/// Seconds that a probe must last for its rate to be told in spite of jitter: the slope of a line through n points of one
/// spread over a time t is wrong by jitter · √(12 / n) / t, and n grows with t.
fn duration(bitrate: f64, jitter: f64) -> f64 {
    let needed = (jitter / MAX_ERROR * (12.0 * PACKET_BITS / bitrate).sqrt()).powf(2.0 / 3.0);
    needed.clamp(*DURATION.start(), *DURATION.end())
}

impl Cluster {
    fn new(probe: Probe, started: Micros) -> Self {
        Cluster {
            probe,
            started,
            packets: 0,
            bytes: 0,
            first_sent: 0,
            last_sent: 0,
            last_bytes: 0,
            origin: (0, 0),
            last_number: 0,
            sum_x: 0.0,
            sum_y: 0.0,
            sum_xx: 0.0,
            sum_xy: 0.0,
        }
    }

    fn received(&mut self, number: u64, sent: Micros, arrival: Micros, bytes: u16) {
        if self.packets == 0 {
            (self.first_sent, self.last_sent, self.last_bytes) = (sent, sent, bytes);
            (self.origin, self.last_number) = ((number, arrival), number);
        }
        self.packets += 1;
        self.bytes += u64::from(bytes);
        self.first_sent = self.first_sent.min(sent);
        self.last_number = self.last_number.max(number);
        if sent >= self.last_sent {
            (self.last_sent, self.last_bytes) = (sent, bytes);
        }
        let x = number as f64 - self.origin.0 as f64;
        let y = arrival.saturating_sub(self.origin.1) as f64 / 1e6;
        self.sum_x += x;
        self.sum_y += y;
        self.sum_xx += x * x;
        self.sum_xy += x * y;
    }

    fn is_complete(&self) -> bool {
        f64::from(self.packets) >= MIN_RECEIVED * f64::from(self.probe.min_packets)
            && self.bytes as f64 >= MIN_RECEIVED * self.probe.min_bytes as f64
    }

    /// Nothing of it need be missing.
    fn has_all(&self) -> bool {
        self.packets >= self.probe.min_packets && self.bytes >= self.probe.min_bytes as u64
    }

    /// Bits per second, and whether it met no bottleneck.
    fn measure(&self) -> (f64, bool) {
        let target = self.probe.bitrate as f64;
        let span = (self.last_sent - self.first_sent) as f64 / 1e6;
        // Packets handed to the network in one go have no rate of sending: the target stands for it.
        let sent =
            if span > 0.0 { target.min((self.bytes - u64::from(self.last_bytes)) as f64 * 8.0 / span) } else { target };
        let arrived = self.arrival_rate().unwrap_or(sent);
        if arrived < UNSATURATED * sent { (UTILIZATION * arrived, false) } else { (sent.min(arrived), true) }
    }

    /// From the slope of a line through the arrivals: their mean distance, with little regard to jitter. `None` when they
    /// came all at once.
    fn arrival_rate(&self) -> Option<f64> {
        let packets = f64::from(self.packets);
        let spread = self.sum_xx - self.sum_x * self.sum_x / packets;
        let seconds_per_packet = (self.sum_xy - self.sum_x * self.sum_y / packets) / spread;
        let numbers = (self.last_number - self.origin.0.min(self.last_number) + 1) as f64;
        (spread > 0.0 && seconds_per_packet > 0.0).then(|| self.bytes as f64 * 8.0 / (seconds_per_packet * numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESIRED: f64 = 4e6;

    /// What a probe of 2.4 Mb/s finds when packet `n` is sent and arrives at these microseconds.
    fn found(sent: impl Fn(i64) -> Micros, arrival: impl Fn(i64) -> Micros) -> Option<f64> {
        let mut probes = Probes::new();
        probes.set_desired(0, DESIRED);
        let probe = probes.poll(0, 800e3, true, 0.004).expect("more is wanted");
        assert_eq!(probe.bitrate, 2_400_000);
        let packets = probe.min_bytes.div_ceil(1200) as i64;
        for packet in 0..packets {
            probes.received(probe.id, packet as u64, sent(packet), arrival(packet), 1200);
        }
        probes.result(100_000)
    }

    fn assert_near(found: Option<f64>, expected: f64) {
        assert!(found.is_some_and(|found| (found / expected - 1.0).abs() < 0.04), "{found:?}, not {expected}");
    }

    #[test]
    fn a_free_path_carries_what_was_sent() {
        assert_near(found(|n| n * 4000, |n| 77 + n * 4000), 2.4e6);
    }

    #[test]
    fn a_bottleneck_spaces_packets_out() {
        assert_near(found(|n| n * 4000, |n| n * 9600), 0.95e6);
    }

    #[test]
    fn jitter_matters_little() {
        assert_near(found(|n| n * 4000, |n| n * 9600 + [3000, -3000, -3000, 3000][n as usize % 4]), 0.95e6);
    }

    #[test]
    fn arrivals_faster_than_sent_prove_nothing() {
        assert_near(found(|n| n * 8000, |n| n), 1.2e6);
        assert_near(found(|n| n * 8000, |_| 0), 1.2e6);
        assert_near(found(|n| n * 8000, |n| -n), 1.2e6);
        // Sent all at once: no more than the target.
        assert_near(found(|_| 0, |n| n), 2.4e6);
    }

    #[test]
    fn few_packets_are_no_result() {
        let mut probes = Probes::new();
        probes.set_desired(0, DESIRED);
        let probe = probes.poll(0, 800e3, true, 0.0).expect("more is wanted");
        for packet in 0..3 {
            probes.received(probe.id, packet, 0, 4000 * packet as Micros, 1200);
        }
        assert_eq!(probes.result(100_000), None);
        assert_eq!(probes.poll(TIMEOUT - 1, 800e3, true, 0.0), None);
        // It failed for want of an answer: the next waits.
        assert_eq!(probes.poll(TIMEOUT, 800e3, true, 0.0), None);
        assert_eq!(probes.next_timeout(800e3), Some(TIMEOUT + MIN_PAUSE));
        assert!(probes.poll(TIMEOUT + MIN_PAUSE, 800e3, true, 0.0).is_some());
    }

    #[test]
    fn only_what_is_wanted_is_probed() {
        let mut probes = Probes::new();
        assert_eq!(probes.poll(0, 1e6, true, 0.0), None);
        probes.set_desired(0, 1e6);
        assert_eq!(probes.poll(0, 1e6, true, 0.0), None);
        assert_eq!(probes.next_timeout(1e6), None);
        probes.set_desired(0, 1.5e6);
        assert_eq!(probes.poll(0, 1e6, false, 0.0), None, "the path is not calm");
        let bitrate = probes.poll(RETRY, 1e6, true, 0.0).map(|probe| probe.bitrate);
        assert_eq!(bitrate, Some(1_800_000));
    }
}
