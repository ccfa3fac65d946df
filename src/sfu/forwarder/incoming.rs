//! What a forwarder is told of a packet. The track's [`FrameReader`](crate::sfu::frame_reader) makes it, once for all
//! subscribers.

use std::time::{Duration, Instant};

use crate::rtp::dependency_descriptor::{FrameDiffs, Structure};

/// One packet of the publisher's.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Simulcast stream, 0 = lowest.
    pub stream: u8,
    /// Extended to 64 bits, per stream. When a stream is replaced (a new SSRC), call [`Forwarder::reset_stream`](super::Forwarder::reset_stream).
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub arrival: Instant,
    /// The packet carries padding only.
    pub empty: bool,
    /// The first packet of a key picture; always true for audio.
    pub keyframe_start: bool,
    /// Hertz.
    pub clock_rate: u32,
    /// The sender's wall clock at `timestamp`, by its last sender report; any epoch that all streams share.
    pub sender_time: Option<Duration>,
    pub frame: Frame,
    pub numbers: Numbers,
    pub dependency: Option<Dependency<'a>>,
    /// Bytes: where the primary block of redundant audio begins.
    pub primary: Option<u16>,
}

/// The packet's frame among the layers of its stream. The default is what a stream without layers has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frame {
    pub id: Option<FrameId>,
    pub spatial: u8,
    pub temporal: u8,
    /// The packet is its last. May stay unset in streams without spatial layers.
    pub end: bool,
    pub switch: Switch,
    /// A receiver that has the lower layers of this picture, and what [`references`](Frame::references) names, can begin
    /// with this spatial layer here.
    pub independent: bool,
    /// The frames it needs, by how far back their ids are; empty when the codec does not tell.
    pub references: FrameDiffs,
}

/// A number that all packets of a frame share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameId {
    pub number: u16,
    /// How many bits it has before it wraps.
    pub bits: u8,
    /// Tells apart the frames of a picture that have one number in common (VP9); else 0.
    pub layer: u8,
}

/// Where a receiver may go up to a higher temporal layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Switch {
    #[default]
    No,
    /// From this frame on, this spatial layer's temporal layers up to that one need nothing older.
    UpTo(u8),
    /// The frame's own temporal layer may begin with it, if those below flow.
    Own,
}

/// The numbers in the codec's payload descriptor that have to go on from stream to stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Numbers {
    #[default]
    None,
    Vp8(PictureNumbers),
    Vp9(PictureNumbers),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PictureNumbers {
    pub picture_id: Option<PictureId>,
    pub tl0_picture_index: Option<u8>,
    /// 5 bits; VP8 only.
    pub key_index: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureId {
    pub value: u16,
    /// 15 bits on the wire instead of 7.
    pub wide: bool,
}

/// What the dependency descriptor says beyond the frame.
#[derive(Debug, Clone, Copy)]
pub struct Dependency<'a> {
    pub frame_number: u16,
    /// The stream's, once known.
    pub structure: Option<&'a Structure>,
    /// The packet brings the structure.
    pub has_structure: bool,
    /// The packet says which decode targets are active.
    pub has_active_targets: bool,
    /// The decode targets that the publisher sends.
    pub active_targets: u32,
}
