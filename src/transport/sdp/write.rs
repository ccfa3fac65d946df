//! From a description to text, in the shape and order that Chromium, Firefox and Safari write themselves.

use std::fmt::{self, Display, Formatter};

use super::media::{CodecLine, Direction, MediaSection, Msid, SectionKind};
use super::session::{Fingerprint, SessionDescription};

/// A reserved payload type (RFC 3551 §6): fills the m-line of an open section without codecs,
/// which the grammar does not allow to be empty.
const NO_CODEC: u8 = 19;

/// SDP text with CRLF line ends. Strings are written as they are: whoever fills them keeps line ends out.
impl Display for SessionDescription {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "v=0\r\n")?;
        write!(f, "o=- {} {} IN IP4 127.0.0.1\r\n", self.session_id, self.session_version)?;
        write!(f, "s=-\r\nt=0 0\r\n")?;
        if !self.bundle.is_empty() {
            write!(f, "a=group:BUNDLE")?;
            for mid in &self.bundle {
                write!(f, " {mid}")?;
            }
            write!(f, "\r\n")?;
        }
        if self.ice_lite {
            write!(f, "a=ice-lite\r\n")?;
        }
        // Candidates may follow later on either side (RFC 8838 §4.1.1).
        write!(f, "a=ice-options:trickle\r\n")?;
        if self.extmap_allow_mixed {
            write!(f, "a=extmap-allow-mixed\r\n")?;
        }
        write!(f, "a=msid-semantic: WMS *\r\n")?;
        self.media.iter().try_for_each(|section| section.fmt(f))
    }
}

impl Display for MediaSection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write_media_line(f)?;
        self.write_transport(f)?;
        for extension in &self.extensions {
            write!(f, "a=extmap:{} {}\r\n", extension.id, extension.uri)?;
        }
        // Data channels have no direction; one is written only to keep what was read.
        if self.kind != SectionKind::Application || self.direction != Direction::SendRecv {
            write!(f, "a={}\r\n", self.direction.as_str())?;
        }
        if let Some(msid) = &self.msid {
            write!(f, "a=msid:{msid}\r\n")?;
        }
        self.codecs.iter().try_for_each(|codec| codec.fmt(f))?;
        self.write_layers(f)?;
        self.write_sources(f)?;
        if let Some(port) = self.sctp_port {
            write!(f, "a=sctp-port:{port}\r\n")?;
        }
        if let Some(size) = self.max_message_size {
            write!(f, "a=max-message-size:{size}\r\n")?;
        }
        Ok(())
    }
}

impl MediaSection {
    fn write_media_line(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (kind, port) = (self.kind.as_str(), self.port);
        if self.kind == SectionKind::Application {
            write!(f, "m={kind} {port} UDP/DTLS/SCTP webrtc-datachannel")?;
        } else {
            write!(f, "m={kind} {port} UDP/TLS/RTP/SAVPF")?;
            for codec in &self.codecs {
                write!(f, " {}", codec.pt)?;
            }
            if self.codecs.is_empty() {
                // Browsers close a section with payload type 0.
                write!(f, " {}", if self.is_rejected() { 0 } else { NO_CODEC })?;
            }
        }
        // The address comes from ICE.
        write!(f, "\r\nc=IN IP4 0.0.0.0\r\n")
    }

    fn write_transport(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for candidate in &self.candidates {
            write!(f, "a={candidate}\r\n")?;
        }
        if self.end_of_candidates {
            write!(f, "a=end-of-candidates\r\n")?;
        }
        if let Some(ice) = &self.ice {
            write!(f, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", ice.ufrag, ice.pwd)?;
        }
        if let Some(fingerprint) = &self.fingerprint {
            write!(f, "a=fingerprint:{fingerprint}\r\n")?;
        }
        if let Some(setup) = self.setup {
            write!(f, "a=setup:{}\r\n", setup.as_str())?;
        }
        if !self.mid.is_empty() {
            write!(f, "a=mid:{}\r\n", self.mid)?;
        }
        if self.rtcp_mux {
            write!(f, "a=rtcp-mux\r\n")?;
        }
        if self.rtcp_rsize {
            write!(f, "a=rtcp-rsize\r\n")?;
        }
        Ok(())
    }

    fn write_layers(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for rid in &self.rids {
            write!(f, "a=rid:{} {}\r\n", rid.id, rid.direction.as_str())?;
        }
        if !self.simulcast_send.is_empty() || !self.simulcast_recv.is_empty() {
            write!(f, "a=simulcast:")?;
            let lists = [("send", &self.simulcast_send), ("recv", &self.simulcast_recv)];
            for (i, (direction, rids)) in lists.into_iter().filter(|(_, rids)| !rids.is_empty()).enumerate() {
                let gap = if i == 0 { "" } else { " " };
                write!(f, "{gap}{direction} {}", rids.join(";"))?;
            }
            write!(f, "\r\n")?;
        }
        Ok(())
    }

    fn write_sources(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for group in &self.ssrc_groups {
            write!(f, "a=ssrc-group:{}", group.semantics)?;
            for ssrc in &group.ssrcs {
                write!(f, " {ssrc}")?;
            }
            write!(f, "\r\n")?;
        }
        for source in &self.ssrcs {
            if let Some(cname) = &source.cname {
                write!(f, "a=ssrc:{} cname:{cname}\r\n", source.ssrc)?;
            }
            if let Some(msid) = &source.msid {
                write!(f, "a=ssrc:{} msid:{msid}\r\n", source.ssrc)?;
            }
        }
        Ok(())
    }
}

impl Display for CodecLine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "a=rtpmap:{} {}/{}", self.pt, self.name, self.clock_rate)?;
        if let Some(channels) = self.channels {
            write!(f, "/{channels}")?;
        }
        write!(f, "\r\n")?;
        for feedback in &self.feedback {
            write!(f, "a=rtcp-fb:{} {feedback}\r\n", self.pt)?;
        }
        if !self.fmtp.is_empty() {
            write!(f, "a=fmtp:{} {}\r\n", self.pt, self.fmtp)?;
        }
        Ok(())
    }
}

impl Display for Msid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stream)?;
        if !self.track.is_empty() {
            write!(f, " {}", self.track)?;
        }
        Ok(())
    }
}

impl Display for Fingerprint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.algorithm)?;
        for (i, byte) in self.bytes.iter().enumerate() {
            let gap = if i == 0 { "" } else { ":" };
            write!(f, "{gap}{byte:02X}")?;
        }
        Ok(())
    }
}
