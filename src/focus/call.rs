//! Which call is meant, and what a leg tells of itself.

use serde::{Deserialize, Serialize};

use super::envelope::{Envelope, Version};

/// One of our ends of a call. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LegId(pub(super) u64);

/// Over what a call's events travel, and within what its id is unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Room events; the room's id.
    Room(String),
    /// To-device messages; the `conf_id`.
    Conference(String),
}

/// A call as its opponent names it. In a conference, devices of one user are opponents of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallKey {
    pub scope: Scope,
    /// The opponent's Matrix id.
    pub user: String,
    /// Only in a conference.
    pub device: Option<String>,
    pub call_id: String,
}

impl CallKey {
    pub(super) fn of(scope: &Scope, user: &str, envelope: &Envelope) -> CallKey {
        CallKey {
            scope: scope.clone(),
            user: user.to_owned(),
            device: envelope.device.as_ref().map(|device| device.device_id.clone()),
            call_id: envelope.call_id.clone(),
        }
    }

    /// The same call under our own name: what our user's events in it are found by. Only in a room; to-device messages of
    /// ours do not come back.
    pub(super) fn of_ours(&self, user_id: &str) -> Option<CallKey> {
        let is_room = matches!(self.scope, Scope::Room(_));
        is_room.then(|| CallKey { user: user_id.to_owned(), ..self.clone() })
    }
}

/// What has to be known to hang up a call of a process that is no more. The party id must be that process's: so it has to
/// outlive restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCall {
    pub room: String,
    pub user: String,
    pub call_id: String,
    pub version: Version,
}
