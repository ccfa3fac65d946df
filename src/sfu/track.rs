//! A publication: what one participant sends, and everyone it is forwarded to. Owned by its [`Room`](super::room::Room).

use super::TrackKey;
use super::arrivals::Arrivals;
use super::down_track::DownTrack;
use super::down_tracks::DownTracks;
use super::dynacast::Dynacast;
use super::fan_out::Burst;
use super::forwarder::Selection;
use super::frame_reader::FrameReader;
use super::info::{Codec, Encryption, LayerInfo, NewTrack, ParticipantId, Quality, Sid, TrackInfo};
use super::keyframe::KeyframeThrottle;
use super::layer_activity::{AliveLayers, FrameRates, LayerActivity};
use super::layer_rate::LayerRates;
use super::layer_selector::{MAX_LAYERS, Published, Target};
use super::packet_cache::{CachedPacket, PacketCache};
use super::participants::Slot;
use super::timers::Alarm;
use crate::transport::{Origin, RemoteTrack};

pub(super) struct Track {
    pub key: TrackKey,
    pub info: TrackInfo,
    pub publisher: ParticipantId,
    pub publisher_sid: Sid,
    /// The publisher's m-line; `None` until an offer carried the track. Only then do others hear of it.
    pub section: Option<usize>,
    pub reader: FrameReader,
    /// Which layers arrive.
    pub activity: LayerActivity,
    /// These changed, and subscriptions have yet to be retargeted.
    pub stale: bool,
    /// What arrived lately, by layer.
    pub caches: [PacketCache; MAX_LAYERS],
    /// What arrived and was not forwarded yet.
    pub burst: Burst,
    pub frame_rates: FrameRates,
    pub rates: LayerRates,
    /// Of what is on its way to us, by stream.
    pub arrivals: [Arrivals; MAX_LAYERS],
    pub dynacast: Dynacast,
    /// Others are heard instead: see [`Loudest`](super::loudest::Loudest).
    pub silenced: bool,
    /// A moderator muted it, and its publisher has not yet said that it knows: see [`moderation`](super::moderation).
    pub unaware: bool,
    pub throttles: [KeyframeThrottle; MAX_LAYERS],
    /// Streams of which a receiver lost a picture that no keyframe has mended yet.
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
            simulcast: announced.layers.len() > 1 && !announced.codec.is_some_and(Codec::is_scalable),
            scalable: announced.codec.is_some_and(Codec::is_scalable),
            layers: announced.layers.clone(),
            announced,
        };
        Track {
            key,
            info,
            publisher,
            publisher_sid,
            section: None,
            reader: FrameReader::default(),
            activity: LayerActivity::new(),
            stale: false,
            caches: Default::default(),
            burst: Burst::default(),
            frame_rates: FrameRates::default(),
            rates: LayerRates::default(),
            arrivals: Default::default(),
            dynacast: Dynacast::default(),
            silenced: false,
            unaware: false,
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
        let Some(codec) = self.info.announced.choose_codec(&remote.codecs) else { return false };
        self.info.codec = Some(codec);
        self.info.mid = Some(remote.mid.clone());
        self.info.simulcast = remote.rids.len() > 1;
        self.info.scalable = !self.info.simulcast && codec.is_scalable();
        self.section = Some(remote.section);
        self.info.layers = layer_infos(&self.info.announced, &remote.rids, self.info.scalable);
        true
    }

    /// Lets every subscription find anew what should flow to it: after something changed that they all depend on, which is
    /// muting, and which layers arrive.
    pub fn retarget(&mut self) {
        self.stale = false;
        let silent = self.is_silent();
        let Track { info, activity, frame_rates, caches, down_tracks, .. } = self;
        down_tracks
            .update_all(|down_track| aim(down_track, &published(info, frame_rates), silent, activity.alive(), caches));
    }

    fn is_silent(&self) -> bool {
        self.info.muted || self.silenced
    }

    /// The same for one, after `change` changed what it depends on. Gives what `change` gives; `None` when there is no such
    /// subscription.
    pub fn change_down_track<R>(&mut self, slot: Slot, change: impl FnOnce(&mut DownTrack) -> R) -> Option<R> {
        let silent = self.is_silent();
        let Track { info, activity, frame_rates, caches, down_tracks, .. } = self;
        down_tracks.update(slot, |down_track| {
            let changed = change(down_track);
            aim(down_track, &published(info, frame_rates), silent, activity.alive(), caches);
            changed
        })
    }

    pub fn published(&self) -> Published<'_> {
        published(&self.info, &self.frame_rates)
    }

    /// A packet that arrived lately.
    pub fn cached(&self, origin: Origin) -> Option<&CachedPacket> {
        self.caches.get(usize::from(origin.layer))?.get(origin.sequence)
    }

    /// The streams whose keyframe some subscriber waits for.
    pub fn wanted_streams(&self) -> [bool; MAX_LAYERS] {
        let mut wanted = [false; MAX_LAYERS];
        for stream in self.down_tracks.flowing().iter().filter_map(DownTrack::wants_keyframe) {
            wanted[usize::from(stream)] = true;
        }
        wanted
    }
}

