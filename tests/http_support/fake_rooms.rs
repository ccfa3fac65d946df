//! The rooms of a homeserver, as it tells its application service about them: members, state, and how to change it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

pub const AS_TOKEN: &str = "an-as-token-of-the-tests-0123456789abcdef";
pub const HS_TOKEN: &str = "an-hs-token-of-the-tests-0123456789abcdef";

#[derive(Clone, Default)]
pub struct FakeRooms {
    state: Arc<Mutex<RoomsState>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Up,
    /// Its reverse proxy says so.
    Down,
    /// It takes connections and says nothing.
    Hangs,
}

#[derive(Default)]
pub struct RoomsState {
    pub members: HashMap<String, BTreeSet<String>>,
    /// (room, type, state key) → (sender, content).
    pub events: HashMap<(String, String, String), (String, Value)>,
    /// Joins that `is_joined` and `joined_members` do not know yet, and how often they are still to be denied.
    pub lagging: HashMap<(String, String), usize>,
    pub health: Health,
    pub without_msc4502: bool,
    /// Lists are for members only; else also for the application service, as Synapse has it.
    pub strict_lists: bool,
    /// Method and path with query of every request.
    pub log: Vec<String>,
}

impl FakeRooms {
    pub fn lock(&self) -> MutexGuard<'_, RoomsState> {
        self.state.lock().unwrap()
    }

    pub fn join(&self, room: &str, user: &str) {
        self.lock().members.entry(room.to_owned()).or_default().insert(user.to_owned());
    }

    pub fn leave(&self, room: &str, user: &str) {
        self.lock().members.entry(room.to_owned()).or_default().remove(user);
    }

    pub fn set_state(&self, room: &str, kind: &str, key: &str, sender: &str, content: Value) {
        self.lock().events.insert((room.into(), kind.into(), key.into()), (sender.into(), content));
    }

    pub fn state(&self, room: &str, kind: &str, key: &str) -> Option<Value> {
        self.lock().events.get(&(room.into(), kind.into(), key.into())).map(|(_, content)| content.clone())
    }

    pub fn set_health(&self, health: Health) {
        self.lock().health = health;
    }

    /// How many requests had this in method, path or query.
    pub fn asked(&self, part: &str) -> usize {
        self.lock().log.iter().filter(|line| line.contains(part)).count()
    }

    pub fn router(&self) -> Router {
        Router::new()
            .route("/_matrix/client/v3/account/whoami", get(whoami))
            .route("/_matrix/client/unstable/io.element.msc4502/rooms/{room}/is_joined", get(is_joined))
            .route("/_matrix/client/v3/rooms/{room}/joined_members", get(joined_members))
            .route("/_matrix/client/v3/rooms/{room}/state", get(all_state))
            .route("/_matrix/client/v3/rooms/{room}/state/{kind}", get(state_without_key).put(put_without_key))
            .route("/_matrix/client/v3/rooms/{room}/state/{kind}/{key}", get(state_event).put(put_state))
            .layer(middleware::from_fn_with_state(self.clone(), gate))
            .with_state(self.clone())
    }
}

impl RoomsState {
    fn is_member(&mut self, room: &str, user: &str) -> bool {
        let joined = self.members.get(room).is_some_and(|members| members.contains(user));
        match self.lagging.get_mut(&(room.to_owned(), user.to_owned())) {
            Some(times) if *times > 0 => {
                *times -= 1;
                false
            }
            _ => joined,
        }
    }

    /// As whom the application service asks: a user it names, or its own.
    fn may_read(&mut self, room: &str, query: &HashMap<String, String>) -> bool {
        let user = query.get("user_id").cloned().unwrap_or_else(|| "@parlour:example.org".into());
        self.members.get(room).is_some_and(|members| members.contains(&user))
    }
}

fn refusal(status: StatusCode, errcode: &str) -> Response {
    (status, Json(json!({"errcode": errcode, "error": "as told"}))).into_response()
}

async fn gate(State(rooms): State<FakeRooms>, request: Request, next: Next) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    rooms.lock().log.push(line);
    let health = rooms.lock().health;
    match health {
        Health::Up => {}
        Health::Down => return StatusCode::BAD_GATEWAY.into_response(),
        Health::Hangs => tokio::time::sleep(Duration::from_secs(60)).await,
    }
    let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if authorization != Some(&format!("Bearer {AS_TOKEN}")) {
        return refusal(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN");
    }
    next.run(request).await
}

