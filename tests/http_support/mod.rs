//! A running HTTP side for tests: the real listener and router on a real socket, a homeserver made of a few lines, and the
//! real media worker.
#![allow(dead_code)] // Every test file uses its own part of this.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parlour::config::Config;
use parlour::http::{self, App, AppService};
use parlour::livekit::access_token::Keys;
use parlour::matrix::{MatrixRooms, Transactions};
use parlour::metrics::Metrics;
use parlour::net::{self, Node, Presence};
use parlour::sfu::{Limits, RoomOptions};
use parlour::store::Store;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

pub mod callers;
pub mod fake_delays;
pub mod fake_federation;
pub mod fake_rooms;

use fake_delays::FakeDelays;
use fake_federation::FakeFederation;
use fake_rooms::{AS_TOKEN, FakeRooms, HS_TOKEN};

pub const KEY: &str = "testkey";
pub const SECRET: &str = "a-secret-of-the-tests-0123456789abcdef";
pub const PUBLIC_URL: &str = "https://rtc.example.org/calls";

pub struct Server {
    pub address: SocketAddr,
    /// The listener for the homeserver alone, if there is one.
    pub homeserver_listener: Option<SocketAddr>,
    pub node: Node,
    pub keys: Keys,
    pub metrics: Arc<Metrics>,
    pub app: Arc<App>,
    pub homeserver: Homeserver,
    pub shutdown: CancellationToken,
    pub client: reqwest::Client,
    /// Who came and went, since the start.
    pub presence: Mutex<mpsc::UnboundedReceiver<Presence>>,
}

impl Server {
    pub async fn start() -> Server {
        Server::with_config("").await
    }

    /// `more` is TOML that starts with a section.
    pub async fn with_config(more: &str) -> Server {
        Server::with_store(more, Homeserver::start().await, Store::in_memory()).await
    }

    /// An application service of its homeserver; `more` as above.
    pub async fn with_rooms(more: &str) -> Server {
        let appservice =
            format!("[appservice]\nenabled = true\nas_token = \"{AS_TOKEN}\"\nhs_token = \"{HS_TOKEN}\"\n");
        Server::with_config(&format!("{appservice}{more}")).await
    }

    /// The same after a restart, when homeserver and store are those of before.
    pub async fn with_store(more: &str, homeserver: Homeserver, store: Store) -> Server {
        let text = format!(
            "server_name = \"example.org\"\nhomeserver = \"http://{}\"\npublic_url = \"{PUBLIC_URL}\"\nkeys = {{ {KEY} = \"{SECRET}\" }}\n{more}",
            homeserver.address
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let config = Config::load(file.path(), std::iter::empty()).unwrap_or_else(|problems| panic!("{problems}"));
        let keys = parlour::config::api_keys(&config).unwrap();
        let metrics = Arc::new(Metrics::new());
        let (presence, mut reports) = mpsc::unbounded_channel();
        let node = node(&config, keys.clone(), metrics.clone(), presence);
        let config = Arc::new(config);
        let tokens = parlour::config::existing_appservice_tokens(&config).unwrap();
        let tokens = tokens.filter(|_| config.appservice.enabled);
        let rooms = MatrixRooms::new(config.clone(), tokens.as_ref(), &store, node.clone(), metrics.clone()).unwrap();
        let (presence, presences) = mpsc::unbounded_channel();
        tokio::spawn({
            let note = rooms.observer();
            async move {
                while let Some(report) = reports.recv().await {
                    note(&report);
                    let _ = presence.send(report);
                }
            }
        });
        let appservice = tokens.map(|tokens| {
            let (transactions, inbox) = Transactions::open(&store).unwrap();
            let rooms = rooms.clone();
            tokio::spawn(async move { rooms.act_on(inbox).await });
            AppService::new(&config, &tokens, transactions)
        });
        let own_listener = config.appservice.listen.is_some();
        let app = App::new(config, keys.clone(), node.clone(), rooms, appservice, metrics.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(http::serve(listener, app.clone(), shutdown.clone()));
        let mut homeserver_listener = None;
        if own_listener {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            homeserver_listener = listener.local_addr().ok();
            tokio::spawn(http::serve_homeserver(listener, app.clone(), shutdown.clone()));
        }
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let presence = Mutex::new(presences);
        Server { address, homeserver_listener, node, keys, metrics, app, homeserver, shutdown, client, presence }
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

/// A homeserver. What its `/openid/userinfo` says is written in the token: `sub:@a:example.org` is held by that user.
#[derive(Clone)]
pub struct Homeserver {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
    /// What it tells its application service.
    pub rooms: FakeRooms,
    pub federation: FakeFederation,
    pub delays: FakeDelays,
}

impl Homeserver {
    pub async fn start() -> Homeserver {
        let requests = Arc::new(AtomicUsize::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rooms = FakeRooms::default();
        let (federation, delays) = (FakeFederation::default(), FakeDelays::default());
        let own = Homeserver::router(requests.clone()).merge(rooms.router());
        let router = own.merge(federation.router()).merge(delays.router());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Homeserver { address, requests, rooms, federation, delays }
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

/// The real media workers, on ports of their own.
fn node(config: &Config, keys: Keys, metrics: Arc<Metrics>, presence: mpsc::UnboundedSender<Presence>) -> Node {
    let loopback = "127.0.0.1:0".parse().unwrap();
    let options = net::Options {
        udp: loopback,
        tcp: loopback,
        public_addresses: Vec::new(),
        workers: config.media.workers,
        limits: Limits { max_participants: config.limits.participants as usize, max_rooms: 100 },
        turn: parlour::serve::turn_options(config, &keys).unwrap(),
        keys,
        metrics,
        presence,
    };
    Node::start(options).unwrap().0
}
