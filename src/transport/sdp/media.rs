//! One m-line with its attributes.

use super::session::{Fingerprint, IceCredentials, Setup};

/// One m-line. Its place in [`SessionDescription::media`](super::SessionDescription::media) is its m-line index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaSection {
    pub kind: SectionKind,
    /// 0 = rejected or stopped. A `bundle-only` section inside the BUNDLE group reads as
    /// [`DISCARD_PORT`](MediaSection::DISCARD_PORT), though its m-line says 0 (RFC 8843 §6).
    pub port: u16,
    /// Unique in the description; empty only in a rejected section.
    pub mid: String,
    pub direction: Direction,
    /// In an answer that bundles, the first section of the group may be the only one with these three.
    pub ice: Option<IceCredentials>,
    /// The SHA-256 one where a peer lists several.
    pub fingerprint: Option<Fingerprint>,
    pub setup: Option<Setup>,
    pub rtcp_mux: bool,
    /// Reduced-size RTCP (RFC 5506).
    pub rtcp_rsize: bool,
    /// In order of preference; retransmission and redundancy count as codecs.
    pub codecs: Vec<CodecLine>,
    pub extensions: Vec<ExtMap>,
    pub msid: Option<Msid>,
    /// Only sources with a cname or msid: RFC 5576 demands the cname.
    pub ssrcs: Vec<SsrcLine>,
    pub ssrc_groups: Vec<SsrcGroup>,
    pub rids: Vec<RidLine>,
    /// The rids of `a=simulcast:send`, of each stream the first alternative, without the mark of a paused one.
    pub simulcast_send: Vec<String>,
    /// The rids of `a=simulcast:recv`, likewise.
    pub simulcast_recv: Vec<String>,
    /// `candidate:…` without the `a=`, as it also travels in trickled messages.
    pub candidates: Vec<String>,
    pub end_of_candidates: bool,
    /// Where SCTP runs inside DTLS; peers assume 5000 when absent (RFC 8841 §5).
    pub sctp_port: Option<u16>,
    /// Bytes of the largest data channel message the describer takes; 0 = any.
    pub max_message_size: Option<u64>,
}

impl MediaSection {
    /// The port of a section whose address ICE will find (RFC 8840 §4.1.1).
    pub const DISCARD_PORT: u16 = 9;

    /// An open section with nothing negotiated in it.
    pub fn new(kind: SectionKind, mid: impl Into<String>) -> MediaSection {
        MediaSection {
            kind,
            port: Self::DISCARD_PORT,
            mid: mid.into(),
            direction: Direction::SendRecv,
            ice: None,
            fingerprint: None,
            setup: None,
            rtcp_mux: false,
            rtcp_rsize: false,
            codecs: Vec::new(),
            extensions: Vec::new(),
            msid: None,
            ssrcs: Vec::new(),
            ssrc_groups: Vec::new(),
            rids: Vec::new(),
            simulcast_send: Vec::new(),
            simulcast_recv: Vec::new(),
            candidates: Vec::new(),
            end_of_candidates: false,
            sctp_port: None,
            max_message_size: None,
        }
    }

    pub fn is_rejected(&self) -> bool {
        self.port == 0
    }

    pub fn codec(&self, pt: u8) -> Option<&CodecLine> {
        self.codecs.iter().find(|codec| codec.pt == pt)
    }

    /// The number by which packets carry the extension with this URI.
    pub fn extension(&self, uri: &str) -> Option<u8> {
        self.extensions.iter().find(|extension| extension.uri == uri).map(|extension| extension.id)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SectionKind {
    Audio,
    Video,
    /// Data channels: SCTP over DTLS.
    Application,
}

impl SectionKind {
    const ALL: [SectionKind; 3] = [SectionKind::Audio, SectionKind::Video, SectionKind::Application];

    pub fn as_str(self) -> &'static str {
        match self {
            SectionKind::Audio => "audio",
            SectionKind::Video => "video",
            SectionKind::Application => "application",
        }
    }

    pub(super) fn from_token(token: &str) -> Option<SectionKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == token)
    }
}

/// Which way media flows, as the describer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// Also what a section without any such attribute means (RFC 8866 §6.7).
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    const ALL: [Direction; 4] = [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive];

    pub fn new(sends: bool, receives: bool) -> Direction {
        match (sends, receives) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    pub fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    pub fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    /// The same flow, seen from the other side.
    pub fn reversed(self) -> Direction {
        Direction::new(self.receives(), self.sends())
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    pub(super) fn from_token(token: &str) -> Option<Direction> {
        Self::ALL.into_iter().find(|direction| direction.as_str() == token)
    }
}

/// A payload type with all that is said about it: `a=rtpmap`, `a=fmtp`, `a=rtcp-fb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecLine {
    /// 0..=127.
    pub pt: u8,
    /// The encoding name as written, e.g. `VP8`, `opus`, `rtx`. Names compare without case.
    pub name: String,
    /// Hz.
    pub clock_rate: u32,
    pub channels: Option<u8>,
    /// Format parameters as written, e.g. `minptime=10;useinbandfec=1`; empty when there are none.
    pub fmtp: String,
    /// E.g. `nack`, `nack pli`, `transport-cc`.
    pub feedback: Vec<String>,
}

impl CodecLine {
    /// Whether this is the codec, e.g. `is("vp8")`.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// One of the format parameters, e.g. `parameter("apt")` of a retransmission codec.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.fmtp.split(';').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim_ascii().eq_ignore_ascii_case(key).then(|| value.trim_ascii())
        })
    }
}

/// `a=extmap` (RFC 8285): the number a header extension has in this section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtMap {
    /// 1..=14 in the one-byte form, up to 255 in the two-byte form.
    pub id: u8,
    pub uri: String,
}

/// `a=msid` (RFC 8830).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msid {
    /// `-` = in no stream.
    pub stream: String,
    /// Empty when the peer names the stream only.
    pub track: String,
}

/// The `a=ssrc` lines of one source (RFC 5576), taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsrcLine {
    pub ssrc: u32,
    pub cname: Option<String>,
    pub msid: Option<Msid>,
}

/// `a=ssrc-group` (RFC 5576 §4.2): `FID` pairs a source with its retransmissions, `SIM` lists simulcast layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsrcGroup {
    pub semantics: String,
    pub ssrcs: Vec<u32>,
}

/// `a=rid` (RFC 8851); restrictions are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RidLine {
    pub id: String,
    pub direction: RidDirection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RidDirection {
    Send,
    Recv,
}

impl RidDirection {
    pub fn as_str(self) -> &'static str {
        match self {
            RidDirection::Send => "send",
            RidDirection::Recv => "recv",
        }
    }
}
