//! Where clients find our TURN server, and the credentials for it.
//!
//! Participants are told in `join` and `reconnect` by [`Signalling`](super::Signalling); apps ask `/turn` in `http`; the
//! URLs alone go into the homeserver's configuration.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::transport::Protocol;
use crate::turn::credentials::Credentials;

/// A participant allocates right after it was told, and is told anew when it reconnects; allocations outlive their
/// credentials. What leaks is worth little after that.
const PARTICIPANT_VALIDITY_S: u64 = 600;

const OVER_UDP: &str = "?transport=udp";

/// `turn:` and `turns:` URLs (RFC 7065) and what issues the credentials for them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct IceServers {
    urls: Arc<[String]>,
    credentials: Arc<Credentials>,
}

/// As browsers' `RTCIceServer` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceServer {
    pub urls: Vec<String>,
    pub username: String,
    pub credential: String,
}

impl IceServers {
    /// `None` when there is no way to the server.
    pub fn new(urls: Vec<String>, credentials: Arc<Credentials>) -> Option<IceServers> {
        (!urls.is_empty()).then(|| IceServers { urls: urls.into(), credentials })
    }

    /// What a participant of our rooms is told; `None` when there is nothing to tell.
    ///
    /// Not the way over UDP: it begins at the address and port that our media is at. Chromium has one socket for the direct
    /// path and for TURN over UDP, and takes everything that comes from the TURN server's address for TURN's: the direct
    /// path would never work, and media would go by the relay or by TCP.
    pub fn for_participant(&self, participant: &str, unix_s: u64) -> Option<IceServer> {
        let mut server = self.issue(participant, unix_s, PARTICIPANT_VALIDITY_S);
        server.urls.retain(|url| !url.ends_with(OVER_UDP));
        (!server.urls.is_empty()).then_some(server)
    }

    /// Credentials for `user`, whose quota the allocations count on.
    pub fn issue(&self, user: &str, unix_s: u64, validity_s: u64) -> IceServer {
        let (username, credential) = self.credentials.issue(user, unix_s.saturating_add(validity_s));
        IceServer { urls: self.urls.to_vec(), username, credential }
    }
}

/// The best way first: over UDP, over TCP, over TLS.
///
/// Plain TURN listens on the media ports, so its addresses are those of the media candidates, the first of each family;
/// they are what clients reach with no name to look up. TLS goes by `(host, port)`, as a certificate needs a name.
pub fn turn_urls(candidates: &[(Protocol, SocketAddr)], tls: Option<(&str, u16)>) -> Vec<String> {
    let mut urls = Vec::new();
    for (protocol, transport) in [(Protocol::Udp, "udp"), (Protocol::Tcp, "tcp")] {
        for v4 in [true, false] {
            let of_kind = |(p, address): &&(Protocol, SocketAddr)| *p == protocol && address.is_ipv4() == v4;
            let first = candidates.iter().find(of_kind);
            // An IPv6 address shows with the brackets that a URL wants.
            urls.extend(first.map(|(_, address)| format!("turn:{address}?transport={transport}")));
        }
    }
    urls.extend(tls.map(|(host, port)| format!("turns:{host}:{port}?transport=tcp")));
    urls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(protocol: Protocol, address: &str) -> (Protocol, SocketAddr) {
        (protocol, address.parse().unwrap())
    }

    #[test]
    fn urls_come_in_the_order_to_try() {
        let candidates = [
            candidate(Protocol::Udp, "[2001:db8::7]:3478"),
            candidate(Protocol::Udp, "198.51.100.7:3478"),
            candidate(Protocol::Udp, "198.51.100.8:3478"),
            candidate(Protocol::Tcp, "198.51.100.7:3479"),
        ];
        let urls = turn_urls(&candidates, Some(("rtc.example.org", 443)));
        assert_eq!(
            urls,
            [
                "turn:198.51.100.7:3478?transport=udp",
                "turn:[2001:db8::7]:3478?transport=udp",
                "turn:198.51.100.7:3479?transport=tcp",
                "turns:rtc.example.org:443?transport=tcp",
            ]
        );
    }

    #[test]
    fn participants_are_told_no_way_that_would_take_the_direct_one() {
        let servers = |urls: &[&str]| {
            let urls = urls.iter().map(|url| url.to_string()).collect();
            IceServers::new(urls, Arc::new(Credentials::new(vec![vec![1]]))).unwrap()
        };
        let [udp, tcp] = ["turn:192.0.2.1:3478?transport=udp", "turn:192.0.2.1:3478?transport=tcp"];
        assert_eq!(servers(&[udp, tcp]).for_participant("PA_1", 0).unwrap().urls, [tcp]);
        assert_eq!(servers(&[udp]).for_participant("PA_1", 0), None);
        assert_eq!(servers(&[udp, tcp]).issue("@alice:example.org", 0, 60).urls, [udp, tcp], "an app may meet others");
    }

    #[test]
    fn what_is_off_is_not_listed() {
        assert_eq!(
            turn_urls(&[candidate(Protocol::Udp, "192.0.2.1:3478")], None),
            ["turn:192.0.2.1:3478?transport=udp"]
        );
        assert_eq!(turn_urls(&[], Some(("a.example", 5349))), ["turns:a.example:5349?transport=tcp"]);
        assert!(IceServers::new(turn_urls(&[], None), Arc::new(Credentials::new(vec![vec![1]]))).is_none());
    }
}
