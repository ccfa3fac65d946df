//! What `serve` and `check` tell the operator: where everything is, and what to copy to where.

use std::fmt::Write;

use crate::config::Config;
use crate::http;
use crate::livekit::ice_servers::turn_urls;
use crate::matrix::registration;
use crate::net;

/// What an operator needs to know and to copy.
pub fn announcement(config: &Config) -> String {
    let media = &config.media;
    let candidates = net::candidates(&media.public_addresses, media.udp, media.tcp);
    let offered: Vec<String> = candidates.iter().map(|(protocol, address)| format!("{protocol} {address}")).collect();
    let offered =
        if offered.is_empty() { "nothing: set media.public_addresses".to_owned() } else { offered.join(", ") };
    let tls = config.tls.as_ref().map(|tls| (tls.host.as_str(), tls.advertised_port));
    let turn_urls = turn_urls(&candidates, tls);
    let well_known = http::well_known_document(config);

    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("writing to memory");
    line(format!("Parlour {} for {}", env!("CARGO_PKG_VERSION"), config.server_name));
    line(format!("  HTTP    {}, for clients at {}", config.http.listen, config.public_url));
    if let Some(tls) = &config.tls {
        line(format!(
            "  TLS     {}: HTTPS, WebSockets and TURN; clients are told {}:{}",
            tls.listen, tls.host, tls.advertised_port
        ));
    }
    line(format!("  media   UDP {}, TCP {}; clients are told {offered}", media.udp, media.tcp));
    line(format!("  TURN    {}", turn_summary(config)));
    line(format!("  rooms   {}", rooms_summary(config)));
    line(String::new());
    line(format!("https://{}/.well-known/matrix/client must contain, besides what is there:", config.server_name));
    line(format!("  {well_known}"));
    line(String::new());
    line(
        "Synapse's homeserver.yaml needs, and `openid` among the resources of the listener that Parlour asks:"
            .to_owned(),
    );
    synapse(config).into_iter().for_each(&mut line);
    line(String::new());
    turn_for_synapse(config, &turn_urls).into_iter().for_each(&mut line);
    members_unknown(config).into_iter().for_each(line);
    text
}

/// The lines of homeserver.yaml.
fn synapse(config: &Config) -> Vec<String> {
    let appservice = &config.appservice;
    let mut lines = Vec::new();
    if appservice.enabled {
        let file = registration::PROPOSED_FILE;
        lines.push(format!("  app_service_config_files:\n    - {file}   # what `parlour registration` prints"));
    }
    lines.push(
        "  experimental_features:
    msc4143_enabled: true            # tells clients where calls are
    msc4222_enabled: true            # reliable room state in sync
    msc4354_enabled: true            # memberships of newer clients"
            .to_owned(),
    );
    if appservice.enabled {
        lines.push(registration::SYNAPSE_FEATURES.to_owned());
    }
    lines.push(
        "  max_event_delay_duration: 24h      # ends the membership of clients that vanish
  rc_delayed_event_mgmt: {per_second: 1, burst_count: 20}
  rc_message: {per_second: 0.5, burst_count: 30}
  matrix_rtc:
    transports:
      - type: livekit"
            .to_owned(),
    );
    // As in the discovery documents.
    if appservice.proxied {
        lines.push(format!("        url: {}", config.sfu_url()));
    }
    lines.push(format!("        livekit_service_url: {}", config.service_url()));
    lines
}

fn rooms_summary(config: &Config) -> String {
    let appservice = &config.appservice;
    if !config.access.require_membership {
        return "nobody checks who is in a room: whoever knows its ID gets into its call (access.require_membership)"
            .to_owned();
    }
    let way = match appservice.enabled {
        true => format!("as application service {}, which the homeserver reaches at {}", appservice.id, appservice.url),
        false => "through a bot".to_owned(),
    };
    format!("only who is joined gets into a call; checked {way}")
}

fn members_unknown(config: &Config) -> Option<String> {
    let can_check = config.appservice.enabled || config.access.bot_access_token.is_some();
    (!can_check).then(|| {
        "To let only the members of a room into its call, set appservice.enabled = true and run `parlour registration`;
then this place shows what homeserver.yaml needs for it.
"
        .to_owned()
    })
}

fn turn_summary(config: &Config) -> String {
    let turn = &config.turn;
    if !turn.enabled {
        return "off (turn.enabled)".to_owned();
    }
    let tls = match &config.tls {
        Some(_) => "TLS".to_owned(),
        None => "not over TLS: that needs tls.certificate_file and tls.private_key_file".to_owned(),
    };
    format!("on the media ports, {tls}; relay ports UDP {}-{}", turn.relay_ports.start(), turn.relay_ports.end())
}

