//! What is granted and what is refused, request by request.

use stun_types::attribute::{AttributeType, Fingerprint, RawAttribute, XorMappedAddress};
use stun_types::message::BINDING;
use turn_types::AddressFamily;
use turn_types::attribute::{DontFragment, RequestedAddressFamily};

use super::*;

#[test]
fn an_allocation_and_its_answer() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "@alice:example.org");
    let answer = world.request(&mut alice, ALLOCATE, &[&udp()]);
    assert_eq!((answer.code(), answer.lifetime_s()), (None, 600));
    let relay = answer.relayed()[0];
    assert!(relay.ip() == relay_v4() && relay.port() >= 49_152);
    let mapped = answer.message().attribute::<XorMappedAddress>().expect("a mapped address");
    assert_eq!(mapped.addr(answer.message().transaction_id()), alice.route.destination);
    assert_eq!((world.counts().allocations, world.quotas.allocations()), (1, 1));
    assert!(world.ports.open.is_empty(), "no socket before there is a peer for it");
    assert_eq!(world.refresh(&mut alice, 0).lifetime_s(), 0);
    world.assert_empty();
    assert_eq!(world.refresh(&mut alice, 0).code(), Some(437), "it is gone");
}

/// RFC 8656 §7.2: the same answer, and still one allocation.
#[test]
fn an_allocate_that_comes_again() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let first = world.request(&mut alice, ALLOCATE, &[&udp(), &Lifetime::new(1200)]);
    let again = {
        alice.transaction -= 1;
        world.request(&mut alice, ALLOCATE, &[&udp(), &Lifetime::new(1200)])
    };
    assert_eq!(first.0, again.0);
    assert_eq!(world.request(&mut alice, ALLOCATE, &[&udp()]).code(), Some(437), "another one");
    assert_eq!(world.counts().allocations, 1);
}

#[test]
fn lifetimes() {
    let mut world = World::new();
    let cases = [(0, 600), (1, 600), (599, 600), (601, 601), (3600, 3600), (3601, 3600), (u32::MAX, 3600)];
    for (n, (asked, granted)) in cases.into_iter().enumerate() {
        let mut client = Client::new(&world, n as u16, &format!("user {n}"));
        let answer = world.request(&mut client, ALLOCATE, &[&udp(), &Lifetime::new(asked)]);
        assert_eq!(answer.lifetime_s(), granted);
        let refreshed = if asked == 0 { 0 } else { granted };
        assert_eq!(world.refresh(&mut client, asked).lifetime_s(), refreshed);
    }
    let mut client = Client::new(&world, 1, "user 1");
    assert_eq!(world.request(&mut client, REFRESH, &[]).lifetime_s(), 600);
}

#[test]
fn an_allocation_ends_on_time() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    world.allocate(&mut alice);
    world.wait_s(599);
    assert_eq!(world.counts().allocations, 1);
    assert_eq!(world.refresh(&mut alice, 700).code(), None);
    world.wait(Duration::from_millis(699_999));
    assert_eq!(world.permit(&mut alice, &[peer(1)]), Some(438), "the nonce is old by now");
    let challenge = world.ask(&alice, &unsigned(ALLOCATE, 5, &[]));
    alice.nonce = challenge.nonce();
    assert_eq!(world.permit(&mut alice, &[peer(1)]), None);
    // Nobody looked at the timers yet.
    world.advance(Duration::from_millis(1));
    assert_eq!(world.permit(&mut alice, &[peer(1)]), Some(437));
    world.assert_empty();
    world.allocate(&mut alice);
}

