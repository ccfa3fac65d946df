use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::mixer::TICK;
use crate::mixer::test_kit::{Voice, db, goertzel, levels};

const TONE: f32 = 500.0;
const AMPLITUDE: f32 = 0.3;

/// A packet and when it comes, in samples.
type Arrival = (i64, AudioPacket);

fn packets(voice: &mut Voice, count: usize) -> Vec<AudioPacket> {
    let epoch = Instant::now();
    (0..count).map(|_| voice.next(epoch)).collect()
}

/// Each `way` after the one before it was sent.
fn sent(packets: Vec<AudioPacket>, mut way: impl FnMut(usize) -> i64) -> Vec<Arrival> {
    let mut arrivals: Vec<Arrival> =
        packets.into_iter().enumerate().map(|(n, packet)| (n as i64 * FRAME as i64 + way(n), packet)).collect();
    arrivals.sort_by_key(|(at, _)| *at);
    arrivals
}

/// What a source plays of it in `ticks`.
fn play(source: &mut Source, arrivals: &[Arrival], ticks: i64) -> Vec<f32> {
    let (mut pcm, mut arrivals) = (Vec::new(), arrivals.iter().peekable());
    for tick in 0..ticks {
        let time = tick * FRAME as i64;
        while let Some((at, packet)) = arrivals.next_if(|(at, _)| *at <= time) {
            source.push(packet, *at);
        }
        let frame = if source.play(time) { *source.frame() } else { [0.0; FRAME] };
        pcm.extend_from_slice(&frame);
    }
    pcm
}

/// The share of the frames in which the tone has its level within so many dB.
fn continuity(pcm: &[f32], tolerance: f32) -> f32 {
    let levels = levels(pcm, TONE);
    let good = levels.iter().filter(|level| db(**level / AMPLITUDE).abs() <= tolerance).count();
    good as f32 / levels.len() as f32
}

#[test]
fn an_even_stream_plays_after_the_least_delay() {
    let mut source = Source::new();
    let arrivals = sent(packets(&mut Voice::new(TONE, AMPLITUDE), 1000), |_| 0);
    let pcm = play(&mut source, &arrivals, 1000);
    assert_eq!(continuity(&pcm[10 * FRAME..], 1.0), 1.0);
    let State::Playing { next, ahead: 0 } = source.state else { panic!("{:?}", source.state) };
    let newest = arrivals.last().unwrap().0;
    let buffered = source.pcm.len() as i64 + source.packets.front().map_or(0, |packet| packet.end() - next);
    assert!(buffered <= 45 * MS, "{buffered} at {newest}");
}

/// An hour of a clock that is not ours, in virtual time.
fn an_hour_with(ppm: i64) {
    // A second of a tone that fits it, which can be played again and again, as no packet relies on the one before.
    let mut voice = Voice::new(TONE, AMPLITUDE).independent();
    let mut second = packets(&mut voice, 100).split_off(50);
    let (mut source, mut dice) = (Source::new(), fastrand::Rng::with_seed(ppm.unsigned_abs()));
    let (mut sequence, mut timestamp, mut worst) = (0u64, 0u32, 0.0f32);
    let (mut errors, mut arrival) = (Vec::new(), 0i64);
    for tick in 0..180_000i64 {
        let time = tick * FRAME as i64;
        while arrival <= time {
            let packet = &mut second[(sequence % 50) as usize];
            (packet.sequence, packet.timestamp) = (sequence, timestamp);
            assert!(source.push(packet, arrival));
            (sequence, timestamp) = (sequence + 1, timestamp.wrapping_add(FRAME as u32));
            // Sent every 20 ms of its clock; two milliseconds of jitter.
            let sent = sequence as i64 * FRAME as i64;
            arrival = sent + sent * ppm / 1_000_000 + dice.i64(0..2 * MS);
        }
        let plays = source.play(time);
        if tick < 50 {
            continue;
        }
        assert!(plays, "{tick}");
        worst = worst.max(db(goertzel(source.frame(), TONE) / AMPLITUDE).abs());
        if tick % 500 == 0 {
            let State::Playing { next, ahead } = source.state else { panic!("{tick}: {:?}", source.state) };
            let late = source.due(time).unwrap() - (next - ahead - source.pcm.len() as i64 - FRAME as i64);
            errors.push(late);
        }
    }
    assert!(worst < 1.5, "a dropout of {worst} dB");
    let (least, most) = (errors.iter().min().unwrap(), errors.iter().max().unwrap());
    assert!(*least >= -16 * MS && *most <= 31 * MS, "{least} to {most} samples late");
    assert!(source.packets.len() < 6, "{} packets are held", source.packets.len());
}

#[test]
fn an_hour_of_a_slow_clock() {
    an_hour_with(100);
}

#[test]
fn an_hour_of_a_fast_clock() {
    an_hour_with(-100);
}

