//! Counts what webrtc-rs decrypted, from the place in its pipeline right behind SRTP.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;

/// Datagrams that were authentic and could be read.
#[derive(Debug, Default)]
pub struct Tally {
    pub rtp: u64,
    pub rtcp: u64,
    /// By SSRC: the last sequence number, and how often they started over.
    pub streams: BTreeMap<u32, (u16, u32)>,
}

impl Tally {
    pub fn all(&self) -> u64 {
        self.rtp + self.rtcp
    }

    fn count(&mut self, packet: &Packet) {
        let Packet::Rtp(packet) = packet else {
            self.rtcp += 1;
            return;
        };
        self.rtp += 1;
        let sequence = packet.header.sequence_number;
        let (last, wraps) = self.streams.entry(packet.header.ssrc).or_insert((sequence, 0));
        *wraps += u32::from(sequence < 0x4000 && *last >= 0xc000);
        *last = sequence;
    }
}

pub struct Tallier {
    tally: Arc<Mutex<Tally>>,
    reads: VecDeque<TaggedPacket>,
    writes: VecDeque<TaggedPacket>,
}

impl Tallier {
    pub fn new(tally: Arc<Mutex<Tally>>) -> Tallier {
        Tallier { tally, reads: VecDeque::new(), writes: VecDeque::new() }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Tallier {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.tally.lock().expect("no test panicked with it").count(&packet.message.packet);
        self.reads.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.reads.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.writes.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.writes.pop_front()
    }
}

impl Interceptor for Tallier {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}
