//! One call of one opponent with us: a peer connection of the SFU, seen from Matrix.
//!
//! ```text
//! they call:  Asked ──admit──▶ Answering ──media_answer──▶ Answered ──select_answer──▶ Established
//! we call:    Offering ──media_offer──▶ Ringing ──answer──▶ Established
//! ```
//!
//! [`Focus`](super::Focus) owns legs and gives them what concerns them. A step of a leg says what is to be done through its
//! [`Turn`] and gives a [`Fate`]: a leg that ends is taken away at once, so nothing can be said after its farewell.
//! `incoming` and `outgoing` have the way to Established, `exchanges` what happens between the leg and media.

mod exchanges;
mod incoming;
mod outgoing;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::Settings;
use super::call::{CallKey, LegId, OpenCall, Scope};
use super::candidates::CandidateBuffers;
use super::content::{Candidate, Content, Identity, Kind};
use super::envelope::{Envelope, Version};
use super::event::{Event, Media, Output};
use super::ignored::{Ignored, IgnoredCounts};
use super::negotiation::Negotiation;
use super::peer::Peer;
use super::reason::Reason;
use super::sequence::{Arrival, Sequence};
use super::streams::{self, LocalStreams, Stream};
use super::verdict::{Cause, End, Farewell, Verdict};
use crate::sfu::Now;

pub(super) use incoming::Invitation;

/// How long media may take over a description. It does no I/O for one; this covers a stall of its thread.
const MEDIA_TIMEOUT: Duration = Duration::from_secs(10);

/// From our answer to the caller's `select_answer`, which it sends as soon as it has set our answer.
const SELECT_TIMEOUT: Duration = Duration::from_secs(30);

/// From the exchange of descriptions to media: ICE and DTLS over a bad line, and as long as clients try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a broken connection may take to come back, with an ICE restart that the client asks for; as clients wait.
const LOST_TIMEOUT: Duration = Duration::from_secs(30);

/// The lifetime of our offers within a call: an answer needs nobody to press a button.
const NEGOTIATE_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two updates of who speaks and who is muted: homeservers slow down who sends more than a few events a second.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// Candidates given to media for each description of the peer's.
const MAX_CANDIDATES: usize = 128;

/// Events remembered as seen. Repeats come when a sync is repeated, which has some ten events of a room.
const MAX_SEEN: usize = 128;

/// Whether a leg goes on.
pub(super) type Fate = ControlFlow<End>;

pub(super) fn end(verdict: Verdict, farewell: Farewell) -> Fate {
    ControlFlow::Break(End { verdict, farewell })
}

/// What a step of a leg may touch beside the leg.
pub(super) struct Turn<'a> {
    pub now: Now,
    pub settings: &'a Settings,
    pub outputs: &'a mut VecDeque<Output>,
    pub ignored: &'a mut IgnoredCounts,
}

impl Turn<'_> {
    pub fn ignore(&mut self, reason: Ignored) -> Fate {
        self.ignored.add(reason);
        ControlFlow::Continue(())
    }
}

#[derive(Debug)]
enum Phase {
    /// They call; somebody decides about it.
    Asked {
        offer: String,
    },
    /// They call; media makes our answer.
    Answering,
    /// They call and have our answer; it is not selected yet.
    Answered,
    /// We call; media makes our offer.
    Offering {
        lifetime: Duration,
    },
    /// We call; nobody has answered yet.
    Ringing,
    Established,
}

pub(super) struct Leg {
    id: LegId,
    peer: Peer,
    is_outgoing: bool,
    /// Which of the opponent's clients it is; `None` until one has answered us. Version 0 has no name for it.
    party: Option<Option<String>>,
    phase: Phase,
    phase_ends: Option<Instant>,
    negotiation: Negotiation,
    negotiation_ends: Option<Instant>,
    is_connected: bool,
    /// With what is to be said then.
    connection_ends: Option<(Instant, Verdict, Reason)>,
    streams: LocalStreams,
    /// `None`: the peer does not know of streams.
    peer_streams: Option<Vec<Stream>>,
    is_held: bool,
    identity: Told<Option<Identity>>,
    updated: Option<Instant>,
    update_due: Option<Instant>,
    early_candidates: CandidateBuffers,
    candidates_left: usize,
    seen: VecDeque<u64>,
    /// Of a peer that numbers its to-device messages.
    sequence: Option<Sequence<(Content, Duration)>>,
    /// Media has been asked for something.
    has_media: bool,
}

