//! What a client says about itself when it connects: the query of `/rtc` (v0), or the protobuf `JoinRequest` that `/rtc/v1`
//! carries in its query, gzipped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use livekit_protocol as proto;

use crate::livekit::{Claims, Dialect, JoinRequest, JoinRequestError as WireError, decode_base64, decode_join_request};

/// Metadata and attributes that a client brings along, in bytes; they are sent to everybody in the room. LiveKit's limit.
const LARGEST_METADATA: usize = 64_000;

/// For log lines.
const LONGEST_CLIENT_NAME: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("attributes must be the base64url of a JSON object of texts")]
    BadAttributes,
    #[error("metadata or attributes are too large")]
    MetadataTooLarge,
    /// The only one that is a matter of rights.
    #[error("permissions denied: the token does not allow to set metadata or attributes")]
    MetadataNotAllowed,
}

/// The parameters of a URL's query; the first of a name counts.
pub struct Query<'a>(BTreeMap<Cow<'a, str>, Cow<'a, str>>);

impl<'a> Query<'a> {
    pub fn parse(query: &'a str) -> Query<'a> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            parameters.entry(name).or_insert(value);
        }
        Query(parameters)
    }

    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |value| value)
    }

    fn flag(&self, name: &str, default: bool) -> bool {
        match self.get(name) {
            "" => default,
            value => value == "1" || value.eq_ignore_ascii_case("true"),
        }
    }

    fn number(&self, name: &str) -> i32 {
        self.get(name).parse().unwrap_or(0)
    }
}

/// The checked request of a client with a verified token. `only_v1` = it came to `/rtc/v1`.
pub fn join_request(query: &Query, claims: Claims, only_v1: bool) -> Result<JoinRequest, BadRequest> {
    match query.get("join_request") {
        "" if only_v1 => Err(WireError::Missing.into()),
        "" => from_query(query, claims),
        wrapped => from_protobuf(decode_join_request(wrapped)?, claims),
    }
}

fn from_query(query: &Query, claims: Claims) -> Result<JoinRequest, BadRequest> {
    let attributes = match query.get("attributes") {
        "" => BTreeMap::new(),
        encoded => {
            let json = decode_base64(encoded).ok_or(BadRequest::BadAttributes)?;
            serde_json::from_slice(&json).map_err(|_| BadRequest::BadAttributes)?
        }
    };
    let request = JoinRequest {
        protocol: query.number("protocol"),
        client_protocol: query.number("client_protocol"),
        client: client_name(query.get("sdk"), query.get("version")),
        auto_subscribe: query.flag("auto_subscribe", true),
        adaptive_stream: query.flag("adaptive_stream", false),
        reconnect: query.flag("reconnect", false).then(|| query.get("sid").to_owned()),
        ..from_claims(Dialect::V0, claims)
    };
    with_own_metadata(request, String::new(), attributes)
}

fn from_protobuf(join: proto::JoinRequest, claims: Claims) -> Result<JoinRequest, BadRequest> {
    let client = join.client_info.unwrap_or_default();
    let sdk = client.sdk().as_str_name().to_ascii_lowercase();
    let settings =
        join.connection_settings.unwrap_or(proto::ConnectionSettings { auto_subscribe: true, ..Default::default() });
    let request = JoinRequest {
        protocol: client.protocol,
        client_protocol: client.client_protocol,
        client: client_name(&sdk, &client.version),
        auto_subscribe: settings.auto_subscribe,
        adaptive_stream: settings.adaptive_stream,
        reconnect: join.reconnect.then_some(join.participant_sid),
        add_tracks: join.add_track_requests,
        publisher_offer: join.publisher_offer,
        sync_state: join.sync_state,
        ..from_claims(Dialect::V1, claims)
    };
    with_own_metadata(request, join.metadata, join.participant_attributes.into_iter().collect())
}

fn from_claims(dialect: Dialect, claims: Claims) -> JoinRequest {
    let grant = claims.video.clone().unwrap_or_default();
    JoinRequest {
        dialect,
        identity: claims.identity().to_owned(),
        room: grant.room,
        name: claims.name.clone(),
        metadata: claims.metadata.clone(),
        attributes: claims.attributes.clone(),
        permissions: claims.permissions(),
        may_create_room: grant.room_create,
        claims,
        protocol: 0,
        client_protocol: 0,
        client: String::new(),
        auto_subscribe: true,
        adaptive_stream: false,
        reconnect: None,
        add_tracks: Vec::new(),
        publisher_offer: None,
        sync_state: None,
    }
}

/// What the client sets about itself wins over the token, if the token allows it.
fn with_own_metadata(
    mut request: JoinRequest,
    metadata: String,
    attributes: BTreeMap<String, String>,
) -> Result<JoinRequest, BadRequest> {
    if metadata.is_empty() && attributes.is_empty() {
        return Ok(request);
    }
    if !request.permissions.can_update_metadata {
        return Err(BadRequest::MetadataNotAllowed);
    }
    let size: usize = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    if metadata.len() > LARGEST_METADATA || size > LARGEST_METADATA {
        return Err(BadRequest::MetadataTooLarge);
    }
    if !metadata.is_empty() {
        request.metadata = metadata;
    }
    request.attributes.extend(attributes);
    Ok(request)
}

