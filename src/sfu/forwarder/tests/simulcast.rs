//! Simulcast publishers over a bad network, in virtual time, against a reference receiver.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Longest time a retransmission takes.
const RETRANSMISSION_MS: u64 = 240;

/// How bad the network is, in percent of the packets.
#[derive(Debug, Clone, Copy)]
struct Network {
    lost: u64,
    retransmitted: u64,
    doubled: u64,
    /// Largest delay of a packet.
    jitter: Duration,
}

/// A packet on its way to us.
#[derive(Debug, Clone)]
struct Packet {
    layer: u8,
    sequence: u64,
    timestamp: u32,
    keyframe_start: bool,
    marker: bool,
    empty: bool,
    vp8: PictureNumbers,
    captured: Duration,
}

/// A delivery and what became of it.
struct Delivery {
    packet: Packet,
    target: Option<u8>,
    out: Option<Outgoing>,
}

/// Three layers of VP8 with two temporal layers at 30 frames a second, each with numbers of its own.
fn publish(random: &mut Random, frames: u64) -> Vec<Packet> {
    let mut packets = Vec::new();
    let wide = random.percent(50);
    for layer in 0..3u8 {
        let mut sequence = random.below(1 << 16);
        let timestamp = random.below(1 << 32) as u32;
        let (mut id, mut tl0, mut keyidx) = (random.below(1 << 15) as u16, random.below(256) as u8, 0u8);
        let mut tid = 0;
        for n in 0..frames {
            let keyframe = n == 0 || random.percent(8);
            tid = if keyframe { 0 } else { 1 - tid };
            id = id.wrapping_add(1) & if wide { 0x7fff } else { 0x7f };
            tl0 = tl0.wrapping_add(u8::from(tid == 0));
            keyidx = keyidx.wrapping_add(u8::from(tid == 0)) & 0x1f;
            // Layers are encoded one after the other.
            let captured = ms(n * 33);
            let vp8 = PictureNumbers {
                picture_id: Some(PictureId { value: id, wide }),
                tl0_picture_index: Some(tl0),
                key_index: Some(keyidx),
            };
            let count = 1 + random.below(3) + 3 * u64::from(keyframe);
            for i in 0..count {
                packets.push(Packet {
                    layer,
                    sequence,
                    timestamp: timestamp.wrapping_add(n as u32 * 2970),
                    keyframe_start: keyframe && i == 0,
                    marker: i == count - 1,
                    empty: false,
                    vp8,
                    captured,
                });
                sequence += 1;
            }
            if random.percent(15) {
                for _ in 0..=random.below(4) {
                    let last = packets.last().expect("a frame has packets").clone();
                    packets.push(Packet { sequence, keyframe_start: false, marker: false, empty: true, ..last });
                    sequence += 1;
                }
            }
        }
    }
    packets
}

/// The order and time in which they arrive.
fn transmit(random: &mut Random, network: Network, packets: Vec<Packet>) -> Vec<(Duration, Packet)> {
    let mut arrivals = Vec::new();
    let jitter = network.jitter.as_micros() as u64;
    for (n, packet) in packets.into_iter().enumerate() {
        let base = packet.captured + Duration::from_micros(20_000 + n as u64 % 50 * 20);
        let mut at = base + Duration::from_micros(random.below(jitter + 1));
        if random.percent(network.lost) {
            if !random.percent(network.retransmitted) {
                continue;
            }
            at += ms(40 + random.below(RETRANSMISSION_MS - 40));
        }
        if random.percent(network.doubled) {
            arrivals.push((at + ms(random.below(100)), packet.clone()));
        }
        arrivals.push((at, packet));
    }
    arrivals.sort_by_key(|(at, packet)| (*at, packet.layer, packet.sequence));
    arrivals
}

