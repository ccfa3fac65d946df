//! What operators and moderators do to calls, over real sockets: `/api/calls`, `parlour calls`, `/moderate`.

mod http_support;

use std::process::{Command, Output};

use http_support::callers::*;
use http_support::fake_rooms::Health;
use http_support::{KEY, SECRET, Server};
use livekit_protocol as proto;
use parlour::matrix::identity::{CALL_SLOT, room_alias};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};

async fn ask(server: &Server, method: Method, path: &str, token: Option<&str>) -> (u16, Value) {
    let mut request = server.client.request(method, server.url(path));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn granted(server: &Server, video: Value) -> String {
    server.token(json!({"sub": "operator", "video": video}))
}

fn path_of(room: &str) -> String {
    format!("/api/calls/{}", utf8_percent_encode(room, NON_ALPHANUMERIC))
}

#[tokio::test]
async fn calls_are_listed_with_who_is_in_them() {
    let server = server("").await;
    let reader = granted(&server, json!({"roomList": true}));
    assert_eq!(ask(&server, Method::GET, "/api/calls", Some(&reader)).await, (200, json!({"calls": []})));
    let _alice = in_call(&server, ALICE).await;
    let _carol = in_call(&server, CAROL).await;
    server.create_room("meeting", 0).await;
    server.create_room("empty", 0).await;
    let _guest = connect(&server, &server.join_token("guest", "meeting")).await.unwrap();
    let (status, answer) = ask(&server, Method::GET, "/api/calls", Some(&reader)).await;
    assert_eq!(status, 200);
    let calls = answer["calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2, "{answer}");
    assert_eq!(
        (&calls[0]["room"], &calls[0]["room_id"], &calls[0]["slot_id"]),
        (&json!(room_alias(ROOM, CALL_SLOT)), &json!(ROOM), &json!(CALL_SLOT))
    );
    let users: Vec<&Value> = calls[0]["participants"].as_array().unwrap().iter().map(|p| &p["user_id"]).collect();
    assert_eq!(users, [ALICE, CAROL]);
    assert_eq!((&calls[1]["room"], &calls[1]["room_id"]), (&json!("meeting"), &Value::Null));
    assert_eq!(calls[1]["participants"][0]["identity"], "guest");
}

#[tokio::test]
async fn only_who_has_the_grant_sees_and_ends_calls() {
    let server = server("").await;
    let _alice = in_call(&server, ALICE).await;
    let alias = room_alias(ROOM, CALL_SLOT);
    let tokens = [
        (None, 401, "M_MISSING_TOKEN"),
        (Some("nonsense".to_owned()), 401, "M_UNKNOWN_TOKEN"),
        (Some(token(&server, ALICE).await), 403, "M_FORBIDDEN"),
        (Some(granted(&server, json!({"roomAdmin": true, "room": "another"}))), 403, "M_FORBIDDEN"),
        (Some(server.token(json!({"sub": "nobody"}))), 403, "M_FORBIDDEN"),
    ];
    for (token, status, errcode) in tokens {
        for (method, path) in
            [(Method::GET, "/api/calls".to_owned()), (Method::DELETE, path_of(&alias)), (Method::DELETE, path_of(ROOM))]
        {
            let (code, answer) = ask(&server, method, &path, token.as_deref()).await;
            assert_eq!((code, answer["errcode"].as_str()), (status, Some(errcode)), "{path}: {answer}");
        }
    }
    assert_eq!(ask(&server, Method::POST, "/api/calls", None).await.0, 405);
    assert!(server.has_room(&alias).await);
    let page = server.get("/api/calls").await;
    assert!(!page.headers().contains_key("access-control-allow-origin"), "not for web pages");
}

#[tokio::test]
async fn a_call_is_ended_by_the_name_of_its_room_or_its_own() {
    let server = server("").await;
    let alias = room_alias(ROOM, CALL_SLOT);
    for (name, grant) in [
        (ROOM, json!({"roomCreate": true})),
        (&alias, json!({"roomCreate": true})),
        (&alias, json!({"roomAdmin": true, "room": alias})),
        (ROOM, json!({"roomAdmin": true, "room": alias})),
    ] {
        let mut alice = in_call(&server, ALICE).await;
        let ended = ask(&server, Method::DELETE, &path_of(name), Some(&granted(&server, grant))).await;
        assert_eq!(ended, (200, json!({"ended": [alias]})));
        assert_eq!(alice.leave().await.0, proto::DisconnectReason::RoomDeleted);
    }
    let creator = granted(&server, json!({"roomCreate": true}));
    let (status, answer) = ask(&server, Method::DELETE, &path_of("!nowhere:example.org"), Some(&creator)).await;
    assert_eq!((status, answer["errcode"].as_str()), (404, Some("M_NOT_FOUND")), "{answer}");
}

fn run(config: &std::path::Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_parlour")).args(arguments).arg("--config").arg(config).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_lists_and_ends() {
    let server = server("").await;
    let _alice = in_call(&server, ALICE).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("parlour.toml");
    let write = |listen: &str, secret: &str| {
        let text = format!(
            "server_name = \"example.org\"\nhomeserver = \"http://127.0.0.1:8008\"\npublic_url = \"https://rtc.example.org\"\ndata_dir = {:?}\nhttp.listen = \"{listen}\"\nkeys = {{ {KEY} = \"{secret}\" }}\n",
            folder.path()
        );
        std::fs::write(&config, text).unwrap();
    };
    write(&format!("0.0.0.0:{}", server.address.port()), SECRET);
    let said = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    let listed = run(&config, &["calls", "list"]);
    assert!(listed.status.success(), "{listed:?}");
    assert!(said(&listed).starts_with("!room:example.org  m.call#ROOM  1 in it, for "), "{listed:?}");
    assert!(said(&listed).contains("\n  @alice:example.org  0 tracks, for "), "{listed:?}");
    let json: Value = serde_json::from_str(&said(&run(&config, &["calls", "list", "--json"]))).unwrap();
    assert_eq!(json["calls"][0]["room_id"], ROOM);
    let ended = run(&config, &["calls", "end", ROOM]);
    assert_eq!(said(&ended), format!("Ended {}.\n", room_alias(ROOM, CALL_SLOT)));
    assert_eq!(said(&run(&config, &["calls", "list"])), "No calls.\n");

    let failed = |output: Output, words: &str| {
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(words), "{text}");
    };
    failed(run(&config, &["calls", "end", ROOM]), "There is no such call");
    write(&format!("127.0.0.1:{}", server.address.port()), "another-secret-of-the-tests-0123456789");
    failed(run(&config, &["calls", "list"]), "Parlour does not take the API key of this configuration");
    write("127.0.0.1:1", SECRET);
    failed(run(&config, &["calls", "list"]), "Parlour does not answer at 127.0.0.1:1");
}

fn moderation(by: &str, user: &str, action: &str) -> Value {
    json!({"openid_token": openid(by), "room_id": ROOM, "user_id": user, "action": action})
}

/// Bob is the room's moderator.
async fn moderated(more: &str) -> Server {
    let server = server(more).await;
    let rooms = &server.homeserver.rooms;
    rooms.set_state(ROOM, "m.room.create", "", "@maker:example.org", json!({"room_version": "10"}));
    rooms.set_state(ROOM, "m.room.power_levels", "", "@maker:example.org", json!({"users": {BOB: 50}}));
    server
}

#[tokio::test]
async fn a_moderator_sends_somebody_out_who_may_come_back_with_a_new_token() {
    let server = moderated("").await;
    let mut alice = in_call(&server, ALICE).await;
    let old = token(&server, ALICE).await;
    let mut carol = in_call(&server, CAROL).await;
    let answer = server.post_json("/moderate", &moderation(BOB, ALICE, "remove")).await;
    assert_eq!(answer, (200, json!({"removed": 1})));
    assert_eq!(alice.leave().await.0, proto::DisconnectReason::ParticipantRemoved);
    carol.stays().await;
    assert_eq!(connect(&server, &old).await.err().unwrap().0, 401);
    connect(&server, &token(&server, ALICE).await).await.expect("still in the room");
    assert!(server.counted("parlour_removals_total{reason=\"moderator\"} 1"));
    assert!(server.counted("parlour_token_requests_total{outcome=\"granted\",route=\"moderate\"} 1"));
}

#[tokio::test]
async fn nobody_else_moderates() {
    let server = moderated("").await;
    let mut alice = in_call(&server, ALICE).await;
    let mut bob = in_call(&server, BOB).await;
    let without = |field: &str| {
        let mut body = moderation(BOB, ALICE, "remove");
        body.as_object_mut().unwrap().remove(field);
        body
    };
    let with = |field: &str, value: Value| {
        let mut body = moderation(BOB, ALICE, "mute");
        body[field] = value;
        body
    };
    for (body, status, errcode) in [
        (moderation(ALICE, BOB, "remove"), 403, "M_FORBIDDEN"),
        (moderation(CAROL, ALICE, "mute"), 403, "M_FORBIDDEN"),
        (moderation("@stranger:example.org", ALICE, "remove"), 403, "M_FORBIDDEN"),
        (moderation(BOB, CAROL, "remove"), 404, "M_NOT_FOUND"),
        (moderation(BOB, ALICE, "mute"), 404, "M_NOT_FOUND"),
        (with("slot_id", json!("m.call#other")), 404, "M_NOT_FOUND"),
        (moderation(BOB, ALICE, "ban"), 400, "M_BAD_JSON"),
        (with("source", json!("screen")), 400, "M_BAD_JSON"),
        (with("slot_id", json!("")), 400, "M_BAD_JSON"),
        (with("room_id", json!(5)), 400, "M_BAD_JSON"),
        (without("openid_token"), 400, "M_BAD_JSON"),
        (without("room_id"), 400, "M_BAD_JSON"),
        (without("user_id"), 400, "M_BAD_JSON"),
        (without("action"), 400, "M_BAD_JSON"),
        (
            with("openid_token", json!({"access_token": "guess", "matrix_server_name": "example.org"})),
            401,
            "M_UNAUTHORIZED",
        ),
    ] {
        let (code, answer) = server.post_json("/moderate", &body).await;
        assert_eq!((code, answer["errcode"].as_str()), (status, Some(errcode)), "{body}: {answer}");
    }
    server.homeserver.rooms.set_health(Health::Down);
    assert_eq!(server.post_json("/moderate", &moderation(BOB, ALICE, "remove")).await.0, 502);
    alice.stays().await;
    bob.stays().await;
}

#[tokio::test]
async fn anybody_may_end_their_own_forgotten_session() {
    let server = moderated("").await;
    let mut alice = in_call(&server, ALICE).await;
    let answer = server.post_json("/moderate", &moderation(ALICE, ALICE, "remove")).await;
    assert_eq!(answer, (200, json!({"removed": 1})));
    alice.leave().await;
}
