//! The handle to the media worker.

use tokio::sync::{mpsc, oneshot};

use crate::livekit::{JoinRequest, Outgoing};
use crate::sfu;
use livekit_protocol as proto;

/// A cloneable handle to the media worker thread.
#[derive(Clone)]
pub struct Node {
    requests: mpsc::Sender<NodeRequest>,
}

pub enum NodeRequest {
    CreateRoom(String, sfu::RoomOptions, oneshot::Sender<sfu::RoomInfo>),
    Room(String, oneshot::Sender<Option<sfu::RoomInfo>>),
    Join(Box<JoinRequest>, oneshot::Sender<Result<SignalStream, JoinRefused>>),
}

/// Both directions of one participant's signalling; dropping both means the signal is lost.
pub struct SignalStream {
    pub requests: mpsc::Sender<proto::signal_request::Message>,
    pub responses: mpsc::Receiver<Outgoing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinRefused {
    RoomMissing,
    RoomFull,
    /// The node is at its limit.
    Busy,
    Gone,
}

/// The worker has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeGone;

impl Node {
    pub fn new(requests: mpsc::Sender<NodeRequest>) -> Node {
        Node { requests }
    }

    /// Starts the worker.
    pub fn start(_config: &crate::config::Config, _keys: crate::livekit::access_token::Keys, _metrics: std::sync::Arc<crate::metrics::Metrics>) -> std::io::Result<Node> {
        Ok(Node::new(mpsc::channel(1).0))
    }

    pub async fn create_room(&self, name: String, options: sfu::RoomOptions) -> Result<sfu::RoomInfo, NodeGone> {
        let (tx, rx) = oneshot::channel();
        self.requests.send(NodeRequest::CreateRoom(name, options, tx)).await.map_err(|_| NodeGone)?;
        rx.await.map_err(|_| NodeGone)
    }

    pub async fn room(&self, name: String) -> Result<Option<sfu::RoomInfo>, NodeGone> {
        let (tx, rx) = oneshot::channel();
        self.requests.send(NodeRequest::Room(name, tx)).await.map_err(|_| NodeGone)?;
        rx.await.map_err(|_| NodeGone)
    }

    pub async fn join(&self, request: JoinRequest) -> Result<SignalStream, JoinRefused> {
        let (tx, rx) = oneshot::channel();
        self.requests.send(NodeRequest::Join(Box::new(request), tx)).await.map_err(|_| JoinRefused::Gone)?;
        rx.await.map_err(|_| JoinRefused::Gone)?
    }
}
