//! Encoders with layers: frames that know what they depend on, in packets with real descriptors.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Random;
use crate::rtp::dependency_descriptor::writer::{FrameSpec, PacketSpec, StructureSpec};
use crate::sfu::Codec;
use crate::transport::{Extensions, MediaPacket};

/// How the layers depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// VP8 with three temporal layers.
    Vp8,
    /// VP9, `L3T3_KEY` in flexible mode, told by the payload descriptor only.
    Vp9Key,
    /// The same with a dependency descriptor.
    Vp9KeyDescribed,
    /// AV1, `L3T3_KEY`: upper spatial layers need the lower ones in key pictures only.
    Av1Key,
    /// AV1, `L3T3`: they always do.
    Av1Full,
    /// AV1 with three temporal layers.
    Av1Temporal,
}

impl Mode {
    pub fn codec(self) -> Codec {
        match self {
            Mode::Vp8 => Codec::Vp8,
            Mode::Vp9Key | Mode::Vp9KeyDescribed => Codec::Vp9,
            Mode::Av1Key | Mode::Av1Full | Mode::Av1Temporal => Codec::Av1,
        }
    }

    pub fn spatial_layers(self) -> u8 {
        if matches!(self, Mode::Vp8 | Mode::Av1Temporal) { 1 } else { 3 }
    }

    fn is_described(self) -> bool {
        !matches!(self, Mode::Vp8 | Mode::Vp9Key)
    }
}

const TEMPORAL_LAYERS: u8 = 3;
/// The temporal layer of each picture of a group.
const PATTERN: [u8; 4] = [0, 2, 1, 2];

/// One frame of one spatial layer.
#[derive(Debug, Clone)]
pub struct ModelFrame {
    /// Index among all frames of the stream, in coding order.
    pub index: usize,
    pub picture: usize,
    pub key: bool,
    pub spatial: u8,
    pub temporal: u8,
    /// Indices of the frames it needs.
    pub references: Vec<usize>,
    /// It needs frames of the base temporal layer only.
    sync: bool,
}

/// A packet, and the frame it belongs to.
pub struct Encoded {
    pub frame: usize,
    pub media: MediaPacket,
}

/// Everything one stream sends.
pub struct Stream {
    pub frames: Vec<ModelFrame>,
    pub packets: Vec<Encoded>,
}

impl Stream {
    /// `pictures` at 30 a second from `start` on; a key picture comes first, and each of `keys`.
    pub fn new(random: &mut Random, mode: Mode, layer: u8, pictures: usize, keys: &[usize], start: Instant) -> Self {
        let frames = frames(mode, pictures, keys);
        let packets = Packetizer::new(random, mode, layer, start).packetize(random, &frames);
        Stream { frames, packets }
    }
}

fn frames(mode: Mode, pictures: usize, keys: &[usize]) -> Vec<ModelFrame> {
    let mut frames: Vec<ModelFrame> = Vec::new();
    // The newest frame of each layer of the present group, and of the base layer.
    let mut newest: BTreeMap<(u8, u8), usize> = BTreeMap::new();
    let mut since_key = 0;
    for picture in 0..pictures {
        let key = picture == 0 || keys.contains(&picture);
        since_key = if key { 0 } else { since_key + 1 };
        let phase = since_key % PATTERN.len();
        let temporal = PATTERN[phase];
        if key {
            newest.clear();
        }
        for spatial in 0..mode.spatial_layers() {
            let index = frames.len();
            let mut references = Vec::new();
            let mut sync = true;
            if !key {
                let of = |temporal| newest[&(spatial, temporal)];
                references.push(of(0));
                match phase {
                    // As libwebrtc's VP8 does: every other time the middle layer goes on from itself.
                    2 if mode == Mode::Vp8 && since_key % 8 == 6 => {
                        references.push(of(1));
                        sync = false;
                    }
                    3 if mode == Mode::Vp8 => {
                        references.extend([of(1), of(2)]);
                        sync = false;
                    }
                    3 => {
                        references = vec![of(1)];
                        sync = false;
                    }
                    _ => {}
                }
            }
            if spatial > 0 && (key || mode == Mode::Av1Full) {
                references.push(index - 1);
            }
            newest.insert((spatial, temporal), index);
            let sync = sync && temporal > 0;
            frames.push(ModelFrame { index, picture, key, spatial, temporal, references, sync });
        }
    }
    frames
}

struct Packetizer {
    mode: Mode,
    layer: u8,
    start: Instant,
    sequence: u64,
    timestamp: u32,
    picture_id: u16,
    tl0_picture_index: u8,
    frame_number: u16,
    template_id_offset: u8,
}

impl Packetizer {
    fn new(random: &mut Random, mode: Mode, layer: u8, start: Instant) -> Self {
        Packetizer {
            mode,
            layer,
            start,
            sequence: random.below(1 << 16),
            timestamp: random.below(1 << 32) as u32,
            picture_id: random.below(1 << 15) as u16,
            tl0_picture_index: random.below(256) as u8,
            frame_number: random.below(1 << 16) as u16,
            template_id_offset: random.below(64) as u8,
        }
    }

