//! Runs the fuzz targets' checks over their committed corpus, without a fuzzer.
//!
//! A crash that a fuzzer finds is kept by adding its input to `fuzz/corpus/<target>/`. The seeds among these files come
//! from [`seeds`]; `WRITE_SEEDS=1 cargo test --test fuzz_corpus` writes them.

use std::fs;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use livekit_protocol as proto;
use parlour::focus::Content;
use parlour::focus::data_channel::Message;
use parlour::livekit::{Claims, decode_join_request, decode_request, decode_request_text};
use parlour::matrix::RoomEvent;
use parlour::rtp::dependency_descriptor::Descriptor;
use parlour::rtp::header::{Form, Header, HeaderWriter, Packet};
use parlour::rtp::{h264, ntp, red, rtcp, twcc, vp8, vp9};
use parlour::transport::classify;
use parlour::transport::sdp::SessionDescription;
use prost::Message as _;

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

const FIREFOX_OFFER: &str = include_str!("../src/transport/sdp/fixtures/firefox-reoffer.sdp");

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn replay(target: &str, check: fn(&[u8])) {
    let mut files = 0;
    for entry in fs::read_dir(corpus().join(target)).expect("a corpus") {
        let path = entry.expect("a readable corpus").path();
        // Shown only if the check fails.
        println!("{}", path.display());
        check(&fs::read(&path).expect("a readable file"));
        files += 1;
    }
    assert!(files > 0, "an empty corpus checks nothing");
}

#[test]
fn estimator_feedback() {
    replay("estimator_feedback", fuzz::estimator_feedback);
}

#[test]
fn room_event() {
    replay("room_event", fuzz::room_event);
}

#[test]
fn sdp_parse() {
    replay("sdp_parse", fuzz::sdp_parse);
}

#[test]
fn vp8_descriptor() {
    replay("vp8_descriptor", fuzz::vp8_descriptor);
}

#[test]
fn vp9_descriptor() {
    replay("vp9_descriptor", fuzz::vp9_descriptor);
}

#[test]
fn dependency_descriptor() {
    replay("dependency_descriptor", fuzz::dependency_descriptor);
}

#[test]
fn red() {
    replay("red", fuzz::red);
}

#[test]
fn h264_payload() {
    replay("h264", fuzz::h264);
}

#[test]
fn rtp_header() {
    replay("rtp_header", fuzz::rtp_header);
}

#[test]
fn rtcp_packets() {
    replay("rtcp", fuzz::rtcp);
}

#[test]
fn transport_feedback() {
    replay("twcc", fuzz::twcc);
}

#[test]
fn packets() {
    replay("classify", fuzz::classify);
}

#[test]
fn framing() {
    replay("framing", fuzz::framing);
}

#[test]
fn turn_framing() {
    replay("turn_framing", fuzz::turn_framing);
}

#[test]
fn turn_unauthenticated() {
    replay("turn_unauthenticated", fuzz::turn::turn_unauthenticated);
}

#[test]
fn turn_signed() {
    replay("turn_signed", fuzz::turn::turn_signed);
}

#[test]
fn signal_request() {
    replay("signal_request", fuzz::signal_request);
}

#[test]
fn join_request() {
    replay("join_request", fuzz::join_request);
}

#[test]
fn data_packet() {
    replay("data_packet", fuzz::data_packet);
}

#[test]
fn mixer() {
    replay("mixer", fuzz::mixer::mixer);
}

#[test]
fn access_token() {
    replay("access_token", fuzz::access_token);
}

#[test]
fn call_event() {
    replay("call_event", fuzz::focus::call_event);
}

#[test]
fn focus_message() {
    replay("focus_message", fuzz::focus::focus_message);
}

#[test]
fn seeds_are_in_the_corpus() {
    for (target, name, bytes) in seeds() {
        let path = corpus().join(target).join(name);
        if std::env::var_os("WRITE_SEEDS").is_some() {
            fs::create_dir_all(path.parent().expect("a folder")).expect("a writable corpus");
            fs::write(&path, &bytes).expect("a writable corpus");
        }
        assert_eq!(fs::read(&path).ok(), Some(bytes), "{} differs: write the seeds anew", path.display());
    }
}

