//! Delayed events at their homeserver (MSC4140): restarts a delay, has an event sent, looks one up.
//!
//! Homeservers of today let whoever knows a delay id manage the event, and count requests without a token against our
//! address, a few per second; as an application service we are its owner (`?user_id=`) and not counted. That token goes to
//! the configured homeserver only, and so does every request for its users. Asked by `delayed_leaves`, and by
//! `http::homeserver_token` before it accepts a delegation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex as AsyncMutex;

use super::calls::server_of;
use super::delayed_leave::{Answer as Outcome, Request};
use super::guarded_client::{Answer, FetchError, GuardedClient};
use super::homeserver::{Homeserver, HomeserverError, Reply, segment};
use super::server_discovery::ServerDiscovery;
use crate::config::Config;

/// A homeserver restarts a delay within milliseconds; what takes longer is tried again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// For all ways to ask one thing.
const DEADLINE: Duration = Duration::from_secs(8);

/// When a homeserver says "too many requests" and not for how long.
const UNSAID_RETRY: Duration = Duration::from_secs(1);

/// A number that makes no sense must not silence us for ever.
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// How long it stands that the homeserver lets us manage delayed events: clients ask at each join…
const WORKS_LIFETIME: Duration = Duration::from_secs(300);
/// …and that it does not.
const FAILS_LIFETIME: Duration = Duration::from_secs(15);

/// No homeserver gives out such a delay id.
const NO_SUCH_DELAY: &str = "parlour-asks-whether-this-works";

pub struct DelayedEvents {
    config: Arc<Config>,
    homeserver: Arc<Homeserver>,
    /// For servers whose URL the operator has configured.
    client: reqwest::Client,
    discovery: ServerDiscovery,
    /// How each server wants to be asked, as found out.
    forms: Mutex<HashMap<String, Form>>,
    works: AsyncMutex<Option<(Instant, bool)>>,
    /// Whether the log says already that our token is refused.
    refusal_told: AtomicBool,
}

/// Where the action is, in the order of likelihood today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `POST …/unstable/…/{delay_id}/restart`
    Unstable,
    /// `POST …/unstable/…/{delay_id}` with `{"action": "restart"}`
    InBody,
    /// `POST …/v1/…/{delay_id}/restart`
    Stable,
}

const FORMS: [Form; 3] = [Form::Unstable, Form::InBody, Form::Stable];

const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";
const STABLE: &str = "/_matrix/client/v1/delayed_events";

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DelayedEventError {
    #[error("the homeserver knows no such delayed event")]
    Gone,
    #[error("the homeserver does not offer delayed events")]
    NotSupported,
    #[error("the homeserver does not let us manage the delayed event")]
    Refused,
    #[error("the homeserver is asked too often")]
    Limited(Duration),
    #[error("the homeserver's client-server API cannot be found")]
    Unresolved,
    #[error("the homeserver cannot be asked")]
    Unreachable,
}

impl From<Result<(), DelayedEventError>> for Outcome {
    fn from(result: Result<(), DelayedEventError>) -> Outcome {
        match result {
            Ok(()) => Outcome::Done,
            Err(DelayedEventError::Gone) => Outcome::Gone,
            Err(DelayedEventError::Refused) => Outcome::Refused,
            Err(DelayedEventError::Limited(wait)) => Outcome::Limited(wait),
            // A homeserver or its proxy that is being worked on may have no such path for a while.
            Err(DelayedEventError::NotSupported | DelayedEventError::Unresolved | DelayedEventError::Unreachable) => {
                Outcome::Failed
            }
        }
    }
}

/// A delayed event as its homeserver tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayedEvent {
    pub room_id: String,
    pub event_type: String,
    /// `None`: no state event.
    pub state_key: Option<String>,
    pub delay: Duration,
}

/// An answer of whichever server.
struct Said {
    status: StatusCode,
    errcode: String,
    limited: Duration,
    body: Vec<u8>,
}

