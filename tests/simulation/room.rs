//! Several clients in a room: who sees whom, layers, mute, leaving, coming late, coming again.

use std::time::Duration;

use parlour::sfu::{AddTrackError, DataChannel, LeaveReason, Negotiation, Permissions, TrackSource, Verdict};

use crate::client::{Browser, Client, Setup};
use crate::hostile::stun;
use crate::world::{World, options};

const SECOND: Duration = Duration::from_secs(1);

/// Joins and publishes camera and microphone; the first one speaks, the others are quiet.
pub fn enter(world: &mut World, name: &str, setup: Setup) -> usize {
    let index = world.join_with(name, setup);
    let now = world.now;
    world.clients[index].publish_microphone(now);
    world.clients[index].publish_camera(now, true);
    index
}

pub fn all_connected(world: &World) -> bool {
    world
        .clients
        .iter()
        .all(|c| c.left.is_some() || (matches!(c.verdict, Some(Verdict::Connected { .. })) && c.is_connected()))
}

/// Everybody who is still there receives both streams of every other one who is.
pub fn all_see_all(world: &World) -> bool {
    let present: Vec<&Client> = world.clients.iter().filter(|c| c.left.is_none()).collect();
    present.iter().all(|c| {
        present.iter().filter(|other| other.index != c.index).all(|other| {
            let publisher = usize::from(other.index);
            let seen = |track: &crate::client::Published| {
                let video = track.kind == parlour::sfu::MediaKind::Video;
                !track.live || !c.diary.from(publisher, video).is_empty()
            };
            other.tracks.iter().all(seen)
        })
    })
}

pub fn three(setups: [Setup; 3]) -> World {
    let mut world = World::new(7);
    for (name, setup) in ["alice", "bob", "carol"].into_iter().zip(setups) {
        enter(&mut world, name, setup);
    }
    world.run_until(all_connected, 5 * SECOND).expect("all connect");
    world.run_until(all_see_all, 3 * SECOND).expect("all see all");
    // Pictures out of the cache may be there before the data channels are.
    world.run_until(all_can_write, SECOND).expect("all can write");
    world
}

fn all_can_write(world: &World) -> bool {
    let labels = ["_reliable", "_lossy"];
    world.clients.iter().all(|c| labels.iter().all(|label| c.publisher.channel(label).is_some()))
}

pub fn setup(negotiation: Negotiation, seed: u64) -> Setup {
    Setup { negotiation, seed, ..Setup::default() }
}

pub fn three_v1() -> World {
    three([1, 2, 3].map(|seed| setup(Negotiation::Single, seed)))
}

/// Every stream of a network without loss is perfect.
pub fn check_streams(world: &World, longest_gap: Duration) {
    for client in &world.clients {
        assert_eq!(client.diary.unreadable, 0, "{}: payloads arrive untouched", client.name);
        for stream in client.diary.streams.values() {
            if stream.packets[0].vp8.is_some() {
                let playback = stream.play_video(world.now);
                assert!(playback.longest_gap <= longest_gap, "{}: {playback:?}", client.name);
                assert_eq!((playback.broken, stream.holes(world.now)), (0, vec![]), "{}", client.name);
                stream.check_timestamps(90_000, longest_gap, world.now);
            } else {
                assert_eq!(stream.holes(world.now), Vec::<u64>::new(), "{}", client.name);
                assert!(stream.play_audio().1 <= longest_gap, "{}", client.name);
                stream.check_timestamps(48_000, longest_gap, world.now);
            }
        }
    }
}

pub fn all_leave(world: &mut World) {
    for index in 0..world.clients.len() {
        if world.clients[index].left.is_none() {
            world.leave(index);
        }
    }
    world.run(SECOND);
    let counts = world.sfu.counts();
    assert_eq!((counts.rooms, counts.participants, counts.tracks), (1, 0, 0));
    // Their addresses and names lead nowhere any more.
    let unknown = counts.packets_unknown;
    let known: Vec<_> =
        world.clients.iter().map(|c| (c.setup.protocol, c.publisher.public, c.server_ufrag.clone())).collect();
    for (protocol, address, ufrag) in &known {
        world.inject(*protocol, *address, &[0x80; 100]);
        world.inject(*protocol, *address, &stun(&format!("{ufrag}:x")));
    }
    assert_eq!(world.sfu.counts().packets_unknown - unknown, 2 * known.len() as u64);
    // The room stays a while, then nothing is left and nothing ticks.
    world.run(25 * SECOND);
    assert_eq!(world.sfu.counts().rooms, 0);
    let before = world.moments;
    world.run(600 * SECOND);
    assert!(world.moments - before < 50, "an empty server works {} times", world.moments - before);
    assert_eq!(world.sfu.next_timeout(), None);
}

