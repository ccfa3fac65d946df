//! What browsers really write (`fixtures/`, recorded from Chromium 156 and Firefox 153), what nobody should, and the way back.

use proptest::prelude::*;

use super::*;

const CHROMIUM_OFFER: &str = include_str!("fixtures/chromium-offer.sdp");
const CHROMIUM_ANSWER: &str = include_str!("fixtures/chromium-answer.sdp");
const CHROMIUM_REOFFER: &str = include_str!("fixtures/chromium-reoffer.sdp");
const FIREFOX_OFFER: &str = include_str!("fixtures/firefox-offer.sdp");
const FIREFOX_ANSWER: &str = include_str!("fixtures/firefox-answer.sdp");
const FIREFOX_REOFFER: &str = include_str!("fixtures/firefox-reoffer.sdp");

const RECORDED: [&str; 6] =
    [CHROMIUM_OFFER, CHROMIUM_ANSWER, CHROMIUM_REOFFER, FIREFOX_OFFER, FIREFOX_ANSWER, FIREFOX_REOFFER];

const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";

fn parse(text: &str) -> SessionDescription {
    SessionDescription::parse(text).expect("valid SDP")
}

/// A description with one audio section that has these lines.
fn audio(lines: &str) -> Result<MediaSection, SdpError> {
    let text = format!("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\na=mid:0\r\n{lines}");
    SessionDescription::parse(&text).map(|mut description| description.media.remove(0))
}

fn directions(description: &SessionDescription) -> Vec<Direction> {
    description.media.iter().map(|section| section.direction).collect()
}

