//! The sockets of relayed addresses: one for each that a peer outside of this process may reach, opened when the first such
//! peer is permitted. They lie in the poll of the worker that has the allocation; [`Relay`](super::relay::Relay) owns them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

use super::receive::{Arrival, Receiver};
use super::send::Sender;
use crate::transport::Outbox;
use crate::turn::Ports;

/// Tokens from here on are relayed addresses; a worker will not see so many other sockets.
const FIRST_TOKEN: usize = 1 << 32;
/// One of each family may have the same port.
const TOKENS_PER_FAMILY: usize = 1 << 16;
/// Batches read from one socket before the others get their turn: one peer is at most a few streams of a call.
const MAX_BATCHES: usize = 2;

pub(super) struct RelaySockets {
    registry: Registry,
    sockets: HashMap<Token, RelaySocket>,
    /// Bound when a relayed address is none of this machine's, as behind a NAT: what the media port listens on.
    listen: IpAddr,
    /// Sockets that were left with something to read; no event tells of it again.
    unread: Vec<Token>,
}

struct RelaySocket {
    socket: UdpSocket,
    state: UdpSocketState,
    relay: SocketAddr,
}

impl RelaySockets {
    /// `registry`: of the poll of this worker.
    pub fn new(registry: Registry, listen: IpAddr) -> RelaySockets {
        RelaySockets { registry, sockets: HashMap::new(), listen, unread: Vec::new() }
    }

    /// Whether an event is of one of these.
    pub fn has(token: Token) -> bool {
        token.0 >= FIRST_TOKEN
    }

    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Adds the sockets that were left with something to read to those that are `ready`.
    pub fn take_unread(&mut self, ready: &mut Vec<Token>) {
        ready.append(&mut self.unread);
    }

    /// Reads what there is, within bounds; gives each datagram with the relayed address it came to.
    pub fn receive(&mut self, token: Token, receiver: &mut Receiver, mut each: impl FnMut(SocketAddr, Arrival<'_>)) {
        let Some(RelaySocket { socket, state, relay }) = self.sockets.get(&token) else { return };
        for _ in 0..MAX_BATCHES {
            let more = receiver.receive(UdpSockRef::from(socket), state, |arrival| each(*relay, arrival));
            // An error tells of one packet sent before (ICMP): the socket itself is fine, and more may wait.
            if !more.unwrap_or(true) {
                return;
            }
        }
        self.unread.push(token);
    }

    /// Sends each run from the socket of the relayed address it comes from.
    pub fn send(&self, outbox: &Outbox, sender: &mut Sender) {
        for (route, packets) in outbox.runs() {
            let Some(from) = self.sockets.get(&token(route.source)) else { continue };
            let mut batch = sender.batch(from.socket.as_fd());
            batch.run(route.destination, None, packets);
            batch.flush();
        }
    }

    /// A socket with the port of `relay`, at its address or at what stands for it on this machine.
    fn bind(&self, relay: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(relay), Type::DGRAM, Some(SocketProtocol::UDP))?;
        if relay.is_ipv6() {
            // IPv4 has relayed addresses of its own with this port.
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        match socket.bind(&relay.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                socket.bind(&SocketAddr::new(self.stand_in(relay), relay.port()).into())?;
            }
            bound => bound?,
        }
        Ok(socket)
    }

    fn stand_in(&self, relay: SocketAddr) -> IpAddr {
        match relay {
            _ if relay.is_ipv4() == self.listen.is_ipv4() => self.listen,
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    fn listen_on(&mut self, relay: SocketAddr) -> io::Result<()> {
        let socket = self.bind(relay)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let mut socket = UdpSocket::from_std(socket.into());
        let token = token(relay);
        self.registry.register(&mut socket, token, Interest::READABLE)?;
        self.sockets.insert(token, RelaySocket { socket, state, relay });
        Ok(())
    }

    pub fn close_all(&mut self) {
        self.sockets.clear();
        self.unread.clear();
    }
}

impl Ports for RelaySockets {
    fn is_free(&mut self, relay: SocketAddr) -> bool {
        self.bind(relay).is_ok()
    }

    fn open(&mut self, relay: SocketAddr) -> bool {
        let opened = self.listen_on(relay);
        if let Err(error) = &opened {
            tracing::debug!(port = relay.port(), %error, "cannot open the socket of a relayed address");
        }
        opened.is_ok()
    }

    fn close(&mut self, relay: SocketAddr) {
        if let Some(mut closed) = self.sockets.remove(&token(relay)) {
            let _ = self.registry.deregister(&mut closed.socket);
        }
    }
}

/// Known by arithmetic, so that neither an event nor a packet to send needs a second list.
fn token(relay: SocketAddr) -> Token {
    let family = if relay.is_ipv6() { TOKENS_PER_FAMILY } else { 0 };
    Token(FIRST_TOKEN + family + usize::from(relay.port()))
}
