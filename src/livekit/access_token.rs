//! LiveKit access tokens: who somebody is, which room it may join and what it may do there.
//!
//! A token is a JWT signed with HS256 by the secret of an API key. Our own token service mints them, an app's backend
//! may mint them with any LiveKit server SDK, and the signalling door checks them. Time comes in as unix seconds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::sfu::{Permissions, TrackSource};

/// How far the clocks of whoever minted a token and ours may be apart, in seconds. LiveKit allows a minute, so tokens
/// that work there work here; a token living a minute longer is harmless, as a connected client gets it prolonged anyway.
pub const LEEWAY_S: u64 = 60;

/// The least validity of a refreshed token, in seconds: it outlives two of the refreshes that come every five minutes,
/// so that a client can always resume with the last one it got.
pub const REFRESHED_VALIDITY_S: u64 = 600;

/// The payload of an access token.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Claims {
    /// The API key whose secret signed the token.
    #[serde(default, deserialize_with = "null_as_default")]
    pub iss: String,
    /// The participant's identity; see [`Claims::identity`].
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub sub: String,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// Unix seconds.
    #[serde(default, deserialize_with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Unix seconds. Required: a token without it is refused.
    #[serde(default, deserialize_with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoGrant>,
    /// Whose token it is in Matrix. `None`: an app minted it, and who comes in is that app's business; no room is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<RoomMember>,
    /// Claims we do not act on (`kind`, `sip`, `roomConfig`, …): kept, so that a refreshed token still has them.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The claim `matrix`, of this server alone: only its token service puts it into a token, and only the server reads it. The
/// token belongs to a user in a slot of a Matrix room (MSC4143), and is worth no more than that user's membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomMember {
    /// Room id, `!…`.
    pub room: String,
    /// Slot id, e.g. `m.call#ROOM`.
    pub slot: String,
    /// User id, `@user:server`.
    pub user: String,
}

/// The `video` grant. An absent permission has its own default, hence the options.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VideoGrant {
    #[serde(default, deserialize_with = "null_as_default")]
    pub room_join: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub room: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub room_create: bool,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    pub room_list: bool,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    pub room_admin: bool,
    /// Absent = true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    /// Absent = true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    /// Absent = as `can_publish`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// `camera`, `microphone`, `screen_share`, `screen_share_audio`; empty = every source.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    /// Absent = false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub hidden: bool,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Claims {
    /// The claims of a token that lets `identity` join `room` for `validity_s` seconds from `now` on; the holder may
    /// neither create rooms (that right would let it delete them too) nor change its own metadata. The issuer is filled
    /// in by [`Keys::sign`].
    pub fn for_room(identity: &str, room: &str, can_publish: bool, now: u64, validity_s: u64) -> Claims {
        Claims {
            sub: identity.to_owned(),
            nbf: Some(now),
            exp: Some(now.saturating_add(validity_s)),
            video: Some(VideoGrant {
                room_join: true,
                room: room.to_owned(),
                can_publish: Some(can_publish),
                can_subscribe: Some(true),
                can_update_own_metadata: Some(false),
                ..VideoGrant::default()
            }),
            ..Claims::default()
        }
    }

    /// `sub`, else `jti`, as old SDKs put it there; may be empty.
    pub fn identity(&self) -> &str {
        if self.sub.is_empty() { &self.jti } else { &self.sub }
    }

    /// What the room lets the holder do. Without a video grant: nothing.
    pub fn permissions(&self) -> Permissions {
        let Some(grant) = &self.video else {
            return Permissions {
                can_publish: false,
                can_subscribe: false,
                can_publish_data: false,
                can_publish_sources: Vec::new(),
                can_update_metadata: false,
                hidden: false,
            };
        };
        let sources: Vec<TrackSource> = grant.can_publish_sources.iter().filter_map(|s| source(s)).collect();
        // A list of nothing but unknown sources must not turn into the empty list, which means every source.
        let only_unknown_sources = sources.is_empty() && !grant.can_publish_sources.is_empty();
        let can_publish = grant.can_publish.unwrap_or(true);
        Permissions {
            can_publish: can_publish && !only_unknown_sources,
            can_subscribe: grant.can_subscribe.unwrap_or(true),
            can_publish_data: grant.can_publish_data.unwrap_or(can_publish),
            can_publish_sources: sources,
            can_update_metadata: grant.can_update_own_metadata.unwrap_or(false),
            hidden: grant.hidden,
        }
    }

    /// The same claims with at least [`REFRESHED_VALIDITY_S`] left; never shorter than before. `nbf` stays: it says when
    /// access was first given, which a later ban is compared with.
    pub fn refreshed(&self, now: u64) -> Claims {
        let least = now.saturating_add(REFRESHED_VALIDITY_S);
        Claims { exp: Some(self.exp.map_or(least, |exp| exp.max(least))), ..self.clone() }
    }
}

fn source(name: &str) -> Option<TrackSource> {
    match name.to_ascii_lowercase().as_str() {
        "camera" => Some(TrackSource::Camera),
        "microphone" => Some(TrackSource::Microphone),
        "screen_share" => Some(TrackSource::ScreenShare),
        "screen_share_audio" => Some(TrackSource::ScreenShareAudio),
        _ => None,
    }
}

