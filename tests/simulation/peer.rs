//! One peer connection of a client: a whole str0m with full ICE, between two links.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parlour::transport::Protocol;
use parlour::transport::dtls::{self, Flights, KeyExport, Provider};
use str0m::channel::ChannelId;
use str0m::net::{Protocol as RtcProtocol, Receive, TcpType};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig};

use crate::network::{Conditions, Link, Packet};
use crate::seals::Seals;

/// The DTLS of those whose keys are wanted, with libwebrtc's first wait.
static ARMED: Provider = Provider::new(Flights { first_timeout: Duration::from_millis(50), retries: 9 });

pub struct Peer {
    pub rtc: Rtc,
    address: SocketAddr,
    /// How the world sees it: its own address, or what a NAT makes of it.
    pub public: SocketAddr,
    protocol: Protocol,
    pub uplink: Link,
    pub downlink: Link,
    timeout: Instant,
    pub connected: bool,
    pub ice: IceConnectionState,
    /// Drops what leaves the client and begins with such a byte.
    pub withhold: Option<fn(u8) -> bool>,
    /// Open data channels by label.
    pub channels: Vec<(String, ChannelId)>,
    pub seals: Seals,
    /// The keys of its media, for one who sends packets of its own making.
    pub keys: Option<KeyExport>,
}

impl Peer {
    pub fn new(
        now: Instant,
        config: RtcConfig,
        address: SocketAddr,
        protocol: Protocol,
        conditions: Conditions,
        seed: u64,
        armed: bool,
    ) -> Peer {
        let config = config.set_rtp_mode(true);
        let (mut rtc, keys) = if armed {
            let crypto = Arc::new(ARMED.crypto());
            let (rtc, keys) = dtls::capture(|| config.set_crypto_provider(crypto).build(now));
            (rtc, Some(keys))
        } else {
            (config.build(now), None)
        };
        let candidate = match protocol {
            Protocol::Udp => Candidate::builder().udp().host(address).build(),
            Protocol::Tcp => Candidate::builder().tcp().host(address).tcptype(TcpType::Active).build(),
        };
        rtc.add_local_candidate(candidate.expect("a host address"));
        Peer {
            rtc,
            address,
            public: address,
            protocol,
            uplink: Link::new(conditions, seed),
            downlink: Link::new(conditions, seed ^ 0x5555),
            timeout: now,
            connected: false,
            ice: IceConnectionState::New,
            withhold: None,
            channels: Vec::new(),
            seals: Seals::default(),
            keys,
        }
    }

    pub fn channel(&self, label: &str) -> Option<ChannelId> {
        self.channels.iter().find(|(l, _)| l == label).map(|(_, id)| *id)
    }

    /// Something was written: the timeout must be asked again.
    pub fn touch(&mut self, now: Instant) {
        self.timeout = now;
    }

    pub fn next(&self) -> Option<Instant> {
        let own = self.rtc.is_alive().then_some(self.timeout);
        [own, self.uplink.next(), self.downlink.next()].into_iter().flatten().min()
    }

    /// Whether anything was due at `now`. Gives what came out.
    pub fn run(&mut self, now: Instant, events: &mut Vec<Event>) -> bool {
        let mut busy = false;
        while let Some(packet) = self.downlink.receive(now) {
            busy = true;
            let protocol = match packet.protocol {
                Protocol::Udp => RtcProtocol::Udp,
                Protocol::Tcp => RtcProtocol::Tcp,
            };
            let Ok(receive) = Receive::new(protocol, packet.source, self.address, &packet.bytes) else {
                continue;
            };
            if self.rtc.is_alive() {
                self.rtc.handle_input(Input::Receive(now, receive)).expect("the client takes what the SFU sends");
                self.poll(now, events);
            }
        }
        if self.rtc.is_alive() && self.timeout <= now {
            busy = true;
            self.rtc.handle_input(Input::Timeout(now)).expect("a timeout");
            self.poll(now, events);
        }
        busy
    }

    fn poll(&mut self, now: Instant, events: &mut Vec<Event>) {
        while self.rtc.is_alive() {
            // The handshake may run out of time.
            let Ok(output) = self.rtc.poll_output() else {
                self.rtc.disconnect();
                return;
            };
            match output {
                Output::Timeout(at) => {
                    self.timeout = at;
                    return;
                }
                Output::Transmit(t) => {
                    let protocol = if t.proto == RtcProtocol::Udp { Protocol::Udp } else { Protocol::Tcp };
                    assert_eq!(protocol, self.protocol);
                    let packet =
                        Packet { protocol, source: self.public, destination: t.destination, bytes: t.contents.into() };
                    if !self.withhold.is_some_and(|withheld| withheld(packet.bytes[0])) {
                        self.uplink.send(now, packet);
                    }
                }
                Output::Event(event) => {
                    match &event {
                        Event::Connected => self.connected = true,
                        Event::IceConnectionStateChange(state) => self.ice = *state,
                        Event::ChannelOpen(id, label) => self.channels.push((label.clone(), *id)),
                        _ => {}
                    }
                    events.push(event);
                }
            }
        }
    }
}
