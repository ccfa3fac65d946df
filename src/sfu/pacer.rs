//! Pacer: spreads what would leave a connection in one burst. A keyframe of fifty packets at line rate overruns the buffers of
//! home routers; over a few milliseconds it does not, and nobody sees the difference.
//!
//! Only the order of leaving is kept here: a waiting packet is a note where in the packet cache it is and which numbers it
//! gets. Every connection that media leaves on owns one; audio and retransmissions do not ask it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::TrackKey;
use super::forwarder::Outgoing;
use super::timers::Alarm;
use crate::transport::{Origin, SenderId};

/// What may leave at once: a usual video frame, and what one call to the kernel can carry without being a harmful burst.
const BURST_PACKETS: u8 = 10;
/// After which the next such burst may leave. A millisecond, so that the frames of a whole gallery of publishers, which come
/// at different times, are never taken for one burst.
const BURST_WINDOW: Duration = Duration::from_millis(1);
/// Between two helpings of what waits: long enough that a helping is worth a call to the kernel.
const TICK: Duration = Duration::from_millis(2);
/// What waits is gone after so many: 8 ms, for which a measured loss of 0.44 % became 0.007 %.
const TICKS: usize = 4;
/// More than all tracks of a large call bring in that time. Beyond it streams leave out packets up to their next keyframe.
const MAX_WAITING: usize = 512;
/// Room for this many stays when all have left: what a usual keyframe needs.
const KEPT_CAPACITY: usize = 64;
/// A path that carries the estimate carries bursts of this many times it: queues of an access link hold far more than the
/// few milliseconds this lasts.
const ESTIMATE_FACTOR: u64 = 2;
/// What a video packet usually weighs, in bits.
const PACKET_BITS: u64 = 1200 * 8;

/// A packet that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paced {
    pub track: TrackKey,
    pub sender: SenderId,
    pub origin: Origin,
    pub out: Outgoing,
}

#[derive(Debug)]
pub(super) struct Pacer<T> {
    waiting: VecDeque<T>,
    /// When the present burst began, and how much of it has left.
    burst: Option<(Instant, u8)>,
    /// Packets of a helping.
    helping: usize,
    pub alarm: Alarm,
}

impl<T> Default for Pacer<T> {
    fn default() -> Self {
        Pacer { waiting: VecDeque::new(), burst: None, helping: 0, alarm: Alarm::default() }
    }
}

impl<T> Pacer<T> {
    /// Whether a packet may leave at once; otherwise it has to be [pushed](Self::push).
    pub fn admit(&mut self, now: Instant) -> bool {
        if !self.waiting.is_empty() {
            return false;
        }
        match &mut self.burst {
            Some((began, left)) if now.saturating_duration_since(*began) < BURST_WINDOW => {
                *left += u8::from(*left < BURST_PACKETS + 1);
                *left <= BURST_PACKETS
            }
            burst => {
                *burst = Some((now, 1));
                true
            }
        }
    }

    pub fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// Lets a packet wait; gives when to come for the next helping.
    pub fn push(&mut self, now: Instant, packet: T) -> Instant {
        self.waiting.push_back(packet);
        self.helping = self.helping.max(self.waiting.len().div_ceil(TICKS));
        now + TICK
    }

    /// How many packets leave now. `estimate`: what the path carries, in bits per second.
    pub fn helping(&self, estimate: Option<u64>) -> usize {
        let by_estimate = estimate.unwrap_or(0) * ESTIMATE_FACTOR * TICK.as_micros() as u64 / 1_000_000 / PACKET_BITS;
        self.helping.max(by_estimate as usize).min(self.waiting.len())
    }

    pub fn pop(&mut self) -> Option<T> {
        let next = self.waiting.pop_front();
        if self.waiting.is_empty() {
            self.helping = 0;
            // Pictures out of the cache are rarer than keyframes, and much longer.
            self.waiting.shrink_to(KEPT_CAPACITY);
        }
        next
    }

    /// When to come for the next helping.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| now + TICK)
    }

    /// Only what `wanted` says is sent.
    pub fn retain(&mut self, wanted: impl FnMut(&T) -> bool) {
        self.waiting.retain(wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What leaves when, in packets and milliseconds, of packets that come at `arrivals`.
    fn leaving(arrivals: &[(u64, usize)], estimate: Option<u64>) -> Vec<(u64, usize)> {
        let start = Instant::now();
        let mut pacer = Pacer::default();
        let mut due = None;
        let mut next_number = 0;
        let mut expected = 0;
        let mut left = Vec::new();
        for ms in 0..100 {
            let now = start + Duration::from_millis(ms);
            let mut count = 0;
            let mut leave = |number: usize| {
                assert_eq!(number, std::mem::replace(&mut expected, number + 1), "in order");
                count += 1;
            };
            if due.is_some_and(|due| due <= now) {
                (0..pacer.helping(estimate)).for_each(|_| leave(pacer.pop().expect("waits")));
                due = pacer.next_timeout(now);
            }
            for (_, packets) in arrivals.iter().filter(|(at, _)| *at == ms) {
                for number in next_number..next_number + packets {
                    if pacer.admit(now) {
                        leave(number);
                    } else {
                        let at = pacer.push(now, number);
                        due.get_or_insert(at);
                    }
                }
                next_number += packets;
            }
            if count > 0 {
                left.push((ms, count));
            }
        }
        assert_eq!(expected, next_number, "everything leaves");
        left
    }

    #[test]
    fn a_frame_leaves_at_once_and_a_keyframe_over_eight_milliseconds() {
        assert_eq!(leaving(&[(0, 10), (33, 4)], None), [(0, 10), (33, 4)]);
        assert_eq!(leaving(&[(0, 50)], None), [(0, 10), (2, 10), (4, 10), (6, 10), (8, 10)]);
        assert_eq!(leaving(&[(0, 13)], None), [(0, 10), (2, 1), (4, 1), (6, 1)]);
    }

    #[test]
    fn what_comes_while_others_wait_keeps_its_place() {
        assert_eq!(leaving(&[(0, 30), (1, 4)], None), [(0, 10), (2, 6), (4, 6), (6, 6), (8, 6)]);
    }

    #[test]
    fn many_publishers_are_no_burst() {
        let gallery: Vec<(u64, usize)> = (0..40).map(|ms| (ms, 5)).collect();
        assert_eq!(leaving(&gallery, None), gallery);
    }

    #[test]
    fn a_wide_path_takes_more() {
        assert_eq!(leaving(&[(0, 50)], Some(1_000_000)), leaving(&[(0, 50)], None));
        // 100 Mbit/s, twice: 400 kbit in a tick.
        assert_eq!(leaving(&[(0, 50)], Some(100_000_000)), [(0, 10), (2, 40)]);
    }

    #[test]
    fn the_queue_is_bounded() {
        let now = Instant::now();
        let mut pacer = Pacer::default();
        (0..MAX_WAITING).for_each(|n| {
            pacer.push(now, n);
        });
        assert!(pacer.is_full());
        pacer.retain(|n| n % 2 == 0);
        assert!(!pacer.is_full());
    }
}
