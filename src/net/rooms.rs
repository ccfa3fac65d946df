//! The rooms of one worker with their signalling: everything that ends when it panics. Called by the
//! [`Worker`](super::worker::Worker) with commands and with the time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use livekit_protocol as proto;
use tokio::sync::{mpsc, oneshot};
use tracing::{Span, info};

use super::JoinRefused;
use super::directory::Directory;
use super::presence::{Attendance, Attendee, Presence};
use super::tcp::TurnStream;
use super::wire::Wire;
use crate::livekit::{DroppedCounts, IceServers, JoinRequest, Keys, Outgoing, Signalling, SocketId};
use crate::metrics::{Metrics, WorkerMeter};
use crate::sfu::{
    Counts, EventKind, FailureReason, JoinError, LeaveReason, Limits, Now, ParticipantId, ParticipantInfo, RoomInfo,
    RoomOptions, Sfu, Sid, TrackInfo, Verdict, WorkerId,
};
use crate::transport::Settings;

pub(super) enum Command {
    CreateRoom {
        name: String,
        options: RoomOptions,
        reply: oneshot::Sender<Option<RoomInfo>>,
    },
    Room {
        name: String,
        reply: oneshot::Sender<Option<RoomInfo>>,
    },
    Rooms {
        reply: oneshot::Sender<Vec<RoomInfo>>,
    },
    DeleteRoom {
        name: String,
        reply: oneshot::Sender<bool>,
    },
    Participants {
        room: String,
        reply: oneshot::Sender<Option<Vec<ParticipantInfo>>>,
    },
    Remove {
        room: String,
        identity: String,
        sid: Option<Sid>,
        reason: LeaveReason,
        reply: oneshot::Sender<bool>,
    },
    Mute {
        room: String,
        identity: String,
        track: Sid,
        reply: oneshot::Sender<Option<TrackInfo>>,
    },
    Join {
        request: Box<JoinRequest>,
        responses: mpsc::Sender<Outgoing>,
        span: Span,
        reply: oneshot::Sender<Result<Signal, JoinRefused>>,
    },
    Request {
        signal: Signal,
        message: Box<proto::signal_request::Message>,
    },
    SignalLost {
        signal: Signal,
    },
    /// A TLS connection that speaks TURN.
    Adopt(Box<TurnStream>),
    ShutDown,
    #[cfg(debug_assertions)]
    Panic,
}

/// A socket of one generation of a worker's rooms: numbers start over after a panic, and what a client says to rooms that
/// are gone must reach nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signal {
    generation: u32,
    socket: SocketId,
}

/// What all workers' rooms are made of.
#[derive(Clone)]
pub(super) struct Parts {
    pub settings: Settings,
    pub limits: Limits,
    pub keys: Keys,
    /// What participants are told of our TURN server.
    pub ice_servers: Option<IceServers>,
    pub directory: Arc<Directory>,
    pub metrics: Arc<Metrics>,
    pub presence: mpsc::UnboundedSender<Presence>,
    /// How many workers there are.
    pub workers: usize,
}

pub(super) struct Rooms {
    worker: WorkerId,
    generation: u32,
    sfu: Sfu,
    signalling: Signalling,
    sockets: HashMap<SocketId, mpsc::Sender<Outgoing>>,
    /// Joins that have no verdict yet.
    joining: HashMap<ParticipantId, Joining>,
    attendance: Attendance,
    /// The rooms as the directory knows them.
    names: HashSet<String>,
    stopping: bool,
    /// How many participants the directory knows of.
    told_participants: usize,
    directory: Arc<Directory>,
    metrics: Arc<Metrics>,
    meter: WorkerMeter,
    /// What the metrics know already.
    counted: Counts,
    dropped: DroppedCounts,
}

/// What the line about a join says besides the verdict.
struct Joining {
    /// Of the request: its number, room and client.
    span: Span,
    sid: Sid,
}

impl Rooms {
    pub fn new(worker: WorkerId, generation: u32, parts: &Parts) -> Rooms {
        let sfu = Sfu::new(parts.settings.clone(), parts.limits, rand::random());
        Rooms {
            worker,
            generation,
            sfu: if parts.workers > 1 { sfu.among_others(worker) } else { sfu },
            signalling: Signalling::new(parts.keys.clone(), parts.ice_servers.clone(), rand::random()),
            sockets: HashMap::new(),
            joining: HashMap::new(),
            attendance: Attendance::new(parts.presence.clone()),
            names: HashSet::new(),
            stopping: false,
            told_participants: 0,
            directory: parts.directory.clone(),
            metrics: parts.metrics.clone(),
            meter: parts.metrics.worker(worker),
            counted: Counts::default(),
            dropped: DroppedCounts::default(),
        }
    }

