//! A viewer whose network does not carry what everybody sends: what it gets instead, and what when there is room again.

use std::time::{Duration, Instant};

use parlour::sfu::Negotiation;

use crate::client::Setup;
use crate::network::Conditions;
use crate::oracle::Playback;
use crate::room::{all_connected, all_see_all, setup};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// After failed probes the estimator tries again within 6 s; then the allocator wants to see it hold.
const RECOVERY: Duration = Duration::from_secs(12);

/// Client 0 looks on; the others have cameras, the first of them speaks, and the last may show a screen instead.
fn meeting(seed: u64, negotiation: Negotiation, cameras: usize, screen: bool) -> World {
    let mut world = World::new(seed);
    world.join_with("viewer", setup(negotiation, seed));
    for n in 1..=cameras {
        let client = world.join_with(&format!("p{n}"), Setup { seed: seed + n as u64, ..Setup::default() });
        let now = world.now;
        if n == 1 {
            world.clients[client].publish_microphone(now);
        }
        if screen && n == cameras {
            world.clients[client].publish_screen(now);
        } else {
            world.clients[client].publish_camera(now, true);
        }
    }
    world.run_until(all_connected, 5 * SECOND).expect("all connect");
    world.run_until(all_see_all, 5 * SECOND).expect("all see all");
    world
}

/// The viewer's line from now on, towards it.
fn line(world: &mut World, conditions: Conditions) {
    let viewer = &mut world.clients[0];
    let seed = viewer.setup.seed ^ 0x5555;
    viewer.subscriber.as_mut().unwrap_or(&mut viewer.publisher).downlink.set(conditions, seed);
}

/// What the viewer saw of everybody in the last `duration`; `None` = nothing.
fn seen(world: &World, duration: Duration) -> Vec<Option<Playback>> {
    let since = world.now - duration;
    let of = |publisher: usize| {
        let playback = world.clients[0].diary.video(publisher).play_video_since(since, world.now);
        (playback.frames > 0).then_some(playback)
    };
    (1..world.clients.len()).map(of).collect()
}

fn layers(world: &World) -> Vec<Option<u8>> {
    seen(world, SECOND).iter().map(|p| p.map(|p| p.last_layer)).collect()
}

/// Of the speaker: nothing is missing for long in the last `duration`, and no more than a few packets at all.
fn check_audio(world: &World, duration: Duration) {
    let since = world.now - duration;
    let stream = world.clients[0].diary.audio(1);
    let times: Vec<_> = stream.packets.iter().map(|p| p.at).filter(|at| *at > since).collect();
    let expected = duration.as_millis() as usize / 20;
    assert!(times.len() * 100 >= expected * 97, "{} of {expected} packets", times.len());
    let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("some");
    assert!(gap < Duration::from_millis(250), "{gap:?} without sound");
}

/// Looks at every quarter of a second whether it is so, since looking costs as much as decoding; how long it took.
fn wait_for(world: &mut World, done: impl Fn(&World) -> bool, limit: Duration) -> Duration {
    let began = world.now;
    while !done(world) {
        assert!(world.now - began < limit, "{:?}, {} paused", layers(world), paused(world));
        world.run(SECOND / 4);
    }
    world.now - began
}

/// What the viewer was told: how many videos are paused.
fn paused(world: &World) -> usize {
    let mut states = std::collections::BTreeMap::new();
    for (_, track, paused) in &world.clients[0].diary.stream_states {
        states.insert(track.clone(), *paused);
    }
    states.values().filter(|paused| **paused).count()
}

#[test]
fn four_cameras_through_half_a_megabit() {
    for negotiation in [Negotiation::Single, Negotiation::Dual] {
        let mut world = meeting(61, negotiation, 4, false);
        line(&mut world, Conditions::narrow(500_000));
        world.run(10 * SECOND);
        // Settled: everybody's lowest layer fits, and nothing more by much.
        world.run(20 * SECOND);
        let seen = seen(&world, 20 * SECOND);
        for playback in &seen {
            let playback = playback.expect("nobody is paused");
            assert!(playback.longest_gap < SECOND, "{playback:?}");
            assert!(playback.switches <= 2, "{playback:?}");
        }
        let low = layers(&world).iter().filter(|layer| **layer == Some(0)).count();
        assert!(low >= 3, "{:?}", layers(&world));
        check_audio(&world, 20 * SECOND);
        assert_eq!(paused(&world), 0);
        // And back.
        line(&mut world, Conditions::GOOD);
        let best = |w: &World| layers(w) == [Some(2); 4];
        let took = wait_for(&mut world, best, 30 * SECOND);
        assert!(took < RECOVERY, "{took:?}");
    }
}

#[test]
fn one_who_comes_through_a_narrow_line_settles_as_well() {
    let mut world = meeting(62, Negotiation::Single, 4, false);
    let conditions = Conditions::narrow(400_000);
    let late = world.join_with("late", Setup { conditions, seed: 70, ..Setup::default() });
    let connected = |w: &World| w.clients[late].is_connected();
    world.run_until(connected, 5 * SECOND).expect("connects");
    world.run(8 * SECOND);
    let since = world.now;
    world.run(10 * SECOND);
    for publisher in 1..=4 {
        let playback = world.clients[late].diary.video(publisher).play_video_since(since, world.now);
        assert!(playback.frames > 0, "sees {publisher}: {playback:?}");
        assert!(playback.longest_gap < SECOND, "{playback:?}");
    }
}

