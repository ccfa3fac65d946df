//! All delayed leaves that were delegated to us, who is in which call, and whose turn it is to ask its homeserver. PURE.
//!
//! One job per participant, which is the LiveKit room with the identity in it, and one per delayed event: a client that
//! delegates anew, or the same event for another identity, replaces its job, which then asks for nothing any more, unless
//! the page was reloaded between the two. Each homeserver is asked a few things at a time, the most urgent first, and nothing
//! while it says "too many requests".
//! Driven by `delayed_leaves`; what becomes of a single job is `delayed_leave`'s.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::calls::server_of;
use super::delayed_leave::{Answer, DelayedLeave, End, LONGEST_LIMIT, Request, Step};
use crate::net::{Presence, PresenceChange};
use crate::sfu::Sid;

/// Requests to one homeserver at a time: enough to get through a full server after a restart within seconds, too few to
/// be felt there.
const MOST_UNDER_WAY: usize = 4;

/// As many as a homeserver lets a user schedule (Synapse's limit).
const MOST_PER_USER: usize = 100;

/// More than we have participants, as not all of them are there yet.
const MOST: usize = 20_000;

/// Of one homeserver; a call of this size that reloads as one would be the first.
const MOST_FAREWELLS: usize = 200;

/// A delayed leave that a client has handed over, as it is kept in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// The LiveKit room's name.
    pub room: String,
    /// Of the participant in it.
    pub identity: String,
    /// The Matrix user whose leave it is.
    pub user: String,
    /// What the homeserver calls the delayed event. Whoever knows it can have it sent.
    pub delay_id: String,
    #[serde(rename = "delay_ms", with = "milliseconds")]
    pub delay: Duration,
}

impl Delegation {
    /// The homeserver that has the event.
    pub fn server(&self) -> &str {
        server_of(&self.user)
    }

    fn seat(&self) -> Seat {
        (self.room.clone(), self.identity.clone())
    }

    fn event(&self) -> (String, String) {
        (self.server().to_owned(), self.delay_id.clone())
    }

    /// Its key in the store.
    pub fn key(&self) -> String {
        key(&self.room, &self.identity)
    }
}

fn key(room: &str, identity: &str) -> String {
    serde_json::json!([room, identity]).to_string()
}

/// Room and identity.
type Seat = (String, String);

/// Names a job; never used again.
pub type Serial = u64;

/// What the driver is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the homeserver of `user`, and report the answer with `serial`.
    Ask { serial: Serial, request: Request, user: String, delay_id: String },
    /// Take it out of the store. `end`: how, unless it was replaced.
    Forget { key: String, end: Option<End> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    #[error("this user has delegated too many delayed events")]
    OfUser,
    #[error("too many delayed events are delegated")]
    OfAll,
}

#[derive(Default)]
pub struct Delegations {
    jobs: HashMap<Serial, Job>,
    last: Serial,
    by_seat: HashMap<Seat, Serial>,
    by_event: HashMap<(String, String), Serial>,
    per_user: HashMap<String, usize>,
    /// Sessions that are in a call: two while one takes over from the other.
    sessions: HashMap<Seat, Vec<Sid>>,
    timers: BTreeSet<(Instant, Serial)>,
    /// By server name.
    queues: HashMap<String, Queue>,
    /// Whom the requests under way ask, also for jobs that were replaced meanwhile.
    under_way: HashMap<Serial, String>,
    effects: Vec<Effect>,
}

struct Job {
    delegation: Delegation,
    leave: DelayedLeave,
    place: Place,
    /// Whether the participant has been in the call with it, and whether another session has come since.
    was_in: bool,
    has_returned: bool,
}

/// Where a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Timer(Instant),
    Queue(Instant),
}

/// The jobs that want to ask one homeserver.
#[derive(Default)]
struct Queue {
    /// Leaves of pages that were reloaded.
    farewells: VecDeque<Delegation>,
    ready: BTreeSet<(Instant, Serial)>,
    under_way: usize,
    not_before: Option<Instant>,
}

impl Delegations {
    /// Whether `delegation` would be taken.
    pub fn admit(&self, delegation: &Delegation) -> Result<(), TooMany> {
        if self.by_seat.contains_key(&delegation.seat()) || self.by_event.contains_key(&delegation.event()) {
            return Ok(());
        }
        if self.per_user.get(&delegation.user).is_some_and(|count| *count >= MOST_PER_USER) {
            return Err(TooMany::OfUser);
        }
        if self.jobs.len() >= MOST { Err(TooMany::OfAll) } else { Ok(()) }
    }

