//! The egress against an independent receiver: webrtc-rs decrypts all that it sends, with what the client would have of the keys.

use std::collections::HashSet;
use std::net::SocketAddr;

use proptest::prelude::*;
use rtc_crypto::RTCCryptoProvider;
use rtc_crypto::providers::RingProvider;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::*;
use crate::rtp::header::Packet;
use crate::rtp::sequence::extend_sequence;
use crate::rtp::{Rewrite, rtcp, twcc, vp8};
use crate::sfu::Codec;
use crate::transport::sdp::ExtMap;
use crate::transport::srtp::{DtlsRole, Profile, keys_from_dtls};
use crate::transport::{AudioLevel, IceCredentials, Origin, Protocol};

mod operations;

const AUDIO: u32 = 1_000;
const VIDEO: u32 = 2_000;
const RTX: u32 = 2_001;
const CLIENT: u32 = 77;
const UNIX: Duration = Duration::from_secs(1_700_000_000);

/// A descriptor with 15-bit picture id, TL0PICIDX and KEYIDX, before a frame.
const VP8: [u8; 10] = [0x90, 0xf0, 0x81, 0x02, 0x33, 0x65, 0x10, 0x02, 0x00, 0x9d];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn extensions(numbered: bool) -> ExtensionIds {
    let map = |id, extension: crate::transport::codecs::HeaderExtension| ExtMap { id, uri: extension.uri().into() };
    use crate::transport::codecs::HeaderExtension::*;
    let mut list = vec![map(4, Mid), map(2, AbsSendTime), map(1, AudioLevel)];
    if numbered {
        list.push(map(3, TransportCc));
    }
    ExtensionIds::new(&list)
}

fn audio(numbered: bool) -> StreamSpec {
    StreamSpec {
        ssrc: AUDIO,
        rtx_ssrc: None,
        payload_types: PayloadTypes { media: 111, plain: 111, rtx: None },
        clock_rate: 48_000,
        mid: "0".into(),
        extensions: extensions(numbered),
        cname: "PA_alice".into(),
    }
}

fn video() -> StreamSpec {
    StreamSpec {
        ssrc: VIDEO,
        rtx_ssrc: Some(RTX),
        payload_types: PayloadTypes { media: 96, plain: 96, rtx: Some(97) },
        clock_rate: 90_000,
        mid: "1".into(),
        ..audio(true)
    }
}

/// A packet as it arrived, opened.
#[derive(Debug)]
struct Arrived {
    bytes: Vec<u8>,
}

impl Arrived {
    fn packet(&self) -> Packet<'_> {
        Packet::parse(&self.bytes).expect("RTP")
    }

    fn payload(&self) -> &[u8] {
        self.packet().payload().expect("whole padding")
    }

    fn number(&self) -> Option<u16> {
        self.packet().extension(3).map(|bytes| u16::from_be_bytes(bytes.try_into().unwrap()))
    }
}

/// An egress, and the client it sends to.
struct Pair {
    start: Instant,
    now: Instant,
    egress: Egress,
    outbox: Outbox,
    theirs: Context,
    client: SendKeys,
    /// (SSRC, index) of every RTP packet, and of every RTCP packet.
    rtp_indices: HashSet<(u32, u64)>,
    rtcp_indices: HashSet<(u32, u32)>,
    newest: HashMap<u32, u64>,
    extensions: Extensions,
}

impl Pair {
    fn new(profile: Profile) -> Pair {
        let material: Vec<u8> = (0..profile.keying_material_len()).map(|at| (at * 7 + 3) as u8).collect();
        let (keys, salts) = material.split_at(2 * profile.key_len());
        let theirs = match profile {
            Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
            Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
            Profile::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        };
        let server = (&keys[profile.key_len()..], &salts[profile.salt_len()..]);
        let theirs = Context::new(server.0, server.1, theirs, None, None, RingProvider::new().crypto()).unwrap();
        let (client, _) = keys_from_dtls(profile, &material, DtlsRole::Client).unwrap();
        let start = Instant::now();
        let ice = IceCredentials { ufrag: String::new(), password: String::new() };
        let new = NewConnection { ice, session_id: 1, seed: 1, now: start, unix_time: UNIX };
        let mut egress = Egress::new(&new, KeyExport::filled(profile, &material, DtlsRole::Server));
        egress.secure();
        Pair {
            start,
            now: start,
            egress,
            outbox: Outbox::default(),
            theirs,
            client,
            rtp_indices: HashSet::new(),
            rtcp_indices: HashSet::new(),
            newest: HashMap::new(),
            extensions: Extensions::default(),
        }
    }

