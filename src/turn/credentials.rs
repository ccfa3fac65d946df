//! User names and passwords that a shared secret vouches for, the "TURN REST API" of
//! draft-uberti-behave-turn-rest-00: nothing is stored for a user.
//!
//! user name = `expiry:user`, expiry in Unix seconds, user any text, such as `@alice:example.org`
//! password = base64(HMAC-SHA1(secret, user name))
//!
//! Homeservers make them with their `turn_shared_secret`; we make them for participants and for `/turn`. The core asks
//! for the keys of a user name (RFC 8489 §9.2.2) and looks at its expiry at Allocate.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use stun_types::message::{IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials};
use zeroize::Zeroizing;

/// The secrets that vouch for user names. Never shown.
pub struct Credentials {
    secrets: Vec<Zeroizing<Vec<u8>>>,
}

/// What a user name says; believed only when the request's integrity is proved with one of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// Allocate is refused from this second on.
    pub expires_unix_s: u64,
    /// Whose quota it is. May contain `:` and `@`.
    pub user: &'a str,
}

impl<'a> Name<'a> {
    /// `None` when it is not `expiry:user`.
    pub fn parse(username: &'a str) -> Option<Name<'a>> {
        let (expiry, user) = username.split_once(':')?;
        // `parse` alone would take a sign.
        let digits = expiry.bytes().all(|b| b.is_ascii_digit());
        let expires_unix_s = expiry.parse().ok().filter(|_| digits)?;
        (!user.is_empty()).then_some(Name { expires_unix_s, user })
    }

    pub fn is_expired(&self, unix_ms: u64) -> bool {
        unix_ms / 1000 >= self.expires_unix_s
    }
}

impl Credentials {
    /// The first secret is the one we issue with; all of them are accepted: the homeserver's, and during a rotation the
    /// one before.
    ///
    /// # Panics
    /// Without any secret, as there would be nothing to issue with.
    pub fn new(secrets: Vec<Vec<u8>>) -> Credentials {
        assert!(!secrets.is_empty(), "credentials need a secret");
        Credentials { secrets: secrets.into_iter().map(Zeroizing::new).collect() }
    }

    /// A user name and its password, good for Allocate until `expires_unix_s`.
    pub fn issue(&self, user: &str, expires_unix_s: u64) -> (String, String) {
        let username = format!("{expires_unix_s}:{user}");
        let password = password(&self.secrets[0], &username);
        (username, password)
    }

    /// The long-term keys that `username` may sign with, one for each secret.
    pub fn keys<'a>(&'a self, username: &'a str, realm: &'a str) -> impl Iterator<Item = IntegrityKey> + 'a {
        self.secrets.iter().map(move |secret| {
            let password = password(secret, username);
            LongTermKeyCredentials::new(username.to_owned(), password, realm.to_owned())
                .make_key(IntegrityAlgorithm::Sha1)
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} secrets)", self.secrets.len())
    }
}

fn password(secret: &[u8], username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    BASE64_STANDARD.encode(hmac::sign(&key, username.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stun_types::message::{BINDING, Message, MessageWriteVec};
    use stun_types::prelude::*;

    use super::*;

    const NAME: &str = "1735693200:@alice:example.org";

    fn credentials(secrets: &[&str]) -> Credentials {
        Credentials::new(secrets.iter().map(|secret| secret.as_bytes().to_vec()).collect())
    }

    /// The vector is `printf NAME | openssl dgst -sha1 -hmac north -binary | base64`.
    #[test]
    fn passwords_are_those_of_a_homeserver() {
        let issued = credentials(&["north", "south"]).issue("@alice:example.org", 1_735_693_200);
        assert_eq!(issued, (NAME.to_owned(), "BC+mBWJGiO0G0pShmB3ehllJMTs=".to_owned()));
    }

    #[test]
    fn any_of_the_secrets_may_have_signed() {
        let ours = credentials(&["ours", "homeserver's", "previous"]);
        for (secret, accepted) in [("ours", true), ("homeserver's", true), ("previous", true), ("stolen", false)] {
            let (username, password) = credentials(&[secret]).issue("@alice:example.org", 1_735_693_200);
            let key = LongTermKeyCredentials::new(username.clone(), password, "example.org".into())
                .make_key(IntegrityAlgorithm::Sha1);
            let mut request = Message::builder_request(BINDING, MessageWriteVec::new());
            request.add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1).unwrap();
            let request = request.finish();
            let request = Message::from_bytes(&request).unwrap();
            let verified =
                |realm| ours.keys(&username, realm).any(|key| request.validate_integrity_with_key(&key).is_ok());
            assert_eq!(verified("example.org"), accepted, "{secret}");
            assert!(!verified("example.com"));
        }
    }

    #[test]
    fn names_without_expiry_or_user_are_none() {
        let name = Name::parse(NAME).unwrap();
        assert_eq!(name, Name { expires_unix_s: 1_735_693_200, user: "@alice:example.org" });
        assert!(!name.is_expired(1_735_693_199_999) && name.is_expired(1_735_693_200_000));
        for bad in [
            "",
            ":",
            "1735693200",
            "1735693200:",
            ":alice",
            "+1:alice",
            "-1:alice",
            "1 :alice",
            "alice:1",
            "99999999999999999999:a",
        ] {
            assert_eq!(Name::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", credentials(&["north", "south"])), "Credentials(2 secrets)");
    }

    proptest! {
        #[test]
        fn any_user_comes_back(user in ".{1,60}", expires: u64) {
            let (username, _) = credentials(&["north"]).issue(&user, expires);
            prop_assert_eq!(Name::parse(&username), Some(Name { expires_unix_s: expires, user: &user }));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Name::parse(&text);
        }
    }
}