    /// Takes a job over from a client. `restarted_at`: when its delay was restarted just now, if it was.
    pub fn delegate(&mut self, now: Instant, delegation: Delegation, restarted_at: Option<Instant>) -> Serial {
        let is_in = self.sessions.contains_key(&delegation.seat());
        let leave = DelayedLeave::delegated(now, delegation.delay, restarted_at, is_in);
        self.insert(now, delegation, leave, is_in)
    }

    /// Takes up what an earlier process had.
    pub fn reload(&mut self, now: Instant, delegation: Delegation) -> Serial {
        let leave = DelayedLeave::reloaded(now, delegation.delay);
        self.insert(now, delegation, leave, true)
    }

    fn insert(&mut self, now: Instant, delegation: Delegation, leave: DelayedLeave, was_in: bool) -> Serial {
        if let Some(older) = self.by_seat.get(&delegation.seat()).copied()
            && let Some(job) = self.remove(older)
            && job.has_returned
            && job.delegation.delay_id != delegation.delay_id
        {
            self.send_for_good(job.delegation);
        }
        if let Some(queue) = self.queues.get_mut(delegation.server()) {
            queue.farewells.retain(|farewell| farewell.delay_id != delegation.delay_id);
        }
        // Two jobs for one event would send each other's leave.
        if let Some(elsewhere) = self.by_event.get(&delegation.event()).copied()
            && let Some(job) = self.remove(elsewhere)
        {
            self.effects.push(Effect::Forget { key: job.delegation.key(), end: None });
        }
        self.last += 1;
        let serial = self.last;
        self.by_seat.insert(delegation.seat(), serial);
        self.by_event.insert(delegation.event(), serial);
        *self.per_user.entry(delegation.user.clone()).or_default() += 1;
        let job = Job { delegation, leave, place: Place::Nowhere, was_in, has_returned: false };
        self.jobs.insert(serial, job);
        self.settle(now, serial);
        serial
    }

    /// Ends the membership of a page that is no more: the participant came back with a new delayed leave, so the page was
    /// reloaded. To the others it is a member as before, and they would never send its keys to the new page; the new page
    /// sees that its membership is gone, and joins anew. Tried once: most failures are that the event is gone.
    fn send_for_good(&mut self, delegation: Delegation) {
        let queue = self.queues.entry(delegation.server().to_owned()).or_default();
        if queue.farewells.len() < MOST_FAREWELLS {
            queue.farewells.push_back(delegation);
        }
    }

    /// The job could not be stored, and its client was told so.
    pub fn withdraw(&mut self, serial: Serial) {
        self.remove(serial);
    }

    pub fn note(&mut self, now: Instant, presence: &Presence) {
        let seat = (presence.room.clone(), presence.identity.clone());
        let job = self.by_seat.get(&seat).and_then(|serial| self.jobs.get_mut(serial));
        match presence.change {
            PresenceChange::Joined => {
                self.sessions.entry(seat.clone()).or_default().push(presence.sid.clone());
                if let Some(job) = job {
                    job.leave.joined();
                    job.has_returned = job.was_in;
                    job.was_in = true;
                }
            }
            PresenceChange::Connected => return,
            PresenceChange::Left(reason) => {
                let Some(sids) = self.sessions.get_mut(&seat) else { return };
                sids.retain(|sid| *sid != presence.sid);
                if !sids.is_empty() {
                    return;
                }
                self.sessions.remove(&seat);
                if let Some(job) = job {
                    job.leave.left(now, reason);
                }
            }
        }
        if let Some(serial) = self.by_seat.get(&seat).copied() {
            self.settle(now, serial);
        }
    }

    pub fn answered(&mut self, now: Instant, serial: Serial, answer: Answer) {
        if let Some(server) = self.under_way.remove(&serial)
            && let Some(queue) = self.queues.get_mut(&server)
        {
            queue.under_way -= 1;
            if let Answer::Limited(wait) = answer {
                queue.not_before = queue.not_before.max(Some(now + wait.min(LONGEST_LIMIT)));
            }
        }
        if let Some(job) = self.jobs.get_mut(&serial) {
            let step = job.leave.answered(now, answer);
            self.follow(serial, step);
        }
    }

