//! The VP9 payload descriptor (RFC 9628 §4.2): read for spatial and temporal layers, rewritten so that a receiver who is
//! moved between streams sees one continuous stream.
//!
//! Frame encryption covers the whole VP9 frame, so this descriptor (or the dependency descriptor beside it) is all there
//! is to know. One stream carries every spatial layer: the frames of a picture follow each other, lowest layer first.

use super::reader::take;

/// References that one frame of flexible mode may name (RFC 9628 §4.2, N).
pub const MAX_REFERENCES: usize = 3;
/// Spatial layers that the 3 bits of SID can number.
const MAX_SPATIAL_LAYERS: usize = 8;

/// A parsed descriptor. Fields that the packet does not carry are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    pub picture_id: Option<PictureId>,
    /// P: the frame depends on earlier pictures. Without it on the lowest layer, the picture is a key picture.
    pub inter_picture: bool,
    /// F: dependencies are listed per frame instead of by the scalability structure.
    pub flexible: bool,
    /// B: the packet starts a frame of one spatial layer.
    pub frame_start: bool,
    /// E: the packet ends it.
    pub frame_end: bool,
    /// Z: no higher layer of this picture depends on the frame.
    pub not_for_upper_layers: bool,
    pub layer: Option<Layer>,
    /// TL0PICIDX: counts the pictures of the base temporal layer; only outside of flexible mode.
    pub tl0_picture_index: Option<u8>,
    /// P_DIFF: how many pictures back those are that the frame depends on; unused ones are 0.
    pub references: [u8; MAX_REFERENCES],
    pub structure: Option<Structure>,
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

/// The layer indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// TID, 0..=7.
    pub temporal: u8,
    /// U: later pictures of higher temporal layers depend on none of these layers before this one.
    pub switching_up: bool,
    /// SID, 0..=7.
    pub spatial: u8,
    /// D: the frame depends on the next lower spatial layer of its picture.
    pub inter_layer: bool,
}

/// The scalability structure, as far as it tells about spatial layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Structure {
    /// N_S + 1, 1..=8.
    pub spatial_layers: u8,
    /// Width and height of each layer in pixels, lowest first; zeros where not told.
    pub sizes: [(u16, u16); MAX_SPATIAL_LAYERS],
}

/// The numbers that [`Descriptor::rewrite`] puts in. Each is cut to the width it has in the packet,
/// and left out where the packet does not carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    pub picture_id: u16,
    pub tl0_picture_index: u8,
}

/// Where the numbers are, in bytes from the start of the RTP payload. Meaningful where the field is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offsets {
    picture_id: usize,
    tl0_picture_index: usize,
}

const I_PICTURE_ID: u8 = 0x80;
const P_INTER_PICTURE: u8 = 0x40;
const L_LAYER: u8 = 0x20;
const F_FLEXIBLE: u8 = 0x10;
const B_FRAME_START: u8 = 0x08;
const E_FRAME_END: u8 = 0x04;
const V_STRUCTURE: u8 = 0x02;
const Z_NOT_FOR_UPPER: u8 = 0x01;

const M_WIDE: u8 = 0x80;
const U_SWITCHING_UP: u8 = 0x10;
const D_INTER_LAYER: u8 = 0x01;
const N_MORE_REFERENCES: u8 = 0x01;
const Y_SIZES: u8 = 0x10;
const G_PICTURE_GROUP: u8 = 0x08;

