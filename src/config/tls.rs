//! `[tls]`: the listener that HTTPS, WebSockets and TURN share.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use url::Url;

use super::source::Source;
use super::{existing_file, network, parsed};

/// The one port that every network lets through.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 443);
const ADVERTISED_PORT: u16 = 443;

#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    pub listen: SocketAddr,
    /// PEM: the certificate, then those that lead to the root.
    pub certificate_file: PathBuf,
    /// PEM.
    pub private_key_file: PathBuf,
    /// Where clients find the listener: a balancer may stand before it.
    pub advertised_port: u16,
    /// The name in the certificate, as it stands in a URL.
    pub host: String,
    /// Balancers that must, and alone may, say in a PROXY protocol v2 header for whom they connect.
    pub proxy_protocol_from: Vec<IpNet>,
}

impl Tls {
    /// `None`: TLS is somebody else's.
    pub(super) fn read(s: &mut Source, public_url: Option<&Url>) -> Option<Tls> {
        let file = "a file that exists";
        let certificate = s.value("tls.certificate_file", existing_file, file);
        let private_key = s.value("tls.private_key_file", existing_file, file);
        let listen = s.value("tls.listen", parsed, "an address with a port, such as 0.0.0.0:443").unwrap_or(LISTEN);
        let advertised_port = s.value("tls.advertised_port", port, "a port").unwrap_or(ADVERTISED_PORT);
        let host = s.value("tls.host", host, "the host name in the certificate, such as rtc.example.org");
        let proxy_protocol_from =
            s.list("tls.proxy_protocol_from", network, "a network such as 10.0.0.0/8").unwrap_or_default();

        let files =
            [("tls.certificate_file", "tls.private_key_file"), ("tls.private_key_file", "tls.certificate_file")];
        for (set, missing) in files {
            if s.is_set(set) && !s.is_set(missing) {
                s.refuse(missing, format!("is missing: {set} is of no use without it"));
            }
        }
        let host = host.or_else(|| public_url?.host_str().map(str::to_owned)).unwrap_or_default();
        Some(Tls {
            listen,
            certificate_file: certificate?,
            private_key_file: private_key?,
            advertised_port,
            host,
            proxy_protocol_from,
        })
    }
}

fn port(text: &str) -> Option<u16> {
    parsed::<u16>(text).filter(|port| *port > 0)
}

/// As in a URL: a name, an IPv4 address, or an IPv6 address in brackets.
fn host(text: &str) -> Option<String> {
    let host = url::Host::parse(text).ok()?;
    let is_name = !matches!(&host, url::Host::Domain(name) if name.contains(['*', '%']));
    is_name.then(|| host.to_string())
}
