//! Ends what a Matrix room no longer allows: reacts to its events, and looks by itself where none come.
//!
//! `http::appservice` hands over what the homeserver tells, within milliseconds of a kick. Without transactions, as with a
//! bot, the members of every room with a call are compared with who is in it. A look that fails changes nothing: a homeserver
//! that is down throws nobody out.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::admission::unix_seconds;
use super::calls::{Present, server_of};
use super::identity::room_alias;
use super::room_events::{MembershipState, RoomChange, RoomEvent};
use super::{Calls, Homeserver, HomeserverError, Membership, Reaper, Revocations, RoomRules};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::net::Node;
use crate::sfu::{LeaveReason, Sid};

/// How often rooms are looked at that nobody tells us about.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// After this long without a transaction none may be coming. A homeserver with a call is rarely as quiet.
const QUIET: Duration = Duration::from_secs(60);

/// Also while transactions come: not everything is told, such as a room that its administrator deletes.
const THOROUGH_INTERVAL: Duration = Duration::from_secs(300);

/// An event that comes later than this was held up somewhere, and what it tells may be over: who left may be back.
const STALE: Duration = Duration::from_secs(30);

/// Local users as whom a room is looked at before it is given up for now.
const MOST_WITNESSES: usize = 3;

pub struct RoomWatch {
    pub(super) config: Arc<Config>,
    pub(super) homeserver: Arc<Homeserver>,
    pub(super) membership: Arc<Membership>,
    pub(super) rules: Arc<RoomRules>,
    pub(super) calls: Arc<Calls>,
    pub(super) revocations: Arc<Revocations>,
    pub(super) reaper: Option<Arc<Reaper>>,
    pub(super) node: Node,
    pub(super) metrics: Arc<Metrics>,
    /// `None` at first.
    pub(super) last_transaction: Mutex<Option<Instant>>,
}

impl RoomWatch {
    /// The homeserver has pushed a transaction, with whatever in it.
    pub fn transaction_arrived(&self) {
        *self.last_transaction.lock().expect("no panic while held") = Some(Instant::now());
        self.membership.transaction_arrived();
    }

    /// Does what an event asks for; when this returns it is done. To be called with one after the other, as they came.
    pub async fn handle(&self, event: &RoomEvent) {
        self.rules.note(event);
        let room_id = &event.room_id;
        match &event.change {
            RoomChange::Member { user, membership: MembershipState::Leave | MembershipState::Ban } => {
                self.has_left(room_id, user, is_stale(event)).await;
            }
            RoomChange::Member { user, membership: MembershipState::Other } => {
                self.membership.forget(room_id, Some(user))
            }
            RoomChange::ServerAcl(acl) => {
                let own = &self.config.server_name;
                for user in self.calls.users_in(room_id) {
                    if server_of(&user) != own && !acl.allows(server_of(&user)) {
                        self.expel(room_id, &user, "server-denied-by-acl").await;
                    }
                }
            }
            RoomChange::Slot { id, open: false } => {
                self.end_call(&room_alias(room_id, id), "slot-closed").await;
            }
            // No new tokens; who is in the call goes when the room does.
            RoomChange::Tombstone(_) => {}
            RoomChange::CallMember(member) => {
                if let Some(reaper) = &self.reaper {
                    reaper.note(room_id, member, unix_seconds());
                }
            }
            RoomChange::Member { .. } | RoomChange::Slot { .. } => {}
        }
    }