/// Something that is said when it changes.
#[derive(Debug, Default)]
struct Told<T> {
    wanted: T,
    told: T,
}

impl Leg {
    fn new(id: LegId, peer: Peer, is_outgoing: bool, phase: Phase) -> Leg {
        Leg {
            id,
            peer,
            is_outgoing,
            party: None,
            phase,
            phase_ends: None,
            // The callee is the polite side.
            negotiation: Negotiation::new(!is_outgoing),
            negotiation_ends: None,
            is_connected: false,
            connection_ends: None,
            streams: LocalStreams::default(),
            peer_streams: None,
            is_held: false,
            identity: Told::default(),
            updated: None,
            update_due: None,
            early_candidates: CandidateBuffers::default(),
            candidates_left: MAX_CANDIDATES,
            seen: VecDeque::new(),
            sequence: None,
            has_media: false,
        }
    }

    pub fn call(&self) -> &CallKey {
        &self.peer.call
    }

    /// Whether it is with this client of the opponent's.
    pub fn is_with(&self, party: Option<&str>) -> bool {
        self.party.as_ref().is_some_and(|known| known.as_deref() == party)
    }

    /// Ours, of which the opponent does not know yet.
    pub fn is_unsent(&self) -> bool {
        matches!(self.phase, Phase::Offering { .. })
    }

    pub fn is_ringing(&self) -> bool {
        matches!(self.phase, Phase::Ringing)
    }

    pub fn session(&self) -> Option<&str> {
        self.peer.session.as_deref()
    }

    #[cfg(test)]
    pub fn buffered_candidates(&self) -> usize {
        self.early_candidates.len()
    }

    /// What another process must know to hang up, once the opponent waits for more of us.
    pub fn open_call(&self) -> Option<OpenCall> {
        let CallKey { scope: Scope::Room(room), user, call_id, .. } = self.call() else { return None };
        let is_open = matches!(self.phase, Phase::Answered | Phase::Ringing | Phase::Established);
        let (room, user, call_id) = (room.clone(), user.clone(), call_id.clone());
        is_open.then_some(OpenCall { room, user, call_id, version: self.peer.version })
    }

    // --- what comes from Matrix ------------------------------------------------------------------------------------

    /// An event of the opponent's.
    pub fn receive(&mut self, turn: &mut Turn<'_>, event: Event) -> Fate {
        if event.event_id.as_deref().is_some_and(|id| !self.see(id)) {
            return turn.ignore(Ignored::Repeated);
        }
        let Event { content, age, .. } = event;
        let device = content.envelope.device.as_ref();
        if device.is_some_and(|device| self.session() != Some(&device.sender_session_id)) {
            return turn.ignore(Ignored::Stranger);
        }
        let seq = device.and_then(|device| device.seq);
        match (&mut self.sequence, seq) {
            (Some(sequence), Some(seq)) => {
                if sequence.push(turn.now.instant, seq, (content, age)) == Arrival::Repeated {
                    return turn.ignore(Ignored::Repeated);
                }
                self.receive_in_order(turn)
            }
            _ => self.accept(turn, content, age),
        }
    }

    fn receive_in_order(&mut self, turn: &mut Turn<'_>) -> Fate {
        while let Some((content, age)) = self.sequence.as_mut().and_then(|sequence| sequence.pop(turn.now.instant)) {
            self.accept(turn, content, age)?;
        }
        ControlFlow::Continue(())
    }

