//! Random conversations, against a model that keeps lists and looks through all of them.

use proptest::prelude::*;
use stun_types::attribute::RawAttribute;

use super::*;

const CLIENTS: u8 = 5;
const PORTS: std::ops::RangeInclusive<u16> = 50_000..=50_007;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Families: neither named, IPv6, both.
    Allocate {
        client: u8,
        families: u8,
        even: u8,
        lifetime_s: u32,
    },
    Refresh {
        client: u8,
        family: u8,
        lifetime_s: u32,
    },
    Permit {
        client: u8,
        peers: [u8; 2],
    },
    Bind {
        client: u8,
        number: u8,
        peer: u8,
    },
    Send {
        client: u8,
        peer: u8,
    },
    SendOn {
        client: u8,
        number: u8,
    },
    FromPeer {
        client: u8,
        family: u8,
        peer: u8,
    },
    Disconnect {
        client: u8,
    },
    Wait {
        ms: u64,
        timers: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = || 0..CLIENTS;
    let lifetime = || prop_oneof![Just(0u32), Just(600), Just(900), Just(9000)];
    let step = prop_oneof![
        4 => (client(), 0u8..3, 0u8..3, lifetime())
            .prop_map(|(client, families, even, lifetime_s)| Step::Allocate { client, families, even, lifetime_s }),
        2 => (client(), 0u8..3, lifetime())
            .prop_map(|(client, family, lifetime_s)| Step::Refresh { client, family, lifetime_s }),
        4 => (client(), [0u8..10, 0u8..10]).prop_map(|(client, peers)| Step::Permit { client, peers }),
        4 => (client(), 0u8..5, 0u8..10).prop_map(|(client, number, peer)| Step::Bind { client, number, peer }),
        6 => (client(), 0u8..10).prop_map(|(client, peer)| Step::Send { client, peer }),
        6 => (client(), 0u8..5).prop_map(|(client, number)| Step::SendOn { client, number }),
        6 => (client(), 0u8..2, 0u8..10).prop_map(|(client, family, peer)| Step::FromPeer { client, family, peer }),
        1 => client().prop_map(|client| Step::Disconnect { client }),
        4 => (0u64..250_000, any::<bool>()).prop_map(|(ms, timers)| Step::Wait { ms, timers }),
    ];
    prop::collection::vec(step, 1..120)
}

/// Clients 0 and 1 are one user, and so on; each has its own address.
fn user(client: u8) -> String {
    format!("user {}", client / 2)
}

fn quotas() -> QuotaLimits {
    QuotaLimits { per_user: 2, per_address: 9, all: 4, user_bytes_per_second: 1 << 40 }
}

#[derive(Debug, Default)]
struct Model {
    now_ms: u64,
    allocations: Vec<Allocation>,
}

#[derive(Debug)]
struct Allocation {
    client: u8,
    /// Address and end.
    relays: Vec<(SocketAddr, u64)>,
    permissions: Vec<(IpAddr, u64)>,
    channels: Vec<(u16, SocketAddr, u64)>,
}

impl Model {
    fn sweep(&mut self) {
        let now = self.now_ms;
        for allocation in &mut self.allocations {
            allocation.relays.retain(|(_, end)| *end > now);
            allocation.permissions.retain(|(_, end)| *end > now);
            allocation.channels.retain(|(.., end)| *end > now);
        }
        self.allocations.retain(|allocation| !allocation.relays.is_empty());
    }

    fn of(&mut self, client: u8) -> Option<&mut Allocation> {
        self.allocations.iter_mut().find(|allocation| allocation.client == client)
    }

    fn granted_s(asked: u32) -> u64 {
        asked.clamp(600, 3600).into()
    }
}

impl Allocation {
    fn relay(&self, peer: SocketAddr) -> Option<SocketAddr> {
        self.relays.iter().map(|(relay, _)| *relay).find(|relay| relay.is_ipv4() == peer.is_ipv4())
    }

    fn permits(&self, peer: SocketAddr) -> bool {
        self.permissions.iter().any(|(ip, _)| *ip == peer.ip())
    }

    fn permit(&mut self, ip: IpAddr, now_ms: u64) {
        self.permissions.retain(|(known, _)| *known != ip);
        self.permissions.push((ip, now_ms + 300_000));
    }

    /// What its client gets of a peer's packet.
    fn delivery(&self, peer: SocketAddr) -> Option<(u8, Option<u16>)> {
        let channel = self.channels.iter().find(|(_, bound, _)| *bound == peer).map(|(number, ..)| *number);
        self.permits(peer).then_some((self.client, channel))
    }
}

