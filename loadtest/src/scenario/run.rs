//! One run: the stages of a scenario, one after the other, against one server.

use std::io;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::afresh::{BLIND_WAIT, IDLE_TIMEOUT, until_idle};
use super::{Afresh, Plan, Population, Scenario, sweep};
use crate::driver::JoinError;
use crate::engine::Engine;
use crate::report;
use crate::report::{Churn, Stage};
use crate::server::process::{Process, Usage};
use crate::server::{StartError, syscalls};

/// How often viewers change their layer.
const LAYER_INTERVAL_S: u64 = 5;
/// After people have left, what a server frees with a timer is freed.
const AFTERMATH: Duration = Duration::from_secs(5);
/// How long system calls are counted.
const SYSCALL_COUNT: Duration = Duration::from_secs(2);
/// Length of the first measurement of the latency scenario, which finds out what half a load is.
const CALIBRATION: Duration = Duration::from_secs(4);
/// What half a load is: the server's threads share one core.
const HALF_LOAD_CORES: f64 = 0.5;
/// The cost of a core varies by as much between two measurements.
const NEAR_ENOUGH_CORES: f64 = 0.05;
const MOST_CALIBRATIONS: usize = 4;
/// A nearly idle server says too little to multiply by more.
const LARGEST_STEP: f64 = 8.0;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Join(#[from] JoinError),
    #[error("cannot read the server's usage: {0}; has it ended?")]
    Usage(io::Error),
    #[error("this needs the server's process: start the server with --spawn, or name its process with --pid")]
    NoProcess,
    #[error("cannot count system calls: {0}")]
    Syscalls(String),
    #[error("cannot start the server afresh: {0}")]
    Restart(StartError),
    #[error("the server is still busy {} s after everybody left", IDLE_TIMEOUT.as_secs())]
    Busy,
}

pub struct Run {
    pub plan: Plan,
    pub engine: Engine,
    pub population: Population,
    /// The server's.
    pub process: Option<Process>,
    pub own: Process,
    pub generator_cores: usize,
    /// How a sweep goes on after a size that was too much.
    pub afresh: Afresh,
    /// The server before anybody came.
    idle: Usage,
}

impl Run {
    pub fn new(
        plan: Plan,
        engine: Engine,
        population: Population,
        process: Option<Process>,
        generator_cores: usize,
    ) -> Result<Run, RunError> {
        let own = Process::this().map_err(RunError::Usage)?;
        let idle = process.as_ref().map(Process::usage).transpose().map_err(RunError::Usage)?.unwrap_or_default();
        Ok(Run { plan, engine, population, process, own, generator_cores, afresh: Afresh::Wait, idle })
    }

    /// Gives each stage to `each` as it is done. The result is the knee of a sweep.
    pub async fn play(&mut self, mut each: impl FnMut(&Stage)) -> Result<(Vec<Stage>, Option<usize>), RunError> {
        self.population.start().await?;
        let mut stages = Vec::new();
        let mut knee = None;
        if let Some(largest) = self.plan.sweep {
            knee = self.sweep(largest, &mut stages, &mut each).await?;
        } else {
            let sizes = match self.plan.scenario {
                Scenario::L => vec![self.half_load().await?],
                _ => self.plan.sizes.clone(),
            };
            for size in sizes {
                let stage =
                    if self.plan.scenario == Scenario::C { self.churn(size).await? } else { self.stage(size).await? };
                each(&stage);
                stages.push(stage);
            }
        }
        let leaving = spinner("leaving");
        self.population.leave().await;
        leaving.finish_and_clear();
        Ok((stages, knee))
    }

