//! The dependency descriptor (AV1 RTP specification, appendix A): a header extension that tells of every frame, whatever
//! the codec, which layer it is of and which frames it needs. It is in the clear under frame encryption, so layers are
//! best chosen by it.
//!
//! A key frame brings a [`Structure`] of templates; later packets name a template and what differs from it. The reader
//! of a stream keeps the structure and hands it to [`Descriptor::parse`] with each packet.

use super::bits::{BitReader, BitWriter};
use super::{ActiveTargets, DependencyRewrite};

/// What 6 bits can number.
const MAX_TEMPLATES: usize = 64;
/// `dt_cnt_minus_one` has 5 bits.
pub const MAX_DECODE_TARGETS: usize = 32;
/// Frames that one frame may depend on. AV1 has 7 reference frames and the lower spatial layer may add one.
pub const MAX_FRAME_DIFFS: usize = 8;
/// Bytes of the fields that every packet has.
const MANDATORY_BYTES: usize = 3;
const FRAME_START: u8 = 0x80;
const FRAME_END: u8 = 0x40;
const TEMPLATE_MASK: u8 = 0x3f;
/// What the length byte of a header extension can tell (RFC 8285 §4.3).
const MAX_BYTES: usize = 255;

/// What one packet says about its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The packet is the first of its frame.
    pub frame_start: bool,
    /// The packet is the last of its frame.
    pub frame_end: bool,
    /// Counts the frames of all layers, in coding order.
    pub frame_number: u16,
    /// `None` when the stream's structure is not known.
    pub frame: Option<Frame>,
    /// The new structure of the stream: the frame is a key frame.
    pub structure: Option<Box<Structure>>,
    /// Which decode targets the sender still sends, one bit each; holds until it is sent again or the structure is.
    pub active_targets: Option<u32>,
}

/// How a frame stands to the others of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub spatial: u8,
    pub temporal: u8,
    pub indications: Indications,
    pub diffs: FrameDiffs,
}

/// What the frame is to each decode target, 2 bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Indications(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indication {
    /// The target does without the frame.
    NotPresent,
    /// Nothing else of the target needs it.
    Discardable,
    /// Whoever can decode it can decode all that follows of the target.
    Switch,
    Required,
}

/// The frames that one depends on, each as how far back it is in frame numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameDiffs {
    list: [u16; MAX_FRAME_DIFFS],
    len: u8,
}

/// The template structure of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    template_id_offset: u8,
    templates: Vec<Frame>,
    targets: Vec<DecodeTarget>,
    chains: u8,
    /// Largest width and height of each spatial layer in pixels, lowest first; empty when not told.
    pub resolutions: Vec<(u32, u32)>,
}

/// A set of frames that a receiver can ask for: those of these layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecodeTarget {
    pub spatial: u8,
    pub temporal: u8,
}

impl Descriptor {
    /// Reads a packet's descriptor; `None` when it is cut short or contradicts the structure.
    pub fn parse(bytes: &[u8], structure: Option<&Structure>) -> Option<Descriptor> {
        let [head, high, low, rest @ ..] = bytes else { return None };
        let frame_number = u16::from_be_bytes([*high, *low]);
        let mut reader = BitReader::new(rest);
        let flags = Flags::read(&mut reader)?;
        let new = if flags.structure { Some(Box::new(Structure::read(&mut reader)?)) } else { None };
        let known = new.as_deref().or(structure);
        let mut descriptor = Descriptor {
            frame_start: head & FRAME_START != 0,
            frame_end: head & FRAME_END != 0,
            frame_number,
            frame: None,
            structure: None,
            active_targets: None,
        };
        if let Some(known) = known {
            if flags.active_targets {
                descriptor.active_targets = Some(reader.read(known.targets.len())?);
            }
            descriptor.frame = Some(known.read_frame(head & TEMPLATE_MASK, flags, &mut reader)?);
        }
        descriptor.structure = new;
        Some(descriptor)
    }
}

/// Rewrites a descriptor into `room` and gives its new length: at most 5 bytes more than the old one, and never more than
/// 255. `None` when it cannot be read or there is no room.
pub fn rewrite(bytes: &[u8], change: DependencyRewrite, room: &mut [u8]) -> Option<usize> {
    let [head, _, _, rest @ ..] = bytes else { return None };
    let [high, low] = change.frame_number.to_be_bytes();
    let Some(active) = change.active_targets else {
        let room = room.get_mut(..bytes.len())?;
        room.copy_from_slice(bytes);
        room[1..MANDATORY_BYTES].copy_from_slice(&[high, low]);
        return Some(bytes.len());
    };
    let mut reader = BitReader::new(rest);
    let flags = Flags::read(&mut reader)?;
    let structure_start = reader.clone();
    let mut count = usize::from(active.count);
    if flags.structure {
        count = Structure::read(&mut reader)?.targets.len();
    }
    let structure_bits = reader.position() - structure_start.position();
    if flags.active_targets {
        reader.read(count)?;
    }
    let limit = room.len().min(MAX_BYTES);
    let mut writer = BitWriter::new(&mut room[..limit]);
    for byte in [*head, high, low] {
        writer.write(u32::from(byte), 8)?;
    }
    Flags { active_targets: true, ..flags }.write(&mut writer)?;
    writer.copy(&mut structure_start.clone(), structure_bits)?;
    writer.write(active.bits, count)?;
    let rest = reader.remaining();
    writer.copy(&mut reader, rest)?;
    Some(writer.finish())
}

/// The first bits of the optional fields.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    structure: bool,
    active_targets: bool,
    custom_indications: bool,
    custom_diffs: bool,
    custom_chains: bool,
}

