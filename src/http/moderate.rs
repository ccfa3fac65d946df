//! `POST /moderate`: a moderator of the Matrix room mutes somebody in its call, or sends somebody out of it.
//!
//! MatrixRTC has no way for it: clients can kick from the room, and nothing less. Who may kick somebody from the room may do
//! this; anybody may do it to themselves, as with a device that was forgotten in a call.
//!
//! The body is JSON: `openid_token` as for `/sfu/get`, `room_id`, `user_id` whom it is about, `action` (`mute` or `remove`),
//! and at will `slot_id` (that call only) and for `mute` a `source` (`microphone`, the default, `camera` or `screen_share`).
//! The answer says how many tracks were muted (`{"muted": 1}`) or sessions ended (`{"removed": 1}`).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

use super::App;
use super::calls::gone;
use super::client_address::ClientAddress;
use super::error::MatrixError;
use super::token::{self, OpenIdToken};
use crate::matrix::calls::{Present, server_of};
use crate::matrix::{HomeserverError, PowerLevels};
use crate::net::Muted;
use crate::sfu::TrackSource;

#[derive(Deserialize)]
struct Request {
    openid_token: Option<OpenIdToken>,
    room_id: Option<String>,
    slot_id: Option<String>,
    user_id: Option<String>,
    action: Option<String>,
    source: Option<String>,
}

enum Action {
    Remove,
    /// The tracks of these sources.
    Mute(&'static [TrackSource]),
}

impl Action {
    fn parse(action: Option<&str>, source: Option<&str>) -> Result<Action, MatrixError> {
        match (action, source) {
            (Some("remove"), None) => Ok(Action::Remove),
            (Some("mute"), None | Some("microphone")) => Ok(Action::Mute(&[TrackSource::Microphone])),
            (Some("mute"), Some("camera")) => Ok(Action::Mute(&[TrackSource::Camera])),
            (Some("mute"), Some("screen_share")) => {
                Ok(Action::Mute(&[TrackSource::ScreenShare, TrackSource::ScreenShareAudio]))
            }
            (Some("mute"), Some(_)) => {
                Err(MatrixError::bad_json("`source` must be `microphone`, `camera` or `screen_share`."))
            }
            (Some("remove"), Some(_)) => Err(MatrixError::bad_json("`source` goes with the action `mute` only.")),
            _ => Err(MatrixError::bad_json("`action` must be `mute` or `remove`.")),
        }
    }
}

pub async fn moderate(
    State(app): State<Arc<App>>,
    Extension(client): Extension<ClientAddress>,
    body: Body,
) -> Response {
    let outcome = async {
        let request: Request = token::read(&app, client, body).await?;
        let room_id = token::required(request.room_id, "room_id")?;
        let user_id = token::required(request.user_id, "user_id")?;
        let slot_id = request.slot_id.map(|slot_id| token::required(Some(slot_id), "slot_id")).transpose()?;
        let action = Action::parse(request.action.as_deref(), request.source.as_deref())?;
        let caller = token::verified(&app, request.openid_token.ok_or_else(|| token::missing("openid_token"))?).await?;
        app.rooms.admission.member(&caller.user_id, &room_id).await?;
        if caller.user_id != user_id && !may_kick(&app, &room_id, &caller.user_id, &user_id).await? {
            return Err(MatrixError::new(
                StatusCode::FORBIDDEN,
                "M_FORBIDDEN",
                "You may not kick this user from the room, so you may not do this either.",
            ));
        }
        let mut sessions = app.rooms.calls.of(&room_id, &user_id);
        sessions.retain(|present| slot_id.as_ref().is_none_or(|slot_id| present.slot_id == *slot_id));
        if sessions.is_empty() {
            return Err(not_there("This user is not in the call."));
        }
        match action {
            Action::Remove => {
                let removed = app.rooms.watch.remove(&room_id, &user_id, &sessions).await;
                Ok(Json(json!({"removed": removed})).into_response())
            }
            Action::Mute(sources) => {
                let muted = mute(&app, &sessions, sources).await?;
                Ok(Json(json!({"muted": muted})).into_response())
            }
        }
    };
    token::finish(&app, "moderate", outcome.await)
}

/// By the power levels of the room, read for the occasion.
async fn may_kick(app: &App, room_id: &str, user: &str, target: &str) -> Result<bool, MatrixError> {
    let is_ours = server_of(user) == app.config.server_name;
    let reader =
        if is_ours { Some(user.to_owned()) } else { app.rooms.calls.local_users_in(room_id).into_iter().next() };
    let wanted = |kind: &str| matches!(kind, "m.room.create" | "m.room.power_levels");
    let unreadable = |why: &str| {
        tracing::warn!(%why, "cannot read the power levels of a room, so nobody can moderate its call");
        MatrixError::new(
            StatusCode::BAD_GATEWAY,
            "M_UNKNOWN",
            "The homeserver did not tell the power levels of the room. Try again in a moment.",
        )
    };
    let state = app.rooms.homeserver.state(room_id, wanted, reader.as_deref()).await;
    let state = state.map_err(|error: HomeserverError| unreadable(&error.to_string()))?;
    let levels = PowerLevels::parse(&state).ok_or_else(|| unreadable("there is no m.room.create"))?;
    Ok(levels.may_kick(user, target))
}

async fn mute(app: &App, sessions: &[Present], sources: &[TrackSource]) -> Result<usize, MatrixError> {
    let mut muted = 0;
    for session in sessions {
        let participants = app.node.participants(&session.alias).await.map_err(gone)?.unwrap_or_default();
        let Some(participant) = participants.into_iter().find(|info| info.sid == session.sid) else { continue };
        for track in participant.tracks.iter().filter(|track| sources.contains(&track.announced.source)) {
            let outcome = app.node.mute(&session.alias, &session.identity, &track.sid, true).await.map_err(gone)?;
            muted += usize::from(matches!(outcome, Muted::Yes(_)));
        }
    }
    if muted == 0 {
        return Err(not_there("This user publishes nothing of that source in the call."));
    }
    tracing::info!(room = %sessions[0].alias, muted, "a moderator muted somebody");
    Ok(muted)
}

fn not_there(what: &str) -> MatrixError {
    MatrixError::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", what)
}
