//! One stream as a light sink sees it.

use std::time::{Duration, Instant};

use parlour::rtp::rtcp::ReportBlock;

use crate::media::stamp::Stamp;
use crate::sink::{Arrival, Continuity, Window, record};

/// How long libwebrtc waits for a keyframe before it asks for one.
const KEYFRAME_WAIT: Duration = Duration::from_millis(200);

/// What was announced a moment ago may be silent still.
const GRACE: Duration = Duration::from_secs(2);

/// Hz.
const AUDIO_CLOCK: u64 = 48_000;
const VIDEO_CLOCK: u64 = 90_000;

pub(super) struct Stream {
    pub ssrc: u32,
    pub video: bool,
    pub track: String,
    /// Since when a description names it: it should flow.
    pub announced: Option<Instant>,
    pub continuity: Continuity,
    /// Packets since the window began.
    pub in_window: u64,
    last_arrival: Option<Duration>,
    report: Report,
    /// Rollovers of the sender before our first packet.
    pub rollovers_before: u32,
    /// A picture can be shown: a whole keyframe is here, and nothing was lost for good since.
    pub shows: bool,
    /// When to ask for a keyframe, while none is here.
    pub keyframe_due: Option<Instant>,
    /// A keyframe that is coming in: its number, and which packets are here.
    keyframe: Option<(u32, u64)>,
    /// A layer that was asked for, and when.
    pub watched: Option<(u8, Instant)>,
}

/// What receiver reports are made of (RFC 3550 §6.4.1, appendix A.3 and A.8).
#[derive(Default)]
struct Report {
    first: u64,
    received: u64,
    expected_before: u64,
    received_before: u64,
    /// Middle bits of the last sender report, and when it came.
    sender: Option<(u32, Instant)>,
    /// Ticks.
    transit: i64,
    jitter: f64,
}

impl Stream {
    pub fn new(ssrc: u32, video: bool) -> Stream {
        Stream {
            ssrc,
            video,
            track: String::new(),
            announced: None,
            continuity: Continuity::default(),
            in_window: 0,
            last_arrival: None,
            report: Report::default(),
            rollovers_before: 0,
            shows: false,
            keyframe_due: None,
            keyframe: None,
            watched: None,
        }
    }

    /// Counts a media packet. True when it left a gap.
    pub fn receive(&mut self, now: Instant, at: Duration, sequence: u16, timestamp: u32, window: &mut Window) -> bool {
        self.in_window += 1;
        if self.video && !self.shows {
            self.keyframe_due.get_or_insert(now + KEYFRAME_WAIT);
        }
        if let Some(before) = self.last_arrival.replace(at) {
            let pause = at.saturating_sub(before).as_micros() as u64;
            window.longest_pause = window.longest_pause.max(pause);
        }
        let arrival = self.continuity.receive(now, sequence);
        self.report.receive(arrival, self.continuity.highest(), self.clock(), at, timestamp);
        match arrival {
            Arrival::First | Arrival::InOrder => window.expected += 1,
            Arrival::Restarted => {
                window.expected += 1;
                window.restarts += 1;
                self.rollovers_before = 0;
            }
            Arrival::Gap(missing) => {
                window.expected += missing + 1;
                window.lost += missing;
                return true;
            }
            Arrival::Late => window.lost = window.lost.saturating_sub(1),
            Arrival::Repaired(after) => {
                window.recovered += 1;
                record(&mut window.recovery, after.as_micros() as u64);
            }
            Arrival::Duplicate => window.duplicates += 1,
        }
        false
    }

    /// A retransmission of one of our packets came.
    pub fn repair(&mut self, now: Instant, sequence: u16, window: &mut Window) {
        match self.continuity.repair(now, sequence) {
            Some(after) => {
                window.recovered += 1;
                record(&mut window.recovery, after.as_micros() as u64);
            }
            None => window.duplicates += 1,
        }
    }

    /// Ends a window. The pauses of one do not count in the next.
    pub fn end_window(&mut self, now: Instant, window: &mut Window) {
        if self.announced.is_some_and(|since| now.saturating_duration_since(since) > GRACE) {
            window.streams += 1;
            window.silent_streams += u64::from(self.in_window == 0);
        }
        self.in_window = 0;
        self.last_arrival = None;
    }

    /// The index under which `sequence` was encrypted (RFC 3711 §3.3.1).
    pub fn index(&self, sequence: u16) -> u64 {
        self.continuity.extend(sequence) + (u64::from(self.rollovers_before) << 16)
    }

    /// Looks at an opened packet: is it the end of a first keyframe?
    pub fn completes_keyframe(&mut self, stamp: &Stamp) -> bool {
        if !stamp.keyframe {
            return false;
        }
        let here = match self.keyframe {
            Some((frame, here)) if frame == stamp.frame => here,
            _ => 0,
        };
        let here = here | 1 << (stamp.part & 63);
        self.keyframe = Some((stamp.frame, here));
        let complete = here.count_ones() == u32::from(stamp.parts);
        if complete {
            (self.shows, self.keyframe_due) = (true, None);
        }
        complete
    }

    /// Something is lost for good: only a keyframe helps.
    pub fn break_picture(&mut self, now: Instant) {
        (self.shows, self.keyframe) = (false, None);
        self.keyframe_due.get_or_insert(now);
    }

    /// Whether to ask for a keyframe now.
    pub fn asks_keyframe(&mut self, now: Instant) -> bool {
        let due = self.keyframe_due.is_some_and(|at| at <= now);
        if due {
            self.keyframe_due = Some(now + KEYFRAME_WAIT);
        }
        due
    }

