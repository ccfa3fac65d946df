//! What a room gives a connection to send, and what it is asked to give once more.
//!
//! A payload is shared by everybody who receives it and lives in the track's packet cache: a connection copies it into the
//! packet it encrypts, and keeps only the numbers by which the packet can be made again.

use std::time::{Duration, Instant};

use super::{Extensions, SenderId};
use crate::rtp::{DependencyRewrite, Rewrite};

/// An RTP packet to send: a [`MediaPacket`](super::MediaPacket) under the numbers the forwarder chose for it.
#[derive(Debug)]
pub struct OutgoingPacket<'a> {
    /// Extended to 64 bits; the first of a stream is below 2^15, so the SRTP rollover counter is `sequence >> 16`.
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: &'a [u8],
    pub rewrite: Rewrite,
    /// `None`: the dependency descriptor goes along as it came.
    pub dependency: Option<DependencyRewrite>,
    pub extensions: &'a Extensions,
    /// When it arrived from the publisher.
    pub arrival: Instant,
    /// What the publisher's sender report says of its timestamp, since the Unix epoch: keeps sound and picture of one
    /// publisher together.
    pub sender_time: Option<Duration>,
    pub origin: Origin,
}

/// Where the packet stands in the track's packet cache: what the room needs to find it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Simulcast layer, 0 = lowest.
    pub layer: u8,
    /// The publisher's extended sequence number in that layer's stream.
    pub sequence: u64,
}

/// A packet that the client asks for again: sent by [`Transport::resend`](super::Transport::resend) once the room has found
/// the payload at its `origin`.
#[derive(Debug, Clone, Copy)]
pub struct Missing {
    pub sender: SenderId,
    pub origin: Origin,
    /// The outgoing sequence number it had.
    pub(super) sequence: u64,
}
