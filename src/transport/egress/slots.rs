//! A place for each sender, found by index: nothing is searched per packet. Places are used again, ids are not.

use crate::transport::SenderId;

#[derive(Debug)]
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    next_serial: u32,
}

/// The serial of a free place: four billion senders are not made.
const NOBODY: u32 = u32::MAX;

#[derive(Debug)]
struct Slot<T> {
    /// Of the sender that has the place.
    serial: u32,
    value: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { slots: Vec::new(), free: Vec::new(), next_serial: 0 }
    }
}

impl<T> Slots<T> {
    /// A place, with nothing in it yet.
    pub fn add(&mut self) -> SenderId {
        let serial = self.next_serial;
        self.next_serial += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Slot { serial, value: None };
                slot
            }
            None => {
                self.slots.push(Slot { serial, value: None });
                self.slots.len() as u32 - 1
            }
        };
        SenderId { serial, slot }
    }

    /// Gives the place up. Once per id.
    pub fn remove(&mut self, id: SenderId) -> Option<T> {
        let value = self.slot(id)?.value.take();
        self.slots[id.slot as usize].serial = NOBODY;
        self.free.push(id.slot);
        value
    }

    pub fn set(&mut self, id: SenderId, value: T) {
        if let Some(slot) = self.slot(id) {
            slot.value = Some(value);
        }
    }

    pub fn take(&mut self, id: SenderId) -> Option<T> {
        self.slot(id)?.value.take()
    }

    pub fn get_mut(&mut self, id: SenderId) -> Option<&mut T> {
        self.slot(id)?.value.as_mut()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.value.as_mut())
    }

    pub fn iter_with_ids(&self) -> impl Iterator<Item = (SenderId, &T)> {
        (0..)
            .zip(&self.slots)
            .filter_map(|(slot, entry)| Some((SenderId { serial: entry.serial, slot }, entry.value.as_ref()?)))
    }

    fn slot(&mut self, id: SenderId) -> Option<&mut Slot<T>> {
        self.slots.get_mut(id.slot as usize).filter(|slot| slot.serial == id.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_ids_are_not() {
        let mut slots = Slots::default();
        let (first, second) = (slots.add(), slots.add());
        assert_eq!(slots.get_mut(first), None);
        slots.set(first, 1);
        slots.set(second, 2);
        assert_eq!(slots.remove(first), Some(1));
        assert_eq!(slots.remove(first), None);
        let third = slots.add();
        assert!(third.slot == first.slot && third != first && third > second);
        slots.set(third, 3);
        slots.set(first, 9);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.get_mut(third), Some(&mut 3));
        assert_eq!(slots.iter_mut().map(|v| *v).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(slots.iter_with_ids().collect::<Vec<_>>(), [(third, &3), (second, &2)]);
        assert_eq!(slots.add().slot, 2, "a place is given to one only");
    }
}
