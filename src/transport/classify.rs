//! Tells by its first bytes what a packet is (RFC 7983, as updated by RFC 9443), so that ICE, DTLS, media and TURN can
//! share one port. `net` asks for every packet that arrives, before anything is allocated or looked up for it.

/// Bytes of the longest RTP or RTCP packet let in. Peers keep below the Ethernet MTU; str0m's send side has a scratch of
/// 2000 bytes and panics on a payload that fills it, so a longer packet must not even reach a room.
pub const MAX_RTP_BYTES: usize = 1500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// Of a connection: a connectivity check, its response, or an indication.
    Stun {
        /// From a binding request: what the sender believes is our ICE ufrag, the part of USERNAME before the colon
        /// (RFC 8445 §7.2.2). Not authenticated: only good for finding the connection that will check it.
        local_ufrag: Option<&'a str>,
    },
    Dtls,
    /// RTP or RTCP, encrypted.
    Rtp,
    /// Would be RTP, but is longer than [`MAX_RTP_BYTES`]: to be dropped.
    Oversized,
    /// For the STUN and TURN server: a binding request that names no connection, a TURN request or indication (RFC 8656 §3),
    /// or ChannelData (§12.4).
    Turn,
    /// Nothing that belongs on this port, or too short or malformed for what it claims to be.
    Unknown,
}

const STUN_HEADER_BYTES: usize = 20;
const STUN_MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const STUN_BINDING_REQUEST: u16 = 0x0001;
const STUN_BINDING_RESPONSE: u16 = 0x0101;
/// Where the type of a message has its class; the rest is its method (RFC 8489 §5).
const STUN_CLASS_BITS: u16 = 0x0110;
const STUN_RESPONSE_BIT: u16 = 0x0100;
const STUN_USERNAME: u16 = 0x0006;
const STUN_USE_CANDIDATE: u16 = 0x0025;
const STUN_MESSAGE_INTEGRITY: u16 = 0x0008;

/// Type, version, epoch, sequence number, length (RFC 6347 §4.1). DTLS 1.3's short header only appears in records
/// whose first byte is also in the DTLS range; the shortest of those with its tag is longer than this.
const DTLS_RECORD_HEADER_BYTES: usize = 13;

/// The shortest RTCP header; RTP's has 12.
const RTCP_HEADER_BYTES: usize = 8;

const CHANNEL_HEADER_BYTES: usize = 4;

pub fn classify(packet: &[u8]) -> Datagram<'_> {
    match packet {
        [0..=3, ..] => stun(packet),
        [20..=63, ..] if packet.len() >= DTLS_RECORD_HEADER_BYTES => Datagram::Dtls,
        [0x40..=0x7f, ..] if packet.len() >= CHANNEL_HEADER_BYTES => Datagram::Turn,
        [128..=191, ..] if packet.len() > MAX_RTP_BYTES => Datagram::Oversized,
        [128..=191, ..] if packet.len() >= RTCP_HEADER_BYTES => Datagram::Rtp,
        _ => Datagram::Unknown,
    }
}

/// Whether a packet is RTP or RTCP, by its first byte.
pub fn is_media(packet: &[u8]) -> bool {
    matches!(packet, [128..=191, ..])
}

/// Checks the header and walks the attributes (RFC 8489 §5, §14). Does not check integrity: that takes the password.
fn stun(packet: &[u8]) -> Datagram<'_> {
    let Some((header, attributes)) = packet.split_at_checked(STUN_HEADER_BYTES) else {
        return Datagram::Unknown;
    };
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[4..8] != STUN_MAGIC_COOKIE || length != attributes.len() || length % 4 != 0 {
        return Datagram::Unknown;
    }
    let kind = u16::from_be_bytes([header[0], header[1]]);
    if kind == STUN_BINDING_REQUEST {
        return match attribute(attributes, STUN_USERNAME) {
            // A check always has one (RFC 8445 §7.1.1).
            None => Datagram::Turn,
            Some(username) => Datagram::Stun { local_ufrag: local_part(username) },
        };
    }
    let is_binding = kind & !STUN_CLASS_BITS == STUN_BINDING_REQUEST;
    // We are nobody's TURN client: what answers a TURN request is not for us.
    let is_response = kind & STUN_RESPONSE_BIT != 0;
    if is_binding || is_response { Datagram::Stun { local_ufrag: None } } else { Datagram::Turn }
}

