//! The TURN server (RFC 8656, RFC 8489), without its sockets. PURE.
//!
//! A client behind a strict NAT gets an allocation: an address at our side that its peers send to, and
//! that sends to them. What comes in goes through [`Turn::receive`] (from clients) or [`Turn::relayed`] (from peers);
//! what goes out is written to three outboxes, of which one stays in the process: a peer that is our own media, or a
//! relayed address of ours, is reached without a socket.
//!
//! ```text
//!   client ──▶ receive ──▶ requests: authentication, then allocate, refresh, permission, channel ──▶ to_clients
//!                 └──────▶ data: channel or Send, permission, peer policy, rate ──▶ to_peers, to_ourselves
//!   peer ────▶ relayed ──▶ data: permission, rate ──▶ to_clients
//! ```
//!
//! Each media worker in `net` has one and gives it what its clients send; a client's packets always come to the same
//! worker. Nothing is stored for a client before it has proved its address with a nonce and its name with a signature.
//! Left out, as no browser and no Matrix client uses them and each has cost other servers dear: TCP allocations
//! (RFC 6062), mobility (RFC 8016), OAuth (RFC 7635), and SHA-256 integrity, whose user hashes cannot be looked up
//! when no users are stored.

mod allocate;
mod allocation;
mod allocations;
mod answer;
mod authentication;
mod channel;
mod counts;
pub mod credentials;
mod expiry;
pub mod framing;
mod nonce;
pub mod peer_policy;
mod permission;
pub mod quotas;
pub mod rate;
mod refresh;
pub mod relay_ports;
mod relaying;
pub mod reply_limit;
mod request;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use stun_types::attribute::XorMappedAddress;
use stun_types::message::{BINDING, IntegrityKey, MessageClass};
use stun_types::prelude::*;
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND};

use allocation::{Family, Way};
use allocations::Allocations;
pub use answer::Refusal;
pub use counts::{Counts, Dropped, Relayed};
use credentials::Credentials;
use nonce::Nonces;
use peer_policy::PeerPolicy;
use quotas::Quotas;
use relay_ports::RelayPorts;
use reply_limit::ReplyLimit;
use request::Request;

use crate::sfu::Now;
use crate::transport::{Outbox, Protocol, Route};

/// What a server is told. Cloned for each worker; `worker` and `seed` differ.
#[derive(Clone)]
pub struct Settings {
    /// 128 characters at most (RFC 8489 §14.9).
    pub realm: String,
    pub credentials: Arc<Credentials>,
    /// The same for all workers, secret, new at each start.
    pub nonce_key: [u8; 32],
    /// The relayed addresses of this server. Without any, TURN is off, and Binding requests are answered.
    pub relay_ports: Arc<RelayPorts>,
    pub worker: usize,
    pub policy: Arc<PeerPolicy>,
    pub quotas: Arc<Quotas>,
    pub limits: Limits,
    /// Where our own media is received by UDP: peers that are served in the process.
    pub media: Vec<SocketAddr>,
    /// For port numbers, tokens and transaction ids that nobody can guess.
    pub seed: u64,
}

/// What one allocation, and one source that has not proved to be one, may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of payload, in each direction of an allocation; what is more is dropped.
    pub bytes_per_second: u64,
    /// The longest lifetime granted; at least 600 s.
    pub max_lifetime: Duration,
    /// Answers by UDP to requests of one source address that are not signed: 400, 401 and 438. Twice as many at once.
    pub refusals_per_second: u32,
    /// The same of Binding responses, and as many at once.
    pub bindings_per_second: u32,
}

impl Default for Limits {
    /// 25 Mbit/s: several videos. An hour is what RFC 8656 §7.2 recommends as the most. A client is refused a few times when
    /// it starts, on each of its networks, and several share an address; Binding requests also keep their NATs open.
    fn default() -> Self {
        Limits {
            bytes_per_second: 25_000_000 / 8,
            max_lifetime: Duration::from_secs(3600),
            refusals_per_second: 20,
            bindings_per_second: 100,
        }
    }
}

