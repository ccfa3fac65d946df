use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use super::*;
use crate::transport::{Outbox, Protocol, Route};

/// A receiver that waits for what is on its way.
fn receiver(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// The packets that arrive, in order, and the address the first came from.
fn received(socket: &UdpSocket, count: usize) -> (Vec<Vec<u8>>, SocketAddr) {
    let mut buffer = [0; 2000];
    let mut packets = Vec::new();
    let mut source = None;
    while packets.len() < count {
        let (len, from) = socket.recv_from(&mut buffer).expect("a packet");
        packets.push(buffer[..len].to_vec());
        source.get_or_insert(from);
    }
    (packets, source.expect("at least one"))
}

fn route(destination: SocketAddr) -> Route {
    Route { protocol: Protocol::Udp, source: SocketAddr::from(([127, 0, 0, 1], 3478)), destination }
}

fn send_all<K: Kernel>(batch: &mut Batch<'_, K>, outbox: &'static Outbox, source: Option<IpAddr>) {
    for (route, packets) in outbox.runs() {
        batch.run(route.destination, source, packets);
    }
    batch.flush();
}

/// `lengths` packets to each of the destinations in turn, told apart by their first bytes.
fn outbox(runs: &[(SocketAddr, &[usize])]) -> &'static Outbox {
    let mut outbox = Outbox::default();
    let mut number = 0u8;
    for (destination, lengths) in runs {
        for length in *lengths {
            number = number.wrapping_add(1);
            outbox.push(route(*destination), &vec![number; *length]);
        }
    }
    Box::leak(Box::new(outbox))
}

fn expected(outbox: &Outbox, destination: SocketAddr) -> Vec<Vec<u8>> {
    let runs = outbox.runs().filter(|(route, _)| route.destination == destination);
    runs.flat_map(|(_, packets)| packets.map(<[u8]>::to_vec)).collect()
}

const MIXED: [&[usize]; 6] =
    [&[1200; 25], &[60], &[1200, 1200, 700, 1200], &[100, 101, 102], &[1400, 20, 20], &[50; 3]];

#[test]
fn packets_arrive_whole_and_in_order_with_and_without_offload() {
    let receivers: Vec<UdpSocket> = (0..20).map(|_| receiver("127.0.0.1")).collect();
    let addresses: Vec<SocketAddr> = receivers.iter().map(|r| r.local_addr().unwrap()).collect();
    let runs: Vec<_> =
        MIXED.iter().cycle().zip(addresses.iter().cycle()).take(60).map(|(run, to)| (*to, *run)).collect();
    let outbox = outbox(&runs);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (segments, many) in [(true, true), (false, true), (true, false), (false, false)] {
        let mut sender = Sender { many, ..Sender::new(segments) };
        send_all(&mut sender.batch(socket.as_fd()), outbox, None);
        for (receiver, address) in receivers.iter().zip(&addresses) {
            let wanted = expected(outbox, *address);
            assert_eq!(received(receiver, wanted.len()).0, wanted);
        }
        let counts = sender.counts();
        assert_eq!(counts.packets, outbox.len() as u64);
        assert_eq!((counts.overflowed, counts.refused), (0, 0));
        assert_eq!(counts.messages < counts.packets, segments, "{counts:?}");
        let calls = if many { counts.messages.div_ceil(BATCH as u64) } else { counts.messages };
        assert_eq!(counts.calls, calls);
    }
}

#[test]
fn messages_hold_equal_packets_and_one_shorter_at_the_end() {
    let to = SocketAddr::from(([127, 0, 0, 1], 9));
    let outbox = outbox(&[
        (to, &[100; 21]),
        (SocketAddr::from(([127, 0, 0, 1], 10)), &[100, 100, 40, 100, 40, 40, 200]),
        (to, &[1; 1]),
    ]);
    let mut seen = Vec::new();
    let mut sender = Sender::new(true);
    let kernel = |call: Call<'_>| {
        seen.extend(call.messages.iter().map(|m| (m.destination.port(), m.segment, m.packets())));
        Ok(call.messages.len())
    };
    send_all(&mut Batch::new(&mut sender, kernel), outbox, None);
    let first = [(9, 100, 10), (9, 100, 10), (9, 100, 1)];
    let second = [(10, 100, 3), (10, 100, 2), (10, 40, 1), (10, 200, 1)];
    assert_eq!(seen, [&first[..], &second, &[(9, 1, 1)]].concat());
    assert_eq!(sender.counts().packets, 29);
}

