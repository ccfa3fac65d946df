//! The UDP socket that STUN, DTLS, RTP and RTCP of every connection share.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use mio::net::UdpSocket;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

use crate::transport::{Protocol, Route};

/// Holds half a second of a busy room while the thread is held up; the kernel may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// An Ethernet frame. Longer datagrams are cut by the kernel and fail their integrity check.
const DATAGRAM_BYTES: usize = 1500;

pub(super) struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    buffers: Vec<Vec<u8>>,
    metas: Vec<RecvMeta>,
    /// The candidate addresses, which is what the rooms know us by.
    candidates: Vec<SocketAddr>,
    /// The local address that stands behind each candidate: another one behind a NAT.
    local: HashMap<SocketAddr, IpAddr>,
    /// The socket listens on every address, so each packet has to say which one it leaves from.
    wildcard: bool,
}

impl Udp {
    pub fn bind(listen: SocketAddr) -> io::Result<Udp> {
        let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(SocketProtocol::UDP))?;
        if listen.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&listen.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Best effort: an unprivileged process gets what net.core.*mem_max allows.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_BYTES);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        let size = DATAGRAM_BYTES * state.gro_segments();
        Ok(Udp {
            socket: UdpSocket::from_std(socket.into()),
            buffers: vec![vec![0; size]; BATCH_SIZE],
            metas: vec![RecvMeta::default(); BATCH_SIZE],
            state,
            candidates: Vec::new(),
            local: HashMap::new(),
            wildcard: listen.ip().is_unspecified(),
        })
    }

    /// Where it listens; the port is known even when any was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Tells it the candidates that peers address it by.
    pub fn know(&mut self, candidates: &[(Protocol, SocketAddr)]) {
        self.candidates = candidates.iter().filter(|(p, _)| *p == Protocol::Udp).map(|(_, a)| *a).collect();
    }

    pub fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    /// Reads one batch and gives each datagram with its sender and the candidate it came to. False when nothing waits.
    pub fn receive(&mut self, mut each: impl FnMut(SocketAddr, SocketAddr, &[u8])) -> io::Result<bool> {
        let mut slices: Vec<IoSliceMut<'_>> = self.buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let count = match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut self.metas) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        for (meta, buffer) in self.metas.iter().zip(&self.buffers).take(count) {
            let Some(candidate) = candidate_for(&self.candidates, meta.dst_ip, meta.addr) else { continue };
            if let Some(ip) = meta.dst_ip {
                self.local.insert(candidate, ip);
            }
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                each(canonical(meta.addr), candidate, datagram);
            }
        }
        Ok(true)
    }

    /// Sends one packet from the address that its candidate stands for. A full socket buffer drops it, as a network would.
    pub fn send(&self, route: Route, packet: &[u8]) -> io::Result<()> {
        let src_ip = if self.wildcard { self.local.get(&route.source).copied() } else { None };
        let transmit = quinn_udp::Transmit {
            destination: route.destination,
            ecn: None,
            contents: packet,
            segment_size: None,
            src_ip,
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }
}

/// The candidate a datagram was sent to: the one with its destination address, else (behind a NAT) the first of its family.
fn candidate_for(candidates: &[SocketAddr], destination: Option<IpAddr>, source: SocketAddr) -> Option<SocketAddr> {
    let destination = destination.map(|ip| ip.to_canonical());
    let exact = candidates.iter().find(|c| Some(c.ip()) == destination);
    let family = canonical(source).is_ipv4();
    exact.or_else(|| candidates.iter().find(|c| c.is_ipv4() == family)).copied()
}

/// A dual-stack socket shows IPv4 peers as IPv6; ICE knows them as what they are.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
