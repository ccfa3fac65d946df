//! Offers and answers: which m-line carries what, and the SDP that says so.
//!
//! As answerer (LiveKit v1, and every publisher connection) each section keeps the direction the client gave it: what the
//! client sends we receive; a section it wants to receive in is `inactive` until a sender takes it. As offerer (LiveKit v0
//! downstream) each sender gets a section, an idle one before a new one. A section that carried a track is used again
//! only after one description said `inactive`: without it browsers and frame decryptors mix the two tracks up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use str0m::change::SdpOffer;
use str0m::media::{MediaKind as RtcKind, Mid, Rid};
use str0m::rtp::Ssrc;
use str0m::{Candidate, IceCreds, RtcConfig};
use thiserror::Error;

use super::channels::{Channels, MAX_BUFFERED_BYTES};
use super::codecs::{CodecTable, OpusOptions};
use super::sdp::{
    Direction, Fingerprint, IceCredentials as SdpIce, MediaSection, Msid, SdpError, SectionKind, SessionDescription,
    Setup, SsrcGroup, SsrcLine,
};
use super::{IceCredentials, Progress, Protocol, SenderId, Settings, Transport};
use crate::sfu::{Codec, MediaKind};

/// Simulcast layers of one section. The field publishes three; more is abuse.
const MAX_LAYERS: usize = 3;
/// str0m keeps ids in fixed arrays and would confuse two that share their beginning.
const MAX_MID_BYTES: usize = 16;
const MAX_RID_BYTES: usize = 8;
/// What LiveKit announces; a message above it is refused by SCTP.
const MAX_DATA_MESSAGE_BYTES: u32 = 65_535;
const SCTP_PORT: u16 = 5000;

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

/// A track the client sends, as one of its sections describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTrack {
    /// Index of the m-line.
    pub section: usize,
    pub mid: String,
    pub kind: MediaKind,
    /// The track's id in the SDP: the client's MediaStreamTrack id, unless a browser rewrote it.
    pub track_id: Option<String>,
    /// What it can send, its preference first.
    pub codecs: Vec<Codec>,
    /// Simulcast stream ids, lowest layer first; empty without simulcast.
    pub rids: Vec<String>,
}

/// What the room wants of a track it receives; goes into the next answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceivePreference {
    pub codec: Option<Codec>,
    pub opus: OpusOptions,
}

/// A stream to send, before a section is found for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderSpec {
    pub codec: Codec,
    /// The two parts of `a=msid`.
    pub stream_id: String,
    pub track_id: String,
}

pub(super) struct Sections {
    list: Vec<Section>,
    senders: BTreeMap<SenderId, Sender>,
    next_sender: u32,
    session_id: u64,
    version: u64,
    /// An offer of ours waits for its answer.
    offered: bool,
}

struct Section {
    mid: String,
    kind: SectionKind,
    state: State,
    /// The client's side of the section, from its last description; `None` before it answered our offer.
    remote: Option<MediaSection>,
    preference: ReceivePreference,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Port 0: stopped by the client, or nothing we can use.
    Rejected,
    Data,
    /// Free for a sender.
    Idle,
    Sending(SenderId),
    /// Its sender is gone; the next description says so.
    Draining,
    /// The client sends. Rids lowest layer first.
    Receiving {
        rids: Vec<String>,
    },
    /// The client stopped sending.
    Silent,
}

struct Sender {
    spec: SenderSpec,
    stream: Option<(usize, Stream)>,
    /// No section of this connection can carry the codec.
    refused: bool,
}

/// How a sender's packets look on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    pub ssrc: u32,
    pub rtx: Option<u32>,
    pub pt: u8,
}

impl Sections {
    fn new(session_id: u64) -> Self {
        Sections { list: Vec::new(), senders: BTreeMap::new(), next_sender: 0, session_id, version: 0, offered: false }
    }

    pub fn stream(&self, sender: SenderId) -> Option<Stream> {
        Some(self.senders.get(&sender)?.stream?.1)
    }

