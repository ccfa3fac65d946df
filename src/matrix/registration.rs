//! The registration of the application service: the file by which a homeserver learns of us, and what else it needs.
//!
//! Written by `parlour registration`; `serve` and `check` tell of it. The keys are those of the Application Service API,
//! "Registration", and of MSC4502 and MSC4512 as Synapse reads them.

use std::fmt::Write;

use crate::config::{AppServiceTokens, Config};

/// Lets us ask who is joined to a room. Synapse does not start with a scope it does not know.
const IS_JOINED_SCOPE: &str = "urn:matrix:client:io.element.msc4502:rooms:is_joined";

/// What clients and other servers ask below `/_matrix/client/*` and `/_matrix/federation/*` is handed on to us.
const PROXY_PREFIX: &str = "rtc/livekit";

/// What a Synapse needs among its experimental_features.
pub const SYNAPSE_FEATURES: &str =
    "    msc4502_enabled: true            # tells who is joined to a room, users of other servers too
    msc4512_enabled: true            # hands requests for rtc/livekit on to Parlour";

/// Where Debian's Synapse keeps its configuration.
pub const PROPOSED_FILE: &str = "/etc/matrix-synapse/parlour.yaml";

/// The registration, as YAML.
pub fn registration(config: &Config, tokens: &AppServiceTokens) -> String {
    let appservice = &config.appservice;
    let url = text(appservice.url.as_str().trim_end_matches('/'));
    let server = escaped(&config.server_name);
    let ourselves = text(&format!("^@{}:{server}$", escaped(&appservice.sender_localpart)));
    let everybody = text(&format!("^@.*:{server}$"));
    let mut yaml =
        String::from("# What the homeserver must know of Parlour, its application service. Holds secrets.\n");
    let mut line = |key: &str, value: &str| writeln!(yaml, "{key}: {value}").expect("writing to memory");
    line("id", &text(&appservice.id));
    line("url", &url);
    line("as_token", &text(tokens.as_token.expose()));
    line("hs_token", &text(tokens.hs_token.expose()));
    line("sender_localpart", &text(&appservice.sender_localpart));
    line("rate_limited", "false");
    // Nobody else may register our name. All other users are their own: we act for them where their client cannot, and hear of
    // every room they are in.
    line(
        "namespaces",
        &format!(
            "{{users: [{{exclusive: true, regex: {ourselves}}}, {{exclusive: false, regex: {everybody}}}], aliases: [], rooms: []}}"
        ),
    );
    line("io.element.msc4502.scopes", &format!("[{}]", text(IS_JOINED_SCOPE)));
    line("io.element.msc4512.proxy_prefix", &text(PROXY_PREFIX));
    line("io.element.msc4512.proxy_url", &url);
    yaml
}

/// What to do with the registration, for the operator. `file`: where it lies.
pub fn instructions(config: &Config, file: &str) -> String {
    let enabled = if config.appservice.enabled {
        ""
    } else {
        "Parlour itself needs, in its configuration:\n  [appservice]\n  enabled = true\n\n"
    };
    format!(
        "{enabled}Synapse must be able to read the file and nobody else; its homeserver.yaml needs, before a restart:
  app_service_config_files:
    - {file}
  experimental_features:
{SYNAPSE_FEATURES}

Once that works, set appservice.proxied = true here: the newest clients then get their tokens through the homeserver.
"
    )
}

/// JSON's texts are YAML's.
fn text(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

/// For a regular expression. Names have letters, digits and `._:-[]`.
fn escaped(name: &str) -> String {
    let escape = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c.to_string() } else { format!("\\{c}") };
    name.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_name_is_taken_literally() {
        assert_eq!(escaped("matrix.example-1.org:8448"), "matrix\\.example-1\\.org\\:8448");
        assert_eq!(escaped("[::1]"), "\\[\\:\\:1\\]");
        assert_eq!(text("^@.*:a\\.b$"), r#""^@.*:a\\.b$""#);
    }
}
