//! What must hold for any bytes, one function for each fuzz target.
//!
//! `fuzz_targets/` feeds them from libFuzzer; `tests/fuzz_corpus.rs` of the main package includes this file and feeds them
//! from `corpus/`, so that whatever was found once is checked on every test run.

pub mod focus;
pub mod mixer;
pub mod turn;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE;
use livekit_protocol as proto;
use parlour::livekit::data::{Sender, Upstream};
use parlour::livekit::{Claims, Keys, TokenError, decode_join_request, decode_request, decode_request_text};
use parlour::matrix::room_events::{RoomChange, RoomEvent};
use parlour::rtp::dependency_descriptor::{self, Descriptor};
use parlour::rtp::header::{Form, HeaderWriter, Packet};
use parlour::rtp::{ActiveTargets, DependencyRewrite, h264, red, rtcp, twcc, vp8, vp9};
use parlour::sfu::DataChannel;
use parlour::transport::classify::{self, Datagram};
use parlour::transport::estimator::{Estimator, MAX_BITRATE, MIN_BITRATE, START_BITRATE};
use parlour::transport::framing::{self, Deframer, FramingError};
use parlour::transport::sdp::{Problem, SessionDescription};
use parlour::turn::framing as turn_framing;
use prost::Message;

/// What is read can be written, and reads the same again.
pub fn sdp_parse(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match SessionDescription::parse(text) {
        Ok(description) => match SessionDescription::parse(&description.to_string()) {
            Ok(again) => assert_eq!(again, description),
            // What stood once for all sections or codecs is now said by each.
            Err(error) => assert!(matches!(error.problem, Problem::TooLong | Problem::LineTooLong), "{error}"),
        },
        Err(error) => assert!((1..=text.split('\n').count()).contains(&error.line)),
    }
}

/// Four bytes of new numbers, then a payload: rewriting keeps the shape and leaves the frame alone.
pub fn vp8_descriptor(data: &[u8]) {
    let Some((&[high, low, tl0_picture_index, key_index], payload)) = data.split_first_chunk() else {
        return;
    };
    let numbers = vp8::Numbers { picture_id: u16::from_be_bytes([high, low]), tl0_picture_index, key_index };
    let Some(before) = vp8::Descriptor::parse(payload) else {
        assert!(payload.len() < 6);
        return;
    };
    let mut rewritten = payload.to_vec();
    before.rewrite(&mut rewritten, numbers);
    assert_eq!(rewritten[before.len..], payload[before.len..]);
    let after = vp8::Descriptor::parse(&rewritten).expect("still a descriptor");
    assert_eq!(after.len, before.len);
    assert_eq!(after.tl0_picture_index, before.tl0_picture_index.map(|_| tl0_picture_index));
    assert_eq!(after.temporal_layer, before.temporal_layer);
    assert_eq!(after.starts_key_frame(&rewritten), before.starts_key_frame(payload));
    assert_eq!(after.dimensions(&rewritten), before.dimensions(payload));
}

/// Whether a key frame starts is told by headers: unless units are aggregated, the first two bytes decide.
pub fn h264(data: &[u8]) {
    let starts = h264::starts_key_frame(data);
    let is_aggregate = data.first().is_some_and(|first| first & 0x1f == 24);
    if !is_aggregate {
        assert_eq!(starts, h264::starts_key_frame(&data[..data.len().min(2)]));
    }
}

/// Elements that were read can be written, and read the same again.
pub fn rtp_header(data: &[u8]) {
    let Some(packet) = Packet::parse(data) else {
        return;
    };
    assert!(packet.header_len <= data.len());
    if let Some(payload) = packet.payload() {
        assert!(data[packet.header_len..].starts_with(payload));
    }
    let form = packet.extensions().fold(Form::OneByte, |form, (id, value)| form.with(id, value.len()));
    let mut written = Vec::new();
    let mut writer = HeaderWriter::new(&mut written, packet.header, form);
    for (id, value) in packet.extensions() {
        writer.element(id, value).expect("a form that fits");
    }
    let len = writer.finish();
    let again = Packet::parse(&written).expect("our own header");
    assert_eq!((again.header, again.header_len), (packet.header, len));
    assert!(again.extensions().eq(packet.extensions()));
}

