//! Transport-wide feedback: when each packet of the connection arrived
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01). Servers estimate our downlink from it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rtcp::{begin_feedback, finish};

const FORMAT: u8 = 15;
/// One step of a delta.
const TICK: Duration = Duration::from_micros(250);
/// Ticks of the reference time: 64 ms.
const REFERENCE_TICKS: i64 = 256;
/// Packets that one report may cover; the rest waits for the next. libwebrtc stops at the size of a packet, too.
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
            None => u64::from(number) + (1 << 16),
            Some(_) => extend(self.highest, number),
        };
        // One that comes after its report stays reported as lost: reaching back would report its neighbours as lost.
        if extended < *self.next.get_or_insert(extended) {
            return;
        }
        self.highest = self.highest.max(extended);
        self.arrivals.entry(extended).or_insert((at.as_micros() / TICK.as_micros()) as i64);
    }

    /// Appends a report on what came since the last one. Nothing when nothing came.
    pub fn write(&mut self, out: &mut Vec<u8>, sender: u32, media: u32) {
        let (Some(base), Some((&last, _))) = (self.next, self.arrivals.last_key_value()) else { return };
        let end = (last + 1).min(base + MOST_PACKETS);
        let later = self.arrivals.split_off(&end);
        let arrivals = std::mem::replace(&mut self.arrivals, later);
        self.next = Some(end);
        let Some(first) = arrivals.values().next() else { return };

        let reference = first.div_euclid(REFERENCE_TICKS);
        let mut clock = reference * REFERENCE_TICKS;
        let mut symbols = Vec::with_capacity((end - base) as usize);
        let mut deltas = Vec::new();
        for number in base..end {
            let Some(at) = arrivals.get(&number) else {
                symbols.push(0);
                continue;
            };
            let delta = at - clock;
            match (u8::try_from(delta), i16::try_from(delta)) {
                (Ok(small), _) => {
                    symbols.push(1);
                    deltas.push(small);
                }
                (_, Ok(large)) => {
                    symbols.push(2);
                    deltas.extend(large.to_be_bytes());
                }
                // More than eight seconds apart: as good as lost.
                _ => {
                    symbols.push(0);
                    continue;
                }
            }
            clock = *at;
        }

        let start = begin_feedback(out, FORMAT, sender, media);
        out.extend((base as u16).to_be_bytes());
        out.extend(((end - base) as u16).to_be_bytes());
        out.extend(&(reference as u32).to_be_bytes()[1..]);
        out.push(self.count);
        self.count = self.count.wrapping_add(1);
        write_chunks(out, &symbols);
        out.extend(deltas);
        let padding = (4 - (out.len() - start) % 4) % 4;
        if padding > 0 {
            out.extend(std::iter::repeat_n(0, padding - 1));
            out.push(padding as u8);
            out[start] |= 0x20;
        }
        finish(out, start);
    }
}

/// Runs of equal symbols where they pay, else vectors of seven two-bit symbols.
fn write_chunks(out: &mut Vec<u8>, symbols: &[u8]) {
    const VECTOR: usize = 7;
    const LONGEST_RUN: usize = 0x1fff;
    let mut rest = symbols;
    while let Some(first) = rest.first() {
        let run = rest.iter().take_while(|symbol| *symbol == first).take(LONGEST_RUN).count();
        let (chunk, used) = if run >= VECTOR {
            (u16::from(*first) << 13 | run as u16, run)
        } else {
            let used = rest.len().min(VECTOR);
            let vector = rest[..used].iter().zip(0..).map(|(symbol, place)| u16::from(*symbol) << (12 - 2 * place));
            (0xc000 | vector.sum::<u16>(), used)
        };
        out.extend(chunk.to_be_bytes());
        rest = &rest[used..];
    }
}

/// The number nearest to `reference` whose low 16 bits are `number`.
fn extend(reference: u64, number: u16) -> u64 {
    let ahead = number.wrapping_sub(reference as u16) as i16;
    reference.saturating_add_signed(i64::from(ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_report_says_what_came_and_when() {
        let mut feedback = Feedback::default();
        // 65535, 0 lost, 1 a millisecond later, 2 a second later.
        feedback.arrived(65_535, ms(128));
        feedback.arrived(1, ms(129));
        feedback.arrived(2, ms(1129));
        let mut out = Vec::new();
        feedback.write(&mut out, 1, 2);
        let expected: Vec<u8> = [
            &[0xaf, 205, 0, 6][..],
            &[0, 0, 0, 1, 0, 0, 0, 2],
            &[0xff, 0xff, 0, 4],
            &[0, 0, 2, 0],
            // Received, lost, received, received with a large delta.
            &[0b1101_0001, 0b1000_0000],
            &[0, 4, 0x0f, 0xa0],
            &[0, 2],
        ]
        .concat();
        assert_eq!(out, expected);
        // Nothing new, nothing to say.
        out.clear();
        feedback.write(&mut out, 1, 2);
        assert!(out.is_empty());
    }

    #[test]
    fn losses_between_reports_are_reported_once() {
        let mut feedback = Feedback::default();
        let mut out = Vec::new();
        feedback.arrived(10, ms(1));
        feedback.write(&mut out, 1, 2);
        out.clear();
        feedback.arrived(13, ms(2));
        feedback.write(&mut out, 1, 2);
        assert_eq!(&out[12..16], [0, 11, 0, 3], "from 11 on, three packets");
        assert_eq!(out[19], 1, "the second report");
    }

    #[test]
    fn a_long_run_is_one_chunk() {
        let mut feedback = Feedback::default();
        for number in 0..100 {
            feedback.arrived(number, ms(0));
        }
        let mut out = Vec::new();
        feedback.write(&mut out, 1, 2);
        assert_eq!(&out[20..22], (1u16 << 13 | 100).to_be_bytes());
        assert_eq!(out.len() % 4, 0);
    }

    #[test]
    fn a_report_is_read_by_another_implementation() {
        let mut feedback = Feedback::default();
        let came = |n: &u16| n % 7 != 3 && !(20..45).contains(n);
        for number in (0..59u16).filter(came) {
            feedback.arrived(number, ms(u64::from(number) * 3 + 64));
        }
        let mut out = Vec::new();
        feedback.write(&mut out, 1, 2);
        let twcc = str0m::rtp::rtcp::Twcc::try_from(&out[4..]).unwrap();
        let zero = std::time::Instant::now();
        let read: Vec<_> =
            twcc.into_iter(zero, 0.into()).map(|(n, _, at)| (*n as u16, at.map(|at| at - zero))).collect();
        let sent: Vec<_> = (0..59).map(|n| (n, came(&n).then(|| ms(u64::from(n) * 3 + 64)))).collect();
        assert_eq!(read, sent);
    }
}
