//! To-device messages of one call put back into the sender's order, by their `seq`.
//!
//! Homeservers deliver to-device messages one sender at a time and mostly in order; what is missing for a while never comes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long later messages wait for a missing one. A `/sync` comes every few hundred milliseconds while there is something.
pub(super) const GAP_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages that wait. With more of them the missing one is given up. Each may hold a description of 64 KiB; clients that
/// send several at once mix up two or three.
const MAX_WAITING: usize = 8;

#[derive(Debug)]
pub(super) struct Sequence<T> {
    next: u64,
    waiting: BTreeMap<u64, T>,
    /// When the gap before the first that waits is given up.
    gap_ends: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// There may be something to [`pop`](Sequence::pop).
    Kept,
    /// Came before.
    Repeated,
}

impl<T> Sequence<T> {
    /// The next to come after `seq`.
    pub fn after(seq: u64) -> Sequence<T> {
        Sequence { next: seq.saturating_add(1), waiting: BTreeMap::new(), gap_ends: None }
    }

    pub fn push(&mut self, now: Instant, seq: u64, message: T) -> Arrival {
        if seq < self.next || self.waiting.contains_key(&seq) {
            return Arrival::Repeated;
        }
        self.waiting.insert(seq, message);
        if self.waiting.len() > MAX_WAITING {
            self.skip_gap();
        }
        self.watch_gap(now);
        Arrival::Kept
    }

    /// The next in order. To be called until there is none.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        if self.gap_ends.is_some_and(|at| at <= now) {
            self.skip_gap();
        }
        let message = self.waiting.remove(&self.next)?;
        self.next = self.next.saturating_add(1);
        self.gap_ends = None;
        self.watch_gap(now);
        Some(message)
    }

    /// When [`pop`](Self::pop) gives something without another message.
    pub fn deadline(&self) -> Option<Instant> {
        self.gap_ends
    }

    fn skip_gap(&mut self) {
        if let Some(first) = self.waiting.keys().next() {
            self.next = *first;
        }
        self.gap_ends = None;
    }

    fn watch_gap(&mut self, now: Instant) {
        let has_gap = self.waiting.keys().next().is_some_and(|first| *first > self.next);
        if has_gap && self.gap_ends.is_none() {
            self.gap_ends = Some(now + GAP_TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(sequence: &mut Sequence<u64>, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| sequence.pop(now)).collect()
    }

    #[test]
    fn order_is_restored_and_repeats_are_dropped() {
        let now = Instant::now();
        let mut sequence = Sequence::after(0);
        assert_eq!(sequence.push(now, 0, 0), Arrival::Repeated);
        assert_eq!(sequence.push(now, 2, 2), Arrival::Kept);
        assert!(drain(&mut sequence, now).is_empty());
        assert_eq!(sequence.push(now, 2, 2), Arrival::Repeated);
        assert_eq!(sequence.push(now, 1, 1), Arrival::Kept);
        assert_eq!(drain(&mut sequence, now), [1, 2]);
        assert_eq!(sequence.deadline(), None);
    }

    #[test]
    fn a_gap_is_given_up_after_a_while() {
        let now = Instant::now();
        let mut sequence = Sequence::after(0);
        sequence.push(now, 3, 3);
        sequence.push(now + GAP_TIMEOUT / 2, 5, 5);
        let later = sequence.deadline().unwrap();
        assert_eq!(later, now + GAP_TIMEOUT);
        assert_eq!(drain(&mut sequence, later), [3]);
        let last = sequence.deadline().unwrap();
        assert_eq!(drain(&mut sequence, last), [5]);
        assert_eq!(sequence.push(later, 4, 4), Arrival::Repeated, "too late");
    }

    #[test]
    fn the_end_of_numbers_is_no_end() {
        let now = Instant::now();
        let mut sequence = Sequence::after(u64::MAX);
        sequence.push(now, u64::MAX, 1);
        assert_eq!(drain(&mut sequence, now), [1]);
    }

    proptest! {
        /// Whatever comes in whatever order: what goes out rises, nothing twice, and little is kept.
        #[test]
        fn what_goes_out_rises(arrivals in prop::collection::vec((0u64..200, 0u64..3000), 0..300)) {
            let (mut sequence, mut now, mut out) = (Sequence::after(0), Instant::now(), Vec::new());
            for (seq, pause) in arrivals {
                now += Duration::from_millis(pause);
                sequence.push(now, seq, seq);
                out.extend(drain(&mut sequence, now));
                prop_assert!(sequence.waiting.len() <= MAX_WAITING);
                prop_assert_eq!(sequence.deadline().is_some(), !sequence.waiting.is_empty());
            }
            prop_assert!(out.is_sorted_by(|a, b| a < b));
        }
    }
}
