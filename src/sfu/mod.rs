//! Data types of the room core, as far as the front doors name them.

use std::time::Duration;

mod event;
mod info;

pub use event::*;
pub use info::*;

/// How a room comes to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomOptions {
    pub empty_timeout: Duration,
    pub departure_timeout: Duration,
    /// 0 = no limit.
    pub max_participants: u32,
    pub metadata: String,
}

impl Default for RoomOptions {
    fn default() -> Self {
        RoomOptions {
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            max_participants: 0,
            metadata: String::new(),
        }
    }
}
