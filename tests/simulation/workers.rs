//! How many workers there are does not matter to a call: several rooms on one, and the same rooms each on another.

use std::time::Duration;

use parlour::sfu::Negotiation;

use crate::client::{Client, Setup};
use crate::network::Conditions;
use crate::room::{all_connected, enter};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const ROOMS: usize = 3;
const PEOPLE: usize = 3;

/// Until then the way is measured that packets take, which depends on bytes that are drawn: which layer somebody sees how
/// soon differs from seed to seed.
const SETTLED: Duration = Duration::from_secs(4);

/// A packet as its receiver has it: when it came since the call began, whose and which it is, and by which numbers it follows
/// the first that is looked at. Those are drawn by the worker.
type Packet = (Duration, crate::media::Stamp, u64, u32, bool);

#[derive(Debug, PartialEq)]
struct Outcome {
    /// By publisher and kind.
    streams: Vec<Vec<Packet>>,
    /// What the server told, without the names that it draws.
    speakers: Vec<(Duration, Vec<bool>)>,
    qualities: Vec<(Duration, Option<parlour::sfu::Quality>)>,
    pauses: Vec<(Duration, bool)>,
    messages: usize,
    left: bool,
}

fn outcome(world: &World, client: &Client) -> Outcome {
    let began = world.now - world.elapsed();
    let diary = &client.diary;
    let mut streams: Vec<Vec<Packet>> = diary
        .streams
        .values()
        .map(|stream| {
            let settled = || stream.packets.iter().filter(|p| p.at - began >= SETTLED);
            let (first, base) = settled().next().map_or((0, 0), |p| (p.sequence, p.timestamp));
            let packet = |p: &crate::oracle::Received| {
                (p.at - began, p.stamp, p.sequence.wrapping_sub(first), p.timestamp.wrapping_sub(base), p.marker)
            };
            settled().map(packet).collect()
        })
        .filter(|packets: &Vec<Packet>| !packets.is_empty())
        .collect();
    streams.sort_by_key(|packets| (packets[0].1.publisher, packets[0].1.parts, packets[0].0));
    Outcome {
        streams,
        speakers: diary.speakers.iter().map(|(at, s)| (*at - began, s.iter().map(|s| s.active).collect())).collect(),
        qualities: settled(diary.qualities.iter().map(|(at, _, highest)| (*at - began, *highest))),
        pauses: settled(diary.stream_states.iter().map(|(at, _, paused)| (*at - began, *paused))),
        messages: diary.messages.len(),
        left: client.left.is_some(),
    }
}

fn settled<T>(states: impl Iterator<Item = (Duration, T)>) -> Vec<(Duration, T)> {
    states.filter(|(at, _)| *at >= SETTLED).collect()
}

/// Three calls at once, over lines of different length; people mute, leave, and come late. Nothing of the lines is left to
/// chance, which strikes by the number of packets, and handshakes differ in theirs.
fn calls(workers: usize) -> Vec<Outcome> {
    let mut world = World::new(61);
    (1..workers).for_each(|_| world.add_worker());
    for person in 0..PEOPLE {
        for room in 0..ROOMS {
            world.lobby = (format!("room {room}"), room % workers);
            let latency = Duration::from_millis([10, 40, 90][(room + person) % 3]);
            let conditions = Conditions { latency, jitter: Duration::ZERO, ..Conditions::GOOD };
            let level = if person == 0 { -20 } else { -60 };
            let negotiation = if person == 1 { Negotiation::Dual } else { Negotiation::Single };
            let seed = (room * PEOPLE + person) as u64 + 1;
            let setup = Setup { conditions, level, negotiation, seed, ..Setup::default() };
            enter(&mut world, &format!("{room}-{person}"), setup);
        }
        world.run(SECOND / 2);
    }
    world.run_until(all_connected, 5 * SECOND).expect("all connect");
    world.run(3 * SECOND);
    for room in 0..ROOMS {
        let now = world.now;
        world.clients[room].send_data(now, "_reliable", &[room as u8; 3000]);
        world.clients[ROOMS + room].mute(1, true);
    }
    world.run(2 * SECOND);
    world.leave(1);
    world.clients[ROOMS].mute(1, false);
    world.run(3 * SECOND);
    world.clients.iter().map(|client| outcome(&world, client)).collect()
}

#[test]
fn a_call_is_the_same_on_one_worker_and_on_many() {
    let alone = calls(1);
    assert!(alone.iter().all(|o| o.streams.len() >= 4 && o.streams.iter().all(|packets| packets.len() > 20)));
    for workers in [2, 3] {
        for (client, (one, many)) in alone.iter().zip(calls(workers)).enumerate() {
            for (a, b) in one.streams.iter().zip(&many.streams) {
                let differs = a.iter().zip(b).position(|(a, b)| a != b);
                assert_eq!(differs.map(|at| (a[at], b[at])), None, "client {client}, {workers} workers");
            }
            assert_eq!(*one, many, "client {client}, {workers} workers");
        }
    }
}
