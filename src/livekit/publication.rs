//! The tracks a participant publishes, as far as signalling knows them before the rooms announce them: `add_track`, `mute`.

use livekit_protocol as proto;
use proto::request_response::{Reason, Request};
use proto::signal_response::Message;

use super::session::Session;
use super::signalling::Turn;
use super::{Rooms, translate};
use crate::sfu::{AddTrackError, NewTrack, Sid, TrackInfo};

/// Requests waiting behind a track with the same cid: LiveKit's limit.
const QUEUED_PER_CID_MAX: usize = 3;

/// Requests waiting in all: as many as there may be pending tracks.
const QUEUED_MAX: usize = 20;

#[derive(Default)]
pub(super) struct Publications {
    /// Answered with `track_published`; no offer has carried them yet.
    pending: Vec<Sid>,
    /// Each waits for the track with its cid to be unpublished. In the order they came.
    queued: Vec<NewTrack>,
}

impl Publications {
    pub(super) fn is_pending(&self, sid: &str) -> bool {
        self.pending.iter().any(|pending| pending.as_str() == sid)
    }

    /// What the rooms announce is pending no longer.
    pub(super) fn announced(&mut self, tracks: &[TrackInfo]) {
        self.pending.retain(|pending| tracks.iter().all(|track| track.sid != *pending));
    }

    fn is_queued(&self, cid: &str) -> bool {
        self.queued.iter().any(|queued| queued.cid == cid)
    }

    fn queue(&mut self, track: NewTrack) -> Reason {
        let same_cid = self.queued.iter().filter(|queued| queued.cid == track.cid).count();
        if same_cid >= QUEUED_PER_CID_MAX || self.queued.len() >= QUEUED_MAX {
            return Reason::LimitExceeded;
        }
        self.queued.push(track);
        Reason::Queued
    }
}

impl Session {
    pub(super) fn add_track<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, request: proto::AddTrackRequest) {
        // A further codec for a published track: we never ask for one, and with encrypted frames it is not allowed.
        if !request.sid.is_empty() {
            return self.refuse_track(turn, Reason::UnsupportedType, request);
        }
        let track = match translate::new_track(&request) {
            Ok(track) => track,
            Err(reason) => return self.refuse_track(turn, reason, request),
        };
        let outcome = if self.publications.is_queued(&track.cid) {
            Err(AddTrackError::AlreadyPublished)
        } else {
            self.publish(turn, track.clone())
        };
        match outcome {
            Ok(()) => {}
            Err(AddTrackError::AlreadyPublished) => {
                let reason = self.publications.queue(track);
                self.refuse_track(turn, reason, request);
            }
            Err(AddTrackError::NotAllowed) => self.refuse_track(turn, Reason::NotAllowed, request),
            Err(AddTrackError::LimitExceeded) => self.refuse_track(turn, Reason::LimitExceeded, request),
        }
    }

    /// Tries again what waited for its cid to become free.
    pub(super) fn publish_queued<R: Rooms>(&mut self, turn: &mut Turn<'_, R>) {
        for track in std::mem::take(&mut self.publications.queued) {
            let reason = match self.publish(turn, track.clone()) {
                Ok(()) => continue,
                Err(AddTrackError::AlreadyPublished) => {
                    self.publications.queued.push(track);
                    continue;
                }
                Err(AddTrackError::NotAllowed) => Reason::NotAllowed,
                Err(AddTrackError::LimitExceeded) => Reason::LimitExceeded,
            };
            self.refuse_track(turn, reason, proto::AddTrackRequest { cid: track.cid, ..Default::default() });
        }
    }

    fn publish<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, track: NewTrack) -> Result<(), AddTrackError> {
        if !self.permissions.may_publish(track.source) {
            return Err(AddTrackError::NotAllowed);
        }
        let cid = track.cid.clone();
        let track = turn.rooms.add_track(turn.now, self.id, track)?;
        let published = proto::TrackPublishedResponse { cid, track: Some(translate::track(&track)) };
        self.publications.pending.push(track.sid);
        self.send(turn, Message::TrackPublished(published));
        Ok(())
    }

    fn refuse_track<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, reason: Reason, request: proto::AddTrackRequest) {
        let text = match reason {
            Reason::NotAllowed => "the token does not allow publishing this source",
            Reason::Queued => "a track with this cid is being published; this one waits for its end",
            Reason::LimitExceeded => "too many tracks, or a field is too large",
            Reason::UnsupportedType => "this kind of track is not supported",
            _ => "the track cannot be published",
        };
        self.respond(turn, 0, reason, text, Some(Request::AddTrack(request)));
    }

    /// Not echoed: the change comes back to everyone, the sender included, in `update`.
    pub(super) fn mute<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, request: proto::MuteTrackRequest) {
        if !turn.rooms.set_muted(turn.now, self.id, &translate::sid(&request.sid), request.muted) {
            self.respond(turn, 0, Reason::NotFound, "no such track", Some(Request::Mute(request)));
        }
    }
}
