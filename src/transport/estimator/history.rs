//! What was sent and may still be reported on: a ring of the latest packets by transport-wide sequence number.
//!
//! Written once per sent packet, so that is all it does. The ring grows while a round trip holds more packets than it has
//! room for, and shrinks again when the connection becomes quiet.

use std::ops::Range;

use super::Micros;
use super::probe::ProbeId;

/// Feedback on packets older than this says nothing about the path as it is. The longest round trip worth a call plus the
/// longest feedback interval (250 ms).
const MAX_AGE: Micros = 2_000_000;

/// Bounds of the ring, in packets; powers of two. The larger holds more than a second of 60 Mb/s (128 kB), the smaller is all
/// that a connection with a few audio streams needs (4 kB).
const MIN_PACKETS: usize = 256;
const MAX_PACKETS: usize = 8192;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    InFlight,
    /// Reported missing; a packet that was only late is reported again.
    Lost,
    Received,
    /// Passed over by feedback.
    Skipped,
}

#[derive(Debug, Clone, Copy)]
pub struct SentPacket {
    pub sent: Micros,
    pub bytes: u16,
    pub probe: Option<ProbeId>,
    pub state: State,
}

// The ring is the estimator's only memory that grows.
const _: () = assert!(size_of::<SentPacket>() == 16);

#[derive(Debug, Default)]
pub struct History {
    /// Packet `n` lies at `n` modulo the length, which is a power of two or 0.
    ring: Vec<SentPacket>,
    /// The ring holds the numbers `oldest..next`.
    oldest: u64,
    next: u64,
}

impl History {
    /// Numbers must follow one another: a gap forgets what was before it, a step back is ignored.
    pub fn push(&mut self, number: u64, packet: SentPacket) {
        if number < self.next {
            return;
        }
        if number != self.next {
            (self.oldest, self.next) = (number, number);
        }
        if self.len() == self.ring.len() {
            self.make_room(packet.sent);
        }
        let slot = self.slot(number);
        self.ring[slot] = packet;
        self.next = number.wrapping_add(1);
    }

    /// How many packets are remembered.
    pub fn len(&self) -> usize {
        (self.next - self.oldest) as usize
    }

    /// The latest packet whose number has these low 16 bits, and the whole number.
    pub fn find(&mut self, number: u16) -> Option<(u64, &mut SentPacket)> {
        let behind = (self.next as u16).wrapping_sub(1).wrapping_sub(number);
        if usize::from(behind) >= self.len() {
            return None;
        }
        let number = self.next - 1 - u64::from(behind);
        let slot = self.slot(number);
        Some((number, &mut self.ring[slot]))
    }

    /// Feedback that should have been about these numbers was lost: they will not be reported any more. Returns their bytes.
    pub fn skip(&mut self, numbers: Range<u64>) -> u64 {
        let mut bytes = 0;
        for number in numbers.start.max(self.oldest)..numbers.end.min(self.next) {
            let slot = self.slot(number);
            let packet = &mut self.ring[slot];
            if packet.state == State::InFlight {
                packet.state = State::Skipped;
                bytes += u64::from(packet.bytes);
            }
        }
        bytes
    }

    /// Gives memory back when half of the ring would do. Called once per feedback.
    pub fn shrink(&mut self, now: Micros) {
        let half = self.ring.len() / 2;
        // The packet that a ring of half the size would have dropped by now, with a factor of two to spare.
        let Some(probed) = self.next.checked_sub(half as u64 / 2) else { return };
        if half < MIN_PACKETS || probed < self.oldest || now - self.ring[self.slot(probed)].sent < MAX_AGE {
            return;
        }
        self.resize(half);
    }

    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.ring.capacity() * size_of::<SentPacket>()
    }

    fn make_room(&mut self, now: Micros) {
        let len = self.ring.len();
        let is_needed = len == 0 || now - self.ring[self.slot(self.oldest)].sent < MAX_AGE;
        if is_needed && len < MAX_PACKETS {
            self.resize((len * 2).max(MIN_PACKETS));
        } else {
            self.oldest += 1;
        }
    }

    fn resize(&mut self, len: usize) {
        let unused = SentPacket { sent: 0, bytes: 0, probe: None, state: State::Lost };
        let mut ring = vec![unused; len];
        self.oldest = self.oldest.max(self.next.saturating_sub(len as u64));
        for number in self.oldest..self.next {
            ring[number as usize & (len - 1)] = self.ring[self.slot(number)];
        }
        self.ring = ring;
    }

    fn slot(&self, number: u64) -> usize {
        number as usize & (self.ring.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sent: Micros) -> SentPacket {
        SentPacket { sent, bytes: 1200, probe: None, state: State::InFlight }
    }

    #[test]
    fn finds_the_latest_packet_of_a_number() {
        let mut history = History::default();
        for number in 65_500..65_600u64 {
            history.push(number, packet(number as Micros));
        }
        for number in 65_500..65_600u64 {
            assert_eq!(history.find(number as u16).map(|(_, packet)| packet.sent), Some(number as Micros));
        }
        assert!(history.find(65_499u64 as u16).is_none());
        assert!(history.find(65_600u64 as u16).is_none());
        assert!(History::default().find(0).is_none());
    }

    #[test]
    fn grows_with_the_rate_up_to_a_bound_and_shrinks_again() {
        let mut history = History::default();
        for number in 0..50_000u64 {
            history.push(number, packet(number as Micros * 100));
        }
        assert_eq!(history.ring.len(), MAX_PACKETS);
        assert_eq!(history.len(), MAX_PACKETS);
        let mut now = 5_000_000;
        for number in 50_000..60_000u64 {
            now += 20_000;
            history.push(number, packet(now));
            history.shrink(now);
        }
        assert_eq!(history.ring.len(), MIN_PACKETS);
        assert_eq!(history.find(59_999u64 as u16).map(|(_, packet)| packet.sent), Some(now));
        assert_eq!(
            history.find((60_000 - MIN_PACKETS) as u16).map(|(_, packet)| packet.sent),
            Some(now - 255 * 20_000)
        );
    }

    #[test]
    fn a_gap_forgets_and_a_step_back_is_ignored() {
        let mut history = History::default();
        history.push(10, packet(1));
        history.push(9, packet(2));
        assert_eq!(history.len(), 1);
        history.push(20, packet(3));
        assert_eq!(history.len(), 1);
        assert!(history.find(10).is_none());
        assert!(history.find(20).is_some());
    }
}
