//! The rate at which packets demonstrably arrive.
//!
//! Bytes of newly reported packets over the time they took, taken once per feedback. That time is the longer of how long they took to
//! be sent and to arrive: a receiver that claims they all came at once proves nothing, and a burst let go by a stalled radio
//! is not the rate of the path.

use super::Micros;

/// The usual window: twelve video frames, so that one more or less at its edge matters little.
const WINDOW: Micros = 400_000;

/// The window for a path that is overloaded: what arrives is then evenly spaced, and the answer must be recent.
const SHORT_WINDOW: Micros = 200_000;

/// No rate is told from less than this: two feedback intervals of the quickest receivers.
const MIN_SPAN: Micros = 100_000;

/// Feedback that comes quicker than this is merged, so that the ring covers the window.
const MIN_STEP: Micros = 40_000;

const MARKS: usize = 16;

/// What had been received up to some feedback.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    bytes: u64,
    /// Of the latest packet, by either clock.
    sent: Micros,
    arrival: Micros,
}

#[derive(Debug, Default)]
pub struct Acknowledged {
    marks: [Mark; MARKS],
    /// Marks taken so far; the latest lies at `count - 1` modulo [`MARKS`].
    count: usize,
    bytes: u64,
    /// Of the latest packet, by either clock.
    latest: Option<(Micros, Micros)>,
}

impl Acknowledged {
    pub fn received(&mut self, sent: Micros, arrival: Micros, bytes: u16) {
        let (last_sent, last_arrival) = self.latest.unwrap_or((sent, arrival));
        self.latest = Some((sent.max(last_sent), arrival.max(last_arrival)));
        self.bytes += u64::from(bytes);
    }

    /// Packets whose feedback was lost: without them the rate would be too low.
    pub fn skipped(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// After each feedback.
    pub fn mark(&mut self) {
        let Some((sent, arrival)) = self.latest else { return };
        let mark = Mark { bytes: self.bytes, sent, arrival };
        let merges = self.count > 1 && mark.arrival - self.marks[(self.count - 2) % MARKS].arrival < MIN_STEP;
        if merges {
            self.marks[(self.count - 1) % MARKS] = mark;
        } else {
            self.marks[self.count % MARKS] = mark;
            self.count += 1;
        }
    }

    /// Bits per second over the usual window.
    pub fn rate(&self) -> Option<f64> {
        self.over(WINDOW)
    }

    /// Bits per second over the latest moments.
    pub fn recent_rate(&self) -> Option<f64> {
        self.over(SHORT_WINDOW)
    }

    fn over(&self, window: Micros) -> Option<f64> {
        let newest = self.marks[self.count.checked_sub(1)? % MARKS];
        let oldest = self.count.saturating_sub(MARKS);
        let mut earlier = (oldest..self.count - 1).rev().map(|index| self.marks[index % MARKS]);
        let mut start = earlier.next()?;
        for mark in earlier {
            if newest.arrival - start.arrival >= window {
                break;
            }
            start = mark;
        }
        let span = (newest.arrival - start.arrival).max(newest.sent - start.sent);
        (span >= MIN_SPAN).then(|| (newest.bytes - start.bytes) as f64 * 8e6 / span as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000 bytes every 10 ms for a second, marked every 50 ms; `arrival` from the send time.
    fn rates(arrival: impl Fn(Micros) -> Micros) -> (Option<f64>, Option<f64>) {
        let mut acknowledged = Acknowledged::default();
        for packet in 1..=100 {
            let sent = packet * 10_000;
            acknowledged.received(sent, arrival(sent), 1000);
            if packet % 5 == 0 {
                acknowledged.mark();
            }
        }
        (acknowledged.rate(), acknowledged.recent_rate())
    }

    #[test]
    fn is_what_arrives() {
        assert_eq!(rates(|sent| sent + 30_000), (Some(800e3), Some(800e3)));
        assert_eq!(rates(|sent| sent * 2), (Some(400e3), Some(400e3)));
    }

    #[test]
    fn is_no_more_than_was_sent() {
        assert_eq!(rates(|_| 7).0, Some(8.0 * 75_000.0 / 0.75));
        let (usual, recent) = rates(|sent| sent / 2);
        assert!(usual.is_some_and(|rate| rate <= 800e3) && recent.is_some_and(|rate| rate <= 800e3));
    }

    #[test]
    fn needs_a_span() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.mark();
        assert_eq!(acknowledged.rate(), None);
        acknowledged.received(0, 0, 1000);
        acknowledged.mark();
        acknowledged.received(MIN_SPAN - 1, MIN_SPAN - 1, 1000);
        acknowledged.mark();
        assert_eq!(acknowledged.rate(), None);
    }
}
