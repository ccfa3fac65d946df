//! Delay: how long a source's packets are held before they sound. Long enough that nearly all of them are there in time,
//! and not longer.
//!
//! A packet's transit is its arrival less its timestamp. The smallest one of late is the way without a queue, and follows
//! the drift of the sender's clock; what others take more is their lateness. The target covers a quantile of it. A source
//! asks where it should be playing when a tick comes, and plays faster or slower to get there.

use super::{FRAME, SAMPLES_PER_MS};

/// Width of a class of lateness, samples: finer would follow noise, coarser would waste delay.
const CLASS: i64 = 5 * SAMPLES_PER_MS;

/// Half a second of lateness is told apart; more counts as that much, so it bounds the target.
const CLASSES: usize = 100;

/// This share of the packets shall be in time. Of those that are late most still sound, after a pause.
const IN_TIME: f32 = 0.98;

/// What a packet weighs less than the one after it: half is forgotten in 350 packets, seven seconds.
const MEMORY: f32 = 0.998;

/// What is expected of a source that nothing is known of, samples.
const FIRST_LATENESS: i64 = 20 * SAMPLES_PER_MS;

/// The smallest transit is that of the last one to two times so many packets: a clock that is 100 ppm slow is followed
/// within a millisecond.
const WINDOW: u32 = 250;

/// A transit that much smaller than all before, samples: no queue explains it, the timestamps jumped.
const MAX_EARLY: i64 = 500 * SAMPLES_PER_MS;

/// A transit that much larger, samples: a line that was down for so long is no reason to hold what comes from now on.
const MAX_LATE: i64 = 2_000 * SAMPLES_PER_MS;

#[derive(Debug)]
pub(super) struct Delay {
    shortest: Option<Shortest>,
    /// Shares of the packets, by lateness; together 1.
    lateness: [f32; CLASSES],
    /// Samples between the arrival of a packet that came fastest and its beginning to sound.
    target: i64,
}

/// Transits in samples, each from a zero of its own: only differences mean something.
#[derive(Debug, Clone, Copy)]
struct Shortest {
    now: i64,
    before: i64,
    packets: u32,
}

impl Delay {
    pub fn new() -> Self {
        let mut lateness = [0.0; CLASSES];
        lateness[class(FIRST_LATENESS)] = 1.0;
        Delay { shortest: None, lateness, target: target(&lateness) }
    }

    /// A packet that took `transit`. False if the timestamps have jumped: what is known of the old ones holds no more.
    pub fn observe(&mut self, transit: i64) -> bool {
        let Some(shortest) = &mut self.shortest else {
            self.shortest = Some(Shortest { now: transit, before: transit, packets: 1 });
            return true;
        };
        let late = transit - shortest.least();
        if !(-MAX_EARLY..=MAX_LATE).contains(&late) {
            self.restart();
            return false;
        }
        if shortest.packets >= WINDOW {
            *shortest = Shortest { now: transit, before: shortest.now, packets: 0 };
        }
        shortest.now = shortest.now.min(transit);
        shortest.packets += 1;
        self.lateness.iter_mut().for_each(|share| *share *= MEMORY);
        self.lateness[class(late)] += 1.0 - MEMORY;
        self.target = target(&self.lateness);
        true
    }

    /// Timestamps start over. How uneven the way is stays known.
    pub fn restart(&mut self) {
        self.shortest = None;
    }

    /// The timestamp of what should sound at `time`, when every packet is to be held `more` samples longer than usual.
    /// `None` before the first packet.
    pub fn due(&self, time: i64, more: i64) -> Option<i64> {
        Some(time - self.shortest?.least() - self.target - more)
    }
}

impl Shortest {
    fn least(self) -> i64 {
        self.now.min(self.before)
    }
}

fn class(late: i64) -> usize {
    ((late.max(0) / CLASS) as usize).min(CLASSES - 1)
}

/// All that is needed for a tick must be there when it begins: a frame more than the lateness that is covered.
fn target(lateness: &[f32; CLASSES]) -> i64 {
    let mut share = 0.0;
    let covering = lateness.iter().position(|class| {
        share += class;
        share >= IN_TIME
    });
    let classes = covering.unwrap_or(CLASSES - 1) as i64 + 1;
    FRAME as i64 + classes * CLASS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = SAMPLES_PER_MS;

    fn after(transits: impl Iterator<Item = i64>) -> Delay {
        let mut delay = Delay::new();
        assert!(transits.into_iter().all(|transit| delay.observe(transit)), "no jump");
        delay
    }

    #[test]
    fn an_even_way_costs_a_frame_and_a_class() {
        assert_eq!(after((0..2000).map(|_| 7)).target, 25 * MS);
        assert_eq!(Delay::new().target, 45 * MS);
    }

    #[test]
    fn covers_what_most_packets_take_longer() {
        let mut dice = fastrand::Rng::with_seed(1);
        let delay = after((0..5000).map(|_| dice.i64(0..60 * MS)));
        assert!((78 * MS..=85 * MS).contains(&delay.target), "{}", delay.target);
        // One in a hundred is not worth holding all the others.
        let delay = after((0..5000).map(|n| if n % 100 == 0 { 300 * MS } else { 0 }));
        assert_eq!(delay.target, 25 * MS);
    }

    #[test]
    fn follows_a_clock_that_drifts() {
        for ppm in [-100, 100] {
            let delay = after((0..180_000).map(|n| n * 20 * MS * ppm / 1_000_000));
            let last = 179_999 * 20 * MS * ppm / 1_000_000;
            let behind = last - delay.shortest.unwrap().least();
            assert!((0..=MS + 1).contains(&behind), "{ppm}: {behind}");
            assert_eq!(delay.target, 25 * MS, "drift is no lateness");
        }
    }

    #[test]
    fn a_jump_is_told_from_lateness() {
        let mut delay = after([0, 10, 0].into_iter());
        assert!(delay.observe(1_500 * MS));
        assert!(delay.observe(-400 * MS), "what came first had waited");
        assert!(!delay.observe(3_000 * MS));
        assert!(delay.observe(3_000 * MS), "known from now on");
        assert!(!delay.observe(2_000 * MS));
    }
}
