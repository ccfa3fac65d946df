//! A VP8 encoder's output: 30 frames a second of one layer or three, with real payload descriptors (RFC 7741) and frame
//! headers (RFC 6386 §9.1), so that a server can find keyframes and switch layers. The picture itself is filler.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Packet;
use super::stamp::{self, Stamp};

/// 30 frames a second; the lowest layer sends as often as the others, as in libwebrtc.
const INTERVAL: Duration = Duration::from_nanos(33_333_333);
/// Hz of the RTP clock.
const CLOCK: u64 = 90_000;
/// Bytes of the descriptor: every optional field, with a two-byte picture id.
const DESCRIPTOR_BYTES: usize = 6;
/// Bytes of a keyframe's header. Other frames have 3, and filler up to here, so that the stamp has one place.
pub(super) const FRAME_HEADER_BYTES: usize = 10;
/// A keyframe has this many times the packets of another frame.
const KEYFRAME_FACTOR: u16 = 4;
/// A paced frame leaves within this part of the interval: libwebrtc's pacer sends at 2.5 times the target rate.
const PACED_SHARE: f64 = 0.4;

/// How the packets of a frame leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pacing {
    /// All at once.
    #[default]
    Burst,
    /// One after the other, over two fifths of the frame's time.
    Paced,
}

/// What one layer is made of.
struct Shape {
    packets: u16,
    bytes: std::ops::RangeInclusive<usize>,
    width: u16,
    height: u16,
}

/// 720p alone: 150 packets a second, about 1.2 Mb/s.
const SINGLE: Shape = Shape { packets: 5, bytes: 900..=1100, width: 1280, height: 720 };
/// 180p, 360p, 720p: 30, 60 and 150 packets a second; 0.12, 0.4 and 1.2 Mb/s.
const SIMULCAST: [Shape; 3] = [
    Shape { packets: 1, bytes: 400..=600, width: 320, height: 180 },
    Shape { packets: 2, bytes: 750..=950, width: 640, height: 360 },
    SINGLE,
];

#[derive(Debug)]
pub struct Camera {
    random: fastrand::Rng,
    pacing: Pacing,
    layers: Vec<Layer>,
    start: Instant,
    /// When the next frame is taken.
    next_frame: Instant,
    /// Packets of the frame before that wait for their time, in order.
    waiting: VecDeque<(Instant, Packet)>,
}

#[derive(Debug)]
struct Layer {
    number: u8,
    sequence: u64,
    timestamp_offset: u32,
    picture_id: u16,
    tl0picidx: u8,
    keyidx: u8,
    frame: u32,
    keyframe_wanted: bool,
    on: bool,
}

impl Camera {
    pub fn new(seed: u64, simulcast: bool, pacing: Pacing, start: Instant) -> Camera {
        let mut random = fastrand::Rng::with_seed(seed);
        let layers = if simulcast { SIMULCAST.len() as u8 } else { 1 };
        let layer = |number| Layer {
            number,
            sequence: u64::from(random.u16(..1000)),
            timestamp_offset: random.u32(..),
            picture_id: random.u16(..0x8000),
            tl0picidx: random.u8(..),
            keyidx: random.u8(..32),
            frame: 0,
            keyframe_wanted: true,
            on: true,
        };
        let layers = (0..layers).map(layer).collect();
        let next_frame = start + INTERVAL.mul_f64(random.f64());
        Camera { random, pacing, layers, start, next_frame, waiting: VecDeque::new() }
    }

    /// The receiver of one layer lost the picture.
    pub fn request_keyframe(&mut self, layer: u8) {
        if let Some(layer) = self.layers.get_mut(usize::from(layer)) {
            layer.keyframe_wanted = true;
        }
    }

    /// A server that nobody asks for a layer lets publishers stop it.
    pub fn enable(&mut self, layer: u8, on: bool) {
        if let Some(layer) = self.layers.get_mut(usize::from(layer)) {
            layer.keyframe_wanted |= on && !layer.on;
            layer.on = on;
        }
    }

