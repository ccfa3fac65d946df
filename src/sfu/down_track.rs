//! A subscription: one track on its way to one participant. Owned by its [`Track`](super::track::Track).

use super::forwarder::{Forwarder, Incoming, Vp8Rewrite};
use super::info::ParticipantId;
use super::layer_activity::AliveLayers;
use super::layer_selector::{LayerSelector, Published, Target};
use crate::rtp::{Rewrite, vp8};
use crate::transport::{MediaPacket, Origin, OutgoingPacket, SenderId};

pub(super) struct DownTrack {
    pub subscriber: ParticipantId,
    /// The stream on the subscriber's connection; `None` until that connection exists.
    pub sender: Option<SenderId>,
    /// The SSRC that the client knows the stream by; `None` until a description with it has been sent.
    stream: Option<u32>,
    pub selector: LayerSelector,
    forwarder: Forwarder,
}

impl DownTrack {
    pub fn new(subscriber: ParticipantId, adaptive_stream: bool) -> Self {
        DownTrack {
            subscriber,
            sender: None,
            stream: None,
            selector: LayerSelector::new(adaptive_stream),
            forwarder: Forwarder::new(0, 0),
        }
    }

    /// The client knows the stream by this SSRC, or by none any more. True when packets can flow on a new one: its numbers
    /// start over, as its receiver knows no rollover yet (RFC 3711 §3.3.1), and with a keyframe.
    pub fn bind(&mut self, stream: Option<u32>, first_sequence: u16, first_timestamp: u32) -> bool {
        if self.stream == stream {
            return false;
        }
        self.stream = stream;
        self.forwarder = Forwarder::new(first_sequence, first_timestamp);
        stream.is_some()
    }

    /// The layers that should flow now.
    pub fn target(&self, published: &Published<'_>, alive: AliveLayers) -> Option<Target> {
        if self.stream.is_some() { self.selector.target(published, alive) } else { None }
    }

    /// The layer whose keyframe the subscriber waits for.
    pub fn wants_keyframe(&self, target: Option<Target>) -> Option<u8> {
        self.forwarder.wants_keyframe_from(target.map(|t| t.spatial))
    }

    /// The layer's stream was replaced: its numbers start over.
    pub fn reset_layer(&mut self, layer: u8) {
        self.forwarder.reset_layer(layer);
    }

    pub fn current_layer(&self) -> Option<u8> {
        self.forwarder.current_layer()
    }

    /// The packet as this subscriber shall see it; `None`: not at all.
    pub fn forward<'a>(
        &mut self,
        target: Option<Target>,
        incoming: &Incoming<'_>,
        packet: &'a MediaPacket,
    ) -> Option<OutgoingPacket<'a>> {
        let out = self.forwarder.forward(target.map(|t| t.spatial), incoming)?;
        let vp8 = |fields: Vp8Rewrite| vp8::Numbers {
            picture_id: fields.picture_id.unwrap_or_default(),
            tl0_picture_index: fields.tl0picidx.unwrap_or_default(),
            key_index: fields.keyidx.unwrap_or_default(),
        };
        Some(OutgoingPacket {
            sequence: out.sequence,
            timestamp: out.timestamp,
            marker: out.marker,
            rewrite: out.vp8.map_or(Rewrite::None, |fields| Rewrite::Vp8(vp8(fields))),
            dependency: None,
            arrival: packet.arrival,
            sender_time: packet.sender_time,
            payload: &packet.payload,
            extensions: &packet.extensions,
            origin: Origin { layer: packet.layer, sequence: packet.sequence },
        })
    }
}
