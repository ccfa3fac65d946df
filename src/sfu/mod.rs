//! The rooms: who is in them, what they publish, and who gets it rewritten how. Pure: no sockets, no clock, no threads.
//!
//! One [`Sfu`] belongs to one worker thread and owns its rooms, their participants and their peer connections. Front doors
//! (`livekit`, later `focus` and WHIP) call its methods and carry out its [`Event`]s; `net` feeds datagrams and sends
//! what is in [`Sfu::outbox`].
//!
//! The way of a packet: [`Sfu::receive`] finds the connection, which decrypts it → [`forwarding`] puts it into the track's
//! [`PacketCache`](packet_cache::PacketCache) → [`Sfu::drive`] sends all that came through the track's
//! [`DownTrack`](down_track::DownTrack)s ([`fan_out`]) → each subscriber's connection encrypts it into [`Sfu::outbox`].
//! The way of a join: [`Sfu::join`] → [`Room`] → offer and answer in [`publication`] and [`subscription`].

mod active_speaker;
mod allocation;
mod allocator;
mod allowance;
mod arrivals;
mod connection_quality;
mod dominant_speaker;
mod down_track;
mod down_tracks;
mod dynacast;
mod event;
mod fan_out;
mod forwarder;
mod forwarding;
mod frame_reader;
mod ids;
mod info;
mod keyframe;
mod layer_activity;
mod layer_rate;
mod layer_selector;
mod line_watch;
mod loudest;
mod moderation;
mod pacer;
mod packet_cache;
mod participant;
mod participants;
mod pictures;
mod publication;
mod room;
mod routes;
mod subscription;
mod timers;
mod track;
mod updates;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::transport::classify::{self, Datagram as Classified};
use crate::transport::{Datagram, Outbox, Settings};
use fan_out::FanOut;
use ids::Ids;
use participants::Slot;
use room::Room;
use routes::Routes;
use timers::{Timer, Timers};

pub use connection_quality::ConnectionQuality;
pub use event::{DataChannel, Description, Event, EventKind, FailureReason, LineState, StreamState, Verdict};
pub use ids::WorkerId;
pub use info::*;
pub use layer_selector::TrackSettings;
pub(crate) use loudest::Loudest;
pub use room::RoomOptions;
pub use routes::AddressChange;

/// A join that has no media after this long has failed; what LiveKit allows.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The only clock the pure modules see.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub instant: Instant,
    /// Unix milliseconds, for what people and tokens read.
    pub unix_ms: u64,
}

/// How a participant's peer connections are negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Negotiation {
    /// One connection, the client always offers (LiveKit v1, WHIP, `m.call.*`).
    Single,
    /// Two: the client offers the upstream one, we offer the downstream one (LiveKit v0).
    Dual,
}

/// A participant as its token describes it.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    pub identity: String,
    pub name: String,
    pub metadata: String,
    pub attributes: BTreeMap<String, String>,
    pub permissions: Permissions,
    pub negotiation: Negotiation,
    /// Hear and see everybody without asking.
    pub auto_subscribe: bool,
    /// The client says how large it shows each track, so we begin with the lowest layer.
    pub adaptive_stream: bool,
    pub client_protocol: i32,
    /// Make the room when it does not exist.
    pub create_room: bool,
}

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum JoinError {
    #[error("requested room does not exist")]
    RoomMissing,
    #[error("the room is full")]
    RoomFull,
    #[error("the server is full")]
    TooManyParticipants,
}

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum AddTrackError {
    #[error("not allowed to publish this source")]
    NotAllowed,
    #[error("a track with this id is already published")]
    AlreadyPublished,
    #[error("too many tracks")]
    LimitExceeded,
}

/// What one worker may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_participants: usize,
    pub max_rooms: usize,
}

