//! Janus' JSON over a WebSocket: requests find their answers by transaction, events their handle by its number.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::driver::JoinError;
use crate::engine::Owned;

/// Janus ends a session after 60 s of silence.
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// A cloneable handle to the session.
#[derive(Clone)]
pub struct Wire {
    outbox: mpsc::UnboundedSender<Out>,
}

enum Out {
    /// A request without session and transaction, and where its answer goes.
    Request(Value, oneshot::Sender<Value>),
    /// Where events of this handle go that nobody asked for.
    Listen(u64, mpsc::UnboundedSender<Value>),
}

impl Wire {
    pub async fn connect(url: &str) -> Result<Wire, JoinError> {
        let unreachable = |why: String| JoinError::Unreachable { url: url.to_owned(), why };
        let mut request = url.into_client_request().map_err(|error| unreachable(error.to_string()))?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("janus-protocol"));
        let connected = tokio_tungstenite::connect_async(request).await;
        let (mut socket, _) = connected.map_err(|error| unreachable(error.to_string()))?;
        let create = json!({"janus": "create", "transaction": "create"}).to_string();
        socket.send(Frame::text(create)).await.map_err(|error| unreachable(error.to_string()))?;
        let reply = match socket.next().await {
            Some(Ok(Frame::Text(text))) => serde_json::from_str::<Value>(&text).unwrap_or_default(),
            other => return Err(unreachable(format!("no Janus answers there: {other:?}"))),
        };
        let session = reply["data"]["id"].as_u64().ok_or_else(|| unreachable(format!("Janus says {reply}")))?;
        let (outbox, requests) = mpsc::unbounded_channel();
        tokio::spawn(converse(socket, session, requests));
        Ok(Wire { outbox })
    }

    /// Sends a request; waits for its answer, not for its acknowledgement.
    async fn request(&self, request: Value) -> Result<Value, String> {
        let (reply, answer) = oneshot::channel();
        let _ = self.outbox.send(Out::Request(request, reply));
        let answer = answer.await.map_err(|_| "Janus closed the WebSocket".to_owned())?;
        match answer["janus"].as_str() {
            Some("error") => Err(format!("Janus: {}", answer["error"]["reason"].as_str().unwrap_or("unknown error"))),
            _ => match answer["plugindata"]["data"]["error"].as_str() {
                Some(error) => Err(format!("VideoRoom: {error}")),
                None => Ok(answer),
            },
        }
    }

    /// A new handle of VideoRoom.
    pub async fn attach(&self) -> Result<Handle, String> {
        let answer = self.request(json!({"janus": "attach", "plugin": "janus.plugin.videoroom"})).await?;
        let id = answer["data"]["id"].as_u64().ok_or("Janus gave no handle")?;
        let (sender, events) = mpsc::unbounded_channel();
        let _ = self.outbox.send(Out::Listen(id, sender));
        Ok(Handle { wire: self.clone(), id, events, _client: None })
    }
}

/// One connection's side of the conversation.
pub struct Handle {
    wire: Wire,
    id: u64,
    /// What Janus tells unasked.
    pub events: mpsc::UnboundedReceiver<Value>,
    /// What ends with the handle.
    _client: Option<Owned>,
}

impl Handle {
    pub fn with_client(self, client: Owned) -> Handle {
        Handle { _client: Some(client), ..self }
    }

    /// Asks the plugin; gives its event.
    pub async fn ask(&self, body: Value, jsep: Option<Value>) -> Result<Value, String> {
        let mut message = json!({"janus": "message", "handle_id": self.id, "body": body});
        if let Some(jsep) = jsep {
            message["jsep"] = jsep;
        }
        self.wire.request(message).await
    }

    /// Hangs up and forgets.
    pub async fn detach(&self) {
        let _ = self.wire.request(json!({"janus": "detach", "handle_id": self.id})).await;
    }
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn converse(mut socket: Socket, session: u64, mut requests: mpsc::UnboundedReceiver<Out>) {
    let mut answers: HashMap<String, oneshot::Sender<Value>> = HashMap::new();
    let mut handles: HashMap<u64, mpsc::UnboundedSender<Value>> = HashMap::new();
    let mut next = 0u64;
    let mut keep_alive = tokio::time::interval(KEEP_ALIVE);
    loop {
        tokio::select! {
            out = requests.recv() => match out {
                None => return,
                Some(Out::Listen(handle, sender)) => {
                    handles.retain(|_, sender| !sender.is_closed());
                    handles.insert(handle, sender);
                }
                Some(Out::Request(mut request, reply)) => {
                    next += 1;
                    let transaction = next.to_string();
                    request["session_id"] = session.into();
                    request["transaction"] = transaction.clone().into();
                    answers.insert(transaction, reply);
                    if socket.send(Frame::text(request.to_string())).await.is_err() {
                        return;
                    }
                }
            },
            frame = socket.next() => {
                let text = match frame {
                    Some(Ok(Frame::Text(text))) => text,
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => continue,
                };
                let Ok(heard) = serde_json::from_str::<Value>(&text) else { continue };
                if heard["janus"] == "ack" {
                    continue;
                }
                match heard["transaction"].as_str().and_then(|transaction| answers.remove(transaction)) {
                    Some(reply) => drop(reply.send(heard)),
                    None => {
                        if let Some(sender) = heard["sender"].as_u64().and_then(|handle| handles.get(&handle)) {
                            let _ = sender.send(heard);
                        }
                    }
                }
            }
            _ = keep_alive.tick() => {
                let alive = json!({"janus": "keepalive", "session_id": session, "transaction": "alive"});
                if socket.send(Frame::text(alive.to_string())).await.is_err() {
                    return;
                }
            }
        }
    }
}
