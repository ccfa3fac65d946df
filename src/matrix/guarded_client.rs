//! Requests to servers that strangers have named: TLS only, to checked addresses only, small and quick answers only.
//!
//! A name is resolved here, every address is put before the [`AddressGuard`], and the connection goes to those very
//! addresses: a name server that answers differently the second time gains nothing. Redirects are left to the caller, who
//! comes back here with the new name. Used by `server_discovery`, and by `openid` and `delayed_events` through it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{Name, RData};
use reqwest::header::{HOST, HeaderMap};
use reqwest::{Method, StatusCode, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use super::address_guard::AddressGuard;
use super::server_name::Host;
use crate::config::Federation;

/// Well-known documents and userinfo answers are a few hundred bytes; some well-known documents carry much else.
const LARGEST_BODY: usize = 64 * 1024;

/// A reachable homeserver answers the TCP handshake within one round trip; beyond this it is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For the whole exchange with one server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Ports below this are other protocols' (SSH, SMTP, …): Matrix uses 443 and 8448.
const LEAST_OPEN_PORT: u16 = 1024;
const HTTPS_PORT: u16 = 443;

/// Addresses tried per name.
const MOST_ADDRESSES: usize = 4;

pub struct GuardedClient {
    pub(super) dns: TokioResolver,
    pub(super) tls: rustls::ClientConfig,
    pub(super) guard: AddressGuard,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What the certificate must be for.
    pub host: Host,
    pub port: u16,
    /// The `Host` header.
    pub host_header: String,
    /// The name to resolve instead of `host`: the target of an SRV record.
    pub target: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("its name has no address")]
    NotFound,
    #[error("its address is private; federation.allow_private may open the network")]
    AddressDenied,
    #[error("its port belongs to another protocol")]
    PortDenied,
    #[error("it cannot be reached")]
    Unreachable,
    #[error("its answer is too large")]
    TooLarge,
    #[error("it took too long")]
    Timeout,
}

impl GuardedClient {
    /// With the system's name servers and certificates, and those in `extra_ca` (PEM).
    pub fn new(guard: AddressGuard, extra_ca: Option<&Path>) -> Result<GuardedClient, String> {
        let dns = TokioResolver::builder_tokio()
            .and_then(|builder| builder.build())
            .map_err(|e| format!("cannot read the system's name servers (/etc/resolv.conf): {e}"))?;
        Ok(GuardedClient { dns, tls: tls(extra_ca)?, guard })
    }

    /// With what `[federation]` opens and trusts.
    pub fn configured(federation: &Federation) -> Result<GuardedClient, String> {
        GuardedClient::new(AddressGuard::new(federation.allow_private.clone()), federation.extra_ca_file.as_deref())
    }

    /// A client for servers whose URL the operator has configured: it trusts the same certificates, goes to any address, and
    /// follows no redirect to where nobody has configured it to go.
    pub fn unguarded(&self) -> reqwest::ClientBuilder {
        unguarded(self.tls.clone())
    }

    /// GETs `path`, which starts with `/` and may have a query.
    pub async fn get(&self, endpoint: &Endpoint, path: &str) -> Result<Answer, FetchError> {
        self.request(Method::GET, endpoint, path, None).await
    }

