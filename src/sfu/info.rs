//! What a room tells about itself: snapshots of participants, tracks and rooms that front doors translate.
//!
//! These are plain data in WebRTC terms. `livekit` turns them into `ParticipantInfo`, `TrackInfo` and `Room`;
//! `focus` will turn them into `m.call.*` stream metadata. Nothing here refers to a wire format.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A public identifier: `RM_…` room, `PA_…` participant, `TR_…` track. Never reused.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid(pub Arc<str>);

impl Sid {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of a participant inside one [`Sfu`](super::Sfu). Never reused, so a late message for somebody who left finds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParticipantId(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    Audio,
    Video,
}

/// What a track shows or plays. The order is that of the LiveKit protocol's `TrackSource`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackSource {
    Unknown,
    Camera,
    Microphone,
    ScreenShare,
    ScreenShareAudio,
}

/// Frame encryption announced by the publisher. The room never decrypts; receivers choose their decryptor from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    None,
    Gcm,
    Custom,
}

/// The codecs the room forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    Opus,
    /// Redundant Opus (RFC 2198).
    Red,
    Pcmu,
    Pcma,
    Vp8,
    H264,
    Vp9,
    Av1,
}

impl Codec {
    const ALL: [Codec; 8] =
        [Codec::Opus, Codec::Red, Codec::Pcmu, Codec::Pcma, Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1];

    /// The MIME type as peers write it, e.g. `video/VP8`.
    pub fn mime(self) -> &'static str {
        match self {
            Codec::Opus => "audio/opus",
            Codec::Red => "audio/red",
            Codec::Pcmu => "audio/PCMU",
            Codec::Pcma => "audio/PCMA",
            Codec::Vp8 => "video/VP8",
            Codec::H264 => "video/H264",
            Codec::Vp9 => "video/VP9",
            Codec::Av1 => "video/AV1",
        }
    }

    /// The name in an SDP: the MIME type without its kind.
    pub fn name(self) -> &'static str {
        let mime = self.mime();
        mime.split_once('/').map_or(mime, |(_, name)| name)
    }

    pub fn kind(self) -> MediaKind {
        match self {
            Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma => MediaKind::Audio,
            Codec::Vp8 | Codec::H264 | Codec::Vp9 | Codec::Av1 => MediaKind::Video,
        }
    }

    /// Whether one stream can carry several spatial layers.
    pub fn is_scalable(self) -> bool {
        matches!(self, Codec::Vp9 | Codec::Av1)
    }

    /// Accepts `video/VP8`, `VP8`, in any case.
    pub fn from_mime(mime: &str) -> Option<Codec> {
        let name = mime.rsplit('/').next().unwrap_or(mime);
        Codec::ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name))
    }
}

/// Simulcast quality, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quality {
    Low,
    Medium,
    High,
}

/// One simulcast layer as the publisher announced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    pub quality: Quality,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Bits per second.
    pub bitrate: u32,
    /// The RTP stream id, once negotiated.
    pub rid: Option<String>,
}

/// What a publisher asks for with `add_track`, before any SDP mentions the track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTrack {
    /// The client's MediaStreamTrack id: the key by which the SDP section will be recognised.
    pub cid: String,
    /// Further ids of the same publication (one per simulcast codec).
    pub codec_cids: Vec<String>,
    pub kind: MediaKind,
    pub source: TrackSource,
    pub name: String,
    pub muted: bool,
    /// Pixels; 0 for audio.
    pub width: u32,
    /// Pixels; 0 for audio.
    pub height: u32,
    pub layers: Vec<LayerInfo>,
    pub codec: Option<Codec>,
    pub encryption: Encryption,
    pub stereo: bool,
    pub disable_dtx: bool,
    pub disable_red: bool,
    /// The media stream this track groups with; empty = derived from the source.
    pub stream: String,
    /// `AudioTrackFeature` numbers, passed through.
    pub audio_features: Vec<i32>,
}

/// A published (or announced) track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackInfo {
    pub sid: Sid,
    /// What the publisher announced.
    pub announced: NewTrack,
    /// The negotiated codec; `None` until an offer carried the track.
    pub codec: Option<Codec>,
    /// The publisher's section, once negotiated.
    pub mid: Option<String>,
    pub muted: bool,
    /// Several streams, one for each layer.
    pub simulcast: bool,
    /// One stream that carries every spatial layer.
    pub scalable: bool,
    pub layers: Vec<LayerInfo>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParticipantState {
    /// Signalling is up.
    Joined,
    /// Media can flow: ICE and DTLS are done.
    Active,
    Disconnected,
}

/// What a participant may do; from its access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    pub can_publish: bool,
    pub can_subscribe: bool,
    pub can_publish_data: bool,
    /// Empty = every source.
    pub can_publish_sources: Vec<TrackSource>,
    pub can_update_metadata: bool,
    pub hidden: bool,
}

impl Permissions {
    /// Nobody could tell whose track it is that a hidden participant publishes, so it may not.
    pub fn may_publish(&self, source: TrackSource) -> bool {
        self.can_publish
            && !self.hidden
            && (self.can_publish_sources.is_empty() || self.can_publish_sources.contains(&source))
    }
}

/// Why a participant is no longer in the room. The numbers on the wire are the front door's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaveReason {
    /// It said so.
    ClientInitiated,
    /// A newer session with the same identity took over.
    DuplicateIdentity,
    ServerShutdown,
    /// The worker that had the room panicked; a fresh join will repair it.
    ServerFault,
    /// Removed by the server API or by the room's membership.
    Removed,
    RoomDeleted,
    /// Offer/answer or publication state does not match; a fresh join will repair it.
    StateMismatch,
    /// Never became active within [`JOIN_TIMEOUT`](super::JOIN_TIMEOUT).
    JoinTimeout,
    /// Signalling was lost before media ever connected.
    SignalClosed,
    /// Media was lost and signalling did not resume it.
    ConnectionTimeout,
}

/// A snapshot of one participant. `version` grows with every change, so a receiver can drop stale snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantInfo {
    pub sid: Sid,
    pub identity: String,
    pub name: String,
    pub metadata: String,
    pub attributes: BTreeMap<String, String>,
    pub state: ParticipantState,
    /// Tracks that others may subscribe to: those whose section is negotiated.
    pub tracks: Vec<TrackInfo>,
    pub permissions: Permissions,
    pub version: u32,
    /// Unix milliseconds.
    pub joined_at_ms: u64,
    pub is_publisher: bool,
    /// `client_protocol` of the peer, for others to know its features; 0 = unknown.
    pub client_protocol: i32,
    pub leave_reason: Option<LeaveReason>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomInfo {
    pub sid: Sid,
    pub name: String,
    pub metadata: String,
    pub num_participants: u32,
    pub num_publishers: u32,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Seconds.
    pub empty_timeout: u32,
    /// Seconds.
    pub departure_timeout: u32,
    /// 0 = no limit.
    pub max_participants: u32,
}

/// One entry of the speaker list.
#[derive(Debug, Clone, PartialEq)]
pub struct Speaker {
    pub sid: Sid,
    /// 0.0 … 1.0, linear loudness; 0.0 when no longer speaking.
    pub level: f32,
    pub active: bool,
}
