//! They call us.

use super::*;

#[test]
fn a_call_from_invite_to_hangup() {
    let mut bench = Bench::new();
    let leg = bench.asked();
    let theirs = theirs();
    assert_eq!(
        bench.act(|focus, now| focus.admit(now, leg)),
        [media(Media::PeerStreams(alice_streams())), media(Media::Offer { exchange: 1, sdp: theirs })]
    );
    assert!(bench.act(|focus, now| focus.streams_changed(now, leg, vec![camera()])).is_empty());
    let answer = Kind::Answer { answer: ours(), streams: Some(vec![camera()]) };
    assert_eq!(bench.media_answers(leg, 1, ours()), [Said(answer), said_end_of_candidates()]);
    assert_eq!(bench.hear("alice1", select(PARTY)), [Established]);
    bench.focus.media_connected(bench.now, leg);
    assert_eq!(bench.wait_s(3600), []);
    let ended = [media(Media::End), verdict(Verdict::HungUp(Reason::UserHangup))];
    assert_eq!(bench.hear("alice1", hangup()), ended);
    bench.assert_empty();
    assert_eq!(bench.hear("alice1", hangup()), []);
    assert_eq!(bench.act(|focus, now| focus.end(now, leg, Cause::Over)), []);
    assert_eq!((bench.ignored(Ignored::EndedCall), bench.ignored(Ignored::Stale)), (1, 1));
}

#[test]
fn version_0_is_established_by_the_answer() {
    let mut bench = Bench::new();
    let invite = Kind::Invite { offer: theirs(), lifetime: Duration::from_secs(60), invitee: None, streams: None };
    let outs = bench.hear_from(ALICE, envelope_v0("c"), invite);
    let [Asked(leg, _)] = outs[..] else { panic!("{outs:?}") };
    assert_eq!(bench.act(|focus, now| focus.admit(now, leg))[0], media(Media::PeerStreams(None)));
    bench.focus.media_answer(bench.now, leg, 1, Ok(ours()));
    let outputs = bench.outputs();
    let Output::Send { content, .. } = &outputs[0] else { panic!("{outputs:?}") };
    assert_eq!(content["version"], serde_json::json!(0));
    assert_eq!(outputs[1..], [Output::Established { leg }], "no end of candidates, nothing to select");
    bench.focus.media_connected(bench.now, leg);
    assert_eq!(bench.act(|focus, now| focus.streams_changed(now, leg, vec![camera(), screen()])), []);
    assert_eq!(bench.act(|focus, now| focus.assert_identity(now, leg, Some(Identity::default()))), []);
    assert_eq!(bench.hear_from(ALICE, envelope_v0("c"), negotiate(true, theirs())), []);
    let ended = bench.hear_from(ALICE, envelope_v0("c"), hangup());
    assert_eq!(ended.last(), Some(&verdict(Verdict::HungUp(Reason::UserHangup))));
}

#[test]
fn an_invitation_lives_by_its_age() {
    for (age_s, is_taken) in [(0, true), (59, true), (60, false), (3600, false)] {
        let mut bench = Bench::new();
        let mut event = bench.event(ALICE, envelope("c", "alice1"), invite());
        event.age = Duration::from_secs(age_s);
        let outs = bench.hear_batch(vec![event]);
        assert_eq!(matches!(outs[..], [Asked(..)]), is_taken, "{age_s} s: {outs:?}");
        assert_eq!(outs == [verdict(Verdict::Expired)], !is_taken);
        if is_taken {
            let left = Duration::from_secs(60 - age_s);
            assert_eq!(bench.wait(left - Duration::from_millis(1)), []);
            assert_eq!(bench.wait_s(1), [verdict(Verdict::Expired)], "nobody decided");
        }
        bench.assert_empty();
    }
}

#[test]
fn whom_an_invitation_is_for() {
    let cases = [
        (None, true, true),
        (None, false, false),
        (Some(BOT), true, true),
        (Some(BOT), false, true),
        (Some("@carol:x"), true, false),
        (Some("@carol:x"), false, false),
    ];
    for (invitee, is_direct, is_ours) in cases {
        let mut bench = Bench::new();
        let invitee = invitee.map(str::to_owned);
        let kind = Kind::Invite { offer: theirs(), lifetime: Duration::from_secs(60), invitee, streams: None };
        let mut event = bench.event(ALICE, envelope("c", "alice1"), kind.clone());
        event.origin = Origin::Room { room: DM.into(), is_direct };
        let outs = bench.hear_batch(vec![event]);
        assert_eq!(matches!(outs[..], [Asked(..)]), is_ours, "{kind:?} {is_direct}");
        assert!(is_ours || outs == [verdict(Verdict::NotForUs)], "nothing is said about it: {outs:?}");
    }
}

