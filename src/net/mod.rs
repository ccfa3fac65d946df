//! Sockets and the worker thread: the only place where packets meet the operating system.
//!
//! [`Node`] is the handle that `http` holds; [`worker`] is the thread that owns the rooms.

mod addresses;
mod send;
mod tcp;
mod udp;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use livekit_protocol as proto;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::livekit::{JoinRequest, Outgoing};
use crate::metrics::Metrics;
use crate::sfu;
use worker::{Command, Worker};

pub use addresses::candidates;

/// Commands that may wait for the worker. A full queue makes signalling wait, never media.
const COMMAND_QUEUE: usize = 1024;
/// Messages one client may have under way to the worker: more than any client sends in a burst.
const REQUEST_QUEUE: usize = 64;
/// Messages that may wait for a slow client before it is cut off: a join into a room of a hundred sends about that many.
const RESPONSE_QUEUE: usize = 512;

/// What the worker thread needs to start.
pub struct Options {
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    /// Where clients can reach us; empty: the addresses of this machine.
    pub public_addresses: Vec<std::net::IpAddr>,
    pub limits: sfu::Limits,
    /// Signs refreshed tokens.
    pub keys: crate::livekit::Keys,
    pub metrics: Arc<Metrics>,
}

/// A cloneable handle to the media worker.
#[derive(Clone)]
pub struct Node {
    commands: mpsc::Sender<Command>,
    waker: Arc<mio::Waker>,
}

/// Both directions of one client's signalling. Dropping it means that signalling is lost.
pub struct SignalStream {
    pub requests: mpsc::Sender<proto::signal_request::Message>,
    /// The first is `join`, `reconnect` or `leave`. Ends when the worker gives up on the client.
    pub responses: mpsc::Receiver<Outgoing>,
}

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum JoinRefused {
    #[error("requested room does not exist")]
    RoomMissing,
    #[error("the room is full")]
    RoomFull,
    #[error("the server is full")]
    Busy,
    #[error("the server is stopping")]
    Gone,
}

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the media worker has stopped")]
pub struct NodeGone;

impl Node {
    /// Opens the sockets and starts the worker thread. The second value resolves when the thread has ended.
    pub fn start(options: Options) -> io::Result<(Node, oneshot::Receiver<()>)> {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let mut worker = Worker::new(options, receiver)?;
        let waker = worker.waker();
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name("parlour-media".into()).spawn(move || {
            worker.run();
            let _ = ended.send(());
        })?;
        Ok((Node { commands, waker }, end))
    }

    async fn command(&self, command: Command) -> Result<(), NodeGone> {
        self.commands.send(command).await.map_err(|_| NodeGone)?;
        self.waker.wake().map_err(|_| NodeGone)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, NodeGone> {
        let (reply, answer) = oneshot::channel();
        self.command(command(reply)).await?;
        answer.await.map_err(|_| NodeGone)
    }

    /// Makes a room, or gives the one that exists. `None` when the node holds as many as it may.
    pub async fn create_room(
        &self,
        name: String,
        options: sfu::RoomOptions,
    ) -> Result<Option<sfu::RoomInfo>, NodeGone> {
        self.ask(|reply| Command::CreateRoom { name, options, reply }).await
    }

    pub async fn room(&self, name: String) -> Result<Option<sfu::RoomInfo>, NodeGone> {
        self.ask(|reply| Command::Room { name, reply }).await
    }

    /// Joins, or resumes a session.
    pub async fn join(&self, request: JoinRequest) -> Result<SignalStream, JoinRefused> {
        let (sender, responses) = mpsc::channel(RESPONSE_QUEUE);
        // The caller's span names the request: what the worker logs about this join carries the same number.
        let span = tracing::Span::current();
        let joined =
            self.ask(|reply| Command::Join { request: Box::new(request), responses: sender, span, reply }).await;
        let socket = joined.map_err(|_| JoinRefused::Gone)??;
        let (requests, mut inbox) = mpsc::channel(REQUEST_QUEUE);
        let node = self.clone();
        tokio::spawn(async move {
            while let Some(message) = inbox.recv().await {
                if node.command(Command::Request { socket, message: Box::new(message) }).await.is_err() {
                    return;
                }
            }
            let _ = node.command(Command::SignalLost { socket }).await;
        });
        Ok(SignalStream { requests, responses })
    }

    /// Tells every client to come back later, and ends the worker.
    pub async fn shut_down(&self) {
        let _ = self.command(Command::ShutDown).await;
    }
}
