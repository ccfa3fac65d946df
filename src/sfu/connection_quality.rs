//! ConnectionQuality: how good a participant's line is, in the four steps that clients show beside a name, and as a mean
//! opinion score. [`line_watch`](super::line_watch) measures, and asks here.
//!
//! The scale is that of telephony: the E-model (ITU-T G.107) takes from a rating of 93.2 what delay and loss spoil, and
//! G.109 says how many people are content with the rest. Video is judged by how much of what is wanted fits through.

use std::time::Duration;

/// The rating of a line that spoils nothing (G.107 §7.7).
const FLAWLESS: f32 = 93.2;

/// "Satisfied" and better (G.109 table 1): a browser's forward error correction hides the loss.
const EXCELLENT: f32 = 80.0;

/// Below it "many users dissatisfied" becomes "nearly all".
const GOOD: f32 = 60.0;

/// Impairment by random loss: `SLOPE * ln(1 + STEEPNESS * loss)`, fitted to measured codecs by Cole and Rosenbluth, "Voice
/// over IP performance monitoring" (2001), §2. Wideband codecs with concealment, as Opus, follow the same curve.
const LOSS_SLOPE: f32 = 30.0;
const LOSS_STEEPNESS: f32 = 15.0;

/// Impairment by each millisecond from mouth to ear; conversations get much harder from the threshold on (same, §3).
const DELAY_PER_MS: f32 = 0.024;
const LATE_MS: f32 = 177.3;
const LATE_PER_MS: f32 = 0.11;

/// What capture, one Opus frame and playout take besides the network, milliseconds.
const DEVICES_MS: f32 = 60.0;

/// A jitter buffer waits for packets that come later than others by this many times their mean deviation.
const JITTER_FACTOR: f32 = 2.0;

/// Taken for every halving of what is wanted: one layer of simulcast has about a third of the bitrate of the next, and
/// costs a step.
const HALVED_BITRATE: f32 = 12.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionQuality {
    /// Nothing comes any more.
    Lost,
    Poor,
    Good,
    Excellent,
}

/// What was measured of a line, in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Line {
    /// Of the worse direction, before retransmission; 0.0..=1.0.
    pub loss: f32,
    /// `None` before the first report.
    pub round_trip: Option<Duration>,
    pub jitter: Duration,
    /// Bits per second that should flow towards the participant, and that can; `None` while unknown.
    pub wanted: u64,
    pub carried: Option<u64>,
}

impl Line {
    /// 0.0..=93.2, the more the better.
    fn rating(&self) -> f32 {
        let loss = LOSS_SLOPE * (1.0 + LOSS_STEEPNESS * self.loss.clamp(0.0, 1.0)).ln();
        let one_way = self.round_trip.unwrap_or_default().as_secs_f32() * 1000.0 / 2.0;
        let delay = DEVICES_MS + one_way + JITTER_FACTOR * self.jitter.as_secs_f32() * 1000.0;
        let delay = DELAY_PER_MS * delay + LATE_PER_MS * (delay - LATE_MS).max(0.0);
        let missing = match self.carried {
            Some(carried) if carried < self.wanted => (self.wanted as f32 / carried.max(1) as f32).log2(),
            _ => 0.0,
        };
        (FLAWLESS - loss - delay - HALVED_BITRATE * missing).clamp(0.0, FLAWLESS)
    }

    pub fn quality(&self) -> ConnectionQuality {
        match self.rating() {
            rating if rating >= EXCELLENT => ConnectionQuality::Excellent,
            rating if rating >= GOOD => ConnectionQuality::Good,
            _ => ConnectionQuality::Poor,
        }
    }

    /// Mean opinion score, 1.0..=4.5 (G.107 annex B).
    pub fn opinion(&self) -> f32 {
        let rating = self.rating();
        (1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6).max(1.0)
    }
}

impl ConnectionQuality {
    /// What to tell after `self` was told: a fall at once, a rise step by step, so that a line that is bad every other moment
    /// does not flicker.
    pub fn towards(self, now: ConnectionQuality) -> ConnectionQuality {
        let next = match self {
            ConnectionQuality::Lost => ConnectionQuality::Poor,
            ConnectionQuality::Poor => ConnectionQuality::Good,
            ConnectionQuality::Good | ConnectionQuality::Excellent => ConnectionQuality::Excellent,
        };
        now.min(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ConnectionQuality::{Excellent, Good, Lost, Poor};

    fn line(loss: f32, round_trip_ms: u64, jitter_ms: u64) -> Line {
        let (round_trip, jitter) = (Some(Duration::from_millis(round_trip_ms)), Duration::from_millis(jitter_ms));
        Line { loss, round_trip, jitter, ..Line::default() }
    }

    #[test]
    fn loss_delay_and_jitter_count() {
        for (loss, round_trip, jitter, quality) in [
            (0.0, 0, 0, Excellent),
            (0.0, 100, 5, Excellent),
            (0.01, 40, 2, Excellent),
            (0.02, 40, 2, Excellent),
            (0.05, 40, 2, Good),
            (0.1, 40, 2, Good),
            (0.15, 40, 2, Poor),
            (0.3, 40, 2, Poor),
            (1.0, 0, 0, Poor),
            (0.0, 300, 10, Excellent),
            (0.0, 500, 10, Good),
            (0.0, 900, 10, Poor),
            (0.0, 100, 100, Good),
            (0.05, 400, 20, Poor),
        ] {
            assert_eq!(line(loss, round_trip, jitter).quality(), quality, "{loss} {round_trip} {jitter}");
        }
        assert_eq!(Line::default().quality(), Excellent, "nothing bad is known");
    }

    #[test]
    fn what_does_not_fit_through_counts() {
        for (wanted, carried, quality) in [
            (1000, None, Excellent),
            (0, Some(0), Excellent),
            (1000, Some(2000), Excellent),
            (1000, Some(900), Excellent),
            (1000, Some(400), Good),
            (1000, Some(100), Poor),
            (1000, Some(0), Poor),
        ] {
            assert_eq!(Line { wanted, carried, ..line(0.0, 40, 2) }.quality(), quality, "{carried:?} of {wanted}");
        }
    }

    #[test]
    fn opinions_follow_the_rating() {
        let opinions = [0.0, 0.02, 0.1, 0.3, 1.0].map(|loss| line(loss, 40, 2).opinion());
        assert!(opinions.is_sorted_by(|a, b| a > b) && opinions[0] > 4.3 && opinions[4] >= 1.0, "{opinions:?}");
    }

    #[test]
    fn falls_at_once_and_rises_step_by_step() {
        for (told, now, next) in [
            (Excellent, Lost, Lost),
            (Excellent, Poor, Poor),
            (Lost, Lost, Lost),
            (Lost, Excellent, Poor),
            (Poor, Excellent, Good),
            (Poor, Good, Good),
            (Good, Excellent, Excellent),
            (Excellent, Excellent, Excellent),
        ] {
            assert_eq!(told.towards(now), next, "{told:?} {now:?}");
        }
    }
}
