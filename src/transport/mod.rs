//! One peer connection: ICE-lite, DTLS-SRTP, RTP both ways and data channels. Called by `sfu`, fed by `net`.
//!
//! str0m does ICE, DTLS, SCTP, SRTP and receiving through its Direct API; the SDP is ours, because LiveKit's v1 dialect
//! needs control over every section that str0m's answerer does not give. No str0m type leaves this module: what sends a
//! packet can be replaced without the rooms noticing.
//!
//! Pure: datagrams and time go in, [`Output`]s come out.

mod admission;
mod channels;
pub mod classify;
mod codecs;
mod description;
pub mod dtls;
mod egress;
pub mod estimator;
mod extensions;
pub mod framing;
mod negotiation;
mod outbox;
mod outgoing;
mod path;
pub mod sdp;
mod sections;
mod senders;
pub mod srtp;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use str0m::config::{CryptoProvider, DtlsCert};
use str0m::media::{KeyframeRequestKind, Mid, Rid};
use str0m::net::{Protocol as RtcProtocol, Receive};
use str0m::rtp::{RtpPacket, Ssrc};
use str0m::{Candidate, Event as RtcEvent, IceConnectionState, Input, Output as RtcOutput, Rtc};

use crate::rtp::rtcp;
use crate::sfu::{Codec, DataChannel};
use admission::Admission;
use channels::Channels;
use codecs::CodecTable;
use dtls::KeyExport;
use egress::{Demand, Egress};
use path::Path;
use sections::Sections;

pub use codecs::OpusOptions;
pub use extensions::{AbsCaptureTime, AudioLevel, Extensions, PlayoutDelay};
pub use negotiation::NegotiationError;
pub use outbox::{Outbox, Packets, Route, Written};
pub use outgoing::{Missing, Origin, OutgoingPacket};
pub use sections::{ReceivePreference, RemoteTrack, SenderSpec};

/// What every connection of this process shares.
#[derive(Clone)]
pub struct Settings {
    /// Where clients can reach us, most wanted first; written into every SDP.
    pub candidates: Vec<(Protocol, SocketAddr)>,
    crypto: Arc<CryptoProvider>,
    certificate: DtlsCert,
}

impl Settings {
    /// Makes the certificate that all connections of the process present.
    pub fn new(candidates: Vec<(Protocol, SocketAddr)>) -> Self {
        let crypto = Arc::new(dtls::server_crypto());
        let certificate =
            crypto.dtls_provider.generate_certificate().expect("the bundled crypto provider makes certificates");
        Settings { candidates, crypto, certificate }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Udp,
    /// RFC 6544 passive: the client connects to us.
    Tcp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Udp => "UDP",
            Protocol::Tcp => "TCP",
        })
    }
}

/// A packet from the network.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    pub protocol: Protocol,
    pub source: SocketAddr,
    /// The local candidate it arrived at.
    pub destination: SocketAddr,
    pub bytes: &'a [u8],
}

/// ICE user fragment and password (RFC 8839 §5.4). Drawn by the caller: this module has no randomness.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    pub ufrag: String,
    pub password: String,
}

/// What a new connection needs of its caller, as this module has neither randomness nor a clock.
pub struct NewConnection {
    pub ice: IceCredentials,
    /// The `o=` line's session id.
    pub session_id: u64,
    /// SSRCs and the first numbers of retransmission streams are drawn from it.
    pub seed: u64,
    pub now: Instant,
    /// What `now` is since the Unix epoch: goes into sender reports.
    pub unix_time: Duration,
}

/// One thing to do after feeding the connection.
#[derive(Debug)]
pub enum Output {
    Transmit(Route, Vec<u8>),
    Event(Event),
    /// Nothing more now; call [`Transport::handle_timeout`] then.
    Timeout(Instant),
}

