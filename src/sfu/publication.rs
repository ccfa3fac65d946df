//! What a participant sends: announcing tracks, finding them in its offers, and telling the others.

use super::event::{Description, EventKind};
use super::info::{MediaKind, NewTrack, ParticipantId, Sid, TrackInfo};
use super::participant::Connection;
use super::room::Room;
use super::track::{MatchStrength, Track};
use super::{AddTrackError, Negotiation, Now, Side, TrackKey, Turn};
use crate::transport::{OpusOptions, ReceivePreference, RemoteTrack, SenderId, Transport};

/// Announced and published tracks of one participant; LiveKit's cap on pending ones.
const MAX_TRACKS: usize = 20;

impl Room {
    pub fn add_track(
        &mut self,
        now: Now,
        id: ParticipantId,
        new: NewTrack,
        turn: &mut Turn,
    ) -> Result<TrackInfo, AddTrackError> {
        let participant = self.participants.get_mut(&id).ok_or(AddTrackError::NotAllowed)?;
        if !participant.permissions.may_publish(new.source) {
            return Err(AddTrackError::NotAllowed);
        }
        if participant.published.len() >= MAX_TRACKS {
            return Err(AddTrackError::LimitExceeded);
        }
        let same = |key: &TrackKey| self.tracks.get(key).is_some_and(|t| t.info.announced.cid == new.cid);
        if participant.published.iter().any(same) {
            return Err(AddTrackError::AlreadyPublished);
        }
        self.last_track += 1;
        let key = TrackKey(self.last_track);
        let sid = turn.ids.track(new.kind, new.source);
        let track = Track::new(key, sid, id, participant.sid.clone(), new);
        let info = track.info.clone();
        participant.published.push(key);
        self.tracks.insert(key, track);
        // The offer may have come first: clients send both at the same time.
        self.match_tracks(now, id, turn);
        Ok(info)
    }

    /// False when the offer cannot be used.
    pub fn accept_offer(&mut self, now: Now, id: ParticipantId, offer_id: u32, sdp: &str, turn: &mut Turn) -> bool {
        let Some(participant) = self.participants.get_mut(&id) else { return true };
        let link = participant.link(self.id, Side::Publisher);
        if participant.publisher.is_none() {
            let new = turn.ids.connection(now);
            let transport = match participant.negotiation {
                Negotiation::Single => Transport::answerer(&turn.settings, sdp, new),
                Negotiation::Dual => Ok(Transport::upstream(&turn.settings, new)),
            };
            let Ok(transport) = transport else { return false };
            participant.publisher = Some(Connection::new(transport, link, turn));
        }
        let connection = participant.publisher.as_mut().expect("just made");
        let fresh = turn.ids.ice();
        if connection.transport.accept_offer(sdp, fresh).is_err() {
            return false;
        }
        connection.refresh_ufrag(turn);
        self.drop_unsent_tracks(now, id, turn);
        self.match_tracks(now, id, turn);
        self.send_answer(now, id, offer_id, turn);
        true
    }

    fn send_answer(&mut self, now: Now, id: ParticipantId, offer_id: u32, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let single = participant.negotiation == Negotiation::Single;
        if single {
            self.ensure_senders(id);
        }
        let Some(connection) = self.participants.get_mut(&id).and_then(|p| p.publisher.as_mut()) else { return };
        let (sdp, sending) = connection.transport.answer();
        connection.touch(turn);
        let mid_to_track = self.mids_of(id, sending);
        turn.emit(id, EventKind::Answer(Description { id: offer_id, sdp, mid_to_track }));
        if single {
            self.described(now, id, turn);
        }
    }

    pub fn mids_of(&self, id: ParticipantId, sending: Vec<(String, SenderId)>) -> Vec<(String, Sid)> {
        let Some(participant) = self.participants.get(&id) else { return Vec::new() };
        let track_of = |sender: SenderId| {
            let (key, _) = participant.subscribed.iter().find(|(_, s)| **s == Some(sender))?;
            Some(self.tracks.get(key)?.info.sid.clone())
        };
        sending.into_iter().filter_map(|(mid, sender)| Some((mid, track_of(sender)?))).collect()
    }

