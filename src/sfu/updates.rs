//! Updates: what the participants of a room are told about one another.
//!
//! Everybody hears of everybody, so a room that fills costs the square of its size. In a large one, newcomers are therefore
//! told of in groups until they publish something.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::EventKind;
use super::info::ParticipantId;
use super::room::Room;
use super::timers::{Alarm, Timer};
use super::{Now, Turn};

/// Up to this size everybody is told of at once.
const SMALL_ROOM: usize = 20;
/// For so long newcomers to a larger one are gathered: nobody notices, and fifty who come in a second are ten messages to
/// everyone instead of a hundred.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Updates {
    /// Newcomers whom the others have yet to be told of.
    newcomers: BTreeSet<ParticipantId>,
    alarm: Alarm,
}

impl Room {
    /// Something about a participant changed: everybody hears, itself included.
    pub fn changed(&mut self, id: ParticipantId, turn: &mut Turn) {
        self.tell_itself(id, turn);
        self.tell_others(id, turn);
    }

    /// Tells a participant how the others see it now.
    pub fn tell_itself(&mut self, id: ParticipantId, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        participant.version += 1;
        if let Some(info) = self.participant_info(id) {
            turn.emit(id, EventKind::ParticipantsChanged(Arc::new([info])));
        }
    }

    /// Tells the others at once: of somebody who publishes, or goes.
    pub fn tell_others(&mut self, id: ParticipantId, turn: &mut Turn) {
        self.updates.newcomers.remove(&id);
        let Some(info) = self.participant_info(id) else { return };
        if info.permissions.hidden {
            return;
        }
        let infos = Arc::new([info]);
        for other in self.participants.keys().filter(|other| **other != id) {
            turn.emit(*other, EventKind::ParticipantsChanged(infos.clone()));
        }
    }

    /// Tells the others of somebody who comes.
    pub fn introduce(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) {
        let publishes = self.participants.get(&id).is_some_and(|p| !p.published.is_empty());
        if publishes || self.participants.len() <= SMALL_ROOM {
            return self.tell_others(id, turn);
        }
        self.updates.newcomers.insert(id);
        self.updates.alarm.set(now.instant + INTERVAL, Timer::Updates(self.id), &mut turn.timers);
    }

    pub fn updates_due(&mut self, at: Instant, turn: &mut Turn) {
        if !self.updates.alarm.ring(at) {
            return;
        }
        let newcomers = std::mem::take(&mut self.updates.newcomers);
        let infos = newcomers.into_iter().filter_map(|id| self.participant_info(id));
        let infos: Arc<[_]> = infos.filter(|info| !info.permissions.hidden).collect();
        if infos.is_empty() {
            return;
        }
        for id in self.participants.keys() {
            turn.emit(*id, EventKind::ParticipantsChanged(infos.clone()));
        }
    }
}
