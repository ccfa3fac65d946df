//! Finished packets on their way out, back to back in one buffer that is used again turn after turn: the path of a packet
//! neither allocates nor copies between encryption and the socket.
//!
//! Connections write into it, `net` sends what is in it. Packets of one connection that were written one after the other
//! share a [`Route`] and lie next to each other, which is what the kernel's segmentation offload wants.

use std::net::SocketAddr;
use std::ops::Range;

use super::Protocol;

/// When the writer should pause and let the packets leave: what fits the second-level cache of one core, so that the
/// kernel reads what was just encrypted from there.
const FULL_BYTES: usize = 512 << 10;

/// Room made for a packet before it is written, so that it grows the buffer once at most: an Ethernet frame and some.
const MAX_PACKET_BYTES: usize = 2048;

/// The way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    pub protocol: Protocol,
    /// The local candidate it leaves from.
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Where each packet ends.
    ends: Vec<usize>,
    runs: Vec<Run>,
    written: Written,
}

/// All that ever went through an outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub packets: u64,
    pub bytes: u64,
}

/// Packets in a row that go the same way.
#[derive(Debug)]
struct Run {
    route: Route,
    /// Index of the first packet.
    first: usize,
}

impl Outbox {
    pub fn push(&mut self, route: Route, packet: &[u8]) {
        self.write(route, |bytes| bytes.extend_from_slice(packet));
    }

    /// Lets `append` put one packet at the end of a buffer, whose beginning it leaves as it is; nothing appended is no packet.
    pub fn write(&mut self, route: Route, append: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.reserve(MAX_PACKET_BYTES);
        append(&mut self.bytes);
        let written = self.bytes.len().saturating_sub(start);
        if written == 0 {
            return;
        }
        if self.runs.last().is_none_or(|run| run.route != route) {
            self.runs.push(Run { route, first: self.ends.len() });
        }
        self.ends.push(self.bytes.len());
        self.written.packets += 1;
        self.written.bytes += written as u64;
    }

    pub fn written(&self) -> Written {
        self.written
    }

    /// So much waits that it should leave before more is written.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Packets waiting.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Every run with its packets, in the order of writing.
    pub fn runs(&self) -> impl Iterator<Item = (Route, Packets<'_>)> {
        self.runs.iter().enumerate().map(|(index, run)| {
            let next = self.runs.get(index + 1).map_or(self.ends.len(), |next| next.first);
            (run.route, Packets { outbox: self, indices: run.first..next })
        })
    }

    /// Forgets what was sent. The memory stays.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.runs.clear();
    }
}

/// The packets of one run.
#[derive(Clone)]
pub struct Packets<'a> {
    outbox: &'a Outbox,
    indices: Range<usize>,
}

impl<'a> Packets<'a> {
    /// Those not taken yet, back to back.
    pub fn bytes(&self) -> &'a [u8] {
        let start = self.indices.start.checked_sub(1).map_or(0, |before| self.outbox.ends[before]);
        let end = self.indices.end.checked_sub(1).map_or(0, |last| self.outbox.ends[last]);
        &self.outbox.bytes[start.min(end)..end]
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let index = self.indices.next()?;
        let start = index.checked_sub(1).map_or(0, |before| self.outbox.ends[before]);
        Some(&self.outbox.bytes[start..self.outbox.ends[index]])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.indices.size_hint()
    }
}

impl ExactSizeIterator for Packets<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(port: u16) -> Route {
        let source = SocketAddr::from(([127, 0, 0, 1], 3478));
        Route { protocol: Protocol::Udp, source, destination: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn contents(outbox: &Outbox) -> Vec<(u16, Vec<Vec<u8>>)> {
        outbox.runs().map(|(r, packets)| (r.destination.port(), packets.map(<[u8]>::to_vec).collect())).collect()
    }

    #[test]
    fn neighbours_with_one_route_make_a_run() {
        let mut outbox = Outbox::default();
        for (port, byte) in [(1, 10), (1, 11), (2, 20), (1, 12)] {
            outbox.push(route(port), &[byte; 3]);
        }
        let three = |byte: u8| vec![byte; 3];
        assert_eq!(contents(&outbox), [(1, vec![three(10), three(11)]), (2, vec![three(20)]), (1, vec![three(12)])]);
        outbox.clear();
        assert!(outbox.is_empty() && contents(&outbox).is_empty());
        outbox.push(route(3), &[1]);
        assert_eq!(outbox.written(), Written { packets: 5, bytes: 13 }, "but all is counted");
        assert_eq!(contents(&outbox), [(3, vec![vec![1]])], "nothing of the former turn");
    }

    #[test]
    fn packets_of_a_run_lie_back_to_back() {
        let mut outbox = Outbox::default();
        for (port, byte, length) in [(1, 10, 3), (2, 20, 2), (2, 21, 4), (3, 30, 1)] {
            outbox.push(route(port), &vec![byte; length]);
        }
        let mut runs: Vec<_> = outbox.runs().map(|(_, packets)| packets).collect();
        let bytes: Vec<&[u8]> = runs.iter().map(Packets::bytes).collect();
        assert_eq!(bytes, [&[10, 10, 10][..], &[20, 20, 21, 21, 21, 21], &[30]]);
        runs[1].next();
        assert_eq!(runs[1].bytes(), [21; 4]);
        runs[1].next();
        assert!(runs[1].bytes().is_empty() && runs[1].next().is_none());
    }

    #[test]
    fn a_packet_takes_what_was_written_and_nothing_when_nothing_was() {
        let mut outbox = Outbox::default();
        outbox.write(route(1), |bytes| bytes.extend([7, 8]));
        outbox.write(route(2), |_| {});
        assert_eq!(contents(&outbox), [(1, vec![vec![7, 8]])]);
    }

    #[test]
    fn it_is_full_before_it_is_large_and_still_takes_more() {
        let mut outbox = Outbox::default();
        let mut packets = 0;
        while !outbox.is_full() {
            outbox.push(route(1), &[0; 1200]);
            packets += 1;
        }
        assert_eq!(packets, FULL_BYTES.div_ceil(1200));
        outbox.push(route(1), &[0; 1200]);
        assert_eq!(outbox.len(), packets + 1);
    }
}
