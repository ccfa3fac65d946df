//! Who may ask, and who is believed.

use stun_types::attribute::{MessageIntegrity, MessageIntegritySha256, RawAttribute};

use super::*;

#[test]
fn a_challenge_says_little() {
    let mut world = World::new();
    let alice = Client::new(&world, 1, "alice");
    let request = unsigned(ALLOCATE, 1, &[&udp()]);
    let answer = world.ask(&alice, &request);
    assert_eq!(answer.code(), Some(401));
    assert_eq!(answer.kinds(), [ErrorCode::TYPE, Realm::TYPE, Nonce::TYPE].map(|kind| kind.value()));
    assert_eq!(answer.message().attribute::<ErrorCode>().expect("an error").reason(), "");
    assert!(answer.nonce().len() <= 24);
    assert_eq!(request.len(), 28);
    assert!(answer.0.len() <= 3 * request.len(), "{} bytes for {}", answer.0.len(), request.len());
}

#[test]
fn a_binding_response_is_hardly_longer_than_its_request() {
    let mut world = World::new();
    let alice = Client::new(&world, 1, "alice");
    let request = unsigned(stun_types::message::BINDING, 1, &[]);
    let answer = world.ask(&alice, &request);
    assert!(answer.0.len() * 10 <= request.len() * 16, "{} bytes for {}", answer.0.len(), request.len());
}