    /// As [`GuardedClient::get`], with any method and a JSON body.
    pub async fn request(
        &self,
        method: Method,
        endpoint: &Endpoint,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, FetchError> {
        let exchange = async {
            let addresses = self.addresses(endpoint).await?;
            self.exchange(method, endpoint, &addresses, path, body).await
        };
        tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.map_err(|_| FetchError::Timeout)?
    }

    /// The targets of an SRV record, best first: lower priority, then higher weight.
    pub async fn srv(&self, name: &str) -> Vec<(String, u16)> {
        let Ok(name) = Name::from_ascii(format!("{name}.")) else { return Vec::new() };
        let Ok(lookup) = self.dns.srv_lookup(name).await else { return Vec::new() };
        let mut records: Vec<_> = lookup
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) if !srv.target.is_root() => Some(srv.clone()),
                _ => None,
            })
            .collect();
        records.sort_by_key(|srv| (srv.priority, std::cmp::Reverse(srv.weight)));
        records.iter().map(|srv| (srv.target.to_ascii().trim_end_matches('.').to_owned(), srv.port)).collect()
    }

    async fn addresses(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, FetchError> {
        if endpoint.port < LEAST_OPEN_PORT && endpoint.port != HTTPS_PORT {
            return Err(FetchError::PortDenied);
        }
        let found: Vec<IpAddr> = match (&endpoint.target, &endpoint.host) {
            (Some(name), _) | (None, Host::Name(name)) => self.resolve(name).await?,
            (None, Host::Address(address)) => vec![*address],
        };
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| self.guard.allows(*address))
            .take(MOST_ADDRESSES)
            .map(|address| SocketAddr::new(address, endpoint.port))
            .collect();
        if allowed.is_empty() { Err(FetchError::AddressDenied) } else { Ok(allowed) }
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, FetchError> {
        // Fully qualified: the search domains of our own network are no part of a stranger's name.
        let name = Name::from_ascii(format!("{name}.")).map_err(|_| FetchError::NotFound)?;
        let lookup = self.dns.lookup_ip(name).await.map_err(|_| FetchError::NotFound)?;
        Ok(lookup.iter().collect())
    }

    async fn exchange(
        &self,
        method: Method,
        endpoint: &Endpoint,
        addresses: &[SocketAddr],
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, FetchError> {
        let url = endpoint.url(path).ok_or(FetchError::NotFound)?;
        let mut client = unguarded(self.tls.clone())
            .no_proxy()
            .https_only(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(0);
        if let Host::Name(name) = &endpoint.host {
            client = client.resolve_to_addrs(name, addresses);
        }
        let client = client.build().map_err(|_| FetchError::Unreachable)?;
        let mut request = client.request(method, url).header(HOST, &endpoint.host_header);
        if let Some(body) = body {
            request = request.json(body);
        }
        Answer::read(request.send().await?).await
    }
}

impl Answer {
    /// Reads a response up to the limit.
    pub async fn read(mut response: reqwest::Response) -> Result<Answer, FetchError> {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > LARGEST_BODY {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body })
    }
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> FetchError {
        if error.is_timeout() { FetchError::Timeout } else { FetchError::Unreachable }
    }
}

impl Endpoint {
    /// `None` when a URL would mean another host than we have checked: `127.1` or `0x7f000001` is a name to DNS and an
    /// address to a URL.
    fn url(&self, path: &str) -> Option<Url> {
        let (authority, expected) = match &self.host {
            Host::Name(name) => (name.clone(), url::Host::Domain(name.to_ascii_lowercase())),
            Host::Address(IpAddr::V4(v4)) => (v4.to_string(), url::Host::Ipv4(*v4)),
            Host::Address(IpAddr::V6(v6)) => (format!("[{v6}]"), url::Host::Ipv6(*v6)),
        };
        let url = Url::parse(&format!("https://{authority}:{}{path}", self.port)).ok()?;
        (url.host()?.to_owned() == expected).then_some(url)
    }
}

/// As [`GuardedClient::unguarded`].
pub(super) fn unguarded(tls: rustls::ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder().tls_backend_preconfigured(tls).redirect(redirect::Policy::none())
}

pub(super) fn tls(extra_ca: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(certificates(extra_ca)?, provider.clone())
        .map_err(|e| format!("cannot load the system's certificates: {e}; install the package ca-certificates"))?;
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous() // The name of the builder step that takes any verifier; this one verifies.
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn certificates(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let explain = |what: String| format!("federation.extra_ca_file: {}: {what}", file.display());
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| explain(e.to_string()))?;
    if certificates.is_empty() { Err(explain("holds no certificate".to_owned())) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: Host, port: u16) -> Endpoint {
        Endpoint { host, port, host_header: "h".into(), target: None }
    }

    #[test]
    fn a_name_that_a_url_reads_as_an_address_is_refused() {
        for name in ["127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1"] {
            assert_eq!(endpoint(Host::Name(name.into()), 8448).url("/"), None, "{name}");
        }
        let good = endpoint(Host::Name("Example.org".into()), 8448).url("/a?b").unwrap();
        assert_eq!(good.as_str(), "https://example.org:8448/a?b");
        let v6 = endpoint(Host::Address("::1".parse().unwrap()), 443).url("/").unwrap();
        assert_eq!(v6.as_str(), "https://[::1]/");
    }

    #[tokio::test]
    async fn denied_addresses_and_ports_are_not_connected_to() {
        // The listener would notice a connection.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = GuardedClient::new(AddressGuard::default(), None).unwrap();
        for host in [
            Host::Address("127.0.0.1".parse().unwrap()),
            Host::Address("::ffff:127.0.0.1".parse().unwrap()),
            Host::Name("localhost".into()),
        ] {
            assert_eq!(client.get(&endpoint(host, port), "/").await.unwrap_err(), FetchError::AddressDenied);
        }
        for port in [22, 25, 80] {
            assert_eq!(
                client.get(&endpoint(Host::Address("127.0.0.1".parse().unwrap()), port), "/").await.unwrap_err(),
                FetchError::PortDenied
            );
        }
        assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err());

        let open = GuardedClient::new(AddressGuard::new(vec!["127.0.0.0/8".parse().unwrap()]), None).unwrap();
        let accepted = tokio::spawn(async move { listener.accept().await.is_ok() });
        assert_eq!(
            open.get(&endpoint(Host::Name("localhost".into()), port), "/").await.unwrap_err(),
            FetchError::Unreachable
        );
        assert!(accepted.await.unwrap(), "an opened network is connected to");
    }
}
