//! The requests of a TURN client and what a server answers (RFC 8489, RFC 8656).

use std::net::SocketAddr;

use stun_types::attribute::{ErrorCode, Nonce, Realm, Username};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageClass, MessageType, MessageWriteVec,
    Method, TransactionId,
};
use stun_types::prelude::*;
use turn_types::attribute::{ChannelNumber, Lifetime, RequestedTransport, XorPeerAddress, XorRelayedAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, REFRESH};

use super::credentials::Credentials;

/// Every allocation has one channel: the first number there is.
pub const CHANNEL: u16 = 0x4000;
/// Number and length before the data.
pub const CHANNEL_HEADER: usize = 4;

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Allocate,
    /// Binds [`CHANNEL`] to a peer, which permits it as well.
    Bind(SocketAddr),
    Refresh,
    /// Refresh to nothing: the allocation ends.
    Release,
}

impl Request {
    fn method(self) -> Method {
        match self {
            Request::Allocate => ALLOCATE,
            Request::Bind(_) => CHANNEL_BIND,
            Request::Refresh | Request::Release => REFRESH,
        }
    }
}

/// Long-term credentials, once the server has told its realm (RFC 8489 §9.2).
#[derive(Debug, Clone)]
pub struct Authentication {
    username: String,
    pub realm: String,
    pub nonce: String,
    key: IntegrityKey,
}

impl Authentication {
    pub fn new(credentials: &Credentials, realm: String, nonce: String) -> Authentication {
        let Credentials { username, password } = credentials.clone();
        let long_term = LongTermKeyCredentials::new(username.clone(), password, realm.clone());
        Authentication { username, realm, nonce, key: long_term.make_key(IntegrityAlgorithm::Sha1) }
    }
}

/// Writes a request. `None` when a name does not fit its attribute.
pub fn write(request: Request, id: TransactionId, authentication: Option<&Authentication>) -> Option<Vec<u8>> {
    let kind = MessageType::from_class_method(MessageClass::Request, request.method());
    let mut message = Message::builder(kind, id, MessageWriteVec::new());
    match request {
        Request::Allocate => message.add_attribute(&RequestedTransport::new(RequestedTransport::UDP)).ok()?,
        Request::Bind(peer) => {
            message.add_attribute(&ChannelNumber::new(CHANNEL)).ok()?;
            message.add_attribute(&XorPeerAddress::new(peer, id)).ok()?;
        }
        Request::Refresh => {}
        Request::Release => message.add_attribute(&Lifetime::new(0)).ok()?,
    }
    if let Some(authentication) = authentication {
        message.add_attribute(&Username::new(&authentication.username).ok()?).ok()?;
        message.add_attribute(&Realm::new(&authentication.realm).ok()?).ok()?;
        message.add_attribute(&Nonce::new(&authentication.nonce).ok()?).ok()?;
        message.add_message_integrity_with_key(&authentication.key, IntegrityAlgorithm::Sha1).ok()?;
    }
    Some(message.finish())
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Success {
        /// Of Allocate.
        relayed: Option<SocketAddr>,
        /// Of Allocate and Refresh, seconds.
        lifetime: Option<u32>,
    },
    /// 401 or 438: ask again with these.
    Challenge {
        code: u16,
        realm: Option<String>,
        nonce: String,
    },
    Refused(u16),
}

