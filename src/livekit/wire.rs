//! Signalling messages as they are on the wire: protobuf in binary frames, proto3 JSON in text frames, and the
//! `join_request` query parameter. Called by `http`; nothing here knows a session.
//!
//! Every size limit on signalling input is in this file, so bytes beyond them never reach a decoder.

use std::io::Read;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::GzDecoder;
use livekit_protocol as proto;
use prost::Message;

/// One signalling message, bytes. LiveKit's limit; a `sync_state` of a large meeting carries two descriptions.
pub const MESSAGE_MAX: usize = 2 * 1024 * 1024;

/// One without a description, bytes; the largest of these are long lists of tracks.
const PLAIN_MESSAGE_MAX: usize = 256 * 1024;

/// A join request once inflated, bytes: LiveKit's own limit. A real one with its offer is 5 to 40 kB.
pub const JOIN_REQUEST_MAX: usize = 1024 * 1024;

/// Clients write URL-safe base64 with padding (JS, Rust) or without; some keep the standard alphabet, see [`decode_base64`].
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the signalling message is too large")]
    TooLarge,
    #[error("the signalling message is not a SignalRequest")]
    Malformed,
}

/// The texts are part of the protocol: they are the body of the 400 answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinRequestError {
    #[error("join_request is required")]
    Missing,
    #[error("cannot base64 decode wrapped join request")]
    Base64,
    #[error("cannot unmarshal wrapped join request")]
    Wrapper,
    #[error("cannot unmarshal join request")]
    Inner,
    #[error("join request too large")]
    TooLarge,
}

impl DecodeError {
    /// The word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            DecodeError::TooLarge => "too-large",
            DecodeError::Malformed => "malformed",
        }
    }
}

/// A binary frame. `message` is `None` for a request newer than we are.
pub fn decode_request(frame: &[u8]) -> Result<proto::SignalRequest, DecodeError> {
    if frame.len() > MESSAGE_MAX {
        return Err(DecodeError::TooLarge);
    }
    let request = proto::SignalRequest::decode(frame).map_err(|_| DecodeError::Malformed)?;
    sized(request, frame.len())
}

/// A text frame: the same message in proto3 JSON.
pub fn decode_request_text(frame: &str) -> Result<proto::SignalRequest, DecodeError> {
    if frame.len() > MESSAGE_MAX {
        return Err(DecodeError::TooLarge);
    }
    let request = serde_json::from_str(frame).map_err(|_| DecodeError::Malformed)?;
    sized(request, frame.len())
}

fn sized(request: proto::SignalRequest, size: usize) -> Result<proto::SignalRequest, DecodeError> {
    use proto::signal_request::Message;
    let carries_sdp = matches!(request.message, Some(Message::Offer(_) | Message::Answer(_) | Message::SyncState(_)));
    if carries_sdp || size <= PLAIN_MESSAGE_MAX { Ok(request) } else { Err(DecodeError::TooLarge) }
}

pub fn encode_response(response: &proto::SignalResponse) -> Vec<u8> {
    response.encode_to_vec()
}

/// For a client that sent text.
pub fn encode_response_text(response: &proto::SignalResponse) -> serde_json::Result<String> {
    serde_json::to_string(response)
}

/// The `join_request` query parameter: base64 of a `WrappedJoinRequest`, its inside perhaps gzipped.
pub fn decode_join_request(parameter: &str) -> Result<proto::JoinRequest, JoinRequestError> {
    if parameter.is_empty() {
        return Err(JoinRequestError::Missing);
    }
    // Base64 is a third longer than what it holds; the wrapper itself is a few bytes.
    if parameter.len() > JOIN_REQUEST_MAX / 3 * 4 + 64 {
        return Err(JoinRequestError::TooLarge);
    }
    let wrapped = decode_base64(parameter).ok_or(JoinRequestError::Base64)?;
    let wrapped = proto::WrappedJoinRequest::decode(&wrapped[..]).map_err(|_| JoinRequestError::Wrapper)?;
    let inner = match proto::wrapped_join_request::Compression::try_from(wrapped.compression) {
        Ok(proto::wrapped_join_request::Compression::None) => wrapped.join_request,
        Ok(proto::wrapped_join_request::Compression::Gzip) => inflate(&wrapped.join_request)?,
        Err(_) => return Err(JoinRequestError::Wrapper),
    };
    if inner.len() > JOIN_REQUEST_MAX {
        return Err(JoinRequestError::TooLarge);
    }
    proto::JoinRequest::decode(&inner[..]).map_err(|_| JoinRequestError::Inner)
}