/// What only the operating system can do; `net` does it, tests pretend to.
pub trait Ports {
    /// Whether a relayed address could be bound now, as another program may have it. Asked at Allocate; keeps nothing.
    fn is_free(&mut self, relay: SocketAddr) -> bool;
    /// Opens the socket of a relayed address, when the first peer outside this server is permitted. False: it cannot.
    fn open(&mut self, relay: SocketAddr) -> bool;
    /// Closes what `open` opened.
    fn close(&mut self, relay: SocketAddr);
}

/// One worker's part of the server.
pub struct Turn {
    settings: Settings,
    nonces: Nonces,
    allocations: Allocations,
    rng: StdRng,
    refusals: ReplyLimit,
    bindings: ReplyLimit,
    to_clients: Outbox,
    to_peers: Outbox,
    to_ourselves: Outbox,
    counts: Counts,
}

impl Turn {
    pub fn new(settings: Settings) -> Turn {
        let Limits { refusals_per_second: refusals, bindings_per_second: bindings, .. } = settings.limits;
        Turn {
            nonces: Nonces::new(&settings.nonce_key),
            allocations: Allocations::new(&settings),
            rng: StdRng::seed_from_u64(settings.seed),
            refusals: ReplyLimit::new(refusals, refusals.saturating_mul(2), settings.seed),
            bindings: ReplyLimit::new(bindings, bindings, settings.seed),
            to_clients: Outbox::default(),
            to_peers: Outbox::default(),
            to_ourselves: Outbox::default(),
            counts: Counts::default(),
            settings,
        }
    }

    /// A datagram, or one message of a stream, from a client. `route` is the way back: from our address that it came to, to
    /// the client's.
    pub fn receive(&mut self, now: Now, route: Route, message: &[u8], ports: &mut impl Ports) {
        match message {
            [0x40..=0x7f, ..] => self.channel_data(now.instant, route, message),
            [0..=3, ..] => self.stun(now, route, message, ports),
            _ => self.counts.drop(Dropped::Malformed),
        }
    }

    fn stun(&mut self, now: Now, route: Route, message: &[u8], ports: &mut impl Ports) {
        let Some(request) = Request::parse(message) else {
            self.counts.drop(Dropped::Malformed);
            return;
        };
        match (request.kind().class(), request.method()) {
            (MessageClass::Request, BINDING) => self.binding(now, route, &request),
            (MessageClass::Request, ALLOCATE | REFRESH | CREATE_PERMISSION | CHANNEL_BIND) => {
                self.request(now, route, &request, ports);
            }
            (MessageClass::Indication, SEND) => self.send_indication(now.instant, route, &request),
            // Keeps a NAT open (RFC 8489 §7.3.2).
            (MessageClass::Indication, BINDING) => {}
            _ => self.counts.drop(Dropped::Unexpected),
        }
    }

    /// What a client's address looks like from here (RFC 8489 §7.3.1). Not authenticated; the answer is the least there is.
    fn binding(&mut self, now: Now, route: Route, request: &Request<'_>) {
        if route.protocol == Protocol::Udp && !self.bindings.allows(now.instant, route.destination.ip()) {
            self.counts.drop(Dropped::Unanswered);
            return;
        }
        let unknown = request.unknown();
        if !unknown.types().is_empty() {
            self.counts.refuse(Refusal::UnknownAttribute);
            let unknown = answer::unknown_attributes(unknown.types());
            let error = answer::error_code(Refusal::UnknownAttribute.code());
            answer::write(&mut self.to_clients, route, request, MessageClass::Error, None, &[&error, &unknown]);
            return;
        }
        self.counts.bindings += 1;
        let mapped = XorMappedAddress::new(route.destination, request.transaction());
        answer::write(&mut self.to_clients, route, request, MessageClass::Success, None, &[&mapped]);
    }

    /// A request that only an authenticated client may make.
    fn request(&mut self, now: Now, route: Route, request: &Request<'_>, ports: &mut impl Ports) {
        if self.allocations.ports.is_empty() {
            return self.refuse(now, route, request, None, Refusal::Forbidden);
        }
        let account = match self.authenticate(now, route, request) {
            Ok(account) => account,
            Err(refusal) => return self.refuse(now, route, request, None, refusal),
        };
        let done = if !request.unknown().types().is_empty() {
            Err(Refusal::UnknownAttribute)
        } else {
            match request.method() {
                ALLOCATE => self.allocate(now, route, request, &account, ports),
                REFRESH => self.refresh(now.instant, route, request, &account, ports),
                CREATE_PERMISSION => self.create_permission(now.instant, route, request, &account, ports),
                _ => self.channel_bind(now.instant, route, request, &account, ports),
            }
        };
        match done {
            Ok(()) => {}
            // Its name has run out: as if it had none.
            Err(Refusal::Unauthenticated) => self.refuse(now, route, request, None, Refusal::Unauthenticated),
            Err(refusal) => self.refuse(now, route, request, Some(&account.key), refusal),
        }
    }

