//! What is remembered of who is joined to which room: only that somebody is, never that somebody is not, and not for long.
//! Knows no clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// While the homeserver pushes events, a leave is heard of and forgets what is here: this is for what gets lost.
const LIFETIME_WITH_EVENTS: Duration = Duration::from_secs(60);

/// Without events this is how long somebody who left can still come back into the call.
const LIFETIME_WITHOUT_EVENTS: Duration = Duration::from_secs(10);

/// How long after a transaction more are expected. A homeserver with users sends some each minute.
const EVENTS_EXPECTED: Duration = Duration::from_secs(60);

/// How long a homeserver that lacks MSC4502 is not asked for it: it may be upgraded or configured meanwhile.
const MISSING_LIFETIME: Duration = Duration::from_secs(3600);

/// Entries of 100 bytes or so; far more than callers come within a minute.
const MOST_REMEMBERED: usize = 16_384;

#[derive(Default)]
pub struct Remembered {
    /// Room → user or server → until when.
    joined: HashMap<String, HashMap<String, Instant>>,
    count: usize,
    under_way: HashMap<u64, Question>,
    last_number: u64,
    last_transaction: Option<Instant>,
    missing_until: Option<Instant>,
}

struct Question {
    room: String,
    whom: String,
    is_outdated: bool,
}

impl Remembered {
    pub fn is_joined(&self, room: &str, whom: &str, now: Instant) -> bool {
        self.joined.get(room).and_then(|members| members.get(whom)).is_some_and(|until| *until > now)
    }

    /// Notes that the homeserver is being asked. The number is for [`note_joined`](Self::note_joined) and [`end`](Self::end).
    pub fn begin(&mut self, room: &str, whom: &str) -> u64 {
        self.last_number += 1;
        let question = Question { room: room.to_owned(), whom: whom.to_owned(), is_outdated: false };
        self.under_way.insert(self.last_number, question);
        self.last_number
    }

    /// The answer is yes. `false` when something was forgotten meanwhile that it may not have taken into account.
    pub fn note_joined(&mut self, number: u64, now: Instant) -> bool {
        let Some(Question { room, whom, is_outdated: false }) = self.under_way.remove(&number) else { return false };
        if self.count >= MOST_REMEMBERED {
            self.make_room(now);
        }
        let until = now + self.lifetime(now);
        if self.joined.entry(room).or_default().insert(whom, until).is_none() {
            self.count += 1;
        }
        true
    }

    pub fn end(&mut self, number: u64) {
        self.under_way.remove(&number);
    }

    /// Forgets some users or servers of a room; `None`: all of it.
    pub fn forget(&mut self, room: &str, whom: Option<[&str; 2]>) {
        let is_meant = |name: &str| whom.is_none_or(|names| names.contains(&name));
        if let Some(members) = self.joined.get_mut(room) {
            let before = members.len();
            members.retain(|name, _| !is_meant(name));
            self.count -= before - members.len();
            if members.is_empty() {
                self.joined.remove(room);
            }
        }
        for question in self.under_way.values_mut() {
            question.is_outdated |= question.room == room && is_meant(&question.whom);
        }
    }

    pub fn transaction_arrived(&mut self, now: Instant) {
        self.last_transaction = Some(now);
    }

    pub fn lacks_is_joined(&self, now: Instant) -> bool {
        self.missing_until.is_some_and(|until| until > now)
    }

    pub fn miss_is_joined(&mut self, now: Instant) {
        self.missing_until = Some(now + MISSING_LIFETIME);
    }

    fn lifetime(&self, now: Instant) -> Duration {
        let hears = self.last_transaction.is_some_and(|last| now.saturating_duration_since(last) < EVENTS_EXPECTED);
        if hears { LIFETIME_WITH_EVENTS } else { LIFETIME_WITHOUT_EVENTS }
    }

