//! Payload types and header extensions of one connection.
//!
//! str0m fixes both when the connection is built, so they are read from the first offer, and completed by what
//! libwebrtc and Firefox are known to number for what that offer does not mention yet.

mod header_extension;
mod payload;

use str0m::RtcConfig;
use str0m::format::{Codec as RtcCodec, FormatParams};
use str0m::media::Frequency;

use super::sdp::{CodecLine, ExtMap, MediaSection, SessionDescription};
use super::sections::SenderSpec;
use crate::sfu::{Codec, MediaKind};
pub(super) use header_extension::HeaderExtension;

pub(super) use payload::{Payload, clock_rate, prefer};

#[derive(Debug, Clone, Default)]
pub(super) struct CodecTable {
    payloads: Vec<Payload>,
    extensions: Vec<(u8, HeaderExtension)>,
}

/// Numbers of libwebrtc (Chromium, every native LiveKit SDK) and of Firefox.
const USUAL_PAYLOADS: [Payload; 12] = [
    Payload::new(Codec::Opus, 111, None),
    Payload::new(Codec::Opus, 109, None),
    Payload::new(Codec::Red, 63, None),
    Payload::new(Codec::Pcmu, 0, None),
    Payload::new(Codec::Pcma, 8, None),
    Payload::new(Codec::Vp8, 96, Some(97)),
    Payload::new(Codec::Vp8, 120, Some(124)),
    Payload::new(Codec::Vp9, 98, Some(99)),
    Payload::new(Codec::Vp9, 121, Some(125)),
    Payload::new(Codec::H264, 109, Some(114)),
    Payload::new(Codec::Av1, 45, Some(46)),
    Payload::new(Codec::Av1, 35, Some(36)),
];

/// What we offer: LiveKit's numbers. Of each kind the first is what every client can play.
const OWN_PAYLOADS: [Payload; 8] = [
    Payload::new(Codec::Opus, 111, None),
    Payload::new(Codec::Red, 63, None),
    Payload::new(Codec::Pcmu, 0, None),
    Payload::new(Codec::Pcma, 8, None),
    Payload::new(Codec::Vp8, 96, Some(97)),
    Payload::new(Codec::Vp9, 98, Some(99)),
    Payload::new(Codec::H264, 108, Some(109)),
    Payload::new(Codec::Av1, 35, Some(36)),
];

