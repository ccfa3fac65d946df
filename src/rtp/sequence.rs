//! Widens the counters of RTP, which wrap every few minutes or hours, to 64 bits that never do. Whoever keeps a history of
//! packets (egress, estimator, forwarder, receivers) works with the wide ones and cuts them only when it writes a packet.

/// The number nearest to `reference` whose low 16 bits are `sequence`. Exactly half a cycle away counts as older.
/// Never wraps around zero: what would lie before it is taken a cycle later.
pub fn extend_sequence(reference: u64, sequence: u16) -> u64 {
    let distance = sequence.wrapping_sub(reference as u16) as i16;
    offset(reference, distance.into(), 1 << 16)
}

/// The time nearest to `reference` whose low 32 bits are `timestamp`, in ticks of the codec's clock.
/// Exactly half a cycle away counts as older; never wraps around zero.
pub fn extend_timestamp(reference: u64, timestamp: u32) -> u64 {
    let distance = timestamp.wrapping_sub(reference as u32) as i32;
    offset(reference, distance.into(), 1 << 32)
}

fn offset(reference: u64, distance: i64, cycle: u64) -> u64 {
    match reference.checked_add_signed(distance) {
        Some(value) => value,
        None if distance < 0 => reference.wrapping_add_signed(distance).wrapping_add(cycle),
        None => reference.wrapping_add_signed(distance).wrapping_sub(cycle),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_the_nearest() {
        for (reference, sequence, expected) in [
            (0, 0, 0),
            (0, 5, 5),
            (65_535, 0, 65_536),
            (65_536, 65_535, 65_535),
            (70_000, 70_000u32 as u16, 70_000),
            (100_000, 0x8000, 0x18000),
            // Half a cycle away is older.
            (0x18000, 0, 0x10000),
            // Nothing is before zero.
            (3, 65_530, 65_530),
            (u64::MAX, 3, u64::MAX - 0xffff + 3),
        ] {
            assert_eq!(extend_sequence(reference, sequence), expected, "{sequence} near {reference}");
        }
        assert_eq!(extend_timestamp(0xffff_ff00, 0x10), 0x1_0000_0010);
        assert_eq!(extend_timestamp(0x1_0000_0010, 0xffff_ff00), 0xffff_ff00);
        assert_eq!(extend_timestamp(5, 0xffff_ff00), 0xffff_ff00);
    }

    proptest! {
        #[test]
        fn undoes_the_cutting(reference in 1u64 << 33..1 << 60, step in -0x8000i64..0x8000, ticks in -0x8000_0000i64..0x8000_0000) {
            let sequence = reference.wrapping_add_signed(step);
            prop_assert_eq!(extend_sequence(reference, sequence as u16), sequence);
            let timestamp = reference.wrapping_add_signed(ticks);
            prop_assert_eq!(extend_timestamp(reference, timestamp as u32), timestamp);
        }

        #[test]
        fn keeps_the_low_bits(reference: u64, sequence: u16, timestamp: u32) {
            prop_assert_eq!(extend_sequence(reference, sequence) as u16, sequence);
            prop_assert_eq!(extend_timestamp(reference, timestamp) as u32, timestamp);
        }
    }
}
