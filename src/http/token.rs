//! The MatrixRTC token service: for an OpenID token of a Matrix user, an access token for the call of a Matrix room.
//!
//! `POST /sfu/get` is the older form, whose callers appear in the call as `user:device`; `POST /get_token` the newer one,
//! with hashed identities (MSC4195). Both lead to the same SFU room. Users of `access.local_servers` may start calls and
//! publish: their room is created here. Everybody else may join what exists.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::client_address::ClientAddress;
use super::error::MatrixError;
use super::{App, unix_seconds};
use crate::livekit::Claims;
use crate::matrix::identity::{CALL_SLOT, device_identity, device_member_identity, room_alias};
use crate::matrix::openid::OpenIdError;
use crate::sfu::RoomOptions;

/// How long an access token is good for joining. A client in the call gets fresh ones all the time.
const TOKEN_VALIDITY_S: u64 = 3600;

const LARGEST_BODY: usize = 1024 * 1024;

/// A body is a few hundred bytes; whoever takes longer is holding a connection.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Matrix's limit for every kind of identifier, in bytes.
const LONGEST_ID: usize = 255;

#[derive(Deserialize)]
struct SfuGet {
    room: Option<String>,
    device_id: Option<String>,
    openid_token: Option<OpenIdToken>,
    #[serde(flatten)]
    delay: Delay,
}

#[derive(Deserialize)]
struct GetToken {
    room_id: Option<String>,
    slot_id: Option<String>,
    openid_token: Option<OpenIdToken>,
    member: Option<Member>,
    #[serde(flatten)]
    delay: Delay,
}

#[derive(Deserialize)]
pub(super) struct OpenIdToken {
    access_token: Option<String>,
    matrix_server_name: Option<String>,
}

#[derive(Deserialize)]
struct Member {
    id: Option<String>,
    claimed_user_id: Option<String>,
    claimed_device_id: Option<String>,
}

#[derive(Deserialize)]
struct Delay {
    delay_id: Option<String>,
    /// Milliseconds.
    delay_timeout: Option<i64>,
}

/// A caller whose OpenID token was verified.
pub(super) struct Caller {
    pub(super) user_id: String,
    /// Of one of `access.local_servers`.
    is_local: bool,
}

pub async fn sfu_get(State(app): State<Arc<App>>, Extension(client): Extension<ClientAddress>, body: Body) -> Response {
    let outcome = async {
        let request: SfuGet = read(&app, client, body).await?;
        let room = required(request.room, "room")?;
        let device_id = required(request.device_id, "device_id")?;
        let token = request.openid_token.ok_or_else(|| missing("openid_token"))?;
        refuse_delegation(&request.delay)?;
        let caller = verified(&app, token).await?;
        let identity = device_identity(&caller.user_id, &device_id).ok_or_else(|| {
            MatrixError::bad_json(
                "`device_id` cannot be used: it is too long, or reads like the port of a server name.",
            )
        })?;
        grant(&app, &caller, &identity, &room_alias(&room, CALL_SLOT)).await
    };
    finish(&app, "sfu_get", outcome.await)
}

pub async fn get_token(
    State(app): State<Arc<App>>,
    Extension(client): Extension<ClientAddress>,
    body: Body,
) -> Response {
    let outcome = async {
        let request: GetToken = read(&app, client, body).await?;
        let room_id = required(request.room_id, "room_id")?;
        let slot_id = required(request.slot_id, "slot_id")?;
        let member = request.member.ok_or_else(|| missing("member"))?;
        let member_id = required(member.id, "member.id")?;
        let claimed_user = required(member.claimed_user_id, "member.claimed_user_id")?;
        let device_id = required(member.claimed_device_id, "member.claimed_device_id")?;
        let token = request.openid_token.ok_or_else(|| missing("openid_token"))?;
        refuse_delegation(&request.delay)?;
        let caller = verified(&app, token).await?;
        if caller.user_id != claimed_user {
            return Err(MatrixError::unauthorised());
        }
        let identity = device_member_identity(&caller.user_id, &device_id, &member_id);
        grant(&app, &caller, &identity, &room_alias(&room_id, &slot_id)).await
    };
    finish(&app, "get_token", outcome.await)
}

/// Clients probe this route, and any status but 404 makes them leave the end of their membership to us for an hour.
pub async fn delegate_delayed_leave() -> MatrixError {
    MatrixError::new(
        StatusCode::NOT_FOUND,
        "M_UNRECOGNIZED",
        "This server does not take over delayed leave events; restart them yourself.",
    )
}

pub async fn method_not_allowed() -> MatrixError {
    MatrixError::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "Use POST with a JSON body.")
}

async fn read<T: DeserializeOwned>(app: &App, client: ClientAddress, body: Body) -> Result<T, MatrixError> {
    admit(app, client)?;
    read_json(body).await
}

