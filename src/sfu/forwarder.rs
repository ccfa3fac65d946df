//! Forwarder: rewrites what one subscription gets, so that its receiver sees one continuous encoder.
//!
//! A publisher sends each simulcast layer as a stream of its own, with its own sequence numbers, timestamps and VP8
//! picture ids. A subscriber has one stream. The forwarder follows one layer at a time and splices them together at
//! keyframes. It is called by its DownTrack for every packet of the track, so it neither allocates nor keeps packets.
//!
//! How numbers are made: a splice maps the layer's sequence numbers to outgoing ones by a constant offset, which grows
//! by one for every packet that is left out on purpose. A packet that was lost on the way to us keeps its number, so the
//! receiver asks for it, and it finds its place when it comes late. Payloads are never touched, only the payload
//! descriptor of VP8 (RFC 7741), which is outside of what end-to-end encryption covers.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::layer_selector::MAX_LAYERS;

/// How far back a late packet is still placed, in packets: a second of a busy screen share, which is longer than
/// retransmissions take to arrive. A loss wider than this ends the splice: nobody can repair it without a keyframe.
const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// The first sequence number stays below this, so that a receiver that misses the first packets cannot guess the
/// rollover counter wrong (RFC 3711 §3.3.1).
const FIRST_SEQUENCE_LIMIT: u16 = 1 << 15;

/// Sender reports and arrival times may disagree by this much about the time between two frames: more than any network
/// delays a frame. Beyond it the report is nonsense and arrival decides.
const MAX_REPORT_ERROR: Duration = Duration::from_secs(2);

/// A timestamp that jumps further than this from what the clock says was set anew by the publisher. Generous, as a
/// receiver copes with a slip better than with a correction, and a stalled connection may deliver seconds late.
const MAX_TIMESTAMP_JUMP: Duration = Duration::from_secs(10);

const KEYIDX_MASK: u8 = 0x1f;

/// One packet of the publisher's.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Simulcast layer, 0 = lowest.
    pub layer: u8,
    /// Extended to 64 bits, per layer. When a layer's stream is replaced (a new SSRC), call
    /// [`Forwarder::reset_layer`].
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub arrival: Instant,
    /// Empty for packets that carry padding only.
    pub payload: &'a [u8],
    /// The first packet of a keyframe; always true for audio.
    pub keyframe_start: bool,
    /// Hertz.
    pub clock_rate: u32,
    /// The sender's wall clock at `timestamp`, by its last sender report; any epoch that all layers share.
    pub sender_time: Option<Duration>,
    pub vp8: Option<Vp8>,
}

/// What the VP8 payload descriptor says (RFC 7741 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vp8 {
    pub picture_id: Option<PictureId>,
    pub tl0picidx: Option<u8>,
    /// 5 bits.
    pub keyidx: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureId {
    pub value: u16,
    /// 15 bits on the wire instead of 7.
    pub wide: bool,
}

/// What to write in place of the incoming numbers. The payload goes along as it came; an empty one goes out empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// Extended to 64 bits; the first is below 2^15, so the SRTP rollover counter is `sequence >> 16`.
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub vp8: Option<Vp8Rewrite>,
}

/// New values for the fields that the descriptor has; the widths stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vp8Rewrite {
    pub picture_id: Option<u16>,
    pub tl0picidx: Option<u8>,
    pub keyidx: Option<u8>,
}

#[derive(Debug, Clone)]
pub struct Forwarder {
    sent: Sent,
    /// Timestamp of the first frame.
    first_timestamp: u32,
    splice: Option<Splice>,
    /// The newest sequence number that arrived, per layer.
    newest: [Option<u64>; MAX_LAYERS],
}

