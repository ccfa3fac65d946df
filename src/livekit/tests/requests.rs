//! Every kind of request: the command it becomes, the answer it gets.

use livekit_protocol as proto;
use proto::request_response::{Reason, Request};
use proto::signal_request::Message as Said;
use proto::signal_response::Message;

use super::*;
use crate::livekit::Dropped;
use crate::sfu::{Encryption, TrackSource};

/// One participant, greeted.
fn joined(dialect: Dialect) -> (Rig, SocketId) {
    joined_with(request("alice", dialect))
}

fn joined_with(request: JoinRequest) -> (Rig, SocketId) {
    let mut rig = Rig::new();
    let socket = rig.join(request).expect("the room is created");
    rig.take(socket);
    (rig, socket)
}

/// Reason and echoed request of the only answer.
fn refusal(rig: &mut Rig, socket: SocketId) -> (Reason, proto::RequestResponse) {
    let messages = rig.messages(socket);
    let [Message::RequestResponse(response)] = &messages[..] else {
        panic!("expected one request_response: {messages:?}")
    };
    (response.reason(), response.clone())
}

fn published(rig: &mut Rig, socket: SocketId) -> proto::TrackPublishedResponse {
    let messages = rig.messages(socket);
    let [Message::TrackPublished(published)] = &messages[..] else { panic!("expected track_published: {messages:?}") };
    published.clone()
}

