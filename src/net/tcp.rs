//! TCP connections of clients whose network lets no UDP through: ICE over TCP (RFC 6544), passive, and TURN over TCP and TLS
//! (RFC 8656 §3.1). Each worker's [`Wire`](super::wire::Wire) has its [`Tcp`].
//!
//! All workers accept at one listener, and a connection shows with its first bytes which of the two it is. With ICE, whose
//! it is shows with its first packet: when that names another worker, the connection moves there, see [`Moved`]. With TURN
//! it stays where it is. Those with TLS were accepted by `http`, which hands them over, see [`TurnStream`].

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Registry, Token};
use rustls::ServerConnection;
use socket2::{Domain, Protocol as SocketProtocol, Socket as RawSocket, Type};

use super::receive::canonical;
use crate::sfu::WorkerId;
use crate::transport::{Outbox, Protocol, Route};
use crate::turn::framing::Stream;
use connection::{Connection, Reading};
use places::{Place, Places};
use socket::Socket;

mod connection;
mod places;
mod socket;
#[cfg(test)]
mod tests;

/// Who connects and says nothing understandable has no business here; nor has who speaks TURN and does not get or keep an
/// allocation for so long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 16 << 10;
const LISTEN_BACKLOG: i32 = 256;

pub(super) struct Tcp {
    listener: TcpListener,
    candidates: Vec<SocketAddr>,
    connections: HashMap<Token, Connection>,
    by_route: HashMap<Route, Token>,
    /// Connections that were left with something to read; no event tells of it again.
    unread: Vec<Token>,
    /// TURN's that were closed since somebody asked.
    closed: Vec<Route>,
    next_token: usize,
    buffer: Vec<u8>,
    places: Arc<Places>,
}

/// A connection on its way to the worker that its first packet names.
pub(super) struct Moved {
    connection: Connection,
    first: Vec<u8>,
}

/// A TLS connection that turned out to carry TURN.
pub struct TurnStream {
    /// Not blocking.
    pub tcp: std::net::TcpStream,
    /// After its handshake, with what the client said already.
    pub tls: Box<ServerConnection>,
    /// Where the client is; behind a balancer what that says.
    pub client: SocketAddr,
    /// The address of ours that it came to.
    pub local: SocketAddr,
}

impl Tcp {
    /// One listener, and a handle to it for each of `workers`.
    pub fn bind(listen: SocketAddr, workers: usize, first_token: usize) -> io::Result<Vec<Tcp>> {
        let socket = RawSocket::new(Domain::for_address(listen), Type::STREAM, Some(SocketProtocol::TCP))?;
        if listen.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&listen.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        socket.set_nonblocking(true)?;
        let places = Arc::<Places>::default();
        let handles = (0..workers).map(|_| {
            Ok(Tcp {
                listener: TcpListener::from_std(socket.try_clone()?.into()),
                candidates: Vec::new(),
                connections: HashMap::new(),
                by_route: HashMap::new(),
                unread: Vec::new(),
                closed: Vec::new(),
                next_token: first_token,
                buffer: vec![0; READ_BYTES],
                places: places.clone(),
            })
        });
        handles.collect()
    }

    /// Where it listens; the port is known even when any was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Tells it the candidates that peers address it by.
    pub fn know(&mut self, candidates: &[(Protocol, SocketAddr)]) {
        self.candidates = candidates.iter().filter(|(p, _)| *p == Protocol::Tcp).map(|(_, a)| *a).collect();
    }

    pub fn source(&mut self) -> &mut TcpListener {
        &mut self.listener
    }

    pub fn accept(&mut self, registry: &Registry, now: Instant) {
        // An error other than "nothing waits" concerns one connection or the process's limits: the next event tries again.
        while let Ok((stream, client)) = self.listener.accept() {
            let client = canonical(client);
            let local = stream.local_addr().ok().map(canonical);
            let Some(candidate) = local.and_then(|local| {
                let exact = self.candidates.iter().find(|c| c.ip() == local.ip());
                exact.or_else(|| self.candidates.iter().find(|c| c.is_ipv4() == local.is_ipv4())).copied()
            }) else {
                continue;
            };
            let Some(place) = Place::take(&self.places, client.ip()) else { continue };
            let socket = Socket::new(stream, None);
            self.insert(registry, Connection::new(socket, candidate, client, now, place));
        }
    }

    fn insert(&mut self, registry: &Registry, mut connection: Connection) -> Option<Token> {
        let token = Token(self.next_token);
        self.next_token += 1;
        if !connection.socket.register(registry, token) {
            return None;
        }
        // Two with one route cannot both live, but the end of the first may not have come to us yet.
        if let Some(former) = self.by_route.insert(connection.route, token) {
            self.close(registry, former);
        }
        self.connections.insert(token, connection);
        Some(token)
    }

