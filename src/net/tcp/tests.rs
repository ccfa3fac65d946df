use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};

use mio::{Events, Interest, Poll};
use rcgen::CertifiedKey;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use super::*;

const LISTENER: Token = Token(1);
const FIRST_CONNECTION: usize = 3;
const PATIENCE: Duration = Duration::from_secs(10);

/// One worker's TCP side with a poll of its own.
struct Side {
    tcp: Tcp,
    poll: Poll,
    events: Events,
    address: SocketAddr,
    start: Instant,
    received: Vec<(Stream, Route, Vec<u8>)>,
}

impl Side {
    fn new() -> Side {
        let mut tcp = Tcp::bind("127.0.0.1:0".parse().unwrap(), 1, FIRST_CONNECTION).unwrap().remove(0);
        let poll = Poll::new().unwrap();
        poll.registry().register(tcp.source(), LISTENER, Interest::READABLE).unwrap();
        let address = tcp.address().unwrap();
        tcp.know(&[(Protocol::Tcp, address)]);
        Side { tcp, poll, events: Events::with_capacity(64), address, start: Instant::now(), received: Vec::new() }
    }

    /// Does what there is to do, until nothing comes for a moment.
    fn settle(&mut self) {
        self.turn_at(self.start);
        while self.turn_at(self.start) {}
    }

    fn until(&mut self, what: &str, done: impl Fn(&Side) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}");
            self.turn_at(self.start);
        }
    }

    fn turn_at(&mut self, now: Instant) -> bool {
        let timeout = if self.tcp.has_unread() { Duration::ZERO } else { Duration::from_millis(20) };
        self.poll.poll(&mut self.events, Some(timeout)).unwrap();
        let mut ready = Vec::new();
        self.tcp.take_unread(&mut ready);
        for event in &self.events {
            match event.token() {
                LISTENER => self.tcp.accept(self.poll.registry(), now),
                connection => ready.push(connection),
            }
        }
        for token in &ready {
            let received = &mut self.received;
            let each = |stream, route, bytes: &[u8]| received.push((stream, route, bytes.to_vec()));
            assert!(self.tcp.ready(self.poll.registry(), *token, now, |_| None, each).is_none());
        }
        !ready.is_empty()
    }

    fn connect(&mut self) -> StdStream {
        let client = StdStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        self.settle();
        client
    }

    fn send(&mut self, route: Route, packets: &[&[u8]]) {
        let mut outbox = Outbox::default();
        packets.iter().for_each(|packet| outbox.push(route, packet));
        self.tcp.send(self.poll.registry(), &outbox);
    }

    fn close_idle(&mut self, after: Duration, holds: bool) -> usize {
        self.tcp.close_idle(self.poll.registry(), self.start + after, |_| holds);
        self.tcp.connections.len()
    }

    fn packets(&self) -> Vec<Vec<u8>> {
        self.received.iter().map(|(_, _, bytes)| bytes.clone()).collect()
    }
}

/// A STUN request with an attribute of this byte.
fn request(kind: u8, filling: u8) -> Vec<u8> {
    let header = [0, kind, 0, 24, 0x21, 0x12, 0xa4, 0x42];
    [&header[..], &[7; 12], &[0x80, 0x22, 0, 20], &[filling; 20]].concat()
}

fn channel_data(filling: u8, words: u16) -> Vec<u8> {
    [&[0x40, 0][..], &(words * 4).to_be_bytes(), &vec![filling; usize::from(words) * 4]].concat()
}

