//! The forwarder packet by packet.

mod encoder;
mod scalable;
mod simulcast;

use std::time::{Duration, Instant};

use super::splice::WINDOW;
use super::*;
use crate::rtp::Rewrite;

const VIDEO_CLOCK: u32 = 90_000;

/// A keyframe of layer 0 in one packet; tests change what they are about.
fn packet(arrival: Instant) -> Incoming<'static> {
    Incoming {
        stream: 0,
        sequence: 65_536,
        timestamp: 1000,
        marker: true,
        arrival,
        empty: false,
        keyframe_start: true,
        clock_rate: VIDEO_CLOCK,
        sender_time: None,
        frame: Frame::default(),
        numbers: Numbers::None,
        dependency: None,
        primary: None,
    }
}

/// All of a simulcast stream.
fn all_of(stream: u8) -> Option<Selection> {
    Some(Selection { stream, spatial: 2, temporal: 3 })
}

fn vp8(numbers: PictureNumbers) -> Numbers {
    Numbers::Vp8(numbers)
}

/// The VP8 numbers that go out.
fn vp8_of(out: &Outgoing, p: &Incoming) -> PictureNumbers {
    let Numbers::Vp8(came) = p.numbers else { panic!("no VP8") };
    match out.rewrite {
        Rewrite::None => came,
        Rewrite::Vp8(numbers) => PictureNumbers {
            picture_id: came.picture_id.map(|id| PictureId { value: numbers.picture_id, ..id }),
            tl0_picture_index: came.tl0_picture_index.map(|_| numbers.tl0_picture_index),
            key_index: came.key_index.map(|_| numbers.key_index),
        },
        other => panic!("{other:?}"),
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
        let empty = empty.contains(&sequence);
        let p = Incoming { sequence, empty, keyframe_start: n == 0, ..packet(t0) };
        out.push(forwarder.forward(all_of(0), &p).map(|o| o.sequence - 7));
    }
    out
}

#[test]
fn starts_at_a_keyframe_of_the_target() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(40_000, 77);
    assert_eq!(forwarder.wants_keyframe_from(all_of(1), 0), Some(1));
    assert_eq!(forwarder.wants_keyframe_from(None, 0), None);
    assert_eq!(forwarder.forward(all_of(1), &delta(t0)), None);
    assert_eq!(forwarder.forward(all_of(1), &packet(t0)), None, "another layer's");
    let keyframe = Incoming { stream: 1, ..packet(t0) };
    let out = forwarder.forward(all_of(1), &keyframe).unwrap();
    assert_eq!(
        out,
        Outgoing { sequence: 40_000 - 32_768, timestamp: 77, marker: true, rewrite: Rewrite::None, dependency: None }
    );
    assert_eq!((forwarder.current_stream(), forwarder.wants_keyframe_from(all_of(1), 0)), (Some(1), None));
    assert_eq!(forwarder.wants_keyframe_from(all_of(2), 0), Some(2));
    let padding = Incoming { empty: true, stream: 2, ..packet(t0) };
    assert_eq!(forwarder.forward(all_of(2), &padding), None);
    assert_eq!(forwarder.current_stream(), Some(1));
    let foreign = Incoming { stream: MAX_LAYERS as u8, ..packet(t0) };
    assert_eq!(forwarder.forward(all_of(foreign.stream), &foreign), None);
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
fn a_replayed_picture_hurries_until_it_is_live_again() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 5000);
    let frame = |n: u64, keyframe_start| Incoming {
        sequence: 100 + n,
        timestamp: 1000 + 9000 * n as u32,
        keyframe_start,
        sender_time: Some(ms(1_000_000) + ms(100 * n)),
        ..packet(t0 + ms(100 * n))
    };
    let timestamps = |forwarder: &mut Forwarder, numbers: std::ops::Range<u64>, keyframe: u64| -> Vec<u32> {
        numbers.map(|n| forwarder.forward(all_of(0), &frame(n, n == keyframe)).expect("sent").timestamp).collect()
    };
    assert_eq!(timestamps(&mut forwarder, 0..4, 0), [5000, 14_000, 23_000, 32_000]);
    // Once more from the second frame, as if that were a keyframe; the fifth has arrived in the meantime.
    forwarder.reset_stream(0);
    assert_eq!(timestamps(&mut forwarder, 1..5, 1), [32_001, 32_002, 32_003, 41_000]);
    assert_eq!(timestamps(&mut forwarder, 5..7, 1), [50_000, 59_000], "on time");
    // After a pause.
    forwarder.reset_stream(0);
    assert_eq!(timestamps(&mut forwarder, 20..22, 20), [185_000, 194_000], "as it was");
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
    let mut forward = |target, p: Incoming| forwarder.forward(all_of(target), &p);
    forward(0, Incoming { sequence: 10, timestamp: 0, ..packet(t0) });
    assert_eq!(forward(0, Incoming { sequence: 12, timestamp: 3000, empty: true, ..delta(t0) }), None);
    let late = forward(0, Incoming { sequence: 11, timestamp: 3000, ..delta(t0) }).unwrap();
    assert_eq!((late.sequence, late.timestamp), (1, 3000));
    let next = forward(1, Incoming { stream: 1, ..packet(t0) }).unwrap();
    assert_eq!((next.sequence, next.timestamp), (2, 3001));
}

