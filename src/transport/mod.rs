pub mod classify;
pub mod framing;
pub mod sdp;
