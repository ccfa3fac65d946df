//! How many TCP connections may be open, in all and from one subscriber; counted over all workers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::subscriber::subscriber;

/// Connections that may be open at once, over all workers. Each costs a file descriptor, of which a service gets some ten
/// thousands, and up to 50 kB when what it sends is never whole.
const MAX_CONNECTIONS: usize = 8192;
/// Connections of one subscriber. A client that sees UDP blocked tries ICE over TCP, TURN over TCP and TURN over TLS, and
/// older ones have two peer connections: six for each of the 170 people of an office behind one NAT. Eight subscribers can
/// take all places, for half a minute unless they have something to authenticate with.
const MAX_PER_SUBSCRIBER: usize = 1024;

/// Who holds how many.
#[derive(Default)]
pub(super) struct Places(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    all: usize,
    by_subscriber: HashMap<IpAddr, usize>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, free again when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    subscriber: IpAddr,
}

impl Place {
    /// `None`: there is none left.
    pub fn take(places: &Arc<Places>, client: IpAddr) -> Option<Place> {
        let subscriber = subscriber(client);
        let mut taken = places.lock();
        let own = taken.by_subscriber.get(&subscriber).copied().unwrap_or_default();
        if taken.all >= MAX_CONNECTIONS || own >= MAX_PER_SUBSCRIBER {
            return None;
        }
        taken.all += 1;
        taken.by_subscriber.insert(subscriber, own + 1);
        Some(Place { places: places.clone(), subscriber })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_subscriber.get_mut(&self.subscriber) {
            *own -= 1;
            if *own == 0 {
                taken.by_subscriber.remove(&self.subscriber);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_few_for_one_subscriber_and_bounded_for_all() {
        let places = Arc::<Places>::default();
        let take = |address: String| Place::take(&places, address.parse().unwrap());
        let mut own: Vec<Place> =
            (0..MAX_PER_SUBSCRIBER).map(|n| take(format!("2001:db8::{n:x}")).expect("a place")).collect();
        assert!(take("2001:db8::ffff:1".into()).is_none(), "another address of the same network");
        let rest = MAX_CONNECTIONS - own.len();
        let others: Vec<Place> =
            (0..rest).map(|n| take(format!("10.0.{}.{}", n / 256, n % 256)).expect("a place")).collect();
        assert!(take("192.0.2.1".into()).is_none(), "all are taken");
        own.pop();
        assert!(take("2001:db8::1".into()).is_some(), "free again, and free again now");
        drop((own, others));
        let taken = places.lock();
        assert_eq!((taken.all, taken.by_subscriber.len()), (0, 0));
    }
}
