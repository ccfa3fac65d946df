//! One thread: the sockets of its allocations, the socket that is their peer, and what flows between them.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};

use super::allocation::{Allocation, Failure, State, bind, send};
use super::credentials::Credentials;
use super::flow::{Flow, Probe};
use super::message::{CHANNEL, CHANNEL_HEADER};
use super::{Peer, Settings};
use crate::machine;
use crate::sink::{Window, record};

const WAKER: Token = Token(0);
const SINK: Token = Token(1);
/// The token of the first allocation.
const FIRST: usize = 2;
const EVENTS: usize = 512;
/// The largest thing GRO can hand over.
const BUFFER_BYTES: usize = 1 << 16;
/// The peer of all allocations of a thread.
const SINK_BUFFER_BYTES: usize = 16 << 20;
/// How often allocations are looked at for retransmissions and refreshes: those are counted in hundreds of milliseconds.
const TICK: Duration = Duration::from_millis(20);
/// A thread that is that much behind sends less than it was told, instead of everything at once.
const MOST_ARREARS: Duration = Duration::from_millis(100);

pub enum Command {
    /// Make it so many allocations. The reply comes when all are there, or cannot be.
    Resize {
        count: usize,
        reply: Sender<Resized>,
    },
    Traffic(bool),
    TakeWindow {
        reply: Sender<Window>,
    },
}

/// How a change of size came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resized {
    pub ready: usize,
    /// Since the last one.
    pub failures: BTreeMap<Failure, u64>,
}

pub struct Worker {
    settings: Settings,
    /// Numbers of its allocations: `index`, `index + threads`…
    index: usize,
    poll: Poll,
    commands: Receiver<Command>,
    sink: UdpSocket,
    sink_state: UdpSocketState,
    sink_address: SocketAddr,
    allocations: Vec<Allocation>,
    /// What the last command wants.
    wanted: usize,
    resizing: Option<Sender<Resized>>,
    failures: BTreeMap<Failure, u64>,
    next_tick: Instant,
    /// Packets are sent, by the allocation at this place next.
    sending: Option<(Instant, usize)>,
    window: Window,
    random: fastrand::Rng,
    buffers: Vec<Vec<u8>>,
    metas: Vec<RecvMeta>,
    packets: Vec<u8>,
    closed: bool,
}

impl Worker {
    /// Gives the worker and what wakes it.
    pub fn open(index: usize, settings: Settings, commands: Receiver<Command>) -> io::Result<(Worker, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let local = settings.locals.first().copied().unwrap_or_else(|| local_towards(settings.server));
        let local = SocketAddr::new(local, 0);
        let (mut sink, sink_state) = bind(local, SINK_BUFFER_BYTES)?;
        poll.registry().register(&mut sink, SINK, Interest::READABLE)?;
        let worker = Worker {
            index,
            poll,
            commands,
            sink_address: sink.local_addr()?,
            sink,
            sink_state,
            allocations: Vec::new(),
            wanted: 0,
            resizing: None,
            failures: BTreeMap::new(),
            next_tick: Instant::now(),
            sending: None,
            window: Window::default(),
            random: fastrand::Rng::with_seed(settings.seed.wrapping_add(index as u64)),
            buffers: vec![vec![0; BUFFER_BYTES]; BATCH_SIZE],
            metas: vec![RecvMeta::default(); BATCH_SIZE],
            packets: Vec::new(),
            closed: false,
            settings,
        };
        Ok((worker, waker))
    }

    /// Until nobody can command it any more.
    pub fn run(&mut self) {
        // Where the operating system does not allow it, the numbers are only noisier.
        let _ = machine::pin_thread(&self.settings.cores);
        let mut events = Events::with_capacity(EVENTS);
        while !self.closed {
            let next = self.sending.map_or(self.next_tick, |(at, _)| at.min(self.next_tick));
            let wait = next.saturating_duration_since(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return;
            }
            for event in &events {
                match event.token() {
                    WAKER => self.obey(),
                    SINK => self.receive(None),
                    Token(token) => self.receive(Some(token - FIRST)),
                }
            }
            let now = Instant::now();
            self.send_due(now);
            if self.next_tick <= now {
                self.tick(now);
            }
        }
    }

