//! What the LiveKit front door asks of the rooms: exactly the commands of [`crate::sfu`] that signalling uses.
//!
//! A trait, so that the whole of signalling runs against a model of a room in its tests, without media or SDP.

use std::collections::BTreeMap;

use crate::sfu::{
    AddTrackError, DataChannel, JoinError, JoinOptions, LeaveReason, NewTrack, Now, ParticipantId, ParticipantInfo,
    RoomInfo, Sfu, Sid, TrackInfo, TrackSettings,
};

/// The rooms of one worker. Results come back at once, consequences as [`Event`](crate::sfu::Event)s.
pub trait Rooms {
    /// A session with the same identity is replaced: it hears `Left(DuplicateIdentity)`.
    fn join(&mut self, now: Now, room: &str, options: JoinOptions) -> Result<ParticipantId, JoinError>;
    fn info(&self, id: ParticipantId) -> Option<ParticipantInfo>;
    fn room_of(&self, id: ParticipantId) -> Option<RoomInfo>;
    /// Everyone else in the room, hidden ones left out.
    fn others(&self, id: ParticipantId) -> Vec<ParticipantInfo>;
    /// Everyone in the room, `id` and hidden ones included: (key, sid, identity).
    fn ids_in_room_of(&self, id: ParticipantId) -> Vec<(ParticipantId, Sid, String)>;

    fn offer(&mut self, now: Now, id: ParticipantId, offer_id: u32, sdp: &str);
    fn answer(&mut self, now: Now, id: ParticipantId, offer_id: u32, sdp: &str);
    fn add_track(&mut self, now: Now, id: ParticipantId, track: NewTrack) -> Result<TrackInfo, AddTrackError>;
    /// False = no such published or pending track.
    fn set_muted(&mut self, now: Now, id: ParticipantId, track: &Sid, muted: bool) -> bool;
    fn subscribe(&mut self, now: Now, id: ParticipantId, tracks: &[Sid], on: bool);
    fn track_settings(&mut self, now: Now, id: ParticipantId, tracks: &[Sid], settings: TrackSettings);
    /// An attribute with an empty value is deleted.
    fn update_metadata(
        &mut self,
        id: ParticipantId,
        name: Option<String>,
        metadata: Option<String>,
        attributes: BTreeMap<String, String>,
    );
    fn send_data(&mut self, to: ParticipantId, channel: DataChannel, message: &[u8]);
    fn leave(&mut self, now: Now, id: ParticipantId, reason: LeaveReason);
    fn signal_lost(&mut self, now: Now, id: ParticipantId);
    fn signal_resumed(&mut self, now: Now, id: ParticipantId);
}

impl Rooms for Sfu {
    fn join(&mut self, now: Now, room: &str, options: JoinOptions) -> Result<ParticipantId, JoinError> {
        self.join(now, room, options)
    }
    fn info(&self, id: ParticipantId) -> Option<ParticipantInfo> {
        self.info(id)
    }
    fn room_of(&self, id: ParticipantId) -> Option<RoomInfo> {
        self.room_of(id)
    }
    fn others(&self, id: ParticipantId) -> Vec<ParticipantInfo> {
        self.others(id)
    }
    fn ids_in_room_of(&self, id: ParticipantId) -> Vec<(ParticipantId, Sid, String)> {
        self.ids_in_room_of(id)
    }
    fn offer(&mut self, now: Now, id: ParticipantId, offer_id: u32, sdp: &str) {
        self.offer(now, id, offer_id, sdp);
    }
    fn answer(&mut self, now: Now, id: ParticipantId, offer_id: u32, sdp: &str) {
        self.answer(now, id, offer_id, sdp);
    }
    fn add_track(&mut self, now: Now, id: ParticipantId, track: NewTrack) -> Result<TrackInfo, AddTrackError> {
        self.add_track(now, id, track)
    }
    fn set_muted(&mut self, now: Now, id: ParticipantId, track: &Sid, muted: bool) -> bool {
        self.set_muted(now, id, track, muted)
    }
    fn subscribe(&mut self, now: Now, id: ParticipantId, tracks: &[Sid], on: bool) {
        self.subscribe(now, id, tracks, on);
    }
    fn track_settings(&mut self, now: Now, id: ParticipantId, tracks: &[Sid], settings: TrackSettings) {
        self.track_settings(now, id, tracks, settings);
    }
    fn update_metadata(
        &mut self,
        id: ParticipantId,
        name: Option<String>,
        metadata: Option<String>,
        attributes: BTreeMap<String, String>,
    ) {
        self.update_metadata(id, name, metadata, attributes);
    }
    fn send_data(&mut self, to: ParticipantId, channel: DataChannel, message: &[u8]) {
        self.send_data(to, channel, message);
    }
    fn leave(&mut self, now: Now, id: ParticipantId, reason: LeaveReason) {
        self.leave(now, id, reason);
    }
    fn signal_lost(&mut self, now: Now, id: ParticipantId) {
        self.signal_lost(now, id);
    }
    fn signal_resumed(&mut self, now: Now, id: ParticipantId) {
        self.signal_resumed(now, id);
    }
}