#[test]
fn late_padding_does_not_hide_the_frame_before_it() {
    // 11 is media, 12 and 13 padding; they come backwards.
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 0);
    let mut forward = |target, p: Incoming| forwarder.forward(all_of(target), &p);
    let vp8 = |value| vp8(PictureNumbers { picture_id: Some(PictureId { value, wide: true }), ..Default::default() });
    forward(0, Incoming { sequence: 10, timestamp: 0, numbers: vp8(1), ..packet(t0) });
    assert_eq!(forward(0, Incoming { sequence: 13, timestamp: 3000, empty: true, ..delta(t0) }), None);
    assert!(forward(0, Incoming { sequence: 12, timestamp: 3000, empty: true, ..delta(t0) }).is_some());
    assert!(forward(0, Incoming { sequence: 11, timestamp: 3000, numbers: vp8(2), ..delta(t0) }).is_some());
    let p = Incoming { stream: 1, numbers: vp8(77), ..packet(t0) };
    let next = forward(1, p).unwrap();
    assert_eq!((next.sequence, next.timestamp), (3, 3001));
    assert_eq!(vp8_of(&next, &p).picture_id.unwrap().value, 3);
}

#[test]
fn a_loss_beyond_repair_waits_for_a_keyframe_and_leaves_no_gap() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 0);
    forwarder.forward(all_of(0), &Incoming { sequence: 10, ..packet(t0) });
    let far = 10 + WINDOW;
    let within = forwarder.clone().forward(all_of(0), &Incoming { sequence: far - 1, ..delta(t0) });
    assert_eq!(within.unwrap().sequence, WINDOW - 1);
    assert_eq!(forwarder.forward(all_of(0), &Incoming { sequence: far, ..delta(t0) }), None);
    assert_eq!(forwarder.wants_keyframe_from(all_of(0), 0), Some(0));
    let keyframe = forwarder.forward(all_of(0), &Incoming { sequence: far + 1, ..packet(t0) });
    assert_eq!(keyframe.unwrap().sequence, 1);
}

#[test]
fn a_keyframe_whose_rest_went_by_is_not_used() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 0);
    assert_eq!(forwarder.forward(all_of(0), &Incoming { sequence: 11, ..delta(t0) }), None);
    assert_eq!(forwarder.forward(all_of(0), &Incoming { sequence: 10, ..packet(t0) }), None);
    assert_eq!(forwarder.wants_keyframe_from(all_of(0), 0), Some(0));
    // Unless it is replayed with its rest.
    forwarder.reset_stream(0);
    assert_eq!(forwarder.forward(all_of(0), &Incoming { sequence: 10, ..packet(t0) }).unwrap().sequence, 0);
    assert_eq!(forwarder.forward(all_of(0), &Incoming { sequence: 11, ..delta(t0) }).unwrap().sequence, 1);
}

#[test]
fn a_replaced_stream_continues_the_old() {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, 500);
    forwarder.forward(all_of(0), &Incoming { sequence: 90_000, timestamp: 1 << 31, ..packet(t0) });
    forwarder.reset_stream(0);
    assert_eq!(forwarder.forward(all_of(0), &Incoming { sequence: 5, ..delta(t0) }), None);
    let p = Incoming { sequence: 6, timestamp: 99, ..packet(t0 + ms(100)) };
    let out = forwarder.forward(all_of(0), &p).unwrap();
    assert_eq!((out.sequence, out.timestamp), (1, 500 + 9000));
}

