//! An independent implementation of everything, webrtc-rs, in a call: it opens and reads all we send, across the rollover
//! of sequence numbers, ICE restarts and renegotiations, and what it publishes is seen.

use std::time::Duration;

use parlour::sfu::Negotiation;

use crate::client::Source;
use crate::guest::{Guest, Suite};
use crate::network::Conditions;
use crate::room::{enter, setup};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const GAP: Duration = Duration::from_millis(200);
/// A seed with which both of the first stream's numbers begin close below 2^15, the highest they may.
const NEAR_THE_END: u64 = 323;
const SUITES: [Suite; 2] = [Suite::Srtp_Aead_Aes_128_Gcm, Suite::Srtp_Aes128_Cm_Hmac_Sha1_80];

fn sees(publisher: usize) -> impl Fn(&Guest, &World) -> bool {
    move |guest, _| [false, true].iter().all(|video| !guest.diary.from(publisher, *video).is_empty())
}

/// Every packet that came was authentic and could be read.
fn check_seals(guest: &mut Guest) {
    check_most_seals(guest, 0);
}

/// The same; so many packets may have come while webrtc-rs neither listened nor said so.
fn check_most_seals(guest: &mut Guest, ignored: u64) {
    for line in [Some(&mut guest.publisher), guest.subscriber.as_mut()].into_iter().flatten() {
        let tally = line.tally();
        let opened = line.delivered.saturating_sub(ignored)..=line.delivered;
        assert!(opened.contains(&tally.all()), "{} of {opened:?} packets were opened", tally.all());
    }
    assert_eq!(guest.diary.unreadable, 0, "payloads arrive untouched");
}

/// Without loss every stream is perfect.
fn check_streams(guest: &Guest, world: &World) {
    for stream in guest.diary.streams.values() {
        assert_eq!(stream.holes(world.now), Vec::<u64>::new());
        if stream.packets[0].vp8.is_some() {
            let playback = stream.play_video(world.now);
            assert!(playback.longest_gap <= GAP && playback.broken == 0, "{playback:?}");
            stream.check_timestamps(90_000, GAP, world.now);
        } else {
            assert!(stream.play_audio().1 <= GAP);
            stream.check_timestamps(48_000, GAP, world.now);
        }
    }
}

fn call(negotiation: Negotiation, suite: Suite, seed: u64) -> (World, Guest) {
    let mut world = World::new(seed);
    enter(&mut world, "alice", setup(Negotiation::Single, seed));
    let mut guest = Guest::join(&mut world, negotiation, &[suite], Conditions::GOOD);
    guest.run_until(&mut world, 5 * SECOND, |guest, _| guest.is_connected()).expect("connects");
    guest.run_until(&mut world, 3 * SECOND, sees(0)).expect("sees and hears");
    (world, guest)
}

#[test]
fn all_that_is_sent_can_be_opened() {
    for (negotiation, suite) in
        [(Negotiation::Single, SUITES[0]), (Negotiation::Single, SUITES[1]), (Negotiation::Dual, SUITES[0])]
    {
        let (mut world, mut guest) = call(negotiation, suite, 60);
        guest.run(&mut world, 5 * SECOND);
        check_seals(&mut guest);
        check_streams(&guest, &world);
        assert!(guest.diary.video(0).play_video(world.now).frames >= 90);
        assert!(guest.diary.audio(0).play_audio().0 >= 240);
        let tally = guest.receiving().tally();
        assert!(tally.rtp > 500 && tally.rtcp > 3, "{tally:?}");
    }
}

#[test]
fn what_is_lost_comes_again() {
    for suite in SUITES {
        let (mut world, mut guest) = call(Negotiation::Single, suite, 61);
        guest.publisher.downlink.set(Conditions::lossy(0.05), 61);
        guest.run(&mut world, 10 * SECOND);
        check_seals(&mut guest);
        let video = guest.diary.video(0);
        // webrtc-rs asks every 100 ms, and again when a retransmission is lost too.
        assert_eq!(video.holes(world.now - SECOND), Vec::<u64>::new());
        let playback = video.play_video(world.now - SECOND);
        assert!(playback.broken == 0 && playback.longest_gap <= SECOND, "{playback:?}");
        assert_eq!(guest.publisher.tally().streams.len(), 3, "one of them brings what was lost");
    }
}

