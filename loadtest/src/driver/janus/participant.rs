//! One participant: what it publishes, what it receives, and how both follow who comes and goes.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};

use super::wire::{Handle, Wire};
use super::{ROOM, answer, connected, jsep};
use crate::driver::{Ask, JoinSpec, offer};
use crate::engine::{Engine, Event, Local};

/// Somebody who publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Feed {
    pub identity: String,
    pub id: u64,
}

pub(super) struct Participant {
    engine: Engine,
    wire: Wire,
    spec: JoinSpec,
    begun: Instant,
    announcements: broadcast::Receiver<Feed>,
    pub publishing: Option<(Handle, Feed)>,
    receiving: Option<Receiving>,
    /// Feeds to subscribe to.
    pub waiting: Vec<Feed>,
    /// Everybody's feed number.
    feeds: HashMap<String, u64>,
    /// Layers that were asked for: feed → layer.
    layers: HashMap<u64, u8>,
}

/// The receiving connection.
pub(super) struct Receiving {
    handle: Handle,
    local: Local,
    events: mpsc::UnboundedReceiver<Event>,
    connected: bool,
    version: u64,
    /// Video sections: feed → mid.
    videos: HashMap<u64, String>,
}

impl Receiving {
    pub fn new(handle: Handle, local: Local, events: mpsc::UnboundedReceiver<Event>) -> Receiving {
        Receiving { handle, local, events, connected: false, version: 0, videos: HashMap::new() }
    }
}

impl Participant {
    pub fn new(
        engine: Engine,
        wire: Wire,
        spec: JoinSpec,
        begun: Instant,
        announcements: broadcast::Receiver<Feed>,
    ) -> Participant {
        Participant {
            engine,
            wire,
            spec,
            begun,
            announcements,
            publishing: None,
            receiving: None,
            waiting: Vec::new(),
            feeds: HashMap::new(),
            layers: HashMap::new(),
        }
    }

