//! Transactions: what the homeserver tells us of its rooms, kept on disk from before we say that we have it until it was
//! acted on.
//!
//! The homeserver sends one transaction after the other, each until we acknowledge it and then never again: one that we
//! acknowledged and lost would be somebody who was banned and stays in the call. [`Transactions`] takes them in for
//! `http::appservice`; [`Inbox`] gives their events, in order, to the task that acts on them (`serve` joins it to
//! [`RoomWatch`](super::RoomWatch)), also those that a former process did not get to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::room_events::RoomEvent;
use crate::store::{Store, StoreError, Table};

const TABLE: &str = "transactions";

/// Transactions that have been acted on and are known again when they come twice. The homeserver repeats only its latest,
/// and after a crash of its own perhaps a few before.
const REMEMBERED: usize = 64;

/// Transactions that wait to be acted on: acting may have to ask the homeserver, and must not need memory without bound.
const MOST_WAITING: usize = 32;

/// How long a transaction waits for a place among those. Synapse gives up on us after a minute.
const PLACE_TIMEOUT: Duration = Duration::from_secs(20);

/// What of an event is kept; nothing else is looked at.
const KEPT_FIELDS: [&str; 7] = ["type", "state_key", "room_id", "sender", "origin_server_ts", "event_id", "content"];

/// Where transactions come in; clones are the same.
#[derive(Clone)]
pub struct Transactions {
    intake: Arc<Mutex<Intake>>,
}

/// Where their events come out, each transaction until it is [`finished`](Inbox::finished).
pub struct Inbox {
    arriving: mpsc::Receiver<Transaction>,
    table: Table<Record>,
}

/// One that is to be acted on.
#[derive(Debug)]
pub struct Transaction {
    /// Those that mean something for a call; may be none.
    pub events: Vec<RoomEvent>,
    /// `None`: nothing of it is on disk.
    stored: Option<Stored>,
}

/// Why a transaction is not to be acknowledged. It will come again.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("too many transactions wait to be acted on")]
    Busy,
    #[error("the server is shutting down")]
    Ended,
}

#[derive(Debug)]
struct Stored {
    key: String,
    identity: Identity,
}

struct Intake {
    table: Table<Record>,
    waiting: mpsc::Sender<Transaction>,
    /// Oldest first, with their keys in the table.
    remembered: VecDeque<Stored>,
    next_number: u64,
    place_timeout: Duration,
}

/// What tells one transaction from another. A homeserver that lost its database counts from 1 again: new events under an
/// old id are a new transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    txn_id: String,
    /// Of the ids of the events that were kept.
    events_hash: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    identity: Identity,
    /// Emptied when they have been acted on.
    events: Vec<Value>,
}

impl Transactions {
    /// With what is left of former transactions; reads the store.
    pub fn open(store: &Store) -> Result<(Transactions, Inbox), StoreError> {
        let table = store.table::<Record>(TABLE);
        let (mut remembered, mut unfinished) = (VecDeque::new(), Vec::new());
        // Keys are numbers of equal length: their order is that of arrival.
        for (key, record) in table.load()? {
            let stored = || Stored { key: key.clone(), identity: record.identity.clone() };
            remembered.push_back(stored());
            if !record.events.is_empty() {
                let events = record.events.iter().filter_map(RoomEvent::parse).collect();
                unfinished.push(Transaction { events, stored: Some(stored()) });
            }
        }
        let next_number = remembered.back().and_then(|last| last.key.parse::<u64>().ok()).map_or(0, |last| last + 1);
        let (waiting, arriving) = mpsc::channel(MOST_WAITING.max(unfinished.len()));
        for transaction in unfinished {
            waiting.try_send(transaction).expect("there is a place for each");
        }
        let intake = Intake { table: table.clone(), waiting, remembered, next_number, place_timeout: PLACE_TIMEOUT };
        Ok((Transactions { intake: Arc::new(Mutex::new(intake)) }, Inbox { arriving, table }))
    }

    /// Takes in a transaction. When it returns `Ok` its events are on disk and will be acted on; one that came before is
    /// `Ok` at once.
    pub async fn accept(&self, txn_id: String, events: Vec<Value>) -> Result<(), NotAccepted> {
        let intake = self.intake.clone();
        // A homeserver that hangs up meanwhile must not leave behind a transaction that is stored but not acted on.
        let accepted = tokio::spawn(async move { intake.lock_owned().await.accept(txn_id, events).await });
        accepted.await.unwrap_or(Err(NotAccepted::Ended))
    }
}

impl Intake {
    async fn accept(&mut self, txn_id: String, events: Vec<Value>) -> Result<(), NotAccepted> {
        let (kept, parsed): (Vec<Value>, Vec<RoomEvent>) = events
            .into_iter()
            .filter_map(|event| {
                let parsed = RoomEvent::parse(&event)?;
                Some((trimmed(event), parsed))
            })
            .unzip();
        let identity = Identity { txn_id, events_hash: events_hash(&kept) };
        if !kept.is_empty() && self.remembered.iter().any(|stored| stored.identity == identity) {
            return Ok(());
        }
        let waiting = self.waiting.clone();
        let place = timeout(self.place_timeout, waiting.reserve()).await.map_err(|_| NotAccepted::Busy)?;
        let place = place.map_err(|_| NotAccepted::Ended)?;
        let stored = if kept.is_empty() { None } else { Some(self.store(identity, kept).await?) };
        place.send(Transaction { events: parsed, stored });
        Ok(())
    }

    async fn store(&mut self, identity: Identity, events: Vec<Value>) -> Result<Stored, StoreError> {
        let key = format!("{:020}", self.next_number);
        self.table.put(&key, &Record { identity: identity.clone(), events }).await?;
        self.next_number += 1;
        self.remembered.push_back(Stored { key: key.clone(), identity: identity.clone() });
        // Those that wait and the one being acted on are among them.
        let most = REMEMBERED + self.waiting.max_capacity() + 1;
        while self.remembered.len() > most
            && let Some(oldest) = self.remembered.pop_front()
        {
            self.table.remove_later(&oldest.key);
        }
        Ok(Stored { key, identity })
    }
}

impl Inbox {
    /// The next transaction to act on; `None` when no more can come. One without events says only that the homeserver
    /// reaches us.
    pub async fn next(&mut self) -> Option<Transaction> {
        self.arriving.recv().await
    }

    /// It was acted on and need not be again. Should this not reach the disk, it will be acted on twice.
    pub fn finished(&self, transaction: Transaction) {
        if let Some(Stored { key, identity }) = transaction.stored {
            self.table.put_later(&key, &Record { identity, events: Vec::new() });
        }
    }
}

fn trimmed(event: Value) -> Value {
    let Value::Object(fields) = event else { return event };
    let kept = fields.into_iter().filter(|(name, _)| KEPT_FIELDS.contains(&name.as_str()));
    Value::Object(kept.collect::<Map<String, Value>>())
}

fn events_hash(events: &[Value]) -> String {
    let ids: Vec<&Value> = events.iter().map(|event| &event["event_id"]).collect();
    STANDARD_NO_PAD.encode(Sha256::digest(serde_json::to_vec(&ids).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
