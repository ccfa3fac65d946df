//! The way of a packet through a room: from the publisher's connection to every subscriber's, and the requests for
//! keyframes that go the other way.

use std::time::Instant;

use super::active_speaker::SpeakerLevel;
use super::event::EventKind;
use super::forwarder::{Incoming, PictureId, Vp8};
use super::info::{Codec, MediaKind, ParticipantId, Speaker};
use super::layer_selector::MAX_LAYERS;
use super::room::Room;
use super::timers::Timer;
use super::track::{Track, published};
use super::{Link, Now, TrackKey, Turn};
use crate::rtp::{h264, vp8};
use crate::transport::{Datagram, Event, MediaPacket, Output, SenderId};

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
                Output::Event(Event::Media(packet)) => self.forward(now, id, packet, turn),
                Output::Event(Event::KeyframeWanted(sender)) => self.keyframe_wanted(now, id, sender, turn),
                // The packet cache that could answer it does not exist yet.
                Output::Event(Event::Missing(_)) => {}
                Output::Event(Event::Connected) => self.became_active(now, id, link.side, turn),
                Output::Event(Event::Closed) => self.connection_closed(id, turn),
                Output::Event(Event::Data { channel, message }) => {
                    turn.emit(id, EventKind::DataReceived { channel, message })
                }
            }
        }
    }

    fn forward(&mut self, now: Now, publisher: ParticipantId, packet: MediaPacket, turn: &mut Turn) {
        let Some(key) = self.participants.get(&publisher).and_then(|p| p.sections.get(&packet.section)).copied() else {
            return;
        };
        let Some(track) = self.tracks.get_mut(&key) else { return };
        let incoming = describe(&packet);
        if packet.codec.kind() == MediaKind::Audio {
            if let Some(audio) = packet.extensions.audio_level.filter(|_| !track.info.muted) {
                self.speakers.observe(now.instant, publisher, audio.level);
                if let Some(at) = self.speakers.next_timeout() {
                    self.speakers_alarm.set(at, Timer::Speakers(self.id), &mut turn.timers);
                }
            }
        } else {
            track.activity.observe(packet.layer, now.instant);
            if incoming.keyframe_start
                && let Some(throttle) = track.throttles.get_mut(usize::from(packet.layer))
            {
                throttle.keyframe_seen(now.instant);
                track.broken[usize::from(packet.layer)] = false;
            }
        }
        let alive = track.activity.alive();
        let mut wanted = [false; MAX_LAYERS];
        let published = published(&track.info, &track.frame_rates);
        for down_track in &mut track.down_tracks {
            if packet.restarted {
                down_track.reset_layer(packet.layer);
            }
            // Muted: what still comes is left out without a gap.
            let target = if track.info.muted { None } else { down_track.target(&published, alive) };
            let outgoing = down_track.forward(target, &incoming, &packet);
            if let Some(layer) = down_track.wants_keyframe(target) {
                wanted[usize::from(layer)] = true;
            }
            let (Some(outgoing), Some(sender)) = (outgoing, down_track.sender) else { continue };
            let Some(subscriber) = self.participants.get_mut(&down_track.subscriber) else { continue };
            let link = Link { room: self.id, participant: down_track.subscriber, side: subscriber.downstream_side() };
            let Some(connection) = subscriber.downstream_connection() else { continue };
            match connection.transport.send(now.instant, sender, &outgoing, &mut turn.outbox) {
                Some(at) if at <= now.instant => connection.touch(link, turn),
                Some(at) => connection.alarm.set(at, Timer::Connection(link), &mut turn.timers),
                None => {}
            }
            turn.counts.packets_forwarded += 1;
        }
        if packet.codec.kind() == MediaKind::Video && wanted.contains(&true) {
            self.request_keyframes(now, key, wanted, turn);
        }
    }

    // --- keyframes ----------------------------------------------------------------------------------------------

    /// A subscriber's decoder lost its picture.
    fn keyframe_wanted(&mut self, now: Now, subscriber: ParticipantId, sender: SenderId, turn: &mut Turn) {
        let Some(participant) = self.participants.get(&subscriber) else { return };
        let Some(key) = participant.subscribed.iter().find(|(_, s)| **s == Some(sender)).map(|(key, _)| *key) else {
            return;
        };
        // Audio has no keyframes to give: a request for one would be repeated for ever.
        let video = |track: &&mut Track| track.info.announced.kind == MediaKind::Video;
        let Some(track) = self.tracks.get_mut(&key).filter(video) else { return };
        // While a switch is under way its own request is out already.
        let Some(layer) = track.down_track(subscriber).and_then(|d| d.current_layer()) else { return };
        track.broken[usize::from(layer)] = true;
        let mut wanted = [false; MAX_LAYERS];
        wanted[usize::from(layer)] = true;
        self.request_keyframes(now, key, wanted, turn);
    }

    /// Asks for a keyframe of every layer that a subscriber waits for: after a subscription, a change of layer, an unmute.
    pub fn refresh_pictures(&mut self, now: Now, key: TrackKey, turn: &mut Turn) {
        let Some(track) = self.tracks.get(&key) else { return };
        if track.info.announced.kind == MediaKind::Video {
            let wanted = track.wanted_layers();
            self.request_keyframes(now, key, wanted, turn);
        }
    }

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
        let waiting = track.wanted_layers();
        for (layer, throttle) in (0u8..).zip(&mut track.throttles) {
            let broken = track.broken[usize::from(layer)];
            let watched = || track.down_tracks.iter().any(|d| d.current_layer() == Some(layer));
            let wanted = waiting[usize::from(layer)] || (broken && watched());
            if !wanted {
                throttle.cancel();
                track.broken[usize::from(layer)] = false;
            }
        }
        self.send_keyframe_requests(now, key, turn);
    }

    fn send_keyframe_requests(&mut self, now: Now, key: TrackKey, turn: &mut Turn) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        let Some(section) = track.section else { return };
        let Some(publisher) = self.participants.get_mut(&track.publisher) else { return };
        let Some(connection) = publisher.publisher.as_mut() else { return };
        let link = Link { room: self.id, participant: track.publisher, side: super::Side::Publisher };
        for (layer, throttle) in (0u8..).zip(&mut track.throttles) {
            if throttle.poll(now.instant) {
                connection.transport.request_keyframe(section, layer);
                connection.touch(link, turn);
                turn.counts.keyframes_requested += 1;
            }
        }
        if let Some(at) = track.throttles.iter().filter_map(|t| t.next_timeout()).min() {
            track.alarm.set(at, Timer::Track(self.id, key), &mut turn.timers);
        }
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
fn describe(packet: &MediaPacket) -> Incoming<'_> {
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
