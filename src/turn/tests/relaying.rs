//! Packets, both ways.

use super::*;

#[test]
fn a_channel_both_ways() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let relay = world.allocate(&mut alice);
    assert_eq!(world.bind(&mut alice, 0x4321, peer(1)), None);
    assert!(world.ports.open.contains(&relay));
    world.send_on(&alice, 0x4321, b"hello");
    assert_eq!(world.sent_to_peers(), [(relay, peer(1), b"hello".to_vec())]);
    assert_eq!(world.peer_sends(relay, peer(1), b"welcome"), [(alice.route, channel_data(0x4321, b"welcome"))]);
    assert!(world.peer_sends(relay, peer(2), b"x").is_empty(), "not permitted");
    let (_, other_port) = world.peer_sends(relay, SocketAddr::new(peer(1).ip(), 5), b"x").remove(0);
    assert_eq!(read_data_indication(&other_port), (SocketAddr::new(peer(1).ip(), 5), b"x".to_vec()));
    let counts = world.counts();
    assert_eq!((counts.to_peers.packets, counts.to_peers.bytes), (1, 5));
    assert_eq!((counts.to_clients.packets, counts.to_clients.bytes), (2, 8));
    assert_eq!(world.dropped(Dropped::NoPermission), 1);
}

#[test]
fn indications_both_ways() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let relay = world.allocate(&mut alice);
    world.send(&alice, peer(1), b"too early");
    assert!(world.sent_to_peers().is_empty());
    assert_eq!(world.permit(&mut alice, &[peer(1), peer(2)]), None);
    for data in [&b"a"[..], b"ab", b"abc", b"abcd"] {
        world.send(&alice, peer(2), data);
        assert_eq!(world.sent_to_peers(), [(relay, peer(2), data.to_vec())]);
        let (route, bytes) = world.peer_sends(relay, peer(2), data).remove(0);
        assert_eq!((route, read_data_indication(&bytes)), (alice.route, (peer(2), data.to_vec())));
        assert_eq!(bytes.len() % 4, 0);
    }
    let (_, nothing) = world.peer_sends(relay, peer(2), b"").remove(0);
    assert_eq!(read_data_indication(&nothing), (peer(2), vec![]));
    let ids: BTreeSet<Vec<u8>> =
        (0..10).map(|_| world.peer_sends(relay, peer(2), b"x").remove(0).1[8..20].to_vec()).collect();
    assert_eq!(ids.len(), 10, "each indication has its transaction id");
}

#[test]
fn on_a_stream_channel_data_is_padded() {
    let mut world = World::new();
    let mut alice = Client::at(&world, Route { protocol: Protocol::Tcp, ..route(1) }, "alice");
    let relay = world.allocate(&mut alice);
    world.bind(&mut alice, 0x4000, peer(1));
    for (data, padding) in [(&b"abcd"[..], 0), (b"abcde", 3), (b"abcdef", 2), (b"abcdefg", 1)] {
        let expected = [channel_data(0x4000, data), vec![0; padding]].concat();
        assert_eq!(world.peer_sends(relay, peer(1), data), [(alice.route, expected.clone())]);
        world.turn.receive(world.now, alice.route, &expected, &mut world.ports);
        assert_eq!(world.sent_to_peers(), [(relay, peer(1), data.to_vec())], "what comes in may be padded too");
    }
}

#[test]
fn channel_data_must_be_as_long_as_it_says() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    world.allocate(&mut alice);
    world.bind(&mut alice, 0x4000, peer(1));
    for message in [&[0x40, 0][..], &[0x40, 0, 0, 2, 1], &[0x40, 0, 0, 1, 1, 0, 0, 0, 0], &[0x80, 0, 0, 1, 1]] {
        assert!(world.receive(&alice, message).is_empty());
    }
    world.send_on(&alice, 0x4001, b"not bound");
    world.send_on(&Client::new(&world, 2, "bob"), 0x4000, b"not his");
    assert!(world.sent_to_peers().is_empty());
    assert_eq!(world.dropped(Dropped::Malformed), 4);
    assert_eq!((world.dropped(Dropped::NoChannel), world.dropped(Dropped::NoAllocation)), (1, 1));
}

