//! The names under which Matrix rooms and members appear in the SFU (MSC4195). PURE.
//!
//! Clients compute them too: they match participants with members of the room by identity, so a byte off means a call in
//! which everybody waits for media for ever.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};

/// The slot of the one call a room has; the only one clients use. Clients that name no slot (`/sfu/get`) mean this one.
pub const CALL_SLOT: &str = "m.call#ROOM";

/// Identities of more bytes than this are refused at the SFU's door.
pub const LONGEST_IDENTITY: usize = 256;

/// The SFU's name of the call in `slot_id` of a Matrix room.
pub fn room_alias(room_id: &str, slot_id: &str) -> String {
    hashed(&[room_id, slot_id])
}

/// Identity of a caller of `/sfu/get`: user and device, readable. `None` when it would be too long, or when the device ID
/// is made up such that another user's identity comes out: `@a:hs` with the device `8448:X` would be `@a:hs:8448` with `X`.
pub fn device_identity(user_id: &str, device_id: &str) -> Option<String> {
    let identity = format!("{user_id}:{device_id}");
    let ambiguous = device_id.match_indices(':').any(|(at, _)| {
        ruma_identifiers_validation::user_id::validate(&format!("{user_id}:{}", &device_id[..at])).is_ok()
    });
    (!ambiguous && identity.len() <= LONGEST_IDENTITY).then_some(identity)
}

/// Identity of a caller of `/get_token`.
pub fn device_member_identity(user_id: &str, device_id: &str, member_id: &str) -> String {
    hashed(&[user_id, device_id, member_id])
}

/// Identity of a caller whose homeserver vouches for it (MSC4195's own endpoints).
pub fn member_identity(user_id: &str, member_id: &str) -> String {
    hashed(&[user_id, member_id])
}

/// Unpadded standard base64 of the SHA-256 of a canonical JSON array.
fn hashed(parts: &[&str]) -> String {
    // serde_json escapes what canonical JSON escapes, the same way, and nothing else.
    let json = serde_json::to_string(parts).expect("texts are JSON");
    STANDARD_NO_PAD.encode(Sha256::digest(json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors() {
        for (parts, expected) in [
            (&["!room:example.org", "m.call#ROOM"][..], "TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E"),
            (&["!roomid:example.com", "slot1234"], "O8437W3+jmzMVjoIP3tNwbm+XxHQk2iKpOA7aqw3qSc"),
            (&["!roomid:example.com", "slot123", "random123"], "IMeDd+K3MIqJTI20EXBIrepKkhhORvf3q8fx3rlrhTk"),
            (&["@alice:example.com", "DEVICE123", "memberABC"], "J+T45tGruxc+HrUOqJJlyQSV33m728Cme4+vt8/SWrU"),
            (&["@alice:example.com", "memberABC"], "M3VnsLXrkbxIDINXO64u8PZzFyD9ZYFiQULR2dshWYs"),
        ] {
            assert_eq!(hashed(parts), expected, "{parts:?}");
        }
        assert_eq!(room_alias("!room:example.org", CALL_SLOT), "TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E");
        assert_eq!(
            device_member_identity("@alice:example.com", "DEVICE123", "memberABC"),
            "J+T45tGruxc+HrUOqJJlyQSV33m728Cme4+vt8/SWrU"
        );
        assert_eq!(member_identity("@alice:example.com", "memberABC"), "M3VnsLXrkbxIDINXO64u8PZzFyD9ZYFiQULR2dshWYs");
    }

    #[test]
    fn json_is_escaped_as_canonical_json_is() {
        // Neither HTML characters nor anything beyond ASCII; control characters in short form where there is one.
        assert_eq!(hashed(&["<&>\u{2028}é\u{7f}", "\"\\\n\u{1}"]), {
            let canonical = "[\"<&>\u{2028}é\u{7f}\",\"\\\"\\\\\\n\\u0001\"]";
            STANDARD_NO_PAD.encode(Sha256::digest(canonical))
        });
    }

    #[test]
    fn a_device_cannot_pose_as_another_user() {
        assert_eq!(device_identity("@a:hs", "DEV").unwrap(), "@a:hs:DEV");
        assert_eq!(device_identity("@a:hs", "odd:device").unwrap(), "@a:hs:odd:device");
        assert_eq!(device_identity("@a:hs", "8448:DEV"), None);
        assert_eq!(device_identity("@a:hs:8448", "1:DEV").unwrap(), "@a:hs:8448:1:DEV");
        assert_eq!(device_identity("@a:hs", &"D".repeat(LONGEST_IDENTITY)), None);
    }
}
