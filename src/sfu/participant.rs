//! One participant: who it is, its connections, and where its negotiation stands. Owned by its [`Room`](super::room::Room).

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::allocator::Allocator;
use super::allowance::Allowance;
use super::event::FailureReason;
use super::forwarder::Outgoing;
use super::info::{Codec, LeaveReason, MediaKind, ParticipantId, ParticipantInfo, ParticipantState, Permissions, Sid};
use super::pacer::{Paced, Pacer};
use super::participants::Slot;
use super::timers::{Alarm, Timer};
use super::{JoinOptions, Link, Negotiation, Now, RoomId, Side, TrackKey, Turn};
use crate::rtp::Rewrite;
use crate::transport::{MediaPacket, Origin, OutgoingPacket, Progress, Protocol, SenderId, Transport};

/// Addresses one connection may be reached at; a client that moves between networks needs a few, a flood gets no more.
const MAX_ADDRESSES: usize = 20;

pub(super) struct Participant {
    pub id: ParticipantId,
    /// Given by [`Participants`](super::participants::Participants).
    pub slot: Slot,
    pub sid: Sid,
    pub identity: String,
    pub name: String,
    pub metadata: String,
    pub attributes: BTreeMap<String, String>,
    pub permissions: Permissions,
    pub negotiation: Negotiation,
    pub auto_subscribe: bool,
    pub adaptive_stream: bool,
    pub client_protocol: i32,
    pub state: ParticipantState,
    pub version: u32,
    pub joined_at: Now,
    pub leave_reason: Option<LeaveReason>,
    pub publisher: Option<Connection>,
    pub subscriber: Option<Connection>,
    /// What it announced or publishes.
    pub published: Vec<TrackKey>,
    /// Which of its tracks arrives in which section of the publisher connection.
    pub sections: BTreeMap<usize, TrackKey>,
    /// What it hears and sees.
    pub subscribed: BTreeMap<TrackKey, Option<SenderId>>,
    /// What of it the network carries.
    pub allocator: Allocator<TrackKey>,
    pub allocation_alarm: Alarm,
    /// Bits per second that all it wants to hear and see takes.
    pub desired: u64,
    /// Which track a stream on the connection carries: for what its receiver asks.
    pub senders: HashMap<SenderId, TrackKey>,
    pub downstream: Downstream,
    /// Since when its signalling is gone.
    pub signal_lost_at: Option<Instant>,
    pub alarm: Alarm,
}

/// Where the negotiation of what we send stands.
#[derive(Debug, Default)]
pub(super) struct Downstream {
    /// When to ask for, or make, the next description.
    pub due: Option<Instant>,
    /// Sections asked for since the last answer: (audio, video). [`Negotiation::Single`].
    pub requested: Option<(u32, u32)>,
    /// When it was last described to the client.
    pub described_at: Option<Instant>,
    /// Number of our last offer, and since when it waits for an answer. [`Negotiation::Dual`].
    pub offer_id: u32,
    pub offered_at: Option<Instant>,
    /// Something changed while an offer was out.
    pub stale: bool,
    /// An offer is due although no stream changed. [`Negotiation::Dual`].
    pub forced: bool,
}

pub(super) struct Connection {
    link: Link,
    pub transport: Transport,
    ufrag: String,
    addresses: Vec<(Protocol, SocketAddr)>,
    pub pacer: Pacer<Paced>,
    allowance: Allowance,
    pub alarm: Alarm,
    pub dirty: bool,
}

impl Connection {
    pub fn new(mut transport: Transport, link: Link, turn: &mut Turn) -> Self {
        let ufrag = transport.ufrag();
        turn.routes.ufrags.insert(ufrag.clone(), link);
        Connection {
            link,
            transport,
            ufrag,
            addresses: Vec::new(),
            pacer: Pacer::default(),
            allowance: Allowance::default(),
            alarm: Alarm::default(),
            dirty: false,
        }
    }

    /// Something was written or changed: it wants to be drained.
    pub fn touch(&mut self, turn: &mut Turn) {
        if !self.dirty {
            self.dirty = true;
            turn.dirty.push(self.link);
        }
    }

