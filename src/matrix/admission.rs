//! Who may be in the call of a room: everything that decides it, in one place.
//!
//! Asked twice. [`Admission::token`] is strict: without proof of membership there is no token. [`Admission::connect`] looks
//! again whenever a token is used, for the first time or after a break; by then somebody may have been thrown out. There a
//! homeserver that does not answer keeps nobody out who has a valid token: a call must outlive its restart.
//!
//! A token works for an hour. Who is in the call gets fresh ones (`livekit::access_token`), or nobody could come back into
//! a call that lasts longer; they keep the beginning of the first, so that one revocation voids them all, and they are only
//! good for a connection that passes here again. So a fresh token never gives more than the first would have given.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;

use super::calls::{Participant, server_of};
use super::identity::room_alias;
use super::{Calls, HomeserverError, Membership, Revocations, RoomRules, Unknown};
use crate::config::Config;
use crate::livekit::{Claims, RoomMember};
use crate::metrics::Metrics;
use crate::rate_limit::RateLimit;

/// How long an access token is good for joining, in seconds. A client in the call gets fresh ones all the time.
pub const TOKEN_VALIDITY_S: u64 = 3600;

/// For how long a connection waits for the homeserver before the token alone counts: clients give a WebSocket some five
/// seconds when they come back after a break.
const CONNECT_PATIENCE: Duration = Duration::from_secs(4);

pub struct Admission {
    config: Arc<Config>,
    membership: Arc<Membership>,
    rules: Arc<RoomRules>,
    calls: Arc<Calls>,
    revocations: Arc<Revocations>,
    user_tokens: RateLimit<String>,
    /// Of remote servers.
    server_tokens: RateLimit<String>,
    metrics: Arc<Metrics>,
}

/// Somebody who asks for a token, and whom somebody has vouched for.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The Matrix user id.
    pub user: &'a str,
    /// What the participant will be called in the SFU.
    pub identity: &'a str,
    pub voucher: Voucher,
}

/// Who says who the asker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voucher {
    /// An OpenID token.
    OpenId,
    /// Our own homeserver, which passed the request on (MSC4195).
    Homeserver,
}

/// What somebody gets who is let in.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticket {
    /// To be signed.
    pub claims: Claims,
    /// The SFU's name of the call.
    pub alias: String,
    /// Whether the SFU's room is to be created when it does not exist.
    pub may_create: bool,
}

/// Why somebody is kept out; the text is for the person and says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("You are not in this room. Join the room, then join the call again.")]
    NotJoined,
    #[error(
        "Your homeserver could not be asked whether you are in this room. Try again in a moment; if it stays like this, the operator of this server can look into its log."
    )]
    CannotCheck,
    #[error(
        "Nobody of this server is in the room, so it cannot tell whether you are. Join the call through a server whose users are in the room."
    )]
    CannotSeeRoom,
    #[error("Nobody of the other server is in this room, so its call server does not serve this call.")]
    ServerNotInRoom,
    #[error("Your homeserver may not take part in calls here. The operator of this server can allow it.")]
    ServerNotAllowed,
    #[error(
        "This room does not let your homeserver take part. Its moderators can change its server access control list."
    )]
    ServerDeniedByRoom,
    #[error("The call is closed in this room. A moderator of the room can open it.")]
    SlotClosed,
    #[error("This room was replaced by a new one. Join the call there.")]
    RoomReplaced,
    #[error("Your access to this call has ended. If you are in the room again, join the call anew.")]
    Revoked,
    #[error("You are in too many calls at once, or with too many devices. Leave one of them, then try again.")]
    TooManySessions,
    #[error("Too many users of your homeserver are in calls here. Try again later.")]
    TooManyOfServer,
    #[error("You have asked too often; wait a moment, then try again.")]
    TooOften(Duration),
    #[error("Users of your homeserver have asked too often; wait a moment, then try again.")]
    ServerTooOften(Duration),
}

