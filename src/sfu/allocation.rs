//! A room's allocations: what each subscriber wants becomes what its DownTracks may send, and what all subscribers want of
//! a track becomes what its publisher should send.
//!
//! Every subscriber that wants video has an [`Allocator`](super::allocator::Allocator) and an alarm, which rings once a
//! second, and at once when its wishes change or its network gets worse; who wants none costs nothing.

use std::collections::BTreeMap;
use std::time::Instant;

use super::allocator::{self, Rank, Step, Want};
use super::down_track::DownTrack;
use super::dynacast;
use super::event::{EventKind, StreamState};
use super::info::{LayerInfo, MediaKind, ParticipantId, Quality, TrackSource};
use super::layer_selector::Target;
use super::participant::Participant;
use super::room::Room;
use super::timers::Timer;
use super::track::Track;
use super::{Link, Now, TrackKey, Turn};
use crate::transport::Transport;

/// Kept free of video for whoever speaks next, bits per second: Opus at 32 kb/s in 50 packets with their overhead. What
/// silent microphones send does not tell what they will.
const NEXT_VOICE: u64 = 52_000;

/// What a pixel costs, bits per second, when neither the publisher nor any packet told; by what Element Call announces
/// for its smallest and largest layer.
const BITS_PER_PIXEL: u64 = 2;

/// The same when nobody knows the size either: a camera's middle layer.
const UNKNOWN_BITRATE: u64 = 500_000;

impl Room {
    /// A subscriber's wishes changed: share out anew what its network carries.
    pub fn schedule_allocation(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) {
        let room = self.id;
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let at = participant.allocator.run_on_demand(now.instant);
        participant.allocation_alarm.set(at, Timer::Allocation(room, id), &mut turn.timers);
    }

    /// The same for all who get the track.
    pub fn schedule_allocations(&mut self, now: Now, key: TrackKey, turn: &mut Turn) {
        let Some(track) = self.tracks.get(&key) else { return };
        let subscribers: Vec<ParticipantId> = track.down_tracks.iter().map(|d| d.subscriber).collect();
        for id in subscribers {
            self.schedule_allocation(now, id, turn);
        }
    }

    /// A connection may know more about its network than before.
    pub fn watch_estimate(&mut self, now: Now, link: Link, turn: &mut Turn) {
        let Some(participant) = self.participants.linked(link) else { return };
        if participant.downstream_side() == link.side && hear_estimate(participant, now.instant) {
            let timer = Timer::Allocation(link.room, link.participant);
            participant.allocation_alarm.set(now.instant, timer, &mut turn.timers);
        }
    }

    pub fn allocation_due(&mut self, now: Now, at: Instant, id: ParticipantId, turn: &mut Turn) {
        let room = self.id;
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if !participant.allocation_alarm.ring(at) {
            return;
        }
        let video_wanted = self.allocate(now, id, turn);
        if let Some(participant) = self.participants.get_mut(&id)
            && let Some(next) = participant.allocator.next_run().filter(|_| video_wanted)
        {
            participant.allocation_alarm.set(next, Timer::Allocation(room, id), &mut turn.timers);
        }
    }

