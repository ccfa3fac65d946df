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
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    pub sid: &'a str,
    pub identity: &'a str,
    /// Receivers are not told who it was.
    pub hidden: bool,
    /// `canPublishData` in the token.
    pub may_publish: bool,
}

/// A packet ready to go out.
#[derive(Debug, PartialEq)]
pub struct Packet {
    pub to: Destination,
    pub message: Vec<u8>,
}

#[derive(Debug, PartialEq)]
pub enum Destination {
    /// Everyone but the sender.
    Everyone,
    Only {
        identities: HashSet<String>,
        sids: HashSet<String>,
    },
}

impl Destination {
    /// Whether it goes to this one, whom the caller knows not to be its sender.
    pub fn includes(&self, sid: &str, identity: &str) -> bool {
        match self {
            Destination::Everyone => true,
            Destination::Only { identities, sids } => identities.contains(identity) || sids.contains(sid),
        }
    }
}

/// What one participant has sent so far.
#[derive(Debug, Default)]
pub struct Upstream {
    /// The highest `sequence` of a reliable packet. After a resume the client repeats from here.
    last_sequence: u32,
    nonces: VecDeque<Vec<u8>>,
    /// When the messages so far would have arrived at the sustained rate.
    due: Option<Instant>,
}

impl Upstream {
    /// Of the reliable packets; 0 before the first.
    pub fn last_sequence(&self) -> u32 {
        self.last_sequence
    }

