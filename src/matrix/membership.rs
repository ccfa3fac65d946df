//! Whether somebody is joined to a Matrix room: the one question on which admission to calls rests.
//!
//! Three ways to find out, the best first: MSC4502's `is_joined`; the list of members as application service, in the name of
//! a user of our server who is in the room; the list as ourselves or as a bot. Asked by `admission`.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::calls::server_of;
use super::homeserver::{Homeserver, HomeserverError};
use remembered::Remembered;

mod remembered;

/// A join over federation takes a moment until our homeserver knows of it, and who joins a room to call asks us within it:
/// a "no" about another server's user counts after these waits.
const LAG: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(1)];

/// Users who are said to be in the room and in whose name it is looked into. The first nearly always is.
const MOST_LENDERS: usize = 3;

pub struct Membership {
    homeserver: Arc<Homeserver>,
    /// Its users are those we can act as.
    server_name: String,
    remembered: Mutex<Remembered>,
}

/// Why it cannot be told who is in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    #[error("nobody whom the homeserver lets us act as is in the room to see who else is")]
    NobodyInRoom,
    #[error("the homeserver was asked who is in the room: {0}")]
    Homeserver(#[from] HomeserverError),
}

impl Membership {
    pub fn new(homeserver: Arc<Homeserver>, server_name: &str) -> Membership {
        Membership { homeserver, server_name: server_name.to_owned(), remembered: Mutex::default() }
    }

    /// Whether `user`, of any server, is joined to `room`. `known`: users of our server who are said to be in the room.
    ///
    /// A "yes" is remembered for a while, so that asking again costs nothing.
    pub async fn check(&self, room: &str, user: &str, known: &[String]) -> Result<bool, Unknown> {
        self.recall_or_ask(room, user, known).await
    }

    /// Whether any user of `server` is joined to `room`.
    pub async fn check_server(&self, room: &str, server: &str, known: &[String]) -> Result<bool, Unknown> {
        self.recall_or_ask(room, server, known).await
    }

    /// Drops what is remembered of `user` and of the user's server, or of everybody, in `room`. Answers that are under way
    /// are asked for anew.
    pub fn forget(&self, room: &str, user: Option<&str>) {
        self.memory().forget(room, user.map(|user| [user, server_in(user)]));
    }

    /// The homeserver pushes events to us: it is heard of who leaves.
    pub fn transaction_arrived(&self) {
        self.memory().transaction_arrived(Instant::now());
    }

    async fn recall_or_ask(&self, room: &str, whom: &str, known: &[String]) -> Result<bool, Unknown> {
        // What is no room has no members, and some homeserver may take it for something else.
        if !room.starts_with('!') {
            return Ok(false);
        }
        let is_remote = server_in(whom) != self.server_name;
        let mut waits = LAG.iter().filter(|_| is_remote);
        loop {
            if self.memory().is_joined(room, whom, Instant::now()) {
                return Ok(true);
            }
            if self.ask_once(room, whom, known).await? {
                return Ok(true);
            }
            match waits.next() {
                Some(wait) => tokio::time::sleep(*wait).await,
                None => return Ok(false),
            }
        }
    }

    /// Asks, and asks once more when a leave was heard of before the answer came.
    async fn ask_once(&self, room: &str, whom: &str, known: &[String]) -> Result<bool, Unknown> {
        for _ in 0..2 {
            let question = Question::begin(self, room, whom);
            if !self.ask(room, whom, known).await? {
                return Ok(false);
            }
            if question.note_joined() {
                return Ok(true);
            }
        }
        // Somebody comes and goes in a loop. Who that is will be heard of again.
        Ok(false)
    }

    async fn ask(&self, room: &str, whom: &str, known: &[String]) -> Result<bool, Unknown> {
        if self.homeserver.is_appservice() && !self.memory().lacks_is_joined(Instant::now()) {
            let answer = match is_user(whom) {
                true => self.homeserver.is_joined_user(room, whom).await,
                false => self.homeserver.is_joined_server(room, whom).await,
            };
            match answer {
                Ok(joined) => return Ok(joined),
                Err(HomeserverError::Invalid) => return Ok(false),
                Err(HomeserverError::NotSupported | HomeserverError::Forbidden) => {
                    self.memory().miss_is_joined(Instant::now());
                    tracing::info!(
                        "the homeserver does not tell by MSC4502 who is joined to a room; asking for lists of members instead"
                    );
                }
                // A bot may know better.
                Err(HomeserverError::UnknownToken) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        self.look_into_list(room, whom, known).await
    }

    async fn look_into_list(&self, room: &str, whom: &str, known: &[String]) -> Result<bool, Unknown> {
        let mut failure = Unknown::NobodyInRoom;
        for lender in self.lenders(whom, known) {
            match self.homeserver.joined_members(room, lender).await {
                Ok(members) if is_user(whom) => return Ok(members.contains(whom)),
                Ok(members) => return Ok(members.iter().any(|member| server_in(member) == whom)),
                Err(HomeserverError::Invalid) => return Ok(false),
                // The list is refused to who is not in the room, but also to us for users whom we may not act as.
                Err(HomeserverError::Forbidden) if lender == Some(whom) => {
                    if self.homeserver.can_act_as(whom).await? {
                        return Ok(false);
                    }
                }
                Err(HomeserverError::Forbidden | HomeserverError::NotSupported) => {}
                Err(HomeserverError::UnknownToken) => failure = HomeserverError::UnknownToken.into(),
                Err(other) => return Err(other.into()),
            }
        }
        Err(failure)
    }

    /// Who may see the list, the likeliest first; `None`: ourselves.
    fn lenders<'a>(&self, whom: &'a str, known: &'a [String]) -> Vec<Option<&'a str>> {
        let mut lenders = Vec::new();
        if self.homeserver.is_appservice() {
            let users = std::iter::once(whom).chain(known.iter().map(String::as_str));
            for user in users.filter(|user| is_user(user) && server_of(user) == self.server_name) {
                if lenders.len() < MOST_LENDERS && !lenders.contains(&Some(user)) {
                    lenders.push(Some(user));
                }
            }
        }
        lenders.push(None);
        lenders
    }

    fn memory(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().expect("no panic while held")
    }
}

/// A question that is under way; while it is, what is forgotten makes its answer worthless.
struct Question<'a> {
    membership: &'a Membership,
    number: u64,
}

impl Question<'_> {
    fn begin<'a>(membership: &'a Membership, room: &str, whom: &str) -> Question<'a> {
        let number = membership.memory().begin(room, whom);
        Question { membership, number }
    }

    /// Remembers the answer "yes"; `false` when it came too late.
    fn note_joined(self) -> bool {
        self.membership.memory().note_joined(self.number, Instant::now())
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.membership.memory().end(self.number);
    }
}

/// Users are told from servers by their sigil.
fn is_user(whom: &str) -> bool {
    whom.starts_with('@')
}

/// That of a user, or the server itself.
fn server_in(whom: &str) -> &str {
    if is_user(whom) { server_of(whom) } else { whom }
}
