//! Which port an allocation gets.

use stun_types::attribute::RawAttribute;
use turn_types::attribute::{EvenPort, ReservationToken};

use super::*;

fn token(answer: &Answer) -> Option<u64> {
    answer.message().attribute::<ReservationToken>().ok().map(|token| token.token())
}

fn few(ports: RangeInclusive<u16>) -> World {
    World::with(Settings { relay_ports: relay_ports(ports), ..settings() })
}

#[test]
fn ports_cannot_be_guessed_and_are_not_handed_out_twice() {
    let mut world = few(50_000..=50_099);
    let mut clients: Vec<Client> =
        (0..100).map(|n| Client::new(&world, 1000 * (n % 10) + n, &format!("{n}"))).collect();
    let ports: Vec<u16> = clients.iter_mut().map(|client| world.allocate(client).port()).collect();
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 100);
    let in_order = ports.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
    assert!(in_order < 10, "{ports:?}");
    let mut late = Client::new(&world, 1, "late");
    assert_eq!(world.request(&mut late, ALLOCATE, &[&udp()]).code(), Some(508));
    assert_eq!(world.quotas.allocations(), 100, "the seat was given back");
    world.refresh(&mut clients[7], 0);
    assert_eq!(world.allocate(&mut late).port(), ports[7]);
    world.wait_s(601);
    world.assert_empty();
}

#[test]
fn ports_of_other_programs() {
    let mut world = few(50_000..=50_003);
    world.ports.busy.extend((50_000..=50_002).map(|port| SocketAddr::new(relay_v4(), port)));
    let (mut alice, mut bob) = (Client::new(&world, 1, "alice"), Client::new(&world, 2, "bob"));
    assert_eq!(world.allocate(&mut alice).port(), 50_003);
    assert_eq!(world.request(&mut bob, ALLOCATE, &[&udp()]).code(), Some(508));
    world.ports.busy.clear();
    world.allocate(&mut bob);
}

/// July 2026: each request leaked a port until there were none.
#[test]
fn even_port_alone_keeps_no_port_back() {
    let mut world = few(50_000..=50_009);
    for round in 0..50 {
        let mut client = Client::new(&world, round, "alice");
        let answer = world.request(&mut client, ALLOCATE, &[&udp(), &EvenPort::new(false)]);
        assert_eq!((answer.relayed()[0].port() % 2, token(&answer)), (0, None));
        assert_eq!(world.refresh(&mut client, 0).code(), None);
        world.assert_empty();
    }
    let codes: Vec<_> = (0..6)
        .map(|n| world.request(&mut Client::new(&world, n, "bob"), ALLOCATE, &[&udp(), &EvenPort::new(false)]).code())
        .collect();
    assert_eq!(codes, [None, None, None, None, None, Some(508)], "five of ten are even");
    for n in 6..11 {
        assert_eq!(world.allocate(&mut Client::new(&world, n, "bob")).port() % 2, 1);
    }
}

#[test]
fn the_next_port_waits_for_its_token() {
    let mut world = few(50_000..=50_003);
    let (mut rtp, mut rtcp) = (Client::new(&world, 1, "alice"), Client::new(&world, 2, "alice"));
    let answer = world.request(&mut rtp, ALLOCATE, &[&udp(), &EvenPort::new(true)]);
    let (port, token) = (answer.relayed()[0].port(), token(&answer).expect("a token"));
    assert_eq!(port % 2, 0);
    rtp.transaction -= 1;
    assert_eq!(world.request(&mut rtp, ALLOCATE, &[&udp(), &EvenPort::new(true)]).0, answer.0, "the same token again");
    let mut eve = Client::new(&world, 3, "eve");
    assert_eq!(
        world.request(&mut eve, ALLOCATE, &[&udp(), &ReservationToken::new(token)]).code(),
        Some(508),
        "hers not"
    );
    assert_eq!(world.request(&mut rtcp, ALLOCATE, &[&udp(), &ReservationToken::new(token ^ 1)]).code(), Some(508));
    let others: BTreeSet<u16> = (4..6).map(|n| world.allocate(&mut Client::new(&world, n, "bob")).port()).collect();
    assert!(!others.contains(&(port + 1)));
    let answer = world.request(&mut rtcp, ALLOCATE, &[&udp(), &ReservationToken::new(token)]);
    assert_eq!(answer.relayed(), [SocketAddr::new(relay_v4(), port + 1)]);
    assert_eq!(world.bind(&mut rtcp, 0x4000, peer(1)), None);
    world.send_on(&rtcp, 0x4000, b"x");
    assert_eq!(world.sent_to_peers()[0].0.port(), port + 1);
    assert_eq!(
        world.request(&mut Client::new(&world, 7, "alice"), ALLOCATE, &[&udp(), &ReservationToken::new(token)]).code(),
        Some(508),
        "good once"
    );
    world.wait_s(601);
    world.assert_empty();
}