#[test]
fn three_see_and_hear_each_other() {
    let mut world = three_v1();
    world.run(5 * SECOND);
    check_streams(&world, Duration::from_millis(200));
    for client in &world.clients {
        for other in (0..3).filter(|other| *other != usize::from(client.index)) {
            let video = client.diary.video(other).play_video(world.now);
            // Without adaptive stream the best layer flows at once.
            assert_eq!(video.last_layer, 2, "{}", client.name);
            assert!(video.frames >= 95, "{}: {video:?}", client.name);
            assert!(client.diary.audio(other).play_audio().0 >= 245, "{}", client.name);
        }
        // Three sections of each kind were enough.
        assert!(client.requirements.iter().all(|r| *r == (0, 0)), "{}: {:?}", client.name, client.requirements);
    }
    all_leave(&mut world);
}

/// Firefox offers only after it has joined.
#[test]
fn a_first_offer_that_comes_late() {
    let mut world = three_v1();
    let dave = enter(&mut world, "dave", setup(Negotiation::Single, 14));
    let requests = std::mem::take(&mut world.clients[dave].outbox);
    world.run(3 * SECOND);
    assert_eq!(world.clients[dave].requirements, [], "there is nothing to add sections to yet");
    world.clients[dave].outbox = requests;
    let took = world.run_until(all_see_all, 3 * SECOND).expect("all see all");
    assert!(took < SECOND, "{took:?}");
    world.run(SECOND);
    check_streams(&world, Duration::from_millis(200));
}

#[test]
fn the_loud_one_is_named() {
    let loud = Setup { level: -8, ..setup(Negotiation::Single, 4) };
    let mut world = three([loud, setup(Negotiation::Single, 5), setup(Negotiation::Single, 6)]);
    world.run(3 * SECOND);
    let alice = world.sfu.info(world.clients[0].id).expect("there").sid;
    for client in &world.clients {
        let named: Vec<_> = client.diary.speakers.iter().flat_map(|(_, speakers)| speakers).collect();
        assert!(!named.is_empty(), "{} hears who speaks", client.name);
        assert!(named.iter().all(|s| s.sid == alice), "{}: {named:?}", client.name);
        assert!(named.last().is_some_and(|s| s.active && s.level > 0.3), "{}: {named:?}", client.name);
    }
    world.clients[0].mute(0, true);
    world.run(3 * SECOND);
    for client in &world.clients {
        let (_, last) = client.diary.speakers.last().expect("named before");
        assert!(last.iter().any(|s| s.sid == alice && !s.active && s.level == 0.0), "{}: {last:?}", client.name);
    }
}

#[test]
fn leaving_and_coming_late() {
    let mut world = three_v1();
    world.run(SECOND);
    world.leave(2);
    world.run(SECOND);
    assert_eq!(world.clients[2].left, Some(LeaveReason::ClientInitiated));
    for stayer in [0, 1] {
        let gone = world.clients[stayer].known.values().filter(|p| p.leave_reason.is_some()).count();
        assert_eq!(gone, 1);
        assert_eq!(world.clients[stayer].sections.len(), 2);
    }
    let dave = enter(&mut world, "dave", setup(Negotiation::Single, 9));
    // The late one sees both who are there, and they see it.
    let took = world.run_until(all_see_all, 3 * SECOND).expect("sees all");
    assert!(took < SECOND, "{took:?}");
    world.run(2 * SECOND);
    check_streams(&world, Duration::from_millis(200));
    assert_eq!(world.clients[dave].sections.len(), 4);
    all_leave(&mut world);
}

#[test]
fn the_same_identity_again_replaces() {
    let mut world = three_v1();
    world.run(SECOND);
    let old = world.sfu.info(world.clients[1].id).expect("there").sid;
    let again = enter(&mut world, "bob", setup(Negotiation::Single, 10));
    world.run_until(all_see_all, 3 * SECOND).expect("sees all");
    world.run(SECOND);
    assert_eq!(world.clients[1].left, Some(LeaveReason::DuplicateIdentity));
    assert_eq!(world.sfu.counts().participants, 3);
    let new = world.sfu.info(world.clients[again].id).expect("there").sid;
    assert_ne!(old, new);
    for stayer in [0, 2] {
        let client = &world.clients[stayer];
        assert!(client.known[old.as_str()].leave_reason == Some(LeaveReason::DuplicateIdentity));
        assert!(client.known[new.as_str()].leave_reason.is_none());
        assert!(client.sections.values().all(|(participant, _)| participant != old.as_str()));
    }
    check_streams(&world, Duration::from_millis(200));
    all_leave(&mut world);
}

