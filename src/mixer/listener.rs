//! Listener: one who can take a single stream. What is sent to it is one stream without a seam, whatever mix it comes from.

use super::mix::Mix;
use super::{FRAME, Start};

/// A listener stays with a mix of his own for so many ticks after he was last in the common one: two seconds, so that the
/// encoder is not changed with every word.
const OWN_FOR: u64 = 100;

/// With this share of packets lost a listener gets those that are protected …
const PROTECTED_FROM: f32 = 0.03;
/// … until it is below this. Between the two reports of a second tell little.
const UNPROTECTED_BELOW: f32 = 0.01;

/// Weight of the newest report.
const LOSS_WEIGHT: f32 = 0.3;

#[derive(Debug)]
pub(super) struct Listener {
    /// All others without himself. Encoded only while he speaks.
    pub own: Mix,
    pub route: Option<Route>,
    /// The tick in which one of his sources was last heard.
    pub spoke: Option<u64>,
    loss: f32,
    protected: bool,
    sequence: u16,
    timestamp: u32,
    started: bool,
}

/// Which mix a listener gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Own,
    Common { protected: bool },
}

/// The numbers of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub sequence: u16,
    pub timestamp: u32,
    pub first: bool,
}

impl Listener {
    pub fn new(start: Start) -> Self {
        Listener {
            own: Mix::new(),
            route: None,
            spoke: None,
            loss: 0.0,
            protected: false,
            sequence: start.sequence,
            timestamp: start.timestamp,
            started: false,
        }
    }

    /// A report of the share that was lost, 0 to 1.
    pub fn set_loss(&mut self, share: f32) {
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        self.loss += (share - self.loss) * LOSS_WEIGHT;
        self.protected = self.loss >= if self.protected { UNPROTECTED_BELOW } else { PROTECTED_FROM };
        self.own.protect(self.loss_percent());
    }

    /// 0 = needs no protection.
    pub fn loss_percent(&self) -> u8 {
        if self.protected { (self.loss * 100.0).ceil() as u8 } else { 0 }
    }

    pub fn choose(&self, tick: u64) -> Route {
        let speaks = self.spoke.is_some_and(|spoke| tick - spoke < OWN_FOR);
        if speaks { Route::Own } else { Route::Common { protected: self.protected } }
    }

    pub fn number(&mut self) -> Numbers {
        let numbers = Numbers { sequence: self.sequence, timestamp: self.timestamp, first: !self.started };
        self.started = true;
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME as u32);
        numbers
    }

    /// Time passed in which nothing was sent.
    pub fn pause(&mut self, ticks: u64) {
        self.timestamp = self.timestamp.wrapping_add((ticks as u32).wrapping_mul(FRAME as u32));
    }
}
