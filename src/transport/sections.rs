//! The m-lines of one connection, what each carries, and the streams we send in them.

use std::collections::BTreeMap;

use super::SenderId;
use super::codecs::OpusOptions;
use super::sdp::{MediaSection, SectionKind};
use crate::sfu::{Codec, MediaKind};

/// Simulcast layers of one section. The field publishes three; more is abuse.
const MAX_LAYERS: usize = 3;
const MAX_RID_BYTES: usize = 8;

/// A track the client sends, as one of its sections describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTrack {
    /// Index of the m-line.
    pub section: usize,
    pub mid: String,
    pub kind: MediaKind,
    /// The track's id in the SDP: the client's MediaStreamTrack id, unless a browser rewrote it.
    pub track_id: Option<String>,
    /// What it can send, its preference first.
    pub codecs: Vec<Codec>,
    /// Simulcast stream ids, lowest layer first; empty without simulcast.
    pub rids: Vec<String>,
}

/// What the room wants of a track it receives; goes into the next answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceivePreference {
    pub codec: Option<Codec>,
    pub opus: OpusOptions,
}

/// A stream to send, before a section is found for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderSpec {
    pub codec: Codec,
    /// What goes instead when the client cannot play it; for redundant audio, what is in it.
    pub fallback: Option<Codec>,
    /// The two parts of `a=msid`.
    pub stream_id: String,
    pub track_id: String,
}

impl SenderSpec {
    /// One name for all streams of a publisher: receivers play them together (RFC 3550 §6.5.1).
    pub(super) fn cname(&self) -> &str {
        self.stream_id.split('|').next().unwrap_or_default()
    }
}

pub(super) struct Sections {
    pub list: Vec<Section>,
    pub senders: BTreeMap<SenderId, Sender>,
    pub session_id: u64,
    pub version: u64,
    /// An offer of ours waits for its answer.
    pub offered: bool,
}

pub(super) struct Section {
    pub mid: String,
    pub kind: SectionKind,
    pub state: State,
    /// The client's side of the section, from its last description; `None` before it answered our offer.
    pub remote: Option<MediaSection>,
    pub preference: ReceivePreference,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Port 0: stopped by the client, or nothing we can use.
    Rejected,
    Data,
    /// Free for a sender.
    Idle,
    Sending(SenderId),
    /// Its sender is gone; the next description says so.
    Draining,
    /// The client sends. Rids lowest layer first.
    Receiving {
        rids: Vec<String>,
    },
    /// The client stopped sending.
    Silent,
}

pub(super) struct Sender {
    pub spec: SenderSpec,
    pub stream: Option<(usize, Stream)>,
    /// No section of this connection can carry the codec.
    pub refused: bool,
}

/// How a sender's packets look on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    pub ssrc: u32,
    pub rtx: Option<u32>,
    /// What the client can play of the codec and its fallback.
    pub codec: Codec,
}

impl Sections {
    pub fn new(session_id: u64) -> Self {
        Sections { list: Vec::new(), senders: BTreeMap::new(), session_id, version: 0, offered: false }
    }

    pub fn stream(&self, sender: SenderId) -> Option<Stream> {
        Some(self.senders.get(&sender)?.stream?.1)
    }

    /// Section index and layer of what arrives under this mid and rid.
    pub fn receiving(&self, mid: &str, rid: Option<&str>) -> Option<(usize, u8)> {
        let (index, section) = self.list.iter().enumerate().find(|(_, s)| s.mid == mid)?;
        let State::Receiving { rids } = &section.state else { return None };
        let layer = match rid {
            Some(rid) => rids.iter().position(|r| r == rid)?,
            None => 0,
        };
        Some((index, layer as u8))
    }

    pub fn layer_name(&self, section: usize, layer: u8) -> Option<(&str, Option<&str>)> {
        let section = self.list.get(section)?;
        let State::Receiving { rids } = &section.state else { return None };
        Some((&section.mid, rids.get(usize::from(layer)).map(String::as_str)))
    }

    pub fn idle(&self, kind: MediaKind) -> usize {
        self.list.iter().filter(|s| s.state == State::Idle && s.kind == section_kind(kind)).count()
    }
}

pub(super) fn section_kind(kind: MediaKind) -> SectionKind {
    match kind {
        MediaKind::Audio => SectionKind::Audio,
        MediaKind::Video => SectionKind::Video,
    }
}

/// Lowest layer first. LiveKit names them `q`, `h`, `f` whatever their order in the SDP; others list them upwards.
pub(super) fn layer_order(rids: &[String]) -> Vec<String> {
    const NAMES: [&str; 3] = ["q", "h", "f"];
    let mut rids: Vec<String> = rids
        .iter()
        .filter(|rid| !rid.is_empty() && rid.len() <= MAX_RID_BYTES && rid.bytes().all(|b| b.is_ascii_alphanumeric()))
        .take(MAX_LAYERS)
        .cloned()
        .collect();
    if rids.iter().all(|rid| NAMES.contains(&rid.as_str())) {
        rids.sort_by_key(|rid| NAMES.iter().position(|name| name == rid));
    }
    rids
}
