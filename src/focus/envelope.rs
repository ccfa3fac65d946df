//! What surrounds the content of every `m.call.*` event: which call, which of the user's clients, which version; and in
//! to-device messages (MSC3401, MSC3898) also which conference, device, session and place in the order.
//!
//! [`Content`](super::Content) reads and writes it. The same calls travel both ways; only a [`Leg`](super::leg) that sends
//! asks which.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::content::ContentError;

/// Bytes of a call id (spec: 1..=255), a party id, and of every id that Matrix makes (spec, "Size limits").
pub(super) const MAX_ID_BYTES: usize = 255;

/// What the sender's client knows of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// No party ids, no `select_answer`, `reject` or `negotiate`: one offer, one answer.
    V0,
    /// The string "1"; what is not understood counts as this.
    V1,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Chosen by the caller. Printable ASCII; the specification allows less of it.
    pub call_id: String,
    /// As it was said, also by a client of version 0; see [`Envelope::party`].
    pub party_id: Option<String>,
    pub version: Version,
    /// Only in to-device messages.
    pub device: Option<DeviceEnvelope>,
}

/// MSC3401, "to-device signalling".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEnvelope {
    /// The group call.
    pub conf_id: String,
    /// The sender's.
    pub device_id: String,
    /// Changes when the sender's client starts anew.
    pub sender_session_id: String,
    pub dest_session_id: String,
    /// Counts the sender's messages in this call from 0.
    pub seq: Option<u64>,
}

impl Envelope {
    /// Which of its user's clients a sender is. Version 0 knows one.
    pub fn party(&self) -> Option<&str> {
        self.party_id.as_deref().filter(|_| self.version == Version::V1)
    }

    pub(super) fn parse(content: &Value) -> Result<Envelope, ContentError> {
        let party_id = optional_id(content, "party_id")?;
        Ok(Envelope {
            call_id: id(content, "call_id")?,
            version: version(content.get("version"), party_id.is_some()),
            party_id,
            device: None,
        })
    }

    pub(super) fn parse_to_device(content: &Value) -> Result<Envelope, ContentError> {
        let device = DeviceEnvelope {
            conf_id: id(content, "conf_id")?,
            device_id: id(content, "device_id")?,
            sender_session_id: id(content, "sender_session_id")?,
            dest_session_id: id(content, "dest_session_id")?,
            seq: content.get("seq").and_then(Value::as_u64),
        };
        Ok(Envelope { device: Some(device), ..Envelope::parse(content)? })
    }

    pub(super) fn write(&self, content: &mut Map<String, Value>) {
        content.insert("call_id".into(), json!(self.call_id));
        let version = match self.version {
            // Clients that know only this one may read nothing but a number.
            Version::V0 => json!(0),
            Version::V1 => json!("1"),
        };
        content.insert("version".into(), version);
        if let Some(party_id) = &self.party_id {
            content.insert("party_id".into(), json!(party_id));
        }
        if let Some(device) = &self.device {
            content.insert("conf_id".into(), json!(device.conf_id));
            content.insert("device_id".into(), json!(device.device_id));
            content.insert("sender_session_id".into(), json!(device.sender_session_id));
            content.insert("dest_session_id".into(), json!(device.dest_session_id));
            if let Some(seq) = device.seq {
                content.insert("seq".into(), json!(seq));
            }
        }
    }
}

/// The number 0 is version 0, everything else is "1". What names neither a version nor a party is as old as they come.
fn version(value: Option<&Value>, has_party: bool) -> Version {
    match value {
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Version::V0,
        None if !has_party => Version::V0,
        _ => Version::V1,
    }
}

/// Ids are compared, logged and sent back: what cannot be printed has no place in one.
pub(super) fn id(content: &Value, key: &'static str) -> Result<String, ContentError> {
    optional_id(content, key)?.ok_or(ContentError::Missing(key))
}

fn optional_id(content: &Value, key: &'static str) -> Result<Option<String>, ContentError> {
    match content.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if is_id(text) => Ok(Some(text.clone())),
        Some(_) => Err(ContentError::Malformed(key)),
    }
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
