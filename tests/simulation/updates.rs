//! Who comes to a large room: everybody hears of everybody, in groups, and at once of those who publish.

use std::time::Duration;

use crate::client::Setup;
use crate::room::{enter, setup};
use crate::world::World;
use parlour::sfu::{Negotiation, ParticipantState};

const GUESTS: usize = 60;
/// Fifty a second.
const BETWEEN: Duration = Duration::from_millis(20);

#[test]
fn a_large_room_hears_of_newcomers_in_groups() {
    let mut world = World::new(5);
    for n in 0..GUESTS {
        world.join_with(&format!("guest{n}"), Setup { seed: n as u64 + 1, ..Setup::default() });
        world.run(BETWEEN);
    }
    world.run(Duration::from_secs(2));
    for client in &world.clients {
        assert_eq!(client.known.len(), GUESTS, "{} knows everybody", client.name);
        assert!(
            client.known.values().all(|info| info.state == ParticipantState::Active),
            "{}: as they are",
            client.name
        );
    }
    // One by one it would be two for each of the others: that it joined, and that it is connected.
    let [first, last] = [0, GUESTS - 1].map(|n| world.clients[n].updates);
    assert!(first < GUESTS, "{first} messages to the first");
    assert!(last < 12, "{last} messages to the last");
}

#[test]
fn a_publisher_is_told_of_at_once() {
    let mut world = World::new(5);
    for n in 0..GUESTS {
        world.join_with(&format!("guest{n}"), Setup { seed: n as u64 + 1, ..Setup::default() });
    }
    world.run(Duration::from_secs(2));
    let speaker = enter(&mut world, "speaker", setup(Negotiation::Single, 100));
    let heard = |world: &World| {
        let knows =
            |n: usize| world.clients[n].known.values().any(|info| info.name == "SPEAKER" && !info.tracks.is_empty());
        (0..GUESTS).all(knows)
    };
    let connected =
        world.run_until(|world| world.clients[speaker].is_connected(), Duration::from_secs(5)).expect("connects");
    let told = world.run_until(heard, Duration::from_secs(5)).expect("everybody hears");
    assert!(told < Duration::from_millis(150), "{told:?} after {connected:?}");
    // Who leaves before anybody was told of it is no ghost.
    let brief = world.join_with("brief", Setup { seed: 200, ..Setup::default() });
    world.leave(brief);
    world.run(Duration::from_secs(1));
    let ghost = |n: usize| {
        world.clients[n].known.values().any(|i| i.name == "BRIEF" && i.state != ParticipantState::Disconnected)
    };
    assert!(!(0..GUESTS).any(ghost));
}
