//! What a run found: as a table, as JSON, as a page with plots; compared with another run, or with limits.

pub mod compare;
pub mod html;
pub mod limits;
pub mod plot;
mod stage;
pub mod table;

pub use stage::{Allocations, Churn, Cpu, Quantiles, Stage, Usages};

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::scenario::Scenario;

/// A whole run. What is written with `--json`, and read by `--compare`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// What was tested, e.g. `parlour`, `janus`, or its URL.
    pub server: String,
    pub scenario: Scenario,
    /// The SRTP suite that both sides agreed on; of a TURN server, what went through it.
    pub suite: String,
    pub machine: Machine,
    pub seed: u64,
    /// How the packets of a frame leave the publisher.
    pub pacing: String,
    pub publishers: usize,
    pub stages: Vec<Stage>,
    /// The largest size that the server bore, of a sweep.
    pub knee: Option<usize>,
}

impl Report {
    pub fn from_json(text: &str) -> Result<Report, String> {
        serde_json::from_str(text).map_err(|error| format!("no report of this program: {error}"))
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data")
    }
}
