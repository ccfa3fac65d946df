//! `/api/calls`: which calls there are, and the end of one. For operators and their tools; `parlour calls` asks here.
//!
//! Whoever asks needs a LiveKit access token signed with one of our API keys: `roomList` to see, `roomCreate` to end, or
//! `roomAdmin` to end that one room. The token service gives out none of these.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::error::MatrixError;
use super::{App, unix_seconds};
use crate::livekit::access_token::VideoGrant;
use crate::net::NodeGone;

/// A call with somebody in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallInfo {
    /// The SFU's name of the call.
    pub room: String,
    /// The Matrix room, and its slot; `None`: the call is an app's.
    pub room_id: Option<String>,
    pub slot_id: Option<String>,
    /// Unix milliseconds.
    pub started_at: u64,
    pub participants: Vec<CallParticipant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallParticipant {
    pub sid: String,
    pub identity: String,
    /// The Matrix user.
    pub user_id: Option<String>,
    /// Unix milliseconds.
    pub joined_at: u64,
    /// Published tracks.
    pub tracks: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Calls {
    pub calls: Vec<CallInfo>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Ended {
    /// The SFU's names of the calls that were ended.
    pub ended: Vec<String>,
}

pub async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<Calls>, MatrixError> {
    let grant = authorised(&app, &headers)?;
    if !grant.room_list {
        return Err(forbidden("The access token does not have the grant `roomList`."));
    }
    let mut calls = Vec::new();
    for room in app.node.rooms().await.map_err(gone)? {
        // It may have ended meanwhile.
        let participants = app.node.participants(&room.name).await.map_err(gone)?.unwrap_or_default();
        if participants.is_empty() {
            continue;
        }
        let matrix = app.rooms.calls.room_of(&room.name);
        let present = matrix.as_ref().map(|(room_id, _)| app.rooms.calls.in_room(room_id)).unwrap_or_default();
        let participant = |info: crate::sfu::ParticipantInfo| CallParticipant {
            user_id: present.iter().find(|present| present.sid == info.sid).map(|present| present.user.clone()),
            sid: info.sid.to_string(),
            identity: info.identity,
            joined_at: info.joined_at_ms,
            tracks: info.tracks.len(),
        };
        let (room_id, slot_id) = matrix.clone().unzip();
        calls.push(CallInfo {
            room: room.name,
            room_id,
            slot_id,
            started_at: room.created_at_ms,
            participants: participants.into_iter().map(participant).collect(),
        });
    }
    calls.sort_by_key(|call| call.started_at);
    Ok(Json(Calls { calls }))
}

/// `room`: a Matrix room id, for all its calls, or the SFU's name of one call.
pub async fn end(
    State(app): State<Arc<App>>,
    Path(room): Path<String>,
    headers: HeaderMap,
) -> Result<Response, MatrixError> {
    let grant = authorised(&app, &headers)?;
    let mut aliases = app.rooms.calls.aliases_of(&room);
    if aliases.is_empty() {
        aliases.push(room);
    }
    let may_end = |alias: &String| grant.room_create || grant.room_admin && grant.room == *alias;
    if !aliases.iter().all(may_end) {
        return Err(forbidden(
            "The access token has neither the grant `roomCreate` nor `roomAdmin` with this call as its `room`.",
        ));
    }
    let mut ended = Vec::new();
    for alias in aliases {
        if app.node.delete_room(&alias).await.map_err(gone)? {
            tracing::info!(room = %alias, "an operator ended a call");
            ended.push(alias);
        }
    }
    if ended.is_empty() {
        return Err(MatrixError::new(
            StatusCode::NOT_FOUND,
            "M_NOT_FOUND",
            "There is no such call: the name must be a Matrix room id, or a `room` of `GET /api/calls`.",
        ));
    }
    Ok(Json(Ended { ended }).into_response())
}

pub async fn method_not_allowed() -> MatrixError {
    MatrixError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "M_UNRECOGNIZED",
        "Use GET /api/calls, or DELETE /api/calls/ROOM with its name percent-encoded.",
    )
}

fn authorised(app: &App, headers: &HeaderMap) -> Result<VideoGrant, MatrixError> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(|| {
        MatrixError::new(
            StatusCode::UNAUTHORIZED,
            "M_MISSING_TOKEN",
            "Send a LiveKit access token as `Authorization: Bearer …`.",
        )
    })?;
    let claims = app.keys.verify(token, unix_seconds()).map_err(|error| {
        MatrixError::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", format!("The access token: {error}."))
    })?;
    Ok(claims.video.unwrap_or_default())
}

fn forbidden(why: &str) -> MatrixError {
    MatrixError::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", why)
}

pub(super) fn gone(_: NodeGone) -> MatrixError {
    MatrixError::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "The media worker does not answer.")
}
