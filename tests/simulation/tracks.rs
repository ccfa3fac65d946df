//! What becomes of single tracks: layers, mute, publishing and subscribing again, sections that come and go.

use std::time::Duration;

use parlour::sfu::{MediaKind, Negotiation, Quality, TrackSettings};

use crate::client::{Browser, Request, Setup, Source};
use crate::network::Conditions;
use crate::room::{all_connected, all_see_all, check_streams, enter, setup, three, three_v1};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn keyframes_are_asked_for_and_not_too_often() {
    let mut world = three_v1();
    world.run(2 * SECOND);
    // Two at once want to see: that is one request to each.
    enter(&mut world, "dave", setup(Negotiation::Single, 11));
    enter(&mut world, "eve", setup(Negotiation::Single, 12));
    world.run_until(all_see_all, 3 * SECOND).expect("all see all");
    world.run(10 * SECOND);
    for client in &world.clients[..3] {
        let asked = client.diary.keyframe_requests;
        assert!((1..=12).contains(&asked), "{} was asked {asked} times", client.name);
    }
}

#[test]
fn settings_choose_the_layer() {
    let mut world = three_v1();
    world.run(SECOND);
    let track = world.clients[0].tracks[1].sid.clone().expect("published");
    let settings = |disabled, quality, height| TrackSettings {
        disabled,
        quality,
        width: height * 16 / 9,
        height,
        fps: 0,
        priority: 0,
    };
    let low = settings(false, Quality::High, 180);
    let set = world.now;
    world.clients[1].outbox.push(Request::Settings { track: track.clone(), settings: low });
    world.run(3 * SECOND);
    let bob = world.clients[1].diary.video(0).play_video_since(set, world.now);
    let carol = world.clients[2].diary.video(0).play_video_since(set, world.now);
    assert_eq!((bob.last_layer, carol.last_layer), (0, 2), "settings are one's own");
    assert_eq!((bob.switches, carol.switches), (1, 0));
    let middle = TrackSettings { disabled: false, quality: Quality::Medium, width: 0, height: 0, fps: 0, priority: 0 };
    world.clients[1].outbox.push(Request::Settings { track: track.clone(), settings: middle });
    world.run(2 * SECOND);
    assert_eq!(world.clients[1].diary.video(0).play_video(world.now).last_layer, 1);
    check_streams(&world, Duration::from_millis(300));
    // Off and on again: the stream goes on where it stopped, from a keyframe.
    world.clients[1]
        .outbox
        .push(Request::Settings { track: track.clone(), settings: settings(true, Quality::High, 0) });
    world.run(SECOND);
    let before = world.clients[1].diary.video(0).packets.len();
    world.run(2 * SECOND);
    assert_eq!(world.clients[1].diary.video(0).packets.len(), before, "nothing flows while disabled");
    world.clients[1].outbox.push(Request::Settings { track, settings: settings(false, Quality::High, 720) });
    world.run(2 * SECOND);
    let bob = world.clients[1].diary.video(0).play_video(world.now);
    assert_eq!(bob.last_layer, 2);
    assert!(bob.longest_gap < 4 * SECOND, "{bob:?}");
}

#[test]
fn a_layer_that_stops_is_replaced() {
    let mut world = three_v1();
    world.run(SECOND);
    for (layer, on, wanted) in [(2, false, 1), (1, false, 0), (1, true, 1), (2, true, 2)] {
        let crate::client::Source::Camera(camera) = &mut world.clients[0].tracks[1].source else { panic!("a camera") };
        camera.set_layer(layer, on);
        world.run(3 * SECOND);
        for viewer in [1, 2] {
            let playback = world.clients[viewer].diary.video(0).play_video(world.now);
            assert_eq!(playback.last_layer, wanted, "after layer {layer} went {on}");
            assert!(playback.longest_gap < Duration::from_millis(1600), "{playback:?}");
        }
    }
}

#[test]
fn mute_and_unmute() {
    let mut world = three_v1();
    world.run(SECOND);
    for track in [0, 1] {
        world.clients[0].mute(track, true);
    }
    world.run(2 * SECOND);
    let sid = world.sfu.info(world.clients[0].id).expect("there").sid.to_string();
    for viewer in [1, 2] {
        let tracks = &world.clients[viewer].known[&sid].tracks;
        assert!(tracks.len() == 2 && tracks.iter().all(|t| t.muted), "{tracks:?}");
    }
    let before = world.clients[1].diary.video(0).packets.len();
    world.run(SECOND);
    assert_eq!(world.clients[1].diary.video(0).packets.len(), before);
    for track in [0, 1] {
        world.clients[0].mute(track, false);
    }
    world.run(2 * SECOND);
    for viewer in [1, 2] {
        assert!(world.clients[viewer].known[&sid].tracks.iter().all(|t| !t.muted));
        let video = world.clients[viewer].diary.video(0);
        let playback = video.play_video(world.now);
        assert!(world.now - playback.last.expect("some") < Duration::from_millis(200), "video is back");
        assert!(playback.longest_gap < Duration::from_millis(3300), "{playback:?}");
        let audio = world.clients[viewer].diary.audio(0);
        assert!(world.now - audio.packets.last().expect("some").at < Duration::from_millis(100), "audio is back");
    }
}

