//! Who is joined to a room, by each of the ways to find out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parlour::matrix::HomeserverError::{self, *};
use parlour::matrix::{Membership, Unknown};
use serde_json::json;

use crate::scripted::{Answer, Scripted, client, ok, refusal};

const ROOM: &str = "!room:example.org";
const ALICE: &str = "@alice:example.org";
const BOB: &str = "@bob:x.org";

fn membership(address: SocketAddr, service: bool, bot: bool) -> Membership {
    Membership::new(Arc::new(client(address, service, bot)), "example.org")
}

fn joined(is: bool) -> Answer {
    ok(json!({"joined": is}))
}

fn members(users: &[&str]) -> Answer {
    let joined: serde_json::Map<_, _> = users.iter().map(|user| (user.to_string(), json!({}))).collect();
    ok(json!({"joined": joined}))
}

fn forbidden() -> Answer {
    refusal(403, "M_FORBIDDEN")
}

/// As whom each request was made: a user, `bot` or `us`; what it asked for.
fn who_asked(scripted: &Scripted) -> Vec<String> {
    let who = |asked: crate::scripted::Asked| {
        let path = asked.line.split(['?', ' ']).nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
        let who = match asked.line.split_once("user_id=") {
            Some((_, user)) => user.replace("%40", "@").replace("%3A", ":"),
            None if asked.authorization.unwrap().contains("syt_bot") => "bot".to_owned(),
            None => "us".to_owned(),
        };
        format!("{who} {path}")
    };
    scripted.asked().into_iter().map(who).collect()
}

#[tokio::test]
async fn a_yes_is_remembered_until_it_is_forgotten() {
    let (scripted, address) = Scripted::start().await;
    let membership = membership(address, true, false);
    scripted.answer("is_joined", [joined(true)]);
    for _ in 0..3 {
        assert_eq!(membership.check(ROOM, ALICE, &[]).await, Ok(true));
        assert_eq!(membership.check_server(ROOM, "x.org", &[]).await, Ok(true));
    }
    assert_eq!(scripted.asked().len(), 2);

    // Another room, another user: nothing is known.
    scripted.answer("is_joined", [joined(false)]);
    assert_eq!(membership.check("!other:example.org", ALICE, &[]).await, Ok(false));
    assert_eq!(membership.check(ROOM, "@carl:example.org", &[]).await, Ok(false));
    assert_eq!(membership.check(ROOM, ALICE, &[]).await, Ok(true));

    membership.forget(ROOM, Some(ALICE));
    assert_eq!(membership.check(ROOM, ALICE, &[]).await, Ok(false));
    assert_eq!(membership.check_server(ROOM, "x.org", &[]).await, Ok(true));
    membership.forget(ROOM, Some(BOB));
    assert_eq!(membership.check_server(ROOM, "x.org", &[]).await, Ok(false), "the last of that server, perhaps");

    scripted.answer("is_joined", [joined(true), joined(false)]);
    assert_eq!(membership.check(ROOM, ALICE, &[]).await, Ok(true));
    membership.forget(ROOM, None);
    assert_eq!(membership.check(ROOM, ALICE, &[]).await, Ok(false));
}

#[tokio::test]
async fn a_no_is_not_remembered() {
    let (scripted, address) = Scripted::start().await;
    let membership = membership(address, true, false);
    scripted.answer("is_joined", [joined(false), joined(true)]);
    assert_eq!(membership.check(ROOM, ALICE, &[]).await, Ok(false));
    assert_eq!(membership.check(ROOM, ALICE, &[]).await, Ok(true));
}

