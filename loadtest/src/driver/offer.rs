//! The sections of our descriptions: the codecs, numbers and extensions that Chromium has, without those that nobody here uses.

use parlour::transport::sdp::{
    CodecLine, Direction, ExtMap, Fingerprint, IceCredentials, MediaSection, Msid, RidDirection, RidLine, SectionKind,
    SessionDescription, Setup, SsrcGroup, SsrcLine,
};
use str0m::format::{Codec, CodecConfig, FormatParams};
use str0m::media::Frequency;
use str0m::rtp::Extension;

use crate::engine::{Expected, ExpectedStream, Local, Remote, Track, TrackLayer};

const OPUS: u8 = 111;
const VP8: u8 = 96;
const VP8_RTX: u8 = 97;

const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum In {
    Audio,
    Video,
    Both,
}

/// Number, URI, and the kind of section it is offered in.
pub const EXTENSIONS: [(u8, &str, In); 6] = [
    (1, AUDIO_LEVEL, In::Audio),
    (2, ABS_SEND_TIME, In::Both),
    (3, TRANSPORT_CC, In::Both),
    (4, MID, In::Both),
    (10, RID, In::Video),
    (11, REPAIRED_RID, In::Video),
];

/// The same extensions for str0m, which writes them.
pub fn extensions() -> [(u8, Extension); EXTENSIONS.len()] {
    let extension = |uri: &str| match uri {
        TRANSPORT_CC => Extension::TransportSequenceNumber,
        AUDIO_LEVEL => Extension::AudioLevel,
        ABS_SEND_TIME => Extension::AbsoluteSendTime,
        MID => Extension::RtpMid,
        RID => Extension::RtpStreamId,
        _ => Extension::RepairedRtpStreamId,
    };
    EXTENSIONS.map(|(number, uri, _)| (number, extension(uri)))
}

/// Simulcast layers as LiveKit names them, lowest first.
pub const LAYERS: [&str; 3] = ["q", "h", "f"];

/// The same codecs for str0m, which needs them to send.
pub fn configure_codecs(config: &mut CodecConfig) {
    let format = FormatParams::default;
    config.add_config(OPUS.into(), None, Codec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2), format());
    config.add_config(VP8.into(), Some(VP8_RTX.into()), Codec::Vp8, Frequency::NINETY_KHZ, None, format());
}

/// Whether packets with this payload type are video; `None` for other numbers than ours.
pub fn kind_of(payload_type: u8) -> Option<bool> {
    match payload_type {
        OPUS => Some(false),
        VP8 => Some(true),
        _ => None,
    }
}

/// A section to receive or to send in.
pub fn section(mid: &str, video: bool, direction: Direction) -> MediaSection {
    let kind = if video { SectionKind::Video } else { SectionKind::Audio };
    let wanted = |extension: In| extension == In::Both || (extension == In::Video) == video;
    let extensions = EXTENSIONS.iter().filter(|(_, _, extension)| wanted(*extension));
    MediaSection {
        direction,
        rtcp_mux: true,
        rtcp_rsize: true,
        codecs: if video { video_codecs() } else { audio_codecs() },
        extensions: extensions.map(|(id, uri, _)| ExtMap { id: *id, uri: (*uri).into() }).collect(),
        ..MediaSection::new(kind, mid)
    }
}

/// A section for data channels.
pub fn data_section(mid: &str) -> MediaSection {
    const SCTP_PORT: u16 = 5000;
    const MAX_MESSAGE_BYTES: u64 = 262_144;
    MediaSection {
        sctp_port: Some(SCTP_PORT),
        max_message_size: Some(MAX_MESSAGE_BYTES),
        ..MediaSection::new(SectionKind::Application, mid)
    }
}

/// A section that sends `track`, whose id is `cid`.
pub fn sending_section(track: &Track, cid: &str) -> MediaSection {
    let msid = Msid { stream: "stream".into(), track: cid.into() };
    let mut section = section(&track.mid, track.video, Direction::SendOnly);
    for layer in &track.layers {
        match layer.rid {
            Some(rid) => {
                section.rids.push(RidLine { id: rid.into(), direction: RidDirection::Send });
                section.simulcast_send.push(rid.into());
            }
            None => {
                let ssrcs: Vec<u32> = [Some(layer.ssrc), layer.rtx].into_iter().flatten().collect();
                let line = |ssrc: &u32| SsrcLine { ssrc: *ssrc, cname: Some("load".into()), msid: Some(msid.clone()) };
                section.ssrcs.extend(ssrcs.iter().map(line));
                if layer.rtx.is_some() {
                    section.ssrc_groups.push(SsrcGroup { semantics: "FID".into(), ssrcs });
                }
            }
        }
    }
    section.msid = Some(msid);
    section
}

/// Draws the SSRCs of a track.
pub fn track(mid: &str, video: bool, simulcast: bool, seed: u64, random: &mut fastrand::Rng) -> Track {
    let mut ssrc = || random.u32(1..u32::MAX);
    let mut layer = |rid| TrackLayer { rid, ssrc: ssrc(), rtx: video.then(&mut ssrc) };
    let layers = if simulcast { LAYERS.map(|rid| layer(Some(rid))).into() } else { vec![layer(None)] };
    Track { mid: mid.into(), payload_type: if video { VP8 } else { OPUS }, video, layers, seed }
}

