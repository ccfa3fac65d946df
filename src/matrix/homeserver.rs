//! What we ask of our own homeserver, as its application service or as a bot that is logged in there: who is in a room, what
//! the room's state is, and to send something in the name of one of its users.
//!
//! Both tokens go to `homeserver` of the configuration and nowhere else, and never into an error. Used by `membership`, by
//! those who watch rooms and by `http::homeserver_token`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use super::guarded_client;
use crate::config::{AppServiceTokens, Config, Secret};

/// The homeserver is near; beyond this it is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Somebody waits to get into a call meanwhile.
const TIMEOUT: Duration = Duration::from_secs(5);

/// For what takes a homeserver longer: lists of large rooms, and events, which it sends on.
const LONG_TIMEOUT: Duration = Duration::from_secs(10);

/// Another homeserver is asked on the way. Ours gives us 30 s for the request that this one serves (MSC4512).
const FED_PROXY_TIMEOUT: Duration = Duration::from_secs(20);

/// Error bodies, single events, answers of other token services.
const LARGEST_ANSWER: usize = 256 * 1024;

/// A member takes about 150 bytes, a state event a kilobyte: enough for a room of 100,000.
const LARGEST_LIST: usize = 32 * 1024 * 1024;

/// Large answers that may be held at a time.
const MOST_LISTS: usize = 4;

/// When a homeserver says "too many requests" and not for how long.
const UNSAID_RETRY: Duration = Duration::from_secs(1);

/// A number that makes no sense must not silence us for ever.
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// What a path segment shows as it is (RFC 3986 §2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Clients recognise by this path, asked without credentials, whether the homeserver hands requests on to us.
const PROBE: &str = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave";

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

pub struct Homeserver {
    base: String,
    client: reqwest::Client,
    /// `Authorization` of the application service.
    service: Option<HeaderValue>,
    /// `Authorization` of the bot.
    bot: Option<HeaderValue>,
    lists: Semaphore,
}

/// Why there is no answer. In the sentences "it" is the homeserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HomeserverError {
    #[error("it does not offer this, or nobody here may ask it")]
    NotSupported,
    #[error("it says that the room, the user or the server has no valid name")]
    Invalid,
    #[error(
        "it does not know our token; Synapse's app_service_config_files must name the registration that `parlour registration` prints"
    )]
    UnknownToken,
    #[error("it forbids this")]
    Forbidden,
    #[error("it is asked too often; again in {} s", .0.as_secs().max(1))]
    Limited(Duration),
    #[error("it cannot be reached, or has trouble itself")]
    Unreachable,
    #[error("its answer makes no sense or is too large")]
    BadAnswer,
    #[error("it may not talk to the other server")]
    DestinationDenied,
    #[error("it cannot reach the other server")]
    DestinationUnreachable,
}

/// As whom a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As<'a> {
    Nobody,
    Service,
    /// A user of our server, by the application service.
    User(&'a str),
    Bot,
}

/// What is asked, and what the answer may cost.
struct Question<'a> {
    method: Method,
    path: &'a str,
    query: &'a [(&'a str, &'a str)],
    body: Option<&'a Value>,
    timeout: Duration,
    /// Bytes.
    largest: usize,
}

impl<'a> Question<'a> {
    fn small(method: Method, path: &'a str, body: Option<&'a Value>) -> Question<'a> {
        Question { method, path, query: &[], body, timeout: TIMEOUT, largest: LARGEST_ANSWER }
    }

    fn list(path: &'a str) -> Question<'a> {
        Question { timeout: LONG_TIMEOUT, largest: LARGEST_LIST, ..Question::small(Method::GET, path, None) }
    }
}

/// One answer of the homeserver, whatever its status.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub body: Vec<u8>,
    retry_after: Option<Duration>,
}

/// The form of every refusal (Client-Server API, "Standard error response").
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    errcode: String,
    retry_after_ms: Option<u64>,
}