/// The timestamp of layer 1's keyframe, in ticks after that of layer 0's frame before it.
fn switch_after(arrival: Duration, report: Option<(Duration, Duration)>) -> u32 {
    let t0 = Instant::now();
    let mut forwarder = Forwarder::new(0, u32::MAX - 10);
    let low = Incoming { sender_time: report.map(|r| r.0), timestamp: 123, ..packet(t0) };
    let first = forwarder.forward(all_of(0), &low).unwrap().timestamp;
    let high =
        Incoming { stream: 1, sender_time: report.map(|r| r.1), timestamp: 4_000_000_000, ..packet(t0 + arrival) };
    forwarder.forward(all_of(1), &high).unwrap().timestamp.wrapping_sub(first)
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
        let p = Incoming { stream: layer, sequence: at, sender_time: Some(sender_time), ..packet(t0 + ms(at)) };
        forwarder.forward(all_of(layer), &p).unwrap().timestamp
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
    let mut send = |forwarder: &mut Forwarder, target: Option<u8>, at: Duration, timestamp| {
        sequence += 1;
        let audio = Incoming { sequence, timestamp, clock_rate: 48_000, ..packet(t0 + at) };
        forwarder.forward(target.and_then(all_of), &audio).map(|out| (out.sequence, out.timestamp))
    };
    assert_eq!(send(&mut forwarder, Some(0), ms(0), 5000), Some((0, 0)));
    assert_eq!(send(&mut forwarder, None, ms(20), 5960), None);
    assert_eq!(forwarder.current_stream(), None);
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
        let out = forwarder.forward(all_of(0), &p).unwrap();
        assert_eq!((out.sequence, out.timestamp, out.marker), (n as u64, expected, marker));
    }
}

#[test]
fn a_publishers_clock_may_jump_but_ours_does_not() {
    let t0 = Instant::now();
    for jump in [1 << 31, 1_000_000, u32::MAX - 500, u32::MAX - 1_000_000] {
        let mut forwarder = Forwarder::new(0, 9);
        forwarder.forward(all_of(0), &Incoming { sequence: 1, timestamp: 0, ..packet(t0) });
        forwarder.forward(all_of(0), &Incoming { sequence: 3, timestamp: 3000, ..delta(t0 + ms(33)) });
        let mut forward = |sequence, timestamp: u32, at| {
            let p = Incoming { sequence, timestamp: timestamp.wrapping_add(jump), ..delta(t0 + ms(at)) };
            forwarder.forward(all_of(0), &p).map(|out| (out.sequence, out.timestamp))
        };
        assert_eq!(forward(4, 3000, 73), Some((3, 9 + 3000 + 3600)), "{jump}");
        assert_eq!(forward(5, 3000, 74), Some((4, 9 + 3000 + 3600)), "{jump}: the same frame");
        assert_eq!(forward(6, 6000, 106), Some((5, 9 + 6000 + 3600)), "{jump}: its successor");
        assert_eq!(forward(2, 0, 110), None, "{jump}: late, of before the jump");
    }
    let mut forwarder = Forwarder::new(0, 9);
    for n in 0..10u32 {
        let p = Incoming { sequence: n.into(), timestamp: n * 77_777_777, clock_rate: 0, ..packet(t0) };
        assert_eq!(forwarder.forward(all_of(0), &p).unwrap().timestamp, 9 + n);
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
            let numbers = PictureNumbers {
                picture_id: Some(PictureId { value, wide }),
                tl0_picture_index: Some(n.wrapping_add(layer * 50)),
                key_index: Some(n.wrapping_add(layer * 9) & 0x1f),
            };
            let p = Incoming { stream: layer, sequence, keyframe_start, numbers: vp8(numbers), ..packet(t0) };
            let out = vp8_of(&forwarder.forward(all_of(layer), &p).unwrap(), &p);
            (out.picture_id.unwrap().value, out.tl0_picture_index.unwrap(), out.key_index.unwrap())
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
    let mut send = |sequence, layer, numbers| {
        let p = Incoming { stream: layer, sequence, numbers: vp8(numbers), ..packet(t0) };
        vp8_of(&forwarder.forward(all_of(layer), &p).unwrap(), &p)
    };
    let none = PictureNumbers::default();
    let id = |value, wide| PictureNumbers { picture_id: Some(PictureId { value, wide }), ..none };
    assert_eq!(send(1, 0, none), none);
    assert_eq!(send(2, 0, id(0x7f, false)), id(0x7f, false));
    assert_eq!(send(1, 1, none), none);
    assert_eq!(send(1, 2, id(9000, true)), id(0x80, true));
    let keyed = PictureNumbers { key_index: Some(3), ..id(5, false) };
    assert_eq!(send(2, 1, keyed), PictureNumbers { key_index: Some(3), ..id(0x81 & 0x7f, false) });
}

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
