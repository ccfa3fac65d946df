//! The LiveKit front door: signalling messages in, messages and room commands out. No sockets, no clocks.
//!
//! ```text
//! http ── JoinRequest, SignalRequest ──▶ Signalling ──▶ Session ──▶ Rooms (sfu)
//! http ◀── Outgoing (SignalResponse) ─── Signalling ◀── Session ◀── Event (sfu)
//! ```
//!
//! - [`signalling`]: all sessions of one worker, their sockets and timers. Start here.
//! - [`session`]: one participant's conversation, from `join` to `leave`; its requests in `requests`, `publication` and
//!   `subscription`, what it hears in `events`.
//! - [`dialect`]: everything in which v0 and v1 differ.
//! - [`translate`]: the rooms' plain data ↔ protobuf.
//! - [`data`]: data packets, from one participant's data channel to the others'.
//! - [`ice_servers`]: our TURN server, as clients are told of it.
//! - [`wire`]: bytes ↔ messages, with the size limits.
//! - [`access_token`]: claims and signatures.

pub mod access_token;
pub mod data;
mod dialect;
mod dropped;
mod events;
pub mod ice_servers;
mod join;
mod publication;
mod requests;
mod rooms;
mod session;
mod signalling;
mod subscription;
#[cfg(test)]
mod tests;
mod translate;
mod wire;

pub use access_token::*;
pub use dialect::Dialect;
pub use dropped::{Dropped, DroppedCounts};
pub use ice_servers::IceServers;
pub use join::{JoinRequest, Outgoing, SocketId};
pub use rooms::Rooms;
pub use signalling::Signalling;
pub use translate::{participant, room, track};
pub use wire::*;