    fn with(mut self, spec: StreamSpec) -> (Pair, SenderId) {
        let id = self.bind(spec);
        (self, id)
    }

    fn bind(&mut self, spec: StreamSpec) -> SenderId {
        let id = self.egress.add();
        self.egress.bind(id, spec);
        id
    }

    fn route() -> Route {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Route { protocol: Protocol::Udp, source: address(3478), destination: address(5000) }
    }

    fn send(&mut self, id: SenderId, sequence: u64, payload: &[u8], rewrite: Rewrite) -> Option<Instant> {
        let ticks = self.now.duration_since(self.start).as_millis() as u32 * 90;
        let packet = OutgoingPacket {
            sequence,
            timestamp: ticks.wrapping_add(5_000),
            marker: true,
            codec: Codec::Vp8,
            payload,
            rewrite,
            dependency: None,
            extensions: &self.extensions,
            arrival: self.now,
            sender_time: None,
            origin: Origin { layer: 1, sequence: sequence + 10_000 },
        };
        self.egress.send(self.now, Self::route(), id, &packet, &mut self.outbox)
    }

    fn resend(&mut self, missing: &Missing, payload: &[u8]) {
        let extensions = Extensions::default();
        self.egress.resend(self.now, Self::route(), missing, payload, &extensions, &mut self.outbox);
    }

    fn tick(&mut self) {
        self.egress.handle_timeout(self.now, Self::route(), &mut self.outbox);
    }

    /// What came out since the last call, opened: media and reports. Panics when webrtc-rs does not accept it, or when an
    /// index came twice.
    fn arrive(&mut self) -> (Vec<Arrived>, Vec<Vec<u8>>) {
        let sealed: Vec<Vec<u8>> = self.outbox.runs().flat_map(|(_, packets)| packets.map(<[u8]>::to_vec)).collect();
        self.outbox.clear();
        let (mut media, mut reports) = (Vec::new(), Vec::new());
        for packet in sealed {
            if rtcp::is_rtcp(&packet) {
                let tag = if self.client.profile() == Profile::AesCm128HmacSha1_80 { 10 } else { 0 };
                let index = u32::from_be_bytes(*packet[..packet.len() - tag].last_chunk().unwrap());
                let ssrc = u32::from_be_bytes(packet[4..8].try_into().unwrap());
                assert!(self.rtcp_indices.insert((ssrc, index)), "RTCP index {index:x} of {ssrc} twice");
                reports.push(self.theirs.decrypt_rtcp(&packet).expect("a report they accept").to_vec());
                continue;
            }
            let header = Packet::parse(&packet).unwrap().header;
            let newest = self.newest.entry(header.ssrc).or_insert(u64::from(header.sequence));
            let sequence = extend_sequence(*newest, header.sequence);
            *newest = sequence.max(*newest);
            assert!(self.rtp_indices.insert((header.ssrc, sequence)), "index {sequence} of {} twice", header.ssrc);
            let bytes = self.theirs.decrypt_rtp(&packet).expect("a packet they accept").to_vec();
            media.push(Arrived { bytes });
        }
        (media, reports)
    }

    /// Gives the egress what the client reports.
    fn report(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut packet = Vec::new();
        write(&mut packet);
        self.client.seal_rtcp(&mut packet).unwrap();
        self.egress.handle_rtcp(self.now, &packet)
    }

    fn demands(&mut self) -> (Vec<SenderId>, Vec<Missing>) {
        let (mut keyframes, mut missing) = (Vec::new(), Vec::new());
        while let Some(demand) = self.egress.poll() {
            match demand {
                Demand::Keyframe(id) => keyframes.push(id),
                Demand::Resend(packet) => missing.push(packet),
            }
        }
        (keyframes, missing)
    }
}

const PROFILES: [Profile; 3] = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::AesCm128HmacSha1_80];

