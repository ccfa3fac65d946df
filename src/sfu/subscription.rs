//! What a participant receives: who subscribes to what, and the descriptions that say so.
//!
//! Single connection: the client offers, so new streams take its free sections, and we ask for more
//! ([`EventKind::SectionsRequired`]). Dual: we offer them ourselves on the downstream connection.

use std::time::Duration;

use super::down_track::DownTrack;
use super::event::{Description, EventKind};
use super::info::{Codec, Encryption, MediaKind, ParticipantId, Sid};
use super::layer_selector::TrackSettings;
use super::participant::Connection;
use super::room::Room;
use super::{DataChannel, Link, Negotiation, Now, Side, TrackKey, Turn};
use crate::transport::sdp::SessionDescription;
use crate::transport::{Progress, SenderSpec, Transport};

/// Changes that come together go into one description.
const NEGOTIATION_DELAY: Duration = Duration::from_millis(10);
/// When descriptions follow each other, each waits for what else comes: LiveKit's pace in a busy room.
const BUSY_NEGOTIATION_DELAY: Duration = Duration::from_millis(150);

impl Room {
    // --- who hears whom -----------------------------------------------------------------------------------------

    pub fn subscribe_to_all(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) {
        let keys: Vec<TrackKey> = self.tracks.values().filter(|t| t.is_published()).map(|t| t.key).collect();
        for key in keys {
            self.add_down_track(now, key, id, turn);
        }
    }

    pub fn subscribe_everyone(&mut self, now: Now, key: TrackKey, turn: &mut Turn) {
        for id in self.participant_ids() {
            if self.participants.get(&id).is_some_and(|p| p.auto_subscribe) {
                self.add_down_track(now, key, id, turn);
            }
        }
    }

    pub fn set_subscriptions(&mut self, now: Now, id: ParticipantId, sids: &[Sid], on: bool, turn: &mut Turn) {
        for key in self.keys_of(sids) {
            if on {
                self.add_down_track(now, key, id, turn);
            } else {
                self.drop_down_track(key, id);
                self.stop_sending(now, key, id, turn);
                self.update_dynacast(now, key, turn);
                self.schedule_allocation(now, id, turn);
            }
        }
    }

    fn keys_of(&self, sids: &[Sid]) -> Vec<TrackKey> {
        sids.iter().filter_map(|sid| self.tracks.values().find(|t| t.info.sid == *sid)).map(|t| t.key).collect()
    }

    fn add_down_track(&mut self, now: Now, key: TrackKey, id: ParticipantId, turn: &mut Turn) {
        let (Some(track), Some(participant)) = (self.tracks.get_mut(&key), self.participants.get_mut(&id)) else {
            return;
        };
        let allowed = participant.permissions.can_subscribe && track.publisher != id && track.is_published();
        if !allowed || participant.subscribed.contains_key(&key) {
            return;
        }
        let side = participant.downstream_side();
        let mut down_track = DownTrack::new(id, participant.slot, side, participant.adaptive_stream);
        if track.info.announced.kind == MediaKind::Video {
            // Until it has been allocated, which it is as soon as it could flow.
            down_track.selector.set_cap(None);
        }
        track.down_tracks.push(down_track);
        participant.subscribed.insert(key, None);
        self.schedule_negotiation(now, id, turn);
        self.update_dynacast(now, key, turn);
    }

    /// Takes the subscription off the track. The stream on the subscriber's side is [`Self::stop_sending`]'s.
    pub fn drop_down_track(&mut self, key: TrackKey, id: ParticipantId) {
        if let (Some(track), Some(participant)) = (self.tracks.get_mut(&key), self.participants.get(&id)) {
            track.down_tracks.remove(participant.slot);
        }
    }

    pub fn stop_sending(&mut self, now: Now, key: TrackKey, id: ParticipantId, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let Some(sender) = participant.subscribed.remove(&key) else { return };
        if let Some(sender) = sender {
            participant.senders.remove(&sender);
            if let Some(connection) = participant.downstream_connection() {
                connection.transport.remove_sender(sender);
                connection.pacer.retain(|packet| packet.sender != sender);
            }
        }
        self.schedule_negotiation(now, id, turn);
    }

    pub fn set_track_settings(
        &mut self,
        now: Now,
        id: ParticipantId,
        sids: &[Sid],
        settings: TrackSettings,
        turn: &mut Turn,
    ) {
        let Some(slot) = self.participants.get(&id).map(|p| p.slot) else { return };
        for key in self.keys_of(sids) {
            let Some(track) = self.tracks.get_mut(&key) else { continue };
            if track.change_down_track(slot, |d| d.selector.set(settings)).is_some() {
                self.refresh_pictures(now, key, turn);
                self.update_dynacast(now, key, turn);
                self.schedule_allocation(now, id, turn);
            }
        }
    }

