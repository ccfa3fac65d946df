//! ICE servers for apps, over a real socket.

mod http_support;

use http_support::{SECRET, Server, now, sign};
use parlour::turn::credentials::{Credentials, Name};
use serde_json::{Value, json};
use stun_types::attribute::{ErrorCode, Nonce, Realm, Username};
use stun_types::message::{IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageWriteVec};
use stun_types::prelude::*;
use tokio::net::UdpSocket;
use turn_types::attribute::{RequestedTransport, XorRelayedAddress};
use turn_types::message::ALLOCATE;

fn openid(user: &str) -> Value {
    let server = user.split_once(':').unwrap().1;
    json!({"openid_token": {"access_token": format!("sub:{user}"), "token_type": "Bearer", "matrix_server_name": server}})
}

async fn bearer(server: &Server, method: &str, token: &str) -> (u16, Value) {
    let request = server.client.request(method.parse().unwrap(), server.url("/turn"));
    let response = request.header("authorization", format!("Bearer {token}")).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// That `answer` is what a browser takes, with credentials of `user` that our TURN server would accept.
fn assert_ice_servers(server: &Server, answer: &Value, user: &str) {
    assert_eq!(answer["ttl"], 3600, "{answer}");
    let [ice] = &answer["iceServers"].as_array().unwrap()[..] else { panic!("{answer}") };
    let urls: Vec<&str> = ice["urls"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
    assert!(urls[0].starts_with("turn:127.0.0.1:") && urls[0].ends_with("?transport=udp"), "{urls:?}");
    assert!(urls[1].starts_with("turn:127.0.0.1:") && urls[1].ends_with("?transport=tcp"), "{urls:?}");
    assert!(!urls[0].contains(":0?") && !urls[1].contains(":0?"), "the port that was bound: {urls:?}");
    let name = Name::parse(ice["username"].as_str().unwrap()).unwrap();
    assert_eq!(name.user, user);
    assert!((now() + 3590..=now() + 3600).contains(&name.expires_unix_s));
    let ours = Credentials::new(vec![server.keys.derive("turn credentials").into_bytes()]);
    assert_eq!(ice["credential"], ours.issue(user, name.expires_unix_s).1);
}

#[tokio::test]
async fn a_local_user_gets_ice_servers_for_an_openid_token() {
    let server = Server::start().await;
    let (status, answer) = server.post_json("/turn", &openid("@alice:example.org")).await;
    assert_eq!(status, 200, "{answer}");
    assert_ice_servers(&server, &answer, "@alice:example.org");
    assert!(
        server.counted("parlour_token_requests_total{outcome=\"granted\",route=\"turn\"} 1"),
        "{}",
        server.metrics.render()
    );

    let response = server.post("/livekit/jwt/turn", openid("@alice:example.org").to_string()).await;
    assert_eq!((response.status().as_u16(), &response.headers()["cache-control"]), (200, &"no-store".parse().unwrap()));
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn an_access_token_gets_ice_servers_for_its_identity() {
    let server = Server::start().await;
    for method in ["GET", "POST"] {
        let (status, answer) = bearer(&server, method, &server.join_token("app-user 7", "r")).await;
        assert_eq!(status, 200, "{answer}");
        assert_ice_servers(&server, &answer, "app-user 7");
    }
}

#[tokio::test]
async fn tls_and_only_what_is_on_is_listed() {
    let server = Server::with_config(
        "[tls]\ncertificate_file = \"Cargo.toml\"\nprivate_key_file = \"Cargo.lock\"\nadvertised_port = 5349\n",
    )
    .await;
    let (_, answer) = server.post_json("/turn", &openid("@alice:example.org")).await;
    assert_eq!(answer["iceServers"][0]["urls"][2], "turns:rtc.example.org:5349?transport=tcp");
    let server = Server::start().await;
    let (_, answer) = server.post_json("/turn", &openid("@alice:example.org")).await;
    assert_eq!(answer["iceServers"][0]["urls"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn who_may_only_listen_gets_none() {
    let server = Server::start().await;
    let listener = server.token(json!({"sub": "a", "video": {"roomJoin": true, "room": "r", "canPublish": false}}));
    for token in
        [listener, server.token(json!({"sub": "a", "video": {"roomList": true}})), server.token(json!({"sub": "a"}))]
    {
        let (status, answer) = bearer(&server, "GET", &token).await;
        assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{answer}");
    }

    let other = http_support::Homeserver::start().await;
    let overrides = format!("[federation.overrides]\n\"remote.net\" = \"http://{}\"\n", other.address);
    let server = Server::with_config(&overrides).await;
    let (status, answer) = server.post_json("/turn", &openid("@bob:remote.net")).await;
    assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{answer}");

    let server = Server::with_config(&format!("{overrides}[access]\nremote_can_publish = true\n")).await;
    let (status, answer) = server.post_json("/turn", &openid("@bob:remote.net")).await;
    assert_eq!(status, 200, "{answer}");
    assert_ice_servers(&server, &answer, "@bob:remote.net");
    let closed = Server::with_config(&format!("{overrides}[federation]\nallow = []\n")).await;
    assert_eq!(closed.post_json("/turn", &openid("@bob:remote.net")).await.0, 401);
}

#[tokio::test]
async fn every_refusal_says_why() {
    let server = Server::start().await;
    let join = json!({"roomJoin": true, "room": "r"});
    let foreign = sign(json!({"sub": "a", "video": join}), "another-secret-0123456789-abcdefghij");
    let expired = server.token(json!({"sub": "a", "exp": now() - 600, "video": join}));
    let nobody = server.token(json!({"video": join}));
    let long = server.token(json!({"sub": "x".repeat(257), "video": join}));
    assert_ne!(SECRET, "another-secret-0123456789-abcdefghij");
    for (token, word) in [
        (foreign, "signature"),
        (expired, "expired"),
        (nobody, "identity"),
        (long, "identity"),
        ("x".into(), "invalid"),
    ] {
        let (status, answer) = bearer(&server, "GET", &token).await;
        assert_eq!((status, answer["errcode"].as_str()), (401, Some("M_UNKNOWN_TOKEN")), "{word}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(word), "{word}: {answer}");
    }
    for (body, status, errcode) in [
        ("", 400, "M_NOT_JSON"),
        ("{}", 400, "M_BAD_JSON"),
        ("{\"openid_token\":{}}", 400, "M_BAD_JSON"),
        (
            "{\"openid_token\":{\"access_token\":\"nothing\",\"matrix_server_name\":\"example.org\"}}",
            401,
            "M_UNAUTHORIZED",
        ),
    ] {
        let response = server.post("/turn", body).await;
        assert_eq!(response.status(), status, "{body}");
        assert_eq!(response.json::<Value>().await.unwrap()["errcode"], errcode, "{body}");
    }
    let response = server.get("/turn").await;
    assert_eq!(response.status(), 401);
    assert_eq!(response.json::<Value>().await.unwrap()["errcode"], "M_MISSING_TOKEN");
    let response = server.client.put(server.url("/turn")).send().await.unwrap();
    assert_eq!(response.status(), 405);
    let response = server.client.get(server.url("/turn")).header("authorization", "Basic abc").send().await.unwrap();
    assert_eq!(response.status(), 401);

    let off = Server::with_config("[turn]\nenabled = false\n").await;
    let (status, answer) = off.post_json("/turn", &openid("@alice:example.org")).await;
    assert_eq!((status, answer["errcode"].as_str()), (404, Some("M_NOT_FOUND")));
    assert!(answer["error"].as_str().unwrap().contains("turn.enabled"));

    server.app.drain();
    assert_eq!(bearer(&server, "GET", &server.join_token("a", "r")).await.0, 503);
}

#[tokio::test]
async fn it_counts_on_the_limit_of_tokens() {
    let server = Server::with_config("[limits]\ntokens_per_minute = 2\n").await;
    for _ in 0..2 {
        assert_eq!(bearer(&server, "GET", &server.join_token("a", "r")).await.0, 200);
    }
    let (status, answer) = bearer(&server, "GET", &server.join_token("a", "r")).await;
    assert_eq!((status, answer["errcode"].as_str()), (429, Some("M_LIMIT_EXCEEDED")));
}

/// One Allocate, asked again with what the first answer challenges for. The error code that ends it, if one does.
async fn allocate(url: &str, username: &str, password: &str) -> Result<(), u16> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(url.strip_prefix("turn:").unwrap().strip_suffix("?transport=udp").unwrap()).await.unwrap();
    let mut answer = [0; 1500];
    let transport = RequestedTransport::new(RequestedTransport::UDP);

    let mut request = Message::builder_request(ALLOCATE, MessageWriteVec::new());
    request.add_attribute(&transport).unwrap();
    socket.send(&request.finish()).await.unwrap();
    let length = socket.recv(&mut answer).await.unwrap();
    let challenge = Message::from_bytes(&answer[..length]).unwrap();
    let realm = challenge.attribute::<Realm>().unwrap().realm().to_owned();
    let nonce = challenge.attribute::<Nonce>().unwrap().nonce().to_owned();

    let credentials = LongTermKeyCredentials::new(username.to_owned(), password.to_owned(), realm.clone());
    let key: IntegrityKey = credentials.make_key(IntegrityAlgorithm::Sha1);
    let mut request = Message::builder_request(ALLOCATE, MessageWriteVec::new());
    request.add_attribute(&transport).unwrap();
    request.add_attribute(&Username::new(username).unwrap()).unwrap();
    request.add_attribute(&Realm::new(&realm).unwrap()).unwrap();
    request.add_attribute(&Nonce::new(&nonce).unwrap()).unwrap();
    request.add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1).unwrap();
    socket.send(&request.finish()).await.unwrap();
    let length = socket.recv(&mut answer).await.unwrap();
    let answer = Message::from_bytes(&answer[..length]).unwrap();
    match answer.attribute::<ErrorCode>() {
        Ok(error) => Err(error.code()),
        Err(_) => answer.attribute::<XorRelayedAddress>().map(drop).map_err(|_| 0),
    }
}

#[tokio::test]
async fn what_is_handed_out_opens_the_turn_server() {
    let (shared, previous) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
    let turn = format!("[turn]\nshared_secret = \"{shared}\"\nprevious_shared_secret = \"{previous}\"\n");
    let server = Server::with_config(&turn).await;
    let (_, answer) = server.post_json("/turn", &openid("@alice:example.org")).await;
    let ice = &answer["iceServers"][0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (url, username, credential) = (text(&ice["urls"][0]), text(&ice["username"]), text(&ice["credential"]));
    assert_eq!(allocate(&url, &username, &credential).await, Ok(()));
    assert_eq!(allocate(&url, &username, "guessed").await, Err(401));

    // As a homeserver makes them from its `turn_shared_secret`.
    for (secret, expires, expected) in [
        (shared, now() + 60, Ok(())),
        (previous, now() + 60, Ok(())),
        (shared, now() - 1, Err(401)),
        ("another-secret-0123456789-abcdefghij", now() + 60, Err(401)),
    ] {
        let (username, password) = Credentials::new(vec![secret.into()]).issue("@bob:example.org", expires);
        assert_eq!(allocate(&url, &username, &password).await, expected, "{secret}, {expires}");
    }
}

#[tokio::test]
async fn a_user_has_one_quota_whichever_credentials() {
    let server = Server::with_config("[turn]\nallocations_per_user = 2\n").await;
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        let (_, answer) = server.post_json("/turn", &openid("@alice:example.org")).await;
        let ice = &answer["iceServers"][0];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        outcomes.push(allocate(&text(&ice["urls"][0]), &text(&ice["username"]), &text(&ice["credential"])).await);
    }
    assert_eq!(outcomes, [Ok(()), Ok(()), Err(486)]);
}
