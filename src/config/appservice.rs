//! `[appservice]`: Parlour as an application service of the homeserver. It then sees who is in which room, acts for users
//! whose client has vanished, and is told at once when somebody leaves.

use std::net::SocketAddr;

use url::Url;

use super::source::Source;
use super::{Secret, http_url, parsed};

const ID: &str = "parlour";
const SENDER_LOCALPART: &str = "parlour";

#[derive(Debug, Clone, PartialEq)]
pub struct AppService {
    pub enabled: bool,
    /// Unique among the application services of the homeserver.
    pub id: String,
    /// Of the user as whom we appear where we appear as nobody else.
    pub sender_localpart: String,
    /// A listener for the homeserver alone; `None` = `http.listen` serves it too.
    pub listen: Option<SocketAddr>,
    /// Where the homeserver reaches us, without a trailing slash in the path.
    pub url: Url,
    /// Both tokens or none; `None` = [`appservice_tokens`](super::appservice_tokens) generates them.
    pub as_token: Option<Secret>,
    pub hs_token: Option<Secret>,
    /// Whether the homeserver hands requests for `rtc/livekit` on to us (MSC4512). Clients are told so, and the newest then
    /// come no other way.
    pub proxied: bool,
}

impl AppService {
    pub(super) fn read(s: &mut Source, http_listen: SocketAddr) -> AppService {
        let listen = s.value("appservice.listen", parsed, "an address with a port, such as 127.0.0.1:8090");
        let advice = "Leave both tokens out and Parlour makes its own";
        let appservice = AppService {
            enabled: s.value("appservice.enabled", parsed, "true or false").unwrap_or(false),
            id: s.value("appservice.id", id, "a name of letters, digits and . _ -").unwrap_or_else(|| ID.into()),
            sender_localpart: s
                .value("appservice.sender_localpart", localpart, "a name of lower-case letters, digits and . _ -")
                .unwrap_or_else(|| SENDER_LOCALPART.into()),
            url: s
                .value(
                    "appservice.url",
                    url,
                    "the URL the homeserver reaches Parlour at, such as http://127.0.0.1:8090",
                )
                .unwrap_or_else(|| reachable(listen.unwrap_or(http_listen))),
            as_token: s.secret("appservice.as_token", advice),
            hs_token: s.secret("appservice.hs_token", advice),
            proxied: s.value("appservice.proxied", parsed, "true or false").unwrap_or(false),
            listen,
        };
        appservice.refuse(s, http_listen);
        appservice
    }

    fn refuse(&self, s: &mut Source, http_listen: SocketAddr) {
        let is_set = |s: &Source, key: &str| s.is_set(key) || s.is_set(&format!("{key}_file"));
        for (set, missing) in
            [("appservice.as_token", "appservice.hs_token"), ("appservice.hs_token", "appservice.as_token")]
        {
            if is_set(s, set) && !is_set(s, missing) {
                s.refuse(
                    missing,
                    format!(
                        "is missing: set both tokens as the registration file has them, or neither, not only {set}"
                    ),
                );
            }
        }
        if self.as_token.is_some() && self.as_token == self.hs_token {
            s.refuse(
                "appservice.hs_token",
                "is the same as appservice.as_token; each side needs a token of its own".into(),
            );
        }
        if self.listen == Some(http_listen) && http_listen.port() != 0 {
            s.refuse("appservice.listen", "is the same as http.listen; leave it out to share that one".into());
        }
        if self.proxied && !self.enabled {
            s.refuse(
                "appservice.proxied",
                "needs appservice.enabled = true: without, the homeserver hands us nothing".into(),
            );
        }
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.enabled && self.url.scheme() == "http" && !super::is_near(&self.url) {
            warnings.push(format!(
                "appservice.url: {} carries tokens in the clear through a public network; use https or a private address",
                self.url
            ));
        }
        warnings
    }
}

/// An unspecified address is no destination: the homeserver is then taken to be on this machine.
fn reachable(listen: SocketAddr) -> Url {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        address.set_ip(match listen {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Url::parse(&format!("http://{address}")).expect("an address with a port is the authority of a URL")
}

fn url(text: &str) -> Option<Url> {
    let mut url = http_url(text)?;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Some(url)
}

fn id(text: &str) -> Option<String> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    (plain && !text.is_empty()).then(|| text.to_owned())
}

/// A part of what user IDs may have (Matrix specification, appendix "User identifiers"): no homeserver escapes these in URLs.
fn localpart(text: &str) -> Option<String> {
    let plain = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'));
    (plain && !text.is_empty()).then(|| text.to_owned())
}
