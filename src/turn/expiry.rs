//! A timer wheel of deadlines, one for each allocation: setting, moving and taking one away cost the same however many there
//! are, and a worker wakes once a second at most for all of them.
//!
//! Each slot of the wheel is a second, with a list of the allocations that end in it, linked through a table that has one
//! place for each allocation. Deadlines further off than the wheel is round lie in its last slot and are set again when
//! they come up. What must end exactly on time looks at its own deadline; the wheel only sees to it that it is taken away.

use std::time::{Duration, Instant};

/// Seconds once around: more than the longest lifetime that is granted by default, so that a deadline is met once.
const SLOTS: usize = 4096;

const TICK: Duration = Duration::from_secs(1);

const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Expiry {
    /// Tick 0. The wheel learns the time with its first deadline.
    epoch: Option<Instant>,
    /// Everything due before this tick has been taken out.
    tick: u64,
    /// The first of each slot's list.
    heads: Box<[u32]>,
    /// A bit for each slot that has something in it.
    occupied: [u64; SLOTS / 64],
    links: Vec<Link>,
    armed: usize,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
    /// The slot it is in, [`NONE`] if in none.
    slot: u32,
}

const UNLINKED: Link = Link { previous: NONE, next: NONE, slot: NONE };

impl Expiry {
    pub fn new() -> Expiry {
        let heads = vec![NONE; SLOTS].into_boxed_slice();
        Expiry { epoch: None, tick: 0, heads, occupied: [0; SLOTS / 64], links: Vec::new(), armed: 0 }
    }

    /// `id` will be due within the second after `at`. Replaces its former deadline.
    pub fn set(&mut self, id: u32, now: Instant, at: Instant) {
        self.cancel(id);
        if self.links.len() <= id as usize {
            self.links.resize(id as usize + 1, UNLINKED);
        }
        let epoch = *self.epoch.get_or_insert(now);
        if self.armed == 0 {
            // Nothing to miss: the wheel catches up with the time it stood still.
            self.tick = self.tick.max(now.saturating_duration_since(epoch).as_secs());
        }
        let due = at.saturating_duration_since(epoch).as_millis().div_ceil(TICK.as_millis()) as u64;
        let tick = due.clamp(self.tick, self.tick + SLOTS as u64 - 1);
        let slot = (tick % SLOTS as u64) as usize;
        let next = std::mem::replace(&mut self.heads[slot], id);
        if next != NONE {
            self.links[next as usize].previous = id;
        }
        self.links[id as usize] = Link { previous: NONE, next, slot: slot as u32 };
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.armed += 1;
    }

    pub fn cancel(&mut self, id: u32) {
        let Some(link) = self.links.get_mut(id as usize) else { return };
        let Link { previous, next, slot } = std::mem::replace(link, UNLINKED);
        if slot == NONE {
            return;
        }
        if next != NONE {
            self.links[next as usize].previous = previous;
        }
        if previous != NONE {
            self.links[previous as usize].next = next;
        } else {
            self.heads[slot as usize] = next;
            if next == NONE {
                self.occupied[slot as usize / 64] &= !(1 << (slot % 64));
            }
        }
        self.armed -= 1;
    }

