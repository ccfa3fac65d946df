//! One media thread: epoll over its clients' sockets, their timers, commands from the drivers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};
use quinn_udp::{BATCH_SIZE, RecvMeta};
use str0m::config::DtlsCert;
use tokio::sync::{mpsc, oneshot};

use super::client::Client;
use super::{ClientId, Event, Expected, Local, Remote, Settings, Track};
use crate::machine;
use crate::sink::Window;
use crate::wire::crypto::crypto;

/// The token of the command queue. Clients are numbered from 1.
const WAKER: Token = Token(0);
/// Sockets to look at per epoll call.
const EVENTS: usize = 512;
/// The largest thing GRO can hand over: 64 segments, or what an IP packet holds.
const BUFFER_BYTES: usize = 1 << 16;

pub(super) enum Command {
    Open {
        id: ClientId,
        begun: Option<Instant>,
        wants_video: bool,
        events: mpsc::UnboundedSender<Event>,
        reply: oneshot::Sender<io::Result<Local>>,
    },
    Connect {
        id: ClientId,
        remote: Remote,
    },
    Publish {
        id: ClientId,
        tracks: Vec<Track>,
    },
    Expect {
        id: ClientId,
        expected: Expected,
    },
    EnableLayer {
        id: ClientId,
        mid: String,
        layer: u8,
        on: bool,
    },
    WatchLayer {
        id: ClientId,
        track: String,
        layer: u8,
    },
    Close {
        id: ClientId,
    },
    TakeWindow {
        reply: oneshot::Sender<Window>,
    },
}

pub(super) struct Handle {
    /// `None` only while it is dropped.
    commands: Option<std_mpsc::Sender<Command>>,
    waker: Waker,
}

/// Ends the worker.
impl Drop for Handle {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.waker.wake();
    }
}

impl Handle {
    /// A worker that has ended shows by the replies that do not come.
    pub fn command(&self, command: Command) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
        let _ = self.waker.wake();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Rtc,
    Media,
    Feedback,
}

/// What clients have in common and write into.
pub(super) struct Shared {
    pub settings: Settings,
    pub certificate: DtlsCert,
    pub window: Window,
    timers: BinaryHeap<Reverse<(Instant, ClientId, Timer)>>,
    /// Packets since one was looked into, and when that was.
    pub unsampled: u32,
    pub sampled: Instant,
    /// The packet that is looked into, in the clear.
    pub opened: Vec<u8>,
}

impl Shared {
    pub fn schedule(&mut self, at: Instant, id: ClientId, timer: Timer) {
        self.timers.push(Reverse((at, id, timer)));
    }
}

pub(super) struct Worker {
    poll: Poll,
    commands: std_mpsc::Receiver<Command>,
    clients: HashMap<ClientId, Client>,
    shared: Shared,
    buffers: Vec<Vec<u8>>,
    metas: Vec<RecvMeta>,
}

impl Worker {
    pub fn spawn(index: usize, settings: Settings) -> io::Result<Handle> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (commands, receiver) = std_mpsc::channel();
        let cores = settings.cores.clone();
        let certificate = crypto().dtls_provider.generate_certificate().ok_or(io::Error::other("no certificate"))?;
        let mut worker = Worker {
            poll,
            commands: receiver,
            clients: HashMap::new(),
            shared: Shared {
                settings,
                certificate,
                window: Window::default(),
                timers: BinaryHeap::new(),
                unsampled: 0,
                sampled: Instant::now(),
                opened: Vec::new(),
            },
            buffers: vec![vec![0; BUFFER_BYTES]; BATCH_SIZE],
            metas: vec![RecvMeta::default(); BATCH_SIZE],
        };
        std::thread::Builder::new().name(format!("media-{index}")).spawn(move || {
            // Where the operating system does not allow it, the numbers are only noisier.
            let _ = machine::pin_thread(&cores);
            worker.run();
        })?;
        Ok(Handle { commands: Some(commands), waker })
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let now = Instant::now();
            let wait = self.shared.timers.peek().map(|Reverse((at, _, _))| at.saturating_duration_since(now));
            if let Err(error) = self.poll.poll(&mut events, wait)
                && error.kind() != io::ErrorKind::Interrupted
            {
                return;
            }
            for event in &events {
                match event.token() {
                    WAKER => {
                        if !self.obey() {
                            return;
                        }
                    }
                    Token(id) => {
                        if let Some(client) = self.clients.get_mut(&id) {
                            client.receive(&mut self.shared, &mut self.buffers, &mut self.metas);
                        }
                    }
                }
            }
            self.run_timers();
        }
    }

    fn run_timers(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, id, timer))) = self.shared.timers.peek().copied() {
            if at > now {
                return;
            }
            self.shared.timers.pop();
            if let Some(client) = self.clients.get_mut(&id) {
                client.timer(&mut self.shared, timer, at, now);
            }
        }
    }

    /// Does what was asked. False when nobody can ask any more.
    fn obey(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.run_command(command),
                Err(std_mpsc::TryRecvError::Empty) => return true,
                Err(std_mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn run_command(&mut self, command: Command) {
        match command {
            Command::Open { id, begun, wants_video, events, reply } => {
                let opened = self.open(id, begun, wants_video, events);
                let _ = reply.send(opened);
            }
            Command::TakeWindow { reply } => {
                let mut window = std::mem::take(&mut self.shared.window);
                for client in self.clients.values_mut() {
                    client.take_window(&mut window);
                }
                let _ = reply.send(window);
            }
            Command::Close { id } => {
                if let Some(mut client) = self.clients.remove(&id) {
                    client.close();
                    let _ = self.poll.registry().deregister(client.socket());
                }
            }
            Command::Connect { id, remote } => self.with(id, |client, shared| client.connect(shared, remote)),
            Command::Publish { id, tracks } => self.with(id, |client, shared| client.publish(shared, tracks)),
            Command::Expect { id, expected } => self.with(id, |client, shared| client.expect(shared, expected)),
            Command::EnableLayer { id, mid, layer, on } => {
                self.with(id, |client, _| client.enable_layer(&mid, layer, on));
            }
            Command::WatchLayer { id, track, layer } => self.with(id, |client, _| client.watch_layer(&track, layer)),
        }
    }

    fn with(&mut self, id: ClientId, each: impl FnOnce(&mut Client, &mut Shared)) {
        if let Some(client) = self.clients.get_mut(&id) {
            each(client, &mut self.shared);
        }
    }

    fn open(
        &mut self,
        id: ClientId,
        begun: Option<Instant>,
        wants_video: bool,
        events: mpsc::UnboundedSender<Event>,
    ) -> io::Result<Local> {
        let (mut client, local) = Client::open(&mut self.shared, id, begun, wants_video, events)?;
        self.poll.registry().register(client.socket(), Token(id), Interest::READABLE)?;
        self.clients.insert(id, client);
        Ok(local)
    }
}

/// Milliseconds as the timers count them.
pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