    /// Drops what has expired, else everything: it costs a question each.
    fn make_room(&mut self, now: Instant) {
        for members in self.joined.values_mut() {
            members.retain(|_, until| *until > now);
        }
        self.joined.retain(|_, members| !members.is_empty());
        self.count = self.joined.values().map(HashMap::len).sum();
        if self.count >= MOST_REMEMBERED {
            self.joined.clear();
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn learn(remembered: &mut Remembered, room: &str, whom: &str, now: Instant) -> bool {
        let number = remembered.begin(room, whom);
        remembered.note_joined(number, now)
    }

    #[test]
    fn a_yes_lives_longer_while_events_come() {
        let (mut remembered, start) = (Remembered::default(), Instant::now());
        assert!(learn(&mut remembered, "!r", "@a:x", start));
        assert!(remembered.is_joined("!r", "@a:x", start + 9 * SECOND));
        assert!(!remembered.is_joined("!r", "@a:x", start + 10 * SECOND));
        assert!(!remembered.is_joined("!other", "@a:x", start) && !remembered.is_joined("!r", "@b:x", start));

        remembered.transaction_arrived(start);
        learn(&mut remembered, "!r", "@a:x", start + 59 * SECOND);
        assert!(remembered.is_joined("!r", "@a:x", start + 118 * SECOND));
        assert!(!remembered.is_joined("!r", "@a:x", start + 119 * SECOND));
        learn(&mut remembered, "!r", "@b:x", start + 60 * SECOND);
        assert!(!remembered.is_joined("!r", "@b:x", start + 70 * SECOND), "no transaction for a minute");
    }

    #[test]
    fn what_is_forgotten_is_gone_from_answers_under_way_too() {
        let (mut remembered, now) = (Remembered::default(), Instant::now());
        for whom in ["@a:x", "@b:x", "x"] {
            learn(&mut remembered, "!r", whom, now);
        }
        let [of_a, of_b, elsewhere] =
            [("!r", "@a:x"), ("!r", "@b:x"), ("!s", "@a:x")].map(|(room, whom)| remembered.begin(room, whom));
        remembered.forget("!r", Some(["@a:x", "x"]));
        let is_joined = |remembered: &Remembered, whom| remembered.is_joined("!r", whom, now);
        assert!(!is_joined(&remembered, "@a:x") && !is_joined(&remembered, "x") && is_joined(&remembered, "@b:x"));
        assert!(!remembered.note_joined(of_a, now), "the answer may be from before");
        assert!(!is_joined(&remembered, "@a:x"));
        assert!(remembered.note_joined(of_b, now) && remembered.note_joined(elsewhere, now));

        let again = remembered.begin("!r", "@a:x");
        remembered.forget("!r", None);
        assert!(!is_joined(&remembered, "@b:x") && !remembered.note_joined(again, now));
        assert!(remembered.is_joined("!s", "@a:x", now));
        assert_eq!((remembered.count, remembered.joined.len(), remembered.under_way.len()), (1, 1, 0));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut remembered, now) = (Remembered::default(), Instant::now());
        for n in 0..3 * MOST_REMEMBERED {
            learn(&mut remembered, &format!("!{}", n % 5000), &format!("@{n}:x"), now);
            assert!(remembered.count <= MOST_REMEMBERED);
        }
        assert_eq!(remembered.count, remembered.joined.values().map(HashMap::len).sum::<usize>());
        for _ in 0..3 {
            learn(&mut remembered, "!r", "@a:x", now);
        }
        let abandoned = remembered.begin("!r", "@a:x");
        remembered.end(abandoned);
        assert!(remembered.under_way.is_empty());
    }

    #[test]
    fn a_missing_endpoint_is_asked_for_again_after_an_hour() {
        let (mut remembered, now) = (Remembered::default(), Instant::now());
        assert!(!remembered.lacks_is_joined(now));
        remembered.miss_is_joined(now);
        assert!(remembered.lacks_is_joined(now + 3599 * SECOND) && !remembered.lacks_is_joined(now + 3600 * SECOND));
    }
}