/// `js 2.23.0`, with nothing in it that could confuse a log.
fn client_name(sdk: &str, version: &str) -> String {
    let name = format!("{sdk} {version}");
    let harmless = |c: &char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '-' | '_');
    name.chars().filter(harmless).take(LONGEST_CLIENT_NAME).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    use flate2::Compression as Level;
    use flate2::write::GzEncoder;
    use prost::Message;
    use std::io::Write;

    fn claims(may_update: bool) -> Claims {
        let mut claims = Claims::for_room("me", "room", true, 0, 60);
        claims.video.as_mut().unwrap().can_update_own_metadata = Some(may_update);
        claims.attributes.insert("from".into(), "token".into());
        claims
    }

    fn join() -> proto::JoinRequest {
        proto::JoinRequest {
            client_info: Some(proto::ClientInfo {
                sdk: 1,
                version: "2.23.0".into(),
                protocol: 17,
                client_protocol: 2,
                ..Default::default()
            }),
            connection_settings: Some(proto::ConnectionSettings {
                auto_subscribe: true,
                adaptive_stream: true,
                ..Default::default()
            }),
            publisher_offer: Some(proto::SessionDescription {
                r#type: "offer".into(),
                sdp: "v=0 ~~~???>>>".repeat(50),
                id: 7,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn wrapped(compression: i32, join_request: Vec<u8>) -> Vec<u8> {
        proto::WrappedJoinRequest { compression, join_request }.encode_to_vec()
    }

    fn parse(query: &str) -> Result<JoinRequest, BadRequest> {
        join_request(&Query::parse(query), claims(true), true)
    }

    #[test]
    fn every_base64_and_both_compressions_are_read() {
        for bytes in [wrapped(0, join().encode_to_vec()), wrapped(1, gzip(&join().encode_to_vec()))] {
            let plus_as_is = STANDARD.encode(&bytes);
            let escaped = plus_as_is.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
            for text in [
                URL_SAFE.encode(&bytes),
                URL_SAFE_NO_PAD.encode(&bytes),
                plus_as_is,
                escaped,
                STANDARD_NO_PAD.encode(&bytes),
            ] {
                let request = parse(&format!("access_token=x&join_request={text}")).unwrap();
                assert_eq!(request.dialect, Dialect::V1);
                assert_eq!((request.client.as_str(), request.protocol, request.client_protocol), ("js 2.23.0", 17, 2));
                assert_eq!(request.publisher_offer, join().publisher_offer);
                assert!(request.auto_subscribe && request.adaptive_stream && request.reconnect.is_none());
                assert_eq!((request.identity.as_str(), request.room.as_str()), ("me", "room"));
            }
        }
    }

    #[test]
    fn what_the_wire_refuses_keeps_its_words() {
        assert_eq!(parse("").unwrap_err(), WireError::Missing.into());
        assert_eq!(parse("join_request=$$$").unwrap_err().to_string(), "cannot base64 decode wrapped join request");
    }

    #[test]
    fn the_query_of_v0_is_read() {
        let v0 = |query: &str| join_request(&Query::parse(query), claims(true), false).unwrap();
        let request = v0(
            "protocol=13&client_protocol=1&sdk=android&version=2.1\n&adaptive_stream=1&auto_subscribe=0&reconnect=true&sid=PA_x&attributes=eyJhIjoiYiJ9",
        );
        assert_eq!(request.dialect, Dialect::V0);
        assert_eq!((request.client.as_str(), request.protocol, request.client_protocol), ("android 2.1", 13, 1));
        assert!(!request.auto_subscribe && request.adaptive_stream);
        assert_eq!(request.reconnect.as_deref(), Some("PA_x"));
        assert_eq!(request.attributes, BTreeMap::from([("a".into(), "b".into()), ("from".into(), "token".into())]));

        let plain = v0("protocol=x");
        assert!(plain.auto_subscribe && !plain.adaptive_stream && plain.reconnect.is_none() && plain.protocol == 0);

        let v1_on_old_path = v0(&format!("join_request={}", URL_SAFE.encode(wrapped(0, join().encode_to_vec()))));
        assert_eq!(v1_on_old_path.dialect, Dialect::V1);
    }

    #[test]
    fn own_metadata_needs_the_right_and_has_a_limit() {
        let with = |metadata: &str, may: bool| {
            let join = proto::JoinRequest { metadata: metadata.into(), ..join() };
            let query = format!("join_request={}", URL_SAFE.encode(wrapped(1, gzip(&join.encode_to_vec()))));
            join_request(&Query::parse(&query), claims(may), true)
        };
        assert_eq!(with("hello", true).unwrap().metadata, "hello");
        assert_eq!(with("hello", false).unwrap_err(), BadRequest::MetadataNotAllowed);
        assert!(with("", false).is_ok());
        assert_eq!(with(&"x".repeat(LARGEST_METADATA + 1), true).unwrap_err(), BadRequest::MetadataTooLarge);
        let v0 = |query: &str, may| join_request(&Query::parse(query), claims(may), false).map(|_| ());
        assert_eq!(v0("attributes=eyJhIjoiYiJ9", false), Err(BadRequest::MetadataNotAllowed));
        assert_eq!(v0("attributes=W10", true), Err(BadRequest::BadAttributes));
    }
}
