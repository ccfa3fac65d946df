//! Arrivals: which share of a publisher's packets is lost on its way to us, and how unevenly they come. What comes late,
//! because we asked for it again, was lost all the same. A track has one for each of its streams; the room feeds it every
//! packet.

use std::time::{Duration, Instant};

use crate::transport::MediaPacket;

/// A packet that was overtaken comes within this; a retransmission takes a round trip and the time we wait before asking.
const REORDERED: Duration = Duration::from_millis(15);

/// A longer jump is no loss: the stream stopped, or begins anew.
const MAX_JUMP: u64 = 1000;

/// The newest deviation counts for one in this many (RFC 3550 §6.4.1).
const JITTER_SHARE: f32 = 16.0;

/// A deviation beyond it is no jitter: a clock that was set, or a stream that paused.
const MAX_DEVIATION: f32 = 1.0;

#[derive(Debug, Default)]
pub struct Arrivals {
    newest: Option<Newest>,
    expected: u32,
    lost: u32,
    /// When the last hole was seen.
    hole_at: Option<Instant>,
    /// Seconds.
    jitter: f32,
}

/// The first packet of the newest frame, but for its number: that is the last packet's.
#[derive(Debug, Clone, Copy)]
struct Newest {
    sequence: u64,
    timestamp: u32,
    arrival: Instant,
}

/// What came since the last count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    pub expected: u32,
    /// Of these.
    pub lost: u32,
    pub jitter: Duration,
}

impl Arrivals {
    pub fn observe(&mut self, packet: &MediaPacket) {
        let MediaPacket { sequence, timestamp, clock_rate, arrival, restarted, .. } = *packet;
        self.count(Newest { sequence, timestamp, arrival }, clock_rate, restarted);
    }

    /// Each number comes at most once.
    fn count(&mut self, packet: Newest, clock_rate: u32, restarted: bool) {
        let newest = self.newest.filter(|newest| !restarted && packet.sequence <= newest.sequence + MAX_JUMP);
        let Some(newest) = newest else {
            self.expected = self.expected.saturating_add(1);
            self.newest = Some(packet);
            return;
        };
        let Some(step) = packet.sequence.checked_sub(newest.sequence).filter(|step| *step > 0) else {
            let overtaken = |at: Instant| packet.arrival.saturating_duration_since(at) <= REORDERED;
            self.lost = self.lost.saturating_sub(u32::from(self.hole_at.is_some_and(overtaken)));
            return;
        };
        self.expected = self.expected.saturating_add(step as u32);
        self.lost = self.lost.saturating_add(step as u32 - 1);
        if step > 1 {
            self.hole_at = Some(packet.arrival);
        }
        if packet.timestamp == newest.timestamp {
            self.newest = Some(Newest { sequence: packet.sequence, ..newest });
            return;
        }
        let sent = packet.timestamp.wrapping_sub(newest.timestamp) as i32 as f32 / clock_rate.max(1) as f32;
        let arrived = packet.arrival.saturating_duration_since(newest.arrival).as_secs_f32();
        let deviation = (arrived - sent).abs();
        if deviation <= MAX_DEVIATION {
            self.jitter += (deviation - self.jitter) / JITTER_SHARE;
        }
        self.newest = Some(packet);
    }

    /// And begins a new count.
    pub fn take(&mut self) -> Counted {
        let (expected, lost) = (std::mem::take(&mut self.expected), std::mem::take(&mut self.lost));
        Counted { expected, lost, jitter: Duration::from_secs_f32(self.jitter) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK_RATE: u32 = 1000;

    /// Packets of (arrival, ms; sequence number), sent 10 ms apart.
    fn count(packets: &[(u64, u64)]) -> (u32, u32) {
        let start = Instant::now();
        let mut arrivals = Arrivals::default();
        for (ms, sequence) in packets {
            let arrival = start + Duration::from_millis(*ms);
            let packet = Newest { sequence: *sequence, timestamp: *sequence as u32 * 10, arrival };
            arrivals.count(packet, CLOCK_RATE, false);
        }
        let counted = arrivals.take();
        (counted.expected, counted.lost)
    }

    #[test]
    fn a_hole_is_a_loss_unless_it_was_overtaken() {
        assert_eq!(count(&[(0, 7), (1, 8), (2, 9)]), (3, 0));
        assert_eq!(count(&[(0, 7), (1, 10)]), (4, 2));
        assert_eq!(count(&[(0, 7), (1, 9), (3, 8)]), (3, 0), "overtaken");
        assert_eq!(count(&[(0, 7), (1, 9), (60, 8)]), (3, 1), "sent again");
        assert_eq!(count(&[(0, 7), (1, 5000), (2, 5001)]), (3, 0), "a jump");
        assert_eq!(count(&[(0, 7), (1, 7), (2, 3)]), (1, 0));
    }

    #[test]
    fn a_new_stream_and_a_new_count_begin_at_nothing() {
        let arrival = Instant::now();
        let mut arrivals = Arrivals::default();
        let mut count = |sequences: &[u64], restarted| {
            for sequence in sequences {
                arrivals.count(Newest { sequence: *sequence, timestamp: 0, arrival }, CLOCK_RATE, restarted);
            }
            let counted = arrivals.take();
            (counted.expected, counted.lost)
        };
        assert_eq!(count(&[100, 110], false), (11, 9));
        assert_eq!(count(&[112], false), (2, 1));
        assert_eq!(count(&[40], true), (1, 0));
        assert_eq!(count(&[41], false), (1, 0));
    }

    #[test]
    fn frames_that_come_unevenly_are_jitter() {
        let start = Instant::now();
        for (late, jitter) in [(0, 0..1), (20, 15..25), (60, 50..65)] {
            let mut arrivals = Arrivals::default();
            for frame in 0..500u64 {
                // Every other one is late; a frame's own packets come one by one.
                let at = frame * 50 + late * (frame % 2);
                for part in 0..3 {
                    let arrival = start + Duration::from_millis(at + part);
                    let packet = Newest { sequence: frame * 3 + part, timestamp: frame as u32 * 50, arrival };
                    arrivals.count(packet, CLOCK_RATE, false);
                }
            }
            let measured = arrivals.take().jitter.as_millis();
            assert!(jitter.contains(&measured), "{late}: {measured}");
        }
    }
}
