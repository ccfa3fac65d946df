//! Floods.

use super::*;

fn call_from(bench: &mut Bench, user: &str, room: &str, call_id: &str) -> Vec<Out> {
    let mut event = bench.event(user, envelope(call_id, call_id), invite());
    event.origin = Origin::Room { room: room.into(), is_direct: true };
    bench.hear_batch(vec![event])
}

#[test]
fn a_user_with_enough_legs_is_busy() {
    let mut bench = Bench::new();
    for call_id in ["a", "b", "c"] {
        assert!(matches!(call_from(&mut bench, ALICE, DM, call_id)[..], [Asked(..)]));
    }
    let busy = [Said(Kind::Reject(Reason::UserBusy)), verdict(Verdict::UserBusy)];
    assert_eq!(call_from(&mut bench, ALICE, DM, "d"), busy);
    assert!(matches!(call_from(&mut bench, "@bob:x", "!bob:x", "d")[..], [Asked(..)]));
}

#[test]
fn when_all_legs_are_taken_everybody_is_refused() {
    let limits = Limits { legs: 2, ..Limits::default() };
    let mut bench = Bench::with(Settings { limits, ..settings() });
    for user in ["@a:x", "@b:x"] {
        assert!(matches!(call_from(&mut bench, user, user, "c")[..], [Asked(..)]));
    }
    let full = [Said(Kind::Reject(Reason::UserBusy)), verdict(Verdict::Full)];
    assert_eq!(call_from(&mut bench, "@c:x", "!c:x", "c"), full);
}

#[test]
fn a_flood_is_refused_and_then_not_answered() {
    let mut bench = Bench::new();
    let mut refused = 0;
    for number in 0..1000 {
        let outs = call_from(&mut bench, ALICE, DM, &format!("call{number}"));
        match &outs[..] {
            [Asked(leg, _)] => assert_eq!(bench.act(|focus, now| focus.refuse(now, *leg, Refusal::Declined)).len(), 2),
            [Said(Kind::Reject(Reason::UserBusy)), Out::Verdict(Verdict::TooOften)] => refused += 1,
            [Out::Verdict(Verdict::TooOften)] => {}
            _ => panic!("{outs:?}"),
        }
    }
    assert_eq!((refused, bench.ignored(Ignored::Silenced)), (2, 988));
    assert!(matches!(call_from(&mut bench, "@bob:x", "!bob:x", "c")[..], [Asked(..)]), "others can call");
    bench.wait_s(60);
    assert!(matches!(call_from(&mut bench, ALICE, DM, "later")[..], [Asked(..)]));
}

#[test]
fn many_users_leave_little_behind() {
    let mut bench = Bench::new();
    for number in 0..20_000 {
        let user = format!("@u{number}:x");
        call_from(&mut bench, &user, &user, "c");
        bench.hear_from(&user, envelope("unknown", "p"), hangup());
    }
    let focus = &bench.focus;
    assert_eq!(focus.legs(), Limits::default().legs);
    assert!(focus.rates.users() <= admission::MAX_RATED_USERS && focus.ended.len() <= ended::MAX_ENDED);
    assert_eq!((focus.by_call.len(), focus.by_user.len(), focus.timers.len()), (1000, 1000, 1000));
    bench.wait_s(60);
    bench.assert_empty();
}

#[test]
fn candidates_of_many_clients_of_somebody_who_is_rung() {
    let mut bench = Bench::new();
    let (leg, call_id) = bench.ringing();
    for number in 0..1000 {
        let kind = Kind::Candidates(vec![candidate(1); 64]);
        assert_eq!(bench.hear_from(ALICE, envelope(&call_id, &format!("party{number}")), kind), []);
    }
    assert!(bench.focus.legs[&leg].buffered_candidates() <= 8 * 64);
    assert_eq!(bench.ignored(Ignored::Candidates), 992 * 64);
}
