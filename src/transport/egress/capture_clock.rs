//! When the frames of one stream were captured, by our clock: what its sender reports tell the receiver, who plays streams of
//! one publisher together by it (RFC 3550 §6.4.1).
//!
//! Arrival alone would do, but packets of a large frame arrive late and pictures take longer ways than sound. The publisher's
//! own reports say when a frame was captured, by its clock; how far that is from ours shows in the packets that took the
//! shortest way.

use std::time::{Duration, Instant};

use crate::transport::OutgoingPacket;

/// The shortest way may become longer by this per frame: follows clocks that drift apart (500 ppm at 50 frames a second).
const DRIFT_MICROS: i64 = 10;
/// A frame this late is no late frame: the publisher's reports changed.
const MAX_LATE_MICROS: i64 = 2_000_000;

#[derive(Debug, Default)]
pub struct CaptureClock {
    /// The newest frame: its timestamp and when it was captured.
    newest: Option<(u32, Instant)>,
    /// From the publisher's clock to ours, in microseconds, on the shortest way seen.
    offset: Option<i64>,
}

impl CaptureClock {
    /// A packet goes out. `epoch`: any moment, the same for all packets.
    pub fn observe(&mut self, epoch: Instant, packet: &OutgoingPacket<'_>) {
        let is_newer = self.newest.is_none_or(|(newest, _)| packet.timestamp.wrapping_sub(newest) as i32 > 0);
        if !is_newer {
            return;
        }
        let late = packet.sender_time.map_or(0, |captured| self.lateness(epoch, packet.arrival, captured));
        let captured = packet.arrival.checked_sub(Duration::from_micros(late)).unwrap_or(packet.arrival);
        self.newest = Some((packet.timestamp, captured));
    }

    /// Microseconds by which a frame's way was longer than the shortest.
    fn lateness(&mut self, epoch: Instant, arrival: Instant, captured: Duration) -> u64 {
        let arrival = arrival.saturating_duration_since(epoch).as_micros() as i64;
        let distance = arrival.wrapping_sub(captured.as_micros() as i64);
        let offset = self.offset.map_or(distance, |offset| distance.min(offset + DRIFT_MICROS));
        let offset = if distance.abs_diff(offset) > MAX_LATE_MICROS as u64 { distance } else { offset };
        self.offset = Some(offset);
        distance.abs_diff(offset)
    }

    /// The timestamp of a frame captured at `at`, in ticks of a clock of `rate` Hz. `None` before the first packet.
    pub fn timestamp_at(&self, at: Instant, rate: u32) -> Option<u32> {
        let (timestamp, captured) = self.newest?;
        let since = at.saturating_duration_since(captured);
        let ticks = since.as_secs() * u64::from(rate) + u64::from(since.subsec_micros()) * u64::from(rate) / 1_000_000;
        Some(timestamp.wrapping_add(ticks as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::Rewrite;
    use crate::transport::{Extensions, Origin};

    const RATE: u32 = 90_000;
    const PUBLISHER_EPOCH: Duration = Duration::from_secs(1_700_000_000);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A frame captured `captured` after the start that took `way` to us.
    fn observe(clock: &mut CaptureClock, start: Instant, captured: Duration, way: Duration, reported: bool) {
        clock.observe(
            start,
            &OutgoingPacket {
                sequence: 0,
                timestamp: 5_000 + (captured.as_millis() as u32) * 90,
                marker: true,
                codec: crate::sfu::Codec::Vp8,
                payload: &[],
                rewrite: Rewrite::None,
                dependency: None,
                extensions: &Extensions::default(),
                arrival: start + captured + way,
                sender_time: reported.then_some(PUBLISHER_EPOCH + captured),
                origin: Origin { layer: 0, sequence: 0 },
            },
        );
    }

    #[test]
    fn late_frames_do_not_move_the_clock() {
        let start = Instant::now();
        let mut clock = CaptureClock::default();
        assert_eq!(clock.timestamp_at(start, RATE), None);
        for frame in 0..100u64 {
            // Every tenth takes 80 ms, the others between 20 and 24.
            let way = if frame % 10 == 9 { ms(80) } else { ms(20 + frame % 5) };
            observe(&mut clock, start, ms(frame * 33), way, true);
            let told = clock.timestamp_at(start + ms(frame * 33) + ms(100), RATE).unwrap();
            let captured_then = f64::from(told - 5_000) / 90.0;
            // The shortest way is part of the truth that nobody can see.
            let error = captured_then - (frame * 33 + 100 - 20) as f64;
            assert!(error.abs() < 1.0, "frame {frame} is {error} ms off");
        }
    }

    #[test]
    fn without_reports_arrival_counts() {
        let start = Instant::now();
        let mut clock = CaptureClock::default();
        observe(&mut clock, start, ms(0), ms(50), false);
        assert_eq!(clock.timestamp_at(start + ms(150), RATE), Some(5_000 + 100 * 90));
    }

    #[test]
    fn a_publishers_new_clock_is_taken_over() {
        let start = Instant::now();
        let mut clock = CaptureClock::default();
        observe(&mut clock, start, ms(0), ms(20), true);
        clock.offset = Some(clock.offset.unwrap() - 3_600_000_000);
        observe(&mut clock, start, ms(33), ms(20), true);
        assert_eq!(clock.timestamp_at(start + ms(53), RATE), Some(5_000 + 33 * 90));
    }
}
