//! The clear header of an RTP packet (RFC 3550 §5.1, RFC 8285). Called once per datagram, so it reads and copies nothing more.

/// A packet as it came from the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub payload_type: u8,
    pub marker: bool,
    /// The payload, once opened, ends in padding (RFC 3550 §5.1).
    pub padded: bool,
    /// Bytes before the payload.
    pub header: usize,
    /// The profile of the header extension and its bytes.
    extension: Option<(u16, &'a [u8])>,
}

/// What a datagram on a WebRTC socket is (RFC 7983).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rtp,
    Rtcp,
    /// STUN, DTLS, or nothing known: str0m's.
    Other,
}

pub fn kind(datagram: &[u8]) -> Kind {
    match datagram {
        // RFC 5761 §4: RTCP's packet types are no payload types.
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, ..] => Kind::Rtp,
        _ => Kind::Other,
    }
}

impl<'a> Packet<'a> {
    /// `None` when it ends within its header.
    pub fn parse(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let fixed: &[u8; 12] = bytes.first_chunk()?;
        let mut header = 12 + 4 * usize::from(fixed[0] & 0x0f);
        let mut extension = None;
        if fixed[0] & 0x10 != 0 {
            let start: &[u8; 4] = bytes.get(header..)?.first_chunk()?;
            let length = 4 * usize::from(u16::from_be_bytes([start[2], start[3]]));
            let values = bytes.get(header + 4..header + 4 + length)?;
            extension = Some((u16::from_be_bytes([start[0], start[1]]), values));
            header += 4 + length;
        }
        (header <= bytes.len()).then(|| Packet {
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            payload_type: fixed[1] & 0x7f,
            marker: fixed[1] & 0x80 != 0,
            padded: fixed[0] & 0x20 != 0,
            header,
            extension,
        })
    }

    /// The value of a header extension.
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        let (profile, mut rest) = self.extension?;
        let one_byte = match profile {
            0xbede => true,
            0x1000..=0x100f => false,
            _ => return None,
        };
        while let [first, after @ ..] = rest {
            if *first == 0 {
                rest = after;
                continue;
            }
            let (found, length, values) = if one_byte {
                (first >> 4, usize::from(first & 0x0f) + 1, after)
            } else {
                (*first, usize::from(*after.first()?), &after[1..])
            };
            let value = values.get(..length)?;
            if found == id {
                return Some(value);
            }
            rest = &values[length..];
        }
        None
    }

    /// What the sender put into an opened payload, without its padding.
    pub fn unpadded<'p>(&self, payload: &'p [u8]) -> &'p [u8] {
        let padding = match payload.last() {
            Some(length) if self.padded => usize::from(*length),
            _ => 0,
        };
        &payload[..payload.len().saturating_sub(padding)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two elements: id 3 with two bytes, id 1 with one; one byte of padding between.
    fn packet() -> Vec<u8> {
        let mut bytes = vec![0x90, 0xe0, 0x12, 0x34, 0, 0, 0, 7, 0xaa, 0xbb, 0xcc, 0xdd];
        bytes.extend([0xbe, 0xde, 0, 2, 0x31, 0x01, 0x02, 0x00, 0x10, 0x99, 0, 0]);
        bytes.extend(b"payload");
        bytes
    }

    #[test]
    fn the_header_is_read() {
        let bytes = packet();
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.ssrc, packet.sequence, packet.timestamp), (0xaabb_ccdd, 0x1234, 7));
        assert_eq!((packet.payload_type, packet.marker, packet.header), (96, true, 24));
        assert_eq!(packet.extension(3), Some(&[1, 2][..]));
        assert_eq!(packet.extension(1), Some(&[0x99][..]));
        assert_eq!(packet.extension(2), None);
        assert_eq!(&bytes[packet.header..], b"payload");
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        let bytes = packet();
        for length in 0..24 {
            assert_eq!(Packet::parse(&bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn datagrams_are_told_apart() {
        assert_eq!(kind(&packet()), Kind::Rtp);
        assert_eq!(kind(&[0x80, 200, 0, 6]), Kind::Rtcp);
        assert_eq!(kind(&[0x00, 0x01]), Kind::Other);
        assert_eq!(kind(&[]), Kind::Other);
    }

    #[test]
    fn padding_is_no_payload() {
        let mut bytes = packet();
        bytes[0] |= 0x20;
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.unpadded(&[9, 9, 0, 2]), &[9, 9]);
        assert_eq!(packet.unpadded(&[0, 0, 0, 4]), &[] as &[u8]);
    }
}
