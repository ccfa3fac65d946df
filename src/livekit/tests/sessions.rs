//! How sessions begin, go on and end.

use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message;

use super::requests::payload;
use super::*;
use crate::livekit::{Dropped, VideoGrant, translate};
use crate::sfu::{
    Codec, ConnectionQuality, DataChannel, Event, EventKind, LeaveReason, LineState, Quality, Sid, StreamState,
};

pub(super) fn join_response(messages: &[Message]) -> &proto::JoinResponse {
    let Some(Message::Join(join)) = messages.first() else { panic!("expected join first: {messages:?}") };
    join
}

fn leave_of(outgoing: &[Outgoing]) -> (proto::LeaveRequest, u16) {
    let [.., Outgoing::Message(leave), Outgoing::Close(code)] = outgoing else { panic!("{outgoing:?}") };
    let Some(Message::Leave(leave)) = &leave.message else { panic!("{leave:?}") };
    (leave.clone(), *code)
}

/// Alice (v1) publishes a microphone; Bob joins. The sockets of both, all messages read.
fn call() -> (Rig, SocketId, SocketId) {
    let mut rig = Rig::new();
    let alice = JoinRequest {
        add_tracks: vec![microphone("mic")],
        publisher_offer: Some(offer(1)),
        ..request("alice", Dialect::V1)
    };
    let alice = rig.join(alice).expect("a room");
    let bob = rig.join(request("bob", Dialect::V1)).expect("a room");
    rig.say(bob, Said::Offer(offer(1)));
    rig.take(alice);
    rig.take(bob);
    (rig, alice, bob)
}

#[test]
fn the_join_response_field_by_field() {
    for dialect in [Dialect::V0, Dialect::V1] {
        let mut rig = Rig::new();
        let alice = JoinRequest {
            add_tracks: vec![camera("cam")],
            publisher_offer: Some(offer(1)),
            ..request("alice", Dialect::V1)
        };
        rig.join(alice).expect("a room");
        let mut hidden = request("eve", dialect);
        hidden.permissions.hidden = true;
        rig.join(hidden).expect("a room");
        let mut bob = request("bob", dialect);
        bob.name = "Bob".to_owned();
        bob.metadata = "meta".to_owned();
        bob.attributes = [("a".to_owned(), "b".to_owned())].into();
        bob.permissions.can_publish_sources = vec![crate::sfu::TrackSource::ScreenShareAudio];
        let bob = rig.join(bob).expect("a room");
        let messages = rig.messages(bob);
        let join = join_response(&messages);

        let room = join.room.as_ref().expect("a room");
        assert_eq!((room.sid.as_str(), room.name.as_str()), ("RM_room", "room"));
        assert_eq!((room.empty_timeout, room.departure_timeout, room.max_participants), (300, 20, 0));
        assert_eq!((room.creation_time, room.creation_time_ms), (1_799_999_999, 1_799_999_999_500));
        assert!(!room.active_recording && !room.enabled_codecs.is_empty());

        let me = join.participant.as_ref().expect("oneself");
        assert!(me.sid.starts_with("PA"));
        assert_eq!((me.identity.as_str(), me.name.as_str(), me.metadata.as_str()), ("bob", "Bob", "meta"));
        assert_eq!(me.attributes["a"], "b");
        assert_eq!(me.state(), proto::participant_info::State::Joined);
        assert_eq!((me.joined_at, me.joined_at_ms), (1_800_000_000, 1_800_000_000_000));
        assert_eq!(me.kind(), proto::participant_info::Kind::Standard);
        assert_eq!((me.version, me.client_protocol), (1, 2));
        let permission = me.permission.as_ref().expect("else the client does not publish");
        assert!(permission.can_publish && permission.can_subscribe && permission.can_publish_data);
        assert_eq!(permission.can_publish_sources, [4]);

        let [alice] = &join.other_participants[..] else { panic!("{:?}", join.other_participants) };
        assert_eq!(alice.identity, "alice");
        assert!(alice.is_publisher);
        assert_eq!(alice.tracks[0].mime_type, "video/VP8");
        assert_eq!(alice.tracks[0].codecs[0].mime_type, "video/VP8");
        assert_eq!(alice.tracks[0].encryption(), proto::encryption::Type::Gcm);
        assert!(alice.tracks[0].version.is_some());

        assert_eq!(join.subscriber_primary, dialect == Dialect::V0);
        assert_eq!((join.ping_interval, join.ping_timeout), (5, 15));
        let server = join.server_info.as_ref().expect("else the client refuses");
        assert!(server.version.starts_with("1.13."));
        assert_eq!(server.protocol, 17);
        #[allow(deprecated)]
        let legacy = &join.server_version;
        assert_eq!(*legacy, server.version);
        assert_eq!(join.sif_trailer.len(), 16);
        let codecs: Vec<_> = join.enabled_publish_codecs.iter().map(|codec| codec.mime.as_str()).collect();
        assert_eq!(codecs, ["video/VP8", "video/H264", "video/VP9", "video/AV1", "audio/opus", "audio/red"]);
        assert!(join.fast_publish && join.alternative_url.is_empty());
        assert!(matches!(messages[1], Message::RefreshToken(_)));
    }
}

