//! The configuration as an operator meets it: the sample file, the environment, and what every mistake is answered with.

use std::fs;
use std::path::PathBuf;

use parlour::config::{self, Config, Problems};

const REQUIRED: &str =
    "server_name = \"example.org\"\nhomeserver = \"http://127.0.0.1:8008\"\npublic_url = \"https://rtc.example.org\"\n";
const SECRET: &str = "correct-horse-battery-staple-1234567";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self, text: &str, environment: &[(&str, &str)]) -> Result<Config, Problems> {
        let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        Config::load(&self.file("parlour.toml", text), environment)
    }
}

fn load(text: &str) -> Result<Config, Problems> {
    Folder::new().load(text, &[])
}

/// The problems as lines, without the path of the file.
fn problems(text: &str) -> Vec<String> {
    let folder = Folder::new();
    let file = folder.0.path().join("parlour.toml").display().to_string();
    folder.load(text, &[]).expect_err(text).0.iter().map(|p| p.to_string().replace(&file, "FILE")).collect()
}

/// The sample with every default line switched on.
fn sample_switched_on() -> String {
    let sample = include_str!("../config/parlour.toml");
    sample
        .lines()
        .map(|line| {
            line.strip_prefix('#').filter(|rest| rest.starts_with(char::is_alphabetic)).unwrap_or(line).to_owned()
                + "\n"
        })
        .collect()
}

#[test]
fn the_sample_shows_the_defaults() {
    let defaults = load(REQUIRED).unwrap();
    assert_eq!(load(include_str!("../config/parlour.toml")).unwrap(), defaults);
    assert_eq!(load(&sample_switched_on()).unwrap(), defaults);
    assert_eq!(defaults.access.local_servers, ["example.org"]);
    assert_eq!(defaults.http.listen.to_string(), "127.0.0.1:8080");
    assert!(!defaults.access.remote_can_publish);
}

#[test]
fn the_sample_names_every_key() {
    let sample = include_str!("../config/parlour.toml");
    // Misspelling a key makes the suggestion name it, so a key the sample lacks would be noticed here.
    for key in [
        "data_dir",
        "listen",
        "web_root",
        "trusted_proxies",
        "metrics_from",
        "udp",
        "tcp",
        "public_addresses",
        "forward_loudest",
        "local_servers",
        "remote_can_publish",
        "allow",
        "deny",
        "allow_private",
        "extra_ca_file",
        "participants_per_room",
        "participants",
        "joins_per_minute",
        "tokens_per_minute",
        "format",
        "level",
    ] {
        assert!(sample.lines().any(|l| l.trim_start_matches(['#', ' ']).starts_with(&format!("{key} ="))), "{key}");
    }
}

#[test]
fn every_problem_is_reported_at_once() {
    let found =
        problems("homeserver = \"matrix\"\n[http]\nlisten = \"8080\"\nlisen = \"x\"\n[limits]\nparticipants = 0\n");
    assert_eq!(found.len(), 6, "{found:#?}");
    assert!(found[0].starts_with("server_name: is required: a Matrix server name such as example.org. Add it to FILE or set PARLOUR_SERVER_NAME"), "{}", found[0]);
    assert_eq!(
        found[1],
        "homeserver: `matrix` is not the URL of the homeserver without /_matrix, such as http://127.0.0.1:8008 (set in FILE)"
    );
    assert!(found[2].starts_with("public_url: is required"));
    assert_eq!(
        found[3],
        "http.listen: `8080` is not an address with a port, such as 127.0.0.1:8080 or [::]:8080 (set in FILE)"
    );
    assert_eq!(found[4], "limits.participants: `0` is not a whole number of at least 1 (set in FILE)");
    assert_eq!(found[5], "http.lisen: is not a key; did you mean `http.listen`? (set in FILE)");
}

#[test]
fn unknown_keys_are_errors_with_a_suggestion() {
    let table = [
        ("listen = \"x\"", "listen: is not a key; did you mean `http.listen`? (set in FILE)"),
        ("[htpp]\nlisten = \"x\"", "htpp.listen: is not a key; did you mean `http.listen`? (set in FILE)"),
        (
            "[access]\nremote_can_publsh = true",
            "access.remote_can_publsh: is not a key; did you mean `access.remote_can_publish`? (set in FILE)",
        ),
        (
            "[limits]\njoin_per_minute = 3",
            "limits.join_per_minute: is not a key; did you mean `limits.joins_per_minute`? (set in FILE)",
        ),
        ("[turn]\nrealm = \"x\"", "turn.realm: is not a key; `config/parlour.toml` shows all there are (set in FILE)"),
        (
            "[http.listen]\nport = 1",
            "http.listen: expected an address with a port, such as 127.0.0.1:8080 or [::]:8080 (set in FILE)",
        ),
    ];
    for (text, expected) in table {
        let found = problems(&format!("{REQUIRED}{text}"));
        assert!(found.contains(&expected.to_owned()), "{text}: {found:#?}");
    }
}

