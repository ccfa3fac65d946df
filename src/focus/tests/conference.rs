//! Calls by to-device messages, with us as the conference's focus.

use super::*;

fn device(call_id: &str, device: &str, session: &str, seq: u64) -> Envelope {
    let device = DeviceEnvelope {
        conf_id: "conf".into(),
        device_id: device.into(),
        sender_session_id: session.into(),
        dest_session_id: "sfu".into(),
        seq: Some(seq),
    };
    let party_id = Some(device.device_id.clone());
    Envelope { call_id: call_id.into(), party_id, version: Version::V1, device: Some(device) }
}

fn message(envelope: Envelope, kind: Kind) -> Event {
    Event {
        origin: Origin::ToDevice { verified_device: None },
        sender: ALICE.into(),
        content: Content { envelope, kind },
        age: Duration::ZERO,
        event_id: None,
    }
}

fn hear(bench: &mut Bench, seq: u64, kind: Kind) -> Vec<Out> {
    bench.hear_batch(vec![message(device("c", "PHONE", "s1", seq), kind)])
}

fn invited(bench: &mut Bench) -> LegId {
    let outs = hear(bench, 0, invite());
    let [Asked(leg, None)] = outs[..] else { panic!("{outs:?}") };
    leg
}

#[test]
fn a_call_of_a_device() {
    let mut bench = Bench::new();
    let leg = invited(&mut bench);
    let call = bench.focus.call(leg).unwrap();
    assert_eq!((&call.scope, call.device.as_deref()), (&Scope::Conference("conf".into()), Some("PHONE")));
    bench.act(|focus, now| focus.admit(now, leg));
    bench.focus.media_answer(bench.now, leg, 1, Ok(ours()));
    let outputs = bench.outputs();
    assert_eq!(outputs.len(), 2);
    for (output, seq) in outputs.into_iter().zip(0..) {
        let Output::Send { to, event_type, content, .. } = output else { panic!("{output:?}") };
        assert_eq!(to, Address::Device { user: ALICE.into(), device: "PHONE".into() });
        let expected = Envelope {
            call_id: "c".into(),
            party_id: Some(PARTY.into()),
            version: Version::V1,
            device: Some(DeviceEnvelope {
                conf_id: "conf".into(),
                device_id: PARTY.into(),
                sender_session_id: "sfu".into(),
                dest_session_id: "s1".into(),
                seq: Some(seq),
            }),
        };
        assert_eq!(Content::parse_to_device(event_type, &content).unwrap().envelope, expected);
    }
    assert_eq!(hear(&mut bench, 1, select(PARTY)), [Established]);
    assert_eq!(hear(&mut bench, 2, hangup()).last(), Some(&verdict(Verdict::HungUp(Reason::UserHangup))));
    bench.assert_empty();
}

#[test]
fn messages_are_put_in_order() {
    let mut bench = Bench::new();
    let leg = invited(&mut bench);
    bench.act(|focus, now| focus.admit(now, leg));
    bench.media_answers(leg, 1, ours());
    assert_eq!(hear(&mut bench, 2, hangup()), []);
    let outs = hear(&mut bench, 1, select(PARTY));
    assert_eq!((&outs[0], outs.len()), (&Established, 3), "then the hangup: {outs:?}");
}

#[test]
fn what_never_comes_is_not_waited_for() {
    let mut bench = Bench::new();
    let leg = invited(&mut bench);
    bench.act(|focus, now| focus.admit(now, leg));
    bench.media_answers(leg, 1, ours());
    assert_eq!(hear(&mut bench, 5, select(PARTY)), []);
    assert_eq!(bench.wait_s(5), [Established]);
    assert_eq!(hear(&mut bench, 4, hangup()), []);
    assert_eq!(hear(&mut bench, 5, hangup()), []);
    assert_eq!(bench.ignored(Ignored::Repeated), 2);
}

#[test]
fn messages_for_another_session_or_from_another_device() {
    let mut bench = Bench::new();
    let mut envelope = device("c", "PHONE", "s1", 0);
    envelope.device.as_mut().unwrap().dest_session_id = "gone".into();
    assert_eq!(bench.hear_batch(vec![message(envelope, invite())]), []);
    let mut forged = message(device("c", "PHONE", "s1", 0), invite());
    forged.origin = Origin::ToDevice { verified_device: Some("OTHER".into()) };
    assert_eq!(bench.hear_batch(vec![forged]), []);
    assert_eq!((bench.ignored(Ignored::OtherSession), bench.ignored(Ignored::WrongDevice)), (1, 1));
    invited(&mut bench);
    let old = message(device("c", "PHONE", "s0", 1), hangup());
    assert_eq!(bench.hear_batch(vec![old]), []);
    assert_eq!(bench.ignored(Ignored::Stranger), 1);
}

#[test]
fn devices_of_one_user_have_calls_of_their_own() {
    let mut bench = Bench::new();
    invited(&mut bench);
    let other = message(device("c", "LAPTOP", "s9", 0), invite());
    assert!(matches!(bench.hear_batch(vec![other])[..], [Asked(_, None)]));
    let hung_up = bench.hear_batch(vec![message(device("c", "LAPTOP", "s9", 1), hangup())]);
    assert_eq!(hung_up, [verdict(Verdict::HungUp(Reason::UserHangup))]);
    assert_eq!(bench.focus.legs(), 1);
}

#[test]
fn a_new_session_ends_the_old_ones_call() {
    let mut bench = Bench::new();
    invited(&mut bench);
    let outs = bench.hear_batch(vec![message(device("d", "PHONE", "s2", 0), invite())]);
    assert_eq!(outs[..2], [Said(Kind::Reject(Reason::NewSession)), verdict(Verdict::Replaced)]);
    assert!(matches!(outs[2..], [Asked(_, None)]));
}
