//! A subscription: one track on its way to one participant. Owned by its [`Track`](super::track::Track).

use super::forwarder::{Forwarder, Incoming, Selection};
use super::info::ParticipantId;
use super::layer_activity::AliveLayers;
use super::layer_selector::{LayerSelector, Published, Target};
use crate::rtp::Rewrite;
use crate::transport::{OutgoingPacket, SenderId};

pub(super) struct DownTrack {
    pub subscriber: ParticipantId,
    /// The stream on the subscriber's connection; `None` until that connection exists.
    pub sender: Option<SenderId>,
    /// The SSRC that the client knows the stream by; `None` until a description with it has been sent.
    stream: Option<u32>,
    pub selector: LayerSelector,
    /// The client cannot play redundant audio, which this track is, and gets what is in it.
    pub unwraps: bool,
    forwarder: Forwarder,
}

impl DownTrack {
    pub fn new(subscriber: ParticipantId, adaptive_stream: bool) -> Self {
        DownTrack {
            subscriber,
            sender: None,
            stream: None,
            selector: LayerSelector::new(adaptive_stream),
            unwraps: false,
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

    /// The stream whose keyframe the subscriber waits for.
    pub fn wants_keyframe(&self, target: Option<Target>, published: &Published<'_>, alive: AliveLayers) -> Option<u8> {
        self.forwarder.wants_keyframe_from(target.map(|t| select(t, published)), alive.highest())
    }

    /// The stream was replaced: its numbers start over.
    pub fn reset_stream(&mut self, stream: u8) {
        self.forwarder.reset_stream(stream);
    }

    pub fn current_stream(&self) -> Option<u8> {
        self.forwarder.current_stream()
    }

    /// The packet as this subscriber shall see it; `None`: not at all.
    pub fn forward(
        &mut self,
        target: Option<Target>,
        published: &Published<'_>,
        incoming: &Incoming<'_>,
    ) -> Option<OutgoingPacket> {
        let mut outgoing = self.forwarder.forward(target.map(|t| select(t, published)), incoming)?;
        if self.unwraps
            && let Some(from) = incoming.primary
            && outgoing.rewrite == Rewrite::None
        {
            outgoing.rewrite = Rewrite::Primary { from };
        }
        Some(outgoing)
    }
}

/// A layer is a stream of its own, or one among those of a scalable stream.
fn select(target: Target, published: &Published<'_>) -> Selection {
    let Target { spatial, temporal } = target;
    if published.scalable {
        Selection { stream: 0, spatial, temporal }
    } else {
        Selection { stream: spatial, spatial: Target::MAX.spatial, temporal }
    }
}
