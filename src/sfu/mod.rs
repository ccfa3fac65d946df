//! The rooms and the way of every packet through them.

pub mod active_speaker;
pub mod forwarder;
pub mod info;
pub mod keyframe;
pub mod layer_selector;
