//! KeyframeThrottle: when to ask a publisher for a keyframe, for one layer of one track.
//!
//! Subscribers that join, switch layers or lose packets all want keyframes, often at the same moment, and a keyframe
//! costs the publisher several frames' worth of uplink. So requests of all subscribers meet here: they become one PLI,
//! repeated until the keyframe comes. A track owns one per layer; the room polls it.

use std::time::{Duration, Instant};

/// Waits after the first, second, … PLI; the last one repeats. The first are short because a PLI or the first packet of its
/// answer is easily lost and viewers look at black or a frozen picture; browsers make no two keyframes within 300 ms, so one
/// PLI too many costs nothing. Later ones give a congested uplink time to deliver.
const RETRY: [Duration; 4] =
    [Duration::from_millis(150), Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];

/// No PLI earlier than this after a keyframe: bounds what a coming and going of subscribers can cost the publisher
/// to about three keyframes a second.
const MIN_INTERVAL: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Default)]
pub struct KeyframeThrottle {
    /// When the next PLI is due; `None` while nobody wants a keyframe.
    due: Option<Instant>,
    /// PLIs sent for the present want.
    attempts: usize,
    last_sent: Option<Instant>,
    last_keyframe: Option<Instant>,
}

impl KeyframeThrottle {
    /// Somebody needs a keyframe. Joins the want that is already open, if there is one.
    pub fn request(&mut self, now: Instant) {
        if self.due.is_some() {
            return;
        }
        let after_keyframe = self.last_keyframe.map(|at| at + MIN_INTERVAL);
        // Only bites after `cancel`: wanting, cancelling and wanting again is no way around the retry interval.
        let after_sent = self.last_sent.map(|at| at + RETRY[0]);
        self.due = [Some(now), after_keyframe, after_sent].into_iter().flatten().max();
        self.attempts = 0;
    }

    /// Whether to send a PLI now. Each `true` is one PLI.
    pub fn poll(&mut self, now: Instant) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        self.due = Some(now + RETRY[self.attempts.min(RETRY.len() - 1)]);
        self.attempts += 1;
        self.last_sent = Some(now);
        true
    }

    /// A keyframe of this layer began to arrive. It answers everybody who asked before.
    pub fn keyframe_seen(&mut self, now: Instant) {
        self.due = None;
        self.last_keyframe = Some(now);
        self.last_sent = None;
    }

    /// Nobody needs a keyframe any more.
    pub fn cancel(&mut self) {
        self.due = None;
    }

    /// When [`poll`](Self::poll) next has something to say.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Polls every 10 ms up to `until` and returns the times, in ms after `t0`, at which a PLI went out.
    fn plis(throttle: &mut KeyframeThrottle, t0: Instant, from: u64, until: u64) -> Vec<u64> {
        (from..=until).step_by(10).filter(|&at| throttle.poll(t0 + ms(at))).collect()
    }

    #[test]
    fn first_request_is_sent_at_once_and_retried_until_answered() {
        let t0 = Instant::now();
        let mut throttle = KeyframeThrottle::default();
        assert_eq!(throttle.next_timeout(), None);
        assert!(!throttle.poll(t0));
        throttle.request(t0);
        assert_eq!(throttle.next_timeout(), Some(t0));
        assert_eq!(plis(&mut throttle, t0, 0, 4000), [0, 150, 400, 900, 1900, 2900, 3900]);
        assert_eq!(throttle.next_timeout(), Some(t0 + ms(4900)));
        throttle.keyframe_seen(t0 + ms(4000));
        assert_eq!(throttle.next_timeout(), None);
        assert_eq!(plis(&mut throttle, t0, 4000, 9000), Vec::<u64>::new());
    }

    #[test]
    fn requests_of_many_are_one() {
        let t0 = Instant::now();
        let mut throttle = KeyframeThrottle::default();
        let mut sent = Vec::new();
        for at in (0..150).step_by(10) {
            throttle.request(t0 + ms(at));
            if throttle.poll(t0 + ms(at)) {
                sent.push(at);
            }
        }
        assert_eq!(sent, [0]);
    }

    #[test]
    fn answered_requests_keep_their_distance() {
        let t0 = Instant::now();
        let mut throttle = KeyframeThrottle::default();
        throttle.keyframe_seen(t0);
        throttle.request(t0 + ms(50));
        assert_eq!(plis(&mut throttle, t0, 50, 440), [300]);
        throttle.keyframe_seen(t0 + ms(510));
        throttle.request(t0 + ms(900));
        assert_eq!(plis(&mut throttle, t0, 900, 1000), [900]);
    }

    #[test]
    fn a_new_want_starts_the_retries_over() {
        let t0 = Instant::now();
        let mut throttle = KeyframeThrottle::default();
        throttle.request(t0);
        plis(&mut throttle, t0, 0, 3000);
        throttle.keyframe_seen(t0 + ms(3000));
        throttle.request(t0 + ms(5000));
        assert_eq!(plis(&mut throttle, t0, 5000, 6000), [5000, 5150, 5400, 5900]);
    }

    #[test]
    fn cancelling_stops_but_does_not_reset_the_clock() {
        let t0 = Instant::now();
        let mut throttle = KeyframeThrottle::default();
        throttle.request(t0);
        assert!(throttle.poll(t0));
        throttle.cancel();
        assert_eq!(throttle.next_timeout(), None);
        assert_eq!(plis(&mut throttle, t0, 10, 100), Vec::<u64>::new());
        throttle.request(t0 + ms(110));
        assert_eq!(plis(&mut throttle, t0, 110, 290), [150]);
    }
}
