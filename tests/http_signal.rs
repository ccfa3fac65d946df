//! The door of the SFU over a real socket: who is let in, what everybody else is told, in which order.

mod http_support;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use futures_util::StreamExt;
use http_support::{Server, now, sign};
use livekit_protocol as proto;
use prost::Message;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite;

fn join_request() -> String {
    let join = proto::JoinRequest {
        client_info: Some(proto::ClientInfo { sdk: 1, version: "2.23.0".into(), protocol: 17, ..Default::default() }),
        ..Default::default()
    };
    URL_SAFE.encode(proto::WrappedJoinRequest { compression: 0, join_request: join.encode_to_vec() }.encode_to_vec())
}

/// The same question to the WebSocket route and to its `validate`.
async fn refused(server: &Server, route: &str, query: &str, status: u16, words: &str) {
    let (code, body) = server.connect(&format!("{route}?{query}")).await.expect_err(words);
    assert_eq!(code, status, "{route}: {body}");
    assert!(body.contains(words), "{route}: {body}");
    let response = server.get(&format!("{route}/validate?{query}")).await;
    assert_eq!(response.status(), status, "{route}/validate");
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert!(response.text().await.unwrap().contains(words), "{route}/validate");
}

async fn first_message(socket: &mut http_support::Socket) -> proto::signal_response::Message {
    let frame = tokio::time::timeout(Duration::from_secs(5), socket.next()).await.unwrap().unwrap().unwrap();
    proto::SignalResponse::decode(frame.into_data()).unwrap().message.unwrap()
}

#[tokio::test]
async fn every_reason_to_refuse_has_its_status_and_words() {
    let server = Server::start().await;
    server.create_room("room", 0).await;
    let claims = json!({"sub": "me", "video": {"roomJoin": true, "room": "room"}});
    let with = |pointer: &str, value: Value| {
        let mut claims = claims.clone();
        match pointer.strip_prefix("video.") {
            Some(grant) => claims["video"][grant] = value,
            None => claims[pointer] = value,
        }
        server.token(claims)
    };
    let good = server.token(claims.clone());
    let name = "x".repeat(257);
    let jr = join_request();
    for (what, token, status, words) in [
        ("no token", String::new(), 401, "permissions denied"),
        ("no JWT", "abc".to_owned(), 401, "invalid authorization token"),
        ("unknown key", with("iss", json!("other")), 401, "invalid API key"),
        ("signature", sign(claims.clone(), "another secret"), 401, "invalid authorization token: "),
        ("expired", with("exp", json!(now() - 120)), 401, "invalid authorization token: token is expired"),
        ("not yet", with("nbf", json!(now() + 120)), 401, "invalid authorization token: token is not valid yet"),
        ("no grant", with("video", Value::Null), 401, "permissions denied"),
        ("no roomJoin", with("video.roomJoin", json!(false)), 401, "permissions denied"),
        ("no identity", with("sub", json!("")), 400, "identity cannot be empty"),
        ("no room", with("video.room", json!("")), 400, "no room name"),
        ("long identity", with("sub", json!(name)), 400, "256 bytes"),
        ("long room", with("video.room", json!(name)), 400, "256 bytes"),
        ("missing room", with("video.room", json!("nowhere")), 404, "requested room does not exist"),
    ] {
        println!("{what}");
        for route in ["/rtc", "/rtc/v1", "/livekit/sfu/rtc/v1", "/calls/rtc", "//rtc"] {
            refused(&server, route, &format!("access_token={token}&join_request={jr}"), status, words).await;
        }
    }
    // Checks in order: the first that fails answers.
    refused(&server, "/rtc/v1", &format!("access_token={}", with("sub", json!(""))), 400, "identity cannot be empty")
        .await;
    refused(
        &server,
        "/rtc/v1",
        &format!("access_token={}", with("video.room", json!("nowhere"))),
        404,
        "requested room does not exist",
    )
    .await;

    refused(&server, "/rtc/v1", &format!("access_token={good}"), 400, "join_request is required").await;
    let wrapped = |compression, join_request| {
        URL_SAFE.encode(proto::WrappedJoinRequest { compression, join_request }.encode_to_vec())
    };
    for (encoded, words) in [
        ("%24%24".to_owned(), "cannot base64 decode wrapped join request"),
        (URL_SAFE.encode([0xff; 20]), "cannot unmarshal wrapped join request"),
        (wrapped(1, b"not gzip".to_vec()), "cannot unmarshal wrapped join request"),
        (wrapped(1, bomb()), "join request too large"),
    ] {
        for route in ["/rtc/v1", "/rtc"] {
            refused(&server, route, &format!("access_token={good}&join_request={encoded}"), 400, words).await;
        }
    }
    refused(&server, "/rtc", &format!("access_token={good}&attributes=eyJhIjoiYiJ9"), 401, "permissions denied").await;
    assert!(server.counted("parlour_joins_total{verdict=\"token-expired\"} 5"), "{}", server.metrics.render());
}

