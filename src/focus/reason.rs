//! Why a call ended, as `m.call.hangup` and `m.call.reject` say it.

/// The reasons of the specification, and those seen in the wild that mean something to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Also when none is given.
    UserHangup,
    /// The user cannot take another call.
    UserBusy,
    UserMediaFailed,
    /// Nobody answered in time.
    InviteTimeout,
    IceFailed,
    IceTimeout,
    /// MSC4006.
    AnsweredElsewhere,
    /// Another call takes this one's place.
    Replaced,
    /// The peer's client started anew.
    NewSession,
    /// Signalling could not be sent.
    SignallingTimeout,
    /// No pong on the data channel (MSC3898).
    KeepAliveTimeout,
    /// Whatever else is said: to be treated as a failure.
    UnknownError,
}

const ALL: [Reason; 12] = [
    Reason::UserHangup,
    Reason::UserBusy,
    Reason::UserMediaFailed,
    Reason::InviteTimeout,
    Reason::IceFailed,
    Reason::IceTimeout,
    Reason::AnsweredElsewhere,
    Reason::Replaced,
    Reason::NewSession,
    Reason::SignallingTimeout,
    Reason::KeepAliveTimeout,
    Reason::UnknownError,
];

impl Reason {
    /// As on the wire, and as in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::UserHangup => "user_hangup",
            Reason::UserBusy => "user_busy",
            Reason::UserMediaFailed => "user_media_failed",
            Reason::InviteTimeout => "invite_timeout",
            Reason::IceFailed => "ice_failed",
            Reason::IceTimeout => "ice_timeout",
            Reason::AnsweredElsewhere => "answered_elsewhere",
            Reason::Replaced => "replaced",
            Reason::NewSession => "new_session",
            Reason::SignallingTimeout => "signalling_timeout",
            Reason::KeepAliveTimeout => "keep_alive_timeout",
            Reason::UnknownError => "unknown_error",
        }
    }

    pub(super) fn parse(text: &str) -> Reason {
        ALL.into_iter().find(|reason| reason.as_str() == text).unwrap_or(Reason::UnknownError)
    }
}
