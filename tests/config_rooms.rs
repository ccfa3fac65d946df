//! The configuration of who gets into calls: `[appservice]`, `[access]`, the quotas in `[limits]`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use parlour::config::{self, Config, Problems};

const REQUIRED: &str =
    "server_name = \"example.org\"\nhomeserver = \"http://127.0.0.1:8008\"\npublic_url = \"https://rtc.example.org\"\n";
const ON: &str = "[appservice]\nenabled = true\n";
const ONE: &str = "as-token-0123456789abcdefghijklmnop";
const OTHER: &str = "hs-token-0123456789abcdefghijklmnop";

fn load_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, Problems> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("{REQUIRED}{text}")).unwrap();
    Config::load(file.path(), environment.iter().map(|(k, v)| (k.to_string(), v.to_string())))
}

fn load(text: &str) -> Config {
    load_with(text, &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problem(text: &str) -> String {
    let problems = load_with(text, &[]).expect_err(text);
    assert_eq!(problems.0.len(), 1, "{problems}");
    problems.0[0].to_string()
}

#[test]
fn membership_is_required_as_soon_as_it_can_be_checked() {
    assert!(!load("").access.require_membership);
    assert!(load(ON).access.require_membership);
    assert!(load("[access]\nbot_access_token = \"syt_bot\"").access.require_membership);
    assert!(!load(&format!("[access]\nrequire_membership = false\n{ON}")).access.require_membership);
    let impossible = problem("[access]\nrequire_membership = true");
    assert!(impossible.starts_with("access.require_membership: nobody could be let in"), "{impossible}");
    assert!(impossible.contains("appservice.enabled = true, or access.bot_access_token"), "{impossible}");
}

#[test]
fn the_homeserver_reaches_us_where_we_listen() {
    let url = |text: &str| load(text).appservice.url.to_string();
    assert_eq!(url(""), "http://127.0.0.1:8080/");
    assert_eq!(url("[http]\nlisten = \"0.0.0.0:81\""), "http://127.0.0.1:81/");
    assert_eq!(url("[http]\nlisten = \"[::]:81\""), "http://[::1]:81/");
    assert_eq!(url("[appservice]\nlisten = \"10.0.0.7:8090\""), "http://10.0.0.7:8090/");
    assert_eq!(url("[appservice]\nlisten = \"10.0.0.7:8090\"\nurl = \"http://parlour:8090/\""), "http://parlour:8090/");
    assert_eq!(
        load("[appservice]\nlisten = \"10.0.0.7:8090\"").appservice.listen,
        Some("10.0.0.7:8090".parse().unwrap())
    );
}

#[test]
fn mistakes_are_explained() {
    for (text, expected) in [
        ("[appservice]\nid = \"a b\"", "appservice.id: `a b` is not a name of letters"),
        ("[appservice]\nid = \"\"", "appservice.id: `` is not"),
        (
            "[appservice]\nsender_localpart = \"Parlour\"",
            "appservice.sender_localpart: `Parlour` is not a name of lower-case",
        ),
        ("[appservice]\nlisten = \"8090\"", "appservice.listen: `8090` is not an address with a port"),
        ("[appservice]\nlisten = \"127.0.0.1:8080\"", "appservice.listen: is the same as http.listen"),
        ("[appservice]\nurl = \"parlour:8090\"", "appservice.url: `parlour:8090` is not the URL"),
        ("[appservice]\nproxied = true", "appservice.proxied: needs appservice.enabled = true"),
        (&format!("[appservice]\nas_token = \"{ONE}\""), "appservice.hs_token: is missing: set both tokens"),
        (&format!("[appservice]\nhs_token = \"{ONE}\""), "appservice.as_token: is missing: set both tokens"),
        (
            &format!("[appservice]\nas_token = \"{ONE}\"\nhs_token = \"{ONE}\""),
            "appservice.hs_token: is the same as appservice.as_token",
        ),
        (
            &format!("[appservice]\nas_token = \"short\"\nhs_token = \"{ONE}\""),
            "appservice.as_token: the secret has 5 characters and needs at least 32",
        ),
        ("[access]\nbot_access_token = \"two words\"", "access.bot_access_token: is no access token"),
        ("[access]\nbot_access_token_file = \"/nowhere\"", "access.bot_access_token_file: cannot read /nowhere"),
        ("[access]\npublish = [\"*evil\"]", "access.publish: `*evil` is not a server name"),
        ("[access]\ncreate = [\"a b\"]", "access.create: `a b` is not a server name"),
        ("[access]\nreap_stale_memberships = 5", "access.reap_stale_memberships: needs appservice.enabled = true"),
        (
            "[access]\nreap_stale_memberships = -1",
            "access.reap_stale_memberships: `-1` is not a whole number of minutes",
        ),
        ("[limits]\nsessions_per_user = 0", "limits.sessions_per_user: `0` is not a whole number of at least 1"),
    ] {
        let found = problem(text);
        assert!(found.starts_with(expected), "{text}: {found}");
        assert!(!found.contains("two words") && !found.contains(ONE), "a secret is not shown: {found}");
    }
    let public = load(&format!("{ON}url = \"http://parlour.example.org:8090\"")).warnings();
    assert!(
        public[0].starts_with("appservice.url: http://parlour.example.org:8090/ carries tokens in the clear"),
        "{public:?}"
    );
    for near in ["http://127.0.0.1:8090", "http://10.1.2.3:8090", "http://parlour:8090", "https://parlour.example.org"]
    {
        assert!(load(&format!("{ON}url = \"{near}\"")).warnings().is_empty(), "{near}");
    }
}

#[test]
fn other_servers_get_the_rights_they_are_given() {
    let config = load("[access]\npublish = [\"*.friends.org\"]\ncreate = [\"a.friends.org\"]\n");
    for (server, publish, create) in [
        ("example.org", true, true),
        ("a.friends.org", true, true),
        ("b.friends.org", true, false),
        ("friends.org", false, false),
        ("else.org", false, false),
    ] {
        assert_eq!((config.may_publish(server), config.may_create(server)), (publish, create), "{server}");
    }
    let open = load("[access]\nremote_can_publish = true");
    assert!(open.may_publish("else.org") && !open.may_create("else.org"));
}

#[test]
fn the_rest_has_its_defaults() {
    let config = load("");
    assert!(!config.appservice.enabled && !config.appservice.proxied && config.access.reap_stale_memberships.is_none());
    let limits = config.limits;
    assert_eq!((limits.sessions_per_user, limits.sessions_per_server), (8, 200));
    assert_eq!((limits.tokens_per_minute_per_user, limits.tokens_per_minute_per_server), (60, 600));
    let reaping = load(&format!("[access]\nreap_stale_memberships = 5\n{ON}"));
    assert_eq!(reaping.access.reap_stale_memberships, Some(Duration::from_secs(300)));
}

#[test]
fn tokens_come_from_the_environment_and_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hs_token");
    fs::write(&file, format!("{OTHER}\n")).unwrap();
    let config = load_with(
        ON,
        &[
            ("PARLOUR_APPSERVICE__AS_TOKEN", ONE),
            ("PARLOUR_APPSERVICE__HS_TOKEN_FILE", file.to_str().unwrap()),
            ("PARLOUR_ACCESS__BOT_ACCESS_TOKEN", "syt_bot"),
        ],
    )
    .unwrap();
    let tokens = config::appservice_tokens(&config).unwrap();
    assert_eq!((tokens.as_token.expose(), tokens.hs_token.expose()), (ONE, OTHER));
    assert_eq!(config.access.bot_access_token.as_ref().unwrap().expose(), "syt_bot");
    let shown = format!("{config:?} {tokens:?}");
    assert!(!shown.contains(ONE) && !shown.contains(OTHER) && !shown.contains("syt_bot"), "{shown}");
}

fn in_folder(folder: &Path) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("data_dir = {folder:?}\n{REQUIRED}{ON}")).unwrap();
    Config::load(file.path(), std::iter::empty()).unwrap()
}

#[test]
fn tokens_are_made_once_and_kept_private() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let config = in_folder(&data);
    assert_eq!(config::existing_appservice_tokens(&config).unwrap(), None);
    let made = config::appservice_tokens(&config).unwrap();
    assert!(made.as_token != made.hs_token && made.as_token.expose().len() == 48);
    assert_eq!(config::appservice_tokens(&config).unwrap(), made, "the second start reads the same");

    let file = data.join("appservice.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(config::appservice_tokens(&config).unwrap_err().to_string().contains("chmod 600"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, format!("as_token = \"{ONE}\"\n")).unwrap();
    let lacking = config::appservice_tokens(&config).unwrap_err().to_string();
    assert!(lacking.starts_with("appservice: ") && lacking.contains("lacks as_token or hs_token"), "{lacking}");

    fs::write(&file, "").unwrap();
    let blocked = config::appservice_tokens(&in_folder(&file.join("below"))).unwrap_err();
    assert_eq!(blocked.key, "data_dir");
}