#[test]
fn wrong_values_say_what_is_expected() {
    let table = [
        (
            "[media]\npublic_addresses = [\"rtc.example.org\"]",
            "media.public_addresses: `rtc.example.org` is not an address",
        ),
        ("[media]\npublic_addresses = [\"0.0.0.0\"]", "media.public_addresses: `0.0.0.0` is not an address"),
        (
            "[federation]\nallow_private = [\"10.0.0.0/33\"]",
            "federation.allow_private: `10.0.0.0/33` is not a network such as 10.0.0.0/8",
        ),
        (
            "[federation]\ndeny = [\"*evil.org\"]",
            "federation.deny: `*evil.org` is not a server name, *.example.org or *",
        ),
        (
            "[federation.overrides]\n\"a.org\" = \"a.org:8448\"",
            "federation.overrides.a.org: `a.org:8448` is not the base URL",
        ),
        (
            "[federation]\nextra_ca_file = \"/nowhere\"",
            "federation.extra_ca_file: `/nowhere` is not a file that exists",
        ),
        ("[http]\nweb_root = \"/nowhere\"", "http.web_root: `/nowhere` is not a folder that exists"),
        ("[access]\nremote_can_publish = \"maybe\"", "access.remote_can_publish: `maybe` is not true or false"),
        ("[log]\nlevel = \"loud\"", "log.level: `loud` is not error, warn"),
        ("[log]\nformat = \"xml\"", "log.format: `xml` is not text or json"),
        ("keys = \"abc\"", "keys: is a section: write [keys]"),
    ];
    for (text, expected) in table {
        let found =
            problems(&if text.starts_with('[') { format!("{REQUIRED}{text}") } else { format!("{text}\n{REQUIRED}") });
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(found[0].starts_with(expected), "{text}: {found:#?}");
    }
    for (key, value) in [
        ("server_name", "ex ample"),
        ("homeserver", "ftp://a"),
        ("homeserver", "http://a/_matrix/client"),
        ("public_url", "https://a/?b"),
        ("public_url", "https://u:p@a"),
    ] {
        let text: String = REQUIRED.lines().filter(|l| !l.starts_with(key)).map(|l| format!("{l}\n")).collect();
        let found = problems(&format!("{text}{key} = \"{value}\""));
        assert!(found.len() == 1 && found[0].starts_with(&format!("{key}: `{value}` is not")), "{found:#?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_explained() {
    let missing = Config::load("/nowhere/parlour.toml".as_ref(), std::iter::empty()).unwrap_err().to_string();
    assert!(missing.contains("cannot read /nowhere/parlour.toml") && missing.contains("--config"), "{missing}");
    let found = problems("server_name = \"a\nhomeserver");
    assert!(found[0].contains("is not TOML") && found[0].contains("line 1"), "{found:#?}");
}

#[test]
fn the_environment_overrides_the_file() {
    let folder = Folder::new();
    let config = folder
        .load(
            &format!("{REQUIRED}[limits]\nparticipants = 7"),
            &[
                ("PARLOUR_SERVER_NAME", "other.org"),
                ("PARLOUR_HTTP__LISTEN", "[::]:8081"),
                ("PARLOUR_LIMITS__PARTICIPANTS", "9"),
                ("PARLOUR_MEDIA__PUBLIC_ADDRESSES", "[\"198.51.100.7\", \"2001:db8::7\"]"),
                ("PARLOUR_FEDERATION__ALLOW", "a.org"),
                ("PARLOUR_ACCESS__REMOTE_CAN_PUBLISH", "true"),
                ("PARLOUR_KEYS__AppKey", SECRET),
                // What Kubernetes puts there for a service of this name.
                ("PARLOUR_PORT", "tcp://10.0.0.1:80"),
                ("PARLOUR_PORT_80_TCP_ADDR", "10.0.0.1"),
                ("PARLOUR_SERVICE_HOST", "10.0.0.1"),
                ("HOME", "/root"),
            ],
        )
        .unwrap();
    assert_eq!(config.server_name, "other.org");
    assert_eq!(config.http.listen.to_string(), "[::]:8081");
    assert_eq!(config.limits.participants, 9);
    assert_eq!(config.media.public_addresses.len(), 2);
    assert_eq!(config.access.local_servers, ["other.org"]);
    assert!(config.access.remote_can_publish);
    assert_eq!(config.keys["AppKey"].expose(), SECRET);
    assert!(config.is_allowed("a.org") && !config.is_allowed("b.org") && config.is_allowed("other.org"));
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    let found = Folder::new()
        .load(REQUIRED, &[("PARLOUR_HTTP__LISTN", "x"), ("PARLOUR_HTTP__LISTEN", "y")])
        .unwrap_err()
        .to_string();
    assert!(found.contains("http.listen: `y` is not an address with a port, such as 127.0.0.1:8080 or [::]:8080 (set in PARLOUR_HTTP__LISTEN)"), "{found}");
    assert!(
        found.contains("http.listn: is not a key; did you mean `http.listen`? (set in PARLOUR_HTTP__LISTN)"),
        "{found}"
    );
}

#[test]
fn secrets_come_from_the_key_or_from_its_file() {
    let folder = Folder::new();
    let file = folder.file("secret", &format!("{SECRET}\n"));
    let empty = folder.file("empty", "\n");
    let keys = |text: String| folder.load(&format!("{REQUIRED}[keys]\n{text}"), &[]);

    let config = keys(format!("app_file = {file:?}")).unwrap();
    assert_eq!(config.keys["app"].expose(), SECRET);
    assert!(!format!("{config:?}").contains(SECRET));

    let what = |text: String| {
        let problems = keys(text).unwrap_err();
        assert_eq!(problems.0.len(), 1, "{problems}");
        assert!(!problems.to_string().contains("short-one") && !problems.to_string().contains(SECRET), "{problems}");
        problems.0[0].to_string()
    };
    assert!(
        what(format!("app = {SECRET:?}\napp_file = {file:?}"))
            .starts_with("keys.app_file: both keys.app_file and keys.app are set")
    );
    assert!(what(format!("app_file = {empty:?}")).contains("is empty; write the secret into it"));
    assert!(what("app_file = \"/nowhere/secret\"".into()).contains("cannot read /nowhere/secret"));
    assert!(
        what("app = \"short-one\"".into()).starts_with("keys.app: the secret has 9 characters and needs at least 32")
    );
    assert!(what(format!("app = \"{}\"", "changeme".repeat(5))).contains("can be guessed"));
    assert!(what("app = [\"a\"]".into()).starts_with("keys.app: expected a text"));
}

#[test]
fn a_key_is_generated_once_and_kept_private() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new();
    let data = folder.0.path().join("data");
    let text = format!("{REQUIRED}data_dir = {data:?}");
    let config = folder.load(&text.replace("data_dir", "\ndata_dir"), &[]).unwrap();
    let claims = parlour::livekit::Claims::for_room("a", "r", true, 0, 60);
    let token = config::api_keys(&config).unwrap().sign(&claims);

    let file = data.join("keys.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(config::api_keys(&config).unwrap().verify(&token, 0).is_ok(), "the second start reads the same key");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(config::api_keys(&config).unwrap_err().to_string().contains("chmod 600"));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "").unwrap();
    assert!(config::api_keys(&config).unwrap_err().to_string().contains("has no key"));

    let blocked = folder.load(&format!("{REQUIRED}data_dir = {:?}", file.join("below")), &[]).unwrap();
    let problem = config::api_keys(&blocked).unwrap_err();
    assert_eq!(problem.key, "data_dir");
}

#[test]
fn server_patterns_match_whole_labels() {
    let config =
        load(&format!("{REQUIRED}[federation]\nallow = [\"*\"]\ndeny = [\"evil.org\", \"*.bad.net\"]")).unwrap();
    for (server, allowed) in [
        ("good.org", true),
        ("evil.org", false),
        ("EVIL.org", false),
        ("evil.org:8448", false),
        ("not-evil.org", true),
        ("a.bad.net", false),
        ("a.b.BAD.net:8448", false),
        ("bad.net", true),
        ("xbad.net", true),
        ("example.org", true),
    ] {
        assert_eq!(config.is_allowed(server), allowed, "{server}");
    }
    let closed = load(&format!("{REQUIRED}[federation]\nallow = []")).unwrap();
    assert!(closed.is_allowed("example.org") && !closed.is_allowed("good.org"));
}

#[test]
fn urls_that_clients_get_are_derived() {
    let at = |url: &str| load(&REQUIRED.replace("https://rtc.example.org", url)).unwrap();
    assert_eq!(at("https://rtc.example.org").service_url(), "https://rtc.example.org");
    assert_eq!(at("https://rtc.example.org/").sfu_url(), "wss://rtc.example.org");
    assert_eq!(at("https://example.org/http/").sfu_url(), "wss://example.org/http");
    assert_eq!(at("http://localhost:8080").sfu_url(), "ws://localhost:8080");
    assert!(at("http://localhost:8080").warnings().is_empty());
    assert!(at("http://rtc.example.org").warnings()[0].starts_with("public_url: http://rtc.example.org/ is not https"));
}
