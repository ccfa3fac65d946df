//! What a light sink needs beyond the server's own reading and writing of RTP and RTCP ([`parlour::rtp`]): the keys of a
//! connection, SRTP, and the collecting of transport-wide feedback.

pub mod keys;
pub mod srtp;
pub mod twcc;

/// What a datagram on a WebRTC socket is (RFC 7983).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rtp,
    Rtcp,
    /// STUN, DTLS, or nothing known: str0m's.
    Other,
}

pub fn kind(datagram: &[u8]) -> Kind {
    match datagram.first() {
        Some(128..=191) if parlour::rtp::rtcp::is_rtcp(datagram) => Kind::Rtcp,
        Some(128..=191) => Kind::Rtp,
        _ => Kind::Other,
    }
}

/// What the sender put into an opened payload, without its padding (RFC 3550 §5.1).
pub fn unpadded(padded: bool, payload: &[u8]) -> &[u8] {
    let padding = match payload.last() {
        Some(length) if padded => usize::from(*length),
        _ => 0,
    };
    &payload[..payload.len().saturating_sub(padding)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_told_apart() {
        assert_eq!(kind(&[0x80, 96, 0, 6]), Kind::Rtp);
        assert_eq!(kind(&[0x80, 200, 0, 6]), Kind::Rtcp);
        assert_eq!(kind(&[0x00, 0x01]), Kind::Other);
        assert_eq!(kind(&[]), Kind::Other);
    }

    #[test]
    fn padding_is_no_payload() {
        assert_eq!(unpadded(true, &[9, 9, 0, 2]), &[9, 9]);
        assert_eq!(unpadded(true, &[0, 0, 0, 4]), &[] as &[u8]);
        assert_eq!(unpadded(false, &[9, 2]), &[9, 2]);
    }
}
