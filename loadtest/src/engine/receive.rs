//! What comes in at a client: counted by the clear headers, looked into now and then, or handed to str0m.

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parlour::rtp::header::Packet;
use parlour::rtp::rtcp;
use quinn_udp::{RecvMeta, UdpSockRef};
use str0m::Input;
use str0m::net::{Protocol, Receive};

use super::client::{Client, Place, unix_time};
use super::stream::Stream;
use super::worker::Shared;
use crate::driver::offer;
use crate::media::stamp::{self, Stamp};
use crate::sink::record;
use crate::wire::{self, Kind};

/// One rollover of the sequence numbers, in SRTP's packet index.
const ROLLOVER: u64 = 1 << 16;
/// One packet of so many is opened, for delay and integrity;
const SAMPLE_ONE_IN: u32 = 100;
/// and while there are few, one in this time.
const SAMPLE_INTERVAL: Duration = Duration::from_micros(500);

impl Client {
    /// Reads what waits on the socket.
    pub fn receive(&mut self, shared: &mut Shared, buffers: &mut [Vec<u8>], metas: &mut [RecvMeta]) {
        loop {
            let mut slices: Vec<IoSliceMut<'_>> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            let count = match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, metas) {
                Ok(count) => count,
                // Nothing more, or an ICMP error of a packet sent before: the next check tells whether anybody is there.
                Err(_) => return,
            };
            let now = Instant::now();
            for (meta, buffer) in metas.iter().zip(buffers.iter()).take(count) {
                let at = meta.timestamp.unwrap_or_else(unix_time);
                for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    match wire::kind(datagram) {
                        Kind::Rtp => self.receive_rtp(shared, now, at, meta.addr, datagram),
                        Kind::Rtcp => self.receive_rtcp(shared, now, meta.addr, datagram),
                        Kind::Other => self.receive_other(shared, now, meta.addr, datagram),
                    }
                }
            }
            // Less than a batch: the kernel has no more, and tells of what comes later.
            if count < metas.len() {
                return;
            }
        }
    }

    fn receive_rtp(&mut self, shared: &mut Shared, now: Instant, at: Duration, from: SocketAddr, datagram: &[u8]) {
        shared.window.packets += 1;
        shared.window.bytes += datagram.len() as u64;
        let Some(packet) = Packet::parse(datagram) else {
            shared.window.unknown += 1;
            return;
        };
        if shared.settings.loss_down > 0.0 && self.chance.f32() < shared.settings.loss_down {
            shared.window.dropped_down += 1;
            return;
        }
        self.remote = Some(from);
        if self.theirs.is_none() {
            shared.window.early += 1;
            return;
        }
        if let Some([high, low]) = self.feedback.extension.and_then(|id| packet.extension(id)) {
            self.feedback.arrivals.arrived(u16::from_be_bytes([*high, *low]), at);
        }
        let place = match self.by_ssrc.get(&packet.header.ssrc) {
            Some(Place::Media(place)) => *place,
            Some(Place::Repair(place)) => return self.receive_repair(shared, now, *place, datagram, &packet),
            // Media may be faster than the description that announces it.
            None => match offer::kind_of(packet.header.payload_type) {
                Some(video) => self.add_stream(packet.header.ssrc, video),
                None => {
                    shared.window.unknown += 1;
                    return;
                }
            },
        };
        let stream = &mut self.streams[place];
        let gap = stream.receive(now, at, packet.header.sequence, packet.header.timestamp, &mut shared.window);
        let blind = stream.video && !stream.shows;
        let looks = blind || stream.watched.is_some() || !self.saw_first_frame;
        if (gap && stream.video) || blind {
            self.feedback.repair_soon(now);
            self.schedule_feedback(shared, now);
        }
        shared.unsampled += 1;
        let due = shared.unsampled >= SAMPLE_ONE_IN || now.saturating_duration_since(shared.sampled) >= SAMPLE_INTERVAL;
        if due || looks {
            (shared.unsampled, shared.sampled) = (0, now);
            self.look_into(shared, now, at, place, datagram, &packet);
        }
    }

    /// Opens a packet: when it left, which frame and layer it belongs to.
    fn look_into(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        at: Duration,
        place: usize,
        datagram: &[u8],
        packet: &Packet,
    ) {
        let Some(theirs) = &self.theirs else { return };
        let stream = &mut self.streams[place];
        shared.window.opened += 1;
        let (index, clear) = (stream.index(packet.header.sequence), &mut shared.opened);
        if theirs.open_rtp(datagram, packet.header_len, index, clear).is_none() {
            // libsrtp counts a rollover when the first packets of a stream are reordered across its number zero.
            if theirs.open_rtp(datagram, packet.header_len, index + ROLLOVER, clear).is_none() {
                shared.window.forged += 1;
                return;
            }
            stream.rollovers_before += 1;
        }
        let Some(payload) = Packet::parse(clear).and_then(|clear| clear.payload()) else { return };
        let stamp = if stream.video { stamp::of_video(payload) } else { stamp::of_audio(payload) };
        // Padding for bandwidth probes, comfort noise: nobody's frame.
        let Some(stamp) = stamp else { return };
        record(&mut shared.window.delay, (at.as_nanos() as u64).saturating_sub(stamp.sent) / 1000);
        if let Some(after) = stream.switched(now, &stamp) {
            record(&mut shared.window.switch, after.as_micros() as u64);
        }
        self.look_for_keyframe(shared, place, &stamp);
    }

    fn look_for_keyframe(&mut self, shared: &mut Shared, place: usize, stamp: &Stamp) {
        let stream = &mut self.streams[place];
        let keyframe = stream.video && !stream.shows && stream.completes_keyframe(stamp);
        let first = if self.wants_video { keyframe } else { !stream.video };
        if first && !self.saw_first_frame {
            self.saw_first_frame = true;
            if let Some(begun) = self.begun {
                record(&mut shared.window.first_frame, begun.elapsed().as_micros() as u64);
            }
        }
    }

    /// A packet of a retransmission stream: the first two bytes of its payload say what it repeats (RFC 4588 §4).
    fn receive_repair(&mut self, shared: &mut Shared, now: Instant, place: usize, datagram: &[u8], packet: &Packet) {
        shared.window.retransmissions += 1;
        let Some(theirs) = &self.theirs else { return };
        // Few enough that a rollover of its own numbers is not worth a second counter: it takes 65,536 retransmissions.
        let (index, clear) = (packet.header.sequence.into(), &mut shared.opened);
        if theirs.open_rtp(datagram, packet.header_len, index, clear).is_none() {
            shared.window.forged += 1;
            return;
        }
        // Without two bytes it is padding, sent to probe the bandwidth.
        let payload = Packet::parse(clear).and_then(|clear| clear.payload());
        let Some(([high, low], original)) = payload.and_then(<[u8]>::split_first_chunk) else { return };
        let stamp = if self.streams[place].shows { None } else { stamp::of_video(original) };
        self.streams[place].repair(now, u16::from_be_bytes([*high, *low]), &mut shared.window);
        if let Some(stamp) = stamp {
            self.look_for_keyframe(shared, place, &stamp);
        }
    }

    fn receive_rtcp(&mut self, shared: &mut Shared, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let clear = &mut shared.opened;
        if self.theirs.as_mut().and_then(|theirs| theirs.open_rtcp(datagram, clear)).is_some() {
            for packet in rtcp::packets(clear) {
                if let rtcp::Packet::SenderReport(report) = packet
                    && let Some(Place::Media(place)) = self.by_ssrc.get(&report.info.ssrc)
                {
                    self.streams[*place].sender_report(now, report.info.ntp.middle());
                }
            }
        }
        // What it says about our own streams.
        if !self.publications.is_empty() {
            self.receive_other(shared, now, from, datagram);
        }
    }

    pub(super) fn receive_other(&mut self, shared: &mut Shared, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if let Ok(receive) = Receive::new(Protocol::Udp, from, self.address, datagram) {
            self.input(shared, now, Input::Receive(now, receive));
        }
    }

    pub(super) fn add_stream(&mut self, ssrc: u32, video: bool) -> usize {
        self.streams.push(Stream::new(ssrc, video));
        let place = self.streams.len() - 1;
        self.by_ssrc.insert(ssrc, Place::Media(place));
        place
    }
}
