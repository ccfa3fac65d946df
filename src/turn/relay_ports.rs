//! The relayed addresses that may be given out: which are free, which are whose, and which wait for whoever holds a
//! reservation token (RFC 8656 §7.2, §18.7).
//!
//! Shared by the TURN servers of all workers, so that each may give out any port, redeem any token, and tell whose a relayed
//! address is. Its locks are taken when an allocation begins and when it ends; a packet reads one atomic.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Family, Ports};

/// How long the port after an even one waits (RFC 8656 §18.7: at least 30 seconds).
const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// Reservations at a time. WebRTC makes none; they only hold ports back from others.
const MAX_RESERVATIONS: usize = 64;

/// How many ports are asked for at the operating system before we say that there are none: it refuses one that another
/// program has.
const ATTEMPTS: usize = 16;

/// What a client wants of its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parity {
    Any,
    Even,
    /// And the next one kept for later.
    EvenAndNext,
}

#[derive(Debug)]
pub struct RelayPorts {
    ports: RangeInclusive<u16>,
    /// IPv4, IPv6.
    pools: [Option<Pool>; 2],
    reservations: Mutex<VecDeque<Reservation>>,
}

/// The ports of one address. Its tables are by [`RelayPorts::index`].
#[derive(Debug)]
struct Pool {
    ip: IpAddr,
    /// [`NOBODY`], or a [`Holder`] as a number.
    holders: Box<[AtomicU64]>,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    ports: Vec<u16>,
    /// Where in `ports` each is, or [`TAKEN`].
    places: Box<[u32]>,
}

const TAKEN: u32 = u32::MAX;

const NOBODY: u64 = 0;

/// An allocation of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub worker: usize,
    pub allocation: u32,
}

impl Holder {
    /// Never [`NOBODY`].
    fn number(self) -> u64 {
        (self.worker as u64 + 1) << 32 | u64::from(self.allocation)
    }

    fn of(number: u64) -> Option<Holder> {
        let worker = (number >> 32).checked_sub(1)?;
        Some(Holder { worker: worker as usize, allocation: number as u32 })
    }
}

#[derive(Debug)]
struct Reservation {
    token: u64,
    /// Who may redeem it.
    user: Box<str>,
    address: SocketAddr,
    expires: Instant,
}

impl RelayPorts {
    /// `relays`: the addresses that clients are told; of each family the first counts. Without any there is no TURN.
    pub fn new(relays: &[IpAddr], ports: RangeInclusive<u16>) -> Arc<RelayPorts> {
        let pool = |is_ipv4: bool| relays.iter().find(|ip| ip.is_ipv4() == is_ipv4).map(|ip| Pool::new(*ip, &ports));
        let pools = [pool(true), pool(false)];
        Arc::new(RelayPorts { ports, pools, reservations: Mutex::default() })
    }

    pub(super) fn has(&self, family: Family) -> bool {
        self.pools[family.index()].is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.pools.iter().all(Option::is_none)
    }

    /// Whether it is an address that is told to clients.
    pub fn is_ours(&self, ip: IpAddr) -> bool {
        self.pools.iter().flatten().any(|pool| pool.ip == ip)
    }

    /// Whose a relayed address is.
    pub(super) fn holder(&self, address: SocketAddr) -> Option<Holder> {
        let index = self.index(address.port())?;
        let pool = self.pools[Family::of(address.ip()).index()].as_ref().filter(|pool| pool.ip == address.ip())?;
        Holder::of(pool.holders.get(index)?.load(Ordering::Acquire))
    }

    fn index(&self, port: u16) -> Option<usize> {
        self.ports.contains(&port).then(|| usize::from(port - self.ports.start()))
    }

    fn place(&self, address: SocketAddr) -> Option<(&Pool, usize)> {
        Some((self.pools[Family::of(address.ip()).index()].as_ref()?, self.index(address.port())?))
    }

