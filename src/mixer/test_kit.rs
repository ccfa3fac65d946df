//! Voices that speak a tone, and ears that hear which tones are in what they are sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opus::{Application, Bitrate, Channels};

use super::{AudioPacket, FRAME, MixedPacket, SAMPLE_RATE};
use crate::sfu::Codec;

/// The amplitude of a tone within `pcm`. Exact for frequencies with a whole number of periods in it.
pub fn goertzel(pcm: &[f32], hz: f32) -> f32 {
    let turn = std::f64::consts::TAU * f64::from(hz) / f64::from(SAMPLE_RATE);
    let (mut last, mut before) = (0.0f64, 0.0f64);
    for sample in pcm {
        (last, before) = (f64::from(*sample) + 2.0 * turn.cos() * last - before, last);
    }
    let power = last * last + before * before - 2.0 * turn.cos() * last * before;
    (power.max(0.0).sqrt() * 2.0 / pcm.len() as f64) as f32
}

pub fn db(ratio: f32) -> f32 {
    20.0 * ratio.max(1e-9).log10()
}

/// The amplitude of the tone in each 20 ms.
pub fn levels(pcm: &[f32], hz: f32) -> Vec<f32> {
    pcm.chunks_exact(FRAME).map(|frame| goertzel(frame, hz)).collect()
}

/// One who sings a tone.
#[derive(Debug)]
pub struct Voice {
    encoder: opus::Encoder,
    pub hz: f32,
    pub amplitude: f32,
    levelled: bool,
    pub sequence: u64,
    pub timestamp: u32,
    samples: u64,
    speaking: bool,
}

impl Voice {
    pub fn new(hz: f32, amplitude: f32) -> Self {
        let mut encoder = opus::Encoder::new(SAMPLE_RATE, Channels::Mono, Application::Voip).unwrap();
        encoder.set_bitrate(Bitrate::Bits(64_000)).unwrap();
        encoder.set_complexity(5).unwrap();
        Voice {
            encoder,
            hz,
            amplitude,
            levelled: true,
            sequence: 70_000,
            timestamp: u32::MAX - 96_000,
            samples: 0,
            speaking: false,
        }
    }

    /// Whether it writes levels on its packets.
    pub fn levelled(self, levelled: bool) -> Self {
        Voice { levelled, ..self }
    }

    /// Repeats each frame in the packet after it, at a rate at which browsers do.
    pub fn protected(mut self) -> Self {
        self.encoder.set_bitrate(Bitrate::Bits(32_000)).unwrap();
        self.encoder.set_inband_fec(true).unwrap();
        self.encoder.set_packet_loss_perc(20).unwrap();
        self
    }

    /// Each packet can be understood without the one before it.
    pub fn independent(mut self) -> Self {
        self.encoder.set_application(Application::LowDelay).unwrap();
        self.encoder.set_prediction_disabled(true).unwrap();
        self
    }

    /// With overtones and syllables, so that the encoder takes it for speech.
    pub fn speaking(mut self) -> Self {
        self.speaking = true;
        self
    }

    pub fn next(&mut self, arrival: Instant) -> AudioPacket {
        let turn = std::f64::consts::TAU * f64::from(self.hz) / f64::from(SAMPLE_RATE);
        let overtones = if self.speaking { 6 } else { 1 };
        let sample = |n: u64| {
            let tones = (1..=overtones).map(|k| (n as f64 * turn * f64::from(k)).sin() / f64::from(k));
            let syllable = if self.speaking { 0.6 + 0.4 * (n as f64 / 2000.0).sin() } else { 1.0 };
            (tones.sum::<f64>() * syllable) as f32 * self.amplitude
        };
        let pcm: Vec<f32> = (self.samples..).take(FRAME).map(sample).collect();
        self.samples += FRAME as u64;
        let payload = self.encoder.encode_vec_float(&pcm, 1500).unwrap();
        let level = -db(self.amplitude / std::f32::consts::SQRT_2);
        let packet = AudioPacket {
            codec: Codec::Opus,
            sequence: self.sequence,
            restarted: false,
            timestamp: self.timestamp,
            payload: Arc::from(payload),
            level: self.levelled.then_some(level.min(127.0) as u8),
            arrival,
        };
        self.sequence += 1;
        self.timestamp = self.timestamp.wrapping_add(FRAME as u32);
        packet
    }

    /// Silence that is not sent.
    pub fn pause(&mut self, frames: u32) {
        self.samples += u64::from(frames) * FRAME as u64;
        self.timestamp = self.timestamp.wrapping_add(frames * FRAME as u32);
    }
}

/// One who listens, and checks that what comes is one stream.
#[derive(Debug)]
pub struct Ear {
    decoder: opus::Decoder,
    last: Option<(u16, u32)>,
    pub pcm: Vec<f32>,
    /// The last packet's payload.
    pub payload: Vec<u8>,
}

impl Ear {
    pub fn new() -> Self {
        let decoder = opus::Decoder::new(SAMPLE_RATE, Channels::Mono).unwrap();
        Ear { decoder, last: None, pcm: Vec::new(), payload: Vec::new() }
    }

    pub fn hear(&mut self, packet: MixedPacket<'_>) {
        if let Some((sequence, timestamp)) = self.last {
            assert_eq!(packet.sequence, sequence.wrapping_add(1));
            assert_eq!(packet.timestamp, timestamp.wrapping_add(FRAME as u32));
        }
        assert_eq!(packet.marker, self.last.is_none());
        self.last = Some((packet.sequence, packet.timestamp));
        self.payload = packet.payload.to_vec();
        let mut pcm = [0.0; FRAME];
        assert_eq!(self.decoder.decode_float(packet.payload, &mut pcm, false).unwrap(), FRAME);
        self.pcm.extend_from_slice(&pcm);
    }

    /// The last `frames`.
    pub fn recent(&self, frames: usize) -> &[f32] {
        &self.pcm[self.pcm.len() - frames * FRAME..]
    }
}

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