    /// Whether the subscriber wants any video.
    fn allocate(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) -> bool {
        let Some(participant) = self.participants.get_mut(&id) else { return false };
        let slot = participant.slot;
        let (mut audio, mut microphones, mut wants) = (0, false, Vec::new());
        // Of each video, the whole of what was asked for, and the last step there is of it now.
        let mut asked = BTreeMap::new();
        for key in participant.subscribed.keys() {
            let Some(track) = self.tracks.get(key) else { continue };
            let Some(down_track) = track.down_tracks.get(slot).filter(|d| d.is_open()) else { continue };
            if track.info.announced.kind == MediaKind::Audio {
                microphones = true;
                audio += if down_track.flows() { track.rates.present(now.instant) } else { 0 };
            } else if let Some((want, target)) = track.want(now.instant, down_track) {
                let speaker = self.floor.place(track.publisher);
                asked.insert(*key, (target, want.steps.last().copied()));
                wants.push(Want { rank: Rank { speaker, ..want.rank }, ..want });
            }
        }
        if microphones {
            audio = audio.max(NEXT_VOICE);
        }
        hear_estimate(participant, now.instant);
        let allocation = participant.allocator.allocate(now.instant, audio, &wants);
        participant.desired = allocation.desired;
        if let Some(connection) = participant.downstream_connection() {
            connection.transport.set_desired(now.instant, allocator::needed_for(allocation.desired));
        }
        let mut states = Vec::new();
        for (key, step) in allocation.videos {
            let Some(track) = self.tracks.get_mut(&key) else { continue };
            let Some((full, last)) = asked.get(&key) else { continue };
            // Who got all there is may have what comes besides: a layer that is not sent yet.
            let cap = step.map(|given| if step == *last { *full } else { given.target });
            let changed = track.change_down_track(slot, |down_track| {
                let capped = down_track.selector.cap() != cap;
                down_track.selector.set_cap(cap);
                (capped, down_track.tell_paused(cap.is_none()))
            });
            let Some((capped, paused)) = changed else { continue };
            states.extend(paused.map(|paused| track.stream_state(paused)));
            if capped {
                self.refresh_pictures(now, key, turn);
                self.update_dynacast(now, key, turn);
            }
        }
        if !states.is_empty() {
            turn.emit(id, EventKind::StreamStates(states));
        }
        !wants.is_empty()
    }

    // --- publishers ----------------------------------------------------------------------------------------------

    /// What subscribers want of the track may have changed.
    pub fn update_dynacast(&mut self, now: Now, key: TrackKey, turn: &mut Turn) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        if track.info.announced.kind == MediaKind::Video && track.is_published() {
            let wish = track.down_tracks.iter().filter_map(|d| track.wish(d)).max();
            let more = track.dynacast.set(now.instant, wish);
            self.tell_publisher(key, more, turn);
        }
    }

    /// The track's alarm rang.
    pub fn dynacast_due(&mut self, now: Now, key: TrackKey, turn: &mut Turn) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        let less = track.dynacast.poll(now.instant);
        self.tell_publisher(key, less, turn);
    }

    fn tell_publisher(&mut self, key: TrackKey, wish: Option<Option<u8>>, turn: &mut Turn) {
        let room = self.id;
        let Some(track) = self.tracks.get_mut(&key) else { return };
        if let Some(at) = track.dynacast.next_timeout() {
            track.alarm.set(at, Timer::Track(room, key), &mut turn.timers);
        }
        if let Some(wish) = wish {
            if wish.is_none() {
                // When it begins again, what it sent before says nothing about which layers it can send then.
                track.activity = Default::default();
            }
            let event = track.quality_wanted(wish);
            turn.emit(track.publisher, event);
        }
    }

    // --- resuming ------------------------------------------------------------------------------------------------

    /// What a client that was away may have missed of all this.
    pub fn repeat_allocation(&mut self, id: ParticipantId, turn: &mut Turn) {
        let Some(participant) = self.participants.get(&id) else { return };
        for track in participant.published.iter().filter_map(|key| self.tracks.get(key)) {
            if let Some(wish) = track.dynacast.told() {
                turn.emit(id, track.quality_wanted(wish));
            }
        }
        let subscribed = participant.subscribed.keys().filter_map(|key| self.tracks.get(key));
        let state = |track: &Track| Some(track.stream_state(track.down_tracks.get(participant.slot)?.told_paused()?));
        let states: Vec<StreamState> = subscribed.filter_map(state).collect();
        if !states.is_empty() {
            turn.emit(id, EventKind::StreamStates(states));
        }
    }
}

/// Whether the network got so much worse, or better, that the allocator should run at once.
fn hear_estimate(participant: &mut Participant, now: Instant) -> bool {
    let Some(transport) = participant.sending().map(|connection| &connection.transport) else { return false };
    let (Some(estimate), path) = (carried(transport), transport.silences()) else { return false };
    participant.allocator.observe(now, path, estimate)
}

/// Bits per second that arrive of what the estimate lets us send. A queue that is always full neither grows nor shrinks: then
/// losses tell what delays do not, and what is lost is sent once more besides.
fn carried(transport: &Transport) -> Option<u64> {
    let estimate = transport.estimate()?;
    let arriving = 1000 - (transport.loss() * 1000.0) as u64;
    Some(estimate * arriving.min(1000) / 1000)
}

