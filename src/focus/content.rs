//! What an `m.call.*` event says, read from JSON and written to it.
//!
//! Remote JSON: read with lenience where clients differ, bounded everywhere, and an error names the key, never the value.
//! The Matrix client parses what it receives; [`Focus`](super::Focus) writes what it sends.

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::envelope::{Envelope, MAX_ID_BYTES, Version};
use super::reason::Reason;
use super::streams::{self, Stream};

/// Candidates read from one event. Browsers gather a dozen; what comes after these is not looked at.
pub const MAX_CANDIDATES_PER_EVENT: usize = 64;

/// Bytes of a description: a Matrix event as a whole may not have more (spec, "Size limits").
const MAX_SDP_BYTES: usize = 65_536;

/// Bytes of one candidate: a line of SDP below 300, and room for extensions.
const MAX_CANDIDATE_BYTES: usize = 1024;

/// Bytes of a name that people read.
const MAX_NAME_BYTES: usize = 1024;

/// The longest lifetime that is believed: an invitation that rings longer has been forgotten, and calls that have ended are
/// remembered as long.
pub const MAX_LIFETIME: Duration = Duration::from_secs(300);

/// What matrix-js-sdk gives an invitation, for those that say nothing.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// Why an event is not one of a call. Holds nothing of what was sent, so it can be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ContentError {
    #[error("not a call event that is known here")]
    UnknownType,
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{0}` is malformed")]
    Malformed(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub envelope: Envelope,
    pub kind: Kind,
}

/// The events of a call (spec, "Voice over IP"; `AssertedIdentity`: MSC3086). SDP is bounded in length, not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Invite {
        offer: String,
        /// At most [`MAX_LIFETIME`].
        lifetime: Duration,
        /// Whom it is for, if not for anyone in the room.
        invitee: Option<String>,
        streams: Option<Vec<Stream>>,
    },
    Candidates(Vec<Candidate>),
    Answer {
        answer: String,
        streams: Option<Vec<Stream>>,
    },
    SelectAnswer {
        selected_party_id: String,
    },
    Reject(Reason),
    Negotiate {
        description: Description,
        lifetime: Option<Duration>,
        streams: Option<Vec<Stream>>,
    },
    StreamsChanged(Vec<Stream>),
    Hangup(Reason),
    AssertedIdentity(Identity),
}

/// `RTCIceCandidateInit`. An empty `candidate` says that there are no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub candidate: String,
    pub sdp_mid: Option<String>,
    pub sdp_m_line_index: Option<u16>,
}

impl Candidate {
    pub fn end() -> Candidate {
        Candidate { candidate: String::new(), sdp_mid: None, sdp_m_line_index: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub is_offer: bool,
    pub sdp: String,
}

/// Who is really on the line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// A Matrix id.
    pub id: Option<String>,
    pub display_name: Option<String>,
    /// `mxc:`
    pub avatar_url: Option<String>,
}

impl Content {
    /// Whether [`Content::parse`] may know the type: for those who look through a timeline.
    pub fn is_call_event(event_type: &str) -> bool {
        event_type.starts_with("m.call.") || event_type.starts_with("org.matrix.call.")
    }

    /// A room event's decrypted content.
    pub fn parse(event_type: &str, content: &Value) -> Result<Content, ContentError> {
        Ok(Content { kind: Kind::parse(event_type, content)?, envelope: Envelope::parse(content)? })
    }

    /// A to-device message's.
    pub fn parse_to_device(event_type: &str, content: &Value) -> Result<Content, ContentError> {
        Ok(Content { kind: Kind::parse(event_type, content)?, envelope: Envelope::parse_to_device(content)? })
    }

    /// The event's type and content.
    pub fn to_json(&self) -> (&'static str, Value) {
        let mut content = Map::new();
        self.envelope.write(&mut content);
        let event_type = self.kind.write(self.envelope.version, &mut content);
        (event_type, Value::Object(content))
    }
}

impl Kind {
    fn parse(event_type: &str, content: &Value) -> Result<Kind, ContentError> {
        let kind = match event_type {
            "m.call.invite" => Kind::Invite {
                offer: sdp(content, "offer", "offer", MAX_SDP_BYTES)?,
                lifetime: lifetime(content).unwrap_or(DEFAULT_LIFETIME),
                invitee: name(content, "invitee", MAX_ID_BYTES)?,
                streams: streams::parse(content),
            },
            "m.call.candidates" => Kind::Candidates(candidates(content)?),
            "m.call.answer" => Kind::Answer {
                answer: sdp(content, "answer", "answer", MAX_SDP_BYTES)?,
                streams: streams::parse(content),
            },
            "m.call.select_answer" => Kind::SelectAnswer {
                selected_party_id: name(content, "selected_party_id", MAX_ID_BYTES)?
                    .ok_or(ContentError::Missing("selected_party_id"))?,
            },
            "m.call.reject" => Kind::Reject(reason(content)),
            "m.call.negotiate" => Kind::Negotiate {
                description: Description::parse(content, MAX_SDP_BYTES)?,
                lifetime: lifetime(content),
                streams: streams::parse(content),
            },
            "m.call.sdp_stream_metadata_changed" | "org.matrix.call.sdp_stream_metadata_changed" => {
                Kind::StreamsChanged(streams::parse(content).ok_or(ContentError::Missing("sdp_stream_metadata"))?)
            }
            "m.call.hangup" => Kind::Hangup(reason(content)),
            "m.call.asserted_identity" | "org.matrix.call.asserted_identity" => {
                Kind::AssertedIdentity(Identity::parse(content.get("asserted_identity"))?)
            }
            _ => return Err(ContentError::UnknownType),
        };
        Ok(kind)
    }

    fn write(&self, version: Version, content: &mut Map<String, Value>) -> &'static str {
        let mut put = |key: &str, value: Value| content.insert(key.into(), value);
        match self {
            Kind::Invite { offer, lifetime, invitee, streams } => {
                put("offer", json!({ "type": "offer", "sdp": offer }));
                put("lifetime", milliseconds(*lifetime));
                if let Some(invitee) = invitee {
                    put("invitee", json!(invitee));
                }
                streams::write_if_known(streams.as_deref(), content);
                "m.call.invite"
            }
            Kind::Candidates(candidates) => {
                put("candidates", candidates.iter().map(Candidate::to_json).collect());
                "m.call.candidates"
            }
            Kind::Answer { answer, streams } => {
                put("answer", json!({ "type": "answer", "sdp": answer }));
                streams::write_if_known(streams.as_deref(), content);
                "m.call.answer"
            }
            Kind::SelectAnswer { selected_party_id } => {
                put("selected_party_id", json!(selected_party_id));
                "m.call.select_answer"
            }
            Kind::Reject(reason) => {
                put("reason", json!(reason.as_str()));
                "m.call.reject"
            }
            Kind::Negotiate { description, lifetime, streams } => {
                put("description", description.to_json());
                if let Some(lifetime) = lifetime {
                    put("lifetime", milliseconds(*lifetime));
                }
                streams::write_if_known(streams.as_deref(), content);
                "m.call.negotiate"
            }
            Kind::StreamsChanged(streams) => {
                streams::write(streams, content);
                "m.call.sdp_stream_metadata_changed"
            }
            Kind::Hangup(reason) => {
                // Clients of version 0 know reasons of failures only.
                if version == Version::V1 || *reason != Reason::UserHangup {
                    put("reason", json!(reason.as_str()));
                }
                "m.call.hangup"
            }
            Kind::AssertedIdentity(identity) => {
                put("asserted_identity", identity.to_json());
                // MSC3086 is not merged.
                "org.matrix.call.asserted_identity"
            }
        }
    }
}

impl Description {
    /// Provisional answers (MSC3635) say nothing that the answer does not say again.
    pub(super) fn parse(content: &Value, max_bytes: usize) -> Result<Description, ContentError> {
        const KEY: &str = "description";
        let is_offer = match content.get(KEY).and_then(|description| description.get("type")?.as_str()) {
            Some("offer") => true,
            Some("answer") => false,
            _ => return Err(ContentError::Malformed(KEY)),
        };
        Ok(Description { is_offer, sdp: sdp(content, KEY, if is_offer { "offer" } else { "answer" }, max_bytes)? })
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "type": if self.is_offer { "offer" } else { "answer" }, "sdp": self.sdp })
    }
}

impl Candidate {
    fn parse(value: &Value) -> Option<Candidate> {
        let text = value.get("candidate")?.as_str()?;
        let mid = value.get("sdpMid").and_then(Value::as_str);
        if text.len() > MAX_CANDIDATE_BYTES || mid.is_some_and(|mid| mid.len() > MAX_ID_BYTES) {
            return None;
        }
        Some(Candidate {
            candidate: text.to_owned(),
            sdp_mid: mid.map(str::to_owned),
            sdp_m_line_index: value
                .get("sdpMLineIndex")
                .and_then(Value::as_u64)
                .and_then(|index| index.try_into().ok()),
        })
    }

    fn to_json(&self) -> Value {
        let mut value = Map::new();
        value.insert("candidate".into(), json!(self.candidate));
        if let Some(mid) = &self.sdp_mid {
            value.insert("sdpMid".into(), json!(mid));
        }
        if let Some(index) = self.sdp_m_line_index {
            value.insert("sdpMLineIndex".into(), json!(index));
        }
        Value::Object(value)
    }
}

impl Identity {
    /// `null` takes back what was asserted before.
    fn parse(value: Option<&Value>) -> Result<Identity, ContentError> {
        match value {
            Some(Value::Null) => Ok(Identity::default()),
            Some(value @ Value::Object(_)) => Ok(Identity {
                id: name(value, "id", MAX_ID_BYTES)?,
                display_name: name(value, "display_name", MAX_NAME_BYTES)?,
                avatar_url: name(value, "avatar_url", MAX_NAME_BYTES)?,
            }),
            _ => Err(ContentError::Malformed("asserted_identity")),
        }
    }

    fn to_json(&self) -> Value {
        if *self == Identity::default() {
            return Value::Null;
        }
        let fields = [("id", &self.id), ("display_name", &self.display_name), ("avatar_url", &self.avatar_url)];
        fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value.as_ref()?)))).collect()
    }
}

/// The text of a description. Its type may be missing, as the event tells it; a wrong one is an error.
fn sdp(content: &Value, key: &'static str, kind: &str, max_bytes: usize) -> Result<String, ContentError> {
    let description = content.get(key).ok_or(ContentError::Missing(key))?;
    let is_kind = description.get("type").is_none_or(|found| found.as_str() == Some(kind));
    match description.get("sdp").and_then(Value::as_str) {
        Some(text) if is_kind && !text.is_empty() && text.len() <= max_bytes => Ok(text.to_owned()),
        _ => Err(ContentError::Malformed(key)),
    }
}

fn candidates(content: &Value) -> Result<Vec<Candidate>, ContentError> {
    const KEY: &str = "candidates";
    let listed = content.get(KEY).ok_or(ContentError::Missing(KEY))?;
    let listed = listed.as_array().ok_or(ContentError::Malformed(KEY))?;
    Ok(listed.iter().take(MAX_CANDIDATES_PER_EVENT).filter_map(Candidate::parse).collect())
}

/// Missing, negative or of another type: as if it were not there.
fn lifetime(content: &Value) -> Option<Duration> {
    let lifetime = content.get("lifetime")?;
    let ms = lifetime.as_u64().or_else(|| lifetime.as_f64().filter(|ms| *ms >= 0.0).map(|ms| ms as u64))?;
    Some(Duration::from_millis(ms).min(MAX_LIFETIME))
}

fn milliseconds(lifetime: Duration) -> Value {
    json!(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX))
}

fn reason(content: &Value) -> Reason {
    match content.get("reason") {
        None | Some(Value::Null) => Reason::UserHangup,
        Some(reason) => reason.as_str().map_or(Reason::UnknownError, Reason::parse),
    }
}

fn name(content: &Value, key: &'static str, max_bytes: usize) -> Result<Option<String>, ContentError> {
    match content.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= max_bytes => Ok(Some(text.clone())),
        Some(_) => Err(ContentError::Malformed(key)),
    }
}