/// Runs everything through a forwarder whose target changes at random.
fn run(seed: u64, network: Network, reports: bool) -> (u64, Vec<Delivery>) {
    let mut random = Random(seed);
    let packets = publish(&mut random, 120);
    let arrivals = transmit(&mut random, network, packets);
    let first = random.below(1 << 16) as u16;
    let mut forwarder = Forwarder::new(first, random.below(1 << 32) as u32);
    let t0 = Instant::now();
    let mut target = Some(0);
    let mut deliveries = Vec::new();
    for (at, packet) in arrivals {
        if random.percent(2) {
            target = Some(random.below(4) as u8).filter(|&layer| layer < 3);
        }
        let sender_time = reports.then_some(Duration::from_secs(1_700_000_000) + packet.captured);
        let empty = packet.empty;
        let Packet { layer, sequence, timestamp, keyframe_start, marker, .. } = packet;
        let out = forwarder.forward(
            target.and_then(all_of),
            &Incoming {
                stream: layer,
                sequence,
                timestamp,
                marker,
                arrival: t0 + at,
                empty,
                keyframe_start,
                clock_rate: VIDEO_CLOCK,
                sender_time,
                numbers: if empty { Numbers::None } else { vp8(packet.vp8) },
                ..super::packet(t0)
            },
        );
        let waits = target.filter(|_| forwarder.current_stream() != target);
        assert_eq!(forwarder.wants_keyframe_from(target.and_then(all_of), 0), waits);
        deliveries.push(Delivery { packet, target, out });
    }
    (u64::from(first % FIRST_SEQUENCE_LIMIT), deliveries)
}

/// A stretch of one layer, as seen from outside.
struct Stretch {
    layer: u8,
    first: u64,
    highest: u64,
    /// What became of each packet that arrived; `None` for padding left out.
    arrived: BTreeMap<u64, Option<(Outgoing, Packet)>>,
}

/// Follows the deliveries with its own idea of what has to be sent and what not, and returns the stretches.
fn check_decisions(deliveries: Vec<Delivery>) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut flowing = false;
    let mut newest: HashMap<u8, u64> = HashMap::new();
    for Delivery { packet: p, target, out } in deliveries {
        let in_order = newest.get(&p.layer).is_none_or(|&newest| p.sequence > newest);
        if in_order {
            newest.insert(p.layer, p.sequence);
        }
        if target.is_none() {
            assert!(out.is_none(), "sent while paused");
            flowing = false;
            continue;
        }
        let current = stretches.last_mut().filter(|_| flowing);
        let switching = current.as_ref().map(|s| s.layer) != target;
        let suits = Some(p.layer) == target || (current.is_none() && Some(p.layer) < target);
        if switching && suits && p.keyframe_start && in_order {
            let out = out.expect("a keyframe of the target starts it, or while nothing flows one below");
            let (layer, first) = (p.layer, p.sequence);
            let arrived = BTreeMap::from([(first, Some((out, p)))]);
            stretches.push(Stretch { layer, first, highest: first, arrived });
            flowing = true;
            continue;
        }
        let Some(s) = current.filter(|s| s.layer == p.layer && p.sequence >= s.first) else {
            assert!(out.is_none(), "sent {p:?}, which belongs to no stretch");
            continue;
        };
        if s.arrived.contains_key(&p.sequence) {
            assert!(out.is_none(), "sent {p:?} twice");
            continue;
        }
        let left_out = p.empty && p.sequence > s.highest;
        assert_eq!(out.is_none(), left_out, "{p:?}");
        s.highest = s.highest.max(p.sequence);
        s.arrived.insert(p.sequence, out.map(|out| (out, p)));
    }
    stretches
}

/// Every packet that was not left out has the next number, arrived or not, through all stretches.
fn check_sequences(first: u64, stretches: &[Stretch]) {
    let mut next = first;
    for s in stretches {
        let last = s.arrived.iter().rev().find(|(_, sent)| sent.is_some()).expect("begins with a sent packet");
        for sequence in s.first..=*last.0 {
            match s.arrived.get(&sequence) {
                Some(None) => continue,
                Some(Some((out, p))) => assert_eq!(out.sequence, next, "{p:?}"),
                None => {} // lost: its number stays free
            }
            next += 1;
        }
    }
}

/// What a decoder sees, in the order of the sequence numbers: in a stretch all numbers step as the publisher's did,
/// and from stretch to stretch they go on by one.
fn check_frames(stretches: &[Stretch]) {
    let mut before: Option<(usize, &Outgoing, &Packet)> = None;
    for (n, s) in stretches.iter().enumerate() {
        for (out, p) in s.arrived.values().flatten().filter(|(_, p)| !p.empty) {
            assert_eq!(out.marker, p.marker);
            if let Some((m, last, q)) = before {
                let time = out.timestamp.wrapping_sub(last.timestamp);
                let numbers = vp8_steps(&sent(out, p), &sent(last, q));
                if n == m {
                    assert_eq!(time, p.timestamp.wrapping_sub(q.timestamp), "{p:?} after {q:?}");
                    assert_eq!(numbers, vp8_steps(&p.vp8, &q.vp8));
                } else {
                    assert!(0 < time && time < 1 << 31, "{p:?} steps by {time} after {q:?}");
                    assert_eq!(numbers, (1, 1, 1), "{p:?} after {q:?}");
                }
            }
            before = Some((n, out, p));
        }
    }
}

