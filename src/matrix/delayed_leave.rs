//! One delayed leave that a client has handed over to us. PURE: the time comes in, what to ask of the homeserver goes out.
//!
//! A client that joins a call leaves an event with its homeserver that says "I have left", to be sent after a delay
//! (MSC4140), and delegates it to us (MSC4195). While the participant is in the SFU we restart the delay; when it is gone
//! we have the event sent at once. So a browser that crashes is out of the Matrix room as soon as it is out of the call, and
//! if we crash too, the homeserver sends the event by itself.
//!
//! ```text
//!  delegated, we restarted ──▶ Out ◀── left, each reason with its grace ── In
//!                               │ ────────────── joined ───────────────────▶│
//!                    too long   ▼               joined                      │
//!                            Sending ──────────────────────────────────────▶│
//! ```
//!
//! A lost connection that resumes, or an ICE restart, never gets here: the SFU does not report that anybody left. Driven by
//! `delayed_leaves`.

use std::time::{Duration, Instant};

use crate::sfu::LeaveReason;

/// What is left of a delay when it is restarted, for retries and for those before us in the queue: a fifth (MSC4195)…
const LEAST_MARGIN: f64 = 0.2;
/// …of short ones more, so that a request may time out and be made again, but never above half.
const TIME_TO_RETRY: Duration = Duration::from_secs(10);

/// Delays beyond it are restarted as if they were this long, so that a number from a client cannot overflow a time.
pub const LONGEST_DELAY: Duration = Duration::from_secs(24 * 3600);

/// Who has delegated may take this long until it joins, or its delay if that is shorter (MSC4195).
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// livekit-client's full reconnect is an orderly leave and a new join right after it.
const RECONNECT_GRACE: Duration = Duration::from_secs(3);

/// We have told the client to start over. Its first try comes at once, the next ones within seconds.
const START_OVER_GRACE: Duration = Duration::from_secs(10);

/// It is through no doing of the participant that it is away: media did not connect and it tries another way, a newer session
/// takes over, or we had a fault. livekit-client's attempts to come back go on for three quarters of a minute.
pub const COME_BACK_GRACE: Duration = Duration::from_secs(60);

/// After a failed request, growing by half each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// No homeserver can mean to be left alone for longer.
pub const LONGEST_LIMIT: Duration = Duration::from_secs(3600);

/// How long to try to have an event sent whose delay should have run out.
const LEAST_SENDING: Duration = Duration::from_secs(1);
const MOST_SENDING: Duration = Duration::from_secs(3600);

/// Others in the room should see within this that somebody is gone; decides who goes first when many wait.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct DelayedLeave {
    delay: Duration,
    /// The earliest and the latest moment at which the homeserver sends the event by itself, if we do nothing.
    runs_out: (Instant, Instant),
    stage: Stage,
    /// The request under way and when it was made. Never more than one.
    under_way: Option<(Request, Instant)>,
    /// The homeserver wants to be left alone until then.
    limited_until: Option<Instant>,
    /// The last request failed; the next one then.
    retry_at: Option<Instant>,
    /// How long to wait after the next failure.
    retry: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// In the call, at least with its signalling.
    In,
    /// Not there, and may still come.
    Out { until: Instant },
    /// Gone for good.
    Sending { since: Instant, give_up: Instant },
    /// We are shutting down: the delay is left running, and the next process takes over.
    Stopped,
}

/// What is asked of the homeserver (MSC4140).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Lets the delay run anew from its start.
    Restart,
    /// Sends the event now.
    Send,
}

impl Request {
    /// As MSC4140 and the metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Request::Restart => "restart",
            Request::Send => "send",
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// There is no such delayed event any more: it was sent, cancelled, or overwritten by somebody.
    Gone,
    /// We may not do this, now or later.
    Refused,
    /// Asked too often; not again before this has passed.
    Limited(Duration),
    /// No answer, or none that makes sense.
    Failed,
}

impl Answer {
    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Answer::Done => "done",
            Answer::Gone => "gone",
            Answer::Refused => "refused",
            Answer::Limited(_) => "limited",
            Answer::Failed => "failed",
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make the request and call [`DelayedLeave::asked`]; `by` is when it should be done, the earliest goes first.
    Ask {
        request: Request,
        by: Instant,
    },
    /// Nothing before then; `None`: nothing until an answer or the participant comes.
    Wait(Option<Instant>),
    Forget(End),
}

/// Why a delayed leave is no longer ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Sent,
    Gone,
    Refused,
    /// It could not be sent; the homeserver does it when the delay runs out.
    RanOut,
}

impl End {
    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            End::Sent => "sent",
            End::Gone => "gone",
            End::Refused => "refused",
            End::RanOut => "ran-out",
        }
    }
}

impl DelayedLeave {
    /// Just delegated. `restarted_at`: when we had the delay restarted to see whether we can; `is_in`: the participant is in
    /// the call already.
    pub fn delegated(now: Instant, delay: Duration, restarted_at: Option<Instant>, is_in: bool) -> DelayedLeave {
        let delay = delay.min(LONGEST_DELAY);
        let stage = if is_in { Stage::In } else { Stage::Out { until: now + delay.min(LONGEST_WAIT) } };
        // Without a restart of ours, the client may have handed it over with its delay spent.
        let runs_out = (restarted_at.map_or(now, |at| at + delay), now + delay);
        DelayedLeave {
            delay,
            runs_out,
            stage,
            under_way: None,
            limited_until: None,
            retry_at: None,
            retry: FIRST_RETRY,
        }
    }

