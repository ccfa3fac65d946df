//! Where a Matrix server's federation API is (Server-Server API, "Resolving server names"), and its client-server API
//! ([`client_api`]).
//!
//! An address or a port in the name is final. Else `/.well-known/matrix/server` may delegate to another name, then SRV
//! records may tell host and port, and port 8448 of the name is what remains. Asked by `openid` and `delayed_events`.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::{CACHE_CONTROL, LOCATION};
use serde::Deserialize;
use url::Url;

use super::cache::Cache;
use super::guarded_client::{Answer, Endpoint, FetchError, GuardedClient};
use super::server_name::{Host, ServerName};
use client_api::ClientApi;

mod client_api;

const FEDERATION_PORT: u16 = 8448;
const HTTPS_PORT: u16 = 443;

/// How often a well-known document may be somewhere else.
const MOST_REDIRECTS: usize = 3;

/// Lifetimes of a delegation, as the specification recommends them.
const DELEGATION_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const LONGEST_DELEGATION_LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// Against a server that says `max-age=0` and is asked about all the time.
const SHORTEST_DELEGATION_LIFETIME: Duration = Duration::from_secs(60);
/// The server answered, and has no such document.
const NO_DELEGATION_LIFETIME: Duration = Duration::from_secs(3600);
/// The server did not answer, which may be over soon.
const FAILURE_LIFETIME: Duration = Duration::from_secs(60);

/// More servers than any room's participants come from.
const MOST_CACHED: usize = 4096;

/// SRV targets tried.
const MOST_TARGETS: usize = 3;

pub struct ServerDiscovery {
    client: GuardedClient,
    /// Of well-known documents; another one only in tests, which may not listen on 443.
    https_port: u16,
    /// Of servers that say nothing else; likewise.
    federation_port: u16,
    /// Server name → the name it delegates to, if it does.
    delegations: Mutex<Cache<String, Option<ServerName>>>,
    /// Server name → its client-server API, if it says where that is.
    client_apis: Mutex<Cache<String, Option<ClientApi>>>,
}

#[derive(Deserialize)]
struct WellKnown {
    #[serde(rename = "m.server")]
    server: String,
}

impl ServerDiscovery {
    pub fn new(client: GuardedClient) -> ServerDiscovery {
        let delegations = Mutex::new(Cache::new(MOST_CACHED));
        let client_apis = Mutex::new(Cache::new(MOST_CACHED));
        ServerDiscovery { client, https_port: HTTPS_PORT, federation_port: FEDERATION_PORT, delegations, client_apis }
    }

