//! Many who have proved nothing.

use stun_types::message::BINDING;

use super::*;

fn route_of(n: u32) -> Route {
    let client = SocketAddr::from(([100, 64 + (n >> 16) as u8, (n >> 8) as u8, n as u8], 1024 + (n % 5000) as u16));
    Route { protocol: Protocol::Udp, source: server(), destination: client }
}

#[test]
fn twenty_thousand_sources_are_not_remembered() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    world.allocate(&mut alice);
    let slots = world.turn.allocations.slots();
    let request = unsigned(ALLOCATE, 1, &[&udp()]);
    let mut eve = Client { nonce: "x".repeat(24), ..Client::new(&world, 1, "eve") };
    let forged = eve.signed(ALLOCATE, &[&udp()]);
    let refused = world.counts().refused().map(|(_, count)| count).sum::<u64>();
    for n in 0..20_000 {
        for message in [&request, &forged] {
            world.turn.receive(world.now, route_of(n), message, &mut world.ports);
        }
        world.turn.receive(world.now, route_of(n), &unsigned(BINDING, 1, &[]), &mut world.ports);
        world.turn.receive(world.now, route_of(n), &channel_data(0x4000, b"x"), &mut world.ports);
        world.turn.to_clients().clear();
        world.advance(Duration::from_micros(75));
    }
    assert_eq!(world.turn.allocations.slots(), slots);
    assert_eq!((world.counts().allocations, world.quotas.allocations()), (1, 1));
    assert_eq!(world.turn.allocations.armed(), 1);
    // All answers together are limited, too, and those of the two kinds apart.
    let answered = world.counts().refused().map(|(_, count)| count).sum::<u64>() - refused;
    assert!(answered > 1000 && answered + world.counts().bindings + world.dropped(Dropped::Unanswered) == 60_000);
    assert!(world.dropped(Dropped::Unanswered) > 20_000, "1.5 seconds at 5,000 a second are 7,500 of each");
    assert_eq!(world.refresh(&mut alice, 600).code(), None, "who has an allocation does not notice");
}

#[test]
fn one_source_gets_few_answers() {
    let mut world = World::new();
    let alice = Client::new(&world, 1, "alice");
    let answers =
        |world: &mut World, message: &[u8]| (0..1000).map(|_| world.receive(&alice, message).len()).sum::<usize>();
    let challenges = answers(&mut world, &unsigned(ALLOCATE, 1, &[&udp()]));
    assert!((400..=401).contains(&challenges), "{challenges}");
    let bindings = answers(&mut world, &unsigned(BINDING, 1, &[]));
    assert!((100..=101).contains(&bindings), "{bindings}");
    world.advance(Duration::from_secs(1));
    let challenges = answers(&mut world, &unsigned(ALLOCATE, 1, &[&udp()]));
    assert!((199..=201).contains(&challenges), "{challenges}");
    // By another port it is the same source.
    let other = Client {
        route: Route { destination: SocketAddr::new(alice.route.destination.ip(), 5), ..alice.route },
        ..alice.clone()
    };
    assert!(world.receive(&other, &unsigned(ALLOCATE, 1, &[])).is_empty());
}

/// On a stream the source is no forgery, and a client does not ask again.
#[test]
fn streams_are_always_answered() {
    let mut world = World::new();
    let alice = Client::at(&world, Route { protocol: Protocol::Tcp, ..route(1) }, "alice");
    for _ in 0..1000 {
        assert_eq!(world.ask(&alice, &unsigned(ALLOCATE, 1, &[])).code(), Some(401));
    }
}

#[test]
fn an_allocation_is_small() {
    use super::super::allocation::{Allocation, Channel, Permission};
    let usual = size_of::<Allocation>() + 4 * size_of::<Permission>() + 4 * size_of::<Channel>();
    // Beside it: its places in the tables of routes, ports and deadlines, and the name of the user.
    assert!(usual < 1500, "{usual} bytes");
}

/// However many there are, a worker wakes for them once a second, and each ends on time.
#[test]
fn many_allocations_wake_once_a_second() {
    let quotas = Quotas::new(QuotaLimits { per_user: 5000, per_address: 5000, all: 5000, ..quota_limits() });
    let mut world = World::with(Settings { quotas, ..settings() });
    for n in 0..3000 {
        let mut client = Client::new(&world, n, "alice");
        world.allocate(&mut client);
        world.advance(Duration::from_millis(1));
    }
    let mut wakes = Vec::new();
    while let Some(due) = world.turn.next_timeout() {
        world.advance(due.saturating_duration_since(world.now.instant));
        wakes.push(world.now.instant);
        world.turn.handle_timeout(world.now, &mut world.ports);
    }
    assert!(wakes.len() <= 5, "{}", wakes.len());
    assert!(wakes.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(1)));
    world.assert_empty();
}
