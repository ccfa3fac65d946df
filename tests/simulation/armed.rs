//! A participant who has the keys of its connection in hand: it sends what no WebRTC stack would, and the server takes it for
//! authentic. And the two whose call it must not disturb.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use parlour::rtp::header::Packet;
use parlour::sfu::Negotiation;
use parlour::transport::Protocol;
use parlour::transport::sdp::{MediaSection, SectionKind, SessionDescription};
use parlour::transport::srtp::{SendKeys, SendStream};

use crate::client::Setup;
use crate::hostile::{check_undisturbed, pair};
use crate::memory;
use crate::peer::Peer;
use crate::room::{all_connected, all_see_all, enter, setup};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
pub const MALLORY: usize = 2;
/// What the SFU may hold more after an attack than before it: caches that fill, histories that grow to their bounds.
const GROWTH_LIMIT: i64 = 1 << 20;
/// What may be left of an attacker that is gone: buffers and hash tables keep their size.
const REMAINS_LIMIT: i64 = 128 << 10;

/// The SSRC that forged reports come from; the client's own ones come from another, so their indices do not meet.
pub const FORGER: u32 = 0xbad_5eed;

const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const TRANSPORT_WIDE_URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// One connection's keys, with the client's side of its description.
pub struct Arsenal {
    pub address: SocketAddr,
    keys: SendKeys,
    streams: BTreeMap<u32, SendStream>,
    sections: Vec<MediaSection>,
}

/// Where a forged packet claims to belong.
#[derive(Clone, Default)]
pub struct Label {
    pub mid: Option<String>,
    pub rid: Option<&'static str>,
    pub number: Option<u16>,
}

pub fn sections(offer: &str) -> Vec<MediaSection> {
    SessionDescription::parse(offer).expect("our own offer").media
}

/// The section in which a client publishes such media.
pub fn published(sections: &[MediaSection], kind: SectionKind) -> &MediaSection {
    let sends = |s: &&MediaSection| s.kind == kind && s.msid.is_some();
    sections.iter().find(sends).expect("it publishes")
}

impl Arsenal {
    pub fn new(peer: &Peer, offer: &str) -> Arsenal {
        let (keys, _) = peer.keys.as_ref().expect("an armed client").take().expect("a handshake");
        Arsenal { address: peer.public, keys, streams: BTreeMap::new(), sections: sections(offer) }
    }

    pub fn published(&self, kind: SectionKind) -> &MediaSection {
        published(&self.sections, kind)
    }

    pub fn mid(&self, kind: SectionKind) -> String {
        self.published(kind).mid.clone()
    }

    /// Of a stream that nothing more is sent of.
    pub fn forget(&mut self, ssrc: u32) {
        self.streams.remove(&ssrc);
    }

    /// Seals a compound of reports.
    pub fn report(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut packet = plain.to_vec();
        self.keys.seal_rtcp(&mut packet).expect("fewer than two billion");
        packet
    }

    /// Seals a packet whose first `header_len` bytes stay in clear. `None`: this number of the stream was used, or is too old.
    pub fn media(&mut self, header_len: usize, index: u64, mut packet: Vec<u8>) -> Option<Vec<u8>> {
        let ssrc = u32::from_be_bytes(*packet[8..].first_chunk().expect("a header"));
        if !self.streams.contains_key(&ssrc) {
            self.streams.insert(ssrc, self.keys.stream(ssrc).expect("asked for once"));
        }
        let index = self.streams.get_mut(&ssrc).expect("there").claim(index)?;
        packet.resize(packet.len() + self.keys.profile().rtp_overhead(), 0);
        self.keys.seal_rtp(&mut packet, header_len, index);
        Some(packet)
    }

