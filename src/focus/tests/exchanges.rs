//! Descriptions within a call, holding, muting, and who is on the line.

use super::*;

fn both() -> String {
    sdp(&[("sendrecv", "room"), ("sendonly", "screen")])
}

fn share_screen(bench: &mut Bench, leg: LegId) -> Vec<Out> {
    bench.act(|focus, now| focus.streams_changed(now, leg, vec![camera(), screen()]))
}

fn screen_is_offered(exchange: Exchange) -> [Out; 1] {
    [media(Media::CreateOffer { exchange, streams: vec![camera(), screen()] })]
}

#[test]
fn they_offer() {
    let mut bench = Bench::new();
    let leg = bench.established();
    let more = sdp(&[("sendrecv", "alice"), ("sendonly", "alice")]);
    let expected = [media(Media::PeerStreams(alice_streams())), media(Media::Offer { exchange: 2, sdp: more.clone() })];
    assert_eq!(bench.hear("alice1", negotiate(true, more)), expected);
    assert_eq!(bench.media_answers(leg, 2, ours()), [negotiated(false, ours(), &[camera()])]);
    assert_eq!(bench.media_answers(leg, 2, ours()), [], "once");
    assert_eq!(bench.wait_s(3600), [], "nothing is waited for");
}

#[test]
fn we_offer_a_screen_and_take_it_back() {
    let mut bench = Bench::new();
    let leg = bench.established();
    assert_eq!(share_screen(&mut bench, leg), screen_is_offered(2));
    assert_eq!(bench.media_offers(leg, 2, both()), [negotiated(true, both(), &[camera(), screen()])]);
    let expected = [media(Media::PeerStreams(alice_streams())), media(Media::Answer { exchange: 2, sdp: theirs() })];
    assert_eq!(bench.hear("alice1", negotiate(false, theirs())), expected);
    assert_eq!(bench.wait_s(3600), [], "nothing is waited for");
    assert_eq!(share_screen(&mut bench, leg), [], "it is there");
    let outs = bench.act(|focus, now| focus.streams_changed(now, leg, vec![camera()]));
    assert_eq!(outs, [media(Media::CreateOffer { exchange: 3, streams: vec![camera()] })]);
}

#[test]
fn what_changes_meanwhile_is_offered_afterwards() {
    let mut bench = Bench::new();
    let leg = bench.established();
    share_screen(&mut bench, leg);
    assert_eq!(bench.act(|focus, now| focus.streams_changed(now, leg, vec![camera()])), []);
    assert_eq!(bench.media_offers(leg, 2, both()).len(), 1);
    let outs = bench.hear("alice1", negotiate(false, theirs()));
    assert_eq!(outs.last(), Some(&media(Media::CreateOffer { exchange: 3, streams: vec![camera()] })));
}

#[test]
fn a_screen_waits_for_the_call() {
    let mut bench = Bench::new();
    let leg = bench.asked();
    bench.act(|focus, now| focus.admit(now, leg));
    assert_eq!(share_screen(&mut bench, leg), []);
    assert_eq!(bench.media_answers(leg, 1, ours()).len(), 2);
    let outs = bench.hear("alice1", select(PARTY));
    assert_eq!((&outs[0], &outs[1..]), (&Established, &screen_is_offered(2)[..]));
}

#[test]
fn a_screen_is_only_for_those_who_know_of_streams() {
    let mut bench = Bench::new();
    let kind = Kind::Invite { offer: theirs(), lifetime: Duration::from_secs(60), invitee: None, streams: None };
    let outs = bench.hear("alice1", kind);
    let [Asked(leg, _)] = outs[..] else { panic!("{outs:?}") };
    bench.act(|focus, now| focus.admit(now, leg));
    bench.media_answers(leg, 1, ours());
    bench.hear("alice1", select(PARTY));
    assert_eq!(share_screen(&mut bench, leg), []);
}

#[test]
fn media_that_leaves_a_stream_out_is_not_asked_again() {
    let mut bench = Bench::new();
    let leg = bench.established();
    share_screen(&mut bench, leg);
    assert_eq!(bench.media_offers(leg, 2, ours()), [negotiated(true, ours(), &[camera()])]);
    let outs = bench.hear("alice1", negotiate(false, theirs()));
    assert!(!outs.iter().any(|out| matches!(out, Out::Media(Media::CreateOffer { .. }))), "{outs:?}");

    let mut bench = Bench::new();
    let leg = bench.established();
    share_screen(&mut bench, leg);
    assert_eq!(bench.act(|focus, now| focus.media_offer(now, leg, 2, Err(MediaError::Failed))), []);
    assert_eq!((bench.focus.legs(), bench.ignored(Ignored::NoOffer)), (1, 1));
    assert_eq!(bench.wait_s(100), []);
}