fn bomb() -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![0; 4 * 1024 * 1024]).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn both_dialects_are_let_in_with_header_or_query() {
    let server = Server::start().await;
    server.create_room("room", 0).await;
    let (token, jr) = (server.join_token("me", "room"), join_request());
    for path in [
        format!("/rtc?access_token={token}&protocol=17&sdk=rust"),
        format!("/rtc/v1?access_token={token}&join_request={jr}"),
        format!("/livekit/sfu/rtc/v1?access_token={token}&join_request={jr}"),
        format!("/calls/rtc?access_token={token}"),
    ] {
        let mut socket = server.connect(&path).await.unwrap();
        let proto::signal_response::Message::Join(join) = first_message(&mut socket).await else {
            panic!("the first message is join")
        };
        assert_eq!(join.participant.unwrap().identity, "me");
    }
    let bearer = format!("Bearer {token}");
    assert!(server.connect_with("/rtc", Some(&bearer)).await.is_ok());
    // The header wins, and must be right when it is there.
    let (status, body) =
        server.connect_with(&format!("/rtc?access_token={token}"), Some("Basic abc")).await.unwrap_err();
    assert_eq!((status, body.as_str()), (401, "invalid authorization header. Must start with Bearer "));
}

#[tokio::test]
async fn a_valid_request_without_websocket_is_not_found_but_validates() {
    let server = Server::start().await;
    server.create_room("room", 0).await;
    let query = format!("access_token={}&join_request={}", server.join_token("me", "room"), join_request());
    for route in ["/rtc", "/rtc/v1"] {
        let plain = server.get(&format!("{route}?{query}")).await;
        assert_eq!(plain.status(), 404);
        assert!(!plain.text().await.unwrap().contains("requested room does not exist"));
        let valid = server.get(&format!("{route}/validate?{query}")).await;
        assert_eq!((valid.status().as_u16(), valid.text().await.unwrap().as_str()), (200, "success"));
    }
}

#[tokio::test]
async fn capacity_is_answered_with_503() {
    let server = Server::with_config("[limits]\nparticipants = 2\n").await;
    server.create_room("small", 1).await;
    server.create_room("large", 0).await;
    let path = |room: &str, identity: &str| format!("access_token={}", server.join_token(identity, room));
    let _a = server.connect(&format!("/rtc?{}", path("small", "a"))).await.unwrap();
    refused(&server, "/rtc", &path("small", "b"), 503, "the room is full").await;
    let _b = server.connect(&format!("/rtc?{}", path("large", "b"))).await.unwrap();
    let (status, body) = server.connect(&format!("/rtc?{}", path("large", "c"))).await.unwrap_err();
    assert_eq!((status, body.as_str()), (503, "the server is full"));
}

#[tokio::test]
async fn a_token_with_room_create_makes_the_room() {
    let server = Server::start().await;
    let token = server.token(json!({"sub": "me", "video": {"roomJoin": true, "room": "new", "roomCreate": true}}));
    assert!(!server.has_room("new").await);
    assert!(server.connect(&format!("/rtc?access_token={token}")).await.is_ok());
    assert!(server.has_room("new").await);
}

