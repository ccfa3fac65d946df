//! Watches all that the server sends to one connection: that no two packets are encrypted under the same key, SSRC and index,
//! which with GCM gives the key away (RFC 7714 §5.1). Headers and RTCP indices are in clear.

use std::collections::{HashMap, HashSet};

use parlour::rtp::header::Packet;
use parlour::rtp::rtcp::is_rtcp;
use parlour::rtp::sequence::extend_sequence;

#[derive(Default)]
pub struct Seals {
    /// By SSRC: the newest sequence number, and all there were.
    rtp: HashMap<u32, (u64, HashSet<u64>)>,
    rtcp: HashSet<(u32, u32)>,
    /// Bytes by payload type.
    pub bytes: HashMap<u8, u64>,
}

impl Seals {
    pub fn watch(&mut self, packet: &[u8]) {
        if !matches!(packet[0], 128..=191) {
            return;
        }
        if is_rtcp(packet) {
            // The suites that str0m negotiates end with the index (RFC 7714 §9.2).
            let index = u32::from_be_bytes(*packet.last_chunk().expect("a whole packet"));
            let ssrc = u32::from_be_bytes(packet[4..8].try_into().expect("a whole packet"));
            assert!(self.rtcp.insert((ssrc, index)), "RTCP of {ssrc} uses index {index:x} twice");
            return;
        }
        let header = Packet::parse(packet).expect("RTP").header;
        *self.bytes.entry(header.payload_type).or_default() += packet.len() as u64;
        let (newest, all) = self.rtp.entry(header.ssrc).or_insert_with(|| (header.sequence.into(), HashSet::new()));
        let sequence = extend_sequence(*newest, header.sequence);
        *newest = sequence.max(*newest);
        assert!(all.insert(sequence), "{} uses index {sequence} twice", header.ssrc);
    }
}
