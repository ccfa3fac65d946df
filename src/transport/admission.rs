//! Which RTP packets are let through to str0m, which looks at a packet's header extensions before it knows whether the packet
//! is authentic, and remembers every stream for as long as the connection lasts. Asked by [`Transport`](super::Transport) for
//! each packet that arrives.
//!
//! - A stream is let in once a packet of it proved to be the client's. Else whoever sends in its name could tell us, with the
//!   mid extension, that the client's tracks are other streams now.
//! - There is a bound to the streams of a connection.
//! - Transport-wide numbers must not go back to before the first: str0m would take such a number for one of 64 bits, and try
//!   to report on all between.

use std::collections::BTreeSet;

use super::codecs::CodecTable;
use super::srtp::ReceiveKeys;
use crate::rtp::header::Packet;

/// Streams that a connection may have had. Somebody who starts and stops sharing a screen every minute has 360 within an hour:
/// three layers, each with its retransmissions.
const MAX_STREAMS: usize = 2048;

#[derive(Default)]
pub(super) struct Admission {
    /// `None` until the handshake is done: nothing is let in before.
    keys: Option<ReceiveKeys>,
    /// SSRCs that proved to be the client's.
    streams: BTreeSet<u32>,
    numbers: Numbers,
    opened: Vec<u8>,
}

impl Admission {
    pub fn secure(&mut self, keys: Option<ReceiveKeys>) {
        self.keys = keys;
    }

    pub fn admits(&mut self, bytes: &[u8], codecs: &CodecTable) -> bool {
        let Some(packet) = Packet::parse(bytes) else { return false };
        self.is_of_the_client(&packet, bytes) && self.admits_numbers(&packet, codecs)
    }

    fn is_of_the_client(&mut self, packet: &Packet<'_>, bytes: &[u8]) -> bool {
        let ssrc = packet.header.ssrc;
        if self.streams.contains(&ssrc) {
            return true;
        }
        let Some(keys) = self.keys.as_ref().filter(|_| self.streams.len() < MAX_STREAMS) else { return false };
        // No stream that we have not heard before has rolled over.
        let sequence = packet.header.sequence.into();
        let is_authentic = keys.open_rtp(bytes, packet.header_len, sequence, &mut self.opened).is_some();
        if is_authentic {
            self.streams.insert(ssrc);
        }
        is_authentic
    }

    fn admits_numbers(&mut self, packet: &Packet<'_>, codecs: &CodecTable) -> bool {
        if self.numbers.are_high {
            return true;
        }
        let mut elements = packet.extensions();
        for (id, value) in elements.by_ref() {
            if let Some(number) = value.first_chunk().filter(|_| codecs.is_number(id))
                && !self.numbers.admit(u16::from_be_bytes(*number))
            {
                return false;
            }
        }
        // What follows an element that says nothing sensible, str0m might read.
        !elements.is_cut()
    }

    /// str0m accepted a packet with this transport-wide number.
    pub fn accepted(&mut self, number: u16) {
        self.numbers.accepted(number);
    }
}

/// Half of the numbers: one that is farther ahead is taken for an old one.
const HALF: u16 = 1 << 15;

/// Says of transport-wide numbers which of them str0m may take for one before zero. It extends each to the nearest of the newest
/// that it accepted; we do not always hear which it did.
#[derive(Debug, Default)]
struct Numbers {
    /// The newest that it accepted is this at least, unless it accepted none or one that is [`HALF`] at least.
    least: Option<u16>,
    /// The one in `least` was accepted.
    is_sure: bool,
    /// The newest is [`HALF`] at least: none is before zero.
    are_high: bool,
}

impl Numbers {
    fn admit(&mut self, number: u16) -> bool {
        if self.are_high {
            return true;
        }
        if self.least.is_some_and(|least| number >= least.saturating_add(HALF - 1)) {
            return false;
        }
        if !self.is_sure && number < HALF {
            self.least = Some(self.least.map_or(number, |least| least.min(number)));
        }
        true
    }

    fn accepted(&mut self, number: u16) {
        if number >= HALF {
            self.are_high = true;
            return;
        }
        self.least = Some(self.least.filter(|_| self.is_sure).map_or(number, |least| least.max(number)));
        self.is_sure = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As str0m does it (`extend_u16`).
    fn extend(newest: i64, number: u16) -> i64 {
        let distance = i64::from(number.wrapping_sub(newest as u16));
        newest + if distance < i64::from(HALF) { distance } else { distance - 65_536 }
    }

    #[test]
    fn numbers_that_count_up_are_admitted_over_the_wrap() {
        for first in [0, 1, 30_000, 40_000, 65_530u16] {
            let mut numbers = Numbers::default();
            for step in 0..150_000u32 {
                let number = first.wrapping_add(step as u16);
                assert!(numbers.admit(number), "{number} after {first}");
                // Those of padding are not heard of.
                if step % 3 == 0 {
                    numbers.accepted(number);
                }
            }
        }
    }

    #[test]
    fn a_number_from_before_the_first_is_refused() {
        let mut numbers = Numbers::default();
        assert!(numbers.admit(10));
        numbers.accepted(10);
        assert!(!numbers.admit(60_000));
        assert!(numbers.admit(9));
        assert!(numbers.admit(20_000), "after an outage");
    }

    proptest! {
        /// Whatever is sent, accepted and heard of, the newest number is never below zero.
        #[test]
        fn no_number_goes_below_zero(
            packets in prop::collection::vec((prop_oneof![0u16.., 0u16..3, 32_760u16..32_775], any::<bool>(), any::<bool>()), 1..60)
        ) {
            let (mut numbers, mut newest) = (Numbers::default(), None);
            for (number, authentic, heard) in packets {
                if !numbers.admit(number) || !authentic {
                    continue;
                }
                let extended = newest.map_or(number.into(), |newest| extend(newest, number));
                prop_assert!(extended >= 0, "{number} after {newest:?}");
                newest = Some(newest.map_or(extended, |newest: i64| newest.max(extended)));
                if heard {
                    numbers.accepted(number);
                }
            }
        }
    }
}
