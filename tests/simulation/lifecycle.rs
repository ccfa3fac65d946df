//! Beginnings and ends: joins that fail and why, people who vanish, rooms that end.

use std::time::Duration;

use parlour::sfu::{
    EventKind, FailureReason, JoinError, LeaveReason, Negotiation, ParticipantId, RoomOptions, Verdict,
};

use crate::client::{Request, Setup};
use crate::network::Conditions;
use crate::room::{all_connected, all_leave, all_see_all, check_streams, enter, setup, three};
use crate::world::{ROOM, World, options};

const SECOND: Duration = Duration::from_secs(1);
const SINGLE: Negotiation = Negotiation::Single;

/// Two who talk to each other while something happens beside them.
fn couple(world: &mut World) {
    enter(world, "alice", setup(SINGLE, 101));
    enter(world, "bob", setup(SINGLE, 102));
    world.run_until(all_connected, 5 * SECOND).expect("both connect");
    world.run_until(all_see_all, 3 * SECOND).expect("both see");
}

fn failure(verdict: &Option<Verdict>) -> FailureReason {
    match verdict {
        Some(Verdict::Failed { reason, .. }) => *reason,
        other => panic!("{other:?}"),
    }
}

fn failure_of(world: &World, id: ParticipantId) -> (FailureReason, LeaveReason) {
    let events = &world.told[&id];
    let verdicts: Vec<Option<Verdict>> = events
        .iter()
        .filter_map(|e| if let EventKind::Verdict(v) = e { Some(Some(v.clone())) } else { None })
        .collect();
    assert_eq!(verdicts.len(), 1);
    let Some(EventKind::Left(reason)) = events.last() else { panic!("{events:?}") };
    (failure(&verdicts[0]), *reason)
}

/// A third one tries to join with its packets treated so; gives why it failed.
fn join_fails(prepare: impl Fn(&mut World, usize)) -> FailureReason {
    let mut world = World::new(1);
    couple(&mut world);
    let carol = enter(&mut world, "carol", setup(SINGLE, 103));
    prepare(&mut world, carol);
    let took = world.run_until(|w| w.clients[carol].left.is_some(), 70 * SECOND).expect("given up");
    assert!(took >= 60 * SECOND, "{took:?}");
    assert_eq!(world.clients[carol].left, Some(LeaveReason::JoinTimeout));
    assert_eq!(world.sfu.counts().participants, 2);
    world.run(SECOND);
    let streams_of = |world: &World, viewer: usize| world.clients[viewer].diary.video(1 - viewer).play_video(world.now);
    assert!(streams_of(&world, 0).longest_gap < Duration::from_millis(200));
    failure(&world.clients[carol].verdict)
}

#[test]
fn no_packet_arrives() {
    let reason = join_fails(|world, carol| world.clients[carol].publisher.uplink.set(Conditions::lossy(1.0), 1));
    assert_eq!(reason, FailureReason::IceNoChecks);
}

#[test]
fn no_packet_gets_back() {
    let reason = join_fails(|world, carol| world.clients[carol].publisher.downlink.set(Conditions::lossy(1.0), 1));
    assert_eq!(reason, FailureReason::IceTimeout);
}

#[test]
fn the_handshake_does_not_get_through() {
    let reason =
        join_fails(|world, carol| world.clients[carol].publisher.withhold = Some(|first| (20..64).contains(&first)));
    assert_eq!(reason, FailureReason::DtlsTimeout);
}

#[test]
fn nothing_is_offered() {
    let mut world = World::new(2);
    let silent = world.join_by_hand("silent", SINGLE);
    world.run(70 * SECOND);
    assert_eq!(failure_of(&world, silent), (FailureReason::NoOffer, LeaveReason::JoinTimeout));
}

#[test]
fn our_offer_is_not_answered() {
    let mut world = World::new(2);
    let silent = world.join_by_hand("silent", Negotiation::Dual);
    world.run(20 * SECOND);
    assert_eq!(failure_of(&world, silent), (FailureReason::BadDescription, LeaveReason::StateMismatch));
}

