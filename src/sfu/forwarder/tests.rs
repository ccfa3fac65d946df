//! The forwarder against a reference receiver: simulated simulcast publishers over a bad network, in virtual time.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const VIDEO_CLOCK: u32 = 90_000;

/// A keyframe of layer 0 in one packet; tests change what they are about.
fn packet(arrival: Instant) -> Incoming<'static> {
    Incoming {
        layer: 0,
        sequence: 65_536,
        timestamp: 1000,
        marker: true,
        arrival,
        payload: b"media",
        keyframe_start: true,
        clock_rate: VIDEO_CLOCK,
        sender_time: None,
        vp8: None,
    }
}

fn delta(arrival: Instant) -> Incoming<'static> {
    Incoming { keyframe_start: false, ..packet(arrival) }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Layer 0 with these sequence numbers, in this order; a keyframe first. Returns the outgoing numbers less the first.
/// Zero payload length for those in `empty`.
fn sequences(order: &[u64], empty: &[u64]) -> Vec<Option<u64>> {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(7, 0);
    let mut out = Vec::new();
    for (n, &sequence) in order.iter().enumerate() {
        let payload: &[u8] = if empty.contains(&sequence) { &[] } else { b"media" };
        let p = Incoming { sequence, payload, keyframe_start: n == 0, ..packet(t0) };
        out.push(forwarder.forward(Some(0), &p).map(|o| o.sequence - 7));
    }
    out
}

#[test]
fn starts_at_a_keyframe_of_the_target() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(40_000, 77);
    assert_eq!(forwarder.wants_keyframe_from(Some(1)), Some(1));
    assert_eq!(forwarder.wants_keyframe_from(None), None);
    assert_eq!(forwarder.forward(Some(1), &delta(t0)), None);
    assert_eq!(forwarder.forward(Some(1), &packet(t0)), None, "another layer's");
    let keyframe = Incoming { layer: 1, ..packet(t0) };
    let out = forwarder.forward(Some(1), &keyframe).unwrap();
    assert_eq!(out, Outgoing { sequence: 40_000 - 32_768, timestamp: 77, marker: true, vp8: None });
    assert_eq!((forwarder.current_layer(), forwarder.wants_keyframe_from(Some(1))), (Some(1), None));
    assert_eq!(forwarder.wants_keyframe_from(Some(2)), Some(2));
    let padding = Incoming { payload: &[], layer: 2, ..packet(t0) };
    assert_eq!(forwarder.forward(Some(2), &padding), None);
    assert_eq!(forwarder.current_layer(), Some(1));
    let foreign = Incoming { layer: MAX_LAYERS as u8, ..packet(t0) };
    assert_eq!(forwarder.forward(Some(foreign.layer), &foreign), None);
}

#[test]
fn lost_packets_keep_their_numbers_and_skipped_ones_have_none() {
    let some = |numbers: &[u64]| numbers.iter().map(|&n| Some(n)).collect::<Vec<_>>();
    assert_eq!(sequences(&[10, 11, 12, 13], &[]), some(&[0, 1, 2, 3]));
    assert_eq!(sequences(&[10, 13, 11, 12], &[]), some(&[0, 3, 1, 2]));
    assert_eq!(sequences(&[10, 11, 11, 12, 10], &[]), [Some(0), Some(1), None, Some(2), None]);
    assert_eq!(sequences(&[10, 9, 11], &[]), [Some(0), None, Some(1)], "older than the keyframe");
    assert_eq!(sequences(&[10, 11, 12, 13, 14], &[11, 12]), [Some(0), None, None, Some(1), Some(2)]);
    // 11 is padding behind a gap in which 12, 14 and 15 come late.
    assert_eq!(
        sequences(&[10, 13, 16, 17, 15, 14, 12, 11], &[13, 16]),
        [Some(0), None, None, Some(5), Some(4), Some(3), Some(2), Some(1)]
    );
    // Padding that comes late has a number already, and goes out to fill it.
    assert_eq!(sequences(&[10, 12, 11, 13], &[11]), some(&[0, 2, 1, 3]));
}

