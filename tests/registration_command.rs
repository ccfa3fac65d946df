//! `parlour registration` as an operator meets it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

struct Operator {
    folder: tempfile::TempDir,
}

impl Operator {
    /// `more`: TOML that starts with a section.
    fn with(more: &str) -> Operator {
        let operator = Operator { folder: tempfile::tempdir().unwrap() };
        let text = format!(
            "server_name = \"matrix.example.org:8448\"\nhomeserver = \"http://127.0.0.1:8008\"\npublic_url = \"https://rtc.example.org\"\ndata_dir = {:?}\n{more}",
            operator.path("data")
        );
        fs::write(operator.path("parlour.toml"), text).unwrap();
        operator
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn runs(&self, command: &str, more: &[&str]) -> Output {
        let config = self.path("parlour.toml");
        let arguments = [command, "--config", config.to_str().unwrap()];
        Command::new(env!("CARGO_BIN_EXE_parlour")).args(arguments).args(more).env_clear().output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Each line is `key: JSON`, but for the namespaces, which are YAML's own way of JSON.
fn entries(yaml: &str) -> BTreeMap<String, Value> {
    let lines = yaml.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (key, value) = line.split_once(": ").unwrap();
            let quoted =
                ["users", "exclusive", "regex", "aliases", "rooms"].iter().fold(value.to_owned(), |value, name| {
                    if key == "namespaces" {
                        value.replace(&format!("{name}: "), &format!("\"{name}\": "))
                    } else {
                        value
                    }
                });
            (key.to_owned(), serde_json::from_str(&quoted).unwrap_or_else(|e| panic!("{line}: {e}")))
        })
        .collect()
}

/// Trap: Synapse ignores a misspelled key, `…msc4502.scope` for one, and does not start with an unknown scope.
#[test]
fn trap_18_the_registration_has_what_synapse_reads() {
    let operator = Operator::with("[appservice]\nenabled = true\nlisten = \"127.0.0.1:8090\"\n");
    let output = operator.runs("registration", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut entries = entries(&text(&output.stdout));
    let tokens = [entries.remove("as_token").unwrap(), entries.remove("hs_token").unwrap()];
    assert!(tokens[0] != tokens[1] && tokens.iter().all(|token| token.as_str().unwrap().len() >= 32));
    let expected = json!({
        "id": "parlour",
        "url": "http://127.0.0.1:8090",
        "sender_localpart": "parlour",
        "rate_limited": false,
        "namespaces": {
            "users": [
                {"exclusive": true, "regex": "^@parlour:matrix\\.example\\.org\\:8448$"},
                {"exclusive": false, "regex": "^@.*:matrix\\.example\\.org\\:8448$"},
            ],
            "aliases": [],
            "rooms": [],
        },
        "io.element.msc4502.scopes": ["urn:matrix:client:io.element.msc4502:rooms:is_joined"],
        "io.element.msc4512.proxy_prefix": "rtc/livekit",
        "io.element.msc4512.proxy_url": "http://127.0.0.1:8090",
    });
    assert_eq!(json!(entries), expected);

    let said = text(&output.stderr);
    for part in [
        "app_service_config_files:\n    - /etc/matrix-synapse/parlour.yaml\n",
        "msc4502_enabled: true",
        "msc4512_enabled: true",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("[appservice]"), "{said}");
    assert_eq!(text(&operator.runs("registration", &[]).stdout), text(&output.stdout), "the tokens stay");
}

#[test]
fn the_registration_can_be_read_by_its_owner_alone() {
    let operator = Operator::with("");
    let target = operator.path("registration.yaml");
    let write = || operator.runs("registration", &["--output", target.to_str().unwrap()]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let output = write();
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(mode(&target), 0o600);
    let said = text(&output.stderr);
    assert!(said.contains(&format!("    - {}\n", target.canonicalize().unwrap().display())), "{said}");
    assert!(
        said.starts_with("Parlour itself needs, in its configuration:\n  [appservice]\n  enabled = true\n"),
        "{said}"
    );
    let written = fs::read_to_string(&target).unwrap();
    assert_eq!(written, text(&operator.runs("registration", &[]).stdout));

    // What was longer and open to all is neither afterwards; the homeserver's group keeps its right.
    fs::write(&target, "x".repeat(10_000)).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(write().status.success());
    assert_eq!((fs::read_to_string(&target).unwrap(), mode(&target)), (written, 0o640));

    let output = operator.runs("registration", &["--output", "/nowhere/parlour.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("cannot write /nowhere/parlour.yaml: "), "{}", text(&output.stderr));
}

#[test]
fn check_tells_that_tokens_are_to_be_made() {
    let operator = Operator::with("[appservice]\nenabled = true\n");
    let makes =
        || text(&operator.runs("check", &[]).stdout).contains("Tokens of the application service will be generated");
    assert!(makes() && !operator.path("data").exists(), "check changes nothing");
    operator.runs("registration", &[]);
    assert!(!makes());
}
