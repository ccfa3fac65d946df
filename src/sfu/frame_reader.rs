//! Reads what the forwarders of a track have to know of each packet: from the codec's payload descriptor, and from the
//! dependency descriptor where there is one. Nothing behind them is looked at, but for what stays clear under frame
//! encryption: VP8's frame type bit and H.264's unit types. A [`Track`](super::track::Track) owns one and calls it once a
//! packet.

use std::sync::Arc;

use super::forwarder::{Dependency, Frame, FrameId, Incoming, Numbers, PictureId, PictureNumbers, Switch};
use super::info::Codec;
use super::layer_selector::MAX_LAYERS;
use crate::rtp::dependency_descriptor::{Descriptor, FrameDiffs, Indication, Structure};
use crate::rtp::{av1, h264, red, vp8, vp9};
use crate::transport::MediaPacket;

/// Picture ids and frame numbers wrap after so many bits.
const NARROW_BITS: u8 = 7;
const WIDE_BITS: u8 = 15;
const FRAME_NUMBER_BITS: u8 = 16;

#[derive(Debug, Default)]
pub struct FrameReader {
    streams: [Stream; MAX_LAYERS],
}

/// What a dependency descriptor leaves for later ones.
#[derive(Debug, Default)]
struct Stream {
    structure: Option<Arc<Structure>>,
    /// Sequence number of the packet that brought it.
    structure_at: u64,
    active_targets: u32,
}

/// What was read; kept with the packet, which may be forwarded again later.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// The packet is the first of a key picture.
    pub keyframe_start: bool,
    pub frame_start: bool,
    pub frame: Frame,
    numbers: Numbers,
    dependency: Option<DependencyState>,
    /// Bytes: where the primary block of redundant audio begins.
    primary: Option<u16>,
}

/// A dependency descriptor, and what those before it left.
#[derive(Debug, Clone)]
struct DependencyState {
    frame_number: u16,
    structure: Option<Arc<Structure>>,
    has_structure: bool,
    has_active_targets: bool,
    active_targets: u32,
}

impl Description {
    #[cfg(test)]
    pub fn keyframe() -> Description {
        Description { keyframe_start: true, ..Description::default() }
    }

    /// The packet for the forwarders.
    pub fn of<'a>(&'a self, packet: &MediaPacket) -> Incoming<'a> {
        Incoming {
            stream: packet.layer,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            marker: packet.marker,
            arrival: packet.arrival,
            empty: packet.payload.is_empty(),
            keyframe_start: self.keyframe_start,
            clock_rate: packet.clock_rate,
            sender_time: packet.sender_time,
            frame: self.frame,
            numbers: self.numbers,
            dependency: self.dependency.as_ref().map(|dependency| Dependency {
                frame_number: dependency.frame_number,
                structure: dependency.structure.as_deref(),
                has_structure: dependency.has_structure,
                has_active_targets: dependency.has_active_targets,
                active_targets: dependency.active_targets,
            }),
            primary: self.primary,
        }
    }
}

impl FrameReader {
    pub fn read(&mut self, packet: &MediaPacket) -> Description {
        let mut described = describe(packet);
        if let Codec::Vp9 | Codec::Av1 = packet.codec
            && let Some(stream) = self.streams.get_mut(usize::from(packet.layer))
        {
            if packet.restarted {
                *stream = Stream::default();
            }
            if let Some(bytes) = &packet.extensions.dependency_descriptor
                && let Some((descriptor, has_structure)) = stream.parse(packet.sequence, bytes)
            {
                described.keyframe_start = has_structure && descriptor.frame_start;
                described.frame_start = descriptor.frame_start;
                described.frame = describe_frame(&descriptor, stream.structure.as_deref());
                described.dependency = Some(DependencyState {
                    frame_number: descriptor.frame_number,
                    structure: stream.structure.clone(),
                    has_structure,
                    has_active_targets: descriptor.active_targets.is_some(),
                    active_targets: stream.active_targets,
                });
            }
        }
        if packet.codec == Codec::Red {
            described.primary = red::Primary::parse(&packet.payload).map(|primary| primary.from as u16);
        }
        described
    }
}