/// Real server and model side by side.
struct Trial {
    world: World,
    model: Model,
    clients: Vec<Client>,
}

/// Peers 0..3 are outside, one of them at two ports; then one that is denied, our media, a closed port of ours, IPv6, and
/// relayed addresses of the clients.
impl Trial {
    fn new() -> Trial {
        let limits = Limits { bytes_per_second: 1 << 40, ..Limits::default() };
        let world = World::with(Settings {
            quotas: Quotas::new(quotas()),
            relay_ports: relay_ports(PORTS),
            limits,
            ..settings()
        });
        let clients = (0..CLIENTS).map(|n| Client::new(&world, n.into(), &user(n))).collect();
        Trial { world, model: Model::default(), clients }
    }

    fn peer(&self, n: u8) -> SocketAddr {
        let relays =
            || self.model.allocations.iter().flat_map(|allocation| &allocation.relays).map(|(relay, _)| *relay);
        match n {
            0 => peer(1),
            1 => SocketAddr::new(peer(1).ip(), 9),
            2 => SocketAddr::new(peer(1).ip(), 31_000),
            3 => peer(2),
            4 => address("192.168.1.1:5000"),
            5 => media(),
            6 => SocketAddr::new(relay_v4(), 80),
            7 => peer_v6(1),
            8 => relays().next().unwrap_or(SocketAddr::new(relay_v4(), 50_000)),
            _ => relays().next_back().unwrap_or(SocketAddr::new(relay_v6(), 50_000)),
        }
    }

    fn is_permittable(peer: SocketAddr) -> bool {
        peer != address("192.168.1.1:5000")
    }

    fn is_open(peer: SocketAddr) -> bool {
        let ours = [relay_v4(), relay_v6()].contains(&peer.ip());
        let closed = peer.port() < 1024;
        Trial::is_permittable(peer) && (peer == media() || (ours && PORTS.contains(&peer.port())) || (!ours && !closed))
    }

    /// A nonce lasts ten minutes; whoever finds it old takes the new one.
    fn request(&mut self, client: u8, method: Method, attributes: &[&dyn AttributeWrite]) -> Answer {
        let client = &mut self.clients[usize::from(client)];
        let transaction = client.transaction;
        let answer = self.world.request(client, method, attributes);
        if answer.code() != Some(438) {
            return answer;
        }
        client.nonce = answer.nonce();
        client.transaction = transaction;
        self.world.request(client, method, attributes)
    }

    fn step(&mut self, step: Step) {
        self.model.sweep();
        match step {
            Step::Allocate { client, families, even, lifetime_s } => self.allocate(client, families, even, lifetime_s),
            Step::Refresh { client, family, lifetime_s } => self.refresh(client, family, lifetime_s),
            Step::Permit { client, peers } => {
                let peers = peers.map(|n| self.peer(n));
                self.permit(client, &peers);
            }
            Step::Bind { client, number, peer } => self.bind(client, 0x4000 + u16::from(number), self.peer(peer)),
            Step::Send { client, peer } => {
                let peer = self.peer(peer);
                let sender = &self.clients[usize::from(client)];
                self.world.send(sender, peer, b"sent");
                let expected = self.model.of(client).filter(|sender| sender.permits(peer) && Trial::is_open(peer));
                let relay = expected.and_then(|sender| sender.relay(peer));
                self.expect_sent(relay, peer);
            }
            Step::SendOn { client, number } => {
                let number = 0x4000 + u16::from(number);
                let sender = &self.clients[usize::from(client)];
                self.world.send_on(sender, number, b"sent");
                let found = self.model.of(client).and_then(|sender| {
                    let (_, peer, _) = *sender.channels.iter().find(|(bound, ..)| *bound == number)?;
                    sender.permits(peer).then_some((sender.relay(peer)?, peer))
                });
                let peer = found.map_or(media(), |(_, peer)| peer);
                self.expect_sent(found.map(|(relay, _)| relay), peer);
            }
            Step::FromPeer { client, family, peer } => {
                let peer = self.peer(peer);
                let found =
                    self.model.of(client).and_then(|a| a.relays.get(usize::from(family)).map(|(relay, _)| *relay));
                let relay = found.unwrap_or(SocketAddr::new(relay_v4(), 50_000));
                self.world.turn.relayed(self.world.now, relay, peer, b"sent");
                self.expect_delivered(relay, peer);
            }
            Step::Disconnect { client } => {
                let route = self.clients[usize::from(client)].route;
                self.world.turn.disconnected(self.world.now, route, &mut self.world.ports);
                self.model.allocations.retain(|allocation| allocation.client != client);
            }
            Step::Wait { ms, timers } => {
                self.model.now_ms += ms;
                match timers {
                    true => self.world.wait(Duration::from_millis(ms)),
                    false => self.world.advance(Duration::from_millis(ms)),
                }
            }
        }
    }

