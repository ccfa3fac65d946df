//! A client as livekit-client behaves: it offers, answers, publishes and listens, and keeps a diary of what it got.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parlour::sfu::{
    Codec, DataChannel, Description, Encryption, EventKind, LayerInfo, LeaveReason, MediaKind as Kind, Negotiation,
    NewTrack, ParticipantId, ParticipantInfo, Quality, Sid, TrackSettings, TrackSource, Verdict,
};
use parlour::transport::Protocol;
use parlour::transport::sdp::{Direction as SdpDirection, SessionDescription};
use str0m::bwe::{Bitrate, BweKind};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, Reliability};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid, Rid, Simulcast, SimulcastLayer};
use str0m::{Event, RtcConfig};

use crate::media::{Camera, LAYERS, Microphone};
use crate::network::Conditions;
use crate::oracle::Diary;
use crate::peer::Peer;

/// What a client asks of its front door.
#[derive(Debug, Clone)]
pub enum Request {
    AddTrack(NewTrack),
    Offer { id: u32, sdp: String },
    Answer { id: u32, sdp: String },
    Mute { track: Sid, muted: bool },
    Subscribe { track: Sid, on: bool },
    Settings { track: Sid, settings: TrackSettings },
    Leave,
}

/// Which payload types and behaviour a client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Browser {
    /// Opus 111, VP8 96: libwebrtc.
    Chromium,
    /// Opus 109, VP8 120.
    Firefox,
    /// Opus and H.264 only.
    WithoutVp8,
}

impl Browser {
    fn config(self) -> RtcConfig {
        match self {
            Browser::Chromium => RtcConfig::new(),
            Browser::WithoutVp8 => RtcConfig::new().clear_codecs().enable_opus(true, false).enable_h264(true),
            Browser::Firefox => {
                use str0m::format::{Codec, FormatParams};
                use str0m::media::Frequency;
                let mut config = RtcConfig::new().clear_codecs();
                let format = FormatParams { min_p_time: Some(10), use_inband_fec: Some(true), ..Default::default() };
                config.codec_config().add_config(
                    109.into(),
                    None,
                    Codec::Opus,
                    Frequency::FORTY_EIGHT_KHZ,
                    Some(2),
                    format,
                );
                let format = FormatParams::default();
                config.codec_config().add_config(
                    120.into(),
                    Some(124.into()),
                    Codec::Vp8,
                    Frequency::NINETY_KHZ,
                    None,
                    format,
                );
                config
            }
        }
    }

    pub fn opus(self) -> u8 {
        if self == Browser::Firefox { 109 } else { 111 }
    }

    pub fn vp8(self) -> u8 {
        if self == Browser::Firefox { 120 } else { 96 }
    }
}

pub struct Setup {
    pub negotiation: Negotiation,
    pub browser: Browser,
    pub protocol: Protocol,
    pub conditions: Conditions,
    pub seed: u64,
    /// dBov of the microphone.
    pub level: i8,
    /// Estimates its uplink from our transport-wide feedback.
    pub estimates: bool,
    /// Stops layers that nobody wants, as livekit-client does when it is asked to.
    pub dynacast: bool,
    /// Has the keys of its connections: see `armed.rs`.
    pub armed: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            negotiation: Negotiation::Single,
            browser: Browser::Chromium,
            protocol: Protocol::Udp,
            conditions: Conditions::GOOD,
            seed: 1,
            level: -60,
            estimates: false,
            dynacast: true,
            armed: false,
        }
    }
}

pub enum Source {
    Microphone(Microphone),
    Camera(Camera),
}

/// Something the client publishes.
pub struct Published {
    pub cid: String,
    pub kind: Kind,
    simulcast: bool,
    pub mid: Option<Mid>,
    /// Once `track_published` came.
    pub sid: Option<Sid>,
    /// Its section is negotiated.
    pub live: bool,
    pub muted: bool,
    gone: bool,
    pub source: Source,
}

/// A change for the next offer.
#[derive(Debug, Clone, Copy)]
enum Change {
    Receive(MediaKind),
    Publish(usize),
    Unpublish(usize),
    /// Wants nothing in this section any more.
    Close(Mid),
    /// Does away with it.
    Stop(Mid),
    IceRestart,
}