#[derive(Debug)]
pub enum Event {
    /// ICE and DTLS are up: media flows.
    Connected,
    /// The peer closed the connection, or it broke beyond repair. Nothing follows.
    Closed,
    Media(MediaPacket),
    /// The receiver of this sender's stream lost a picture (PLI or FIR).
    KeyframeWanted(SenderId),
    /// The receiver lost a packet; answered with [`Transport::resend`]. One event per packet.
    Missing(Missing),
    Data {
        channel: DataChannel,
        message: Vec<u8>,
    },
}

/// An RTP packet that arrived, decrypted, of a known section.
#[derive(Debug)]
pub struct MediaPacket {
    /// Index of the m-line in our SDP.
    pub section: usize,
    /// Simulcast layer, 0 = lowest.
    pub layer: u8,
    pub codec: Codec,
    /// Extended sequence number of this layer's stream.
    pub sequence: u64,
    /// The first packet of a stream that replaces the layer's former one: its sequence numbers start over.
    pub restarted: bool,
    pub timestamp: u32,
    /// Hz.
    pub clock_rate: u32,
    pub marker: bool,
    pub payload: Arc<[u8]>,
    pub arrival: Instant,
    /// What the publisher's sender report says this timestamp means, since the Unix epoch.
    pub sender_time: Option<Duration>,
    pub extensions: Extensions,
}

/// A stream towards the client. Numbered by the caller's [`Transport::add_sender`] calls, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderId {
    /// Counts the connection's senders: the older is the smaller.
    serial: u32,
    slot: u32,
}

/// How far the connection has come: tells why a join failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    NoChecks,
    /// Connectivity checks arrive, no pair is up.
    Checking,
    /// ICE is up, the DTLS handshake is not.
    Handshaking,
    Connected,
    Closed,
}

pub struct Transport {
    /// Boxed: ten kilobytes that a packet on its way out does not touch would lie between those that it does.
    rtc: Box<Rtc>,
    codecs: CodecTable,
    sections: Sections,
    channels: Channels,
    /// Only for [`Transport::upstream`]: str0m's latest answer.
    upstream: Option<String>,
    /// Which (section, layer) a known SSRC is.
    streams: HashMap<Ssrc, (usize, u8)>,
    admission: Admission,
    export: KeyExport,
    progress: Progress,
    /// Told by str0m, but the end of the handshake has yet to leave: media must not overtake it.
    handshaken: bool,
    told_closed: bool,
    /// Set while str0m has nothing to say before this time. Most of what a receiver sends is none of its business.
    idle_until: Option<Instant>,
    path: Path,
    /// `None` on a connection that only receives.
    egress: Option<Egress>,
    last_received: Instant,
    settings: Settings,
}

