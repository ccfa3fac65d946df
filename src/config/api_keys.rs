//! The API keys that sign access tokens: the configured ones, else the one generated at the first start.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rand::RngExt;
use rand::distr::Alphanumeric;
use zeroize::Zeroizing;

use super::{Config, Problem, Secret};
use crate::livekit::access_token::Keys;

/// Inside `data_dir`.
const FILE: &str = "keys.toml";

/// Characters of a generated secret: 62 possible ones each, so 285 bits, more than the hash that uses them has.
const SECRET_LENGTH: usize = 48;

/// Characters after `API` in the name of a generated key, as LiveKit's own generator does it.
const NAME_LENGTH: usize = 12;

/// The configured keys, else those generated at an earlier start.
pub fn existing_api_keys(config: &Config) -> Result<Option<Keys>, Problem> {
    if let Some(keys) = keys(&config.keys) {
        return Ok(Some(keys));
    }
    let file = config.data_dir.join(FILE);
    if !file.exists() {
        return Ok(None);
    }
    match keys(&read(&file)?) {
        Some(keys) => Ok(Some(keys)),
        None => Err(problem("keys", format!("{} has no key; delete it and Parlour generates one", file.display()))),
    }
}

/// Creates `data_dir/keys.toml` (mode 0600) when no key is configured and none was generated before.
pub fn api_keys(config: &Config) -> Result<Keys, Problem> {
    match existing_api_keys(config)? {
        Some(keys) => Ok(keys),
        None => generate(&config.data_dir),
    }
}

fn keys(secrets: &BTreeMap<String, Secret>) -> Option<Keys> {
    Keys::new(secrets.iter().map(|(name, secret)| (name.as_str(), secret.expose())))
}

fn read(file: &Path) -> Result<BTreeMap<String, Secret>, Problem> {
    let failed = |what: String| problem("keys", format!("{}: {what}", file.display()));
    let mode = fs::metadata(file).map_err(|e| failed(e.to_string()))?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(failed(format!(
            "everybody on this machine can read it (mode {:o}); run `chmod 600` on it",
            mode & 0o777
        )));
    }
    let text = Zeroizing::new(fs::read_to_string(file).map_err(|e| failed(e.to_string()))?);
    let table: BTreeMap<String, String> =
        toml::from_str(&text).map_err(|e| failed(format!("expected lines like name = \"secret\": {}", e.message())))?;
    table.into_iter().map(|(name, secret)| Ok((name, Secret::new(secret).map_err(failed)?))).collect()
}

fn generate(folder: &Path) -> Result<Keys, Problem> {
    let file = folder.join(FILE);
    let failed = |what: &str, e: std::io::Error| {
        problem(
            "data_dir",
            format!(
                "cannot {what}: {e}; create the folder for the user that runs Parlour, or set data_dir to another one"
            ),
        )
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| failed(&format!("create {}", folder.display()), e))?;

    let name = format!("API{}", random(NAME_LENGTH));
    let secret = Zeroizing::new(random(SECRET_LENGTH));
    let text = Zeroizing::new(format!(
        "# Signs access tokens. Made by Parlour at its first start.\n{name} = \"{}\"\n",
        *secret
    ));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()))
        .map_err(|e| failed(&format!("write {}", file.display()), e))?;
    Keys::new([(name.as_str(), secret.as_str())]).ok_or_else(|| problem("keys", "no key was generated".to_owned()))
}

fn random(length: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(length).map(char::from).collect()
}

fn problem(key: &str, what: String) -> Problem {
    Problem { key: key.to_owned(), place: None, what }
}
