//! Nonsense from the network and from a participant: nothing panics, and the others notice nothing.

use std::net::SocketAddr;
use std::time::Duration;

use parlour::sfu::{AddTrackError, EventKind, LeaveReason, MediaKind, Negotiation};
use parlour::transport::Protocol;
use str0m::media::{KeyframeRequestKind, Pt};
use str0m::rtp::RtpWrite;

use crate::client::Request;
use crate::room::{all_connected, all_see_all, check_streams, enter, setup, three};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const SINGLE: Negotiation = Negotiation::Single;

pub fn pair() -> World {
    let mut world = World::new(11);
    for (seed, name) in [(1, "alice"), (2, "bob")] {
        enter(&mut world, name, setup(SINGLE, seed));
    }
    world.run_until(all_connected, 5 * SECOND).expect("connect");
    world.run_until(all_see_all, 3 * SECOND).expect("see each other");
    world
}

/// Both are still there and missed nothing.
pub fn check_undisturbed(world: &World) {
    for viewer in [0, 1] {
        assert!(world.clients[viewer].left.is_none());
        let playback = world.clients[viewer].diary.video(1 - viewer).play_video(world.now);
        assert!(playback.longest_gap <= SECOND / 5, "{playback:?}");
        assert_eq!(playback.broken, 0);
        assert!(world.now - playback.last.expect("some") < SECOND / 5);
    }
}

fn bytes(rng: &mut fastrand::Rng, first: std::ops::RangeInclusive<u8>, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
    if let Some(byte) = bytes.first_mut() {
        *byte = rng.u8(first);
    }
    bytes
}

/// A binding request that anybody could send.
pub fn stun(username: &str) -> Vec<u8> {
    let mut attribute = vec![0, 6];
    attribute.extend((username.len() as u16).to_be_bytes());
    attribute.extend(username.as_bytes());
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    let mut message = vec![0, 1];
    message.extend((attribute.len() as u16).to_be_bytes());
    message.extend([0x21, 0x12, 0xa4, 0x42]);
    message.extend([9; 12]);
    message.extend(attribute);
    message
}

/// Packets that went nowhere, for whatever reason.
fn dropped(world: &World) -> u64 {
    let counts = world.sfu.counts();
    counts.packets_unknown + counts.packets_oversized
}

#[test]
fn garbage_from_strangers() {
    let mut world = pair();
    let mut rng = fastrand::Rng::with_seed(1);
    let before = dropped(&world);
    let mut sent = 0;
    for round in 0..200u16 {
        let source = SocketAddr::from(([192, 0, 2, 1], 1000 + round));
        for first in [0..=3, 20..=63, 64..=127, 128..=191, 0..=255] {
            let length = rng.usize(0..1600);
            world.inject(Protocol::Udp, source, &bytes(&mut rng, first, length));
            sent += 1;
        }
        world.inject(Protocol::Udp, source, &stun("nobody:home"));
        sent += 1;
        world.run(Duration::from_millis(10));
    }
    assert_eq!(dropped(&world) - before, sent);
    check_undisturbed(&world);
}

#[test]
fn garbage_in_the_name_of_a_participant() {
    for protocol in [Protocol::Udp] {
        let mut world = pair();
        let alice = world.clients[0].publisher.public;
        let ours = world.clients[0].publisher.rtc.direct_api().local_ice_credentials().ufrag;
        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..300 {
            for first in [0..=3, 20..=63, 128..=191, 0..=255] {
                let length = rng.usize(0..1600);
                world.inject(protocol, alice, &bytes(&mut rng, first, length));
            }
            world.inject(protocol, alice, &stun(&format!("nobody:{ours}")));
            // DTLS records that look real: an alert, a handshake, application data, all from epoch 0 and 1.
            for (kind, epoch) in [(21u8, 0u8), (21, 1), (22, 0), (22, 1), (23, 1), (20, 0)] {
                let mut record = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, rng.u8(..), 0, 2, 2, 0];
                record[14] = rng.u8(..);
                world.inject(protocol, alice, &record);
            }
            world.run(Duration::from_millis(10));
        }
        check_undisturbed(&world);
    }
}

#[test]
fn checks_that_do_not_know_the_password() {
    let mut world = pair();
    let stranger = SocketAddr::from(([192, 0, 2, 1], 4000));
    // The fragment travels in the clear, so a watcher knows it.
    let answer = world.clients[0].answers;
    world.clients[0].offer();
    world.run_until(|w| w.clients[0].answers > answer, SECOND).expect("an answer");
    let fragment = world.clients[0].server_ufrag.clone();
    for _ in 0..100 {
        world.inject(Protocol::Udp, stranger, &stun(&format!("{fragment}:whatever")));
        world.run(Duration::from_millis(20));
    }
    check_undisturbed(&world);
}

#[test]
fn oversized_packets_are_dropped() {
    let mut world = pair();
    let alice = world.clients[0].publisher.public;
    let dropped = world.sfu.counts().packets_oversized;
    for length in [1501, 2000, 9000, 65_000] {
        let mut packet = vec![0u8; length];
        packet[0] = 0x90;
        world.inject(Protocol::Udp, alice, &packet);
    }
    assert_eq!(world.sfu.counts().packets_oversized - dropped, 4);
    world.run(SECOND);
    check_undisturbed(&world);
}