    /// Without a key nothing is known of who asks, and there is a limit to such answers. On a stream there need not be: its
    /// source is no forgery, and the client would not ask again.
    fn refuse(&mut self, now: Now, route: Route, request: &Request<'_>, key: Option<&IntegrityKey>, refusal: Refusal) {
        let client = route.destination;
        if key.is_none() && route.protocol == Protocol::Udp && !self.refusals.allows(now.instant, client.ip()) {
            self.counts.drop(Dropped::Unanswered);
            return;
        }
        self.counts.refuse(refusal);
        let error = answer::error_code(refusal.code());
        match refusal {
            Refusal::Unauthenticated | Refusal::StaleNonce => {
                let nonce = self.nonces.issue(now.unix_ms, client);
                let (realm, nonce) = answer::challenge(&self.settings.realm, &nonce);
                let attributes: [&dyn AttributeWrite; 3] = [&error, &realm, &nonce];
                answer::write(&mut self.to_clients, route, request, MessageClass::Error, key, &attributes);
            }
            Refusal::UnknownAttribute => {
                let unknown = answer::unknown_attributes(request.unknown().types());
                answer::write(&mut self.to_clients, route, request, MessageClass::Error, key, &[&error, &unknown]);
            }
            _ => answer::write(&mut self.to_clients, route, request, MessageClass::Error, key, &[&error]),
        }
    }

    /// A client's TCP or TLS connection is gone, and with it its allocation.
    pub fn disconnected(&mut self, _now: Now, route: Route, ports: &mut impl Ports) {
        if let Some(id) = self.allocations.by_route(route) {
            self.allocations.remove(id, ports);
        }
    }

    /// Whether a client has an allocation: its connection is of use then.
    pub fn has_allocation(&self, route: &Route) -> bool {
        self.allocations.by_route(*route).is_some()
    }

    /// When [`Turn::handle_timeout`] has something to do, in whole seconds: never more than one of them a second.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.allocations.next_timeout()
    }

    pub fn handle_timeout(&mut self, now: Now, ports: &mut impl Ports) {
        self.allocations.expire(now.instant, ports);
    }

    /// The worker that a relayed address of this server belongs to. It may have no allocation.
    pub fn owner(&self, address: SocketAddr) -> Option<usize> {
        self.allocations.ports.holder(address).map(|holder| holder.worker)
    }

    /// Route: from ours to the client's. ChannelData on a stream is padded.
    pub fn to_clients(&mut self) -> &mut Outbox {
        &mut self.to_clients
    }

    /// Route: from a relayed address whose socket is open, to a peer outside this server.
    pub fn to_peers(&mut self) -> &mut Outbox {
        &mut self.to_peers
    }

    /// Route: from a relayed address, to our media or to a relayed address of another worker.
    pub fn to_ourselves(&mut self) -> &mut Outbox {
        &mut self.to_ourselves
    }

    pub fn counts(&self) -> Counts {
        let mut counts = self.counts;
        counts.allocations = self.allocations.len() as u64;
        counts
    }

    /// How `peer` is reached, `None` if it must not be.
    fn way_to(&self, peer: SocketAddr) -> Option<Way> {
        if self.settings.media.contains(&peer) {
            Some(Way::Media)
        } else if self.owner(peer).is_some() {
            Some(Way::Relayed)
        } else if self.is_ourselves(peer.ip()) {
            None
        } else {
            self.settings.policy.permits_port(peer).ok().map(|()| Way::Foreign)
        }
    }

    /// Whether `ip` is one where our media or relayed addresses are.
    fn is_ourselves(&self, ip: IpAddr) -> bool {
        self.allocations.ports.is_ours(ip) || self.settings.media.iter().any(|media| media.ip() == ip)
    }
}
