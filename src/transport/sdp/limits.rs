//! How much a description may hold. Each bound is far above what a browser sends and low enough that
//! reading the worst text costs milliseconds and a few megabytes.

/// Bytes of one description. A hundred sections of Chromium's longest kind come to about this much.
pub const MAX_BYTES: usize = 256 * 1024;

/// Bytes of one line. The longest that browsers write is the BUNDLE group, a few bytes a section.
pub const MAX_LINE_BYTES: usize = 8 * 1024;

/// m-lines. A LiveKit client has one per track: 500 are a meeting of 250.
pub const MAX_SECTIONS: usize = 500;

/// Candidates of one section; before the first answer browsers repeat every interface in every section.
pub const MAX_CANDIDATES: usize = 64;

/// SSRCs of one section: three simulcast layers with retransmission make six.
pub(super) const MAX_SSRCS: usize = 64;

/// Feedback kinds of one codec; browsers write five. Bounds what `a=rtcp-fb:*` multiplies.
pub(super) const MAX_FEEDBACK: usize = 16;

/// Bytes of an ICE ufrag or password (RFC 8839 §5.4). Bounds what a session-level line multiplies.
pub(super) const MAX_ICE_CREDENTIAL_BYTES: usize = 256;

/// Bytes of the longest digest (SHA-512).
pub(super) const MAX_DIGEST_BYTES: usize = 64;