fn mid(sdp: &str, section: usize) -> String {
    let lines: Vec<&str> = sdp.split("\r\n").filter_map(|l| l.strip_prefix("a=mid:")).collect();
    lines[section].to_owned()
}

fn with_mid(sdp: &str, section: usize, mid: &str) -> String {
    let mut seen = 0;
    let lines = sdp.split("\r\n").map(|line| {
        let this = line.starts_with("a=mid:") && seen == section;
        seen += usize::from(line.starts_with("a=mid:"));
        if this { format!("a=mid:{mid}") } else { line.to_owned() }
    });
    lines.collect::<Vec<String>>().join("\r\n")
}

/// Offers that cannot be used end their sender with a reason, and nobody else.
#[test]
fn offers_that_are_nonsense() {
    let mut world = pair();
    let good = {
        let probe = enter(&mut world, "probe", setup(SINGLE, 3));
        let Some(Request::Offer { sdp, .. }) = world.clients[probe].outbox.first().cloned() else { panic!("an offer") };
        world.leave(probe);
        world.run(SECOND);
        sdp
    };
    let cases = [
        ("empty", String::new()),
        ("no sections", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n".into()),
        ("not SDP", "\u{0}\u{1}\u{2} hello".repeat(1000)),
        ("cut", good[..good.len() / 2].to_owned()),
        ("no credentials", good.replace("a=ice-ufrag", "a=x-ufrag")),
        ("no fingerprint", good.replace("a=fingerprint", "a=x")),
        ("one id twice", with_mid(&good, 2, &mid(&good, 1))),
        ("too large", format!("{good}{}", "a=x:y\r\n".repeat(100_000))),
        ("too many sections", {
            let section = good.rfind("m=").expect("sections");
            let one = good[section..].to_owned();
            let many = (0..2000).map(|n| one.replace("a=mid:", &format!("a=mid:n{n}")));
            good[..section].to_owned() + &many.collect::<String>()
        }),
    ];
    for (what, sdp) in cases {
        for negotiation in [SINGLE, Negotiation::Dual] {
            let now = world.clock();
            let mallory = world.join_by_hand("mallory", negotiation);
            world.sfu.offer(now, mallory, 1, &sdp);
            world.run(Duration::from_millis(100));
            let told = &world.told[&mallory];
            let left = told.contains(&EventKind::Left(LeaveReason::StateMismatch));
            assert!(left, "{what}: {told:?}");
        }
    }
    check_undisturbed(&world);
}

#[test]
fn second_offers_that_do_not_fit_the_first() {
    let mut world = pair();
    let probe = world.join("probe");
    let Some(Request::Offer { sdp: good, .. }) = world.clients[probe].outbox.first().cloned() else {
        panic!("an offer")
    };
    let last = good.rfind("m=").expect("sections");
    let cases = [
        ("shrunk", good[..last].to_owned()),
        ("another id", with_mid(&good, 1, "9")),
        ("two swapped", with_mid(&with_mid(&good, 1, &mid(&good, 2)), 2, &mid(&good, 1))),
        ("another kind", good.replace("m=audio", "m=video")),
        ("garbage", "garbage".into()),
    ];
    for (what, sdp) in cases {
        let now = world.clock();
        let mallory = world.join_by_hand("mallory", SINGLE);
        world.sfu.offer(now, mallory, 1, &good);
        world.run(Duration::from_millis(50));
        assert!(world.sfu.info(mallory).is_some(), "{what}: the first is fine");
        let now = world.clock();
        world.sfu.offer(now, mallory, 2, &sdp);
        world.run(Duration::from_millis(50));
        assert!(world.sfu.info(mallory).is_none(), "{what}");
    }
    // The same offer again and again is only work.
    let mallory = world.join_by_hand("mallory", SINGLE);
    for id in 0..50 {
        let now = world.clock();
        world.sfu.offer(now, mallory, id, &good);
    }
    world.run(SECOND);
    assert!(world.sfu.info(mallory).is_some());
    check_undisturbed(&world);
}

/// Offers with some bytes changed: whatever they become, they are answered or refused.
#[test]
fn mutated_offers() {
    let mut world = pair();
    let probe = enter(&mut world, "probe", setup(SINGLE, 3));
    world.run(SECOND);
    let mut offers = vec![];
    let Some(sdp) = world.clients[probe].last_offer.clone() else { panic!("an offer") };
    world.leave(probe);
    let mut rng = fastrand::Rng::with_seed(5);
    let lines: Vec<&str> = sdp.split("\r\n").collect();
    for _ in 0..300 {
        let mut changed: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(0..changed.len());
            match rng.u8(0..5) {
                0 => {
                    changed.remove(at);
                }
                1 => changed.insert(at, changed[rng.usize(0..changed.len())].clone()),
                2 => changed[at] = changed[rng.usize(0..changed.len())].clone(),
                3 => {
                    changed[at] = changed[at]
                        .chars()
                        .map(|c| if rng.u8(0..8) == 0 { char::from(rng.u8(32..127)) } else { c })
                        .collect()
                }
                _ => {
                    changed[at] = changed[at]
                        .replace("recvonly", "sendrecv")
                        .replace("sendonly", "inactive")
                        .replace(" 96", " 111")
                }
            }
        }
        offers.push(changed.join("\r\n"));
    }
    for (round, offer) in offers.iter().enumerate() {
        let now = world.clock();
        let negotiation = if round % 4 == 0 { Negotiation::Dual } else { SINGLE };
        let mallory = world.join_by_hand("mallory", negotiation);
        // Half of them as a second offer after a good one.
        if round % 2 == 0 {
            world.sfu.offer(now, mallory, 1, &sdp);
        }
        world.sfu.offer(now, mallory, 2, offer);
        world.run(Duration::from_millis(30));
    }
    check_undisturbed(&world);
}

