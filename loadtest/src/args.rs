//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::media::Pacing;
use crate::report::limits::Limits;
use crate::scenario::scoreboard::Entry;
use crate::scenario::{Plan, Scenario};
use crate::server::parlour;
use crate::turn::args::TurnArgs;

/// Load generator for WebRTC SFUs: real ICE and DTLS for each client, then sinks light enough that the server is what fills up.
///
/// Starts the server on a core of its own (--spawn) or uses one that runs (--url). Prints a table; writes JSON and a page with plots.
#[derive(Debug, Parser)]
#[command(name = "parlour-loadtest", version, max_term_width = 120)]
#[command(after_help = "Examples:
  parlour-loadtest run V --spawn parlour --sizes 50,100,200
  parlour-loadtest run A --spawn janus --sweep 2000 --html audio.html
  parlour-loadtest run M --url ws://127.0.0.1:8080 --key mykey --secret … --pid 1234 --sizes 10
  parlour-loadtest run V --spawn parlour --sizes 200 --max-cpu-us-per-packet 2.2 --max-p99-ms 1
  parlour-loadtest scoreboard --trials 5
  parlour-loadtest turn --spawn coturn --sizes 100,1000 --rate 50 --burst 5
  parlour-loadtest turn --server 127.0.0.1:3478 --secret … --pid 1234 --peer pair --max-loss 0")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Play one scenario against one server
    Run(Box<RunArgs>),
    /// Play scenarios against several servers in turns, and write a Markdown table
    Scoreboard(Box<ScoreboardArgs>),
    /// Fill a TURN server with allocations and relay through them
    ///
    /// Speaks the standard (RFC 8656) by UDP, with credentials by time. "Join" is the time from the first request until the
    /// channel is bound: three round trips and a challenge. Delay is that of the whole way through the server.
    Turn(Box<TurnArgs>),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// What to play
    #[arg(value_enum, ignore_case = true)]
    pub scenario: Scenario,
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub limits: Limits,
}

