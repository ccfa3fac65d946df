//! The way of a packet into a room: from the publisher's connection to the track, whence [`fan_out`](super::fan_out) takes it
//! to the subscribers; what comes back from them; and who speaks.

use std::time::Instant;

use super::active_speaker::SpeakerLevel;
use super::event::EventKind;
use super::forwarder::{Incoming, PictureId, Vp8};
use super::info::{Codec, MediaKind, ParticipantId, Speaker};
use super::pacer::Paced;
use super::packet_cache::PacketCache;
use super::room::Room;
use super::timers::Timer;
use super::{Link, Now, TrackKey, Turn};
use crate::rtp::{h264, vp8};
use crate::transport::{Datagram, Event, MediaPacket, Missing, Output};

impl Room {
    pub fn receive(&mut self, now: Now, link: Link, datagram: Datagram<'_>, turn: &mut Turn) {
        let Some(connection) = self.participants.get_mut(&link.participant).and_then(|p| p.connection(link.side))
        else {
            return;
        };
        connection.transport.handle_datagram(now.instant, datagram);
        self.drain(now, link, turn);
    }

    pub fn connection_due(&mut self, at: Instant, link: Link, turn: &mut Turn) {
        let Some(connection) = self.participants.get_mut(&link.participant).and_then(|p| p.connection(link.side))
        else {
            return;
        };
        if connection.alarm.ring(at) {
            turn.counts.wakeups += 1;
            connection.touch(link, turn);
        }
    }

    /// Carries out everything a connection wants to do now.
    pub fn drain(&mut self, now: Now, link: Link, turn: &mut Turn) {
        let id = link.participant;
        if let Some(connection) = self.participants.get_mut(&id).and_then(|p| p.connection(link.side))
            && std::mem::take(&mut connection.dirty)
        {
            connection.transport.handle_timeout(now.instant, &mut turn.outbox);
        }
        loop {
            let Some(connection) = self.participants.get_mut(&id).and_then(|p| p.connection(link.side)) else { return };
            match connection.transport.poll() {
                Output::Timeout(at) => {
                    connection.alarm.set(at, Timer::Connection(link), &mut turn.timers);
                    return;
                }
                Output::Transmit(route, packet) => {
                    connection.learn_address((route.protocol, route.destination), link, turn);
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
        let layer = packet.layer;
        let Some(cache) = track.caches.get_mut(usize::from(layer)) else { return };
        let keyframe_start = describe(&packet).keyframe_start;
        if packet.codec.kind() == MediaKind::Audio {
            if let Some(audio) = packet.extensions.audio_level.filter(|_| !track.info.muted) {
                self.speakers.observe(now.instant, publisher, audio.level);
                if let Some(at) = self.speakers.next_timeout() {
                    self.speakers_alarm.set(at, Timer::Speakers(self.id), &mut turn.timers);
                }
            }
        } else if keyframe_start {
            track.throttles[usize::from(layer)].keyframe_seen(now.instant);
            track.broken[usize::from(layer)] = false;
        }
        let video = packet.codec.kind() == MediaKind::Video;
        let Some(sequence) = cache.insert(packet, keyframe_start).map(|kept| kept.sequence) else { return };
        if video && track.activity.observe(layer, now.instant) {
            track.stale = true;
        }
        self.enqueue(key, layer, sequence, turn);
    }

    /// Something changed on which every subscription of the track depends.
    pub fn retarget(&mut self, now: Now, key: TrackKey, turn: &mut Turn) {
        if let Some(track) = self.tracks.get_mut(&key) {
            if track.info.muted {
                // A muted camera may stay so for hours.
                track.caches.iter_mut().for_each(PacketCache::clear);
            }
            track.retarget();
            self.refresh_pictures(now, key, turn);
        }
    }

    /// Packets that waited so as not to leave in a burst.
    pub fn pacer_due(&mut self, now: Now, at: Instant, link: Link, turn: &mut Turn) {
        let Some(connection) = self.participants.get_mut(&link.participant).and_then(|p| p.connection(link.side))
        else {
            return;
        };
        if !connection.pacer.alarm.ring(at) {
            return;
        }
        for _ in 0..connection.pacer.helping(connection.transport.estimate()) {
            let Some(Paced { track, sender, origin, out }) = connection.pacer.pop() else { break };
            let cached = self.tracks.get(&track).and_then(|t| t.cached(origin));
            if let Some(packet) = cached {
                connection.send(now, link, sender, &out, packet, turn);
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
        let cached = self.tracks.get(key).and_then(|track| track.cached(missing.origin));
        let (Some(packet), Some(connection)) = (cached, participant.downstream_connection()) else {
            turn.counts.packets_expired += 1;
            return;
        };
        connection.transport.resend(now.instant, missing, &packet.payload, &packet.extensions, &mut turn.outbox);
        turn.counts.packets_resent += 1;
    }

    // --- speakers -----------------------------------------------------------------------------------------------

    pub fn speakers_due(&mut self, now: Now, at: Instant, turn: &mut Turn) {
        if !self.speakers_alarm.ring(at) {
            return;
        }
        let changes = self.speakers.poll(now.instant).unwrap_or_default();
        if let Some(next) = self.speakers.next_timeout() {
            self.speakers_alarm.set(next, Timer::Speakers(self.id), &mut turn.timers);
        }
        self.tell_speakers(&changes, turn);
    }

    /// Somebody stopped speaking because the microphone was muted.
    pub fn silence(&mut self, id: ParticipantId, turn: &mut Turn) {
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

/// What the forwarder needs to know of a packet. Nothing past the codec's payload descriptor is looked at, but for the
/// frame type bit that stays clear under end-to-end encryption.
pub(super) fn describe(packet: &MediaPacket) -> Incoming<'_> {
    let (keyframe_start, vp8) = match packet.codec {
        Codec::Opus => (true, None),
        Codec::H264 => (h264::starts_key_frame(&packet.payload), None),
        Codec::Vp8 => match vp8::Descriptor::parse(&packet.payload) {
            Some(descriptor) => (
                descriptor.starts_key_frame(&packet.payload),
                Some(Vp8 {
                    picture_id: descriptor.picture_id.map(|id| PictureId { value: id.value, wide: id.wide }),
                    tl0picidx: descriptor.tl0_picture_index,
                    keyidx: descriptor.key_index,
                }),
            ),
            None => (false, None),
        },
    };
    Incoming {
        layer: packet.layer,
        sequence: packet.sequence,
        timestamp: packet.timestamp,
        marker: packet.marker,
        arrival: packet.arrival,
        payload: &packet.payload,
        keyframe_start,
        clock_rate: packet.clock_rate,
        sender_time: packet.sender_time,
        vp8,
    }
}
