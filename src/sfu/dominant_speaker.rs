//! DominantSpeaker: who has the floor, and who had it before.
//!
//! The [`ActiveSpeaker`](super::active_speaker::ActiveSpeaker) list says who makes noise right now; this says whom to
//! look at. It follows I. Volfin and I. Cohen, "Dominant speaker identification for multipoint videoconferencing"
//! (Computer Speech & Language 27, 2013), as Jitsi and mediasoup do: somebody takes the floor who is more likely to be
//! speaking than its holder over an immediate, a medium and a long time. A cough wins the first, an interjection the
//! second; only somebody who goes on speaking wins all three. Nobody loses the floor by silence.
//!
//! The room feeds every audio packet's level (RFC 6464, outside of what is encrypted) and polls; the order of those who
//! had the floor ranks videos in the [`Allocator`](super::allocator::Allocator). Its state is as large as the number of
//! people who make noise, and an all-silent room has nothing due.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How often the floor may change; Jitsi's pace.
const INTERVAL: Duration = Duration::from_millis(300);

/// Levels are kept in steps of the usual Opus packet.
const FRAME: Duration = Duration::from_millis(20);

/// The longest Opus packet (RFC 6716 §2.1.4). A longer pause between packets is silence (DTX).
const LONGEST_FRAME: Duration = Duration::from_millis(120);

// The paper's sizes: sub-bands of the immediate time, immediate times in a medium one, medium ones in a long one.
const BANDS: usize = 13;
const IMMEDIATES: usize = 5;
const MEDIUMS: usize = 10;
/// One second of frames.
const FRAMES: usize = IMMEDIATES * MEDIUMS;

/// Loudness (127 − |dBov|) per sub-band.
const BAND: u8 = 10;
/// An immediate time with more active sub-bands than this is speech: louder than −47 dBov.
const MEDIUM_THRESHOLD: u8 = 7;
/// A medium time with more such immediate ones than this is speech: all of a tenth of a second.
const LONG_THRESHOLD: u8 = 4;

/// A challenger's score must exceed the holder's by these factors' logarithms; Jitsi's values for the paper's C1..C3.
const IMMEDIATE_LEAD: f64 = 3.0;
const MEDIUM_LEAD: f64 = 2.0;
const LONG_LEAD: f64 = 0.0;

/// Noise is the least loudness in this many frames, twice over: longer than people speak without a pause for breath.
const NOISE_FRAMES: u32 = 375;
/// What is louder than −45 dBov without a pause is taken for music or a bad codec's speech rather than for noise.
const LOUDEST_NOISE: u8 = 82;

/// Somebody this silent for this long no longer challenges anybody.
const IDLE: Duration = Duration::from_secs(5);

/// Loudness from which somebody is listened to at all.
const AUDIBLE: u8 = BAND * (MEDIUM_THRESHOLD + 1);

#[derive(Debug, Clone)]
pub struct DominantSpeaker<K> {
    voices: HashMap<K, Voice>,
    /// Who has the floor, who had it before, and so on.
    floor: Vec<K>,
    next_decision: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Voice {
    /// Active sub-bands, a ring of frames.
    immediates: [u8; FRAMES],
    next: usize,
    last_packet: Instant,
    last_audible: Instant,
    noise: Noise,
}

/// The least loudness of this stretch and of the one before.
#[derive(Debug, Clone, Copy)]
struct Noise {
    this: u8,
    before: u8,
    frames: u32,
}

/// Logarithms of how likely each count of activity is speech.
struct Scores {
    immediate: [f64; BANDS + 1],
    medium: [f64; IMMEDIATES + 1],
    long: [f64; MEDIUMS + 1],
}

impl<K: Copy + Eq + Hash + Ord> DominantSpeaker<K> {
    pub fn new() -> Self {
        DominantSpeaker { voices: HashMap::new(), floor: Vec::new(), next_decision: None }
    }

    /// An audio packet of `key` with its level in −dBov: 0 = loudest, 127 = silence.
    pub fn observe(&mut self, now: Instant, key: K, level: u8) {
        let loudness = 127 - level.min(127);
        let Some(voice) = self.voices.get_mut(&key) else {
            if loudness >= AUDIBLE {
                self.next_decision.get_or_insert(now + INTERVAL);
                self.voices.insert(key, Voice::new(now, loudness));
            }
            return;
        };
        voice.hear(now, loudness);
    }

