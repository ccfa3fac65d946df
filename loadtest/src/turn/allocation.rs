//! One client of a TURN server: its socket, and the conversation that keeps its allocation, from the first request to the last.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use stun_types::message::TransactionId;

use super::credentials::Credentials;
use super::flow::Flow;
use super::message::{self, Answer, Authentication, Request};
use crate::machine;

/// Holds a burst for each of a few hundred milliseconds while the thread is busy with others.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;
/// The first wait for an answer, doubled each time (RFC 8489 §6.2.1).
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Requests sent before an answer is not waited for any more: 15 s.
const MOST_ATTEMPTS: u32 = 5;
/// Challenges in a row: one for the realm, one for a nonce that has just expired. A server that goes on does not believe us.
const MOST_CHALLENGES: u32 = 3;
/// Permissions last five minutes (RFC 8656 §9), and binding the channel again renews them too.
const REBIND_INTERVAL: Duration = Duration::from_secs(240);

/// Where an allocation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Allocating,
    /// It has its relayed address, and waits to be told its peer.
    Allocated,
    Binding,
    /// Data flows.
    Ready,
    Releasing,
    Gone,
    Failed(Failure),
}

/// Why an allocation did not come about, or was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The server's error code.
    Refused(u16),
    Silence,
    /// Its answer has no relayed address, or a name does not fit.
    Answer,
}

struct Transaction {
    request: Request,
    id: TransactionId,
    bytes: Vec<u8>,
    attempts: u32,
    due: Instant,
}

pub struct Allocation {
    pub socket: UdpSocket,
    pub udp: UdpSocketState,
    server: SocketAddr,
    credentials: Credentials,
    authentication: Option<Authentication>,
    pub state: State,
    transaction: Option<Transaction>,
    challenges: u32,
    /// When it was first asked for.
    pub begun: Instant,
    /// Where peers reach it.
    pub relayed: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    lifetime: Duration,
    refresh_at: Instant,
    rebind_at: Instant,
    /// To the peer, and from it.
    pub up: Flow,
    pub down: Flow,
}