#[derive(Debug, Args)]
pub struct ScoreboardArgs {
    /// What to play, and how large
    #[arg(long, value_delimiter = ',', default_value = "V=100,A=50,M=20", value_name = "SCENARIO=N,…")]
    pub entries: Vec<Entry>,
    /// Whom to test; the first is what the others are compared with
    #[arg(long, value_enum, value_delimiter = ',', default_value = "parlour,janus")]
    pub servers: Vec<Spawn>,
    /// How often each server plays each scenario
    #[arg(long, default_value_t = 5)]
    pub trials: usize,
    /// Write all trials as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the tables here as well
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// The program of Parlour
    #[arg(long, value_name = "FILE")]
    pub parlour_binary: Option<PathBuf>,
    /// The program of Janus
    #[arg(long, value_name = "FILE")]
    pub janus_binary: Option<PathBuf>,
    /// The core of the server; the generator takes the others
    #[arg(long, default_value_t = 0, value_name = "CORE")]
    pub server_core: usize,
    /// Event loops of Janus (its `event_loops`); 0 = a thread for each connection, its default
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub janus_loops: usize,
    #[command(flatten)]
    pub load: Load,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// LiveKit signalling: Parlour, or LiveKit
    Livekit,
    /// Janus with VideoRoom, over its WebSocket transport
    Janus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Spawn {
    Parlour,
    Janus,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub struct Target {
    /// Start this server for the run, on a core of its own
    #[arg(long, value_enum, conflicts_with_all = ["url", "pid"], required_unless_present = "url")]
    pub spawn: Option<Spawn>,
    /// Use the server that runs here, e.g. ws://127.0.0.1:8080
    #[arg(long)]
    pub url: Option<String>,
    /// What the server at --url speaks
    #[arg(long, value_enum, default_value = "livekit")]
    pub driver: Kind,
    /// LiveKit API key of the server at --url
    #[arg(long, default_value = parlour::KEY)]
    pub key: String,
    /// The key's secret
    #[arg(long, default_value = parlour::SECRET, hide_default_value = true)]
    pub secret: String,
    /// Process of the server at --url, whose CPU time and memory are reported
    #[arg(long)]
    pub pid: Option<u32>,
    /// The address of the clients' sockets; found out by default
    #[arg(long, value_name = "IP")]
    pub local_address: Option<IpAddr>,
    /// The program to start instead of the one beside this program, or in the path
    #[arg(long, value_name = "FILE")]
    pub server_binary: Option<PathBuf>,
    /// The core of the server that is started; the generator takes the others
    #[arg(long, default_value_t = 0, value_name = "CORE")]
    pub server_core: usize,
    /// Event loops of Janus (its `event_loops`); 0 = a thread for each connection, its default
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub janus_loops: usize,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load")]
pub struct Load {
    /// How many receive, or take part in the meeting: a stage for each number
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub sizes: Vec<usize>,
    /// Look for the largest number that the server bears (loss ≤ 0.1 %, p99 ≤ 5 ms), up to this; starts at the first of --sizes
    ///
    /// Overload lasts: receivers ask for what they lost. After a size that was too much everybody leaves and the next one starts
    /// afresh: with --spawn in a new server (also of --server-binary), with --url once the server's process is idle (--pid), or,
    /// where that is not known, after five seconds.
    #[arg(long, value_name = "N")]
    pub sweep: Option<usize>,
    /// How many publish; scenario A has 10 by default, others 1
    #[arg(long, value_name = "N")]
    pub publishers: Option<usize>,
    /// Length of a measurement, s; 60 in scenario C, 10 in others
    #[arg(long, value_name = "s")]
    pub duration: Option<f64>,
    /// Wait between the last join and the measurement, s
    #[arg(long, default_value_t = 2.0, value_name = "s")]
    pub settle: f64,
    /// Joins per second while the room fills
    #[arg(long, default_value_t = 50.0, value_name = "N")]
    pub join_rate: f64,
    /// Joins, and leaves, per second in scenario C
    #[arg(long, default_value_t = 20.0, value_name = "N")]
    pub churn_rate: f64,
    /// How the packets of a video frame leave: all at once, or spread as libwebrtc does
    #[arg(long, value_enum, default_value = "burst")]
    pub pacing: PacingArg,
    /// Percent of the packets to receivers that the network drops; 2 in scenario X
    #[arg(long, value_name = "%")]
    pub loss_down: Option<f32>,
    /// Percent of the packets from publishers that the network drops; 2 in scenario X
    #[arg(long, value_name = "%")]
    pub loss_up: Option<f32>,
    /// Count the server's system calls after each stage, with perf or strace
    #[arg(long)]
    pub syscalls: bool,
    /// Makes media and losses; the same seed makes the same
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PacingArg {
    Burst,
    Paced,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Write the run as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the run as a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Compare with the JSON of an older run
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
}

impl ScoreboardArgs {
    /// One of the servers, to be started.
    pub fn target(&self, server: Spawn) -> Target {
        let binary = match server {
            Spawn::Parlour => &self.parlour_binary,
            Spawn::Janus => &self.janus_binary,
        };
        Target {
            spawn: Some(server),
            url: None,
            driver: Kind::Livekit,
            key: parlour::KEY.into(),
            secret: parlour::SECRET.into(),
            pid: None,
            local_address: None,
            server_binary: binary.clone(),
            server_core: self.server_core,
            janus_loops: self.janus_loops,
        }
    }
}

impl Load {
    pub fn plan(&self, scenario: Scenario) -> Plan {
        Plan {
            scenario,
            publishers: self.publishers.filter(|_| scenario != Scenario::M).unwrap_or(scenario.publishers()),
            sizes: if self.sizes.is_empty() { vec![scenario.size()] } else { self.sizes.clone() },
            sweep: self.sweep,
            duration: seconds(self.duration.unwrap_or(scenario.seconds())),
            settle: seconds(self.settle),
            churn_rate: self.churn_rate.max(0.1),
            syscalls: self.syscalls,
        }
    }

    pub fn pacing(&self) -> Pacing {
        match self.pacing {
            PacingArg::Burst => Pacing::Burst,
            PacingArg::Paced => Pacing::Paced,
        }
    }

    /// Shares down and up.
    pub fn losses(&self, scenario: Scenario) -> (f32, f32) {
        let share = |percent: Option<f32>| percent.map_or(scenario.loss(), |percent| (percent / 100.0).clamp(0.0, 1.0));
        (share(self.loss_down), share(self.loss_up))
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn run(arguments: &str) -> Result<Box<RunArgs>, clap::Error> {
        let line = format!("parlour-loadtest run {arguments}");
        match Cli::try_parse_from(line.split(' '))?.command {
            Command::Run(run) => Ok(run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let args = run("v --spawn parlour --sizes 5,10 --loss-down 3").unwrap();
        let plan = args.load.plan(args.scenario);
        assert_eq!((plan.scenario, plan.sizes, plan.publishers), (Scenario::V, vec![5, 10], 1));
        assert_eq!(args.load.losses(Scenario::V), (0.03, 0.0));
        assert_eq!(args.load.losses(Scenario::X), (0.03, 0.02));
        assert!(run("v").unwrap_err().to_string().contains("--spawn"), "a server must be named");
        assert!(run("v --url ws://x --spawn janus").is_err());
        assert_eq!(run("m --url ws://x").unwrap().load.plan(Scenario::M).sizes, [10]);
    }
}