/// What moved through the worker since it started; for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub rooms: usize,
    pub participants: usize,
    pub tracks: usize,
    /// User fragments and addresses that lead to a connection.
    pub routes: usize,
    /// Deadlines that wait.
    pub timers: usize,
    pub packets_received: u64,
    pub bytes_received: u64,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    /// Media packets on their way to one subscriber each.
    pub packets_forwarded: u64,
    /// Malformed packets, and those of no connection.
    pub packets_unknown: u64,
    /// Longer than any peer of ours sends.
    pub packets_oversized: u64,
    pub keyframes_requested: u64,
    /// Packets that waited so as not to leave in a burst.
    pub packets_paced: u64,
    /// Packets that a receiver asked for again, and that were still there.
    pub packets_resent: u64,
    /// The same, but they were not.
    pub packets_expired: u64,
    /// Subscribers that were shown a picture out of the cache.
    pub pictures_replayed: u64,
    /// How often a connection was woken by its own timer: ICE, DTLS, SCTP, RTCP.
    pub wakeups: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct RoomId(u64);

/// A track's key inside its room. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct TrackKey(u64);

/// One of a participant's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Side {
    /// What the client offers: upstream, and with [`Negotiation::Single`] downstream too.
    Publisher,
    /// What we offer, with [`Negotiation::Dual`].
    Subscriber,
}

/// The way to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Link {
    room: RoomId,
    participant: ParticipantId,
    /// Where the room keeps the participant.
    slot: Slot,
    side: Side,
}

/// What every step of the worker may touch beside the room it works on.
struct Turn {
    settings: Settings,
    ids: Ids,
    timers: Timers,
    routes: Routes,
    events: VecDeque<Event>,
    outbox: Outbox,
    /// Tracks with packets to forward.
    fan_out: FanOut,
    /// Connections written to since they were drained last.
    dirty: Vec<Link>,
    /// Participants that a step found to be gone.
    leaving: Vec<(ParticipantId, LeaveReason)>,
    counts: Counts,
}

impl Turn {
    fn emit(&mut self, to: ParticipantId, kind: EventKind) {
        self.events.push_back(Event { to, kind });
    }
}

pub struct Sfu {
    rooms: HashMap<RoomId, Room>,
    names: HashMap<String, RoomId>,
    /// Which room a participant is in.
    members: HashMap<ParticipantId, RoomId>,
    last_id: u64,
    limits: Limits,
    turn: Turn,
}

impl Sfu {
    /// `seed` must come from the system's randomness: ICE passwords are drawn from it.
    pub fn new(settings: Settings, limits: Limits, seed: [u8; 32]) -> Self {
        Sfu {
            rooms: HashMap::new(),
            names: HashMap::new(),
            members: HashMap::new(),
            last_id: 0,
            limits,
            turn: Turn {
                settings,
                ids: Ids::new(seed),
                timers: Timers::default(),
                routes: Routes::default(),
                events: VecDeque::new(),
                outbox: Outbox::default(),
                fan_out: FanOut::default(),
                dirty: Vec::new(),
                leaving: Vec::new(),
                counts: Counts::default(),
            },
        }
    }

