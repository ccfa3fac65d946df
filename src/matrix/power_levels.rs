//! Who may send whom out of a Matrix room: `m.room.power_levels` (Client-Server API). PURE.
//!
//! Whoever may kick somebody from the room may also moderate that person's part in its call; asked by `http::moderate`.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

/// Where nothing is said (Client-Server API, `m.room.power_levels`).
const KICK: i64 = 50;

/// Of whoever has made a room that has no power levels yet.
const CREATOR: i64 = 100;

/// From this room version on, creators stand above all levels (MSC4289).
const PRIVILEGED_CREATORS: u32 = 12;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerLevels {
    users: HashMap<String, i64>,
    users_default: i64,
    kick: i64,
    /// Above every level.
    creators: HashSet<String>,
}

/// Ordered; nothing is above a creator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Of(i64),
    Creator,
}

impl PowerLevels {
    /// From the room's state: whole events, among them `m.room.create` and, when there is one, `m.room.power_levels`. `None`
    /// when the first is missing: nothing can then be said.
    pub fn parse(state: &[Value]) -> Option<PowerLevels> {
        let find = |kind: &str| state.iter().find(|event| event["type"] == kind && event["state_key"] == "");
        let create = find("m.room.create")?;
        let maker = create["sender"].as_str()?;
        let version = create["content"]["room_version"].as_str().unwrap_or("1");
        let is_privileged = version.parse::<u32>().is_ok_and(|version| version >= PRIVILEGED_CREATORS)
            || version.starts_with("org.matrix.hydra");
        let mut creators = HashSet::new();
        if is_privileged {
            let others = create["content"]["additional_creators"].as_array().into_iter().flatten();
            creators.extend(others.filter_map(Value::as_str).chain([maker]).map(str::to_owned));
        }
        let Some(levels) = find("m.room.power_levels").map(|event| &event["content"]) else {
            let users = HashMap::from([(maker.to_owned(), CREATOR)]);
            return Some(PowerLevels { users, users_default: 0, kick: KICK, creators });
        };
        let users = levels["users"].as_object().into_iter().flatten();
        Some(PowerLevels {
            users: users.filter_map(|(user, level)| Some((user.clone(), number(level)?))).collect(),
            users_default: number(&levels["users_default"]).unwrap_or(0),
            kick: number(&levels["kick"]).unwrap_or(KICK),
            creators,
        })
    }

    /// Whether `user` may kick `target`: it takes the level for that, and one above the target's.
    pub fn may_kick(&self, user: &str, target: &str) -> bool {
        let level = self.level(user);
        level >= Level::Of(self.kick) && level > self.level(target)
    }

    fn level(&self, user: &str) -> Level {
        match self.creators.contains(user) {
            true => Level::Creator,
            false => Level::Of(self.users.get(user).copied().unwrap_or(self.users_default)),
        }
    }
}

/// Rooms before version 10 may have numbers in texts, and fractions.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|level| level as i64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn create(version: &str, more: Value) -> Value {
        let mut content = more;
        content["room_version"] = json!(version);
        json!({"type": "m.room.create", "state_key": "", "sender": "@maker:e.org", "content": content})
    }

    fn levels(content: Value) -> Value {
        json!({"type": "m.room.power_levels", "state_key": "", "sender": "@maker:e.org", "content": content})
    }

    #[test]
    fn whoever_may_kick_may_kick_those_below() {
        let users =
            json!({"users": {"@admin:e.org": 100, "@mod:e.org": 50, "@other:e.org": "50", "@half:e.org": 49.9}});
        let state = [create("10", json!({})), levels(users)];
        let power = PowerLevels::parse(&state).unwrap();
        for (user, target, may) in [
            ("@admin:e.org", "@mod:e.org", true),
            ("@admin:e.org", "@admin:e.org", false),
            ("@mod:e.org", "@other:e.org", false),
            ("@mod:e.org", "@half:e.org", true),
            ("@mod:e.org", "@anybody:e.org", true),
            ("@half:e.org", "@anybody:e.org", false),
            ("@anybody:e.org", "@mod:e.org", false),
            ("@maker:e.org", "@anybody:e.org", false),
        ] {
            assert_eq!(power.may_kick(user, target), may, "{user} {target}");
        }
    }

    #[test]
    fn levels_of_a_room_may_be_its_own() {
        let content = json!({"users_default": 10, "kick": 10, "users": {"@quiet:e.org": 0}});
        let power = PowerLevels::parse(&[levels(content), create("10", json!({}))]).unwrap();
        assert!(power.may_kick("@anybody:e.org", "@quiet:e.org") && !power.may_kick("@quiet:e.org", "@anybody:e.org"));
    }

    #[test]
    fn without_levels_the_maker_has_them() {
        let power = PowerLevels::parse(&[create("10", json!({}))]).unwrap();
        assert!(power.may_kick("@maker:e.org", "@a:e.org") && !power.may_kick("@a:e.org", "@b:e.org"));
        assert_eq!(PowerLevels::parse(&[levels(json!({}))]), None);
        assert_eq!(PowerLevels::parse(&[]), None);
    }

    #[test]
    fn creators_of_newer_rooms_stand_above_all() {
        let more = json!({"additional_creators": ["@second:e.org", 5]});
        let users = json!({"users": {"@admin:e.org": i64::MAX}});
        for (version, above) in [("11", false), ("12", true), ("13", true), ("org.matrix.hydra.11", true)] {
            let power = PowerLevels::parse(&[create(version, more.clone()), levels(users.clone())]).unwrap();
            for creator in ["@maker:e.org", "@second:e.org"] {
                assert_eq!(power.may_kick(creator, "@admin:e.org"), above, "{version}");
                assert_eq!(power.may_kick("@admin:e.org", creator), !above, "{version}");
            }
            assert!(!power.may_kick("@maker:e.org", "@second:e.org"));
        }
    }
}
