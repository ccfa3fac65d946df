//! The estimator on paths in virtual time, and against forged feedback.

mod forged;
mod path;

use path::{Link, Path, Source};

/// More than any path here carries.
const PLENTY: f64 = 50e6;

/// Bottlenecks, bits per second.
const RATES: [f64; 4] = [300e3, 1e6, 3e6, 10e6];

fn even(desired: f64) -> Source {
    Source { frames: false, ..Source::video(desired) }
}

/// A path whose sender has found its rate.
fn settled(seed: u64, link: Link, source: Source) -> Path {
    let mut path = Path::new(seed, link, source);
    path.run(10.0);
    path
}

/// Seconds after `from` until the record is as asked, at most until the end.
fn seconds_until(path: &Path, from: f64, is_met: impl Fn(f64, f64) -> bool) -> f64 {
    let met = path.between(from, f64::MAX).find(|record| is_met(record.estimates[0], record.queue_ms));
    met.map_or(f64::INFINITY, |record| record.seconds() - from)
}

#[test]
fn finds_the_rate_of_the_path_and_keeps_the_queue_short() {
    for rate in RATES {
        for source in [even(PLENTY), Source::video(PLENTY)] {
            let mut path = Path::new(1, Link::new(rate), source);
            path.senders[0].feedback_interval = 50_000;
            path.run(20.0);
            let case = format!("{rate} {source:?}");
            let found = seconds_until(&path, 0.2, |estimate, _| (0.75..=1.05).contains(&(estimate / rate)));
            assert!(found < 3.0, "{case}: found after {found} s");
            let (mean, _, highest) = path.estimates(0, 8.0, 20.0);
            assert!((0.75..=1.05).contains(&(mean / rate)) && highest < 1.15 * rate, "{case}: {mean} up to {highest}");
            let (queue_ms, _) = path.queue_ms(8.0, 20.0);
            assert!(queue_ms < 100.0, "{case}: a queue of {queue_ms} ms");
        }
    }
}

#[test]
fn follows_a_drop_and_comes_back() {
    for rate in RATES {
        for source in [even(PLENTY), Source::video(PLENTY)] {
            let mut path = settled(2, Link::new(rate), source);
            path.link.rate = rate / 2.0;
            path.run(10.0);
            path.link.rate = rate;
            path.run(10.0);
            let case = format!("{rate} {source:?}");
            let down = seconds_until(&path, 10.0, |estimate, _| estimate < 0.55 * rate);
            assert!(down < 2.0, "{case}: followed after {down} s");
            let drained = seconds_until(&path, 10.5, |_, queue_ms| queue_ms < 100.0);
            assert!(drained < 4.5, "{case}: drained after {drained} s");
            let (low, _, _) = path.estimates(0, 13.0, 20.0);
            assert!((0.75..=1.05).contains(&(low / rate * 2.0)), "{case}: {low} at half");
            let up = seconds_until(&path, 20.0, |estimate, _| estimate > 0.75 * rate);
            assert!(up < 10.0, "{case}: came back after {up} s");
        }
    }
}

#[test]
fn random_loss_is_not_congestion() {
    for rate in [1e6, 3e6, 10e6] {
        let link = Link { loss: 0.1, ..Link::new(rate) };
        let mut path = settled(3, link, Source::video(PLENTY));
        path.run(20.0);
        let (mean, _, _) = path.estimates(0, 10.0, 30.0);
        assert!(mean > 0.6 * rate, "{mean} of {rate}");
        let loss = path.senders[0].estimator.loss();
        assert!((0.03..0.2).contains(&loss), "{loss}");
    }
}

#[test]
fn heavy_loss_lowers_the_rate_for_as_long_as_it_lasts() {
    for (loss, most) in [(0.2, 0.8), (0.3, 0.5), (0.5, 0.3)] {
        let rate = 3e6;
        let link = Link { loss, ..Link::new(rate) };
        let mut path = settled(4, link, Source::video(PLENTY));
        path.run(10.0);
        let (mean, lowest, _) = path.estimates(0, 10.0, 20.0);
        assert!(mean < most * rate && lowest > 100e3, "{loss}: {mean}, at least {lowest}");
        path.link.loss = 0.0;
        path.run(10.0);
        let back = seconds_until(&path, 20.0, |estimate, _| estimate > 0.75 * rate);
        assert!(back < 10.0, "{loss}: back after {back} s");
    }
}

