//! The Matrix room decides who is in its call: over real sockets, with a homeserver made of a few lines.
//!
//! Tests named `trap_…` stand for the traps of the protocol that others have walked into.

mod http_support;

use std::time::{Duration, Instant};

use http_support::callers::*;
use http_support::fake_rooms::{FakeRooms, Health};
use http_support::{Homeserver, Server, payload};
use livekit_protocol as proto;
use parlour::matrix::identity::{CALL_SLOT, room_alias};
use parlour::store::Store;
use proto::signal_response::Message as Signal;
use serde_json::json;

fn members(rooms: &FakeRooms) -> usize {
    rooms.lock().members[ROOM].len()
}

#[tokio::test]
async fn who_is_not_in_the_room_gets_no_token_in_either_dialect() {
    let server = server("").await;
    refused(&server, "@stranger:example.org", 403, "M_FORBIDDEN", "You are not in this room. Join the room").await;
    refused(&server, "@stranger:remote.org", 403, "M_FORBIDDEN", "You are not in this room").await;
    assert!(server.counted("parlour_admission_total{verdict=\"not-joined\"} 4"), "{}", server.metrics.render());
    for (path, body) in [("/sfu/get", sfu_get(ALICE)), ("/get_token", get_token(ALICE, CALL_SLOT))] {
        let (status, answer) = server.post_json(path, &body).await;
        assert_eq!(status, 200, "{answer}");
        let claims = payload(answer["jwt"].as_str().unwrap());
        assert_eq!(claims["matrix"], json!({"room": ROOM, "slot": CALL_SLOT, "user": ALICE}));
    }
    // No room by that name, and nothing that could be taken for another request.
    for room in ["!nowhere:example.org", "#alias:example.org", "../../../admin", "!r/state", "room"] {
        let (status, answer) =
            server.post_json("/sfu/get", &json!({"room": room, "device_id": "D", "openid_token": openid(ALICE)})).await;
        assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{room}: {answer}");
    }
    assert!(server.counted("parlour_admission_total{verdict=\"let-in\"} 2"));
}

#[tokio::test]
async fn without_msc4502_the_list_of_members_decides() {
    let server = server("").await;
    server.homeserver.rooms.lock().without_msc4502 = true;
    token(&server, ALICE).await;
    refused(&server, "@stranger:example.org", 403, "M_FORBIDDEN", "").await;
}

