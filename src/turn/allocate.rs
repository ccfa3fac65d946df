//! Allocate (RFC 8656 §7.2).

use std::time::{Duration, Instant};

use stun_types::attribute::XorMappedAddress;
use stun_types::message::MessageClass;
use stun_types::prelude::*;
use turn_types::AddressFamily;
use turn_types::attribute::{
    AddressErrorCode, EvenPort, Lifetime, RequestedAddressFamily, RequestedTransport, ReservationToken,
    XorRelayedAddress,
};

use super::allocation::{Allocation, Family, Origin, Relay};
use super::answer::{self, Refusal};
use super::authentication::Account;
use super::quotas::Full;
use super::rate::Bucket;
use super::relay_ports::Parity;
use super::request::Request;
use super::{Now, Ports, Route, Turn};

/// RFC 8656 §3.2.
pub(super) const DEFAULT_LIFETIME_S: u32 = 600;

/// New addresses of peers that an allocation may send to, at once and then each second. ICE tries every pair of addresses a
/// few times; who goes on to more is looking for open ports.
const NEW_ADDRESSES_BURST: u64 = 256;

const NEW_ADDRESSES_PER_SECOND: u64 = 4;

/// What is asked for, once it is known to make sense.
struct Wish {
    family: Family,
    /// IPv6 besides IPv4.
    both: bool,
    parity: Parity,
    token: Option<u64>,
}

impl Wish {
    fn read<'a>(request: &'a Request<'a>) -> Result<Wish, Refusal> {
        let transport: RequestedTransport = request.required()?;
        if transport.protocol() != RequestedTransport::UDP {
            return Err(Refusal::UnsupportedTransport);
        }
        let token = request.optional::<ReservationToken>()?.map(|token| token.token());
        let even_port = request.optional::<EvenPort>()?;
        let has_family = request.has::<RequestedAddressFamily>();
        let additional = request.additional_family()?;
        let both = additional.is_some();
        let keeps_next = even_port.as_ref().is_some_and(EvenPort::requested);
        let senseless = token.is_some() && (even_port.is_some() || has_family || both);
        if senseless || (both && (has_family || keeps_next)) {
            return Err(Refusal::BadRequest);
        }
        if additional.is_some_and(|family| family != AddressFamily::IPV6) {
            return Err(Refusal::BadRequest);
        }
        let family = requested_family(request)?.unwrap_or(Family::V4);
        let parity = match even_port {
            None => Parity::Any,
            Some(_) if keeps_next => Parity::EvenAndNext,
            Some(_) => Parity::Even,
        };
        Ok(Wish { family, both, parity, token })
    }
}

/// REQUESTED-ADDRESS-FAMILY. A family that there is none of is not supported (RFC 8656 §18.6).
pub(super) fn requested_family<'a>(request: &'a Request<'a>) -> Result<Option<Family>, Refusal> {
    if !request.has::<RequestedAddressFamily>() {
        return Ok(None);
    }
    let family = request.optional::<RequestedAddressFamily>().map_err(|_| Refusal::AddressFamilyNotSupported)?;
    Ok(family.map(|family| match family.family() {
        AddressFamily::IPV4 => Family::V4,
        AddressFamily::IPV6 => Family::V6,
    }))
}