#[test]
fn a_token_is_good_for_thirty_seconds() {
    let mut world = few(50_000..=50_001);
    let (mut rtp, mut late) = (Client::new(&world, 1, "alice"), Client::new(&world, 2, "alice"));
    let answer = world.request(&mut rtp, ALLOCATE, &[&udp(), &EvenPort::new(true)]);
    let token = ReservationToken::new(token(&answer).expect("a token"));
    assert_eq!(world.refresh(&mut rtp, 0).code(), None);
    world.wait(Duration::from_millis(29_999));
    let odd = Client::new(&world, 3, "bob");
    assert_eq!(world.allocate(&mut odd.clone()).port(), 50_000, "the odd one still waits");
    world.wait(Duration::from_millis(1));
    assert_eq!(world.request(&mut late, ALLOCATE, &[&udp(), &token]).code(), Some(508));
    assert_eq!(world.allocate(&mut late).port(), 50_001);
}

/// Reservations are bounded, and a pair is never torn.
#[test]
fn reservations_are_few() {
    let mut world = World::new();
    let mut made = 0;
    for n in 0..200 {
        let mut client = Client::new(&world, n, "alice");
        let answer = world.request(&mut client, ALLOCATE, &[&udp(), &EvenPort::new(true)]);
        match answer.code() {
            None => made += 1,
            code => assert_eq!(code, Some(508)),
        }
        world.refresh(&mut client, 0);
    }
    assert_eq!(made, 64);
    world.wait_s(31);
    world.assert_empty();
    let mut world = few(50_001..=50_002);
    let mut alice = Client::new(&world, 1, "alice");
    let answer = world.request(&mut alice, ALLOCATE, &[&udp(), &EvenPort::new(true)]);
    assert_eq!(answer.code(), Some(508), "there is no port after 50,002");
    world.ports.busy.insert(SocketAddr::new(relay_v4(), 50_003));
    let mut world = few(50_002..=50_003);
    world.ports.busy.insert(SocketAddr::new(relay_v4(), 50_003));
    assert_eq!(world.request(&mut alice, ALLOCATE, &[&udp(), &EvenPort::new(true)]).code(), Some(508));
    world.assert_empty();
}

/// Workers share the ports: none is given out twice, all know whose each is, and a token is good at any of them.
#[test]
fn workers_share_the_ports() {
    let shared = Settings { relay_ports: RelayPorts::new(&[relay_v4()], 50_000..=50_009), ..settings() };
    let mut worlds = [0, 1, 2].map(|worker| World::with(Settings { worker, ..shared.clone() }));
    let mut clients: Vec<Client> = (0..10).map(|n| Client::new(&worlds[0], n, &format!("user {n}"))).collect();
    let mut relays = BTreeMap::new();
    for (n, client) in clients.iter_mut().enumerate().take(8) {
        relays.insert(worlds[n % 3].allocate(client), n % 3);
    }
    assert_eq!(relays.len(), 8, "each got another");
    for world in &worlds {
        for port in 49_999..=50_010 {
            let address = SocketAddr::new(relay_v4(), port);
            assert_eq!(world.turn.owner(address), relays.get(&address).copied(), "{address}");
        }
        assert_eq!(world.turn.owner(SocketAddr::new(relay_v6(), 50_000)), None);
    }
    for (n, client) in clients.iter_mut().enumerate().take(8) {
        worlds[n % 3].refresh(client, 0);
    }
    let answer = worlds[0].request(&mut clients[8], ALLOCATE, &[&udp(), &EvenPort::new(true)]);
    let token = ReservationToken::new(token(&answer).expect("a token"));
    let mut late = Client::new(&worlds[2], 20, "user 8");
    let redeemed = worlds[2].request(&mut late, ALLOCATE, &[&udp(), &token]).relayed();
    assert_eq!(redeemed[0].port(), answer.relayed()[0].port() + 1);
    assert_eq!([0, 1, 2].map(|n| worlds[n].turn.owner(redeemed[0])), [Some(2); 3]);
}

#[test]
fn a_token_of_another_length() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let short = RawAttribute::new(ReservationToken::TYPE, &[0; 7]);
    assert_eq!(world.request(&mut alice, ALLOCATE, &[&udp(), &short]).code(), Some(400));
}
