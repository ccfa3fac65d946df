//! The homeserver side: who a caller is, and where other homeservers are.

pub mod address_guard;
pub mod identity;
