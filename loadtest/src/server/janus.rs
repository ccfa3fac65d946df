//! Janus 1.x as Debian packages it, started for one run: VideoRoom behind its WebSocket transport, and nothing else.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{LOOPBACK, Spawned, StartError, free_port};

/// Where distributions put plugins and transports, below the library folder of the architecture or not.
const LIBRARY_FOLDERS: [&str; 4] =
    ["/usr/lib/x86_64-linux-gnu/janus", "/usr/lib/aarch64-linux-gnu/janus", "/usr/lib/janus", "/opt/janus/lib/janus"];
const BINARIES: [&str; 2] = ["/usr/bin/janus", "/opt/janus/bin/janus"];

/// Starts Janus on `cores`, with its media at `local`. `loops` is its `event_loops`; 0 = a thread for each connection. Gives the server and its URL.
pub fn spawn(
    binary: Option<PathBuf>,
    cores: &[usize],
    loops: usize,
    local: IpAddr,
) -> Result<(Spawned, String), StartError> {
    let missing = |what: &str| {
        let cure =
            "install it (Debian: `apt-get install --no-install-recommends janus`), or name it with --server-binary";
        StartError::Missing(what.into(), cure.into())
    };
    let exists = |path: &PathBuf| path.exists();
    let binary = binary.or_else(|| BINARIES.map(PathBuf::from).into_iter().find(exists)).ok_or(missing("Janus"))?;
    let libraries = LIBRARY_FOLDERS.map(PathBuf::from).into_iter().find(exists).ok_or(missing("Janus' plugins"))?;
    let port = free_port()?;
    let folder = TempDir::with_prefix("janus-loadtest-")?;
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text);
    write("janus.jcfg", core_config(folder.path(), &libraries, loops, local)?)?;
    write("janus.plugin.videoroom.jcfg", "general: { }\n".into())?;
    write(
        "janus.transport.websockets.jcfg",
        format!("general: {{ json = \"compact\"\n ws = true\n ws_ip = \"{LOOPBACK}\"\n ws_port = {port}\n }}\n"),
    )?;
    let arguments = ["-F".into(), folder.path().display().to_string(), "--disable-colors".into()];
    let server = Spawned::start(&binary, &arguments, cores, port, folder)?;
    Ok((server, format!("ws://{LOOPBACK}:{port}")))
}

fn core_config(folder: &Path, libraries: &Path, loops: usize, local: IpAddr) -> Result<String, StartError> {
    let (plugins, transports) = (libraries.join("plugins"), libraries.join("transports"));
    let loops = if loops > 0 { format!("event_loops = {loops}") } else { String::new() };
    Ok(format!(
        r#"general: {{
  configs_folder = "{folder}"
  plugins_folder = "{plugins}"
  transports_folder = "{transports}"
  debug_level = 2
  {loops}
}}
nat: {{
  ice_lite = true
  ice_enforce_list = "{local}"
}}
plugins: {{ disable = "{other_plugins}" }}
transports: {{ disable = "{other_transports}" }}
"#,
        folder = folder.display(),
        plugins = plugins.display(),
        transports = transports.display(),
        other_plugins = all_but(&plugins, "videoroom")?,
        other_transports = all_but(&transports, "websockets")?,
    ))
}

/// The libraries of a folder, without the one that is wanted.
fn all_but(folder: &Path, wanted: &str) -> Result<String, StartError> {
    let names = std::fs::read_dir(folder)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let others: Vec<String> = names.filter(|name| name.ends_with(".so") && !name.contains(wanted)).collect();
    Ok(others.join(","))
}