    /// Looks after rooms until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looked_thoroughly = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            self.calls.forget_expired(unix_seconds());
            self.revocations.forget_expired(unix_seconds());
            let is_due = self.is_quiet() || looked_thoroughly.elapsed() >= THOROUGH_INTERVAL;
            if self.config.access.require_membership && is_due {
                looked_thoroughly = Instant::now();
                tokio::select! {
                    () = self.look() => {}
                    () = shutdown.cancelled() => return,
                }
            }
        }
    }

    /// Compares who is in each call with who is in its room.
    pub async fn look(&self) {
        for room_id in self.calls.rooms() {
            if let Err(error) = self.look_at(&room_id).await {
                tracing::info!(%error, "cannot look who is in the rooms of calls; everybody stays");
                return;
            }
        }
    }

    /// The error: no room can be looked at now.
    async fn look_at(&self, room_id: &str) -> Result<(), HomeserverError> {
        // Before asking: who comes while we ask may be missing from the answer.
        let users = self.calls.users_in(room_id);
        let mut witnesses: Vec<Option<String>> = self.calls.local_users_in(room_id).into_iter().map(Some).collect();
        witnesses.truncate(MOST_WITNESSES);
        witnesses.push(None);
        for witness in witnesses {
            match self.homeserver.joined_members(room_id, witness.as_deref()).await {
                // A list without anybody of ours is none that our homeserver can vouch for.
                Ok(members) if members.iter().any(|member| server_of(member) == self.config.server_name) => {
                    for user in users.iter().filter(|user| !members.contains(*user)) {
                        self.expel(room_id, user, "not-joined").await;
                    }
                    return Ok(());
                }
                Ok(_) | Err(HomeserverError::Forbidden | HomeserverError::NotSupported) => {}
                Err(HomeserverError::Invalid | HomeserverError::BadAnswer) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        // Nobody of ours in the call may look any more: we may have left the room altogether.
        if !self.end_if_we_left(room_id).await {
            self.ask_one_by_one(room_id, &users).await;
        }
        Ok(())
    }

    async fn ask_one_by_one(&self, room_id: &str, users: &[String]) {
        for user in users {
            if self.homeserver.is_joined_user(room_id, user).await == Ok(false) {
                self.expel(room_id, user, "not-joined").await;
            }
        }
    }

    async fn has_left(&self, room_id: &str, user: &str, is_stale: bool) {
        self.membership.forget(room_id, Some(user));
        if !self.calls.may_come(room_id, user, unix_seconds()) {
            return;
        }
        // Nobody is there to be thrown out by mistake when it is only about tokens of before a restart.
        if is_stale && !self.calls.participants_of(room_id, user).is_empty() {
            let witnesses = self.calls.local_users_in(room_id);
            if self.membership.check(room_id, user, &witnesses).await == Ok(true) {
                return;
            }
        }
        self.expel(room_id, user, "left").await;
        // Its session may not be reported to have ended yet.
        let was_our_last = server_of(user) == self.config.server_name
            && self.calls.local_users_in(room_id).iter().all(|local| local == user);
        if was_our_last && self.calls.in_room(room_id).iter().any(|present| present.user != user) {
            self.end_if_we_left(room_id).await;
        }
    }

    async fn end_if_we_left(&self, room_id: &str) -> bool {
        let own = &self.config.server_name;
        if self.homeserver.is_joined_server(room_id, own).await != Ok(false) {
            return false;
        }
        self.membership.forget(room_id, None);
        let aliases = self.calls.aliases_of(room_id);
        for user in self.calls.users_in(room_id) {
            self.revocations.revoke(room_id, &user, unix_seconds());
            self.calls.expect_no_more(room_id, &user);
        }
        for alias in aliases {
            self.end_call(&alias, "server-left").await;
        }
        true
    }

    /// Voids the user's tokens for the room, then ends its sessions there: in this order, see [`Admission::connect`](super::Admission::connect).
    async fn expel(&self, room_id: &str, user: &str, reason: &'static str) {
        self.revocations.revoke(room_id, user, unix_seconds());
        self.membership.forget(room_id, Some(user));
        let participants = self.calls.participants_of(room_id, user);
        self.calls.expect_no_more(room_id, user);
        for participant in participants {
            self.remove_participant(&participant.alias, &participant.identity, None, reason).await;
        }
    }

    /// A moderator sends a user out of `sessions`, which are in the room. The user may come back with a new token: who shall not
    /// is to be kicked from the room. Says how many sessions have ended.
    pub async fn remove(&self, room_id: &str, user: &str, sessions: &[Present]) -> usize {
        self.revocations.revoke(room_id, user, unix_seconds());
        let mut removed = 0;
        for session in sessions {
            let Present { alias, identity, sid, .. } = session;
            removed += usize::from(self.remove_participant(alias, identity, Some(sid), "moderator").await);
        }
        removed
    }

    async fn remove_participant(&self, alias: &str, identity: &str, sid: Option<&Sid>, reason: &'static str) -> bool {
        let removed = self.node.remove(alias, identity, sid, LeaveReason::Removed).await == Ok(true);
        if removed {
            tracing::info!(room = %alias, reason, "removed a participant");
            self.metrics.removals.with_label_values(&[reason]).inc();
        }
        removed
    }

    async fn end_call(&self, alias: &str, reason: &'static str) {
        if self.node.delete_room(alias).await == Ok(true) {
            tracing::info!(room = %alias, reason, "ended a call");
            self.metrics.removals.with_label_values(&[reason]).inc();
        }
    }

    fn is_quiet(&self) -> bool {
        let last = *self.last_transaction.lock().expect("no panic while held");
        last.is_none_or(|last| last.elapsed() >= QUIET)
    }
}

fn is_stale(event: &RoomEvent) -> bool {
    let sent = Duration::from_millis(event.sent_ms).as_secs();
    unix_seconds().saturating_sub(sent) > STALE.as_secs()
}
