//! The server in virtual time: clients that write their own messages, and an operating system that is pretended.

mod authentication;
mod client;
mod dual;
mod flood;
mod model;
mod ports;
mod relaying;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stun_types::attribute::{ErrorCode, Nonce, Realm, UnknownAttributes, Username};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageClass, MessageType, MessageWriteVec,
    Method,
};
use stun_types::prelude::*;
use turn_types::attribute::{ChannelNumber, Data, Lifetime, RequestedTransport, XorPeerAddress, XorRelayedAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND};

use super::peer_policy::{PeerPolicy, PeerRules};
use super::quotas::{QuotaLimits, Quotas};
use super::relay_ports::RelayPorts;
use super::{Counts, Credentials, Dropped, Limits, Ports, Refusal, Settings, Turn};
use crate::sfu::Now;
use crate::transport::{Outbox, Protocol, Route};

const REALM: &str = "example.org";
const START_MS: u64 = 1_750_000_000_000;
const START_S: u64 = START_MS / 1000;

fn server() -> SocketAddr {
    address("198.51.100.10:3478")
}

fn relay_v4() -> IpAddr {
    server().ip()
}

fn relay_v6() -> IpAddr {
    address("[2001:db8::10]:1").ip()
}

fn media() -> SocketAddr {
    address("198.51.100.10:3478")
}

/// Somebody out there, whom the policy lets be sent to.
fn peer(n: u8) -> SocketAddr {
    SocketAddr::from(([93, 184, 216, n], 40_000 + u16::from(n)))
}

