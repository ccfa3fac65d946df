//! Between two sizes of a sweep of which the first was too much. A server that was offered too much goes on being busy: the
//! receivers ask for what they lost, and what it sends them again keeps others from theirs. Measured in that state the next size
//! seems too large as well, so it begins with a server that nobody has asked anything of yet. Called by [`Run`](super::Run).

use std::io;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::driver::Driver;
use crate::server::StartError;
use crate::server::process::Process;

/// A server that nobody talks to uses less of a core than this: its timers, and somebody who reads its metrics.
const IDLE_CORES: f64 = 0.05;
/// Kernels count CPU time in hundredths of a second: of a second, that is one percent.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A server that has not come to rest by then, without clients, has another problem.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to leave a server alone whose CPU time nobody can read: its queues are empty much sooner without clients.
pub(super) const BLIND_WAIT: Duration = Duration::from_secs(5);

/// Ends a server and starts another, and says how that is reached.
pub type Restart = Box<dyn FnMut() -> Result<(Driver, Process), StartError>>;

pub enum Afresh {
    /// The server was started for this run: the next size gets a new one.
    Restart(Restart),
    /// It is somebody else's: everybody leaves, and comes again when it is idle.
    Wait,
}

/// Waits until `process` does next to nothing, at most for `longest`. False when it never came to rest.
pub(super) async fn until_idle(process: &Process, longest: Duration, progress: &ProgressBar) -> io::Result<bool> {
    let begun = Instant::now();
    let mut before = (begun, process.usage()?.cpu());
    while begun.elapsed() < longest {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let now = (Instant::now(), process.usage()?.cpu());
        let busy = now.1.saturating_sub(before.1).as_secs_f64() / (now.0 - before.0).as_secs_f64();
        if busy <= IDLE_CORES {
            return Ok(true);
        }
        before = now;
        progress.set_message(format!("waiting until the server is idle: {busy:.2} cores"));
        progress.set_position(begun.elapsed().as_millis() as u64);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A shell that ends with this value.
    struct Shell(Child);

    impl Shell {
        fn run(script: &str) -> Shell {
            Shell(Command::new("sh").args(["-c", script]).stdout(Stdio::null()).spawn().unwrap())
        }

        fn comes_to_rest(&self, longest: Duration) -> bool {
            let process = Process::new(self.0.id()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(until_idle(&process, longest, &ProgressBar::hidden())).unwrap()
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_process_that_rests_is_idle_and_one_that_works_is_not() {
        // The end of a pipe that nobody writes to.
        let resting = Shell(Command::new("cat").stdin(Stdio::piped()).spawn().unwrap());
        assert!(resting.comes_to_rest(Duration::from_secs(60)));
        assert!(!Shell::run("while :; do :; done").comes_to_rest(Duration::from_secs(2)));
    }

    #[test]
    fn work_that_ends_is_waited_for() {
        let begun = Instant::now();
        let busy = Shell::run("trap 'exec sleep 100' USR1; (sleep 3; kill -USR1 $$) & while :; do :; done");
        assert!(busy.comes_to_rest(Duration::from_secs(60)));
        assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}
