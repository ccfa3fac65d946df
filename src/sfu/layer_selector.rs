//! Which simulcast layer of a track should flow to one subscriber.
//!
//! [`LayerSelector`] belongs to a subscription and knows what the subscriber asked for. [`LayerActivity`] belongs to a
//! track and knows which layers the publisher is sending: a browser stops and starts layers as its uplink and CPU
//! allow, and tells nobody, so it has to be seen from the packets. The answer is a wish: the
//! [`Forwarder`](super::forwarder::Forwarder) carries it out at the next keyframe.

use std::time::{Duration, Instant};

use super::info::{LayerInfo, Quality};

/// Layers of one track. Browsers send at most three.
pub const MAX_LAYERS: usize = 3;

/// A layer has stopped when it was silent for this long while another layer of the track was not. Three frames of the
/// slowest layer in use (screen shares with 3 frames a second); a shorter time would flap, a longer one is a freeze.
const LAYER_TIMEOUT: Duration = Duration::from_secs(1);

/// A layer does for a request that is larger by this much: a video scaled up by a fifth looks the same and costs a
/// quarter of the next layer. In percent of the requested size.
const SIZE_TOLERANCE_PERCENT: u64 = 80;

/// Heights assumed, lowest first, when the publisher did not say: what client SDKs use for their lower layers.
/// The highest layer is then the announced size of the track.
const DEFAULT_HEIGHTS: [u32; MAX_LAYERS - 1] = [180, 360];

/// What a subscriber asks of one track; LiveKit's `UpdateTrackSettings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackSettings {
    /// Nothing should flow: the video is not on screen.
    pub disabled: bool,
    /// Used when no size is given.
    pub quality: Quality,
    /// Size on screen in pixels; 0 = not given.
    pub width: u32,
    pub height: u32,
}

/// What the publisher announced about a video.
#[derive(Debug, Clone, Copy)]
pub struct Published<'a> {
    /// Lowest first; empty when the publisher did not say.
    pub layers: &'a [LayerInfo],
    /// Size of the highest layer in pixels; 0 = not known.
    pub width: u32,
    pub height: u32,
}

#[derive(Debug, Clone)]
pub struct LayerSelector {
    initial: Quality,
    settings: Option<TrackSettings>,
}

impl LayerSelector {
    /// `adaptive_stream`: the subscriber will report sizes. Until then it gets the lowest layer, since most videos of
    /// a large call are small; others get the best at once.
    pub fn new(adaptive_stream: bool) -> Self {
        let initial = if adaptive_stream { Quality::Low } else { Quality::High };
        LayerSelector { initial, settings: None }
    }

    pub fn set(&mut self, settings: TrackSettings) {
        self.settings = Some(settings);
    }

    /// Whether the subscriber turned the track off.
    pub fn is_disabled(&self) -> bool {
        self.settings.is_some_and(|s| s.disabled)
    }

    /// The layer that should flow now, 0 = lowest; `None` when nothing should. A layer that is not alive is replaced by
    /// the next lower one that is, else the next higher: a wrong size is better than no picture.
    pub fn target(&self, published: &Published, alive: AliveLayers) -> Option<u8> {
        if self.is_disabled() {
            return None;
        }
        let wanted = self.wanted(published, alive);
        let lower = (0..=wanted).rev().find(|&layer| alive.contains(layer));
        let higher = || (wanted + 1..MAX_LAYERS as u8).find(|&layer| alive.contains(layer));
        Some(lower.or_else(higher).unwrap_or(wanted))
    }

    /// The best layer for the request, were all alive.
    fn wanted(&self, published: &Published, alive: AliveLayers) -> u8 {
        let count = published.layers.len().max(alive.count()).clamp(1, MAX_LAYERS);
        match self.settings {
            Some(s) if s.width > 0 || s.height > 0 => by_size(&s, published, count),
            Some(s) => by_quality(s.quality, published.layers, count),
            None => by_quality(self.initial, published.layers, count),
        }
    }
}

/// The highest layer that is not above `quality`, by the announced qualities, else by position.
fn by_quality(quality: Quality, layers: &[LayerInfo], count: usize) -> u8 {
    let layer = if layers.is_empty() {
        quality as usize
    } else {
        layers.iter().take(count).rposition(|layer| layer.quality <= quality).unwrap_or(0)
    };
    layer.min(count - 1) as u8
}