/// The first peer and the first data of a Send count, and only those are looked at.
#[test]
fn the_first_peer_counts() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let relay = world.allocate(&mut alice);
    world.permit(&mut alice, &[peer(1), peer(2)]);
    let [to_one, to_two, to_three] = [1, 2, 3].map(|n| XorPeerAddress::new(peer(n), 9.into()));
    let (data, other) = (Data::new(b"data"), Data::new(b"other"));
    let send = |world: &mut World, attributes: &[&dyn AttributeWrite]| {
        world.receive(&alice, &indication(SEND, 9, attributes));
        world.sent_to_peers()
    };
    assert_eq!(send(&mut world, &[&to_two, &to_one, &data, &other]), [(relay, peer(2), b"data".to_vec())]);
    assert_eq!(send(&mut world, &[&data, &to_one]), [(relay, peer(1), b"data".to_vec())]);
    assert!(send(&mut world, &[&to_three, &to_one, &data]).is_empty());
    assert!(send(&mut world, &[&to_one]).is_empty());
    assert!(send(&mut world, &[&data]).is_empty());
}

#[test]
fn permissions_run_out_and_channels_with_them() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let relay = world.allocate(&mut alice);
    world.refresh(&mut alice, 3600);
    world.permit(&mut alice, &[peer(2)]);
    world.bind(&mut alice, 0x4000, peer(1));
    world.wait(Duration::from_millis(299_999));
    assert_eq!(world.peer_sends(relay, peer(1), b"x").len() + world.peer_sends(relay, peer(2), b"x").len(), 2);
    world.wait(Duration::from_millis(1));
    assert!(world.peer_sends(relay, peer(1), b"x").is_empty() && world.peer_sends(relay, peer(2), b"x").is_empty());
    world.send_on(&alice, 0x4000, b"x");
    world.send(&alice, peer(2), b"x");
    assert!(world.sent_to_peers().is_empty());
    // Somebody else takes the place of one of them; the channel finds its permission all the same.
    world.permit(&mut alice, &[peer(3)]);
    world.permit(&mut alice, &[peer(4)]);
    world.permit(&mut alice, &[peer(1)]);
    world.send_on(&alice, 0x4000, b"again");
    assert_eq!(world.sent_to_peers(), [(relay, peer(1), b"again".to_vec())]);
    assert_eq!(world.peer_sends(relay, peer(1), b"x"), [(alice.route, channel_data(0x4000, b"x"))]);
    world.wait(Duration::from_millis(299_999));
    world.send_on(&alice, 0x4000, b"last");
    assert_eq!(world.sent_to_peers().len(), 1);
    world.wait(Duration::from_millis(1));
    let fresh = world.ask(&alice, &unsigned(ALLOCATE, 5, &[])).nonce();
    alice.nonce = fresh;
    world.permit(&mut alice, &[peer(1)]);
    world.send_on(&alice, 0x4000, b"x");
    assert!(world.sent_to_peers().is_empty(), "600 seconds after it was bound");
    let (_, bytes) = world.peer_sends(relay, peer(1), b"x").remove(0);
    assert_eq!(read_data_indication(&bytes).0, peer(1), "permitted, but no channel");
}

/// What a port was found to be is checked at every packet, remembered or not.
#[test]
fn closed_ports_of_a_permitted_peer() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    world.allocate(&mut alice);
    world.permit(&mut alice, &[peer(1)]);
    for port in [0, 22, 53, 1900, 5353, 11_211] {
        world.send(&alice, SocketAddr::new(peer(1).ip(), port), b"x");
    }
    assert!(world.sent_to_peers().is_empty());
    assert_eq!(world.dropped(Dropped::Denied), 6);
    world.send(&alice, SocketAddr::new(peer(1).ip(), 443), b"x");
    assert_eq!(world.sent_to_peers().len(), 1);
}