/// Trap: `is_joined` and `joined_members` lag behind joins over federation.
#[tokio::test]
async fn is_joined_lags_behind_joins_over_federation() {
    let (scripted, address) = Scripted::start().await;
    let membership = membership(address, true, false);
    scripted.answer("is_joined", [joined(false), joined(false), joined(true)]);
    let start = Instant::now();
    assert_eq!(membership.check(ROOM, BOB, &[]).await, Ok(true));
    assert!(start.elapsed() >= Duration::from_millis(1300));
    assert_eq!(scripted.asked().len(), 3);

    scripted.answer("is_joined", [joined(false)]);
    assert_eq!(membership.check(ROOM, "@eve:x.org", &[]).await, Ok(false));
    assert_eq!(scripted.asked().len(), 3, "it counts in the end");

    // Our own users' joins are known at once.
    assert_eq!(membership.check(ROOM, ALICE, &[]).await, Ok(false));
    assert_eq!(membership.check_server(ROOM, "example.org", &[]).await, Ok(false));
    assert_eq!(scripted.asked().len(), 2);
}

#[tokio::test]
async fn a_leave_that_overtakes_the_answer_makes_it_worthless() {
    let (scripted, address) = Scripted::start().await;
    let membership = membership(address, true, false);
    let late = Answer::After(Duration::from_millis(300), Box::new(joined(true)));
    scripted.answer("is_joined", [late, joined(false)]);
    let leave = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        membership.forget(ROOM, Some(ALICE));
    };
    let (answer, ()) = tokio::join!(membership.check(ROOM, ALICE, &[]), leave);
    assert_eq!(answer, Ok(false));
    assert_eq!(scripted.asked().len(), 2);
}

#[tokio::test]
async fn lists_are_looked_into_where_is_joined_is_missing() {
    for missing in [refusal(404, "M_UNRECOGNIZED"), refusal(403, "M_FORBIDDEN"), Answer::Text(404, "<html>".into())] {
        let (scripted, address) = Scripted::start().await;
        let membership = membership(address, true, false);
        scripted.answer("is_joined", [missing]);
        scripted.answer("joined_members", [members(&[ALICE, BOB])]);
        assert_eq!(membership.check(ROOM, ALICE, &[]).await, Ok(true));
        assert_eq!(who_asked(&scripted), ["us is_joined", "@alice:example.org joined_members"]);
        // It is not asked for again.
        assert_eq!(membership.check(ROOM, "@carl:example.org", &[]).await, Ok(false));
        assert_eq!(who_asked(&scripted), ["@carl:example.org joined_members"]);
        // Nobody else's users can be acted as.
        assert_eq!(membership.check(ROOM, BOB, &[]).await, Ok(true));
        assert_eq!(membership.check_server(ROOM, "x.org", &["@z:example.org".into(), BOB.into()]).await, Ok(true));
        assert_eq!(who_asked(&scripted), ["us joined_members", "@z:example.org joined_members"]);
        assert_eq!(membership.check_server(ROOM, "example.com", &[]).await, Ok(false));
    }
}

#[tokio::test]
async fn who_is_not_in_the_room_may_not_see_the_list() {
    let (scripted, address) = Scripted::start().await;
    let membership = membership(address, true, true);
    scripted.answer("joined_members", [forbidden()]);
    scripted.answer("whoami", [ok(json!({"user_id": ALICE}))]);
    assert_eq!(membership.check(ROOM, ALICE, &[]).await, Ok(false));
    assert_eq!(
        who_asked(&scripted),
        ["us is_joined", "@alice:example.org joined_members", "@alice:example.org whoami"]
    );
}

#[tokio::test]
async fn a_user_we_may_not_act_as_is_no_proof() {
    let (scripted, address) = Scripted::start().await;
    let membership = membership(address, true, true);
    scripted.answer("whoami", [forbidden()]);
    scripted.answer("joined_members", [forbidden(), forbidden(), forbidden(), members(&[ALICE])]);
    let known = ["@z:example.org".to_owned()];
    assert_eq!(membership.check(ROOM, ALICE, &known).await, Ok(true));
    assert_eq!(
        who_asked(&scripted),
        [
            "us is_joined",
            "@alice:example.org joined_members",
            "@alice:example.org whoami",
            "@z:example.org joined_members",
            "us joined_members",
            "bot joined_members",
        ]
    );
    membership.forget(ROOM, None);
    scripted.answer("joined_members", [forbidden()]);
    assert_eq!(membership.check(ROOM, ALICE, &known).await, Err(Unknown::NobodyInRoom));
    assert_eq!(membership.check(ROOM, BOB, &[]).await, Err(Unknown::NobodyInRoom));
}