impl Descriptor {
    /// Reads the descriptor at the start of an RTP payload; `None` when it is cut short or impossible.
    pub fn parse(payload: &[u8]) -> Option<Descriptor> {
        let mut at = 0;
        let flags = take(payload, &mut at)?;
        let flexible = flags & F_FLEXIBLE != 0;
        let inter_picture = flags & P_INTER_PICTURE != 0;

        let mut offsets = Offsets { picture_id: at, tl0_picture_index: 0 };
        let mut picture_id = None;
        if flags & I_PICTURE_ID != 0 {
            let high = take(payload, &mut at)?;
            let wide = high & M_WIDE != 0;
            let value =
                if wide { u16::from_be_bytes([high & !M_WIDE, take(payload, &mut at)?]) } else { u16::from(high) };
            picture_id = Some(PictureId { value, wide });
        }
        let mut layer = None;
        let mut tl0_picture_index = None;
        if flags & L_LAYER != 0 {
            let byte = take(payload, &mut at)?;
            layer = Some(Layer {
                temporal: byte >> 5,
                switching_up: byte & U_SWITCHING_UP != 0,
                spatial: (byte >> 1) & 0x07,
                inter_layer: byte & D_INTER_LAYER != 0,
            });
            if !flexible {
                offsets.tl0_picture_index = at;
                tl0_picture_index = Some(take(payload, &mut at)?);
            }
        }
        let mut references = [0; MAX_REFERENCES];
        if flexible && inter_picture {
            let mut more = true;
            for reference in &mut references {
                if more {
                    let byte = take(payload, &mut at)?;
                    *reference = byte >> 1;
                    more = byte & N_MORE_REFERENCES != 0;
                }
            }
            if more {
                return None;
            }
        }
        let structure = if flags & V_STRUCTURE != 0 { Some(Structure::parse(payload, &mut at)?) } else { None };

        Some(Descriptor {
            picture_id,
            inter_picture,
            flexible,
            frame_start: flags & B_FRAME_START != 0,
            frame_end: flags & E_FRAME_END != 0,
            not_for_upper_layers: flags & Z_NOT_FOR_UPPER != 0,
            layer,
            tl0_picture_index,
            references,
            structure,
            len: at,
            offsets,
        })
    }

    /// SID; 0 in streams without layers.
    pub fn spatial(&self) -> u8 {
        self.layer.map_or(0, |layer| layer.spatial)
    }

    /// TID; 0 in streams without layers.
    pub fn temporal(&self) -> u8 {
        self.layer.map_or(0, |layer| layer.temporal)
    }

    /// Whether the packet is the first of a key picture: nothing before it is needed.
    pub fn starts_key_picture(&self) -> bool {
        self.frame_start && !self.inter_picture && self.spatial() == 0 && !self.layer.is_some_and(|l| l.inter_layer)
    }

    /// Puts new numbers into the packet, or into a copy of its first [`len`](Descriptor::len) bytes. No field changes
    /// its width, nothing moves, and the frame is not touched.
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
    }
}

