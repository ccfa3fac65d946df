//! Data packets: what one participant's data channel brings, checked and stamped for the others'.
//!
//! Packets are edited on the wire, not decoded and encoded again: the protobuf library drops what it does not know, and
//! clients newer than we are put new payloads into the packet. So every field stays as it came, byte for byte, except
//! the few that say who sent it: those are left out, and the truth is appended. (Protobuf: fields may come in any order,
//! the last of a scalar counts.)
//!
//! End-to-end encrypted packets (`encrypted_packet`) pass like all others.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};
use proto::data_packet::Value;

use super::Dropped;
use crate::sfu::DataChannel;

/// What stamping may add to a message, bytes: sid and identity (256), once in the packet and once in a user packet.
const STAMP_MAX: usize = 600;

/// A reliable message, bytes: what the SDP announces (65 535) once stamped. Client libraries stop at 64 000 of payload.
const RELIABLE_MAX: usize = 65_535 - STAMP_MAX;

/// A lossy message, bytes: the 1 300 that client libraries document for a payload, and its envelope. More would go out
/// as several packets, any of which loses the whole.
const LOSSY_MAX: usize = 2_000;

/// Sustained messages from one participant: one per millisecond. Each is multiplied by the number of receivers; a file
/// in 15 kB chunks stays below at 100 Mbit/s.
const MESSAGE_COST: Duration = Duration::from_millis(1);

/// How far a participant may run ahead of that: two seconds' worth at once, as after a resume.
const MESSAGE_BURST: Duration = Duration::from_secs(2);

/// Nonces of user packets remembered: a client repeats one within its last few packets, if at all.
const NONCES_MAX: usize = 64;

/// A nonce, bytes; libraries use 16.
const NONCE_MAX: usize = 64;

/// Field numbers of `DataPacket` and of `UserPacket` inside it (`livekit_models.proto`).
mod field {
    pub const KIND: u32 = 1;
    pub const USER: u32 = 2;
    pub const PARTICIPANT_IDENTITY: u32 = 4;
    pub const PARTICIPANT_SID: u32 = 17;
    pub const USER_PARTICIPANT_SID: u32 = 1;
    pub const USER_PARTICIPANT_IDENTITY: u32 = 5;
}

/// Who is on the other end of the data channel.
pub(super) struct Sender<'a> {
    pub sid: &'a str,
    pub identity: &'a str,
    /// Receivers are not told who it was.
    pub hidden: bool,
    /// `canPublishData` in the token.
    pub may_publish: bool,
}

/// A packet ready to go out.
#[derive(Debug, PartialEq)]
pub(super) struct Packet {
    pub to: Destination,
    pub message: Vec<u8>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Destination {
    /// Everyone but the sender.
    Everyone,
    Only {
        identities: HashSet<String>,
        sids: HashSet<String>,
    },
}

impl Destination {
    pub(super) fn includes(&self, sid: &str, identity: &str) -> bool {
        match self {
            Destination::Everyone => true,
            Destination::Only { identities, sids } => identities.contains(identity) || sids.contains(sid),
        }
    }
}

/// What one participant has sent so far.
#[derive(Default)]
pub(super) struct Upstream {
    /// The highest `sequence` of a reliable packet. After a resume the client repeats from here.
    last_sequence: u32,
    nonces: VecDeque<Vec<u8>>,
    /// When the messages so far would have arrived at the sustained rate.
    due: Option<Instant>,
}

impl Upstream {
    pub(super) fn last_sequence(&self) -> u32 {
        self.last_sequence
    }

    /// A message from the data channel `channel`.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        sender: &Sender<'_>,
        channel: DataChannel,
        message: &[u8],
    ) -> Result<Packet, Dropped> {
        if !sender.may_publish {
            return Err(Dropped::DataNotPermitted);
        }
        let max = match channel {
            DataChannel::Reliable => RELIABLE_MAX,
            DataChannel::Lossy => LOSSY_MAX,
        };
        if message.len() > max {
            return Err(Dropped::DataOversized);
        }
        self.count(now)?;
        let packet = proto::DataPacket::decode(message).map_err(|_| Dropped::DataMalformed)?;
        #[allow(deprecated)]
        match &packet.value {
            // Speakers are ours to tell; metrics are for the server; only agents transcribe, and nobody here is one.
            Some(Value::Speaker(_) | Value::Metrics(_) | Value::Transcription(_)) => {
                return Err(Dropped::DataNotForwarded);
            }
            Some(Value::User(user)) => self.remember_nonce(&user.nonce)?,
            _ => {}
        }
        if channel == DataChannel::Reliable && packet.sequence != 0 {
            if packet.sequence <= self.last_sequence {
                return Err(Dropped::DataRepeated);
            }
            self.last_sequence = packet.sequence;
        }
        let message = stamp(message, channel, sender).ok_or(Dropped::DataMalformed)?;
        Ok(Packet { to: destination(packet), message })
    }

