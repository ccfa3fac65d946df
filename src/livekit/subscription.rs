//! Which of the others' tracks this participant receives, and how: `subscription`, `track_setting`.

use livekit_protocol as proto;

use super::session::Session;
use super::signalling::Turn;
use super::{Dropped, Rooms, translate};
use crate::sfu::Sid;

/// Tracks named in one request. A room with 500 members who all publish camera and microphone has this many.
const TRACKS_PER_REQUEST_MAX: usize = 1000;

impl Session {
    /// Both lists mean the same; clients use one or the other. Doing it twice changes nothing.
    pub(super) fn subscription<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, request: proto::UpdateSubscription) {
        if request.subscribe && !self.permissions.can_subscribe {
            return turn.count(Dropped::NotPermitted);
        }
        let by_participant = request.participant_tracks.iter().flat_map(|participant| &participant.track_sids);
        let tracks = sids(turn, request.track_sids.iter().chain(by_participant));
        if !tracks.is_empty() {
            turn.rooms.subscribe(turn.now, self.id, &tracks, request.subscribe);
        }
    }

    pub(super) fn track_setting<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, request: proto::UpdateTrackSettings) {
        let tracks = sids(turn, request.track_sids.iter());
        if !tracks.is_empty() {
            turn.rooms.track_settings(turn.now, self.id, &tracks, translate::track_settings(&request));
        }
    }
}

fn sids<'s, R>(turn: &mut Turn<'_, R>, mut texts: impl Iterator<Item = &'s String>) -> Vec<Sid> {
    let tracks = texts.by_ref().take(TRACKS_PER_REQUEST_MAX).map(|text| translate::sid(text)).collect();
    if texts.next().is_some() {
        turn.count(Dropped::Oversized);
    }
    tracks
}
