//! What a browser's jitter buffer does about a video that cannot be shown: it asks for a keyframe.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::media::Stamp;

/// Without a first keyframe; libwebrtc's time.
const WAIT_FOR_FIRST: Duration = Duration::from_millis(200);
/// With a hole that retransmissions do not fill.
const WAIT_FOR_REPAIR: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct Receiver {
    /// The next packet to decode; `None` before the first keyframe.
    next: Option<u64>,
    /// Arrived, but not decodable yet.
    waiting: BTreeMap<u64, Stamp>,
    stuck_since: Option<Instant>,
    asked_at: Option<Instant>,
}

impl Receiver {
    pub fn new() -> Receiver {
        Receiver { next: None, waiting: BTreeMap::new(), stuck_since: None, asked_at: None }
    }

    /// Whether to ask for a keyframe now.
    pub fn packet(&mut self, now: Instant, sequence: u64, stamp: Stamp) -> bool {
        if self.next.is_some_and(|next| sequence < next) {
            return false;
        }
        self.waiting.insert(sequence, stamp);
        self.decode();
        if self.waiting.is_empty() {
            self.stuck_since = None;
            return false;
        }
        let since = *self.stuck_since.get_or_insert(now);
        // libwebrtc does not wait when the first frame it can put together is not a keyframe.
        if self.next.is_none() && self.asked_at.is_none() && !stamp.key {
            self.asked_at = Some(now);
            return true;
        }
        let patience = if self.next.is_some() { WAIT_FOR_REPAIR } else { WAIT_FOR_FIRST };
        let due = self.asked_at.map_or(since + patience, |asked| asked.max(since) + patience);
        if now < due {
            return false;
        }
        self.asked_at = Some(now);
        true
    }

    fn decode(&mut self) {
        if let Some(start) = self.newest_keyframe() {
            self.next = Some(start);
            self.waiting = self.waiting.split_off(&start);
        }
        while let Some(next) = self.next.filter(|next| self.waiting.remove(next).is_some()) {
            self.next = Some(next + 1);
            self.stuck_since = None;
        }
    }

    /// Where the last whole keyframe begins.
    fn newest_keyframe(&self) -> Option<u64> {
        let whole = |(sequence, stamp): (&u64, &Stamp)| {
            let part = |part: u8| self.waiting.get(&(sequence + u64::from(part))) == Some(&Stamp { part, ..*stamp });
            (stamp.key && stamp.part == 0 && (0..stamp.parts).all(part)).then_some(*sequence)
        };
        self.waiting.iter().rev().find_map(whole)
    }
}
