//! What a client sends, through str0m: microphones and cameras bound to sections of its description.

use std::time::Instant;

use str0m::Rtc;
use str0m::media::{MediaKind, Mid, Pt, Rid};
use str0m::rtp::{ExtensionValues, RtpWrite};

use super::Settings;
use crate::media::{Camera, Microphone, Source};

/// Packets that a publisher keeps for retransmission: three seconds of video.
const RTX_CACHE_PACKETS: usize = 600;
const RTX_CACHE_AGE: std::time::Duration = std::time::Duration::from_secs(3);

/// A track to publish, as the description has it.
#[derive(Debug, Clone)]
pub struct Track {
    pub mid: String,
    pub payload_type: u8,
    pub video: bool,
    /// One per layer, lowest first.
    pub layers: Vec<TrackLayer>,
    pub seed: u64,
}

#[derive(Debug, Clone)]
pub struct TrackLayer {
    /// `None` without simulcast.
    pub rid: Option<&'static str>,
    pub ssrc: u32,
    pub rtx: Option<u32>,
}

pub(super) struct Publication {
    source: Source,
    mid: Mid,
    payload_type: Pt,
    rids: Vec<Option<Rid>>,
}

impl Publication {
    pub fn new(rtc: &mut Rtc, settings: &Settings, track: &Track, now: Instant) -> Publication {
        let mid = Mid::from(track.mid.as_str());
        let mut api = rtc.direct_api();
        api.declare_media(mid, if track.video { MediaKind::Video } else { MediaKind::Audio });
        for layer in &track.layers {
            let rid = layer.rid.map(Rid::from);
            let stream = api.declare_stream_tx(layer.ssrc.into(), layer.rtx.map(Into::into), mid, rid);
            // Browsers repeat whatever is asked for; str0m would stop at a share of 0.15.
            stream.set_rtx_cache(RTX_CACHE_PACKETS, RTX_CACHE_AGE, None);
        }
        let seed = settings.seed ^ track.seed;
        let source = if track.video {
            Source::Camera(Camera::new(seed, track.layers.len() > 1, settings.pacing, now))
        } else {
            Source::Microphone(Microphone::new(seed, now))
        };
        Publication {
            source,
            mid,
            payload_type: Pt::new_with_value(track.payload_type),
            rids: track.layers.iter().map(|layer| layer.rid.map(Rid::from)).collect(),
        }
    }

    pub fn next(&self) -> Instant {
        self.source.next()
    }

    /// Writes what is due. Gives the number of packets.
    pub fn send(&mut self, rtc: &mut Rtc, now: Instant, unix_nanos: u64) -> u64 {
        let (mid, payload_type, rids) = (self.mid, self.payload_type, &self.rids);
        let mut sent = 0;
        self.source.send(now, unix_nanos, |packet| {
            let extensions = ExtensionValues {
                audio_level: packet.level,
                voice_activity: packet.level.map(|level| level > -40),
                ..ExtensionValues::default()
            };
            let video = packet.level.is_none();
            let write = RtpWrite::new(payload_type, packet.sequence.into(), packet.timestamp, now, packet.payload)
                .marker(packet.marker)
                .nackable(video)
                .ext_vals(extensions);
            let mut api = rtc.direct_api();
            let rid = rids.get(usize::from(packet.layer)).copied().flatten();
            if let Some(stream) = api.stream_tx_by_mid(mid, rid) {
                stream.write_rtp(write);
                sent += 1;
            }
        });
        sent
    }

    pub fn is(&self, mid: Mid) -> bool {
        self.mid == mid
    }

    /// Of one layer, or of all when the request names none.
    pub fn request_keyframe(&mut self, rid: Option<Rid>) {
        let Source::Camera(camera) = &mut self.source else { return };
        for (layer, own) in (0u8..).zip(&self.rids) {
            if rid.is_none() || rid == *own {
                camera.request_keyframe(layer);
            }
        }
    }

    pub fn enable(&mut self, layer: u8, on: bool) {
        if let Source::Camera(camera) = &mut self.source {
            camera.enable(layer, on);
        }
    }
}
