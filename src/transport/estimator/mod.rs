//! How much the path to a client carries: a send-side bandwidth estimator, one per connection that sends video.
//!
//! The connection's egress tells every packet it sends and every transport-wide feedback it gets; the allocator reads the
//! estimate to choose layers, and says what it would like to send.
//!
//! ```text
//!  sent ──▶ history ◀── feedback: number → arrival time or nothing
//!              │
//!              ├─▶ acknowledged   what arrives per second
//!              ├─▶ delay          do packets queue up?  ──▶ rate   up, hold, or down to what arrives ─┐
//!              ├─▶ loss           do losses depend on what we send? ──────────────────────────────────┼─▶ min = estimate
//!              └─▶ probe          how fast did a burst arrive? ──▶ lifts both ────────────────────────┘
//! ```
//!
//! - `history`: what was sent, sixteen bytes a packet.
//! - `acknowledged`: the rate that demonstrably arrives; bounds how far the estimate may rise.
//! - `delay`: groups, line fit and adaptive threshold: is the queue growing, standing, draining?
//! - `rate`: additive and multiplicative increase, multiplicative decrease.
//! - `loss`: maximum likelihood of inherent loss and bandwidth.
//! - `probe`: when to probe how fast, and what came of it.
//!
//! The receiver is not trusted: each packet is counted once, an arrival faster than the sending proves nothing, and numbers
//! never sent are skipped. The worst that forged feedback achieves is a wrong rate for the forger: at most half more than
//! what was sent to it, or that of a probe.
//!
//! Nothing is sent to keep an idle connection's estimate alive: it keeps what it knows, and probes when more is wanted.
//!
//! Sources: draft-ietf-rmcat-gcc-02, draft-holmer-rmcat-transport-wide-cc-extensions-01, and libwebrtc's later behaviour
//! (line fit, loss model, probing). Pure: time comes in with each call.

mod acknowledged;
mod delay;
mod history;
mod loss;
mod probe;
mod rate;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use acknowledged::Acknowledged;
use delay::Delay;
use history::{History, SentPacket, State};
use loss::Loss;
use probe::Probes;
use rate::{Rate, Report};

pub use probe::{Probe, ProbeId};

/// Assumed until the path is known, bits per second: one video of medium quality, which most paths carry. Probes find
/// within half a second whether there is more.
pub const START_BITRATE: u64 = 1_000_000;

/// An estimate is never lower, bits per second: less is no video, and too little to notice that the path is back.
pub const MIN_BITRATE: u64 = 50_000;

/// An estimate is never higher, bits per second: dozens of videos in the best layer, more than a screen shows.
pub const MAX_BITRATE: u64 = 60_000_000;

/// With packets under way and no feedback for this long the path is taken for broken: the longest feedback interval is
/// 250 ms, and some feedback gets lost.
const SILENCE: Micros = 2_000_000;
/// Then the estimate is halved, and again each time this has passed.
const SILENCE_STEP: Micros = 1_000_000;
const SILENCE_FACTOR: f64 = 0.5;

/// Losses without anything that arrived between, over so long and so many packets, are an outage: a queue that overflows lets
/// packets through all the time. What was lost then says nothing about the rate.
const OUTAGE: Micros = 500_000;
const OUTAGE_PACKETS: u32 = 5;

/// The first estimate is a guess until a probe or a queue has spoken; for no longer than this, as a client whose path
/// carries no probe has to be served, too.
const GUESSING: Micros = 1_000_000;
/// A fall below this share of the guess is news of the path.
const GUESS_LOST: f64 = 0.95;

/// No probe while the queue is longer, nor while losses limit the rate and are still above this.
const CALM_QUEUE_MS: f32 = 30.0;
const CALM_LOSS: f64 = 0.03;

/// Round trips outside of this are mistaken.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(3);
/// The newest round trip counts for one in this many.
const ROUND_TRIP_SHARE: Micros = 4;

