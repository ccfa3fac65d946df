//! Each request as it goes out, and each kind of answer to it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parlour::matrix::HomeserverError::{self, *};
use serde_json::{Value, json};

use crate::scripted::{AS_TOKEN, Answer, BOT_TOKEN, Scripted, client, ok, refusal};

const ROOM: &str = "!a/b?c#d%:example.org";
const ESCAPED: &str = "%21a%2Fb%3Fc%23d%25%3Aexample.org";
const ALICE: &str = "@alice:example.org";

fn bearer(token: &str) -> Option<String> {
    Some(format!("Bearer {token}"))
}

#[tokio::test]
async fn is_joined_asks_about_a_user_or_a_server() {
    let (scripted, address) = Scripted::start().await;
    let homeserver = client(address, true, true);
    scripted.answer("is_joined", [ok(json!({"joined": true})), ok(json!({"joined": false, "more": 1}))]);
    assert_eq!(homeserver.is_joined_user(ROOM, "@é&b:x.org").await, Ok(true));
    assert_eq!(homeserver.is_joined_server(ROOM, "x.org:8448").await, Ok(false));
    let asked = scripted.asked();
    let path = format!("GET /_matrix/client/unstable/io.element.msc4502/rooms/{ESCAPED}/is_joined");
    assert_eq!(asked[0].line, format!("{path}?mxid=%40%C3%A9%26b%3Ax.org"));
    assert_eq!(asked[1].line, format!("{path}?server_name=x.org%3A8448"));
    assert!(asked.iter().all(|asked| asked.authorization == bearer(AS_TOKEN)));
}

#[tokio::test]
async fn members_are_listed_as_a_user_as_ourselves_or_as_the_bot() {
    let (scripted, address) = Scripted::start().await;
    let list = ok(json!({"joined": {ALICE: {"display_name": "Alice", "avatar_url": null}, "@b:x.org": {}}}));
    scripted.answer("joined_members", [list.clone()]);
    let members = client(address, true, false).joined_members(ROOM, Some(ALICE)).await.unwrap();
    assert!(members.len() == 2 && members.contains(ALICE) && members.contains("@b:x.org"));
    client(address, true, true).joined_members(ROOM, None).await.unwrap();
    client(address, false, true).joined_members(ROOM, None).await.unwrap();
    let path = format!("GET /_matrix/client/v3/rooms/{ESCAPED}/joined_members");
    let asked: Vec<_> = scripted.asked().into_iter().map(|asked| (asked.line, asked.authorization)).collect();
    assert_eq!(
        asked,
        [
            (format!("{path}?user_id=%40alice%3Aexample.org"), bearer(AS_TOKEN)),
            (path.clone(), bearer(AS_TOKEN)),
            (path.clone(), bearer(BOT_TOKEN)),
        ]
    );

    // Where the service may not, the bot may.
    scripted.answer("joined_members", [refusal(403, "M_FORBIDDEN"), list]);
    assert_eq!(client(address, true, true).joined_members(ROOM, None).await.unwrap().len(), 2);
    let asked: Vec<_> = scripted.asked().into_iter().map(|asked| asked.authorization).collect();
    assert_eq!(asked, [bearer(AS_TOKEN), bearer(BOT_TOKEN)]);

    // Without the right identity nothing is asked.
    assert_eq!(client(address, false, true).joined_members(ROOM, Some(ALICE)).await, Err(NotSupported));
    assert_eq!(client(address, false, true).is_joined_user(ROOM, ALICE).await, Err(NotSupported));
    assert_eq!(client(address, false, false).joined_members(ROOM, None).await, Err(NotSupported));
    assert!(scripted.asked().is_empty());
}

#[tokio::test]
async fn state_is_read_and_written() {
    let (scripted, address) = Scripted::start().await;
    let homeserver = client(address, true, false);
    let path = format!("/_matrix/client/v3/rooms/{ESCAPED}/state");
    scripted.answer(&format!("GET {path}/m.room.name"), [ok(json!({"name": "R"})), refusal(404, "M_NOT_FOUND")]);
    let name = || homeserver.state_event(ROOM, "m.room.name", "", Some(ALICE));
    assert_eq!(name().await, Ok(Some(json!({"name": "R"}))));
    assert_eq!(name().await, Ok(None));
    assert_eq!(scripted.lines()[0], format!("GET {path}/m.room.name?user_id=%40alice%3Aexample.org"));

    scripted.answer(
        &format!("GET {path}?"),
        [ok(json!([
            {"type": "m.room.create", "state_key": "", "content": {}},
            {"type": "m.room.member", "state_key": ALICE, "content": {"membership": "join"}, "sender": ALICE},
            {"state_key": "no type"},
            7,
        ]))],
    );
    let state = homeserver.state(ROOM, |kind| kind == "m.room.member", Some(ALICE)).await.unwrap();
    assert_eq!(
        state,
        [json!({"type": "m.room.member", "state_key": ALICE, "content": {"membership": "join"}, "sender": ALICE})]
    );
    scripted.asked();

    scripted.answer("PUT", [ok(json!({"event_id": "$e"}))]);
    let key = format!("_{ALICE}_DEV");
    let sent = homeserver.put_state(ROOM, "org.matrix.msc3401.call.member", &key, &json!({}), Some(ALICE)).await;
    assert_eq!(sent.as_deref(), Ok("$e"));
    let asked = scripted.asked();
    assert_eq!(
        asked[0].line,
        format!("PUT {path}/org.matrix.msc3401.call.member/_%40alice%3Aexample.org_DEV?user_id=%40alice%3Aexample.org")
    );
    assert_eq!(asked[0].body, json!({}));
}

