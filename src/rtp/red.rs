//! Redundant audio (RFC 2198): each packet repeats frames of the ones before it. For a receiver that did not negotiate it,
//! the newest frame, which comes last, can be cut out.

use super::reader::take;

const F_MORE: u8 = 0x80;
const PAYLOAD_TYPE_MASK: u8 = 0x7f;
/// The lower bits of a header's 24 behind the payload type: the block's length. Those above are a timestamp offset.
const LENGTH_MASK: u32 = 0x3ff;

/// The newest block of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Primary {
    pub payload_type: u8,
    /// Bytes: where it begins in the payload. It goes on to the end.
    pub from: usize,
}

impl Primary {
    /// `None` when the headers, or the blocks they promise, are cut short.
    pub fn parse(payload: &[u8]) -> Option<Primary> {
        let mut at = 0;
        let mut redundant = 0;
        loop {
            let header = take(payload, &mut at)?;
            if header & F_MORE == 0 {
                let from = at + redundant;
                let fits = from <= payload.len();
                return fits.then_some(Primary { payload_type: header & PAYLOAD_TYPE_MASK, from });
            }
            let bytes = [0, take(payload, &mut at)?, take(payload, &mut at)?, take(payload, &mut at)?];
            redundant += (u32::from_be_bytes(bytes) & LENGTH_MASK) as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_the_newest_block() {
        for (payload, expected, what) in [
            (&[0x6f, 1, 2][..], Some(1), "no redundancy"),
            (&[0xef, 0x0f, 0x00, 0x02, 0x6f, 9, 9, 1], Some(7), "one block of two bytes"),
            (&[0xef, 0x0f, 0x00, 0x02, 0x6f, 9, 9], Some(7), "nothing new"),
            (&[0xef, 0x0f, 0x00, 0x02, 0x6f, 9], None, "a block cut short"),
            (&[0xef, 0x0f, 0x00, 0x02], None, "no primary header"),
            (&[0xef, 0x0f], None, "half a header"),
            (&[], None, "nothing"),
        ] {
            let expected = expected.map(|from| Primary { payload_type: 111, from });
            assert_eq!(Primary::parse(payload), expected, "{what}");
        }
    }

    proptest! {
        #[test]
        fn redundancy_is_cut_off(
            blocks in prop::collection::vec((0u32..1 << 14, prop::collection::vec(any::<u8>(), 0..60)), 0..4),
            primary in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut payload = Vec::new();
            for (offset, block) in &blocks {
                payload.push(F_MORE | 111);
                payload.extend(&(offset << 10 | block.len() as u32).to_be_bytes()[1..]);
            }
            payload.push(111);
            blocks.iter().for_each(|(_, block)| payload.extend(block));
            payload.extend(&primary);
            let found = Primary::parse(&payload).unwrap();
            prop_assert_eq!((found.payload_type, &payload[found.from..]), (111, &primary[..]));
        }

        #[test]
        fn no_bytes_break_it(payload in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(Primary::parse(&payload).is_none_or(|found| found.from <= payload.len()));
        }
    }
}