impl Allocation {
    /// Opens a socket, and asks.
    pub fn open(
        local: SocketAddr,
        server: SocketAddr,
        credentials: Credentials,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> io::Result<Allocation> {
        let (socket, udp) = bind(local, SOCKET_BUFFER_BYTES)?;
        let mut allocation = Allocation {
            socket,
            udp,
            server,
            credentials,
            authentication: None,
            state: State::Allocating,
            transaction: None,
            challenges: 0,
            begun: now,
            relayed: None,
            peer: None,
            lifetime: Duration::ZERO,
            refresh_at: now,
            rebind_at: now,
            up: Flow::default(),
            down: Flow::default(),
        };
        allocation.ask(Request::Allocate, now, random);
        Ok(allocation)
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        match (&self.transaction, self.state) {
            (Some(transaction), _) => Some(transaction.due),
            (None, State::Ready) => Some(self.refresh_at.min(self.rebind_at)),
            (None, State::Allocated) => Some(self.refresh_at),
            (None, _) => None,
        }
    }

    /// Sends packets of `segment` bytes, back to back in `bytes`.
    pub fn send(&self, bytes: &[u8], segment: usize) -> bool {
        send(&self.socket, &self.udp, self.server, bytes, segment)
    }

    /// Its peer is known: binds the channel.
    pub fn bind(&mut self, peer: SocketAddr, now: Instant, random: &mut fastrand::Rng) {
        self.peer = Some(peer);
        self.state = State::Binding;
        self.ask(Request::Bind(peer), now, random);
    }

    /// Gives it back.
    pub fn release(&mut self, now: Instant, random: &mut fastrand::Rng) {
        match self.relayed {
            Some(_) if !matches!(self.state, State::Failed(_)) => {
                self.state = State::Releasing;
                self.ask(Request::Release, now, random);
            }
            _ => self.state = State::Gone,
        }
    }

    fn ask(&mut self, request: Request, now: Instant, random: &mut fastrand::Rng) {
        let id = TransactionId::from(random.u128(..));
        let Some(bytes) = message::write(request, id, self.authentication.as_ref()) else {
            return self.fail(Failure::Answer);
        };
        self.send(&bytes, bytes.len());
        self.transaction = Some(Transaction { request, id, bytes, attempts: 1, due: now + FIRST_WAIT });
    }

    fn fail(&mut self, failure: Failure) {
        self.transaction = None;
        // Who leaves needs no reason.
        self.state = if self.state == State::Releasing { State::Gone } else { State::Failed(failure) };
    }

    pub fn handle_timeout(&mut self, now: Instant, random: &mut fastrand::Rng) {
        if let Some(transaction) = &mut self.transaction {
            if transaction.due > now {
                return;
            }
            if transaction.attempts >= MOST_ATTEMPTS {
                return self.fail(Failure::Silence);
            }
            transaction.due = now + FIRST_WAIT * (1 << transaction.attempts);
            transaction.attempts += 1;
            let bytes = std::mem::take(&mut transaction.bytes);
            self.send(&bytes, bytes.len());
            if let Some(transaction) = &mut self.transaction {
                transaction.bytes = bytes;
            }
            return;
        }
        if self.refresh_at <= now {
            self.ask(Request::Refresh, now, random);
        } else if let (true, Some(peer)) = (self.rebind_at <= now, self.peer) {
            self.ask(Request::Bind(peer), now, random);
        }
    }

    /// A STUN message came. True when the state changed.
    pub fn answer(&mut self, bytes: &[u8], now: Instant, random: &mut fastrand::Rng) -> bool {
        let Some(transaction) = &self.transaction else { return false };
        let request = transaction.request;
        let Some(answer) = message::read(bytes, transaction.id, self.authentication.as_ref()) else { return false };
        self.transaction = None;
        let before = self.state;
        match answer {
            Answer::Challenge { code, realm, nonce } => self.challenged(request, code, realm, nonce, now, random),
            Answer::Refused(code) => self.fail(Failure::Refused(code)),
            Answer::Success { relayed, lifetime } => {
                self.challenges = 0;
                self.succeeded(request, relayed, lifetime, now);
            }
        }
        self.state != before
    }

    fn challenged(
        &mut self,
        request: Request,
        code: u16,
        realm: Option<String>,
        nonce: String,
        now: Instant,
        random: &mut fastrand::Rng,
    ) {
        self.challenges += 1;
        let known = self.authentication.as_ref().map(|known| known.realm.clone());
        // 401 after we said who we are: the server does not know the secret.
        let refused = code == 401 && known.is_some();
        match realm.or(known) {
            Some(realm) if !refused && self.challenges <= MOST_CHALLENGES => {
                self.authentication = Some(Authentication::new(&self.credentials, realm, nonce));
                self.ask(request, now, random);
            }
            _ => self.fail(Failure::Refused(code)),
        }
    }

    fn succeeded(&mut self, request: Request, relayed: Option<SocketAddr>, lifetime: Option<u32>, now: Instant) {
        if let Some(seconds) = lifetime {
            self.lifetime = Duration::from_secs(seconds.into());
            self.refresh_at = now + self.lifetime / 2;
        }
        match request {
            Request::Allocate => match relayed {
                Some(relayed) if !self.lifetime.is_zero() => {
                    (self.relayed, self.state) = (Some(relayed), State::Allocated);
                }
                _ => self.fail(Failure::Answer),
            },
            Request::Bind(_) => {
                self.rebind_at = now + REBIND_INTERVAL;
                if self.state == State::Binding {
                    self.state = State::Ready;
                }
            }
            Request::Refresh => {}
            Request::Release => self.state = State::Gone,
        }
    }
}

/// A socket for many packets a second.
pub fn bind(local: SocketAddr, buffer: usize) -> io::Result<(UdpSocket, UdpSocketState)> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&local.into())?;
    machine::enlarge_receive_buffer(&socket, buffer);
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    socket.set_nonblocking(true)?;
    Ok((UdpSocket::from_std(socket.into()), state))
}

/// Sends packets of `segment` bytes with as few system calls as the kernel allows. False when it took not all of them.
pub fn send(socket: &UdpSocket, state: &UdpSocketState, to: SocketAddr, bytes: &[u8], segment: usize) -> bool {
    /// What UDP over IPv4 can carry at once, segmented or not.
    const MAX_MESSAGE_BYTES: usize = 65_507;
    let at_once = state.max_gso_segments().clamp(1, (MAX_MESSAGE_BYTES / segment.max(1)).max(1));
    let mut sent = true;
    for contents in bytes.chunks(at_once * segment.max(1)) {
        let segment_size = (contents.len() > segment).then_some(segment);
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
        sent &= state.try_send(UdpSockRef::from(socket), &transmit).is_ok();
    }
    sent
}

#[cfg(test)]
mod tests;