fn read_exactly(from: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn ice_and_turn_share_a_port_each_with_its_framing() {
    let mut side = Side::new();
    let check = request(1, 1);
    let framed = [&(check.len() as u16).to_be_bytes()[..], &check].concat();
    let turn = [request(3, 2), channel_data(9, 1)].concat();
    for (stream, bytes, expected, answer, written) in [
        (Stream::Ice, framed, vec![check], &b"abc"[..], &b"\0\x03abc\0\x03abc"[..]),
        (Stream::Turn, turn, vec![request(3, 2), channel_data(9, 1)], b"abcd", b"abcdabcd"),
    ] {
        let mut client = side.connect();
        for byte in bytes {
            client.write_all(&[byte]).unwrap();
            side.settle();
        }
        assert_eq!(side.packets(), expected, "{stream:?}");
        let route = Route { protocol: Protocol::Tcp, source: side.address, destination: client.local_addr().unwrap() };
        assert!(side.received.drain(..).all(|(kind, way, _)| (kind, way) == (stream, route)));
        side.send(route, &[answer, answer]);
        assert_eq!(read_exactly(&mut client, written.len()), written);
        // Nobody is at another port of ours.
        side.send(Route { source: SocketAddr::new(side.address.ip(), 9), ..route }, &[answer]);
        side.send(route, &[answer]);
        assert_eq!(read_exactly(&mut client, written.len() / 2), written[..written.len() / 2]);
        client.set_nonblocking(true).unwrap();
        assert!(client.read(&mut [0]).is_err(), "nothing else");
    }
}

#[test]
fn strangers_are_closed_at_once_and_the_silent_and_unauthenticated_soon() {
    let mut side = Side::new();
    let mut stranger = side.connect();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    side.until("closed", |side| side.tcp.connections.is_empty());
    assert!(matches!(stranger.read(&mut [0; 9]), Ok(0) | Err(_)));
    assert_eq!(side.tcp.take_closed(), [], "it never was TURN's");

    let (mut turn, mut dribbler) = (side.connect(), side.connect());
    turn.write_all(&request(3, 0)).unwrap();
    dribbler.write_all(&[0]).unwrap();
    side.until("heard", |side| side.received.len() == 1);
    assert_eq!(side.close_idle(IDLE_TIMEOUT, true), 2);
    // A byte is no sign of life, nor is a request that leads to nothing.
    dribbler.write_all(&[1]).unwrap();
    turn.write_all(&request(1, 0)).unwrap();
    side.turn_at(side.start + IDLE_TIMEOUT);
    side.turn_at(side.start + IDLE_TIMEOUT);
    let moment = Duration::from_millis(1);
    assert_eq!(side.close_idle(IDLE_TIMEOUT + moment, true), 1, "what holds an allocation stays");
    assert_eq!(side.close_idle(100 * IDLE_TIMEOUT, true), 1, "for as long as it does");
    assert_eq!(side.close_idle(101 * IDLE_TIMEOUT, false), 1);
    assert_eq!(side.tcp.take_closed(), []);
    assert_eq!(side.close_idle(101 * IDLE_TIMEOUT + moment, false), 0);
    let route = Route { protocol: Protocol::Tcp, source: side.address, destination: turn.local_addr().unwrap() };
    assert_eq!(side.tcp.take_closed(), [route]);
    assert_eq!(side.tcp.take_closed(), []);
}

#[test]
fn turn_that_ends_or_goes_astray_is_told() {
    let mut side = Side::new();
    for astray in [false, true] {
        let mut client = side.connect();
        client.write_all(&request(3, 0)).unwrap();
        side.until("heard", |side| side.received.len() == 1);
        match astray {
            true => client.write_all(&[0xff; 4]).unwrap(),
            false => client.shutdown(std::net::Shutdown::Both).unwrap(),
        }
        side.until("closed", |side| side.tcp.connections.is_empty());
        let (_, route, _) = side.received.remove(0);
        assert_eq!(side.tcp.take_closed(), [route]);
        assert!(side.tcp.by_route.is_empty());
    }
}

// --- TLS -----------------------------------------------------------------------------------------------------------

type TlsClient = StreamOwned<ClientConnection, StdStream>;

/// A client and the other end of its connection, after the handshake.
fn tls_pair() -> (TlsClient, StdStream, Box<ServerConnection>) {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::Pkcs8(signing_key.serialize_der().into()))
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let tcp = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = StreamOwned::new(ClientConnection::new(Arc::new(client), name).unwrap(), tcp);
    let (mut tcp, _) = listener.accept().unwrap();
    let handshake = std::thread::spawn(move || {
        client.conn.complete_io(&mut client.sock).unwrap();
        client
    });
    let mut tls = ServerConnection::new(Arc::new(server)).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp).unwrap();
    }
    (handshake.join().unwrap(), tcp, Box::new(tls))
}

impl Side {
    fn adopt(&mut self, tcp: StdStream, tls: Box<ServerConnection>, local_port: u16) -> Route {
        tcp.set_nonblocking(true).unwrap();
        let (client, local) =
            (SocketAddr::from(([192, 0, 2, 1], 1)), SocketAddr::from(([198, 51, 100, 1], local_port)));
        let stream = TurnStream { tcp, tls, client, local };
        self.tcp.adopt_turn(self.poll.registry(), self.start, stream);
        Route { protocol: Protocol::Tcp, source: local, destination: client }
    }
}

#[test]
fn what_tls_holds_already_is_read_though_the_socket_is_silent() {
    let mut side = Side::new();
    let (mut client, mut tcp, mut tls) = tls_pair();
    let messages = [request(3, 1), channel_data(2, 5), channel_data(3, 6)];
    // One record with the first, the second, and the beginning of the third; a record with the rest.
    let bytes = messages.concat();
    client.write_all(&bytes[..72]).unwrap();
    client.write_all(&bytes[72..]).unwrap();
    while tls.process_new_packets().unwrap().plaintext_bytes_to_read() < bytes.len() {
        tls.read_tls(&mut tcp).unwrap();
    }
    let route = side.adopt(tcp, tls, 443);
    side.turn_at(side.start);
    let expected: Vec<_> = messages.into_iter().map(|message| (Stream::Turn, route, message)).collect();
    assert_eq!(side.received, expected);
}

