//! Loudest: whose microphones are forwarded in a room that forwards only a few of them.
//!
//! Fifty open microphones are 2,450 streams of 50 packets a second, of which nobody can follow more than a handful. With
//! [`RoomOptions::forward_loudest`](super::RoomOptions) a room gives its places to those who spoke last; the others'
//! packets end here. It owns one, shows it every microphone packet's level and drops what it is told to drop.
//!
//! Places are given at once when somebody holds one in silence, so that no word begins in the dark, and are never taken
//! within a word.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// What is louder, in −dBov, may be the beginning of a word.
const AUDIBLE: u8 = 50;

/// Who was silent for this long gives way to anybody.
const HOLD: Duration = Duration::from_secs(2);

/// Who was silent for this long gives way to somebody who is clearly louder: longer than the gap between two words.
const WORD_GAP: Duration = Duration::from_millis(400);

/// How much louder that is, dB: twice the amplitude.
const LOUDER: u32 = 6;

/// Weight of a packet in the average loudness, as a shift: 16 packets are a third of a second.
const SMOOTHING: u32 = 4;

#[derive(Debug, Clone)]
pub struct Loudest<K> {
    places: usize,
    heard: Vec<K>,
    voices: HashMap<K, Voice>,
}

#[derive(Debug, Clone, Copy)]
struct Voice {
    last_audible: Instant,
    /// 127 − |dBov|, averaged over its packets, in 1/2^SMOOTHING dB.
    loudness: u32,
}

impl<K: Copy + Eq + Hash> Loudest<K> {
    /// So many are heard at once; 0 = everybody.
    pub fn new(places: usize) -> Self {
        Loudest { places, heard: Vec::new(), voices: HashMap::new() }
    }

    /// Whether to forward this packet of `key`, with its level in −dBov: 0 = loudest, 127 = silence.
    pub fn admits(&mut self, now: Instant, key: K, level: u8) -> bool {
        if self.places == 0 {
            return true;
        }
        let audible = level <= AUDIBLE;
        let loudness = u32::from(127 - level.min(127));
        let voice = self.voices.entry(key).or_insert(Voice { last_audible: now, loudness: 0 });
        voice.loudness = voice.loudness - (voice.loudness >> SMOOTHING) + loudness;
        if audible {
            voice.last_audible = now;
        }
        if self.heard.contains(&key) {
            return true;
        }
        let loudness = voice.loudness;
        if self.heard.len() < self.places {
            self.heard.push(key);
            return true;
        }
        if !audible {
            return false;
        }
        let Some(place) = self.place_for(now, loudness) else { return false };
        self.heard[place] = key;
        true
    }

    /// The place of who was silent longest, if somebody of this loudness may have it.
    fn place_for(&self, now: Instant, loudness: u32) -> Option<usize> {
        let held = self.heard.iter().enumerate().filter_map(|(place, key)| Some((place, self.voices.get(key)?)));
        let (place, voice) = held.min_by_key(|(_, voice)| voice.last_audible)?;
        let silent = now.saturating_duration_since(voice.last_audible);
        let louder = loudness > voice.loudness + (LOUDER << SMOOTHING);
        (silent >= HOLD || (silent >= WORD_GAP && louder)).then_some(place)
    }

    /// Forgets a track that ended or was muted.
    pub fn remove(&mut self, key: K) {
        self.voices.remove(&key);
        self.heard.retain(|heard| *heard != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// 20 ms packets; who was forwarded, by packet.
    fn play(
        loudest: &mut Loudest<u32>,
        t0: Instant,
        keys: &[u32],
        (from, until): (u64, u64),
        level: impl Fn(u32, u64) -> u8,
    ) -> Vec<(u64, u32)> {
        let mut forwarded = Vec::new();
        for at in (from..until).step_by(20) {
            for &key in keys {
                if loudest.admits(t0 + ms(at), key, level(key, at)) {
                    forwarded.push((at, key));
                }
            }
        }
        forwarded
    }

    fn of(forwarded: &[(u64, u32)], key: u32) -> usize {
        forwarded.iter().filter(|(_, k)| *k == key).count()
    }

    #[test]
    fn everybody_is_heard_without_a_limit_or_within_it() {
        for places in [0, 3, 9] {
            let mut loudest = Loudest::new(places);
            assert_eq!(play(&mut loudest, Instant::now(), &[1, 2, 3], (0, 1000), |_, _| 90).len(), 150);
        }
    }

    #[test]
    fn who_begins_to_speak_is_heard_from_the_first_packet() {
        let t0 = Instant::now();
        let keys = [1, 2, 3, 4, 5];
        let mut loudest = Loudest::new(2);
        for (turn, speaker) in [1, 4, 5, 2].into_iter().enumerate() {
            let from = turn as u64 * 5000;
            let level = |key, _| if key == speaker { 25 } else { 80 };
            let forwarded = play(&mut loudest, t0, &keys, (from, from + 5000), level);
            assert_eq!(of(&forwarded, speaker), 250, "{speaker}");
            assert!((500..=501).contains(&forwarded.len()), "two at a time: {}", forwarded.len());
        }
    }

    #[test]
    fn nobody_is_cut_off_while_speaking() {
        let t0 = Instant::now();
        let mut loudest = Loudest::new(2);
        // Two talk with gaps between their words; a third one shouts.
        let level = |key, at: u64| match key {
            3 => 5,
            _ if at % 500 < 300 => 25,
            _ => 80,
        };
        let forwarded = play(&mut loudest, t0, &[1, 2, 3], (0, 10_000), level);
        assert_eq!((of(&forwarded, 1), of(&forwarded, 2), of(&forwarded, 3)), (500, 500, 0));
        // One of them ends a sentence: the shouting one need not wait for long.
        let level = |key, at| if key == 2 { 80 } else { level(key, at) };
        let forwarded = play(&mut loudest, t0, &[1, 2, 3], (10_000, 11_000), level);
        let first = forwarded.iter().find(|(_, key)| *key == 3).expect("heard now").0;
        assert!((10_000..=10_600).contains(&first), "{first}");
        // One who is not louder waits longer.
        let mut loudest = Loudest::new(1);
        let level = |key, at| if key == 2 || at < 1_000 { 49 } else { 54 };
        let forwarded = play(&mut loudest, t0, &[1, 2], (0, 5_000), level);
        let first = forwarded.iter().find(|(_, key)| *key == 2).expect("heard in the end").0;
        assert!((2_900..=3_100).contains(&first), "{first}");
    }

    #[test]
    fn a_place_is_free_when_its_holder_is_gone() {
        let t0 = Instant::now();
        let mut loudest = Loudest::new(1);
        assert!(loudest.admits(t0, 1, 20));
        assert!(!loudest.admits(t0, 2, 20));
        loudest.remove(1);
        assert!(loudest.admits(t0, 2, 90));
        assert!(!loudest.admits(t0, 1, 20));
        loudest.remove(1);
        loudest.remove(2);
        assert_eq!((loudest.heard.len(), loudest.voices.len()), (0, 0));
    }

    proptest! {
        #[test]
        fn no_more_than_there_are_places(
            places in 1usize..5, packets in prop::collection::vec((0u64..300, 0u32..12, any::<u8>()), 0..400)
        ) {
            let t0 = Instant::now();
            let (mut loudest, mut at) = (Loudest::new(places), 0);
            for (gap, key, level) in packets {
                at += gap;
                loudest.admits(t0 + ms(at), key, level);
                prop_assert!(loudest.heard.len() <= places);
                prop_assert!(loudest.voices.values().all(|voice| voice.loudness <= 127 << SMOOTHING));
            }
        }
    }
}
