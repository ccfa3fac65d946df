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
use parlour::net::PresenceChange;
use parlour::store::Store;
use proto::signal_response::Message as Signal;
use serde_json::{Value, json};

/// By both dialects of the token service.
async fn refused(server: &Server, user: &str, status: u16, errcode: &str, words: &str) {
    for (path, body) in [("/sfu/get", sfu_get(user)), ("/get_token", get_token(user, CALL_SLOT))] {
        let (code, answer) = server.post_json(path, &body).await;
        assert_eq!((code, answer["errcode"].as_str()), (status, Some(errcode)), "{path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{path}: {answer}");
    }
}

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
    assert_eq!(refused.err().expect("refused").0, 401);
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
async fn servers_that_the_room_denies_get_no_token_and_leave_the_call() {
    let acl = |deny: &[&str]| json!({"allow": ["*"], "deny": deny});
    let server = server("").await;
    token(&server, ALICE).await;
    let old = token(&server, CAROL).await;
    let mut carol = connect(&server, &old).await.unwrap();
    let mut alice = in_call(&server, ALICE).await;
    tell(&server, "m.room.server_acl", "", BOB, acl(&["other.org"])).await;
    carol.stays().await;
    tell(&server, "m.room.server_acl", "", BOB, acl(&["remote.org", "example.org"])).await;
    assert_eq!(carol.leave().await.0, proto::DisconnectReason::ParticipantRemoved);
    alice.stays().await;
    refused(&server, CAROL, 403, "M_FORBIDDEN", "does not let your homeserver take part").await;
    assert_eq!(connect(&server, &old).await.err().unwrap().0, 401);
    assert!(server.counted("parlour_admission_total{verdict=\"server-denied-by-acl\"} 2"));
    tell(&server, "m.room.server_acl", "", BOB, acl(&[])).await;
    let new = token(&server, CAROL).await;
    connect(&server, &new).await.expect("allowed again");

    // Also what was there before anybody asked.
    let homeserver = Homeserver::start().await;
    homeserver.rooms.join(ROOM, ALICE);
    homeserver.rooms.join(ROOM, CAROL);
    homeserver.rooms.set_state(ROOM, "m.room.server_acl", "", ALICE, acl(&["remote.org"]));
    let server = started("", &homeserver, Store::in_memory()).await;
    token(&server, ALICE).await;
    refused(&server, CAROL, 403, "M_FORBIDDEN", "does not let your homeserver take part").await;
}

#[tokio::test]
async fn a_closed_slot_ends_its_call_and_no_other() {
    let server = server("").await;
    let old = token(&server, ALICE).await;
    let mut alice = connect(&server, &old).await.unwrap();
    let (_, answer) = server.post_json("/get_token", &get_token(BOB, "m.call#other")).await;
    let mut bob = connect(&server, answer["jwt"].as_str().unwrap()).await.unwrap();
    let slot = |status: &str| json!({"status": status, "application": {"type": "m.call"}});
    tell(&server, "org.matrix.msc4143.rtc.slot", CALL_SLOT, BOB, slot("open")).await;
    alice.stays().await;
    tell(&server, "org.matrix.msc4143.rtc.slot", CALL_SLOT, BOB, slot("closed")).await;
    assert_eq!(alice.leave().await.0, proto::DisconnectReason::RoomDeleted);
    bob.stays().await;
    refused(&server, ALICE, 403, "M_FORBIDDEN", "The call is closed in this room").await;
    server.create_room(&room_alias(ROOM, CALL_SLOT), 0).await;
    assert_eq!(connect(&server, &old).await.err().unwrap().0, 401);
    tell(&server, "org.matrix.msc4143.rtc.slot", CALL_SLOT, BOB, slot("open")).await;
    connect(&server, &old).await.expect("open again");
}

#[tokio::test]
async fn a_room_that_was_replaced_gets_no_new_callers_and_keeps_its_old_ones() {
    let server = server("").await;
    let mut alice = in_call(&server, ALICE).await;
    tell(&server, "m.room.tombstone", "", BOB, json!({"body": "moved", "replacement_room": "!new:example.org"})).await;
    alice.stays().await;
    refused(&server, BOB, 403, "M_FORBIDDEN", "This room was replaced by a new one").await;
    token(&server, ALICE).await;
}

