use proptest::prelude::*;

use super::super::envelope::DeviceEnvelope;
use super::super::streams::{MAX_STREAMS, Purpose};
use super::*;

const OFFER: &str = "v=0\r\n";

fn content(more: Value) -> Value {
    let mut content = json!({ "call_id": "c1", "party_id": "p1", "version": "1" });
    content.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    content
}

fn kind(event_type: &str, more: Value) -> Result<Kind, ContentError> {
    Content::parse(event_type, &content(more)).map(|content| content.kind)
}

fn invite(more: Value) -> Kind {
    let mut invite = json!({ "offer": { "type": "offer", "sdp": OFFER } });
    invite.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    kind("m.call.invite", invite).unwrap()
}

#[test]
fn trap_10_versions_come_as_numbers_and_as_texts() {
    let cases = [
        (json!(0), Version::V0),
        (json!(0.0), Version::V0),
        (json!("0"), Version::V1),
        (json!(1), Version::V1),
        (json!("1"), Version::V1),
        (json!("org.example.2"), Version::V1),
        (json!(null), Version::V1),
        (json!({}), Version::V1),
    ];
    for (version, expected) in cases {
        let parsed = Content::parse("m.call.hangup", &content(json!({ "version": version }))).unwrap();
        assert_eq!(parsed.envelope.version, expected, "{version}");
    }
    let oldest = Content::parse("m.call.hangup", &json!({ "call_id": "c" })).unwrap();
    assert_eq!((oldest.envelope.version, oldest.envelope.party()), (Version::V0, None));
    let unversioned = Content::parse("m.call.hangup", &json!({ "call_id": "c", "party_id": "p" })).unwrap();
    assert_eq!((unversioned.envelope.version, unversioned.envelope.party()), (Version::V1, Some("p")));
}

#[test]
fn trap_10_version_0_knows_no_parties() {
    let parsed = Content::parse("m.call.hangup", &content(json!({ "version": 0 }))).unwrap();
    assert_eq!((parsed.envelope.party(), parsed.envelope.party_id.as_deref()), (None, Some("p1")));
}

#[test]
fn ids_are_printable_and_short() {
    let cases = [
        (json!({ "call_id": "" }), Err(ContentError::Malformed("call_id"))),
        (json!({ "call_id": 7 }), Err(ContentError::Malformed("call_id"))),
        (json!({ "call_id": null }), Err(ContentError::Missing("call_id"))),
        (json!({ "call_id": "a\nb" }), Err(ContentError::Malformed("call_id"))),
        (json!({ "call_id": "a b" }), Err(ContentError::Malformed("call_id"))),
        (json!({ "call_id": "x".repeat(256) }), Err(ContentError::Malformed("call_id"))),
        (json!({ "call_id": "x".repeat(255) }), Ok(())),
        (json!({ "call_id": "1760000000000.a~b_c-d" }), Ok(())),
        (json!({ "party_id": "é" }), Err(ContentError::Malformed("party_id"))),
        (json!({ "party_id": null }), Ok(())),
    ];
    for (more, expected) in cases {
        let parsed = Content::parse("m.call.hangup", &content(more.clone())).map(|_| ());
        assert_eq!(parsed, expected, "{more}");
    }
}

#[test]
fn lifetimes() {
    let cases = [
        (json!({ "lifetime": 90_000 }), 90_000),
        (json!({ "lifetime": 1500.5 }), 1500),
        (json!({ "lifetime": 0 }), 0),
        (json!({}), 60_000),
        (json!({ "lifetime": -1 }), 60_000),
        (json!({ "lifetime": "90000" }), 60_000),
        (json!({ "lifetime": 1e300 }), 300_000),
        (json!({ "lifetime": u64::MAX }), 300_000),
    ];
    for (more, expected) in cases {
        let Kind::Invite { lifetime, .. } = invite(more.clone()) else { panic!() };
        assert_eq!(lifetime, Duration::from_millis(expected), "{more}");
    }
}

