//! The MatrixRTC token service: for an OpenID token of a Matrix user, an access token for the call of a Matrix room.
//!
//! `POST /sfu/get` is the older form, whose callers appear in the call as `user:device`; `POST /get_token` the newer one,
//! with hashed identities (MSC4195). Both lead to the same SFU room. Who may have one, and with which rights, is
//! [`Admission`](crate::matrix::Admission)'s to decide. The room of those who may start calls is created here; everybody
//! else may join what exists.

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

use super::App;
use super::client_address::ClientAddress;
use super::delegation::{Delay, DelayFields};
use super::error::MatrixError;
use crate::matrix::calls::server_of;
use crate::matrix::identity::{CALL_SLOT, device_identity, device_member_identity, room_alias};
use crate::matrix::openid::OpenIdError;
use crate::matrix::{Asker, Voucher};
use crate::sfu::RoomOptions;
use crate::subscriber::subscriber;

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
    delay: DelayFields,
}

#[derive(Deserialize)]
pub(super) struct GetToken {
    room_id: Option<String>,
    slot_id: Option<String>,
    openid_token: Option<OpenIdToken>,
    member: Option<Member>,
    #[serde(flatten)]
    delay: DelayFields,
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

/// A [`GetToken`] with everything there.
pub(super) struct Asked {
    room_id: String,
    slot_id: String,
    member_id: String,
    claimed_user: String,
    device_id: String,
}

/// A caller whose OpenID token was verified.
pub(super) struct Caller {
    pub(super) user_id: String,
}

pub async fn sfu_get(State(app): State<Arc<App>>, Extension(client): Extension<ClientAddress>, body: Body) -> Response {
    let outcome = async {
        let request: SfuGet = read(&app, client, body).await?;
        let room = required(request.room, "room")?;
        let device_id = required(request.device_id, "device_id")?;
        let token = request.openid_token.ok_or_else(|| missing("openid_token"))?;
        let delay = request.delay.wanted()?;
        let caller = verified(&app, token).await?;
        let identity = device_identity(&caller.user_id, &device_id).ok_or_else(|| {
            MatrixError::bad_json(
                "`device_id` cannot be used: it is too long, or reads like the port of a server name.",
            )
        })?;
        let asker = Asker { user: &caller.user_id, identity: &identity, voucher: Voucher::OpenId };
        token_and_url(&app, &asker, &room, CALL_SLOT, delay).await
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
        let (asked, token, delay) = request.complete()?;
        let caller = asked.verified(&app, token).await?;
        let identity = asked.identity(&caller);
        let asker = Asker { user: &caller.user_id, identity: &identity, voucher: Voucher::OpenId };
        token_and_url(&app, &asker, &asked.room_id, &asked.slot_id, delay).await
    };
    finish(&app, "get_token", outcome.await)
}

impl GetToken {
    pub(super) fn complete(self) -> Result<(Asked, OpenIdToken, Option<Delay>), MatrixError> {
        let room_id = required(self.room_id, "room_id")?;
        let slot_id = required(self.slot_id, "slot_id")?;
        let member = self.member.ok_or_else(|| missing("member"))?;
        let member_id = required(member.id, "member.id")?;
        let claimed_user = required(member.claimed_user_id, "member.claimed_user_id")?;
        let device_id = required(member.claimed_device_id, "member.claimed_device_id")?;
        let token = self.openid_token.ok_or_else(|| missing("openid_token"))?;
        let asked = Asked { room_id, slot_id, member_id, claimed_user, device_id };
        Ok((asked, token, self.delay.wanted()?))
    }
}

impl Asked {
    /// Who asks, which is who it claims to be.
    pub(super) async fn verified(&self, app: &App, token: OpenIdToken) -> Result<Caller, MatrixError> {
        let caller = verified(app, token).await?;
        if caller.user_id == self.claimed_user { Ok(caller) } else { Err(MatrixError::unauthorised()) }
    }

    pub(super) fn identity(&self, caller: &Caller) -> String {
        device_member_identity(&caller.user_id, &self.device_id, &self.member_id)
    }

