use super::*;
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000;
const ROOM: &str = "!room:example.org";
const ALICE: &str = "@alice:example.org";

fn member(room: &str, user: &str) -> RoomMember {
    RoomMember { room: room.into(), slot: "m.call#ROOM".into(), user: user.into() }
}

fn presence(room: &str, user: &str, device: &str, sid: &str, change: PresenceChange) -> Presence {
    Presence {
        room: format!("alias of {room}"),
        identity: format!("{user}:{device}"),
        sid: Sid(sid.into()),
        member: Some(member(room, user)),
        change,
    }
}

fn participant(room: &str, user: &str, device: &str) -> Participant {
    Participant { alias: format!("alias of {room}"), identity: format!("{user}:{device}") }
}

fn calls() -> Calls {
    Calls::new("example.org", NOW - LONGEST_TOKEN_LIFE_S)
}

#[test]
fn a_session_is_there_from_joined_to_left() {
    let calls = calls();
    calls.note(&presence(ROOM, ALICE, "D", "PA_1", PresenceChange::Joined), NOW);
    let of = || calls.of(ROOM, ALICE);
    assert!(matches!(&of()[..], [Present { connected: false, .. }]));
    calls.note(&presence(ROOM, ALICE, "D", "PA_1", PresenceChange::Connected), NOW);
    assert!(matches!(&of()[..], [Present { connected: true, .. }]));
    assert_eq!(calls.list()[0].sessions, of());
    assert_eq!(calls.room_of(&format!("alias of {ROOM}")), Some((ROOM.into(), "m.call#ROOM".into())));
    // The same identity comes anew, and the old session goes after.
    calls.note(&presence(ROOM, ALICE, "D", "PA_2", PresenceChange::Joined), NOW);
    assert_eq!(of().len(), 2);
    calls.note(&presence(ROOM, ALICE, "D", "PA_1", PresenceChange::Left(LeaveReason::DuplicateIdentity)), NOW);
    assert!(matches!(&of()[..], [Present { sid, .. }] if sid.as_str() == "PA_2"));
    calls.note(&presence(ROOM, ALICE, "D", "PA_2", PresenceChange::Left(LeaveReason::ClientInitiated)), NOW);
    assert!(of().is_empty() && calls.rooms().is_empty() && calls.list().is_empty());
}

#[test]
fn participants_of_apps_are_not_here() {
    let calls = calls();
    let guest = Presence { member: None, ..presence(ROOM, ALICE, "D", "PA_1", PresenceChange::Joined) };
    calls.note(&guest, NOW);
    assert!(calls.rooms().is_empty() && calls.list().is_empty());
}

#[test]
fn who_has_a_token_may_come_until_it_is_of_no_use() {
    let calls = calls();
    assert!(!calls.may_come(ROOM, ALICE, NOW));
    calls.expect(&member(ROOM, ALICE), participant(ROOM, ALICE, "D"), NOW + 100, NOW);
    assert!(calls.may_come(ROOM, ALICE, NOW));
    assert_eq!(calls.participants_of(ROOM, ALICE), [participant(ROOM, ALICE, "D")]);
    assert_eq!((calls.users_in(ROOM), calls.local_users_in(ROOM)), (vec![ALICE.into()], vec![ALICE.into()]));
    // A shorter one does not shorten it.
    calls.expect(&member(ROOM, ALICE), participant(ROOM, ALICE, "D"), NOW + 10, NOW);
    calls.forget_expired(NOW + 100 + LEEWAY_S - 1);
    assert!(calls.may_come(ROOM, ALICE, NOW));
    calls.forget_expired(NOW + 100 + LEEWAY_S);
    assert!(!calls.may_come(ROOM, ALICE, NOW));

    calls.expect(&member(ROOM, ALICE), participant(ROOM, ALICE, "D"), NOW + 100, NOW);
    calls.expect_no_more(ROOM, ALICE);
    assert!(!calls.may_come(ROOM, ALICE, NOW));
}

