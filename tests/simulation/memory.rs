//! How much memory is in use: the system's allocator, which counts for each thread what it took and has not given back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
    /// When the SFU began to work, and what it has taken since it was asked last.
    static ENTERED: Cell<i64> = const { Cell::new(0) };
    static TAKEN: Cell<i64> = const { Cell::new(0) };
}

/// Bytes that this thread has taken and not given back. A world lives on one thread.
pub fn live() -> i64 {
    LIVE.get()
}

/// For [`World::meter`](crate::world::World): notes what the SFU takes and gives back while it works.
pub fn meter(enters: bool) {
    if enters {
        ENTERED.set(live());
    } else {
        TAKEN.set(TAKEN.get() + live() - ENTERED.get());
    }
}

/// Bytes that the SFU has taken and not given back while it was metered.
pub fn taken() -> i64 {
    TAKEN.get()
}

fn count(bytes: i64) {
    LIVE.set(LIVE.get() + bytes);
}

fn size(layout: Layout) -> i64 {
    layout.size() as i64
}

// SAFETY: every call goes to the system's allocator as it came; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-size(layout));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        count(new as i64 - size(layout));
        unsafe { System.realloc(pointer, layout, new) }
    }
}
