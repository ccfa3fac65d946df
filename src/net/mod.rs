//! Sockets and the worker threads: the only place where packets meet the operating system.
//!
//! [`Node`] is the handle that `http` holds. Behind it are workers, each a thread with rooms of its own and a socket of its
//! own on the port they share:
//!
//! - [`worker`]: the thread's turns, and its new start after a panic; [`rooms`]: what it owns.
//! - [`wire`]: its sockets ([`udp`], [`tcp`], [`receive`], [`send`]); [`post`]: what it hands to other workers, by the list of
//!   [`owners`].
//! - [`relay`]: its TURN server, with the sockets of relayed addresses ([`relay_sockets`]).
//! - [`directory`]: which worker has which room.
//! - [`presence`]: who is in which room, told to those who watch.

mod addresses;
mod directory;
mod owners;
mod post;
mod presence;
mod receive;
mod relay;
mod relay_sockets;
mod rooms;
mod send;
mod tcp;
mod udp;
mod wire;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::future::try_join_all;
use livekit_protocol as proto;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::livekit::{IceServers, JoinRequest, Outgoing};
use crate::metrics::Metrics;
use crate::sfu::{self, LeaveReason, ParticipantInfo, RoomInfo, Sid, TrackInfo, WorkerId};
use crate::transport::Settings;
use directory::{Directory, Pin};
use rooms::{Command, Parts};
use wire::Wires;
use worker::Worker;

pub use addresses::{addresses_of_this_machine, candidates};
pub use presence::{Presence, PresenceChange};
pub use relay::TurnOptions;
pub use tcp::TurnStream;
pub use wire::Traffic;

/// Commands that may wait for a worker. A full queue makes signalling wait, never media.
const COMMAND_QUEUE: usize = 1024;
/// Messages one client may have under way to its worker: more than any client sends in a burst.
const REQUEST_QUEUE: usize = 64;
/// Messages that may wait for a slow client before it is cut off: a join into a room of a hundred sends about that many.
const RESPONSE_QUEUE: usize = 512;

/// What the workers need to start.
pub struct Options {
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    /// Where clients can reach us; empty: the addresses of this machine.
    pub public_addresses: Vec<std::net::IpAddr>,
    /// Threads that share the rooms, 1..=[`WorkerId::MAX`].
    pub workers: usize,
    /// Of all workers together.
    pub limits: sfu::Limits,
    pub turn: TurnOptions,
    /// Signs refreshed tokens.
    pub keys: crate::livekit::Keys,
    pub metrics: Arc<Metrics>,
    /// Told of everybody who comes and goes.
    pub presence: mpsc::UnboundedSender<Presence>,
}

/// A cloneable handle to the media workers.
#[derive(Clone)]
pub struct Node {
    desks: Arc<[Desk]>,
    directory: Arc<Directory>,
    ice_servers: Option<IceServers>,
    /// Whose turn it is to get the next TLS connection.
    turns: Arc<AtomicUsize>,
}

/// Where a worker takes commands.
#[derive(Clone)]
struct Desk {
    commands: mpsc::Sender<Command>,
    waker: Arc<mio::Waker>,
}

/// Both directions of one client's signalling. Dropping it means that signalling is lost.
pub struct SignalStream {
    /// Boxed: the queue's room for messages is a third of what a session takes otherwise.
    pub requests: mpsc::Sender<Box<proto::signal_request::Message>>,
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
    #[error("the media worker does not answer")]
    Gone,
}

/// What became of a moderator's wish to mute a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Muted {
    /// It is muted, and was maybe before.
    Yes(Box<TrackInfo>),
    NoSuchTrack,
    /// Whether to be heard and seen is the participant's own decision. LiveKit's default, too.
    MayNotUnmute,
}

/// The server stops, or the worker panicked over this.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the media worker does not answer")]
pub struct NodeGone;

impl Desk {
    async fn command(&self, command: Command) -> Result<(), NodeGone> {
        self.commands.send(command).await.map_err(|_| NodeGone)?;
        self.waker.wake().map_err(|_| NodeGone)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, NodeGone> {
        let (reply, answer) = oneshot::channel();
        self.command(command(reply)).await?;
        answer.await.map_err(|_| NodeGone)
    }
}

impl Node {
    /// Opens the sockets and starts the worker threads. The second value resolves when all of them have ended.
    pub fn start(options: Options) -> io::Result<(Node, oneshot::Receiver<()>)> {
        let Wires { wires, wakers, candidates } = Wires::open(&options)?;
        let directory = Arc::new(Directory::new(wires.len(), options.limits));
        let ice_servers = options.turn.ice_servers(&candidates);
        let parts = Parts {
            ice_servers: ice_servers.clone(),
            settings: Settings::new(candidates),
            limits: options.limits,
            keys: options.keys,
            directory: directory.clone(),
            metrics: options.metrics,
            presence: options.presence,
            workers: wires.len(),
        };
        let (ended, end) = oneshot::channel();
        let ended = Arc::new(Ended(Some(ended)));
        let mut desks = Vec::with_capacity(wires.len());
        for ((id, wire), waker) in (0..).map_while(WorkerId::new).zip(wires).zip(wakers) {
            let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
            let mut worker = Worker::new(id, wire, parts.clone(), receiver);
            let ended = ended.clone();
            std::thread::Builder::new().name(format!("parlour-media-{}", id.index())).spawn(move || {
                worker.run();
                drop(ended);
            })?;
            desks.push(Desk { commands, waker });
        }
        Ok((Node { desks: desks.into(), directory, ice_servers, turns: Arc::default() }, end))
    }

