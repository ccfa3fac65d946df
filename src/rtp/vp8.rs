//! The VP8 payload descriptor (RFC 7741 §4.2): read for layer switching and temporal layers, rewritten so that a
//! receiver who is moved between simulcast streams sees one continuous stream.
//!
//! The descriptor lies outside the encoded frame and is never encrypted. Of the frame itself only what frame encryption
//! leaves clear is read: the first byte, and the ten bytes of a key frame's header.

use super::reader::take;

/// A parsed descriptor. Fields that the packet does not carry are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// N: no other frame depends on this one.
    pub non_reference: bool,
    /// S: the packet starts a partition.
    pub partition_start: bool,
    /// PID, 0..=7: the partition at the start of the packet.
    pub partition: u8,
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX: counts the frames of the base temporal layer.
    pub tl0_picture_index: Option<u8>,
    /// TID, 0..=3: the temporal layer.
    pub temporal_layer: Option<u8>,
    /// Y: the frame depends on the base layer only, so a receiver may go up here.
    pub layer_sync: bool,
    /// KEYIDX, 0..=31: counts key frames.
    pub key_index: Option<u8>,
    /// Bytes: where in the RTP payload the encoded frame goes on.
    pub len: usize,
    offsets: Offsets,
}

/// The picture's number, in one of two widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureId {
    /// 0..=127, or 0..=32767 when `wide`.
    pub value: u16,
    /// 15 bits instead of 7.
    pub wide: bool,
}

/// The numbers that [`Descriptor::rewrite`] puts in. Each is cut to the width it has in the packet,
/// and left out where the packet does not carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    pub picture_id: u16,
    pub tl0_picture_index: u8,
    pub key_index: u8,
}

/// Where the numbers are, in bytes from the start of the RTP payload. Meaningful where the field is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offsets {
    picture_id: usize,
    tl0_picture_index: usize,
    layer_and_key: usize,
}

const X_EXTENDED: u8 = 0x80;
const N_NON_REFERENCE: u8 = 0x20;
const S_PARTITION_START: u8 = 0x10;
const PID_MASK: u8 = 0x07;

const I_PICTURE_ID: u8 = 0x80;
const L_TL0_PICTURE_INDEX: u8 = 0x40;
const T_TEMPORAL_LAYER: u8 = 0x20;
const K_KEY_INDEX: u8 = 0x10;

const M_WIDE: u8 = 0x80;
const Y_LAYER_SYNC: u8 = 0x20;
const KEY_INDEX_MASK: u8 = 0x1f;

/// The frame header's P bit, inverted key frame flag (RFC 6386 §9.1). Clear even under frame encryption.
const P_INTER_FRAME: u8 = 0x01;
const KEY_FRAME_START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];

impl Descriptor {
    /// Reads the descriptor at the start of an RTP payload; `None` when it is cut short.
    pub fn parse(payload: &[u8]) -> Option<Descriptor> {
        let first = *payload.first()?;
        let mut at = 1;
        let flags = if first & X_EXTENDED != 0 { take(payload, &mut at)? } else { 0 };

        let mut offsets = Offsets { picture_id: at, tl0_picture_index: 0, layer_and_key: 0 };
        let mut picture_id = None;
        if flags & I_PICTURE_ID != 0 {
            let high = take(payload, &mut at)?;
            let wide = high & M_WIDE != 0;
            let value =
                if wide { u16::from_be_bytes([high & !M_WIDE, take(payload, &mut at)?]) } else { u16::from(high) };
            picture_id = Some(PictureId { value, wide });
        }
        offsets.tl0_picture_index = at;
        let mut tl0_picture_index = None;
        if flags & L_TL0_PICTURE_INDEX != 0 {
            tl0_picture_index = Some(take(payload, &mut at)?);
        }
        offsets.layer_and_key = at;
        let layer_and_key = if flags & (T_TEMPORAL_LAYER | K_KEY_INDEX) != 0 { take(payload, &mut at)? } else { 0 };
        let has_layer = flags & T_TEMPORAL_LAYER != 0;

        Some(Descriptor {
            non_reference: first & N_NON_REFERENCE != 0,
            partition_start: first & S_PARTITION_START != 0,
            partition: first & PID_MASK,
            picture_id,
            tl0_picture_index,
            temporal_layer: has_layer.then_some(layer_and_key >> 6),
            layer_sync: has_layer && layer_and_key & Y_LAYER_SYNC != 0,
            key_index: (flags & K_KEY_INDEX != 0).then_some(layer_and_key & KEY_INDEX_MASK),
            len: at,
            offsets,
        })
    }

