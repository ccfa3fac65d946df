//! What goes back to a client: answers to its requests, and what peers sent.
//!
//! Answers have no reason phrase and no SOFTWARE, as some go to addresses that may be forged.

use std::net::SocketAddr;

use stun_types::attribute::{
    AttributeType, ErrorCode, Nonce as NonceAttribute, RawAttribute, Realm, UnknownAttributes,
};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, Message, MessageClass, MessageType, MessageWriteMutSlice, TransactionId,
};
use stun_types::prelude::*;
use turn_types::attribute::{Data, XorPeerAddress};

use super::nonce::Nonce;
use super::request::Request;
use crate::transport::{Outbox, Protocol, Route};

/// Bytes of the longest answer: the longest realm (763, RFC 8489 §14.9) and everything else there can be in one.
const MAX_ANSWER_BYTES: usize = 1280;

const CHANNEL_HEADER_BYTES: usize = 4;

/// Bytes of a peer's packet that still fit one UDP datagram to the client, as a Data indication with an IPv6 address in it:
/// 65,507 less header, XOR-PEER-ADDRESS, DATA's header and padding.
pub(super) const MAX_DATA_BYTES: usize = 65_507 - 20 - 24 - 4 - 3;

/// Why a request is not granted (RFC 8489 §14.8, RFC 8656 §19).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    BadRequest = 400,
    Unauthenticated = 401,
    Forbidden = 403,
    UnknownAttribute = 420,
    AllocationMismatch = 437,
    StaleNonce = 438,
    AddressFamilyNotSupported = 440,
    WrongCredentials = 441,
    UnsupportedTransport = 442,
    PeerAddressFamilyMismatch = 443,
    QuotaReached = 486,
    InsufficientCapacity = 508,
}

impl Refusal {
    pub fn code(self) -> u16 {
        self as u16
    }
}

/// Writes an answer to `request`, signed with `key` if there is one. It has a fingerprint if the request had one.
pub(super) fn write(
    outbox: &mut Outbox,
    route: Route,
    request: &Request<'_>,
    class: MessageClass,
    key: Option<&IntegrityKey>,
    attributes: &[&dyn AttributeWrite],
) {
    let mut buffer = [0; MAX_ANSWER_BYTES];
    let kind = MessageType::from_class_method(class, request.method());
    let mut message = Message::builder(kind, request.transaction(), MessageWriteMutSlice::new(&mut buffer));
    let mut fits = attributes.iter().try_for_each(|attribute| message.add_attribute(*attribute));
    if let Some(key) = key {
        fits = fits.and_then(|()| message.add_message_integrity_with_key(key, IntegrityAlgorithm::Sha1));
    }
    if request.has_fingerprint() {
        fits = fits.and_then(|()| message.add_fingerprint());
    }
    debug_assert!(fits.is_ok(), "{fits:?}");
    let len = message.finish();
    if fits.is_ok() {
        outbox.push(route, &buffer[..len]);
    }
}

/// ERROR-CODE without a reason; takes no memory.
pub(super) fn error_code(code: u16) -> ErrorCode {
    ErrorCode::new(code, "").expect("our refusals are all between 300 and 699")
}

/// REALM and NONCE.
pub(super) fn challenge<'a>(realm: &'a str, nonce: &'a Nonce) -> (RawAttribute<'a>, RawAttribute<'a>) {
    (RawAttribute::new(Realm::TYPE, realm.as_bytes()), RawAttribute::new(NonceAttribute::TYPE, nonce))
}

/// UNKNOWN-ATTRIBUTES.
pub(super) fn unknown_attributes(types: &[u16]) -> UnknownAttributes {
    UnknownAttributes::new(&types.iter().copied().map(AttributeType::new).collect::<Vec<_>>())
}

/// A peer's packet on a channel (RFC 8656 §12.4). On a stream it is padded to four bytes.
pub(super) fn channel_data(outbox: &mut Outbox, route: Route, number: u16, data: &[u8]) {
    let Ok(len) = u16::try_from(data.len()) else { return };
    let padding = if route.protocol == Protocol::Tcp { padding(data.len()) } else { 0 };
    outbox.write(route, |bytes| {
        bytes.reserve(CHANNEL_HEADER_BYTES + data.len() + padding);
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(&[0; 3][..padding]);
    });
}

/// A peer's packet without a channel: a Data indication (RFC 8656 §11.4).
pub(super) fn data_indication(
    outbox: &mut Outbox,
    route: Route,
    transaction: TransactionId,
    peer: SocketAddr,
    data: &[u8],
) {
    let Ok(len) = u16::try_from(data.len()) else { return };
    let mut head = [0; 64];
    let kind = MessageType::from_class_method(MessageClass::Indication, turn_types::message::DATA);
    let mut message = Message::builder(kind, transaction, MessageWriteMutSlice::new(&mut head));
    if message.add_attribute(&XorPeerAddress::new(peer, transaction)).is_err() {
        return;
    }
    let head_len = message.finish();
    let padding = padding(data.len());
    let total = head_len - 20 + 4 + data.len() + padding;
    let Ok(total) = u16::try_from(total) else { return };
    head[2..4].copy_from_slice(&total.to_be_bytes());
    outbox.write(route, |bytes| {
        bytes.reserve(20 + usize::from(total));
        bytes.extend_from_slice(&head[..head_len]);
        bytes.extend_from_slice(&Data::TYPE.value().to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(&[0; 3][..padding]);
    });
}

fn padding(len: usize) -> usize {
    len.next_multiple_of(4) - len
}
