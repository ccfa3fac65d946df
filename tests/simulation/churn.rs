//! Coming and going in great numbers: afterwards nothing is left, nothing ticks, and nobody who stayed noticed.

use std::time::Duration;

use parlour::sfu::{LeaveReason, Negotiation};

use crate::client::Request;
use crate::room::{all_connected, all_leave, all_see_all, enter, setup};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const GUESTS: u64 = 10_000;
/// Of so many guests one comes with a whole WebRTC client; the others offer, and vanish.
const WHOLE: u64 = 100;

#[test]
fn ten_thousand_come_and_go() {
    let mut world = World::new(21);
    for (name, seed) in [("alice", 1), ("bob", 2)] {
        enter(&mut world, name, setup(Negotiation::Single, seed));
    }
    world.run_until(all_connected, 5 * SECOND).expect("connect");
    world.run_until(all_see_all, 3 * SECOND).expect("see each other");
    let offer = {
        let probe = enter(&mut world, "probe", setup(Negotiation::Single, 3));
        let Some(Request::Offer { sdp, .. }) = world.clients[probe].outbox.first().cloned() else { panic!("an offer") };
        world.leave(probe);
        world.run(SECOND);
        sdp
    };
    let settled = world.sfu.counts();
    for round in 0..GUESTS {
        let negotiation = if round % 3 == 0 { Negotiation::Dual } else { Negotiation::Single };
        if round % WHOLE == 0 {
            let guest = enter(&mut world, "guest", setup(negotiation, 100 + round));
            world.run(Duration::from_millis(13 * (round / WHOLE) % 700));
            match (round / WHOLE) % 3 {
                0 => world.kill(guest),
                _ => world.leave(guest),
            }
            continue;
        }
        let now = world.clock();
        // Every other name comes again, so that sessions are replaced too.
        let guest = world.join_by_hand(&format!("guest{}", round % 50), negotiation);
        world.sfu.offer(now, guest, 1, &offer);
        match round % 4 {
            0 => world.sfu.leave(now, guest, LeaveReason::ClientInitiated),
            1 => world.sfu.signal_lost(now, guest),
            // Stays until it is replaced, or its time to join is over.
            _ => {}
        }
        if round % 10 == 0 {
            world.run(Duration::from_millis(5));
        }
    }
    // Whoever never connected is given up after a minute.
    world.run(90 * SECOND);
    let counts = world.sfu.counts();
    assert_eq!((counts.participants, counts.tracks), (2, 4));
    assert_eq!((counts.routes, counts.tracks), (settled.routes, settled.tracks));
    assert!(counts.timers <= settled.timers + 8, "{} timers, {} before", counts.timers, settled.timers);
    for viewer in [0, 1] {
        assert!(world.clients[viewer].left.is_none());
        let playback = world.clients[viewer].diary.video(1 - viewer).play_video(world.now);
        assert!(playback.longest_gap < SECOND / 5, "{playback:?}");
    }
    all_leave(&mut world);
    let counts = world.sfu.counts();
    assert_eq!((counts.rooms, counts.participants, counts.tracks, counts.routes, counts.timers), (0, 0, 0, 0, 0));
}
