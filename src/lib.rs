//! Parlour: calls for Matrix rooms.

pub mod config;
pub mod http;
pub mod livekit;
pub mod matrix;
pub mod metrics;
pub mod net;
pub mod serve;
pub mod sfu;
