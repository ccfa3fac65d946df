//! The media worker: one thread that owns rooms, their signalling sessions and a socket.
//!
//! A turn: what is due goes out, then the wait, then datagrams from the socket and commands from `http`. Nothing here
//! blocks but that wait. A panic ends the rooms of this worker and no others: it starts anew with the same sockets.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{self, error::TryRecvError};
use tracing::error;

use super::rooms::{Command, Parts, Rooms};
use super::wire::{Traffic, Wire};
use crate::metrics::WorkerMeter;
use crate::sfu::{Now, WorkerId};

/// How often idle TCP connections are looked for and metrics are written.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// After the rooms were closed, their last packets and messages still have to leave.
const SHUTDOWN_LINGER: Duration = Duration::from_millis(300);
/// Commands carried out before packets get their turn.
const MAX_COMMANDS_PER_TURN: usize = 64;

/// How long a worker takes no new rooms after its second panic in a row; twice as long after each that follows. None after
/// the first, so that people are back in their call at once.
const FIRST_REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// A worker that lasted this long is no longer in a row of panics.
const CALM: Duration = Duration::from_secs(60);

pub(super) struct Worker {
    id: WorkerId,
    wire: Wire,
    rooms: Rooms,
    parts: Parts,
    commands: mpsc::Receiver<Command>,
    /// What the metrics know already.
    counted: Traffic,
    meter: WorkerMeter,
    /// Spent on anything but waiting, since the metrics were told.
    busy: Duration,
    /// Commands were left for the next turn.
    more_commands: bool,
    next_housekeeping: Instant,
    stop_at: Option<Instant>,
    panics: Panics,
}

impl Worker {
    pub fn new(id: WorkerId, wire: Wire, parts: Parts, commands: mpsc::Receiver<Command>) -> Worker {
        let meter = parts.metrics.worker(id);
        Worker {
            id,
            wire,
            rooms: Rooms::new(id, 0, &parts),
            parts,
            commands,
            counted: Traffic::default(),
            meter,
            busy: Duration::ZERO,
            more_commands: false,
            next_housekeeping: Instant::now(),
            stop_at: None,
            panics: Panics::default(),
        }
    }

    /// Until it is told to stop, or nobody is left who could.
    pub fn run(&mut self) {
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.turns())) {
            self.start_anew(message(&*panic));
        }
        self.keep_house(clock());
    }

    fn turns(&mut self) {
        let mut now = clock();
        while self.stop_at.is_none_or(|at| now.instant < at) {
            self.wire.handle_timeout(now);
            self.rooms.handle_timeout(now, &mut self.wire);
            let done = Instant::now();
            self.busy += done.saturating_duration_since(now.instant);
            self.wire.wait(self.idle(done));
            // The one look at the clock for all that is read and sent in this turn.
            now = clock();
            self.wire.receive(now, self.rooms.sfu());
            self.take_commands(now);
            if now.instant >= self.next_housekeeping {
                self.keep_house(now);
            }
        }
    }

    /// How long nothing is due.
    fn idle(&self, now: Instant) -> Duration {
        if self.more_commands {
            return Duration::ZERO;
        }
        let due = [self.rooms.next_timeout(), self.wire.next_timeout(), Some(self.next_housekeeping), self.stop_at];
        let next = due.into_iter().flatten().min().unwrap_or(self.next_housekeeping);
        next.saturating_duration_since(now)
    }

    fn take_commands(&mut self, now: Now) {
        self.more_commands = false;
        for _ in 0..MAX_COMMANDS_PER_TURN {
            match self.commands.try_recv() {
                Ok(command) => {
                    if matches!(command, Command::ShutDown) {
                        self.stop_at.get_or_insert(now.instant + SHUTDOWN_LINGER);
                    }
                    self.rooms.carry_out(now, command, &mut self.wire);
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.stop_at.get_or_insert(now.instant);
                    return;
                }
            }
        }
        self.more_commands = true;
    }

    fn keep_house(&mut self, now: Now) {
        self.next_housekeeping = now.instant + HOUSEKEEPING;
        self.wire.close_idle(now);
        self.rooms.count();
        self.wire.relay.count(&self.parts.metrics);
        let traffic = self.wire.traffic();
        self.parts.metrics.traffic(&traffic, &self.counted);
        self.counted = traffic;
        self.meter.busy_seconds.inc_by(std::mem::take(&mut self.busy).as_secs_f64());
    }

    // --- panics --------------------------------------------------------------------------------------------------

    /// Everything that could be part of what went wrong is made anew; the sockets stay.
    fn start_anew(&mut self, message: &str) {
        let now = Instant::now();
        let rest = self.panics.add(now);
        // Whatever state the rooms are in.
        let lost = catch_unwind(AssertUnwindSafe(|| self.rooms.lost())).unwrap_or_default();
        error!(
            worker = self.id.index(),
            rooms = lost.rooms,
            participants = lost.participants,
            "a media worker panicked; its rooms end, and it starts anew: {message}"
        );
        self.parts.metrics.worker_panics.inc();
        self.parts.directory.withdraw(self.id, now + rest.takes);
        self.wire.lose_connections();
        let rooms = std::mem::replace(&mut self.rooms, Rooms::new(self.id, self.panics.all, &self.parts));
        // Closes the clients' signalling, so that they come back.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(rooms)));
        // Commands may wait that no wake-up tells of again.
        self.more_commands = true;
        if rest.asleep {
            std::thread::sleep(rest.takes);
        }
    }
}

/// How often and how lately.
#[derive(Default)]
struct Panics {
    all: u32,
    in_a_row: u32,
    last: Option<Instant>,
    rested_at: Option<Instant>,
}

struct Rest {
    takes: Duration,
    /// It panicked without new rooms that could be to blame: nothing helps but to do nothing.
    asleep: bool,
}

impl Panics {
    fn add(&mut self, now: Instant) -> Rest {
        let calm = self.last.is_none_or(|last| now.saturating_duration_since(last) >= CALM);
        self.in_a_row = if calm { 0 } else { self.in_a_row + 1 };
        self.last = Some(now);
        self.all += 1;
        let takes = match self.in_a_row.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => (FIRST_REST * 2u32.pow(doublings.min(16))).min(LONGEST_REST),
        };
        let rested_at = self.rested_at.replace(now + takes);
        Rest { takes, asleep: rested_at.is_some_and(|at| now < at) }
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn clock() -> Now {
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    Now { instant: Instant::now(), unix_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_with_panics_in_a_row() {
        let mut panics = Panics::default();
        let start = Instant::now();
        let rest = panics.add(start);
        assert_eq!((rest.takes, rest.asleep), (Duration::ZERO, false));
        let rest = panics.add(start);
        assert_eq!((rest.takes, rest.asleep), (FIRST_REST, false));
        let rest = panics.add(start + FIRST_REST / 2);
        assert_eq!((rest.takes, rest.asleep), (FIRST_REST * 2, true), "while it rested");
        let mut now = start + 10 * FIRST_REST;
        for _ in 0..40 {
            let rest = panics.add(now);
            assert!(rest.takes <= LONGEST_REST && !rest.asleep);
            now += rest.takes;
        }
        assert_eq!(panics.add(now).takes, LONGEST_REST);
        assert_eq!(panics.add(now + LONGEST_REST + CALM).takes, Duration::ZERO);
        assert_eq!(panics.all, 45);
    }
}
