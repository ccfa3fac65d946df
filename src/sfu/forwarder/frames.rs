//! Which of the last frames were sent on, so that all packets of a frame share its fate, late ones too, and no frame goes
//! out without those it needs.

use super::incoming::FrameId;
use crate::rtp::dependency_descriptor::FrameDiffs;

/// Frames remembered: more than a second of three spatial layers with 30 frames a second, and longer than
/// retransmissions take.
const WINDOW: u64 = 128;

/// Begins high enough to look back from.
const ORIGIN: u64 = 1 << 32;

#[derive(Debug, Clone)]
pub struct Frames {
    /// The first frame of the splice; what is older was never sent.
    first: u64,
    newest: u64,
    /// For each of the last [`WINDOW`] ids one bit a layer: decided, and dropped.
    known: [u8; WINDOW as usize],
    dropped: [u8; WINDOW as usize],
}

impl Frames {
    /// Begins with a frame that is sent.
    pub fn new(id: FrameId) -> Self {
        let first = ORIGIN + u64::from(id.number);
        let mut frames = Frames { first, newest: first, known: [0; WINDOW as usize], dropped: [0; WINDOW as usize] };
        frames.record(first, id.layer, true);
        frames
    }

    /// The id without its wrapping: the one nearest to the newest.
    pub fn extend(&self, id: FrameId) -> u64 {
        let modulus = 1u64 << id.bits;
        let ahead = u64::from(id.number).wrapping_sub(self.newest) & (modulus - 1);
        if ahead < modulus / 2 { self.newest + ahead } else { self.newest + ahead - modulus }
    }

    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether the frame was sent on; `None` when nothing was decided, or too long ago.
    pub fn state(&self, id: u64, layer: u8) -> Option<bool> {
        let bit = bit(layer);
        (self.remembers(id) && self.known[index(id)] & bit != 0).then(|| self.dropped[index(id)] & bit == 0)
    }

    pub fn record(&mut self, id: u64, layer: u8, sent: bool) {
        if id > self.newest {
            let from = (self.newest + 1).max(id.saturating_sub(WINDOW - 1));
            for between in from..=id {
                self.known[index(between)] = 0;
                self.dropped[index(between)] = 0;
            }
            self.newest = id;
        }
        if self.remembers(id) {
            self.known[index(id)] |= bit(layer);
            if !sent {
                self.dropped[index(id)] |= bit(layer);
            }
        }
    }

    /// Whether no frame that this one needs was left out. Those that never came may still come.
    pub fn has_all(&self, id: u64, layer: u8, references: &FrameDiffs) -> bool {
        references.as_slice().iter().all(|diff| {
            let needed = id - u64::from(*diff);
            needed >= self.first && self.state(needed, layer) != Some(false)
        })
    }

    /// How many frames after this one were left out.
    pub fn dropped_after(&self, id: u64) -> u16 {
        let from = (id + 1).max(self.newest.saturating_sub(WINDOW - 1));
        (from..=self.newest).filter(|&id| self.dropped[index(id)] != 0).count() as u16
    }

    fn remembers(&self, id: u64) -> bool {
        id <= self.newest && self.newest - id < WINDOW
    }
}

fn index(id: u64) -> usize {
    (id % WINDOW) as usize
}

/// Layers above the ninth share a bit: none is ever sent.
fn bit(layer: u8) -> u8 {
    1 << layer.min(7)
}