#[test]
fn reads_a_chromium_offer() {
    use Direction::{RecvOnly, SendOnly, SendRecv};

    let offer = parse(CHROMIUM_OFFER);
    assert_eq!(offer.bundle, ["7", "8", "9", "10", "11", "12", "13", "14", "15"]);
    assert_eq!((offer.session_id, offer.session_version), (1529364330054230308, 3));
    assert!(offer.extmap_allow_mixed && !offer.ice_lite);
    assert_eq!(
        directions(&offer),
        [RecvOnly, RecvOnly, RecvOnly, RecvOnly, RecvOnly, RecvOnly, SendOnly, SendOnly, SendRecv]
    );

    let microphone = offer.section("13").expect("the published audio section");
    assert_eq!(microphone.kind, SectionKind::Audio);
    assert_eq!(microphone.port, 42602);
    assert_eq!(microphone.ice.as_ref().map(|ice| ice.ufrag.as_str()), Some("E3/P"));
    assert_eq!(microphone.ice.as_ref().map(|ice| ice.pwd.as_str()), Some("g4s70LlzgtoqufYCiGZNeNBd"));
    let fingerprint = microphone.fingerprint.as_ref().expect("a fingerprint");
    assert_eq!((fingerprint.algorithm.as_str(), fingerprint.bytes.len()), ("sha-256", 32));
    assert_eq!(fingerprint.bytes[..3], [0x03, 0x5f, 0xab]);
    assert_eq!(microphone.setup, Some(Setup::Actpass));
    assert!(microphone.rtcp_mux && microphone.rtcp_rsize);
    assert_eq!(microphone.candidates.len(), 4);
    assert!(microphone.candidates[0].starts_with("candidate:630837460 1 udp 2122194687 192.0.2.2 "));
    assert_eq!((microphone.extension(AUDIO_LEVEL), microphone.extension(MID)), (Some(1), Some(4)));
    let track = Msid { stream: "-".into(), track: "1699b7e5-e65b-4314-b5bd-eef4e9a6ff20".into() };
    assert_eq!(microphone.msid.as_ref(), Some(&track));
    let source = SsrcLine { ssrc: 3883803366, cname: Some("MaDAy4vXnjC8lL5k".into()), msid: Some(track) };
    assert_eq!(microphone.ssrcs, [source]);
    let opus = microphone.codec(111).expect("opus");
    assert!(opus.is("OPUS"));
    assert_eq!((opus.clock_rate, opus.channels), (48000, Some(2)));
    assert_eq!(opus.parameter("useinbandfec"), Some("1"));
    assert_eq!(opus.feedback, ["transport-cc"]);

    let camera = offer.section("14").expect("the published video section");
    assert_eq!(camera.codecs.len(), 23);
    assert_eq!(camera.codecs[0].feedback, ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"]);
    assert!(camera.codecs[1].is("rtx"));
    assert_eq!(camera.codecs[1].parameter("apt"), Some("96"));
    let sent = |id: &str| RidLine { id: id.into(), direction: RidDirection::Send };
    assert_eq!(camera.rids, [sent("q"), sent("h"), sent("f")]);
    assert_eq!(camera.simulcast_send, ["q", "h", "f"]);
    assert!(camera.simulcast_recv.is_empty() && camera.ssrcs.is_empty());

    let data = offer.section("15").expect("the data section");
    assert_eq!(data.kind, SectionKind::Application);
    assert_eq!((data.sctp_port, data.max_message_size), (Some(5000), Some(262144)));
}

#[test]
fn reads_a_chromium_answer_and_the_offer_after_it() {
    let answer = parse(CHROMIUM_ANSWER);
    assert_eq!(answer.media.len(), 9);
    assert_eq!(answer.media[0].direction, Direction::Inactive);
    assert_eq!(answer.media[7].direction, Direction::RecvOnly);
    assert_eq!(answer.media[0].setup, Some(Setup::Active));

    let offer = parse(CHROMIUM_REOFFER);
    let stopped: Vec<_> = offer.media.iter().filter(|section| section.is_rejected()).collect();
    assert_eq!(stopped.len(), 1);
    assert_eq!((stopped[0].mid.as_str(), stopped[0].direction), ("10", Direction::Inactive));
    assert!(!offer.bundle.contains(&"10".to_owned()));
    assert_eq!(offer.section("14").expect("the simulcast section").simulcast_send, ["q", "h", "f"]);
}

#[test]
fn reads_a_firefox_offer() {
    let offer = parse(FIREFOX_OFFER);
    assert_eq!(offer.media.len(), 9);
    assert!(offer.extmap_allow_mixed, "said in each section");
    // Most of its m-lines say port 0 and `bundle-only`: they are open.
    assert!(offer.media.iter().all(|section| !section.is_rejected()));
    // The fingerprint is said once, for the session.
    assert!(offer.media.iter().all(|section| section.fingerprint == offer.media[0].fingerprint));
    assert!(offer.media[0].fingerprint.is_some() && offer.media[0].end_of_candidates);
    // Format parameters come before the codec they belong to; extensions have directions.
    let opus = offer.media[0].codec(109).expect("opus");
    assert_eq!((opus.name.as_str(), opus.parameter("stereo")), ("opus", Some("1")));
    assert_eq!(offer.media[0].extension("urn:ietf:params:rtp-hdrext:csrc-audio-level"), Some(2));
    assert_eq!(offer.media[7].simulcast_send, ["q", "h", "f"]);
    assert!(offer.media[7].msid.as_ref().is_some_and(|msid| msid.stream.starts_with('{')));
    assert_eq!(offer.media[8].max_message_size, Some(1073741823));

    let offer = parse(FIREFOX_REOFFER);
    assert!(offer.media[3].is_rejected() && offer.extmap_allow_mixed);
    assert_eq!(offer.media.iter().filter(|section| section.is_rejected()).count(), 1);
}

#[test]
fn recorded_descriptions_survive_rewriting() {
    for text in RECORDED {
        let description = parse(text);
        let written = description.to_string();
        assert_eq!(parse(&written), description);
        assert!(written.lines().count() > 100);
        assert!(written.split_inclusive('\n').all(|line| line.ends_with("\r\n")));
    }
}

#[test]
fn session_level_lines_hold_for_sections_that_say_nothing() {
    let text = "v=0\na=ice-ufrag:aaaa\na=ice-pwd:aaaaaaaaaaaaaaaaaaaaaa\na=setup:passive\na=inactive\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\na=mid:0\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:1\na=ice-ufrag:bbbb\na=ice-pwd:bbbbbbbbbbbbbbbbbbbbbb\na=setup:active\na=sendonly\n";
    let description = parse(text);
    let ufrags = description.media.iter().map(|section| section.ice.as_ref().map(|ice| ice.ufrag.as_str()));
    assert!(ufrags.eq([Some("aaaa"), Some("bbbb")]));
    assert_eq!((description.media[0].setup, description.media[1].setup), (Some(Setup::Passive), Some(Setup::Active)));
    assert_eq!(directions(&description), [Direction::Inactive, Direction::SendOnly]);
}

#[test]
fn bundle_only_opens_a_section_inside_the_group_alone() {
    let text = "v=0\r\na=group:BUNDLE 0\r\nm=audio 0 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=bundle-only\r\n\
        m=audio 0 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=bundle-only\r\nm=audio 0 UDP/TLS/RTP/SAVPF 111\r\n";
    let ports = parse(text).media.into_iter().map(|section| section.port);
    assert!(ports.eq([MediaSection::DISCARD_PORT, 0, 0]));
}

#[test]
fn keeps_only_codecs_that_are_named() {
    let section =
        audio("a=rtpmap:111 opus/48000/2\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:* nack\r\na=rtcp-fb:111 nack\r\n")
            .expect("valid");
    let names: Vec<_> = section.codecs.iter().map(|codec| (codec.name.as_str(), codec.clock_rate)).collect();
    assert_eq!(names, [("opus", 48000), ("PCMU", 8000)]);
    assert!(section.codecs.iter().all(|codec| codec.feedback == ["nack"]));
    assert!(audio("a=mid:1\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:2\r\n").is_ok());
}

#[test]
fn takes_the_first_alternative_of_each_simulcast_stream() {
    let section = audio("a=simulcast:recv a send ~q,x;h;~f\r\n").expect("valid");
    assert_eq!(
        (section.simulcast_send, section.simulcast_recv),
        (vec!["q".into(), "h".into(), "f".into()], vec!["a".into()])
    );
}

#[test]
fn prefers_the_sha_256_fingerprint() {
    let sha_1 = format!("a=fingerprint:sha-1 {}\r\n", ["AB"; 20].join(":"));
    let sha_256 = format!("a=fingerprint:SHA-256 {}\r\n", ["cd"; 32].join(":"));
    for lines in [format!("{sha_1}{sha_256}"), format!("{sha_256}{sha_1}")] {
        let fingerprint = audio(&lines).expect("valid").fingerprint.expect("a fingerprint");
        assert_eq!((fingerprint.algorithm.as_str(), fingerprint.bytes), ("sha-256", vec![0xcd; 32]));
    }
}

#[test]
fn ignores_what_it_does_not_keep() {
    let plain = audio("").expect("valid");
    let lines = "b=AS:128\r\nk=clear:x\r\na=\r\na=:\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=extmap:4096 urn:x\r\n\
        a=ssrc:1 label:x\r\na=fmtp:50 x\r\na=rtcp-fb:50 nack\r\na=x-unknown:\u{fffd}\r\n\r\n";
    assert_eq!(audio(lines), Ok(plain));
}

#[test]
fn names_line_and_reason_of_what_is_wrong() {
    use Problem::{DuplicateMid, Malformed, Missing, Unsupported};

    for (lines, line, problem) in [
        ("a", 4, Malformed("line: not <letter>=<value>")),
        ("\r\n==", 5, Malformed("line: not <letter>=<value>")),
        ("é=x", 4, Malformed("line: not <letter>=<value>")),
        ("a=fmtp:111 x\ry", 4, Malformed("line: control character")),
        ("a=mid:", 4, Malformed("a=mid")),
        ("a=mid:a b", 4, Malformed("a=mid")),
        ("a=rtpmap:128 VP8/90000", 4, Malformed("a=rtpmap")),
        ("a=rtpmap:+96 VP8/90000", 4, Malformed("a=rtpmap")),
        ("a=rtpmap:96 VP8", 4, Malformed("a=rtpmap")),
        ("a=rtpmap:96 /90000", 4, Malformed("a=rtpmap")),
        ("a=rtpmap:96 VP8/99999999999", 4, Malformed("a=rtpmap")),
        ("a=fmtp:111", 4, Malformed("a=fmtp")),
        ("a=rtcp-fb:111 ", 4, Malformed("a=rtcp-fb")),
        ("a=extmap:0 urn:x", 4, Malformed("a=extmap")),
        ("a=extmap:3", 4, Malformed("a=extmap")),
        ("a=msid:", 4, Malformed("a=msid")),
        ("a=ssrc:-1 cname:x", 4, Malformed("a=ssrc")),
        ("a=ssrc:4294967296 cname:x", 4, Malformed("a=ssrc")),
        ("a=ssrc-group:FID x", 4, Malformed("a=ssrc-group")),
        ("a=rid:q both", 4, Malformed("a=rid")),
        ("a=rid:q! send", 4, Malformed("a=rid")),
        ("a=simulcast:send", 4, Malformed("a=simulcast")),
        ("a=simulcast:send q;;f", 4, Malformed("a=simulcast")),
        ("a=simulcast:both q", 4, Malformed("a=simulcast")),
        ("a=setup:maybe", 4, Malformed("a=setup")),
        ("a=fingerprint:sha-256 AB:CD", 4, Malformed("a=fingerprint")),
        ("a=fingerprint:sha-1 AB:+D", 4, Malformed("a=fingerprint")),
        ("a=ice-ufrag:abc", 4, Malformed("a=ice-ufrag")),
        ("a=ice-ufrag:ab:cd", 4, Malformed("a=ice-ufrag")),
        ("a=ice-pwd:short", 4, Malformed("a=ice-pwd")),
        ("a=ice-ufrag:abcd", 2, Missing("a=ice-pwd")),
        ("a=ice-pwd:aaaaaaaaaaaaaaaaaaaaaa", 2, Missing("a=ice-ufrag")),
        ("a=sctp-port:65536", 4, Malformed("a=sctp-port")),
        ("m=audio", 4, Malformed("m=")),
        ("m=audio 65536 UDP/TLS/RTP/SAVPF 0", 4, Malformed("m=")),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 200", 4, Malformed("m=")),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 111", 4, Missing("a=mid")),
        ("m=audio 9 UDP 0", 4, Unsupported("this transport protocol")),
        ("m=text 9 UDP/TLS/RTP/SAVPF 0", 4, Unsupported("this kind of media")),
        ("m=application 9 DTLS/SCTP 5000", 4, Unsupported("this kind of data channel")),
        ("m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0", 4, DuplicateMid),
    ] {
        assert_eq!(audio(lines), Err(SdpError { line, problem }), "{lines}");
    }
    for text in ["", "\r\n", "o=- 1 2 IN IP4 0.0.0.0", "v=1", "hello"] {
        assert!(SessionDescription::parse(text).is_err_and(|error| error.line <= 1), "{text}");
    }
    let error = SessionDescription::parse("v=0\no=- x 2\n").expect_err("malformed origin");
    assert_eq!(error.to_string(), "SDP line 2: malformed o=");
}

