//! Authentic RTP that no encoder made.

use std::time::Duration;

use fastrand::Rng;
use parlour::sfu::Negotiation;
use parlour::transport::sdp::SectionKind;

use crate::armed::{Arsenal, Label, MALLORY, newest_by_ssrc, withstand};
use crate::world::World;

const TICK: Duration = Duration::from_millis(1);
const VP8: u8 = 96;
const OPUS: u8 = 111;

fn random(rng: &mut Rng, length: usize) -> Vec<u8> {
    (0..length).map(|_| rng.u8(..)).collect()
}

/// Every packet belongs to another stream, most of which claim a place among the tracks.
#[test]
fn streams_by_the_thousand() {
    for negotiation in [Negotiation::Single, Negotiation::Dual] {
        withstand(negotiation, |world, arsenal| {
            let mut rng = Rng::with_seed(31);
            let mids = [arsenal.mid(SectionKind::Audio), arsenal.mid(SectionKind::Video), "nope".into()];
            // As many as there is time for: what is kept for each would show.
            for round in 0..60_000u32 {
                let ssrc = 0x5000_0000 + round;
                let mid = (round % 4 < 3).then(|| mids[round as usize % 3].clone());
                let rid = (round % 2 == 0).then(|| ["q", "h", "f", "x"][rng.usize(0..4)]);
                let pt = if round % 3 == 0 { OPUS } else { VP8 };
                let label = Label { mid, rid, number: Some(1000 + round as u16 / 8) };
                let payload = random(&mut rng, 50);
                let (header_len, packet) = arsenal.packet(ssrc, pt, 7, &label, &payload);
                let sealed = arsenal.media(header_len, 7, packet).expect("the first");
                arsenal.forget(ssrc);
                arsenal.send(world, &sealed);
                if round % 10 == 0 {
                    world.run(TICK);
                }
            }
            assert!(world.clients[MALLORY].left.is_none());
        });
    }
}

/// Strangers who send in a participant's name, without keys, that its tracks are another stream now. Browsers name the track
/// in their first packets only, so those that follow would be nobody's.
#[test]
fn streams_that_are_not_authentic() {
    withstand(Negotiation::Single, |world, arsenal| {
        let (ssrc, _, mut index) = audio_stream(world, arsenal);
        let says = |world: &World| world.clients[0].diary.unreadable;
        let mid = arsenal.mid(SectionKind::Audio);
        let mut speak = |world: &mut World, arsenal: &mut Arsenal| {
            let before = says(world);
            for _ in 0..5 {
                index += 1;
                let (header_len, packet) = arsenal.packet(ssrc, OPUS, index as u16, &Label::default(), b"hello");
                let packet = arsenal.media(header_len, index, packet).expect("a new number");
                arsenal.send(world, &packet);
                world.run(20 * TICK);
            }
            world.run(100 * TICK);
            says(world) - before
        };
        assert_eq!(speak(world, arsenal), 5);
        for other in 0x6000_0000..0x6000_0064 {
            let label = Label { mid: Some(mid.clone()), ..Label::default() };
            let (_, packet) = arsenal.packet(other, OPUS, 7, &label, &[0x55; 60]);
            arsenal.send(world, &packet);
            world.run(TICK);
        }
        assert_eq!(speak(world, arsenal), 5);
    });
}

/// Sends packets with such transport-wide numbers, one each millisecond.
fn send_numbers(world: &mut World, arsenal: &mut Arsenal, numbers: impl Iterator<Item = u16>) {
    let (ssrc, _, mut index) = audio_stream(world, arsenal);
    for number in numbers {
        index += 1;
        let label = Label { number: Some(number), ..Label::default() };
        let (header_len, packet) = arsenal.packet(ssrc, OPUS, index as u16, &label, b"hello");
        let packet = arsenal.media(header_len, index, packet).expect("a new number");
        arsenal.send(world, &packet);
        world.run(TICK);
    }
}

/// Transport-wide numbers from before the first: of two packets, one counts up and one cannot have been sent.
#[test]
fn numbers_that_go_back() {
    for negotiation in [Negotiation::Single, Negotiation::Dual] {
        withstand(negotiation, |world, arsenal| {
            let mut rng = Rng::with_seed(35);
            let numbers = (1000..2000).flat_map(|number| [number, 0xa000 | rng.u16(..)]);
            send_numbers(world, arsenal, numbers);
            assert!(world.clients[MALLORY].left.is_none());
        });
    }
}

/// Numbers by which millions of packets were lost. str0m counts them in 16 bits, which with overflow checks ends the
/// connection: that of who sent them.
#[test]
fn numbers_that_leap() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|at| at.file().contains("str0m")) {
            usual(info);
        }
    }));
    for negotiation in [Negotiation::Single, Negotiation::Dual] {
        withstand(negotiation, |world, arsenal| {
            send_numbers(world, arsenal, (0..2000u16).map(|n| n.wrapping_mul(20_000)));
        });
    }
}

