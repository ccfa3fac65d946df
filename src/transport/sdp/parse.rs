//! From text to a description. Remote text: every size is bounded, nothing panics, and an error names its line.
//!
//! Attributes that are not kept may say anything; one that is kept must be well formed.

use std::collections::HashSet;
use std::str::FromStr;

use super::limits::{
    MAX_BYTES, MAX_CANDIDATES, MAX_DIGEST_BYTES, MAX_FEEDBACK, MAX_ICE_CREDENTIAL_BYTES, MAX_LINE_BYTES, MAX_SECTIONS,
    MAX_SSRCS,
};
use super::media::{
    CodecLine, Direction, ExtMap, MediaSection, Msid, RidDirection, RidLine, SectionKind, SsrcGroup, SsrcLine,
};
use super::session::{Fingerprint, IceCredentials, SessionDescription, Setup};

/// Why a description cannot be used. Holds nothing of the text, so it can be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SDP line {line}: {problem}")]
pub struct SdpError {
    /// Counted from 1. What a whole section lacks is reported at its m-line.
    pub line: usize,
    pub problem: Problem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the description is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the line is longer than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    #[error("too many {0}")]
    TooMany(&'static str),
    #[error("malformed {0}")]
    Malformed(&'static str),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    #[error("another section has the same mid")]
    DuplicateMid,
}

impl SessionDescription {
    /// Reads an offer or answer. What stands at session level for all sections (ICE credentials, fingerprint,
    /// setup, direction) is copied into those that do not say it themselves.
    pub fn parse(text: &str) -> Result<SessionDescription, SdpError> {
        if text.len() > MAX_BYTES {
            return Err(SdpError { line: 1, problem: Problem::TooLong });
        }
        let mut reader = Reader::default();
        let mut first = true;
        for (index, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if !line.is_empty() {
                let at = |problem| SdpError { line: index + 1, problem };
                let (kind, value) = split_line(line).map_err(at)?;
                if first && (kind, value) != ('v', "0") {
                    return Err(at(Problem::Missing("v=0")));
                }
                first = false;
                reader.line(index + 1, kind, value).map_err(at)?;
            }
        }
        if first {
            return Err(SdpError { line: 1, problem: Problem::Missing("v=0") });
        }
        reader.finish()
    }
}

fn split_line(line: &str) -> Result<(char, &str), Problem> {
    if line.len() > MAX_LINE_BYTES {
        return Err(Problem::LineTooLong);
    }
    // A lone carriage return would be a line end to some readers of what we write.
    if line.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(Problem::Malformed("line: control character"));
    }
    match line.split_once('=') {
        Some((kind, value)) if kind.len() == 1 => Ok((kind.as_bytes()[0] as char, value)),
        _ => Err(Problem::Malformed("line: not <letter>=<value>")),
    }
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    description: SessionDescription,
    bundle_seen: bool,
    shared: Shared,
    sections: Vec<SectionReader>,
}

/// Attributes that may stand at either level.
#[derive(Default)]
struct Shared {
    ufrag: Option<String>,
    pwd: Option<String>,
    fingerprint: Option<Fingerprint>,
    setup: Option<Setup>,
    direction: Option<Direction>,
    extmap_allow_mixed: bool,
}

/// A section whose attributes are still coming in. A codec has no name until its `a=rtpmap` is read.
struct SectionReader {
    line: usize,
    section: MediaSection,
    shared: Shared,
    bundle_only: bool,
    /// `a=rtcp-fb:*`
    feedback_for_all: Vec<String>,
}

impl Reader {
    fn line(&mut self, number: usize, kind: char, value: &str) -> Result<(), Problem> {
        match (kind, self.sections.last_mut()) {
            ('m', _) => self.open_section(number, value),
            ('a', None) => self.session_attribute(value),
            ('a', Some(section)) => section.attribute(value),
            ('o', None) => self.origin(value),
            _ => Ok(()),
        }
    }

    fn origin(&mut self, value: &str) -> Result<(), Problem> {
        let mut words = value.split_ascii_whitespace().skip(1);
        self.description.session_id = number(words.next(), "o=")?;
        self.description.session_version = number(words.next(), "o=")?;
        Ok(())
    }

