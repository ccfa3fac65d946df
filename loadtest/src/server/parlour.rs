//! Parlour, started for one run.

use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{LOOPBACK, Spawned, StartError, free_port};

/// The API key that the generator signs its tokens with.
pub const KEY: &str = "loadtest";
pub const SECRET: &str = "loadtest-0123456789-0123456789-0123456789";

/// Above what fits on a machine.
const MOST_PARTICIPANTS: u32 = 100_000;

/// More than there are relay ports.
const MOST_ALLOCATIONS: u32 = 100_000;
/// More than a core relays.
const MOST_MEGABITS: u32 = 10_000;

/// A configuration for a run on this machine: no limit that a load test would meet.
pub fn config(http_port: u16, media_port: u16, data_dir: &str) -> String {
    format!(
        r#"server_name = "loadtest.example"
homeserver = "http://127.0.0.1:1"
public_url = "http://127.0.0.1:{http_port}"
data_dir = "{data_dir}"
[http]
listen = "127.0.0.1:{http_port}"
[media]
udp = "127.0.0.1:{media_port}"
tcp = "127.0.0.1:{media_port}"
public_addresses = ["127.0.0.1"]
[keys]
{KEY} = "{SECRET}"
[limits]
participants_per_room = {MOST_PARTICIPANTS}
participants = {MOST_PARTICIPANTS}
joins_per_minute = {MOST_PARTICIPANTS}
tokens_per_minute = {MOST_PARTICIPANTS}
[turn]
shared_secret = "{SECRET}"
allocations_per_user = {MOST_ALLOCATIONS}
allocations_per_address = {MOST_ALLOCATIONS}
allocations = {MOST_ALLOCATIONS}
megabits_per_allocation = {MOST_MEGABITS}
megabits_per_user = {MOST_MEGABITS}
[log]
level = "warn"
"#
    )
}

/// Starts `binary` on `cores`. Gives the server, its signalling URL, and where it has media and TURN.
pub fn spawn(binary: Option<PathBuf>, cores: &[usize]) -> Result<(Spawned, String, SocketAddr), StartError> {
    let binary = match binary {
        Some(binary) => binary,
        None => beside_us()?,
    };
    let (http, media) = (free_port()?, free_port()?);
    let folder = TempDir::with_prefix("parlour-loadtest-")?;
    let file = folder.path().join("parlour.toml");
    std::fs::write(&file, config(http, media, &folder.path().join("data").display().to_string()))?;
    let arguments = ["serve".into(), "--config".into(), file.display().to_string()];
    let server = Spawned::start(&binary, &arguments, cores, http, folder)?;
    Ok((server, format!("ws://{LOOPBACK}:{http}"), SocketAddr::new(LOOPBACK, media)))
}

/// The server that was built together with the generator.
fn beside_us() -> Result<PathBuf, StartError> {
    let missing = |why: String| StartError::Missing("the parlour binary".into(), why);
    let own = std::env::current_exe().map_err(|error| missing(error.to_string()))?;
    let binary = own.with_file_name("parlour");
    if binary.exists() {
        return Ok(binary);
    }
    Err(missing(format!(
        "it is not at {}; build it with `cargo build --release -p parlour`, or name it with --server-binary",
        binary.display()
    )))
}
