//! A participant with a machine of another make: ICE, DTLS, SRTP, SDP and SCTP are webrtc-rs', which shares nothing with
//! str0m or with us. What it cannot open we sealed wrongly, whatever our own reading of the RFCs says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parlour::rtp::sequence::extend_sequence;
use parlour::sfu::{
    Codec, Encryption, EventKind, LayerInfo, MediaKind, Negotiation, NewTrack, ParticipantId, Quality, TrackSource,
};
use parlour::transport::Protocol as Wire;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::{Registry, Slot, register_default_interceptors};
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_VP8, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::{RTCPeerConnectionEvent, RTCTrackEvent};
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::{RTCIceConnectionState, RTCPeerConnectionState};
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp::Packet as Feedback;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtc::rtp::Packet as RtpPacket;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RTCRtpRtxParameters, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpReceiverId, RTCRtpSenderId};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

use crate::media::{Camera, Microphone, Written};
use crate::network::{Conditions, Link, Packet};
use crate::oracle::{Arrival, Diary};
use crate::seals::Seals;
use crate::tally::{Tallier, Tally};
use crate::world::World;

/// How often the guest looks at its wire.
const TICK: Duration = Duration::from_millis(1);
const OPUS: u8 = 111;
const VP8: u8 = 96;

pub use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile as Suite;

/// One connection of webrtc-rs' between two links.
pub struct Line {
    pub pc: RTCPeerConnection,
    address: SocketAddr,
    pub uplink: Link,
    pub downlink: Link,
    tally: Arc<Mutex<Tally>>,
    /// Encrypted RTP and RTCP that came while it listened.
    pub delivered: u64,
    seals: Seals,
    pub connected: bool,
    ice: RTCIceConnectionState,
    /// Who receives a track, by its name.
    receivers: BTreeMap<String, RTCRtpReceiverId>,
    /// Asks for every video packet again.
    pub insatiable: bool,
    /// The newest sequence number of each stream.
    newest: BTreeMap<u32, u64>,
}

enum Source {
    Microphone(Microphone),
    Camera(Camera),
}

pub struct Guest {
    pub id: ParticipantId,
    pub publisher: Line,
    /// With [`Negotiation::Dual`]: what the server offers.
    pub subscriber: Option<Line>,
    pub diary: Diary,
    offers: u32,
    waits_for_answer: bool,
    wants_offer: bool,
    published: Vec<(RTCRtpSenderId, u32, Source)>,
    pub answers: u32,
}

impl Guest {
    /// Its number in the stamps of what it publishes.
    pub const INDEX: u8 = 200;

    pub fn join(world: &mut World, negotiation: Negotiation, suites: &[Suite], conditions: Conditions) -> Guest {
        world.astray.get_or_insert_default();
        let id = world.join_by_hand("guest", negotiation);
        let line = |port| Line::new(world.now, SocketAddr::from(([10, 0, 2, 1], port)), suites, conditions);
        let (publisher, subscriber) = (line(5000), (negotiation == Negotiation::Dual).then(|| line(6000)));
        let mut guest = Guest {
            id,
            publisher,
            subscriber,
            diary: Diary::default(),
            offers: 0,
            waits_for_answer: false,
            wants_offer: false,
            published: Vec::new(),
            answers: 0,
        };
        guest.publisher.pc.create_data_channel("_reliable", None).expect("a channel");
        if guest.subscriber.is_none() {
            guest.add_sections(3, 3);
        }
        guest.offer(world);
        guest
    }

    /// Runs the world and the guest in it.
    pub fn run(&mut self, world: &mut World, duration: Duration) {
        self.run_until(world, duration, |_, _| false);
    }

    /// Gives how long it took, `None` when it did not happen within `limit`.
    pub fn run_until(
        &mut self,
        world: &mut World,
        limit: Duration,
        done: impl Fn(&Guest, &World) -> bool,
    ) -> Option<Duration> {
        let began = world.now;
        while world.now < began + limit {
            world.run(TICK);
            self.step(world);
            if done(self, world) {
                return Some(world.now - began);
            }
        }
        None
    }

