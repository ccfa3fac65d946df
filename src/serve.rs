//! The server from start to end: puts the parts together, says what to do next, waits for a signal. Called by `main`.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::http::{self, App, AppService};
use crate::livekit::Keys;
use crate::matrix::{MatrixRooms, Transactions, setup};
use crate::metrics::Metrics;
use crate::net::{self, Node, Presence, TurnOptions};
use crate::sfu;
use crate::store::Store;
use crate::turn;
use crate::turn::credentials::Credentials;
use crate::turn::peer_policy::{PeerPolicy, PeerRules};
use crate::turn::quotas::Quotas;

mod announcement;

pub use announcement::announcement;

/// Runs until a signal; the error is a sentence for the operator.
pub async fn run(config: Config) -> Result<(), String> {
    let config = Arc::new(config);
    let keys = config::api_keys(&config).map_err(|problem| problem.to_string())?;
    let metrics = Arc::new(Metrics::new());
    raise_descriptor_limit();
    let mut signals = Signals::listen().map_err(|e| format!("cannot wait for signals: {e}"))?;
    let tls = config.tls.as_ref().map(http::Tls::load).transpose()?;

    let store = Store::open(&config.data_dir)?;
    let tokens = config.appservice.enabled.then(|| config::appservice_tokens(&config)).transpose();
    let tokens = tokens.map_err(|problem| problem.to_string())?;

    let (presence, presences) = mpsc::unbounded_channel();
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
    let rooms = MatrixRooms::new(config.clone(), tokens.as_ref(), &store, node.clone(), metrics.clone())?;
    tokio::spawn(watch_presence(presences, rooms.observer()));
    let appservice = match &tokens {
        Some(tokens) => {
            let (transactions, inbox) = Transactions::open(&store).map_err(|e| e.to_string())?;
            let rooms = rooms.clone();
            tokio::spawn(async move { rooms.act_on(inbox).await });
            Some(AppService::new(&config, tokens, transactions))
        }
        None => None,
    };
    let app = App::new(config.clone(), keys, node.clone(), rooms.clone(), appservice, metrics)?;
    let listener = listen("http.listen", config.http.listen).await?;
    let tls_listener = match &config.tls {
        Some(tls) => Some(listen("tls.listen", tls.listen).await?),
        None => None,
    };
    let homeserver_listener = match config.appservice.listen {
        Some(address) if config.appservice.enabled => Some(listen("appservice.listen", address).await?),
        _ => None,
    };

    print!("{}", announcement(&config));
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    // Now that the listeners are there: the homeserver is made to reach for them.
    tokio::spawn(setup::look(rooms.homeserver.clone(), config.clone()));

    let shutdown = CancellationToken::new();
    let watching = {
        let (rooms, shutdown) = (rooms, shutdown.clone());
        tokio::spawn(async move { rooms.run(shutdown).await })
    };
    let mut serving = JoinSet::new();
    serving.spawn(http::serve(listener, app.clone(), shutdown.clone()));
    if let (Some(listener), Some(tls)) = (tls_listener, tls) {
        serving.spawn(http::serve_tls(listener, Arc::new(tls), app.clone(), shutdown.clone()));
    }
    if let Some(listener) = homeserver_listener {
        serving.spawn(http::serve_homeserver(listener, app.clone(), shutdown.clone()));
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
    watching.abort();
    if workers_failed { Err("the media workers ended by themselves; the log says why".into()) } else { Ok(()) }
}

/// Tells all who need to know who comes and goes, each in the order in which it happened.
async fn watch_presence(mut presences: mpsc::UnboundedReceiver<Presence>, note: impl Fn(&Presence)) {
    while let Some(presence) = presences.recv().await {
        // Should one report make us panic, the others are needed all the same: else nobody's leave would be noticed.
        if catch_unwind(AssertUnwindSafe(|| note(&presence))).is_err() {
            tracing::error!(participant = %presence.sid, "a report of who comes and goes made us panic; it is skipped");
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        let required = "server_name = \"example.org\"\nhomeserver = \"http://127.0.0.1:8008\"\npublic_url = \"https://rtc.example.org\"\n";
        std::fs::write(file.path(), format!("{required}{more}")).unwrap();
        Config::load(file.path(), std::iter::empty()).unwrap_or_else(|problems| panic!("{problems}"))
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
