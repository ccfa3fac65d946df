//! Where clients can reach us: the candidates written into every SDP.

use std::net::{IpAddr, SocketAddr};

use crate::transport::Protocol;

/// Interfaces that lead to containers on this machine and nowhere else.
const INNER_INTERFACES: [&str; 6] = ["docker", "br-", "veth", "cni", "virbr", "podman"];

/// Candidates for the listening sockets: the configured addresses, else those of this machine's interfaces; loopback only
/// when there is nothing else. UDP before TCP, IPv4 and IPv6 as the socket has them.
pub fn candidates(configured: &[IpAddr], udp: SocketAddr, tcp: SocketAddr) -> Vec<(Protocol, SocketAddr)> {
    let found = if configured.is_empty() { own_addresses() } else { configured.to_vec() };
    let of = |protocol: Protocol, listen: SocketAddr| {
        let reachable = |ip: &IpAddr| {
            if !configured.is_empty() {
                // What the operator says may be the far side of a NAT.
                return listen.is_ipv6() && listen.ip().is_unspecified() || ip.is_ipv4() == listen.is_ipv4();
            }
            match listen.ip() {
                any if any.is_unspecified() => listen.is_ipv6() || ip.is_ipv4(),
                one => one == *ip,
            }
        };
        let chosen: Vec<_> =
            found.iter().filter(|ip| reachable(ip)).map(|ip| (protocol, SocketAddr::new(*ip, listen.port()))).collect();
        if chosen.is_empty() && !listen.ip().is_unspecified() { vec![(protocol, listen)] } else { chosen }
    };
    let mut all = of(Protocol::Udp, udp);
    all.extend(of(Protocol::Tcp, tcp));
    all
}

/// Every address of this machine, loopback and container bridges included: none of them may be reached through the relay.
pub fn addresses_of_this_machine() -> Vec<IpAddr> {
    if_addrs::get_if_addrs().unwrap_or_default().iter().map(|interface| interface.ip()).collect()
}

fn own_addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let usable = |loopback: bool| -> Vec<IpAddr> {
        interfaces
            .iter()
            .filter(|i| {
                i.is_loopback() == loopback && !INNER_INTERFACES.iter().any(|prefix| i.name.starts_with(prefix))
            })
            .map(|i| i.ip())
            // Firefox stumbles over link-local candidates, and nobody needs them.
            .filter(|ip| !is_link_local(*ip))
            .collect()
    };
    let outer = usable(false);
    if outer.is_empty() { usable(true) } else { outer }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn configured_addresses_win() {
        let public: IpAddr = "198.51.100.7".parse().unwrap();
        let found = candidates(&[public], address("0.0.0.0:3478"), address("0.0.0.0:3478"));
        assert_eq!(
            found,
            [(Protocol::Udp, address("198.51.100.7:3478")), (Protocol::Tcp, address("198.51.100.7:3478"))]
        );
    }

    #[test]
    fn a_socket_bound_to_one_address_offers_that_one() {
        let found = candidates(&[], address("127.0.0.1:4000"), address("127.0.0.1:4001"));
        assert_eq!(found, [(Protocol::Udp, address("127.0.0.1:4000")), (Protocol::Tcp, address("127.0.0.1:4001"))]);
    }

    #[test]
    fn an_address_of_another_family_than_the_socket_is_left_out() {
        let both: [IpAddr; 2] = ["198.51.100.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let found = candidates(&both, address("0.0.0.0:1"), address("[::]:2"));
        assert_eq!(
            found,
            [
                (Protocol::Udp, address("198.51.100.7:1")),
                (Protocol::Tcp, address("198.51.100.7:2")),
                (Protocol::Tcp, address("[2001:db8::7]:2")),
            ]
        );
    }
}
