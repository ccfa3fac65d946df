//! The `m.call.*` front door: how a Matrix user of ours takes part in calls of the VoIP module. PURE.
//!
//! Clients that know only 1:1 calls call our user, or are called by it; media is an ordinary participant of a room of the
//! SFU. The same calls come as to-device messages from clients that take us for their conference's focus (MSC3401,
//! MSC3898).
//!
//! ```text
//! Matrix client ── Event ──▶ Focus ──▶ Leg ── Output::Media ──▶ peer connection in the SFU
//! Matrix client ◀── Output::Send ── Focus ◀── Leg ◀── media_answer, media_offer, media_connected … ──
//! ```
//!
//! - [`Focus`]: all legs, how they are found, limited and woken. Start here; invitations in `invite`.
//! - [`leg`]: one call of one opponent.
//! - [`content`], [`envelope`], [`streams`]: events ↔ JSON. [`event`]: what goes in and comes out.
//! - `negotiation`: whose turn it is to offer. `description`: what must be known of an SDP.
//! - `admission`, `candidates`, `ended`, `sequence`: bounds for what others send, and its order.
//! - [`data_channel`]: MSC3898's messages beside the media.
//!
//! Who may call, and into which conference, is decided by whoever drives this: each invitation that is in order is
//! [asked](Output::Asked) about.

mod admission;
mod call;
mod candidates;
pub mod content;
pub mod data_channel;
mod description;
mod ended;
pub mod envelope;
pub mod event;
mod ignored;
mod invite;
mod leg;
mod negotiation;
mod peer;
mod reason;
mod sequence;
pub mod streams;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use thiserror::Error;

use admission::Rates;
use ended::Ended;
use invite::Closed;
use leg::{Fate, Leg, Turn};
use peer::Peer;

pub use admission::Limits;
pub use call::{CallKey, LegId, OpenCall, Scope};
pub use content::{Candidate, Content, ContentError, Identity, Kind};
pub use envelope::{DeviceEnvelope, Envelope, Version};
pub use event::{Address, Event, Media, Origin, Output};
pub use ignored::{Ignored, IgnoredCounts};
pub use negotiation::Exchange;
pub use reason::Reason;
pub use streams::{Purpose, Stream};
pub use verdict::{Cause, MediaError, Refusal, Verdict};

use crate::sfu::Now;

/// How long we ring somebody unless told otherwise: what the specification recommends.
pub const RING_TIME: Duration = Duration::from_secs(90);

#[derive(Debug, Clone)]
pub struct Settings {
    /// Our Matrix id.
    pub user_id: String,
    /// Which of our user's clients we are, for the opponents. Must be the same after a restart, so that calls from before it
    /// can be hung up; and must be the device id, as conferences take it for one.
    pub party_id: String,
    /// Our session in to-device calls. Messages for another one are ignored.
    pub session_id: String,
    pub limits: Limits,
    /// For call ids that nobody can guess.
    pub seed: u64,
}

/// Somebody is to be rung.
#[derive(Debug, Clone)]
pub struct Ring {
    /// A room with that user.
    pub room: String,
    pub user: String,
    /// At most [`content::MAX_LIFETIME`]; see [`RING_TIME`].
    pub lifetime: Duration,
    /// What we will send.
    pub streams: Vec<Stream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RingError {
    #[error("there is a call with this user in this room")]
    AlreadyInCall,
    #[error("this user has too many calls")]
    UserBusy,
    #[error("there are too many calls")]
    Full,
}

/// All calls of one Matrix user of ours.
///
/// After every call take what there is to do with [`poll_output`](Focus::poll_output), and call
/// [`handle_timeout`](Focus::handle_timeout) when [`next_timeout`](Focus::next_timeout) has come. What is said of a leg that
/// has ended is ignored and counted.
pub struct Focus {
    settings: Settings,
    legs: HashMap<LegId, Leg>,
    /// Several users may use one call id, and several of a conference's devices.
    by_call: HashMap<(Scope, String), Vec<LegId>>,
    by_user: HashMap<String, Vec<LegId>>,
    /// Each leg once, under its deadline.
    timers: BTreeSet<(Instant, LegId)>,
    armed: HashMap<LegId, Instant>,
    ended: Ended,
    rates: Rates,
    rng: StdRng,
    last_id: u64,
    outputs: VecDeque<Output>,
    ignored: IgnoredCounts,
}

impl Focus {
    pub fn new(settings: Settings) -> Focus {
        Focus {
            rng: StdRng::seed_from_u64(settings.seed),
            settings,
            legs: HashMap::new(),
            by_call: HashMap::new(),
            by_user: HashMap::new(),
            timers: BTreeSet::new(),
            armed: HashMap::new(),
            ended: Ended::default(),
            rates: Rates::default(),
            last_id: 0,
            outputs: VecDeque::new(),
            ignored: IgnoredCounts::default(),
        }
    }

