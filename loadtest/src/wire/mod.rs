//! What a light sink needs beyond the server's own reading and writing of RTP and RTCP ([`parlour::rtp`]) and its SRTP
//! ([`parlour::transport::srtp`]): the crypto of a connection, and the collecting of transport-wide feedback.

pub mod crypto;
pub mod twcc;

use parlour::rtp::rtcp::is_rtcp;
use parlour::transport::classify::is_media;

/// What a datagram on a WebRTC socket is (RFC 7983).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rtp,
    Rtcp,
    /// STUN, DTLS, or nothing known: str0m's.
    Other,
}

pub fn kind(datagram: &[u8]) -> Kind {
    match (is_media(datagram), is_rtcp(datagram)) {
        (false, _) => Kind::Other,
        (true, true) => Kind::Rtcp,
        (true, false) => Kind::Rtp,
    }
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
}
