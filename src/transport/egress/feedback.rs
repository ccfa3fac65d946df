//! What the client reports on what we send: losses, lost pictures, round trips. One datagram of it costs at most the time to
//! walk over it, whatever it claims.

use std::time::{Duration, Instant};

use super::history::MAX_RESENDS;
use super::{Demand, Egress};
use crate::rtp::rtcp::{self, FullIntraRequest, Nack, Packet, ReportBlocks};
use crate::transport::{Missing, SenderId};

/// Packets waiting to be sent again. A stream's budget allows fewer; a client that asks for more asks again.
const MAX_MISSING: usize = 512;
/// Streams waiting for a keyframe, as one datagram may name hundreds.
const MAX_KEYFRAMES_WANTED: usize = 256;

/// A repeated request that comes sooner after a retransmission than this share of a round trip was sent before that could
/// arrive. Less than all of it, as the client's measure of the round trip is not ours.
const REPEAT_SHARE: (u32, u32) = (3, 4);
const MIN_REPEAT: Duration = Duration::from_millis(5);
/// A lying or mistaken client only loses its own retransmissions, but not for long.
const MAX_REPEAT: Duration = Duration::from_millis(500);
/// Before the round trip is known.
const DEFAULT_REPEAT: Duration = Duration::from_millis(30);
/// A packet that was lost twice is sent twice: each round that fails is a tenth of a second of freeze, and after five of them
/// receivers give up and wait for a keyframe. With 20 % lost, that happens to one packet in five thousand instead of one in
/// eight hundred, for a twentieth more bytes.
const REPEAT_COPIES: usize = 2;

/// RTCP packet types about what the client sends: SR, BYE and the extended reports by which it measures round trips
/// (RFC 3550 §12.1, RFC 3611 §2).
const ABOUT_SENDING: [u8; 3] = [200, 203, 207];

impl Egress {
    /// A datagram of encrypted RTCP. True when it may concern what we receive, which is for str0m to read.
    pub fn handle_rtcp(&mut self, now: Instant, datagram: &[u8]) -> bool {
        let Some(keys) = &mut self.receive_keys else { return true };
        let mut opened = std::mem::take(&mut self.scratch);
        let authentic = keys.open_rtcp(datagram, &mut opened).is_some();
        if authentic {
            rtcp::packets(&opened).for_each(|packet| self.handle(now, packet));
        }
        let concerns_receiving = authentic && concerns_receiving(&opened);
        self.scratch = opened;
        concerns_receiving
    }

    fn handle(&mut self, now: Instant, packet: Packet<'_>) {
        match packet {
            Packet::SenderReport(report) => self.reported(now, report.reports),
            Packet::ReceiverReport(report) => self.reported(now, report.reports),
            Packet::Nack(nack) => self.lost(now, &nack),
            Packet::PictureLoss(loss) => {
                if let Some(id) = self.stream_of(loss.media) {
                    self.want_keyframe(id);
                }
            }
            Packet::FullIntraRequest(request) => self.full_intra_request(&request),
            Packet::TransportWide(feedback) => {
                if let Some(estimator) = &mut self.estimator {
                    estimator.feedback(now, feedback.reference_time, feedback.arrivals());
                }
            }
            Packet::RemoteBitrate(_) | Packet::Goodbye(_) => {}
        }
    }

    fn stream_of(&self, ssrc: u32) -> Option<SenderId> {
        self.ssrcs.get(&ssrc).copied().flatten()
    }

    fn reported(&mut self, now: Instant, blocks: ReportBlocks<'_>) {
        let ntp = self.ntp(now);
        for block in blocks {
            let Some(id) = self.stream_of(block.ssrc) else { continue };
            let Some(stream) = self.streams.get_mut(id) else { continue };
            stream.found = true;
            let before = stream.reported_sequence.replace(block.highest_sequence);
            if let Some(round_trip) = self.quality.report(ntp, &block, before)
                && let Some(estimator) = &mut self.estimator
            {
                estimator.round_trip(round_trip);
            }
        }
    }

    fn lost(&mut self, now: Instant, nack: &Nack<'_>) {
        let now = self.moment(now);
        let repeat_after = self.repeat_after();
        let Some(sender) = self.stream_of(nack.media) else { return };
        let Some(stream) = self.streams.get_mut(sender) else { return };
        let mut is_hopeless = false;
        for sequence in nack.lost {
            if self.missing.len() >= MAX_MISSING {
                break;
            }
            if let Some((sent, resends)) = stream.request(now, sequence, repeat_after) {
                let copies = if resends == 0 { 1 } else { REPEAT_COPIES };
                let missing = Missing { sender, origin: sent.origin, sent };
                self.missing.extend((0..copies).map(|_| missing));
                // libwebrtc would wait three seconds for the picture before it asks for another.
                is_hopeless |= resends + 1 == MAX_RESENDS;
            }
        }
        if is_hopeless {
            self.want_keyframe(sender);
        }
    }

    fn repeat_after(&self) -> Duration {
        let (share, of) = REPEAT_SHARE;
        self.round_trip().map_or(DEFAULT_REPEAT, |rtt| (rtt * share / of).clamp(MIN_REPEAT, MAX_REPEAT))
    }

    fn full_intra_request(&mut self, request: &FullIntraRequest<'_>) {
        for (ssrc, number) in request.requests {
            let Some(id) = self.stream_of(ssrc) else { continue };
            let Some(stream) = self.streams.get_mut(id) else { continue };
            if stream.intra_request.replace(number) != Some(number) {
                self.want_keyframe(id);
            }
        }
    }

    fn want_keyframe(&mut self, id: SenderId) {
        if self.keyframes_wanted.len() < MAX_KEYFRAMES_WANTED && !self.keyframes_wanted.contains(&id) {
            self.keyframes_wanted.push_back(id);
        }
    }

    /// What the client wants of us, one by one.
    pub fn poll(&mut self) -> Option<Demand> {
        let keyframe = self.keyframes_wanted.pop_front().map(Demand::Keyframe);
        keyframe.or_else(|| self.missing.pop_front().map(Demand::Resend))
    }
}

fn concerns_receiving(mut compound: &[u8]) -> bool {
    while let [_, kind, high, low, ..] = compound {
        if ABOUT_SENDING.contains(kind) {
            return true;
        }
        let words = usize::from(u16::from_be_bytes([*high, *low])) + 1;
        compound = compound.get(4 * words..).unwrap_or_default();
    }
    false
}