/// What the homeserver needs to send its users to our TURN server.
fn turn_for_synapse(config: &Config, urls: &[String]) -> Option<String> {
    let turn = &config.turn;
    if !turn.enabled {
        return None;
    }
    if turn.shared_secret.is_none() {
        return Some(
            "One-to-one calls of older clients get no TURN server from here yet: set turn.shared_secret (`openssl rand -hex 32`)
and start again; then this place shows what homeserver.yaml needs.
"
            .to_owned(),
        );
    }
    if urls.is_empty() {
        return Some(
            "One-to-one calls get no TURN server from here yet: no address of it is known, set media.public_addresses.\n"
                .to_owned(),
        );
    }
    let uris: Vec<String> = urls.iter().map(|url| format!("\n    - \"{url}\"")).collect();
    Some(format!(
        "And for one-to-one calls of older clients, in place of what it says of another TURN server:
  turn_uris:{}
  turn_shared_secret: \"…\"          # the same as turn.shared_secret here
  turn_user_lifetime: 24h
  turn_allow_guests: false
",
        uris.concat()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announcement_can_be_copied() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("parlour.toml");
        std::fs::write(&file, include_str!("../../config/parlour.toml")).unwrap();
        let text = announcement(&Config::load(&file, std::iter::empty()).unwrap());
        let json = text.lines().find(|line| line.trim_start().starts_with('{')).unwrap();
        let document: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(document["org.matrix.msc4143.rtc_foci"][0]["livekit_service_url"], "https://rtc.example.org");
        for part in [
            "HTTP    127.0.0.1:8080",
            "UDP 0.0.0.0:3478, TCP 0.0.0.0:3478",
            "        livekit_service_url: https://rtc.example.org\n",
            "https://example.org/.well-known/matrix/client",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    fn config(more: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        let required = "server_name = \"example.org\"\nhomeserver = \"http://127.0.0.1:8008\"\npublic_url = \"https://rtc.example.org\"\n";
        std::fs::write(file.path(), format!("{required}{more}")).unwrap();
        Config::load(file.path(), std::iter::empty()).unwrap_or_else(|problems| panic!("{problems}"))
    }

    const PUBLIC: &str = "[media]\npublic_addresses = [\"198.51.100.7\"]\n";

    #[test]
    fn the_announcement_leads_to_the_application_service() {
        let off = announcement(&config(PUBLIC));
        for part in ["rooms   nobody checks", "set appservice.enabled = true and run `parlour registration`"] {
            assert!(off.contains(part), "{part}: {off}");
        }
        for part in ["app_service_config_files", "msc4502", "        url:", "\"url\""] {
            assert!(!off.contains(part), "{part}: {off}");
        }
        let on = announcement(&config(&format!("{PUBLIC}[appservice]\nenabled = true")));
        for part in [
            "rooms   only who is joined gets into a call; checked as application service parlour",
            "  app_service_config_files:\n    - /etc/matrix-synapse/parlour.yaml ",
            "msc4354_enabled: true            # memberships of newer clients\n    msc4502_enabled: true ",
            "\n    msc4512_enabled: true ",
            "      - type: livekit\n        livekit_service_url: https://rtc.example.org\n",
        ] {
            assert!(on.contains(part), "{part}: {on}");
        }
        assert!(!on.contains("run `parlour registration`;") && !on.contains("\"url\""), "{on}");
        let bot = config("[access]\nbot_access_token = \"syt_bot\"");
        assert!(announcement(&bot).contains("checked through a bot"));
    }

    #[test]
    fn a_url_is_told_only_when_the_homeserver_hands_requests_on() {
        let text = announcement(&config("[appservice]\nenabled = true\nproxied = true"));
        let transport = "{\"livekit_service_url\":\"https://rtc.example.org\",\"type\":\"livekit\",\"url\":\"wss://rtc.example.org\"}";
        assert!(text.contains(transport), "{text}");
        assert!(
            text.contains(
                "      - type: livekit\n        url: wss://rtc.example.org\n        livekit_service_url: https"
            )
        );
    }

    #[test]
    fn the_announcement_has_what_synapse_needs_for_turn() {
        let secret = "shared_secret = \"0123456789abcdef0123456789abcdef\"";
        let tls = "[tls]\ncertificate_file = \"Cargo.toml\"\nprivate_key_file = \"Cargo.lock\"\n";
        let text = announcement(&config(&format!("{PUBLIC}{tls}[turn]\n{secret}")));
        for part in [
            "relay ports UDP 49152-65535",
            "  turn_uris:\n    - \"turn:198.51.100.7:3478?transport=udp\"\n    - \"turn:198.51.100.7:3478?transport=tcp\"\n    - \"turns:rtc.example.org:443?transport=tcp\"\n",
            "  turn_shared_secret: \"…\"",
            "  turn_allow_guests: false\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("0123456789abcdef"), "the secret is not shown");
        assert!(!announcement(&config(&format!("{PUBLIC}[turn]\n{secret}"))).contains("turns:"));
    }

    #[test]
    fn the_announcement_says_what_is_missing_for_turn() {
        let without_secret = announcement(&config(PUBLIC));
        assert!(without_secret.contains("set turn.shared_secret") && !without_secret.contains("turn_uris"));
        assert!(without_secret.contains("not over TLS: that needs tls.certificate_file"), "{without_secret}");
        let off = announcement(&config("[turn]\nenabled = false\n"));
        assert!(off.contains("TURN    off (turn.enabled)") && !off.contains("turn_uris"), "{off}");
    }
}
