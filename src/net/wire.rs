//! Everything of a worker that touches the network: its sockets, the wait for them, and the other workers behind the same
//! port. Outlives the rooms when they panic, so that the others get their packets all the while.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};
use tracing::warn;

use super::post::{Mail, Mailbox, Post};
use super::relay::{self, Relay};
use super::relay_sockets::RelaySockets;
use super::tcp::{Tcp, TurnStream};
use super::udp::{Received, Udp};
use super::{Options, candidates};
use crate::sfu::{Now, Sfu, WorkerId};
use crate::transport::classify::{self, classify};
use crate::transport::{Datagram, Protocol, Route};
use crate::turn::framing::Stream;

const UDP: Token = Token(0);
const LISTENER: Token = Token(1);
const WAKER: Token = Token(2);
const FIRST_CONNECTION: usize = 3;

const EVENTS: usize = 256;
/// Batches read from the UDP socket before what came of them is sent: enough for a frame of every publisher in a large
/// room, few enough that the first of them does not wait longer than a fraction of a millisecond.
const MAX_BATCHES_PER_TURN: usize = 4;

/// What a worker's sockets did since they were opened; for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub waits: u64,
    pub receive_calls: u64,
    pub send_calls: u64,
    /// System calls made to wake other workers.
    pub wakes: u64,
    /// Messages that the kernel took, of one or more packets each.
    pub messages_sent: u64,
    /// UDP packets in them.
    pub packets_sent: u64,
    /// Packets to send that the socket's buffer had no room for.
    pub send_overflowed: u64,
    /// Packets that the kernel would not send.
    pub send_refused: u64,
    /// Packets given to the worker whose they are.
    pub handed_over: u64,
    /// Packets that it had no room for.
    pub hand_over_overflowed: u64,
}

pub(super) struct Wire {
    pub udp: Udp,
    pub tcp: Tcp,
    pub post: Post,
    pub relay: Relay,
    poll: Poll,
    events: Events,
    /// The UDP socket may have more to read; no event tells of it again.
    udp_waits: bool,
    /// TCP connections that are ready.
    ready: Vec<Token>,
    /// Sockets of relayed addresses that are.
    ready_relays: Vec<Token>,
    mail: Mail,
    waits: u64,
}

/// The wires of all workers, and what goes with them.
pub(super) struct Wires {
    pub wires: Vec<Wire>,
    pub wakers: Vec<Arc<Waker>>,
    /// Where clients can reach us.
    pub candidates: Vec<(Protocol, SocketAddr)>,
}

impl Wires {
    pub fn open(options: &Options) -> io::Result<Wires> {
        let workers = options.workers;
        let mut udp = Udp::bind(options.udp, workers).map_err(|e| explain("media.udp", options.udp, e))?;
        let mut tcp =
            Tcp::bind(options.tcp, workers, FIRST_CONNECTION).map_err(|e| explain("media.tcp", options.tcp, e))?;
        let (udp_address, tcp_address) = match (udp.first(), tcp.first()) {
            (Some(udp), Some(tcp)) => (udp.address()?, tcp.address()?),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "media.workers: at least one")),
        };
        let candidates = candidates(&options.public_addresses, udp_address, tcp_address);
        let polls: Vec<Poll> = (0..workers).map(|_| Poll::new()).collect::<io::Result<_>>()?;
        let wakers: Vec<Arc<Waker>> =
            polls.iter().map(|poll| Ok(Arc::new(Waker::new(poll.registry(), WAKER)?))).collect::<io::Result<_>>()?;
        let turn = relay::settings(&options.turn, &candidates);
        let boxes: Arc<[Mailbox]> = wakers.iter().map(|waker| Mailbox::new(waker.clone())).collect();
        let mut wires = Vec::with_capacity(workers);
        for (index, poll) in polls.into_iter().enumerate() {
            let too_many = || io::Error::new(io::ErrorKind::InvalidInput, "media.workers: too many");
            let worker = WorkerId::new(index).ok_or_else(too_many)?;
            let (mut udp, mut tcp) = (udp.remove(0), tcp.remove(0));
            udp.know(&candidates);
            tcp.know(&candidates);
            poll.registry().register(udp.source(), UDP, Interest::READABLE)?;
            poll.registry().register(tcp.source(), LISTENER, Interest::READABLE)?;
            let sockets = RelaySockets::new(poll.registry().try_clone()?, options.udp.ip());
            wires.push(Wire {
                udp,
                tcp,
                post: Post::new(worker, boxes.clone()),
                relay: Relay::new(worker, turn.clone(), sockets),
                poll,
                events: Events::with_capacity(EVENTS),
                udp_waits: false,
                ready: Vec::new(),
                ready_relays: Vec::new(),
                mail: Mail::default(),
                waits: 0,
            });
        }
        Ok(Wires { wires, wakers, candidates })
    }
}

