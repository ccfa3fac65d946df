//! How many bytes a second something may relay: GCRA, the token bucket that needs a single number.
//!
//! An allocation has a bucket, and all allocations of a user share one over all workers: so it is an atomic, and a packet
//! takes no lock. What exceeds the rate is dropped, not queued: media that comes late is worse than media that is lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// A keyframe comes as one train of packets, far above the mean rate: so much of a second may come at once.
const BURST_PARTS_OF_A_SECOND: u64 = 4;

/// The largest datagram there is: less burst would drop such for ever.
const LEAST_BURST_BYTES: u64 = 65_535;

/// A byte-rate limit that threads share.
#[derive(Debug)]
pub struct Bucket {
    /// What `full_at` counts from.
    epoch: Instant,
    bytes_per_second: u64,
    burst_ns: u64,
    /// Nanoseconds after `epoch` at which the bucket is full again: GCRA's theoretical arrival time.
    full_at: AtomicU64,
}

impl Bucket {
    /// Starts full. Any burst up to `burst_bytes` passes at once; a single packet above that never does. Neither may be 0:
    /// both count as at least 1.
    pub fn new(bytes_per_second: u64, burst_bytes: u64, now: Instant) -> Bucket {
        let bytes_per_second = bytes_per_second.max(1);
        let burst_ns = duration_ns(burst_bytes.max(1), bytes_per_second);
        Bucket { epoch: now, bytes_per_second, burst_ns, full_at: AtomicU64::new(0) }
    }

    /// With the burst that media needs.
    pub fn for_media(bytes_per_second: u64, now: Instant) -> Bucket {
        let burst = (bytes_per_second / BURST_PARTS_OF_A_SECOND).max(LEAST_BURST_BYTES);
        Bucket::new(bytes_per_second, burst, now)
    }

    /// Whether `bytes` may pass now; if so they are counted. A time before one given earlier counts as none passed.
    pub fn take(&self, now: Instant, bytes: usize) -> bool {
        let now_ns = ns_between(self.epoch, now);
        let cost_ns = duration_ns(bytes as u64, self.bytes_per_second);
        // Relaxed: the number guards no other memory.
        let update = |full_at| admit(full_at, now_ns, cost_ns, self.burst_ns);
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update).is_ok()
    }
}

/// GCRA: the new theoretical arrival time when something of `cost_ns` may pass now, `None` when it may not.
pub(super) fn admit(full_at: u64, now_ns: u64, cost_ns: u64, burst_ns: u64) -> Option<u64> {
    let full_at = full_at.max(now_ns).saturating_add(cost_ns);
    (full_at - now_ns <= burst_ns).then_some(full_at)
}

pub(super) fn ns_between(epoch: Instant, now: Instant) -> u64 {
    // 584 years fit.
    u64::try_from(now.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX)
}

/// The time that `amount` takes at `per_second`, rounded up: many small ones must not pass for free.
pub(super) fn duration_ns(amount: u64, per_second: u64) -> u64 {
    let ns = (u128::from(amount) * u128::from(NS_PER_SECOND)).div_ceil(u128::from(per_second));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_burst_passes_then_the_rate() {
        let start = Instant::now();
        let bucket = Bucket::new(1_000, 3_000, start);
        assert!((0..3).all(|_| bucket.take(start, 1_000)));
        assert!(!bucket.take(start, 1));
        assert!(!bucket.take(start + Duration::from_millis(999), 1_000));
        assert!(bucket.take(start + Duration::from_millis(1_000), 1_000));
        assert!(!bucket.take(start, 1), "time that runs backwards gives nothing");
        let later = start + Duration::from_secs(3_600);
        assert!(!bucket.take(later, 3_001), "more than the burst never passes");
        assert!(bucket.take(later, 3_000) && !bucket.take(later, 1), "an hour saves up one burst");
    }

    #[test]
    fn the_largest_datagram_passes_at_any_rate() {
        let now = Instant::now();
        assert!(Bucket::for_media(1, now).take(now, 65_535));
        assert!(Bucket::for_media(3_125_000, now).take(now, 781_250));
    }

    #[test]
    fn threads_share_it() {
        let start = Instant::now();
        let bucket = Arc::new(Bucket::new(1, 10_000, start));
        let threads = [(); 4].map(|()| {
            let bucket = bucket.clone();
            std::thread::spawn(move || (0..10_000).filter(|_| bucket.take(start, 1)).count())
        });
        let passed: usize = threads.map(|thread| thread.join().unwrap()).iter().sum();
        assert_eq!(passed, 10_000);
    }

    proptest! {
        /// Over every stretch of time, no more than burst + rate × time passes, and whoever keeps to the rate loses nothing.
        #[test]
        fn never_more_than_burst_and_rate(
            rate in 1u64..10_000_000,
            burst in 1u64..1_000_000,
            packets in prop::collection::vec((0u64..20_000, 1usize..1_500), 1..300),
        ) {
            let start = Instant::now();
            let bucket = Bucket::new(rate, burst, start);
            let mut at = Duration::ZERO;
            let mut passed: Vec<(Duration, u64)> = Vec::new();
            for (gap_us, bytes) in packets {
                at += Duration::from_micros(gap_us);
                if bucket.take(start + at, bytes) {
                    passed.push((at, bytes as u64));
                }
            }
            for (first, (from, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (to, bytes) in &passed[first..] {
                    sum += bytes;
                    let allowed = burst as f64 + rate as f64 * (*to - *from).as_secs_f64();
                    prop_assert!(sum as f64 <= allowed + 1.0, "{sum} bytes in {:?}, {allowed} allowed", *to - *from);
                }
            }
        }

        #[test]
        fn who_keeps_to_the_rate_loses_nothing(rate in 1_000u64..10_000_000, sizes in prop::collection::vec(1usize..1_500, 1..300)) {
            let start = Instant::now();
            let bucket = Bucket::new(rate, 1_500, start);
            let mut at = Duration::ZERO;
            for bytes in sizes {
                prop_assert!(bucket.take(start + at, bytes));
                at += Duration::from_nanos(duration_ns(bytes as u64, rate));
            }
        }
    }
}