fn describe(packet: &MediaPacket) -> Description {
    let payload = &packet.payload[..];
    match packet.codec {
        Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma => {
            Description { keyframe_start: true, ..Description::default() }
        }
        Codec::H264 => Description { keyframe_start: h264::starts_key_frame(payload), ..Description::default() },
        Codec::Av1 => Description { keyframe_start: av1::starts_key_frame(payload), ..Description::default() },
        Codec::Vp8 => vp8::Descriptor::parse(payload).map(|d| describe_vp8(&d, payload)).unwrap_or_default(),
        Codec::Vp9 => vp9::Descriptor::parse(payload).map(|d| describe_vp9(&d)).unwrap_or_default(),
    }
}

fn describe_vp8(descriptor: &vp8::Descriptor, payload: &[u8]) -> Description {
    let picture_id = descriptor.picture_id.map(|id| PictureId { value: id.value, wide: id.wide });
    Description {
        keyframe_start: descriptor.starts_key_frame(payload),
        frame_start: descriptor.starts_frame(),
        frame: Frame {
            id: picture_id.map(|id| frame_id(id, 0)),
            temporal: descriptor.temporal_layer.unwrap_or_default(),
            switch: if descriptor.layer_sync { Switch::Own } else { Switch::No },
            ..Frame::default()
        },
        numbers: Numbers::Vp8(PictureNumbers {
            picture_id,
            tl0_picture_index: descriptor.tl0_picture_index,
            key_index: descriptor.key_index,
        }),
        ..Description::default()
    }
}

fn describe_vp9(descriptor: &vp9::Descriptor) -> Description {
    let picture_id = descriptor.picture_id.map(|id| PictureId { value: id.value, wide: id.wide });
    let (spatial, temporal) = (descriptor.spatial(), descriptor.temporal());
    let switch = match descriptor.layer {
        // The base layer's pictures bound everything above. What libwebrtc says of the others does not: so they count only
        // where the references are listed and checked.
        Some(layer) if layer.switching_up && temporal == 0 => Switch::UpTo(u8::MAX),
        Some(layer) if layer.switching_up && descriptor.flexible => Switch::Own,
        _ => Switch::No,
    };
    Description {
        keyframe_start: descriptor.starts_key_picture(),
        frame_start: descriptor.frame_start,
        frame: Frame {
            id: picture_id.map(|id| frame_id(id, spatial)),
            spatial,
            temporal,
            end: descriptor.frame_end,
            switch,
            independent: descriptor.frame_start && !descriptor.inter_picture,
            references: FrameDiffs::of(descriptor.references.map(u16::from)),
        },
        numbers: Numbers::Vp9(PictureNumbers {
            picture_id,
            tl0_picture_index: descriptor.tl0_picture_index,
            key_index: None,
        }),
        ..Description::default()
    }
}

fn frame_id(id: PictureId, layer: u8) -> FrameId {
    FrameId { number: id.value, bits: if id.wide { WIDE_BITS } else { NARROW_BITS }, layer }
}

impl Stream {
    /// The descriptor, and whether it brought the structure, which is kept here.
    fn parse(&mut self, sequence: u64, bytes: &[u8]) -> Option<(Descriptor, bool)> {
        // Of a structure that has yet to come, what every descriptor has can be read.
        let known = Descriptor::parse(bytes, self.structure.as_deref());
        let mut descriptor = known.or_else(|| Descriptor::parse(bytes, None))?;
        let newer = self.structure.is_none() || sequence > self.structure_at;
        let structure = descriptor.structure.take();
        let has_structure = structure.is_some();
        if newer && has_structure {
            self.structure = structure.map(Arc::from);
            self.structure_at = sequence;
            self.active_targets = u32::MAX;
        }
        if let Some(active) = descriptor.active_targets.filter(|_| newer) {
            self.active_targets = active;
        }
        Some((descriptor, has_structure))
    }
}

fn describe_frame(descriptor: &Descriptor, structure: Option<&Structure>) -> Frame {
    let id = Some(FrameId { number: descriptor.frame_number, bits: FRAME_NUMBER_BITS, layer: 0 });
    let (Some(frame), Some(structure)) = (descriptor.frame, structure) else {
        return Frame { id, ..Frame::default() };
    };
    let own = structure
        .targets()
        .iter()
        .enumerate()
        .filter(|(n, target)| target.spatial == frame.spatial && frame.indications.of(*n) == Indication::Switch);
    let switches = own.map(|(_, target)| target.temporal).max();
    Frame {
        id,
        spatial: frame.spatial,
        temporal: frame.temporal,
        end: descriptor.frame_end,
        switch: switches.map_or(Switch::No, Switch::UpTo),
        independent: switches.is_some(),
        references: frame.diffs,
    }
}
