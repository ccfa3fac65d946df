//! The streams towards the client: begun and ended by the room, bound to sections when a description has room for them.

use std::time::Duration;

use str0m::media::{MediaKind as RtcKind, Mid};

use super::sections::{Sender, SenderSpec, State, Stream, section_kind};
use super::{SenderId, Transport};
use crate::sfu::{Codec, MediaKind};

/// Sent packets kept for retransmission: three seconds of a busy 1080p stream, at most that old.
const RTX_CACHE_PACKETS: usize = 1024;
const RTX_CACHE_AGE: Duration = Duration::from_secs(3);
/// Share of a stream's bytes that may be retransmissions before requests for them are dropped. str0m's own 0.15 gives up
/// on every burst of a tenth lost; beyond a half the path cannot carry the stream anyway.
const RTX_SHARE: f32 = 0.5;

impl Transport {
    /// Begins to send a stream. It has no section until [`Self::answer`] or [`Self::create_offer`] finds one.
    pub fn add_sender(&mut self, spec: SenderSpec) -> SenderId {
        let id = SenderId(self.sections.next_sender);
        self.sections.next_sender += 1;
        self.sections.senders.insert(id, Sender { spec, stream: None, refused: false });
        id
    }

    pub fn remove_sender(&mut self, id: SenderId) {
        let Some(sender) = self.sections.senders.remove(&id) else { return };
        if let Some((index, _)) = sender.stream {
            let previous = std::mem::replace(&mut self.sections.list[index].state, State::Draining);
            self.release(index, &previous);
        }
    }

    /// The SSRC of the sender's stream; `None` while it has no section.
    pub fn stream_of(&self, id: SenderId) -> Option<u32> {
        Some(self.sections.stream(id)?.ssrc)
    }

    /// What the client can play of the sender's codec and its fallback; `None` while it has no section.
    pub fn codec_of(&self, id: SenderId) -> Option<Codec> {
        Some(self.sections.stream(id)?.codec)
    }

    /// Whether the client's description left no way to send this sender's codec.
    pub fn is_refused(&self, id: SenderId) -> bool {
        self.sections.senders.get(&id).is_some_and(|s| s.refused)
    }

    /// How many sections more than it has the client must offer: (audio, video).
    pub fn missing_sections(&self) -> (u32, u32) {
        let missing = |kind: MediaKind| {
            let waiting = self
                .sections
                .senders
                .values()
                .filter(|s| s.stream.is_none() && !s.refused && s.spec.codec.kind() == kind);
            waiting.count().saturating_sub(self.sections.idle(kind)) as u32
        };
        (missing(MediaKind::Audio), missing(MediaKind::Video))
    }

    /// Whether the client has yet to be told of a stream that began or ended.
    pub fn needs_description(&self) -> bool {
        self.sections.senders.values().any(|s| s.stream.is_none() && !s.refused)
            || self.sections.list.iter().any(|s| s.state == State::Draining)
    }

    /// Gives every waiting sender an idle section of its kind.
    pub(super) fn bind_senders(&mut self) {
        let waiting: Vec<SenderId> =
            self.sections.senders.iter().filter(|(_, s)| s.stream.is_none() && !s.refused).map(|(id, _)| *id).collect();
        for id in waiting {
            let kind = section_kind(self.sections.senders[&id].spec.codec.kind());
            if let Some(index) = self.sections.list.iter().position(|s| s.state == State::Idle && s.kind == kind) {
                self.bind(id, index);
            }
        }
    }

    pub(super) fn bind(&mut self, id: SenderId, index: usize) {
        let section = &mut self.sections.list[index];
        let Some(sender) = self.sections.senders.get_mut(&id) else { return };
        let codec = sender.spec.codec;
        let offered = || self.codecs.offer(codec.kind()).0;
        let lines = section.remote.as_ref().map_or_else(offered, |remote| remote.codecs.clone());
        let Some((payload, plain_pt)) = self.codecs.payload_for(&sender.spec, &lines) else {
            sender.refused = true;
            return;
        };
        let mid = Mid::from(section.mid.as_str());
        let kind = if codec.kind() == MediaKind::Audio { RtcKind::Audio } else { RtcKind::Video };
        let mut api = self.rtc.direct_api();
        api.declare_media(mid, kind);
        let ssrc = api.new_ssrc();
        let rtx = payload.rtx.map(|_| {
            let mut rtx = api.new_ssrc();
            while rtx == ssrc {
                rtx = api.new_ssrc();
            }
            rtx
        });
        let tx = api.declare_stream_tx(ssrc, rtx, mid, None);
        tx.set_rtx_cache(RTX_CACHE_PACKETS, RTX_CACHE_AGE, Some(RTX_SHARE));
        let (codec, pt) = (payload.codec, payload.pt);
        sender.stream = Some((index, Stream { ssrc: *ssrc, rtx: rtx.map(|r| *r), codec, pt, plain_pt }));
        section.state = State::Sending(id);
    }
}
