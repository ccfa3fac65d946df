//! The door of the SFU: checks a client's access token and its request, joins it to the room, and only then accepts the
//! WebSocket. So a refusal is an HTTP status with a sentence, which `…/validate` repeats for clients that cannot see why
//! their WebSocket failed.
//!
//! The order of the checks and the words are LiveKit's: client SDKs act on some of them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::client_address::ClientAddress;
use super::join_request::{BadRequest, Query, join_request};
use super::request_id::RequestId;
use super::socket;
use super::token;
use super::{App, not_found, unix_seconds};
use crate::livekit::MESSAGE_MAX;
use crate::livekit::access_token::TokenError;
use crate::livekit::{Claims, JoinRequest};
use crate::matrix::Denied;
use crate::net::JoinRefused;
use crate::sfu::LeaveReason;
use crate::subscriber::subscriber;

/// Bytes, for identity and room name; LiveKit's.
const LONGEST_NAME: usize = 256;

/// Of each signalling socket, for as long as it is open, and zeroed with every read. An offer takes a few reads; everything
/// else a client says fits into one.
const READ_BUFFER_BYTES: usize = 4 << 10;

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// A client that is not let in.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("invalid authorization header. Must start with Bearer ")]
    AuthorizationHeader,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("permissions denied")]
    NoPermission,
    #[error("identity cannot be empty")]
    NoIdentity,
    /// LiveKit lets a token without a room into every room; ours must name one.
    #[error("no room name")]
    NoRoom,
    #[error("identity and room name may have {LONGEST_NAME} bytes each")]
    NameTooLong,
    /// Anything else with status 404 would make clients try the older dialect.
    #[error("requested room does not exist")]
    RoomMissing,
    /// Clients who come back try this again for half a minute, and give up after a [`Refusal::RoomMissing`].
    #[error("the call is not there yet; try again in a moment")]
    RoomLost,
    #[error("the room is full")]
    RoomFull,
    #[error("the server is full")]
    ServerFull,
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error("the media worker does not answer")]
    WorkerGone,
    #[error("too many attempts from your address; try again in {0} s")]
    TooOften(u64),
    #[error(transparent)]
    JoinRequest(#[from] BadRequest),
    /// The Matrix room does not want it.
    #[error(transparent)]
    Denied(#[from] Denied),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::AuthorizationHeader | Refusal::Token(_) | Refusal::NoPermission => StatusCode::UNAUTHORIZED,
            Refusal::JoinRequest(BadRequest::MetadataNotAllowed) => StatusCode::UNAUTHORIZED,
            Refusal::NoIdentity | Refusal::NoRoom | Refusal::NameTooLong | Refusal::JoinRequest(_) => {
                StatusCode::BAD_REQUEST
            }
            Refusal::RoomMissing => StatusCode::NOT_FOUND,
            Refusal::RoomLost | Refusal::RoomFull | Refusal::ServerFull | Refusal::ShuttingDown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refusal::WorkerGone => StatusCode::INTERNAL_SERVER_ERROR,
            Refusal::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            // Clients take it for a server that is full.
            Refusal::Denied(Denied::TooManySessions | Denied::TooManyOfServer) => StatusCode::SERVICE_UNAVAILABLE,
            // Clients do not come back with the same token.
            Refusal::Denied(_) => StatusCode::UNAUTHORIZED,
        }
    }

    /// The label in metrics and log.
    fn verdict(&self) -> &'static str {
        match self {
            Refusal::AuthorizationHeader => "token-malformed",
            Refusal::Token(error) => error.as_str(),
            Refusal::NoPermission => "no-permission",
            Refusal::NoIdentity | Refusal::NoRoom | Refusal::NameTooLong => "bad-name",
            Refusal::RoomMissing => "room-missing",
            Refusal::RoomLost => "room-lost",
            Refusal::RoomFull => "room-full",
            Refusal::ServerFull => "server-full",
            Refusal::ShuttingDown => "shutting-down",
            Refusal::WorkerGone => "worker-gone",
            Refusal::TooOften(_) => "rate-limited",
            Refusal::JoinRequest(_) => "bad-join-request",
            Refusal::Denied(denied) => denied.as_str(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.to_string()).into_response();
        if let Refusal::TooOften(seconds) = self {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<JoinRefused> for Refusal {
    fn from(refused: JoinRefused) -> Refusal {
        match refused {
            JoinRefused::RoomMissing => Refusal::RoomMissing,
            JoinRefused::RoomFull => Refusal::RoomFull,
            JoinRefused::Busy => Refusal::ServerFull,
            JoinRefused::Gone => Refusal::WorkerGone,
        }
    }
}

/// The WebSocket of a join or a resume.
pub async fn connect<const ONLY_V1: bool>(
    State(app): State<Arc<App>>,
    Extension(client): Extension<ClientAddress>,
    Extension(id): Extension<RequestId>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let checked = check(&app, client, &uri, &headers, ONLY_V1, false).await;
    let (request, upgrade) = match (checked, upgrade) {
        (Ok(request), Ok(upgrade)) => (request, upgrade),
        // Nothing wrong but that it is no WebSocket.
        (Ok(_), Err(_)) => return not_found().await,
        (Err(refusal), _) => return refuse(&app, refusal),
    };
    // One number from the first line of a join to its verdict; the room is a hash, nobody is named.
    let span = tracing::info_span!(parent: None, "join", id = %id.0, room = %request.room, client = %request.client, dialect = ?request.dialect);
    let claims = request.claims.matrix.is_some().then(|| request.claims.clone());
    let stream = match app.node.join(request).instrument(span.clone()).await {
        Ok(stream) => stream,
        Err(refused) => return span.in_scope(|| refuse(&app, refused.into())),
    };
    // Whoever was thrown out between the check and the join was not there yet to be removed.
    if let Some(claims) = claims.filter(|claims| app.rooms.admission.is_revoked(claims)) {
        let room = claims.video.as_ref().map_or("", |grant| &grant.room);
        let _ = app.node.remove(room, claims.identity(), None, LeaveReason::Removed).await;
        return span.in_scope(|| refuse(&app, Denied::Revoked.into()));
    }
    span.in_scope(|| tracing::debug!("let in"));
    let metrics = app.metrics.clone();
    let connections = app.connections.clone();
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(MESSAGE_MAX)
        .max_frame_size(MESSAGE_MAX)
        // When the upgrade fails, the closure is dropped with the stream, and the worker sees the signal as lost.
        .on_upgrade(move |socket| connections.track_future(socket::run(socket, stream, metrics)).instrument(span))
}

/// `…/validate`: everything but the join. `ONLY_V1`: the path is that of v1, which wants a `join_request`.
pub async fn validate<const ONLY_V1: bool>(
    State(app): State<Arc<App>>,
    Extension(client): Extension<ClientAddress>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    match check(&app, client, &uri, &headers, ONLY_V1, true).await {
        Ok(_) => "success".into_response(),
        Err(refusal) => {
            tracing::debug!(verdict = refusal.verdict(), "validation failed: {refusal}");
            refusal.into_response()
        }
    }
}

fn refuse(app: &App, refusal: Refusal) -> Response {
    let verdict = refusal.verdict();
    app.metrics.joins.with_label_values(&[verdict]).inc();
    tracing::info!(verdict, "join refused: {refusal}");
    refusal.into_response()
}

/// All that can be said before joining.
async fn check(
    app: &App,
    client: ClientAddress,
    uri: &Uri,
    headers: &HeaderMap,
    only_v1: bool,
    validating: bool,
) -> Result<JoinRequest, Refusal> {
    app.joins.check(&subscriber(client.0)).map_err(|wait| Refusal::TooOften(wait.as_secs() + 1))?;
    let query = Query::parse(uri.query().unwrap_or_default());
    let claims = authorised(app, &query, headers)?;
    if app.is_draining() {
        return Err(Refusal::ShuttingDown);
    }
    let grant = claims.video.clone().unwrap_or_default();
    let mut is_lost = false;
    match app.node.room(grant.room.clone()).await.map_err(|_| Refusal::WorkerGone)? {
        // A call that we have forgotten, as after a restart. Who could start it comes back into it; others do when it is there.
        None if app.rooms.admission.may_create_again(&claims) => is_lost = true,
        None if !grant.room_create => {
            let is_member = claims.matrix.is_some();
            let comes_back = join_request(&query, claims, only_v1).is_ok_and(|request| request.reconnect.is_some());
            return Err(if is_member && comes_back { Refusal::RoomLost } else { Refusal::RoomMissing });
        }
        // When joining the worker decides: who is in already may take its own place in a full room.
        Some(room) if validating && room.max_participants > 0 && room.num_participants >= room.max_participants => {
            return Err(Refusal::RoomFull);
        }
        _ => {}
    }
    let request = join_request(&query, claims, only_v1)?;
    app.rooms.admission.connect(&request.claims, request.reconnect.is_some()).await?;
    if is_lost && !validating && !token::create_room(app, grant.room).await {
        return Err(Refusal::WorkerGone);
    }
    Ok(request)
}

fn authorised(app: &App, query: &Query, headers: &HeaderMap) -> Result<Claims, Refusal> {
    let token = match headers.get(AUTHORIZATION) {
        Some(value) => {
            value.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).ok_or(Refusal::AuthorizationHeader)?
        }
        None => query.get("access_token"),
    };
    if token.is_empty() {
        return Err(Refusal::NoPermission);
    }
    let claims = app.keys.verify(token, unix_seconds())?;
    let grant = claims.video.as_ref().filter(|grant| grant.room_join).ok_or(Refusal::NoPermission)?;
    if claims.identity().is_empty() {
        return Err(Refusal::NoIdentity);
    }
    if grant.room.is_empty() {
        return Err(Refusal::NoRoom);
    }
    if claims.identity().len() > LONGEST_NAME || grant.room.len() > LONGEST_NAME {
        return Err(Refusal::NameTooLong);
    }
    Ok(claims)
}
