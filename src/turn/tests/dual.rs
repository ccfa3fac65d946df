//! IPv6, and both families in one allocation (RFC 8656 §7.2, §8.2).

use stun_types::attribute::RawAttribute;
use turn_types::AddressFamily;
use turn_types::attribute::{AdditionalAddressFamily, AddressErrorCode, RequestedAddressFamily};

use super::*;

fn both() -> AdditionalAddressFamily {
    AdditionalAddressFamily::new(AddressFamily::IPV6)
}

fn only(family: AddressFamily) -> RequestedAddressFamily {
    RequestedAddressFamily::new(family)
}

#[test]
fn one_family_or_the_other() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Client::new(&world, 1, "alice"), Client::new(&world, 2, "bob"));
    let v4 = world.request(&mut alice, ALLOCATE, &[&udp(), &only(AddressFamily::IPV4)]).relayed();
    let v6 = world.request(&mut bob, ALLOCATE, &[&udp(), &only(AddressFamily::IPV6)]).relayed();
    assert!(v4.len() == 1 && v4[0].ip() == relay_v4() && v6.len() == 1 && v6[0].ip() == relay_v6());
    assert_eq!(world.permit(&mut alice, &[peer_v6(1)]), Some(443));
    assert_eq!(world.permit(&mut bob, &[peer(1)]), Some(443));
    assert_eq!(world.bind(&mut bob, 0x4000, peer_v6(1)), None);
    world.send_on(&bob, 0x4000, b"x");
    assert_eq!(world.sent_to_peers(), [(v6[0], peer_v6(1), b"x".to_vec())]);
    assert_eq!(world.peer_sends(v6[0], peer_v6(1), b"y"), [(bob.route, channel_data(0x4000, b"y"))]);
    world.permit(&mut bob, &[peer_v6(2)]);
    let (_, bytes) = world.peer_sends(v6[0], peer_v6(2), b"z").remove(0);
    assert_eq!(read_data_indication(&bytes), (peer_v6(2), b"z".to_vec()));
}

#[test]
fn both_families_in_one() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let relays = world.request(&mut alice, ALLOCATE, &[&udp(), &both()]).relayed();
    assert_eq!(relays.iter().map(SocketAddr::ip).collect::<Vec<_>>(), [relay_v4(), relay_v6()]);
    assert_eq!((world.counts().allocations, world.quotas.allocations()), (1, 1));
    world.permit(&mut alice, &[peer(1)]);
    assert_eq!(world.ports.open.iter().collect::<Vec<_>>(), [&relays[0]], "only the one that is needed");
    world.permit(&mut alice, &[peer(1), peer_v6(1)]);
    assert_eq!(world.ports.open.len(), 2);
    world.send(&alice, peer(1), b"4");
    world.send(&alice, peer_v6(1), b"6");
    assert_eq!(world.sent_to_peers(), [(relays[0], peer(1), b"4".to_vec()), (relays[1], peer_v6(1), b"6".to_vec())]);
    assert_eq!(world.peer_sends(relays[1], peer_v6(1), b"x").len(), 1);
    world.turn.disconnected(world.now, alice.route, &mut world.ports);
    world.assert_empty();
}

#[test]
fn the_number_of_the_draft_is_understood() {
    let mut world = World::new();
    let [mut alice, mut bob] = [1, 2].map(|number| Client::new(&world, number, "alice"));
    let asked = |family: u8| RawAttribute::new(0x8032.into(), &[family, 0, 0, 0]).into_owned();
    assert_eq!(world.request(&mut alice, ALLOCATE, &[&udp(), &asked(2)]).relayed().len(), 2);
    assert_eq!(world.request(&mut bob, ALLOCATE, &[&udp(), &asked(1)]).code(), Some(400), "IPv4 is there anyway");
}

