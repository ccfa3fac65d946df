//! What a LiveKit client says when it connects, once the token is checked: made by `http`, consumed by [`Signalling::join`](super::Signalling::join).

use std::collections::BTreeMap;
use std::sync::Arc;

use livekit_protocol as proto;

use super::Dialect;
use crate::sfu::Permissions;

/// A checked request to join a room.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    pub dialect: Dialect,
    /// From the token's `sub`; 1..=256 bytes.
    pub identity: String,
    pub room: String,
    pub name: String,
    pub metadata: String,
    pub attributes: BTreeMap<String, String>,
    pub permissions: Permissions,
    /// `roomCreate` in the token.
    pub may_create_room: bool,
    /// The access token's claims, for `refresh_token`.
    pub claims: super::Claims,
    /// `protocol` of the client: gates what it understands.
    pub protocol: i32,
    /// `client_protocol` of the client: told to its peers.
    pub client_protocol: i32,
    /// SDK and version, e.g. `js 2.23.0`: for the log line of the join.
    pub client: String,
    pub auto_subscribe: bool,
    pub adaptive_stream: bool,
    /// The client resumes the session of this participant sid.
    pub reconnect: Option<String>,
    /// V1: tracks announced together with the join.
    pub add_tracks: Vec<proto::AddTrackRequest>,
    /// V1: the offer sent together with the join.
    pub publisher_offer: Option<proto::SessionDescription>,
    pub sync_state: Option<proto::SyncState>,
}

/// One WebSocket. Not the participant: a resumed session goes on with a new socket, and what arrives late on the old one
/// must reach nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u64);

/// What goes to the client's WebSocket.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// Shared by all who are told the same.
    Message(Arc<proto::SignalResponse>),
    /// Close the socket with this code. 1000 only right after a `leave` message; anything else makes the client resume at once.
    Close(u16),
}
