//! Relaying takes no memory, and neither do those who have not proved who they are.
//!
//! A server in virtual time, under an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parlour::sfu::Now;
use parlour::transport::{Outbox, Protocol, Route};
use parlour::turn::credentials::Credentials;
use parlour::turn::peer_policy::{PeerPolicy, PeerRules};
use parlour::turn::quotas::{QuotaLimits, Quotas};
use parlour::turn::relay_ports::RelayPorts;
use parlour::turn::{Limits, Ports, Settings, Turn};
use stun_types::attribute::{Nonce, Realm, Username};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageType, MessageWriteVec, Method,
};
use stun_types::prelude::*;
use turn_types::attribute::{ChannelNumber, Data, RequestedTransport, XorPeerAddress, XorRelayedAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, SEND};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The system's allocator, which counts what this thread takes.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// Taken and not given back.
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    COUNT.set(COUNT.get() + u64::from(more > 0));
    BYTES.set(BYTES.get() + more as isize - less as isize);
}

// SAFETY: every call goes to the system's allocator as it came; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

const REALM: &str = "example.org";
const START_MS: u64 = 1_750_000_000_000;
const TRANSACTION: u128 = 7;

struct AllPorts;

impl Ports for AllPorts {
    fn is_free(&mut self, _: SocketAddr) -> bool {
        true
    }

    fn open(&mut self, _: SocketAddr) -> bool {
        true
    }

    fn close(&mut self, _: SocketAddr) {}
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn server() -> SocketAddr {
    address("198.51.100.10:3478")
}

fn peer() -> SocketAddr {
    address("93.184.216.1:40001")
}

fn route(port: u16) -> Route {
    Route { protocol: Protocol::Udp, source: server(), destination: SocketAddr::from(([203, 0, 113, 1], port)) }
}

fn message(class: MessageClass, method: Method, attributes: &[&dyn AttributeWrite]) -> MessageWriteVec {
    let kind = MessageType::from_class_method(class, method);
    let mut message = Message::builder(kind, TRANSACTION.into(), MessageWriteVec::new());
    attributes.iter().for_each(|attribute| message.add_attribute(*attribute).expect("room"));
    message
}

struct World {
    turn: Turn,
    now: Now,
    credentials: Arc<Credentials>,
}

impl World {
    fn new() -> World {
        let credentials = Arc::new(Credentials::new(vec![b"north".to_vec()]));
        let rules = PeerRules { ourselves: vec![server().ip()], ..PeerRules::default() };
        let rate = 1 << 40;
        let quotas = QuotaLimits { per_user: 12, per_address: 5000, all: 5000, user_bytes_per_second: rate };
        let turn = Turn::new(Settings {
            realm: REALM.into(),
            credentials: credentials.clone(),
            nonce_key: [1; 32],
            relay_ports: RelayPorts::new(&[server().ip()], 49_152..=65_535),
            worker: 0,
            policy: Arc::new(PeerPolicy::new(rules).expect("good rules")),
            quotas: Quotas::new(quotas),
            limits: Limits { bytes_per_second: rate, refusals_per_second: 1000, ..Limits::default() },
            media: vec![server()],
            seed: 1,
        });
        World { turn, now: Now { instant: Instant::now(), unix_ms: START_MS }, credentials }
    }

    fn receive(&mut self, route: Route, message: &[u8]) {
        self.turn.receive(self.now, route, message, &mut AllPorts);
    }

    /// Makes a signed request of alice's; gives the answer.
    fn request(&mut self, route: Route, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        self.request_as("@alice:example.org", route, method, attributes)
    }

    fn request_as(&mut self, user: &str, route: Route, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        self.now.instant += Duration::from_millis(1);
        self.receive(route, &message(MessageClass::Request, ALLOCATE, &[]).finish());
        let challenge = only(self.turn.to_clients());
        let nonce: Nonce = Message::from_bytes(&challenge).expect("STUN").attribute().expect("a nonce");
        let (username, password) = self.credentials.issue(user, START_MS / 1000 + 3600);
        let mut request = message(MessageClass::Request, method, attributes);
        request.add_attribute(&Username::new(&username).expect("short")).expect("room");
        request.add_attribute(&Realm::new(REALM).expect("short")).expect("room");
        request.add_attribute(&nonce).expect("room");
        let credentials = LongTermKeyCredentials::new(username, password, REALM.into()).into();
        request.add_message_integrity(&credentials, IntegrityAlgorithm::Sha1).expect("room");
        self.receive(route, &request.finish());
        let answer = only(self.turn.to_clients());
        assert!(Message::from_bytes(&answer).expect("STUN").has_class(MessageClass::Success));
        answer
    }

    fn allocate(&mut self, route: Route) -> SocketAddr {
        let answer = self.request(route, ALLOCATE, &[&RequestedTransport::new(RequestedTransport::UDP)]);
        let answer = Message::from_bytes(&answer).expect("STUN");
        answer.attribute::<XorRelayedAddress>().expect("an address").addr(answer.transaction_id())
    }

    fn bind(&mut self, route: Route, number: u16, to: SocketAddr) {
        self.request(route, CHANNEL_BIND, &[&ChannelNumber::new(number), &to_peer(to)]);
    }

