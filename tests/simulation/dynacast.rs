//! Dynacast: cameras send what somebody wants, and begin again at once when somebody does.

use std::time::Duration;

use parlour::sfu::{Negotiation, Quality, TrackSettings};

use crate::client::{Request, Setup};
use crate::room::{check_streams, enter, setup, three_v1};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// A tile so high; 0: not on screen.
fn show(world: &mut World, viewer: usize, publisher: usize, height: u32) {
    let track = world.clients[publisher].tracks[1].sid.clone().expect("published");
    let (disabled, width) = (height == 0, height * 16 / 9);
    let settings = TrackSettings { disabled, quality: Quality::High, width, height, fps: 0, priority: 0 };
    world.clients[viewer].outbox.push(Request::Settings { track, settings });
}

/// Three who have found out what their networks carry.
fn three() -> World {
    let mut world = three_v1();
    world.run(5 * SECOND);
    assert_eq!(told(&world, 0), [], "everything is wanted");
    world
}

fn told(world: &World, publisher: usize) -> Vec<Option<Quality>> {
    world.clients[publisher].diary.qualities.iter().map(|(_, _, highest)| *highest).collect()
}

fn layer(world: &World, viewer: usize, publisher: usize) -> u8 {
    world.clients[viewer].diary.video(publisher).play_video(world.now).last_layer
}

/// Bytes that reach the server in the next second.
fn inbound(world: &mut World) -> u64 {
    let before = world.sfu.counts().bytes_received;
    world.run(SECOND);
    world.sfu.counts().bytes_received - before
}

#[test]
fn who_is_alone_sends_nothing_until_somebody_comes() {
    let mut world = World::new(31);
    let alice = enter(&mut world, "alice", Setup::default());
    world.run(4 * SECOND);
    assert!(inbound(&mut world) > 100_000, "not before somebody had time to come");
    world.run(2 * SECOND);
    assert_eq!(told(&world, alice), [None]);
    assert!(inbound(&mut world) < 20_000, "only sound is left");
    let bob = enter(&mut world, "bob", setup(Negotiation::Single, 32));
    let sees = |w: &World| !w.clients[bob].diary.from(alice, true).is_empty();
    let connected = |w: &World| w.clients[bob].is_connected();
    world.run_until(connected, 5 * SECOND).expect("connects");
    let took = world.run_until(sees, 5 * SECOND).expect("sees");
    assert!(took < SECOND, "{took:?}");
    world.run(2 * SECOND);
    assert_eq!(told(&world, alice), [None, Some(Quality::High)]);
    assert_eq!(layer(&world, bob, alice), 2);
    check_streams(&world, Duration::from_millis(300));
}

#[test]
fn layers_that_nobody_wants_stop_and_come_back() {
    let mut world = three();
    show(&mut world, 1, 0, 180);
    world.run(7 * SECOND);
    assert_eq!(told(&world, 0), [], "carol wants the best");
    let (all, before) = (inbound(&mut world), world.now);
    show(&mut world, 2, 0, 360);
    world.run(4 * SECOND);
    assert_eq!(told(&world, 0), [], "she may change her mind");
    world.run(2 * SECOND);
    assert_eq!(told(&world, 0), [Some(Quality::Medium)]);
    show(&mut world, 2, 0, 180);
    world.run(6 * SECOND);
    assert_eq!(told(&world, 0), [Some(Quality::Medium), Some(Quality::Low)]);
    assert!(inbound(&mut world) < all * 80 / 100);
    assert_eq!((layer(&world, 1, 0), layer(&world, 2, 0)), (0, 0));
    assert!(world.now > before);
    // Up at once, and only for the one who asked.
    show(&mut world, 2, 0, 720);
    let best = world.run_until(|w| layer(w, 2, 0) == 2, 3 * SECOND).expect("the best layer");
    assert!(best < SECOND, "{best:?}");
    assert_eq!(told(&world, 0)[2..], [Some(Quality::High)]);
    assert_eq!(layer(&world, 1, 0), 0);
    check_streams(&world, Duration::from_millis(300));
}

#[test]
fn a_camera_on_nobodys_screen_is_off() {
    let mut world = three();
    show(&mut world, 1, 0, 0);
    show(&mut world, 2, 0, 0);
    world.run(6 * SECOND);
    assert_eq!(told(&world, 0), [None]);
    let shown = world.clients[1].diary.video(0).play_video(world.now);
    show(&mut world, 1, 0, 720);
    let frames = |w: &World| w.clients[1].diary.video(0).play_video(w.now).frames;
    let took = world.run_until(|w| frames(w) > shown.frames, 3 * SECOND).expect("a picture");
    assert!(took < SECOND, "{took:?}");
    world.run(2 * SECOND);
    assert_eq!(layer(&world, 1, 0), 2);
    assert_eq!(told(&world, 0), [None, Some(Quality::High)]);
    // Who leaves wants nothing any more.
    world.leave(1);
    world.run(6 * SECOND);
    assert_eq!(told(&world, 0)[2..], [None]);
}

/// Tiles that come and go, as when somebody scrolls, cost nobody a keyframe.
#[test]
fn scrolling_is_not_passed_on() {
    let mut world = three();
    for n in 0..20 {
        for viewer in [1, 2] {
            show(&mut world, viewer, 0, if n % 2 == 0 { 0 } else { 720 });
        }
        world.run(SECOND);
    }
    assert_eq!(told(&world, 0), []);
}

#[test]
fn who_was_away_is_told_again() {
    let mut world = three();
    show(&mut world, 1, 0, 180);
    show(&mut world, 2, 0, 180);
    world.run(6 * SECOND);
    assert_eq!(told(&world, 0), [Some(Quality::Low)]);
    let (now, id) = (world.clock(), world.clients[0].id);
    world.sfu.signal_lost(now, id);
    world.run(SECOND);
    let now = world.clock();
    world.sfu.signal_resumed(now, id);
    world.run(SECOND);
    assert_eq!(told(&world, 0), [Some(Quality::Low); 2]);
}