    /// Out of the store: our process has started anew, and everybody has lost the connection.
    pub fn reloaded(now: Instant, delay: Duration) -> DelayedLeave {
        let stage = Stage::Out { until: now + COME_BACK_GRACE };
        DelayedLeave { stage, ..DelayedLeave::delegated(now, delay, None, false) }
    }

    /// The participant has come, or come back.
    pub fn joined(&mut self) {
        if self.stage != Stage::Stopped {
            self.enter(Stage::In);
        }
    }

    /// Its last session has ended.
    pub fn left(&mut self, now: Instant, reason: LeaveReason) {
        let grace = match reason {
            LeaveReason::ServerShutdown => {
                self.stage = Stage::Stopped;
                return;
            }
            // Somebody wants it out.
            LeaveReason::Removed | LeaveReason::RoomDeleted => Duration::ZERO,
            // Silent for a quarter of a minute, and without signalling: its last chance was in that time.
            LeaveReason::ClientInitiated | LeaveReason::ConnectionTimeout => RECONNECT_GRACE,
            LeaveReason::StateMismatch => START_OVER_GRACE,
            LeaveReason::JoinTimeout
            | LeaveReason::SignalClosed
            | LeaveReason::DuplicateIdentity
            | LeaveReason::ServerFault => COME_BACK_GRACE,
        };
        if self.stage == Stage::In {
            self.stage = Stage::Out { until: now + grace };
        }
    }

    /// What to do at this moment.
    pub fn step(&mut self, now: Instant) -> Step {
        if let Stage::Out { until } = self.stage
            && until <= now
        {
            let remaining = self.runs_out.1.saturating_duration_since(now);
            let give_up = now + remaining.clamp(LEAST_SENDING, MOST_SENDING);
            self.enter(Stage::Sending { since: now, give_up });
        }
        if self.under_way.is_some() {
            // Its answer decides; only the end of the grace could come before.
            return Step::Wait(self.grace_ends());
        }
        let (request, due, by) = match self.stage {
            Stage::Stopped => return Step::Wait(None),
            Stage::Sending { give_up, .. } if give_up <= now => return Step::Forget(End::RanOut),
            Stage::Sending { since, .. } => (Request::Send, since, since + LEAVE_WITHIN),
            Stage::In | Stage::Out { .. } => {
                let by = self.runs_out.0;
                (Request::Restart, by.checked_sub(self.margin()).unwrap_or(by), by)
            }
        };
        let due = [self.limited_until, self.retry_at].into_iter().flatten().fold(due, Instant::max);
        if due <= now {
            return Step::Ask { request, by };
        }
        let give_up = match self.stage {
            Stage::Sending { give_up, .. } => Some(give_up),
            _ => self.grace_ends(),
        };
        Step::Wait(Some(give_up.map_or(due, |end| end.min(due))))
    }

    /// The request of the last [`Step::Ask`] was made.
    pub fn asked(&mut self, now: Instant, request: Request) {
        self.under_way = Some((request, now));
    }

    /// What became of the request under way; returns what follows.
    pub fn answered(&mut self, now: Instant, answer: Answer) -> Step {
        let Some((request, asked_at)) = self.under_way.take() else { return self.step(now) };
        (self.limited_until, self.retry_at) = (None, None);
        match (answer, request) {
            (Answer::Done, Request::Send) => return Step::Forget(End::Sent),
            (Answer::Gone, _) => return Step::Forget(End::Gone),
            (Answer::Refused, _) => return Step::Forget(End::Refused),
            (Answer::Done, Request::Restart) => {
                self.runs_out = (asked_at + self.delay, now + self.delay);
                self.retry = FIRST_RETRY;
            }
            (Answer::Limited(wait), _) => self.limited_until = Some(now + wait.min(LONGEST_LIMIT)),
            // What it asked for has changed meanwhile.
            (Answer::Failed, failed) if (failed == Request::Send) != matches!(self.stage, Stage::Sending { .. }) => {}
            (Answer::Failed, _) => {
                self.retry_at = Some(now + self.retry);
                self.retry = self.retry.mul_f64(1.5).min(LONGEST_RETRY);
            }
        }
        self.step(now)
    }

    /// What failed in another stage says nothing of the requests of this one; a limit of the homeserver's goes on.
    fn enter(&mut self, stage: Stage) {
        if self.stage != stage {
            self.stage = stage;
            (self.retry_at, self.retry) = (None, FIRST_RETRY);
        }
    }

    fn margin(&self) -> Duration {
        self.delay.mul_f64(LEAST_MARGIN).max(TIME_TO_RETRY.min(self.delay / 2))
    }

    fn grace_ends(&self) -> Option<Instant> {
        match self.stage {
            Stage::Out { until } => Some(until),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