#[test]
fn memory_of_packets_ends_with_the_window() {
    // Some packets lost and one left out, early on; then so many that their places in the window are used again.
    let lost = [2, 3, WINDOW - 1, WINDOW + 3, WINDOW + 4];
    let late = |sequence: u64, highest: u64| {
        let order: Vec<u64> = (0..=highest).filter(|n| !lost.contains(n)).chain([sequence]).collect();
        *sequences(&order, &[4]).last().unwrap()
    };
    assert_eq!(late(3, WINDOW + 2), Some(3));
    assert_eq!(late(3, WINDOW + 5), None, "too late");
    assert_eq!(late(1, WINDOW + 5), None, "too late, and sent before");
    assert_eq!(late(WINDOW + 1, WINDOW + 5), None, "sent before");
    // The packet left out early has no say any more, not over its place and not over the count.
    assert_eq!(late(WINDOW + 4, WINDOW + 10), Some(WINDOW + 3));
    assert_eq!(late(WINDOW - 1, WINDOW + 10), Some(WINDOW - 2));
    assert_eq!(late(WINDOW + 11, WINDOW + 10), Some(WINDOW + 10));
}

#[test]
fn a_late_packet_above_all_that_was_sent_moves_the_end() {
    // 11 is lost, 12 padding: the next splice must not reuse the number of 11, which came in the meantime.
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 0);
    let mut forward = |target, p: Incoming| forwarder.forward(Some(target), &p);
    forward(0, Incoming { sequence: 10, timestamp: 0, ..packet(t0) });
    assert_eq!(forward(0, Incoming { sequence: 12, timestamp: 3000, payload: &[], ..delta(t0) }), None);
    let late = forward(0, Incoming { sequence: 11, timestamp: 3000, ..delta(t0) }).unwrap();
    assert_eq!((late.sequence, late.timestamp), (1, 3000));
    let next = forward(1, Incoming { layer: 1, ..packet(t0) }).unwrap();
    assert_eq!((next.sequence, next.timestamp), (2, 3001));
}

#[test]
fn late_padding_does_not_hide_the_frame_before_it() {
    // 11 is media, 12 and 13 padding; they come backwards.
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 0);
    let mut forward = |target, p: Incoming| forwarder.forward(Some(target), &p);
    let vp8 = |value| Some(Vp8 { picture_id: Some(PictureId { value, wide: true }), ..Vp8::default() });
    forward(0, Incoming { sequence: 10, timestamp: 0, vp8: vp8(1), ..packet(t0) });
    assert_eq!(forward(0, Incoming { sequence: 13, timestamp: 3000, payload: &[], ..delta(t0) }), None);
    assert!(forward(0, Incoming { sequence: 12, timestamp: 3000, payload: &[], ..delta(t0) }).is_some());
    assert!(forward(0, Incoming { sequence: 11, timestamp: 3000, vp8: vp8(2), ..delta(t0) }).is_some());
    let next = forward(1, Incoming { layer: 1, vp8: vp8(77), ..packet(t0) }).unwrap();
    assert_eq!((next.sequence, next.timestamp), (3, 3001));
    assert_eq!(next.vp8.unwrap().picture_id, Some(3));
}

#[test]
fn a_loss_beyond_repair_waits_for_a_keyframe_and_leaves_no_gap() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 0);
    forwarder.forward(Some(0), &Incoming { sequence: 10, ..packet(t0) });
    let far = 10 + WINDOW;
    let within = forwarder.clone().forward(Some(0), &Incoming { sequence: far - 1, ..delta(t0) });
    assert_eq!(within.unwrap().sequence, WINDOW - 1);
    assert_eq!(forwarder.forward(Some(0), &Incoming { sequence: far, ..delta(t0) }), None);
    assert_eq!(forwarder.wants_keyframe_from(Some(0)), Some(0));
    let keyframe = forwarder.forward(Some(0), &Incoming { sequence: far + 1, ..packet(t0) });
    assert_eq!(keyframe.unwrap().sequence, 1);
}

#[test]
fn a_keyframe_whose_rest_went_by_is_not_used() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 0);
    assert_eq!(forwarder.forward(Some(0), &Incoming { sequence: 11, ..delta(t0) }), None);
    assert_eq!(forwarder.forward(Some(0), &Incoming { sequence: 10, ..packet(t0) }), None);
    assert_eq!(forwarder.wants_keyframe_from(Some(0)), Some(0));
    // Unless it is replayed with its rest.
    forwarder.reset_layer(0);
    assert_eq!(forwarder.forward(Some(0), &Incoming { sequence: 10, ..packet(t0) }).unwrap().sequence, 0);
    assert_eq!(forwarder.forward(Some(0), &Incoming { sequence: 11, ..delta(t0) }).unwrap().sequence, 1);
}

