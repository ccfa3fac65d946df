//! Everyone a track is forwarded to. Those who get something now stand in front, so that the paused cost a packet nothing; each
//! is found by its subscriber's slot without a search. Owned by [`Track`](super::track::Track).

use super::down_track::DownTrack;
use super::participants::Slot;

#[derive(Default)]
pub(super) struct DownTracks {
    list: Vec<DownTrack>,
    /// So many in front flow.
    flowing: usize,
    /// By slot: the place in the list.
    places: Vec<Option<u32>>,
}

impl DownTracks {
    pub fn push(&mut self, down_track: DownTrack) {
        debug_assert!(!down_track.flows(), "it begins when it is retargeted");
        let slot = down_track.slot.index();
        if self.places.len() <= slot {
            self.places.resize(slot + 1, None);
        }
        self.places[slot] = Some(self.list.len() as u32);
        self.list.push(down_track);
    }

    pub fn remove(&mut self, slot: Slot) {
        let Some(mut place) = self.place(slot) else { return };
        if place < self.flowing {
            self.flowing -= 1;
            self.swap(place, self.flowing);
            place = self.flowing;
        }
        self.swap(place, self.list.len() - 1);
        self.places[slot.index()] = None;
        self.list.pop();
    }

    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut DownTrack> {
        let place = self.place(slot)?;
        Some(&mut self.list[place])
    }

    pub fn iter(&self) -> impl Iterator<Item = &DownTrack> {
        self.list.iter()
    }

    /// Those who get something now.
    pub fn flowing(&self) -> &[DownTrack] {
        &self.list[..self.flowing]
    }

    pub fn flowing_mut(&mut self) -> &mut [DownTrack] {
        &mut self.list[..self.flowing]
    }

    /// Lets `change` set the target of one, and puts it where it belongs then. Gives what `change` gives.
    pub fn update<R>(&mut self, slot: Slot, change: impl FnOnce(&mut DownTrack) -> R) -> Option<R> {
        let place = self.place(slot)?;
        let changed = change(&mut self.list[place]);
        self.sort_in(place);
        Some(changed)
    }

    /// The same for all.
    pub fn update_all(&mut self, mut change: impl FnMut(&mut DownTrack)) {
        self.list.iter_mut().for_each(&mut change);
        self.flowing = 0;
        for place in 0..self.list.len() {
            self.sort_in(place);
        }
    }

    /// Moves one between those who flow and the others, if its target says so.
    fn sort_in(&mut self, place: usize) {
        let flows = self.list[place].flows();
        if flows && place >= self.flowing {
            self.swap(place, self.flowing);
            self.flowing += 1;
        } else if !flows && place < self.flowing {
            self.flowing -= 1;
            self.swap(place, self.flowing);
        }
    }

    fn place(&self, slot: Slot) -> Option<usize> {
        self.places.get(slot.index()).copied().flatten().map(|place| place as usize)
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.list.swap(a, b);
        for place in [a, b] {
            self.places[self.list[place].slot.index()] = Some(place as u32);
        }
    }
}
