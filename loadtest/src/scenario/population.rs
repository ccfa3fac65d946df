//! The people in the room: who publishes, who receives, and how they come and go.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use indicatif::ProgressBar;
use tokio::time::Instant;

use super::Scenario;
use crate::driver::{Ask, Driver, JoinError, JoinSpec, Publish, Session};
use crate::engine::Engine;
use crate::sink::Window;

/// Joins under way at once. More would measure the queue in front of the server.
const JOINS_AT_ONCE: usize = 32;

/// Who is in the room.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub scenario: Scenario,
    pub publishers: usize,
    /// Per second.
    pub join_rate: f64,
    pub seed: u64,
}

pub struct Population {
    shape: Shape,
    driver: Driver,
    engine: Engine,
    publishers: Vec<Session>,
    /// Those whose number is varied: receivers, or in a meeting everybody. The longest in is in front.
    receivers: VecDeque<Session>,
    /// Never reused, so that identities are not.
    next: usize,
    /// The SRTP suite that was agreed on.
    pub suite: &'static str,
}

impl Population {
    pub fn new(shape: Shape, driver: Driver, engine: Engine) -> Population {
        Population { shape, driver, engine, publishers: Vec::new(), receivers: VecDeque::new(), next: 0, suite: "none" }
    }

    /// Whoever joins from now on joins there.
    pub fn move_to(&mut self, driver: Driver) {
        self.driver = driver;
    }

    /// Everybody.
    pub fn len(&self) -> usize {
        self.publishers.len() + self.receivers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The publishers come first; in a meeting there are none besides those who also receive.
    pub async fn start(&mut self) -> Result<(), JoinError> {
        for index in 0..self.shape.publishers {
            let publish = match self.shape.scenario {
                Scenario::A => Publish::Microphone,
                Scenario::S => Publish::Camera { simulcast: true },
                _ => Publish::Camera { simulcast: false },
            };
            let spec = JoinSpec {
                identity: format!("publisher-{index}"),
                publish: vec![publish],
                // Publishers of a broadcast do not watch each other.
                subscribe: false,
                wants_video: false,
                adaptive: false,
                seed: self.shape.seed.wrapping_add(index as u64),
            };
            let session = self.driver.join(&self.engine, spec).await?;
            self.suite = session.suite;
            self.publishers.push(session);
        }
        Ok(())
    }

    fn receiver(&mut self) -> JoinSpec {
        let index = self.next;
        self.next += 1;
        let scenario = self.shape.scenario;
        let meeting = scenario == Scenario::M;
        JoinSpec {
            identity: format!("{}-{index}", if meeting { "participant" } else { "receiver" }),
            publish: if meeting { vec![Publish::Microphone, Publish::Camera { simulcast: true }] } else { Vec::new() },
            subscribe: true,
            wants_video: scenario != Scenario::A,
            adaptive: matches!(scenario, Scenario::M | Scenario::S),
            seed: self.shape.seed.wrapping_add(1000 + index as u64),
        }
    }

    /// Lets people join, or leave, until so many receive.
    pub async fn resize(&mut self, size: usize, progress: &ProgressBar) -> Result<(), JoinError> {
        while self.receivers.len() > size {
            if let Some(session) = self.receivers.pop_back() {
                session.leave().await;
                progress.inc(1);
            }
        }
        let mut coming = size - self.receivers.len();
        let mut joins = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / self.shape.join_rate));
        while coming > 0 || !joins.is_empty() {
            tokio::select! {
                _ = ticks.tick(), if coming > 0 && joins.len() < JOINS_AT_ONCE => {
                    coming -= 1;
                    let spec = self.receiver();
                    let (driver, engine) = (self.driver.clone(), self.engine.clone());
                    joins.push(async move { driver.join(&engine, spec).await });
                }
                Some(joined) = joins.next() => {
                    self.add(joined?);
                    progress.inc(1);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, session: Session) {
        self.suite = session.suite;
        if self.shape.scenario == Scenario::M {
            self.enlarge(&session);
        }
        self.receivers.push_back(session);
    }

    /// In a meeting everybody sees one participant large: the one who came before, as if that one spoke.
    fn enlarge(&self, session: &Session) {
        if let Some(before) = self.receivers.back() {
            session.ask(Ask::Layer { publisher: before.identity.clone(), layer: 2 });
        }
        // The first came before nobody: it sees the second.
        if self.receivers.len() == 1 {
            self.receivers[0].ask(Ask::Layer { publisher: session.identity.clone(), layer: 2 });
        }
    }

    /// Simulcast: everybody takes the next layer.
    pub fn rotate_layers(&self, turn: usize) {
        for (index, session) in self.receivers.iter().enumerate() {
            let layer = ((index + turn) % 3) as u8;
            for publisher in &self.publishers {
                session.ask(Ask::Layer { publisher: publisher.identity.clone(), layer });
            }
        }
    }

    /// Churn: people leave and join at `rate` a second for `duration`. Gives the number of joins that did not work, and what
    /// was counted meanwhile.
    pub async fn churn(&mut self, rate: f64, duration: Duration, progress: &ProgressBar) -> (u64, Window) {
        let mut failures = 0;
        let mut joins = FuturesUnordered::new();
        let mut leaves = FuturesUnordered::new();
        let end = Instant::now() + duration;
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        let begun = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick(), if Instant::now() < end => {
                    let spec = self.receiver();
                    let (driver, engine) = (self.driver.clone(), self.engine.clone());
                    joins.push(async move { driver.join(&engine, spec).await });
                    if let Some(session) = self.receivers.pop_front() {
                        leaves.push(session.leave());
                    }
                    progress.set_position(begun.elapsed().as_millis() as u64);
                }
                Some(joined) = joins.next() => match joined {
                    Ok(session) => self.add(session),
                    Err(error) => {
                        progress.println(error.to_string());
                        failures += 1;
                    }
                },
                Some(()) = leaves.next() => {}
                else => break,
            }
        }
        (failures, self.engine.take_window().await)
    }

    pub async fn leave(&mut self) {
        let mut leaves: FuturesUnordered<_> =
            self.receivers.drain(..).chain(self.publishers.drain(..)).map(Session::leave).collect();
        while leaves.next().await.is_some() {}
    }
}
