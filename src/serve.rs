//! The server from start to end: puts the parts together, says what to do next, waits for a signal. Called by `main`.

use std::fmt::Write;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::http::{self, App};
use crate::livekit::Keys;
use crate::livekit::ice_servers::turn_urls;
use crate::metrics::Metrics;
use crate::net::{self, Node, Presence, TurnOptions};
use crate::sfu;
use crate::turn;
use crate::turn::credentials::Credentials;
use crate::turn::peer_policy::{PeerPolicy, PeerRules};
use crate::turn::quotas::Quotas;

/// Runs until a signal; the error is a sentence for the operator.
pub async fn run(config: Config) -> Result<(), String> {
    let config = Arc::new(config);
    let keys = config::api_keys(&config).map_err(|problem| problem.to_string())?;
    let metrics = Arc::new(Metrics::new());
    raise_descriptor_limit();
    let mut signals = Signals::listen().map_err(|e| format!("cannot wait for signals: {e}"))?;
    let tls = config.tls.as_ref().map(http::Tls::load).transpose()?;

    let (presence, mut presences) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Presence { sid, change, .. }) = presences.recv().await {
            tracing::debug!(participant = %sid, ?change, "presence");
        }
    });
    let (node, workers_ended) = Node::start(net::Options {
        udp: config.media.udp,
        tcp: config.media.tcp,
        public_addresses: config.media.public_addresses.clone(),
        workers: config.media.workers,
        limits: sfu::Limits {
            max_participants: config.limits.participants as usize,
            // A room costs little while it is empty, and ends by itself.
            max_rooms: config.limits.participants as usize,
        },
        turn: turn_options(&config, &keys)?,
        keys: keys.clone(),
        metrics: metrics.clone(),
        presence,
    })
    .map_err(|e| e.to_string())?;
    let app = App::new(config.clone(), keys, node.clone(), metrics)?;
    let listener = listen("http.listen", config.http.listen).await?;
    let tls_listener = match &config.tls {
        Some(tls) => Some(listen("tls.listen", tls.listen).await?),
        None => None,
    };

    print!("{}", announcement(&config));
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }

    let shutdown = CancellationToken::new();
    let mut serving = JoinSet::new();
    serving.spawn(http::serve(listener, app.clone(), shutdown.clone()));
    if let (Some(listener), Some(tls)) = (tls_listener, tls) {
        serving.spawn(http::serve_tls(listener, Arc::new(tls), app.clone(), shutdown.clone()));
    }
    let workers_failed = tokio::select! {
        () = signals.next() => false,
        _ = workers_ended => true,
    };
    tracing::info!("shutting down; a second signal ends everything at once");
    app.drain();
    // The workers tell every client to come back; that ends their sockets.
    node.shut_down().await;
    shutdown.cancel();
    tokio::select! {
        _ = serving.join_all() => {}
        () = signals.next() => {}
    }
    if workers_failed { Err("the media workers ended by themselves; the log says why".into()) } else { Ok(()) }
}

async fn listen(key: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::PermissionDenied => "a port below 1024 needs CAP_NET_BIND_SERVICE: see config/parlour.service",
            _ => "end the other program there, or choose another port",
        };
        format!("{key}: cannot listen on {address}: {error}; {advice}")
    })
}

/// Each relayed address and each connection takes a descriptor, and shells allow 1,024 unless asked for more.
fn raise_descriptor_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

/// The TURN server as configured.
///
/// We issue credentials with a secret of our own, so that participants get in without the homeserver's; it comes from the
/// API keys and so outlives a restart.
pub fn turn_options(config: &Config, keys: &Keys) -> Result<TurnOptions, String> {
    let turn = &config.turn;
    let mut secrets = vec![keys.derive("turn credentials").into_bytes()];
    let homeservers = [&turn.shared_secret, &turn.previous_shared_secret].into_iter().flatten();
    secrets.extend(homeservers.map(|secret| secret.expose().as_bytes().to_vec()));
    let policy = PeerPolicy::new(peer_rules(config)).map_err(|bad| format!("turn: {bad}"))?;
    Ok(TurnOptions {
        enabled: turn.enabled,
        realm: turn.realm.clone(),
        credentials: Arc::new(Credentials::new(secrets)),
        relay_addresses: turn.relay_addresses.clone(),
        relay_ports: turn.relay_ports.clone(),
        policy: Arc::new(policy),
        quotas: Quotas::new(turn.quota_limits()),
        limits: turn::Limits { bytes_per_second: turn.allocation_bytes_per_second(), ..turn::Limits::default() },
        tls: config.tls.as_ref().map(|tls| (tls.host.clone(), tls.advertised_port)),
    })
}

/// Besides the operator's rules: nobody reaches this machine or what we depend on through us.
fn peer_rules(config: &Config) -> PeerRules {
    let media = &config.media;
    let candidates = net::candidates(&media.public_addresses, media.udp, media.tcp);
    let told = candidates.iter().map(|(_, address)| address.ip()).chain(config.turn.relay_addresses.iter().copied());
    let homeserver = config.homeserver.socket_addrs(|| None).unwrap_or_default();
    PeerRules {
        ourselves: net::addresses_of_this_machine().into_iter().chain(told).collect(),
        back_ends: homeserver.iter().map(SocketAddr::ip).collect(),
        ..config.turn.peer_rules()
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Means new certificates, and nothing when there are none: it must not end us.
    _hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

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
    let service_url = config.service_url();

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
    line(String::new());
    line(format!("https://{}/.well-known/matrix/client must contain, besides what is there:", config.server_name));
    line(format!("  {well_known}"));
    line(String::new());
    line(
        "Synapse's homeserver.yaml needs, and `openid` among the resources of the listener that Parlour asks:"
            .to_owned(),
    );
    line(format!(
        "  experimental_features:
    msc4143_enabled: true            # tells clients where calls are
    msc4222_enabled: true            # reliable room state in sync
    msc4354_enabled: true            # memberships of newer clients
  max_event_delay_duration: 24h      # ends the membership of clients that vanish
  rc_delayed_event_mgmt: {{per_second: 1, burst_count: 20}}
  rc_message: {{per_second: 0.5, burst_count: 30}}
  matrix_rtc:
    transports:
      - type: livekit
        livekit_service_url: {service_url}
"
    ));
    turn_for_synapse(config, &turn_urls).into_iter().for_each(line);
    text
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
        std::fs::write(&file, include_str!("../config/parlour.toml")).unwrap();
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

    #[test]
    fn our_own_turn_secret_stays_with_the_api_keys() {
        let keys = |secret| Keys::new([("app", secret)]).unwrap();
        let derived = |secret, purpose| keys(secret).derive(purpose);
        assert_eq!(derived("a", "x"), derived("a", "x"));
        assert!(derived("a", "x") != derived("b", "x") && derived("a", "x") != derived("a", "y"));
        let issued = |config: &Config| turn_options(config, &keys("a")).unwrap().credentials.issue("u", 1).1;
        let with_secret = config("[turn]\nshared_secret = \"0123456789abcdef0123456789abcdef\"\n");
        assert_eq!(issued(&config("")), issued(&with_secret), "issuing does not depend on the homeserver's");
    }
}
