//! The token service behind the homeserver (MSC4195): clients ask their own homeserver, which knows them, and it passes the
//! request on to us as its application service (MSC4512), with the caller's name in a header.
//!
//! A client's request may be for a call server elsewhere: then our homeserver asks the other one for us, and what comes in
//! on the federation routes is such a request from there. Every route sits behind the hs_token (`appservice`): who gets this
//! far speaks for a homeserver.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::appservice::{unrecognized, unrecognized_method};
use super::error::MatrixError;
use super::token::{finish, grant, missing, read_json, required};
use crate::matrix::calls::server_of;
use crate::matrix::identity::{device_member_identity, member_identity, room_alias};
use crate::matrix::{Asker, HomeserverError, Voucher};

/// What the two versions of every route have in common: the deployed one and the one of the finished specification.
const VERSIONS: [&str; 2] = ["unstable/io.element.msc4195", "v1"];

/// The user whose request the homeserver passes on.
const USER_HEADER: &str = "x-matrix-user-identifier";

/// The server whose request the homeserver passes on.
const ORIGIN_HEADER: &str = "x-matrix-origin";

/// Bytes; of a call server elsewhere.
const LONGEST_URL: usize = 2048;

/// Characters of another server's words that are passed on.
const LONGEST_FOREIGN_ERROR: usize = 300;

#[derive(Deserialize)]
struct GetToken {
    /// Of the homeserver whose call server is meant; absent: ours.
    server_name: Option<String>,
    #[serde(flatten)]
    call: Call,
}

/// From another homeserver, for one of its users.
#[derive(Deserialize)]
struct GetForeignToken {
    user_id: Option<String>,
    #[serde(flatten)]
    call: Call,
}

#[derive(Deserialize)]
struct DelegateDelayedLeave {
    delay_id: Option<String>,
    #[serde(flatten)]
    call: Call,
}

/// Which call is meant, and as whom in it.
#[derive(Deserialize)]
struct Call {
    /// Of the call server, as clients connect to it.
    url: Option<String>,
    room_id: Option<String>,
    slot_id: Option<String>,
    member_id: Option<String>,
    /// In place of `member_id` in clients of summer 2026.
    member: Option<Member>,
}

#[derive(Deserialize)]
struct Member {
    id: Option<String>,
    claimed_user_id: Option<String>,
    claimed_device_id: Option<String>,
}

/// A [`Call`] with everything there.
struct Place {
    url: String,
    room_id: String,
    slot_id: String,
    member: Membership,
}

/// How a client names itself within a call, which decides what it is called in the SFU.
enum Membership {
    Id(String),
    /// With the form the client used, as the other server may know only that.
    Object {
        id: String,
        device_id: Option<String>,
    },
}

/// What clients ask of their homeserver.
pub fn client_routes() -> Router<Arc<App>> {
    VERSIONS.iter().fold(Router::new(), |routes, version| {
        let below = format!("/_matrix/client/{version}/rtc/livekit");
        routes
            .route(&format!("{below}/get_token"), post(get_token).fallback(unrecognized_method))
            .route(
                &format!("{below}/delegate_delayed_leave"),
                post(delegate_delayed_leave).fallback(unrecognized_method),
            )
            .route(&format!("{below}/{{*rest}}"), any(unrecognized))
    })
}

/// What other homeservers ask of ours.
pub fn federation_routes() -> Router<Arc<App>> {
    VERSIONS.iter().fold(Router::new(), |routes, version| {
        let below = format!("/_matrix/federation/{version}/rtc/livekit");
        routes
            .route(&format!("{below}/get_token"), post(get_foreign_token).fallback(unrecognized_method))
            .route(&format!("{below}/{{*rest}}"), any(unrecognized))
    })
}

/// For a user of our homeserver.
async fn get_token(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let outcome = async {
        let user = user(&app, &headers)?;
        let GetToken { server_name, call } = read(&app, body).await?;
        let place = call.complete(&user)?;
        match server_name.filter(|name| !name.is_empty() && *name != app.config.server_name) {
            None => local_token(&app, &user, &place).await,
            Some(server) => relayed_token(&app, &user, &server, &place).await,
        }
    };
    finish(&app, "homeserver_get_token", outcome.await)
}

