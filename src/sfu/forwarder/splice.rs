//! A stretch of one stream, from a keyframe on, mapped to the outgoing stream by offsets.

use std::ops::RangeInclusive;

use super::Selection;
use super::clock::Clock;
use super::incoming::Incoming;
use super::layers::{Layers, Verdict};
use super::numbers::{self, Offsets, Sent as SentNumbers};
use super::outgoing::Outgoing;
use crate::rtp::{DependencyRewrite, Rewrite};

/// How far back a late packet is still placed, in packets: a second of a busy screen share, which is longer than
/// retransmissions take to arrive. A loss wider than this ends the splice: nobody can repair it without a keyframe.
pub const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// What the receiver has been sent so far.
#[derive(Debug, Clone)]
pub struct Sent {
    /// One above the highest number given to a packet.
    pub next_sequence: u64,
    /// One above the highest number given to a packet with a payload.
    next_media: u64,
    pub clock: Clock,
    /// Of the newest frame.
    numbers: SentNumbers,
}

impl Sent {
    pub fn new(first_sequence: u64) -> Self {
        Sent { next_sequence: first_sequence, next_media: 0, clock: Clock::default(), numbers: SentNumbers::default() }
    }
}

#[derive(Debug, Clone)]
pub struct Splice {
    pub stream: u8,
    /// Packets before this one belong to an earlier mapping, or were not forwarded at all.
    first: u64,
    highest: u64,
    /// From incoming to outgoing sequence number at `highest`; subtracted.
    sequence_offset: u64,
    /// Which of the packets up to `highest` have arrived.
    seen: Bits,
    /// Which of them were left out and have no number.
    skipped: Bits,
    /// Incoming timestamp of the newest frame.
    timestamp: Option<u32>,
    /// From incoming to outgoing timestamp; added.
    timestamp_offset: u32,
    /// It comes out of the cache, and no frame of it was newer yet than all that were sent before.
    pub behind: bool,
    /// Incoming and outgoing timestamp of the newest frame that could not have the one it should.
    squeezed: Option<(u32, u32)>,
    numbers: Offsets,
    pub layers: Layers,
}

impl Splice {
    /// Begins with the first packet of a key picture, which gets this number and timestamp.
    pub fn new(p: &Incoming, selection: Selection, sequence: u64, timestamp: u32) -> Self {
        let mut seen = Bits::default();
        seen.set(p.sequence);
        Splice {
            stream: p.stream,
            first: p.sequence,
            highest: p.sequence,
            sequence_offset: p.sequence.wrapping_sub(sequence),
            seen,
            skipped: Bits::default(),
            timestamp: None,
            timestamp_offset: timestamp.wrapping_sub(p.timestamp),
            behind: false,
            squeezed: None,
            numbers: Offsets::default(),
            layers: Layers::new(p, selection),
        }
    }

    /// Whether so much was lost before this packet that the splice is of no use any more.
    pub fn ends_before(&self, sequence: u64) -> bool {
        sequence > self.highest && sequence - self.highest >= WINDOW
    }

    /// Decides about a packet of the stream; `None`: it came twice, too late, is empty, or of a layer that does not flow.
    pub fn forward(&mut self, p: &Incoming, selection: Selection, sent: &mut Sent) -> Option<Outgoing> {
        if p.sequence <= self.highest {
            let sequence = self.place_late(p.sequence)?;
            // It has a number already, even an empty one: sent, it ends the receiver's waiting for it.
            return Some(if p.empty || self.layers.admit(p, selection, true) == Verdict::Send {
                self.write(sequence, p, sent)
            } else {
                self.write_filler(sequence, p, sent)
            });
        }
        for between in self.highest + 1..=p.sequence {
            self.seen.clear(between);
            self.skipped.clear(between);
        }
        self.highest = p.sequence;
        self.seen.set(p.sequence);
        let verdict = if p.empty { Verdict::Drop { news: false } } else { self.layers.admit(p, selection, false) };
        match verdict {
            Verdict::Send => Some(self.write(p.sequence.wrapping_sub(self.sequence_offset), p, sent)),
            Verdict::Drop { news } => {
                self.skipped.set(p.sequence);
                self.sequence_offset = self.sequence_offset.wrapping_add(1);
                if news {
                    self.numbers.leave_out(&p.numbers);
                }
                None
            }
        }
    }

