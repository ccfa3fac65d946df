//! Who is in the call of which Matrix room, and who has been given a token and may still come.
//!
//! Told by the media workers through [`Presence`], in order. [`Admission`](super::Admission) counts sessions here,
//! [`RoomWatch`](super::RoomWatch) finds here whom to remove, `GET /api/calls` shows it. Participants whose token an app has
//! minted belong to no Matrix room and are not here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use super::admission::TOKEN_VALIDITY_S;
use crate::livekit::RoomMember;
use crate::livekit::access_token::{LEEWAY_S, REFRESHED_VALIDITY_S};
use crate::net::{Presence, PresenceChange};
use crate::sfu::{LeaveReason, Sid};

/// Tokens that are remembered. A forgotten one still works and is still checked when it is used; it is only not looked for
/// among who might come.
const MOST_EXPECTED: usize = 50_000;

pub struct Calls {
    /// The server whose users we can act for.
    server_name: String,
    book: Mutex<Book>,
}

/// For how long anybody's token works, in seconds, when it gets no fresh one: what they are given at first, and the leeway.
const LONGEST_TOKEN_LIFE_S: u64 = TOKEN_VALIDITY_S + LEEWAY_S;
/// For how long a decision about a token is under way at most, in seconds: a few requests with a deadline each.
const LONGEST_DECISION_S: u64 = 60;

const _: () = assert!(REFRESHED_VALIDITY_S <= TOKEN_VALIDITY_S);

/// A session in the SFU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    pub user: String,
    pub slot_id: String,
    /// The LiveKit room.
    pub alias: String,
    pub identity: String,
    pub sid: Sid,
    /// Whether media flows, or has flowed.
    pub connected: bool,
}

/// The call of one slot of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub room_id: String,
    pub slot_id: String,
    pub alias: String,
    /// By user and identity.
    pub sessions: Vec<Present>,
}

/// A participant as the SFU knows it, here or yet to come.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Participant {
    pub alias: String,
    pub identity: String,
}

struct Book {
    /// By room id. No room without sessions.
    rooms: HashMap<String, HashMap<Sid, Present>>,
    sessions_by_user: HashMap<String, usize>,
    sessions_by_server: HashMap<String, usize>,
    /// By room id. No room without tokens.
    expected: HashMap<String, HashMap<Participant, Expected>>,
    expected_count: usize,
    /// Unix seconds, from when on every token that works is in `expected`: those given before we started are not.
    complete_from: u64,
}

/// A token that was given or used.
struct Expected {
    user: String,
    slot_id: String,
    /// Unix seconds, from when on it is of no use.
    until: u64,
    /// Only asked for so far; the user may be no member at all.
    is_wish: bool,
}

impl Calls {
    /// `now` in unix seconds, here and below.
    pub fn new(server_name: &str, now: u64) -> Calls {
        let book = Book {
            rooms: HashMap::new(),
            sessions_by_user: HashMap::new(),
            sessions_by_server: HashMap::new(),
            expected: HashMap::new(),
            expected_count: 0,
            complete_from: now + LONGEST_TOKEN_LIFE_S,
        };
        Calls { server_name: server_name.to_owned(), book: Mutex::new(book) }
    }

    /// Takes in what became of a participant.
    pub fn note(&self, presence: &Presence, now: u64) {
        let Some(member) = &presence.member else { return };
        let mut book = self.book();
        match presence.change {
            PresenceChange::Joined => {
                let present = Present {
                    user: member.user.clone(),
                    slot_id: member.slot.clone(),
                    alias: presence.room.clone(),
                    identity: presence.identity.clone(),
                    sid: presence.sid.clone(),
                    connected: false,
                };
                book.enter(&member.room, present);
            }
            PresenceChange::Connected => {
                let room = book.rooms.get_mut(&member.room);
                if let Some(present) = room.and_then(|room| room.get_mut(&presence.sid)) {
                    present.connected = true;
                }
            }
            PresenceChange::Left(reason) => {
                book.leave(&member.room, &presence.sid);
                // It has been given fresh tokens all the time, which are good for coming back unless it was thrown out.
                if reason != LeaveReason::Removed {
                    let participant = Participant { alias: presence.room.clone(), identity: presence.identity.clone() };
                    book.expect(member, participant, now + REFRESHED_VALIDITY_S + LEEWAY_S, false, now);
                }
            }
        }
    }