    /// A message from the data channel `channel`.
    pub fn accept(
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

/// The packet with the true channel and sender. `None` = not protobuf, or several user packets in one: no client writes that,
/// and to stamp each would make megabytes of a message, for every receiver.
fn stamp(message: &[u8], channel: DataChannel, sender: &Sender<'_>) -> Option<Vec<u8>> {
    let mut stamped = Vec::with_capacity(message.len() + STAMP_MAX);
    let mut stamped_user = false;
    for field in Fields(message) {
        let field = field?;
        match field.number {
            field::KIND | field::PARTICIPANT_IDENTITY | field::PARTICIPANT_SID => {}
            field::USER if stamped_user => return None,
            field::USER => {
                stamped_user = true;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALICE: Sender<'static> = Sender { sid: "PA_a", identity: "alice", hidden: false, may_publish: true };

    fn accept(channel: DataChannel, sender: &Sender<'_>, message: &[u8]) -> Result<Packet, Dropped> {
        Upstream::default().accept(Instant::now(), sender, channel, message)
    }

    fn user(user: proto::UserPacket) -> proto::DataPacket {
        proto::DataPacket { value: Some(Value::User(user)), ..Default::default() }
    }

    #[test]
    fn a_packet_does_not_grow_beyond_its_stamp() {
        let identity = "i".repeat(256);
        let sender = Sender { identity: &identity, ..ALICE };
        let one = user(proto::UserPacket { payload: b"x".to_vec(), ..Default::default() }).encode_to_vec();
        let packet = accept(DataChannel::Reliable, &sender, &one).expect("one is stamped");
        assert!(packet.message.len() <= one.len() + STAMP_MAX);
        assert_eq!(accept(DataChannel::Reliable, &sender, &one.repeat(2)), Err(Dropped::DataMalformed));
        assert_eq!(accept(DataChannel::Reliable, &sender, &[0x12, 0].repeat(30_000)), Err(Dropped::DataMalformed));
    }

    #[test]
    #[allow(deprecated)]
    fn the_sender_and_the_channel_are_what_they_are_whatever_the_packet_says() {
        let forged = proto::DataPacket {
            kind: 1,
            participant_identity: "bob".to_owned(),
            participant_sid: "PA_b".to_owned(),
            ..user(proto::UserPacket {
                participant_sid: "PA_b".to_owned(),
                participant_identity: "bob".to_owned(),
                payload: b"hello".to_vec(),
                topic: Some("chat".to_owned()),
                ..Default::default()
            })
        };
        for (channel, kind) in [(DataChannel::Reliable, 0), (DataChannel::Lossy, 1)] {
            let packet = accept(channel, &ALICE, &forged.encode_to_vec()).expect("accepted");
            let got = proto::DataPacket::decode(&packet.message[..]).expect("a packet");
            assert_eq!(got.kind, kind);
            assert_eq!((got.participant_identity.as_str(), got.participant_sid.as_str()), ("alice", "PA_a"));
            let Some(Value::User(user)) = got.value else { panic!("{got:?}") };
            assert_eq!((user.participant_identity.as_str(), user.participant_sid.as_str()), ("alice", "PA_a"));
            assert_eq!((user.payload.as_slice(), user.topic.as_deref()), (&b"hello"[..], Some("chat")));
        }
        let hidden = Sender { hidden: true, ..ALICE };
        let packet = accept(DataChannel::Reliable, &hidden, &forged.encode_to_vec()).expect("accepted");
        let got = proto::DataPacket::decode(&packet.message[..]).expect("a packet");
        assert_eq!((got.participant_identity.as_str(), got.participant_sid.as_str()), ("", ""));
        let Some(Value::User(user)) = got.value else { panic!("{got:?}") };
        assert_eq!((user.participant_identity.as_str(), user.participant_sid.as_str()), ("", ""));
    }

    #[test]
    fn what_is_newer_than_we_are_passes_untouched() {
        // Field 99, three bytes; then a fixed32 in field 100.
        let mut message = Vec::new();
        text(99, "new", &mut message);
        encode_key(100, WireType::ThirtyTwoBit, &mut message);
        message.extend_from_slice(&[1, 2, 3, 4]);
        let packet = accept(DataChannel::Reliable, &ALICE, &message).expect("accepted");
        assert!(packet.message.starts_with(&message));

        // Inside a user packet, too.
        let mut inner = Vec::new();
        text(50, "new", &mut inner);
        let mut message = Vec::new();
        encode_key(field::USER, WireType::LengthDelimited, &mut message);
        encode_varint(inner.len() as u64, &mut message);
        message.extend_from_slice(&inner);
        let packet = accept(DataChannel::Reliable, &ALICE, &message).expect("accepted");
        assert!(packet.message.windows(inner.len()).any(|window| window == inner));
    }

    #[test]
    fn what_is_not_for_the_others() {
        #[allow(deprecated)]
        let cases = [
            Value::Speaker(Default::default()),
            Value::Metrics(Default::default()),
            Value::Transcription(Default::default()),
        ];
        for value in cases {
            let message = proto::DataPacket { value: Some(value), ..Default::default() }.encode_to_vec();
            assert_eq!(accept(DataChannel::Reliable, &ALICE, &message), Err(Dropped::DataNotForwarded));
        }
        for value in [
            Value::RpcRequest(Default::default()),
            Value::StreamHeader(Default::default()),
            Value::StreamChunk(Default::default()),
            Value::StreamTrailer(Default::default()),
            Value::EncryptedPacket(Default::default()),
            Value::ChatMessage(Default::default()),
            Value::SipDtmf(Default::default()),
        ] {
            let message = proto::DataPacket { value: Some(value), ..Default::default() }.encode_to_vec();
            let packet = accept(DataChannel::Reliable, &ALICE, &message).expect("accepted");
            assert!(packet.message.starts_with(&message));
        }
    }

    #[test]
    fn permission_size_and_form() {
        let silent = Sender { may_publish: false, ..ALICE };
        assert_eq!(accept(DataChannel::Reliable, &silent, &[]), Err(Dropped::DataNotPermitted));
        assert_eq!(accept(DataChannel::Reliable, &ALICE, &[0xff; 8]), Err(Dropped::DataMalformed));
        let sized = |size: usize| {
            let payload = vec![7; size];
            user(proto::UserPacket { payload, ..Default::default() }).encode_to_vec()
        };
        for (channel, payload, fits) in [
            (DataChannel::Reliable, 64_000, true),
            (DataChannel::Reliable, 65_000, false),
            (DataChannel::Lossy, 1_300, true),
            (DataChannel::Lossy, 2_000, false),
        ] {
            let outcome = accept(channel, &ALICE, &sized(payload));
            match fits {
                true => assert!(outcome.expect("fits").message.len() <= 65_535),
                false => assert_eq!(outcome, Err(Dropped::DataOversized), "{payload}"),
            }
        }
    }

    #[test]
    fn a_reliable_packet_counts_once() {
        let numbered = |sequence| proto::DataPacket { sequence, ..Default::default() }.encode_to_vec();
        let mut upstream = Upstream::default();
        let now = Instant::now();
        let mut accept = |channel, sequence| upstream.accept(now, &ALICE, channel, &numbered(sequence)).map(|_| ());
        use DataChannel::{Lossy, Reliable};
        for (channel, sequence, outcome) in [
            (Reliable, 1, Ok(())),
            (Reliable, 2, Ok(())),
            (Reliable, 2, Err(Dropped::DataRepeated)),
            (Reliable, 1, Err(Dropped::DataRepeated)),
            (Reliable, 7, Ok(())),
            (Reliable, 3, Err(Dropped::DataRepeated)),
            // A client that does not count, and the channel where nobody does.
            (Reliable, 0, Ok(())),
            (Reliable, 0, Ok(())),
            (Lossy, 3, Ok(())),
            (Reliable, 8, Ok(())),
        ] {
            assert_eq!(accept(channel, sequence), outcome, "{channel:?} {sequence}");
        }
        assert_eq!(upstream.last_sequence(), 8);
    }

    #[test]
    fn a_nonce_counts_once_for_a_while() {
        let mut upstream = Upstream::default();
        let now = Instant::now();
        let mut accept = |nonce: &[u8]| {
            let message = user(proto::UserPacket { nonce: nonce.to_vec(), ..Default::default() }).encode_to_vec();
            upstream.accept(now, &ALICE, DataChannel::Reliable, &message).map(|_| ())
        };
        assert_eq!(accept(b""), Ok(()));
        assert_eq!(accept(b""), Ok(()));
        assert_eq!(accept(b"first"), Ok(()));
        assert_eq!(accept(b"first"), Err(Dropped::DataRepeated));
        for nonce in 0..NONCES_MAX as u32 {
            assert_eq!(accept(&nonce.to_be_bytes()), Ok(()));
        }
        assert_eq!(accept(b"first"), Ok(()));
    }

    #[test]
    fn nobody_floods_the_room() {
        let mut upstream = Upstream::default();
        let now = Instant::now();
        let mut accepted =
            |now| (0..5000).filter(|_| upstream.accept(now, &ALICE, DataChannel::Lossy, &[]).is_ok()).count();
        assert_eq!(accepted(now), 2001);
        assert_eq!(accepted(now), 0);
        assert_eq!(accepted(now + Duration::from_millis(500)), 500);
    }

    #[test]
    fn addressees_by_identity_and_by_sid_in_the_packet_and_in_the_user_packet() {
        #[allow(deprecated)]
        let packet = proto::DataPacket {
            destination_identities: vec!["bob".to_owned()],
            ..user(proto::UserPacket {
                destination_identities: vec!["carol".to_owned()],
                destination_sids: vec!["PA_d".to_owned()],
                ..Default::default()
            })
        };
        let to = accept(DataChannel::Reliable, &ALICE, &packet.encode_to_vec()).expect("accepted").to;
        for (sid, identity, included) in [
            ("PA_b", "bob", true),
            ("PA_c", "carol", true),
            ("PA_d", "dave", true),
            ("PA_e", "eve", false),
            ("bob", "PA_d", false),
        ] {
            assert_eq!(to.includes(sid, identity), included, "{identity}");
        }
    }

    proptest! {
        /// Whatever we take, others can read, and it says who sent it.
        #[test]
        fn what_is_accepted_is_a_packet_from_alice(message in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(packet) = accept(DataChannel::Lossy, &ALICE, &message) {
                let got = proto::DataPacket::decode(&packet.message[..]).expect("a packet");
                prop_assert_eq!(got.participant_identity, "alice");
                prop_assert_eq!(got.participant_sid, "PA_a");
                #[allow(deprecated)]
                if let Some(Value::User(user)) = got.value {
                    prop_assert_eq!(user.participant_identity, "alice");
                }
            }
        }

        #[test]
        fn fields_cut_a_message_at_the_same_places_as_the_library(message in prop::collection::vec(any::<u8>(), 0..80)) {
            let joined: Option<Vec<u8>> =
                Fields(&message).map(|field| field.map(|field| field.bytes)).collect::<Option<Vec<_>>>().map(|fields| fields.concat());
            // The empty message knows no field, so decoding it checks nothing but the form.
            match <() as prost::Message>::decode(&message[..]) {
                Ok(()) => prop_assert_eq!(joined, Some(message)),
                Err(_) => prop_assert_eq!(joined, None),
            }
        }
    }
}