    fn desk(&self, pin: &Pin) -> &Desk {
        &self.desks[pin.worker.index()]
    }

    /// Our TURN server, as clients are told of it.
    pub fn ice_servers(&self) -> Option<&IceServers> {
        self.ice_servers.as_ref()
    }

    /// Makes a room, or gives the one that exists. `None` when the node holds as many as it may.
    pub async fn create_room(&self, name: String, options: sfu::RoomOptions) -> Result<Option<RoomInfo>, NodeGone> {
        let pin = self.directory.place(&name, Instant::now()).ok_or(NodeGone)?;
        self.desk(&pin).ask(|reply| Command::CreateRoom { name, options, reply }).await
    }

    pub async fn room(&self, name: String) -> Result<Option<RoomInfo>, NodeGone> {
        let Some(pin) = self.directory.find(&name) else { return Ok(None) };
        self.desk(&pin).ask(|reply| Command::Room { name, reply }).await
    }

    /// Of all workers.
    pub async fn rooms(&self) -> Result<Vec<RoomInfo>, NodeGone> {
        let asked = self.desks.iter().map(|desk| desk.ask(|reply| Command::Rooms { reply }));
        Ok(try_join_all(asked).await?.concat())
    }

    /// Everybody in the room leaves with [`LeaveReason::RoomDeleted`]. False when there is no such room.
    pub async fn delete_room(&self, name: &str) -> Result<bool, NodeGone> {
        let Some(pin) = self.directory.find(name) else { return Ok(false) };
        self.desk(&pin).ask(|reply| Command::DeleteRoom { name: name.to_owned(), reply }).await
    }

    /// Everybody in a room, hidden ones included; `None`: there is no such room.
    pub async fn participants(&self, room: &str) -> Result<Option<Vec<ParticipantInfo>>, NodeGone> {
        let Some(pin) = self.directory.find(room) else { return Ok(None) };
        self.desk(&pin).ask(|reply| Command::Participants { room: room.to_owned(), reply }).await
    }

    /// Ends a participant's session; with `sid`, only that session of the identity. True: it was there. With
    /// [`LeaveReason::Removed`] its client hears that it shall not come back, which its token lets it do all the same.
    pub async fn remove(
        &self,
        room: &str,
        identity: &str,
        sid: Option<&Sid>,
        reason: LeaveReason,
    ) -> Result<bool, NodeGone> {
        let Some(pin) = self.directory.find(room) else { return Ok(false) };
        let (room, identity, sid) = (room.to_owned(), identity.to_owned(), sid.cloned());
        self.desk(&pin).ask(|reply| Command::Remove { room, identity, sid, reason, reply }).await
    }

    /// Mutes somebody else's track: no packet of it goes on until its owner unmutes it.
    pub async fn mute(&self, room: &str, identity: &str, track: &Sid, muted: bool) -> Result<Muted, NodeGone> {
        if !muted {
            return Ok(Muted::MayNotUnmute);
        }
        let Some(pin) = self.directory.find(room) else { return Ok(Muted::NoSuchTrack) };
        let (room, identity, track) = (room.to_owned(), identity.to_owned(), track.clone());
        let info = self.desk(&pin).ask(|reply| Command::Mute { room, identity, track, reply }).await?;
        Ok(info.map_or(Muted::NoSuchTrack, |info| Muted::Yes(Box::new(info))))
    }

    /// Joins, or resumes a session.
    pub async fn join(&self, request: JoinRequest) -> Result<SignalStream, JoinRefused> {
        let pin = self.directory.place(&request.room, Instant::now()).ok_or(JoinRefused::Gone)?;
        let desk = self.desk(&pin).clone();
        let (sender, responses) = mpsc::channel(RESPONSE_QUEUE);
        // The caller's span names the request: what the worker logs about this join carries the same number.
        let span = tracing::Span::current();
        let joined =
            desk.ask(|reply| Command::Join { request: Box::new(request), responses: sender, span, reply }).await;
        let signal = joined.map_err(|_| JoinRefused::Gone)??;
        let (requests, mut inbox) = mpsc::channel(REQUEST_QUEUE);
        tokio::spawn(async move {
            while let Some(message) = inbox.recv().await {
                if desk.command(Command::Request { signal, message }).await.is_err() {
                    return;
                }
            }
            let _ = desk.command(Command::SignalLost { signal }).await;
        });
        Ok(SignalStream { requests, responses })
    }

    /// Gives a TLS connection with TURN on it to a worker, to one after the other.
    pub async fn adopt(&self, stream: TurnStream) -> Result<(), NodeGone> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        self.desks[turn % self.desks.len()].command(Command::Adopt(Box::new(stream))).await
    }

    /// Tells every client to come back later, and ends the workers.
    pub async fn shut_down(&self) {
        for desk in &*self.desks {
            let _ = desk.command(Command::ShutDown).await;
        }
    }

    /// Makes the worker of a room panic: for tests of what happens then.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub async fn panic_in(&self, room: &str) {
        if let Some(pin) = self.directory.find(room) {
            let _ = self.desk(&pin).command(Command::Panic).await;
        }
    }
}

/// Tells when the last of those who hold it is gone.
struct Ended(Option<oneshot::Sender<()>>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(ended) = self.0.take() {
            let _ = ended.send(());
        }
    }
}
