//! Everything else there is to ask over HTTP: discovery documents, health, metrics, the web demo, prefixes.

mod http_support;

use http_support::{PUBLIC_URL, Server};
use serde_json::{Value, json};

/// Trap: without such a homeserver the `url` keeps the newest Element Call from publishing.
#[tokio::test]
async fn trap_4_discovery_documents_name_a_url_only_when_the_homeserver_hands_requests_on() {
    const TOKENS: &str =
        "as_token = \"0123456789abcdef0123456789abcdef\"\nhs_token = \"fedcba9876543210fedcba9876543210\"";
    for (proxied, url) in [(false, None), (true, Some("wss://rtc.example.org/calls"))] {
        let server =
            Server::with_config(&format!("[appservice]\nenabled = true\nproxied = {proxied}\n{TOKENS}\n")).await;
        let well_known: Value = server.get("/.well-known/matrix/client").await.json().await.unwrap();
        assert_eq!(well_known["org.matrix.msc4143.rtc_foci"][0]["url"].as_str(), url);
        let path = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports";
        let document: Value = server.get(path).await.json().await.unwrap();
        assert_eq!(document["rtc_transports"][0]["url"].as_str(), url);
        assert_eq!(document["rtc_transports"][0]["livekit_service_url"], PUBLIC_URL);
        assert_eq!(document["rtc_transports"], document["transports"]);
    }
}

/// Trap: an answer without any transport keeps clients from looking at the well-known document.
#[tokio::test]
async fn trap_17_discovery_documents_always_name_the_service() {
    let server = Server::start().await;
    let transport = json!({"type": "livekit", "livekit_service_url": PUBLIC_URL});
    let well_known: Value = server.get("/.well-known/matrix/client").await.json().await.unwrap();
    assert_eq!(well_known, json!({"org.matrix.msc4143.rtc_foci": [transport]}));
    for path in ["/_matrix/client/unstable/org.matrix.msc4143/rtc/transports", "/_matrix/client/v1/rtc/transports"] {
        let response = server.get(path).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        let document: Value = response.json().await.unwrap();
        assert_eq!(document["rtc_transports"], json!([transport]));
        assert_eq!(document["transports"], json!([transport]));
        assert!(document["transports"][0].get("url").is_none());
    }
}

#[tokio::test]
async fn health_is_told_under_every_prefix() {
    let server = Server::start().await;
    for path in [
        "/healthz",
        "/readyz",
        "/",
        "/livekit/jwt/healthz",
        "/livekit/sfu",
        "/livekit/sfu/",
        "/calls/readyz",
        "/calls",
        "//",
        "/calls/livekit/sfu/",
    ] {
        for method in ["GET", "HEAD"] {
            let response = server.client.request(method.parse().unwrap(), server.url(path)).send().await.unwrap();
            assert_eq!(response.status(), 200, "{method} {path}");
            assert_eq!(response.headers()["access-control-allow-origin"], "*", "{method} {path}");
            let body = response.text().await.unwrap();
            assert_eq!(body, if method == "GET" { "OK" } else { "" }, "{method} {path}");
        }
    }
    assert_eq!(server.client.post(server.url("/healthz")).send().await.unwrap().status(), 405);
    let nothing = server.get("/nothing").await;
    assert_eq!((nothing.status().as_u16(), nothing.text().await.unwrap().as_str()), (404, "404 page not found"));
}

#[tokio::test]
async fn metrics_are_for_private_addresses() {
    let server = Server::start().await;
    server.get("/rtc/validate?access_token=x").await;
    let text = server.get("/metrics").await.text().await.unwrap();
    assert!(text.contains("parlour_http_responses_total{class=\"4xx\"} 1"), "{text}");
    let metrics = server.client.get(server.url("/metrics")).header("x-forwarded-for", "9.9.9.9").send().await.unwrap();
    assert_eq!(metrics.status(), 403);
    assert!(metrics.headers().get("access-control-allow-origin").is_none());
}

#[tokio::test]
async fn a_browser_gets_the_web_demo_and_everybody_else_ok() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "<title>call</title>").unwrap();
    std::fs::write(folder.path().join("app.js"), "1").unwrap();
    let server = Server::with_config(&format!("[http]\nweb_root = {:?}\n", folder.path())).await;
    let page = server.client.get(server.url("/")).header("accept", "text/html,*/*").send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/html");
    assert_eq!(page.text().await.unwrap(), "<title>call</title>");
    assert_eq!(server.get("/").await.text().await.unwrap(), "OK");
    assert_eq!(server.client.head(server.url("/")).header("accept", "text/html").send().await.unwrap().status(), 200);
    assert_eq!(server.get("/app.js").await.text().await.unwrap(), "1");
    assert_eq!(server.get("/missing.js").await.status(), 404);
    assert_eq!(server.get("/..%2f..%2fetc%2fpasswd").await.status(), 404);
    assert_eq!(server.get("/healthz").await.text().await.unwrap(), "OK");
}
