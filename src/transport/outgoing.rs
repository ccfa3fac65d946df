//! What a room gives a connection to send, and what it is asked to give once more.
//!
//! A payload is shared by everybody who receives it and lives in the track's packet cache: a connection copies it into the
//! packet it encrypts, and keeps only the numbers by which the packet can be made again.

use std::time::{Duration, Instant};

use super::egress::{Egress, Sent};
use super::{Extensions, Outbox, Progress, Route, SenderId, Transport};
use crate::rtp::{DependencyRewrite, Rewrite};
use crate::sfu::Codec;

/// An RTP packet to send: a [`MediaPacket`](super::MediaPacket) under the numbers the forwarder chose for it.
#[derive(Debug)]
pub struct OutgoingPacket<'a> {
    /// Extended to 64 bits; the first of a stream is below 2^15, so the SRTP rollover counter is `sequence >> 16`.
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    /// What goes out: of redundant audio that is [cut to its primary block](Rewrite::Primary), what is in that.
    pub codec: Codec,
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
    pub(super) sent: Sent,
}

impl Transport {
    /// Sends a packet on a sender's stream; silently nothing while the connection is not up or the sender has no section. When
    /// it gives a time, a deadline of the connection came nearer: [`Self::handle_timeout`] is due then.
    pub fn send(
        &mut self,
        now: Instant,
        sender: SenderId,
        packet: &OutgoingPacket<'_>,
        outbox: &mut Outbox,
    ) -> Option<Instant> {
        let route = self.open_route()?;
        self.egress.as_mut()?.send(now, route, sender, packet, outbox)
    }

    /// Answers [`Event::Missing`](super::Event::Missing): sends the packet once more, on the stream's retransmission stream
    /// (RFC 4588). `payload` and `extensions` are what was given to [`Self::send`] for it.
    pub fn resend(
        &mut self,
        now: Instant,
        missing: &Missing,
        payload: &[u8],
        extensions: &Extensions,
        outbox: &mut Outbox,
    ) {
        let Some(route) = self.open_route() else { return };
        if let Some(egress) = &mut self.egress {
            egress.resend(now, route, missing, payload, extensions, outbox);
        }
    }

    /// The way to the client while media may flow.
    pub(super) fn open_route(&self) -> Option<Route> {
        self.path.route().filter(|_| self.progress == Progress::Connected)
    }

    /// What the way to the client carries, in bits per second; `None` before anything is known.
    pub fn estimate(&self) -> Option<u64> {
        self.egress.as_ref()?.estimate()
    }

    /// How often the way to the client came back after nothing was heard of it: what it carries is found anew each time.
    pub fn silences(&self) -> u32 {
        self.egress.as_ref().map_or(0, Egress::silences)
    }

    /// What the room would send if the way to the client carried it, in bits per second: how far the estimate is worth probing.
    pub fn set_desired(&mut self, now: Instant, bits_per_second: u64) {
        if let Some(egress) = &mut self.egress {
            egress.set_desired(now, bits_per_second);
        }
    }

    /// To the client and back, as its reports tell; `None` before the first.
    pub fn round_trip(&self) -> Option<Duration> {
        self.egress.as_ref()?.round_trip()
    }

    /// Share of the packets that were lost on the way to the client lately, 0.0..=1.0.
    pub fn loss(&self) -> f32 {
        self.egress.as_ref().map_or(0.0, Egress::loss)
    }
}
