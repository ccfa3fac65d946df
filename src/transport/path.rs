//! Which of the client's addresses we send to, when it moves: a NAT made a new mapping, a phone went from Wi-Fi to the
//! mobile network. `transport` shows it every packet.
//!
//! str0m's ICE-lite agent stays with the pair of the highest priority for as long as that was checked within 15 seconds.
//! But a full agent that talks to a lite one sends USE-CANDIDATE on the pair it selected and on no other (RFC 8445
//! §8.1.1). So once it does that from a new address and the old one has fallen silent, the old one can go.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::classify::{self, TransactionId};
use super::{Protocol, Route};

/// A path on which nothing came for this long is given up when the client selected another. Media, reports or checks come
/// several times a second on the selected path; shorter would be a mistake only on a network that stalls.
const PATH_SILENCE: Duration = Duration::from_secs(2);

type Remote = (Protocol, SocketAddr);

#[derive(Default)]
pub(super) struct Path {
    /// Where we send, and when something came from there last.
    current: Option<(Route, Instant)>,
    /// A check that says "use this", not yet known to be the client's own.
    asked: Option<(Remote, TransactionId)>,
    /// The same once it was answered, which only one with our password is.
    selected: Option<Remote>,
    /// ICE was restarted: what the client selects next holds at once, as it may close its old sockets.
    restarted: bool,
}

fn remote(route: &Route) -> Remote {
    (route.protocol, route.destination)
}

impl Path {
    /// The way to the client, once there is one.
    pub fn route(&self) -> Option<Route> {
        self.current.map(|(route, _)| route)
    }

    pub fn restart(&mut self) {
        self.restarted = true;
        self.selected = None;
    }

    /// A packet came to `local`. Gives the address to forget, if this one has taken its place.
    pub fn received(&mut self, now: Instant, from: Remote, local: SocketAddr, packet: &[u8]) -> Option<Remote> {
        if let Some((current, heard)) = &mut self.current
            && remote(current) == from
        {
            *heard = now;
        }
        if let Some(transaction) = classify::nomination(packet) {
            self.asked = Some((from, transaction));
        }
        let (current, heard) = self.current?;
        let replaced = remote(&current) != from && self.selected == Some(from);
        (replaced && now.saturating_duration_since(heard) >= PATH_SILENCE).then(|| {
            self.current = Some((Route { protocol: from.0, source: local, destination: from.1 }, now));
            remote(&current)
        })
    }

    /// A packet of str0m's goes out.
    pub fn sent(&mut self, now: Instant, route: Route, packet: &[u8]) {
        let to = remote(&route);
        match classify::answered(packet) {
            Some(transaction) if self.asked == Some((to, transaction)) => {
                self.selected = Some(to);
                if std::mem::take(&mut self.restarted) && self.current.is_some() {
                    self.current = Some((route, now));
                }
            }
            Some(_) => {}
            None if self.current.is_none_or(|(current, _)| remote(&current) != to) => self.current = Some((route, now)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: [u8; 2] = [0x00, 0x01];
    const RESPONSE: [u8; 2] = [0x01, 0x01];
    const MEDIA: [u8; 12] = [0x80; 12];

    fn stun(kind: [u8; 2], transaction: u8, use_candidate: bool) -> Vec<u8> {
        let mut message = kind.to_vec();
        message.extend([0, if use_candidate { 4 } else { 0 }, 0x21, 0x12, 0xa4, 0x42]);
        message.extend([transaction; 12]);
        if use_candidate {
            message.extend([0x00, 0x25, 0, 0]);
        }
        message
    }

    fn remote(port: u16) -> Remote {
        (Protocol::Udp, SocketAddr::from(([192, 0, 2, 1], port)))
    }

    fn local() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 9], 3478))
    }

    fn route(port: u16) -> Route {
        Route { protocol: Protocol::Udp, source: local(), destination: remote(port).1 }
    }

    /// A path over which media flows, and another on which the client asks for it.
    fn moved(start: Instant, answered: bool) -> Path {
        let mut path = Path::default();
        path.sent(start, route(1), &MEDIA);
        path.received(start, remote(2), local(), &stun(REQUEST, 7, true));
        path.sent(start, route(2), &stun(RESPONSE, if answered { 7 } else { 8 }, false));
        path
    }

    #[test]
    fn a_silent_path_gives_way_to_the_selected_one() {
        let start = Instant::now();
        let mut path = moved(start, true);
        assert_eq!(path.received(start + PATH_SILENCE / 2, remote(2), local(), &MEDIA), None, "too early");
        assert_eq!(path.received(start + PATH_SILENCE, remote(2), local(), &MEDIA), Some(remote(1)));
        assert_eq!(path.received(start + 2 * PATH_SILENCE, remote(2), local(), &MEDIA), None, "only once");
    }

    #[test]
    fn nothing_gives_way_otherwise() {
        let start = Instant::now();
        let later = start + 2 * PATH_SILENCE;
        let mut heard = moved(start, true);
        heard.received(later, remote(1), local(), &MEDIA);
        assert_eq!(heard.received(later, remote(2), local(), &MEDIA), None, "the old path lives");
        assert_eq!(
            moved(start, false).received(later, remote(2), local(), &MEDIA),
            None,
            "the check was not the client's"
        );
        assert_eq!(moved(start, true).received(later, remote(3), local(), &MEDIA), None, "from somewhere else");
        let mut unselected = Path::default();
        unselected.sent(start, route(1), &MEDIA);
        unselected.received(start, remote(2), local(), &stun(REQUEST, 7, false));
        unselected.sent(start, route(2), &stun(RESPONSE, 7, false));
        assert_eq!(unselected.received(later, remote(2), local(), &MEDIA), None, "checked, not selected");
    }

    #[test]
    fn a_restart_moves_at_once() {
        let start = Instant::now();
        let mut path = moved(start, true);
        assert_eq!(path.route(), Some(route(1)));
        path.restart();
        path.received(start, remote(3), local(), &stun(REQUEST, 9, true));
        assert_eq!(path.route(), Some(route(1)), "not yet proven");
        path.sent(start, route(3), &stun(RESPONSE, 9, false));
        assert_eq!(path.route(), Some(route(3)));
        path.received(start, remote(2), local(), &stun(REQUEST, 10, true));
        path.sent(start, route(2), &stun(RESPONSE, 10, false));
        assert_eq!(path.route(), Some(route(3)), "once");
    }
}
