//! A worker's UDP socket, which STUN, DTLS, RTP and RTCP of every connection share. All workers' sockets have the same port:
//! the kernel deals packets out by sender (SO_REUSEPORT).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use mio::net::UdpSocket;
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

use super::receive::{Arrival, Receiver};
use super::send::Sender;
use crate::transport::{Outbox, Protocol, Route};

/// Holds half a second of a busy room while the thread is held up; the kernel may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

pub(super) struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    pub sender: Sender,
    pub receiver: Receiver,
    /// The candidate addresses, which is what the rooms know us by.
    candidates: Vec<Candidate>,
    /// The socket listens on every address, so each packet has to say which one it leaves from.
    wildcard: bool,
}

struct Candidate {
    address: SocketAddr,
    /// The local address that stands behind it.
    local: Option<IpAddr>,
}

/// A datagram with its sender and the candidate it came to.
#[derive(Clone, Copy)]
pub(super) struct Received<'a> {
    pub source: SocketAddr,
    pub candidate: SocketAddr,
    /// The address it was sent to as this machine sees it: another one than the candidate's behind a NAT.
    pub local: Option<IpAddr>,
    pub bytes: &'a [u8],
}

impl Udp {
    /// A socket for each of `workers`, at least one. The first decides the port when any was asked for.
    pub fn bind(listen: SocketAddr, workers: usize) -> io::Result<Vec<Udp>> {
        // The first does not share when it is bound, so that a second server on the same port is an error as ever.
        let first = open(listen)?;
        first.bind(&listen.into())?;
        let mut sockets = vec![first];
        if workers > 1 {
            sockets[0].set_reuse_port(true)?;
            let address = sockets[0].local_addr()?;
            for _ in 1..workers {
                let next = open(listen)?;
                next.set_reuse_port(true)?;
                next.bind(&address)?;
                sockets.push(next);
            }
        }
        sockets.into_iter().map(|socket| Udp::new(socket, listen.ip().is_unspecified())).collect()
    }

    fn new(socket: Socket, wildcard: bool) -> io::Result<Udp> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Best effort: an unprivileged process gets what net.core.*mem_max allows.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_BYTES);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        Ok(Udp {
            socket: UdpSocket::from_std(socket.into()),
            sender: Sender::new(state.max_gso_segments() > 1),
            receiver: Receiver::new(&state),
            state,
            candidates: Vec::new(),
            wildcard,
        })
    }

    /// Where it listens; the port is known even when any was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Tells it the candidates that peers address it by.
    pub fn know(&mut self, candidates: &[(Protocol, SocketAddr)]) {
        let udp = candidates.iter().filter(|(protocol, _)| *protocol == Protocol::Udp);
        self.candidates = udp.map(|(_, address)| Candidate { address: *address, local: None }).collect();
    }

    pub fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    /// Reads one batch. Whether more may wait.
    pub fn receive(&mut self, mut each: impl FnMut(Received<'_>)) -> io::Result<bool> {
        let Udp { socket, state, receiver, candidates, .. } = self;
        receiver.receive(UdpSockRef::from(&*socket), state, |Arrival { source, local, bytes }| {
            if let Some(candidate) = reached(candidates, local, source) {
                each(Received { source, candidate, local, bytes });
            }
        })
    }

    /// Learns from a datagram that came to another worker's socket.
    pub fn handed_over(&mut self, received: &Received<'_>) {
        reached(&mut self.candidates, received.local, received.source);
    }

    /// Sends all that goes by UDP and is not for this very process, from the addresses that the candidates stand for.
    pub fn send(&mut self, outbox: &Outbox, inward: impl Fn(&Route) -> bool) {
        let mut batch = self.sender.batch(self.socket.as_fd());
        for (route, packets) in outbox.runs().filter(|(route, _)| route.protocol == Protocol::Udp && !inward(route)) {
            let known = self.candidates.iter().find(|c| self.wildcard && c.address == route.source);
            batch.run(route.destination, known.and_then(|c| c.local), packets);
        }
        batch.flush();
    }
}