    /// Whether the packet is the first of its frame.
    pub fn starts_frame(&self) -> bool {
        self.partition_start && self.partition == 0
    }

    /// Whether the packet is the first of a key frame. `payload` is the one the descriptor was read from.
    pub fn starts_key_frame(&self, payload: &[u8]) -> bool {
        self.starts_frame() && payload.get(self.len).is_some_and(|byte| byte & P_INTER_FRAME == 0)
    }

    /// Width and height in pixels (RFC 6386 §9.1), where a key frame starts.
    pub fn dimensions(&self, payload: &[u8]) -> Option<(u16, u16)> {
        if !self.starts_key_frame(payload) {
            return None;
        }
        let header: &[u8; 10] = payload.get(self.len..)?.first_chunk()?;
        // The upper two bits ask the receiver to scale up.
        let size = |low: u8, high: u8| u16::from_le_bytes([low, high]) & 0x3fff;
        (header[3..6] == KEY_FRAME_START_CODE).then(|| (size(header[6], header[7]), size(header[8], header[9])))
    }

    /// Puts new numbers into the packet, or into a copy of its first [`len`](Descriptor::len) bytes. No field changes
    /// its width, nothing moves, and the frame is not touched. Bytes that are not this descriptor's stay as they are.
    pub fn rewrite(&self, bytes: &mut [u8], numbers: Numbers) {
        let Some(bytes) = bytes.get_mut(..self.len) else {
            return;
        };
        match self.picture_id {
            Some(PictureId { wide: true, .. }) => {
                let [high, low] = numbers.picture_id.to_be_bytes();
                bytes[self.offsets.picture_id] = high | M_WIDE;
                bytes[self.offsets.picture_id + 1] = low;
            }
            Some(PictureId { wide: false, .. }) => {
                bytes[self.offsets.picture_id] = numbers.picture_id as u8 & !M_WIDE;
            }
            None => {}
        }
        if self.tl0_picture_index.is_some() {
            bytes[self.offsets.tl0_picture_index] = numbers.tl0_picture_index;
        }
        if self.key_index.is_some() {
            let byte = &mut bytes[self.offsets.layer_and_key];
            *byte = *byte & !KEY_INDEX_MASK | numbers.key_index & KEY_INDEX_MASK;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A descriptor with everything in it, at the start of a 1280×720 key frame.
    const FULL: [u8; 16] =
        [0x90, 0xf0, 0x81, 0x02, 0x33, 0x65, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02];

    fn parse(payload: &[u8]) -> Descriptor {
        Descriptor::parse(payload).expect("a whole descriptor")
    }

    #[test]
    fn reads_every_field() {
        let descriptor = parse(&FULL);
        assert!(descriptor.partition_start && !descriptor.non_reference);
        assert_eq!(descriptor.partition, 0);
        assert_eq!(descriptor.picture_id, Some(PictureId { value: 0x102, wide: true }));
        assert_eq!(descriptor.tl0_picture_index, Some(0x33));
        assert_eq!((descriptor.temporal_layer, descriptor.layer_sync), (Some(1), true));
        assert_eq!(descriptor.key_index, Some(5));
        assert_eq!(descriptor.len, 6);
        assert!(descriptor.starts_key_frame(&FULL));
        assert_eq!(descriptor.dimensions(&FULL), Some((1280, 720)));
    }

    #[test]
    fn reads_each_shape() {
        // (bytes, length, picture id, TL0PICIDX, TID, Y, KEYIDX)
        for (bytes, len, picture_id, tl0, tid, sync, key) in [
            (&[0x10u8][..], 1, None, None, None, false, None),
            (&[0x80, 0x00], 2, None, None, None, false, None),
            (&[0x80, 0x80, 0x7f], 3, Some((127, false)), None, None, false, None),
            (&[0x80, 0x80, 0xff, 0xff], 4, Some((32767, true)), None, None, false, None),
            (&[0x80, 0x40, 0x09], 3, None, Some(9), None, false, None),
            (&[0x80, 0x20, 0xe0], 3, None, None, Some(3), true, None),
            // Without T the layer bits mean nothing, without K the key index.
            (&[0x80, 0x10, 0xff], 3, None, None, None, false, Some(31)),
            (&[0x80, 0x20, 0x1f], 3, None, None, Some(0), false, None),
            (&[0x80, 0xe0, 0x05, 0x06, 0x40], 5, Some((5, false)), Some(6), Some(1), false, None),
        ] {
            let descriptor = parse(bytes);
            let picture_id = picture_id.map(|(value, wide)| PictureId { value, wide });
            assert_eq!(descriptor.len, len, "{bytes:x?}");
            assert_eq!(descriptor.picture_id, picture_id, "{bytes:x?}");
            assert_eq!(descriptor.tl0_picture_index, tl0, "{bytes:x?}");
            assert_eq!((descriptor.temporal_layer, descriptor.layer_sync), (tid, sync), "{bytes:x?}");
            assert_eq!(descriptor.key_index, key, "{bytes:x?}");
            assert_eq!(Descriptor::parse(&bytes[..len - 1]), None, "{bytes:x?} cut short");
        }
    }

    #[test]
    fn tells_key_frames_from_others() {
        for (payload, starts_frame, starts_key_frame) in [
            (&[0x10u8, 0x00][..], true, true),
            (&[0x10, 0x01], true, false),
            (&[0x10], true, false),
            // Not the first partition, or not its start.
            (&[0x11, 0x00], false, false),
            (&[0x00, 0x00], false, false),
        ] {
            let descriptor = parse(payload);
            assert_eq!(descriptor.starts_frame(), starts_frame, "{payload:x?}");
            assert_eq!(descriptor.starts_key_frame(payload), starts_key_frame, "{payload:x?}");
        }
    }

    #[test]
    fn reads_dimensions_only_where_they_are() {
        let descriptor = parse(&FULL);
        assert_eq!(descriptor.dimensions(&FULL[..15]), None, "cut short");
        let mut scaled = FULL;
        scaled[13] |= 0xc0;
        assert_eq!(descriptor.dimensions(&scaled), Some((1280, 720)));
        let mut wrong_start_code = FULL;
        wrong_start_code[10] = 0;
        assert_eq!(descriptor.dimensions(&wrong_start_code), None);
        let mut inter_frame = FULL;
        inter_frame[6] |= 1;
        assert_eq!(descriptor.dimensions(&inter_frame), None);
    }

    #[test]
    fn rewrites_in_the_width_it_finds() {
        let numbers = Numbers { picture_id: 0xffff, tl0_picture_index: 0xaa, key_index: 0xff };
        let mut packet = FULL;
        parse(&FULL).rewrite(&mut packet, numbers);
        assert_eq!(packet[..6], [0x90, 0xf0, 0xff, 0xff, 0xaa, 0x7f]);
        assert_eq!(packet[6..], FULL[6..]);

        let mut narrow = [0x80, 0x80, 0x01, 0x55];
        parse(&narrow).rewrite(&mut narrow, Numbers { picture_id: 0x180, ..numbers });
        assert_eq!(narrow, [0x80, 0x80, 0x00, 0x55]);

        let mut bare = [0x10, 0x55];
        parse(&bare).rewrite(&mut bare, numbers);
        assert_eq!(bare, [0x10, 0x55]);

        let mut too_short = [0x90, 0xf0, 0x81];
        parse(&FULL).rewrite(&mut too_short, numbers);
        assert_eq!(too_short, [0x90, 0xf0, 0x81]);
    }

    proptest! {
        #[test]
        fn rewriting_changes_the_numbers_and_nothing_else(
            payload in prop::collection::vec(any::<u8>(), 0..24),
            (picture_id, tl0_picture_index, key_index) in any::<(u16, u8, u8)>(),
        ) {
            let Some(before) = Descriptor::parse(&payload) else {
                prop_assert!(payload.len() < 6);
                return Ok(());
            };
            prop_assert!(before.len <= 6 && before.len <= payload.len());
            let mut rewritten = payload.clone();
            before.rewrite(&mut rewritten, Numbers { picture_id, tl0_picture_index, key_index });
            let picture_id = before.picture_id.map(|PictureId { wide, .. }| {
                PictureId { value: picture_id & if wide { 0x7fff } else { 0x7f }, wide }
            });
            let expected = Descriptor {
                picture_id,
                tl0_picture_index: before.tl0_picture_index.map(|_| tl0_picture_index),
                key_index: before.key_index.map(|_| key_index & 0x1f),
                ..before
            };
            prop_assert_eq!(Descriptor::parse(&rewritten), Some(expected));
            prop_assert_eq!(&rewritten[before.len..], &payload[before.len..]);
            prop_assert_eq!(before.dimensions(&rewritten), before.dimensions(&payload));
        }
    }
}
