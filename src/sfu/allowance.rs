//! How much may be sent to addresses where nobody has shown to hear us. Who knows a connection's password can write any
//! source address on its checks, and our side of the handshake is longer than what asks for it: the SFU must not be a
//! lever to flood others. Part of a [`Connection`](super::participant::Connection) until its handshake is done, which
//! takes an answer to what we sent.

use std::net::SocketAddr;

use crate::transport::Protocol;

/// Bytes that may be sent for each that came from an address: QUIC's limit (RFC 9000 §8.1), for want of one in ICE.
const FACTOR: usize = 3;
/// Bytes on top of that. Our first flight is about 640 bytes; a client whose one check and greeting are as short as can be
/// (100 and 118 bytes) would miss it by a hair and join a second later.
const HEAD_START_BYTES: usize = 256;
/// Addresses kept in mind; a client checks from a few, a flood gets no more.
const MAX_ADDRESSES: usize = 20;

type Remote = (Protocol, SocketAddr);

#[derive(Default)]
pub(super) struct Allowance {
    /// Bytes that may still be sent there.
    left: Vec<(Remote, usize)>,
}

impl Allowance {
    pub fn received(&mut self, from: Remote, bytes: usize) {
        let more = bytes * FACTOR;
        match self.left.iter_mut().find(|(remote, _)| *remote == from) {
            Some((_, left)) => *left = left.saturating_add(more),
            None => {
                if self.left.len() == MAX_ADDRESSES {
                    self.left.remove(0);
                }
                self.left.push((from, HEAD_START_BYTES + more));
            }
        }
    }

    /// Whether so much may be sent there; if so, it is taken.
    pub fn take(&mut self, to: Remote, bytes: usize) -> bool {
        // Its own handshake has shown that TCP leads there and back.
        if to.0 == Protocol::Tcp {
            return true;
        }
        let Some((_, left)) = self.left.iter_mut().find(|(remote, _)| *remote == to) else { return false };
        let enough = *left >= bytes;
        if enough {
            *left -= bytes;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(port: u16) -> Remote {
        (Protocol::Udp, SocketAddr::from(([192, 0, 2, 1], port)))
    }

    #[test]
    fn three_times_what_came_and_no_more() {
        let mut allowance = Allowance::default();
        assert!(!allowance.take(udp(1), 1));
        allowance.received(udp(1), 100);
        assert!(allowance.take(udp(1), HEAD_START_BYTES + 200));
        assert!(!allowance.take(udp(1), 101));
        assert!(!allowance.take(udp(2), 1));
        allowance.received(udp(1), 1);
        assert!(allowance.take(udp(1), 103) && !allowance.take(udp(1), 1));
        assert!(allowance.take((Protocol::Tcp, udp(3).1), 10_000));
    }

    #[test]
    fn the_shortest_handshake_gets_its_first_flight() {
        let mut allowance = Allowance::default();
        allowance.received(udp(1), 100);
        assert!(allowance.take(udp(1), 64));
        allowance.received(udp(1), 118);
        assert!(allowance.take(udp(1), 640));
    }

    #[test]
    fn a_flood_of_addresses_is_forgotten() {
        let mut allowance = Allowance::default();
        (0..1000).for_each(|port| allowance.received(udp(port), 10));
        assert_eq!(allowance.left.len(), MAX_ADDRESSES);
        assert!(allowance.take(udp(999), HEAD_START_BYTES + 30) && !allowance.take(udp(0), 1));
    }
}
