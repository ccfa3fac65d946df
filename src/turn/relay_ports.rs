//! The relayed addresses that this worker may give out: which are free, which are whose, and which wait for whoever holds
//! a reservation token (RFC 8656 §7.2, §18.7).
//!
//! Ports are dealt out to workers in pairs, an even one and the odd one after it, so that EVEN-PORT finds both with one
//! worker and any worker can tell by arithmetic whose a relayed address is. A token is good at the worker that gave it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Family, Ports};

/// How long the port after an even one waits (RFC 8656 §18.7: at least 30 seconds).
const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// Reservations at a time in a worker. WebRTC makes none; they only hold ports back from others.
const MAX_RESERVATIONS: usize = 64;

/// How many ports are asked for at the operating system before we say that there are none: it refuses one that another
/// program has.
const ATTEMPTS: usize = 16;

const FREE: u32 = u32::MAX - 1;
const RESERVED: u32 = u32::MAX;

/// What a client wants of its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parity {
    Any,
    Even,
    /// And the next one kept for later.
    EvenAndNext,
}

pub(super) struct RelayPorts {
    ports: RangeInclusive<u16>,
    worker: usize,
    workers: usize,
    /// IPv4, IPv6.
    pools: [Option<Pool>; 2],
    reservations: VecDeque<Reservation>,
}

/// The ports of one address.
struct Pool {
    ip: IpAddr,
    free: Vec<u16>,
    /// By [`RelayPorts::index`].
    places: Vec<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    /// The allocation that has it, or [`FREE`], or [`RESERVED`].
    holder: u32,
    /// Where in `free` it is.
    position: u32,
}

struct Reservation {
    token: u64,
    /// Who may redeem it.
    user: Box<str>,
    address: SocketAddr,
    expires: Instant,
}

impl RelayPorts {
    pub fn new(relays: &[IpAddr], ports: RangeInclusive<u16>, worker: usize, workers: usize) -> RelayPorts {
        let mut relay_ports =
            RelayPorts { ports, worker, workers: workers.max(1), pools: [None, None], reservations: VecDeque::new() };
        for ip in relays {
            let pool = relay_ports.pool(*ip);
            relay_ports.pools[Family::of(*ip).index()].get_or_insert(pool);
        }
        relay_ports
    }

    fn pool(&self, ip: IpAddr) -> Pool {
        let free: Vec<u16> = self.ports.clone().filter(|port| self.worker_of(*port) == self.worker).collect();
        let size = free.last().map_or(0, |last| self.index(*last) + 1);
        let mut places = vec![Place { holder: RESERVED, position: 0 }; size];
        for (position, port) in free.iter().enumerate() {
            places[self.index(*port)] = Place { holder: FREE, position: position as u32 };
        }
        Pool { ip, free, places }
    }

    pub fn has(&self, family: Family) -> bool {
        self.pools[family.index()].is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.pools.iter().all(Option::is_none)
    }

    /// Whether it is an address that is told to clients.
    pub fn is_ours(&self, ip: IpAddr) -> bool {
        self.pools.iter().flatten().any(|pool| pool.ip == ip)
    }

    /// The worker that `address` belongs to if it may be a relayed one.
    pub fn owner(&self, address: SocketAddr) -> Option<usize> {
        (self.ports.contains(&address.port()) && self.is_ours(address.ip())).then(|| self.worker_of(address.port()))
    }

    /// Whose a relayed address is.
    pub fn holder(&self, address: SocketAddr) -> Option<u32> {
        if self.owner(address)? != self.worker {
            return None;
        }
        let pool = self.pools[Family::of(address.ip()).index()].as_ref()?;
        let holder = pool.places.get(self.index(address.port()))?.holder;
        (holder != FREE && holder != RESERVED).then_some(holder)
    }

    fn pair(&self, port: u16) -> usize {
        usize::from(port / 2).saturating_sub(usize::from(self.ports.start() / 2))
    }

    fn worker_of(&self, port: u16) -> usize {
        self.pair(port) % self.workers
    }

    fn index(&self, port: u16) -> usize {
        self.pair(port) / self.workers * 2 + usize::from(port % 2)
    }