    pub fn next(&self) -> Instant {
        self.waiting.front().map_or(self.next_frame, |(at, _)| (*at).min(self.next_frame))
    }

    pub fn send(&mut self, now: Instant, unix_nanos: u64, mut each: impl FnMut(Packet)) {
        while self.next_frame <= now {
            self.take_frame();
            self.next_frame += INTERVAL;
        }
        while self.waiting.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, mut packet)) = self.waiting.pop_front() {
                stamp_with(&mut packet.payload, unix_nanos);
                each(packet);
            }
        }
    }

    fn take_frame(&mut self) {
        let at = self.next_frame;
        let ticks = (at - self.start).as_micros() as u64 * CLOCK / 1_000_000;
        let mut frame = Vec::new();
        let single = self.layers.len() == 1;
        for layer in self.layers.iter_mut().filter(|layer| layer.on) {
            let shape = if single { &SINGLE } else { &SIMULCAST[usize::from(layer.number)] };
            layer.encode(&mut self.random, shape, ticks as u32, &mut frame);
        }
        let step = match self.pacing {
            Pacing::Burst => Duration::ZERO,
            Pacing::Paced => INTERVAL.mul_f64(PACED_SHARE) / frame.len().max(1) as u32,
        };
        self.waiting.extend((0u32..).zip(frame).map(|(place, packet)| (at + step * place, packet)));
    }
}

impl Layer {
    fn encode(&mut self, random: &mut fastrand::Rng, shape: &Shape, ticks: u32, out: &mut Vec<Packet>) {
        let keyframe = std::mem::take(&mut self.keyframe_wanted);
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        self.tl0picidx = self.tl0picidx.wrapping_add(1);
        if keyframe {
            self.keyidx = (self.keyidx + 1) & 0x1f;
        }
        let parts = if keyframe { shape.packets * KEYFRAME_FACTOR } else { shape.packets };
        for part in 0..parts {
            let [id_high, id_low] = (self.picture_id | 0x8000).to_be_bytes();
            // Extended, start of partition 0 in the first packet; picture id, TL0PICIDX, TID, KEYIDX.
            let start = if part == 0 { 0x90 } else { 0x80 };
            let mut payload = vec![start, 0xf0, id_high, id_low, self.tl0picidx, self.keyidx];
            debug_assert_eq!(payload.len(), DESCRIPTOR_BYTES);
            payload.extend(self.frame_header(keyframe, shape));
            let stamp = Stamp { sent: 0, frame: self.frame, part, parts, layer: self.number, keyframe };
            stamp.write(&mut payload);
            payload.resize(random.usize(shape.bytes.clone()), 0xa5);
            out.push(Packet {
                sequence: self.sequence,
                timestamp: self.timestamp_offset.wrapping_add(ticks),
                marker: part + 1 == parts,
                level: None,
                layer: self.number,
                payload,
            });
            self.sequence += 1;
        }
        self.frame += 1;
    }

