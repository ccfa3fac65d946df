//! What the homeserver asks of its application service: who is let in, and what becomes of transactions.

mod http_support;

use std::time::Duration;

use http_support::callers::APPSERVICE;
use http_support::fake_rooms::{AS_TOKEN, HS_TOKEN};
use http_support::{Homeserver, Server, now};
use parlour::store::Store;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const ROOM: &str = "!room:example.org";
const ALICE: &str = "@alice:example.org";

/// Every route that is the homeserver's alone.
const ROUTES: [(&str, &str); 13] = [
    ("PUT", "/_matrix/app/v1/transactions/1"),
    ("PUT", "/transactions/1"),
    ("GET", "/_matrix/app/v1/users/@alice:example.org"),
    ("GET", "/users/@alice:example.org"),
    ("GET", "/_matrix/app/v1/rooms/%23room:example.org"),
    ("GET", "/rooms/%23room:example.org"),
    ("POST", "/_matrix/app/v1/ping"),
    ("POST", "/_matrix/app/unstable/org.matrix.msc3983/keys/claim"),
    ("POST", "/_matrix/client/v1/rtc/livekit/get_token"),
    ("POST", "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token"),
    ("POST", "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/anything"),
    ("POST", "/_matrix/federation/v1/rtc/livekit/get_token"),
    ("POST", "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token"),
];

fn request(server: &Server, method: &str, path: &str) -> RequestBuilder {
    server.client.request(method.parse::<Method>().unwrap(), server.url(path))
}

