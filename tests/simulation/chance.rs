//! The system's randomness, taken over. str0m walks its streams in the order of a `HashMap`, whose seed the standard
//! library asks of the system once per thread; with it fixed, two runs of a call send the same packets in the same order.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0x9e37_79b9_7f4a_7c15) };
}

/// Stands in for libc's. Keys that need to be secret do not come from here: aws-lc asks the kernel itself.
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    for offset in 0..length {
        let byte = STATE.with(|state| {
            let next = state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.set(next);
            (next >> 56) as u8
        });
        // SAFETY: the caller of getrandom(2) owns `length` bytes from `buffer` on.
        unsafe { buffer.add(offset).write(byte) };
    }
    length as isize
}

/// Runs on a thread of its own, where no chance was used up yet.
pub fn afresh<R: Send + 'static>(run: impl FnOnce() -> R + Send + 'static) -> R {
    std::thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