    fn open_section(&mut self, line: usize, value: &str) -> Result<(), Problem> {
        if self.sections.len() == MAX_SECTIONS {
            return Err(Problem::TooMany("m-lines"));
        }
        self.sections.push(SectionReader {
            line,
            section: media_line(value)?,
            shared: Shared::default(),
            bundle_only: false,
            feedback_for_all: Vec::new(),
        });
        Ok(())
    }

    fn session_attribute(&mut self, attribute: &str) -> Result<(), Problem> {
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match name {
            "ice-lite" => self.description.ice_lite = true,
            "group" => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("BUNDLE") && !self.bundle_seen {
                    self.bundle_seen = true;
                    self.description.bundle = words.map(String::from).collect();
                }
            }
            _ => self.shared.attribute(name, value)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<SessionDescription, SdpError> {
        let Reader { mut description, shared, sections, .. } = self;
        description.extmap_allow_mixed = shared.extmap_allow_mixed || all_allow_mixed(&sections);
        let mut mids = HashSet::new();
        for reader in sections {
            let line = reader.line;
            let at = |problem| SdpError { line, problem };
            let section = reader.finish(&shared, &description.bundle).map_err(at)?;
            if section.mid.is_empty() && !section.is_rejected() {
                return Err(at(Problem::Missing("a=mid")));
            }
            if !section.mid.is_empty() && !mids.insert(section.mid.clone()) {
                return Err(at(Problem::DuplicateMid));
            }
            description.media.push(section);
        }
        Ok(description)
    }
}

/// Firefox allows mixed extensions section by section. Data channels and closed sections have nothing to say about it.
fn all_allow_mixed(sections: &[SectionReader]) -> bool {
    let open = |reader: &&SectionReader| !reader.section.is_rejected() || reader.bundle_only;
    let rtp = |reader: &&SectionReader| reader.section.kind != SectionKind::Application;
    let mut sections = sections.iter().filter(rtp).filter(open).peekable();
    sections.peek().is_some() && sections.all(|reader| reader.shared.extmap_allow_mixed)
}

impl Shared {
    fn attribute(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        match name {
            "ice-ufrag" => self.ufrag = Some(ice_credential(value, 4, "a=ice-ufrag")?),
            "ice-pwd" => self.pwd = Some(ice_credential(value, 22, "a=ice-pwd")?),
            "fingerprint" => {
                let fingerprint = fingerprint(value)?;
                if self.fingerprint.as_ref().is_none_or(|known| known.algorithm != "sha-256") {
                    self.fingerprint = Some(fingerprint);
                }
            }
            "setup" => self.setup = Some(Setup::from_token(value).ok_or(Problem::Malformed("a=setup"))?),
            "extmap-allow-mixed" => self.extmap_allow_mixed = true,
            _ => self.direction = Direction::from_token(name).or(self.direction),
        }
        Ok(())
    }
}

impl SectionReader {
    fn attribute(&mut self, attribute: &str) -> Result<(), Problem> {
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        let section = &mut self.section;
        match name {
            "mid" => {
                if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(Problem::Malformed("a=mid"));
                }
                section.mid = value.into();
            }
            "bundle-only" => self.bundle_only = true,
            "rtcp-mux" => section.rtcp_mux = true,
            "rtcp-rsize" => section.rtcp_rsize = true,
            "rtpmap" => self.rtpmap(value)?,
            "fmtp" => self.fmtp(value)?,
            "rtcp-fb" => self.feedback(value)?,
            "extmap" => section.extensions.extend(extmap(value)?),
            "msid" if section.msid.is_none() => section.msid = Some(msid(value, "a=msid")?),
            "ssrc" => self.ssrc(value)?,
            "ssrc-group" => section.ssrc_groups.push(ssrc_group(value)?),
            "rid" => section.rids.push(rid(value)?),
            "simulcast" => (section.simulcast_send, section.simulcast_recv) = simulcast(value)?,
            "candidate" => {
                if section.candidates.len() == MAX_CANDIDATES {
                    return Err(Problem::TooMany("candidates"));
                }
                section.candidates.push(attribute.into());
            }
            "end-of-candidates" => section.end_of_candidates = true,
            "sctp-port" => section.sctp_port = Some(number(Some(value), "a=sctp-port")?),
            "max-message-size" => section.max_message_size = Some(number(Some(value), "a=max-message-size")?),
            _ => self.shared.attribute(name, value)?,
        }
        Ok(())
    }

