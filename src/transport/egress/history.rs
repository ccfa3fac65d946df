//! The packets of one stream that may be asked for again: not their bytes, which the room's packet cache holds once for
//! everybody, but the numbers by which each can be found there and made again.

use std::time::Duration;

use crate::rtp::sequence::extend_sequence;
use crate::rtp::{ActiveTargets, DependencyRewrite, Rewrite};
use crate::transport::Origin;

/// Packets kept at most: two seconds of a busy 1080p stream and its keyframe. A power of two.
const MAX_PACKETS: usize = 1024;
/// Packets room is made for at first; doubled while packets that may still be wanted would be pushed out.
const FIRST_PACKETS: usize = 64;
/// Receivers give a packet up sooner: browsers ask for one for about a second, and skip to the next key frame. The room's
/// packet cache forgets it then.
const MAX_AGE: Duration = Duration::from_secs(2);
/// How often one packet is sent again. A path that loses five in a row delivers no video.
pub const MAX_RESENDS: u8 = 4;

/// Milliseconds since the connection began; wraps after seven weeks.
pub type Moment = u32;

/// The numbers of a packet that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Outgoing, extended to 64 bits.
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub rewrite: Rewrite,
    pub dependency: Option<DependencyRewrite>,
    pub origin: Origin,
}

/// A ring in which a packet's place follows from its sequence number.
#[derive(Debug, Default)]
pub struct History {
    /// A power of two, or empty.
    entries: Vec<Entry>,
    newest: u64,
}

/// One packet, in 32 bytes: a thousand of them per stream and receiver make most of a connection's memory.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// The low bits of the outgoing number.
    sequence: u32,
    timestamp: u32,
    /// When it was last sent.
    at: Moment,
    origin_low: u32,
    active_targets: u32,
    /// 48 bits are more than SRTP lets a stream count.
    origin_high: u16,
    frame_number: u16,
    rewrite: Rewrite,
    /// 0: says nothing of active targets.
    target_count: u8,
    flags: u8,
}

const _: () = assert!(size_of::<Entry>() <= 32);

/// In [`Entry::flags`]; below it the number of times it was sent again, above it the rest.
const RESENDS: u8 = 0x07;
const MARKER: u8 = 0x08;
const DEPENDENCY: u8 = 0x10;
const LAYER_SHIFT: u8 = 5;
/// No packet: layers end at 6.
const VACANT: u8 = 7 << LAYER_SHIFT;

impl Entry {
    const EMPTY: Entry = Entry {
        sequence: 0,
        timestamp: 0,
        at: 0,
        origin_low: 0,
        active_targets: 0,
        origin_high: 0,
        frame_number: 0,
        rewrite: Rewrite::None,
        target_count: 0,
        flags: VACANT,
    };

    fn new(now: Moment, sent: &Sent) -> Self {
        let targets = sent.dependency.and_then(|d| d.active_targets);
        let mut flags = sent.origin.layer.min(6) << LAYER_SHIFT;
        if sent.marker {
            flags |= MARKER;
        }
        if sent.dependency.is_some() {
            flags |= DEPENDENCY;
        }
        Entry {
            sequence: sent.sequence as u32,
            timestamp: sent.timestamp,
            at: now,
            origin_low: sent.origin.sequence as u32,
            active_targets: targets.map_or(0, |t| t.bits),
            origin_high: (sent.origin.sequence >> 32) as u16,
            frame_number: sent.dependency.map_or(0, |d| d.frame_number),
            rewrite: sent.rewrite,
            target_count: targets.map_or(0, |t| t.count),
            flags,
        }
    }

    fn is_vacant(&self) -> bool {
        self.flags >> LAYER_SHIFT == VACANT >> LAYER_SHIFT
    }

    fn sent(&self, sequence: u64) -> Sent {
        let active_targets =
            (self.target_count != 0).then_some(ActiveTargets { bits: self.active_targets, count: self.target_count });
        Sent {
            sequence,
            timestamp: self.timestamp,
            marker: self.flags & MARKER != 0,
            rewrite: self.rewrite,
            dependency: (self.flags & DEPENDENCY != 0)
                .then_some(DependencyRewrite { frame_number: self.frame_number, active_targets }),
            origin: Origin {
                layer: self.flags >> LAYER_SHIFT,
                sequence: u64::from(self.origin_high) << 32 | u64::from(self.origin_low),
            },
        }
    }
}

impl History {
    pub fn push(&mut self, now: Moment, sent: &Sent) {
        if self.entries.is_empty() {
            self.entries.resize(FIRST_PACKETS, Entry::EMPTY);
        }
        while self.entries.len() < MAX_PACKETS {
            let replaced = &self.entries[self.place(sent.sequence as u32)];
            if replaced.is_vacant() || age(now, replaced.at) >= MAX_AGE {
                break;
            }
            self.grow();
        }
        let place = self.place(sent.sequence as u32);
        self.entries[place] = Entry::new(now, sent);
        self.newest = self.newest.max(sent.sequence);
    }

