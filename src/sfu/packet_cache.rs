//! PacketCache: what arrived lately on one layer of a track. Every receiver of the layer shares it: packets are forwarded out
//! of it, sent again out of it, and whoever comes late gets the last picture out of it.
//!
//! A ring by sequence number that grows to what the layer needs. A layer whose stream is replaced goes on far above its
//! former numbers here, so that a number means one packet for as long as the track lives.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::forwarder::Incoming;
use super::frame_reader::Description;
use crate::transport::MediaPacket;

/// Packets kept at most: two seconds of a busy 1080p stream, and as far back as forwarders place late packets.
const MAX_PACKETS: u64 = 1024;
/// Longer than a lost packet is asked for: receivers give a frame up after about a second.
const MAX_AGE: Duration = Duration::from_secs(2);
/// Payload kept at most: two seconds at 8 Mbit/s, more than browsers send in one layer.
const MAX_BYTES: usize = 2 << 20;
const FIRST_CAPACITY: usize = 64;
/// Between the numbers of a stream and those of the one that replaces it: more than any receiver bridges.
const STREAM_GAP: u64 = 1 << 16;

/// A picture is handed on from the cache when it began no longer ago than this: what it takes to ask the publisher for a
/// new one comes to a few hundred milliseconds, and everything since then has to be sent along.
const MAX_PICTURE_AGE: Duration = Duration::from_secs(2);
/// And when this many packets bring a receiver up to date: a tenth of a second on a line of 25 Mbit/s.
const MAX_PICTURE_PACKETS: u64 = 256;

/// A packet with what was read of it.
#[derive(Debug)]
pub(super) struct CachedPacket {
    pub media: MediaPacket,
    description: Description,
}

impl CachedPacket {
    /// The packet for the forwarders.
    pub fn incoming(&self) -> Incoming<'_> {
        self.description.of(&self.media)
    }
}

#[derive(Debug, Default)]
pub(super) struct PacketCache {
    /// The packet with number `n` is at `n % capacity`; the capacity is a power of two.
    ring: Vec<Option<CachedPacket>>,
    /// Numbers kept: none below `first`, none from `next` on.
    first: u64,
    next: u64,
    bytes: usize,
    /// From the stream's own numbers to ours; added.
    offset: u64,
    /// Where the last keyframe begins, and its timestamp.
    keyframe: Option<(u64, u32)>,
}

impl PacketCache {
    /// Keeps a packet and gives its number, by which the cache and the forwarders know it. `None` when it came twice or too late.
    pub fn insert(&mut self, mut packet: MediaPacket, description: Description) -> Option<u64> {
        if packet.restarted && self.next > 0 {
            self.clear();
            self.offset = (self.next + STREAM_GAP).wrapping_sub(packet.sequence);
        }
        packet.sequence = packet.sequence.wrapping_add(self.offset);
        let sequence = packet.sequence;
        if self.is_empty() || sequence >= self.next + MAX_PACKETS {
            self.clear();
            (self.first, self.next) = (sequence, sequence);
        }
        if sequence < self.first && self.next - sequence > MAX_PACKETS {
            return None;
        }
        self.first = self.first.min(sequence);
        self.drop_before((sequence + 1).saturating_sub(MAX_PACKETS));
        self.reserve(sequence);
        let place = self.place(sequence);
        if self.ring[place].is_some() {
            return None;
        }
        if description.keyframe_start {
            self.begin_keyframe(sequence, packet.timestamp);
        }
        self.bytes += packet.payload.len();
        let arrival = packet.arrival;
        self.ring[place] = Some(CachedPacket { media: packet, description });
        self.next = self.next.max(sequence + 1);
        self.expire(arrival);
        Some(sequence)
    }

    /// Several packets of a keyframe may look like its first, of which the first is: an H.264 picture with its parameter
    /// sets before it.
    fn begin_keyframe(&mut self, sequence: u64, timestamp: u32) {
        match self.keyframe {
            Some((known, same)) if same == timestamp => self.keyframe = Some((known.min(sequence), timestamp)),
            Some((known, _)) if sequence < known => {}
            _ => self.keyframe = Some((sequence, timestamp)),
        }
    }

