//! Authentic RTCP that lies: feedback on packets never sent, storms of requests. The worst that it achieves is a bad call for
//! who sends it.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use parlour::rtp::rtcp::{write_full_intra_request, write_nack, write_picture_loss};
use parlour::sfu::Negotiation;

use crate::armed::{FORGER, MALLORY, withstand};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(1);
const PER_TICK: usize = 10;

/// SSRCs of what the server sends to Mallory: audio and video of two.
fn received_ssrcs(world: &World) -> Vec<u32> {
    let ssrcs: Vec<u32> = world.clients[MALLORY].diary.streams.keys().map(|(_, ssrc)| *ssrc).collect();
    assert_eq!(ssrcs.len(), 4);
    ssrcs
}

fn sent_to(world: &World, address: SocketAddr) -> u64 {
    world.sent.get(&address).copied().unwrap_or_default()
}

/// Ten thousand datagrams a second.
fn storm(world: &mut World, seconds: u32, mut shoot: impl FnMut(&mut World, usize)) {
    for round in 0..1000 * seconds as usize {
        for shot in 0..PER_TICK {
            shoot(world, round * PER_TICK + shot);
        }
        world.run(TICK);
    }
}

struct Feedback {
    base: u16,
    count: u16,
    reference: u32,
    number: u8,
}

impl Feedback {
    fn write(&self, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x8f, 205, 0, 0];
        bytes.extend(FORGER.to_be_bytes());
        bytes.extend(0u32.to_be_bytes());
        bytes.extend(self.base.to_be_bytes());
        bytes.extend(self.count.to_be_bytes());
        bytes.extend((self.reference << 8 | u32::from(self.number)).to_be_bytes());
        bytes.extend(rest);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let words = bytes.len() as u16 / 4 - 1;
        bytes[2..4].copy_from_slice(&words.to_be_bytes());
        bytes
    }
}

fn random(rng: &mut Rng, length: usize) -> Vec<u8> {
    (0..length).map(|_| rng.u8(..)).collect()
}

/// One of many lies about packets, some of which were really sent: numbers count from zero.
fn forged_feedback(rng: &mut Rng, kind: usize, sent: u64) -> Vec<u8> {
    let base = if rng.bool() { rng.u16(..) } else { rng.u64(0..sent.max(1)) as u16 };
    let feedback = |count| Feedback { base, count, reference: u32::from(base) * 3, number: kind as u8 };
    match kind % 8 {
        // Nothing of 65,535 packets arrived: eight runs.
        0 => feedback(u16::MAX).write(&[0x1f, 0xff].repeat(9)),
        // A thousand arrived at once.
        1 => feedback(1000)
            .write(&[&[0x20 | 1000u16.to_be_bytes()[0], 1000u16.to_be_bytes()[1]][..], &[0; 1000]].concat()),
        // Each eight seconds before the one before, and after.
        2 | 3 => {
            let delta = if kind % 8 == 2 { i16::MIN } else { i16::MAX };
            feedback(500).write(&[&[0x41, 0xf4][..], &delta.to_be_bytes().repeat(500)].concat())
        }
        // A clock that jumps.
        4 => Feedback { reference: rng.u32(..) & 0xff_ffff, ..feedback(20) }
            .write(&[&[0x20, 20][..], &random(rng, 20)].concat()),
        // Always the same.
        5 => Feedback { base: 100, count: 50, reference: 1, number: 1 }.write(&[&[0x20, 50][..], &[4; 50]].concat()),
        // More than there is.
        6 => feedback(rng.u16(..)).write(&[0x20, 0xff, 1, 2, 3]),
        _ => {
            let length = rng.usize(0..1200);
            feedback(rng.u16(..)).write(&random(rng, length))
        }
    }
}

#[test]
fn forged_transport_wide_feedback() {
    withstand(Negotiation::Single, |world, arsenal| {
        let mut rng = Rng::with_seed(21);
        let before = sent_to(world, arsenal.address);
        let began = world.now;
        storm(world, 1, |world, shot| {
            let sent = world.sfu.counts().packets_forwarded / 3;
            let report = forged_feedback(&mut rng, shot, sent);
            arsenal.send_report(world, &report);
        });
        // It may have less, or as much as the others send; and probes.
        let rate = (sent_to(world, arsenal.address) - before) * 8 / (world.now - began).as_secs();
        assert!(rate < 5_000_000, "{rate} bit/s");
        assert!(world.clients[MALLORY].left.is_none());
        // Feedback that is only believed in part does not stop the call for good.
        world.run(20 * SECOND);
        for publisher in [0, 1] {
            let playback = world.clients[MALLORY].diary.video(publisher).play_video(world.now);
            assert!(world.now - playback.last.expect("some") < SECOND, "{playback:?}");
        }
    });
}

