//! What a forwarder reads inside RTP payloads: the codec descriptors in front of them.
//!
//! Nothing here looks past the part of a payload that frame encryption leaves clear, so it works the same for
//! end-to-end encrypted media. `sfu` decides with it when a receiver may switch layers and keeps its streams continuous.

pub mod av1;
mod bits;
pub mod dependency_descriptor;
pub mod h264;
mod reader;
pub mod red;
mod rewrite;
pub mod vp8;
pub mod vp9;

pub use rewrite::{ActiveTargets, DependencyRewrite, Rewrite};
