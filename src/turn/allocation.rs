//! What a client has at the server: relayed addresses, the peers it lets send to them, and channels (RFC 8656 §3).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::quotas::Seat;
use super::rate::Bucket;
use crate::transport::Route;

/// RFC 8656 §9.
pub(super) const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);

/// RFC 8656 §12.
pub(super) const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// Peers that may send to one allocation. A call has a handful; each costs 72 bytes.
pub(super) const MAX_PERMISSIONS: usize = 32;

/// The same of channels: one for each address of a peer that media really goes to.
pub(super) const MAX_CHANNELS: usize = 32;

/// Ports of one peer that are remembered as checked; ICE tries a few at a time. One more takes the oldest one's place.
const REMEMBERED_PORTS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub fn index(self) -> usize {
        self as usize
    }
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Through the socket of the relayed address.
    Foreign,
    /// It is where our own media is received.
    Media,
    /// It is a relayed address of this server.
    Relayed,
}

pub(super) struct Allocation {
    /// To the client.
    pub route: Route,
    pub seat: Seat,
    /// By [`Family`].
    pub relays: [Option<Relay>; 2],
    pub permissions: Vec<Permission>,
    pub channels: Vec<Channel>,
    pub from_client: Bucket,
    pub to_client: Bucket,
    /// How many new addresses of peers it may send to.
    pub new_addresses: Bucket,
    pub origin: Origin,
}

/// The Allocate request that made it, for when it comes again (RFC 8656 §7.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub transaction: u128,
    pub lifetime_s: u32,
    pub token: Option<u64>,
    /// The error code for the second family, if it was asked for and could not be had.
    pub second_family_error: Option<u16>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Relay {
    pub address: SocketAddr,
    pub expires: Instant,
    /// It has a socket.
    pub is_open: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Permission {
    pub peer: IpAddr,
    pub expires: Instant,
    /// Ports of the peer that were checked, and how they are reached.
    ports: [Option<(u16, Way)>; REMEMBERED_PORTS],
    next_port: u8,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Channel {
    pub number: u16,
    pub peer: SocketAddr,
    pub way: Way,
    pub expires: Instant,
    /// Where in `permissions` that of the peer was last.
    permission: u8,
}

impl Allocation {
    /// When the first of its relayed addresses ends.
    pub fn deadline(&self) -> Option<Instant> {
        self.relays.iter().flatten().map(|relay| relay.expires).min()
    }

    pub fn relay(&self, family: Family, now: Instant) -> Option<&Relay> {
        self.relays[family.index()].as_ref().filter(|relay| relay.expires > now)
    }

    pub fn permission(&mut self, peer: IpAddr, now: Instant) -> Option<&mut Permission> {
        self.permissions.iter_mut().find(|permission| permission.peer == peer && permission.expires > now)
    }

    /// Whether so many peers more could be permitted, by room for those that are not.
    pub fn has_room_for(&self, peers: &[IpAddr], now: Instant) -> bool {
        let live = self.permissions.iter().filter(|permission| permission.expires > now);
        let others = live.filter(|permission| !peers.contains(&permission.peer)).count();
        others + peers.len() <= MAX_PERMISSIONS
    }

    /// Permits `peer`, or does so for longer. Takes the place of one that has run out, so that the others keep theirs and
    /// channels find them. False: there are too many.
    pub fn permit(&mut self, peer: IpAddr, now: Instant) -> bool {
        let new =
            Permission { peer, expires: now + PERMISSION_LIFETIME, ports: [None; REMEMBERED_PORTS], next_port: 0 };
        if let Some(known) = self.permissions.iter_mut().find(|permission| permission.peer == peer) {
            known.expires = new.expires;
            return true;
        }
        let place = match self.permissions.iter().position(|permission| permission.expires <= now) {
            Some(place) => {
                self.permissions[place] = new;
                place
            }
            None if self.permissions.len() >= MAX_PERMISSIONS => return false,
            None => {
                self.permissions.push(new);
                self.permissions.len() - 1
            }
        };
        for channel in self.channels.iter_mut().filter(|channel| channel.peer.ip() == peer) {
            channel.permission = place as u8;
        }
        true
    }

    /// Binds a channel to a permitted peer, or keeps it bound. Neither number nor peer are bound otherwise.
    pub fn bind(&mut self, number: u16, peer: SocketAddr, way: Way, now: Instant) {
        let permission = self.permissions.iter().position(|permission| permission.peer == peer.ip());
        let Some(permission) = permission.and_then(|index| u8::try_from(index).ok()) else { return };
        self.channels.retain(|channel| channel.expires > now && channel.number != number);
        self.channels.push(Channel { number, peer, way, expires: now + CHANNEL_LIFETIME, permission });
    }

    pub fn channel(&self, number: u16, now: Instant) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.number == number && channel.expires > now)
    }

    pub fn channel_to(&self, peer: SocketAddr, now: Instant) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.peer == peer && channel.expires > now)
    }

    /// Whether the peer of a channel may be sent to: the permission can run out before the channel.
    pub fn permits_channel(&self, channel: &Channel, now: Instant) -> bool {
        let permission = self.permissions.get(usize::from(channel.permission));
        permission.is_some_and(|permission| permission.peer == channel.peer.ip() && permission.expires > now)
    }
}

impl Permission {
    /// How a port of the peer is reached, if that was found out lately.
    pub fn way(&self, port: u16) -> Option<Way> {
        self.ports.iter().flatten().find(|(known, _)| *known == port).map(|(_, way)| *way)
    }

    pub fn remember(&mut self, port: u16, way: Way) {
        self.ports[usize::from(self.next_port)] = Some((port, way));
        self.next_port = (self.next_port + 1) % REMEMBERED_PORTS as u8;
    }
}