#[test]
fn every_stream_of_ours_is_listed() {
    let mut bench = Bench::new();
    let leg = bench.established();
    bench.hear("alice1", negotiate(true, theirs()));
    let unknown = sdp(&[("sendrecv", "surprise")]);
    let listed = [Stream::new("surprise", Purpose::Usermedia)];
    assert_eq!(bench.media_answers(leg, 2, unknown.clone())[0], negotiated(false, unknown, &listed));
}

#[test]
fn the_callee_is_polite() {
    for is_sent in [false, true] {
        let mut bench = Bench::new();
        let leg = bench.established();
        share_screen(&mut bench, leg);
        if is_sent {
            bench.media_offers(leg, 2, both());
        }
        let expected = [
            media(Media::Rollback { exchange: 2 }),
            media(Media::PeerStreams(alice_streams())),
            media(Media::Offer { exchange: 3, sdp: theirs() }),
        ];
        assert_eq!(bench.hear("alice1", negotiate(true, theirs())), expected);
        assert_eq!(bench.media_offers(leg, 2, both()), [], "of an exchange that is void");
        assert_eq!(bench.hear("alice1", negotiate(false, theirs())), [], "likewise");
        let outs = bench.media_answers(leg, 3, ours());
        assert_eq!(outs[0], negotiated(false, ours(), &[camera()]));
        assert_eq!(outs[1..], screen_is_offered(4), "now it is our turn");
    }
}

#[test]
fn the_caller_is_not() {
    for is_sent in [false, true] {
        let mut bench = Bench::new();
        let (leg, call_id) = bench.taken();
        share_screen(&mut bench, leg);
        if is_sent {
            bench.media_offers(leg, 2, both());
        }
        let theirs_comes = bench.hear_from(ALICE, envelope(&call_id, "alice1"), negotiate(true, theirs()));
        assert_eq!(theirs_comes, []);
        assert_eq!(bench.ignored(Ignored::Glare), 1);
    }
}

#[test]
fn an_offer_that_is_not_answered() {
    let mut bench = Bench::new();
    let leg = bench.established();
    share_screen(&mut bench, leg);
    bench.media_offers(leg, 2, both());
    assert_eq!(bench.wait_s(29), []);
    assert_eq!(bench.wait_s(1), [media(Media::Rollback { exchange: 2 })]);
    assert_eq!(bench.hear("alice1", negotiate(false, theirs())), [], "too late");
    assert_eq!(bench.wait_s(3600), [], "the call goes on, and nothing is tried again");
    let outs = bench.act(|focus, now| focus.streams_changed(now, leg, vec![screen()]));
    assert_eq!(outs.len(), 1, "until there is something new");
}

#[test]
fn offers_that_come_too_fast() {
    let mut bench = Bench::new();
    let leg = bench.established();
    bench.hear("alice1", negotiate(true, theirs()));
    for stream in ["b", "c"] {
        assert_eq!(bench.hear("alice1", negotiate(true, sdp(&[("sendrecv", stream)]))), []);
    }
    let outs = bench.media_answers(leg, 2, ours());
    assert_eq!(outs[0], negotiated(false, ours(), &[camera()]));
    assert_eq!(outs[2], media(Media::Offer { exchange: 3, sdp: sdp(&[("sendrecv", "c")]) }), "the newest");
}

#[test]
fn offers_that_are_too_old_or_of_others() {
    let mut bench = Bench::new();
    bench.established();
    let mut event = bench.event(ALICE, envelope("c", "alice1"), negotiate(true, theirs()));
    event.age = Duration::from_secs(61);
    assert_eq!(bench.hear_batch(vec![event]), []);
    assert_eq!(bench.hear("alice2", negotiate(true, theirs())), []);
    assert_eq!(bench.hear("alice2", Kind::StreamsChanged(vec![])), []);
    assert_eq!((bench.ignored(Ignored::Expired), bench.ignored(Ignored::Stranger)), (1, 2));
}

#[test]
fn an_offer_may_come_before_the_selection_but_not_before_our_answer() {
    let mut bench = Bench::new();
    bench.answered();
    assert_eq!(bench.hear("alice1", negotiate(true, theirs())).len(), 2);
    let mut bench = Bench::new();
    bench.asked();
    assert_eq!(bench.hear("alice1", negotiate(true, theirs())), []);
    assert_eq!(bench.ignored(Ignored::OutOfOrder), 1);
}

#[test]
fn an_offer_that_is_garbage_ends_the_call() {
    let ended = [Said(Kind::Hangup(Reason::UnknownError)), media(Media::End), verdict(Verdict::BadDescription)];
    let mut bench = Bench::new();
    bench.established();
    assert_eq!(bench.hear("alice1", negotiate(true, "garbage".into())), ended);
    let mut bench = Bench::new();
    bench.established();
    assert_eq!(bench.hear("alice1", negotiate(false, "garbage".into())), [], "nothing was asked");
}

