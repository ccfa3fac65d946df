//! Everything that speaks HTTP: the token service, discovery documents, the signalling WebSocket, health and metrics.
//!
//! [`serve`] and [`serve_tls`] accept connections and hand requests to the router below; TURN that comes to the second goes
//! to `net`. Each route also exists under the prefixes that
//! deployments use (`/livekit/jwt`, `/livekit/sfu`, the path of `public_url`); see [`prefix`].

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tokio_util::task::TaskTracker;
use tower_http::services::ServeDir;

use crate::config::Config;
use crate::livekit::access_token::Keys;
use crate::matrix::admission::unix_seconds;
use crate::matrix::{MatrixRooms, OpenId};
use crate::metrics::Metrics;
use crate::net::Node;
use crate::rate_limit::RateLimit;

mod appservice;
pub mod calls;
mod certificates;
mod client_address;
mod cors;
mod delegation;
mod discovery;
mod error;
mod health;
mod homeserver_token;
mod join_request;
mod moderate;
mod prefix;
mod proxy_protocol;
mod request_id;
mod server;
mod signal;
mod socket;
mod tls;
mod token;
mod turn;

pub use appservice::AppService;
pub use discovery::well_known_document;
pub use server::{serve, serve_homeserver, serve_tls};
pub use tls::Tls;

/// What every request may need.
pub struct App {
    pub config: Arc<Config>,
    pub keys: Keys,
    pub node: Node,
    pub openid: OpenId,
    pub rooms: MatrixRooms,
    pub appservice: Option<AppService>,
    pub metrics: Arc<Metrics>,
    joins: RateLimit<IpAddr>,
    tokens: RateLimit<IpAddr>,
    /// Set when the process is about to end: nobody is let in any more.
    draining: AtomicBool,
    /// HTTP connections and the WebSockets that came from them.
    connections: TaskTracker,
}

impl App {
    /// The error is a sentence for the operator.
    pub fn new(
        config: Arc<Config>,
        keys: Keys,
        node: Node,
        rooms: MatrixRooms,
        appservice: Option<AppService>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<App>, String> {
        Ok(Arc::new(App {
            openid: OpenId::new(config.clone())?,
            joins: RateLimit::per_minute(config.limits.joins_per_minute),
            tokens: RateLimit::per_minute(config.limits.tokens_per_minute),
            draining: AtomicBool::new(false),
            connections: TaskTracker::new(),
            config,
            keys,
            node,
            rooms,
            appservice,
            metrics,
        }))
    }

    /// From now on new callers are sent away; those in a call are the worker's.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

fn router(app: Arc<App>) -> Router {
    let web_root = app.config.http.web_root.clone();
    let open = Router::new()
        .route("/", get(health::root))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/sfu/get", post(token::sfu_get).fallback(token::method_not_allowed))
        .route("/get_token", post(token::get_token).fallback(token::method_not_allowed))
        .route("/moderate", post(moderate::moderate).fallback(token::method_not_allowed))
        .route("/turn", get(turn::turn).post(turn::turn).fallback(turn::method_not_allowed))
        .route("/delegate_delayed_leave", post(delegation::delegate_delayed_leave).fallback(token::method_not_allowed))
        .route("/.well-known/matrix/client", get(discovery::well_known))
        .route("/_matrix/client/unstable/org.matrix.msc4143/rtc/transports", get(discovery::transports))
        .route("/_matrix/client/v1/rtc/transports", get(discovery::transports))
        .route("/rtc", get(signal::connect::<false>))
        .route("/rtc/validate", get(signal::validate::<false>))
        .route("/rtc/v1", get(signal::connect::<true>))
        .route("/rtc/v1/validate", get(signal::validate::<true>));
    let open = match web_root {
        Some(folder) => open.fallback_service(ServeDir::new(folder)),
        None => open.fallback(not_found),
    };
    // What is the operator's stays outside of CORS: no web page has any business with it.
    let all = open
        .layer(middleware::from_fn(cors::allow_every_origin))
        .route("/api/calls", get(calls::list).fallback(calls::method_not_allowed))
        .route("/api/calls/{*room}", delete(calls::end).fallback(calls::method_not_allowed))
        .route("/metrics", get(health::metrics));
    // A listener of its own keeps what is the homeserver's alone out of the world's reach.
    let is_shared = app.appservice.is_some() && app.config.appservice.listen.is_none();
    let all = if is_shared { all.merge(appservice::routes(&app)) } else { all };
    all.layer(middleware::from_fn_with_state(app.clone(), request_id::trace)).with_state(app)
}

/// For the listener that only the homeserver reaches.
fn homeserver_router(app: Arc<App>) -> Router {
    appservice::router(&app).layer(middleware::from_fn_with_state(app.clone(), request_id::trace)).with_state(app)
}

/// LiveKit's words; a client that meets them on `/rtc/v1` tries the older dialect.
async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found").into_response()
}
