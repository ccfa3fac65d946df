//! Pictures: a decoder can begin with a keyframe only. Whoever waits for one gets the last from the track's cache, or the
//! publisher is asked for another.

use std::time::Instant;

use super::down_track::DownTrack;
use super::info::{MediaKind, ParticipantId};
use super::layer_selector::MAX_LAYERS;
use super::packet_cache::PacketCache;
use super::participant::Connection;
use super::room::Room;
use super::timers::Timer;
use super::track::Track;
use super::{Now, TrackKey, Turn};
use crate::transport::SenderId;

impl Room {
    /// A subscriber's decoder lost its picture, or never had one.
    pub fn keyframe_wanted(&mut self, now: Now, subscriber: ParticipantId, sender: SenderId, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&subscriber) else { return };
        let Some(key) = participant.senders.get(&sender).copied() else { return };
        // Audio has no keyframes to give: a request for one would be repeated for ever.
        let video = |track: &&mut Track| track.info.announced.kind == MediaKind::Video;
        let Some(track) = self.tracks.get_mut(&key).filter(video) else { return };
        let Some(down_track) = track.down_tracks.get_mut(participant.slot) else { return };
        // While a switch is under way its own request is out already.
        let Some(layer) = down_track.current_stream() else { return };
        let cache = &track.caches[usize::from(layer)];
        let connection = participant.downstream_connection();
        if connection.is_some_and(|c| replay(now, (key, layer), cache, down_track, c, turn)) {
            return;
        }
        track.broken[usize::from(layer)] = true;
        let mut wanted = [false; MAX_LAYERS];
        wanted[usize::from(layer)] = true;
        self.request_keyframes(now, key, wanted, turn);
    }

    /// Sees to everybody who waits for a picture: after a subscription, a change of layer, an unmute, and when a keyframe did
    /// not do for all.
    pub fn refresh_pictures(&mut self, now: Now, key: TrackKey, turn: &mut Turn) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        if track.info.announced.kind != MediaKind::Video {
            return;
        }
        let mut wanted = [false; MAX_LAYERS];
        for down_track in track.down_tracks.flowing_mut() {
            let Some(layer) = down_track.wants_keyframe() else { continue };
            let cache = &track.caches[usize::from(layer)];
            let connection = self.participants.at(down_track.slot).and_then(|p| p.connection(down_track.side));
            let shown = connection.is_some_and(|c| replay(now, (key, layer), cache, down_track, c, turn));
            wanted[usize::from(layer)] |= !shown;
        }
        self.request_keyframes(now, key, wanted, turn);
    }

    /// Asks the publisher.
    fn request_keyframes(&mut self, now: Now, key: TrackKey, layers: [bool; MAX_LAYERS], turn: &mut Turn) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        for (throttle, wanted) in track.throttles.iter_mut().zip(layers) {
            if wanted {
                throttle.request(now.instant);
            }
        }
        self.send_keyframe_requests(now, key, turn);
    }

    pub fn track_due(&mut self, now: Now, at: Instant, key: TrackKey, turn: &mut Turn) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        if !track.alarm.ring(at) {
            return;
        }
        // A request nobody waits for any more is not repeated.
        let waiting = track.wanted_streams();
        for (layer, throttle) in (0u8..).zip(&mut track.throttles) {
            let broken = track.broken[usize::from(layer)];
            let watched = || track.down_tracks.flowing().iter().any(|d| d.current_stream() == Some(layer));
            let wanted = waiting[usize::from(layer)] || (broken && watched());
            if !wanted {
                throttle.cancel();
                track.broken[usize::from(layer)] = false;
            }
        }
        self.send_keyframe_requests(now, key, turn);
        self.dynacast_due(now, key, turn);
    }

    fn send_keyframe_requests(&mut self, now: Now, key: TrackKey, turn: &mut Turn) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        let Some(section) = track.section else { return };
        let Some(publisher) = self.participants.get_mut(&track.publisher) else { return };
        let Some(connection) = publisher.publisher.as_mut() else { return };
        for (layer, throttle) in (0u8..).zip(&mut track.throttles) {
            if throttle.poll(now.instant) {
                connection.transport.request_keyframe(section, layer);
                connection.touch(turn);
                turn.counts.keyframes_requested += 1;
            }
        }
        if let Some(at) = track.throttles.iter().filter_map(|t| t.next_timeout()).min() {
            track.alarm.set(at, Timer::Track(self.id, key), &mut turn.timers);
        }
    }
}

/// Sends a subscriber the last picture of a layer and all that followed, if that is at hand and better than waiting for the
/// publisher's next. Frames stay as they came, encrypted or not.
fn replay(
    now: Now,
    (key, layer): (TrackKey, u8),
    cache: &PacketCache,
    down_track: &mut DownTrack,
    connection: &mut Connection,
    turn: &mut Turn,
) -> bool {
    let began = cache.keyframe().map(|packet| packet.media.arrival);
    let welcome = began.is_some_and(|began| down_track.may_rewind(began, now.instant)) && !connection.pacer.is_full();
    let (true, Some(sender)) = (welcome, down_track.sender) else { return false };
    let Some(picture) = cache.picture(now.instant) else { return false };
    down_track.rewind(layer, now.instant);
    for packet in picture.filter_map(|sequence| cache.get(sequence)) {
        if let Some(out) = down_track.forward(&packet.incoming()) {
            connection.forward(now, (key, sender), &out, &packet.media, turn);
        }
    }
    turn.counts.pictures_replayed += 1;
    true
}
