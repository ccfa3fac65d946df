//! Sync responses, repeats, and what was there before we were started.

use super::*;

fn batch(bench: &mut Bench, events: &[(&str, &str, Kind)]) -> Vec<Out> {
    let events = events.iter().map(|(sender, party, kind)| bench.event(sender, envelope("c", party), kind.clone()));
    let events = events.collect();
    bench.hear_batch(events)
}

#[test]
fn what_is_over_within_a_batch_begins_nothing() {
    let reject = Kind::Reject(Reason::UserHangup);
    for (sender, party, closing) in
        [(ALICE, "alice1", hangup()), (BOT, "OTHER", answer()), (BOT, "OTHER", reject), (BOT, "OTHER", hangup())]
    {
        let mut bench = Bench::new();
        let outs = batch(&mut bench, &[(ALICE, "alice1", invite()), (sender, party, closing.clone())]);
        assert_eq!(outs, [verdict(Verdict::Missed)], "{closing:?}");
    }
    let mut bench = Bench::new();
    let outs =
        batch(&mut bench, &[(ALICE, "alice1", invite()), (ALICE, "alice1", Kind::Candidates(vec![candidate(1)]))]);
    assert!(matches!(outs[..], [Asked(..)]), "that closes nothing");
}

#[test]
fn a_hangup_that_is_decrypted_first() {
    for (sender, party) in [(ALICE, "alice1"), (BOT, "OTHER")] {
        let mut bench = Bench::new();
        assert_eq!(batch(&mut bench, &[(sender, party, hangup())]), []);
        assert_eq!(batch(&mut bench, &[(ALICE, "alice1", invite())]), []);
        assert_eq!(bench.ignored(Ignored::EndedCall), 1);
    }
}

#[test]
fn a_replayed_invitation_is_answered_once() {
    let mut bench = Bench::new();
    let event = bench.event(ALICE, envelope("c", "alice1"), invite());
    let outs = bench.hear_batch(vec![event.clone(), event.clone()]);
    let [Asked(leg, _)] = outs[..] else { panic!("{outs:?}") };
    assert_eq!(bench.ignored(Ignored::Repeated), 1);
    bench.act(|focus, now| focus.refuse(now, leg, Refusal::Declined));
    assert_eq!(bench.hear_batch(vec![event.clone()]), []);
    bench.wait_s(299);
    assert_eq!(bench.hear_batch(vec![event]), []);
    assert_eq!(bench.ignored(Ignored::EndedCall), 2);
}

#[test]
fn what_a_process_before_us_answered_is_hung_up() {
    let hung_up = [Said(Kind::Hangup(Reason::UnknownError)), verdict(Verdict::Leftover)];
    // All in the first sync response.
    let mut bench = Bench::new();
    let outs =
        batch(&mut bench, &[(ALICE, "alice1", invite()), (BOT, PARTY, answer()), (ALICE, "alice1", select(PARTY))]);
    assert_eq!(outs[0], verdict(Verdict::Missed));
    assert_eq!(outs[1..], hung_up, "once");
    // Without the invitation, and piece by piece.
    let mut bench = Bench::new();
    assert_eq!(batch(&mut bench, &[(BOT, PARTY, answer())]), hung_up);
    assert_eq!(batch(&mut bench, &[(ALICE, "alice1", select(PARTY))]), []);
    let mut bench = Bench::new();
    assert_eq!(batch(&mut bench, &[(ALICE, "alice1", select(PARTY))]), hung_up);
    assert_eq!(batch(&mut bench, &[(BOT, PARTY, answer())]), []);
    // Its end is there, too.
    for (sender, party) in [(ALICE, "alice1"), (BOT, PARTY)] {
        let mut bench = Bench::new();
        let events = [(ALICE, "alice1", invite()), (BOT, PARTY, answer()), (sender, party, hangup())];
        assert_eq!(batch(&mut bench, &events), [verdict(Verdict::Missed)]);
    }
    // A call between others is none of our business.
    let mut bench = Bench::new();
    assert_eq!(batch(&mut bench, &[(ALICE, "alice1", select("bob1"))]), []);
    assert_eq!(batch(&mut bench, &[(ALICE, "alice1", negotiate(true, theirs()))]), []);
}

#[test]
fn an_answer_of_ours_that_turns_up_late_is_of_a_process_before_us() {
    let expected = [Said(Kind::Hangup(Reason::UnknownError)), verdict(Verdict::Leftover)];
    let mut bench = Bench::new();
    bench.asked();
    assert_eq!(batch(&mut bench, &[(BOT, PARTY, answer())]), expected);
    let mut bench = Bench::new();
    bench.asked();
    assert_eq!(batch(&mut bench, &[(ALICE, "alice1", select(PARTY))]), expected);
}

#[test]
fn open_calls_are_hung_up_by_the_next_process() {
    let mut bench = Bench::new();
    assert_eq!(bench.focus.open_calls(), []);
    bench.asked();
    assert_eq!(bench.focus.open_calls(), [], "nobody waits for us yet");
    let leg = bench.focus.leg_ids()[0];
    bench.act(|focus, now| focus.admit(now, leg));
    bench.media_answers(leg, 1, ours());
    bench.focus.ring(bench.now, Ring { user: "@bob:x".into(), ..ring() }).unwrap();
    let open = bench.focus.open_calls();
    let call = OpenCall { room: DM.into(), user: ALICE.into(), call_id: "c".into(), version: Version::V1 };
    assert_eq!(open, std::slice::from_ref(&call), "the other's invitation is not out");
    let stored = serde_json::to_string(&open).unwrap();
    let stored: Vec<OpenCall> = serde_json::from_str(&stored).unwrap();

    let mut bench = Bench::new();
    let hung_up = [Said(Kind::Hangup(Reason::UnknownError)), verdict(Verdict::Leftover)];
    assert_eq!(bench.act(|focus, now| focus.leftover(now, stored[0].clone())), hung_up);
    assert_eq!(bench.act(|focus, now| focus.leftover(now, call)), []);
    let events = [(ALICE, "alice1", invite()), (BOT, PARTY, answer()), (ALICE, "alice1", select(PARTY))];
    assert_eq!(batch(&mut bench, &events), [], "all that is known of it has been said");
}