/// The lowest layer that is large enough.
fn by_size(settings: &TrackSettings, published: &Published, count: usize) -> u8 {
    let fits = |layer: &usize| {
        let size = layer_size(published, *layer, count);
        size.0 == 0 || size.1 == 0 || large_enough(size, settings)
    };
    let Some(lowest) = (0..count).find(fits) else {
        return (count - 1) as u8;
    };
    // Layers of one size differ in frame rate or bitrate: no reason to take the worse.
    let size = layer_size(published, lowest, count);
    let best = (lowest..count).rev().find(|&layer| layer_size(published, layer, count) == size);
    best.unwrap_or(lowest) as u8
}

/// Compares the layer's short side with the same side of the request: that is the side that fills the screen first
/// when a video is cropped to its tile, and the one by which layers are named (180p, 360p, …).
fn large_enough((width, height): (u32, u32), settings: &TrackSettings) -> bool {
    let portrait = width < height;
    let by_width = settings.height == 0 || (portrait && settings.width > 0);
    let (have, want) = if by_width { (width, settings.width) } else { (height, settings.height) };
    u64::from(have) * 100 >= u64::from(want) * SIZE_TOLERANCE_PERCENT
}

/// Width and height of a layer; zeros when nobody knows.
fn layer_size(published: &Published, layer: usize, count: usize) -> (u32, u32) {
    if let Some(info) = published.layers.get(layer)
        && info.width > 0
        && info.height > 0
    {
        return (info.width, info.height);
    }
    let (width, height) = (published.width, published.height);
    if layer + 1 == count || width == 0 || height == 0 {
        return (width, height);
    }
    let scale = |side: u32, short: u32| (u64::from(side) * u64::from(short) / u64::from(width.min(height))) as u32;
    let short = DEFAULT_HEIGHTS[layer.min(DEFAULT_HEIGHTS.len() - 1)].min(width.min(height));
    (scale(width, short), scale(height, short))
}

/// The layers that a publisher is sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AliveLayers(u8);

impl AliveLayers {
    pub fn contains(self, layer: u8) -> bool {
        (layer as usize) < MAX_LAYERS && self.0 & (1 << layer) != 0
    }

    /// How many layers there are at least.
    fn count(self) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;
    use Quality::{High, Low, Medium};

    fn layer(quality: Quality, width: u32, height: u32) -> LayerInfo {
        LayerInfo { quality, width, height, bitrate: 0, rid: None }
    }

    fn camera() -> Vec<LayerInfo> {
        vec![layer(Low, 320, 180), layer(Medium, 640, 360), layer(High, 1280, 720)]
    }

    fn alive(layers: &[u8]) -> AliveLayers {
        AliveLayers(layers.iter().fold(0, |bits, layer| bits | 1 << layer))
    }

    fn size(width: u32, height: u32) -> TrackSettings {
        TrackSettings { disabled: false, quality: Low, width, height }
    }

    fn quality(quality: Quality) -> TrackSettings {
        TrackSettings { quality, ..size(0, 0) }
    }

    fn target(settings: TrackSettings, layers: &[LayerInfo], alive: AliveLayers) -> Option<u8> {
        let (width, height) = layers.last().map_or((1280, 720), |top| (top.width, top.height));
        let mut selector = LayerSelector::new(true);
        selector.set(settings);
        selector.target(&Published { layers, width, height }, alive)
    }

    #[test]
    fn before_any_settings_adaptive_subscribers_get_the_lowest_and_others_the_highest() {
        let layers = camera();
        let published = Published { layers: &layers, width: 1280, height: 720 };
        assert_eq!(LayerSelector::new(true).target(&published, alive(&[0, 1, 2])), Some(0));
        assert_eq!(LayerSelector::new(false).target(&published, alive(&[0, 1, 2])), Some(2));
    }