#[test]
fn messages_stay_within_what_udp_carries() {
    let to = SocketAddr::from(([127, 0, 0, 1], 9));
    let outbox = outbox(&[(to, &[16_000; 10])]);
    let mut seen = Vec::new();
    let mut sender = Sender::new(true);
    let kernel = |call: Call<'_>| {
        seen.extend(call.messages.iter().map(Message::packets));
        Ok(call.messages.len())
    };
    send_all(&mut Batch::new(&mut sender, kernel), outbox, None);
    assert_eq!(seen, [4, 4, 2]);
}

/// A socket without UDP checksums cannot have packets cut by the kernel, which says so with EINVAL.
#[test]
fn offload_that_the_kernel_refuses_is_not_asked_for_again() {
    let receiver = receiver("127.0.0.1");
    let to = receiver.local_addr().unwrap();
    let outbox = outbox(&[(to, &[1000; 25]), (to, &[10])]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let on: libc::c_int = 1;
    // SAFETY: the option is an int, and the pointer leads to one.
    let set = unsafe {
        let value = (&raw const on).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, value, size_of::<libc::c_int>() as _)
    };
    assert_eq!(set, 0);
    let mut sender = Sender::new(true);
    send_all(&mut sender.batch(socket.as_fd()), outbox, None);
    assert_eq!(received(&receiver, 26).0, expected(outbox, to));
    assert!(!sender.segments);
    let before = sender.counts();
    assert_eq!((before.packets, before.refused), (26, 0));
    send_all(&mut sender.batch(socket.as_fd()), outbox, None);
    assert_eq!(received(&receiver, 26).0, expected(outbox, to));
    assert_eq!(sender.counts().calls - before.calls, 1);
}

fn error(errno: i32) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(errno))
}

#[test]
fn a_route_that_cannot_take_segments_does_not_cost_the_others_theirs() {
    let narrow = SocketAddr::from(([127, 0, 0, 1], 1));
    let wide = SocketAddr::from(([127, 0, 0, 1], 2));
    let outbox = outbox(&[(wide, &[100; 4]), (narrow, &[100; 4]), (wide, &[100; 4])]);
    let mut sender = Sender::new(true);
    let kernel = |call: Call<'_>| {
        let narrow = |m: &Message<'_>| m.destination.port() == 1 && m.packets() > 1;
        match call.messages.iter().position(narrow) {
            Some(0) => error(libc::EINVAL),
            Some(taken) => Ok(taken),
            None => Ok(call.messages.len()),
        }
    };
    send_all(&mut Batch::new(&mut sender, kernel), outbox, None);
    assert!(sender.segments);
    let counts = sender.counts();
    assert_eq!((counts.packets, counts.messages, counts.refused), (12, 6, 0));
    // A driver that cannot do it at all says EIO.
    let kernel = |call: Call<'_>| match call.messages[0].packets() {
        1 => Ok(1),
        _ => error(libc::EIO),
    };
    send_all(&mut Batch::new(&mut sender, kernel), outbox, None);
    assert!(!sender.segments);
    assert_eq!(sender.counts().packets, 24);
}

