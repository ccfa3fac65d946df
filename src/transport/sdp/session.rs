//! The whole of a description, and what belongs to the connection rather than to a stream.

use super::media::MediaSection;

/// An offer or an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionDescription {
    /// The mids of the BUNDLE group (RFC 8843), in its order; empty without one.
    pub bundle: Vec<String>,
    pub ice_lite: bool,
    /// One-byte and two-byte header extensions may be mixed in one stream (RFC 8285 §6).
    pub extmap_allow_mixed: bool,
    /// The number in `o=` that stays the same for all descriptions of a connection.
    pub session_id: u64,
    /// The number in `o=` that grows with every description.
    pub session_version: u64,
    /// The m-lines. An answer has as many as its offer, in the same order.
    pub media: Vec<MediaSection>,
}

impl SessionDescription {
    /// The section with this mid.
    pub fn section(&self, mid: &str) -> Option<&MediaSection> {
        self.media.iter().find(|section| section.mid == mid)
    }
}

/// `a=ice-ufrag` and `a=ice-pwd` (RFC 8839 §5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    pub ufrag: String,
    pub pwd: String,
}

/// The password authenticates connectivity checks, so it stays out of debug output.
impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// `a=fingerprint` (RFC 8122): the digest of the certificate the peer will show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The hash in lower case, e.g. `sha-256`.
    pub algorithm: String,
    pub bytes: Vec<u8>,
}

/// `a=setup` (RFC 8842): who starts the DTLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// Either; only in an offer.
    Actpass,
    /// The describer starts.
    Active,
    /// The other side starts.
    Passive,
    /// Nobody, for now.
    Holdconn,
}

impl Setup {
    const ALL: [Setup; 4] = [Setup::Actpass, Setup::Active, Setup::Passive, Setup::Holdconn];

    pub fn as_str(self) -> &'static str {
        match self {
            Setup::Actpass => "actpass",
            Setup::Active => "active",
            Setup::Passive => "passive",
            Setup::Holdconn => "holdconn",
        }
    }

    pub(super) fn from_token(token: &str) -> Option<Setup> {
        Self::ALL.into_iter().find(|setup| setup.as_str() == token)
    }
}
