//! What a packet costs on its way through a room: taken in, cached, rewritten and encrypted for everyone who gets it, up to
//! the buffer that goes to the kernel.
//!
//! `cargo bench --bench forwarding`; one core. Rooms are the simulation's, with real clients, whose work is not measured; of the
//! SFU's work that which their feedback makes is left out. The counter is packets forwarded.

#[path = "../tests/simulation/client.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod client;
#[path = "../tests/simulation/media.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod media;
#[path = "../tests/simulation/network.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod network;
#[path = "../tests/simulation/oracle.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod oracle;
#[path = "../tests/simulation/peer.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod peer;
#[path = "../tests/simulation/receiver.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod receiver;
#[path = "../tests/simulation/seals.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod seals;
#[path = "../tests/simulation/world.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod world;

use std::cell::RefCell;
use std::time::Duration;

use client::{Setup, Source};
use divan::Bencher;
use divan::counter::ItemsCount;
use network::{Conditions, Packet};
use parlour::sfu::Now;
use world::World;

/// What one sample takes in: a frame of every camera.
const FRAME: Duration = Duration::from_millis(50);
/// Samples that tell how many packets each forwards.
const WARM_UP: u64 = 20;
/// Packets of a frame.
const FRAME_PACKETS: u8 = 5;

fn main() {
    divan::main();
}

/// A room in which everybody sees every publisher.
fn room(publishers: usize, listeners: usize) -> World {
    let mut world = World::new(9);
    for n in 0..publishers + listeners {
        // A frame arrives in one piece, but every camera's at its own time.
        let conditions = Conditions { jitter: Duration::ZERO, ..Conditions::GOOD };
        let setup = Setup { seed: n as u64 + 1, conditions, ..Setup::default() };
        let client = world.join_with(&format!("p{n}"), setup);
        if client < publishers {
            let now = world.now;
            world.clients[client].publish_microphone(now);
            let camera = world.clients[client].publish_camera(now, true);
            let Source::Camera(camera) = &mut world.clients[client].tracks[camera].source else { continue };
            camera.set_packets(FRAME_PACKETS);
        }
        world.run(Duration::from_millis(7));
    }
    let sees = |w: &World, viewer: usize, publisher: usize| {
        viewer == publisher || !w.clients[viewer].diary.from(publisher, true).is_empty()
    };
    let all_see = |w: &World| (0..w.clients.len()).all(|v| (0..publishers).all(|p| sees(w, v, p)));
    world.run_until(all_see, Duration::from_secs(60)).expect("everybody sees everybody");
    world.run(Duration::from_secs(1));
    world
}

fn measure(bencher: Bencher, publishers: usize, listeners: usize) {
    let world = RefCell::new(room(publishers, listeners));
    let arrivals = || {
        let mut world = world.borrow_mut();
        // The time that the work on those before takes.
        world.now += FRAME;
        world.held = Some(Vec::new());
        world.run(FRAME);
        let later = |now: Now| Now { instant: now.instant + FRAME, unix_ms: now.unix_ms + FRAME.as_millis() as u64 };
        let held = world.held.take().unwrap_or_default();
        held.into_iter().map(|(now, packet)| (later(now), packet)).collect::<Vec<_>>()
    };
    let work = |packets: &[(Now, Packet)]| {
        let mut world = world.borrow_mut();
        // A turn for each moment at which something came.
        for turn in packets.chunk_by(|a, b| a.0.instant == b.0.instant) {
            turn.iter().for_each(|(now, packet)| world.receive(*now, packet));
            while world.sfu.drive(turn[0].0) {
                world.sfu.outbox().clear();
            }
            world.sfu.outbox().clear();
        }
    };
    let before = world.borrow().sfu.counts().packets_forwarded;
    (0..WARM_UP).for_each(|_| work(&arrivals()));
    let each = (world.borrow().sfu.counts().packets_forwarded - before) / WARM_UP;
    bencher.with_inputs(arrivals).counter(ItemsCount::new(each)).bench_local_values(|packets| work(&packets));
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn lecture_1_to_200(bencher: Bencher) {
    measure(bencher, 1, 200);
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn meeting_50_by_50(bencher: Bencher) {
    measure(bencher, 50, 0);
}
