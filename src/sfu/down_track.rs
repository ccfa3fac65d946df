//! A subscription: one track on its way to one participant. Owned by its [`Track`](super::track::Track).

use std::time::{Duration, Instant};

use super::Side;
use super::forwarder::{Forwarder, Incoming, Outgoing, Selection};
use super::info::ParticipantId;
use super::layer_selector::LayerSelector;
use super::participants::Slot;
use crate::rtp::Rewrite;
use crate::transport::SenderId;

/// A stream this young has probably shown nothing yet: its packets may have overtaken the description that tells the client
/// of them, and a client asks for a keyframe within a second.
const FIRST_PICTURE_TIME: Duration = Duration::from_secs(2);
/// How far a picture may go back behind what was shown before: little enough to look like a hiccup, and as long as the
/// publisher would not be asked again anyway (see [`KeyframeThrottle`](super::keyframe::KeyframeThrottle)).
const MAX_REWIND: Duration = Duration::from_millis(300);
/// No receiver is sent the cached picture more often than this, whatever it asks: a request of a few bytes must not
/// call for a hundred packets each time.
const REPLAY_INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct DownTrack {
    pub subscriber: ParticipantId,
    /// Where the subscriber is kept, and on which of its connections the stream goes.
    pub slot: Slot,
    pub side: Side,
    /// The stream on the subscriber's connection; `None` until that connection exists.
    pub sender: Option<SenderId>,
    /// The SSRC that the client knows the stream by; `None` until a description with it has been sent.
    stream: Option<u32>,
    /// Since when packets can flow on the stream; `None` while the connection is not up.
    open_since: Option<Instant>,
    pub selector: LayerSelector,
    /// What should flow now; kept here so that a packet need not ask why. See [`Track::retarget`](super::track::Track).
    selection: Option<Selection>,
    /// The highest spatial layer that the publisher sends.
    top: u8,
    /// The client cannot play redundant audio, which this track is, and gets what is in it.
    pub unwraps: bool,
    forwarder: Forwarder,
    /// When the newest packet arrived that was forwarded.
    newest: Option<Instant>,
    replayed_at: Option<Instant>,
    /// The number of the burst it was given last.
    pub served: u32,
    /// Whether the client was told last that its network does not carry the video; `None`: it was told nothing.
    told_paused: Option<bool>,
}

impl DownTrack {
    pub fn new(subscriber: ParticipantId, slot: Slot, side: Side, adaptive_stream: bool) -> Self {
        DownTrack {
            subscriber,
            slot,
            side,
            sender: None,
            stream: None,
            open_since: None,
            selector: LayerSelector::new(adaptive_stream),
            selection: None,
            top: 0,
            unwraps: false,
            forwarder: Forwarder::new(0, 0),
            newest: None,
            replayed_at: None,
            served: 0,
            told_paused: None,
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
        self.newest = None;
        self.open_since = None;
        stream.is_some()
    }

    /// The connection is up: what is sent now arrives.
    pub fn open(&mut self, now: Instant) {
        if self.stream.is_some() {
            self.open_since.get_or_insert(now);
        }
    }

    pub fn is_open(&self) -> bool {
        self.open_since.is_some()
    }

    /// What should flow from now on. `top`: the highest spatial layer that the publisher sends.
    pub fn aim(&mut self, selection: Option<Selection>, top: u8) {
        self.selection = selection;
        self.top = top;
        if selection.is_none() {
            // The stream goes on without a gap, at the next keyframe.
            self.forwarder.pause();
        }
    }

    pub fn flows(&self) -> bool {
        self.selection.is_some()
    }

    /// A packet that goes by unused, which the forwarder still has to know of.
    pub fn skip(&mut self, packet: &Incoming<'_>) {
        self.forwarder.forward(None, packet);
    }

    /// How the subscriber shall see the packet; `None`: not at all.
    pub fn forward(&mut self, packet: &Incoming<'_>) -> Option<Outgoing> {
        let mut out = self.forwarder.forward(self.selection, packet)?;
        if self.unwraps
            && let Some(from) = packet.primary
            && out.rewrite == Rewrite::None
        {
            out.rewrite = Rewrite::Primary { from };
        }
        self.newest = self.newest.max(Some(packet.arrival));
        Some(out)
    }

    /// `Some` when the client has to be told so.
    pub fn tell_paused(&mut self, paused: bool) -> Option<bool> {
        let news = paused != self.told_paused.unwrap_or(false);
        news.then(|| *self.told_paused.insert(paused))
    }

    pub fn told_paused(&self) -> Option<bool> {
        self.told_paused
    }

    /// Leaves out everything up to the next keyframe.
    pub fn interrupt(&mut self) {
        self.forwarder.pause();
    }

    /// The stream whose keyframe the subscriber waits for.
    pub fn wants_keyframe(&self) -> Option<u8> {
        self.forwarder.wants_keyframe_from(self.selection, self.top)
    }

    pub fn current_stream(&self) -> Option<u8> {
        self.forwarder.current_stream()
    }

    /// Whether a picture that began to arrive at `began` is better than waiting for the next.
    pub fn may_rewind(&self, began: Instant, now: Instant) -> bool {
        let rested = self.replayed_at.is_none_or(|at| now.saturating_duration_since(at) >= REPLAY_INTERVAL);
        let fresh = self.open_since.is_some_and(|at| now.saturating_duration_since(at) < FIRST_PICTURE_TIME);
        let back = self.newest.map_or(Duration::ZERO, |newest| newest.saturating_duration_since(began));
        rested && (fresh || back <= MAX_REWIND)
    }

    /// The stream comes once more, from its last keyframe on.
    pub fn rewind(&mut self, stream: u8, now: Instant) {
        self.forwarder.reset_stream(stream);
        self.replayed_at = Some(now);
    }
}
