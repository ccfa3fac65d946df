//! What we send on one connection: encrypted in place, numbered, reported on and, where the client asks for it, sent again.
//!
//! str0m, which does everything else, knows nothing of these streams: its cost per packet grows with their number. They share
//! its DTLS keys, so this module owns every SSRC it sends with, and str0m only that of its reports on what we receive.
//!
//! A packet's way: [`Egress::send`] → header and payload copied behind the packets that wait in the [`Outbox`] → sealed there.
//! Nothing is allocated, and nothing but the packet's own stream is looked at.
//!
//! - [`stream`]: counters and identity of one stream. - [`history`]: what may be asked for again, [`budget`]: how much of it.
//! - [`layout`]: header extensions. - [`probing`]: padding for the estimator. - [`quality`]: round trips and losses. - [`feedback`]: the client's reports. - [`reports`]: ours. - [`capture_clock`]: what they say
//!   about time. - [`guard`]: watches all that in debug builds.

mod budget;
mod capture_clock;
mod feedback;
mod guard;
mod history;
mod layout;
mod probing;
mod quality;
mod reports;
mod slots;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::dtls::KeyExport;
use super::estimator::Estimator;
use super::srtp::{PacketIndex, ReceiveKeys, SendKeys};
use super::{Extensions, Missing, NewConnection, Outbox, OutgoingPacket, Route, SenderId};
use crate::rtp::header::Header;
use crate::rtp::ntp::NtpTime;
use history::Moment;
use layout::{Stamp, write_header};
use probing::{Probing, overhead};
use quality::Quality;
use slots::Slots;
use stream::Stream;

pub(super) use history::Sent;
pub(super) use layout::ExtensionIds;
pub(super) use stream::{PayloadTypes, StreamSpec};

/// RFC 3711 §3.3.1: a receiver that misses the first packets must not guess the rollover counter wrong.
const FIRST_SEQUENCE_LIMIT: u16 = 1 << 15;

pub(super) struct Egress {
    epoch: Instant,
    /// `epoch`, since the Unix epoch.
    unix_epoch: Duration,
    rng: StdRng,
    export: KeyExport,
    send_keys: Option<SendKeys>,
    receive_keys: Option<ReceiveKeys>,
    streams: Slots<Stream>,
    /// Every SSRC there ever was, and the stream it is now. Those of retransmissions are nobody's: none is asked about.
    ssrcs: HashMap<u32, Option<SenderId>>,
    /// What str0m sends its reports with.
    foreign_ssrc: Option<u32>,
    /// The next transport-wide sequence number.
    next_number: u64,
    /// There is one once a packet was numbered.
    estimator: Option<Box<Estimator>>,
    /// Bits per second that the room would like to send.
    desired: u64,
    probing: Option<Probing>,
    quality: Quality,
    report_at: Option<Instant>,
    /// The deadline that the caller knows.
    armed: Option<Instant>,
    keyframes_wanted: VecDeque<SenderId>,
    missing: VecDeque<Missing>,
    /// Decrypted reports, one at a time.
    scratch: Vec<u8>,
}

/// What the client told us to do.
#[derive(Debug)]
pub(super) enum Demand {
    Keyframe(SenderId),
    Resend(Missing),
}

impl Egress {
    pub fn new(new: &NewConnection, export: KeyExport) -> Self {
        Egress {
            epoch: new.now,
            unix_epoch: new.unix_time,
            rng: StdRng::seed_from_u64(new.seed),
            export,
            send_keys: None,
            receive_keys: None,
            streams: Slots::default(),
            ssrcs: HashMap::new(),
            foreign_ssrc: None,
            next_number: 0,
            estimator: None,
            desired: 0,
            probing: None,
            quality: Quality::default(),
            report_at: None,
            armed: None,
            keyframes_wanted: VecDeque::new(),
            missing: VecDeque::new(),
            scratch: Vec::new(),
        }
    }

    // --- streams -------------------------------------------------------------------------------------------------

    pub fn add(&mut self) -> SenderId {
        self.streams.add()
    }

    pub fn remove(&mut self, id: SenderId) {
        self.unbind(id);
        self.streams.remove(id);
    }

    /// An SSRC that neither this connection's other streams have nor `taken` says the client uses.
    pub fn draw_ssrc(&mut self, taken: impl Fn(u32) -> bool) -> u32 {
        loop {
            let ssrc = self.rng.random();
            if ssrc != 0 && Some(ssrc) != self.foreign_ssrc && !self.ssrcs.contains_key(&ssrc) && !taken(ssrc) {
                return ssrc;
            }
        }
    }