    // --- from Matrix -------------------------------------------------------------------------------------------------

    /// The call events of one sync response, in its order, decrypted: an invitation that is hung up in the same response, or
    /// that was answered by us before we were started, begins nothing.
    pub fn receive(&mut self, now: Now, events: Vec<Event>) {
        let closed = Closed::in_batch(&events, &self.settings);
        for event in events {
            self.receive_one(now, event, &closed);
        }
    }

    fn receive_one(&mut self, now: Now, event: Event, closed: &Closed) {
        let scope = match self.scope(&event) {
            Ok(scope) => scope,
            Err(reason) => return self.ignored.add(reason),
        };
        if event.sender == self.settings.user_id {
            return self.receive_own(now, scope, event, closed);
        }
        let call = CallKey::of(&scope, &event.sender, &event.content.envelope);
        if let Some(id) = self.find(&call) {
            return self.act(now, id, |leg, turn| leg.receive(turn, event));
        }
        if self.has_ended(now, &call) {
            return self.ignored.add(Ignored::EndedCall);
        }
        match &event.content.kind {
            Kind::Invite { .. } => self.invited(now, call, event, closed),
            // May be decrypted before its invitation, which is void then.
            Kind::Hangup(_) | Kind::Reject(_) => {
                self.ended.insert(now.instant, call);
                self.ignored.add(Ignored::UnknownCall);
            }
            Kind::SelectAnswer { selected_party_id } if *selected_party_id == self.settings.party_id => {
                self.hang_up_leftover(now, Peer::new(call, &event.content.envelope));
            }
            // Candidates before their invitation, too: we are ICE-lite and do not need them.
            _ => self.ignored.add(Ignored::UnknownCall),
        }
    }

    fn scope(&self, event: &Event) -> Result<Scope, Ignored> {
        match (&event.origin, &event.content.envelope.device) {
            (Origin::Room { room, .. }, _) => Ok(Scope::Room(room.clone())),
            (Origin::ToDevice { .. }, Some(device)) if device.dest_session_id != self.settings.session_id => {
                Err(Ignored::OtherSession)
            }
            (Origin::ToDevice { verified_device: Some(verified) }, Some(device)) if *verified != device.device_id => {
                Err(Ignored::WrongDevice)
            }
            (Origin::ToDevice { .. }, Some(device)) => Ok(Scope::Conference(device.conf_id.clone())),
            (Origin::ToDevice { .. }, None) => Err(Ignored::UnknownCall),
        }
    }

    /// What our own user sent: this session, another, or this one before it was started.
    fn receive_own(&mut self, now: Now, scope: Scope, event: Event, closed: &Closed) {
        let envelope = &event.content.envelope;
        if let Some(ids) = self.by_call.get(&(scope.clone(), envelope.call_id.clone())).cloned() {
            for id in ids {
                self.act(now, id, |leg, turn| leg.receive_own(turn, &event.content));
            }
            return;
        }
        let call = CallKey::of(&scope, &event.sender, envelope);
        let is_echo = envelope.party_id.as_ref() == Some(&self.settings.party_id);
        let has_ended = self.has_ended(now, &call);
        match event.content.kind {
            Kind::Answer { .. } if is_echo && !has_ended && !closed.is_hung_up(&call) => {
                return self.hang_up_leftover(now, Peer::new(call, envelope));
            }
            // Its invitation may be decrypted later, and is void then.
            Kind::Answer { .. } | Kind::Reject(_) | Kind::Hangup(_) if !has_ended => {
                self.ended.insert(now.instant, call)
            }
            _ => {}
        }
        self.ignored.add(if is_echo { Ignored::Echo } else { Ignored::UnknownCall });
    }

    fn has_ended(&mut self, now: Now, call: &CallKey) -> bool {
        let ours = call.of_ours(&self.settings.user_id);
        self.ended.contains(now.instant, call) || ours.is_some_and(|ours| self.ended.contains(now.instant, &ours))
    }

