//! How the path to the client is, as its receiver reports tell (RFC 3550 §6.4.1): for clients that send no transport-wide
//! feedback, and for the time a retransmission takes.

use std::time::Duration;

use crate::rtp::ntp::NtpTime;
use crate::rtp::rtcp::ReportBlock;

/// The newest round trip counts for one in this many.
const ROUND_TRIP_SHARE: u32 = 4;
/// A longer one is a report's mistake, or a lie.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(10);
/// What a report adds to the loss fades by this with each later one: about ten reports count.
const FADE: f32 = 0.9;
/// More packets between two reports than any stream has: the numbers jumped.
const MAX_EXPECTED: u32 = 10_000;

#[derive(Debug, Default)]
pub struct Quality {
    round_trip: Option<Duration>,
    expected: f32,
    lost: f32,
}

impl Quality {
    /// A block of a report; gives the round trip it tells. `before`: the highest sequence number of the block before it, about
    /// the same stream.
    pub fn report(&mut self, now: NtpTime, block: &ReportBlock, before: Option<u32>) -> Option<Duration> {
        let expected = before.map_or(0, |before| block.highest_sequence.wrapping_sub(before));
        if (1..=MAX_EXPECTED).contains(&expected) {
            let expected = expected as f32;
            self.expected = self.expected * FADE + expected;
            self.lost = self.lost * FADE + expected * f32::from(block.fraction_lost) / 256.0;
        }
        let measured = round_trip(now, block)?;
        let smoothed =
            self.round_trip.map_or(measured, |old| (old * (ROUND_TRIP_SHARE - 1) + measured) / ROUND_TRIP_SHARE);
        self.round_trip = Some(smoothed);
        Some(measured)
    }

    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// 0.0..=1.0.
    pub fn loss(&self) -> f32 {
        if self.expected > 0.0 { self.lost / self.expected } else { 0.0 }
    }
}

fn round_trip(now: NtpTime, block: &ReportBlock) -> Option<Duration> {
    if block.last_sender_report == 0 {
        return None;
    }
    let units = now.middle().wrapping_sub(block.last_sender_report).wrapping_sub(block.delay);
    // Less than nothing, by the rounding of three clocks.
    let units = if (units as i32) < 0 { 0 } else { units };
    let round_trip = Duration::from_micros(u64::from(units) * 1_000_000 / 65_536);
    (round_trip <= MAX_ROUND_TRIP).then_some(round_trip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> NtpTime {
        NtpTime::from_unix(Duration::from_millis(1_700_000_000_000 + millis))
    }

    fn block(reported: u64, held_back: u64) -> ReportBlock {
        ReportBlock {
            last_sender_report: at(reported).middle(),
            delay: (held_back * 65_536 / 1000) as u32,
            ..ReportBlock::default()
        }
    }

    #[test]
    fn tells_the_round_trip_without_the_delay() {
        let mut quality = Quality::default();
        assert_eq!(quality.report(at(0), &ReportBlock::default(), None), None, "no sender report arrived yet");
        let measured = quality.report(at(1000), &block(0, 920), None).unwrap();
        assert!(measured.abs_diff(Duration::from_millis(80)) < Duration::from_millis(1), "{measured:?}");
        assert_eq!(quality.round_trip(), Some(measured));
        assert_eq!(quality.report(at(1000), &block(0, 1001), None), Some(Duration::ZERO), "rounding");
        assert_eq!(quality.report(at(60_000), &block(0, 0), None), None, "nonsense");
    }

    #[test]
    fn losses_count_by_the_packets_of_their_stream() {
        let mut quality = Quality::default();
        assert_eq!(quality.loss(), 0.0);
        let lossy = ReportBlock { highest_sequence: 1100, fraction_lost: 128, ..ReportBlock::default() };
        let fine = ReportBlock { highest_sequence: 1300, ..ReportBlock::default() };
        quality.report(at(0), &lossy, Some(1000));
        assert_eq!(quality.loss(), 0.5);
        quality.report(at(0), &fine, Some(1000));
        let loss = quality.loss();
        assert!((0.10..0.13).contains(&loss), "{loss}");
        quality.report(at(0), &ReportBlock { fraction_lost: 255, ..fine }, Some(u32::MAX / 2));
        assert_eq!(quality.loss(), loss, "a jump tells nothing");
    }
}
