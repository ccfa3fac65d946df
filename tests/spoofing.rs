//! Spoofed source addresses: who knows no password gets nothing at all; and to an address that has not shown that it hears
//! us, we send little more than three times the bytes that came from it (the limit of RFC 9000 §8.1, for want of one in
//! ICE). Virtual time, no sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parlour::sfu::{EventKind, JoinOptions, Limits, Negotiation, Now, ParticipantId, Permissions, Sfu};
use parlour::transport::{Datagram, Protocol, Settings};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol as RtcProtocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

const AMPLIFICATION_LIMIT: usize = 3;
/// On top of it, so that the first flight of a handshake is never short of a few bytes.
const HEAD_START_BYTES: usize = 256;
const STEP: Duration = Duration::from_millis(10);

fn server() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 3478))
}

fn client() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 4000))
}

/// Nobody's, or that of somebody who asked for nothing.
fn victim(number: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 1], 1000 + number))
}

/// One participant's connection to an SFU, and what was sent to whom.
struct Link {
    sfu: Sfu,
    rtc: Rtc,
    timeout: Instant,
    start: Instant,
    now: Instant,
    connected: bool,
    /// Bytes that the SFU got from and sent to each address.
    from: BTreeMap<SocketAddr, usize>,
    to: BTreeMap<SocketAddr, usize>,
    /// Everything the client sent.
    sent: Vec<Vec<u8>>,
    /// The client sends nothing that begins with such a byte.
    withholds: fn(u8) -> bool,
    /// The client sends nothing more once something that begins with such a byte is sent.
    stops_after: fn(u8) -> bool,
    /// The client reads nothing that begins with such a byte.
    ignores: fn(u8) -> bool,
}

impl Link {
    fn new() -> Link {
        let start = Instant::now();
        let settings = Settings::new(vec![(Protocol::Udp, server())]);
        let mut sfu = Sfu::new(settings, Limits { max_participants: 10, max_rooms: 10 }, [7; 32]);
        let mut rtc = RtcConfig::new().set_rtp_mode(true).build(start);
        rtc.add_local_candidate(Candidate::builder().udp().host(client()).build().unwrap());
        let mut api = rtc.sdp_api();
        api.add_channel("_reliable".into());
        api.add_media(MediaKind::Audio, Direction::SendOnly, Some("stream".into()), Some("track".into()), None);
        let (offer, pending) = api.apply().unwrap();
        let now = Now { instant: start, unix_ms: 1_700_000_000_000 };
        let id = sfu.join(now, "room", options()).unwrap();
        sfu.offer(now, id, 1, &offer.to_sdp_string());
        sfu.drive(now);
        let mut link = Link {
            sfu,
            rtc,
            timeout: start,
            start,
            now: start,
            connected: false,
            from: BTreeMap::new(),
            to: BTreeMap::new(),
            sent: Vec::new(),
            withholds: never,
            stops_after: never,
            ignores: never,
        };
        link.accept_answer(id, pending);
        link
    }

    fn accept_answer(&mut self, id: ParticipantId, pending: SdpPendingOffer) {
        let answer = std::iter::from_fn(|| self.sfu.poll_event())
            .find_map(|event| match event.kind {
                EventKind::Answer(answer) if event.to == id => Some(answer.sdp),
                _ => None,
            })
            .expect("an answer");
        self.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
    }

    fn clock(&self) -> Now {
        let elapsed = self.now.duration_since(self.start).as_millis() as u64;
        Now { instant: self.now, unix_ms: 1_700_000_000_000 + elapsed }
    }

    fn inject(&mut self, source: SocketAddr, bytes: &[u8]) {
        *self.from.entry(source).or_default() += bytes.len();
        let datagram = Datagram { protocol: Protocol::Udp, source, destination: server(), bytes };
        self.sfu.receive(self.clock(), datagram);
        self.pump();
    }

    /// What the SFU wants to send reaches the client at once.
    fn pump(&mut self) {
        loop {
            let more = self.sfu.drive(self.clock());
            let packets: Vec<(SocketAddr, Vec<u8>)> = self
                .sfu
                .outbox()
                .runs()
                .flat_map(|(route, packets)| packets.map(move |packet| (route.destination, packet.to_vec())))
                .collect();
            self.sfu.outbox().clear();
            while self.sfu.poll_event().is_some() {}
            for (destination, packet) in packets {
                *self.to.entry(destination).or_default() += packet.len();
                if destination == client() && !(self.ignores)(packet[0]) {
                    let receive = Receive::new(RtcProtocol::Udp, server(), client(), &packet).unwrap();
                    self.rtc.handle_input(Input::Receive(self.now, receive)).unwrap();
                    self.timeout = self.now;
                }
            }
            if !more {
                return;
            }
        }
    }

