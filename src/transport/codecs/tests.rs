use super::super::sdp::SectionKind;
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

fn offer_of(media: Vec<MediaSection>) -> SessionDescription {
    SessionDescription { media, ..SessionDescription::default() }
}

fn audio_section(codecs: Vec<CodecLine>) -> MediaSection {
    MediaSection { codecs, ..MediaSection::new(SectionKind::Audio, "0") }
}

fn opus_and_red() -> Vec<CodecLine> {
    let audio =
        |pt, name: &str, fmtp: &str| CodecLine { clock_rate: 48_000, channels: Some(2), ..line(pt, name, fmtp) };
    vec![audio(111, "opus", ""), audio(63, "red", "111/111")]
}

fn answered(section: &MediaSection, preferred: Option<Codec>) -> Vec<(u8, String)> {
    let table = CodecTable::from_offer(&offer_of(vec![section.clone()]));
    let lines = table.answer(section, preferred, OpusOptions::default()).0;
    lines.into_iter().map(|line| (line.pt, line.fmtp)).collect()
}

#[test]
fn an_h264_flavour_is_taken_when_no_better_one_is_offered() {
    let best = line(109, "H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f");
    let single = line(107, "H264", "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f");
    let high = line(123, "H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640032");
    let strange = line(35, "H264", "packetization-mode=1;profile-level-id=f4001f");
    let all = [&strange, &high, &single, &best];
    for (offered, expected) in [(&all[..], 109), (&all[..3], 107), (&all[..2], 123)] {
        let section = video("0", offered.iter().map(|line| (*line).clone()).collect());
        let lines = answered(&section, None);
        let fmtp = &offered.iter().find(|line| line.pt == expected).unwrap().fmtp;
        assert_eq!(lines, [(expected, fmtp.clone())], "answered as it was offered");
    }
    assert!(answered(&video("0", vec![strange]), None).is_empty());
}

#[test]
fn scalable_codecs_are_known_by_their_profile() {
    let section = video(
        "0",
        vec![
            line(98, "VP9", "profile-id=0"),
            line(99, "rtx", "apt=98"),
            line(100, "VP9", "profile-id=2"),
            line(45, "AV1", "level-idx=5;profile=0;tier=0"),
            line(46, "rtx", "apt=45"),
        ],
    );
    let pts = |preferred| answered(&section, preferred).iter().map(|(pt, _)| *pt).collect::<Vec<_>>();
    assert_eq!(pts(None), [98, 99, 45, 46]);
    assert_eq!(pts(Some(Codec::Av1)), [45, 46, 98, 99]);
}

#[test]
fn redundancy_is_agreed_on_only_where_it_is_wanted() {
    let section = audio_section(opus_and_red());
    let pts = |preferred| answered(&section, preferred).iter().map(|(pt, _)| *pt).collect::<Vec<_>>();
    assert_eq!(pts(Some(Codec::Red)), [63, 111]);
    assert_eq!(pts(Some(Codec::Opus)), [111]);
    let table = CodecTable::from_offer(&offer_of(vec![section.clone()]));
    let spec = |codec, fallback| SenderSpec { codec, fallback, stream_id: "PA".into(), track_id: "TR".into() };
    let chosen = |spec, lines: &[CodecLine]| table.payload_for(&spec, lines).map(|(p, plain)| (p.codec, p.pt, plain));
    let lines = opus_and_red();
    assert_eq!(chosen(spec(Codec::Red, Some(Codec::Opus)), &lines), Some((Codec::Red, 63, 111)));
    assert_eq!(chosen(spec(Codec::Red, Some(Codec::Opus)), &lines[..1]), Some((Codec::Opus, 111, 111)));
    assert_eq!(chosen(spec(Codec::Red, None), &lines[..1]), None, "an encrypted one cannot be cut");
    assert_eq!(chosen(spec(Codec::Opus, None), &lines), Some((Codec::Opus, 111, 111)));
}