    /// `a=rtpmap:111 opus/48000/2`
    fn rtpmap(&mut self, value: &str) -> Result<(), Problem> {
        const WHAT: &str = "a=rtpmap";
        let (pt, encoding) = value.split_once(' ').ok_or(Problem::Malformed(WHAT))?;
        let mut parts = encoding.trim_ascii().split('/');
        let name = word(parts.next(), WHAT)?;
        let clock_rate = number(parts.next(), WHAT)?;
        let channels = parts.next().map(|channels| number(Some(channels), WHAT)).transpose()?;
        if let Some(codec) = self.codec(payload_type(pt, WHAT)?) {
            (codec.name, codec.clock_rate, codec.channels) = (name.into(), clock_rate, channels);
        }
        Ok(())
    }

    /// `a=fmtp:111 minptime=10;useinbandfec=1`
    fn fmtp(&mut self, value: &str) -> Result<(), Problem> {
        const WHAT: &str = "a=fmtp";
        let (pt, parameters) = value.split_once(' ').ok_or(Problem::Malformed(WHAT))?;
        if let Some(codec) = self.codec(payload_type(pt, WHAT)?) {
            codec.fmtp = parameters.trim_ascii().into();
        }
        Ok(())
    }

    /// `a=rtcp-fb:96 nack pli`, or `*` for every codec
    fn feedback(&mut self, value: &str) -> Result<(), Problem> {
        const WHAT: &str = "a=rtcp-fb";
        let (pt, kind) = value.split_once(' ').ok_or(Problem::Malformed(WHAT))?;
        let kind = kind.trim_ascii();
        if kind.is_empty() {
            return Err(Problem::Malformed(WHAT));
        }
        if pt == "*" {
            return push_feedback(&mut self.feedback_for_all, kind);
        }
        match self.codec(payload_type(pt, WHAT)?) {
            Some(codec) => push_feedback(&mut codec.feedback, kind),
            None => Ok(()),
        }
    }

    /// `a=ssrc:<ssrc> cname:<name>` or `a=ssrc:<ssrc> msid:<stream> <track>`
    fn ssrc(&mut self, value: &str) -> Result<(), Problem> {
        const WHAT: &str = "a=ssrc";
        let (ssrc, attribute) = value.split_once(' ').unwrap_or((value, ""));
        let ssrc = number(Some(ssrc), WHAT)?;
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        if name != "cname" && name != "msid" {
            return Ok(());
        }
        let sources = &mut self.section.ssrcs;
        let index = sources.iter().position(|source| source.ssrc == ssrc).unwrap_or(sources.len());
        if index == sources.len() {
            if index == MAX_SSRCS {
                return Err(Problem::TooMany("sources"));
            }
            sources.push(SsrcLine { ssrc, cname: None, msid: None });
        }
        let source = &mut sources[index];
        if name == "cname" {
            source.cname = Some(value.trim_ascii().into());
        } else {
            source.msid = Some(msid(value, WHAT)?);
        }
        Ok(())
    }

    fn codec(&mut self, pt: u8) -> Option<&mut CodecLine> {
        self.section.codecs.iter_mut().find(|codec| codec.pt == pt)
    }