    /// A whole packet, plain: header with what the label says, and payload.
    pub fn packet(&self, ssrc: u32, pt: u8, sequence: u16, label: &Label, payload: &[u8]) -> (usize, Vec<u8>) {
        let section = self.published(SectionKind::Video);
        let mut elements = Vec::new();
        let mut element = |uri: &str, value: &[u8]| {
            let id = section.extension(uri).expect("negotiated");
            elements.push(id << 4 | (value.len() - 1) as u8);
            elements.extend(value);
        };
        if let Some(mid) = &label.mid {
            element(MID_URI, mid.as_bytes());
        }
        if let Some(rid) = label.rid {
            element(RID_URI, rid.as_bytes());
        }
        if let Some(number) = label.number {
            element(TRANSPORT_WIDE_URI, &number.to_be_bytes());
        }
        elements.resize(elements.len().next_multiple_of(4), 0);
        let mut packet = vec![0x90, pt];
        packet.extend(sequence.to_be_bytes());
        packet.extend((u32::from(sequence) * 3000).to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend([0xbe, 0xde]);
        packet.extend((elements.len() as u16 / 4).to_be_bytes());
        packet.extend(elements);
        let header_len = packet.len();
        packet.extend(payload);
        assert!(Packet::parse(&packet).is_some_and(|p| p.header_len == header_len));
        (header_len, packet)
    }

    pub fn send(&self, world: &mut World, bytes: &[u8]) {
        world.inject(Protocol::Udp, self.address, bytes);
    }

    pub fn send_report(&mut self, world: &mut World, plain: &[u8]) {
        let packet = self.report(plain);
        self.send(world, &packet);
    }
}

/// The clear header and sequence number of what a client sent last with each SSRC, from a record of it.
pub fn newest_by_ssrc(record: &[crate::network::Packet], from: SocketAddr) -> BTreeMap<u32, (u8, u16)> {
    let media = record.iter().filter(|p| p.source == from && (128..=191).contains(&p.bytes[0]));
    let headers = media.filter(|p| !parlour::rtp::rtcp::is_rtcp(&p.bytes));
    headers
        .filter_map(|p| Packet::parse(&p.bytes))
        .map(|p| (p.header.ssrc, (p.header.payload_type, p.header.sequence)))
        .collect()
}

/// Alice and Bob missed nothing of each other, neither picture nor sound.
fn check_call(world: &World) {
    check_undisturbed(world);
    for listener in [0, 1] {
        let audio = world.clients[listener].diary.audio(1 - listener);
        assert!(audio.play_audio().1 <= SECOND / 5, "{:?}", audio.play_audio());
        assert!(world.now - audio.packets.last().expect("some").at < SECOND / 5);
    }
}

/// What the server holds for the call of two after a third was there.
#[derive(Debug)]
struct Remains {
    bytes: i64,
    participants: usize,
    tracks: usize,
    routes: usize,
    timers: usize,
}

/// Alice and Bob talk; Mallory comes, does something, and goes. They must notice nothing of it.
fn visit(negotiation: Negotiation, act: impl FnOnce(&mut World, &mut Arsenal)) -> Remains {
    let before = memory::live();
    let mut world = pair();
    let mallory = enter(&mut world, "mallory", Setup { armed: true, ..setup(negotiation, 3) });
    assert_eq!(mallory, MALLORY);
    world.run_until(all_connected, 5 * SECOND).expect("connect");
    world.run_until(all_see_all, 3 * SECOND).expect("see each other");
    world.run(2 * SECOND);

    let client = &world.clients[mallory];
    let mut arsenal = Arsenal::new(&client.publisher, client.last_offer.as_ref().expect("it published"));
    let taken = memory::taken();
    world.meter = memory::meter;
    act(&mut world, &mut arsenal);
    world.meter = |_| {};
    let growth = memory::taken() - taken;
    assert!(growth < GROWTH_LIMIT, "the server took {growth} bytes");
    drop(arsenal);

    world.run(SECOND);
    check_call(&world);
    if world.clients[mallory].left.is_none() {
        world.leave(mallory);
    }
    world.run(5 * SECOND);
    check_call(&world);
    // What is in use now is the server's.
    world.clients = Vec::new();
    world.record = None;
    let counts = world.sfu.counts();
    Remains {
        bytes: memory::live() - before,
        participants: counts.participants,
        tracks: counts.tracks,
        routes: counts.routes,
        timers: counts.timers,
    }
}

/// Alice and Bob notice nothing of Mallory's attack, the server holds little more while it lasts, and afterwards what it holds
/// after any guest.
pub fn withstand(negotiation: Negotiation, attack: impl FnOnce(&mut World, &mut Arsenal)) {
    let peaceful = visit(negotiation, |world, _| world.run(2 * SECOND));
    let hostile = visit(negotiation, attack);
    let structures = |r: &Remains| (r.participants, r.tracks, r.routes);
    assert_eq!(structures(&hostile), structures(&peaceful));
    assert!(hostile.timers <= peaceful.timers + 2, "{hostile:?} {peaceful:?}");
    assert!(hostile.bytes < peaceful.bytes + REMAINS_LIMIT, "{hostile:?} {peaceful:?}");
}