    /// GETs `path` of the federation API of `server`.
    pub async fn get(&self, server: &str, path: &str) -> Result<Answer, FetchError> {
        let server = ServerName::parse(server).ok_or(FetchError::NotFound)?;
        let mut last = FetchError::NotFound;
        for endpoint in self.endpoints(&server).await {
            match self.client.get(&endpoint, path).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Where to try, best first.
    async fn endpoints(&self, server: &ServerName) -> Vec<Endpoint> {
        if let Some(endpoint) = self.explicit(server) {
            return vec![endpoint];
        }
        let delegated = self.delegation(server).await;
        let server = delegated.as_ref().unwrap_or(server);
        if let Some(endpoint) = self.explicit(server) {
            return vec![endpoint];
        }
        let Host::Name(name) = &server.host else { unreachable!("an address is explicit") };
        // The second is deprecated and still in use.
        for service in ["_matrix-fed._tcp", "_matrix._tcp"] {
            let targets = self.client.srv(&format!("{service}.{name}")).await;
            if !targets.is_empty() {
                return targets
                    .into_iter()
                    .take(MOST_TARGETS)
                    .map(|(target, port)| endpoint(server, port, Some(target)))
                    .collect();
            }
        }
        vec![endpoint(server, self.federation_port, None)]
    }

    /// The endpoint of a name that leaves nothing to be found out.
    fn explicit(&self, server: &ServerName) -> Option<Endpoint> {
        match (&server.host, server.port) {
            (Host::Address(_), port) => Some(endpoint(server, port.unwrap_or(self.federation_port), None)),
            (Host::Name(_), Some(port)) => Some(endpoint(server, port, None)),
            (Host::Name(_), None) => None,
        }
    }

    async fn delegation(&self, server: &ServerName) -> Option<ServerName> {
        let cached = self.delegations.lock().expect("no panic while held").get(&server.text, Instant::now());
        if let Some(delegation) = cached {
            return delegation;
        }
        let (delegation, lifetime) = match self.well_known(server, "/.well-known/matrix/server").await {
            Ok(answer) if answer.status == StatusCode::OK => match serde_json::from_slice::<WellKnown>(&answer.body) {
                Ok(document) => match ServerName::parse(&document.server) {
                    Some(delegated) => (Some(delegated), lifetime(&answer)),
                    None => (None, NO_DELEGATION_LIFETIME),
                },
                Err(_) => (None, NO_DELEGATION_LIFETIME),
            },
            Ok(_) => (None, NO_DELEGATION_LIFETIME),
            Err(_) => (None, FAILURE_LIFETIME),
        };
        let mut delegations = self.delegations.lock().expect("no panic while held");
        delegations.insert(server.text.clone(), delegation.clone(), Instant::now(), lifetime);
        delegation
    }

    /// Follows redirects; every hop is HTTPS and its address is checked anew.
    async fn well_known(&self, server: &ServerName, path: &str) -> Result<Answer, FetchError> {
        let mut endpoint = endpoint(server, self.https_port, None);
        let mut path = path.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.client.get(&endpoint, &path).await?;
            if !answer.status.is_redirection() {
                return Ok(answer);
            }
            let location = answer.headers.get(LOCATION).and_then(|l| l.to_str().ok()).ok_or(FetchError::NotFound)?;
            (endpoint, path) = follow(&endpoint, &path, location).ok_or(FetchError::NotFound)?;
        }
        Err(FetchError::NotFound)
    }
}

/// Host header and certificate are always the (delegated) server's, whatever an SRV record points to.
fn endpoint(server: &ServerName, port: u16, target: Option<String>) -> Endpoint {
    Endpoint { host: server.host.clone(), port, host_header: server.text.clone(), target }
}

fn follow(from: &Endpoint, path: &str, location: &str) -> Option<(Endpoint, String)> {
    let base = match &from.host {
        Host::Address(address) => format!("https://{}", std::net::SocketAddr::new(*address, from.port)),
        Host::Name(name) => format!("https://{name}:{}", from.port),
    };
    https_endpoint(&Url::parse(&format!("{base}{path}")).ok()?.join(location).ok()?)
}

/// Where an HTTPS URL leads, and its path with the query.
fn https_endpoint(url: &Url) -> Option<(Endpoint, String)> {
    if url.scheme() != "https" {
        return None;
    }
    let host = match url.host()? {
        url::Host::Domain(name) => Host::Name(name.to_owned()),
        url::Host::Ipv4(address) => Host::Address(address.into()),
        url::Host::Ipv6(address) => Host::Address(address.into()),
    };
    let host_header = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str()?),
        None => url.host_str()?.to_owned(),
    };
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    Some((Endpoint { host, port: url.port_or_known_default()?, host_header, target: None }, path))
}

fn lifetime(answer: &Answer) -> Duration {
    let control = answer.headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let max_age = control.split(',').find_map(|directive| {
        let (name, seconds) = directive.trim().split_once('=')?;
        if name.eq_ignore_ascii_case("max-age") { seconds.trim_matches('"').parse().ok() } else { None }
    });
    max_age
        .map_or(DELEGATION_LIFETIME, Duration::from_secs)
        .clamp(SHORTEST_DELEGATION_LIFETIME, LONGEST_DELEGATION_LIFETIME)
}

#[cfg(test)]
mod tests;
