//! Parlour: calls for Matrix rooms.

pub mod livekit;
pub mod net;
pub mod sfu;