#[test]
fn media_that_is_nonsense() {
    let mut world = three([1, 2, 3].map(|seed| setup(SINGLE, seed)));
    world.run(SECOND);
    let (mallory, mut rng) = (2, fastrand::Rng::with_seed(6));
    let mids: Vec<_> = world.clients[mallory].tracks.iter().map(|t| (t.kind, t.mid.expect("negotiated"))).collect();
    world.clients[mallory].mute(0, true);
    world.clients[mallory].mute(1, true);
    world.run(SECOND);
    // Muted for its own cameras only.
    for track in [0, 1] {
        let (now, id) = (world.clock(), world.clients[mallory].id);
        let sid = world.clients[mallory].tracks[track].sid.clone().expect("published");
        world.sfu.set_muted(now, id, &sid, false);
    }
    for round in 0..2000u64 {
        let now = world.now;
        let (kind, mid) = mids[rng.usize(0..2)];
        let video = kind == MediaKind::Video;
        let rid = video.then(|| ["q", "h", "f"][rng.usize(0..3)].into());
        let length = rng.usize(0..1150);
        let mut payload: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
        if let (true, Some(first)) = (rng.bool(), payload.first_mut()) {
            // Keyframes of a kind.
            *first = 0x90;
        }
        let pt = if rng.u8(0..10) == 0 {
            rng.u8(96..127)
        } else if video {
            96
        } else {
            111
        };
        // Mostly forward, sometimes anywhere.
        let sequence = if rng.u8(0..20) == 0 { rng.u64(0..200_000) } else { 70_000 + round };
        let packet =
            RtpWrite::new(Pt::new_with_value(pt), sequence.into(), rng.u32(..), now, payload).marker(rng.bool());
        let client = &mut world.clients[mallory];
        if let Some(stream) = client.publisher.rtc.direct_api().stream_tx_by_mid(mid, rid) {
            stream.write_rtp(packet);
        }
        client.publisher.touch(now);
        world.run(Duration::from_millis(1));
    }
    world.run(SECOND);
    check_undisturbed(&world);
}

#[test]
fn a_flood_of_keyframe_requests() {
    let mut world = three([1, 2, 3].map(|seed| setup(SINGLE, seed)));
    world.run(SECOND);
    let before = world.clients[0].diary.keyframe_requests;
    let ssrcs: Vec<u32> = world.clients[2].diary.streams.keys().map(|(_, ssrc)| *ssrc).collect();
    for _ in 0..100 {
        let now = world.now;
        let mut api = world.clients[2].publisher.rtc.direct_api();
        for ssrc in &ssrcs {
            if let Some(stream) = api.stream_rx(&(*ssrc).into()) {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
        world.clients[2].publisher.touch(now);
        world.run(Duration::from_millis(50));
    }
    let asked = world.clients[0].diary.keyframe_requests - before;
    assert!((5..=20).contains(&asked), "{asked} in five seconds");
    check_streams(&world, SECOND / 5);
}

#[test]
fn too_many_tracks() {
    let mut world = pair();
    let now = world.now;
    for _ in 0..30 {
        world.clients[0].publish_microphone(now);
    }
    world.run(3 * SECOND);
    assert_eq!(world.errors.len(), 12);
    assert!(world.errors.iter().all(|(index, error)| *index == 0 && *error == AddTrackError::LimitExceeded));
    assert_eq!(world.sfu.counts().tracks, 22);
    check_undisturbed(&world);
}

#[test]
fn a_flood_of_messages() {
    let mut world = three([setup(SINGLE, 1), setup(SINGLE, 2), setup(Negotiation::Dual, 3)]);
    // Bob does not hear it for a while.
    for round in 0..200u32 {
        let now = world.now;
        world.clients[0].send_data(now, "_reliable", &vec![7; 60_000]);
        world.clients[0].send_data(now, "_lossy", &round.to_be_bytes());
        world.run(Duration::from_millis(20));
    }
    world.run(2 * SECOND);
    assert!(world.clients.iter().all(|c| c.left.is_none()));
    for listener in [1, 2] {
        let messages = &world.clients[listener].diary.messages;
        assert!(messages.iter().filter(|(_, m)| m.len() == 60_000).count() > 10);
    }
    check_streams(&world, SECOND);
}
