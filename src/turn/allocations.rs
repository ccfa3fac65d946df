//! The allocations of a worker, found by their client's route, by a relayed address, and by when they end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::allocation::{Allocation, Family};
use super::expiry::Expiry;
use super::relay_ports::{Holder, RelayPorts};
use super::{Ports, Settings};
use crate::transport::Route;

pub(super) struct Allocations {
    pub ports: Arc<RelayPorts>,
    worker: usize,
    table: Vec<Option<Box<Allocation>>>,
    vacant: Vec<u32>,
    by_route: HashMap<Route, u32>,
    expiry: Expiry,
}

impl Allocations {
    pub fn new(settings: &Settings) -> Allocations {
        Allocations {
            ports: settings.relay_ports.clone(),
            worker: settings.worker,
            table: Vec::new(),
            vacant: Vec::new(),
            by_route: HashMap::new(),
            expiry: Expiry::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.by_route.len()
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut Allocation> {
        self.table.get_mut(id as usize)?.as_deref_mut()
    }

    pub fn by_route(&self, route: Route) -> Option<u32> {
        self.by_route.get(&route).copied()
    }

    /// Whose a relayed address is.
    pub fn by_relay(&self, relay: SocketAddr) -> Option<u32> {
        self.ports.holder(relay).filter(|holder| holder.worker == self.worker).map(|holder| holder.allocation)
    }

    /// The allocation of a client's route that has not run out, be it that the wheel has yet to come round to it.
    pub fn live(&mut self, route: Route, now: Instant, ports: &mut impl Ports) -> Option<u32> {
        let id = self.by_route(route)?;
        self.expire_one(id, now, ports);
        self.get_mut(id).is_some().then_some(id)
    }

    pub fn insert(&mut self, now: Instant, allocation: Allocation) {
        let id = self.vacant.pop().unwrap_or(self.table.len() as u32);
        for relay in allocation.relays.iter().flatten() {
            self.ports.assign(relay.address, Holder { worker: self.worker, allocation: id });
        }
        self.by_route.insert(allocation.route, id);
        if id as usize == self.table.len() {
            self.table.push(None);
        }
        self.table[id as usize] = Some(Box::new(allocation));
        self.arm(id, now);
    }

    /// To be called when the expiry of a relayed address has changed.
    pub fn arm(&mut self, id: u32, now: Instant) {
        match self.get_mut(id).and_then(|allocation| allocation.deadline()) {
            Some(deadline) => self.expiry.set(id, now, deadline),
            None => self.expiry.cancel(id),
        }
    }

    pub fn remove(&mut self, id: u32, ports: &mut impl Ports) {
        for family in [Family::V4, Family::V6] {
            self.remove_relay(id, family, ports);
        }
    }

    /// Gives back one relayed address; with the last one the allocation goes.
    pub fn remove_relay(&mut self, id: u32, family: Family, ports: &mut impl Ports) {
        let Some(allocation) = self.get_mut(id) else { return };
        let relay = allocation.relays[family.index()].take();
        let is_last = allocation.relays.iter().all(Option::is_none);
        let route = allocation.route;
        if let Some(relay) = relay {
            if relay.is_open {
                ports.close(relay.address);
            }
            self.ports.release(relay.address);
        }
        if is_last {
            self.expiry.cancel(id);
            self.by_route.remove(&route);
            self.table[id as usize] = None;
            self.vacant.push(id);
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.expiry.next()
    }

    pub fn expire(&mut self, now: Instant, ports: &mut impl Ports) {
        while let Some(id) = self.expiry.pop_due(now) {
            self.expire_one(id, now, ports);
            self.arm(id, now);
        }
        self.ports.expire(now);
    }

    fn expire_one(&mut self, id: u32, now: Instant, ports: &mut impl Ports) {
        for family in [Family::V4, Family::V6] {
            let Some(allocation) = self.get_mut(id) else { return };
            if allocation.relays[family.index()].is_some_and(|relay| relay.expires <= now) {
                self.remove_relay(id, family, ports);
            }
        }
    }

    #[cfg(test)]
    pub fn slots(&self) -> usize {
        self.table.len()
    }

    #[cfg(test)]
    pub fn armed(&self) -> usize {
        self.expiry.len()
    }
}
