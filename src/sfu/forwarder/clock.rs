//! Outgoing timestamps: where a splice has to continue another, by the publisher's sender reports or by arrival.

use std::time::{Duration, Instant};

use super::incoming::Incoming;

/// Sender reports and arrival times may disagree by this much about the time between two frames: more than any network
/// delays a frame. Beyond it the report is nonsense and arrival decides.
const MAX_REPORT_ERROR: Duration = Duration::from_secs(2);

/// A timestamp that jumps further than this from what the clock says was set anew by the publisher. Generous, as a
/// receiver copes with a slip better than with a correction, and a stalled connection may deliver seconds late.
const MAX_TIMESTAMP_JUMP: Duration = Duration::from_secs(10);

/// The frames sent so far, as far as their time goes.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Timestamp of the newest frame, and when its first packet arrived.
    frame: Option<(u32, Instant)>,
    anchor: Option<Anchor>,
}

impl Clock {
    /// The outgoing timestamp of the frame that a splice begins with. A frame out of the cache may be older than what was
    /// sent, and so may be its timestamp: it and those after it go through [`squeeze`](Self::squeeze).
    /// `None` before the first frame.
    pub fn begin(&self, p: &Incoming) -> Option<u32> {
        if !self.is_ahead_of(p) {
            return self.next_after_all(p);
        }
        let (timestamp, arrival) = self.frame?;
        let step = self.step(timestamp, -(ticks(arrival - p.arrival, p.clock_rate) as i64), p);
        Some(timestamp.wrapping_add(step as u32))
    }

    /// Whether something newer was sent.
    pub fn is_ahead_of(&self, p: &Incoming) -> bool {
        self.frame.is_some_and(|(_, arrival)| p.arrival < arrival)
    }

    /// The timestamp of a frame that should have this one, when that is not after all that were sent: the next tick, so that
    /// receivers hurry through what they are late with.
    pub fn squeeze(&mut self, timestamp: u32) -> Option<u32> {
        let (newest, arrival) = self.frame?;
        if timestamp.wrapping_sub(newest) as i32 > 0 {
            return None;
        }
        let next = newest.wrapping_add(1);
        self.frame = Some((next, arrival));
        Some(next)
    }

    /// The outgoing timestamp of `p`'s frame, when its own has no relation to ours: at least one tick after the newest.
    /// `None` before the first frame.
    pub fn next_after_all(&self, p: &Incoming) -> Option<u32> {
        let (timestamp, arrival) = self.frame?;
        let elapsed = ticks(p.arrival.saturating_duration_since(arrival), p.clock_rate) as i64;
        Some(timestamp.wrapping_add(self.step(timestamp, elapsed, p).max(1) as u32))
    }

    /// How far `p`'s frame is from the one sent with `timestamp`, in ticks: by arrival, or better by the sender's reports.
    fn step(&self, timestamp: u32, elapsed: i64, p: &Incoming) -> i64 {
        let by_arrival = timestamp.wrapping_add(elapsed as u32);
        let correction = self
            .anchor
            .zip(p.sender_time)
            .map(|(anchor, time)| anchor.distance(by_arrival, time, p.clock_rate))
            .filter(|distance| distance.unsigned_abs() <= ticks(MAX_REPORT_ERROR, p.clock_rate));
        elapsed + correction.unwrap_or(0)
    }

    /// Whether `timestamp` may follow on that of the newest frame, for the frame of `p`.
    pub fn may_continue(&self, timestamp: u32, p: &Incoming) -> bool {
        let Some((newest, arrival)) = self.frame else { return true };
        let step = timestamp.wrapping_sub(newest);
        let elapsed = ticks(p.arrival.saturating_duration_since(arrival), p.clock_rate);
        // A step back is one far ahead.
        u64::from(step).abs_diff(elapsed) <= ticks(MAX_TIMESTAMP_JUMP, p.clock_rate)
    }

    /// A frame goes out with this timestamp.
    pub fn frame(&mut self, timestamp: u32, p: &Incoming) {
        self.frame = Some((timestamp, p.arrival));
        if let Some(sender_time) = p.sender_time {
            let anchor = self.anchor.get_or_insert(Anchor { sender_time, timestamp });
            let error = anchor.distance(timestamp, sender_time, p.clock_rate).unsigned_abs();
            if error > ticks(MAX_REPORT_ERROR, p.clock_rate) {
                *anchor = Anchor { sender_time, timestamp };
            }
        }
    }
}

/// A moment of the sender's clock and its outgoing timestamp. Every splice is timed by the same one: timed by the
/// frame before, each would add to the error of the last.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    sender_time: Duration,
    timestamp: u32,
}

impl Anchor {
    /// How far ahead of `timestamp` that of `sender_time` is, in ticks.
    fn distance(&self, timestamp: u32, sender_time: Duration, clock_rate: u32) -> i64 {
        let at = if sender_time >= self.sender_time {
            self.timestamp.wrapping_add(ticks(sender_time - self.sender_time, clock_rate) as u32)
        } else {
            self.timestamp.wrapping_sub(ticks(self.sender_time - sender_time, clock_rate) as u32)
        };
        i64::from(at.wrapping_sub(timestamp) as i32)
    }
}

/// Times that peers claim may be of any size: all comparisons are made modulo 2^32 ticks, so wrapping does no harm.
fn ticks(time: Duration, clock_rate: u32) -> u64 {
    let rate = u64::from(clock_rate);
    time.as_secs().wrapping_mul(rate).wrapping_add(u64::from(time.subsec_nanos()) * rate / 1_000_000_000)
}
