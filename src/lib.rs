//! Parlour: calls for Matrix rooms.
pub mod livekit;
pub mod metrics;
pub mod net;
pub mod rtp;
pub mod sfu;
pub mod transport;