#[test]
fn limits_hold() {
    let problem = |text: &str| SessionDescription::parse(text).map_err(|error| error.problem).err();
    let head = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n";
    let with =
        |count: usize, line: &dyn Fn(usize) -> String| format!("{head}{}", (0..count).map(line).collect::<String>());

    let line = |bytes: usize| format!("{head}a={}\r\n", "x".repeat(bytes - 2));
    assert_eq!(problem(&line(MAX_LINE_BYTES)), None);
    assert_eq!(problem(&line(MAX_LINE_BYTES + 1)), Some(Problem::LineTooLong));
    assert_eq!(problem(&"v".repeat(MAX_BYTES + 1)), Some(Problem::TooLong));

    let candidate = |_| "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n".to_owned();
    assert_eq!(problem(&with(MAX_CANDIDATES, &candidate)), None);
    assert_eq!(problem(&with(MAX_CANDIDATES + 1, &candidate)), Some(Problem::TooMany("candidates")));

    let section = |i| format!("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:m{i}\r\n");
    assert_eq!(problem(&with(MAX_SECTIONS - 1, &section)), None);
    assert_eq!(problem(&with(MAX_SECTIONS, &section)), Some(Problem::TooMany("m-lines")));

    let source = |i| format!("a=ssrc:{i} cname:x\r\n");
    assert_eq!(problem(&with(64, &source)), None);
    assert_eq!(problem(&with(65, &source)), Some(Problem::TooMany("sources")));

    let feedback = |i| format!("a=rtcp-fb:* x{i}\r\n");
    assert_eq!(problem(&with(16, &feedback)), None);
    assert_eq!(problem(&with(17, &feedback)), Some(Problem::TooMany("kinds of feedback")));
}