#[tokio::test]
async fn no_name_leads_to_another_path() {
    let (scripted, address) = Scripted::start().await;
    let homeserver = client(address, true, false);
    for room in ["..", ".", ""] {
        assert_eq!(homeserver.is_joined_user(room, ALICE).await, Err(Invalid));
        assert_eq!(homeserver.joined_members(room, Some(ALICE)).await, Err(Invalid));
        assert_eq!(homeserver.state_event(ROOM, "m.room.member", "..", None).await, Err(Invalid));
    }
    // An escape of the caller's is escaped again.
    assert_eq!(homeserver.is_joined_user("%2e%2e", ALICE).await, Err(NotSupported));
    let lines = scripted.lines();
    assert!(lines.len() == 1 && lines[0].contains("/rooms/%252e%252e/is_joined"), "{lines:?}");
}

#[tokio::test]
async fn fed_proxy_carries_requests_to_other_servers() {
    let (scripted, address) = Scripted::start().await;
    let homeserver = client(address, true, true);
    let path = "/_matrix/federation/v1/rtc/livekit/get_token";
    let body = json!({"room_id": ROOM});
    let relay = || homeserver.fed_proxy("x.org", path, &body);
    scripted.answer(
        "fed_proxy",
        [
            ok(json!({"status": 200, "content": {"jwt": "j"}})),
            ok(json!({"status": 403, "content": {"errcode": "M_FORBIDDEN"}})),
            ok(json!({"status": 502, "content": null})),
        ],
    );
    assert_eq!(relay().await, Ok((200, json!({"jwt": "j"}))));
    assert_eq!(relay().await, Ok((403, json!({"errcode": "M_FORBIDDEN"}))));
    assert_eq!(relay().await, Ok((502, Value::Null)));
    let asked = &scripted.asked()[0];
    assert_eq!(asked.line, "POST /_matrix/client/unstable/io.element.msc4512/appservice/fed_proxy");
    assert_eq!(asked.body, json!({"destination": "x.org", "method": "POST", "path": path, "body": {"room_id": ROOM}}));
    for (status, errcode, expected) in [
        (403, "IO.ELEMENT.MSC4512.M_FEDPROXY_DESTINATION_DENIED", DestinationDenied),
        (502, "IO.ELEMENT.MSC4512.M_FEDPROXY_CONNECTION_FAILED", DestinationUnreachable),
        (403, "IO.ELEMENT.MSC4512.M_FEDPROXY_PATH_NOT_ALLOWED", NotSupported),
        (400, "IO.ELEMENT.MSC4512.M_FEDPROXY_NO_PROXY_PREFIX", NotSupported),
        (403, "M_FORBIDDEN", Forbidden),
        (502, "M_UNKNOWN", Unreachable),
    ] {
        scripted.answer("fed_proxy", [refusal(status, errcode)]);
        assert_eq!(relay().await, Err(expected), "{errcode}");
    }
}

#[tokio::test]
async fn the_probe_has_no_credentials() {
    let (scripted, address) = Scripted::start().await;
    let homeserver = client(address, true, true);
    assert_eq!(homeserver.proxies_rtc().await, Ok(false));
    for (answer, expected) in [
        (refusal(401, "M_MISSING_TOKEN"), Ok(true)),
        (refusal(405, "M_UNRECOGNIZED"), Ok(true)),
        (Answer::Text(404, "nothing here".into()), Ok(false)),
        (Answer::Text(502, String::new()), Err(Unreachable)),
        (Answer::RetryAfter(3), Err(Limited(Duration::from_secs(3)))),
    ] {
        scripted.answer("delegate_delayed_leave", [answer]);
        assert_eq!(homeserver.proxies_rtc().await, expected);
    }
    for asked in scripted.asked() {
        assert_eq!(asked.line, "POST /_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave");
        assert_eq!(asked.authorization, None);
    }
}