#[tokio::test]
async fn a_user_has_so_many_sessions_and_a_reconnect_counts_for_none() {
    let server = server("[limits]\nsessions_per_user = 2\nsessions_per_server = 1\n").await;
    let request = |user: &str, device: &str| json!({"room": ROOM, "device_id": device, "openid_token": openid(user)});
    let ask = async |user: &str, device: &str| server.post_json("/sfu/get", &request(user, device)).await;
    let mut callers = Vec::new();
    let mut tokens = Vec::new();
    for device in ["ONE", "TWO", "THREE"] {
        tokens.push(ask(ALICE, device).await.1["jwt"].as_str().unwrap().to_owned());
    }
    for token in &tokens[..2] {
        callers.push(connect(&server, token).await.unwrap());
        seen(&server, |change| change == PresenceChange::Joined).await;
    }
    let (status, answer) = ask(ALICE, "FOUR").await;
    assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_USER_LIMIT_EXCEEDED")), "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("too many calls at once"), "{answer}");
    assert_eq!(connect(&server, &tokens[2]).await.err().unwrap().0, 503);
    assert_eq!(ask(ALICE, "ONE").await.0, 200, "its own place");
    connect(&server, &tokens[0]).await.expect("its own place");
    assert_eq!(ask(BOB, "ONE").await.0, 200, "another's do not count");

    let _carol = in_call(&server, CAROL).await;
    let dave = "@dave:remote.org";
    server.homeserver.rooms.join(ROOM, dave);
    let (status, answer) = ask(dave, "ONE").await;
    assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_USER_LIMIT_EXCEEDED")), "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("Too many users of your homeserver"), "{answer}");
    for verdict in ["too-many-sessions\"} 2", "server-quota\"} 1"] {
        assert!(
            server.counted(&format!("parlour_admission_total{{verdict=\"{verdict}")),
            "{}",
            server.metrics.render()
        );
    }
}

#[tokio::test]
async fn tokens_are_limited_per_user_and_per_remote_server() {
    let server = server("[limits]\ntokens_per_minute_per_user = 3\ntokens_per_minute_per_server = 4\n").await;
    for _ in 0..3 {
        token(&server, ALICE).await;
        token(&server, CAROL).await;
    }
    for user in [ALICE, CAROL] {
        let response = server.post("/sfu/get", sfu_get(user).to_string()).await;
        assert_eq!(response.status(), 429);
        assert!(response.headers().contains_key("retry-after"));
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["errcode"], "M_LIMIT_EXCEEDED");
        assert!(
            answer["retry_after_ms"].as_u64().unwrap() > 0
                && answer["error"].as_str().unwrap().contains("You have asked too often")
        );
    }
    let dave = "@dave:remote.org";
    server.homeserver.rooms.join(ROOM, dave);
    let (status, answer) = server.post_json("/sfu/get", &sfu_get(dave)).await;
    assert_eq!(status, 429);
    assert!(answer["error"].as_str().unwrap().contains("Users of your homeserver"), "{answer}");
    token(&server, BOB).await;
}

