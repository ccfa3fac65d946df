//! We call them.

use super::*;

#[test]
fn a_call_from_ring_to_hangup() {
    let mut bench = Bench::new();
    let leg = bench.focus.ring(bench.now, ring()).unwrap();
    assert_eq!(bench.outs(), [media(Media::CreateOffer { exchange: 1, streams: vec![camera()] })]);
    let invite =
        Kind::Invite { offer: ours(), lifetime: RING_TIME, invitee: Some(ALICE.into()), streams: Some(vec![camera()]) };
    assert_eq!(bench.media_offers(leg, 1, ours()), [Said(invite), said_end_of_candidates()]);
    let call_id = bench.focus.call(leg).unwrap().call_id.clone();
    let expected = [
        media(Media::PeerStreams(alice_streams())),
        media(Media::Answer { exchange: 1, sdp: theirs() }),
        Said(select("alice1")),
        Established,
    ];
    assert_eq!(bench.hear_from(ALICE, envelope(&call_id, "alice1"), answer()), expected);
    bench.focus.media_connected(bench.now, leg);
    assert_eq!(bench.wait_s(3600), []);
    let ended = [Said(Kind::Hangup(Reason::UserHangup)), media(Media::End), verdict(Verdict::Ended(Cause::Over))];
    assert_eq!(bench.act(|focus, now| focus.end(now, leg, Cause::Over)), ended);
    bench.assert_empty();
}

#[test]
fn the_first_client_to_answer_has_it() {
    let mut bench = Bench::new();
    let (_, call_id) = bench.ringing();
    let hear = |bench: &mut Bench, party: &str, kind| bench.hear_from(ALICE, envelope(&call_id, party), kind);
    for (party, number) in [("phone", 1), ("laptop", 2), ("phone", 3)] {
        assert_eq!(hear(&mut bench, party, Kind::Candidates(vec![candidate(number)])), []);
    }
    let outs = hear(&mut bench, "laptop", answer());
    assert!(outs.contains(&media(Media::Candidates(vec![candidate(2)]))), "its own candidates: {outs:?}");
    assert!(outs.contains(&Said(select("laptop"))));
    assert_eq!(hear(&mut bench, "phone", answer()), []);
    assert_eq!(hear(&mut bench, "phone", Kind::Reject(Reason::UserHangup)), [], "too late");
    assert_eq!(hear(&mut bench, "phone", hangup()), [], "it gives up, the call goes on");
    assert_eq!(hear(&mut bench, "phone", Kind::Candidates(vec![candidate(4)])), []);
    assert_eq!(bench.ignored(Ignored::Stranger), 4);
    assert_eq!(hear(&mut bench, "laptop", answer()), []);
    let outs = hear(&mut bench, "laptop", hangup());
    assert_eq!(outs.last(), Some(&verdict(Verdict::HungUp(Reason::UserHangup))));
}

#[test]
fn version_0_is_not_told_of_a_selection() {
    let mut bench = Bench::new();
    let (_, call_id) = bench.ringing();
    let kind = Kind::Answer { answer: theirs(), streams: None };
    let expected = [media(Media::PeerStreams(None)), media(Media::Answer { exchange: 1, sdp: theirs() }), Established];
    assert_eq!(bench.hear_from(ALICE, envelope_v0(&call_id), kind), expected);
    let outs = bench.hear_from(ALICE, envelope_v0(&call_id), hangup());
    assert_eq!(outs.last(), Some(&verdict(Verdict::HungUp(Reason::UserHangup))));
}

#[test]
fn declined() {
    let mut bench = Bench::new();
    let (_, call_id) = bench.ringing();
    let expected = [Said(select("phone")), media(Media::End), verdict(Verdict::Declined(Reason::UserBusy))];
    assert_eq!(bench.hear_from(ALICE, envelope(&call_id, "phone"), Kind::Reject(Reason::UserBusy)), expected);
    assert_eq!(bench.hear_from(ALICE, envelope(&call_id, "laptop"), answer()), [], "all is said");

    let mut bench = Bench::new();
    let (_, call_id) = bench.ringing();
    let expected = [media(Media::End), verdict(Verdict::Declined(Reason::UserHangup))];
    assert_eq!(bench.hear_from(ALICE, envelope_v0(&call_id), hangup()), expected);
}

#[test]
fn only_who_is_rung_can_answer() {
    let mut bench = Bench::new();
    let (_, call_id) = bench.ringing();
    for kind in [answer(), Kind::Reject(Reason::UserHangup), hangup(), select("x")] {
        assert_eq!(bench.hear_from("@mallory:x", envelope(&call_id, "m"), kind), []);
    }
    assert_eq!(bench.focus.legs(), 1);
    assert_eq!(bench.hear_from(ALICE, envelope(&call_id, "alice1"), select("x")), [], "that is for us to say");
}

