//! How much of a stream may be sent again: a token bucket that the stream itself fills. Without it a receiver behind a full
//! queue, or a hostile one, would have us answer loss with more packets than were lost.

/// Share of a stream's bytes that may be sent again: a tenth lost in bursts needs more than a tenth; beyond a half the path
/// cannot carry the stream anyway.
const SHARE_DIVISOR: i32 = 2;
/// Saved up for a burst of losses: a key frame.
const MAX_BYTES: i32 = 96 << 10;
/// There at the beginning, when the first key frame may be what is lost.
const FIRST_BYTES: i32 = 48 << 10;

#[derive(Debug)]
pub struct Budget {
    /// Negative once the last packet exceeded what there was.
    bytes: i32,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { bytes: FIRST_BYTES }
    }
}

impl Budget {
    /// So many bytes of the stream were sent.
    pub fn earn(&mut self, bytes: usize) {
        let earned = i32::try_from(bytes).unwrap_or(MAX_BYTES) / SHARE_DIVISOR;
        self.bytes = self.bytes.saturating_add(earned).min(MAX_BYTES);
    }

    pub fn is_empty(&self) -> bool {
        self.bytes <= 0
    }

    /// So many were sent again.
    pub fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(i32::try_from(bytes).unwrap_or(i32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_is_sent_may_be_sent_again() {
        let mut budget = Budget::default();
        let (mut sent, mut again) = (0, 0);
        for _ in 0..10_000 {
            budget.earn(1000);
            sent += 1000;
            for _ in 0..3 {
                if !budget.is_empty() {
                    budget.spend(1000);
                    again += 1000;
                }
            }
        }
        let share = f64::from(again) / f64::from(sent);
        assert!((0.5..0.51).contains(&share), "{share}");
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_burst() {
        let mut budget = Budget::default();
        (0..100_000).for_each(|_| budget.earn(1000));
        assert_eq!(budget.bytes, MAX_BYTES);
    }
}