#[test]
fn the_dependency_descriptor_is_for_scalable_codecs() {
    let mut section = video("0", vec![line(96, "VP8", ""), line(98, "VP9", "profile-id=0")]);
    section.extensions = vec![ExtMap { id: 12, uri: HeaderExtension::DependencyDescriptor.uri().into() }];
    let table = CodecTable::from_offer(&offer_of(vec![section.clone()]));
    for (codec, expected) in [(Codec::Vp8, 0), (Codec::Vp9, 1)] {
        assert_eq!(table.answer(&section, Some(codec), OpusOptions::default()).1.len(), expected, "{codec:?}");
    }
}

#[test]
fn our_own_offers_have_livekits_numbers() {
    let table = CodecTable::own();
    let numbers = |kind| table.offer(kind, None).0.iter().map(|line| (line.pt, line.name.clone())).collect::<Vec<_>>();
    let named = |list: &[(u8, &str)]| list.iter().map(|(pt, name)| (*pt, (*name).to_owned())).collect::<Vec<_>>();
    assert_eq!(numbers(MediaKind::Audio), named(&[(111, "opus"), (63, "red"), (0, "PCMU"), (8, "PCMA")]));
    let video =
        [(96, "VP8"), (97, "rtx"), (98, "VP9"), (99, "rtx"), (108, "H264"), (109, "rtx"), (35, "AV1"), (36, "rtx")];
    assert_eq!(numbers(MediaKind::Video), named(&video));
    let first = |codec: Codec| table.offer(codec.kind(), Some(codec)).0.swap_remove(0).name;
    assert_eq!([Codec::Red, Codec::Av1].map(first), ["red", "AV1"]);
    let ids: Vec<u8> = table.offer(MediaKind::Video, None).1.iter().map(|ext| ext.id).collect();
    let mut distinct = ids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), ids.len());
}

#[test]
fn the_preferred_codec_goes_to_the_front_of_an_answer() {
    let remote = video(
        "0",
        vec![line(96, "VP8", ""), line(97, "rtx", "apt=96"), line(45, "AV1", ""), line(46, "rtx", "apt=45")],
    );
    let answer = "m=video 9 UDP/TLS/RTP/SAVPF 96 97 45 46\r\n";
    assert_eq!(prefer(answer, Codec::Av1, &remote), "m=video 9 UDP/TLS/RTP/SAVPF 45 46 96 97\r\n");
    assert_eq!(prefer(answer, Codec::Vp8, &remote), answer);
    assert_eq!(prefer(answer, Codec::Vp9, &remote), answer);
    assert_eq!(prefer("m=video\r\n", Codec::Vp8, &remote), "m=video\r\n");
}

#[test]
fn each_extension_keeps_its_first_number() {
    let number = HeaderExtension::TransportCc.uri();
    let with = |extensions: &[(u8, &str)]| {
        let extensions = extensions.iter().map(|(id, uri)| ExtMap { id: *id, uri: (*uri).into() }).collect();
        let section = MediaSection { extensions, ..video("0", vec![]) };
        SessionDescription { media: vec![section], ..SessionDescription::default() }
    };
    let mut table = CodecTable::default();
    assert!(table.is_number(UNOFFERED_NUMBER) && !table.is_number(3));
    table.learn(&with(&[(3, HeaderExtension::Mid.uri())]));
    assert!(!table.is_number(3) && !table.is_number(4));
    table.learn(&with(&[(7, number), (5, HeaderExtension::Rid.uri())]));
    assert!(table.is_number(7) && !table.is_number(UNOFFERED_NUMBER));
    for (line, contradicts) in [
        (format!("a=extmap:7 {number}"), false),
        (format!("a=extmap:7/recvonly {number}"), false),
        (format!("a=extmap:8 {number}"), true),
        (format!("a=extmap:16 {number}"), true),
        (format!("a=extmap:7 {}", HeaderExtension::Rid.uri()), true),
        (format!("a=extmap:5/sendonly {}", HeaderExtension::Rid.uri()), false),
        ("a=extmap:7 urn:of:nobody".into(), false),
        ("a=mid:7".into(), false),
    ] {
        assert_eq!(table.contradicts(&line), contradicts, "{line}");
    }
}
