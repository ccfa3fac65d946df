//! The stages of a run: so many allocations, then so much traffic through them.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::allocation::Failure;
use super::{Direction, Peer, Ramp, Settings, Workers};
use crate::machine::Machine;
use crate::report::{Allocations, Report, Stage, Usages};
use crate::scenario::Scenario;
use crate::server::process::{Process, Usage};

/// What to play.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Allocations, a stage for each.
    pub sizes: Vec<usize>,
    /// Of one measurement.
    pub duration: Duration,
    /// Between the first packet and the measurement.
    pub settle: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("cannot read the server's usage: {0}; has it ended?")]
    Usage(io::Error),
    #[error("no allocation came about: {0}")]
    NoAllocation(String),
}

/// Plays all stages, and gives each to `each` as it is done. `process` is the server's.
pub fn play(
    name: &str,
    plan: &Plan,
    settings: &Settings,
    process: Option<&Process>,
    mut each: impl FnMut(&Stage),
) -> Result<Report, TurnError> {
    let usage = || process.map(Process::usage).transpose().map_err(TurnError::Usage);
    let own = Process::this().map_err(TurnError::Usage)?;
    let idle = usage()?.unwrap_or_default();
    let workers = Workers::start(settings)?;
    let mut stages = Vec::new();
    for size in &plan.sizes {
        let bar = ProgressBar::new_spinner().with_message(format!("allocating {size}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        let before = usage()?;
        let known = stages.last().map_or(0, |stage: &Stage| stage.participants);
        let ramp = workers.resize(*size)?;
        let allocations = allocations(&ramp, known, before.zip(usage()?));
        if ramp.ready == 0 {
            return Err(TurnError::NoAllocation(explain(&ramp.failures)));
        }
        let joined = workers.take_window()?;

        workers.set_traffic(true);
        bar.set_message("measuring");
        std::thread::sleep(plan.settle);
        let own_before = own.usage().map_err(TurnError::Usage)?;
        workers.take_window()?;
        let (before, begun) = (usage()?, Instant::now());
        std::thread::sleep(plan.duration);
        let window = workers.take_window()?;
        let (after, elapsed) = (usage()?, begun.elapsed());
        workers.set_traffic(false);
        bar.finish_and_clear();

        let usages = Usages {
            server: before.zip(after).map(|(before, after)| (idle, before, after)),
            generator: (own_before, own.usage().map_err(TurnError::Usage)?),
            generator_cores: settings.cores.len(),
        };
        let stage = Stage::new(*size, ramp.ready, elapsed, &joined, &window, &usages);
        let stage = Stage { allocations: Some(allocations), ..stage };
        each(&stage);
        stages.push(stage);
    }
    let leaving = ProgressBar::new_spinner().with_message("giving everything back");
    workers.resize(0)?;
    leaving.finish_and_clear();
    Ok(Report {
        server: name.to_owned(),
        scenario: Scenario::T,
        suite: describe(settings),
        machine: Machine::this(),
        seed: settings.seed,
        pacing: if settings.burst > 1 { "burst".into() } else { "paced".into() },
        publishers: 0,
        stages,
        knee: None,
    })
}

/// How the server took `ramp`, which began with `known` allocations.
fn allocations(ramp: &Ramp, known: usize, usage: Option<(Usage, Usage)>) -> Allocations {
    let new = ramp.ready.saturating_sub(known);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / new.max(1) as f64;
    let cpu = usage.filter(|_| new > 0).map(|(before, after)| each(after.cpu().saturating_sub(before.cpu())));
    Allocations {
        ready: ramp.ready as u64,
        per_s: new as f64 / ramp.took.as_secs_f64().max(1e-6),
        cpu_us: cpu,
        failures: ramp.failures.iter().map(|(failure, count)| (sentence(*failure), *count)).collect(),
    }
}

/// What goes through, for the head of a report.
fn describe(settings: &Settings) -> String {
    let Settings { payload, rate, burst, peer, direction, .. } = settings;
    let way = match (peer, direction) {
        (Peer::Pair, _) => "client to client".into(),
        (Peer::Address(address), _) => format!("up to {address}, counted as sent"),
        (Peer::Sink, Direction::Up) => "up".into(),
        (Peer::Sink, Direction::Down) => "down".into(),
        (Peer::Sink, Direction::Both) => "each way".to_owned(),
    };
    format!("{rate} packets of {payload} bytes a second, {burst} at once, {way}")
}

fn sentence(failure: Failure) -> String {
    match failure {
        Failure::Refused(401) => "401 unauthorized".into(),
        Failure::Refused(403) => "403 forbidden".into(),
        Failure::Refused(486) => "486 quota reached".into(),
        Failure::Refused(508) => "508 no capacity".into(),
        Failure::Refused(code) => format!("error {code}"),
        Failure::Silence => "no answer".into(),
        Failure::Answer => "an answer that cannot be used, or no socket".into(),
    }
}

fn explain(failures: &BTreeMap<Failure, u64>) -> String {
    let Some((failure, _)) = failures.iter().max_by_key(|(_, count)| **count) else { return "nobody asked".into() };
    let cure = match failure {
        Failure::Refused(401) => "; does the server share the secret given by --secret?",
        Failure::Refused(403) => "; may peers have this address (coturn: --allow-loopback-peers)?",
        Failure::Refused(486 | 508) => "; raise the server's quotas, or see --per-user",
        Failure::Silence => "; is it running, and is this its UDP address?",
        Failure::Refused(_) | Failure::Answer => "",
    };
    sentence(*failure) + cure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_counted_from_where_they_began() {
        let ramp = Ramp {
            ready: 300,
            failures: BTreeMap::from([(Failure::Refused(486), 2)]),
            took: Duration::from_millis(500),
        };
        let at = |ms| Usage { user: Duration::from_millis(ms), ..Usage::default() };
        let found = allocations(&ramp, 100, Some((at(10), at(30))));
        assert_eq!((found.ready, found.per_s, found.cpu_us), (300, 400.0, Some(100.0)));
        assert_eq!(found.failures, BTreeMap::from([("486 quota reached".into(), 2)]));
        assert_eq!(allocations(&ramp, 300, Some((at(10), at(30)))).cpu_us, None, "nothing to divide by");
    }

    #[test]
    fn the_commonest_failure_is_explained() {
        let failures = BTreeMap::from([(Failure::Silence, 1), (Failure::Refused(401), 5)]);
        assert!(explain(&failures).contains("--secret"));
    }
}
