//! Packets on a TCP connection (RFC 4571, as ICE-TCP uses it, RFC 6544 §3): each with its length in two bytes before it.
//! `net` has one [`Deframer`] for each connection.

/// Bytes of the longest packet taken: one DTLS record at its largest (RFC 6347 §4.1: header, 2^14 of content, 256 of
/// expansion). Everything else a peer sends stays near the MTU.
pub const MAX_FRAME_BYTES: usize = 13 + (1 << 14) + 256;

/// Bytes a [`Deframer`] holds at most: the longest unfinished frame and one read of 64 KiB.
pub const MAX_BUFFER_BYTES: usize = HEADER_BYTES + MAX_FRAME_BYTES + (1 << 16);

const HEADER_BYTES: usize = 2;

/// The stream cannot be followed any further: close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("a frame is longer than {MAX_FRAME_BYTES} bytes")]
    FrameTooLong,
    #[error("more than {MAX_BUFFER_BYTES} bytes wait to be read")]
    BufferFull,
}

/// Finds the packets in a byte stream, however it is cut.
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

    /// Takes what was read, 64 KiB at most if all frames were taken out before.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FramingError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() + bytes.len() > MAX_BUFFER_BYTES {
            return Err(FramingError::BufferFull);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole packet, `None` until more is pushed. Empty ones, which only keep a path open, are left out.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FramingError> {
        while let [high, low, rest @ ..] = &self.buffer[self.start..] {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            if len > MAX_FRAME_BYTES {
                return Err(FramingError::FrameTooLong);
            }
            if rest.len() < len {
                return Ok(None);
            }
            let frame = self.start + HEADER_BYTES;
            self.start = frame + len;
            if len > 0 {
                return Ok(Some(&self.buffer[frame..frame + len]));
            }
        }
        Ok(None)
    }
}

/// What to write before a packet of `len` bytes; `None` for a length that two bytes cannot tell.
pub fn header(len: usize) -> Option<[u8; HEADER_BYTES]> {
    u16::try_from(len).ok().map(u16::to_be_bytes)
}

/// The packet with its header; `None` if it is longer than 65,535 bytes.
pub fn frame(packet: &[u8]) -> Option<Vec<u8>> {
    header(packet.len()).map(|header| [&header, packet].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes out everything that is whole.
    fn drain(deframer: &mut Deframer) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = deframer.next_frame().expect("frames within bounds") {
            frames.push(frame.to_vec());
        }
        frames
    }

    #[test]
    fn known_bytes() {
        let mut deframer = Deframer::new();
        assert_eq!(frame(b"abc").as_deref(), Some(&b"\x00\x03abc"[..]));
        deframer.push(b"\x00\x03abc\x00\x00\x00\x01d\x00").expect("room");
        assert_eq!(drain(&mut deframer), [b"abc".to_vec(), b"d".to_vec()]);
        deframer.push(b"\x02e").expect("room");
        assert_eq!(drain(&mut deframer), Vec::<Vec<u8>>::new());
        deframer.push(b"f").expect("room");
        assert_eq!(drain(&mut deframer), [b"ef".to_vec()]);
    }

    #[test]
    fn a_frame_has_a_longest_length() {
        let mut deframer = Deframer::new();
        deframer.push(&frame(&[7; MAX_FRAME_BYTES]).expect("within two bytes")).expect("room");
        assert_eq!(drain(&mut deframer), [vec![7; MAX_FRAME_BYTES]]);
        // The length alone is enough to give up.
        deframer.push(&header(MAX_FRAME_BYTES + 1).expect("within two bytes")).expect("room");
        assert_eq!(deframer.next_frame(), Err(FramingError::FrameTooLong));
        assert_eq!(header(65_536), None);
        assert_eq!(frame(&vec![0; 65_536]), None);
    }

    #[test]
    fn the_buffer_is_bounded() {
        let mut deframer = Deframer::new();
        // The longest unfinished frame leaves room for one read, whatever was read before.
        let almost = [&header(MAX_FRAME_BYTES).expect("within two bytes")[..], &[1; MAX_FRAME_BYTES - 1]].concat();
        for _ in 0..3 {
            deframer.push(&almost).expect("room");
            assert_eq!(drain(&mut deframer).len(), 0);
            // Ends that frame; the rest are empty ones.
            deframer.push(&[0; (1 << 16) - 1]).expect("room for one read");
            assert_eq!(drain(&mut deframer).len(), 1);
        }
        assert_eq!(deframer.push(&[0; MAX_BUFFER_BYTES + 1]), Err(FramingError::BufferFull));
        deframer.push(&[0; MAX_BUFFER_BYTES]).expect("room");
        assert_eq!(deframer.push(&[0]), Err(FramingError::BufferFull));
    }

    proptest! {
        #[test]
        fn packets_come_out_as_they_went_in(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20),
            cuts in prop::collection::vec(1usize..200, 1..20),
        ) {
            let stream: Vec<u8> = packets.iter().filter_map(|packet| frame(packet)).flatten().collect();
            let mut deframer = Deframer::new();
            let (mut found, mut rest, mut cuts) = (Vec::new(), &stream[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let cut = (*cuts.next().expect("endless")).min(rest.len());
                deframer.push(&rest[..cut]).expect("room");
                found.extend(drain(&mut deframer));
                rest = &rest[cut..];
            }
            prop_assert_eq!(found, packets);
        }
    }
}
