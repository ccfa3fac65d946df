//! The LiveKit signalling session.

pub mod access_token;
pub mod join;

pub use access_token::Claims;
pub use join::{Dialect, JoinRequest, Outgoing};
