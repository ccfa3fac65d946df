//! One client of the v1 dialect, alone.

use std::time::Duration;

use parlour::sfu::Verdict;

use crate::world::World;

#[test]
fn one_client_connects_and_publishes() {
    let mut world = World::new(1);
    let alice = world.join("alice");
    let now = world.now;
    world.clients[alice].publish_microphone(now);
    world.clients[alice].publish_camera(now, true);
    let took = world.run_until(|w| w.clients[alice].verdict.is_some(), Duration::from_secs(10));
    assert!(
        matches!(world.clients[alice].verdict, Some(Verdict::Connected { .. })),
        "{:?}",
        world.clients[alice].verdict
    );
    assert!(took.expect("connects") < Duration::from_secs(1));
    world.run(Duration::from_secs(3));
    assert!(world.clients[alice].tracks.iter().all(|t| t.live && t.sid.is_some()));
    let counts = world.sfu.counts();
    assert_eq!((counts.participants, counts.tracks), (1, 2));
    // 50 audio packets and 20 frames of 1 + 2 + 3 packets a second.
    assert!(counts.packets_received > 2 * (50 + 120), "{counts:?}");
    assert_eq!(counts.packets_forwarded, 0);
}