/// Ticks of transport-wide feedback (draft-holmer §3.1): of the reference time and of arrivals.
const REFERENCE_TICK: Micros = 64_000;
const ARRIVAL_TICK: Micros = 250;

/// Microseconds, since the first packet or by the receiver's clock.
type Micros = i64;

#[derive(Debug)]
pub struct Estimator {
    /// What our times count from: the first call.
    epoch: Option<Instant>,
    history: History,
    reference: ReferenceTime,
    acknowledged: Acknowledged,
    delay: Delay,
    rate: Rate,
    loss: Loss,
    probes: Probes,
    /// From receiver reports, else from feedback, which takes its time.
    reported_round_trip: Option<Micros>,
    feedback_round_trip: Option<Micros>,
    first_feedback: Option<Micros>,
    /// The estimate is no mere guess any more.
    is_founded: bool,
    /// What was sent before was sent on a guess.
    guessed_until: Micros,
    /// The number after the last that was reported.
    unreported: u64,
    /// When packets under way have been unanswered for too long.
    silent_at: Option<Micros>,
    /// The estimate before the present silence.
    before_silence: Option<f64>,
    /// How many silences have ended.
    silences: u32,
    /// Packets lost since the last that arrived, and when the first of them was sent.
    lost: Option<(u32, Micros)>,
}

impl Default for Estimator {
    fn default() -> Self {
        Self::new()
    }
}

impl Estimator {
    pub fn new() -> Self {
        Estimator {
            epoch: None,
            history: History::default(),
            reference: ReferenceTime::default(),
            acknowledged: Acknowledged::default(),
            delay: Delay::new(),
            rate: Rate::new(),
            loss: Loss::new(),
            probes: Probes::new(),
            reported_round_trip: None,
            feedback_round_trip: None,
            first_feedback: None,
            is_founded: false,
            guessed_until: 0,
            unreported: 0,
            silent_at: None,
            before_silence: None,
            silences: 0,
            lost: None,
        }
    }

    /// A packet left with this transport-wide sequence number; numbers follow one another without gaps. `bytes`: on the
    /// wire, with all headers. `probe`: the one it was sent for, media or padding.
    pub fn sent(&mut self, now: Instant, number: u64, bytes: usize, probe: Option<ProbeId>) {
        let sent = self.micros(now);
        let bytes = bytes.min(u16::MAX.into()) as u16;
        let probe = probe.or_else(|| if self.is_founded { None } else { self.probes.train(sent, bytes) });
        self.history.push(number, SentPacket { sent, bytes, probe, state: State::InFlight });
        if self.first_feedback.is_some() && self.silent_at.is_none() {
            self.silent_at = Some(sent + SILENCE);
        }
    }

