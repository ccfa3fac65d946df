//! What participants are told of our TURN server.

use super::sessions::join_response;
use super::*;

#[test]
fn participants_get_the_turn_server_with_credentials_of_their_own() {
    let expected = |sid: &str, unix_s: u64| {
        let credentials = Credentials::new(vec![TURN_SECRET.to_vec()]);
        let (username, credential) = credentials.issue(sid, unix_s + 600);
        vec![proto::IceServer { urls: vec![TURN_URL.to_owned()], username, credential }]
    };
    let mut rig = Rig::new();
    let alice = rig.join(request("alice", Dialect::V1)).expect("a room");
    let bob = rig.join(request("bob", Dialect::V0)).expect("a room");
    for socket in [alice, bob] {
        let messages = rig.messages(socket);
        assert_eq!(join_response(&messages).ice_servers, expected(&rig.sid(socket), 1_800_000_000));
    }
    assert_ne!(rig.sid(alice), rig.sid(bob));

    let sid = rig.sid(alice);
    rig.wait(Duration::from_secs(1_000));
    let again = JoinRequest { reconnect: Some(sid.clone()), ..request("alice", Dialect::V1) };
    let again = rig.join(again).expect("the same session");
    let messages = rig.messages(again);
    let Some(Message::Reconnect(reconnect)) = messages.first() else { panic!("{messages:?}") };
    assert_eq!(reconnect.ice_servers, expected(&sid, 1_800_001_000), "fresh ones");
}

#[test]
fn without_a_turn_server_none_is_told() {
    let mut rig = Rig::new();
    let keys = Keys::new([("key", "a secret that is long enough for anyone")]).expect("one key");
    rig.signalling = Signalling::new(keys, None, [7; 32]);
    let alice = rig.join(request("alice", Dialect::V1)).expect("a room");
    let messages = rig.messages(alice);
    assert!(join_response(&messages).ice_servers.is_empty());
}
