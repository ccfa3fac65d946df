//! Which layers of a track should flow to one subscriber.
//!
//! [`LayerSelector`] belongs to a subscription and knows what the subscriber asked for and what its bandwidth allows; the
//! track knows which layers there are ([`layer_activity`](super::layer_activity)). The answer is a wish: the
//! [`Forwarder`](super::forwarder::Forwarder) carries it out where the stream lets it, at the next keyframe at the latest.

use super::info::{LayerInfo, Quality};
use super::layer_activity::{AliveLayers, FrameRates};

/// Layers of one track, each a simulcast stream or a spatial layer of a scalable one. Browsers send at most three.
pub const MAX_LAYERS: usize = 3;
/// Temporal layers of one layer; what VP8 can number (RFC 7741 §4.2), and more than any browser sends.
pub const MAX_TEMPORAL_LAYERS: usize = 4;

/// What may flow of a track: this layer, and its temporal layers up to that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Simulcast or spatial layer, 0 = lowest. Of a scalable stream the layers below flow, too.
    pub spatial: u8,
    /// 0 = the base layer only.
    pub temporal: u8,
}

impl Target {
    /// Everything there is.
    pub const MAX: Target = Target { spatial: MAX_LAYERS as u8 - 1, temporal: MAX_TEMPORAL_LAYERS as u8 - 1 };
}

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
    /// Frames a second that are enough; 0 = not given.
    pub fps: u32,
    /// 1 = the highest; 0 = not given.
    pub priority: u32,
}

/// What the publisher announced about a video.
#[derive(Debug, Clone, Copy)]
pub struct Published<'a> {
    /// Lowest first; empty when the publisher did not say.
    pub layers: &'a [LayerInfo],
    /// Size of the highest layer in pixels; 0 = not known.
    pub width: u32,
    pub height: u32,
    /// One stream carries all layers: of a layer that is not sent, those below come anyway.
    pub scalable: bool,
    pub frame_rates: &'a FrameRates,
}

#[derive(Debug, Clone)]
pub struct LayerSelector {
    initial: Quality,
    settings: Option<TrackSettings>,
    cap: Option<Target>,
}

impl LayerSelector {
    /// `adaptive_stream`: the subscriber will report sizes. Until then it gets the lowest layer, since most videos of
    /// a large call are small; others get the best at once.
    pub fn new(adaptive_stream: bool) -> Self {
        let initial = if adaptive_stream { Quality::Low } else { Quality::High };
        LayerSelector { initial, settings: None, cap: Some(Target::MAX) }
    }

    pub fn set(&mut self, settings: TrackSettings) {
        self.settings = Some(settings);
    }

    /// Whether the subscriber turned the track off.
    pub fn is_disabled(&self) -> bool {
        self.settings.is_some_and(|s| s.disabled)
    }

    /// What the subscriber's bandwidth allows; `None` pauses the track.
    pub fn set_cap(&mut self, cap: Option<Target>) {
        self.cap = cap;
    }

    pub fn cap(&self) -> Option<Target> {
        self.cap
    }

    /// What should flow now; `None` when nothing should.
    pub fn target(&self, published: &Published, alive: AliveLayers) -> Option<Target> {
        let wanted = self.wanted(published, alive)?;
        let cap = self.cap?;
        let spatial = match wanted.spatial > cap.spatial {
            true if published.scalable => cap.spatial,
            true => nearest(cap.spatial, cap.spatial, alive),
            false => wanted.spatial,
        };
        Some(Target { spatial, temporal: wanted.temporal.min(cap.temporal) })
    }

    /// What the subscriber asks for, were bandwidth no matter; `None` when it turned the track off. A layer that is not
    /// alive is replaced by the next lower one that is, else the next higher: a wrong size is better than no picture.
    pub fn wanted(&self, published: &Published, alive: AliveLayers) -> Option<Target> {
        let asked = self.asked(published, alive)?;
        // All spatial layers of a scalable stream come in one, and are not told apart by who is silent.
        let spatial = match published.scalable {
            true => asked.spatial,
            false => nearest(asked.spatial, Target::MAX.spatial, alive),
        };
        Some(self.in_time(spatial, published))
    }

    /// The same, were all layers alive, too: what the publisher should send.
    pub fn asked(&self, published: &Published, alive: AliveLayers) -> Option<Target> {
        if self.is_disabled() {
            return None;
        }
        Some(self.in_time(self.wanted_layer(published, alive), published))
    }

    /// As the client set it: 1 = the highest, 0 = not at all.
    pub fn priority(&self) -> u32 {
        self.settings.map_or(0, |s| s.priority)
    }

    /// How large the subscriber shows the video: as it said, else as the layer is that it asked for.
    pub fn pixels(&self, published: &Published, asked: u8) -> u64 {
        let said = self.settings.map(|s| u64::from(s.width) * u64::from(s.height)).filter(|pixels| *pixels > 0);
        let (width, height) = layer_size(published, usize::from(asked), published.layers.len().max(1));
        said.unwrap_or(u64::from(width) * u64::from(height))
    }

    /// A layer with as many of its temporal layers as the frame rate needs.
    fn in_time(&self, spatial: u8, published: &Published) -> Target {
        let fps = self.settings.map_or(0, |s| s.fps);
        let temporal = if fps > 0 { published.frame_rates.temporal_for(spatial, fps) } else { Target::MAX.temporal };
        Target { spatial, temporal }
    }

