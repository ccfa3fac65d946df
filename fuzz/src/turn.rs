//! The TURN server: from strangers, and from somebody whose signature is good.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parlour::sfu::Now;
use parlour::transport::{Outbox, Protocol, Route};
use parlour::turn::credentials::Credentials;
use parlour::turn::peer_policy::{PeerPolicy, PeerRules};
use parlour::turn::quotas::{QuotaLimits, Quotas};
use parlour::turn::relay_ports::RelayPorts;
use parlour::turn::{Counts, Limits, Ports, Settings, Turn};
use stun_types::attribute::{Nonce, Realm, Username};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageClass, MessageType, MessageWriteVec,
    Method,
};
use stun_types::prelude::*;
use turn_types::attribute::XorRelayedAddress;
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND};

const REALM: &str = "example.org";
const START_MS: u64 = 1_750_000_000_000;

/// Few, so that a fuzzer meets one.
const RELAY_PORTS: std::ops::RangeInclusive<u16> = 0xc000..=0xc00f;

/// The same for all messages: addresses are written with it, and a fuzzer should find them again.
const TRANSACTION: u128 = 0;

/// Bytes that nobody vouches for: at most one answer, not much longer than what it answers, and nothing is kept or sent on.
pub fn turn_unauthenticated(data: &[u8]) {
    let mut server = Server::new();
    for _ in 0..2 {
        server.turn.receive(server.now, route(), data, &mut server.ports);
        let answers = packets(server.turn.to_clients());
        assert!(answers.len() <= 1);
        for (to, answer) in answers {
            assert_eq!(to, route());
            assert!(answer.len() <= 4 * data.len() && answer.len() <= data.len().max(20) + 60, "{}", answer.len());
            assert!(Message::from_bytes(&answer).is_ok_and(|answer| answer.is_response()));
        }
        assert!(server.turn.to_peers().is_empty() && server.turn.to_ourselves().is_empty());
    }
    server.assert_empty();
}

/// Steps: what to do, a length, and so many bytes, which become the attributes of a signed request or of an indication, or
/// what a peer sends. Whatever is asked for, data goes only where it may, and in the end nothing is left.
pub fn turn_signed(data: &[u8]) {
    conversation(data);
}

/// Gives what was done in it.
pub fn conversation(data: &[u8]) -> Counts {
    let mut server = Server::new();
    let mut rest = data;
    while let Some((&[what, len], after)) = rest.split_first_chunk() {
        let (bytes, next) = after.split_at(after.len().min(len.into()));
        rest = next;
        server.step(what, bytes);
    }
    for _ in 0..3 {
        server.now.instant += Duration::from_secs(3601);
        server.turn.handle_timeout(server.now, &mut server.ports);
    }
    server.assert_empty();
    server.turn.counts()
}

struct Server {
    turn: Turn,
    now: Now,
    ports: FakePorts,
    quotas: Arc<Quotas>,
    policy: Arc<PeerPolicy>,
    username: String,
    key: IntegrityKey,
    /// The relayed address that was told last.
    relay: SocketAddr,
}

#[derive(Default)]
struct FakePorts {
    open: BTreeSet<SocketAddr>,
}

impl Ports for FakePorts {
    fn is_free(&mut self, relay: SocketAddr) -> bool {
        RELAY_PORTS.contains(&relay.port())
    }

    fn open(&mut self, relay: SocketAddr) -> bool {
        assert!(self.open.insert(relay));
        true
    }

    fn close(&mut self, relay: SocketAddr) {
        assert!(self.open.remove(&relay));
    }
}

fn address() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 10], 3478))
}

fn address_v6() -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 3478))
}

fn route() -> Route {
    Route { protocol: Protocol::Udp, source: address(), destination: SocketAddr::from(([203, 0, 113, 1], 5000)) }
}

fn packets(outbox: &mut Outbox) -> Vec<(Route, Vec<u8>)> {
    let packets = outbox.runs().flat_map(|(route, packets)| packets.map(move |packet| (route, packet.to_vec())));
    let packets = packets.collect();
    outbox.clear();
    packets
}

impl Server {
    fn new() -> Server {
        let credentials = Arc::new(Credentials::new(vec![b"north".to_vec()]));
        let (username, password) = credentials.issue("alice", START_MS / 1000 + 3600);
        let key = LongTermKeyCredentials::new(username.clone(), password, REALM.into());
        let ours = vec![address().ip(), address_v6().ip()];
        let rules = PeerRules { ourselves: ours.clone(), ..PeerRules::default() };
        let policy = Arc::new(PeerPolicy::new(rules).expect("good rules"));
        let limits = QuotaLimits { per_user: 12, per_address: 12, all: 12, user_bytes_per_second: 1 << 40 };
        let quotas = Quotas::new(limits);
        let turn = Turn::new(Settings {
            realm: REALM.into(),
            credentials,
            nonce_key: [1; 32],
            relay_ports: RelayPorts::new(&ours, RELAY_PORTS),
            worker: 0,
            policy: policy.clone(),
            quotas: quotas.clone(),
            limits: Limits::default(),
            media: vec![address()],
            seed: 1,
        });
        let now = Now { instant: Instant::now(), unix_ms: START_MS };
        let key = key.make_key(IntegrityAlgorithm::Sha1);
        Server { turn, now, ports: FakePorts::default(), quotas, policy, username, key, relay: address() }
    }