/// CVE-2020-4067: what pads an attribute tells nothing.
#[test]
fn padding_is_zero() {
    for realm in ["a", "ab", "abc", "abcd", "a realm of 21 letters"] {
        let mut world = World::with(Settings { realm: realm.into(), ..settings() });
        let alice = Client::new(&world, 1, "alice");
        for message in [vec![&udp() as &dyn AttributeWrite], vec![]] {
            let answer = world.ask(&alice, &unsigned(ALLOCATE, u128::MAX, &message));
            let ends: Vec<usize> = answer.message().iter_attributes().map(|(at, a)| at + 4 + a.value.len()).collect();
            for end in ends {
                assert!(answer.0[end..end.next_multiple_of(4)].iter().all(|byte| *byte == 0), "{:?}", answer.0);
            }
        }
        let mut alice = Client::new(&World::new(), 1, "alice");
        let mut world = World::new();
        let relay = world.allocate(&mut alice);
        world.permit(&mut alice, &[peer(1)]);
        let data = vec![0xff; realm.len()];
        let (_, bytes) = world.peer_sends(relay, peer(1), &data).remove(0);
        assert!(bytes[bytes.len() - (data.len().next_multiple_of(4) - data.len())..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn what_a_signed_request_must_have() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    alice.nonce = world.ask(&alice, &unsigned(ALLOCATE, 1, &[])).nonce();
    let username = Username::new(&alice.username).expect("short");
    let (realm, nonce) = (Realm::new(REALM).expect("short"), Nonce::new(&alice.nonce).expect("short"));
    let rows: [&[&dyn AttributeWrite]; 3] =
        [&[&udp(), &realm, &nonce], &[&udp(), &username, &nonce], &[&udp(), &username, &realm]];
    for attributes in rows {
        let mut message = builder(MessageClass::Request, ALLOCATE, 7, attributes);
        message.add_message_integrity_with_key(&alice.key, IntegrityAlgorithm::Sha1).expect("room");
        assert_eq!(world.ask(&alice, &message.finish()).code(), Some(400));
    }
    world.allocate(&mut alice);
}

#[test]
fn nonces_run_out_and_are_nobody_elses() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    world.allocate(&mut alice);
    let mut eve = Client { nonce: alice.nonce.clone(), ..Client::new(&world, 2, "eve") };
    assert_eq!(world.request(&mut eve, ALLOCATE, &[&udp()]).code(), Some(438), "given to another address");
    let answer = world.request(&mut Client { nonce: "made up".into(), ..alice.clone() }, REFRESH, &[]);
    assert_eq!(answer.code(), Some(438));
    assert_eq!(answer.kinds(), [ErrorCode::TYPE, Realm::TYPE, Nonce::TYPE].map(|kind| kind.value()));
    world.wait_s(590);
    assert_eq!(world.refresh(&mut alice, 600).code(), None);
    world.wait_s(11);
    let answer = world.refresh(&mut alice, 600);
    assert_eq!(answer.code(), Some(438));
    alice.nonce = answer.nonce();
    assert_eq!(world.refresh(&mut alice, 600).code(), None);
}

#[test]
fn wrong_names_and_passwords() {
    let mut world = World::new();
    let (username, password) = world.credentials.issue("alice", START_S + 10);
    let expired = world.credentials.issue("alice", START_S);
    let rows = [
        (username.clone(), "wrong".into()),
        ("alice".into(), password.clone()),
        (format!("{}:alice", START_S + 11), password),
        expired,
        (":alice".into(), String::new()),
    ];
    for (username, password) in rows {
        let mut client = Client::with_password(route(1), username, password);
        let answer = world.request(&mut client, ALLOCATE, &[&udp()]);
        assert_eq!(answer.code(), Some(401), "{}", client.username);
        assert!(!answer.kinds().contains(&MessageIntegrity::TYPE.value()), "it is not known who asks");
    }
    assert_eq!(world.refused(Refusal::Unauthenticated), 5);
    world.assert_empty();
}

/// Both secrets are good, in whatever order they are tried.
#[test]
fn every_secret_is_accepted() {
    let mut world = World::new();
    let homeserver = Credentials::new(vec![b"of the homeserver".to_vec()]);
    let (username, password) = homeserver.issue("@alice:example.org", START_S + 10);
    world.allocate(&mut Client::with_password(route(1), username, password));
}

/// A long call outlives the credentials it began with.
#[test]
fn a_name_that_ran_out_keeps_its_allocation() {
    let mut world = World::new();
    let (username, password) = world.credentials.issue("alice", START_S + 60);
    let mut alice = Client::with_password(route(1), username, password);
    world.allocate(&mut alice);
    world.wait_s(100);
    assert_eq!(world.refresh(&mut alice, 600).code(), None);
    assert_eq!(world.permit(&mut alice, &[peer(1)]), None);
    assert_eq!(world.bind(&mut alice, 0x4000, peer(1)), None);
    assert_eq!(world.refresh(&mut alice, 0).code(), None);
    assert_eq!(world.request(&mut alice, ALLOCATE, &[&udp()]).code(), Some(401), "but gets no new one");
    world.assert_empty();
}

#[test]
fn nobody_touches_what_is_anothers() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    world.allocate(&mut alice);
    let mut eve = Client { nonce: alice.nonce.clone(), ..Client::new(&world, 1, "eve") };
    eve.transaction = 1000;
    assert_eq!(world.refresh(&mut eve, 0).code(), Some(441));
    assert_eq!(world.permit(&mut eve, &[peer(1)]), Some(441));
    assert_eq!(world.bind(&mut eve, 0x4000, peer(1)), Some(441));
    assert_eq!(world.request(&mut eve, ALLOCATE, &[&udp()]).code(), Some(437));
    eve.transaction = alice.transaction - 1;
    assert_eq!(world.request(&mut eve, ALLOCATE, &[&udp()]).code(), Some(437), "though with her transaction id");
    // Another name of the same user is the same user.
    let (username, password) = world.credentials.issue("alice", START_S + 7200);
    let mut renewed = Client::with_password(route(1), username, password);
    renewed.nonce = alice.nonce.clone();
    assert_eq!(world.refresh(&mut renewed, 0).code(), None);
    world.assert_empty();
}

/// Advisory of July 2026: what stands behind MESSAGE-INTEGRITY could be put there by anybody on the way.
#[test]
fn attributes_after_the_integrity_are_not_there() {
    let mut world = World::new();
    let mut alice = Client::new(&world, 1, "alice");
    let relay = world.allocate(&mut alice);
    let append = |message: Vec<u8>, attributes: &[&dyn AttributeWrite]| {
        let mut message = message;
        for attribute in attributes {
            message.extend(attribute.to_raw().to_bytes());
        }
        let length = (message.len() - 20) as u16;
        message[2..4].copy_from_slice(&length.to_be_bytes());
        message
    };
    let lifetime = append(alice.signed(REFRESH, &[]), &[&Lifetime::new(0)]);
    assert_eq!(world.ask(&alice, &lifetime).lifetime_s(), 600, "not deleted");
    let one = alice.next_transaction().into();
    let message = alice.signed(CREATE_PERMISSION, &[&XorPeerAddress::new(peer(1), one)]);
    let message = append(message, &[&XorPeerAddress::new(peer(2), one)]);
    assert_eq!(world.ask(&alice, &message).code(), None);
    assert_eq!(world.peer_sends(relay, peer(1), b"x").len(), 1);
    assert!(world.peer_sends(relay, peer(2), b"x").is_empty());
    let message = append(alice.signed(CREATE_PERMISSION, &[]), &[&XorPeerAddress::new(peer(2), one)]);
    assert_eq!(world.ask(&alice, &message).code(), Some(400), "there is no peer in it");
    let strange = RawAttribute::new(0x7fff.into(), &[]);
    let message = append(alice.signed(REFRESH, &[]), &[&strange]);
    assert_eq!(world.ask(&alice, &message).code(), None);
    // A second signature does not make the first a good one, nor an unsigned message a signed one.
    let key = alice.key.clone();
    alice.transaction += 1;
    let mut message = alice.unsealed(REFRESH, &[&Lifetime::new(0)]);
    let sha256 = LongTermKeyCredentials::new(alice.username.clone(), "?".into(), REALM.into());
    message
        .add_message_integrity_with_key(&sha256.make_key(IntegrityAlgorithm::Sha256), IntegrityAlgorithm::Sha256)
        .expect("room");
    let message = message.finish();
    assert!(Message::from_bytes(&message).expect("STUN").has_attribute(MessageIntegritySha256::TYPE));
    assert_eq!(world.ask(&alice, &message).code(), Some(401));
    let with_both = append(message, &[&RawAttribute::new(MessageIntegrity::TYPE, &[0; 20])]);
    assert_eq!(world.ask(&alice, &with_both).code(), Some(401));
    assert_eq!(world.counts().allocations, 1);
    drop(key);
}

/// A changed bit anywhere in a signed request is noticed.
#[test]
fn every_bit_is_signed() {
    let mut world = World::new();
    let mut alice = Client::at(&world, Route { protocol: Protocol::Tcp, ..route(1) }, "alice");
    world.allocate(&mut alice);
    let message = alice.signed(REFRESH, &[&Lifetime::new(0)]);
    for bit in 0..message.len() * 8 {
        let mut changed = message.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let answers = world.receive(&alice, &changed);
        for answer in answers {
            assert!(Answer(answer).code().is_some(), "bit {bit}");
        }
        assert_eq!(world.counts().allocations, 1, "bit {bit}");
    }
    assert_eq!(world.ask(&alice, &message).lifetime_s(), 0);
}

/// RFC 5769 §2.4, with the realm, the name and the password of the vector: keys and signatures are those of the standard.
#[test]
fn the_long_term_vector() {
    let vector: [u8; 116] = [
        0x00, 0x01, 0x00, 0x60, 0x21, 0x12, 0xa4, 0x42, 0x78, 0xad, 0x34, 0x33, 0xc6, 0xad, 0x72, 0xc0, 0x29, 0xda,
        0x41, 0x2e, 0x00, 0x06, 0x00, 0x12, 0xe3, 0x83, 0x9e, 0xe3, 0x83, 0x88, 0xe3, 0x83, 0xaa, 0xe3, 0x83, 0x83,
        0xe3, 0x82, 0xaf, 0xe3, 0x82, 0xb9, 0x00, 0x00, 0x00, 0x15, 0x00, 0x1c, 0x66, 0x2f, 0x2f, 0x34, 0x39, 0x39,
        0x6b, 0x39, 0x35, 0x34, 0x64, 0x36, 0x4f, 0x4c, 0x33, 0x34, 0x6f, 0x4c, 0x39, 0x46, 0x53, 0x54, 0x76, 0x79,
        0x36, 0x34, 0x73, 0x41, 0x00, 0x14, 0x00, 0x0b, 0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x2e, 0x6f, 0x72,
        0x67, 0x00, 0x00, 0x08, 0x00, 0x14, 0xf6, 0x70, 0x24, 0x65, 0x6d, 0xd6, 0x4a, 0x3e, 0x02, 0xb8, 0xe0, 0x71,
        0x2e, 0x85, 0xc9, 0xa2, 0x8c, 0xa8, 0x96, 0x66,
    ];
    let request = super::super::request::Request::parse(&vector).expect("a STUN message");
    let claim = request.claim();
    assert_eq!(claim.username, Some("\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}"));
    assert_eq!(claim.nonce, Some(&b"f//499k954d6OL34oL9FSTvy64sA"[..]));
    assert!(claim.is_signed && claim.has_realm);
    let key = |password: &str| {
        let username = claim.username.expect("a name").to_owned();
        LongTermKeyCredentials::new(username, password.into(), REALM.into()).make_key(IntegrityAlgorithm::Sha1)
    };
    assert!(request.message().validate_integrity_with_key(&key("TheMatrIX")).is_ok());
    assert!(request.message().validate_integrity_with_key(&key("TheMatrix")).is_err());
}
