//! Watches in debug builds that a stream looks like the output of one encoder, whatever the forwarder did to make it so. That no
//! packet index is used twice needs no watching: [`SendStream::claim`](crate::transport::srtp::SendStream::claim) cannot give
//! one twice.

#[cfg(debug_assertions)]
use std::time::{Duration, Instant};

use crate::transport::OutgoingPacket;

/// Farther a forwarder never jumps: it starts anew after a gap of 1024 packets, and pauses cost no numbers.
#[cfg(debug_assertions)]
const MAX_SEQUENCE_STEP: u64 = 2048;
/// A frame's time may be this far from what the clock says: the forwarder corrects a publisher's clock above 10 s.
#[cfg(debug_assertions)]
const MAX_CLOCK_ERROR: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub struct Guard {
    /// Sequence number, timestamp and arrival of the newest packet.
    #[cfg(debug_assertions)]
    newest: Option<(u64, u32, Instant)>,
}

impl Guard {
    #[cfg(not(debug_assertions))]
    pub fn check(&mut self, _packet: &OutgoingPacket<'_>, _clock_rate: u32) {}

    /// # Panics
    /// When a packet cannot follow on those before.
    #[cfg(debug_assertions)]
    pub fn check(&mut self, packet: &OutgoingPacket<'_>, clock_rate: u32) {
        let Some((sequence, timestamp, arrival)) = self.newest else {
            assert!(packet.sequence < 1 << 16, "a stream begins below the first rollover, not at {}", packet.sequence);
            self.newest = Some((packet.sequence, packet.timestamp, packet.arrival));
            return;
        };
        if packet.sequence <= sequence {
            return;
        }
        assert!(packet.sequence - sequence <= MAX_SEQUENCE_STEP, "from {sequence} to {}", packet.sequence);
        let elapsed = packet.arrival.saturating_duration_since(arrival).as_secs_f64() * f64::from(clock_rate);
        // Of a pause longer than half a cycle only the rest shows.
        let error = (f64::from(packet.timestamp.wrapping_sub(timestamp)) - elapsed).rem_euclid(f64::from(u32::MAX));
        let error = error.min(f64::from(u32::MAX) - error) / f64::from(clock_rate);
        assert!(
            error <= MAX_CLOCK_ERROR.as_secs_f64(),
            "timestamp {} after {timestamp}: {error} s off",
            packet.timestamp
        );
        self.newest = Some((packet.sequence, packet.timestamp, packet.arrival));
    }
}
