//! What a client's microphone and camera send: Opus-like packets with a level, and VP8-like simulcast with real RFC 7741
//! descriptors. Every packet carries a stamp that tells the oracle which frame of which layer it is.

use std::time::{Duration, Instant};

use str0m::media::{Mid, Pt, Rid};
use str0m::rtp::{ExtensionValues, RtpWrite};
use str0m::{Rtc, rtp};

/// One Opus packet.
pub const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
/// 20 frames a second: as good as 30 for finding mistakes, and quicker to run.
pub const VIDEO_INTERVAL: Duration = Duration::from_millis(50);

pub const LAYERS: [&str; 3] = ["q", "h", "f"];
const LAYER_PACKETS: [u8; 3] = [1, 2, 3];
const LAYER_PACKET_BYTES: [usize; 3] = [300, 700, 1100];
/// A keyframe is larger than the frames after it.
const KEYFRAME_FACTOR: u8 = 3;

const AUDIO_MAGIC: &[u8] = b"aud";
const VIDEO_MAGIC: &[u8] = b"vid";
/// Bytes of a VP8 key frame's header (RFC 6386 §9.1); frames between have a stamp at the same place.
const VP8_HEADER_BYTES: usize = 10;

/// What the sender wrote into a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    pub publisher: u8,
    pub layer: u8,
    pub frame: u32,
    pub part: u8,
    pub parts: u8,
    pub key: bool,
}

impl Stamp {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend([self.publisher, self.layer]);
        bytes.extend(self.frame.to_be_bytes());
        bytes.extend([self.part, self.parts, u8::from(self.key)]);
    }

    fn read(bytes: &[u8]) -> Option<Stamp> {
        let &[publisher, layer, a, b, c, d, part, parts, key, ..] = bytes else { return None };
        Some(Stamp { publisher, layer, frame: u32::from_be_bytes([a, b, c, d]), part, parts, key: key != 0 })
    }
}

/// The numbers of a VP8 payload descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp8Numbers {
    pub start: bool,
    pub picture_id: u16,
    pub tl0picidx: u8,
    pub keyidx: u8,
}

/// Reads a packet back. The descriptor always has all fields, so their places are fixed.
pub fn read_video(payload: &[u8]) -> Option<(Vp8Numbers, Stamp)> {
    let &[first, flags, high, low, tl0picidx, tid_keyidx, ..] = payload else { return None };
    if first & 0x80 == 0 || flags != 0xf0 || high & 0x80 == 0 {
        return None;
    }
    let numbers = Vp8Numbers {
        start: first & 0x10 != 0,
        picture_id: u16::from_be_bytes([high & 0x7f, low]),
        tl0picidx,
        keyidx: tid_keyidx & 0x1f,
    };
    let frame = payload.get(6 + VP8_HEADER_BYTES..)?.strip_prefix(VIDEO_MAGIC)?;
    Some((numbers, Stamp::read(frame)?))
}

pub fn read_audio(payload: &[u8]) -> Option<Stamp> {
    Stamp::read(payload.strip_prefix(AUDIO_MAGIC)?)
}

/// A packet, whichever implementation of RTP sends it.
pub struct Written {
    pub rid: Option<&'static str>,
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Vec<u8>,
}

pub struct Microphone {
    publisher: u8,
    sequence: u64,
    timestamp: u32,
    frame: u32,
    /// dBov, 0 = loudest, -127 = silence.
    pub level: i8,
    pub next: Instant,
}

impl Microphone {
    pub fn new(publisher: u8, level: i8, at: Instant) -> Microphone {
        Microphone {
            publisher,
            sequence: 1000 + u64::from(publisher) * 17,
            timestamp: 77_000 + u32::from(publisher) * 1_000_003,
            frame: 0,
            level,
            next: at,
        }
    }

    /// What was not sent in time is not sent at all; the clock goes on.
    pub fn skip_to(&mut self, now: Instant) {
        while self.next < now {
            self.next += AUDIO_INTERVAL;
            self.timestamp = self.timestamp.wrapping_add(960);
        }
    }

    pub fn send(&mut self, rtc: &mut Rtc, mid: Mid, pt: u8, now: Instant, muted: bool) {
        let Some(written) = self.write(muted) else { return };
        let extensions = ExtensionValues {
            audio_level: Some(self.level),
            voice_activity: Some(self.level > -40),
            ..Default::default()
        };
        let mut api = rtc.direct_api();
        if let Some(stream) = api.stream_tx_by_mid(mid, None) {
            let Written { sequence, timestamp, payload, .. } = written;
            let packet = RtpWrite::new(Pt::new_with_value(pt), sequence.into(), timestamp, now, payload);
            stream.write_rtp(packet.ext_vals(extensions));
        }
    }

    /// The next packet.
    pub fn write(&mut self, muted: bool) -> Option<Written> {
        self.next += AUDIO_INTERVAL;
        self.timestamp = self.timestamp.wrapping_add(960);
        if muted {
            return None;
        }
        let mut payload = AUDIO_MAGIC.to_vec();
        Stamp { publisher: self.publisher, layer: 0, frame: self.frame, part: 0, parts: 1, key: true }
            .write(&mut payload);
        payload.resize(80, 0x55);
        self.frame += 1;
        self.sequence += 1;
        Some(Written { rid: None, sequence: self.sequence, timestamp: self.timestamp, marker: false, payload })
    }
}

pub struct Camera {
    publisher: u8,
    layers: Vec<Encoder>,
    pub next: Instant,
    start: Instant,
}