    /// Tracks whose section the client stopped.
    fn drop_unsent_tracks(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let Some(connection) = &participant.publisher else { return };
        let sent: Vec<usize> = connection.transport.remote_tracks().iter().map(|t| t.section).collect();
        let gone: Vec<TrackKey> =
            participant.sections.iter().filter(|(section, _)| !sent.contains(section)).map(|(_, key)| *key).collect();
        if gone.is_empty() {
            return;
        }
        participant.sections.retain(|_, key| !gone.contains(key));
        participant.published.retain(|key| !gone.contains(key));
        for key in gone {
            self.remove_track(now, key, turn);
        }
        self.changed(id, turn);
    }

    /// Pairs what the client sends with what it announced.
    fn match_tracks(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let Some(connection) = &participant.publisher else { return };
        let mut unmatched: Vec<RemoteTrack> = connection.transport.remote_tracks();
        unmatched.retain(|remote| !participant.sections.contains_key(&remote.section));
        let mut bound = Vec::new();
        // Every named pair first: a track matched by its kind alone must not take another's section.
        for strength in [MatchStrength::Named, MatchStrength::Kind] {
            unmatched.retain(|remote| {
                let fits = |key: &&TrackKey| self.tracks.get(key).and_then(|t| t.matches(remote)) == Some(strength);
                let Some(key) = participant.published.iter().find(fits).copied() else { return true };
                let Some(track) = self.tracks.get_mut(&key) else { return true };
                if track.bind(remote) {
                    participant.sections.insert(remote.section, key);
                    bound.push((remote.section, key));
                }
                false
            });
        }
        if bound.is_empty() {
            return;
        }
        if let Some(connection) = &mut participant.publisher {
            for (section, key) in &bound {
                connection.transport.prefer(*section, self.tracks[key].preference());
            }
        }
        self.changed(id, turn);
        for (_, key) in bound {
            self.subscribe_everyone(now, key, turn);
            self.update_dynacast(now, key, turn);
        }
    }

    /// Its owner mutes or unmutes a track. False: it has no such track.
    pub fn set_muted(&mut self, now: Now, id: ParticipantId, sid: &Sid, muted: bool, turn: &mut Turn) -> bool {
        let Some(key) = self.track_of(id, sid) else { return false };
        if muted || !self.insist(id, key, turn) {
            self.mute(now, id, key, muted, turn);
            self.tracks.entry(key).and_modify(|track| track.unaware = false);
        }
        true
    }

    /// The participant's track, announced or published.
    pub fn track_of(&self, id: ParticipantId, sid: &Sid) -> Option<TrackKey> {
        let owned = |key: &&TrackKey| self.tracks.get(key).is_some_and(|t| t.info.sid == *sid);
        self.participants.get(&id)?.published.iter().find(owned).copied()
    }

    pub fn mute(&mut self, now: Now, id: ParticipantId, key: TrackKey, muted: bool, turn: &mut Turn) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        let kind = track.info.announced.kind;
        if track.info.muted == muted {
            return;
        }
        track.info.muted = muted;
        track.info.announced.muted = muted;
        if track.is_published() {
            self.changed(id, turn);
        }
        self.retarget(now, key, turn);
        self.schedule_allocations(now, key, turn);
        if muted {
            self.loudest.remove(key);
        }
        if muted && kind == MediaKind::Audio {
            self.silence(id, turn);
        }
    }

    /// Takes a track away from everybody. The publisher's own lists are the caller's.
    pub fn remove_track(&mut self, now: Now, key: TrackKey, turn: &mut Turn) {
        let Some(track) = self.tracks.remove(&key) else { return };
        self.loudest.remove(key);
        let subscribers: Vec<ParticipantId> = track.down_tracks.iter().map(|d| d.subscriber).collect();
        for subscriber in subscribers {
            self.stop_sending(now, key, subscriber, turn);
        }
    }
}

impl Track {
    /// What the publisher's next answer should ask of it.
    fn preference(&self) -> ReceivePreference {
        let announced = &self.info.announced;
        ReceivePreference {
            codec: self.info.codec,
            opus: OpusOptions { dtx: !announced.disable_dtx, stereo: announced.stereo },
        }
    }
}
