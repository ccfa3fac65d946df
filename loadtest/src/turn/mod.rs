//! Load for TURN servers (RFC 8656), ours and coturn: allocations by UDP, and channel data through them.
//!
//! ```text
//!            allocation                     relayed address
//! [`allocation`] ── channel data ──▶ server ── datagrams ──▶ peer: a socket of ours (sink), another allocation (pair),
//!      ▲                               │                     or an address of somebody else's
//!      └────────── channel data ◀──────┘ ◀─── datagrams ────┘
//! ```
//!
//! - [`args`]: the command line. - [`run`]: the stages, and what they report.
//! - [`credentials`]: user names by time (the TURN REST API). - [`message`]: requests and answers.
//! - [`allocation`]: one client, from its first request to its last. - [`flow`]: numbered packets with the time in them.
//! - [`worker`]: a thread with the sockets of many, which are spread over [`workers`].
//!
//! It speaks the standard only: nothing here knows which server it talks to.

mod allocation;
pub mod args;
pub mod credentials;
mod flow;
mod message;
mod run;
mod worker;
mod workers;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use run::{Plan, TurnError, play};
pub use workers::{Ramp, Workers};

use crate::machine::Cores;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A socket of the generator's, one for each of its threads.
    Sink,
    /// The relayed address of another allocation: two clients who both need the server.
    Pair,
    /// Somebody else's address. Nobody counts what arrives there: packets are counted as they are sent.
    Address(SocketAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// From the client
    Up,
    /// To the client
    Down,
    Both,
}

impl Direction {
    pub fn up(self) -> bool {
        self != Direction::Down
    }

    pub fn down(self) -> bool {
        self != Direction::Up
    }
}

/// What the whole run has in common.
#[derive(Debug, Clone)]
pub struct Settings {
    pub server: SocketAddr,
    /// The addresses of the clients' sockets, in turns; the sinks have the first. Empty: the one that leads to the server.
    pub locals: Vec<IpAddr>,
    /// Signs credentials.
    pub secret: String,
    /// User names begin with it.
    pub user: String,
    /// Allocations under one user name.
    pub per_user: usize,
    pub peer: Peer,
    pub direction: Direction,
    /// Bytes of data in a packet, without TURN's own.
    pub payload: usize,
    /// Packets per second, of each allocation and direction.
    pub rate: f64,
    /// Packets that leave together.
    pub burst: usize,
    /// Allocations that are asked for at once, by each thread.
    pub at_once: usize,
    pub seed: u64,
    /// Threads, and where they run.
    pub threads: usize,
    pub cores: Cores,
}

impl Settings {
    /// Between two bursts of one allocation.
    fn period(&self) -> Duration {
        Duration::from_secs_f64(self.burst as f64 / self.rate)
    }
}