    pub fn sfu(&mut self) -> &mut Sfu {
        &mut self.sfu
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        [self.sfu.next_timeout(), self.signalling.next_timeout()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now, wire: &mut Wire) {
        self.signalling.handle_timeout(&mut self.sfu, now);
        self.settle(now, wire);
    }

    pub fn carry_out(&mut self, now: Now, command: Command, wire: &mut Wire) {
        match command {
            // Nobody may come after everybody was sent away; without a reply they hear that nobody is here.
            Command::CreateRoom { .. } | Command::Join { .. } if self.stopping => {}
            Command::CreateRoom { name, options, reply } => {
                let _ = reply.send(self.create(now, &name, options));
            }
            Command::Room { name, reply } => {
                let _ = reply.send(self.sfu.room(&name));
            }
            Command::Rooms { reply } => {
                let _ = reply.send(self.sfu.rooms());
            }
            Command::DeleteRoom { name, reply } => {
                let _ = reply.send(self.sfu.delete_room(now, &name));
            }
            Command::Participants { room, reply } => {
                let _ = reply.send(self.sfu.participants(&room));
            }
            Command::Remove { room, identity, sid, reason, reply } => {
                let _ = reply.send(self.sfu.remove(now, &room, &identity, sid.as_ref(), reason));
            }
            Command::Mute { room, identity, track, reply } => {
                let _ = reply.send(self.sfu.mute(now, &room, &identity, &track));
            }
            Command::Join { request, responses, span, reply } => {
                let _ = reply.send(self.join(now, *request, responses, span));
            }
            Command::Request { signal, message } if signal.generation == self.generation => {
                self.signalling.request(&mut self.sfu, now, signal.socket, *message);
            }
            Command::SignalLost { signal } if signal.generation == self.generation => {
                self.sockets.remove(&signal.socket);
                self.signalling.closed(&mut self.sfu, now, signal.socket);
            }
            Command::Request { .. } | Command::SignalLost { .. } => {}
            Command::Adopt(stream) => wire.adopt_turn(now, *stream),
            Command::ShutDown => {
                self.stopping = true;
                self.sfu.shut_down(now);
            }
            #[cfg(debug_assertions)]
            Command::Panic => panic!("asked to"),
        }
        self.settle(now, wire);
    }

    fn create(&mut self, now: Now, name: &str, options: RoomOptions) -> Option<RoomInfo> {
        self.open(name).then(|| self.sfu.create_room(now, name, options).ok())?
    }

    /// Whether the room exists or may be made.
    fn open(&mut self, name: &str) -> bool {
        self.sfu.has_room(name)
            || self.directory.open_room(self.worker, name) && {
                self.names.insert(name.to_owned());
                true
            }
    }

    fn join(
        &mut self,
        now: Now,
        request: JoinRequest,
        responses: mpsc::Sender<Outgoing>,
        span: Span,
    ) -> Result<Signal, JoinRefused> {
        let resumes = request.reconnect.is_some();
        if !resumes {
            if !request.may_create_room && !self.sfu.has_room(&request.room) {
                return Err(JoinRefused::RoomMissing);
            }
            if !self.open(&request.room) || !self.directory.admit(self.worker) {
                return Err(JoinRefused::Busy);
            }
        }
        let (room, identity, member) = (request.room.clone(), request.identity.clone(), request.claims.matrix.clone());
        let joined = self.signalling.join(&mut self.sfu, now, request).map_err(|error| match error {
            JoinError::RoomMissing => JoinRefused::RoomMissing,
            JoinError::RoomFull => JoinRefused::RoomFull,
            JoinError::TooManyParticipants => JoinRefused::Busy,
        });
        // It may have failed, or taken the place of an older session.
        self.tell_participants();
        let socket = joined?;
        self.sockets.insert(socket, responses);
        // A resumed session had its verdict, and is there already. One that came with an offer of no use is gone already: its
        // end is among the events.
        let participant = self.signalling.participant(socket).filter(|_| !resumes);
        if let Some((id, sid)) = participant.zip(self.signalling.sid(socket)) {
            self.attendance.joined(id, Attendee { room, identity, sid: sid.clone(), member });
            self.joining.insert(id, Joining { span, sid: sid.clone() });
        }
        Ok(Signal { generation: self.generation, socket })
    }

    fn tell_participants(&mut self) {
        self.told_participants = self.sfu.participant_count();
        self.directory.set_participants(self.worker, self.told_participants);
    }

    // --- out -----------------------------------------------------------------------------------------------------

    /// Carries events from the rooms to the sessions, and their messages to the sockets, until nothing is left.
    fn settle(&mut self, now: Now, wire: &mut Wire) {
        self.drive(now, wire);
        loop {
            if let Some(event) = self.sfu.poll_event() {
                if let EventKind::Verdict(verdict) = &event.kind {
                    self.report(event.to, verdict);
                }
                self.attendance.note(event.to, &event.kind);
                self.signalling.handle_event(&mut self.sfu, now, event);
                self.drive(now, wire);
            } else if let Some((socket, outgoing)) = self.signalling.poll_outgoing() {
                // A client that does not take it may leave over it, which is an event again.
                self.deliver(now, socket, outgoing);
            } else {
                break;
            }
        }
        while let Some(change) = self.sfu.poll_address_change() {
            wire.post.note(change);
        }
        wire.post.dispatch();
        if self.sfu.participant_count() != self.told_participants {
            self.tell_participants();
        }
        if self.sfu.room_count() != self.names.len() {
            let ended = self.names.extract_if(|name| !self.sfu.has_room(name));
            ended.for_each(|name| self.directory.close_room(self.worker, &name));
        }
    }

    /// Lets the rooms do what they have to do, and sends what comes of it.
    fn drive(&mut self, now: Now, wire: &mut Wire) {
        while self.sfu.drive(now) {
            wire.send(now, &mut self.sfu);
        }
        wire.send(now, &mut self.sfu);
    }

    fn deliver(&mut self, now: Now, socket: SocketId, outgoing: Outgoing) {
        let Some(responses) = self.sockets.get(&socket) else { return };
        let closes = matches!(outgoing, Outgoing::Close(_));
        let delivered = responses.try_send(outgoing).is_ok();
        if closes || !delivered {
            self.sockets.remove(&socket);
        }
        if !delivered {
            // It reads too slowly, or is gone already: a client that comes back resumes.
            self.signalling.closed(&mut self.sfu, now, socket);
        }
    }

    /// The one line that says how a join ended.
    fn report(&mut self, participant: ParticipantId, verdict: &Verdict) {
        let Some(Joining { span, sid }) = self.joining.remove(&participant) else { return };
        let _request = span.enter();
        match verdict {
            Verdict::Connected { after } => {
                let ms = after.as_millis() as u64;
                info!(participant = %sid, ms, "connected");
                self.metrics.join_connected(*after);
            }
            Verdict::Failed { reason, after } => {
                let ms = after.as_millis() as u64;
                info!(participant = %sid, ms, reason = reason.as_str(), "failed to connect");
                self.metrics.join_failed(reason.as_str());
            }
        }
    }

    /// Brings the metrics up to date.
    pub fn count(&mut self) {
        let counts = self.sfu.counts();
        self.metrics.sfu(&counts, &self.counted);
        self.meter.participants.set(counts.participants as i64);
        self.metrics.signalling(self.signalling.dropped(), &self.dropped);
        self.dropped = self.signalling.dropped().clone();
        self.counted = counts;
    }

    /// The rooms are lost: joins under way have failed, and what is here counts no more. Gives what it was.
    pub fn lost(&mut self) -> Counts {
        self.attendance.all_left(LeaveReason::ServerFault);
        for (_, Joining { span, sid }) in self.joining.drain() {
            let reason = FailureReason::RoomClosed.as_str();
            span.in_scope(|| info!(participant = %sid, reason, "failed to connect"));
            self.metrics.join_failed(reason);
        }
        self.count();
        let last = self.counted;
        self.counted = Counts { rooms: 0, participants: 0, tracks: 0, ..last };
        self.metrics.sfu(&self.counted, &last);
        self.meter.participants.set(0);
        last
    }
}