    fn count(&mut self, now: Instant) -> Result<(), Dropped> {
        let due = self.due.map_or(now, |due| due.max(now));
        if due.duration_since(now) > MESSAGE_BURST {
            return Err(Dropped::DataTooFast);
        }
        self.due = Some(due + MESSAGE_COST);
        Ok(())
    }

    fn remember_nonce(&mut self, nonce: &[u8]) -> Result<(), Dropped> {
        if nonce.is_empty() || nonce.len() > NONCE_MAX {
            return Ok(());
        }
        if self.nonces.iter().any(|seen| seen == nonce) {
            return Err(Dropped::DataRepeated);
        }
        if self.nonces.len() == NONCES_MAX {
            self.nonces.pop_front();
        }
        self.nonces.push_back(nonce.to_vec());
        Ok(())
    }
}

/// Old clients address inside the user packet, by identity or by sid.
fn destination(packet: proto::DataPacket) -> Destination {
    let mut identities: HashSet<_> = packet.destination_identities.into_iter().collect();
    let mut sids = HashSet::new();
    #[allow(deprecated)]
    if let Some(Value::User(user)) = packet.value {
        identities.extend(user.destination_identities);
        sids.extend(user.destination_sids);
    }
    if identities.is_empty() && sids.is_empty() {
        return Destination::Everyone;
    }
    Destination::Only { identities, sids }
}

/// The packet with the true channel and sender. `None` = not protobuf.
fn stamp(message: &[u8], channel: DataChannel, sender: &Sender<'_>) -> Option<Vec<u8>> {
    let mut stamped = Vec::with_capacity(message.len() + STAMP_MAX);
    for field in Fields(message) {
        let field = field?;
        match field.number {
            field::KIND | field::PARTICIPANT_IDENTITY | field::PARTICIPANT_SID => {}
            field::USER => {
                let user = stamp_user(field.content?, sender)?;
                encode_key(field::USER, WireType::LengthDelimited, &mut stamped);
                encode_varint(user.len() as u64, &mut stamped);
                stamped.extend_from_slice(&user);
            }
            _ => stamped.extend_from_slice(field.bytes),
        }
    }
    if channel == DataChannel::Lossy {
        encode_key(field::KIND, WireType::Varint, &mut stamped);
        encode_varint(proto::data_packet::Kind::Lossy as u64, &mut stamped);
    }
    if !sender.hidden {
        text(field::PARTICIPANT_IDENTITY, sender.identity, &mut stamped);
        text(field::PARTICIPANT_SID, sender.sid, &mut stamped);
    }
    Some(stamped)
}

/// Old clients read the sender from here.
fn stamp_user(user: &[u8], sender: &Sender<'_>) -> Option<Vec<u8>> {
    let mut stamped = Vec::with_capacity(user.len() + STAMP_MAX);
    for field in Fields(user) {
        let field = field?;
        if !matches!(field.number, field::USER_PARTICIPANT_SID | field::USER_PARTICIPANT_IDENTITY) {
            stamped.extend_from_slice(field.bytes);
        }
    }
    if !sender.hidden {
        text(field::USER_PARTICIPANT_SID, sender.sid, &mut stamped);
        text(field::USER_PARTICIPANT_IDENTITY, sender.identity, &mut stamped);
    }
    Some(stamped)
}

fn text(number: u32, text: &str, out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// One field of a protobuf message as it is on the wire.
struct Field<'a> {
    number: u32,
    /// Key and value.
    bytes: &'a [u8],
    /// The value without its length, when it has one.
    content: Option<&'a [u8]>,
}

/// The fields of a message; `None` and the end where it is no protobuf.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = take_field(&mut self.0);
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn take_field<'a>(message: &mut &'a [u8]) -> Option<Field<'a>> {
    let start = *message;
    let (number, wire_type) = decode_key(message).ok()?;
    let value = *message;
    skip_field(wire_type, number, message, DecodeContext::default()).ok()?;
    let bytes = &start[..start.len() - message.len()];
    let content = (wire_type == WireType::LengthDelimited).then(|| {
        let mut content = &value[..value.len() - message.len()];
        decode_varint(&mut content).map(|_| content)
    });
    Some(Field { number, bytes, content: content.transpose().ok()? })
}