#[test]
fn what_finds_no_room_is_lost_without_waiting() {
    let to = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let outbox = outbox(&[(to(1), &[100; 4]), (to(2), &[100; 3]), (to(3), &[100; 2]), (to(4), &[100; 1])]);
    let mut sent = Vec::new();
    let mut sender = Sender::new(true);
    // Full for the second, unreachable the third, interrupted once.
    let mut interrupted = false;
    let kernel = |call: Call<'_>| {
        if !std::mem::replace(&mut interrupted, true) {
            return error(libc::EINTR);
        }
        match call.messages[0].destination.port() {
            2 => error(libc::EAGAIN),
            3 => error(libc::EPERM),
            port => {
                sent.push(port);
                Ok(1)
            }
        }
    };
    send_all(&mut Batch::new(&mut sender, kernel), outbox, None);
    assert_eq!(sent, [1, 4]);
    assert_eq!(sender.counts(), Counts { calls: 5, messages: 2, packets: 5, overflowed: 3, refused: 2 });
    // Nothing but full: one try for each message, then it is over.
    let mut full = Sender::new(true);
    send_all(&mut Batch::new(&mut full, |_: Call<'_>| error(libc::EAGAIN)), outbox, None);
    assert_eq!(full.counts(), Counts { calls: 4, overflowed: 10, ..Counts::default() });
}

#[test]
fn a_kernel_without_the_call_for_many_gets_one_at_a_time() {
    let to = SocketAddr::from(([127, 0, 0, 1], 1));
    let outbox = outbox(&[(to, &[100; 25])]);
    let mut sender = Sender::new(true);
    let kernel = |call: Call<'_>| if call.many { error(libc::ENOSYS) } else { Ok(1) };
    send_all(&mut Batch::new(&mut sender, kernel), outbox, None);
    let counts = sender.counts();
    assert_eq!((counts.calls, counts.messages, counts.packets), (4, 3, 25));
}

#[test]
fn packets_leave_from_the_address_asked_for() {
    let receiver = receiver("127.0.0.1");
    let to = receiver.local_addr().unwrap();
    let outbox = outbox(&[(to, &[1000; 5]), (to, &[10])]);
    let four: IpAddr = [127, 0, 0, 9].into();
    // A socket for both families knows IPv4 peers too.
    for bound in ["0.0.0.0:0", "[::]:0"] {
        let Ok(socket) = UdpSocket::bind(bound) else { continue };
        let mut sender = Sender::new(true);
        send_all(&mut sender.batch(socket.as_fd()), outbox, Some(four));
        let (packets, source) = received(&receiver, 6);
        assert_eq!(packets, expected(outbox, to));
        assert_eq!(source.ip(), four, "{bound}");
        assert_eq!(source.port(), socket.local_addr().unwrap().port());
    }
}

/// The cost of a packet on this machine:
/// `CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test --lib net::send -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn cost() {
    const DESTINATIONS: usize = 64;
    const ROUNDS: usize = 300;
    let receivers: Vec<UdpSocket> = (0..DESTINATIONS).map(|_| receiver("127.0.0.1")).collect();
    receivers.iter().for_each(|receiver| receiver.set_nonblocking(true).unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    println!("ns per packet to {DESTINATIONS} receivers, best and median of {ROUNDS} rounds");
    for (length, run) in [(1200, 1), (1200, 5), (1200, 10), (160, 1)] {
        let mut outbox = Outbox::default();
        for receiver in &receivers {
            for _ in 0..run {
                outbox.push(route(receiver.local_addr().unwrap()), &vec![7; length]);
            }
        }
        let outbox: &'static Outbox = Box::leak(Box::new(outbox));
        for (name, segments, many) in
            [("one by one", false, false), ("sendmmsg", false, true), ("sendmmsg and offload", true, true)]
        {
            let mut sender = Sender { many, ..Sender::new(segments) };
            let mut times: Vec<u128> = (0..ROUNDS)
                .map(|_| {
                    let start = std::time::Instant::now();
                    send_all(&mut sender.batch(socket.as_fd()), outbox, None);
                    let taken = start.elapsed();
                    // A receiver that is full would be cheaper.
                    let mut buffer = [0; 2000];
                    receivers.iter().for_each(|receiver| while receiver.recv(&mut buffer).is_ok() {});
                    taken.as_nanos() / outbox.len() as u128
                })
                .collect();
            times.sort_unstable();
            let calls = sender.counts().calls as f64 / sender.counts().packets as f64;
            println!(
                "{run:2} × {length:4} bytes, {name:20}: {:5} {:5}, {calls:.3} calls a packet",
                times[0],
                times[ROUNDS / 2]
            );
        }
    }
}
