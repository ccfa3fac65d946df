//! Those who only listen, when nobody speaks, cost next to nothing.

use std::time::Duration;

use crate::client::Setup;
use crate::room::all_connected;
use crate::world::World;

const PARTICIPANTS: u64 = 200;
const SECONDS: u64 = 10;

#[test]
fn idle_participants_sleep() {
    let mut world = World::new(3);
    for n in 0..PARTICIPANTS {
        world.join_with(&format!("p{n}"), Setup { seed: n + 1, ..Setup::default() });
    }
    world.run_until(all_connected, Duration::from_secs(10)).expect("all connect");
    world.run(Duration::from_secs(2));
    let before = world.sfu.counts();
    world.run(Duration::from_secs(SECONDS));
    let after = world.sfu.counts();
    let each = |count: u64| count as f64 / (PARTICIPANTS * SECONDS) as f64;
    // ICE consent, RTCP and SCTP have timers of their own; nothing walks over everybody.
    let wakeups = each(after.wakeups - before.wakeups);
    assert!(wakeups < 1.0, "{wakeups} a second and participant");
    let sent = each(after.packets_sent - before.packets_sent);
    assert!(sent < 1.0, "{sent} packets a second and participant");
}
