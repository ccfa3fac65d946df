//! TURN on a TCP or TLS connection (RFC 8656 §3.1, §12.5): STUN messages and ChannelData one after the other, each with its
//! length in itself. And how a connection to a port that serves ICE too shows which of the two it is for: [`sniff`].
//!
//! `net` has one [`Deframer`] for each connection.

/// Bytes of the longest message taken. What is relayed leaves as one UDP packet and stays near the MTU when WebRTC sends it;
/// this leaves room for the largest that other programs send, and bounds what a stranger makes us keep.
pub const MAX_MESSAGE_BYTES: usize = 1 << 14;

/// Bytes a [`Deframer`] holds at most: the longest unfinished message and one read of 64 KiB.
pub const MAX_BUFFER_BYTES: usize = MAX_MESSAGE_BYTES + (1 << 16);

/// Bytes after which [`sniff`] has its verdict.
pub const SNIFFED_BYTES: usize = 10;

const STUN_HEADER_BYTES: usize = 20;
const STUN_MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Where the cookie stands in a message of TURN's framing, and behind the two bytes of length that ICE puts before one.
const TURN_COOKIE_AT: usize = 4;
const ICE_COOKIE_AT: usize = 6;

const CHANNEL_HEADER_BYTES: usize = 4;
/// Messages on a stream begin at multiples of this.
const ALIGNMENT: usize = 4;

/// What a TCP connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Packets of one ICE connection, framed as [`crate::transport::framing`] says.
    Ice,
    Turn,
}

/// The stream cannot be followed any further: close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("neither a STUN message nor channel data")]
    Neither,
    #[error("a message is longer than {MAX_MESSAGE_BYTES} bytes")]
    MessageTooLong,
    #[error("more than {MAX_BUFFER_BYTES} bytes wait to be read")]
    BufferFull,
}

/// What a connection carries, by its first bytes: either begins with a STUN request, and the magic cookie of it stands in
/// another place. `None` while it can be both or one; with [`SNIFFED_BYTES`] it never is.
pub fn sniff(first: &[u8]) -> Result<Option<Stream>, FramingError> {
    let stun_at = |start: usize, cookie_at: usize| {
        let cookie = first.get(cookie_at..).unwrap_or_default();
        let known = cookie.len().min(STUN_MAGIC_COOKIE.len());
        let fits = first.get(start).is_none_or(|kind| is_stun(*kind)) && cookie[..known] == STUN_MAGIC_COOKIE[..known];
        fits.then_some(known == STUN_MAGIC_COOKIE.len())
    };
    match (stun_at(0, TURN_COOKIE_AT), stun_at(ICE_COOKIE_AT - TURN_COOKIE_AT, ICE_COOKIE_AT)) {
        (Some(true), _) => Ok(Some(Stream::Turn)),
        (_, Some(true)) => Ok(Some(Stream::Ice)),
        (None, None) => Err(FramingError::Neither),
        _ => Ok(None),
    }
}

/// By the first byte (RFC 7983 §7).
fn is_stun(first: u8) -> bool {
    first < 4
}

/// Finds the messages in a byte stream, however it is cut.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: Vec<u8>,
    /// What comes before this has been handed out.
    start: usize,
}

impl Deframer {
    pub fn new() -> Deframer {
        Deframer::default()
    }

    /// Takes what was read, 64 KiB at most if all messages were taken out before.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FramingError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() + bytes.len() > MAX_BUFFER_BYTES {
            return Err(FramingError::BufferFull);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole message, channel data without its padding; `None` until more is pushed.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, FramingError> {
        let rest = &self.buffer[self.start..];
        let Some(len) = message_len(rest)? else { return Ok(None) };
        let padded = len.next_multiple_of(ALIGNMENT);
        if padded > MAX_MESSAGE_BYTES {
            return Err(FramingError::MessageTooLong);
        }
        if rest.len() < padded {
            return Ok(None);
        }
        let message = self.start;
        self.start += padded;
        Ok(Some(&self.buffer[message..message + len]))
    }
}

