//! What a client tells the server about what came: receiver reports, transport-wide feedback, NACKs, at the rates of a browser.
//! Without it a server that estimates bandwidth would slow down.

use std::time::{Duration, Instant};

use parlour::rtp::rtcp;

use super::client::Client;
use super::worker::{Shared, ms};
use crate::wire::twcc;

/// libwebrtc's interval for video.
const REPORT_INTERVAL: Duration = ms(1000);
/// Blocks that one report can count (RFC 3550 §6.4.2).
const REPORT_BLOCKS: usize = 31;
/// libwebrtc sends it every 50 to 250 ms, by the rate.
const TWCC_INTERVAL: Duration = ms(100);
/// A packet that is only late gets this long before it is asked for.
const NACK_DELAY: Duration = ms(10);
/// How often missing packets and keyframes are looked after while there are any.
const REPAIR_INTERVAL: Duration = ms(20);

pub(super) struct Feedback {
    /// Our SSRC as a receiver. str0m's own RTCP has another, so no SRTCP nonce is used twice.
    ssrc: u32,
    /// The number of the transport-wide sequence number extension.
    pub extension: Option<u8>,
    pub arrivals: twcc::Feedback,
    report_due: Option<Instant>,
    twcc_due: Option<Instant>,
    repair_due: Option<Instant>,
    /// What the timer is set to.
    scheduled: Option<Instant>,
}

impl Feedback {
    pub fn new(ssrc: u32) -> Feedback {
        Feedback {
            ssrc,
            extension: None,
            arrivals: twcc::Feedback::default(),
            report_due: None,
            twcc_due: None,
            repair_due: None,
            scheduled: None,
        }
    }

    /// Something is missing.
    pub fn repair_soon(&mut self, now: Instant) {
        self.repair_due.get_or_insert(now + NACK_DELAY);
    }

    /// When the timer must be set, unless it is set to that or earlier already.
    pub fn next(&mut self, now: Instant, receiving: bool) -> Option<Instant> {
        if receiving {
            self.report_due.get_or_insert(now + REPORT_INTERVAL);
            if self.extension.is_some() {
                self.twcc_due.get_or_insert(now + TWCC_INTERVAL);
            }
        }
        let due = [self.report_due, self.twcc_due, self.repair_due].into_iter().flatten().min()?;
        if self.scheduled.is_some_and(|at| at <= due) {
            return None;
        }
        self.scheduled = Some(due);
        Some(due)
    }
}

impl Client {
    pub(super) fn send_feedback(&mut self, shared: &mut Shared, now: Instant) {
        // An earlier timer than this one may have done its work.
        if self.feedback.scheduled.is_some_and(|at| at > now) {
            return;
        }
        self.feedback.scheduled = None;
        let due = |at: &mut Option<Instant>, again: Option<Duration>| {
            let is = at.is_some_and(|at| at <= now);
            if is {
                *at = again.map(|interval| now + interval);
            }
            is
        };
        let mut compound = Vec::new();
        let ssrc = self.feedback.ssrc;
        if due(&mut self.feedback.report_due, Some(REPORT_INTERVAL)) {
            let blocks: Vec<_> = self.streams.iter_mut().filter_map(|stream| stream.report_block(now)).collect();
            for blocks in blocks.chunks(REPORT_BLOCKS) {
                rtcp::write_receiver_report(&mut compound, ssrc, blocks);
            }
        }
        if due(&mut self.feedback.twcc_due, Some(TWCC_INTERVAL)) {
            let media = self.streams.first().map_or(0, |stream| stream.ssrc);
            self.feedback.arrivals.write(&mut compound, ssrc, media);
        }
        if due(&mut self.feedback.repair_due, None) {
            let mut missing = false;
            for stream in self.streams.iter_mut().filter(|stream| stream.video) {
                if stream.continuity.give_up(now) > 0 {
                    stream.break_picture(now);
                }
                let wanted = stream.continuity.nacks(now);
                shared.window.nacks_sent += wanted.len() as u64;
                rtcp::write_nack(&mut compound, ssrc, stream.ssrc, wanted);
                if stream.asks_keyframe(now) {
                    shared.window.broken_pictures += 1;
                    rtcp::write_picture_loss(&mut compound, ssrc, stream.ssrc);
                }
                missing |= !stream.continuity.is_complete() || stream.keyframe_due.is_some();
            }
            if missing {
                self.feedback.repair_due = Some(now + REPAIR_INTERVAL);
            }
        }
        if !compound.is_empty()
            && let (Some(ours), Some(remote)) = (&mut self.ours, self.remote)
            && ours.seal_rtcp(&mut compound).is_ok()
        {
            self.send_to(remote, &compound);
        }
        self.schedule_feedback(shared, now);
    }
}
