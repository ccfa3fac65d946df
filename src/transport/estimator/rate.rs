//! The rate that the delay allows: up while packets flow freely, down to what arrives when they queue up.
//!
//! Additive increase near the rate at which the path was last overused, multiplicative far from it, multiplicative decrease
//! (draft-ietf-rmcat-gcc-02 §5.5). A long way up is not made this way: that is what probes are for.

use super::delay::Usage;
use super::{MAX_BITRATE, MIN_BITRATE, Micros, START_BITRATE};

/// Share of the arriving rate to go on with after an overuse: the rest drains the queue (gcc-02 §5.5: 0.8 to 0.95).
const DECREASE: f64 = 0.85;

/// The same when the queue only stands.
const DRAIN: f64 = 0.94;

/// Draining leaves this share of the rate before it: what does not shrink by then will not, see `delay.rs`.
const MAX_DRAIN: f64 = 0.6;

/// A longer queue is drained faster, within this time.
const DRAIN_TIME_MS: f64 = 1000.0;
/// But no less than this share of the arriving rate is left.
const MIN_DECREASE: f64 = 0.7;

/// A decrease takes no more than this at once. If much less is sent than estimated, the rate that arrives tells little about
/// the path: several alarms have to agree.
const MAX_DECREASE: f64 = 0.5;

/// Growth per second far from the known capacity (gcc-02 §5.5).
const INCREASE_PER_SECOND: f64 = 0.08;

/// The estimate may exceed what arrives by this factor and rate (gcc-02 §5.5: 1.5; the rate lets tiny flows grow).
const MAX_OVER_ACKNOWLEDGED: f64 = 1.5;
const OVER_ACKNOWLEDGED: f64 = 10_000.0;

/// With a queue above this the rate is right or too high already.
const HOLD_QUEUE_MS: f32 = 25.0;

/// Additive increase is one packet in each time that a change takes to show: a round trip and a feedback interval.
const PACKET_BITS: f64 = 1200.0 * 8.0;
const FEEDBACK_INTERVAL: f64 = 0.1;
/// But no slower than this share of the multiplicative increase: at high rates a packet is next to nothing.
const MIN_NEAR_SHARE: f64 = 0.3;

/// A decrease shows after a round trip and a feedback interval, then is given this time to drain the queue.
const SETTLE: Micros = 200_000;

/// Assumed while none was measured, seconds.
const DEFAULT_ROUND_TRIP: f64 = 0.1;

/// Weight of the newest overuse in the mean capacity, and how wide around the mean counts as near (standard deviations).
const CAPACITY_WEIGHT: f64 = 0.05;
const NEAR_DEVIATIONS: f64 = 3.0;

#[derive(Debug)]
pub struct Rate {
    bitrate: f64,
    is_start: bool,
    capacity: Capacity,
    last_update: Option<Micros>,
    /// A decrease or a probe shows its effect before this: until then the queue tells nothing new.
    settled_at: Micros,
    /// The rate when a standing queue was first seen.
    drained_from: Option<f64>,
}

/// What one feedback says.
pub struct Report {
    pub usage: Usage,
    pub queue_ms: f32,
    /// Bits per second that arrived over the usual and the short window.
    pub acknowledged: f64,
    pub recently_acknowledged: f64,
    pub round_trip: Option<Micros>,
    /// Packets of a probe are arriving: a queue is what they make.
    pub is_probing: bool,
}

impl Rate {
    pub fn new() -> Self {
        Rate {
            bitrate: START_BITRATE as f64,
            is_start: true,
            capacity: Capacity::default(),
            last_update: None,
            settled_at: 0,
            drained_from: None,
        }
    }

    /// Bits per second.
    pub fn bitrate(&self) -> f64 {
        self.bitrate
    }

    pub fn update(&mut self, now: Micros, report: &Report) {
        let step = self.last_update.replace(now).map_or(0.0, |last| (now - last) as f64 / 1e6).min(1.0);
        match report.usage {
            Usage::Standing | Usage::Draining => {}
            Usage::Normal | Usage::Overuse => self.drained_from = None,
        }
        match report.usage {
            Usage::Overuse => self.decrease(now, report, DECREASE),
            Usage::Standing => {
                let from = *self.drained_from.get_or_insert(self.bitrate);
                if self.bitrate > MAX_DRAIN * from {
                    self.decrease(now, report, DRAIN);
                }
            }
            Usage::Normal if report.queue_ms < HOLD_QUEUE_MS => self.increase(step, report),
            Usage::Normal | Usage::Draining => {}
        }
    }

