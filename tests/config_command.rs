//! The command line as an operator meets it.

use std::io::Read;
use std::process::{Command, Output, Stdio};

const REQUIRED: &str = "data_dir = \"/nowhere/parlour\"\nserver_name = \"example.org\"\nhomeserver = \"http://127.0.0.1:8008\"\npublic_url = \"https://rtc.example.org\"\n";

fn parlour(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_parlour")).args(arguments).env_clear().output().unwrap()
}

fn check(text: &str) -> (Option<i32>, String, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let output = parlour(&["check", "--config", file.path().to_str().unwrap()]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_says_fine_or_explains() {
    let (code, out, err) = check(REQUIRED);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("is fine.") && out.contains("An API key will be generated into /nowhere/parlour"), "{out}");

    let (code, out, err) = check(&format!("{REQUIRED}[htp]\nlisten = \"x\""));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.starts_with(
            "The configuration has 1 problem:\n  - htp.listen: is not a key; did you mean `http.listen`? (set in /"
        ),
        "{err}"
    );

    let certificate = tempfile::NamedTempFile::new().unwrap();
    let (code, _, err) = check(&format!("{REQUIRED}[federation]\nextra_ca_file = {:?}", certificate.path()));
    assert_eq!(code, Some(1));
    assert!(err.starts_with("federation.extra_ca_file: ") && err.contains("holds no certificate"), "{err}");

    let (code, out, _) = check(&REQUIRED.replace("https", "http"));
    assert_eq!(code, Some(0));
    assert!(out.contains("Warning: public_url: http://rtc.example.org/ is not https."), "{out}");
}

#[test]
fn help_names_the_commands() {
    let help = String::from_utf8(parlour(&["--help"]).stdout).unwrap();
    for word in ["serve", "check", "Run the server", "explain every mistake"] {
        assert!(help.contains(word), "{help}");
    }
    assert!(String::from_utf8(parlour(&["serve", "--help"]).stdout).unwrap().contains("/etc/parlour/parlour.toml"));
    assert_eq!(parlour(&["dance"]).status.code(), Some(2));
}

#[test]
fn serve_announces_itself_and_ends_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("parlour.toml");
    // Port 0: any that is free.
    let text = format!(
        "{}data_dir = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[media]\nudp = \"127.0.0.1:0\"\ntcp = \"127.0.0.1:0\"\n",
        REQUIRED.split_once('\n').unwrap().1,
        folder.path().join("data")
    );
    std::fs::write(&file, text).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_parlour"))
        .args(["serve", "--config", file.to_str().unwrap()])
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut announced = String::new();
    let mut out = child.stdout.take().unwrap();
    let mut chunk = [0; 4096];
    while !announced.contains("livekit_service_url: https://rtc.example.org\n") {
        let read = out.read(&mut chunk).unwrap();
        assert!(read > 0, "{announced}");
        announced.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
    }
    let signalled = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(folder.path().join("data/keys.toml").exists());
}
