use super::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A job with the clock it lives by.
struct Watched {
    now: Instant,
    leave: DelayedLeave,
}

impl Watched {
    /// Delegated by a participant that is in the call, and restarted at that moment.
    fn present(delay: Duration) -> Watched {
        let now = Instant::now();
        Watched { now, leave: DelayedLeave::delegated(now, delay, Some(now), true) }
    }

    fn absent(delay: Duration) -> Watched {
        let now = Instant::now();
        Watched { now, leave: DelayedLeave::delegated(now, delay, Some(now), false) }
    }

    fn left(mut self, reason: LeaveReason) -> Watched {
        self.leave.left(self.now, reason);
        self
    }

    fn request(&mut self) -> Option<Request> {
        match self.leave.step(self.now) {
            Step::Ask { request, .. } => Some(request),
            _ => None,
        }
    }

    /// Lets time pass until something is to be done; how long that took. Panics when nothing ever is.
    fn next(&mut self) -> (Duration, Step) {
        let start = self.now;
        loop {
            match self.leave.step(self.now) {
                Step::Wait(until) => self.now = until.expect("something is due"),
                step => return (self.now - start, step),
            }
        }
    }

    /// Makes the request that is due.
    fn ask(&mut self) -> Request {
        let request = self.request().expect("a request is due");
        self.leave.asked(self.now, request);
        request
    }

    fn answered(&mut self, answer: Answer) -> Step {
        self.leave.answered(self.now, answer)
    }
}

fn request(step: Step) -> Option<Request> {
    match step {
        Step::Ask { request, .. } => Some(request),
        _ => None,
    }
}

#[test]
fn whoever_leaves_is_reported_after_the_grace_of_its_reason() {
    for (reason, grace_s) in [
        (LeaveReason::ClientInitiated, 3),
        (LeaveReason::ConnectionTimeout, 3),
        (LeaveReason::StateMismatch, 10),
        (LeaveReason::Removed, 0),
        (LeaveReason::RoomDeleted, 0),
        (LeaveReason::JoinTimeout, 60),
        (LeaveReason::SignalClosed, 60),
        (LeaveReason::DuplicateIdentity, 60),
        (LeaveReason::ServerFault, 60),
    ] {
        let (waited, step) = Watched::present(HOUR).left(reason).next();
        assert_eq!((waited.as_secs(), request(step)), (grace_s, Some(Request::Send)), "{reason:?}");

        let mut back = Watched::present(HOUR).left(reason);
        if grace_s > 0 {
            back.now += SECOND * grace_s as u32 - Duration::from_millis(1);
            back.leave.joined();
            assert_eq!(request(back.next().1), Some(Request::Restart), "{reason:?}: back in time");
        }
    }
}

#[test]
fn our_shutdown_leaves_the_delay_running() {
    let mut gone = Watched::present(10 * SECOND).left(LeaveReason::ServerShutdown);
    gone.now += 10 * HOUR;
    assert_eq!(gone.leave.step(gone.now), Step::Wait(None));
    gone.leave.joined();
    assert_eq!(gone.leave.step(gone.now), Step::Wait(None), "the last word of this process");
}

#[test]
fn a_delay_is_restarted_at_four_fifths_and_earlier_when_it_is_short() {
    for (delay_s, restart_s) in [(3600, 2880), (60, 48), (50, 40), (30, 20), (18, 9), (10, 5), (5, 2)] {
        let (waited, step) = Watched::present(delay_s * SECOND).next();
        assert_eq!((waited.as_secs(), request(step)), (restart_s, Some(Request::Restart)), "{delay_s} s");
    }
    let (waited, _) = Watched::present(Duration::MAX).next();
    assert!(waited < LONGEST_DELAY);
}

#[test]
fn a_restart_counts_from_when_it_was_asked_for() {
    let mut job = Watched::present(HOUR);
    job.next();
    job.ask();
    job.now += 4 * SECOND;
    job.answered(Answer::Done);
    assert_eq!(job.next().0, HOUR.mul_f64(0.8) - 4 * SECOND);
}

#[test]
fn who_never_comes_is_reported_when_the_delay_or_an_hour_is_over() {
    for (delay, wait) in [(18 * SECOND, 18 * SECOND), (HOUR, HOUR), (20 * HOUR, HOUR)] {
        let mut job = Watched::absent(delay);
        let start = job.now;
        while job.next().1 != (Step::Ask { request: Request::Send, by: job.now + LEAVE_WITHIN }) {
            assert_eq!(job.ask(), Request::Restart, "kept alive while we wait");
            job.answered(Answer::Done);
        }
        assert_eq!(job.now - start, wait);
    }
}

