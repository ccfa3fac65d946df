//! Codecs as sections of an SDP list them: read from an offer, written into an answer or an offer of ours.

use super::OpusOptions;
use crate::sfu::{Codec, MediaKind};
use crate::transport::sdp::{CodecLine, MediaSection, SectionKind};

/// One codec as numbered on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    pub codec: Codec,
    pub pt: u8,
    pub rtx: Option<u8>,
}

impl Payload {
    pub const fn new(codec: Codec, pt: u8, rtx: Option<u8>) -> Self {
        Payload { codec, pt, rtx }
    }
}

/// The H.264 flavour every browser can decode: constrained baseline 3.1, non-interleaved (RFC 6184).
const H264_FMTP: &str = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
const OPUS_FMTP: &str = "minptime=10;useinbandfec=1";

/// Hz of the RTP timestamp.
pub fn clock_rate(codec: Codec) -> u32 {
    match codec {
        Codec::Opus | Codec::Red => 48_000,
        Codec::Pcmu | Codec::Pcma => 8_000,
        Codec::Vp8 | Codec::H264 | Codec::Vp9 | Codec::Av1 => 90_000,
    }
}

pub fn channels(codec: Codec) -> Option<u8> {
    matches!(codec, Codec::Opus | Codec::Red).then_some(2)
}

/// What of a section's offer we can forward.
pub fn offered(section: &MediaSection) -> impl Iterator<Item = Payload> + '_ {
    let h264 = section.codecs.iter().filter_map(h264_rank).min();
    section.codecs.iter().filter_map(move |line| {
        let codec = match (section.kind, Codec::from_mime(&line.name)?) {
            (SectionKind::Audio, codec) if codec.kind() == MediaKind::Audio => codec,
            (SectionKind::Video, Codec::H264) if h264.is_some() && h264_rank(line) == h264 => Codec::H264,
            (SectionKind::Video, Codec::Vp9)
                if has(&line.fmtp, "profile-id=0") || !line.fmtp.contains("profile-id") =>
            {
                Codec::Vp9
            }
            (SectionKind::Video, codec @ (Codec::Vp8 | Codec::Av1)) => codec,
            _ => return None,
        };
        // Codecs for other clocks only share the name.
        (line.clock_rate == clock_rate(codec)).then_some(())?;
        let apt = format!("apt={}", line.pt);
        let rtx = section
            .codecs
            .iter()
            .find(|l| l.name.eq_ignore_ascii_case("rtx") && l.fmtp.split(';').any(|part| part.trim() == apt))
            .map(|l| l.pt);
        Some(Payload { codec, pt: line.pt, rtx })
    })
}

/// An m-line of an answer to `remote` with the payload types of `codec` in front.
pub fn prefer(line: &str, codec: Codec, remote: &MediaSection) -> String {
    let first: Vec<u8> =
        offered(remote).filter(|p| p.codec == codec).flat_map(|p| [Some(p.pt), p.rtx]).flatten().collect();
    // "m=video", the port, the protocol; then payload types in the order of preference.
    let mut words: Vec<&str> = line.split_ascii_whitespace().collect();
    if let Some(numbers) = words.get_mut(3..) {
        numbers.sort_by_key(|number| first.iter().position(|pt| number.parse() == Ok(*pt)).unwrap_or(usize::MAX));
    }
    words.join(" ") + "\r\n"
}

fn has(fmtp: &str, wanted: &str) -> bool {
    fmtp.split(';').any(|part| part.trim().eq_ignore_ascii_case(wanted))
}

/// How well others can play an H.264 flavour, best first; of those that a section offers, the best is taken.
fn h264_rank(line: &CodecLine) -> Option<u8> {
    if !line.name.eq_ignore_ascii_case(Codec::H264.name()) {
        return None;
    }
    let profile = |names: &[&str]| names.iter().any(|name| has(&line.fmtp, &format!("profile-level-id={name}")));
    let interleaved = has(&line.fmtp, "packetization-mode=1");
    match interleaved {
        true if profile(&["42e01f", "42001f"]) => Some(0),
        false if profile(&["42e01f", "42001f"]) => Some(1),
        true if profile(&["640032", "64001f", "640c1f"]) => Some(2),
        _ => None,
    }
}

/// The lines for one codec. `offered_fmtp`: what the peer wrote beside it; flavours must be answered as offered.
pub fn lines(payload: Payload, offered_fmtp: Option<&str>, opus: OpusOptions, transport_cc: bool) -> Vec<CodecLine> {
    let fmtp = match payload.codec {
        Codec::Opus => {
            let dtx = if opus.dtx { ";usedtx=1" } else { "" };
            // The bitrate libwebrtc needs to hear before it sends real stereo.
            let stereo = if opus.stereo { ";stereo=1;maxaveragebitrate=510000" } else { "" };
            format!("{OPUS_FMTP}{dtx}{stereo}")
        }
        Codec::Red => offered_fmtp.unwrap_or("111/111").into(),
        Codec::H264 => offered_fmtp.unwrap_or(H264_FMTP).into(),
        Codec::Vp9 => "profile-id=0".into(),
        Codec::Av1 => offered_fmtp.unwrap_or_default().into(),
        Codec::Vp8 | Codec::Pcmu | Codec::Pcma => String::new(),
    };
    let mut feedback: Vec<String> = Vec::new();
    if transport_cc {
        feedback.push("transport-cc".into());
    }
    if payload.codec.kind() == MediaKind::Video {
        feedback.extend(["ccm fir", "nack", "nack pli"].map(String::from));
    }
    let clock_rate = clock_rate(payload.codec);
    let mut lines = vec![CodecLine {
        pt: payload.pt,
        name: payload.codec.name().into(),
        clock_rate,
        channels: channels(payload.codec),
        fmtp,
        feedback,
    }];
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
