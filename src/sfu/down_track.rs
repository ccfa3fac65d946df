//! A subscription: one track on its way to one participant. Owned by its [`Track`](super::track::Track).

use super::forwarder::{Forwarder, Incoming};
use super::info::ParticipantId;
use super::layer_selector::{AliveLayers, LayerSelector, Published};
use crate::transport::{MediaPacket, OutgoingPacket, SenderId, Vp8Fields};

pub(super) struct DownTrack {
    pub subscriber: ParticipantId,
    /// The stream on the subscriber's connection; `None` until that connection exists.
    pub sender: Option<SenderId>,
    /// The client knows of the stream: its description has been sent.
    pub bound: bool,
    pub selector: LayerSelector,
    forwarder: Forwarder,
}

impl DownTrack {
    pub fn new(subscriber: ParticipantId, adaptive_stream: bool, first_sequence: u16, first_timestamp: u32) -> Self {
        DownTrack {
            subscriber,
            sender: None,
            bound: false,
            selector: LayerSelector::new(adaptive_stream),
            forwarder: Forwarder::new(first_sequence, first_timestamp),
        }
    }

    /// The layer that should flow now.
    pub fn target(&self, published: &Published<'_>, alive: AliveLayers) -> Option<u8> {
        if self.bound { self.selector.target(published, alive) } else { None }
    }

    /// The layer whose keyframe the subscriber waits for.
    pub fn wants_keyframe(&self, target: Option<u8>) -> Option<u8> {
        self.forwarder.wants_keyframe_from(target)
    }

    /// The layer's stream was replaced: its numbers start over.
    pub fn reset_layer(&mut self, layer: u8) {
        self.forwarder.reset_layer(layer);
    }

    pub fn current_layer(&self) -> Option<u8> {
        self.forwarder.current_layer()
    }

    /// The packet as this subscriber shall see it; `None`: not at all.
    pub fn forward(
        &mut self,
        target: Option<u8>,
        incoming: &Incoming<'_>,
        packet: &MediaPacket,
    ) -> Option<OutgoingPacket> {
        let out = self.forwarder.forward(target, incoming)?;
        Some(OutgoingPacket {
            sequence: out.sequence,
            timestamp: out.timestamp,
            marker: out.marker,
            arrival: packet.arrival,
            payload: packet.payload.clone(),
            vp8: out.vp8.map(|vp8| Vp8Fields {
                picture_id: vp8.picture_id,
                tl0picidx: vp8.tl0picidx,
                keyidx: vp8.keyidx,
            }),
            extensions: packet.extensions.clone(),
        })
    }
}