impl Transport {
    /// The ICE user fragment that datagrams of this connection are addressed to.
    pub fn ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// When the peer was last heard. A browser checks consent every few seconds (RFC 7675), so silence means it is gone.
    pub fn last_received(&self) -> Instant {
        self.last_received
    }

    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        let protocol = match datagram.protocol {
            Protocol::Udp => RtcProtocol::Udp,
            Protocol::Tcp => RtcProtocol::Tcp,
        };
        let Ok(receive) = Receive::new(protocol, datagram.source, datagram.destination, datagram.bytes) else {
            return;
        };
        self.last_received = now;
        if self.progress == Progress::NoChecks {
            self.progress = Progress::Checking;
        }
        let from = (datagram.protocol, datagram.source);
        if let Some(left) = self.path.received(now, from, datagram.destination, datagram.bytes) {
            self.abandon(left);
        }
        let admitted = if rtcp::is_rtcp(datagram.bytes) {
            self.egress.as_mut().is_none_or(|egress| egress.handle_rtcp(now, datagram.bytes))
        } else {
            !classify::is_media(datagram.bytes) || self.admission.admits(datagram.bytes, &self.codecs)
        };
        if !admitted {
            return;
        }
        self.input(Input::Receive(now, receive));
    }

    /// The client is not at this address any more: str0m looks for another pair that was nominated.
    fn abandon(&mut self, (protocol, address): (Protocol, SocketAddr)) {
        self.idle_until = None;
        let protocol = if protocol == Protocol::Udp { "udp" } else { "tcp" };
        // All that we know of the client's addresses we know from its checks.
        let line = format!("candidate:1 1 {protocol} 1 {} {} typ prflx", address.ip(), address.port());
        if let Ok(candidate) = Candidate::from_sdp_string(&line) {
            self.rtc.direct_api().invalidate_candidate(&candidate);
        }
    }

    /// Does what is due. Packets go to `outbox`, or come out of [`Self::poll`].
    pub fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        if let Some(route) = self.open_route()
            && let Some(egress) = &mut self.egress
        {
            egress.handle_timeout(now, route, outbox);
        }
        self.input(Input::Timeout(now));
    }

    fn input(&mut self, input: Input<'_>) {
        self.idle_until = None;
        if self.progress == Progress::Closed {
            return;
        }
        // str0m's Direct API may panic on states it deems impossible: one connection dies, not the worker.
        let done = catch_unwind(AssertUnwindSafe(|| self.rtc.handle_input(input)));
        if !matches!(done, Ok(Ok(()))) {
            self.fail();
        }
    }

    fn fail(&mut self) {
        self.rtc.disconnect();
        self.progress = Progress::Closed;
    }

    /// Next thing to do. Call until it gives [`Output::Timeout`].
    pub fn poll(&mut self) -> Output {
        loop {
            if self.progress == Progress::Closed && !self.rtc.is_alive() {
                if !std::mem::replace(&mut self.told_closed, true) {
                    return Output::Event(Event::Closed);
                }
                return Output::Timeout(self.last_received + FOREVER);
            }
            if let Some(demand) = self.egress.as_mut().and_then(Egress::poll) {
                return Output::Event(match demand {
                    Demand::Keyframe(sender) => Event::KeyframeWanted(sender),
                    Demand::Resend(missing) => Event::Missing(missing),
                });
            }
            if let Some(at) = self.idle_until {
                return Output::Timeout(self.next_timeout(at));
            }
            let output = match catch_unwind(AssertUnwindSafe(|| self.rtc.poll_output())) {
                Ok(Ok(output)) => output,
                Ok(Err(_)) | Err(_) => {
                    self.fail();
                    continue;
                }
            };
            match output {
                RtcOutput::Timeout(_) if std::mem::take(&mut self.handshaken) => {
                    self.progress = Progress::Connected;
                    self.admission.secure(self.export.receive_keys());
                    if let Some(egress) = &mut self.egress {
                        egress.secure();
                    }
                    return Output::Event(Event::Connected);
                }
                RtcOutput::Timeout(at) => {
                    self.idle_until = Some(at);
                    return Output::Timeout(self.next_timeout(at));
                }
                RtcOutput::Transmit(t) => {
                    let protocol = if t.proto == RtcProtocol::Udp { Protocol::Udp } else { Protocol::Tcp };
                    let route = Route { protocol, source: t.source, destination: t.destination };
                    self.path.sent(self.last_received, route, &t.contents);
                    if !self.may_leave(&t.contents) {
                        self.fail();
                        continue;
                    }
                    return Output::Transmit(route, t.contents.into());
                }
                RtcOutput::Event(event) => {
                    if let Some(event) = self.translate(event) {
                        return Output::Event(event);
                    }
                }
            }
        }
    }

    fn next_timeout(&mut self, rtc: Instant) -> Instant {
        let egress = self.open_route().and(self.egress.as_mut()).and_then(Egress::arm);
        egress.map_or(rtc, |egress| rtc.min(egress))
    }

    /// str0m's reports share our keys: see [`Egress::tolerates`]. Their SSRC is drawn where we cannot see it; that it meets one
    /// of ours happens to one connection in hundreds of millions, which then fails and is made anew.
    fn may_leave(&mut self, packet: &[u8]) -> bool {
        let sender = packet.get(4..).and_then(|rest| rest.first_chunk()).filter(|_| rtcp::is_rtcp(packet));
        match (sender, &mut self.egress) {
            (Some(ssrc), Some(egress)) => egress.tolerates(u32::from_be_bytes(*ssrc)),
            _ => true,
        }
    }

    fn translate(&mut self, event: RtcEvent) -> Option<Event> {
        match event {
            RtcEvent::IceConnectionStateChange(state) => {
                let up = matches!(state, IceConnectionState::Connected | IceConnectionState::Completed);
                if up && self.progress < Progress::Handshaking {
                    self.progress = Progress::Handshaking;
                }
                None
            }
            RtcEvent::Connected => {
                self.handshaken = true;
                None
            }
            RtcEvent::Closed => {
                self.progress = Progress::Closed;
                (!std::mem::replace(&mut self.told_closed, true)).then_some(Event::Closed)
            }
            RtcEvent::RtpPacket(packet) => {
                if let Some(number) = packet.header.ext_vals.transport_cc {
                    self.admission.accepted(number);
                }
                self.media_packet(packet).map(Event::Media)
            }
            RtcEvent::ChannelOpen(id, label) => {
                self.channels.opened(id, &label);
                None
            }
            RtcEvent::ChannelClose(id) => {
                self.channels.closed(id);
                None
            }
            RtcEvent::ChannelData(data) => {
                let channel = self.channels.label_of(data.id)?;
                Some(Event::Data { channel, message: data.data })
            }
            _ => None,
        }
    }

    fn media_packet(&mut self, packet: RtpPacket) -> Option<MediaPacket> {
        let ssrc = packet.header.ssrc;
        let mut restarted = false;
        let (section, layer) = match self.streams.get(&ssrc) {
            Some(known) => *known,
            None => {
                // The rid leaves the header once the receiver has acknowledged the stream: remember it by SSRC.
                let (mid, rid) = {
                    let mut api = self.rtc.direct_api();
                    let stream = api.stream_rx(&ssrc)?;
                    (stream.mid(), stream.rid())
                };
                let found = self.sections.receiving(&mid, rid.as_deref())?;
                let known = self.streams.len();
                self.streams.retain(|_, layer| *layer != found);
                restarted = self.streams.len() < known;
                self.streams.insert(ssrc, found);
                found
            }
        };
        let codec = self.codecs.codec(*packet.header.payload_type)?;
        let clock_rate = codecs::clock_rate(codec);
        let sender_time = packet.last_sender_info.and_then(|report| {
            let at_report = report.ntp_time.duration_since(UNIX_EPOCH).ok()?;
            let ticks = packet.header.timestamp.wrapping_sub(report.rtp_time.numer() as u32) as i32;
            let offset = Duration::from_secs_f64(f64::from(ticks.unsigned_abs()) / f64::from(clock_rate));
            if ticks >= 0 { at_report.checked_add(offset) } else { at_report.checked_sub(offset) }
        });
        let mut extensions = Extensions::received(&packet.header.ext_vals);
        if !codec.is_scalable() {
            // Not asked for; sent on, its numbers would have to be kept in step with those of the codec.
            extensions.dependency_descriptor = None;
        }
        Some(MediaPacket {
            section,
            layer,
            codec,
            sequence: *packet.seq_no,
            restarted,
            timestamp: packet.header.timestamp,
            clock_rate,
            marker: packet.header.marker,
            payload: packet.payload,
            arrival: packet.timestamp,
            sender_time,
            extensions,
        })
    }

    /// Sends a PLI for one layer of what the client publishes in `section`.
    pub fn request_keyframe(&mut self, section: usize, layer: u8) {
        let Some((mid, rid)) = self.sections.layer_name(section, layer) else { return };
        let (mid, rid) = (Mid::from(mid), rid.map(Rid::from));
        if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(mid, rid) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }

    /// Sends a message; dropped when the channel is not open or its buffer is full.
    /// Returns whether it was taken.
    pub fn send_data(&mut self, channel: DataChannel, message: &[u8]) -> bool {
        self.channels.send(&mut self.rtc, channel, message)
    }
}

/// Far enough to never come, near enough to add to an Instant.
const FOREVER: Duration = Duration::from_secs(86_400 * 365);
