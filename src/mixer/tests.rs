use std::collections::BTreeMap;

use proptest::prelude::*;

use super::limiter::CEILING;
use super::test_kit::{Ear, Voice, db, goertzel, levels, ms};
use super::*;

/// A room in virtual time.
struct Room {
    mixer: Mixer,
    now: Instant,
    voices: BTreeMap<SourceId, Voice>,
    ears: BTreeMap<ListenerId, Ear>,
    /// Before it was encoded.
    sum: Vec<f32>,
}

impl Room {
    fn new(places: usize) -> Self {
        let now = Instant::now();
        Room { mixer: Mixer::new(now, places), now, voices: BTreeMap::new(), ears: BTreeMap::new(), sum: Vec::new() }
    }

    fn listener(&mut self) -> ListenerId {
        let start = Start { sequence: u16::MAX - 20, timestamp: u32::MAX - 3 * FRAME as u32 };
        let id = self.mixer.add_listener(start);
        self.ears.insert(id, Ear::new());
        id
    }

    fn voice(&mut self, voice: Voice, owner: Option<ListenerId>) -> SourceId {
        let id = self.mixer.add_source(owner);
        self.voices.insert(id, voice);
        id
    }

    fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            let Room { mixer, now, voices, ears, sum } = self;
            for (id, voice) in voices {
                mixer.push(*id, &voice.next(*now + ms(7)));
            }
            *now += TICK;
            mixer.tick(*now, |id, packet| ears.get_mut(&id).unwrap().hear(packet));
            sum.extend_from_slice(&mixer.sum[..]);
        }
    }

    /// Of the last second of what the listener hears.
    fn level(&self, listener: ListenerId, hz: f32) -> f32 {
        goertzel(self.ears[&listener].recent(50), hz)
    }
}

#[test]
fn nobody_hears_himself_and_everybody_all_others() {
    let mut room = Room::new(6);
    let tones = [400.0, 950.0, 1700.0];
    let callers = tones.map(|hz| {
        let caller = room.listener();
        room.voice(Voice::new(hz, 0.1), Some(caller));
        (caller, hz)
    });
    let silent = room.listener();
    room.voice(Voice::new(2500.0, 0.1), None);
    room.run(150);
    for (caller, own) in callers {
        for hz in tones.into_iter().chain([2500.0]) {
            let level = db(room.level(caller, hz) / 0.1);
            assert!(if hz == own { level < -45.0 } else { level.abs() < 1.0 }, "{level} dB of {hz} for {own}");
        }
        let own_half = room.ears[&caller].pcm.chunks_exact(FRAME).map(|frame| goertzel(frame, own)).skip(1);
        assert!(own_half.into_iter().all(|level| level < 0.02), "not even in the beginning");
    }
    for hz in tones.into_iter().chain([2500.0]) {
        assert!(db(room.level(silent, hz) / 0.1).abs() < 1.0, "{hz}");
    }
}

#[test]
fn who_hears_the_same_shares_what_is_encoded() {
    let mut room = Room::new(6);
    let (first, second, third) = (room.listener(), room.listener(), room.listener());
    room.voice(Voice::new(400.0, 0.1), None);
    room.voice(Voice::new(900.0, 0.1), Some(third));
    room.run(100);
    let payload = |room: &Room, id| room.ears[&id].payload.clone();
    assert_eq!(payload(&room, first), payload(&room, second));
    assert_ne!(payload(&room, first), payload(&room, third));
    // The third falls silent and, after a while, hears what all hear.
    room.voices.retain(|_, voice| voice.hz == 400.0);
    room.run(150);
    assert_eq!(payload(&room, first), payload(&room, third));
    assert_eq!(room.ears[&first].payload[0] >> 3, 31, "its transform alone, which is cheap");
}

/// The stream of one who begins and ends to speak comes from another encoder then.
#[test]
fn a_change_of_encoder_is_not_heard() {
    let mut room = Room::new(6);
    let caller = room.listener();
    room.listener();
    room.voice(Voice::new(400.0, 0.2), None);
    room.run(50);
    let begin = room.ears[&caller].pcm.len() / FRAME;
    for _ in 0..4 {
        let source = room.voice(Voice::new(1700.0, 0.2), Some(caller));
        room.run(60);
        room.voices.remove(&source);
        room.mixer.remove_source(source);
        room.run(140);
    }
    let pcm = &room.ears[&caller].pcm;
    for (n, level) in levels(pcm, 400.0).into_iter().enumerate().skip(begin) {
        assert!(db(level / 0.2).abs() < 1.5, "{} dB in frame {n}", db(level / 0.2));
    }
    assert!(goertzel(&pcm[begin * FRAME..], 1700.0) < 0.002);
    // Nor is there a click.
    let steepest = pcm[begin * FRAME..].windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
    assert!(steepest < 0.2 * std::f32::consts::TAU * 400.0 / 48_000.0 * 1.5, "{steepest}");
}

