//! The configuration: one typed struct, read once at start from a TOML file and from `PARLOUR_SECTION__KEY` variables.
//!
//! `config/parlour.toml` shows every key with its default. Every mistake is reported at once, with the key, where it was
//! set and what to do; see [`Problems`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use url::Url;

use crate::sfu::WorkerId;

mod access;
mod api_keys;
mod appservice;
mod appservice_tokens;
mod limits;
mod private_file;
mod problem;
mod secret;
mod source;
mod tls;
mod turn;

pub use access::Access;
pub use api_keys::{api_keys, existing_api_keys};
pub use appservice::AppService;
pub use appservice_tokens::{AppServiceTokens, appservice_tokens, existing_appservice_tokens};
pub use limits::Limits;
pub use problem::{Problem, Problems};
pub use secret::Secret;
use source::Source;
pub use tls::Tls;
pub use turn::Turn;

/// Loopback, because TLS is the reverse proxy's: a plain port must not be reachable from outside by accident.
const HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Where a reverse proxy sits: on this machine or on a private network such as a container bridge. Only such peers are
/// believed when they say for whom they ask.
const TRUSTED_PROXIES: &[&str] =
    &["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/// Numbers of rooms and participants are nobody's business outside: whoever scrapes them is on a private network.
const METRICS_FROM: &[&str] = TRUSTED_PROXIES;

/// The STUN and TURN port: firewalls that let calls through know it, and one number is all there is to open.
const MEDIA_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 3478);

/// More workers than this pay only on machines where someone will have thought about the number.
const MOST_WORKERS_UNASKED: usize = 16;

/// Where Linux keeps the state of services; systemd's `StateDirectory=parlour` creates it.
const DATA_DIR: &str = "/var/lib/parlour";

