//! Calls that have ended, remembered for as long as an invitation to one can be alive.
//!
//! An event may come twice, and a hangup may be decrypted before its invitation; neither may begin a call anew.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::call::CallKey;
use super::content::MAX_LIFETIME;

/// Names of calls remembered, two for each; then the oldest are forgotten. More than [`MAX_LIFETIME`] of them at a call each
/// second.
pub(super) const MAX_ENDED: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Ended {
    /// How often each is in `order`.
    calls: HashMap<CallKey, u32>,
    order: VecDeque<(Instant, CallKey)>,
}

impl Ended {
    pub fn insert(&mut self, now: Instant, call: CallKey) {
        self.forget(now);
        if self.order.len() >= MAX_ENDED {
            self.pop();
        }
        *self.calls.entry(call.clone()).or_insert(0) += 1;
        self.order.push_back((now + MAX_LIFETIME, call));
    }

    pub fn contains(&mut self, now: Instant, call: &CallKey) -> bool {
        self.forget(now);
        self.calls.contains_key(call)
    }

    fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| *at < now) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some((_, call)) = self.order.pop_front() else { return };
        if let Some(count) = self.calls.get_mut(&call) {
            *count -= 1;
            if *count == 0 {
                self.calls.remove(&call);
            }
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::call::Scope;
    use super::*;

    fn call(id: usize) -> CallKey {
        CallKey { scope: Scope::Room("!r:x".into()), user: "@u:x".into(), device: None, call_id: id.to_string() }
    }

    #[test]
    fn a_call_is_remembered_while_it_could_be_invited_to() {
        let now = Instant::now();
        let mut ended = Ended::default();
        ended.insert(now, call(1));
        ended.insert(now + Duration::from_secs(1), call(1));
        assert!(ended.contains(now + MAX_LIFETIME, &call(1)) && !ended.contains(now, &call(2)));
        assert!(ended.contains(now + MAX_LIFETIME + Duration::from_secs(1), &call(1)), "counts from the last time");
        assert!(!ended.contains(now + MAX_LIFETIME + Duration::from_secs(2), &call(1)));
        assert_eq!((ended.len(), ended.calls.len()), (0, 0));
    }

    #[test]
    fn a_flood_forgets_the_oldest() {
        let now = Instant::now();
        let mut ended = Ended::default();
        for id in 0..10_000 {
            ended.insert(now, call(id));
        }
        assert_eq!((ended.len(), ended.calls.len()), (MAX_ENDED, MAX_ENDED));
        assert!(ended.contains(now, &call(9_999)) && !ended.contains(now, &call(0)));
    }
}
