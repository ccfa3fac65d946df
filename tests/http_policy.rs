//! What a room, an operator and the limits say of who is in a call, over real sockets.
//!
//! Tests named `trap_…` stand for the traps of the protocol that others have walked into.

mod http_support;

use http_support::callers::*;
use http_support::{Homeserver, Server, payload};
use livekit_protocol as proto;
use parlour::matrix::identity::{CALL_SLOT, room_alias};
use parlour::net::PresenceChange;
use parlour::store::Store;
use serde_json::{Value, json};

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

    // Also what was there before anybody asked, whoever asked in vain.
    let homeserver = Homeserver::start().await;
    homeserver.rooms.join(ROOM, ALICE);
    homeserver.rooms.join(ROOM, CAROL);
    homeserver.rooms.set_state(ROOM, "m.room.server_acl", "", ALICE, acl(&["remote.org"]));
    let server = started("", &homeserver, Store::in_memory()).await;
    refused(&server, BOB, 403, "M_FORBIDDEN", "You are not in this room").await;
    assert_eq!(homeserver.rooms.asked("/state/"), 0, "for who is not in the room");
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
async fn tokens_of_apps_are_the_apps_business() {
    let server = server("").await;
    server.create_room("meeting", 0).await;
    connect(&server, &server.join_token("guest", "meeting")).await.expect("no Matrix room is asked");
    assert_eq!(server.homeserver.rooms.asked(""), 0);
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