/// The rollover counter of SRTP (RFC 3711 §3.3.1) is never sent: both sides must count alike, of media and of
/// retransmissions.
fn sequence_numbers_start_over(suite: Suite) {
    let mut world = World::new(NEAR_THE_END);
    let alice = world.join_with("alice", setup(Negotiation::Single, NEAR_THE_END));
    let now = world.now;
    let camera = world.clients[alice].publish_camera(now, false);
    let Source::Camera(source) = &mut world.clients[alice].tracks[camera].source else { panic!("a camera") };
    source.set_packets(150);
    let mut guest = Guest::join(&mut world, Negotiation::Single, &[suite], Conditions::GOOD);
    guest.publisher.insatiable = true;
    let over = |guest: &Guest, _: &World| {
        let tally = guest.publisher.tally();
        tally.streams.len() == 2 && tally.streams.values().all(|(last, wraps)| *wraps > 0 && *last > 1000)
    };
    guest.run_until(&mut world, 60 * SECOND, over).expect("media and retransmissions start over");
    check_seals(&mut guest);
    // So much video waits until its path is measured; nothing of what was sent is missing.
    assert_eq!(guest.diary.video(0).holes(world.now), Vec::<u64>::new());
    assert_eq!(guest.diary.video(0).play_video(world.now).broken, 0);
}

#[test]
fn sequence_numbers_start_over_with_gcm() {
    sequence_numbers_start_over(SUITES[0]);
}

#[test]
fn sequence_numbers_start_over_with_cm() {
    sequence_numbers_start_over(SUITES[1]);
}

#[test]
fn ice_restarts() {
    for (negotiation, suite) in [(Negotiation::Single, SUITES[0]), (Negotiation::Dual, SUITES[1])] {
        let (mut world, mut guest) = call(negotiation, suite, 63);
        for restarts in 1..=3 {
            let answers = guest.answers;
            guest.restart_ice(&mut world);
            guest.run(&mut world, 3 * SECOND);
            assert_eq!(guest.answers, answers + 1);
            check_most_seals(&mut guest, restarts);
            let last = guest.diary.audio(0).packets.last().expect("some").at;
            assert!(world.now - last < GAP, "goes on after the restart");
        }
        // What webrtc-rs ignores during a restart it does not ask for, but for the keyframe after it.
        let playback = guest.diary.video(0).play_video(world.now);
        assert!(playback.longest_gap <= 3 * SECOND / 2, "{playback:?}");
    }
}

/// Somebody comes, goes and comes again: sections are used again, other streams go on untouched.
#[test]
fn others_come_and_go() {
    for (seed, suite) in (64..).zip(SUITES) {
        let (mut world, mut guest) = call(Negotiation::Single, suite, seed);
        for round in 1..=4 {
            let bob = enter(&mut world, "bob", setup(Negotiation::Single, seed * 10 + round));
            guest.run_until(&mut world, 5 * SECOND, sees(bob)).expect("sees and hears the new one");
            guest.run(&mut world, SECOND);
            check_seals(&mut guest);
            check_streams(&guest, &world);
            world.leave(bob);
            guest.run(&mut world, SECOND);
            check_seals(&mut guest);
            let last = guest.diary.audio(0).packets.last().expect("some").at;
            assert!(world.now - last < GAP, "who stays is heard on");
        }
        let sdp = guest.publisher.pc.local_description().expect("negotiated").sdp;
        assert_eq!(sdp.matches("m=").count(), 7, "sections are used again");
    }
}

#[test]
fn what_it_publishes_is_seen() {
    for (negotiation, suite) in [(Negotiation::Single, SUITES[1]), (Negotiation::Dual, SUITES[0])] {
        let (mut world, mut guest) = call(negotiation, suite, 66);
        guest.publish_microphone(&mut world);
        guest.publish_camera(&mut world);
        guest.run(&mut world, 5 * SECOND);
        let diary = &world.clients[0].diary;
        let publisher = usize::from(Guest::INDEX);
        let video = diary.video(publisher);
        let playback = video.play_video(world.now);
        assert!(playback.frames >= 80 && playback.longest_gap <= GAP && playback.broken == 0, "{playback:?}");
        assert_eq!(video.holes(world.now), Vec::<u64>::new());
        assert!(diary.audio(publisher).play_audio().0 >= 230);
        check_seals(&mut guest);
        // And with losses on its way to us.
        guest.publisher.uplink.set(Conditions::lossy(0.05), 66);
        guest.run(&mut world, 8 * SECOND);
        let playback = world.clients[0].diary.video(publisher).play_video(world.now - SECOND);
        assert!(playback.longest_gap <= SECOND, "{playback:?}");
    }
}
