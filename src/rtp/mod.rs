//! What a forwarder reads and rewrites inside RTP: number arithmetic and codec payload descriptors.
//!
//! Nothing here looks past the part of a payload that frame encryption leaves clear, so it works the same for
//! end-to-end encrypted media. `sfu` decides with it when a receiver may switch layers and keeps its streams continuous.

pub mod h264;
pub mod sequence;
pub mod vp8;
