//! Our descriptions: the answer to a client's offer, or an offer of our own.

use std::borrow::Cow;
use std::net::SocketAddr;

use str0m::Candidate;

use super::codecs::{self, OpusOptions};
use super::sdp::{
    Direction, Fingerprint, IceCredentials as SdpIce, MediaSection, Msid, RidDirection, RidLine, SectionKind,
    SessionDescription, Setup, SsrcGroup, SsrcLine,
};
use super::sections::{ReceivePreference, Section, State, section_kind};
use super::{Protocol, SenderId, Transport};
use crate::sfu::MediaKind;

const SCTP_PORT: u16 = 5000;

impl Transport {
    /// Our answer to the offer applied last.
    pub fn answer(&mut self) -> (String, Vec<(String, SenderId)>) {
        if let Some(answer) = &self.upstream {
            return (self.prefer_codecs(answer), Vec::new());
        }
        self.bind_senders();
        let media = (0..self.sections.list.len()).map(|index| self.answer_section(index)).collect();
        self.settle();
        (self.describe(media), self.sending())
    }

    /// str0m's answer with the codec that the room wants of each section in front: browsers send the first.
    fn prefer_codecs(&self, answer: &str) -> String {
        let mut sections = self.sections.list.iter();
        let lines = answer.split_inclusive('\n').map(|line| {
            if !line.starts_with("m=") {
                return line.into();
            }
            let wanted = sections.next().and_then(|s| Some((s.preference.codec?, s.remote.as_ref()?)));
            match wanted {
                Some((codec, remote)) => Cow::from(codecs::prefer(line, codec, remote)),
                None => line.into(),
            }
        });
        lines.collect()
    }

    /// An offer of ours: every sender gets a section.
    pub fn create_offer(&mut self) -> (String, Vec<(String, SenderId)>) {
        self.bind_senders();
        let unbound: Vec<SenderId> =
            self.sections.senders.iter().filter(|(_, s)| s.stream.is_none() && !s.refused).map(|(id, _)| *id).collect();
        for id in unbound {
            let kind = self.sections.senders[&id].spec.codec.kind();
            self.sections.list.push(Section {
                mid: self.sections.list.len().to_string(),
                kind: section_kind(kind),
                state: State::Idle,
                remote: None,
                preference: ReceivePreference::default(),
            });
            self.bind(id, self.sections.list.len() - 1);
        }
        let media = (0..self.sections.list.len()).map(|index| self.offer_section(index)).collect();
        self.settle();
        self.sections.offered = true;
        (self.describe(media), self.sending())
    }

    /// What was draining has now been described as inactive.
    fn settle(&mut self) {
        for section in &mut self.sections.list {
            if section.state == State::Draining {
                section.state = State::Idle;
            }
        }
    }

    fn sending(&self) -> Vec<(String, SenderId)> {
        let sending = self.sections.list.iter().filter_map(|s| match s.state {
            State::Sending(sender) => Some((s.mid.clone(), sender)),
            _ => None,
        });
        sending.collect()
    }

    fn answer_section(&self, index: usize) -> MediaSection {
        let section = &self.sections.list[index];
        let Some(remote) = &section.remote else { return self.blank(section) };
        let (codecs, extensions) = match &section.state {
            State::Sending(id) => {
                let codec = self.sections.stream(*id).map(|stream| stream.codec);
                self.codecs.answer(remote, codec, OpusOptions::default())
            }
            _ => self.codecs.answer(remote, section.preference.codec, section.preference.opus),
        };
        let mut answer = MediaSection { codecs, extensions, setup: Some(Setup::Passive), ..self.blank(section) };
        match &section.state {
            State::Rejected => answer.port = 0,
            State::Receiving { rids } => {
                answer.direction = Direction::RecvOnly;
                answer.rids = rids.iter().map(|id| RidLine { id: id.clone(), direction: RidDirection::Recv }).collect();
                // The offer's order, which the client knows its layers by.
                answer.simulcast_recv =
                    remote.simulcast_send.iter().filter(|rid| rids.contains(rid)).cloned().collect();
            }
            State::Sending(id) => self.describe_sender(*id, &mut answer),
            State::Data | State::Idle | State::Draining | State::Silent => {}
        }
        // A section without a codec in common cannot be accepted (RFC 3264 §6); the number of lines must stay.
        if answer.codecs.is_empty() && section.kind != SectionKind::Application {
            answer.port = 0;
            answer.codecs = remote.codecs.iter().take(1).cloned().collect();
        }
        answer
    }

