//! A STUN message from a client as it is read: nothing in it is believed yet.
//!
//! Only what stands before MESSAGE-INTEGRITY is seen, apart from MESSAGE-INTEGRITY-SHA256 and FINGERPRINT: what comes
//! after it could have been put there on the way (RFC 8489 §14.5).

use std::net::SocketAddr;

use stun_types::attribute::{
    AttributeType, Fingerprint, MessageIntegrity, MessageIntegritySha256, Nonce, RawAttribute, Realm, Username,
};
use stun_types::message::{Message, MessageHeader, MessageType, Method, StunParseError, TransactionId};
use stun_types::prelude::*;
use turn_types::AddressFamily;
use turn_types::attribute::{
    AdditionalAddressFamily, ChannelNumber, Data, EvenPort, Lifetime, RequestedAddressFamily, RequestedTransport,
    ReservationToken, XorPeerAddress,
};

use super::answer::Refusal;

/// Attributes told back as not understood. A request that has more of them is no less refused.
const MAX_UNKNOWN: usize = 16;

/// What we understand of what must be understood (below 0x8000). DONT-FRAGMENT is not among them, as RFC 8656 §7.2 has it
/// for servers that do not set the bit: portable code cannot for one packet of a socket.
const KNOWN: [AttributeType; 13] = [
    Username::TYPE,
    MessageIntegrity::TYPE,
    MessageIntegritySha256::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    ChannelNumber::TYPE,
    Lifetime::TYPE,
    XorPeerAddress::TYPE,
    Data::TYPE,
    RequestedAddressFamily::TYPE,
    EvenPort::TYPE,
    RequestedTransport::TYPE,
    ReservationToken::TYPE,
];

/// Clients of coturn 4.6 and older ask for a second address by it.
const DRAFT_ADDITIONAL_ADDRESS_FAMILY: AttributeType = AttributeType::new(0x8032);

pub(super) struct Request<'a> {
    message: Message<'a>,
}

/// The attributes that a request is checked by.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub username: Option<&'a str>,
    pub has_realm: bool,
    pub nonce: Option<&'a [u8]>,
    pub is_signed: bool,
}

/// Types that had to be understood and were not.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    types: [u16; MAX_UNKNOWN],
    len: usize,
}

impl Unknown {
    pub fn types(&self) -> &[u16] {
        &self.types[..self.len]
    }
}

impl<'a> Request<'a> {
    /// `None` for what is no STUN message of exactly this length, or has a wrong fingerprint.
    pub fn parse(bytes: &'a [u8]) -> Option<Request<'a>> {
        let header = MessageHeader::from_bytes(bytes).ok()?;
        let length = usize::from(header.data_length());
        if length % 4 != 0 || bytes.len() != MessageHeader::LENGTH + length {
            return None;
        }
        Message::from_bytes(bytes).ok().map(|message| Request { message })
    }

    pub fn message(&self) -> &Message<'a> {
        &self.message
    }

    pub fn kind(&self) -> MessageType {
        self.message.get_type()
    }

    pub fn method(&self) -> Method {
        self.message.method()
    }

    pub fn transaction(&self) -> TransactionId {
        self.message.transaction_id()
    }

    pub fn has_fingerprint(&self) -> bool {
        self.message.has_attribute(Fingerprint::TYPE)
    }

    /// The first of each kind counts.
    pub fn claim(&'a self) -> Claim<'a> {
        let mut claim = Claim::default();
        for (offset, attribute) in self.message.iter_attributes() {
            match attribute.get_type() {
                Username::TYPE if claim.username.is_none() => {
                    claim.username = std::str::from_utf8(self.value(offset, &attribute)).ok();
                }
                Nonce::TYPE if claim.nonce.is_none() => claim.nonce = Some(self.value(offset, &attribute)),
                Realm::TYPE => claim.has_realm = true,
                MessageIntegrity::TYPE => claim.is_signed = true,
                _ => {}
            }
        }
        claim
    }

    pub fn unknown(&self) -> Unknown {
        let mut unknown = Unknown::default();
        let types = self.message.iter_attributes().map(|(_, attribute)| attribute.get_type());
        let missed = types.filter(|kind| kind.comprehension_required() && !KNOWN.contains(kind));
        for (place, kind) in unknown.types.iter_mut().zip(missed) {
            *place = kind.value();
            unknown.len += 1;
        }
        unknown
    }

    /// An attribute that may be left out.
    pub fn optional<A: AttributeFromRaw<'a> + AttributeStaticType>(&'a self) -> Result<Option<A>, Refusal> {
        match self.message.attribute::<A>() {
            Ok(attribute) => Ok(Some(attribute)),
            Err(StunParseError::MissingAttribute(_)) => Ok(None),
            Err(_) => Err(Refusal::BadRequest),
        }
    }

    pub fn required<A: AttributeFromRaw<'a> + AttributeStaticType>(&'a self) -> Result<A, Refusal> {
        self.optional()?.ok_or(Refusal::BadRequest)
    }

    /// ADDITIONAL-ADDRESS-FAMILY (RFC 8656 §18.11), also by the number it had before it was standardised.
    pub fn additional_family(&self) -> Result<Option<AddressFamily>, Refusal> {
        let numbers = [AdditionalAddressFamily::TYPE, DRAFT_ADDITIONAL_ADDRESS_FAMILY];
        let Some(found) = numbers.into_iter().find_map(|number| self.message.raw_attribute(number)) else {
            return Ok(None);
        };
        match *found.value {
            [1, ..] => Ok(Some(AddressFamily::IPV4)),
            [2, ..] => Ok(Some(AddressFamily::IPV6)),
            _ => Err(Refusal::BadRequest),
        }
    }

    pub fn has<A: AttributeStaticType>(&self) -> bool {
        self.message.has_attribute(A::TYPE)
    }

    /// Every XOR-PEER-ADDRESS, `None` for one that cannot be read.
    pub fn peers(&self) -> impl Iterator<Item = Option<SocketAddr>> {
        let transaction = self.transaction();
        let attributes = self.message.iter_attributes().map(|(_, attribute)| attribute);
        let peers = attributes.filter(|attribute| attribute.get_type() == XorPeerAddress::TYPE);
        peers.map(move |attribute| XorPeerAddress::from_raw_ref(&attribute).ok().map(|peer| peer.addr(transaction)))
    }

    /// What a Send indication asks for: the first peer and the first data in it (RFC 8656 §11.1).
    pub fn send(&'a self) -> Option<(SocketAddr, &'a [u8])> {
        let (mut peer, mut data) = (None, None);
        for (offset, attribute) in self.message.iter_attributes() {
            match attribute.get_type() {
                XorPeerAddress::TYPE if peer.is_none() => {
                    peer = Some(XorPeerAddress::from_raw_ref(&attribute).ok()?.addr(self.transaction()));
                }
                Data::TYPE if data.is_none() => data = Some(self.value(offset, &attribute)),
                kind if kind.comprehension_required() && !KNOWN.contains(&kind) => return None,
                _ => {}
            }
        }
        peer.zip(data)
    }

    /// The attribute's bytes, for as long as the message is there.
    fn value(&'a self, offset: usize, attribute: &RawAttribute<'_>) -> &'a [u8] {
        let start = offset + ATTRIBUTE_HEADER_BYTES;
        self.message.as_bytes().get(start..start + usize::from(attribute.length())).unwrap_or_default()
    }
}

const ATTRIBUTE_HEADER_BYTES: usize = 4;