fn peer_v6(n: u16) -> SocketAddr {
    SocketAddr::from(([0x2a00, 0x1450, 0, 0, 0, 0, 0, n], 40_000 + n))
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// The operating system's ports.
#[derive(Default)]
struct FakePorts {
    /// Another program has these.
    busy: BTreeSet<SocketAddr>,
    open: BTreeSet<SocketAddr>,
    /// No more sockets can be had.
    exhausted: bool,
    opened: usize,
}

impl Ports for FakePorts {
    fn is_free(&mut self, relay: SocketAddr) -> bool {
        !self.busy.contains(&relay)
    }

    fn open(&mut self, relay: SocketAddr) -> bool {
        if self.exhausted || self.busy.contains(&relay) {
            return false;
        }
        assert!(self.open.insert(relay), "{relay} is open already");
        self.opened += 1;
        true
    }

    fn close(&mut self, relay: SocketAddr) {
        assert!(self.open.remove(&relay), "{relay} is not open");
    }
}

struct World {
    turn: Turn,
    ports: FakePorts,
    now: Now,
    quotas: Arc<Quotas>,
    credentials: Arc<Credentials>,
}

fn quota_limits() -> QuotaLimits {
    QuotaLimits { per_user: 12, per_address: 40, all: 1000, user_bytes_per_second: 50_000_000 / 8 }
}

fn relay_ports(ports: RangeInclusive<u16>) -> Arc<RelayPorts> {
    RelayPorts::new(&[relay_v4(), relay_v6()], ports)
}

fn settings() -> Settings {
    let credentials = Arc::new(Credentials::new(vec![b"north".to_vec(), b"of the homeserver".to_vec()]));
    let rules = PeerRules { ourselves: vec![relay_v4(), relay_v6()], ..PeerRules::default() };
    Settings {
        realm: REALM.into(),
        credentials,
        nonce_key: [7; 32],
        relay_ports: relay_ports(49_152..=65_535),
        worker: 0,
        policy: Arc::new(PeerPolicy::new(rules).expect("good rules")),
        quotas: Quotas::new(quota_limits()),
        limits: Limits::default(),
        media: vec![media()],
        seed: 3,
    }
}

impl World {
    fn new() -> World {
        World::with(settings())
    }

    fn with(settings: Settings) -> World {
        let (quotas, credentials) = (settings.quotas.clone(), settings.credentials.clone());
        let now = Now { instant: Instant::now(), unix_ms: START_MS };
        World { turn: Turn::new(settings), ports: FakePorts::default(), now, quotas, credentials }
    }

    /// Time passes; what is due is done when it is due.
    fn wait(&mut self, time: Duration) {
        let end = self.now.instant + time;
        while let Some(due) = self.turn.next_timeout().filter(|due| *due <= end) {
            self.advance(due.saturating_duration_since(self.now.instant));
            self.turn.handle_timeout(self.now, &mut self.ports);
            assert!(self.turn.next_timeout().is_none_or(|next| next > due), "a deadline that was met is gone");
        }
        self.advance(end - self.now.instant);
    }

    fn wait_s(&mut self, seconds: u64) {
        self.wait(Duration::from_secs(seconds));
    }

    /// Time passes, and nobody looks at the timers.
    fn advance(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.unix_ms += time.as_millis() as u64;
    }

    /// What comes back from one message of a client; it must all go to that client.
    fn receive(&mut self, client: &Client, message: &[u8]) -> Vec<Vec<u8>> {
        self.turn.receive(self.now, client.route, message, &mut self.ports);
        let sent = take(self.turn.to_clients());
        sent.into_iter()
            .map(|(route, bytes)| {
                assert_eq!(route, client.route);
                bytes
            })
            .collect()
    }

    /// The answer to a message that must have one.
    fn ask(&mut self, client: &Client, message: &[u8]) -> Answer {
        let mut answers = self.receive(client, message);
        assert_eq!(answers.len(), 1, "one answer");
        let answer = Answer(answers.remove(0));
        assert_eq!(answer.transaction(), &message[4..20], "to the same transaction");
        answer
    }

    /// A signed request; its answer must be signed too, unless it is a challenge.
    fn request(&mut self, client: &mut Client, method: Method, attributes: &[&dyn AttributeWrite]) -> Answer {
        if client.nonce.is_empty() {
            // As a challenge would give it; but of those there is a limit.
            let nonce = self.turn.nonces.issue(self.now.unix_ms, client.route.destination);
            client.nonce = String::from_utf8_lossy(&nonce).into_owned();
        }
        let message = client.signed(method, attributes);
        let answer = self.ask(client, &message);
        if !matches!(answer.code(), Some(401 | 438)) {
            assert!(answer.is_signed_with(&client.key), "{answer:?}");
        }
        answer
    }

    fn allocate(&mut self, client: &mut Client) -> SocketAddr {
        let answer = self.request(client, ALLOCATE, &[&udp()]);
        assert_eq!(answer.code(), None);
        answer.relayed()[0]
    }

    fn refresh(&mut self, client: &mut Client, lifetime_s: u32) -> Answer {
        self.request(client, REFRESH, &[&Lifetime::new(lifetime_s)])
    }

    fn permit(&mut self, client: &mut Client, peers: &[SocketAddr]) -> Option<u16> {
        let transaction = client.next_transaction().into();
        let peers: Vec<XorPeerAddress> = peers.iter().map(|peer| XorPeerAddress::new(*peer, transaction)).collect();
        let attributes: Vec<&dyn AttributeWrite> = peers.iter().map(|peer| peer as &dyn AttributeWrite).collect();
        self.request(client, CREATE_PERMISSION, &attributes).code()
    }

    fn bind(&mut self, client: &mut Client, number: u16, peer: SocketAddr) -> Option<u16> {
        let peer = XorPeerAddress::new(peer, client.next_transaction().into());
        self.request(client, CHANNEL_BIND, &[&ChannelNumber::new(number), &peer]).code()
    }

    /// Sends with an indication; nothing may come back at once but what is relayed.
    fn send(&mut self, client: &Client, peer: SocketAddr, data: &[u8]) {
        let transaction = 99u128.into();
        let message = indication(SEND, 99, &[&XorPeerAddress::new(peer, transaction), &Data::new(data)]);
        self.turn.receive(self.now, client.route, &message, &mut self.ports);
    }

    fn send_on(&mut self, client: &Client, number: u16, data: &[u8]) {
        let message = channel_data(number, data);
        self.turn.receive(self.now, client.route, &message, &mut self.ports);
    }

    fn peer_sends(&mut self, relay: SocketAddr, peer: SocketAddr, data: &[u8]) -> Vec<(Route, Vec<u8>)> {
        self.turn.relayed(self.now, relay, peer, data);
        take(self.turn.to_clients())
    }

    fn sent_to_peers(&mut self) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        datagrams(self.turn.to_peers())
    }

    fn sent_to_ourselves(&mut self) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        datagrams(self.turn.to_ourselves())
    }

    fn counts(&self) -> Counts {
        self.turn.counts()
    }

    fn dropped(&self, cause: Dropped) -> u64 {
        self.counts().dropped().find(|(dropped, _)| *dropped == cause).map_or(0, |(_, count)| count)
    }

    fn refused(&self, cause: Refusal) -> u64 {
        self.counts().refused().find(|(refusal, _)| *refusal == cause).map_or(0, |(_, count)| count)
    }

    /// That nothing is left of anybody.
    fn assert_empty(&self) {
        assert_eq!(self.counts().allocations, 0);
        assert_eq!(self.quotas.allocations(), 0);
        assert!(self.ports.open.is_empty(), "{:?}", self.ports.open);
        let pool = &self.turn.allocations.ports;
        // As whoever asks for a port next would.
        pool.expire(self.now.instant);
        assert_eq!((pool.free(), pool.reserved()), (pool.size(), 0));
        assert_eq!(self.turn.allocations.armed(), 0);
        assert_eq!(self.turn.next_timeout(), None);
    }
}

fn take(outbox: &mut Outbox) -> Vec<(Route, Vec<u8>)> {
    let packets = outbox.runs().flat_map(|(route, packets)| packets.map(move |packet| (route, packet.to_vec())));
    let packets = packets.collect();
    outbox.clear();
    packets
}

