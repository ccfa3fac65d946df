//! Tokens of ours and of others, good and bad.

use super::*;
use proptest::prelude::*;
use serde_json::json;

const NOW: u64 = 1_800_000_000;
const SECRET: &str = "0123456789abcdefghijklmnopqrstuv";

fn keys() -> Keys {
    Keys::new([("first", SECRET), ("second", "vutsrqponmlkjihgfedcba9876543210")]).unwrap()
}

/// Signs any payload, as another program would.
fn signed(header: Value, payload: Value, secret: &str) -> String {
    let part = |v: Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let message = format!("{}.{}", part(header), part(payload));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn hs256(payload: Value) -> String {
    signed(json!({"alg": "HS256"}), payload, SECRET)
}

#[test]
fn a_minted_token_verifies() {
    let token = keys().sign(&Claims::for_room("@a:hs:DEV", "room", true, NOW, 3600));
    let claims = keys().verify(&token, NOW).unwrap();
    assert_eq!(claims.iss, "first");
    assert_eq!(claims.identity(), "@a:hs:DEV");
    assert_eq!((claims.nbf, claims.exp), (Some(NOW), Some(NOW + 3600)));
    let grant = claims.video.clone().unwrap();
    assert_eq!((grant.room.as_str(), grant.room_join, grant.room_create), ("room", true, false));
    assert!(claims.permissions().can_publish && !claims.permissions().can_update_metadata);
}

#[test]
fn whose_token_it_is_in_matrix_stays_with_it() {
    let member = RoomMember { room: "!room:hs".into(), slot: "m.call#ROOM".into(), user: "@a:hs".into() };
    let claims = Claims { matrix: Some(member.clone()), ..Claims::for_room("a", "r", true, NOW, 3600) };
    let token = keys().sign(&claims.refreshed(NOW + 100));
    assert_eq!(keys().verify(&token, NOW + 100).unwrap().matrix, Some(member));
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(payload["matrix"], json!({"room": "!room:hs", "slot": "m.call#ROOM", "user": "@a:hs"}));

    // An app's token says nothing of Matrix. What says something that we do not understand is no token of ours.
    let app = json!({"iss": "first", "exp": NOW + 10});
    assert_eq!(keys().verify(&hs256(app.clone()), NOW).unwrap().matrix, None);
    assert!(!serde_json::to_string(&Claims::default()).unwrap().contains("matrix"));
    for (matrix, outcome) in [
        (Value::Null, Ok(None)),
        (json!("!room:hs"), Err(TokenError::Invalid(InvalidReason::Claims))),
        (json!({"room": "!room:hs"}), Err(TokenError::Invalid(InvalidReason::Claims))),
        (json!({"room": 1, "slot": "", "user": ""}), Err(TokenError::Invalid(InvalidReason::Claims))),
    ] {
        let mut claims = app.clone();
        claims["matrix"] = matrix;
        assert_eq!(keys().verify(&hs256(claims), NOW).map(|claims| claims.matrix), outcome);
    }
}

#[test]
fn every_way_to_be_wrong_has_its_answer() {
    let good = json!({"iss": "first", "sub": "a", "exp": NOW + 10, "video": {"roomJoin": true, "room": "r"}});
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        claims
    };
    let mut without_exp = good.clone();
    without_exp.as_object_mut().unwrap().remove("exp");
    let flipped = {
        let mut t = hs256(good.clone()).into_bytes();
        let last = t.len() - 2;
        t[last] = if t[last] == b'A' { b'B' } else { b'A' };
        String::from_utf8(t).unwrap()
    };
    let invalid = TokenError::Invalid;
    let table = [
        ("good", hs256(good.clone()), None),
        (
            "second key",
            signed(json!({"alg": "HS256"}), with("iss", json!("second")), SECRET),
            Some(invalid(InvalidReason::Signature)),
        ),
        ("empty", String::new(), Some(TokenError::Malformed)),
        ("no dots", "abc".into(), Some(TokenError::Malformed)),
        ("not base64", "a.b.c".into(), Some(TokenError::Malformed)),
        ("four parts", format!("{}.x", hs256(good.clone())), Some(TokenError::Malformed)),
        ("unknown key", hs256(with("iss", json!("third"))), Some(TokenError::UnknownKey)),
        ("no key", hs256(with("iss", json!(""))), Some(TokenError::UnknownKey)),
        ("other secret", signed(json!({"alg": "HS256"}), good.clone(), "x"), Some(invalid(InvalidReason::Signature))),
        ("flipped signature", flipped, Some(invalid(InvalidReason::Signature))),
        ("alg none", signed(json!({"alg": "none"}), good.clone(), SECRET), Some(TokenError::Malformed)),
        ("alg HS384", signed(json!({"alg": "HS384"}), good.clone(), SECRET), Some(invalid(InvalidReason::Algorithm))),
        ("alg RS256", signed(json!({"alg": "RS256"}), good.clone(), SECRET), Some(invalid(InvalidReason::Algorithm))),
        ("no exp", hs256(without_exp), Some(invalid(InvalidReason::NoExpiry))),
        ("exp null", hs256(with("exp", Value::Null)), Some(invalid(InvalidReason::NoExpiry))),
        ("exp text", hs256(with("exp", json!("1900000000"))), Some(invalid(InvalidReason::Claims))),
        ("exp negative", hs256(with("exp", json!(-1))), Some(invalid(InvalidReason::Claims))),
        ("exp fraction", hs256(with("exp", json!(NOW as f64 + 0.5))), None),
        ("expired within leeway", hs256(with("exp", json!(NOW - LEEWAY_S))), None),
        ("expired", hs256(with("exp", json!(NOW - LEEWAY_S - 1))), Some(invalid(InvalidReason::Expired))),
        ("nbf within leeway", hs256(with("nbf", json!(NOW + LEEWAY_S))), None),
        ("nbf", hs256(with("nbf", json!(NOW + LEEWAY_S + 1))), Some(invalid(InvalidReason::NotYetValid))),
        ("nbf text", hs256(with("nbf", json!("soon"))), Some(invalid(InvalidReason::Claims))),
        ("video text", hs256(with("video", json!("all"))), Some(invalid(InvalidReason::Claims))),
        ("aud is not ours to judge", hs256(with("aud", json!("x"))), None),
    ];
    for (what, token, expected) in table {
        assert_eq!(keys().verify(&token, NOW).err(), expected, "{what}");
    }
}

