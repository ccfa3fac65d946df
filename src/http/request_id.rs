//! A number for every request: in its log lines and in the answer, so that a user's report leads to the log.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::App;

pub const NAME: &str = "x-request-id";

/// The number as text, for handlers.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

pub async fn trace(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id: Arc<str> = format!("{:016x}", rand::random::<u64>()).into();
    // The path alone: queries carry tokens.
    let span = tracing::info_span!("request", id = %id);
    tracing::debug!(parent: &span, method = %request.method(), path = request.uri().path(), "request");
    request.extensions_mut().insert(RequestId(id.clone()));
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    tracing::debug!(parent: &span, status = response.status().as_u16(), ms = started.elapsed().as_millis(), "answer");
    let class = match response.status().as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    app.metrics.http_responses.with_label_values(&[class]).inc();
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(NAME, value);
    }
    response
}