/// Each row: what an Allocate has besides, and the error.
#[test]
fn allocates_that_are_refused() {
    let raw = |kind, value: &'static [u8]| RawAttribute::new(AttributeType::new(kind), value);
    let (transport, tcp) = (raw(0x19, &[17, 0, 0, 0]), raw(0x19, &[6, 0, 0, 0]));
    let (v4, v6) = (raw(0x17, &[1, 0, 0, 0]), raw(0x17, &[2, 0, 0, 0]));
    let (both, both_v4) = (raw(0x8000, &[2, 0, 0, 0]), raw(0x8000, &[1, 0, 0, 0]));
    let (even, even_and_next) = (raw(0x18, &[0]), raw(0x18, &[0x80]));
    let (token, lifetime) = (raw(0x22, &[0; 8]), raw(0x0d, &[0; 4]));
    let rows: [(&[&RawAttribute<'_>], u16); 20] = [
        (&[], 400),
        (&[&raw(0x19, &[17])], 400),
        (&[&tcp], 442),
        (&[&raw(0x19, &[0, 0, 0, 0])], 442),
        (&[&transport, &raw(0x1a, &[])], 420),
        (&[&transport, &raw(0x7fff, &[])], 420),
        (&[&transport, &raw(0x0d, &[1, 2])], 400),
        (&[&transport, &token, &even], 400),
        (&[&transport, &token, &v4], 400),
        (&[&transport, &token, &both], 400),
        (&[&transport, &token], 508),
        (&[&transport, &token, &lifetime], 508),
        (&[&transport, &raw(0x22, &[0; 4])], 400),
        (&[&transport, &v6, &both], 400),
        (&[&transport, &both_v4], 400),
        (&[&transport, &raw(0x8000, &[9, 0, 0, 0])], 400),
        (&[&transport, &even_and_next, &both], 400),
        (&[&transport, &raw(0x18, &[])], 400),
        (&[&transport, &raw(0x17, &[3, 0, 0, 0])], 440),
        (&[&transport, &raw(0x17, &[1])], 440),
    ];
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    for (attributes, code) in rows {
        let attributes: Vec<&dyn AttributeWrite> = attributes.iter().map(|a| *a as &dyn AttributeWrite).collect();
        assert_eq!(world.request(&mut alice, ALLOCATE, &attributes).code(), Some(code), "{attributes:?}");
        world.assert_empty();
    }
}

#[test]
fn a_family_that_there_is_no_relay_of() {
    let mut world =
        World::with(Settings { relay_ports: RelayPorts::new(&[relay_v6()], 49_152..=65_535), ..settings() });
    let mut alice = Client::new(&world, 1, "alice");
    assert_eq!(world.request(&mut alice, ALLOCATE, &[&udp()]).code(), Some(440), "IPv4 unless something else is said");
    let v6 = RequestedAddressFamily::new(AddressFamily::IPV6);
    let answer = world.request(&mut alice, ALLOCATE, &[&udp(), &v6]);
    assert_eq!(answer.relayed()[0].ip(), relay_v6());
}

#[test]
fn dont_fragment_is_not_understood() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let answer = world.request(&mut alice, ALLOCATE, &[&udp(), &DontFragment::new()]);
    assert_eq!(answer.code(), Some(420));
    assert!(answer.unknown().has_attribute(DontFragment::TYPE));
    world.allocate(&mut alice);
    assert_eq!(world.permit(&mut alice, &[peer(1)]), None);
    let attributes: [&dyn AttributeWrite; 3] =
        [&DontFragment::new(), &XorPeerAddress::new(peer(1), 9.into()), &Data::new(b"x")];
    let message = indication(SEND, 9, &attributes);
    world.receive(&alice, &message);
    assert!(world.sent_to_peers().is_empty(), "RFC 8656 §11.2");
}

#[test]
fn only_the_types_below_8000_must_be_understood() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let strange = [0x7f01, 0x9999, 0x7f02].map(|kind| RawAttribute::new(AttributeType::new(kind), &[]));
    let answer = world.request(&mut alice, ALLOCATE, &[&udp(), &strange[0], &strange[1], &strange[2]]);
    assert_eq!(answer.code(), Some(420));
    let told: Vec<bool> = strange.iter().map(|a| answer.unknown().has_attribute(a.get_type())).collect();
    assert_eq!(told, [true, false, true]);
    assert_eq!(world.request(&mut alice, ALLOCATE, &[&udp(), &strange[1]]).code(), None);
}

#[test]
fn quotas_and_what_is_given_back() {
    let limits = QuotaLimits { per_user: 2, per_address: 3, all: 4, user_bytes_per_second: 1000 };
    let mut world = World::with(Settings { quotas: Quotas::new(limits), ..settings() });
    let mut clients: Vec<Client> = (0..3).map(|n| Client::new(&world, n, "alice")).collect();
    // Fresh credentials are no way round: it is the same user.
    let (username, password) = world.credentials.issue("alice", START_S + 99);
    clients[2] = Client::with_password(clients[2].route, username, password);
    let codes: Vec<_> = clients.iter_mut().map(|c| world.request(c, ALLOCATE, &[&udp()]).code()).collect();
    assert_eq!(codes, [None, None, Some(486)]);
    let mut bob = Client::new(&world, 3, "bob");
    world.allocate(&mut bob);
    let mut carol = Client::new(&world, 4, "carol");
    assert_eq!(world.request(&mut carol, ALLOCATE, &[&udp()]).code(), Some(486), "three from one address");
    let mut dave = Client::new(&world, 1000, "dave");
    world.allocate(&mut dave);
    let mut erin = Client::new(&world, 2000, "erin");
    assert_eq!(world.request(&mut erin, ALLOCATE, &[&udp()]).code(), Some(508), "the node is full");
    world.refresh(&mut clients[0], 0);
    world.allocate(&mut clients[2]);
    world.wait_s(601);
    world.assert_empty();
}

