//! Arithmetic of the RTP counters that wrap: 16-bit sequence numbers and 32-bit timestamps.
//!
//! The forwarder and the packet caches count in 64 bits, so that comparing is plain comparing.

/// Extends the sequence numbers of one stream to 64 bits: each lands on the value nearest to the highest before it
/// (the idea of RFC 3550 A.1). Up to 32,767 lost or 32,768 reordered packets are told apart.
#[derive(Debug, Clone, Default)]
pub struct SequenceExtender {
    highest: Option<u64>,
}

impl SequenceExtender {
    /// Where counting starts: one cycle up, so that packets from before the first one still get a number below its.
    const FIRST_CYCLE: u64 = 1 << 16;

    pub fn new() -> SequenceExtender {
        SequenceExtender::default()
    }

    /// The 64-bit number of the packet; its low 16 bits are `sequence`.
    pub fn extend(&mut self, sequence: u16) -> u64 {
        let Some(highest) = self.highest else {
            let extended = Self::FIRST_CYCLE + u64::from(sequence);
            self.highest = Some(extended);
            return extended;
        };
        let extended = nearest(highest, sequence);
        self.highest = Some(highest.max(extended));
        extended
    }

    /// The highest number so far.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// The 64-bit number nearest to `reference` whose low 16 bits are `sequence`: e.g. what a NACK means by a number.
/// Saturates at the ends instead of wrapping; no stream gets there.
pub fn nearest(reference: u64, sequence: u16) -> u64 {
    let distance = sequence_distance(sequence, reference as u16);
    let extended = reference.saturating_add_signed(i64::from(distance));
    // Before the very first cycle there is nothing: the number can only be ahead.
    if extended as u16 == sequence { extended } else { u64::from(sequence) }
}

/// How far `a` is ahead of `b` on the circle of sequence numbers; negative = behind.
pub fn sequence_distance(a: u16, b: u16) -> i16 {
    a.wrapping_sub(b) as i16
}

/// How far timestamp `a` is ahead of `b`, in clock ticks; negative = behind.
pub fn timestamp_distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// Whether timestamp `a` is later than `b`.
pub fn is_later(a: u32, b: u32) -> bool {
    timestamp_distance(a, b) > 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn extends_over_the_wrap_and_back() {
        let mut extender = SequenceExtender::new();
        let cycle = 1 << 16;
        for (sequence, expected) in [
            (65534, cycle + 65534),
            (65535, cycle + 65535),
            (1, 2 * cycle + 1),
            (0, 2 * cycle),
            (65533, cycle + 65533),
            (2, 2 * cycle + 2),
            (32769, 2 * cycle + 32769),
            (0, 3 * cycle),
        ] {
            assert_eq!(extender.extend(sequence), expected, "{sequence}");
        }
        assert_eq!(extender.highest(), Some(3 * cycle));
    }

    #[test]
    fn packets_from_before_the_first_get_lower_numbers() {
        let mut extender = SequenceExtender::new();
        let first = extender.extend(0);
        assert_eq!(extender.extend(65535), first - 1);
        assert_eq!(extender.extend(32768), first - 32768);
        assert_eq!(extender.highest(), Some(first));
    }

    #[test]
    fn nearest_keeps_the_low_bits_at_the_ends() {
        assert_eq!(nearest(0, 65535), 65535);
        assert_eq!(nearest(10, 3), 3);
        assert_eq!(nearest(70_000, 65_535), 65_535);
        assert_eq!(nearest(u64::MAX, 65535), u64::MAX);
    }

    #[test]
    fn compares_over_the_wrap() {
        assert_eq!(sequence_distance(2, 65534), 4);
        assert_eq!(sequence_distance(65534, 2), -4);
        assert_eq!(timestamp_distance(5, u32::MAX - 4), 10);
        assert!(is_later(0, u32::MAX) && !is_later(u32::MAX, 0) && !is_later(7, 7));
    }

    proptest! {
        /// Any stream with gaps and reordering below half a cycle is numbered as it was sent.
        #[test]
        fn follows_a_stream(start in any::<u16>(), steps in prop::collection::vec(-1000i64..30_000, 1..200)) {
            let mut extender = SequenceExtender::new();
            let first = extender.extend(start);
            let mut highest = first;
            for step in steps {
                let sent = highest.saturating_add_signed(step).max(first);
                prop_assert_eq!(extender.extend(sent as u16), sent);
                highest = highest.max(sent);
                prop_assert_eq!(extender.highest(), Some(highest));
            }
        }

        #[test]
        fn nearest_is_within_half_a_cycle(reference in 65_536u64..1 << 48, sequence in any::<u16>()) {
            let found = nearest(reference, sequence);
            prop_assert_eq!(found as u16, sequence);
            prop_assert!(found.abs_diff(reference) <= 32_768);
        }
    }
}
