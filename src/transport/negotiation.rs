//! Offers and answers: which m-line carries what, and the SDP that says so.
//!
//! As answerer (LiveKit v1, and every publisher connection) each section keeps the direction the client gave it: what the
//! client sends we receive; a section it wants to receive in is `inactive` until a sender takes it. As offerer (LiveKit v0
//! downstream) each sender gets a section, an idle one before a new one. A section that carried a track is used again
//! only after one description said `inactive`: without it browsers and frame decryptors mix the two tracks up.

use std::panic::{AssertUnwindSafe, catch_unwind};

use str0m::change::SdpOffer;
use str0m::media::{MediaKind as RtcKind, Mid, Rid};
use str0m::rtp::Ssrc;
use str0m::{IceCreds, RtcConfig};
use thiserror::Error;

use super::admission::Admission;
use super::channels::{Channels, MAX_BUFFERED_BYTES};
use super::codecs::CodecTable;
use super::description::local_candidate;
use super::dtls;
use super::egress::{Egress, ExtensionIds, PayloadTypes};
use super::path::Path;
use super::sdp::{Direction, MediaSection, SdpError, SectionKind, SessionDescription, Setup};
use super::sections::{ReceivePreference, RemoteTrack, Section, Sections, State, layer_order};
use super::{IceCredentials, NewConnection, Progress, Settings, Transport};
use crate::sfu::MediaKind;

