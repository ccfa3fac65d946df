//! Messages of MSC3898 on the data channel between a client and its focus: JSON texts, read and written.
//!
//! They change what a client gets without a Matrix event: which tracks, in which size, under which description. Whoever
//! owns the channel parses what comes, and answers pings.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::content::{ContentError, Description};
use super::envelope::{MAX_ID_BYTES, id};
use super::streams::{self, Purpose, Stream};
use crate::transport::sdp;

/// Bytes of a message: the longest holds a description, and JSON escapes its line ends.
pub const MAX_MESSAGE_BYTES: usize = 2 * sdp::MAX_BYTES;

/// Tracks in one message: as many as a description has sections.
pub const MAX_TRACKS: usize = sdp::MAX_SECTIONS;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// From a client: what it wants from now on, and what no longer.
    TrackSubscription {
        subscribe: Vec<TrackRequest>,
        unsubscribe: Vec<TrackRef>,
    },
    /// From both sides.
    Negotiate {
        description: Description,
        streams: Option<Vec<Stream>>,
    },
    /// From both sides. The focus lists everybody else's streams, as soon as the channel is open and when they change.
    StreamsChanged(BTreeMap<String, FocusStream>),
    /// From the focus, at most every 30 s. A client that does not answer within as long is gone.
    Ping,
    Pong,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrackRef {
    pub stream_id: String,
    pub track_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackRequest {
    pub track: TrackRef,
    /// Width and height, pixels, in which it is shown; `None`: as it is.
    pub size: Option<(u32, u32)>,
}

/// A stream and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FocusStream {
    /// Clients leave out what the focus knows of them.
    pub user_id: Option<String>,
    pub device_id: Option<String>,
    pub purpose: Purpose,
    pub audio_muted: bool,
    pub video_muted: bool,
    /// By track id.
    pub tracks: BTreeMap<String, FocusTrack>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FocusTrack {
    pub kind: Option<TrackKind>,
    /// Width and height, pixels, as it is sent.
    pub size: Option<(u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackKind {
    Audio,
    Video,
}

impl Message {
    pub fn parse(text: &str) -> Result<Message, ContentError> {
        const CONTENT: &str = "content";
        if text.len() > MAX_MESSAGE_BYTES {
            return Err(ContentError::Malformed(CONTENT));
        }
        let message: Value = serde_json::from_str(text).map_err(|_| ContentError::Malformed(CONTENT))?;
        let content = message.get(CONTENT).unwrap_or(&Value::Null);
        match message.get("type").and_then(Value::as_str) {
            Some("m.call.track_subscription") => Ok(Message::TrackSubscription {
                subscribe: list(content, "subscribe", TrackRequest::parse)?,
                unsubscribe: list(content, "unsubscribe", TrackRef::parse)?,
            }),
            Some("m.call.negotiate") => Ok(Message::Negotiate {
                description: Description::parse(content, sdp::MAX_BYTES)?,
                streams: streams::parse(content),
            }),
            Some("m.call.sdp_stream_metadata_changed") => Ok(Message::StreamsChanged(focus_streams(content)?)),
            Some("m.call.ping") => Ok(Message::Ping),
            Some("m.call.pong") => Ok(Message::Pong),
            _ => Err(ContentError::UnknownType),
        }
    }

    pub fn to_text(&self) -> String {
        let mut content = Map::new();
        let message_type = match self {
            Message::TrackSubscription { subscribe, unsubscribe } => {
                content.insert("subscribe".into(), subscribe.iter().map(TrackRequest::to_json).collect());
                content.insert("unsubscribe".into(), unsubscribe.iter().map(TrackRef::to_json).collect());
                "m.call.track_subscription"
            }
            Message::Negotiate { description, streams } => {
                content.insert("description".into(), description.to_json());
                streams::write_if_known(streams.as_deref(), &mut content);
                "m.call.negotiate"
            }
            Message::StreamsChanged(streams) => {
                let streams = streams.iter().map(|(id, stream)| (id.clone(), stream.to_json())).collect();
                content.insert(streams::KEY.into(), Value::Object(streams));
                "m.call.sdp_stream_metadata_changed"
            }
            Message::Ping => "m.call.ping",
            Message::Pong => "m.call.pong",
        };
        json!({ "type": message_type, "content": content }).to_string()
    }
}

impl TrackRef {
    fn parse(value: &Value) -> Result<TrackRef, ContentError> {
        Ok(TrackRef { stream_id: id(value, "stream_id")?, track_id: id(value, "track_id")? })
    }

    fn to_json(&self) -> Value {
        json!({ "stream_id": self.stream_id, "track_id": self.track_id })
    }
}

impl TrackRequest {
    fn parse(value: &Value) -> Result<TrackRequest, ContentError> {
        Ok(TrackRequest { track: TrackRef::parse(value)?, size: size(value) })
    }

    fn to_json(&self) -> Value {
        let mut value = self.track.to_json();
        write_size(self.size, &mut value);
        value
    }
}

impl FocusStream {
    fn parse(value: &Value) -> Option<FocusStream> {
        let flag = |key| value.get(key).and_then(Value::as_bool).unwrap_or(false);
        let owner = |key| Some(value.get(key)?.as_str().filter(|id| id.len() <= MAX_ID_BYTES)?.to_owned());
        let tracks = value.get("tracks").and_then(Value::as_object);
        let known =
            |(id, track): (&String, &Value)| (id.len() <= MAX_ID_BYTES).then(|| (id.clone(), FocusTrack::parse(track)));
        Some(FocusStream {
            user_id: owner("user_id"),
            device_id: owner("device_id"),
            purpose: Purpose::parse(value.get("purpose")?.as_str()?)?,
            audio_muted: flag("audio_muted"),
            video_muted: flag("video_muted"),
            tracks: tracks.into_iter().flatten().filter_map(known).take(MAX_TRACKS).collect(),
        })
    }

    fn to_json(&self) -> Value {
        let mut value = json!({
            "purpose": self.purpose.as_str(),
            "audio_muted": self.audio_muted,
            "video_muted": self.video_muted,
            "tracks": self.tracks.iter().map(|(id, track)| (id.clone(), track.to_json())).collect::<Map<_, _>>(),
        });
        for (key, owner) in [("user_id", &self.user_id), ("device_id", &self.device_id)] {
            if let Some(owner) = owner {
                value[key] = json!(owner);
            }
        }
        value
    }
}

impl FocusTrack {
    fn parse(value: &Value) -> FocusTrack {
        let kind = match value.get("kind").and_then(Value::as_str) {
            Some("audio") => Some(TrackKind::Audio),
            Some("video") => Some(TrackKind::Video),
            _ => None,
        };
        FocusTrack { kind, size: size(value) }
    }

    fn to_json(&self) -> Value {
        let mut value = match self.kind {
            Some(TrackKind::Audio) => json!({ "kind": "audio" }),
            Some(TrackKind::Video) => json!({ "kind": "video" }),
            None => json!({}),
        };
        write_size(self.size, &mut value);
        value
    }
}

fn list<T>(
    content: &Value,
    key: &'static str,
    parse: fn(&Value) -> Result<T, ContentError>,
) -> Result<Vec<T>, ContentError> {
    match content.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= MAX_TRACKS => items.iter().map(parse).collect(),
        Some(_) => Err(ContentError::Malformed(key)),
    }
}

/// A stream of an unknown purpose is left out, as everywhere.
fn focus_streams(content: &Value) -> Result<BTreeMap<String, FocusStream>, ContentError> {
    let listed = content.get(streams::KEY).ok_or(ContentError::Missing(streams::KEY))?;
    let listed = listed.as_object().ok_or(ContentError::Malformed(streams::KEY))?;
    let fits = |(id, _): &(&String, &Value)| id.len() <= MAX_ID_BYTES;
    let known = |(id, value): (&String, &Value)| Some((id.clone(), FocusStream::parse(value)?));
    Ok(listed.iter().filter(fits).filter_map(known).take(MAX_TRACKS).collect())
}

/// Both or none; half a size says nothing.
fn size(value: &Value) -> Option<(u32, u32)> {
    let side = |key| u32::try_from(value.get(key)?.as_u64()?).ok();
    Some((side("width")?, side("height")?))
}

fn write_size(size: Option<(u32, u32)>, value: &mut Value) {
    if let Some((width, height)) = size {
        value["width"] = json!(width);
        value["height"] = json!(height);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track() -> TrackRef {
        TrackRef { stream_id: "s".into(), track_id: "t".into() }
    }

    #[test]
    fn subscriptions() {
        let text = r#"{"type":"m.call.track_subscription","content":{
            "subscribe":[{"stream_id":"s","track_id":"t","width":640,"height":360},{"stream_id":"s","track_id":"t","width":1}],
            "unsubscribe":[{"stream_id":"s","track_id":"t"}]}}"#;
        let sized = TrackRequest { track: track(), size: Some((640, 360)) };
        let plain = TrackRequest { track: track(), size: None };
        let expected = Message::TrackSubscription { subscribe: vec![sized, plain], unsubscribe: vec![track()] };
        assert_eq!(Message::parse(text), Ok(expected));
    }

    #[test]
    fn streams_of_others() {
        let text = r#"{"type":"m.call.sdp_stream_metadata_changed","content":{"sdp_stream_metadata":{
            "a":{"user_id":"@a:x","device_id":"D","purpose":"m.usermedia","audio_muted":true,
                 "tracks":{"t":{"kind":"video","width":1280,"height":720},"u":{"kind":"audio"}}},
            "b":{"purpose":"m.unheard_of"}}}}"#;
        let Ok(Message::StreamsChanged(streams)) = Message::parse(text) else { panic!() };
        assert_eq!(streams.len(), 1);
        let a = &streams["a"];
        assert_eq!((a.user_id.as_deref(), a.device_id.as_deref()), (Some("@a:x"), Some("D")));
        assert!(a.audio_muted && !a.video_muted && a.purpose == Purpose::Usermedia);
        assert_eq!(a.tracks["t"], FocusTrack { kind: Some(TrackKind::Video), size: Some((1280, 720)) });
        assert_eq!(a.tracks["u"], FocusTrack { kind: Some(TrackKind::Audio), size: None });
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let stream = FocusStream {
            user_id: Some("@a:x".into()),
            device_id: None,
            purpose: Purpose::Screenshare,
            audio_muted: false,
            video_muted: true,
            tracks: [("t".to_owned(), FocusTrack { kind: None, size: Some((1, 2)) })].into(),
        };
        let messages = [
            Message::Ping,
            Message::Pong,
            Message::StreamsChanged([("s".to_owned(), stream)].into()),
            Message::TrackSubscription {
                subscribe: vec![TrackRequest { track: track(), size: Some((3, 4)) }],
                unsubscribe: vec![track()],
            },
            Message::Negotiate {
                description: Description { is_offer: false, sdp: "v=0\r\n".into() },
                streams: Some(vec![Stream::new("s", Purpose::Usermedia)]),
            },
        ];
        for message in messages {
            assert_eq!(Message::parse(&message.to_text()), Ok(message));
        }
    }

    #[test]
    fn what_is_no_message() {
        let cases = [
            ("", ContentError::Malformed("content")),
            ("[]", ContentError::UnknownType),
            (r#"{"type":"m.call.connect_to_focus","content":{}}"#, ContentError::UnknownType),
            (r#"{"type":"m.call.negotiate"}"#, ContentError::Malformed("description")),
            (
                r#"{"type":"m.call.track_subscription","content":{"subscribe":{}}}"#,
                ContentError::Malformed("subscribe"),
            ),
            (
                r#"{"type":"m.call.track_subscription","content":{"unsubscribe":[{"track_id":"t"}]}}"#,
                ContentError::Missing("stream_id"),
            ),
            (
                r#"{"type":"m.call.sdp_stream_metadata_changed","content":{}}"#,
                ContentError::Missing("sdp_stream_metadata"),
            ),
        ];
        for (text, error) in cases {
            assert_eq!(Message::parse(text), Err(error), "{text}");
        }
        let many = format!(
            r#"{{"type":"m.call.track_subscription","content":{{"subscribe":[{}null]}}}}"#,
            "null,".repeat(MAX_TRACKS)
        );
        assert_eq!(Message::parse(&many), Err(ContentError::Malformed("subscribe")));
        assert!(Message::parse(&" ".repeat(MAX_MESSAGE_BYTES + 1)).is_err());
    }
}