    fn frame_header(&self, keyframe: bool, shape: &Shape) -> [u8; FRAME_HEADER_BYTES] {
        let [width, height] = [shape.width.to_le_bytes(), shape.height.to_le_bytes()];
        if keyframe {
            [0x10, 2, 0, 0x9d, 0x01, 0x2a, width[0], width[1], height[0], height[1]]
        } else {
            [0x11, 2, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

/// A packet is stamped when it leaves, not when its frame was taken.
fn stamp_with(payload: &mut [u8], unix_nanos: u64) {
    if let Some(stamp) = stamp::of_video(payload) {
        let at = DESCRIPTOR_BYTES + FRAME_HEADER_BYTES;
        let mut bytes = Vec::with_capacity(stamp::BYTES);
        Stamp { sent: unix_nanos, ..stamp }.write(&mut bytes);
        payload[at..at + stamp::BYTES].copy_from_slice(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlour::rtp::vp8::Descriptor;

    fn packets(camera: &mut Camera, from: Instant, ms: u64) -> Vec<Packet> {
        let mut packets = Vec::new();
        for ms in 0..ms {
            camera.send(from + Duration::from_millis(ms), 5, |packet| packets.push(packet));
        }
        packets
    }

    #[test]
    fn a_camera_sends_what_it_says() {
        let start = Instant::now();
        let mut camera = Camera::new(3, false, Pacing::Burst, start);
        let packets = packets(&mut camera, start, 10_000);
        // 300 frames of 5, the first of them a keyframe of 20.
        assert!((1505..=1520).contains(&packets.len()), "{}", packets.len());
        let bits = packets.iter().map(|p| p.payload.len() as f64 * 8.0).sum::<f64>() / 10.0;
        assert!((1.1e6..1.3e6).contains(&bits), "{bits}");
        let keyframes = packets.iter().filter(|p| stamp::of_video(&p.payload).unwrap().keyframe).count();
        assert_eq!(keyframes, 20);
        assert!(packets.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1));
        assert_eq!(
            packets.iter().filter(|p| p.marker).count(),
            packets.iter().filter(|p| p.payload[0] == 0x90).count()
        );
    }

    #[test]
    fn a_requested_keyframe_is_the_next_frame_of_that_layer_alone() {
        let start = Instant::now();
        let mut camera = Camera::new(3, true, Pacing::Burst, start);
        packets(&mut camera, start, 100);
        camera.request_keyframe(2);
        let next = packets(&mut camera, start + Duration::from_millis(100), 50);
        let keyed = |layer| next.iter().any(|p| p.layer == layer && stamp::of_video(&p.payload).unwrap().keyframe);
        assert!(keyed(2) && !keyed(0) && !keyed(1));
    }

    #[test]
    fn paced_frames_spread_out_and_lose_nothing() {
        let start = Instant::now();
        let seconds = |pacing| packets(&mut Camera::new(3, true, pacing, start), start, 2000).len();
        assert!(seconds(Pacing::Burst).abs_diff(seconds(Pacing::Paced)) <= 8);
        let mut camera = Camera::new(3, false, Pacing::Paced, start);
        packets(&mut camera, start, 100);
        camera.send(camera.next(), 5, |packet| assert!(!packet.marker, "the frame is not over at once"));
    }

    #[test]
    fn a_disabled_layer_is_silent_and_comes_back_with_a_keyframe() {
        let start = Instant::now();
        let mut camera = Camera::new(3, true, Pacing::Burst, start);
        packets(&mut camera, start, 100);
        camera.enable(1, false);
        assert!(packets(&mut camera, start + Duration::from_millis(100), 100).iter().all(|p| p.layer != 1));
        camera.enable(1, true);
        let next = packets(&mut camera, start + Duration::from_millis(200), 50);
        assert!(stamp::of_video(&next.iter().find(|p| p.layer == 1).unwrap().payload).unwrap().keyframe);
    }

    #[test]
    fn the_server_finds_the_keyframes() {
        let start = Instant::now();
        let mut camera = Camera::new(3, false, Pacing::Burst, start);
        let sent = packets(&mut camera, start, 100);
        let read = |p: &Packet| (Descriptor::parse(&p.payload).unwrap(), p.payload.clone());
        let keyframes: Vec<_> = sent.iter().map(read).filter(|(d, payload)| d.starts_key_frame(payload)).collect();
        assert_eq!(keyframes.len(), 1);
        assert_eq!(keyframes[0].0.dimensions(&keyframes[0].1), Some((1280, 720)));
        assert_eq!(
            sent.iter().map(read).filter(|(d, _)| d.starts_frame()).count(),
            sent.iter().filter(|p| p.marker).count()
        );
    }
}
