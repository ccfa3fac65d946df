//! Load generator for SFUs.
//!
//! ```text
//! args ─▶ command ─▶ scenario ─▶ driver ── signalling ──▶ the server under test
//!            │           │          │                      ▲        │
//!            │           │          ▼                      │        │ CPU, memory
//!            │           │       engine ── ICE, DTLS, SRTP ┘        ▼
//!            │           └─◀─ Window ◀┘                      server/process
//!            └─▶ report
//! ```
//!
//! - [`scenario`]: who is in the room, and what is measured. Start here.
//! - [`driver`]: how a client gets in: LiveKit's signalling, Janus' VideoRoom.
//! - [`engine`]: all clients' sockets. Real handshakes, then light sinks: they count by the clear headers and open one packet
//!   in a hundred.
//! - [`media`]: what publishers send, with the time in it. [`sink`]: what receivers count. [`wire`]: the formats.
//! - [`server`]: starts Parlour or Janus on a core of its own; [`server::process`] reads what they cost.
//! - [`turn`]: another kind of load: allocations of a TURN server, and data through them.
//! - [`report`]: table, JSON, a page with plots, comparison, limits.

pub mod args;
pub mod command;
pub mod driver;
pub mod engine;
pub mod machine;
pub mod media;
pub mod report;
pub mod scenario;
pub mod server;
pub mod sink;
pub mod turn;
pub mod wire;
