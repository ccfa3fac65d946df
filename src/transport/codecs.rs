//! Payload types and header extensions of one connection.
//!
//! str0m fixes both when the connection is built, so they are read from the first offer, and completed by what
//! libwebrtc and Firefox are known to number for what that offer does not mention yet.

use str0m::RtcConfig;
use str0m::format::{Codec as RtcCodec, FormatParams};
use str0m::media::Frequency;
use str0m::rtp::Extension;

use super::sdp::{CodecLine, ExtMap, MediaSection, SectionKind, SessionDescription};
use crate::sfu::{Codec, MediaKind};

/// One codec as numbered on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payload {
    pub codec: Codec,
    pub pt: u8,
    pub rtx: Option<u8>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct CodecTable {
    payloads: Vec<Payload>,
    extensions: Vec<(u8, HeaderExtension)>,
}

/// Numbers of libwebrtc (Chromium, every native LiveKit SDK) and of Firefox.
const USUAL_PAYLOADS: [Payload; 4] = [
    Payload { codec: Codec::Opus, pt: 111, rtx: None },
    Payload { codec: Codec::Opus, pt: 109, rtx: None },
    Payload { codec: Codec::Vp8, pt: 96, rtx: Some(97) },
    Payload { codec: Codec::Vp8, pt: 120, rtx: Some(124) },
];

/// What our own offers use, and the usual numbers of libwebrtc.
const USUAL_EXTENSIONS: [(u8, HeaderExtension); 7] = [
    (1, HeaderExtension::AudioLevel),
    (2, HeaderExtension::AbsSendTime),
    (3, HeaderExtension::TransportCc),
    (4, HeaderExtension::Mid),
    (10, HeaderExtension::Rid),
    (11, HeaderExtension::RepairedRid),
    (13, HeaderExtension::VideoOrientation),
];

/// The H.264 flavour every browser can decode: constrained baseline 3.1, non-interleaved (RFC 6184).
const H264_FMTP: &str = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
const OPUS_FMTP: &str = "minptime=10;useinbandfec=1";

/// The header extensions we understand or pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderExtension {
    AudioLevel,
    AbsSendTime,
    TransportCc,
    Mid,
    Rid,
    RepairedRid,
    VideoOrientation,
    AbsCaptureTime,
}

impl HeaderExtension {
    const ALL: [HeaderExtension; 8] = [
        HeaderExtension::AudioLevel,
        HeaderExtension::AbsSendTime,
        HeaderExtension::TransportCc,
        HeaderExtension::Mid,
        HeaderExtension::Rid,
        HeaderExtension::RepairedRid,
        HeaderExtension::VideoOrientation,
        HeaderExtension::AbsCaptureTime,
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
        }
    }

    fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.uri() == uri)
    }

    fn fits(self, kind: MediaKind) -> bool {
        match self {
            HeaderExtension::AudioLevel => kind == MediaKind::Audio,
            HeaderExtension::Rid | HeaderExtension::RepairedRid | HeaderExtension::VideoOrientation => {
                kind == MediaKind::Video
            }
            _ => true,
        }
    }

    fn rtc(self) -> Extension {
        match self {
            HeaderExtension::AudioLevel => Extension::AudioLevel,
            HeaderExtension::AbsSendTime => Extension::AbsoluteSendTime,
            HeaderExtension::TransportCc => Extension::TransportSequenceNumber,
            HeaderExtension::Mid => Extension::RtpMid,
            HeaderExtension::Rid => Extension::RtpStreamId,
            HeaderExtension::RepairedRid => Extension::RepairedRtpStreamId,
            HeaderExtension::VideoOrientation => Extension::VideoOrientation,
            HeaderExtension::AbsCaptureTime => Extension::AbsoluteCaptureTime,
        }
    }
}

/// Hz of the RTP timestamp.
pub(super) fn clock_rate(codec: Codec) -> u32 {
    match codec {
        Codec::Opus => 48_000,
        Codec::Vp8 | Codec::H264 => 90_000,
    }
}

impl CodecTable {
    /// For a connection the client offers.
    pub fn from_offer(offer: &SessionDescription) -> Self {
        let mut table = CodecTable::default();
        table.learn(offer);
        table.complete();
        table
    }

    /// Adds what an offer numbers and we do not know yet.
    pub fn learn(&mut self, offer: &SessionDescription) {
        for section in &offer.media {
            for payload in offered_payloads(section) {
                self.add_payload(payload);
            }
            for ext in &section.extensions {
                if let Some(known) = HeaderExtension::from_uri(&ext.uri) {
                    self.add_extension(ext.id, known);
                }
            }
        }
    }

    /// For a connection that we offer.
    pub fn own() -> Self {
        let mut table = CodecTable::default();
        table.add_payload(Payload { codec: Codec::Opus, pt: 111, rtx: None });
        table.add_payload(Payload { codec: Codec::Vp8, pt: 96, rtx: Some(97) });
        table.add_payload(Payload { codec: Codec::H264, pt: 108, rtx: Some(109) });
        table.complete();
        table
    }

