//! The TLS listener: HTTPS, WebSockets and TURN on one port, a balancer before it, and those who would tie it up.

mod http_support;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use http_support::Server;
use livekit_protocol as proto;
use parlour::http::{self, Tls};
use prost::Message;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const NAME: &str = "rtc.example.org";
const PATIENCE: Duration = Duration::from_secs(10);
/// The time-outs of the listener, and some for a slow machine.
const HANDSHAKE_ENDS: Duration = Duration::from_secs(10 + 5);
const HEADERS_END: Duration = Duration::from_secs(5 + 5);

/// A server with a certificate of its own.
struct Secured {
    server: Server,
    address: SocketAddr,
    folder: TempDir,
    certificate: CertificateDer<'static>,
}

impl Secured {
    /// `tls` are more keys of `[tls]`, `more` more sections.
    async fn start(tls: &str, more: &str) -> Secured {
        let folder = tempfile::tempdir().unwrap();
        let certificate = write_certificate(&folder);
        let path = folder.path().display();
        let server = Server::with_config(&format!(
            "[tls]\ncertificate_file = \"{path}/cert.pem\"\nprivate_key_file = \"{path}/key.pem\"\n{tls}\n{more}"
        ))
        .await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Tls::load(server.app.config.tls.as_ref().unwrap()).unwrap();
        tokio::spawn(http::serve_tls(listener, Arc::new(tls), server.app.clone(), server.shutdown.clone()));
        Secured { server, address, folder, certificate }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.handshake(self.tcp().await).await.unwrap()
    }

    async fn handshake(&self, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.handshake_with(tcp, rustls::DEFAULT_VERSIONS, &[]).await
    }

    async fn handshake_with(
        &self,
        tcp: TcpStream,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(NAME).unwrap();
        timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, tcp))
            .await
            .expect("a handshake or its end")
    }

    /// Status of a GET, by whoever `tcp` is for.
    async fn get(&self, tcp: TcpStream, path: &str) -> u16 {
        let mut stream = self.handshake(tcp).await.unwrap();
        get(&mut stream, path).await.0
    }

    /// A connection that a balancer passes on with these bytes before it.
    async fn behind(&self, header: &[u8]) -> TcpStream {
        let mut tcp = self.tcp().await;
        tcp.write_all(header).await.unwrap();
        tcp
    }

    async fn metric(&self, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.server.counted(line) {
            assert!(Instant::now() < deadline, "{line}: {}", self.server.metrics.render());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn write_certificate(folder: &TempDir) -> CertificateDer<'static> {
    let CertifiedKey::<KeyPair> { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()]).unwrap();
    fs::write(folder.path().join("cert.pem"), cert.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

/// Status and body.
async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> (u16, String) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").expect("an end as TLS has it");
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// A STUN request of this method without attributes.
fn request(method: u8, transaction: u8) -> Vec<u8> {
    [&[0, method, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[transaction; 12]].concat()
}

const BINDING: u8 = 1;
const ALLOCATE: u8 = 3;

/// The next STUN message.
async fn answer(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut message = vec![0; 20];
    timeout(PATIENCE, stream.read_exact(&mut message)).await.expect("an answer").unwrap();
    message.resize(20 + usize::from(u16::from_be_bytes([message[2], message[3]])), 0);
    timeout(PATIENCE, stream.read_exact(&mut message[20..])).await.expect("the rest of it").unwrap();
    message
}

/// The answer to a binding request from this IPv4 address (RFC 8489 §14.2).
fn mapped(transaction: u8, client: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(client) = client else { panic!("IPv4") };
    let port = (client.port() ^ 0x2112).to_be_bytes();
    let ip = (client.ip().to_bits() ^ 0x2112_a442).to_be_bytes();
    let header = [1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    [&header[..], &[transaction; 12], &[0, 0x20, 0, 8, 0, 1], &port, &ip].concat()
}

fn proxy_header(command: u8, client: [u8; 4], port: u16) -> Vec<u8> {
    let fixed = [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, 0x11, 0, 12][..]].concat();
    [&fixed[..], &client, &[198, 51, 100, 1], &port.to_be_bytes(), &443u16.to_be_bytes()].concat()
}

const LOCAL: u8 = 0;
const PROXY: u8 = 1;

/// That the server ends the connection, and when at the latest.
async fn ends_within(limit: Duration, mut tcp: TcpStream) -> Duration {
    let started = Instant::now();
    let mut bytes = Vec::new();
    let _ = timeout(limit, tcp.read_to_end(&mut bytes)).await.expect("the server ends it");
    started.elapsed()
}

#[tokio::test]
async fn https_and_websockets_work_as_without_tls() {
    let secured = Secured::start("", "").await;
    let versions = [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12], rustls::DEFAULT_VERSIONS];
    for versions in versions {
        for (offered, chosen) in
            [(&[][..], None), (&["h2", "http/1.1"], Some("http/1.1")), (&["stun.turn"], Some("stun.turn"))]
        {
            let mut stream = secured.handshake_with(secured.tcp().await, versions, offered).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes));
            assert_eq!(get(&mut stream, "/healthz").await, (200, "OK".into()));
        }
    }
    assert!(secured.handshake_with(secured.tcp().await, rustls::DEFAULT_VERSIONS, &["h2"]).await.is_err());
    secured.metric("parlour_tls_connections_total{outcome=\"http\"} 9").await;

    let token = secured.server.join_token("@alice:example.org", "room");
    secured.server.create_room("room", 0).await;
    for (token, joins) in [(token.as_str(), true), ("nonsense", false)] {
        let url = format!("wss://{NAME}/rtc?access_token={token}&auto_subscribe=1");
        let joined = tokio_tungstenite::client_async(url, secured.connect().await).await;
        assert_eq!(joined.is_ok(), joins);
        let Ok((mut socket, _)) = joined else { continue };
        let frame = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        let first = proto::SignalResponse::decode(frame.into_data()).unwrap();
        assert!(matches!(first.message, Some(proto::signal_response::Message::Join(_))), "{first:?}");
        // It is no HTTP connection any more.
        secured.metric("parlour_http_connections 0").await;
    }
}

