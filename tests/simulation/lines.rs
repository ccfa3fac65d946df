//! How good everybody's line is, as everybody is told.

use std::time::{Duration, Instant};

use parlour::sfu::{ConnectionQuality, Negotiation};

use crate::client::Setup;
use crate::network::Conditions;
use crate::room::{all_connected, enter, setup, three, three_v1};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// What `listener` was told of `subject` since then, in order.
fn told(world: &World, listener: usize, subject: usize, since: Instant) -> Vec<ConnectionQuality> {
    let sid = world.sfu.info(world.clients[subject].id).expect("there").sid;
    let lines = &world.clients[listener].diary.lines;
    lines.iter().filter(|(at, line)| *at >= since && line.participant == sid).map(|(_, line)| line.quality).collect()
}

fn last(world: &World, listener: usize, subject: usize) -> Option<ConnectionQuality> {
    told(world, listener, subject, world.now - 600 * SECOND).last().copied()
}

fn set(world: &mut World, index: usize, up: Conditions, down: Conditions) {
    let client = &mut world.clients[index];
    client.publisher.uplink.set(up, 1);
    client.publisher.downlink.set(down, 2);
    if let Some(subscriber) = &mut client.subscriber {
        subscriber.uplink.set(up, 3);
        subscriber.downlink.set(down, 4);
    }
}

#[test]
fn clean_lines_are_excellent() {
    for negotiation in [Negotiation::Single, Negotiation::Dual] {
        let mut world = three([1, 2, 3].map(|seed| setup(negotiation, seed)));
        let since = world.now;
        world.run(30 * SECOND);
        for (listener, subject) in (0..9).map(|n| (n / 3, n % 3)) {
            let told = told(&world, listener, subject, since);
            assert_eq!(told, [ConnectionQuality::Excellent], "{listener} of {subject}, once");
        }
        // Who comes later is told of all.
        let dave = enter(&mut world, "dave", setup(negotiation, 4));
        world.run(15 * SECOND);
        assert!((0..4).all(|subject| last(&world, dave, subject) == Some(ConnectionQuality::Excellent)));
    }
}

#[test]
fn losses_show_in_either_direction() {
    let lossy = Conditions::lossy(0.1);
    for (up, down) in [(lossy, Conditions::GOOD), (Conditions::GOOD, lossy)] {
        let mut world = three_v1();
        world.run(10 * SECOND);
        set(&mut world, 2, up, down);
        world.run(20 * SECOND);
        for listener in 0..3 {
            let quality = last(&world, listener, 2);
            let expected = [Some(ConnectionQuality::Good), Some(ConnectionQuality::Poor)];
            assert!(expected.contains(&quality), "{listener} is told {quality:?}");
            assert_eq!(last(&world, listener, 0), Some(ConnectionQuality::Excellent), "of the others");
        }
        set(&mut world, 2, Conditions::GOOD, Conditions::GOOD);
        world.run(30 * SECOND);
        assert_eq!(last(&world, 0, 2), Some(ConnectionQuality::Excellent), "recovers");
    }
}

#[test]
fn a_narrow_line_is_not_excellent() {
    let mut world = World::new(71);
    for (salt, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let conditions = if salt == 2 { Conditions::narrow(250_000) } else { Conditions::GOOD };
        enter(&mut world, name, Setup { conditions, ..setup(Negotiation::Single, 71 + salt as u64) });
    }
    world.run_until(all_connected, 15 * SECOND).expect("all connect");
    world.run(30 * SECOND);
    assert!(last(&world, 0, 2).is_some_and(|quality| quality < ConnectionQuality::Excellent));
    assert_eq!(last(&world, 0, 1), Some(ConnectionQuality::Excellent));
}

#[test]
fn a_dead_line_is_lost_and_found_again() {
    let mut world = three_v1();
    world.run(10 * SECOND);
    set(&mut world, 2, Conditions::lossy(1.0), Conditions::lossy(1.0));
    let since = world.now;
    world.run(13 * SECOND);
    assert_eq!(last(&world, 0, 2), Some(ConnectionQuality::Lost));
    set(&mut world, 2, Conditions::GOOD, Conditions::GOOD);
    world.run(30 * SECOND);
    assert_eq!(world.clients[2].left, None);
    let told = told(&world, 0, 2, since);
    let after: Vec<_> = told.iter().skip_while(|quality| **quality != ConnectionQuality::Lost).collect();
    assert!(after.is_sorted() && after.last() == Some(&&ConnectionQuality::Excellent), "step by step: {told:?}");
}
