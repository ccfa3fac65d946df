//! Who asks: the long-term credential mechanism (RFC 8489 §9.2.4), with names that a shared secret vouches for.

use stun_types::message::{IntegrityAlgorithm, IntegrityKey};

use super::answer::Refusal;
use super::credentials::Name;
use super::request::Request;
use super::{Now, Route, Turn};

/// A name that a request has proved to bear.
pub(super) struct Account<'a> {
    pub name: Name<'a>,
    /// Of the request and of the answer.
    pub key: IntegrityKey,
}

impl Turn {
    /// Looks at the nonce first: it costs one hash, and whoever has none of ours may have forged the address.
    /// When a name ends is for Allocate to look at: who has an allocation may keep it.
    pub(super) fn authenticate<'a>(
        &self,
        now: Now,
        route: Route,
        request: &'a Request<'a>,
    ) -> Result<Account<'a>, Refusal> {
        let claim = request.claim();
        if !claim.is_signed {
            return Err(Refusal::Unauthenticated);
        }
        let (Some(username), true, Some(nonce)) = (claim.username, claim.has_realm, claim.nonce) else {
            return Err(Refusal::BadRequest);
        };
        if !self.nonces.accepts(nonce, now.unix_ms, route.destination) {
            return Err(Refusal::StaleNonce);
        }
        let name = Name::parse(username).ok_or(Refusal::Unauthenticated)?;
        let proves = |key: &IntegrityKey| {
            request.message().validate_integrity_with_key(key).is_ok_and(|by| by == IntegrityAlgorithm::Sha1)
        };
        let key = self.settings.credentials.keys(username, &self.settings.realm).find(proves);
        key.map(|key| Account { name, key }).ok_or(Refusal::Unauthenticated)
    }
}
