//! What an operator asks of a running server from the command line: `parlour calls`. Called by `main`.
//!
//! It goes over HTTP to `http.listen` of the same configuration, signed with an API key that both know.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::{self, Config, Problems};
use crate::http::calls::{CallInfo, Calls, Ended};
use crate::livekit::Claims;
use crate::livekit::access_token::VideoGrant;

/// The server is on this machine or near it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Seconds; for one request.
const TOKEN_VALIDITY_S: u64 = 60;

/// A running server, as its configuration says where it is. Errors are sentences for the operator.
pub struct Operator {
    client: reqwest::Client,
    address: SocketAddr,
    token: String,
}

impl Operator {
    pub fn new(config: &Config) -> Result<Operator, String> {
        let keys = config::existing_api_keys(config).map_err(|problem| Problems::from(problem).to_string())?;
        let keys = keys.ok_or_else(|| {
            format!("There is no API key in {} yet: start `parlour serve` first.", config.data_dir.display())
        })?;
        let grant = VideoGrant { room_list: true, room_create: true, ..VideoGrant::default() };
        let exp = Some(unix_time().as_secs() + TOKEN_VALIDITY_S);
        let claims = Claims { sub: "parlour calls".to_owned(), exp, video: Some(grant), ..Claims::default() };
        let client =
            reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().map_err(|error| error.to_string())?;
        Ok(Operator { client, address: reachable(config.http.listen), token: keys.sign(&claims) })
    }

    pub async fn calls(&self) -> Result<Calls, String> {
        self.ask(Method::GET, "/api/calls").await
    }

    /// `room`: a Matrix room id, or the SFU's name of a call.
    pub async fn end(&self, room: &str) -> Result<Ended, String> {
        self.ask(Method::DELETE, &format!("/api/calls/{}", utf8_percent_encode(room, NON_ALPHANUMERIC))).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, String> {
        let address = self.address;
        let request = self.client.request(method, format!("http://{address}{path}")).bearer_auth(&self.token);
        let response = request.send().await.map_err(|_| {
            format!(
                "Parlour does not answer at {address}, where http.listen says it is. Is it running, and with this configuration?"
            )
        })?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| format!("The answer of {address} broke off: {error}."))?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|_| format!("What answers at {address} is no Parlour, or one of another version."));
        }
        let refusal: Value = serde_json::from_slice(&body).unwrap_or_default();
        Err(match (refusal["errcode"].as_str(), refusal["error"].as_str()) {
            (Some("M_UNKNOWN_TOKEN"), Some(why)) => {
                format!("Parlour does not take the API key of this configuration; is it running with another? {why}")
            }
            (_, Some(why)) => why.to_owned(),
            (_, None) => format!("What answers at {address} is no Parlour: it says {status}."),
        })
    }
}

/// For people: a line per call, and one for each who is in it.
pub fn table(calls: &[CallInfo]) -> String {
    if calls.is_empty() {
        return "No calls.\n".to_owned();
    }
    let now = unix_time().as_millis() as u64;
    let mut text = String::new();
    for call in calls {
        let name = call.room_id.as_deref().unwrap_or(&call.room);
        let slot = call.slot_id.as_deref().unwrap_or("(no Matrix room)");
        let people = call.participants.len();
        writeln!(text, "{name}  {slot}  {people} in it, for {}", ago(now, call.started_at)).expect("writing to memory");
        for participant in &call.participants {
            let who = participant.user_id.as_deref().unwrap_or(&participant.identity);
            let since = ago(now, participant.joined_at);
            writeln!(text, "  {who}  {} tracks, for {since}", participant.tracks).expect("writing to memory");
        }
    }
    text
}

/// Whole minutes, and hours above one.
fn ago(now_ms: u64, then_ms: u64) -> String {
    let minutes = now_ms.saturating_sub(then_ms) / 60_000;
    match minutes / 60 {
        0 => format!("{minutes} min"),
        hours => format!("{hours} h {} min", minutes % 60),
    }
}

/// An unspecified address is no destination.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::calls::CallParticipant;

    #[test]
    fn calls_are_told_in_lines() {
        assert_eq!(table(&[]), "No calls.\n");
        let now = unix_time().as_millis() as u64;
        let participant = |user_id: Option<&str>, minutes: u64| CallParticipant {
            sid: "PA_1".into(),
            identity: "guest".into(),
            user_id: user_id.map(str::to_owned),
            joined_at: now - minutes * 60_000,
            tracks: 2,
        };
        let calls = [
            CallInfo {
                room: "alias".into(),
                room_id: Some("!room:example.org".into()),
                slot_id: Some("m.call#ROOM".into()),
                started_at: now - 125 * 60_000,
                participants: vec![participant(Some("@a:example.org"), 5)],
            },
            CallInfo {
                room: "meeting".into(),
                room_id: None,
                slot_id: None,
                started_at: now,
                participants: vec![participant(None, 0)],
            },
        ];
        assert_eq!(
            table(&calls),
            "!room:example.org  m.call#ROOM  1 in it, for 2 h 5 min\n  @a:example.org  2 tracks, for 5 min\nmeeting  (no Matrix room)  1 in it, for 0 min\n  guest  2 tracks, for 0 min\n"
        );
    }

    #[test]
    fn a_listener_on_every_address_is_reached_at_this_machine() {
        for (listen, reached) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.1:80", "10.0.0.1:80")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), reached.parse().unwrap());
        }
    }
}
