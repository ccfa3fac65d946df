//! ActiveSpeaker: who is speaking in a room, from the audio levels that senders put on each packet (RFC 6464).
//!
//! The level is a header extension outside the encrypted payload, so this works for end-to-end encrypted calls. The
//! room feeds every audio packet's level and polls; the changes become LiveKit's `speakers_changed`. The numbers are
//! LiveKit's defaults, because clients are tuned to them.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// One decision per interval.
const INTERVAL: Duration = Duration::from_millis(500);

/// A packet counts as speech at this level or louder (−dBov, so smaller is louder): above the noise of a room.
const ACTIVE_LEVEL: u8 = 30;

/// Somebody speaks who was active for this share of the interval. A click or a cough is shorter.
const MIN_ACTIVE_SHARE: f32 = 0.4;

/// Weight of the newest interval in the moving average: 2 / (n + 1) for n = 4 intervals.
const SMOOTHING: f32 = 2.0 / 5.0;

/// Levels are reported in this many steps, so that a steady voice is not news every interval.
const LEVEL_STEPS: f32 = 8.0;

/// How much time a packet stands for when the one before is too far away to tell: the usual Opus frame.
const TYPICAL_FRAME: Duration = Duration::from_millis(20);

/// The longest Opus packet (RFC 6716 §2.1.4). A longer pause between packets is silence (DTX), not one packet.
const LONGEST_FRAME: Duration = Duration::from_millis(120);

/// One entry of the speaker list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpeakerLevel<K> {
    pub key: K,
    /// 0.0 … 1.0, linear loudness; 0.0 when no longer speaking.
    pub level: f32,
    pub active: bool,
}

/// Only those who speak, or may be found speaking at the end of the interval, take memory and time.
#[derive(Debug, Clone)]
pub struct ActiveSpeaker<K> {
    voices: HashMap<K, Voice>,
    /// Start of the interval; `None` while the room is silent.
    since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Voice {
    last_packet: Instant,
    /// Of the present interval.
    active: Duration,
    /// −dBov, of the present interval.
    loudest: u8,
    smoothed: f32,
    /// What was last reported.
    reported: f32,
}

impl<K: Copy + Eq + Hash + Ord> ActiveSpeaker<K> {
    pub fn new() -> Self {
        ActiveSpeaker { voices: HashMap::new(), since: None }
    }

    /// An audio packet of `key` with its level in −dBov: 0 = loudest, 127 = silence.
    pub fn observe(&mut self, now: Instant, key: K, level: u8) {
        let speech = level <= ACTIVE_LEVEL;
        let Some(voice) = self.voices.get_mut(&key) else {
            if speech {
                self.since.get_or_insert(now);
                self.voices.insert(key, Voice::starting(now, level));
            }
            return;
        };
        let gap = now.saturating_duration_since(voice.last_packet);
        voice.last_packet = now;
        if speech {
            voice.active += if gap > LONGEST_FRAME { TYPICAL_FRAME } else { gap };
            voice.loudest = voice.loudest.min(level);
        }
    }

    /// Ends the interval when it is over. Returns those whose level changed, loudest first.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<SpeakerLevel<K>>> {
        let interval = now.saturating_duration_since(self.since?);
        if interval < INTERVAL {
            return None;
        }
        let mut changes = Vec::new();
        self.voices.retain(|&key, voice| {
            let before = voice.reported;
            voice.end_interval(interval);
            if voice.reported != before {
                changes.push(voice.entry(key));
            }
            voice.reported > 0.0
        });
        self.since = (!self.voices.is_empty()).then_some(now);
        sort(&mut changes);
        (!changes.is_empty()).then_some(changes)
    }

    /// Forgets a participant or a muted microphone. Returns the change to tell others if it was speaking.
    pub fn remove(&mut self, key: K) -> Option<SpeakerLevel<K>> {
        let voice = self.voices.remove(&key)?;
        if self.voices.is_empty() {
            self.since = None;
        }
        (voice.reported > 0.0).then_some(SpeakerLevel { key, level: 0.0, active: false })
    }

    /// Everybody who speaks, loudest first: for those who join.
    pub fn current(&self) -> Vec<SpeakerLevel<K>> {
        let speaking = self.voices.iter().filter(|(_, voice)| voice.reported > 0.0);
        let mut speakers: Vec<_> = speaking.map(|(&key, voice)| voice.entry(key)).collect();
        sort(&mut speakers);
        speakers
    }

