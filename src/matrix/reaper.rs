//! Ends memberships that a client has left behind: state events which say that a device is in the call, while it has not been
//! in the SFU for a long time. Only with `access.reap_stale_memberships`, as it writes in the name of users.
//!
//! For clients whose homeserver knows no delayed events; where it does, `delayed_leaves` is sooner. Told of memberships by
//! [`RoomWatch`](super::RoomWatch), run by [`MatrixRooms`](super::MatrixRooms).
//!
//! Only users of our homeserver, only memberships that name our SFU, and only where their absence means something: by the
//! older rule everybody meets on one member's SFU, which need not be ours. Memberships in sticky events, the newer shape,
//! cannot be ended by anybody but their client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::admission::unix_seconds;
use super::calls::server_of;
use super::room_events::{CALL_MEMBER_TYPE, CallDevice, CallMember};
use super::{Calls, Homeserver, HomeserverError};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, Table};

/// Of a setting in minutes.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Memberships that are watched; a few hundred bytes each.
const MOST_WATCHED: usize = 20_000;

pub struct Reaper {
    homeserver: Arc<Homeserver>,
    calls: Arc<Calls>,
    metrics: Arc<Metrics>,
    server_name: String,
    /// Ours, as memberships name it.
    service_url: String,
    /// Seconds.
    patience: u64,
    /// By room id and state key.
    watched: Mutex<HashMap<(String, String), Watched>>,
    table: Table<Stored>,
}

/// A membership of one of our users on our SFU.
#[derive(Debug, Clone)]
struct Watched {
    stored: Stored,
    /// Unix seconds: in the SFU until then, or not known to be since.
    absent_since: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    user: String,
    /// In the SFU, when the token came from `/sfu/get`.
    identity: String,
    /// Unix milliseconds.
    expires_ms: u64,
}

impl Reaper {
    /// `None`: off. With the memberships that were watched before the last restart; `now` in unix seconds, here and below.
    pub fn load(
        config: &Config,
        homeserver: Arc<Homeserver>,
        calls: Arc<Calls>,
        metrics: Arc<Metrics>,
        store: &Store,
        now: u64,
    ) -> Result<Option<Reaper>, StoreError> {
        let Some(patience) = config.access.reap_stale_memberships else { return Ok(None) };
        let table: Table<Stored> = store.table("call_memberships");
        let stored = table.load()?.into_iter();
        let watched = stored.filter_map(|(key, stored)| {
            Some((serde_json::from_str(&key).ok()?, Watched { stored, absent_since: now }))
        });
        Ok(Some(Reaper {
            homeserver,
            calls,
            metrics,
            server_name: config.server_name.clone(),
            service_url: config.service_url(),
            patience: patience.as_secs(),
            watched: Mutex::new(watched.collect()),
            table,
        }))
    }

    /// A device said that it is in a call, or that it has left.
    pub fn note(&self, room_id: &str, member: &CallMember, now: u64) {
        let key = (room_id.to_owned(), member.state_key.clone());
        let device = member.device.as_ref().filter(|device| self.is_ours(device));
        let Some(device) = device.filter(|_| server_of(&member.user) == self.server_name) else {
            self.forget(&key);
            return;
        };
        let CallDevice { identity, expires_ms, .. } = device.clone();
        let stored = Stored { user: member.user.clone(), identity, expires_ms };
        let mut watched = self.watched();
        if watched.len() >= MOST_WATCHED && !watched.contains_key(&key) {
            return;
        }
        self.table.put_later(&stored_key(&key), &stored);
        watched.insert(key, Watched { stored, absent_since: now });
    }

