//! The delayed events of a homeserver (MSC4140), as Synapse has them: managed by whoever knows the id, shown to the owner.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::fake_rooms::AS_TOKEN;

#[derive(Clone, Default)]
pub struct FakeDelays {
    state: Arc<Mutex<DelaysState>>,
}

#[derive(Default)]
pub struct DelaysState {
    /// Delay id → what is to be sent.
    pub events: HashMap<String, Delayed>,
    pub conduct: Conduct,
    pub form: Form,
    /// `restart d1 as @alice:example.org`, `send d1 as nobody`: what was asked, whatever the answer.
    pub log: Vec<String>,
}

pub struct Delayed {
    pub user: String,
    pub room: String,
    pub delay_ms: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conduct {
    #[default]
    Open,
    /// As MSC4140 became: only the owner may.
    OwnersOnly,
    /// It does not know our application service.
    UnknownService,
    Limiting,
    InTrouble,
    Hanging,
    /// Synapse without `max_event_delay_duration`, or a proxy that does not let it through.
    NotOffered,
    /// An older server, which says so of what is over.
    Conflicting,
}

/// Where it expects the action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Unstable,
    InBody,
    Stable,
}

impl FakeDelays {
    pub fn lock(&self) -> MutexGuard<'_, DelaysState> {
        self.state.lock().unwrap()
    }

    pub fn schedule(&self, delay_id: &str, user: &str, room: &str, delay_ms: u64) {
        self.lock().events.insert(delay_id.into(), Delayed { user: user.into(), room: room.into(), delay_ms });
    }

    pub fn set(&self, conduct: Conduct) {
        self.lock().conduct = conduct;
    }

    pub fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    pub fn asked(&self, what: &str) -> usize {
        self.log().iter().filter(|line| line.starts_with(what)).count()
    }

    /// Waits until it was asked for this as often.
    pub async fn until(&self, what: &str, times: usize) {
        let asked = async {
            while self.asked(what) < times {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(8), asked)
            .await
            .unwrap_or_else(|_| panic!("{what}: {:?}", self.log()));
    }

    pub fn router(&self) -> Router {
        let unstable = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";
        Router::new()
            .route(&format!("{unstable}/{{id}}"), get(show).post(in_body))
            .route(&format!("{unstable}/{{id}}/{{action}}"), post(unstable_action))
            .route("/_matrix/client/v1/delayed_events/{id}/{action}", post(stable_action))
            .with_state(self.clone())
    }
}

fn refusal(status: u16, errcode: &str) -> Response {
    let body = json!({"errcode": errcode, "error": "as told", "retry_after_ms": 1200});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

type Parameters = Query<HashMap<String, String>>;

async fn unstable_action(
    State(delays): State<FakeDelays>,
    Path((id, action)): Path<(String, String)>,
    query: Parameters,
    headers: HeaderMap,
) -> Response {
    manage(&delays, Form::Unstable, &id, &action, &query, &headers).await
}

async fn stable_action(
    State(delays): State<FakeDelays>,
    Path((id, action)): Path<(String, String)>,
    query: Parameters,
    headers: HeaderMap,
) -> Response {
    manage(&delays, Form::Stable, &id, &action, &query, &headers).await
}

async fn in_body(
    State(delays): State<FakeDelays>,
    Path(id): Path<String>,
    query: Parameters,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let action = body["action"].as_str().unwrap_or_default().to_owned();
    manage(&delays, Form::InBody, &id, &action, &query, &headers).await
}

/// Who asks: `Err` is a token that it does not know.
fn asker(query: &Parameters, headers: &HeaderMap) -> Result<Option<String>, ()> {
    match headers.get("authorization").map(|value| value.to_str().unwrap()) {
        None => Ok(None),
        Some(value) if value == format!("Bearer {AS_TOKEN}") => {
            Ok(Some(query.get("user_id").cloned().unwrap_or_else(|| "@parlour:example.org".into())))
        }
        Some(_) => Err(()),
    }
}

async fn manage(
    delays: &FakeDelays,
    form: Form,
    id: &str,
    action: &str,
    query: &Parameters,
    headers: &HeaderMap,
) -> Response {
    let asker = asker(query, headers);
    let conduct = {
        let mut state = delays.lock();
        if state.form != form {
            return refusal(404, "M_UNRECOGNIZED");
        }
        let who = asker.as_ref().map_or("a stranger", |asker| asker.as_deref().unwrap_or("nobody"));
        state.log.push(format!("{action} {id} as {who}"));
        state.conduct
    };
    match conduct {
        Conduct::Open | Conduct::Conflicting => {}
        Conduct::Limiting => return refusal(429, "M_LIMIT_EXCEEDED"),
        Conduct::InTrouble => return StatusCode::BAD_GATEWAY.into_response(),
        Conduct::Hanging => tokio::time::sleep(Duration::from_secs(60)).await,
        Conduct::NotOffered => return (StatusCode::NOT_FOUND, "<html>404</html>").into_response(),
        Conduct::UnknownService if asker != Ok(None) => return refusal(401, "M_UNKNOWN_TOKEN"),
        Conduct::UnknownService => {}
        Conduct::OwnersOnly if asker == Ok(None) => return refusal(401, "M_MISSING_TOKEN"),
        Conduct::OwnersOnly => {}
    }
    let Ok(asker) = asker else { return refusal(401, "M_UNKNOWN_TOKEN") };
    let mut state = delays.lock();
    let known = state.events.get(id);
    if known.is_none() && conduct == Conduct::Conflicting {
        return refusal(409, "M_UNKNOWN");
    }
    if known.is_none_or(|event| conduct == Conduct::OwnersOnly && asker.as_ref() != Some(&event.user)) {
        return refusal(404, "M_NOT_FOUND");
    }
    if action == "send" {
        state.events.remove(id);
    }
    Json(json!({})).into_response()
}

async fn show(
    State(delays): State<FakeDelays>,
    Path(id): Path<String>,
    query: Parameters,
    headers: HeaderMap,
) -> Response {
    let Ok(Some(user)) = asker(&query, &headers) else { return refusal(401, "M_MISSING_TOKEN") };
    let state = delays.lock();
    if state.conduct == Conduct::InTrouble {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    match state.events.get(&id).filter(|event| event.user == user) {
        None => refusal(404, "M_NOT_FOUND"),
        Some(event) => Json(json!({
            "delay_id": id, "room_id": event.room, "type": "org.matrix.msc3401.call.member",
            "state_key": format!("_{user}_DEVICE_m.call"), "delay_ms": event.delay_ms, "content": {},
            "delayed_since_ts": 1_795_486_200_397_u64,
        }))
        .into_response(),
    }
}