impl Denied {
    /// The label in metrics and log.
    pub fn as_str(&self) -> &'static str {
        match self {
            Denied::NotJoined => "not-joined",
            Denied::CannotCheck => "cannot-check",
            Denied::CannotSeeRoom => "cannot-see-room",
            Denied::ServerNotInRoom => "server-not-in-room",
            Denied::ServerNotAllowed => "server-not-allowed",
            Denied::ServerDeniedByRoom => "server-denied-by-acl",
            Denied::SlotClosed => "slot-closed",
            Denied::RoomReplaced => "room-replaced",
            Denied::Revoked => "revoked",
            Denied::TooManySessions => "too-many-sessions",
            Denied::TooManyOfServer => "server-quota",
            Denied::TooOften(_) => "user-rate-limited",
            Denied::ServerTooOften(_) => "server-rate-limited",
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

impl Admission {
    pub fn new(
        config: Arc<Config>,
        membership: Arc<Membership>,
        rules: Arc<RoomRules>,
        calls: Arc<Calls>,
        revocations: Arc<Revocations>,
        metrics: Arc<Metrics>,
    ) -> Admission {
        Admission {
            user_tokens: RateLimit::per_minute(config.limits.tokens_per_minute_per_user),
            server_tokens: RateLimit::per_minute(config.limits.tokens_per_minute_per_server),
            config,
            membership,
            rules,
            calls,
            revocations,
            metrics,
        }
    }

    /// Whether the asker gets a token for the call in `slot_id` of `room_id`, and with which rights.
    pub async fn token(&self, asker: &Asker<'_>, room_id: &str, slot_id: &str) -> Result<Ticket, Denied> {
        let verdict = self.decide_token(asker, room_id, slot_id).await;
        self.count(verdict.as_ref().err());
        verdict
    }

    async fn decide_token(&self, asker: &Asker<'_>, room_id: &str, slot_id: &str) -> Result<Ticket, Denied> {
        let server = server_of(asker.user);
        self.server_allowed(server)?;
        if !self.config.is_local(server) {
            self.server_tokens.check(&server.to_owned()).map_err(Denied::ServerTooOften)?;
        }
        self.user_tokens.check(&asker.user.to_owned()).map_err(Denied::TooOften)?;
        let member = RoomMember { room: room_id.to_owned(), slot: slot_id.to_owned(), user: asker.user.to_owned() };
        let alias = room_alias(room_id, slot_id);
        let participant = Participant { alias: alias.clone(), identity: asker.identity.to_owned() };
        self.within_quota(&member, &participant)?;

        // Chosen and made known before we ask: if the user is thrown out meanwhile, the token is void already.
        let now = unix_seconds();
        let nbf = self.revocations.not_before(room_id, asker.user, now);
        self.calls.expect_maybe(&member, participant.clone(), now);
        proven(self.is_joined(&member).await)?;
        let rules = self.rules.of(room_id, slot_id, self.rules_reader(&member).as_deref()).await;
        rules.admits(server, &self.config.server_name)?;
        // Who is in the call already goes on with it.
        if rules.is_replaced && self.calls.of(room_id, asker.user).is_empty() {
            return Err(Denied::RoomReplaced);
        }
        if self.revocations.is_void(room_id, asker.user, nbf) {
            return Err(Denied::NotJoined);
        }

        let mut claims =
            Claims::for_room(asker.identity, &alias, self.config.may_publish(server), now, TOKEN_VALIDITY_S);
        claims.nbf = Some(nbf);
        self.calls.expect(&member, participant, now + TOKEN_VALIDITY_S, now);
        claims.matrix = Some(member);
        // A homeserver that passes the request on has seen to it that no stranger asks.
        let may_create = self.config.may_create(server) || asker.voucher == Voucher::Homeserver;
        Ok(Ticket { claims, alias, may_create })
    }

    /// Whether one of our users may ask `server`, through our homeserver, for the call it hosts in a room. That one takes our
    /// word for it, so this is checked whatever the configuration says of our own calls.
    pub async fn elsewhere(&self, user: &str, server: &str, room_id: &str) -> Result<(), Denied> {
        let verdict = self.decide_elsewhere(user, server, room_id).await;
        self.count(verdict.as_ref().err());
        verdict
    }

    async fn decide_elsewhere(&self, user: &str, server: &str, room_id: &str) -> Result<(), Denied> {
        self.user_tokens.check(&user.to_owned()).map_err(Denied::TooOften)?;
        let mut witnesses = self.calls.local_users_in(room_id);
        proven(self.membership.check(room_id, user, &witnesses).await)?;
        witnesses.insert(0, user.to_owned());
        proven(self.membership.check_server(room_id, server, &witnesses).await).map_err(|denied| match denied {
            Denied::NotJoined => Denied::ServerNotInRoom,
            other => other,
        })
    }

    /// Whether the holder of a token may use it now. A token without a Matrix member is the business of the app that
    /// minted it. To be followed by [`Admission::is_revoked`] once the participant is in: only the two together leave no gap
    /// in which somebody who is thrown out slips through.
    pub async fn connect(&self, claims: &Claims, is_resume: bool) -> Result<(), Denied> {
        let Some(member) = &claims.matrix else { return Ok(()) };
        let verdict = self.decide_connect(claims, member, is_resume).await;
        self.count(verdict.as_ref().err());
        verdict
    }

    async fn decide_connect(&self, claims: &Claims, member: &RoomMember, is_resume: bool) -> Result<(), Denied> {
        let server = server_of(&member.user);
        self.server_allowed(server)?;
        let alias = claims.video.as_ref().map(|grant| grant.room.clone()).unwrap_or_default();
        let participant = Participant { alias, identity: claims.identity().to_owned() };
        // First this, then the look at revocations: those who revoke do it the other way round.
        self.calls.expect(member, participant.clone(), claims.exp.unwrap_or(0), unix_seconds());
        if self.revocations.is_revoked(claims) {
            return Err(Denied::Revoked);
        }
        if !is_resume {
            self.within_quota(member, &participant)?;
        }
        let rules = match timeout(CONNECT_PATIENCE, self.is_joined(member)).await {
            Ok(Ok(true)) => {
                let reader = self.rules_reader(member);
                timeout(CONNECT_PATIENCE, self.rules.of(&member.room, &member.slot, reader.as_deref())).await
            }
            Ok(Ok(false)) => return Err(Denied::NotJoined),
            Ok(Err(_)) | Err(_) => {
                tracing::info!("the homeserver does not say who is in a room; a valid token is taken for enough");
                Ok(self.rules.remembered(&member.room, &member.slot))
            }
        };
        rules.map_or(Ok(()), |rules| rules.admits(server, &self.config.server_name))
    }

    /// Whether `user` is in the room, for sure, also where that is not required for calls.
    pub async fn member(&self, user: &str, room_id: &str) -> Result<(), Denied> {
        proven(self.membership.check(room_id, user, &self.calls.local_users_in(room_id)).await)
    }

    /// Whether the token was voided.
    pub fn is_revoked(&self, claims: &Claims) -> bool {
        self.revocations.is_revoked(claims)
    }

    /// To be called now and then.
    pub fn forget_idle(&self) {
        self.user_tokens.forget_idle();
        self.server_tokens.forget_idle();
    }

    /// Whether the call of a token's holder may be made anew: the token says that there was one.
    pub fn may_create_again(&self, claims: &Claims) -> bool {
        claims.matrix.as_ref().is_some_and(|member| self.config.may_create(server_of(&member.user)))
    }

    fn server_allowed(&self, server: &str) -> Result<(), Denied> {
        if self.config.is_allowed(server) { Ok(()) } else { Err(Denied::ServerNotAllowed) }
    }

    fn within_quota(&self, member: &RoomMember, participant: &Participant) -> Result<(), Denied> {
        let limits = &self.config.limits;
        let of_user = self.calls.sessions_of_user(&member.user, &member.room, participant);
        if of_user >= limits.sessions_per_user as usize {
            return Err(Denied::TooManySessions);
        }
        let server = server_of(&member.user);
        let of_server = || self.calls.sessions_of_server(server, &member.room, participant);
        if !self.config.is_local(server) && of_server() >= limits.sessions_per_server as usize {
            return Err(Denied::TooManyOfServer);
        }
        Ok(())
    }

    async fn is_joined(&self, member: &RoomMember) -> Result<bool, Unknown> {
        if !self.config.access.require_membership {
            return Ok(true);
        }
        let witnesses = self.calls.local_users_in(&member.room);
        let user = self.membership.check(&member.room, &member.user, &witnesses);
        let own = &self.config.server_name;
        if server_of(&member.user) == own {
            return user.await;
        }
        // Of a room that our server has left it only knows who was there then.
        let (joined, in_sight) = tokio::join!(user, self.membership.check_server(&member.room, own, &witnesses));
        match (joined, in_sight) {
            (Ok(false), _) => Ok(false),
            (joined, Ok(true)) => joined,
            (_, Ok(false)) => Err(Unknown::NobodyInRoom),
            (_, Err(unknown)) => Err(unknown),
        }
    }

    /// As whom to read the room's state.
    fn rules_reader(&self, member: &RoomMember) -> Option<String> {
        if server_of(&member.user) == self.config.server_name {
            return Some(member.user.clone());
        }
        self.calls.local_users_in(&member.room).into_iter().next()
    }

    fn count(&self, denied: Option<&Denied>) {
        self.metrics.admission.with_label_values(&[denied.map_or("let-in", Denied::as_str)]).inc();
    }
}

/// What is not known for sure is no.
fn proven(joined: Result<bool, Unknown>) -> Result<(), Denied> {
    match joined {
        Ok(true) => Ok(()),
        // A name that is none of a room is the name of nobody's.
        Ok(false) | Err(Unknown::Homeserver(HomeserverError::Invalid)) => Err(Denied::NotJoined),
        Err(Unknown::NobodyInRoom | Unknown::Homeserver(HomeserverError::Forbidden)) => Err(Denied::CannotSeeRoom),
        Err(why) => {
            tracing::warn!(%why, "cannot check who is in a room");
            Err(Denied::CannotCheck)
        }
    }
}

pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_names_every_reason() {
        let page = include_str!("../../docs/moderation.md");
        let wait = Duration::from_secs(1);
        for denied in [
            Denied::NotJoined,
            Denied::CannotCheck,
            Denied::CannotSeeRoom,
            Denied::ServerNotInRoom,
            Denied::ServerNotAllowed,
            Denied::ServerDeniedByRoom,
            Denied::SlotClosed,
            Denied::RoomReplaced,
            Denied::Revoked,
            Denied::TooManySessions,
            Denied::TooManyOfServer,
            Denied::TooOften(wait),
            Denied::ServerTooOften(wait),
        ] {
            assert!(page.contains(&format!("\n| `{}` | ", denied.as_str())), "{}", denied.as_str());
            let text = denied.to_string();
            assert!(text.ends_with('.') && text.contains(['.', ';']), "{text}");
        }
        assert!(page.contains(&format!("within {} s", CONNECT_PATIENCE.as_secs())));
    }
}
