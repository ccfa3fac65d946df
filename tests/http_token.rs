//! The token service over a real socket: requests, derivations and errors as Matrix clients rely on them.

mod http_support;

use http_support::{KEY, Server, payload};
use serde_json::{Value, json};

const ALIAS: &str = "TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E";

fn openid(user: &str) -> Value {
    let server = user.split_once(':').unwrap().1;
    json!({"access_token": format!("sub:{user}"), "token_type": "Bearer", "matrix_server_name": server, "expires_in": 3600})
}

fn sfu_get() -> Value {
    json!({"room": "!room:example.org", "device_id": "DEVICE123", "openid_token": openid("@alice:example.org")})
}

fn get_token() -> Value {
    json!({
        "room_id": "!room:example.org", "slot_id": "m.call#ROOM", "openid_token": openid("@alice:example.org"),
        "member": {"id": "memberABC", "claimed_user_id": "@alice:example.org", "claimed_device_id": "DEVICE123"},
    })
}

/// `base` with the value at a JSON pointer replaced, or removed when `value` is `None`.
fn changed(base: Value, pointer: &str, value: Option<Value>) -> Value {
    let mut changed = base;
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let object = changed.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => drop(object.insert(name.to_owned(), value)),
        None => drop(object.remove(name)),
    }
    changed
}

#[tokio::test]
async fn a_local_user_gets_a_publishing_token_and_a_room() {
    let server = Server::start().await;
    assert!(!server.has_room(ALIAS).await);

    let (status, answer) = server.post_json("/sfu/get", &sfu_get()).await;
    assert_eq!((status, answer["url"].as_str()), (200, Some("wss://rtc.example.org/calls")));
    let claims = payload(answer["jwt"].as_str().unwrap());
    assert_eq!(claims["iss"], KEY);
    assert_eq!(claims["sub"], "@alice:example.org:DEVICE123");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(), 3600);
    let video = &claims["video"];
    assert_eq!(video["room"], ALIAS);
    for (grant, expected) in [
        ("roomJoin", true),
        ("roomCreate", false),
        ("canPublish", true),
        ("canSubscribe", true),
        ("canUpdateOwnMetadata", false),
        ("hidden", false),
    ] {
        assert_eq!(video[grant], expected, "{grant}");
    }
    assert!(server.has_room(ALIAS).await);

    let (status, answer) = server.post_json("/get_token", &get_token()).await;
    assert_eq!(status, 200, "{answer}");
    let claims = payload(answer["jwt"].as_str().unwrap());
    assert_eq!(claims["video"]["room"], ALIAS, "both forms lead to one room");
    assert_eq!(
        claims["sub"],
        parlour::matrix::identity::device_member_identity("@alice:example.org", "DEVICE123", "memberABC")
    );
}

#[tokio::test]
async fn the_token_opens_the_door() {
    let server = Server::start().await;
    let (_, answer) = server.post_json("/livekit/jwt/sfu/get", &sfu_get()).await;
    let token = answer["jwt"].as_str().unwrap();
    let validated = server.get(&format!("/livekit/sfu/rtc/validate?access_token={token}")).await;
    assert_eq!((validated.status().as_u16(), validated.text().await.unwrap().as_str()), (200, "success"));
}

