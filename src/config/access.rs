//! `[access]`: who may be in calls, and who may do what there.

use std::time::Duration;

use super::source::Source;
use super::{Secret, ServerPattern, parsed, server_name};

#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// Servers whose users may start calls and publish, and whose vanished users we take out of the room.
    pub local_servers: Vec<String>,
    /// Whether everybody else may publish too.
    pub remote_can_publish: bool,
    /// Servers besides the local ones whose users may publish.
    pub publish: Vec<ServerPattern>,
    /// Servers besides the local ones whose users may start calls.
    pub create: Vec<ServerPattern>,
    /// Whether only who is joined to the Matrix room gets into its call.
    pub require_membership: bool,
    /// Of a user that is invited to the rooms that have calls: how membership is checked without an application service.
    pub bot_access_token: Option<Secret>,
    /// After this time without its owner in the call, a membership that a client has left behind is ended; `None` = never.
    pub reap_stale_memberships: Option<Duration>,
}

impl Access {
    pub(super) fn read(s: &mut Source, server: Option<&str>, has_appservice: bool) -> Access {
        let pattern = "a server name, *.example.org or *";
        let bot_access_token = s.token("access.bot_access_token", "Take the access token of a logged-in user");
        let can_check =
            has_appservice || s.is_set("access.bot_access_token") || s.is_set("access.bot_access_token_file");
        let access = Access {
            local_servers: s
                .list("access.local_servers", server_name, "a Matrix server name such as example.org")
                .unwrap_or_else(|| server.into_iter().map(str::to_owned).collect()),
            remote_can_publish: s.value("access.remote_can_publish", parsed, "true or false").unwrap_or(false),
            publish: s.list("access.publish", ServerPattern::parse, pattern).unwrap_or_default(),
            create: s.list("access.create", ServerPattern::parse, pattern).unwrap_or_default(),
            require_membership: s.value("access.require_membership", parsed, "true or false").unwrap_or(can_check),
            bot_access_token,
            // Off: it writes events in the name of users.
            reap_stale_memberships: s
                .value("access.reap_stale_memberships", parsed::<u32>, "a whole number of minutes, 0 for never")
                .filter(|minutes| *minutes > 0)
                .map(|minutes| Duration::from_secs(u64::from(minutes) * 60)),
        };
        if access.require_membership && !can_check {
            s.refuse(
                "access.require_membership",
                "nobody could be let in, as nothing tells who is in a room: set appservice.enabled = true, or access.bot_access_token".into(),
            );
        }
        if access.reap_stale_memberships.is_some() && !has_appservice {
            s.refuse(
                "access.reap_stale_memberships",
                "needs appservice.enabled = true: only an application service may end memberships of users".into(),
            );
        }
        access
    }
}
