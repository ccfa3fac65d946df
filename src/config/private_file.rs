//! Secrets that Parlour makes at its first start and keeps in `data_dir`, each kind in a file that only its user can read.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use rand::RngExt;
use rand::distr::Alphanumeric;
use zeroize::Zeroizing;

use super::{Problem, Secret};

/// Characters of a generated secret: 62 possible ones each, so 285 bits, more than the hash that uses them has.
pub const SECRET_LENGTH: usize = 48;

/// Reads lines of `name = "secret"`. A problem is one of the key that would be set instead.
pub fn read(file: &Path, key: &str) -> Result<BTreeMap<String, Secret>, Problem> {
    let failed = |what: String| problem(key, format!("{}: {what}", file.display()));
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

/// Writes a file that must not exist yet, and its folder when that is missing. `comment` is its first line.
pub fn create(file: &Path, comment: &str, secrets: &[(&str, &str)]) -> Result<(), Problem> {
    let failed = |what: &str, at: &Path, e: std::io::Error| {
        problem(
            "data_dir",
            format!(
                "cannot {what} {}: {e}; create the folder for the user that runs Parlour, or set data_dir to another one",
                at.display()
            ),
        )
    };
    let folder = file.parent().unwrap_or(file);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| failed("create", folder, e))?;
    let mut text = Zeroizing::new(format!("# {comment}\n"));
    for (name, secret) in secrets {
        text.extend([*name, " = \"", *secret, "\"\n"]);
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()))
        .and_then(|()| give_to_owner_of(folder, file))
        .map_err(|e| failed("write", file, e))
}

/// An administrator may be the first to run Parlour, as root; the server that comes after must read the file too.
fn give_to_owner_of(folder: &Path, file: &Path) -> std::io::Result<()> {
    const ROOT: u32 = 0;
    let (folder, owner) = (fs::metadata(folder)?, fs::metadata(file)?.uid());
    let is_ours = owner != ROOT || folder.uid() == ROOT;
    if is_ours { Ok(()) } else { chown(file, Some(folder.uid()), Some(folder.gid())) }
}

/// Random letters and digits.
pub fn random(length: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(length).map(char::from).collect()
}

pub fn problem(key: &str, what: String) -> Problem {
    Problem { key: key.to_owned(), place: None, what }
}