#[tokio::test]
async fn turn_on_the_same_port_is_served_by_a_media_worker() {
    let secured = Secured::start("", "[media]\nworkers = 2").await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(secured.connect().await);
    }
    for stream in &mut streams {
        let own = stream.get_ref().0.local_addr().unwrap();
        // However it comes: one by one, several in a record, in records of a byte or two.
        stream.write_all(&request(BINDING, 1)).await.unwrap();
        assert_eq!(answer(stream).await, mapped(1, own));
        let many: Vec<u8> = (0..20).flat_map(|n| request(BINDING, n)).collect();
        stream.write_all(&many).await.unwrap();
        for n in 0..20 {
            assert_eq!(answer(stream).await, mapped(n, own));
        }
        for piece in request(ALLOCATE, 7).chunks(3) {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let refused = answer(stream).await;
        assert_eq!((&refused[..2], &refused[8..20]), (&[0x01, 0x13][..], &[7; 12][..]), "an error of Allocate");
        let attributes = &refused[20..];
        assert!(attributes.windows(8).any(|a| a == [0, 9, 0, 4, 0, 0, 4, 1]), "401: {attributes:02x?}");
    }
    // They are no HTTP connections any more; and one that goes astray is ended properly.
    secured.metric("parlour_http_connections 0").await;
    secured.metric("parlour_tls_connections_total{outcome=\"turn\"} 4").await;
    let mut astray = streams.pop().unwrap();
    astray.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(timeout(PATIENCE, astray.read(&mut [0; 9])).await.unwrap().unwrap(), 0, "close_notify");
}

#[tokio::test]
async fn the_first_byte_may_come_alone() {
    let secured = Secured::start("", "").await;
    for (bytes, expected) in [(request(BINDING, 5), &b"\x01\x01"[..]), (b"GET / HTTP/1.1\r\n\r\n".to_vec(), b"HT")] {
        let mut stream = secured.connect().await;
        stream.write_all(&bytes[..1]).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(&bytes[1..]).await.unwrap();
        let mut first = [0; 2];
        timeout(PATIENCE, stream.read_exact(&mut first)).await.unwrap().unwrap();
        assert_eq!(first, expected);
    }
}

#[tokio::test]
async fn a_balancer_says_who_the_client_is() {
    // Numbers are for those on 10.0.0.0/8, so that an answer tells who we think asks.
    let http = "[http]\nmetrics_from = [\"10.0.0.0/8\"]\ntrusted_proxies = []";
    let secured = Secured::start("proxy_protocol_from = [\"127.0.0.1\"]", http).await;
    for (header, status, what) in [
        (proxy_header(PROXY, [10, 0, 0, 9], 4000), 200, "the client in the header"),
        (proxy_header(PROXY, [192, 0, 2, 9], 4000), 403, "another one"),
        (proxy_header(LOCAL, [10, 0, 0, 9], 4000), 403, "the balancer itself"),
    ] {
        assert_eq!(secured.get(secured.behind(&header).await, "/metrics").await, status, "{what}");
    }
    let client = SocketAddr::from(([192, 0, 2, 9], 4000));
    let header = proxy_header(PROXY, [192, 0, 2, 9], 4000);
    let mut stream = secured.handshake(secured.behind(&header).await).await.unwrap();
    stream.write_all(&request(BINDING, 1)).await.unwrap();
    assert_eq!(answer(&mut stream).await, mapped(1, client), "TURN knows it too");

    for (header, what) in [
        (&b""[..], "none"),
        (b"PROXY TCP4 10.0.0.9 198.51.100.1 4000 443\r\n", "version 1"),
        (&proxy_header(2, [10, 0, 0, 9], 4000), "another command"),
        (&header[..20], "half a header"),
    ] {
        assert!(secured.handshake(secured.behind(header).await).await.is_err(), "{what}");
    }
    secured.metric("parlour_tls_connections_total{outcome=\"failed\"} 4").await;
}

