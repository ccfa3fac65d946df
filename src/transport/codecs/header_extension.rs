//! The header extensions we understand or pass on, and how str0m knows them.

use str0m::rtp::Extension;

use super::super::extensions::DependencyDescriptorSerializer;
use crate::sfu::{Codec, MediaKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderExtension {
    AudioLevel,
    AbsSendTime,
    TransportCc,
    Mid,
    Rid,
    RepairedRid,
    VideoOrientation,
    AbsCaptureTime,
    PlayoutDelay,
    DependencyDescriptor,
}

/// Numbers of libwebrtc, for what a first offer does not mention.
pub const USUAL: [(u8, HeaderExtension); 9] = [
    (1, HeaderExtension::AudioLevel),
    (2, HeaderExtension::AbsSendTime),
    (3, HeaderExtension::TransportCc),
    (4, HeaderExtension::Mid),
    (5, HeaderExtension::PlayoutDelay),
    (10, HeaderExtension::Rid),
    (11, HeaderExtension::RepairedRid),
    (12, HeaderExtension::DependencyDescriptor),
    (13, HeaderExtension::VideoOrientation),
];

/// In our own offers, where libwebrtc has no number of its own.
pub const OWN: (u8, HeaderExtension) = (9, HeaderExtension::AbsCaptureTime);

impl HeaderExtension {
    const ALL: [HeaderExtension; 10] = [
        HeaderExtension::AudioLevel,
        HeaderExtension::AbsSendTime,
        HeaderExtension::TransportCc,
        HeaderExtension::Mid,
        HeaderExtension::Rid,
        HeaderExtension::RepairedRid,
        HeaderExtension::VideoOrientation,
        HeaderExtension::AbsCaptureTime,
        HeaderExtension::PlayoutDelay,
        HeaderExtension::DependencyDescriptor,
    ];

    pub fn uri(self) -> &'static str {
        match self {
            HeaderExtension::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            HeaderExtension::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            HeaderExtension::TransportCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            HeaderExtension::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            HeaderExtension::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            HeaderExtension::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            HeaderExtension::VideoOrientation => "urn:3gpp:video-orientation",
            HeaderExtension::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            HeaderExtension::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            HeaderExtension::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
        }
    }

    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.uri() == uri)
    }

    pub fn fits(self, kind: MediaKind) -> bool {
        match self {
            HeaderExtension::AudioLevel => kind == MediaKind::Audio,
            HeaderExtension::Rid
            | HeaderExtension::RepairedRid
            | HeaderExtension::VideoOrientation
            | HeaderExtension::PlayoutDelay
            | HeaderExtension::DependencyDescriptor => kind == MediaKind::Video,
            _ => true,
        }
    }

    /// Whether a section for this codec should have it. libwebrtc would describe frames of VP8 and H.264, too, in bytes
    /// that tell nothing which their own descriptors do not.
    pub fn serves(self, codec: Option<Codec>) -> bool {
        self != HeaderExtension::DependencyDescriptor || codec.is_none_or(Codec::is_scalable)
    }

    pub fn rtc(self) -> Extension {
        match self {
            HeaderExtension::AudioLevel => Extension::AudioLevel,
            HeaderExtension::AbsSendTime => Extension::AbsoluteSendTime,
            HeaderExtension::TransportCc => Extension::TransportSequenceNumber,
            HeaderExtension::Mid => Extension::RtpMid,
            HeaderExtension::Rid => Extension::RtpStreamId,
            HeaderExtension::RepairedRid => Extension::RepairedRtpStreamId,
            HeaderExtension::VideoOrientation => Extension::VideoOrientation,
            HeaderExtension::AbsCaptureTime => Extension::AbsoluteCaptureTime,
            HeaderExtension::PlayoutDelay => Extension::PlayoutDelay,
            HeaderExtension::DependencyDescriptor => {
                Extension::with_serializer(self.uri(), DependencyDescriptorSerializer)
            }
        }
    }
}
