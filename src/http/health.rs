//! For operators and load balancers: `/`, `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tower_http::services::ServeFile;

use super::App;
use super::client_address::ClientAddress;

/// The worker turns a request around in well under a millisecond; one that takes this long does not forward media either.
const WORKER_DEADLINE: Duration = Duration::from_secs(1);

/// `OK`, by which LiveKit clients see that they are online; for a browser the web demo, when there is one.
pub async fn root(State(app): State<Arc<App>>, headers: HeaderMap, request: Request) -> Response {
    let wants_page =
        headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/html"));
    match &app.config.http.web_root {
        Some(folder) if wants_page && request.method() == Method::GET => {
            match ServeFile::new(folder.join("index.html")).try_call(request).await {
                Ok(response) => response.into_response(),
                Err(_) => "OK".into_response(),
            }
        }
        _ => "OK".into_response(),
    }
}

/// The process is alive.
pub async fn healthz() -> &'static str {
    "OK"
}

/// New callers are welcome: the worker answers and we are not about to stop.
pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    if app.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down").into_response();
    }
    match tokio::time::timeout(WORKER_DEADLINE, app.node.room(String::new())).await {
        Ok(Ok(_)) => "OK".into_response(),
        Ok(Err(_)) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the media worker does not answer").into_response(),
    }
}

pub async fn metrics(State(app): State<Arc<App>>, Extension(client): Extension<ClientAddress>) -> Response {
    if !app.config.http.metrics_from.iter().any(|net| net.contains(&client.0)) {
        return (StatusCode::FORBIDDEN, "your address is not in http.metrics_from").into_response();
    }
    ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], app.metrics.render()).into_response()
}