#[test]
fn more_people_than_sections() {
    let mut world = World::new(8);
    for (seed, name) in (20..).zip(["a", "b", "c", "d", "e", "f"]) {
        enter(&mut world, name, setup(Negotiation::Single, seed));
    }
    world.run_until(all_connected, 5 * SECOND).expect("all connect");
    world.run_until(all_see_all, 3 * SECOND).expect("all see all");
    world.run(2 * SECOND);
    check_streams(&world, Duration::from_millis(200));
    for client in &world.clients {
        let asked = client.requirements.iter().fold((0, 0), |sum, r| (sum.0 + r.0, sum.1 + r.1));
        assert_eq!(asked, (2, 2), "{}: exactly what is missing: {:?}", client.name, client.requirements);
    }
    all_leave(&mut world);
}

#[test]
fn data_arrives() {
    let mut world = three_v1();
    let now = world.now;
    for number in 0..20u8 {
        assert!(world.clients[0].send_data(now, "_reliable", &[number; 1000]));
        assert!(world.clients[1].send_data(now, "_lossy", &[100 + number]));
    }
    world.run(SECOND);
    for listener in [1, 2] {
        let reliable: Vec<u8> = world.clients[listener]
            .diary
            .messages
            .iter()
            .filter(|(c, _)| *c == DataChannel::Reliable)
            .map(|(_, m)| m[0])
            .collect();
        assert_eq!(reliable, (0..20).collect::<Vec<u8>>());
    }
    for listener in [0, 2] {
        let lossy = world.clients[listener].diary.messages.iter().filter(|(c, _)| *c == DataChannel::Lossy).count();
        assert_eq!(lossy, 20);
    }
    assert!(world.clients[0].diary.messages.iter().all(|(c, _)| *c == DataChannel::Lossy), "no echo");
}

/// Publishers choose their layers by what our transport-wide feedback (RTCP TWCC) tells of their uplink.
#[test]
fn publishers_learn_of_their_uplink() {
    for (negotiation, browser) in [
        (Negotiation::Single, Browser::Chromium),
        (Negotiation::Dual, Browser::Chromium),
        (Negotiation::Single, Browser::Firefox),
    ] {
        let mut world = World::new(50);
        enter(&mut world, "alice", Setup { estimates: true, browser, ..setup(negotiation, 50) });
        world.run(8 * SECOND);
        let estimates = &world.clients[0].diary.estimates;
        let best = estimates.iter().max().expect("estimates");
        assert!(*best > 600_000, "{negotiation:?}, {browser:?}: from 300 kbit/s to {best}");
    }
}

#[test]
fn permissions() {
    let mut world = World::new(52);
    let join = |world: &mut World, name: &str, change: fn(&mut Permissions)| {
        let mut options = options(name, Negotiation::Single);
        change(&mut options.permissions);
        let index = world.try_join(options, setup(Negotiation::Single, 53)).expect("may join");
        let now = world.now;
        world.clients[index].publish_microphone(now);
        world.clients[index].publish_camera(now, true);
        index
    };
    let alice = join(&mut world, "alice", |_| {});
    let mute = join(&mut world, "mute", |p| p.can_publish = false);
    let camera = join(&mut world, "camera", |p| p.can_publish_sources = vec![TrackSource::Camera]);
    let deaf = join(&mut world, "deaf", |p| p.can_subscribe = false);
    let hidden = join(&mut world, "hidden", |p| p.hidden = true);
    world.run_until(all_connected, 5 * SECOND).expect("all connect");
    world.run(2 * SECOND);
    let refused: Vec<(usize, AddTrackError)> = world.errors.clone();
    assert_eq!(refused.iter().filter(|(_, error)| *error == AddTrackError::NotAllowed).count(), refused.len());
    assert_eq!(refused.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [mute, mute, camera, hidden, hidden]);
    let gets = |index: usize| {
        let from = |publisher| {
            let diary = &world.clients[index].diary;
            (diary.from(publisher, false).len(), diary.from(publisher, true).len())
        };
        [alice, mute, camera, deaf].map(from)
    };
    assert_eq!(gets(mute), [(1, 1), (0, 0), (0, 1), (1, 1)]);
    assert_eq!(gets(deaf), [(0, 0); 4]);
    assert_eq!(gets(hidden), [(1, 1), (0, 0), (0, 1), (1, 1)]);
    let knows_hidden = |index: &usize| world.clients[*index].known.values().any(|p| p.identity == "hidden");
    assert!(![alice, mute, camera, deaf].iter().any(knows_hidden), "nobody hears of the hidden one");
    assert_eq!(world.sfu.room_of(world.clients[alice].id).expect("there").num_participants, 4);
}

#[test]
fn a_client_restarts_ice() {
    let mut world = three_v1();
    world.run(SECOND);
    world.clients[0].restart_ice();
    world.run(3 * SECOND);
    assert!(world.clients[0].left.is_none());
    check_streams(&world, Duration::from_millis(500));
    for viewer in [1, 2] {
        assert!(
            world.now - world.clients[viewer].diary.audio(0).packets.last().expect("some").at
                < Duration::from_millis(100)
        );
    }
    assert!(world.now - world.clients[0].diary.audio(1).packets.last().expect("some").at < Duration::from_millis(100));
}
