//! Against a server that is played here, message by message.

use std::net::UdpSocket;

use stun_types::attribute::{ErrorCode, Nonce, Realm};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageType, MessageWriteVec,
};
use stun_types::prelude::*;
use turn_types::attribute::{Lifetime, XorRelayedAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, REFRESH};

use super::*;

const RELAYED: &str = "127.0.0.1:50000";

struct Rig {
    server: UdpSocket,
    allocation: Allocation,
    random: fastrand::Rng,
    now: Instant,
}

impl Rig {
    fn new() -> Rig {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (mut random, now) = (fastrand::Rng::with_seed(1), Instant::now());
        let local = "127.0.0.1:0".parse().unwrap();
        let credentials = Credentials { username: "9:u".into(), password: "p".into() };
        let allocation = Allocation::open(local, server.local_addr().unwrap(), credentials, now, &mut random).unwrap();
        Rig { server, allocation, random, now }
    }

    /// The next thing that the client said.
    fn heard(&self) -> Vec<u8> {
        let mut buffer = vec![0; 1500];
        let (len, _) = self.server.recv_from(&mut buffer).unwrap();
        buffer.truncate(len);
        buffer
    }

    fn answer(&mut self, bytes: &[u8]) -> bool {
        self.allocation.answer(bytes, self.now, &mut self.random)
    }

    fn challenge(&mut self, code: u16, nonce: &str) {
        let request = self.heard();
        let request = Message::from_bytes(&request).unwrap();
        let mut error = Message::builder_error(&request, MessageWriteVec::new());
        error.add_attribute(&ErrorCode::new(code, "").unwrap()).unwrap();
        error.add_attribute(&Realm::new("r").unwrap()).unwrap();
        error.add_attribute(&Nonce::new(nonce).unwrap()).unwrap();
        self.answer(&error.finish());
    }

    /// Grants what was asked; gives the method and the nonce.
    fn grant(&mut self) -> (u16, String) {
        let request = self.heard();
        let request = Message::from_bytes(&request).unwrap();
        let key = LongTermKeyCredentials::new("9:u".into(), "p".into(), "r".into()).make_key(IntegrityAlgorithm::Sha1);
        request.validate_integrity_with_key(&key).unwrap();
        let kind = MessageType::from_class_method(MessageClass::Success, request.method());
        let id = request.transaction_id();
        let mut success = Message::builder(kind, id, MessageWriteVec::new());
        if request.has_method(ALLOCATE) {
            success.add_attribute(&XorRelayedAddress::new(RELAYED.parse().unwrap(), id)).unwrap();
        }
        if !request.has_method(CHANNEL_BIND) {
            let asked = request.attribute::<Lifetime>().map_or(600, |lifetime| lifetime.seconds());
            success.add_attribute(&Lifetime::new(asked)).unwrap();
        }
        success.add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1).unwrap();
        let said = (request.method().value(), request.attribute::<Nonce>().unwrap().nonce().to_owned());
        self.answer(&success.finish());
        said
    }

    fn ready() -> Rig {
        let mut rig = Rig::new();
        rig.challenge(401, "one");
        rig.grant();
        rig.allocation.bind("127.0.0.1:9".parse().unwrap(), rig.now, &mut rig.random);
        rig.grant();
        rig
    }
}

#[test]
fn an_allocation_lives_from_challenge_to_release() {
    let mut rig = Rig::new();
    rig.challenge(401, "one");
    assert_eq!(rig.grant(), (ALLOCATE.value(), "one".into()));
    assert_eq!((rig.allocation.state, rig.allocation.relayed), (State::Allocated, RELAYED.parse().ok()));
    rig.allocation.bind("127.0.0.1:9".parse().unwrap(), rig.now, &mut rig.random);
    rig.challenge(438, "two");
    assert_eq!(rig.grant(), (CHANNEL_BIND.value(), "two".into()));
    assert_eq!(rig.allocation.state, State::Ready);
    rig.allocation.release(rig.now, &mut rig.random);
    assert_eq!(rig.grant(), (REFRESH.value(), "two".into()));
    assert_eq!(rig.allocation.state, State::Gone);
}

#[test]
fn permissions_and_lifetimes_are_renewed_in_time() {
    let mut rig = Rig::ready();
    for (after, method) in [(240, CHANNEL_BIND), (300, REFRESH), (480, CHANNEL_BIND), (600, REFRESH)] {
        let begun = rig.allocation.begun;
        assert_eq!(rig.allocation.next_timeout(), Some(begun + Duration::from_secs(after)), "{after}");
        rig.now = begun + Duration::from_secs(after);
        rig.allocation.handle_timeout(rig.now, &mut rig.random);
        assert_eq!(rig.grant().0, method.value(), "{after}");
        assert_eq!(rig.allocation.state, State::Ready);
    }
}

#[test]
fn silence_is_asked_again_and_ends() {
    let mut rig = Rig::new();
    let mut sent = 1;
    while let Some(at) = rig.allocation.next_timeout() {
        rig.allocation.handle_timeout(at, &mut rig.random);
        sent += u32::from(rig.allocation.state == State::Allocating);
    }
    assert_eq!((sent, rig.allocation.state), (MOST_ATTEMPTS, State::Failed(Failure::Silence)));
    let first = rig.heard();
    assert!((1..sent).all(|_| rig.heard() == first), "the same transaction");
}

#[test]
fn a_server_that_does_not_believe_us_is_not_asked_for_ever() {
    let mut rig = Rig::new();
    rig.challenge(401, "one");
    rig.challenge(401, "two");
    assert_eq!(rig.allocation.state, State::Failed(Failure::Refused(401)));
    let mut rig = Rig::new();
    rig.challenge(401, "0");
    (0..MOST_CHALLENGES).for_each(|nonce| rig.challenge(438, &nonce.to_string()));
    assert_eq!(rig.allocation.state, State::Failed(Failure::Refused(438)));
    rig.allocation.release(rig.now, &mut rig.random);
    assert_eq!(rig.allocation.state, State::Gone, "nothing to give back");
}
