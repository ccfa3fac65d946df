//! Parlour: calls for Matrix rooms.

pub mod livekit;
pub mod sfu;
