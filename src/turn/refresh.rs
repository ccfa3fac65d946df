//! Refresh (RFC 8656 §8.2): an allocation lives on, or ends.

use std::time::{Duration, Instant};

use stun_types::message::MessageClass;
use turn_types::attribute::Lifetime;

use super::allocate::requested_family;
use super::allocation::Family;
use super::answer::{self, Refusal};
use super::authentication::Account;
use super::request::Request;
use super::{Ports, Route, Turn};

impl Turn {
    pub(super) fn refresh<'a>(
        &mut self,
        now: Instant,
        route: Route,
        request: &'a Request<'a>,
        account: &Account<'_>,
        ports: &mut impl Ports,
    ) -> Result<(), Refusal> {
        let id = self.own_allocation(now, route, account, ports)?;
        let only = requested_family(request).map_err(|_| Refusal::PeerAddressFamilyMismatch)?;
        let allocation = self.allocations.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        if only.is_some_and(|family| allocation.relays[family.index()].is_none()) {
            return Err(Refusal::PeerAddressFamilyMismatch);
        }
        let ends = request.optional::<Lifetime>()?.is_some_and(|lifetime| lifetime.seconds() == 0);
        let lifetime_s = if ends { 0 } else { self.granted_lifetime_s(request)? };
        let expires = now + Duration::from_secs(lifetime_s.into());
        for family in [Family::V4, Family::V6].into_iter().filter(|family| only.is_none_or(|only| only == *family)) {
            if ends {
                self.allocations.remove_relay(id, family, ports);
            } else if let Some(relay) = self.allocations.get_mut(id).and_then(|a| a.relays[family.index()].as_mut()) {
                relay.expires = expires;
            }
        }
        self.allocations.arm(id, now);
        let lifetime = Lifetime::new(lifetime_s);
        answer::write(&mut self.to_clients, route, request, MessageClass::Success, Some(&account.key), &[&lifetime]);
        Ok(())
    }

    /// The allocation of this route, for who made it: 437 if there is none, 441 if it is another user's (RFC 8656 §5).
    pub(super) fn own_allocation(
        &mut self,
        now: Instant,
        route: Route,
        account: &Account<'_>,
        ports: &mut impl Ports,
    ) -> Result<u32, Refusal> {
        let id = self.allocations.live(route, now, ports).ok_or(Refusal::AllocationMismatch)?;
        let allocation = self.allocations.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        if allocation.seat.user() != account.name.user {
            return Err(Refusal::WrongCredentials);
        }
        Ok(id)
    }
}
