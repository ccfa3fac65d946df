//! The server from start to end: puts the parts together, says what to do next, waits for a signal. Called by `main`.

use std::fmt::Write;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::http::{self, App};
use crate::metrics::Metrics;
use crate::net::{self, Node};
use crate::sfu;

/// Runs until a signal; the error is a sentence for the operator.
pub async fn run(config: Config) -> Result<(), String> {
    let config = Arc::new(config);
    let keys = config::api_keys(&config).map_err(|problem| problem.to_string())?;
    let metrics = Arc::new(Metrics::new());
    let mut signals = Signals::listen().map_err(|e| format!("cannot wait for signals: {e}"))?;

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
        keys: keys.clone(),
        metrics: metrics.clone(),
    })
    .map_err(|e| e.to_string())?;
    let app = App::new(config.clone(), keys, node.clone(), metrics)?;
    let listener = TcpListener::bind(config.http.listen).await.map_err(|e| {
        format!(
            "http.listen: cannot listen on {}: {e}; end the other program there, or choose another port",
            config.http.listen
        )
    })?;

    print!("{}", announcement(&config));
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }

    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(http::serve(listener, app.clone(), shutdown.clone()));
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
        _ = serving => {}
        () = signals.next() => {}
    }
    if workers_failed { Err("the media workers ended by themselves; the log says why".into()) } else { Ok(()) }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
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
    let well_known = http::well_known_document(config);
    let service_url = config.service_url();

    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("writing to memory");
    line(format!("Parlour {} for {}", env!("CARGO_PKG_VERSION"), config.server_name));
    line(format!("  HTTP    {}, for clients at {}", config.http.listen, config.public_url));
    line(format!("  media   UDP {}, TCP {}; clients are told {offered}", media.udp, media.tcp));
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
    text
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
}
