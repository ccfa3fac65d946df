//! The probe of dangerous peers, rule by rule tables, and a second, slow writing of the whole policy to compare with.

use proptest::prelude::*;

use super::*;

fn policy(rules: PeerRules) -> PeerPolicy {
    PeerPolicy::new(rules).unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Peers that a well-known server without a deny list was asked for; it granted the first fourteen.
const PROBE: [(&str, Denied); 20] = [
    ("10.0.0.1", Denied::Soft),
    ("192.168.1.1", Denied::Soft),
    ("100.64.0.1", Denied::Soft),
    ("169.254.169.254", Denied::Hard),
    ("224.0.0.1", Denied::Hard),
    ("255.255.255.255", Denied::Hard),
    ("::ffff:127.0.0.1", Denied::Hard),
    ("::ffff:10.0.0.1", Denied::Soft),
    ("::127.0.0.1", Denied::Hard),
    ("64:ff9b::7f00:1", Denied::Hard),
    ("2002:7f00:1::1", Denied::Hard),
    ("fe80::1", Denied::Hard),
    ("fd00::1", Denied::Soft),
    ("ff02::1", Denied::Hard),
    ("127.0.0.1", Denied::Hard),
    ("127.255.255.254", Denied::Hard),
    ("0.0.0.0", Denied::Hard),
    ("0.255.255.255", Denied::Hard),
    ("::1", Denied::Hard),
    ("::", Denied::Hard),
];

#[test]
fn none_of_the_dangerous_peers_is_granted() {
    let policy = policy(PeerRules::default());
    for (peer, denied) in PROBE {
        assert_eq!(policy.permits(address(peer)), Err(denied), "{peer}");
        assert_eq!(policy.permits_port((address(peer), 50_000).into()), Err(denied), "{peer}");
    }
}

#[test]
fn peers_on_the_internet_are_permitted() {
    let policy = policy(PeerRules::default());
    for peer in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2606:4700::1111",
        "2a00:1450::1",
        "2003::1",
        "3ffe::1",
    ] {
        assert_eq!(policy.permits(address(peer)), Ok(()), "{peer}");
    }
}