/// What should flow to one subscriber. Nothing does while the track is silent: what still comes is left out without a gap.
fn aim(
    down_track: &mut DownTrack,
    published: &Published<'_>,
    silent: bool,
    alive: AliveLayers,
    caches: &[PacketCache],
) {
    let flowed = down_track.flows();
    let wanted = !silent && down_track.is_open();
    let target = if wanted { down_track.selector.target(published, alive) } else { None };
    down_track.aim(target.map(|target| select(target, published)), alive.highest());
    if down_track.flows() && !flowed {
        // It must not take what comes late for something new.
        for packet in caches.iter().filter_map(PacketCache::newest) {
            down_track.skip(&packet.incoming());
        }
    }
}

impl NewTrack {
    /// Which of the codecs that the client can send, its preference first, the track is published with.
    fn choose_codec(&self, offered: &[Codec]) -> Option<Codec> {
        // Redundancy is cut off again for receivers without it, which nobody can do with encrypted frames.
        let red = self.encryption == Encryption::None && !self.disable_red;
        let fits = |codec: &Codec| *codec != Codec::Red || red;
        let wanted = match self.codec {
            Some(Codec::Opus) if red && offered.contains(&Codec::Red) => Some(Codec::Red),
            announced => announced,
        };
        wanted.filter(|codec| offered.contains(codec)).or_else(|| offered.iter().copied().find(fits))
    }
}

/// A layer is a stream of its own, or one among those of a scalable stream.
fn select(target: Target, published: &Published<'_>) -> Selection {
    let Target { spatial, temporal } = target;
    if published.scalable {
        Selection { stream: 0, spatial, temporal }
    } else {
        Selection { stream: spatial, spatial: Target::MAX.spatial, temporal }
    }
}

/// What a subscriber chooses its layer from.
fn published<'a>(info: &'a TrackInfo, frame_rates: &'a FrameRates) -> Published<'a> {
    let (width, height) = (info.announced.width, info.announced.height);
    Published { layers: &info.layers, width, height, scalable: info.scalable, frame_rates }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MatchStrength {
    Kind,
    Named,
}

/// The announced layers, lowest first, with their rids. LiveKit maps by order: one layer is LOW, two are LOW and MEDIUM.
fn layer_infos(announced: &NewTrack, rids: &[String], scalable: bool) -> Vec<LayerInfo> {
    const QUALITIES: [Quality; MAX_LAYERS] = [Quality::Low, Quality::Medium, Quality::High];
    let mut known = announced.layers.clone();
    known.sort_by_key(|layer| layer.quality);
    let count = if scalable { known.len().clamp(1, MAX_LAYERS) } else { rids.len().max(1) };
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