    fn place_late(&mut self, sequence: u64) -> Option<u64> {
        if sequence < self.first || self.highest - sequence >= WINDOW || self.seen.get(sequence) {
            return None;
        }
        self.seen.set(sequence);
        let skipped_since = self.skipped.count(sequence + 1..=self.highest);
        Some(sequence.wrapping_sub(self.sequence_offset.wrapping_sub(skipped_since)))
    }

    /// The outgoing form of a packet that has been placed.
    pub fn write(&mut self, sequence: u64, p: &Incoming, sent: &mut Sent) -> Outgoing {
        let is_newest = sequence >= sent.next_media && !p.empty;
        if is_newest && self.timestamp != Some(p.timestamp) {
            self.begin_frame(p, &mut sent.clock);
        }
        let numbers = self.numbers.apply(p.numbers, &sent.numbers, || self.layers.dropped_after(&p.frame));
        let frame_number = p.dependency.map(|dependency| self.numbers.apply_frame(&dependency, &sent.numbers));
        let active_targets =
            p.dependency.filter(|_| is_newest).and_then(|dependency| self.layers.announce(&dependency));
        if is_newest {
            sent.next_media = sequence + 1;
            sent.numbers.advance(numbers, frame_number);
        }
        sent.next_sequence = sent.next_sequence.max(sequence + 1);
        let unchanged = active_targets.is_none() && frame_number == p.dependency.map(|d| d.frame_number);
        Outgoing {
            sequence,
            timestamp: self.timestamp_of(p),
            marker: p.marker || self.layers.ends_picture(&p.frame),
            rewrite: numbers::rewrite(p.numbers, numbers),
            dependency: frame_number
                .filter(|_| !unchanged)
                .map(|frame_number| DependencyRewrite { frame_number, active_targets }),
        }
    }

    /// A packet without payload, in place of one that is not sent but has a number.
    fn write_filler(&self, sequence: u64, p: &Incoming, sent: &mut Sent) -> Outgoing {
        sent.next_sequence = sent.next_sequence.max(sequence + 1);
        Outgoing { sequence, timestamp: self.timestamp_of(p), marker: false, rewrite: Rewrite::Empty, dependency: None }
    }

    fn timestamp_of(&self, p: &Incoming) -> u32 {
        let squeezed = self.squeezed.filter(|(incoming, _)| *incoming == p.timestamp);
        squeezed.map_or(p.timestamp.wrapping_add(self.timestamp_offset), |(_, outgoing)| outgoing)
    }

    /// Puts the next frame after all that were sent, also if the publisher's clock jumped.
    fn begin_frame(&mut self, p: &Incoming, clock: &mut Clock) {
        let mut timestamp = p.timestamp.wrapping_add(self.timestamp_offset);
        if self.behind {
            if let Some(next) = clock.squeeze(timestamp) {
                self.timestamp = Some(p.timestamp);
                self.squeezed = Some((p.timestamp, next));
                return;
            }
            self.behind = false;
        }
        if !clock.may_continue(timestamp, p)
            && let Some(next) = clock.next_after_all(p)
        {
            timestamp = next;
            self.timestamp_offset = timestamp.wrapping_sub(p.timestamp);
            self.first = p.sequence;
        }
        self.timestamp = Some(p.timestamp);
        clock.frame(timestamp, p);
    }
}

/// One bit for each of the last [`WINDOW`] sequence numbers.
#[derive(Debug, Clone, Default)]
struct Bits([u64; WORDS]);

impl Bits {
    fn get(&self, sequence: u64) -> bool {
        self.0[Self::word(sequence)] & Self::bit(sequence) != 0
    }

    fn set(&mut self, sequence: u64) {
        self.0[Self::word(sequence)] |= Self::bit(sequence);
    }

    fn clear(&mut self, sequence: u64) {
        self.0[Self::word(sequence)] &= !Self::bit(sequence);
    }

    fn count(&self, range: RangeInclusive<u64>) -> u64 {
        range.filter(|&sequence| self.get(sequence)).count() as u64
    }

    fn word(sequence: u64) -> usize {
        (sequence % WINDOW / 64) as usize
    }

    fn bit(sequence: u64) -> u64 {
        1 << (sequence % 64)
    }
}