#[test]
fn addresses_with_a_meaning_of_their_own_are_never_peers() {
    let policy = policy(PeerRules {
        allow: nets(&["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]),
        ..PeerRules::default()
    });
    for peer in [
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "240.0.0.1",
        "100::1",
        "100:0:0:1::1",
        "5f00::1",
        "fec0::1",
        "2001::1",
        "2001:1ff::1",
        "2001:db8::1",
        "3fff:fff::1",
        "4000::1",
        "1fff::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
    ] {
        assert_eq!(policy.permits(address(peer)), Err(Denied::Hard), "{peer}");
    }
}

#[test]
fn the_operator_opens_private_networks_and_closes_others() {
    let policy = policy(PeerRules {
        allow: nets(&["10.1.0.0/16", "fd12::/16"]),
        deny: nets(&["10.1.2.0/24", "1.0.0.0/8", "2a00::/12"]),
        ..PeerRules::default()
    });
    for (peer, expected) in [
        ("10.1.1.1", Ok(())),
        ("10.1.2.1", Err(Denied::Operator)),
        ("10.2.1.1", Err(Denied::Soft)),
        ("fd12::1", Ok(())),
        ("fd13::1", Err(Denied::Soft)),
        ("1.1.1.1", Err(Denied::Operator)),
        ("::ffff:1.1.1.1", Err(Denied::Operator)),
        ("::ffff:10.1.1.1", Err(Denied::Embedded)),
        ("2a00:1450::1", Err(Denied::Operator)),
        ("2606:4700::1", Ok(())),
    ] {
        assert_eq!(policy.permits(address(peer)), expected, "{peer}");
    }
}

#[test]
fn what_may_not_be_allowed_is_an_error() {
    for hard in [
        "127.0.0.1/32",
        "169.254.169.254/32",
        "100.100.100.200/32",
        "224.0.0.0/8",
        "::1/128",
        "fe80::/10",
        "ff00::/8",
        "::ffff:10.0.0.0/104",
        "64:ff9b::/96",
        "2002:a00::/24",
        "2001:db8::/48",
        "fd00:ec2::/64",
    ] {
        let net = hard.parse().unwrap();
        let rules = PeerRules { allow: vec![net], ..PeerRules::default() };
        assert_eq!(PeerPolicy::new(rules).unwrap_err(), BadRule::AllowsHard(net), "{hard}");
    }
    for public in ["0.0.0.0/0", "::/0", "8.8.8.0/24", "10.0.0.0/7", "172.0.0.0/8", "2606::/16", "2000::/3", "f000::/4"]
    {
        let net = public.parse().unwrap();
        let rules = PeerRules { allow: vec![net], ..PeerRules::default() };
        assert_eq!(PeerPolicy::new(rules).unwrap_err(), BadRule::AllowsPublic(net), "{public}");
    }
    let prefix = "2a00:64::/97".parse().unwrap();
    let rules = PeerRules { nat64: vec![prefix], ..PeerRules::default() };
    assert_eq!(PeerPolicy::new(rules).unwrap_err(), BadRule::Nat64Length(prefix));
}

#[test]
fn this_machine_and_what_trusts_it_are_closed_whatever_is_allowed() {
    let policy = policy(PeerRules {
        allow: nets(&["10.0.0.0/8"]),
        ourselves: vec![address("10.0.0.5"), address("::ffff:9.9.9.9"), address("2a00::5")],
        back_ends: vec![address("10.0.0.6")],
        ..PeerRules::default()
    });
    for (peer, expected) in [
        ("10.0.0.5", Err(Denied::Ourselves)),
        ("::ffff:10.0.0.5", Err(Denied::Ourselves)),
        ("2002:a00:5::1", Err(Denied::Ourselves)),
        ("9.9.9.9", Err(Denied::Ourselves)),
        ("2a00::5", Err(Denied::Ourselves)),
        ("10.0.0.6", Err(Denied::BackEnd)),
        ("10.0.0.7", Ok(())),
    ] {
        assert_eq!(policy.permits(address(peer)), expected, "{peer}");
    }
}

/// RFC 6052 §2.4 puts 192.0.2.33 behind a prefix of each length; here it is 10.2.3.33.
#[test]
fn nat64_prefixes_are_seen_through() {
    for (prefix, peer) in [
        ("2a01:db8::/32", "2a01:db8:a02:321::"),
        ("2a01:db8:100::/40", "2a01:db8:10a:203:21::"),
        ("2a01:db8:122::/48", "2a01:db8:122:a02:3:2100::"),
        ("2a01:db8:122:300::/56", "2a01:db8:122:30a:2:321::"),
        ("2a01:db8:122:344::/64", "2a01:db8:122:344:a:203:2100::"),
        ("2a01:db8:122:344::/96", "2a01:db8:122:344::10.2.3.33"),
    ] {
        let rules = PeerRules { nat64: vec![prefix.parse().unwrap()], ..PeerRules::default() };
        assert_eq!(policy(rules.clone()).permits(address(peer)), Err(Denied::Soft), "{prefix}");
        let opened = PeerRules { allow: nets(&["10.2.3.33/32"]), ..rules };
        assert_eq!(policy(opened).permits(address(peer)), Err(Denied::Embedded), "{prefix}");
        assert_eq!(policy(PeerRules::default()).permits(address(peer)), Ok(()), "only listed prefixes are NAT64");
    }
}

#[test]
fn ports_of_services_and_of_reflectors_are_closed() {
    let policy = policy(PeerRules::default());
    let port = |port: u16| policy.permits_port((address("1.1.1.1"), port).into());
    for closed in [0, 1, 53, 123, 442, 444, 1023, 1434, 1900, 3283, 3702, 5353, 5683, 10_001, 11_211] {
        assert_eq!(port(closed), Err(Denied::Port), "{closed}");
    }
    for open in [443, 1024, 3478, 5349, 49_152, 65_535] {
        assert_eq!(port(open), Ok(()), "{open}");
    }
    assert_eq!(policy.permits_port((address("10.0.0.1"), 53).into()), Err(Denied::Soft));
}

/// The policy once more, as prose has it, on bits written as text; first match wins. `None` is permitted.
const REFERENCE: &[(&str, Option<Denied>)] = &[
    ("0.0.0.0/8", Some(Denied::Hard)),
    ("100.100.100.200/32", Some(Denied::Hard)),
    ("127.0.0.0/8", Some(Denied::Hard)),
    ("168.63.129.16/32", Some(Denied::Hard)),
    ("169.254.0.0/16", Some(Denied::Hard)),
    ("192.0.0.0/24", Some(Denied::Hard)),
    ("192.0.2.0/24", Some(Denied::Hard)),
    ("192.88.99.0/24", Some(Denied::Hard)),
    ("198.18.0.0/15", Some(Denied::Hard)),
    ("198.51.100.0/24", Some(Denied::Hard)),
    ("203.0.113.0/24", Some(Denied::Hard)),
    ("224.0.0.0/3", Some(Denied::Hard)),
    ("10.0.0.0/8", Some(Denied::Soft)),
    ("100.64.0.0/10", Some(Denied::Soft)),
    ("172.16.0.0/12", Some(Denied::Soft)),
    ("192.168.0.0/16", Some(Denied::Soft)),
    ("0.0.0.0/0", None),
    ("fd00:c1::a9fe:a9fe/128", Some(Denied::Hard)),
    ("fd00:ec2::/32", Some(Denied::Hard)),
    ("fd20:ce::254/128", Some(Denied::Hard)),
    ("fc00::/7", Some(Denied::Soft)),
    ("2001::/23", Some(Denied::Hard)),
    ("2001:db8::/32", Some(Denied::Hard)),
    ("3fff::/20", Some(Denied::Hard)),
    ("2000::/3", None),
    ("::/0", Some(Denied::Hard)),
];

/// Prefixes before an IPv4 address, and what follows it is anything. `NAT64` is the operator's.
const CARRIERS: [(&str, usize); 7] = [
    ("0:0:0:0:0:ffff::/96", 0),
    ("::/96", 0),
    ("::ffff:0:0:0/96", 0),
    ("64:ff9b::/96", 0),
    ("2002::/16", 80),
    ("64:ff9b:1::/48", 48),
    (NAT64, 0),
];

const NAT64: &str = "2a01:64::/96";

fn bits(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.octets().iter().map(|b| format!("{b:08b}")).collect(),
        IpAddr::V6(v6) => v6.octets().iter().map(|b| format!("{b:08b}")).collect(),
    }
}

fn prefix_bits(net: &str) -> String {
    let (network, length) = net.split_once('/').unwrap();
    bits(address(network))[..length.parse().unwrap()].to_owned()
}

fn slow(peer: IpAddr) -> Result<(), Denied> {
    let text = bits(peer);
    if peer.is_ipv6() && !["::", "::1"].map(address).contains(&peer) {
        for (carrier, _) in CARRIERS {
            let Some(rest) = text.strip_prefix(&prefix_bits(carrier)) else { continue };
            // The octet in the middle of a 48 bit NAT64 prefix carries nothing.
            let ipv4 =
                if carrier == "64:ff9b:1::/48" { rest[..16].to_owned() + &rest[24..40] } else { rest[..32].to_owned() };
            let ipv4 = Ipv4Addr::from(u32::from_str_radix(&ipv4, 2).unwrap());
            slow(ipv4.into())?;
            return Err(Denied::Embedded);
        }
    }
    let rule =
        REFERENCE.iter().find(|(net, _)| net.contains(':') == peer.is_ipv6() && text.starts_with(&prefix_bits(net)));
    rule.unwrap().1.map_or(Ok(()), Err)
}

/// Random addresses hardly ever hit a small network: start from each network's ends.
fn near_a_border() -> impl Strategy<Value = IpAddr> {
    let all: Vec<&str> = REFERENCE.iter().map(|(net, _)| *net).chain(CARRIERS.iter().map(|(net, _)| *net)).collect();
    (0..all.len(), any::<u128>(), 0u8..3, any::<bool>(), any::<bool>()).prop_map(
        move |(rule, noise, offset, end, inside)| {
            let step = u128::from(offset);
            match all[rule].parse().unwrap() {
                IpNet::V4(net) => IpAddr::V4(Ipv4Addr::from(match (inside, end) {
                    (true, _) => net.network().to_bits() | (noise as u32 & net.hostmask().to_bits()),
                    (false, true) => net.broadcast().to_bits().wrapping_add(step as u32),
                    (false, false) => net.network().to_bits().wrapping_sub(step as u32),
                })),
                IpNet::V6(net) => IpAddr::V6(Ipv6Addr::from(match (inside, end) {
                    (true, _) => net.network().to_bits() | (noise & net.hostmask().to_bits()),
                    (false, true) => net.broadcast().to_bits().wrapping_add(step),
                    (false, false) => net.network().to_bits().wrapping_sub(step),
                })),
            }
        },
    )
}

/// All the IPv6 forms of an IPv4 address that we know; the noise fills what they leave free.
fn forms(ipv4: Ipv4Addr, noise: u128) -> Vec<Ipv6Addr> {
    let ip = u128::from(ipv4.to_bits());
    let split = ip >> 16 << 64 | (ip & 0xffff) << 40;
    let form = |(carrier, free): (&str, usize)| {
        let prefix = carrier.parse::<Ipv6Net>().unwrap().network().to_bits();
        let free = noise & ((1 << free) - 1);
        Ipv6Addr::from(match carrier {
            "64:ff9b:1::/48" => prefix | split | (free & ((1 << 40) - 1)),
            "2002::/16" => prefix | ip << 80 | free,
            _ => prefix | ip,
        })
    };
    CARRIERS.into_iter().map(form).collect()
}

fn with_nat64() -> PeerPolicy {
    policy(PeerRules { nat64: vec![NAT64.parse().unwrap()], ..PeerRules::default() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn agrees_with_the_slow_reference(border in near_a_border(), v4: u32, v6: u128) {
        let policy = with_nat64();
        for peer in [border, IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
            prop_assert_eq!(policy.permits(peer), slow(peer), "{}", peer);
        }
    }

    /// However an IPv4 address is dressed up, it is refused, and for the reason that it has when it is not.
    #[test]
    fn no_ipv6_form_opens_an_ipv4_address(border in near_a_border(), any: u32, noise: u128) {
        let policy = with_nat64();
        let borders = match border { IpAddr::V4(v4) => v4, IpAddr::V6(_) => any.into() };
        for ipv4 in [borders, any.into()] {
            let plain = policy.permits(ipv4.into()).err().unwrap_or(Denied::Embedded);
            for form in forms(ipv4, noise) {
                // The compatible forms of 0.0.0.0 and 0.0.0.1 are :: and ::1.
                prop_assert_eq!(policy.permits(form.into()), Err(plain), "{} as {}", ipv4, form);
            }
        }
    }

    /// What is allowed is opened as far as it is private, and nothing beside it; not in an IPv6 form either.
    #[test]
    fn an_allowed_network_opens_just_that(border in near_a_border(), soft in 0..SOFT_V4.len(), noise: u32, longer in 0u8..=22) {
        let soft = SOFT_V4[soft];
        let inside = soft.network().to_bits() | (noise & soft.hostmask().to_bits());
        let net = Ipv4Net::new(inside.into(), (soft.prefix_len() + longer).min(32)).unwrap().trunc();
        let rules = PeerRules { allow: vec![net.into()], nat64: vec![NAT64.parse().unwrap()], ..PeerRules::default() };
        let Ok(policy) = PeerPolicy::new(rules) else { return Ok(()) };
        let opened = |peer: Ipv4Addr| bits(peer.into()).starts_with(&prefix_bits(&net.to_string()));
        for ipv4 in [inside.into(), net.network(), net.broadcast(), noise.into()] {
            let before = slow(ipv4.into());
            let expected = if opened(ipv4) && before == Err(Denied::Soft) { Ok(()) } else { before };
            prop_assert_eq!(policy.permits(ipv4.into()), expected);
            for form in forms(ipv4, noise.into()) {
                prop_assert_eq!(policy.permits(form.into()), expected.and(Err(Denied::Embedded)));
            }
        }
        if let IpAddr::V4(border) = border && !opened(border) {
            prop_assert_eq!(policy.permits(border.into()), slow(border.into()));
        }
    }
}
