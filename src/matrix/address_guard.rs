//! Which addresses we may connect to on behalf of a stranger. PURE.
//!
//! A token request names a homeserver, and its DNS and redirects name addresses: all of it chosen by whoever asks. Without
//! this check the request would reach services that trust the network they are on. Asked by `server_discovery` for every
//! address right before it connects to exactly that address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 networks that are not the public Internet (IANA special-purpose registry), and two public-looking addresses at
/// which clouds serve machine credentials.
const DENIED_V4: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // carrier-grade NAT; Alibaba's metadata at 100.100.100.200
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's host service
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, where most clouds serve metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, broadcast
];

/// All that IANA has given out as global unicast. What is outside is loopback, unique-local, link-local, multicast,
/// NAT64, or has no meaning yet.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Exceptions inside [`GLOBAL_V6`].
const DENIED_V6: &[(Ipv6Addr, u8)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments: Teredo, benchmarking, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4: carries an IPv4 address
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

#[derive(Debug, Clone, Default)]
pub struct AddressGuard {
    /// Networks the operator has opened; they win over every rule.
    allowed: Vec<IpNet>,
}

impl AddressGuard {
    pub fn new(allowed: Vec<IpNet>) -> AddressGuard {
        AddressGuard { allowed }
    }

    /// Whether a connection to `address` may be made for a stranger.
    ///
    /// An IPv6 address that carries an IPv4 one (mapped, compatible, translated, NAT64, 6to4) is never public itself, and
    /// is allowed only when the operator has opened the network of the form in which it will be used on the wire: for
    /// mapped addresses, which the system turns into IPv4, that of the IPv4 address.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed.iter().any(|net| net.contains(&address)) || is_public(address)
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !DENIED_V4.iter().any(|(net, length)| Ipv4Net::new_assert(*net, *length).contains(&v4)),
        IpAddr::V6(v6) => {
            let within = |(net, length): &(Ipv6Addr, u8)| Ipv6Net::new_assert(*net, *length).contains(&v6);
            within(&GLOBAL_V6) && !DENIED_V6.iter().any(within)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same rules as prose has them, read bit by bit: first match wins.
    const REFERENCE: &[(&str, bool)] = &[
        ("0.0.0.0/8", false),
        ("10.0.0.0/8", false),
        ("100.64.0.0/10", false),
        ("127.0.0.0/8", false),
        ("168.63.129.16/32", false),
        ("169.254.0.0/16", false),
        ("172.16.0.0/12", false),
        ("192.0.0.0/24", false),
        ("192.0.2.0/24", false),
        ("192.88.99.0/24", false),
        ("192.168.0.0/16", false),
        ("198.18.0.0/15", false),
        ("198.51.100.0/24", false),
        ("203.0.113.0/24", false),
        ("224.0.0.0/3", false),
        ("0.0.0.0/0", true),
        ("2001:0::/23", false),
        ("2001:db8::/32", false),
        ("2002::/16", false),
        ("3fff::/20", false),
        ("2000::/3", true),
        ("::/0", false),
    ];

    fn bits(address: IpAddr) -> String {
        match address {
            IpAddr::V4(v4) => v4.octets().iter().map(|b| format!("{b:08b}")).collect(),
            IpAddr::V6(v6) => v6.octets().iter().map(|b| format!("{b:08b}")).collect(),
        }
    }

    fn slow_is_public(address: IpAddr) -> bool {
        if let IpAddr::V6(v6) = address {
            let text = bits(address);
            if text.starts_with(&("0".repeat(80) + &"1".repeat(16))) {
                return slow_is_public(IpAddr::V4(Ipv4Addr::from(v6.to_bits() as u32)));
            }
        }
        let (_, verdict) = REFERENCE
            .iter()
            .find(|(net, _)| {
                let (network, length) = net.split_once('/').unwrap();
                let network: IpAddr = network.parse().unwrap();
                network.is_ipv4() == address.is_ipv4()
                    && bits(address).starts_with(&bits(network)[..length.parse().unwrap()])
            })
            .unwrap();
        *verdict
    }

    #[test]
    fn known_addresses() {
        let guard = AddressGuard::default();
        for (address, allowed) in [
            ("1.1.1.1", true),
            ("8.8.8.8", true),
            ("172.15.255.255", true),
            ("172.32.0.0", true),
            ("100.63.255.255", true),
            ("168.63.129.17", true),
            ("2606:4700::1111", true),
            ("2a00:1450::1", true),
            ("2001:200::1", true),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("172.31.255.255", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.100.100.200", false),
            ("168.63.129.16", false),
            ("255.255.255.255", false),
            ("239.1.1.1", false),
            ("::", false),
            ("::1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("ff02::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:1.1.1.1", true),
            ("::127.0.0.1", false),
            ("::ffff:0:127.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b:1::1", false),
            ("2002:7f00:1::1", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("3fff::1", false),
            ("4000::1", false),
        ] {
            assert_eq!(guard.allows(address.parse().unwrap()), allowed, "{address}");
        }
    }

    #[test]
    fn an_opened_network_is_allowed_and_nothing_beside_it() {
        let guard = AddressGuard::new(vec!["10.1.0.0/16".parse().unwrap(), "fd00:1::/32".parse().unwrap()]);
        for (address, allowed) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("127.0.0.1", false),
            ("fd00:1::5", true),
            ("fd00:2::5", false),
            ("64:ff9b::a01:203", false),
            ("2002:a01:203::1", false),
        ] {
            assert_eq!(guard.allows(address.parse().unwrap()), allowed, "{address}");
        }
    }

    fn near_a_border() -> impl Strategy<Value = IpAddr> {
        // Random addresses hardly ever hit a small network: start from each network's ends.
        (0..REFERENCE.len(), any::<u128>(), 0u32..4, any::<bool>()).prop_map(|(rule, noise, offset, end)| {
            let net: IpNet = REFERENCE[rule].0.parse().unwrap();
            match net {
                IpNet::V4(net) => {
                    let base = if end {
                        net.broadcast().to_bits().wrapping_add(offset)
                    } else {
                        net.network().to_bits().wrapping_sub(offset)
                    };
                    let inside = net.network().to_bits() | (noise as u32 & net.hostmask().to_bits());
                    IpAddr::V4(Ipv4Addr::from(if offset == 3 { inside } else { base }))
                }
                IpNet::V6(net) => {
                    let base = if end {
                        net.broadcast().to_bits().wrapping_add(offset.into())
                    } else {
                        net.network().to_bits().wrapping_sub(offset.into())
                    };
                    let inside = net.network().to_bits() | (noise & net.hostmask().to_bits());
                    IpAddr::V6(Ipv6Addr::from(if offset == 3 { inside } else { base }))
                }
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn agrees_with_the_slow_reference(address in near_a_border(), v4 in any::<u32>(), v6 in any::<u128>()) {
            let guard = AddressGuard::default();
            for address in [address, IpAddr::V4(v4.into()), IpAddr::V6(v6.into()), IpAddr::V6(Ipv4Addr::from(v4).to_ipv6_mapped())] {
                prop_assert_eq!(guard.allows(address), slow_is_public(address), "{}", address);
            }
        }

        #[test]
        fn opening_a_network_opens_just_that(address in near_a_border(), network in any::<u32>(), length in 0u8..=32) {
            let opened = Ipv4Net::new(network.into(), length).unwrap().trunc();
            let guard = AddressGuard::new(vec![opened.into()]);
            let within = match address.to_canonical() {
                IpAddr::V4(v4) => bits(v4.into()).starts_with(&bits(opened.addr().into())[..length as usize]),
                IpAddr::V6(_) => false,
            };
            prop_assert_eq!(guard.allows(address), within || slow_is_public(address));
        }
    }
}
