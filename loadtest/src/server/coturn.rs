//! coturn as Debian packages it, started for one run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{LOOPBACK, Spawned, StartError, free_port};

const BINARIES: [&str; 2] = ["/usr/bin/turnserver", "/usr/local/bin/turnserver"];
pub const SECRET: &str = "loadtest-0123456789-0123456789-0123456789";

/// Where distributions put it.
pub fn installed() -> Option<PathBuf> {
    BINARIES.into_iter().map(Path::new).find(|path| path.exists()).map(Path::to_path_buf)
}

/// Starts coturn on `cores`, with a relay thread for each. Gives the server and its address; its secret is [`SECRET`].
pub fn spawn(binary: Option<PathBuf>, cores: &[usize]) -> Result<(Spawned, SocketAddr), StartError> {
    let cure = "install it (Debian: `apt-get install --no-install-recommends coturn`), or name it with --server-binary";
    let missing = || StartError::Missing("coturn".into(), cure.into());
    let binary = binary.or_else(installed).ok_or_else(missing)?;
    let folder = TempDir::with_prefix("coturn-loadtest-")?;
    let port = free_port()?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let mut arguments: Vec<String> = [
        "-n",
        "--use-auth-secret",
        "--realm=loadtest.example",
        // Peers are sockets of this machine, which coturn denies otherwise.
        "--allow-loopback-peers",
        "--no-cli",
        "--no-tls",
        "--no-dtls",
        "--no-rfc5780",
        "--log-file=stdout",
        "--simple-log",
    ]
    .map(String::from)
    .into();
    arguments.extend([
        format!("--static-auth-secret={SECRET}"),
        format!("--listening-ip={LOOPBACK}"),
        format!("--relay-ip={LOOPBACK}"),
        format!("--listening-port={port}"),
        format!("--relay-threads={}", cores.len()),
        format!("--userdb={}", file("database")),
        format!("--pidfile={}", file("pid")),
    ]);
    let server = Spawned::start(&binary, &arguments, cores, port, folder)?;
    Ok((server, SocketAddr::new(LOOPBACK, port)))
}
