//! The media worker: one thread that owns the rooms, their signalling sessions and the sockets.
//!
//! A turn: commands from `http`, datagrams from the sockets, timers, then everything that came of it goes out. Nothing
//! here blocks but the wait for the next of these.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use livekit_protocol as proto;
use mio::{Events, Interest, Poll, Token, Waker};
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::oneshot;
use tracing::{Span, info, warn};

use super::tcp::Tcp;
use super::udp::Udp;
use super::{JoinRefused, Options, candidates};
use crate::livekit::{DroppedCounts, JoinRequest, Outgoing, Signalling, SocketId};
use crate::metrics::Metrics;
use crate::sfu::{Counts, EventKind, JoinError, Now, ParticipantId, RoomInfo, RoomOptions, Sfu, Sid, Verdict};
use crate::transport::{Datagram, Protocol, Settings};

const UDP: Token = Token(0);
const LISTENER: Token = Token(1);
const WAKER: Token = Token(2);
const FIRST_CONNECTION: usize = 3;

/// Batches read from the UDP socket before timers and commands get their turn.
const MAX_BATCHES_PER_TURN: usize = 16;
/// How often idle TCP connections are looked for and gauges are written.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// After the rooms were closed, their last packets and messages still have to leave.
const SHUTDOWN_LINGER: Duration = Duration::from_millis(300);

pub(super) enum Command {
    CreateRoom {
        name: String,
        options: RoomOptions,
        reply: oneshot::Sender<Option<RoomInfo>>,
    },
    Room {
        name: String,
        reply: oneshot::Sender<Option<RoomInfo>>,
    },
    Join {
        request: Box<JoinRequest>,
        responses: mpsc::Sender<Outgoing>,
        span: Span,
        reply: oneshot::Sender<Result<SocketId, JoinRefused>>,
    },
    Request {
        socket: SocketId,
        message: Box<proto::signal_request::Message>,
    },
    SignalLost {
        socket: SocketId,
    },
    ShutDown,
}

pub(super) struct Worker {
    sfu: Sfu,
    signalling: Signalling,
    udp: Udp,
    tcp: Tcp,
    poll: Poll,
    waker: Arc<Waker>,
    commands: mpsc::Receiver<Command>,
    sockets: HashMap<SocketId, mpsc::Sender<Outgoing>>,
    /// Joins that have no verdict yet.
    joining: HashMap<ParticipantId, Joining>,
    metrics: Arc<Metrics>,
    /// What the metrics know already.
    counted: Counts,
    dropped: DroppedCounts,
    next_housekeeping: Instant,
    stop_at: Option<Instant>,
}

/// What the line about a join says besides the verdict.
struct Joining {
    /// Of the request: its number, room and client.
    span: Span,
    sid: Sid,
}

