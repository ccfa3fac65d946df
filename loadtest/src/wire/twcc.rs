//! Collects when each packet of a connection arrived, for transport-wide feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01). Servers estimate our downlink from it.

use std::collections::BTreeMap;
use std::time::Duration;

use parlour::rtp::sequence::extend_sequence;
use parlour::rtp::twcc::{self, Heading, TICKS_PER_SECOND};

const TICK_MICROS: i64 = 1_000_000 / TICKS_PER_SECOND;
/// Ticks of the reference time: 64 ms.
const REFERENCE_TICKS: i64 = TICKS_PER_SECOND * 64 / 1000;
/// Packets that one report may cover; the rest waits for the next. A few hundred fill a datagram.
const MOST_PACKETS: u64 = 400;

/// Collects arrivals between two reports.
#[derive(Debug, Default)]
pub struct Feedback {
    /// By extended number; the value is the arrival in ticks.
    arrivals: BTreeMap<u64, i64>,
    /// First number of the next report.
    next: Option<u64>,
    highest: u64,
    count: u8,
}

impl Feedback {
    /// `at` is the arrival on any clock that only grows.
    pub fn arrived(&mut self, number: u16, at: Duration) {
        let extended = match self.next {
            None => u64::from(number),
            Some(_) => extend_sequence(self.highest, number),
        };
        // One that comes after its report stays reported as lost: reaching back would report its neighbours as lost.
        if extended < *self.next.get_or_insert(extended) {
            return;
        }
        self.highest = self.highest.max(extended);
        let ticks = at.as_secs() as i64 * TICKS_PER_SECOND + i64::from(at.subsec_micros()) / TICK_MICROS;
        self.arrivals.entry(extended).or_insert(ticks);
    }

    /// Appends a report on what came since the last one. Nothing when nothing came.
    pub fn write(&mut self, out: &mut Vec<u8>, sender: u32, media: u32) {
        let (Some(base), Some((&last, _))) = (self.next, self.arrivals.last_key_value()) else { return };
        let end = (last + 1).min(base + MOST_PACKETS);
        let Some((_, first)) = self.arrivals.range(..end).next() else {
            // A hole longer than a report: what lies in it was lost.
            self.next = Some(end);
            return;
        };
        let reference = first.div_euclid(REFERENCE_TICKS);
        let arrivals: Vec<Option<i64>> =
            (base..end).map(|number| self.arrivals.get(&number).map(|at| at - reference * REFERENCE_TICKS)).collect();
        let heading = Heading {
            sender,
            media,
            base_sequence: base as u16,
            reference_time: reference as u32 & 0xff_ffff,
            feedback_count: self.count,
        };
        let written = twcc::write(out, &heading, &arrivals) as u64;
        self.count = self.count.wrapping_add(1);
        // At least one: an arrival that fits into no report must not block the next.
        let reported = base + written.max(1);
        self.arrivals = self.arrivals.split_off(&reported);
        self.next = Some(reported);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Reads a report with str0m: numbers and arrivals.
    fn read(report: &[u8]) -> Vec<(u16, Option<Duration>)> {
        let twcc = str0m::rtp::rtcp::Twcc::try_from(&report[4..]).unwrap();
        let zero = std::time::Instant::now();
        twcc.into_iter(zero, 0.into()).map(|(number, _, at)| (*number as u16, at.map(|at| at - zero))).collect()
    }

    #[test]
    fn a_report_says_what_came_and_when() {
        let mut feedback = Feedback::default();
        let came = |n: &u16| n % 7 != 3 && !(20..45).contains(n);
        for number in (0..59u16).filter(came) {
            feedback.arrived(number, ms(u64::from(number) * 3 + 64));
        }
        let mut out = Vec::new();
        feedback.write(&mut out, 1, 2);
        let sent: Vec<_> = (0..59).map(|n| (n, came(&n).then(|| ms(u64::from(n) * 3 + 64)))).collect();
        assert_eq!(read(&out), sent);
        // Nothing new, nothing to say.
        out.clear();
        feedback.write(&mut out, 1, 2);
        assert!(out.is_empty());
    }

    #[test]
    fn losses_between_reports_are_reported_once() {
        let mut feedback = Feedback::default();
        let mut out = Vec::new();
        feedback.arrived(10, ms(64));
        feedback.write(&mut out, 1, 2);
        out.clear();
        feedback.arrived(13, ms(65));
        // Too late: its report is on its way.
        feedback.arrived(9, ms(66));
        feedback.write(&mut out, 1, 2);
        assert_eq!(read(&out), [(11, None), (12, None), (13, Some(ms(65)))]);
    }

    #[test]
    fn a_long_silence_goes_into_several_reports() {
        let mut feedback = Feedback::default();
        feedback.arrived(1, ms(64));
        feedback.arrived(1000, ms(65));
        feedback.arrived(1001, ms(20_000));
        let mut reported = Vec::new();
        for _ in 0..6 {
            let mut out = Vec::new();
            feedback.write(&mut out, 1, 2);
            if !out.is_empty() {
                reported.extend(read(&out).into_iter().filter(|(_, at)| at.is_some()).map(|(number, _)| number));
            }
        }
        assert_eq!(reported, [1, 1000, 1001]);
    }
}
