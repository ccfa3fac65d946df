//! Identifiers and secrets, drawn from a seed that the caller took from the system's randomness.
//!
//! Keeping the generator here makes the whole SFU repeatable under test: one seed, one run.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Now;
use super::info::{MediaKind, Sid, TrackSource};
use crate::transport::{IceCredentials, NewConnection};

/// Without 0/O, 1/I/l: sids end up in logs and are read aloud.
const SID_ALPHABET: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const SID_CHARS: usize = 12;
/// ice-chars of RFC 8839 §5.4 that need no escaping anywhere.
const ICE_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// RFC 8839 asks for 4; more keep a flood of guesses from hitting a session. The first tells the worker.
const UFRAG_CHARS: usize = 16;
/// RFC 8839 asks for 22 (128 bits).
const PASSWORD_CHARS: usize = 24;

/// One of the workers of a node, numbered from 0. Every ICE user fragment begins with its worker's letter, so a check that
/// arrives at another worker's socket is known for whose it is without a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(u8);

impl WorkerId {
    /// As many as one letter can tell apart.
    pub const MAX: usize = ICE_ALPHABET.len();
    pub const FIRST: WorkerId = WorkerId(0);

    /// `None` past [`Self::MAX`].
    pub fn new(index: usize) -> Option<WorkerId> {
        (index < Self::MAX).then_some(WorkerId(index as u8))
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Whose connection a user fragment names. Not authenticated: anybody can write one.
    pub fn of_ufrag(ufrag: &str) -> Option<WorkerId> {
        let letter = ufrag.bytes().next()?;
        WorkerId::new(ICE_ALPHABET.iter().position(|known| *known == letter)?)
    }

    fn letter(self) -> char {
        char::from(ICE_ALPHABET[self.index()])
    }
}

pub(super) struct Ids {
    rng: StdRng,
    worker: WorkerId,
}

impl Ids {
    pub fn new(seed: [u8; 32]) -> Self {
        Ids { rng: StdRng::from_seed(seed), worker: WorkerId::FIRST }
    }

    pub fn set_worker(&mut self, worker: WorkerId) {
        self.worker = worker;
    }

    fn text(&mut self, alphabet: &[u8], chars: usize) -> String {
        (0..chars).map(|_| char::from(alphabet[self.rng.random_range(0..alphabet.len())])).collect()
    }

    fn sid(&mut self, prefix: &str) -> Sid {
        Sid(Arc::from(format!("{prefix}{}", self.text(SID_ALPHABET, SID_CHARS))))
    }

    pub fn room(&mut self) -> Sid {
        self.sid("RM_")
    }

    pub fn participant(&mut self) -> Sid {
        self.sid("PA_")
    }

    /// The letters after `TR_` tell a reader of logs what the track is; clients rely on `TR_` only.
    pub fn track(&mut self, kind: MediaKind, source: TrackSource) -> Sid {
        self.sid(match (kind, source) {
            (_, TrackSource::Camera) => "TR_VC",
            (_, TrackSource::ScreenShare) => "TR_VS",
            (_, TrackSource::Microphone) => "TR_AM",
            (_, TrackSource::ScreenShareAudio) => "TR_As",
            (MediaKind::Audio, TrackSource::Unknown) => "TR_A",
            (MediaKind::Video, TrackSource::Unknown) => "TR_V",
        })
    }

    pub fn ice(&mut self) -> IceCredentials {
        let random = self.text(ICE_ALPHABET, UFRAG_CHARS - 1);
        IceCredentials {
            ufrag: format!("{}{random}", self.worker.letter()),
            password: self.text(ICE_ALPHABET, PASSWORD_CHARS),
        }
    }

    pub fn connection(&mut self, now: Now) -> NewConnection {
        NewConnection {
            ice: self.ice(),
            // 62 bits, as RFC 9429 §5.2.1 recommends.
            session_id: self.rng.random::<u64>() >> 2,
            seed: self.rng.random(),
            now: now.instant,
            unix_time: Duration::from_millis(now.unix_ms),
        }
    }

    pub fn first_sequence(&mut self) -> u16 {
        self.rng.random()
    }

    pub fn first_timestamp(&mut self) -> u32 {
        self.rng.random()
    }

    /// LiveKit starts its offer numbers somewhere in 1..=256.
    pub fn first_offer(&mut self) -> u32 {
        self.rng.random_range(1..=256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_tells_its_worker() {
        for index in 0..WorkerId::MAX {
            let worker = WorkerId::new(index).unwrap();
            let mut ids = Ids::new([7; 32]);
            ids.set_worker(worker);
            let ice = ids.ice();
            assert_eq!(ice.ufrag.len(), UFRAG_CHARS);
            assert_eq!(WorkerId::of_ufrag(&ice.ufrag), Some(worker));
            assert_ne!(ids.ice().ufrag, ice.ufrag);
        }
        assert_eq!(WorkerId::new(WorkerId::MAX), None);
        for foreign in ["", "/abc", "+abc", "ä"] {
            assert_eq!(WorkerId::of_ufrag(foreign), None, "{foreign}");
        }
    }
}
