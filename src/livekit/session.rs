//! One participant's signalling: what it says becomes room commands, what the rooms tell becomes messages.
//!
//! A session begins with [`Session::join`], outlives its WebSocket for a while ([`Session::detach`], [`Session::resume`])
//! and ends with the event `Left`. It lives in [`Signalling`](super::Signalling), which owns the sockets and the time.

use std::sync::Arc;

use livekit_protocol as proto;
use proto::request_response::{Reason, Request};
use proto::signal_response::Message;

use super::data::Upstream;
use super::publication::Publications;
use super::signalling::Turn;
use super::{Claims, Dialect, Dropped, JoinRequest, Outgoing, Rooms, SocketId, translate};
use crate::sfu::{JoinError, JoinOptions, LeaveReason, ParticipantId, ParticipantInfo, Permissions, Sid};

/// The LiveKit release whose behaviour we offer: clients gate features on it, and refuse an empty one.
const SERVER_VERSION: &str = "1.13.5";

/// The signalling protocol of that release.
const SERVER_PROTOCOL: i32 = 17;

/// There is one node; clients only show its name.
const NODE_ID: &str = "ND_parlour";

/// How often a client says `ping`, seconds. LiveKit's value; zero would switch keep-alive off.
const PING_INTERVAL_S: i32 = 5;

/// Silence after which a client takes us for lost, seconds: three pings.
const PING_TIMEOUT_S: i32 = 15;

/// From this protocol on a client knows a `request_response` that is no error.
const OK_RESPONSE_PROTOCOL: i32 = 15;

/// From this protocol on a client knows a quality for a line that is dead.
const QUALITY_LOST_PROTOCOL: i32 = 11;

/// Departures kept for a client that is away. One that missed more than this joins afresh, which costs it less than
/// remembering them would cost us.
const MISSED_DEPARTURES_MAX: usize = 1000;

/// Closing codes of RFC 6455 §7.4.1.
const CLOSE_NORMAL: u16 = 1000;
const CLOSE_GOING_AWAY: u16 = 1001;

pub(super) struct Session {
    pub(super) id: ParticipantId,
    pub(super) sid: Sid,
    pub(super) identity: String,
    pub(super) room: String,
    pub(super) dialect: Dialect,
    pub(super) permissions: Permissions,
    pub(super) publications: Publications,
    pub(super) upstream: Upstream,
    /// `None` while signalling is lost and may come back.
    pub(super) socket: Option<SocketId>,
    /// This socket came by resuming: `sync_state` is in order.
    pub(super) resumed: bool,
    protocol: i32,
    claims: Claims,
    /// Who left while the client was away; `None` = more than we keep.
    missed: Option<Vec<proto::ParticipantInfo>>,
}

impl Session {
    /// Joins the room and greets: `join`, `refresh_token`, then what the join request brought along.
    pub(super) fn join<R: Rooms>(
        turn: &mut Turn<'_, R>,
        socket: SocketId,
        request: JoinRequest,
    ) -> Result<Session, JoinError> {
        let options = JoinOptions {
            identity: request.identity.clone(),
            name: request.name,
            metadata: request.metadata,
            attributes: request.attributes,
            permissions: request.permissions.clone(),
            negotiation: request.dialect.negotiation(),
            auto_subscribe: request.auto_subscribe && request.permissions.can_subscribe,
            adaptive_stream: request.adaptive_stream,
            client_protocol: request.client_protocol,
            create_room: request.may_create_room,
        };
        let id = turn.rooms.join(turn.now, &request.room, options)?;
        let (Some(me), Some(room)) = (turn.rooms.info(id), turn.rooms.room_of(id)) else {
            return Err(JoinError::RoomMissing);
        };
        let mut session = Session {
            id,
            sid: me.sid.clone(),
            identity: request.identity,
            room: request.room,
            dialect: request.dialect,
            permissions: request.permissions,
            publications: Publications::default(),
            upstream: Upstream::default(),
            socket: Some(socket),
            resumed: false,
            protocol: request.protocol,
            claims: request.claims,
            missed: Some(Vec::new()),
        };
        let others = turn.rooms.others(id);
        #[allow(deprecated)]
        let join = proto::JoinResponse {
            room: Some(translate::room(&room)),
            participant: Some(translate::participant(&me)),
            other_participants: others.iter().map(translate::participant).collect(),
            server_version: SERVER_VERSION.to_owned(),
            ice_servers: turn.ice_servers(&session.sid),
            subscriber_primary: session.dialect.subscriber_primary(session.protocol, &session.permissions),
            ping_timeout: PING_TIMEOUT_S,
            ping_interval: PING_INTERVAL_S,
            server_info: Some(server_info()),
            sif_trailer: turn.sif_trailer(&room.sid),
            enabled_publish_codecs: translate::publish_codecs(),
            fast_publish: session.permissions.can_publish,
            ..Default::default()
        };
        session.send(turn, Message::Join(join));
        session.send_token(turn);
        // Before the offer, so that its sections find the tracks they belong to.
        for track in request.add_tracks {
            session.add_track(turn, track);
        }
        if let Some(offer) = request.publisher_offer {
            session.offer(turn, offer);
        }
        Ok(session)
    }