impl Wire {
    /// Waits until something can be read, another thread calls, or the time is over.
    pub fn wait(&mut self, timeout: Duration) {
        let unread = self.udp_waits || self.tcp.has_unread() || self.relay.has_unread();
        let timeout = if unread { Duration::ZERO } else { timeout };
        self.waits += 1;
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            warn!(%error, "waiting for the network failed");
        }
    }

    /// Reads what there is, within bounds; what is another worker's goes there.
    pub fn receive(&mut self, now: Now, sfu: &mut Sfu) {
        self.tcp.take_unread(&mut self.ready);
        self.relay.take_unread(&mut self.ready_relays);
        for event in &self.events {
            match event.token() {
                UDP => self.udp_waits = true,
                LISTENER => self.tcp.accept(self.poll.registry(), now.instant),
                WAKER => {}
                relayed if RelaySockets::has(relayed) => self.ready_relays.push(relayed),
                connection => self.ready.push(connection),
            }
        }
        self.events.clear();
        self.receive_udp(now, sfu);
        self.receive_tcp(now, sfu);
        self.receive_relays(now);
        self.collect(now, sfu);
        self.carry_on(now, sfu);
        self.post.dispatch();
    }

    fn receive_udp(&mut self, now: Now, sfu: &mut Sfu) {
        let (post, relay) = (&mut self.post, &mut self.relay);
        for _ in 0..MAX_BATCHES_PER_TURN {
            if !self.udp_waits {
                return;
            }
            let more = self.udp.receive(|received| match classify(received.bytes) {
                classify::Datagram::Turn => relay.receive(now, route_back(&received), received.bytes),
                kind => match post.elsewhere(&received.source, kind) {
                    Some(worker) => post.hand_over(worker, &received),
                    None => sfu.receive(now, datagram(&received)),
                },
            });
            // Errors of single peers (ICMP) end up here too: the socket itself is fine.
            self.udp_waits = more.unwrap_or(true);
            if sfu.outbox().is_full() {
                return;
            }
        }
    }

    fn receive_relays(&mut self, now: Now) {
        for token in self.ready_relays.drain(..) {
            self.relay.read(now, token, &mut self.udp.receiver);
        }
    }

    fn receive_tcp(&mut self, now: Now, sfu: &mut Sfu) {
        let mut ready = std::mem::take(&mut self.ready);
        for token in ready.drain(..) {
            let (post, relay) = (&self.post, &mut self.relay);
            let moved = self.tcp.ready(
                self.poll.registry(),
                token,
                now.instant,
                |packet| post.addressee(packet),
                |stream, route, bytes| receive_stream(now, relay, sfu, stream, route, bytes),
            );
            if let Some((worker, stream)) = moved {
                self.post.move_stream(worker, stream);
            }
        }
        self.ready = ready;
    }

    /// Takes what other workers found.
    fn collect(&mut self, now: Now, sfu: &mut Sfu) {
        if !self.post.collect(&mut self.mail) {
            return;
        }
        for received in self.mail.packets.iter() {
            if self.relay.is_relayed(received.candidate) {
                self.relay.relayed(now, received.candidate, received.source, received.bytes);
                continue;
            }
            self.udp.handed_over(&received);
            sfu.receive(now, datagram(&received));
        }
        self.mail.packets.clear();
        let relay = &mut self.relay;
        for stream in self.mail.streams.drain(..) {
            self.tcp.adopt(self.poll.registry(), now.instant, stream, |stream, route, bytes| {
                receive_stream(now, relay, sfu, stream, route, bytes);
            });
        }
    }

    /// Sends what is in the outbox. What goes to one of our own relayed addresses leaves by the allocation's client.
    pub fn send(&mut self, now: Now, sfu: &mut Sfu) {
        let outbox = sfu.outbox();
        if outbox.is_empty() {
            return;
        }
        let Wire { udp, tcp, post, relay, poll, .. } = self;
        udp.send(outbox, |route| relay.is_relayed(route.destination));
        tcp.send(poll.registry(), outbox);
        for (route, packets) in outbox.runs().filter(|(route, _)| route.protocol == Protocol::Udp) {
            let Some(owner) = relay.owner(route.destination) else { continue };
            for bytes in packets {
                if owner == post.here() {
                    relay.relayed(now, route.destination, route.source, bytes);
                } else {
                    post.hand_over(owner, &inward(route, bytes));
                }
            }
        }
        outbox.clear();
        self.send_relayed();
    }

    /// Takes what the TURN server has written where it belongs.
    fn carry_on(&mut self, now: Now, sfu: &mut Sfu) {
        let Wire { post, relay, .. } = self;
        // Taken and given back, so that its memory is used again.
        let mut outbox = std::mem::take(relay.for_ourselves());
        for (route, packets) in outbox.runs() {
            for bytes in packets {
                let received = inward(route, bytes);
                let owner = relay.owner(route.destination);
                match owner.or_else(|| post.elsewhere(&received.source, classify(bytes))) {
                    Some(worker) => post.hand_over(worker, &received),
                    None => sfu.receive(now, datagram(&received)),
                }
            }
        }
        outbox.clear();
        *relay.for_ourselves() = outbox;
        self.send_relayed();
        self.forget_closed(now);
    }

    fn send_relayed(&mut self) {
        let Wire { udp, tcp, relay, poll, .. } = self;
        relay.send_to_peers(&mut udp.sender);
        let outbox = relay.for_clients();
        if !outbox.is_empty() {
            udp.send(outbox, |_| false);
            tcp.send(poll.registry(), outbox);
            outbox.clear();
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.relay.next_timeout()
    }

    pub fn handle_timeout(&mut self, now: Now) {
        self.relay.handle_timeout(now);
    }

    pub fn close_idle(&mut self, now: Now) {
        let Wire { tcp, relay, poll, .. } = self;
        tcp.close_idle(poll.registry(), now.instant, |route| relay.has_allocation(route));
        self.forget_closed(now);
    }

    fn forget_closed(&mut self, now: Now) {
        for route in self.tcp.take_closed() {
            self.relay.disconnected(now, route);
        }
    }

    /// Takes over a TLS connection with TURN on it.
    pub fn adopt_turn(&mut self, now: Now, stream: TurnStream) {
        self.tcp.adopt_turn(self.poll.registry(), now.instant, stream);
        // It may have taken the place of one whose end is news, before it says anything itself.
        self.forget_closed(now);
    }

    /// The rooms are lost: so is all that led to them. TURN's clients are, when it was TURN that panicked.
    pub fn lose_connections(&mut self) {
        let relay_lost = self.relay.recover();
        self.tcp.close_all(self.poll.registry(), |stream| relay_lost || stream != Some(Stream::Turn));
        self.tcp.take_closed();
        self.mail = Mail::default();
        self.ready.clear();
        self.post.note_loss();
        self.post.dispatch();
    }

    pub fn traffic(&self) -> Traffic {
        let (sent, post) = (self.udp.sender.counts(), self.post.counts());
        Traffic {
            waits: self.waits,
            receive_calls: self.udp.receiver.calls(),
            send_calls: sent.calls,
            wakes: post.wakes,
            messages_sent: sent.messages,
            packets_sent: sent.packets,
            send_overflowed: sent.overflowed,
            send_refused: sent.refused,
            handed_over: post.handed_over,
            hand_over_overflowed: post.overflowed,
        }
    }
}

fn datagram<'a>(received: &Received<'a>) -> Datagram<'a> {
    let Received { source, candidate, bytes, .. } = *received;
    Datagram { protocol: Protocol::Udp, source, destination: candidate, bytes }
}

/// A packet between two addresses of this process.
fn inward(route: Route, bytes: &[u8]) -> Received<'_> {
    Received { source: route.source, candidate: route.destination, local: None, bytes }
}

/// The way of an answer.
fn route_back(received: &Received<'_>) -> Route {
    Route { protocol: Protocol::Udp, source: received.candidate, destination: received.source }
}

/// A packet of a TCP connection; `route` leads back to its sender.
fn receive_stream(now: Now, relay: &mut Relay, sfu: &mut Sfu, stream: Stream, route: Route, bytes: &[u8]) {
    match stream {
        Stream::Ice => {
            let Route { protocol, source: destination, destination: source } = route;
            sfu.receive(now, Datagram { protocol, source, destination, bytes });
        }
        Stream::Turn => relay.receive(now, route, bytes),
    }
}

fn explain(key: &str, address: SocketAddr, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{key}: cannot listen on {address}: {error}"))
}
