//! Every way a server name leads to a server, with a name server and TLS servers of our own on loopback.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, OpCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::matrix::AddressGuard;
use crate::matrix::guarded_client;

/// The one address on loopback that the guard of these tests does not allow.
const DENIED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Answers on loopback for a small Internet.
struct World {
    authority: Issuer<'static, KeyPair>,
    authority_file: tempfile::NamedTempFile,
    names: HashMap<String, Vec<RData>>,
}

impl World {
    fn new() -> World {
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(authority_file.path(), authority.self_signed(&key).unwrap().pem()).unwrap();
        World { authority: Issuer::new(authority, key), authority_file, names: HashMap::new() }
    }

    fn address(&mut self, name: &str) {
        self.names.entry(format!("{name}.")).or_default().push(RData::A(A(Ipv4Addr::LOCALHOST)));
    }

    fn service(&mut self, name: &str, priority: u16, port: u16, target: &str) {
        let target = Name::from_ascii(format!("{target}.")).unwrap();
        self.names.entry(format!("{name}.")).or_default().push(RData::SRV(SRV::new(priority, 1, port, target)));
    }

    /// A TLS server with a certificate for `names`. It answers with its own number, the `Host` header and the path, but
    /// gives what `documents` has for a host and path.
    async fn server(&self, names: &[&str], documents: &[(&'static str, &str)]) -> u16 {
        self.server_at(Ipv4Addr::LOCALHOST, names, documents).await
    }

    async fn server_at(&self, address: Ipv4Addr, names: &[&str], documents: &[(&'static str, &str)]) -> u16 {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.authority).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let documents: HashMap<&'static str, String> =
            documents.iter().map(|(name, text)| (*name, text.to_string())).collect();
        let router = Router::new().fallback(answer).with_state((port, Arc::new(documents)));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let service = TowerToHyperService::new(router);
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    }
                });
            }
        });
        port
    }

    async fn discovery(&self, https_port: u16, federation_port: u16) -> ServerDiscovery {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut connection = ConnectionConfig::udp();
        connection.port = socket.local_addr().unwrap().port();
        tokio::spawn(name_server(socket, self.names.clone()));
        let name_server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![connection]);
        let dns = TokioResolver::builder_with_config(
            ResolverConfig::from_name_servers(vec![name_server]),
            TokioRuntimeProvider::default(),
        )
        .build()
        .unwrap();
        let guard = AddressGuard::new(vec!["127.0.0.1/32".parse().unwrap()]);
        let client = GuardedClient { dns, tls: guarded_client::tls(Some(self.authority_file.path())).unwrap(), guard };
        ServerDiscovery { https_port, federation_port, ..ServerDiscovery::new(client) }
    }
}

async fn name_server(socket: UdpSocket, names: HashMap<String, Vec<RData>>) {
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let query = question.queries[0].clone();
        let mut response = Message::response(question.metadata.id, OpCode::Query);
        let known = names.get(&query.name().to_ascii().to_ascii_lowercase()).cloned().unwrap_or_default();
        for data in known.into_iter().filter(|data| data.record_type() == query.query_type()) {
            response.add_answer(Record::from_rdata(query.name().clone(), 60, data));
        }
        response.add_query(query);
        socket.send_to(&response.to_vec().unwrap(), from).await.unwrap();
    }
}

