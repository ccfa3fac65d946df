//! The delayed leaves that clients have delegated to us, at work: from the SFU's presence to requests at homeservers.
//!
//! One task owns [`Delegations`], which decide; this file gives them the clock, the store and the network. A job is on disk
//! before its client hears that we have it, and a client hears so only after its homeserver has obeyed us once: from then on
//! it leaves its membership to us. Used by `http::token` and `http::homeserver_token`; fed by `serve`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::delayed_events::{DelayedEventError, DelayedEvents};
use super::delayed_leave::{Answer, Request};
use super::delegations::{Delegation, Delegations, Effect, Serial, TooMany};
use crate::metrics::Metrics;
use crate::net::Presence;
use crate::store::{Store, StoreError, Table};

/// Of the store. Key: JSON of room and identity.
const TABLE: &str = "delayed_leaves";

/// Element Call's shortest is 10 s. Below, a homeserver that takes a moment would throw people out of their calls, and
/// clients could make us ask without end.
pub const LEAST_DELAY: Duration = Duration::from_secs(5);

/// A handle; clones are the same. The task ends with the last one.
#[derive(Clone)]
pub struct DelayedLeaves {
    events: Arc<DelayedEvents>,
    metrics: Arc<Metrics>,
    /// Clients wait for answers to theirs, and the SFU bounds how many participants come and go.
    commands: mpsc::UnboundedSender<Command>,
}

/// Why a delayed leave is not taken over; its client must go on restarting it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DelegateError {
    #[error("the delay is shorter than {} seconds", LEAST_DELAY.as_secs())]
    TooShort,
    #[error("the delayed event is of another room")]
    WrongRoom,
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error(transparent)]
    Homeserver(DelayedEventError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the server is shutting down")]
    ShuttingDown,
}

enum Command {
    Delegate {
        delegation: Delegation,
        /// When the homeserver restarted the delay; `None`: it was too busy to.
        restarted_at: Option<Instant>,
        outcome: oneshot::Sender<Result<(), DelegateError>>,
    },
    NotStored(Serial),
    Presence(Presence),
    Answered(Serial, Answer),
}

impl DelayedLeaves {
    /// Takes up what is in the store. Within a tokio runtime. The error is a sentence for the operator.
    pub fn start(events: Arc<DelayedEvents>, store: &Store, metrics: Arc<Metrics>) -> Result<DelayedLeaves, String> {
        let table = store.table(TABLE);
        let kept = table.load().map_err(|error| format!("cannot read the delegated delayed leaves: {error}"))?;
        let (commands, received) = mpsc::unbounded_channel();
        let mut keeper = Keeper {
            delegations: Delegations::default(),
            events: events.clone(),
            table,
            metrics: metrics.clone(),
            commands: commands.downgrade(),
        };
        let now = Instant::now();
        for delegation in kept.into_values() {
            keeper.delegations.reload(now, delegation);
        }
        tokio::spawn(keeper.run(received));
        Ok(DelayedLeaves { events, metrics, commands })
    }

    /// Takes over a delayed leave. When it returns `Ok`, a restart of ours does not lose it.
    pub async fn delegate(&self, delegation: Delegation) -> Result<(), DelegateError> {
        if delegation.delay < LEAST_DELAY {
            return Err(DelegateError::TooShort);
        }
        // The homeserver shows that it knows the event and lets us manage it. When it is only too busy for that, which is
        // likely at the start of a large meeting, it does both.
        let now = Instant::now();
        let answer = self.events.manage(Request::Restart, &delegation.user, &delegation.delay_id).await;
        count(&self.metrics, Request::Restart, answer.into());
        let restarted_at = match answer {
            Ok(()) => Some(now),
            Err(DelayedEventError::Limited(_)) => None,
            Err(error) => return Err(DelegateError::Homeserver(error)),
        };
        let (outcome, told) = oneshot::channel();
        let command = Command::Delegate { delegation, restarted_at, outcome };
        self.commands.send(command).map_err(|_| DelegateError::ShuttingDown)?;
        told.await.unwrap_or(Err(DelegateError::ShuttingDown))
    }