#[tokio::test]
async fn a_server_that_is_denied_after_a_restart_is_not_let_in_by_old_tokens() {
    let homeserver = Homeserver::start().await;
    homeserver.rooms.join(ROOM, ALICE);
    homeserver.rooms.join(ROOM, CAROL);
    let old = token(&started("", &homeserver, Store::in_memory()).await, CAROL).await;
    let server = started("[federation]\ndeny = [\"remote.org\"]\n", &homeserver, Store::in_memory()).await;
    token(&server, ALICE).await;
    let (status, why) = connect(&server, &old).await.err().unwrap();
    assert_eq!(status, 401);
    assert!(why.contains("Your homeserver may not take part"), "{why}");
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
async fn tokens_of_apps_are_the_apps_business() {
    let server = server("").await;
    server.create_room("meeting", 0).await;
    connect(&server, &server.join_token("guest", "meeting")).await.expect("no Matrix room is asked");
    assert_eq!(server.homeserver.rooms.asked(""), 0);
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

#[tokio::test]
async fn trap_7_a_user_is_of_the_server_that_vouches_and_no_other_spelling_is_ours() {
    let homeserver = Homeserver::start().await;
    let (shouting, on_port) = ("@alice:EXAMPLE.org", "@alice:example.org:8448");
    for user in [ALICE, shouting, on_port] {
        homeserver.rooms.join(ROOM, user);
    }
    let address = homeserver.address;
    let more = format!("\"EXAMPLE.org\" = \"http://{address}\"\n\"example.org:8448\" = \"http://{address}\"\n");
    let config = format!("{APPSERVICE}[federation.overrides]\n{more}");
    let server = Server::with_store(&config, homeserver, Store::in_memory()).await;
    assert_eq!(payload(&token(&server, ALICE).await)["video"]["canPublish"], true);
    for user in [shouting, on_port] {
        let claims = payload(&token(&server, user).await);
        assert_eq!(claims["video"]["canPublish"], false, "{user} is a stranger");
        assert_eq!(claims["matrix"]["user"], user);
        // One server vouching for a user of another, under whatever spelling.
        let mut lie = sfu_get(user);
        lie["openid_token"]["access_token"] = json!(format!("sub:{ALICE}"));
        assert_eq!(server.post_json("/sfu/get", &lie).await.0, 401);
    }
}

#[tokio::test]
async fn trap_12_admission_reads_no_call_membership() {
    // In an encrypted room the newer memberships cannot be read, and clients fetch the token before they send any.
    let server = server("").await;
    server.homeserver.rooms.set_state(
        ROOM,
        "m.room.encryption",
        "",
        ALICE,
        json!({"algorithm": "m.megolm.v1.aes-sha2"}),
    );
    let mut alice = in_call(&server, ALICE).await;
    server.app.rooms.watch.look().await;
    alice.stays().await;
    assert_eq!(server.homeserver.rooms.asked("call.member") + server.homeserver.rooms.asked("rtc.member"), 0);
}

#[tokio::test]
async fn trap_13_remote_users_publish_where_the_operator_lets_them() {
    for (more, publishes, creates) in [
        ("", false, false),
        ("[access]\nremote_can_publish = true\n", true, false),
        ("[access]\npublish = [\"remote.org\"]\n", true, false),
        ("[access]\npublish = [\"other.org\"]\ncreate = [\"remote.org\"]\n", false, true),
    ] {
        let server = server(more).await;
        assert_eq!(payload(&token(&server, CAROL).await)["video"]["canPublish"], publishes, "{more}");
        assert_eq!(server.has_room(&room_alias(ROOM, CALL_SLOT)).await, creates, "{more}");
        assert_eq!(payload(&token(&server, ALICE).await)["video"]["canPublish"], true);
    }
}

#[tokio::test]
async fn trap_14_web_pages_may_read_why_they_were_refused() {
    let server = server("[limits]\ntokens_per_minute_per_user = 1\n").await;
    server.homeserver.rooms.join(ROOM, "@once:example.org");
    token(&server, "@once:example.org").await;
    server.homeserver.rooms.lock().lagging.clear();
    let refusals = [
        (server.post("/sfu/get", sfu_get("@stranger:example.org").to_string()).await, 403),
        (server.post("/sfu/get", sfu_get("@once:example.org").to_string()).await, 429),
        (server.get("/sfu/get").await, 405),
        (server.post("/moderate", "{}").await, 400),
        (server.get("/moderate").await, 405),
        (server.get("/nowhere").await, 404),
    ];
    for (response, status) in refusals {
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["access-control-allow-origin"], "*", "{status}");
    }
}

#[tokio::test]
async fn trap_16_no_token_of_ours_may_create_or_delete_rooms() {
    let server = server("[access]\ncreate = [\"*\"]\npublish = [\"*\"]\n").await;
    for user in [ALICE, CAROL] {
        let video = payload(&token(&server, user).await)["video"].clone();
        for grant in ["roomCreate", "roomAdmin", "roomList", "roomRecord"] {
            assert_ne!(video[grant], true, "{grant}");
        }
    }
}
