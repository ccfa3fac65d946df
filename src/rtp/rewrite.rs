//! What to change in a packet for one receiver: a few numbers, decided by `sfu`'s forwarder and applied by `transport`
//! when it writes the packet, and again when it sends it a second time.

use std::ops::Range;

use super::{vp8, vp9};

/// What becomes of the payload. Nothing behind the codec's payload descriptor is ever changed: that may be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rewrite {
    /// It goes along as it came.
    #[default]
    None,
    /// It stays behind: the packet only fills a sequence number that the receiver waits for.
    Empty,
    Vp8(vp8::Numbers),
    Vp9(vp9::Numbers),
    /// Only the bytes from here on go: the primary block of redundant audio (RFC 2198), for a receiver without it.
    Primary {
        from: u16,
    },
}

impl Rewrite {
    /// Which bytes of a payload of `len` bytes go out.
    pub fn range(self, len: usize) -> Range<usize> {
        match self {
            Rewrite::None | Rewrite::Vp8(_) | Rewrite::Vp9(_) => 0..len,
            Rewrite::Empty => 0..0,
            Rewrite::Primary { from } => len.min(usize::from(from))..len,
        }
    }

    /// Puts the numbers in place, in a copy of those bytes.
    pub fn apply(self, payload: &mut [u8]) {
        match self {
            Rewrite::None | Rewrite::Empty | Rewrite::Primary { .. } => {}
            Rewrite::Vp8(numbers) => {
                if let Some(descriptor) = vp8::Descriptor::parse(payload) {
                    descriptor.rewrite(payload, numbers);
                }
            }
            Rewrite::Vp9(numbers) => {
                if let Some(descriptor) = vp9::Descriptor::parse(payload) {
                    descriptor.rewrite(payload, numbers);
                }
            }
        }
    }
}

/// What becomes of the dependency descriptor, where the packet has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DependencyRewrite {
    pub frame_number: u16,
    /// Tells the receiver which decode targets it gets from now on.
    pub active_targets: Option<ActiveTargets>,
}

/// A bit for each decode target of the stream's structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveTargets {
    pub bits: u32,
    /// How many targets there are, 1..=32.
    pub count: u8,
}
