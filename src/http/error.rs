//! Errors in the Matrix style: `{"errcode", "error"}`, where `error` says what is wrong and what to do.

use std::time::Duration;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::matrix::Denied;

#[derive(Debug)]
pub struct MatrixError {
    pub status: StatusCode,
    pub errcode: &'static str,
    pub error: String,
    pub retry_after: Option<Duration>,
}

impl MatrixError {
    pub fn new(status: StatusCode, errcode: &'static str, error: impl Into<String>) -> MatrixError {
        MatrixError { status, errcode, error: error.into(), retry_after: None }
    }

    pub fn bad_json(error: impl Into<String>) -> MatrixError {
        MatrixError::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", error)
    }

    /// The same words whatever the reason, so that nobody can probe our network or other servers with it.
    pub fn unauthorised() -> MatrixError {
        MatrixError::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", "The request could not be authorised.")
    }

    pub fn shutting_down() -> MatrixError {
        MatrixError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "M_UNKNOWN",
            "The server is shutting down; try again in a moment.",
        )
    }

    pub fn limited(retry_after: Duration) -> MatrixError {
        MatrixError {
            retry_after: Some(retry_after),
            ..MatrixError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "M_LIMIT_EXCEEDED",
                "Too many requests from your address; try again later.",
            )
        }
    }
}

impl From<Denied> for MatrixError {
    fn from(denied: Denied) -> MatrixError {
        let (status, errcode) = match denied {
            Denied::CannotCheck => (StatusCode::BAD_GATEWAY, "M_UNKNOWN"),
            Denied::TooManySessions | Denied::TooManyOfServer => (StatusCode::FORBIDDEN, "M_USER_LIMIT_EXCEEDED"),
            Denied::TooOften(_) | Denied::ServerTooOften(_) => (StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
            Denied::NotJoined
            | Denied::CannotSeeRoom
            | Denied::ServerNotInRoom
            | Denied::ServerNotAllowed
            | Denied::ServerDeniedByRoom
            | Denied::SlotClosed
            | Denied::RoomReplaced
            | Denied::Revoked => (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
        };
        let retry_after = match denied {
            Denied::TooOften(wait) | Denied::ServerTooOften(wait) => Some(wait),
            _ => None,
        };
        MatrixError { retry_after, ..MatrixError::new(status, errcode, denied.to_string()) }
    }
}

impl IntoResponse for MatrixError {
    fn into_response(self) -> Response {
        let mut body = json!({"errcode": self.errcode, "error": self.error});
        if let Some(after) = self.retry_after {
            body["retry_after_ms"] = json!(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        }
        let mut response = (self.status, Json(body)).into_response();
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up: coming back too early would be refused again.
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs() + 1));
        }
        response
    }
}
