//! CreatePermission (RFC 8656 §10.2): who may send to a relayed address.

use std::net::IpAddr;
use std::time::Instant;

use stun_types::message::MessageClass;

use super::allocation::{Family, MAX_PERMISSIONS};
use super::answer::{self, Refusal};
use super::authentication::Account;
use super::request::Request;
use super::{Ports, Route, Turn};

impl Turn {
    /// All of the peers or none.
    pub(super) fn create_permission<'a>(
        &mut self,
        now: Instant,
        route: Route,
        request: &'a Request<'a>,
        account: &Account<'_>,
        ports: &mut impl Ports,
    ) -> Result<(), Refusal> {
        let id = self.own_allocation(now, route, account, ports)?;
        let mut peers = [IpAddr::from([0; 4]); MAX_PERMISSIONS];
        let mut count = 0;
        for peer in request.peers() {
            let peer = peer.ok_or(Refusal::BadRequest)?.ip();
            if !peers[..count].contains(&peer) {
                *peers.get_mut(count).ok_or(Refusal::InsufficientCapacity)? = peer;
                count += 1;
            }
        }
        let peers = &peers[..count];
        if peers.is_empty() {
            return Err(Refusal::BadRequest);
        }
        for peer in peers {
            self.may_be_permitted(id, *peer, now)?;
        }
        self.permit(id, peers, now, ports)?;
        answer::write(&mut self.to_clients, route, request, MessageClass::Success, Some(&account.key), &[]);
        Ok(())
    }

    /// Whether the allocation has an address of the peer's family, and anybody may send to the peer.
    pub(super) fn may_be_permitted(&mut self, id: u32, peer: IpAddr, now: Instant) -> Result<(), Refusal> {
        let allocation = self.allocations.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        if allocation.relay(Family::of(peer), now).is_none() {
            return Err(Refusal::PeerAddressFamilyMismatch);
        }
        if !self.is_ourselves(peer) && self.settings.policy.permits(peer).is_err() {
            return Err(Refusal::Forbidden);
        }
        Ok(())
    }

    /// Permits peers that may be. The first that is not at this server opens the relayed address's socket.
    pub(super) fn permit(
        &mut self,
        id: u32,
        peers: &[IpAddr],
        now: Instant,
        ports: &mut impl Ports,
    ) -> Result<(), Refusal> {
        let is_foreign = |peer: &&IpAddr| !self.is_ourselves(**peer);
        let mut wants_socket = [false; 2];
        for peer in peers.iter().filter(is_foreign) {
            wants_socket[Family::of(*peer).index()] = true;
        }
        let allocation = self.allocations.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        if !allocation.has_room_for(peers, now) {
            return Err(Refusal::InsufficientCapacity);
        }
        for (relay, wanted) in allocation.relays.iter_mut().zip(wants_socket) {
            if let Some(relay) = relay.as_mut().filter(|relay| wanted && !relay.is_open) {
                relay.is_open = ports.open(relay.address);
                if !relay.is_open {
                    return Err(Refusal::InsufficientCapacity);
                }
            }
        }
        for peer in peers {
            if !allocation.permit(*peer, now) {
                return Err(Refusal::InsufficientCapacity);
            }
        }
        Ok(())
    }
}
