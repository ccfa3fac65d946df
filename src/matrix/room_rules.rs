//! What the state of a Matrix room says about its calls: which servers may take part, which slots are closed, whether the
//! room was replaced.
//!
//! Read from the homeserver when somebody comes, kept for a while, and kept up to date by the events that
//! [`RoomWatch`](super::RoomWatch) sees. State that cannot be read forbids nothing: whether somebody is in the room, which
//! is what protects it, is [`Membership`](super::Membership)'s to say.

use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::admission::Denied;
use super::cache::Cache;
use super::calls::server_of;
use super::homeserver::{Homeserver, HomeserverError};
use super::room_events::{RoomChange, RoomEvent, SLOT_TYPES, is_replaced, is_slot_open};
use super::server_acl::ServerAcl;

/// Such state changes a few times in the life of a room.
const READ_LIFETIME: Duration = Duration::from_secs(120);

/// What the homeserver has told by itself is only wrong when it changes its mind without telling, as after a conflict.
const TOLD_LIFETIME: Duration = Duration::from_secs(3600);

/// After a failure; the homeserver may be about to come back.
const UNREADABLE_LIFETIME: Duration = Duration::from_secs(15);

/// Rooms, and slots.
const MOST_KEPT: usize = 4096;

pub struct RoomRules {
    homeserver: Arc<Homeserver>,
    /// The server whose users we can act as.
    server_name: String,
    acls: Mutex<Cache<String, Option<Arc<ServerAcl>>>>,
    replaced: Mutex<Cache<String, bool>>,
    /// By room and slot: whether it is open.
    slots: Mutex<Cache<(String, String), bool>>,
}

/// What applies to one slot of a room.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `None`: every server may take part.
    pub acl: Option<Arc<ServerAcl>>,
    pub slot_is_open: bool,
    pub is_replaced: bool,
}

impl Rules {
    /// Whether a user of `server` may be in the call. Our own server is not asked about: it judges its users itself.
    pub fn admits(&self, server: &str, own_server: &str) -> Result<(), Denied> {
        if server != own_server && self.acl.as_ref().is_some_and(|acl| !acl.allows(server)) {
            return Err(Denied::ServerDeniedByRoom);
        }
        if self.slot_is_open { Ok(()) } else { Err(Denied::SlotClosed) }
    }
}

impl RoomRules {
    pub fn new(homeserver: Arc<Homeserver>, server_name: &str) -> RoomRules {
        RoomRules {
            homeserver,
            server_name: server_name.to_owned(),
            acls: Mutex::new(Cache::new(MOST_KEPT)),
            replaced: Mutex::new(Cache::new(MOST_KEPT)),
            slots: Mutex::new(Cache::new(MOST_KEPT)),
        }
    }

    /// `reader`: a local user who is in the room, as whom to read its state; `None`: none is known. A user who was never in
    /// it reads nothing, and one who has left it reads what was: neither may ask here.
    pub async fn of(&self, room_id: &str, slot_id: &str, reader: Option<&str>) -> Rules {
        if self.knows(room_id, slot_id) {
            return self.remembered(room_id, slot_id);
        }
        let found = if reader.is_none() { self.somebody_of_ours(room_id).await } else { None };
        let reader = reader.or(found.as_deref());
        let read = |kind, key| self.homeserver.state_event(room_id, kind, key, reader);
        let acl = known(&self.acls, room_id.to_owned(), None, async {
            Ok(read("m.room.server_acl", "").await?.map(|content| Arc::new(ServerAcl::parse(&content))))
        });
        let replaced = known(&self.replaced, room_id.to_owned(), false, async {
            Ok(read("m.room.tombstone", "").await?.is_some_and(|content| is_replaced(&content)))
        });
        let slot = known(&self.slots, (room_id.to_owned(), slot_id.to_owned()), true, async {
            let [first, second] = SLOT_TYPES;
            let (first, second) = tokio::join!(read(first, slot_id), read(second, slot_id));
            Ok([first?, second?].iter().flatten().all(is_slot_open))
        });
        let (acl, is_replaced, slot_is_open) = tokio::join!(acl, replaced, slot);
        Rules { acl, slot_is_open, is_replaced }
    }

    /// Synapse tells an application service who is in a room that any user of its server is in.
    async fn somebody_of_ours(&self, room_id: &str) -> Option<String> {
        if !self.homeserver.is_appservice() {
            return None;
        }
        let members = self.homeserver.joined_members(room_id, None).await.ok()?;
        members.into_iter().find(|member| server_of(member) == self.server_name)
    }

    fn knows(&self, room_id: &str, slot_id: &str) -> bool {
        let (room, slot) = (room_id.to_owned(), (room_id.to_owned(), slot_id.to_owned()));
        get(&self.acls, &room).is_some() && get(&self.replaced, &room).is_some() && get(&self.slots, &slot).is_some()
    }

    /// The same without asking anybody.
    pub fn remembered(&self, room_id: &str, slot_id: &str) -> Rules {
        let slot = (room_id.to_owned(), slot_id.to_owned());
        Rules {
            acl: get(&self.acls, &room_id.to_owned()).flatten(),
            slot_is_open: get(&self.slots, &slot).unwrap_or(true),
            is_replaced: get(&self.replaced, &room_id.to_owned()).unwrap_or(false),
        }
    }

    /// The homeserver told of a change.
    pub fn note(&self, event: &RoomEvent) {
        let room = event.room_id.clone();
        match &event.change {
            RoomChange::ServerAcl(acl) => insert(&self.acls, room, Some(Arc::new(acl.clone())), TOLD_LIFETIME),
            RoomChange::Tombstone(replaced) => insert(&self.replaced, room, *replaced, TOLD_LIFETIME),
            RoomChange::Slot { id, open } => insert(&self.slots, (room, id.clone()), *open, TOLD_LIFETIME),
            RoomChange::Member { .. } | RoomChange::CallMember(_) => {}
        }
    }
}

fn get<K: Eq + Hash + Clone, V: Clone>(cache: &Mutex<Cache<K, V>>, key: &K) -> Option<V> {
    cache.lock().expect("no panic while held").get(key, Instant::now())
}

fn insert<K: Eq + Hash + Clone, V: Clone>(cache: &Mutex<Cache<K, V>>, key: K, value: V, lifetime: Duration) {
    cache.lock().expect("no panic while held").insert(key, value, Instant::now(), lifetime);
}

/// What is known, else what can be read, else `unknown`.
async fn known<K: Eq + Hash + Clone, V: Clone>(
    cache: &Mutex<Cache<K, V>>,
    key: K,
    unknown: V,
    reading: impl Future<Output = Result<V, HomeserverError>>,
) -> V {
    if let Some(known) = get(cache, &key) {
        return known;
    }
    let (value, lifetime) = match reading.await {
        Ok(value) => (value, READ_LIFETIME),
        // The next one to come may have a better reader.
        Err(HomeserverError::Forbidden | HomeserverError::Invalid) => return get(cache, &key).unwrap_or(unknown),
        Err(_) => (unknown, UNREADABLE_LIFETIME),
    };
    // We may have been told meanwhile, of something newer.
    get(cache, &key).unwrap_or_else(|| {
        insert(cache, key, value.clone(), lifetime);
        value
    })
}
