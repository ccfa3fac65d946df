//! Finds where an AV1 key frame starts in an RTP payload (AV1 RTP specification §4.4), for publishers that send no
//! dependency descriptor.

/// N in the aggregation header: the packet is the first of a coded video sequence.
const N_NEW_SEQUENCE: u8 = 0x08;

pub fn starts_key_frame(payload: &[u8]) -> bool {
    payload.first().is_some_and(|header| header & N_NEW_SEQUENCE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aggregation_header_tells() {
        for (payload, expected) in [(&[0x18u8, 0x0a][..], true), (&[0x10, 0x32], false), (&[0x98], true), (&[], false)]
        {
            assert_eq!(starts_key_frame(payload), expected, "{payload:x?}");
        }
    }
}
