//! Probes: what the estimator wants sent to learn whether the path carries more. Media counts; padding makes up the rest, on the
//! retransmission stream of a video (RFC 4588 carries none of its own, so receivers drop it unseen). Nobody is probed who
//! receives no video, or enough.

use std::time::{Duration, Instant};

use super::layout::{Stamp, write_header};
use super::{Egress, seal};
use crate::rtp::header::Header;
use crate::transport::estimator::Probe;
use crate::transport::{Extensions, Outbox, Protocol, Route, SenderId};

/// What one byte can count (RFC 3550 §5.1), itself included.
const PADDING_BYTES: u8 = 255;

/// A probe under way.
#[derive(Debug)]
pub struct Probing {
    pub probe: Probe,
    /// Whose stream carries the padding.
    carrier: SenderId,
    started: Instant,
    packets: u32,
    bytes: usize,
}

impl Probing {
    /// A packet of it went out.
    pub fn sent(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes;
    }

    pub fn is_complete(&self) -> bool {
        self.packets >= self.probe.min_packets && self.bytes >= self.probe.min_bytes
    }

    /// When the next packet is due, for all of them to make up the probe's rate.
    pub fn next_at(&self) -> Instant {
        let micros = self.bytes as u64 * 8 * 1_000_000 / self.probe.bitrate.max(1);
        self.started + Duration::from_micros(micros)
    }
}

impl Egress {
    /// Begins a probe if one is due, and sends the padding that is.
    pub(super) fn send_probes(&mut self, now: Instant, route: Route, outbox: &mut Outbox) {
        let due = self.estimator.as_ref().and_then(|e| e.next_timeout()).is_some_and(|at| at <= now);
        if due
            && let Some(probe) = self.estimator.as_mut().and_then(|e| e.poll_probe(now))
            && let Some(carrier) = self.padding_carrier()
        {
            self.probing = Some(Probing { probe, carrier, started: now, packets: 0, bytes: 0 });
        }
        while let Some(probing) = self.probing.as_ref().filter(|probing| probing.next_at() <= now) {
            let carrier = probing.carrier;
            if self.send_padding(now, route, carrier, outbox).is_none() {
                self.probing = None;
            }
        }
    }

    /// A stream whose receiver takes padding.
    fn padding_carrier(&mut self) -> Option<SenderId> {
        let mut able = self.streams.iter_with_ids().filter(|(_, stream)| {
            let rtx = stream.rtx.as_ref().is_some_and(|rtx| rtx.srtp.is_some());
            rtx && stream.has_sent() && stream.spec.extensions.is_numbered()
        });
        able.next().map(|(id, _)| id)
    }

    /// `None`: the stream is gone.
    fn send_padding(&mut self, now: Instant, route: Route, carrier: SenderId, outbox: &mut Outbox) -> Option<()> {
        let send_time = self.ntp(now).absolute_send_time();
        let keys = self.send_keys.as_ref()?;
        let stream = self.streams.get_mut(carrier)?;
        let timestamp = stream.clock.timestamp_at(now, stream.spec.clock_rate)?;
        let rtx = stream.rtx.as_mut()?;
        let index = rtx.claim()?;
        let ids = stream.spec.extensions;
        let header = Header {
            marker: false,
            payload_type: rtx.payload_type,
            sequence: index.sequence(),
            timestamp,
            ssrc: index.ssrc(),
        };
        let mid = (!stream.found).then_some(stream.spec.mid.as_str());
        let stamp = Stamp { mid, number: self.next_number as u16, send_time };
        let mut bytes = 0;
        outbox.write(route, |out| {
            let start = out.len();
            let header_len = write_header(out, &ids, header, &stamp, &Extensions::default(), None);
            out[start] |= PADDED;
            out.resize(out.len() + usize::from(PADDING_BYTES), 0);
            *out.last_mut().expect("padding") = PADDING_BYTES;
            bytes = seal(keys, out, start, header_len, index);
        });
        self.numbered(now, route, bytes);
        Some(())
    }
}

/// In the first byte of the header: the payload ends in padding.
const PADDED: u8 = 0x20;

/// Bytes that a packet takes on the path beside its own: the estimate is of the path.
pub fn overhead(route: &Route) -> usize {
    const UDP: usize = 8;
    /// With the timestamps that everybody sends, and the length in front of each packet (RFC 4571).
    const TCP: usize = 32 + 2;
    let ip = if route.destination.is_ipv4() { 20 } else { 40 };
    ip + if route.protocol == Protocol::Udp { UDP } else { TCP }
}
