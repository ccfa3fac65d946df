//! What happened in a Matrix room, as far as a call has to know: events of the homeserver, read leniently. PURE.
//!
//! Everything in them was written by somebody else, often on another server: what does not make sense is passed over. Called
//! by `http::appservice`, which stores the relevant ones, and acted upon by [`RoomWatch`](super::RoomWatch).

use serde_json::Value;

use super::server_acl::ServerAcl;

/// Matrix's limit for every kind of identifier, in bytes.
const LONGEST_ID: usize = 255;

/// Names that the state event of a slot goes by: the one that clients write today, and the one of the newest text.
pub const SLOT_TYPES: [&str; 2] = ["org.matrix.msc4143.rtc.slot", "m.rtc.slot"];

/// The membership of a device in a call, as a state event.
pub const CALL_MEMBER_TYPE: &str = "org.matrix.msc3401.call.member";

/// Life of a call membership that does not say: what clients write.
const DEFAULT_EXPIRES_MS: u64 = 4 * 60 * 60 * 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomEvent {
    pub room_id: String,
    pub sender: String,
    /// `origin_server_ts`: unix milliseconds by the clock of the sender's server, which may be wrong or lie.
    pub sent_ms: u64,
    pub change: RoomChange,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomChange {
    Member {
        user: String,
        membership: MembershipState,
    },
    ServerAcl(ServerAcl),
    /// `false`: the tombstone was taken back.
    Tombstone(bool),
    Slot {
        id: String,
        open: bool,
    },
    CallMember(CallMember),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembershipState {
    Join,
    Leave,
    Ban,
    /// `invite`, `knock` and what is yet to come: not in the room, and not thrown out either.
    Other,
}

/// A state event `org.matrix.msc3401.call.member`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallMember {
    pub state_key: String,
    /// Whose it is: the sender.
    pub user: String,
    /// `None`: left.
    pub device: Option<CallDevice>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallDevice {
    /// What the device is called in the SFU when its token came from `/sfu/get`.
    pub identity: String,
    /// The service URL of the SFU it names first.
    pub focus: Option<String>,
    /// Everybody publishes on their own SFU; else all meet on that of the oldest membership.
    pub multi_sfu: bool,
    /// Unix milliseconds.
    pub expires_ms: u64,
}

impl RoomEvent {
    /// `None`: not for us, or malformed.
    pub fn parse(event: &Value) -> Option<RoomEvent> {
        let state_key = event["state_key"].as_str().filter(|key| key.len() <= LONGEST_ID)?;
        let content = event["content"].as_object().map(|_| &event["content"])?;
        let sender = user_id(&event["sender"])?;
        let sent_ms = event["origin_server_ts"].as_u64().unwrap_or(0);
        let change = match event["type"].as_str()? {
            "m.room.member" => RoomChange::Member {
                user: user_id(&event["state_key"])?.to_owned(),
                membership: match content["membership"].as_str()? {
                    "join" => MembershipState::Join,
                    "leave" => MembershipState::Leave,
                    "ban" => MembershipState::Ban,
                    _ => MembershipState::Other,
                },
            },
            "m.room.server_acl" if state_key.is_empty() => RoomChange::ServerAcl(ServerAcl::parse(content)),
            "m.room.tombstone" if state_key.is_empty() => RoomChange::Tombstone(is_replaced(content)),
            kind if SLOT_TYPES.contains(&kind) => {
                RoomChange::Slot { id: state_key.to_owned(), open: is_slot_open(content) }
            }
            CALL_MEMBER_TYPE => RoomChange::CallMember(CallMember::parse(state_key, sender, sent_ms, content)?),
            _ => return None,
        };
        let room_id = event["room_id"].as_str().filter(|id| id.starts_with('!') && id.len() <= LONGEST_ID)?;
        Some(RoomEvent { room_id: room_id.to_owned(), sender: sender.to_owned(), sent_ms, change })
    }
}

impl CallMember {
    /// `None` for the shape of before 2024, which does not tell devices apart.
    pub fn parse(state_key: &str, sender: &str, sent_ms: u64, content: &Value) -> Option<CallMember> {
        if content.get("memberships").is_some() {
            return None;
        }
        let device = content["device_id"].as_str().filter(|id| !id.is_empty() && id.len() <= LONGEST_ID);
        let device = device.map(|device_id| {
            let identity = content["membershipID"].as_str().filter(|id| !id.is_empty() && id.len() <= LONGEST_ID);
            let created_ms = content["created_ts"].as_u64().unwrap_or(sent_ms);
            CallDevice {
                identity: identity.map_or_else(|| format!("{sender}:{device_id}"), str::to_owned),
                focus: content["foci_preferred"][0]["livekit_service_url"].as_str().map(str::to_owned),
                // The newest clients know nothing else, and may leave it out.
                multi_sfu: content["focus_active"]["focus_selection"] != "oldest_membership",
                expires_ms: created_ms.saturating_add(content["expires"].as_u64().unwrap_or(DEFAULT_EXPIRES_MS)),
            }
        });
        Some(CallMember { state_key: state_key.to_owned(), user: sender.to_owned(), device })
    }
}

/// Whether the content of `m.room.tombstone` says so: redacted or overwritten it says nothing.
pub fn is_replaced(content: &Value) -> bool {
    content["replacement_room"].as_str().is_some_and(|room| !room.is_empty())
}

/// Whether the content of a slot says that it is open. Older texts of MSC4143 close it by emptying it.
pub fn is_slot_open(content: &Value) -> bool {
    match content["status"].as_str() {
        Some(status) => status != "closed",
        None => content.as_object().is_some_and(|fields| !fields.is_empty()),
    }
}

fn user_id(value: &Value) -> Option<&str> {
    value.as_str().filter(|id| ruma_identifiers_validation::user_id::validate(id).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn event(kind: &str, state_key: &str, content: Value) -> Value {
        json!({
            "type": kind, "state_key": state_key, "room_id": "!room:example.org", "sender": "@mod:example.org",
            "origin_server_ts": 1_800_000_000_000u64, "event_id": "$event", "content": content, "unsigned": {"age": 5},
        })
    }

    fn change(kind: &str, state_key: &str, content: Value) -> Option<RoomChange> {
        RoomEvent::parse(&event(kind, state_key, content)).map(|event| event.change)
    }

    #[test]
    fn members_come_and_go() {
        for (membership, expected) in [
            ("join", MembershipState::Join),
            ("leave", MembershipState::Leave),
            ("ban", MembershipState::Ban),
            ("invite", MembershipState::Other),
            ("knock", MembershipState::Other),
            ("org.future", MembershipState::Other),
        ] {
            let parsed = RoomEvent::parse(&event("m.room.member", "@a:b.org", json!({"membership": membership})));
            let parsed = parsed.unwrap();
            assert_eq!((parsed.room_id.as_str(), parsed.sender.as_str()), ("!room:example.org", "@mod:example.org"));
            assert_eq!(parsed.change, RoomChange::Member { user: "@a:b.org".into(), membership: expected });
        }
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        let good = event("m.room.member", "@a:b.org", json!({"membership": "leave"}));
        assert!(RoomEvent::parse(&good).is_some());
        for (pointer, value) in [
            ("type", json!("m.room.message")),
            ("type", json!(5)),
            ("state_key", Value::Null),
            ("state_key", json!("nobody")),
            ("state_key", json!(format!("@{}:b.org", "a".repeat(300)))),
            ("content", json!("leave")),
            ("content", json!({})),
            ("content", json!({"membership": 5})),
            ("sender", json!("nobody")),
            ("sender", Value::Null),
            ("room_id", json!("#alias:example.org")),
            ("room_id", json!(format!("!{}", "a".repeat(255)))),
            ("room_id", Value::Null),
        ] {
            let mut bad = good.clone();
            bad[pointer] = value;
            assert_eq!(RoomEvent::parse(&bad), None, "{bad}");
        }
        for other in [json!(null), json!([]), json!("text"), json!({})] {
            assert_eq!(RoomEvent::parse(&other), None);
        }
    }

    #[test]
    fn slots_are_open_until_they_say_otherwise() {
        for (content, open) in [
            (json!({"status": "open", "application": {"type": "m.call"}}), true),
            (json!({"status": "closed", "application": {"type": "m.call"}}), false),
            (json!({"application": {"type": "m.call"}}), true),
            (json!({"status": 5, "application": {"type": "m.call"}}), true),
            (json!({}), false),
        ] {
            for kind in SLOT_TYPES {
                let expected = RoomChange::Slot { id: "m.call#ROOM".into(), open };
                assert_eq!(change(kind, "m.call#ROOM", content.clone()), Some(expected), "{content}");
            }
        }
    }

    #[test]
    fn a_tombstone_counts_while_it_names_a_room() {
        let tombstone = |content| change("m.room.tombstone", "", content);
        assert_eq!(
            tombstone(json!({"body": "moved", "replacement_room": "!new:example.org"})),
            Some(RoomChange::Tombstone(true))
        );
        assert_eq!(tombstone(json!({})), Some(RoomChange::Tombstone(false)));
        assert_eq!(change("m.room.tombstone", "other", json!({"replacement_room": "!n:e.org"})), None);
        assert_eq!(change("m.room.server_acl", "other", json!({"allow": ["*"]})), None);
    }

    #[test]
    fn call_memberships_tell_device_focus_and_end() {
        let member = |content| match change(CALL_MEMBER_TYPE, "_@mod:example.org_DEV_m.call", content) {
            Some(RoomChange::CallMember(member)) => member,
            other => panic!("{other:?}"),
        };
        let content = json!({
            "application": "m.call", "call_id": "", "device_id": "DEV", "expires": 1000, "created_ts": 5000,
            "focus_active": {"type": "livekit", "focus_selection": "oldest_membership"},
            "foci_preferred": [{"type": "livekit", "livekit_service_url": "https://rtc.example.org"}, {}],
        });
        let parsed = member(content.clone());
        assert_eq!(
            (parsed.user.as_str(), parsed.state_key.as_str()),
            ("@mod:example.org", "_@mod:example.org_DEV_m.call")
        );
        let device = parsed.device.unwrap();
        assert_eq!(device.identity, "@mod:example.org:DEV");
        assert_eq!(device.focus.as_deref(), Some("https://rtc.example.org"));
        assert_eq!((device.multi_sfu, device.expires_ms), (false, 6000));

        let device = member(json!({"device_id": "DEV", "membershipID": "@mod:example.org:OTHER"})).device.unwrap();
        assert_eq!(device.identity, "@mod:example.org:OTHER");
        assert_eq!((device.multi_sfu, device.focus), (true, None));
        assert_eq!(device.expires_ms, 1_800_000_000_000 + DEFAULT_EXPIRES_MS);

        assert_eq!(member(json!({})).device, None);
        assert_eq!(member(json!({"leave_reason": "LOST"})).device, None);
        assert_eq!(change(CALL_MEMBER_TYPE, "@mod:example.org", json!({"memberships": []})), None);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            prop::sample::select(vec!["@a:b.org", "!r:b.org", "join", "leave", "closed", ""]).prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let keys = vec![
                "membership",
                "device_id",
                "membershipID",
                "foci_preferred",
                "livekit_service_url",
                "focus_active",
                "focus_selection",
                "created_ts",
                "expires",
                "allow",
                "deny",
                "status",
                "replacement_room",
                "memberships",
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(prop::sample::select(keys), inner, 0..4)
                    .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_event_panics(
            kind in prop::sample::select(vec![
                "m.room.member", "m.room.server_acl", "m.room.tombstone", SLOT_TYPES[0], CALL_MEMBER_TYPE, "other",
            ]),
            (state_key, sender, room, sent) in (any_json(), any_json(), any_json(), any_json()),
            content in any_json(),
        ) {
            let mut odd = event(kind, "", content);
            RoomEvent::parse(&odd);
            (odd["state_key"], odd["sender"], odd["room_id"], odd["origin_server_ts"]) = (state_key, sender, room, sent);
            RoomEvent::parse(&odd);
        }
    }
}
