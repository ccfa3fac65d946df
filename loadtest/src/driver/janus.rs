//! Janus' VideoRoom (1.x): one session over its WebSocket transport, a handle for each connection. A participant who sends and
//! receives has two connections, as Janus wants it.

mod participant;
mod wire;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use parlour::transport::sdp::{Direction, SectionKind, SessionDescription, Setup};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, broadcast, mpsc};

use super::{JOIN_TIMEOUT, JoinError, JoinSpec, Publish, Session, offer};
use crate::engine::{Engine, Event, Local};
use participant::{Feed, Participant, Receiving};
use wire::{Handle, Wire};

/// VideoRoom's rooms have numbers.
const ROOM: u64 = 4711;
/// Announcements of feeds that a participant may be late for: more than a meeting has.
const FEEDS_UNDER_WAY: usize = 10_000;

/// A server, and the room in it.
#[derive(Clone)]
pub struct Janus {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    wire: OnceCell<Wire>,
    /// Who publishes.
    feeds: Mutex<Vec<Feed>>,
    /// Tells of new ones.
    announcements: broadcast::Sender<Feed>,
}

impl Janus {
    /// `url` is `ws://host:port`.
    pub fn new(url: &str) -> Janus {
        let shared = Shared {
            wire: OnceCell::new(),
            feeds: Mutex::default(),
            announcements: broadcast::channel(FEEDS_UNDER_WAY).0,
        };
        Janus { url: url.to_owned(), shared: Arc::new(shared) }
    }

    /// The session, begun with the first join; it makes the room.
    async fn wire(&self) -> Result<&Wire, JoinError> {
        self.shared.wire.get_or_try_init(|| self.begin()).await
    }

    async fn begin(&self) -> Result<Wire, JoinError> {
        let wire = Wire::connect(&self.url).await?;
        let failed = |why: String| JoinError::Failed { identity: "the room".into(), why };
        let handle = wire.attach().await.map_err(failed)?;
        let room = json!({
            "request": "create", "room": ROOM, "publishers": 100_000, "bitrate": 0, "audiocodec": "opus", "videocodec": "vp8",
        });
        match handle.ask(room, None).await {
            // It is there already, in a server that was not started for this run.
            Err(why) if !why.contains("already exists") => Err(failed(why)),
            _ => Ok(wire),
        }
    }