#[test]
fn an_offer_is_answered_with_its_id() {
    for dialect in [Dialect::V0, Dialect::V1] {
        let (mut rig, socket) = joined(dialect);
        rig.say(socket, Said::Offer(offer(42)));
        let answers: Vec<_> = rig
            .messages(socket)
            .into_iter()
            .filter_map(|m| if let Message::Answer(a) = m { Some(a) } else { None })
            .collect();
        assert_eq!(answers.len(), 1);
        assert_eq!((answers[0].id, answers[0].r#type.as_str()), (42, "answer"));
    }
}

#[test]
fn what_is_called_offer_must_be_one() {
    let (mut rig, socket) = joined(Dialect::V1);
    rig.say(socket, Said::Offer(proto::SessionDescription { r#type: "answer".to_owned(), ..offer(1) }));
    assert!(rig.take(socket).is_empty());
    assert_eq!(rig.signalling.dropped().get(Dropped::Malformed), 1);
}

#[test]
fn an_offer_that_cannot_be_used_ends_the_session_with_a_reconnect() {
    let (mut rig, socket) = joined(Dialect::V1);
    rig.say(socket, Said::Offer(proto::SessionDescription { sdp: "nonsense".to_owned(), ..offer(1) }));
    let outgoing = rig.take(socket);
    let [.., Outgoing::Message(leave), Outgoing::Close(1000)] = &outgoing[..] else { panic!("{outgoing:?}") };
    let Some(Message::Leave(leave)) = &leave.message else { panic!("{leave:?}") };
    assert_eq!(leave.reason(), proto::DisconnectReason::StateMismatch);
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
    assert!(leave.can_reconnect);
}

#[test]
fn an_answer_belongs_to_v0() {
    let answer = |id| Said::Answer(proto::SessionDescription { r#type: "answer".to_owned(), ..offer(id) });
    let (mut rig, socket) = joined(Dialect::V0);
    rig.say(socket, answer(1));
    assert!(matches!(&rig.messages(socket)[..], [Message::Update(update)] if update.participants[0].state == 2));
    let (mut rig, socket) = joined(Dialect::V1);
    rig.say(socket, answer(1));
    assert!(rig.take(socket).is_empty());
    assert_eq!(rig.signalling.dropped().get(Dropped::WrongDialect), 1);
}

#[test]
fn trickle_is_looked_at_and_counted() {
    let long = format!(r#"{{"candidate":"{}"}}"#, "x".repeat(9000));
    let cases = [
        (r#"{"candidate":"candidate:1 1 udp 1 10.0.0.1 9 typ host","sdpMid":"0"}"#, false, None),
        (r#"{"candidate":"","sdpMid":"0"}"#, false, None),
        ("{}", true, None),
        ("", true, None),
        ("", false, Some(Dropped::Malformed)),
        ("candidate:1", false, Some(Dropped::Malformed)),
        (r#"{"candidate":7}"#, false, Some(Dropped::Malformed)),
        ("[[[[[[[[", false, Some(Dropped::Malformed)),
        (&long, false, Some(Dropped::Oversized)),
    ];
    for (init, is_final, dropped) in cases {
        let (mut rig, socket) = joined(Dialect::V1);
        let trickle = proto::TrickleRequest { candidate_init: init.to_owned(), target: 1, r#final: is_final };
        rig.say(socket, Said::Trickle(trickle));
        assert!(rig.take(socket).is_empty());
        let counted = rig.signalling.dropped().iter().find(|(_, count)| *count > 0).map(|(reason, _)| reason);
        assert_eq!(counted, dropped, "{init:.40}");
    }
}

#[test]
fn add_track_is_published_at_once_with_what_was_asked() {
    let (mut rig, socket) = joined(Dialect::V1);
    rig.say(socket, Said::AddTrack(camera("cam")));
    let published = published(&mut rig, socket);
    let track = published.track.expect("a track");
    assert_eq!(published.cid, "cam");
    assert!(track.sid.starts_with("TR"));
    assert_eq!(track.encryption(), proto::encryption::Type::Gcm);
    assert_eq!((track.width, track.height), (1280, 720));
    assert_eq!(track.stream, "camera");
    assert_eq!(track.codecs.len(), 1);
    assert_eq!((track.codecs[0].mime_type.as_str(), track.codecs[0].cid.as_str()), ("video/VP8", "cam"));
    let qualities: Vec<_> = track.codecs[0].layers.iter().map(|layer| layer.quality).collect();
    assert_eq!(qualities, [0, 1, 2]);
    #[allow(deprecated)]
    let simulcast = track.simulcast;
    assert!(simulcast);
}

#[test]
fn a_codec_we_lack_is_replaced_by_one_we_have() {
    for (asked, got) in [
        ("h265", "video/VP8"),
        ("vp9", "video/VP9"),
        ("av1", "video/AV1"),
        ("h264", "video/H264"),
        ("VP8", "video/VP8"),
        ("opus", "video/VP8"),
    ] {
        let (mut rig, socket) = joined(Dialect::V1);
        let mut request = camera("cam");
        request.simulcast_codecs[0].codec = asked.to_owned();
        request.simulcast_codecs.push(proto::SimulcastCodec { codec: "vp8".to_owned(), ..Default::default() });
        rig.say(socket, Said::AddTrack(request));
        let track = published(&mut rig, socket).track.expect("a track");
        assert_eq!(track.codecs[0].mime_type, got, "{asked}");
    }
}

#[test]
fn the_features_of_an_audio_track_are_told_in_the_old_way_and_in_the_new() {
    let features = [proto::AudioTrackFeature::TfNoDtx as i32, proto::AudioTrackFeature::TfEchoCancellation as i32];
    let (mut rig, socket) = joined(Dialect::V1);
    rig.say(
        socket,
        Said::AddTrack(proto::AddTrackRequest {
            audio_features: features.to_vec(),
            disable_red: true,
            ..microphone("mic")
        }),
    );
    let track = published(&mut rig, socket).track.expect("a track");
    assert_eq!(track.mime_type, "audio/opus");
    assert_eq!(track.audio_features, features);
    assert!(track.disable_red);
    #[allow(deprecated)]
    let (disable_dtx, stereo) = (track.disable_dtx, track.stereo);
    assert!(disable_dtx && !stereo);
}

#[test]
fn tracks_that_cannot_be_added() {
    let cases = [
        (proto::AddTrackRequest { r#type: proto::TrackType::Data as i32, ..microphone("a") }, Reason::UnsupportedType),
        (proto::AddTrackRequest { r#type: 77, ..microphone("a") }, Reason::UnsupportedType),
        (proto::AddTrackRequest { sid: "TR_1".to_owned(), ..microphone("a") }, Reason::UnsupportedType),
        (microphone(""), Reason::InvalidRequest),
        (microphone(&"a".repeat(5000)), Reason::LimitExceeded),
        (proto::AddTrackRequest { name: "n".repeat(5000), ..microphone("a") }, Reason::LimitExceeded),
        (proto::AddTrackRequest { source: proto::TrackSource::Camera as i32, ..microphone("a") }, Reason::NotAllowed),
        (proto::AddTrackRequest { source: 99, ..microphone("a") }, Reason::NotAllowed),
    ];
    for (add_track, reason) in cases {
        let mut request = request("alice", Dialect::V1);
        request.permissions.can_publish_sources = vec![TrackSource::Microphone];
        let (mut rig, socket) = joined_with(request);
        rig.say(socket, Said::AddTrack(add_track.clone()));
        let (got, response) = refusal(&mut rig, socket);
        assert_eq!(got, reason);
        assert_eq!(response.request, Some(Request::AddTrack(add_track)));
        assert!(!response.message.is_empty());
        assert!(rig.rooms.members[&rig.id(socket)].pending.is_empty());
    }
}

#[test]
fn a_cid_in_use_waits_for_its_turn() {
    let (mut rig, socket) = joined(Dialect::V1);
    rig.say(socket, Said::AddTrack(microphone("mic")));
    rig.say(socket, Said::Offer(offer(1)));
    let first = rig.rooms.members[&rig.id(socket)].info.tracks[0].sid.clone();
    rig.take(socket);
    for expected in [Reason::Queued, Reason::Queued, Reason::Queued, Reason::LimitExceeded] {
        rig.say(socket, Said::AddTrack(microphone("mic")));
        assert_eq!(refusal(&mut rig, socket).0, expected);
    }
    let id = rig.id(socket);
    rig.rooms.unpublish(id);
    rig.settle();
    let messages = rig.messages(socket);
    let [Message::Update(_), Message::TrackPublished(next)] = &messages[..] else { panic!("{messages:?}") };
    assert_ne!(next.track.as_ref().expect("a track").sid, first.as_str());
    // The others still wait: their cid is taken again.
    assert_eq!(rig.rooms.members[&id].pending.len(), 1);
}

#[test]
fn no_more_than_twenty_tracks_wait() {
    let (mut rig, socket) = joined(Dialect::V1);
    for i in 0..20 {
        rig.say(socket, Said::AddTrack(microphone(&i.to_string())));
    }
    rig.take(socket);
    rig.say(socket, Said::AddTrack(microphone("one more")));
    assert_eq!(refusal(&mut rig, socket).0, Reason::LimitExceeded);
    for (i, expected) in (0..21).map(|i| (i, if i < 20 { Reason::Queued } else { Reason::LimitExceeded })) {
        rig.say(socket, Said::AddTrack(microphone(&(i % 20 / 3).to_string())));
        assert_eq!(refusal(&mut rig, socket).0, expected, "{i}");
    }
}

#[test]
fn layers_are_sorted_and_what_is_none_is_left_out() {
    let (mut rig, socket) = joined(Dialect::V1);
    let qualities = [2, 0, 9, 3, 0, 1, -1, 2];
    let layers = qualities.map(|quality| proto::VideoLayer { quality, ..Default::default() }).to_vec();
    rig.say(socket, Said::AddTrack(proto::AddTrackRequest { layers, ..camera("cam") }));
    let track = published(&mut rig, socket).track.expect("a track");
    let layers: Vec<_> = track.codecs[0].layers.iter().map(|layer| (layer.quality, layer.spatial_layer)).collect();
    assert_eq!(layers, [(0, 0), (2, 1)]);
}

#[test]
fn an_encryption_newer_than_we_are_is_not_taken_for_none() {
    let (mut rig, socket) = joined(Dialect::V1);
    rig.say(socket, Said::AddTrack(proto::AddTrackRequest { encryption: 5, ..camera("cam") }));
    assert_eq!(rig.rooms.members[&rig.id(socket)].pending[0].announced.encryption, Encryption::Custom);
}

#[test]
fn muting_comes_back_as_an_update() {
    let (mut rig, socket) = joined(Dialect::V1);
    rig.say(socket, Said::AddTrack(microphone("mic")));
    let sid = published(&mut rig, socket).track.expect("a track").sid;
    // Pending: nobody needs to hear of it yet.
    rig.say(socket, Said::Mute(proto::MuteTrackRequest { sid: sid.clone(), muted: true }));
    assert!(rig.take(socket).is_empty());
    rig.say(socket, Said::Offer(offer(1)));
    let messages = rig.messages(socket);
    let [Message::Update(update), Message::Answer(_)] = &messages[..] else { panic!("{messages:?}") };
    assert!(update.participants[0].tracks[0].muted);
    rig.say(socket, Said::Mute(proto::MuteTrackRequest { sid, muted: false }));
    let messages = rig.messages(socket);
    let [Message::Update(update)] = &messages[..] else { panic!("{messages:?}") };
    assert!(!update.participants[0].tracks[0].muted);
}

#[test]
fn muting_somebody_elses_track_finds_nothing() {
    let (mut rig, socket) = joined(Dialect::V1);
    let mute = proto::MuteTrackRequest { sid: "TR_other".to_owned(), muted: true };
    rig.say(socket, Said::Mute(mute.clone()));
    let (reason, response) = refusal(&mut rig, socket);
    assert_eq!(reason, Reason::NotFound);
    assert_eq!(response.request, Some(Request::Mute(mute)));
}

#[test]
fn subscription_takes_both_lists() {
    let (mut rig, socket) = joined(Dialect::V1);
    let by_participant =
        proto::ParticipantTracks { participant_sid: "PA_9".to_owned(), track_sids: vec!["TR_2".to_owned()] };
    let request = proto::UpdateSubscription {
        track_sids: vec!["TR_1".to_owned()],
        participant_tracks: vec![by_participant],
        subscribe: false,
    };
    rig.say(socket, Said::Subscription(request));
    rig.say(socket, Said::Subscription(proto::UpdateSubscription::default()));
    assert_eq!(rig.rooms.commands, ["subscribe [TR_1, TR_2] false"]);
    assert!(rig.take(socket).is_empty());
}

#[test]
fn subscribing_needs_permission_and_ends_somewhere() {
    let everything = proto::UpdateSubscription {
        track_sids: (0..1500).map(|i| format!("TR_{i}")).collect(),
        subscribe: true,
        ..Default::default()
    };
    let mut request = request("alice", Dialect::V1);
    request.permissions.can_subscribe = false;
    let (mut rig, socket) = joined_with(request);
    rig.say(socket, Said::Subscription(everything.clone()));
    assert!(rig.rooms.commands.is_empty());
    assert_eq!(rig.signalling.dropped().get(Dropped::NotPermitted), 1);

    let (mut rig, socket) = joined(Dialect::V1);
    rig.say(socket, Said::Subscription(everything));
    assert_eq!(rig.rooms.commands[0].matches("TR_").count(), 1000);
    assert_eq!(rig.signalling.dropped().get(Dropped::Oversized), 1);
}

#[test]
fn track_setting() {
    let base = || proto::UpdateTrackSettings { track_sids: vec!["TR_1".to_owned()], ..Default::default() };
    let cases = [
        (proto::UpdateTrackSettings { disabled: true, ..base() }, "settings [TR_1] true Low 0x0 0 0"),
        (proto::UpdateTrackSettings { quality: 2, ..base() }, "settings [TR_1] false High 0x0 0 0"),
        (
            proto::UpdateTrackSettings { quality: 2, width: 320, height: 180, fps: 15, priority: 2, ..base() },
            "settings [TR_1] false High 320x180 15 2",
        ),
        (proto::UpdateTrackSettings { quality: 3, ..base() }, "settings [TR_1] true High 0x0 0 0"),
        (proto::UpdateTrackSettings { quality: 12, ..base() }, "settings [TR_1] false High 0x0 0 0"),
    ];
    for (settings, command) in cases {
        let (mut rig, socket) = joined(Dialect::V1);
        rig.say(socket, Said::TrackSetting(settings));
        assert_eq!(rig.rooms.commands, [command]);
    }
    let (mut rig, socket) = joined(Dialect::V1);
    rig.say(socket, Said::TrackSetting(proto::UpdateTrackSettings::default()));
    assert!(rig.rooms.commands.is_empty());
}

#[test]
fn pings_are_answered_each_in_its_own_way() {
    let (mut rig, socket) = joined(Dialect::V1);
    let now = rig.now.unix_ms as i64;
    rig.say(socket, Said::Ping(5));
    rig.say(socket, Said::PingReq(proto::Ping { timestamp: 1234, rtt: 9 }));
    let messages = rig.messages(socket);
    let pong = proto::Pong { last_ping_timestamp: 1234, timestamp: now };
    assert_eq!(messages, [Message::Pong(now), Message::PongResp(pong)]);
}

#[test]
fn leaving_is_confirmed_and_told() {
    let (mut rig, alice) = joined(Dialect::V1);
    let bob = rig.join(request("bob", Dialect::V0)).expect("a room");
    rig.take(bob);
    rig.take(alice);
    rig.say(alice, Said::Leave(proto::LeaveRequest::default()));
    let outgoing = rig.take(alice);
    let [.., Outgoing::Message(leave), Outgoing::Close(1000)] = &outgoing[..] else { panic!("{outgoing:?}") };
    let Some(Message::Leave(leave)) = &leave.message else { panic!("{leave:?}") };
    assert_eq!(leave.reason(), proto::DisconnectReason::ClientInitiated);
    assert_eq!(leave.action(), proto::leave_request::Action::Disconnect);
    let messages = rig.messages(bob);
    let Message::Update(update) = &messages[0] else { panic!("{messages:?}") };
    assert_eq!(update.participants[0].identity, "alice");
    assert_eq!(update.participants[0].state(), proto::participant_info::State::Disconnected);
    assert_eq!(update.participants[0].disconnect_reason(), proto::DisconnectReason::ClientInitiated);
    // Nobody is there any more.
    rig.say(alice, Said::Ping(1));
    assert!(rig.take(alice).is_empty());
    assert_eq!(rig.signalling.dropped().get(Dropped::Stale), 1);
}

#[test]
fn metadata_needs_permission_and_has_limits() {
    let update = |metadata: &str| proto::UpdateParticipantMetadata {
        metadata: metadata.to_owned(),
        attributes: [("hand".to_owned(), "up".to_owned()), ("old".to_owned(), String::new())].into(),
        request_id: 8,
        ..Default::default()
    };
    let (mut rig, socket) = joined(Dialect::V1);
    rig.say(socket, Said::UpdateMetadata(update("m")));
    let (reason, response) = refusal(&mut rig, socket);
    assert_eq!((reason, response.request_id), (Reason::NotAllowed, 8));

    let mut allowed = request("alice", Dialect::V1);
    allowed.permissions.can_update_metadata = true;
    allowed.name = "Alice".to_owned();
    allowed.claims.name = "Alice".to_owned();
    allowed.attributes = [("old".to_owned(), "x".to_owned())].into();
    allowed.claims.attributes = allowed.attributes.clone();
    let (mut rig, socket) = joined_with(allowed.clone());
    rig.say(socket, Said::UpdateMetadata(update(&"m".repeat(70_000))));
    assert_eq!(refusal(&mut rig, socket).0, Reason::LimitExceeded);
    rig.say(socket, Said::UpdateMetadata(update("m")));
    let messages = rig.messages(socket);
    let [Message::RequestResponse(ok), Message::Update(me), Message::RefreshToken(token)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!((ok.reason(), ok.request_id), (Reason::Ok, 8));
    let me = &me.participants[0];
    assert_eq!((me.name.as_str(), me.metadata.as_str()), ("Alice", "m"));
    assert_eq!(me.attributes, [("hand".to_owned(), "up".to_owned())].into());
    // The next join must bring the same.
    let claims = payload(token);
    assert_eq!((claims.name.as_str(), claims.metadata.as_str()), ("Alice", "m"));
    assert_eq!(claims.attributes, [("hand".to_owned(), "up".to_owned())].into());

    // A client that knows only errors is told none.
    let (mut rig, socket) = joined_with(JoinRequest { protocol: 14, ..allowed });
    rig.say(socket, Said::UpdateMetadata(update("m")));
    assert!(matches!(&rig.messages(socket)[..], [Message::Update(_), Message::RefreshToken(_)]));
}

/// What is inside a token, unchecked.
pub fn payload(token: &str) -> Claims {
    use base64::Engine;
    let payload = token.split('.').nth(1).expect("three parts");
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&json).expect("claims")
}

#[test]
fn what_is_not_supported_says_so() {
    let cases = [
        (Said::UpdateAudioTrack(Default::default()), 0),
        (Said::UpdateVideoTrack(Default::default()), 0),
        (Said::PublishDataTrackRequest(Default::default()), 0),
        (Said::UnpublishDataTrackRequest(Default::default()), 0),
        (Said::UpdateDataSubscription(Default::default()), 0),
        (Said::StoreDataBlobRequest(proto::StoreDataBlobRequest { request_id: 3, ..Default::default() }), 3),
        (Said::GetDataBlobRequest(proto::GetDataBlobRequest { request_id: 4, ..Default::default() }), 4),
    ];
    for (said, request_id) in cases {
        let (mut rig, socket) = joined(Dialect::V1);
        rig.say(socket, said);
        let (reason, response) = refusal(&mut rig, socket);
        assert_eq!((reason, response.request_id), (Reason::UnsupportedType, request_id));
    }
}

#[test]
fn what_is_only_heard() {
    #[allow(deprecated)]
    let ignored = [Said::Simulate(Default::default()), Said::UpdateLayers(Default::default())];
    for said in ignored {
        let (mut rig, socket) = joined(Dialect::V1);
        rig.say(socket, said);
        assert!(rig.take(socket).is_empty());
        assert_eq!(rig.signalling.dropped().get(Dropped::Ignored), 1);
    }
    let (mut rig, socket) = joined(Dialect::V1);
    rig.say(socket, Said::SubscriptionPermission(Default::default()));
    assert!(rig.take(socket).is_empty());
    rig.say(socket, Said::SyncState(Default::default()));
    assert!(rig.take(socket).is_empty());
    assert_eq!(rig.signalling.dropped().get(Dropped::OutOfOrder), 1);
}