#[tokio::test]
async fn nobody_else_may_say_who_the_client_is() {
    let secured = Secured::start("proxy_protocol_from = [\"10.0.0.0/8\"]", "").await;
    let header = proxy_header(PROXY, [10, 0, 0, 9], 4000);
    assert!(secured.handshake(secured.behind(&header).await).await.is_err());
    assert_eq!(secured.get(secured.tcp().await, "/healthz").await, 200);
}

#[tokio::test]
async fn who_is_slow_on_the_way_in_is_shown_out() {
    let secured = Secured::start("", "").await;
    let balanced = Secured::start("proxy_protocol_from = [\"127.0.0.1\"]", "").await;
    // A handshake that goes on for ever, a byte at a time.
    let hello = [&[0x16, 3, 1, 2, 0][..], &[1, 0, 1, 0xfc, 3, 3], &[7; 480]].concat();
    let mut dribbling = secured.tcp().await;
    let dribble = async {
        for byte in &hello {
            if dribbling.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("it is never ended");
    };
    let silent_inside = async {
        let mut stream = secured.connect().await;
        let mut bytes = Vec::new();
        timeout(HEADERS_END, stream.read_to_end(&mut bytes)).await.expect("the server ends it")
    };
    let silent_balancer = balanced.behind(&proxy_header(PROXY, [192, 0, 2, 1], 1)[..7]).await;
    let silent = secured.tcp().await;
    let (dribbled, _, _, waited) = tokio::join!(
        timeout(2 * HANDSHAKE_ENDS, dribble),
        silent_inside,
        ends_within(HANDSHAKE_ENDS, silent_balancer),
        ends_within(HANDSHAKE_ENDS, silent),
    );
    dribbled.expect("ended");
    assert!(waited > Duration::from_secs(9), "but not at once: {waited:?}");
    secured.metric("parlour_http_connections 0").await;
}

#[tokio::test]
async fn an_address_gets_only_so_many_even_before_the_handshake() {
    const MOST: usize = 64;
    let untrusting = "[http]\ntrusted_proxies = []";
    let secured = Secured::start("", untrusting).await;
    let mut idle = Vec::new();
    for _ in 0..MOST {
        idle.push(secured.tcp().await);
    }
    secured.metric(&format!("parlour_http_connections {MOST}")).await;
    assert!(secured.handshake(secured.tcp().await).await.is_err(), "one too many");
    idle.pop();
    secured.metric(&format!("parlour_http_connections {}", MOST - 1)).await;
    assert_eq!(secured.get(secured.tcp().await, "/healthz").await, 200);

    // Behind a balancer it is the client that counts.
    let balanced = Secured::start("proxy_protocol_from = [\"127.0.0.1\"]", untrusting).await;
    let header = proxy_header(PROXY, [192, 0, 2, 1], 1);
    for _ in 0..MOST {
        idle.push(balanced.behind(&header).await);
    }
    balanced.metric(&format!("parlour_http_connections {MOST}")).await;
    assert!(balanced.handshake(balanced.behind(&header).await).await.is_err());
    let other = balanced.behind(&proxy_header(PROXY, [192, 0, 2, 2], 1)).await;
    assert_eq!(balanced.get(other, "/healthz").await, 200);
}

#[tokio::test]
async fn new_certificates_are_used_without_a_restart() {
    // Or the signal would end this test.
    let _hangups = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
    let mut secured = Secured::start("", "").await;
    let mut old = secured.connect().await;
    let first = secured.certificate.clone();
    secured.certificate = write_certificate(&secured.folder);
    assert_ne!(first, secured.certificate);
    let pid = std::process::id().to_string();
    let deadline = Instant::now() + PATIENCE;
    let stream = loop {
        assert!(std::process::Command::new("sh").args(["-c", "kill -HUP $0", &pid]).status().unwrap().success());
        match secured.handshake(secured.tcp().await).await {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap(), [secured.certificate.clone()]);
    assert_eq!(get(&mut old, "/healthz").await.0, 200, "who is in stays in");
}

#[tokio::test]
async fn the_end_does_not_wait_for_handshakes() {
    let secured = Secured::start("", "").await;
    let (silent, mut inside) = (secured.tcp().await, secured.connect().await);
    secured.metric("parlour_http_connections 2").await;
    secured.server.shutdown.cancel();
    assert!(ends_within(Duration::from_secs(3), silent).await < Duration::from_secs(3));
    let _ = timeout(Duration::from_secs(3), inside.read_to_end(&mut Vec::new())).await.expect("ended");
    assert!(TcpStream::connect(secured.address).await.is_err(), "and nobody new is let in");
}