/// A fuzzer that starts from refused input stays at the first check for long.
#[test]
fn seeds_get_through_the_readers() {
    for (target, name, bytes) in seeds() {
        let text = String::from_utf8_lossy(&bytes);
        let understood = match target {
            "sdp_parse" => SessionDescription::parse(&text).is_ok(),
            "vp8_descriptor" => vp8::Descriptor::parse(&bytes[4..]).is_some(),
            "vp9_descriptor" => vp9::Descriptor::parse(&bytes[3..]).is_some(),
            "dependency_descriptor" => reads_by_its_structure(&bytes[7..]),
            "red" => red::Primary::parse(&bytes).is_some(),
            "h264" => h264::starts_key_frame(&bytes),
            "rtp_header" => Packet::parse(&bytes).is_some_and(|packet| packet.extensions().count() > 0),
            "rtcp" => reads_as_rtcp(&bytes),
            "twcc" => reads_as_rtcp(&fuzz::transport_feedback(&bytes)),
            "classify" => classify::classify(&bytes) != classify::Datagram::Unknown,
            "turn_signed" if name == "seed-call" => relays_both_ways(&bytes),
            "turn_signed" => fuzz::turn::conversation(&bytes).allocated > 0,
            "mixer" => fuzz::mixer::conversation(&bytes) > 20,
            "signal_request" if name.ends_with(".json") => decode_request_text(&text).is_ok(),
            "signal_request" => decode_request(&bytes).is_ok(),
            "join_request" if name == "seed-parameter" => decode_join_request(&text).is_ok(),
            "join_request" => decode_join_request(&base64(&bytes)).is_ok(),
            "data_packet" => proto::DataPacket::decode(&bytes[..]).is_ok_and(|packet| packet.value.is_some()),
            "access_token" => serde_json::from_slice::<Claims>(&bytes).is_ok_and(|claims| claims.video.is_some()),
            "room_event" => serde_json::from_slice(&bytes).is_ok_and(|json| RoomEvent::parse(&json).is_some()),
            "call_event" => reads_as_call_event(&text),
            "focus_message" => Message::parse(&text).is_ok(),
            _ => true,
        };
        assert!(understood, "{target}/{name}");
    }
}

const CALL_MEMBER: &str = r#"{"application":"m.call","call_id":"","device_id":"D","expires":14400000,"focus_active":{"type":"livekit",
"focus_selection":"multi_sfu"},"foci_preferred":[{"type":"livekit","livekit_service_url":"https://rtc.example.org"}]}"#;
fn reads_as_call_event(text: &str) -> bool {
    let (event_type, content) = text.split_once('\n').expect("a type and a content");
    let content = serde_json::from_str(content).expect("JSON");
    Content::parse(event_type, &content).is_ok()
}

const INVITE: &str = r#"m.call.invite
{"call_id":"c","party_id":"p","version":"1","lifetime":60000,"invitee":"@b:x","offer":{"type":"offer","sdp":"v=0"},
"conf_id":"f","device_id":"D","sender_session_id":"s","dest_session_id":"t","seq":0,
"sdp_stream_metadata":{"a":{"purpose":"m.usermedia","audio_muted":true,"video_muted":false}}}"#;

const CANDIDATES: &str = r#"m.call.candidates
{"call_id":"c","version":0,"candidates":[{"candidate":"candidate:1","sdpMid":"0","sdpMLineIndex":0},{"candidate":""}]}"#;

const NEGOTIATE: &str = r#"m.call.negotiate
{"call_id":"c","party_id":"p","version":"1","lifetime":1.5,"description":{"type":"answer","sdp":"v=0"},
"org.matrix.msc3077.sdp_stream_metadata":{"a":{"purpose":"m.screenshare"}}}"#;

const SUBSCRIPTION: &str = r#"{"type":"m.call.track_subscription","content":{
"subscribe":[{"stream_id":"s","track_id":"t","width":640,"height":360}],"unsubscribe":[{"stream_id":"s","track_id":"u"}]}}"#;

