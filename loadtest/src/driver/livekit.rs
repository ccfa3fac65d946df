//! LiveKit signalling, ours or LiveKit's own: a WebSocket with protobuf messages, the dialect v1 with one connection that the
//! client always offers.

mod signalling;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use livekit_protocol as proto;
use parlour::livekit::access_token::{Claims, Keys, VideoGrant};
use parlour::transport::sdp::{Direction, MediaSection, Setup};
use prost::Message;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{JOIN_TIMEOUT, JoinError, JoinSpec, Publish, Session, offer};
use crate::engine::{Engine, Track};
use signalling::Signalling;

/// Hours of a load test are rare; a token is not renewed here.
const TOKEN_VALIDITY_S: u64 = 6 * 3600;
/// What livekit-client offers from the start: sections to receive in, of each kind.
const FIRST_SECTIONS: usize = 3;
/// The signalling protocol of livekit-client 2.23.
const PROTOCOL: i32 = 17;
/// Data channels, in livekit-client's order.
const CHANNELS: [&str; 3] = ["_lossy", "_reliable", "_data_track"];

/// A server, and the room in it.
#[derive(Clone)]
pub struct LiveKit {
    url: String,
    keys: Keys,
    room: String,
}

/// A track that is published, under the id by which the server is told of it.
pub(super) struct Published {
    pub cid: String,
    pub track: Track,
}

impl LiveKit {
    /// `url` is `ws://host:port[/prefix]`. The key signs tokens for the room.
    pub fn new(url: &str, key: &str, secret: &str, room: &str) -> LiveKit {
        let keys = Keys::new([(key, secret)]).expect("one key");
        LiveKit { url: url.trim_end_matches('/').to_owned(), keys, room: room.to_owned() }
    }

    fn token(&self, identity: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims {
            sub: identity.to_owned(),
            nbf: Some(now),
            exp: Some(now + TOKEN_VALIDITY_S),
            video: Some(VideoGrant {
                room_join: true,
                room_create: true,
                room: self.room.clone(),
                ..VideoGrant::default()
            }),
            ..Claims::default()
        };
        self.keys.sign(&claims)
    }

    pub async fn join(&self, engine: &Engine, spec: JoinSpec) -> Result<Session, JoinError> {
        let begun = Instant::now();
        let (local, events) = engine.open(Some(begun), spec.wants_video).await?;
        let client = engine.own(local.id);
        let joined = tokio::time::timeout(JOIN_TIMEOUT, self.sign_in(engine, local, events, &spec)).await;
        let (mut signalling, suite) = joined.unwrap_or_else(|_| {
            let identity = spec.identity.clone();
            Err(JoinError::TimedOut { identity, why: "signalling, ICE or DTLS did not come up" })
        })?;
        let (asks, asked) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            signalling.run(asked).await;
            drop(client);
        });
        Ok(Session { identity: spec.identity, suite, asks, task })
    }

    async fn sign_in(
        &self,
        engine: &Engine,
        local: crate::engine::Local,
        events: mpsc::UnboundedReceiver<crate::engine::Event>,
        spec: &JoinSpec,
    ) -> Result<(Signalling, &'static str), JoinError> {
        let mut random = fastrand::Rng::with_seed(spec.seed ^ 0x55);
        let mut sections = vec![offer::data_section("0")];
        let published = published(spec, &mut sections, &mut random);
        if spec.subscribe {
            for kind in [false, true] {
                for _ in 0..FIRST_SECTIONS {
                    let mid = sections.len().to_string();
                    sections.push(offer::section(&mid, kind, Direction::RecvOnly));
                }
            }
        }
        let first_offer = proto::SessionDescription {
            r#type: "offer".into(),
            sdp: offer::describe(&local, 1, Setup::Actpass, sections.clone()),
            id: 1,
            ..Default::default()
        };
        let request = self.join_request(spec, &published, first_offer);
        let socket = self.open_socket(spec, &request).await?;
        if !published.is_empty() {
            engine.publish(local.id, published.iter().map(|published| published.track.clone()).collect());
        }
        let mut signalling =
            Signalling::new(socket, engine.clone(), local, events, spec.identity.clone(), sections, published);
        let suite = signalling.until_connected().await?;
        Ok((signalling, suite))
    }

    fn join_request(&self, spec: &JoinSpec, published: &[Published], offer: proto::SessionDescription) -> String {
        let request = proto::JoinRequest {
            client_info: Some(proto::ClientInfo {
                sdk: proto::client_info::Sdk::Js as i32,
                version: "2.23.0".into(),
                protocol: PROTOCOL,
                ..Default::default()
            }),
            connection_settings: Some(proto::ConnectionSettings {
                auto_subscribe: spec.subscribe,
                adaptive_stream: spec.adaptive,
                ..Default::default()
            }),
            add_track_requests: published.iter().map(add_track).collect(),
            publisher_offer: Some(offer),
            ..Default::default()
        };
        let wrapped = proto::WrappedJoinRequest { compression: 0, join_request: request.encode_to_vec() };
        format!(
            "{}/rtc/v1?access_token={}&join_request={}",
            self.url,
            self.token(&spec.identity),
            URL_SAFE.encode(wrapped.encode_to_vec())
        )
    }

    async fn open_socket(&self, spec: &JoinSpec, url: &str) -> Result<signalling::Socket, JoinError> {
        let unreachable = |why: String| JoinError::Unreachable { url: self.url.clone(), why };
        let request = url.into_client_request().map_err(|error| unreachable(error.to_string()))?;
        match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => Ok(socket),
            Err(WsError::Http(response)) => {
                let status = response.status().as_u16();
                let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).trim().to_owned();
                Err(match status {
                    401 | 403 => JoinError::Refused { status, body },
                    _ => JoinError::NotLetIn { identity: spec.identity.clone(), status, body },
                })
            }
            Err(error) => Err(unreachable(error.to_string())),
        }
    }
}

