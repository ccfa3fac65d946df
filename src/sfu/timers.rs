//! One heap for every deadline of a worker, so that nobody is asked who has nothing due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::info::ParticipantId;
use super::{Link, RoomId, TrackKey};

/// Who wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// ICE, DTLS, SCTP and RTCP of one connection.
    Connection(Link),
    /// Packets that wait to be sent on a connection.
    Pacer(Link),
    /// Joining, negotiation, silence.
    Participant(RoomId, ParticipantId),
    /// Keyframe requests.
    Track(RoomId, TrackKey),
    Speakers(RoomId),
    /// How good everybody's line is.
    Lines(RoomId),
    /// What a subscriber gets of what it wants.
    Allocation(RoomId, ParticipantId),
    /// Newcomers whom the others have yet to be told of.
    Updates(RoomId),
    /// An empty room's end.
    Room(RoomId),
}

#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Timer)>>,
}

impl Timers {
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

/// The deadline of one owner. The heap may hold older entries of it; only the one that equals `at` counts.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    at: Option<Instant>,
}

impl Alarm {
    /// Wakes `timer` no later than `at`.
    pub fn set(&mut self, at: Instant, timer: Timer, timers: &mut Timers) {
        if self.at.is_none_or(|armed| at < armed) {
            self.at = Some(at);
            timers.heap.push(Reverse((at, timer)));
        }
    }

    /// Whether the entry popped for `at` is the one in force; disarms it.
    pub fn ring(&mut self, at: Instant) -> bool {
        let rings = self.at == Some(at);
        if rings {
            self.at = None;
        }
        rings
    }
}
