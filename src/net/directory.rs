//! Which worker has which room, and how many rooms and participants the node has in all. Shared by [`Node`](super::Node),
//! which asks where to go, and the workers, which tell what became of it. Touched when somebody joins or a room begins or
//! ends, never for a packet.
//!
//! A room lives on one worker from its first mention to its end. A command under way holds a [`Pin`], so that the room it is
//! for cannot end here and begin there meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::sfu::{Limits, WorkerId};

pub(super) struct Directory {
    limits: Limits,
    inner: Mutex<Inner>,
}

struct Inner {
    places: HashMap<String, Place>,
    workers: Vec<Load>,
}

/// Where a room is, or is about to be.
struct Place {
    worker: WorkerId,
    exists: bool,
    /// Commands under way.
    pins: usize,
}

#[derive(Default)]
struct Load {
    participants: usize,
    /// Places, rooms that are about to be made included.
    places: usize,
    rooms: usize,
    /// Takes no new rooms before.
    rests_until: Option<Instant>,
}

/// Keeps a room where it is while a command for it is under way.
pub(super) struct Pin {
    directory: Arc<Directory>,
    room: String,
    pub worker: WorkerId,
}

impl Directory {
    /// `limits` are those of the node.
    pub fn new(workers: usize, limits: Limits) -> Directory {
        let workers = (0..workers).map(|_| Load::default()).collect();
        Directory { limits, inner: Mutex::new(Inner { places: HashMap::new(), workers }) }
    }

    /// Nothing that could panic is done while it is held, so what a poisoned one holds is whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a room is.
    pub fn find(self: &Arc<Self>, room: &str) -> Option<Pin> {
        let worker = self.lock().pin(room)?;
        Some(self.pinned(room, worker))
    }

    /// Where a room is, or else shall be: with the worker that has least to do. `None` while all of them recover.
    pub fn place(self: &Arc<Self>, room: &str, now: Instant) -> Option<Pin> {
        let mut inner = self.lock();
        if let Some(worker) = inner.pin(room) {
            return Some(self.pinned(room, worker));
        }
        // Nobody spoke in a room that nobody is in yet, so rooms count too: those that begin together spread.
        let ready = (0..).map_while(WorkerId::new).zip(&mut inner.workers);
        let ready = ready.filter(|(_, load)| load.rests_until.is_none_or(|until| until <= now));
        let (worker, load) = ready.min_by_key(|(worker, load)| (load.participants + load.places, *worker))?;
        load.places += 1;
        inner.places.insert(room.to_owned(), Place { worker, exists: false, pins: 1 });
        Some(self.pinned(room, worker))
    }

    fn pinned(self: &Arc<Self>, room: &str, worker: WorkerId) -> Pin {
        Pin { directory: self.clone(), room: room.to_owned(), worker }
    }

    /// A worker is about to make a room that it was given. False: the node has as many as it may, or the room is no longer
    /// this worker's, as whoever sent the command did not wait for it.
    pub fn open_room(&self, worker: WorkerId, room: &str) -> bool {
        let mut inner = self.lock();
        let rooms: usize = inner.workers.iter().map(|load| load.rooms).sum();
        let Inner { places, workers } = &mut *inner;
        let place = places.get_mut(room).filter(|place| place.worker == worker && rooms < self.limits.max_rooms);
        let Some(place) = place else { return false };
        if !std::mem::replace(&mut place.exists, true) {
            workers[place.worker.index()].rooms += 1;
        }
        true
    }

    pub fn close_room(&self, worker: WorkerId, room: &str) {
        let mut inner = self.lock();
        let Inner { places, workers } = &mut *inner;
        let Some(place) = places.get_mut(room).filter(|place| place.worker == worker) else { return };
        if std::mem::take(&mut place.exists) {
            workers[place.worker.index()].rooms -= 1;
        }
        inner.forget_unused(room);
    }

    /// A worker is about to let a participant in. False: the node has as many as it may.
    pub fn admit(&self, worker: WorkerId) -> bool {
        let mut inner = self.lock();
        let all: usize = inner.workers.iter().map(|load| load.participants).sum();
        let admitted = all < self.limits.max_participants;
        inner.workers[worker.index()].participants += usize::from(admitted);
        admitted
    }

    /// How many a worker really has.
    pub fn set_participants(&self, worker: WorkerId, count: usize) {
        self.lock().workers[worker.index()].participants = count;
    }

    /// A worker lost everything it had, and takes no new rooms for a while.
    pub fn withdraw(&self, worker: WorkerId, rests_until: Instant) {
        let mut inner = self.lock();
        let Inner { places, workers } = &mut *inner;
        places.retain(|_, place| {
            let lost = place.worker == worker;
            place.exists &= !lost;
            !lost || place.pins > 0
        });
        let left = places.values().filter(|place| place.worker == worker).count();
        workers[worker.index()] = Load { places: left, rests_until: Some(rests_until), ..Load::default() };
    }
}

