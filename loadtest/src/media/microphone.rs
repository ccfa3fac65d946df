//! An Opus encoder's output: 50 packets a second, of a size and a level that go up and down.

use std::time::{Duration, Instant};

use super::Packet;
use super::stamp::Stamp;

/// One Opus packet.
const INTERVAL: Duration = Duration::from_millis(20);
/// 48 kHz.
const TICKS: u32 = 960;
/// The TOC byte (RFC 6716 §3.1).
pub(super) const HEADER_BYTES: usize = 1;
/// CELT, fullband, 20 ms, mono, one frame.
const TOC: u8 = 31 << 3;
/// Bytes of a payload: 32 to 64 kb/s, as browsers send speech.
const SIZES: std::ops::RangeInclusive<usize> = 100..=160;
/// Somebody speaks about a quarter of the time, a second or two at once.
const TALK_SPURT: Duration = Duration::from_millis(1500);
const SPEAKING_ONE_IN: u32 = 4;
/// dBov.
const LOUD: i8 = -20;
const QUIET: i8 = -70;

#[derive(Debug)]
pub struct Microphone {
    random: fastrand::Rng,
    next: Instant,
    sequence: u64,
    timestamp: u32,
    frame: u32,
    speaking: bool,
    spurt_ends: Instant,
}

impl Microphone {
    pub fn new(seed: u64, start: Instant) -> Microphone {
        let mut random = fastrand::Rng::with_seed(seed);
        // Encoders are not in step with each other.
        let phase = INTERVAL.mul_f64(random.f64());
        Microphone {
            next: start + phase,
            sequence: u64::from(random.u16(..1000)),
            timestamp: random.u32(..),
            frame: 0,
            speaking: false,
            spurt_ends: start,
            random,
        }
    }

    pub fn next(&self) -> Instant {
        self.next
    }

    pub fn send(&mut self, now: Instant, unix_nanos: u64, mut each: impl FnMut(Packet)) {
        while self.next <= now {
            if self.spurt_ends <= now {
                self.speaking = self.random.u32(..SPEAKING_ONE_IN) == 0;
                self.spurt_ends = now + TALK_SPURT;
            }
            let mut payload = vec![TOC];
            let stamp = Stamp { sent: unix_nanos, frame: self.frame, part: 0, parts: 1, layer: 0, keyframe: true };
            stamp.write(&mut payload);
            payload.resize(self.random.usize(SIZES), 0x5a);
            let loudness = if self.speaking { LOUD } else { QUIET };
            each(Packet {
                sequence: self.sequence,
                timestamp: self.timestamp,
                marker: false,
                level: Some(loudness + self.random.i8(-5..=5)),
                layer: 0,
                payload,
            });
            self.sequence += 1;
            self.frame += 1;
            self.timestamp = self.timestamp.wrapping_add(TICKS);
            self.next += INTERVAL;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sends_fifty_packets_a_second() {
        let start = Instant::now();
        let mut microphone = Microphone::new(1, start);
        let mut packets = Vec::new();
        for ms in 0..2000 {
            microphone.send(start + Duration::from_millis(ms), 9, |packet| packets.push(packet));
        }
        assert!((99..=100).contains(&packets.len()), "{}", packets.len());
        for pair in packets.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence + 1);
            assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(TICKS));
        }
        assert!(packets.iter().all(|p| SIZES.contains(&p.payload.len())));
        assert_eq!(super::super::stamp::of_audio(&packets[3].payload).unwrap().frame, 3);
    }
}
