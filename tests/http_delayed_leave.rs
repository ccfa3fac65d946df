//! Delegated delayed leaves, from a client's request to the homeserver's event: over real sockets, with a homeserver made of
//! a few lines.
//!
//! Tests named `trap_…` stand for the traps of the protocol that others have walked into.

mod http_support;

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use http_support::fake_delays::{Conduct, Form};
use http_support::{Homeserver, Server, Socket, payload};
use livekit_protocol as proto;
use parlour::matrix::delayed_events::DelayedEventError;
use parlour::matrix::delayed_leaves::DelegateError;
use parlour::matrix::delegations::Delegation;
use parlour::net::PresenceChange;
use parlour::sfu::{LeaveReason, Sid};
use parlour::store::Store;
use prost::Message;
use serde_json::{Value, json};

const ROOM: &str = "!room:example.org";
const ALIAS: &str = "TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E";
const ALICE: &str = "@alice:example.org";
const HOUR_MS: u64 = 3_600_000;

/// No application service: as deployments are that have replaced lk-jwt-service and nothing else.
async fn server() -> Server {
    Server::start().await
}

/// An application service, of whose homeserver Alice is in the room.
async fn appservice() -> Server {
    let server = Server::with_rooms("").await;
    server.homeserver.rooms.join(ROOM, ALICE);
    server
}

fn openid(user: &str) -> Value {
    let server = user.split_once(':').unwrap().1;
    json!({"access_token": format!("sub:{user}"), "token_type": "Bearer", "matrix_server_name": server, "expires_in": 3600})
}

fn sfu_get(user: &str) -> Value {
    json!({"room": ROOM, "device_id": "DEVICE", "openid_token": openid(user)})
}

fn get_token(user: &str) -> Value {
    json!({
        "room_id": ROOM, "slot_id": "m.call#ROOM", "openid_token": openid(user),
        "member": {"id": "member", "claimed_user_id": user, "claimed_device_id": "DEVICE"},
    })
}

/// As Element Call sends it.
fn with_delay(mut body: Value, delay_id: &str, delay_ms: u64) -> Value {
    body["delay_id"] = json!(delay_id);
    body["delay_timeout"] = json!(delay_ms);
    body["delay_cs_api_url"] = json!("https://matrix.example.org");
    body
}