    /// The best layer for the request, were all alive.
    fn wanted_layer(&self, published: &Published, alive: AliveLayers) -> u8 {
        let count = published.layers.len().max(alive.count()).clamp(1, MAX_LAYERS);
        match self.settings {
            Some(s) if s.width > 0 || s.height > 0 => by_size(&s, published, count),
            Some(s) => by_quality(s.quality, published.layers, count),
            None => by_quality(self.initial, published.layers, count),
        }
    }
}

/// The layer itself if it is alive, else the next lower one that is, else the next higher up to `top`.
fn nearest(layer: u8, top: u8, alive: AliveLayers) -> u8 {
    let lower = (0..=layer).rev().find(|&layer| alive.contains(layer));
    let higher = || (layer + 1..=top).find(|&layer| alive.contains(layer));
    lower.or_else(higher).unwrap_or(layer)
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use Quality::{High, Low, Medium};

    fn layer(quality: Quality, width: u32, height: u32) -> LayerInfo {
        LayerInfo { quality, width, height, bitrate: 0, rid: None }
    }

    fn camera() -> Vec<LayerInfo> {
        vec![layer(Low, 320, 180), layer(Medium, 640, 360), layer(High, 1280, 720)]
    }

    fn alive(layers: &[u8]) -> AliveLayers {
        AliveLayers::of(layers)
    }

    fn published<'a>(layers: &'a [LayerInfo], width: u32, height: u32) -> Published<'a> {
        static UNKNOWN: LazyLock<FrameRates> = LazyLock::new(FrameRates::default);
        Published { layers, width, height, scalable: false, frame_rates: &UNKNOWN }
    }

    fn spatial(target: Option<Target>) -> Option<u8> {
        target.map(|target| target.spatial)
    }

    fn size(width: u32, height: u32) -> TrackSettings {
        TrackSettings { disabled: false, quality: Low, width, height, fps: 0, priority: 0 }
    }

    fn quality(quality: Quality) -> TrackSettings {
        TrackSettings { quality, ..size(0, 0) }
    }

    fn target(settings: TrackSettings, layers: &[LayerInfo], alive: AliveLayers) -> Option<u8> {
        let (width, height) = layers.last().map_or((1280, 720), |top| (top.width, top.height));
        let mut selector = LayerSelector::new(true);
        selector.set(settings);
        spatial(selector.target(&published(layers, width, height), alive))
    }

    #[test]
    fn before_any_settings_adaptive_subscribers_get_the_lowest_and_others_the_highest() {
        let layers = camera();
        let published = published(&layers, 1280, 720);
        assert_eq!(spatial(LayerSelector::new(true).target(&published, alive(&[0, 1, 2]))), Some(0));
        assert_eq!(
            LayerSelector::new(false).target(&published, alive(&[0, 1, 2])),
            Some(Target { spatial: 2, temporal: 3 })
        );
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
        let published_nameless = published(&nameless, 640, 480);
        let mut selector = LayerSelector::new(true);
        for (height, expected) in [(180, 0), (360, 1), (1080, 1)] {
            selector.set(size(0, height));
            assert_eq!(spatial(selector.target(&published_nameless, alive(&[0, 1]))), Some(expected), "{height}");
        }
        // Nothing known at all, so nothing to compare with: the best.
        let unknown = published(&[], 0, 0);
        selector.set(size(320, 180));
        assert_eq!(spatial(selector.target(&unknown, alive(&[0, 1, 2]))), Some(2));
        assert_eq!(spatial(selector.target(&unknown, alive(&[0]))), Some(0));
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
    fn bandwidth_caps_what_was_asked_for() {
        let layers = camera();
        let mut selector = LayerSelector::new(false);
        let all = alive(&[0, 1, 2]);
        let of = |selector: &LayerSelector, alive| {
            selector.target(&published(&layers, 1280, 720), alive).map(|t| (t.spatial, t.temporal))
        };
        assert_eq!(selector.cap(), Some(Target::MAX));
        assert_eq!(of(&selector, all), Some((2, 3)));
        selector.set_cap(Some(Target { spatial: 1, temporal: 0 }));
        assert_eq!(of(&selector, all), Some((1, 0)));
        assert_eq!(of(&selector, alive(&[0, 2])), Some((0, 0)), "the next lower one that is sent");
        assert_eq!(of(&selector, alive(&[2])), Some((1, 0)), "not the next higher one: it would not fit");
        let wanted = selector.wanted(&published(&layers, 1280, 720), all);
        assert_eq!(wanted, Some(Target { spatial: 2, temporal: 3 }), "whatever the cap");
        selector.set_cap(None);
        assert_eq!(of(&selector, all), None);
        selector.set(TrackSettings { disabled: true, ..size(0, 0) });
        assert_eq!(selector.wanted(&published(&layers, 1280, 720), all), None);
    }

    #[test]
    fn layers_of_a_scalable_stream_need_no_replacement() {
        let layers = camera();
        let published = Published { scalable: true, ..published(&layers, 1280, 720) };
        let mut selector = LayerSelector::new(false);
        assert_eq!(spatial(selector.target(&published, alive(&[0, 1]))), Some(2), "it may come at any picture");
        selector.set_cap(Some(Target { spatial: 1, temporal: 3 }));
        assert_eq!(spatial(selector.target(&published, alive(&[0, 2]))), Some(1));
    }
}