#[test]
fn who_only_asks_is_reckoned_with_and_vouches_for_nobody() {
    let calls = calls();
    calls.expect_maybe(&member(ROOM, ALICE), participant(ROOM, ALICE, "D"), NOW);
    assert!(calls.may_come(ROOM, ALICE, NOW));
    assert_eq!(calls.participants_of(ROOM, ALICE).len(), 1);
    assert!(calls.users_in(ROOM).is_empty() && calls.local_users_in(ROOM).is_empty());
    calls.expect(&member(ROOM, ALICE), participant(ROOM, ALICE, "D"), NOW + 100, NOW);
    calls.expect_maybe(&member(ROOM, ALICE), participant(ROOM, ALICE, "D"), NOW);
    assert_eq!(calls.local_users_in(ROOM), [ALICE]);
    calls.expect_maybe(&member(ROOM, "@bob:example.org"), participant(ROOM, "@bob:example.org", "D"), NOW);
    calls.forget_expired(NOW + LONGEST_DECISION_S);
    assert!(!calls.may_come(ROOM, "@bob:example.org", NOW) && calls.may_come(ROOM, ALICE, NOW));
}

#[test]
fn who_leaves_may_come_back_with_a_fresh_token_and_who_is_removed_may_not() {
    for (reason, may) in [(LeaveReason::ClientInitiated, true), (LeaveReason::Removed, false)] {
        let calls = calls();
        calls.note(&presence(ROOM, ALICE, "D", "PA_1", PresenceChange::Joined), NOW);
        calls.note(&presence(ROOM, ALICE, "D", "PA_1", PresenceChange::Left(reason)), NOW + 10_000);
        calls.forget_expired(NOW + 10_000 + REFRESHED_VALIDITY_S);
        assert_eq!(calls.may_come(ROOM, ALICE, NOW + 10_000), may, "{reason:?}");
    }
}

#[test]
fn tokens_of_before_a_start_and_beyond_what_is_kept_are_reckoned_with() {
    let calls = Calls::new("example.org", NOW);
    assert!(calls.may_come(ROOM, ALICE, NOW + TOKEN_VALIDITY_S));
    assert!(!calls.may_come(ROOM, ALICE, NOW + LONGEST_TOKEN_LIFE_S));
    let later = NOW + LONGEST_TOKEN_LIFE_S;
    for n in 0..=MOST_EXPECTED {
        if n == MOST_EXPECTED {
            assert!(!calls.may_come(ROOM, "@nobody:example.org", later));
        }
        let user = format!("@user{n}:example.org");
        calls.expect(&member(ROOM, &user), participant(ROOM, &user, "D"), later + 100, later);
    }
    assert_eq!(calls.book().expected_count, MOST_EXPECTED);
    assert!(calls.may_come(ROOM, "@nobody:example.org", later));
}

#[test]
fn a_participant_does_not_count_against_itself() {
    let calls = calls();
    for (device, sid) in [("ONE", "PA_1"), ("TWO", "PA_2")] {
        calls.note(&presence(ROOM, ALICE, device, sid, PresenceChange::Joined), NOW);
    }
    let mine = participant(ROOM, ALICE, "ONE");
    let new = participant(ROOM, ALICE, "THREE");
    assert_eq!((calls.sessions_of_user(ALICE, ROOM, &mine), calls.sessions_of_user(ALICE, ROOM, &new)), (1, 2));
    assert_eq!(calls.sessions_of_server("example.org", ROOM, &mine), 1);
    assert_eq!(calls.sessions_of_server("example.org", "!other:example.org", &mine), 2);
    assert_eq!(calls.sessions_of_user("@bob:example.org", ROOM, &mine), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Join { room: usize, user: usize, device: usize },
    Leave(usize),
    Expect { room: usize, user: usize, device: usize, life: u64 },
    ExpectNoMore { room: usize, user: usize },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3usize, 0..4usize, 0..2usize).prop_map(|(room, user, device)| Step::Join { room, user, device }),
        (0..20usize).prop_map(Step::Leave),
        (0..3usize, 0..4usize, 0..2usize, 0..100u64).prop_map(|(room, user, device, life)| Step::Expect {
            room,
            user,
            device,
            life
        }),
        (0..3usize, 0..4usize).prop_map(|(room, user)| Step::ExpectNoMore { room, user }),
        (0..200u64).prop_map(Step::Pass),
    ]
}