async fn accepted(server: &Server, path: &str, body: Value) -> Value {
    let (status, answer) = server.post_json(path, &body).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

async fn join(server: &Server, token: &Value) -> Socket {
    let token = token["jwt"].as_str().unwrap();
    let mut socket = server.connect(&format!("/rtc?access_token={token}")).await.unwrap();
    socket.next().await.unwrap().unwrap();
    seen(server, |change| change == PresenceChange::Joined).await;
    socket
}

async fn seen(server: &Server, wanted: impl Fn(PresenceChange) -> bool) -> Sid {
    let mut reports = server.presence.lock().await;
    let report = async {
        loop {
            let report = reports.recv().await.unwrap();
            if wanted(report.change) {
                return report.sid;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), report).await.expect("a report")
}

/// The way a client hangs up.
async fn hang_up(server: &Server, socket: &mut Socket) {
    let leave = proto::LeaveRequest { reason: proto::DisconnectReason::ClientInitiated as i32, ..Default::default() };
    let message = Some(proto::signal_request::Message::Leave(leave));
    let frame = proto::SignalRequest { message }.encode_to_vec();
    socket.send(tokio_tungstenite::tungstenite::Message::binary(frame)).await.unwrap();
    seen(server, |change| change == PresenceChange::Left(LeaveReason::ClientInitiated)).await;
}

async fn remove(server: &Server, token: &Value) {
    let identity = payload(token["jwt"].as_str().unwrap())["sub"].as_str().unwrap().to_owned();
    assert!(server.node.remove(ALIAS, &identity, None, LeaveReason::Removed).await.unwrap());
}

fn stored(store: &Store) -> Vec<Delegation> {
    store.table::<Delegation>("delayed_leaves").load().unwrap().into_values().collect()
}

/// Whatever was going to happen has happened.
async fn quiet() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn who_is_removed_from_the_call_is_out_of_the_room_at_once() {
    for (path, body) in [("/sfu/get", sfu_get(ALICE)), ("/get_token", get_token(ALICE))] {
        let server = server().await;
        let delays = &server.homeserver.delays;
        delays.schedule("d1", ALICE, ROOM, HOUR_MS);
        let token = accepted(&server, path, with_delay(body, "d1", HOUR_MS)).await;
        assert_eq!(token["url"], "wss://rtc.example.org/calls");
        assert_eq!(delays.log(), ["restart d1 as nobody"], "{path}: its homeserver obeys us");
        let _socket = join(&server, &token).await;
        assert!(server.counted("parlour_delayed_leaves 1"));

        remove(&server, &token).await;
        delays.until("send d1", 1).await;
        quiet().await;
        assert_eq!(delays.log(), ["restart d1 as nobody", "send d1 as nobody"], "{path}");
        for line in [
            "parlour_delayed_leaves 0",
            "parlour_delayed_leaves_ended_total{end=\"sent\"} 1",
            "parlour_delayed_leave_requests_total{request=\"send\",result=\"done\"} 1",
        ] {
            assert!(server.counted(line), "{line}");
        }
    }
}

#[tokio::test]
async fn element_call_delegates_when_it_is_in_already() {
    let server = server().await;
    let delays = &server.homeserver.delays;
    let token = accepted(&server, "/sfu/get", sfu_get(ALICE)).await;
    let mut socket = join(&server, &token).await;
    delays.schedule("d1", ALICE, ROOM, HOUR_MS);
    accepted(&server, "/sfu/get", with_delay(sfu_get(ALICE), "d1", HOUR_MS)).await;
    quiet().await;
    assert_eq!(delays.log(), ["restart d1 as nobody"]);

    let hung_up = Instant::now();
    hang_up(&server, &mut socket).await;
    delays.until("send d1", 1).await;
    assert!(hung_up.elapsed() >= Duration::from_secs(3), "it may be a full reconnect");
}

#[tokio::test]
async fn a_full_reconnect_and_a_takeover_are_no_leave() {
    let server = server().await;
    let delays = &server.homeserver.delays;
    delays.schedule("d1", ALICE, ROOM, HOUR_MS);
    let token = accepted(&server, "/sfu/get", with_delay(sfu_get(ALICE), "d1", HOUR_MS)).await;
    let mut first = join(&server, &token).await;
    hang_up(&server, &mut first).await;
    let _second = join(&server, &token).await;
    let _third = join(&server, &token).await;
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(delays.asked("send"), 0);
}

#[tokio::test]
async fn the_route_of_its_own_delegates_for_hashed_identities() {
    let server = server().await;
    let delays = &server.homeserver.delays;
    delays.schedule("d1", ALICE, ROOM, HOUR_MS);
    let token = accepted(&server, "/get_token", get_token(ALICE)).await;
    let _socket = join(&server, &token).await;
    for path in ["/delegate_delayed_leave", "/livekit/jwt/delegate_delayed_leave"] {
        assert_eq!(accepted(&server, path, with_delay(get_token(ALICE), "d1", HOUR_MS)).await, json!({}));
    }
    assert!(server.counted("parlour_delayed_leaves 1"), "the same once more");
    remove(&server, &token).await;
    delays.until("send d1", 1).await;
}

#[tokio::test]
async fn a_new_delegation_replaces_the_old_one_which_is_neither_sent_nor_cancelled() {
    let server = server().await;
    let delays = &server.homeserver.delays;
    for id in ["d1", "d2"] {
        delays.schedule(id, ALICE, ROOM, HOUR_MS);
    }
    let token = accepted(&server, "/sfu/get", with_delay(sfu_get(ALICE), "d1", HOUR_MS)).await;
    let _socket = join(&server, &token).await;
    accepted(&server, "/sfu/get", with_delay(sfu_get(ALICE), "d2", HOUR_MS)).await;
    // The same event for another identity moves: it is one leave, whoever's session ends first.
    accepted(&server, "/get_token", with_delay(get_token(ALICE), "d2", HOUR_MS)).await;
    remove(&server, &token).await;
    quiet().await;
    assert_eq!(delays.asked("send"), 0, "the other identity has the job, and time to come");
    assert!(server.counted("parlour_delayed_leaves 1"));
}

#[tokio::test]
async fn a_job_is_on_disk_before_its_client_hears_of_it_and_a_restart_takes_it_up() {
    let folder = tempfile::tempdir().unwrap();
    let homeserver = Homeserver::start().await;
    let delays = homeserver.delays.clone();
    delays.schedule("d1", ALICE, ROOM, HOUR_MS);
    let crashed = tempfile::tempdir().unwrap();
    let token = {
        let store = Store::open(folder.path()).unwrap();
        let first = Server::with_store("", homeserver.clone(), store).await;
        let token = accepted(&first, "/sfu/get", with_delay(sfu_get(ALICE), "d1", HOUR_MS)).await;
        // What a crash leaves behind: nothing of the first server runs on this copy.
        std::fs::copy(folder.path().join("parlour.redb"), crashed.path().join("parlour.redb")).unwrap();
        token
    };
    let store = Store::open(crashed.path()).unwrap();
    let expected = Delegation {
        room: ALIAS.into(),
        identity: "@alice:example.org:DEVICE".into(),
        user: ALICE.into(),
        delay_id: "d1".into(),
        delay: Duration::from_secs(3600),
    };
    assert_eq!(stored(&store), [expected]);

    let second = Server::with_store("", homeserver, store.clone()).await;
    delays.until("restart d1", 2).await;
    second.create_room(ALIAS, 0).await;
    let _socket = join(&second, &token).await;
    remove(&second, &token).await;
    delays.until("send d1", 1).await;
    quiet().await;
    assert_eq!(stored(&store), [], "what is done is forgotten");
}

#[tokio::test]
async fn our_own_shutdown_sends_nobodys_leave() {
    let server = server().await;
    let delays = &server.homeserver.delays;
    delays.schedule("d1", ALICE, ROOM, HOUR_MS);
    let token = accepted(&server, "/sfu/get", with_delay(sfu_get(ALICE), "d1", HOUR_MS)).await;
    let _socket = join(&server, &token).await;
    server.app.drain();
    server.node.shut_down().await;
    seen(&server, |change| change == PresenceChange::Left(LeaveReason::ServerShutdown)).await;
    quiet().await;
    assert_eq!(delays.asked("send"), 0);
    for path in ["/sfu/get", "/delegate_delayed_leave"] {
        let (status, answer) = server.post_json(path, &with_delay(get_token(ALICE), "d2", HOUR_MS)).await;
        assert_eq!((status, answer["errcode"].as_str()), (503, Some("M_UNKNOWN")), "{path}");
    }
}

#[tokio::test]
async fn what_the_route_of_its_own_refuses() {
    let server = server().await;
    server.homeserver.delays.schedule("d1", ALICE, ROOM, HOUR_MS);
    let good = with_delay(get_token(ALICE), "d1", HOUR_MS);
    let changed = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    let mut other_user = good.clone();
    other_user["member"]["claimed_user_id"] = json!("@bob:example.org");
    for (body, status, errcode, words) in [
        (get_token(ALICE), 400, "M_BAD_JSON", "`delay_id` is missing"),
        (changed("delay_id", Value::Null), 400, "M_BAD_JSON", "`delay_id` is missing"),
        (changed("delay_timeout", Value::Null), 400, "M_BAD_JSON", "`delay_timeout` is missing"),
        (changed("delay_timeout", json!(0)), 400, "M_BAD_JSON", "`delay_timeout` is missing"),
        (changed("delay_timeout", json!(-1)), 400, "M_BAD_JSON", "negative"),
        (changed("delay_timeout", json!("1h")), 400, "M_BAD_JSON", "wrong type"),
        (changed("delay_timeout", json!(4999)), 400, "M_INVALID_PARAM", "shorter than 5 seconds"),
        (changed("delay_id", json!("x".repeat(256))), 400, "M_BAD_JSON", "longer than 255"),
        (changed("delay_id", json!("unknown")), 400, "M_INVALID_PARAM", "no such delayed event"),
        (changed("delay_id", json!("..")), 400, "M_INVALID_PARAM", "no such delayed event"),
        (changed("delay_id", json!("d1/../d1")), 400, "M_INVALID_PARAM", "no such delayed event"),
        (changed("room_id", json!("")), 400, "M_BAD_JSON", "`room_id` is missing"),
        (changed("member", Value::Null), 400, "M_BAD_JSON", "`member` is missing"),
        (changed("openid_token", Value::Null), 400, "M_BAD_JSON", "`openid_token` is missing"),
        (
            changed("openid_token", json!({"access_token": "x", "matrix_server_name": "example.org"})),
            401,
            "M_UNAUTHORIZED",
            "authorised",
        ),
        (other_user, 401, "M_UNAUTHORIZED", "authorised"),
    ] {
        let (code, answer) = server.post_json("/delegate_delayed_leave", &body).await;
        assert_eq!((code, answer["errcode"].as_str()), (status, Some(errcode)), "{body}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
    }
    assert!(server.counted("parlour_delayed_leaves 0"));
    let response = server.get("/delegate_delayed_leave").await;
    assert_eq!(response.status(), 405);
}

#[tokio::test]
async fn users_of_other_servers_delegate_to_their_own() {
    let homeserver = Homeserver::start().await;
    let config = format!("[federation.overrides]\n\"remote.org\" = \"http://{}\"\n", homeserver.address);
    let server = Server::with_store(&config, homeserver, Store::in_memory()).await;
    server.create_room(ALIAS, 0).await;
    let carol = "@carol:remote.org";
    let (status, answer) =
        server.post_json("/delegate_delayed_leave", &with_delay(get_token(carol), "d1", HOUR_MS)).await;
    assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{answer}");
    accepted(&server, "/sfu/get", sfu_get(carol)).await;
}

#[tokio::test]
async fn trap_5_the_probe_is_answered_404_while_delegation_would_not_work() {
    for (conduct, works) in [
        (Conduct::Open, true),
        (Conduct::Limiting, true),
        (Conduct::Conflicting, true),
        (Conduct::NotOffered, false),
        (Conduct::OwnersOnly, false),
        (Conduct::InTrouble, false),
        (Conduct::Hanging, false),
    ] {
        let server = server().await;
        server.homeserver.delays.set(conduct);
        // Without credentials and without a body, from a web page.
        for path in ["/delegate_delayed_leave", "/livekit/jwt/delegate_delayed_leave"] {
            let response = server.post(path, "").await;
            assert_eq!(response.headers()["access-control-allow-origin"], "*");
            let (status, answer) = (response.status().as_u16(), response.json::<Value>().await.unwrap());
            let expected = if works { (400, "M_NOT_JSON") } else { (404, "M_UNRECOGNIZED") };
            assert_eq!((status, answer["errcode"].as_str().unwrap()), expected, "{conduct:?}");
        }
        let asked = server.homeserver.delays.log().len();
        assert!(asked <= 1, "{conduct:?}: asked once for all that probe");
    }
}

#[tokio::test]
async fn trap_8_the_application_service_shows_its_token_to_its_own_homeserver_only() {
    let other = Homeserver::start().await;
    let config = format!(
        "[access]\nlocal_servers = [\"example.org\", \"second.org\"]\nrequire_membership = false\n[federation.overrides]\n\"second.org\" = \"http://{}\"\n",
        other.address
    );
    let server = Server::with_rooms(&config).await;
    server.homeserver.rooms.join(ROOM, ALICE);
    server.homeserver.delays.schedule("d1", ALICE, ROOM, HOUR_MS);
    other.delays.schedule("d2", "@dora:second.org", ROOM, HOUR_MS);
    accepted(&server, "/sfu/get", with_delay(sfu_get(ALICE), "d1", HOUR_MS)).await;
    accepted(&server, "/sfu/get", with_delay(sfu_get("@dora:second.org"), "d2", HOUR_MS)).await;
    assert_eq!(server.homeserver.delays.log(), ["restart d1 as @alice:example.org"]);
    assert_eq!(other.delays.log(), ["restart d2 as nobody"]);
}

#[tokio::test]
async fn trap_8_a_homeserver_that_is_too_busy_for_now_does_not_keep_a_leave_from_us() {
    let server = server().await;
    let delays = &server.homeserver.delays;
    delays.schedule("d1", ALICE, ROOM, HOUR_MS);
    delays.set(Conduct::Limiting);
    accepted(&server, "/sfu/get", with_delay(sfu_get(ALICE), "d1", HOUR_MS)).await;
    delays.until("restart d1", 2).await;
    let before = Instant::now();
    delays.set(Conduct::Open);
    delays.until("restart d1", 3).await;
    assert!(before.elapsed() > Duration::from_millis(1000), "it said 1.2 s");
    quiet().await;
    assert_eq!(delays.asked("restart"), 3, "and is left alone for the most of an hour");
}

#[tokio::test]
async fn trap_8_without_a_registration_there_it_is_as_without_an_application_service() {
    let server = appservice().await;
    let delays = &server.homeserver.delays;
    delays.schedule("d1", ALICE, ROOM, HOUR_MS);
    delays.set(Conduct::UnknownService);
    accepted(&server, "/sfu/get", with_delay(sfu_get(ALICE), "d1", HOUR_MS)).await;
    assert_eq!(delays.log(), ["restart d1 as @alice:example.org", "restart d1 as nobody"]);
}

#[tokio::test]
async fn trap_15_a_homeserver_that_lets_only_the_owner_manage_needs_an_application_service() {
    let with = appservice().await;
    let without = server().await;
    for server in [&with, &without] {
        server.homeserver.delays.schedule("d1", ALICE, ROOM, HOUR_MS);
        server.homeserver.delays.set(Conduct::OwnersOnly);
    }
    let body = with_delay(sfu_get(ALICE), "d1", HOUR_MS);
    let token = accepted(&with, "/sfu/get", body.clone()).await;
    let _socket = join(&with, &token).await;
    remove(&with, &token).await;
    with.homeserver.delays.until("send d1 as @alice:example.org", 1).await;

    let (status, answer) = without.post_json("/sfu/get", &body).await;
    assert_eq!((status, answer["errcode"].as_str()), (400, Some("M_BAD_JSON")), "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("does not let us manage"), "{answer}");
}

#[tokio::test]
async fn trap_15_the_paths_of_older_and_of_future_homeservers_are_found() {
    for form in [Form::Unstable, Form::InBody, Form::Stable] {
        let server = server().await;
        let delays = &server.homeserver.delays;
        delays.lock().form = form;
        delays.schedule("d1", ALICE, ROOM, HOUR_MS);
        let token = accepted(&server, "/sfu/get", with_delay(sfu_get(ALICE), "d1", HOUR_MS)).await;
        let _socket = join(&server, &token).await;
        remove(&server, &token).await;
        delays.until("send d1", 1).await;
        assert_eq!(delays.log(), ["restart d1 as nobody", "send d1 as nobody"], "{form:?}");
    }
}

#[tokio::test]
async fn trap_20_every_refusal_within_a_token_request_is_the_one_after_which_clients_ask_without() {
    let allowed = "[access]\nremote_can_publish = true\n";
    for (what, config, user, conduct, delay_id, delay_ms) in [
        ("no such event", "", ALICE, Conduct::Open, "unknown", HOUR_MS),
        ("what is over", "", ALICE, Conduct::Conflicting, "unknown", HOUR_MS),
        ("too short", "", ALICE, Conduct::Open, "d1", 4000),
        ("owners only", "", ALICE, Conduct::OwnersOnly, "d1", HOUR_MS),
        ("no delayed events", "", ALICE, Conduct::NotOffered, "d1", HOUR_MS),
        ("in trouble", "", ALICE, Conduct::InTrouble, "d1", HOUR_MS),
        ("hanging", "", ALICE, Conduct::Hanging, "d1", HOUR_MS),
        ("remote user", allowed, "@carol:remote.org", Conduct::Open, "d1", HOUR_MS),
    ] {
        for (path, body) in [("/sfu/get", sfu_get(user)), ("/get_token", get_token(user))] {
            let homeserver = Homeserver::start().await;
            let config =
                format!("{config}[federation.overrides]\n\"remote.org\" = \"http://{}\"\n", homeserver.address);
            let server = Server::with_store(&config, homeserver, Store::in_memory()).await;
            server.create_room(ALIAS, 0).await;
            server.homeserver.delays.schedule("d1", ALICE, ROOM, HOUR_MS);
            server.homeserver.delays.set(conduct);
            let (status, answer) = server.post_json(path, &with_delay(body.clone(), delay_id, delay_ms)).await;
            assert_eq!((status, answer["errcode"].as_str()), (400, Some("M_BAD_JSON")), "{what}: {answer}");
            assert!(answer["error"].as_str().unwrap().contains("without `delay_id`"), "{what}: {answer}");
            accepted(&server, path, body).await;
            assert!(server.counted("parlour_delayed_leaves 0"), "{what}");
        }
    }
}

#[tokio::test]
async fn a_delay_id_cannot_lead_to_another_path() {
    let server = server().await;
    let delays = &server.homeserver.delays;
    let odd = "a/b?c#d %2e é";
    delays.schedule(odd, ALICE, ROOM, HOUR_MS);
    accepted(&server, "/sfu/get", with_delay(sfu_get(ALICE), odd, HOUR_MS)).await;
    assert_eq!(delays.log(), [format!("restart {odd} as nobody")]);
}

#[tokio::test]
async fn a_client_known_to_its_homeserver_names_the_event_alone() {
    let server = appservice().await;
    let delays = &server.homeserver.delays;
    delays.schedule("d1", ALICE, ROOM, 20_000);
    delays.schedule("elsewhere", ALICE, "!other:example.org", HOUR_MS);
    delays.schedule("bobs", "@bob:example.org", ROOM, HOUR_MS);
    delays.schedule("short", ALICE, ROOM, 1000);
    let leaves = &server.app.rooms.delayed_leaves;
    let delegate = async |delay_id| leaves.delegate_known(ALICE, ROOM, delay_id, ALIAS, "identity").await;
    assert_eq!(delegate("d1").await, Ok(()));
    assert_eq!(delegate("elsewhere").await, Err(DelegateError::WrongRoom));
    for unknown in ["bobs", "nothing", ".."] {
        assert_eq!(delegate(unknown).await, Err(DelegateError::Homeserver(DelayedEventError::Gone)), "{unknown}");
    }
    assert_eq!(delegate("short").await, Err(DelegateError::TooShort));
    delays.set(Conduct::InTrouble);
    assert_eq!(delegate("d1").await, Err(DelegateError::Homeserver(DelayedEventError::Unreachable)));
    assert!(server.counted("parlour_delayed_leaves 1"));
}
