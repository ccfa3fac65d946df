//! The HTTP listeners, with TLS and without: accept, bound and time connections, and hand requests to the router.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::client_address::{ClientAddress, client_address};
use super::{App, Tls, homeserver_router, prefix, router};
use crate::subscriber::subscriber;

/// The headers of a request that is meant come in one or two packets.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of request line and headers. The line carries a token and a whole SDP offer, gzipped: up to some 20 kB in large
/// meetings, which proxies pass on only when told to.
const LARGEST_HEAD: usize = 128 * 1024;

/// HTTP connections that have not become WebSockets, all together.
const MOST_CONNECTIONS: usize = 4096;

/// The same, from one subscriber that is no trusted proxy.
const MOST_PER_ADDRESS: usize = 64;

/// For requests under way and for clients to hear that they must leave, before the process ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(60);

/// After an error of `accept` that is not the client's, most likely no file descriptors: lets some be given back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`; then finishes what is under way. The sockets of participants end when the worker ends them.
pub async fn serve(listener: TcpListener, app: Arc<App>, shutdown: CancellationToken) {
    let router = router(app.clone());
    listen(listener, None, router, MOST_PER_ADDRESS, app, shutdown).await;
}

/// The same with TLS. What is TURN goes to the media workers.
pub async fn serve_tls(listener: TcpListener, tls: Arc<Tls>, app: Arc<App>, shutdown: CancellationToken) {
    let watching = tokio::spawn(tls.certificates.clone().watch(shutdown.clone()));
    let router = router(app.clone());
    listen(listener, Some(tls), router, MOST_PER_ADDRESS, app, shutdown).await;
    let _ = watching.await;
}

/// Serves the homeserver's routes alone, at `appservice.listen`.
pub async fn serve_homeserver(listener: TcpListener, app: Arc<App>, shutdown: CancellationToken) {
    let router = homeserver_router(app.clone());
    // It is one address and stands for all its users.
    listen(listener, None, router, MOST_CONNECTIONS, app, shutdown).await;
}

/// Every listener has slots of its own: who fills up the one that the world reaches does not shut out the other.
async fn listen(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    most_per_address: usize,
    app: Arc<App>,
    shutdown: CancellationToken,
) {
    let urls = [&app.config.public_url, &app.config.appservice.url];
    let server = Arc::new(Server {
        router,
        prefixes: urls.map(|url| url.path().trim_end_matches('/').to_owned()),
        slots: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        most_per_address,
        per_address: Mutex::default(),
        shutdown: shutdown.clone(),
        app: app.clone(),
        tls,
    });
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => server.clone().accept(stream, peer),
                Err(error) => {
                    tracing::warn!("cannot accept an HTTP connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = housekeeping.tick() => {
                app.joins.forget_idle();
                app.tokens.forget_idle();
                app.rooms.admission.forget_idle();
            }
            () = shutdown.cancelled() => break,
        }
    }
    drop(listener);
    app.drain();
    app.connections.close();
    if timeout(SHUTDOWN_TIMEOUT, app.connections.wait()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
}

pub(super) struct Server {
    pub app: Arc<App>,
    pub shutdown: CancellationToken,
    tls: Option<Arc<Tls>>,
    router: Router,
    /// Paths of our URLs, without a slash at the end.
    prefixes: [String; 2],
    slots: Arc<Semaphore>,
    most_per_address: usize,
    per_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Server {
    fn accept(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // Too many: closing at once is all we can afford to say.
        let Ok(slot) = self.slots.clone().try_acquire_owned() else { return };
        // Signalling messages are small and wait for nothing.
        let _ = stream.set_nodelay(true);
        let connections = self.app.connections.clone();
        match self.tls.clone() {
            Some(tls) => drop(connections.spawn(tls.welcome(self, stream, peer, slot))),
            None => {
                let client = peer.ip().to_canonical();
                let Some(place) = Place::take(self.clone(), client) else { return };
                connections.spawn(async move {
                    self.converse(stream, client).await;
                    drop((slot, place));
                });
            }
        }
    }

    /// HTTP, until the connection ends or becomes a WebSocket.
    pub async fn converse(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        client: IpAddr,
    ) {
        let shutdown = self.shutdown.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| self.clone().call(request, client));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!("HTTP connection: {error}");
        }
    }

    async fn call(self: Arc<Self>, request: hyper::Request<Incoming>, peer: IpAddr) -> Result<Response, Infallible> {
        let mut request: Request = request.map(Body::new);
        *request.uri_mut() = prefix::stripped(request.uri(), &self.prefixes);
        let client = client_address(peer, request.headers(), &self.app.config.http.trusted_proxies);
        request.extensions_mut().insert(ClientAddress(client));
        let mut response = tower_service::Service::call(&mut self.router.clone(), request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // One request a connection: a proxy that reuses one that is just being closed for idleness would answer its
            // client with an error, and idle connections would need slots and time-outs of their own.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// One of the few connections a subscriber may have.
pub(super) struct Place {
    server: Arc<Server>,
    address: IpAddr,
}

impl Place {
    pub fn take(server: Arc<Server>, address: IpAddr) -> Option<Place> {
        let is_proxy = server.app.config.http.trusted_proxies.iter().any(|net| net.contains(&address));
        let address = subscriber(address);
        let mut counts = server.per_address.lock().expect("no panic while held");
        let count = counts.entry(address).or_default();
        if *count >= server.most_per_address && !is_proxy {
            return None;
        }
        *count += 1;
        drop(counts);
        server.app.metrics.http_connections.inc();
        Some(Place { server, address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.server.per_address.lock().expect("no panic while held");
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
        drop(counts);
        self.server.app.metrics.http_connections.dec();
    }
}