/// The numbers that go out with a packet.
fn sent(out: &Outgoing, p: &Packet) -> PictureNumbers {
    vp8_of(out, &Incoming { numbers: vp8(p.vp8), ..packet(Instant::now()) })
}

fn vp8_steps(now: &PictureNumbers, before: &PictureNumbers) -> (u16, u8, u8) {
    let (id, last) = (now.picture_id.unwrap(), before.picture_id.unwrap());
    (
        id.value.wrapping_sub(last.value) & if id.wide { 0x7fff } else { 0x7f },
        now.tl0_picture_index.unwrap().wrapping_sub(before.tl0_picture_index.unwrap()),
        now.key_index.unwrap().wrapping_sub(before.key_index.unwrap()) & 0x1f,
    )
}

/// Sent timestamps keep to the publisher's capture clock; `slack` in seconds.
fn check_clock(stretches: &[Stretch], slack: f64) {
    let sent: Vec<_> = stretches.iter().flat_map(|s| s.arrived.values().flatten()).collect();
    let Some((first, origin)) = sent.first() else { return };
    for (out, p) in &sent {
        let ours = f64::from(out.timestamp.wrapping_sub(first.timestamp)) / f64::from(VIDEO_CLOCK);
        let theirs = p.captured.as_secs_f64() - origin.captured.as_secs_f64();
        assert!((ours - theirs).abs() <= slack, "{p:?} is off by {}", ours - theirs);
    }
}

proptest! {
    #[test]
    fn a_receiver_sees_one_encoder(
        seed: u64,
        lost in 0..30u64,
        retransmitted in 0..100u64,
        doubled in 0..20u64,
        jitter in 0..120u64,
        reports: bool,
    ) {
        let network = Network { lost, retransmitted, doubled, jitter: ms(jitter) };
        let (first, deliveries) = run(seed, network, reports);
        let stretches = check_decisions(deliveries);
        prop_assert!(!stretches.is_empty() || lost > 0 || jitter > 0);
        check_sequences(first, &stretches);
        check_frames(&stretches);
        // A keyframe can come later than a newer frame of the layer before, by what the network delays. By reports
        // that is all, by arrival each switch may misjudge by as much.
        let delay = 0.001 * (1 + jitter + if lost > 0 { RETRANSMISSION_MS } else { 0 }) as f64;
        let slack = if reports { delay } else { delay * stretches.len() as f64 };
        check_clock(&stretches, slack);
    }

    #[test]
    fn no_packet_breaks_it(packets in prop::collection::vec(any::<(u8, u16, u32, bool, bool, u16, u8)>(), 1..400)) {
        let t0 = Instant::now();
        let mut forwarder = Forwarder::new(0, 0);
        let mut sent = HashSet::new();
        let (mut sequence, mut now) = (1u64 << 32, t0);
        for (layer, step, timestamp, keyframe_start, empty, id, target) in packets {
            // Mostly small steps back and forth, sometimes leaps, as the extension of 16-bit numbers yields them.
            sequence = sequence.wrapping_add_signed(i64::from(step as i16 >> (id % 16)));
            now += Duration::from_micros(u64::from(id));
            let numbers = PictureNumbers {
                picture_id: (id % 3 > 0).then_some(PictureId { value: id, wide: id % 3 == 1 }),
                tl0_picture_index: (id % 5 > 0).then_some(id as u8),
                key_index: (id % 7 > 0).then_some(id as u8),
            };
            let p = Incoming {
                stream: layer % 5,
                sequence,
                timestamp: timestamp >> (id % 32),
                arrival: now,
                empty,
                keyframe_start,
                clock_rate: if id % 11 == 0 { u32::MAX } else { VIDEO_CLOCK },
                sender_time: (id % 2 == 0).then_some(Duration::new(u64::from(timestamp) << 32, 0)),
                numbers: vp8(numbers),
                ..packet(t0)
            };
            let selection = all_of(target % 3).filter(|_| target < 250);
            if let Some(out) = forwarder.forward(selection, &p) {
                prop_assert!(sent.insert(out.sequence), "{} was used twice", out.sequence);
                let numbers = vp8_of(&out, &p);
                prop_assert!(numbers.picture_id.is_none_or(|id| id.value <= 0x7fff));
                prop_assert!(numbers.key_index.is_none_or(|index| index <= 0x1f));
            }
        }
        prop_assert!(sent.is_empty() || sent.contains(&0));
    }
}
