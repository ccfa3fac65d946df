//! What is played: the scenarios, the people in the room, the stages that are measured.

mod afresh;
mod population;
mod run;
pub mod scoreboard;
mod stage;
mod sweep;

pub use afresh::{Afresh, Restart};
pub use population::{Population, Shape};
pub use run::{Run, RunError};
pub use stage::Plan;

use serde::{Deserialize, Serialize};

/// The scenarios of the scoreboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Scenario {
    /// Audio: a few speakers, many listeners
    A,
    /// Video: one publisher, many viewers
    V,
    /// Simulcast: one publisher of three layers, viewers divided over them who change layer every 5 s
    S,
    /// Meeting: everybody sends microphone and simulcast camera to everybody, and sees one large
    M,
    /// Churn: video while people come and go, and what stays behind
    C,
    /// Latency: video at half of what the server can do
    L,
    /// Loss: video over a network that drops packets
    X,
    /// Relaying by a TURN server: has a command of its own
    #[value(skip)]
    T,
}

impl Scenario {
    pub fn title(self) -> &'static str {
        match self {
            Scenario::A => "audio",
            Scenario::V => "video",
            Scenario::S => "simulcast",
            Scenario::M => "meeting",
            Scenario::C => "churn",
            Scenario::L => "latency",
            Scenario::X => "loss",
            Scenario::T => "relay",
        }
    }

    /// How many publish, when the command line does not say.
    pub fn publishers(self) -> usize {
        match self {
            Scenario::A => 10,
            Scenario::M => 0,
            _ => 1,
        }
    }

    /// How many receive, when the command line does not say.
    pub fn size(self) -> usize {
        match self {
            Scenario::A => 100,
            Scenario::M => 10,
            _ => 50,
        }
    }

    /// How long to measure, when the command line does not say.
    pub fn seconds(self) -> f64 {
        if self == Scenario::C { 60.0 } else { 10.0 }
    }

    /// Share of packets that the network drops, when the command line does not say.
    pub fn loss(self) -> f32 {
        if self == Scenario::X { 0.02 } else { 0.0 }
    }
}
