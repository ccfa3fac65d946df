//! Signalling against a model of the rooms: no media, no SDP, no sockets, and time as the tests want it.

mod ice_servers;
mod model;
mod ordering;
mod requests;
mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use proto::signal_request::Message as Said;
use proto::signal_response::Message;

use self::model::Model;
use super::{Claims, Dialect, IceServers, JoinRequest, Keys, Outgoing, Signalling, SocketId};
use crate::sfu::{JoinError, Now, ParticipantId, Permissions};
use crate::turn::credentials::Credentials;

const TURN_URL: &str = "turn:198.51.100.7:3478?transport=tcp";
const TURN_SECRET: &[u8] = b"a secret of the TURN server";

/// Signalling, the model of the rooms and what every socket has been sent.
struct Rig {
    signalling: Signalling,
    rooms: Model,
    now: Now,
    received: BTreeMap<SocketId, Vec<Outgoing>>,
}

impl Rig {
    fn new() -> Rig {
        let keys = Keys::new([("key", "a secret that is long enough for anyone")]).expect("one key");
        let credentials = Arc::new(Credentials::new(vec![TURN_SECRET.to_vec()]));
        let ice_servers = IceServers::new(vec![TURN_URL.to_owned()], credentials);
        Rig {
            signalling: Signalling::new(keys, ice_servers, [7; 32]),
            rooms: Model::default(),
            now: Now { instant: Instant::now(), unix_ms: 1_800_000_000_000 },
            received: BTreeMap::new(),
        }
    }

    fn join(&mut self, request: JoinRequest) -> Result<SocketId, JoinError> {
        let socket = self.signalling.join(&mut self.rooms, self.now, request);
        self.settle();
        socket
    }

    fn say(&mut self, socket: SocketId, said: Said) {
        self.signalling.request(&mut self.rooms, self.now, socket, said);
        self.settle();
    }

    fn close(&mut self, socket: SocketId) {
        self.signalling.closed(&mut self.rooms, self.now, socket);
        self.settle();
    }

    fn wait(&mut self, duration: Duration) {
        self.now.instant += duration;
        self.now.unix_ms += duration.as_millis() as u64;
        if self.signalling.next_timeout().is_some_and(|due| due <= self.now.instant) {
            self.signalling.handle_timeout(&mut self.rooms, self.now);
        }
        self.settle();
    }

    /// As the worker does after every call: all events to their sessions, all messages to their sockets.
    fn settle(&mut self) {
        while let Some(event) = self.rooms.events.pop_front() {
            self.signalling.handle_event(&mut self.rooms, self.now, event);
        }
        while let Some((socket, outgoing)) = self.signalling.poll_outgoing() {
            self.received.entry(socket).or_default().push(outgoing);
        }
    }

    fn id(&self, socket: SocketId) -> ParticipantId {
        self.signalling.participant(socket).expect("the socket has a session")
    }

    fn sid(&self, socket: SocketId) -> String {
        self.rooms.members[&self.id(socket)].info.sid.to_string()
    }

    /// What arrived since the last time.
    fn take(&mut self, socket: SocketId) -> Vec<Outgoing> {
        self.received.remove(&socket).unwrap_or_default()
    }

    fn messages(&mut self, socket: SocketId) -> Vec<Message> {
        self.take(socket).into_iter().filter_map(message).collect()
    }
}

fn message(outgoing: Outgoing) -> Option<Message> {
    match outgoing {
        Outgoing::Message(response) => response.message.clone(),
        Outgoing::Close(_) => None,
    }
}

fn permissions() -> Permissions {
    Permissions {
        can_publish: true,
        can_subscribe: true,
        can_publish_data: true,
        can_publish_sources: Vec::new(),
        can_update_metadata: false,
        hidden: false,
    }
}

fn request(identity: &str, dialect: Dialect) -> JoinRequest {
    JoinRequest {
        dialect,
        identity: identity.to_owned(),
        room: "room".to_owned(),
        name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        permissions: permissions(),
        may_create_room: true,
        claims: Claims { sub: identity.to_owned(), ..Default::default() },
        protocol: 17,
        client_protocol: 2,
        client: "js 2.23.0".to_owned(),
        auto_subscribe: true,
        adaptive_stream: true,
        reconnect: None,
        add_tracks: Vec::new(),
        publisher_offer: None,
        sync_state: None,
    }
}

fn microphone(cid: &str) -> proto::AddTrackRequest {
    proto::AddTrackRequest {
        cid: cid.to_owned(),
        r#type: proto::TrackType::Audio as i32,
        source: proto::TrackSource::Microphone as i32,
        ..Default::default()
    }
}

fn camera(cid: &str) -> proto::AddTrackRequest {
    proto::AddTrackRequest {
        cid: cid.to_owned(),
        r#type: proto::TrackType::Video as i32,
        source: proto::TrackSource::Camera as i32,
        width: 1280,
        height: 720,
        simulcast_codecs: vec![proto::SimulcastCodec {
            codec: "vp8".to_owned(),
            cid: cid.to_owned(),
            ..Default::default()
        }],
        layers: (0..3)
            .map(|quality| proto::VideoLayer { quality, width: 320 << quality, ..Default::default() })
            .collect(),
        encryption: proto::encryption::Type::Gcm as i32,
        ..Default::default()
    }
}

fn offer(id: u32) -> proto::SessionDescription {
    proto::SessionDescription { r#type: "offer".to_owned(), sdp: "v=0".to_owned(), id, ..Default::default() }
}