impl Inner {
    fn pin(&mut self, room: &str) -> Option<WorkerId> {
        let place = self.places.get_mut(room)?;
        place.pins += 1;
        Some(place.worker)
    }

    fn forget_unused(&mut self, room: &str) {
        if let Some(place) = self.places.get(room)
            && !place.exists
            && place.pins == 0
        {
            self.workers[place.worker.index()].places -= 1;
            self.places.remove(room);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut inner = self.directory.lock();
        if let Some(place) = inner.places.get_mut(&self.room) {
            place.pins -= 1;
        }
        inner.forget_unused(&self.room);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn directory(workers: usize, max_rooms: usize, max_participants: usize) -> Arc<Directory> {
        Arc::new(Directory::new(workers, Limits { max_participants, max_rooms }))
    }

    /// Makes a room as a worker does; gives the worker's number.
    fn open(directory: &Arc<Directory>, room: &str) -> Option<usize> {
        let pin = directory.place(room, Instant::now())?;
        directory.open_room(pin.worker, room).then(|| pin.worker.index())
    }

    fn worker(index: usize) -> WorkerId {
        WorkerId::new(index).unwrap()
    }

    #[test]
    fn rooms_go_where_least_is() {
        let directory = directory(3, 100, 100);
        assert_eq!(["a", "b", "c", "d"].map(|room| open(&directory, room)), [0, 1, 2, 0].map(Some));
        assert_eq!(open(&directory, "b"), Some(1), "it is there already");
        directory.set_participants(worker(1), 5);
        assert_eq!(["e", "f", "g"].map(|room| open(&directory, room)), [2, 0, 2].map(Some));
        directory.close_room(worker(0), "a");
        assert_eq!(open(&directory, "h"), Some(0));
    }

    #[test]
    fn a_room_stays_where_it_is_while_a_command_for_it_is_under_way() {
        let directory = directory(2, 100, 100);
        open(&directory, "a");
        let pin = directory.find("a").unwrap();
        directory.close_room(worker(0), "a");
        directory.set_participants(worker(0), 50);
        assert_eq!(directory.place("a", Instant::now()).unwrap().worker, worker(0));
        drop(pin);
        assert!(directory.find("a").is_none());
        assert_eq!(open(&directory, "a"), Some(1));
    }

    #[test]
    fn a_command_that_nobody_waits_for_makes_no_second_room() {
        let directory = directory(2, 100, 100);
        drop(directory.place("a", Instant::now()).unwrap());
        directory.set_participants(worker(0), 50);
        assert_eq!(open(&directory, "a"), Some(1));
        assert!(!directory.open_room(worker(0), "a"), "its command comes late");
        directory.close_room(worker(0), "a");
        assert_eq!(directory.find("a").unwrap().worker, worker(1));
    }

    #[test]
    fn limits_are_those_of_all_workers_together() {
        let directory = directory(2, 2, 3);
        assert!(open(&directory, "a").is_some() && open(&directory, "b").is_some());
        assert_eq!(open(&directory, "c"), None);
        directory.close_room(worker(0), "a");
        assert!(open(&directory, "c").is_some());
        let admitted: Vec<bool> = [0, 1, 0, 1, 0].map(|index| directory.admit(worker(index))).into();
        assert_eq!(admitted, [true, true, true, false, false]);
        directory.set_participants(worker(0), 1);
        assert!(directory.admit(worker(1)) && !directory.admit(worker(1)));
    }

    #[test]
    fn a_worker_that_lost_everything_rests() {
        let directory = directory(2, 3, 3);
        open(&directory, "a");
        open(&directory, "b");
        assert!(directory.admit(worker(0)) && directory.admit(worker(0)) && directory.admit(worker(1)));
        let (now, pin) = (Instant::now(), directory.find("a").unwrap());
        directory.withdraw(worker(0), now + Duration::from_secs(1));
        assert!(directory.admit(worker(1)), "its participants are gone");
        assert_eq!(directory.place("c", now).unwrap().worker, worker(1));
        assert_eq!(directory.place("c", now + Duration::from_secs(1)).unwrap().worker, worker(0));
        assert_eq!(directory.find("a").unwrap().worker, worker(0), "a command for it waits there");
        drop(pin);
        assert!(directory.find("a").is_none());
        directory.withdraw(worker(1), now + Duration::from_secs(1));
        assert!(directory.place("d", now).is_none());
        let inner = directory.lock();
        assert!(inner.places.is_empty());
        assert!(inner.workers.iter().all(|load| (load.places, load.rooms, load.participants) == (0, 0, 0)));
    }
}