    /// The packet that a receiver asks for by the low bits of its number. `None`: it is not there any more, was sent again too
    /// often, or so shortly ago that the receiver asked before it could know. Counts as sending it again. With it: how often it
    /// was sent again before.
    pub fn request(&mut self, now: Moment, sequence: u16, repeat_after: Duration) -> Option<(Sent, u8)> {
        let sequence = extend_sequence(self.newest, sequence);
        let place = self.place(sequence as u32);
        let entry = self.entries.get_mut(place)?;
        let known = !entry.is_vacant() && entry.sequence == sequence as u32 && sequence <= self.newest;
        let (resends, since) = (entry.flags & RESENDS, age(now, entry.at));
        let too_soon = resends > 0 && since < repeat_after;
        if !known || too_soon || resends >= MAX_RESENDS || since >= MAX_AGE {
            return None;
        }
        entry.flags += 1;
        entry.at = now;
        Some((entry.sent(sequence), resends))
    }

    fn place(&self, sequence: u32) -> usize {
        sequence as usize & self.entries.len().wrapping_sub(1)
    }

    fn grow(&mut self) {
        let before = std::mem::take(&mut self.entries);
        self.entries.resize(before.len() * 2, Entry::EMPTY);
        for entry in before.into_iter().filter(|entry| !entry.is_vacant()) {
            let place = self.place(entry.sequence);
            self.entries[place] = entry;
        }
    }
}

fn age(now: Moment, then: Moment) -> Duration {
    Duration::from_millis(now.wrapping_sub(then).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::vp8;

    const RTT: Duration = Duration::from_millis(100);

    fn sent(sequence: u64) -> Sent {
        Sent {
            sequence,
            timestamp: sequence as u32 * 3000,
            marker: sequence.is_multiple_of(2),
            rewrite: Rewrite::Vp8(vp8::Numbers { picture_id: sequence as u16, tl0_picture_index: 2, key_index: 3 }),
            dependency: Some(DependencyRewrite {
                frame_number: 7,
                active_targets: Some(ActiveTargets { bits: u32::MAX, count: 32 }),
            }),
            origin: Origin { layer: 2, sequence: sequence + 0x1234_5678_9abc },
        }
    }

    #[test]
    fn gives_back_what_was_put_in() {
        let mut history = History::default();
        assert_eq!(history.request(0, 5, RTT), None, "nothing was sent");
        for sequence in 65_500..65_600 {
            history.push(10, &sent(sequence));
        }
        assert_eq!(history.request(20, 65_530, RTT), Some((sent(65_530), 0)));
        assert_eq!(history.request(20, 3, RTT), Some((sent(65_539), 0)), "past the wrap");
        assert_eq!(history.request(20, 64, RTT), None, "not sent yet");
        let plain = Sent { dependency: None, marker: false, origin: Origin { layer: 0, sequence: 0 }, ..sent(65_600) };
        history.push(20, &plain);
        assert_eq!(history.request(20, 64, RTT), Some((plain, 0)));
    }

    #[test]
    fn refuses_repeats_within_a_round_trip_and_too_many() {
        let mut history = History::default();
        history.push(0, &sent(1));
        let asked: Vec<u32> = (0..1000).step_by(20).filter(|now| history.request(*now, 1, RTT).is_some()).collect();
        assert_eq!(asked, [0, 100, 200, 300]);
    }

    #[test]
    fn keeps_two_seconds_up_to_a_thousand_packets() {
        let mut slow = History::default();
        for sequence in 0..300 {
            slow.push(sequence as u32 * 100, &sent(sequence));
        }
        assert_eq!(slow.entries.len(), FIRST_PACKETS, "twenty packets are two seconds");
        assert_eq!(slow.request(30_000, 280, RTT), None, "two seconds ago");
        assert!(slow.request(30_000, 281, RTT).is_some());
        let mut fast = History::default();
        for sequence in 0..3000 {
            fast.push(sequence as u32 / 10, &sent(sequence));
        }
        assert_eq!(fast.entries.len(), MAX_PACKETS);
        assert_eq!(fast.request(300, 1975, RTT), None);
        assert_eq!(fast.request(300, 1976, RTT), Some((sent(1976), 0)));
    }

    #[test]
    fn growing_loses_nothing() {
        let mut history = History::default();
        for sequence in 100..600 {
            history.push(0, &sent(sequence));
        }
        for sequence in 100..600 {
            assert_eq!(history.request(1, sequence as u16, RTT), Some((sent(sequence), 0)));
        }
    }
}