/// With the headers in which it says who asks.
fn from_homeserver(request: RequestBuilder) -> RequestBuilder {
    request.header("x-matrix-user-identifier", ALICE).header("x-matrix-origin", "other.example")
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

async fn send(server: &Server, txn_id: &str, body: impl ToString) -> (u16, Value) {
    let path = format!("/_matrix/app/v1/transactions/{txn_id}");
    answer(request(server, "PUT", &path).bearer_auth(HS_TOKEN).body(body.to_string())).await
}

fn member(event_id: &str, user: &str, membership: &str) -> Value {
    json!({
        "type": "m.room.member", "state_key": user, "room_id": ROOM, "sender": user, "event_id": event_id,
        "origin_server_ts": now() * 1000, "content": {"membership": membership},
    })
}

/// Alice, in the call of the room and connected.
async fn alice_in_call(server: &Server) -> http_support::Socket {
    server.homeserver.rooms.join(ROOM, ALICE);
    let body = json!({
        "room": ROOM, "device_id": "DEV",
        "openid_token": {"access_token": format!("sub:{ALICE}"), "matrix_server_name": "example.org"},
    });
    let (status, granted) = server.post_json("/sfu/get", &body).await;
    assert_eq!(status, 200, "{granted}");
    let path = format!("/rtc?access_token={}", granted["jwt"].as_str().unwrap());
    server.connect(&path).await.unwrap()
}

async fn participants(server: &Server) -> usize {
    let alias = parlour::matrix::identity::room_alias(ROOM, parlour::matrix::identity::CALL_SLOT);
    server.node.participants(&alias).await.unwrap().map_or(0, |participants| participants.len())
}

async fn is_empty_within(server: &Server, patience: Duration) -> bool {
    let emptied = async {
        while participants(server).await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(patience, emptied).await.is_ok()
}

#[tokio::test]
async fn nothing_is_looked_at_without_the_hs_token() {
    let server = Server::with_rooms("").await;
    // A body that would be refused, were it read.
    for (method, path) in ROUTES {
        let plain = || from_homeserver(request(&server, method, path).body("{"));
        let in_query = format!("{path}?access_token={HS_TOKEN}");
        let wrong = if path.starts_with("/_matrix/client/") { "M_UNAUTHORIZED" } else { "M_UNKNOWN_TOKEN" };
        for (request, errcode) in [
            (plain(), "M_MISSING_TOKEN"),
            (from_homeserver(request(&server, method, &in_query)), "M_MISSING_TOKEN"),
            (plain().header("authorization", HS_TOKEN), "M_MISSING_TOKEN"),
            (plain().bearer_auth(""), "M_MISSING_TOKEN"),
            (plain().bearer_auth(&HS_TOKEN[..HS_TOKEN.len() - 1]), wrong),
            (plain().bearer_auth(format!("{HS_TOKEN}x")), wrong),
            (plain().bearer_auth(HS_TOKEN.to_uppercase()), wrong),
            (plain().bearer_auth(AS_TOKEN), wrong),
        ] {
            let (status, refusal) = answer(request).await;
            assert_eq!((status, refusal["errcode"].as_str()), (401, Some(errcode)), "{method} {path}: {refusal}");
        }
        let (status, _) = answer(plain().bearer_auth(HS_TOKEN)).await;
        assert_ne!(status, 401, "{method} {path}");
    }
}

/// A homeserver passes our words on, and clients that read this errcode there log their user out.
#[tokio::test]
async fn a_stale_registration_logs_nobody_out() {
    let server = Server::with_rooms("").await;
    let path = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token";
    let (status, refusal) = answer(request(&server, "POST", path).bearer_auth("of another registration")).await;
    assert_eq!((status, refusal["errcode"].as_str()), (401, Some("M_UNAUTHORIZED")), "{refusal}");
    assert!(refusal["error"].as_str().unwrap().contains("same registration"), "{refusal}");
}

/// Trap 19: whoever has the hs_token can claim to be anybody, so the world must not even be able to try.
#[tokio::test]
async fn trap_19_a_listener_of_its_own_keeps_the_homeservers_routes_from_the_world() {
    let server = Server::with_rooms("listen = \"127.0.0.1:8090\"\n").await;
    let own = server.homeserver_listener.unwrap();
    for (method, path) in ROUTES {
        for prefix in ["", "/calls", "/livekit/jwt"] {
            let (status, body) =
                answer(request(&server, method, &format!("{prefix}{path}")).bearer_auth(HS_TOKEN)).await;
            assert_eq!((status, body), (404, Value::Null), "{method} {prefix}{path}");
        }
        let url = format!("http://{own}{path}");
        let there = || from_homeserver(server.client.request(method.parse::<Method>().unwrap(), &url));
        assert_eq!(answer(there()).await.0, 401, "{method} {path}");
        assert_ne!(answer(there().bearer_auth(HS_TOKEN)).await.0, 401, "{method} {path}");
    }
    for path in ["/", "/healthz", "/metrics", "/sfu/get", "/rtc/validate", "/.well-known/matrix/client", "/nothing"] {
        let request = server.client.get(format!("http://{own}{path}")).bearer_auth(HS_TOKEN);
        let (status, body) = answer(request).await;
        assert_eq!((status, body["errcode"].as_str()), (404, Some("M_UNRECOGNIZED")), "{path}");
    }
}

#[tokio::test]
async fn without_an_application_service_there_is_nothing_to_ask() {
    let server = Server::start().await;
    for (method, path) in ROUTES {
        assert_eq!(answer(request(&server, method, path).bearer_auth(HS_TOKEN)).await.0, 404, "{method} {path}");
    }
}

#[tokio::test]
async fn we_have_one_user_and_no_rooms() {
    let server = Server::with_rooms("").await;
    for (method, path, expected, errcode) in [
        ("GET", "/_matrix/app/v1/users/@parlour:example.org", 200, None),
        ("GET", "/_matrix/app/v1/users/%40parlour%3Aexample.org", 200, None),
        ("GET", "/users/@parlour:example.org", 200, None),
        ("GET", "/_matrix/app/v1/users/@alice:example.org", 404, Some("M_NOT_FOUND")),
        ("GET", "/_matrix/app/v1/users/@parlour:other.org", 404, Some("M_NOT_FOUND")),
        ("GET", "/_matrix/app/v1/rooms/%23parlour:example.org", 404, Some("M_NOT_FOUND")),
        ("POST", "/_matrix/app/v1/ping", 200, None),
        ("POST", "/calls/_matrix/app/v1/ping", 200, None),
        ("GET", "/_matrix/app/v1/ping", 405, Some("M_UNRECOGNIZED")),
        ("POST", "/_matrix/app/v1/transactions/1", 405, Some("M_UNRECOGNIZED")),
        ("GET", "/_matrix/app/v1/thirdparty/protocol/irc", 404, Some("M_UNRECOGNIZED")),
        // Synapse asks every application service for keys, and takes this as "has none".
        ("POST", "/_matrix/app/unstable/org.matrix.msc3983/keys/claim", 404, Some("M_UNRECOGNIZED")),
    ] {
        let (status, body) = answer(request(&server, method, path).bearer_auth(HS_TOKEN).body("{}")).await;
        assert_eq!((status, body["errcode"].as_str()), (expected, errcode), "{method} {path}");
        assert!(expected != 200 || body == json!({}), "{method} {path}: {body}");
    }
}

#[tokio::test]
async fn the_url_of_the_application_service_may_have_a_path() {
    let server = Server::with_rooms("url = \"http://127.0.0.1:8080/as/\"\n").await;
    for path in ["/as/_matrix/app/v1/ping", "/_matrix/app/v1/ping"] {
        assert_eq!(answer(request(&server, "POST", path).bearer_auth(HS_TOKEN)).await, (200, json!({})), "{path}");
    }
}

#[tokio::test]
async fn a_transaction_takes_whoever_left_out_of_the_call() {
    let server = Server::with_rooms("").await;
    let _socket = alice_in_call(&server).await;
    assert_eq!(participants(&server).await, 1);
    let others = json!({"events": [member("$1", "@bob:example.org", "leave"), member("$2", ALICE, "join")]});
    assert_eq!(send(&server, "1", others).await, (200, json!({})));
    assert!(!is_empty_within(&server, Duration::from_millis(300)).await);

    server.homeserver.rooms.leave(ROOM, ALICE);
    let nonsense = [json!(null), json!(5), json!({"type": 5}), json!({"type": "m.room.member", "content": []})];
    let events = nonsense.into_iter().chain([member("$3", ALICE, "leave")]).collect::<Value>();
    let transaction = json!({"events": events, "ephemeral": 5, "de.sorunome.msc2409.to_device": [{}]});
    assert_eq!(send(&server, "2", transaction).await, (200, json!({})));
    assert!(is_empty_within(&server, Duration::from_secs(1)).await);
}

#[tokio::test]
async fn what_is_no_transaction_is_refused() {
    let server = Server::with_rooms("").await;
    let long = "1".repeat(256);
    for (txn_id, body, expected) in [
        ("1", "", (400, "M_NOT_JSON")),
        ("1", "{", (400, "M_NOT_JSON")),
        ("1", "5", (400, "M_BAD_JSON")),
        ("1", "{\"events\": {}}", (400, "M_BAD_JSON")),
        (&long, "{\"events\": []}", (400, "M_INVALID_PARAM")),
    ] {
        let (status, refusal) = send(&server, txn_id, body).await;
        assert_eq!((status, refusal["errcode"].as_str()), (expected.0, Some(expected.1)), "{body:?}");
    }
    for body in ["{}", "{\"events\": []}", "{\"future\": [1]}"] {
        assert_eq!(send(&server, "a/b", body).await.0, 404, "a txnId is one segment");
        assert_eq!(send(&server, "a%2Fb", body).await, (200, json!({})), "{body}");
    }
}

/// Synapse sends up to a hundred events at a time, each of up to 64 KiB.
#[tokio::test]
async fn a_transaction_may_be_large_but_not_endless() {
    let server = Server::with_rooms("").await;
    let _socket = alice_in_call(&server).await;
    let message = json!({"type": "m.room.message", "event_id": "$m", "content": {"body": "x".repeat(64 * 1024)}});
    let mut events = vec![message; 100];
    events.push(member("$1", ALICE, "leave"));
    assert_eq!(send(&server, "1", json!({"events": events})).await, (200, json!({})));
    assert!(is_empty_within(&server, Duration::from_secs(1)).await);

    let endless = request(&server, "PUT", "/_matrix/app/v1/transactions/2").bearer_auth(HS_TOKEN);
    let (status, refusal) = answer(endless.body(vec![b' '; (8 << 20) + 1])).await;
    assert_eq!((status, refusal["errcode"].as_str()), (413, Some("M_TOO_LARGE")), "{refusal}");
}

#[tokio::test]
async fn one_txn_id_acts_once_also_after_a_restart() {
    let (homeserver, store) = (Homeserver::start().await, Store::in_memory());
    let transaction = json!({"events": [member("$1", ALICE, "leave")]});

    let before = Server::with_store(APPSERVICE, homeserver.clone(), store.clone()).await;
    assert_eq!(send(&before, "1", &transaction).await, (200, json!({})));
    let _socket = alice_in_call(&before).await;
    assert_eq!(send(&before, "1", &transaction).await, (200, json!({})));
    assert!(!is_empty_within(&before, Duration::from_millis(300)).await, "she has come back since");
    before.shutdown.cancel();
    before.node.shut_down().await;

    let after = Server::with_store(APPSERVICE, homeserver, store).await;
    let _socket = alice_in_call(&after).await;
    assert_eq!(send(&after, "1", &transaction).await, (200, json!({})));
    assert!(!is_empty_within(&after, Duration::from_millis(300)).await);
    assert_eq!(send(&after, "2", json!({"events": [member("$2", ALICE, "leave")]})).await, (200, json!({})));
    assert!(is_empty_within(&after, Duration::from_secs(1)).await);
}

/// A file size limit stands in for a full disk. It holds for a whole process, and its signal must be ignored from the start,
/// so the test runs itself in a process of its own.
#[test]
fn nothing_is_acknowledged_when_the_store_fails() {
    const WITHIN: &str = "PARLOUR_TEST_FULL_DISK";
    if std::env::var_os(WITHIN).is_none() {
        let status = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" --exact nothing_is_acknowledged_when_the_store_fails"])
            .arg(std::env::current_exe().unwrap())
            .env(WITHIN, "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let server = Server::with_store(APPSERVICE, Homeserver::start().await, store).await;
        let _socket = alice_in_call(&server).await;

        let (_, hard) = rlimit::getrlimit(rlimit::Resource::FSIZE).unwrap();
        rlimit::setrlimit(rlimit::Resource::FSIZE, 1, hard).unwrap();
        let transaction = json!({"events": [member("$1", ALICE, "leave")]});
        for _ in 0..2 {
            let (status, refusal) = send(&server, "1", &transaction).await;
            assert_eq!((status, refusal["errcode"].as_str()), (500, Some("M_UNKNOWN")), "{refusal}");
        }
        assert_eq!(send(&server, "2", json!({"events": []})).await.0, 200, "there is nothing to store");
        rlimit::setrlimit(rlimit::Resource::FSIZE, hard, hard).unwrap();
        assert_eq!(send(&server, "1", &transaction).await, (200, json!({})), "it comes again, and now it counts");
        assert!(is_empty_within(&server, Duration::from_secs(1)).await);
    });
}