    /// A user has left the room or was made to.
    pub fn left(&mut self, now: Now, room: &str, user: &str) {
        for id in self.by_user.get(user).cloned().unwrap_or_default() {
            let in_room = |leg: &Leg| matches!(&leg.call().scope, Scope::Room(of) if of == room);
            if self.legs.get(&id).is_some_and(in_room) {
                self.act(now, id, |_, _| leg::end(Verdict::OpponentLeft, verdict::Farewell::Silent));
            }
        }
    }

    /// We have left the room or were made to: nothing can be said there.
    pub fn room_lost(&mut self, now: Now, room: &str) {
        for id in self.leg_ids() {
            let in_room = |leg: &Leg| matches!(&leg.call().scope, Scope::Room(of) if of == room);
            if self.legs.get(&id).is_some_and(in_room) {
                self.act(now, id, |_, _| leg::end(Verdict::RoomLost, verdict::Farewell::Silent));
            }
        }
    }

    /// An [`Output::Send`] of the leg will never be sent.
    pub fn send_failed(&mut self, now: Now, leg: LegId, event_type: &str) {
        self.act(now, leg, |leg, _| leg.send_failed(event_type));
    }

    // --- from whoever decides ----------------------------------------------------------------------------------------

    /// The call may begin. Media is asked for an answer.
    pub fn admit(&mut self, now: Now, leg: LegId) {
        self.act(now, leg, |leg, turn| leg.admit(turn));
    }

    pub fn refuse(&mut self, now: Now, leg: LegId, refusal: Refusal) {
        self.act(now, leg, |leg, turn| leg.refuse(turn, refusal));
    }

    /// Rings a user. Media is asked for an offer.
    pub fn ring(&mut self, now: Now, ring: Ring) -> Result<LegId, RingError> {
        let Ring { room, user, lifetime, streams } = ring;
        let scope = Scope::Room(room);
        let of_user = self.by_user.get(&user).map(Vec::as_slice).unwrap_or_default();
        if of_user.iter().filter_map(|id| self.legs.get(id)).any(|leg| leg.call().scope == scope) {
            return Err(RingError::AlreadyInCall);
        }
        if of_user.len() >= self.settings.limits.legs_per_user {
            return Err(RingError::UserBusy);
        }
        if self.legs.len() >= self.settings.limits.legs {
            return Err(RingError::Full);
        }
        // As clients make them, so that nobody always wins when both call at once.
        let call_id = format!("{}{:016x}", now.unix_ms, self.rng.next_u64());
        let call = CallKey { scope, user, device: None, call_id };
        let lifetime = lifetime.min(content::MAX_LIFETIME);
        let id = self.next_id();
        let mut turn = Turn { now, settings: &self.settings, outputs: &mut self.outputs, ignored: &mut self.ignored };
        let leg = Leg::outgoing(&mut turn, id, call, lifetime, streams);
        self.insert(id, leg);
        Ok(id)
    }

    /// The call is over for us.
    pub fn end(&mut self, now: Now, leg: LegId, cause: Cause) {
        self.act(now, leg, |leg, _| leg.end(cause));
    }

    /// All calls are over, as the server stops.
    pub fn shut_down(&mut self, now: Now) {
        for id in self.leg_ids() {
            self.act(now, id, |leg, _| leg.shut_down());
        }
    }

    /// Who is really on the line, for clients that show it; `None` takes it back.
    pub fn assert_identity(&mut self, now: Now, leg: LegId, identity: Option<Identity>) {
        self.act(now, leg, |leg, turn| leg.assert_identity(turn, identity));
    }

    /// Calls that another process would have to hang up if this one died now; to be stored when they change.
    pub fn open_calls(&self) -> Vec<OpenCall> {
        self.leg_ids().iter().filter_map(|id| self.legs.get(id)?.open_call()).collect()
    }

    /// Hangs up a call of the process before this one.
    pub fn leftover(&mut self, now: Now, call: OpenCall) {
        let OpenCall { room, user, call_id, version } = call;
        let call = CallKey { scope: Scope::Room(room), user, device: None, call_id };
        if !self.has_ended(now, &call) && self.find(&call).is_none() {
            let mut peer = Peer::unknown(call);
            peer.version = version;
            self.hang_up(now, peer);
        }
    }

    // --- from media --------------------------------------------------------------------------------------------------

