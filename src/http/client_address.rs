//! The address a request comes from: the peer's, or what a trusted reverse proxy says it is. Limits count by it.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// Put into every request by `server`.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

/// The rightmost entry of `X-Forwarded-For` that no trusted proxy is: what stands left of it may be made up.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut client = peer.to_canonical();
    let lines: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    let mut hops = lines.iter().flat_map(|line| line.split(',')).rev();
    while is_trusted(client) {
        match hops.next().and_then(|hop| address(hop.trim())) {
            Some(address) => client = address.to_canonical(),
            None => break,
        }
    }
    client
}

/// Some proxies add the port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_hops_are_believed() {
        let trusted: Vec<IpNet> = ["127.0.0.0/8", "10.0.0.0/8", "::1/128"].iter().map(|n| n.parse().unwrap()).collect();
        for (peer, forwarded, expected) in [
            ("127.0.0.1", &[][..], "127.0.0.1"),
            ("127.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("::ffff:127.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("1.2.3.4", &["5.6.7.8"], "1.2.3.4"),
            ("127.0.0.1", &["9.9.9.9, 1.2.3.4, 10.0.0.1"], "1.2.3.4"),
            ("127.0.0.1", &["9.9.9.9", "1.2.3.4"], "1.2.3.4"),
            ("127.0.0.1", &["9.9.9.9, unknown"], "127.0.0.1"),
            ("127.0.0.1", &["10.0.0.2, 10.0.0.1"], "10.0.0.2"),
            ("::1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("::1", &["2001:db8::1"], "2001:db8::1"),
            ("::1", &["1.2.3.4:55"], "1.2.3.4"),
        ] {
            let mut headers = HeaderMap::new();
            for line in forwarded {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            assert_eq!(
                client_address(peer.parse().unwrap(), &headers, &trusted),
                expected.parse::<IpAddr>().unwrap(),
                "{peer} {forwarded:?}"
            );
        }
    }
}