    fn complete(&mut self) {
        for payload in USUAL_PAYLOADS {
            self.add_payload(payload);
        }
        for (id, ext) in USUAL_EXTENSIONS {
            self.add_extension(id, ext);
        }
    }

    fn add_payload(&mut self, payload: Payload) {
        let taken = |pt: u8| self.payloads.iter().any(|p| p.pt == pt || p.rtx == Some(pt));
        if !taken(payload.pt) && !payload.rtx.is_some_and(taken) {
            self.payloads.push(payload);
        }
    }

    fn add_extension(&mut self, id: u8, extension: HeaderExtension) {
        // RFC 8285: 1..=14 fit the one-byte form that str0m's map holds.
        let free = !self.extensions.iter().any(|(i, e)| *i == id || *e == extension);
        if free && (1..=14).contains(&id) {
            self.extensions.push((id, extension));
        }
    }

    pub fn codec(&self, pt: u8) -> Option<Codec> {
        self.payloads.iter().find(|p| p.pt == pt).map(|p| p.codec)
    }

    /// How to send `codec` in a section whose offer or answer holds `lines`.
    pub fn payload_in(&self, codec: Codec, lines: &[CodecLine]) -> Option<Payload> {
        let listed = |pt: u8| lines.iter().any(|line| line.pt == pt);
        let payload = self.payloads.iter().copied().find(|p| p.codec == codec && listed(p.pt))?;
        Some(Payload { rtx: payload.rtx.filter(|rtx| listed(*rtx)), ..payload })
    }

    /// What of a section's offer we know under the same number. One section may offer a codec without the retransmission
    /// that another has: native clients do when they send a single layer.
    fn known(&self, offered: Payload) -> Option<Payload> {
        let own = self.payloads.iter().find(|p| p.pt == offered.pt && p.codec == offered.codec)?;
        Some(Payload { rtx: offered.rtx.filter(|rtx| own.rtx == Some(*rtx)), ..offered })
    }

    /// The lines of an answer to `offered`: what both know, `preferred` first, with the offer's numbers.
    pub fn answer(
        &self,
        offered: &MediaSection,
        preferred: Option<Codec>,
        opus: OpusOptions,
    ) -> (Vec<CodecLine>, Vec<ExtMap>) {
        let mut payloads: Vec<Payload> = offered_payloads(offered).filter_map(|p| self.known(p)).collect();
        payloads.sort_by_key(|p| Some(p.codec) != preferred);
        let transport_cc = |pt: u8| {
            offered.codecs.iter().any(|line| line.pt == pt && line.feedback.iter().any(|f| f == "transport-cc"))
        };
        let lines = payloads.iter().flat_map(|p| lines_of(*p, opus, transport_cc(p.pt))).collect();
        let extensions = offered
            .extensions
            .iter()
            .filter(|ext| {
                HeaderExtension::from_uri(&ext.uri).is_some_and(|known| self.extensions.contains(&(ext.id, known)))
            })
            .cloned()
            .collect();
        (lines, extensions)
    }

    /// The lines of our own offer for a section of `kind`.
    pub fn offer(&self, kind: MediaKind) -> (Vec<CodecLine>, Vec<ExtMap>) {
        let mut seen = Vec::new();
        let mut lines = Vec::new();
        for payload in self.payloads.iter().filter(|p| p.codec.kind() == kind) {
            if !seen.contains(&payload.codec) {
                seen.push(payload.codec);
                lines.extend(lines_of(*payload, OpusOptions::default(), true));
            }
        }
        let extensions = self
            .extensions
            .iter()
            // A stream of ours is a single one: no rid.
            .filter(|(_, e)| e.fits(kind) && !matches!(e, HeaderExtension::Rid | HeaderExtension::RepairedRid))
            .map(|(id, e)| ExtMap { id: *id, uri: e.uri().into() })
            .collect();
        (lines, extensions)
    }

    /// An empty table leaves the numbers to str0m.
    pub fn configure(&self, mut config: RtcConfig) -> RtcConfig {
        if self.payloads.is_empty() {
            return config.clear_codecs().enable_opus(true, false).enable_vp8(true).enable_h264(true);
        }
        config = config.clear_codecs().clear_extension_map();
        for payload in &self.payloads {
            let (codec, rate, channels) = match payload.codec {
                Codec::Opus => (RtcCodec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2)),
                Codec::Vp8 => (RtcCodec::Vp8, Frequency::NINETY_KHZ, None),
                Codec::H264 => (RtcCodec::H264, Frequency::NINETY_KHZ, None),
            };
            let format = FormatParams::default();
            config.codec_config().add_config(
                payload.pt.into(),
                payload.rtx.map(Into::into),
                codec,
                rate,
                channels,
                format,
            );
        }
        for (id, extension) in &self.extensions {
            config = config.set_extension(*id, extension.rtc());
        }
        config
    }
}