    /// A free port chosen at random, so that nobody can guess which comes next.
    pub(super) fn take(
        &self,
        family: Family,
        parity: Parity,
        rng: &mut StdRng,
        ports: &mut impl Ports,
    ) -> Option<SocketAddr> {
        let pool = self.pools[family.index()].as_ref()?;
        let mut free = pool.free();
        if free.ports.is_empty() {
            return None;
        }
        let start = rng.random_range(0..free.ports.len());
        let (before, after) = free.ports.split_at(start);
        let next_is_free = |port: u16| {
            let next = port.checked_add(1).and_then(|next| self.index(next));
            next.is_some_and(|next| free.places[next] != TAKEN)
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
        let chosen = after.iter().chain(before).copied().filter(|port| fits(*port));
        let port = chosen.take(ATTEMPTS).find(|port| can_be_had(*port))?;
        free.take(port, *self.ports.start());
        Some(SocketAddr::new(pool.ip, port))
    }

    /// Keeps the port after `address` for `user`; gives the token for it.
    pub(super) fn reserve(&self, address: SocketAddr, user: &str, now: Instant, rng: &mut StdRng) -> Option<u64> {
        let next = SocketAddr::new(address.ip(), address.port().checked_add(1)?);
        let (pool, _) = self.place(next)?;
        let mut reservations = self.reservations();
        if reservations.len() >= MAX_RESERVATIONS || !pool.free().take(next.port(), *self.ports.start()) {
            return None;
        }
        let token = rng.random();
        let expires = now + RESERVATION_LIFETIME;
        reservations.push_back(Reservation { token, user: user.into(), address: next, expires });
        Some(token)
    }

    /// The address that a token stands for; it is good once.
    pub(super) fn redeem(&self, token: u64, user: &str, now: Instant) -> Option<SocketAddr> {
        let good = |r: &Reservation| r.token == token && *r.user == *user && r.expires > now;
        let mut reservations = self.reservations();
        let index = reservations.iter().position(good)?;
        reservations.remove(index).map(|reservation| reservation.address)
    }

    /// Gives back what was not redeemed in time. Nothing waits for that but who wants a port.
    pub(super) fn expire(&self, now: Instant) {
        let mut reservations = self.reservations();
        while reservations.front().is_some_and(|reservation| reservation.expires <= now) {
            if let Some(reservation) = reservations.pop_front() {
                self.release(reservation.address);
            }
        }
    }

    /// A port that was taken or redeemed now belongs to an allocation.
    pub(super) fn assign(&self, address: SocketAddr, holder: Holder) {
        if let Some((pool, index)) = self.place(address) {
            pool.holders[index].store(holder.number(), Ordering::Release);
        }
    }

    pub(super) fn release(&self, address: SocketAddr) {
        if let Some((pool, index)) = self.place(address) {
            pool.holders[index].store(NOBODY, Ordering::Release);
            pool.free().give_back(address.port(), *self.ports.start());
        }
    }

    fn reservations(&self) -> MutexGuard<'_, VecDeque<Reservation>> {
        self.reservations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.pools.iter().flatten().map(|pool| pool.free().ports.len()).sum()
    }

    /// Free or not.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.ports.len() * self.pools.iter().flatten().count()
    }

    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.reservations().len()
    }
}

impl Pool {
    fn new(ip: IpAddr, ports: &RangeInclusive<u16>) -> Pool {
        let holders = ports.clone().map(|_| AtomicU64::new(NOBODY)).collect();
        let places = (0..ports.len() as u32).collect();
        Pool { ip, holders, free: Mutex::new(Free { ports: ports.clone().collect(), places }) }
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Free {
    /// Whether it was free. `first`: the first port of all.
    fn take(&mut self, port: u16, first: u16) -> bool {
        let place = std::mem::replace(&mut self.places[usize::from(port - first)], TAKEN);
        if place == TAKEN {
            return false;
        }
        self.ports.swap_remove(place as usize);
        if let Some(moved) = self.ports.get(place as usize) {
            self.places[usize::from(moved - first)] = place;
        }
        true
    }

    fn give_back(&mut self, port: u16, first: u16) {
        let place = &mut self.places[usize::from(port - first)];
        if *place == TAKEN {
            *place = self.ports.len() as u32;
            self.ports.push(port);
        }
    }
}
