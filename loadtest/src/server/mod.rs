//! The server under test: started here on a core of its own, or running already; and what it costs.

pub mod coturn;
pub mod janus;
pub mod parlour;
pub mod process;
pub mod syscalls;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::machine;

/// A server that needs longer to open its port has a problem that the user should see.
const START_TIMEOUT: Duration = Duration::from_secs(15);
/// It may say goodbye to thousands of clients.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of the server's log that are shown when it does not start.
const LOG_LINES: usize = 15;

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot find {0}: {1}")]
    Missing(String, String),
    #[error("cannot start {program}: {error}")]
    Start { program: String, error: io::Error },
    #[error("{program} did not open port {port} within {} s; the end of its log:\n{log}", START_TIMEOUT.as_secs())]
    Silent { program: String, port: u16, log: String },
    #[error("{program} ended at once ({status}); the end of its log:\n{log}")]
    Ended { program: String, status: String, log: String },
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A server that ends with this value.
pub struct Spawned {
    child: Child,
    /// Its config, data and log.
    folder: TempDir,
}

impl Spawned {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> PathBuf {
        log_of(self.folder.path())
    }

    /// Starts `program` on `cores`, and waits until it listens on `port`.
    fn start(
        program: &Path,
        arguments: &[String],
        cores: &[usize],
        port: u16,
        folder: TempDir,
    ) -> Result<Spawned, StartError> {
        let name = program.display().to_string();
        let log = File::create(log_of(folder.path()))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let cores = cores.to_vec();
        // A child inherits the cores of the thread that starts it.
        let started = std::thread::spawn(move || {
            machine::pin_thread(&cores)?;
            command.spawn()
        });
        let started = started.join().unwrap_or_else(|_| Err(io::Error::other("the starting thread panicked")));
        let child = started.map_err(|error| StartError::Start { program: name.clone(), error })?;
        let mut server = Spawned { child, folder };
        let begun = Instant::now();
        while TcpStream::connect((LOOPBACK, port)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(StartError::Ended { program: name, status: status.to_string(), log: server.log_end() });
            }
            if begun.elapsed() > START_TIMEOUT {
                return Err(StartError::Silent { program: name, port, log: server.log_end() });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// The last lines it wrote.
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        if end.is_empty() { "(empty)".into() } else { end }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // SAFETY: the child is ours and was not waited for, so its number is not anybody else's.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let begun = Instant::now();
        while begun.elapsed() < STOP_TIMEOUT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// A port that nobody listens on.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((LOOPBACK, 0))?.local_addr()?.port())
}