#[test]
fn sources_fade_in_and_out() {
    for levelled in [true, false] {
        let mut room = Room::new(6);
        room.listener();
        let voice = |hz| Voice::new(hz, 0.3).levelled(levelled);
        room.voice(voice(300.0), None);
        room.run(50);
        let from = room.sum.len();
        let second = room.voice(voice(300.0), None);
        room.run(50);
        room.mixer.remove_source(second);
        room.voices.remove(&second);
        room.run(50);
        let steepest = room.sum[from..].windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
        assert!(steepest < 0.6 * std::f32::consts::TAU * 300.0 / 48_000.0 * 1.3, "{steepest}");
        assert_eq!(room.mixer.sources.len(), 1, "gone");
        assert!(db(goertzel(&room.sum[room.sum.len() - 20 * FRAME..], 300.0) / 0.3).abs() < 1.0);
    }
}

/// Only the loudest are heard, and who speaks goes on being heard when others are louder.
#[test]
fn no_more_than_there_are_places_are_mixed() {
    for levelled in [true, false] {
        let mut room = Room::new(3);
        let listener = room.listener();
        let tones: Vec<f32> = (0..8).map(|n| 400.0 + 350.0 * n as f32).collect();
        let ids: Vec<SourceId> = tones
            .iter()
            .enumerate()
            .map(|(n, hz)| {
                let amplitude = if n < 3 { 0.05 } else { 0.0001 };
                room.voice(Voice::new(*hz, amplitude).levelled(levelled), None)
            })
            .collect();
        room.run(100);
        let heard = |room: &Room| tones.iter().filter(|hz| room.level(listener, **hz) > 0.02).count();
        assert_eq!(heard(&room), 3);
        // A fourth shouts: nobody is cut off for it.
        room.voices.get_mut(&ids[5]).unwrap().amplitude = 0.4;
        room.run(200);
        assert_eq!(heard(&room), 3);
        assert!(room.level(listener, tones[5]) < 0.01);
        // But takes the place of one who has finished.
        room.voices.get_mut(&ids[1]).unwrap().amplitude = 0.0001;
        room.run(150);
        assert_eq!(heard(&room), 3);
        assert!(db(room.level(listener, tones[5]) / 0.4).abs() < 1.0);
    }
}

#[test]
fn who_is_quiet_costs_nothing_and_is_heard_from_the_first_word() {
    let mut room = Room::new(6);
    let (listener, protected) = (room.listener(), room.listener());
    let id = room.voice(Voice::new(600.0, 0.0), None);
    room.mixer.set_loss(protected, 0.3);
    room.run(200);
    assert!(!room.mixer.sources[&id].sounding);
    assert_eq!([listener, protected].map(|id| room.ears[&id].payload.len()), [3, 3]);
    room.voices.get_mut(&id).unwrap().amplitude = 0.3;
    room.run(50);
    let levels = levels(&room.sum[200 * FRAME..], 600.0);
    let first = levels.iter().position(|level| db(*level / 0.3) > -6.0).unwrap();
    assert!(first <= 4, "{first} ticks late");
    let sounding = levels.iter().filter(|level| db(**level / 0.3).abs() < 1.5).count();
    assert!(sounding + first + 1 >= levels.len(), "{sounding} of {}", levels.len());
    for id in [listener, protected] {
        let pcm = room.ears[&id].recent(40);
        assert!(db(goertzel(pcm, 600.0) / 0.3).abs() < 1.0);
    }
}

