//! The way of a packet into a room: from the publisher's connection to the track, whence [`fan_out`](super::fan_out) takes it
//! to the subscribers; what comes back from them; and who speaks.

use std::time::Instant;

use super::active_speaker::{ActiveSpeaker, SpeakerLevel};
use super::dominant_speaker::DominantSpeaker;
use super::event::EventKind;
use super::info::{Codec, MediaKind, ParticipantId, Speaker, TrackSource};
use super::pacer::Paced;
use super::packet_cache::PacketCache;
use super::room::Room;
use super::timers::Timer;
use super::{Link, Now, TrackKey, Turn};
use crate::transport::{Datagram, Event, MediaPacket, Missing, Output};

impl Room {
    pub fn receive(&mut self, now: Now, link: Link, datagram: Datagram<'_>, turn: &mut Turn) {
        let Some(connection) = self.participants.connection(link) else { return };
        connection.heard((datagram.protocol, datagram.source), datagram.bytes.len());
        connection.transport.handle_datagram(now.instant, datagram);
        self.drain(now, link, turn);
    }

    pub fn connection_due(&mut self, at: Instant, link: Link, turn: &mut Turn) {
        let Some(connection) = self.participants.connection(link) else { return };
        if connection.alarm.ring(at) {
            turn.counts.wakeups += 1;
            connection.touch(turn);
        }
    }

    /// Carries out everything a connection wants to do now.
    pub fn drain(&mut self, now: Now, link: Link, turn: &mut Turn) {
        let id = link.participant;
        if let Some(connection) = self.participants.connection(link)
            && std::mem::take(&mut connection.dirty)
        {
            connection.transport.handle_timeout(now.instant, &mut turn.outbox);
        }
        loop {
            let Some(connection) = self.participants.connection(link) else { return };
            match connection.transport.poll() {
                Output::Timeout(at) => {
                    connection.alarm.set(at, Timer::Connection(link), &mut turn.timers);
                    return self.watch_estimate(now, link, turn);
                }
                Output::Transmit(route, packet) => {
                    if !connection.may_send((route.protocol, route.destination), packet.len()) {
                        continue;
                    }
                    connection.learn_address((route.protocol, route.destination), turn);
                    turn.outbox.push(route, &packet);
                }
                Output::Event(Event::Media(packet)) => self.arrive(now, id, packet, turn),
                Output::Event(Event::KeyframeWanted(sender)) => self.keyframe_wanted(now, id, sender, turn),
                Output::Event(Event::Missing(missing)) => self.resend(now, id, &missing, turn),
                Output::Event(Event::Connected) => self.connected(now, link, turn),
                Output::Event(Event::Closed) => self.connection_closed(id, turn),
                Output::Event(Event::Data { channel, message }) => {
                    turn.emit(id, EventKind::DataReceived { channel, message })
                }
            }
        }
    }

    /// A packet arrived: what it tells of its track, and its place in the track's cache, from where it is forwarded.
    fn arrive(&mut self, now: Now, publisher: ParticipantId, packet: MediaPacket, turn: &mut Turn) {
        let Some(key) = self.participants.get(&publisher).and_then(|p| p.sections.get(&packet.section)).copied() else {
            return;
        };
        let Some(track) = self.tracks.get_mut(&key) else { return };
        // Receivers were told one codec; a publisher that changes it has to say so.
        let plain = packet.codec == Codec::Opus && track.info.codec == Some(Codec::Red);
        if track.info.codec != Some(packet.codec) && !plain {
            return;
        }
        let stream = packet.layer;
        if usize::from(stream) >= track.caches.len() {
            return;
        }
        let description = track.reader.read(&packet);
        let layer = if track.info.scalable { description.frame.spatial } else { stream };
        if packet.codec.kind() == MediaKind::Audio {
            if let Some(audio) = packet.extensions.audio_level.filter(|_| !track.info.muted) {
                self.speakers.observe(now.instant, publisher, audio.level);
                self.floor.observe(now.instant, publisher, audio.level);
                if let Some(at) = next_timeout(&self.speakers, &self.floor) {
                    self.speakers_alarm.set(at, Timer::Speakers(self.id), &mut turn.timers);
                }
                let microphone = track.info.announced.source != TrackSource::ScreenShareAudio;
                let silenced = microphone && !self.loudest.admits(now.instant, key, audio.level);
                if std::mem::replace(&mut track.silenced, silenced) != silenced {
                    track.retarget();
                }
            }
        } else {
            track.stale |= track.activity.observe(layer, now.instant);
            if description.frame_start {
                track.stale |= track.frame_rates.observe(layer, description.frame.temporal, now.instant);
            }
            if description.keyframe_start {
                track.throttles[usize::from(stream)].keyframe_seen(now.instant);
                track.broken[usize::from(stream)] = false;
            }
        }
        track.arrivals[usize::from(stream)].observe(&packet);
        track.rates.observe(now.instant, layer, description.frame.temporal, packet.payload.len());
        if let Some(sequence) = track.caches[usize::from(stream)].insert(packet, description) {
            self.enqueue(key, stream, sequence, turn);
        }
    }