#[test]
fn descriptions() {
    let cases = [
        (json!({}), Err(ContentError::Missing("offer"))),
        (json!({ "offer": 7 }), Err(ContentError::Malformed("offer"))),
        (json!({ "offer": { "type": "offer" } }), Err(ContentError::Malformed("offer"))),
        (json!({ "offer": { "type": "offer", "sdp": "" } }), Err(ContentError::Malformed("offer"))),
        (json!({ "offer": { "type": "answer", "sdp": OFFER } }), Err(ContentError::Malformed("offer"))),
        (json!({ "offer": { "type": "offer", "sdp": "x".repeat(65_537) } }), Err(ContentError::Malformed("offer"))),
        (json!({ "offer": { "sdp": OFFER } }), Ok(())),
    ];
    for (more, expected) in cases {
        assert_eq!(kind("m.call.invite", more.clone()).map(|_| ()), expected, "{more}");
    }
    for (kind_of, expected) in [("offer", Some(true)), ("answer", Some(false)), ("pranswer", None), ("rollback", None)]
    {
        let parsed = kind("m.call.negotiate", json!({ "description": { "type": kind_of, "sdp": OFFER } }));
        let is_offer =
            parsed.ok().map(|kind| matches!(kind, Kind::Negotiate { description, .. } if description.is_offer));
        assert_eq!(is_offer, expected, "{kind_of}");
    }
}

#[test]
fn streams_under_either_key() {
    let camera = json!({ "s": { "purpose": "m.usermedia", "audio_muted": true } });
    let screen = json!({ "s": { "purpose": "m.screenshare" } });
    const UNSTABLE: &str = "org.matrix.msc3077.sdp_stream_metadata";
    let muted = Stream { audio_muted: true, ..Stream::new("s", Purpose::Usermedia) };
    let cases = [
        (json!({}), None),
        (json!({ "sdp_stream_metadata": camera }), Some(vec![muted.clone()])),
        (json!({ UNSTABLE: camera }), Some(vec![muted.clone()])),
        (json!({ UNSTABLE: screen, "sdp_stream_metadata": camera }), Some(vec![muted])),
        (json!({ "sdp_stream_metadata": 7, UNSTABLE: screen }), Some(vec![Stream::new("s", Purpose::Screenshare)])),
        (json!({ "sdp_stream_metadata": {} }), Some(vec![])),
        (json!({ "sdp_stream_metadata": { "s": { "purpose": "m.new" }, "t": {}, "u": 7 } }), Some(vec![])),
    ];
    for (more, expected) in cases {
        let Kind::Invite { streams, .. } = invite(more.clone()) else { panic!() };
        assert_eq!(streams, expected, "{more}");
    }
    let many: Map<String, Value> = (0..1000).map(|n| (n.to_string(), camera["s"].clone())).collect();
    let Kind::Invite { streams, .. } = invite(json!({ "sdp_stream_metadata": many })) else { panic!() };
    assert_eq!(streams.unwrap().len(), MAX_STREAMS);
    for event_type in ["m.call.sdp_stream_metadata_changed", "org.matrix.call.sdp_stream_metadata_changed"] {
        let changed = kind(event_type, json!({ "sdp_stream_metadata": screen }));
        assert_eq!(changed, Ok(Kind::StreamsChanged(vec![Stream::new("s", Purpose::Screenshare)])));
        assert!(kind(event_type, json!({})).is_err());
    }
}