const ROOMS: [&str; 3] = ["!a:x", "!b:x", "!c:x"];
const USERS: [&str; 4] = ["@a:example.org", "@b:example.org", "@c:remote.org", "@d:remote.org:8448"];
const DEVICES: [&str; 2] = ["D", "E"];

proptest! {
    /// Against a plain list of everything.
    #[test]
    fn the_book_agrees_with_a_plain_list(steps in prop::collection::vec(step(), 1..60)) {
        let calls = calls();
        let mut now = NOW;
        let mut sessions: Vec<(usize, usize, usize, String)> = Vec::new();
        let mut tokens: HashMap<(usize, usize, usize), u64> = HashMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Join { room, user, device } => {
                    let sid = format!("PA_{n}");
                    calls.note(&presence(ROOMS[room], USERS[user], DEVICES[device], &sid, PresenceChange::Joined), now);
                    sessions.push((room, user, device, sid));
                }
                Step::Leave(index) if index < sessions.len() => {
                    let (room, user, device, sid) = sessions.remove(index);
                    let left = PresenceChange::Left(LeaveReason::ClientInitiated);
                    calls.note(&presence(ROOMS[room], USERS[user], DEVICES[device], &sid, left), now);
                    let until = tokens.entry((room, user, device)).or_default();
                    *until = (*until).max(now + REFRESHED_VALIDITY_S + LEEWAY_S);
                }
                Step::Leave(_) => {}
                Step::Expect { room, user, device, life } => {
                    let participant = participant(ROOMS[room], USERS[user], DEVICES[device]);
                    calls.expect(&member(ROOMS[room], USERS[user]), participant, now + life, now);
                    let until = tokens.entry((room, user, device)).or_default();
                    *until = (*until).max(now + life + LEEWAY_S);
                }
                Step::ExpectNoMore { room, user } => {
                    calls.expect_no_more(ROOMS[room], USERS[user]);
                    tokens.retain(|(r, u, _), _| (*r, *u) != (room, user));
                }
                Step::Pass(seconds) => {
                    now += seconds;
                    calls.forget_expired(now);
                    tokens.retain(|_, until| *until > now);
                }
            }
            prop_assert_eq!(calls.book().expected_count, tokens.len());
            let nobody = participant("", "", "");
            for (u, user) in USERS.iter().enumerate() {
                let count = sessions.iter().filter(|(_, of, ..)| *of == u).count();
                prop_assert_eq!(calls.sessions_of_user(user, ROOMS[0], &nobody), count);
                let server = server_of(user);
                let count = sessions.iter().filter(|(_, of, ..)| server_of(USERS[*of]) == server).count();
                prop_assert_eq!(calls.sessions_of_server(server, ROOMS[0], &nobody), count);
                for (r, room) in ROOMS.iter().enumerate() {
                    let here = sessions.iter().filter(|(in_room, of, ..)| (*in_room, *of) == (r, u)).count();
                    prop_assert_eq!(calls.of(room, user).len(), here);
                    let expected = tokens.keys().any(|(in_room, of, _)| (*in_room, *of) == (r, u));
                    prop_assert_eq!(calls.may_come(room, user, now), here > 0 || expected);
                    prop_assert_eq!(calls.users_in(room).contains(&(*user).to_owned()), here > 0 || expected);
                }
            }
            let listed: usize = calls.list().iter().map(|call| call.sessions.len()).sum();
            prop_assert_eq!(listed, sessions.len());
        }
        for (room, user, device, sid) in sessions {
            let left = PresenceChange::Left(LeaveReason::Removed);
            calls.note(&presence(ROOMS[room], USERS[user], DEVICES[device], &sid, left), now);
        }
        let book = calls.book();
        prop_assert!(book.rooms.is_empty() && book.sessions_by_user.is_empty() && book.sessions_by_server.is_empty());
    }
}