#[test]
fn a_replaced_stream_continues_the_old() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 500);
    forwarder.forward(Some(0), &Incoming { sequence: 90_000, timestamp: 1 << 31, ..packet(t0) });
    forwarder.reset_layer(0);
    assert_eq!(forwarder.forward(Some(0), &Incoming { sequence: 5, ..delta(t0) }), None);
    let p = Incoming { sequence: 6, timestamp: 99, ..packet(t0 + ms(100)) };
    let out = forwarder.forward(Some(0), &p).unwrap();
    assert_eq!((out.sequence, out.timestamp), (1, 500 + 9000));
}

/// The timestamp of layer 1's keyframe, in ticks after that of layer 0's frame before it.
fn switch_after(arrival: Duration, report: Option<(Duration, Duration)>) -> u32 {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, u32::MAX - 10);
    let low = Incoming { sender_time: report.map(|r| r.0), timestamp: 123, ..packet(t0) };
    let first = forwarder.forward(Some(0), &low).unwrap().timestamp;
    let high =
        Incoming { layer: 1, sender_time: report.map(|r| r.1), timestamp: 4_000_000_000, ..packet(t0 + arrival) };
    forwarder.forward(Some(1), &high).unwrap().timestamp.wrapping_sub(first)
}

#[test]
fn time_between_layers_is_the_publishers_when_known() {
    let secs = Duration::from_secs;
    let epoch = secs(1_700_000_000);
    assert_eq!(switch_after(ms(40), None), 3600);
    assert_eq!(switch_after(ms(40), Some((epoch, epoch + ms(33)))), 2970);
    // Captured before what was sent last, or at the same moment: still a later frame.
    assert_eq!(switch_after(ms(40), Some((epoch, epoch))), 1);
    assert_eq!(switch_after(ms(40), Some((epoch, epoch - ms(500)))), 1);
    assert_eq!(switch_after(ms(0), None), 1);
    // Reports that cannot be true.
    assert_eq!(switch_after(ms(40), Some((epoch, epoch + secs(60)))), 3600);
    assert_eq!(switch_after(ms(40), Some((epoch, secs(0)))), 3600);
    for report in [(Duration::MAX, Duration::ZERO), (Duration::ZERO, Duration::MAX)] {
        assert!(switch_after(ms(40), Some(report)) <= 3600 + 2 * VIDEO_CLOCK);
    }
    // Twenty hours: beyond what 32 bits can compare.
    assert_eq!(switch_after(secs(72_000), None), (72_000u64 * 90_000) as u32);
}

#[test]
fn reports_that_start_over_are_trusted_anew() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 0);
    let mut switch = |layer, at, sender_time| {
        let p = Incoming { layer, sequence: at, sender_time: Some(sender_time), ..packet(t0 + ms(at)) };
        forwarder.forward(Some(layer), &p).unwrap().timestamp
    };
    let (old, new) = (Duration::from_secs(1000), Duration::from_secs(5000));
    assert_eq!(switch(0, 0, old), 0);
    assert_eq!(switch(1, 100, old + ms(90)), 8100);
    assert_eq!(switch(0, 200, new), 8100 + 9000, "by arrival: the sender's clock was set");
    assert_eq!(switch(1, 300, new + ms(90)), 8100 + 9000 + 8100);
}

#[test]
fn a_pause_advances_the_clock_and_leaves_no_gap() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 0);
    let mut sequence = 100;
    let mut send = |forwarder: &mut Forwarder, target, at: Duration, timestamp| {
        sequence += 1;
        let audio = Incoming { sequence, timestamp, clock_rate: 48_000, ..packet(t0 + at) };
        forwarder.forward(target, &audio).map(|out| (out.sequence, out.timestamp))
    };
    assert_eq!(send(&mut forwarder, Some(0), ms(0), 5000), Some((0, 0)));
    assert_eq!(send(&mut forwarder, None, ms(20), 5960), None);
    assert_eq!(forwarder.current_layer(), None);
    assert_eq!(send(&mut forwarder, Some(0), ms(10_000), 77), Some((1, 480_000)));
    forwarder.pause();
    assert_eq!(send(&mut forwarder, Some(0), ms(10_020), 1037), Some((2, 480_960)));
}