#[test]
fn messages_go_through_tls_however_they_are_cut_into_records() {
    let mut side = Side::new();
    let (mut client, tcp, tls) = tls_pair();
    let route = side.adopt(tcp, tls, 443);
    side.settle();
    let messages: Vec<Vec<u8>> = (0..40).map(|n| channel_data(n, 30 * u16::from(n))).collect();
    for messages in messages.chunks(10) {
        client.write_all(&messages.concat()).unwrap();
    }
    for piece in channel_data(99, 100).chunks(7) {
        client.write_all(piece).unwrap();
        side.settle();
    }
    let expected = [messages, vec![channel_data(99, 100)]].concat();
    side.until("all messages", |side| side.received.len() == expected.len());
    assert_eq!(side.packets(), expected);
    assert!(side.received.iter().all(|(stream, way, _)| (*stream, *way) == (Stream::Turn, route)));
    side.send(route, &[b"abcd", b"efgh"]);
    assert_eq!(read_exactly(&mut client, 8), b"abcdefgh");
    // The end is one that the client can trust.
    side.tcp.close_all(side.poll.registry(), |_| true);
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0, "close_notify");
    assert_eq!(side.tcp.take_closed(), [route]);
}

#[test]
fn a_slow_reader_gets_whole_messages_of_what_fits_and_nothing_more() {
    let mut side = Side::new();
    let (mut client, tcp, tls) = tls_pair();
    let socket = socket2::SockRef::from(&tcp);
    socket.set_send_buffer_size(16 << 10).unwrap();
    socket2::SockRef::from(&client.sock).set_recv_buffer_size(64 << 10).unwrap();
    let route = side.adopt(tcp, tls, 443);
    side.settle();
    // 4 MB: far more than the backlog and the kernel take.
    let message = |n: u16| [&[0x40, 0, 0x03, 0xe8][..], &n.to_be_bytes().repeat(500)].concat();
    for n in 0..4000 {
        side.send(route, &[&message(n)]);
    }
    let token = side.tcp.by_route[&route];
    client.sock.set_nonblocking(false).unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        while !bytes.ends_with(&message(7777)) {
            let mut some = [0; 3000];
            let count = client.read(&mut some).unwrap();
            assert!(count > 0, "not the end yet");
            bytes.extend(&some[..count]);
        }
        (client, bytes)
    });
    side.until("all sent", |side| side.tcp.connections[&token].is_flushed());
    side.send(route, &[&message(7777)]);
    side.until("the last sent", |side| side.tcp.connections[&token].is_flushed());
    let (mut client, bytes) = reader.join().unwrap();
    side.tcp.close_all(side.poll.registry(), |_| true);
    // The goodbye goes only if the socket takes it at once.
    assert!(matches!(client.read(&mut [0; 9]), Ok(0) | Err(_)), "nothing more");
    let got: Vec<&[u8]> = bytes.chunks(message(0).len()).collect();
    assert!((100..4000).contains(&got.len()), "{}", got.len());
    let (last, first) = got.split_last().unwrap();
    let numbers: Vec<u16> = first.iter().map(|bytes| u16::from_be_bytes([bytes[4], bytes[5]])).collect();
    assert!(numbers.iter().zip(first).all(|(n, bytes)| *bytes == message(*n)), "whole");
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order");
    assert!((0..100).eq(numbers[..100].iter().copied()), "from the first on");
    assert_eq!(*last, message(7777));
}

#[test]
fn one_client_may_have_a_connection_at_each_of_our_ports() {
    let mut side = Side::new();
    let mut ends: Vec<_> = [443, 5349]
        .map(|port| {
            let (mut client, tcp, tls) = tls_pair();
            client.write_all(&request(3, port as u8)).unwrap();
            (client, side.adopt(tcp, tls, port))
        })
        .into();
    side.until("both heard", |side| side.received.len() == 2);
    for (index, (client, route)) in ends.iter_mut().enumerate() {
        let message = request(3, route.source.port() as u8);
        assert!(side.received.contains(&(Stream::Turn, *route, message)));
        side.send(*route, &[&[index as u8; 4]]);
        assert_eq!(read_exactly(client, 4), [index as u8; 4]);
    }
    // A second one at the same port takes the place of the first.
    let (mut client, tcp, tls) = tls_pair();
    assert_eq!(side.adopt(tcp, tls, 443), ends[0].1);
    assert_eq!(side.tcp.take_closed(), [ends[0].1]);
    assert_eq!(ends[0].0.read(&mut [0; 9]).unwrap(), 0);
    side.settle();
    side.send(ends[0].1, &[b"here"]);
    assert_eq!(read_exactly(&mut client, 4), b"here");
    assert_eq!(side.tcp.connections.len(), 2);
}

#[test]
fn broken_records_end_the_connection() {
    let mut side = Side::new();
    let (mut client, tcp, tls) = tls_pair();
    let route = side.adopt(tcp, tls, 443);
    side.settle();
    client.sock.write_all(&[23, 3, 3, 0, 32]).unwrap();
    client.sock.write_all(&[0x5a; 32]).unwrap();
    side.until("closed", |side| side.tcp.connections.is_empty());
    assert_eq!(side.tcp.take_closed(), [route]);
    let error = client.read(&mut [0; 9]).unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "the client hears why: {error}");
}