    /// A transport-wide feedback: its reference time (24 bits, in 64 ms), and for each packet it is about the low 16 bits
    /// of its number and when it arrived, in ticks of 250 µs since the reference time, or `None` if it did not. Both
    /// are as `rtp::twcc` reads them.
    pub fn feedback(
        &mut self,
        now: Instant,
        reference_time: u32,
        packets: impl IntoIterator<Item = (u16, Option<i64>)>,
    ) {
        let now = self.micros(now);
        let base = self.reference.unwrap(reference_time);
        // Nobody needs more than all packets there are: a few bytes of feedback can claim to be about 65,535.
        let mut packets = packets.into_iter().take(self.history.len()).peekable();
        if let Some((first, _)) = packets.peek()
            && let Some((first, _)) = self.history.find(*first)
        {
            self.acknowledged.skipped(self.history.skip(self.unreported..first));
        }
        let (mut last, mut newest) = (None, None);
        for (number, ticks) in packets {
            let Some((number, packet)) = self.history.find(number) else { continue };
            last = last.max(Some(number));
            let arrival = ticks.map(|ticks| base.saturating_add(ticks.saturating_mul(ARRIVAL_TICK)));
            let state = if arrival.is_some() { State::Received } else { State::Lost };
            match (std::mem::replace(&mut packet.state, state), state) {
                (State::InFlight, _) if packet.sent < self.guessed_until => {}
                (State::InFlight, _) => self.loss.reported(packet.sent, packet.bytes, state == State::Lost),
                (State::Lost, State::Received) => self.loss.found(),
                (before, _) => {
                    packet.state = before;
                    continue;
                }
            }
            let packet = *packet;
            newest = newest.max(Some(packet.sent));
            let Some(arrival) = arrival else {
                let (packets, since) = self.lost.unwrap_or((0, packet.sent));
                self.lost = Some((packets + 1, since));
                continue;
            };
            self.ended_outage(now, packet.sent);
            if self.delay.received(packet.sent, arrival) {
                // The clock jumped: arrivals before cannot be compared with those after.
                self.acknowledged = Acknowledged::default();
            }
            self.acknowledged.received(packet.sent, arrival, packet.bytes);
            if let Some(probe) = packet.probe {
                self.probes.received(probe, number, packet.sent, arrival, packet.bytes);
            }
        }
        // Feedback that tells nothing new is no sign of life either.
        let Some(newest) = newest else { return };
        self.first_feedback.get_or_insert(now);
        self.unreported = self.unreported.max(last.map_or(0, |last| last + 1));
        self.silent_at = None;
        self.feedback_round_trip = Some((now - newest).clamp(0, MAX_ROUND_TRIP.as_micros() as Micros));
        self.acknowledged.mark();
        self.history.shrink(now);
        self.update(now);
    }

    /// A packet sent then arrived: what came of those before it was perhaps an outage's.
    fn ended_outage(&mut self, now: Micros, sent: Micros) {
        let lost = self.lost.take();
        let is_outage = lost.is_some_and(|(packets, since)| packets >= OUTAGE_PACKETS && sent - since >= OUTAGE);
        let before = self.before_silence.take();
        if is_outage || before.is_some() {
            self.loss = Loss::new();
            self.acknowledged = Acknowledged::default();
        }
        if let Some(before) = before {
            self.silences += 1;
            self.probes.resume(now, before);
        }
    }

    fn update(&mut self, now: Micros) {
        if let Some(bitrate) = self.probes.result(now) {
            self.rate.probed(now, bitrate);
            self.loss.probed(bitrate);
            // While each finds more than the one before, the path carries more than any has told.
            let is_climbing = self.probes.is_climbing(self.bitrate());
            if !is_climbing && !std::mem::replace(&mut self.is_founded, true) {
                // Until now we sent what we guessed: losses that came of it are answered by the estimate.
                self.loss = Loss::new();
                self.guessed_until = now;
            }
        }
        let usage = self.delay.usage();
        if let (Some(acknowledged), Some(recently_acknowledged)) =
            (self.acknowledged.rate(), self.acknowledged.recent_rate())
        {
            let queue_ms = self.delay.queue_ms();
            let round_trip = self.reported_round_trip.or(self.feedback_round_trip);
            let is_probing = self.probes.is_measuring(now);
            let report = Report { usage, queue_ms, acknowledged, recently_acknowledged, round_trip, is_probing };
            self.rate.update(now, &report);
            self.loss.update(self.rate.bitrate(), acknowledged);
        }
        let guessed_long = self.first_feedback.is_some_and(|first| now - first >= GUESSING);
        self.is_founded |= guessed_long || self.bitrate() < START_BITRATE as f64 * GUESS_LOST;
        self.probes.set_estimate(now, self.bitrate());
    }

    /// A round trip as a receiver report tells it (RFC 3550 §6.4.1).
    pub fn round_trip(&mut self, round_trip: Duration) {
        let new = round_trip.min(MAX_ROUND_TRIP).as_micros() as Micros;
        let smoothed = self.reported_round_trip.map_or(new, |old| old + (new - old) / ROUND_TRIP_SHARE);
        self.reported_round_trip = Some(smoothed);
    }

