//! Parlour: calls for Matrix rooms.

pub mod livekit;
pub mod rtp;
pub mod sfu;
pub mod transport;