/// Adds a section for each track to publish.
fn published(spec: &JoinSpec, sections: &mut Vec<MediaSection>, random: &mut fastrand::Rng) -> Vec<Published> {
    let mut published = Vec::new();
    for (index, publish) in (0u64..).zip(&spec.publish) {
        let mid = sections.len().to_string();
        let (video, simulcast) = match publish {
            Publish::Microphone => (false, false),
            Publish::Camera { simulcast } => (true, *simulcast),
        };
        let track = offer::track(&mid, video, simulcast, spec.seed.wrapping_mul(8) + index, random);
        let cid = format!("{}-{index}", spec.identity);
        sections.push(offer::sending_section(&track, &cid));
        published.push(Published { cid, track });
    }
    published
}

#[allow(deprecated)] // `layers` beside `simulcast_codecs`, as livekit-client writes both.
fn add_track(published: &Published) -> proto::AddTrackRequest {
    let video = published.track.video;
    let layer = |(quality, (width, height, bitrate)): (i32, (u32, u32, u32))| proto::VideoLayer {
        quality,
        width,
        height,
        bitrate,
        ..Default::default()
    };
    let sizes = [(320, 180, 160_000), (640, 360, 450_000), (1280, 720, 1_700_000)];
    let layers: Vec<_> = match (video, published.track.layers.len()) {
        (false, _) => Vec::new(),
        (true, 1) => vec![layer((proto::VideoQuality::High as i32, sizes[2]))],
        (true, _) => (0..).zip(sizes).map(layer).collect(),
    };
    proto::AddTrackRequest {
        cid: published.cid.clone(),
        r#type: if video { proto::TrackType::Video } else { proto::TrackType::Audio } as i32,
        source: if video { proto::TrackSource::Camera } else { proto::TrackSource::Microphone } as i32,
        width: if video { 1280 } else { 0 },
        height: if video { 720 } else { 0 },
        layers: layers.clone(),
        simulcast_codecs: if video {
            vec![proto::SimulcastCodec {
                codec: "vp8".into(),
                cid: published.cid.clone(),
                layers,
                ..Default::default()
            }]
        } else {
            Vec::new()
        },
        disable_red: true,
        ..Default::default()
    }
}