#[tokio::test]
async fn malformed_requests_are_told_what_is_wrong() {
    let server = Server::start().await;
    let long = "x".repeat(256);
    for (path, base, pointer, value, expected) in [
        ("/sfu/get", sfu_get(), "/room", None, "`room` is missing"),
        ("/sfu/get", sfu_get(), "/room", Some(json!("")), "`room` is missing"),
        ("/sfu/get", sfu_get(), "/room", Some(json!(5)), "wrong type"),
        ("/sfu/get", sfu_get(), "/room", Some(json!(long)), "`room` is longer than 255 bytes"),
        ("/sfu/get", sfu_get(), "/device_id", None, "`device_id` is missing"),
        ("/sfu/get", sfu_get(), "/device_id", Some(json!("8448:X")), "`device_id` cannot be used"),
        ("/sfu/get", sfu_get(), "/openid_token", None, "`openid_token` is missing"),
        ("/sfu/get", sfu_get(), "/openid_token/access_token", None, "`openid_token.access_token` is missing"),
        (
            "/sfu/get",
            sfu_get(),
            "/openid_token/matrix_server_name",
            Some(json!("")),
            "`openid_token.matrix_server_name` is missing",
        ),
        ("/sfu/get", sfu_get(), "/delay_id", Some(json!("d")), "`delay_timeout` is missing"),
        ("/sfu/get", sfu_get(), "/delay_timeout", Some(json!(1000)), "`delay_id` is missing"),
        ("/get_token", get_token(), "/room_id", None, "`room_id` is missing"),
        ("/get_token", get_token(), "/slot_id", None, "`slot_id` is missing"),
        ("/get_token", get_token(), "/member", None, "`member` is missing"),
        ("/get_token", get_token(), "/member/id", None, "`member.id` is missing"),
        ("/get_token", get_token(), "/member/claimed_user_id", None, "`member.claimed_user_id` is missing"),
        (
            "/get_token",
            get_token(),
            "/member/claimed_device_id",
            Some(Value::Null),
            "`member.claimed_device_id` is missing",
        ),
        ("/get_token", get_token(), "/delay_timeout", Some(json!(1000)), "`delay_id` is missing"),
    ] {
        let body = changed(base, pointer, value);
        let (status, answer) = server.post_json(path, &body).await;
        assert_eq!((status, answer["errcode"].as_str()), (400, Some("M_BAD_JSON")), "{body}");
        assert!(answer["error"].as_str().unwrap().contains(expected), "{answer}");
    }
    for body in ["", "{", "room=1", "\u{0}"] {
        let response = server.post("/sfu/get", body).await;
        assert_eq!(response.status(), 400);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["errcode"], "M_NOT_JSON", "{body}");
        assert!(answer["error"].as_str().unwrap().starts_with("Error reading request"), "{answer}");
    }
    assert!(server.counted("parlour_token_requests_total{outcome=\"M_NOT_JSON\",route=\"sfu_get\"} 4"));
}

#[tokio::test]
async fn unknown_fields_and_empty_delays_are_ignored() {
    let server = Server::start().await;
    for (pointer, value) in [
        ("/future", json!({"a": 1})),
        ("/openid_token/future", json!([])),
        ("/delay_id", json!("")),
        ("/delay_timeout", json!(0)),
        ("/delay_id", Value::Null),
        ("/delay_cs_api_url", json!("https://a")),
    ] {
        let (status, answer) = server.post_json("/sfu/get", &changed(sfu_get(), pointer, Some(value))).await;
        assert_eq!(status, 200, "{pointer}: {answer}");
    }
}

#[tokio::test]
async fn whoever_cannot_be_verified_hears_the_same_words() {
    let server = Server::start().await;
    let token = |token: &str| changed(sfu_get(), "/openid_token/access_token", Some(json!(token)));
    let claim = |user: &str| changed(get_token(), "/member/claimed_user_id", Some(json!(user)));
    for (what, path, body) in [
        ("unknown token", "/sfu/get", token("nothing")),
        ("user of another server", "/sfu/get", token("sub:@alice:evil.org")),
        ("server name in other case", "/sfu/get", token("sub:@alice:EXAMPLE.org")),
        ("server name with port", "/sfu/get", token("sub:@alice:example.org:8448")),
        ("no user ID", "/sfu/get", token("sub:alice")),
        ("room alias", "/sfu/get", token("sub:#alice:example.org")),
        ("empty", "/sfu/get", token("sub:")),
        ("no JSON", "/sfu/get", token("raw:hello")),
        ("no sub", "/sfu/get", token("raw:{}")),
        ("sub is no text", "/sfu/get", token("raw:{\"sub\":1}")),
        ("homeserver without userinfo", "/sfu/get", token("status:404")),
        ("homeserver in trouble", "/sfu/get", token("status:500")),
        ("homeserver redirects", "/sfu/get", token("redirect:http://127.0.0.1:1/")),
        ("answer too large", "/sfu/get", token("huge:70000")),
        ("token too large", "/sfu/get", token(&"x".repeat(5000))),
        ("another user claimed", "/get_token", claim("@bob:example.org")),
        ("claimed in other case", "/get_token", claim("@Alice:example.org")),
    ] {
        let (status, answer) = server.post_json(path, &body).await;
        assert_eq!(status, 401, "{what}: {answer}");
        assert_eq!(
            answer,
            json!({"errcode": "M_UNAUTHORIZED", "error": "The request could not be authorised."}),
            "{what}"
        );
    }
    assert!(!server.has_room(ALIAS).await, "no room for anybody who is not known");
}