    fn accept(&mut self, turn: &mut Turn<'_>, content: Content, age: Duration) -> Fate {
        let Content { envelope, kind } = content;
        match kind {
            Kind::Invite { .. } => turn.ignore(Ignored::Repeated),
            Kind::Candidates(candidates) => self.accept_candidates(turn, &envelope, candidates),
            Kind::Answer { answer, streams } => self.accept_answer(turn, &envelope, answer, streams),
            Kind::SelectAnswer { selected_party_id } => self.accept_selection(turn, &envelope, &selected_party_id),
            Kind::Reject(reason) => self.accept_reject(turn, &envelope, reason),
            Kind::Negotiate { description, lifetime, streams } => {
                if !self.is_negotiable() || !self.is_with(envelope.party()) {
                    return self.ignore_stray(turn, &envelope);
                }
                // An answer is as good as our patience.
                if description.is_offer && lifetime.is_some_and(|lifetime| age > lifetime) {
                    return turn.ignore(Ignored::Expired);
                }
                self.accept_description(turn, description, streams)
            }
            Kind::StreamsChanged(changed) => {
                if !self.is_negotiable() || !self.is_with(envelope.party()) {
                    return self.ignore_stray(turn, &envelope);
                }
                let mut streams = self.peer_streams.clone().unwrap_or_default();
                streams::merge(&mut streams, changed);
                self.set_peer_streams(turn, Some(streams));
                ControlFlow::Continue(())
            }
            Kind::Hangup(reason) => self.accept_hangup(turn, &envelope, reason),
            // Only a gateway says so; we know our opponents by their Matrix ids.
            Kind::AssertedIdentity(_) => ControlFlow::Continue(()),
        }
    }

    /// Before it is known with whom the call is, candidates wait.
    fn accept_candidates(&mut self, turn: &mut Turn<'_>, from: &Envelope, candidates: Vec<Candidate>) -> Fate {
        let dropped = match self.phase {
            Phase::Offering { .. } => return turn.ignore(Ignored::OutOfOrder),
            Phase::Ringing => self.early_candidates.push(from.party(), candidates),
            _ if !self.is_with(from.party()) => return turn.ignore(Ignored::Stranger),
            Phase::Asked { .. } => self.early_candidates.push(from.party(), candidates),
            Phase::Answering | Phase::Answered | Phase::Established => self.pass_candidates(turn, candidates),
        };
        turn.ignored.add_many(Ignored::Candidates, dropped);
        ControlFlow::Continue(())
    }

    /// Gives how many were too many.
    fn pass_candidates(&mut self, turn: &mut Turn<'_>, mut candidates: Vec<Candidate>) -> usize {
        let dropped = candidates.len().saturating_sub(self.candidates_left);
        candidates.truncate(self.candidates_left);
        self.candidates_left -= candidates.len();
        if !candidates.is_empty() {
            self.command(turn, Media::Candidates(candidates));
        }
        dropped
    }

    fn accept_hangup(&mut self, turn: &mut Turn<'_>, from: &Envelope, reason: Reason) -> Fate {
        match self.phase {
            Phase::Offering { .. } => turn.ignore(Ignored::OutOfOrder),
            // Version 0 declines like this.
            Phase::Ringing => end(Verdict::Declined(reason), Farewell::Silent),
            Phase::Asked { .. } | Phase::Answering => end(Verdict::HungUp(reason), Farewell::Silent),
            Phase::Answered | Phase::Established if self.is_with(from.party()) => {
                end(Verdict::HungUp(reason), Farewell::Silent)
            }
            Phase::Answered | Phase::Established => turn.ignore(Ignored::Stranger),
        }
    }

    fn ignore_stray(&mut self, turn: &mut Turn<'_>, from: &Envelope) -> Fate {
        let is_stranger = self.party.is_some() && !self.is_with(from.party());
        turn.ignore(if is_stranger { Ignored::Stranger } else { Ignored::OutOfOrder })
    }