const VIDEO: u8 = 96;
const RETRANSMISSION: u8 = 97;

/// Of each stream half of its bytes may be sent again, and 96 KiB that were saved up.
#[test]
fn requests_for_every_packet() {
    withstand(Negotiation::Single, |world, arsenal| {
        let ssrcs = received_ssrcs(world);
        let bytes = |world: &World, pt| world.clients[MALLORY].publisher.seals.bytes.get(&pt).copied().unwrap_or(0);
        let (video, again) = (bytes(world, VIDEO), bytes(world, RETRANSMISSION));
        let (paced, began) = (world.sfu.counts().packets_paced, world.now);
        let mut rng = Rng::with_seed(22);
        // Three hundred entries name 5,100 numbers: thirteen datagrams name all of them.
        storm(world, 3, |world, shot| {
            let mut report = Vec::new();
            let first = (shot as u16).wrapping_mul(5100);
            let ssrc = match shot % 6 {
                at @ 0..4 => ssrcs[at],
                // Nobody's, and somebody else's.
                4 => rng.u32(..),
                _ => *world.clients[0].diary.streams.keys().map(|(_, ssrc)| ssrc).next().expect("some"),
            };
            write_nack(&mut report, FORGER, ssrc, (0..5100u16).map(|n| first.wrapping_add(n)));
            arsenal.send_report(world, &report);
        });
        let (video, again) = (bytes(world, VIDEO) - video, bytes(world, RETRANSMISSION) - again);
        let bound = video / 2 + 2 * (96 << 10);
        assert!(again > video / 4, "the storm asked for what there was: {again} bytes of {video}");
        assert!(again <= bound, "{again} bytes of {video} again, at most {bound}");
        // What waits so as not to leave in a burst is new: nobody else's packets wait because of it.
        let paced = world.sfu.counts().packets_paced - paced;
        assert!(paced < 100 * (world.now - began).as_secs(), "{paced} packets waited");
    });
}

/// sfu.md: a publisher is asked at once, then once for each keyframe that it sent, 300 ms apart.
#[test]
fn requests_for_keyframes() {
    for intra in [false, true] {
        withstand(Negotiation::Single, |world, arsenal| {
            let ssrcs = received_ssrcs(world);
            let before = [0, 1].map(|publisher| world.clients[publisher].diary.keyframe_requests);
            let mut rng = Rng::with_seed(23);
            storm(world, 3, |world, shot| {
                let mut report = Vec::new();
                let ssrc = if shot % 8 == 7 { rng.u32(..) } else { ssrcs[shot % 4] };
                if intra {
                    write_full_intra_request(&mut report, FORGER, &[(ssrc, shot as u8), (ssrc, shot as u8 ^ 0x80)]);
                } else {
                    write_picture_loss(&mut report, FORGER, ssrc);
                }
                arsenal.send_report(world, &report);
            });
            for publisher in [0, 1] {
                let asked = world.clients[publisher].diary.keyframe_requests - before[publisher];
                assert!((3..=11).contains(&asked), "{asked} in three seconds");
            }
        });
    }
}

/// What str0m reads of the reports, beside our egress: sender reports, goodbyes, extended reports; whole, cut, and with lengths
/// that point elsewhere. Also on a connection on which we only receive, where it reads all of them.
#[test]
fn malformed_compounds() {
    for negotiation in [Negotiation::Single, Negotiation::Dual] {
        withstand(negotiation, |world, arsenal| {
            let mut rng = Rng::with_seed(24);
            storm(world, 1, |world, _| {
                let mut compound = Vec::new();
                for _ in 0..rng.usize(1..5) {
                    let kind = [200, 201, 202, 204, 205, 206, 207, 208][rng.usize(0..8)];
                    let length = rng.usize(0..60) * 4 + 4;
                    let words = if rng.u8(0..4) == 0 { rng.u16(..) } else { length as u16 / 4 };
                    let mut packet = vec![0x80 | rng.u8(0..64), kind];
                    packet.extend(words.to_be_bytes());
                    packet.extend(FORGER.to_be_bytes());
                    packet.extend(random(&mut rng, length - 4));
                    compound.extend(packet);
                }
                compound.truncate(1400);
                if rng.u8(0..4) == 0 {
                    compound.truncate(rng.usize(8..compound.len().max(9)));
                }
                compound[1] = compound[1].clamp(192, 223);
                arsenal.send_report(world, &compound);
            });
        });
    }
}