#[test]
fn a_policer_is_seen_by_its_losses() {
    // Three packets of queue: too short for the delay to show.
    for rate in [1e6, 3e6, 10e6] {
        let queue = (3.0 * 9600.0 / rate * 1e6) as i64;
        let mut path = settled(5, Link { queue, ..Link::new(rate) }, even(PLENTY));
        path.run(20.0);
        let (mean, _, _) = path.estimates(0, 10.0, 30.0);
        assert!((0.6..1.2).contains(&(mean / rate)), "{mean} of {rate}");
        let loss = path.senders[0].estimator.loss();
        assert!(loss < 0.15, "{loss}");
    }
}

#[test]
fn jitter_and_reordering_are_not_congestion() {
    for rate in RATES {
        let link = Link { jitter: 20_000, ..Link::new(rate) };
        let mut path = settled(6, link, Source::video(PLENTY));
        path.run(20.0);
        let (mean, lowest, _) = path.estimates(0, 10.0, 30.0);
        assert!(mean > 0.7 * rate && lowest > 0.45 * rate, "{mean}, at least {lowest} of {rate}");
    }
}

#[test]
fn lost_feedback_and_clock_drift_do_no_harm() {
    for drift in [-200e-6, 200e-6] {
        let rate = 3e6;
        let link = Link { feedback_loss: 0.3, drift, ..Link::new(rate) };
        let mut path = settled(7, link, Source::video(PLENTY));
        path.run(40.0);
        let (mean, _, highest) = path.estimates(0, 10.0, 50.0);
        assert!((0.7..=1.05).contains(&(mean / rate)) && highest < 1.2 * rate, "{mean} up to {highest}");
        assert!(path.queue_ms(10.0, 50.0).0 < 100.0);
    }
}

/// What flows share, and how they meet a change, hangs on moments: one seed tells nothing of the rule.
const SEEDS: std::ops::Range<u64> = 0..12;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

#[test]
fn a_longer_route_is_not_a_queue() {
    let rate = 3e6;
    let run = |seed| {
        let mut path = settled(seed, Link::new(rate), Source::video(PLENTY));
        path.link.propagation += 120_000;
        path.run(15.0);
        (path.estimates(0, 10.0, 25.0).1 / rate, path.estimates(0, 17.0, 25.0).0 / rate)
    };
    let (lowest, then): (Vec<f64>, Vec<f64>) = SEEDS.map(run).unzip();
    assert!(mean(&lowest) > 0.25 && least(&lowest) > 0.15, "{lowest:.2?}");
    assert!(mean(&then) > 0.72 && least(&then) > 0.55, "{then:.2?}");
}

#[test]
fn shares_with_another_estimator() {
    for rate in [1e6, 10e6] {
        let run = |seed| {
            let mut path = settled(seed, Link::new(rate), Source::video(PLENTY));
            path.add(Source::video(PLENTY));
            path.run(40.0);
            let (first, second) = (path.estimates(0, 25.0, 50.0).0 / rate, path.estimates(1, 25.0, 50.0).0 / rate);
            assert!(first + second < 1.1, "{first} + {second}");
            let (queue_ms, _) = path.queue_ms(25.0, 50.0);
            assert!(queue_ms < 180.0, "a queue of {queue_ms} ms");
            first.min(second)
        };
        let smaller: Vec<f64> = SEEDS.map(run).collect();
        assert!(mean(&smaller) > 0.27 && least(&smaller) > 0.1, "{smaller:.2?}");
    }
}

#[test]
fn makes_room_and_takes_it_back() {
    let rate = 3e6;
    let mut path = settled(10, Link::new(rate), Source::video(PLENTY));
    path.constant = rate / 2.0;
    path.run(20.0);
    let beside = path.estimates(0, 15.0, 30.0).0 / rate;
    assert!((0.35..0.55).contains(&beside), "{beside}");
    let (queue_ms, _) = path.queue_ms(15.0, 30.0);
    assert!(queue_ms < 200.0, "a queue of {queue_ms} ms");
    assert!(path.constant_lost * 100 < path.constant_received, "{} lost", path.constant_lost);
    path.constant = 0.0;
    path.run(10.0);
    assert!(seconds_until(&path, 30.0, |estimate, _| estimate > 0.75 * rate) < 10.0);
}

