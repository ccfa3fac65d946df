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

    pub fn get(&self, slot: Slot) -> Option<&DownTrack> {
        self.list.get(self.place(slot)?)
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::sfu::forwarder::Selection;
    use crate::sfu::{ParticipantId, Side};

    const EVERYTHING: Selection = Selection { stream: 2, spatial: 2, temporal: 3 };

    fn slot(index: u32) -> Slot {
        Slot::new(index)
    }

    fn some(count: u32) -> DownTracks {
        let mut down_tracks = DownTracks::default();
        for index in 0..count {
            let mut down_track = DownTrack::new(ParticipantId(index.into()), slot(index), Side::Publisher, false);
            down_track.bind(Some(index), 0, 0);
            down_track.open(Instant::now());
            down_tracks.push(down_track);
        }
        down_tracks
    }

    fn flowing(down_tracks: &DownTracks) -> Vec<u64> {
        let mut ids: Vec<u64> = down_tracks.flowing().iter().map(|d| d.subscriber.0).collect();
        ids.sort();
        ids
    }

    fn turn(down_tracks: &mut DownTracks, index: u32, on: bool) {
        down_tracks.update(slot(index), |d| d.aim(on.then_some(EVERYTHING), 0)).expect("there");
    }

    /// Each is found, and stands on the right side.
    fn check(down_tracks: &mut DownTracks) {
        let slots: Vec<Slot> = down_tracks.iter().map(|d| d.slot).collect();
        for slot in slots {
            assert_eq!(down_tracks.get_mut(slot).expect("known").slot, slot);
        }
        assert!(down_tracks.flowing().iter().all(DownTrack::flows));
        assert_eq!(down_tracks.iter().filter(|d| d.flows()).count(), down_tracks.flowing().len());
    }

    #[test]
    fn those_who_flow_stand_in_front() {
        let mut down_tracks = some(6);
        assert!(flowing(&down_tracks).is_empty());
        for (index, on) in [(3, true), (5, true), (0, true), (3, false), (3, true), (5, true)] {
            turn(&mut down_tracks, index, on);
            check(&mut down_tracks);
        }
        assert_eq!(flowing(&down_tracks), [0, 3, 5]);
        down_tracks.update_all(|d| d.aim((d.subscriber.0 % 2 == 0).then_some(EVERYTHING), 0));
        check(&mut down_tracks);
        assert_eq!(flowing(&down_tracks), [0, 2, 4]);
        down_tracks.update_all(|d| d.aim(None, 0));
        assert!(flowing(&down_tracks).is_empty());
    }

    #[test]
    fn one_that_goes_leaves_the_others_where_they_can_be_found() {
        let mut down_tracks = some(5);
        [0, 1, 2].into_iter().for_each(|index| turn(&mut down_tracks, index, true));
        for (gone, left) in [(1, vec![0, 2]), (4, vec![0, 2]), (0, vec![2]), (2, vec![])] {
            down_tracks.remove(slot(gone));
            down_tracks.remove(slot(gone));
            check(&mut down_tracks);
            assert!(down_tracks.get_mut(slot(gone)).is_none());
            assert_eq!(flowing(&down_tracks), left);
        }
        assert_eq!(down_tracks.iter().map(|d| d.subscriber.0).collect::<Vec<_>>(), [3]);
    }
}
