//! Feedback from a receiver that lies.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{Estimator, MAX_BITRATE, MIN_BITRATE, START_BITRATE};

#[derive(Debug, Clone)]
enum Act {
    /// This many packets of so many bytes, so many microseconds apart.
    Send {
        packets: u16,
        bytes: usize,
        apart: u64,
    },
    Wait {
        millis: u64,
    },
    /// Base number relative to the latest packet, reference time, statuses.
    Feedback {
        back: u16,
        reference: u32,
        arrivals: Vec<Option<i64>>,
    },
    /// The same feedback once more.
    Repeat,
    /// Everything arrived, all at once.
    Greedy,
    Desire {
        bitrate: u64,
    },
    RoundTrip {
        millis: u64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let arrival = prop_oneof![
        3 => (-400i64..4000).prop_map(Some),
        1 => any::<i64>().prop_map(Some),
        1 => Just(None),
    ];
    prop_oneof![
        4 => (1..200u16, 0..70_000usize, 0..3000u64).prop_map(|(packets, bytes, apart)| Act::Send { packets, bytes, apart }),
        2 => (1..200u16, Just(1200), 500..3000u64).prop_map(|(packets, bytes, apart)| Act::Send { packets, bytes, apart }),
        1 => (0..5000u64).prop_map(|millis| Act::Wait { millis }),
        4 => (0..300u16, 0..1u32 << 24, vec(arrival.clone(), 0..300))
            .prop_map(|(back, reference, arrivals)| Act::Feedback { back, reference, arrivals }),
        1 => (any::<u16>(), any::<u32>(), vec(arrival, 0..300))
            .prop_map(|(back, reference, arrivals)| Act::Feedback { back, reference, arrivals }),
        1 => Just(Act::Repeat),
        2 => Just(Act::Greedy),
        1 => (0..100_000_000u64).prop_map(|bitrate| Act::Desire { bitrate }),
        1 => (0..100_000u64).prop_map(|millis| Act::RoundTrip { millis }),
    ]
}

struct Connection {
    estimator: Estimator,
    start: Instant,
    now: Duration,
    next: u64,
    /// When, and how many bytes.
    sent: Vec<(Duration, usize)>,
    last: (u32, u16, Vec<Option<i64>>),
    largest_probe: u64,
}

impl Connection {
    fn act(&mut self, act: Act) {
        match act {
            Act::Send { packets, bytes, apart } => {
                for _ in 0..packets {
                    self.now += Duration::from_micros(apart);
                    let probe = self.estimator.poll_probe(self.start + self.now);
                    self.largest_probe = self.largest_probe.max(probe.map_or(0, |probe| probe.bitrate));
                    self.estimator.sent(self.start + self.now, self.next, bytes, probe.map(|probe| probe.id));
                    self.sent.push((self.now, bytes));
                    self.next += 1;
                }
            }
            Act::Wait { millis } => self.now += Duration::from_millis(millis),
            Act::Feedback { back, reference, arrivals } => {
                self.last = (reference, (self.next as u16).wrapping_sub(back), arrivals);
                self.feedback();
            }
            Act::Repeat => self.feedback(),
            Act::Greedy => {
                self.last =
                    (self.now.as_millis() as u32 / 64, (self.next as u16).wrapping_sub(1000), vec![Some(0); 1000]);
                self.feedback();
            }
            Act::Desire { bitrate } => self.estimator.set_desired(self.start + self.now, bitrate),
            Act::RoundTrip { millis } => self.estimator.round_trip(Duration::from_millis(millis)),
        }
    }

    fn feedback(&mut self) {
        let (reference, base, arrivals) = self.last.clone();
        let packets =
            arrivals.into_iter().enumerate().map(|(index, arrival)| (base.wrapping_add(index as u16), arrival));
        self.estimator.feedback(self.start + self.now, reference, packets);
    }

    /// The most that was sent within any tenth of a second, the shortest time that a rate is told from; bits per second.
    fn peak(&self) -> f64 {
        let mut first = 0;
        let mut bytes = 0;
        let mut most = 0;
        for (at, sent) in &self.sent {
            bytes += sent;
            while *at - self.sent[first].0 > Duration::from_millis(100) {
                bytes -= self.sent[first].1;
                first += 1;
            }
            most = most.max(bytes);
        }
        most as f64 * 80.0
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn proves_no_more_than_was_sent(acts in vec(act(), 1..60)) {
        let mut connection = Connection {
            estimator: Estimator::new(),
            start: Instant::now(),
            now: Duration::ZERO,
            next: 65_400,
            sent: Vec::new(),
            last: (0, 0, Vec::new()),
            // The first packets are taken for a probe of this rate.
            largest_probe: 3 * START_BITRATE,
        };
        for act in acts {
            connection.act(act);
            let now = connection.start + connection.now;
            let _ = connection.estimator.poll_probe(now).map(|probe| {
                connection.largest_probe = connection.largest_probe.max(probe.bitrate);
            });
            let Some(estimate) = connection.estimator.estimate() else { continue };
            prop_assert!((MIN_BITRATE..=MAX_BITRATE).contains(&estimate));
            let proven = 1.5 * connection.peak() + 10_000.0;
            let most = proven.max(START_BITRATE as f64).max(connection.largest_probe as f64);
            prop_assert!(estimate as f64 <= most, "{estimate} exceeds {most}");
            prop_assert!((0.0..=1.0).contains(&connection.estimator.loss()));
            prop_assert!(connection.estimator.heap_bytes() <= 8192 * 16);
        }
    }
}

/// A steady megabit per second, and a receiver that says more than once, and of more packets than there are, that all arrived.
#[test]
fn each_packet_counts_once() {
    let start = Instant::now();
    let mut estimator = Estimator::new();
    for round in 0..300u64 {
        for packet in 0..10 {
            let now = start + Duration::from_millis(round * 100 + packet * 10);
            estimator.set_desired(now, MAX_BITRATE);
            // Nobody sends the probes.
            let _ = estimator.poll_probe(now);
            estimator.sent(now, round * 10 + packet, 1250, None);
        }
        let now = start + Duration::from_millis(round * 100 + 99);
        for _ in 0..10 {
            let first = (round * 10).saturating_sub(50);
            let arrivals = (first..round * 10 + 100).map(|number| (number as u16, Some(number as i64 * 40)));
            estimator.feedback(now, 0, arrivals);
        }
    }
    let estimate = estimator.estimate();
    assert!(estimate.is_some_and(|estimate| (1_000_000..=1_510_000).contains(&estimate)), "{estimate:?}");
}
