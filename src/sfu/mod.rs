//! The rooms. Only the types that cross to the front doors are here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

mod event;
mod info;

pub use event::*;
pub use info::*;

/// A participant that is not active by then has failed to join.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The only clock the pure modules see.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub instant: Instant,
    /// Unix milliseconds.
    pub unix_ms: u64,
}

/// How the peer connections of a participant are negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Negotiation {
    /// One connection; the client always offers.
    Single,
    /// The client offers the publishing connection, we offer the subscribing one.
    Dual,
}

#[derive(Debug, Clone)]
pub struct JoinOptions {
    pub identity: String,
    pub name: String,
    pub metadata: String,
    pub attributes: BTreeMap<String, String>,
    pub permissions: Permissions,
    pub negotiation: Negotiation,
    pub auto_subscribe: bool,
    pub adaptive_stream: bool,
    pub client_protocol: i32,
    /// Create the room when it does not exist.
    pub create_room: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    #[error("requested room does not exist")]
    RoomMissing,
    #[error("the room is full")]
    RoomFull,
    #[error("the server is full")]
    TooManyParticipants,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddTrackError {
    #[error("not allowed to publish this source")]
    NotAllowed,
    #[error("a track with this cid is pending or published")]
    AlreadyPublished,
    #[error("too many tracks")]
    LimitExceeded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrackSettings {
    pub disabled: bool,
    pub quality: Option<Quality>,
    pub width: u32,
    pub height: u32,
    pub fps: u32,
}
