//! Bad networks: what is lost is sent again, nobody freezes, and the same seed gives the same call.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use parlour::sfu::{Negotiation, Quality, RoomOptions, TrackSettings};
use parlour::transport::Protocol;

use crate::chance::afresh;
use crate::client::Setup;
use crate::network::Conditions;
use crate::oracle::Stream;
use crate::room::{all_connected, all_leave, all_see_all, check_streams, enter, setup};
use crate::world::{World, server};

const SECOND: Duration = Duration::from_secs(1);

/// Three people, everybody's network like this, for ten seconds.
fn call(conditions: Conditions, seed: u64, negotiation: Negotiation) -> World {
    let mut world = World::new(seed);
    for (salt, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        enter(&mut world, name, Setup { conditions, ..setup(negotiation, seed * 10 + salt as u64) });
    }
    world.run_until(all_connected, 15 * SECOND).expect("all connect");
    world.run_until(all_see_all, 10 * SECOND).expect("all see all");
    world.run(10 * SECOND);
    world
}

fn longest_freeze(world: &World) -> Duration {
    // What was lost last may be on its way still.
    let until = world.now - SECOND;
    let mut longest = Duration::ZERO;
    for client in &world.clients {
        for publisher in (0..3).filter(|p| *p != usize::from(client.index)) {
            let playback = client.diary.video(publisher).play_video(until);
            assert!(playback.frames > 150, "{} of {publisher}: {playback:?}", client.name);
            longest = longest.max(playback.longest_gap);
        }
    }
    longest
}

#[test]
fn two_percent_lost() {
    for (seed, negotiation) in [(1, Negotiation::Single), (2, Negotiation::Dual)] {
        let freeze = longest_freeze(&call(Conditions::lossy(0.02), seed, negotiation));
        assert!(freeze <= Duration::from_millis(500), "seed {seed}: {freeze:?}");
    }
}

#[test]
fn ten_percent_lost() {
    let mut freezes: Vec<Duration> =
        (3..8).map(|seed| longest_freeze(&call(Conditions::lossy(0.1), seed, Negotiation::Single))).collect();
    freezes.sort();
    // A handshake's signature is now and then a byte shorter, and other packets are lost then: of all calls that this can
    // become, one in some has a keyframe lost with two of its repetitions.
    assert!(freezes[3] <= SECOND, "{freezes:?}");
    assert!(freezes[4] <= 3 * SECOND / 2, "{freezes:?}");
}

#[test]
fn reordered_late_and_twice() {
    let conditions = Conditions {
        latency: Duration::from_millis(80),
        jitter: Duration::from_millis(30),
        loss: 0.01,
        reorder_every: 5,
        duplicates: 0.02,
        rate: 0,
    };
    let mut freezes: Vec<Duration> =
        (6..11).map(|seed| longest_freeze(&call(conditions, seed, Negotiation::Single))).collect();
    freezes.sort();
    assert!(freezes[2] <= Duration::from_millis(700), "{freezes:?}");
    // The clients' str0m gives up what is missing after a hundred packets, and a keyframe at this round trip can be more.
    assert!(freezes[4] <= 3 * SECOND / 2, "{freezes:?}");
}

/// Two on good lines, the third one loses this much of everything, both ways.
fn call_with_one_bad_line(loss: f32, seed: u64) -> World {
    let mut world = World::new(seed);
    for (salt, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let conditions = if salt == 2 { Conditions::lossy(loss) } else { Conditions::GOOD };
        enter(&mut world, name, Setup { conditions, ..setup(Negotiation::Single, seed * 10 + salt as u64) });
    }
    world.run_until(all_connected, 30 * SECOND).expect("all connect");
    world.run_until(all_see_all, 20 * SECOND).expect("all see all");
    world
}

/// Opus carries each frame a second time, coarser, in the next packet (RFC 6716 §2.1.7): what neither brings is a hole.
/// Gives the share of frames that can be played, and the longest time without one, from `since` on.
fn played(stream: &Stream, since: Instant) -> (f64, Duration) {
    const FRAME: Duration = Duration::from_millis(20);
    let arrived: BTreeSet<u64> = stream.packets.iter().filter(|p| p.at >= since).map(|p| p.sequence).collect();
    let (first, last) = (*arrived.first().expect("some arrived"), *arrived.last().expect("some arrived"));
    let playable = |sequence: &u64| arrived.contains(sequence) || arrived.contains(&(sequence + 1));
    let (mut count, mut hole, mut longest) = (0u64, 0u32, 0u32);
    for sequence in first..=last {
        hole = if playable(&sequence) { 0 } else { hole + 1 };
        longest = longest.max(hole);
        count += u64::from(hole == 0);
    }
    (count as f64 / (last - first + 1) as f64, longest * FRAME)
}

#[test]
fn a_voice_is_understood_with_thirty_percent_lost() {
    let mut world = call_with_one_bad_line(0.3, 13);
    let since = world.now;
    world.run(20 * SECOND);
    for (listener, speaker) in [(2, 0), (2, 1), (0, 2), (1, 2)] {
        let (share, hole) = played(world.clients[listener].diary.audio(speaker), since);
        assert!(share >= 0.85, "{listener} hears {speaker}: {share}");
        assert!(hole <= SECOND / 5, "{listener} hears {speaker}: {hole:?} of nothing");
    }
}

