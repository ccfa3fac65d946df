//! One client: a socket, a connection of str0m's for everything that is not incoming media, and the streams it counts.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::UdpSocket;
use parlour::rtp::header::Packet;
use parlour::rtp::rtcp;
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use str0m::channel::{ChannelConfig, Reliability};
use str0m::media::Mid;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event as RtcEvent, IceCreds, Input, Output, Rtc, RtcConfig};
use tokio::sync::mpsc;

use super::feedback::Feedback;
use super::publication::Publication;
use super::stream::Stream;
use super::worker::{Shared, Timer};
use super::{ClientId, Event, Expected, Local, Remote, Track};
use crate::driver::offer;
use crate::machine;
use crate::media::stamp::{self, Stamp};
use crate::sink::{Window, record};
use crate::wire::keys::{self, Slot};
use crate::wire::{self, Kind, srtp, unpadded};

/// Holds half a second of fifty streams while the thread is busy with other clients.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// One packet of so many is opened, for delay and integrity;
const SAMPLE_ONE_IN: u32 = 100;
/// and while there are few, one in this time.
const SAMPLE_INTERVAL: Duration = Duration::from_micros(500);

pub(super) struct Client {
    id: ClientId,
    socket: UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
    rtc: Rtc,
    keys: Slot,
    /// When str0m wants to be called.
    rtc_due: Option<Instant>,
    events: mpsc::UnboundedSender<Event>,
    begun: Option<Instant>,
    wants_video: bool,
    saw_first_frame: bool,
    connected: bool,
    failed: bool,
    /// Their keys, ours.
    theirs: Option<srtp::Direction>,
    pub(super) ours: Option<srtp::Direction>,
    /// Where media comes from.
    pub(super) remote: Option<SocketAddr>,
    pub(super) streams: Vec<Stream>,
    /// Where the packets of an SSRC go.
    by_ssrc: HashMap<u32, Place>,
    pub(super) feedback: Feedback,
    pending: Vec<Track>,
    publications: Vec<Publication>,
    chance: fastrand::Rng,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Media(usize),
    Repair(usize),
}

