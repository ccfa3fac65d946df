//! Members of a Matrix room who get into its call as clients do: a token from the token service, then the WebSocket. Their
//! signalling only, without media.

use std::time::Duration;

use futures_util::StreamExt;
use livekit_protocol as proto;
use parlour::matrix::RoomEvent;
use parlour::matrix::identity::CALL_SLOT;
use parlour::net::PresenceChange;
use parlour::store::Store;
use prost::Message;
use proto::signal_response::Message as Signal;
use serde_json::{Value, json};

use super::{Homeserver, Server, Socket, now};

pub const ROOM: &str = "!room:example.org";
pub const ALICE: &str = "@alice:example.org";
pub const BOB: &str = "@bob:example.org";
pub const CAROL: &str = "@carol:remote.org";

pub const APPSERVICE: &str = "[appservice]\nenabled = true\nas_token = \"an-as-token-of-the-tests-0123456789abcdef\"\nhs_token = \"an-hs-token-of-the-tests-0123456789abcdef\"\n";

/// A server whose homeserver knows Alice, Bob and Carol of another server to be in the room. `more` is TOML that starts
/// with a section.
pub async fn server(more: &str) -> Server {
    let homeserver = Homeserver::start().await;
    let rooms = &homeserver.rooms;
    for user in [ALICE, BOB, CAROL] {
        rooms.join(ROOM, user);
    }
    started(more, &homeserver, Store::in_memory()).await
}

pub async fn started(more: &str, homeserver: &Homeserver, store: Store) -> Server {
    let elsewhere = homeserver.address;
    let config = format!("{APPSERVICE}{more}\n[federation.overrides]\n\"remote.org\" = \"http://{elsewhere}\"\n");
    Server::with_store(&config, homeserver.clone(), store).await
}

pub fn openid(user: &str) -> Value {
    let server = user.split_once(':').unwrap().1;
    json!({"access_token": format!("sub:{user}"), "token_type": "Bearer", "matrix_server_name": server, "expires_in": 3600})
}

pub fn sfu_get(user: &str) -> Value {
    json!({"room": ROOM, "device_id": "DEVICE", "openid_token": openid(user)})
}

pub fn get_token(user: &str, slot: &str) -> Value {
    json!({
        "room_id": ROOM, "slot_id": slot, "openid_token": openid(user),
        "member": {"id": "member", "claimed_user_id": user, "claimed_device_id": "DEVICE"},
    })
}

pub async fn token(server: &Server, user: &str) -> String {
    let (status, answer) = server.post_json("/sfu/get", &sfu_get(user)).await;
    assert_eq!(status, 200, "{user}: {answer}");
    answer["jwt"].as_str().unwrap().to_owned()
}

pub async fn connect(server: &Server, token: &str) -> Result<Caller, (u16, String)> {
    let socket = server.connect(&format!("/rtc?access_token={token}")).await?;
    let mut caller = Caller { socket };
    let Some(Signal::Join(_)) = caller.message().await else { panic!("the first message is join") };
    Ok(caller)
}

pub async fn in_call(server: &Server, user: &str) -> Caller {
    let caller = connect(server, &token(server, user).await).await.unwrap();
    seen(server, |change| change == PresenceChange::Joined).await;
    caller
}

/// Waits until somebody has come or gone.
pub async fn seen(server: &Server, wanted: impl Fn(PresenceChange) -> bool) {
    let mut reports = server.presence.lock().await;
    let report = async { while !wanted(reports.recv().await.unwrap().change) {} };
    tokio::time::timeout(Duration::from_secs(5), report).await.expect("a report");
}

pub struct Caller {
    pub socket: Socket,
}

impl Caller {
    /// `None`: closed.
    pub async fn message(&mut self) -> Option<Signal> {
        loop {
            let frame = tokio::time::timeout(Duration::from_secs(5), self.socket.next()).await.expect("a frame");
            match frame {
                Some(Ok(frame)) if frame.is_binary() => {
                    return Some(proto::SignalResponse::decode(frame.into_data()).unwrap().message.unwrap());
                }
                Some(Ok(frame)) if !frame.is_close() => {}
                _ => return None,
            }
        }
    }

    /// Waits for the word that it must leave.
    pub async fn leave(&mut self) -> (proto::DisconnectReason, proto::leave_request::Action) {
        loop {
            if let Signal::Leave(leave) = self.message().await.expect("a leave before the end") {
                return (leave.reason(), leave.action());
            }
        }
    }

    /// Nothing ends it in this time.
    pub async fn stays(&mut self) {
        let leave = tokio::time::timeout(Duration::from_millis(300), self.leave()).await;
        assert!(leave.is_err(), "{leave:?}");
    }
}

pub fn event(kind: &str, state_key: &str, sender: &str, content: Value) -> RoomEvent {
    RoomEvent::parse(&json!({
        "type": kind, "state_key": state_key, "sender": sender, "room_id": ROOM, "event_id": "$event",
        "origin_server_ts": now() * 1000, "content": content,
    }))
    .unwrap()
}

/// Makes it so in the room, and tells of it.
pub async fn member_event(server: &Server, user: &str, sender: &str, membership: &str) {
    let rooms = &server.homeserver.rooms;
    if membership == "join" {
        rooms.join(ROOM, user)
    } else {
        rooms.leave(ROOM, user)
    }
    tell(server, "m.room.member", user, sender, json!({"membership": membership})).await;
}

pub async fn tell(server: &Server, kind: &str, state_key: &str, sender: &str, content: Value) {
    server.homeserver.rooms.set_state(ROOM, kind, state_key, sender, content.clone());
    let watch = &server.app.rooms.watch;
    watch.transaction_arrived();
    watch.handle(&event(kind, state_key, sender, content)).await;
}

/// By both dialects of the token service.
pub async fn refused(server: &Server, user: &str, status: u16, errcode: &str, words: &str) {
    for (path, body) in [("/sfu/get", sfu_get(user)), ("/get_token", get_token(user, CALL_SLOT))] {
        let (code, answer) = server.post_json(path, &body).await;
        assert_eq!((code, answer["errcode"].as_str()), (status, Some(errcode)), "{path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{path}: {answer}");
    }
}