/// What is read is in proportion to what there is, and feedback that was read can be written and read the same again.
pub fn rtcp(data: &[u8]) {
    use rtcp::Packet;
    let mut packets = rtcp::packets(data);
    for packet in packets.by_ref() {
        let mut written = Vec::new();
        match packet {
            Packet::SenderReport(report) => {
                rtcp::write_sender_report(&mut written, &report.info);
                assert!(report.reports.count() <= 31);
            }
            Packet::ReceiverReport(report) => {
                let blocks: Vec<_> = report.reports.collect();
                rtcp::write_receiver_report(&mut written, report.ssrc, &blocks);
            }
            Packet::Goodbye(goodbye) => rtcp::write_goodbye(&mut written, &goodbye.ssrcs.collect::<Vec<_>>()),
            Packet::Nack(nack) => {
                rtcp::write_nack(&mut written, nack.sender, nack.media, nack.lost);
                assert!(nack.lost.count() <= data.len() * 17 / 4);
            }
            Packet::PictureLoss(loss) => rtcp::write_picture_loss(&mut written, loss.sender, loss.media),
            Packet::FullIntraRequest(request) => {
                let requests: Vec<_> = request.requests.collect();
                rtcp::write_full_intra_request(&mut written, request.sender, &requests);
            }
            Packet::RemoteBitrate(estimate) => {
                let ssrcs: Vec<_> = estimate.ssrcs.collect();
                rtcp::write_remote_bitrate(&mut written, estimate.sender, estimate.bitrate, &ssrcs);
            }
            Packet::TransportWide(feedback) => assert_eq!(feedback.arrivals().count(), usize::from(feedback.count)),
        }
        let again = rtcp::packets(&written).next();
        match (packet, again) {
            // Its blocks are left out.
            (Packet::SenderReport(report), Some(Packet::SenderReport(again))) => assert_eq!(again.info, report.info),
            // Its reserved bytes are left out.
            (Packet::FullIntraRequest(request), Some(Packet::FullIntraRequest(again))) => {
                assert!(again.requests.eq(request.requests));
            }
            // The same losses may be said in other words.
            (Packet::Nack(nack), Some(Packet::Nack(again))) => {
                let again: HashSet<u16> = again.lost.collect();
                assert_eq!(again, nack.lost.collect());
            }
            // More bits than can be written.
            (Packet::RemoteBitrate(estimate), Some(Packet::RemoteBitrate(again))) if estimate.bitrate == u64::MAX => {
                assert!(again.ssrcs.eq(estimate.ssrcs));
            }
            (Packet::TransportWide(_), None) => {}
            (packet, again) => assert_eq!(again, Some(packet)),
        }
    }
    assert!(packets.malformed() as usize <= data.len() / 4 + 1);
}

/// Two SSRCs and what follows them: arrivals that were read can be written, and read the same again.
pub fn twcc(data: &[u8]) {
    let packet = transport_feedback(data);
    let Some(rtcp::Packet::TransportWide(feedback)) = rtcp::packets(&packet).next() else {
        return;
    };
    let arrivals: Vec<_> = feedback.arrivals().map(|(_, arrival)| arrival).collect();
    assert_eq!(arrivals.len(), usize::from(feedback.count));
    let heading = twcc::Heading {
        sender: feedback.sender,
        media: feedback.media,
        base_sequence: feedback.base_sequence,
        reference_time: feedback.reference_time,
        feedback_count: feedback.feedback_count,
    };
    let mut written = Vec::new();
    assert_eq!(twcc::write(&mut written, &heading, &arrivals), arrivals.len());
    match rtcp::packets(&written).next() {
        Some(rtcp::Packet::TransportWide(again)) => assert!(again.arrivals().eq(feedback.arrivals())),
        other => panic!("{other:?} instead of feedback"),
    }
}

/// The packet with this content, filled up with zeros to whole words.
pub fn transport_feedback(content: &[u8]) -> Vec<u8> {
    let words = content.len().div_ceil(4).min(u16::MAX.into());
    let mut packet = vec![0x8f, 205];
    packet.extend((words as u16).to_be_bytes());
    packet.extend(&content[..content.len().min(words * 4)]);
    packet.resize(4 + words * 4, 0);
    packet
}