    // --- describing it ------------------------------------------------------------------------------------------

    /// Gives every subscription a stream on the connection we send on, if that exists yet.
    pub fn ensure_senders(&mut self, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let missing: Vec<TrackKey> =
            participant.subscribed.iter().filter(|(_, s)| s.is_none()).map(|(key, _)| *key).collect();
        for key in missing {
            let Some(track) = self.tracks.get_mut(&key) else { continue };
            let Some(codec) = track.info.codec else { continue };
            let Some(connection) = participant.downstream_connection() else { return };
            let readable = track.info.announced.encryption == Encryption::None;
            let sender = connection.transport.add_sender(SenderSpec {
                codec,
                // Cutting redundancy off would cut through an encrypted frame.
                fallback: (codec == Codec::Red && readable).then_some(Codec::Opus),
                // The packed form by which LiveKit clients find the participant and the track.
                stream_id: format!("{}|{}", track.publisher_sid, track.info.sid),
                track_id: track.info.sid.to_string(),
            });
            participant.subscribed.insert(key, Some(sender));
            participant.senders.insert(sender, key);
            if let Some(down_track) = track.down_tracks.get_mut(participant.slot) {
                down_track.sender = Some(sender);
            }
        }
    }

    pub fn schedule_negotiation(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) {
        let room = self.id;
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if participant.downstream.due.is_some() {
            return;
        }
        let due = match participant.downstream.described_at {
            Some(last) => (last + BUSY_NEGOTIATION_DELAY).max(now.instant + NEGOTIATION_DELAY),
            None => now.instant + NEGOTIATION_DELAY,
        };
        participant.downstream.due = Some(due);
        participant.wake_at(due, room, turn);
    }

    /// Its time has come: ask for an offer, or make one.
    pub fn negotiate(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) {
        self.ensure_senders(id);
        let Some(participant) = self.participants.get_mut(&id) else { return };
        match participant.negotiation {
            Negotiation::Single => self.require_sections(id, turn),
            Negotiation::Dual => self.send_offer(now, id, turn),
        }
    }

    fn require_sections(&mut self, id: ParticipantId, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        // Without a first offer there is nothing to add to: everything waits for it.
        let Some(connection) = &participant.publisher else { return };
        if !connection.transport.needs_description() {
            return;
        }
        let missing = connection.transport.missing_sections();
        let asked = participant.downstream.requested;
        let more = match asked {
            Some((audio, video)) => (missing.0.saturating_sub(audio), missing.1.saturating_sub(video)),
            None => missing,
        };
        // The offer we asked for is on its way and will have room for everything.
        if asked.is_some() && more == (0, 0) {
            return;
        }
        participant.downstream.requested = Some(asked.map_or(more, |a| (a.0 + more.0, a.1 + more.1)));
        turn.emit(id, EventKind::SectionsRequired { audio: more.0, video: more.1 });
    }

    /// Opens the connection we send on, with the data channels, and describes it even when there is no track yet: the
    /// client is connected only when it is.
    pub fn open_subscriber(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let link = participant.link(self.id, Side::Subscriber);
        let transport = Transport::offerer(&turn.settings, turn.ids.connection(now));
        participant.subscriber = Some(Connection::new(transport, link, turn));
        participant.downstream.forced = true;
        self.schedule_negotiation(now, id, turn);
    }

    /// Offers the connection we send on with new ICE credentials: the client may have changed its network.
    pub fn restart_subscriber(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let Some(connection) = &mut participant.subscriber else { return };
        connection.transport.restart_ice(turn.ids.ice());
        connection.refresh_ufrag(turn);
        // Whatever offer was out was lost with the old socket.
        participant.downstream.offered_at = None;
        participant.downstream.forced = true;
        self.schedule_negotiation(now, id, turn);
    }

    fn send_offer(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) {
        let room = self.id;
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let Some(connection) = &mut participant.subscriber else { return };
        if participant.downstream.offered_at.is_some() {
            participant.downstream.stale = true;
            return;
        }
        let forced = std::mem::take(&mut participant.downstream.forced);
        if !forced && !connection.transport.needs_description() {
            return;
        }
        let (sdp, sending) = connection.transport.create_offer();
        connection.touch(turn);
        participant.downstream.offer_id += 1;
        participant.downstream.offered_at = Some(now.instant);
        participant.downstream.described_at = Some(now.instant);
        participant.wake_at(now.instant + super::room::ANSWER_TIMEOUT, room, turn);
        let offer_id = participant.downstream.offer_id;
        let mid_to_track = self.mids_of(id, sending);
        turn.emit(id, EventKind::Offer(Description { id: offer_id, sdp, mid_to_track }));
    }

