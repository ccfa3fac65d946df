//! Dynacast: which layers of a track its publisher should go on sending, by what all subscribers together want.
//!
//! Layers that nobody watches cost the publisher's uplink and battery, ours the downlink. A [`Track`](super::track::Track)
//! owns one; the room tells it the highest layer that anybody wants and passes on what it answers
//! ([`EventKind::QualityWanted`](super::EventKind::QualityWanted), LiveKit's `subscribed_quality_update`).
//!
//! It goes by what is wanted, never by what arrives: a layer that is off because we said so would otherwise stay off.

use std::time::{Duration, Instant};

/// Layers are switched off only when nobody wanted them for so long; LiveKit's time. Somebody who scrolls, or whose
/// estimate dips, would otherwise make all wait for a fresh keyframe.
const HOLD: Duration = Duration::from_secs(5);

/// How long a publisher may take to begin with a layer: libwebrtc probes its uplink before it sends the higher ones.
const RISE: Duration = Duration::from_secs(5);

/// The highest layer that is wanted, 0 = lowest; `None` = not even that one.
pub type Wish = Option<u8>;

/// All layers there are: what a publisher sends that was told nothing.
pub const EVERYTHING: Wish = Some(u8::MAX);

#[derive(Debug, Clone, Default)]
pub struct Dynacast {
    /// What the publisher was told last, and so is sending as far as it can; `None`: nothing yet.
    told: Option<Wish>,
    wish: Wish,
    /// When to tell the publisher to send less, and the highest wish since that was decided.
    lower: Option<(Instant, Wish)>,
    raised_at: Option<Instant>,
}

impl Dynacast {
    /// What all subscribers together want now. `Some`: tell the publisher so.
    pub fn set(&mut self, now: Instant, wish: Wish) -> Option<Wish> {
        self.wish = wish;
        let sent = self.told.unwrap_or(EVERYTHING);
        if wish >= sent {
            self.lower = None;
            if wish == sent {
                return None;
            }
            self.told = Some(wish);
            self.raised_at = Some(now);
            return Some(wish);
        }
        match &mut self.lower {
            Some((_, highest)) => *highest = wish.max(*highest),
            None => self.lower = Some((now + HOLD, wish)),
        }
        None
    }

    /// `Some`: the time has come to tell the publisher to send less.
    pub fn poll(&mut self, now: Instant) -> Option<Wish> {
        let (due, highest) = self.lower?;
        if now < due {
            return None;
        }
        self.told = Some(highest);
        // What was wanted meanwhile is on for another while.
        self.lower = (self.wish < highest).then_some((now + HOLD, self.wish));
        Some(highest)
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.lower.map(|(due, _)| due)
    }

    /// What the publisher was told last, if anything: for one who may have missed it.
    pub fn told(&self) -> Option<Wish> {
        self.told
    }

    /// Whether we asked for more so lately that it may be on its way still.
    pub fn is_rising(&self, now: Instant) -> bool {
        self.raised_at.is_some_and(|at| now.saturating_duration_since(at) < RISE)
    }

    /// Whether we ask for this layer. What is asked for and does not come is the publisher's own decision.
    pub fn is_on(&self, layer: u8) -> bool {
        self.told.unwrap_or(EVERYTHING) >= Some(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Sets and polls as the room does; everything that was told, with its time.
    fn play(changes: &[(u64, Wish)], until: u64) -> Vec<(u64, Wish)> {
        let t0 = Instant::now();
        let (mut dynacast, mut told) = (Dynacast::default(), Vec::new());
        for at in (0..=until).step_by(10) {
            let changed = changes.iter().find(|(when, _)| *when == at);
            let now = t0 + ms(at);
            told.extend(changed.and_then(|(_, wish)| dynacast.set(now, *wish)).map(|wish| (at, wish)));
            if dynacast.next_timeout().is_some_and(|due| due <= now) {
                told.extend(dynacast.poll(now).map(|wish| (at, wish)));
            }
        }
        told
    }

    #[test]
    fn less_is_told_late_and_more_at_once() {
        let changes = [(0, Some(0)), (7_000, Some(2)), (8_000, None)];
        assert_eq!(play(&changes, 20_000), [(5_000, Some(0)), (7_000, Some(2)), (13_000, None)]);
    }

    #[test]
    fn who_wants_everything_changes_nothing() {
        assert_eq!(play(&[(0, Some(u8::MAX))], 20_000), []);
        let mut dynacast = Dynacast::default();
        assert_eq!(dynacast.set(Instant::now(), Some(u8::MAX)), None);
        assert_eq!((dynacast.told(), dynacast.next_timeout()), (None, None));
        assert!(dynacast.is_on(2));
    }

    #[test]
    fn flapping_is_not_passed_on() {
        let to_and_fro: Vec<_> = (0..20).map(|n| (n * 1000, if n % 2 == 0 { None } else { Some(u8::MAX) })).collect();
        assert_eq!(play(&to_and_fro, 19_000), []);
        // Between two layers below the top, the higher one is kept.
        let below: Vec<_> = (0..20).map(|n| (n * 1000, Some(n as u8 % 2))).collect();
        assert_eq!(play(&below, 19_000), [(5_000, Some(1))]);
    }

    #[test]
    fn steps_down_follow_each_other_when_they_lasted() {
        let changes = [(0, Some(1)), (3_000, None)];
        assert_eq!(play(&changes, 20_000), [(5_000, Some(1)), (10_000, None)]);
    }

    #[test]
    fn what_is_off_is_known() {
        let t0 = Instant::now();
        let mut dynacast = Dynacast::default();
        dynacast.set(t0, Some(0));
        assert!(dynacast.is_on(1));
        assert_eq!(dynacast.poll(t0 + HOLD), Some(Some(0)));
        assert_eq!((dynacast.is_on(0), dynacast.is_on(1), dynacast.told()), (true, false, Some(Some(0))));
    }

    proptest! {
        /// Nobody ever lacks what he wants, and what nobody wants ends.
        #[test]
        fn never_less_than_wanted(changes in prop::collection::vec((0u64..900, prop::option::of(0u8..3)), 1..40)) {
            let t0 = Instant::now();
            let (mut dynacast, mut at, mut sent) = (Dynacast::default(), 0, EVERYTHING);
            for (wait, wish) in &changes {
                for _ in 0..=*wait {
                    at += 10;
                    sent = dynacast.poll(t0 + ms(at)).unwrap_or(sent);
                }
                sent = dynacast.set(t0 + ms(at), *wish).unwrap_or(sent);
                prop_assert!(sent >= *wish);
                prop_assert_eq!(dynacast.told().unwrap_or(EVERYTHING), sent);
            }
            for _ in 0..2 {
                at += HOLD.as_millis() as u64;
                sent = dynacast.poll(t0 + ms(at)).unwrap_or(sent);
            }
            prop_assert_eq!(sent, changes[changes.len() - 1].1);
            prop_assert_eq!(dynacast.next_timeout(), None);
        }
    }
}