    /// Whether `request` may go on with this session.
    pub(super) fn is_resumable_by(&self, request: &JoinRequest) -> bool {
        self.identity == request.identity
            && self.room == request.room
            && self.dialect == request.dialect
            && self.missed.is_some()
    }

    pub(super) fn knows_lost(&self) -> bool {
        self.protocol >= QUALITY_LOST_PROTOCOL
    }

    /// A new socket takes over: everything the client may have missed is told again.
    pub(super) fn resume<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, socket: SocketId, request: JoinRequest) {
        if let Some(old) = self.socket.replace(socket) {
            turn.send(old, Outgoing::Close(CLOSE_GOING_AWAY));
        }
        self.resumed = true;
        self.claims = request.claims;
        self.send(
            turn,
            Message::Reconnect(proto::ReconnectResponse {
                ice_servers: turn.ice_servers(&self.sid),
                server_info: Some(server_info()),
                last_message_seq: self.upstream.last_sequence(),
                ..Default::default()
            }),
        );
        self.send_token(turn);
        // Who left comes first: the same identity may be back under a new sid.
        let mut participants = self.missed.replace(Vec::new()).unwrap_or_default();
        participants.extend(turn.rooms.others(self.id).iter().map(translate::participant));
        participants.extend(turn.rooms.info(self.id).iter().map(translate::participant));
        self.send(turn, Message::Update(proto::ParticipantUpdate { participants }));
        if let Some(room) = turn.rooms.room_of(self.id) {
            self.send(turn, Message::RoomUpdate(proto::RoomUpdate { room: Some(translate::room(&room)) }));
        }
        turn.rooms.signal_resumed(turn.now, self.id);
        if let Some(state) = request.sync_state {
            self.sync_state(turn, state);
        }
        if let Some(offer) = request.publisher_offer {
            self.offer(turn, offer);
        }
    }

    /// The socket is gone; the rooms decide how long to wait for the next.
    pub(super) fn detach<R: Rooms>(&mut self, turn: &mut Turn<'_, R>) {
        self.socket = None;
        self.resumed = false;
        turn.rooms.signal_lost(turn.now, self.id);
    }

    /// Remembers who left while nobody listens.
    pub(super) fn miss(&mut self, departed: &ParticipantInfo) {
        match &mut self.missed {
            Some(missed) if missed.len() < MISSED_DEPARTURES_MAX => missed.push(translate::participant(departed)),
            _ => self.missed = None,
        }
    }

    /// The token for the next join or resume. Without it, calls longer than the first token's life could not reconnect.
    pub(super) fn send_token<R: Rooms>(&self, turn: &mut Turn<'_, R>) {
        if self.socket.is_none() {
            return;
        }
        let token = turn.keys().sign(&self.claims.refreshed(turn.now.unix_ms / 1000));
        self.send(turn, Message::RefreshToken(token));
    }

    /// Takes over what changed about the participant itself; true when its token must say so.
    pub(super) fn adopt(&mut self, me: &ParticipantInfo) -> bool {
        let claims = Claims {
            name: me.name.clone(),
            metadata: me.metadata.clone(),
            attributes: me.attributes.clone(),
            ..self.claims.clone()
        };
        let changed = claims != self.claims || self.permissions != me.permissions;
        self.claims = claims;
        self.permissions = me.permissions.clone();
        changed
    }

    pub(super) fn send<R>(&self, turn: &mut Turn<'_, R>, message: Message) {
        if let Some(socket) = self.socket {
            turn.send(socket, message_out(message));
        }
    }

    /// Answers a request that has no answer of its own.
    pub(super) fn respond<R>(
        &self,
        turn: &mut Turn<'_, R>,
        request_id: u32,
        reason: Reason,
        text: &str,
        request: Option<Request>,
    ) {
        if reason == Reason::Ok && self.protocol < OK_RESPONSE_PROTOCOL {
            return;
        }
        if reason == Reason::NotAllowed {
            turn.count(Dropped::NotPermitted);
        }
        let response = proto::RequestResponse { request_id, reason: reason as i32, message: text.to_owned(), request };
        self.send(turn, Message::RequestResponse(response));
    }

    /// The last words.
    pub(super) fn left<R>(&self, turn: &mut Turn<'_, R>, reason: LeaveReason) {
        if let Some(socket) = self.socket {
            refuse(turn, socket, reason);
        }
    }
}

/// `leave`, then a normal close: the only time a client believes one.
pub(super) fn refuse<R>(turn: &mut Turn<'_, R>, socket: SocketId, reason: LeaveReason) {
    turn.send(socket, message_out(Message::Leave(translate::leave(reason))));
    turn.send(socket, Outgoing::Close(CLOSE_NORMAL));
}

pub(super) fn message_out(message: Message) -> Outgoing {
    Outgoing::Message(Arc::new(proto::SignalResponse { message: Some(message) }))
}

fn server_info() -> proto::ServerInfo {
    proto::ServerInfo {
        edition: proto::server_info::Edition::Standard as i32,
        version: SERVER_VERSION.to_owned(),
        protocol: SERVER_PROTOCOL,
        node_id: NODE_ID.to_owned(),
        ..Default::default()
    }
}