#[test]
fn the_lowest_layer_flows_with_twenty_percent_lost() {
    let mut world = call_with_one_bad_line(0.2, 14);
    let low = TrackSettings { disabled: false, quality: Quality::High, width: 320, height: 180, fps: 0, priority: 0 };
    for viewer in 0..3 {
        world.clients[viewer].ask_for_all(low);
    }
    world.run(3 * SECOND);
    let since = world.now;
    world.run(20 * SECOND);
    for (viewer, publisher) in [(2, 0), (2, 1), (0, 2), (1, 2)] {
        let playback = world.clients[viewer].diary.video(publisher).play_video_since(since, world.now - SECOND);
        assert!(playback.longest_gap <= SECOND, "{viewer} sees {publisher}: {playback:?}");
        assert_eq!(playback.last_layer, 0);
    }
}

#[test]
fn a_call_survives_a_minute_of_losing_every_other_packet() {
    let mut world = call_with_one_bad_line(0.02, 15);
    let client = &mut world.clients[2];
    client.publisher.uplink.set(Conditions::lossy(0.5), 1);
    client.publisher.downlink.set(Conditions::lossy(0.5), 2);
    let since = world.now;
    world.run(60 * SECOND);
    assert!(world.clients.iter().all(|c| c.left.is_none()), "nobody is thrown out");
    for (listener, speaker) in [(2, 0), (0, 2)] {
        let (share, _) = played(world.clients[listener].diary.audio(speaker), since);
        assert!(share >= 0.6, "{listener} hears {speaker}: {share}");
    }
    let client = &mut world.clients[2];
    client.publisher.uplink.set(Conditions::GOOD, 3);
    client.publisher.downlink.set(Conditions::GOOD, 4);
    world.run(10 * SECOND);
    let since = world.now - 5 * SECOND;
    for (viewer, publisher) in [(2, 0), (0, 2), (0, 1)] {
        let playback = world.clients[viewer].diary.video(publisher).play_video_since(since, world.now);
        assert!(playback.longest_gap <= SECOND / 2 && playback.frames > 60, "{viewer} sees {publisher}: {playback:?}");
    }
}

#[test]
fn one_bad_line_disturbs_nobody_else() {
    let mut world = World::new(7);
    for (salt, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let conditions = if salt == 2 { Conditions::lossy(0.1) } else { Conditions::GOOD };
        enter(&mut world, name, Setup { conditions, ..setup(Negotiation::Single, 70 + salt as u64) });
    }
    world.run_until(all_connected, 15 * SECOND).expect("all connect");
    world.run_until(all_see_all, 10 * SECOND).expect("all see all");
    world.run(10 * SECOND);
    for (viewer, publisher) in [(0, 1), (1, 0)] {
        let playback = world.clients[viewer].diary.video(publisher).play_video(world.now);
        assert!(playback.longest_gap <= Duration::from_millis(100), "{playback:?}");
    }
}

/// A NAT forgets a mapping and makes another: the client notices nothing, we see it at a new address.
#[test]
fn a_client_moves_behind_its_nat() {
    for negotiation in [Negotiation::Single, Negotiation::Dual] {
        let mut world = World::new(11);
        for (salt, name) in ["alice", "bob"].into_iter().enumerate() {
            enter(&mut world, name, setup(negotiation, 110 + salt as u64));
        }
        world.run_until(all_connected, 5 * SECOND).expect("all connect");
        world.run_until(all_see_all, 3 * SECOND).expect("all see all");
        world.run(2 * SECOND);
        let client = &mut world.clients[0];
        for peer in [Some(&mut client.publisher), client.subscriber.as_mut()].into_iter().flatten() {
            peer.public.set_port(peer.public.port() + 1);
        }
        world.run(12 * SECOND);
        for (viewer, publisher) in [(0, 1), (1, 0)] {
            let playback = world.clients[viewer].diary.video(publisher).play_video(world.now);
            assert!(world.now - playback.last.expect("some") < SECOND / 2, "{viewer} sees {publisher} again");
            assert!(playback.longest_gap < 6 * SECOND, "{viewer} sees {publisher}: {playback:?}");
        }
        assert!(world.clients.iter().all(|c| c.left.is_none()));
    }
}

#[test]
fn one_of_our_addresses_is_not_reached() {
    let lan = std::net::SocketAddr::from(([192, 168, 1, 1], 3478));
    for order in [[lan, server(Protocol::Udp)], [server(Protocol::Udp), lan]] {
        let addresses = order.map(|address| (Protocol::Udp, address)).to_vec();
        let mut world = World::with_addresses(12, RoomOptions::default(), addresses);
        world.unreachable = vec![lan];
        for (salt, name) in ["alice", "bob"].into_iter().enumerate() {
            enter(&mut world, name, setup(Negotiation::Single, 120 + salt as u64));
        }
        world.run_until(all_connected, 5 * SECOND).expect("all connect");
        world.run_until(all_see_all, 3 * SECOND).expect("all see all");
        world.run(2 * SECOND);
        check_streams(&world, Duration::from_millis(200));
    }
}

#[test]
fn over_tcp() {
    let mut world = World::new(8);
    for (salt, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let protocol = if salt == 1 { Protocol::Udp } else { Protocol::Tcp };
        enter(&mut world, name, Setup { protocol, ..setup(Negotiation::Single, 80 + salt as u64) });
    }
    world.run_until(all_connected, 5 * SECOND).expect("all connect");
    world.run_until(all_see_all, 3 * SECOND).expect("all see all");
    world.run(3 * SECOND);
    check_streams(&world, Duration::from_millis(200));
    all_leave(&mut world);
}

#[test]
fn the_same_seed_is_the_same_call() {
    let digest = |seed| afresh(move || call(Conditions::lossy(0.05), seed, Negotiation::Single).digest());
    assert_eq!(digest(9), digest(9));
    assert_ne!(digest(9), digest(10));
}