    pub async fn join(&self, engine: &Engine, spec: JoinSpec) -> Result<Session, JoinError> {
        let begun = Instant::now();
        let identity = spec.identity.clone();
        let joined = tokio::time::timeout(JOIN_TIMEOUT, self.sign_in(engine, spec, begun)).await;
        let (mut participant, suite) = joined.unwrap_or_else(|_| {
            Err(JoinError::TimedOut { identity: identity.clone(), why: "Janus, ICE or DTLS did not answer" })
        })?;
        let (asks, asked) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move { participant.run(asked).await });
        Ok(Session { identity, suite, asks, task })
    }

    async fn sign_in(
        &self,
        engine: &Engine,
        spec: JoinSpec,
        begun: Instant,
    ) -> Result<(Participant, &'static str), JoinError> {
        let wire = self.wire().await?;
        let failed = |why: String| JoinError::Failed { identity: spec.identity.clone(), why };
        // Before others are told of us, so that we hear of everybody exactly once.
        let announcements = self.shared.announcements.subscribe();
        let mut participant = Participant::new(engine.clone(), wire.clone(), spec.clone(), begun, announcements);
        let mut suite = "none";
        if !spec.publish.is_empty() {
            let (handle, id) = self.publish(engine, wire, &spec, begun, &mut suite).await?;
            let feed = Feed { identity: spec.identity.clone(), id };
            participant.publishing = Some((handle, feed.clone()));
            let mut feeds = self.shared.feeds.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            participant.waiting = feeds.clone();
            feeds.push(feed.clone());
            let _ = self.shared.announcements.send(feed);
        } else {
            participant.waiting = self.shared.feeds.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        }
        if spec.subscribe && !participant.waiting.is_empty() {
            suite = participant.subscribe().await.map_err(failed)?;
        }
        Ok((participant, suite))
    }

    /// Publishes all tracks on one connection. Gives the handle and the client.
    async fn publish(
        &self,
        engine: &Engine,
        wire: &Wire,
        spec: &JoinSpec,
        begun: Instant,
        suite: &mut &'static str,
    ) -> Result<(Handle, u64), JoinError> {
        let failed = |why: String| JoinError::Failed { identity: spec.identity.clone(), why };
        // Who receives as well is in when something comes.
        let (local, mut events) = engine.open((!spec.subscribe).then_some(begun), false).await?;
        let (client, id) = (engine.own(local.id), local.id as u64);
        let mut random = fastrand::Rng::with_seed(spec.seed ^ 0x55);
        let mut sections = Vec::new();
        let mut tracks = Vec::new();
        for (index, publish) in (0u64..).zip(&spec.publish) {
            let (video, simulcast) = match publish {
                Publish::Microphone => (false, false),
                Publish::Camera { simulcast } => (true, *simulcast),
            };
            let mid = index.to_string();
            let track = offer::track(&mid, video, simulcast, spec.seed.wrapping_mul(8) + index, &mut random);
            let mut section = offer::sending_section(&track, &format!("{}-{index}", spec.identity));
            // Janus takes the first layer for the highest.
            section.rids.reverse();
            section.simulcast_send.reverse();
            sections.push(section);
            tracks.push(track);
        }
        let sdp = offer::describe(&local, 1, Setup::Actpass, sections);
        let mut handle = wire.attach().await.map_err(failed)?.with_client(client);
        let request = json!({"request": "joinandconfigure", "ptype": "publisher", "room": ROOM, "id": id});
        let told = handle.ask(request, Some(json!({"type": "offer", "sdp": sdp}))).await.map_err(failed)?;
        let answer = jsep(&told).map_err(failed)?;
        let remote = offer::remote(&answer, true).ok_or_else(|| failed("its answer has no address".into()))?;
        engine.publish(local.id, tracks);
        engine.connect(local.id, remote);
        *suite = connected(&mut events).await.map_err(failed)?;
        // Nobody can subscribe before Janus has noticed, too.
        while handle.events.recv().await.ok_or_else(|| failed("Janus closed the WebSocket".into()))?["janus"]
            != "webrtcup"
        {}
        Ok((handle, id))
    }
}

/// Waits for ICE and DTLS. Gives the SRTP suite.
async fn connected(events: &mut mpsc::UnboundedReceiver<Event>) -> Result<&'static str, String> {
    match events.recv().await {
        Some(Event::Connected(suite)) => Ok(suite),
        Some(Event::Failed(why)) => Err(why),
        None => Err("the media thread has ended".into()),
    }
}

/// The description that came with an event.
fn jsep(told: &Value) -> Result<SessionDescription, String> {
    let sdp = told["jsep"]["sdp"].as_str().ok_or("Janus sent no description")?;
    SessionDescription::parse(sdp).map_err(|error| format!("Janus' description: {error}"))
}

/// Takes everything that is offered, as it is offered.
fn answer(local: &Local, version: u64, offered: &SessionDescription) -> String {
    let take = |section: &parlour::transport::sdp::MediaSection| {
        let mut answer = section.clone();
        (answer.msid, answer.ssrcs, answer.ssrc_groups) = (None, Vec::new(), Vec::new());
        if section.kind != SectionKind::Application {
            answer.direction = if section.direction.sends() { Direction::RecvOnly } else { Direction::Inactive };
        }
        answer
    };
    offer::describe(local, version, Setup::Active, offered.media.iter().map(take).collect())
}

impl Receiving {
    /// Opens the receiving connection of a participant.
    async fn open(engine: &Engine, wire: &Wire, spec: &JoinSpec, begun: Instant) -> Result<Receiving, String> {
        let opened = engine.open(Some(begun), spec.wants_video).await;
        let (local, events) = opened.map_err(|error| error.to_string())?;
        let client = engine.own(local.id);
        let handle = wire.attach().await?.with_client(client);
        Ok(Receiving::new(handle, local, events))
    }
}
