//! How many allocations there may be: per user, per source address, on this node.
//!
//! Shared by all workers. Its lock is taken when an allocation begins and when it ends, never for a packet. A [`Seat`] is
//! what an allocation holds while it lives; giving it back cannot be forgotten.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::rate::Bucket;
use crate::subscriber::subscriber;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Allocations of one user, by the part of the user name after `expiry:`, so that fresh credentials are no way round.
    pub per_user: u32,
    /// Allocations of one client address; IPv6: of one /64.
    pub per_address: u32,
    /// Allocations of this node.
    pub all: u32,
    /// What all allocations of one user may relay together, both directions added.
    pub user_bytes_per_second: u64,
}

/// Which limit is reached; the answer is 486 for [`Full::User`] and [`Full::Address`], 508 for [`Full::Node`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    User,
    Address,
    Node,
}

#[derive(Debug)]
pub struct Quotas {
    limits: QuotaLimits,
    taken: Mutex<Taken>,
}

/// Entries exist only for what has allocations: memory is bounded by `limits.all`.
#[derive(Debug, Default)]
struct Taken {
    users: HashMap<Arc<str>, User>,
    addresses: HashMap<IpAddr, u32>,
    all: u32,
}

#[derive(Debug)]
struct User {
    allocations: u32,
    bucket: Arc<Bucket>,
}

impl Quotas {
    pub fn new(limits: QuotaLimits) -> Arc<Quotas> {
        Arc::new(Quotas { limits, taken: Mutex::default() })
    }

    /// A seat for one more allocation of `user`, from `client`. To be called for authenticated requests only.
    pub fn take(self: &Arc<Self>, now: Instant, user: &str, client: IpAddr) -> Result<Seat, Full> {
        let address = subscriber(client);
        let mut taken = self.taken();
        if taken.all >= self.limits.all {
            return Err(Full::Node);
        }
        if taken.addresses.get(&address).is_some_and(|count| *count >= self.limits.per_address) {
            return Err(Full::Address);
        }
        let known = taken.users.get_key_value(user).map(|(name, known)| (name.clone(), known.allocations));
        let user: Arc<str> = match known {
            Some((_, allocations)) if allocations >= self.limits.per_user => return Err(Full::User),
            Some((name, _)) => name,
            None => user.into(),
        };
        taken.all += 1;
        *taken.addresses.entry(address).or_insert(0) += 1;
        let entry = taken.users.entry(user.clone()).or_insert_with(|| User {
            allocations: 0,
            bucket: Arc::new(Bucket::for_media(self.limits.user_bytes_per_second, now)),
        });
        entry.allocations += 1;
        let bucket = entry.bucket.clone();
        drop(taken);
        Ok(Seat { quotas: self.clone(), user, address, bucket })
    }

    /// Allocations of this node.
    pub fn allocations(&self) -> u32 {
        self.taken().all
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing in here panics half-way; and refusing every call would be worse than a count that is off by one.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one allocation takes of the quotas; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    quotas: Arc<Quotas>,
    user: Arc<str>,
    address: IpAddr,
    bucket: Arc<Bucket>,
}

impl Seat {
    /// The user's byte rate, shared by all of the user's allocations.
    pub fn bucket(&self) -> &Arc<Bucket> {
        &self.bucket
    }

    /// The part of the user name after `expiry:`.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.quotas.taken();
        taken.all -= 1;
        count_down(&mut taken.addresses, &self.address, |count| count);
        count_down(&mut taken.users, &self.user, |user| &mut user.allocations);
    }
}

fn count_down<K: Hash + Eq, V>(map: &mut HashMap<K, V>, key: &K, count: impl Fn(&mut V) -> &mut u32) {
    let Some(value) = map.get_mut(key) else { return };
    let left = count(value);
    *left -= 1;
    if *left == 0 {
        map.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: QuotaLimits = QuotaLimits { per_user: 2, per_address: 3, all: 4, user_bytes_per_second: 1_000_000 };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_limit_says_which_it_is() {
        let quotas = Quotas::new(LIMITS);
        let now = Instant::now();
        let take = |user: &str, client: &str| quotas.take(now, user, address(client));
        let first = take("@a:x", "192.0.2.1").unwrap();
        let _second = take("@a:x", "::ffff:192.0.2.1").unwrap();
        assert_eq!(take("@a:x", "192.0.2.9").unwrap_err(), Full::User);
        let _third = take("@b:x", "192.0.2.1").unwrap();
        assert_eq!(take("@c:x", "192.0.2.1").unwrap_err(), Full::Address);
        let _fourth = take("@c:x", "192.0.2.2").unwrap();
        assert_eq!(take("@d:x", "192.0.2.3").unwrap_err(), Full::Node);
        drop(first);
        assert!(take("@a:x", "192.0.2.1").is_ok());
    }

    #[test]
    fn a_v6_network_is_one_source() {
        let quotas = Quotas::new(LIMITS);
        let now = Instant::now();
        let seats: Vec<Seat> = (0..3)
            .map(|n| quotas.take(now, &format!("u{n}"), address(&format!("2001:db8::{n}"))))
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(quotas.take(now, "u4", address("2001:db8::4")).unwrap_err(), Full::Address);
        assert!(quotas.take(now, "u4", address("2001:db8:0:1::4")).is_ok());
        drop(seats);
    }

    #[test]
    fn a_user_has_one_rate() {
        let quotas = Quotas::new(LIMITS);
        let now = Instant::now();
        let one = quotas.take(now, "@a:x", address("192.0.2.1")).unwrap();
        let two = quotas.take(now, "@a:x", address("192.0.2.2")).unwrap();
        let other = quotas.take(now, "@b:x", address("192.0.2.1")).unwrap();
        assert!(one.bucket().take(now, 250_000) && !two.bucket().take(now, 1) && other.bucket().take(now, 1));
    }

    proptest! {
        /// Against plain counting of the seats that are held, after every step; and nothing is left in the end.
        #[test]
        fn counts_are_those_of_the_held_seats(steps in prop::collection::vec((0u8..4, 0u8..4, any::<bool>(), any::<prop::sample::Index>()), 0..200)) {
            let quotas = Quotas::new(LIMITS);
            let now = Instant::now();
            let mut held: Vec<(u8, u8, Seat)> = Vec::new();
            for (user, client, leaves, which) in steps {
                if leaves && !held.is_empty() {
                    held.swap_remove(which.index(held.len()));
                    continue;
                }
                let users = held.iter().filter(|(u, ..)| *u == user).count();
                let clients = held.iter().filter(|(_, c, _)| *c == client).count();
                let expected = if held.len() == 4 { Some(Full::Node) }
                    else if clients == 3 { Some(Full::Address) }
                    else if users == 2 { Some(Full::User) }
                    else { None };
                match quotas.take(now, &format!("@{user}:x"), IpAddr::from([192, 0, 2, client])) {
                    Ok(seat) => {
                        prop_assert_eq!(expected, None);
                        held.push((user, client, seat));
                    }
                    Err(full) => prop_assert_eq!(Some(full), expected),
                }
                prop_assert_eq!(quotas.allocations() as usize, held.len());
            }
            held.clear();
            let taken = quotas.taken();
            prop_assert!(taken.users.is_empty() && taken.addresses.is_empty() && taken.all == 0);
        }
    }
}
