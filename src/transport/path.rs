//! Which of the client's addresses we send to, when it moves: a NAT made a new mapping, a phone went from Wi-Fi to the
//! mobile network. `transport` shows it every packet.
//!
//! str0m's ICE-lite agent stays with the pair of the highest priority for as long as that was checked within 15 seconds.
//! But a full agent that talks to a lite one sends USE-CANDIDATE on the pair it selected and on no other (RFC 8445
//! §8.1.1). So once it does that from a new address and the old one has fallen silent, the old one can go.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Protocol;
use super::classify::{self, TransactionId};

/// A path on which nothing came for this long is given up when the client selected another. Media, reports or checks come
/// several times a second on the selected path; shorter would be a mistake only on a network that stalls.
const PATH_SILENCE: Duration = Duration::from_secs(2);

type Remote = (Protocol, SocketAddr);

#[derive(Default)]
pub(super) struct Path {
    /// Where we send, and when something came from there last.
    current: Option<(Remote, Instant)>,
    /// A check that says "use this", not yet known to be the client's own.
    asked: Option<(Remote, TransactionId)>,
    /// The same once it was answered, which only one with our password is.
    selected: Option<Remote>,
}

impl Path {
    /// A packet came. Gives the address to forget, if this one has taken its place.
    pub fn received(&mut self, now: Instant, from: Remote, packet: &[u8]) -> Option<Remote> {
        if let Some((current, heard)) = &mut self.current
            && *current == from
        {
            *heard = now;
        }
        if let Some(transaction) = classify::nomination(packet) {
            self.asked = Some((from, transaction));
        }
        let (current, heard) = self.current?;
        let replaced = current != from && self.selected == Some(from);
        (replaced && now.saturating_duration_since(heard) >= PATH_SILENCE).then(|| {
            self.current = Some((from, now));
            current
        })
    }

    /// A packet goes out.
    pub fn sent(&mut self, now: Instant, to: Remote, packet: &[u8]) {
        match classify::answered(packet) {
            Some(transaction) if self.asked == Some((to, transaction)) => self.selected = Some(to),
            Some(_) => {}
            None if self.current.is_none_or(|(current, _)| current != to) => self.current = Some((to, now)),
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

    /// A path over which media flows, and another on which the client asks for it.
    fn moved(start: Instant, answered: bool) -> Path {
        let mut path = Path::default();
        path.sent(start, remote(1), &MEDIA);
        path.received(start, remote(2), &stun(REQUEST, 7, true));
        path.sent(start, remote(2), &stun(RESPONSE, if answered { 7 } else { 8 }, false));
        path
    }

    #[test]
    fn a_silent_path_gives_way_to_the_selected_one() {
        let start = Instant::now();
        let mut path = moved(start, true);
        assert_eq!(path.received(start + PATH_SILENCE / 2, remote(2), &MEDIA), None, "too early");
        assert_eq!(path.received(start + PATH_SILENCE, remote(2), &MEDIA), Some(remote(1)));
        assert_eq!(path.received(start + 2 * PATH_SILENCE, remote(2), &MEDIA), None, "only once");
    }

    #[test]
    fn nothing_gives_way_otherwise() {
        let start = Instant::now();
        let later = start + 2 * PATH_SILENCE;
        let mut heard = moved(start, true);
        heard.received(later, remote(1), &MEDIA);
        assert_eq!(heard.received(later, remote(2), &MEDIA), None, "the old path lives");
        assert_eq!(moved(start, false).received(later, remote(2), &MEDIA), None, "the check was not the client's");
        assert_eq!(moved(start, true).received(later, remote(3), &MEDIA), None, "from somewhere else");
        let mut unselected = Path::default();
        unselected.sent(start, remote(1), &MEDIA);
        unselected.received(start, remote(2), &stun(REQUEST, 7, false));
        unselected.sent(start, remote(2), &stun(RESPONSE, 7, false));
        assert_eq!(unselected.received(later, remote(2), &MEDIA), None, "checked, not selected");
    }
}