    /// The next whose second has come. It is out of the wheel then.
    pub fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let passed = now.saturating_duration_since(self.epoch?).as_secs();
        let tick = self.first_tick()?;
        self.tick = tick.min(passed + 1).max(self.tick);
        if tick > passed {
            return None;
        }
        let id = self.heads[(tick % SLOTS as u64) as usize];
        self.cancel(id);
        Some(id)
    }

    /// When something is due next.
    pub fn next(&self) -> Option<Instant> {
        Some(self.epoch? + TICK * u32::try_from(self.first_tick()?).ok()?)
    }

    /// The first tick, from the current one on, that has something in its slot.
    fn first_tick(&self) -> Option<u64> {
        if self.armed == 0 {
            return None;
        }
        let start = (self.tick % SLOTS as u64) as usize;
        let words = self.occupied.len();
        let ahead = |word: usize, bits: u64| {
            let slot = word * 64 + bits.trailing_zeros() as usize;
            self.tick + ((slot + SLOTS - start) % SLOTS) as u64
        };
        let first = self.occupied[start / 64] & (u64::MAX << (start % 64));
        if first != 0 {
            return Some(ahead(start / 64, first));
        }
        // The last turn sees the word of the start again, for what lies in it before the start.
        (1..=words)
            .map(|n| (start / 64 + n) % words)
            .find(|word| self.occupied[*word] != 0)
            .map(|word| ahead(word, self.occupied[word]))
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.armed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn popped(expiry: &mut Expiry, now: Instant) -> Vec<u32> {
        let mut ids: Vec<u32> = std::iter::from_fn(|| expiry.pop_due(now)).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_deadline_comes_within_its_second() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut expiry = Expiry::new();
        assert_eq!(expiry.next(), None);
        expiry.set(7, start, at(1500));
        expiry.set(8, start, at(1600));
        expiry.set(9, start, at(600_000));
        assert_eq!(expiry.next(), Some(at(2000)));
        assert!(popped(&mut expiry, at(1999)).is_empty());
        assert_eq!(popped(&mut expiry, at(2000)), [7, 8]);
        assert_eq!(expiry.next(), Some(at(600_000)));
        expiry.set(9, at(2000), at(3000));
        assert_eq!(expiry.next(), Some(at(3000)), "moved");
        expiry.cancel(9);
        expiry.cancel(9);
        assert_eq!((expiry.next(), expiry.len()), (None, 0));
    }

    #[test]
    fn an_idle_wheel_catches_up() {
        let start = Instant::now();
        let mut expiry = Expiry::new();
        expiry.set(0, start, start + TICK);
        assert_eq!(popped(&mut expiry, start + TICK), [0]);
        let later = start + Duration::from_secs(1_000_000);
        expiry.set(0, later, later + TICK * 10);
        assert_eq!(expiry.next(), Some(later + TICK * 10));
        assert!(popped(&mut expiry, later + TICK * 9).is_empty());
        assert_eq!(popped(&mut expiry, later + TICK * 10), [0]);
    }

    #[test]
    fn one_beyond_the_wheel_comes_early_and_can_be_set_again() {
        let start = Instant::now();
        let mut expiry = Expiry::new();
        let at = start + TICK * 10_000;
        expiry.set(3, start, at);
        let (mut now, mut times) = (start, 0);
        while let Some(next) = expiry.next() {
            now = next;
            times += 1;
            for id in popped(&mut expiry, now) {
                if at > now {
                    expiry.set(id, now, at);
                }
            }
        }
        assert_eq!((now, times), (at, 3));
    }

    proptest! {
        /// Against a sorted map of deadlines.
        #[test]
        fn as_a_sorted_map(steps in prop::collection::vec((0u32..20, 0u64..5000, 0u64..900), 1..200)) {
            let start = Instant::now();
            let (mut expiry, mut model, mut now_ms) = (Expiry::new(), BTreeMap::new(), 0u64);
            // The wheel counts from the first time it is told.
            expiry.set(0, start, start);
            expiry.cancel(0);
            for (id, lifetime, pause) in steps {
                now_ms += pause * 10;
                let now = start + Duration::from_millis(now_ms);
                let due: Vec<u32> = model.iter().filter(|(_, at)| **at <= now_ms / 1000).map(|(id, _)| *id).collect();
                model.retain(|_, at| *at > now_ms / 1000);
                prop_assert_eq!(popped(&mut expiry, now), due);
                if lifetime == 0 {
                    expiry.cancel(id);
                    model.remove(&id);
                } else {
                    let at_ms = now_ms + lifetime * 700;
                    expiry.set(id, now, start + Duration::from_millis(at_ms));
                    model.insert(id, at_ms.div_ceil(1000));
                }
                let next = model.values().min().map(|at| start + Duration::from_secs(*at));
                prop_assert_eq!(expiry.next(), next);
                prop_assert_eq!(expiry.len(), model.len());
            }
        }
    }
}