#[test]
fn a_muted_camera_is_not_asked_for_keyframes() {
    let mut world = three_v1();
    world.run(SECOND);
    let me = world.sfu.info(world.clients[0].id).expect("there");
    let camera = me.tracks.iter().find(|t| t.announced.kind == MediaKind::Video).expect("a camera").sid.clone();
    world.clients[0].mute(1, true);
    world.run(2 * SECOND);
    let before = world.sfu.counts().keyframes_requested;
    // A viewer that shows the tile larger waits for another layer, but none comes before the camera is on again.
    let settings = TrackSettings { disabled: false, quality: Quality::Low, width: 0, height: 0, fps: 0, priority: 0 };
    world.clients[1].outbox.push(Request::Settings { track: camera, settings });
    world.run(5 * SECOND);
    assert_eq!(world.sfu.counts().keyframes_requested, before);
}

#[test]
fn unpublish_and_publish_again() {
    let mut world = three_v1();
    world.run(SECOND);
    world.clients[0].unpublish(1);
    world.run(2 * SECOND);
    let sid = world.sfu.info(world.clients[0].id).expect("there").sid.to_string();
    assert_eq!(world.sfu.counts().tracks, 5);
    for viewer in [1, 2] {
        assert_eq!(world.clients[viewer].known[&sid].tracks.len(), 1);
        assert_eq!(world.clients[viewer].sections.len(), 3, "the section is described as idle");
    }
    let now = world.now;
    let again = world.clients[0].publish_camera(now, true);
    world.run(3 * SECOND);
    let track = world.clients[0].tracks[again].sid.clone().expect("published").to_string();
    for viewer in [1, 2] {
        let streams = world.clients[viewer].diary.from(0, true);
        assert_eq!(streams.len(), 2, "the new track has a stream of its own");
        let new = streams.into_iter().find(|s| s.track.as_deref() == Some(&track)).expect("bound to the new track");
        assert_eq!(new.play_video(world.now).last_layer, 2);
        assert!(world.clients[viewer].requirements.iter().all(|r| *r == (0, 0)), "idle sections are used again");
    }
    check_streams(&world, Duration::from_millis(200));
}

#[test]
fn everyone_uses_the_numbers_of_its_own_offer() {
    let firefox = Setup { browser: Browser::Firefox, ..setup(Negotiation::Single, 31) };
    let mut world = three([setup(Negotiation::Single, 30), firefox, setup(Negotiation::Single, 32)]);
    world.run(3 * SECOND);
    check_streams(&world, Duration::from_millis(200));
}

/// Next to the server media arrives before the description that names it, and is lost.
#[test]
fn media_that_overtakes_its_description() {
    let close = Conditions { latency: Duration::from_millis(1), jitter: Duration::ZERO, ..Conditions::GOOD };
    let mut world = three([1, 2, 3].map(|seed| Setup { conditions: close, ..setup(Negotiation::Single, seed) }));
    world.run(SECOND);
    let began = world.now;
    enter(&mut world, "dave", Setup { conditions: close, ..setup(Negotiation::Single, 4) });
    world.run_until(all_see_all, 3 * SECOND).expect("all see all");
    world.run(2 * SECOND);
    for viewer in 0..3 {
        let stream = world.clients[viewer].diary.video(3);
        let first = stream.packets.iter().find(|p| p.stamp.key && p.stamp.part == 0).expect("a keyframe").at;
        assert!(first - began < Duration::from_millis(700), "{viewer} sees dave after {:?}", first - began);
        assert!(world.now - stream.play_video(world.now).last.expect("shown") < SECOND / 5);
    }
}

#[test]
fn a_section_taken_away_is_replaced() {
    for stop in [false, true] {
        let mut world = three_v1();
        world.run(SECOND);
        let track = world.clients[0].tracks[1].sid.clone().expect("published").to_string();
        let section_of = |world: &World| {
            let sections = &world.clients[1].sections;
            sections.iter().find(|(_, (_, t))| *t == track).map(|(mid, _)| mid.clone())
        };
        let before = section_of(&world).expect("bound");
        // One of the three video sections is free, so the track moves there.
        world.clients[1].refuse_section(&before, stop);
        world.run(2 * SECOND);
        let after = section_of(&world).expect("bound again");
        assert_ne!(before, after);
        // Then there is none, so one more is asked for.
        world.clients[1].refuse_section(&after, stop);
        world.run(2 * SECOND);
        assert!(section_of(&world).is_some());
        assert!(world.clients[1].requirements.contains(&(0, 1)), "{:?}", world.clients[1].requirements);
        assert_eq!(world.clients[1].diary.from(0, true).len(), 3);
        check_streams(&world, Duration::from_millis(200));
    }
}

