//! Whatever the rooms, the client and time do, in whatever order: no packet index is used twice, and the client can open all.

use super::*;

#[derive(Debug, Clone)]
enum Operation {
    /// A packet so far from the stream's newest.
    Send {
        stream: usize,
        step: i64,
        len: usize,
    },
    Nack {
        stream: usize,
        back: u16,
        mask: u16,
    },
    KeyframesWanted,
    Wait {
        millis: u64,
    },
    Rebind {
        stream: usize,
    },
    Desire {
        bitrate: u64,
    },
    Feedback {
        count: u16,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let stream = 0..4usize;
    prop_oneof![
        8 => (stream.clone(), prop_oneof![9 => Just(1i64), 1 => -40i64..40], 0..200usize)
            .prop_map(|(stream, step, len)| Operation::Send { stream, step, len }),
        3 => (stream.clone(), 0..60u16, any::<u16>())
            .prop_map(|(stream, back, mask)| Operation::Nack { stream, back, mask }),
        1 => Just(Operation::KeyframesWanted),
        3 => (0..1500u64).prop_map(|millis| Operation::Wait { millis }),
        1 => stream.prop_map(|stream| Operation::Rebind { stream }),
        1 => (0..5_000_000u64).prop_map(|bitrate| Operation::Desire { bitrate }),
        2 => (1..200u16).prop_map(|count| Operation::Feedback { count }),
    ]
}

/// A stream, and the newest sequence number that was sent on it.
struct Sender {
    id: SenderId,
    ssrc: u32,
    newest: u64,
}

fn bind(pair: &mut Pair, with_rtx: bool, newest: u64) -> Sender {
    let ssrc = pair.egress.draw_ssrc(|_| false);
    let rtx = pair.egress.draw_ssrc(|drawn| drawn == ssrc);
    let id = pair.bind(StreamSpec { ssrc, rtx_ssrc: with_rtx.then_some(rtx), ..video() });
    Sender { id, ssrc, newest }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_index_is_used_twice(
        profile in prop::sample::select(PROFILES.to_vec()),
        firsts in prop::array::uniform4(0u64..1 << 15),
        operations in prop::collection::vec(operation(), 1..300),
    ) {
        let mut pair = Pair::new(profile);
        let mut senders: Vec<Sender> =
            firsts.iter().enumerate().map(|(n, first)| bind(&mut pair, n != 0, *first)).collect();
        for operation in operations {
            match operation {
                Operation::Send { stream, step, len } => {
                    let sender = &mut senders[stream];
                    let sequence = sender.newest.saturating_add_signed(step);
                    sender.newest = sender.newest.max(sequence);
                    let id = sender.id;
                    pair.send(id, sequence, &vec![7; len], Rewrite::None);
                }
                Operation::Nack { stream, back, mask } => {
                    let Sender { ssrc, newest, .. } = senders[stream];
                    let first = (newest as u16).wrapping_sub(back);
                    let lost = (0..16).filter(|bit| mask >> bit & 1 == 1).map(|bit| first.wrapping_add(bit));
                    pair.report(|out| {
                        rtcp::write_receiver_report(out, CLIENT, &[]);
                        rtcp::write_nack(out, CLIENT, ssrc, lost);
                    });
                    for missing in pair.demands().1 {
                        pair.resend(&missing, &[7; 200]);
                    }
                }
                Operation::KeyframesWanted => {
                    for sender in &senders {
                        pair.report(|out| rtcp::write_picture_loss(out, CLIENT, sender.ssrc));
                    }
                    pair.demands();
                }
                Operation::Wait { millis } => {
                    pair.now += ms(millis);
                    pair.tick();
                }
                Operation::Rebind { stream } => {
                    let Sender { id, newest, .. } = senders[stream];
                    pair.egress.remove(id);
                    senders[stream] = bind(&mut pair, stream != 0, newest % (1 << 15));
                }
                Operation::Desire { bitrate } => pair.egress.set_desired(pair.now, bitrate),
                Operation::Feedback { count } => {
                    let base_sequence = (pair.egress.next_number as u16).wrapping_sub(count);
                    let heading = twcc::Heading {
                        sender: CLIENT,
                        media: 0,
                        base_sequence,
                        reference_time: pair.now.duration_since(pair.start).as_millis() as u32 / 64,
                        feedback_count: 0,
                    };
                    let ticks: Vec<_> = (0..i64::from(count)).map(|n| (n % 5 != 0).then_some(n * 4)).collect();
                    pair.report(|out| {
                        twcc::write(out, &heading, &ticks);
                    });
                    pair.tick();
                }
            }
            // Checks every index, and that webrtc-rs opens every packet.
            pair.arrive();
        }
    }
}
