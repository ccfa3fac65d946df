//! The two signalling dialects in the field, and everything in which they differ.
//!
//! Both drive the same [`Session`](super::session::Session); it asks here instead of branching on its own.

use crate::sfu::{Negotiation, Permissions};

/// Clients below this protocol number do not know a server that offers first.
const SUBSCRIBER_PRIMARY_PROTOCOL: i32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `/rtc`: two peer connections, the server offers the downstream one.
    V0,
    /// `/rtc/v1` (or a `join_request` on `/rtc`): one peer connection, the client always offers.
    V1,
}

impl Dialect {
    pub fn negotiation(self) -> Negotiation {
        match self {
            Dialect::V0 => Negotiation::Dual,
            Dialect::V1 => Negotiation::Single,
        }
    }

    /// V0: the server sends `offer` and takes `answer`.
    /// V1: the server never offers (the client would not answer); it asks with `media_sections_requirement`.
    pub fn server_offers(self) -> bool {
        self == Dialect::V0
    }

    /// `JoinResponse.subscriber_primary`: which connection the client waits for before it calls itself connected.
    pub fn subscriber_primary(self, protocol: i32, permissions: &Permissions) -> bool {
        self == Dialect::V0 && protocol >= SUBSCRIBER_PRIMARY_PROTOCOL && permissions.can_subscribe
    }
}