    pub fn sender_at(&self, mid: &str) -> Option<SenderId> {
        self.list.iter().find(|s| s.mid == mid).and_then(|s| match s.state {
            State::Sending(sender) => Some(sender),
            _ => None,
        })
    }

    /// Section index and layer of what arrives under this mid and rid.
    pub fn receiving(&self, mid: &str, rid: Option<&str>) -> Option<(usize, u8)> {
        let (index, section) = self.list.iter().enumerate().find(|(_, s)| s.mid == mid)?;
        let State::Receiving { rids } = &section.state else { return None };
        let layer = match rid {
            Some(rid) => rids.iter().position(|r| r == rid)?,
            None => 0,
        };
        Some((index, layer as u8))
    }

    pub fn layer_name(&self, section: usize, layer: u8) -> Option<(&str, Option<&str>)> {
        let section = self.list.get(section)?;
        let State::Receiving { rids } = &section.state else { return None };
        Some((&section.mid, rids.get(usize::from(layer)).map(String::as_str)))
    }

    fn idle(&self, kind: MediaKind) -> usize {
        self.list.iter().filter(|s| s.state == State::Idle && s.kind == section_kind(kind)).count()
    }
}

impl Transport {
    /// A connection that the client offers and that carries both ways. The first offer, which tells its numbers, is still
    /// to be given to [`Self::accept_offer`].
    pub fn answerer(
        settings: &Settings,
        first_offer: &str,
        ice: IceCredentials,
        session_id: u64,
        now: Instant,
    ) -> Result<Self, NegotiationError> {
        let offer = SessionDescription::parse(first_offer)?;
        Ok(Self::new(settings, CodecTable::from_offer(&offer), ice, session_id, now))
    }

    /// A connection that the client offers and only sends on. Its first offer may hold nothing but a data channel, and
    /// str0m learns payload types and extension numbers later only from descriptions that it answers itself: here, where
    /// nothing goes downstream, its answers will do.
    pub fn upstream(settings: &Settings, ice: IceCredentials, session_id: u64, now: Instant) -> Self {
        let mut transport = Self::new(settings, CodecTable::default(), ice, session_id, now);
        transport.upstream = Some(String::new());
        transport
    }