#[test]
fn joins_that_others_end() {
    let mut world = World::new(3);
    let now = world.clock();
    let left = world.join_by_hand("left", SINGLE);
    world.sfu.leave(now, left, LeaveReason::ClientInitiated);
    let closed = world.join_by_hand("closed", SINGLE);
    world.sfu.signal_lost(now, closed);
    let replaced = world.join_by_hand("twice", SINGLE);
    let again = world.join_by_hand("twice", SINGLE);
    let nonsense = world.join_by_hand("nonsense", SINGLE);
    world.sfu.offer(now, nonsense, 1, "v=0\r\n");
    world.run(SECOND);
    assert_eq!(failure_of(&world, left), (FailureReason::ClientLeft, LeaveReason::ClientInitiated));
    assert_eq!(failure_of(&world, closed), (FailureReason::ClientLeft, LeaveReason::SignalClosed));
    assert_eq!(failure_of(&world, replaced), (FailureReason::Replaced, LeaveReason::DuplicateIdentity));
    assert_eq!(failure_of(&world, nonsense), (FailureReason::BadDescription, LeaveReason::StateMismatch));
    assert!(world.sfu.delete_room(now, ROOM));
    world.run(SECOND);
    assert_eq!(failure_of(&world, again), (FailureReason::RoomClosed, LeaveReason::RoomDeleted));
    let counts = world.sfu.counts();
    assert_eq!((counts.rooms, counts.participants), (0, 0));
    assert!(!world.sfu.delete_room(now, ROOM));
}

#[test]
fn who_vanishes_is_gone_soon() {
    let mut world = three([1, 2, 3].map(|seed| setup(SINGLE, seed)));
    world.run(SECOND);
    world.kill(2);
    let took = world.run_until(|w| w.clients[2].left.is_some(), 30 * SECOND).expect("noticed");
    assert!((10 * SECOND..20 * SECOND).contains(&took), "{took:?}");
    assert_eq!(world.clients[2].left, Some(LeaveReason::ConnectionTimeout));
    world.run(SECOND);
    for stayer in [0, 1] {
        assert_eq!(world.clients[stayer].known.values().filter(|p| p.leave_reason.is_some()).count(), 1);
        assert!(world.clients[stayer].left.is_none());
        assert!(world.clients[stayer].diary.video(1 - stayer).play_video(world.now).longest_gap < SECOND / 5);
    }
    all_leave(&mut world);
}

/// Its page is gone, its WebSocket not yet.
#[test]
fn who_closes_its_connection_is_gone_at_once() {
    for negotiation in [SINGLE, Negotiation::Dual] {
        let mut world = three([setup(SINGLE, 1), setup(SINGLE, 2), setup(negotiation, 3)]);
        world.run(SECOND);
        let now = world.now;
        world.clients[2].publisher.rtc.close().expect("closes");
        world.clients[2].publisher.touch(now);
        world.run_until(|w| w.clients[2].left.is_some(), SECOND).expect("noticed");
        assert_eq!(world.clients[2].left, Some(LeaveReason::StateMismatch), "it may come again");
        world.run(SECOND);
        assert_eq!(world.sfu.counts().participants, 2);
        all_leave(&mut world);
    }
}

#[test]
fn a_wrong_certificate() {
    let mut world = World::new(13);
    let mallory = world.join("mallory");
    for request in &mut world.clients[mallory].outbox {
        if let Request::Offer { sdp, .. } = request {
            let at = sdp.find("a=fingerprint:sha-256 ").expect("one") + "a=fingerprint:sha-256 ".len();
            let other = if sdp[at..].starts_with("AA") { "BB" } else { "AA" };
            *sdp = sdp.replace(&sdp[at..at + 95].to_owned(), &format!("{other}{}", &sdp[at + 2..at + 95]));
        }
    }
    let took = world.run_until(|w| w.clients[mallory].left.is_some(), 70 * SECOND).expect("refused");
    assert!(took < 2 * SECOND, "{took:?}");
    assert_eq!(failure(&world.clients[mallory].verdict), FailureReason::DtlsTimeout);
}

#[test]
fn a_lost_line_may_come_back() {
    let mut world = three([1, 2, 3].map(|seed| setup(SINGLE, seed)));
    world.run(SECOND);
    for seed in [1, 2] {
        world.clients[2].publisher.uplink.set(Conditions::lossy(1.0), seed);
        world.clients[2].publisher.downlink.set(Conditions::lossy(1.0), seed);
        world.run(5 * SECOND);
        world.clients[2].publisher.uplink.set(Conditions::GOOD, seed);
        world.clients[2].publisher.downlink.set(Conditions::GOOD, seed);
        world.run(4 * SECOND);
        assert!(world.clients.iter().all(|c| c.left.is_none()));
        for (viewer, publisher) in [(0, 2), (1, 2), (2, 0), (2, 1), (0, 1)] {
            let last = world.clients[viewer].diary.video(publisher).play_video(world.now).last.expect("some");
            assert!(world.now - last < SECOND / 2, "{viewer} sees {publisher} again");
        }
    }
}

