//! What a forwarded packet costs before the socket: writing its header, copying its payload, encrypting it.
//!
//! `cargo bench --bench egress`; one core, caches warm, so a lower bound of what `BENCHMARKS.md` measures end to end.

use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher, black_box};
use parlour::rtp::header::{Form, Header, HeaderWriter};
use parlour::rtp::rtcp;
use parlour::transport::srtp::{DtlsRole, Profile, ReceiveKeys, SendKeys, keys_from_dtls};

const PROFILES: [Profile; 3] = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::AesCm128HmacSha1_80];
/// Bytes of payload: a full video packet, and 20 ms of Opus.
const VIDEO: usize = 1200;
const AUDIO: usize = 160;
const SSRC: u32 = 0xcafe_babe;

const MID: u8 = 4;
const ABS_SEND_TIME: u8 = 2;
const TRANSPORT_WIDE: u8 = 3;

/// Prints allocations below a benchmark's times; there should be none but in what is set up once.
#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

fn keys(profile: Profile) -> (SendKeys, ReceiveKeys) {
    let material = vec![0x5a; profile.keying_material_len()];
    keys_from_dtls(profile, &material, DtlsRole::Server).expect("enough material")
}

fn write_header(out: &mut Vec<u8>, sequence: u16) -> usize {
    let header = Header { marker: false, payload_type: 96, sequence, timestamp: 90_000, ssrc: SSRC };
    let mut writer = HeaderWriter::new(out, header, Form::OneByte);
    writer.element(MID, b"12");
    writer.reserve(ABS_SEND_TIME, 3);
    writer.reserve(TRANSPORT_WIDE, 2);
    writer.finish()
}

#[divan::bench]
fn header(bencher: Bencher) {
    let (mut out, mut sequence) = (Vec::with_capacity(64), 0u16);
    bencher.bench_local(|| {
        out.clear();
        sequence = sequence.wrapping_add(1);
        write_header(black_box(&mut out), sequence)
    });
}

#[divan::bench(args = PROFILES, consts = [VIDEO, AUDIO], sample_size = 100)]
fn seal<const LEN: usize>(bencher: Bencher, profile: Profile) {
    let (mut keys, _) = keys(profile);
    let mut stream = keys.stream(SSRC).expect("its first use");
    let (mut packet, mut sequence) = (vec![0; 12 + LEN + profile.rtp_overhead()], 0u64);
    packet[8..12].copy_from_slice(&SSRC.to_be_bytes());
    bencher.counter(BytesCount::new(LEN)).bench_local(|| {
        sequence += 1;
        packet[2..4].copy_from_slice(&(sequence as u16).to_be_bytes());
        keys.seal_rtp(black_box(&mut packet), 12, stream.claim(sequence).expect("a new number"));
    });
}

/// Everything: header, payload, index, encryption.
#[divan::bench(args = PROFILES, consts = [VIDEO, AUDIO], sample_size = 100)]
fn packet<const LEN: usize>(bencher: Bencher, profile: Profile) {
    let (mut keys, _) = keys(profile);
    let mut stream = keys.stream(SSRC).expect("its first use");
    let payload = vec![7; LEN];
    let (mut out, mut sequence) = (Vec::with_capacity(1500), 0u64);
    bencher.counter(BytesCount::new(LEN)).bench_local(|| {
        sequence += 1;
        out.clear();
        let header_len = write_header(&mut out, sequence as u16);
        out.extend_from_slice(black_box(&payload));
        out.resize(out.len() + profile.rtp_overhead(), 0);
        keys.seal_rtp(&mut out, header_len, stream.claim(sequence).expect("a new number"));
        black_box(&out);
    });
}

/// A receiver's report and its feedback, as they come several times a second from everyone.
#[divan::bench]
fn read_feedback(bencher: Bencher) {
    let mut bytes = Vec::new();
    rtcp::write_receiver_report(&mut bytes, 1, &[rtcp::ReportBlock::default()]);
    rtcp::write_nack(&mut bytes, 1, 2, [3, 4, 9]);
    bencher.bench_local(|| rtcp::packets(black_box(&bytes)).count());
}
