//! Credentials by time (draft-uberti-behave-turn-rest): what a homeserver gives its clients, and a TURN server that shares its
//! secret checks without asking anybody.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Longer than a load test.
const VALIDITY_S: u64 = 6 * 3600;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `expiry:user`, the expiry in Unix seconds.
    pub username: String,
    pub password: String,
}

impl Credentials {
    pub fn new(secret: &str, user: &str, expires_unix_s: u64) -> Credentials {
        let username = format!("{expires_unix_s}:{user}");
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let password = STANDARD.encode(hmac::sign(&key, username.as_bytes()));
        Credentials { username, password }
    }

    /// Valid from now on.
    pub fn now(secret: &str, user: &str) -> Credentials {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Credentials::new(secret, user, now + VALIDITY_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_what_openssl_says() {
        // printf '1735693200:@alice:example.org' | openssl dgst -sha1 -hmac north -binary | base64
        let credentials = Credentials::new("north", "@alice:example.org", 1_735_693_200);
        assert_eq!(credentials.username, "1735693200:@alice:example.org");
        assert_eq!(credentials.password, "BC+mBWJGiO0G0pShmB3ehllJMTs=");
    }
}