#[test]
fn who_may_not_subscribe_or_publish_is_told_so() {
    let mut rig = Rig::new();
    let mut quiet = request("alice", Dialect::V0);
    quiet.permissions.can_subscribe = false;
    quiet.permissions.can_publish = false;
    let socket = rig.join(quiet).expect("a room");
    let messages = rig.messages(socket);
    let join = join_response(&messages);
    assert!(!join.subscriber_primary && !join.fast_publish);
    let old = JoinRequest { protocol: 2, ..request("bob", Dialect::V0) };
    let socket = rig.join(old).expect("a room");
    let messages = rig.messages(socket);
    assert!(!join_response(&messages).subscriber_primary);
}

#[test]
fn the_trailer_is_one_for_a_room_and_another_elsewhere() {
    let trailer = |rig: &mut Rig, identity: &str, room: &str| {
        let socket = rig.join(JoinRequest { room: room.to_owned(), ..request(identity, Dialect::V1) }).expect("a room");
        join_response(&rig.messages(socket)).sif_trailer.clone()
    };
    let mut rig = Rig::new();
    let here = trailer(&mut rig, "alice", "here");
    assert_eq!(here, trailer(&mut rig, "bob", "here"));
    assert_ne!(here, trailer(&mut rig, "alice", "there"));
}

#[test]
fn a_missing_room_is_not_joined() {
    let mut rig = Rig::new();
    let request = JoinRequest { may_create_room: false, ..request("alice", Dialect::V1) };
    assert_eq!(rig.join(request), Err(JoinError::RoomMissing));
    assert!(rig.received.is_empty());
}