/// str0m keeps ids in fixed arrays and would confuse two that share their beginning.
const MAX_MID_BYTES: usize = 16;
/// What LiveKit announces; a message above it is refused by SCTP.
pub(super) const MAX_DATA_MESSAGE_BYTES: u32 = 65_535;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum NegotiationError {
    #[error("the description has no ICE credentials or no DTLS fingerprint")]
    Unsecured,
    #[error("section {0} has an id that is missing, too long or changed")]
    Mid(usize),
    #[error("the description drops sections of the previous one")]
    Shrunk,
    #[error(transparent)]
    Sdp(#[from] SdpError),
    #[error("the offer cannot be answered")]
    Unanswerable,
    #[error("an answer came without an offer of ours, or does not match it")]
    Unexpected,
}

impl Transport {
    /// A connection that the client offers and that carries both ways. The first offer, which tells its numbers, is still
    /// to be given to [`Self::accept_offer`].
    pub fn answerer(settings: &Settings, first_offer: &str, new: NewConnection) -> Result<Self, NegotiationError> {
        let offer = SessionDescription::parse(first_offer)?;
        Ok(Self::new(settings, CodecTable::from_offer(&offer), new))
    }

    /// A connection that the client offers and only sends on. Its first offer may hold nothing but a data channel, and
    /// str0m learns payload types and extension numbers later only from descriptions that it answers itself: here, where
    /// nothing goes downstream, its answers will do.
    pub fn upstream(settings: &Settings, new: NewConnection) -> Self {
        let mut transport = Self::new(settings, CodecTable::default(), new);
        transport.upstream = Some(String::new());
        transport.egress = None;
        transport
    }

    /// A connection that we offer, with the LiveKit data channels.
    pub fn offerer(settings: &Settings, new: NewConnection) -> Self {
        let mut transport = Self::new(settings, CodecTable::own(), new);
        Channels::create(&mut transport.rtc);
        let data = Section {
            mid: "0".into(),
            kind: SectionKind::Application,
            state: State::Data,
            remote: None,
            preference: ReceivePreference::default(),
        };
        transport.sections.list.push(data);
        transport
    }

    fn new(settings: &Settings, codecs: CodecTable, new: NewConnection) -> Self {
        let config = codecs
            .configure(RtcConfig::new())
            .set_crypto_provider(settings.crypto.clone())
            .set_dtls_cert(settings.certificate.clone())
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .set_sctp_max_buffered_amount(MAX_BUFFERED_BYTES)
            .set_sctp_max_message_size(MAX_DATA_MESSAGE_BYTES)
            .set_local_ice_credentials(new.ice.clone().into());
        let (mut rtc, keys) = dtls::capture(|| config.build(new.now));
        for (protocol, address) in &settings.candidates {
            if let Some(candidate) = local_candidate(*protocol, *address) {
                rtc.add_local_candidate(candidate);
            }
        }
        let mut api = rtc.direct_api();
        api.set_ice_controlling(false);
        api.enable_twcc_feedback();
        Transport {
            rtc: Box::new(rtc),
            codecs,
            sections: Sections::new(new.session_id),
            channels: Channels::default(),
            upstream: None,
            streams: Default::default(),
            admission: Admission::default(),
            export: keys.clone(),
            progress: Progress::NoChecks,
            handshaken: false,
            told_closed: false,
            idle_until: None,
            path: Path::default(),
            egress: Some(Egress::new(&new, keys)),
            last_received: new.now,
            settings: settings.clone(),
        }
    }

    /// Applies the client's offer. `fresh` replaces our ICE credentials when the client restarts ICE (RFC 8445 §9): then
    /// [`Self::ufrag`] changes.
    pub fn accept_offer(&mut self, sdp: &str, fresh: IceCredentials) -> Result<(), NegotiationError> {
        let offer = SessionDescription::parse(sdp)?;
        self.check_sections(&offer)?;
        // Before str0m answers itself: in a restart it would draw a user fragment of its own, and ours tells the worker.
        self.secure(&offer, Some(fresh))?;
        if self.upstream.is_some() {
            self.answer_upstream(sdp, &offer)?;
        }
        for (index, remote) in offer.media.iter().enumerate() {
            if index == self.sections.list.len() {
                self.sections.list.push(Section {
                    mid: remote.mid.clone(),
                    kind: remote.kind,
                    state: State::Silent,
                    remote: None,
                    preference: ReceivePreference::default(),
                });
            }
            self.apply_section(index, remote, &offer);
        }
        if self.upstream.is_none() {
            self.start(false);
        }
        Ok(())
    }

    fn answer_upstream(&mut self, sdp: &str, offer: &SessionDescription) -> Result<(), NegotiationError> {
        self.codecs.learn(offer);
        // A lite agent sends no checks, so it has no use for candidates; it knows the client by the checks it gets. Numbers of
        // extensions that change would let it mistake one for another.
        let of_use = |line: &&str| !line.starts_with("a=candidate:") && !self.codecs.contradicts(line.trim_end());
        let lines = sdp.split_inclusive('\n').filter(of_use);
        let parsed =
            SdpOffer::from_sdp_string(&lines.collect::<String>()).map_err(|_| NegotiationError::Unanswerable)?;
        let answer = catch_unwind(AssertUnwindSafe(|| self.rtc.sdp_api().accept_offer(parsed)));
        let Ok(Ok(answer)) = answer else { return Err(NegotiationError::Unanswerable) };
        self.upstream = Some(answer.to_sdp_string());
        Ok(())
    }

    fn check_sections(&self, offer: &SessionDescription) -> Result<(), NegotiationError> {
        if offer.media.len() < self.sections.list.len() {
            return Err(NegotiationError::Shrunk);
        }
        for (index, remote) in offer.media.iter().enumerate() {
            let usable = !remote.mid.is_empty()
                && remote.mid.len() <= MAX_MID_BYTES
                && remote.mid.bytes().all(|b| b.is_ascii_alphanumeric())
                && offer.media.iter().filter(|m| m.mid == remote.mid).count() == 1;
            let unchanged =
                self.sections.list.get(index).is_none_or(|own| {
                    own.state == State::Rejected || (own.mid == remote.mid && own.kind == remote.kind)
                });
            if !usable || !unchanged {
                return Err(NegotiationError::Mid(index));
            }
        }
        Ok(())
    }

    /// Takes over the peer's ICE credentials and fingerprint.
    fn secure(&mut self, remote: &SessionDescription, fresh: Option<IceCredentials>) -> Result<(), NegotiationError> {
        let ice = remote.media.iter().find_map(|m| m.ice.as_ref()).ok_or(NegotiationError::Unsecured)?;
        let fingerprint =
            remote.media.iter().find_map(|m| m.fingerprint.as_ref()).ok_or(NegotiationError::Unsecured)?;
        let theirs = IceCreds { ufrag: ice.ufrag.clone(), pass: ice.pwd.clone() };
        let mut api = self.rtc.direct_api();
        let restart = self
            .sections
            .list
            .iter()
            .filter_map(|s| s.remote.as_ref()?.ice.as_ref())
            .next()
            .is_some_and(|old| old != ice);
        if restart && let Some(fresh) = fresh {
            api.set_local_ice_credentials(fresh.into());
            self.path.restart();
        }
        api.set_remote_ice_credentials(theirs);
        api.set_remote_fingerprint(str0m::config::Fingerprint {
            hash_func: fingerprint.algorithm.clone(),
            bytes: fingerprint.bytes.clone(),
        });
        Ok(())
    }

    fn apply_section(&mut self, index: usize, remote: &MediaSection, offer: &SessionDescription) {
        // A bundle-only section has port 0 too, but stays in the group (RFC 8843 §7).
        let stopped = remote.port == 0 && !offer.bundle.contains(&remote.mid);
        let section = &mut self.sections.list[index];
        section.mid = remote.mid.clone();
        section.kind = remote.kind;
        let client_sends = matches!(remote.direction, Direction::SendOnly | Direction::SendRecv);
        let next = match (&section.state, remote.kind) {
            _ if stopped => State::Rejected,
            (_, SectionKind::Application) => State::Data,
            (_, _) if client_sends => State::Receiving { rids: layer_order(&remote.simulcast_send) },
            (State::Receiving { .. } | State::Silent | State::Rejected, _)
                if remote.direction == Direction::RecvOnly =>
            {
                State::Idle
            }
            (State::Receiving { .. }, _) => State::Silent,
            // The client wants nothing there (any more), so nothing may be answered or sent (RFC 3264 §6.1).
            (_, _) if remote.direction == Direction::Inactive => State::Silent,
            (state, _) => state.clone(),
        };
        let previous = std::mem::replace(&mut section.state, next.clone());
        section.remote = Some(remote.clone());
        if previous == next {
            return;
        }
        if matches!(previous, State::Receiving { .. } | State::Sending(_)) {
            self.release(index, &previous);
        }
        if let State::Receiving { rids } = next {
            self.receive(index, remote, &rids);
        }
    }

    /// Undeclares what a section carried.
    pub(super) fn release(&mut self, index: usize, previous: &State) {
        if let State::Sending(sender) = previous {
            if let Some(sender) = self.sections.senders.get_mut(sender) {
                sender.stream = None;
            }
            if let Some(egress) = &mut self.egress {
                egress.unbind(*sender);
            }
            // str0m knows of what it receives only.
            return;
        }
        let mid = Mid::from(self.sections.list[index].mid.as_str());
        if self.upstream.is_none() {
            self.rtc.direct_api().remove_media(mid);
        }
        self.streams.retain(|_, (section, _)| *section != index);
    }

    fn receive(&mut self, index: usize, remote: &MediaSection, rids: &[String]) {
        if self.upstream.is_some() {
            return;
        }
        let mid = Mid::from(self.sections.list[index].mid.as_str());
        let kind = if remote.kind == SectionKind::Audio { RtcKind::Audio } else { RtcKind::Video };
        let mut api = self.rtc.direct_api();
        let media = api.declare_media(mid, kind);
        for rid in rids {
            media.expect_rid_rx(Rid::from(rid.as_str()));
        }
        if rids.is_empty()
            && let Some(main) = remote.ssrc_groups.iter().find(|g| g.semantics == "FID").map_or_else(
                || remote.ssrcs.first().map(|s| (s.ssrc, None)),
                |g| Some((*g.ssrcs.first()?, g.ssrcs.get(1).copied())),
            )
            // Only a peer that sends no mid extension needs it; a stream announced twice would confuse str0m.
            && api.stream_rx(&main.0.into()).is_none()
        {
            api.expect_stream_rx(main.0.into(), main.1.map(Ssrc::from), mid, None);
        }
    }

    /// Every track the client sends now.
    pub fn remote_tracks(&self) -> Vec<RemoteTrack> {
        let tracks = self.sections.list.iter().enumerate().filter_map(|(index, section)| {
            let State::Receiving { rids } = &section.state else { return None };
            let remote = section.remote.as_ref()?;
            let from_ssrc = || remote.ssrcs.iter().find_map(|s| s.msid.as_ref());
            Some(RemoteTrack {
                section: index,
                mid: section.mid.clone(),
                kind: if section.kind == SectionKind::Audio { MediaKind::Audio } else { MediaKind::Video },
                track_id: remote.msid.as_ref().or_else(from_ssrc).map(|m| m.track.clone()),
                codecs: remote.codecs.iter().filter_map(|line| self.codecs.codec(line.pt)).collect(),
                rids: rids.clone(),
            })
        });
        tracks.collect()
    }

    pub fn prefer(&mut self, section: usize, preference: ReceivePreference) {
        if let Some(section) = self.sections.list.get_mut(section) {
            section.preference = preference;
        }
    }

    /// The next offer of ours asks the client to restart ICE (RFC 8445 §9).
    pub fn restart_ice(&mut self, fresh: IceCredentials) {
        self.rtc.direct_api().set_local_ice_credentials(fresh.into());
        self.path.restart();
    }

    pub fn accept_answer(&mut self, answer: &SessionDescription) -> Result<(), NegotiationError> {
        if !self.sections.offered || answer.media.len() > self.sections.list.len() {
            return Err(NegotiationError::Unexpected);
        }
        self.secure(answer, None)?;
        self.sections.offered = false;
        for (index, remote) in answer.media.iter().enumerate() {
            self.sections.list[index].remote = Some(remote.clone());
            self.take_refusal(index, remote);
        }
        // We offered actpass; a client that answers passive leaves the handshake's first step to us.
        let active = answer.media.iter().find_map(|m| m.setup) == Some(Setup::Passive);
        self.start(active);
        Ok(())
    }

    /// A client that cannot play what we offered leaves the codec out of its answer, or closes the section.
    fn take_refusal(&mut self, index: usize, remote: &MediaSection) {
        let State::Sending(id) = self.sections.list[index].state else { return };
        let Some(sender) = self.sections.senders.get_mut(&id) else { return };
        let payload = self.codecs.payload_for(&sender.spec, &remote.codecs).filter(|_| remote.port != 0);
        if let (Some((payload, plain)), Some((_, stream))) = (payload, &mut sender.stream) {
            // It may have taken the fallback.
            stream.codec = payload.codec;
            if let Some(egress) = &mut self.egress {
                let types = PayloadTypes { media: payload.pt, plain, rtx: payload.rtx };
                egress.negotiated(id, types, ExtensionIds::new(&remote.extensions));
            }
            return;
        }
        sender.refused = true;
        self.release(index, &State::Sending(id));
        self.sections.list[index].state = State::Draining;
    }

    fn start(&mut self, dtls_client: bool) {
        let mut api = self.rtc.direct_api();
        // Refused only when the crypto library is: then no packet ever flows and the join's verdict says so.
        let _ = api.start_dtls(dtls_client);
        api.start_sctp(dtls_client);
    }
}

impl From<IceCredentials> for IceCreds {
    fn from(own: IceCredentials) -> Self {
        IceCreds { ufrag: own.ufrag, pass: own.password }
    }
}