    /// As [`DelayedLeaves::delegate`], for a client whose homeserver has told us who it is: that homeserver also tells whether
    /// the event is this user's and in this room, and how long its delay is.
    pub async fn delegate_known(
        &self,
        user: &str,
        room_id: &str,
        delay_id: &str,
        room: &str,
        identity: &str,
    ) -> Result<(), DelegateError> {
        let event = self.events.get(user, delay_id).await.map_err(DelegateError::Homeserver)?;
        if event.room_id != room_id {
            return Err(DelegateError::WrongRoom);
        }
        let (room, identity, user) = (room.to_owned(), identity.to_owned(), user.to_owned());
        self.delegate(Delegation { room, identity, user, delay_id: delay_id.to_owned(), delay: event.delay }).await
    }

    /// To be told of every participant, in order.
    pub fn presence(&self, presence: &Presence) {
        // The task is gone when the server has ended.
        let _ = self.commands.send(Command::Presence(presence.clone()));
    }

    /// The delayed events of those who delegate.
    pub fn events(&self) -> &DelayedEvents {
        &self.events
    }
}

/// The task.
struct Keeper {
    delegations: Delegations,
    events: Arc<DelayedEvents>,
    table: Table<Delegation>,
    metrics: Arc<Metrics>,
    /// For what comes back later; weak, as the task is to end when nobody else is left.
    commands: mpsc::WeakUnboundedSender<Command>,
}

impl Keeper {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            let due = self.delegations.advance(Instant::now());
            for effect in self.delegations.effects() {
                self.carry_out(effect);
            }
            self.metrics.delayed_leaves.set(i64::try_from(self.delegations.count()).unwrap_or(i64::MAX));
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.receive(command),
                    None => return,
                },
                () = timer => {}
            }
        }
    }

    fn receive(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Delegate { delegation, restarted_at, outcome } => {
                if let Err(refusal) = self.delegations.admit(&delegation) {
                    // Whoever gave up waiting does not need to know; likewise below.
                    let _ = outcome.send(Err(refusal.into()));
                    return;
                }
                // In the order of the jobs, so that what replaces what is the same on disk.
                let stored = self.table.put(&delegation.key(), &delegation);
                let serial = self.delegations.delegate(now, delegation, restarted_at);
                let commands = self.commands.upgrade();
                tokio::spawn(async move {
                    let stored = stored.await;
                    if let (Err(_), Some(commands)) = (&stored, commands) {
                        let _ = commands.send(Command::NotStored(serial));
                    }
                    let _ = outcome.send(stored.map_err(DelegateError::from));
                });
            }
            Command::NotStored(serial) => self.delegations.withdraw(serial),
            Command::Presence(presence) => self.delegations.note(now, &presence),
            Command::Answered(serial, answer) => self.delegations.answered(now, serial, answer),
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Ask { serial, request, user, delay_id } => {
                let Some(commands) = self.commands.upgrade() else { return };
                let (events, metrics) = (self.events.clone(), self.metrics.clone());
                tokio::spawn(async move {
                    let answer = events.manage(request, &user, &delay_id).await;
                    if let Err(reason) = answer {
                        tracing::debug!(request = request.as_str(), %reason, "delayed leave");
                    }
                    count(&metrics, request, answer.into());
                    let _ = commands.send(Command::Answered(serial, answer.into()));
                });
            }
            Effect::Forget { key, end } => {
                // Should a crash come before it, the homeserver tells the next process that the event is gone.
                self.table.remove_later(&key);
                if let Some(end) = end {
                    self.metrics.delayed_leaves_ended.with_label_values(&[end.as_str()]).inc();
                }
            }
        }
    }
}

fn count(metrics: &Metrics, request: Request, answer: Answer) {
    metrics.delayed_leave_requests.with_label_values(&[request.as_str(), answer.as_str()]).inc();
}