/// Three bytes of new numbers, then a payload: rewriting keeps the shape and leaves the frame alone.
pub fn vp9_descriptor(data: &[u8]) {
    let Some((&[high, low, tl0_picture_index], payload)) = data.split_first_chunk() else {
        return;
    };
    let numbers = vp9::Numbers { picture_id: u16::from_be_bytes([high, low]), tl0_picture_index };
    let Some(before) = vp9::Descriptor::parse(payload) else {
        return;
    };
    assert!(before.len <= payload.len());
    let mut rewritten = payload.to_vec();
    before.rewrite(&mut rewritten, numbers);
    assert_eq!(rewritten[before.len..], payload[before.len..]);
    let after = vp9::Descriptor::parse(&rewritten).expect("still a descriptor");
    assert_eq!(after.len, before.len);
    assert_eq!(after.tl0_picture_index, before.tl0_picture_index.map(|_| tl0_picture_index));
    assert_eq!((after.layer, after.references, after.structure), (before.layer, before.references, before.structure));
    assert_eq!(after.starts_key_picture(), before.starts_key_picture());
}

/// A new frame number, bits and count of decode targets, the length of a first descriptor, that one, and a second, which is
/// read by the structure of the first. Rewritten, they say the same but for what was to change.
pub fn dependency_descriptor(data: &[u8]) {
    let Some((&[high, low, a, b, c, d, count, len], rest)) = data.split_first_chunk() else {
        return;
    };
    let Some((first, second)) = rest.split_at_checked(usize::from(len)) else {
        return;
    };
    let bits = u32::from_be_bytes([a, b, c, d]);
    let opening = Descriptor::parse(first, None);
    let structure = opening.and_then(|descriptor| descriptor.structure);
    for bytes in [first, second].into_iter().filter(|bytes| bytes.len() <= 255) {
        let Some(before) = Descriptor::parse(bytes, structure.as_deref()) else {
            continue;
        };
        let known = before.structure.as_deref().or(structure.as_deref());
        let count = known.map_or(count % 33, |structure| structure.targets().len() as u8);
        let bits = bits & (u64::MAX >> (64 - u32::from(count.max(1)))) as u32;
        for active_targets in [None, Some(ActiveTargets { bits, count })] {
            let change = DependencyRewrite { frame_number: u16::from_be_bytes([high, low]), active_targets };
            let mut room = [0; 255];
            let Some(len) = dependency_descriptor::rewrite(bytes, change, &mut room) else {
                continue;
            };
            assert!(len <= bytes.len() + 5);
            if known.is_none() {
                continue;
            }
            let mut expected = before.clone();
            expected.frame_number = change.frame_number;
            expected.active_targets = active_targets.map(|targets| targets.bits).or(before.active_targets);
            assert_eq!(Descriptor::parse(&room[..len], structure.as_deref()), Some(expected));
        }
    }
}

/// The primary block lies inside the packet, and is what a packet without redundancy says of itself.
pub fn red(data: &[u8]) {
    let Some(primary) = red::Primary::parse(data) else {
        return;
    };
    let block = &data[primary.from..];
    let alone = [&[primary.payload_type], block].concat();
    let expected = red::Primary { payload_type: primary.payload_type, from: 1 };
    assert_eq!(red::Primary::parse(&alone), Some(expected));
}

/// Every verdict agrees with the first byte, and a ufrag is part of the packet.
pub fn classify(data: &[u8]) {
    let first = data.first().copied();
    match classify::classify(data) {
        Datagram::Stun { local_ufrag } => {
            assert!(first.is_some_and(|first| first < 4));
            if let Some(ufrag) = local_ufrag {
                let needle = [ufrag.as_bytes(), b":"].concat();
                assert!(!ufrag.is_empty() && data.windows(needle.len()).any(|window| window == needle));
            }
        }
        Datagram::Dtls => assert!(first.is_some_and(|first| (20..64).contains(&first))),
        Datagram::Rtp => assert!(first.is_some_and(|first| first >> 6 == 2) && data.len() <= classify::MAX_RTP_BYTES),
        Datagram::Oversized => assert!(data.len() > classify::MAX_RTP_BYTES),
        Datagram::Turn => assert!(first.is_some_and(|first| first < 4 || first >> 6 == 1)),
        Datagram::Unknown => {}
    }
}