#[tokio::test]
async fn few_users_are_tried() {
    let (scripted, address) = Scripted::start().await;
    let membership = membership(address, true, false);
    scripted.answer("joined_members", [forbidden()]);
    let known: Vec<String> = (0..50).map(|n| format!("@{n}:example.org")).collect();
    assert_eq!(membership.check(ROOM, BOB, &known).await, Err(Unknown::NobodyInRoom));
    assert_eq!(scripted.asked().len(), 5, "is_joined, three users, ourselves");
}

#[tokio::test]
async fn a_bot_alone_will_do() {
    let (scripted, address) = Scripted::start().await;
    let membership = membership(address, false, true);
    scripted.answer("joined_members", [members(&[ALICE, "@bot:example.org"])]);
    assert_eq!(membership.check(ROOM, ALICE, &[ALICE.into()]).await, Ok(true));
    assert_eq!(membership.check(ROOM, "@carl:example.org", &[]).await, Ok(false));
    assert_eq!(who_asked(&scripted), ["bot joined_members", "bot joined_members"]);
}

#[tokio::test]
async fn a_bot_helps_where_the_application_service_is_unknown() {
    let (scripted, address) = Scripted::start().await;
    let unknown = || refusal(401, "M_UNKNOWN_TOKEN");
    scripted.answer("is_joined", [unknown()]);
    scripted.answer("joined_members?", [unknown()]);
    scripted.answer("joined_members", [unknown(), members(&[ALICE])]);
    assert_eq!(membership(address, true, true).check(ROOM, ALICE, &[]).await, Ok(true));
    scripted.answer("joined_members", [unknown()]);
    let failure = membership(address, true, false).check(ROOM, ALICE, &[]).await.unwrap_err();
    assert_eq!(failure, Unknown::Homeserver(UnknownToken));
    assert!(failure.to_string().contains("does not know our token; Synapse's app_service_config_files"), "{failure}");
}

#[tokio::test]
async fn a_homeserver_in_trouble_proves_nothing() {
    let (scripted, address) = Scripted::start().await;
    let membership = membership(address, true, true);
    let limited = Answer::Json(429, json!({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 2000}));
    for (answer, error) in [
        (Answer::Text(502, "<html>".into()), Unreachable),
        (refusal(500, "M_UNKNOWN"), Unreachable),
        (limited, HomeserverError::Limited(Duration::from_secs(2))),
        (Answer::Text(200, "<html>".into()), BadAnswer),
        (Answer::Huge(300_000), BadAnswer),
    ] {
        scripted.answer("is_joined", [answer.clone()]);
        assert_eq!(membership.check(ROOM, BOB, &[]).await, Err(Unknown::Homeserver(error)), "{answer:?}");
        assert_eq!(scripted.asked().len(), 1, "nobody is asked further");
    }
    scripted.answer("is_joined", [joined(true)]);
    assert_eq!(membership.check(ROOM, BOB, &[]).await, Ok(true));

    membership.forget(ROOM, None);
    scripted.answer("is_joined", [refusal(404, "M_UNRECOGNIZED")]);
    scripted.answer("joined_members", [Answer::Text(503, String::new())]);
    assert_eq!(membership.check(ROOM, BOB, &[]).await, Err(Unknown::Homeserver(Unreachable)));
}

#[tokio::test]
async fn what_is_no_room_has_no_members() {
    let (scripted, address) = Scripted::start().await;
    let membership = membership(address, true, true);
    for room in ["", "..", "room", "#alias:example.org", "../../v3/account"] {
        assert_eq!(membership.check(room, ALICE, &[]).await, Ok(false));
    }
    assert!(scripted.asked().is_empty());
    scripted.answer("is_joined", [refusal(400, "M_INVALID_PARAM")]);
    assert_eq!(membership.check("!", ALICE, &[]).await, Ok(false));
}