#[tokio::test]
async fn verdicts_are_remembered_for_a_moment() {
    let server = Server::start().await;
    for _ in 0..3 {
        assert_eq!(server.post_json("/sfu/get", &sfu_get()).await.0, 200);
    }
    assert_eq!(server.homeserver.asked(), 1, "a verified token");
    let bad = changed(sfu_get(), "/openid_token/access_token", Some(json!("nothing")));
    for _ in 0..3 {
        assert_eq!(server.post_json("/sfu/get", &bad).await.0, 401);
    }
    assert_eq!(server.homeserver.asked(), 2, "a refused token");
    let trouble = changed(sfu_get(), "/openid_token/access_token", Some(json!("status:500")));
    for _ in 0..2 {
        assert_eq!(server.post_json("/sfu/get", &trouble).await.0, 401);
    }
    assert_eq!(server.homeserver.asked(), 4, "trouble says nothing about the token");
}

#[tokio::test]
async fn every_answer_has_cors_headers_and_a_number() {
    let server = Server::start().await;
    for path in [
        "/sfu/get",
        "/get_token",
        "/delegate_delayed_leave",
        "/rtc/v1/validate",
        "/healthz",
        "/nowhere",
        "/livekit/jwt/sfu/get",
    ] {
        for method in ["OPTIONS", "GET", "POST", "PUT", "HEAD", "DELETE"] {
            let response = server.client.request(method.parse().unwrap(), server.url(path)).send().await.unwrap();
            let headers = response.headers();
            assert_eq!(headers["access-control-allow-origin"], "*", "{method} {path}");
            assert!(headers["access-control-allow-methods"].to_str().unwrap().contains("POST"));
            for allowed in ["Accept", "Content-Type", "Content-Length", "Accept-Encoding", "X-CSRF-Token"] {
                assert!(headers["access-control-allow-headers"].to_str().unwrap().contains(allowed), "{method} {path}");
            }
            assert_eq!(headers["x-request-id"].len(), 16);
            if method == "OPTIONS" {
                assert_eq!(response.status(), 200, "{path}");
                assert_eq!(response.headers()["access-control-max-age"], "86400");
            }
        }
    }
    let asked = server
        .client
        .request(reqwest::Method::OPTIONS, server.url("/rtc/validate"))
        .header("access-control-request-headers", "x-new")
        .send()
        .await
        .unwrap();
    assert_eq!(asked.headers()["access-control-allow-headers"], "x-new");

    for path in ["/sfu/get", "/get_token"] {
        for method in ["GET", "PUT", "DELETE"] {
            let response = server.client.request(method.parse().unwrap(), server.url(path)).send().await.unwrap();
            assert_eq!(response.status(), 405, "{method} {path}");
            assert_eq!(response.headers()["content-type"], "application/json");
        }
    }
}

#[tokio::test]
async fn too_large_and_too_many_are_refused() {
    let server = Server::with_config("[limits]\ntokens_per_minute = 3\n").await;
    let response = server.post("/sfu/get", vec![b' '; 1024 * 1024 + 1]).await;
    assert_eq!(response.status(), 413);
    assert_eq!(response.json::<Value>().await.unwrap()["errcode"], "M_TOO_LARGE");
    for _ in 0..2 {
        assert_eq!(server.post_json("/sfu/get", &sfu_get()).await.0, 200);
    }
    let response = server.post("/get_token", get_token().to_string()).await;
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after") && response.headers()["access-control-allow-origin"] == "*");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["errcode"], "M_LIMIT_EXCEEDED");
    assert!((1..=20_000).contains(&answer["retry_after_ms"].as_u64().unwrap()), "{answer}");

    // The limit is the client's, not the proxy's.
    let other = server
        .client
        .post(server.url("/sfu/get"))
        .header("x-forwarded-for", "9.9.9.9")
        .body(sfu_get().to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), 200);
}

#[tokio::test]
async fn a_server_that_shuts_down_says_so() {
    let server = Server::start().await;
    server.app.drain();
    let (status, answer) = server.post_json("/sfu/get", &sfu_get()).await;
    assert_eq!((status, answer["errcode"].as_str()), (503, Some("M_UNKNOWN")));
    let token = server.join_token("a", "r");
    assert_eq!(server.get(&format!("/rtc/validate?access_token={token}")).await.status(), 503);
    assert_eq!(server.get("/readyz").await.status(), 503);
    assert_eq!(server.get("/healthz").await.status(), 200);
}
