//! The first picture: out of the cache when the last keyframe is at hand, from the publisher when it is not.

use std::time::Duration;

use parlour::sfu::{Negotiation, Quality, TrackSettings};

use crate::client::{Request, Setup};
use crate::network::Conditions;
use crate::room::{all_connected, all_see_all, check_streams, enter, setup, three, three_v1};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
/// From the server to a client and a timer's grain: what arrives so soon was not asked of the publisher first.
const ONE_WAY: Duration = Duration::from_millis(30);

fn asked(world: &World) -> u64 {
    world.sfu.counts().keyframes_requested
}

fn frames(world: &World, viewer: usize) -> usize {
    world.clients[viewer].diary.from(0, true).iter().map(|s| s.play_video(world.now).frames).sum()
}

#[test]
fn a_joiner_is_shown_the_last_picture_at_once() {
    for negotiation in [Negotiation::Single, Negotiation::Dual] {
        let mut world = three([1, 2, 3].map(|seed| setup(negotiation, seed)));
        // Until everybody's network is known and shows the best layers.
        world.run(SECOND);
        let before = asked(&world);
        let dave = world.join_with("dave", setup(negotiation, 4));
        world.run_until(all_connected, 2 * SECOND).expect("connects");
        let sees = |w: &World| (0..3).all(|publisher| !w.clients[dave].diary.from(publisher, true).is_empty());
        world.run_until(sees, ONE_WAY).unwrap_or_else(|| panic!("{negotiation:?}: a picture of everybody"));
        assert_eq!(asked(&world), before, "{negotiation:?}: no publisher was asked");
        world.run(SECOND);
        assert!(world.sfu.counts().pictures_replayed >= 3);
        let first = &world.clients[dave].diary.video(0).packets[0];
        assert!(first.stamp.key && first.stamp.part == 0, "{first:?}");
        check_streams(&world, Duration::from_millis(200));
    }
}

#[test]
fn a_joiner_nearby_waits_for_nothing() {
    let mut world = three_v1();
    world.run(SECOND);
    let conditions = Conditions { latency: Duration::from_millis(1), ..Conditions::GOOD };
    let dave = world.join_with("dave", Setup { conditions, ..setup(Negotiation::Single, 4) });
    world.run_until(all_connected, 2 * SECOND).expect("connects");
    let sees = |w: &World| (0..3).all(|publisher| !w.clients[dave].diary.from(publisher, true).is_empty());
    world.run_until(sees, Duration::from_millis(30)).expect("a picture of everybody");
}

#[test]
fn an_old_picture_is_not_shown() {
    let mut world = three_v1();
    world.run(10 * SECOND);
    let (before, replayed) = (asked(&world), world.sfu.counts().pictures_replayed);
    enter(&mut world, "dave", setup(Negotiation::Single, 4));
    world.run_until(all_see_all, 3 * SECOND).expect("all see all");
    world.run(SECOND);
    let counts = world.sfu.counts();
    assert_eq!(counts.pictures_replayed, replayed);
    assert!(counts.keyframes_requested >= before + 3, "everybody was asked");
    check_streams(&world, Duration::from_millis(200));
}

#[test]
fn a_video_that_is_shown_again_goes_on_at_once() {
    let mut world = three_v1();
    let track = world.clients[0].tracks[1].sid.clone().expect("published");
    let settings =
        |disabled| TrackSettings { disabled, quality: Quality::High, width: 1280, height: 720, fps: 0, priority: 0 };
    let off_and_on = |world: &mut World, pause: Duration| {
        world.clients[1].outbox.push(Request::Settings { track: track.clone(), settings: settings(true) });
        world.run(pause);
        let before = (asked(world), frames(world, 1));
        world.clients[1].outbox.push(Request::Settings { track: track.clone(), settings: settings(false) });
        world.run(2 * ONE_WAY);
        (asked(world) - before.0, frames(world, 1) - before.1)
    };
    // Until everybody has the best layer, whose keyframe somebody has to be asked for.
    world.run(SECOND / 2);
    let (requests, shown) = off_and_on(&mut world, SECOND / 2);
    assert_eq!(requests, 0, "out of the cache");
    assert!(shown > 5, "{shown} frames: all since the keyframe");
    world.run(5 * SECOND);
    assert_eq!(off_and_on(&mut world, SECOND / 2).0, 1, "the keyframe is too old");
    world.run(SECOND);
    let video = world.clients[1].diary.video(0);
    let playback = video.play_video(world.now);
    assert!(playback.broken == 0 && playback.longest_gap < SECOND, "{playback:?}");
    // What was sent again takes no time on the media clock: sound and picture stay together.
    let ends = [0, video.packets.len() - 1].map(|n| &video.packets[n]);
    let shown = Duration::from_secs(ends[1].timestamp.wrapping_sub(ends[0].timestamp).into()) / 90_000;
    let drift = shown.abs_diff(ends[1].at - ends[0].at);
    assert!(drift < Duration::from_millis(60), "{drift:?}");
}

/// A decoder that missed a packet of the first keyframe gets it again: from the cache, or as a whole.
#[test]
fn first_pictures_survive_loss() {
    for seed in 1..=6 {
        let mut world = three_v1();
        let conditions = Conditions::lossy(0.1);
        let dave = world.join_with("dave", crate::client::Setup { conditions, ..setup(Negotiation::Single, seed) });
        world.run_until(all_connected, 5 * SECOND).expect("connects");
        world.run(2 * SECOND);
        for publisher in 0..3 {
            let playback = world.clients[dave].diary.video(publisher).play_video(world.now);
            assert!(playback.frames > 20 && playback.longest_gap < SECOND, "seed {seed}: {playback:?}");
            let last = playback.last.expect("frames");
            assert!(world.now - last < SECOND / 2, "seed {seed}: {playback:?}");
        }
    }
}
