//! The mixer: packets of those who are in a call, whatever they hold.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parlour::mixer::{AudioPacket, FRAME, ListenerId, Mixer, Start, TICK};
use parlour::sfu::Codec;

/// Steps: what to do, two numbers, a length, and so many bytes of payload. Each listener's stream has no seam, whatever the
/// sources send; what is sent has the size that was asked for.
pub fn mixer(data: &[u8]) {
    conversation(data);
}

/// Gives how many packets were of use.
pub fn conversation(data: &[u8]) -> usize {
    let mut now = Instant::now();
    let mut mixer = Mixer::new(now, 2);
    let listeners = [(); 2].map(|()| mixer.add_listener(Start { sequence: u16::MAX, timestamp: u32::MAX }));
    let mut sources = [mixer.add_source(Some(listeners[0])), mixer.add_source(None), mixer.add_source(None)];
    let mut heard: HashMap<ListenerId, (u16, u32)> = HashMap::new();
    let (mut sequence, mut timestamp, mut taken) = (1u64 << 20, 0u32, 0);
    let mut rest = data;
    while let Some((&[what, first, second, len], after)) = rest.split_first_chunk() {
        let (payload, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        let source = usize::from(what >> 4) % sources.len();
        match what & 15 {
            0 => now += TICK * u32::from(first),
            1 => {
                mixer.remove_source(sources[source]);
                sources[source] = mixer.add_source(listeners.get(usize::from(first)).copied());
            }
            2 => mixer.set_loss(listeners[source % 2], f32::from(first) / 255.0),
            3 => sequence = sequence.wrapping_add_signed(i64::from(first as i8) << (second & 63)),
            4 => timestamp = timestamp.wrapping_add_signed(i32::from(first as i8) << (second & 31)),
            codec => {
                let codecs = [Codec::Opus, Codec::Opus, Codec::Red, Codec::Pcmu, Codec::Pcma, Codec::Vp8];
                sequence = sequence.saturating_add(1);
                timestamp = timestamp.wrapping_add(u32::from(second) * 120);
                let packet = AudioPacket {
                    codec: codecs[usize::from(codec) % codecs.len()],
                    sequence,
                    restarted: first == 0xff,
                    timestamp,
                    payload: payload.into(),
                    level: (first < 0xf0).then_some(first),
                    arrival: now - Duration::from_millis((second & 15).into()),
                };
                taken += usize::from(mixer.push(sources[source], &packet));
                now += if first & 1 == 0 { TICK } else { Duration::ZERO };
            }
        }
        mixer.tick(now, |to, packet| {
            assert!((1..=400).contains(&packet.payload.len()), "{} bytes", packet.payload.len());
            let last = heard.insert(to, (packet.sequence, packet.timestamp));
            if let Some((sequence, timestamp)) = last {
                assert_eq!(packet.sequence, sequence.wrapping_add(1));
                let passed = packet.timestamp.wrapping_sub(timestamp);
                assert!(passed > 0 && passed.is_multiple_of(FRAME as u32), "{passed}");
            }
        });
    }
    taken
}
