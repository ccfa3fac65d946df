//! The header extensions that travel from publisher to subscriber. Everything else in a packet's extensions numbers or
//! names one connection and is written anew on the next.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use str0m::rtp::{ExtensionSerializer, ExtensionValues};

/// What a publisher's packet carries. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    pub audio_level: Option<AudioLevel>,
    /// Two bits: how often the receiver turns the picture by 90° clockwise (3GPP TS 26.114 §7.4.5).
    pub video_orientation: Option<u8>,
    pub abs_capture_time: Option<AbsCaptureTime>,
    pub playout_delay: Option<PlayoutDelay>,
    /// The dependency descriptor as it came (AV1 RTP specification, appendix A): three bytes mostly; up to 255 where
    /// a key frame brings the template structure, which needs the two-byte form (RFC 8285 §4.3).
    pub dependency_descriptor: Option<Arc<[u8]>>,
}

/// RFC 6464.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioLevel {
    /// −dBov: 0 loudest, 127 silence.
    pub level: u8,
    pub voice: bool,
}

/// <http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsCaptureTime {
    /// Of the capturing system's NTP clock, in 2^-32 s.
    pub captured: u64,
    /// From the sender's clock to the capturing system's, in 2^-32 s.
    pub clock_offset: Option<i64>,
}

/// <http://www.webrtc.org/experiments/rtp-hdrext/playout-delay>, each 12 bits of 10 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayoutDelay {
    pub min: u16,
    pub max: u16,
}

/// From the NTP to the Unix epoch.
const NTP_TO_UNIX: Duration = Duration::from_secs(2_208_988_800);
/// Playout delays count hundredths of a second.
const DELAY_UNITS_PER_SECOND: f64 = 100.0;
const DELAY_MAX: u16 = 0xfff;

impl Extensions {
    pub(super) fn received(values: &ExtensionValues) -> Self {
        let delay = |time: str0m::media::MediaTime| {
            ((time.as_seconds() * DELAY_UNITS_PER_SECOND).round() as u16).min(DELAY_MAX)
        };
        Extensions {
            audio_level: values.audio_level.map(|level| AudioLevel {
                level: level.unsigned_abs().min(127),
                voice: values.voice_activity.unwrap_or_default(),
            }),
            video_orientation: values.video_orientation.map(|orientation| orientation as u8),
            abs_capture_time: values
                .abs_capture_time
                .as_ref()
                .map(|time| AbsCaptureTime { captured: ntp(time.capture_time), clock_offset: time.clock_offset }),
            playout_delay: values
                .play_delay_min
                .zip(values.play_delay_max)
                .map(|(min, max)| PlayoutDelay { min: delay(min), max: delay(max) }),
            dependency_descriptor: values.user_values.get::<DependencyDescriptor>().map(|d| d.0.clone()),
        }
    }
}

fn ntp(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default() + NTP_TO_UNIX;
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    since.as_secs() << 32 | fraction
}

/// How str0m carries the descriptor's bytes in and out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DependencyDescriptor(Arc<[u8]>);

/// What one byte can tell the length of (RFC 8285 §4.3).
const MAX_EXTENSION_BYTES: usize = 255;
/// What the one-byte form holds (RFC 8285 §4.2).
const MAX_SHORT_EXTENSION_BYTES: usize = 16;

#[derive(Debug)]
pub(super) struct DependencyDescriptorSerializer;

impl ExtensionSerializer for DependencyDescriptorSerializer {
    fn write_to(&self, buf: &mut [u8], values: &ExtensionValues) -> usize {
        let Some(DependencyDescriptor(bytes)) = values.user_values.get() else { return 0 };
        let Some(room) = buf.get_mut(..bytes.len()) else { return 0 };
        room.copy_from_slice(bytes);
        bytes.len()
    }

    fn parse_value(&self, bytes: &[u8], values: &mut ExtensionValues) -> bool {
        let usable = !bytes.is_empty() && bytes.len() <= MAX_EXTENSION_BYTES;
        if usable {
            values.user_values.set(DependencyDescriptor(bytes.into()));
        }
        usable
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, values: &ExtensionValues) -> bool {
        values.user_values.get::<DependencyDescriptor>().is_some_and(|d| d.0.len() > MAX_SHORT_EXTENSION_BYTES)
    }
}
