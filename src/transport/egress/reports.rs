//! Our sender reports: what tells the receiver how the clocks of a publisher's streams relate, and what came of its packets.

use std::time::{Duration, Instant};

use super::Egress;
use crate::rtp::rtcp::{write_cname, write_sender_report};
use crate::transport::{Outbox, Route};

/// Between two reports on a stream: libwebrtc's interval for video. Receivers correct drifting clocks with each.
const INTERVAL: Duration = Duration::from_secs(1);
/// A new stream's first one: sound and picture play together from then on.
const FIRST: Duration = Duration::from_millis(50);
/// Reports share a datagram up to this size, which fits every path.
const MAX_DATAGRAM_BYTES: usize = 1100;

impl Egress {
    pub(super) fn report_soon(&mut self, now: Instant) {
        let soon = now + FIRST;
        self.report_at = Some(self.report_at.map_or(soon, |at| at.min(soon)));
    }

    /// Reports on every stream that sent since its last report; when none did, the next packet starts it again.
    pub(super) fn send_reports(&mut self, now: Instant, route: Route, outbox: &mut Outbox) {
        if self.report_at.is_none_or(|at| now < at) {
            return;
        }
        self.report_at = None;
        let ntp = self.ntp(now);
        let Some(keys) = &mut self.send_keys else { return };
        let mut compound = std::mem::take(&mut self.scratch);
        compound.clear();
        let mut reported = false;
        let mut flush = |compound: &mut Vec<u8>| {
            // Without the right to encrypt there is nothing to send, and the media will end soon as well.
            if !compound.is_empty() && keys.seal_rtcp(compound).is_ok() {
                outbox.push(route, compound);
            }
            compound.clear();
        };
        for stream in self.streams.iter_mut() {
            let Some(info) = stream.report(now, ntp) else { continue };
            reported = true;
            write_sender_report(&mut compound, &info);
            write_cname(&mut compound, info.ssrc, &stream.spec.cname);
            if compound.len() >= MAX_DATAGRAM_BYTES {
                flush(&mut compound);
            }
        }
        flush(&mut compound);
        self.scratch = compound;
        self.report_at = reported.then(|| now + INTERVAL);
    }
}