    /// The transport has something to do then.
    fn wake_at(&mut self, now: Now, at: Instant, turn: &mut Turn) {
        if at <= now.instant {
            self.touch(turn);
        } else {
            self.alarm.set(at, Timer::Connection(self.link), &mut turn.timers);
        }
    }

    /// Sends a packet of a track to its subscriber: at once, or when those before it have left.
    pub fn forward(
        &mut self,
        now: Now,
        (track, sender): (TrackKey, SenderId),
        out: &Outgoing,
        packet: &MediaPacket,
        turn: &mut Turn,
    ) {
        // Speech waits for nothing: it is small, and late it is useless.
        if packet.codec.kind() == MediaKind::Audio || self.pacer.admit(now.instant) {
            self.send(now, sender, out, packet, turn);
            return;
        }
        let origin = Origin { layer: packet.layer, sequence: packet.sequence };
        let due = self.pacer.push(now.instant, Paced { track, sender, origin, out: *out });
        self.pacer.alarm.set(due, Timer::Pacer(self.link), &mut turn.timers);
        turn.counts.packets_paced += 1;
    }

    pub fn send(&mut self, now: Now, sender: SenderId, out: &Outgoing, packet: &MediaPacket, turn: &mut Turn) {
        let unwrapped = matches!(out.rewrite, Rewrite::Primary { .. });
        let packet = OutgoingPacket {
            sequence: out.sequence,
            timestamp: out.timestamp,
            marker: out.marker,
            codec: if unwrapped { Codec::Opus } else { packet.codec },
            payload: &packet.payload,
            rewrite: out.rewrite,
            dependency: out.dependency,
            extensions: &packet.extensions,
            arrival: packet.arrival,
            sender_time: packet.sender_time,
            origin: Origin { layer: packet.layer, sequence: packet.sequence },
        };
        if let Some(at) = self.transport.send(now.instant, sender, &packet, &mut turn.outbox) {
            self.wake_at(now, at, turn);
        }
        turn.counts.packets_forwarded += 1;
    }

    /// After an ICE restart datagrams carry the new user fragment; the old one stays valid until the new pair is up.
    pub fn refresh_ufrag(&mut self, turn: &mut Turn) {
        let ufrag = self.transport.ufrag();
        if ufrag != self.ufrag {
            turn.routes.ufrags.remove(&self.ufrag);
            turn.routes.ufrags.insert(ufrag.clone(), self.link);
            self.ufrag = ufrag;
        }
    }

    /// Something came for this connection, from whomever.
    pub fn heard(&mut self, from: (Protocol, SocketAddr), bytes: usize) {
        if self.transport.progress() < Progress::Connected {
            self.allowance.received(from, bytes);
        }
    }

    /// Whether so much may be sent to an address that may not be the client's.
    pub fn may_send(&mut self, to: (Protocol, SocketAddr), bytes: usize) -> bool {
        self.transport.progress() >= Progress::Connected || self.allowance.take(to, bytes)
    }

    /// We answered something from this address, so it proved to know the connection's password: what comes from there
    /// without a name is this connection's. An address in use by another connection is not taken over.
    pub fn learn_address(&mut self, key: (Protocol, SocketAddr), turn: &mut Turn) {
        if self.addresses.contains(&key) || turn.routes.addresses.contains_key(&key) {
            return;
        }
        if self.addresses.len() == MAX_ADDRESSES {
            let oldest = self.addresses.remove(0);
            turn.routes.forget(oldest);
        }
        self.addresses.push(key);
        turn.routes.learn(key, self.link);
    }

    pub fn forget(&self, turn: &mut Turn) {
        turn.routes.ufrags.remove(&self.ufrag);
        for key in &self.addresses {
            turn.routes.forget(*key);
        }
    }
}

impl Participant {
    pub fn new(now: Now, id: ParticipantId, options: JoinOptions, turn: &mut Turn) -> Self {
        let offer_id = turn.ids.first_offer();
        Participant {
            id,
            slot: Slot::default(),
            sid: turn.ids.participant(),
            identity: options.identity,
            name: options.name,
            metadata: options.metadata,
            attributes: options.attributes,
            permissions: options.permissions,
            negotiation: options.negotiation,
            auto_subscribe: options.auto_subscribe,
            adaptive_stream: options.adaptive_stream,
            client_protocol: options.client_protocol,
            state: ParticipantState::Joined,
            version: 1,
            joined_at: now,
            leave_reason: None,
            publisher: None,
            subscriber: None,
            published: Vec::new(),
            sections: BTreeMap::new(),
            subscribed: BTreeMap::new(),
            allocator: Allocator::new(),
            allocation_alarm: Alarm::default(),
            desired: 0,
            senders: HashMap::new(),
            downstream: Downstream { offer_id, ..Downstream::default() },
            signal_lost_at: None,
            alarm: Alarm::default(),
        }
    }