#[test]
fn a_codec_that_the_subscriber_lacks() {
    for negotiation in [Negotiation::Single, Negotiation::Dual] {
        let mut world = World::new(40);
        let old = world.join_with("old", Setup { browser: Browser::WithoutVp8, ..setup(negotiation, 40) });
        let now = world.now;
        world.clients[old].publish_microphone(now);
        let new = enter(&mut world, "new", setup(Negotiation::Single, 41));
        world.run_until(all_connected, 5 * SECOND).expect("both connect");
        world.run(2 * SECOND);
        let camera = world.clients[new].tracks[1].sid.clone().expect("published");
        assert_eq!(world.clients[old].diary.failed, [camera], "{negotiation:?}");
        assert_eq!(world.clients[old].sections.len(), 1, "sound comes");
        assert!(world.now - world.clients[old].diary.audio(new).packets.last().expect("some").at < SECOND / 10);
        assert!(world.now - world.clients[new].diary.audio(old).packets.last().expect("some").at < SECOND / 10);
    }
}

/// Sequence numbers have 16 bits, and no receiver may notice.
#[test]
fn numbers_wrap() {
    let mut world = World::new(51);
    let viewer = world.join_with("viewer", setup(Negotiation::Single, 51));
    let sender = world.join_with("sender", setup(Negotiation::Dual, 52));
    let now = world.now;
    let camera = world.clients[sender].publish_camera(now, false);
    let Source::Camera(source) = &mut world.clients[sender].tracks[camera].source else { panic!("a camera") };
    source.set_packets(100);
    world.run(2 * SECOND);
    let first = |world: &World| world.clients[viewer].diary.video(sender).packets[0].sequence;
    let last = |world: &World| world.clients[viewer].diary.video(sender).packets.last().expect("some").sequence;
    world.run_until(|w| last(w) > 66_000, 40 * SECOND).expect("wraps");
    assert!(first(&world) < 1 << 15);
    check_streams(&world, Duration::from_millis(200));
}

/// The offer may come before the announcement: clients send both at the same time.
#[test]
fn announced_after_the_offer() {
    let mut world = three_v1();
    let now = world.now;
    let camera = world.clients[0].publish_camera(now, true);
    let announcement = world.clients[0].outbox.iter().position(|r| matches!(r, Request::AddTrack(_))).expect("one");
    let announcement = world.clients[0].outbox.remove(announcement);
    world.run(SECOND);
    assert_eq!(world.sfu.counts().tracks, 6);
    world.clients[0].outbox.push(announcement);
    world.run(2 * SECOND);
    let track = world.clients[0].tracks[camera].sid.clone().expect("published").to_string();
    for viewer in [1, 2] {
        let streams = world.clients[viewer].diary.from(0, true);
        let stream = streams.into_iter().find(|s| s.track.as_deref() == Some(&track)).expect("seen");
        assert_eq!(stream.play_video(world.now).last_layer, 2);
    }
    check_streams(&world, Duration::from_millis(200));
}

#[test]
fn a_publishers_stream_is_replaced() {
    for simulcast in [true, false] {
        let mut world = three_v1();
        let now = world.now;
        let camera = world.clients[0].publish_camera(now, simulcast);
        world.run(2 * SECOND);
        let client = &mut world.clients[0];
        let (mid, sid) = (client.tracks[camera].mid.expect("negotiated"), client.tracks[camera].sid.clone());
        let Source::Camera(source) = &mut client.tracks[camera].source else { panic!("a camera") };
        let highest = if simulcast { 2 } else { 0 };
        source.replace_stream(&mut client.publisher.rtc, mid, highest);
        world.run(3 * SECOND);
        let sid = sid.expect("published").to_string();
        for viewer in [1, 2] {
            let diary = &world.clients[viewer].diary;
            let stream = diary.streams.values().find(|s| s.track.as_deref() == Some(&sid)).expect("seen");
            let playback = stream.play_video(world.now);
            assert!(world.now - playback.last.expect("some") < SECOND / 5, "simulcast {simulcast}: {playback:?}");
            assert_eq!(playback.last_layer, highest);
        }
        check_streams(&world, Duration::from_millis(200));
    }
}

#[test]
fn unsubscribe_and_subscribe() {
    let mut world = three_v1();
    world.run(SECOND);
    let track = world.clients[0].tracks[1].sid.clone().expect("published");
    world.clients[1].outbox.push(Request::Subscribe { track: track.clone(), on: false });
    world.run(SECOND);
    assert!(world.clients[1].sections.values().all(|(_, t)| t != track.as_str()));
    let before = world.clients[1].diary.video(0).packets.len();
    world.run(SECOND);
    assert_eq!(world.clients[1].diary.video(0).packets.len(), before);
    world.clients[1].outbox.push(Request::Subscribe { track: track.clone(), on: true });
    world.run(2 * SECOND);
    assert!(world.clients[1].sections.values().any(|(_, t)| t == track.as_str()));
    assert_eq!(world.clients[1].diary.from(0, true).len(), 2);
    check_streams(&world, Duration::from_millis(200));
}
