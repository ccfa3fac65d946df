//! JitterBuffer: a source's packets in the order of their numbers, until their time has come.

use std::collections::VecDeque;
use std::sync::Arc;

use super::g711::Law;

/// Half a second of the longest delay in packets of 5 ms, or more than two seconds of the usual 20 ms. More only come at
/// once after a line was down; then the oldest go.
const CAPACITY: usize = 112;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Opus,
    G711(Law),
}

/// A packet that is known to hold so many samples.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub sequence: u64,
    /// Samples of the mixer's clock rate; does not wrap.
    pub timestamp: i64,
    pub samples: i64,
    pub coding: Coding,
    pub payload: Arc<[u8]>,
    /// Where the frame begins in the payload.
    pub from: usize,
}

impl Held {
    pub fn frame(&self) -> &[u8] {
        self.payload.get(self.from..).unwrap_or_default()
    }

    pub fn end(&self) -> i64 {
        self.timestamp + self.samples
    }
}

#[derive(Debug)]
pub(super) struct JitterBuffer {
    packets: VecDeque<Held>,
    /// The number after that of the last packet taken out: what is older comes too late.
    next: u64,
}

impl JitterBuffer {
    pub fn new() -> Self {
        JitterBuffer { packets: VecDeque::with_capacity(CAPACITY), next: 0 }
    }

    /// False for what came before, or too late.
    pub fn insert(&mut self, packet: Held) -> bool {
        if packet.sequence < self.next {
            return false;
        }
        let newer = self.packets.iter().rev().take_while(|held| held.sequence > packet.sequence).count();
        let at = self.packets.len() - newer;
        if at > 0 && self.packets[at - 1].sequence == packet.sequence {
            return false;
        }
        if self.packets.len() < CAPACITY {
            self.packets.insert(at, packet);
        } else if at > 0 {
            self.pop();
            self.packets.insert(at - 1, packet);
        } else {
            return false;
        }
        true
    }

    pub fn front(&self) -> Option<&Held> {
        self.packets.front()
    }

    pub fn pop(&mut self) -> Option<Held> {
        let packet = self.packets.pop_front()?;
        self.next = packet.sequence.saturating_add(1);
        Some(packet)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// The oldest packet follows the one that was taken out last.
    pub fn in_order(&self) -> bool {
        self.front().is_some_and(|packet| packet.sequence == self.next)
    }

    /// Numbers start over.
    pub fn restart(&mut self) {
        self.packets.clear();
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(sequence: u64) -> Held {
        let timestamp = sequence as i64 * 960;
        Held { sequence, timestamp, samples: 960, coding: Coding::Opus, payload: Arc::from([0]), from: 0 }
    }

    fn sequences(buffer: &JitterBuffer) -> Vec<u64> {
        buffer.packets.iter().map(|packet| packet.sequence).collect()
    }

    #[test]
    fn sorts_and_refuses_what_came_already() {
        let mut buffer = JitterBuffer::new();
        let taken: Vec<bool> = [7, 9, 8, 8, 5, 7].map(|sequence| buffer.insert(packet(sequence))).into();
        assert_eq!(taken, [true, true, true, false, true, false]);
        assert_eq!(sequences(&buffer), [5, 7, 8, 9]);
        assert_eq!(buffer.pop().map(|packet| packet.sequence), Some(5));
        assert!(!buffer.in_order());
        assert!(buffer.insert(packet(6)));
        assert!(buffer.in_order());
        assert!(!buffer.insert(packet(5)), "too late");
        buffer.restart();
        assert!(buffer.insert(packet(1)));
    }

    #[test]
    fn the_oldest_make_room() {
        let mut buffer = JitterBuffer::new();
        assert!((1..=200).all(|sequence| buffer.insert(packet(sequence))));
        assert_eq!(sequences(&buffer), (200 - CAPACITY as u64 + 1..=200).collect::<Vec<_>>());
        assert!(!buffer.insert(packet(3)));
    }

    proptest! {
        #[test]
        fn is_always_in_order(steps in prop::collection::vec((any::<bool>(), 0u64..400), 0..600)) {
            let mut buffer = JitterBuffer::new();
            let mut last = None;
            for (insert, sequence) in steps {
                if insert {
                    buffer.insert(packet(sequence));
                } else if let Some(packet) = buffer.pop() {
                    prop_assert!(last < Some(packet.sequence));
                    last = Some(packet.sequence);
                }
                prop_assert!(sequences(&buffer).is_sorted_by(|a, b| a < b) && buffer.packets.len() <= CAPACITY);
            }
            prop_assert_eq!(buffer.packets.capacity(), CAPACITY);
        }
    }
}
