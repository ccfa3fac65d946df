//! The API keys that sign access tokens: the configured ones, else the one generated at the first start.

use std::collections::BTreeMap;
use std::path::Path;

use zeroize::Zeroizing;

use super::private_file::{self, problem};
use super::{Config, Problem, Secret};
use crate::livekit::access_token::Keys;

/// Inside `data_dir`.
const FILE: &str = "keys.toml";

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
    match keys(&private_file::read(&file, "keys")?) {
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

fn generate(folder: &Path) -> Result<Keys, Problem> {
    let name = format!("API{}", private_file::random(NAME_LENGTH));
    let secret = Zeroizing::new(private_file::random(private_file::SECRET_LENGTH));
    let comment = "Signs access tokens. Made by Parlour at its first start.";
    private_file::create(&folder.join(FILE), comment, &[(&name, &secret)])?;
    Keys::new([(name.as_str(), secret.as_str())]).ok_or_else(|| problem("keys", "no key was generated".to_owned()))
}
