//! Who the node says is there: one `Joined` and one `Left` for everybody, whatever ends it.

use std::collections::BTreeMap;
use std::future::ready;
use std::time::Duration;

use livekit_protocol as proto;
use parlour::livekit::{Claims, JoinRequest, Outgoing, RoomMember};
use parlour::net::{Presence, PresenceChange, SignalStream};
use parlour::sfu::LeaveReason;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::caller::{Caller, request, until};
use crate::http_support::{Server, now};
use crate::{four_workers, metric};

const PATIENCE: Duration = Duration::from_secs(10);

/// The next report, which must come.
async fn next(server: &Server) -> Presence {
    let next = async { server.presence.lock().await.recv().await };
    tokio::time::timeout(PATIENCE, next).await.expect("a report").expect("workers that report")
}

/// Reports until one says that somebody left, and who and why; all must be of one participant.
async fn one_life(server: &Server) -> (Vec<PresenceChange>, Presence) {
    let mut changes = Vec::new();
    loop {
        let presence = next(server).await;
        changes.push(presence.change);
        if matches!(presence.change, PresenceChange::Left(_)) {
            return (changes, presence);
        }
    }
}

/// Everything that is still reported until the last worker has ended.
async fn rest(server: &Server) -> Vec<Presence> {
    let mut presences = server.presence.lock().await;
    let mut rest = Vec::new();
    while let Some(presence) = tokio::time::timeout(PATIENCE, presences.recv()).await.expect("the workers end") {
        rest.push(presence);
    }
    rest
}

fn member() -> RoomMember {
    RoomMember { room: "!room:example.org".into(), slot: "m.call#ROOM".into(), user: "@alice:example.org".into() }
}

fn token(server: &Server, identity: &str) -> String {
    let claims = Claims { matrix: Some(member()), ..Claims::for_room(identity, "room", true, now(), 600) };
    server.keys.sign(&claims)
}

async fn first(stream: &mut SignalStream) -> proto::signal_response::Message {
    match stream.responses.recv().await {
        Some(Outgoing::Message(message)) => message.message.clone().expect("a message"),
        other => panic!("{other:?}"),
    }
}