#[test]
fn candidates_that_are_none_are_left_out() {
    let listed = json!([
        { "candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0 },
        { "candidate": "", "sdpMid": null },
        { "candidate": 7 },
        "candidate",
        { "candidate": "x".repeat(2000) },
        { "candidate": "c", "sdpMLineIndex": 70_000 },
    ]);
    let Ok(Kind::Candidates(candidates)) = kind("m.call.candidates", json!({ "candidates": listed })) else { panic!() };
    assert_eq!(candidates.len(), 3);
    assert_eq!((candidates[0].sdp_mid.as_deref(), candidates[0].sdp_m_line_index), (Some("0"), Some(0)));
    assert_eq!(candidates[1], Candidate::end());
    assert_eq!(candidates[2].sdp_m_line_index, None);
    let flood: Vec<Value> = vec![json!({ "candidate": "c" }); 10_000];
    let Ok(Kind::Candidates(candidates)) = kind("m.call.candidates", json!({ "candidates": flood })) else { panic!() };
    assert_eq!(candidates.len(), MAX_CANDIDATES_PER_EVENT);
    assert_eq!(kind("m.call.candidates", json!({ "candidates": {} })), Err(ContentError::Malformed("candidates")));
    assert_eq!(kind("m.call.candidates", json!({})), Err(ContentError::Missing("candidates")));
}

#[test]
fn reasons() {
    let cases = [
        (json!({}), Reason::UserHangup),
        (json!({ "reason": null }), Reason::UserHangup),
        (json!({ "reason": "ice_timeout" }), Reason::IceTimeout),
        (json!({ "reason": "bored" }), Reason::UnknownError),
        (json!({ "reason": 7 }), Reason::UnknownError),
    ];
    for (more, expected) in cases {
        assert_eq!(kind("m.call.hangup", more.clone()), Ok(Kind::Hangup(expected)), "{more}");
        assert_eq!(kind("m.call.reject", more), Ok(Kind::Reject(expected)));
    }
}

#[test]
fn selections_and_identities() {
    assert_eq!(kind("m.call.select_answer", json!({})), Err(ContentError::Missing("selected_party_id")));
    let selected = kind("m.call.select_answer", json!({ "selected_party_id": "p" }));
    assert_eq!(selected, Ok(Kind::SelectAnswer { selected_party_id: "p".into() }));
    for event_type in ["m.call.asserted_identity", "org.matrix.call.asserted_identity"] {
        let asserted = kind(event_type, json!({ "asserted_identity": { "display_name": "Room" } }));
        let identity = Identity { display_name: Some("Room".into()), ..Identity::default() };
        assert_eq!(asserted, Ok(Kind::AssertedIdentity(identity)));
        let taken_back = kind(event_type, json!({ "asserted_identity": null }));
        assert_eq!(taken_back, Ok(Kind::AssertedIdentity(Identity::default())));
        assert!(kind(event_type, json!({ "asserted_identity": 7 })).is_err() && kind(event_type, json!({})).is_err());
    }
}

#[test]
fn types_that_are_not_known() {
    for event_type in ["m.call.replaces", "m.call.member", "m.call", "m.room.message", ""] {
        assert_eq!(kind(event_type, json!({})), Err(ContentError::UnknownType), "{event_type}");
    }
    assert!(Content::is_call_event("m.call.invite") && !Content::is_call_event("m.room.message"));
}

#[test]
fn to_device_messages_say_whose_they_are() {
    let whole =
        json!({ "conf_id": "f", "device_id": "D", "sender_session_id": "s1", "dest_session_id": "s2", "seq": 3 });
    let parsed = Content::parse_to_device("m.call.hangup", &content(whole.clone())).unwrap();
    let device = DeviceEnvelope {
        conf_id: "f".into(),
        device_id: "D".into(),
        sender_session_id: "s1".into(),
        dest_session_id: "s2".into(),
        seq: Some(3),
    };
    assert_eq!(parsed.envelope.device, Some(device));
    assert_eq!(Content::parse("m.call.hangup", &content(whole.clone())).unwrap().envelope.device, None);
    for key in ["conf_id", "device_id", "sender_session_id", "dest_session_id"] {
        let mut lacking = content(whole.clone());
        lacking.as_object_mut().unwrap().remove(key);
        assert_eq!(Content::parse_to_device("m.call.hangup", &lacking), Err(ContentError::Missing(key)));
    }
    let mut unnumbered = content(whole);
    unnumbered["seq"] = json!("3");
    assert_eq!(Content::parse_to_device("m.call.hangup", &unnumbered).unwrap().envelope.device.unwrap().seq, None);
}

#[test]
fn what_clients_read_of_ours() {
    let envelope = |version| Envelope { call_id: "c".into(), party_id: Some("BOT".into()), version, device: None };
    let json_of = |version, kind| Content { envelope: envelope(version), kind }.to_json();
    let streams = Some(vec![Stream::new("s", Purpose::Usermedia)]);
    let listed = json!({ "s": { "purpose": "m.usermedia", "audio_muted": false, "video_muted": false } });
    assert_eq!(
        json_of(Version::V1, Kind::Answer { answer: OFFER.into(), streams }),
        (
            "m.call.answer",
            json!({
                "call_id": "c", "party_id": "BOT", "version": "1",
                "answer": { "type": "answer", "sdp": OFFER },
                "sdp_stream_metadata": listed, "org.matrix.msc3077.sdp_stream_metadata": listed,
            })
        )
    );
    assert_eq!(
        json_of(Version::V1, Kind::Candidates(vec![Candidate::end()])),
        (
            "m.call.candidates",
            json!({ "call_id": "c", "party_id": "BOT", "version": "1", "candidates": [{ "candidate": "" }] })
        )
    );
    assert_eq!(
        json_of(Version::V0, Kind::Hangup(Reason::UserHangup)),
        ("m.call.hangup", json!({ "call_id": "c", "party_id": "BOT", "version": 0 }))
    );
    assert_eq!(
        json_of(Version::V0, Kind::Hangup(Reason::IceFailed)).1["reason"],
        json!("ice_failed"),
        "failures have had reasons from the start"
    );
    assert_eq!(json_of(Version::V1, Kind::AssertedIdentity(Identity::default())).1["asserted_identity"], Value::Null);
}

fn ids() -> impl Strategy<Value = String> {
    "[!-~]{1,20}"
}

fn some_streams() -> impl Strategy<Value = Vec<Stream>> {
    let purpose = prop::sample::select(vec![Purpose::Usermedia, Purpose::Screenshare]);
    let stream = (purpose, any::<bool>(), any::<bool>());
    prop::collection::btree_map("\\PC{1,10}", stream, 0..4).prop_map(|streams| {
        let streams = streams.into_iter();
        streams
            .map(|(id, (purpose, audio_muted, video_muted))| Stream { id, purpose, audio_muted, video_muted })
            .collect()
    })
}

fn kinds() -> impl Strategy<Value = Kind> {
    let reason = "[a-z_]{0,20}".prop_map(|reason| Reason::parse(&reason));
    let lifetime = (0..400_000u64).prop_map(|ms| Duration::from_millis(ms).min(MAX_LIFETIME));
    let streams = || prop::option::of(some_streams());
    let candidate = ("\\PC{0,30}", prop::option::of("\\PC{0,5}"), prop::option::of(any::<u16>()))
        .prop_map(|(candidate, sdp_mid, sdp_m_line_index)| Candidate { candidate, sdp_mid, sdp_m_line_index });
    let name = || prop::option::of("\\PC{0,10}");
    prop_oneof![
        ("\\PC{1,30}", lifetime.clone(), name(), streams())
            .prop_map(|(offer, lifetime, invitee, streams)| Kind::Invite { offer, lifetime, invitee, streams }),
        prop::collection::vec(candidate, 0..MAX_CANDIDATES_PER_EVENT).prop_map(Kind::Candidates),
        ("\\PC{1,30}", streams()).prop_map(|(answer, streams)| Kind::Answer { answer, streams }),
        "\\PC{0,10}".prop_map(|selected_party_id| Kind::SelectAnswer { selected_party_id }),
        reason.clone().prop_map(Kind::Reject),
        ("\\PC{1,30}", any::<bool>(), prop::option::of(lifetime), streams()).prop_map(
            |(sdp, is_offer, lifetime, streams)| {
                Kind::Negotiate { description: Description { is_offer, sdp }, lifetime, streams }
            }
        ),
        some_streams().prop_map(Kind::StreamsChanged),
        reason.prop_map(Kind::Hangup),
        (name(), name(), name()).prop_map(|(id, display_name, avatar_url)| Kind::AssertedIdentity(Identity {
            id,
            display_name,
            avatar_url
        })),
    ]
}

proptest! {
    /// What is written reads the same, in a room and to a device.
    #[test]
    fn round_trip(call_id in ids(), party_id in ids(), is_old in any::<bool>(), seq in any::<u64>(), kind in kinds()) {
        let version = if is_old { Version::V0 } else { Version::V1 };
        let mut content = Content { envelope: Envelope { call_id, party_id: Some(party_id), version, device: None }, kind };
        let (event_type, json) = content.to_json();
        prop_assert_eq!(Content::parse(event_type, &json), Ok(content.clone()));
        content.envelope.device = Some(DeviceEnvelope {
            conf_id: "f".into(),
            device_id: "D".into(),
            sender_session_id: "s".into(),
            dest_session_id: "t".into(),
            seq: Some(seq),
        });
        let (event_type, json) = content.to_json();
        prop_assert_eq!(Content::parse_to_device(event_type, &json), Ok(content));
    }
}
