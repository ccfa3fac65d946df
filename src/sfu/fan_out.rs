//! Fan-out: what arrived in one turn on its way to everyone who subscribes.
//!
//! Packets wait in their track until the turn has read everything, then go subscriber by subscriber: each connection's state
//! is fetched once for the whole burst, and its packets lie next to each other in the outbox, which is what the kernel's
//! segmentation offload wants. Speech goes before pictures. [`Sfu::drive`](super::Sfu::drive) asks for it, and gets the rest
//! after the outbox was sent when that was full in between.

use std::collections::VecDeque;

use super::info::MediaKind;
use super::room::Room;
use super::track::Track;
use super::{Now, RoomId, TrackKey, Turn};

/// Packets of one track that go to a subscriber in a row: three of the kernel's groups, and little enough to be described on
/// the stack.
const BURST_PACKETS: usize = 32;
/// Of one track, waiting for the end of the turn. A turn reads no more datagrams than this from all publishers together; what
/// is beyond counts as lost, and is in the cache when it is asked for.
const MAX_WAITING: usize = 1024;

/// The tracks on which packets wait, in the order of their arrival.
#[derive(Default)]
pub(super) struct FanOut {
    audio: VecDeque<(RoomId, TrackKey)>,
    video: VecDeque<(RoomId, TrackKey)>,
}

impl FanOut {
    /// Which is next. It stays until it is [done](Self::done).
    pub fn next(&self) -> Option<(RoomId, TrackKey)> {
        self.audio.front().or(self.video.front()).copied()
    }

    pub fn done(&mut self, entry: (RoomId, TrackKey)) {
        for queue in [&mut self.audio, &mut self.video] {
            if queue.front() == Some(&entry) {
                queue.pop_front();
            }
        }
    }

    fn push(&mut self, kind: MediaKind, entry: (RoomId, TrackKey)) {
        match kind {
            MediaKind::Audio => self.audio.push_back(entry),
            MediaKind::Video => self.video.push_back(entry),
        }
    }
}

/// A track's packets on the way to its subscribers.
#[derive(Default)]
pub(super) struct Burst {
    /// Where they are in the cache.
    waiting: VecDeque<(u8, u64)>,
    /// How many of them the subscribers are being served; 0: none yet.
    size: usize,
    /// Tells the subscribers that have been served from the others.
    number: u32,
    /// A subscriber waits for a keyframe still.
    waits: bool,
}

impl Burst {
    fn begin(&mut self) -> usize {
        if self.size == 0 {
            self.size = self.waiting.len().min(BURST_PACKETS);
            self.number = self.number.wrapping_add(1);
        }
        self.size
    }

    /// Whether there is more.
    fn end(&mut self) -> bool {
        self.waiting.drain(..self.size);
        self.size = 0;
        !self.waiting.is_empty()
    }
}

impl Room {
    /// Queues a packet that is in the track's cache.
    pub fn enqueue(&mut self, key: TrackKey, layer: u8, sequence: u64, turn: &mut Turn) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        if track.down_tracks.flowing().is_empty() || track.burst.waiting.len() >= MAX_WAITING {
            return;
        }
        if track.burst.waiting.is_empty() {
            turn.fan_out.push(track.info.announced.kind, (self.id, key));
        }
        track.burst.waiting.push_back((layer, sequence));
    }

    /// Sends what waits on a track. False: the outbox is full, and not all of it was.
    pub fn fan_out(&mut self, now: Now, key: TrackKey, turn: &mut Turn) -> bool {
        loop {
            let Some(track) = self.tracks.get_mut(&key) else { return true };
            if track.stale {
                track.retarget();
            }
            let size = track.burst.begin();
            let Track { caches, burst, down_tracks, .. } = track;
            let mut packets = [const { None }; BURST_PACKETS];
            for (place, (layer, sequence)) in packets.iter_mut().zip(burst.waiting.range(..size)) {
                let packet = caches[usize::from(*layer)].get(*sequence);
                *place = packet.map(|packet| (packet.incoming(), &packet.media));
            }
            for down_track in down_tracks.flowing_mut() {
                if std::mem::replace(&mut down_track.served, burst.number) == burst.number {
                    continue;
                }
                let subscriber = self.participants.at(down_track.slot);
                let Some(connection) = subscriber.and_then(|p| p.connection(down_track.side)) else { continue };
                let Some(sender) = down_track.sender else { continue };
                if connection.pacer.is_full() {
                    down_track.interrupt();
                }
                let mut sent = false;
                for (incoming, packet) in packets[..size].iter().flatten() {
                    if let Some(out) = down_track.forward(incoming) {
                        connection.forward(now, (key, sender), &out, packet, turn);
                        sent = true;
                    }
                }
                burst.waits |= down_track.wants_keyframe().is_some();
                if sent && turn.outbox.is_full() {
                    return false;
                }
            }
            let waits = std::mem::take(&mut burst.waits);
            let more = burst.end();
            if waits {
                self.refresh_pictures(now, key, turn);
            }
            if !more {
                return true;
            }
        }
    }
}