#[test]
fn keeps_the_ice_password_out_of_debug_output() {
    let section = parse(CHROMIUM_OFFER).media.remove(0);
    assert!(!format!("{section:?}").contains(&section.ice.expect("credentials").pwd));
}

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_-]{1,12}"
}

fn msid() -> impl Strategy<Value = Msid> {
    (token(), "[A-Za-z0-9|_-]{0,30}").prop_map(|(stream, track)| Msid { stream, track })
}

fn ice() -> impl Strategy<Value = IceCredentials> {
    ("[A-Za-z0-9+/]{4,32}", "[A-Za-z0-9+/]{22,40}").prop_map(|(ufrag, pwd)| IceCredentials { ufrag, pwd })
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 32).prop_map(|bytes| Fingerprint { algorithm: "sha-256".into(), bytes }),
        prop::collection::vec(any::<u8>(), 64).prop_map(|bytes| Fingerprint { algorithm: "sha-512".into(), bytes }),
    ]
}

fn codecs() -> impl Strategy<Value = Vec<CodecLine>> {
    let words = "[a-z0-9=;-]{1,10}( [a-z0-9-]{1,5})?";
    let codec = (
        token(),
        any::<u32>(),
        any::<Option<u8>>(),
        prop_oneof![Just(String::new()), words.prop_map(|s| s)],
        prop::collection::btree_set(words, 0..5),
    );
    prop::collection::btree_map(0u8..128, codec, 0..6).prop_map(|codecs| {
        let line =
            |(pt, (name, clock_rate, channels, fmtp, feedback)): (
                u8,
                (String, _, _, String, std::collections::BTreeSet<String>),
            )| CodecLine { pt, name, clock_rate, channels, fmtp, feedback: feedback.into_iter().collect() };
        codecs.into_iter().map(line).collect()
    })
}

