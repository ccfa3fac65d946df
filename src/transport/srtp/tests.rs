//! SRTP against what others say: libsrtp's vectors, and webrtc-rs as the other end, over another library's ciphers.

use std::collections::HashSet;

use proptest::prelude::*;
use rtc_crypto::RTCCryptoProvider;
use rtc_crypto::providers::RingProvider;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::*;
use crate::rtp::header::{Form, Header, HeaderWriter};
use crate::rtp::rtcp;

const PROFILES: [Profile; 3] = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::AesCm128HmacSha1_80];
const SSRC: u32 = 0xcafe_babe;

fn keying_material(profile: Profile) -> Vec<u8> {
    (0..profile.keying_material_len()).map(|at| (at * 7 + 3) as u8).collect()
}

/// Our keys as DTLS server, and webrtc-rs' contexts to send and to receive as client.
fn ends(profile: Profile) -> (SendKeys, ReceiveKeys, Context, Context) {
    let material = keying_material(profile);
    let (send, receive) = keys_from_dtls(profile, &material, DtlsRole::Server).expect("enough material");
    let (keys, salts) = material.split_at(2 * profile.key_len());
    let other = |at: usize| {
        let theirs = match profile {
            Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
            Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
            Profile::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        };
        let key = &keys[at * profile.key_len()..][..profile.key_len()];
        let salt = &salts[at * profile.salt_len()..][..profile.salt_len()];
        Context::new(key, salt, theirs, None, None, RingProvider::new().crypto()).expect("a context")
    };
    (send, receive, other(0), other(1))
}

/// Header with an extension, payload of `len` bytes; and the header's length.
fn packet(ssrc: u32, sequence: u16, len: usize) -> (Vec<u8>, usize) {
    let mut packet = Vec::new();
    let header = Header { marker: true, payload_type: 96, sequence, timestamp: 90_000, ssrc };
    let mut writer = HeaderWriter::new(&mut packet, header, Form::OneByte);
    writer.element(3, &sequence.to_be_bytes()).expect("a short element");
    let header_len = writer.finish();
    packet.extend((0..len).map(|at| at as u8 ^ sequence as u8));
    (packet, header_len)
}

fn seal(keys: &SendKeys, stream: &mut SendStream, sequence: u64, len: usize) -> (Vec<u8>, Vec<u8>) {
    let (plain, header_len) = packet(stream.ssrc(), sequence as u16, len);
    let mut sealed = plain.clone();
    sealed.resize(plain.len() + keys.profile().rtp_overhead(), 0xee);
    keys.seal_rtp(&mut sealed, header_len, stream.claim(sequence).expect("a new sequence number"));
    (plain, sealed)
}

fn report(ssrc: u32) -> Vec<u8> {
    let mut packet = Vec::new();
    rtcp::write_receiver_report(&mut packet, ssrc, &[rtcp::ReportBlock { ssrc: 7, jitter: 9, ..Default::default() }]);
    rtcp::write_picture_loss(&mut packet, ssrc, 7);
    packet
}

/// Across two rollovers, with reordering around the first.
fn sequences() -> impl Iterator<Item = u64> {
    [65_000, 65_534, 65_536, 65_535, 65_538, 65_537].into_iter().chain((65_540..140_000).step_by(400))
}

#[test]
fn others_open_what_we_seal() {
    for profile in PROFILES {
        let (mut keys, _, _, mut other) = ends(profile);
        let mut stream = keys.stream(SSRC).expect("the first of its SSRC");
        for (len, sequence) in (0..).zip(sequences()) {
            let (plain, sealed) = seal(&keys, &mut stream, sequence, len * 7);
            let opened = other.decrypt_rtp(&sealed).unwrap_or_else(|error| panic!("{profile:?} {sequence}: {error}"));
            assert_eq!(opened, plain, "{profile:?} {sequence}");
        }
    }
}

#[test]
fn we_open_what_others_seal() {
    for profile in PROFILES {
        let (_, keys, mut other, _) = ends(profile);
        let mut opened = Vec::new();
        for (len, sequence) in (0..).zip(sequences()) {
            let (plain, header_len) = packet(SSRC, sequence as u16, len * 7);
            let sealed = other.encrypt_rtp(&plain).expect("encrypted");
            keys.open_rtp(&sealed, header_len, sequence, &mut opened).expect("authentic");
            assert_eq!(opened, plain, "{profile:?} {sequence}");
            assert!(keys.open_rtp(&sealed, header_len, sequence + 65_536, &mut opened).is_none(), "another rollover");
        }
    }
}