impl Forwarder {
    /// Both from the seed; of `first_sequence` the lower 15 bits are used.
    pub fn new(first_sequence: u16, first_timestamp: u32) -> Self {
        let next_sequence = u64::from(first_sequence % FIRST_SEQUENCE_LIMIT);
        Forwarder {
            sent: Sent { next_sequence, next_media: 0, frame: None, anchor: None, vp8: Vp8Rewrite::default() },
            first_timestamp,
            splice: None,
            newest: [None; MAX_LAYERS],
        }
    }

    /// Decides about one packet; `None` = do not send it. `target` is the layer wanted now; without one the
    /// subscription is paused.
    ///
    /// The layer changes at a keyframe of the target. Until then the current one goes on.
    pub fn forward(&mut self, target: Option<u8>, p: &Incoming) -> Option<Outgoing> {
        let newest = self.newest.get_mut(p.layer as usize)?;
        let in_order = newest.is_none_or(|newest| p.sequence > newest);
        if in_order {
            *newest = Some(p.sequence);
        }
        let Some(target) = target else {
            self.pause();
            return None;
        };
        if self.splice.as_ref().is_some_and(|s| s.layer == p.layer && s.ends_before(p.sequence)) {
            self.splice = None;
        }
        // A keyframe whose first packet comes after its others went by unused would leave holes that nobody can fill:
        // that one is not for us.
        let starts = in_order && p.keyframe_start && !p.payload.is_empty();
        if starts && p.layer == target && self.current_layer() != Some(target) {
            let timestamp = match self.sent.frame {
                Some(newest) => self.sent.timestamp_after(newest, p),
                None => self.first_timestamp,
            };
            let splice = self.splice.insert(Splice::new(p, self.sent.next_sequence, timestamp));
            return Some(splice.write(self.sent.next_sequence, p, &mut self.sent));
        }
        let splice = self.splice.as_mut().filter(|s| s.layer == p.layer)?;
        let sequence = splice.place(p.sequence, p.payload.is_empty())?;
        Some(splice.write(sequence, p, &mut self.sent))
    }

    /// The layer that flows.
    pub fn current_layer(&self) -> Option<u8> {
        self.splice.as_ref().map(|s| s.layer)
    }

    /// The layer whose keyframe must come before `target` flows; `None` when there is nothing to wait for.
    pub fn wants_keyframe_from(&self, target: Option<u8>) -> Option<u8> {
        target.filter(|_| self.current_layer() != target)
    }

    /// Stops until the next keyframe. The receiver's stream then goes on, its clock advanced by the time between.
    pub fn pause(&mut self) {
        self.splice = None;
    }

    /// The sequence numbers of `layer` start over: its stream was replaced (a new SSRC), or it will be replayed from a
    /// cache. It flows again from the next keyframe.
    pub fn reset_layer(&mut self, layer: u8) {
        if let Some(newest) = self.newest.get_mut(layer as usize) {
            *newest = None;
        }
        if self.current_layer() == Some(layer) {
            self.splice = None;
        }
    }
}

/// What the receiver has been sent so far.
#[derive(Debug, Clone)]
struct Sent {
    /// One above the highest number given to a packet.
    next_sequence: u64,
    /// One above the highest number given to a packet with a payload.
    next_media: u64,
    /// Timestamp of the newest frame, and when its first packet arrived.
    frame: Option<(u32, Instant)>,
    anchor: Option<Anchor>,
    /// VP8 numbers of the newest frame.
    vp8: Vp8Rewrite,
}

impl Sent {
    /// The outgoing timestamp of `p`'s frame, when its own has no relation to ours: at least one tick after the newest.
    fn timestamp_after(&self, (timestamp, arrival): (u32, Instant), p: &Incoming) -> u32 {
        let elapsed = ticks(p.arrival.saturating_duration_since(arrival), p.clock_rate) as i64;
        let by_arrival = timestamp.wrapping_add(elapsed as u32);
        let correction = self
            .anchor
            .zip(p.sender_time)
            .map(|(anchor, time)| anchor.distance(by_arrival, time, p.clock_rate))
            .filter(|distance| distance.unsigned_abs() <= ticks(MAX_REPORT_ERROR, p.clock_rate));
        let step = (elapsed + correction.unwrap_or(0)).max(1);
        timestamp.wrapping_add(step as u32)
    }