async fn answer(
    State((port, documents)): State<(u16, Arc<HashMap<&'static str, String>>)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let host = headers["host"].to_str().unwrap();
    let name = host.split(':').next().unwrap();
    let here = format!("{name}{uri}");
    match documents.get(here.as_str()) {
        Some(text) => match text.strip_prefix("-> ") {
            Some(location) => (axum::http::StatusCode::FOUND, [("location", location.to_owned())]).into_response(),
            None => text.clone().into_response(),
        },
        None if uri.path().starts_with("/.well-known/") => axum::http::StatusCode::NOT_FOUND.into_response(),
        None => format!("{port} {host} {uri}").into_response(),
    }
}

async fn reached(discovery: &ServerDiscovery, server: &str) -> Result<String, FetchError> {
    let answer = discovery.get(server, "/userinfo?a=b").await?;
    assert_eq!(answer.status, StatusCode::OK);
    Ok(String::from_utf8(answer.body).unwrap())
}

#[tokio::test]
async fn every_step_of_the_resolution() {
    let mut world = World::new();
    for name in [
        "plain.test",
        "delegating.test",
        "delegated.test",
        "srv.test",
        "old-srv.test",
        "both.test",
        "target.test",
        "to-srv.test",
        "to-port.test",
        "to-ip.test",
        "broken.test",
    ] {
        world.address(name);
    }
    let names = ["plain.test", "delegated.test", "srv.test", "old-srv.test", "both.test", "broken.test", "127.0.0.1"];
    let federation = world.server(&names, &[]).await;
    let elsewhere = world.server(&names, &[]).await;
    let third = world.server(&names, &[]).await;
    let well_known = |to: &str| format!("{{\"m.server\": \"{to}\"}}");
    let https = world
        .server(
            &[
                "plain.test",
                "delegating.test",
                "srv.test",
                "old-srv.test",
                "both.test",
                "to-srv.test",
                "to-port.test",
                "to-ip.test",
                "broken.test",
            ],
            &[
                ("delegating.test/.well-known/matrix/server", &well_known("delegated.test")),
                ("to-srv.test/.well-known/matrix/server", &well_known("srv.test")),
                ("to-port.test/.well-known/matrix/server", &well_known(&format!("delegated.test:{elsewhere}"))),
                ("to-ip.test/.well-known/matrix/server", &well_known(&format!("127.0.0.1:{elsewhere}"))),
                ("broken.test/.well-known/matrix/server", "{\"m.server\": \"not a name\"}"),
            ],
        )
        .await;
    world.service("_matrix-fed._tcp.srv.test", 10, elsewhere, "target.test");
    world.service("_matrix._tcp.old-srv.test", 10, third, "target.test");
    world.service("_matrix-fed._tcp.both.test", 20, third, "target.test");
    world.service("_matrix-fed._tcp.both.test", 10, elsewhere, "target.test");
    world.service("_matrix._tcp.both.test", 1, third, "target.test");
    let discovery = world.discovery(https, federation).await;

    for (server, port, host) in [
        ("127.0.0.1", federation, "127.0.0.1".to_owned()),
        (&format!("127.0.0.1:{elsewhere}"), elsewhere, format!("127.0.0.1:{elsewhere}")),
        (&format!("plain.test:{elsewhere}"), elsewhere, format!("plain.test:{elsewhere}")),
        ("plain.test", federation, "plain.test".to_owned()),
        ("delegating.test", federation, "delegated.test".to_owned()),
        ("to-port.test", elsewhere, format!("delegated.test:{elsewhere}")),
        ("to-ip.test", elsewhere, format!("127.0.0.1:{elsewhere}")),
        // Host and certificate are those of the name, not of the SRV target.
        ("srv.test", elsewhere, "srv.test".to_owned()),
        ("to-srv.test", elsewhere, "srv.test".to_owned()),
        ("old-srv.test", third, "old-srv.test".to_owned()),
        ("both.test", elsewhere, "both.test".to_owned()),
        ("broken.test", federation, "broken.test".to_owned()),
    ] {
        assert_eq!(reached(&discovery, server).await, Ok(format!("{port} {host} /userinfo?a=b")), "{server}");
    }
    assert_eq!(reached(&discovery, "missing.test").await, Err(FetchError::NotFound));
    assert_eq!(reached(&discovery, "delegated.test:99999").await, Err(FetchError::NotFound));
    assert_eq!(
        reached(&discovery, &format!("delegating.test:{elsewhere}")).await,
        Err(FetchError::Unreachable),
        "no certificate for that name"
    );
}

#[tokio::test]
async fn redirects_are_followed_a_little() {
    let mut world = World::new();
    let redirecting = ["one.test", "relative.test", "loop.test", "to-http.test"];
    for name in redirecting.into_iter().chain(["target.test", "delegated.test"]) {
        world.address(name);
    }
    let delegation = "{\"m.server\": \"delegated.test\"}";
    let federation = world.server(&["delegated.test", "loop.test", "to-http.test"], &[]).await;
    let target = world.server(&["target.test"], &[("target.test/moved?a", delegation)]).await;
    let https = world
        .server(
            &redirecting,
            &[
                ("one.test/.well-known/matrix/server", &format!("-> https://target.test:{target}/moved?a")),
                ("relative.test/.well-known/matrix/server", "-> /there"),
                ("relative.test/there", delegation),
                ("loop.test/.well-known/matrix/server", "-> /.well-known/matrix/server"),
                ("to-http.test/.well-known/matrix/server", &format!("-> http://target.test:{target}/moved?a")),
            ],
        )
        .await;
    let discovery = world.discovery(https, federation).await;
    for (server, host) in [
        ("one.test", "delegated.test"),
        ("relative.test", "delegated.test"),
        // What cannot be followed counts as no delegation.
        ("loop.test", "loop.test"),
        ("to-http.test", "to-http.test"),
    ] {
        assert_eq!(reached(&discovery, server).await, Ok(format!("{federation} {host} /userinfo?a=b")), "{server}");
    }
}

#[tokio::test]
async fn no_step_leads_to_a_denied_address() {
    let mut world = World::new();
    for name in ["hop.test", "srv.test", "delegating.test"] {
        world.address(name);
    }
    for name in ["inside.test", "inside-target.test"] {
        world.names.insert(format!("{name}."), vec![RData::A(A(DENIED))]);
    }
    let delegation = "{\"m.server\": \"hop.test\"}";
    let names = ["hop.test", "srv.test", "inside.test", "delegating.test", "127.0.0.2"];
    let inside =
        world.server_at(DENIED, &names, &[("127.0.0.2/doc", delegation), ("inside.test/doc", delegation)]).await;
    let federation = world.server(&["nobody.test"], &[]).await;
    let https = world
        .server(
            &names,
            &[
                ("hop.test/.well-known/matrix/server", &format!("-> https://127.0.0.2:{inside}/doc")),
                ("delegating.test/.well-known/matrix/server", &format!("{{\"m.server\": \"inside.test:{inside}\"}}")),
            ],
        )
        .await;
    world.service("_matrix-fed._tcp.srv.test", 10, inside, "inside-target.test");
    let discovery = world.discovery(https, federation).await;
    for server in [
        format!("127.0.0.2:{inside}"),
        format!("inside.test:{inside}"),
        "inside.test".into(),
        "srv.test".into(),
        "delegating.test".into(),
    ] {
        assert_eq!(reached(&discovery, &server).await, Err(FetchError::AddressDenied), "{server}");
    }
    // Had the redirect been followed, the document inside would have been believed.
    assert!(reached(&discovery, "hop.test").await.is_err());
    assert_eq!(discovery.delegation(&ServerName::parse("hop.test").unwrap()).await, None);

    // The same world with that address opened: every one of them is reached, so nothing else was in the way.
    let mut open = world.discovery(https, federation).await;
    open.client.guard = AddressGuard::new(vec!["127.0.0.0/8".parse().unwrap()]);
    for server in
        [format!("127.0.0.2:{inside}"), format!("inside.test:{inside}"), "srv.test".into(), "delegating.test".into()]
    {
        assert!(reached(&open, &server).await.is_ok(), "{server}");
    }
    assert!(open.delegation(&ServerName::parse("hop.test").unwrap()).await.is_some());
}

#[test]
fn a_delegation_lives_as_long_as_the_server_says_within_reason() {
    let lives = |control: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, control.parse().unwrap());
        lifetime(&Answer { status: StatusCode::OK, headers, body: Vec::new() }).as_secs()
    };
    assert_eq!(lives("public, max-age=7200"), 7200);
    assert_eq!(lives("max-age=0"), 60);
    assert_eq!(lives("Max-Age=\"99999999\""), 48 * 3600);
    assert_eq!(lives("no-transform"), 24 * 3600);
    assert_eq!(lives("max-age=x"), 24 * 3600);
}

