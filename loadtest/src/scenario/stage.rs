//! How long and how large.

use std::time::Duration;

use super::Scenario;

/// What to play.
#[derive(Debug, Clone)]
pub struct Plan {
    pub scenario: Scenario,
    pub publishers: usize,
    /// One stage each.
    pub sizes: Vec<usize>,
    /// Look for the largest size that the server bears, up to this.
    pub sweep: Option<usize>,
    /// Of one stage.
    pub duration: Duration,
    /// Between the last join and the measurement: estimators find their rate, first keyframes pass.
    pub settle: Duration,
    /// Joins, and leaves, per second.
    pub churn_rate: f64,
    /// Count the server's system calls after each stage.
    pub syscalls: bool,
}