#[test]
fn one_of_them_ends() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let relays = world.request(&mut alice, ALLOCATE, &[&udp(), &both()]).relayed();
    world.permit(&mut alice, &[peer(1), peer_v6(1)]);
    let answer = world.request(&mut alice, REFRESH, &[&Lifetime::new(0), &only(AddressFamily::IPV4)]);
    assert_eq!((answer.code(), answer.lifetime_s()), (None, 0));
    assert_eq!(world.ports.open.iter().collect::<Vec<_>>(), [&relays[1]]);
    world.send(&alice, peer(1), b"x");
    assert!(world.sent_to_peers().is_empty() && world.peer_sends(relays[0], peer(1), b"x").is_empty());
    assert_eq!(world.permit(&mut alice, &[peer(2)]), Some(443));
    world.send(&alice, peer_v6(1), b"x");
    assert_eq!(world.sent_to_peers().len(), 1);
    assert_eq!(world.request(&mut alice, REFRESH, &[&only(AddressFamily::IPV4)]).code(), Some(443));
    assert_eq!(world.quotas.allocations(), 1);
    assert_eq!(world.request(&mut alice, REFRESH, &[&Lifetime::new(0), &only(AddressFamily::IPV6)]).code(), None);
    world.assert_empty();
}

#[test]
fn one_of_them_lives_longer() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let relays = world.request(&mut alice, ALLOCATE, &[&udp(), &both()]).relayed();
    world.request(&mut alice, REFRESH, &[&Lifetime::new(1000), &only(AddressFamily::IPV6)]);
    world.wait_s(599);
    let fresh = world.ask(&alice, &unsigned(ALLOCATE, 5, &[])).nonce();
    alice.nonce = fresh;
    world.permit(&mut alice, &[peer(1), peer_v6(1)]);
    assert_eq!(world.peer_sends(relays[0], peer(1), b"x").len(), 1);
    world.advance(Duration::from_secs(1));
    assert!(world.peer_sends(relays[0], peer(1), b"x").is_empty(), "to the second, though not taken away yet");
    assert_eq!(world.peer_sends(relays[1], peer_v6(1), b"x").len(), 1);
    world.wait_s(399);
    assert_eq!(world.counts().allocations, 1);
    world.wait_s(1);
    world.assert_empty();
}

/// A server without the second family gives the first and says so.
#[test]
fn half_of_what_was_asked_for() {
    let families = [(relay_v4(), AddressFamily::IPV6), (relay_v6(), AddressFamily::IPV4)];
    for (relay, missing) in families {
        let mut world = World::with(Settings { relay_ports: RelayPorts::new(&[relay], 49_152..=65_535), ..settings() });
        let mut alice = Client::new(&world, 1, "alice");
        let answer = world.request(&mut alice, ALLOCATE, &[&udp(), &both()]);
        assert_eq!(answer.relayed().iter().map(SocketAddr::ip).collect::<Vec<_>>(), [relay]);
        let error: AddressErrorCode = answer.message().attribute().expect("ADDRESS-ERROR-CODE");
        assert_eq!((error.family(), error.error().code()), (missing, 440));
        alice.transaction -= 1;
        assert_eq!(world.request(&mut alice, ALLOCATE, &[&udp(), &both()]).0, answer.0);
        world.wait_s(601);
        world.assert_empty();
    }
    let mut world = World::with(Settings { relay_ports: relay_ports(50_000..=50_000), ..settings() });
    world.ports.busy.insert(SocketAddr::new(relay_v6(), 50_000));
    let mut alice = Client::new(&world, 1, "alice");
    let answer = world.request(&mut alice, ALLOCATE, &[&udp(), &both()]);
    let error: AddressErrorCode = answer.message().attribute().expect("ADDRESS-ERROR-CODE");
    assert_eq!((answer.relayed().len(), error.error().code()), (1, 508));
    let mut bob = Client::new(&world, 2, "bob");
    assert_eq!(world.request(&mut bob, ALLOCATE, &[&udp(), &both()]).code(), Some(508), "neither");
}