/// Before anything is read: who asks too often, or too late, is sent away.
pub(super) fn admit(app: &App, client: ClientAddress) -> Result<(), MatrixError> {
    app.tokens.check(client.0).map_err(MatrixError::limited)?;
    if app.is_draining() {
        return Err(MatrixError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "M_UNKNOWN",
            "The server is shutting down; try again in a moment.",
        ));
    }
    Ok(())
}

pub(super) async fn read_json<T: DeserializeOwned>(body: Body) -> Result<T, MatrixError> {
    let bytes = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, LARGEST_BODY)).await;
    let bytes = match bytes {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            return Err(MatrixError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "M_TOO_LARGE",
                "The request body is larger than 1 MiB or broke off.",
            ));
        }
        Err(_) => {
            return Err(MatrixError::new(
                StatusCode::REQUEST_TIMEOUT,
                "M_UNKNOWN",
                "The request body did not arrive in time.",
            ));
        }
    };
    serde_json::from_slice(&bytes).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => {
            MatrixError::bad_json(format!("A field of the request body has the wrong type: {e}."))
        }
        _ => MatrixError::new(
            StatusCode::BAD_REQUEST,
            "M_NOT_JSON",
            format!("Error reading request: the body is not JSON: {e}."),
        ),
    })
}

pub(super) fn missing(field: &str) -> MatrixError {
    MatrixError::bad_json(format!("`{field}` is missing from the request body or empty."))
}

fn required(value: Option<String>, field: &str) -> Result<String, MatrixError> {
    let value = value.filter(|value| !value.is_empty()).ok_or_else(|| missing(field))?;
    if value.len() > LONGEST_ID {
        return Err(MatrixError::bad_json(format!("`{field}` is longer than {LONGEST_ID} bytes.")));
    }
    Ok(value)
}

/// A client that we let believe it has delegated would stop ending its membership itself. With this code Element Call
/// asks again without the two fields.
fn refuse_delegation(delay: &Delay) -> Result<(), MatrixError> {
    let id = delay.delay_id.as_deref().is_some_and(|id| !id.is_empty());
    let timeout = delay.delay_timeout.is_some_and(|timeout| timeout != 0);
    match (id, timeout) {
        (false, false) => Ok(()),
        (true, true) => Err(MatrixError::bad_json(
            "This server does not take over delayed leave events; send the request without `delay_id` and `delay_timeout`.",
        )),
        (true, false) => Err(missing("delay_timeout")),
        (false, true) => Err(missing("delay_id")),
    }
}

pub(super) async fn verified(app: &App, token: OpenIdToken) -> Result<Caller, MatrixError> {
    let server = required(token.matrix_server_name, "openid_token.matrix_server_name")?;
    let access_token =
        token.access_token.filter(|token| !token.is_empty()).ok_or_else(|| missing("openid_token.access_token"))?;
    let started = Instant::now();
    let verdict = app.openid.user(&server, &access_token).await;
    app.metrics.openid_seconds.observe(started.elapsed().as_secs_f64());
    app.metrics.openid.with_label_values(&[verdict.as_ref().err().map_or("verified", |e| e.as_str())]).inc();
    match verdict {
        Ok(user_id) => Ok(Caller { user_id, is_local: app.config.is_local(&server) }),
        Err(OpenIdError::Busy) => Err(MatrixError::limited(Duration::from_secs(1))),
        Err(OpenIdError::UnknownToken) => {
            tracing::debug!(%server, "the server does not know this OpenID token");
            Err(MatrixError::unauthorised())
        }
        Err(reason) => {
            // The server's name comes from the caller: quoted by Debug, so that it cannot forge log lines.
            tracing::info!(?server, %reason, "could not verify a caller");
            Err(MatrixError::unauthorised())
        }
    }
}

/// Users of other servers can only listen, unless the operator lets them do more.
pub(super) fn can_publish(app: &App, caller: &Caller) -> bool {
    caller.is_local || app.config.access.remote_can_publish
}

async fn grant(app: &App, caller: &Caller, identity: &str, alias: &str) -> Result<Response, MatrixError> {
    if caller.is_local {
        let options = RoomOptions {
            max_participants: app.config.limits.participants_per_room,
            forward_loudest: app.config.media.forward_loudest,
            ..RoomOptions::default()
        };
        app.node.create_room(alias.to_owned(), options).await.ok().flatten().ok_or_else(|| {
            MatrixError::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "Unable to create room on SFU")
        })?;
    }
    let claims = Claims::for_room(identity, alias, can_publish(app, caller), unix_seconds(), TOKEN_VALIDITY_S);
    tracing::debug!(room = alias, local = caller.is_local, "access token");
    Ok(Json(json!({"url": app.config.sfu_url(), "jwt": app.keys.sign(&claims)})).into_response())
}

pub(super) fn finish(app: &App, route: &str, outcome: Result<Response, MatrixError>) -> Response {
    let label = outcome.as_ref().map_or_else(|error| error.errcode, |_| "granted");
    app.metrics.token_requests.with_label_values(&[route, label]).inc();
    outcome.unwrap_or_else(MatrixError::into_response)
}
