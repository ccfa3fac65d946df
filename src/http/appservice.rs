//! What the homeserver asks of its application service (Application Service API, `/_matrix/app/v1`): to take in what happens
//! in rooms, and whether our own user exists.
//!
//! Whoever has the hs_token can claim to be any user here (`homeserver_token`) and that anybody was banned: every request is
//! checked for it before anything else of it is looked at, and `appservice.listen` gives these routes a listener that the
//! world does not reach.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::MatrixError;
use super::{App, cors, homeserver_token, token};
use crate::config::{AppServiceTokens, Config, Secret};
use crate::matrix::Transactions;
use crate::matrix::transactions::NotAccepted;

/// Synapse sends up to 100 events in one transaction, and an event has at most 64 KiB.
const LARGEST_TRANSACTION: usize = 8 * 1024 * 1024;

/// The homeserver is near, and it sends what it has ready.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(20);

/// Transaction ids are numbers or short random texts.
const LONGEST_TXN_ID: usize = 255;

/// Parlour as an application service: by what it knows its homeserver, and what it does with what that tells.
pub struct AppService {
    hs_token: Secret,
    /// Matrix id of our own user.
    sender: String,
    transactions: Transactions,
}

impl AppService {
    pub fn new(config: &Config, tokens: &AppServiceTokens, transactions: Transactions) -> AppService {
        let sender = format!("@{}:{}", config.appservice.sender_localpart, config.server_name);
        AppService { hs_token: tokens.hs_token.clone(), sender, transactions }
    }
}

/// A transaction as far as it is read: what is no event, or none of ours, is passed over later.
#[derive(Deserialize)]
struct Transaction {
    #[serde(default)]
    events: Vec<Value>,
}

/// Everything that is for the homeserver alone.
pub fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    let mut routes = homeserver_token::federation_routes();
    // The paths of before 2018, which homeservers try when the others fail.
    for prefix in ["/_matrix/app/v1", ""] {
        routes = routes
            .route(&format!("{prefix}/transactions/{{txn_id}}"), put(transaction).fallback(unrecognized_method))
            .route(&format!("{prefix}/users/{{user_id}}"), get(user).fallback(unrecognized_method))
            .route(&format!("{prefix}/rooms/{{alias}}"), get(alias).fallback(unrecognized_method));
    }
    let only_the_homeserver = from_fn_with_state(app.clone(), only_the_homeserver);
    let client = homeserver_token::client_routes().route_layer(only_the_homeserver.clone());
    routes
        .route("/_matrix/app/v1/ping", post(ping).fallback(unrecognized_method))
        .route("/_matrix/app/{*rest}", any(unrecognized))
        .route_layer(only_the_homeserver)
        // A homeserver may pass our headers on as they are, and refusals too must be readable in browsers.
        .merge(client.route_layer(from_fn(cors::allow_every_origin)))
}

/// The same for a listener that serves nothing else.
pub fn router(app: &Arc<App>) -> Router<Arc<App>> {
    routes(app).fallback(unrecognized)
}

async fn only_the_homeserver(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match authenticate(&app, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            tracing::info!("{}", refused.for_the_log());
            refused.answer(request.uri().path()).into_response()
        }
    }
}

enum Refused {
    NoToken,
    WrongToken,
}

impl Refused {
    fn for_the_log(&self) -> &'static str {
        match self {
            Refused::NoToken => "refused a request without hs_token on a route of the homeserver",
            Refused::WrongToken => {
                "refused a request with a wrong hs_token; if the homeserver sent it, then its registration file is not the one that `parlour registration` prints"
            }
        }
    }

    fn answer(&self, path: &str) -> MatrixError {
        let (errcode, error) = match self {
            Refused::NoToken => ("M_MISSING_TOKEN", "This is for the homeserver, with its hs_token."),
            // Homeservers pass this on to the client as it is, and one that reads M_UNKNOWN_TOKEN there logs its user out.
            Refused::WrongToken if path.starts_with("/_matrix/client/") => (
                "M_UNAUTHORIZED",
                "The call server does not know this homeserver: its operator needs to give both the same registration.",
            ),
            Refused::WrongToken => ("M_UNKNOWN_TOKEN", "This is not the hs_token of the registration."),
        };
        MatrixError::new(StatusCode::UNAUTHORIZED, errcode, error)
    }
}

fn authenticate(app: &App, headers: &HeaderMap) -> Result<(), Refused> {
    let value = headers.get(AUTHORIZATION).ok_or(Refused::NoToken)?;
    let token = value.as_bytes().strip_prefix(b"Bearer ").ok_or(Refused::NoToken)?;
    let appservice = app.appservice.as_ref().ok_or(Refused::WrongToken)?;
    verify_slices_are_equal(token, appservice.hs_token.expose().as_bytes()).map_err(|_| Refused::WrongToken)
}

/// `PUT /_matrix/app/v1/transactions/{txnId}`: `{}` once its events are on disk.
async fn transaction(State(app): State<Arc<App>>, Path(txn_id): Path<String>, body: Body) -> Response {
    take_in(&app, txn_id, body).await.map_or_else(IntoResponse::into_response, |()| Json(json!({})).into_response())
}

async fn take_in(app: &App, txn_id: String, body: Body) -> Result<(), MatrixError> {
    if txn_id.len() > LONGEST_TXN_ID {
        return Err(MatrixError::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", "The transaction id is too long."));
    }
    let Transaction { events } = token::read_json_within(body, LARGEST_TRANSACTION, TRANSACTION_TIMEOUT).await?;
    let appservice = app.appservice.as_ref().ok_or_else(not_recognized)?;
    let count = events.len();
    appservice.transactions.accept(txn_id, events).await.map_err(|refused| {
        tracing::warn!(reason = %refused, "a transaction of the homeserver is not acknowledged; it will come again");
        let status = match refused {
            NotAccepted::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            NotAccepted::Busy | NotAccepted::Ended => StatusCode::SERVICE_UNAVAILABLE,
        };
        MatrixError::new(status, "M_UNKNOWN", "The transaction could not be taken in; send it again.")
    })?;
    tracing::debug!(events = count, "transaction");
    Ok(())
}

/// `POST /_matrix/app/v1/ping`: the homeserver makes sure that it reaches us.
async fn ping() -> Response {
    Json(json!({})).into_response()
}

/// `GET /_matrix/app/v1/users/{userId}`: we have one user; the homeserver asks about everybody it has not heard of.
async fn user(State(app): State<Arc<App>>, Path(user_id): Path<String>) -> Response {
    match &app.appservice {
        Some(appservice) if appservice.sender == user_id => Json(json!({})).into_response(),
        _ => not_found("There is no such user.").into_response(),
    }
}

/// `GET /_matrix/app/v1/rooms/{roomAlias}`: we have none.
async fn alias() -> MatrixError {
    not_found("There is no such room.")
}

pub(super) async fn unrecognized() -> MatrixError {
    not_recognized()
}

pub(super) async fn unrecognized_method() -> MatrixError {
    MatrixError::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "This route takes another method.")
}

fn not_recognized() -> MatrixError {
    MatrixError::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "There is no such route.")
}

fn not_found(error: &str) -> MatrixError {
    MatrixError::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", error)
}
