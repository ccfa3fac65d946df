//! `[limits]`: how much of us one room, one address, one user and one server may take.

use super::positive;
use super::source::Source;

/// Above what a meeting with video needs and below what one core can forward at a time.
const PARTICIPANTS_PER_ROOM: u32 = 200;

/// What a machine with a few cores and 1 Gbit/s can carry when most of them listen.
const PARTICIPANTS: u32 = 2_000;

/// An office of a few hundred people behind one address may enter the same meeting at nine sharp, and every one of them
/// may need a second try; a script that guesses tokens needs far more.
const JOINS_PER_MINUTE: u32 = 600;

/// Each join asks for one token, for two when the client tries both dialects.
const TOKENS_PER_MINUTE: u32 = 600;

/// A person with a computer and a telephone, in a call or two with each, and the ghosts of a few page reloads.
const SESSIONS_PER_USER: u32 = 8;

/// As many as one room takes: a remote server's users all in one meeting of ours.
const SESSIONS_PER_SERVER: u32 = 200;

/// A device asks for two tokens per join, and a call across servers needs one from each; a client in a bad network tries
/// every few seconds.
const TOKENS_PER_MINUTE_PER_USER: u32 = 60;

/// As many as one address gets: a remote server stands for people behind many.
const TOKENS_PER_MINUTE_PER_SERVER: u32 = 600;

#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub participants_per_room: u32,
    /// Over all rooms.
    pub participants: u32,
    /// Per client address (IPv6: per /64).
    pub joins_per_minute: u32,
    /// Per client address (IPv6: per /64).
    pub tokens_per_minute: u32,
    /// Of one Matrix user, over all rooms and devices.
    pub sessions_per_user: u32,
    /// Of all users of one remote server.
    pub sessions_per_server: u32,
    pub tokens_per_minute_per_user: u32,
    /// Of all users of one remote server.
    pub tokens_per_minute_per_server: u32,
}

impl Limits {
    pub(super) fn read(s: &mut Source) -> Limits {
        let mut number = |key, default| s.value(key, positive, "a whole number of at least 1").unwrap_or(default);
        Limits {
            participants_per_room: number("limits.participants_per_room", PARTICIPANTS_PER_ROOM),
            participants: number("limits.participants", PARTICIPANTS),
            joins_per_minute: number("limits.joins_per_minute", JOINS_PER_MINUTE),
            tokens_per_minute: number("limits.tokens_per_minute", TOKENS_PER_MINUTE),
            sessions_per_user: number("limits.sessions_per_user", SESSIONS_PER_USER),
            sessions_per_server: number("limits.sessions_per_server", SESSIONS_PER_SERVER),
            tokens_per_minute_per_user: number("limits.tokens_per_minute_per_user", TOKENS_PER_MINUTE_PER_USER),
            tokens_per_minute_per_server: number("limits.tokens_per_minute_per_server", TOKENS_PER_MINUTE_PER_SERVER),
        }
    }
}