pub struct Client {
    pub index: u8,
    pub name: String,
    pub id: ParticipantId,
    pub setup: Setup,
    pub publisher: Peer,
    pub subscriber: Option<Peer>,
    next_offer: u32,
    pending: Option<(u32, SdpPendingOffer)>,
    changes: Vec<Change>,
    wants_offer: bool,
    receiving: Vec<Mid>,
    pub tracks: Vec<Published>,
    /// The latest msid of each section we receive in: mid → (participant, track).
    pub sections: BTreeMap<String, (String, String)>,
    /// Everyone the server told of, by sid.
    pub known: BTreeMap<String, ParticipantInfo>,
    /// Messages about others.
    pub updates: usize,
    pub diary: Diary,
    pub verdict: Option<Verdict>,
    pub left: Option<LeaveReason>,
    /// Its machine is off.
    pub dead: bool,
    /// How many times more sections were asked for.
    pub requirements: Vec<(u32, u32)>,
    pub answers: u32,
    /// The server's ICE user fragment.
    pub server_ufrag: String,
    pub last_offer: Option<String>,
    pub outbox: Vec<Request>,
}

impl Client {
    pub fn new(now: Instant, index: u8, name: &str, id: ParticipantId, setup: Setup) -> Client {
        let address = |port: u16| SocketAddr::from(([10, 0, 1, index], port));
        let config = || {
            let config = setup.browser.config();
            if setup.estimates { config.enable_bwe(Some(Bitrate::kbps(300))) } else { config }
        };
        let peer = |port, salt| {
            Peer::new(
                now,
                config(),
                address(port),
                setup.protocol,
                setup.conditions,
                setup.seed.wrapping_mul(1000) + u64::from(index) * 10 + salt,
                setup.armed,
            )
        };
        let dual = setup.negotiation == Negotiation::Dual;
        let (publisher, subscriber) = (peer(5000, 1), dual.then(|| peer(6000, 2)));
        let mut client = Client {
            index,
            name: name.into(),
            id,
            publisher,
            subscriber,
            next_offer: 0,
            pending: None,
            changes: Vec::new(),
            wants_offer: true,
            receiving: Vec::new(),
            tracks: Vec::new(),
            sections: BTreeMap::new(),
            known: BTreeMap::new(),
            updates: 0,
            diary: Diary::default(),
            verdict: None,
            left: None,
            dead: false,
            requirements: Vec::new(),
            answers: 0,
            server_ufrag: String::new(),
            last_offer: None,
            outbox: Vec::new(),
            setup,
        };
        let mut api = client.publisher.rtc.sdp_api();
        // livekit-client's order.
        let unordered = Reliability::MaxRetransmits { retransmits: 0 };
        for (label, ordered, reliability) in [
            ("_lossy", false, unordered),
            ("_reliable", true, Reliability::Reliable),
            ("_data_track", false, unordered),
        ] {
            api.add_channel_with_config(ChannelConfig {
                label: label.into(),
                ordered,
                reliability,
                ..Default::default()
            });
        }
        if !dual {
            for kind in [MediaKind::Audio, MediaKind::Video] {
                for _ in 0..3 {
                    client.receiving.push(api.add_media(kind, Direction::RecvOnly, None, None, None));
                }
            }
        }
        let (offer, pending) = api.apply().expect("channels need an offer");
        client.send_offer(offer, pending);
        client
    }

    pub fn is_connected(&self) -> bool {
        self.publisher.connected && self.subscriber.as_ref().is_none_or(|s| s.connected)
    }

    // --- doing things -------------------------------------------------------------------------------------------

    pub fn publish_microphone(&mut self, now: Instant) -> usize {
        let source = Source::Microphone(Microphone::new(self.index, self.setup.level, now));
        self.publish(Kind::Audio, TrackSource::Microphone, source, false)
    }

    pub fn publish_camera(&mut self, now: Instant, simulcast: bool) -> usize {
        let source = Source::Camera(Camera::new(self.index, simulcast, now));
        self.publish(Kind::Video, TrackSource::Camera, source, simulcast)
    }

    /// A screen looks like a camera to everybody but the one who decides what is important.
    pub fn publish_screen(&mut self, now: Instant) -> usize {
        let source = Source::Camera(Camera::new(self.index, true, now));
        self.publish(Kind::Video, TrackSource::ScreenShare, source, true)
    }

