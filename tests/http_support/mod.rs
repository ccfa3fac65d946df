//! A running HTTP side for tests: the real listener and router on a real socket, a homeserver made of a few lines, and a
//! worker that knows rooms and counts participants.
#![allow(dead_code)] // Every test file uses its own part of this.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use livekit_protocol as proto;
use parlour::config::Config;
use parlour::http::{self, App};
use parlour::livekit::Outgoing;
use parlour::livekit::access_token::Keys;
use parlour::metrics::Metrics;
use parlour::net::{JoinRefused, Node, NodeRequest, SignalStream};
use parlour::sfu::{RoomInfo, RoomOptions, Sid};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub const KEY: &str = "testkey";
pub const SECRET: &str = "a-secret-of-the-tests-0123456789abcdef";
pub const PUBLIC_URL: &str = "https://rtc.example.org/calls";

pub struct Server {
    pub address: SocketAddr,
    pub node: Node,
    pub keys: Keys,
    pub metrics: Arc<Metrics>,
    pub app: Arc<App>,
    pub homeserver: Homeserver,
    pub shutdown: CancellationToken,
    pub client: reqwest::Client,
}

impl Server {
    pub async fn start() -> Server {
        Server::with_config("").await
    }

    /// `more` is TOML that starts with a section.
    pub async fn with_config(more: &str) -> Server {
        let homeserver = Homeserver::start().await;
        let text = format!(
            "server_name = \"example.org\"\nhomeserver = \"http://{}\"\npublic_url = \"{PUBLIC_URL}\"\nkeys = {{ {KEY} = \"{SECRET}\" }}\n{more}",
            homeserver.address
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let config = Config::load(file.path(), std::iter::empty()).unwrap_or_else(|problems| panic!("{problems}"));
        let keys = parlour::config::api_keys(&config).unwrap();
        let node = node(config.limits.participants);
        let metrics = Arc::new(Metrics::new());
        let app = App::new(Arc::new(config), keys.clone(), node.clone(), metrics.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(http::serve(listener, app.clone(), shutdown.clone()));
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Server { address, node, keys, metrics, app, homeserver, shutdown, client }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        self.client.post(self.url(path)).body(body).send().await.unwrap()
    }

    /// Status and JSON body.
    pub async fn post_json(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.post(path, body.to_string()).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub async fn create_room(&self, name: &str, max_participants: u32) {
        let options = RoomOptions { max_participants, ..RoomOptions::default() };
        self.node.create_room(name.to_owned(), options).await.unwrap();
    }

    pub async fn has_room(&self, name: &str) -> bool {
        self.node.room(name.to_owned()).await.unwrap().is_some()
    }

    /// A token signed with the test key; `claims` without `iss` and `exp`.
    pub fn token(&self, claims: Value) -> String {
        sign(claims, SECRET)
    }

    /// A plain token for `room`.
    pub fn join_token(&self, identity: &str, room: &str) -> String {
        self.token(json!({"sub": identity, "video": {"roomJoin": true, "room": room}}))
    }

    /// Tries a WebSocket; the refusal is status and body.
    pub async fn connect(&self, path: &str) -> Result<Socket, (u16, String)> {
        self.connect_with(path, None).await
    }

    pub async fn connect_with(&self, path: &str, authorization: Option<&str>) -> Result<Socket, (u16, String)> {
        use tokio_tungstenite::tungstenite::Error;
        use tokio_tungstenite::tungstenite::client::IntoClientRequest;
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        if let Some(value) = authorization {
            request.headers_mut().insert("authorization", value.parse().unwrap());
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                Err((response.status().as_u16(), String::from_utf8(body).unwrap()))
            }
            Err(other) => panic!("{other}"),
        }
    }

    pub fn counted(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|l| l == line)
    }
}

pub type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub fn sign(mut claims: Value, secret: &str) -> String {
    let fields = claims.as_object_mut().unwrap();
    fields.entry("iss").or_insert(json!(KEY));
    fields.entry("exp").or_insert(json!(now() + 600));
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// The payload of a token, read as Element Call does: `atob`, which knows the standard alphabet only.
pub fn payload(token: &str) -> Value {
    use base64::Engine;
    let middle = token.split('.').nth(1).unwrap();
    let json = base64::engine::general_purpose::STANDARD_NO_PAD.decode(middle).expect("standard alphabet");
    serde_json::from_slice(&json).unwrap()
}

/// A homeserver's `/openid/userinfo`. What it says is written in the token: `sub:@a:example.org` is held by that user.
#[derive(Clone)]
pub struct Homeserver {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
}

impl Homeserver {
    pub async fn start() -> Homeserver {
        let requests = Arc::new(AtomicUsize::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Homeserver::router(requests.clone());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Homeserver { address, requests }
    }

    pub fn router(requests: Arc<AtomicUsize>) -> Router {
        Router::new().route("/_matrix/federation/v1/openid/userinfo", get(userinfo)).with_state(requests)
    }

    pub fn asked(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn userinfo(State(requests): State<Arc<AtomicUsize>>, Query(query): Query<HashMap<String, String>>) -> Response {
    requests.fetch_add(1, Ordering::SeqCst);
    let token = &query["access_token"];
    match token.split_once(':') {
        Some(("sub", user)) => Json(json!({"sub": user})).into_response(),
        Some(("raw", body)) => body.to_owned().into_response(),
        Some(("status", status)) => StatusCode::from_u16(status.parse().unwrap()).unwrap().into_response(),
        Some(("huge", size)) => " ".repeat(size.parse().unwrap()).into_response(),
        Some(("redirect", to)) => (StatusCode::FOUND, [("location", to.to_owned())]).into_response(),
        Some(("slow", _)) => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            StatusCode::OK.into_response()
        }
        _ => (StatusCode::UNAUTHORIZED, Json(json!({"errcode": "M_UNKNOWN_TOKEN"}))).into_response(),
    }
}

/// A worker with rooms but no media: `join` answers with an empty join message.
fn node(most_participants: u32) -> Node {
    let (sender, mut requests) = mpsc::channel(64);
    tokio::spawn(async move {
        let rooms: Arc<Mutex<HashMap<String, RoomInfo>>> = Arc::default();
        while let Some(request) = requests.recv().await {
            let mut known = rooms.lock().unwrap();
            match request {
                NodeRequest::CreateRoom(name, options, answer) => {
                    let room = known.entry(name.clone()).or_insert_with(|| room(name, options));
                    let _ = answer.send(room.clone());
                }
                NodeRequest::Room(name, answer) => drop(answer.send(known.get(&name).cloned())),
                NodeRequest::Join(join, answer) => {
                    let in_all: u32 = known.values().map(|room| room.num_participants).sum();
                    if join.may_create_room {
                        known
                            .entry(join.room.clone())
                            .or_insert_with(|| room(join.room.clone(), RoomOptions::default()));
                    }
                    let outcome = match known.get_mut(&join.room) {
                        None => Err(JoinRefused::RoomMissing),
                        Some(_) if in_all >= most_participants => Err(JoinRefused::Busy),
                        Some(room) if room.max_participants > 0 && room.num_participants >= room.max_participants => {
                            Err(JoinRefused::RoomFull)
                        }
                        Some(room) => {
                            room.num_participants += 1;
                            Ok(participant(rooms.clone(), join.room.clone(), join.identity.clone()))
                        }
                    };
                    let _ = answer.send(outcome);
                }
            }
        }
    });
    Node::new(sender)
}

fn participant(rooms: Arc<Mutex<HashMap<String, RoomInfo>>>, room: String, identity: String) -> SignalStream {
    let (requests, mut incoming) = mpsc::channel(16);
    let (outgoing, responses) = mpsc::channel(16);
    tokio::spawn(async move {
        let me = proto::ParticipantInfo { identity, ..Default::default() };
        let join = proto::JoinResponse { participant: Some(me), ..Default::default() };
        let message = proto::SignalResponse { message: Some(proto::signal_response::Message::Join(join)) };
        let _ = outgoing.send(Outgoing::Message(Box::new(message))).await;
        while incoming.recv().await.is_some() {}
        if let Some(room) = rooms.lock().unwrap().get_mut(&room) {
            room.num_participants -= 1;
        }
    });
    SignalStream { requests, responses }
}

fn room(name: String, options: RoomOptions) -> RoomInfo {
    RoomInfo {
        sid: Sid("RM_test".into()),
        name,
        metadata: options.metadata,
        num_participants: 0,
        num_publishers: 0,
        created_at_ms: 0,
        empty_timeout: options.empty_timeout.as_secs() as u32,
        departure_timeout: options.departure_timeout.as_secs() as u32,
        max_participants: options.max_participants,
    }
}
