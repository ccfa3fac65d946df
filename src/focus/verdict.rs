//! What became of an invitation or a leg: one verdict for each, for the log and the metrics.

use super::reason::Reason;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    // --- an invitation that never became a call
    /// For somebody else, or in a room with others.
    NotForUs,
    /// Older than its lifetime, or nobody decided about it in time.
    Expired,
    /// Hung up or answered before we saw it.
    Missed,
    /// It, or the answer to our own, is no description.
    BadDescription,
    /// This user calls too often.
    TooOften,
    /// This user has enough legs.
    UserBusy,
    /// There is no place for another leg.
    Full,
    /// We rang the same user at the same time, and that call stands.
    LostGlare,
    Refused(Refusal),
    /// Another of our sessions has it, or declined it.
    TakenElsewhere,

    // --- a call that was
    /// By the opponent.
    HungUp(Reason),
    /// By whoever drives us.
    Ended(Cause),
    /// The caller chose another answer.
    NotSelected,
    /// The caller never said whether ours is the answer it takes.
    NeverSelected,
    /// The opponent does not want our call.
    Declined(Reason),
    NoAnswer,
    /// Another call with the same client takes its place.
    Replaced,
    /// Media never connected.
    NeverConnected,
    /// Media broke and did not come back.
    ConnectionLost,
    MediaFailed(MediaError),
    /// Media took too long over a description.
    MediaSlow,
    OpponentLeft,
    /// We are no longer in the room.
    RoomLost,
    /// What we had to say could not be sent.
    SendFailed,
    /// It was begun before we started.
    Leftover,
    ShutDown,
}

impl Verdict {
    /// The label in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::NotForUs => "not-for-us",
            Verdict::Expired => "expired",
            Verdict::Missed => "missed",
            Verdict::BadDescription => "bad-description",
            Verdict::TooOften => "too-often",
            Verdict::UserBusy => "user-busy",
            Verdict::Full => "full",
            Verdict::LostGlare => "lost-glare",
            Verdict::Refused(_) => "refused",
            Verdict::TakenElsewhere => "taken-elsewhere",
            Verdict::HungUp(_) => "hung-up",
            Verdict::Ended(_) => "ended",
            Verdict::NotSelected => "not-selected",
            Verdict::NeverSelected => "never-selected",
            Verdict::Declined(_) => "declined",
            Verdict::NoAnswer => "no-answer",
            Verdict::Replaced => "replaced",
            Verdict::NeverConnected => "never-connected",
            Verdict::ConnectionLost => "connection-lost",
            Verdict::MediaFailed(_) => "media-failed",
            Verdict::MediaSlow => "media-slow",
            Verdict::OpponentLeft => "opponent-left",
            Verdict::RoomLost => "room-lost",
            Verdict::SendFailed => "send-failed",
            Verdict::Leftover => "leftover",
            Verdict::ShutDown => "shut-down",
        }
    }
}

/// Why an invitation is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The caller may not, or there is nothing to call. Why is told in words elsewhere.
    Declined,
    /// There is no place in the call.
    Busy,
    /// As if we had never seen it.
    Ignored,
}

/// Why a call that stood is ended from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The conference is over, or somebody asked the leg to go.
    Over,
    /// The opponent may no longer be in the conference.
    Removed,
    /// Its connection cannot be saved.
    MediaFailed,
    /// No pong on the data channel.
    KeepAliveTimeout,
}

impl Cause {
    pub(super) fn reason(self) -> Reason {
        match self {
            Cause::Over | Cause::Removed => Reason::UserHangup,
            Cause::MediaFailed => Reason::IceFailed,
            Cause::KeepAliveTimeout => Reason::KeepAliveTimeout,
        }
    }
}

/// Why media makes no description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaError {
    /// Nothing in common with the peer, or what it describes is not possible.
    Unusable,
    /// There is no place in the conference.
    Full,
    Failed,
}

impl MediaError {
    pub(super) fn reason(self) -> Reason {
        match self {
            MediaError::Unusable => Reason::UserMediaFailed,
            MediaError::Full => Reason::UserBusy,
            MediaError::Failed => Reason::UnknownError,
        }
    }
}

/// The end of a leg: what is said of it, and what is said to the opponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub verdict: Verdict,
    pub farewell: Farewell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// The opponent knows, or cannot be told.
    Silent,
    Hangup(Reason),
    /// Declines on all of our devices; a hangup where the opponent does not know `reject`.
    Reject(Reason),
}