    /// The answer to [`Media::Offer`].
    pub fn media_answer(&mut self, now: Now, leg: LegId, exchange: Exchange, answer: Result<String, MediaError>) {
        self.act(now, leg, |leg, turn| leg.media_answer(turn, exchange, answer));
    }

    /// What [`Media::CreateOffer`] asked for.
    pub fn media_offer(&mut self, now: Now, leg: LegId, exchange: Exchange, offer: Result<String, MediaError>) {
        self.act(now, leg, |leg, turn| leg.media_offer(turn, exchange, offer));
    }

    /// ICE and DTLS stand, for the first time or again.
    pub fn media_connected(&mut self, now: Now, leg: LegId) {
        self.act(now, leg, |leg, _| leg.media_connected());
    }

    /// Nothing comes from the peer any more. It may come back; what cannot is ended with [`Cause::MediaFailed`].
    pub fn media_lost(&mut self, now: Now, leg: LegId) {
        self.act(now, leg, |leg, turn| leg.media_lost(turn));
    }

    /// What we send has changed: a screen came or went, somebody was muted. The first may be said before there is a
    /// description. It is negotiated with opponents that can; others have the one stream that they began with.
    pub fn streams_changed(&mut self, now: Now, leg: LegId, streams: Vec<Stream>) {
        self.act(now, leg, |leg, turn| leg.streams_changed(turn, streams));
    }

    // --- time and output ---------------------------------------------------------------------------------------------

    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now.instant
        {
            self.act(now, id, |leg, turn| leg.handle_timeout(turn));
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Of all opponents.
    pub fn legs(&self) -> usize {
        self.legs.len()
    }

    pub fn call(&self, leg: LegId) -> Option<&CallKey> {
        self.legs.get(&leg).map(Leg::call)
    }

    pub fn ignored(&self) -> &IgnoredCounts {
        &self.ignored
    }

    // --- the legs ----------------------------------------------------------------------------------------------------

    fn next_id(&mut self) -> LegId {
        self.last_id += 1;
        LegId(self.last_id)
    }

    /// In the order in which they began, not in that of a hash.
    fn leg_ids(&self) -> Vec<LegId> {
        let mut ids: Vec<LegId> = self.legs.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    fn find(&self, call: &CallKey) -> Option<LegId> {
        let ids = self.by_call.get(&(call.scope.clone(), call.call_id.clone()))?;
        ids.iter().copied().find(|id| self.legs.get(id).is_some_and(|leg| leg.call() == call))
    }

    fn insert(&mut self, id: LegId, leg: Leg) {
        let call = leg.call();
        self.by_call.entry((call.scope.clone(), call.call_id.clone())).or_default().push(id);
        self.by_user.entry(call.user.clone()).or_default().push(id);
        self.legs.insert(id, leg);
        self.arm(id);
    }

    fn act(&mut self, now: Now, id: LegId, step: impl FnOnce(&mut Leg, &mut Turn<'_>) -> Fate) {
        let Some(leg) = self.legs.get_mut(&id) else { return self.ignored.add(Ignored::Stale) };
        let mut turn = Turn { now, settings: &self.settings, outputs: &mut self.outputs, ignored: &mut self.ignored };
        let fate = step(leg, &mut turn);
        if let ControlFlow::Break(end) = fate
            && let Some(leg) = self.legs.remove(&id)
        {
            let call = leg.finish(&mut turn, end);
            self.forget(id, &call);
            self.bury(now, call);
        }
        self.arm(id);
    }

    /// Nothing more is said in this call, nor about its echoes.
    fn bury(&mut self, now: Now, call: CallKey) {
        if let Some(ours) = call.of_ours(&self.settings.user_id) {
            self.ended.insert(now.instant, ours);
        }
        self.ended.insert(now.instant, call);
    }

    fn forget(&mut self, id: LegId, call: &CallKey) {
        let key = (call.scope.clone(), call.call_id.clone());
        if let Some(ids) = self.by_call.get_mut(&key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_call.remove(&key);
            }
        }
        if let Some(ids) = self.by_user.get_mut(&call.user) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_user.remove(&call.user);
            }
        }
    }

    fn arm(&mut self, id: LegId) {
        let at = self.legs.get(&id).and_then(Leg::deadline);
        let before = match at {
            Some(at) => self.armed.insert(id, at),
            None => self.armed.remove(&id),
        };
        if before != at {
            self.timers.extend(at.map(|at| (at, id)));
            if let Some(before) = before {
                self.timers.remove(&(before, id));
            }
        }
    }
}
