//! A caller on real sockets: LiveKit's newer dialect over the node's handle, and a whole str0m behind it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use parlour::livekit::{Claims, Dialect, JoinRequest, Outgoing, RoomMember};
use parlour::net::{JoinRefused, Node, SignalStream};
use parlour::sfu::{Permissions, WorkerId};
use parlour::transport::framing::{self, Deframer};
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::rtp::{ExtensionValues, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

const OPUS: u8 = 111;
const SAMPLES_PER_PACKET: u32 = 960;
const PACKET_INTERVAL: Duration = Duration::from_millis(20);
const VP8: u8 = 96;
/// A camera's 30 frames a second, at 2.5 Mb/s.
const FRAME_INTERVAL: Duration = Duration::from_millis(33);
const PACKETS_PER_FRAME: u32 = 10;
const VIDEO_BYTES: usize = 1050;

enum Socket {
    Udp(UdpSocket),
    /// Before the answer tells where to connect to.
    TcpToBe,
    Tcp {
        stream: TcpStream,
        deframer: Deframer,
        unsent: VecDeque<u8>,
    },
}

pub struct Caller {
    pub name: String,
    rtc: Rtc,
    socket: Socket,
    local: SocketAddr,
    timeout: Instant,
    stream: SignalStream,
    pending: Option<SdpPendingOffer>,
    offers: u32,
    /// As soon as the answer to the one before is here.
    wants_offer: bool,
    microphone: Option<Mid>,
    next_packet: Instant,
    sent: u32,
    camera: Option<Mid>,
    next_frame: Instant,
    frames: u32,
    /// Packets of video.
    pub seen: usize,
    pub connected: bool,
    /// Audio packets of each other caller, by the byte they carry.
    pub heard: BTreeMap<u8, usize>,
    /// The ICE user fragment of the server's side.
    pub fragment: String,
    /// Signalling ended.
    pub closed: bool,
    pub left: bool,
    pub sid: String,
    /// What it was told of others and of its end, in order.
    pub signals: Vec<Response>,
}

pub fn request(identity: &str, room: &str) -> JoinRequest {
    JoinRequest {
        dialect: Dialect::V1,
        identity: identity.into(),
        room: room.into(),
        name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        permissions: Permissions {
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            can_publish_sources: Vec::new(),
            can_update_metadata: true,
            hidden: false,
        },
        may_create_room: true,
        claims: Claims { sub: identity.into(), ..Default::default() },
        protocol: 17,
        client_protocol: 2,
        client: "test".into(),
        auto_subscribe: true,
        adaptive_stream: false,
        reconnect: None,
        add_tracks: Vec::new(),
        publisher_offer: None,
        sync_state: None,
    }
}

impl Caller {
    pub async fn udp(node: &Node, room: &str, name: &str) -> Result<Caller, JoinRefused> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let local = socket.local_addr().unwrap();
        Caller::join(node, request(name, room), Socket::Udp(socket), local, false).await
    }

    /// One whose token says whose it is in Matrix.
    pub async fn of_member(node: &Node, room: &str, name: &str, member: RoomMember) -> Result<Caller, JoinRefused> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let local = socket.local_addr().unwrap();
        let mut base = request(name, room);
        base.claims.matrix = Some(member);
        Caller::join(node, base, Socket::Udp(socket), local, false).await
    }

    /// One who shows something as well.
    pub async fn with_camera(node: &Node, room: &str, name: &str) -> Result<Caller, JoinRefused> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let local = socket.local_addr().unwrap();
        Caller::join(node, request(name, room), Socket::Udp(socket), local, true).await
    }

    pub async fn tcp(node: &Node, room: &str, name: &str) -> Result<Caller, JoinRefused> {
        let local = SocketAddr::from(([127, 0, 0, 1], 9));
        Caller::join(node, request(name, room), Socket::TcpToBe, local, false).await
    }

    async fn join(
        node: &Node,
        base: JoinRequest,
        socket: Socket,
        local: SocketAddr,
        with_camera: bool,
    ) -> Result<Caller, JoinRefused> {
        let now = Instant::now();
        let name = base.identity.clone();
        let mut rtc = RtcConfig::new().set_rtp_mode(true).build(now);
        if matches!(socket, Socket::Udp(_)) {
            rtc.add_local_candidate(Candidate::builder().udp().host(local).build().unwrap());
        }
        let mut api = rtc.sdp_api();
        api.add_channel("_reliable".into());
        let cid = format!("{name}-microphone");
        let microphone =
            api.add_media(MediaKind::Audio, Direction::SendOnly, Some("stream".into()), Some(cid.clone()), None);
        for _ in 0..3 {
            api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        }
        api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        let film = format!("{name}-camera");
        let camera = with_camera.then(|| {
            api.add_media(MediaKind::Video, Direction::SendOnly, Some("stream".into()), Some(film.clone()), None)
        });
        let (offer, pending) = api.apply().unwrap();
        let video = camera.map(|_| proto::AddTrackRequest {
            cid: film,
            r#type: proto::TrackType::Video as i32,
            source: proto::TrackSource::Camera as i32,
            width: 1280,
            height: 720,
            layers: vec![proto::VideoLayer {
                quality: proto::VideoQuality::High as i32,
                width: 1280,
                height: 720,
                bitrate: 2_500_000,
                ..Default::default()
            }],
            ..Default::default()
        });
        let track = proto::AddTrackRequest {
            cid,
            r#type: proto::TrackType::Audio as i32,
            source: proto::TrackSource::Microphone as i32,
            ..Default::default()
        };
        let description = proto::SessionDescription {
            r#type: "offer".into(),
            sdp: offer.to_sdp_string(),
            id: 1,
            ..Default::default()
        };
        let request = JoinRequest {
            add_tracks: [track].into_iter().chain(video).collect(),
            publisher_offer: Some(description),
            ..base
        };
        let stream = node.join(request).await?;
        Ok(Caller {
            name,
            rtc,
            socket,
            local,
            timeout: now,
            stream,
            pending: Some(pending),
            offers: 1,
            wants_offer: false,
            microphone: Some(microphone),
            next_packet: now,
            sent: 0,
            camera,
            next_frame: now,
            frames: 0,
            seen: 0,
            connected: false,
            heard: BTreeMap::new(),
            fragment: String::new(),
            closed: false,
            left: false,
            sid: String::new(),
            signals: Vec::new(),
        })
    }

    /// The worker that its connection is on.
    pub fn worker(&self) -> WorkerId {
        WorkerId::of_ufrag(&self.fragment).expect("one of ours")
    }

    pub async fn leave(&self) {
        let _ = self.stream.requests.send(Box::new(Request::Leave(proto::LeaveRequest::default()))).await;
    }

    pub fn say(&mut self, request: Request) {
        self.stream.requests.try_send(Box::new(request)).unwrap();
    }

    pub fn be_silent(&mut self) {
        self.microphone = None;
    }

    /// Everything that can be done without waiting.
    pub fn run(&mut self) {
        loop {
            match self.stream.responses.try_recv() {
                Ok(Outgoing::Message(message)) => self.hear(message.message.clone().unwrap()),
                Ok(Outgoing::Close(_)) => self.left = true,
                Err(tokio::sync::mpsc::error::TryRecvError::Empty) => break,
                Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => {
                    self.closed = true;
                    break;
                }
            }
        }
        if !self.rtc.is_alive() {
            return;
        }
        self.read();
        let now = Instant::now();
        self.speak(now);
        self.film(now);
        if self.timeout <= now {
            self.rtc.handle_input(Input::Timeout(now)).unwrap();
            self.drain();
        }
    }

    fn hear(&mut self, message: Response) {
        match message {
            Response::Join(join) => self.sid = join.participant.unwrap().sid,
            Response::Answer(answer) => self.on_answer(&answer.sdp),
            Response::MediaSectionsRequirement(_) => self.offer(),
            Response::Leave(_) => {
                self.left = true;
                self.signals.push(message);
            }
            Response::Mute(_) | Response::Update(_) => self.signals.push(message),
            _ => {}
        }
    }

    fn on_answer(&mut self, sdp: &str) {
        let fragment = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:"));
        self.fragment = fragment.expect("one").to_owned();
        if matches!(self.socket, Socket::TcpToBe) {
            let candidate = sdp.lines().find(|line| line.contains(" tcp ")).expect("a TCP candidate");
            let fields: Vec<&str> = candidate.split(' ').collect();
            let stream = TcpStream::connect((fields[4], fields[5].parse().unwrap())).unwrap();
            stream.set_nonblocking(true).unwrap();
            self.local = stream.local_addr().unwrap();
            let own = Candidate::builder().tcp().host(self.local).tcptype(TcpType::Active).build().unwrap();
            self.rtc.add_local_candidate(own);
            self.socket = Socket::Tcp { stream, deframer: Deframer::default(), unsent: VecDeque::new() };
        }
        let answer = SdpAnswer::from_sdp_string(sdp).unwrap();
        self.rtc.sdp_api().accept_answer(self.pending.take().expect("an offer is out"), answer).unwrap();
        self.timeout = Instant::now();
        if self.wants_offer {
            self.offer();
        }
    }

    /// The server wants to be offered what it has to send.
    fn offer(&mut self) {
        self.wants_offer = self.pending.is_some();
        if self.wants_offer {
            return;
        }
        self.offers += 1;
        let mut api = self.rtc.sdp_api();
        api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        self.pending = Some(pending);
        let description = proto::SessionDescription {
            r#type: "offer".into(),
            sdp: offer.to_sdp_string(),
            id: self.offers,
            ..Default::default()
        };
        self.stream.requests.try_send(Box::new(Request::Offer(description))).unwrap();
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            let (protocol, source, packets) = match &mut self.socket {
                Socket::Udp(socket) => match socket.recv_from(&mut buffer) {
                    Ok((len, source)) => (Protocol::Udp, source, vec![buffer[..len].to_vec()]),
                    Err(_) => return,
                },
                Socket::Tcp { stream, deframer, .. } => match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(len) => {
                        deframer.push(&buffer[..len]).unwrap();
                        let mut packets = Vec::new();
                        while let Some(packet) = deframer.next_frame().unwrap() {
                            packets.push(packet.to_vec());
                        }
                        (Protocol::Tcp, stream.peer_addr().unwrap(), packets)
                    }
                },
                Socket::TcpToBe => return,
            };
            for packet in packets {
                let receive = Receive::new(protocol, source, self.local, &packet).unwrap();
                self.rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
                self.drain();
            }
        }
    }

    /// One packet of audio every 20 ms.
    fn speak(&mut self, now: Instant) {
        let Some(mid) = self.microphone.filter(|_| self.connected && self.next_packet <= now) else { return };
        self.next_packet = now + PACKET_INTERVAL;
        self.sent += 1;
        let packet = RtpWrite::new(
            Pt::new_with_value(OPUS),
            u64::from(self.sent).into(),
            self.sent * SAMPLES_PER_PACKET,
            now,
            vec![self.name.as_bytes()[0]; 80],
        );
        let extensions = ExtensionValues { audio_level: Some(-30), voice_activity: Some(true), ..Default::default() };
        if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(mid, None) {
            stream.write_rtp(packet.ext_vals(extensions));
            self.timeout = now;
        }
    }

    /// A frame that is a keyframe once a second.
    fn film(&mut self, now: Instant) {
        let Some(mid) = self.camera.filter(|_| self.connected && self.next_frame <= now) else { return };
        self.next_frame = now + FRAME_INTERVAL;
        let key = self.frames.is_multiple_of(30);
        for part in 0..PACKETS_PER_FRAME {
            // RFC 7741: a descriptor with a long picture id, then the payload header.
            let id = 0x8000 | self.frames as u16 & 0x7fff;
            let mut payload =
                vec![if part == 0 { 0x90 } else { 0x80 }, 0x80, (id >> 8) as u8, id as u8, u8::from(!key)];
            payload.extend([2, 0, 0x9d, 0x01, 0x2a, 0, 5, 0xd0, 2]);
            payload.resize(VIDEO_BYTES, 0xaa);
            let sequence = u64::from(self.frames * PACKETS_PER_FRAME + part + 1);
            let packet =
                RtpWrite::new(Pt::new_with_value(VP8), sequence.into(), self.frames.wrapping_mul(2970), now, payload)
                    .marker(part + 1 == PACKETS_PER_FRAME);
            if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(mid, None) {
                stream.write_rtp(packet);
            }
        }
        self.frames += 1;
        self.timeout = now;
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.timeout = at;
                    return;
                }
                Output::Transmit(transmit) => self.transmit(transmit.destination, &transmit.contents),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::RtpPacket(packet)) if *packet.header.payload_type == VP8 => self.seen += 1,
                Output::Event(Event::RtpPacket(packet)) => *self.heard.entry(packet.payload[0]).or_default() += 1,
                Output::Event(_) => {}
            }
        }
    }

    fn transmit(&mut self, destination: SocketAddr, packet: &[u8]) {
        match &mut self.socket {
            Socket::Udp(socket) => drop(socket.send_to(packet, destination)),
            Socket::Tcp { stream, unsent, .. } => {
                unsent.extend(framing::frame(packet).unwrap());
                while !unsent.is_empty() {
                    match stream.write(unsent.as_slices().0) {
                        Ok(written) => drop(unsent.drain(..written)),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                        Err(_) => return,
                    }
                }
            }
            Socket::TcpToBe => {}
        }
    }
}

/// Lets them all run until `done`.
pub async fn until(callers: &mut [Caller], what: &str, done: impl Fn(&[Caller]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done(callers) {
        assert!(Instant::now() < deadline, "{what}: {:?}", callers.iter().map(state).collect::<Vec<_>>());
        callers.iter_mut().for_each(Caller::run);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn state(caller: &Caller) -> String {
    let Caller { name, connected, heard, closed, left, .. } = caller;
    format!("{name}: connected {connected}, heard {heard:?}, closed {closed}, left {left}")
}
