//! How often one client address may ask.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};

use crate::subscriber::subscriber;

pub struct RateLimit {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

impl RateLimit {
    /// All of a minute's requests may come at once.
    pub fn per_minute(count: u32) -> RateLimit {
        let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        RateLimit { limiter: DefaultKeyedRateLimiter::keyed(Quota::per_minute(count)), clock: DefaultClock::default() }
    }

    /// The error says how long to wait.
    pub fn check(&self, address: IpAddr) -> Result<(), Duration> {
        self.limiter.check_key(&subscriber(address)).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Forgets addresses that have their whole quota back; to be called now and then.
    pub fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_limits_of_their_own_and_a_v6_network_has_one() {
        let limit = RateLimit::per_minute(2);
        let check = |address: &str| limit.check(address.parse().unwrap()).is_ok();
        assert!(check("1.2.3.4") && check("::ffff:1.2.3.4") && !check("1.2.3.4") && check("1.2.3.5"));
        assert!(check("2001:db8::1") && check("2001:db8::2") && !check("2001:db8::3") && check("2001:db8:0:1::1"));
        let wait = limit.check("1.2.3.4".parse().unwrap()).unwrap_err();
        assert!(wait > Duration::from_secs(20) && wait <= Duration::from_secs(30), "{wait:?}");
    }
}
