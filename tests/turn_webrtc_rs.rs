//! The TURN server as webrtc-rs meets it, in virtual time: its client, our server, and an operating system that is pretended.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parlour::sfu::Now;
use parlour::transport::{Outbox, Protocol, Route};
use parlour::turn::credentials::Credentials;
use parlour::turn::framing::Deframer;
use parlour::turn::peer_policy::{PeerPolicy, PeerRules};
use parlour::turn::quotas::{QuotaLimits, Quotas};
use parlour::turn::relay_ports::RelayPorts;
use parlour::turn::{Limits, Ports, Refusal, Settings, Turn};
use rtc::sansio::Protocol as _;
use rtc::shared::error::Error;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::turn::client::{Client, ClientConfig, Event};
use rtc_crypto::providers::RingProvider;

const START_MS: u64 = 1_750_000_000_000;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn server() -> SocketAddr {
    address("198.51.100.10:3478")
}

fn peer() -> SocketAddr {
    address("93.184.216.1:40001")
}

/// Every port is free.
#[derive(Default)]
struct FreePorts {
    open: BTreeSet<SocketAddr>,
}

impl Ports for FreePorts {
    fn is_free(&mut self, _: SocketAddr) -> bool {
        true
    }

    fn open(&mut self, relay: SocketAddr) -> bool {
        self.open.insert(relay)
    }

    fn close(&mut self, relay: SocketAddr) {
        self.open.remove(&relay);
    }
}

struct World {
    turn: Turn,
    ports: FreePorts,
    now: Now,
    quotas: Arc<Quotas>,
    credentials: Arc<Credentials>,
}

impl World {
    fn new() -> World {
        let credentials = Arc::new(Credentials::new(vec![b"north".to_vec()]));
        let quotas =
            Quotas::new(QuotaLimits { per_user: 12, per_address: 40, all: 1000, user_bytes_per_second: 1_000_000 });
        let rules = PeerRules { ourselves: vec![server().ip()], ..PeerRules::default() };
        let turn = Turn::new(Settings {
            realm: "example.org".into(),
            credentials: credentials.clone(),
            nonce_key: [7; 32],
            relay_ports: RelayPorts::new(&[server().ip()], 49_152..=65_535),
            worker: 0,
            policy: Arc::new(PeerPolicy::new(rules).expect("good rules")),
            quotas: quotas.clone(),
            limits: Limits::default(),
            media: vec![server()],
            seed: 3,
        });
        let now = Now { instant: Instant::now(), unix_ms: START_MS };
        World { turn, ports: FreePorts::default(), now, quotas, credentials }
    }

    /// Time passes; what is due is done when it is due.
    fn wait(&mut self, time: Duration) {
        let end = self.now.instant + time;
        while let Some(due) = self.turn.next_timeout().filter(|due| *due <= end) {
            self.advance(due.saturating_duration_since(self.now.instant));
            self.turn.handle_timeout(self.now, &mut self.ports);
        }
        self.advance(end - self.now.instant);
    }

    fn advance(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.unix_ms += time.as_millis() as u64;
    }

    fn refused(&self, cause: Refusal) -> u64 {
        self.turn.counts().refused().find(|(refusal, _)| *refusal == cause).map_or(0, |(_, count)| count)
    }

    /// Source, destination, bytes.
    fn sent_to_peers(&mut self) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        take(self.turn.to_peers()).into_iter().map(|(route, bytes)| (route.source, route.destination, bytes)).collect()
    }

    /// That nothing is left of anybody.
    fn assert_empty(&self) {
        assert_eq!((self.turn.counts().allocations, self.quotas.allocations()), (0, 0));
        assert!(self.ports.open.is_empty(), "{:?}", self.ports.open);
        assert_eq!(self.turn.next_timeout(), None);
    }
}

fn take(outbox: &mut Outbox) -> Vec<(Route, Vec<u8>)> {
    let packets = outbox.runs().flat_map(|(route, packets)| packets.map(move |packet| (route, packet.to_vec())));
    let packets = packets.collect();
    outbox.clear();
    packets
}

struct Call {
    world: World,
    client: Client,
    route: Route,
    /// On a stream.
    deframer: Deframer,
    /// Which datagrams are lost on the way to the server, and on the way back: the lowest bit is the next.
    lose: [u32; 2],
    events: Vec<Event>,
    /// Channel, peer, data.
    received: Vec<(Option<u16>, SocketAddr, Vec<u8>)>,
    /// First byte of the last message of the client.
    last: u8,
}

impl Call {
    fn new(protocol: Protocol) -> Call {
        let world = World::new();
        let credentials = world.credentials.issue("@alice:example.org", START_MS / 1000 + 3600);
        Call::with_credentials(world, protocol, credentials)
    }

