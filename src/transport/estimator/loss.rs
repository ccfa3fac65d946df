//! The rate that the losses allow: tells losses that come with the path from losses that we cause.
//!
//! A path loses a share `q` of packets whatever we send (radio), and everything above its bandwidth `b` when its queue is
//! too short to show in the delay (a policer). So of the packets sent at rate `s` the share `q + (1 − q) · max(0, 1 − b/s)`
//! is lost. Over the last seconds the pair that explains the losses best is sought among a few bandwidths around the
//! present one. If the losses look the same at all rates, they do not limit the rate.
//!
//! In the spirit of libwebrtc's `LossBasedBweV2`, with expectation–maximisation in place of Newton's method.

use super::Micros;

/// One observation is the packets sent in this time.
const OBSERVATION: Micros = 250_000;

/// Observations that are looked at, five seconds, and how much less each older one weighs.
const OBSERVATIONS: usize = 20;
const AGEING: f64 = 0.9;

/// Ageing of [`Loss::ratio`], which is to be recent.
const RATIO_AGEING: f64 = 0.7;

/// Bandwidths that are tried, relative to the present limit.
const CANDIDATES: [f64; 4] = [1.05, 1.0, 0.95, 0.85];

/// How much likelier, per packet, a bandwidth of e times as much counts: of explanations that are as good, the faster is
/// wanted.
const BANDWIDTH_BIAS: f64 = 0.02;

/// The largest share that is believed to come with the path, plus this rate over the bandwidth: a bad path still carries a
/// small video. Above it losses limit the rate although sending less would lose as much: repairing them takes room.
const MAX_INHERENT: f64 = 0.15;
const MAX_INHERENT_BALANCE: f64 = 75_000.0;

/// Never quite zero: expectation–maximisation could not leave it.
const MIN_INHERENT: f64 = 0.001;
const ITERATIONS: usize = 3;

/// The limit does not rise while this much more is lost than comes with the path.
const MAX_UNEXPLAINED: f64 = 0.02;

/// The limit may exceed what arrives by this factor when it rises.
const MAX_OVER_ACKNOWLEDGED: f64 = 1.5;

#[derive(Debug, Clone, Copy, Default)]
struct Observation {
    packets: f32,
    lost: f32,
    /// Sent, bits per second.
    bitrate: f32,
}

#[derive(Debug, Default)]
struct Partial {
    since: Option<Micros>,
    packets: u32,
    /// Negative when packets that an earlier observation counts as lost have arrived.
    lost: i32,
    bytes: u64,
}

#[derive(Debug)]
pub struct Loss {
    partial: Partial,
    observations: [Observation; OBSERVATIONS],
    /// Observations taken so far; the latest lies at `count - 1` modulo [`OBSERVATIONS`].
    count: usize,
    /// The fitted path: share lost whatever we send, and bandwidth in bits per second.
    inherent: f64,
    limit: Option<f64>,
    is_due: bool,
}

impl Loss {
    pub fn new() -> Self {
        Loss {
            partial: Partial::default(),
            observations: [Observation::default(); OBSERVATIONS],
            count: 0,
            inherent: MIN_INHERENT,
            limit: None,
            is_due: false,
        }
    }

    /// A packet that is reported for the first time, in the order of sending.
    pub fn reported(&mut self, sent: Micros, bytes: u16, lost: bool) {
        let since = *self.partial.since.get_or_insert(sent);
        let span = sent - since;
        if span >= OBSERVATION {
            self.close(span);
            self.partial.since = Some(sent);
        }
        self.partial.packets += 1;
        self.partial.lost += i32::from(lost);
        self.partial.bytes += u64::from(bytes);
    }

    /// A packet that was reported lost arrived after all.
    pub fn found(&mut self) {
        self.partial.lost -= 1;
    }

    fn close(&mut self, span: Micros) {
        let partial = std::mem::take(&mut self.partial);
        let lost = partial.lost.clamp(0, partial.packets as i32);
        // What is left over belongs to neighbours.
        self.partial.lost = (partial.lost - lost).clamp(-(partial.packets as i32), 0);
        self.observations[self.count % OBSERVATIONS] = Observation {
            packets: partial.packets as f32,
            lost: lost as f32,
            bitrate: (partial.bytes as f64 * 8e6 / span as f64) as f32,
        };
        self.count += 1;
        self.is_due = true;
    }

    /// Recent share of packets lost, 0.0 … 1.0.
    pub fn ratio(&self) -> f64 {
        self.average(RATIO_AGEING)
    }

    /// Bits per second, when losses limit the rate.
    pub fn limit(&self) -> Option<f64> {
        self.limit
    }

    /// A probe found that the path carries this.
    pub fn probed(&mut self, bitrate: f64) {
        self.limit = self.limit.map(|limit| limit.max(bitrate));
    }