impl DelayedEvents {
    /// The error is a sentence for the operator.
    pub fn new(config: Arc<Config>, homeserver: Arc<Homeserver>) -> Result<DelayedEvents, String> {
        let guarded = GuardedClient::configured(&config.federation)?;
        let client = guarded.unguarded().no_proxy().timeout(TIMEOUT).build().map_err(|e| e.to_string())?;
        Ok(DelayedEvents {
            discovery: ServerDiscovery::new(guarded),
            config,
            homeserver,
            client,
            forms: Mutex::default(),
            works: AsyncMutex::default(),
            refusal_told: AtomicBool::new(false),
        })
    }

    /// Has the delayed event of `user` restarted or sent.
    pub async fn manage(&self, request: Request, user: &str, delay_id: &str) -> Result<(), DelayedEventError> {
        let asking = self.in_any_form(request, server_of(user), Some(user), delay_id);
        tokio::time::timeout(DEADLINE, asking).await.unwrap_or(Err(DelayedEventError::Unreachable))
    }

    /// The delayed event of `user`, who is of the configured homeserver; only an application service is told.
    /// [`DelayedEventError::Gone`]: there is none, or it is not this user's.
    pub async fn get(&self, user: &str, delay_id: &str) -> Result<DelayedEvent, DelayedEventError> {
        #[derive(Deserialize)]
        struct Found {
            room_id: String,
            #[serde(rename = "type")]
            event_type: String,
            state_key: Option<String>,
            #[serde(alias = "delay")]
            delay_ms: u64,
        }
        if server_of(user) != self.config.server_name || !self.homeserver.is_appservice() {
            return Err(DelayedEventError::NotSupported);
        }
        let delay_id = segment(delay_id).ok_or(DelayedEventError::Gone)?;
        for base in [UNSTABLE, STABLE] {
            let reply = self.homeserver.request(Method::GET, &format!("{base}/{delay_id}"), Some(user), None).await;
            let said = Said::of_homeserver(reply?);
            match said.verdict() {
                Err(DelayedEventError::NotSupported) => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    let found: Found =
                        serde_json::from_slice(&said.body).map_err(|_| DelayedEventError::Unreachable)?;
                    let Found { room_id, event_type, state_key, delay_ms } = found;
                    return Ok(DelayedEvent { room_id, event_type, state_key, delay: Duration::from_millis(delay_ms) });
                }
            }
        }
        Err(DelayedEventError::NotSupported)
    }

    /// Whether the configured homeserver lets us manage delayed events, now: clients whose leave we take over do not keep
    /// it from being sent any more, or much less often.
    pub async fn work(&self) -> bool {
        // Whoever comes meanwhile waits for the same answer.
        let mut works = self.works.lock().await;
        match *works {
            Some((until, verdict)) if until > Instant::now() => return verdict,
            _ => {}
        }
        let asking = self.in_any_form(Request::Restart, &self.config.server_name, None, NO_SUCH_DELAY);
        let verdict = match tokio::time::timeout(DEADLINE, asking).await {
            Ok(Ok(()) | Err(DelayedEventError::Gone | DelayedEventError::Limited(_))) => true,
            Ok(Err(reason)) => {
                tracing::warn!(%reason, "cannot take over delayed leaves; clients are told to end their memberships themselves");
                false
            }
            Err(_) => false,
        };
        let lifetime = if verdict { WORKS_LIFETIME } else { FAILS_LIFETIME };
        *works = Some((Instant::now() + lifetime, verdict));
        verdict
    }

    async fn in_any_form(
        &self,
        request: Request,
        server: &str,
        user: Option<&str>,
        delay_id: &str,
    ) -> Result<(), DelayedEventError> {
        let delay_id = segment(delay_id).ok_or(DelayedEventError::Gone)?;
        let known = self.forms.lock().expect("no panic while held").get(server).copied();
        for form in known.into_iter().chain(FORMS.into_iter().filter(|form| Some(*form) != known)) {
            let (path, body) = form.request(request, &delay_id);
            let verdict = self.post(server, user, &path, &body).await;
            if verdict != Err(DelayedEventError::NotSupported) {
                if known != Some(form) && matches!(verdict, Ok(()) | Err(DelayedEventError::Gone)) {
                    // As many entries as `access.local_servers`.
                    self.forms.lock().expect("no panic while held").insert(server.to_owned(), form);
                }
                return verdict;
            }
        }
        Err(DelayedEventError::NotSupported)
    }

    async fn post(&self, server: &str, user: Option<&str>, path: &str, body: &Value) -> Result<(), DelayedEventError> {
        if server != self.config.server_name {
            let said = match self.config.federation.overrides.get(server) {
                Some(base) => self.post_configured(base.as_str(), path, body).await?,
                None => match self.discovery.client_post(server, path, body).await {
                    Err(FetchError::NotFound) => return Err(DelayedEventError::Unresolved),
                    answer => Said::of_server(answer?),
                },
            };
            return said.verdict();
        }
        if self.homeserver.is_appservice() {
            let reply = self.homeserver.request(Method::POST, path, user, Some(body)).await;
            let verdict = Said::of_homeserver(reply?).verdict();
            if verdict != Err(DelayedEventError::Refused) {
                return verdict;
            }
            // Our registration may be missing there, or the user outside of its namespace. Without a token it is as
            // without an application service.
            let verdict = self.post_configured(self.config.homeserver.as_str(), path, body).await?.verdict();
            if verdict.is_ok() && !self.refusal_told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "the homeserver refuses our token for a delayed event, but not a request without one, of which it allows only a few per second"
                );
            }
            return verdict;
        }
        self.post_configured(self.config.homeserver.as_str(), path, body).await?.verdict()
    }

    async fn post_configured(&self, base: &str, path: &str, body: &Value) -> Result<Said, DelayedEventError> {
        let url = format!("{}{path}", base.trim_end_matches('/'));
        let response = self.client.post(url).json(body).send().await.map_err(FetchError::from)?;
        Ok(Said::of_server(Answer::read(response).await?))
    }
}