    /// Bits per second that the path carries, all packets with a transport-wide number taken together.
    /// `None` until feedback has told something of the path; a client that sends none is not estimated.
    pub fn estimate(&self) -> Option<u64> {
        self.is_founded.then(|| self.bitrate() as u64)
    }

    fn bitrate(&self) -> f64 {
        let bitrate = self.loss.limit().map_or(self.rate.bitrate(), |limit| limit.min(self.rate.bitrate()));
        bitrate.max(MIN_BITRATE as f64)
    }

    /// What would be sent if the path carried it, bits per second. Nothing is probed above it; 0 ends all probing.
    pub fn set_desired(&mut self, now: Instant, desired: u64) {
        let now = self.micros(now);
        self.probes.set_desired(now, desired as f64);
    }

    /// Time has come to [`Self::next_timeout`]. Returns a probe to send now, if there is one.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        let now = self.micros(now);
        if self.silent_at.is_some_and(|at| at <= now) {
            self.silent_at = Some(now + SILENCE_STEP);
            self.before_silence.get_or_insert(self.bitrate());
            self.rate.back_off(SILENCE_FACTOR);
            self.probes.set_estimate(now, self.bitrate());
        }
        // The path is not probed before there is feedback: some clients send none, and none could tell the result.
        self.first_feedback?;
        let is_calm = self.acknowledged.rate().is_some()
            && self.delay.queue_ms() < CALM_QUEUE_MS
            && (self.loss.limit().is_none() || self.loss.ratio() < CALM_LOSS);
        self.probes.poll(now, self.bitrate(), is_calm, self.delay.jitter())
    }

    /// When to call [`Self::poll_probe`] next; may have passed. Changes with every other call.
    pub fn next_timeout(&self) -> Option<Instant> {
        let probe = self.first_feedback.is_some().then(|| self.probes.next_timeout(self.bitrate())).flatten();
        let next = [self.silent_at, probe].into_iter().flatten().min()?;
        self.epoch?.checked_add(Duration::from_micros(u64::try_from(next).ok()?))
    }

    /// How many silences the path has come back from. The estimate after one is found anew, and says nothing about the one
    /// before.
    pub fn silences(&self) -> u32 {
        self.silences
    }

    /// Share of the packets lost recently, 0.0 … 1.0.
    pub fn loss(&self) -> f32 {
        self.loss.ratio() as f32
    }

    /// The round trip time; until a receiver report tells it, that of the latest feedback with the time it was held back.
    pub fn rtt(&self) -> Option<Duration> {
        let micros = self.reported_round_trip.or(self.feedback_round_trip)?;
        Some(Duration::from_micros(micros.unsigned_abs()))
    }

    /// What is allocated besides the value itself.
    #[cfg(test)]
    fn heap_bytes(&self) -> usize {
        self.history.heap_bytes()
    }

    fn micros(&mut self, now: Instant) -> Micros {
        let epoch = *self.epoch.get_or_insert(now);
        let elapsed = now.saturating_duration_since(epoch);
        // u128 division is slow, and this is called for every packet.
        elapsed.as_secs() as Micros * 1_000_000 + Micros::from(elapsed.subsec_micros())
    }
}

/// Undoes the wrapping of the reference time after twelve days.
#[derive(Debug, Default)]
struct ReferenceTime {
    last: Option<(u32, Micros)>,
}

impl ReferenceTime {
    /// Of 24 bits; nearest to the last one.
    fn unwrap(&mut self, reference_time: u32) -> Micros {
        let (before, micros) = self.last.unwrap_or((reference_time, 0));
        // Shifted up, the 24 bits have a sign.
        let distance = (reference_time.wrapping_sub(before) << 8) as i32 >> 8;
        let micros = micros + Micros::from(distance) * REFERENCE_TICK;
        self.last = Some((reference_time, micros));
        micros
    }
}