    /// A connection that we offer, with the LiveKit data channels.
    pub fn offerer(settings: &Settings, ice: IceCredentials, session_id: u64, now: Instant) -> Self {
        let mut transport = Self::new(settings, CodecTable::own(), ice, session_id, now);
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

    fn new(settings: &Settings, codecs: CodecTable, ice: IceCredentials, session_id: u64, now: Instant) -> Self {
        let config = codecs
            .configure(RtcConfig::new())
            .set_crypto_provider(settings.crypto.clone())
            .set_dtls_cert(settings.certificate.clone())
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .set_sctp_max_buffered_amount(MAX_BUFFERED_BYTES)
            .set_sctp_max_message_size(MAX_DATA_MESSAGE_BYTES)
            .set_local_ice_credentials(ice.into());
        let mut rtc = config.build(now);
        for (protocol, address) in &settings.candidates {
            if let Some(candidate) = local_candidate(*protocol, *address) {
                rtc.add_local_candidate(candidate);
            }
        }
        let mut api = rtc.direct_api();
        api.set_ice_controlling(false);
        api.enable_twcc_feedback();
        Transport {
            rtc,
            codecs,
            sections: Sections::new(session_id),
            channels: Channels::default(),
            upstream: None,
            streams: Default::default(),
            progress: Progress::NoChecks,
            last_received: now,
            settings: settings.clone(),
        }
    }

    /// Applies the client's offer. `fresh` replaces our ICE credentials when the
    /// client restarts ICE (RFC 8445 §9): then [`Self::ufrag`] changes.
    pub fn accept_offer(&mut self, sdp: &str, fresh: IceCredentials) -> Result<(), NegotiationError> {
        let offer = SessionDescription::parse(sdp)?;
        self.check_sections(&offer)?;
        match self.upstream {
            Some(_) => self.answer_upstream(sdp, &offer)?,
            None => self.secure(&offer, Some(fresh))?,
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
        let parsed = SdpOffer::from_sdp_string(sdp).map_err(|_| NegotiationError::Unanswerable)?;
        let answer = catch_unwind(AssertUnwindSafe(|| self.rtc.sdp_api().accept_offer(parsed)));
        let Ok(Ok(answer)) = answer else { return Err(NegotiationError::Unanswerable) };
        self.codecs.learn(offer);
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
    fn release(&mut self, index: usize, previous: &State) {
        if let State::Sending(sender) = previous
            && let Some(sender) = self.sections.senders.get_mut(sender)
        {
            sender.stream = None;
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

    /// Begins to send a stream. It has no section until [`Self::answer`] or [`Self::create_offer`] finds one.
    pub fn add_sender(&mut self, spec: SenderSpec) -> SenderId {
        let id = SenderId(self.sections.next_sender);
        self.sections.next_sender += 1;
        self.sections.senders.insert(id, Sender { spec, stream: None, refused: false });
        id
    }

    pub fn remove_sender(&mut self, id: SenderId) {
        let Some(sender) = self.sections.senders.remove(&id) else { return };
        if let Some((index, _)) = sender.stream {
            let previous = std::mem::replace(&mut self.sections.list[index].state, State::Draining);
            self.release(index, &previous);
        }
    }

    pub fn is_bound(&self, id: SenderId) -> bool {
        self.sections.stream(id).is_some()
    }

    /// Whether the client's description left no way to send this sender's codec.
    pub fn is_refused(&self, id: SenderId) -> bool {
        self.sections.senders.get(&id).is_some_and(|s| s.refused)
    }

    /// How many sections more than it has the client must offer: (audio, video).
    pub fn missing_sections(&self) -> (u32, u32) {
        let missing = |kind: MediaKind| {
            let waiting = self
                .sections
                .senders
                .values()
                .filter(|s| s.stream.is_none() && !s.refused && s.spec.codec.kind() == kind);
            waiting.count().saturating_sub(self.sections.idle(kind)) as u32
        };
        (missing(MediaKind::Audio), missing(MediaKind::Video))
    }

    /// Whether the client has yet to be told of a stream that began or ended.
    pub fn needs_description(&self) -> bool {
        self.sections.senders.values().any(|s| s.stream.is_none() && !s.refused)
            || self.sections.list.iter().any(|s| s.state == State::Draining)
    }

    /// Our answer to the offer applied last.
    pub fn answer(&mut self) -> (String, Vec<(String, SenderId)>) {
        if let Some(answer) = &self.upstream {
            return (answer.clone(), Vec::new());
        }
        self.bind_senders();
        let media = (0..self.sections.list.len()).map(|index| self.answer_section(index)).collect();
        self.settle();
        (self.describe(media), self.sending())
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

    /// The next offer of ours asks the client to restart ICE (RFC 8445 §9).
    pub fn restart_ice(&mut self, fresh: IceCredentials) {
        self.rtc.direct_api().set_local_ice_credentials(fresh.into());
    }

    pub fn accept_answer(&mut self, answer: &SessionDescription) -> Result<(), NegotiationError> {
        if !self.sections.offered || answer.media.len() > self.sections.list.len() {
            return Err(NegotiationError::Unexpected);
        }
        self.secure(answer, None)?;
        self.sections.offered = false;
        for (section, remote) in self.sections.list.iter_mut().zip(&answer.media) {
            section.remote = Some(remote.clone());
        }
        // We offered actpass; a client that answers passive leaves the handshake's first step to us.
        let active = answer.media.iter().find_map(|m| m.setup) == Some(Setup::Passive);
        self.start(active);
        Ok(())
    }

    fn start(&mut self, dtls_client: bool) {
        let mut api = self.rtc.direct_api();
        // Refused only when the crypto library is: then no packet ever flows and the join's verdict says so.
        let _ = api.start_dtls(dtls_client);
        api.start_sctp(dtls_client);
    }

    /// Gives every waiting sender an idle section of its kind.
    fn bind_senders(&mut self) {
        let waiting: Vec<SenderId> =
            self.sections.senders.iter().filter(|(_, s)| s.stream.is_none() && !s.refused).map(|(id, _)| *id).collect();
        for id in waiting {
            let kind = section_kind(self.sections.senders[&id].spec.codec.kind());
            if let Some(index) = self.sections.list.iter().position(|s| s.state == State::Idle && s.kind == kind) {
                self.bind(id, index);
            }
        }
    }

    fn bind(&mut self, id: SenderId, index: usize) {
        let section = &mut self.sections.list[index];
        let Some(sender) = self.sections.senders.get_mut(&id) else { return };
        let codec = sender.spec.codec;
        let payload = match &section.remote {
            Some(remote) => self.codecs.payload_in(codec, &remote.codecs),
            None => self.codecs.payload_in(codec, &self.codecs.offer(codec.kind()).0),
        };
        let Some(payload) = payload else {
            sender.refused = true;
            return;
        };
        let mid = Mid::from(section.mid.as_str());
        let kind = if codec.kind() == MediaKind::Audio { RtcKind::Audio } else { RtcKind::Video };
        let mut api = self.rtc.direct_api();
        api.declare_media(mid, kind);
        let ssrc = api.new_ssrc();
        let rtx = payload.rtx.map(|_| {
            let mut rtx = api.new_ssrc();
            while rtx == ssrc {
                rtx = api.new_ssrc();
            }
            rtx
        });
        api.declare_stream_tx(ssrc, rtx, mid, None);
        sender.stream = Some((index, Stream { ssrc: *ssrc, rtx: rtx.map(|r| *r), pt: payload.pt }));
        section.state = State::Sending(id);
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
                let codec = self.sections.senders.get(id).map(|s| s.spec.codec);
                self.codecs.answer(remote, codec, OpusOptions::default())
            }
            _ => self.codecs.answer(remote, section.preference.codec, section.preference.opus),
        };
        let mut answer = MediaSection { codecs, extensions, setup: Some(Setup::Passive), ..self.blank(section) };
        match &section.state {
            State::Rejected => answer.port = 0,
            State::Receiving { rids } => {
                answer.direction = Direction::RecvOnly;
                answer.rids = rids
                    .iter()
                    .map(|id| super::sdp::RidLine { id: id.clone(), direction: super::sdp::RidDirection::Recv })
                    .collect();
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
        let (codecs, extensions) = match section.kind {
            SectionKind::Application => Default::default(),
            SectionKind::Audio => self.codecs.offer(MediaKind::Audio),
            SectionKind::Video => self.codecs.offer(MediaKind::Video),
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
        let cname = Some(sender.spec.stream_id.split('|').next().unwrap_or_default().to_owned());
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
            max_message_size: data.then_some(u64::from(MAX_DATA_MESSAGE_BYTES)),
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

impl From<IceCredentials> for IceCreds {
    fn from(own: IceCredentials) -> Self {
        IceCreds { ufrag: own.ufrag, pass: own.password }
    }
}

fn section_kind(kind: MediaKind) -> SectionKind {
    match kind {
        MediaKind::Audio => SectionKind::Audio,
        MediaKind::Video => SectionKind::Video,
    }
}

fn local_candidate(protocol: Protocol, address: SocketAddr) -> Option<Candidate> {
    match protocol {
        Protocol::Udp => Candidate::builder().udp().host(address).build().ok(),
        Protocol::Tcp => Candidate::builder().tcp().host(address).tcptype(str0m::net::TcpType::Passive).build().ok(),
    }
}

/// Lowest layer first. LiveKit names them `q`, `h`, `f` whatever their order in the SDP; others list them upwards.
fn layer_order(rids: &[String]) -> Vec<String> {
    const NAMES: [&str; 3] = ["q", "h", "f"];
    let mut rids: Vec<String> = rids
        .iter()
        .filter(|rid| !rid.is_empty() && rid.len() <= MAX_RID_BYTES && rid.bytes().all(|b| b.is_ascii_alphanumeric()))
        .take(MAX_LAYERS)
        .cloned()
        .collect();
    if rids.iter().all(|rid| NAMES.contains(&rid.as_str())) {
        rids.sort_by_key(|rid| NAMES.iter().position(|name| name == rid));
    }
    rids
}