    fn allocate(&mut self, client: u8, families: u8, even: u8, lifetime_s: u32) {
        // Those that have ended count until the wheel comes round: at most a second, which this test does not look into.
        self.world.turn.handle_timeout(self.world.now, &mut self.world.ports);
        let straggling = self.world.counts().allocations as usize > self.model.allocations.len();
        let raw = |kind: u16, value: &'static [u8]| RawAttribute::new(kind.into(), value);
        let (v6, both) = (raw(0x17, &[2, 0, 0, 0]), raw(0x8000, &[2, 0, 0, 0]));
        let (even_only, even_and_next) = (raw(0x18, &[0]), raw(0x18, &[0x80]));
        let (transport, lifetime) = (udp(), Lifetime::new(lifetime_s));
        let mut attributes: Vec<&dyn AttributeWrite> = vec![&transport, &lifetime];
        attributes.extend([None, Some(&v6 as &dyn AttributeWrite), Some(&both)][usize::from(families)]);
        attributes.extend([None, Some(&even_only as &dyn AttributeWrite), Some(&even_and_next)][usize::from(even)]);
        let answer = self.request(client, ALLOCATE, &attributes);
        let same_user = self.model.allocations.iter().filter(|a| user(a.client) == user(client)).count();
        let all = self.model.allocations.len();
        let code = if self.model.of(client).is_some() {
            Some(437)
        } else if families == 2 && even == 2 {
            Some(400)
        } else if straggling {
            return self.adopt(client, &answer, lifetime_s);
        } else if all >= 4 {
            Some(508)
        } else if same_user >= 2 {
            Some(486)
        } else {
            None
        };
        match (code, answer.code()) {
            // The model does not know which ports wait for a token, or how even and odd are shared out.
            (None, Some(508)) => assert!(even > 0 || all >= 3, "ports for everybody"),
            (expected, got) => assert_eq!(got, expected),
        }
        self.adopt(client, &answer, lifetime_s);
    }

    fn adopt(&mut self, client: u8, answer: &Answer, lifetime_s: u32) {
        if answer.code().is_some() {
            return;
        }
        assert_eq!(u64::from(answer.lifetime_s()), Model::granted_s(lifetime_s));
        let end = self.model.now_ms + Model::granted_s(lifetime_s) * 1000;
        let relays: Vec<_> = answer.relayed().into_iter().map(|relay| (relay, end)).collect();
        let mut others = self.model.allocations.iter().flat_map(|allocation| &allocation.relays);
        assert!(others.all(|(other, _)| relays.iter().all(|(relay, _)| relay != other)), "each has its own");
        self.model.allocations.push(Allocation { client, relays, permissions: vec![], channels: vec![] });
    }

    fn refresh(&mut self, client: u8, family: u8, lifetime_s: u32) {
        let family = [None, Some(true), Some(false)][usize::from(family)];
        let requested =
            family.map(|is_v4| RawAttribute::new(0x17.into(), if is_v4 { &[1, 0, 0, 0] } else { &[2, 0, 0, 0] }));
        let lifetime = Lifetime::new(lifetime_s);
        let mut attributes: Vec<&dyn AttributeWrite> = vec![&lifetime];
        attributes.extend(requested.iter().map(|requested| requested as &dyn AttributeWrite));
        let answer = self.request(client, REFRESH, &attributes);
        let now_ms = self.model.now_ms;
        let expected = match self.model.of(client) {
            None => Some(437),
            Some(allocation) => {
                let concerns = |relay: &SocketAddr| family.is_none_or(|is_v4| relay.is_ipv4() == is_v4);
                if !allocation.relays.iter().any(|(relay, _)| concerns(relay)) {
                    Some(443)
                } else {
                    let end = if lifetime_s == 0 { 0 } else { now_ms + Model::granted_s(lifetime_s) * 1000 };
                    let concerned = allocation.relays.iter_mut().filter(|(relay, _)| concerns(relay));
                    concerned.for_each(|(_, old)| *old = end);
                    None
                }
            }
        };
        assert_eq!(answer.code(), expected);
        self.model.sweep();
    }