    pub async fn run(&self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            tokio::select! {
                () = self.look(unix_seconds()) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Ends what has been without its device for too long.
    pub async fn look(&self, now: u64) {
        for (key, watched) in self.absent_too_long(now) {
            match self.end(&key, &watched.stored, now).await {
                Ok(()) => self.forget(&key),
                Err(
                    error
                    @ (HomeserverError::Unreachable | HomeserverError::Limited(_) | HomeserverError::UnknownToken),
                ) => {
                    tracing::debug!(%error, "cannot look at memberships that may be stale; again in a minute");
                    return;
                }
                // Who is not in the room any more has nothing there to be ended.
                Err(HomeserverError::Forbidden) => self.forget(&key),
                Err(error) => {
                    tracing::info!(%error, "cannot look at a membership that may be stale");
                    self.forget(&key);
                }
            }
        }
    }

    fn absent_too_long(&self, now: u64) -> Vec<((String, String), Watched)> {
        let mut watched = self.watched();
        // What has run out counts for nobody.
        for (key, _) in watched.extract_if(|_, watched| watched.stored.expires_ms <= now * 1000) {
            self.table.remove_later(&stored_key(&key));
        }
        for ((room_id, _), watched) in watched.iter_mut() {
            if self.is_present(room_id, &watched.stored) {
                watched.absent_since = now;
            }
        }
        let too_long = |watched: &Watched| now.saturating_sub(watched.absent_since) >= self.patience;
        watched.iter().filter(|(_, watched)| too_long(watched)).map(|(key, w)| (key.clone(), w.clone())).collect()
    }

    /// Under a hashed identity we do not know which device it is: it may be this one.
    fn is_present(&self, room_id: &str, stored: &Stored) -> bool {
        let readable = format!("{}:", stored.user);
        let sessions = self.calls.of(room_id, &stored.user);
        sessions.iter().any(|p| p.identity == stored.identity || !p.identity.starts_with(&readable))
    }

    /// Looks at the room as it is now, and ends the membership if it still stands and its device is still away.
    async fn end(&self, key: &(String, String), stored: &Stored, now: u64) -> Result<(), HomeserverError> {
        let (room_id, state_key) = key;
        let user = Some(stored.user.as_str());
        let state = self.homeserver.state(room_id, |kind| kind == CALL_MEMBER_TYPE, user).await?;
        let members: Vec<CallMember> = state.iter().filter_map(parse).collect();
        let live = |member: &&CallMember| member.device.as_ref().is_some_and(|d| d.expires_ms > now * 1000);
        let theirs = members.iter().find(|member| member.state_key == *state_key && member.user == stored.user);
        let Some(device) = theirs.filter(live).and_then(|member| member.device.as_ref()) else { return Ok(()) };
        let all_meet_here = || members.iter().filter(live).all(|m| m.device.as_ref().is_some_and(|d| self.is_ours(d)));
        let has_to_be_here = self.is_ours(device) && (device.multi_sfu || all_meet_here());
        if !has_to_be_here || device.identity != stored.identity || self.is_present(room_id, stored) {
            return Ok(());
        }
        self.homeserver.put_state(room_id, CALL_MEMBER_TYPE, state_key, &json!({}), user).await?;
        tracing::info!("ended a membership whose device has been away from the call for too long");
        self.metrics.removals.with_label_values(&["stale-membership"]).inc();
        Ok(())
    }

    fn is_ours(&self, device: &CallDevice) -> bool {
        device.focus.as_ref().is_some_and(|focus| focus.trim_end_matches('/') == self.service_url)
    }

    fn forget(&self, key: &(String, String)) {
        if self.watched().remove(key).is_some() {
            self.table.remove_later(&stored_key(key));
        }
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<(String, String), Watched>> {
        self.watched.lock().expect("no panic while held")
    }
}

fn parse(event: &Value) -> Option<CallMember> {
    let sent_ms = event["origin_server_ts"].as_u64().unwrap_or(0);
    CallMember::parse(event["state_key"].as_str()?, event["sender"].as_str()?, sent_ms, &event["content"])
}

fn stored_key(key: &(String, String)) -> String {
    serde_json::to_string(key).expect("texts are JSON")
}