fn sources() -> impl Strategy<Value = (Vec<SsrcLine>, Vec<SsrcGroup>)> {
    let source = (proptest::option::of(token()), msid());
    let lines = prop::collection::btree_map(any::<u32>(), source, 0..7).prop_map(|sources| {
        let line = |(ssrc, (cname, msid))| SsrcLine { ssrc, cname, msid: Some(msid) };
        sources.into_iter().map(line).collect()
    });
    let group = (token(), prop::collection::vec(any::<u32>(), 0..4));
    let groups = prop::collection::vec(group.prop_map(|(semantics, ssrcs)| SsrcGroup { semantics, ssrcs }), 0..3);
    (lines, groups)
}

fn layers() -> impl Strategy<Value = (Vec<RidLine>, Vec<String>, Vec<String>)> {
    let direction = prop_oneof![Just(RidDirection::Send), Just(RidDirection::Recv)];
    let rid = (token(), direction).prop_map(|(id, direction)| RidLine { id, direction });
    (prop::collection::vec(rid, 0..4), prop::collection::vec(token(), 0..4), prop::collection::vec(token(), 0..4))
}

prop_compose! {
    fn section()(
        kind in prop_oneof![Just(SectionKind::Audio), Just(SectionKind::Video), Just(SectionKind::Application)],
        (port, direction) in (any::<u16>(), (any::<bool>(), any::<bool>()).prop_map(|(s, r)| Direction::new(s, r))),
        (ice, fingerprint) in (proptest::option::of(ice()), proptest::option::of(fingerprint())),
        setup in prop_oneof![Just(None), Just(Some(Setup::Actpass)), Just(Some(Setup::Active)), Just(Some(Setup::Passive)), Just(Some(Setup::Holdconn))],
        (rtcp_mux, rtcp_rsize, end_of_candidates) in any::<(bool, bool, bool)>(),
        codecs in codecs(),
        extensions in prop::collection::vec((1..=u8::MAX, "[!-~]{1,40}").prop_map(|(id, uri)| ExtMap { id, uri }), 0..5),
        msid in proptest::option::of(msid()),
        (ssrcs, ssrc_groups) in sources(),
        (rids, simulcast_send, simulcast_recv) in layers(),
        candidates in prop::collection::vec("candidate:[ -~]{0,60}", 0..4),
        (sctp_port, max_message_size) in any::<(Option<u16>, Option<u64>)>(),
    ) -> MediaSection {
        let codecs = if kind == SectionKind::Application { Vec::new() } else { codecs };
        MediaSection {
            port, direction, ice, fingerprint, setup, rtcp_mux, rtcp_rsize, codecs, extensions, msid, ssrcs, ssrc_groups, rids,
            simulcast_send, simulcast_recv, candidates, end_of_candidates, sctp_port, max_message_size,
            ..MediaSection::new(kind, "")
        }
    }
}