    pub fn is_connected(&self) -> bool {
        self.publisher.connected && self.subscriber.as_ref().is_none_or(|line| line.connected)
    }

    /// The connection that media comes in by.
    pub fn receiving(&mut self) -> &mut Line {
        self.subscriber.as_mut().unwrap_or(&mut self.publisher)
    }

    pub fn publish_microphone(&mut self, world: &mut World) {
        let source = Source::Microphone(Microphone::new(Self::INDEX, -20, world.now));
        self.publish(world, RtpCodecKind::Audio, MIME_TYPE_OPUS, source);
    }

    pub fn publish_camera(&mut self, world: &mut World) {
        let source = Source::Camera(Camera::new(Self::INDEX, false, world.now));
        self.publish(world, RtpCodecKind::Video, MIME_TYPE_VP8, source);
    }

    fn publish(&mut self, world: &mut World, kind: RtpCodecKind, mime_type: &str, source: Source) {
        let video = kind == RtpCodecKind::Video;
        let ssrc = 0x7000_0000 + self.published.len() as u32 * 2;
        let cid = format!("guest-{}", self.published.len());
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                ssrc: Some(ssrc),
                rtx: video.then_some(RTCRtpRtxParameters { ssrc: ssrc + 1 }),
                ..Default::default()
            },
            codec: RTCRtpCodec {
                mime_type: mime_type.into(),
                clock_rate: if video { 90_000 } else { 48_000 },
                channels: if video { 0 } else { 2 },
                ..Default::default()
            },
            ..Default::default()
        };
        let track = MediaStreamTrack::new("stream".into(), cid.clone(), cid.clone(), kind, vec![encoding]);
        let sender = self.publisher.pc.add_track(track).expect("a track");
        self.published.push((sender, ssrc, source));
        let layer = LayerInfo { quality: Quality::High, width: 1280, height: 720, bitrate: 1_700_000, rid: None };
        let new = NewTrack {
            cid,
            codec_cids: vec![],
            kind: if video { MediaKind::Video } else { MediaKind::Audio },
            source: if video { TrackSource::Camera } else { TrackSource::Microphone },
            name: String::new(),
            muted: false,
            width: if video { 1280 } else { 0 },
            height: if video { 720 } else { 0 },
            layers: if video { vec![layer] } else { vec![] },
            codec: video.then_some(Codec::Vp8),
            encryption: Encryption::None,
            stereo: false,
            disable_dtx: false,
            disable_red: true,
            stream: String::new(),
            audio_features: vec![],
        };
        world.sfu.add_track(world.clock(), self.id, new).expect("may publish");
        self.offer(world);
    }

    pub fn restart_ice(&mut self, world: &mut World) {
        self.publisher.pc.restart_ice();
        self.offer(world);
    }

    // --- signalling -----------------------------------------------------------------------------------------------

    fn add_sections(&mut self, audio: u32, video: u32) {
        let kinds = [(RtpCodecKind::Audio, audio), (RtpCodecKind::Video, video)];
        for (kind, count) in kinds {
            for _ in 0..count {
                self.publisher.pc.add_transceiver_from_kind(kind, None).expect("a section");
            }
        }
    }

    fn offer(&mut self, world: &mut World) {
        if std::mem::replace(&mut self.waits_for_answer, true) {
            self.wants_offer = true;
            return;
        }
        let pc = &mut self.publisher.pc;
        let offer = pc.create_offer(None).expect("an offer");
        pc.set_local_description(world.now, offer).expect("its own offer");
        self.publisher.add_candidate();
        let sdp = self.publisher.pc.local_description().expect("just set").sdp;
        self.offers += 1;
        world.sfu.offer(world.clock(), self.id, self.offers, &sdp);
    }

    fn on_event(&mut self, world: &mut World, event: EventKind) {
        match event {
            EventKind::Answer(answer) => {
                assert_eq!(answer.id, self.offers);
                let description = RTCSessionDescription::answer(answer.sdp).expect("SDP");
                let applied = self.publisher.pc.set_remote_description(world.now, description);
                applied.expect("webrtc-rs takes our answer");
                self.answers += 1;
                self.waits_for_answer = false;
                if std::mem::take(&mut self.wants_offer) {
                    self.offer(world);
                }
            }
            EventKind::Offer(offer) => {
                let line = self.subscriber.as_mut().expect("only dual guests are offered anything");
                let description = RTCSessionDescription::offer(offer.sdp).expect("SDP");
                line.pc.set_remote_description(world.now, description).expect("webrtc-rs takes our offer");
                line.add_candidate();
                let answer = line.pc.create_answer(None).expect("an answer");
                line.pc.set_local_description(world.now, answer).expect("its own answer");
                let sdp = line.pc.local_description().expect("just set").sdp;
                world.sfu.answer(world.clock(), self.id, offer.id, &sdp);
            }
            EventKind::SectionsRequired { audio, video } => {
                self.add_sections(audio, video);
                self.offer(world);
            }
            EventKind::Left(reason) => panic!("thrown out: {reason:?}"),
            _ => {}
        }
    }

    // --- media ----------------------------------------------------------------------------------------------------

    fn step(&mut self, world: &mut World) {
        for event in world.told.remove(&self.id).unwrap_or_default() {
            self.on_event(world, event);
        }
        self.send_media(world.now);
        let astray = std::mem::take(world.astray.as_mut().expect("collected"));
        for line in [Some(&mut self.publisher), self.subscriber.as_mut()].into_iter().flatten() {
            for packet in astray.iter().filter(|packet| packet.destination == line.address) {
                line.seals.watch(&packet.bytes);
                line.downlink.send(world.now, packet.clone());
            }
            line.run(world.now, &mut self.diary);
            while let Some(packet) = line.uplink.receive(world.now) {
                let now = world.clock();
                world.receive(now, &packet);
            }
        }
    }

    fn send_media(&mut self, now: Instant) {
        if !self.publisher.connected || self.waits_for_answer {
            return;
        }
        for (sender, ssrc, source) in &mut self.published {
            let (payload_type, next, written) = match source {
                Source::Microphone(source) if source.next <= now => {
                    (OPUS, source.next, source.write(false).into_iter().collect())
                }
                Source::Camera(source) if source.next <= now => (VP8, source.next, source.write(now, false)),
                _ => continue,
            };
            assert!(now - next < Duration::from_secs(5), "media waits for the first answer only");
            for Written { sequence, timestamp, marker, payload, .. } in written {
                let mut packet = RtpPacket::default();
                packet.header.version = 2;
                packet.header.ssrc = *ssrc;
                packet.header.payload_type = payload_type;
                packet.header.sequence_number = sequence as u16;
                packet.header.timestamp = timestamp;
                packet.header.marker = marker;
                packet.payload = payload.into();
                let mut sender = self.publisher.pc.rtp_sender(*sender).expect("its own sender");
                sender.write_rtp(now, packet).expect("a packet of what was negotiated");
            }
        }
    }
}

