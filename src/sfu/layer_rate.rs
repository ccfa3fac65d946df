//! LayerRates: how many bits a second each layer of a track costs on the wire, measured from the packets that arrive.
//!
//! What publishers announce is what their encoders may use at most; a quiet camera uses a third of it, and screen shares
//! anything. So the [`Allocator`](super::allocator::Allocator) plans with what was measured last: a layer that nobody
//! wanted for a while, and that therefore stopped, is expected to cost what it did cost. A track owns one; the room
//! feeds it every packet, so that is constant time and keeps no packets.

use std::time::{Duration, Instant};

use super::layer_selector::{MAX_LAYERS, MAX_TEMPORAL_LAYERS};

/// What a packet costs besides its RTP payload, bytes: IPv4 and UDP headers (28), RTP header (12), extensions and the
/// SRTP tag (about 10 each, 16 with GCM). With audio it is more than the payload.
pub const PACKET_OVERHEAD: usize = 50;

/// Long enough for two keyframe intervals of a busy room to even out, short enough to follow a scene.
const WINDOW: Duration = Duration::from_millis(2000);

/// The window moves in steps of this.
const BUCKET: Duration = Duration::from_millis(250);

const BUCKETS: usize = (WINDOW.as_millis() / BUCKET.as_millis()) as usize;

/// A layer younger than this is mostly its first keyframe: what was known of it before counts, too.
const SETTLING: Duration = Duration::from_millis(1000);

#[derive(Debug, Clone, Default)]
pub struct LayerRates {
    origin: Option<Instant>,
    layers: [LayerRate; MAX_LAYERS],
}

#[derive(Debug, Clone, Copy, Default)]
struct LayerRate {
    /// Bytes by (time, temporal layer), a ring by time.
    bytes: [[u32; MAX_TEMPORAL_LAYERS]; BUCKETS],
    /// Milliseconds since the origin, of the first and the last packet of the present burst; `None` before the first.
    span: Option<(u64, u64)>,
    /// Bits per second of the burst before, by temporal layer and cumulative.
    before: [u64; MAX_TEMPORAL_LAYERS],
}

impl LayerRates {
    /// A packet of `payload` bytes arrived. Layers and temporal layers out of range are left out and capped.
    pub fn observe(&mut self, now: Instant, layer: u8, temporal: u8, payload: usize) {
        let origin = *self.origin.get_or_insert(now);
        let at = now.saturating_duration_since(origin).as_millis() as u64;
        if let Some(layer) = self.layers.get_mut(usize::from(layer)) {
            layer.observe(at, usize::from(temporal).min(MAX_TEMPORAL_LAYERS - 1), payload + PACKET_OVERHEAD);
        }
    }

    /// Bits per second on the wire of `layer` with its temporal layers up to `temporal`; what it was last when it is
    /// silent, `None` while it was not heard of for long enough to tell.
    pub fn rate(&self, layer: u8, temporal: u8) -> Option<u64> {
        let layer = self.layers.get(usize::from(layer))?;
        if layer.span.is_none() || (layer.is_settling() && layer.before[MAX_TEMPORAL_LAYERS - 1] == 0) {
            return None;
        }
        let temporal = usize::from(temporal).min(MAX_TEMPORAL_LAYERS - 1);
        Some(if layer.is_settling() {
            layer.measure(temporal).max(layer.before[temporal])
        } else {
            layer.measure(temporal)
        })
    }

    /// Bits per second on the wire of the lowest layer as they are now: 0 when it is silent.
    pub fn present(&self, now: Instant) -> u64 {
        let (Some(origin), Some((_, last))) = (self.origin, self.layers[0].span) else { return 0 };
        let silent = now.saturating_duration_since(origin) >= Duration::from_millis(last) + WINDOW;
        if silent { 0 } else { self.layers[0].measure(MAX_TEMPORAL_LAYERS - 1) }
    }

    /// The highest temporal layer that was seen of `layer` lately.
    pub fn top_temporal(&self, layer: u8) -> u8 {
        let Some(layer) = self.layers.get(usize::from(layer)) else { return 0 };
        let seen = |temporal: &usize| layer.bytes.iter().any(|bucket| bucket[*temporal] > 0);
        (0..MAX_TEMPORAL_LAYERS).rev().find(seen).unwrap_or(0) as u8
    }
}

