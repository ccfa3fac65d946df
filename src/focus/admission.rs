//! How much one user, and all of them together, may make us do.
//!
//! An invitation costs a leg with its media, a refusal costs an event that our homeserver counts against us. So both have
//! limits, and beyond the last one invitations go unanswered: their callers see that nobody picks up.

use std::collections::HashMap;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Legs at a time.
    pub legs: usize,
    /// Legs of one user at a time, those that we ring included.
    pub legs_per_user: usize,
    /// And as many at once.
    pub invites_per_user_per_minute: u32,
    /// Refusals sent because of these limits, to all users; and as many at once.
    pub refusals_per_second: u32,
}

impl Default for Limits {
    /// Three legs: a phone, a computer, and one that is being replaced. Ten invitations a minute are more than a person
    /// taps who is refused each time. Synapse lets a client send ten events in a burst before it slows it down, and calls
    /// that go well need them.
    fn default() -> Limits {
        Limits { legs: 1000, legs_per_user: 3, invites_per_user_per_minute: 10, refusals_per_second: 2 }
    }
}

/// Users whose rate is watched. When as many have just called, another one is refused: there is a flood.
pub(super) const MAX_RATED_USERS: usize = 4096;

/// How often users are looked through for those that have been quiet.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);

/// GCRA, the token bucket that needs a single number: when it is full again.
#[derive(Debug, Clone, Copy, Default)]
struct Rate {
    full_at: Option<Instant>,
}

impl Rate {
    fn take(&mut self, now: Instant, interval: Duration, burst: u32) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + interval;
        let allows = full_at - now <= interval * burst.max(1);
        if allows {
            self.full_at = Some(full_at);
        }
        allows
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

#[derive(Debug, Default)]
pub(super) struct Rates {
    users: HashMap<String, Rate>,
    pruned: Option<Instant>,
    refusals: Rate,
}

impl Rates {
    /// Whether `user` may invite us once more.
    pub fn allows_invite(&mut self, now: Instant, user: &str, limits: &Limits) -> bool {
        let burst = limits.invites_per_user_per_minute.max(1);
        let interval = Duration::from_secs(60) / burst;
        if let Some(rate) = self.users.get_mut(user) {
            return rate.take(now, interval, burst);
        }
        if self.users.len() >= MAX_RATED_USERS {
            if self.pruned.is_some_and(|at| now < at + PRUNE_INTERVAL) {
                return false;
            }
            self.pruned = Some(now);
            self.users.retain(|_, rate| !rate.is_full(now));
            if self.users.len() >= MAX_RATED_USERS {
                return false;
            }
        }
        self.users.entry(user.to_owned()).or_default().take(now, interval, burst)
    }

    /// Whether a refusal may be sent.
    pub fn allows_refusal(&mut self, now: Instant, limits: &Limits) -> bool {
        let burst = limits.refusals_per_second.max(1);
        self.refusals.take(now, Duration::from_secs(1) / burst, burst)
    }

    #[cfg(test)]
    pub fn users(&self) -> usize {
        self.users.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_may_call_as_often_as_the_rate_says() {
        let now = Instant::now();
        let limits = Limits { invites_per_user_per_minute: 3, ..Limits::default() };
        let mut rates = Rates::default();
        let mut allowed = |at, user: &str| rates.allows_invite(now + Duration::from_secs(at), user, &limits);
        assert!((0..3).all(|_| allowed(0, "@a:x")) && !allowed(0, "@a:x"));
        assert!(allowed(0, "@b:x"), "another user's rate is another");
        assert!(!allowed(19, "@a:x") && allowed(20, "@a:x") && !allowed(20, "@a:x"));
    }

    #[test]
    fn many_users_are_not_remembered() {
        let now = Instant::now();
        let (limits, mut rates) = (Limits::default(), Rates::default());
        let flood = (0..10_000).filter(|user| rates.allows_invite(now, &format!("@{user}:x"), &limits)).count();
        assert_eq!((flood, rates.users()), (MAX_RATED_USERS, MAX_RATED_USERS));
        let later = now + Duration::from_secs(60);
        assert!(rates.allows_invite(later, "@new:x", &limits));
        assert_eq!(rates.users(), 1, "those that are quiet are forgotten");
    }

    #[test]
    fn refusals_have_a_rate_of_their_own() {
        let now = Instant::now();
        let (limits, mut rates) = (Limits::default(), Rates::default());
        assert_eq!((0..100).filter(|_| rates.allows_refusal(now, &limits)).count(), 2);
        assert!(rates.allows_refusal(now + Duration::from_millis(500), &limits));
    }
}
