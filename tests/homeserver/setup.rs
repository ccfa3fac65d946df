//! What is found out at the start about the homeserver and us.

use std::sync::Arc;
use std::time::Duration;

use parlour::matrix::HomeserverError;
use parlour::matrix::setup::{complaints, look};
use serde_json::json;

use crate::scripted::{Answer, BOT_TOKEN, Scripted, client, config, ok, refusal};

const PROBE: &str = "delegate_delayed_leave";
const AS_US: &str = "whoami?user_id=%40parlour%3Aexample.org";
const SERVICE: &str = "[appservice]\nenabled = true\n";

/// A homeserver with which everything is right.
fn fine(scripted: &Scripted) {
    for who in ["whoami", AS_US] {
        scripted.answer(who, [ok(json!({"user_id": "@parlour:example.org"}))]);
    }
    scripted.answer("is_joined", [ok(json!({"joined": false}))]);
    scripted.answer("/ping", [ok(json!({"duration_ms": 3}))]);
    scripted.answer(PROBE, [refusal(401, "M_MISSING_TOKEN")]);
}

#[tokio::test]
async fn each_mistake_has_a_sentence() {
    let (scripted, address) = Scripted::start().await;
    let bot = format!("[access]\nbot_access_token = \"{BOT_TOKEN}\"\n");
    let proxied = format!("{SERVICE}proxied = true\n{bot}");
    let on = || client(address, true, true);
    let complaints_with = async |part: &str, answer: Answer, more: &str| {
        fine(&scripted);
        if !part.is_empty() {
            scripted.answer(part, [answer]);
        }
        complaints(&on(), &config(address, more)).await.unwrap()
    };
    let unrecognized = || refusal(404, "M_UNRECOGNIZED");
    assert!(complaints_with("", unrecognized(), &proxied).await.is_empty());
    for (part, answer, expected) in [
        (AS_US, refusal(401, "M_UNKNOWN_TOKEN"), "appservice: the homeserver does not know us"),
        (AS_US, refusal(403, "M_FORBIDDEN"), "appservice.sender_localpart: "),
        ("whoami", refusal(401, "M_UNKNOWN_TOKEN"), "access.bot_access_token: "),
        ("is_joined", unrecognized(), "appservice: the homeserver does not tell who is joined"),
        ("is_joined", refusal(403, "M_FORBIDDEN"), "appservice: the homeserver does not let us ask"),
        ("/ping", refusal(502, "M_CONNECTION_FAILED"), "appservice.url: the homeserver does not reach us"),
        ("/ping", refusal(504, "M_CONNECTION_TIMEOUT"), "appservice.url: "),
        ("/ping", refusal(502, "M_BAD_STATUS"), "appservice.url: "),
        ("/ping", refusal(400, "M_URL_NOT_SET"), "appservice.url: "),
        ("/ping", refusal(403, "M_FORBIDDEN"), "appservice.id: "),
        (PROBE, unrecognized(), "appservice.proxied: the homeserver does not hand requests"),
    ] {
        scripted.forget();
        let found = complaints_with(part, answer, &proxied).await;
        assert!(found.len() == 1 && found[0].starts_with(expected), "{part}: {found:?}");
    }
    scripted.forget();
    let found = complaints_with("", unrecognized(), SERVICE).await;
    assert!(found[0].starts_with("appservice.proxied: the homeserver hands requests for rtc/livekit on"), "{found:?}");
    // A homeserver without ping, without any of Synapse's extras.
    scripted.forget();
    scripted.answer("whoami", [ok(json!({"user_id": "@parlour:example.org"}))]);
    let found = complaints(&on(), &config(address, SERVICE)).await.unwrap();
    assert!(found.len() == 1 && found[0].contains("lists of members"), "{found:?}");
    assert!(complaints(&on(), &config(address, "")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_homeserver_that_starts_later_is_waited_for() {
    let (scripted, address) = Scripted::start().await;
    fine(&scripted);
    let late = [Answer::Text(502, String::new()), ok(json!({"user_id": "@parlour:example.org"}))];
    scripted.answer(AS_US, late.clone());
    let config = config(address, SERVICE);
    let homeserver = client(address, true, false);
    assert_eq!(complaints(&homeserver, &config).await, Err(HomeserverError::Unreachable));
    scripted.answer(AS_US, late);
    scripted.asked();
    tokio::time::timeout(Duration::from_secs(20), look(Arc::new(homeserver), Arc::new(config))).await.unwrap();
    let pings =
        scripted.lines().iter().filter(|line| *line == "POST /_matrix/client/v1/appservice/parlour/ping").count();
    assert_eq!(pings, 1, "Synapse is to send what it has kept");
}