    pub fn connection(&mut self, side: Side) -> Option<&mut Connection> {
        match side {
            Side::Publisher => self.publisher.as_mut(),
            Side::Subscriber => self.subscriber.as_mut(),
        }
    }

    pub fn link(&self, room: RoomId, side: Side) -> Link {
        Link { room, participant: self.id, slot: self.slot, side }
    }

    /// The side we send on.
    pub fn downstream_side(&self) -> Side {
        match self.negotiation {
            Negotiation::Single => Side::Publisher,
            Negotiation::Dual => Side::Subscriber,
        }
    }

    /// The connection whose state is the participant's: for v0 the one we send on, unless it may not subscribe.
    pub fn primary_side(&self) -> Side {
        if self.permissions.can_subscribe { self.downstream_side() } else { Side::Publisher }
    }

    /// The connection we send on, to look at.
    pub fn sending(&self) -> Option<&Connection> {
        match self.downstream_side() {
            Side::Publisher => self.publisher.as_ref(),
            Side::Subscriber => self.subscriber.as_ref(),
        }
    }

    pub fn downstream_connection(&mut self) -> Option<&mut Connection> {
        self.connection(self.downstream_side())
    }

    fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.publisher.iter().chain(&self.subscriber)
    }

    /// When any of its connections was heard last.
    pub fn last_heard(&self) -> Option<Instant> {
        self.connections().map(|c| c.transport.last_received()).max()
    }

    /// Whether media could still flow after signalling is gone.
    pub fn media_alive(&self) -> bool {
        self.state == ParticipantState::Active
            && self.connections().any(|c| c.transport.progress() == Progress::Connected)
    }

    /// Why a join that never became active failed, as far as its connections tell.
    pub fn failure(&self, reason: LeaveReason) -> FailureReason {
        match reason {
            LeaveReason::ClientInitiated | LeaveReason::SignalClosed => return FailureReason::ClientLeft,
            LeaveReason::DuplicateIdentity => return FailureReason::Replaced,
            LeaveReason::StateMismatch => return FailureReason::BadDescription,
            LeaveReason::RoomDeleted
            | LeaveReason::ServerShutdown
            | LeaveReason::ServerFault
            | LeaveReason::Removed => return FailureReason::RoomClosed,
            LeaveReason::JoinTimeout | LeaveReason::ConnectionTimeout => {}
        }
        let progress = match self.primary_side() {
            Side::Publisher => self.publisher.as_ref(),
            Side::Subscriber => self.subscriber.as_ref(),
        };
        match progress.map(|c| c.transport.progress()) {
            None => FailureReason::NoOffer,
            Some(Progress::NoChecks) => FailureReason::IceNoChecks,
            Some(Progress::Checking) => FailureReason::IceTimeout,
            Some(_) => FailureReason::DtlsTimeout,
        }
    }

    pub fn wake_at(&mut self, at: Instant, room: RoomId, turn: &mut Turn) {
        self.alarm.set(at, Timer::Participant(room, self.id), &mut turn.timers);
    }

    /// A snapshot without the tracks, which the room knows.
    pub fn info(&self) -> ParticipantInfo {
        ParticipantInfo {
            sid: self.sid.clone(),
            identity: self.identity.clone(),
            name: self.name.clone(),
            metadata: self.metadata.clone(),
            attributes: self.attributes.clone(),
            state: self.state,
            tracks: Vec::new(),
            permissions: self.permissions.clone(),
            version: self.version,
            joined_at_ms: self.joined_at.unix_ms,
            is_publisher: false,
            client_protocol: self.client_protocol,
            leave_reason: self.leave_reason,
        }
    }

    pub fn age(&self, now: Now) -> Duration {
        now.instant.saturating_duration_since(self.joined_at.instant)
    }
}