    /// Whether `timestamp` may follow on that of the newest frame, for the frame of `p`.
    fn may_continue(&self, (newest, arrival): (u32, Instant), timestamp: u32, p: &Incoming) -> bool {
        let step = timestamp.wrapping_sub(newest);
        let elapsed = ticks(p.arrival.saturating_duration_since(arrival), p.clock_rate);
        // A step back is one far ahead.
        u64::from(step).abs_diff(elapsed) <= ticks(MAX_TIMESTAMP_JUMP, p.clock_rate)
    }

    /// A frame goes out with this timestamp.
    fn frame(&mut self, timestamp: u32, p: &Incoming) {
        self.frame = Some((timestamp, p.arrival));
        if let Some(sender_time) = p.sender_time {
            let anchor = self.anchor.get_or_insert(Anchor { sender_time, timestamp });
            let error = anchor.distance(timestamp, sender_time, p.clock_rate).unsigned_abs();
            if error > ticks(MAX_REPORT_ERROR, p.clock_rate) {
                *anchor = Anchor { sender_time, timestamp };
            }
        }
    }
}

/// A moment of the sender's clock and its outgoing timestamp. Every splice is timed by the same one: timed by the
/// frame before, each would add to the error of the last.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    sender_time: Duration,
    timestamp: u32,
}

impl Anchor {
    /// How far ahead of `timestamp` that of `sender_time` is, in ticks.
    fn distance(&self, timestamp: u32, sender_time: Duration, clock_rate: u32) -> i64 {
        let at = if sender_time >= self.sender_time {
            self.timestamp.wrapping_add(ticks(sender_time - self.sender_time, clock_rate) as u32)
        } else {
            self.timestamp.wrapping_sub(ticks(self.sender_time - sender_time, clock_rate) as u32)
        };
        i64::from(at.wrapping_sub(timestamp) as i32)
    }
}

/// Times that peers claim may be of any size: all comparisons are made modulo 2^32 ticks, so wrapping does no harm.
fn ticks(time: Duration, clock_rate: u32) -> u64 {
    let rate = u64::from(clock_rate);
    time.as_secs().wrapping_mul(rate).wrapping_add(u64::from(time.subsec_nanos()) * rate / 1_000_000_000)
}

/// A stretch of one layer, from a keyframe on, mapped to the outgoing stream by constant offsets.
#[derive(Debug, Clone)]
struct Splice {
    layer: u8,
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
    vp8: Vp8Offsets,
}

impl Splice {
    fn new(p: &Incoming, sequence: u64, timestamp: u32) -> Self {
        let mut seen = Bits::default();
        seen.set(p.sequence);
        Splice {
            layer: p.layer,
            first: p.sequence,
            highest: p.sequence,
            sequence_offset: p.sequence.wrapping_sub(sequence),
            seen,
            skipped: Bits::default(),
            timestamp: None,
            timestamp_offset: timestamp.wrapping_sub(p.timestamp),
            vp8: Vp8Offsets::default(),
        }
    }

    /// Whether so much was lost before this packet that the splice is of no use any more.
    fn ends_before(&self, sequence: u64) -> bool {
        sequence > self.highest && sequence - self.highest >= WINDOW
    }

    /// The outgoing number of a packet, or `None` if it must not be sent: it came twice, too late, or is empty.
    fn place(&mut self, sequence: u64, empty: bool) -> Option<u64> {
        if sequence <= self.highest {
            return self.place_late(sequence);
        }
        for between in self.highest + 1..=sequence {
            self.seen.clear(between);
            self.skipped.clear(between);
        }
        self.highest = sequence;
        self.seen.set(sequence);
        if empty {
            self.skipped.set(sequence);
            self.sequence_offset = self.sequence_offset.wrapping_add(1);
            return None;
        }
        Some(sequence.wrapping_sub(self.sequence_offset))
    }

