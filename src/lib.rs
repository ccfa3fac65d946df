//! Parlour: calls for Matrix rooms, in one binary beside a homeserver.
//!
//! ```text
//!            browser, Element Call, any LiveKit SDK
//!      HTTPS + WebSocket │                 │ UDP / TCP: ICE, DTLS, RTP
//!                        ▼                 ▼
//!   http ── JoinRequest ──▶ ┌──────────── net ────────────┐
//!    │      SignalRequest   │  worker threads, each with  │
//!    │ ◀── SignalResponse ─ │  livekit ⇄ sfu ⇄ transport  │
//!    ▼                      └─────────────────────────────┘
//!   matrix ── who is who, who is in which room ──▶ homeservers
//! ```
//!
//! Five ways through it:
//!
//! - **A join**: [`http`] asks [`matrix`] who it is and whether the room has them ([`matrix::Admission`]), and hands out an
//!   access token; the WebSocket brings it back, and [`net::Node::join`] takes it to the worker that has the room, where a
//!   [`livekit`] session puts a participant into it.
//! - **An offer**: the session gives it to the room; [`transport`] reads and answers the SDP, the room pairs its sections
//!   with tracks and subscriptions (`sfu/publication.rs`, `sfu/subscription.rs`).
//! - **A packet**: [`net`] reads a batch and hands other workers what is theirs, [`sfu::Sfu::receive`] finds the connection,
//!   [`transport`] decrypts, `sfu/forwarding.rs` puts it into its track's cache; then `sfu/fan_out.rs` goes from subscriber
//!   to subscriber, each one's forwarder rewrites what came, its connection encrypts, [`net`] sends.
//! - **A relayed packet**: [`net`] tells TURN from media by the first bytes and gives it to the worker's [`turn::Turn`]
//!   (`net/relay.rs`), which knows the allocation and what its client may reach: a foreign peer leaves by a socket of its own,
//!   our media and other relayed addresses are reached within the process (`net/wire.rs`).
//! - **A kick**: the homeserver tells of it, `http/appservice.rs` has it on disk before it says thanks
//!   ([`matrix::Transactions`]), [`matrix::RoomWatch`] voids the user's tokens and [`net::Node::remove`] ends the sessions.
//!
//! The modules, from the wire inwards:
//!
//! - [`config`]: one typed config; every default with its reason.
//! - [`http`]: routes, WebSockets, health, metrics.
//! - [`matrix`]: the homeserver side: who somebody is, which rooms they are in, and so who may be in which call.
//! - [`net`]: sockets, the worker threads, their handle.
//! - [`livekit`]: LiveKit signalling as a state machine; access tokens. Pure.
//! - [`sfu`]: rooms, participants, tracks, forwarding. Pure.
//! - [`transport`]: one peer connection: SDP, ICE, DTLS, RTP, data channels. Pure.
//! - [`rtp`]: RTP and RTCP packets, codec payload descriptors. Pure.
//! - [`turn`]: STUN and TURN for clients behind strict NATs: allocations, permissions, channels, peer policy, quotas. Pure.
//! - [`store`]: what outlives a restart, in one file.
//! - [`focus`]: calls of the VoIP module (`m.call.*`) with a Matrix user of ours, as a state machine. Pure. No bot drives it
//!   yet.
//! - [`mixer`]: everybody else's audio as one stream, for callers who can take no more. Pure. No room feeds it yet.
//! - [`metrics`]: what is counted.
//! - [`rate_limit`]: how often somebody may ask.
//! - [`subscriber`]: whom an address stands for. Pure.
//! - [`serve`]: starts and ends all of it.
//! - [`operator`]: asks a running server, from the command line.
//!
//! "Pure" means: no runtime, no sockets, no clock, no randomness; time and seeds come in as arguments, so that whole calls
//! run in virtual time under test. `tests/house.rs` holds the modules to it.

pub mod config;
pub mod focus;
pub mod http;
pub mod livekit;
pub mod matrix;
pub mod metrics;
pub mod mixer;
pub mod net;
pub mod operator;
pub mod rate_limit;
pub mod rtp;
pub mod serve;
pub mod sfu;
pub mod store;
pub mod subscriber;
pub mod transport;
pub mod turn;
