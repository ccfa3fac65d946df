//! Which of the most recent packet indices have been used: the receiver's replay list (RFC 3711 §3.3.2), and the sender's
//! proof that it encrypts no index twice.

/// Remembers the `64 * WORDS` indices up to the highest one. What is older counts as used.
#[derive(Debug, Clone)]
pub(super) struct Window<const WORDS: usize> {
    /// One above the highest index used so far.
    end: u64,
    /// Bit `index % SIZE`, for the indices from `end - SIZE` to `end`.
    used: [u64; WORDS],
}

impl<const WORDS: usize> Window<WORDS> {
    const SIZE: u64 = 64 * WORDS as u64;

    pub fn new() -> Self {
        Window { end: 0, used: [0; WORDS] }
    }

    /// Whether [`insert`](Self::insert) would accept the index.
    pub fn accepts(&self, index: u64) -> bool {
        let (word, bit) = Self::place(index);
        index >= self.end || (self.end - index <= Self::SIZE && self.used[word] & bit == 0)
    }

    /// Marks an index as used. False when it was, or may have been.
    pub fn insert(&mut self, index: u64) -> bool {
        if !self.accepts(index) {
            return false;
        }
        if index >= self.end {
            self.advance(index);
        }
        let (word, bit) = Self::place(index);
        self.used[word] |= bit;
        true
    }

    /// Makes `index` the highest, and forgets what that pushes out.
    fn advance(&mut self, index: u64) {
        if index - self.end >= Self::SIZE {
            self.used = [0; WORDS];
        } else {
            for skipped in self.end..=index {
                let (word, bit) = Self::place(skipped);
                self.used[word] &= !bit;
            }
        }
        self.end = index + 1;
    }

    fn place(index: u64) -> (usize, u64) {
        let bit = index % Self::SIZE;
        ((bit / 64) as usize, 1 << (bit % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_each_once() {
        let mut window = Window::<2>::new();
        for (index, expected) in [
            (5, true),
            (5, false),
            (4, true),
            (0, true),
            (0, false),
            (132, true),
            // 128 indices end at 132.
            (4, false),
            (5, false),
            (6, true),
            (131, true),
            (131, false),
            (1_000_000, true),
            (999_873, true),
            (999_872, false),
            (132, false),
        ] {
            assert_eq!(window.accepts(index), expected, "{index}");
            assert_eq!(window.insert(index), expected, "{index}");
        }
    }

    proptest! {
        /// Against the whole history: nothing twice, and nothing new refused that is near enough.
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec((-200i64..140, any::<bool>()), 1..200)) {
            let (mut window, mut all, mut highest, mut index) = (Window::<2>::new(), HashSet::new(), 0u64, 0u64);
            for (step, from_highest) in steps {
                index = if from_highest { highest } else { index }.saturating_add_signed(step);
                let is_near = all.is_empty() || index + 128 > highest;
                prop_assert_eq!(window.insert(index), is_near && !all.contains(&index), "{}", index);
                all.insert(index);
                highest = highest.max(index);
            }
        }
    }
}
