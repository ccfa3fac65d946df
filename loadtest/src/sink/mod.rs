//! What a receiver makes of packets it does not decode: pure counting.

mod continuity;
mod window;

pub use continuity::{Arrival, Continuity};
pub use window::{Histogram, Window, record};