#[test]
fn after_our_restart_the_delay_is_restarted_at_once_and_its_participant_waited_for() {
    let now = Instant::now();
    let mut job = Watched { now, leave: DelayedLeave::reloaded(now, 10 * SECOND) };
    let mut restarts = 0;
    while job.request() != Some(Request::Send) {
        if job.request().is_some() {
            assert_eq!(job.ask(), Request::Restart);
            job.answered(Answer::Done);
            restarts += 1;
        }
        job.next();
    }
    assert_eq!((job.now - now, restarts), (COME_BACK_GRACE, 12), "at once, then every 5 s");

    let mut back = Watched { now, leave: DelayedLeave::reloaded(now, HOUR) };
    assert_eq!(back.ask(), Request::Restart);
    back.answered(Answer::Done);
    back.now += COME_BACK_GRACE - SECOND;
    back.leave.joined();
    assert_eq!(
        back.next(),
        (HOUR.mul_f64(0.8) - COME_BACK_GRACE + SECOND, Step::Ask { request: Request::Restart, by: now + HOUR })
    );
}

#[test]
fn never_two_requests_at_a_time() {
    let mut job = Watched::present(10 * SECOND);
    job.next();
    assert_eq!(job.ask(), Request::Restart);
    job.leave.left(job.now, LeaveReason::Removed);
    assert_eq!(job.leave.step(job.now), Step::Wait(None), "the leave waits for the restart's answer");
    assert_eq!(request(job.answered(Answer::Failed)), Some(Request::Send), "and does not wait any longer");
}

#[test]
fn what_an_answer_means() {
    use Answer::{Done, Failed, Gone, Limited, Refused};
    for (asked, answer, ends) in [
        (Request::Restart, Done, None),
        (Request::Restart, Gone, Some(End::Gone)),
        (Request::Restart, Refused, Some(End::Refused)),
        (Request::Restart, Failed, None),
        (Request::Restart, Limited(SECOND), None),
        (Request::Send, Done, Some(End::Sent)),
        (Request::Send, Gone, Some(End::Gone)),
        (Request::Send, Refused, Some(End::Refused)),
        (Request::Send, Failed, None),
        (Request::Send, Limited(SECOND), None),
    ] {
        let mut job = Watched::present(HOUR);
        if asked == Request::Send {
            job.leave.left(job.now, LeaveReason::Removed);
        }
        job.next();
        assert_eq!(job.ask(), asked);
        let step = job.answered(answer);
        assert_eq!(matches!(step, Step::Forget(_)).then_some(step), ends.map(Step::Forget), "{asked:?} {answer:?}");
        if ends.is_none() && answer != Done {
            let (waited, step) = job.next();
            assert_eq!((waited, request(step)), (SECOND, Some(asked)), "once more");
        }
    }
}

#[test]
fn failures_are_repeated_ever_more_slowly() {
    let mut job = Watched::present(24 * HOUR);
    job.next();
    let mut waits = Vec::new();
    for _ in 0..14 {
        job.ask();
        job.answered(Answer::Failed);
        waits.push(job.next().0);
    }
    assert_eq!(waits[..3], [SECOND, SECOND.mul_f64(1.5), SECOND.mul_f64(2.25)]);
    assert_eq!(waits[13], LONGEST_RETRY);
    job.ask();
    job.answered(Answer::Done);
    job.next();
    job.ask();
    job.answered(Answer::Failed);
    assert_eq!(job.next().0, SECOND, "a success makes it quick again");
}

#[test]
fn sending_ends_when_the_delay_has_run_out_by_itself() {
    for (delay, passed, tries_for) in [
        (HOUR, Duration::ZERO, HOUR),
        (HOUR, HOUR / 2, HOUR / 2),
        (10 * SECOND, Duration::ZERO, 10 * SECOND),
        (24 * HOUR, Duration::ZERO, HOUR),
    ] {
        let mut job = Watched::present(delay);
        job.now += passed;
        job.leave.left(job.now, LeaveReason::Removed);
        let start = job.now;
        loop {
            match job.next().1 {
                Step::Ask { request, .. } => {
                    assert_eq!(job.ask(), request);
                    job.answered(Answer::Failed);
                }
                step => {
                    assert_eq!((step, job.now - start), (Step::Forget(End::RanOut), tries_for));
                    break;
                }
            }
        }
    }
}

#[test]
fn a_limit_of_the_homeserver_is_kept_to_by_whatever_comes_next() {
    let mut job = Watched::present(HOUR);
    job.next();
    job.ask();
    job.answered(Answer::Limited(30 * SECOND));
    job.leave.left(job.now, LeaveReason::Removed);
    assert_eq!(job.next().0, 30 * SECOND);
    assert_eq!(job.ask(), Request::Send);
}

#[test]
fn who_comes_back_before_the_leave_was_sent_stays() {
    let mut job = Watched::present(HOUR).left(LeaveReason::ClientInitiated);
    job.next();
    assert_eq!(job.ask(), Request::Send);
    job.answered(Answer::Failed);
    job.leave.joined();
    let (waited, step) = job.next();
    assert_eq!((waited, request(step)), (HOUR.mul_f64(0.8) - RECONNECT_GRACE, Some(Request::Restart)));
}