#[test]
fn refusals_as_each_version_knows_them() {
    let cases = [
        (Refusal::Declined, Some(Kind::Reject(Reason::UserHangup)), Some(Kind::Hangup(Reason::UserHangup))),
        (Refusal::Busy, Some(Kind::Reject(Reason::UserBusy)), Some(Kind::Hangup(Reason::UserBusy))),
        (Refusal::Ignored, None, None),
    ];
    for (refusal, v1, v0) in cases {
        for (envelope, said) in [(envelope("c", "alice1"), v1), (envelope_v0("c"), v0)] {
            let mut bench = Bench::new();
            let outs = bench.hear_from(ALICE, envelope, invite());
            let [Asked(leg, _)] = outs[..] else { panic!("{outs:?}") };
            let outs = bench.act(|focus, now| focus.refuse(now, leg, refusal));
            let expected: Vec<Out> = said.map(Said).into_iter().chain([verdict(Verdict::Refused(refusal))]).collect();
            assert_eq!(outs, expected);
            bench.assert_empty();
        }
    }
}

#[test]
fn an_answered_call_can_no_longer_be_refused() {
    let mut bench = Bench::new();
    let leg = bench.answered();
    assert_eq!(bench.act(|focus, now| focus.refuse(now, leg, Refusal::Busy)), []);
    assert_eq!(bench.act(|focus, now| focus.admit(now, leg)), []);
    assert_eq!(bench.ignored(Ignored::Stale), 2);
}

#[test]
fn garbage_is_rejected_once() {
    let mut bench = Bench::new();
    let kind =
        Kind::Invite { offer: "garbage".into(), lifetime: Duration::from_secs(60), invitee: None, streams: None };
    let rejected = [Said(Kind::Reject(Reason::UnknownError)), verdict(Verdict::BadDescription)];
    assert_eq!(bench.hear("alice1", kind.clone()), rejected);
    assert_eq!(bench.hear("alice1", kind), []);
    assert_eq!(bench.ignored(Ignored::EndedCall), 1);
}

#[test]
fn media_that_cannot_answer() {
    let cases = [
        (MediaError::Unusable, Reason::UserMediaFailed),
        (MediaError::Full, Reason::UserBusy),
        (MediaError::Failed, Reason::UnknownError),
    ];
    for (error, reason) in cases {
        let mut bench = Bench::new();
        let leg = bench.asked();
        bench.act(|focus, now| focus.admit(now, leg));
        let outs = bench.act(|focus, now| focus.media_answer(now, leg, 1, Err(error)));
        let expected = [Said(Kind::Reject(reason)), media(Media::End), verdict(Verdict::MediaFailed(error))];
        assert_eq!(outs, expected);
    }
}

#[test]
fn media_that_does_not_answer() {
    let mut bench = Bench::new();
    let leg = bench.asked();
    bench.act(|focus, now| focus.admit(now, leg));
    let expected = [Said(Kind::Reject(Reason::UnknownError)), media(Media::End), verdict(Verdict::MediaSlow)];
    assert_eq!(bench.wait_s(10), expected);
    assert_eq!(bench.media_answers(leg, 1, ours()), [], "too late");
}

#[test]
fn selection() {
    // Of whom, by which client, what becomes of it.
    let cases: [(&str, &str, Vec<Out>); 4] = [
        (PARTY, "alice1", vec![Established]),
        (PARTY, "alice2", vec![]),
        ("OTHER", "alice1", vec![media(Media::End), verdict(Verdict::NotSelected)]),
        ("OTHER", "alice2", vec![]),
    ];
    for (selected, by, expected) in cases {
        let mut bench = Bench::new();
        bench.answered();
        assert_eq!(bench.hear(by, select(selected)), expected, "{selected} by {by}");
    }
    let mut bench = Bench::new();
    bench.established();
    assert_eq!(bench.hear("alice1", select("OTHER")), [], "it was selected already");
}