/// One byte of step, then a stream: cut into steps it gives the same packets as whole.
pub fn framing(data: &[u8]) {
    let Some((&step, stream)) = data.split_first() else {
        return;
    };
    let stream = &stream[..stream.len().min(1 << 16)];
    let whole = deframe([stream]);
    let cut = deframe(stream.chunks(usize::from(step).max(1)));
    assert_eq!(cut, whole);
    for packet in whole.0 {
        let framed = framing::frame(&packet).expect("no longer than it came");
        assert_eq!(deframe([&framed[..]]), (vec![packet], Ok(())));
    }
}

fn deframe<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Result<(), FramingError>) {
    let (mut deframer, mut packets) = (Deframer::new(), Vec::new());
    for read in reads {
        if let Err(error) = deframer.push(read) {
            return (packets, Err(error));
        }
        loop {
            match deframer.next_frame() {
                Ok(Some(packet)) => packets.push(packet.to_vec()),
                Ok(None) => break,
                Err(error) => return (packets, Err(error)),
            }
        }
    }
    (packets, Ok(()))
}

/// One byte of step, then a stream: cut into steps it gives the same messages as whole, and each is what its header says. A
/// stream that begins with a message of STUN is taken for TURN from its first bytes.
pub fn turn_framing(data: &[u8]) {
    let Some((&step, stream)) = data.split_first() else {
        return;
    };
    let stream = &stream[..stream.len().min(1 << 16)];
    let whole = turn_messages([stream]);
    let cut = turn_messages(stream.chunks(usize::from(step).max(1)));
    assert_eq!(cut, whole);
    for message in &whole.0 {
        assert!(message.len() <= turn_framing::MAX_MESSAGE_BYTES);
        let header = if message[0] < 4 { 20 } else { 4 };
        assert_eq!(message.len(), header + usize::from(u16::from_be_bytes([message[2], message[3]])));
    }
    let verdict = turn_framing::sniff(stream);
    if stream.len() >= turn_framing::SNIFFED_BYTES {
        assert_ne!(verdict, Ok(None));
        assert_eq!(turn_framing::sniff(&stream[..turn_framing::SNIFFED_BYTES]), verdict);
    }
    if whole.0.first().is_some_and(|message| message[0] < 4) {
        assert_eq!(verdict, Ok(Some(turn_framing::Stream::Turn)));
    }
}

fn turn_messages<'a>(
    reads: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Vec<u8>>, Result<(), turn_framing::FramingError>) {
    let (mut deframer, mut messages) = (turn_framing::Deframer::new(), Vec::new());
    for read in reads {
        if let Err(error) = deframer.push(read) {
            return (messages, Err(error));
        }
        loop {
            match deframer.next_message() {
                Ok(Some(message)) => messages.push(message.to_vec()),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
    }
    (messages, Ok(()))
}

/// A message that was read can be written and read again, in both encodings.
pub fn signal_request(data: &[u8]) {
    if let Ok(request) = decode_request(data) {
        decode_request(&request.encode_to_vec()).expect("our own encoding");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = decode_request_text(text);
    }
}

/// The parameter as it comes, and the bytes inside it.
pub fn join_request(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = decode_join_request(text);
    }
    let _ = decode_join_request(&BASE64_URL_SAFE.encode(data));
}

/// What is passed on says the truth about who sent it, and is not much longer than it came.
pub fn data_packet(data: &[u8]) {
    let sender = Sender { sid: "PA_sender", identity: "@sender:example.org", hidden: false, may_publish: true };
    for channel in [DataChannel::Reliable, DataChannel::Lossy] {
        let Ok(packet) = Upstream::default().accept(Instant::now(), &sender, channel, data) else {
            continue;
        };
        assert!(packet.message.len() <= data.len() + 600);
        let packet = proto::DataPacket::decode(&packet.message[..]).expect("still a packet");
        assert_eq!(
            (packet.participant_sid.as_str(), packet.participant_identity.as_str()),
            (sender.sid, sender.identity)
        );
        #[allow(deprecated)]
        if let Some(proto::data_packet::Value::User(user)) = packet.value {
            assert_eq!(
                (user.participant_sid.as_str(), user.participant_identity.as_str()),
                (sender.sid, sender.identity)
            );
        }
    }
}

/// A token as it comes is nobody's; claims that are signed read the same again, whatever is in them.
pub fn access_token(data: &[u8]) {
    let keys = Keys::new([("key", "a secret that no fuzzer finds by trying")]).expect("a key");
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(keys.verify(text, 0).is_err());
    }
    let Ok(claims) = serde_json::from_slice::<Claims>(data) else {
        return;
    };
    let _ = (claims.identity(), claims.permissions());
    match keys.verify(&keys.sign(&claims), claims.exp.unwrap_or_default()) {
        Ok(read) => {
            assert_eq!((read.iss.as_str(), &read.sub, &read.name), ("key", &claims.sub, &claims.name));
            assert_eq!((read.exp, read.nbf, &read.video), (claims.exp, claims.nbf, &claims.video));
            assert_eq!((&read.metadata, &read.attributes), (&claims.metadata, &claims.attributes));
        }
        Err(error) => {
            assert!(matches!(error, TokenError::Invalid(_)) && (claims.exp.is_none() || claims.nbf > claims.exp));
        }
    }
}