impl Homeserver {
    /// `tokens`: those of the application service when it is enabled. The error is a sentence for the operator.
    pub fn new(config: &Config, tokens: Option<&AppServiceTokens>) -> Result<Homeserver, String> {
        let tls = guarded_client::tls(config.federation.extra_ca_file.as_deref())?;
        let client = guarded_client::unguarded(tls)
            // A token is nobody's but the homeserver's, whatever HTTP_PROXY says.
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Homeserver {
            base: config.homeserver.as_str().trim_end_matches('/').to_owned(),
            client,
            service: tokens.map(|tokens| authorization(&tokens.as_token)).transpose()?,
            bot: config.access.bot_access_token.as_ref().map(authorization).transpose()?,
            lists: Semaphore::new(MOST_LISTS),
        })
    }

    pub fn is_appservice(&self) -> bool {
        self.service.is_some()
    }

    /// Whether `user`, of any server, is joined to `room`; `false` too for rooms the homeserver does not know (MSC4502).
    /// Behind joins over federation by a moment.
    pub async fn is_joined_user(&self, room: &str, user: &str) -> Result<bool, HomeserverError> {
        self.is_joined(room, ("mxid", user)).await
    }

    /// Whether any user of `server` is joined to `room` (MSC4502).
    pub async fn is_joined_server(&self, room: &str, server: &str) -> Result<bool, HomeserverError> {
        self.is_joined(room, ("server_name", server)).await
    }

    async fn is_joined(&self, room: &str, whom: (&str, &str)) -> Result<bool, HomeserverError> {
        #[derive(Deserialize)]
        struct IsJoined {
            joined: bool,
        }
        let path = path(&["unstable/io.element.msc4502/rooms"], &[room, "is_joined"])?;
        let question = Question { query: &[whom], ..Question::small(Method::GET, &path, None) };
        let reply = self.send(As::Service, &question).await?;
        Ok(reply.success::<IsJoined>()?.joined)
    }

    /// Everybody who is joined to `room`, as `as_user`, a user of our server who is in it, or as ourselves: the application
    /// service's own user, or the bot where that one may not.
    ///
    /// Synapse answers an application service about each room that any user of its namespace is in, whoever asks.
    pub async fn joined_members(&self, room: &str, as_user: Option<&str>) -> Result<HashSet<String>, HomeserverError> {
        #[derive(Deserialize)]
        struct JoinedMembers {
            joined: HashMap<String, IgnoredAny>,
        }
        let path = path(&["v3/rooms"], &[room, "joined_members"])?;
        let _permit = self.list_permit().await?;
        let reply = self.as_user_or_ourselves(as_user, &Question::list(&path)).await?;
        Ok(reply.success::<JoinedMembers>()?.joined.into_keys().collect())
    }

    /// The content of one event of the room's state; `None`: there is none.
    ///
    /// To a user who has left the room a homeserver answers as of that moment.
    pub async fn state_event(
        &self,
        room: &str,
        event_type: &str,
        state_key: &str,
        as_user: Option<&str>,
    ) -> Result<Option<Value>, HomeserverError> {
        let path = state_path(room, event_type, state_key)?;
        let reply = self.as_user_or_ourselves(as_user, &Question::small(Method::GET, &path, None)).await?;
        if reply.status == StatusCode::NOT_FOUND && reply.refusal().errcode == "M_NOT_FOUND" {
            return Ok(None);
        }
        reply.success().map(Some)
    }

    /// The events of the room's state, whole, of which `wanted` approves by type.
    pub async fn state(
        &self,
        room: &str,
        wanted: impl Fn(&str) -> bool,
        as_user: Option<&str>,
    ) -> Result<Vec<Value>, HomeserverError> {
        let path = path(&["v3/rooms"], &[room, "state"])?;
        let _permit = self.list_permit().await?;
        let reply = self.as_user_or_ourselves(as_user, &Question::list(&path)).await?;
        let mut events: Vec<Value> = reply.success()?;
        events.retain(|event| event["type"].as_str().is_some_and(&wanted));
        Ok(events)
    }

    /// Replaces an event of the room's state; answers with the ID of the new one.
    pub async fn put_state(
        &self,
        room: &str,
        event_type: &str,
        state_key: &str,
        content: &Value,
        as_user: Option<&str>,
    ) -> Result<String, HomeserverError> {
        #[derive(Deserialize)]
        struct Sent {
            event_id: String,
        }
        let path = state_path(room, event_type, state_key)?;
        let question = Question { timeout: LONG_TIMEOUT, ..Question::small(Method::PUT, &path, Some(content)) };
        let reply = self.as_user_or_ourselves(as_user, &question).await?;
        Ok(reply.success::<Sent>()?.event_id)
    }

    /// POSTs `body` to `path` of another server, signed by our homeserver (MSC4512). `path` must be one of
    /// `/_matrix/federation/*/rtc/livekit/*`. Answers with what that server said, whatever its status; `null`: no JSON.
    pub async fn fed_proxy(
        &self,
        destination: &str,
        path: &str,
        body: &Value,
    ) -> Result<(u16, Value), HomeserverError> {
        #[derive(Deserialize)]
        struct Relayed {
            status: u16,
            content: Value,
        }
        let request = json!({"destination": destination, "method": "POST", "path": path, "body": body});
        let endpoint = "/_matrix/client/unstable/io.element.msc4512/appservice/fed_proxy";
        let question =
            Question { timeout: FED_PROXY_TIMEOUT, ..Question::small(Method::POST, endpoint, Some(&request)) };
        let reply = self.send(As::Service, &question).await?;
        if !reply.status.is_success() {
            let refusal = reply.refusal();
            return Err(match refusal.errcode.strip_prefix("IO.ELEMENT.MSC4512.M_FEDPROXY_") {
                Some("DESTINATION_DENIED") => HomeserverError::DestinationDenied,
                Some("CONNECTION_FAILED") => HomeserverError::DestinationUnreachable,
                Some("PATH_NOT_ALLOWED" | "NO_PROXY_PREFIX") => HomeserverError::NotSupported,
                _ => reply.error(),
            });
        }
        let relayed: Relayed = reply.success()?;
        Ok((relayed.status, relayed.content))
    }

    /// Whether the homeserver hands requests for `rtc/livekit` on to an application service, as clients find out: without
    /// credentials, and anything but 404 means yes.
    pub async fn proxies_rtc(&self) -> Result<bool, HomeserverError> {
        let reply = self.send(As::Nobody, &Question::small(Method::POST, PROBE, Some(&json!({})))).await?;
        match reply.status {
            StatusCode::NOT_FOUND => Ok(false),
            StatusCode::TOO_MANY_REQUESTS => Err(reply.error()),
            status if status.is_server_error() => Err(reply.error()),
            _ => Ok(true),
        }
    }

    /// Whether the application service may act as `user` at all.
    pub async fn can_act_as(&self, user: &str) -> Result<bool, HomeserverError> {
        let reply = self.send(As::User(user), &Question::small(Method::GET, WHOAMI, None)).await?;
        match reply.status {
            StatusCode::FORBIDDEN => Ok(false),
            _ => reply.success::<IgnoredAny>().map(|_| true),
        }
    }

    /// The bot's user ID.
    pub async fn bot(&self) -> Result<String, HomeserverError> {
        #[derive(Deserialize)]
        struct Whoami {
            user_id: String,
        }
        let reply = self.send(As::Bot, &Question::small(Method::GET, WHOAMI, None)).await?;
        Ok(reply.success::<Whoami>()?.user_id)
    }

    /// Has the homeserver reach out to its application service `id`, which is us; `false`: that fails (Application Service
    /// API, "Pinging"). Synapse then stops waiting for one that was away, and sends at once what it has kept.
    pub async fn ping(&self, id: &str) -> Result<bool, HomeserverError> {
        let path = path(&["v1/appservice"], &[id, "ping"])?;
        let body = json!({});
        let question = Question { timeout: LONG_TIMEOUT, ..Question::small(Method::POST, &path, Some(&body)) };
        let reply = self.send(As::Service, &question).await?;
        match reply.errcode().as_str() {
            "M_URL_NOT_SET" | "M_BAD_STATUS" | "M_CONNECTION_TIMEOUT" | "M_CONNECTION_FAILED" => Ok(false),
            _ => reply.success::<IgnoredAny>().map(|_| true),
        }
    }

    /// Any request that the rest has no method for, as `as_user` or as the application service; `path` starts with
    /// `/_matrix/` and its parts are escaped (see [`segment`]). The status is for the caller to read.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        as_user: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Reply, HomeserverError> {
        let actor = as_user.map_or(As::Service, As::User);
        self.send(actor, &Question::small(method, path, body)).await
    }

    /// Whoever waits for long here waits for a homeserver that does not answer others.
    async fn list_permit(&self) -> Result<SemaphorePermit<'_>, HomeserverError> {
        let permit = tokio::time::timeout(LONG_TIMEOUT, self.lists.acquire()).await;
        permit.ok().and_then(Result::ok).ok_or(HomeserverError::Unreachable)
    }

    async fn as_user_or_ourselves(
        &self,
        as_user: Option<&str>,
        question: &Question<'_>,
    ) -> Result<Reply, HomeserverError> {
        if let Some(user) = as_user {
            return self.send(As::User(user), question).await;
        }
        if self.service.is_some() {
            let reply = self.send(As::Service, question).await?;
            let may_not = matches!(reply.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            if self.bot.is_none() || !may_not {
                return Ok(reply);
            }
        }
        self.send(As::Bot, question).await
    }

    async fn send(&self, actor: As<'_>, question: &Question<'_>) -> Result<Reply, HomeserverError> {
        let mut url = Url::parse(&format!("{}{}", self.base, question.path)).map_err(|_| HomeserverError::Invalid)?;
        if let As::User(user) = actor {
            url.query_pairs_mut().append_pair("user_id", user);
        }
        if !question.query.is_empty() {
            url.query_pairs_mut().extend_pairs(question.query);
        }
        let authorization = match actor {
            As::Nobody => None,
            As::Service | As::User(_) => Some(self.service.as_ref().ok_or(HomeserverError::NotSupported)?),
            As::Bot => Some(self.bot.as_ref().ok_or(HomeserverError::NotSupported)?),
        };
        let mut request = self.client.request(question.method.clone(), url).timeout(question.timeout);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(body) = question.body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|_| HomeserverError::Unreachable)?;
        Reply::read(response, question.largest).await
    }
}