#[test]
fn error_texts_are_those_clients_know() {
    assert_eq!(TokenError::Malformed.to_string(), "invalid authorization token");
    assert_eq!(TokenError::UnknownKey.to_string(), "invalid API key");
    assert!(TokenError::Invalid(InvalidReason::Expired).to_string().starts_with("invalid authorization token: "));
}

#[test]
fn absent_permissions_have_their_defaults() {
    let permissions = |video: Value| {
        let claims: Claims = serde_json::from_value(json!({"video": video})).unwrap();
        claims.permissions()
    };
    let open = permissions(json!({}));
    assert!(open.can_publish && open.can_subscribe && open.can_publish_data);
    assert!(!open.can_update_metadata && !open.hidden && open.can_publish_sources.is_empty());

    assert!(!permissions(json!({"canPublish": false})).can_publish_data);
    assert!(permissions(json!({"canPublish": false, "canPublishData": true})).can_publish_data);

    let mic = permissions(json!({"canPublishSources": ["microphone"]}));
    assert!(mic.may_publish(TrackSource::Microphone) && !mic.may_publish(TrackSource::Camera));
    let unknown = permissions(json!({"canPublishSources": ["hologram"]}));
    assert!(!unknown.may_publish(TrackSource::Camera) && !unknown.may_publish(TrackSource::Unknown));

    let nothing = Claims::default().permissions();
    assert!(!nothing.can_publish && !nothing.can_subscribe && !nothing.can_publish_data);
}

#[test]
fn refreshing_keeps_everything_but_a_short_expiry() {
    let claims: Claims = serde_json::from_value(json!({
        "iss": "second", "sub": "a", "nbf": NOW - 50, "exp": NOW + 100, "name": "A", "metadata": "m", "kind": "agent",
        "attributes": {"k": "v"}, "video": {"roomJoin": true, "room": "r", "canSubscribeMetrics": true},
    }))
    .unwrap();
    let refreshed = keys().verify(&keys().sign(&claims.refreshed(NOW)), NOW).unwrap();
    assert_eq!(refreshed, Claims { exp: Some(NOW + REFRESHED_VALIDITY_S), ..claims.clone() });
    assert_eq!(refreshed.other["kind"], "agent");
    assert_eq!(refreshed.video.unwrap().other["canSubscribeMetrics"], true);

    let long = Claims { exp: Some(NOW + 5000), ..claims };
    assert_eq!(long.refreshed(NOW).exp, Some(NOW + 5000));
}

#[test]
fn debug_output_has_no_secret() {
    let shown = format!("{:?}", keys());
    assert!(shown.contains("first") && !shown.contains(SECRET), "{shown}");
}

proptest! {
    #[test]
    fn the_payload_survives_atob(sub in "\\PC{0,40}", room in "[ -\\x7f]{0,40}", name in any::<String>(), exp in any::<u32>()) {
        let claims = Claims { name, exp: Some(exp.into()), ..Claims::for_room(&sub, &room, true, 0, 0) };
        let token = keys().sign(&claims);
        let payload = token.split('.').nth(1).unwrap();
        prop_assert!(!payload.contains(['-', '_']), "{payload}");
        let read: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        prop_assert_eq!(&read, &Claims { iss: "first".into(), ..claims.clone() });
        prop_assert_eq!(keys().verify(&token, 0).unwrap(), read);
    }

    #[test]
    fn nothing_makes_it_panic(token in "\\PC{0,80}", now in any::<u64>()) {
        let _ = keys().verify(&token, now);
    }
}