/// For a user of another homeserver, who is vouched for by that.
async fn get_foreign_token(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let outcome = async {
        let origin = origin(&headers)?;
        let GetForeignToken { user_id, call } = read(&app, body).await?;
        let user = required(user_id, "user_id")?;
        ruma_identifiers_validation::user_id::validate(&user).map_err(|_| malformed("`user_id`"))?;
        let place = call.complete(&user)?;
        if server_of(&user) != origin {
            return Err(forbidden("A homeserver can ask for its own users only."));
        }
        local_token(&app, &user, &place).await
    };
    finish(&app, "federation_get_token", outcome.await)
}

/// For a user of our homeserver, whose delayed event that knows.
async fn delegate_delayed_leave(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let outcome = async {
        let user = user(&app, &headers)?;
        let DelegateDelayedLeave { delay_id, call } = read(&app, body).await?;
        let place = call.complete(&user)?;
        let delay_id = required(delay_id, "delay_id")?;
        is_our_url(&app, &place)?;
        let (alias, identity) = (room_alias(&place.room_id, &place.slot_id), place.identity(&user));
        app.rooms.delayed_leaves.delegate_known(&user, &place.room_id, &delay_id, &alias, &identity).await?;
        Ok(Json(json!({})).into_response())
    };
    finish(&app, "homeserver_delegate_delayed_leave", outcome.await)
}

async fn local_token(app: &App, user: &str, place: &Place) -> Result<Response, MatrixError> {
    is_our_url(app, place)?;
    let identity = place.identity(user);
    let asker = Asker { user, identity: &identity, voucher: Voucher::Homeserver };
    let jwt = grant(app, &asker, &place.room_id, &place.slot_id).await?;
    Ok(token_and_url(&jwt, &place.url))
}

/// A token from the call server beside another homeserver, for a room that both are in.
async fn relayed_token(app: &App, user: &str, server: &str, place: &Place) -> Result<Response, MatrixError> {
    ruma_identifiers_validation::server_name::validate(server).map_err(|_| malformed("`server_name`"))?;
    app.rooms.admission.elsewhere(user, server, &place.room_id).await?;
    let body = place.for_another_server(user);
    for version in VERSIONS {
        let path = format!("/_matrix/federation/{version}/rtc/livekit/get_token");
        let (status, content) = app.rooms.homeserver.fed_proxy(server, &path, &body).await.map_err(|error| {
            // The name is the user's: quoted by Debug, so that it cannot forge log lines.
            tracing::info!(?server, %error, "no access token from another server: our homeserver does not get it");
            no_foreign_token(match error {
                HomeserverError::NotSupported => "your homeserver does not pass requests on to other servers (MSC4512)",
                _ => "your homeserver cannot reach it",
            })
        })?;
        let errcode = content["errcode"].as_str().unwrap_or_default();
        match (status, errcode) {
            (200, _) => {
                let jwt = content["jwt"].as_str().ok_or_else(|| no_foreign_token("its answer makes no sense"))?;
                return Ok(token_and_url(jwt, &place.url));
            }
            (403, "M_FORBIDDEN") => return Err(passed_on(StatusCode::FORBIDDEN, "M_FORBIDDEN", &content)),
            (400, "M_INVALID_PARAM") => return Err(passed_on(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", &content)),
            // It may know the route by its other name.
            (404, _) => {}
            _ => {
                tracing::info!(?server, status, "no access token from another server: it refused");
                return Err(no_foreign_token("it refused"));
            }
        }
    }
    Err(no_foreign_token("it has no call server behind its homeserver (MSC4195)"))
}

/// The user in whose name the homeserver asks.
fn user(app: &App, headers: &HeaderMap) -> Result<String, MatrixError> {
    let user = header(headers, USER_HEADER)?;
    ruma_identifiers_validation::user_id::validate(user).map_err(|_| malformed(USER_HEADER))?;
    if server_of(user) != app.config.server_name {
        return Err(forbidden("A homeserver can ask for its own users only."));
    }
    Ok(user.to_owned())
}

fn origin(headers: &HeaderMap) -> Result<&str, MatrixError> {
    let origin = header(headers, ORIGIN_HEADER)?;
    ruma_identifiers_validation::server_name::validate(origin).map_err(|_| malformed(ORIGIN_HEADER))?;
    Ok(origin)
}

fn header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, MatrixError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or_else(|| {
        MatrixError::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", format!("The header {name} is missing."))
    })?;
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(text),
        // Two names: one may be the client's own.
        _ => Err(malformed(name)),
    }
}

