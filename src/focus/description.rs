//! The little that signalling must know of a description: the streams in it, and whether it puts the other side on hold.
//!
//! Everything else in SDP is between the peer and `transport`.

use crate::transport::sdp::{SectionKind, SessionDescription};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outline {
    /// The ids of the streams that the describer sends, in the order of its sections.
    pub streams: Vec<String>,
    /// The describer takes nothing: every open section is `sendonly` or `inactive`. This is how a call is held.
    pub holds: bool,
}

/// `None`: not a description.
pub(super) fn outline(sdp: &str) -> Option<Outline> {
    let description = SessionDescription::parse(sdp).ok()?;
    let is_media = |kind| matches!(kind, SectionKind::Audio | SectionKind::Video);
    let open = || description.media.iter().filter(|section| is_media(section.kind) && !section.is_rejected());
    let mut streams: Vec<String> = Vec::new();
    for section in open().filter(|section| section.direction.sends()) {
        // Clients that write no `a=msid` write one for each source.
        let msid = section.msid.as_ref().or_else(|| section.ssrcs.iter().find_map(|source| source.msid.as_ref()));
        if let Some(msid) = msid.filter(|msid| msid.stream != "-" && !streams.contains(&msid.stream)) {
            streams.push(msid.stream.clone());
        }
    }
    let holds = open().next().is_some() && open().all(|section| !section.direction.receives());
    Some(Outline { streams, holds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sdp(sections: &str) -> String {
        format!("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n{sections}")
    }

    fn section(kind: &str, port: u16, mid: u8, rest: &str) -> String {
        format!("m={kind} {port} UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n{rest}")
    }

    #[test]
    fn streams_are_those_that_are_sent() {
        let text = sdp(&[
            section("audio", 9, 0, "a=sendrecv\r\na=msid:camera a\r\n"),
            section("video", 9, 1, "a=sendonly\r\na=ssrc:7 cname:x\r\na=ssrc:7 msid:camera b\r\n"),
            section("video", 9, 2, "a=sendonly\r\na=msid:screen c\r\n"),
            section("video", 9, 3, "a=recvonly\r\na=msid:not-sent d\r\n"),
            section("video", 0, 4, "a=sendrecv\r\na=msid:rejected e\r\n"),
            section("audio", 9, 5, "a=sendonly\r\na=msid:- f\r\n"),
        ]
        .concat());
        assert_eq!(outline(&text).unwrap().streams, ["camera", "screen"]);
    }

    #[test]
    fn a_side_holds_when_it_takes_nothing() {
        let held = |directions: &[(u16, &str)]| {
            let sections: Vec<String> = directions
                .iter()
                .zip(0..)
                .map(|((port, direction), mid)| section("audio", *port, mid, &format!("a={direction}\r\n")))
                .collect();
            outline(&sdp(&sections.concat())).unwrap().holds
        };
        assert!(held(&[(9, "sendonly")]) && held(&[(9, "inactive"), (9, "sendonly")]));
        assert!(held(&[(9, "inactive"), (0, "sendrecv")]), "rejected sections do not count");
        assert!(!held(&[(9, "sendonly"), (9, "recvonly")]) && !held(&[(9, "sendrecv")]));
        assert!(!held(&[]) && !held(&[(0, "inactive")]), "nothing there to hold");
    }

    #[test]
    fn what_is_no_sdp_is_none() {
        assert_eq!(outline("v=1\r\n"), None);
        assert_eq!(outline(""), None);
    }
}
