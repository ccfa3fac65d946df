//! The token service behind the homeserver: what it passes on for its own users and for other servers, and what comes back.

mod http_support;

use http_support::fake_rooms::{HS_TOKEN, Health};
use http_support::{Server, payload};
use parlour::matrix::identity::{device_identity, device_member_identity, member_identity, room_alias};
use serde_json::{Value, json};

const ROOM: &str = "!room:example.org";
const SLOT: &str = "m.call#ROOM";
const ALICE: &str = "@alice:example.org";
const BOB: &str = "@bob:other.example";
const OURS: &str = "wss://rtc.example.org/calls";
const THEIRS: &str = "wss://rtc.other.example";

const CLIENT: [&str; 2] = ["/_matrix/client/unstable/io.element.msc4195/rtc/livekit", "/_matrix/client/v1/rtc/livekit"];
const FEDERATION: [&str; 2] =
    ["/_matrix/federation/unstable/io.element.msc4195/rtc/livekit", "/_matrix/federation/v1/rtc/livekit"];

/// A server whose homeserver has Alice and, over federation, Bob in the room.
async fn server() -> Server {
    let server = Server::with_rooms("").await;
    server.homeserver.rooms.join(ROOM, ALICE);
    server.homeserver.rooms.join(ROOM, BOB);
    server
}

fn call(url: &str) -> Value {
    json!({"url": url, "room_id": ROOM, "slot_id": SLOT, "member_id": "memberABC"})
}

/// `base` with a field replaced, or without it.
fn with(mut base: Value, field: &str, value: impl Into<Option<Value>>) -> Value {
    let fields = base.as_object_mut().unwrap();
    match value.into() {
        Some(value) => drop(fields.insert(field.to_owned(), value)),
        None => drop(fields.remove(field)),
    }
    base
}

fn by_member(member: Value) -> Value {
    with(with(call(OURS), "member_id", None), "member", member)
}