    fn step(&mut self, what: u8, bytes: &[u8]) {
        let requests = [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND];
        match what % 8 {
            which @ 0..4 => {
                let request = self.signed(requests[usize::from(which)], bytes);
                self.receive(&request);
            }
            4 => {
                let kind = MessageType::from_class_method(MessageClass::Indication, SEND);
                let mut message = Message::builder(kind, TRANSACTION.into(), MessageWriteVec::new()).finish();
                append(&mut message, bytes);
                self.receive(&message);
            }
            5 => {
                let number = 0x4000 + u16::from(what / 8);
                let header = [number.to_be_bytes(), (bytes.len() as u16).to_be_bytes()].concat();
                self.receive(&[&header, bytes].concat());
            }
            6 => {
                let peers = [SocketAddr::from(([93, 184, 216, 34], 40_000)), address(), address_v6(), self.relay];
                self.turn.relayed(self.now, self.relay, peers[usize::from(what / 8) % peers.len()], bytes);
                self.look();
            }
            // Half a second to five minutes.
            _ => {
                let pause =
                    Duration::from_millis(u64::from(what / 8 + 1) * if bytes.is_empty() { 500 } else { 10_000 });
                self.now.instant += pause;
                self.now.unix_ms += pause.as_millis() as u64;
                self.turn.handle_timeout(self.now, &mut self.ports);
            }
        }
    }

    /// With these bytes as its attributes, and a signature behind them.
    fn signed(&mut self, method: Method, attributes: &[u8]) -> Vec<u8> {
        let request = |method| {
            let kind = MessageType::from_class_method(MessageClass::Request, method);
            Message::builder(kind, TRANSACTION.into(), MessageWriteVec::new())
        };
        self.turn.receive(self.now, route(), &request(ALLOCATE).finish(), &mut self.ports);
        let challenge = packets(self.turn.to_clients());
        let nonce = challenge.first().and_then(|(_, challenge)| {
            let challenge = Message::from_bytes(challenge).ok()?;
            challenge.attribute::<Nonce>().ok()
        });
        let mut message = request(method);
        message.add_attribute(&Username::new(&self.username).expect("short")).expect("room");
        message.add_attribute(&Realm::new(REALM).expect("short")).expect("room");
        // Of challenges there is a limit.
        if let Some(nonce) = nonce {
            message.add_attribute(&nonce).expect("room");
        }
        append(&mut message, attributes);
        message.add_message_integrity_with_key(&self.key, IntegrityAlgorithm::Sha1).expect("no other signature");
        message.finish()
    }

    fn receive(&mut self, message: &[u8]) {
        self.turn.receive(self.now, route(), message, &mut self.ports);
        self.look();
    }

    /// At what was sent.
    fn look(&mut self) {
        for (to, bytes) in packets(self.turn.to_clients()) {
            assert_eq!(to, route());
            if bytes[0] >> 6 == 1 {
                continue;
            }
            let message = Message::from_bytes(&bytes).expect("a STUN message");
            if let Ok(relayed) = message.attribute::<XorRelayedAddress>() {
                self.relay = relayed.addr(message.transaction_id());
            }
        }
        for (way, _) in packets(self.turn.to_peers()) {
            assert!(self.ports.open.contains(&way.source));
            assert_eq!(self.policy.permits_port(way.destination), Ok(()));
            assert_eq!(way.source.is_ipv4(), way.destination.is_ipv4());
        }
        for (way, _) in packets(self.turn.to_ourselves()) {
            assert_eq!(way.destination, address());
            assert!(RELAY_PORTS.contains(&way.source.port()));
        }
        assert!(self.turn.counts().allocations <= 1 && self.ports.open.len() <= 2);
    }

    fn assert_empty(&self) {
        assert_eq!((self.turn.counts().allocations, self.quotas.allocations()), (0, 0));
        assert!(self.ports.open.is_empty());
        assert_eq!(self.turn.next_timeout(), None);
    }
}

/// Attributes as they are, padded to four bytes.
fn append(message: &mut Vec<u8>, attributes: &[u8]) {
    message.extend_from_slice(attributes);
    message.resize(message.len().next_multiple_of(4), 0);
    let length = (message.len() - 20) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}