/// Somebody comes to four cameras through such a line; the client, what it was sent in each quarter of a second of the ten
/// that follow, in bits per second, and when it was connected.
fn newcomer(seed: u64, negotiation: Negotiation, conditions: Conditions) -> (World, usize, Vec<u64>, Instant) {
    let mut world = meeting(seed, Negotiation::Single, 4, false);
    world.run(2 * SECOND);
    let late = world.join_with("late", Setup { negotiation, conditions, seed: seed + 9, ..Setup::default() });
    world.run_until(|w| w.clients[late].is_connected(), 5 * SECOND).expect("connects");
    let (connected, client) = (world.now, &world.clients[late]);
    let address = client.subscriber.as_ref().unwrap_or(&client.publisher).public;
    let mut rates = Vec::new();
    for _ in 0..40 {
        let before = world.sent.get(&address).copied().unwrap_or(0);
        world.run(SECOND / 4);
        rates.push((world.sent[&address] - before) * 8 * 4);
    }
    (world, late, rates, connected)
}

#[test]
fn one_who_comes_sees_the_best_within_a_second() {
    for (seed, negotiation) in [(65, Negotiation::Single), (66, Negotiation::Dual)] {
        let (world, late, ..) = newcomer(seed, negotiation, Conditions::GOOD);
        for publisher in 1..=4 {
            let stream = world.clients[late].diary.video(publisher);
            let begins = stream.packets[0].at;
            let playback = stream.play_video(begins + SECOND);
            assert_eq!(playback.last_layer, 2, "of {publisher}: {playback:?}");
            assert!(playback.longest_gap < SECOND / 5 && playback.switches <= 1, "{playback:?}");
        }
    }
}

#[test]
fn one_who_comes_through_a_narrow_line_is_not_flooded() {
    for (seed, negotiation) in [(67, Negotiation::Single), (68, Negotiation::Dual)] {
        let conditions = Conditions::narrow(500_000);
        let (world, late, rates, connected) = newcomer(seed, negotiation, conditions);
        let flooded = rates.iter().filter(|rate| **rate > conditions.rate * 11 / 10).count();
        assert!(flooded <= 6, "for {} ms: {rates:?}", flooded * 250);
        let settled = rates[20..].iter().max().expect("some");
        assert!(*settled < conditions.rate * 13 / 10, "{settled} while probing: {rates:?}");
        for publisher in 1..=4 {
            let stream = world.clients[late].diary.video(publisher);
            let first = stream.play_video(connected + 3 * SECOND / 2);
            assert!(first.frames > 0, "sees {publisher} within a second and a half");
        }
    }
}

#[test]
fn a_screen_comes_before_cameras() {
    let mut world = meeting(63, Negotiation::Single, 4, true);
    line(&mut world, Conditions::narrow(640_000));
    world.run(12 * SECOND);
    let layers = layers(&world);
    assert_eq!(layers[..3], [Some(0); 3], "cameras");
    assert_eq!(layers[3], Some(1), "the screen");
    check_audio(&world, 5 * SECOND);
    // When not even the lowest layers fit, it is the last to go.
    line(&mut world, Conditions::narrow(140_000));
    world.run(12 * SECOND);
    let layers = self::layers(&world);
    assert_eq!(layers, [None, None, None, Some(0)]);
}

#[test]
fn what_does_not_fit_is_paused_and_comes_back() {
    let mut world = meeting(64, Negotiation::Single, 4, false);
    line(&mut world, Conditions::narrow(150_000));
    world.run(12 * SECOND);
    // What was shown within the last second may be paused by now.
    let agree = |w: &World| paused(w) + layers(w).iter().flatten().count() == 4;
    wait_for(&mut world, agree, 2 * SECOND);
    let count = layers(&world).iter().flatten().count();
    assert!((1..=2).contains(&count), "{:?}", layers(&world));
    check_audio(&world, 3 * SECOND);
    let before = world.clients[0].diary.stream_states.len();
    world.run(40 * SECOND);
    // One more is tried now and then, and given up within a second.
    let changes = world.clients[0].diary.stream_states.len() - before;
    assert!(changes <= 4, "it does not flap: {changes} changes");
    let back = world.now;
    line(&mut world, Conditions::GOOD);
    let all = |w: &World| paused(w) == 0 && layers(w).iter().all(|layer| layer.is_some());
    let took = wait_for(&mut world, all, 30 * SECOND);
    assert!(took < RECOVERY, "{took:?}");
    // Who is told that a video goes on sees it.
    let viewer = &world.clients[0].diary;
    for (at, track, _) in viewer.stream_states.iter().filter(|(at, _, paused)| !paused && *at > back) {
        let stream = viewer.streams.values().find(|s| s.track.as_deref() == Some(track.as_str())).expect("a stream");
        assert!(stream.play_video_since(*at, *at + SECOND / 2).frames > 0, "{track} is back");
    }
    let best = |w: &World| layers(w) == [Some(2); 4];
    wait_for(&mut world, best, 20 * SECOND);
}