#[test]
fn a_replayed_offer_is_answered_once() {
    let mut bench = Bench::new();
    let leg = bench.established();
    let event = bench.event(ALICE, envelope("c", "alice1"), negotiate(true, theirs()));
    assert_eq!(bench.hear_batch(vec![event.clone()]).len(), 2);
    bench.media_answers(leg, 2, ours());
    assert_eq!(bench.hear_batch(vec![event]), []);
    assert_eq!(bench.ignored(Ignored::Repeated), 1);
}

#[test]
fn hold_and_unhold() {
    let mut bench = Bench::new();
    let leg = bench.established();
    let mut exchange = 1;
    for (direction, held) in
        [("sendonly", Some(true)), ("inactive", None), ("sendrecv", Some(false)), ("recvonly", None)]
    {
        exchange += 1;
        let outs = bench.hear("alice1", negotiate(true, sdp(&[(direction, "alice"), (direction, "alice")])));
        let changes: Vec<Out> = outs.into_iter().filter(|out| matches!(out, Out::Media(Media::Held(_)))).collect();
        let expected: Vec<Out> = held.map(|held| media(Media::Held(held))).into_iter().collect();
        assert_eq!(changes, expected, "{direction}");
        bench.media_answers(leg, exchange, ours());
    }
}

#[test]
fn they_mute() {
    let mut bench = Bench::new();
    bench.established();
    let muted = Stream { audio_muted: true, ..Stream::new("alice", Purpose::Usermedia) };
    let outs = bench.hear("alice1", Kind::StreamsChanged(vec![muted.clone()]));
    assert_eq!(outs, [media(Media::PeerStreams(Some(vec![muted.clone()])))]);
    let outs = bench.hear("alice1", Kind::StreamsChanged(vec![screen()]));
    assert_eq!(outs, [media(Media::PeerStreams(Some(vec![muted, screen()])))], "one that is not listed stays");
}

#[test]
fn we_mute_no_more_often_than_can_be_sent() {
    let mut bench = Bench::new();
    let leg = bench.established();
    let muted = Stream { video_muted: true, ..camera() };
    let set = |bench: &mut Bench, stream: &Stream| {
        bench.act(|focus, now| focus.streams_changed(now, leg, vec![stream.clone()]))
    };
    assert_eq!(set(&mut bench, &muted), [Said(Kind::StreamsChanged(vec![muted.clone()]))]);
    for stream in [&camera(), &muted, &camera()] {
        assert_eq!(set(&mut bench, stream), []);
    }
    assert_eq!(bench.wait_s(1), [Said(Kind::StreamsChanged(vec![camera()]))], "as it is then");
    set(&mut bench, &muted);
    set(&mut bench, &camera());
    assert_eq!(bench.wait_s(1), [], "nothing changed in the end");
}

#[test]
fn who_is_on_the_line() {
    let mut bench = Bench::new();
    let leg = bench.asked();
    let named = |name: &str| Identity { display_name: Some(name.into()), ..Identity::default() };
    let assert = |bench: &mut Bench, identity| bench.act(|focus, now| focus.assert_identity(now, leg, identity));
    assert_eq!(assert(&mut bench, Some(named("Room"))), []);
    bench.act(|focus, now| focus.admit(now, leg));
    let outs = bench.media_answers(leg, 1, ours());
    assert_eq!(outs.last(), Some(&Said(Kind::AssertedIdentity(named("Room")))), "when the call is answered");
    assert_eq!(assert(&mut bench, Some(named("Bob"))), []);
    assert_eq!(assert(&mut bench, Some(named("Carol"))), []);
    assert_eq!(bench.wait_s(1), [Said(Kind::AssertedIdentity(named("Carol")))]);
    assert_eq!(bench.wait_s(1), []);
    assert_eq!(assert(&mut bench, None), [Said(Kind::AssertedIdentity(Identity::default()))]);
}

/// A new description may restart ICE, and brings candidates of its own.
#[test]
fn each_description_has_its_candidates() {
    let mut bench = Bench::new();
    let leg = bench.established();
    let passes = |bench: &mut Bench| !bench.hear("alice1", Kind::Candidates(vec![candidate(1); 64])).is_empty();
    assert_eq!([(); 3].map(|()| passes(&mut bench)), [true, true, false]);
    bench.hear("alice1", negotiate(true, theirs()));
    assert_eq!([(); 3].map(|()| passes(&mut bench)), [true, true, false]);
    bench.media_answers(leg, 2, ours());
    share_screen(&mut bench, leg);
    bench.media_offers(leg, 3, both());
    bench.hear("alice1", negotiate(false, theirs()));
    assert_eq!([(); 3].map(|()| passes(&mut bench)), [true, true, false]);
}