    /// Does what is due; returns when to come back, unless something happens before.
    pub fn advance(&mut self, now: Instant) -> Option<Instant> {
        while let Some((at, serial)) = self.timers.first().copied()
            && at <= now
        {
            self.settle(now, serial);
        }
        let servers: Vec<String> = self.queues.keys().cloned().collect();
        for server in servers {
            self.dispatch(now, &server);
        }
        self.queues.retain(|_, queue| !queue.is_idle(now));
        let opens = self.queues.values().filter(|queue| !queue.is_empty()).filter_map(|queue| queue.not_before);
        opens.filter(|at| *at > now).chain(self.timers.first().map(|(at, _)| *at)).min()
    }

    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub fn count(&self) -> usize {
        self.jobs.len()
    }

    fn settle(&mut self, now: Instant, serial: Serial) {
        if let Some(job) = self.jobs.get_mut(&serial) {
            let step = job.leave.step(now);
            self.follow(serial, step);
        }
    }

    /// Puts a job where it waits for what comes next.
    fn follow(&mut self, serial: Serial, step: Step) {
        let place = match step {
            Step::Ask { by, .. } => Place::Queue(by),
            Step::Wait(until) => until.map_or(Place::Nowhere, Place::Timer),
            Step::Forget(end) => {
                if let Some(job) = self.remove(serial) {
                    self.effects.push(Effect::Forget { key: job.delegation.key(), end: Some(end) });
                }
                return;
            }
        };
        self.take_out(serial);
        let Some(job) = self.jobs.get_mut(&serial) else { return };
        job.place = place;
        match place {
            Place::Nowhere => {}
            Place::Timer(at) => drop(self.timers.insert((at, serial))),
            Place::Queue(by) => {
                let queue = self.queues.entry(job.delegation.server().to_owned()).or_default();
                queue.ready.insert((by, serial));
            }
        }
    }

    fn take_out(&mut self, serial: Serial) {
        let Some(job) = self.jobs.get_mut(&serial) else { return };
        match std::mem::replace(&mut job.place, Place::Nowhere) {
            Place::Nowhere => {}
            Place::Timer(at) => drop(self.timers.remove(&(at, serial))),
            Place::Queue(by) => {
                if let Some(queue) = self.queues.get_mut(job.delegation.server()) {
                    queue.ready.remove(&(by, serial));
                }
            }
        }
    }

    fn remove(&mut self, serial: Serial) -> Option<Job> {
        self.take_out(serial);
        let job = self.jobs.remove(&serial)?;
        self.by_seat.remove(&job.delegation.seat());
        self.by_event.remove(&job.delegation.event());
        if let Some(count) = self.per_user.get_mut(&job.delegation.user) {
            *count -= 1;
            if *count == 0 {
                self.per_user.remove(&job.delegation.user);
            }
        }
        Some(job)
    }

    fn dispatch(&mut self, now: Instant, server: &str) {
        while let Some(Delegation { user, delay_id, .. }) = self.queues.get_mut(server).and_then(|q| q.farewell(now)) {
            self.last += 1;
            self.effects.push(Effect::Ask { serial: self.last, request: Request::Send, user, delay_id });
            self.under_way.insert(self.last, server.to_owned());
        }
        while let Some(serial) = self.queues.get(server).and_then(|queue| queue.next(now)) {
            let Some(job) = self.jobs.get_mut(&serial) else { return };
            // Time has passed in the queue: it may be another request now, or none.
            let step = job.leave.step(now);
            let Step::Ask { request, .. } = step else {
                self.follow(serial, step);
                continue;
            };
            job.leave.asked(now, request);
            let Delegation { user, delay_id, .. } = &job.delegation;
            let ask = Effect::Ask { serial, request, user: user.clone(), delay_id: delay_id.clone() };
            self.effects.push(ask);
            self.under_way.insert(serial, server.to_owned());
            self.settle(now, serial);
            if let Some(queue) = self.queues.get_mut(server) {
                queue.under_way += 1;
            }
        }
    }
}

impl Queue {
    fn is_open(&self, now: Instant) -> bool {
        self.under_way < MOST_UNDER_WAY && self.not_before.is_none_or(|at| at <= now)
    }

    /// The next of the farewells, which is under way then.
    fn farewell(&mut self, now: Instant) -> Option<Delegation> {
        let farewell = self.is_open(now).then(|| self.farewells.pop_front()).flatten();
        self.under_way += usize::from(farewell.is_some());
        farewell
    }

    fn next(&self, now: Instant) -> Option<Serial> {
        self.ready.first().filter(|_| self.is_open(now)).map(|(_, serial)| *serial)
    }

    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.farewells.is_empty()
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.is_empty() && self.under_way == 0 && self.not_before.is_none_or(|at| at <= now)
    }
}

/// Whole milliseconds, as Matrix has them.
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests;