impl Structure {
    fn parse(payload: &[u8], at: &mut usize) -> Option<Structure> {
        let flags = take(payload, at)?;
        let spatial_layers = (flags >> 5) + 1;
        let mut sizes = [(0, 0); MAX_SPATIAL_LAYERS];
        if flags & Y_SIZES != 0 {
            for size in sizes.iter_mut().take(usize::from(spatial_layers)) {
                let mut side = || Some(u16::from_be_bytes([take(payload, at)?, take(payload, at)?]));
                *size = (side()?, side()?);
            }
        }
        if flags & G_PICTURE_GROUP != 0 {
            let pictures = take(payload, at)?;
            for _ in 0..pictures {
                let references = (take(payload, at)? >> 2) & 0x03;
                for _ in 0..references {
                    take(payload, at)?;
                }
            }
        }
        Some(Structure { spatial_layers, sizes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(payload: &[u8]) -> Descriptor {
        Descriptor::parse(payload).expect("a whole descriptor")
    }

    #[test]
    fn reads_each_shape() {
        let layer =
            |temporal, switching_up, spatial, inter_layer| Some(Layer { temporal, switching_up, spatial, inter_layer });
        let id = |value, wide| Some(PictureId { value, wide });
        // (bytes, picture id, layer, TL0PICIDX, references)
        for (bytes, picture_id, expected, tl0, references) in [
            (&[0x0cu8][..], None, None, None, [0, 0, 0]),
            (&[0x8c, 0x7f], id(127, false), None, None, [0, 0, 0]),
            (&[0x8c, 0xff, 0xfe], id(32766, true), None, None, [0, 0, 0]),
            (&[0x2c, 0x53, 0x09], None, layer(2, true, 1, true), Some(9), [0, 0, 0]),
            (&[0x30, 0xe4], None, layer(7, false, 2, false), None, [0, 0, 0]),
            (&[0x50, 0x02], None, None, None, [1, 0, 0]),
            (&[0x50, 0x03, 0xfe], None, None, None, [1, 127, 0]),
            (&[0xf0, 0x80, 0x05, 0x10, 0x03, 0x05, 0x06], id(5, true), layer(0, true, 0, false), None, [1, 2, 3]),
        ] {
            let descriptor = parse(bytes);
            assert_eq!(descriptor.len, bytes.len(), "{bytes:x?}");
            assert_eq!(descriptor.picture_id, picture_id, "{bytes:x?}");
            assert_eq!((descriptor.layer, descriptor.tl0_picture_index), (expected, tl0), "{bytes:x?}");
            assert_eq!(descriptor.references, references, "{bytes:x?}");
            assert_eq!(Descriptor::parse(&bytes[..bytes.len() - 1]), None, "{bytes:x?} cut short");
        }
        assert_eq!(Descriptor::parse(&[0x50, 3, 5, 7]), None, "a fourth reference");
    }

    #[test]
    fn reads_the_scalability_structure() {
        // Two layers with sizes, a group of two pictures of which the second has one reference.
        let bytes = [0x0a, 0x38, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68, 0x02, 0x00, 0x24, 0x01];
        let descriptor = parse(&bytes);
        let structure = descriptor.structure.expect("a structure");
        assert_eq!(structure.spatial_layers, 2);
        assert_eq!(structure.sizes[..3], [(320, 180), (640, 360), (0, 0)]);
        assert_eq!(descriptor.len, bytes.len());
        for len in 0..bytes.len() {
            assert_eq!(Descriptor::parse(&bytes[..len]), None, "{len} bytes");
        }
        assert_eq!(parse(&[0x02, 0xe0]).structure.expect("a structure").spatial_layers, 8);
    }

    #[test]
    fn tells_key_pictures_from_others() {
        for (payload, expected, what) in [
            (&[0x08u8][..], true, "no layers"),
            (&[0x28, 0x00, 0x00], true, "lowest layer"),
            (&[0x00], false, "not the start"),
            (&[0x48], false, "depends on earlier pictures"),
            (&[0x28, 0x03, 0x00], false, "upper layer of a key picture"),
            (&[0x28, 0x02, 0x00], false, "upper layer that depends on nothing"),
        ] {
            assert_eq!(parse(payload).starts_key_picture(), expected, "{what}");
        }
    }

    proptest! {
        /// A rewritten descriptor differs in its numbers only, and nothing behind it changes.
        #[test]
        fn rewrites_in_the_width_it_finds(payload in prop::collection::vec(any::<u8>(), 0..40), id: u16, tl0: u8) {
            let Some(before) = Descriptor::parse(&payload) else { return Ok(()) };
            let mut packet = payload.clone();
            before.rewrite(&mut packet, Numbers { picture_id: id, tl0_picture_index: tl0 });
            prop_assert_eq!(&packet[before.len..], &payload[before.len..]);
            let after = parse(&packet);
            let width = |wide| if wide { 0x7fff } else { 0x7f };
            let expected = Descriptor {
                picture_id: before.picture_id.map(|p| PictureId { value: id & width(p.wide), ..p }),
                tl0_picture_index: before.tl0_picture_index.map(|_| tl0),
                ..before
            };
            prop_assert_eq!(after, expected);
            // What was cut off behind the descriptor does not matter; a descriptor cut short is left alone.
            let mut short = payload[..before.len - 1].to_vec();
            before.rewrite(&mut short, Numbers { picture_id: id, tl0_picture_index: tl0 });
            prop_assert_eq!(&short, &payload[..before.len - 1]);
        }
    }
}