#[test]
fn discontinuous_audio_keeps_its_timestamps() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 0);
    // Eight seconds of silence arrive with 150 ms of jitter; then a muted minute in which the clock stood still.
    for (n, (at, timestamp, expected)) in
        [(0, 0, 0), (20, 960, 960), (8_170, 384_960, 384_960), (60_000, 385_920, 384_960 + 51_830 * 48)]
            .into_iter()
            .enumerate()
    {
        let marker = n == 2;
        let p = Incoming { sequence: n as u64, timestamp, marker, clock_rate: 48_000, ..packet(t0 + ms(at)) };
        let out = forwarder.forward(Some(0), &p).unwrap();
        assert_eq!((out.sequence, out.timestamp, out.marker), (n as u64, expected, marker));
    }
}

#[test]
fn a_publishers_clock_may_jump_but_ours_does_not() {
    let t0 = Instant::now();
    for jump in [1 << 31, 1_000_000, u32::MAX - 500, u32::MAX - 1_000_000] {
        let mut forwarder = Forwarder::new(0, 9);
        forwarder.forward(Some(0), &Incoming { sequence: 1, timestamp: 0, ..packet(t0) });
        forwarder.forward(Some(0), &Incoming { sequence: 3, timestamp: 3000, ..delta(t0 + ms(33)) });
        let mut forward = |sequence, timestamp: u32, at| {
            let p = Incoming { sequence, timestamp: timestamp.wrapping_add(jump), ..delta(t0 + ms(at)) };
            forwarder.forward(Some(0), &p).map(|out| (out.sequence, out.timestamp))
        };
        assert_eq!(forward(4, 3000, 73), Some((3, 9 + 3000 + 3600)), "{jump}");
        assert_eq!(forward(5, 3000, 74), Some((4, 9 + 3000 + 3600)), "{jump}: the same frame");
        assert_eq!(forward(6, 6000, 106), Some((5, 9 + 6000 + 3600)), "{jump}: its successor");
        assert_eq!(forward(2, 0, 110), None, "{jump}: late, of before the jump");
    }
    let mut forwarder = Forwarder::new(0, 9);
    for n in 0..10u32 {
        let p = Incoming { sequence: n.into(), timestamp: n * 77_777_777, clock_rate: 0, ..packet(t0) };
        assert_eq!(forwarder.forward(Some(0), &p).unwrap().timestamp, 9 + n);
    }
}

#[test]
fn vp8_numbers_wrap_in_their_width() {
    let t0 = Instant::now();
    for (wide, mask) in [(false, 0x7f), (true, 0x7fff)] {
        let mut forwarder = Forwarder::new(0, 0);
        let mut sequence = 100;
        let mut send = |layer: u8, n: u16, keyframe_start| {
            sequence += 1;
            let value = n.wrapping_add(u16::from(layer) * 99) & mask;
            let n = n as u8;
            let vp8 = Vp8 {
                picture_id: Some(PictureId { value, wide }),
                tl0picidx: Some(n.wrapping_add(layer * 50)),
                keyidx: Some(n.wrapping_add(layer * 9) & 0x1f),
            };
            let p = Incoming { layer, sequence, keyframe_start, vp8: Some(vp8), ..packet(t0) };
            let out = forwarder.forward(Some(layer), &p).unwrap().vp8.unwrap();
            (out.picture_id.unwrap(), out.tl0picidx.unwrap(), out.keyidx.unwrap())
        };
        let numbers = |n: u16| (n & mask, n as u8, n as u8 & 0x1f);
        // Up to the wrap on one layer, over it on the other.
        let last = mask.wrapping_sub(2);
        for n in 0..4u16 {
            assert_eq!(send(0, last.wrapping_add(n), n == 0), numbers(last.wrapping_add(n)));
        }
        for n in 0..4u16 {
            assert_eq!(send(1, 20 + n, n == 0), numbers(last.wrapping_add(4 + n)));
        }
    }
}

#[test]
fn absent_vp8_fields_stay_absent() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 0);
    let mut send = |sequence, layer, vp8| {
        let p = Incoming { layer, sequence, vp8: Some(vp8), ..packet(t0) };
        forwarder.forward(Some(layer), &p).unwrap().vp8.unwrap()
    };
    let narrow = |value| Some(PictureId { value, wide: false });
    assert_eq!(send(1, 0, Vp8::default()), Vp8Rewrite::default());
    let first = send(2, 0, Vp8 { picture_id: narrow(0x7f), ..Vp8::default() });
    assert_eq!(first, Vp8Rewrite { picture_id: Some(0x7f), ..Vp8Rewrite::default() });
    assert_eq!(send(1, 1, Vp8::default()), Vp8Rewrite::default());
    let wide = Some(PictureId { value: 9000, wide: true });
    assert_eq!(send(1, 2, Vp8 { picture_id: wide, ..Vp8::default() }).picture_id, Some(0x80));
    let keyidx = send(2, 1, Vp8 { keyidx: Some(3), picture_id: narrow(5), ..Vp8::default() });
    assert_eq!((keyidx.picture_id, keyidx.keyidx, keyidx.tl0picidx), (Some(0x81 & 0x7f), Some(3), None));
}

