//! Which streams a side sends and what each is for: `sdp_stream_metadata`.
//!
//! A stream that is not listed, or is there for an unknown purpose, is to be ignored; so is one beyond the first of a side
//! that lists none at all.

use serde_json::{Map, Value, json};

use super::envelope::MAX_ID_BYTES;

/// Streams of one side. A call has a camera and a screen; a conference through one leg has as many as people look at.
pub const MAX_STREAMS: usize = 64;

pub(super) const KEY: &str = "sdp_stream_metadata";

/// What clients from before MSC3077 was merged read and write, among them all that are built on matrix-js-sdk.
const UNSTABLE_KEY: &str = "org.matrix.msc3077.sdp_stream_metadata";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Microphone and camera of one person.
    Usermedia,
    Screenshare,
}

impl Purpose {
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Usermedia => "m.usermedia",
            Purpose::Screenshare => "m.screenshare",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Purpose> {
        [Purpose::Usermedia, Purpose::Screenshare].into_iter().find(|purpose| purpose.as_str() == text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// The MediaStream's, as in `a=msid`.
    pub id: String,
    pub purpose: Purpose,
    pub audio_muted: bool,
    pub video_muted: bool,
}

impl Stream {
    /// Audio and video that flow.
    pub fn new(id: impl Into<String>, purpose: Purpose) -> Stream {
        Stream { id: id.into(), purpose, audio_muted: false, video_muted: false }
    }

    fn parse(id: &str, value: &Value) -> Option<Stream> {
        let muted = |key| value.get(key).and_then(Value::as_bool).unwrap_or(false);
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return None;
        }
        Some(Stream {
            id: id.to_owned(),
            purpose: Purpose::parse(value.get("purpose")?.as_str()?)?,
            audio_muted: muted("audio_muted"),
            video_muted: muted("video_muted"),
        })
    }
}

/// `None`: the peer does not know of streams, and takes and sends one. The stable key is believed before the other.
pub(super) fn parse(content: &Value) -> Option<Vec<Stream>> {
    let listed = [KEY, UNSTABLE_KEY].iter().find_map(|key| content.get(key)?.as_object())?;
    Some(listed.iter().filter_map(|(id, value)| Stream::parse(id, value)).take(MAX_STREAMS).collect())
}

/// Under both keys, as there are readers of only the one and of only the other.
pub(super) fn write(streams: &[Stream], content: &mut Map<String, Value>) {
    let listed: Map<String, Value> = streams
        .iter()
        .map(|stream| {
            let value = json!({
                "purpose": stream.purpose.as_str(),
                "audio_muted": stream.audio_muted,
                "video_muted": stream.video_muted,
            });
            (stream.id.clone(), value)
        })
        .collect();
    content.insert(UNSTABLE_KEY.into(), Value::Object(listed.clone()));
    content.insert(KEY.into(), Value::Object(listed));
}

pub(super) fn write_if_known(streams: Option<&[Stream]>, content: &mut Map<String, Value>) {
    if let Some(streams) = streams {
        write(streams, content);
    }
}

/// Takes over what an update says of streams, known ones and new ones.
pub(super) fn merge(streams: &mut Vec<Stream>, changed: Vec<Stream>) {
    for stream in changed {
        if let Some(known) = streams.iter_mut().find(|known| known.id == stream.id) {
            *known = stream;
        } else if streams.len() < MAX_STREAMS {
            streams.push(stream);
        }
    }
}

/// What we send to one peer: as it should be, and as the peer was told.
#[derive(Debug, Default)]
pub(super) struct LocalStreams {
    wanted: Vec<Stream>,
    /// What media was last asked to offer. Media that leaves some of it out is not asked again for the same.
    asked: Option<Vec<Stream>>,
    told: Vec<Stream>,
    proposed: Option<Vec<Stream>>,
}

impl LocalStreams {
    pub fn want(&mut self, mut streams: Vec<Stream>) {
        streams.truncate(MAX_STREAMS);
        self.wanted = streams;
    }

    /// Whether the peer has yet to be offered what is wanted.
    pub fn needs_offer(&self) -> bool {
        let asked = self.asked.as_ref().is_some_and(|asked| same_streams(asked, &self.wanted));
        !self.wanted.is_empty() && !asked && !same_streams(&self.told, &self.wanted)
    }

    /// What media is to offer.
    pub fn ask(&mut self) -> Vec<Stream> {
        self.asked = Some(self.wanted.clone());
        self.wanted.clone()
    }

    /// The metadata of our answer with these streams. It lists every one, as the peer ignores what is not listed.
    pub fn tell(&mut self, ids: Vec<String>) -> Vec<Stream> {
        self.told = self.described(ids);
        self.told.clone()
    }

    /// The metadata of our offer, which the peer may yet not take.
    pub fn propose(&mut self, ids: Vec<String>) -> Vec<Stream> {
        let proposed = self.described(ids);
        self.proposed = Some(proposed.clone());
        proposed
    }

    /// The peer took the offer.
    pub fn settle(&mut self) {
        if let Some(proposed) = self.proposed.take() {
            self.told = proposed;
        }
    }

    /// The peer was told to forget the offer; it can be made again.
    pub fn take_back(&mut self) {
        self.asked = None;
        self.proposed = None;
    }

    /// The peer did not answer the offer; it would not answer another like it.
    pub fn give_up(&mut self) {
        self.proposed = None;
    }

    fn described(&self, ids: Vec<String>) -> Vec<Stream> {
        let known = |id: &String| self.wanted.iter().find(|stream| stream.id == *id).cloned();
        ids.into_iter().map(|id| known(&id).unwrap_or_else(|| Stream::new(id, Purpose::Usermedia))).collect()
    }

    /// The metadata again when something was muted or unmuted since it was told. With an offer on its way it has the
    /// streams of that one, as there are clients that take it for all there is.
    pub fn tell_changes(&mut self) -> Option<Vec<Stream>> {
        if !self.has_changes() {
            return None;
        }
        for stream in self.told.iter_mut().chain(self.proposed.iter_mut().flatten()) {
            if let Some(wanted) = self.wanted.iter().find(|wanted| wanted.id == stream.id) {
                *stream = wanted.clone();
            }
        }
        Some(self.last_told().to_vec())
    }

    pub fn has_changes(&self) -> bool {
        let changed = |stream: &Stream| self.wanted.iter().any(|wanted| wanted.id == stream.id && wanted != stream);
        self.last_told().iter().any(changed)
    }

    fn last_told(&self) -> &[Stream] {
        self.proposed.as_ref().unwrap_or(&self.told)
    }
}

fn same_streams(a: &[Stream], b: &[Stream]) -> bool {
    let has =
        |others: &[Stream], one: &Stream| others.iter().any(|other| other.id == one.id && other.purpose == one.purpose);
    a.len() == b.len() && a.iter().all(|one| has(b, one))
}
