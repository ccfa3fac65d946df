//! The media side of all clients: a few threads, each with the sockets of many clients.
//!
//! A driver opens a client here, carries its description to the server and back, and connects it. From then on the client is
//! a *light sink*: it counts what comes by the clear headers, opens one packet in a hundred, and sends the feedback that a
//! browser would send. str0m does ICE, DTLS, data channels and publishing.

mod client;
mod feedback;
mod publication;
mod receive;
mod stream;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::machine::Cores;
use crate::sink::Window;
pub use publication::{Track, TrackLayer};
use worker::{Command, Worker};

/// Numbered over all workers, never reused; also the token of its socket.
pub type ClientId = usize;

/// What the whole run has in common.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Clients' sockets are bound to it.
    pub local: IpAddr,
    pub seed: u64,
    /// Share of RTP packets thrown away as they come, and before publishers send them.
    pub loss_down: f32,
    pub loss_up: f32,
    pub pacing: crate::media::Pacing,
    /// Threads, and where they run.
    pub threads: usize,
    pub cores: Cores,
}

/// A client's own half of its description.
#[derive(Debug, Clone)]
pub struct Local {
    pub id: ClientId,
    pub address: SocketAddr,
    pub ufrag: String,
    pub pwd: String,
    /// SHA-256.
    pub fingerprint: Vec<u8>,
}

/// The server's half.
#[derive(Debug, Clone)]
pub struct Remote {
    pub ufrag: String,
    pub pwd: String,
    pub fingerprint: parlour::transport::sdp::Fingerprint,
    /// `candidate:…` lines.
    pub candidates: Vec<String>,
    /// Whether we start the DTLS handshake.
    pub dtls_client: bool,
    /// Whether we nominate (RFC 8445 §6.1.1): we offered, or the server is lite.
    pub controlling: bool,
    /// Labels of the data channels to open; none = no SCTP.
    pub channels: Vec<&'static str>,
}

/// What comes to a client, as its descriptions say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    pub streams: Vec<ExpectedStream>,
    /// The number of the transport-wide sequence number extension, where negotiated.
    pub twcc: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedStream {
    pub ssrc: u32,
    pub rtx: Option<u32>,
    pub video: bool,
    /// The server's name for the track: what a layer is asked by.
    pub track: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// ICE and DTLS are up. The name of the SRTP suite.
    Connected(&'static str),
    /// It broke; nothing follows.
    Failed(String),
}

/// A cloneable handle to all workers.
#[derive(Clone)]
pub struct Engine {
    workers: Arc<Vec<worker::Handle>>,
    next: Arc<AtomicUsize>,
}

/// A client that is closed with this value: a join that fails or is given up leaves nothing behind.
pub struct Owned {
    engine: Engine,
    id: ClientId,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.engine.close(self.id);
    }
}

impl Engine {
    pub fn start(settings: Settings) -> io::Result<Engine> {
        let workers = (0..settings.threads)
            .map(|index| Worker::spawn(index, settings.clone()))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Engine { workers: Arc::new(workers), next: Arc::new(AtomicUsize::new(1)) })
    }

    fn worker(&self, id: ClientId) -> &worker::Handle {
        &self.workers[id % self.workers.len()]
    }

    /// Opens a client's socket. `begun` is when its joining began, where that counts; `wants_video` says which first frame
    /// does.
    pub async fn open(
        &self,
        begun: Option<Instant>,
        wants_video: bool,
    ) -> io::Result<(Local, mpsc::UnboundedReceiver<Event>)> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (events, receiver) = mpsc::unbounded_channel();
        let (reply, local) = oneshot::channel();
        self.worker(id).command(Command::Open { id, begun, wants_video, events, reply });
        let local = local.await.map_err(|_| io::Error::other("the media thread has ended"))??;
        Ok((local, receiver))
    }

    /// The server's half is known: ICE and DTLS begin.
    pub fn connect(&self, id: ClientId, remote: Remote) {
        self.worker(id).command(Command::Connect { id, remote });
    }

    /// Starts to publish, as soon as the client is connected. `seed` makes the media.
    pub fn publish(&self, id: ClientId, tracks: Vec<Track>) {
        self.worker(id).command(Command::Publish { id, tracks });
    }

    /// Replaces what is expected to come.
    pub fn expect(&self, id: ClientId, expected: Expected) {
        self.worker(id).command(Command::Expect { id, expected });
    }

    /// A publisher's layer is wanted by nobody, or by somebody again.
    pub fn enable_layer(&self, id: ClientId, mid: &str, layer: u8, on: bool) {
        self.worker(id).command(Command::EnableLayer { id, mid: mid.to_owned(), layer, on });
    }

    /// Another layer of a track was asked for: measures until its first packet.
    pub fn watch_layer(&self, id: ClientId, track: &str, layer: u8) {
        self.worker(id).command(Command::WatchLayer { id, track: track.to_owned(), layer });
    }

    /// Ties a client to a value.
    pub fn own(&self, id: ClientId) -> Owned {
        Owned { engine: self.clone(), id }
    }

    fn close(&self, id: ClientId) {
        self.worker(id).command(Command::Close { id });
    }

    /// What was counted since the last call, of all workers.
    pub async fn take_window(&self) -> Window {
        let mut pending = Vec::new();
        for worker in self.workers.iter() {
            let (reply, window) = oneshot::channel();
            worker.command(Command::TakeWindow { reply });
            pending.push(window);
        }
        let mut all = Window::default();
        for window in pending {
            if let Ok(window) = window.await {
                all.add(&window);
            }
        }
        all
    }
}
