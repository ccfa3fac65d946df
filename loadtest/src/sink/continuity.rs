//! Whether the sequence numbers of one stream are continuous, and what became of those that were not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A number that came this far from the last is another stream under the same SSRC, not a gap.
const LARGEST_GAP: u64 = 3000;
/// What has not come by then is lost: a player has gone on.
const GIVE_UP: Duration = Duration::from_secs(1);
/// Packets missing at once that are asked for; a stream that loses more is beyond repair, and the list stays small.
const MOST_MISSING: usize = 1000;
/// The wait between two requests for one packet: the round trip of a path that can be called bad.
const NACK_AGAIN: Duration = Duration::from_millis(60);
/// Requests for one packet, as in libwebrtc.
const MOST_NACKS: u8 = 10;

/// What one packet meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    First,
    InOrder,
    /// So many packets between this one and the highest before are missing, for now.
    Gap(u64),
    /// One that was missing and not asked for yet: it only came late.
    Late,
    /// One that was asked for, sent again under its own number; it had been missing for so long.
    Repaired(Duration),
    /// It was there already, or it was given up.
    Duplicate,
    /// The numbers begin anew.
    Restarted,
}

#[derive(Debug, Clone, Default)]
pub struct Continuity {
    /// Extended sequence number; the low 16 bits are those of the wire. `None` before the first packet.
    highest: Option<u64>,
    missing: BTreeMap<u64, Missing>,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    since: Instant,
    asked: u8,
    ask_again: Instant,
}

impl Continuity {
    /// The highest extended number so far; zero-based cycles above 16 bits.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// The extended number that `sequence` stands for now.
    pub fn extend(&self, sequence: u16) -> u64 {
        let Some(highest) = self.highest else { return u64::from(sequence) };
        let ahead = sequence.wrapping_sub(highest as u16) as i16;
        highest.saturating_add_signed(i64::from(ahead))
    }

    pub fn receive(&mut self, now: Instant, sequence: u16) -> Arrival {
        let extended = self.extend(sequence);
        let Some(highest) = self.highest else {
            self.highest = Some(extended);
            return Arrival::First;
        };
        if extended.abs_diff(highest) > LARGEST_GAP {
            *self = Continuity { highest: Some(u64::from(sequence)), missing: BTreeMap::new() };
            return Arrival::Restarted;
        }
        if extended <= highest {
            return match self.missing.remove(&extended) {
                None => Arrival::Duplicate,
                Some(missing) if missing.asked == 0 => Arrival::Late,
                Some(missing) => Arrival::Repaired(now.saturating_duration_since(missing.since)),
            };
        }
        self.highest = Some(extended);
        let gap = extended - highest - 1;
        if gap == 0 {
            return Arrival::InOrder;
        }
        for lost in highest + 1..extended {
            if self.missing.len() < MOST_MISSING {
                self.missing.insert(lost, Missing { since: now, asked: 0, ask_again: now });
            }
        }
        Arrival::Gap(gap)
    }

    /// A retransmission of `sequence` came on another SSRC. Gives how long the packet had been missing; `None` when it was
    /// not missed.
    pub fn repair(&mut self, now: Instant, sequence: u16) -> Option<Duration> {
        let missing = self.missing.remove(&self.extend(sequence))?;
        Some(now.saturating_duration_since(missing.since))
    }

    /// Forgets what is past hope; gives how many that are.
    pub fn give_up(&mut self, now: Instant) -> usize {
        let before = self.missing.len();
        self.missing.retain(|_, missing| now.saturating_duration_since(missing.since) < GIVE_UP);
        before - self.missing.len()
    }

    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// What to ask for now, ascending.
    pub fn nacks(&mut self, now: Instant) -> Vec<u16> {
        let mut wanted = Vec::new();
        for (number, missing) in &mut self.missing {
            if missing.ask_again <= now && missing.asked < MOST_NACKS {
                missing.asked += 1;
                missing.ask_again = now + NACK_AGAIN;
                wanted.push(*number as u16);
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn numbers_wrap() {
        let now = Instant::now();
        let mut stream = Continuity::default();
        assert_eq!(stream.receive(now, 65_534), Arrival::First);
        assert_eq!(stream.receive(now, 65_535), Arrival::InOrder);
        assert_eq!(stream.receive(now, 0), Arrival::InOrder);
        assert_eq!(stream.receive(now, 3), Arrival::Gap(2));
        assert_eq!(stream.highest(), Some(65_539));
        assert_eq!(stream.nacks(now), [1, 2]);
    }

    #[test]
    fn a_late_packet_fills_its_gap_once() {
        let now = Instant::now();
        let mut stream = Continuity::default();
        stream.receive(now, 10);
        assert_eq!(stream.receive(now, 12), Arrival::Gap(1));
        assert_eq!(stream.receive(now, 11), Arrival::Late);
        assert_eq!(stream.receive(now, 11), Arrival::Duplicate);
        assert!(stream.is_complete());
    }

    #[test]
    fn a_retransmission_repairs_and_says_how_long_it_took() {
        let now = Instant::now();
        let mut stream = Continuity::default();
        stream.receive(now, 10);
        stream.receive(now, 13);
        assert_eq!(stream.repair(after(now, 30), 12), Some(Duration::from_millis(30)));
        assert_eq!(stream.repair(after(now, 30), 12), None);
        assert_eq!(stream.repair(after(now, 30), 9), None);
        assert_eq!(stream.nacks(after(now, 31)), [11]);
    }

    #[test]
    fn requests_are_repeated_and_end() {
        let now = Instant::now();
        let mut stream = Continuity::default();
        stream.receive(now, 10);
        stream.receive(now, 12);
        assert_eq!(stream.nacks(now), [11]);
        assert!(stream.nacks(after(now, 10)).is_empty());
        assert_eq!(stream.nacks(after(now, 60)), [11]);
        let mut repaired = stream.clone();
        assert_eq!(repaired.receive(after(now, 70), 11), Arrival::Repaired(Duration::from_millis(70)));
        assert_eq!(stream.give_up(after(now, 999)), 0);
        assert_eq!(stream.give_up(after(now, 1000)), 1);
        assert!(stream.nacks(after(now, 1000)).is_empty());
        assert!(stream.is_complete(), "given up");
        assert_eq!(stream.receive(after(now, 1001), 11), Arrival::Duplicate);
    }

    #[test]
    fn a_jump_is_a_new_stream() {
        let now = Instant::now();
        let mut stream = Continuity::default();
        stream.receive(now, 10);
        assert_eq!(stream.receive(now, 30_000), Arrival::Restarted);
        assert_eq!(stream.receive(now, 30_001), Arrival::InOrder);
        assert!(stream.is_complete());
    }
}