/// Ties a response to its request (RFC 8489 §5).
pub type TransactionId = [u8; 12];

/// The transaction of a binding request that asks us to use the path it came on (USE-CANDIDATE, RFC 8445 §7.1.2). Not
/// authenticated.
pub fn nomination(packet: &[u8]) -> Option<TransactionId> {
    let (header, attributes) = packet.split_at_checked(STUN_HEADER_BYTES)?;
    let is_request = header[..2] == STUN_BINDING_REQUEST.to_be_bytes() && header[4..8] == STUN_MAGIC_COOKIE;
    let nominates = is_request && attribute(attributes, STUN_USE_CANDIDATE).is_some();
    nominates.then(|| header[8..].try_into().ok())?
}

/// The transaction of a binding request to which this packet is the response that it succeeded.
pub fn answered(packet: &[u8]) -> Option<TransactionId> {
    let (header, _) = packet.split_at_checked(STUN_HEADER_BYTES)?;
    let is_response = header[..2] == STUN_BINDING_RESPONSE.to_be_bytes() && header[4..8] == STUN_MAGIC_COOKIE;
    is_response.then(|| header[8..].try_into().ok())?
}

/// The first such attribute that the message's integrity covers.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [kind_high, kind_low, length_high, length_low, rest @ ..] = attributes {
        let kind = u16::from_be_bytes([*kind_high, *kind_low]);
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        if kind == STUN_MESSAGE_INTEGRITY {
            return None;
        }
        let value = rest.get(..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn local_part(username: &[u8]) -> Option<&str> {
    let (local, _remote) = std::str::from_utf8(username).ok()?.split_once(':')?;
    (!local.is_empty()).then_some(local)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The request of RFC 5769 §2.1: SOFTWARE, PRIORITY, ICE-CONTROLLED, USERNAME `evtj:h6vY`, integrity, fingerprint.
    const RFC_5769_REQUEST: [u8; 108] = [
        0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87,
        0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73, 0x74, 0x20, 0x63, 0x6c,
        0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff, 0x80, 0x29, 0x00, 0x08, 0x93, 0x2f,
        0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76,
        0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e,
        0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49, 0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
    ];

    /// A STUN message with these attributes; values are padded.
    fn stun(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend(kind.to_be_bytes());
            body.extend((value.len() as u16).to_be_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut message = kind.to_be_bytes().to_vec();
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(STUN_MAGIC_COOKIE);
        message.extend([7; 12]);
        message.extend(body);
        message
    }

    #[test]
    fn finds_the_ufrag_of_a_binding_request() {
        assert_eq!(classify(&RFC_5769_REQUEST), Datagram::Stun { local_ufrag: Some("evtj") });
        for (message, local_ufrag, what) in [
            (stun(1, &[(6, b"abcd:efgh")]), Some("abcd"), "plain"),
            (stun(1, &[(6, b"abcd:ef:gh")]), Some("abcd"), "first colon counts"),
            (stun(1, &[(0x24, b"1234"), (6, b"abcd:e")]), Some("abcd"), "after another attribute"),
            (stun(1, &[(6, b"abcd")]), None, "no colon"),
            (stun(1, &[(6, b":abcd")]), None, "empty"),
            (stun(1, &[(6, b"\xff\xff:abcd")]), None, "not text"),
            (stun(0x0101, &[(6, b"abcd:efgh")]), None, "a response"),
            (stun(0x0011, &[]), None, "an indication"),
            (stun(0x0113, &[]), None, "who refuses an allocation is not our client"),
        ] {
            assert_eq!(classify(&message), Datagram::Stun { local_ufrag }, "{what}");
        }
    }

    #[test]
    fn what_names_no_connection_is_the_stun_and_turn_servers() {
        let mut overrun = stun(1, &[(6, b"abcd:efg")]);
        overrun[23] = 200;
        for (message, what) in [
            (stun(1, &[]), "a binding request without a name"),
            (stun(1, &[(8, &[0; 20]), (6, b"abcd:efgh")]), "a name that the integrity does not cover"),
            (overrun, "an attribute longer than the message"),
            (stun(0x0003, &[(6, b"1700000000:alice")]), "Allocate"),
            (stun(0x0016, &[]), "a Send indication"),
            (vec![0x4f, 0xff, 0, 0], "ChannelData"),
            (vec![0x7f, 0xff, 0, 0], "on a channel as they were numbered first (RFC 5766 §11)"),
        ] {
            assert_eq!(classify(&message), Datagram::Turn, "{what}");
        }
    }

    #[test]
    fn rejects_what_is_not_quite_stun() {
        let message = stun(1, &[(6, b"abcd:efg")]);
        let changed = |at: usize, byte: u8| {
            let mut message = message.clone();
            message[at] = byte;
            message
        };
        for (packet, what) in [
            (message[..19].to_vec(), "cut short"),
            (message[..28].to_vec(), "shorter than its length"),
            ([&message[..], &[0; 4]].concat(), "longer than its length"),
            ([&changed(3, 13)[..], &[0]].concat(), "a length that is no multiple of four"),
            (changed(4, 0x22), "no magic cookie"),
        ] {
            assert_eq!(classify(&packet), Datagram::Unknown, "{what}");
        }
    }

    #[test]
    fn splits_by_the_first_byte() {
        for first in 0..=255u8 {
            let packet = [&[first, 0][..], &[0; 62]].concat();
            let expected = match first {
                20..=63 => Datagram::Dtls,
                64..=127 => Datagram::Turn,
                128..=191 => Datagram::Rtp,
                _ => Datagram::Unknown,
            };
            assert_eq!(classify(&packet), expected, "{first}");
        }
        assert_eq!(classify(&[]), Datagram::Unknown);
        assert_eq!(classify(&[22; 12]), Datagram::Unknown);
        assert_eq!(classify(&[0x40; 3]), Datagram::Unknown);
        assert_eq!(classify(&[128; 7]), Datagram::Unknown);
    }

    #[test]
    fn long_rtp_is_oversized() {
        assert_eq!(classify(&[128; MAX_RTP_BYTES]), Datagram::Rtp);
        assert_eq!(classify(&[128; MAX_RTP_BYTES + 1]), Datagram::Oversized);
        assert_eq!(classify(&[22; MAX_RTP_BYTES + 1]), Datagram::Dtls);
    }

    proptest! {
        #[test]
        fn any_attributes_are_walked_to_their_end(
            attributes in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            cut in any::<u16>(),
        ) {
            let attributes: Vec<_> = attributes.iter().map(|(kind, value)| (*kind, &value[..])).collect();
            let whole = stun(1, &attributes);
            let is_stun = matches!(classify(&whole), Datagram::Stun { .. } | Datagram::Turn);
            prop_assert!(is_stun);
            let len = usize::from(cut) % whole.len();
            prop_assert_eq!(classify(&whole[..len]), Datagram::Unknown);
        }

        #[test]
        fn a_ufrag_is_found_behind_other_attributes(
            before in prop::collection::vec((0x20u16..0xffff, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            ufrag in "[A-Za-z0-9+/]{1,32}",
        ) {
            let username = format!("{ufrag}:peer");
            let mut attributes: Vec<_> = before.iter().map(|(kind, value)| (*kind, &value[..])).collect();
            attributes.push((6, username.as_bytes()));
            let message = stun(1, &attributes);
            prop_assert_eq!(classify(&message), Datagram::Stun { local_ufrag: Some(&ufrag) });
        }
    }
}