impl Turn {
    pub(super) fn allocate<'a>(
        &mut self,
        now: Now,
        route: Route,
        request: &'a Request<'a>,
        account: &Account<'_>,
        ports: &mut impl Ports,
    ) -> Result<(), Refusal> {
        let transaction = request.transaction().into();
        if let Some(id) = self.allocations.live(route, now.instant, ports) {
            let known = self.allocations.get_mut(id).filter(|known| known.origin.transaction == transaction);
            if known.is_none_or(|known| known.seat.user() != account.name.user) {
                return Err(Refusal::AllocationMismatch);
            }
            self.allocated(id, request, account);
            return Ok(());
        }
        if account.name.is_expired(now.unix_ms) {
            return Err(Refusal::Unauthenticated);
        }
        let wish = Wish::read(request)?;
        let lifetime_s = self.granted_lifetime_s(request)?;
        let client = route.destination.ip();
        let seat = self.settings.quotas.take(now.instant, account.name.user, client).map_err(|full| match full {
            Full::User | Full::Address => Refusal::QuotaReached,
            Full::Node => Refusal::InsufficientCapacity,
        })?;
        let expires = now.instant + Duration::from_secs(lifetime_s.into());
        let (relays, second_family_error) = self.take_relays(&wish, account.name.user, expires, now.instant, ports)?;
        let token = match (wish.parity, relays.iter().flatten().next()) {
            (Parity::EvenAndNext, Some(relay)) => {
                let (relay, user) = (relay.address, account.name.user);
                let token = self.allocations.ports.reserve(relay, user, now.instant, &mut self.rng);
                if token.is_none() {
                    self.allocations.ports.release(relay);
                    return Err(Refusal::InsufficientCapacity);
                }
                token
            }
            _ => None,
        };
        let bytes_per_second = self.settings.limits.bytes_per_second;
        self.allocations.insert(
            now.instant,
            Allocation {
                route,
                seat,
                relays,
                permissions: Vec::new(),
                channels: Vec::new(),
                from_client: Bucket::for_media(bytes_per_second, now.instant),
                to_client: Bucket::for_media(bytes_per_second, now.instant),
                new_addresses: Bucket::new(NEW_ADDRESSES_PER_SECOND, NEW_ADDRESSES_BURST, now.instant),
                origin: Origin { transaction, lifetime_s, token, second_family_error },
            },
        );
        self.counts.allocated += 1;
        if let Some(id) = self.allocations.by_route(route) {
            self.allocated(id, request, account);
        }
        Ok(())
    }

    /// The relayed addresses, and why there is no second one if there should be.
    fn take_relays(
        &mut self,
        wish: &Wish,
        user: &str,
        expires: Instant,
        now: Instant,
        ports: &mut impl Ports,
    ) -> Result<([Option<Relay>; 2], Option<u16>), Refusal> {
        let pool = &self.allocations.ports;
        pool.expire(now);
        let relay = |address| Relay { address, expires, is_open: false };
        let mut relays = [None, None];
        if let Some(token) = wish.token {
            let address = pool.redeem(token, user, now).ok_or(Refusal::InsufficientCapacity)?;
            relays[Family::of(address.ip()).index()] = Some(relay(address));
            return Ok((relays, None));
        }
        let families = if wish.both { &[Family::V4, Family::V6][..] } else { &[wish.family] };
        let mut refusal = None;
        for family in families {
            let taken = if !pool.has(*family) {
                Err(Refusal::AddressFamilyNotSupported)
            } else {
                pool.take(*family, wish.parity, &mut self.rng, ports).ok_or(Refusal::InsufficientCapacity)
            };
            match taken {
                Ok(address) => relays[family.index()] = Some(relay(address)),
                Err(why) => refusal = Some(why),
            }
        }
        match refusal {
            Some(refusal) if relays.iter().all(Option::is_none) => Err(refusal),
            refusal => Ok((relays, refusal.map(Refusal::code))),
        }
    }

    /// What is asked for, but between the default and the most (RFC 8656 §7.2).
    pub(super) fn granted_lifetime_s<'a>(&self, request: &'a Request<'a>) -> Result<u32, Refusal> {
        let longest = u32::try_from(self.settings.limits.max_lifetime.as_secs()).unwrap_or(u32::MAX);
        let asked = request.optional::<Lifetime>()?.map_or(0, |lifetime| lifetime.seconds());
        Ok(asked.clamp(DEFAULT_LIFETIME_S, longest.max(DEFAULT_LIFETIME_S)))
    }

    /// The answer to the request that made an allocation, as often as it comes.
    fn allocated(&mut self, id: u32, request: &Request<'_>, account: &Account<'_>) {
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        let (transaction, route, origin) = (request.transaction(), allocation.route, allocation.origin);
        let lifetime = Lifetime::new(origin.lifetime_s);
        let mapped = XorMappedAddress::new(route.destination, transaction);
        let relayed = allocation.relays.map(|relay| relay.map(|r| XorRelayedAddress::new(r.address, transaction)));
        let token = origin.token.map(ReservationToken::new);
        let missing = allocation.relays.iter().position(Option::is_none);
        let second_family = origin.second_family_error.zip(missing).map(|(code, missing)| {
            let family = if missing == Family::V4.index() { AddressFamily::IPV4 } else { AddressFamily::IPV6 };
            AddressErrorCode::new(family, answer::error_code(code))
        });
        let mut attributes: Vec<&dyn AttributeWrite> = Vec::new();
        attributes.extend(relayed.iter().flatten().map(|relayed| relayed as &dyn AttributeWrite));
        attributes.push(&lifetime);
        attributes.push(&mapped);
        attributes.extend(token.iter().map(|token| token as &dyn AttributeWrite));
        attributes.extend(second_family.iter().map(|error| error as &dyn AttributeWrite));
        answer::write(&mut self.to_clients, route, request, MessageClass::Success, Some(&account.key), &attributes);
    }
}
