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
        LayerSelector {
            initial,
            settings: None,
        }
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
        layers
            .iter()
            .take(count)
            .rposition(|layer| layer.quality <= quality)
            .unwrap_or(0)
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
    let best = (lowest..count)
        .rev()
        .find(|&layer| layer_size(published, layer, count) == size);
    best.unwrap_or(lowest) as u8
}

/// Compares the layer's short side with the same side of the request: that is the side that fills the screen first
/// when a video is cropped to its tile, and the one by which layers are named (180p, 360p, …).
fn large_enough((width, height): (u32, u32), settings: &TrackSettings) -> bool {
    let portrait = width < height;
    let by_width = settings.height == 0 || (portrait && settings.width > 0);
    let (have, want) = if by_width {
        (width, settings.width)
    } else {
        (height, settings.height)
    };
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
    alive: AliveLayers,
}

impl LayerActivity {
    pub fn new() -> Self {
        Self::default()
    }

    /// A packet of `layer` arrived. True when the set of alive layers changed: then every subscription's target may
    /// have, too.
    pub fn observe(&mut self, layer: u8, now: Instant) -> bool {
        let Some(last) = self.last.get_mut(layer as usize) else {
            return false;
        };
        *last = Some(now);
        let mut alive = AliveLayers::default();
        for (i, last) in self.last.iter().enumerate() {
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