    fn offer_section(&self, index: usize) -> MediaSection {
        let section = &self.sections.list[index];
        // Clients tell from the first codec what they will get.
        let sent = match section.state {
            State::Sending(id) => self.sections.senders.get(&id).and_then(|s| s.stream).map(|(_, stream)| stream.codec),
            _ => None,
        };
        let (codecs, extensions) = match section.kind {
            SectionKind::Application => Default::default(),
            SectionKind::Audio => self.codecs.offer(MediaKind::Audio, sent),
            SectionKind::Video => self.codecs.offer(MediaKind::Video, sent),
        };
        let mut offer = MediaSection { codecs, extensions, setup: Some(Setup::Actpass), ..self.blank(section) };
        if let State::Sending(id) = section.state {
            self.describe_sender(id, &mut offer);
        }
        offer
    }

    fn describe_sender(&self, id: SenderId, section: &mut MediaSection) {
        let Some(sender) = self.sections.senders.get(&id) else { return };
        let Some((_, stream)) = sender.stream else { return };
        let msid = Msid { stream: sender.spec.stream_id.clone(), track: sender.spec.track_id.clone() };
        let cname = Some(sender.spec.cname().to_owned());
        section.direction = Direction::SendOnly;
        section.ssrcs = [Some(stream.ssrc), stream.rtx]
            .into_iter()
            .flatten()
            .map(|ssrc| SsrcLine { ssrc, cname: cname.clone(), msid: Some(msid.clone()) })
            .collect();
        if let Some(rtx) = stream.rtx {
            section.ssrc_groups = vec![SsrcGroup { semantics: "FID".into(), ssrcs: vec![stream.ssrc, rtx] }];
        }
        section.msid = Some(msid);
    }

    /// A section with our transport in it, sending and receiving nothing.
    fn blank(&self, section: &Section) -> MediaSection {
        let data = section.kind == SectionKind::Application;
        MediaSection {
            direction: if data { Direction::SendRecv } else { Direction::Inactive },
            rtcp_mux: !data,
            rtcp_rsize: !data,
            sctp_port: data.then_some(SCTP_PORT),
            max_message_size: data.then_some(u64::from(super::negotiation::MAX_DATA_MESSAGE_BYTES)),
            ..MediaSection::new(section.kind, section.mid.clone())
        }
    }

    fn describe(&mut self, mut media: Vec<MediaSection>) -> String {
        let api = self.rtc.direct_api();
        let own = api.local_ice_credentials();
        let certificate = api.local_dtls_fingerprint();
        let fingerprint = Fingerprint { algorithm: certificate.hash_func.clone(), bytes: certificate.bytes.clone() };
        let candidates: Vec<String> = self
            .settings
            .candidates
            .iter()
            .filter_map(|(protocol, address)| local_candidate(*protocol, *address))
            .map(|candidate| candidate.to_sdp_string())
            .collect();
        for section in media.iter_mut().filter(|m| m.port != 0) {
            section.ice = Some(SdpIce { ufrag: own.ufrag.clone(), pwd: own.pass.clone() });
            section.fingerprint = Some(fingerprint.clone());
            section.candidates = candidates.clone();
            section.end_of_candidates = true;
        }
        self.sections.version += 1;
        let bundle = media.iter().filter(|m| m.port != 0).map(|m| m.mid.clone()).collect();
        let description = SessionDescription {
            bundle,
            ice_lite: true,
            extmap_allow_mixed: true,
            session_id: self.sections.session_id,
            session_version: self.sections.version,
            media,
        };
        description.to_string()
    }
}

pub(super) fn local_candidate(protocol: Protocol, address: SocketAddr) -> Option<Candidate> {
    match protocol {
        Protocol::Udp => Candidate::builder().udp().host(address).build().ok(),
        Protocol::Tcp => Candidate::builder().tcp().host(address).tcptype(str0m::net::TcpType::Passive).build().ok(),
    }
}
