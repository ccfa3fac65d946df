//! All LiveKit sessions of one worker: which socket belongs to whom, and what is due when.
//!
//! The worker calls in with everything that happens (a join, a request, a closed socket, an event of the rooms, a
//! timeout) and afterwards takes out what is to be sent. The rooms themselves are lent to each call.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use proto::signal_request;
use proto::signal_response::Message;
use sha2::{Digest, Sha256};

use super::session::{Session, message_out, refuse};
use super::{Dropped, DroppedCounts, IceServers, JoinRequest, Keys, Outgoing, Rooms, SocketId, translate};
use crate::sfu::{Event, EventKind, JoinError, LeaveReason, Now, ParticipantId, ParticipantInfo, Sid};

/// How often a client gets a fresh token. LiveKit's value: half of the least validity of a token.
const TOKEN_REFRESH: Duration = Duration::from_secs(300);

/// Bytes of a room's SIF trailer: enough not to be met by chance at the end of a frame.
const SIF_TRAILER_SIZE: usize = 16;

pub struct Signalling {
    shared: Shared,
    sessions: HashMap<ParticipantId, Session>,
    by_sid: HashMap<Sid, ParticipantId>,
    /// The current socket of each session that has one.
    sockets: HashMap<SocketId, ParticipantId>,
    next_socket: u64,
    /// In the order they are due: every session waits equally long. Those of sessions that are gone stay until then.
    refreshes: VecDeque<(Instant, ParticipantId)>,
}

/// What all sessions use.
struct Shared {
    keys: Keys,
    ice_servers: Option<IceServers>,
    seed: [u8; 32],
    out: VecDeque<(SocketId, Outgoing)>,
    dropped: DroppedCounts,
    /// About whom somebody was told last, and how.
    last_update: Option<(Arc<[ParticipantInfo]>, Outgoing)>,
}

/// What a session may use while one thing happens.
pub(super) struct Turn<'a, R> {
    pub(super) rooms: &'a mut R,
    pub(super) now: Now,
    shared: &'a mut Shared,
}

impl<R> Turn<'_, R> {
    pub(super) fn send(&mut self, socket: SocketId, outgoing: Outgoing) {
        self.shared.out.push_back((socket, outgoing));
    }

    /// The message about participants that changed. Made once for all who are told in a row.
    pub(super) fn update(&mut self, infos: &Arc<[ParticipantInfo]>) -> Outgoing {
        if let Some((about, update)) = &self.shared.last_update
            && Arc::ptr_eq(about, infos)
        {
            return update.clone();
        }
        let participants = infos.iter().map(translate::participant).collect();
        let update = message_out(Message::Update(proto::ParticipantUpdate { participants }));
        self.shared.last_update = Some((infos.clone(), update.clone()));
        update
    }

    pub(super) fn count(&mut self, dropped: Dropped) {
        self.shared.dropped.add(dropped);
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    /// Our TURN server for this participant; empty when there is none.
    pub(super) fn ice_servers(&self, participant: &Sid) -> Vec<proto::IceServer> {
        let unix_s = self.now.unix_ms / 1000;
        let server = self.shared.ice_servers.as_ref().and_then(|s| s.for_participant(participant.as_str(), unix_s));
        let told = server.map(|server| proto::IceServer {
            urls: server.urls,
            username: server.username,
            credential: server.credential,
        });
        told.into_iter().collect()
    }

    /// The bytes that would mark frames made by the server among encrypted ones. We make none, but a client that
    /// encrypts warns without them. The same for everyone in a room, and not to be guessed by those outside.
    pub(super) fn sif_trailer(&self, room: &Sid) -> Vec<u8> {
        let digest = Sha256::new().chain_update(self.shared.seed).chain_update(room.as_str()).finalize();
        digest[..SIF_TRAILER_SIZE].to_vec()
    }
}

impl Signalling {
    /// `ice_servers`: what participants are told; `seed`: 32 random bytes, secret.
    pub fn new(keys: Keys, ice_servers: Option<IceServers>, seed: [u8; 32]) -> Signalling {
        Signalling {
            shared: Shared {
                keys,
                ice_servers,
                seed,
                out: VecDeque::new(),
                dropped: DroppedCounts::default(),
                last_update: None,
            },
            sessions: HashMap::new(),
            by_sid: HashMap::new(),
            sockets: HashMap::new(),
            next_socket: 0,
            refreshes: VecDeque::new(),
        }
    }