    /// Decides when it is time to. `Some`: who has the floor from now on.
    pub fn poll(&mut self, now: Instant) -> Option<K> {
        if self.next_decision.is_none_or(|at| now < at) {
            return None;
        }
        self.voices.retain(|_, voice| now.saturating_duration_since(voice.last_audible) < IDLE);
        self.next_decision = (!self.voices.is_empty()).then_some(now + INTERVAL);
        let holder = self.floor.first().copied();
        let floor = holder.and_then(|key| self.voices.get(&key)).map_or(Activity::default(), |v| v.activity(now));
        let best = self
            .voices
            .iter()
            .filter(|(key, _)| Some(**key) != holder)
            .filter_map(|(key, voice)| Some((voice.activity(now).lead_over(&floor)?, *key)))
            .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1)));
        let (_, key) = best?;
        self.floor.retain(|other| *other != key);
        self.floor.insert(0, key);
        Some(key)
    }

    /// Forgets somebody who left, with all he had.
    pub fn remove(&mut self, key: K) {
        self.mute(key);
        self.floor.retain(|other| *other != key);
    }

    /// A microphone that is off challenges nobody; its owner keeps the floor until somebody else takes it.
    pub fn mute(&mut self, key: K) {
        self.voices.remove(&key);
        if self.voices.is_empty() {
            self.next_decision = None;
        }
    }

    /// 0 = has the floor, 1 = had it before, …; those who never had it share the last place.
    pub fn place(&self, key: K) -> usize {
        self.floor.iter().position(|other| *other == key).unwrap_or(self.floor.len())
    }

    /// When [`poll`](Self::poll) next has something to do; `None` in a silent room.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.next_decision
    }
}

impl<K: Copy + Eq + Hash + Ord> Default for DominantSpeaker<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl Voice {
    fn new(now: Instant, loudness: u8) -> Self {
        let mut voice = Voice {
            immediates: [0; FRAMES],
            next: 0,
            last_packet: now,
            last_audible: now,
            noise: Noise { this: u8::MAX, before: u8::MAX, frames: 0 },
        };
        voice.push(loudness);
        voice
    }

    fn hear(&mut self, now: Instant, loudness: u8) {
        let gap = now.saturating_duration_since(self.last_packet);
        self.last_packet = now;
        if loudness >= AUDIBLE {
            self.last_audible = now;
        }
        // As many frames as the packet is long, or silence and one frame.
        let frames = usize::try_from(gap.as_millis() / FRAME.as_millis()).unwrap_or(FRAMES).min(FRAMES);
        for frame in 1..=frames.max(1) {
            let silence = gap > LONGEST_FRAME && frame < frames;
            self.push(if silence { 0 } else { loudness });
        }
    }

    fn push(&mut self, loudness: u8) {
        let noise = self.noise.level();
        let heard = if loudness < noise.saturating_add(BAND) { 0 } else { loudness };
        self.immediates[self.next] = (heard / BAND).min(BANDS as u8);
        self.next = (self.next + 1) % FRAMES;
        // What is not sent says nothing about the room it is silent in.
        if loudness > 0 {
            self.noise.learn(loudness);
        }
    }

    fn activity(&self, now: Instant) -> Activity {
        // Since the last packet it was silent.
        let gap = now.saturating_duration_since(self.last_packet);
        let silent = if gap > LONGEST_FRAME { gap.as_millis() / FRAME.as_millis() } else { 0 };
        let silent = usize::try_from(silent).unwrap_or(FRAMES).min(FRAMES);
        // The newest first.
        let frame = |age: usize| {
            if age < silent { 0 } else { self.immediates[(self.next + FRAMES - 1 - (age - silent)) % FRAMES] }
        };
        let medium = |n: usize| {
            let active = |age: &usize| frame(n * IMMEDIATES + age) > MEDIUM_THRESHOLD;
            (0..IMMEDIATES).filter(active).count()
        };
        let long = (0..MEDIUMS).filter(|n| medium(*n) > usize::from(LONG_THRESHOLD)).count();
        Activity { immediate: usize::from(frame(0)), medium: medium(0), long }
    }
}

/// How active somebody was over the three times.
#[derive(Debug, Clone, Copy, Default)]
struct Activity {
    immediate: usize,
    medium: usize,
    long: usize,
}

impl Activity {
    /// By how much it deserves the floor more than its holder; `None` when it does not.
    fn lead_over(&self, holder: &Activity) -> Option<f64> {
        static SCORES: LazyLock<Scores> = LazyLock::new(Scores::new);
        let immediate = SCORES.immediate[self.immediate] - SCORES.immediate[holder.immediate];
        let medium = SCORES.medium[self.medium] - SCORES.medium[holder.medium];
        let long = SCORES.long[self.long] - SCORES.long[holder.long];
        (immediate > IMMEDIATE_LEAD && medium > MEDIUM_LEAD && long > LONG_LEAD).then_some(medium)
    }
}

impl Noise {
    fn level(&self) -> u8 {
        self.before.min(self.this).min(LOUDEST_NOISE)
    }

