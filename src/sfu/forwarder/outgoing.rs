//! What a forwarder makes of a packet for its subscriber.

use crate::rtp::{DependencyRewrite, Rewrite};

/// How one receiver sees a packet: the numbers it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// Extended to 64 bits; the first of a stream is below 2^15, so the SRTP rollover counter is `sequence >> 16`.
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub rewrite: Rewrite,
    /// `None`: the dependency descriptor goes along as it came.
    pub dependency: Option<DependencyRewrite>,
}
