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