/// All requests, each reduced to its error; those of one kind of answer must not differ.
async fn every_error(address: SocketAddr) -> Vec<Result<(), HomeserverError>> {
    let homeserver = client(address, true, false);
    vec![
        homeserver.is_joined_user(ROOM, ALICE).await.map(drop),
        homeserver.is_joined_server(ROOM, "x.org").await.map(drop),
        homeserver.joined_members(ROOM, Some(ALICE)).await.map(drop),
        homeserver.joined_members(ROOM, None).await.map(drop),
        homeserver.state(ROOM, |_| true, Some(ALICE)).await.map(drop),
        homeserver.put_state(ROOM, "t", "k", &json!({}), Some(ALICE)).await.map(drop),
        homeserver.fed_proxy("x.org", "/_matrix/federation/v1/rtc/livekit/get_token", &json!({})).await.map(drop),
        homeserver.state_event(ROOM, "t", "k", Some(ALICE)).await.map(drop),
    ]
}

#[tokio::test]
async fn every_refusal_is_told_apart() {
    let (scripted, address) = Scripted::start().await;
    let limited = |ms| Limited(Duration::from_millis(ms));
    let after = |ms: u64| Answer::Json(429, json!({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": ms}));
    for (answer, expected) in [
        (refusal(401, "M_UNKNOWN_TOKEN"), UnknownToken),
        (refusal(403, "M_FORBIDDEN"), Forbidden),
        (Answer::Text(403, "<html>".into()), Forbidden),
        (refusal(404, "M_UNRECOGNIZED"), NotSupported),
        (Answer::Text(404, "<html>".into()), NotSupported),
        (refusal(405, "M_UNRECOGNIZED"), NotSupported),
        (refusal(400, "M_UNRECOGNIZED"), NotSupported),
        (refusal(400, "M_INVALID_PARAM"), Invalid),
        (after(1500), limited(1500)),
        (after(u64::MAX), limited(3_600_000)),
        (Answer::RetryAfter(7), limited(7_000)),
        (Answer::Text(429, "slow down".into()), limited(1_000)),
        (refusal(500, "M_UNKNOWN"), Unreachable),
        (Answer::Text(502, "<html>".into()), Unreachable),
        (Answer::Text(503, String::new()), Unreachable),
        (Answer::Broken, Unreachable),
        (Answer::Text(200, "<html>".into()), BadAnswer),
        (Answer::Text(200, String::new()), BadAnswer),
        (Answer::Text(418, "{\"errcode\": 7}".into()), BadAnswer),
        (Answer::Redirect(format!("http://{address}/elsewhere")), BadAnswer),
    ] {
        scripted.answer("/", [answer.clone()]);
        for (n, error) in every_error(address).await.into_iter().enumerate() {
            assert_eq!(error, Err(expected), "request {n} answered with {answer:?}");
        }
    }
    assert!(scripted.lines().iter().all(|line| !line.contains("elsewhere")), "a token is carried nowhere else");
}

#[tokio::test]
async fn an_answer_of_the_wrong_shape_is_none() {
    let (scripted, address) = Scripted::start().await;
    for body in [json!({"joined": "yes"}), json!({"joined": ["@a:x"]}), json!({}), json!(null), json!([[]])] {
        scripted.answer("/", [ok(body.clone())]);
        let errors = every_error(address).await;
        // One event may have any content, and a list of events any entries.
        for error in &errors[..4] {
            assert_eq!(*error, Err(BadAnswer), "{body}");
        }
        assert_eq!((errors[5], errors[6]), (Err(BadAnswer), Err(BadAnswer)), "{body}");
    }
    scripted.answer("/", [ok(json!({"status": 70000, "content": {}}))]);
    assert_eq!(every_error(address).await[6], Err(BadAnswer));
}

#[tokio::test]
async fn large_answers_are_cut_off() {
    const MIB: usize = 1024 * 1024;
    let (scripted, address) = Scripted::start().await;
    let homeserver = client(address, true, false);
    scripted.answer("/", [Answer::Huge(MIB)]);
    assert_eq!(homeserver.is_joined_user(ROOM, ALICE).await, Err(BadAnswer));
    let members: serde_json::Map<String, Value> =
        (0..50_000).map(|n| (format!("@user-{n}:example.org"), json!({"display_name": "A longer name"}))).collect();
    scripted.answer("joined_members", [ok(json!({"joined": members})), Answer::Huge(33 * MIB)]);
    assert_eq!(homeserver.joined_members(ROOM, None).await.unwrap().len(), 50_000);
    assert_eq!(homeserver.joined_members(ROOM, None).await, Err(BadAnswer));
}

#[tokio::test]
async fn nobody_waits_long_for_a_homeserver() {
    let (scripted, address) = Scripted::start().await;
    let nowhere = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for error in every_error(nowhere).await {
        assert_eq!(error, Err(Unreachable));
    }
    let minute = Duration::from_secs(60);
    scripted.answer("mxid", [Answer::After(minute, Box::new(ok(json!({"joined": true}))))]);
    scripted.answer("server_name", [Answer::Drip]);
    let homeserver = client(address, true, false);
    let start = Instant::now();
    let (hanging, dripping) =
        tokio::join!(homeserver.is_joined_user(ROOM, ALICE), homeserver.is_joined_server(ROOM, "x.org"));
    assert_eq!((hanging, dripping), (Err(Unreachable), Err(Unreachable)));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}