const FOCUS_STREAMS: &str = r#"{"type":"m.call.sdp_stream_metadata_changed","content":{"sdp_stream_metadata":{"s":{
"user_id":"@a:x","device_id":"D","purpose":"m.usermedia","tracks":{"t":{"kind":"video","width":640,"height":360}}}}}}"#;

const CLAIMS: &str = r#"{"iss":"key","sub":"@a:b","exp":1700000000,"nbf":1.6e9,"attributes":{"k":"v"},"kind":"standard",
"video":{"room":"r","roomJoin":true,"canPublish":false,"canPublishSources":["camera"]},"name":"?~>"}"#;

#[allow(deprecated)]
fn user_packet() -> Vec<u8> {
    let user = proto::UserPacket {
        participant_sid: "PA_liar".into(),
        participant_identity: "liar".into(),
        payload: b"hello".to_vec(),
        destination_identities: vec!["bob".into()],
        topic: Some("chat".into()),
        nonce: vec![7; 16],
        ..Default::default()
    };
    let value = Some(proto::data_packet::Value::User(user));
    let packet = proto::DataPacket { participant_identity: "liar".into(), sequence: 3, value, ..Default::default() };
    packet.encode_to_vec()
}

fn stream_packet() -> Vec<u8> {
    let chunk = proto::data_stream::Chunk { stream_id: "s".into(), content: vec![1; 20], ..Default::default() };
    let value = Some(proto::data_packet::Value::StreamChunk(chunk));
    proto::DataPacket { destination_identities: vec!["bob".into()], value, ..Default::default() }.encode_to_vec()
}

/// Two who sing, in RED and plain, with a packet lost, another twice as long, a silence, and a telephone.
fn voices() -> Vec<u8> {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).expect("an encoder");
    encoder.set_bitrate(opus::Bitrate::Bits(24_000)).expect("a rate");
    let mut steps = Vec::new();
    for n in 0..24usize {
        let samples = if n == 9 { 1920 } else { 960 };
        let pcm: Vec<i16> = (0..samples).map(|t| (((n * 960 + t) as f32 * 0.03).sin() * 9000.0) as i16).collect();
        let frame = encoder.encode_vec(&pcm, 250).expect("a frame");
        let red = [&[0x6f][..], &frame].concat();
        let (what, payload) = if n % 4 == 3 { (0x18, &red) } else { (0x06, &frame) };
        steps.extend([what, 20, 8, payload.len() as u8]);
        steps.extend(payload);
        if n == 5 {
            steps.extend([3, 1, 0, 0, 4, 15, 6, 0]);
        }
    }
    steps.extend([0, 30, 0, 0, 2, 0x40, 0, 0, 0x29, 20, 8, 160]);
    steps.extend([0x2f; 160]);
    steps.extend([0, 5, 0, 0]);
    steps
}

/// The length of a descriptor, that one, and another.
fn reads_by_its_structure(bytes: &[u8]) -> bool {
    let (first, second) = bytes[1..].split_at(usize::from(bytes[0]));
    let opening = Descriptor::parse(first, None).and_then(|descriptor| descriptor.structure);
    opening.is_some() && Descriptor::parse(second, opening.as_deref()).is_some_and(|d| d.frame.is_some())
}

fn relays_both_ways(bytes: &[u8]) -> bool {
    let counts = fuzz::turn::conversation(bytes);
    counts.to_peers.packets == 2 && counts.to_clients.packets > 0
}

fn reads_as_rtcp(bytes: &[u8]) -> bool {
    let mut packets = rtcp::packets(bytes);
    packets.by_ref().count() > 0 && packets.malformed() == 0
}

