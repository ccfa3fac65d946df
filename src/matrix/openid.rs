//! Who holds an OpenID token: asks the homeserver that issued it (Server-Server API, `/openid/userinfo`).
//!
//! A token lives for an hour and works towards everybody who accepts OpenID: it is neither logged nor kept, only its hash
//! is. Called by `http::token` for every request for an access token.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::StatusCode;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use url::Url;

use super::cache::Cache;
use super::guarded_client::{Answer, FetchError, GuardedClient};
use super::server_discovery::ServerDiscovery;
use crate::config::Config;

/// For everything a verification needs: discovery, redirects, the answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// A client asks twice in a row when it tries both dialects. No longer, as a user may be logged out meanwhile.
const VERIFIED_LIFETIME: Duration = Duration::from_secs(60);

/// Spares the homeserver a client that repeats a bad token in a loop.
const REFUSED_LIFETIME: Duration = Duration::from_secs(5);

/// A server that could not be asked is not asked again for this long, so that it cannot hold up requests for others.
const SERVER_FAILURE_LIFETIME: Duration = Duration::from_secs(30);

const MOST_CACHED: usize = 4096;

/// Verifications with other servers at a time, so that strangers cannot make us hold many connections…
const MOST_FOREIGN: usize = 32;
/// …nor use us against one server.
const MOST_PER_SERVER: usize = 4;

/// Synapse's tokens have 24 characters; others put a JWT there.
const LONGEST_TOKEN: usize = 4096;

pub struct OpenId {
    config: Arc<Config>,
    /// For servers whose URL the operator has configured.
    client: reqwest::Client,
    discovery: ServerDiscovery,
    foreign: Semaphore,
    per_server: Mutex<HashMap<String, usize>>,
    verdicts: Mutex<Cache<[u8; 32], Result<String, OpenIdError>>>,
    failures: Mutex<Cache<String, OpenIdError>>,
}

/// Why a caller is not believed. Callers all hear the same; this is for the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenIdError {
    #[error("its server does not know the token")]
    UnknownToken,
    #[error("the server is not allowed by federation.allow and federation.deny")]
    ServerDenied,
    #[error("the server has no userinfo; its listener needs the resource openid or federation")]
    NoUserinfo,
    #[error("the server could not be asked: {0}")]
    Fetch(#[from] FetchError),
    #[error("the server's answer makes no sense")]
    BadAnswer,
    #[error("the server vouched for a user of another server")]
    WrongServer,
    #[error("too many verifications are under way")]
    Busy,
}

impl OpenIdError {
    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            OpenIdError::UnknownToken => "unknown-token",
            OpenIdError::ServerDenied => "server-denied",
            OpenIdError::NoUserinfo => "no-userinfo",
            OpenIdError::Fetch(FetchError::AddressDenied | FetchError::PortDenied) => "address-denied",
            OpenIdError::Fetch(_) => "server-unreachable",
            OpenIdError::BadAnswer => "bad-answer",
            OpenIdError::WrongServer => "wrong-server",
            OpenIdError::Busy => "busy",
        }
    }

    fn is_servers_fault(self) -> bool {
        matches!(self, OpenIdError::NoUserinfo | OpenIdError::Fetch(_) | OpenIdError::BadAnswer)
    }
}

#[derive(Deserialize)]
struct Userinfo {
    sub: String,
}

impl OpenId {
    pub fn new(config: Arc<Config>) -> Result<OpenId, String> {
        let guarded = GuardedClient::configured(&config.federation)?;
        let client = guarded.unguarded().timeout(DEADLINE).build().map_err(|e| e.to_string())?;
        Ok(OpenId {
            client,
            discovery: ServerDiscovery::new(guarded),
            foreign: Semaphore::new(MOST_FOREIGN),
            per_server: Mutex::default(),
            verdicts: Mutex::new(Cache::new(MOST_CACHED)),
            failures: Mutex::new(Cache::new(MOST_CACHED)),
            config,
        })
    }