#[test]
fn stays_alive_beside_a_download() {
    for rate in [1e6, 3e6] {
        let mut path = settled(11, Link::new(rate), Source::video(PLENTY));
        path.window = 10.0;
        path.run(30.0);
        let own = path.estimates(0, 20.0, 40.0).0 / rate;
        let download = path.window_received_bytes as f64 * 8.0 / 30.0 / rate;
        assert!(own > 0.07 && download > 0.3, "{own} beside {download}");
        path.window = 0.0;
        path.run(10.0);
        assert!(path.estimates(0, 47.0, 50.0).0 > 0.7 * rate);
    }
}

#[test]
fn backs_off_when_nothing_is_heard() {
    let rate = 3e6;
    let mut path = settled(12, Link::new(rate), Source::video(PLENTY));
    path.senders[0].mute = true;
    path.run(1.9);
    assert!(path.estimates(0, 11.0, 11.9).1 > 0.6 * rate);
    path.run(3.1);
    assert!(path.estimates(0, 14.5, 15.0).2 < 0.3 * rate);
    path.run(10.0);
    assert_eq!(path.senders[0].estimator.estimate(), Some(super::MIN_BITRATE));
    path.senders[0].mute = false;
    path.run(10.0);
    // What it carried before is tried first.
    let back = seconds_until(&path, 25.0, |estimate, _| estimate > 0.75 * rate);
    assert!(back < 0.7, "{back} s");
    assert_eq!(path.senders[0].estimator.silences(), 1);
}

#[test]
fn an_estimate_outlasts_its_use() {
    let rate = 5e6;
    let mut path = settled(13, Link::new(rate), Source::video(PLENTY));
    // One small video is sent, and more is wanted: a layer that does not fit yet.
    path.senders[0].source = Source { at_most: 400e3, ..Source::video(8e6) };
    path.run(30.0);
    let (mean, _, highest) = path.estimates(0, 12.0, 40.0);
    assert!(mean > 0.6 * rate && highest < 1.1 * rate, "{mean} up to {highest}");
    let padding = path.senders[0].padding_bytes;
    let probes = path.senders[0].probes.len();
    // No more is wanted than there is: nothing is probed, nothing lost.
    path.senders[0].source = Source::video(400e3);
    path.run(30.0);
    let (mean, _, highest) = path.estimates(0, 40.0, 70.0);
    assert!(mean > 0.6 * rate && highest < 1.1 * rate, "{mean} up to {highest}");
    assert_eq!(path.senders[0].probes.len(), probes);
    assert_eq!(path.senders[0].padding_bytes, padding);
}

#[test]
fn nothing_is_inflated_that_was_not_sent() {
    // A wide path, and a source that wants little and sends less.
    let mut path = Path::new(14, Link::new(30e6), Source { at_most: 200e3, ..Source::video(600e3) });
    path.run(30.0);
    let (_, _, highest) = path.estimates(0, 1.0, 30.0);
    assert!(highest <= super::START_BITRATE as f64, "{highest}");
    assert_eq!(path.senders[0].probes, []);
}

#[test]
fn probes_no_more_than_is_wanted_and_little_in_vain() {
    let mut path = Path::new(15, Link::new(30e6), Source::video(5e6));
    path.run(10.0);
    assert!(path.estimates(0, 2.0, 10.0).1 >= 4.8e6);
    let probes = &path.senders[0].probes;
    assert!(probes.iter().all(|(_, bitrate)| *bitrate <= 6_000_000) && probes.len() < 5, "{probes:?}");

    // A wish that is not met is tried again, less and less often.
    let mut path = Path::new(15, Link::new(2e6), even(8e6));
    path.run(60.0);
    let sender = &path.senders[0];
    assert!(sender.probes.len() < 20, "{:?}", sender.probes);
    assert!(sender.padding_bytes * 20 < sender.received_bytes);
}

#[test]
fn a_quiet_connection_is_small_and_sleeps() {
    let mut path = settled(16, Link::new(50e6), Source::video(20e6));
    assert!(path.senders[0].estimator.heap_bytes() > 10_000);
    path.senders[0].source = Source { frames: false, ..Source::video(60e3) };
    path.run(60.0);
    let estimator = &path.senders[0].estimator;
    let bytes = size_of_val(estimator) + estimator.heap_bytes();
    assert!(bytes < 10_000, "{bytes} bytes");
    // What is left to wait for is the answer to the last packets.
    path.senders[0].source = Source { at_most: 0.0, ..Source::video(0.0) };
    path.run(1.0);
    assert_eq!(path.senders[0].estimator.next_timeout(), None);
}
