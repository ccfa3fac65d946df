//! Starts everything, and ends it in order: the media worker, then HTTP; at a signal the callers are told first.

use std::fmt::Write;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config, LogFormat};
use crate::http::{self, App, well_known_document};
use crate::metrics::Metrics;
use crate::net::{self, Node};
use crate::sfu;

/// Serves until SIGTERM or SIGINT. The error is a sentence for the operator.
pub fn run(config: Config) -> Result<(), String> {
    start_log(&config)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("cannot start the runtime: {e}"))?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), String> {
    let keys = config::api_keys(&config).map_err(|problem| problem.to_string())?;
    let metrics = Arc::new(Metrics::new());
    let listener = TcpListener::bind(config.http.listen)
        .await
        .map_err(|e| format!("http.listen: cannot listen on {}: {e}", config.http.listen))?;
    let (node, worker_ended) = Node::start(net::Options {
        udp: config.media.udp,
        tcp: config.media.tcp,
        public_addresses: config.media.public_addresses.clone(),
        limits: sfu::Limits {
            max_participants: config.limits.participants as usize,
            // A room costs little while it is empty, and ends by itself.
            max_rooms: config.limits.participants as usize,
        },
        keys: keys.clone(),
        metrics: metrics.clone(),
    })
    .map_err(|e| e.to_string())?;

    // For the operator at the terminal, not for the log: it names addresses.
    eprint!("{}", summary(&config));
    info!("ready");

    let app = App::new(Arc::new(config), keys, node.clone(), metrics)?;
    let shutdown = CancellationToken::new();
    let web = tokio::spawn(http::serve(listener, app.clone(), shutdown.clone()));
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| format!("cannot wait for SIGTERM: {e}"))?;
    let failed = tokio::select! {
        _ = terminate.recv() => false,
        _ = tokio::signal::ctrl_c() => false,
        _ = worker_ended => true,
    };
    info!("stopping");
    app.drain();
    node.shut_down().await;
    shutdown.cancel();
    let _ = web.await;
    if failed { Err("the media worker ended by itself; the log above says why".into()) } else { Ok(()) }
}

fn start_log(config: &Config) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.log.level).map_err(|e| format!("log.level: {e}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log.init(),
    }
    Ok(())
}

/// Where we listen, what clients will be offered, and what to paste where so that they find us.
pub fn summary(config: &Config) -> String {
    let mut text = String::new();
    let candidates = net::candidates(&config.media.public_addresses, config.media.udp, config.media.tcp);
    let reachable: Vec<String> =
        candidates.iter().map(|(protocol, address)| format!("{protocol:?} {address}").to_lowercase()).collect();
    let well_known = serde_json::to_string_pretty(&well_known_document(config)).unwrap_or_default();
    let _ = write!(
        text,
        "\
Parlour {version} for {server}
  HTTP on {http}, reached by clients as {public_url}
  media offered at {reachable}

Clients find calls through the homeserver. Put this into its https://{server}/.well-known/matrix/client
(beside m.homeserver, with the header Access-Control-Allow-Origin: *):

{well_known}

and this into Synapse's homeserver.yaml:

matrix_rtc:
  transports:
    - type: livekit
      livekit_service_url: {service_url}
experimental_features:
  msc4143_enabled: true    # clients ask the homeserver where calls are
  msc4222_enabled: true    # reliable room state, which memberships need
  msc4354_enabled: true    # memberships of the newest kind
max_event_delay_duration: 24h   # a caller that vanishes leaves the call
rc_message: {{ per_second: 0.5, burst_count: 30 }}
rc_delayed_event_mgmt: {{ per_second: 1, burst_count: 20 }}

",
        version = env!("CARGO_PKG_VERSION"),
        server = config.server_name,
        http = config.http.listen,
        public_url = config.public_url,
        reachable = if reachable.is_empty() {
            "no address: set media.public_addresses".to_owned()
        } else {
            reachable.join(", ")
        },
        service_url = config.service_url(),
    );
    text
}