impl Line {
    fn new(now: Instant, address: SocketAddr, suites: &[Suite], conditions: Conditions) -> Line {
        let mut media = MediaEngine::default();
        media.register_default_codecs().expect("codecs");
        let tally = Arc::new(Mutex::new(Tally::default()));
        let interceptors = register_default_interceptors(Registry::new(), &mut media).expect("interceptors");
        let interceptors = interceptors.with(Slot::from(1), Tallier::new(tally.clone()));
        let settings = SettingEngineBuilder::new().with_srtp_protection_profiles(suites.to_vec()).build();
        let pc = RTCPeerConnectionBuilder::new()
            .with_media_engine(media)
            .with_setting_engine(settings)
            .with_interceptor_registry(interceptors)
            .build(now)
            .expect("a connection");
        Line {
            pc,
            address,
            uplink: Link::new(conditions, 1),
            downlink: Link::new(conditions, 2),
            tally,
            delivered: 0,
            seals: Seals::default(),
            connected: false,
            ice: RTCIceConnectionState::New,
            receivers: BTreeMap::new(),
            insatiable: false,
            newest: BTreeMap::new(),
        }
    }

    /// What was authenticated so far.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no test panicked with it")
    }

    fn add_candidate(&mut self) {
        let base_config = CandidateConfig {
            network: "udp".into(),
            address: self.address.ip().to_string(),
            port: self.address.port(),
            component: 1,
            ..Default::default()
        };
        let host = CandidateHostConfig { base_config, ..Default::default() }.new_candidate_host().expect("a candidate");
        let candidate = RTCIceCandidate::from(&host).to_json().expect("JSON");
        self.pc.add_local_candidate(candidate).expect("webrtc-rs takes its own candidate");
    }

    /// With keys, and not while ICE restarts: until a new pair is selected webrtc-rs looks at nothing but checks.
    fn listens(&self) -> bool {
        let selected = matches!(self.ice, RTCIceConnectionState::Connected | RTCIceConnectionState::Completed);
        self.connected && selected
    }

    fn run(&mut self, now: Instant, diary: &mut Diary) {
        while let Some(packet) = self.downlink.receive(now) {
            if self.listens() && matches!(packet.bytes[0], 128..=191) {
                self.delivered += 1;
            }
            let transport = TransportContext {
                local_addr: self.address,
                peer_addr: packet.source,
                transport_protocol: TransportProtocol::UDP,
                ecn: None,
            };
            let message = BytesMut::from(&packet.bytes[..]);
            self.pc.handle_read(TaggedBytesMut { now, transport, message }).expect("webrtc-rs takes what we send");
            self.poll(now, diary);
        }
        while self.pc.poll_timeout().is_some_and(|at| at <= now) {
            self.pc.handle_timeout(now).expect("a timeout");
            self.poll(now, diary);
        }
        self.poll(now, diary);
    }

    fn poll(&mut self, now: Instant, diary: &mut Diary) {
        while let Some(event) = self.pc.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => {
                    let dead = matches!(state, RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed);
                    assert!(!dead, "the guest's connection is {state}");
                    self.connected |= state == RTCPeerConnectionState::Connected;
                }
                RTCPeerConnectionEvent::OnIceConnectionStateChangeEvent(state) => self.ice = state,
                RTCPeerConnectionEvent::OnTrack(RTCTrackEvent::OnOpen(track)) => {
                    self.receivers.insert(track.track_id, track.receiver_id);
                }
                _ => {}
            }
        }
        while let Some(tagged) = self.pc.poll_read() {
            if let RTCMessage::RtpPacket(track, packet) = tagged.message {
                self.on_packet(now, track, &packet, diary);
            }
        }
        while let Some(sent) = self.pc.poll_write() {
            let packet = Packet {
                protocol: Wire::Udp,
                source: self.address,
                destination: sent.transport.peer_addr,
                bytes: sent.message.to_vec(),
            };
            self.uplink.send(now, packet);
        }
    }

    fn on_packet(&mut self, now: Instant, track: String, packet: &RtpPacket, diary: &mut Diary) {
        let header = &packet.header;
        let newest = self.newest.entry(header.ssrc).or_insert(header.sequence_number.into());
        let sequence = extend_sequence(*newest, header.sequence_number);
        *newest = sequence.max(*newest);
        let arrival =
            Arrival { sequence, timestamp: header.timestamp, marker: header.marker, payload: &packet.payload };
        let stuck = diary.arrival(now, (track.clone(), header.ssrc), Some(track.clone()), arrival);
        let mut feedback: Vec<Box<dyn Feedback>> = Vec::new();
        if stuck {
            feedback.push(Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc: header.ssrc }));
        }
        if self.insatiable && header.payload_type == VP8 {
            let nacks = nack_pairs_from_sequence_numbers(&[header.sequence_number]);
            feedback.push(Box::new(TransportLayerNack { sender_ssrc: 1, media_ssrc: header.ssrc, nacks }));
        }
        if let Some(receiver) = self.receivers.get(&track).filter(|_| !feedback.is_empty()) {
            let mut receiver = self.pc.rtp_receiver(*receiver).expect("a receiver it told of");
            receiver.write_rtcp(now, feedback).expect("feedback");
        }
    }
}
