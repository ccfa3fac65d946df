//! The numbers of pictures and frames, which a receiver expects to go on by one when it is moved to another stream.

use super::incoming::{Dependency, Numbers, PictureId, PictureNumbers};
use crate::rtp::{Rewrite, vp8, vp9};

const KEY_INDEX_MASK: u8 = 0x1f;

/// The numbers of the newest frame sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    picture_id: Option<u16>,
    tl0_picture_index: Option<u8>,
    key_index: Option<u8>,
    frame_number: Option<u16>,
}

/// What a splice adds to its stream's numbers; each is set when its field first appears.
#[derive(Debug, Clone, Default)]
pub struct Offsets {
    picture_id: Option<u16>,
    tl0_picture_index: Option<u8>,
    key_index: Option<u8>,
    frame_number: Option<u16>,
}

impl Sent {
    /// A newer frame went out with these numbers.
    pub fn advance(&mut self, numbers: Numbers, frame_number: Option<u16>) {
        if let Numbers::Vp8(numbers) | Numbers::Vp9(numbers) = numbers {
            self.picture_id = numbers.picture_id.map(|id| id.value).or(self.picture_id);
            self.tl0_picture_index = numbers.tl0_picture_index.or(self.tl0_picture_index);
            self.key_index = numbers.key_index.or(self.key_index);
        }
        self.frame_number = frame_number.or(self.frame_number);
    }
}

impl Offsets {
    /// A VP8 picture was left out. Its number must not be missing: a receiver takes a gap for a loss, and waits
    /// (RFC 7741 §4.2 counts pictures, but tells dependencies by layers only). VP9 and the dependency descriptor name
    /// dependencies by number, so there gaps mean nothing and shifting would lie.
    pub fn leave_out(&mut self, numbers: &Numbers) {
        if let (Numbers::Vp8(_), Some(offset)) = (numbers, &mut self.picture_id) {
            *offset = offset.wrapping_sub(1);
        }
    }

    /// The packet's numbers as they go out. `sent`: those that the splice's first must follow; `left_out`: how many
    /// pictures were since this one.
    pub fn apply(&mut self, numbers: Numbers, sent: &Sent, left_out: impl FnOnce() -> u16) -> Numbers {
        match numbers {
            Numbers::None => Numbers::None,
            Numbers::Vp8(numbers) => {
                let mut out = self.apply_pictures(numbers, sent);
                if let Some(id) = &mut out.picture_id {
                    id.value = cut(id.value.wrapping_add(left_out()), id.wide);
                }
                Numbers::Vp8(out)
            }
            Numbers::Vp9(numbers) => Numbers::Vp9(self.apply_pictures(numbers, sent)),
        }
    }

    fn apply_pictures(&mut self, numbers: PictureNumbers, sent: &Sent) -> PictureNumbers {
        let picture_id = numbers.picture_id.map(|PictureId { value, wide }| {
            let follow = || sent.picture_id.map_or(0, |last| last.wrapping_add(1).wrapping_sub(value));
            let value = value.wrapping_add(*self.picture_id.get_or_insert_with(follow));
            PictureId { value: cut(value, wide), wide }
        });
        let next = |value: u8, offset: &mut Option<u8>, last: Option<u8>| {
            let follow = || last.map_or(0, |last| last.wrapping_add(1).wrapping_sub(value));
            value.wrapping_add(*offset.get_or_insert_with(follow))
        };
        let tl0 = &mut self.tl0_picture_index;
        PictureNumbers {
            picture_id,
            tl0_picture_index: numbers.tl0_picture_index.map(|value| next(value, tl0, sent.tl0_picture_index)),
            key_index: numbers.key_index.map(|value| next(value, &mut self.key_index, sent.key_index) & KEY_INDEX_MASK),
        }
    }

    pub fn apply_frame(&mut self, dependency: &Dependency, sent: &Sent) -> u16 {
        let value = dependency.frame_number;
        let follow = || sent.frame_number.map_or(0, |last| last.wrapping_add(1).wrapping_sub(value));
        value.wrapping_add(*self.frame_number.get_or_insert_with(follow))
    }
}

fn cut(picture_id: u16, wide: bool) -> u16 {
    picture_id & if wide { 0x7fff } else { 0x7f }
}

/// What to change in a payload whose numbers were `old`. Fields that are absent stay so, whatever stands for them here.
pub fn rewrite(old: Numbers, new: Numbers) -> Rewrite {
    let picture_id = |numbers: &PictureNumbers| numbers.picture_id.map_or(0, |id| id.value);
    match new {
        _ if new == old => Rewrite::None,
        Numbers::None => Rewrite::None,
        Numbers::Vp8(numbers) => Rewrite::Vp8(vp8::Numbers {
            picture_id: picture_id(&numbers),
            tl0_picture_index: numbers.tl0_picture_index.unwrap_or_default(),
            key_index: numbers.key_index.unwrap_or_default(),
        }),
        Numbers::Vp9(numbers) => Rewrite::Vp9(vp9::Numbers {
            picture_id: picture_id(&numbers),
            tl0_picture_index: numbers.tl0_picture_index.unwrap_or_default(),
        }),
    }
}
