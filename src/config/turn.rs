//! `[turn]`: the TURN server.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv6Net};

use super::source::Source;
use super::{Secret, network, parsed, positive, public_address};
use crate::turn::peer_policy::{PeerPolicy, PeerRules};
use crate::turn::quotas::QuotaLimits;

/// The dynamic ports of RFC 6335, which firewalls and other servers expect relayed addresses in.
const RELAY_PORTS: RangeInclusive<u16> = 49152..=65535;

/// Below are the ports of services, and binding them takes rights.
const LEAST_RELAY_PORT: u16 = 1024;

/// Two devices of one person in a call each: a device makes about six, over UDP, TCP and TLS for two connections.
const ALLOCATIONS_PER_USER: u32 = 12;

/// A hundred people of an office or of a mobile network behind one address.
const ALLOCATIONS_PER_ADDRESS: u32 = 1_200;

/// Each takes a port of [`RELAY_PORTS`], of which there are 16,384, and a few kilobytes.
const ALLOCATIONS: u32 = 10_000;

/// Above a shared screen or a meeting's worth of videos, far below what would pay for abuse.
const MEGABITS_PER_ALLOCATION: u32 = 25;
const MEGABITS_PER_USER: u32 = 50;

const BYTES_PER_MEGABIT: u64 = 125_000;

#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub enabled: bool,
    /// Goes into every user's key; clients are told it.
    pub realm: String,
    /// The homeserver's `turn_shared_secret`. Without it only participants of our own rooms and callers of `/turn` get in.
    pub shared_secret: Option<Secret>,
    /// Accepted too, so that credentials given out before a change stay good.
    pub previous_shared_secret: Option<Secret>,
    pub relay_ports: RangeInclusive<u16>,
    /// At most one of each family; empty = the first of each among the media's addresses.
    pub relay_addresses: Vec<IpAddr>,
    /// Private networks that may be relayed to; checked already.
    pub allow_peers: Vec<IpNet>,
    pub deny_peers: Vec<IpNet>,
    pub nat64_prefixes: Vec<Ipv6Net>,
    pub allocations_per_user: u32,
    pub allocations_per_address: u32,
    pub allocations: u32,
    /// Per second, in each direction.
    pub megabits_per_allocation: u32,
    /// Per second, of all of the user's allocations, both directions added.
    pub megabits_per_user: u32,
}

impl Turn {
    pub(super) fn read(s: &mut Source, server_name: Option<&str>, media_port: u16) -> Turn {
        let cidr = "a network such as 10.0.0.0/8";
        let count = "a whole number of at least 1";
        let number = |s: &mut Source, key, default| s.value(key, positive, count).unwrap_or(default);
        let same = "Set the same one as turn_shared_secret of the homeserver";
        let turn = Turn {
            enabled: s.value("turn.enabled", parsed, "true or false").unwrap_or(true),
            realm: s
                .value("turn.realm", realm, "a name of 1 to 127 characters, such as example.org")
                .unwrap_or_else(|| server_name.unwrap_or_default().to_owned()),
            shared_secret: s.secret("turn.shared_secret", same),
            previous_shared_secret: s
                .secret("turn.previous_shared_secret", "Leave it out once the credentials made with it have expired"),
            relay_ports: s
                .value("turn.relay_ports", port_range, "two ports from 1024 to 65535, such as 49152-65535")
                .unwrap_or(RELAY_PORTS),
            relay_addresses: s
                .list("turn.relay_addresses", public_address, "an address of this machine, such as 198.51.100.7")
                .unwrap_or_default(),
            allow_peers: s.list("turn.allow_peers", network, cidr).unwrap_or_default(),
            deny_peers: s.list("turn.deny_peers", network, cidr).unwrap_or_default(),
            nat64_prefixes: s
                .list("turn.nat64_prefixes", nat64_prefix, "a NAT64 prefix such as 2001:db8:64::/96")
                .unwrap_or_default(),
            allocations_per_user: number(s, "turn.allocations_per_user", ALLOCATIONS_PER_USER),
            allocations_per_address: number(s, "turn.allocations_per_address", ALLOCATIONS_PER_ADDRESS),
            allocations: number(s, "turn.allocations", ALLOCATIONS),
            megabits_per_allocation: number(s, "turn.megabits_per_allocation", MEGABITS_PER_ALLOCATION),
            megabits_per_user: number(s, "turn.megabits_per_user", MEGABITS_PER_USER),
        };
        if turn.relay_ports.contains(&media_port) {
            s.refuse("turn.relay_ports", format!("contains {media_port}, the port of media.udp; choose ports apart"));
        }
        for v4 in [true, false] {
            if turn.relay_addresses.iter().filter(|address| address.is_ipv4() == v4).count() > 1 {
                s.refuse("turn.relay_addresses", "has two addresses of one family; keep one IPv4 and one IPv6".into());
            }
        }
        for net in &turn.allow_peers {
            if let Err(bad) = PeerPolicy::new(PeerRules { allow: vec![*net], ..PeerRules::default() }) {
                s.refuse("turn.allow_peers", bad.to_string());
            }
        }
        turn
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.previous_shared_secret.is_some() && self.shared_secret.is_none() {
            warnings.push(
                "turn.previous_shared_secret: there is no turn.shared_secret beside it, so the credentials that the homeserver makes from now on are refused".to_owned(),
            );
        }
        let ports = u32::from(self.relay_ports.end() - self.relay_ports.start()) + 1;
        if self.enabled && ports < self.allocations.min(ALLOCATIONS_PER_ADDRESS) {
            warnings.push(format!(
                "turn.relay_ports: has {ports} ports, and each allocation takes one; a caller makes up to six"
            ));
        }
        warnings
    }

    /// The operator's rules; what the server knows about itself is still to be added.
    pub fn peer_rules(&self) -> PeerRules {
        PeerRules {
            allow: self.allow_peers.clone(),
            deny: self.deny_peers.clone(),
            nat64: self.nat64_prefixes.clone(),
            ..PeerRules::default()
        }
    }

    pub fn quota_limits(&self) -> QuotaLimits {
        QuotaLimits {
            per_user: self.allocations_per_user,
            per_address: self.allocations_per_address,
            all: self.allocations,
            user_bytes_per_second: u64::from(self.megabits_per_user) * BYTES_PER_MEGABIT,
        }
    }

    pub fn allocation_bytes_per_second(&self) -> u64 {
        u64::from(self.megabits_per_allocation) * BYTES_PER_MEGABIT
    }
}

/// RFC 8489 §14.9 has room for fewer than 128 characters; a quote or a backslash would need escaping.
fn realm(text: &str) -> Option<String> {
    let fits = (1..128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'));
    fits.then(|| text.to_owned())
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let (first, last): (u16, u16) = (parsed(first.trim())?, parsed(last.trim())?);
    (LEAST_RELAY_PORT <= first && first <= last).then_some(first..=last)
}

fn nat64_prefix(text: &str) -> Option<Ipv6Net> {
    let prefix = parsed::<Ipv6Net>(text)?.trunc();
    PeerPolicy::new(PeerRules { nat64: vec![prefix], ..PeerRules::default() }).is_ok().then_some(prefix)
}
