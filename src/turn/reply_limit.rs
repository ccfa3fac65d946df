//! How many answers a source gets before it has proved who it is.
//!
//! An error answer is larger than its request, and the source of a datagram can be forged: without a limit we would be a
//! reflector. Asked by the core before each 401, 438 and 400, and with other numbers before Binding answers.
//!
//! The table has a fixed size and no keys: a flood of forged sources cannot grow it. Sources that fall into the same slot
//! share its rate; the hash is seeded, so nobody chooses with whom.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Instant;

use super::rate::{admit, duration_ns, ns_between};
use crate::subscriber::subscriber;

/// 8 bytes each: 32 KiB per worker and kind of answer. A few hundred clients at a time are rarely in each other's way.
const SLOTS: usize = 4096;

/// Of one worker, whatever the number of sources: 400 kB/s of answers of 80 bytes. A node whose clients all come back
/// after an outage needs about two per client.
const OVERALL_PER_SECOND: u64 = 5_000;

#[derive(Debug)]
pub struct ReplyLimit {
    /// What the slots count from: the first time we are told.
    epoch: Option<Instant>,
    seed: u64,
    reply_ns: u64,
    burst_ns: u64,
    /// Nanoseconds after `epoch` at which the slot has its whole burst again.
    slots: Box<[u64]>,
    overall: u64,
}

impl ReplyLimit {
    /// `per_second` answers to a source (an IPv4 address, or a /64 of IPv6), `burst` of them at once.
    pub fn new(per_second: u32, burst: u32, seed: u64) -> ReplyLimit {
        let per_second = u64::from(per_second.max(1));
        ReplyLimit {
            epoch: None,
            seed,
            reply_ns: duration_ns(1, per_second),
            burst_ns: duration_ns(1, per_second).saturating_mul(u64::from(burst.max(1))),
            slots: vec![0; SLOTS].into_boxed_slice(),
            overall: 0,
        }
    }

    /// Whether `source` may get an answer now; if so it is counted.
    pub fn allows(&mut self, now: Instant, source: IpAddr) -> bool {
        let now_ns = ns_between(*self.epoch.get_or_insert(now), now);
        let slot = &mut self.slots[slot(self.seed, source)];
        let Some(slot_full_at) = admit(*slot, now_ns, self.reply_ns, self.burst_ns) else { return false };
        let one = duration_ns(1, OVERALL_PER_SECOND);
        let Some(overall) = admit(self.overall, now_ns, one, one * OVERALL_PER_SECOND) else { return false };
        *slot = slot_full_at;
        self.overall = overall;
        true
    }
}

fn slot(seed: u64, source: IpAddr) -> usize {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    subscriber(source).hash(&mut hasher);
    hasher.finish() as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Of so many tries at one time, how many are answered.
    fn answered(limit: &mut ReplyLimit, at: Instant, source: &str, tries: usize) -> usize {
        (0..tries).filter(|_| limit.allows(at, address(source))).count()
    }

    #[test]
    fn a_source_gets_its_burst_then_its_rate() {
        let (mut limit, start) = (ReplyLimit::new(20, 40, 7), Instant::now());
        assert_eq!(answered(&mut limit, start, "192.0.2.1", 100), 40);
        assert_eq!(answered(&mut limit, start + Duration::from_secs(1), "192.0.2.1", 100), 20);
        assert_eq!(answered(&mut limit, start + Duration::from_secs(60), "192.0.2.1", 100), 40);
    }

    #[test]
    fn other_sources_are_answered_and_a_v6_network_is_one() {
        let (mut limit, start) = (ReplyLimit::new(1, 2, 7), Instant::now());
        assert_eq!(answered(&mut limit, start, "192.0.2.1", 3), 2);
        assert_eq!(answered(&mut limit, start, "::ffff:192.0.2.1", 3), 0);
        assert_eq!(answered(&mut limit, start, "192.0.2.2", 3), 2);
        assert_eq!(answered(&mut limit, start, "2001:db8::1", 1), 1);
        assert_eq!(answered(&mut limit, start, "2001:db8::2", 3), 1);
        assert_eq!(answered(&mut limit, start, "2001:db8:0:1::", 3), 2);
    }

    #[test]
    fn many_sources_meet_the_overall_cap() {
        let (mut limit, start) = (ReplyLimit::new(20, 40, 7), Instant::now());
        let sources = (0..200_000u32).map(|n| IpAddr::from(Ipv4Addr::from(n)));
        let answers = sources.filter(|source| limit.allows(start, *source)).count();
        assert_eq!(answers as u64, OVERALL_PER_SECOND);
    }

    #[test]
    fn the_seed_decides_who_shares_a_slot() {
        let together = |seed| {
            (1..20_000u32)
                .filter(|n| slot(seed, Ipv4Addr::from(*n).into()) == slot(seed, Ipv4Addr::from(0).into()))
                .collect::<Vec<_>>()
        };
        assert!(!together(1).is_empty() && together(1) != together(2));
    }

    proptest! {
        /// Whoever else asks, and however often: no source ever gets more than its burst and its rate.
        #[test]
        fn no_source_gets_more(tries in prop::collection::vec((0u64..50, 0u8..4), 1..500), seed: u64) {
            let (mut limit, start) = (ReplyLimit::new(20, 40, seed), Instant::now());
            let mut at = Duration::ZERO;
            let mut answers = [0u32; 4];
            for (gap_ms, source) in tries {
                at += Duration::from_millis(gap_ms);
                let source = usize::from(source);
                answers[source] += u32::from(limit.allows(start + at, IpAddr::from([192, 0, 2, source as u8])));
                prop_assert!(f64::from(answers[source]) <= 40.0 + 20.0 * at.as_secs_f64() + 1e-6);
            }
        }
    }
}