/// Who tries one port after the other is slowed down; the ports in use stay usable.
#[test]
fn looking_for_open_ports_is_slow() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    world.allocate(&mut alice);
    world.permit(&mut alice, &[peer(1), peer(2)]);
    for port in 20_000..21_000 {
        world.send(&alice, SocketAddr::new(peer(1).ip(), port), b"x");
        world.send(&alice, peer(2), b"media");
    }
    let sent = world.sent_to_peers();
    let probes = sent.iter().filter(|(_, to, _)| to.ip() == peer(1).ip()).count();
    assert!((200..=256).contains(&probes), "{probes}");
    assert_eq!(sent.len() - probes, 1000);
    assert_eq!(world.dropped(Dropped::TooManyAddresses), 1000 - probes as u64);
    world.wait_s(10);
    (20_000..20_100).for_each(|port| world.send(&alice, SocketAddr::new(peer(1).ip(), port), b"x"));
    assert_eq!(world.sent_to_peers().len(), 40);
}

#[test]
fn our_media_is_reached_in_the_process() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let relay = world.allocate(&mut alice);
    world.send(&alice, media(), b"x");
    assert!(world.sent_to_ourselves().is_empty(), "though ours, it must be permitted");
    assert_eq!(world.permit(&mut alice, &[media()]), None);
    world.send(&alice, media(), b"check");
    assert_eq!(world.sent_to_ourselves(), [(relay, media(), b"check".to_vec())]);
    let (_, bytes) = world.peer_sends(relay, media(), b"answer").remove(0);
    assert_eq!(read_data_indication(&bytes), (media(), b"answer".to_vec()));
    assert_eq!(world.bind(&mut alice, 0x4000, media()), None);
    world.send_on(&alice, 0x4000, b"media");
    assert_eq!(world.sent_to_ourselves(), [(relay, media(), b"media".to_vec())]);
    assert_eq!(world.peer_sends(relay, media(), b"media"), [(alice.route, channel_data(0x4000, b"media"))]);
    for port in [22, 80, 3479, 8080, 49_151] {
        world.send(&alice, SocketAddr::new(media().ip(), port), b"x");
    }
    assert!(world.sent_to_ourselves().is_empty() && world.sent_to_peers().is_empty());
    assert_eq!(world.dropped(Dropped::Denied), 5);
    assert_eq!(world.ports.opened, 0, "no socket for any of it");
    assert_eq!(world.counts().in_process.packets, 2);
}

#[test]
fn relay_to_relay_in_the_process() {
    let mut world = World::new();
    let (mut alice, mut bob) = (Client::new(&world, 1, "alice"), Client::new(&world, 2, "bob"));
    let (of_alice, of_bob) = (world.allocate(&mut alice), world.allocate(&mut bob));
    world.bind(&mut alice, 0x4000, of_bob);
    world.send_on(&alice, 0x4000, b"x");
    assert!(take(world.turn.to_clients()).is_empty(), "bob has not permitted her");
    world.permit(&mut bob, &[of_alice]);
    world.send_on(&alice, 0x4000, b"hello");
    let sent = take(world.turn.to_clients());
    assert_eq!((sent.len(), sent[0].0), (1, bob.route));
    assert_eq!(read_data_indication(&sent[0].1), (of_alice, b"hello".to_vec()));
    world.send(&bob, of_alice, b"hi");
    assert_eq!(take(world.turn.to_clients()), [(alice.route, channel_data(0x4000, b"hi"))]);
    // A relayed address that nobody has.
    let nobody = (49_152..).map(|port| SocketAddr::new(relay_v4(), port)).find(|a| *a != of_alice && *a != of_bob);
    world.send(&bob, nobody.expect("a port"), b"x");
    assert!(world.sent_to_peers().is_empty() && world.sent_to_ourselves().is_empty());
    assert_eq!(world.ports.opened, 0);
    world.refresh(&mut bob, 0);
    world.send_on(&alice, 0x4000, b"x");
    assert!(take(world.turn.to_clients()).is_empty());
}