    /// False when the answer cannot be used.
    pub fn accept_answer(&mut self, now: Now, id: ParticipantId, offer_id: u32, sdp: &str, turn: &mut Turn) -> bool {
        let Some(participant) = self.participants.get_mut(&id) else { return true };
        // 0 comes from clients that do not number their answers.
        let current = offer_id == 0 || offer_id == participant.downstream.offer_id;
        if !current || participant.downstream.offered_at.is_none() {
            return true;
        }
        let Ok(answer) = SessionDescription::parse(sdp) else { return false };
        let Some(connection) = &mut participant.subscriber else { return true };
        if connection.transport.accept_answer(&answer).is_err() {
            return false;
        }
        participant.downstream.offered_at = None;
        let stale = std::mem::take(&mut participant.downstream.stale);
        self.described(now, id, turn);
        if stale {
            self.schedule_negotiation(now, id, turn);
        }
        true
    }

    /// Both sides agree on a description: what it bound can flow, what it refused is given up.
    pub fn described(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        participant.downstream.requested = None;
        participant.downstream.described_at = Some(now.instant);
        let side = participant.downstream_side();
        let senders: Vec<_> =
            participant.subscribed.iter().filter_map(|(key, sender)| Some((*key, (*sender)?))).collect();
        let Some(connection) = participant.connection(side) else { return };
        let refused: Vec<TrackKey> =
            senders.iter().filter(|(_, s)| connection.transport.is_refused(*s)).map(|(key, _)| *key).collect();
        let streams: Vec<(TrackKey, Option<u32>, Option<Codec>)> = senders
            .iter()
            .map(|(key, sender)| {
                (*key, connection.transport.stream_of(*sender), connection.transport.codec_of(*sender))
            })
            .collect();
        let more_to_say = connection.transport.needs_description();
        connection.touch(turn);
        for key in refused {
            self.drop_down_track(key, id);
            self.stop_sending(now, key, id, turn);
            self.update_dynacast(now, key, turn);
            if let Some(track) = self.tracks.get(&key) {
                turn.emit(id, EventKind::SubscriptionFailed(track.info.sid.clone()));
            }
        }
        for (key, stream, codec) in streams {
            self.start_forwarding(now, key, id, (stream, codec), turn);
        }
        self.schedule_allocation(now, id, turn);
        if more_to_say {
            self.schedule_negotiation(now, id, turn);
        }
    }

    fn start_forwarding(
        &mut self,
        now: Now,
        key: TrackKey,
        id: ParticipantId,
        (stream, codec): (Option<u32>, Option<Codec>),
        turn: &mut Turn,
    ) {
        let (Some(track), Some(participant)) = (self.tracks.get_mut(&key), self.participants.get_mut(&id)) else {
            return;
        };
        let (slot, numbers) = (participant.slot, (turn.ids.first_sequence(), turn.ids.first_timestamp()));
        let Some(connection) = participant.downstream_connection() else { return };
        let up = connection.transport.progress() == Progress::Connected;
        let unwraps = track.info.codec == Some(Codec::Red) && codec != Some(Codec::Red);
        let bound = track.change_down_track(slot, |down_track| {
            down_track.unwraps = unwraps;
            let bound = down_track.bind(stream, numbers.0, numbers.1);
            if up {
                down_track.open(now.instant);
            }
            // Numbers of the stream before would be strange to the new one.
            connection.pacer.retain(|packet| !bound || Some(packet.sender) != down_track.sender);
            bound
        });
        if bound != Some(true) {
            return;
        }
        if !std::mem::replace(&mut track.told_subscribed, true) {
            turn.emit(track.publisher, EventKind::TrackSubscribed(track.info.sid.clone()));
        }
        self.refresh_pictures(now, key, turn);
    }

    /// A connection is up: what waited for it begins.
    pub fn connected(&mut self, now: Now, link: Link, turn: &mut Turn) {
        let id = link.participant;
        self.became_active(now, id, link.side, turn);
        let Some(participant) = self.participants.get_mut(&id).filter(|p| p.downstream_side() == link.side) else {
            return;
        };
        participant.allocator.begin();
        let slot = participant.slot;
        let keys: Vec<TrackKey> = participant.subscribed.keys().copied().collect();
        for key in keys {
            let Some(track) = self.tracks.get_mut(&key) else { continue };
            track.change_down_track(slot, |down_track| down_track.open(now.instant));
            self.refresh_pictures(now, key, turn);
        }
        self.schedule_allocation(now, id, turn);
    }

    pub fn send_data(&mut self, to: ParticipantId, channel: DataChannel, message: &[u8], turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&to) else { return };
        let Some(connection) = participant.downstream_connection() else { return };
        connection.transport.send_data(channel, message);
        connection.touch(turn);
    }
}