/// Why a token is refused. The texts are LiveKit's, which client SDKs show and partly look for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("invalid authorization token")]
    Malformed,
    #[error("invalid API key")]
    UnknownKey,
    #[error("invalid authorization token: {0}")]
    Invalid(InvalidReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReason {
    #[error("signature does not match")]
    Signature,
    #[error("signed with another algorithm than HS256")]
    Algorithm,
    #[error("a claim has the wrong type")]
    Claims,
    #[error("exp is missing")]
    NoExpiry,
    #[error("token is expired")]
    Expired,
    #[error("token is not valid yet")]
    NotYetValid,
}

impl TokenError {
    /// The label in metrics and in the verdict line of a join.
    pub fn as_str(&self) -> &'static str {
        match self {
            TokenError::Malformed => "token-malformed",
            TokenError::UnknownKey => "token-unknown-key",
            TokenError::Invalid(InvalidReason::Expired) => "token-expired",
            TokenError::Invalid(InvalidReason::NotYetValid) => "token-not-yet-valid",
            TokenError::Invalid(_) => "token-invalid",
        }
    }
}

/// The API keys with their secrets. Cheap to clone; the secrets are wiped when the last clone goes.
#[derive(Clone)]
pub struct Keys {
    by_name: Arc<BTreeMap<String, KeyPair>>,
}

struct KeyPair {
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl Keys {
    /// `(API key, secret)` pairs. `None` when there is not one: nothing could be signed.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Keys> {
        let by_name: BTreeMap<String, KeyPair> = secrets
            .into_iter()
            .map(|(name, secret)| {
                let pair = KeyPair {
                    signing: EncodingKey::from_secret(secret.as_bytes()),
                    verifying: DecodingKey::from_secret(secret.as_bytes()),
                };
                (name.to_owned(), pair)
            })
            .collect();
        (!by_name.is_empty()).then(|| Keys { by_name: Arc::new(by_name) })
    }

    /// Signs with the key named by `iss`, or with the first one when `iss` is not one of ours, and puts the key's name there.
    pub fn sign(&self, claims: &Claims) -> String {
        let (name, pair) = self
            .by_name
            .get_key_value(&claims.iss)
            .or_else(|| self.by_name.first_key_value())
            .expect("there is at least one key");
        let payload = URL_SAFE_NO_PAD.encode(plain_json(&Claims { iss: name.clone(), ..claims.clone() }));
        debug_assert!(!payload.contains(['-', '_']));
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let message = format!("{header}.{payload}");
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &pair.signing, Algorithm::HS256)
            .expect("an HMAC key signs any message");
        format!("{message}.{signature}")
    }

    /// A secret of its own for `purpose`, the same wherever the keys are: 32 bytes in base64. Not a signature of any token,
    /// as no token's first part holds a space.
    pub fn derive(&self, purpose: &str) -> String {
        let (_, pair) = self.by_name.first_key_value().expect("there is at least one key");
        let message = format!("parlour {purpose}");
        jsonwebtoken::crypto::sign(message.as_bytes(), &pair.signing, Algorithm::HS256)
            .expect("an HMAC key signs any message")
    }

    /// Checks signature and validity at `now` (unix seconds).
    pub fn verify(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        let unchecked = jsonwebtoken::dangerous::insecure_decode::<Issuer>(token).map_err(|_| TokenError::Malformed)?;
        if unchecked.header.alg != Algorithm::HS256 {
            return Err(TokenError::Invalid(InvalidReason::Algorithm));
        }
        let pair = self.by_name.get(&unchecked.claims.iss).ok_or(TokenError::UnknownKey)?;

        // The crate's own checks of time would look at the clock of the process; ours follow below.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &pair.verifying, &validation)
            .map_err(|e| {
                TokenError::Invalid(match e.kind() {
                    jsonwebtoken::errors::ErrorKind::InvalidSignature => InvalidReason::Signature,
                    _ => InvalidReason::Claims,
                })
            })?
            .claims;

        let exp = claims.exp.ok_or(TokenError::Invalid(InvalidReason::NoExpiry))?;
        if exp.saturating_add(LEEWAY_S) < now {
            return Err(TokenError::Invalid(InvalidReason::Expired));
        }
        if claims.nbf.is_some_and(|nbf| nbf > now.saturating_add(LEEWAY_S)) {
            return Err(TokenError::Invalid(InvalidReason::NotYetValid));
        }
        Ok(claims)
    }
}

#[derive(Deserialize)]
struct Issuer {
    #[serde(default)]
    iss: String,
}

/// JSON whose base64url form has neither `-` nor `_`: Element Call decodes the payload of its token with `atob`, which
/// knows only the standard alphabet, and reads the result as Latin-1.
///
/// Those two letters stand for the six bits 62 and 63. In ASCII text they come up only as the last six bits of a third
/// byte, for `>`, `?`, `~` and DEL. Outside of strings JSON has none of these, and inside it may escape them.
fn plain_json(claims: &Claims) -> String {
    let json = serde_json::to_string(claims).expect("claims are plain data with string keys");
    let mut plain = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && !matches!(c, '>' | '?' | '~' | '\x7f') {
            plain.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                plain.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    plain
}

fn is_false(value: &bool) -> bool {
    !value
}

/// SDKs of some languages write `null` for what is not set.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// RFC 7519 §2 NumericDate: seconds, possibly with a fraction.
fn numeric_date<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum NumericDate {
        Whole(u64),
        Fraction(f64),
    }
    match Option::<NumericDate>::deserialize(d)? {
        None => Ok(None),
        Some(NumericDate::Whole(seconds)) => Ok(Some(seconds)),
        Some(NumericDate::Fraction(seconds)) if seconds >= 0.0 && seconds < u64::MAX as f64 => Ok(Some(seconds as u64)),
        Some(NumericDate::Fraction(_)) => Err(serde::de::Error::custom("not a point in time")),
    }
}

#[cfg(test)]
mod tests;