/// Bytes of the message that `stream` begins with; `None` while its header is not whole.
fn message_len(stream: &[u8]) -> Result<Option<usize>, FramingError> {
    let header = match stream {
        [] => return Ok(None),
        [first, ..] if is_stun(*first) => STUN_HEADER_BYTES,
        // Channel numbers, see `channel`.
        [0x40..=0x7f, ..] => CHANNEL_HEADER_BYTES,
        _ => return Err(FramingError::Neither),
    };
    let Some(len) = stream.get(2..4) else { return Ok(None) };
    let len = header + usize::from(u16::from_be_bytes([len[0], len[1]]));
    if header == CHANNEL_HEADER_BYTES {
        return Ok(Some(len));
    }
    // The cookie is what tells that we are still in step with the sender.
    let Some(cookie) = stream.get(TURN_COOKIE_AT..TURN_COOKIE_AT + STUN_MAGIC_COOKIE.len()) else { return Ok(None) };
    if cookie != STUN_MAGIC_COOKIE || len % ALIGNMENT != 0 {
        return Err(FramingError::Neither);
    }
    Ok(Some(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A STUN message of this type, with so many words of attributes.
    fn stun(kind: u16, words: u16) -> Vec<u8> {
        let mut message = kind.to_be_bytes().to_vec();
        message.extend((words * 4).to_be_bytes());
        message.extend(STUN_MAGIC_COOKIE);
        message.resize(STUN_HEADER_BYTES + usize::from(words) * 4, 7);
        message
    }

    fn channel(number: u16, data: &[u8]) -> Vec<u8> {
        [&number.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
    }

    fn padded(mut message: Vec<u8>) -> Vec<u8> {
        message.resize(message.len().next_multiple_of(ALIGNMENT), 0xee);
        message
    }

    fn drain(deframer: &mut Deframer) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while let Some(message) = deframer.next_message().expect("messages within bounds") {
            messages.push(message.to_vec());
        }
        messages
    }

    #[test]
    fn known_bytes() {
        let mut deframer = Deframer::new();
        let allocate = stun(0x0003, 2);
        deframer.push(&[&allocate[..], b"\x40\x01\0\x05hello\0\0\0\x4f\xff\0\0\x40"].concat()).expect("room");
        assert_eq!(drain(&mut deframer), [allocate, b"\x40\x01\0\x05hello".to_vec(), b"\x4f\xff\0\0".to_vec()]);
        deframer.push(b"\0\0\x03abc").expect("room");
        assert_eq!(drain(&mut deframer), Vec::<Vec<u8>>::new(), "without its padding");
        deframer.push(b"\0").expect("room");
        assert_eq!(drain(&mut deframer), [b"\x40\0\0\x03abc".to_vec()]);
    }

    #[test]
    fn what_is_neither_ends_it_as_soon_as_it_shows() {
        let mut skewed = stun(1, 1);
        skewed[3] = 5;
        let mut foreign = stun(1, 1);
        foreign[7] ^= 1;
        for (bytes, what) in [
            (&b"\x8fOST"[..], "nothing known"),
            (&[0x16, 3, 1], "TLS"),
            (&[4], "reserved"),
            (&[0x3f], "reserved"),
            (&[0x80], "media"),
            (&[0x80, 0x60], "RTP"),
            (&foreign[..8], "another cookie"),
            (&skewed[..8], "a length that is no multiple of four"),
        ] {
            let mut deframer = Deframer::new();
            deframer.push(bytes).expect("room");
            assert_eq!(deframer.next_message(), Err(FramingError::Neither), "{what}");
            deframer.push(&[0; 64]).expect("room");
            assert_eq!(deframer.next_message(), Err(FramingError::Neither), "{what}, still");
        }
    }

    #[test]
    fn a_message_has_a_longest_length() {
        let mut deframer = Deframer::new();
        let longest = channel(0x4000, &[1; MAX_MESSAGE_BYTES - CHANNEL_HEADER_BYTES]);
        deframer.push(&longest).expect("room");
        assert_eq!(drain(&mut deframer), [longest]);
        // The length alone is enough to give up.
        deframer.push(&channel(0x4000, &[1; MAX_MESSAGE_BYTES - CHANNEL_HEADER_BYTES + 1])[..4]).expect("room");
        assert_eq!(deframer.next_message(), Err(FramingError::MessageTooLong));
        let mut deframer = Deframer::new();
        deframer.push(&stun(1, (MAX_MESSAGE_BYTES / 4) as u16)[..8]).expect("room");
        assert_eq!(deframer.next_message(), Err(FramingError::MessageTooLong));
    }

    #[test]
    fn the_buffer_is_bounded() {
        let mut deframer = Deframer::new();
        // The longest unfinished message leaves room for one read, whatever was read before.
        let longest = channel(0x4000, &[1; MAX_MESSAGE_BYTES - CHANNEL_HEADER_BYTES]);
        let (almost, last) = longest.split_at(MAX_MESSAGE_BYTES - 4);
        let empty = channel(0x4000, &[]).repeat((1 << 14) - 1);
        for _ in 0..3 {
            deframer.push(almost).expect("room");
            assert_eq!(drain(&mut deframer).len(), 0);
            deframer.push(&[last, &empty].concat()).expect("room for one read");
            assert_eq!(drain(&mut deframer).len(), 1 << 14);
        }
        deframer.push(&vec![0; MAX_BUFFER_BYTES]).expect("room");
        assert_eq!(deframer.push(&[0]), Err(FramingError::BufferFull));
    }

    #[test]
    fn the_first_bytes_tell_ice_from_turn() {
        let turn = stun(0x0003, 2);
        let ice = [&28u16.to_be_bytes()[..], &stun(0x0001, 2)].concat();
        for (stream, whole, from) in [(Stream::Turn, &turn, 8), (Stream::Ice, &ice, 10)] {
            for len in 0..whole.len() {
                assert_eq!(sniff(&whole[..len]), Ok((len >= from).then_some(stream)), "{len} bytes of {stream:?}");
            }
        }
        for (bytes, what) in [
            (&b"GET"[..], "HTTP"),
            (&b"\x16\x03\x01\x02\0\x01\0"[..], "TLS"),
            (&b"SSH"[..], "SSH"),
            (&[0; 10][..], "zeros"),
            (&b"\x40\x00\x08"[..], "channel data, before anything is allocated"),
            (&b"\x00\x10\x80\x60\0"[..], "framed RTP"),
        ] {
            assert_eq!(sniff(bytes), Err(FramingError::Neither), "{what}");
        }
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in prop::collection::vec(
                prop_oneof![
                    (0u16..0x400, 0u16..60).prop_map(|(kind, words)| stun(kind, words)),
                    (0x4000u16..0x8000, prop::collection::vec(any::<u8>(), 0..300))
                        .prop_map(|(number, data)| channel(number, &data)),
                ],
                0..20,
            ),
            cuts in prop::collection::vec(1usize..200, 1..20),
        ) {
            let stream: Vec<u8> = messages.iter().cloned().flat_map(padded).collect();
            let mut deframer = Deframer::new();
            let (mut found, mut rest, mut cuts) = (Vec::new(), &stream[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let cut = (*cuts.next().expect("endless")).min(rest.len());
                deframer.push(&rest[..cut]).expect("room");
                found.extend(drain(&mut deframer));
                rest = &rest[cut..];
            }
            prop_assert_eq!(found, messages);
        }

        #[test]
        fn ten_bytes_are_a_verdict_and_more_do_not_change_it(bytes in prop::collection::vec(any::<u8>(), 10..40)) {
            let verdict = sniff(&bytes[..SNIFFED_BYTES]);
            prop_assert_ne!(verdict, Ok(None));
            prop_assert_eq!(sniff(&bytes), verdict);
        }
    }
}
