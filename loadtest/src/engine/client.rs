//! One client: a socket, a connection of str0m's for everything that is not incoming media, and the streams it counts.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::UdpSocket;
use parlour::transport::dtls::{self, KeyExport};
use parlour::transport::srtp::{ReceiveKeys, SendKeys};
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use str0m::channel::{ChannelConfig, Reliability};
use str0m::media::Mid;
use str0m::net::Protocol;
use str0m::{Candidate, Event as RtcEvent, IceCreds, Input, Output, Rtc, RtcConfig};
use tokio::sync::mpsc;

use super::feedback::Feedback;
use super::publication::Publication;
use super::stream::Stream;
use super::worker::{Shared, Timer};
use super::{ClientId, Event, Expected, Local, Remote, Track};
use crate::driver::offer;
use crate::machine;
use crate::sink::{Window, record};
use crate::wire::crypto::crypto;
use crate::wire::{self, Kind};

/// Holds half a second of fifty streams while the thread is busy with other clients.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) socket: UdpSocket,
    pub(super) state: UdpSocketState,
    pub(super) address: SocketAddr,
    rtc: Rtc,
    keys: KeyExport,
    /// When str0m wants to be called.
    rtc_due: Option<Instant>,
    events: mpsc::UnboundedSender<Event>,
    pub(super) begun: Option<Instant>,
    pub(super) wants_video: bool,
    pub(super) saw_first_frame: bool,
    connected: bool,
    failed: bool,
    /// Their keys, ours.
    pub(super) theirs: Option<ReceiveKeys>,
    pub(super) ours: Option<SendKeys>,
    /// Where media comes from.
    pub(super) remote: Option<SocketAddr>,
    pub(super) streams: Vec<Stream>,
    /// Where the packets of an SSRC go.
    pub(super) by_ssrc: HashMap<u32, Place>,
    pub(super) feedback: Feedback,
    pending: Vec<Track>,
    pub(super) publications: Vec<Publication>,
    pub(super) chance: fastrand::Rng,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
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
            .set_crypto_provider(crypto())
            .set_dtls_cert(shared.certificate.clone())
            .set_rtp_mode(true)
            .clear_codecs()
            .clear_extension_map();
        offer::configure_codecs(config.codec_config());
        for (number, extension) in offer::extensions() {
            config = config.set_extension(number, extension);
        }
        let (mut rtc, keys) = dtls::capture(|| config.build(now));
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
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => self.send_to(transmit.destination, &transmit.contents),
                Ok(Output::Event(_)) => {}
                Ok(Output::Timeout(_)) | Err(_) => return,
            }
        }
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

    pub(super) fn input(&mut self, shared: &mut Shared, now: Instant, input: Input<'_>) {
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
        let Some((ours, theirs)) = self.keys.take() else {
            return self.fail(shared, "the handshake gave no SRTP keys of a suite that is known here".into());
        };
        let suite = ours.profile().name();
        (self.ours, self.theirs) = (Some(ours), Some(theirs));
        self.connected = true;
        if let Some(begun) = self.begun {
            record(&mut shared.window.join, begun.elapsed().as_micros() as u64);
        }
        // Nobody listens when the driver has given up on the client.
        let _ = self.events.send(Event::Connected(suite));
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
pub(super) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
