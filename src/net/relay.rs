//! A worker's TURN server with the sockets of its relayed addresses. [`Wire`](super::wire::Wire) gives it what came for it and
//! carries on what it writes: to clients, to peers, and to addresses of this very process.
//!
//! It outlives the rooms when they panic, and only what panicked itself is made anew.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use mio::Token;

use super::receive::Receiver;
use super::relay_sockets::RelaySockets;
use super::send::Sender;
use crate::livekit::IceServers;
use crate::livekit::ice_servers::turn_urls;
use crate::metrics::Metrics;
use crate::sfu::{Now, WorkerId};
use crate::transport::{Outbox, Protocol, Route};
use crate::turn::credentials::Credentials;
use crate::turn::peer_policy::PeerPolicy;
use crate::turn::quotas::Quotas;
use crate::turn::relay_ports::RelayPorts;
use crate::turn::{self, Settings, Turn};

/// What the TURN server needs to start.
#[derive(Clone)]
pub struct TurnOptions {
    /// False: Binding requests are answered, and nothing else.
    pub enabled: bool,
    pub realm: String,
    pub credentials: Arc<Credentials>,
    /// Where relayed addresses are, at most one of each family; empty: the first candidates.
    pub relay_addresses: Vec<IpAddr>,
    pub relay_ports: RangeInclusive<u16>,
    pub policy: Arc<PeerPolicy>,
    pub quotas: Arc<Quotas>,
    pub limits: turn::Limits,
    /// Host and port of the TLS listener, as clients see it.
    pub tls: Option<(String, u16)>,
}

impl TurnOptions {
    /// What clients are told; `None`: nothing.
    pub(super) fn ice_servers(&self, candidates: &[(Protocol, SocketAddr)]) -> Option<IceServers> {
        let tls = self.tls.as_ref().map(|(host, port)| (host.as_str(), *port));
        let servers = IceServers::new(turn_urls(candidates, tls), self.credentials.clone());
        servers.filter(|_| self.enabled)
    }
}

pub(super) struct Relay {
    turn: Turn,
    settings: Settings,
    sockets: RelaySockets,
    /// What the metrics know already.
    counted: turn::Counts,
    /// Between a call and its return: found true when that call panicked.
    at_work: bool,
}

/// What the TURN servers of all workers have in common.
pub(super) fn settings(options: &TurnOptions, candidates: &[(Protocol, SocketAddr)]) -> Settings {
    let media: Vec<SocketAddr> = candidates.iter().filter(|(p, _)| *p == Protocol::Udp).map(|(_, a)| *a).collect();
    let relays = match (options.enabled, options.relay_addresses.is_empty()) {
        (false, _) => Vec::new(),
        (true, true) => media.iter().map(SocketAddr::ip).collect(),
        (true, false) => options.relay_addresses.clone(),
    };
    Settings {
        realm: options.realm.clone(),
        credentials: options.credentials.clone(),
        nonce_key: rand::random(),
        relay_ports: RelayPorts::new(&relays, options.relay_ports.clone()),
        worker: 0,
        policy: options.policy.clone(),
        quotas: options.quotas.clone(),
        limits: options.limits,
        media,
        seed: 0,
    }
}

impl Relay {
    pub fn new(worker: WorkerId, settings: Settings, sockets: RelaySockets) -> Relay {
        let settings = Settings { worker: worker.index(), seed: rand::random(), ..settings };
        Relay { turn: Turn::new(settings.clone()), settings, sockets, counted: turn::Counts::default(), at_work: false }
    }

    /// The worker that a relayed address of this process belongs to.
    pub fn owner(&self, address: SocketAddr) -> Option<WorkerId> {
        self.turn.owner(address).and_then(WorkerId::new)
    }

    pub fn is_relayed(&self, address: SocketAddr) -> bool {
        self.turn.owner(address).is_some()
    }

    /// A datagram, or a message of a stream, from a client.
    pub fn receive(&mut self, now: Now, route: Route, message: &[u8]) {
        self.at_work = true;
        self.turn.receive(now, route, message, &mut self.sockets);
        self.at_work = false;
    }

    /// A datagram to one of this worker's relayed addresses that did not come through its socket.
    pub fn relayed(&mut self, now: Now, relay: SocketAddr, peer: SocketAddr, bytes: &[u8]) {
        self.at_work = true;
        self.turn.relayed(now, relay, peer, bytes);
        self.at_work = false;
    }

    /// Reads the socket of a relayed address.
    pub fn read(&mut self, now: Now, token: Token, receiver: &mut Receiver) {
        self.at_work = true;
        let turn = &mut self.turn;
        self.sockets.receive(token, receiver, |relay, arrival| turn.relayed(now, relay, arrival.source, arrival.bytes));
        self.at_work = false;
    }

    pub fn disconnected(&mut self, now: Now, route: Route) {
        self.at_work = true;
        self.turn.disconnected(now, route, &mut self.sockets);
        self.at_work = false;
    }

    pub fn has_unread(&self) -> bool {
        self.sockets.has_unread()
    }

    /// Adds the sockets that were left with something to read to those that are `ready`.
    pub fn take_unread(&mut self, ready: &mut Vec<Token>) {
        self.sockets.take_unread(ready);
    }

    // --- out -----------------------------------------------------------------------------------------------------

    /// What is to be sent to clients; the caller clears it.
    pub fn for_clients(&mut self) -> &mut Outbox {
        self.turn.to_clients()
    }

    /// What goes from relayed addresses to others of this process; the caller clears it.
    pub fn for_ourselves(&mut self) -> &mut Outbox {
        self.turn.to_ourselves()
    }

    pub fn send_to_peers(&mut self, sender: &mut Sender) {
        let outbox = self.turn.to_peers();
        if !outbox.is_empty() {
            self.sockets.send(outbox, sender);
            outbox.clear();
        }
    }

    /// After a panic of this worker: when it was the TURN server's, its allocations are lost. Whether it was.
    pub fn recover(&mut self) -> bool {
        let lost = std::mem::take(&mut self.at_work);
        if lost {
            self.sockets.close_all();
            self.turn = Turn::new(self.settings.clone());
            // The new one counts from zero; those that the metrics know as living are gone.
            let allocations = self.counted.allocations;
            self.counted = turn::Counts::default();
            self.counted.allocations = allocations;
        }
        lost
    }

    /// Whether a client's connection is of use.
    pub fn has_allocation(&self, route: &Route) -> bool {
        self.turn.has_allocation(route)
    }

    /// Brings the metrics up to date.
    pub fn count(&mut self, metrics: &Metrics) {
        let counts = self.turn.counts();
        metrics.turn(&counts, &self.counted);
        self.counted = counts;
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.turn.next_timeout()
    }

    pub fn handle_timeout(&mut self, now: Now) {
        self.at_work = true;
        self.turn.handle_timeout(now, &mut self.sockets);
        self.at_work = false;
    }
}
