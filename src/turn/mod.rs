//! The TURN server (RFC 8656), without its sockets. PURE.

pub mod credentials;
pub mod framing;
pub mod peer_policy;
pub mod quotas;
pub mod rate;
pub mod reply_limit;