/// How much is missed of a voice of which a fifth of the packets is lost: the share of frames whose pitch is fainter by 6 dB.
fn missed(protected: bool, seed: u64) -> f32 {
    let mut voice = Voice::new(TONE, AMPLITUDE).speaking();
    if protected {
        voice = voice.protected();
    }
    let all = sent(packets(&mut voice, 1500), |_| 0);
    let mut dice = fastrand::Rng::with_seed(seed);
    let some: Vec<Arrival> = all.iter().filter(|_| dice.f32() >= 0.2).cloned().collect();
    let whole = levels(&play(&mut Source::new(), &all, 1500), TONE);
    let broken = levels(&play(&mut Source::new(), &some, 1500), TONE);
    // Until it is known that packets are lost, and that waiting for the next one pays: a frame more of delay.
    let frames = 200..1500;
    let faint = |n: &usize| db(broken[*n] / whole[*n].min(whole[*n - 1])) < -6.0;
    frames.clone().filter(faint).count() as f32 / frames.len() as f32
}

#[test]
fn a_fifth_of_the_packets_is_hardly_missed() {
    for seed in 1..=3 {
        let (with, without) = (missed(true, seed), missed(false, seed));
        assert!(with < 0.1 && with < without / 2.0, "seed {seed}: {with} missed with copies, {without} without");
    }
}

#[test]
fn what_comes_in_another_order_or_twice_plays_in_order_and_once() {
    for seed in 1..=5 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut arrivals = sent(packets(&mut Voice::new(TONE, AMPLITUDE), 1500), |_| dice.i64(0..50 * MS));
        let again: Vec<Arrival> =
            arrivals.iter().map(|(at, packet)| (at + dice.i64(0..90 * MS), packet.clone())).collect();
        arrivals.extend(again);
        arrivals.sort_by_key(|(at, _)| *at);
        let pcm = play(&mut Source::new(), &arrivals, 1500);
        let share = continuity(&pcm[500 * FRAME..], 1.5);
        assert!(share > 0.98, "seed {seed}: {share}");
    }
}

#[test]
fn a_spike_delays_and_is_made_up_for() {
    let mut source = Source::new();
    // 300 ms after five seconds nothing comes, then all of it at once.
    let late = |n: usize| if (250..265).contains(&n) { (265 - n as i64) * FRAME as i64 } else { 0 };
    let arrivals = sent(packets(&mut Voice::new(TONE, AMPLITUDE), 1000), late);
    let pcm = play(&mut source, &arrivals, 1000);
    assert_eq!(continuity(&pcm[10 * FRAME..250 * FRAME], 1.0), 1.0);
    assert!(continuity(&pcm[270 * FRAME..330 * FRAME], 3.0) > 0.9);
    assert_eq!(continuity(&pcm[800 * FRAME..], 1.0), 1.0);
    let State::Playing { next, .. } = source.state else { panic!("{:?}", source.state) };
    let late = source.due(999 * FRAME as i64).unwrap() - (next - source.pcm.len() as i64 - FRAME as i64);
    assert!(late <= 2 * SLACK_LATE, "{late}");
}

#[test]
fn words_between_silences_that_are_not_sent_are_whole() {
    let mut voice = Voice::new(TONE, AMPLITUDE);
    let mut arrivals = Vec::new();
    // 600 ms of sound, 400 ms of nothing, ten times.
    for word in 0..10 {
        let start = word * 50 * FRAME as i64;
        arrivals
            .extend(packets(&mut voice, 30).into_iter().enumerate().map(|(n, p)| (start + n as i64 * FRAME as i64, p)));
        voice.pause(20);
    }
    let pcm = play(&mut Source::new(), &arrivals, 500);
    for (word, pcm) in pcm.chunks_exact(50 * FRAME).enumerate() {
        let levels = levels(pcm, TONE);
        let sounding = levels.iter().filter(|level| db(**level / AMPLITUDE) > -2.0).count();
        let silent = levels.iter().filter(|level| **level < 0.001).count();
        // The edges of a word lie within a frame; the end is continued a little.
        assert!((28..=33).contains(&sounding) && silent >= 14, "word {word}: {sounding} sounding, {silent} silent");
    }
}

#[test]
fn numbers_that_start_over_cost_a_moment() {
    for what in ["timestamp", "stream", "sequence"] {
        let mut voice = Voice::new(TONE, AMPLITUDE);
        let mut before = packets(&mut voice, 200);
        match what {
            "timestamp" => voice.timestamp = voice.timestamp.wrapping_add(1 << 30),
            "sequence" => voice.sequence -= 20_000,
            _ => (voice.sequence, voice.timestamp) = (17, 9),
        }
        let mut after = packets(&mut voice, 200);
        after[0].restarted = what == "stream";
        before.extend(after);
        let pcm = play(&mut Source::new(), &sent(before, |_| 0), 400);
        assert_eq!(continuity(&pcm[10 * FRAME..195 * FRAME], 1.0), 1.0, "{what}");
        assert!(continuity(&pcm[195 * FRAME..], 1.0) > 0.96, "{what}");
        assert_eq!(continuity(&pcm[210 * FRAME..], 1.0), 1.0, "{what}");
    }
}