    /// A probe found that the path carries this.
    pub fn probed(&mut self, now: Micros, bitrate: f64) {
        self.settled_at = now + SETTLE;
        // A lower result tells of a queue that was there before the probe; only at the start nothing better is known.
        if bitrate > self.bitrate || self.is_start {
            self.set(bitrate);
            self.capacity.forget_unless_near(bitrate);
        }
        self.is_start = false;
    }

    /// Nothing is heard from the receiver.
    pub fn back_off(&mut self, factor: f64) {
        self.set(self.bitrate * factor);
    }

    fn decrease(&mut self, now: Micros, report: &Report, factor: f64) {
        if now < self.settled_at || report.is_probing {
            return;
        }
        self.capacity.observe(report.recently_acknowledged);
        let factor = factor.min(1.0 - f64::from(report.queue_ms) / DRAIN_TIME_MS).max(MIN_DECREASE);
        // The start rate is a guess that deserves no such care.
        let least = if self.is_start { 0.0 } else { MAX_DECREASE * self.bitrate };
        let target = (factor * report.recently_acknowledged).max(least);
        if target < self.bitrate {
            self.settled_at = now + report.round_trip.unwrap_or(0) + SETTLE;
            self.is_start = false;
            self.set(target);
        }
    }

    fn increase(&mut self, step: f64, report: &Report) {
        self.capacity.forget_if_above(report.acknowledged);
        let multiplicative = self.bitrate * INCREASE_PER_SECOND * step;
        let growth = if self.capacity.is_near(self.bitrate) {
            let round_trip = report.round_trip.map_or(DEFAULT_ROUND_TRIP, |micros| micros as f64 / 1e6);
            let additive = PACKET_BITS * step / (round_trip + FEEDBACK_INTERVAL);
            additive.clamp(multiplicative * MIN_NEAR_SHARE, multiplicative)
        } else {
            multiplicative
        };
        let limit = MAX_OVER_ACKNOWLEDGED * report.acknowledged + OVER_ACKNOWLEDGED;
        if self.bitrate < limit {
            // What arrives without a queue is carried, whatever was thought before: a stream may be wider than any probe.
            let carried = report.acknowledged.min(report.recently_acknowledged);
            self.set((self.bitrate + growth).min(limit).max(carried));
        }
    }

    fn set(&mut self, bitrate: f64) {
        self.bitrate = bitrate.clamp(MIN_BITRATE as f64, MAX_BITRATE as f64);
    }
}

/// At which rates the path was overused: mean and variance, exponentially weighted.
#[derive(Debug, Default)]
struct Capacity {
    mean: Option<f64>,
    /// Of the rate relative to the mean.
    variance: f64,
}

impl Capacity {
    fn observe(&mut self, bitrate: f64) {
        self.forget_unless_near(bitrate);
        let mean = *self.mean.get_or_insert(bitrate);
        let error = bitrate / mean - 1.0;
        self.mean = Some(mean + CAPACITY_WEIGHT * (bitrate - mean));
        self.variance = (1.0 - CAPACITY_WEIGHT) * self.variance + CAPACITY_WEIGHT * error * error;
    }

    fn is_near(&self, bitrate: f64) -> bool {
        self.mean.is_some_and(|mean| (bitrate / mean - 1.0).abs() < NEAR_DEVIATIONS * self.deviation())
    }

    fn forget_if_above(&mut self, bitrate: f64) {
        if self.mean.is_some_and(|mean| bitrate / mean - 1.0 > NEAR_DEVIATIONS * self.deviation()) {
            *self = Capacity::default();
        }
    }

    fn forget_unless_near(&mut self, bitrate: f64) {
        if !self.is_near(bitrate) {
            *self = Capacity::default();
        }
    }

    /// At least 5 %, since few overuses make no statistics; at most 15 %, since half the rate is not near.
    fn deviation(&self) -> f64 {
        self.variance.sqrt().clamp(0.05, 0.15)
    }
}
