//! Forwarding takes no memory: what a packet costs in allocations, it costs when it arrives, not for each who gets it.
//!
//! The whole SFU runs in virtual time as in the simulation, whose clients this borrows, under an allocator that counts.

#[path = "simulation/client.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod client;
#[path = "simulation/media.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod media;
#[path = "simulation/network.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod network;
#[path = "simulation/oracle.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod oracle;
#[path = "simulation/peer.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod peer;
#[path = "simulation/receiver.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod receiver;
#[path = "simulation/seals.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod seals;
#[path = "simulation/world.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use client::Setup;
use world::World;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The system's allocator, which counts what this thread takes while it is told to.
struct Counting;

thread_local! {
    static COUNTING: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn meter(on: bool) {
    COUNTING.set(on);
}

fn count() {
    if COUNTING.get() {
        COUNT.set(COUNT.get() + 1);
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[derive(Debug)]
struct Cost {
    allocations: u64,
    received: u64,
    forwarded: u64,
}

/// What ten seconds take of one who publishes voice and video to so many others.
fn lecture(listeners: usize) -> Cost {
    let mut world = World::new(5);
    let speaker = world.join("speaker");
    let now = world.now;
    world.clients[speaker].publish_microphone(now);
    world.clients[speaker].publish_camera(now, true);
    for n in 0..listeners {
        world.join_with(&format!("listener {n}"), Setup { seed: n as u64 + 2, ..Setup::default() });
    }
    let all_see = |w: &World| (1..=listeners).all(|n| w.clients[n].diary.from(speaker, true).len() == 1);
    world.run_until(all_see, Duration::from_secs(5)).expect("everybody sees the speaker");
    // Until every buffer has the size it needs.
    world.run(Duration::from_secs(5));
    let before = world.sfu.counts();
    COUNT.set(0);
    world.meter = meter;
    world.run(Duration::from_secs(10));
    world.meter = |_| {};
    let after = world.sfu.counts();
    Cost {
        allocations: COUNT.get(),
        received: after.packets_received - before.packets_received,
        forwarded: after.packets_forwarded - before.packets_forwarded,
    }
}

/// Eighteen more listeners send reports and checks, which cost about an allocation each; their packets are many more, and
/// would show at once if they cost any.
#[test]
fn forwarding_takes_no_memory() {
    let (few, many) = (lecture(2), lecture(20));
    assert!(few.forwarded > 2000 && many.forwarded > 9 * few.forwarded, "{few:?} {many:?}");
    // The speaker's packets are the same. What the others report costs something, what they are sent does not: that is five
    // times as many.
    let allocations = many.allocations.saturating_sub(few.allocations);
    let reports = many.received - few.received;
    assert!(allocations * 4 <= reports * 5, "{few:?} {many:?}");
}