/// An event of a homeserver's transaction: what is taken from it is bounded, and an access control list says the same of a
/// server however it is asked.
pub fn room_event(data: &[u8]) {
    let Some(event) = serde_json::from_slice(data).ok().and_then(|json| RoomEvent::parse(&json)) else {
        return;
    };
    for id in [&event.room_id, &event.sender] {
        assert!((1..=255).contains(&id.len()));
    }
    match &event.change {
        RoomChange::Member { user, .. } => assert!(user.len() <= 255 && user.starts_with('@')),
        RoomChange::Slot { id, .. } => assert!(id.len() <= 255),
        RoomChange::CallMember(member) => assert!(member.state_key.len() <= 255 && member.user == event.sender),
        RoomChange::ServerAcl(acl) => assert_eq!(acl.allows("Example.org:8448"), acl.allows("example.org")),
        RoomChange::Tombstone(_) => {}
    }
}

/// Steps of eight bytes: what to do, three numbers of two bytes, one of one byte. Whatever is reported, the estimate stays
/// within its bounds, and unless something was probed or sent at a rate, it does not rise above the start.
pub fn estimator_feedback(data: &[u8]) {
    let start = Instant::now();
    let (mut estimator, mut now, mut next, mut probed) = (Estimator::new(), start, 65_000u64, 0);
    // A tenth of a second holds no more than what is sent within two of these.
    let (mut window, mut peak) = ((start, 0, 0), 0);
    for step in data.chunks_exact(8) {
        let numbers = [[step[1], step[2]], [step[3], step[4]], [step[5], step[6]]].map(u16::from_be_bytes);
        let [first, second, third] = numbers;
        match step[0] % 4 {
            0 => {
                for _ in 0..first % 512 {
                    now += Duration::from_micros(second.into());
                    let probe = estimator.poll_probe(now);
                    probed = probed.max(probe.map_or(0, |probe| probe.bitrate));
                    estimator.sent(now, next, third.into(), probe.map(|probe| probe.id));
                    next += 1;
                    if now - window.0 > Duration::from_millis(100) {
                        window = (now, 0, window.1);
                    }
                    window.1 += u64::from(third);
                    peak = peak.max(window.1 + window.2);
                }
            }
            1 => {
                let base = (next as u16).wrapping_sub(first);
                let reference = u32::from(second) << 8 | u32::from(step[7]);
                // Two bits a packet: missing, at once, a little later, much later or earlier.
                let mut arrival = 0i64;
                let packets = (0..u16::from(step[7]) * 2).map(|index| {
                    let kind = third.rotate_left(u32::from(index) * 2) & 3;
                    arrival += [0, 0, 4, i64::from(third as i16) << (step[7] & 31)][usize::from(kind)];
                    (base.wrapping_add(index), (kind > 0).then_some(arrival))
                });
                estimator.feedback(now, reference, packets);
            }
            2 => now += Duration::from_millis(first.into()),
            _ => {
                estimator.set_desired(now, u64::from(first) << 12);
                estimator.round_trip(Duration::from_millis(second.into()));
            }
        }
        probed = probed.max(estimator.poll_probe(now).map_or(0, |probe| probe.bitrate));
        if let Some(estimate) = estimator.estimate() {
            let most = (peak * 120 + 10_000).max(START_BITRATE).max(probed);
            assert!((MIN_BITRATE..=MAX_BITRATE.min(most)).contains(&estimate), "{estimate} of {most}");
            assert!((0.0..=1.0).contains(&estimator.loss()));
        }
    }
}