async fn whoami(Query(query): Query<HashMap<String, String>>) -> Response {
    match query.get("user_id") {
        Some(user) if !user.ends_with(":example.org") => refusal(StatusCode::FORBIDDEN, "M_FORBIDDEN"),
        user => Json(json!({"user_id": user.map_or("@parlour:example.org", String::as_str)})).into_response(),
    }
}

async fn is_joined(
    State(rooms): State<FakeRooms>,
    Path(room): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let mut rooms = rooms.lock();
    if rooms.without_msc4502 {
        return refusal(StatusCode::NOT_FOUND, "M_UNRECOGNIZED");
    }
    if !room.starts_with('!') {
        return refusal(StatusCode::BAD_REQUEST, "M_INVALID_PARAM");
    }
    let joined = match (query.get("mxid"), query.get("server_name")) {
        (Some(user), None) => rooms.is_member(&room, user),
        (None, Some(server)) => {
            let of_server = |user: &String| user.split_once(':').is_some_and(|(_, name)| name == server);
            rooms.members.get(&room).is_some_and(|members| members.iter().any(of_server))
        }
        _ => return refusal(StatusCode::BAD_REQUEST, "M_MISSING_PARAM"),
    };
    Json(json!({"joined": joined})).into_response()
}

async fn joined_members(
    State(rooms): State<FakeRooms>,
    Path(room): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let mut rooms = rooms.lock();
    let ours = |members: &BTreeSet<String>| members.iter().any(|user| user.ends_with(":example.org"));
    let is_shown = !rooms.strict_lists && rooms.members.get(&room).is_some_and(ours);
    if !is_shown && !rooms.may_read(&room, &query) {
        return refusal(StatusCode::FORBIDDEN, "M_FORBIDDEN");
    }
    let members = rooms.members.get(&room).cloned().unwrap_or_default();
    let joined: HashMap<String, Value> = members
        .into_iter()
        .filter(|user| rooms.is_member(&room, user))
        .map(|user| (user, json!({"display_name": "Somebody"})))
        .collect();
    Json(json!({"joined": joined})).into_response()
}

async fn all_state(
    State(rooms): State<FakeRooms>,
    Path(room): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let mut rooms = rooms.lock();
    if !rooms.may_read(&room, &query) {
        return refusal(StatusCode::FORBIDDEN, "M_FORBIDDEN");
    }
    let events = rooms.events.iter().filter(|((of, ..), _)| *of == room);
    let events = events.map(|((room, kind, key), (sender, content))| {
        json!({
            "room_id": room, "type": kind, "state_key": key, "sender": sender, "content": content,
            "origin_server_ts": super::now() * 1000, "event_id": "$event",
        })
    });
    Json(events.collect::<Value>()).into_response()
}

async fn state_without_key(
    rooms: State<FakeRooms>,
    Path((room, kind)): Path<(String, String)>,
    query: Query<HashMap<String, String>>,
) -> Response {
    state_event(rooms, Path((room, kind, String::new())), query).await
}

async fn state_event(
    State(rooms): State<FakeRooms>,
    Path((room, kind, key)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let mut rooms = rooms.lock();
    if !rooms.may_read(&room, &query) {
        return refusal(StatusCode::FORBIDDEN, "M_FORBIDDEN");
    }
    match rooms.events.get(&(room, kind, key)) {
        Some((_, content)) => Json(content).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "M_NOT_FOUND"),
    }
}

async fn put_without_key(
    rooms: State<FakeRooms>,
    Path((room, kind)): Path<(String, String)>,
    query: Query<HashMap<String, String>>,
    content: Json<Value>,
) -> Response {
    put_state(rooms, Path((room, kind, String::new())), query, content).await
}

async fn put_state(
    State(rooms): State<FakeRooms>,
    Path((room, kind, key)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
    Json(content): Json<Value>,
) -> Response {
    let mut rooms = rooms.lock();
    if !rooms.may_read(&room, &query) {
        return refusal(StatusCode::FORBIDDEN, "M_FORBIDDEN");
    }
    let sender = query.get("user_id").cloned().unwrap_or_default();
    rooms.events.insert((room, kind, key), (sender, content));
    Json(json!({"event_id": "$sent"})).into_response()
}