#[test]
fn nobody_answers() {
    let mut bench = Bench::new();
    bench.ringing();
    assert_eq!(bench.wait(RING_TIME - Duration::from_millis(1)), []);
    let expected = [Said(Kind::Hangup(Reason::InviteTimeout)), media(Media::End), verdict(Verdict::NoAnswer)];
    assert_eq!(bench.wait(Duration::from_millis(1)), expected);
    bench.assert_empty();
}

#[test]
fn an_answer_that_is_garbage() {
    let mut bench = Bench::new();
    let (_, call_id) = bench.ringing();
    let kind = Kind::Answer { answer: "garbage".into(), streams: None };
    let expected = [Said(Kind::Hangup(Reason::UnknownError)), media(Media::End), verdict(Verdict::BadDescription)];
    assert_eq!(bench.hear_from(ALICE, envelope(&call_id, "alice1"), kind), expected);
}

#[test]
fn media_that_makes_no_offer() {
    let failed = [media(Media::End), verdict(Verdict::MediaFailed(MediaError::Full))];
    let mut bench = Bench::new();
    let leg = bench.focus.ring(bench.now, ring()).unwrap();
    bench.outs();
    assert_eq!(bench.act(|focus, now| focus.media_offer(now, leg, 1, Err(MediaError::Full))), failed);

    let mut bench = Bench::new();
    bench.focus.ring(bench.now, ring()).unwrap();
    bench.outs();
    assert_eq!(bench.wait_s(10), [media(Media::End), verdict(Verdict::MediaSlow)], "nobody was told of the call");

    let mut bench = Bench::new();
    let leg = bench.focus.ring(bench.now, ring()).unwrap();
    bench.outs();
    let expected = [media(Media::End), verdict(Verdict::Ended(Cause::Over))];
    assert_eq!(bench.act(|focus, now| focus.end(now, leg, Cause::Over)), expected);
}

#[test]
fn one_ring_at_a_time() {
    let mut bench = Bench::new();
    bench.ringing();
    assert_eq!(bench.focus.ring(bench.now, ring()), Err(RingError::AlreadyInCall));
    for room in ["!a:x", "!b:x"] {
        bench.focus.ring(bench.now, Ring { room: room.into(), ..ring() }).unwrap();
    }
    let another = Ring { room: "!c:x".into(), ..ring() };
    assert_eq!(bench.focus.ring(bench.now, another), Err(RingError::UserBusy));
    let settings = Settings { limits: Limits { legs: 0, ..Limits::default() }, ..settings() };
    assert_eq!(Bench::with(settings).focus.ring(bench.now, ring()), Err(RingError::Full));
}

#[test]
fn glare() {
    // Ours begins with the digits of its time.
    for (theirs_is, theirs_wins) in [("0", true), ("z", false)] {
        let mut bench = Bench::new();
        let (ours_leg, _) = bench.ringing();
        let outs = bench.hear_from(ALICE, envelope(theirs_is, "alice1"), invite());
        if theirs_wins {
            let given_up = [Said(Kind::Hangup(Reason::Replaced)), media(Media::End), verdict(Verdict::Replaced)];
            assert_eq!(outs[..3], given_up);
            assert!(matches!(outs[3..], [Asked(_, Some(instead_of))] if instead_of == ours_leg), "{outs:?}");
        } else {
            assert_eq!(outs, [Said(Kind::Reject(Reason::Replaced)), verdict(Verdict::LostGlare)]);
        }
        assert_eq!(bench.focus.legs(), 1);
    }
}

#[test]
fn glare_before_our_invitation_is_out() {
    let mut bench = Bench::new();
    let leg = bench.focus.ring(bench.now, ring()).unwrap();
    bench.outs();
    let outs = bench.hear_from(ALICE, envelope("z", "alice1"), invite());
    assert_eq!(outs[..2], [media(Media::End), verdict(Verdict::Replaced)], "there is nothing to take back");
    assert!(matches!(outs[2..], [Asked(_, Some(instead_of))] if instead_of == leg));
    assert_eq!(bench.media_offers(leg, 1, ours()), []);
}

#[test]
fn no_glare_with_a_call_that_is_answered() {
    let mut bench = Bench::new();
    bench.taken();
    let outs = bench.hear_from(ALICE, envelope("0", "phone"), invite());
    assert!(matches!(outs[..], [Asked(_, None)]), "{outs:?}");
}