impl Client {
    pub fn open(
        shared: &mut Shared,
        id: ClientId,
        begun: Option<Instant>,
        wants_video: bool,
        events: mpsc::UnboundedSender<Event>,
    ) -> io::Result<(Client, Local)> {
        let listen = SocketAddr::new(shared.settings.local, 0);
        let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(SocketProtocol::UDP))?;
        socket.bind(&listen.into())?;
        machine::enlarge_receive_buffer(&socket, SOCKET_BUFFER_BYTES);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket.into());
        let address = socket.local_addr()?;

        let now = Instant::now();
        let mut config = RtcConfig::new()
            .set_crypto_provider(keys::crypto())
            .set_dtls_cert(shared.certificate.clone())
            .set_rtp_mode(true)
            .clear_codecs()
            .clear_extension_map();
        offer::configure_codecs(config.codec_config());
        for (number, extension) in offer::extensions() {
            config = config.set_extension(number, extension);
        }
        let (mut rtc, keys) = keys::capturing(|| config.build(now));
        let candidate = Candidate::host(address, Protocol::Udp).map_err(io::Error::other)?;
        rtc.add_local_candidate(candidate);
        let api = rtc.direct_api();
        let ice = api.local_ice_credentials();
        let local = Local {
            id,
            address,
            ufrag: ice.ufrag,
            pwd: ice.pass,
            fingerprint: api.local_dtls_fingerprint().bytes.clone(),
        };
        let mut chance = fastrand::Rng::with_seed(shared.settings.seed.wrapping_mul(31).wrapping_add(id as u64));
        let client = Client {
            id,
            socket,
            state,
            address,
            rtc,
            keys,
            rtc_due: None,
            events,
            begun,
            wants_video,
            saw_first_frame: false,
            connected: false,
            failed: false,
            theirs: None,
            ours: None,
            remote: None,
            streams: Vec::new(),
            by_ssrc: HashMap::new(),
            feedback: Feedback::new(chance.u32(1..)),
            pending: Vec::new(),
            publications: Vec::new(),
            chance,
        };
        Ok((client, local))
    }

    pub fn socket(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    // --- what the driver says -----------------------------------------------------------------------------------------

    pub fn connect(&mut self, shared: &mut Shared, remote: Remote) {
        for line in &remote.candidates {
            // A server may list addresses of a kind that we do not have.
            if let Ok(candidate) = Candidate::from_sdp_string(line)
                && candidate.addr().is_ipv4() == self.address.is_ipv4()
            {
                self.rtc.add_remote_candidate(candidate);
            }
        }
        let mut api = self.rtc.direct_api();
        api.set_ice_controlling(remote.controlling);
        api.set_remote_ice_credentials(IceCreds { ufrag: remote.ufrag, pass: remote.pwd });
        api.set_remote_fingerprint(str0m::config::Fingerprint {
            hash_func: remote.fingerprint.algorithm,
            bytes: remote.fingerprint.bytes,
        });
        if let Err(error) = api.start_dtls(remote.dtls_client) {
            return self.fail(shared, format!("DTLS cannot start: {error}"));
        }
        if !remote.channels.is_empty() {
            api.start_sctp(remote.dtls_client);
            for label in remote.channels {
                let reliable = label == "_reliable";
                api.create_data_channel(ChannelConfig {
                    label: label.into(),
                    ordered: reliable,
                    reliability: if reliable {
                        Reliability::Reliable
                    } else {
                        Reliability::MaxRetransmits { retransmits: 0 }
                    },
                    ..ChannelConfig::default()
                });
            }
        }
        self.poll_rtc(shared, Instant::now());
    }

    pub fn publish(&mut self, shared: &mut Shared, tracks: Vec<Track>) {
        self.pending.extend(tracks);
        if self.connected {
            self.begin_publishing(shared, Instant::now());
        }
    }

    pub fn expect(&mut self, shared: &mut Shared, expected: Expected) {
        self.feedback.extension = expected.twcc;
        let now = Instant::now();
        let mut silenced: Vec<u32> =
            self.streams.iter().filter(|stream| stream.announced.is_some()).map(|stream| stream.ssrc).collect();
        for expected in expected.streams {
            silenced.retain(|ssrc| *ssrc != expected.ssrc);
            let place = match self.by_ssrc.get(&expected.ssrc) {
                Some(Place::Media(place)) => *place,
                _ => self.add_stream(expected.ssrc, expected.video),
            };
            let stream = &mut self.streams[place];
            stream.announced.get_or_insert(now);
            (stream.track, stream.video) = (expected.track, expected.video);
            if let Some(rtx) = expected.rtx {
                self.by_ssrc.insert(rtx, Place::Repair(place));
            }
        }
        for stream in self.streams.iter_mut().filter(|stream| silenced.contains(&stream.ssrc)) {
            stream.announced = None;
        }
        if self.connected {
            self.schedule_feedback(shared, now);
        }
    }

    pub fn enable_layer(&mut self, mid: &str, layer: u8, on: bool) {
        let mid = Mid::from(mid);
        for publication in self.publications.iter_mut().filter(|publication| publication.is(mid)) {
            publication.enable(layer, on);
        }
    }

    pub fn watch_layer(&mut self, track: &str, layer: u8) {
        for stream in self.streams.iter_mut().filter(|stream| stream.track == track) {
            stream.watched = Some((layer, Instant::now()));
        }
    }

    pub fn take_window(&mut self, window: &mut Window) {
        let now = Instant::now();
        for stream in &mut self.streams {
            stream.end_window(now, window);
        }
    }

    /// Says goodbye (DTLS close_notify), as a page that is closed in order does.
    pub fn close(&mut self) {
        self.rtc.disconnect();
        while let Ok(Output::Transmit(transmit)) = self.rtc.poll_output() {
            let _ = self.socket.send_to(&transmit.contents, transmit.destination);
        }
    }

    // --- what comes in ------------------------------------------------------------------------------------------------

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
        let Some(theirs) = &mut self.theirs else { return };
        let stream = &mut self.streams[place];
        shared.window.opened += 1;
        let rollovers = stream.rollovers(packet.header.sequence);
        if theirs.open_rtp(datagram, packet.header_len, rollovers).is_none() {
            // libsrtp counts a rollover when the first packets of a stream are reordered across its number zero.
            if theirs.open_rtp(datagram, packet.header_len, rollovers + 1).is_none() {
                shared.window.forged += 1;
                return;
            }
            stream.rollovers_before += 1;
        }
        let payload = unpadded(packet.padded, theirs.opened());
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
        let Some(theirs) = &mut self.theirs else { return };
        // Few enough that a rollover of its own numbers is not worth a second counter: it takes 65,536 retransmissions.
        let Some(payload) = theirs.open_rtp(datagram, packet.header_len, 0) else {
            shared.window.forged += 1;
            return;
        };
        // Without two bytes it is padding, sent to probe the bandwidth.
        let Some(([high, low], original)) = unpadded(packet.padded, payload).split_first_chunk() else { return };
        let stamp = if self.streams[place].shows { None } else { stamp::of_video(original) };
        self.streams[place].repair(now, u16::from_be_bytes([*high, *low]), &mut shared.window);
        if let Some(stamp) = stamp {
            self.look_for_keyframe(shared, place, &stamp);
        }
    }

    fn receive_rtcp(&mut self, shared: &mut Shared, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if let Some(clear) = self.theirs.as_mut().and_then(|theirs| theirs.open_rtcp(datagram)) {
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

    fn receive_other(&mut self, shared: &mut Shared, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if let Ok(receive) = Receive::new(Protocol::Udp, from, self.address, datagram) {
            self.input(shared, now, Input::Receive(now, receive));
        }
    }

    fn add_stream(&mut self, ssrc: u32, video: bool) -> usize {
        self.streams.push(Stream::new(ssrc, video));
        let place = self.streams.len() - 1;
        self.by_ssrc.insert(ssrc, Place::Media(place));
        place
    }

    // --- time ---------------------------------------------------------------------------------------------------------

    pub fn timer(&mut self, shared: &mut Shared, timer: Timer, at: Instant, now: Instant) {
        match timer {
            // Another one was set since.
            Timer::Rtc if self.rtc_due != Some(at) => {}
            Timer::Rtc => {
                self.rtc_due = None;
                self.input(shared, now, Input::Timeout(now));
            }
            Timer::Media => self.send_media(shared, now),
            Timer::Feedback => self.send_feedback(shared, now),
        }
    }

    fn begin_publishing(&mut self, shared: &mut Shared, now: Instant) {
        for track in std::mem::take(&mut self.pending) {
            self.publications.push(Publication::new(&mut self.rtc, &shared.settings, &track, now));
        }
        self.schedule_media(shared);
    }

    fn schedule_media(&mut self, shared: &mut Shared) {
        if let Some(at) = self.publications.iter().map(Publication::next).min() {
            shared.schedule(at, self.id, Timer::Media);
        }
    }

    fn send_media(&mut self, shared: &mut Shared, now: Instant) {
        if self.failed {
            return;
        }
        for publication in self.publications.iter_mut().filter(|publication| publication.next() <= now) {
            shared.window.sent += publication.send(&mut self.rtc, now, unix_time().as_nanos() as u64);
        }
        // str0m takes packets up at its next timeout.
        self.input(shared, now, Input::Timeout(now));
        self.schedule_media(shared);
    }

    fn input(&mut self, shared: &mut Shared, now: Instant, input: Input<'_>) {
        if self.failed {
            return;
        }
        match self.rtc.handle_input(input) {
            Ok(()) => self.poll_rtc(shared, now),
            Err(error) => self.fail(shared, error.to_string()),
        }
    }

    fn poll_rtc(&mut self, shared: &mut Shared, now: Instant) {
        loop {
            if !self.rtc.is_alive() {
                return self.fail(shared, "the server closed the connection".into());
            }
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    if self.rtc_due != Some(at) {
                        self.rtc_due = Some(at);
                        shared.schedule(at, self.id, Timer::Rtc);
                    }
                    return;
                }
                Ok(Output::Transmit(transmit)) => self.transmit(shared, transmit.destination, &transmit.contents),
                Ok(Output::Event(event)) => self.heed(shared, now, event),
                Err(error) => return self.fail(shared, error.to_string()),
            }
        }
    }

    fn transmit(&mut self, shared: &mut Shared, to: SocketAddr, bytes: &[u8]) {
        let lossy = shared.settings.loss_up > 0.0 && wire::kind(bytes) == Kind::Rtp;
        if lossy && self.chance.f32() < shared.settings.loss_up {
            shared.window.dropped_up += 1;
            return;
        }
        self.send_to(to, bytes);
    }

    pub(super) fn send_to(&self, to: SocketAddr, bytes: &[u8]) {
        // A full buffer drops it, as a network would.
        let _ = self.socket.send_to(bytes, to);
    }

    fn heed(&mut self, shared: &mut Shared, now: Instant, event: RtcEvent) {
        match event {
            RtcEvent::Connected => self.connected(shared, now),
            RtcEvent::KeyframeRequest(request) => {
                shared.window.keyframes_wanted += 1;
                for publication in self.publications.iter_mut().filter(|publication| publication.is(request.mid)) {
                    publication.request_keyframe(request.rid);
                }
            }
            _ => {}
        }
    }

    fn connected(&mut self, shared: &mut Shared, now: Instant) {
        let Some(agreed) = self.keys.get() else {
            return self.fail(shared, "the handshake gave no SRTP keys".into());
        };
        let (ours, theirs) = srtp::directions(agreed);
        (self.ours, self.theirs) = (Some(ours), Some(theirs));
        self.connected = true;
        if let Some(begun) = self.begun {
            record(&mut shared.window.join, begun.elapsed().as_micros() as u64);
        }
        // Nobody listens when the driver has given up on the client.
        let _ = self.events.send(Event::Connected(srtp::suite_name(agreed.profile)));
        self.begin_publishing(shared, now);
        self.schedule_feedback(shared, now);
    }

    pub(super) fn schedule_feedback(&mut self, shared: &mut Shared, now: Instant) {
        let at = self.feedback.next(now, !self.streams.is_empty());
        if let Some(at) = at {
            shared.schedule(at, self.id, Timer::Feedback);
        }
    }

    fn fail(&mut self, shared: &mut Shared, why: String) {
        if std::mem::replace(&mut self.failed, true) {
            return;
        }
        shared.window.disconnected += 1;
        let _ = self.events.send(Event::Failed(why));
    }
}

/// The clock of the kernel's receive timestamps.
fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