/// (target, file, content)
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, bytes: &[u8]| seeds.push((target, format!("seed-{name}"), bytes.to_vec()));

    for (name, kind, state_key, content) in [
        ("ban", "m.room.member", "@b:example.org", r#"{"membership":"ban"}"#),
        ("acl", "m.room.server_acl", "", r#"{"allow":["*"],"deny":["*.evil.org"],"allow_ip_literals":false}"#),
        ("slot", "org.matrix.msc4143.rtc.slot", "m.call#ROOM", r#"{"status":"closed"}"#),
        ("tombstone", "m.room.tombstone", "", r#"{"replacement_room":"!b:example.org"}"#),
        ("membership", "org.matrix.msc3401.call.member", "_@a:example.org_D_m.call", CALL_MEMBER),
    ] {
        let event = format!(
            r#"{{"type":"{kind}","state_key":"{state_key}","content":{content},"room_id":"!a:example.org","sender":"@a:example.org","origin_server_ts":1700000000000}}"#
        );
        add("room_event", name, event.as_bytes());
    }

    add("sdp_parse", "firefox", FIREFOX_OFFER.as_bytes());
    add("sdp_parse", "small", SMALL_SDP.as_bytes());
    add("sdp_parse", "session-level", SESSION_LEVEL_SDP.as_bytes());

    let key_frame = [0x90, 0xf0, 0x81, 0x02, 0x33, 0x65, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02];
    add("vp8_descriptor", "everything", &[&[1, 2, 3, 4], &key_frame[..]].concat());
    add("vp8_descriptor", "narrow", &[1, 2, 3, 4, 0x90, 0xe0, 0x05, 0x06, 0x40, 0x01]);
    add("vp8_descriptor", "bare", &[1, 2, 3, 4, 0x10, 0x00]);

    add("vp9_descriptor", "flexible", &[1, 2, 3, 0xf8, 0x81, 0x02, 0x33, 0x03, 0x04, 0x86]);
    add("vp9_descriptor", "structure", &[&[1, 2, 3, 0xaa, 0x05, 0x10, 0x07][..], &VP9_STRUCTURE, &[0x86]].concat());
    let head = [0xab, 0xcd, 0, 0, 0x01, 0xff, 9, CHROMIUM_KEY_FRAME.len() as u8];
    add("dependency_descriptor", "chromium", &[&head[..], CHROMIUM_KEY_FRAME, &[0x8a, 0x00, 0x08]].concat());
    add("dependency_descriptor", "active", &[&head[..], CHROMIUM_KEY_FRAME, &[0x81, 0x12, 0x34, 0x43, 0xfc]].concat());
    add("red", "one-block", &[0xef, 0x0f, 0x00, 0x02, 0x6f, 9, 9, 1]);
    add("red", "none", &[0x6f, 1, 2]);

    add("h264", "parameter-set", &[0x67, 0x42, 0xe0, 0x1f]);
    add("h264", "aggregate", &[0x78, 0, 1, 0x09, 0, 2, 0x67, 0x42, 0, 1, 0x65]);
    add("h264", "fragment", &[0x7c, 0x85, 0x88]);

    add("rtp_header", "one-byte", &rtp_packet(Form::OneByte));
    add("rtp_header", "two-byte", &rtp_packet(Form::TwoByte));

    add("rtcp", "reports", &reports());
    add("rtcp", "feedback", &feedback());
    // Without the header, which the check puts in front.
    add("twcc", "one-bit", &transport_arrivals(&[Some(4), None, Some(9), Some(300)])[4..]);
    add("twcc", "two-bit", &transport_arrivals(&[Some(400), None, Some(390)])[4..]);
    add("twcc", "run", &transport_arrivals(&[Some(7); 20])[4..]);

    add("classify", "binding-request", &binding_request());
    add("classify", "dtls", &[&[22, 0xfe, 0xff][..], &[0; 24]].concat());
    add("classify", "rtp", &[&[0x90, 111][..], &[0; 24]].concat());
    add("classify", "channel", &[0x40, 0x01, 0, 2, 1, 2]);

    add("data_packet", "user", &user_packet());
    add("data_packet", "stream", &stream_packet());
    add("access_token", "grants", CLAIMS.as_bytes());

    add("mixer", "voices", &voices());
    add("call_event", "invite", INVITE.as_bytes());
    add("call_event", "candidates", CANDIDATES.as_bytes());
    add("call_event", "negotiate", NEGOTIATE.as_bytes());
    add("focus_message", "subscription", SUBSCRIPTION.as_bytes());
    add("focus_message", "streams", FOCUS_STREAMS.as_bytes());

    add("framing", "three", &[&[3][..], b"\0\x03abc\0\0\0\x01d\0\x05efg"].concat());
    add("framing", "too-long", &[1, 0xff, 0xff, 0]);

    let turn = [&binding_request()[..], b"\x40\x01\0\x05hello\0\0\0", &binding_request(), b"\x4f\xff\0\0"].concat();
    add("turn_framing", "messages", &[&[7][..], &turn].concat());
    add("turn_framing", "too-long", &[1, 0x40, 0, 0x40, 0]);
    let length = (binding_request().len() as u16).to_be_bytes();
    add("turn_framing", "ice", &[&[9][..], &length, &binding_request()].concat());

    let stun = |kind: [u8; 2], attributes: &[u8]| {
        let length = (attributes.len() as u16).to_be_bytes();
        [&kind[..], &length, &[0x21, 0x12, 0xa4, 0x42], &[0; 12], attributes].concat()
    };
    add("turn_unauthenticated", "binding", &stun([0, 1], &[]));
    add("turn_unauthenticated", "allocate", &stun([0, 3], UDP));
    add("turn_unauthenticated", "channel", &[0x40, 0, 0, 1, 1, 0, 0, 0]);
    add("turn_unauthenticated", "send", &stun([0, 0x16], &[TO_PEER, DATA].concat()));
    let claim = b"\0\x06\0\x041:a:\0\x14\0\x04abcd\0\x15\0\x04wxyz\0\x08\0\x14aaaaaaaaaaaaaaaaaaaa";
    add("turn_unauthenticated", "signed", &stun([0, 4], claim));

    let allocate = step(0, UDP);
    let (relayed, pause, data) = (step(6, b"from a peer"), step(255, b"x"), step(4, &[TO_PEER, DATA].concat()));
    let channel = step(3, &[&[0, 0x0c, 0, 4, 0x40, 0, 0, 0], TO_PEER].concat());
    let call = [allocate.clone(), step(2, TO_PEER), data, channel, step(5, b"on it"), relayed, pause.clone()].concat();
    add("turn_signed", "call", &call);
    let both_families = [UDP, &[0x80, 0, 0, 4, 2, 0, 0, 0]].concat();
    let end_of_one = [0, 0x17, 0, 4, 1, 0, 0, 0, 0, 0x0d, 0, 4, 0, 0, 0, 0];
    add("turn_signed", "both-families", &[step(0, &both_families), pause, step(1, &end_of_one)].concat());
    let even_port = [UDP, &[0, 0x18, 0, 1, 0x80, 0, 0, 0]].concat();
    add("turn_signed", "even-port", &[step(0, &even_port), step(1, &[0, 0x0d, 0, 4, 0, 0, 0, 0]), allocate].concat());

    // A hundred packets of 1200 bytes, feedback on all or on some of them, at times that fit or do not.
    let send = [0, 0, 100, 0x10, 0, 0x04, 0xb0, 0];
    let desire = [3, 0x07, 0xff, 0, 40, 0, 0, 0];
    let all = |reference| [1, 0, 100, 0, reference, 0x55, 0x55, 50];
    let some = |reference| [1, 0, 100, 0, reference, 0x94, 0xe7, 50];
    let pause = [2, 0, 50, 0, 0, 0, 0, 0];
    let steady: Vec<_> = (0..20).flat_map(|round| [send, all(round), desire, pause].concat()).collect();
    add("estimator_feedback", "steady", &steady);
    let forged: Vec<_> =
        (0..20).flat_map(|round| [send, some(round), some(255 - round), all(round)].concat()).collect();
    add("estimator_feedback", "forged", &forged);

    for (name, request) in signal_requests() {
        let request = proto::SignalRequest { message: Some(request) };
        add("signal_request", name, &request.encode_to_vec());
        add("signal_request", &format!("{name}.json"), &serde_json::to_vec(&request).expect("JSON"));
    }

    let inner = join_request_message().encode_to_vec();
    let plain = wrapped(proto::wrapped_join_request::Compression::None, inner.clone());
    let gzipped = wrapped(proto::wrapped_join_request::Compression::Gzip, gzip(&inner));
    // The check takes the parameter's text and also the bytes inside it.
    add("join_request", "plain", &plain);
    add("join_request", "gzip", &gzipped);
    add("join_request", "parameter", base64(&gzipped).as_bytes());
    seeds
}

/// Two spatial layers with sizes, and a group of two pictures (RFC 9628 §4.2.1).
const VP9_STRUCTURE: [u8; 13] = [0x38, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68, 0x02, 0x00, 0x24, 0x01];

/// The dependency descriptor of a key frame in the mode `L3T3_KEY`.
const CHROMIUM_KEY_FRAME: &[u8; 92] = include_bytes!("../src/rtp/dependency_descriptor/chromium-key-frame.bin");

const SMALL_SDP: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\nc=IN IP4 0.0.0.0\r\na=candidate:1 1 udp 2122194687 192.0.2.2 9 typ host\r\n\
    a=end-of-candidates\r\na=ice-ufrag:E3/P\r\na=ice-pwd:g4s70LlzgtoqufYCiGZNeNBd\r\na=fingerprint:sha-1 03:5F:AB:10\r\n\
    a=setup:actpass\r\na=mid:0\r\na=extmap:4/sendonly urn:ietf:params:rtp-hdrext:sdes:mid\r\na=sendonly\r\na=msid:- t\r\na=rtcp-mux\r\n\
    a=rtcp-rsize\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-fb:* nack\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
    a=ssrc:1 cname:x\r\na=ssrc:1 msid:- t\r\na=ssrc-group:FID 1 2\r\n\
    m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=bundle-only\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\na=rid:q send\r\na=rid:f send\r\n\
    a=simulcast:send q,h;~f recv a\r\n\
    m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n";

const SESSION_LEVEL_SDP: &str = "v=0\na=ice-lite\na=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\na=setup:passive\na=recvonly\n\
    m=audio 9 RTP/AVP 0\na=mid:a\nm=video 0 RTP/AVPF 0\n";

fn rtp_packet(form: Form) -> Vec<u8> {
    let mut packet = Vec::new();
    let header = Header { marker: true, payload_type: 96, sequence: 7, timestamp: 90_000, ssrc: 1 };
    let mut writer = HeaderWriter::new(&mut packet, header, form);
    writer.element(4, b"0").expect("an element that fits");
    writer.reserve(3, 2).expect("an element that fits");
    writer.finish();
    packet.extend([0x10, 0, 1, 1]);
    // Padding of two bytes.
    packet.extend([0, 2]);
    packet[0] |= 0x20;
    packet
}

fn reports() -> Vec<u8> {
    let mut bytes = Vec::new();
    let info = rtcp::SenderInfo { ssrc: 1, ntp: ntp::NtpTime(2 << 32), rtp_timestamp: 3, packets: 4, octets: 5 };
    rtcp::write_sender_report(&mut bytes, &info);
    rtcp::write_cname(&mut bytes, 1, "name");
    let block = rtcp::ReportBlock { ssrc: 2, packets_lost: -1, ..Default::default() };
    rtcp::write_receiver_report(&mut bytes, 1, &[block]);
    rtcp::write_goodbye(&mut bytes, &[1]);
    bytes
}

fn feedback() -> Vec<u8> {
    let mut bytes = Vec::new();
    rtcp::write_nack(&mut bytes, 1, 2, [3, 4, 19, 20]);
    rtcp::write_picture_loss(&mut bytes, 1, 2);
    rtcp::write_full_intra_request(&mut bytes, 1, &[(2, 3)]);
    rtcp::write_remote_bitrate(&mut bytes, 1, 1_000_000, &[2]);
    bytes.extend(transport_arrivals(&[Some(4), None]));
    bytes
}

fn transport_arrivals(arrivals: &[Option<i64>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let heading = twcc::Heading { sender: 1, media: 2, base_sequence: 65_535, reference_time: 9, feedback_count: 1 };
    twcc::write(&mut bytes, &heading, arrivals);
    bytes
}

/// REQUESTED-TRANSPORT.
const UDP: &[u8] = &[0, 0x19, 0, 4, 17, 0, 0, 0];

/// XOR-PEER-ADDRESS: 93.184.216.34, port 40,000.
const TO_PEER: &[u8] = &[0, 0x12, 0, 8, 0, 1, 0xbd, 0x52, 0x7c, 0xaa, 0x7c, 0x60];

const DATA: &[u8] = b"\0\x13\0\x03abc\0";

/// What to do, and with which bytes.
fn step(what: u8, bytes: &[u8]) -> Vec<u8> {
    [&[what, bytes.len() as u8], bytes].concat()
}

fn binding_request() -> Vec<u8> {
    let header = [0x00, 0x01, 0x00, 0x18, 0x21, 0x12, 0xa4, 0x42];
    [&header[..], &[7; 12], b"\x00\x24\x00\x04\x6e\x00\x01\xff\x00\x06\x00\x09abcd:efgh\0\0\0"].concat()
}

fn signal_requests() -> Vec<(&'static str, proto::signal_request::Message)> {
    use proto::signal_request::Message as Request;
    let layer = |quality, width, height, rid: &str| proto::VideoLayer {
        quality,
        width,
        height,
        rid: rid.into(),
        ..Default::default()
    };
    vec![
        ("offer", Request::Offer(offer())),
        (
            "trickle",
            Request::Trickle(proto::TrickleRequest {
                candidate_init: r#"{"candidate":"candidate:1 1 udp 1 192.0.2.2 9 typ host","sdpMid":"0"}"#.into(),
                target: 0,
                r#final: true,
            }),
        ),
        (
            "add-track",
            Request::AddTrack(proto::AddTrackRequest {
                cid: "camera".into(),
                r#type: 1,
                source: 1,
                width: 1280,
                height: 720,
                layers: vec![layer(0, 320, 180, "q"), layer(2, 1280, 720, "f")],
                simulcast_codecs: vec![proto::SimulcastCodec {
                    codec: "vp8".into(),
                    cid: "camera".into(),
                    ..Default::default()
                }],
                encryption: 1,
                audio_features: vec![1, 2],
                ..Default::default()
            }),
        ),
        (
            "subscription",
            Request::Subscription(proto::UpdateSubscription {
                track_sids: vec!["TR_a".into(), "TR_b".into()],
                subscribe: true,
                ..Default::default()
            }),
        ),
        (
            "track-setting",
            Request::TrackSetting(proto::UpdateTrackSettings {
                track_sids: vec!["TR_a".into()],
                width: 640,
                height: 360,
                ..Default::default()
            }),
        ),
        ("ping", Request::Ping(1_700_000_000_000)),
    ]
}

fn offer() -> proto::SessionDescription {
    proto::SessionDescription { r#type: "offer".into(), sdp: SMALL_SDP.into(), id: 1, ..Default::default() }
}

fn join_request_message() -> proto::JoinRequest {
    proto::JoinRequest {
        client_info: Some(proto::ClientInfo { sdk: 1, protocol: 16, version: "2.0.0".into(), ..Default::default() }),
        connection_settings: Some(proto::ConnectionSettings { auto_subscribe: true, ..Default::default() }),
        participant_attributes: [("key".to_owned(), "value".to_owned())].into(),
        publisher_offer: Some(offer()),
        ..Default::default()
    }
}

fn wrapped(compression: proto::wrapped_join_request::Compression, join_request: Vec<u8>) -> Vec<u8> {
    proto::WrappedJoinRequest { compression: compression.into(), join_request }.encode_to_vec()
}

/// Stored, not compressed: the same bytes with every version of the library, and easy for a fuzzer to change.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::prelude::BASE64_URL_SAFE.encode(bytes)
}