#[test]
fn permissions_that_are_refused() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    assert_eq!(world.permit(&mut alice, &[peer(1)]), Some(437), "no allocation");
    let relay = world.allocate(&mut alice);
    let rows = [
        (vec![], 400),
        (vec![peer_v6(1)], 443),
        (vec![address("10.0.0.1:5000")], 403),
        (vec![address("127.0.0.1:5000")], 403),
        (vec![peer(1), address("169.254.169.254:80")], 403),
        (vec![peer(1), peer_v6(1)], 443),
        ((0..33).map(peer).collect(), 508),
    ];
    for (peers, code) in rows {
        assert_eq!(world.permit(&mut alice, &peers), Some(code), "{peers:?}");
    }
    let broken = RawAttribute::new(AttributeType::new(0x12), &[0, 1, 2]);
    assert_eq!(world.request(&mut alice, CREATE_PERMISSION, &[&broken]).code(), Some(400));
    assert!(world.ports.open.is_empty(), "all or none");
    assert!(world.peer_sends(relay, peer(1), b"x").is_empty(), "all or none");
    let all: Vec<SocketAddr> = (0..32).map(peer).collect();
    assert_eq!(world.permit(&mut alice, &[all.clone(), all.clone()].concat()), None, "each counts once");
    assert_eq!(world.permit(&mut alice, &all), None, "they are permitted already");
    assert_eq!(world.permit(&mut alice, &[peer(32)]), Some(508));
    assert_eq!(world.bind(&mut alice, 0x4000, peer(32)), Some(508));
    assert_eq!(world.ports.open.iter().collect::<Vec<_>>(), [&relay]);
    world.wait_s(300);
    assert_eq!(world.permit(&mut alice, &[peer(32)]), None, "the others have run out");
}

/// CVE-2020-26262, CVE-2026-27624 and others: however it is written, nobody relays to what is inside.
#[test]
fn dangerous_peers() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let both = RawAttribute::new(AttributeType::new(0x8000), &[2, 0, 0, 0]);
    assert_eq!(world.request(&mut alice, ALLOCATE, &[&udp(), &both]).relayed().len(), 2);
    let peers = [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:198.51.100.10",
    ];
    for (n, peer) in peers.into_iter().enumerate() {
        let peer = SocketAddr::new(peer.parse().expect("an address"), 5000);
        assert_eq!(world.permit(&mut alice, &[peer]), Some(403), "{peer}");
        assert_eq!(world.bind(&mut alice, 0x4000 + n as u16, peer), Some(403), "{peer}");
        world.send(&alice, peer, b"x");
    }
    assert!(world.sent_to_peers().is_empty() && world.sent_to_ourselves().is_empty());
    assert_eq!(world.ports.opened, 0);
}

#[test]
fn channels_that_are_refused() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    assert_eq!(world.bind(&mut alice, 0x4000, peer(1)), Some(437));
    world.allocate(&mut alice);
    assert_eq!(world.bind(&mut alice, 0x4000, peer(1)), None);
    let closed_port = SocketAddr::new(peer(1).ip(), 53);
    let rows = [
        (0x3fff, peer(2), 400),
        (0x8000, peer(2), 400),
        (0xffff, peer(2), 400),
        (0x4000, peer(2), 400),
        (0x4001, peer(1), 400),
        (0x4001, peer_v6(1), 443),
        (0x4001, address("10.0.0.1:5000"), 403),
        (0x4001, closed_port, 403),
        (0x4001, SocketAddr::new(relay_v4(), 22), 403),
        (0x4001, SocketAddr::new(relay_v4(), 5000), 403),
    ];
    for (number, peer, code) in rows {
        assert_eq!(world.bind(&mut alice, number, peer), Some(code), "{number:x} {peer}");
    }
    let number = ChannelNumber::new(0x4001);
    assert_eq!(world.request(&mut alice, CHANNEL_BIND, &[&number]).code(), Some(400));
    let to = XorPeerAddress::new(peer(3), alice.next_transaction().into());
    assert_eq!(world.request(&mut alice, CHANNEL_BIND, &[&to]).code(), Some(400));
    assert_eq!(world.bind(&mut alice, 0x4000, peer(1)), None, "kept bound");
    for n in 1..32 {
        let port = SocketAddr::new(peer(1).ip(), 30_000 + n);
        assert_eq!(world.bind(&mut alice, 0x4000 + n, port), None);
    }
    assert_eq!(world.bind(&mut alice, 0x4fff, peer(2)), Some(508), "32 at most");
    assert_eq!(world.bind(&mut alice, 0x4005, SocketAddr::new(peer(1).ip(), 30_005)), None);
    let fresh = world.ask(&alice, &unsigned(ALLOCATE, 5, &[])).nonce();
    world.refresh(&mut alice, 3000);
    world.wait_s(600);
    alice.nonce = fresh;
    assert_eq!(world.bind(&mut alice, 0x4fff, peer(2)), None, "they have run out");
    assert_eq!(world.bind(&mut alice, 0x4000, peer(3)), None, "and are free for others");
}

