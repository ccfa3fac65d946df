//! RTCP against bytes written by hand, and against webrtc-rs both ways.

use proptest::prelude::*;
use rtc_rtcp::packet as other;
use rtc_rtcp::payload_feedbacks::full_intra_request as other_fir;
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc_rtcp::receiver_report::ReceiverReport as OtherReceiverReport;
use rtc_rtcp::reception_report::ReceptionReport;
use rtc_rtcp::sender_report::SenderReport as OtherSenderReport;
use rtc_rtcp::source_description::SourceDescription;
use rtc_rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};

use super::*;
use crate::rtp::ntp::NtpTime;

/// What webrtc-rs reads.
fn read_by_others(bytes: &[u8]) -> Vec<Box<dyn other::Packet>> {
    other::unmarshal(&mut &bytes[..]).expect("RTCP")
}

fn written_by_others(packet: impl other::Packet + 'static) -> Vec<u8> {
    other::marshal(&[Box::new(packet) as Box<dyn other::Packet>]).expect("RTCP").to_vec()
}

fn is<T: PartialEq + 'static>(packet: &dyn other::Packet, expected: &T) -> bool {
    packet.as_any().downcast_ref::<T>() == Some(expected)
}

/// The only packet in there.
fn only(bytes: &[u8]) -> Packet<'_> {
    let mut found = packets(bytes);
    let packet = found.next().expect("a packet");
    assert_eq!(found.next(), None);
    assert_eq!(found.malformed(), 0);
    packet
}

const INFO: SenderInfo = SenderInfo {
    ssrc: 0x1122_3344,
    ntp: NtpTime(0x0102_0304_0506_0708),
    rtp_timestamp: 90_000,
    packets: 17,
    octets: 12_345,
};

const BLOCK: ReportBlock = ReportBlock {
    ssrc: 9,
    fraction_lost: 64,
    packets_lost: -2,
    highest_sequence: 0x0003_1234,
    jitter: 77,
    last_sender_report: 0x0304_0506,
    delay: 65_536,
};

fn other_block(packets_lost: u32) -> ReceptionReport {
    ReceptionReport {
        ssrc: BLOCK.ssrc,
        fraction_lost: BLOCK.fraction_lost,
        total_lost: packets_lost,
        last_sequence_number: BLOCK.highest_sequence,
        jitter: BLOCK.jitter,
        last_sender_report: BLOCK.last_sender_report,
        delay: BLOCK.delay,
    }
}

#[test]
fn others_read_a_sender_report_with_a_name() {
    let mut bytes = Vec::new();
    write_sender_report(&mut bytes, &INFO);
    for cname in ["", "a", "abc", "abcd", "größe"] {
        let start = bytes.len();
        write_cname(&mut bytes, INFO.ssrc, cname);
        let read = read_by_others(&bytes[start..]);
        let description = read[0].as_any().downcast_ref::<SourceDescription>().expect("a source description");
        assert_eq!(description.chunks.len(), 1);
        assert_eq!(description.chunks[0].source, INFO.ssrc);
        assert_eq!(description.chunks[0].items.len(), 1);
        assert_eq!(description.chunks[0].items[0].text, cname);
    }
    let read = read_by_others(&bytes);
    assert_eq!(read.len(), 6);
    let expected = OtherSenderReport {
        ssrc: INFO.ssrc,
        ntp_time: INFO.ntp.0,
        rtp_time: INFO.rtp_timestamp,
        packet_count: INFO.packets,
        octet_count: INFO.octets,
        ..Default::default()
    };
    assert!(is(&*read[0], &expected));
    // We skip the names.
    let Packet::SenderReport(report) = only(&bytes) else { panic!("a sender report") };
    assert_eq!(report.info, INFO);
    assert_eq!(report.reports.count(), 0);
}

#[test]
fn a_long_name_is_cut_between_characters() {
    let mut bytes = Vec::new();
    write_cname(&mut bytes, 1, &"é".repeat(200));
    let read = read_by_others(&bytes);
    let description = read[0].as_any().downcast_ref::<SourceDescription>().expect("a source description");
    assert_eq!(description.chunks[0].items[0].text, "é".repeat(127));
}

#[test]
fn reads_reports_of_others() {
    let report = OtherSenderReport {
        ssrc: INFO.ssrc,
        ntp_time: INFO.ntp.0,
        rtp_time: INFO.rtp_timestamp,
        packet_count: INFO.packets,
        octet_count: INFO.octets,
        reports: vec![other_block(0xff_fffe), other_block(5)],
        ..Default::default()
    };
    let bytes = written_by_others(report);
    let Packet::SenderReport(report) = only(&bytes) else { panic!("a sender report") };
    assert_eq!(report.info, INFO);
    assert_eq!(report.reports.collect::<Vec<_>>(), [BLOCK, ReportBlock { packets_lost: 5, ..BLOCK }]);

    let report = OtherReceiverReport { ssrc: 3, reports: vec![other_block(0xff_fffe)], ..Default::default() };
    let bytes = written_by_others(report);
    let Packet::ReceiverReport(report) = only(&bytes) else { panic!("a receiver report") };
    assert_eq!((report.ssrc, report.reports.collect::<Vec<_>>()), (3, vec![BLOCK]));
}