#[tokio::test]
async fn a_request_line_of_thirty_kilobytes_is_read_and_one_of_a_megabyte_is_not() {
    let server = Server::start().await;
    server.create_room("room", 0).await;
    let offer = |size: u64| {
        let sdp: String = (0..size).map(|n| char::from(b'a' + (n * 7919 % 26) as u8)).collect();
        let join = proto::JoinRequest {
            publisher_offer: Some(proto::SessionDescription { sdp, ..Default::default() }),
            ..Default::default()
        };
        URL_SAFE
            .encode(proto::WrappedJoinRequest { compression: 0, join_request: join.encode_to_vec() }.encode_to_vec())
    };
    let path =
        |size: u64| format!("/rtc/v1?access_token={}&join_request={}", server.join_token("me", "room"), offer(size));
    assert!(path(22_000).len() > 29_000);
    assert!(server.connect(&path(22_000)).await.is_ok());

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    // The server stops reading somewhere on the way, so neither side of this is sure to work.
    let _ = stream.write_all(format!("GET {} HTTP/1.1\r\nhost: a\r\n\r\n", path(700_000)).as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(server.get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn attempts_are_limited_per_address() {
    let server = Server::with_config("[limits]\njoins_per_minute = 4\n").await;
    for _ in 0..4 {
        assert_eq!(server.get("/rtc/validate?access_token=guess").await.status(), 401);
    }
    let response = server.get("/rtc/validate?access_token=guess").await;
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(server.connect("/rtc?access_token=guess").await.unwrap_err().0, 429);
    let elsewhere =
        server.client.get(server.url("/rtc/validate")).header("x-forwarded-for", "9.9.9.9").send().await.unwrap();
    assert_eq!(elsewhere.status(), 401);
}

#[tokio::test]
async fn leaving_ends_the_session_and_a_shutdown_waits_for_nobody_long() {
    let server = Server::start().await;
    server.create_room("room", 1).await;
    let path = |identity: &str| format!("/rtc?access_token={}", server.join_token(identity, "room"));
    let mut first = server.connect(&path("me")).await.unwrap();
    first_message(&mut first).await;
    assert_eq!(server.connect(&path("another")).await.unwrap_err().0, 503);
    // A full room has the place for who is in it already; the older session hears that it must leave.
    let mut second = server.connect(&path("me")).await.expect("its own place");
    first_message(&mut second).await;
    loop {
        if let proto::signal_response::Message::Leave(leave) = first_message(&mut first).await {
            assert_eq!(leave.reason(), proto::DisconnectReason::DuplicateIdentity);
            break;
        }
    }
    second.close(None).await.unwrap();
    // The place is free once the worker has seen that the signal is gone.
    let mut freed = server.connect(&path("another")).await;
    for _ in 0..100 {
        if freed.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        freed = server.connect(&path("another")).await;
    }
    assert!(freed.is_ok());
    server.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

/// tungstenite, and so every native LiveKit SDK, takes nothing but this one word.
#[tokio::test]
async fn the_upgrade_says_upgrade_and_nothing_else() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start().await;
    server.create_room("room", 0).await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /rtc?access_token={} HTTP/1.1\r\nHost: parlour\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.join_token("alice", "room")
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    let connection: Vec<&str> = answer.lines().filter(|line| line.starts_with("connection:")).collect();
    assert_eq!(connection, ["connection: upgrade"]);
}

#[tokio::test]
async fn a_client_that_never_finishes_its_headers_is_dropped() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start().await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n").await.unwrap();
    let mut answer = Vec::new();
    let started = std::time::Instant::now();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("dropped").unwrap();
    assert!(started.elapsed() > Duration::from_secs(3), "not before it had its chance");
}

/// What the reference calls a table of nonsense: whatever comes, the server answers or closes, and serves the next one.
#[tokio::test]
async fn nonsense_disturbs_nobody() {
    let server = Server::start().await;
    server.create_room("room", 0).await;
    let path = format!("/rtc?access_token={}", server.join_token("me", "room"));
    let mut bystander = server.connect(&path).await.unwrap();
    first_message(&mut bystander).await;
    for query in [
        "%00",
        "access_token=%ff%fe",
        "access_token=a.b.c&access_token=d",
        "&&&===",
        "join_request=%",
        "reconnect=yes&sid=%F0%9F%92%A9&protocol=99999999999999",
    ] {
        assert_eq!(server.get(&format!("/rtc/v1/validate?{query}")).await.status(), 401, "{query}");
    }
    for bytes in [&b"\0\0\0"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"] {
        use tokio::io::AsyncWriteExt;
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
    }
    assert_eq!(server.get("/healthz").await.status(), 200);
    use futures_util::SinkExt;
    bystander.send(tungstenite::Message::Ping("still here".into())).await.unwrap();
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(5), bystander.next()).await.unwrap().unwrap().unwrap();
        if frame == tungstenite::Message::Pong("still here".into()) {
            break;
        }
    }
}
