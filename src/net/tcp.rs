//! ICE over TCP (RFC 6544), passive: clients whose network lets no UDP through connect to the same port number.
//!
//! All workers accept at one listener. Whose a connection is shows with its first packet: when that names another worker,
//! the connection moves there, see [`Moved`].

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

use super::receive::canonical;
use crate::sfu::WorkerId;
use crate::transport::framing::{self, Deframer};
use crate::transport::{Outbox, Protocol};

/// Connections that may be open at once, over all workers. Each costs a file descriptor and its buffers.
const MAX_CONNECTIONS: usize = 4096;
/// Connections of one address: a household or office behind one NAT, not a flood.
const MAX_PER_ADDRESS: usize = 64;
/// Who connects and says nothing understandable has no business here.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Unsent bytes of one connection: a second of video. Media older than that is worthless; what is beyond is dropped.
const MAX_BACKLOG_BYTES: usize = 1 << 18;
const READ_BYTES: usize = 16 << 10;
/// Reads of one connection before the others get their turn: more than a second of video in one go is a flood.
const MAX_READS: usize = 16;
const LISTEN_BACKLOG: i32 = 256;

pub(super) struct Tcp {
    listener: TcpListener,
    candidates: Vec<SocketAddr>,
    connections: HashMap<Token, Connection>,
    by_peer: HashMap<SocketAddr, Token>,
    /// Connections that were left with something to read; no event tells of it again.
    unread: Vec<Token>,
    next_token: usize,
    buffer: Vec<u8>,
    places: Arc<Places>,
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// The candidate it was accepted at.
    local: SocketAddr,
    deframer: Deframer,
    backlog: VecDeque<u8>,
    last_read: Instant,
    /// Its first packet came, so it is known whose it is.
    settled: bool,
    _place: Place,
}

/// A connection on its way to the worker that its first packet names.
pub(super) struct Moved {
    connection: Connection,
    first: Vec<u8>,
}

/// How a reading ended.
enum Reading {
    /// All was read.
    Dry,
    /// There is more, but others wait too.
    Paused,
    /// The first packet names this worker.
    Moves(WorkerId, Vec<u8>),
}

impl Tcp {
    /// One listener, and a handle to it for each of `workers`.
    pub fn bind(listen: SocketAddr, workers: usize, first_token: usize) -> io::Result<Vec<Tcp>> {
        let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(SocketProtocol::TCP))?;
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
                by_peer: HashMap::new(),
                unread: Vec::new(),
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
        while let Ok((stream, peer)) = self.listener.accept() {
            let peer = canonical(peer);
            let local = stream.local_addr().ok().map(canonical);
            let Some(candidate) = local.and_then(|local| {
                let exact = self.candidates.iter().find(|c| c.ip() == local.ip());
                exact.or_else(|| self.candidates.iter().find(|c| c.is_ipv4() == local.is_ipv4())).copied()
            }) else {
                continue;
            };
            let Some(place) = Place::take(&self.places, peer.ip()) else { continue };
            let _ = stream.set_nodelay(true);
            self.insert(
                registry,
                Connection {
                    stream,
                    peer,
                    local: candidate,
                    deframer: Deframer::default(),
                    backlog: VecDeque::new(),
                    last_read: now,
                    settled: false,
                    _place: place,
                },
            );
        }
    }

    fn insert(&mut self, registry: &Registry, mut connection: Connection) -> Option<Token> {
        let token = Token(self.next_token);
        self.next_token += 1;
        registry.register(&mut connection.stream, token, Interest::READABLE | Interest::WRITABLE).ok()?;
        self.by_peer.insert(connection.peer, token);
        self.connections.insert(token, connection);
        Some(token)
    }

    /// Reads and writes what a connection is ready for; gives each packet with its sender and the candidate it came to. When
    /// its first packet is `elsewhere`, the connection is given back to be moved there.
    pub fn ready(
        &mut self,
        registry: &Registry,
        token: Token,
        now: Instant,
        elsewhere: impl Fn(&[u8]) -> Option<WorkerId>,
        mut each: impl FnMut(SocketAddr, SocketAddr, &[u8]),
    ) -> Option<(WorkerId, Moved)> {
        let connection = self.connections.get_mut(&token)?;
        let done = connection.flush().and_then(|()| connection.read(&mut self.buffer, now, &elsewhere, &mut each));
        match done {
            Ok(Reading::Dry) => None,
            Ok(Reading::Paused) => {
                self.unread.push(token);
                None
            }
            Ok(Reading::Moves(to, first)) => {
                let connection = self.close(registry, token)?;
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
        mut each: impl FnMut(SocketAddr, SocketAddr, &[u8]),
    ) {
        let Moved { mut connection, first } = moved;
        connection.settled = true;
        each(connection.peer, connection.local, &first);
        // What had been read behind the first packet; the rest is an event of its own.
        let Some(token) = self.insert(registry, connection) else { return };
        self.ready(registry, token, now, |_| None, each);
    }

    /// Sends all that goes by TCP.
    pub fn send(&mut self, registry: &Registry, outbox: &Outbox) {
        for (route, packets) in outbox.runs().filter(|(route, _)| route.protocol == Protocol::Tcp) {
            packets.for_each(|packet| self.send_packet(registry, route.destination, packet));
        }
    }

    /// Sends a packet on the connection of its destination. Dropped when there is none any more, or its backlog is full.
    fn send_packet(&mut self, registry: &Registry, destination: SocketAddr, packet: &[u8]) {
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

    pub fn close_all(&mut self, registry: &Registry) {
        let tokens: Vec<Token> = self.connections.keys().copied().collect();
        for token in tokens {
            self.close(registry, token);
        }
    }

    fn close(&mut self, registry: &Registry, token: Token) -> Option<Connection> {
        let mut connection = self.connections.remove(&token)?;
        // Another connection may have come from there since.
        if self.by_peer.get(&connection.peer) == Some(&token) {
            self.by_peer.remove(&connection.peer);
        }
        let _ = registry.deregister(&mut connection.stream);
        Some(connection)
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
        elsewhere: &impl Fn(&[u8]) -> Option<WorkerId>,
        each: &mut impl FnMut(SocketAddr, SocketAddr, &[u8]),
    ) -> io::Result<Reading> {
        let mut reads = 0;
        loop {
            while let Some(packet) = self.deframer.next_frame().map_err(io::Error::other)? {
                if !std::mem::replace(&mut self.settled, true)
                    && let Some(worker) = elsewhere(packet)
                {
                    return Ok(Reading::Moves(worker, packet.to_vec()));
                }
                each(self.peer, self.local, packet);
            }
            if reads == MAX_READS {
                return Ok(Reading::Paused);
            }
            reads += 1;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.last_read = now;
                    self.deframer.push(&buffer[..count]).map_err(io::Error::other)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Reading::Dry),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Who holds how many of the connections that may be open; shared by all workers.
#[derive(Default)]
struct Places(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, free again when dropped.
struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Place {
    fn take(places: &Arc<Places>, address: IpAddr) -> Option<Place> {
        let mut taken = places.lock();
        let own = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= MAX_CONNECTIONS || own >= MAX_PER_ADDRESS {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, own + 1);
        Some(Place { places: places.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}