    /// The Matrix ID of the holder of `token`, which `server` is said to have issued. The ID is valid and its server part
    /// is `server`, byte for byte: otherwise any server could vouch for anybody.
    pub async fn user(&self, server: &str, token: &str) -> Result<String, OpenIdError> {
        if !self.config.is_allowed(server) {
            return Err(OpenIdError::ServerDenied);
        }
        if token.len() > LONGEST_TOKEN {
            return Err(OpenIdError::UnknownToken);
        }
        let key: [u8; 32] = Sha256::new().chain_update(server).chain_update([0]).chain_update(token).finalize().into();
        if let Some(verdict) = self.verdicts.lock().expect("no panic while held").get(&key, Instant::now()) {
            return verdict;
        }
        let verdict =
            tokio::time::timeout(DEADLINE, self.ask(server, token)).await.unwrap_or(Err(FetchError::Timeout.into()));
        let lifetime = match verdict {
            Ok(_) => VERIFIED_LIFETIME,
            Err(OpenIdError::UnknownToken | OpenIdError::WrongServer) => REFUSED_LIFETIME,
            // Nothing about this token is known.
            Err(_) => return verdict,
        };
        self.verdicts.lock().expect("no panic while held").insert(key, verdict.clone(), Instant::now(), lifetime);
        verdict
    }

    async fn ask(&self, server: &str, token: &str) -> Result<String, OpenIdError> {
        let path = format!(
            "/_matrix/federation/v1/openid/userinfo?access_token={}",
            utf8_percent_encode(token, NON_ALPHANUMERIC)
        );
        let answer = match self.configured_url(server) {
            Some(base) => self.ask_configured(base, &path).await?,
            None => self.ask_foreign(server, &path).await?,
        };
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(OpenIdError::UnknownToken),
            StatusCode::NOT_FOUND => return Err(OpenIdError::NoUserinfo),
            _ => return Err(OpenIdError::BadAnswer),
        }
        let Userinfo { sub } = serde_json::from_slice(&answer.body).map_err(|_| OpenIdError::BadAnswer)?;
        ruma_identifiers_validation::user_id::validate(&sub).map_err(|_| OpenIdError::BadAnswer)?;
        let (_, domain) = sub.split_once(':').ok_or(OpenIdError::BadAnswer)?;
        if domain == server { Ok(sub) } else { Err(OpenIdError::WrongServer) }
    }

    fn configured_url(&self, server: &str) -> Option<&Url> {
        let overrides: &BTreeMap<String, Url> = &self.config.federation.overrides;
        if server == self.config.server_name { Some(&self.config.homeserver) } else { overrides.get(server) }
    }

    async fn ask_configured(&self, base: &Url, path: &str) -> Result<Answer, OpenIdError> {
        let url = format!("{}{path}", base.as_str().trim_end_matches('/'));
        let response = self.client.get(url).send().await.map_err(FetchError::from)?;
        Ok(Answer::read(response).await?)
    }

    async fn ask_foreign(&self, server: &str, path: &str) -> Result<Answer, OpenIdError> {
        if let Some(failure) =
            self.failures.lock().expect("no panic while held").get(&server.to_owned(), Instant::now())
        {
            return Err(failure);
        }
        let _turn = Turn::take(&self.per_server, server).ok_or(OpenIdError::Busy)?;
        let _permit = self.foreign.try_acquire().map_err(|_| OpenIdError::Busy)?;
        let answer = match tokio::time::timeout(DEADLINE, self.discovery.get(server, path)).await {
            Ok(answer) => answer.map_err(OpenIdError::from),
            Err(_) => Err(FetchError::Timeout.into()),
        };
        if let Err(failure) = answer
            && failure.is_servers_fault()
        {
            self.failures.lock().expect("no panic while held").insert(
                server.to_owned(),
                failure,
                Instant::now(),
                SERVER_FAILURE_LIFETIME,
            );
        }
        answer
    }
}

/// One of the few verifications that may be under way with one server.
struct Turn<'a> {
    under_way: &'a Mutex<HashMap<String, usize>>,
    server: String,
}

impl Turn<'_> {
    fn take<'a>(under_way: &'a Mutex<HashMap<String, usize>>, server: &str) -> Option<Turn<'a>> {
        let mut counts = under_way.lock().expect("no panic while held");
        let count = counts.entry(server.to_owned()).or_default();
        if *count >= MOST_PER_SERVER {
            return None;
        }
        *count += 1;
        Some(Turn { under_way, server: server.to_owned() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut counts = self.under_way.lock().expect("no panic while held");
        if let Some(count) = counts.get_mut(&self.server) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.server);
            }
        }
    }
}
