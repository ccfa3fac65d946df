//! TURN and STUN (RFC 8656, RFC 8489).

pub mod framing;
