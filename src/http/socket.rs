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
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::livekit::{Outgoing, decode_request, decode_request_text, encode_response, encode_response_text};
use crate::metrics::Metrics;
use crate::net::SignalStream;

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
    requests: mpsc::Sender<Box<Request>>,
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
        let request = match message {
            Message::Binary(bytes) => decode_request(&bytes),
            Message::Text(text) => {
                speaks_text.store(true, Ordering::Relaxed);
                decode_request_text(&text)
            }
            // Answered by the WebSocket layer.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => continue,
        };
        match request.map(|request| request.message) {
            Err(error) => dropped(error.as_str()),
            // A request newer than we are.
            Ok(None) => dropped("unknown"),
            Ok(Some(request)) => {
                if requests.send(Box::new(request)).await.is_err() {
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
            match encode_response_text(&response) {
                Ok(json) => Message::text(json),
                Err(_) => continue,
            }
        } else {
            Message::binary(encode_response(&response))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::livekit::MESSAGE_MAX;
    use axum::Router;
    use axum::extract::WebSocketUpgrade;
    use axum::routing::any;
    use prost::Message as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::tungstenite::Message as Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
    use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

    type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

    /// The worker's side of a stream, and what it is told.
    struct Worker {
        requests: mpsc::Receiver<Box<Request>>,
        responses: mpsc::Sender<Outgoing>,
        metrics: Arc<Metrics>,
    }

    /// A client and a worker with a real socket between them.
    async fn connected() -> (Client, Worker) {
        let (to_worker, requests) = mpsc::channel(16);
        let (responses, to_client) = mpsc::channel(16);
        let metrics = Arc::new(Metrics::new());
        let worker = Worker { requests, responses, metrics: metrics.clone() };
        let stream = Arc::new(std::sync::Mutex::new(Some(SignalStream { requests: to_worker, responses: to_client })));
        let router = Router::new().route(
            "/",
            any(async move |upgrade: WebSocketUpgrade| {
                let stream = stream.lock().unwrap().take().unwrap();
                let upgrade = upgrade.max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX);
                upgrade.on_upgrade(move |socket| run(socket, stream, metrics))
            }),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        (tokio_tungstenite::connect_async(url).await.unwrap().0, worker)
    }

    fn pong(n: i64) -> proto::SignalResponse {
        proto::SignalResponse { message: Some(Response::Pong(n)) }
    }

    fn leave() -> Outgoing {
        Outgoing::Message(Arc::new(proto::SignalResponse { message: Some(Response::Leave(Default::default())) }))
    }

    fn ping(n: i64) -> proto::SignalRequest {
        proto::SignalRequest { message: Some(Request::Ping(n)) }
    }

    async fn next(client: &mut Client) -> Frame {
        timeout(Duration::from_secs(20), client.next()).await.expect("a frame").expect("no end").unwrap()
    }

    async fn close_code(client: &mut Client) -> u16 {
        loop {
            match next(client).await {
                Frame::Close(frame) => return frame.map_or(1005, |frame| u16::from(frame.code)),
                Frame::Ping(_) | Frame::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn binary_is_answered_in_binary_and_text_in_text() {
        let (mut client, mut worker) = connected().await;
        client.send(Frame::binary(ping(7).encode_to_vec())).await.unwrap();
        assert_eq!(worker.requests.recv().await, Some(Box::new(Request::Ping(7))));
        worker.responses.send(Outgoing::Message(Arc::new(pong(8)))).await.unwrap();
        let Frame::Binary(bytes) = next(&mut client).await else { panic!("binary") };
        assert_eq!(proto::SignalResponse::decode(bytes).unwrap(), pong(8));

        client.send(Frame::text(r#"{"ping":"9"}"#)).await.unwrap();
        assert_eq!(worker.requests.recv().await, Some(Box::new(Request::Ping(9))));
        worker.responses.send(Outgoing::Message(Arc::new(pong(10)))).await.unwrap();
        let Frame::Text(text) = next(&mut client).await else { panic!("text") };
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), serde_json::json!({"pong": "10"}));
    }

    #[tokio::test]
    async fn nonsense_is_dropped_and_counted() {
        let (mut client, mut worker) = connected().await;
        let large = proto::SignalRequest { message: Some(Request::Simulate(Default::default())) }.encode_to_vec();
        let mut padded = large.clone();
        // An unknown field of 300 kB: field 1000, length-delimited.
        prost::encoding::bytes::encode(1000, &vec![0u8; 300_000], &mut padded);
        for frame in [
            Frame::binary(vec![0xff; 8]),
            Frame::binary(vec![]),
            Frame::text("{"),
            Frame::text("[]"),
            Frame::binary(padded),
        ] {
            client.send(frame).await.unwrap();
        }
        // With an SDP it may be that large.
        let sdp = "x".repeat(300_000);
        let offer = proto::SignalRequest {
            message: Some(Request::Offer(proto::SessionDescription { sdp, ..Default::default() })),
        };
        client.send(Frame::binary(offer.encode_to_vec())).await.unwrap();
        assert!(
            matches!(worker.requests.recv().await.as_deref(), Some(Request::Offer(_))),
            "the first that makes sense"
        );
        assert_eq!(worker.metrics.signal_dropped.with_label_values(&["malformed"]).get(), 3);
        assert_eq!(worker.metrics.signal_dropped.with_label_values(&["unknown"]).get(), 1);
        assert_eq!(worker.metrics.signal_dropped.with_label_values(&["too-large"]).get(), 1);
    }

    #[tokio::test]
    async fn a_message_beyond_the_limit_ends_the_connection() {
        let (mut client, mut worker) = connected().await;
        let _ = client.send(Frame::binary(vec![0; MESSAGE_MAX + 1])).await;
        assert_eq!(close_code(&mut client).await, code::TOO_BIG);
        assert_eq!(worker.requests.recv().await, None);
    }

    #[tokio::test]
    async fn close_codes_tell_leaving_from_losing() {
        for (what, last, expected) in [
            ("left", vec![leave(), Outgoing::Close(1000)], 1000),
            ("closed without leave", vec![Outgoing::Close(1000)], 1011),
            (
                "leave was not the last word",
                vec![leave(), Outgoing::Message(Arc::new(pong(1))), Outgoing::Close(1000)],
                1011,
            ),
            ("resume elsewhere", vec![Outgoing::Close(1001)], 1001),
            ("worker gone", vec![], 1011),
        ] {
            let (mut client, worker) = connected().await;
            let messages = last.len();
            for outgoing in last {
                worker.responses.send(outgoing).await.unwrap();
            }
            if messages == 0 {
                drop(worker);
            }
            loop {
                match next(&mut client).await {
                    Frame::Close(frame) => {
                        assert_eq!(frame.unwrap().code, CloseCode::from(expected), "{what}");
                        break;
                    }
                    _ => continue,
                }
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_closes_or_breaks_is_lost_to_the_worker_at_once() {
        let (mut client, mut worker) = connected().await;
        assert_eq!(worker.metrics.signal_connections.get(), 1);
        client.close(None).await.unwrap();
        assert_eq!(timeout(Duration::from_secs(1), worker.requests.recv()).await.unwrap(), None);
        timeout(Duration::from_secs(1), worker.responses.closed()).await.unwrap();

        let (client, mut worker) = connected().await;
        drop(client);
        assert_eq!(timeout(Duration::from_secs(1), worker.requests.recv()).await.unwrap(), None);
        timeout(Duration::from_secs(1), worker.responses.closed()).await.unwrap();
        while worker.metrics.signal_connections.get() != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn pings_come_and_silence_ends_the_connection() {
        let started = Instant::now();
        let (mut client, mut worker) = connected().await;
        // Not reading, the client does not answer pings either.
        assert_eq!(timeout(SILENCE + Duration::from_secs(2), worker.requests.recv()).await.unwrap(), None);
        assert!(started.elapsed() >= SILENCE);
        assert!(matches!(next(&mut client).await, Frame::Ping(_)));
        assert_eq!(close_code(&mut client).await, code::GOING_AWAY);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_off() {
        let (mut client, worker) = connected().await;
        // Its messages keep coming, so it is not silent.
        let chatter = tokio::spawn(async move {
            while client.send(Frame::binary(ping(1).encode_to_vec())).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let Worker { mut requests, responses, .. } = worker;
        let drain = tokio::spawn(async move { while requests.recv().await.is_some() {} });
        let fill = async {
            let refresh = Response::RefreshToken("x".repeat(1024 * 1024));
            let large = proto::SignalResponse { message: Some(refresh) };
            while responses.send(Outgoing::Message(Arc::new(large.clone()))).await.is_ok() {}
        };
        timeout(SEND_TIMEOUT + Duration::from_secs(10), fill).await.expect("cut off");
        drain.await.unwrap();
        chatter.abort();
    }
}
