//! How a client gets into a room: the signalling of one kind of server.
//!
//! [`Driver::join`] takes a client from nothing to "media flows", and leaves a task behind that goes on talking to the server.
//! Everything after the description is the same for all servers and lives in [`engine`](crate::engine).

pub mod janus;
pub mod livekit;
pub mod offer;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::engine::Engine;

/// A join that takes longer has failed for a person, too.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Who joins, and to do what.
#[derive(Debug, Clone)]
pub struct JoinSpec {
    pub identity: String,
    pub publish: Vec<Publish>,
    /// Takes what others publish.
    pub subscribe: bool,
    /// The first frame to wait for is one of video.
    pub wants_video: bool,
    /// Says which layer it wants of each video; until then the lowest comes.
    pub adaptive: bool,
    /// Makes its media.
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    Microphone,
    Camera { simulcast: bool },
}

/// What a client in a room is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Take this layer of somebody's camera, 0 = lowest.
    Layer {
        publisher: String,
        layer: u8,
    },
    Leave,
}

/// A client in a room.
pub struct Session {
    pub identity: String,
    /// The SRTP suite that was agreed on.
    pub suite: &'static str,
    asks: mpsc::UnboundedSender<Ask>,
    task: JoinHandle<()>,
}

impl Session {
    pub fn ask(&self, ask: Ask) {
        // A session that has ended cannot be asked; the count of lost connections says so.
        let _ = self.asks.send(ask);
    }

    /// Leaves the room, and waits until the server was told.
    pub async fn leave(self) {
        self.ask(Ask::Leave);
        let _ = tokio::time::timeout(JOIN_TIMEOUT, self.task).await;
    }
}

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("cannot reach {url}: {why}\n  is the server running, and is this its signalling address?")]
    Unreachable { url: String, why: String },
    #[error(
        "the server refuses the token ({status} {body})\n  does it know the key given by --key, with the secret given by --secret?"
    )]
    Refused { status: u16, body: String },
    #[error("the server does not let {identity} in: {status} {body}")]
    NotLetIn { identity: String, status: u16, body: String },
    #[error("{identity}: the server's answer cannot be used: {why}")]
    Answer { identity: String, why: String },
    #[error("{identity}: no media after {} s: {why}", JOIN_TIMEOUT.as_secs())]
    TimedOut { identity: String, why: &'static str },
    #[error("{identity}: {why}")]
    Failed { identity: String, why: String },
    #[error("{0}")]
    Socket(#[from] std::io::Error),
}

/// A kind of server.
#[derive(Clone)]
pub enum Driver {
    LiveKit(livekit::LiveKit),
    Janus(janus::Janus),
}

impl Driver {
    pub async fn join(&self, engine: &Engine, spec: JoinSpec) -> Result<Session, JoinError> {
        match self {
            Driver::LiveKit(server) => server.join(engine, spec).await,
            Driver::Janus(server) => server.join(engine, spec).await,
        }
    }
}