    /// A free port chosen at random, so that nobody can guess which comes next.
    pub fn take(
        &mut self,
        family: Family,
        parity: Parity,
        rng: &mut StdRng,
        ports: &mut impl Ports,
    ) -> Option<SocketAddr> {
        let pool = self.pools[family.index()].as_ref()?;
        if pool.free.is_empty() {
            return None;
        }
        let start = rng.random_range(0..pool.free.len());
        let (before, after) = pool.free.split_at(start);
        let next_is_free = |port: u16| {
            let next = port.checked_add(1).filter(|next| self.ports.contains(next));
            next.is_some_and(|next| pool.places[self.index(next)].holder == FREE)
        };
        let fits = |port: u16| match parity {
            Parity::Any => true,
            Parity::Even => port.is_multiple_of(2),
            Parity::EvenAndNext => port.is_multiple_of(2) && next_is_free(port),
        };
        let mut can_be_had = |port: u16| {
            ports.is_free(SocketAddr::new(pool.ip, port))
                && (parity != Parity::EvenAndNext || ports.is_free(SocketAddr::new(pool.ip, port + 1)))
        };
        let fitting = after.iter().chain(before).copied().filter(|port| fits(*port));
        let port = fitting.take(ATTEMPTS).find(|port| can_be_had(*port))?;
        let address = SocketAddr::new(pool.ip, port);
        self.hold(address, RESERVED);
        Some(address)
    }

    /// Keeps the port after `address` for `user`; gives the token for it.
    pub fn reserve(&mut self, address: SocketAddr, user: &str, now: Instant, rng: &mut StdRng) -> Option<u64> {
        let next = SocketAddr::new(address.ip(), address.port().checked_add(1)?);
        if self.reservations.len() >= MAX_RESERVATIONS || !self.is_free(next) {
            return None;
        }
        self.hold(next, RESERVED);
        let token = rng.random();
        self.reservations.push_back(Reservation {
            token,
            user: user.into(),
            address: next,
            expires: now + RESERVATION_LIFETIME,
        });
        Some(token)
    }

    fn is_free(&self, address: SocketAddr) -> bool {
        let pool = self.pools[Family::of(address.ip()).index()].as_ref();
        pool.and_then(|pool| pool.places.get(self.index(address.port()))).is_some_and(|place| place.holder == FREE)
    }

    /// The address that a token stands for; it is good once.
    pub fn redeem(&mut self, token: u64, user: &str, now: Instant) -> Option<SocketAddr> {
        let good = |r: &Reservation| r.token == token && *r.user == *user && r.expires > now;
        let index = self.reservations.iter().position(good)?;
        self.reservations.remove(index).map(|reservation| reservation.address)
    }

    /// Gives back what was not redeemed in time.
    pub fn expire(&mut self, now: Instant) {
        while self.next_expiry().is_some_and(|expires| expires <= now) {
            if let Some(reservation) = self.reservations.pop_front() {
                self.release(reservation.address);
            }
        }
    }

    pub fn next_expiry(&self) -> Option<Instant> {
        self.reservations.front().map(|reservation| reservation.expires)
    }

    /// A port that was taken or redeemed now belongs to an allocation.
    pub fn assign(&mut self, address: SocketAddr, allocation: u32) {
        self.hold(address, allocation);
    }

    fn hold(&mut self, address: SocketAddr, holder: u32) {
        let index = self.index(address.port());
        let moved = {
            let Some(pool) = &mut self.pools[Family::of(address.ip()).index()] else { return };
            let place = &mut pool.places[index];
            let was = std::mem::replace(&mut place.holder, holder);
            let position = place.position as usize;
            if was != FREE {
                return;
            }
            pool.free.swap_remove(position);
            pool.free.get(position).map(|port| (*port, position as u32))
        };
        if let Some((port, position)) = moved {
            let index = self.index(port);
            if let Some(pool) = &mut self.pools[Family::of(address.ip()).index()] {
                pool.places[index].position = position;
            }
        }
    }

    pub fn release(&mut self, address: SocketAddr) {
        let index = self.index(address.port());
        let Some(pool) = &mut self.pools[Family::of(address.ip()).index()] else { return };
        if pool.places[index].holder != FREE {
            pool.places[index] = Place { holder: FREE, position: pool.free.len() as u32 };
            pool.free.push(address.port());
        }
    }

    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.pools.iter().flatten().map(|pool| pool.free.len()).sum()
    }

    /// Free or not.
    #[cfg(test)]
    pub fn size(&self) -> usize {
        let ours = self.ports.clone().filter(|port| self.worker_of(*port) == self.worker).count();
        ours * self.pools.iter().flatten().count()
    }

    #[cfg(test)]
    pub fn reserved(&self) -> usize {
        self.reservations.len()
    }
}
