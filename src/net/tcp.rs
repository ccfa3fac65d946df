//! ICE over TCP (RFC 6544), passive: clients whose network lets no UDP through connect to the same port number.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

use super::udp::canonical;
use crate::transport::Protocol;
use crate::transport::framing::{self, Deframer};

/// Connections that may be open at once. Each costs a file descriptor and its buffers.
const MAX_CONNECTIONS: usize = 4096;
/// Connections of one address: a household or office behind one NAT, not a flood.
const MAX_PER_ADDRESS: usize = 64;
/// Who connects and says nothing understandable has no business here.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Unsent bytes of one connection: a second of video. Media older than that is worthless; what is beyond is dropped.
const MAX_BACKLOG_BYTES: usize = 1 << 18;
const READ_BYTES: usize = 16 << 10;
const LISTEN_BACKLOG: i32 = 256;

pub(super) struct Tcp {
    listener: TcpListener,
    candidates: Vec<SocketAddr>,
    connections: HashMap<Token, Connection>,
    by_peer: HashMap<SocketAddr, Token>,
    next_token: usize,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// The candidate it was accepted at.
    local: SocketAddr,
    deframer: Deframer,
    backlog: VecDeque<u8>,
    last_read: Instant,
}

impl Tcp {
    pub fn bind(listen: SocketAddr, first_token: usize) -> io::Result<Tcp> {
        let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(SocketProtocol::TCP))?;
        if listen.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&listen.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Tcp {
            listener: TcpListener::from_std(socket.into()),
            candidates: Vec::new(),
            connections: HashMap::new(),
            by_peer: HashMap::new(),
            next_token: first_token,
            buffer: vec![0; READ_BYTES],
        })
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
        while let Ok((mut stream, peer)) = self.listener.accept() {
            let peer = canonical(peer);
            let from_address = self.by_peer.keys().filter(|p| p.ip() == peer.ip()).count();
            let local = stream.local_addr().ok().map(canonical);
            let Some(candidate) = local.and_then(|local| {
                let exact = self.candidates.iter().find(|c| c.ip() == local.ip());
                exact.or_else(|| self.candidates.iter().find(|c| c.is_ipv4() == local.is_ipv4())).copied()
            }) else {
                continue;
            };
            if self.connections.len() >= MAX_CONNECTIONS || from_address >= MAX_PER_ADDRESS {
                continue;
            }
            let token = Token(self.next_token);
            self.next_token += 1;
            let _ = stream.set_nodelay(true);
            if registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).is_err() {
                continue;
            }
            let connection = Connection {
                stream,
                peer,
                local: candidate,
                deframer: Deframer::default(),
                backlog: VecDeque::new(),
                last_read: now,
            };
            self.by_peer.insert(peer, token);
            self.connections.insert(token, connection);
        }
    }

    /// Reads and writes what a connection is ready for; gives each frame as [`super::udp::Udp::receive`] does.
    pub fn ready(
        &mut self,
        registry: &Registry,
        token: Token,
        now: Instant,
        mut each: impl FnMut(SocketAddr, SocketAddr, &[u8]),
    ) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let alive = connection.flush().is_ok() && connection.read(&mut self.buffer, now, &mut each).is_ok();
        if !alive {
            self.close(registry, token);
        }
    }

    /// Sends a packet on the connection of its destination. Dropped when there is none any more, or its backlog is full.
    pub fn send(&mut self, registry: &Registry, destination: SocketAddr, packet: &[u8]) {
        let Some(token) = self.by_peer.get(&destination).copied() else { return };
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if connection.backlog.len() + packet.len() > MAX_BACKLOG_BYTES {
            return;
        }
        let Some(header) = framing::header(packet.len()) else { return };
        connection.backlog.extend(header);
        connection.backlog.extend(packet);
        if connection.flush().is_err() {
            self.close(registry, token);
        }
    }

    pub fn close_idle(&mut self, registry: &Registry, now: Instant) {
        let idle = |c: &Connection| now.saturating_duration_since(c.last_read) > IDLE_TIMEOUT;
        let tokens: Vec<Token> = self.connections.iter().filter(|(_, c)| idle(c)).map(|(token, _)| *token).collect();
        for token in tokens {
            self.close(registry, token);
        }
    }

    fn close(&mut self, registry: &Registry, token: Token) {
        if let Some(mut connection) = self.connections.remove(&token) {
            self.by_peer.remove(&connection.peer);
            let _ = registry.deregister(&mut connection.stream);
        }
    }
}

impl Connection {
    fn flush(&mut self) -> io::Result<()> {
        while !self.backlog.is_empty() {
            let (front, _) = self.backlog.as_slices();
            match self.stream.write(front) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.backlog.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(
        &mut self,
        buffer: &mut [u8],
        now: Instant,
        each: &mut impl FnMut(SocketAddr, SocketAddr, &[u8]),
    ) -> io::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.last_read = now;
                    self.deframer.push(&buffer[..count]).map_err(io::Error::other)?;
                    while let Some(datagram) = self.deframer.next_frame().map_err(io::Error::other)? {
                        each(self.peer, self.local, datagram);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