    fn publish(&mut self, kind: Kind, source: TrackSource, media: Source, simulcast: bool) -> usize {
        let cid = format!("{}-{}", self.name, self.tracks.len());
        let layer = |quality, width, height, bitrate| LayerInfo { quality, width, height, bitrate, rid: None };
        let layers = match (kind, simulcast) {
            (Kind::Audio, _) => vec![],
            (Kind::Video, false) => vec![layer(Quality::High, 1280, 720, 1_700_000)],
            (Kind::Video, true) => vec![
                layer(Quality::Low, 320, 180, 160_000),
                layer(Quality::Medium, 640, 360, 450_000),
                layer(Quality::High, 1280, 720, 1_700_000),
            ],
        };
        let (width, height) = if kind == Kind::Video { (1280, 720) } else { (0, 0) };
        self.outbox.push(Request::AddTrack(NewTrack {
            cid: cid.clone(),
            codec_cids: vec![],
            kind,
            source,
            name: String::new(),
            muted: false,
            width,
            height,
            layers,
            codec: (kind == Kind::Video).then_some(Codec::Vp8),
            encryption: Encryption::None,
            stereo: false,
            disable_dtx: false,
            disable_red: true,
            stream: String::new(),
            audio_features: vec![],
        }));
        self.tracks.push(Published {
            cid,
            kind,
            simulcast,
            mid: None,
            sid: None,
            live: false,
            muted: false,
            gone: false,
            source: media,
        });
        let index = self.tracks.len() - 1;
        self.changes.push(Change::Publish(index));
        self.offer();
        index
    }

    pub fn unpublish(&mut self, track: usize) {
        self.tracks[track].live = false;
        self.tracks[track].gone = true;
        self.changes.push(Change::Unpublish(track));
        self.offer();
    }

    /// Takes the section away in which a track comes.
    pub fn refuse_section(&mut self, mid: &str, stop: bool) {
        self.changes.push(if stop { Change::Stop(Mid::from(mid)) } else { Change::Close(Mid::from(mid)) });
        self.offer();
    }

    pub fn restart_ice(&mut self) {
        self.changes.push(Change::IceRestart);
        self.offer();
    }

    pub fn mute(&mut self, track: usize, muted: bool) {
        self.tracks[track].muted = muted;
        if let Some(sid) = self.tracks[track].sid.clone() {
            self.outbox.push(Request::Mute { track: sid, muted });
        }
    }

    /// The same settings for every track of the others.
    pub fn ask_for_all(&mut self, settings: TrackSettings) {
        let tracks: Vec<Sid> = self.known.values().flat_map(|p| &p.tracks).map(|t| t.sid.clone()).collect();
        self.outbox.extend(tracks.into_iter().map(|track| Request::Settings { track, settings }));
    }

    pub fn send_data(&mut self, now: Instant, label: &str, bytes: &[u8]) -> bool {
        let Some(id) = self.publisher.channel(label) else { return false };
        let sent = self.publisher.rtc.channel(id).is_some_and(|mut c| c.write(true, bytes).unwrap_or(false));
        self.publisher.touch(now);
        sent
    }

    // --- negotiating --------------------------------------------------------------------------------------------

