//! Rooms that forward the loudest microphones only.

use std::time::Duration;

use parlour::sfu::{Negotiation, RoomOptions};

use crate::client::Source;
use crate::room::{all_connected, check_streams, setup};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn speak(world: &mut World, speaker: usize, on: bool) {
    let Source::Microphone(microphone) = &mut world.clients[speaker].tracks[0].source else { panic!("a microphone") };
    microphone.level = if on { -20 } else { -70 };
}

/// Whose audio the listener got in the next second.
fn heard(world: &mut World, listener: usize) -> Vec<usize> {
    let since = world.now;
    world.run(SECOND);
    let packets = |publisher: &usize| {
        let streams = world.clients[listener].diary.from(*publisher, false);
        streams.iter().flat_map(|s| &s.packets).filter(|p| p.at > since + Duration::from_millis(100)).count()
    };
    (0..world.clients.len()).filter(|publisher| packets(publisher) > 0).collect()
}

#[test]
fn only_those_who_spoke_last_are_heard() {
    let mut world = World::with_options(41, RoomOptions { forward_loudest: 2, ..RoomOptions::default() });
    for (n, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let client = world.join_with(name, setup(Negotiation::Single, 41 + n as u64));
        let now = world.now;
        world.clients[client].publish_microphone(now);
    }
    world.run_until(all_connected, 5 * SECOND).expect("all connect");
    world.run(2 * SECOND);
    let places = heard(&mut world, 0).len() + usize::from(heard(&mut world, 1).contains(&0));
    assert!(places <= 2, "{places} are heard");
    for (before, speaker) in [(None, 3), (Some(3), 4), (Some(4), 2), (Some(2), 3)] {
        if let Some(before) = before {
            speak(&mut world, before, false);
            world.run(3 * SECOND);
        }
        speak(&mut world, speaker, true);
        let now = world.now;
        let begins = |w: &World| {
            let streams = w.clients[1].diary.from(speaker, false);
            streams.iter().flat_map(|s| &s.packets).any(|p| p.at > now)
        };
        let took = world.run_until(begins, SECOND).expect("heard");
        assert!(took < Duration::from_millis(120), "{speaker} after {took:?}");
        let others = heard(&mut world, 1);
        assert!(others.contains(&speaker) && others.len() <= 2, "{others:?}");
    }
    // Nothing of it shows in the streams: no holes, no broken clock.
    check_streams(&world, 60 * SECOND);
}
