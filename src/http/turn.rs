//! `/turn`: ICE servers with credentials, for apps whose calls do not go through rooms here. Participants of rooms get
//! theirs when they join.
//!
//! `GET` or `POST` with `Authorization: Bearer` and an access token of ours, or `POST {"openid_token": …}` as `/sfu/get`
//! takes it. The answer's `iceServers` fits into a browser's `RTCPeerConnection`; `ttl` says how many seconds it can be
//! used to connect, calls go on beyond that.
//!
//! Who may publish here may relay here. Those who can only listen get TURN while they are in a call, with the join: else
//! anybody with an account on any server could relay whatever they like.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

use super::client_address::ClientAddress;
use super::error::MatrixError;
use super::token::{self, OpenIdToken};
use super::{App, unix_seconds};

/// As homeservers have it: an app asks once per call, and may have to connect anew in a long one.
const VALIDITY_S: u64 = 3600;

/// Bytes; a user name in TURN has room for twice that (RFC 8489 §14.3).
const LONGEST_IDENTITY: usize = 256;

#[derive(Deserialize)]
struct Request {
    openid_token: Option<OpenIdToken>,
}

pub async fn turn(
    State(app): State<Arc<App>>,
    Extension(client): Extension<ClientAddress>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = async {
        token::admit(&app, client)?;
        let servers = app.node.ice_servers().ok_or_else(off)?;
        let user = match headers.get(AUTHORIZATION) {
            Some(value) => by_access_token(&app, value.to_str().unwrap_or_default())?,
            None if method == Method::POST => by_openid_token(&app, body).await?,
            None => return Err(no_token()),
        };
        let server = servers.issue(&user, unix_seconds(), VALIDITY_S);
        let server = json!({"urls": server.urls, "username": server.username, "credential": server.credential});
        let answer = Json(json!({"iceServers": [server], "ttl": VALIDITY_S}));
        Ok(([(CACHE_CONTROL, "no-store")], answer).into_response())
    };
    token::finish(&app, "turn", outcome.await)
}

pub async fn method_not_allowed() -> MatrixError {
    MatrixError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "M_UNRECOGNIZED",
        "Use GET with an access token, or POST with one or with an OpenID token in a JSON body.",
    )
}

/// The token's identity.
fn by_access_token(app: &App, authorization: &str) -> Result<String, MatrixError> {
    let token = authorization.strip_prefix("Bearer ").ok_or_else(no_token)?;
    let unknown = |why: String| MatrixError::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", why);
    let claims = app.keys.verify(token, unix_seconds()).map_err(|e| unknown(format!("The access token: {e}.")))?;
    let identity = claims.identity();
    if !(1..=LONGEST_IDENTITY).contains(&identity.len()) {
        return Err(unknown(format!("The access token needs an identity of 1 to {LONGEST_IDENTITY} bytes.")));
    }
    let joins = claims.video.as_ref().is_some_and(|grant| grant.room_join);
    if !joins || !claims.permissions().can_publish {
        return Err(forbidden("The access token does not allow to join a room and to publish."));
    }
    Ok(identity.to_owned())
}

/// The Matrix user id.
async fn by_openid_token(app: &App, body: Body) -> Result<String, MatrixError> {
    let request: Request = token::read_json(body).await?;
    let caller = token::verified(app, request.openid_token.ok_or_else(|| token::missing("openid_token"))?).await?;
    if !token::can_publish(app, &caller) {
        return Err(forbidden("TURN here is for the users of this server; ask the server of your own account."));
    }
    Ok(caller.user_id)
}

fn off() -> MatrixError {
    MatrixError::new(
        StatusCode::NOT_FOUND,
        "M_NOT_FOUND",
        "There is no TURN server here: turn.enabled is false, or no address of it is known.",
    )
}

fn no_token() -> MatrixError {
    MatrixError::new(
        StatusCode::UNAUTHORIZED,
        "M_MISSING_TOKEN",
        "Send an access token as `Authorization: Bearer …`, or POST a JSON body with an `openid_token`.",
    )
}

fn forbidden(why: &str) -> MatrixError {
    MatrixError::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", why)
}