prop_compose! {
    fn description()(
        mut media in prop::collection::vec(section(), 0..5),
        (ice_lite, extmap_allow_mixed) in any::<(bool, bool)>(),
        (session_id, session_version) in any::<(u64, u64)>(),
        in_bundle in any::<u8>(),
    ) -> SessionDescription {
        for (i, section) in media.iter_mut().enumerate() {
            section.mid = i.to_string();
        }
        let bundle = (0..media.len()).filter(|i| in_bundle >> i & 1 == 1).map(|i| i.to_string()).collect();
        SessionDescription { bundle, ice_lite, extmap_allow_mixed, session_id, session_version, media }
    }
}

/// Lines from the recordings and from the syntax, cut and glued, so that most of them get past the first check.
fn hostile() -> impl Strategy<Value = String> {
    let known: Vec<String> = RECORDED.iter().flat_map(|text| text.lines()).map(String::from).collect();
    let name = "(m=audio|m=video|m=application|a=rtpmap:|a=fmtp:|a=rtcp-fb:|a=ssrc:|a=ssrc-group:|a=rid:|a=simulcast:|a=extmap:|a=mid:|a=msid:|a=group:|a=fingerprint:|o=)";
    let line = prop_oneof![
        3 => prop::sample::select(known.clone()),
        1 => (prop::sample::select(known), any::<prop::sample::Index>(), "\\PC{0,4}").prop_map(|(line, at, junk)| {
            let at = at.index(line.len() + 1);
            let at = (0..=at).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
            format!("{}{junk}{}", &line[..at], &line[at..])
        }),
        2 => (name, "[ -~]{0,20}").prop_map(|(name, rest)| format!("{name}{rest}")),
        1 => "\\PC{0,20}",
    ];
    prop::collection::vec(line, 0..40).prop_map(|lines| format!("v=0\n{}", lines.join("\n")))
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(description in description()) {
        prop_assert_eq!(SessionDescription::parse(&description.to_string()), Ok(description));
    }

    #[test]
    fn what_was_read_reads_the_same_again(text in hostile()) {
        if let Ok(description) = SessionDescription::parse(&text) {
            prop_assert_eq!(SessionDescription::parse(&description.to_string()), Ok(description));
        }
    }
}
