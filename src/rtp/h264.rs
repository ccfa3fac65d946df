//! Finds where an H.264 key frame starts in an RTP payload (RFC 6184 §5). Frame encryption leaves NAL unit headers and
//! parameter sets clear, so the forwarder can switch simulcast layers on encrypted streams too.

const TYPE_MASK: u8 = 0x1f;
const IDR_SLICE: u8 = 5;
const SEQUENCE_PARAMETER_SET: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// In the second byte of a fragment: the first of its unit.
const FRAGMENT_START: u8 = 0x80;

/// Whether a sequence parameter set or an IDR picture begins in this packet. Encoders for WebRTC send the parameter
/// sets right before each IDR picture, so the first such packet of a timestamp is the start of the key frame;
/// a picture of several slices has more of them.
pub fn starts_key_frame(payload: &[u8]) -> bool {
    match payload {
        [first, units @ ..] if first & TYPE_MASK == STAP_A => aggregate_has_key_unit(units),
        [first, header, ..] if first & TYPE_MASK == FU_A => header & FRAGMENT_START != 0 && is_key_unit(*header),
        [first, ..] => is_key_unit(*first),
        [] => false,
    }
}

/// `units`: each two bytes of length, then that many bytes (RFC 6184 §5.7.1).
fn aggregate_has_key_unit(mut units: &[u8]) -> bool {
    while let [high, low, rest @ ..] = units {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((unit, rest)) = rest.split_at_checked(len) else {
            return false;
        };
        if unit.first().is_some_and(|first| is_key_unit(*first)) {
            return true;
        }
        units = rest;
    }
    false
}

fn is_key_unit(header: u8) -> bool {
    matches!(header & TYPE_MASK, IDR_SLICE | SEQUENCE_PARAMETER_SET)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_key_frames() {
        for (payload, expected, what) in [
            (&[0x67u8, 0x42, 0xe0, 0x1f][..], true, "parameter set"),
            (&[0x65, 0x88], true, "whole IDR slice"),
            (&[0x41, 0x9a], false, "other slice"),
            (&[0x68, 0xce], false, "picture parameter set"),
            (&[0x06, 0x05], false, "supplemental information"),
            (&[0x78, 0, 2, 0x67, 0x42, 0, 1, 0x68], true, "aggregate that starts with the parameter set"),
            (&[0x78, 0, 1, 0x09, 0, 0, 0, 2, 0x65, 0x88], true, "aggregate with an empty unit before the IDR slice"),
            (&[0x78, 0, 1, 0x41, 0, 1, 0x41], false, "aggregate of other slices"),
            (&[0x78, 0, 9, 0x67], false, "aggregate cut short"),
            (&[0x78, 0, 1, 0x41, 0], false, "aggregate with half a length"),
            (&[0x78], false, "empty aggregate"),
            (&[0x7c, 0x85, 0x88], true, "first fragment of an IDR slice"),
            (&[0x7c, 0x05, 0x88], false, "later fragment of an IDR slice"),
            (&[0x7c, 0x45, 0x88], false, "last fragment of an IDR slice"),
            (&[0x7c, 0x81, 0x9a], false, "first fragment of another slice"),
            (&[0x7c], false, "fragment cut short"),
            (&[], false, "nothing"),
        ] {
            assert_eq!(starts_key_frame(payload), expected, "{what}");
        }
    }

    proptest! {
        /// An aggregate is a key frame exactly when one of its units, sent alone, would be.
        #[test]
        fn aggregates_agree_with_their_units(
            units in prop::collection::vec((0u8..24, prop::collection::vec(any::<u8>(), 0..20)), 0..6),
        ) {
            let mut payload = vec![0x78];
            let mut expected = false;
            for (kind, body) in units {
                let unit = [&[kind][..], &body].concat();
                expected |= starts_key_frame(&unit);
                payload.extend((unit.len() as u16).to_be_bytes());
                payload.extend(unit);
            }
            prop_assert_eq!(starts_key_frame(&payload), expected);
        }
    }
}
