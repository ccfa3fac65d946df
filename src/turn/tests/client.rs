//! A client that others wrote, in virtual time.

use stun_types::data::Data as Bytes;
use turn_client_proto::api::{Transmit, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::stun::Instant as ClientInstant;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::udp::TurnClientUdp;
use turn_types::{AddressFamily, TransportType, TurnCredentials};

use super::*;

struct Call<C> {
    world: World,
    client: C,
    route: Route,
    /// When the call began.
    start: Instant,
    events: Vec<TurnEvent>,
    received: Vec<(SocketAddr, Vec<u8>)>,
}

fn config(world: &World, families: &[AddressFamily]) -> TurnConfig {
    let (username, password) = world.credentials.issue("@alice:example.org", START_S + 3600);
    let mut config = TurnConfig::new(TurnCredentials::new(&username, &password));
    config.set_address_family(families[0]);
    families[1..].iter().for_each(|family| config.add_address_family(*family));
    config
}

impl Call<TurnClientUdp> {
    fn udp(families: &[AddressFamily]) -> Self {
        let (world, route) = (World::new(), route(1));
        let client = TurnClientUdp::allocate(route.destination, route.source, config(&world, families));
        Call::new(world, client, route)
    }
}

impl Call<TurnClientTcp> {
    fn tcp() -> Self {
        let (world, route) = (World::new(), Route { protocol: Protocol::Tcp, ..route(1) });
        let client = TurnClientTcp::allocate(route.destination, route.source, config(&world, &[AddressFamily::IPV4]));
        Call::new(world, client, route)
    }
}

impl<C: TurnClientApi> Call<C> {
    fn new(world: World, client: C, route: Route) -> Self {
        let start = world.now.instant;
        Call { world, client, route, start, events: Vec::new(), received: Vec::new() }
    }

    fn now(&self) -> ClientInstant {
        ClientInstant::from_nanos(1_000_000_000 + (self.world.now.instant - self.start).as_nanos() as i64)
    }

    fn tell_server(&mut self, bytes: &[u8]) {
        self.world.turn.receive(self.world.now, self.route, bytes, &mut self.world.ports);
        self.tell_client();
    }

    /// What the server has written; on a stream it comes a few bytes at a time.
    fn tell_client(&mut self) {
        let transport = self.client.transport();
        for (route, bytes) in take(self.world.turn.to_clients()) {
            assert_eq!(route, self.route);
            let size = if route.protocol == Protocol::Tcp { 7 } else { bytes.len() };
            for piece in bytes.chunks(size) {
                let now = self.now();
                let transmit = Transmit::new(piece.to_vec(), transport, route.source, route.destination);
                match self.client.recv(transmit, now) {
                    TurnRecvRet::PeerData(data) => self.received.push((data.peer, data.data().to_vec())),
                    TurnRecvRet::Handled => {}
                    other => panic!("{other:?}"),
                }
                while let Some(data) = self.client.poll_recv(now) {
                    self.received.push((data.peer, data.data().to_vec()));
                }
            }
        }
    }

    /// Both do what there is to do, for so long.
    fn run(&mut self, time: Duration) {
        let end = self.world.now.instant + time;
        loop {
            let wake = match self.client.poll(self.now()) {
                TurnPollRet::WaitUntil(at) => at.saturating_duration_since(self.now()),
                TurnPollRet::Closed => time,
                other => panic!("{other:?}"),
            };
            while let Some(transmit) = self.client.poll_transmit(self.now()) {
                let bytes: &Bytes<'_> = &transmit.data;
                let bytes = bytes.to_vec();
                self.tell_server(&bytes);
            }
            self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
            let left = end - self.world.now.instant;
            if left.is_zero() {
                return;
            }
            self.world.wait(wake.clamp(Duration::from_millis(1), Duration::from_secs(1)).min(left));
        }
    }

    fn relays(&self) -> Vec<SocketAddr> {
        self.client.relayed_addresses().map(|(_, address)| address).collect()
    }

    fn send(&mut self, peer: SocketAddr, data: &[u8]) -> Vec<u8> {
        let built = self.client.send_to(TransportType::Udp, peer, data.to_vec(), self.now()).expect("a way");
        let bytes = built.expect("bytes").build().data;
        self.tell_server(&bytes);
        bytes
    }

    fn exchange(&mut self, peer: SocketAddr) {
        let relays = self.relays();
        let relay = *relays.iter().find(|relay| relay.is_ipv4() == peer.is_ipv4()).expect("one of the family");
        // On a stream this client knows nothing of the padding behind ChannelData (RFC 8656 §12.5).
        let is_stream = self.route.protocol == Protocol::Tcp;
        let lengths = if is_stream { [4, 8, 1000] } else { [1, 7, 1001] };
        for data in lengths.map(|length| vec![7; length]) {
            self.send(peer, &data);
            assert_eq!(self.world.sent_to_peers(), [(relay, peer, data.clone())]);
            self.world.turn.relayed(self.world.now, relay, peer, &data);
            self.tell_client();
            assert_eq!(std::mem::take(&mut self.received), [(peer, data)]);
        }
    }

    fn whole_call(&mut self, peer: SocketAddr) {
        self.run(Duration::from_secs(1));
        assert!(!self.relays().is_empty(), "{:?}", self.events);
        self.client.create_permission(TransportType::Udp, peer.ip(), self.now()).expect("an allocation");
        self.run(Duration::from_secs(1));
        assert!(self.client.have_permission(TransportType::Udp, peer.ip()));
        self.exchange(peer);
        self.client.bind_channel(TransportType::Udp, peer, self.now()).expect("an allocation");
        self.run(Duration::from_secs(1));
        assert!(self.events.iter().any(|event| matches!(event, TurnEvent::ChannelCreated(_, to) if *to == peer)));
        assert_eq!(self.send(peer, b"four")[0], 0x40, "on the channel");
        self.world.sent_to_peers();
        self.exchange(peer);
        // It keeps everything alive by itself, with nonces that run out on the way.
        self.run(Duration::from_secs(4000));
        assert!(self.world.refused(Refusal::StaleNonce) > 3);
        self.exchange(peer);
        let failed = |event: &TurnEvent| {
            matches!(
                event,
                TurnEvent::AllocationCreateFailed(_)
                    | TurnEvent::PermissionCreateFailed(..)
                    | TurnEvent::ChannelCreateFailed(..)
            )
        };
        assert!(!self.events.iter().any(failed), "{:?}", self.events);
        self.client.delete(self.now()).expect("an allocation");
        self.run(Duration::from_secs(1));
        self.world.assert_empty();
    }
}

#[test]
fn a_call_over_udp() {
    Call::udp(&[AddressFamily::IPV4]).whole_call(peer(1));
}

#[test]
fn a_call_over_udp_to_ipv6() {
    Call::udp(&[AddressFamily::IPV6]).whole_call(peer_v6(1));
}

#[test]
fn a_call_over_tcp() {
    Call::tcp().whole_call(peer(1));
}

#[test]
fn a_call_with_both_families() {
    let mut call = Call::udp(&[AddressFamily::IPV4, AddressFamily::IPV6]);
    call.run(Duration::from_secs(1));
    assert_eq!(call.relays().len(), 2);
    for peer in [peer(1), peer_v6(1)] {
        call.client.create_permission(TransportType::Udp, peer.ip(), call.now()).expect("an allocation");
        call.run(Duration::from_secs(1));
        call.exchange(peer);
    }
    call.run(Duration::from_secs(2000));
    assert_eq!(call.world.counts().allocations, 1, "kept alive");
    call.client.delete(call.now()).expect("an allocation");
    call.run(Duration::from_secs(1));
    call.world.assert_empty();
}

#[test]
fn a_peer_that_is_denied() {
    let mut call = Call::udp(&[AddressFamily::IPV4]);
    call.run(Duration::from_secs(1));
    let metadata = address("169.254.169.254:80");
    call.client.create_permission(TransportType::Udp, metadata.ip(), call.now()).expect("an allocation");
    call.run(Duration::from_secs(1));
    let refused = |event: &TurnEvent| matches!(event, TurnEvent::PermissionCreateFailed(_, ip) if *ip == metadata.ip());
    assert!(call.events.iter().any(refused), "{:?}", call.events);
}