impl Flags {
    fn read(reader: &mut BitReader<'_>) -> Option<Flags> {
        if reader.remaining() == 0 {
            return Some(Flags::default());
        }
        Some(Flags {
            structure: reader.flag()?,
            active_targets: reader.flag()?,
            custom_indications: reader.flag()?,
            custom_diffs: reader.flag()?,
            custom_chains: reader.flag()?,
        })
    }

    fn write(self, writer: &mut BitWriter<'_>) -> Option<()> {
        for flag in
            [self.structure, self.active_targets, self.custom_indications, self.custom_diffs, self.custom_chains]
        {
            writer.write(u32::from(flag), 1)?;
        }
        Some(())
    }
}

impl Structure {
    fn read(reader: &mut BitReader<'_>) -> Option<Structure> {
        let template_id_offset = reader.read(6)? as u8;
        let target_count = reader.read(5)? as usize + 1;
        let mut templates = read_template_layers(reader)?;
        for template in &mut templates {
            template.indications = Indications::read(reader, target_count)?;
        }
        for template in &mut templates {
            while reader.flag()? {
                template.diffs.push(reader.read(4)? as u16 + 1)?;
            }
        }
        let chains = reader.below(target_count as u32 + 1)?;
        if chains > 0 {
            for _ in 0..target_count {
                reader.below(chains)?;
            }
            for _ in 0..templates.len() * chains as usize {
                reader.read(4)?;
            }
        }
        let spatial_layers = templates.last().map_or(0, |template| template.spatial) + 1;
        let mut resolutions = Vec::new();
        if reader.flag()? {
            for _ in 0..spatial_layers {
                resolutions.push((reader.read(16)? + 1, reader.read(16)? + 1));
            }
        }
        let targets = (0..target_count).map(|target| DecodeTarget::of(target, &templates)).collect();
        Some(Structure { template_id_offset, templates, targets, chains: chains as u8, resolutions })
    }

    fn read_frame(&self, template_id: u8, flags: Flags, reader: &mut BitReader<'_>) -> Option<Frame> {
        let index = template_id.wrapping_sub(self.template_id_offset) % MAX_TEMPLATES as u8;
        let mut frame = *self.templates.get(usize::from(index))?;
        if flags.custom_indications {
            frame.indications = Indications::read(reader, self.targets.len())?;
        }
        if flags.custom_diffs {
            frame.diffs = FrameDiffs::default();
            loop {
                let size = reader.read(2)? as usize;
                if size == 0 {
                    break;
                }
                frame.diffs.push(reader.read(4 * size)? as u16 + 1)?;
            }
        }
        if flags.custom_chains {
            for _ in 0..self.chains {
                reader.read(8)?;
            }
        }
        Some(frame)
    }

    /// The decode targets, at most [`MAX_DECODE_TARGETS`].
    pub fn targets(&self) -> &[DecodeTarget] {
        &self.targets
    }

    pub fn spatial_layers(&self) -> u8 {
        self.templates.iter().map(|template| template.spatial + 1).max().unwrap_or(1)
    }

    /// Bits for the targets that `fits` accepts.
    pub fn select(&self, fits: impl Fn(DecodeTarget) -> bool) -> ActiveTargets {
        let bits = self.targets.iter().enumerate().fold(0, |bits, (n, t)| bits | u32::from(fits(*t)) << n);
        ActiveTargets { bits, count: self.targets.len() as u8 }
    }
}

fn read_template_layers(reader: &mut BitReader<'_>) -> Option<Vec<Frame>> {
    const NEXT_TEMPORAL: u32 = 1;
    const NEXT_SPATIAL: u32 = 2;
    const END: u32 = 3;
    let (mut spatial, mut temporal) = (0u8, 0u8);
    let mut templates = Vec::new();
    loop {
        if templates.len() == MAX_TEMPLATES {
            return None;
        }
        templates.push(Frame { spatial, temporal, indications: Default::default(), diffs: Default::default() });
        match reader.read(2)? {
            NEXT_TEMPORAL => temporal += 1,
            NEXT_SPATIAL => (spatial, temporal) = (spatial + 1, 0),
            END => return Some(templates),
            _ => {}
        }
    }
}

impl DecodeTarget {
    fn of(target: usize, templates: &[Frame]) -> Self {
        let present = templates.iter().filter(|t| t.indications.of(target) != Indication::NotPresent);
        present.fold(DecodeTarget::default(), |target, template| DecodeTarget {
            spatial: target.spatial.max(template.spatial),
            temporal: target.temporal.max(template.temporal),
        })
    }
}

impl Indications {
    fn read(reader: &mut BitReader<'_>, targets: usize) -> Option<Indications> {
        (0..targets).try_fold(0, |bits, n| Some(bits | u64::from(reader.read(2)?) << (2 * n))).map(Indications)
    }

    pub fn of(self, target: usize) -> Indication {
        match self.0.checked_shr(2 * target as u32).unwrap_or_default() & 3 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }
}

impl FrameDiffs {
    fn push(&mut self, diff: u16) -> Option<()> {
        *self.list.get_mut(usize::from(self.len))? = diff;
        self.len += 1;
        Some(())
    }

    /// As many of them as there is room for, without zeros.
    pub fn of(diffs: impl IntoIterator<Item = u16>) -> Self {
        let mut all = FrameDiffs::default();
        for diff in diffs.into_iter().filter(|diff| *diff > 0) {
            let _ = all.push(diff);
        }
        all
    }

    pub fn as_slice(&self) -> &[u16] {
        &self.list[..usize::from(self.len)]
    }
}

#[cfg(test)]
pub(crate) mod writer;

#[cfg(test)]
mod tests;