    fn obey(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Resize { count, reply }) => {
                    (self.wanted, self.resizing) = (count, Some(reply));
                    self.tick(Instant::now());
                }
                Ok(Command::Traffic(on)) => self.set_traffic(on),
                Ok(Command::TakeWindow { reply }) => {
                    let mut window = std::mem::take(&mut self.window);
                    self.end_window(&mut window);
                    let _ = reply.send(window);
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    // --- allocations ---------------------------------------------------------------------------------------------------

    fn tick(&mut self, now: Instant) {
        self.next_tick = now + TICK;
        for place in 0..self.allocations.len() {
            let allocation = &mut self.allocations[place];
            if allocation.next_timeout().is_some_and(|at| at <= now) {
                let before = allocation.state;
                allocation.handle_timeout(now, &mut self.random);
                if self.allocations[place].state != before {
                    self.advance(place, now);
                }
            }
        }
        self.resize(now);
    }

    /// Opens what is missing, gives back what is too much, and says when that is done.
    fn resize(&mut self, now: Instant) {
        while self
            .allocations
            .last()
            .is_some_and(|last| self.allocations.len() > self.wanted && last.state == State::Gone)
        {
            if let Some(mut gone) = self.allocations.pop() {
                let _ = self.poll.registry().deregister(&mut gone.socket);
            }
        }
        for allocation in self.allocations.iter_mut().skip(self.wanted) {
            if !matches!(allocation.state, State::Releasing | State::Gone) {
                allocation.release(now, &mut self.random);
            }
        }
        let pending = |allocation: &&Allocation| {
            matches!(allocation.state, State::Allocating | State::Binding | State::Releasing)
        };
        let mut under_way = self.allocations.iter().filter(pending).count();
        while self.allocations.len() < self.wanted && under_way < self.settings.at_once {
            match self.open_one(now) {
                Ok(()) => under_way += 1,
                Err(_) => {
                    // No more sockets: what there is has to do.
                    *self.failures.entry(Failure::Answer).or_default() += 1;
                    self.wanted = self.allocations.len();
                }
            }
        }
        // One of a pair whose other half failed waits for ever: it is not under way.
        if under_way == 0
            && self.allocations.len() == self.wanted
            && let Some(reply) = self.resizing.take()
        {
            let ready = self.allocations.iter().filter(|allocation| allocation.state == State::Ready).count();
            let _ = reply.send(Resized { ready, failures: std::mem::take(&mut self.failures) });
        }
    }

    fn open_one(&mut self, now: Instant) -> io::Result<()> {
        let place = self.allocations.len();
        let number = self.index + place * self.settings.threads;
        let user = format!("{}-{}", self.settings.user, number / self.settings.per_user.max(1));
        let credentials = Credentials::now(&self.settings.secret, &user);
        let locals = &self.settings.locals;
        let ip = locals.get(number % locals.len().max(1)).copied().unwrap_or(self.sink_address.ip());
        let local = SocketAddr::new(ip, 0);
        let mut allocation = Allocation::open(local, self.settings.server, credentials, now, &mut self.random)?;
        self.poll.registry().register(&mut allocation.socket, Token(FIRST + place), Interest::READABLE)?;
        self.allocations.push(allocation);
        Ok(())
    }

    /// The state of an allocation changed.
    fn advance(&mut self, place: usize, now: Instant) {
        match self.allocations[place].state {
            State::Allocated => match self.settings.peer {
                Peer::Sink => {
                    let sink = self.sink_address;
                    self.allocations[place].bind(sink, now, &mut self.random);
                }
                Peer::Address(peer) => self.allocations[place].bind(peer, now, &mut self.random),
                Peer::Pair => self.introduce(place, now),
            },
            State::Ready => {
                let took = now.saturating_duration_since(self.allocations[place].begun);
                record(&mut self.window.join, took.as_micros() as u64);
            }
            State::Failed(failure) => *self.failures.entry(failure).or_default() += 1,
            State::Allocating | State::Binding | State::Releasing | State::Gone => {}
        }
    }

    /// Both of a pair have an address: each becomes the other's peer.
    fn introduce(&mut self, place: usize, now: Instant) {
        let other = place ^ 1;
        let relayed =
            |place: usize| self.allocations.get(place).filter(|a| a.state == State::Allocated).and_then(|a| a.relayed);
        if let (Some(ours), Some(theirs)) = (relayed(place), relayed(other)) {
            self.allocations[place].bind(theirs, now, &mut self.random);
            self.allocations[other].bind(ours, now, &mut self.random);
        }
    }

    // --- what comes in -------------------------------------------------------------------------------------------------

    /// Reads what waits on the socket of an allocation, or on the sink's.
    fn receive(&mut self, place: Option<usize>) {
        // Reading needs the sockets, and what came needs the rest.
        let mut buffers = std::mem::take(&mut self.buffers);
        let mut metas = std::mem::take(&mut self.metas);
        let mut changed = false;
        loop {
            let (socket, state) = match place {
                None => (&self.sink, &self.sink_state),
                Some(place) => match self.allocations.get(place) {
                    Some(allocation) => (&allocation.socket, &allocation.udp),
                    None => break,
                },
            };
            let mut slices: Vec<IoSliceMut<'_>> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            let Ok(count) = state.recv(UdpSockRef::from(socket), &mut slices, &mut metas) else { break };
            let now = Instant::now();
            for (meta, buffer) in metas.iter().zip(buffers.iter()).take(count) {
                let at = meta.timestamp.map_or_else(unix_nanos, |at| at.as_nanos() as u64);
                for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    match place {
                        None => self.arrived(datagram, at),
                        Some(place) => changed |= self.received(place, datagram, now, at),
                    }
                }
            }
            if count < metas.len() {
                break;
            }
        }
        (self.buffers, self.metas) = (buffers, metas);
        if changed {
            self.resize(Instant::now());
        }
    }