    fn with_credentials(world: World, protocol: Protocol, (username, password): (String, String)) -> Call {
        let client = address("203.0.113.1:10001");
        let route = Route { protocol, source: server(), destination: client };
        let config = ClientConfig {
            turn_serv_addr: route.source.to_string(),
            stun_serv_addr: route.source.to_string(),
            local_addr: route.destination,
            transport_protocol: transport(route),
            username,
            password,
            ..ClientConfig::default()
        };
        let client = Client::new(config, Arc::new(RingProvider::new())).expect("addresses");
        let deframer = Deframer::new();
        Call { world, client, route, deframer, lose: [0; 2], events: Vec::new(), received: Vec::new(), last: 0 }
    }

    /// Both say what they have to say now.
    fn talk(&mut self) {
        while let Some(transmit) = self.client.poll_write() {
            assert_eq!(transmit.transport.peer_addr, self.route.source);
            self.last = transmit.message[0];
            self.tell_server(&transmit.message);
            self.tell_client();
        }
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::DataIndicationOrChannelData(number, peer, data) => {
                    self.received.push((number.map(|number| number.0), peer, data.to_vec()));
                }
                other => self.events.push(other),
            }
        }
    }

    fn is_lost(&mut self, way: usize) -> bool {
        let is_lost = self.lose[way] & 1 != 0;
        self.lose[way] >>= 1;
        is_lost
    }

    fn tell_server(&mut self, bytes: &[u8]) {
        if self.is_lost(0) {
            return;
        }
        let World { turn, now, ports, .. } = &mut self.world;
        if self.route.protocol == Protocol::Udp {
            return turn.receive(*now, self.route, bytes, ports);
        }
        for piece in bytes.chunks(7) {
            self.deframer.push(piece).expect("room");
            while let Some(message) = self.deframer.next_message().expect("a message") {
                turn.receive(*now, self.route, message, ports);
            }
        }
    }

    fn tell_client(&mut self) {
        for (route, bytes) in take(self.world.turn.to_clients()) {
            assert_eq!(route, self.route);
            if self.is_lost(1) {
                continue;
            }
            let transport = TransportContext {
                local_addr: route.destination,
                peer_addr: route.source,
                transport_protocol: transport(route),
                ecn: None,
            };
            let message = bytes[..].into();
            let read = self.client.handle_read(TaggedBytesMut { now: self.world.now.instant, transport, message });
            read.expect("a message that it understands");
        }
    }

    /// Both do what there is to do, for so long.
    fn run_s(&mut self, seconds: u64) {
        let end = self.world.now.instant + Duration::from_secs(seconds);
        loop {
            self.talk();
            let now = self.world.now.instant;
            let wake = self.client.poll_timeout().unwrap_or(end).clamp(now, end);
            self.world.wait(wake - now);
            if wake == end {
                return;
            }
            self.client.handle_timeout(wake).expect("time");
        }
    }

    fn now(&self) -> Instant {
        self.world.now.instant
    }

    fn event(&mut self) -> Event {
        assert_eq!(self.events.len(), 1, "{:?}", self.events);
        self.events.remove(0)
    }

    fn allocate(&mut self) -> Result<SocketAddr, Error> {
        let asked = self.client.allocate(self.now()).expect("a server");
        self.run_s(1);
        match self.event() {
            Event::AllocateResponse(transaction, relay) => {
                assert_eq!(transaction, asked);
                Ok(relay)
            }
            Event::AllocateError(_, error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn permit(&mut self, relay: SocketAddr, peer: SocketAddr) -> Result<(), Error> {
        let now = self.now();
        let asked = self.client.relay(relay).expect("an allocation").create_permission(now, peer).expect("a request");
        self.talk();
        match self.event() {
            Event::CreatePermissionResponse(transaction, of) => {
                assert_eq!((Some(transaction), of), (asked, peer));
                Ok(())
            }
            Event::CreatePermissionError(_, error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, relay: SocketAddr, peer: SocketAddr, data: &[u8]) {
        let now = self.now();
        self.client.relay(relay).expect("an allocation").send_to(now, data, peer).expect("a permission");
        self.talk();
        assert_eq!(self.world.sent_to_peers(), [(relay, peer, data.to_vec())]);
    }

    /// Gives the channel that it came on.
    fn receive(&mut self, relay: SocketAddr, peer: SocketAddr, data: &[u8]) -> Option<u16> {
        self.world.turn.relayed(self.world.now, relay, peer, data);
        self.tell_client();
        self.talk();
        let (number, from, received) = self.received.remove(0);
        assert_eq!((from, &received[..], self.received.len()), (peer, data, 0));
        number
    }

    /// What it sends is padded, on UDP as well.
    fn exchange_on_channel(&mut self, relay: SocketAddr, peer: SocketAddr) {
        for data in [1, 4, 7, 1001].map(|length| vec![7; length]) {
            self.send(relay, peer, &data);
            assert_eq!(self.last, 0x40);
            assert_eq!(self.receive(relay, peer, &data), Some(0x4000));
        }
    }

    fn end(&mut self, relay: SocketAddr) {
        let now = self.now();
        self.client.relay(relay).expect("an allocation").close(now).expect("a request");
        self.run_s(5);
        assert!(self.client.relay(relay).is_err() && self.events.is_empty(), "{:?}", self.events);
        self.world.assert_empty();
    }

    fn whole_call(&mut self) {
        let peer = peer();
        let relay = self.allocate().expect("an allocation");
        assert_eq!(relay.ip(), server().ip());
        self.permit(relay, peer).expect("a permission");
        assert_eq!(self.receive(relay, peer, b"hello"), None, "a Data indication");
        self.send(relay, peer, b"a Send indication, and behind it a channel is asked for");
        self.exchange_on_channel(relay, peer);
        // It keeps the allocation alive by itself.
        self.run_s(550);
        self.exchange_on_channel(relay, peer);
        assert_eq!(self.world.refused(Refusal::StaleNonce), 0);
        self.end(relay);
    }
}

fn transport(route: Route) -> TransportProtocol {
    match route.protocol {
        Protocol::Udp => TransportProtocol::UDP,
        Protocol::Tcp => TransportProtocol::TCP,
    }
}

#[test]
fn a_call_over_udp() {
    Call::new(Protocol::Udp).whole_call();
}

#[test]
fn a_call_over_tcp() {
    Call::new(Protocol::Tcp).whole_call();
}

/// With nonces that run out on the way, and whenever it is that it has something to send.
#[test]
fn a_call_lasts() {
    for pause_s in [1, 7, 20, 47] {
        let mut call = Call::new(Protocol::Udp);
        let relay = call.allocate().expect("an allocation");
        call.permit(relay, peer()).expect("a permission");
        call.send(relay, peer(), b"for a channel");
        for _ in 0..4000 / pause_s {
            call.exchange_on_channel(relay, peer());
            call.run_s(pause_s);
        }
        assert!(call.world.refused(Refusal::StaleNonce) > 3);
        call.end(relay);
    }
}

#[test]
fn what_is_lost_is_sent_again() {
    let mut call = Call::new(Protocol::Udp);
    // The first Allocate, the first challenge, and the first two answers to the second Allocate: the allocation is one.
    call.lose = [0b1, 0b1101];
    let asked = call.client.allocate(call.now()).expect("a server");
    call.run_s(5);
    let Event::AllocateResponse(transaction, relay) = call.event() else { panic!("refused") };
    assert_eq!((transaction, call.world.turn.counts().allocated), (asked, 1));
    call.lose = [0b1, 0b11];
    let now = call.now();
    call.client.relay(relay).expect("an allocation").create_permission(now, peer()).expect("a request");
    call.run_s(5);
    assert!(matches!(call.event(), Event::CreatePermissionResponse(_, of) if of == peer()));
    assert_eq!(call.lose, [0, 0]);
    call.lose = [0b1, 0];
    call.end(relay);
}

#[test]
fn a_wrong_password_is_refused() {
    let world = World::new();
    let (username, _) = world.credentials.issue("@alice:example.org", START_MS / 1000 + 3600);
    let (expired, password) = world.credentials.issue("@alice:example.org", START_MS / 1000 - 1);
    for credentials in [(username, "guessed".to_owned()), (expired, password)] {
        let mut call = Call::with_credentials(World::new(), Protocol::Udp, credentials);
        let error = call.allocate().expect_err("no allocation").to_string();
        assert!(error.contains("401"), "{error}");
        call.world.assert_empty();
    }
}

#[test]
fn a_peer_that_is_denied() {
    let mut call = Call::new(Protocol::Udp);
    let relay = call.allocate().expect("an allocation");
    let error = call.permit(relay, address("169.254.169.254:80")).expect_err("no permission").to_string();
    assert!(error.contains("403"), "{error}");
    call.permit(relay, peer()).expect("the allocation is as it was");
    call.end(relay);
}

#[test]
fn a_binding_request() {
    let mut call = Call::new(Protocol::Udp);
    let asked = call.client.send_binding_request(call.now()).expect("a server");
    call.talk();
    let Event::BindingResponse(transaction, mapped) = call.event() else { panic!("no answer") };
    assert_eq!((transaction, mapped), (asked, call.route.destination));
}