/// What the publisher of an Opus track asked for (RFC 7587).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusOptions {
    pub dtx: bool,
    pub stereo: bool,
}

impl Default for OpusOptions {
    fn default() -> Self {
        OpusOptions { dtx: true, stereo: false }
    }
}

fn offered_payloads(section: &MediaSection) -> impl Iterator<Item = Payload> + '_ {
    section.codecs.iter().filter_map(|line| {
        let codec = match (section.kind, line.name.to_ascii_lowercase().as_str()) {
            (SectionKind::Audio, "opus") if line.clock_rate == 48_000 => Codec::Opus,
            (SectionKind::Video, "vp8") => Codec::Vp8,
            (SectionKind::Video, "h264") if is_our_h264(&line.fmtp) => Codec::H264,
            _ => return None,
        };
        let apt = format!("apt={}", line.pt);
        let rtx = section
            .codecs
            .iter()
            .find(|l| l.name.eq_ignore_ascii_case("rtx") && l.fmtp.split(';').any(|part| part.trim() == apt))
            .map(|l| l.pt);
        Some(Payload { codec, pt: line.pt, rtx })
    })
}

fn is_our_h264(fmtp: &str) -> bool {
    let has = |wanted: &str| fmtp.split(';').any(|part| part.trim().eq_ignore_ascii_case(wanted));
    has("packetization-mode=1") && (has("profile-level-id=42e01f") || has("profile-level-id=42001f"))
}

fn lines_of(payload: Payload, opus: OpusOptions, transport_cc: bool) -> Vec<CodecLine> {
    let (name, channels, fmtp) = match payload.codec {
        Codec::Opus => {
            let dtx = if opus.dtx { ";usedtx=1" } else { "" };
            // The bitrate libwebrtc needs to hear before it sends real stereo.
            let stereo = if opus.stereo { ";stereo=1;maxaveragebitrate=510000" } else { "" };
            ("opus", Some(2), format!("{OPUS_FMTP}{dtx}{stereo}"))
        }
        Codec::Vp8 => ("VP8", None, String::new()),
        Codec::H264 => ("H264", None, H264_FMTP.into()),
    };
    let mut feedback: Vec<String> = Vec::new();
    if transport_cc {
        feedback.push("transport-cc".into());
    }
    if payload.codec.kind() == MediaKind::Video {
        feedback.extend(["ccm fir", "nack", "nack pli"].map(String::from));
    }
    let clock_rate = clock_rate(payload.codec);
    let mut lines = vec![CodecLine { pt: payload.pt, name: name.into(), clock_rate, channels, fmtp, feedback }];
    if let Some(rtx) = payload.rtx {
        lines.push(CodecLine {
            pt: rtx,
            name: "rtx".into(),
            clock_rate,
            channels: None,
            fmtp: format!("apt={}", payload.pt),
            feedback: Vec::new(),
        });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pt: u8, name: &str, fmtp: &str) -> CodecLine {
        CodecLine { pt, name: name.into(), clock_rate: 90_000, channels: None, fmtp: fmtp.into(), feedback: Vec::new() }
    }

    fn video(mid: &str, codecs: Vec<CodecLine>) -> MediaSection {
        MediaSection { codecs, ..MediaSection::new(SectionKind::Video, mid) }
    }

    #[test]
    fn a_section_without_retransmission_is_answered_without_it() {
        let with = video("0", vec![line(96, "VP8", ""), line(97, "rtx", "apt=96")]);
        let without = video("1", vec![line(96, "VP8", "")]);
        let offer = SessionDescription { media: vec![with.clone(), without.clone()], ..SessionDescription::default() };
        let table = CodecTable::from_offer(&offer);
        let answered = |section| -> Vec<u8> {
            table.answer(section, None, OpusOptions::default()).0.iter().map(|line| line.pt).collect()
        };
        assert_eq!(answered(&with), [96, 97]);
        assert_eq!(answered(&without), [96]);
        assert_eq!(table.payload_in(Codec::Vp8, &without.codecs).unwrap().rtx, None);
    }

    #[test]
    fn numbers_of_a_later_section_are_accepted_when_they_are_the_usual_ones() {
        let mut audio = MediaSection::new(SectionKind::Audio, "0");
        audio.codecs = vec![CodecLine { clock_rate: 48_000, channels: Some(2), ..line(111, "opus", "") }];
        let table = CodecTable::from_offer(&SessionDescription { media: vec![audio], ..SessionDescription::default() });
        assert_eq!(table.codec(96), Some(Codec::Vp8));
        assert_eq!(table.codec(97), None);
    }

    #[test]
    fn two_codecs_never_share_a_number() {
        let offer = SessionDescription {
            media: vec![video("0", vec![line(111, "VP8", ""), line(109, "rtx", "apt=111")])],
            ..SessionDescription::default()
        };
        let table = CodecTable::from_offer(&offer);
        assert_eq!(table.codec(111), Some(Codec::Vp8));
        assert_eq!(table.codec(109), None);
    }
}