/// Every server: people of other servers can only listen in calls that exist, and a call across servers splits silently
/// when one side gets no token. The outgoing requests this causes are guarded, see `matrix::address_guard`.
const FEDERATION_ALLOW: &[&str] = &["*"];

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The Matrix server name we serve, e.g. `example.org`.
    pub server_name: String,
    /// The homeserver's client-server API as reached from here, without `/_matrix`.
    pub homeserver: Url,
    /// Where clients reach us, without a trailing slash in the path.
    pub public_url: Url,
    /// Keys and, later, state that outlives a restart.
    pub data_dir: PathBuf,
    pub http: Http,
    pub media: Media,
    pub turn: Turn,
    /// `None`: a reverse proxy has the certificate, and TURN is without TLS.
    pub tls: Option<Tls>,
    /// API key → secret, as configured; empty = [`api_keys`] generates one.
    pub keys: BTreeMap<String, Secret>,
    pub appservice: AppService,
    pub access: Access,
    pub federation: Federation,
    pub limits: Limits,
    pub log: Log,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    pub listen: SocketAddr,
    /// A folder with a built web demo, served at `/`.
    pub web_root: Option<PathBuf>,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Client addresses that may read `/metrics`.
    pub metrics_from: Vec<IpNet>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Media {
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    /// Addresses that clients reach the media ports at; empty = found out.
    pub public_addresses: Vec<IpAddr>,
    /// Threads that forward media; each room lives on one of them.
    pub workers: usize,
    /// Microphones heard at once in a room, those of who spoke last; 0 = all.
    pub forward_loudest: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Federation {
    /// Servers whose users get tokens, besides the local ones.
    pub allow: Vec<ServerPattern>,
    /// Exceptions from `allow`.
    pub deny: Vec<ServerPattern>,
    /// Private networks that other homeservers may be reached in.
    pub allow_private: Vec<IpNet>,
    /// Server name → base URL, instead of server discovery.
    pub overrides: BTreeMap<String, Url>,
    /// Certificates (PEM) that are trusted besides the system's.
    pub extra_ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    /// A level, or directives as in `info,parlour=debug`.
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// `*`, `*.example.org` (its subdomains) or one server name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerPattern {
    Any,
    Below(String),
    Exactly(String),
}

impl ServerPattern {
    fn parse(text: &str) -> Option<ServerPattern> {
        match text.strip_prefix("*.") {
            _ if text == "*" => Some(ServerPattern::Any),
            Some(domain) => server_name(domain).map(ServerPattern::Below),
            None => server_name(text).map(ServerPattern::Exactly),
        }
    }

    /// Host names are compared as DNS does, in any case, and a name without a port stands for all of them: a denied
    /// server must not come back in capitals or on another port.
    pub fn matches(&self, server: &str) -> bool {
        let host = server.rsplit_once(':').map_or(server, |(host, _port)| host);
        match self {
            ServerPattern::Any => true,
            ServerPattern::Exactly(name) => name.eq_ignore_ascii_case(server) || name.eq_ignore_ascii_case(host),
            ServerPattern::Below(domain) => {
                let (host, domain) = (host.to_ascii_lowercase(), domain.to_ascii_lowercase());
                host.strip_suffix(&domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

impl Config {
    /// Reads `file` and overrides it with the `PARLOUR_…` variables among `environment`.
    pub fn load(file: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Config, Problems> {
        let source = Source::open(file, environment)?;
        Config::read(source)
    }

    fn read(mut s: Source) -> Result<Config, Problems> {
        let name = "a Matrix server name such as example.org";
        let server = s.required("server_name", server_name, name);
        let homeserver = s.required(
            "homeserver",
            homeserver_url,
            "the URL of the homeserver without /_matrix, such as http://127.0.0.1:8008",
        );
        let public_url =
            s.required("public_url", public_url, "the URL clients reach Parlour at, such as https://rtc.example.org");
        let cidr = "a network such as 10.0.0.0/8";
        let pattern = "a server name, *.example.org or *";
        let address = "an address with a port, such as 127.0.0.1:8080 or [::]:8080";

        let media = Media {
            udp: s.value("media.udp", parsed, address).unwrap_or(MEDIA_LISTEN),
            tcp: s.value("media.tcp", parsed, address).unwrap_or(MEDIA_LISTEN),
            public_addresses: s
                .list(
                    "media.public_addresses",
                    public_address,
                    "an address that clients can reach, such as 198.51.100.7",
                )
                .unwrap_or_default(),
            workers: s
                .value("media.workers", workers, &format!("a whole number from 1 to {}", WorkerId::MAX))
                .unwrap_or_else(workers_of_this_machine),
            // All: in the meetings most rooms are, nobody shall be missed.
            forward_loudest: s.value("media.forward_loudest", parsed, "a whole number, 0 for all").unwrap_or(0),
        };
        let listen = s.value("http.listen", parsed, address).unwrap_or(HTTP_LISTEN);
        let appservice = AppService::read(&mut s, listen);
        let config = Config {
            data_dir: s.value("data_dir", parsed, "a folder").unwrap_or_else(|| DATA_DIR.into()),
            http: Http {
                listen,
                web_root: s.value("http.web_root", existing_folder, "a folder that exists"),
                trusted_proxies: s
                    .list("http.trusted_proxies", network, cidr)
                    .unwrap_or_else(|| networks(TRUSTED_PROXIES)),
                metrics_from: s.list("http.metrics_from", network, cidr).unwrap_or_else(|| networks(METRICS_FROM)),
            },
            turn: Turn::read(&mut s, server.as_deref(), media.udp.port()),
            tls: Tls::read(&mut s, public_url.as_ref()),
            media,
            keys: s.secrets("keys"),
            access: Access::read(&mut s, server.as_deref(), appservice.enabled),
            appservice,
            federation: Federation {
                allow: s
                    .list("federation.allow", ServerPattern::parse, pattern)
                    .unwrap_or_else(|| FEDERATION_ALLOW.iter().filter_map(|p| ServerPattern::parse(p)).collect()),
                deny: s.list("federation.deny", ServerPattern::parse, pattern).unwrap_or_default(),
                allow_private: s.list("federation.allow_private", network, cidr).unwrap_or_default(),
                overrides: s.table(
                    "federation.overrides",
                    http_url,
                    "the base URL of that server, such as https://matrix.example.com",
                ),
                extra_ca_file: s.value("federation.extra_ca_file", existing_file, "a file that exists"),
            },
            limits: Limits::read(&mut s),
            log: Log {
                format: s.value("log.format", log_format, "text or json").unwrap_or(LogFormat::Text),
                level: s
                    .value(
                        "log.level",
                        log_level,
                        "error, warn, info, debug, trace, or directives such as info,parlour=debug",
                    )
                    .unwrap_or_else(|| "info".into()),
            },
            // Placeholders where a required key is missing: `finish` then reports it and nobody sees them.
            server_name: server.unwrap_or_default(),
            homeserver: homeserver.unwrap_or_else(nowhere),
            public_url: public_url.unwrap_or_else(nowhere),
        };
        s.finish()?;
        Ok(config)
    }

    /// Things that work, but rarely as meant.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.public_url.scheme() == "http" && !is_loopback(&self.public_url) {
            warnings.push(format!(
                "public_url: {} is not https. Browsers give no camera and open no call on such a page; put a reverse proxy with a certificate before Parlour",
                self.public_url
            ));
        }
        if !self.access.local_servers.contains(&self.server_name) {
            warnings.push(format!(
                "access.local_servers: {} is not among them, so its own users can neither start calls nor publish",
                self.server_name
            ));
        }
        warnings.extend(self.appservice.warnings());
        warnings.extend(self.turn.warnings());
        warnings
    }

    /// The base URL of our token service: what discovery documents call `livekit_service_url`.
    pub fn service_url(&self) -> String {
        self.public_url.as_str().trim_end_matches('/').to_owned()
    }

    /// The URL that LiveKit clients connect to.
    pub fn sfu_url(&self) -> String {
        // `http` becomes `ws` and `https` becomes `wss`.
        self.service_url().replacen("http", "ws", 1)
    }

    /// Whether `server` is among those that we work for.
    pub fn is_local(&self, server: &str) -> bool {
        self.access.local_servers.iter().any(|local| local == server)
    }

    /// Whether users of `server` may publish.
    pub fn may_publish(&self, server: &str) -> bool {
        self.is_local(server)
            || self.access.remote_can_publish
            || self.access.publish.iter().any(|pattern| pattern.matches(server))
    }

    /// Whether users of `server` may start calls.
    pub fn may_create(&self, server: &str) -> bool {
        self.is_local(server) || self.access.create.iter().any(|pattern| pattern.matches(server))
    }

    /// Whether users of `server` get tokens at all.
    pub fn is_allowed(&self, server: &str) -> bool {
        let federation = &self.federation;
        self.is_local(server)
            || (federation.allow.iter().any(|p| p.matches(server))
                && !federation.deny.iter().any(|p| p.matches(server)))
    }
}

fn parsed<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn server_name(text: &str) -> Option<String> {
    ruma_identifiers_validation::server_name::validate(text).ok()?;
    Some(text.to_owned())
}

fn http_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
    (plain && url.username().is_empty() && url.password().is_none()).then_some(url)
}

fn homeserver_url(text: &str) -> Option<Url> {
    http_url(text).filter(|url| !url.path().contains("/_matrix"))
}

fn public_url(text: &str) -> Option<Url> {
    let mut url = http_url(text)?;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Some(url)
}

fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|net| net.trunc())
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| network(text)).collect()
}

fn public_address(text: &str) -> Option<IpAddr> {
    parsed::<IpAddr>(text).filter(|address| !address.is_unspecified() && !address.is_multicast())
}

fn positive(text: &str) -> Option<u32> {
    parsed::<u32>(text).filter(|n| *n > 0)
}

fn workers(text: &str) -> Option<usize> {
    parsed::<usize>(text).filter(|n| (1..=WorkerId::MAX).contains(n))
}

/// One for each core: they share nothing, so each fills one.
fn workers_of_this_machine() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_WORKERS_UNASKED))
}

fn existing_folder(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_dir())
}

fn existing_file(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_file())
}

fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

fn log_level(text: &str) -> Option<String> {
    // A lone word that is no level would be read as the name of a target.
    let known = ["error", "warn", "info", "debug", "trace", "off"].contains(&text) || text.contains('=');
    let directives = text.parse::<tracing_subscriber::filter::Targets>();
    (known && directives.is_ok()).then(|| text.to_owned())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// Whether the way there is on this machine or within a network of ours, as far as the URL tells: a name without a dot is one
/// of a container or of the local network.
fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => {
            networks(TRUSTED_PROXIES).iter().any(|net| net.contains(&IpAddr::V4(address)))
        }
        Some(url::Host::Ipv6(address)) => {
            networks(TRUSTED_PROXIES).iter().any(|net| net.contains(&IpAddr::V6(address)))
        }
        Some(url::Host::Domain(name)) => !name.contains('.') || is_loopback(url),
        None => false,
    }
}

fn nowhere() -> Url {
    Url::parse("http://invalid").expect("a fixed text")
}