// ---- properties ----

/// A small generator of our own, so that a failing case is one number.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

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
    vp8: Vp8,
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
            keyidx = keyidx.wrapping_add(u8::from(tid == 0)) & KEYIDX_MASK;
            // Layers are encoded one after the other.
            let captured = ms(n * 33);
            let vp8 =
                Vp8 { picture_id: Some(PictureId { value: id, wide }), tl0picidx: Some(tl0), keyidx: Some(keyidx) };
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
        let payload: &[u8] = if packet.empty { &[] } else { b"media" };
        let Packet { layer, sequence, timestamp, keyframe_start, marker, .. } = packet;
        let out = forwarder.forward(
            target,
            &Incoming {
                layer,
                sequence,
                timestamp,
                marker,
                arrival: t0 + at,
                payload,
                keyframe_start,
                clock_rate: VIDEO_CLOCK,
                sender_time,
                vp8: (!packet.empty).then_some(packet.vp8),
            },
        );
        assert_eq!(forwarder.wants_keyframe_from(target), target.filter(|_| forwarder.current_layer() != target));
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
        if switching && Some(p.layer) == target && p.keyframe_start && in_order {
            let out = out.expect("a keyframe of the target starts it");
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
                let numbers = vp8_steps(&out.vp8.unwrap(), &last.vp8.unwrap(), &p.vp8);
                if n == m {
                    assert_eq!(time, p.timestamp.wrapping_sub(q.timestamp), "{p:?} after {q:?}");
                    assert_eq!(numbers, vp8_steps(&as_sent(&p.vp8), &as_sent(&q.vp8), &p.vp8));
                } else {
                    assert!(0 < time && time < 1 << 31, "{p:?} steps by {time} after {q:?}");
                    assert_eq!(numbers, (1, 1, 1), "{p:?} after {q:?}");
                }
            }
            before = Some((n, out, p));
        }
    }
}

fn as_sent(vp8: &Vp8) -> Vp8Rewrite {
    Vp8Rewrite { picture_id: vp8.picture_id.map(|id| id.value), tl0picidx: vp8.tl0picidx, keyidx: vp8.keyidx }
}

fn vp8_steps(now: &Vp8Rewrite, before: &Vp8Rewrite, width: &Vp8) -> (u16, u8, u8) {
    let mask = if width.picture_id.unwrap().wide { 0x7fff } else { 0x7f };
    (
        now.picture_id.unwrap().wrapping_sub(before.picture_id.unwrap()) & mask,
        now.tl0picidx.unwrap().wrapping_sub(before.tl0picidx.unwrap()),
        now.keyidx.unwrap().wrapping_sub(before.keyidx.unwrap()) & KEYIDX_MASK,
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
            let vp8 = Vp8 {
                picture_id: (id % 3 > 0).then_some(PictureId { value: id, wide: id % 3 == 1 }),
                tl0picidx: (id % 5 > 0).then_some(id as u8),
                keyidx: (id % 7 > 0).then_some(id as u8),
            };
            let p = Incoming {
                layer: layer % 5,
                sequence,
                timestamp: timestamp >> (id % 32),
                arrival: now,
                payload: if empty { &[] } else { b"media" },
                keyframe_start,
                clock_rate: if id % 11 == 0 { u32::MAX } else { VIDEO_CLOCK },
                sender_time: (id % 2 == 0).then_some(Duration::new(u64::from(timestamp) << 32, 0)),
                vp8: Some(vp8),
                ..packet(t0)
            };
            if let Some(out) = forwarder.forward((target < 250).then_some(target % 3), &p) {
                prop_assert!(sent.insert(out.sequence), "{} was used twice", out.sequence);
                let vp8 = out.vp8.unwrap();
                prop_assert!(vp8.picture_id.is_none_or(|id| id <= 0x7fff) && vp8.keyidx.is_none_or(|k| k <= 0x1f));
            }
        }
        prop_assert!(sent.is_empty() || sent.contains(&0));
    }
}
