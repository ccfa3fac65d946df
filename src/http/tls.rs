//! What comes before HTTP on the TLS listener: a balancer's word on who the client is, the handshake, and the choice
//! between HTTP and TURN by the first byte inside. HTTP goes on in `server`, TURN moves to a media worker as it stands.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::Certificates;
use super::proxy_protocol::{self, Ends};
use super::server::{HEADER_TIMEOUT, Place, Server};
use crate::config;
use crate::net::TurnStream;

/// For the balancer's header and the handshake together: three round trips, with packets lost on the way.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Browsers ask for more than one and need one of them back; clients of TURN that name anything name the last (RFC 7443).
const ALPN: [&[u8]; 2] = [b"http/1.1", b"stun.turn"];

/// STUN begins with a byte below this, HTTP with a letter (RFC 7983 §7).
const STUN_ENDS: u8 = 4;

pub struct Tls {
    pub(super) certificates: Arc<Certificates>,
    acceptor: TlsAcceptor,
    /// Who must send a PROXY protocol header.
    balancers: Vec<IpNet>,
    /// A balancer without one was told of.
    warned: AtomicBool,
}

enum Speech {
    Http,
    Turn,
}

impl Tls {
    /// Loads the certificate. The error is a sentence for the operator.
    pub fn load(settings: &config::Tls) -> Result<Tls, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates =
            Certificates::load(&settings.certificate_file, &settings.private_key_file, provider.clone())?;
        let certificates = Arc::new(certificates);
        // TLS 1.2 and 1.3.
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("cannot set up TLS: {e}"))?
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        // Tickets that carry their own state: who comes back costs no memory meanwhile.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|e| format!("cannot set up TLS: {e}"))?;
        Ok(Tls {
            certificates,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            balancers: settings.proxy_protocol_from.clone(),
            warned: AtomicBool::new(false),
        })
    }

    /// Serves one connection from its first byte on. `_slot` is held until it ends or is somebody else's.
    pub(super) async fn welcome(
        self: Arc<Self>,
        server: Arc<Server>,
        stream: TcpStream,
        peer: SocketAddr,
        _slot: OwnedSemaphorePermit,
    ) {
        let shutdown = server.shutdown.clone();
        let arrived = tokio::select! {
            arrived = self.arrive(&server, stream, peer) => arrived,
            () = shutdown.cancelled() => return,
        };
        let outcome = |outcome| server.app.metrics.tls_connections.with_label_values(&[outcome]).inc();
        match arrived {
            Ok((Speech::Http, stream, Ends { client, .. }, _place)) => {
                outcome("http");
                server.converse(stream, client.ip()).await;
            }
            Ok((Speech::Turn, stream, ends, _place)) => {
                outcome("turn");
                let (tcp, tls) = stream.into_inner();
                let Ok(tcp) = tcp.into_std() else { return };
                let stream = TurnStream { tcp, tls: Box::new(tls), client: ends.client, local: ends.local };
                // A worker that is gone leaves nobody to tell.
                let _ = server.app.node.adopt(stream).await;
            }
            Err(error) => {
                outcome("failed");
                tracing::debug!("TLS connection: {error}");
            }
        }
    }

    /// The connection after its handshake, with what it speaks and whose it is.
    async fn arrive(
        &self,
        server: &Arc<Server>,
        mut stream: TcpStream,
        peer: SocketAddr,
    ) -> io::Result<(Speech, TlsStream<TcpStream>, Ends, Place)> {
        let handshake = async {
            let ends = self.ends(&mut stream, peer).await?;
            let none_left = || io::Error::other("too many connections from its address");
            let place = Place::take(server.clone(), ends.client.ip()).ok_or_else(none_left)?;
            Ok::<_, io::Error>((self.acceptor.accept(stream).await?, ends, place))
        };
        let (mut stream, ends, place) = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
        // It stays where it is: whoever goes on reads it too.
        let first = timeout(HEADER_TIMEOUT, stream.fill_buf()).await??.first().copied();
        let speech = match first {
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(first) if first < STUN_ENDS => Speech::Turn,
            Some(_) => Speech::Http,
        };
        Ok((speech, stream, ends, place))
    }

    /// Reads the balancer's header, when there has to be one.
    async fn ends(&self, stream: &mut TcpStream, peer: SocketAddr) -> io::Result<Ends> {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let direct = Ends { client: canonical(peer), local: canonical(stream.local_addr()?) };
        if !self.is_balancer(direct.client.ip()) {
            return Ok(direct);
        }
        match proxy_protocol::read_header(stream).await {
            Ok(told) => Ok(told.unwrap_or(direct)),
            Err(error) => {
                // A balancer that is set up wrongly lets nobody through. Health checks that only connect are no news.
                if error.kind() != io::ErrorKind::UnexpectedEof && !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "a peer in tls.proxy_protocol_from does not send a PROXY protocol v2 header: {error}; set its \
                         backend to send-proxy-v2, or take it out of that list"
                    );
                }
                Err(error)
            }
        }
    }

    fn is_balancer(&self, peer: IpAddr) -> bool {
        self.balancers.iter().any(|net| net.contains(&peer))
    }
}