#[test]
fn the_tracks_of_a_join_come_before_its_offer() {
    let mut rig = Rig::new();
    let alice = JoinRequest {
        add_tracks: vec![microphone("mic"), camera("cam")],
        publisher_offer: Some(offer(7)),
        ..request("alice", Dialect::V1)
    };
    let socket = rig.join(alice).expect("a room");
    let messages = rig.messages(socket);
    let [
        Message::Join(_),
        Message::RefreshToken(_),
        Message::TrackPublished(mic),
        Message::TrackPublished(cam),
        Message::Update(me),
        Message::Answer(answer),
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!((mic.cid.as_str(), cam.cid.as_str(), answer.id), ("mic", "cam", 7));
    assert_eq!(me.participants[0].tracks.len(), 2);
}

#[test]
fn v0_is_offered_the_others_tracks_and_v1_finds_them_in_the_answer() {
    let (mut rig, alice, _) = call();
    let track = rig.rooms.members[&rig.id(alice)].info.tracks[0].sid.to_string();
    let carol = rig.join(request("carol", Dialect::V0)).expect("a room");
    let messages = rig.messages(carol);
    let [Message::Join(_), Message::RefreshToken(_), Message::Offer(offered)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!(offered.r#type, "offer");
    assert_eq!(offered.mid_to_track_id, [("0".to_owned(), track.clone())].into());

    let dave = JoinRequest { publisher_offer: Some(offer(3)), ..request("dave", Dialect::V1) };
    let dave = rig.join(dave).expect("a room");
    let messages = rig.messages(dave);
    let Some(Message::Answer(answer)) = messages.last() else { panic!("{messages:?}") };
    assert_eq!(answer.mid_to_track_id, [("0".to_owned(), track)].into());
}

#[test]
fn v1_is_asked_for_sections() {
    let (mut rig, alice, bob) = call();
    rig.say(alice, Said::AddTrack(camera("cam")));
    rig.say(alice, Said::Offer(offer(2)));
    let messages = rig.messages(bob);
    let [Message::Update(_), Message::MediaSectionsRequirement(required)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!((required.num_audios, required.num_videos), (1, 0));
}

#[test]
fn events_become_messages() {
    let track = || Sid("TR_1".into());
    let speakers = vec![crate::sfu::Speaker { sid: Sid("PA_1".into()), level: 0.5, active: true }];
    let (mut rig, alice, _) = call();
    let id = rig.id(alice);
    for kind in [
        EventKind::SpeakersChanged(speakers),
        EventKind::TrackSubscribed(track()),
        EventKind::Muted(track()),
        EventKind::SubscriptionFailed(track()),
        EventKind::SectionsRequired { audio: 0, video: 0 },
        EventKind::Offer(crate::sfu::Description { id: 1, sdp: String::new(), mid_to_track: Vec::new() }),
        EventKind::Verdict(crate::sfu::Verdict::Connected { after: Duration::ZERO }),
    ] {
        rig.rooms.events.push_back(Event { to: id, kind });
    }
    rig.settle();
    let messages = rig.messages(alice);
    let [
        Message::SpeakersChanged(speakers),
        Message::TrackSubscribed(subscribed),
        Message::Mute(mute),
        Message::SubscriptionResponse(failed),
        Message::MediaSectionsRequirement(required),
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!(speakers.speakers[0], proto::SpeakerInfo { sid: "PA_1".to_owned(), level: 0.5, active: true });
    assert_eq!(subscribed.track_sid, "TR_1");
    assert_eq!(*mute, proto::MuteTrackRequest { sid: "TR_1".to_owned(), muted: true });
    assert_eq!(failed.err(), proto::SubscriptionError::SeCodecUnsupported);
    assert_eq!((required.num_audios, required.num_videos), (0, 0));
    // The offer was for the other dialect.
    assert_eq!(rig.signalling.dropped().get(Dropped::WrongDialect), 1);
}

#[test]
fn an_event_for_somebody_else_is_left_alone() {
    let (mut rig, alice, bob) = call();
    rig.rooms.events.push_back(Event { to: ParticipantId(999), kind: EventKind::Left(LeaveReason::Removed) });
    rig.settle();
    assert!(rig.take(alice).is_empty() && rig.take(bob).is_empty());
}

#[test]
fn every_reason_to_leave() {
    use proto::DisconnectReason as Reason;
    use proto::leave_request::Action;
    let cases = [
        (LeaveReason::ClientInitiated, Reason::ClientInitiated, Action::Disconnect),
        (LeaveReason::DuplicateIdentity, Reason::DuplicateIdentity, Action::Disconnect),
        (LeaveReason::ServerShutdown, Reason::ServerShutdown, Action::Reconnect),
        (LeaveReason::ServerFault, Reason::ServerShutdown, Action::Reconnect),
        (LeaveReason::Removed, Reason::ParticipantRemoved, Action::Disconnect),
        (LeaveReason::RoomDeleted, Reason::RoomDeleted, Action::Disconnect),
        (LeaveReason::StateMismatch, Reason::StateMismatch, Action::Reconnect),
        (LeaveReason::JoinTimeout, Reason::JoinFailure, Action::Disconnect),
        (LeaveReason::SignalClosed, Reason::SignalClose, Action::Disconnect),
        (LeaveReason::ConnectionTimeout, Reason::ConnectionTimeout, Action::Reconnect),
    ];
    for (left, reason, action) in cases {
        let (mut rig, alice, bob) = call();
        let id = rig.id(alice);
        rig.rooms.remove(id, left);
        rig.settle();
        let (leave, code) = leave_of(&rig.take(alice));
        assert_eq!((leave.reason(), leave.action(), code), (reason, action, 1000), "{left:?}");
        assert_eq!(leave.can_reconnect, action == Action::Reconnect);
        // The others learn why, too.
        let messages = rig.messages(bob);
        let Message::Update(update) = &messages[0] else { panic!("{messages:?}") };
        assert_eq!(update.participants[0].disconnect_reason(), reason);
        assert_eq!(rig.signalling.participant(alice), None);
    }
}

#[test]
fn a_second_session_with_the_same_identity_replaces_the_first() {
    let (mut rig, alice, bob) = call();
    let old_sid = rig.sid(alice);
    let again = rig.join(request("alice", Dialect::V0)).expect("a room");
    let (leave, code) = leave_of(&rig.take(alice));
    assert_eq!(leave.reason(), proto::DisconnectReason::DuplicateIdentity);
    assert_eq!((leave.action(), code), (proto::leave_request::Action::Disconnect, 1000));
    assert!(!leave.can_reconnect);
    let new_sid = rig.sid(again);
    assert_ne!(old_sid, new_sid);
    let seen: Vec<_> = rig
        .messages(bob)
        .into_iter()
        .filter_map(|message| if let Message::Update(update) = message { Some(update.participants) } else { None })
        .flatten()
        .map(|info| (info.sid.clone(), info.state()))
        .collect();
    use proto::participant_info::State;
    assert_eq!(seen, [(old_sid, State::Disconnected), (new_sid, State::Joined)]);
    // What the old socket still says, and its end, disturb nobody.
    rig.say(alice, Said::Leave(proto::LeaveRequest::default()));
    rig.close(alice);
    rig.say(again, Said::Ping(1));
    assert!(rig.messages(again).iter().any(|message| matches!(message, Message::Pong(_))));
}

#[test]
fn tokens_are_renewed_every_five_minutes() {
    let mut rig = Rig::new();
    let mut alice = request("alice", Dialect::V1);
    alice.claims.video = Some(VideoGrant { room: "room".to_owned(), ..Default::default() });
    let alice = rig.join(alice).expect("a room");
    rig.take(alice);
    for _ in 0..3 {
        rig.wait(Duration::from_secs(299));
        assert!(rig.take(alice).is_empty());
        rig.wait(Duration::from_secs(1));
        let messages = rig.messages(alice);
        let [Message::RefreshToken(token)] = &messages[..] else { panic!("{messages:?}") };
        let claims = payload(token);
        assert_eq!((claims.sub.as_str(), claims.video.map(|video| video.room).as_deref()), ("alice", Some("room")));
        assert!(claims.exp.expect("an end") >= rig.now.unix_ms / 1000 + 600);
    }
    rig.say(alice, Said::Leave(proto::LeaveRequest::default()));
    rig.take(alice);
    rig.wait(Duration::from_secs(600));
    assert!(rig.take(alice).is_empty());
    assert_eq!(rig.signalling.next_timeout(), None);
}

#[test]
fn a_lost_signal_is_told_to_the_rooms_once() {
    let (mut rig, alice, _) = call();
    let id = rig.id(alice);
    rig.close(alice);
    assert!(!rig.rooms.members[&id].signal);
    rig.close(alice);
    assert_eq!(rig.signalling.participant(alice), None);
}

#[test]
fn a_session_that_never_had_media_does_not_outlive_its_socket() {
    let mut rig = Rig::new();
    let alice = rig.join(request("alice", Dialect::V1)).expect("a room");
    let sid = rig.sid(alice);
    rig.close(alice);
    assert!(rig.rooms.members.is_empty());
    let again = rig.join(JoinRequest { reconnect: Some(sid), ..request("alice", Dialect::V1) }).expect("an answer");
    assert_eq!(leave_of(&rig.take(again)).0.reason(), proto::DisconnectReason::StateMismatch);
}

#[test]
fn a_resumed_session_learns_what_it_missed() {
    let (mut rig, alice, bob) = call();
    let carol = rig.join(request("carol", Dialect::V0)).expect("a room");
    let (sid, bobs_sid, carols_sid) = (rig.sid(alice), rig.sid(bob), rig.sid(carol));
    rig.close(alice);
    rig.take(alice);
    // While nobody listens: Carol leaves, Bob publishes, a token would be due.
    rig.say(carol, Said::Leave(proto::LeaveRequest::default()));
    rig.say(bob, Said::AddTrack(microphone("mic")));
    rig.say(bob, Said::Offer(offer(2)));
    rig.wait(Duration::from_secs(400));
    assert!(rig.take(alice).is_empty());
    rig.take(bob);

    let back = JoinRequest { reconnect: Some(sid.clone()), ..request("alice", Dialect::V1) };
    let back = rig.join(back).expect("an answer");
    let messages = rig.messages(back);
    let [Message::Reconnect(reconnect), Message::RefreshToken(_), Message::Update(update), Message::RoomUpdate(_)] =
        &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert!(reconnect.server_info.is_some());
    use proto::participant_info::State;
    let seen: Vec<_> = update.participants.iter().map(|info| (info.sid.as_str(), info.state())).collect();
    let expected = [(&carols_sid, State::Disconnected), (&bobs_sid, State::Active), (&sid, State::Active)];
    assert_eq!(seen, expected.map(|(sid, state)| (sid.as_str(), state)));
    assert_eq!(update.participants[1].tracks.len(), 1);
    assert!(rig.rooms.members[&rig.id(back)].signal);
    assert_eq!(rig.sid(back), sid);
    // Nobody else noticed.
    assert!(rig.take(bob).is_empty());
    // A resume works more than once, and tells nothing twice.
    let again = JoinRequest { reconnect: Some(sid), ..request("alice", Dialect::V1) };
    let again = rig.join(again).expect("an answer");
    assert!(matches!(rig.take(back)[..], [Outgoing::Close(1001)]));
    let messages = rig.messages(again);
    let Message::Update(update) = &messages[2] else { panic!("{messages:?}") };
    assert_eq!(update.participants.len(), 2);
    // The end of the replaced socket means nothing.
    rig.close(back);
    assert!(rig.rooms.members[&rig.id(again)].signal);
}

#[test]
fn v0_is_offered_anew_when_it_resumes() {
    let (mut rig, ..) = call();
    let carol = rig.join(request("carol", Dialect::V0)).expect("a room");
    rig.say(carol, Said::Answer(proto::SessionDescription { r#type: "answer".to_owned(), ..offer(1) }));
    let sid = rig.sid(carol);
    rig.close(carol);
    let back = JoinRequest { reconnect: Some(sid), ..request("carol", Dialect::V0) };
    let back = rig.join(back).expect("an answer");
    assert!(matches!(rig.messages(back).last(), Some(Message::Offer(_))));
}

#[test]
fn what_cannot_be_resumed_is_joined_afresh() {
    let (rig, alice, _) = call();
    let sid = rig.sid(alice);
    drop(rig);
    let strangers = [
        ("an unknown sid", JoinRequest { reconnect: Some("PA_x".to_owned()), ..request("alice", Dialect::V1) }),
        ("no sid", JoinRequest { reconnect: Some(String::new()), ..request("alice", Dialect::V1) }),
        ("another identity", JoinRequest { reconnect: Some(sid.clone()), ..request("eve", Dialect::V1) }),
        (
            "another room",
            JoinRequest { reconnect: Some(sid.clone()), room: "x".to_owned(), ..request("alice", Dialect::V1) },
        ),
        ("another dialect", JoinRequest { reconnect: Some(sid), ..request("alice", Dialect::V0) }),
    ];
    for (what, stranger) in strangers {
        let (mut rig, alice, _) = call();
        let socket = rig.join(stranger).expect("an answer");
        let outgoing = rig.take(socket);
        assert_eq!(outgoing.len(), 2, "{what}");
        let (leave, code) = leave_of(&outgoing);
        assert_eq!(leave.reason(), proto::DisconnectReason::StateMismatch);
        assert_eq!((leave.action(), code), (proto::leave_request::Action::Reconnect, 1000));
        assert!(leave.can_reconnect);
        // Whose sid it was does not notice.
        assert!(rig.take(alice).is_empty());
        rig.say(socket, Said::Leave(proto::LeaveRequest::default()));
        rig.close(socket);
        assert!(rig.rooms.members[&rig.id(alice)].signal);
    }
}

#[test]
fn who_missed_too_much_joins_afresh() {
    let (mut rig, alice, _) = call();
    let (sid, id) = (rig.sid(alice), rig.id(alice));
    rig.close(alice);
    let mut gone = rig.rooms.members[&id].info.clone();
    gone.state = crate::sfu::ParticipantState::Disconnected;
    for i in 0..1001 {
        gone.sid = Sid(format!("PA_gone{i}").into());
        rig.rooms.events.push_back(Event { to: id, kind: EventKind::ParticipantsChanged([gone.clone()].into()) });
    }
    rig.settle();
    let back = rig.join(JoinRequest { reconnect: Some(sid), ..request("alice", Dialect::V1) }).expect("an answer");
    assert_eq!(leave_of(&rig.take(back)).0.action(), proto::leave_request::Action::Reconnect);
}

#[test]
fn the_state_of_a_resumed_client_is_checked_and_applied() {
    let published = |sid: &str| proto::TrackPublishedResponse {
        cid: String::new(),
        track: Some(proto::TrackInfo { sid: sid.to_owned(), ..Default::default() }),
    };
    let (mut rig, alice, _) = call();
    let (sid, id) = (rig.sid(alice), rig.id(alice));
    rig.say(alice, Said::AddTrack(camera("cam")));
    let tracks = [&rig.rooms.members[&id].info.tracks, &rig.rooms.members[&id].pending];
    let tracks: Vec<_> = tracks.into_iter().flatten().map(|track| published(track.sid.as_str())).collect();
    assert_eq!(tracks.len(), 2);
    rig.close(alice);
    let state = proto::SyncState {
        publish_tracks: tracks,
        track_sids_disabled: vec!["TR_off".to_owned()],
        subscription: Some(proto::UpdateSubscription { track_sids: vec!["TR_un".to_owned()], ..Default::default() }),
        ..Default::default()
    };
    // It may come in the join request, or as the first message.
    let back = |sync_state| JoinRequest { reconnect: Some(sid.clone()), sync_state, ..request("alice", Dialect::V1) };
    let socket = rig.join(back(Some(state.clone()))).expect("an answer");
    let commands = ["subscribe [TR_un] false", "settings [TR_off] true Low 0x0 0 0"];
    assert_eq!(rig.rooms.commands, commands);
    rig.say(socket, Said::SyncState(state.clone()));
    assert_eq!(rig.signalling.dropped().get(Dropped::OutOfOrder), 1);
    let socket = rig.join(back(None)).expect("an answer");
    rig.say(socket, Said::SyncState(state));
    assert_eq!(rig.rooms.commands.len(), 4);

    let wrong = proto::SyncState { publish_tracks: vec![published("TR_gone")], ..Default::default() };
    let socket = rig.join(back(Some(wrong))).expect("an answer");
    let (leave, _) = leave_of(&rig.take(socket));
    assert_eq!(leave.reason(), proto::DisconnectReason::StateMismatch);
}

#[test]
fn data_goes_to_the_others_and_never_back() {
    let (mut rig, alice, bob) = call();
    let carol = rig.join(request("carol", Dialect::V0)).expect("a room");
    let (alice, bob, carol) = (rig.id(alice), rig.id(bob), rig.id(carol));
    let cases: [(&[&str], &[ParticipantId]); 4] =
        [(&[], &[bob, carol]), (&["bob"], &[bob]), (&["alice", "carol"], &[carol]), (&["alice", "nobody"], &[])];
    for (destinations, receivers) in cases {
        let packet = proto::DataPacket {
            destination_identities: destinations.iter().map(|identity| identity.to_string()).collect(),
            participant_identity: "mallory".to_owned(),
            value: Some(proto::data_packet::Value::RpcAck(proto::RpcAck { request_id: "1".to_owned() })),
            ..Default::default()
        };
        let kind = EventKind::DataReceived { channel: DataChannel::Reliable, message: packet.encode_to_vec() };
        rig.rooms.events.push_back(Event { to: alice, kind });
        rig.settle();
        let sent = std::mem::take(&mut rig.rooms.data);
        assert_eq!(sent.iter().map(|(to, ..)| *to).collect::<Vec<_>>(), receivers);
        for (_, channel, message) in sent {
            assert_eq!(channel, DataChannel::Reliable);
            let got = proto::DataPacket::decode(&message[..]).expect("a packet");
            assert_eq!(got.participant_identity, "alice");
            assert_eq!(got.participant_sid, rig.rooms.members[&alice].info.sid.as_str());
            assert_eq!((&got.value, &got.destination_identities), (&packet.value, &packet.destination_identities));
        }
    }
}

#[test]
fn the_last_sequence_is_told_on_resume() {
    let (mut rig, alice, _) = call();
    let (id, sid) = (rig.id(alice), rig.sid(alice));
    for sequence in [3, 9] {
        let message = proto::DataPacket { sequence, ..Default::default() }.encode_to_vec();
        rig.rooms
            .events
            .push_back(Event { to: id, kind: EventKind::DataReceived { channel: DataChannel::Reliable, message } });
    }
    rig.settle();
    let back = rig.join(JoinRequest { reconnect: Some(sid), ..request("alice", Dialect::V1) }).expect("an answer");
    let messages = rig.messages(back);
    assert!(matches!(&messages[0], Message::Reconnect(reconnect) if reconnect.last_message_seq == 9));
}

#[test]
fn a_track_without_a_codec_is_not_announced() {
    let (mut rig, alice, _) = call();
    rig.say(alice, Said::AddTrack(camera("cam")));
    let member = &rig.rooms.members[&rig.id(alice)];
    let mut info = member.info.clone();
    let mut unknown = member.pending[0].clone();
    unknown.announced.codec = None;
    assert_eq!(translate::track(&unknown).mime_type, "");
    info.tracks.push(unknown);
    assert_eq!(translate::participant(&info).tracks.len(), 1);
}

#[test]
fn a_paused_video_is_told_and_its_return() {
    let (mut rig, _, bob) = call();
    for paused in [true, false] {
        let state = StreamState { participant: translate::sid("PA_1"), track: translate::sid("TR_2"), paused };
        let to = rig.id(bob);
        rig.rooms.events.push_back(Event { to, kind: EventKind::StreamStates(vec![state]) });
        rig.settle();
        let messages = rig.messages(bob);
        let [Message::StreamStateUpdate(update)] = &messages[..] else { panic!("{messages:?}") };
        let [state] = &update.stream_states[..] else { panic!("{update:?}") };
        assert_eq!((state.participant_sid.as_str(), state.track_sid.as_str()), ("PA_1", "TR_2"));
        let expected = if paused { proto::StreamState::Paused } else { proto::StreamState::Active };
        assert_eq!(state.state(), expected);
    }
}

#[test]
fn lines_are_rated() {
    let (mut rig, _, bob) = call();
    let participant = translate::sid("PA_1");
    for (quality, expected) in [
        (ConnectionQuality::Excellent, proto::ConnectionQuality::Excellent),
        (ConnectionQuality::Good, proto::ConnectionQuality::Good),
        (ConnectionQuality::Poor, proto::ConnectionQuality::Poor),
        (ConnectionQuality::Lost, proto::ConnectionQuality::Lost),
    ] {
        let state = LineState { participant: participant.clone(), quality, opinion: 3.5 };
        let to = rig.id(bob);
        rig.rooms.events.push_back(Event { to, kind: EventKind::LineStates([state.clone()].into()) });
        rig.settle();
        let messages = rig.messages(bob);
        let [Message::ConnectionQuality(update)] = &messages[..] else { panic!("{messages:?}") };
        let [info] = &update.updates[..] else { panic!("{update:?}") };
        assert_eq!((info.participant_sid.as_str(), info.quality(), info.score), ("PA_1", expected, 3.5));
        // Older clients have no name for it.
        let old = translate::line_state(&state, false).quality();
        assert_eq!(old, if quality == ConnectionQuality::Lost { proto::ConnectionQuality::Poor } else { expected });
    }
}

/// By name: what is left out stays as it is at the client, and a second codec would be published.
#[test]
#[allow(deprecated)]
fn the_qualities_that_are_wanted_are_named_one_by_one() {
    let (mut rig, alice, _) = call();
    for (highest, expected) in [
        (None, [false, false, false]),
        (Some(Quality::Low), [true, false, false]),
        (Some(Quality::Medium), [true, true, false]),
        (Some(Quality::High), [true, true, true]),
    ] {
        let wanted = EventKind::QualityWanted { track: translate::sid("TR_2"), codec: Some(Codec::Vp8), highest };
        let to = rig.id(alice);
        rig.rooms.events.push_back(Event { to, kind: wanted });
        rig.settle();
        let messages = rig.messages(alice);
        let [Message::SubscribedQualityUpdate(update)] = &messages[..] else { panic!("{messages:?}") };
        let [codec] = &update.subscribed_codecs[..] else { panic!("{update:?}") };
        assert_eq!((update.track_sid.as_str(), codec.codec.as_str()), ("TR_2", "vp8"));
        assert_eq!(codec.qualities, update.subscribed_qualities);
        let named: Vec<_> = codec.qualities.iter().map(|q| (q.quality(), q.enabled)).collect();
        let names = [proto::VideoQuality::Low, proto::VideoQuality::Medium, proto::VideoQuality::High];
        assert_eq!(named, names.into_iter().zip(expected).collect::<Vec<_>>());
    }
}