#[test]
fn relay_to_relay_over_two_workers() {
    let shared = settings();
    let workers = |worker| Settings { worker, seed: worker as u64, ..shared.clone() };
    let (mut one, mut two) = (World::with(workers(0)), World::with(workers(1)));
    let (mut alice, mut bob) = (Client::new(&one, 1, "alice"), Client::new(&two, 2, "bob"));
    let (of_alice, of_bob) = (one.allocate(&mut alice), two.allocate(&mut bob));
    assert_eq!([one.turn.owner(of_alice), two.turn.owner(of_alice)], [Some(0); 2]);
    assert_eq!([one.turn.owner(of_bob), two.turn.owner(of_bob)], [Some(1); 2]);
    assert_eq!(one.turn.owner(peer(1)), None);
    assert_eq!(one.turn.owner(media()), None);
    one.bind(&mut alice, 0x4000, of_bob);
    two.bind(&mut bob, 0x4007, of_alice);
    one.send_on(&alice, 0x4000, b"hello");
    let across = one.sent_to_ourselves();
    assert_eq!(across, [(of_alice, of_bob, b"hello".to_vec())]);
    let (from, to, bytes) = &across[0];
    assert_eq!(two.peer_sends(*to, *from, bytes), [(bob.route, channel_data(0x4007, b"hello"))]);
    assert!(one.peer_sends(of_bob, of_alice, b"x").is_empty(), "not this worker's");
}

#[test]
fn byte_rates() {
    let limits = Limits { bytes_per_second: 100_000, ..Limits::default() };
    let mut world = World::with(Settings { limits, ..settings() });
    let mut alice = Client::new(&world, 1, "alice");
    let relay = world.allocate(&mut alice);
    world.bind(&mut alice, 0x4000, peer(1));
    let data = [0; 1000];
    // Ten seconds at ten times the rate, both ways.
    let (mut sent, mut received) = (0, 0);
    for _ in 0..10_000 {
        world.send_on(&alice, 0x4000, &data);
        sent += world.sent_to_peers().len();
        received += world.peer_sends(relay, peer(1), &data).len();
        world.advance(Duration::from_millis(1));
    }
    for packets in [sent, received] {
        assert!((1000..1300).contains(&packets), "{packets} packets of the thousand and a burst");
    }
    assert_eq!(world.dropped(Dropped::OverRate) as usize, 20_000 - sent - received);
}

#[test]
fn the_rate_of_a_user_is_that_of_all_allocations() {
    let quotas = Quotas::new(QuotaLimits { user_bytes_per_second: 100_000, ..quota_limits() });
    let mut world = World::with(Settings { quotas, ..settings() });
    let mut clients: Vec<Client> = (0..4).map(|n| Client::new(&world, n, "alice")).collect();
    for client in &mut clients {
        world.allocate(client);
        world.bind(client, 0x4000, peer(1));
    }
    let mut sent = 0;
    for _ in 0..2500 {
        for client in &clients {
            world.send_on(client, 0x4000, &[0; 1000]);
        }
        sent += world.sent_to_peers().len();
        world.advance(Duration::from_millis(4));
    }
    assert!((1000..1300).contains(&sent), "{sent}");
}

#[test]
fn what_would_not_fit_a_datagram() {
    let mut world = World::new();
    let mut alice = Client::at(&world, Route { protocol: Protocol::Tcp, ..route(1) }, "alice");
    let mut bob = Client::new(&world, 2, "bob");
    let (of_alice, of_bob) = (world.allocate(&mut alice), world.allocate(&mut bob));
    world.bind(&mut alice, 0x4000, of_bob);
    world.permit(&mut bob, &[of_alice]);
    let longest = vec![1; crate::turn::answer::MAX_DATA_BYTES];
    world.send_on(&alice, 0x4000, &longest);
    let sent = take(world.turn.to_clients());
    assert_eq!(read_data_indication(&sent[0].1), (of_alice, longest.clone()));
    assert!(sent[0].1.len() <= 65_507);
    world.send_on(&alice, 0x4000, &[&longest[..], &[1]].concat());
    assert!(take(world.turn.to_clients()).is_empty());
    assert_eq!(world.dropped(Dropped::TooLong), 1);
}

#[test]
fn a_connection_that_is_gone() {
    let mut world = World::new();
    let mut alice = Client::at(&world, Route { protocol: Protocol::Tcp, ..route(1) }, "alice");
    let relay = world.allocate(&mut alice);
    world.bind(&mut alice, 0x4000, peer(1));
    world.turn.disconnected(world.now, Client::new(&world, 1, "alice").route, &mut world.ports);
    assert_eq!(world.counts().allocations, 1, "by UDP it is another");
    world.turn.disconnected(world.now, alice.route, &mut world.ports);
    world.turn.disconnected(world.now, alice.route, &mut world.ports);
    assert!(world.peer_sends(relay, peer(1), b"x").is_empty());
    world.assert_empty();
}
