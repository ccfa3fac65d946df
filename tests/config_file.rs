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
        "enabled",
        "shared_secret",
        "shared_secret_file",
        "previous_shared_secret",
        "previous_shared_secret_file",
        "realm",
        "relay_ports",
        "relay_addresses",
        "allow_peers",
        "deny_peers",
        "nat64_prefixes",
        "allocations_per_user",
        "allocations_per_address",
        "allocations",
        "megabits_per_allocation",
        "megabits_per_user",
        "certificate_file",
        "private_key_file",
        "advertised_port",
        "host",
        "proxy_protocol_from",
        "id",
        "sender_localpart",
        "url",
        "as_token",
        "as_token_file",
        "hs_token",
        "hs_token_file",
        "proxied",
        "local_servers",
        "remote_can_publish",
        "publish",
        "create",
        "require_membership",
        "bot_access_token",
        "bot_access_token_file",
        "reap_stale_memberships",
        "allow",
        "deny",
        "allow_private",
        "extra_ca_file",
        "participants_per_room",
        "participants",
        "joins_per_minute",
        "tokens_per_minute",
        "sessions_per_user",
        "sessions_per_server",
        "tokens_per_minute_per_user",
        "tokens_per_minute_per_server",
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
        ("[focus]\nbot = \"x\"", "focus.bot: is not a key; `config/parlour.toml` shows all there are (set in FILE)"),
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
        ("[turn]\nenabled = \"perhaps\"", "turn.enabled: `perhaps` is not true or false"),
        ("[turn]\nrealm = \"a b\"", "turn.realm: `a b` is not a name of 1 to 127 characters"),
        ("[turn]\nrelay_ports = \"49152\"", "turn.relay_ports: `49152` is not two ports"),
        ("[turn]\nrelay_ports = \"50000-40000\"", "turn.relay_ports: `50000-40000` is not two ports"),
        ("[turn]\nrelay_ports = \"1000-2000\"", "turn.relay_ports: `1000-2000` is not two ports"),
        ("[turn]\nrelay_ports = \"40000-70000\"", "turn.relay_ports: `40000-70000` is not two ports"),
        ("[turn]\nrelay_ports = \"3000-4000\"", "turn.relay_ports: contains 3478, the port of media.udp"),
        ("[turn]\nrelay_addresses = [\"rtc\"]", "turn.relay_addresses: `rtc` is not an address of this machine"),
        (
            "[turn]\nrelay_addresses = [\"198.51.100.7\", \"198.51.100.8\"]",
            "turn.relay_addresses: has two addresses of one family",
        ),
        ("[turn]\nallow_peers = [\"10.0.0.0/33\"]", "turn.allow_peers: `10.0.0.0/33` is not a network"),
        ("[turn]\nallow_peers = [\"127.0.0.0/8\"]", "turn.allow_peers: 127.0.0.0/8 can never be relayed to"),
        ("[turn]\nallow_peers = [\"169.254.169.254\"]", "turn.allow_peers: 169.254.169.254/32 can never be relayed to"),
        ("[turn]\nallow_peers = [\"0.0.0.0/0\"]", "turn.allow_peers: 0.0.0.0/0 is not inside a private network"),
        ("[turn]\ndeny_peers = [\"evil.org\"]", "turn.deny_peers: `evil.org` is not a network"),
        ("[turn]\nnat64_prefixes = [\"2001:db8::/97\"]", "turn.nat64_prefixes: `2001:db8::/97` is not a NAT64 prefix"),
        ("[turn]\nallocations = 0", "turn.allocations: `0` is not a whole number of at least 1"),
        ("[turn]\nshared_secret = \"short-one\"", "turn.shared_secret: the secret has 9 characters"),
        (
            "[tls]\ncertificate_file = \"/nowhere\"\nprivate_key_file = \"Cargo.toml\"",
            "tls.certificate_file: `/nowhere` is not a file",
        ),
        (
            "[tls]\ncertificate_file = \"Cargo.toml\"",
            "tls.private_key_file: is missing: tls.certificate_file is of no use",
        ),
        (
            "[tls]\nprivate_key_file = \"Cargo.toml\"",
            "tls.certificate_file: is missing: tls.private_key_file is of no use",
        ),
        ("[tls]\nadvertised_port = 0", "tls.advertised_port: `0` is not a port"),
        ("[tls]\nhost = \"*.example.org\"", "tls.host: `*.example.org` is not the host name in the certificate"),
        ("[tls]\nproxy_protocol_from = [\"lb\"]", "tls.proxy_protocol_from: `lb` is not a network"),
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
fn turn_takes_the_homeservers_secret() {
    let folder = Folder::new();
    let file = folder.file("secret", &format!("{SECRET}\n"));
    let turn =
        |text: &str, environment: &[(&str, &str)]| folder.load(&format!("{REQUIRED}[turn]\n{text}"), environment);

    let config = turn(&format!("shared_secret_file = {file:?}"), &[]).unwrap();
    assert_eq!(config.turn.shared_secret.as_ref().unwrap().expose(), SECRET);
    assert!(!format!("{config:?}").contains(SECRET));
    let config = turn(
        "allow_peers = [\"10.7.0.0/16\"]",
        &[
            ("PARLOUR_TURN__SHARED_SECRET", SECRET),
            ("PARLOUR_TURN__PREVIOUS_SHARED_SECRET_FILE", file.to_str().unwrap()),
            ("PARLOUR_TURN__RELAY_PORTS", "50000-50999"),
            ("PARLOUR_TURN__ALLOW_PEERS", "[\"192.168.7.0/24\", \"fd12::/16\"]"),
        ],
    )
    .unwrap();
    assert_eq!(config.turn.shared_secret, config.turn.previous_shared_secret);
    assert_eq!(config.turn.relay_ports, 50000..=50999);
    assert_eq!(config.turn.allow_peers.len(), 2);
    assert!(config.warnings()[0].starts_with("turn.relay_ports: has 1000 ports"), "{:?}", config.warnings());

    let what = |text: &str| {
        let problems = turn(text, &[]).unwrap_err();
        assert_eq!(problems.0.len(), 1, "{problems}");
        problems.0[0].to_string()
    };
    let short = what("shared_secret = \"short-one\"");
    assert!(
        short.contains("openssl rand -hex 32") && short.contains("turn_shared_secret of the homeserver"),
        "{short}"
    );
    assert!(!short.contains("short-one"));
    assert!(what(&format!("shared_secret = \"{}\"", "north".repeat(8))).contains("can be guessed"));
    let both = what(&format!("shared_secret = {SECRET:?}\nshared_secret_file = {file:?}"));
    assert!(both.starts_with("turn.shared_secret_file: both turn.shared_secret_file and turn.shared_secret are set"));
    assert!(what("shared_secret_file = \"/nowhere\"").starts_with("turn.shared_secret_file: cannot read /nowhere"));
    assert!(what("shared_secret = [\"a\"]").starts_with("turn.shared_secret: expected a text"));
    let mapped = turn("allow_peers = [\"::ffff:10.0.0.0/104\", \"fe80::/10\", \"10.0.0.0/8\"]", &[]).unwrap_err();
    assert_eq!(mapped.0.len(), 2, "{mapped}");

    let old = turn(&format!("previous_shared_secret = {SECRET:?}"), &[]).unwrap();
    assert!(old.warnings()[0].starts_with("turn.previous_shared_secret: there is no turn.shared_secret"));
}

#[test]
fn tls_is_on_with_a_certificate() {
    let files = "certificate_file = \"Cargo.toml\"\nprivate_key_file = \"Cargo.lock\"";
    assert_eq!(load(REQUIRED).unwrap().tls, None);
    let tls = load(&format!("{REQUIRED}[tls]\n{files}")).unwrap().tls.unwrap();
    assert_eq!((tls.listen.to_string().as_str(), tls.advertised_port), ("0.0.0.0:443", 443));
    assert_eq!(tls.host, "rtc.example.org");
    let tls = load(&format!(
        "{REQUIRED}[tls]\n{files}\nlisten = \"127.0.0.1:8443\"\nadvertised_port = 5349\nhost = \"turn.example.org\"\nproxy_protocol_from = [\"127.0.0.1\"]"
    ));
    let tls = tls.unwrap().tls.unwrap();
    assert_eq!((tls.advertised_port, tls.host.as_str(), tls.listen.port()), (5349, "turn.example.org", 8443));
    assert_eq!(tls.proxy_protocol_from, ["127.0.0.1/32".parse().unwrap()]);
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
