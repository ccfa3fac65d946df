//! Session descriptions: what a peer connection offers and answers, read from and written to SDP text.
//!
//! str0m has an SDP layer of its own; it cannot leave a receive section inactive nor choose the msid of an answer,
//! both of which the LiveKit dialect needs. So the text is ours, and only what browsers negotiate is kept:
//! RFC 8866 (SDP), 8829 (JSEP), 8843 (BUNDLE), 8839 (ICE), 8122 (fingerprint), 8841 (SCTP), 8830 (msid), 5576 (ssrc),
//! 8851 and 8853 (rid, simulcast), 8285 (header extensions). Attributes outside these are ignored.
//!
//! `transport` reads offers and answers with [`SessionDescription::parse`] and writes them with `Display`.

mod limits;
mod media;
mod parse;
mod session;
mod write;

#[cfg(test)]
mod tests;

pub use limits::{MAX_BYTES, MAX_CANDIDATES, MAX_LINE_BYTES, MAX_SECTIONS};
pub use media::{
    CodecLine, Direction, ExtMap, MediaSection, Msid, RidDirection, RidLine, SectionKind, SsrcGroup, SsrcLine,
};
pub use parse::{Problem, SdpError};
pub use session::{Fingerprint, IceCredentials, SessionDescription, Setup};