#[test]
fn a_packet_arrives_as_it_was_meant() {
    for profile in PROFILES {
        let (mut pair, id) = Pair::new(profile).with(video());
        let numbers = vp8::Numbers { picture_id: 0x1234, tl0_picture_index: 9, key_index: 3 };
        pair.now += ms(1500);
        assert!(pair.send(id, 40, &VP8, Rewrite::Vp8(numbers)).is_some(), "a report is due");
        let (media, _) = pair.arrive();
        let packet = media[0].packet();
        assert_eq!(
            packet.header,
            Header { marker: true, payload_type: 96, sequence: 40, timestamp: 140_000, ssrc: VIDEO }
        );
        assert_eq!(packet.extension(4), Some(&b"1"[..]));
        assert_eq!(packet.extension(2), Some(&NtpTime::from_unix(UNIX + ms(1500)).absolute_send_time()[..]));
        assert_eq!(media[0].number(), Some(0));
        assert_eq!(media[0].payload(), [&[0x90, 0xf0, 0x92, 0x34, 9, 0x63][..], &VP8[6..]].concat());
        pair.extensions.audio_level = Some(AudioLevel { level: 30, voice: true });
        let id = pair.bind(audio(true));
        pair.send(id, 7, b"sound", Rewrite::None);
        let (media, _) = pair.arrive();
        assert_eq!(media[0].packet().extension(1), Some(&[0x80 | 30][..]));
        assert_eq!((media[0].number(), media[0].payload()), (Some(1), &b"sound"[..]));
    }
}

#[test]
fn nothing_flows_without_keys_or_stream() {
    let (mut pair, id) = Pair::new(Profile::AeadAes128Gcm).with(video());
    pair.send(id, 1, &VP8, Rewrite::None);
    assert_eq!(pair.arrive().0.len(), 1);
    pair.egress.remove(id);
    pair.send(id, 2, &VP8, Rewrite::None);
    let next = pair.egress.add();
    pair.send(next, 2, &VP8, Rewrite::None);
    assert_eq!(pair.arrive().0.len(), 0);
    pair.egress.send_keys = None;
    pair.egress.bind(next, StreamSpec { ssrc: 5, rtx_ssrc: None, ..video() });
    pair.send(next, 2, &VP8, Rewrite::None);
    assert_eq!(pair.arrive().0.len(), 0);
}

#[test]
fn others_follow_across_rollovers() {
    let (mut pair, id) = Pair::new(Profile::AeadAes128Gcm).with(video());
    for sequence in 32_000..140_000 {
        pair.now += Duration::from_micros(500);
        // Each hundredth comes late, each thousandth never.
        let next = match sequence % 1000 {
            0 => None,
            100 | 101 => Some(sequence ^ 1),
            _ => Some(sequence),
        };
        if let Some(next) = next {
            pair.send(id, next, &VP8, Rewrite::None);
        }
        if sequence % 500 == 0 {
            pair.arrive();
        }
    }
    pair.arrive();
    assert_eq!(pair.rtp_indices.len(), 108_000 - 108);
}

#[test]
fn a_number_is_sent_once() {
    let (mut pair, id) = Pair::new(Profile::AeadAes128Gcm).with(video());
    for sequence in [5, 6, 5, 8, 7, 7, 6] {
        pair.send(id, sequence, &VP8, Rewrite::None);
    }
    let (media, _) = pair.arrive();
    let sequences: Vec<u16> = media.iter().map(|m| m.packet().header.sequence).collect();
    assert_eq!(sequences, [5, 6, 8, 7]);
    let numbers: Vec<_> = media.iter().map(Arrived::number).collect();
    assert_eq!(numbers, [Some(0), Some(1), Some(2), Some(3)], "what is not sent has no number");
}

