//! Callers of other servers, over TLS to a homeserver made of a few lines: who gets what, and what is never connected to.

mod http_support;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_support::{Homeserver, Server, payload};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A homeserver under a private authority, at `localhost` and `127.0.0.1`.
struct Foreign {
    port: u16,
    /// TCP connections, whether or not anything came of them.
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    authority: tempfile::NamedTempFile,
}

impl Foreign {
    async fn start() -> Foreign {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (router, counter) = (Homeserver::router(requests.clone()), connections.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
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
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(authority_pem.as_bytes()).unwrap();
        Foreign { port, connections, requests, authority: file }
    }

    fn name(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// A server that trusts the authority and may connect to loopback.
    async fn server(&self, more: &str) -> Server {
        Server::with_config(&format!(
            "[federation]\nallow_private = [\"127.0.0.0/8\", \"::1\"]\nextra_ca_file = {:?}\n{more}",
            self.authority.path()
        ))
        .await
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn request(server: &str, token: &str) -> Value {
    json!({"room": "!room:example.org", "device_id": "DEV", "openid_token": {"access_token": token, "matrix_server_name": server}})
}

const ALIAS: &str = "TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E";

#[tokio::test]
async fn a_foreign_user_may_listen_in_what_exists() {
    let foreign = Foreign::start().await;
    let server = foreign.server("").await;
    for name in [foreign.name(), format!("127.0.0.1:{}", foreign.port)] {
        let (status, answer) = server.post_json("/sfu/get", &request(&name, &format!("sub:@bob:{name}"))).await;
        assert_eq!(status, 200, "{answer}");
        let claims = payload(answer["jwt"].as_str().unwrap());
        assert_eq!(claims["sub"], format!("@bob:{name}:DEV"));
        assert_eq!((&claims["video"]["canPublish"], &claims["video"]["canSubscribe"]), (&json!(false), &json!(true)));
        assert_eq!(claims["video"]["room"], ALIAS);
        assert!(!server.has_room(ALIAS).await, "the room is not theirs to make");

        let validate = format!("/rtc/validate?access_token={}", answer["jwt"].as_str().unwrap());
        let response = server.get(&validate).await;
        assert_eq!(response.status(), 404);
        assert!(response.text().await.unwrap().contains("requested room does not exist"));
    }
    let (_, answer) =
        server.post_json("/sfu/get", &request(&foreign.name(), &format!("sub:@bob:{}", foreign.name()))).await;
    assert_eq!(server.post_json("/sfu/get", &request("example.org", "sub:@alice:example.org")).await.0, 200);
    let validate = format!("/rtc/validate?access_token={}", answer["jwt"].as_str().unwrap());
    assert_eq!(server.get(&validate).await.status(), 200, "once a local user has started the call");
    assert_eq!(foreign.requests(), 2, "the third answer was remembered");
}

#[tokio::test]
async fn policy_decides_what_other_servers_may() {
    let foreign = Foreign::start().await;
    let body = request(&foreign.name(), &format!("sub:@bob:{}", foreign.name()));
    let can_publish = |answer: &Value| payload(answer["jwt"].as_str().unwrap())["video"]["canPublish"].clone();

    let open = foreign.server("[access]\nremote_can_publish = true\n").await;
    let (status, answer) = open.post_json("/sfu/get", &body).await;
    assert_eq!((status, can_publish(&answer)), (200, json!(true)));
    assert!(!open.has_room(ALIAS).await);

    let family =
        foreign.server(&format!("[access]\nlocal_servers = [\"example.org\", \"{}\"]\n", foreign.name())).await;
    let (status, answer) = family.post_json("/sfu/get", &body).await;
    assert_eq!((status, can_publish(&answer)), (200, json!(true)));
    assert!(family.has_room(ALIAS).await);

    let asked = foreign.requests();
    for policy in ["deny = [\"localhost\"]\n", "allow = []\n", "allow = [\"*.localhost\"]\n"] {
        let closed = foreign.server(policy).await;
        assert_eq!(closed.post_json("/sfu/get", &body).await.0, 401, "{policy}");
        assert_eq!(
            closed.post_json("/sfu/get", &request("example.org", "sub:@a:example.org")).await.0,
            200,
            "{policy}"
        );
    }
    assert_eq!(foreign.requests(), asked, "a denied server is not even asked");
}

#[tokio::test]
async fn private_addresses_are_not_connected_to() {
    let foreign = Foreign::start().await;
    let server = Server::with_config(&format!("[federation]\nextra_ca_file = {:?}\n", foreign.authority.path())).await;
    let port = foreign.port;
    for name in [
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("127.1:{port}"),
        format!("2130706433:{port}"),
        format!("0x7f000001:{port}"),
    ] {
        let (status, answer) = server.post_json("/sfu/get", &request(&name, &format!("sub:@bob:{name}"))).await;
        assert_eq!((status, answer["errcode"].as_str()), (401, Some("M_UNAUTHORIZED")), "{name}");
    }
    assert_eq!(foreign.connections.load(Ordering::SeqCst), 0);
    assert!(
        server.counted("parlour_openid_verifications_total{result=\"address-denied\"} 4"),
        "{}",
        server.metrics.render()
    );
}

#[tokio::test]
async fn nobody_vouches_for_users_of_others() {
    let foreign = Foreign::start().await;
    let server = foreign.server("").await;
    for user in
        ["@alice:example.org", "@alice:localhost", "@alice:LOCALHOST:1", &format!("@alice:Localhost:{}", foreign.port)]
    {
        assert_eq!(
            server.post_json("/sfu/get", &request(&foreign.name(), &format!("sub:{user}"))).await.0,
            401,
            "{user}"
        );
    }
    assert_eq!(foreign.requests(), 4, "each was asked about and refused");
}

#[tokio::test]
async fn a_certificate_nobody_trusts_is_refused() {
    let foreign = Foreign::start().await;
    let server = Server::with_config("[federation]\nallow_private = [\"127.0.0.0/8\", \"::1\"]\n").await;
    let body = request(&foreign.name(), &format!("sub:@bob:{}", foreign.name()));
    assert_eq!(server.post_json("/sfu/get", &body).await.0, 401);
    assert_eq!(foreign.requests(), 0);
    let connections = foreign.connections.load(Ordering::SeqCst);
    assert!(connections > 0);
    assert_eq!(server.post_json("/sfu/get", &body).await.0, 401);
    assert_eq!(
        foreign.connections.load(Ordering::SeqCst),
        connections,
        "a server in trouble is left alone for a while"
    );
}

#[tokio::test]
async fn bad_answers_are_refused() {
    for token in ["raw:hello", "huge:70000", "redirect:http://127.0.0.1/", "status:500", "status:404"] {
        let foreign = Foreign::start().await;
        let server = foreign.server("").await;
        assert_eq!(server.post_json("/sfu/get", &request(&foreign.name(), token)).await.0, 401, "{token}");
        assert_eq!(foreign.requests(), 1, "{token}");
    }
}

#[tokio::test]
async fn a_slow_server_holds_up_nobody() {
    let foreign = Foreign::start().await;
    let server = Arc::new(foreign.server("").await);
    let started = Instant::now();
    let slow: Vec<_> = (0..8)
        .map(|n| {
            let (server, body) = (server.clone(), request(&foreign.name(), &format!("slow:{n}")));
            tokio::spawn(async move { server.post_json("/sfu/get", &body).await.0 })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(server.post_json("/sfu/get", &request("example.org", "sub:@a:example.org")).await.0, 200);
    assert!(started.elapsed() < Duration::from_secs(2));
    let mut statuses = Vec::new();
    for task in slow {
        statuses.push(task.await.unwrap());
    }
    statuses.sort();
    assert_eq!(statuses, [401, 401, 401, 401, 429, 429, 429, 429], "four at a time");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_override_replaces_discovery() {
    let other = Homeserver::start().await;
    let server =
        Server::with_config(&format!("[federation.overrides]\n\"other.org\" = \"http://{}\"\n", other.address)).await;
    assert_eq!(server.post_json("/sfu/get", &request("other.org", "sub:@bob:other.org")).await.0, 200);
    assert_eq!(server.post_json("/sfu/get", &request("other.org", "sub:@bob:example.org")).await.0, 401);
    assert_eq!(other.asked(), 2);
    assert_eq!(server.homeserver.asked(), 0);
}
