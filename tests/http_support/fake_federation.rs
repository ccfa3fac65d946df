//! What a homeserver relays to others for its application service (MSC4512 `fed_proxy`), as Synapse 1.163 answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::fake_rooms::AS_TOKEN;

#[derive(Clone, Default)]
pub struct FakeFederation {
    state: Arc<Mutex<FederationState>>,
}

#[derive(Default)]
struct FederationState {
    /// (destination, path) → status and content of that server's answer.
    answers: HashMap<(String, String), (u16, Value)>,
    /// Everything that was relayed.
    relayed: Vec<Value>,
}

impl FakeFederation {
    pub fn answers(&self, destination: &str, path: &str, status: u16, content: Value) {
        self.state.lock().unwrap().answers.insert((destination.into(), path.into()), (status, content));
    }

    /// What was relayed since the last look.
    pub fn take_relayed(&self) -> Vec<Value> {
        std::mem::take(&mut self.state.lock().unwrap().relayed)
    }

    pub fn router(&self) -> Router {
        Router::new()
            .route("/_matrix/client/unstable/io.element.msc4512/appservice/fed_proxy", post(fed_proxy))
            .with_state(self.clone())
    }
}

async fn fed_proxy(
    State(federation): State<FakeFederation>,
    headers: HeaderMap,
    Json(request): Json<Value>,
) -> Response {
    let refusal =
        |status: StatusCode, code: &str| (status, Json(json!({"errcode": code, "error": "x"}))).into_response();
    if headers["authorization"] != format!("Bearer {AS_TOKEN}") {
        return refusal(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN");
    }
    assert_eq!(request["method"], "POST");
    let text = |field: &str| request[field].as_str().unwrap().to_owned();
    let mut state = federation.state.lock().unwrap();
    state.relayed.push(request.clone());
    let (destination, path) = (text("destination"), text("path"));
    match destination.as_str() {
        "denied.example" => refusal(StatusCode::FORBIDDEN, "IO.ELEMENT.MSC4512.M_FEDPROXY_DESTINATION_DENIED"),
        "gone.example" => refusal(StatusCode::BAD_GATEWAY, "IO.ELEMENT.MSC4512.M_FEDPROXY_CONNECTION_FAILED"),
        _ => {
            let unknown = (404, json!({"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}));
            let (status, content) = state.answers.get(&(destination, path)).cloned().unwrap_or(unknown);
            Json(json!({"status": status, "content": content})).into_response()
        }
    }
}