async fn client_api(discovery: &ServerDiscovery, server: &str) -> Result<String, FetchError> {
    let answer = discovery.client_post(server, "/_matrix/x", &serde_json::json!({})).await?;
    Ok(String::from_utf8(answer.body).unwrap())
}

#[tokio::test]
async fn the_client_api_is_where_its_document_says() {
    let mut world = World::new();
    for name in
        ["plain.test", "moved.test", "none.test", "broken.test", "http.test", "loop.test", "api.test", "internal.test"]
    {
        world.address(name);
    }
    let api = world.server(&["api.test"], &[]).await;
    let inside = world.server_at(DENIED, &["internal.test"], &[]).await;
    let document = |base: &str| format!("{{\"m.homeserver\": {{\"base_url\": \"{base}\"}}, \"more\": 1}}");
    let https = world
        .server(
            &["plain.test", "moved.test", "none.test", "broken.test", "http.test", "loop.test", "127.0.0.2"],
            &[
                ("plain.test/.well-known/matrix/client", &document(&format!("https://api.test:{api}"))),
                ("moved.test/.well-known/matrix/client", "-> /elsewhere"),
                ("moved.test/elsewhere", &document(&format!("https://api.test:{api}/matrix/"))),
                ("broken.test/.well-known/matrix/client", "{\"m.homeserver\": \"api.test\"}"),
                ("http.test/.well-known/matrix/client", &document(&format!("http://api.test:{api}"))),
                ("loop.test/.well-known/matrix/client", "-> /.well-known/matrix/client"),
            ],
        )
        .await;
    let discovery = world.discovery(https, 1).await;
    for (server, reached) in [
        ("plain.test", Ok(format!("{api} api.test:{api} /_matrix/x"))),
        ("plain.test:8448", Ok(format!("{api} api.test:{api} /_matrix/x"))),
        ("moved.test", Ok(format!("{api} api.test:{api} /matrix/_matrix/x"))),
        ("none.test", Err(FetchError::NotFound)),
        ("broken.test", Err(FetchError::NotFound)),
        ("http.test", Err(FetchError::NotFound)),
        ("loop.test", Err(FetchError::NotFound)),
        ("unknown.test", Err(FetchError::NotFound)),
        ("no name", Err(FetchError::NotFound)),
    ] {
        assert_eq!(client_api(&discovery, server).await, reached, "{server}");
    }

    // What the document names is guarded as the name itself.
    let base = document(&format!("https://127.0.0.2:{inside}"));
    let https = world.server(&["plain.test"], &[("plain.test/.well-known/matrix/client", &base)]).await;
    let discovery = world.discovery(https, 1).await;
    assert_eq!(client_api(&discovery, "plain.test").await, Err(FetchError::AddressDenied));
}
