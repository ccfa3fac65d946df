//! What publishers send: payloads with the sizes and rhythm of real encoders, and a stamp in each that tells receivers when it
//! left and what it belongs to.

mod camera;
mod microphone;
pub mod stamp;

pub use camera::{Camera, Pacing};
pub use microphone::Microphone;

use std::time::Instant;

/// An RTP packet to write.
#[derive(Debug)]
pub struct Packet {
    /// Extended, so that whoever encrypts knows the rollovers.
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    /// dBov, 0 loudest; audio only.
    pub level: Option<i8>,
    /// Simulcast layer, 0 = lowest; 0 without simulcast.
    pub layer: u8,
    pub payload: Vec<u8>,
}

/// A microphone or a camera.
#[derive(Debug)]
pub enum Source {
    Microphone(Microphone),
    Camera(Camera),
}

impl Source {
    /// When [`Source::send`] has something to give.
    pub fn next(&self) -> Instant {
        match self {
            Source::Microphone(microphone) => microphone.next(),
            Source::Camera(camera) => camera.next(),
        }
    }

    /// Gives what is due. `unix_nanos` goes into the stamps.
    pub fn send(&mut self, now: Instant, unix_nanos: u64, each: impl FnMut(Packet)) {
        match self {
            Source::Microphone(microphone) => microphone.send(now, unix_nanos, each),
            Source::Camera(camera) => camera.send(now, unix_nanos, each),
        }
    }
}
