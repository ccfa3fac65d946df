//! Cross-origin access: web clients live on origins of their own and call every route here directly, without cookies.
//! Headers go on every answer, errors included, as a browser otherwise hides status and body from the client.

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::request_id;

const METHODS: HeaderValue = HeaderValue::from_static("OPTIONS, HEAD, GET, POST, PATCH, DELETE");

/// What Matrix clients may send; a preflight that asks for others gets those.
const HEADERS: HeaderValue =
    HeaderValue::from_static("Accept, Authorization, Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token");

/// Seconds: a day, the longest any browser keeps it.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

pub async fn allow_every_origin(request: Request, next: Next) -> Response {
    let asked = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response = if is_preflight { ().into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    set(headers, ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    set(headers, ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    set(headers, ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(HEADERS));
    set(headers, ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(request_id::NAME));
    if is_preflight {
        set(headers, ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        set(headers, ALLOW, METHODS);
    }
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    headers.insert(name, value);
}
