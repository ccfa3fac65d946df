//! To whom we relay.
//!
//! A TURN server sends what strangers give it to whom they name: without a policy it opens the network it stands in,
//! loopback and cloud metadata first. The core asks at CreatePermission ([`PeerPolicy::permits`]), and at ChannelBind and
//! Send, where the port is known ([`PeerPolicy::permits_port`]).
//!
//! In order: an IPv6 address that carries an IPv4 one is judged by that and refused in any case; our own addresses and
//! back ends are refused; so are ranges that are never a peer (*hard*) and those of the operator's `deny`; private
//! networks (*soft*) are refused unless in the operator's `allow`; everything else is permitted.
//!
//! `matrix::address_guard` answers a different question with a similar list: whom we ask on a stranger's behalf. There
//! the operator may open everything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

/// Never a peer (IANA special-purpose registry), and two public-looking addresses at which clouds serve machine
/// credentials.
const HARD_V4: [Ipv4Net; 13] = [
    v4([0, 0, 0, 0], 8),          // this network; reaches loopback on Linux
    v4([100, 100, 100, 200], 32), // Alibaba's metadata, inside a soft range
    v4([127, 0, 0, 0], 8),        // loopback
    v4([168, 63, 129, 16], 32),   // Azure's host service
    v4([169, 254, 0, 0], 16),     // link-local, where most clouds serve metadata
    v4([192, 0, 0, 0], 24),       // protocol assignments
    v4([192, 0, 2, 0], 24),       // documentation
    v4([192, 88, 99, 0], 24),     // 6to4 relays
    v4([198, 18, 0, 0], 15),      // benchmarking
    v4([198, 51, 100, 0], 24),    // documentation
    v4([203, 0, 113, 0], 24),     // documentation
    v4([224, 0, 0, 0], 4),        // multicast
    v4([240, 0, 0, 0], 4),        // reserved, broadcast
];

/// Private networks: an operator whose callers are in one may open it.
const SOFT_V4: [Ipv4Net; 4] =
    [v4([10, 0, 0, 0], 8), v4([100, 64, 0, 0], 10), v4([172, 16, 0, 0], 12), v4([192, 168, 0, 0], 16)];

/// All that IANA has given out as global unicast. What is outside is loopback, link-local, multicast, NAT64, or has no
/// meaning yet.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// Unique-local addresses, the private networks of IPv6.
const SOFT_V6: Ipv6Net = v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7);

/// Exceptions inside [`GLOBAL_V6`] and [`SOFT_V6`].
const HARD_V6: [Ipv6Net; 7] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), // protocol assignments: Teredo, benchmarking, ORCHID
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), // documentation
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), // 6to4
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), // documentation
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128), // Oracle's metadata
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), // Amazon's metadata
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), // Google's metadata
];

/// IPv4 addresses in the last 32 bits: mapped, compatible (deprecated), SIIT's, well-known NAT64.
const IPV4_LAST: [Ipv6Net; 4] = [
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96),
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96),
];

/// NAT64 for use inside one network (RFC 8215).
const LOCAL_NAT64: Ipv6Net = v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);

const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

/// Lengths that a NAT64 prefix may have (RFC 6052 §2.2).
const NAT64_LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// Below are services, no caller; except where media goes to get through firewalls.
const LEAST_PORT: u16 = 1024;
const OPEN_BELOW: u16 = 443;

/// UDP services that answer with more than they are sent: we would be a source that hides the attacker's.
const REFLECTORS: [u16; 8] = [
    1434,  // SQL Server resolution
    1900,  // SSDP
    3283,  // Apple Remote Desktop
    3702,  // WS-Discovery
    5353,  // multicast DNS
    5683,  // CoAP
    10001, // Ubiquiti discovery
    11211, // memcached
];

/// What an operator says about peers, and what a server knows about itself.
#[derive(Debug, Clone, Default)]
pub struct PeerRules {
    /// Private networks that may be relayed to.
    pub allow: Vec<IpNet>,
    /// Networks that may not, besides those that never may.
    pub deny: Vec<IpNet>,
    /// NAT64 prefixes of the network we stand in, besides the well-known ones.
    pub nat64: Vec<Ipv6Net>,
    /// Addresses of this machine's interfaces and those that clients are told.
    pub ourselves: Vec<IpAddr>,
    /// Homeserver, databases and whatever else trusts us.
    pub back_ends: Vec<IpAddr>,
}

/// Why a rule cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadRule {
    #[error(
        "{0} can never be relayed to: loopback, link-local, multicast, documentation, metadata and unassigned addresses stay closed"
    )]
    AllowsHard(IpNet),
    #[error(
        "{0} is not inside a private network (10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16, fc00::/7); public addresses need no rule"
    )]
    AllowsPublic(IpNet),
    #[error("{0} is no NAT64 prefix: such have 32, 40, 48, 56, 64 or 96 bits")]
    Nat64Length(Ipv6Net),
}