#[tokio::test]
async fn a_kick_ends_the_session_and_voids_the_token() {
    for membership in ["leave", "ban"] {
        let server = server("").await;
        let old = token(&server, ALICE).await;
        let mut alice = connect(&server, &old).await.unwrap();
        let mut bob = in_call(&server, BOB).await;

        let kicked = Instant::now();
        member_event(&server, ALICE, BOB, membership).await;
        let (reason, action) = alice.leave().await;
        assert!(kicked.elapsed() < Duration::from_secs(1));
        assert_eq!(reason, proto::DisconnectReason::ParticipantRemoved);
        assert_eq!(action, proto::leave_request::Action::Disconnect, "it must not come back");
        assert_eq!(alice.message().await, None);
        bob.stays().await;

        let (status, why) = connect(&server, &old).await.err().expect("refused");
        assert_eq!(status, 401);
        assert!(why.contains("Your access to this call has ended"), "{why}");
        let validated = server.get(&format!("/rtc/validate?access_token={old}")).await;
        assert_eq!(validated.status(), 401);
        refused(&server, ALICE, 403, "M_FORBIDDEN", "You are not in this room").await;
        assert!(server.counted("parlour_joins_total{verdict=\"revoked\"} 1"));
        assert!(server.counted("parlour_removals_total{reason=\"left\"} 1"));

        // Invited again, within the same second.
        member_event(&server, ALICE, ALICE, "join").await;
        let new = token(&server, ALICE).await;
        connect(&server, &new).await.expect("a new token is good");
        assert_eq!(connect(&server, &old).await.err().unwrap().0, 401, "and the old one stays void");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_slips_through_who_is_thrown_out_while_connecting() {
    let server = server("[limits]\njoins_per_minute = 10000\ntokens_per_minute_per_user = 10000\n").await;
    let _bob = in_call(&server, BOB).await;
    for round in 0..60 {
        let token = token(&server, ALICE).await;
        let path = format!("/rtc?access_token={token}");
        let kick = async {
            tokio::time::sleep(Duration::from_micros(round * 100)).await;
            member_event(&server, ALICE, BOB, "ban").await;
        };
        let (socket, ()) = tokio::join!(server.connect(&path), kick);
        // Either there is no socket, or it ends.
        if let Ok(socket) = socket {
            let mut caller = Caller { socket };
            while caller.message().await.is_some() {}
        }
        let there = server.node.participants(&room_alias(ROOM, CALL_SLOT)).await.unwrap().unwrap();
        assert_eq!(there.len(), 1, "in round {round} somebody is still there");
        assert!(server.connect(&path).await.is_err());
        member_event(&server, ALICE, BOB, "join").await;
    }
}

#[tokio::test]
async fn who_is_thrown_out_while_the_homeserver_is_slow_to_say_does_not_get_in_after() {
    let server = server("").await;
    let _bob = in_call(&server, BOB).await;
    let token = token(&server, ALICE).await;
    server.app.rooms.watch.handle(&event("m.room.member", ALICE, ALICE, json!({"membership": "knock"}))).await;
    server.homeserver.rooms.set_health(Health::Hangs);
    let kick = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        member_event(&server, ALICE, BOB, "ban").await;
    };
    let path = format!("/rtc?access_token={token}");
    let (refused, ()) = tokio::join!(server.connect(&path), kick);
    assert_eq!(refused.expect_err("refused").0, 401);
    let there = server.node.participants(&room_alias(ROOM, CALL_SLOT)).await.unwrap().unwrap();
    assert_eq!(there.len(), 1);
}

#[tokio::test]
async fn a_fresh_token_from_the_call_is_void_with_the_first() {
    let server = server("").await;
    let mut alice = in_call(&server, ALICE).await;
    let fresh = loop {
        if let Some(Signal::RefreshToken(token)) = alice.message().await {
            break token;
        }
    };
    assert_eq!(payload(&fresh)["matrix"]["user"], ALICE);
    connect(&server, &fresh).await.expect("good until then");
    member_event(&server, ALICE, ALICE, "leave").await;
    assert_eq!(connect(&server, &fresh).await.err().unwrap().0, 401);
}

#[tokio::test]
async fn all_devices_of_a_user_go_and_nobody_elses() {
    let server = server("").await;
    let mut first = in_call(&server, ALICE).await;
    let (_, answer) = server.post_json("/get_token", &get_token(ALICE, CALL_SLOT)).await;
    let mut second = connect(&server, answer["jwt"].as_str().unwrap()).await.unwrap();
    let mut carol = in_call(&server, CAROL).await;
    member_event(&server, ALICE, BOB, "ban").await;
    first.leave().await;
    second.leave().await;
    carol.stays().await;
    member_event(&server, CAROL, BOB, "ban").await;
    carol.leave().await;
}

#[tokio::test]
async fn an_old_token_does_not_outlive_membership_that_nobody_told_us_of() {
    let server = server("").await;
    let old = token(&server, ALICE).await;
    server.homeserver.rooms.leave(ROOM, ALICE);
    server.app.rooms.watch.handle(&event("m.room.member", ALICE, BOB, json!({"membership": "invite"}))).await;
    let (status, why) = connect(&server, &old).await.err().unwrap();
    assert_eq!(status, 401);
    assert!(why.contains("You are not in this room"), "{why}");
    assert!(server.counted("parlour_joins_total{verdict=\"not-joined\"} 1"));
}

#[tokio::test]
async fn a_connection_right_after_its_token_asks_nothing_of_the_homeserver() {
    let server = server("").await;
    let token = token(&server, ALICE).await;
    let asked = server.homeserver.rooms.asked("");
    connect(&server, &token).await.unwrap();
    assert_eq!(server.homeserver.rooms.asked(""), asked);
}

#[tokio::test]
async fn a_homeserver_that_is_down_throws_nobody_out_and_keeps_no_token_from_working() {
    let server = server("").await;
    let (alices, bobs) = (token(&server, ALICE).await, token(&server, BOB).await);
    let mut alice = connect(&server, &alices).await.unwrap();
    server.homeserver.rooms.set_health(Health::Down);
    // What is remembered is forgotten, or it would not be asked.
    server.app.rooms.watch.handle(&event("m.room.member", BOB, BOB, json!({"membership": "knock"}))).await;
    server.app.rooms.watch.look().await;
    alice.stays().await;
    connect(&server, &bobs).await.expect("a valid token is enough");
    connect(&server, &alices).await.expect("also to come back");
    refused(&server, "@dave:example.org", 502, "M_UNKNOWN", "could not be asked whether you are in this room").await;
    assert!(server.counted("parlour_admission_total{verdict=\"cannot-check\"} 2"));

    server.homeserver.rooms.set_health(Health::Up);
    server.app.rooms.watch.look().await;
    token(&server, BOB).await;
}

#[tokio::test]
async fn a_homeserver_that_hangs_holds_a_connection_up_for_a_moment_only() {
    let server = server("").await;
    let token = token(&server, ALICE).await;
    server.app.rooms.watch.handle(&event("m.room.member", ALICE, ALICE, json!({"membership": "knock"}))).await;
    server.homeserver.rooms.set_health(Health::Hangs);
    let started = Instant::now();
    connect(&server, &token).await.expect("let in");
    let waited = started.elapsed();
    assert!(Duration::from_secs(2) < waited && waited < Duration::from_secs(5), "{waited:?}");
}

#[tokio::test]
async fn where_nothing_is_told_a_look_removes_who_has_left() {
    let server = server("").await;
    let mut alice = in_call(&server, ALICE).await;
    let mut carol = in_call(&server, CAROL).await;
    server.app.rooms.watch.look().await;
    server.homeserver.rooms.leave(ROOM, CAROL);
    server.app.rooms.watch.look().await;
    assert_eq!(carol.leave().await.0, proto::DisconnectReason::ParticipantRemoved);
    alice.stays().await;
    assert!(server.counted("parlour_removals_total{reason=\"not-joined\"} 1"));
}

#[tokio::test]
async fn rooms_are_looked_at_unless_the_homeserver_tells_of_them() {
    for (told, strict_lists) in [(true, false), (false, false), (false, true)] {
        let server = server("").await;
        server.homeserver.rooms.lock().strict_lists = strict_lists;
        let mut alice = in_call(&server, ALICE).await;
        server.homeserver.rooms.leave(ROOM, ALICE);
        if told {
            server.app.rooms.watch.transaction_arrived();
        }
        let (rooms, shutdown) = (server.app.rooms.clone(), server.shutdown.clone());
        let running = tokio::spawn(async move { rooms.run(shutdown).await });
        match told {
            true => alice.stays().await,
            false => assert_eq!(alice.leave().await.0, proto::DisconnectReason::ParticipantRemoved),
        }
        server.shutdown.cancel();
        running.await.unwrap();
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_true_throws_nobody_out() {
    let server = server("").await;
    let mut alice = in_call(&server, ALICE).await;
    let mut carol = in_call(&server, CAROL).await;
    let rooms = &server.homeserver.rooms;
    // Nobody is joined, says a homeserver that cannot be asked whether it is itself.
    rooms.lock().without_msc4502 = true;
    for user in [ALICE, BOB, CAROL] {
        rooms.lock().lagging.insert((ROOM.into(), user.into()), usize::MAX);
    }
    server.app.rooms.watch.look().await;
    alice.stays().await;
    carol.stays().await;
}

#[tokio::test]
async fn a_call_ends_when_our_server_has_left_its_room() {
    let server = server("").await;
    let mut alice = in_call(&server, ALICE).await;
    let mut carol = in_call(&server, CAROL).await;
    let carols = token(&server, CAROL).await;
    server.homeserver.rooms.leave(ROOM, BOB);
    member_event(&server, ALICE, ALICE, "leave").await;
    assert_eq!(alice.leave().await.0, proto::DisconnectReason::ParticipantRemoved);
    assert_eq!(members(&server.homeserver.rooms), 1);
    assert_eq!(carol.leave().await.0, proto::DisconnectReason::RoomDeleted);
    assert_eq!(connect(&server, &carols).await.err().unwrap().0, 404);

    // The same, found by looking.
    let server = self::server("").await;
    let mut carol = in_call_after(&server, CAROL).await;
    for user in [ALICE, BOB] {
        server.homeserver.rooms.leave(ROOM, user);
    }
    server.homeserver.rooms.set_health(Health::Down);
    server.app.rooms.watch.look().await;
    carol.stays().await;
    server.homeserver.rooms.set_health(Health::Up);
    server.app.rooms.watch.look().await;
    assert_eq!(carol.leave().await.0, proto::DisconnectReason::RoomDeleted);
}

/// A remote user in a call that a local one has started and left.
async fn in_call_after(server: &Server, user: &str) -> Caller {
    token(server, ALICE).await;
    in_call(server, user).await
}

#[tokio::test]
async fn revocations_outlive_a_restart_also_of_the_homeserver() {
    let store = Store::in_memory();
    let first = {
        let homeserver = Homeserver::start().await;
        homeserver.rooms.join(ROOM, ALICE);
        homeserver.rooms.join(ROOM, BOB);
        started("", &homeserver, store.clone()).await
    };
    let (alices, bobs) = (token(&first, ALICE).await, token(&first, BOB).await);
    member_event(&first, ALICE, BOB, "ban").await;
    first.homeserver.rooms.set_health(Health::Down);
    let second = started("", &first.homeserver, store).await;
    second.create_room(&room_alias(ROOM, CALL_SLOT), 0).await;
    assert_eq!(connect(&second, &alices).await.err().unwrap().0, 401);
    connect(&second, &bobs).await.expect("another's token is good");
}

#[tokio::test]
async fn into_a_call_that_a_restart_has_forgotten_people_come_back() {
    let server = server("").await;
    let (alices, carols) = (token(&server, ALICE).await, token(&server, CAROL).await);
    assert!(server.app.node.delete_room(&room_alias(ROOM, CALL_SLOT)).await.unwrap());
    let resume = |token: &str| format!("/rtc?access_token={token}&reconnect=1&sid=PA_before");

    // Who could not have started the call tries on, and does not give up.
    assert_eq!(server.connect(&resume(&carols)).await.err().unwrap().0, 503);
    assert_eq!(connect(&server, &carols).await.err().unwrap(), (404, "requested room does not exist".to_owned()));
    assert!(server.counted("parlour_joins_total{verdict=\"room-lost\"} 1"), "{}", server.metrics.render());

    let mut alice = Caller { socket: server.connect(&resume(&alices)).await.unwrap() };
    let (_, action) = alice.leave().await;
    assert_eq!(action, proto::leave_request::Action::Reconnect, "nothing is left to resume");
    connect(&server, &alices).await.expect("she joins anew");
    connect(&server, &carols).await.expect("and so does he, as the call is there");

    assert!(server.app.node.delete_room(&room_alias(ROOM, CALL_SLOT)).await.unwrap());
    member_event(&server, ALICE, ALICE, "leave").await;
    assert_eq!(server.connect(&resume(&alices)).await.err().unwrap().0, 401, "only members make it anew");
    assert_eq!(connect(&server, &carols).await.err().unwrap().0, 404);
}

#[tokio::test]
async fn a_leave_that_comes_late_is_not_believed_before_the_homeserver_is_asked() {
    let server = server("").await;
    let mut alice = in_call(&server, ALICE).await;
    let mut late = event("m.room.member", ALICE, ALICE, json!({"membership": "leave"}));
    late.sent_ms -= 60 * 60 * 1000;
    server.app.rooms.watch.handle(&late).await;
    alice.stays().await;
    server.homeserver.rooms.leave(ROOM, ALICE);
    server.app.rooms.watch.handle(&late).await;
    alice.leave().await;
}

#[tokio::test]
async fn a_room_nobody_of_ours_is_in_cannot_be_seen() {
    let server = server("").await;
    let rooms = &server.homeserver.rooms;
    rooms.lock().without_msc4502 = true;
    for user in [ALICE, BOB] {
        rooms.leave(ROOM, user);
    }
    refused(&server, CAROL, 403, "M_FORBIDDEN", "Nobody of this server is in the room").await;
}

#[tokio::test]
async fn without_the_requirement_a_kick_still_counts() {
    let server = server("[access]\nrequire_membership = false\n").await;
    let mut stranger = in_call(&server, "@stranger:example.org").await;
    member_event(&server, "@stranger:example.org", BOB, "ban").await;
    stranger.leave().await;
}

#[tokio::test]
async fn trap_6_joins_over_federation_are_known_a_moment_later() {
    let server = server("").await;
    server.homeserver.rooms.lock().lagging.insert((ROOM.into(), CAROL.into()), 2);
    token(&server, CAROL).await;
    // Not so for users of our own server, whose joins it makes itself.
    server.homeserver.rooms.lock().lagging.insert((ROOM.into(), ALICE.into()), 1);
    let (status, _) = server.post_json("/sfu/get", &sfu_get(ALICE)).await;
    assert_eq!(status, 403);
}