#[test]
fn lost_packets_are_sent_again_with_the_same_rewriting() {
    for profile in PROFILES {
        let (mut pair, id) = Pair::new(profile).with(video());
        let numbers = |n: u64| vp8::Numbers { picture_id: n as u16, tl0_picture_index: n as u8, key_index: 1 };
        for sequence in 65_530..65_550 {
            pair.send(id, sequence, &VP8, Rewrite::Vp8(numbers(sequence)));
        }
        let (sent, _) = pair.arrive();
        pair.now += ms(100);
        let concerns_str0m = pair.report(|out| rtcp::write_nack(out, CLIENT, VIDEO, [65_531, 65_535, 0, 1, 20, 300]));
        assert!(!concerns_str0m);
        let (_, missing) = pair.demands();
        let origins: Vec<u64> = missing.iter().map(|m| m.origin.sequence).collect();
        assert_eq!(origins, [75_531, 75_535, 75_536, 75_537], "those that were sent");
        assert!(missing.iter().all(|m| m.sender == id && m.origin.layer == 1));
        missing.iter().for_each(|m| pair.resend(m, &VP8));
        let (again, _) = pair.arrive();
        for (again, at) in again.iter().zip([1, 5, 6, 7]) {
            let (packet, original) = (again.packet(), &sent[at]);
            assert_eq!((packet.header.ssrc, packet.header.payload_type), (RTX, 97));
            assert_eq!(packet.header.timestamp, original.packet().header.timestamp);
            assert_eq!(packet.header.marker, original.packet().header.marker);
            let (number, payload) = again.payload().split_at(2);
            assert_eq!(number, original.packet().header.sequence.to_be_bytes());
            assert_eq!(payload, original.payload());
        }
        assert_eq!(again.last().unwrap().number(), Some(23));
        pair.report(|out| rtcp::write_nack(out, CLIENT, VIDEO, [65_531]));
        assert!(pair.demands().1.is_empty(), "it cannot have arrived yet");
    }
}

#[test]
fn storms_of_requests_are_answered_within_the_budget() {
    let (mut pair, id) = Pair::new(Profile::AeadAes128Gcm).with(video());
    let payload = [0; 1100];
    let (mut sent, mut again) = (0, 0);
    for sequence in 0..5_000u64 {
        pair.now += ms(3);
        pair.send(id, sequence, &payload, Rewrite::None);
        if sequence % 10 == 0 {
            let newest = sequence as u16;
            pair.report(|out| rtcp::write_nack(out, CLIENT, VIDEO, (0..360).map(|n| newest.wrapping_sub(n)).rev()));
            let (_, missing) = pair.demands();
            assert!(missing.len() <= 512);
            missing.iter().for_each(|m| pair.resend(m, &payload));
        }
        let (media, _) = pair.arrive();
        for packet in media {
            *(if packet.packet().header.ssrc == RTX { &mut again } else { &mut sent }) += packet.bytes.len();
        }
    }
    let share = again as f64 / sent as f64;
    assert!((0.4..0.75).contains(&share), "{share} sent again");
}

#[test]
fn one_request_for_everything_is_answered_within_the_budget() {
    let (mut pair, id) = Pair::new(Profile::AeadAes128Gcm).with(video());
    let payload = [0; 1100];
    for sequence in 0..500u64 {
        pair.now += ms(3);
        pair.send(id, sequence, &payload, Rewrite::None);
    }
    pair.arrive();
    pair.report(|out| rtcp::write_nack(out, CLIENT, VIDEO, 0..500));
    let (_, missing) = pair.demands();
    assert_eq!(missing.len(), 500);
    missing.iter().for_each(|m| pair.resend(m, &payload));
    let again: usize = pair.arrive().0.iter().map(|packet| packet.bytes.len()).sum();
    assert!((90 << 10..100 << 10).contains(&again), "{again} bytes");
}

#[test]
fn keyframe_requests_name_their_sender() {
    let (mut pair, id) = Pair::new(Profile::AeadAes128Gcm).with(video());
    pair.report(|out| rtcp::write_picture_loss(out, CLIENT, VIDEO));
    pair.report(|out| rtcp::write_picture_loss(out, CLIENT, 4711));
    assert_eq!(pair.demands().0, [id]);
    for (number, expected) in [(1, 1), (1, 0), (2, 1)] {
        pair.report(|out| rtcp::write_full_intra_request(out, CLIENT, &[(VIDEO, number), (4711, number)]));
        assert_eq!(pair.demands().0.len(), expected, "request {number}");
    }
    let mut forged = Vec::new();
    rtcp::write_picture_loss(&mut forged, CLIENT, VIDEO);
    forged.extend([0; 20]);
    pair.egress.handle_rtcp(pair.now, &forged);
    assert!(pair.demands().0.is_empty(), "not authentic");
}

