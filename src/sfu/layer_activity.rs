//! Which layers of a track its publisher is sending, and how many frames a second each has. A browser stops and starts
//! layers as its uplink and CPU allow, and tells nobody, so it has to be seen from the packets. A
//! [`Track`](super::track::Track) owns one of each and shows it every packet.

use std::time::{Duration, Instant};

use super::layer_selector::{MAX_LAYERS, MAX_TEMPORAL_LAYERS};

/// A layer has stopped when it was silent for this long while another layer of the track was not. Three frames of the
/// slowest layer in use (screen shares with 3 frames a second); a shorter time would flap, a longer one is a freeze.
const LAYER_TIMEOUT: Duration = Duration::from_secs(1);

/// Frames are counted for this long: enough of the slowest temporal layers (2 frames a second) to tell them apart.
const RATE_WINDOW: Duration = Duration::from_secs(2);
/// A rate that falls short by this much still does: cameras slow down in the dark. In percent of the request.
const RATE_TOLERANCE_PERCENT: f32 = 90.0;

/// The layers that a publisher is sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AliveLayers(u8);

impl AliveLayers {
    #[cfg(test)]
    pub fn of(layers: &[u8]) -> Self {
        AliveLayers(layers.iter().fold(0, |bits, layer| bits | 1 << layer))
    }

    pub fn contains(self, layer: u8) -> bool {
        (layer as usize) < MAX_LAYERS && self.0 & (1 << layer) != 0
    }

    /// The highest layer; 0 while none is known.
    pub fn highest(self) -> u8 {
        self.count().saturating_sub(1) as u8
    }

    /// How many layers there are at least.
    pub fn count(self) -> usize {
        (u8::BITS - self.0.leading_zeros()) as usize
    }
}

/// Sees from the packets of a track which of its layers are alive. Layers are measured against each other and not
/// against the clock: when all fall silent (mute, network), there is nothing better to switch to.
#[derive(Debug, Clone, Default)]
pub struct LayerActivity {
    last: [Option<Instant>; MAX_LAYERS],
    newest: Option<Instant>,
    alive: AliveLayers,
}

impl LayerActivity {
    pub fn new() -> Self {
        Self::default()
    }

    /// A packet of `layer` arrived. True when the set of alive layers changed: then every subscription's target may
    /// have, too.
    pub fn observe(&mut self, layer: u8, now: Instant) -> bool {
        if layer as usize >= MAX_LAYERS {
            return false;
        }
        // The track as a whole was silent: its layers resume one after the other and get time to do so.
        let resumes = self.newest.is_some_and(|newest| now.saturating_duration_since(newest) > LAYER_TIMEOUT);
        self.newest = Some(now);
        let mut alive = AliveLayers::default();
        for (i, last) in self.last.iter_mut().enumerate() {
            if i == layer as usize || (resumes && self.alive.contains(i as u8)) {
                *last = Some(now);
            }
            if last.is_some_and(|last| now.saturating_duration_since(last) <= LAYER_TIMEOUT) {
                alive.0 |= 1 << i;
            }
        }
        std::mem::replace(&mut self.alive, alive) != alive
    }

    pub fn alive(&self) -> AliveLayers {
        self.alive
    }
}

/// Frames a second, by layer and temporal layer.
#[derive(Debug, Clone, Default)]
pub struct FrameRates {
    since: Option<Instant>,
    counts: [[u16; MAX_TEMPORAL_LAYERS]; MAX_LAYERS],
    rates: [[f32; MAX_TEMPORAL_LAYERS]; MAX_LAYERS],
}

impl FrameRates {
    /// A frame began. True when new rates are known.
    pub fn observe(&mut self, layer: u8, temporal: u8, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        let due = elapsed >= RATE_WINDOW;
        if due {
            for (rates, counts) in self.rates.iter_mut().flatten().zip(self.counts.iter_mut().flatten()) {
                *rates = f32::from(std::mem::take(counts)) / elapsed.as_secs_f32();
            }
            self.since = Some(now);
        }
        if let Some(count) = self.counts.get_mut(usize::from(layer)).and_then(|c| c.get_mut(usize::from(temporal))) {
            *count = count.saturating_add(1);
        }
        due
    }

    /// The lowest temporal layer that, with those below it, has so many frames a second; the highest while nobody knows.
    pub fn temporal_for(&self, layer: u8, fps: u32) -> u8 {
        const TOP: u8 = MAX_TEMPORAL_LAYERS as u8 - 1;
        let Some(rates) = self.rates.get(usize::from(layer)) else { return TOP };
        let mut sum = 0.0;
        let enough = |rate: &f32| {
            sum += rate;
            sum > 0.0 && sum * 100.0 >= fps as f32 * RATE_TOLERANCE_PERCENT
        };
        rates.iter().position(enough).map_or(TOP, |layer| layer as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(layers: &[u8]) -> AliveLayers {
        AliveLayers::of(layers)
    }

    #[test]
    fn the_frame_rate_chooses_the_temporal_layer() {
        let t0 = Instant::now();
        let mut rates = FrameRates::default();
        assert_eq!(rates.temporal_for(0, 15), 3, "nothing is known yet");
        // 30 frames a second in the pattern 0 2 1 2; the upper layer has no temporal layers.
        for n in 0..=60u64 {
            let now = t0 + Duration::from_micros(n * 33_334);
            assert_eq!(rates.observe(0, [0, 2, 1, 2][n as usize % 4], now), n == 60);
            rates.observe(1, 0, now);
        }
        for (fps, expected) in [(1, 0), (7, 0), (8, 0), (10, 1), (15, 1), (16, 1), (18, 2), (30, 2), (33, 2), (60, 3)] {
            assert_eq!(rates.temporal_for(0, fps), expected, "{fps}");
        }
        assert_eq!((rates.temporal_for(1, 10), rates.temporal_for(1, 30), rates.temporal_for(2, 10)), (0, 0, 3));
        assert!(!rates.observe(7, 7, t0));
        assert_eq!(rates.temporal_for(7, u32::MAX), 3);
    }

    #[test]
    fn a_layer_is_dead_when_it_is_silent_and_others_are_not() {
        let t0 = Instant::now();
        let mut activity = LayerActivity::new();
        let at = |ms| t0 + Duration::from_millis(ms);
        assert!(activity.observe(0, at(0)));
        assert!(!activity.observe(0, at(33)));
        assert!(activity.observe(2, at(40)));
        assert_eq!(activity.alive(), alive(&[0, 2]));
        assert!(!activity.observe(0, at(1040)));
        assert!(activity.observe(0, at(1041)), "the high layer stopped");
        assert_eq!(activity.alive(), alive(&[0]));
        assert!(activity.observe(2, at(1042)), "and came back");
        assert!(!activity.observe(7, at(1043)));
    }

    #[test]
    fn a_track_that_stalls_as_a_whole_keeps_its_layers() {
        let t0 = Instant::now();
        let mut activity = LayerActivity::new();
        for layer in 0..3 {
            activity.observe(layer, t0);
        }
        let later = t0 + Duration::from_secs(60);
        assert!(!activity.observe(1, later));
        assert_eq!(activity.alive(), alive(&[0, 1, 2]));
        // Layer 0 does not come back.
        for n in 1..=30 {
            assert!(!activity.observe(2, later + Duration::from_millis(33 * n)));
        }
        activity.observe(1, later + Duration::from_millis(1001));
        assert_eq!(activity.alive(), alive(&[1, 2]));
    }
}