    /// Reads and writes what a connection is ready for; gives each packet with what it is and the route that leads back to
    /// its sender. When its first packet is `elsewhere`, the connection is given back to be moved there.
    pub fn ready(
        &mut self,
        registry: &Registry,
        token: Token,
        now: Instant,
        elsewhere: impl Fn(&[u8]) -> Option<WorkerId>,
        mut each: impl FnMut(Stream, Route, &[u8]),
    ) -> Option<(WorkerId, Moved)> {
        let connection = self.connections.get_mut(&token)?;
        let read = connection.flush().and_then(|()| connection.read(&mut self.buffer, now, &elsewhere, &mut each));
        // What was read may have made TLS say something.
        let done = read.and_then(|reading| connection.flush().map(|()| reading));
        match done {
            Ok(Reading::Dry) => None,
            Ok(Reading::Paused) => {
                self.unread.push(token);
                None
            }
            Ok(Reading::Moves(to, first)) => {
                let connection = self.remove(registry, token)?;
                Some((to, Moved { connection, first }))
            }
            Err(_) => {
                self.close(registry, token);
                None
            }
        }
    }

    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Adds the connections that were left with something to read to those that are `ready`.
    pub fn take_unread(&mut self, ready: &mut Vec<Token>) {
        ready.append(&mut self.unread);
    }

    /// Takes over a connection that another worker accepted.
    pub fn adopt(
        &mut self,
        registry: &Registry,
        now: Instant,
        moved: Moved,
        mut each: impl FnMut(Stream, Route, &[u8]),
    ) {
        let Moved { mut connection, first } = moved;
        connection.settle();
        each(Stream::Ice, connection.route, &first);
        // What had been read behind the first packet; the rest is an event of its own.
        let Some(token) = self.insert(registry, connection) else { return };
        self.ready(registry, token, now, |_| None, each);
    }

    /// Takes over a TLS connection that `http` accepted. What it said already is read with the next turn.
    pub fn adopt_turn(&mut self, registry: &Registry, now: Instant, stream: TurnStream) {
        let TurnStream { tcp, tls, client, local } = stream;
        let (client, local) = (canonical(client), canonical(local));
        let Some(place) = Place::take(&self.places, client.ip()) else { return };
        let socket = Socket::new(TcpStream::from_std(tcp), Some(tls));
        let connection = Connection::new(socket, local, client, now, place).speaking_turn();
        let token = self.insert(registry, connection);
        // What TLS holds already is no event of the socket's.
        self.unread.extend(token);
    }

    /// Sends all that goes by TCP: on the connection of its route, dropped when there is none any more.
    pub fn send(&mut self, registry: &Registry, outbox: &Outbox) {
        for (route, packets) in outbox.runs().filter(|(route, _)| route.protocol == Protocol::Tcp) {
            let Some(token) = self.by_route.get(&route).copied() else { continue };
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            packets.for_each(|packet| connection.queue(packet));
            if connection.flush().is_err() {
                self.close(registry, token);
            }
        }
    }

    /// TURN's connections that were closed, by us or by their clients, since this was last asked.
    pub fn take_closed(&mut self) -> Vec<Route> {
        std::mem::take(&mut self.closed)
    }

    /// Ends those that nobody has a use for; to be called every second. `holds`: whether an allocation hangs on this route.
    pub fn close_idle(&mut self, registry: &Registry, now: Instant, holds: impl Fn(&Route) -> bool) {
        let mut idle = Vec::new();
        for (token, connection) in &mut self.connections {
            if connection.stream() == Some(Stream::Turn) && holds(&connection.route) {
                connection.alive = now;
            } else if now.saturating_duration_since(connection.alive) > IDLE_TIMEOUT {
                idle.push(*token);
            }
        }
        for token in idle {
            self.close(registry, token);
        }
    }

    /// `which`: by what they carry, as far as that is known.
    pub fn close_all(&mut self, registry: &Registry, which: impl Fn(Option<Stream>) -> bool) {
        let chosen = self.connections.iter().filter(|(_, connection)| which(connection.stream()));
        let tokens: Vec<Token> = chosen.map(|(token, _)| *token).collect();
        for token in tokens {
            self.close(registry, token);
        }
    }

    fn close(&mut self, registry: &Registry, token: Token) {
        let Some(connection) = self.remove(registry, token) else { return };
        if connection.stream() == Some(Stream::Turn) {
            self.closed.push(connection.route);
        }
        connection.socket.close();
    }

    fn remove(&mut self, registry: &Registry, token: Token) -> Option<Connection> {
        let mut connection = self.connections.remove(&token)?;
        // Another connection may have come from there since.
        if self.by_route.get(&connection.route) == Some(&token) {
            self.by_route.remove(&connection.route);
        }
        connection.socket.deregister(registry);
        Some(connection)
    }
}