/// Source, destination, bytes.
fn datagrams(outbox: &mut Outbox) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
    let datagram = |(route, bytes): (Route, Vec<u8>)| {
        assert_eq!(route.protocol, Protocol::Udp);
        (route.source, route.destination, bytes)
    };
    take(outbox).into_iter().map(datagram).collect()
}

/// Who knows a name and its password.
#[derive(Clone)]
struct Client {
    route: Route,
    username: String,
    key: IntegrityKey,
    nonce: String,
    transaction: u128,
}

fn udp() -> RequestedTransport {
    RequestedTransport::new(RequestedTransport::UDP)
}

/// Where client `n` sends from.
fn route(n: u16) -> Route {
    let client = SocketAddr::from(([203, 0, 113, (n / 1000) as u8], 10_000 + n));
    Route { protocol: Protocol::Udp, source: server(), destination: client }
}

impl Client {
    fn new(world: &World, n: u16, user: &str) -> Client {
        Client::at(world, route(n), user)
    }

    fn at(world: &World, route: Route, user: &str) -> Client {
        let (username, password) = world.credentials.issue(user, START_S + 3600);
        Client::with_password(route, username, password)
    }

    fn with_password(route: Route, username: String, password: String) -> Client {
        let credentials = LongTermKeyCredentials::new(username.clone(), password, REALM.into());
        let key = credentials.make_key(IntegrityAlgorithm::Sha1);
        let transaction = u128::from(route.destination.port()) << 32;
        Client { route, username, key, nonce: String::new(), transaction }
    }

    /// That of the next message.
    fn next_transaction(&self) -> u128 {
        self.transaction + 1
    }

    fn signed(&mut self, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        self.transaction += 1;
        let mut message = self.unsealed(method, attributes);
        message.add_message_integrity_with_key(&self.key, IntegrityAlgorithm::Sha1).expect("room");
        message.finish()
    }

    fn unsealed(&self, method: Method, attributes: &[&dyn AttributeWrite]) -> MessageWriteVec {
        let mut message = builder(MessageClass::Request, method, self.transaction, attributes);
        message.add_attribute(&Username::new(&self.username).expect("short")).expect("room");
        message.add_attribute(&Realm::new(REALM).expect("short")).expect("room");
        message.add_attribute(&Nonce::new(&self.nonce).expect("short")).expect("room");
        message
    }
}

fn builder(
    class: MessageClass,
    method: Method,
    transaction: u128,
    attributes: &[&dyn AttributeWrite],
) -> MessageWriteVec {
    let kind = MessageType::from_class_method(class, method);
    let mut message = Message::builder(kind, transaction.into(), MessageWriteVec::new());
    for attribute in attributes {
        message.add_attribute(*attribute).expect("room");
    }
    message
}

fn unsigned(method: Method, transaction: u128, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
    builder(MessageClass::Request, method, transaction, attributes).finish()
}

fn indication(method: Method, transaction: u128, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
    builder(MessageClass::Indication, method, transaction, attributes).finish()
}

fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

#[derive(Debug)]
struct Answer(Vec<u8>);

impl Answer {
    fn message(&self) -> Message<'_> {
        Message::from_bytes(&self.0).expect("a STUN message")
    }

    fn transaction(&self) -> &[u8] {
        &self.0[4..20]
    }

    /// The error, `None` for success.
    fn code(&self) -> Option<u16> {
        let message = self.message();
        assert!(message.is_response());
        let code = message.attribute::<ErrorCode>().ok().map(|error| error.code());
        assert_eq!(code.is_some(), message.has_class(MessageClass::Error));
        code
    }

    fn nonce(&self) -> String {
        self.message().attribute::<Nonce>().expect("a nonce").nonce().to_owned()
    }

    fn lifetime_s(&self) -> u32 {
        self.message().attribute::<Lifetime>().expect("a lifetime").seconds()
    }

    fn relayed(&self) -> Vec<SocketAddr> {
        let message = self.message();
        let relayed = (0..).map_while(|n| message.nth_attribute::<XorRelayedAddress>(n).ok());
        relayed.map(|relayed| relayed.addr(message.transaction_id())).collect()
    }

    fn unknown(&self) -> UnknownAttributes {
        self.message().attribute().expect("UNKNOWN-ATTRIBUTES")
    }

    fn is_signed_with(&self, key: &IntegrityKey) -> bool {
        self.message().validate_integrity_with_key(key).is_ok()
    }

    fn kinds(&self) -> Vec<u16> {
        self.message().iter_attributes().map(|(_, attribute)| attribute.get_type().value()).collect()
    }
}

/// Peer and data of a Data indication.
fn read_data_indication(bytes: &[u8]) -> (SocketAddr, Vec<u8>) {
    let message = Message::from_bytes(bytes).expect("a STUN message");
    assert!(message.has_class(MessageClass::Indication) && message.has_method(turn_types::message::DATA));
    let peer = message.attribute::<XorPeerAddress>().expect("a peer").addr(message.transaction_id());
    (peer, message.attribute::<Data>().expect("data").data().to_vec())
}