/// Reads an answer to the request `id`. `None` when it is not one, or not by somebody who knows our password.
pub fn read(bytes: &[u8], id: TransactionId, authentication: Option<&Authentication>) -> Option<Answer> {
    let message = Message::from_bytes(bytes).ok().filter(|message| message.transaction_id() == id)?;
    match message.class() {
        MessageClass::Success => {
            message.validate_integrity_with_key(&authentication?.key).ok()?;
            Some(Answer::Success {
                relayed: message.attribute::<XorRelayedAddress>().ok().map(|relayed| relayed.addr(id)),
                lifetime: message.attribute::<Lifetime>().ok().map(|lifetime| lifetime.seconds()),
            })
        }
        MessageClass::Error => {
            let code = message.attribute::<ErrorCode>().ok()?.code();
            let realm = message.attribute::<Realm>().ok().map(|realm| realm.realm().to_owned());
            let nonce = message.attribute::<Nonce>().ok().map(|nonce| nonce.nonce().to_owned());
            match (code, nonce) {
                (401 | 438, Some(nonce)) => Some(Answer::Challenge { code, realm, nonce }),
                _ => Some(Answer::Refused(code)),
            }
        }
        MessageClass::Request | MessageClass::Indication => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authentication(password: &str) -> Authentication {
        let credentials = Credentials { username: "1:alice".into(), password: password.into() };
        Authentication::new(&credentials, "realm".into(), "nonce".into())
    }

    #[test]
    fn requests_carry_what_they_ask_for() {
        let (id, peer) = (TransactionId::from(7), "192.0.2.1:5000".parse().unwrap());
        let bytes = write(Request::Bind(peer), id, Some(&authentication("secret"))).unwrap();
        let message = Message::from_bytes(&bytes).unwrap();
        assert!(message.has_method(CHANNEL_BIND) && message.has_class(MessageClass::Request));
        assert_eq!(message.attribute::<ChannelNumber>().unwrap().channel(), CHANNEL);
        assert_eq!(message.attribute::<XorPeerAddress>().unwrap().addr(id), peer);
        assert_eq!(message.attribute::<Username>().unwrap().username(), "1:alice");
        assert!(message.validate_integrity_with_key(&authentication("secret").key).is_ok());
        let bare = write(Request::Allocate, id, None).unwrap();
        assert_eq!(bare.len(), 20 + 8, "nothing but the transport");
    }

    #[test]
    fn answers_are_believed_by_their_signature_only() {
        let (id, ours) = (TransactionId::from(9), authentication("secret"));
        let kind = MessageType::from_class_method(MessageClass::Success, ALLOCATE);
        let signed = |key: &IntegrityKey| {
            let mut message = Message::builder(kind, id, MessageWriteVec::new());
            message.add_attribute(&XorRelayedAddress::new("198.51.100.1:50000".parse().unwrap(), id)).unwrap();
            message.add_attribute(&Lifetime::new(600)).unwrap();
            message.add_message_integrity_with_key(key, IntegrityAlgorithm::Sha1).unwrap();
            message.finish()
        };
        let success = Answer::Success { relayed: Some("198.51.100.1:50000".parse().unwrap()), lifetime: Some(600) };
        assert_eq!(read(&signed(&ours.key), id, Some(&ours)), Some(success));
        assert_eq!(read(&signed(&authentication("guess").key), id, Some(&ours)), None);
        assert_eq!(read(&signed(&ours.key), TransactionId::from(8), Some(&ours)), None);
        assert_eq!(read(b"\x40\x00\x00\x01x", id, Some(&ours)), None);
    }

    #[test]
    fn a_challenge_is_told_from_a_refusal() {
        let id = TransactionId::from(3);
        let kind = MessageType::from_class_method(MessageClass::Error, ALLOCATE);
        let error = |code: u16, nonce: bool| {
            let mut message = Message::builder(kind, id, MessageWriteVec::new());
            message.add_attribute(&ErrorCode::new(code, "").unwrap()).unwrap();
            message.add_attribute(&Realm::new("r").unwrap()).unwrap();
            if nonce {
                message.add_attribute(&Nonce::new("n").unwrap()).unwrap();
            }
            read(&message.finish(), id, None)
        };
        let challenge = |code| Some(Answer::Challenge { code, realm: Some("r".into()), nonce: "n".into() });
        assert_eq!((error(401, true), error(438, true)), (challenge(401), challenge(438)));
        assert_eq!((error(486, true), error(401, false)), (Some(Answer::Refused(486)), Some(Answer::Refused(401))));
    }
}