    pub(super) fn alias(&self) -> String {
        room_alias(&self.room_id, &self.slot_id)
    }
}

pub async fn method_not_allowed() -> MatrixError {
    MatrixError::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "Use POST with a JSON body.")
}

pub(super) async fn read<T: DeserializeOwned>(app: &App, client: ClientAddress, body: Body) -> Result<T, MatrixError> {
    admit(app, client)?;
    read_json(body).await
}

/// Before anything is read: who asks too often, or too late, is sent away.
pub(super) fn admit(app: &App, client: ClientAddress) -> Result<(), MatrixError> {
    app.tokens.check(&subscriber(client.0)).map_err(MatrixError::limited)?;
    if app.is_draining() {
        return Err(MatrixError::shutting_down());
    }
    Ok(())
}

pub(super) async fn read_json<T: DeserializeOwned>(body: Body) -> Result<T, MatrixError> {
    read_json_within(body, LARGEST_BODY, BODY_TIMEOUT).await
}

/// `largest` in bytes.
pub(super) async fn read_json_within<T: DeserializeOwned>(
    body: Body,
    largest: usize,
    timeout: Duration,
) -> Result<T, MatrixError> {
    let bytes = tokio::time::timeout(timeout, axum::body::to_bytes(body, largest)).await;
    let bytes = match bytes {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            return Err(MatrixError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "M_TOO_LARGE",
                format!("The request body is larger than {} MiB or broke off.", largest >> 20),
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

pub(super) fn required(value: Option<String>, field: &str) -> Result<String, MatrixError> {
    let value = value.filter(|value| !value.is_empty()).ok_or_else(|| missing(field))?;
    if value.len() > LONGEST_ID {
        return Err(MatrixError::bad_json(format!("`{field}` is longer than {LONGEST_ID} bytes.")));
    }
    Ok(value)
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
        Ok(user_id) => Ok(Caller { user_id }),
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
    app.config.may_publish(server_of(&caller.user_id))
}

async fn token_and_url(
    app: &App,
    asker: &Asker<'_>,
    room_id: &str,
    slot_id: &str,
    delay: Option<Delay>,
) -> Result<Response, MatrixError> {
    let jwt = grant(app, asker, room_id, slot_id).await?;
    if let Some(delay) = delay {
        delay.take_over_inline(app, asker.user, &room_alias(room_id, slot_id), asker.identity).await?;
    }
    Ok(Json(json!({"url": app.config.sfu_url(), "jwt": jwt})).into_response())
}

/// An access token for the call in a slot of a room.
pub(super) async fn grant(app: &App, asker: &Asker<'_>, room_id: &str, slot_id: &str) -> Result<String, MatrixError> {
    let ticket = app.rooms.admission.token(asker, room_id, slot_id).await.map_err(|denied| {
        tracing::info!(reason = denied.as_str(), "no access token");
        MatrixError::from(denied)
    })?;
    if ticket.may_create && !create_room(app, ticket.alias.clone()).await {
        let what = "Unable to create room on SFU";
        return Err(MatrixError::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", what));
    }
    tracing::debug!(room = ticket.alias, may_create = ticket.may_create, "access token");
    Ok(app.keys.sign(&ticket.claims))
}

/// The SFU's room for the call of a Matrix room, if it is not there. `false`: it could not be made.
pub(super) async fn create_room(app: &App, alias: String) -> bool {
    let options = RoomOptions {
        max_participants: app.config.limits.participants_per_room,
        forward_loudest: app.config.media.forward_loudest,
        ..RoomOptions::default()
    };
    app.node.create_room(alias, options).await.ok().flatten().is_some()
}

pub(super) fn finish(app: &App, route: &str, outcome: Result<Response, MatrixError>) -> Response {
    let label = outcome.as_ref().map_or_else(|error| error.errcode, |_| "granted");
    app.metrics.token_requests.with_label_values(&[route, label]).inc();
    outcome.unwrap_or_else(MatrixError::into_response)
}