    /// Takes out everything that was written; gives how many packets.
    fn sent(&mut self) -> usize {
        let outboxes: [fn(&mut Turn) -> &mut Outbox; 3] = [Turn::to_clients, Turn::to_peers, Turn::to_ourselves];
        let turn = &mut self.turn;
        let packets = outboxes.map(|outbox| {
            let packets = outbox(turn).len();
            outbox(turn).clear();
            packets
        });
        packets.iter().sum()
    }
}

fn to_peer(peer: SocketAddr) -> XorPeerAddress {
    XorPeerAddress::new(peer, TRANSACTION.into())
}

fn only(outbox: &mut Outbox) -> Vec<u8> {
    let packets: Vec<Vec<u8>> = outbox.runs().flat_map(|(_, packets)| packets.map(<[u8]>::to_vec)).collect();
    outbox.clear();
    assert_eq!(packets.len(), 1);
    packets[0].clone()
}

/// What a thousand rounds take once every buffer has its size, and how many packets they make.
fn cost(world: &mut World, mut round: impl FnMut(&mut World, u16)) -> (u64, usize) {
    let mut rounds = |world: &mut World| {
        let mut packets = 0;
        for n in 0..1000 {
            world.now.instant += Duration::from_micros(100);
            round(world, n);
            packets += if n % 10 == 9 { world.sent() } else { 0 };
        }
        packets
    };
    rounds(world);
    let before = COUNT.get();
    assert!(before > 0, "what made the server is counted");
    let packets = rounds(world);
    (COUNT.get() - before, packets)
}

#[test]
fn relaying_takes_no_memory() {
    let mut world = World::new();
    let (alice, bob) = (route(5001), route(5002));
    let (of_alice, of_bob) = (world.allocate(alice), world.allocate(bob));
    world.bind(alice, 0x4000, peer());
    world.bind(alice, 0x4001, of_bob);
    world.bind(alice, 0x4002, server());
    world.request(bob, CREATE_PERMISSION, &[&to_peer(of_alice), &to_peer(peer())]);
    let data = [5; 1100];
    let on_channel = |number: u16| [&number.to_be_bytes()[..], &1100u16.to_be_bytes(), &data].concat();
    let (to_peer_on_channel, to_bob, to_media) = (on_channel(0x4000), on_channel(0x4001), on_channel(0x4002));
    let indication = message(MessageClass::Indication, SEND, &[&to_peer(peer()), &Data::new(&data)]).finish();
    let (taken, packets) = cost(&mut world, |world, _| {
        world.receive(alice, &to_peer_on_channel);
        world.receive(alice, &to_bob);
        world.receive(alice, &to_media);
        world.receive(bob, &indication);
        world.turn.relayed(world.now, of_alice, peer(), &data);
        world.turn.relayed(world.now, of_bob, peer(), &data);
        assert!(world.turn.next_timeout().is_some());
    });
    assert_eq!((taken, packets), (0, 6000));
}

/// Each of another user, with one peer on a channel and one without; and nothing stays when they end.
#[test]
fn an_allocation_takes_little_memory() {
    let mut world = World::new();
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let round = |world: &mut World| {
        let before = BYTES.get();
        for n in 0..3000 {
            let (user, route) = (format!("@user-{n}:example.org"), route(10_000 + n));
            world.request_as(&user, route, ALLOCATE, &[&udp]);
            world.request_as(&user, route, CHANNEL_BIND, &[&ChannelNumber::new(0x4000), &to_peer(peer())]);
            world.request_as(&user, route, CREATE_PERMISSION, &[&to_peer(address("93.184.216.2:5000"))]);
        }
        let taken = BYTES.get() - before;
        assert_eq!(world.turn.counts().allocations, 3000);
        world.now.instant += Duration::from_secs(601);
        world.turn.handle_timeout(world.now, &mut AllPorts);
        assert_eq!(world.turn.counts().allocations, 0);
        taken
    };
    let taken = round(&mut world);
    assert!(taken / 3000 < 2048, "{} bytes each", taken / 3000);
    let before = BYTES.get();
    round(&mut world);
    assert!(BYTES.get() <= before, "a second time needs no more");
}

#[test]
fn strangers_take_no_memory() {
    let mut world = World::new();
    let bob = route(5002);
    let of_bob = world.allocate(bob);
    let binding = message(MessageClass::Request, BINDING, &[]).finish();
    let allocate = message(MessageClass::Request, ALLOCATE, &[]).finish();
    let channel_data = [0x40, 0, 0, 1, 1, 0, 0, 0];
    let (taken, packets) = cost(&mut world, |world, n| {
        let [high, low] = n.to_be_bytes();
        let stranger = Route { destination: SocketAddr::from(([100, 64, high, low], n)), ..bob };
        for message in [&binding[..], &allocate, &channel_data, &[0xff; 30]] {
            world.receive(stranger, message);
        }
        world.turn.relayed(world.now, of_bob, peer(), &binding);
    });
    assert_eq!(taken, 0);
    assert!((500..=2000).contains(&packets), "{packets} answers, which are limited");
}