struct Encoder {
    rid: Option<&'static str>,
    layer: u8,
    sequence: u64,
    timestamp_offset: u32,
    picture_id: u16,
    tl0picidx: u8,
    keyidx: u8,
    frame: u32,
    wants_keyframe: bool,
    /// Packets of a frame between keyframes.
    packets: u8,
    /// A browser stops a layer it has no bandwidth for.
    on: bool,
    /// Somebody wants it.
    wanted: bool,
}

impl Camera {
    pub fn new(publisher: u8, simulcast: bool, at: Instant) -> Camera {
        let rids: Vec<Option<&'static str>> = if simulcast { LAYERS.map(Some).to_vec() } else { vec![None] };
        let layers = (0u8..).zip(rids).map(|(layer, rid)| {
            let salt = u32::from(publisher) * 3 + u32::from(layer) + 1;
            Encoder {
                rid,
                layer,
                // Close to the wrap, which must not show.
                sequence: 65_500 - u64::from(salt) * 7,
                timestamp_offset: salt.wrapping_mul(0x9e37_79b9),
                picture_id: (32_700 + salt * 5) as u16 & 0x7fff,
                tl0picidx: (250 + salt) as u8,
                keyidx: salt as u8 & 0x1f,
                frame: 0,
                wants_keyframe: true,
                packets: LAYER_PACKETS[usize::from(layer)],
                on: true,
                wanted: true,
            }
        });
        Camera { publisher, layers: layers.collect(), next: at, start: at }
    }

    /// Frames of so many small packets.
    pub fn set_packets(&mut self, packets: u8) {
        for encoder in &mut self.layers {
            encoder.packets = packets;
        }
    }

    /// One layer, or the only one, goes on as a new stream: another SSRC, other numbers, a keyframe first.
    pub fn replace_stream(&mut self, rtc: &mut Rtc, mid: Mid, layer: u8) {
        let encoder = &mut self.layers[usize::from(layer)];
        let mut api = rtc.direct_api();
        let (ssrc, rtx) = (api.new_ssrc(), api.new_ssrc());
        api.reset_stream_tx(mid, encoder.rid.map(Rid::from), ssrc, Some(rtx)).expect("a stream");
        encoder.sequence = 40;
        encoder.timestamp_offset = encoder.timestamp_offset.wrapping_mul(7);
        encoder.wants_keyframe = true;
    }

    /// Off and on again by the browser's own decision.
    pub fn set_layer(&mut self, layer: u8, on: bool) {
        let encoder = &mut self.layers[usize::from(layer)];
        encoder.wants_keyframe |= on && !encoder.on;
        encoder.on = on;
    }

    /// Only layers up to this one are wanted; `None`: none at all. An encoder that begins again begins with a keyframe.
    pub fn set_highest(&mut self, highest: Option<u8>) {
        for encoder in &mut self.layers {
            let wanted = Some(encoder.layer) <= highest;
            encoder.wants_keyframe |= wanted && !encoder.wanted;
            encoder.wanted = wanted;
        }
    }

    pub fn request_keyframe(&mut self, rid: Option<Rid>) {
        for encoder in &mut self.layers {
            if rid.is_none() || encoder.rid == rid.as_deref() {
                encoder.wants_keyframe = true;
            }
        }
    }

    pub fn send(&mut self, rtc: &mut Rtc, mid: Mid, pt: u8, now: Instant, muted: bool) {
        let mut api = rtc.direct_api();
        for written in self.write(now, muted) {
            let stream: Option<&mut rtp::StreamTx> = api.stream_tx_by_mid(mid, written.rid.map(Rid::from));
            if let Some(stream) = stream {
                let Written { sequence, timestamp, marker, payload, .. } = written;
                let packet = RtpWrite::new(Pt::new_with_value(pt), sequence.into(), timestamp, now, payload);
                stream.write_rtp(packet.marker(marker).nackable(true));
            }
        }
    }

    /// The next frame of every layer.
    pub fn write(&mut self, now: Instant, muted: bool) -> Vec<Written> {
        let elapsed = now.saturating_duration_since(self.start);
        self.next += VIDEO_INTERVAL;
        let ticks = (elapsed.as_micros() * 90 / 1000) as u32;
        let live = self.layers.iter_mut().filter(|e| e.on && e.wanted && !muted);
        live.flat_map(|encoder| encoder.write(self.publisher, ticks)).collect()
    }
}

impl Encoder {
    fn write(&mut self, publisher: u8, ticks: u32) -> Vec<Written> {
        let mut frame = Vec::new();
        let key = std::mem::take(&mut self.wants_keyframe);
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        self.tl0picidx = self.tl0picidx.wrapping_add(1);
        if key {
            self.keyidx = (self.keyidx + 1) & 0x1f;
        }
        let parts = if key { self.packets.saturating_mul(KEYFRAME_FACTOR) } else { self.packets };
        for part in 0..parts {
            let mut payload = vec![0x80 | if part == 0 { 0x10 } else { 0 }, 0xf0];
            payload.extend((self.picture_id | 0x8000).to_be_bytes());
            payload.extend([self.tl0picidx, 0x20 | self.keyidx]);
            payload.extend(if key {
                [0x10, 2, 0, 0x9d, 0x01, 0x2a, 64, 1, 180, 0]
            } else {
                [0x11, 2, 0, 0, 0, 0, 0, 0, 0, 0]
            });
            payload.extend(VIDEO_MAGIC);
            Stamp { publisher, layer: self.layer, frame: self.frame, part, parts, key }.write(&mut payload);
            payload.resize(LAYER_PACKET_BYTES[usize::from(self.layer)], 0xaa);
            self.sequence += 1;
            frame.push(Written {
                rid: self.rid,
                sequence: self.sequence,
                timestamp: self.timestamp_offset.wrapping_add(ticks),
                marker: part + 1 == parts,
                payload,
            });
        }
        self.frame += 1;
        frame
    }
}