    /// Gives a sender its stream. The SSRCs must be fresh ones.
    pub fn bind(&mut self, id: SenderId, spec: StreamSpec) {
        self.ssrcs.insert(spec.ssrc, Some(id));
        if let Some(ssrc) = spec.rtx_ssrc {
            self.ssrcs.insert(ssrc, None);
        }
        let first_rtx_sequence = self.rng.random_range(0..FIRST_SEQUENCE_LIMIT);
        let mut stream = Stream::new(spec, first_rtx_sequence);
        if let Some(keys) = &mut self.send_keys {
            stream.secure(keys);
        }
        self.streams.set(id, stream);
    }

    /// The client's description says how it understands this sender.
    pub fn negotiated(&mut self, id: SenderId, payload_types: PayloadTypes, extensions: ExtensionIds) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.negotiated(payload_types, extensions);
        }
    }

    pub fn unbind(&mut self, id: SenderId) {
        if let Some(stream) = self.streams.take(id) {
            self.ssrcs.insert(stream.spec.ssrc, None);
        }
    }

    /// The handshake is done: its keys can be used.
    pub fn secure(&mut self) {
        let Some((mut send, receive)) = self.export.take() else { return };
        for stream in self.streams.iter_mut() {
            stream.secure(&mut send);
        }
        self.send_keys = Some(send);
        self.receive_keys = Some(receive);
    }

    /// str0m encrypts its own reports under the same keys. False when it does so with an SSRC of ours: then nothing may leave
    /// any more, as the same key, SSRC and index would encrypt two packets.
    #[must_use]
    pub fn tolerates(&mut self, foreign_ssrc: u32) -> bool {
        self.foreign_ssrc = Some(foreign_ssrc);
        !self.ssrcs.contains_key(&foreign_ssrc)
    }

    // --- packets -------------------------------------------------------------------------------------------------

    /// Writes a packet. Gives a time when the deadline came nearer than the caller knows.
    pub fn send(
        &mut self,
        now: Instant,
        route: Route,
        id: SenderId,
        packet: &OutgoingPacket<'_>,
        outbox: &mut Outbox,
    ) -> Option<Instant> {
        let (moment, send_time) = (self.moment(now), self.ntp(now).absolute_send_time());
        let keys = self.send_keys.as_ref()?;
        let stream = self.streams.get_mut(id)?;
        let index = stream.srtp.as_mut()?.claim(packet.sequence)?;
        stream.guard.check(packet, stream.spec.clock_rate);
        let ids = stream.spec.extensions;
        let header = Header {
            marker: packet.marker,
            payload_type: stream.spec.payload_types.of(packet.codec),
            sequence: index.sequence(),
            timestamp: packet.timestamp,
            ssrc: index.ssrc(),
        };
        let mid = (!stream.found).then_some(stream.spec.mid.as_str());
        let stamp = Stamp { mid, number: self.next_number as u16, send_time };
        let payload = &packet.payload[packet.rewrite.range(packet.payload.len())];
        let mut bytes = 0;
        outbox.write(route, |out| {
            let start = out.len();
            let header_len = write_header(out, &ids, header, &stamp, packet.extensions, packet.dependency);
            out.extend_from_slice(payload);
            packet.rewrite.apply(&mut out[start + header_len..]);
            bytes = seal(keys, out, start, header_len, index);
        });
        let is_first = !stream.has_sent();
        stream.sent(moment, self.epoch, packet, payload.len());
        if ids.is_numbered() {
            self.numbered(now, route, bytes);
        }
        if is_first || self.report_at.is_none() {
            self.report_soon(now);
        }
        self.sooner()
    }

    /// Writes a packet again, on the stream for that (RFC 4588 §4).
    pub fn resend(
        &mut self,
        now: Instant,
        route: Route,
        missing: &Missing,
        payload: &[u8],
        extensions: &Extensions,
        outbox: &mut Outbox,
    ) {
        let send_time = self.ntp(now).absolute_send_time();
        let Some(keys) = &self.send_keys else { return };
        let Some(stream) = self.streams.get_mut(missing.sender) else { return };
        let mid = (!stream.found).then_some(stream.spec.mid.as_str());
        let stamp = Stamp { mid, number: self.next_number as u16, send_time };
        let (ids, sent) = (stream.spec.extensions, &missing.sent);
        // One request may name hundreds of packets: the budget that was there for the first is spent before the last.
        let Some(rtx) = stream.rtx.as_mut().filter(|rtx| !rtx.budget.is_empty()) else { return };
        let Some(index) = rtx.claim() else { return };
        let header = Header {
            marker: sent.marker,
            payload_type: rtx.payload_type,
            sequence: index.sequence(),
            timestamp: sent.timestamp,
            ssrc: index.ssrc(),
        };
        let payload = &payload[sent.rewrite.range(payload.len())];
        let mut bytes = 0;
        outbox.write(route, |out| {
            let start = out.len();
            let header_len = write_header(out, &ids, header, &stamp, extensions, sent.dependency);
            out.extend_from_slice(&(sent.sequence as u16).to_be_bytes());
            let payload_start = out.len();
            out.extend_from_slice(payload);
            sent.rewrite.apply(&mut out[payload_start..]);
            bytes = seal(keys, out, start, header_len, index);
        });
        rtx.budget.spend(bytes);
        if ids.is_numbered() {
            self.numbered(now, route, bytes);
        }
    }

    /// A packet with the next transport-wide number went out.
    fn numbered(&mut self, now: Instant, route: Route, bytes: usize) {
        let bytes = bytes + overhead(&route);
        let probe = self.probing.as_mut().map(|probing| {
            probing.sent(bytes);
            probing.probe.id
        });
        self.probing.take_if(|probing| probing.is_complete());
        let estimator = self.estimator.get_or_insert_with(|| {
            let mut estimator = Box::<Estimator>::default();
            estimator.set_desired(now, self.desired);
            estimator
        });
        estimator.sent(now, self.next_number, bytes, probe);
        self.next_number += 1;
    }

    // --- time ----------------------------------------------------------------------------------------------------

    pub fn handle_timeout(&mut self, now: Instant, route: Route, outbox: &mut Outbox) {
        self.armed = None;
        self.send_reports(now, route, outbox);
        self.send_probes(now, route, outbox);
    }

    /// When [`Self::handle_timeout`] is due; the caller has to see to it.
    pub fn arm(&mut self) -> Option<Instant> {
        self.armed = self.next_timeout();
        self.armed
    }

    fn next_timeout(&self) -> Option<Instant> {
        let estimator = self.estimator.as_ref().and_then(|estimator| estimator.next_timeout());
        let probing = self.probing.as_ref().map(Probing::next_at);
        [self.report_at, estimator, probing].into_iter().flatten().min()
    }

    fn sooner(&mut self) -> Option<Instant> {
        let next = self.next_timeout()?;
        let is_sooner = self.armed.is_none_or(|armed| next < armed);
        is_sooner.then(|| self.arm())?
    }

    fn moment(&self, now: Instant) -> Moment {
        now.saturating_duration_since(self.epoch).as_millis() as Moment
    }

    fn ntp(&self, now: Instant) -> NtpTime {
        NtpTime::from_unix(self.unix_epoch + now.saturating_duration_since(self.epoch))
    }

    // --- the path ------------------------------------------------------------------------------------------------

    /// Bits per second; `None` before the first transport-wide feedback.
    pub fn estimate(&self) -> Option<u64> {
        self.estimator.as_ref()?.estimate()
    }

    /// How often the path came back after nothing was heard of it.
    pub fn silences(&self) -> u32 {
        self.estimator.as_ref().map_or(0, |estimator| estimator.silences())
    }

    pub fn set_desired(&mut self, now: Instant, bits_per_second: u64) {
        self.desired = bits_per_second;
        if let Some(estimator) = &mut self.estimator {
            estimator.set_desired(now, bits_per_second);
        }
    }

    pub fn round_trip(&self) -> Option<Duration> {
        self.quality.round_trip().or_else(|| self.estimator.as_ref()?.rtt())
    }

    /// 0.0..=1.0.
    pub fn loss(&self) -> f32 {
        let estimator = self.estimator.as_ref().filter(|estimator| estimator.estimate().is_some());
        estimator.map_or(self.quality.loss(), |estimator| estimator.loss())
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("streams", &self.streams).finish_non_exhaustive()
    }
}

/// Encrypts the packet that begins at `start` and ends the buffer; gives its length.
fn seal(keys: &SendKeys, out: &mut Vec<u8>, start: usize, header_len: usize, index: PacketIndex) -> usize {
    out.resize(out.len() + keys.profile().rtp_overhead(), 0);
    keys.seal_rtp(&mut out[start..], header_len, index);
    out.len() - start
}