fn open(listen: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(SocketProtocol::UDP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// The candidate a datagram was sent to: the one with its destination address, else (behind a NAT) the first of its family.
/// Answers leave from that address; but who sends to another address of this machine must not change where those of a
/// candidate that is one itself leave from.
fn reached(candidates: &mut [Candidate], local: Option<IpAddr>, source: SocketAddr) -> Option<SocketAddr> {
    let exact = candidates.iter().position(|c| Some(c.address.ip()) == local);
    let index = exact.or_else(|| candidates.iter().position(|c| c.address.is_ipv4() == source.is_ipv4()))?;
    let candidate = &mut candidates[index];
    if local.is_some() && (exact.is_some() || candidate.local != Some(candidate.address.ip())) {
        candidate.local = local;
    }
    Some(candidate.address)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn bound(listen: &str, workers: usize) -> Vec<Udp> {
        Udp::bind(listen.parse().unwrap(), workers).unwrap()
    }

    fn know_own(udp: &mut Udp) {
        let address = SocketAddr::from(([127, 0, 0, 1], udp.address().unwrap().port()));
        udp.know(&[(Protocol::Udp, address)]);
    }

    #[test]
    fn all_workers_share_a_port_and_nobody_else_does() {
        let sockets = bound("127.0.0.1:0", 4);
        let address = sockets[0].address().unwrap();
        assert!(sockets.iter().all(|udp| udp.address().unwrap() == address) && address.port() != 0);
        for workers in [1, 4] {
            let second = Udp::bind(address, workers).map(|_| ()).unwrap_err();
            assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn every_packet_arrives_at_one_of_the_sockets() {
        let mut sockets = bound("127.0.0.1:0", 4);
        sockets.iter_mut().for_each(know_own);
        let address = sockets[0].address().unwrap();
        let peers: Vec<_> = (0..64).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for peer in &peers {
            for length in [1200, 1200, 300] {
                peer.send_to(&vec![7; length], address).unwrap();
            }
        }
        let mut arrived = [0; 4];
        let deadline = Instant::now() + Duration::from_secs(5);
        while arrived.iter().sum::<i32>() < 192 {
            assert!(Instant::now() < deadline, "{arrived:?}");
            for (udp, count) in sockets.iter_mut().zip(&mut arrived) {
                udp.receive(|received| {
                    assert_eq!(received.candidate, address);
                    assert!([1200, 300].contains(&received.bytes.len()));
                    *count += 1;
                })
                .unwrap();
            }
        }
        assert!(arrived.iter().all(|count| *count > 0), "{arrived:?}");
    }

    #[test]
    fn answers_leave_from_the_address_that_was_asked() {
        let udp = &mut bound("0.0.0.0:0", 1)[0];
        know_own(udp);
        let port = udp.address().unwrap().port();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let source = SocketAddr::from(([127, 0, 0, 1], port));
        let route = Route { protocol: Protocol::Udp, source, destination: peer.local_addr().unwrap() };
        let mut outbox = Outbox::default();
        outbox.push(route, b"answer");
        // To another address of the machine first, then to the candidate, then to the other again.
        for (asked, from) in
            [([127, 0, 0, 2], [127, 0, 0, 2]), ([127, 0, 0, 1], [127, 0, 0, 1]), ([127, 0, 0, 2], [127, 0, 0, 1])]
        {
            peer.send_to(b"question", SocketAddr::from((asked, port))).unwrap();
            let mut got = false;
            while !got {
                udp.receive(|received| got = received.candidate == source).unwrap();
            }
            udp.send(&outbox, |_| false);
            let mut buffer = [0; 100];
            assert_eq!(peer.recv_from(&mut buffer).unwrap().1, SocketAddr::from((from, port)));
        }
    }
}
