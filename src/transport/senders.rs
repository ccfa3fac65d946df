//! The streams towards the client: begun and ended by the room, bound to sections when a description has room for them.

use super::codecs::OpusOptions;
use super::codecs::clock_rate;
use super::egress::{ExtensionIds, PayloadTypes, StreamSpec};
use super::sections::{Sender, SenderSpec, State, Stream, section_kind};
use super::{SenderId, Transport};
use crate::sfu::{Codec, MediaKind};

impl Transport {
    /// Begins to send a stream. It has no section until [`Self::answer`] or [`Self::create_offer`] finds one.
    pub fn add_sender(&mut self, spec: SenderSpec) -> SenderId {
        let egress = self.egress.as_mut().expect("a connection that only receives is given no senders");
        let id = egress.add();
        self.sections.senders.insert(id, Sender { spec, stream: None, refused: false });
        id
    }

    pub fn remove_sender(&mut self, id: SenderId) {
        let Some(sender) = self.sections.senders.remove(&id) else { return };
        if let Some((index, _)) = sender.stream {
            let previous = std::mem::replace(&mut self.sections.list[index].state, State::Draining);
            self.release(index, &previous);
        }
        if let Some(egress) = &mut self.egress {
            egress.remove(id);
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
        let offered = || self.codecs.offer(codec.kind(), None).0;
        let lines = section.remote.as_ref().map_or_else(offered, |remote| remote.codecs.clone());
        let Some((payload, plain)) = self.codecs.payload_for(&sender.spec, &lines) else {
            sender.refused = true;
            return;
        };
        let remote_ssrcs: &[_] = section.remote.as_ref().map_or(&[], |remote| &remote.ssrcs);
        let taken = |ssrc: u32| {
            self.streams.contains_key(&ssrc.into()) || remote_ssrcs.iter().any(|remote| remote.ssrc == ssrc)
        };
        let Some(egress) = &mut self.egress else { return };
        let ssrc = egress.draw_ssrc(taken);
        let rtx = payload.rtx.map(|_| egress.draw_ssrc(|drawn| drawn == ssrc || taken(drawn)));
        // What we offer is not agreed on before the answer says so.
        let agreed = section.remote.as_ref().map(|remote| self.codecs.answer(remote, None, OpusOptions::default()).1);
        egress.bind(
            id,
            StreamSpec {
                ssrc,
                rtx_ssrc: rtx,
                payload_types: PayloadTypes { media: payload.pt, plain, rtx: payload.rtx },
                clock_rate: clock_rate(codec),
                mid: section.mid.clone(),
                extensions: ExtensionIds::new(&agreed.unwrap_or_default()),
                cname: sender.spec.cname().to_owned(),
            },
        );
        sender.stream = Some((index, Stream { ssrc, rtx, codec: payload.codec }));
        section.state = State::Sending(id);
    }
}