#[test]
fn who_was_not_listened_to_is_heard_at_once() {
    let mut source = Source::new();
    for (n, packet) in packets(&mut Voice::new(TONE, AMPLITUDE), 600).iter().enumerate() {
        let time = n as i64 * FRAME as i64;
        assert!(source.push(packet, time));
        if n < 300 {
            source.skip(time);
            assert!(source.packets.len() <= 4);
        } else {
            assert!(source.play(time), "{n}");
            let level = db(goertzel(source.frame(), TONE) / AMPLITUDE);
            assert!(n < 303 || level.abs() < 1.0, "{n}: {level} dB");
        }
    }
}

#[test]
fn all_codings_are_understood() {
    let epoch = Instant::now();
    let packet = |codec, payload: &[u8], sequence| AudioPacket {
        codec,
        sequence,
        restarted: false,
        timestamp: 0,
        payload: Arc::from(payload),
        level: None,
        arrival: epoch,
    };
    let voice = Voice::new(TONE, AMPLITUDE).next(epoch).payload;
    let red = [&[0xef, 0x0f, 0x00, 0x02, 0x6f, 9, 9][..], &voice[..]].concat();
    for (codec, payload, good) in [
        (Codec::Opus, &voice[..], true),
        (Codec::Red, &red[..], true),
        (Codec::Red, &red[..4], false),
        (Codec::Red, &[0x6f], false),
        (Codec::Pcmu, &[0xff; 160], true),
        (Codec::Pcma, &[0xd5; 160], true),
        (Codec::Pcma, &[0xd5; 1000], false),
        (Codec::Vp8, &voice[..], false),
        (Codec::Opus, &[], false),
        (Codec::Opus, &[0xff; 1501], false),
        // 49 frames of 20 ms.
        (Codec::Opus, &[0xfb, 49], false),
    ] {
        assert_eq!(Source::new().push(&packet(codec, payload, 1), 0), good, "{codec:?} {} bytes", payload.len());
    }
}

/// A telephone's tone, by packets of 20 ms.
#[test]
fn a_telephone_is_heard() {
    let mut source = Source::new();
    let (mut played, mut n) = (Vec::new(), 0u32);
    for tick in 0..100u32 {
        // μ-law of a square wave of 250 Hz: 0x0f and 0x8f are ∓16,764.
        let payload: Vec<u8> = (0..160)
            .map(|_| {
                n += 1;
                if n / 16 % 2 == 0 { 0x8f } else { 0x0f }
            })
            .collect();
        let packet = AudioPacket {
            codec: Codec::Pcmu,
            sequence: tick.into(),
            restarted: false,
            timestamp: tick * 160,
            payload: Arc::from(payload),
            level: None,
            arrival: Instant::now(),
        };
        let time = i64::from(tick) * FRAME as i64;
        assert!(source.push(&packet, time));
        if source.play(time) {
            played.extend_from_slice(source.frame());
        }
    }
    let expected = 16_764.0 / 32_768.0 * 4.0 / std::f32::consts::PI;
    assert!(played.len() > 90 * FRAME);
    for level in &levels(&played, 250.0)[5..] {
        assert!(db(level / expected).abs() < 1.0, "{level} of {expected}");
    }
}

#[derive(Debug, Clone)]
struct Step {
    sequence: u64,
    timestamp: u32,
    payload: Vec<u8>,
    restarted: bool,
    codec: Codec,
    wait: i64,
    heard: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let sequence = prop_oneof![0u64..200, any::<u64>()];
    let timestamp = prop_oneof![0u32..200_000, any::<u32>()];
    let codec = prop::sample::select(vec![Codec::Opus, Codec::Opus, Codec::Opus, Codec::Red, Codec::Pcmu, Codec::Pcma]);
    let payload = prop_oneof![prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..1400)];
    (sequence, timestamp, payload, prop::bool::weighted(0.05), codec, 0i64..2, prop::bool::weighted(0.9)).prop_map(
        |(sequence, timestamp, payload, restarted, codec, wait, heard)| Step {
            sequence,
            timestamp,
            payload,
            restarted,
            codec,
            wait,
            heard,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes: no panic, no growth, and what is played is a number within the scale.
    #[test]
    fn garbage_is_harmless(steps in prop::collection::vec(step(), 1..150)) {
        let (mut source, mut tick, arrival) = (Source::new(), 0, Instant::now() + TICK);
        let capacity = source.pcm.capacity();
        for Step { sequence, timestamp, payload, restarted, codec, wait, heard } in steps {
            let payload = Arc::from(payload);
            source.push(&AudioPacket { codec, sequence, restarted, timestamp, payload, level: None, arrival }, tick * FRAME as i64);
            for _ in 0..wait {
                tick += 1;
                if !heard {
                    source.skip(tick * FRAME as i64);
                } else if source.play(tick * FRAME as i64) {
                    prop_assert!(source.frame().iter().all(|sample| sample.abs() <= 1.0));
                }
            }
            prop_assert_eq!(source.pcm.capacity(), capacity);
        }
    }
}
