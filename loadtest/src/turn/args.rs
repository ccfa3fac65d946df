//! The command line of `parlour-loadtest turn`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::flow::LEAST_BYTES;
use super::{Direction, Peer, Plan, Settings};
use crate::args::Output;
use crate::machine::Cores;
use crate::report::limits::Limits;

/// What an Ethernet frame carries, without the headers of IPv4, UDP and channel data.
const MOST_BYTES: i64 = 1468;

#[derive(Debug, Args)]
pub struct TurnArgs {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub limits: Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Relay {
    Parlour,
    Coturn,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub struct Target {
    /// Use the server that runs here, e.g. 127.0.0.1:3478; give its --secret
    #[arg(long, value_name = "IP:PORT", required_unless_present = "spawn", requires = "secret")]
    pub server: Option<SocketAddr>,
    /// Start this server for the run, on a core of its own. Parlour relays to no socket of its own machine: take `--peer pair`
    #[arg(long, value_enum, conflicts_with_all = ["server", "pid", "secret"])]
    pub spawn: Option<Relay>,
    /// The secret that the server shares with whoever gives credentials (TURN REST API; coturn's --static-auth-secret)
    #[arg(long)]
    pub secret: Option<String>,
    /// Process of the server at --server, whose CPU time and memory are reported
    #[arg(long)]
    pub pid: Option<u32>,
    /// The program to start instead of the one beside this program, or in the path
    #[arg(long, value_name = "FILE", requires = "spawn")]
    pub server_binary: Option<PathBuf>,
    /// The core of the server that is started; the generator takes the others
    #[arg(long, default_value_t = 0, value_name = "CORE")]
    pub server_core: usize,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load")]
pub struct Load {
    /// Allocations: a stage for each number, reached as fast as the server answers
    #[arg(long, value_delimiter = ',', default_value = "100", value_name = "N,…")]
    pub sizes: Vec<usize>,
    /// Who is at the other end: `sink`, a socket of the generator; `pair`, another allocation; or an address, e.g. where the
    /// server has its media: what arrives there is not counted, so it is sent up only
    #[arg(long, default_value = "sink", value_name = "PEER")]
    pub peer: PeerArg,
    /// Which way packets go
    #[arg(long, value_enum, default_value = "both")]
    pub direction: Direction,
    /// Bytes of data in a packet
    #[arg(long, default_value_t = 1000, value_name = "BYTES",
        value_parser = clap::value_parser!(u16).range(LEAST_BYTES as i64..=MOST_BYTES))]
    pub payload: u16,
    /// Packets per second of each allocation, each way
    #[arg(long, default_value_t = 50.0, value_name = "N")]
    pub rate: f64,
    /// Packets that leave together, as those of a video frame do (with UDP segmentation offload)
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=60))]
    pub burst: u8,
    /// Length of a measurement, s
    #[arg(long, default_value_t = 10.0, value_name = "s")]
    pub duration: f64,
    /// Wait between the first packet and the measurement, s
    #[arg(long, default_value_t = 1.0, value_name = "s")]
    pub settle: f64,
    /// Allocations under way at once, of each thread of the generator
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub at_once: usize,
    /// Allocations under one user name; raise the server's limits, or lower this
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub per_user: usize,
    /// User names are this with a number
    #[arg(long, default_value = "loadtest", value_name = "NAME")]
    pub user: String,
    /// Addresses of this machine that clients have, in turns; servers limit what one address may ask
    #[arg(long, value_delimiter = ',', value_name = "IP,…")]
    pub local_addresses: Vec<IpAddr>,
    /// Makes transaction ids; the same seed makes the same
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerArg(pub Peer);

impl std::str::FromStr for PeerArg {
    type Err = String;

    fn from_str(text: &str) -> Result<PeerArg, String> {
        match text {
            "sink" => Ok(PeerArg(Peer::Sink)),
            "pair" => Ok(PeerArg(Peer::Pair)),
            address => address
                .parse()
                .map(|address| PeerArg(Peer::Address(address)))
                .map_err(|_| format!("{text}: write sink, pair, or an address with a port")),
        }
    }
}

impl Load {
    pub fn settings(&self, server: SocketAddr, secret: &str, cores: &Cores) -> Settings {
        let Load { peer: PeerArg(peer), direction, .. } = *self;
        // Nobody sends from an address that is not ours.
        let direction = if matches!(peer, Peer::Address(_)) { Direction::Up } else { direction };
        Settings {
            server,
            locals: self.local_addresses.clone(),
            secret: secret.to_owned(),
            user: self.user.clone(),
            per_user: self.per_user.max(1),
            peer,
            // In a pair what one sends up comes down at the other.
            direction: if peer == Peer::Pair { Direction::Up } else { direction },
            payload: self.payload.into(),
            rate: self.rate.max(0.01),
            burst: self.burst.into(),
            at_once: self.at_once.max(1),
            seed: self.seed,
            threads: cores.len(),
            cores: cores.clone(),
        }
    }

    pub fn plan(&self) -> Plan {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO);
        Plan { sizes: self.sizes.clone(), duration: seconds(self.duration), settle: seconds(self.settle) }
    }
}