    /// Finds the largest size that the server bears, up to `largest`.
    async fn sweep(
        &mut self,
        largest: usize,
        stages: &mut Vec<Stage>,
        each: &mut impl FnMut(&Stage),
    ) -> Result<Option<usize>, RunError> {
        let first = self.plan.sizes.first().copied().unwrap_or(1);
        let mut search = sweep::Search::new(first, largest);
        while let Some(size) = search.next() {
            let borne = match self.stage(size).await {
                Ok(stage) => {
                    each(&stage);
                    let borne = sweep::bears(&stage);
                    stages.push(stage);
                    borne
                }
                // Once some are in, that no more get in is a way to be full.
                Err(RunError::Join(error)) if !stages.is_empty() => {
                    println!("size {size}: {error}");
                    false
                }
                Err(error) => return Err(error),
            };
            search.tell(size, borne);
            if !borne && search.next().is_some() {
                match self.start_afresh().await {
                    Ok(()) => {}
                    // What was found so far is true; what followed would not be.
                    Err(error @ (RunError::Busy | RunError::Join(_))) => {
                        println!("the search ends here: {error}");
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(search.knee())
    }

    /// Everybody leaves, and the publishers come again, to a server that has forgotten what was too much for it.
    async fn start_afresh(&mut self) -> Result<(), RunError> {
        match &mut self.afresh {
            Afresh::Restart(restart) => {
                let starting = spinner("starting the server afresh");
                // First the server ends: nobody has to say goodbye to one that has no time to listen.
                let (driver, process) = restart().map_err(RunError::Restart)?;
                self.population.leave().await;
                self.population.move_to(driver);
                self.idle = process.usage().map_err(RunError::Usage)?;
                self.process = Some(process);
                starting.finish_and_clear();
            }
            Afresh::Wait => {
                let leaving = spinner("leaving");
                self.population.leave().await;
                leaving.finish_and_clear();
                let longest = if self.process.is_some() { IDLE_TIMEOUT } else { BLIND_WAIT };
                let waiting = bar(longest.as_millis() as u64, "waiting until the server is idle");
                let idle = match &self.process {
                    Some(process) => until_idle(process, longest, &waiting).await.map_err(RunError::Usage)?,
                    None => {
                        tokio::time::sleep(longest).await;
                        true
                    }
                };
                waiting.finish_and_clear();
                if !idle {
                    return Err(RunError::Busy);
                }
            }
        }
        Ok(self.population.start().await?)
    }

    fn server_usage(&self) -> Result<Option<Usage>, RunError> {
        self.process.as_ref().map(Process::usage).transpose().map_err(RunError::Usage)
    }

    /// Brings the room to `size` people and measures.
    async fn stage(&mut self, size: usize) -> Result<Stage, RunError> {
        self.ramp(size).await?;
        let duration = self.plan.duration;
        let stage = self.measure(size, duration).await?;
        let syscalls_per_packet = if self.plan.syscalls { self.syscalls_per_packet().await? } else { None };
        Ok(Stage { syscalls_per_packet, ..stage })
    }

    async fn syscalls_per_packet(&mut self) -> Result<Option<f64>, RunError> {
        let Some(pid) = self.process.as_ref().and_then(Process::pid) else { return Err(RunError::NoProcess) };
        self.engine.take_window().await;
        let counted = tokio::task::spawn_blocking(move || syscalls::count(pid, SYSCALL_COUNT)).await;
        let window = self.engine.take_window().await;
        let count = counted.unwrap_or_else(|error| Err(error.to_string())).map_err(RunError::Syscalls)?;
        Ok((window.packets > 0).then(|| count as f64 / window.packets as f64))
    }

    async fn ramp(&mut self, size: usize) -> Result<(), RunError> {
        let change = self.population.len().abs_diff(size) as u64;
        let progress = bar(change, "joining");
        self.engine.take_window().await;
        let done = self.population.resize(size, &progress).await;
        progress.finish_and_clear();
        done?;
        if self.plan.scenario == Scenario::S {
            self.population.rotate_layers(0);
        }
        let settling = spinner("settling");
        tokio::time::sleep(self.plan.settle).await;
        settling.finish_and_clear();
        Ok(())
    }

    async fn measure(&mut self, size: usize, duration: Duration) -> Result<Stage, RunError> {
        let progress = bar(duration.as_millis() as u64, "measuring");
        let own_before = self.own.usage().map_err(RunError::Usage)?;
        let ramp = self.engine.take_window().await;
        let before = self.server_usage()?;
        let begun = Instant::now();
        let mut turn = 0;
        while begun.elapsed() < duration {
            let step = Duration::from_millis(200).min(duration.saturating_sub(begun.elapsed()));
            tokio::time::sleep(step).await;
            progress.set_position(begun.elapsed().as_millis() as u64);
            let turns = begun.elapsed().as_secs() / LAYER_INTERVAL_S;
            if self.plan.scenario == Scenario::S && turns > turn {
                turn = turns;
                self.population.rotate_layers(turn as usize);
            }
        }
        let elapsed = begun.elapsed();
        let window = self.engine.take_window().await;
        let after = self.server_usage()?;
        let own_after = self.own.usage().map_err(RunError::Usage)?;
        progress.finish_and_clear();
        let usages = report::Usages {
            server: before.zip(after).map(|(before, after)| (self.idle, before, after)),
            generator: (own_before, own_after),
            generator_cores: self.generator_cores,
        };
        Ok(Stage::new(size, self.population.len(), elapsed, &ramp, &window, &usages))
    }

    /// How many viewers make one core half busy. A packet costs less the more there are, so a guess from few is too low: it is
    /// tried, and corrected.
    async fn half_load(&mut self) -> Result<usize, RunError> {
        let mut size = self.plan.sizes.first().copied().unwrap_or(50);
        for _ in 0..MOST_CALIBRATIONS {
            self.ramp(size).await?;
            let busy = self.measure(size, CALIBRATION).await?.cpu.ok_or(RunError::NoProcess)?.busy;
            let better = size as f64 * (HALF_LOAD_CORES / busy.max(0.01)).min(LARGEST_STEP);
            size = (better.round() as usize).max(1);
            if (busy - HALF_LOAD_CORES).abs() <= NEAR_ENOUGH_CORES {
                break;
            }
        }
        Ok(size)
    }

    /// Video for `size` viewers while others come and go.
    async fn churn(&mut self, size: usize) -> Result<Stage, RunError> {
        self.ramp(size).await?;
        let before = self.server_usage()?;
        let own_before = self.own.usage().map_err(RunError::Usage)?;
        self.engine.take_window().await;
        let begun = Instant::now();
        let progress = bar(self.plan.duration.as_millis() as u64, "coming and going");
        let (failed, window) = self.population.churn(self.plan.churn_rate, self.plan.duration, &progress).await;
        progress.finish_and_clear();
        let elapsed = begun.elapsed();
        let after = self.server_usage()?;
        let own_after = self.own.usage().map_err(RunError::Usage)?;
        // Those who are there now are as many as before.
        let aftermath = spinner("waiting for what is freed late");
        tokio::time::sleep(AFTERMATH).await;
        aftermath.finish_and_clear();
        let end = self.server_usage()?;
        let usages = report::Usages {
            server: before.zip(after).map(|(before, after)| (self.idle, before, after)),
            generator: (own_before, own_after),
            generator_cores: self.generator_cores,
        };
        let stage = Stage::new(size, self.population.len(), elapsed, &window, &window, &usages);
        let churn = before.zip(end).map(|(before, end)| Churn {
            joins: stage.join.count,
            failed,
            rss_before: before.rss,
            rss_after: end.rss,
            open_files_before: before.open_files,
            open_files_after: end.open_files,
        });
        Ok(Stage { churn, ..stage })
    }
}

fn bar(length: u64, what: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg:>12} [{bar:40}] {percent:>3}%  {elapsed}").expect("a sound template");
    ProgressBar::new(length).with_style(style.progress_chars("=> ")).with_message(what)
}

fn spinner(what: &'static str) -> ProgressBar {
    ProgressBar::new_spinner().with_message(what)
}
