//! What a moderator does to others: a mute that holds whatever the client says, and sessions that are ended from outside.

use std::time::Duration;

use parlour::sfu::{LeaveReason, Negotiation, Sid};

use crate::client::{Setup, Source};
use crate::network::Conditions;
use crate::room::{all_connected, check_streams, enter, setup, three_v1};
use crate::world::{ROOM, World};

const SECOND: Duration = Duration::from_secs(1);

/// Somebody who shows and tells, and somebody who only watches: all media there is are the one's.
fn speaker_and_viewer(negotiation: Negotiation) -> World {
    let mut world = World::new(61);
    enter(&mut world, "speaker", setup(negotiation, 61));
    world.join_with("viewer", setup(negotiation, 62));
    world.run_until(all_connected, 5 * SECOND).expect("both connect");
    let sees_and_hears = |w: &World| [true, false].iter().all(|video| !w.clients[1].diary.from(0, *video).is_empty());
    world.run_until(sees_and_hears, 3 * SECOND).expect("seen and heard");
    world.run(SECOND);
    world
}

fn sid(world: &World, track: usize) -> Sid {
    world.clients[0].tracks[track].sid.clone().expect("published")
}

fn mute(world: &mut World, track: &Sid) {
    let now = world.clock();
    let info = world.sfu.mute(now, ROOM, "speaker", track).expect("there");
    assert!(info.sid == *track && info.muted);
}

/// Media packets that left the server, sent again or for the first time.
fn forwarded(world: &World) -> u64 {
    let counts = world.sfu.counts();
    counts.packets_forwarded + counts.packets_resent + counts.pictures_replayed
}

#[test]
fn a_muted_track_stops_at_once_and_stays_so_until_its_owner_unmutes_it() {
    for negotiation in [Negotiation::Single, Negotiation::Dual] {
        let mut world = speaker_and_viewer(negotiation);
        let me = world.sfu.info(world.clients[0].id).expect("there").sid.to_string();
        let tracks = [sid(&world, 0), sid(&world, 1)];
        // At any moment of a picture, and so with packets of it waiting to leave.
        for moment in 1..=12 {
            world.run(Duration::from_millis(7 * moment));
            tracks.iter().for_each(|track| mute(&mut world, track));
            let before = forwarded(&world);
            world.run(SECOND);
            assert_eq!(forwarded(&world), before, "the client goes on sending, and none of it goes on");
            for client in &world.clients {
                assert!(client.known[&me].tracks.iter().all(|t| t.muted), "{} is told", client.name);
            }
            let told = &world.clients[0].diary.muted;
            assert_eq!(told[told.len() - 2..], tracks, "and the owner in words of its own");
            // The client makes the server's view match its own, which is not its owner's wish.
            (0..2).for_each(|track| world.clients[0].mute(track, false));
            world.run(SECOND);
            assert_eq!(forwarded(&world), before);
            // Now it carries out the mute, and its owner takes it back.
            for muted in [true, false] {
                (0..2).for_each(|track| world.clients[0].mute(track, muted));
                world.run(100 * Duration::from_millis(1));
            }
            world.run_until(|w| forwarded(w) > before + 20, SECOND).expect("media is back");
            assert!(world.clients[1].known[&me].tracks.iter().all(|t| !t.muted));
        }
        // Twice each time: with the mute, and when the client knew better.
        assert_eq!(world.clients[0].diary.muted.len(), 12 * 2 * 2);
        check_streams(&world, 4 * SECOND);
    }
}

#[test]
fn who_comes_later_gets_nothing_of_a_muted_track() {
    let mut world = speaker_and_viewer(Negotiation::Single);
    let tracks = [sid(&world, 0), sid(&world, 1)];
    tracks.iter().for_each(|track| mute(&mut world, track));
    let before = forwarded(&world);
    let late = world.join_with("late", setup(Negotiation::Single, 63));
    world.run_until(all_connected, 5 * SECOND).expect("connects");
    world.run(2 * SECOND);
    assert_eq!(world.clients[late].sections.len(), 2, "it is subscribed");
    assert_eq!(forwarded(&world), before);
}

#[test]
fn what_was_sent_during_a_mute_is_not_shown_after_it() {
    let mut world = speaker_and_viewer(Negotiation::Single);
    let (id, camera) = (world.clients[0].id, sid(&world, 1));
    mute(&mut world, &camera);
    world.run(5 * SECOND);
    // A picture comes in that would do for those who wait for one.
    let Source::Camera(source) = &mut world.clients[0].tracks[1].source else { panic!("a camera") };
    source.set_highest(None);
    source.set_highest(Some(2));
    world.run(SECOND / 2);
    let (before, now) = (forwarded(&world), world.clock());
    for muted in [true, false] {
        assert!(world.sfu.set_muted(now, id, &camera, muted));
    }
    assert_eq!(forwarded(&world), before, "no picture out of the cache");
    world.run_until(|w| forwarded(w) > before + 20, SECOND).expect("but the next");
    check_streams(&world, 6 * SECOND);
}

#[test]
fn a_mute_is_told_again_to_who_could_not_hear_it() {
    let mut world = speaker_and_viewer(Negotiation::Single);
    let (now, id, camera) = (world.clock(), world.clients[0].id, sid(&world, 1));
    world.sfu.signal_lost(now, id);
    mute(&mut world, &camera);
    world.run(SECOND);
    world.clients[0].diary.muted.clear();
    let now = world.clock();
    world.sfu.signal_resumed(now, id);
    world.run(SECOND);
    assert_eq!(world.clients[0].diary.muted, [camera]);
    // It knows: nothing to tell when it resumes next.
    world.clients[0].mute(1, true);
    world.run(SECOND);
    let now = world.clock();
    world.sfu.signal_resumed(now, id);
    world.run(SECOND);
    assert_eq!(world.clients[0].diary.muted.len(), 1);
}

