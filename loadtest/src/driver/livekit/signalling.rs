//! The conversation of one client with the server, from the first answer to `leave`.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use parlour::transport::sdp::{Direction, MediaSection, SessionDescription, Setup};
use prost::Message as _;
use proto::signal_request::Message as Say;
use proto::signal_response::Message as Heard;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{CHANNELS, Published};
use crate::driver::{Ask, JoinError, offer};
use crate::engine::{Engine, Event, Local};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What the server asks for in `JoinResponse.ping_interval`, with both LiveKit and ours.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// A server that is overloaded may say goodbye late; then it has to find out by itself.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Signalling {
    socket: Socket,
    engine: Engine,
    local: Local,
    events: mpsc::UnboundedReceiver<Event>,
    identity: String,
    sections: Vec<MediaSection>,
    /// Id of the latest offer.
    offer_id: u32,
    /// It waits for its answer.
    offered: bool,
    offer_again: bool,
    connected: bool,
    published: Vec<Published>,
    /// The server's names for what we publish: sid → section.
    own_tracks: HashMap<String, String>,
    /// The camera of everybody else: identity → sid.
    cameras: HashMap<String, String>,
    /// Layers that were asked for: identity → layer. Told when the track is known.
    layers: HashMap<String, u8>,
    outbox: VecDeque<Say>,
}

/// Why a conversation ends.
enum End {
    Left,
    Broken(String),
}

impl Signalling {
    pub fn new(
        socket: Socket,
        engine: Engine,
        local: Local,
        events: mpsc::UnboundedReceiver<Event>,
        identity: String,
        sections: Vec<MediaSection>,
        published: Vec<Published>,
    ) -> Signalling {
        Signalling {
            socket,
            engine,
            local,
            events,
            identity,
            sections,
            offer_id: 1,
            offered: true,
            offer_again: false,
            connected: false,
            published,
            own_tracks: HashMap::new(),
            cameras: HashMap::new(),
            layers: HashMap::new(),
            outbox: VecDeque::new(),
        }
    }