fn audio_codecs() -> Vec<CodecLine> {
    vec![CodecLine {
        pt: OPUS,
        name: "opus".into(),
        clock_rate: 48_000,
        channels: Some(2),
        fmtp: "minptime=10;useinbandfec=1".into(),
        feedback: vec!["transport-cc".into()],
    }]
}

fn video_codecs() -> Vec<CodecLine> {
    let feedback = ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"];
    let line = |pt, name: &str, fmtp: String| CodecLine {
        pt,
        name: name.into(),
        clock_rate: 90_000,
        channels: None,
        fmtp,
        feedback: Vec::new(),
    };
    vec![
        CodecLine { feedback: feedback.map(String::from).into(), ..line(VP8, "VP8", String::new()) },
        line(VP8_RTX, "rtx", format!("apt={VP8}")),
    ]
}

/// Writes a description of ours; every section carries the connection's part.
pub fn describe(local: &Local, version: u64, setup: Setup, mut media: Vec<MediaSection>) -> String {
    let candidate = format!("candidate:1 1 udp 2130706431 {} {} typ host", local.address.ip(), local.address.port());
    for section in media.iter_mut().filter(|section| section.port != 0) {
        section.ice = Some(IceCredentials { ufrag: local.ufrag.clone(), pwd: local.pwd.clone() });
        section.fingerprint = Some(Fingerprint { algorithm: "sha-256".into(), bytes: local.fingerprint.clone() });
        section.setup = Some(setup);
        section.candidates = vec![candidate.clone()];
        section.end_of_candidates = true;
    }
    let bundle = media.iter().filter(|section| section.port != 0).map(|section| section.mid.clone()).collect();
    let description = SessionDescription {
        bundle,
        ice_lite: false,
        extmap_allow_mixed: true,
        session_id: local.id as u64 + 1,
        session_version: version,
        media,
    };
    description.to_string()
}

/// The connection's part of a server's description. `we_offered` decides who nominates when the server is not lite, and who
/// starts DTLS when the server leaves it open.
pub fn remote(description: &SessionDescription, we_offered: bool) -> Option<Remote> {
    let media = &description.media;
    let ice = media.iter().find_map(|section| section.ice.clone())?;
    Some(Remote {
        ufrag: ice.ufrag,
        pwd: ice.pwd,
        fingerprint: media.iter().find_map(|section| section.fingerprint.clone())?,
        candidates: media.iter().find(|section| !section.candidates.is_empty())?.candidates.clone(),
        dtls_client: media.iter().find_map(|section| section.setup) != Some(Setup::Active),
        controlling: we_offered || description.ice_lite,
        channels: Vec::new(),
    })
}

/// What will come, by a server's description. `name` gives the server's name of the track in a section.
pub fn expected(description: &SessionDescription, name: impl Fn(&MediaSection) -> String) -> Expected {
    let mut expected = Expected::default();
    let sending = description.media.iter().filter(|section| {
        !section.is_rejected() && section.direction.sends() && section.kind != SectionKind::Application
    });
    for section in sending {
        expected.twcc = expected.twcc.or(section.extension(TRANSPORT_CC));
        let pair = section.ssrc_groups.iter().find(|group| group.semantics == "FID");
        let ssrc = pair.and_then(|pair| pair.ssrcs.first().copied()).or(section.ssrcs.first().map(|line| line.ssrc));
        if let Some(ssrc) = ssrc {
            expected.streams.push(ExpectedStream {
                ssrc,
                rtx: pair.and_then(|pair| pair.ssrcs.get(1).copied()),
                video: section.kind == SectionKind::Video,
                track: name(section),
            });
        }
    }
    expected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Local {
        Local {
            id: 3,
            address: "127.0.0.1:4000".parse().unwrap(),
            ufrag: "abcd".into(),
            pwd: "abcdefghijklmnopqrstuv".into(),
            fingerprint: vec![7; 32],
        }
    }

    #[test]
    fn our_descriptions_are_read_as_they_are_meant() {
        let mut random = fastrand::Rng::with_seed(1);
        let single = track("2", true, false, 0, &mut random);
        let simulcast = track("3", true, true, 0, &mut random);
        let sections = vec![
            data_section("0"),
            section("1", false, Direction::RecvOnly),
            sending_section(&single, "camera"),
            sending_section(&simulcast, "other"),
        ];
        let text = describe(&local(), 1, Setup::Actpass, sections);
        let read = SessionDescription::parse(&text).unwrap();
        assert_eq!(read.bundle, ["0", "1", "2", "3"]);
        assert_eq!(read.media[2].msid.as_ref().unwrap().track, "camera");
        assert_eq!(read.media[2].ssrc_groups[0].ssrcs, [single.layers[0].ssrc, single.layers[0].rtx.unwrap()]);
        assert_eq!(read.media[3].simulcast_send, LAYERS);
        assert!(read.media[3].ssrcs.is_empty(), "browsers name no SSRCs for simulcast");
        assert_eq!(read.media[1].extension(TRANSPORT_CC), Some(3));

        let remote = remote(&read, false).unwrap();
        assert_eq!((remote.ufrag.as_str(), remote.candidates.len()), ("abcd", 1));
        assert!(remote.dtls_client && !remote.controlling);

        let expected = expected(&read, |section| section.mid.clone());
        assert_eq!(expected.twcc, Some(3));
        assert_eq!(expected.streams.len(), 1);
        assert_eq!(expected.streams[0].rtx, single.layers[0].rtx);
    }
}