async fn joined(stream: &mut SignalStream) -> String {
    match first(stream).await {
        proto::signal_response::Message::Join(join) => join.participant.expect("itself").sid,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_of_a_room_member_is_reported_as_that_member() {
    let server = four_workers().await;
    server.create_room("room", 0).await;
    let socket = server.connect(&format!("/rtc?access_token={}", token(&server, "alice"))).await.expect("let in");
    let presence = next(&server).await;
    assert_eq!((presence.room.as_str(), presence.identity.as_str()), ("room", "alice"));
    assert_eq!((presence.member, presence.change), (Some(member()), PresenceChange::Joined));
    let there = server.node.participants("room").await.unwrap().expect("a room");
    assert_eq!(there[0].sid, presence.sid);
    // Media never came, so that nothing is kept for it.
    drop(socket);
    let (changes, gone) = one_life(&server).await;
    assert_eq!(changes, [PresenceChange::Left(LeaveReason::SignalClosed)]);
    assert_eq!((gone.sid, gone.member), (presence.sid, Some(member())));

    // An app's token.
    let _socket = server.connect(&format!("/rtc?access_token={}", server.join_token("bot", "room"))).await.unwrap();
    assert_eq!(next(&server).await.member, None);
}

#[tokio::test]
async fn a_call_is_joined_connected_and_left() {
    let server = four_workers().await;
    let mut callers = [Caller::udp(&server.node, "room", "a").await.unwrap()];
    until(&mut callers, "connected", |callers| callers[0].connected).await;
    callers[0].leave().await;
    let (changes, last) = one_life(&server).await;
    let left = PresenceChange::Left(LeaveReason::ClientInitiated);
    assert_eq!(changes, [PresenceChange::Joined, PresenceChange::Connected, left]);
    until(&mut callers, "it is told", |callers| callers[0].left).await;
    assert_eq!(last.sid.as_str(), callers[0].sid);
}

#[tokio::test]
async fn who_resumes_was_there_all_along() {
    let server = four_workers().await;
    let mut callers = [Caller::udp(&server.node, "room", "a").await.unwrap()];
    until(&mut callers, "connected", |callers| callers[0].connected).await;
    for _ in 0..3 {
        let mut again = request("a", "room");
        again.reconnect = Some(callers[0].sid.clone());
        let mut stream = server.node.join(again).await.unwrap();
        let proto::signal_response::Message::Reconnect(_) = first(&mut stream).await else { panic!("resumed") };
    }
    assert!(server.node.remove("room", "a", None, LeaveReason::Removed).await.unwrap());
    let (changes, _) = one_life(&server).await;
    let left = PresenceChange::Left(LeaveReason::Removed);
    assert_eq!(changes, [PresenceChange::Joined, PresenceChange::Connected, left]);
    // What resumes nothing is nobody.
    let mut unknown = request("a", "room");
    unknown.reconnect = Some(callers[0].sid.clone());
    drop(server.node.join(unknown).await.unwrap());
    server.node.shut_down().await;
    assert_eq!(rest(&server).await, []);
}

#[tokio::test]
async fn the_older_of_two_with_one_identity_has_left() {
    let server = four_workers().await;
    let mut sids = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = server.node.join(request("a", "room")).await.unwrap();
        sids.push(joined(&mut stream).await);
        streams.push(stream);
    }
    server.node.shut_down().await;
    let mut lives: BTreeMap<String, Vec<PresenceChange>> = BTreeMap::new();
    for presence in rest(&server).await {
        lives.entry(presence.sid.to_string()).or_default().push(presence.change);
    }
    let reasons = [LeaveReason::DuplicateIdentity, LeaveReason::DuplicateIdentity, LeaveReason::ServerShutdown];
    for (sid, reason) in sids.iter().zip(reasons) {
        assert_eq!(lives.remove(sid).expect("reported"), [PresenceChange::Joined, PresenceChange::Left(reason)]);
    }
    assert!(lives.is_empty());
}

#[tokio::test]
async fn who_comes_with_an_offer_of_no_use_was_there_for_a_moment() {
    let server = four_workers().await;
    let offer =
        proto::SessionDescription { r#type: "offer".into(), sdp: "nonsense".into(), id: 1, ..Default::default() };
    let request = JoinRequest { publisher_offer: Some(offer), ..request("a", "room") };
    let mut stream = server.node.join(request).await.unwrap();
    let sid = joined(&mut stream).await;
    let (changes, last) = one_life(&server).await;
    assert_eq!(changes, [PresenceChange::Joined, PresenceChange::Left(LeaveReason::StateMismatch)]);
    assert_eq!(last.sid.as_str(), sid);
    assert_eq!(metric(&server, "parlour_joins_total{verdict=\"bad-description\"}"), 1.0);
}

/// The request was cancelled between the worker's yes and the WebSocket.
#[tokio::test]
async fn who_is_let_in_and_never_comes_has_left() {
    let server = four_workers().await;
    server.create_room("room", 0).await;
    tokio::select! {
        biased;
        // Before the answer, if the worker is not very quick.
        _ = server.node.join(request("a", "room")) => {}
        () = ready(()) => {}
    }
    let (changes, _) = one_life(&server).await;
    assert_eq!(changes, [PresenceChange::Joined, PresenceChange::Left(LeaveReason::SignalClosed)]);
}

#[tokio::test]
async fn a_panic_ends_those_of_its_worker_and_a_shutdown_the_others() {
    let server = four_workers().await;
    let mut streams = Vec::new();
    for (room, name) in [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")] {
        streams.push(server.node.join(request(name, room)).await.unwrap());
        assert_eq!(next(&server).await.change, PresenceChange::Joined);
    }
    server.node.panic_in("one").await;
    let mut gone = Vec::new();
    for _ in 0..2 {
        let Presence { room, identity, change, .. } = next(&server).await;
        assert_eq!((room.as_str(), change), ("one", PresenceChange::Left(LeaveReason::ServerFault)));
        gone.push(identity);
    }
    gone.sort();
    assert_eq!(gone, ["a", "b"]);
    // Back again, they are others.
    streams.push(server.node.join(request("a", "one")).await.unwrap());
    assert_eq!(next(&server).await.change, PresenceChange::Joined);
    server.node.shut_down().await;
    let rest = rest(&server).await;
    let mut left: Vec<_> = rest.iter().map(|p| (p.room.as_str(), p.identity.as_str(), p.change)).collect();
    left.sort_by_key(|(room, identity, _)| (*room, *identity));
    let stopped = PresenceChange::Left(LeaveReason::ServerShutdown);
    assert_eq!(left, [("one", "a", stopped), ("two", "a", stopped), ("two", "b", stopped)]);
}

/// Nobody told them to stop: the last handle is gone, while somebody is there who could still resume.
#[tokio::test]
async fn workers_that_end_by_themselves_report_that_all_have_left() {
    let server = four_workers().await;
    let mut callers = [Caller::udp(&server.node, "room", "a").await.unwrap()];
    until(&mut callers, "connected", |callers| callers[0].connected).await;
    let Server { node, app, presence, shutdown, .. } = server;
    shutdown.cancel();
    drop((node, app, callers));
    let mut presences = presence.lock().await;
    let mut changes = Vec::new();
    while let Some(presence) = tokio::time::timeout(PATIENCE, presences.recv()).await.expect("the workers end") {
        changes.push(presence.change);
    }
    let left = PresenceChange::Left(LeaveReason::ServerShutdown);
    assert_eq!(changes, [PresenceChange::Joined, PresenceChange::Connected, left]);
}

/// People come, go, vanish, resume, take over, are thrown out, rooms end and workers panic.
#[tokio::test]
async fn whatever_happens_every_joined_has_exactly_one_left() {
    for seed in 0..4 {
        let server = Server::with_config("[media]\nworkers = 3").await;
        let mut rng = StdRng::seed_from_u64(seed);
        let mut streams: Vec<(SignalStream, String, String, String)> = Vec::new();
        let mut let_in = Vec::new();
        for step in 0..300 {
            let room = format!("room {}", rng.random_range(0..5));
            let identity = format!("user {}", rng.random_range(0..6));
            let one = rng.random_range(0..streams.len().max(1));
            match rng.random_range(0..100) {
                0..50 => {
                    // No new rooms while all workers rest.
                    if let Ok(mut stream) = server.node.join(request(&identity, &room)).await {
                        let sid = joined(&mut stream).await;
                        let_in.push(sid.clone());
                        streams.push((stream, room, identity, sid));
                    }
                }
                50..60 if !streams.is_empty() => drop(streams.swap_remove(one)),
                60..70 if !streams.is_empty() => {
                    let (stream, ..) = streams.swap_remove(one);
                    let leave = proto::signal_request::Message::Leave(Default::default());
                    let _ = stream.requests.send(Box::new(leave)).await;
                }
                70..80 if !streams.is_empty() => {
                    let (_, room, identity, sid) = &streams[one];
                    let mut again = request(identity, room);
                    again.reconnect = Some(sid.clone());
                    if let Ok(stream) = server.node.join(again).await {
                        streams[one].0 = stream;
                    }
                }
                80..90 => drop(server.node.remove(&room, &identity, None, LeaveReason::Removed).await),
                90..94 => drop(server.node.delete_room(&room).await),
                94..96 if step % 3 == 0 => server.node.panic_in(&room).await,
                _ => {}
            }
        }
        server.node.shut_down().await;
        let mut lives: BTreeMap<String, Vec<Presence>> = BTreeMap::new();
        for presence in rest(&server).await {
            lives.entry(presence.sid.to_string()).or_default().push(presence);
        }
        for life in lives.values() {
            let [joined, left] = &life[..] else { panic!("seed {seed}: {life:?}") };
            assert_eq!(joined.change, PresenceChange::Joined);
            assert!(matches!(left.change, PresenceChange::Left(_)), "{left:?}");
            assert_eq!((&joined.room, &joined.identity), (&left.room, &left.identity));
        }
        assert!(let_in.len() > 50);
        assert!(let_in.iter().all(|sid| lives.contains_key(sid)), "seed {seed}");
    }
}
