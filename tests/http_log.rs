//! What the log must never hold: tokens, secrets, user IDs and addresses of callers.

mod http_support;

use std::io::Write;
use std::sync::{Arc, Mutex};

use http_support::fake_rooms::{AS_TOKEN, HS_TOKEN};
use http_support::{SECRET, Server};
use serde_json::json;
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn layer<S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>>(
    log: Log,
    level: Level,
) -> impl Layer<S> {
    let filter = Targets::new().with_default(Level::WARN).with_target("parlour", level);
    tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || log.clone()).with_filter(filter)
}

#[tokio::test]
async fn neither_secrets_nor_people_are_logged() {
    let (info, everything) = (Log::default(), Log::default());
    tracing_subscriber::registry()
        .with(layer(info.clone(), Level::INFO))
        .with(layer(everything.clone(), Level::TRACE))
        .init();

    let server = Server::start().await;
    server.create_room("room", 0).await;
    let request = |token: &str, name: &str| json!({"room": "!r:example.org", "device_id": "D", "openid_token": {"access_token": token, "matrix_server_name": name}});
    let mut secrets = vec![SECRET.to_owned(), "sub:@alice".to_owned(), "sesame-open".to_owned()];
    let post = |body: serde_json::Value| {
        let request = server.client.post(server.url("/sfu/get")).header("x-forwarded-for", "198.18.77.66");
        async move { request.body(body.to_string()).send().await.unwrap() }
    };
    let granted: serde_json::Value = post(request("sub:@alice:example.org", "example.org")).await.json().await.unwrap();
    secrets.push(granted["jwt"].as_str().unwrap().to_owned());
    assert_eq!(post(request("sesame-open", "example.org")).await.status(), 401);
    assert_eq!(post(request("sesame-open", "127.0.0.1:9999")).await.status(), 401);

    let good = server.join_token("@alice:example.org:DEV", "room");
    let bad = http_support::sign(
        json!({"sub": "@alice:example.org:DEV", "video": {"roomJoin": true, "room": "room"}}),
        "other",
    );
    for token in [&good, &bad] {
        let _ = server.connect(&format!("/rtc?access_token={token}")).await;
        let _ = server.connect_with("/rtc", Some(&format!("Bearer {token}"))).await;
        let plain = server
            .client
            .get(server.url(&format!("/rtc/validate?access_token={token}")))
            .header("x-forwarded-for", "198.18.77.66");
        plain.send().await.unwrap();
        secrets.push(token.split('.').nth(2).unwrap().to_owned());
    }

    let rooms = Server::with_rooms("").await;
    secrets.extend([AS_TOKEN.to_owned(), HS_TOKEN.to_owned()]);
    rooms.homeserver.rooms.join("!r:example.org", "@alice:example.org");
    let call =
        json!({"url": "wss://rtc.example.org/calls", "room_id": "!r:example.org", "slot_id": "s", "member_id": "m"});
    let user = rooms.url("/_matrix/app/v1/users/@alice:example.org");
    let token = rooms.url("/_matrix/client/v1/rtc/livekit/get_token");
    assert_eq!(rooms.client.get(&user).bearer_auth("wrong").send().await.unwrap().status(), 401);
    assert_eq!(rooms.client.get(&user).bearer_auth(HS_TOKEN).send().await.unwrap().status(), 404);
    for (url, status) in [("wss://rtc.example.org/calls", 200), ("wss://elsewhere", 400)] {
        let mut call = call.clone();
        call["url"] = json!(url);
        let request =
            rooms.client.post(&token).bearer_auth(HS_TOKEN).header("x-matrix-user-identifier", "@alice:example.org");
        assert_eq!(request.body(call.to_string()).send().await.unwrap().status(), status);
    }
    let leave = json!({
        "type": "m.room.member", "state_key": "@alice:example.org", "room_id": "!r:example.org", "event_id": "$1",
        "sender": "@alice:example.org", "content": {"membership": "leave"},
    });
    let transaction = rooms.client.put(rooms.url("/_matrix/app/v1/transactions/1")).bearer_auth(HS_TOKEN);
    let transaction = transaction.body(json!({"events": [leave]}).to_string());
    assert_eq!(transaction.send().await.unwrap().status(), 200);

    let (info, everything) = (info.text(), everything.text());
    assert!(info.contains("refused a request with a wrong hs_token"), "{info}");
    assert!(
        info.contains("join refused: invalid authorization token: signature does not match verdict=\"token-invalid\""),
        "{info}"
    );
    assert!(
        info.contains("could not verify a caller") && info.contains("federation.allow_private may open the network"),
        "{info}"
    );
    assert!(everything.contains("join{id=") && everything.contains("let in"), "{everything}");
    for secret in &secrets {
        assert!(!everything.contains(secret), "{secret} in {everything}");
    }
    for private in ["alice", "198.18.77.66"] {
        assert!(!info.contains(private), "{private} in {info}");
    }
}
