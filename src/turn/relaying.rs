//! The way of a packet, from client to peer and back. No memory is taken, nothing locked, and nothing looked through but the
//! few peers of one allocation.

use std::net::SocketAddr;
use std::time::Instant;

use stun_types::message::TransactionId;

use rand::RngExt;

use super::allocation::{Family, Way};
use super::answer::{self, MAX_DATA_BYTES};
use super::counts::Dropped;
use super::request::Request;
use super::{Now, Route, Turn};
use crate::transport::Protocol;

impl Turn {
    /// ChannelData from a client (RFC 8656 §12.6). There may be padding behind it.
    pub(super) fn channel_data(&mut self, now: Instant, route: Route, message: &[u8]) {
        let Some((number, data)) = read_channel_data(message) else {
            return self.counts.drop(Dropped::Malformed);
        };
        if let Err(dropped) = self.send_on_channel(now, route, number, data) {
            self.counts.drop(dropped);
        }
    }

    fn send_on_channel(&mut self, now: Instant, route: Route, number: u16, data: &[u8]) -> Result<(), Dropped> {
        let id = self.allocations.by_route(route).ok_or(Dropped::NoAllocation)?;
        let allocation = self.allocations.get_mut(id).ok_or(Dropped::NoAllocation)?;
        let channel = *allocation.channel(number, now).ok_or(Dropped::NoChannel)?;
        if !allocation.permits_channel(&channel, now) {
            return Err(Dropped::NoPermission);
        }
        self.send(id, channel.peer, channel.way, data, now)
    }

    /// A Send indication from a client (RFC 8656 §11.2).
    pub(super) fn send_indication(&mut self, now: Instant, route: Route, request: &Request<'_>) {
        let Some((peer, data)) = request.send() else {
            return self.counts.drop(Dropped::Malformed);
        };
        if let Err(dropped) = self.send_to(now, route, peer, data) {
            self.counts.drop(dropped);
        }
    }

    fn send_to(&mut self, now: Instant, route: Route, peer: SocketAddr, data: &[u8]) -> Result<(), Dropped> {
        let id = self.allocations.by_route(route).ok_or(Dropped::NoAllocation)?;
        let allocation = self.allocations.get_mut(id).ok_or(Dropped::NoAllocation)?;
        let permission = allocation.permission(peer.ip(), now).ok_or(Dropped::NoPermission)?;
        let known = permission.way(peer.port());
        let way = match known {
            Some(way) => way,
            None => {
                let way = self.way_to(peer).ok_or(Dropped::Denied)?;
                let allocation = self.allocations.get_mut(id).ok_or(Dropped::NoAllocation)?;
                if !allocation.new_addresses.take(now, 1) {
                    return Err(Dropped::TooManyAddresses);
                }
                if let Some(permission) = allocation.permission(peer.ip(), now) {
                    permission.remember(peer.port(), way);
                }
                way
            }
        };
        self.send(id, peer, way, data, now)
    }

    /// To a peer that may be sent to.
    fn send(&mut self, id: u32, peer: SocketAddr, way: Way, data: &[u8], now: Instant) -> Result<(), Dropped> {
        let allocation = self.allocations.get_mut(id).ok_or(Dropped::NoAllocation)?;
        let relay = allocation.relay(Family::of(peer.ip()), now).ok_or(Dropped::NoAllocation)?.address;
        if !allocation.from_client.take(now, data.len()) || !allocation.seat.bucket().take(now, data.len()) {
            return Err(Dropped::OverRate);
        }
        let route = Route { protocol: Protocol::Udp, source: relay, destination: peer };
        if way == Way::Foreign {
            self.counts.to_peers.count(data.len());
            self.to_peers.push(route, data);
            return Ok(());
        }
        self.counts.in_process.count(data.len());
        if way == Way::Relayed && self.owner(peer) == Some(self.settings.worker) {
            return self.deliver(now, peer, relay, data);
        }
        self.to_ourselves.push(route, data);
        Ok(())
    }

    /// A datagram from `peer` to one of this worker's relayed addresses: from its socket, from an allocation of another
    /// worker, or from our own media.
    pub fn relayed(&mut self, now: Now, relay: SocketAddr, peer: SocketAddr, bytes: &[u8]) {
        if let Err(dropped) = self.deliver(now.instant, relay, peer, bytes) {
            self.counts.drop(dropped);
        }
    }

    /// To the client whose relayed address `relay` is (RFC 8656 §11.3).
    fn deliver(&mut self, now: Instant, relay: SocketAddr, peer: SocketAddr, data: &[u8]) -> Result<(), Dropped> {
        let id = self.allocations.by_relay(relay).ok_or(Dropped::NoAllocation)?;
        let allocation = self.allocations.get_mut(id).ok_or(Dropped::NoAllocation)?;
        if allocation.relay(Family::of(relay.ip()), now).is_none() {
            return Err(Dropped::NoAllocation);
        }
        let channel = allocation.channel_to(peer, now).copied();
        let permitted = match &channel {
            Some(channel) => allocation.permits_channel(channel, now),
            None => allocation.permission(peer.ip(), now).is_some(),
        };
        if !permitted {
            return Err(Dropped::NoPermission);
        }
        if data.len() > MAX_DATA_BYTES {
            return Err(Dropped::TooLong);
        }
        if !allocation.to_client.take(now, data.len()) || !allocation.seat.bucket().take(now, data.len()) {
            return Err(Dropped::OverRate);
        }
        self.counts.to_clients.count(data.len());
        match channel {
            Some(channel) => answer::channel_data(&mut self.to_clients, allocation.route, channel.number, data),
            None => {
                let transaction = TransactionId::from(self.rng.random::<u128>());
                answer::data_indication(&mut self.to_clients, allocation.route, transaction, peer, data);
            }
        }
        Ok(())
    }
}

/// Number and data.
fn read_channel_data(message: &[u8]) -> Option<(u16, &[u8])> {
    let (header, rest) = message.split_first_chunk::<4>()?;
    let [number_high, number_low, len_high, len_low] = *header;
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    let data = rest.get(..len).filter(|_| rest.len() < len + 4)?;
    Some((u16::from_be_bytes([number_high, number_low]), data))
}