#[test]
fn signalling_may_be_lost_while_media_lives() {
    let mut world = three([setup(SINGLE, 1), setup(SINGLE, 2), setup(Negotiation::Dual, 3)]);
    for index in [1, 2] {
        let (now, id) = (world.clock(), world.clients[index].id);
        world.sfu.signal_lost(now, id);
        world.run(2 * SECOND);
        assert!(world.clients[index].left.is_none(), "media lives");
        let now = world.clock();
        world.sfu.signal_resumed(now, id);
        world.run(3 * SECOND);
        assert!(world.clients[index].left.is_none());
    }
    check_streams(&world, SECOND / 5);
    let (now, id) = (world.clock(), world.clients[1].id);
    world.sfu.signal_lost(now, id);
    world.kill(1);
    world.run(20 * SECOND);
    assert_eq!(world.clients[1].left, Some(LeaveReason::ConnectionTimeout));
}

#[test]
fn empty_rooms_end() {
    let times = RoomOptions { empty_timeout: 30 * SECOND, departure_timeout: 5 * SECOND, ..RoomOptions::default() };
    let mut world = World::with_options(4, times.clone());
    world.run(29 * SECOND);
    assert_eq!(world.sfu.counts().rooms, 1);
    world.run(2 * SECOND);
    assert_eq!(world.sfu.counts().rooms, 0);
    let missing = parlour::sfu::JoinOptions { create_room: false, ..options("alice", SINGLE) };
    assert_eq!(world.sfu.join(world.clock(), ROOM, missing), Err(JoinError::RoomMissing));

    let mut world = World::with_options(5, times);
    world.run(25 * SECOND);
    let alice = world.join("alice");
    world.run(60 * SECOND);
    assert_eq!(world.sfu.counts().rooms, 1, "somebody is there");
    world.leave(alice);
    world.run(4 * SECOND);
    assert_eq!(world.sfu.counts().rooms, 1, "it waits for who comes back");
    let again = world.join("alice");
    world.run(10 * SECOND);
    assert_eq!(world.sfu.counts().rooms, 1);
    world.leave(again);
    world.run(6 * SECOND);
    assert_eq!(world.sfu.counts().rooms, 0);
}

#[test]
fn a_room_has_room_for_so_many() {
    let two = RoomOptions { max_participants: 2, ..RoomOptions::default() };
    let mut world = World::with_options(6, two);
    couple(&mut world);
    let refused = world.try_join(options("carol", SINGLE), Setup::default());
    assert_eq!(refused.err(), Some(JoinError::RoomFull));
    // Coming again is not one more.
    let again = enter(&mut world, "bob", setup(SINGLE, 9));
    world.run(3 * SECOND);
    assert!(world.clients[again].left.is_none() && world.clients[0].left.is_none());
    assert_eq!(world.sfu.counts().participants, 2);
}

#[test]
fn the_server_shuts_down() {
    let mut world = three([setup(SINGLE, 1), setup(SINGLE, 2), setup(Negotiation::Dual, 3)]);
    let now = world.clock();
    world.sfu.shut_down(now);
    world.run(SECOND);
    assert!(world.clients.iter().all(|c| c.left == Some(LeaveReason::ServerShutdown)));
    let counts = world.sfu.counts();
    assert_eq!((counts.rooms, counts.participants, counts.tracks), (0, 0, 0));
}

#[test]
fn many_come_and_go() {
    let mut world = World::new(9);
    couple(&mut world);
    for round in 0..25u64 {
        let negotiation = if round % 3 == 0 { Negotiation::Dual } else { SINGLE };
        let guest = enter(&mut world, "guest", setup(negotiation, 200 + round));
        // Some leave while they still connect, some vanish and come again.
        world.run(Duration::from_millis(37 * round % 900));
        match round % 4 {
            0 => world.kill(guest),
            1 => {}
            _ => world.leave(guest),
        }
    }
    world.run(20 * SECOND);
    for index in 2..world.clients.len() {
        if world.clients[index].left.is_none() {
            world.leave(index);
        }
    }
    world.run(SECOND);
    let counts = world.sfu.counts();
    assert_eq!((counts.participants, counts.tracks), (2, 4));
    for viewer in [0, 1] {
        assert_eq!(world.clients[viewer].sections.len(), 2);
        assert!(world.clients[viewer].diary.video(1 - viewer).play_video(world.now).longest_gap < SECOND / 5);
    }
    all_leave(&mut world);
}
