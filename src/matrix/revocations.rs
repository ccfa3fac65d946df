//! Access tokens that are void because their holder has left the room, or was made to.
//!
//! A token says from when on it is valid (`nbf`), and fresh ones that a client gets in a call keep that time. So one number
//! per user and room voids all of them: those of before. It is kept for as long as any of them could live. Written by
//! [`RoomWatch`](super::RoomWatch), read by [`Admission`](super::Admission).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use super::admission::TOKEN_VALIDITY_S;
use crate::livekit::Claims;
use crate::livekit::access_token::{LEEWAY_S, REFRESHED_VALIDITY_S};
use crate::store::{Store, StoreError, Table};

/// A token lives no longer than it was given for, or than the last fresh one which its holder got in the call; and whoever
/// loses access loses the call in the same moment.
const KEPT_S: u64 = if TOKEN_VALIDITY_S > REFRESHED_VALIDITY_S { TOKEN_VALIDITY_S } else { REFRESHED_VALIDITY_S };

/// How far a revocation may be ahead of the clock, in seconds: less than the leeway, or tokens given now would not be valid yet.
const MOST_AHEAD_S: u64 = LEEWAY_S / 2;

/// A revocation takes some 200 bytes. More come about only while we do not know yet who has tokens, in the hour after a
/// start, and then the oldest go: membership is still checked at the door.
const MOST_KEPT: usize = 50_000;

pub struct Revocations {
    /// Room id and user id → unix seconds.
    not_before: Mutex<HashMap<(String, String), u64>>,
    table: Table<u64>,
}

impl Revocations {
    /// With what was revoked before the last restart.
    pub fn load(store: &Store, now: u64) -> Result<Revocations, StoreError> {
        let table = store.table("revocations");
        let stored = table.load()?;
        let not_before = stored.into_iter().filter_map(|(key, at)| Some((serde_json::from_str(&key).ok()?, at)));
        let revocations = Revocations { not_before: Mutex::new(not_before.collect()), table };
        revocations.forget_expired(now);
        Ok(revocations)
    }

    /// Voids every token the user has been given for the room; `now` in unix seconds. Once is enough, however often it is
    /// reported.
    pub fn revoke(&self, room_id: &str, user: &str, now: u64) {
        let mut kept = self.kept();
        if kept.len() >= MOST_KEPT {
            let oldest = kept.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                kept.remove(&oldest);
                self.table.remove_later(&stored_key(&oldest));
            }
        }
        let key = (room_id.to_owned(), user.to_owned());
        // Tokens of this second may have been given after an earlier revocation, as `not_before` says.
        let at = kept.get(&key).map_or(now, |earlier| now.max(earlier + 1)).min(now + MOST_AHEAD_S);
        self.table.put_later(&stored_key(&key), &at);
        kept.insert(key, at);
    }

    pub fn is_revoked(&self, claims: &Claims) -> bool {
        let Some(member) = &claims.matrix else { return false };
        self.is_void(&member.room, &member.user, claims.nbf.unwrap_or(0))
    }

    /// Whether a token that is valid from `nbf` on has been voided.
    pub fn is_void(&self, room_id: &str, user: &str, nbf: u64) -> bool {
        self.at(room_id, user).is_some_and(|at| nbf <= at)
    }

    /// The `nbf` of a token given at `now`, so that it is not taken for one of before.
    pub fn not_before(&self, room_id: &str, user: &str, now: u64) -> u64 {
        self.at(room_id, user).map_or(now, |at| now.max(at + 1))
    }

    /// To be called now and then.
    pub fn forget_expired(&self, now: u64) {
        for (key, _) in self.kept().extract_if(|_, at| *at + KEPT_S + LEEWAY_S < now) {
            self.table.remove_later(&stored_key(&key));
        }
    }

    fn at(&self, room_id: &str, user: &str) -> Option<u64> {
        self.kept().get(&(room_id.to_owned(), user.to_owned())).copied()
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<(String, String), u64>> {
        self.not_before.lock().expect("no panic while held")
    }
}

/// Identifiers hold any character: JSON keeps the two apart.
fn stored_key(key: &(String, String)) -> String {
    serde_json::to_string(key).expect("texts are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::livekit::RoomMember;

    const NOW: u64 = 1_800_000_000;
    const ROOM: &str = "!room:example.org";
    const USER: &str = "@a:example.org";

    fn claims(nbf: u64) -> Claims {
        let member = RoomMember { room: ROOM.into(), slot: "m.call#ROOM".into(), user: USER.into() };
        Claims { matrix: Some(member), ..Claims::for_room("identity", "alias", true, nbf, 3600) }
    }

    #[test]
    fn tokens_of_before_are_void_and_those_of_after_are_not() {
        let revocations = Revocations::load(&Store::in_memory(), NOW).unwrap();
        let before = claims(revocations.not_before(ROOM, USER, NOW));
        assert!(!revocations.is_revoked(&before));
        revocations.revoke(ROOM, USER, NOW);
        assert!(revocations.is_revoked(&before), "also one of the same second");
        assert!(revocations.is_revoked(&before.refreshed(NOW + 500)), "a fresh one keeps its beginning");
        assert!(revocations.is_revoked(&Claims { nbf: None, ..before.clone() }));
        let after = claims(revocations.not_before(ROOM, USER, NOW));
        assert!(!revocations.is_revoked(&after), "also one of the same second");
        revocations.revoke(ROOM, USER, NOW);
        assert!(revocations.is_revoked(&after), "thrown out twice in a second");

        let other_user = RoomMember { user: "@b:example.org".into(), ..before.matrix.clone().unwrap() };
        let other_room = RoomMember { room: "!other:example.org".into(), ..before.matrix.clone().unwrap() };
        for other in [Some(other_user), Some(other_room), None] {
            assert!(!revocations.is_revoked(&Claims { matrix: other, ..before.clone() }));
        }
    }

    #[test]
    fn new_tokens_stay_valid_however_often_somebody_is_thrown_out() {
        let revocations = Revocations::load(&Store::in_memory(), NOW).unwrap();
        for _ in 0..1000 {
            revocations.revoke(ROOM, USER, NOW);
        }
        assert!(revocations.not_before(ROOM, USER, NOW) <= NOW + LEEWAY_S);
    }

    #[test]
    fn they_outlive_a_restart_and_not_the_tokens() {
        let store = Store::in_memory();
        let odd = "!\"\\,[room:example.org";
        let revocations = Revocations::load(&store, NOW).unwrap();
        revocations.revoke(ROOM, USER, NOW);
        revocations.revoke(odd, USER, NOW);
        let last_of_a_token = NOW + TOKEN_VALIDITY_S + LEEWAY_S;
        for (at, void) in [(NOW + 1, true), (last_of_a_token, true), (last_of_a_token + 1, false)] {
            let revocations = Revocations::load(&store, at).unwrap();
            assert_eq!(revocations.is_revoked(&claims(NOW)), void);
            assert_eq!(revocations.is_void(odd, USER, NOW), void);
        }
        assert!(store.table::<u64>("revocations").load().unwrap().is_empty());
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let revocations = Revocations::load(&Store::in_memory(), NOW).unwrap();
        revocations.kept().extend((0..MOST_KEPT as u64).map(|n| ((ROOM.to_owned(), n.to_string()), NOW + n)));
        revocations.revoke(ROOM, USER, NOW + MOST_KEPT as u64);
        assert_eq!(revocations.kept().len(), MOST_KEPT);
        assert!(!revocations.is_void(ROOM, "0", NOW) && revocations.is_void(ROOM, "1", NOW));
    }
}
