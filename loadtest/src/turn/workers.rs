//! All threads as one: commands to each, and their counts together.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use mio::Waker;

use super::Settings;
use super::allocation::Failure;
use super::worker::{Command, Resized, Worker};
use crate::sink::Window;

/// Longer than any allocation takes to fail.
const LONGEST_RAMP: Duration = Duration::from_secs(600);

pub struct Workers {
    threads: Vec<Thread>,
    settings: Settings,
}

struct Thread {
    /// `None` only while it is dropped.
    commands: Option<Sender<Command>>,
    waker: Waker,
}

/// Ends the thread.
impl Drop for Thread {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.waker.wake();
    }
}

/// How a change of size came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ramp {
    /// Allocations with a bound channel, of all.
    pub ready: usize,
    pub failures: BTreeMap<Failure, u64>,
    pub took: Duration,
}

impl Workers {
    pub fn start(settings: &Settings) -> io::Result<Workers> {
        let start = |index| {
            let (commands, receiver) = channel();
            let (mut worker, waker) = Worker::open(index, settings.clone(), receiver)?;
            std::thread::Builder::new().name(format!("turn-{index}")).spawn(move || worker.run())?;
            Ok(Thread { commands: Some(commands), waker })
        };
        let threads = (0..settings.threads.max(1)).map(start).collect::<io::Result<_>>()?;
        Ok(Workers { threads, settings: settings.clone() })
    }

    /// Makes it so many allocations, as fast as the server answers.
    pub fn resize(&self, size: usize) -> io::Result<Ramp> {
        let begun = Instant::now();
        let threads = self.threads.len();
        let replies: Vec<Receiver<Resized>> = self
            .threads
            .iter()
            .enumerate()
            .map(|(index, thread)| {
                let (reply, resized) = channel();
                // In a pair both are of one thread.
                let each = if self.settings.peer == super::Peer::Pair { 2 } else { 1 };
                let groups = size.div_ceil(each);
                let count = ((groups + threads - 1 - index) / threads * each).min(size);
                thread.command(Command::Resize { count, reply });
                resized
            })
            .collect();
        let mut ramp = Ramp::default();
        for reply in replies {
            let resized = reply.recv_timeout(LONGEST_RAMP).map_err(|_| ended())?;
            ramp.ready += resized.ready;
            for (failure, count) in resized.failures {
                *ramp.failures.entry(failure).or_default() += count;
            }
        }
        ramp.took = begun.elapsed();
        Ok(ramp)
    }

    pub fn set_traffic(&self, on: bool) {
        self.threads.iter().for_each(|thread| thread.command(Command::Traffic(on)));
    }

    /// What was counted since the last call.
    pub fn take_window(&self) -> io::Result<Window> {
        let ask = |thread: &Thread| {
            let (reply, window) = channel();
            thread.command(Command::TakeWindow { reply });
            window
        };
        let replies: Vec<_> = self.threads.iter().map(ask).collect();
        let mut all = Window::default();
        for reply in replies {
            all.add(&reply.recv().map_err(|_| ended())?);
        }
        Ok(all)
    }
}

impl Thread {
    /// A thread that has ended shows by the replies that do not come.
    fn command(&self, command: Command) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
        let _ = self.waker.wake();
    }
}

fn ended() -> io::Error {
    io::Error::other("a thread of the generator has ended")
}