#[test]
fn rtcp_goes_both_ways() {
    for profile in PROFILES {
        let (mut send, mut receive, mut other_send, mut other_receive) = ends(profile);
        let mut opened = Vec::new();
        for ssrc in [5, 6, 5] {
            let plain = report(ssrc);
            let mut sealed = plain.clone();
            send.seal_rtcp(&mut sealed).expect("not exhausted");
            assert_eq!(sealed.len(), plain.len() + profile.rtcp_overhead());
            assert_eq!(other_receive.decrypt_rtcp(&sealed).expect("authentic"), plain, "{profile:?}");

            let sealed = other_send.encrypt_rtcp(&plain).expect("encrypted");
            receive.open_rtcp(&sealed, &mut opened).expect("authentic");
            assert_eq!(opened, plain, "{profile:?}");
            assert!(receive.open_rtcp(&sealed, &mut opened).is_none(), "{profile:?}: came before");
        }
    }
}

/// The vectors that libsrtp tests itself with, derivation included.
#[test]
fn agrees_with_libsrtp() {
    let key = 0xe1f97a0d3e018be0d64fa32c06de4139u128.to_be_bytes();
    let salt = &0x0ec675ad498afeebb6960b3aabe6u128.to_be_bytes()[2..];
    let mut keys = SendKeys::new(Profile::AesCm128HmacSha1_80, &key, salt).unwrap();

    let mut rtp = b"\x80\x0f\x12\x34\xde\xca\xfb\xad\xca\xfe\xba\xbe\xab\xab\xab\xab\xab\xab\xab\xab".to_vec();
    rtp.extend([0xab; 8]);
    rtp.extend([0; 10]);
    let index = keys.stream(SSRC).unwrap().claim(0x1234).unwrap();
    keys.seal_rtp(&mut rtp, 12, index);
    assert_eq!(
        rtp[12..],
        *b"\x4e\x55\xdc\x4c\xe7\x99\x78\xd8\x8c\xa4\xd2\x15\x94\x9d\x24\x02\xb7\x8d\x6a\xcc\x99\xea\x17\x9b\x8d\xbb"
    );

    let mut rtcp = b"\x81\xc8\x00\x0b\xca\xfe\xba\xbe".to_vec();
    rtcp.extend([0xab; 16]);
    let mut first = rtcp.clone();
    keys.seal_rtcp(&mut first).unwrap();
    // libsrtp counts from one.
    keys.seal_rtcp(&mut rtcp).unwrap();
    assert_eq!(
        rtcp[8..],
        *b"\x71\x28\x03\x5b\xe4\x87\xb9\xbd\xbe\xf8\x90\x41\xf9\x77\xa5\xa8\x80\x00\x00\x01\x99\x3e\x08\xcd\x54\xd6\
           \xc1\x23\x07\x98"
    );
    assert_ne!(first, rtcp);
}

#[test]
fn both_ends_of_a_handshake_agree() {
    for profile in PROFILES {
        let material = keying_material(profile);
        let (mut server, _) = keys_from_dtls(profile, &material, DtlsRole::Server).unwrap();
        let (mut client, mut client_receives) = keys_from_dtls(profile, &material, DtlsRole::Client).unwrap();
        let (mut from_server, mut from_client, mut opened) = (report(1), report(1), Vec::new());
        server.seal_rtcp(&mut from_server).unwrap();
        client.seal_rtcp(&mut from_client).unwrap();
        assert_ne!(from_server, from_client);
        assert!(client_receives.open_rtcp(&from_client, &mut opened).is_none());
        client_receives.open_rtcp(&from_server, &mut opened).expect("authentic");
        assert_eq!(opened, report(1));
        assert_eq!(keys_from_dtls(profile, &material[1..], DtlsRole::Client).err(), Some(WrongKeyLength));
    }
}

#[test]
fn an_ssrc_is_given_out_once() {
    let (mut keys, ..) = ends(Profile::AeadAes128Gcm);
    assert!(keys.stream(1).is_some());
    assert!(keys.stream(2).is_some());
    assert!(keys.stream(1).is_none());
}

#[test]
fn an_index_beyond_48_bits_is_refused() {
    let (mut keys, ..) = ends(Profile::AeadAes128Gcm);
    let mut stream = keys.stream(1).unwrap();
    assert!(stream.claim(1 << 48).is_none());
    assert!(stream.claim((1 << 48) - 1).is_some());
}

#[test]
fn rtcp_stops_when_its_numbers_are_used_up() {
    for profile in PROFILES {
        let (mut keys, ..) = ends(profile);
        keys.next_rtcp_index = MAX_RTCP_INDEX;
        let mut packet = report(1);
        keys.seal_rtcp(&mut packet).expect("the last");
        let mut packet = report(1);
        assert_eq!(keys.seal_rtcp(&mut packet), Err(KeyExhausted));
        assert_eq!(packet, report(1));
    }
}