    /// Looks at an opened packet: is it of the layer that was asked for?
    pub fn switched(&mut self, now: Instant, stamp: &Stamp) -> Option<Duration> {
        let (layer, since) = self.watched?;
        (layer == stamp.layer).then(|| {
            self.watched = None;
            now.saturating_duration_since(since)
        })
    }

    pub fn sender_report(&mut self, now: Instant, middle: u32) {
        self.report.sender = Some((middle, now));
    }

    pub fn report_block(&mut self, now: Instant) -> Option<ReportBlock> {
        let highest = self.continuity.highest()?;
        Some(self.report.block(self.ssrc, highest, now))
    }

    fn clock(&self) -> u64 {
        if self.video { VIDEO_CLOCK } else { AUDIO_CLOCK }
    }
}

impl Report {
    fn receive(&mut self, arrival: Arrival, highest: Option<u64>, clock: u64, at: Duration, timestamp: u32) {
        if matches!(arrival, Arrival::First | Arrival::Restarted) {
            *self = Report { first: highest.unwrap_or(0), sender: self.sender, ..Report::default() };
        }
        if arrival != Arrival::Duplicate {
            self.received += 1;
        }
        let ticks = at.as_secs() * clock + u64::from(at.subsec_micros()) * clock / 1_000_000;
        let transit = i64::from((ticks as u32).wrapping_sub(timestamp) as i32);
        if self.received > 1 {
            let change = (transit - self.transit).unsigned_abs() as f64;
            self.jitter += (change.min(clock as f64) - self.jitter) / 16.0;
        }
        self.transit = transit;
    }

    fn block(&mut self, ssrc: u32, highest: u64, now: Instant) -> ReportBlock {
        let expected = (highest + 1).saturating_sub(self.first);
        let lost = expected.saturating_sub(self.received).min(0x7f_ffff);
        let expected_now = expected - self.expected_before.min(expected);
        let lost_now = expected_now.saturating_sub(self.received - self.received_before);
        (self.expected_before, self.received_before) = (expected, self.received);
        let (last_sender_report, delay) = match self.sender {
            Some((middle, at)) => (middle, (now.saturating_duration_since(at).as_secs_f64() * 65536.0) as u32),
            None => (0, 0),
        };
        ReportBlock {
            ssrc,
            fraction_lost: (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255) as u8,
            packets_lost: lost as i32,
            highest_sequence: highest as u32,
            jitter: self.jitter as u32,
            last_sender_report,
            delay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_report_tells_of_the_loss_since_the_last() {
        let now = Instant::now();
        let (mut window, mut stream) = (Window::default(), Stream::new(1, true));
        for sequence in (0..100u16).filter(|s| s % 10 != 5) {
            stream.receive(now, at(u64::from(sequence) * 10), sequence, u32::from(sequence) * 900, &mut window);
        }
        let block = stream.report_block(now).unwrap();
        assert_eq!((block.packets_lost, block.highest_sequence, block.jitter), (10, 99, 0));
        assert_eq!(block.fraction_lost, 25);
        stream.receive(now, at(1000), 100, 90_000, &mut window);
        assert_eq!(stream.report_block(now).unwrap().fraction_lost, 0);
        assert_eq!((window.expected, window.lost, window.recovered), (101, 10, 0));
        assert_eq!(window.longest_pause, 20_000);
    }

    #[test]
    fn a_keyframe_is_complete_when_all_its_packets_are_here() {
        let mut stream = Stream::new(1, true);
        let stamp = |part, keyframe| Stamp { sent: 0, frame: 3, part, parts: 3, layer: 0, keyframe };
        assert!(!stream.completes_keyframe(&stamp(0, true)));
        assert!(!stream.completes_keyframe(&stamp(2, true)));
        assert!(!stream.completes_keyframe(&stamp(2, true)));
        assert!(!stream.completes_keyframe(&stamp(0, false)));
        assert!(stream.completes_keyframe(&stamp(1, true)) && stream.shows);
    }

    #[test]
    fn a_keyframe_is_asked_for_until_it_comes() {
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        let (mut window, mut stream) = (Window::default(), Stream::new(1, true));
        assert!(!stream.asks_keyframe(now));
        stream.receive(now, at(0), 1, 0, &mut window);
        assert!(!stream.asks_keyframe(after(199)) && stream.asks_keyframe(after(200)));
        assert!(!stream.asks_keyframe(after(399)) && stream.asks_keyframe(after(400)));
        assert!(stream.completes_keyframe(&Stamp { sent: 0, frame: 1, part: 0, parts: 1, layer: 0, keyframe: true }));
        assert!(!stream.asks_keyframe(after(5000)));
        stream.break_picture(after(5000));
        assert!(stream.asks_keyframe(after(5000)));
    }

    #[test]
    fn a_retransmission_is_recovered_once() {
        let now = Instant::now();
        let (mut window, mut stream) = (Window::default(), Stream::new(1, true));
        stream.receive(now, at(0), 1, 0, &mut window);
        assert!(stream.receive(now, at(1), 3, 0, &mut window));
        stream.repair(now, 2, &mut window);
        stream.repair(now, 2, &mut window);
        assert_eq!((window.lost, window.recovered, window.duplicates), (1, 1, 1));
        assert_eq!(window.loss_after_repair(), 0.0);
    }
}