/// Why a peer is refused; the answer is 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Never a peer.
    Hard,
    /// A private network that the operator has not opened.
    Soft,
    /// An IPv6 form of an IPv4 address that would be permitted as such.
    Embedded,
    /// The operator's `deny`.
    Operator,
    /// An address of this machine.
    Ourselves,
    /// A service that we depend on.
    BackEnd,
    Port,
}

#[derive(Debug, Clone)]
pub struct PeerPolicy {
    rules: PeerRules,
}

impl PeerPolicy {
    pub fn new(mut rules: PeerRules) -> Result<PeerPolicy, BadRule> {
        rules.allow.iter().try_for_each(|net| may_be_allowed(*net))?;
        if let Some(prefix) = rules.nat64.iter().find(|prefix| !NAT64_LENGTHS.contains(&prefix.prefix_len())) {
            return Err(BadRule::Nat64Length(*prefix));
        }
        for own in rules.ourselves.iter_mut().chain(&mut rules.back_ends) {
            *own = own.to_canonical();
        }
        Ok(PeerPolicy { rules })
    }

    /// Whether data may go to `peer` at all.
    pub fn permits(&self, peer: IpAddr) -> Result<(), Denied> {
        let IpAddr::V6(address) = peer else { return self.permits_plain(peer) };
        match self.embedded(address) {
            Some(ipv4) => self.permits_plain(ipv4.into()).and(Err(Denied::Embedded)),
            None => self.permits_plain(peer),
        }
    }

    /// Whether data may go to this port of `peer`.
    pub fn permits_port(&self, peer: SocketAddr) -> Result<(), Denied> {
        let port = peer.port();
        let open = (port >= LEAST_PORT || port == OPEN_BELOW) && !REFLECTORS.contains(&port);
        self.permits(peer.ip()).and(if open { Ok(()) } else { Err(Denied::Port) })
    }

    fn permits_plain(&self, peer: IpAddr) -> Result<(), Denied> {
        let rules = &self.rules;
        if rules.ourselves.contains(&peer) {
            Err(Denied::Ourselves)
        } else if rules.back_ends.contains(&peer) {
            Err(Denied::BackEnd)
        } else if is_hard(peer) {
            Err(Denied::Hard)
        } else if rules.deny.iter().any(|net| net.contains(&peer)) {
            Err(Denied::Operator)
        } else if is_soft(peer) && !rules.allow.iter().any(|net| net.contains(&peer)) {
            Err(Denied::Soft)
        } else {
            Ok(())
        }
    }

    /// The IPv4 address that `address` carries.
    fn embedded(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let within = |net: &Ipv6Net| net.contains(&address);
        let bits = address.to_bits();
        if address.is_unspecified() || address.is_loopback() {
            None
        } else if IPV4_LAST.iter().any(within) {
            Some(Ipv4Addr::from_bits(bits as u32))
        } else if within(&SIX_TO_FOUR) {
            Some(Ipv4Addr::from_bits((bits >> 80) as u32))
        } else {
            let prefix = self.rules.nat64.iter().chain([&LOCAL_NAT64]).find(|prefix| within(prefix))?;
            Some(behind_nat64(bits, prefix.prefix_len()))
        }
    }
}

/// RFC 6052 §2.2: the IPv4 address follows the prefix, but for the bits 64 to 71, which it leaps over.
fn behind_nat64(bits: u128, prefix_length: u8) -> Ipv4Addr {
    let (before, after) = (bits >> 64, bits << 72 >> 72);
    let without_gap = (before << 56 | after) << 8;
    let start = if prefix_length > 64 { prefix_length - 8 } else { prefix_length };
    Ipv4Addr::from_bits((without_gap << start >> 96) as u32)
}

fn is_hard(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => HARD_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => {
            !(GLOBAL_V6.contains(&address) || SOFT_V6.contains(&address))
                || HARD_V6.iter().any(|net| net.contains(&address))
        }
    }
}

fn is_soft(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => SOFT_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => SOFT_V6.contains(&address),
    }
}

/// An `allow` must lie in one private network as a whole; what in there is hard stays closed.
fn may_be_allowed(net: IpNet) -> Result<(), BadRule> {
    let (soft, hard) = match net {
        IpNet::V4(net) => {
            (SOFT_V4.iter().any(|soft| soft.contains(&net)), HARD_V4.iter().any(|hard| hard.contains(&net)))
        }
        IpNet::V6(net) => {
            let open = [GLOBAL_V6, SOFT_V6];
            let outside = !open.iter().any(|open| open.contains(&net) || net.contains(open));
            (SOFT_V6.contains(&net), outside || HARD_V6.iter().any(|hard| hard.contains(&net)))
        }
    };
    match (hard, soft) {
        (true, _) => Err(BadRule::AllowsHard(net)),
        (false, true) => Ok(()),
        (false, false) => Err(BadRule::AllowsPublic(net)),
    }
}

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length)
}

#[cfg(test)]
mod tests;