    /// From the server, to a client. True when its state changed.
    fn received(&mut self, place: usize, datagram: &[u8], now: Instant, at: u64) -> bool {
        let Some(first) = datagram.first() else { return false };
        // RFC 7983 §7.
        if *first < 4 {
            let changed = self.allocations[place].answer(datagram, now, &mut self.random);
            if changed {
                self.advance(place, now);
            }
            return changed;
        }
        let data = datagram.split_at_checked(CHANNEL_HEADER).and_then(|(header, data)| {
            let (number, length) =
                (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]));
            (number == CHANNEL).then(|| data.get(..length.into())).flatten()
        });
        match data {
            Some(data) => self.arrived(data, at),
            None => self.window.unknown += 1,
        }
        false
    }

    /// Data is through.
    fn arrived(&mut self, data: &[u8], at: u64) {
        let Some(probe) = Probe::read(data).filter(|_| data.len() == self.settings.payload) else {
            self.window.unknown += 1;
            return;
        };
        let (place, down) = (probe.flow as usize >> 1, probe.flow & 1 == 1);
        match self.allocations.get_mut(place) {
            Some(allocation) => {
                let flow = if down { &mut allocation.down } else { &mut allocation.up };
                flow.receive(&probe, data.len(), at, &mut self.window);
            }
            None => self.window.unknown += 1,
        }
    }

    // --- what goes out -------------------------------------------------------------------------------------------------

    fn set_traffic(&mut self, on: bool) {
        self.sending = on.then(|| (Instant::now(), 0));
        for allocation in &mut self.allocations {
            allocation.up.pause();
            allocation.down.pause();
        }
    }

    /// Everyone in turn, evenly over time.
    fn send_due(&mut self, now: Instant) {
        let Some((mut at, mut place)) = self.sending else { return };
        if self.allocations.is_empty() {
            self.sending = Some((now + TICK, 0));
            return;
        }
        let gap = self.settings.period() / self.allocations.len() as u32;
        at = at.max(now.checked_sub(MOST_ARREARS).unwrap_or(now));
        while at <= now {
            place %= self.allocations.len();
            self.send_burst(place);
            place += 1;
            at += gap;
        }
        self.sending = Some((at, place));
    }

    fn send_burst(&mut self, place: usize) {
        let Settings { payload, burst, direction, peer, .. } = self.settings;
        if self.allocations[place].state != State::Ready {
            return;
        }
        let allocation = &mut self.allocations[place];
        if direction.up() {
            let header = [CHANNEL.to_be_bytes(), (payload as u16).to_be_bytes()].concat();
            let flow = place << 1;
            let packets = fill(&mut self.packets, &header, payload, burst, flow, &mut allocation.up);
            let taken = allocation.send(packets, CHANNEL_HEADER + payload);
            self.window.sent += burst as u64;
            if matches!(peer, Peer::Address(_)) && taken {
                self.window.packets += burst as u64;
                self.window.bytes += (burst * payload) as u64;
            }
        }
        // In a pair both send up, which is the other's down.
        if direction.down()
            && peer == Peer::Sink
            && let Some(relayed) = allocation.relayed
        {
            let flow = place << 1 | 1;
            let packets = fill(&mut self.packets, &[], payload, burst, flow, &mut allocation.down);
            send(&self.sink, &self.sink_state, relayed, packets, payload);
            self.window.sent += burst as u64;
        }
    }

    fn end_window(&mut self, window: &mut Window) {
        let Settings { direction, peer, .. } = self.settings;
        let ready = self.allocations.iter_mut().filter(|allocation| allocation.state == State::Ready);
        for allocation in ready.filter(|_| self.sending.is_some() && !matches!(peer, Peer::Address(_))) {
            if direction.up() {
                allocation.up.end_window(window);
            }
            if direction.down() && peer == Peer::Sink {
                allocation.down.end_window(window);
            }
        }
    }
}

/// A burst of packets, each behind `header`.
fn fill<'a>(
    packets: &'a mut Vec<u8>,
    header: &[u8],
    payload: usize,
    burst: usize,
    flow: usize,
    numbers: &mut Flow,
) -> &'a [u8] {
    packets.resize(burst * (header.len() + payload), 0);
    let sent = unix_nanos();
    for packet in packets.chunks_exact_mut(header.len() + payload) {
        let (head, data) = packet.split_at_mut(header.len());
        head.copy_from_slice(header);
        Probe { flow: flow as u32, sequence: numbers.number(), sent }.write(data);
    }
    packets
}

/// The clock of the kernel's receive timestamps.
fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// From where this machine sends to the server.
fn local_towards(server: SocketAddr) -> IpAddr {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    machine::address_towards(server).unwrap_or(any)
}