#[test]
fn protection_follows_the_loss_of_each() {
    let mut room = Room::new(6);
    let (good, bad, speaking) = (room.listener(), room.listener(), room.listener());
    room.voice(Voice::new(500.0, 0.1).speaking(), None);
    room.voice(Voice::new(900.0, 0.1).speaking(), Some(speaking));
    room.run(50);
    for _ in 0..5 {
        room.mixer.set_loss(bad, 0.1);
        room.mixer.set_loss(speaking, 0.1);
        room.mixer.set_loss(good, f32::NAN);
        room.run(20);
    }
    // From 16 on only the transform is used, which knows no in-band FEC (RFC 6716 §3.1).
    let linear_prediction = |room: &Room, id| room.ears[&id].payload[0] >> 3 < 16;
    assert!(!linear_prediction(&room, good));
    assert!(linear_prediction(&room, bad) && linear_prediction(&room, speaking));
    for listener in [good, bad] {
        assert!(
            db(room.level(listener, 500.0) / goertzel(&room.sum[room.sum.len() - 50 * FRAME..], 500.0)).abs() < 1.0
        );
    }
    for _ in 0..20 {
        room.mixer.set_loss(bad, 0.0);
        room.run(5);
    }
    assert_eq!(room.ears[&bad].payload, room.ears[&good].payload);
}

#[test]
fn a_machine_that_stopped_goes_on_where_it_should_be() {
    let mut room = Room::new(6);
    let id = room.mixer.add_listener(Start { sequence: 10, timestamp: 0 });
    let mut sent = Vec::new();
    let mut tick = |room: &mut Room, at| {
        sent.clear();
        let start = room.now;
        room.mixer.tick(start + ms(at), |to, packet| sent.push((to, packet.sequence, packet.timestamp / FRAME as u32)));
        sent.clone()
    };
    assert_eq!(tick(&mut room, 0), [(id, 10, 0)]);
    assert_eq!(tick(&mut room, 19), []);
    assert_eq!(tick(&mut room, 61), [(id, 11, 1), (id, 12, 2), (id, 13, 3)]);
    // A second later: what cannot be made up for is left out, the time of it is not.
    let late: Vec<(u16, u32)> = tick(&mut room, 1080).iter().map(|(_, sequence, at)| (*sequence, *at)).collect();
    assert_eq!(late, (0..5).map(|n| (14 + n, 50 + u32::from(n))).collect::<Vec<_>>());
    assert_eq!(room.mixer.next_tick(), room.now + ms(1100));
}

#[test]
fn what_is_not_there_is_refused() {
    let mut room = Room::new(6);
    let id = room.mixer.add_source(None);
    room.mixer.remove_source(id);
    let packet = Voice::new(500.0, 0.1).next(room.now);
    assert!(!room.mixer.push(id, &packet));
    room.mixer.remove_listener(ListenerId(9));
    room.mixer.remove_source(SourceId(9));
    room.mixer.set_loss(ListenerId(9), 0.5);
    room.run(2);
    assert!(room.mixer.sources.is_empty(), "also where nobody listens");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_single_voice_keeps_its_level(tone in 5u32..70, amplitude in 0.005f32..0.85, levelled: bool) {
        let hz = tone as f32 * 50.0;
        let mut room = Room::new(6);
        let listener = room.listener();
        room.voice(Voice::new(hz, amplitude).levelled(levelled), None);
        room.run(100);
        let heard = db(room.level(listener, hz) / amplitude);
        prop_assert!(heard.abs() < 1.0, "{} dB", heard);
    }

    #[test]
    fn many_loud_voices_do_not_clip(seed: u64, count in 2usize..7) {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut room = Room::new(0);
        let listener = room.listener();
        let tones: Vec<f32> = (0..count).map(|n| 300.0 + 250.0 * n as f32).collect();
        for hz in &tones {
            room.voice(Voice::new(*hz, 0.4 + 0.6 * dice.f32()), None);
        }
        room.run(100);
        let pcm = room.ears[&listener].recent(50);
        let peak = pcm.iter().fold(0.0f32, |peak, sample| peak.max(sample.abs()));
        prop_assert!(peak <= 1.0, "{}", peak);
        // Turned down evenly: they stay what they were to each other, and nothing is added.
        let sum = &room.sum[room.sum.len() - 50 * FRAME..];
        let down: Vec<f32> = tones.iter().map(|hz| db(goertzel(pcm, *hz) / goertzel(sum, *hz))).collect();
        let (least, most) = down.iter().fold((f32::MAX, f32::MIN), |(l, m), d| (l.min(*d), m.max(*d)));
        prop_assert!(most - least < 1.0 && most < 0.1, "{:?}", down);
        let loudest = sum.iter().fold(0.0f32, |peak, sample| peak.max(sample.abs()));
        prop_assert!(least > db(CEILING / loudest.max(CEILING)) - 1.0, "{:?}, a peak of {}", down, loudest);
    }
}
