//! What the SFU tells a front door. Every event is addressed to one participant, in the order it must reach it.

use std::sync::Arc;
use std::time::Duration;

use super::connection_quality::ConnectionQuality;
use super::info::{Codec, LeaveReason, ParticipantId, ParticipantInfo, Quality, Sid, Speaker};

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The participant whose session must hear this.
    pub to: ParticipantId,
    pub kind: EventKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// Snapshots of participants that changed, the receiver itself included when its own state changed.
    /// Always precedes any SDP that carries their tracks. The same slice for everyone who is told.
    ParticipantsChanged(Arc<[ParticipantInfo]>),
    /// The answer to the client's offer `id`.
    Answer(Description),
    /// Our offer for the downstream connection; only for [`Negotiation::Dual`](super::Negotiation::Dual).
    Offer(Description),
    /// The client must offer again, with this many more receive sections than it has.
    /// Both zero: offer again as it is. Only for [`Negotiation::Single`](super::Negotiation::Single).
    SectionsRequired { audio: u32, video: u32 },
    /// Changed entries only; somebody who fell silent comes with `active: false`.
    SpeakersChanged(Vec<Speaker>),
    /// Videos that the receiver's network does not carry any more, or does again. Changed ones only.
    StreamStates(Vec<StreamState>),
    /// How good the lines of the room's participants are, the receiver's own included. Changed ones only. The same slice
    /// for everyone who is told.
    LineStates(Arc<[LineState]>),
    /// The highest quality that anybody wants of the receiver's own video; `None` = nobody wants any. What is above need
    /// not be sent until another such event wants it.
    QualityWanted { track: Sid, codec: Option<Codec>, highest: Option<Quality> },
    /// The first subscriber is bound to this track of the receiver's.
    TrackSubscribed(Sid),
    /// A moderator muted this track of the receiver's; no packet of it goes on. Precedes the snapshot that shows it muted.
    Muted(Sid),
    /// A subscription that cannot be served: the receiver did not offer the track's codec.
    SubscriptionFailed(Sid),
    /// A message from the receiver's own data channel, for the front door to route.
    DataReceived { channel: DataChannel, message: Vec<u8> },
    /// The participant is gone. The last event for this id.
    Left(LeaveReason),
    /// How joining went, exactly once for each participant: for the log and the metrics.
    Verdict(Verdict),
}

/// One entry of [`EventKind::StreamStates`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    pub participant: Sid,
    pub track: Sid,
    pub paused: bool,
}

/// One entry of [`EventKind::LineStates`].
#[derive(Debug, Clone, PartialEq)]
pub struct LineState {
    pub participant: Sid,
    pub quality: ConnectionQuality,
    /// Mean opinion score, 1.0..=4.5.
    pub opinion: f32,
}

/// An SDP with what goes along.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// The number of the offer this is or answers.
    pub id: u32,
    pub sdp: String,
    /// Every section that carries a track towards the client: (mid, track).
    pub mid_to_track: Vec<(String, Sid)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataChannel {
    /// `_reliable`: ordered.
    Reliable,
    /// `_lossy`: unordered, no retransmits.
    Lossy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Connected { after: Duration },
    Failed { reason: FailureReason, after: Duration },
}

/// Why a join never became a call; the label in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// No connectivity check ever reached us.
    IceNoChecks,
    /// Checks arrived, no pair was nominated.
    IceTimeout,
    /// ICE is up, the handshake did not finish.
    DtlsTimeout,
    /// The client never offered.
    NoOffer,
    /// Offer or answer could not be used.
    BadDescription,
    /// The client went away while joining.
    ClientLeft,
    /// Replaced while joining.
    Replaced,
    RoomClosed,
}

impl FailureReason {
    pub fn as_str(self) -> &'static str {
        match self {
            FailureReason::IceNoChecks => "ice-no-checks",
            FailureReason::IceTimeout => "ice-timeout",
            FailureReason::DtlsTimeout => "dtls-timeout",
            FailureReason::NoOffer => "no-offer",
            FailureReason::BadDescription => "bad-description",
            FailureReason::ClientLeft => "client-left",
            FailureReason::Replaced => "replaced",
            FailureReason::RoomClosed => "room-closed",
        }
    }
}
