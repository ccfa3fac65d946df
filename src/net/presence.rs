//! Who is in which room, as it changes: for those who hold the calls against the Matrix rooms they belong to.
//!
//! Each worker reports its own participants ([`Attendance`]); the reader is one task of `serve`. For a participant, which is
//! its `sid`, the order is `Joined`, then maybe `Connected`, then `Left`, and every `Joined` has exactly one `Left`: also
//! when the worker panics and when the server stops. A resumed session is the same participant and reports nothing. One that
//! takes over an identity has another `sid`; whether the old one is reported to have left before or after is open.

use std::collections::HashMap;

use tokio::sync::mpsc;

use crate::livekit::RoomMember;
use crate::sfu::{EventKind, LeaveReason, ParticipantId, Sid, Verdict};

/// What became of a participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The LiveKit room's name, which is an alias of a Matrix room's slot, or whatever an app chose.
    pub room: String,
    pub identity: String,
    pub sid: Sid,
    /// Whose session it is in Matrix, by the token it joined with; `None`: the token is an app's.
    pub member: Option<RoomMember>,
    pub change: PresenceChange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceChange {
    /// Signalling is up: it is in the room.
    Joined,
    /// Media flows, for the first time.
    Connected,
    Left(LeaveReason),
}

/// The participants of one worker, as far as they were reported.
pub(super) struct Attendance {
    /// Grows by joins only, and those are limited; the reader does not wait for anything.
    reports: mpsc::UnboundedSender<Presence>,
    present: HashMap<ParticipantId, Attendee>,
}

pub(super) struct Attendee {
    pub room: String,
    pub identity: String,
    pub sid: Sid,
    pub member: Option<RoomMember>,
}

impl Attendance {
    pub fn new(reports: mpsc::UnboundedSender<Presence>) -> Attendance {
        Attendance { reports, present: HashMap::new() }
    }

    pub fn joined(&mut self, id: ParticipantId, attendee: Attendee) {
        self.report(&attendee, PresenceChange::Joined);
        self.present.insert(id, attendee);
    }

    /// Takes out of an event what it says about who is there.
    pub fn note(&mut self, id: ParticipantId, event: &EventKind) {
        match event {
            EventKind::Verdict(Verdict::Connected { .. }) => {
                if let Some(attendee) = self.present.get(&id) {
                    self.report(attendee, PresenceChange::Connected);
                }
            }
            EventKind::Left(reason) => {
                if let Some(attendee) = self.present.remove(&id) {
                    self.report(&attendee, PresenceChange::Left(*reason));
                }
            }
            _ => {}
        }
    }

    /// Everybody is gone without another word.
    pub fn all_left(&mut self, reason: LeaveReason) {
        for (_, attendee) in std::mem::take(&mut self.present) {
            self.report(&attendee, PresenceChange::Left(reason));
        }
    }

    fn report(&self, attendee: &Attendee, change: PresenceChange) {
        let Attendee { room, identity, sid, member } = attendee;
        let (room, identity, sid, member) = (room.clone(), identity.clone(), sid.clone(), member.clone());
        // Nobody reads any more when the server has stopped.
        let _ = self.reports.send(Presence { room, identity, sid, member, change });
    }
}

/// Whatever ends a worker, its participants are reported to have left: after a panic they were before, so that here the
/// server stops.
impl Drop for Attendance {
    fn drop(&mut self) {
        self.all_left(LeaveReason::ServerShutdown);
    }
}