#[test]
fn only_reports_on_what_we_receive_concern_str0m() {
    let (mut pair, _) = Pair::new(Profile::AeadAes128Gcm).with(video());
    assert!(!pair.report(|out| rtcp::write_receiver_report(out, CLIENT, &[])));
    let info = rtcp::SenderInfo { ssrc: CLIENT, ntp: NtpTime(1), rtp_timestamp: 1, packets: 1, octets: 1 };
    assert!(pair.report(|out| rtcp::write_sender_report(out, &info)));
    assert!(pair.report(|out| {
        rtcp::write_receiver_report(out, CLIENT, &[]);
        rtcp::write_goodbye(out, &[CLIENT]);
    }));
}

#[test]
fn reports_come_soon_then_every_second_and_not_when_idle() {
    let (mut pair, video) = Pair::new(Profile::AeadAes128Gcm).with(video());
    let audio = pair.bind(audio(true));
    let mut due = None;
    let mut at = Vec::new();
    for step in 0..500 {
        // Sound for two seconds, picture for one.
        for (id, until) in [(audio, 200), (video, 100)] {
            if step < until {
                let sooner = pair.send(id, step, b"frame", Rewrite::None);
                due = sooner.or(due);
            }
        }
        if due.is_some_and(|due| due <= pair.now) {
            pair.tick();
            due = pair.egress.arm();
        }
        let (_, reports) = pair.arrive();
        for report in reports {
            let infos = rtcp::packets(&report).filter_map(|packet| match packet {
                rtcp::Packet::SenderReport(report) => Some((report.info.ssrc, report.info.packets)),
                _ => None,
            });
            let mut infos: Vec<_> = infos.collect();
            infos.sort();
            at.push((step * 10, infos));
        }
        pair.now += ms(10);
    }
    let expected =
        [(50, vec![(AUDIO, 6), (VIDEO, 6)]), (1050, vec![(AUDIO, 106), (VIDEO, 100)]), (2050, vec![(AUDIO, 200)])];
    assert_eq!(at, expected);
    assert_eq!(due, None, "nothing is due any more");
}

#[test]
fn a_report_tells_how_the_clocks_relate() {
    let (mut pair, id) = Pair::new(Profile::AeadAes128Gcm).with(video());
    pair.now += ms(200);
    pair.send(id, 1, &VP8, Rewrite::None);
    pair.now += ms(50);
    pair.tick();
    let (_, reports) = pair.arrive();
    let Some(rtcp::Packet::SenderReport(report)) = rtcp::packets(&reports[0]).next() else { panic!("{reports:?}") };
    let ntp = NtpTime::from_unix(UNIX + ms(250));
    let expected = rtcp::SenderInfo { ssrc: VIDEO, ntp, rtp_timestamp: 5_000 + 250 * 90, packets: 1, octets: 10 };
    assert_eq!(report.info, expected);
    assert!(reports[0].windows(8).any(|window| window == b"PA_alice"), "with its name");
    pair.now += ms(80);
    pair.report(|out| {
        let block =
            rtcp::ReportBlock { ssrc: VIDEO, last_sender_report: ntp.middle(), delay: 655, ..Default::default() };
        rtcp::write_receiver_report(out, CLIENT, &[block]);
    });
    let round_trip = pair.egress.round_trip().unwrap();
    assert!(round_trip.abs_diff(ms(70)) < ms(1), "{round_trip:?}");
    pair.send(id, 2, &VP8, Rewrite::None);
    assert_eq!(pair.arrive().0[0].packet().extension(4), None, "the receiver has found the stream");
}

#[test]
fn many_streams_are_reported_in_datagrams_of_their_size() {
    let mut pair = Pair::new(Profile::AeadAes128Gcm);
    for n in 0..100 {
        let id = pair.bind(StreamSpec { ssrc: 10_000 + n, rtx_ssrc: None, ..video() });
        pair.send(id, 1, &VP8, Rewrite::None);
    }
    pair.now += ms(50);
    pair.tick();
    let (_, reports) = pair.arrive();
    assert!(reports.iter().all(|report| report.len() <= 1200), "each fits a path");
    let infos = reports.iter().flat_map(|report| rtcp::packets(report).collect::<Vec<_>>());
    assert_eq!(infos.filter(|packet| matches!(packet, rtcp::Packet::SenderReport(_))).count(), 100);
}