    /// Somebody asks for a token, and may be given one.
    pub fn expect_maybe(&self, member: &RoomMember, participant: Participant, now: u64) {
        self.book().expect(member, participant, now + LONGEST_DECISION_S, true, now);
    }

    /// A token for this participant was given, or is about to be used. `exp` in unix seconds, as in the token.
    pub fn expect(&self, member: &RoomMember, participant: Participant, exp: u64, now: u64) {
        self.book().expect(member, participant, exp.saturating_add(LEEWAY_S), false, now);
    }

    /// The sessions of a user in a room.
    pub fn of(&self, room_id: &str, user: &str) -> Vec<Present> {
        let mut sessions = self.in_room(room_id);
        sessions.retain(|present| present.user == user);
        sessions
    }

    /// All sessions in a room.
    pub fn in_room(&self, room_id: &str) -> Vec<Present> {
        self.book().rooms.get(room_id).into_iter().flat_map(HashMap::values).cloned().collect()
    }

    /// As whom a user is in a room's calls, or may come with a token it has.
    pub fn participants_of(&self, room_id: &str, user: &str) -> Vec<Participant> {
        let book = self.book();
        let here = book.rooms.get(room_id).into_iter().flat_map(HashMap::values).filter(|present| present.user == user);
        let here = here.map(|p| Participant { alias: p.alias.clone(), identity: p.identity.clone() });
        let expected = book.expected.get(room_id).into_iter().flatten().filter(|(_, expected)| expected.user == user);
        let mut participants: Vec<Participant> =
            here.chain(expected.map(|(participant, _)| participant.clone())).collect();
        participants.sort();
        participants.dedup();
        participants
    }

    /// Whether the user may be in a call of the room, or hold a token for one.
    pub fn may_come(&self, room_id: &str, user: &str, now: u64) -> bool {
        now < self.book().complete_from || !self.participants_of(room_id, user).is_empty()
    }

    /// The tokens of a user for a room have been voided.
    pub fn expect_no_more(&self, room_id: &str, user: &str) {
        let mut book = self.book();
        let Some(tokens) = book.expected.get_mut(room_id) else { return };
        let before = tokens.len();
        tokens.retain(|_, expected| expected.user != user);
        let gone = before - tokens.len();
        if tokens.is_empty() {
            book.expected.remove(room_id);
        }
        book.expected_count -= gone;
    }

    /// To be called now and then.
    pub fn forget_expired(&self, now: u64) {
        self.book().forget_expired(now);
    }

    /// Users with a session in the room or a token for it.
    pub fn users_in(&self, room_id: &str) -> Vec<String> {
        let book = self.book();
        let here = book.rooms.get(room_id).into_iter().flat_map(HashMap::values).map(|present| &present.user);
        let tokens = book.expected.get(room_id).into_iter().flat_map(HashMap::values);
        let expected = tokens.filter(|expected| !expected.is_wish).map(|expected| &expected.user);
        let mut users: Vec<String> = here.chain(expected).collect::<HashSet<_>>().into_iter().cloned().collect();
        users.sort();
        users
    }

    /// The same of our homeserver: in their name it tells us about the room.
    pub fn local_users_in(&self, room_id: &str) -> Vec<String> {
        let mut users = self.users_in(room_id);
        users.retain(|user| server_of(user) == self.server_name);
        users
    }

    /// LiveKit rooms of the calls that a Matrix room has or had: those with sessions or tokens.
    pub fn aliases_of(&self, room_id: &str) -> Vec<String> {
        let book = self.book();
        let here = book.rooms.get(room_id).into_iter().flat_map(HashMap::values).map(|present| &present.alias);
        let expected = book.expected.get(room_id).into_iter().flat_map(HashMap::keys).map(|p| &p.alias);
        let mut aliases: Vec<String> = here.chain(expected).collect::<HashSet<_>>().into_iter().cloned().collect();
        aliases.sort();
        aliases
    }

    /// Rooms with somebody in their call.
    pub fn rooms(&self) -> Vec<String> {
        self.book().rooms.keys().cloned().collect()
    }

    /// Sessions of a user in all rooms, without `participant` itself, whose place a new connection takes.
    pub fn sessions_of_user(&self, user: &str, room_id: &str, participant: &Participant) -> usize {
        let book = self.book();
        let count = book.sessions_by_user.get(user).copied().unwrap_or(0);
        count - book.sessions_of(room_id, participant, |present| present.user == user)
    }

