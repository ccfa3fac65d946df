//! Bad networks: what is lost is sent again, nobody freezes, and the same seed gives the same call.

use std::time::Duration;

use parlour::sfu::{Negotiation, RoomOptions};
use parlour::transport::Protocol;

use crate::chance::afresh;
use crate::client::Setup;
use crate::network::Conditions;
use crate::room::{all_connected, all_leave, all_see_all, check_streams, enter, setup};
use crate::world::{World, server};

const SECOND: Duration = Duration::from_secs(1);

/// Three people, everybody's network like this, for ten seconds.
fn call(conditions: Conditions, seed: u64, negotiation: Negotiation) -> World {
    let mut world = World::new(seed);
    for (salt, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        enter(&mut world, name, Setup { conditions, ..setup(negotiation, seed * 10 + salt as u64) });
    }
    world.run_until(all_connected, 15 * SECOND).expect("all connect");
    world.run_until(all_see_all, 10 * SECOND).expect("all see all");
    world.run(10 * SECOND);
    world
}

fn longest_freeze(world: &World) -> Duration {
    // What was lost last may be on its way still.
    let until = world.now - SECOND;
    let mut longest = Duration::ZERO;
    for client in &world.clients {
        for publisher in (0..3).filter(|p| *p != usize::from(client.index)) {
            let playback = client.diary.video(publisher).play_video(until);
            assert!(playback.frames > 150, "{} of {publisher}: {playback:?}", client.name);
            longest = longest.max(playback.longest_gap);
        }
    }
    longest
}

#[test]
fn two_percent_lost() {
    for (seed, negotiation) in [(1, Negotiation::Single), (2, Negotiation::Dual)] {
        let freeze = longest_freeze(&call(Conditions::lossy(0.02), seed, negotiation));
        assert!(freeze <= Duration::from_millis(500), "seed {seed}: {freeze:?}");
    }
}

#[test]
fn ten_percent_lost() {
    for seed in 3..6 {
        let freeze = longest_freeze(&call(Conditions::lossy(0.1), seed, Negotiation::Single));
        assert!(freeze <= SECOND, "seed {seed}: {freeze:?}");
    }
}

#[test]
fn reordered_and_late() {
    let conditions = Conditions {
        latency: Duration::from_millis(80),
        jitter: Duration::from_millis(30),
        loss: 0.01,
        reorder_every: 5,
        rate: 0,
    };
    let freeze = longest_freeze(&call(conditions, 6, Negotiation::Single));
    assert!(freeze <= Duration::from_millis(700), "{freeze:?}");
}

#[test]
fn one_bad_line_disturbs_nobody_else() {
    let mut world = World::new(7);
    for (salt, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let conditions = if salt == 2 { Conditions::lossy(0.1) } else { Conditions::GOOD };
        enter(&mut world, name, Setup { conditions, ..setup(Negotiation::Single, 70 + salt as u64) });
    }
    world.run_until(all_connected, 15 * SECOND).expect("all connect");
    world.run_until(all_see_all, 10 * SECOND).expect("all see all");
    world.run(10 * SECOND);
    for (viewer, publisher) in [(0, 1), (1, 0)] {
        let playback = world.clients[viewer].diary.video(publisher).play_video(world.now);
        assert!(playback.longest_gap <= Duration::from_millis(100), "{playback:?}");
    }
}

/// A NAT forgets a mapping and makes another: the client notices nothing, we see it at a new address.
#[test]
fn a_client_moves_behind_its_nat() {
    for negotiation in [Negotiation::Single, Negotiation::Dual] {
        let mut world = World::new(11);
        for (salt, name) in ["alice", "bob"].into_iter().enumerate() {
            enter(&mut world, name, setup(negotiation, 110 + salt as u64));
        }
        world.run_until(all_connected, 5 * SECOND).expect("all connect");
        world.run_until(all_see_all, 3 * SECOND).expect("all see all");
        world.run(2 * SECOND);
        let client = &mut world.clients[0];
        for peer in [Some(&mut client.publisher), client.subscriber.as_mut()].into_iter().flatten() {
            peer.public.set_port(peer.public.port() + 1);
        }
        world.run(12 * SECOND);
        for (viewer, publisher) in [(0, 1), (1, 0)] {
            let playback = world.clients[viewer].diary.video(publisher).play_video(world.now);
            assert!(world.now - playback.last.expect("some") < SECOND / 2, "{viewer} sees {publisher} again");
            assert!(playback.longest_gap < 6 * SECOND, "{viewer} sees {publisher}: {playback:?}");
        }
        assert!(world.clients.iter().all(|c| c.left.is_none()));
    }
}

#[test]
fn one_of_our_addresses_is_not_reached() {
    let lan = std::net::SocketAddr::from(([192, 168, 1, 1], 3478));
    for order in [[lan, server(Protocol::Udp)], [server(Protocol::Udp), lan]] {
        let addresses = order.map(|address| (Protocol::Udp, address)).to_vec();
        let mut world = World::with_addresses(12, RoomOptions::default(), addresses);
        world.unreachable = vec![lan];
        for (salt, name) in ["alice", "bob"].into_iter().enumerate() {
            enter(&mut world, name, setup(Negotiation::Single, 120 + salt as u64));
        }
        world.run_until(all_connected, 5 * SECOND).expect("all connect");
        world.run_until(all_see_all, 3 * SECOND).expect("all see all");
        world.run(2 * SECOND);
        check_streams(&world, Duration::from_millis(200));
    }
}

#[test]
fn over_tcp() {
    let mut world = World::new(8);
    for (salt, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let protocol = if salt == 1 { Protocol::Udp } else { Protocol::Tcp };
        enter(&mut world, name, Setup { protocol, ..setup(Negotiation::Single, 80 + salt as u64) });
    }
    world.run_until(all_connected, 5 * SECOND).expect("all connect");
    world.run_until(all_see_all, 3 * SECOND).expect("all see all");
    world.run(3 * SECOND);
    check_streams(&world, Duration::from_millis(200));
    all_leave(&mut world);
}

#[test]
fn the_same_seed_is_the_same_call() {
    let digest = |seed| afresh(move || call(Conditions::lossy(0.05), seed, Negotiation::Single).digest());
    assert_eq!(digest(9), digest(9));
    assert_ne!(digest(9), digest(10));
}