async fn read<T: serde::de::DeserializeOwned>(app: &App, body: Body) -> Result<T, MatrixError> {
    if app.is_draining() {
        return Err(MatrixError::shutting_down());
    }
    read_json(body).await
}

fn is_our_url(app: &App, place: &Place) -> Result<(), MatrixError> {
    if place.url == app.config.sfu_url() {
        return Ok(());
    }
    Err(MatrixError::new(
        StatusCode::BAD_REQUEST,
        "M_INVALID_PARAM",
        format!("`url` is not the call server of this homeserver, which is {}.", app.config.sfu_url()),
    ))
}

impl Call {
    fn complete(self, user: &str) -> Result<Place, MatrixError> {
        let url = self.url.filter(|url| !url.is_empty()).ok_or_else(|| missing("url"))?;
        if url.len() > LONGEST_URL {
            return Err(malformed("`url`"));
        }
        let room_id = required(self.room_id, "room_id")?;
        let slot_id = required(self.slot_id, "slot_id")?;
        let member = match (self.member_id, self.member) {
            (None, Some(member)) => member.complete(user)?,
            (member_id, _) => Membership::Id(required(member_id, "member_id")?),
        };
        ruma_identifiers_validation::room_id::validate(&room_id).map_err(|_| malformed("`room_id`"))?;
        Ok(Place { url, room_id, slot_id, member })
    }
}

impl Member {
    fn complete(self, user: &str) -> Result<Membership, MatrixError> {
        let id = required(self.id, "member.id")?;
        if self.claimed_user_id.is_some_and(|claimed| claimed != user) {
            return Err(MatrixError::unauthorised());
        }
        let device_id = self.claimed_device_id.filter(|device| !device.is_empty());
        let device_id = device_id.map(|device| required(Some(device), "member.claimed_device_id")).transpose()?;
        Ok(Membership::Object { id, device_id })
    }
}

impl Place {
    /// What the participant is called in the SFU; the other participants compute the same.
    fn identity(&self, user: &str) -> String {
        match &self.member {
            Membership::Object { id, device_id: Some(device_id) } => device_member_identity(user, device_id, id),
            Membership::Object { id, device_id: None } | Membership::Id(id) => member_identity(user, id),
        }
    }

    fn for_another_server(&self, user: &str) -> Value {
        let Place { url, room_id, slot_id, member } = self;
        let mut body = json!({"user_id": user, "url": url, "room_id": room_id, "slot_id": slot_id});
        match member {
            Membership::Id(id) => body["member_id"] = json!(id),
            Membership::Object { id, device_id: None } => body["member"] = json!({"id": id}),
            Membership::Object { id, device_id: Some(device) } => {
                body["member"] = json!({"id": id, "claimed_device_id": device});
            }
        }
        body
    }
}

fn token_and_url(jwt: &str, url: &str) -> Response {
    // Clients of summer 2026 want the URL back.
    Json(json!({"jwt": jwt, "url": url})).into_response()
}

fn malformed(what: &str) -> MatrixError {
    MatrixError::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", format!("{what} is not well-formed."))
}

fn forbidden(why: &str) -> MatrixError {
    MatrixError::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", why)
}

fn no_foreign_token(why: &str) -> MatrixError {
    MatrixError::new(
        StatusCode::BAD_GATEWAY,
        "M_UNKNOWN",
        format!("The other server gives no access to its call server: {why}."),
    )
}

fn passed_on(status: StatusCode, errcode: &'static str, content: &Value) -> MatrixError {
    let words = content["error"].as_str().unwrap_or("The other server refused.");
    MatrixError::new(status, errcode, words.chars().take(LONGEST_FOREIGN_ERROR).collect::<String>())
}
