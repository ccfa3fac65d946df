//! The signalling WebSocket after the join: client messages to the worker, the worker's messages to the client.
//!
//! Binary frames are protobuf, text frames its JSON form; a client that speaks text is answered in text. A client that is
//! silent, reads too slowly or sends too much is cut off, always with a close code other than 1000: that one means "left",
//! anything else makes the client resume at once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::livekit::Outgoing;
use crate::metrics::Metrics;
use crate::net::SignalStream;

/// Bytes of one message of a client. An offer of a large meeting has some 5 kB a section.
pub const LARGEST_MESSAGE: usize = 2 * 1024 * 1024;

/// Bytes of a message that carries no SDP; the largest of these are long lists of tracks.
const LARGEST_WITHOUT_SDP: usize = 256 * 1024;

/// Keeps proxies from closing an idle connection, which they do after 30 s or more, and shows that the client is there.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// The client answers our pings, and its own come every 5 s: so long a silence means it is gone. LiveKit's value.
const SILENCE: Duration = Duration::from_secs(15);

/// A client that takes a message this slowly would have missed the events after it anyway.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// For the client's side of closing, before TCP is closed under it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages a client may send per second in the long run, and at once. Joining a large meeting takes a few hundred at
/// once; above it we simply read more slowly.
const MESSAGES_PER_SECOND: NonZeroU32 = NonZeroU32::new(100).unwrap();
const MESSAGES_AT_ONCE: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// RFC 6455 §7.4.1.
mod code {
    pub const NORMAL: u16 = 1000;
    pub const GOING_AWAY: u16 = 1001;
    pub const TOO_BIG: u16 = 1009;
    pub const INTERNAL_ERROR: u16 = 1011;
}

/// Why a connection ends.
enum End {
    /// The client closed it, or TCP broke.
    Client,
    /// We close it.
    Close { code: u16, why: &'static str },
}

pub async fn run(socket: WebSocket, stream: SignalStream, metrics: Arc<Metrics>) {
    metrics.signal_connections.inc();
    let (mut sink, mut source) = socket.split();
    let speaks_text = AtomicBool::new(false);
    let SignalStream { requests, responses } = stream;
    let end = tokio::select! {
        end = receive(&mut source, requests, &speaks_text, &metrics) => end,
        end = send(&mut sink, responses, &speaks_text) => end,
    };
    match end {
        End::Client => tracing::debug!("client closed the connection"),
        End::Close { code, why } => {
            tracing::debug!(code, "closing: {why}");
            close(&mut sink, &mut source, code).await;
        }
    }
    metrics.signal_connections.dec();
}

async fn receive(
    source: &mut SplitStream<WebSocket>,
    requests: mpsc::Sender<Request>,
    speaks_text: &AtomicBool,
    metrics: &Metrics,
) -> End {
    let pace: DefaultDirectRateLimiter =
        RateLimiter::direct(Quota::per_second(MESSAGES_PER_SECOND).allow_burst(MESSAGES_AT_ONCE));
    loop {
        let message = match timeout(SILENCE, source.next()).await {
            Err(_) => return End::Close { code: code::GOING_AWAY, why: "the client is silent" },
            Ok(None) | Ok(Some(Ok(Message::Close(_)))) => return End::Client,
            Ok(Some(Err(error))) => return broken(&error),
            Ok(Some(Ok(message))) => message,
        };
        pace.until_ready().await;
        let dropped = |reason| metrics.signal_dropped.with_label_values(&[reason]).inc();
        let size = message_size(&message);
        let request = match message {
            Message::Binary(bytes) => proto::SignalRequest::decode(bytes).ok(),
            Message::Text(text) => {
                speaks_text.store(true, Ordering::Relaxed);
                serde_json::from_str::<proto::SignalRequest>(&text).ok()
            }
            // Answered by the WebSocket layer.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => continue,
        };
        match request.and_then(|request| request.message) {
            None => dropped("malformed"),
            Some(request) if size > LARGEST_WITHOUT_SDP && !carries_sdp(&request) => dropped("too-large"),
            Some(request) => {
                if requests.send(request).await.is_err() {
                    // The worker has let go of this client. What it said last is still on its way through `send`.
                    tokio::time::sleep(SEND_TIMEOUT).await;
                    return End::Close { code: code::INTERNAL_ERROR, why: "the worker no longer listens" };
                }
            }
        }
    }
}

async fn send(
    sink: &mut SplitSink<WebSocket, Message>,
    mut responses: mpsc::Receiver<Outgoing>,
    speaks_text: &AtomicBool,
) -> End {
    let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_left = false;
    loop {
        let outgoing = tokio::select! {
            outgoing = responses.recv() => outgoing,
            _ = ping.tick() => {
                match deliver(sink, Message::Ping(Default::default())).await {
                    Some(end) => return end,
                    None => continue,
                }
            }
        };
        let response = match outgoing {
            None => return End::Close { code: code::INTERNAL_ERROR, why: "the worker is gone" },
            // Without a `leave` the client would not notice a normal close until its ping times out.
            Some(Outgoing::Close(code::NORMAL)) if !has_left => {
                return End::Close { code: code::INTERNAL_ERROR, why: "the worker closed without leave" };
            }
            Some(Outgoing::Close(code)) => return End::Close { code, why: "the worker said so" },
            Some(Outgoing::Message(response)) => response,
        };
        has_left = matches!(response.message, Some(Response::Leave(_)));
        let message = if speaks_text.load(Ordering::Relaxed) {
            match serde_json::to_string(&response) {
                Ok(json) => Message::text(json),
                Err(_) => continue,
            }
        } else {
            Message::binary(response.encode_to_vec())
        };
        if let Some(end) = deliver(sink, message).await {
            return end;
        }
    }
}

async fn deliver(sink: &mut SplitSink<WebSocket, Message>, message: Message) -> Option<End> {
    match timeout(SEND_TIMEOUT, sink.send(message)).await {
        Ok(Ok(())) => None,
        Ok(Err(_)) => Some(End::Client),
        Err(_) => Some(End::Close { code: code::GOING_AWAY, why: "the client reads too slowly" }),
    }
}

/// Sends the close frame and waits for the client's: closing TCP at once could destroy what is still on its way.
async fn close(sink: &mut SplitSink<WebSocket, Message>, source: &mut SplitStream<WebSocket>, code: u16) {
    let closing = async {
        let frame = CloseFrame { code, reason: "".into() };
        if sink.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = source.next().await {}
        }
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

fn broken(error: &axum::Error) -> End {
    use std::error::Error;
    let too_big = error.source().is_some_and(|source| source.to_string().contains("too long"));
    match too_big {
        true => End::Close { code: code::TOO_BIG, why: "a message was too large" },
        false => End::Client,
    }
}

fn message_size(message: &Message) -> usize {
    match message {
        Message::Binary(bytes) => bytes.len(),
        Message::Text(text) => text.len(),
        _ => 0,
    }
}

fn carries_sdp(request: &Request) -> bool {
    matches!(request, Request::Offer(_) | Request::Answer(_) | Request::SyncState(_))
}