    pub fn get(&self, sequence: u64) -> Option<&CachedPacket> {
        if self.ring.is_empty() {
            return None;
        }
        self.ring[self.place(sequence)].as_ref().filter(|packet| packet.media.sequence == sequence)
    }

    pub fn newest(&self) -> Option<&CachedPacket> {
        self.get(self.next.checked_sub(1)?)
    }

    /// The first packet of the last keyframe.
    pub fn keyframe(&self) -> Option<&CachedPacket> {
        self.get(self.keyframe?.0)
    }

    /// The numbers of the last keyframe and all that followed, when nothing of it is missing and it is short and young enough
    /// to be handed to somebody who waits for one.
    pub fn picture(&self, now: Instant) -> Option<Range<u64>> {
        let MediaPacket { sequence: first, arrival: started, .. } = self.keyframe()?.media;
        let usable =
            self.next - first <= MAX_PICTURE_PACKETS && now.saturating_duration_since(started) <= MAX_PICTURE_AGE;
        (usable && (first..self.next).all(|sequence| self.get(sequence).is_some())).then_some(first..self.next)
    }

    /// Forgets all packets, but not the numbers.
    pub fn clear(&mut self) {
        self.ring.clear();
        self.first = self.next;
        self.bytes = 0;
        self.keyframe = None;
    }

    fn is_empty(&self) -> bool {
        self.first == self.next
    }

    fn place(&self, sequence: u64) -> usize {
        sequence as usize & (self.ring.len() - 1)
    }

    /// Makes room for every number from `first` to `sequence`.
    fn reserve(&mut self, sequence: u64) {
        let span = (self.next.max(sequence + 1) - self.first) as usize;
        if span <= self.ring.len() {
            return;
        }
        let capacity = span.next_power_of_two().max(FIRST_CAPACITY);
        let former = std::mem::replace(&mut self.ring, (0..capacity).map(|_| None).collect());
        for packet in former.into_iter().flatten() {
            let place = self.place(packet.media.sequence);
            self.ring[place] = Some(packet);
        }
    }

    fn expire(&mut self, now: Instant) {
        while self.first + 1 < self.next {
            let old = match self.get(self.first) {
                Some(packet) => now.saturating_duration_since(packet.media.arrival) > MAX_AGE || self.bytes > MAX_BYTES,
                None => true,
            };
            if !old {
                return;
            }
            self.drop_before(self.first + 1);
        }
    }

