//! Delegated delayed leaves at the door of the token service (MSC4195): `POST /delegate_delayed_leave`, and the same within
//! a request for a token, which is what Element Call does.
//!
//! Clients find out whether we do this by asking without credentials, and any status but 404 means yes: they then have their
//! leave sent an hour late and restart it once in minutes. So it is 404 while the homeserver does not let us manage delayed
//! events.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

use super::App;
use super::client_address::ClientAddress;
use super::error::MatrixError;
use super::token::{GetToken, finish, missing, read, required};
use crate::matrix::calls::server_of;
use crate::matrix::delayed_events::DelayedEventError;
use crate::matrix::delayed_leaves::DelegateError;
use crate::matrix::delegations::{Delegation, TooMany};

/// The delay of a request, as it came.
#[derive(Deserialize)]
pub(super) struct DelayFields {
    delay_id: Option<String>,
    /// Milliseconds.
    delay_timeout: Option<i64>,
}

/// A delayed leave that a client wants to hand over.
pub(super) struct Delay {
    id: String,
    timeout: Duration,
}

impl DelayFields {
    /// `None`: the client delegates nothing.
    pub(super) fn wanted(self) -> Result<Option<Delay>, MatrixError> {
        let id = self.delay_id.filter(|id| !id.is_empty());
        let timeout = self.delay_timeout.filter(|timeout| *timeout != 0);
        match (id, timeout) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(missing("delay_timeout")),
            (None, Some(_)) => Err(missing("delay_id")),
            (id, Some(timeout)) => {
                let id = required(id, "delay_id")?;
                let timeout = u64::try_from(timeout).map_err(|_| {
                    MatrixError::bad_json("`delay_timeout` is negative; it is a number of milliseconds.")
                })?;
                Ok(Some(Delay { id, timeout: Duration::from_millis(timeout) }))
            }
        }
    }
}

impl Delay {
    /// Takes it over with the token that is asked for. With this very code, Element Call asks again without the delay: nobody
    /// stays without a token because of it.
    pub(super) async fn take_over_inline(
        self,
        app: &App,
        user: &str,
        room: &str,
        identity: &str,
    ) -> Result<(), MatrixError> {
        let refusal = match may_delegate(app, user) {
            Ok(()) => match self.take_over(app, user, room, identity).await {
                Ok(()) => return Ok(()),
                Err(DelegateError::ShuttingDown) => return Err(MatrixError::shutting_down()),
                Err(error) => MatrixError::from(error),
            },
            Err(refusal) => refusal,
        };
        Err(MatrixError::bad_json(format!(
            "{} Send the request without `delay_id` and `delay_timeout`, and restart the delay yourself.",
            refusal.error
        )))
    }

    async fn take_over(self, app: &App, user: &str, room: &str, identity: &str) -> Result<(), DelegateError> {
        let delegation = Delegation {
            room: room.to_owned(),
            identity: identity.to_owned(),
            user: user.to_owned(),
            delay_id: self.id,
            delay: self.timeout,
        };
        app.rooms.delayed_leaves.delegate(delegation).await
    }
}

/// Only for users of our own servers: we would ask any other homeserver a request every few seconds on its user's word.
fn may_delegate(app: &App, user: &str) -> Result<(), MatrixError> {
    if app.config.is_local(server_of(user)) {
        return Ok(());
    }
    Err(MatrixError::new(
        StatusCode::FORBIDDEN,
        "M_FORBIDDEN",
        "This server takes over delayed leaves only of users of its own homeserver.",
    ))
}

pub async fn delegate_delayed_leave(
    State(app): State<Arc<App>>,
    Extension(client): Extension<ClientAddress>,
    body: Body,
) -> Response {
    let outcome = async {
        if !app.rooms.delayed_leaves.events().work().await {
            return Err(MatrixError::new(
                StatusCode::NOT_FOUND,
                "M_UNRECOGNIZED",
                "This server cannot take over delayed leaves at the moment; restart them yourself.",
            ));
        }
        let request: GetToken = read(&app, client, body).await?;
        let (asked, token, delay) = request.complete()?;
        let delay = delay.ok_or_else(|| missing("delay_id"))?;
        let caller = asked.verified(&app, token).await?;
        may_delegate(&app, &caller.user_id)?;
        delay.take_over(&app, &caller.user_id, &asked.alias(), &asked.identity(&caller)).await?;
        Ok(Json(json!({})).into_response())
    };
    finish(&app, "delegate_delayed_leave", outcome.await)
}

impl From<DelegateError> for MatrixError {
    fn from(error: DelegateError) -> MatrixError {
        let (status, errcode) = match &error {
            DelegateError::TooShort | DelegateError::WrongRoom => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
            DelegateError::Homeserver(DelayedEventError::Gone) => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
            DelegateError::Homeserver(DelayedEventError::Unresolved) => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
            DelegateError::Homeserver(_) => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
            DelegateError::TooMany(TooMany::OfUser) => (StatusCode::FORBIDDEN, "M_USER_LIMIT_EXCEEDED"),
            DelegateError::TooMany(TooMany::OfAll) => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
            DelegateError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN"),
            DelegateError::ShuttingDown => return MatrixError::shutting_down(),
        };
        let retry_after = match error {
            DelegateError::Homeserver(DelayedEventError::Limited(wait)) => Some(wait),
            _ => None,
        };
        MatrixError {
            retry_after,
            ..MatrixError::new(status, errcode, format!("The delayed leave was not taken over: {error}."))
        }
    }
}