    /// False when it was seen before.
    fn see(&mut self, event_id: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        event_id.hash(&mut hasher);
        let hash = hasher.finish();
        if self.seen.contains(&hash) {
            return false;
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(hash);
        true
    }

    // --- what comes from whoever drives us ----------------------------------------------------------------------------

    pub fn end(&self, cause: Cause) -> Fate {
        end(Verdict::Ended(cause), self.farewell(cause.reason()))
    }

    pub fn shut_down(&self) -> Fate {
        end(Verdict::ShutDown, self.farewell(Reason::UserHangup))
    }

    pub fn give_way(&self, reason: Reason) -> Fate {
        end(Verdict::Replaced, self.farewell(reason))
    }

    /// Without what is only told for information the call goes on.
    pub fn send_failed(&self, event_type: &str) -> Fate {
        match event_type {
            "m.call.invite" | "m.call.answer" | "m.call.negotiate" => {
                end(Verdict::SendFailed, self.farewell(Reason::SignallingTimeout))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    pub fn assert_identity(&mut self, turn: &mut Turn<'_>, identity: Option<Identity>) -> Fate {
        self.identity.wanted = identity;
        self.update(turn);
        ControlFlow::Continue(())
    }

    /// How the opponent is told of an end at this point.
    fn farewell(&self, reason: Reason) -> Farewell {
        match self.phase {
            Phase::Asked { .. } | Phase::Answering => Farewell::Reject(reason),
            Phase::Offering { .. } => Farewell::Silent,
            Phase::Answered | Phase::Ringing | Phase::Established => Farewell::Hangup(reason),
        }
    }

    // --- time ---------------------------------------------------------------------------------------------------------

    pub fn deadline(&self) -> Option<Instant> {
        let connection_ends = self.connection_ends.map(|(at, ..)| at);
        let gap_ends = self.sequence.as_ref().and_then(Sequence::deadline);
        [self.phase_ends, self.negotiation_ends, connection_ends, self.update_due, gap_ends].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, turn: &mut Turn<'_>) -> Fate {
        let now = turn.now.instant;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.sequence.as_ref().and_then(Sequence::deadline)) {
            self.receive_in_order(turn)?;
        }
        if is_due(self.phase_ends) {
            return self.phase_over();
        }
        if let Some((_, verdict, reason)) = self.connection_ends.filter(|(at, ..)| *at <= now) {
            return end(verdict, self.farewell(reason));
        }
        if is_due(self.negotiation_ends) {
            self.negotiation_over(turn)?;
        }
        if is_due(self.update_due) {
            self.update(turn);
        }
        ControlFlow::Continue(())
    }

    fn phase_over(&self) -> Fate {
        match self.phase {
            Phase::Asked { .. } | Phase::Answering => end(Verdict::Expired, Farewell::Silent),
            Phase::Answered => end(Verdict::NeverSelected, self.farewell(Reason::UnknownError)),
            Phase::Ringing => end(Verdict::NoAnswer, self.farewell(Reason::InviteTimeout)),
            Phase::Offering { .. } | Phase::Established => ControlFlow::Continue(()),
        }
    }

    // --- saying it ----------------------------------------------------------------------------------------------------

    fn say(&mut self, turn: &mut Turn<'_>, kind: Kind) {
        self.peer.say(turn.settings, turn.outputs, Some(self.id), kind);
    }

    /// What the leg says and does when it is taken away.
    pub fn finish(mut self, turn: &mut Turn<'_>, end: End) -> CallKey {
        self.peer.say_farewell(turn.settings, turn.outputs, Some(self.id), end.farewell);
        if self.has_media {
            turn.outputs.push_back(Output::Media { leg: self.id, command: Media::End });
        }
        let Leg { id, peer: Peer { call, .. }, .. } = self;
        turn.outputs.push_back(Output::Verdict { leg: Some(id), call: call.clone(), verdict: end.verdict });
        call
    }

    fn command(&mut self, turn: &mut Turn<'_>, command: Media) {
        self.has_media = true;
        turn.outputs.push_back(Output::Media { leg: self.id, command });
    }

    fn is_v1(&self) -> bool {
        self.peer.version == Version::V1
    }

    /// Descriptions may be exchanged again.
    fn is_negotiable(&self) -> bool {
        self.is_v1() && matches!(self.phase, Phase::Answered | Phase::Established)
    }

    fn establish(&mut self, turn: &mut Turn<'_>) {
        self.phase = Phase::Established;
        self.phase_ends = None;
        turn.outputs.push_back(Output::Established { leg: self.id });
    }

    /// Tells who is muted and who is on the line, if that changed since it was told: now, or when enough time has passed.
    fn update(&mut self, turn: &mut Turn<'_>) {
        self.update_due = None;
        let has_news =
            self.identity.wanted != self.identity.told || self.peer_streams.is_some() && self.streams.has_changes();
        if !has_news || !self.is_negotiable() {
            return;
        }
        let now = turn.now.instant;
        if let Some(at) = self.updated.map(|at| at + UPDATE_INTERVAL).filter(|at| *at > now) {
            self.update_due = Some(at);
            return;
        }
        self.updated = Some(now);
        if self.peer_streams.is_some()
            && let Some(changed) = self.streams.tell_changes()
        {
            self.say(turn, Kind::StreamsChanged(changed));
        }
        if self.identity.wanted != self.identity.told {
            self.identity.told = self.identity.wanted.clone();
            let identity = self.identity.told.clone().unwrap_or_default();
            self.say(turn, Kind::AssertedIdentity(identity));
        }
    }
}
