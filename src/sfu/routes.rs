//! From a datagram to its connection: by the user fragment that a connectivity check names, else by its sender's address.
//! Owned by the [`Sfu`](super::Sfu); filled by its connections.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use super::Link;
use crate::transport::Protocol;

#[derive(Default)]
pub(super) struct Routes {
    pub ufrags: HashMap<String, Link>,
    pub addresses: HashMap<(Protocol, SocketAddr), Link>,
    /// What other workers have to hear; `None` when there are none.
    changes: Option<VecDeque<AddressChange>>,
}

/// A client's address that a connection of this worker took, or gave up. Only one who knows a connection's password gets
/// an address taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressChange {
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub known: bool,
}

impl Routes {
    pub fn learn(&mut self, remote: (Protocol, SocketAddr), link: Link) {
        self.addresses.insert(remote, link);
        self.note(remote, true);
    }

    pub fn forget(&mut self, remote: (Protocol, SocketAddr)) {
        self.addresses.remove(&remote);
        self.note(remote, false);
    }

    /// From now on changes are kept for [`Self::poll_change`].
    pub fn tell_others(&mut self) {
        self.changes = Some(VecDeque::new());
    }

    pub fn poll_change(&mut self) -> Option<AddressChange> {
        self.changes.as_mut()?.pop_front()
    }

    fn note(&mut self, (protocol, address): (Protocol, SocketAddr), known: bool) {
        if let Some(changes) = &mut self.changes {
            changes.push_back(AddressChange { protocol, address, known });
        }
    }
}