/// Where str0m has the transport-wide number until an offer says otherwise. When an offer gives an id to one extension, str0m
/// gives that one's former id to whatever had it; this is the former id of none, and none that [`CodecTable::learn`] takes.
const UNOFFERED_NUMBER: u8 = 16;

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
            for payload in payload::offered(section) {
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
        let mut table = CodecTable { payloads: OWN_PAYLOADS.into(), extensions: vec![header_extension::OWN] };
        table.complete();
        table
    }

    fn complete(&mut self) {
        for payload in USUAL_PAYLOADS {
            self.add_payload(payload);
        }
        for (id, ext) in header_extension::USUAL {
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

    /// Whether str0m takes a header extension under this id for a transport-wide number.
    pub fn is_number(&self, id: u8) -> bool {
        let offered = self.extensions.iter().find(|(_, extension)| *extension == HeaderExtension::TransportCc);
        offered.map_or(UNOFFERED_NUMBER, |(number, _)| *number) == id
    }

    /// Whether a line of an offer gives a number to an extension that has another, or a number that another extension has.
    pub fn contradicts(&self, line: &str) -> bool {
        let Some(rest) = line.strip_prefix("a=extmap:") else { return false };
        let mut words = rest.split_ascii_whitespace();
        // A direction may follow the number.
        let id = words.next().and_then(|word| word.split('/').next()?.parse().ok()).unwrap_or_default();
        let known = words.next().and_then(HeaderExtension::from_uri);
        known.is_some_and(|known| !self.extensions.contains(&(id, known)))
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

    /// How to send a sender's codec, else its fallback, and the payload type of packets without redundancy.
    pub fn payload_for(&self, spec: &SenderSpec, lines: &[CodecLine]) -> Option<(Payload, u8)> {
        let mut codecs = [Some(spec.codec), spec.fallback].into_iter().flatten();
        let payload = codecs.find_map(|codec| self.payload_in(codec, lines))?;
        let plain = match payload.codec {
            Codec::Red => self.payload_in(Codec::Opus, lines)?,
            _ => payload,
        };
        Some((payload, plain.pt))
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
        // A publisher that may not send redundancy must not be offered it.
        let redundancy = preferred.is_none_or(|codec| codec == Codec::Red);
        let mut payloads: Vec<Payload> = payload::offered(offered)
            .filter(|p| redundancy || p.codec != Codec::Red)
            .filter_map(|p| self.known(p))
            .collect();
        payloads.sort_by_key(|p| Some(p.codec) != preferred);
        let line_of = |pt: u8| offered.codecs.iter().find(|line| line.pt == pt);
        let transport_cc = |pt: u8| line_of(pt).is_some_and(|line| line.feedback.iter().any(|f| f == "transport-cc"));
        let fmtp = |pt: u8| line_of(pt).map(|line| line.fmtp.as_str());
        let lines = payloads.iter().flat_map(|p| payload::lines(*p, fmtp(p.pt), opus, transport_cc(p.pt))).collect();
        let extensions = offered
            .extensions
            .iter()
            .filter(|ext| {
                HeaderExtension::from_uri(&ext.uri)
                    .is_some_and(|known| known.serves(preferred) && self.extensions.contains(&(ext.id, known)))
            })
            .cloned()
            .collect();
        (lines, extensions)
    }

    /// The lines of our own offer for a section of `kind`, `preferred` first.
    pub fn offer(&self, kind: MediaKind, preferred: Option<Codec>) -> (Vec<CodecLine>, Vec<ExtMap>) {
        let mut payloads: Vec<&Payload> = self.payloads.iter().filter(|p| p.codec.kind() == kind).collect();
        payloads.sort_by_key(|p| Some(p.codec) != preferred);
        let mut seen = Vec::new();
        let mut lines = Vec::new();
        for payload in payloads {
            if !seen.contains(&payload.codec) {
                seen.push(payload.codec);
                lines.extend(payload::lines(*payload, None, OpusOptions::default(), true));
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
            for (id, extension) in header_extension::USUAL {
                let id = if extension == HeaderExtension::TransportCc { UNOFFERED_NUMBER } else { id };
                config = config.set_extension(id, extension.rtc());
            }
            return config
                .clear_codecs()
                .enable_opus(true, true)
                .enable_pcmu(true, false)
                .enable_pcma(true, false)
                .enable_vp8(true)
                .enable_h264(true)
                .enable_vp9(true)
                .enable_av1(true);
        }
        config = config.clear_codecs().clear_extension_map();
        for payload in &self.payloads {
            let codec = match payload.codec {
                // str0m only passes packets on: what matters is the clock.
                Codec::Opus | Codec::Red => RtcCodec::Opus,
                Codec::Pcmu => RtcCodec::PCMU,
                Codec::Pcma => RtcCodec::PCMA,
                Codec::Vp8 => RtcCodec::Vp8,
                Codec::H264 => RtcCodec::H264,
                Codec::Vp9 => RtcCodec::Vp9,
                Codec::Av1 => RtcCodec::Av1,
            };
            let rate = match clock_rate(payload.codec) {
                48_000 => Frequency::FORTY_EIGHT_KHZ,
                8_000 => Frequency::EIGHT_KHZ,
                _ => Frequency::NINETY_KHZ,
            };
            config.codec_config().add_config(
                payload.pt.into(),
                payload.rtx.map(Into::into),
                codec,
                rate,
                payload::channels(payload.codec),
                FormatParams::default(),
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

#[cfg(test)]
mod tests;
