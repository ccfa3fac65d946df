//! Delayed leaves that come through the homeserver: whose event it is and how long its delay is, that says itself.

mod http_support;

use http_support::Server;
use http_support::fake_delays::Conduct;
use http_support::fake_rooms::HS_TOKEN;
use parlour::matrix::identity::member_identity;
use serde_json::{Value, json};

const ROOM: &str = "!room:example.org";
const ALICE: &str = "@alice:example.org";
const BOB: &str = "@bob:example.org";
const HOUR_MS: u64 = 3_600_000;

const PATHS: [&str; 2] = [
    "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave",
    "/_matrix/client/v1/rtc/livekit/delegate_delayed_leave",
];

async fn server() -> Server {
    let server = Server::with_rooms("").await;
    for user in [ALICE, BOB] {
        server.homeserver.rooms.join(ROOM, user);
    }
    server
}

fn delegation(delay_id: &str) -> Value {
    json!({
        "url": "wss://rtc.example.org/calls", "room_id": ROOM, "slot_id": "m.call#ROOM", "member_id": "memberABC",
        "delay_id": delay_id,
    })
}

async fn post(server: &Server, path: &str, user: &str, body: impl ToString) -> (u16, Value) {
    let request = server.client.post(server.url(path)).bearer_auth(HS_TOKEN).header("x-matrix-user-identifier", user);
    let response = request.body(body.to_string()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn outcome(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["errcode"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_delayed_leave_is_taken_over_in_the_name_of_its_owner() {
    for path in PATHS {
        let server = server().await;
        let delays = &server.homeserver.delays;
        delays.schedule("d1", ALICE, ROOM, HOUR_MS);
        assert_eq!(post(&server, path, ALICE, delegation("d1")).await, (200, json!({})));
        assert_eq!(delays.log(), ["restart d1 as @alice:example.org"], "it was seen to work before we said yes");
    }
}

/// The one whose leave it is must be known by the name it has in the SFU, or nothing ever happens to it.
#[tokio::test]
async fn the_leave_is_sent_when_that_very_participant_is_gone() {
    let server = server().await;
    let delays = &server.homeserver.delays;
    let mut sockets = Vec::new();
    for (user, delay_id) in [(ALICE, "of-alice"), (BOB, "of-bob")] {
        delays.schedule(delay_id, user, ROOM, HOUR_MS);
        assert_eq!(post(&server, PATHS[0], user, delegation(delay_id)).await, (200, json!({})));
        let token = PATHS[0].replace("delegate_delayed_leave", "get_token");
        let (_, granted) = post(&server, &token, user, delegation("ignored")).await;
        let token = granted["jwt"].as_str().unwrap();
        assert_eq!(http_support::payload(token)["sub"], member_identity(user, "memberABC"));
        sockets.push(server.connect(&format!("/rtc?access_token={token}")).await.unwrap());
    }
    server.homeserver.rooms.leave(ROOM, BOB);
    let leave = json!({
        "type": "m.room.member", "state_key": BOB, "room_id": ROOM, "sender": BOB, "event_id": "$1",
        "origin_server_ts": http_support::now() * 1000, "content": {"membership": "leave"},
    });
    let transaction = server.client.put(server.url("/_matrix/app/v1/transactions/1")).bearer_auth(HS_TOKEN);
    let told = transaction.body(json!({"events": [leave]}).to_string()).send().await.unwrap();
    assert_eq!(told.status(), 200);
    delays.until("send of-bob as @bob:example.org", 1).await;
    assert_eq!(delays.asked("send of-alice"), 0, "{:?}", delays.log());
}

#[tokio::test]
async fn what_is_not_the_users_to_delegate_is_refused() {
    let server = server().await;
    let delays = &server.homeserver.delays;
    delays.schedule("d1", ALICE, ROOM, HOUR_MS);
    delays.schedule("elsewhere", ALICE, "!other:example.org", HOUR_MS);
    delays.schedule("short", ALICE, ROOM, 1000);
    let without = |field: &str| {
        let mut body = delegation("d1");
        body.as_object_mut().unwrap().remove(field);
        body
    };
    let with = |field: &str, value: &str| {
        let mut body = delegation("d1");
        body[field] = json!(value);
        body
    };
    let invalid = (400, "M_INVALID_PARAM");
    for (user, body, expected) in [
        (ALICE, delegation("unknown"), invalid),
        (BOB, delegation("d1"), invalid),
        (ALICE, delegation("elsewhere"), invalid),
        (ALICE, delegation("short"), invalid),
        (ALICE, delegation(".."), invalid),
        (ALICE, delegation("../../v3/account/whoami"), invalid),
        (ALICE, with("url", "wss://rtc.other.example"), invalid),
        (ALICE, with("room_id", "!other:example.org"), invalid),
        (ALICE, without("delay_id"), (400, "M_BAD_JSON")),
        (ALICE, with("delay_id", ""), (400, "M_BAD_JSON")),
        (ALICE, without("url"), (400, "M_BAD_JSON")),
        (ALICE, without("room_id"), (400, "M_BAD_JSON")),
        (ALICE, without("slot_id"), (400, "M_BAD_JSON")),
        (ALICE, without("member_id"), (400, "M_BAD_JSON")),
        ("@alice:other.example", delegation("d1"), (403, "M_FORBIDDEN")),
        ("alice", delegation("d1"), invalid),
    ] {
        for path in PATHS {
            let answer = post(&server, path, user, &body).await;
            assert_eq!(outcome(&answer), expected, "{user} {body}: {}", answer.1);
        }
    }
    assert_eq!(delays.log(), [] as [&str; 0], "nothing was managed");
    for body in ["", "{"] {
        assert_eq!(outcome(&post(&server, PATHS[0], ALICE, body).await), (400, "M_NOT_JSON"));
    }
    let anonymous = server.client.post(server.url(PATHS[0])).bearer_auth(HS_TOKEN).body("{}").send().await.unwrap();
    assert_eq!(anonymous.status(), 401, "without the name of a user");
}

#[tokio::test]
async fn a_homeserver_that_cannot_be_asked_is_no_yes() {
    let server = server().await;
    let delays = &server.homeserver.delays;
    delays.schedule("d1", ALICE, ROOM, HOUR_MS);
    for conduct in [Conduct::InTrouble, Conduct::NotOffered] {
        delays.set(conduct);
        let answer = post(&server, PATHS[0], ALICE, delegation("d1")).await;
        assert_eq!(outcome(&answer), (503, "M_UNKNOWN"), "{conduct:?}: {}", answer.1);
    }
    delays.set(Conduct::OwnersOnly);
    assert_eq!(post(&server, PATHS[0], ALICE, delegation("d1")).await, (200, json!({})));
    server.app.drain();
    assert_eq!(outcome(&post(&server, PATHS[0], ALICE, delegation("d1")).await), (503, "M_UNKNOWN"));
}