impl LayerRate {
    fn observe(&mut self, at: u64, temporal: usize, bytes: usize) {
        let bucket = at / BUCKET.as_millis() as u64;
        match self.span {
            Some((first, last)) if at.saturating_sub(last) < WINDOW.as_millis() as u64 => {
                // What fell out of the window since the last packet.
                let last_bucket = last / BUCKET.as_millis() as u64;
                for passed in last_bucket + 1..=bucket {
                    self.bytes[passed as usize % BUCKETS] = [0; MAX_TEMPORAL_LAYERS];
                }
                self.span = Some((first, last.max(at)));
            }
            _ => {
                self.before = std::array::from_fn(|temporal| self.measure(temporal));
                self.bytes = Default::default();
                self.span = Some((at, at));
            }
        }
        let sum = &mut self.bytes[bucket as usize % BUCKETS][temporal];
        *sum = sum.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// As of the last packet.
    fn measure(&self, temporal: usize) -> u64 {
        let Some((first, last)) = self.span else { return 0 };
        let bucket = BUCKET.as_millis() as u64;
        // The oldest bucket begins a window before the end of the newest.
        let begin = (last / bucket + 1).saturating_sub(BUCKETS as u64) * bucket;
        let length = (last - begin.max(first)).max(SETTLING.as_millis() as u64);
        let bytes = self.bytes.iter().flat_map(|bucket| &bucket[..=temporal]);
        bytes.map(|bytes| u64::from(*bytes)).sum::<u64>() * 8 * 1000 / length
    }

    fn is_settling(&self) -> bool {
        self.span.is_some_and(|(first, last)| last - first < SETTLING.as_millis() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Frames of `payload` bytes every 50 ms in `from..until`, every other one of temporal layer 1.
    fn send(rates: &mut LayerRates, t0: Instant, layer: u8, payload: usize, from: u64, until: u64) {
        for at in (from..until).step_by(50) {
            rates.observe(t0 + ms(at), layer, (at / 50 % 2) as u8, payload);
        }
    }

    /// Bits per second of [`send`].
    fn nominal(payload: usize) -> u64 {
        (payload + PACKET_OVERHEAD) as u64 * 8 * 20
    }

    fn near(rate: Option<u64>, expected: u64) -> bool {
        rate.is_some_and(|rate| rate.abs_diff(expected) * 100 <= expected * 6)
    }

    #[test]
    fn a_steady_layer_is_measured_with_its_overhead() {
        let t0 = Instant::now();
        let mut rates = LayerRates::default();
        send(&mut rates, t0, 1, 950, 0, 5000);
        assert!(near(rates.rate(1, 3), nominal(950)), "{:?}", rates.rate(1, 3));
        assert!(near(rates.rate(1, 0), nominal(950) / 2), "{:?}", rates.rate(1, 0));
        assert_eq!((rates.top_temporal(1), rates.top_temporal(0)), (1, 0));
        assert_eq!(rates.rate(0, 3), None);
        assert_eq!(rates.rate(7, 3), None);
    }

    #[test]
    fn a_change_shows_within_the_window() {
        let t0 = Instant::now();
        let mut rates = LayerRates::default();
        send(&mut rates, t0, 0, 950, 0, 5000);
        send(&mut rates, t0, 0, 200, 5000, 7500);
        assert!(near(rates.rate(0, 3), nominal(200)), "{:?}", rates.rate(0, 3));
    }

    #[test]
    fn a_silent_layer_is_remembered_and_believed_until_it_has_settled_again() {
        let t0 = Instant::now();
        let mut rates = LayerRates::default();
        send(&mut rates, t0, 2, 950, 0, 5000);
        let before = rates.rate(2, 3);
        send(&mut rates, t0, 0, 100, 5000, 60_000);
        assert_eq!(rates.rate(2, 3), before);
        assert_eq!(rates.present(t0 + ms(61_949)), rates.rate(0, 3).unwrap());
        assert_eq!(rates.present(t0 + ms(61_950)), 0);
        send(&mut rates, t0, 2, 100, 60_000, 60_500);
        assert_eq!(rates.rate(2, 3), before, "half a second tells little");
        send(&mut rates, t0, 2, 100, 60_500, 64_000);
        assert!(near(rates.rate(2, 3), nominal(100)));
    }

    #[test]
    fn a_new_layer_is_not_known_at_once() {
        let t0 = Instant::now();
        let mut rates = LayerRates::default();
        send(&mut rates, t0, 0, 950, 0, 1000);
        assert_eq!(rates.rate(0, 3), None);
        send(&mut rates, t0, 0, 950, 1000, 1050);
        assert!(near(rates.rate(0, 3), nominal(950)), "{:?}", rates.rate(0, 3));
    }

    proptest! {
        /// Whatever comes, the measure lies between nothing and all of it in the shortest time that counts.
        #[test]
        fn rates_are_bounded_and_cumulative(
            packets in prop::collection::vec((0u64..4000, 0u8..5, 0u8..6, 0usize..70_000), 0..300)
        ) {
            let t0 = Instant::now();
            let mut rates = LayerRates::default();
            let (mut at, mut total) = (0, [0u64; 8]);
            for (gap, layer, temporal, payload) in packets {
                at += gap;
                rates.observe(t0 + ms(at), layer, temporal, payload);
                total[usize::from(layer)] += (payload + PACKET_OVERHEAD) as u64 * 8;
            }
            for layer in 0..5u8 {
                let by_temporal: Vec<_> = (0..6).map(|temporal| rates.rate(layer, temporal).unwrap_or(0)).collect();
                prop_assert!(by_temporal.is_sorted());
                prop_assert!(by_temporal[5] <= total[usize::from(layer)]);
                prop_assert!(rates.rate(layer, 0).is_none() || (layer < 3 && total[usize::from(layer)] > 0));
            }
        }
    }
}