#[test]
fn a_changed_packet_is_refused() {
    for profile in PROFILES {
        let (mut send, _, mut other_send, _) = ends(profile);
        let (_, mut receive, ..) = ends(profile);
        let (client, mut opened) = (keys_from_dtls(profile, &keying_material(profile), DtlsRole::Client), Vec::new());
        let (_, client_receives) = client.unwrap();
        let mut stream = send.stream(SSRC).unwrap();
        let (_, sealed) = seal(&send, &mut stream, 7, 40);
        let header_len = 20;
        assert!(client_receives.open_rtp(&sealed, header_len, 7, &mut opened).is_some());
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(client_receives.open_rtp(&changed, header_len, 7, &mut opened).is_none(), "{profile:?} bit {bit}");
        }
        let sealed = other_send.encrypt_rtcp(&report(1)).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(receive.open_rtcp(&changed, &mut opened).is_none(), "{profile:?} bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(receive.open_rtcp(&sealed[..len], &mut opened).is_none(), "{profile:?} cut to {len}");
        }
        // None of the forgeries has moved the window.
        assert!(receive.open_rtcp(&sealed, &mut opened).is_some());
    }
}

#[test]
fn replay_lists_are_bounded() {
    let (_, mut receive, mut other, _) = ends(Profile::AeadAes128Gcm);
    let (sealed, mut opened) = ((0..200).map(|ssrc| other.encrypt_rtcp(&report(ssrc)).unwrap()), Vec::new());
    let sealed: Vec<_> = sealed.collect();
    for packet in &sealed {
        receive.open_rtcp(packet, &mut opened).expect("authentic");
        // Heard all along, so never forgotten.
        assert!(receive.rtcp_senders.len() <= MAX_RTCP_SENDERS);
        let again = other.encrypt_rtcp(&report(0)).unwrap();
        receive.open_rtcp(&again, &mut opened).expect("authentic");
    }
    assert!(receive.open_rtcp(&sealed[0], &mut opened).is_none());
    assert!(receive.open_rtcp(&sealed[199], &mut opened).is_none());
}

#[test]
fn nothing_of_the_keys_is_printed() {
    let (send, receive, ..) = ends(Profile::AeadAes256Gcm);
    assert_eq!(format!("{send:?} {receive:?}"), "SendKeys { profile: AeadAes256Gcm, .. } ReceiveKeys { .. }");
}

#[derive(Debug, Clone)]
enum Step {
    NewStream(u32),
    Send { stream: usize, step: i64 },
    Rtcp(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (0u32..4).prop_map(Step::NewStream),
        8 => (0usize..4, prop_oneof![-3i64..5, -1100i64..1100, -70_000i64..70_000])
            .prop_map(|(stream, step)| Step::Send { stream, step }),
        1 => (0u32..4).prop_map(Step::Rtcp),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    /// Whatever the egress asks for, no (SSRC, index) is used twice under one key.
    #[test]
    fn no_index_is_used_twice(steps in steps(), gcm: bool) {
        let profile = if gcm { Profile::AeadAes128Gcm } else { Profile::AesCm128HmacSha1_80 };
        let (mut keys, ..) = ends(profile);
        let (mut streams, mut used, mut used_rtcp) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut sequence = 1000u64;
        for step in steps {
            match step {
                Step::NewStream(ssrc) => streams.extend(keys.stream(ssrc)),
                Step::Send { stream, step } => {
                    sequence = sequence.saturating_add_signed(step);
                    let Some(index) = streams.get_mut(stream).and_then(|stream| stream.claim(sequence)) else { continue };
                    prop_assert!(used.insert((index.ssrc, index.index)), "{:?}", index);
                    prop_assert_eq!(index.index, sequence);
                    let (mut packet, header_len) = packet(index.ssrc(), index.sequence(), 30);
                    packet.extend([0; 16]);
                    let len = packet.len() - 16 + profile.rtp_overhead();
                    keys.seal_rtp(&mut packet[..len], header_len, index);
                }
                Step::Rtcp(ssrc) => {
                    let mut packet = report(ssrc);
                    keys.seal_rtcp(&mut packet).unwrap();
                    let index = if gcm { AesGcm::rtcp_index(&packet) } else { AesCm::rtcp_index(&packet) };
                    prop_assert!(used_rtcp.insert(index.expect("an index")));
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..80), header_len in 0usize..90) {
        for profile in PROFILES {
            let (_, mut receive, ..) = ends(profile);
            let mut opened = Vec::new();
            prop_assert!(receive.open_rtcp(&bytes, &mut opened).is_none());
            prop_assert!(receive.open_rtp(&bytes, header_len, 0, &mut opened).is_none());
        }
    }
}
