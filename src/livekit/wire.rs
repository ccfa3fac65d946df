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

/// One signalling message, bytes: the largest SDP we read (256 kB) with room for nothing else of size.
pub const MESSAGE_MAX: usize = 256 * 1024;

/// A join request once inflated, bytes: LiveKit's own limit. A real one with its offer is 5 to 40 kB.
pub const JOIN_REQUEST_MAX: usize = 1024 * 1024;

/// Clients write URL-safe base64 with padding (JS, Rust) or without; some keep the standard alphabet, see [`decode_join_request`].
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the signalling message is larger than {MESSAGE_MAX} bytes")]
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

/// A binary frame. `message` is `None` for a request newer than we are.
pub fn decode_request(frame: &[u8]) -> Result<proto::SignalRequest, DecodeError> {
    if frame.len() > MESSAGE_MAX {
        return Err(DecodeError::TooLarge);
    }
    proto::SignalRequest::decode(frame).map_err(|_| DecodeError::Malformed)
}

/// A text frame: the same message in proto3 JSON.
pub fn decode_request_text(frame: &str) -> Result<proto::SignalRequest, DecodeError> {
    if frame.len() > MESSAGE_MAX {
        return Err(DecodeError::TooLarge);
    }
    serde_json::from_str(frame).map_err(|_| DecodeError::Malformed)
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
    // A query parser has turned an unescaped `+` of the standard alphabet into a space.
    let url_safe: Vec<u8> = parameter
        .bytes()
        .map(|byte| match byte {
            b'+' | b' ' => b'-',
            b'/' => b'_',
            other => other,
        })
        .collect();
    let wrapped = BASE64.decode(url_safe).map_err(|_| JoinRequestError::Base64)?;
    let wrapped = proto::WrappedJoinRequest::decode(&wrapped[..]).map_err(|_| JoinRequestError::Wrapper)?;
    let inner = match wrapped.compression() {
        proto::wrapped_join_request::Compression::None => wrapped.join_request,
        proto::wrapped_join_request::Compression::Gzip => inflate(&wrapped.join_request)?,
    };
    if inner.len() > JOIN_REQUEST_MAX {
        return Err(JoinRequestError::TooLarge);
    }
    proto::JoinRequest::decode(&inner[..]).map_err(|_| JoinRequestError::Inner)
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