#[test]
fn others_read_receiver_reports() {
    let mut bytes = Vec::new();
    write_receiver_report(&mut bytes, 3, &[BLOCK, ReportBlock { packets_lost: i32::MAX, ..BLOCK }]);
    let read = read_by_others(&bytes);
    let reports = vec![other_block(0xff_fffe), other_block(0x7f_ffff)];
    assert!(is(&*read[0], &OtherReceiverReport { ssrc: 3, reports, ..Default::default() }));

    let mut bytes = Vec::new();
    write_receiver_report(&mut bytes, 3, &[BLOCK; 40]);
    let Packet::ReceiverReport(report) = only(&bytes) else { panic!("a receiver report") };
    assert_eq!(report.reports.count(), 31);
}

#[test]
fn goodbyes_go_both_ways() {
    let mut bytes = Vec::new();
    write_goodbye(&mut bytes, &[1, 2, 3]);
    let read = read_by_others(&bytes);
    let goodbye = read[0].as_any().downcast_ref::<rtc_rtcp::goodbye::Goodbye>().expect("a goodbye");
    assert_eq!(goodbye.sources, [1, 2, 3]);

    let bytes = written_by_others(rtc_rtcp::goodbye::Goodbye { sources: vec![4, 5], reason: "gone".into() });
    let Packet::Goodbye(goodbye) = only(&bytes) else { panic!("a goodbye") };
    assert_eq!(goodbye.ssrcs.collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn key_frame_requests_go_both_ways() {
    let mut bytes = Vec::new();
    write_picture_loss(&mut bytes, 1, 2);
    write_full_intra_request(&mut bytes, 1, &[(3, 4), (5, 255)]);
    let fir = vec![
        other_fir::FirEntry { ssrc: 3, sequence_number: 4 },
        other_fir::FirEntry { ssrc: 5, sequence_number: 255 },
    ];
    let fir = other_fir::FullIntraRequest { sender_ssrc: 1, media_ssrc: 0, fir };
    let pli = PictureLossIndication { sender_ssrc: 1, media_ssrc: 2 };
    let read = read_by_others(&bytes);
    assert!(is(&*read[0], &pli) && is(&*read[1], &fir));
    assert_eq!(bytes, [written_by_others(pli), written_by_others(fir)].concat());

    let found: Vec<_> = packets(&bytes).collect();
    assert_eq!(found[0], Packet::PictureLoss(PictureLoss { sender: 1, media: 2 }));
    let Packet::FullIntraRequest(request) = found[1] else { panic!("a full intra request") };
    assert_eq!((request.sender, request.requests.collect::<Vec<_>>()), (1, vec![(3, 4), (5, 255)]));
}

#[test]
fn estimates_go_both_ways() {
    let remb = ReceiverEstimatedMaximumBitrate { sender_ssrc: 1, bitrate: 1_048_576.0, ssrcs: vec![2, 3] };
    let bytes = written_by_others(remb);
    let Packet::RemoteBitrate(estimate) = only(&bytes) else { panic!("an estimate") };
    assert_eq!((estimate.sender, estimate.bitrate, estimate.ssrcs.collect::<Vec<_>>()), (1, 1_048_576, vec![2, 3]));

    for (bitrate, expected) in
        [(0, 0), (262_143, 262_143), (262_145, 262_144), (8_927_168, 8_927_168), (u64::MAX, !0 << 46)]
    {
        let mut bytes = Vec::new();
        write_remote_bitrate(&mut bytes, 1, bitrate, &[7]);
        let Packet::RemoteBitrate(estimate) = only(&bytes) else { panic!("an estimate") };
        assert_eq!((estimate.bitrate, estimate.ssrcs.collect::<Vec<_>>()), (expected, vec![7]));
    }
}

#[test]
fn an_estimate_of_too_many_bits_is_the_largest() {
    let mut bytes = Vec::new();
    write_remote_bitrate(&mut bytes, 1, 1, &[]);
    bytes[17] = 0xff;
    let Packet::RemoteBitrate(estimate) = only(&bytes) else { panic!("an estimate") };
    assert_eq!(estimate.bitrate, u64::MAX);
}

/// Kinds that nobody acts upon, with padding at the end.
#[test]
fn skips_what_it_does_not_know() {
    let mut bytes = vec![0x80, 204, 0, 2, 0, 0, 0, 1, b'n', b'a', b'm', b'e'];
    bytes.extend([0x80, 207, 0, 1, 0, 0, 0, 1]);
    bytes.extend([0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, b'A', b'F', b'B', 0]);
    write_picture_loss(&mut bytes, 1, 2);
    bytes.extend([0xa1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4]);
    let found: Vec<_> = packets(&bytes).collect();
    assert_eq!(found, [Packet::PictureLoss(PictureLoss { sender: 1, media: 2 }); 2]);
}

#[test]
fn counts_what_contradicts_itself() {
    for (bytes, what) in [
        (&[0x81u8, 200, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], "no block"),
        (&[0x80, 200, 0, 1, 0, 0, 0, 1], "no sender info"),
        (&[0x81, 201, 0, 1, 0, 0, 0, 1], "no block"),
        (&[0x80, 201, 0, 0], "no reporter"),
        (&[0x82, 203, 0, 1, 0, 0, 0, 1], "one SSRC of two"),
        (&[0x81, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2], "NACK of nothing"),
        (&[0x81, 206, 0, 1, 0, 0, 0, 1], "no media SSRC"),
        (&[0x84, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9], "half a request"),
        (&[0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B'], "no bitrate"),
        (&[0x8f, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0, 0, 1], "one SSRC missing"),
        (&[0x80, 201, 0, 2, 0, 0, 0, 1], "longer than the datagram"),
        (&[0x40, 201, 0, 1, 0, 0, 0, 1], "version 1"),
        (&[0x80, 201, 0], "no whole header"),
        (&[0xa0, 201, 0, 1, 0, 0, 0, 0], "no padding where there should be"),
        (&[0xa0, 201, 0, 1, 0, 0, 0, 5], "more padding than packet"),
        (&[0xa0, 201, 0, 0], "padding without a place"),
    ] {
        let mut found = packets(bytes);
        assert_eq!(found.next(), None, "{what}");
        assert_eq!(found.malformed(), 1, "{what}");
    }
    // One bad packet does not hide the next.
    let mut bytes = vec![0x81, 201, 0, 1, 0, 0, 0, 1];
    write_picture_loss(&mut bytes, 1, 2);
    let mut found = packets(&bytes);
    assert_eq!(found.next(), Some(Packet::PictureLoss(PictureLoss { sender: 1, media: 2 })));
    assert_eq!((found.next(), found.malformed()), (None, 1));
}

#[test]
fn tells_rtcp_from_rtp() {
    for (first, second, expected) in
        [(0x80, 200, true), (0x81, 206, true), (0x80, 96, false), (0x80, 96 | 0x80, false), (0x00, 200, false)]
    {
        assert_eq!(is_rtcp(&[first, second, 0, 1]), expected);
    }
    assert!(!is_rtcp(&[0x80]));
}

proptest! {
    #[test]
    fn nacks_go_both_ways(first: u16, steps in prop::collection::vec(1u16..40, 0..60)) {
        let mut lost = vec![first];
        for step in steps {
            lost.push(lost.last().unwrap().wrapping_add(step));
        }
        let mut bytes = Vec::new();
        write_nack(&mut bytes, 1, 2, lost.iter().copied());
        let others = read_by_others(&bytes);
        let others = others[0].as_any().downcast_ref::<TransportLayerNack>().expect("a NACK");
        prop_assert_eq!((others.sender_ssrc, others.media_ssrc), (1, 2));
        let read: Vec<u16> = others.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
        prop_assert_eq!(&read, &lost);

        // They begin a new pair where the numbers wrap, we do not.
        let nacks = nack_pairs_from_sequence_numbers(&lost);
        let written = written_by_others(TransportLayerNack { sender_ssrc: 1, media_ssrc: 2, nacks });
        prop_assert!(bytes.len() <= written.len());
        for bytes in [&bytes, &written] {
            let Packet::Nack(nack) = only(bytes) else { panic!("a NACK") };
            prop_assert_eq!((nack.sender, nack.media), (1, 2));
            prop_assert_eq!(nack.lost.collect::<Vec<_>>(), lost.clone());
        }
    }

    /// Of any bytes: no panic, and no more sequence numbers than they can hold.
    #[test]
    fn any_bytes_are_survived(
        kind in prop_oneof![Just(200u8), Just(201), Just(203), Just(205), Just(206)],
        first in 0x80u8..0xc0,
        body in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut bytes = vec![first, kind, 0, (body.len() / 4) as u8];
        bytes.extend(&body);
        let mut found = packets(&bytes);
        for packet in found.by_ref() {
            if let Packet::Nack(nack) = packet {
                prop_assert!(nack.lost.count() * 4 <= body.len() * 17);
            }
        }
        prop_assert!(found.malformed() <= 2);
    }
}

#[test]
fn no_nack_is_written_for_nothing() {
    let mut bytes = Vec::new();
    write_nack(&mut bytes, 1, 2, []);
    assert!(bytes.is_empty());
}