impl Worker {
    pub fn new(options: Options, commands: mpsc::Receiver<Command>) -> io::Result<Worker> {
        let mut udp = Udp::bind(options.udp).map_err(|e| explain("media.udp", options.udp, e))?;
        let mut tcp = Tcp::bind(options.tcp, FIRST_CONNECTION).map_err(|e| explain("media.tcp", options.tcp, e))?;
        let candidates = candidates(&options.public_addresses, udp.address()?, tcp.address()?);
        udp.know(&candidates);
        tcp.know(&candidates);
        let poll = Poll::new()?;
        poll.registry().register(udp.source(), UDP, Interest::READABLE)?;
        poll.registry().register(tcp.source(), LISTENER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let sfu = Sfu::new(Settings::new(candidates), options.limits, rand::random());
        Ok(Worker {
            sfu,
            signalling: Signalling::new(options.keys, rand::random()),
            udp,
            tcp,
            poll,
            waker,
            commands,
            sockets: HashMap::new(),
            joining: HashMap::new(),
            metrics: options.metrics,
            counted: Counts::default(),
            dropped: DroppedCounts::default(),
            next_housekeeping: Instant::now(),
            stop_at: None,
        })
    }

    pub fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    pub fn run(&mut self) {
        let mut events = Events::with_capacity(256);
        loop {
            let now = clock();
            if self.stop_at.is_some_and(|at| at <= now.instant) {
                return;
            }
            self.flush(now);
            if let Err(error) = self.poll.poll(&mut events, Some(self.wait(now))) {
                if error.kind() != io::ErrorKind::Interrupted {
                    warn!(%error, "waiting for the network failed");
                }
                continue;
            }
            let now = clock();
            for event in &events {
                match event.token() {
                    UDP => self.receive_udp(now),
                    LISTENER => self.tcp.accept(self.poll.registry(), now.instant),
                    WAKER => {}
                    token => self.receive_tcp(token, now),
                }
            }
            self.take_commands(now);
            if now.instant >= self.next_housekeeping {
                self.keep_house(now);
            }
        }
    }

    /// How long nothing is due.
    fn wait(&self, now: Now) -> Duration {
        let due = [self.sfu.next_timeout(), self.signalling.next_timeout(), Some(self.next_housekeeping), self.stop_at];
        let next = due.into_iter().flatten().min().unwrap_or(self.next_housekeeping);
        next.saturating_duration_since(now.instant)
    }

    // --- in ------------------------------------------------------------------------------------------------------

    fn receive_udp(&mut self, now: Now) {
        for _ in 0..MAX_BATCHES_PER_TURN {
            let sfu = &mut self.sfu;
            let more = self.udp.receive(|source, destination, bytes| {
                sfu.receive(now, Datagram { protocol: Protocol::Udp, source, destination, bytes });
            });
            match more {
                Ok(true) => {}
                Ok(false) => return,
                // ICMP errors of single peers end up here too: the socket itself is fine.
                Err(_) => continue,
            }
        }
        // mio tells of new readiness only: ask to be called again for what was left.
        self.poll.registry().reregister(self.udp.source(), UDP, Interest::READABLE).unwrap_or_else(|error| {
            warn!(%error, "the UDP socket cannot be watched");
        });
    }

    fn receive_tcp(&mut self, token: Token, now: Now) {
        let sfu = &mut self.sfu;
        self.tcp.ready(self.poll.registry(), token, now.instant, |source, destination, bytes| {
            sfu.receive(now, Datagram { protocol: Protocol::Tcp, source, destination, bytes });
        });
    }

    fn take_commands(&mut self, now: Now) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.carry_out(now, command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.stop_at.get_or_insert(now.instant);
                    return;
                }
            }
        }
    }

    fn carry_out(&mut self, now: Now, command: Command) {
        match command {
            Command::CreateRoom { name, options, reply } => {
                let _ = reply.send(self.sfu.create_room(now, &name, options).ok());
            }
            Command::Room { name, reply } => {
                let _ = reply.send(self.sfu.room(&name));
            }
            Command::Join { request, responses, span, reply } => {
                let _ = reply.send(self.join(now, *request, responses, span));
            }
            Command::Request { socket, message } => self.signalling.request(&mut self.sfu, now, socket, *message),
            Command::SignalLost { socket } => {
                self.sockets.remove(&socket);
                self.signalling.closed(&mut self.sfu, now, socket);
            }
            Command::ShutDown => {
                self.sfu.shut_down(now);
                self.stop_at = Some(now.instant + SHUTDOWN_LINGER);
            }
        }
        self.settle(now);
    }

    fn join(
        &mut self,
        now: Now,
        request: JoinRequest,
        responses: mpsc::Sender<Outgoing>,
        span: Span,
    ) -> Result<SocketId, JoinRefused> {
        let resumes = request.reconnect.is_some();
        let socket = self.signalling.join(&mut self.sfu, now, request).map_err(|error| match error {
            JoinError::RoomMissing => JoinRefused::RoomMissing,
            JoinError::RoomFull => JoinRefused::RoomFull,
            JoinError::TooManyParticipants => JoinRefused::Busy,
        })?;
        self.sockets.insert(socket, responses);
        // A resumed session had its verdict.
        let joined = self.signalling.participant(socket).filter(|_| !resumes);
        if let Some((id, info)) = joined.and_then(|id| Some((id, self.sfu.info(id)?))) {
            self.joining.insert(id, Joining { span, sid: info.sid });
        }
        Ok(socket)
    }

    // --- out -----------------------------------------------------------------------------------------------------

    /// Everything that is due, and everything that waits to leave.
    fn flush(&mut self, now: Now) {
        self.signalling.handle_timeout(&mut self.sfu, now);
        self.settle(now);
    }

    fn send(&mut self) {
        for (route, packets) in self.sfu.outbox().runs() {
            for packet in packets {
                match route.protocol {
                    // A full buffer or an unreachable peer loses the packet, as any network may.
                    Protocol::Udp => drop(self.udp.send(route, packet)),
                    Protocol::Tcp => self.tcp.send(self.poll.registry(), route.destination, packet),
                }
            }
        }
        self.sfu.outbox().clear();
    }

    /// Lets the rooms do what they have to do, and sends what comes of it.
    fn drive(&mut self, now: Now) {
        while self.sfu.drive(now) {
            self.send();
        }
        self.send();
    }

    /// Carries events from the rooms to the sessions, and their messages to the sockets, until nothing is left.
    fn settle(&mut self, now: Now) {
        self.drive(now);
        while let Some(event) = self.sfu.poll_event() {
            if let EventKind::Verdict(verdict) = &event.kind {
                self.report(event.to, verdict);
            }
            self.signalling.handle_event(&mut self.sfu, now, event);
            self.drive(now);
        }
        while let Some((socket, outgoing)) = self.signalling.poll_outgoing() {
            self.deliver(now, socket, outgoing);
        }
    }

    fn deliver(&mut self, now: Now, socket: SocketId, outgoing: Outgoing) {
        let Some(responses) = self.sockets.get(&socket) else { return };
        let closes = matches!(outgoing, Outgoing::Close(_));
        let delivered = responses.try_send(outgoing).is_ok();
        if closes || !delivered {
            self.sockets.remove(&socket);
        }
        if !delivered {
            // It reads too slowly, or is gone already: a client that comes back resumes.
            self.signalling.closed(&mut self.sfu, now, socket);
        }
    }

    /// The one line that says how a join ended.
    fn report(&mut self, participant: ParticipantId, verdict: &Verdict) {
        let Some(Joining { span, sid }) = self.joining.remove(&participant) else { return };
        let _request = span.enter();
        match verdict {
            Verdict::Connected { after } => {
                let ms = after.as_millis() as u64;
                info!(participant = %sid, ms, "connected");
                self.metrics.join_connected(*after);
            }
            Verdict::Failed { reason, after } => {
                let ms = after.as_millis() as u64;
                info!(participant = %sid, ms, reason = reason.as_str(), "failed to connect");
                self.metrics.join_failed(reason.as_str());
            }
        }
    }

    fn keep_house(&mut self, now: Now) {
        self.next_housekeeping = now.instant + HOUSEKEEPING;
        self.tcp.close_idle(self.poll.registry(), now.instant);
        let counts = self.sfu.counts();
        self.metrics.sfu(&counts, &self.counted);
        self.metrics.signalling(self.signalling.dropped(), &self.dropped);
        self.dropped = self.signalling.dropped().clone();
        self.counted = counts;
    }
}

fn explain(key: &str, address: std::net::SocketAddr, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{key}: cannot listen on {address}: {error}"))
}

fn clock() -> Now {
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    Now { instant: Instant::now(), unix_ms }
}