/// Both alphabets, with or without padding. A query parser has turned an unescaped `+` of the standard one into a space.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let url_safe = text.bytes().map(|byte| match byte {
        b'+' | b' ' => b'-',
        b'/' => b'_',
        other => other,
    });
    BASE64.decode(url_safe.collect::<Vec<u8>>()).ok()
}

/// Stops one byte after the limit, so a bomb costs no more than the limit.
fn inflate(gzip: &[u8]) -> Result<Vec<u8>, JoinRequestError> {
    let mut inflated = Vec::new();
    GzDecoder::new(gzip)
        .take(JOIN_REQUEST_MAX as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(|_| JoinRequestError::Wrapper)?;
    Ok(inflated)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use proto::{signal_request, signal_response};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    fn wrapped(compression: i32, join_request: Vec<u8>) -> Vec<u8> {
        proto::WrappedJoinRequest { compression, join_request }.encode_to_vec()
    }

    fn join_request() -> proto::JoinRequest {
        proto::JoinRequest {
            // Gives both of the characters in which the alphabets differ.
            metadata: ">>>>>>??????".to_owned(),
            publisher_offer: Some(proto::SessionDescription {
                r#type: "offer".to_owned(),
                sdp: "v=0\r\n".repeat(100),
                id: 1,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_join_request_in_every_spelling() {
        let inner = join_request().encode_to_vec();
        let plain = wrapped(0, inner.clone());
        let zipped = wrapped(1, gzip(&inner));
        for bytes in [plain, zipped] {
            for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
                let text = engine.encode(&bytes);
                assert_eq!(decode_join_request(&text), Ok(join_request()));
                assert_eq!(decode_join_request(&text.replace('+', " ")), Ok(join_request()));
            }
        }
    }

    #[test]
    fn the_sample_has_both_of_the_disputed_characters() {
        let text = STANDARD.encode(wrapped(0, join_request().encode_to_vec()));
        assert!(text.contains('+') && text.contains('/'), "{text}");
    }

    #[test]
    fn join_requests_that_cannot_be_read() {
        // A compression newer than we are.
        let newer = URL_SAFE.encode(wrapped(9, join_request().encode_to_vec()));
        assert_eq!(decode_join_request(&newer), Err(JoinRequestError::Wrapper));
        let encode = |bytes: &[u8]| URL_SAFE.encode(bytes);
        let bomb = gzip(&vec![0; 64 * 1024 * 1024]);
        assert!(bomb.len() < 100_000);
        let cut = gzip(&join_request().encode_to_vec());
        let exact = proto::JoinRequest { metadata: "x".repeat(JOIN_REQUEST_MAX - 4), ..Default::default() };
        assert_eq!(exact.encoded_len(), JOIN_REQUEST_MAX);
        let over = proto::JoinRequest { metadata: "x".repeat(JOIN_REQUEST_MAX - 3), ..Default::default() };
        let cases = [
            (String::new(), Err("join_request is required")),
            ("%%%%".to_owned(), Err("cannot base64 decode wrapped join request")),
            ("A".to_owned(), Err("cannot base64 decode wrapped join request")),
            ("=".to_owned(), Err("cannot base64 decode wrapped join request")),
            ("é".to_owned(), Err("cannot base64 decode wrapped join request")),
            (encode(&[0xff; 9]), Err("cannot unmarshal wrapped join request")),
            (encode(&wrapped(0, vec![0xff; 9])), Err("cannot unmarshal join request")),
            (encode(&wrapped(1, vec![1, 2, 3])), Err("cannot unmarshal wrapped join request")),
            (encode(&wrapped(1, cut[..cut.len() / 2].to_vec())), Err("cannot unmarshal wrapped join request")),
            (encode(&wrapped(1, bomb)), Err("join request too large")),
            (encode(&wrapped(1, gzip(&over.encode_to_vec()))), Err("join request too large")),
            (encode(&wrapped(0, over.encode_to_vec())), Err("join request too large")),
            ("A".repeat(2_000_000), Err("join request too large")),
            (encode(&wrapped(1, gzip(&exact.encode_to_vec()))), Ok(())),
            (encode(&wrapped(0, exact.encode_to_vec())), Ok(())),
        ];
        for (parameter, expected) in cases {
            let outcome = decode_join_request(&parameter).map(|_| ()).map_err(|error| error.to_string());
            assert_eq!(outcome, expected.map_err(str::to_owned), "{}", &parameter[..parameter.len().min(40)]);
        }
    }

    #[test]
    fn frames_have_a_limit() {
        assert_eq!(decode_request(&vec![0; MESSAGE_MAX + 1]), Err(DecodeError::TooLarge));
        assert_eq!(decode_request_text(&" ".repeat(MESSAGE_MAX + 1)), Err(DecodeError::TooLarge));
        assert_eq!(decode_request(&[0xff]), Err(DecodeError::Malformed));
        for text in ["", "{", "[]", "7", r#"{"ping":"x"}"#, r#"{"ping":"1","leave":{}}"#, &"[".repeat(100_000)] {
            assert_eq!(decode_request_text(text), Err(DecodeError::Malformed), "{text:.20}");
        }
    }

    #[test]
    fn a_request_newer_than_we_are_is_empty() {
        assert_eq!(decode_request(&[0xfa, 0x07, 0x00]), Ok(proto::SignalRequest { message: None }));
        assert_eq!(decode_request_text(r#"{"somethingNew":{"a":[1]}}"#), Ok(proto::SignalRequest { message: None }));
        assert_eq!(decode_request(&[]), Ok(proto::SignalRequest { message: None }));
    }

    #[test]
    fn text_frames_take_both_spellings_of_a_name() {
        let expected = Ok(proto::SignalRequest {
            message: Some(signal_request::Message::PingReq(proto::Ping { timestamp: 5, rtt: 0 })),
        });
        assert_eq!(decode_request_text(r#"{"pingReq":{"timestamp":"5"}}"#), expected);
        assert_eq!(decode_request_text(r#"{"ping_req":{"timestamp":5,"new":true}}"#), expected);
    }

    #[test]
    fn responses_survive_both_encodings() {
        let response = proto::SignalResponse {
            message: Some(signal_response::Message::Answer(proto::SessionDescription {
                r#type: "answer".to_owned(),
                id: 3,
                mid_to_track_id: [("0".to_owned(), "TR_1".to_owned())].into(),
                ..Default::default()
            })),
        };
        assert_eq!(proto::SignalResponse::decode(&encode_response(&response)[..]).as_ref(), Ok(&response));
        let text = encode_response_text(&response).expect("plain data");
        assert!(text.contains(r#""midToTrackId":{"0":"TR_1"}"#), "{text}");
        let back: proto::SignalResponse = serde_json::from_str(&text).expect("our own");
        assert_eq!(back, response);
    }

    proptest! {
        #[test]
        fn no_text_is_a_danger(text in "\\PC*") {
            let _ = decode_join_request(&text);
            let _ = decode_request_text(&text);
        }

        #[test]
        fn no_bytes_are_a_danger(bytes in prop::collection::vec(any::<u8>(), 0..200), compression in 0..2i32) {
            let _ = decode_request(&bytes);
            let _ = decode_join_request(&URL_SAFE.encode(&bytes));
            let _ = decode_join_request(&URL_SAFE.encode(wrapped(compression, bytes)));
        }
    }
}