    /// Offers what changed, at once or as soon as the answer to the offer before is here.
    pub fn offer(&mut self) {
        self.wants_offer = true;
        if self.pending.is_some() {
            return;
        }
        let receiving = self.receiving.clone();
        let mut api = self.publisher.rtc.sdp_api();
        // str0m takes an answer's `inactive` for its own wish; a browser's transceiver stays `recvonly`. Going over
        // `inactive` also makes an offer of no change.
        for mid in &receiving {
            api.set_direction(*mid, Direction::Inactive);
            api.set_direction(*mid, Direction::RecvOnly);
        }
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Receive(kind) => {
                    self.receiving.push(api.add_media(kind, Direction::RecvOnly, None, None, None))
                }
                Change::Publish(index) => {
                    let track = &mut self.tracks[index];
                    let simulcast = track.simulcast.then(|| {
                        let mut simulcast = Simulcast::new();
                        // Chromium's order.
                        LAYERS.iter().for_each(|rid| simulcast.add_send_layer(SimulcastLayer::new(rid)));
                        simulcast
                    });
                    let kind = if track.kind == Kind::Audio { MediaKind::Audio } else { MediaKind::Video };
                    track.mid = Some(api.add_media(
                        kind,
                        Direction::SendOnly,
                        Some("stream".into()),
                        Some(track.cid.clone()),
                        simulcast,
                    ));
                }
                Change::Unpublish(index) => {
                    if let Some(mid) = self.tracks[index].mid {
                        api.set_direction(mid, Direction::Inactive);
                    }
                }
                Change::Close(mid) => {
                    self.receiving.retain(|m| *m != mid);
                    api.set_direction(mid, Direction::Inactive);
                }
                Change::Stop(mid) => {
                    self.receiving.retain(|m| *m != mid);
                    api.stop_media(mid);
                }
                Change::IceRestart => {
                    api.ice_restart(true);
                }
            }
        }
        if let Some((offer, pending)) = api.apply() {
            self.send_offer(offer, pending);
        }
    }

    fn send_offer(&mut self, offer: SdpOffer, pending: SdpPendingOffer) {
        self.wants_offer = false;
        self.next_offer += 1;
        self.pending = Some((self.next_offer, pending));
        let sdp = as_browsers_write(&offer.to_sdp_string());
        self.last_offer = Some(sdp.clone());
        self.outbox.push(Request::Offer { id: self.next_offer, sdp });
    }

    fn on_answer(&mut self, now: Instant, answer: Description) {
        let Some((id, pending)) = self.pending.take() else { panic!("{}: an answer to no offer", self.name) };
        assert_eq!(id, answer.id, "{}: answers come in order", self.name);
        self.answers += 1;
        let parsed =
            SdpAnswer::from_sdp_string(&answer.sdp).unwrap_or_else(|e| panic!("{}: {e}\n{}", self.name, answer.sdp));
        if let Err(error) = self.publisher.rtc.sdp_api().accept_answer(pending, parsed) {
            panic!("{}: {error}\n{}", self.name, answer.sdp);
        }
        self.publisher.touch(now);
        for track in self.tracks.iter_mut().filter(|t| !t.gone) {
            track.live |= track.mid.is_some_and(|mid| answer.sdp.contains(&format!("a=mid:{mid}\r\n")));
        }
        self.repair_like_browsers();
        if self.subscriber.is_none() {
            self.read_sections(&answer);
        }
        if self.wants_offer {
            self.offer();
        }
    }

    /// Browsers send again what is asked for, however much it is; str0m would stop at a share of 0.15.
    fn repair_like_browsers(&mut self) {
        let mut api = self.publisher.rtc.direct_api();
        for track in self.tracks.iter().filter(|t| t.live && t.kind == Kind::Video) {
            let Some(mid) = track.mid else { continue };
            for rid in [None, Some("q"), Some("h"), Some("f")] {
                if let Some(stream) = api.stream_tx_by_mid(mid, rid.map(Rid::from)) {
                    stream.set_rtx_cache(1000, Duration::from_secs(3), None);
                }
            }
        }
    }

    fn on_offer(&mut self, now: Instant, offer: Description) {
        self.read_sections(&offer);
        let parsed =
            SdpOffer::from_sdp_string(&offer.sdp).unwrap_or_else(|e| panic!("{}: {e}\n{}", self.name, offer.sdp));
        let subscriber = self.subscriber.as_mut().expect("only dual clients are offered anything");
        let answer = subscriber
            .rtc
            .sdp_api()
            .accept_offer(parsed)
            .unwrap_or_else(|e| panic!("{}: {e}\n{}", self.name, offer.sdp));
        subscriber.touch(now);
        self.outbox.push(Request::Answer { id: offer.id, sdp: answer.to_sdp_string() });
    }

    /// What the description says we receive, checked against what the server told before.
    fn read_sections(&mut self, description: &Description) {
        let sdp = SessionDescription::parse(&description.sdp).expect("our own SDP reads");
        if let Some(ice) = sdp.media.iter().find_map(|s| s.ice.as_ref()) {
            self.server_ufrag = ice.ufrag.clone();
        }
        let mut named = BTreeSet::new();
        let mut sections = BTreeMap::new();
        for section in sdp.media.iter().filter(|s| s.direction == SdpDirection::SendOnly) {
            let msid = section.msid.as_ref().unwrap_or_else(|| panic!("{}: a stream without msid", self.name));
            let (participant, track) = msid.stream.split_once('|').expect("PA|TR");
            assert_eq!(track, msid.track);
            let info =
                self.known.get(participant).unwrap_or_else(|| panic!("{}: {participant} was not announced", self.name));
            assert!(info.tracks.iter().any(|t| t.sid.as_str() == track), "{}: {track} was not announced", self.name);
            assert!(named.insert(track.to_owned()), "{}: {track} twice in one description", self.name);
            sections.insert(section.mid.clone(), (participant.to_owned(), track.to_owned()));
        }
        // The map that goes along says the same.
        let told: BTreeMap<String, String> =
            description.mid_to_track.iter().map(|(mid, sid)| (mid.clone(), sid.to_string())).collect();
        let read: BTreeMap<String, String> =
            sections.iter().map(|(mid, (_, track))| (mid.clone(), track.clone())).collect();
        assert_eq!(told, read, "{}: mid_to_track and the SDP disagree", self.name);
        // A section goes from one track to another only over `inactive`.
        for (mid, (_, track)) in &sections {
            if let Some((_, before)) = self.sections.get(mid) {
                assert_eq!(before, track, "{}: section {mid} was not idle in between", self.name);
            }
        }
        self.sections = sections;
    }

    // --- listening to the server ----------------------------------------------------------------------------------

    pub fn on_event(&mut self, now: Instant, event: EventKind) {
        assert_eq!(self.left, None, "{}: {event:?} after the end", self.name);
        if self.dead && !matches!(event, EventKind::Left(_) | EventKind::Verdict(_)) {
            return;
        }
        match event {
            EventKind::Answer(answer) => self.on_answer(now, answer),
            EventKind::Offer(offer) => self.on_offer(now, offer),
            EventKind::SectionsRequired { audio, video } => {
                self.requirements.push((audio, video));
                self.changes.extend((0..audio).map(|_| Change::Receive(MediaKind::Audio)));
                self.changes.extend((0..video).map(|_| Change::Receive(MediaKind::Video)));
                self.offer();
            }
            EventKind::ParticipantsChanged(infos) => {
                self.updates += 1;
                infos.iter().for_each(|info| self.learn(info.clone()));
            }
            EventKind::Verdict(verdict) => {
                assert_eq!(self.verdict, None, "{}: a second verdict", self.name);
                self.verdict = Some(verdict);
            }
            EventKind::SpeakersChanged(speakers) => self.diary.speakers.push((now, speakers)),
            EventKind::TrackSubscribed(sid) => self.diary.subscribed.push(sid),
            EventKind::StreamStates(states) => {
                for state in states {
                    let known = self.known.get(state.participant.as_str()).expect("a known participant");
                    assert!(known.tracks.iter().any(|t| t.sid == state.track), "{}: an unknown track", self.name);
                    self.diary.stream_states.push((now, state.track, state.paused));
                }
            }
            EventKind::LineStates(lines) => self.diary.lines.extend(lines.iter().map(|line| (now, line.clone()))),
            EventKind::QualityWanted { track, highest, .. } => {
                self.diary.qualities.push((now, track.clone(), highest));
                let published = self.tracks.iter_mut().find(|t| t.sid.as_ref() == Some(&track));
                if let Some(Published { source: Source::Camera(camera), .. }) = published
                    && self.setup.dynacast
                {
                    camera.set_highest(highest.map(|quality| quality as u8));
                }
            }
            EventKind::Left(reason) => {
                self.left = Some(reason);
                self.publisher.rtc.disconnect();
                if let Some(subscriber) = &mut self.subscriber {
                    subscriber.rtc.disconnect();
                }
            }
            EventKind::DataReceived { .. } => panic!("the front door's, not the client's"),
            EventKind::SubscriptionFailed(sid) => self.diary.failed.push(sid),
            EventKind::Muted(sid) => self.diary.muted.push(sid),
        }
    }

    /// Snapshots that the client gets with its join, and later ones.
    pub fn learn(&mut self, info: ParticipantInfo) {
        let sid = info.sid.to_string();
        if let Some(before) = self.known.get(&sid) {
            // A newcomer hears again, with others, of those it found there.
            let known = info == *before || info.version > before.version;
            assert!(known, "{}: version {} after {}", self.name, info.version, before.version);
        }
        for track in &info.tracks {
            assert!(track.codec.is_some(), "{}: a track without its codec", self.name);
        }
        self.known.insert(sid, info);
    }

    pub fn track_published(&mut self, cid: &str, sid: Sid) {
        if let Some(track) = self.tracks.iter_mut().find(|t| t.cid == cid) {
            track.sid = Some(sid);
        }
    }

    // --- media ----------------------------------------------------------------------------------------------------

    pub fn next(&self) -> Option<Instant> {
        let media = |t: &Published| match &t.source {
            Source::Microphone(source) => source.next,
            Source::Camera(source) => source.next,
        };
        let sending =
            self.tracks.iter().filter(|t| t.live && self.publisher.connected && self.publisher.rtc.is_alive());
        let peers = [Some(&self.publisher), self.subscriber.as_ref()];
        sending.map(media).chain(peers.into_iter().flatten().filter_map(Peer::next)).min()
    }

    /// Whether there was something to do.
    pub fn run(&mut self, now: Instant) -> bool {
        let mut busy = self.send_media(now);
        let mut events = Vec::new();
        busy |= self.publisher.run(now, &mut events);
        for event in events.drain(..) {
            self.on_rtc(now, event, false);
        }
        if let Some(subscriber) = &mut self.subscriber {
            busy |= subscriber.run(now, &mut events);
            for event in events {
                self.on_rtc(now, event, true);
            }
        }
        busy
    }

    fn send_media(&mut self, now: Instant) -> bool {
        if !self.publisher.connected || !self.publisher.rtc.is_alive() {
            return false;
        }
        let mut busy = false;
        let browser = self.setup.browser;
        for track in self.tracks.iter_mut().filter(|t| t.live) {
            let Some(mid) = track.mid else { continue };
            match &mut track.source {
                Source::Microphone(source) => {
                    source.skip_to(now);
                    while source.next <= now {
                        source.send(&mut self.publisher.rtc, mid, browser.opus(), now, track.muted);
                        busy = true;
                    }
                }
                Source::Camera(source) => {
                    source.next = source.next.max(now);
                    while source.next <= now {
                        source.send(&mut self.publisher.rtc, mid, browser.vp8(), now, track.muted);
                        busy = true;
                    }
                }
            }
        }
        if busy {
            self.publisher.touch(now);
        }
        busy
    }

    fn on_rtc(&mut self, now: Instant, event: Event, from_subscriber: bool) {
        match event {
            Event::RtpPacket(packet) => {
                let peer = if from_subscriber { self.subscriber.as_mut().expect("there") } else { &mut self.publisher };
                let ssrc = packet.header.ssrc;
                let mid = peer.rtc.direct_api().stream_rx(&ssrc).map(|s| s.mid().to_string());
                let mid = mid.unwrap_or_else(|| panic!("{}: a packet of no section", self.name));
                let track = self.sections.get(&mid).map(|(_, track)| track.clone());
                if self.diary.packet(now, mid, track, &packet) {
                    let mut api = peer.rtc.direct_api();
                    let stream = api.stream_rx(&ssrc).expect("asked above");
                    stream.request_keyframe(KeyframeRequestKind::Pli);
                    peer.touch(now);
                }
            }
            Event::EgressBitrateEstimate(BweKind::Twcc { estimate, .. }) => {
                self.diary.estimates.push(estimate.as_u64())
            }
            Event::KeyframeRequest(request) => {
                self.diary.keyframe_requests += 1;
                let track = self.tracks.iter_mut().find(|t| t.mid == Some(request.mid));
                if let Some(Published { source: Source::Camera(camera), .. }) = track {
                    camera.request_keyframe(request.rid);
                }
            }
            Event::ChannelData(data) => {
                let peer = if from_subscriber { self.subscriber.as_ref().expect("there") } else { &self.publisher };
                let label = peer.channels.iter().find(|(_, id)| *id == data.id).map(|(label, _)| label.clone());
                let channel = match label.as_deref() {
                    Some("_reliable") => DataChannel::Reliable,
                    Some("_lossy") => DataChannel::Lossy,
                    other => panic!("{}: a message on {other:?}", self.name),
                };
                self.diary.messages.push((channel, data.data));
            }
            _ => {}
        }
    }
}

/// Browsers name no SSRCs for simulcast (RFC 8853): receivers learn them from the rid extension.
fn as_browsers_write(sdp: &str) -> String {
    let mut out = String::new();
    for (index, section) in sdp.split("\r\nm=").enumerate() {
        if index > 0 {
            out.push_str("\r\nm=");
        }
        if section.contains("a=simulcast:send") {
            let kept: Vec<&str> = section.split("\r\n").filter(|l| !l.starts_with("a=ssrc")).collect();
            out.push_str(&kept.join("\r\n"));
        } else {
            out.push_str(section);
        }
    }
    out
}
