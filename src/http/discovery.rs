//! The two documents by which clients find us, to be proxied to or to be copied (MSC4143).
//!
//! Element Call asks the homeserver's `rtc/transports`; Element X and others read the well-known document. An entry has a
//! `url` only when the homeserver hands requests on to us: it tells new clients to ask there, and they ask nowhere else.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::App;
use crate::config::Config;

/// What `/.well-known/matrix/client` of the server name must contain, besides what stands there already.
pub fn well_known_document(config: &Config) -> Value {
    json!({"org.matrix.msc4143.rtc_foci": [transport(config)]})
}

fn transport(config: &Config) -> Value {
    let mut transport = json!({"type": "livekit", "livekit_service_url": config.service_url()});
    if config.appservice.proxied {
        transport["url"] = config.sfu_url().into();
    }
    transport
}

pub async fn well_known(State(app): State<Arc<App>>) -> Json<Value> {
    Json(well_known_document(&app.config))
}

/// `rtc_transports` is the key that is deployed, `transports` the one of the newest text.
pub async fn transports(State(app): State<Arc<App>>) -> Json<Value> {
    let transports = [transport(&app.config)];
    Json(json!({"rtc_transports": transports, "transports": transports}))
}
