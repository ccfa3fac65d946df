//! One stream towards the client: its identity on the wire, its counters, and what it sent lately.

use std::time::{Duration, Instant};

use super::budget::Budget;
use super::capture_clock::CaptureClock;
use super::guard::Guard;
use super::history::{History, Moment, Sent};
use super::layout::ExtensionIds;
use crate::rtp::ntp::NtpTime;
use crate::rtp::rtcp::SenderInfo;
use crate::sfu::Codec;
use crate::transport::OutgoingPacket;
use crate::transport::srtp::{PacketIndex, SendKeys, SendStream};

/// What a description says of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    pub ssrc: u32,
    /// Of its retransmissions (RFC 4588), where they have a payload type.
    pub rtx_ssrc: Option<u32>,
    pub payload_types: PayloadTypes,
    /// Hz.
    pub clock_rate: u32,
    /// The section's id.
    pub mid: String,
    pub extensions: ExtensionIds,
    /// Receivers play streams of the same name together.
    pub cname: String,
}

/// What the client calls the codec of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadTypes {
    pub media: u8,
    /// Of packets without redundancy; else the same.
    pub plain: u8,
    /// Of retransmissions.
    pub rtx: Option<u8>,
}

impl PayloadTypes {
    pub fn of(&self, codec: Codec) -> u8 {
        if codec == Codec::Red { self.media } else { self.plain }
    }
}

#[derive(Debug)]
pub struct Stream {
    pub spec: StreamSpec,
    /// `None` until there are keys.
    pub srtp: Option<SendStream>,
    pub rtx: Option<Box<Retransmission>>,
    pub clock: CaptureClock,
    packets: u32,
    octets: u32,
    /// Something was sent since the last sender report.
    pub active: bool,
    /// The receiver reported on it, so it knows which section it belongs to.
    pub found: bool,
    /// Number of the last full intra request (RFC 5104 §4.3.1): the same again is a repetition.
    pub intra_request: Option<u8>,
    /// Highest sequence number of the last receiver report.
    pub reported_sequence: Option<u32>,
    pub guard: Guard,
}

/// The retransmissions of a stream: a stream of their own, with numbers of their own.
#[derive(Debug)]
pub struct Retransmission {
    pub ssrc: u32,
    pub payload_type: u8,
    pub srtp: Option<SendStream>,
    next_sequence: u64,
    pub history: History,
    pub budget: Budget,
}

impl Retransmission {
    /// The right to send the next packet; `None` before there are keys.
    pub fn claim(&mut self) -> Option<PacketIndex> {
        let index = self.srtp.as_mut()?.claim(self.next_sequence)?;
        self.next_sequence += 1;
        Some(index)
    }
}

impl Stream {
    /// `first_rtx_sequence`: below 2^15 (RFC 3711 §3.3.1).
    pub fn new(spec: StreamSpec, first_rtx_sequence: u16) -> Self {
        let rtx = spec.rtx_ssrc.zip(spec.payload_types.rtx).map(|(ssrc, payload_type)| {
            Box::new(Retransmission {
                ssrc,
                payload_type,
                srtp: None,
                next_sequence: u64::from(first_rtx_sequence),
                history: History::default(),
                budget: Budget::default(),
            })
        });
        Stream {
            spec,
            srtp: None,
            rtx,
            clock: CaptureClock::default(),
            packets: 0,
            octets: 0,
            active: false,
            found: false,
            intra_request: None,
            reported_sequence: None,
            guard: Guard::default(),
        }
    }

    /// The client's description says by which numbers it knows codec and extensions.
    pub fn negotiated(&mut self, payload_types: PayloadTypes, extensions: ExtensionIds) {
        self.spec.payload_types = payload_types;
        self.spec.extensions = extensions;
        match (&mut self.rtx, payload_types.rtx) {
            (Some(rtx), Some(payload_type)) => rtx.payload_type = payload_type,
            (rtx, _) => *rtx = None,
        }
    }

    pub fn secure(&mut self, keys: &mut SendKeys) {
        self.srtp = keys.stream(self.spec.ssrc);
        if let Some(rtx) = &mut self.rtx {
            rtx.srtp = keys.stream(rtx.ssrc);
        }
    }

    /// A packet with `payload_len` bytes of payload went out.
    pub fn sent(&mut self, now: Moment, epoch: Instant, packet: &OutgoingPacket<'_>, payload_len: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload_len as u32);
        self.active = true;
        self.clock.observe(epoch, packet);
        if let Some(rtx) = &mut self.rtx {
            rtx.budget.earn(payload_len);
            rtx.history.push(
                now,
                &Sent {
                    sequence: packet.sequence,
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                    rewrite: packet.rewrite,
                    dependency: packet.dependency,
                    origin: packet.origin,
                },
            );
        }
    }

    /// The packet that the receiver asks for, if it may be sent again now, and how often it was before.
    pub fn request(&mut self, now: Moment, sequence: u16, repeat_after: Duration) -> Option<(Sent, u8)> {
        let rtx = self.rtx.as_mut().filter(|rtx| !rtx.budget.is_empty())?;
        rtx.history.request(now, sequence, repeat_after)
    }

    /// For a sender report at `now`. `None` while nothing was sent since the last one.
    pub fn report(&mut self, now: Instant, ntp: NtpTime) -> Option<SenderInfo> {
        let rtp_timestamp = self.clock.timestamp_at(now, self.spec.clock_rate)?;
        std::mem::take(&mut self.active).then_some(SenderInfo {
            ssrc: self.spec.ssrc,
            ntp,
            rtp_timestamp,
            packets: self.packets,
            octets: self.octets,
        })
    }

    pub fn has_sent(&self) -> bool {
        self.packets != 0
    }
}