    /// A track was muted or unmuted, on which every subscription of it depends.
    pub fn retarget(&mut self, now: Now, key: TrackKey, turn: &mut Turn) {
        if let Some(track) = self.tracks.get_mut(&key) {
            track.retarget();
            // A muted camera may stay so for hours, and what it sent meanwhile is not for showing later.
            track.caches.iter_mut().for_each(PacketCache::clear);
            self.refresh_pictures(now, key, turn);
        }
    }

    /// Packets that waited so as not to leave in a burst.
    pub fn pacer_due(&mut self, now: Now, at: Instant, link: Link, turn: &mut Turn) {
        let Some(connection) = self.participants.connection(link) else { return };
        if !connection.pacer.alarm.ring(at) {
            return;
        }
        for _ in 0..connection.pacer.helping(connection.transport.estimate()) {
            let Some(Paced { track, sender, origin, out }) = connection.pacer.pop() else { break };
            let cached = self.tracks.get(&track).and_then(|t| t.cached(origin));
            if let Some(packet) = cached {
                connection.send(now, sender, &out, &packet.media, turn);
            }
        }
        if let Some(next) = connection.pacer.next_timeout(now.instant) {
            connection.pacer.alarm.set(next, Timer::Pacer(link), &mut turn.timers);
        }
    }

    /// The receiver of a stream lost a packet.
    fn resend(&mut self, now: Now, subscriber: ParticipantId, missing: &Missing, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&subscriber) else { return };
        let Some(key) = participant.senders.get(&missing.sender) else { return };
        let Some(track) = self.tracks.get(key) else { return };
        // What came before a change of layer is of no use after it, and mostly was lost because it was too much.
        let current = track.down_tracks.get(participant.slot).and_then(|d| d.current_stream());
        let cached = track.cached(missing.origin).filter(|_| current.is_none_or(|c| c == missing.origin.layer));
        let (Some(packet), Some(connection)) = (cached, participant.downstream_connection()) else {
            turn.counts.packets_expired += 1;
            return;
        };
        connection.transport.resend(
            now.instant,
            missing,
            &packet.media.payload,
            &packet.media.extensions,
            &mut turn.outbox,
        );
        turn.counts.packets_resent += 1;
    }

    // --- speakers -----------------------------------------------------------------------------------------------

    pub fn speakers_due(&mut self, now: Now, at: Instant, turn: &mut Turn) {
        if !self.speakers_alarm.ring(at) {
            return;
        }
        let changes = self.speakers.poll(now.instant).unwrap_or_default();
        // Who has the floor counts when the allocators run next.
        self.floor.poll(now.instant);
        if let Some(next) = next_timeout(&self.speakers, &self.floor) {
            self.speakers_alarm.set(next, Timer::Speakers(self.id), &mut turn.timers);
        }
        self.tell_speakers(&changes, turn);
    }

    /// Somebody stopped speaking because the microphone was muted.
    pub fn silence(&mut self, id: ParticipantId, turn: &mut Turn) {
        self.floor.mute(id);
        if let Some(change) = self.speakers.remove(id) {
            self.tell_speakers(&[change], turn);
        }
    }

    /// Who speaks already when somebody comes.
    pub fn tell_current_speakers(&self, listener: ParticipantId, turn: &mut Turn) {
        let current = self.speakers.current();
        self.tell_listener(listener, &current, turn);
    }

    fn tell_speakers(&self, changes: &[SpeakerLevel<ParticipantId>], turn: &mut Turn) {
        if !changes.is_empty() {
            self.participants.keys().for_each(|id| self.tell_listener(*id, changes, turn));
        }
    }

    /// A change goes to those who hear the speaker, and to the speaker.
    fn tell_listener(&self, id: ParticipantId, changes: &[SpeakerLevel<ParticipantId>], turn: &mut Turn) {
        let Some(listener) = self.participants.get(&id) else { return };
        let hears = |speaker: ParticipantId| {
            speaker == id
                || listener.subscribed.keys().filter_map(|key| self.tracks.get(key)).any(|t| t.publisher == speaker)
        };
        let heard = changes.iter().filter(|change| hears(change.key)).filter_map(|change| {
            let sid = self.participants.get(&change.key)?.sid.clone();
            Some(Speaker { sid, level: change.level, active: change.active })
        });
        let heard: Vec<Speaker> = heard.collect();
        if !heard.is_empty() {
            turn.emit(id, EventKind::SpeakersChanged(heard));
        }
    }
}

fn next_timeout(speakers: &ActiveSpeaker<ParticipantId>, floor: &DominantSpeaker<ParticipantId>) -> Option<Instant> {
    [speakers.next_timeout(), floor.next_timeout()].into_iter().flatten().min()
}