    /// Sessions of a server's users in all rooms, likewise.
    pub fn sessions_of_server(&self, server: &str, room_id: &str, participant: &Participant) -> usize {
        let book = self.book();
        let count = book.sessions_by_server.get(server).copied().unwrap_or(0);
        count - book.sessions_of(room_id, participant, |present| server_of(&present.user) == server)
    }

    /// Every call with somebody in it, by room and slot.
    pub fn list(&self) -> Vec<Call> {
        let mut calls: BTreeMap<(&str, &str), Vec<Present>> = BTreeMap::new();
        let book = self.book();
        for (room_id, room) in &book.rooms {
            for present in room.values() {
                calls.entry((room_id, &present.alias)).or_default().push(present.clone());
            }
        }
        let call = |((room_id, alias), mut sessions): ((&str, &str), Vec<Present>)| {
            sessions.sort_by(|a, b| (&a.user, &a.identity, &a.sid).cmp(&(&b.user, &b.identity, &b.sid)));
            let slot_id = sessions.first().map(|present| present.slot_id.clone()).unwrap_or_default();
            Call { room_id: room_id.to_owned(), slot_id, alias: alias.to_owned(), sessions }
        };
        calls.into_iter().map(call).collect()
    }

    /// The room and the slot whose call this LiveKit room is, when somebody is in it or has a token.
    pub fn room_of(&self, alias: &str) -> Option<(String, String)> {
        let book = self.book();
        let here = book.rooms.iter().find_map(|(room_id, room)| {
            room.values()
                .find(|present| present.alias == alias)
                .map(|present| (room_id.clone(), present.slot_id.clone()))
        });
        here.or_else(|| {
            book.expected.iter().find_map(|(room_id, tokens)| {
                let mut found = tokens.iter().filter(|(participant, _)| participant.alias == alias);
                found.next().map(|(_, expected)| (room_id.clone(), expected.slot_id.clone()))
            })
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic while held")
    }
}

impl Book {
    fn enter(&mut self, room_id: &str, present: Present) {
        *self.sessions_by_user.entry(present.user.clone()).or_default() += 1;
        *self.sessions_by_server.entry(server_of(&present.user).to_owned()).or_default() += 1;
        let replaced = self.rooms.entry(room_id.to_owned()).or_default().insert(present.sid.clone(), present);
        debug_assert!(replaced.is_none(), "a sid joins once");
    }

    fn leave(&mut self, room_id: &str, sid: &Sid) {
        let Some(room) = self.rooms.get_mut(room_id) else { return };
        let Some(present) = room.remove(sid) else { return };
        if room.is_empty() {
            self.rooms.remove(room_id);
        }
        decrement(&mut self.sessions_by_user, &present.user);
        decrement(&mut self.sessions_by_server, server_of(&present.user));
    }

    fn expect(&mut self, member: &RoomMember, participant: Participant, until: u64, is_wish: bool, now: u64) {
        if self.expected_count >= MOST_EXPECTED {
            self.forget_expired(now);
            if self.expected_count >= MOST_EXPECTED {
                self.complete_from = now + LONGEST_TOKEN_LIFE_S;
                return;
            }
        }
        let tokens = self.expected.entry(member.room.clone()).or_default();
        let known = tokens.entry(participant);
        if matches!(known, std::collections::hash_map::Entry::Vacant(_)) {
            self.expected_count += 1;
        }
        let expected =
            known.or_insert_with(|| Expected { user: String::new(), slot_id: String::new(), until, is_wish });
        expected.user.clone_from(&member.user);
        expected.slot_id.clone_from(&member.slot);
        expected.until = expected.until.max(until);
        expected.is_wish &= is_wish;
    }

    fn forget_expired(&mut self, now: u64) {
        self.expected.retain(|_, tokens| {
            tokens.retain(|_, expected| expected.until > now);
            !tokens.is_empty()
        });
        self.expected_count = self.expected.values().map(HashMap::len).sum();
    }

    fn sessions_of(&self, room_id: &str, participant: &Participant, is: impl Fn(&Present) -> bool) -> usize {
        let sessions = self.rooms.get(room_id).into_iter().flat_map(HashMap::values);
        let same = |p: &&Present| p.alias == participant.alias && p.identity == participant.identity && is(p);
        sessions.filter(same).count()
    }
}

fn decrement(counts: &mut HashMap<String, usize>, key: &str) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// The server of a Matrix user id.
pub fn server_of(user: &str) -> &str {
    user.split_once(':').map_or("", |(_, server)| server)
}

#[cfg(test)]
mod tests;
