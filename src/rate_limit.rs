//! How often somebody may ask: a client address, a user, a server. Used by `http` for addresses, by `matrix::Admission`.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};

pub struct RateLimit<K: Clone + Eq + Hash> {
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
}

impl<K: Clone + Eq + Hash> RateLimit<K> {
    /// All of a minute's requests may come at once.
    pub fn per_minute(count: u32) -> RateLimit<K> {
        let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        RateLimit { limiter: DefaultKeyedRateLimiter::keyed(Quota::per_minute(count)), clock: DefaultClock::default() }
    }

    /// The error says how long to wait.
    pub fn check(&self, who: &K) -> Result<(), Duration> {
        self.limiter.check_key(who).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Forgets those who have their whole quota back; to be called now and then.
    pub fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::subscriber::subscriber;

    #[test]
    fn addresses_have_limits_of_their_own_and_a_v6_network_has_one() {
        let limit = RateLimit::per_minute(2);
        let of = |address: &str| subscriber(address.parse::<IpAddr>().unwrap());
        let check = |address: &str| limit.check(&of(address)).is_ok();
        assert!(check("1.2.3.4") && check("::ffff:1.2.3.4") && !check("1.2.3.4") && check("1.2.3.5"));
        assert!(check("2001:db8::1") && check("2001:db8::2") && !check("2001:db8::3") && check("2001:db8:0:1::1"));
        let wait = limit.check(&of("1.2.3.4")).unwrap_err();
        assert!(wait > Duration::from_secs(20) && wait <= Duration::from_secs(30), "{wait:?}");
    }
}
