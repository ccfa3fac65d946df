//! The homeserver side: who a caller is, where other homeservers are, and what a room says about its call.
//!
//! `http::token` asks [`OpenId`] who holds an OpenID token. For a caller of our own server that is one request to the
//! configured homeserver. For everybody else [`ServerDiscovery`] finds the caller's homeserver, and [`GuardedClient`]
//! talks to it without ever connecting to an address that [`AddressGuard`] forbids.
//!
//! [`MatrixRooms`] has the rest: [`Admission`] decides who gets into a call, by [`Membership`] and [`RoomRules`], which ask the
//! [`Homeserver`]; [`RoomWatch`] ends what a room no longer allows; [`Calls`] knows who is where. [`DelayedLeaves`] has the
//! homeserver end the membership of members whose client has vanished from the call.

pub mod address_guard;
pub mod admission;
pub mod calls;
pub mod delayed_events;
pub mod delayed_leave;
pub mod delayed_leaves;
pub mod delegations;
pub mod guarded_client;
pub mod homeserver;
pub mod identity;
pub mod membership;
pub mod openid;
pub mod power_levels;
pub mod reaper;
pub mod registration;
pub mod revocations;
pub mod room_events;
pub mod room_rules;
pub mod room_watch;
pub mod rooms;
pub mod server_acl;
pub mod server_discovery;
pub mod setup;
pub mod transactions;

mod cache;
mod server_name;

pub use address_guard::AddressGuard;
pub use admission::{Admission, Asker, Denied, Ticket, Voucher};
pub use calls::Calls;
pub use delayed_leaves::DelayedLeaves;
pub use guarded_client::GuardedClient;
pub use homeserver::{Homeserver, HomeserverError};
pub use membership::{Membership, Unknown};
pub use openid::{OpenId, OpenIdError};
pub use power_levels::PowerLevels;
pub use reaper::Reaper;
pub use revocations::Revocations;
pub use room_events::RoomEvent;
pub use room_rules::RoomRules;
pub use room_watch::RoomWatch;
pub use rooms::MatrixRooms;
pub use server_discovery::ServerDiscovery;
pub use transactions::Transactions;