#[test]
fn an_answer_that_is_never_selected() {
    let mut bench = Bench::new();
    let leg = bench.answered();
    bench.focus.media_connected(bench.now, leg);
    assert_eq!(bench.wait(Duration::from_millis(29_999)), []);
    let expected = [Said(Kind::Hangup(Reason::UnknownError)), media(Media::End), verdict(Verdict::NeverSelected)];
    assert_eq!(bench.wait(Duration::from_millis(1)), expected);
}

#[test]
fn media_that_never_connects_or_breaks() {
    let mut bench = Bench::new();
    bench.answered();
    bench.wait_s(1);
    bench.hear("alice1", select(PARTY));
    let never = [Said(Kind::Hangup(Reason::IceTimeout)), media(Media::End), verdict(Verdict::NeverConnected)];
    assert_eq!(bench.wait_s(29), never);

    let mut bench = Bench::new();
    let leg = bench.established();
    bench.focus.media_lost(bench.now, leg);
    assert_eq!(bench.wait_s(29), []);
    bench.focus.media_connected(bench.now, leg);
    assert_eq!(bench.wait_s(60), [], "it came back");
    bench.focus.media_lost(bench.now, leg);
    bench.wait_s(20);
    bench.focus.media_lost(bench.now, leg);
    let lost = [Said(Kind::Hangup(Reason::IceFailed)), media(Media::End), verdict(Verdict::ConnectionLost)];
    assert_eq!(bench.wait_s(10), lost, "said twice, lost once");
}

#[test]
fn hangups_count_when_they_are_the_callers() {
    for (party, ends) in [("alice1", true), ("alice2", false)] {
        let mut bench = Bench::new();
        bench.answered();
        assert_eq!(!bench.hear(party, hangup()).is_empty(), ends, "{party}");
        assert_eq!(bench.ignored(Ignored::Stranger), u64::from(!ends));
    }
    let mut bench = Bench::new();
    bench.asked();
    assert_eq!(bench.hear("alice2", hangup()), [verdict(Verdict::HungUp(Reason::UserHangup))], "nobody has it yet");
}

#[test]
fn others_and_other_rooms_have_no_say() {
    let mut bench = Bench::new();
    bench.established();
    assert_eq!(bench.hear_from("@mallory:x", envelope("c", "alice1"), hangup()), []);
    let mut event = bench.event(ALICE, envelope("c", "alice1"), hangup());
    event.origin = Origin::Room { room: "!other:x".into(), is_direct: true };
    assert_eq!(bench.hear_batch(vec![event]), []);
    assert_eq!(bench.focus.legs(), 1);
}

#[test]
fn other_sessions_of_ours() {
    let others = || envelope("c", "OTHER");
    for kind in [answer(), Kind::Reject(Reason::UserHangup), hangup()] {
        let mut bench = Bench::new();
        bench.asked();
        assert_eq!(bench.hear_from(BOT, others(), kind.clone()), [verdict(Verdict::TakenElsewhere)], "{kind:?}");
        let mut bench = Bench::new();
        bench.answered();
        assert_eq!(bench.hear_from(BOT, others(), kind), [], "who is in the call is the caller's choice");
    }
    let mut bench = Bench::new();
    bench.asked();
    assert_eq!(bench.hear("alice1", select("OTHER")), [verdict(Verdict::TakenElsewhere)]);
}

#[test]
fn our_own_echoes_are_nothing() {
    let mut bench = Bench::new();
    let leg = bench.established();
    for kind in [answer(), Kind::Candidates(vec![Candidate::end()]), negotiate(true, ours()), hangup()] {
        assert_eq!(bench.hear_from(BOT, envelope("c", PARTY), kind), []);
    }
    assert_eq!(bench.ignored(Ignored::Echo), 4);
    bench.act(|focus, now| focus.end(now, leg, Cause::Over));
    assert_eq!(bench.hear_from(BOT, envelope("c", PARTY), answer()), [], "late");
    assert_eq!(bench.ignored(Ignored::Echo), 5);
}

#[test]
fn candidates_wait_for_the_decision() {
    let mut bench = Bench::new();
    let leg = bench.asked();
    assert_eq!(bench.hear("alice1", Kind::Candidates(vec![candidate(1)])), []);
    assert_eq!(bench.hear("alice2", Kind::Candidates(vec![candidate(2)])), []);
    assert_eq!(bench.hear("alice1", Kind::Candidates(vec![candidate(3)])), []);
    let outs = bench.act(|focus, now| focus.admit(now, leg));
    assert_eq!(outs.last(), Some(&media(Media::Candidates(vec![candidate(1), candidate(3)]))));
    let outs = bench.hear("alice1", Kind::Candidates(vec![candidate(4)]));
    assert_eq!(outs, [media(Media::Candidates(vec![candidate(4)]))]);
    assert_eq!(bench.ignored(Ignored::Stranger), 1);
}

