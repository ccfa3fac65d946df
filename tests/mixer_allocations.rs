//! Mixing takes no memory: buffers are made when somebody comes, and are as large then as they will ever be. The codec is not
//! seen by this allocator; it allocates nothing but its state when it is made.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opus::{Application, Bitrate, Channels, Encoder};
use parlour::mixer::{AudioPacket, FRAME, Mixer, SAMPLE_RATE, SourceId, Start, TICK};
use parlour::sfu::Codec;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The system's allocator, which counts what this thread takes.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// A second of a tone, and its level.
fn tone(hz: f32, amplitude: f32) -> Vec<Arc<[u8]>> {
    let mut encoder = Encoder::new(SAMPLE_RATE, Channels::Mono, Application::Voip).expect("an encoder");
    encoder.set_bitrate(Bitrate::Bits(32_000)).expect("a rate");
    let wave = |n: usize| (n as f32 * hz / SAMPLE_RATE as f32 * std::f32::consts::TAU).sin() * amplitude;
    let frame = |second: usize| (0..FRAME).map(|n| wave(second * FRAME + n)).collect::<Vec<f32>>();
    (0..50).map(|n| Arc::from(encoder.encode_vec_float(&frame(n), 1500).expect("a frame"))).collect()
}

struct Caller {
    source: SourceId,
    packets: Vec<Arc<[u8]>>,
    sequence: u64,
}

/// Four callers who take turns in speaking, on lines that lose, delay and swap packets: everything that happens in a call.
#[test]
fn mixing_takes_no_memory() {
    let mut now = Instant::now();
    let mut mixer = Mixer::new(now, 3);
    let mut callers = Vec::new();
    for n in 0..4 {
        let listener = mixer.add_listener(Start::default());
        let source = mixer.add_source(Some(listener));
        callers.push(Caller { source, packets: tone(300.0 + 200.0 * n as f32, 0.2), sequence: 0 });
        mixer.set_loss(listener, if n == 0 { 0.2 } else { 0.0 });
    }
    let (mut dice, mut sent, mut bytes) = (fastrand::Rng::with_seed(1), 0u64, 0usize);
    for tick in 0..6000u64 {
        if tick == 1000 {
            COUNT.set(0);
        }
        for (n, caller) in callers.iter_mut().enumerate() {
            let sequence = caller.sequence;
            caller.sequence += 1;
            if dice.u32(0..10) == 0 {
                continue;
            }
            let speaks = (tick / 400) % 4 == n as u64 || n == 3;
            let packet = AudioPacket {
                codec: Codec::Opus,
                sequence,
                restarted: false,
                timestamp: (sequence as u32).wrapping_mul(FRAME as u32),
                payload: Arc::clone(&caller.packets[(sequence % 50) as usize]),
                // One tells no level.
                level: (n != 3).then_some(if speaks { 20 } else { 100 }),
                arrival: now + Duration::from_millis(dice.u64(0..40)),
            };
            mixer.push(caller.source, &packet);
        }
        now += TICK;
        mixer.tick(now, |_, packet| {
            sent += 1;
            bytes += packet.payload.len();
        });
    }
    let allocations = COUNT.get();
    assert!(sent >= 4 * 6000 && bytes > 50 * sent as usize, "{sent} packets, {bytes} bytes");
    assert_eq!(allocations, 0);
}