    fn drop_before(&mut self, first: u64) {
        while self.first < first.min(self.next) {
            let place = self.place(self.first);
            if let Some(packet) = self.ring[place].take() {
                self.bytes -= packet.media.payload.len();
            }
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sfu::Codec;
    use crate::transport::Extensions;

    struct Layer {
        cache: PacketCache,
        start: Instant,
        payload: Arc<[u8]>,
    }

    impl Layer {
        fn new() -> Layer {
            Layer { cache: PacketCache::default(), start: Instant::now(), payload: vec![0; 1000].into() }
        }

        fn packet(&self, sequence: u64, ms: u64) -> MediaPacket {
            MediaPacket {
                section: 0,
                layer: 0,
                codec: Codec::Vp8,
                sequence,
                restarted: false,
                timestamp: ms as u32 * 90,
                clock_rate: 90_000,
                marker: false,
                payload: self.payload.clone(),
                arrival: self.at(ms),
                sender_time: None,
                extensions: Extensions::default(),
            }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// Gives the number it got.
        fn insert(&mut self, sequence: u64, ms: u64) -> Option<u64> {
            let packet = self.packet(sequence, ms);
            self.cache.insert(packet, Description::default())
        }

        fn insert_keyframe(&mut self, sequence: u64, ms: u64) {
            let packet = self.packet(sequence, ms);
            self.cache.insert(packet, Description::keyframe()).expect("new");
        }

        fn kept(&self) -> Vec<u64> {
            (0..300_000).filter(|n| self.cache.get(*n).is_some()).collect()
        }

        fn picture(&self, ms: u64) -> Option<Range<u64>> {
            self.cache.picture(self.at(ms))
        }
    }

    #[test]
    fn packets_are_found_again_in_whatever_order_they_came() {
        let mut layer = Layer::new();
        for sequence in [100, 103, 101, 99, 260, 250] {
            assert_eq!(layer.insert(sequence, 0), Some(sequence));
        }
        assert_eq!(layer.insert(101, 1), None, "twice");
        assert_eq!(layer.kept(), [99, 100, 101, 103, 250, 260]);
        assert_eq!(layer.cache.newest().map(|p| p.media.sequence), Some(260));
        assert!(layer.cache.get(u64::MAX).is_none() && PacketCache::default().get(0).is_none());
    }

    #[test]
    fn it_is_bounded_in_packets_time_and_bytes() {
        let mut layer = Layer::new();
        (0..3000).for_each(|n| { layer.insert(n, n / 10); });
        assert_eq!(layer.kept(), (3000 - MAX_PACKETS..3000).collect::<Vec<_>>());
        assert_eq!(layer.insert(3000 - MAX_PACKETS - 1, 300), None, "too late");
        assert_eq!(layer.cache.ring.len() as u64, MAX_PACKETS);

        let mut layer = Layer::new();
        (0..100).for_each(|n| { layer.insert(n, n * 100); });
        assert_eq!(layer.kept(), (79..100).collect::<Vec<_>>(), "two seconds");

        let mut layer = Layer::new();
        layer.payload = vec![0; 64 << 10].into();
        (0..100).for_each(|n| { layer.insert(n, 0); });
        assert_eq!(layer.kept().len(), MAX_BYTES / (64 << 10));
        layer.cache.clear();
        assert_eq!((layer.kept().len(), layer.cache.bytes), (0, 0));
    }

    #[test]
    fn a_jump_leaves_nothing_behind() {
        let mut layer = Layer::new();
        layer.insert_keyframe(5, 0);
        assert_eq!(layer.insert(200_000, 1), Some(200_000));
        assert_eq!((layer.kept(), layer.picture(1)), (vec![200_000], None));
        assert_eq!(layer.cache.bytes, 1000);
    }

    #[test]
    fn a_stream_that_replaces_another_gets_numbers_of_its_own() {
        let mut layer = Layer::new();
        (500..510).for_each(|n| { layer.insert(n, 0); });
        let first = MediaPacket { restarted: true, ..layer.packet(505, 10) };
        let base = layer.cache.insert(first, Description::keyframe()).expect("new");
        assert_eq!(base, 510 + STREAM_GAP);
        assert_eq!(layer.insert(504, 11), Some(base - 1), "before it, but late");
        assert_eq!(layer.insert(506, 12), Some(base + 1));
        assert_eq!(layer.kept(), [base - 1, base, base + 1], "the former stream is gone");
        assert_eq!(layer.picture(12), Some(base..base + 2));
    }

    #[test]
    fn a_picture_is_whole_young_and_short() {
        let mut layer = Layer::new();
        assert_eq!(layer.picture(0), None);
        (10..20).for_each(|n| { layer.insert(n, 0); });
        assert_eq!(layer.picture(0), None, "no keyframe");
        layer.insert_keyframe(20, 100);
        layer.insert(21, 101);
        layer.insert(23, 102);
        assert_eq!(layer.picture(102), None, "a hole");
        layer.insert(22, 110);
        assert_eq!(layer.picture(110), Some(20..24));
        assert_eq!(layer.picture(2100), Some(20..24));
        assert_eq!(layer.picture(2101), None, "too old");
        (24..24 + MAX_PICTURE_PACKETS).for_each(|n| { layer.insert(n, 120); });
        assert_eq!(layer.picture(120), None, "too long");
        layer.insert_keyframe(500, 130);
        assert_eq!(layer.picture(130), Some(500..501));
    }

    #[test]
    fn a_keyframe_begins_with_its_first_packet() {
        let mut layer = Layer::new();
        layer.insert_keyframe(10, 0);
        layer.insert_keyframe(11, 0);
        assert_eq!(layer.picture(0), Some(10..12), "parameter sets, then the picture");
        layer.insert_keyframe(30, 100);
        layer.insert_keyframe(20, 101);
        assert_eq!(layer.cache.keyframe().map(|p| p.media.sequence), Some(30), "one that is late is not the last");
    }
}
