//! How an opponent is spoken to: in its version of the protocol, over room events or to-device messages.

use std::collections::VecDeque;

use super::Settings;
use super::call::{CallKey, LegId, Scope};
use super::content::{Content, Kind};
use super::envelope::{DeviceEnvelope, Envelope, Version};
use super::event::{Address, Output};
use super::verdict::Farewell;

#[derive(Debug)]
pub(super) struct Peer {
    pub call: CallKey,
    pub version: Version,
    /// Of the opponent's device, in a conference.
    pub session: Option<String>,
    /// The next of our to-device messages.
    seq: u64,
}

impl Peer {
    pub fn new(call: CallKey, envelope: &Envelope) -> Peer {
        let session = envelope.device.as_ref().map(|device| device.sender_session_id.clone());
        Peer { call, version: envelope.version, session, seq: 0 }
    }

    /// Somebody whom we ring, and of whom nothing is known yet.
    pub fn unknown(call: CallKey) -> Peer {
        Peer { call, version: Version::V1, session: None, seq: 0 }
    }

    pub fn say(&mut self, settings: &Settings, outputs: &mut VecDeque<Output>, leg: Option<LegId>, kind: Kind) {
        let envelope = self.envelope(settings);
        let (event_type, content) = Content { envelope, kind }.to_json();
        outputs.push_back(Output::Send { leg, to: self.address(), event_type, content });
    }

    pub fn say_farewell(
        &mut self,
        settings: &Settings,
        outputs: &mut VecDeque<Output>,
        leg: Option<LegId>,
        farewell: Farewell,
    ) {
        let kind = match (farewell, self.version) {
            (Farewell::Silent, _) => return,
            (Farewell::Reject(reason), Version::V1) => Kind::Reject(reason),
            (Farewell::Reject(reason), Version::V0) | (Farewell::Hangup(reason), _) => Kind::Hangup(reason),
        };
        self.say(settings, outputs, leg, kind);
    }

    fn envelope(&mut self, settings: &Settings) -> Envelope {
        let device = match (&self.call.scope, &self.session) {
            (Scope::Conference(conf_id), Some(session)) => {
                let seq = self.seq;
                self.seq += 1;
                Some(DeviceEnvelope {
                    conf_id: conf_id.clone(),
                    device_id: settings.party_id.clone(),
                    sender_session_id: settings.session_id.clone(),
                    dest_session_id: session.clone(),
                    seq: Some(seq),
                })
            }
            _ => None,
        };
        Envelope {
            call_id: self.call.call_id.clone(),
            // Also where it means nothing: we know our own events by it when they come back.
            party_id: Some(settings.party_id.clone()),
            version: self.version,
            device,
        }
    }

    fn address(&self) -> Address {
        match (&self.call.scope, &self.call.device) {
            (Scope::Room(room), _) => Address::Room(room.clone()),
            (Scope::Conference(_), device) => {
                Address::Device { user: self.call.user.clone(), device: device.clone().unwrap_or_default() }
            }
        }
    }
}
