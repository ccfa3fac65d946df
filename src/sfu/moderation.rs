//! What others than its participants may do in a room: see who is there, remove and mute. Called by `net` for the room's
//! moderators, its membership in Matrix, and the operator.
//!
//! A track that a moderator muted stays so until its owner unmutes it. Not every `unmute` is the owner's: LiveKit's JS client
//! compares each snapshot of its own tracks with what it does, and takes back what differs, which right after the mute may
//! be the mute. So none counts before the client said itself that the track is muted, as it does when it has carried that out:
//! before, its owner sees nothing to unmute.

use super::event::EventKind;
use super::info::{LeaveReason, ParticipantId, ParticipantInfo, RoomInfo, Sid, TrackInfo};
use super::room::Room;
use super::{Now, RoomId, Sfu, TrackKey, Turn};

impl Sfu {
    /// In the order they were made.
    pub fn rooms(&self) -> Vec<RoomInfo> {
        let mut ids: Vec<RoomId> = self.rooms.keys().copied().collect();
        ids.sort();
        ids.iter().map(|id| self.rooms[id].info()).collect()
    }

    /// Everyone in a room, hidden ones included; `None`: there is no such room.
    pub fn participants(&self, room: &str) -> Option<Vec<ParticipantInfo>> {
        let room = self.rooms.get(self.names.get(room)?)?;
        Some(room.participant_ids().into_iter().filter_map(|id| room.participant_info(id)).collect())
    }

    /// Ends somebody's session; with `sid`, only that session of the identity. False: there is none.
    pub fn remove(&mut self, now: Now, room: &str, identity: &str, sid: Option<&Sid>, reason: LeaveReason) -> bool {
        let room = self.names.get(room).and_then(|id| self.rooms.get(id));
        let Some((room, id)) = room.and_then(|room| Some((room, room.by_identity(identity)?))) else { return false };
        let same = |sid: &Sid| room.participants.get(&id).is_some_and(|participant| participant.sid == *sid);
        if !sid.is_none_or(same) {
            return false;
        }
        self.leave(now, id, reason);
        true
    }

    /// Mutes somebody's track: nothing of it goes on from here. Gives what it is now; `None`: there is no such track.
    pub fn mute(&mut self, now: Now, room: &str, identity: &str, track: &Sid) -> Option<TrackInfo> {
        let room = self.rooms.get_mut(self.names.get(room)?)?;
        let id = room.by_identity(identity)?;
        let key = room.track_of(id, track)?;
        room.mute_other(now, id, key, &mut self.turn);
        Some(room.tracks.get(&key)?.info.clone())
    }
}

impl Room {
    fn mute_other(&mut self, now: Now, id: ParticipantId, key: TrackKey, turn: &mut Turn) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        // A client whose own mute it is does nothing. One that had merely paused what it sends stays muted when it goes on.
        turn.emit(id, EventKind::Muted(track.info.sid.clone()));
        track.unaware |= !track.info.muted;
        self.mute(now, id, key, true, turn);
    }

    /// Tells the publisher again that a moderator muted its track, when it does not seem to know. False: it knows, or nobody
    /// did.
    pub fn insist(&self, id: ParticipantId, key: TrackKey, turn: &mut Turn) -> bool {
        let Some(track) = self.tracks.get(&key).filter(|track| track.unaware) else { return false };
        turn.emit(id, EventKind::Muted(track.info.sid.clone()));
        true
    }

    /// What the publisher may have missed while its signalling was gone.
    pub fn repeat_mutes(&self, id: ParticipantId, turn: &mut Turn) {
        let published = self.participants.get(&id).map(|participant| &participant.published[..]).unwrap_or_default();
        for key in published {
            self.insist(id, *key, turn);
        }
    }
}