/// Mallory's own streams, which its client leaves to the forger from now on: SSRC, payload type, and the last number.
fn own_streams(world: &mut World, arsenal: &Arsenal) -> Vec<(u32, u8, u64)> {
    world.record = Some(Vec::new());
    world.run(200 * TICK);
    world.clients[MALLORY].tracks.iter_mut().for_each(|track| track.live = false);
    world.run(200 * TICK);
    let record = world.record.take().expect("recorded");
    let streams = newest_by_ssrc(&record, arsenal.address);
    assert!(streams.len() >= 4, "{streams:?}");
    // The camera began close to the wrap: those that are small now have wrapped once.
    let index = |pt: u8, sequence: u16| {
        if pt != OPUS && sequence < 30_000 { 65_536 + u64::from(sequence) } else { sequence.into() }
    };
    streams.into_iter().map(|(ssrc, (pt, sequence))| (ssrc, pt, index(pt, sequence))).collect()
}

fn audio_stream(world: &mut World, arsenal: &Arsenal) -> (u32, u8, u64) {
    own_streams(world, arsenal).into_iter().find(|(_, pt, _)| *pt == OPUS).expect("it speaks")
}

/// Headers that end nowhere, padding longer than the packet, sources that are not there, sizes beyond every path.
#[test]
fn malformed_packets() {
    withstand(Negotiation::Single, |world, arsenal| {
        let mut rng = Rng::with_seed(33);
        let mut streams = own_streams(world, arsenal);
        for round in 0..3000 {
            let at = rng.usize(0..streams.len());
            let (ssrc, pt, index) = &mut streams[at];
            *index += if rng.u8(0..50) == 0 { rng.u64(1..40_000) } else { 1 };
            let length = [0, 1, 20, 1100, 1400, 1460, 1484, 1499, 9000, 60_000][rng.usize(0..10)];
            let payload = random(&mut rng, length);
            let label = Label { number: rng.bool().then_some(1000 + round), ..Label::default() };
            let (header_len, mut packet) = arsenal.packet(*ssrc, *pt, *index as u16, &label, &payload);
            match rng.u8(0..8) {
                // Padding.
                0 => packet[0] |= 0x20,
                1 => {
                    packet[0] |= 0x20;
                    *packet.last_mut().expect("a header") = [0, 1, 255][rng.usize(0..3)];
                }
                // Contributing sources that are not there.
                2 => packet[0] |= rng.u8(1..16),
                // An extension of another form, or of none.
                3 => {
                    packet[12..14].copy_from_slice(&[[0x10, 0x00], [0x10, 0x0f], [0xbe, 0xdd], [0, 0]][rng.usize(0..4)])
                }
                // One that ends beyond the packet.
                4 => packet[14..16].copy_from_slice(&rng.u16(..).to_be_bytes()),
                // Elements that do.
                5 if header_len > 16 => packet[16] |= 0x0f,
                6 => packet[1] = rng.u8(..) & 0x7f,
                _ => {}
            }
            // Where the header ends now, as far as it can be told.
            let clear = parlour::rtp::header::Packet::parse(&packet).map_or(packet.len().min(12), |p| p.header_len);
            if let Some(sealed) = arsenal.media(clear, *index, packet) {
                arsenal.send(world, &sealed);
            }
            world.run(TICK);
        }
    });
}

/// On a published track: payloads whose first bytes promise what does not follow. They are VP8's by their payload type, and
/// whatever else the publisher may name.
#[test]
fn malformed_payloads() {
    withstand(Negotiation::Single, |world, arsenal| {
        let mut rng = Rng::with_seed(34);
        let mut streams = own_streams(world, arsenal);
        let types: Vec<u8> = arsenal.published(SectionKind::Video).codecs.iter().map(|codec| codec.pt).collect();
        assert!(types.len() > 4);
        for round in 0..5000u64 {
            let at = rng.usize(0..streams.len());
            let (ssrc, pt, index) = &mut streams[at];
            *index += 1;
            let length = rng.usize(0..24);
            let mut payload = random(&mut rng, length);
            let starts: [&[u8]; 9] = [
                // VP8: every optional field; a long picture id that is cut; partitions.
                &[0x90, 0xf0, 0x80],
                &[0x90, 0x80],
                &[0x9f, 0xff, 0xff, 0xff, 0xff, 0xff],
                // VP9: flexible mode with references, scalability structure.
                &[0xff, 0xff],
                &[0x0a, 0xff, 0xff, 0xff],
                // H.264: aggregates and fragments.
                &[0x78, 0xff, 0xff],
                &[0x7c, 0xc5],
                &[0x18, 0x00, 0x00],
                // AV1: aggregation header with lengths beyond.
                &[0xf8, 0xff, 0xff, 0xff, 0xff],
            ];
            payload.splice(0..0, starts[rng.usize(0..9)].iter().copied());
            let pt = if *pt == VP8 && round % 3 == 0 { types[rng.usize(0..types.len())] } else { *pt };
            let (header_len, mut packet) = arsenal.packet(*ssrc, pt, *index as u16, &Label::default(), &payload);
            packet[4..8].copy_from_slice(&rng.u32(..).to_be_bytes());
            if rng.bool() {
                packet[1] |= 0x80;
            }
            if let Some(sealed) = arsenal.media(header_len, *index, packet) {
                arsenal.send(world, &sealed);
            }
            world.run(TICK);
        }
    });
}
