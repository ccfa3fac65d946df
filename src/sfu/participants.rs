//! Everyone in a room: found by id where commands come in, by slot on a packet's way.
//!
//! A participant keeps its slot while it is here; the slot of one who left is used again. Walking goes by id, so that what a
//! room tells follows the order of joining whatever slots were free.

use std::collections::BTreeMap;

use super::Link;
use super::info::ParticipantId;
use super::participant::{Connection, Participant};

/// Where a participant is kept. Whoever remembers one forgets it before the participant leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Slot(u32);

impl Slot {
    #[cfg(test)]
    pub fn new(index: u32) -> Slot {
        Slot(index)
    }

    pub fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Default)]
pub(super) struct Participants {
    /// Boxed: a participant holds whole connections, and the list grows.
    slots: Vec<Option<Box<Participant>>>,
    free: Vec<Slot>,
    by_id: BTreeMap<ParticipantId, Slot>,
}

impl Participants {
    pub fn insert(&mut self, mut participant: Participant) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot(self.slots.len() as u32 - 1)
        });
        participant.slot = slot;
        self.by_id.insert(participant.id, slot);
        self.slots[slot.index()] = Some(Box::new(participant));
    }

    pub fn remove(&mut self, id: &ParticipantId) -> Option<Box<Participant>> {
        let slot = self.by_id.remove(id)?;
        self.free.push(slot);
        self.slots[slot.index()].take()
    }

    pub fn get(&self, id: &ParticipantId) -> Option<&Participant> {
        self.slots[self.by_id.get(id)?.index()].as_deref()
    }

    pub fn get_mut(&mut self, id: &ParticipantId) -> Option<&mut Participant> {
        self.slots[self.by_id.get(id)?.index()].as_deref_mut()
    }

    pub fn at(&mut self, slot: Slot) -> Option<&mut Participant> {
        self.slots.get_mut(slot.index())?.as_deref_mut()
    }

    /// The participant a link leads to, if it is still here.
    pub fn linked(&mut self, link: Link) -> Option<&mut Participant> {
        self.at(link.slot).filter(|p| p.id == link.participant)
    }

    /// The same for its connection.
    pub fn connection(&mut self, link: Link) -> Option<&mut Connection> {
        self.linked(link)?.connection(link.side)
    }

    /// In the order of joining.
    pub fn keys(&self) -> impl Iterator<Item = &ParticipantId> {
        self.by_id.keys()
    }

    /// In the order of joining.
    pub fn values(&self) -> impl Iterator<Item = &Participant> {
        self.by_id.values().filter_map(|slot| self.slots[slot.index()].as_deref())
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