    /// When [`poll`](Self::poll) next has something to do; `None` in a silent room.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.since.map(|since| since + INTERVAL)
    }
}

impl<K: Copy + Eq + Hash + Ord> Default for ActiveSpeaker<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl Voice {
    fn starting(now: Instant, level: u8) -> Self {
        Voice { last_packet: now, active: TYPICAL_FRAME, loudest: level, smoothed: 0.0, reported: 0.0 }
    }

    fn end_interval(&mut self, interval: Duration) {
        let share = (self.active.as_secs_f32() / interval.as_secs_f32()).min(1.0);
        if share >= MIN_ACTIVE_SHARE {
            // Weighted by the share, so that a continuous voice beats an interjection of the same loudness.
            let loudness = share * linear(self.loudest);
            self.smoothed += SMOOTHING * (loudness - self.smoothed);
            self.reported = (self.smoothed * LEVEL_STEPS).ceil() / LEVEL_STEPS;
        } else {
            // Who stops is gone at once: a ring that lingers around the wrong person misleads more than one that blinks.
            self.smoothed = 0.0;
            self.reported = 0.0;
        }
        self.active = Duration::ZERO;
        self.loudest = ACTIVE_LEVEL;
    }

    fn entry<K>(&self, key: K) -> SpeakerLevel<K> {
        SpeakerLevel { key, level: self.reported, active: self.reported > 0.0 }
    }
}

fn linear(level: u8) -> f32 {
    10f32.powf(f32::from(level) / -20.0)
}