    /// Gives the SRTP suite.
    pub async fn until_connected(&mut self) -> Result<&'static str, JoinError> {
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::Connected(suite)) => return Ok(suite),
                    Some(Event::Failed(why)) => return Err(self.failed(why)),
                    None => return Err(self.failed("the media thread has ended".into())),
                },
                frame = self.socket.next() => {
                    if let Err(End::Broken(why)) = self.hear(frame) {
                        return Err(self.failed(why));
                    }
                    self.flush().await.map_err(|why| self.failed(why))?;
                }
            }
        }
    }

    fn failed(&self, why: String) -> JoinError {
        JoinError::Failed { identity: self.identity.clone(), why }
    }

    /// Goes on until the client leaves or is lost.
    pub async fn run(&mut self, mut asked: mpsc::UnboundedReceiver<Ask>) {
        let mut ping = tokio::time::interval(PING_INTERVAL);
        loop {
            let went_on = tokio::select! {
                frame = self.socket.next() => self.hear(frame),
                ask = asked.recv() => match ask {
                    Some(Ask::Layer { publisher, layer }) => {
                        self.layers.insert(publisher.clone(), layer);
                        self.ask_layer(&publisher);
                        Ok(())
                    }
                    Some(Ask::Leave) | None => Err(End::Left),
                },
                event = self.events.recv() => match event {
                    Some(Event::Failed(_)) | None => Err(End::Left),
                    Some(Event::Connected(_)) => Ok(()),
                },
                _ = ping.tick() => {
                    self.outbox.push_back(Say::PingReq(proto::Ping::default()));
                    Ok(())
                }
            };
            if let Err(end) = went_on {
                if matches!(end, End::Left) {
                    self.outbox.push_back(Say::Leave(proto::LeaveRequest {
                        reason: proto::DisconnectReason::ClientInitiated as i32,
                        ..Default::default()
                    }));
                    let _ = self.flush().await;
                    self.close().await;
                }
                return;
            }
            if self.flush().await.is_err() {
                return;
            }
        }
    }

    /// Closes as a browser does, which waits for the server's goodbye: a socket that is dropped with something unread resets
    /// the connection, and the server never reads that we leave.
    async fn close(&mut self) {
        let _ = self.socket.close(None).await;
        let goodbye = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }

    async fn flush(&mut self) -> Result<(), String> {
        while let Some(say) = self.outbox.pop_front() {
            let bytes = proto::SignalRequest { message: Some(say) }.encode_to_vec();
            self.socket.send(Frame::binary(bytes)).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn hear(&mut self, frame: Option<Result<Frame, tokio_tungstenite::tungstenite::Error>>) -> Result<(), End> {
        let broken = |why: &str| Err(End::Broken(why.to_owned()));
        let bytes = match frame {
            Some(Ok(Frame::Binary(bytes))) => bytes,
            Some(Ok(Frame::Close(_))) | None => return broken("the server closed the WebSocket"),
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => return broken(&error.to_string()),
        };
        let Ok(response) = proto::SignalResponse::decode(bytes) else {
            return broken("the server's message is no protobuf");
        };
        match response.message {
            Some(Heard::Join(join)) => self.learn(join.other_participants),
            Some(Heard::Update(update)) => self.learn(update.participants),
            Some(Heard::Answer(answer)) => return self.answered(answer),
            Some(Heard::MediaSectionsRequirement(required)) => {
                for (video, count) in [(false, required.num_audios), (true, required.num_videos)] {
                    for _ in 0..count {
                        let mid = self.sections.len().to_string();
                        self.sections.push(offer::section(&mid, video, Direction::RecvOnly));
                    }
                }
                self.offer();
            }
            Some(Heard::TrackPublished(told)) => {
                let published = self.published.iter().find(|published| published.cid == told.cid);
                if let (Some(published), Some(track)) = (published, told.track) {
                    self.own_tracks.insert(track.sid, published.track.mid.clone());
                }
            }
            Some(Heard::SubscribedQualityUpdate(update)) => self.enable_layers(&update),
            Some(Heard::Leave(leave)) => {
                return broken(&format!("the server sends us away: {:?}", leave.reason()));
            }
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, answer: proto::SessionDescription) -> Result<(), End> {
        if answer.id != 0 && answer.id != self.offer_id {
            return Ok(());
        }
        let sdp =
            SessionDescription::parse(&answer.sdp).map_err(|error| End::Broken(format!("its answer: {error}")))?;
        self.offered = false;
        let expected =
            offer::expected(&sdp, |section| section.msid.as_ref().map(|msid| msid.track.clone()).unwrap_or_default());
        self.engine.expect(self.local.id, expected);
        if !std::mem::replace(&mut self.connected, true) {
            let Some(mut remote) = offer::remote(&sdp, true) else {
                return Err(End::Broken("its answer has no address, credentials or fingerprint".into()));
            };
            remote.channels = CHANNELS.into();
            self.engine.connect(self.local.id, remote);
        }
        if std::mem::take(&mut self.offer_again) {
            self.offer();
        }
        Ok(())
    }

    /// Offers the sections as they are now, at once or after the answer that is due.
    fn offer(&mut self) {
        if self.offered {
            self.offer_again = true;
            return;
        }
        self.offered = true;
        self.offer_id += 1;
        let sdp = offer::describe(&self.local, u64::from(self.offer_id), Setup::Actpass, self.sections.clone());
        let description =
            proto::SessionDescription { r#type: "offer".into(), sdp, id: self.offer_id, ..Default::default() };
        self.outbox.push_back(Say::Offer(description));
    }

    fn learn(&mut self, participants: Vec<proto::ParticipantInfo>) {
        for participant in participants {
            let camera = participant.tracks.iter().find(|track| track.source() == proto::TrackSource::Camera);
            match camera {
                Some(camera) => {
                    let known = self.cameras.insert(participant.identity.clone(), camera.sid.clone());
                    if known.as_ref() != Some(&camera.sid) {
                        self.ask_layer(&participant.identity);
                    }
                }
                None => drop(self.cameras.remove(&participant.identity)),
            }
        }
    }

    fn ask_layer(&mut self, publisher: &str) {
        if let (Some(layer), Some(track)) = (self.layers.get(publisher), self.cameras.get(publisher)) {
            self.outbox.push_back(Say::TrackSetting(proto::UpdateTrackSettings {
                track_sids: vec![track.clone()],
                quality: i32::from(*layer),
                ..Default::default()
            }));
            self.engine.watch_layer(self.local.id, track, *layer);
        }
    }

    /// Dynacast: stops what nobody watches.
    #[allow(deprecated)] // `subscribed_qualities` is what older servers fill.
    fn enable_layers(&mut self, update: &proto::SubscribedQualityUpdate) {
        let Some(mid) = self.own_tracks.get(&update.track_sid) else { return };
        let by_codec = update.subscribed_codecs.iter().find(|codec| codec.codec.contains("vp8"));
        let qualities = by_codec.map_or(&update.subscribed_qualities, |codec| &codec.qualities);
        for quality in qualities {
            if let Ok(layer) = u8::try_from(quality.quality) {
                self.engine.enable_layer(self.local.id, mid, layer, quality.enabled);
            }
        }
    }
}