    fn packetize(&mut self, random: &mut Random, frames: &[ModelFrame]) -> Vec<Encoded> {
        let mut packets = Vec::new();
        let mut tl0 = 0u8;
        let structure = self.mode.is_described().then(|| structure(self.mode));
        let mut offset = self.template_id_offset;
        for frame in frames {
            if frame.spatial == 0 && frame.temporal == 0 {
                tl0 = tl0.wrapping_add(1);
            }
            if frame.key && frame.spatial == 0 {
                offset = (offset + 20) % 64;
            }
            let top = frame.spatial + 1 == self.mode.spatial_layers();
            let count = 1 + random.below(3) + if frame.key { random.below(3) } else { 0 };
            for n in 0..count {
                let (first, last) = (n == 0, n + 1 == count);
                let dependency_descriptor = structure.as_ref().map(|spec| {
                    let packet = PacketSpec {
                        frame_start: first,
                        frame_end: last,
                        frame_number: self.frame_number.wrapping_add(frame.index as u16),
                        with_structure: first && frame.key && frame.spatial == 0,
                        active_targets: None,
                    };
                    let spec = StructureSpec { template_id_offset: offset, ..spec.clone() };
                    spec.write(packet, &frame_spec(self.mode, frame)).into()
                });
                let mut payload = match self.mode.codec() {
                    Codec::Vp8 => self.vp8(frame, first, tl0),
                    Codec::Vp9 => self.vp9(frame, frames, first, last),
                    _ => vec![if first && frame.key { 0x18 } else { 0x10 }],
                };
                // What a forwarder must not touch.
                payload.extend((frame.index as u16).to_be_bytes());
                packets.push(Encoded {
                    frame: frame.index,
                    media: MediaPacket {
                        section: 0,
                        layer: self.layer,
                        codec: self.mode.codec(),
                        sequence: self.sequence,
                        restarted: false,
                        timestamp: self.timestamp.wrapping_add(frame.picture as u32 * 3000),
                        clock_rate: 90_000,
                        marker: last && top,
                        payload: payload.into(),
                        arrival: self.start + Duration::from_micros(frame.picture as u64 * 33_333),
                        sender_time: None,
                        extensions: Extensions { dependency_descriptor, ..Extensions::default() },
                    },
                });
                self.sequence += 1;
            }
        }
        packets
    }

    fn vp8(&self, frame: &ModelFrame, first: bool, tl0: u8) -> Vec<u8> {
        let id = self.picture_id.wrapping_add(frame.picture as u16) | 0x8000;
        let start = if first { 0x10 } else { 0 };
        let [high, low] = id.to_be_bytes();
        let layer = frame.temporal << 6 | u8::from(frame.sync) << 5;
        let tl0 = self.tl0_picture_index.wrapping_add(tl0);
        vec![0x80 | start, 0xe0, high, low, tl0, layer, u8::from(!frame.key)]
    }

    fn vp9(&self, frame: &ModelFrame, frames: &[ModelFrame], first: bool, last: bool) -> Vec<u8> {
        let temporal: Vec<&ModelFrame> =
            frame.references.iter().map(|r| &frames[*r]).filter(|r| r.spatial == frame.spatial).collect();
        let flags = 0x80 | 0x20 | 0x10 | u8::from(!frame.key) << 6 | u8::from(first) << 3 | u8::from(last) << 2;
        let [high, low] = (self.picture_id.wrapping_add(frame.picture as u16) | 0x8000).to_be_bytes();
        let inter_layer = frame.references.iter().any(|r| frames[*r].spatial != frame.spatial);
        let up = frame.temporal == 0 || frame.sync;
        let layer = frame.temporal << 5 | u8::from(up) << 4 | frame.spatial << 1 | u8::from(inter_layer);
        let mut bytes = vec![flags, high, low, layer];
        for (n, reference) in temporal.iter().enumerate() {
            let diff = (frame.picture - reference.picture) as u8;
            bytes.push(diff << 1 | u8::from(n + 1 < temporal.len()));
        }
        bytes
    }
}

/// Decode targets in the order (spatial, temporal).
fn targets(mode: Mode) -> impl Iterator<Item = (u8, u8)> {
    (0..mode.spatial_layers()).flat_map(|spatial| (0..TEMPORAL_LAYERS).map(move |temporal| (spatial, temporal)))
}

fn frame_spec(mode: Mode, frame: &ModelFrame) -> FrameSpec {
    let indication = |(spatial, temporal): (u8, u8)| {
        let needs =
            if frame.key || mode == Mode::Av1Full { spatial >= frame.spatial } else { spatial == frame.spatial };
        match (needs && temporal >= frame.temporal, spatial == frame.spatial) {
            (false, _) => '-',
            (true, _) if frame.key => 'S',
            (true, false) => 'R',
            (true, true) if frame.temporal == 2 => 'D',
            (true, true) => 'S',
        }
    };
    FrameSpec {
        spatial: frame.spatial,
        temporal: frame.temporal,
        indications: targets(mode).map(indication).collect(),
        diffs: frame.references.iter().map(|r| (frame.index - r) as u16).collect(),
        chain_diffs: Vec::new(),
    }
}

/// Templates for an undisturbed stream; what differs needs fields of its own.
fn structure(mode: Mode) -> StructureSpec {
    let usual = frames(mode, 8, &[]);
    let mut templates: Vec<FrameSpec> = usual.iter().map(|frame| frame_spec(mode, frame)).collect();
    templates.sort_by_key(|t| (t.spatial, t.temporal));
    templates.dedup();
    StructureSpec { template_id_offset: 0, templates, protected_by: Vec::new(), resolutions: vec![] }
}
