//! A publication: what one participant sends, and everyone it is forwarded to. Owned by its [`Room`](super::room::Room).

use super::TrackKey;
use super::down_track::DownTrack;
use super::down_tracks::DownTracks;
use super::fan_out::Burst;
use super::forwarding::describe;
use super::info::{LayerInfo, NewTrack, ParticipantId, Quality, Sid, TrackInfo};
use super::keyframe::KeyframeThrottle;
use super::layer_activity::{AliveLayers, FrameRates, LayerActivity};
use super::layer_selector::{MAX_LAYERS, Published};
use super::packet_cache::PacketCache;
use super::participants::Slot;
use super::timers::Alarm;
use crate::transport::{MediaPacket, Origin, RemoteTrack};

pub(super) struct Track {
    pub key: TrackKey,
    pub info: TrackInfo,
    pub publisher: ParticipantId,
    pub publisher_sid: Sid,
    /// The publisher's m-line; `None` until an offer carried the track. Only then do others hear of it.
    pub section: Option<usize>,
    /// Which layers arrive.
    pub activity: LayerActivity,
    /// These changed, and subscriptions have yet to be retargeted.
    pub stale: bool,
    /// What arrived lately, by layer.
    pub caches: [PacketCache; MAX_LAYERS],
    /// What arrived and was not forwarded yet.
    pub burst: Burst,
    pub frame_rates: FrameRates,
    pub throttles: [KeyframeThrottle; MAX_LAYERS],
    /// Layers of which a receiver lost a picture that no keyframe has mended yet.
    pub broken: [bool; MAX_LAYERS],
    pub down_tracks: DownTracks,
    /// The publisher knows that somebody listens.
    pub told_subscribed: bool,
    pub alarm: Alarm,
}

impl Track {
    pub fn new(key: TrackKey, sid: Sid, publisher: ParticipantId, publisher_sid: Sid, announced: NewTrack) -> Self {
        let info = TrackInfo {
            sid,
            codec: None,
            mid: None,
            muted: announced.muted,
            simulcast: announced.layers.len() > 1,
            layers: announced.layers.clone(),
            announced,
        };
        Track {
            key,
            info,
            publisher,
            publisher_sid,
            section: None,
            activity: LayerActivity::new(),
            stale: false,
            caches: Default::default(),
            burst: Burst::default(),
            frame_rates: FrameRates::default(),
            throttles: Default::default(),
            broken: [false; MAX_LAYERS],
            down_tracks: DownTracks::default(),
            told_subscribed: false,
            alarm: Alarm::default(),
        }
    }

    pub fn is_published(&self) -> bool {
        self.section.is_some()
    }

    /// How well an SDP track fits: the announced id beats the mere kind, which only serves browsers that rewrite ids.
    pub fn matches(&self, remote: &RemoteTrack) -> Option<MatchStrength> {
        let announced = &self.info.announced;
        if self.is_published() || announced.kind != remote.kind {
            return None;
        }
        let named =
            remote.track_id.as_ref().is_some_and(|id| *id == announced.cid || announced.codec_cids.contains(id));
        Some(if named { MatchStrength::Named } else { MatchStrength::Kind })
    }

    /// The offer carries the track: from now on others may subscribe. False when no codec of it can be forwarded.
    pub fn bind(&mut self, remote: &RemoteTrack) -> bool {
        let wanted = self.info.announced.codec.filter(|codec| remote.codecs.contains(codec));
        let Some(codec) = wanted.or_else(|| remote.codecs.first().copied()) else { return false };
        self.info.codec = Some(codec);
        self.info.mid = Some(remote.mid.clone());
        self.info.simulcast = remote.rids.len() > 1;
        self.section = Some(remote.section);
        self.info.layers = layer_infos(&self.info.announced, &remote.rids);
        true
    }

    /// Lets every subscription find anew what should flow to it: after something changed that they all depend on, which is
    /// muting, and which layers arrive.
    pub fn retarget(&mut self) {
        self.stale = false;
        let Track { info, activity, frame_rates, caches, down_tracks, .. } = self;
        down_tracks.update_all(|down_track| {
            aim(down_track, &published(info, frame_rates), info.muted, activity.alive(), caches)
        });
    }

    /// The same for one, after `change` changed what it depends on. Gives what `change` gives; `None` when there is no such
    /// subscription.
    pub fn change_down_track<R>(&mut self, slot: Slot, change: impl FnOnce(&mut DownTrack) -> R) -> Option<R> {
        let Track { info, activity, frame_rates, caches, down_tracks, .. } = self;
        down_tracks.update(slot, |down_track| {
            let changed = change(down_track);
            aim(down_track, &published(info, frame_rates), info.muted, activity.alive(), caches);
            changed
        })
    }

    /// A packet that arrived lately.
    pub fn cached(&self, origin: Origin) -> Option<&MediaPacket> {
        self.caches.get(usize::from(origin.layer))?.get(origin.sequence)
    }

    /// The layers whose keyframe some subscriber waits for.
    pub fn wanted_layers(&self) -> [bool; MAX_LAYERS] {
        let mut wanted = [false; MAX_LAYERS];
        for layer in self.down_tracks.flowing().iter().filter_map(DownTrack::wants_keyframe) {
            wanted[usize::from(layer)] = true;
        }
        wanted
    }
}

/// What should flow to one subscriber. Nothing does while the track is muted: what still comes is left out without a gap.
fn aim(down_track: &mut DownTrack, published: &Published<'_>, muted: bool, alive: AliveLayers, caches: &[PacketCache]) {
    let flowed = down_track.flows();
    let wanted = !muted && down_track.is_open();
    let target = if wanted { down_track.selector.target(published, alive) } else { None };
    down_track.aim(target);
    if down_track.flows() && !flowed {
        // It must not take what comes late for something new.
        for packet in caches.iter().filter_map(PacketCache::newest) {
            down_track.skip(&describe(packet));
        }
    }
}

/// What a subscriber chooses its layer from.
fn published<'a>(info: &'a TrackInfo, frame_rates: &'a FrameRates) -> Published<'a> {
    Published { layers: &info.layers, width: info.announced.width, height: info.announced.height, frame_rates }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MatchStrength {
    Kind,
    Named,
}

/// The announced layers, lowest first, with their rids. LiveKit maps by order: one layer is LOW, two are LOW and MEDIUM.
fn layer_infos(announced: &NewTrack, rids: &[String]) -> Vec<LayerInfo> {
    const QUALITIES: [Quality; MAX_LAYERS] = [Quality::Low, Quality::Medium, Quality::High];
    let mut known = announced.layers.clone();
    known.sort_by_key(|layer| layer.quality);
    let count = rids.len().max(1);
    (0..count)
        .map(|index| {
            // With fewer announcements than streams the size halves from layer to layer, as browsers do by default.
            let guess = || {
                let shift = (count - 1 - index) as u32;
                let (width, height) = (announced.width >> shift, announced.height >> shift);
                LayerInfo { quality: QUALITIES[index], width, height, bitrate: 0, rid: None }
            };
            let announced = if known.len() == count { known.get(index).cloned() } else { None };
            LayerInfo { rid: rids.get(index).cloned(), ..announced.unwrap_or_else(guess) }
        })
        .collect()
}
