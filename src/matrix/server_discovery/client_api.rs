//! Where a Matrix server's client-server API is (Client-Server API, "Server discovery"): what
//! `/.well-known/matrix/client` of its name says, and nothing else.
//!
//! The delayed events of a user can be managed at its homeserver only, and homeservers of `access.local_servers` besides our
//! own are found this way. Whatever the document names is guarded as everything that strangers say.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{Answer, Endpoint, FetchError, ServerDiscovery, ServerName, https_endpoint};

/// Deployments move their API seldom, and keep the old place for a while.
const LIFETIME: Duration = Duration::from_secs(4 * 3600);

/// No such document, or no answer: somebody may be about to repair it.
const FAILURE_LIFETIME: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientApi {
    endpoint: Endpoint,
    /// What comes before `/_matrix`; without a slash at its end.
    prefix: String,
}

#[derive(Deserialize)]
struct WellKnown {
    #[serde(rename = "m.homeserver")]
    homeserver: Homeserver,
}

#[derive(Deserialize)]
struct Homeserver {
    base_url: String,
}

impl ServerDiscovery {
    /// POSTs to `path` of the client-server API of `server`. [`FetchError::NotFound`]: it does not say where that is.
    pub async fn client_post(&self, server: &str, path: &str, body: &Value) -> Result<Answer, FetchError> {
        let api = self.client_api(server).await.ok_or(FetchError::NotFound)?;
        self.client.request(Method::POST, &api.endpoint, &format!("{}{path}", api.prefix), Some(body)).await
    }

    async fn client_api(&self, server: &str) -> Option<ClientApi> {
        let cached = self.client_apis.lock().expect("no panic while held").get(&server.to_owned(), Instant::now());
        if let Some(api) = cached {
            return api;
        }
        let api = self.look_up(server).await;
        let lifetime = if api.is_some() { LIFETIME } else { FAILURE_LIFETIME };
        let mut apis = self.client_apis.lock().expect("no panic while held");
        apis.insert(server.to_owned(), api.clone(), Instant::now(), lifetime);
        api
    }

    async fn look_up(&self, server: &str) -> Option<ClientApi> {
        // The port of a server name is the federation API's.
        let name = ServerName::parse(server)?.without_port();
        let answer = self.well_known(&name, "/.well-known/matrix/client").await.ok()?;
        if answer.status != StatusCode::OK {
            return None;
        }
        let WellKnown { homeserver: Homeserver { base_url } } = serde_json::from_slice(&answer.body).ok()?;
        let base = Url::parse(&base_url).ok()?;
        let (endpoint, _) = https_endpoint(&base)?;
        Some(ClientApi { endpoint, prefix: base.path().trim_end_matches('/').to_owned() })
    }
}
