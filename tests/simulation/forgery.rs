//! Packets that look right and are not: recorded ones sent again, handshakes of strangers, requests with a false sender.

use std::net::SocketAddr;
use std::time::Duration;

use parlour::sfu::Negotiation;
use parlour::transport::Protocol;

use crate::hostile::{check_undisturbed, pair, stun};
use crate::network::Packet;
use crate::room::{check_streams, setup, three};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const MALLORY: ([u8; 4], u16) = ([192, 0, 2, 66], 6666);

/// RFC 7983: DTLS, and media with its reports.
fn is_dtls(packet: &Packet) -> bool {
    (20..=63).contains(&packet.bytes[0])
}

fn is_media(packet: &Packet) -> bool {
    (128..=191).contains(&packet.bytes[0])
}

/// All that the clients send while `act` runs.
fn recorded(world: &mut World, act: impl FnOnce(&mut World)) -> Vec<Packet> {
    world.record = Some(Vec::new());
    act(world);
    world.record.take().expect("recorded")
}

/// Bytes that the server sent to this address.
fn sent_to(world: &World, address: SocketAddr) -> u64 {
    world.sent.get(&address).copied().unwrap_or_default()
}

#[test]
fn media_that_comes_again() {
    let mut world = three([1, 2, 3].map(|seed| setup(Negotiation::Single, seed)));
    let packets = recorded(&mut world, |world| world.run(2 * SECOND));
    let media: Vec<Packet> = packets.into_iter().filter(is_media).collect();
    assert!(media.len() > 500);
    // At once, out of order, and from elsewhere; then a while later.
    for round in 0..3u64 {
        for packet in media.iter().rev() {
            world.inject(Protocol::Udp, packet.source, &packet.bytes);
            world.inject(Protocol::Udp, SocketAddr::from(MALLORY), &packet.bytes);
        }
        world.run(Duration::from_millis(700 * round));
    }
    world.run(2 * SECOND);
    // No hole, no packet twice with another content, no frame that cannot be decoded.
    check_streams(&world, SECOND / 5);
    assert_eq!(sent_to(&world, MALLORY.into()), 0);
}

#[test]
fn handshakes_that_come_again() {
    let mut world = pair();
    let packets = recorded(&mut world, |world| {
        let guest = crate::room::enter(world, "guest", setup(Negotiation::Single, 3));
        world.run(SECOND);
        world.leave(guest);
        world.run(SECOND);
    });
    let handshake: Vec<Packet> = packets.into_iter().filter(is_dtls).collect();
    assert!(handshake.len() >= 3);
    let alice = world.clients[0].publisher.public;
    // A stranger's first flight in the name of somebody connected, and from nowhere.
    for _ in 0..20 {
        for packet in &handshake {
            world.inject(Protocol::Udp, alice, &packet.bytes);
            world.inject(Protocol::Udp, MALLORY.into(), &packet.bytes);
        }
        world.run(Duration::from_millis(50));
    }
    world.run(2 * SECOND);
    check_undisturbed(&world);
    assert_eq!(sent_to(&world, MALLORY.into()), 0);
}

/// Two first flights race: the client's own one, and that of somebody who sends to every port at the right moment. It
/// cannot prove the password, so its handshake is not even begun.
#[test]
fn a_handshake_in_a_race() {
    let mut world = pair();
    let flights = recorded(&mut world, |world| {
        let guest = crate::room::enter(world, "guest", setup(Negotiation::Single, 3));
        world.run(SECOND);
        world.leave(guest);
        world.run(SECOND);
    });
    let hello = flights.into_iter().find(is_dtls).expect("a handshake");
    let carol = crate::room::enter(&mut world, "carol", setup(Negotiation::Single, 4));
    let mut neighbour = world.clients[carol].publisher.public;
    neighbour.set_port(neighbour.port() + 1);
    for _ in 0..200 {
        world.inject(Protocol::Udp, neighbour, &hello.bytes);
        world.inject(Protocol::Udp, MALLORY.into(), &hello.bytes);
        world.run(Duration::from_millis(5));
    }
    assert!(world.clients[carol].is_connected());
    world.run(2 * SECOND);
    check_undisturbed(&world);
}

/// The same race, lost: what a client sends first, checks and first flight, comes from three other addresses and not from its
/// own. Whoever is on the way can do that, and no more: once the client's packets get through, its handshake goes on.
#[test]
fn a_handshake_that_comes_from_elsewhere_first() {
    let mut world = pair();
    let carol = crate::room::enter(&mut world, "carol", setup(Negotiation::Single, 4));
    let server = crate::world::server(Protocol::Udp);
    let own = world.clients[carol].publisher.public;
    let elsewhere = [1, 2, 3].map(|n| SocketAddr::from(([192, 0, 2, 70 + n], 7000)));
    let mut claimed = 0;
    world.record = Some(Vec::new());
    for round in 0..200 {
        let from_carol = |p: &Packet| p.source == own && p.destination == server;
        let packets = world.record.replace(Vec::new()).expect("recorded");
        for packet in packets.iter().filter(|p| from_carol(p)) {
            for address in elsewhere {
                claimed += packet.bytes.len() as u64;
                world.inject(Protocol::Udp, address, &packet.bytes);
            }
        }
        // For half a second nothing of hers arrives, nor of anybody.
        world.unreachable = if round < 100 && round % 20 != 0 { vec![server] } else { Vec::new() };
        world.run(Duration::from_millis(5));
    }
    world.record = None;
    world.run_until(|w| w.clients[carol].is_connected(), 10 * SECOND).expect("connects");
    for address in elsewhere {
        // What was claimed is that of three.
        assert!(sent_to(&world, address) <= claimed);
    }
    world.run(3 * SECOND);
    for publisher in [0, 1] {
        let playback = world.clients[carol].diary.video(publisher).play_video(world.now);
        assert!(world.now - playback.last.expect("some") < SECOND / 5, "{playback:?}");
    }
}

/// Whoever has not shown that packets reach it gets no more than three times what came in its name (RFC 9000 §8.1 says
/// the same of QUIC).
#[test]
fn nobody_is_flooded_through_us() {
    let mut world = pair();
    let packets = recorded(&mut world, |world| world.run(3 * SECOND));
    let victim = SocketAddr::from(MALLORY);
    let before = sent_to(&world, victim);
    let mut claimed = 0;
    let fragment = world.clients[0].server_ufrag.clone();
    let mut send = |world: &mut World, bytes: &[u8]| {
        claimed += bytes.len() as u64;
        world.inject(Protocol::Udp, victim, bytes);
    };
    for packet in &packets {
        send(&mut world, &packet.bytes);
    }
    for _ in 0..100 {
        send(&mut world, &stun(&format!("{fragment}:x")));
        send(&mut world, &stun("nobody:home"));
    }
    // Checks of a participant, recorded on its way: they carry its password's proof, and are answered, once each.
    world.run(5 * SECOND);
    let got = sent_to(&world, victim) - before;
    assert!(got <= 3 * claimed, "{got} bytes for {claimed}");
    check_undisturbed(&world);
}