    /// Makes it one of several workers behind one port: its user fragments say whose they are, and
    /// [`Self::poll_address_change`] tells what the others need to know.
    pub fn among_others(mut self, worker: WorkerId) -> Self {
        self.turn.ids.set_worker(worker);
        self.turn.routes.tell_others();
        self
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    // --- rooms -------------------------------------------------------------------------------------------------

    /// Makes a room, or gives the one that exists.
    pub fn create_room(&mut self, now: Now, name: &str, options: RoomOptions) -> Result<RoomInfo, JoinError> {
        if let Some(info) = self.room(name) {
            return Ok(info);
        }
        if self.rooms.len() >= self.limits.max_rooms {
            return Err(JoinError::TooManyParticipants);
        }
        let id = RoomId(self.next_id());
        let mut room = Room::new(now, id, name, options, &mut self.turn);
        room.watch_emptiness(now, &mut self.turn);
        let info = room.info();
        self.names.insert(name.to_owned(), id);
        self.rooms.insert(id, room);
        Ok(info)
    }

    pub fn room(&self, name: &str) -> Option<RoomInfo> {
        Some(self.rooms.get(self.names.get(name)?)?.info())
    }

    pub fn has_room(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub fn room_count(&self) -> usize {
        self.rooms.len()
    }

    /// In all rooms.
    pub fn participant_count(&self) -> usize {
        self.members.len()
    }

    /// Ends a room: everybody in it leaves with [`LeaveReason::RoomDeleted`]. False when there is none.
    pub fn delete_room(&mut self, now: Now, name: &str) -> bool {
        let Some(id) = self.names.get(name).copied() else { return false };
        self.end_room(now, id, LeaveReason::RoomDeleted);
        true
    }

    /// Everybody out, with a reason their clients understand as "come back".
    pub fn shut_down(&mut self, now: Now) {
        let mut ids: Vec<RoomId> = self.rooms.keys().copied().collect();
        // Not in the order of a hash, which differs from run to run.
        ids.sort();
        for id in ids {
            self.end_room(now, id, LeaveReason::ServerShutdown);
        }
    }

    fn end_room(&mut self, now: Now, id: RoomId, reason: LeaveReason) {
        let Some(mut room) = self.rooms.remove(&id) else { return };
        self.names.remove(room.name());
        for participant in room.participant_ids() {
            room.leave(now, participant, reason, &mut self.turn);
            self.members.remove(&participant);
        }
    }

    // --- participants --------------------------------------------------------------------------------------------

    /// Puts a participant into a room. An older session of the same identity is replaced.
    pub fn join(&mut self, now: Now, room: &str, options: JoinOptions) -> Result<ParticipantId, JoinError> {
        if !self.names.contains_key(room) {
            if !options.create_room {
                return Err(JoinError::RoomMissing);
            }
            self.create_room(now, room, RoomOptions::default())?;
        }
        if self.members.len() >= self.limits.max_participants {
            return Err(JoinError::TooManyParticipants);
        }
        let id = ParticipantId(self.next_id());
        let room_id = self.names[room];
        let room = self.rooms.get_mut(&room_id).expect("names and rooms agree");
        if let Some(older) = room.by_identity(&options.identity) {
            room.leave(now, older, LeaveReason::DuplicateIdentity, &mut self.turn);
            self.members.remove(&older);
        }
        room.join(now, id, options, &mut self.turn)?;
        self.members.insert(id, room_id);
        Ok(id)
    }

    fn in_room<R>(&mut self, id: ParticipantId, act: impl FnOnce(&mut Room, &mut Turn) -> R) -> Option<R> {
        let room = self.rooms.get_mut(self.members.get(&id)?)?;
        Some(act(room, &mut self.turn))
    }

    fn room_with(&self, id: ParticipantId) -> Option<&Room> {
        self.rooms.get(self.members.get(&id)?)
    }

    pub fn info(&self, id: ParticipantId) -> Option<ParticipantInfo> {
        self.room_with(id)?.participant_info(id)
    }

    pub fn room_of(&self, id: ParticipantId) -> Option<RoomInfo> {
        Some(self.room_with(id)?.info())
    }

    /// Everyone else in the room, hidden ones left out.
    pub fn others(&self, id: ParticipantId) -> Vec<ParticipantInfo> {
        self.room_with(id).map(|room| room.others(id)).unwrap_or_default()
    }

    /// Everyone in the room, the asked one included: for routing data.
    pub fn ids_in_room_of(&self, id: ParticipantId) -> Vec<(ParticipantId, Sid, String)> {
        self.room_with(id).map(Room::identities).unwrap_or_default()
    }

    pub fn update_metadata(
        &mut self,
        id: ParticipantId,
        name: Option<String>,
        metadata: Option<String>,
        attributes: BTreeMap<String, String>,
    ) {
        self.in_room(id, |room, turn| room.update_metadata(id, name, metadata, attributes, turn));
    }

    pub fn leave(&mut self, now: Now, id: ParticipantId, reason: LeaveReason) {
        self.in_room(id, |room, turn| room.leave(now, id, reason, turn));
        self.members.remove(&id);
    }

    /// Signalling is gone. A participant whose media lives is kept, so that it can resume; another one leaves.
    pub fn signal_lost(&mut self, now: Now, id: ParticipantId) {
        if self.in_room(id, |room, _| room.signal_lost(now, id)) == Some(false) {
            self.leave(now, id, LeaveReason::SignalClosed);
        }
    }

    /// Signalling is back. The connection that we offer is offered anew with an ICE restart, as its client expects.
    pub fn signal_resumed(&mut self, now: Now, id: ParticipantId) {
        self.in_room(id, |room, turn| room.signal_resumed(now, id, turn));
    }

    // --- negotiation and media ------------------------------------------------------------------------------------

    /// The client's offer for its publisher connection. Answered by [`EventKind::Answer`]; an offer that cannot be used ends
    /// the participant with [`LeaveReason::StateMismatch`], which makes its client start over.
    pub fn offer(&mut self, now: Now, id: ParticipantId, offer_id: u32, sdp: &str) {
        let accepted = self.in_room(id, |room, turn| room.accept_offer(now, id, offer_id, sdp, turn));
        self.end_on_mismatch(now, id, accepted);
    }

    /// The client's answer to our offer. One to an older offer is ignored.
    pub fn answer(&mut self, now: Now, id: ParticipantId, offer_id: u32, sdp: &str) {
        let accepted = self.in_room(id, |room, turn| room.accept_answer(now, id, offer_id, sdp, turn));
        self.end_on_mismatch(now, id, accepted);
    }

    fn end_on_mismatch(&mut self, now: Now, id: ParticipantId, accepted: Option<bool>) {
        if accepted == Some(false) {
            self.leave(now, id, LeaveReason::StateMismatch);
        }
    }

    pub fn add_track(&mut self, now: Now, id: ParticipantId, track: NewTrack) -> Result<TrackInfo, AddTrackError> {
        let added = self.in_room(id, |room, turn| room.add_track(now, id, track, turn));
        added.unwrap_or(Err(AddTrackError::NotAllowed))
    }

    /// Whether the participant has such a track.
    pub fn set_muted(&mut self, now: Now, id: ParticipantId, track: &Sid, muted: bool) -> bool {
        self.in_room(id, |room, turn| room.set_muted(now, id, track, muted, turn)).unwrap_or(false)
    }

    pub fn subscribe(&mut self, now: Now, id: ParticipantId, tracks: &[Sid], on: bool) {
        self.in_room(id, |room, turn| room.set_subscriptions(now, id, tracks, on, turn));
    }

    pub fn track_settings(&mut self, now: Now, id: ParticipantId, tracks: &[Sid], settings: TrackSettings) {
        self.in_room(id, |room, turn| room.set_track_settings(now, id, tracks, settings, turn));
    }

    /// Sends a message to one participant. Dropped when its channel is not open, or when it reads too slowly.
    pub fn send_data(&mut self, to: ParticipantId, channel: DataChannel, message: &[u8]) {
        self.in_room(to, |room, turn| room.send_data(to, channel, message, turn));
    }

    // --- input and output -----------------------------------------------------------------------------------------

    /// A datagram from the network. Call [`Self::drive`] after a batch of them.
    pub fn receive(&mut self, now: Now, datagram: Datagram<'_>) {
        let counts = &mut self.turn.counts;
        counts.packets_received += 1;
        counts.bytes_received += datagram.bytes.len() as u64;
        let key = (datagram.protocol, datagram.source);
        let link = match classify::classify(datagram.bytes) {
            // Checks are addressed by user fragment, so that one arriving from a new address finds its connection.
            Classified::Stun { local_ufrag: Some(ufrag) } => self.turn.routes.ufrags.get(ufrag),
            Classified::Stun { local_ufrag: None } | Classified::Dtls | Classified::Rtp => {
                self.turn.routes.addresses.get(&key)
            }
            Classified::Oversized => {
                counts.packets_oversized += 1;
                return;
            }
            Classified::Turn | Classified::Unknown => None,
        };
        let Some(link) = link.copied() else {
            counts.packets_unknown += 1;
            return;
        };
        if let Some(room) = self.rooms.get_mut(&link.room) {
            room.receive(now, link, datagram, &mut self.turn);
        }
    }

    /// Does what is due: timers, and what the datagrams and calls before left to send. Stops when the [`Self::outbox`] is
    /// full; call again after sending while this gives true.
    pub fn drive(&mut self, now: Now) -> bool {
        loop {
            if self.turn.outbox.is_full() {
                return true;
            }
            if let Some((room, track)) = self.turn.fan_out.next() {
                let left = self.rooms.get_mut(&room).is_some_and(|room| !room.fan_out(now, track, &mut self.turn));
                if !left {
                    self.turn.fan_out.done((room, track));
                }
                continue;
            }
            if let Some(link) = self.turn.dirty.pop() {
                if let Some(room) = self.rooms.get_mut(&link.room) {
                    room.drain(now, link, &mut self.turn);
                }
                continue;
            }
            if let Some((id, reason)) = self.turn.leaving.pop() {
                self.leave(now, id, reason);
                continue;
            }
            let Some((at, timer)) = self.turn.timers.pop_due(now.instant) else { return false };
            self.handle_timer(now, at, timer);
        }
    }

    fn handle_timer(&mut self, now: Now, at: Instant, timer: Timer) {
        let room_id = match timer {
            Timer::Connection(link) | Timer::Pacer(link) => link.room,
            Timer::Participant(room, _) | Timer::Allocation(room, _) | Timer::Track(room, _) => room,
            Timer::Speakers(room) | Timer::Updates(room) | Timer::Lines(room) | Timer::Room(room) => room,
        };
        let Some(room) = self.rooms.get_mut(&room_id) else { return };
        match timer {
            Timer::Connection(link) => room.connection_due(at, link, &mut self.turn),
            Timer::Pacer(link) => room.pacer_due(now, at, link, &mut self.turn),
            Timer::Track(_, track) => room.track_due(now, at, track, &mut self.turn),
            Timer::Updates(_) => room.updates_due(at, &mut self.turn),
            Timer::Speakers(_) => room.speakers_due(now, at, &mut self.turn),
            Timer::Lines(_) => room.lines_due(now, at, &mut self.turn),
            Timer::Allocation(_, id) => room.allocation_due(now, at, id, &mut self.turn),
            Timer::Participant(_, id) => {
                if let Some(reason) = room.participant_due(now, at, id, &mut self.turn) {
                    self.leave(now, id, reason);
                }
            }
            Timer::Room(_) => {
                if room.is_over(now, at, &mut self.turn) {
                    self.end_room(now, room_id, LeaveReason::RoomDeleted);
                }
            }
        }
    }

    /// When [`Self::drive`] has something to do next, if nothing arrives before.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.turn.timers.next()
    }

    /// Packets to send. The caller clears it afterwards.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.turn.outbox
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.turn.events.pop_front()
    }

    /// Only with [`Self::among_others`].
    pub fn poll_address_change(&mut self) -> Option<AddressChange> {
        self.turn.routes.poll_change()
    }

    pub fn counts(&self) -> Counts {
        let sent = self.turn.outbox.written();
        Counts {
            rooms: self.rooms.len(),
            participants: self.members.len(),
            tracks: self.rooms.values().map(Room::track_count).sum(),
            packets_sent: sent.packets,
            bytes_sent: sent.bytes,
            routes: self.turn.routes.ufrags.len() + self.turn.routes.addresses.len(),
            timers: self.turn.timers.len(),
            ..self.turn.counts
        }
    }
}
