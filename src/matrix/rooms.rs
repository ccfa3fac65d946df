//! The Matrix rooms that calls belong to: the parts that decide who is in which call, put together.
//!
//! `serve` makes one and runs it; `http` asks its parts.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::admission::unix_seconds;
use super::delayed_events::DelayedEvents;
use super::delayed_leaves::DelayedLeaves;
use super::transactions::Inbox;
use super::{Admission, Calls, Homeserver, Membership, Reaper, Revocations, RoomRules, RoomWatch};
use crate::config::{AppServiceTokens, Config};
use crate::metrics::Metrics;
use crate::net::{Node, Presence};
use crate::store::Store;

#[derive(Clone)]
pub struct MatrixRooms {
    pub homeserver: Arc<Homeserver>,
    pub calls: Arc<Calls>,
    pub admission: Arc<Admission>,
    pub watch: Arc<RoomWatch>,
    /// `None`: off.
    pub reaper: Option<Arc<Reaper>>,
    pub delayed_leaves: DelayedLeaves,
}

impl MatrixRooms {
    /// `tokens`: those of the application service when it is enabled. Within a tokio runtime, as delayed leaves of before
    /// are taken up at once. The error is a sentence for the operator.
    pub fn new(
        config: Arc<Config>,
        tokens: Option<&AppServiceTokens>,
        store: &Store,
        node: Node,
        metrics: Arc<Metrics>,
    ) -> Result<MatrixRooms, String> {
        let homeserver = Arc::new(Homeserver::new(&config, tokens)?);
        let membership = Arc::new(Membership::new(homeserver.clone(), &config.server_name));
        let rules = Arc::new(RoomRules::new(homeserver.clone(), &config.server_name));
        let calls = Arc::new(Calls::new(&config.server_name, unix_seconds()));
        let revocations = Arc::new(Revocations::load(store, unix_seconds()).map_err(|e| e.to_string())?);
        let admission = Arc::new(Admission::new(
            config.clone(),
            membership.clone(),
            rules.clone(),
            calls.clone(),
            revocations.clone(),
            metrics.clone(),
        ));
        let reaper = Reaper::load(&config, homeserver.clone(), calls.clone(), metrics.clone(), store, unix_seconds());
        let reaper = reaper.map_err(|e| e.to_string())?.map(Arc::new);
        let events = Arc::new(DelayedEvents::new(config.clone(), homeserver.clone())?);
        let delayed_leaves = DelayedLeaves::start(events, store, metrics.clone())?;
        let watch = Arc::new(RoomWatch {
            config,
            homeserver: homeserver.clone(),
            membership,
            rules,
            calls: calls.clone(),
            revocations,
            reaper: reaper.clone(),
            node,
            metrics,
            last_transaction: Mutex::default(),
        });
        Ok(MatrixRooms { homeserver, calls, admission, watch, reaper, delayed_leaves })
    }

    /// To be called whenever somebody came or went, in order. Holds no [`Node`], which may end while the last reports are read.
    pub fn observer(&self) -> impl Fn(&Presence) + Send + use<> {
        let (calls, delayed_leaves) = (self.calls.clone(), self.delayed_leaves.clone());
        move |presence| {
            calls.note(presence, unix_seconds());
            delayed_leaves.presence(presence);
        }
    }

    /// Does what the homeserver's transactions ask for, one after the other, until no more can come.
    pub async fn act_on(&self, mut inbox: Inbox) {
        while let Some(transaction) = inbox.next().await {
            self.watch.transaction_arrived();
            for event in &transaction.events {
                // Should one make us panic, the others still have to be heard: kicks among them.
                let handled = AssertUnwindSafe(self.watch.handle(event)).catch_unwind().await;
                if handled.is_err() {
                    tracing::error!("a room event made the watch over rooms panic; it is skipped");
                }
            }
            inbox.finished(transaction);
        }
    }

    /// Looks after the rooms until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let reap = async {
            if let Some(reaper) = &self.reaper {
                reaper.run(shutdown.clone()).await;
            }
        };
        tokio::join!(self.watch.run(shutdown.clone()), reap);
    }
}