#[test]
fn a_flood_of_candidates() {
    let mut bench = Bench::new();
    bench.established();
    let mut passed = 0;
    for _ in 0..1000 {
        for out in bench.hear("alice1", Kind::Candidates(vec![candidate(1); 10])) {
            let Out::Media(Media::Candidates(candidates)) = out else { panic!("{out:?}") };
            passed += candidates.len() as u64;
        }
    }
    assert_eq!((passed, bench.ignored(Ignored::Candidates)), (128, 9872));
}

#[test]
fn a_client_that_calls_again_replaces_its_call() {
    let mut bench = Bench::new();
    bench.established();
    let outs = bench.hear_from(ALICE, envelope("d", "alice1"), invite());
    let replaced = [Said(Kind::Hangup(Reason::Replaced)), media(Media::End), verdict(Verdict::Replaced)];
    assert_eq!(outs[..3], replaced);
    assert!(matches!(outs[3..], [Asked(_, None)]));
    let outs = bench.hear_from(ALICE, envelope("e", "alice2"), invite());
    assert!(matches!(outs[..], [Asked(_, None)]), "another client is another leg: {outs:?}");
}

#[test]
fn who_leaves_is_gone() {
    let mut bench = Bench::new();
    bench.established();
    assert_eq!(bench.act(|focus, now| focus.left(now, "!other:x", ALICE)), []);
    assert_eq!(bench.act(|focus, now| focus.left(now, DM, "@mallory:x")), []);
    let gone = [media(Media::End), verdict(Verdict::OpponentLeft)];
    assert_eq!(bench.act(|focus, now| focus.left(now, DM, ALICE)), gone);
    bench.assert_empty();

    let mut bench = Bench::new();
    bench.established();
    assert_eq!(bench.act(|focus, now| focus.room_lost(now, "!other:x")), []);
    let lost = [media(Media::End), verdict(Verdict::RoomLost)];
    assert_eq!(bench.act(|focus, now| focus.room_lost(now, DM)), lost);
}

#[test]
fn ends_from_our_side() {
    let cases = [
        (Cause::Over, Reason::UserHangup),
        (Cause::Removed, Reason::UserHangup),
        (Cause::MediaFailed, Reason::IceFailed),
        (Cause::KeepAliveTimeout, Reason::KeepAliveTimeout),
    ];
    for (cause, reason) in cases {
        let mut bench = Bench::new();
        let leg = bench.established();
        let expected = [Said(Kind::Hangup(reason)), media(Media::End), verdict(Verdict::Ended(cause))];
        assert_eq!(bench.act(|focus, now| focus.end(now, leg, cause)), expected);
        let mut bench = Bench::new();
        let leg = bench.asked();
        let expected = [Said(Kind::Reject(reason)), verdict(Verdict::Ended(cause))];
        assert_eq!(bench.act(|focus, now| focus.end(now, leg, cause)), expected, "not answered yet");
    }
}

#[test]
fn what_cannot_be_sent() {
    let mut bench = Bench::new();
    let leg = bench.answered();
    assert_eq!(bench.act(|focus, now| focus.send_failed(now, leg, "m.call.candidates")), []);
    let expected = [Said(Kind::Hangup(Reason::SignallingTimeout)), media(Media::End), verdict(Verdict::SendFailed)];
    assert_eq!(bench.act(|focus, now| focus.send_failed(now, leg, "m.call.answer")), expected);
}

#[test]
fn shutting_down() {
    let mut bench = Bench::new();
    bench.established();
    bench.hear_from(ALICE, envelope("d", "alice2"), invite());
    let expected = [
        Said(Kind::Hangup(Reason::UserHangup)),
        media(Media::End),
        verdict(Verdict::ShutDown),
        Said(Kind::Reject(Reason::UserHangup)),
        verdict(Verdict::ShutDown),
    ];
    assert_eq!(bench.act(|focus, now| focus.shut_down(now)), expected);
    bench.assert_empty();
}
