//! What the node's holder does to participants, as their clients and the others in the room see it.

use std::time::{Duration, Instant};

use livekit_protocol as proto;
use parlour::livekit::RoomMember;
use parlour::matrix::identity::{CALL_SLOT, room_alias};
use parlour::net::{Muted, NodeGone};
use parlour::sfu::{LeaveReason, Sid};
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use serde_json::json;

use crate::caller::{Caller, request, until};
use crate::http_support::callers::{ALICE, BOB, ROOM, openid};
use crate::{all_hear_each_other, four_workers, http_support};

#[tokio::test]
async fn rooms_and_participants_of_all_workers() {
    let server = four_workers().await;
    let mut streams = Vec::new();
    for index in 0..6 {
        for name in ["a", "b"] {
            streams.push(server.node.join(request(name, &format!("room {index}"))).await.unwrap());
        }
    }
    let mut rooms = server.node.rooms().await.unwrap();
    rooms.sort_by(|a, b| a.name.cmp(&b.name));
    let listed: Vec<_> = rooms.iter().map(|room| (room.name.as_str(), room.num_participants)).collect();
    let names: Vec<String> = (0..6).map(|index| format!("room {index}")).collect();
    assert_eq!(listed, names.iter().map(|name| (name.as_str(), 2)).collect::<Vec<_>>());
    let there = server.node.participants("room 3").await.unwrap().expect("a room");
    assert_eq!(there.iter().map(|info| info.identity.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(server.node.participants("elsewhere").await, Ok(None));

    assert_eq!(server.node.delete_room("room 3").await, Ok(true));
    assert_eq!(server.node.delete_room("room 3").await, Ok(false));
    assert_eq!(server.node.participants("room 3").await, Ok(None));
    assert_eq!(server.node.rooms().await.unwrap().len(), 5);

    server.node.shut_down().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.node.rooms().await != Err(NodeGone) {
        assert!(Instant::now() < deadline, "the workers end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_is_removed_is_told_not_to_come_back() {
    let server = four_workers().await;
    let mut callers = Vec::new();
    for name in ["a", "b", "c"] {
        callers.push(Caller::udp(&server.node, "room", name).await.unwrap());
    }
    until(&mut callers, "all hear each other", all_hear_each_other).await;
    let stale = Sid(callers[1].sid.as_str().into());
    assert_eq!(server.node.remove("room", "a", Some(&stale), LeaveReason::Removed).await, Ok(false));
    let sid = Sid(callers[0].sid.as_str().into());
    assert_eq!(server.node.remove("room", "a", Some(&sid), LeaveReason::Removed).await, Ok(true));
    assert_eq!(server.node.remove("room", "a", None, LeaveReason::Removed).await, Ok(false));
    assert_eq!(server.node.remove("elsewhere", "a", None, LeaveReason::Removed).await, Ok(false));
    until(&mut callers, "it is closed", |callers| callers[0].closed).await;
    let leave = callers[0].signals.iter().find_map(|said| match said {
        Response::Leave(leave) => Some(leave),
        _ => None,
    });
    let leave = leave.expect("a last word");
    assert_eq!(leave.reason(), proto::DisconnectReason::ParticipantRemoved);
    assert_eq!((leave.action(), leave.can_reconnect), (proto::leave_request::Action::Disconnect, false));
    let gone = |caller: &Caller| {
        let told = caller.signals.iter().filter_map(|said| match said {
            Response::Update(update) => Some(&update.participants),
            _ => None,
        });
        told.flatten().any(|info| {
            info.sid == sid.as_str() && info.disconnect_reason() == proto::DisconnectReason::ParticipantRemoved
        })
    };
    until(&mut callers, "the others are told", |callers| callers[1..].iter().all(gone)).await;
    let mut again = request("a", "room");
    again.reconnect = Some(sid.to_string());
    let mut stream = server.node.join(again).await.unwrap();
    assert!(format!("{:?}", stream.responses.recv().await.unwrap()).contains("Leave("), "there is nothing to resume");
}

#[tokio::test]
async fn a_moderators_mute_is_heard_by_nobody_and_told_to_everybody() {
    let server = four_workers().await;
    let mut callers = Vec::new();
    for name in ["a", "b"] {
        callers.push(Caller::udp(&server.node, "room", name).await.unwrap());
    }
    until(&mut callers, "they hear each other", all_hear_each_other).await;
    let there = server.node.participants("room").await.unwrap().expect("a room");
    let track = there.iter().find(|info| info.identity == "a").expect("there").tracks[0].sid.clone();
    let node = &server.node;
    let unknown = Sid("TR_unknown".into());
    assert_eq!(node.mute("room", "a", &unknown, true).await, Ok(Muted::NoSuchTrack));
    assert_eq!(node.mute("room", "b", &track, true).await, Ok(Muted::NoSuchTrack), "another's");
    assert_eq!(node.mute("elsewhere", "a", &track, true).await, Ok(Muted::NoSuchTrack));
    assert_eq!(node.mute("room", "a", &track, false).await, Ok(Muted::MayNotUnmute));

    let Ok(Muted::Yes(info)) = node.mute("room", "a", &track, true).await else { panic!("muted") };
    assert!(info.sid == track && info.muted);
    let told = |caller: &Caller, muted: bool| {
        let updates = caller.signals.iter().filter_map(|said| match said {
            Response::Update(update) => Some(&update.participants),
            _ => None,
        });
        let mut tracks = updates.flatten().flat_map(|info| &info.tracks).filter(|t| t.sid == track.as_str());
        tracks.next_back().is_some_and(|t| t.muted == muted)
    };
    until(&mut callers, "both are told", |callers| callers.iter().all(|caller| told(caller, true))).await;
    // Its client first hears what to do, then what everybody sees.
    let order: Vec<&str> = callers[0]
        .signals
        .iter()
        .filter_map(|said| match said {
            Response::Mute(mute) if mute.sid == track.as_str() && mute.muted => Some("mute"),
            Response::Update(update) => {
                let muted = update.participants.iter().flat_map(|info| &info.tracks).any(|t| t.muted);
                muted.then_some("update")
            }
            _ => None,
        })
        .collect();
    assert_eq!(order, ["mute", "update"]);
    assert!(!callers[1].signals.iter().any(|said| matches!(said, Response::Mute(_))));

    // What was on its way has arrived; the client, a stubborn one, speaks on.
    let heard = |callers: &[Caller]| callers[1].heard[&b'a'];
    let wait = |time| {
        let end = Instant::now() + time;
        move |_: &[Caller]| Instant::now() >= end
    };
    until(&mut callers, "what was under way", wait(Duration::from_millis(100))).await;
    let before = heard(&callers);
    callers[0].say(Request::Mute(proto::MuteTrackRequest { sid: track.to_string(), muted: false }));
    until(&mut callers, "half a second", wait(Duration::from_millis(500))).await;
    assert_eq!(heard(&callers), before);
    for muted in [true, false] {
        callers[0].say(Request::Mute(proto::MuteTrackRequest { sid: track.to_string(), muted }));
    }
    until(&mut callers, "it is heard again", |callers| heard(callers) > before + 10 && told(&callers[1], false)).await;
}

#[tokio::test]
async fn a_moderator_of_the_matrix_room_mutes_by_its_power_there() {
    let server = http_support::callers::server("").await;
    let rooms = &server.homeserver.rooms;
    rooms.set_state(ROOM, "m.room.create", "", ALICE, json!({"room_version": "10"}));
    rooms.set_state(ROOM, "m.room.power_levels", "", ALICE, json!({"users": {BOB: 50}}));
    let alias = room_alias(ROOM, CALL_SLOT);
    let member = |user: &str| RoomMember { room: ROOM.into(), slot: CALL_SLOT.into(), user: user.into() };
    let mut callers = Vec::new();
    for (name, user) in [("a", ALICE), ("b", BOB)] {
        callers.push(Caller::of_member(&server.node, &alias, name, member(user)).await.unwrap());
    }
    until(&mut callers, "they hear each other", all_hear_each_other).await;
    let moderate = async |by: &str, user: &str, source: &str| {
        let body =
            json!({"openid_token": openid(by), "room_id": ROOM, "user_id": user, "action": "mute", "source": source});
        server.post_json("/moderate", &body).await
    };
    assert_eq!(moderate(ALICE, BOB, "microphone").await.0, 403);
    assert_eq!(moderate(BOB, ALICE, "camera").await.0, 404, "there is none");
    assert_eq!(moderate(BOB, ALICE, "microphone").await, (200, json!({"muted": 1})));
    let is_told =
        |caller: &Caller| caller.signals.iter().any(|said| matches!(said, Response::Mute(mute) if mute.muted));
    until(&mut callers, "its client is told", |callers| is_told(&callers[0])).await;
    assert!(!is_told(&callers[1]));
    let there = server.node.participants(&alias).await.unwrap().expect("a call");
    let muted = |identity: &str| there.iter().find(|info| info.identity == identity).expect("there").tracks[0].muted;
    assert!(muted("a") && !muted("b"));
}