impl Track {
    /// What a subscriber wants of this video, and the whole of what it asked for; `None` while nothing should flow for
    /// other reasons than its network.
    fn want(&self, now: Instant, down_track: &DownTrack) -> Option<(Want<TrackKey>, Target)> {
        if self.info.muted {
            return None;
        }
        let published = self.published();
        let asked = down_track.selector.asked(&published, self.activity.alive())?;
        let steps = self.steps(now, asked);
        let rank = Rank {
            screen_share: self.info.announced.source == TrackSource::ScreenShare,
            priority: down_track.selector.priority(),
            pixels: down_track.selector.pixels(&published, asked.spatial),
            speaker: 0,
        };
        let lowest = steps.first().map(|step| step.target.spatial);
        let base = steps.iter().take_while(|step| Some(step.target.spatial) == lowest).count();
        Some((Want { key: self.key, rank, steps, base }, asked))
    }

    /// All that may be sent up to what was asked for.
    fn steps(&self, now: Instant, asked: Target) -> Vec<Step> {
        let alive = self.activity.alive();
        let mut steps: Vec<Step> = Vec::new();
        let mut add = |target: Target, bitrate: u64| {
            // Measured rates need not rise from layer to layer, what is spent does.
            let bitrate = steps.last().map_or(bitrate, |below| bitrate.max(below.bitrate));
            steps.push(Step { target, bitrate });
        };
        for spatial in 0..=asked.spatial {
            // What is off because we said so comes when it is wanted; what is on and does not come is not to be had.
            let waiting = alive.count() == 0 || !self.dynacast.is_on(spatial) || self.dynacast.is_rising(now);
            if !alive.contains(spatial) && !waiting {
                continue;
            }
            // The lowest layer in fewer frames, for those who could not have it otherwise.
            if spatial == 0 && self.rates.top_temporal(spatial) > 0 && asked.temporal > 0 {
                add(Target { spatial, temporal: 0 }, self.bitrate(Target { spatial, temporal: 0 }));
            }
            let target = Target { spatial, temporal: asked.temporal };
            add(target, self.bitrate(target));
        }
        steps
    }

    fn bitrate(&self, target: Target) -> u64 {
        // A scalable stream needs all layers below, too.
        let first = if self.info.scalable { 0 } else { target.spatial };
        (first..=target.spatial).map(|spatial| self.layer_bitrate(Target { spatial, ..target })).sum()
    }

    fn layer_bitrate(&self, target: Target) -> u64 {
        let layer = self.info.layers.get(usize::from(target.spatial));
        let announced = |layer: &LayerInfo| match u64::from(layer.bitrate) {
            0 => u64::from(layer.width) * u64::from(layer.height) * BITS_PER_PIXEL,
            bitrate => bitrate,
        };
        let measured = self.rates.rate(target.spatial, target.temporal);
        measured.or_else(|| layer.map(announced)).filter(|bitrate| *bitrate > 0).unwrap_or(UNKNOWN_BITRATE)
    }

    /// The layer that a subscriber needs to be sent, now or as soon as its network carries it.
    fn wish(&self, down_track: &DownTrack) -> Option<u8> {
        let asked = down_track.selector.asked(&self.published(), self.activity.alive())?;
        // What is paused goes on with the lowest; what has yet to be allocated may begin with anything.
        let without_cap = if down_track.told_paused() == Some(true) { 0 } else { asked.spatial };
        let layer = down_track.selector.cap().map_or(without_cap, |cap| cap.spatial.min(asked.spatial));
        if usize::from(layer) + 1 >= self.info.layers.len() { dynacast::EVERYTHING } else { Some(layer) }
    }

    fn stream_state(&self, paused: bool) -> StreamState {
        StreamState { participant: self.publisher_sid.clone(), track: self.info.sid.clone(), paused }
    }

    /// Everything is the highest quality, whatever the publisher calls its top layer.
    fn quality_wanted(&self, wish: Option<u8>) -> EventKind {
        let quality = |layer: u8| self.info.layers.get(usize::from(layer)).map_or(Quality::High, |layer| layer.quality);
        EventKind::QualityWanted { track: self.info.sid.clone(), codec: self.info.codec, highest: wish.map(quality) }
    }
}