    fn finish(self, session: &Shared, bundle: &[String]) -> Result<MediaSection, Problem> {
        let SectionReader { mut section, shared, bundle_only, feedback_for_all, .. } = self;
        if bundle_only && section.port == 0 && bundle.contains(&section.mid) {
            section.port = MediaSection::DISCARD_PORT;
        }
        section.direction = shared.direction.or(session.direction).unwrap_or_default();
        let ufrag = shared.ufrag.or_else(|| session.ufrag.clone());
        let pwd = shared.pwd.or_else(|| session.pwd.clone());
        section.ice = match (ufrag, pwd) {
            (Some(ufrag), Some(pwd)) => Some(IceCredentials { ufrag, pwd }),
            (None, None) => None,
            (Some(_), None) => return Err(Problem::Missing("a=ice-pwd")),
            (None, Some(_)) => return Err(Problem::Missing("a=ice-ufrag")),
        };
        section.fingerprint = shared.fingerprint.or_else(|| session.fingerprint.clone());
        section.setup = shared.setup.or(session.setup);

        if section.kind == SectionKind::Audio && !section.is_rejected() {
            section.codecs.iter_mut().for_each(assign_static_encoding);
        }
        section.codecs.retain(|codec| !codec.name.is_empty());
        for codec in &mut section.codecs {
            for kind in &feedback_for_all {
                push_feedback(&mut codec.feedback, kind)?;
            }
        }
        Ok(section)
    }
}

/// `m=audio 9 UDP/TLS/RTP/SAVPF 111 63` or `m=application 9 UDP/DTLS/SCTP webrtc-datachannel`
fn media_line(value: &str) -> Result<MediaSection, Problem> {
    const WHAT: &str = "m=";
    let mut words = value.split_ascii_whitespace();
    let kind = SectionKind::from_token(word(words.next(), WHAT)?).ok_or(Problem::Unsupported("this kind of media"))?;
    let mut section = MediaSection::new(kind, "");
    section.port = number(words.next(), WHAT)?;
    let protocol = word(words.next(), WHAT)?;
    if kind == SectionKind::Application {
        let known = protocol.ends_with("/DTLS/SCTP") && words.next() == Some("webrtc-datachannel");
        if !known && !section.is_rejected() {
            return Err(Problem::Unsupported("this kind of data channel"));
        }
    } else {
        // Any profile name is taken and means the same (RFC 8829 §5.1.2): DTLS-SRTP with feedback.
        let profile = protocol.rsplit('/').next().unwrap_or_default();
        if !protocol.contains("RTP/") || !["AVP", "AVPF", "SAVP", "SAVPF"].contains(&profile) {
            return Err(Problem::Unsupported("this transport protocol"));
        }
        for pt in words {
            let pt = payload_type(pt, WHAT)?;
            if section.codec(pt).is_none() {
                section.codecs.push(unnamed_codec(pt));
            }
        }
    }
    Ok(section)
}

fn unnamed_codec(pt: u8) -> CodecLine {
    CodecLine { pt, name: String::new(), clock_rate: 0, channels: None, fmtp: String::new(), feedback: Vec::new() }
}

/// Payload types that need no `a=rtpmap` (RFC 3551 §6), as far as browsers know the codecs.
fn assign_static_encoding(codec: &mut CodecLine) {
    let name = match codec.pt {
        0 => "PCMU",
        8 => "PCMA",
        9 => "G722",
        13 => "CN",
        _ => return,
    };
    if codec.name.is_empty() {
        (codec.name, codec.clock_rate) = (name.into(), 8000);
    }
}

fn push_feedback(list: &mut Vec<String>, kind: &str) -> Result<(), Problem> {
    if list.iter().any(|known| known == kind) {
        return Ok(());
    }
    if list.len() == MAX_FEEDBACK {
        return Err(Problem::TooMany("kinds of feedback"));
    }
    list.push(kind.into());
    Ok(())
}

/// `a=extmap:4/sendonly urn:… …`; the direction and further words are dropped.
/// Numbers above 255 cannot be sent and only reserve (RFC 8285 §7): `None`.
fn extmap(value: &str) -> Result<Option<ExtMap>, Problem> {
    const WHAT: &str = "a=extmap";
    let mut words = value.split_ascii_whitespace();
    let id = word(words.next(), WHAT)?.split('/').next();
    let id: u16 = number(id, WHAT)?;
    let uri = word(words.next(), WHAT)?.to_owned();
    if id == 0 {
        return Err(Problem::Malformed(WHAT));
    }
    Ok(u8::try_from(id).ok().map(|id| ExtMap { id, uri }))
}

fn msid(value: &str, what: &'static str) -> Result<Msid, Problem> {
    let mut words = value.split_ascii_whitespace();
    let stream = word(words.next(), what)?.to_owned();
    let track = words.next().unwrap_or_default().to_owned();
    Ok(Msid { stream, track })
}

/// `a=ssrc-group:FID 1 2`
fn ssrc_group(value: &str) -> Result<SsrcGroup, Problem> {
    const WHAT: &str = "a=ssrc-group";
    let mut words = value.split_ascii_whitespace();
    let semantics = word(words.next(), WHAT)?.to_owned();
    let ssrcs = words.map(|ssrc| number(Some(ssrc), WHAT)).collect::<Result<Vec<u32>, _>>()?;
    if ssrcs.len() > MAX_SSRCS {
        return Err(Problem::TooMany("sources"));
    }
    Ok(SsrcGroup { semantics, ssrcs })
}

/// `a=rid:q send …`
fn rid(value: &str) -> Result<RidLine, Problem> {
    const WHAT: &str = "a=rid";
    let mut words = value.split_ascii_whitespace();
    let id = rid_id(word(words.next(), WHAT)?, WHAT)?;
    let direction = match words.next() {
        Some("send") => RidDirection::Send,
        Some("recv") => RidDirection::Recv,
        _ => return Err(Problem::Malformed(WHAT)),
    };
    Ok(RidLine { id, direction })
}

/// `a=simulcast:send q;~h,x;f recv a`: (send, recv)
fn simulcast(value: &str) -> Result<(Vec<String>, Vec<String>), Problem> {
    const WHAT: &str = "a=simulcast";
    let (mut send, mut recv) = (Vec::new(), Vec::new());
    let mut words = value.split_ascii_whitespace();
    while let Some(direction) = words.next() {
        let list = match direction {
            "send" => &mut send,
            "recv" => &mut recv,
            _ => return Err(Problem::Malformed(WHAT)),
        };
        for stream in word(words.next(), WHAT)?.split(';') {
            let first = stream.split(',').next().unwrap_or_default();
            list.push(rid_id(first.strip_prefix('~').unwrap_or(first), WHAT)?);
        }
    }
    Ok((send, recv))
}

fn rid_id(id: &str, what: &'static str) -> Result<String, Problem> {
    let valid = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if valid { Ok(id.into()) } else { Err(Problem::Malformed(what)) }
}

/// `a=fingerprint:sha-256 AB:CD:…`
fn fingerprint(value: &str) -> Result<Fingerprint, Problem> {
    const WHAT: &str = "a=fingerprint";
    let mut words = value.split_ascii_whitespace();
    let algorithm = word(words.next(), WHAT)?.to_ascii_lowercase();
    let bytes = word(words.next(), WHAT)?
        .split(':')
        .map(|pair| {
            let hex = pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
            hex.then(|| u8::from_str_radix(pair, 16).ok()).flatten().ok_or(Problem::Malformed(WHAT))
        })
        .collect::<Result<Vec<u8>, _>>()?;
    if bytes.len() > MAX_DIGEST_BYTES || (algorithm == "sha-256" && bytes.len() != 32) {
        return Err(Problem::Malformed(WHAT));
    }
    Ok(Fingerprint { algorithm, bytes })
}

fn ice_credential(value: &str, min_bytes: usize, what: &'static str) -> Result<String, Problem> {
    let length = min_bytes..=MAX_ICE_CREDENTIAL_BYTES;
    let ice_char = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let valid = length.contains(&value.len()) && value.bytes().all(ice_char);
    if valid { Ok(value.into()) } else { Err(Problem::Malformed(what)) }
}

fn payload_type(word: &str, what: &'static str) -> Result<u8, Problem> {
    number::<u8>(Some(word), what).and_then(|pt| if pt < 128 { Ok(pt) } else { Err(Problem::Malformed(what)) })
}

fn word<'a>(word: Option<&'a str>, what: &'static str) -> Result<&'a str, Problem> {
    word.filter(|word| !word.is_empty()).ok_or(Problem::Malformed(what))
}

/// Digits only: `from_str` would also take a plus sign.
fn number<T: FromStr>(digits: Option<&str>, what: &'static str) -> Result<T, Problem> {
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(Problem::Malformed(what))
}