#[test]
fn numbers_run_through_all_streams_that_have_them() {
    let (mut pair, video) = Pair::new(Profile::AeadAes128Gcm).with(video());
    let numbered = pair.bind(StreamSpec { ssrc: 3, ..audio(true) });
    let plain = pair.bind(audio(false));
    for n in 0..4 {
        for id in [video, plain, numbered] {
            pair.send(id, n, &VP8, Rewrite::None);
        }
    }
    let (media, _) = pair.arrive();
    assert_eq!(media.iter().filter_map(Arrived::number).collect::<Vec<_>>(), (0..8).collect::<Vec<u16>>());
    pair.egress.negotiated(plain, audio(true).payload_types, extensions(true));
    pair.send(plain, 9, &VP8, Rewrite::None);
    assert_eq!(pair.arrive().0[0].number(), Some(8));
}

/// Thirty frames a second, and what the client reports on them every 50 ms over a path of 20 ms; gives the padding.
fn watch(pair: &mut Pair, id: SenderId, first: u64, seconds: u64) -> Vec<usize> {
    let (mut padding, mut arrivals, mut sequence) = (Vec::new(), Vec::new(), first);
    let mut due = None;
    for step in 0..seconds * 1000 {
        if step % 33 == 0 {
            due = pair.send(id, sequence, &[0; 1000], Rewrite::None).or(due);
            sequence += 1;
        }
        if due.is_some_and(|due| due <= pair.now) {
            pair.tick();
            due = pair.egress.arm();
        }
        for packet in pair.arrive().0 {
            arrivals.push((packet.number().unwrap(), pair.now + ms(20)));
            if packet.packet().padded {
                assert_eq!((packet.packet().header.ssrc, packet.payload().len()), (RTX, 0));
                padding.push(packet.bytes.len());
            }
        }
        if step % 50 == 49 && !arrivals.is_empty() {
            let reference = arrivals[0].1.duration_since(pair.start).as_millis() as u32 / 64;
            let base = pair.start + ms(u64::from(reference) * 64);
            let ticks: Vec<_> =
                arrivals.iter().map(|(_, at)| Some(at.duration_since(base).as_micros() as i64 / 250)).collect();
            let heading = twcc::Heading {
                sender: CLIENT,
                media: VIDEO,
                base_sequence: arrivals[0].0,
                reference_time: reference,
                feedback_count: 0,
            };
            pair.report(|out| {
                twcc::write(out, &heading, &ticks);
            });
            due = pair.egress.arm();
            arrivals.clear();
        }
        pair.now += ms(1);
    }
    padding
}

#[test]
fn probes_are_padded_when_more_is_wanted() {
    let (mut pair, id) = Pair::new(Profile::AeadAes128Gcm).with(video());
    assert_eq!(watch(&mut pair, id, 0, 3), [0; 0], "nobody wants more");
    assert!(pair.egress.estimate().is_some_and(|estimate| estimate < 2_000_000), "{:?}", pair.egress.estimate());
    pair.egress.set_desired(pair.now, 5_000_000);
    let padding = watch(&mut pair, id, 1_000, 5);
    assert!(!padding.is_empty());
    assert!(padding.iter().all(|bytes| *bytes <= 320), "{padding:?}");
    let estimate = pair.egress.estimate().unwrap();
    assert!(estimate > 4_500_000, "{estimate}");
    assert!(padding.iter().sum::<usize>() < 100_000, "{} bytes of padding", padding.iter().sum::<usize>());
    assert_eq!(watch(&mut pair, id, 2_000, 5), [0; 0], "it is known now");
}

#[test]
fn str0m_may_not_use_an_ssrc_of_ours() {
    let (mut pair, id) = Pair::new(Profile::AeadAes128Gcm).with(video());
    assert!(pair.egress.tolerates(9));
    assert!((0..1000).all(|_| pair.egress.draw_ssrc(|_| false) != 9));
    pair.egress.remove(id);
    assert!(!pair.egress.tolerates(VIDEO), "nor one that was");
    assert!(!pair.egress.tolerates(RTX));
}
