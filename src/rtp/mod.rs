//! RTP and RTCP on the wire: headers and their extensions, reports and feedback, the counters that wrap, and what a forwarder
//! reads inside payloads: the codec descriptors in front of them.
//!
//! Nothing here looks past the part of a payload that frame encryption leaves clear, so it works the same for
//! end-to-end encrypted media. `sfu` decides with it when a receiver may switch layers and keeps its streams continuous;
//! `transport` writes and reads packets with it.

pub mod av1;
mod bits;
pub mod dependency_descriptor;
pub mod h264;
pub mod header;
pub mod ntp;
mod reader;
pub mod red;
mod rewrite;
pub mod rtcp;
pub mod sequence;
pub mod twcc;
pub mod vp8;
pub mod vp9;

pub use rewrite::{ActiveTargets, DependencyRewrite, Rewrite};