impl Form {
    fn request(self, request: Request, delay_id: &str) -> (String, Value) {
        let action = request.as_str();
        match self {
            Form::Unstable => (format!("{UNSTABLE}/{delay_id}/{action}"), json!({})),
            Form::InBody => (format!("{UNSTABLE}/{delay_id}"), json!({"action": action})),
            Form::Stable => (format!("{STABLE}/{delay_id}/{action}"), json!({})),
        }
    }
}

impl Said {
    fn of_server(answer: Answer) -> Said {
        Said::new(answer.status, Some(&answer.headers), answer.body)
    }

    fn of_homeserver(reply: Reply) -> Said {
        let limited = match reply.error() {
            HomeserverError::Limited(wait) => wait,
            _ => UNSAID_RETRY,
        };
        Said { limited, ..Said::new(reply.status, None, reply.body) }
    }

    fn new(status: StatusCode, headers: Option<&HeaderMap>, body: Vec<u8>) -> Said {
        #[derive(Default, Deserialize)]
        struct Refusal {
            #[serde(default)]
            errcode: String,
            retry_after_ms: Option<u64>,
        }
        let Refusal { errcode, retry_after_ms } = serde_json::from_slice(&body).unwrap_or_default();
        let seconds = || headers?.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs);
        let limited =
            retry_after_ms.map(Duration::from_millis).or_else(seconds).unwrap_or(UNSAID_RETRY).min(LONGEST_RETRY);
        Said { status, errcode, limited, body }
    }

    fn verdict(&self) -> Result<(), DelayedEventError> {
        match self.status {
            status if status.is_success() => Ok(()),
            StatusCode::CONFLICT => Err(DelayedEventError::Gone),
            StatusCode::NOT_FOUND if self.errcode == "M_NOT_FOUND" => Err(DelayedEventError::Gone),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Err(DelayedEventError::NotSupported),
            StatusCode::BAD_REQUEST if self.errcode == "M_UNRECOGNIZED" => Err(DelayedEventError::NotSupported),
            StatusCode::TOO_MANY_REQUESTS => Err(DelayedEventError::Limited(self.limited)),
            StatusCode::REQUEST_TIMEOUT => Err(DelayedEventError::Unreachable),
            status if status.is_client_error() => Err(DelayedEventError::Refused),
            _ => Err(DelayedEventError::Unreachable),
        }
    }
}

impl From<FetchError> for DelayedEventError {
    fn from(_: FetchError) -> DelayedEventError {
        DelayedEventError::Unreachable
    }
}

impl From<HomeserverError> for DelayedEventError {
    fn from(_: HomeserverError) -> DelayedEventError {
        DelayedEventError::Unreachable
    }
}