    fn learn(&mut self, loudness: u8) {
        self.this = self.this.min(loudness);
        self.frames += 1;
        if self.frames == NOISE_FRAMES {
            *self = Noise { this: u8::MAX, before: self.this, frames: 0 };
        }
    }
}

impl Scores {
    /// The paper's parameters: how likely a part is active in speech, and how activity decays in its absence.
    fn new() -> Self {
        Scores { immediate: scores(0.5, 0.78), medium: scores(0.5, 24.0), long: scores(0.5, 47.0) }
    }
}

/// The score of `n` active parts out of `N - 1`: log of the binomial likelihood of speech over the exponential one of its
/// absence (the paper's equations 6 to 11), logarithm taken once more to compare by ratios.
fn scores<const N: usize>(p: f64, lambda: f64) -> [f64; N] {
    let parts = N - 1;
    let log_choose = |n: usize| (1..=n).map(|i| ((parts - n + i) as f64).ln() - (i as f64).ln()).sum::<f64>();
    std::array::from_fn(|n| {
        let speech = log_choose(n) + n as f64 * p.ln() + (parts - n) as f64 * (1.0 - p).ln();
        let absence = lambda.ln() - lambda * n as f64;
        // No activity at all has the least positive score that the paper's implementations use.
        (speech - absence).max(1e-10).ln()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: u8 = 127;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Noise without a generator: the same for the same frame.
    fn jitter(key: u32, at: u64, span: u64) -> u8 {
        let mixed = (at / 20 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(u64::from(key) * 2 + 1);
        ((mixed >> 40) % span) as u8
    }

    /// Speech as level meters see it: syllables, gaps between words, a breath now and then.
    fn speech(key: u32, at: u64) -> u8 {
        let at_phrase = (at + u64::from(key) * 370) % 2600;
        let at_word = at_phrase % 520;
        if at_phrase >= 2300 || at_word >= 460 { quiet(key, at) } else { 16 + jitter(key, at, 14) }
    }

    /// A room with a fan.
    fn quiet(key: u32, at: u64) -> u8 {
        58 + jitter(key, at, 8)
    }

    /// 20 ms packets of everybody from `from` until `until`; who took the floor, and when.
    fn play(
        room: &mut DominantSpeaker<u32>,
        t0: Instant,
        keys: &[u32],
        (from, until): (u64, u64),
        level: impl Fn(u32, u64) -> Option<u8>,
    ) -> Vec<(u64, u32)> {
        let mut taken = Vec::new();
        for at in (from..until).step_by(20) {
            for &key in keys {
                if let Some(level) = level(key, at) {
                    room.observe(t0 + ms(at), key, level);
                }
            }
            taken.extend(room.poll(t0 + ms(at)).map(|key| (at, key)));
        }
        taken
    }

    fn one_speaks(speaker: u32) -> impl Fn(u32, u64) -> Option<u8> {
        move |key, at| Some(if key == speaker { speech(key, at) } else { quiet(key, at) })
    }

    #[test]
    fn a_steady_speaker_takes_the_floor_within_a_second_and_keeps_it() {
        for speaker in 0..5 {
            let t0 = Instant::now();
            let mut room = DominantSpeaker::new();
            let taken = play(&mut room, t0, &[0, 1, 2, 3, 4], (0, 60_000), one_speaks(speaker));
            assert_eq!(taken.len(), 1, "{taken:?}");
            assert!(taken[0].0 <= 1000 && taken[0].1 == speaker, "{taken:?}");
            assert_eq!(room.place(speaker), 0);
            assert_eq!(room.place((speaker + 1) % 5), 1, "never had it");
        }
    }

    #[test]
    fn a_cough_does_not_take_it() {
        for length in [60, 120, 200, 300, 400] {
            let t0 = Instant::now();
            let mut room = DominantSpeaker::new();
            play(&mut room, t0, &[1, 2], (0, 10_000), one_speaks(1));
            let cough = |key, at| {
                let coughs = key == 2 && (at % 2_000) < length;
                Some(if coughs {
                    8
                } else if key == 1 {
                    speech(1, at)
                } else {
                    quiet(key, at)
                })
            };
            let taken = play(&mut room, t0, &[1, 2], (10_000, 40_000), cough);
            assert_eq!(taken, [], "of {length} ms");
        }
    }

    #[test]
    fn the_floor_is_handed_over_within_a_second_and_a_half() {
        let t0 = Instant::now();
        let mut room = DominantSpeaker::new();
        let turns = |at: u64| (at / 10_000) as u32;
        let level = |key, at| Some(if key == turns(at) { speech(key, at) } else { quiet(key, at) });
        let taken = play(&mut room, t0, &[0, 1, 2, 3], (0, 40_000), level);
        assert_eq!(taken.iter().map(|(_, key)| *key).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(taken.iter().all(|(at, key)| at - u64::from(*key) * 10_000 <= 1500), "{taken:?}");
        assert_eq!([3, 2, 1, 0].map(|key| room.place(key)), [0, 1, 2, 3]);
        // Who comes back leaves the order of the others alone.
        play(&mut room, t0, &[0, 1, 2, 3], (40_000, 45_000), one_speaks(1));
        assert_eq!([1, 3, 2, 0].map(|key| room.place(key)), [0, 1, 2, 3]);
    }

    #[test]
    fn crosstalk_does_not_make_it_flicker() {
        let t0 = Instant::now();
        let mut room = DominantSpeaker::new();
        play(&mut room, t0, &[1, 2], (0, 10_000), one_speaks(1));
        let taken = play(&mut room, t0, &[1, 2], (10_000, 40_000), |key, at| Some(speech(key, at)));
        assert!(taken.len() <= 6, "in 30 s of two who talk at once: {taken:?}");
    }

    #[test]
    fn silence_leaves_it_where_it_is_and_costs_nothing() {
        let t0 = Instant::now();
        let mut room = DominantSpeaker::new();
        play(&mut room, t0, &[1, 2], (0, 5_000), one_speaks(1));
        let taken = play(&mut room, t0, &[1, 2], (5_000, 15_000), |key, at| Some(quiet(key, at)));
        assert_eq!((taken.len(), room.place(1)), (0, 0));
        assert_eq!((room.next_timeout(), room.voices.len()), (None, 0));
    }

    #[test]
    fn steady_noise_is_not_speech_and_music_is_heard() {
        for (level, takes) in [(44, false), (38, false), (30, true), (12, true)] {
            let t0 = Instant::now();
            let mut room = DominantSpeaker::new();
            let taken = play(&mut room, t0, &[1], (0, 20_000), |_, _| Some(level));
            assert_eq!(!taken.is_empty(), takes, "{level}");
        }
        // A quiet voice is told from its own background.
        let t0 = Instant::now();
        let mut room = DominantSpeaker::new();
        let quiet_voice = |_, at| Some(speech(1, at) + 17);
        assert_eq!(play(&mut room, t0, &[1], (0, 20_000), quiet_voice).len(), 1);
    }

    #[test]
    fn missing_packets_are_silence() {
        // With DTX the holder stops sending; somebody else speaks.
        let t0 = Instant::now();
        let mut room = DominantSpeaker::new();
        play(&mut room, t0, &[1], (0, 5_000), one_speaks(1));
        let taken = play(&mut room, t0, &[2], (5_000, 10_000), one_speaks(2));
        assert!(matches!(taken[..], [(at, 2)] if at <= 6_500), "{taken:?}");
        // Single packets of comfort noise, however loud, are no speech.
        let mut room = DominantSpeaker::new();
        let now_and_then = |_, at: u64| at.is_multiple_of(400).then_some(5);
        assert_eq!(play(&mut room, t0, &[1], (0, 20_000), now_and_then), []);
    }

    #[test]
    fn long_packets_count_by_their_time() {
        for frame in [20, 40, 60, 120] {
            let t0 = Instant::now();
            let mut room = DominantSpeaker::new();
            let level = |_, at: u64| at.is_multiple_of(frame).then(|| 15 + jitter(1, at, 9));
            assert_eq!(play(&mut room, t0, &[1], (0, 3_000), level).len(), 1, "{frame} ms");
        }
    }

    #[test]
    fn who_leaves_or_mutes_is_no_rival() {
        let t0 = Instant::now();
        let mut room = DominantSpeaker::new();
        play(&mut room, t0, &[1, 2], (0, 5_000), one_speaks(1));
        room.mute(1);
        assert_eq!(room.place(1), 0, "the last to have spoken");
        let taken = play(&mut room, t0, &[2], (5_000, 7_000), one_speaks(2));
        assert_eq!(taken.len(), 1);
        room.remove(2);
        assert_eq!((room.place(1), room.place(2), room.next_timeout()), (0, 1, None));
        room.observe(t0 + ms(7_000), 3, 0);
        room.observe(t0 + ms(7_000), 4, SILENCE);
        assert_eq!(room.voices.len(), 1);
        room.observe(t0 + ms(7_000), 3, 255);
    }

    #[test]
    fn activity_scores_more_the_more_there_is() {
        let scores = Scores::new();
        assert!(scores.medium.is_sorted() && scores.long.is_sorted());
        let most = scores.immediate.iter().copied().fold(f64::MIN, f64::max);
        assert!(scores.immediate[0] + IMMEDIATE_LEAD < most);
    }
}
