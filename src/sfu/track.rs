//! A publication: what one participant sends, and everyone it is forwarded to. Owned by its [`Room`](super::room::Room).

use super::TrackKey;
use super::down_track::DownTrack;
use super::info::{LayerInfo, NewTrack, ParticipantId, Quality, Sid, TrackInfo};
use super::keyframe::KeyframeThrottle;
use super::layer_activity::{FrameRates, LayerActivity};
use super::layer_selector::{MAX_LAYERS, Published};
use super::timers::Alarm;
use crate::transport::RemoteTrack;

pub(super) struct Track {
    pub key: TrackKey,
    pub info: TrackInfo,
    pub publisher: ParticipantId,
    pub publisher_sid: Sid,
    /// The publisher's m-line; `None` until an offer carried the track. Only then do others hear of it.
    pub section: Option<usize>,
    /// Which layers arrive.
    pub activity: LayerActivity,
    pub frame_rates: FrameRates,
    pub throttles: [KeyframeThrottle; MAX_LAYERS],
    /// Layers of which a receiver lost a picture that no keyframe has mended yet.
    pub broken: [bool; MAX_LAYERS],
    pub down_tracks: Vec<DownTrack>,
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
            frame_rates: FrameRates::default(),
            throttles: Default::default(),
            broken: [false; MAX_LAYERS],
            down_tracks: Vec::new(),
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

    pub fn down_track(&mut self, subscriber: ParticipantId) -> Option<&mut DownTrack> {
        self.down_tracks.iter_mut().find(|d| d.subscriber == subscriber)
    }

    /// The layers whose keyframe some subscriber waits for.
    pub fn wanted_layers(&self) -> [bool; MAX_LAYERS] {
        let (published, alive) = (published(&self.info, &self.frame_rates), self.activity.alive());
        let mut wanted = [false; MAX_LAYERS];
        // Nothing comes before the unmute, which asks anew.
        let waiting = if self.info.muted { &[][..] } else { &self.down_tracks[..] };
        for down_track in waiting {
            if let Some(layer) = down_track.wants_keyframe(down_track.target(&published, alive)) {
                wanted[usize::from(layer)] = true;
            }
        }
        wanted
    }
}

/// What a subscriber chooses its layer from.
pub(super) fn published<'a>(info: &'a TrackInfo, frame_rates: &'a FrameRates) -> Published<'a> {
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
