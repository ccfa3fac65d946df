//! What a payload tells its receiver: when it left, and which frame of which layer it is part of.
//!
//! It stands behind the bytes that servers may read or rewrite: the VP8 payload descriptor and frame header, Opus' first byte.

/// Tells a stamp from anything else.
const MAGIC: [u8; 4] = *b"plt1";
pub const BYTES: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Unix time in nanoseconds: the kernel stamps arrivals on the same clock.
    pub sent: u64,
    pub frame: u32,
    /// Which packet of the frame.
    pub part: u16,
    pub layer: u8,
    pub keyframe: bool,
    /// Number of packets in the frame.
    pub parts: u16,
}

impl Stamp {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(MAGIC);
        out.extend(self.sent.to_be_bytes());
        out.extend(self.frame.to_be_bytes());
        out.extend(self.part.to_be_bytes());
        out.extend(self.parts.to_be_bytes());
        out.extend([self.layer, u8::from(self.keyframe), 0, 0]);
    }

    fn read(bytes: &[u8]) -> Option<Stamp> {
        let bytes: &[u8; BYTES] = bytes.first_chunk()?;
        (bytes[..4] == MAGIC).then(|| Stamp {
            sent: u64::from_be_bytes(std::array::from_fn(|i| bytes[4 + i])),
            frame: u32::from_be_bytes(std::array::from_fn(|i| bytes[12 + i])),
            part: u16::from_be_bytes([bytes[16], bytes[17]]),
            parts: u16::from_be_bytes([bytes[18], bytes[19]]),
            layer: bytes[20],
            keyframe: bytes[21] != 0,
        })
    }
}

/// The stamp in an opened Opus payload.
pub fn of_audio(payload: &[u8]) -> Option<Stamp> {
    Stamp::read(payload.get(super::microphone::HEADER_BYTES..)?)
}

/// The stamp in an opened VP8 payload, whatever became of its descriptor's fields.
pub fn of_video(payload: &[u8]) -> Option<Stamp> {
    Stamp::read(payload.get(descriptor_bytes(payload)? + super::camera::FRAME_HEADER_BYTES..)?)
}

/// Length of a VP8 payload descriptor (RFC 7741 §4.2).
fn descriptor_bytes(payload: &[u8]) -> Option<usize> {
    const EXTENDED: u8 = 0x80;
    if payload.first()? & EXTENDED == 0 {
        return Some(1);
    }
    let flags = *payload.get(1)?;
    let mut length = 2;
    if flags & 0x80 != 0 {
        let long = payload.get(length)? & 0x80 != 0;
        length += if long { 2 } else { 1 };
    }
    length += usize::from(flags & 0x40 != 0);
    // TID and KEYIDX share a byte.
    length += usize::from(flags & 0x30 != 0);
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { sent: 1 << 60, frame: 7, part: 2, layer: 1, keyframe: true, parts: 5 };

    #[test]
    fn a_stamp_is_read_back() {
        let mut bytes = Vec::new();
        STAMP.write(&mut bytes);
        assert_eq!(bytes.len(), BYTES);
        assert_eq!(Stamp::read(&bytes), Some(STAMP));
        assert_eq!(Stamp::read(&bytes[1..]), None);
    }

    #[test]
    fn descriptors_of_every_length_are_skipped() {
        let lengths = [
            (&[0x10][..], 1),
            (&[0x90, 0x00], 2),
            (&[0x90, 0x80, 0x12], 3),
            (&[0x90, 0x80, 0x92, 0x34], 4),
            (&[0x90, 0xf0, 0x92, 0x34, 0, 0], 6),
        ];
        for (bytes, length) in lengths {
            assert_eq!(descriptor_bytes(bytes), Some(length), "{bytes:x?}");
        }
        assert_eq!(descriptor_bytes(&[]), None);
    }
}