    /// After each feedback. `ceiling`: what the delay allows; `acknowledged`: what arrives.
    pub fn update(&mut self, ceiling: f64, acknowledged: f64) {
        if !std::mem::take(&mut self.is_due) {
            return;
        }
        let average = self.average(AGEING);
        if average == 0.0 && self.limit.is_none() {
            self.inherent = MIN_INHERENT;
            return;
        }
        let present = self.limit.unwrap_or(ceiling).min(ceiling);
        let candidates = CANDIDATES.map(|factor| factor * present).into_iter().chain([acknowledged, ceiling]);
        let mut best = (f64::NEG_INFINITY, present, self.inherent);
        for bandwidth in candidates {
            let bandwidth = bandwidth.min(ceiling).max(1.0);
            let inherent = self.fit_inherent(bandwidth);
            let score = self.likelihood(bandwidth, inherent) + BANDWIDTH_BIAS * (bandwidth / present).ln();
            if score > best.0 {
                best = (score, bandwidth, inherent);
            }
        }
        let (_, mut bandwidth, inherent) = best;
        self.inherent = inherent;
        if bandwidth > present {
            let is_explained = average <= inherent + MAX_UNEXPLAINED;
            let most = if is_explained { MAX_OVER_ACKNOWLEDGED * acknowledged } else { present };
            bandwidth = bandwidth.min(most).max(present);
        }
        self.limit = (bandwidth < ceiling).then_some(bandwidth);
    }

    /// Latest first, with weights.
    fn weighted(&self, ageing: f64) -> impl Iterator<Item = (f64, Observation)> {
        let oldest = self.count.saturating_sub(OBSERVATIONS);
        let mut weight = 1.0;
        (oldest..self.count).rev().map(move |index| {
            let this = weight;
            weight *= ageing;
            (this, self.observations[index % OBSERVATIONS])
        })
    }

    fn average(&self, ageing: f64) -> f64 {
        let (mut packets, mut lost) = (0.0, 0.0);
        for (weight, seen) in self.weighted(ageing) {
            packets += weight * f64::from(seen.packets);
            lost += weight * f64::from(seen.lost);
        }
        if packets > 0.0 { lost / packets } else { 0.0 }
    }

    /// The likeliest inherent loss, given the bandwidth.
    fn fit_inherent(&self, bandwidth: f64) -> f64 {
        let most = (MAX_INHERENT + MAX_INHERENT_BALANCE / bandwidth).min(1.0);
        let mut inherent = self.inherent.clamp(MIN_INHERENT, most);
        for _ in 0..ITERATIONS {
            let (mut packets, mut lost) = (0.0, 0.0);
            for (weight, seen) in self.weighted(AGEING) {
                packets += weight * f64::from(seen.packets);
                lost += weight * f64::from(seen.lost) * inherent / loss_probability(bandwidth, inherent, seen);
            }
            inherent = (lost / packets).clamp(MIN_INHERENT, most);
        }
        inherent
    }

    /// Logarithm, per packet.
    fn likelihood(&self, bandwidth: f64, inherent: f64) -> f64 {
        let (mut packets, mut sum) = (0.0, 0.0);
        for (weight, seen) in self.weighted(AGEING) {
            let probability = loss_probability(bandwidth, inherent, seen);
            let (all, lost) = (f64::from(seen.packets), f64::from(seen.lost));
            packets += weight * all;
            sum += weight * (lost * probability.ln() + (all - lost) * (1.0 - probability).ln());
        }
        sum / packets
    }
}

fn loss_probability(bandwidth: f64, inherent: f64, seen: Observation) -> f64 {
    let excess = (1.0 - bandwidth / f64::from(seen.bitrate).max(1.0)).max(0.0);
    (inherent + (1.0 - inherent) * excess).clamp(MIN_INHERENT, 1.0 - MIN_INHERENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILING: f64 = 2e6;

    /// Five seconds of a megabit per second; every tenth packet is reported lost and maybe found a little later.
    fn after_late_packets(are_found: bool) -> Loss {
        let mut loss = Loss::new();
        for packet in 0..500 {
            loss.reported(packet * 10_000, 1250, packet % 10 == 3);
            if are_found && packet % 10 == 9 {
                loss.found();
            }
            loss.update(CEILING, 1e6);
        }
        loss
    }

    #[test]
    fn late_packets_are_not_lost() {
        assert!((after_late_packets(false).ratio() - 0.1).abs() < 0.02);
        assert!(after_late_packets(true).ratio() < 0.01);
    }

    #[test]
    fn losses_that_grow_with_the_rate_limit_it() {
        // Sent between 1 and 1.5 Mb/s, of which one megabit arrives; against a tenth lost of whatever is sent.
        let run = |lost: fn(f64) -> f64| {
            let mut loss = Loss::new();
            let mut credit = 0.0;
            for packet in 0..1000 {
                let bytes = 1250.0 + 625.0 * ((packet / 50) % 3) as f64 / 2.0;
                credit += lost(bytes * 800.0);
                loss.reported(packet * 10_000, bytes as u16, credit >= 1.0);
                credit -= if credit >= 1.0 { 1.0 } else { 0.0 };
                loss.update(CEILING, 1e6);
            }
            loss.limit().unwrap_or(CEILING)
        };
        let policed = run(|bitrate| (1.0 - 1e6 / bitrate).max(0.0));
        assert!((0.8e6..1.3e6).contains(&policed), "{policed}");
        let random = run(|_| 0.1);
        assert!(random > 1.6e6, "{random}");
    }

    #[test]
    fn no_loss_is_no_limit() {
        let mut loss = Loss::new();
        for packet in 0..200 {
            loss.reported(packet * 10_000, 1250, false);
            loss.update(CEILING, 1e6);
        }
        assert_eq!((loss.limit(), loss.ratio()), (None, 0.0));
    }
}