#[test]
fn what_its_owner_muted_is_unmuted_by_its_owner() {
    let mut world = speaker_and_viewer(Negotiation::Single);
    let microphone = sid(&world, 0);
    world.clients[0].mute(0, true);
    world.run(SECOND);
    mute(&mut world, &microphone);
    world.run(SECOND);
    assert_eq!(world.clients[0].diary.muted, [microphone], "who only paused it has to know");
    world.clients[0].mute(0, false);
    let heard = |world: &World| world.clients[1].diary.audio(0).packets.len();
    let before = heard(&world);
    world.run(SECOND);
    assert!(heard(&world) > before + 30);
}

/// Packets that a viewer lost before the mute are not sent again after it.
#[test]
fn nothing_of_a_muted_track_is_sent_again() {
    let mut world = World::new(64);
    enter(&mut world, "speaker", setup(Negotiation::Single, 64));
    let lossy = Conditions { loss: 0.3, ..Conditions::GOOD };
    world.join_with("viewer", Setup { conditions: lossy, ..setup(Negotiation::Single, 65) });
    world.run_until(all_connected, 20 * SECOND).expect("both connect");
    world.run_until(|w| w.sfu.counts().packets_resent > 50, 20 * SECOND).expect("packets are sent again");
    for moment in 1..=5 {
        world.run(Duration::from_millis(11 * moment));
        let (microphone, camera) = (sid(&world, 0), sid(&world, 1));
        mute(&mut world, &microphone);
        mute(&mut world, &camera);
        let before = forwarded(&world);
        world.run(2 * SECOND);
        assert_eq!(forwarded(&world), before);
        for muted in [true, false] {
            (0..2).for_each(|track| world.clients[0].mute(track, muted));
            world.run(SECOND / 10);
        }
        world.run(2 * SECOND);
        assert!(forwarded(&world) > before + 100, "media is back");
    }
}

#[test]
fn a_track_that_no_offer_carries_yet_is_muted_too() {
    let mut world = speaker_and_viewer(Negotiation::Single);
    let now = world.now;
    let camera = world.clients[0].publish_camera(now, true);
    let announced = |w: &World| w.clients[0].tracks[camera].sid.is_some();
    world.run_until(announced, SECOND).expect("announced");
    let track = sid(&world, camera);
    mute(&mut world, &track);
    world.run(3 * SECOND);
    let me = world.sfu.info(world.clients[0].id).expect("there");
    let published = me.tracks.iter().find(|t| t.sid == track).expect("published meanwhile");
    assert!(published.muted);
    let film = |s: &&crate::oracle::Stream| s.track.as_deref() == Some(track.as_str());
    assert_eq!(world.clients[1].diary.from(0, true).into_iter().filter(film).count(), 0);
}

#[test]
fn only_what_is_there_is_muted() {
    let mut world = speaker_and_viewer(Negotiation::Single);
    let (now, camera) = (world.clock(), sid(&world, 1));
    let unknown = Sid("TR_unknown".into());
    for (room, identity, track) in [
        ("elsewhere", "speaker", &camera),
        (ROOM, "nobody", &camera),
        (ROOM, "viewer", &camera),
        (ROOM, "speaker", &unknown),
    ] {
        assert_eq!(world.sfu.mute(now, room, identity, track), None, "{room} {identity} {track}");
    }
    assert!(!world.sfu.info(world.clients[0].id).expect("there").tracks[1].muted);
}

#[test]
fn somebody_is_removed_by_identity_or_only_in_one_session() {
    let mut world = three_v1();
    let (now, bob) = (world.clock(), world.sfu.info(world.clients[1].id).expect("there").sid);
    let remove = |world: &mut World, room: &str, identity: &str, sid: Option<&Sid>| {
        world.sfu.remove(now, room, identity, sid, LeaveReason::Removed)
    };
    assert!(!remove(&mut world, "elsewhere", "bob", None));
    assert!(!remove(&mut world, ROOM, "nobody", None));
    assert!(!remove(&mut world, ROOM, "alice", Some(&bob)), "that is another's session");
    let names = |world: &World| -> Option<Vec<String>> {
        world.sfu.participants(ROOM).map(|all| all.into_iter().map(|info| info.identity).collect())
    };
    assert_eq!(names(&world).expect("a room"), ["alice", "bob", "carol"]);
    assert!(remove(&mut world, ROOM, "bob", Some(&bob)));
    assert!(!remove(&mut world, ROOM, "bob", Some(&bob)), "once");
    assert!(remove(&mut world, ROOM, "carol", None));
    assert_eq!(names(&world).expect("a room"), ["alice"]);
    world.run(SECOND);
    for index in [1, 2] {
        assert_eq!(world.clients[index].left, Some(LeaveReason::Removed));
    }
    let bob = &world.clients[0].known[bob.as_str()];
    assert_eq!(bob.leave_reason, Some(LeaveReason::Removed), "the others learn why");
}

#[test]
fn rooms_are_listed_in_the_order_they_were_made() {
    let mut world = three_v1();
    let now = world.clock();
    for name in ["b", "a"] {
        world.sfu.create_room(now, name, Default::default()).expect("a room");
    }
    let rooms = world.sfu.rooms();
    let listed: Vec<_> = rooms.iter().map(|room| (room.name.as_str(), room.num_participants)).collect();
    assert_eq!(listed, [(ROOM, 3), ("b", 0), ("a", 0)]);
    assert_eq!(world.sfu.participants("a"), Some(vec![]));
    assert_eq!(world.sfu.participants("elsewhere"), None);
}