/// What the homeserver gets that passes on a request with these headers.
async fn post(server: &Server, path: &str, headers: &[(&str, &str)], body: impl ToString) -> (u16, Value) {
    let mut request = server.client.post(server.url(path)).bearer_auth(HS_TOKEN);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.body(body.to_string()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn as_user(server: &Server, user: &str, body: impl ToString) -> (u16, Value) {
    post(server, &format!("{}/get_token", CLIENT[0]), &[("X-Matrix-User-Identifier", user)], body).await
}

async fn as_server(server: &Server, origin: &str, body: impl ToString) -> (u16, Value) {
    post(server, &format!("{}/get_token", FEDERATION[0]), &[("X-Matrix-Origin", origin)], body).await
}

fn jwt(answer: &(u16, Value)) -> Value {
    assert_eq!(answer.0, 200, "{}", answer.1);
    payload(answer.1["jwt"].as_str().unwrap())
}

fn outcome(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["errcode"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_user_of_the_homeserver_gets_a_publishing_token_and_a_room() {
    let server = server().await;
    let alias = room_alias(ROOM, SLOT);
    assert!(!server.has_room(&alias).await);
    for path in CLIENT {
        let answer =
            post(&server, &format!("{path}/get_token"), &[("X-Matrix-User-Identifier", ALICE)], call(OURS)).await;
        let claims = jwt(&answer);
        assert_eq!(answer.1["url"], OURS, "clients of summer 2026 want it back");
        assert_eq!(claims["matrix"], json!({"room": ROOM, "slot": SLOT, "user": ALICE}));
        for (grant, expected) in [("room", json!(alias)), ("roomJoin", json!(true)), ("roomCreate", json!(false))] {
            assert_eq!(claims["video"][grant], expected, "{grant}");
        }
        for (grant, expected) in [("canPublish", true), ("canSubscribe", true), ("hidden", false)] {
            assert_eq!(claims["video"][grant], expected, "{grant}");
        }
        assert!(server.has_room(&alias).await);
    }
    for own in [json!("example.org"), json!(""), Value::Null] {
        assert_eq!(as_user(&server, ALICE, with(call(OURS), "server_name", own)).await.0, 200);
    }
    assert_eq!(server.homeserver.federation.take_relayed(), [] as [Value; 0], "nobody else was asked");
    assert!(server.counted("parlour_token_requests_total{outcome=\"granted\",route=\"homeserver_get_token\"} 5"));
}

#[tokio::test]
async fn the_token_opens_the_door() {
    let server = server().await;
    let (_, answer) = as_user(&server, ALICE, call(OURS)).await;
    let token = answer["jwt"].as_str().unwrap();
    assert_eq!(server.get(&format!("/rtc/validate?access_token={token}")).await.status(), 200);
    server.connect(&format!("/rtc?access_token={token}")).await.unwrap();
}

/// Trap 1: who is called something else in the SFU than the others compute waits for media for ever.
#[tokio::test]
async fn trap_1_every_form_of_request_gives_the_identity_that_others_compute() {
    let server = server().await;
    let (id, device) = ("memberABC", "DEVICE123");
    let by_id = member_identity(ALICE, id);
    let by_device = device_member_identity(ALICE, device, id);
    for (request, identity) in [
        (call(OURS), &by_id),
        (by_member(json!({"id": id})), &by_id),
        (by_member(json!({"id": id, "claimed_device_id": device})), &by_device),
        (by_member(json!({"id": id, "claimed_device_id": device, "claimed_user_id": ALICE})), &by_device),
        (by_member(json!({"id": id, "claimed_device_id": ""})), &by_id),
        // The newest form counts when both are there.
        (with(call(OURS), "member", json!({"id": "other", "claimed_device_id": device})), &by_id),
    ] {
        let claims = jwt(&as_user(&server, ALICE, &request).await);
        assert_eq!(claims["sub"], *identity, "{request}");
        let request = with(request, "user_id", json!(BOB));
        if request["member"]["claimed_user_id"].is_null() {
            let identity =
                if *identity == by_id { member_identity(BOB, id) } else { device_member_identity(BOB, device, id) };
            assert_eq!(jwt(&as_server(&server, "other.example", &request).await)["sub"], identity, "{request}");
        }
    }
    let posing = by_member(json!({"id": id, "claimed_device_id": device, "claimed_user_id": BOB}));
    assert_eq!(outcome(&as_user(&server, ALICE, posing).await), (401, "M_UNAUTHORIZED"));
}

/// Trap 2: `m.call#ROOM` in the code and `m.call#room` in the text are different calls, and not ours to unite.
#[tokio::test]
async fn trap_2_slot_ids_are_taken_as_they_are_written() {
    let server = server().await;
    let mut aliases = Vec::new();
    for slot in ["m.call#ROOM", "m.call#room", "m.call#ROOM ", "other"] {
        let request = with(call(OURS), "slot_id", json!(slot));
        let claims = jwt(&as_user(&server, ALICE, &request).await);
        assert_eq!(claims["video"]["room"], room_alias(ROOM, slot));
        let claims = jwt(&as_server(&server, "other.example", with(request, "user_id", json!(BOB))).await);
        assert_eq!(claims["video"]["room"], room_alias(ROOM, slot));
        aliases.push(claims["video"]["room"].clone());
    }
    aliases.dedup();
    assert_eq!(aliases.len(), 4);
}

/// Trap 3: who comes by another dialect comes into the same call.
#[tokio::test]
async fn trap_3_all_dialects_lead_to_one_room() {
    let server = server().await;
    let openid = json!({"access_token": format!("sub:{ALICE}"), "matrix_server_name": "example.org"});
    let legacy = json!({"room": ROOM, "device_id": "DEV", "openid_token": openid});
    let member = json!({"id": "memberABC", "claimed_user_id": ALICE, "claimed_device_id": "DEV"});
    let hashed = json!({"room_id": ROOM, "slot_id": SLOT, "openid_token": openid, "member": member});
    let tokens = [
        jwt(&server.post_json("/sfu/get", &legacy).await),
        jwt(&server.post_json("/get_token", &hashed).await),
        jwt(&as_user(&server, ALICE, call(OURS)).await),
        jwt(&as_server(&server, "other.example", with(call(OURS), "user_id", json!(BOB))).await),
    ];
    for claims in &tokens {
        assert_eq!(claims["video"]["room"], "TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E", "{claims}");
    }
    let identities = [
        device_identity(ALICE, "DEV").unwrap(),
        device_member_identity(ALICE, "DEV", "memberABC"),
        member_identity(ALICE, "memberABC"),
        member_identity(BOB, "memberABC"),
    ];
    assert_eq!(tokens.map(|claims| claims["sub"].as_str().unwrap().to_owned()), identities);
}

#[tokio::test]
async fn the_homeserver_says_who_asks() {
    let server = server().await;
    let long = format!("@{}:example.org", "a".repeat(255));
    let (user, origin) = ("X-Matrix-User-Identifier", "X-Matrix-Origin");
    for path in CLIENT {
        for (headers, expected) in [
            (&[][..], (401, "M_UNAUTHORIZED")),
            (&[(origin, "example.org")], (401, "M_UNAUTHORIZED")),
            (&[(user, "")], (400, "M_INVALID_PARAM")),
            (&[(user, "alice")], (400, "M_INVALID_PARAM")),
            (&[(user, "@alice")], (400, "M_INVALID_PARAM")),
            (&[(user, "@ålice:example.org")], (400, "M_INVALID_PARAM")),
            (&[(user, &long)], (400, "M_INVALID_PARAM")),
            (&[(user, ALICE), (user, "@mallory:example.org")], (400, "M_INVALID_PARAM")),
            (&[(user, BOB)], (403, "M_FORBIDDEN")),
        ] {
            let answer = post(&server, &format!("{path}/get_token"), headers, call(OURS)).await;
            assert_eq!(outcome(&answer), expected, "{headers:?}: {}", answer.1);
        }
    }
    for path in FEDERATION {
        for (headers, expected) in [
            (&[][..], (401, "M_UNAUTHORIZED")),
            (&[(user, BOB)], (401, "M_UNAUTHORIZED")),
            (&[(origin, "")], (400, "M_INVALID_PARAM")),
            (&[(origin, "other example")], (400, "M_INVALID_PARAM")),
            (&[(origin, "other.example"), (origin, "example.org")], (400, "M_INVALID_PARAM")),
            (&[(origin, "third.example")], (403, "M_FORBIDDEN")),
            (&[(origin, "OTHER.example")], (403, "M_FORBIDDEN")),
            (&[(origin, "other.example:8448")], (403, "M_FORBIDDEN")),
        ] {
            let body = with(call(OURS), "user_id", json!(BOB));
            let answer = post(&server, &format!("{path}/get_token"), headers, body).await;
            assert_eq!(outcome(&answer), expected, "{headers:?}: {}", answer.1);
        }
    }
}

#[tokio::test]
async fn malformed_requests_are_told_what_is_wrong() {
    let server = server().await;
    let long = json!("x".repeat(256));
    let bad_json = (400, "M_BAD_JSON");
    let invalid = (400, "M_INVALID_PARAM");
    for (field, value, expected) in [
        ("url", None, bad_json),
        ("url", Some(json!("")), bad_json),
        ("url", Some(json!(5)), bad_json),
        ("url", Some(json!(format!("wss://{}", "x".repeat(2048)))), invalid),
        // Compared as texts: clients connect to what is written here.
        ("url", Some(json!("wss://rtc.example.org/calls/")), invalid),
        ("url", Some(json!("WSS://rtc.example.org/calls")), invalid),
        ("url", Some(json!("https://rtc.example.org/calls")), invalid),
        ("url", Some(json!(THEIRS)), invalid),
        ("room_id", None, bad_json),
        ("room_id", Some(json!("")), bad_json),
        ("room_id", Some(json!(["!room:example.org"])), bad_json),
        ("room_id", Some(long.clone()), bad_json),
        ("room_id", Some(json!("#room:example.org")), invalid),
        ("room_id", Some(json!("room")), invalid),
        ("slot_id", None, bad_json),
        ("slot_id", Some(json!("")), bad_json),
        ("slot_id", Some(long.clone()), bad_json),
        ("member_id", None, bad_json),
        ("member_id", Some(json!("")), bad_json),
        ("member_id", Some(json!({"id": "memberABC"})), bad_json),
        ("member_id", Some(long.clone()), bad_json),
    ] {
        let body = with(call(OURS), field, value);
        let answer = as_user(&server, ALICE, &body).await;
        assert_eq!(outcome(&answer), expected, "{body}: {}", answer.1);
        assert!(answer.1["error"].as_str().unwrap().contains(field) || expected == bad_json, "{}", answer.1);
        let answer = as_server(&server, "other.example", with(body, "user_id", json!(BOB))).await;
        assert_eq!(outcome(&answer), expected, "{}", answer.1);
    }
    for member in
        [json!({}), json!({"id": ""}), json!({"id": 5}), json!("memberABC"), json!({"claimed_device_id": "D"})]
    {
        let answer = as_user(&server, ALICE, by_member(member)).await;
        assert_eq!(outcome(&answer), bad_json, "{}", answer.1);
    }
    for (user_id, expected) in [
        (None, bad_json),
        (Some(json!("")), bad_json),
        (Some(json!(5)), bad_json),
        (Some(json!("bob")), invalid),
        (Some(json!("@bob")), invalid),
        (Some(json!(ALICE)), (403, "M_FORBIDDEN")),
    ] {
        let answer = as_server(&server, "other.example", with(call(OURS), "user_id", user_id)).await;
        assert_eq!(outcome(&answer), expected, "{}", answer.1);
    }
    for (body, expected) in [("", "M_NOT_JSON"), ("{", "M_NOT_JSON"), ("[]", "M_BAD_JSON"), ("null", "M_BAD_JSON")] {
        assert_eq!(outcome(&as_user(&server, ALICE, body).await), (400, expected), "{body}");
        assert_eq!(outcome(&as_server(&server, "other.example", body).await), (400, expected), "{body}");
    }
    let future = with(call(OURS), "future", json!({"a": [1]}));
    assert_eq!(as_user(&server, ALICE, future).await.0, 200, "what we do not know yet is passed over");
    for path in [format!("{}/get_token", CLIENT[0]), format!("{}/get_token", FEDERATION[1])] {
        let response = server.client.get(server.url(&path)).bearer_auth(HS_TOKEN).send().await.unwrap();
        assert_eq!(response.status(), 405, "{path}");
    }
}

#[tokio::test]
async fn only_members_of_the_room_get_in() {
    let server = server().await;
    let rooms = &server.homeserver.rooms;
    for (user, room) in [("@mallory:example.org", ROOM), (ALICE, "!other:example.org"), (ALICE, "!unheardof")] {
        let answer = as_user(&server, user, with(call(OURS), "room_id", json!(room))).await;
        assert_eq!(outcome(&answer), (403, "M_FORBIDDEN"), "{user}");
        assert!(answer.1["error"].as_str().unwrap().contains("Join the room"), "{}", answer.1);
    }
    let of = |user: &str| with(call(OURS), "user_id", json!(user));
    let answer = as_server(&server, "other.example", of("@eve:other.example")).await;
    assert_eq!(outcome(&answer), (403, "M_FORBIDDEN"), "its server is in the room, it is not");
    assert!(!server.has_room(&room_alias(ROOM, SLOT)).await, "a refused request makes no room");

    assert_eq!(as_server(&server, "other.example", of(BOB)).await.0, 200);
    rooms.leave(ROOM, ALICE);
    rooms.join("!abandoned:example.org", BOB);
    let abandoned = with(of(BOB), "room_id", json!("!abandoned:example.org"));
    let answer = as_server(&server, "other.example", abandoned).await;
    assert_eq!(outcome(&answer), (403, "M_FORBIDDEN"), "our server is not in the room");
}

#[tokio::test]
async fn who_is_in_the_room_must_be_known() {
    let server = server().await;
    server.homeserver.rooms.set_health(Health::Down);
    let of_bob = with(call(OURS), "user_id", json!(BOB));
    let elsewhere = with(call(THEIRS), "server_name", json!("other.example"));
    for answer in [
        as_user(&server, ALICE, call(OURS)).await,
        as_server(&server, "other.example", of_bob).await,
        as_user(&server, ALICE, elsewhere).await,
    ] {
        assert_eq!(outcome(&answer), (502, "M_UNKNOWN"), "{}", answer.1);
    }
}

#[tokio::test]
async fn a_user_of_another_server_listens_and_may_be_the_first() {
    let server = server().await;
    let alias = room_alias(ROOM, SLOT);
    for path in FEDERATION {
        let body = with(call(OURS), "user_id", json!(BOB));
        let answer = post(&server, &format!("{path}/get_token"), &[("X-Matrix-Origin", "other.example")], body).await;
        let claims = jwt(&answer);
        assert_eq!((&claims["video"]["canPublish"], &claims["video"]["canSubscribe"]), (&json!(false), &json!(true)));
        assert_eq!(claims["matrix"]["user"], BOB);
        assert!(server.has_room(&alias).await, "both servers vouch for the membership");
    }
    assert!(server.counted("parlour_token_requests_total{outcome=\"granted\",route=\"federation_get_token\"} 2"));
}

#[tokio::test]
async fn policy_holds_behind_the_homeserver_too() {
    let body = with(call(OURS), "user_id", json!(BOB));
    for (config, expected) in [
        ("[federation]\ndeny = [\"other.example\"]\n", Err((403, "M_FORBIDDEN"))),
        ("[access]\npublish = [\"*.example\"]\n", Ok(true)),
        ("[access]\nremote_can_publish = true\n", Ok(true)),
        ("", Ok(false)),
    ] {
        let server = Server::with_rooms(config).await;
        server.homeserver.rooms.join(ROOM, ALICE);
        server.homeserver.rooms.join(ROOM, BOB);
        let answer = as_server(&server, "other.example", &body).await;
        match expected {
            Ok(publishes) => assert_eq!(jwt(&answer)["video"]["canPublish"], publishes, "{config}"),
            Err(refusal) => assert_eq!(outcome(&answer), refusal, "{config}"),
        }
    }
    let server = Server::with_rooms("[limits]\ntokens_per_minute_per_user = 2\n").await;
    server.homeserver.rooms.join(ROOM, ALICE);
    for _ in 0..2 {
        assert_eq!(as_user(&server, ALICE, call(OURS)).await.0, 200);
    }
    let refused = as_user(&server, ALICE, call(OURS)).await;
    assert_eq!(outcome(&refused), (429, "M_LIMIT_EXCEEDED"));
    assert!(refused.1["retry_after_ms"].as_u64().unwrap() > 0, "{}", refused.1);
    let elsewhere = with(call(THEIRS), "server_name", json!("other.example"));
    assert_eq!(outcome(&as_user(&server, ALICE, elsewhere).await), (429, "M_LIMIT_EXCEEDED"));
}

#[tokio::test]
async fn a_token_from_elsewhere_is_fetched_through_the_homeservers() {
    let server = server().await;
    let federation = &server.homeserver.federation;
    let paths = FEDERATION.map(|path| format!("{path}/get_token"));
    let members = [
        (json!({"member_id": "memberABC"}), json!({"member_id": "memberABC"})),
        (
            json!({"member": {"id": "M", "claimed_device_id": "D"}}),
            json!({"member": {"id": "M", "claimed_device_id": "D"}}),
        ),
        (json!({"member": {"id": "M"}}), json!({"member": {"id": "M"}})),
    ];
    for (deployed, (asked, expected)) in paths.iter().flat_map(|path| members.iter().map(move |member| (path, member)))
    {
        let server = self::server().await;
        let federation = &server.homeserver.federation;
        federation.answers("other.example", deployed, 200, json!({"jwt": "of.another.server", "future": 1}));
        let mut body = json!({"server_name": "other.example", "url": THEIRS, "room_id": ROOM, "slot_id": SLOT});
        body.as_object_mut().unwrap().extend(asked.as_object().unwrap().clone());
        let answer = as_user(&server, ALICE, body).await;
        assert_eq!(answer, (200, json!({"jwt": "of.another.server", "url": THEIRS})));
        let mut sent = json!({"user_id": ALICE, "url": THEIRS, "room_id": ROOM, "slot_id": SLOT});
        sent.as_object_mut().unwrap().extend(expected.as_object().unwrap().clone());
        for (relayed, path) in federation.take_relayed().iter().zip(&paths) {
            let expected = json!({"destination": "other.example", "method": "POST", "path": path, "body": sent});
            assert_eq!(*relayed, expected);
        }
        assert!(!server.has_room(&room_alias(ROOM, SLOT)).await, "the call is elsewhere");
    }
    // Nobody asks around through us for rooms that do not concern them.
    server.homeserver.rooms.join(ROOM, "@c:third.example");
    for (user, destination, room, expected) in [
        ("@mallory:example.org", "other.example", ROOM, (403, "M_FORBIDDEN")),
        (ALICE, "fourth.example", ROOM, (403, "M_FORBIDDEN")),
        (ALICE, "other.example", "!other:example.org", (403, "M_FORBIDDEN")),
        (ALICE, "not a server", ROOM, (400, "M_INVALID_PARAM")),
        (ALICE, "third.example/..", ROOM, (400, "M_INVALID_PARAM")),
    ] {
        let body = with(with(call(THEIRS), "server_name", json!(destination)), "room_id", json!(room));
        assert_eq!(outcome(&as_user(&server, user, body).await), expected, "{user} {destination} {room}");
    }
    assert_eq!(federation.take_relayed(), [] as [Value; 0]);
}

#[tokio::test]
async fn refusals_from_elsewhere_are_told_as_far_as_they_concern_the_user() {
    let server = server().await;
    let federation = &server.homeserver.federation;
    let path = format!("{}/get_token", FEDERATION[0]);
    let refusal = |code: &str| json!({"errcode": code, "error": "because"});
    for (n, (status, content, expected)) in [
        (403, refusal("M_FORBIDDEN"), (403, "M_FORBIDDEN")),
        (400, refusal("M_INVALID_PARAM"), (400, "M_INVALID_PARAM")),
        (403, refusal("M_OTHER"), (502, "M_UNKNOWN")),
        (400, refusal("M_BAD_JSON"), (502, "M_UNKNOWN")),
        (401, refusal("M_UNKNOWN_TOKEN"), (502, "M_UNKNOWN")),
        (401, refusal("M_UNAUTHORIZED"), (502, "M_UNKNOWN")),
        (404, refusal("M_UNRECOGNIZED"), (502, "M_UNKNOWN")),
        (429, refusal("M_LIMIT_EXCEEDED"), (502, "M_UNKNOWN")),
        (500, refusal("M_UNKNOWN"), (502, "M_UNKNOWN")),
        (502, Value::Null, (502, "M_UNKNOWN")),
        (403, Value::Null, (502, "M_UNKNOWN")),
        (302, json!({}), (502, "M_UNKNOWN")),
        (200, Value::Null, (502, "M_UNKNOWN")),
        (200, json!({"jwt": 5}), (502, "M_UNKNOWN")),
        (200, json!(["jwt"]), (502, "M_UNKNOWN")),
    ]
    .into_iter()
    .enumerate()
    {
        let destination = format!("server{n}.example");
        server.homeserver.rooms.join(ROOM, &format!("@c:{destination}"));
        federation.answers(&destination, &path, status, content.clone());
        let answer = as_user(&server, ALICE, with(call(THEIRS), "server_name", json!(destination))).await;
        assert_eq!(outcome(&answer), expected, "{status} {content}");
        let because = answer.1["error"] == "because";
        assert_eq!(because, expected.0 != 502, "{}", answer.1);
    }
    for destination in ["denied.example", "gone.example"] {
        server.homeserver.rooms.join(ROOM, &format!("@c:{destination}"));
        let answer = as_user(&server, ALICE, with(call(THEIRS), "server_name", json!(destination))).await;
        assert_eq!(outcome(&answer), (502, "M_UNKNOWN"), "{}", answer.1);
    }
    let endless = json!({"errcode": "M_FORBIDDEN", "error": "x".repeat(100_000)});
    server.homeserver.rooms.join(ROOM, "@c:talker.example");
    federation.answers("talker.example", &path, 403, endless);
    let answer = as_user(&server, ALICE, with(call(THEIRS), "server_name", json!("talker.example"))).await;
    assert_eq!((answer.0, answer.1["error"].as_str().unwrap().len()), (403, 300));
}

#[tokio::test]
async fn who_comes_while_we_shut_down_is_sent_away() {
    let server = server().await;
    server.app.drain();
    assert_eq!(outcome(&as_user(&server, ALICE, call(OURS)).await), (503, "M_UNKNOWN"));
    let body = with(call(OURS), "user_id", json!(BOB));
    assert_eq!(outcome(&as_server(&server, "other.example", body).await), (503, "M_UNKNOWN"));
}

/// Synapse adds its own headers; a homeserver that passes ours on as they are needs them for browsers.
#[tokio::test]
async fn browsers_may_read_what_is_passed_on() {
    let server = server().await;
    let url = server.url(&format!("{}/get_token", CLIENT[0]));
    let refused = server.client.post(&url).send().await.unwrap();
    let granted = server.client.post(&url).bearer_auth(HS_TOKEN).header("x-matrix-user-identifier", ALICE);
    let granted = granted.body(call(OURS).to_string()).send().await.unwrap();
    for (response, status) in [(refused, 401), (granted, 200)] {
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        assert_eq!(response.headers()["content-type"], "application/json");
    }
}