/// Loudest first; the key decides between equals, so that the order never depends on the map.
fn sort<K: Ord>(speakers: &mut [SpeakerLevel<K>]) {
    speakers.sort_by(|a, b| b.level.total_cmp(&a.level).then_with(|| a.key.cmp(&b.key)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Feeds one interval of 20 ms packets from `from` (ms after `t0`), `level(n)` for the n-th or nothing, then polls.
    fn interval(
        room: &mut ActiveSpeaker<u32>,
        t0: Instant,
        from: u64,
        keys: &[u32],
        level: impl Fn(u32, u64) -> Option<u8>,
    ) -> Option<Vec<SpeakerLevel<u32>>> {
        for n in 0..25 {
            for &key in keys {
                if let Some(level) = level(key, n) {
                    room.observe(t0 + ms(from + n * 20), key, level);
                }
            }
        }
        room.poll(t0 + ms(from + 500))
    }

    fn entry(key: u32, level: f32) -> SpeakerLevel<u32> {
        SpeakerLevel { key, level, active: level > 0.0 }
    }

    #[test]
    fn a_voice_is_found_within_an_interval_and_gone_within_another() {
        let t0 = Instant::now();
        let mut room = ActiveSpeaker::new();
        assert_eq!(interval(&mut room, t0, 0, &[1], |_, _| Some(20)), Some(vec![entry(1, 0.125)]));
        assert_eq!(room.current(), [entry(1, 0.125)]);
        assert_eq!(interval(&mut room, t0, 500, &[1], |_, _| Some(20)), None, "no news");
        assert_eq!(interval(&mut room, t0, 1000, &[1], |_, _| Some(60)), Some(vec![entry(1, 0.0)]));
        assert_eq!(room.current(), []);
    }

    #[test]
    fn the_threshold_is_30_below_full_scale() {
        for (level, speaks) in [(0, true), (30, true), (31, false), (127, false), (255, false)] {
            let mut room = ActiveSpeaker::new();
            let changes = interval(&mut room, Instant::now(), 0, &[1], |_, _| Some(level));
            assert_eq!(changes.is_some(), speaks, "{level}");
        }
    }

    #[test]
    fn forty_percent_of_the_interval_make_a_speaker() {
        for (packets, speaks) in [(9, false), (10, true), (25, true)] {
            let mut room = ActiveSpeaker::new();
            let level = |_, n| Some(if n < packets { 10 } else { 127 });
            let changes = interval(&mut room, Instant::now(), 0, &[1], level);
            assert_eq!(changes.is_some(), speaks, "{packets} packets");
        }
    }

    #[test]
    fn missing_packets_are_silence() {
        // With DTX only speech is sent: nine packets of speech are all that arrives, and still too little.
        for (packets, speaks) in [(9, false), (12, true)] {
            let mut room = ActiveSpeaker::new();
            let changes = interval(&mut room, Instant::now(), 0, &[1], |_, n| (n < packets).then_some(10));
            assert_eq!(changes.is_some(), speaks, "{packets} packets");
        }
        // Comfort noise every 400 ms is not speech, however loud its level.
        let t0 = Instant::now();
        let mut room = ActiveSpeaker::new();
        for at in (0..4000).step_by(400) {
            room.observe(t0 + ms(at), 1, 10);
            assert_eq!(room.poll(t0 + ms(at)), None, "at {at}");
        }
    }

    #[test]
    fn frames_of_any_length_count_by_their_time() {
        for frame in [10, 20, 40, 60, 120] {
            let t0 = Instant::now();
            let mut room = ActiveSpeaker::new();
            for at in (0..500).step_by(frame) {
                room.observe(t0 + ms(at), 1, 10);
            }
            assert!(room.poll(t0 + ms(500)).is_some(), "{frame} ms");
        }
        // A burst of packets is no more speech than its time.
        let t0 = Instant::now();
        let mut room = ActiveSpeaker::new();
        for _ in 0..10_000 {
            room.observe(t0, 1, 0);
        }
        assert_eq!(room.poll(t0 + ms(500)), None);
    }

    #[test]
    fn levels_rise_smoothly_in_eighths() {
        let t0 = Instant::now();
        let mut room = ActiveSpeaker::new();
        let levels: Vec<_> = (0..12)
            .filter_map(|n| interval(&mut room, t0, n * 500, &[1], |_, _| Some(0)))
            .map(|changes| changes[0].level)
            .collect();
        // 0.4, 0.64, 0.784, 0.87, 0.92, 0.95, … of full scale, rounded up.
        assert_eq!(levels, [0.5, 0.75, 0.875, 1.0]);
    }

    #[test]
    fn speakers_come_loudest_first() {
        let t0 = Instant::now();
        let mut room = ActiveSpeaker::new();
        let level = |key, _| Some([20, 0, 6, 20][key as usize]);
        let changes = interval(&mut room, t0, 0, &[3, 2, 1, 0], level).unwrap();
        assert_eq!(changes, [entry(1, 0.5), entry(2, 0.25), entry(0, 0.125), entry(3, 0.125)]);
        assert_eq!(room.current(), changes);
        // Only those that changed are named.
        let level = |key, _| Some([20, 127, 6, 20][key as usize]);
        let changes = interval(&mut room, t0, 500, &[0, 1, 2, 3], level).unwrap();
        assert_eq!(changes, [entry(2, 0.375), entry(1, 0.0)]);
    }

    #[test]
    fn a_silent_room_costs_nothing() {
        let t0 = Instant::now();
        let mut room = ActiveSpeaker::new();
        assert_eq!(room.next_timeout(), None);
        for n in 0..1000 {
            room.observe(t0 + ms(n), n as u32, 90);
        }
        assert_eq!((room.next_timeout(), room.voices.len()), (None, 0));
        room.observe(t0 + ms(2000), 1, 10);
        assert_eq!(room.next_timeout(), Some(t0 + ms(2500)));
        assert_eq!(room.poll(t0 + ms(2499)), None);
        assert_eq!(room.next_timeout(), Some(t0 + ms(2500)));
        assert_eq!(room.poll(t0 + ms(2500)), None, "one packet is no voice");
        assert_eq!((room.next_timeout(), room.voices.len()), (None, 0));
    }

    #[test]
    fn who_is_removed_is_reported_once() {
        let t0 = Instant::now();
        let mut room = ActiveSpeaker::new();
        interval(&mut room, t0, 0, &[1, 2], |_, _| Some(10));
        assert_eq!(room.remove(1), Some(entry(1, 0.0)));
        assert_eq!(room.remove(1), None);
        assert_eq!(room.remove(2), Some(entry(2, 0.0)));
        assert_eq!(room.next_timeout(), None);
        room.observe(t0 + ms(600), 3, 10);
        assert_eq!(room.remove(3), None, "not yet a speaker");
        assert_eq!(room.next_timeout(), None);
    }
}
