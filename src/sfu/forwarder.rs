//! Forwarder: rewrites what one subscription gets, so that its receiver sees one continuous encoder.
//!
//! A publisher sends each simulcast layer as a stream of its own, with its own sequence numbers, timestamps and picture
//! ids; each stream may have temporal layers, and a scalable one spatial layers. A subscriber has one stream. The forwarder
//! follows one stream at a time, splices them together at keyframes, and leaves out the layers that should not flow. It
//! is called by its DownTrack for every packet of the track, so it neither allocates nor keeps packets.
//!
//! How numbers are made: a [`Splice`](splice) maps the stream's sequence numbers to outgoing ones by an offset, which grows
//! by one for every packet that is left out on purpose. A packet that was lost on the way to us keeps its number, so the
//! receiver asks for it, and it finds its place when it comes late. Payloads are never touched but for the payload
//! descriptors of VP8 and VP9, which are outside of what end-to-end encryption covers.

mod clock;
mod frames;
mod incoming;
mod layers;
mod numbers;
mod outgoing;
mod splice;

use super::layer_selector::MAX_LAYERS;
use splice::{Sent, Splice};

pub use incoming::{Dependency, Frame, FrameId, Incoming, Numbers, PictureId, PictureNumbers, Switch};
pub use outgoing::Outgoing;

/// The first sequence number stays below this, so that a receiver that misses the first packets cannot guess the
/// rollover counter wrong (RFC 3711 §3.3.1).
const FIRST_SEQUENCE_LIMIT: u16 = 1 << 15;

/// What should flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// Simulcast stream, 0 = lowest.
    pub stream: u8,
    /// The highest spatial layer of a scalable stream.
    pub spatial: u8,
    /// The highest temporal layer.
    pub temporal: u8,
}

#[derive(Debug, Clone)]
pub struct Forwarder {
    sent: Sent,
    /// Timestamp of the first frame.
    first_timestamp: u32,
    splice: Option<Splice>,
    /// The newest sequence number that arrived, per stream.
    newest: [Option<u64>; MAX_LAYERS],
}

impl Forwarder {
    /// Both from the seed; of `first_sequence` the lower 15 bits are used.
    pub fn new(first_sequence: u16, first_timestamp: u32) -> Self {
        Forwarder {
            sent: Sent::new(u64::from(first_sequence % FIRST_SEQUENCE_LIMIT)),
            first_timestamp,
            splice: None,
            newest: [None; MAX_LAYERS],
        }
    }

    /// Decides about one packet; `None` = do not send it. `selection` is what is wanted now; without one the subscription
    /// is paused.
    ///
    /// The stream changes at a keyframe of the one selected. Until then the current one goes on, or one below begins.
    pub fn forward(&mut self, selection: Option<Selection>, p: &Incoming) -> Option<Outgoing> {
        let newest = self.newest.get_mut(usize::from(p.stream))?;
        let in_order = newest.is_none_or(|newest| p.sequence > newest);
        if in_order {
            *newest = Some(p.sequence);
        }
        let Some(selection) = selection else {
            self.pause();
            return None;
        };
        if self.splice.as_ref().is_some_and(|s| s.stream == p.stream && s.ends_before(p.sequence)) {
            self.splice = None;
        }
        // A keyframe whose first packet comes after its others went by unused would leave holes that nobody can fill:
        // that one is not for us.
        let starts = in_order && p.keyframe_start && !p.empty;
        // Better a small picture than none while the keyframe of the selected stream is awaited.
        let suits = match self.current_stream() {
            Some(current) => p.stream == selection.stream && current != selection.stream,
            None => p.stream <= selection.stream,
        };
        if starts && suits {
            let timestamp = self.sent.clock.begin(p).unwrap_or(self.first_timestamp);
            let splice = self.splice.insert(Splice::new(p, selection, self.sent.next_sequence, timestamp));
            splice.behind = self.sent.clock.is_ahead_of(p);
            return Some(splice.write(self.sent.next_sequence, p, &mut self.sent));
        }
        let splice = self.splice.as_mut().filter(|s| s.stream == p.stream)?;
        splice.forward(p, selection, &mut self.sent)
    }

    /// The stream that flows.
    pub fn current_stream(&self) -> Option<u8> {
        self.splice.as_ref().map(|s| s.stream)
    }

    /// The stream whose keyframe must come before `selection` flows; `None` when there is nothing to wait for.
    /// `sent_spatial` is the highest spatial layer that its publisher sends: no keyframe brings more.
    pub fn wants_keyframe_from(&self, selection: Option<Selection>, sent_spatial: u8) -> Option<u8> {
        let selection = selection?;
        let flows = self
            .splice
            .as_ref()
            .is_some_and(|s| s.stream == selection.stream && s.layers.spatial() >= selection.spatial.min(sent_spatial));
        (!flows).then_some(selection.stream)
    }

    /// Stops until the next keyframe. The receiver's stream then goes on, its clock advanced by the time between.
    pub fn pause(&mut self) {
        self.splice = None;
    }

    /// The sequence numbers of `stream` start over: it was replaced (a new SSRC), or it will be replayed from a
    /// cache. It flows again from the next keyframe.
    pub fn reset_stream(&mut self, stream: u8) {
        if let Some(newest) = self.newest.get_mut(usize::from(stream)) {
            *newest = None;
        }
        if self.current_stream() == Some(stream) {
            self.splice = None;
        }
    }
}

#[cfg(test)]
mod tests;
