//! Several workers behind one port, over real sockets: whose a packet is, who gets a room, and what a panic leaves untouched.

#[path = "../http_support/mod.rs"]
mod http_support;

mod caller;
mod moderation;
mod presence;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use caller::{Caller, request, until};
use http_support::Server;
use livekit_protocol as proto;
use parlour::livekit::{Dialect, JoinRequest, Outgoing};
use parlour::net::JoinRefused;
use parlour::sfu::WorkerId;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use str0m::RtcConfig;
use str0m::change::SdpAnswer;

async fn four_workers() -> Server {
    Server::with_config("[media]\nworkers = 4").await
}

/// The value of a metric without labels, or of one of its series.
fn metric(server: &Server, series: &str) -> f64 {
    let text = server.metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

/// Metrics are written once a second.
async fn metric_until(server: &Server, series: &str, done: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done(metric(server, series)) {
        assert!(Instant::now() < deadline, "{series} {}", metric(server, series));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn all_hear_each_other(callers: &[Caller]) -> bool {
    callers.iter().all(|caller| caller.connected && caller.heard.len() == callers.len() - 1)
}

fn hears_more(callers: &[Caller], than: &[usize]) -> bool {
    callers.iter().zip(than).all(|(caller, before)| caller.heard.values().all(|count| *count > before + 5))
}

/// What each has heard least of.
fn heard(callers: &[Caller]) -> Vec<usize> {
    callers.iter().map(|caller| caller.heard.values().min().copied().unwrap_or_default()).collect()
}

#[tokio::test]
async fn callers_reach_their_room_whichever_socket_their_packets_come_to() {
    let server = four_workers().await;
    let mut callers = Vec::new();
    for name in ["a", "b", "c", "d"] {
        callers.push(Caller::udp(&server.node, "room", name).await.unwrap());
    }
    until(&mut callers, "all hear each other", all_hear_each_other).await;
    let workers: HashSet<WorkerId> = callers.iter().map(Caller::worker).collect();
    assert_eq!(workers.len(), 1, "a room is on one worker");
    // The kernel gives each caller to one of four sockets. Again with those that were given to the right one.
    let mut others = 0;
    while metric(&server, "parlour_packets_handed_over_total") == 0.0 && others < 10 {
        others += 1;
        let mut more = [Caller::udp(&server.node, &format!("room {others}"), "e").await.unwrap()];
        until(&mut more, "connected", |callers| callers[0].connected).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    metric_until(&server, "parlour_packets_handed_over_total", |count| count > 0.0).await;
    // It stays so.
    let before = heard(&callers);
    until(&mut callers, "all still hear each other", |callers| hears_more(callers, &before)).await;
    metric_until(&server, "parlour_participants", |count| count >= 4.0).await;
    assert_eq!(metric(&server, "parlour_worker_panics_total"), 0.0);
}

#[tokio::test]
async fn a_tcp_connection_moves_to_the_worker_of_its_room() {
    let server = four_workers().await;
    // Whichever worker accepts, at most one room is on it.
    for room in ["one", "two", "three", "four"] {
        let mut callers =
            [Caller::tcp(&server.node, room, "a").await.unwrap(), Caller::udp(&server.node, room, "b").await.unwrap()];
        until(&mut callers, room, all_hear_each_other).await;
    }
}

#[tokio::test]
async fn rooms_spread_and_limits_hold_for_all_workers_together() {
    let server =
        Server::with_config("[media]\nworkers = 4\n[limits]\nparticipants = 5\nparticipants_per_room = 100").await;
    let mut callers = Vec::new();
    for index in 0..4 {
        callers.push(Caller::udp(&server.node, &format!("room {index}"), "a").await.unwrap());
    }
    until(&mut callers, "connected", |callers| callers.iter().all(|caller| caller.connected)).await;
    let workers: HashSet<WorkerId> = callers.iter().map(Caller::worker).collect();
    assert_eq!(workers.len(), 4);
    for index in 0..4 {
        metric_until(&server, &format!("parlour_worker_participants{{worker=\"{index}\"}}"), |count| count == 1.0)
            .await;
    }
    metric_until(&server, "parlour_rooms", |count| count == 4.0).await;

    let fifth = Caller::udp(&server.node, "room 0", "b").await.unwrap();
    for room in ["room 3", "elsewhere"] {
        assert_eq!(Caller::udp(&server.node, room, "c").await.err(), Some(JoinRefused::Busy));
    }
    fifth.leave().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Caller::udp(&server.node, "room 3", "c").await.is_err() {
        assert!(Instant::now() < deadline, "a place is free");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_session_is_resumed_where_it_is() {
    let server = four_workers().await;
    let mut callers = Vec::new();
    for index in 0..3 {
        callers.push(Caller::udp(&server.node, &format!("room {index}"), "a").await.unwrap());
    }
    until(&mut callers, "connected", |callers| callers.iter().all(|caller| caller.connected)).await;
    for (index, caller) in callers.iter().enumerate() {
        let mut resumed = request("a", &format!("room {index}"));
        resumed.reconnect = Some(caller.sid.clone());
        let mut stream = server.node.join(resumed).await.unwrap();
        let first = format!("{:?}", stream.responses.recv().await.unwrap());
        assert!(first.contains("Reconnect("), "{first}");
    }
    // Nobody's session: the client is told to join afresh, and no room is kept for it.
    let mut unknown = request("a", "room 9");
    unknown.reconnect = Some("PA_unknown".into());
    let mut stream = server.node.join(unknown).await.unwrap();
    let first = format!("{:?}", stream.responses.recv().await.unwrap());
    assert!(first.contains("Leave("), "{first}");
    assert_eq!(server.node.room("room 9".into()).await, Ok(None));
}

#[tokio::test]
async fn a_panic_ends_the_rooms_of_one_worker_and_no_others() {
    let server = four_workers().await;
    let mut callers = Vec::new();
    for room in ["one", "two"] {
        for name in ["a", "b"] {
            callers.push(Caller::udp(&server.node, room, name).await.unwrap());
        }
    }
    let hear = |callers: &[Caller]| callers.iter().all(|caller| caller.connected && !caller.heard.is_empty());
    until(&mut callers, "all hear each other", hear).await;
    assert_ne!(callers[0].worker(), callers[2].worker());
    metric_until(&server, "parlour_participants", |count| count == 4.0).await;

    let mut spared = callers.split_off(2);
    let before = heard(&spared);
    server.node.panic_in("one").await;
    until(&mut callers, "their signalling is closed", |callers| callers.iter().all(|caller| caller.closed)).await;
    assert!(callers.iter().all(|caller| !caller.left), "nobody told them to leave: they come back");
    assert_eq!(server.node.room("one".into()).await, Ok(None));
    until(&mut spared, "the others still hear each other", |callers| hears_more(callers, &before)).await;
    assert!(spared.iter().all(|caller| !caller.closed));
    assert_eq!(metric(&server, "parlour_worker_panics_total"), 1.0);
    metric_until(&server, "parlour_participants", |count| count == 2.0).await;

    // The same people come back, among others to the worker that panicked.
    let mut again = Vec::new();
    for name in ["a", "b"] {
        again.push(Caller::udp(&server.node, "one", name).await.unwrap());
    }
    until(&mut again, "all hear each other again", all_hear_each_other).await;
    metric_until(&server, "parlour_participants", |count| count == 4.0).await;
    assert_eq!(metric(&server, "parlour_rooms"), 2.0);

    // A session that is gone cannot be resumed, whatever room its number would be in now.
    let mut lost = request("a", "one");
    lost.reconnect = Some(callers[0].sid.clone());
    let mut stream = server.node.join(lost).await.unwrap();
    assert!(format!("{:?}", stream.responses.recv().await.unwrap()).contains("Leave("));
}

#[tokio::test]
async fn panics_in_a_row_make_a_worker_rest_and_the_others_take_its_place() {
    let server = Server::with_config("[media]\nworkers = 2").await;
    for _ in 0..4 {
        // While one rests, rooms go to the other; while both do, to nobody.
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut caller = loop {
            match Caller::udp(&server.node, "poison", "a").await {
                Ok(caller) => break caller,
                Err(refused) => assert_eq!(refused, JoinRefused::Gone),
            }
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        server.node.panic_in("poison").await;
        until(std::slice::from_mut(&mut caller), "closed", |callers| callers[0].closed).await;
    }
    assert_eq!(metric(&server, "parlour_worker_panics_total"), 4.0);
}

#[tokio::test]
async fn everybody_is_told_when_the_server_stops() {
    let server = four_workers().await;
    let mut callers = Vec::new();
    for index in 0..4 {
        callers.push(Caller::udp(&server.node, &format!("room {index}"), "a").await.unwrap());
    }
    until(&mut callers, "connected", |callers| callers.iter().all(|caller| caller.connected)).await;
    server.node.shut_down().await;
    until(&mut callers, "told", |callers| callers.iter().all(|caller| caller.left && caller.closed)).await;
    assert_eq!(Caller::udp(&server.node, "room 0", "b").await.err(), Some(JoinRefused::Gone));
}

/// Also in answers of str0m's own (the older dialect), and after restarts of ICE.
#[tokio::test]
async fn every_description_names_its_worker() {
    let server = four_workers().await;
    for (index, dialect) in [Dialect::V1, Dialect::V0, Dialect::V0, Dialect::V1].into_iter().enumerate() {
        let room = format!("room {index}");
        let mut stream = server.node.join(JoinRequest { dialect, ..request("a", &room) }).await.unwrap();
        let mut rtc = RtcConfig::new().build(Instant::now());
        let mut fragments = HashSet::new();
        for id in 1..4 {
            let mut api = rtc.sdp_api();
            match id {
                1 => drop(api.add_channel("_reliable".into())),
                _ => drop(api.ice_restart(true)),
            }
            let (offer, pending) = api.apply().unwrap();
            let sdp = offer.to_sdp_string();
            let offer = proto::SessionDescription { r#type: "offer".into(), sdp, id, ..Default::default() };
            stream.requests.send(Box::new(Request::Offer(offer))).await.unwrap();
            let answer = loop {
                match stream.responses.recv().await.unwrap() {
                    Outgoing::Message(message) => match message.message.clone().unwrap() {
                        Response::Answer(answer) => break answer.sdp,
                        Response::Offer(offer) => assert_eq!(worker(&fragment(&offer.sdp)), Some(index)),
                        _ => {}
                    },
                    Outgoing::Close(_) => panic!("closed"),
                }
            };
            assert_eq!(worker(&fragment(&answer)), Some(index), "{dialect:?}");
            fragments.insert(fragment(&answer));
            rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
        }
        assert_eq!(fragments.len(), 3, "{dialect:?}: a restart makes a new one");
    }
}

/// What three rooms of three come to.
async fn outcome(workers: usize) -> Vec<(bool, Vec<u8>, bool)> {
    let server = Server::with_config(&format!("[media]\nworkers = {workers}")).await;
    let mut callers = Vec::new();
    for room in ["one", "two", "three"] {
        callers.push(Caller::with_camera(&server.node, room, "a").await.unwrap());
        for name in ["b", "c"] {
            callers.push(Caller::udp(&server.node, room, name).await.unwrap());
        }
    }
    let complete = |callers: &[Caller]| {
        let gets = |c: &Caller| c.connected && c.heard.values().filter(|n| **n > 25).count() == 2;
        callers.iter().all(|c| gets(c) && (c.name == "a" || c.seen > 100))
    };
    until(&mut callers, "all hear and see", complete).await;
    assert_eq!(metric(&server, "parlour_worker_panics_total"), 0.0);
    callers.iter().map(|c| (c.connected, c.heard.keys().copied().collect(), c.seen > 100)).collect()
}

#[tokio::test]
async fn calls_come_to_the_same_on_one_worker_and_on_four() {
    assert_eq!(outcome(1).await, outcome(4).await);
}

/// One who shows something at the rate of a good camera, to many: what the kernel is asked for each packet that is forwarded,
/// waiting and receiving included.
#[tokio::test]
async fn many_packets_go_with_one_system_call() {
    const VIEWERS: usize = 36;
    let server = Server::with_config("[media]\nworkers = 1").await;
    let mut callers = vec![Caller::with_camera(&server.node, "room", "a").await.unwrap()];
    for _ in 0..VIEWERS {
        let name = format!("v{}", callers.len());
        callers.push(Caller::udp(&server.node, "room", &name).await.unwrap());
    }
    // Only the one is heard and seen.
    callers[1..].iter_mut().for_each(Caller::be_silent);
    let all_see = |callers: &[Caller]| callers[1..].iter().all(|caller| caller.seen > 100);
    until(&mut callers, "all see", all_see).await;
    // Until joins are over and the metrics, written once a second, have every series.
    let begin = Instant::now() + Duration::from_secs(3);
    until(&mut callers, "three seconds", |_| Instant::now() >= begin).await;
    let calls = || -> f64 {
        let names = ["epoll_wait", "recvmmsg", "sendmmsg", "wake"];
        names.iter().map(|call| metric(&server, &format!("parlour_media_syscalls_total{{call=\"{call}\"}}"))).sum()
    };
    let forwarded = || metric(&server, "parlour_packets_forwarded_total");
    // Callers that the machine has no time for send less than a camera does: then it is measured again.
    let mut measured = Vec::new();
    while measured.iter().all(|(calls, forwarded)| *forwarded < 10_000.0 || *calls > 0.2 * forwarded) {
        assert!(measured.len() < 6, "system calls, packets: {measured:?}");
        let before = (calls(), forwarded());
        let end = Instant::now() + Duration::from_secs(3);
        until(&mut callers, "three seconds", |_| Instant::now() >= end).await;
        measured.push((calls() - before.0, forwarded() - before.1));
    }
}

fn worker(fragment: &str) -> Option<usize> {
    WorkerId::of_ufrag(fragment).map(WorkerId::index)
}

fn fragment(sdp: &str) -> String {
    sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).expect("one").to_owned()
}