#[test]
fn no_socket_to_be_had() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    world.allocate(&mut alice);
    world.ports.exhausted = true;
    assert_eq!(world.permit(&mut alice, &[peer(1)]), Some(508));
    assert_eq!(world.bind(&mut alice, 0x4000, peer(1)), Some(508));
    assert_eq!(world.permit(&mut alice, &[media()]), None, "none needed");
    world.ports.exhausted = false;
    assert_eq!(world.permit(&mut alice, &[peer(1)]), None);
    world.turn.disconnected(world.now, alice.route, &mut world.ports);
    world.assert_empty();
}

#[test]
fn without_relayed_addresses_there_is_stun_only() {
    let mut world = World::with(Settings { relay_ports: RelayPorts::new(&[], 49_152..=65_535), ..settings() });
    let alice = Client::new(&world, 1, "alice");
    assert_eq!(world.ask(&alice, &unsigned(ALLOCATE, 1, &[&udp()])).code(), Some(403), "at once, never silence");
    assert_eq!(world.ask(&alice, &unsigned(BINDING, 1, &[])).code(), None);
}

#[test]
fn binding() {
    let mut world = World::new();
    let alice = Client::new(&world, 1, "alice");
    let answer = world.ask(&alice, &unsigned(BINDING, 1, &[]));
    assert_eq!((answer.code(), answer.kinds()), (None, vec![XorMappedAddress::TYPE.value()]));
    let mut with_fingerprint = builder(MessageClass::Request, BINDING, 2, &[]);
    with_fingerprint.add_fingerprint().expect("room");
    let answer = world.ask(&alice, &with_fingerprint.finish());
    assert_eq!(answer.kinds(), [XorMappedAddress::TYPE.value(), Fingerprint::TYPE.value()]);
    let change_request = RawAttribute::new(AttributeType::new(3), &[0, 0, 0, 6]);
    let answer = world.ask(&alice, &unsigned(BINDING, 3, &[&change_request]));
    assert_eq!(answer.code(), Some(420));
    assert!(answer.unknown().has_attribute(change_request.get_type()));
    assert_eq!(world.receive(&alice, &indication(BINDING, 4, &[])), Vec::<Vec<u8>>::new());
}

/// What cannot be a message of ours gets no answer.
#[test]
fn what_is_no_request() {
    let mut world = World::new();
    let alice = Client::new(&world, 1, "alice");
    let good = unsigned(BINDING, 1, &[]);
    let mut wrong_fingerprint = builder(MessageClass::Request, BINDING, 2, &[]);
    wrong_fingerprint.add_fingerprint().expect("room");
    let mut wrong_fingerprint = wrong_fingerprint.finish();
    *wrong_fingerprint.last_mut().expect("bytes") ^= 1;
    let response = builder(MessageClass::Success, BINDING, 1, &[]).finish();
    let connect = unsigned(turn_types::message::CONNECT, 1, &[]);
    let unaligned = [&good[..2], &[0, 3][..], &good[4..], &[0, 0, 0]].concat();
    let rows: [&[u8]; 10] = [
        &[],
        &[0],
        &[0xff; 40],
        &good[..19],
        &[&good[..], &[0]].concat(),
        &[&good[..], &[0; 4]].concat(),
        &wrong_fingerprint,
        &unaligned,
        &response,
        &connect,
    ];
    for message in rows {
        assert!(world.receive(&alice, message).is_empty(), "{message:?}");
    }
    assert_eq!(world.dropped(Dropped::Malformed) + world.dropped(Dropped::Unexpected), rows.len() as u64);
    assert_eq!(world.counts().allocations, 0);
}