    /// A late packet has its number already, even an empty one: sent, it ends the receiver's waiting for it.
    fn place_late(&mut self, sequence: u64) -> Option<u64> {
        if sequence < self.first || self.highest - sequence >= WINDOW || self.seen.get(sequence) {
            return None;
        }
        self.seen.set(sequence);
        let skipped_since = self.skipped.count(sequence + 1..=self.highest);
        Some(sequence.wrapping_sub(self.sequence_offset.wrapping_sub(skipped_since)))
    }

    /// The outgoing form of a packet that has been placed.
    fn write(&mut self, sequence: u64, p: &Incoming, sent: &mut Sent) -> Outgoing {
        let is_newest = sequence >= sent.next_media && !p.payload.is_empty();
        if is_newest && self.timestamp != Some(p.timestamp) {
            self.begin_frame(p, sent);
        }
        let vp8 = p.vp8.map(|vp8| self.vp8.rewrite(&vp8, &sent.vp8));
        if is_newest {
            sent.next_media = sequence + 1;
            sent.vp8.advance(vp8.unwrap_or_default());
        }
        sent.next_sequence = sent.next_sequence.max(sequence + 1);
        Outgoing { sequence, timestamp: p.timestamp.wrapping_add(self.timestamp_offset), marker: p.marker, vp8 }
    }

    /// Puts the next frame after all that were sent, also if the publisher's clock jumped.
    fn begin_frame(&mut self, p: &Incoming, sent: &mut Sent) {
        let mut timestamp = p.timestamp.wrapping_add(self.timestamp_offset);
        if let Some(newest) = sent.frame
            && !sent.may_continue(newest, timestamp, p)
        {
            timestamp = sent.timestamp_after(newest, p);
            self.timestamp_offset = timestamp.wrapping_sub(p.timestamp);
            self.first = p.sequence;
        }
        self.timestamp = Some(p.timestamp);
        sent.frame(timestamp, p);
    }
}

/// What to add to a splice's VP8 numbers; each is set when its field first appears.
#[derive(Debug, Clone, Default)]
struct Vp8Offsets {
    picture_id: Option<u16>,
    tl0picidx: Option<u8>,
    keyidx: Option<u8>,
}

impl Vp8Offsets {
    /// `sent`: the numbers that those of the splice's first frame must follow.
    fn rewrite(&mut self, vp8: &Vp8, sent: &Vp8Rewrite) -> Vp8Rewrite {
        let picture_id = vp8.picture_id.map(|PictureId { value, wide }| {
            let follow = || sent.picture_id.map_or(0, |last| last.wrapping_add(1).wrapping_sub(value));
            let id = value.wrapping_add(*self.picture_id.get_or_insert_with(follow));
            id & if wide { 0x7fff } else { 0x7f }
        });
        let next = |value: u8, offset: &mut Option<u8>, last: Option<u8>| {
            let follow = || last.map_or(0, |last| last.wrapping_add(1).wrapping_sub(value));
            value.wrapping_add(*offset.get_or_insert_with(follow))
        };
        let tl0picidx = vp8.tl0picidx.map(|value| next(value, &mut self.tl0picidx, sent.tl0picidx));
        let keyidx = vp8.keyidx.map(|value| next(value, &mut self.keyidx, sent.keyidx) & KEYIDX_MASK);
        Vp8Rewrite { picture_id, tl0picidx, keyidx }
    }
}

impl Vp8Rewrite {
    fn advance(&mut self, newer: Vp8Rewrite) {
        self.picture_id = newer.picture_id.or(self.picture_id);
        self.tl0picidx = newer.tl0picidx.or(self.tl0picidx);
        self.keyidx = newer.keyidx.or(self.keyidx);
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

#[cfg(test)]
mod tests;