    fn run(&mut self, duration: Duration, check: impl Fn(&Link)) {
        let end = self.now + duration;
        while self.now < end {
            self.now += STEP;
            if self.timeout <= self.now && self.rtc.is_alive() {
                self.rtc.handle_input(Input::Timeout(self.now)).unwrap();
                self.poll();
            }
            self.pump();
            check(self);
        }
    }

    fn poll(&mut self) {
        // A handshake that comes to nothing is an error in the end.
        while let Ok(output) = self.rtc.poll_output() {
            match output {
                Output::Timeout(at) => {
                    self.timeout = at;
                    return;
                }
                Output::Transmit(transmit) => {
                    self.sent.push(transmit.contents.to_vec());
                    let first = transmit.contents[0];
                    if !(self.withholds)(first) {
                        self.inject(client(), &transmit.contents);
                    }
                    if (self.stops_after)(first) {
                        self.withholds = always;
                    }
                }
                Output::Event(event) => self.connected |= matches!(event, Event::Connected),
            }
        }
        self.rtc.disconnect();
    }

    fn sent_to(&self, address: SocketAddr) -> usize {
        self.to.get(&address).copied().unwrap_or_default()
    }

    fn check_limit(&self, address: SocketAddr) {
        let received = self.from.get(&address).copied().unwrap_or_default();
        let sent = self.sent_to(address);
        assert!(
            sent <= AMPLIFICATION_LIMIT * received + HEAD_START_BYTES,
            "{sent} bytes sent for {received} to {address}"
        );
    }

    fn first_sent(&self, is: impl Fn(u8) -> bool) -> Vec<u8> {
        self.sent.iter().find(|packet| is(packet[0])).expect("the client sent one").clone()
    }
}

fn options() -> JoinOptions {
    JoinOptions {
        identity: "alice".into(),
        name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        permissions: Permissions {
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            can_publish_sources: Vec::new(),
            can_update_metadata: true,
            hidden: false,
        },
        negotiation: Negotiation::Single,
        auto_subscribe: true,
        adaptive_stream: false,
        client_protocol: 0,
        create_room: true,
    }
}

fn is_stun(first: u8) -> bool {
    first < 4
}

fn is_dtls(first: u8) -> bool {
    (20..64).contains(&first)
}

fn never(_: u8) -> bool {
    false
}

fn always(_: u8) -> bool {
    true
}

#[test]
fn a_stranger_gets_nothing_whatever_it_sends() {
    let mut link = Link::new();
    link.run(Duration::from_secs(2), |_| {});
    assert!(link.connected);
    let check = link.first_sent(is_stun);
    let hello = link.first_sent(is_dtls);
    let data = link.sent.iter().rev().find(|packet| !is_stun(packet[0])).unwrap().clone();
    let changed = |at: usize| {
        let mut changed = check.clone();
        changed[at] ^= 1;
        changed
    };
    // MESSAGE-INTEGRITY is followed by the eight bytes of FINGERPRINT.
    let integrity = check.len() - 8 - 1;
    let mut without_integrity = check[..check.len() - 8 - 24].to_vec();
    let length = (without_integrity.len() - 20) as u16;
    without_integrity[2..4].copy_from_slice(&length.to_be_bytes());
    let strangers = [
        changed(integrity),
        changed(8),
        without_integrity,
        check[..20].to_vec(),
        hello,
        data,
        vec![0x80; 200],
        vec![0x40; 200],
        Vec::new(),
    ];
    for (number, packet) in (0..).zip(&strangers) {
        for _ in 0..20 {
            link.inject(victim(number), packet);
            link.run(Duration::from_millis(100), |_| {});
        }
        assert_eq!(link.sent_to(victim(number)), 0, "{number}");
    }
    // The same check unchanged is answered: nothing above was left out for want of a valid one.
    let check = link.sent.iter().rev().find(|packet| is_stun(packet[0])).unwrap().clone();
    link.inject(victim(100), &check);
    assert!(link.sent_to(victim(100)) > 0);
}

/// Somebody with a password says it is at an address where nobody answers: at every stage of connecting.
#[test]
fn an_address_that_never_answers_gets_little() {
    for (withholds, stops_after) in
        [(is_dtls as fn(u8) -> bool, never as fn(u8) -> bool), (never, is_stun), (never, is_dtls), (never, never)]
    {
        let mut link = Link { withholds, stops_after, ignores: is_dtls, ..Link::new() };
        link.run(Duration::from_secs(60), |link| link.check_limit(client()));
        assert!(link.sent_to(client()) > 0 && !link.connected);
    }
}

/// A check seen on the way and sent again from elsewhere, while the client is where it was.
#[test]
fn a_replayed_check_turns_nothing_away() {
    let mut link = Link::new();
    link.run(Duration::from_secs(2), |_| {});
    assert!(link.connected);
    for _ in 0..30 {
        let check = link.sent.iter().rev().find(|packet| is_stun(packet[0])).unwrap().clone();
        link.inject(victim(1), &check);
        link.run(Duration::from_secs(1), |link| link.check_limit(victim(1)));
    }
    assert!(link.rtc.is_alive());
}
