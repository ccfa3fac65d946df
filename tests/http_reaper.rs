//! Memberships that a client has left behind: which are ended, and which are not to be touched.

mod http_support;

use http_support::callers::*;
use http_support::fake_rooms::Health;
use http_support::{Homeserver, PUBLIC_URL, Server, now};
use parlour::matrix::room_events::CALL_MEMBER_TYPE;
use parlour::net::PresenceChange;
use parlour::store::Store;
use serde_json::{Value, json};

const MINUTE: u64 = 60;
const REAP: &str = "[access]\nreap_stale_memberships = 10\n";

fn state_key(user: &str) -> String {
    format!("_{user}_DEVICE_m.call")
}

fn membership(focus: &str, selection: &str) -> Value {
    json!({
        "application": "m.call", "call_id": "", "scope": "m.room", "device_id": "DEVICE", "expires": 4 * 3600 * 1000,
        "focus_active": {"type": "livekit", "focus_selection": selection},
        "foci_preferred": [{"type": "livekit", "livekit_service_url": focus, "livekit_alias": ROOM}],
    })
}

async fn say(server: &Server, user: &str, content: Value) {
    tell(server, CALL_MEMBER_TYPE, &state_key(user), user, content).await;
}

async fn look(server: &Server, after_minutes: u64) {
    server.app.rooms.reaper.as_ref().expect("on").look(now() + after_minutes * MINUTE).await;
}

fn stands(server: &Server, user: &str) -> bool {
    server.homeserver.rooms.state(ROOM, CALL_MEMBER_TYPE, &state_key(user)) != Some(json!({}))
}

#[tokio::test]
async fn trap_9_a_stale_membership_is_ended_in_its_owners_own_name() {
    let server = server(REAP).await;
    say(&server, ALICE, membership(PUBLIC_URL, "multi_sfu")).await;
    for minutes in [0, 9] {
        look(&server, minutes).await;
        assert!(stands(&server, ALICE), "after {minutes}");
    }
    look(&server, 11).await;
    assert!(!stands(&server, ALICE));
    // Anybody else's write would cancel the delayed leave that its client may have pending.
    let query = "user_id=%40alice%3Aexample.org";
    assert_eq!(server.homeserver.rooms.asked("PUT"), 1);
    assert!(server.homeserver.rooms.lock().log.iter().any(|line| line.starts_with("PUT") && line.contains(query)));
    assert!(server.counted("parlour_removals_total{reason=\"stale-membership\"} 1"));
    look(&server, 60).await;
    assert_eq!(server.homeserver.rooms.asked("PUT"), 1, "once");
}

#[tokio::test]
async fn a_device_in_the_call_keeps_its_membership_and_the_time_begins_when_it_goes() {
    let server = server(REAP).await;
    say(&server, ALICE, membership(PUBLIC_URL, "multi_sfu")).await;
    let alice = in_call(&server, ALICE).await;
    look(&server, 30).await;
    assert!(stands(&server, ALICE));
    drop(alice);
    server.node.remove(&alias(), &format!("{ALICE}:DEVICE"), None, parlour::sfu::LeaveReason::Removed).await.unwrap();
    seen(&server, |change| matches!(change, PresenceChange::Left(_))).await;
    look(&server, 39).await;
    assert!(stands(&server, ALICE));
    look(&server, 41).await;
    assert!(!stands(&server, ALICE));
}

fn alias() -> String {
    parlour::matrix::identity::room_alias(ROOM, parlour::matrix::identity::CALL_SLOT)
}

#[tokio::test]
async fn what_is_not_ours_to_end_stands() {
    let server = server(REAP).await;
    let elsewhere = "https://rtc.remote.org";
    // Another server's user, and one of ours on another SFU.
    say(&server, CAROL, membership(PUBLIC_URL, "multi_sfu")).await;
    say(&server, BOB, membership(elsewhere, "multi_sfu")).await;
    // All meet on the SFU of the oldest membership, which may be the other.
    say(&server, ALICE, membership(PUBLIC_URL, "oldest_membership")).await;
    look(&server, 60).await;
    assert!(stands(&server, CAROL) && stands(&server, BOB) && stands(&server, ALICE));
    assert_eq!(server.homeserver.rooms.asked("PUT"), 0);

    // Nobody is elsewhere any more.
    say(&server, BOB, json!({})).await;
    say(&server, ALICE, membership(&format!("{PUBLIC_URL}/"), "oldest_membership")).await;
    look(&server, 60).await;
    assert!(!stands(&server, ALICE));
}

#[tokio::test]
async fn the_room_is_looked_at_before_anything_is_written() {
    let server = server(REAP).await;
    let rooms = &server.homeserver.rooms;
    for change in [json!({}), membership("https://rtc.remote.org", "multi_sfu"), json!({"memberships": []})] {
        say(&server, ALICE, membership(PUBLIC_URL, "multi_sfu")).await;
        // Of this we heard nothing.
        rooms.set_state(ROOM, CALL_MEMBER_TYPE, &state_key(ALICE), ALICE, change);
        look(&server, 60).await;
    }
    let mut expired = membership(PUBLIC_URL, "multi_sfu");
    expired["expires"] = json!(1000);
    say(&server, ALICE, expired).await;
    look(&server, 60).await;
    // Who left the room has left the call.
    say(&server, ALICE, membership(PUBLIC_URL, "multi_sfu")).await;
    rooms.leave(ROOM, ALICE);
    look(&server, 60).await;
    assert_eq!(rooms.asked("PUT"), 0);
}

#[tokio::test]
async fn neither_a_homeserver_that_is_down_nor_a_restart_of_ours_makes_us_forget() {
    let homeserver = Homeserver::start().await;
    homeserver.rooms.join(ROOM, ALICE);
    let store = Store::in_memory();
    let first = started(REAP, &homeserver, store.clone()).await;
    say(&first, ALICE, membership(PUBLIC_URL, "multi_sfu")).await;
    homeserver.rooms.set_health(Health::Down);
    look(&first, 60).await;
    homeserver.rooms.set_health(Health::Up);
    let second = started(REAP, &homeserver, store).await;
    look(&second, 9).await;
    assert!(stands(&second, ALICE), "its device has its time to come back");
    look(&second, 11).await;
    assert!(!stands(&second, ALICE));
}

#[tokio::test]
async fn it_is_off_unless_asked_for() {
    let server = server("").await;
    assert!(server.app.rooms.reaper.is_none());
    say(&server, ALICE, membership(PUBLIC_URL, "multi_sfu")).await;
}
