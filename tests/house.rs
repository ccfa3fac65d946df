//! The import rule of the house: the pure modules know no runtime, socket, clock or randomness; rooms know no front door;
//! str0m stays behind `transport`.

use std::fs;
use std::path::{Path, PathBuf};

const PURE: [&str; 7] = ["rtp", "transport", "sfu", "turn", "livekit", "focus", "mixer"];

/// What a pure module may not name, and what to do instead.
const IMPURE: [(&str, &str); 11] = [
    ("tokio", "belongs in net or http"),
    ("axum", "belongs in http"),
    ("mio::", "belongs in net"),
    ("UdpSocket", "belongs in net"),
    ("TcpStream", "belongs in net"),
    ("Instant::now", "take the time as an argument"),
    ("SystemTime::now", "take the time as an argument"),
    ("std::thread", "threads belong in net"),
    ("rand::random", "take a seed as an argument"),
    ("rand::rng()", "take a seed as an argument"),
    ("OsRng", "take a seed as an argument"),
];

fn sources(below: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(below) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.path())
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

/// The file without its comments and its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    shipped.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn offences(module: &str, forbidden: &[(&str, &str)]) -> Vec<String> {
    let files = sources(&Path::new("src").join(module));
    let shipped = files.iter().filter(|path| !is_test(path));
    let found = shipped.flat_map(|path| {
        let code = code(path);
        let named = forbidden.iter().filter(move |(word, _)| code.contains(word));
        named.map(move |(word, cure)| format!("{}: `{word}` {cure}", path.display()))
    });
    found.collect()
}

#[test]
fn pure_modules_stay_pure() {
    assert!(!sources(Path::new("src/sfu")).is_empty(), "run from the package's folder");
    let found: Vec<String> = PURE.iter().flat_map(|module| offences(module, &IMPURE)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn rooms_know_no_front_door() {
    let doors = [
        ("crate::livekit", "translate in livekit"),
        ("crate::focus", "translate in focus"),
        ("crate::matrix", "ask in http"),
        ("crate::turn", "relay in net"),
    ];
    let found: Vec<String> = ["sfu", "transport", "rtp"].iter().flat_map(|module| offences(module, &doors)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn str0m_stays_behind_transport() {
    let rule = [("str0m::", "wrap it in transport")];
    let others = ["rtp", "sfu", "livekit", "focus", "matrix", "net", "http"];
    let found: Vec<String> = others.iter().flat_map(|module| offences(module, &rule)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_rule_can_be_broken() {
    assert!(!offences("net", &IMPURE).is_empty(), "net holds sockets and clocks: the search must find them");
}