    fn permit(&mut self, client: u8, peers: &[SocketAddr]) {
        let at = self.clients[usize::from(client)].next_transaction().into();
        let attributes: Vec<XorPeerAddress> = peers.iter().map(|peer| XorPeerAddress::new(*peer, at)).collect();
        let attributes: Vec<&dyn AttributeWrite> = attributes.iter().map(|peer| peer as &dyn AttributeWrite).collect();
        let answer = self.request(client, CREATE_PERMISSION, &attributes);
        let now_ms = self.model.now_ms;
        let expected = self.model.of(client).map_or(Some(437), |allocation| {
            let refusal = |peer: &SocketAddr| match allocation.relay(*peer) {
                None => Some(443),
                Some(_) => (!Trial::is_permittable(*peer)).then_some(403),
            };
            let refused = peers.iter().find_map(refusal);
            if refused.is_none() {
                peers.iter().for_each(|peer| allocation.permit(peer.ip(), now_ms));
            }
            refused
        });
        assert_eq!(answer.code(), expected, "{peers:?}");
    }

    fn bind(&mut self, client: u8, number: u16, peer: SocketAddr) {
        let at = self.clients[usize::from(client)].next_transaction().into();
        let answer = self.request(client, CHANNEL_BIND, &[&ChannelNumber::new(number), &XorPeerAddress::new(peer, at)]);
        let now_ms = self.model.now_ms;
        let expected = self.model.of(client).map_or(Some(437), |allocation| {
            let clashes = |(n, p, _): &(u16, SocketAddr, u64)| (*n == number) != (*p == peer);
            if allocation.channels.iter().any(clashes) {
                return Some(400);
            }
            if allocation.relay(peer).is_none() {
                return Some(443);
            }
            if !Trial::is_open(peer) {
                return Some(403);
            }
            allocation.permit(peer.ip(), now_ms);
            allocation.channels.retain(|(n, ..)| *n != number);
            allocation.channels.push((number, peer, now_ms + 600_000));
            None
        });
        assert_eq!(answer.code(), expected, "{number:x} {peer}");
    }

    /// What was sent from `relay` went to the one place where it should, and nowhere else.
    fn expect_sent(&mut self, relay: Option<SocketAddr>, peer: SocketAddr) {
        let (outside, inside) = (self.world.sent_to_peers(), self.world.sent_to_ourselves());
        let Some(relay) = relay else {
            assert!(outside.is_empty() && inside.is_empty() && take(self.world.turn.to_clients()).is_empty());
            return;
        };
        let datagram = vec![(relay, peer, b"sent".to_vec())];
        let is_relay = self.world.turn.owner(peer).is_some();
        let is_media = peer == media();
        assert_eq!(inside, if is_media { datagram.clone() } else { vec![] });
        assert_eq!(outside, if is_media || is_relay { vec![] } else { datagram });
        assert!(outside.is_empty() || self.world.ports.open.contains(&relay));
        if is_relay {
            self.expect_delivered(peer, relay);
        } else {
            assert!(take(self.world.turn.to_clients()).is_empty());
        }
    }

    fn expect_delivered(&mut self, relay: SocketAddr, peer: SocketAddr) {
        let has = |allocation: &&Allocation| allocation.relays.iter().any(|(own, _)| *own == relay);
        let expected = self.model.allocations.iter().find(has).and_then(|allocation| allocation.delivery(peer));
        let got: Vec<_> = take(self.world.turn.to_clients());
        let Some((client, channel)) = expected else {
            assert!(got.is_empty(), "{relay} {peer}");
            return;
        };
        assert_eq!((got.len(), got[0].0), (1, self.clients[usize::from(client)].route));
        match channel {
            Some(number) => assert_eq!(got[0].1, channel_data(number, b"sent")),
            None => assert_eq!(read_data_indication(&got[0].1), (peer, b"sent".to_vec())),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn conversations(steps in steps()) {
        let mut trial = Trial::new();
        for step in steps {
            trial.step(step);
            let open = trial.world.ports.open.len();
            prop_assert!(open <= trial.world.quotas.allocations() as usize * 2);
        }
        // What ends is taken away within a second.
        trial.world.wait_s(1);
        trial.model.sweep();
        let at_most = trial.model.allocations.len();
        trial.model.now_ms += 1000;
        trial.model.sweep();
        let there_are = trial.world.counts().allocations as usize;
        prop_assert!((trial.model.allocations.len()..=at_most).contains(&there_are));
        trial.world.wait_s(3601);
        trial.world.assert_empty();
    }
}
