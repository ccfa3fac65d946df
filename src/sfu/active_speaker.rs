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
        ActiveSpeaker {
            voices: HashMap::new(),
            since: None,
        }
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
        (voice.reported > 0.0).then_some(SpeakerLevel {
            key,
            level: 0.0,
            active: false,
        })
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
        Voice {
            last_packet: now,
            active: TYPICAL_FRAME,
            loudest: level,
            smoothed: 0.0,
            reported: 0.0,
        }
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
        SpeakerLevel {
            key,
            level: self.reported,
            active: self.reported > 0.0,
        }
    }
}

fn linear(level: u8) -> f32 {
    10f32.powf(f32::from(level) / -20.0)
}

/// Loudest first; the key decides between equals, so that the order never depends on the map.
fn sort<K: Ord>(speakers: &mut [SpeakerLevel<K>]) {
    speakers.sort_by(|a, b| b.level.total_cmp(&a.level).then_with(|| a.key.cmp(&b.key)));
}