impl Reply {
    async fn read(mut response: reqwest::Response, largest: usize) -> Result<Reply, HomeserverError> {
        let status = response.status();
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| HomeserverError::Unreachable)? {
            if body.len() + chunk.len() > largest {
                return Err(HomeserverError::BadAnswer);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, body, retry_after: seconds.map(Duration::from_secs) })
    }

    /// The body of a 2xx answer, else the error that it is.
    pub fn success<T: for<'a> Deserialize<'a>>(&self) -> Result<T, HomeserverError> {
        if !self.status.is_success() {
            return Err(self.error());
        }
        serde_json::from_slice(&self.body).map_err(|_| HomeserverError::BadAnswer)
    }

    /// `errcode` of a refusal; empty when there is none.
    pub fn errcode(&self) -> String {
        self.refusal().errcode
    }

    /// What an answer that is no success comes to.
    pub fn error(&self) -> HomeserverError {
        let refusal = self.refusal();
        match self.status {
            StatusCode::UNAUTHORIZED => HomeserverError::UnknownToken,
            StatusCode::TOO_MANY_REQUESTS => HomeserverError::Limited(self.wait(&refusal)),
            StatusCode::FORBIDDEN => HomeserverError::Forbidden,
            StatusCode::BAD_REQUEST if refusal.errcode != "M_UNRECOGNIZED" => HomeserverError::Invalid,
            // A path that a server or the proxy before it does not have, with or without Matrix's words for it.
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                HomeserverError::NotSupported
            }
            status if status.is_server_error() => HomeserverError::Unreachable,
            _ => HomeserverError::BadAnswer,
        }
    }

    fn wait(&self, refusal: &Refusal) -> Duration {
        let said = self.retry_after.or(refusal.retry_after_ms.map(Duration::from_millis));
        said.unwrap_or(UNSAID_RETRY).min(LONGEST_RETRY)
    }

    fn refusal(&self) -> Refusal {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

fn authorization(token: &Secret) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
        .map_err(|_| "a token has characters that no header can carry".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// `/_matrix/client/` with `fixed` as it is and `parts` escaped.
fn path(fixed: &[&str], parts: &[&str]) -> Result<String, HomeserverError> {
    let mut path = "/_matrix/client".to_owned();
    for part in fixed {
        path.extend(["/", part]);
    }
    for part in parts {
        path.extend(["/", &segment(part).ok_or(HomeserverError::Invalid)?]);
    }
    Ok(path)
}

fn state_path(room: &str, event_type: &str, state_key: &str) -> Result<String, HomeserverError> {
    // The empty state key has no segment.
    let parts = [room, "state", event_type, state_key];
    path(&["v3/rooms"], if state_key.is_empty() { &parts[..3] } else { &parts })
}

/// `text` as one segment of a path. `None` for `.` and `..`, which mean other paths however they are escaped, and for nothing.
pub fn segment(text: &str) -> Option<String> {
    (!matches!(text, "" | "." | "..")).then(|| utf8_percent_encode(text, SEGMENT).to_string())
}
