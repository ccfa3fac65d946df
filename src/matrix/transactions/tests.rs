use futures_util::FutureExt;
use serde_json::json;

use super::*;
use crate::matrix::room_events::{MembershipState, RoomChange};

/// `user` leaves; told by the event `id`.
fn leave(id: &str, user: &str) -> Value {
    json!({
        "type": "m.room.member", "state_key": user, "room_id": "!room:example.org", "sender": "@mod:example.org",
        "origin_server_ts": 1_800_000_000_000u64, "event_id": id, "content": {"membership": "leave"},
        "unsigned": {"age": 5, "prev_content": {"membership": "join"}},
    })
}

fn message() -> Value {
    json!({"type": "m.room.message", "event_id": "$message", "content": {"body": "hello"}})
}

fn left(transaction: &Transaction) -> Vec<&str> {
    let users = transaction.events.iter().map(|event| match &event.change {
        RoomChange::Member { user, membership: MembershipState::Leave } => user.as_str(),
        other => panic!("{other:?}"),
    });
    users.collect()
}

/// What has come out so far, without waiting for more.
fn next_now(inbox: &mut Inbox) -> Option<Transaction> {
    inbox.next().now_or_never().flatten()
}

#[tokio::test]
async fn events_come_out_in_order_and_only_those_that_matter() {
    let (transactions, mut inbox) = Transactions::open(&Store::in_memory()).unwrap();
    let first = vec![message(), leave("$1", "@a:b.org"), json!("nonsense"), json!({}), leave("$2", "@c:b.org")];
    transactions.accept("1".into(), first).await.unwrap();
    transactions.accept("2".into(), vec![message()]).await.unwrap();
    transactions.accept("3".into(), vec![leave("$3", "@d:b.org")]).await.unwrap();
    assert_eq!(left(&inbox.next().await.unwrap()), ["@a:b.org", "@c:b.org"]);
    assert_eq!(left(&inbox.next().await.unwrap()), [""; 0], "but it is told that one came");
    assert_eq!(left(&inbox.next().await.unwrap()), ["@d:b.org"]);
}

#[tokio::test]
async fn one_txn_id_acts_once() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (transactions, mut inbox) = Transactions::open(&Store::open(folder.path()).unwrap()).unwrap();
        for age in [1, 2] {
            // The homeserver writes the age anew each time.
            let mut event = leave("$1", "@a:b.org");
            event["unsigned"]["age"] = json!(age);
            transactions.accept("7".into(), vec![event]).await.unwrap();
        }
        let transaction = inbox.next().await.unwrap();
        inbox.finished(transaction);
        assert!(next_now(&mut inbox).is_none());
        transactions.accept("7".into(), vec![leave("$1", "@a:b.org")]).await.unwrap();
        assert!(next_now(&mut inbox).is_none(), "after it was acted on");
    }
    let (transactions, mut inbox) = Transactions::open(&Store::open(folder.path()).unwrap()).unwrap();
    transactions.accept("7".into(), vec![leave("$1", "@a:b.org")]).await.unwrap();
    assert!(next_now(&mut inbox).is_none(), "our answer was lost with the former process");
    transactions.accept("7".into(), vec![leave("$2", "@a:b.org")]).await.unwrap();
    assert!(next_now(&mut inbox).is_some(), "a homeserver that counts anew");
}

#[tokio::test]
async fn what_was_stored_and_not_finished_is_handed_over_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (transactions, mut inbox) = Transactions::open(&Store::open(folder.path()).unwrap()).unwrap();
        for (id, user) in [("1", "@a:b.org"), ("2", "@c:b.org"), ("3", "@d:b.org")] {
            transactions.accept(id.into(), vec![leave(&format!("${id}"), user)]).await.unwrap();
        }
        let first = inbox.next().await.unwrap();
        inbox.finished(first);
        // The process ends in the middle of the second.
        assert_eq!(left(&inbox.next().await.unwrap()), ["@c:b.org"]);
    }
    let (transactions, mut inbox) = Transactions::open(&Store::open(folder.path()).unwrap()).unwrap();
    transactions.accept("4".into(), vec![leave("$4", "@e:b.org")]).await.unwrap();
    for user in ["@c:b.org", "@d:b.org", "@e:b.org"] {
        let transaction = inbox.next().await.unwrap();
        assert_eq!(left(&transaction), [user]);
        inbox.finished(transaction);
    }
    drop((transactions, inbox));
    let (_transactions, mut inbox) = Transactions::open(&Store::open(folder.path()).unwrap()).unwrap();
    assert!(next_now(&mut inbox).is_none());
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_nothing_half_done() {
    let (transactions, mut inbox) = Transactions::open(&Store::in_memory()).unwrap();
    let hurried = transactions.accept("1".into(), vec![leave("$1", "@a:b.org")]);
    assert!(hurried.now_or_never().is_none(), "it takes a write");
    assert_eq!(left(&inbox.next().await.unwrap()), ["@a:b.org"]);
}

#[tokio::test]
async fn a_full_queue_is_not_acknowledged_and_recovers() {
    let (transactions, mut inbox) = Transactions::open(&Store::in_memory()).unwrap();
    transactions.intake.lock().await.place_timeout = Duration::from_millis(50);
    let leave = |number: usize| vec![leave(&format!("${number}"), "@a:b.org")];
    for number in 0..MOST_WAITING {
        transactions.accept(number.to_string(), leave(number)).await.unwrap();
    }
    let refused = transactions.accept("more".into(), leave(1000)).await;
    assert!(matches!(refused, Err(NotAccepted::Busy)), "{refused:?}");
    let transaction = inbox.next().await.unwrap();
    inbox.finished(transaction);
    transactions.accept("more".into(), leave(1000)).await.unwrap();
    drop(inbox);
    let refused = transactions.accept("end".into(), leave(1001)).await;
    assert!(matches!(refused, Err(NotAccepted::Ended)), "{refused:?}");
}

#[tokio::test]
async fn the_store_keeps_the_last_ones_only_and_never_drops_one_that_waits() {
    let store = Store::in_memory();
    let leave = |number: usize| vec![leave(&format!("${number}"), "@a:b.org")];
    let (transactions, mut inbox) = Transactions::open(&store).unwrap();
    for number in 0..300 {
        transactions.accept(number.to_string(), leave(number)).await.unwrap();
        if number >= MOST_WAITING - 1 {
            let transaction = inbox.next().await.unwrap();
            inbox.finished(transaction);
        }
    }
    let records = store.table::<Record>(TABLE).load().unwrap();
    assert_eq!(records.len(), REMEMBERED + MOST_WAITING + 1);
    assert_eq!(records.values().filter(|record| !record.events.is_empty()).count(), MOST_WAITING - 1);
    let oldest = records.values().next().unwrap();
    assert!(oldest.events.is_empty() && oldest.identity.txn_id == "203", "{}", oldest.identity.txn_id);
    let ages = records.values().flat_map(|record| &record.events).filter(|event| event.get("unsigned").is_some());
    assert_eq!(ages.count(), 0, "only what is looked at is kept");
}