    /// A new WebSocket. Its first message is queued when this returns: `join`, `reconnect`, or the `leave` that
    /// answers a resume of a session we do not know.
    pub fn join<R: Rooms>(&mut self, rooms: &mut R, now: Now, request: JoinRequest) -> Result<SocketId, JoinError> {
        let socket = SocketId(self.next_socket);
        self.next_socket += 1;
        let mut turn = Turn { rooms, now, shared: &mut self.shared };
        let Some(sid) = &request.reconnect else {
            let session = Session::join(&mut turn, socket, request)?;
            self.refreshes.push_back((now.instant + TOKEN_REFRESH, session.id));
            self.by_sid.insert(session.sid.clone(), session.id);
            self.sockets.insert(socket, session.id);
            self.sessions.insert(session.id, session);
            return Ok(socket);
        };
        let session = self.by_sid.get(&Sid(sid.as_str().into())).and_then(|id| self.sessions.get_mut(id));
        match session.filter(|session| session.is_resumable_by(&request)) {
            Some(session) => {
                if let Some(old) = session.socket {
                    self.sockets.remove(&old);
                }
                self.sockets.insert(socket, session.id);
                session.resume(&mut turn, socket, request);
            }
            // The client joins afresh.
            None => refuse(&mut turn, socket, LeaveReason::StateMismatch),
        }
        Ok(socket)
    }

    /// What the client said.
    pub fn request<R: Rooms>(&mut self, rooms: &mut R, now: Now, socket: SocketId, message: signal_request::Message) {
        let mut turn = Turn { rooms, now, shared: &mut self.shared };
        match self.sockets.get(&socket).and_then(|id| self.sessions.get_mut(id)) {
            Some(session) => session.request(&mut turn, message),
            None => turn.count(Dropped::Stale),
        }
    }

    /// The WebSocket is gone, for whatever reason. Nothing happens when its session has another by now.
    pub fn closed<R: Rooms>(&mut self, rooms: &mut R, now: Now, socket: SocketId) {
        let mut turn = Turn { rooms, now, shared: &mut self.shared };
        let Some(id) = self.sockets.remove(&socket) else { return };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.detach(&mut turn);
        }
    }

    /// Something happened in a room. Events for participants of other front doors are not for us, and left alone.
    pub fn handle_event<R: Rooms>(&mut self, rooms: &mut R, now: Now, event: Event) {
        let mut turn = Turn { rooms, now, shared: &mut self.shared };
        let Some(session) = self.sessions.get_mut(&event.to) else { return };
        let left = matches!(event.kind, EventKind::Left(_));
        session.event(&mut turn, event.kind);
        if left {
            self.forget(event.to);
        }
    }

    fn forget(&mut self, id: ParticipantId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.by_sid.remove(&session.sid);
        if let Some(socket) = session.socket {
            self.sockets.remove(&socket);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.refreshes.front().map(|(due, _)| *due)
    }

    pub fn handle_timeout<R: Rooms>(&mut self, rooms: &mut R, now: Now) {
        let mut turn = Turn { rooms, now, shared: &mut self.shared };
        while let Some(&(due, id)) = self.refreshes.front()
            && due <= now.instant
        {
            self.refreshes.pop_front();
            if let Some(session) = self.sessions.get(&id) {
                session.send_token(&mut turn);
                self.refreshes.push_back((now.instant + TOKEN_REFRESH, id));
            }
        }
    }

    /// What goes out next. Empty after every call before the next one is made.
    pub fn poll_outgoing(&mut self) -> Option<(SocketId, Outgoing)> {
        self.shared.out.pop_front()
    }

    /// Whose socket this is, while it is one.
    pub fn participant(&self, socket: SocketId) -> Option<ParticipantId> {
        self.sockets.get(&socket).copied()
    }

    /// The public id of whose socket this is.
    pub fn sid(&self, socket: SocketId) -> Option<&Sid> {
        Some(&self.sessions.get(self.sockets.get(&socket)?)?.sid)
    }

    pub fn dropped(&self) -> &DroppedCounts {
        &self.shared.dropped
    }
}