    /// Subscribes to the feeds that wait, with the first ones on a new connection. Gives its SRTP suite.
    pub async fn subscribe(&mut self) -> Result<&'static str, String> {
        let feeds = std::mem::take(&mut self.waiting);
        let streams: Vec<Value> = feeds.iter().map(|feed| json!({"feed": feed.id})).collect();
        self.feeds.extend(feeds.into_iter().map(|feed| (feed.identity, feed.id)));
        let request = match &self.receiving {
            None => json!({"request": "join", "ptype": "subscriber", "room": ROOM, "streams": streams}),
            Some(_) => json!({"request": "update", "subscribe": streams}),
        };
        if self.receiving.is_none() {
            self.receiving = Some(Receiving::open(&self.engine, &self.wire, &self.spec, self.begun).await?);
        }
        let Some(receiving) = &self.receiving else { return Ok("none") };
        let told = receiving.handle.ask(request, None).await?;
        self.take_offer(&told).await
    }

    /// Answers what Janus offers.
    async fn take_offer(&mut self, told: &Value) -> Result<&'static str, String> {
        let Some(receiving) = &mut self.receiving else { return Ok("none") };
        let offered = jsep(told)?;
        let streams = told["plugindata"]["data"]["streams"].as_array().cloned().unwrap_or_default();
        let mut feeds: HashMap<&str, u64> = HashMap::new();
        for stream in &streams {
            if let (Some(mid), Some(feed)) = (stream["mid"].as_str(), stream["feed_id"].as_u64()) {
                feeds.insert(mid, feed);
                if stream["type"] == "video" {
                    receiving.videos.insert(feed, mid.to_owned());
                }
            }
        }
        let name = |mid: &str| feeds.get(mid).map_or_else(String::new, u64::to_string);
        self.engine.expect(receiving.local.id, offer::expected(&offered, |section| name(&section.mid)));
        receiving.version += 1;
        let sdp = answer(&receiving.local, receiving.version, &offered);
        receiving
            .handle
            .ask(json!({"request": "start", "room": ROOM}), Some(json!({"type": "answer", "sdp": sdp})))
            .await?;
        let mut suite = "none";
        if !receiving.connected {
            let remote = offer::remote(&offered, false).ok_or("its offer has no address")?;
            self.engine.connect(receiving.local.id, remote);
            suite = connected(&mut receiving.events).await?;
            receiving.connected = true;
        }
        if self.spec.adaptive {
            // Janus starts with the highest layer.
            let mids: Vec<(u64, String)> = receiving.videos.iter().map(|(feed, mid)| (*feed, mid.clone())).collect();
            let layer = |feed: &u64| self.layers.get(feed).copied().unwrap_or(0);
            let wanted = mids.iter().map(|(feed, mid)| json!({"mid": mid, "substream": layer(feed)}));
            let request = json!({"request": "configure", "streams": wanted.collect::<Vec<_>>()});
            receiving.handle.ask(request, None).await?;
        }
        Ok(suite)
    }

    async fn take_layer(&mut self, publisher: &str, layer: u8) -> Result<(), String> {
        let Some(feed) = self.feeds.get(publisher).copied() else { return Ok(()) };
        self.layers.insert(feed, layer);
        let Some(receiving) = &self.receiving else { return Ok(()) };
        let Some(mid) = receiving.videos.get(&feed) else { return Ok(()) };
        let request = json!({"request": "configure", "streams": [{"mid": mid, "substream": layer}]});
        receiving.handle.ask(request, None).await?;
        self.engine.watch_layer(receiving.local.id, &feed.to_string(), layer);
        Ok(())
    }

    /// Goes on until the participant leaves or is lost.
    pub async fn run(&mut self, mut asked: mpsc::UnboundedReceiver<Ask>) {
        // Layers that were asked of feeds which are still to come.
        let mut early: Vec<(String, u8)> = Vec::new();
        loop {
            let went_on = tokio::select! {
                ask = asked.recv() => match ask {
                    Some(Ask::Layer { publisher, layer }) => {
                        if self.feeds.contains_key(&publisher) {
                            self.take_layer(&publisher, layer).await
                        } else {
                            early.push((publisher, layer));
                            Ok(())
                        }
                    }
                    Some(Ask::Leave) | None => break,
                },
                announced = self.announcements.recv(), if self.spec.subscribe => {
                    self.waiting.extend(announced.ok());
                    while let Ok(feed) = self.announcements.try_recv() {
                        self.waiting.push(feed);
                    }
                    let own = self.publishing.as_ref().map(|(_, feed)| feed.id);
                    let known: Vec<u64> = self.feeds.values().copied().collect();
                    self.waiting.retain(|feed| Some(feed.id) != own && !known.contains(&feed.id));
                    if self.waiting.is_empty() {
                        continue;
                    }
                    let mut done = self.subscribe().await.map(drop);
                    for (publisher, layer) in std::mem::take(&mut early) {
                        done = match (done, self.feeds.contains_key(&publisher)) {
                            (Ok(()), true) => self.take_layer(&publisher, layer).await,
                            (done, _) => {
                                early.push((publisher, layer));
                                done
                            }
                        };
                    }
                    done
                }
                event = listen(&mut self.receiving) => match event {
                    // Somebody left: Janus offers anew by itself.
                    Some(told) if told["jsep"]["type"] == "offer" => self.take_offer(&told).await.map(drop),
                    Some(told) if told["janus"] == "hangup" => break,
                    Some(_) => Ok(()),
                    None => break,
                },
            };
            if let Err(why) = went_on {
                eprintln!("{}: {why}", self.spec.identity);
                break;
            }
        }
        if let Some(receiving) = &self.receiving {
            receiving.handle.detach().await;
        }
        if let Some((handle, _)) = &self.publishing {
            handle.detach().await;
        }
        // Dropping the handles closes their clients.
        (self.receiving, self.publishing) = (None, None);
    }
}

/// The next thing that Janus tells of the receiving connection; never, while there is none.
async fn listen(receiving: &mut Option<Receiving>) -> Option<Value> {
    match receiving {
        Some(receiving) => receiving.handle.events.recv().await,
        None => std::future::pending().await,
    }
}