    #[test]
    fn size_on_screen_chooses_the_lowest_layer_that_does() {
        let all = alive(&[0, 1, 2]);
        for (width, height, expected) in [
            (1, 1, 0),
            (320, 180, 0),
            (400, 225, 0), // a fifth less than asked is enough
            (402, 226, 1),
            (640, 360, 1),
            (800, 450, 1),
            (802, 451, 2),
            (1280, 720, 2),
            (3840, 2160, 2),
            (200, 720, 2), // a landscape video fills a portrait tile by its height
            (1280, 100, 0),
            (640, 0, 1),
            (0, 360, 1),
        ] {
            assert_eq!(target(size(width, height), &camera(), all), Some(expected), "{width}x{height}");
        }
    }

    #[test]
    fn portrait_videos_are_compared_by_width() {
        let layers = [layer(Low, 180, 320), layer(Medium, 360, 640), layer(High, 720, 1280)];
        let all = alive(&[0, 1, 2]);
        for (width, height, expected) in [(180, 640, 0), (360, 320, 1), (720, 100, 2), (0, 640, 1), (360, 0, 1)] {
            assert_eq!(target(size(width, height), &layers, all), Some(expected), "{width}x{height}");
        }
    }

    #[test]
    fn sizes_are_assumed_when_the_publisher_did_not_say() {
        for (width, height, expected) in [(320, 180, 0), (640, 360, 1), (1280, 720, 2)] {
            assert_eq!(target(size(width, height), &[], alive(&[0, 1, 2])), Some(expected), "{width}x{height}");
        }
        let nameless = [layer(Low, 0, 0), layer(Medium, 0, 0)];
        let published = Published { layers: &nameless, width: 640, height: 480 };
        let mut selector = LayerSelector::new(true);
        for (height, expected) in [(180, 0), (360, 1), (1080, 1)] {
            selector.set(size(0, height));
            assert_eq!(selector.target(&published, alive(&[0, 1])), Some(expected), "{height}");
        }
        // Nothing known at all, so nothing to compare with: the best.
        let unknown = Published { layers: &[], width: 0, height: 0 };
        selector.set(size(320, 180));
        assert_eq!(selector.target(&unknown, alive(&[0, 1, 2])), Some(2));
        assert_eq!(selector.target(&unknown, alive(&[0])), Some(0));
    }

    #[test]
    fn among_layers_of_one_size_the_best_flows() {
        let layers = [layer(Low, 1920, 1080), layer(Medium, 1920, 1080)];
        assert_eq!(target(size(640, 360), &layers, alive(&[0, 1])), Some(1));
    }

    #[test]
    fn quality_counts_without_a_size() {
        let all = alive(&[0, 1, 2]);
        for (wanted, expected) in [(Low, 0), (Medium, 1), (High, 2)] {
            assert_eq!(target(quality(wanted), &camera(), all), Some(expected));
            assert_eq!(target(quality(wanted), &[], all), Some(expected));
            assert_eq!(target(quality(wanted), &camera()[..1], alive(&[0])), Some(0));
            assert_eq!(target(quality(wanted), &camera()[..2], alive(&[0, 1])), Some(expected.min(1)));
            assert_eq!(target(quality(wanted), &[], alive(&[0])), Some(0));
        }
        let outer = [layer(Low, 320, 180), layer(High, 1280, 720)];
        for (wanted, expected) in [(Low, 0), (Medium, 0), (High, 1)] {
            assert_eq!(target(quality(wanted), &outer, alive(&[0, 1])), Some(expected));
        }
    }

    #[test]
    fn layers_that_are_not_sent_are_replaced_by_the_nearest_lower_else_higher() {
        for (wanted, sent, expected) in [
            (High, &[0, 1][..], 1),
            (High, &[0], 0),
            (Medium, &[0, 2], 0),
            (Medium, &[2], 2),
            (Low, &[1, 2], 1),
            (Low, &[2], 2),
            (Medium, &[], 1), // muted, or nothing came yet
        ] {
            assert_eq!(target(quality(wanted), &camera(), alive(sent)), Some(expected), "{wanted:?} of {sent:?}");
        }
    }

    #[test]
    fn disabled_tracks_flow_in_no_layer() {
        let off = TrackSettings { disabled: true, ..size(1280, 720) };
        assert_eq!(target(off, &camera(), alive(&[0, 1, 2])), None);
        let mut selector = LayerSelector::new(true);
        selector.set(off);
        assert!(selector.is_disabled());
        selector.set(size(1280, 720));
        assert!(!selector.is_disabled());
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
