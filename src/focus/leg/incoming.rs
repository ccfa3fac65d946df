//! They call us.

use std::ops::ControlFlow;
use std::time::Duration;

use super::super::call::{CallKey, LegId};
use super::super::content::{Candidate, Content, Kind};
use super::super::envelope::{Envelope, Version};
use super::super::event::Output;
use super::super::ignored::Ignored;
use super::super::negotiation::{Course, PeerOffer};
use super::super::peer::Peer;
use super::super::reason::Reason;
use super::super::sequence::Sequence;
use super::super::streams::Stream;
use super::super::verdict::{Farewell, Refusal, Verdict};
use super::{Fate, Leg, Phase, SELECT_TIMEOUT, Turn, end};

/// An invitation that is good.
pub(in crate::focus) struct Invitation {
    pub call: CallKey,
    pub envelope: Envelope,
    pub offer: String,
    pub streams: Option<Vec<Stream>>,
    /// What is left of its lifetime.
    pub remaining: Duration,
    pub event_id: Option<String>,
    /// Our own ringing that it takes the place of.
    pub instead_of: Option<LegId>,
}

impl Leg {
    pub fn incoming(turn: &mut Turn<'_>, id: LegId, invitation: Invitation) -> Leg {
        let Invitation { call, envelope, offer, streams, remaining, event_id, instead_of } = invitation;
        turn.outputs.push_back(Output::Asked { leg: id, call: call.clone(), instead_of });
        let mut leg = Leg::new(id, Peer::new(call, &envelope), false, Phase::Asked { offer });
        leg.party = Some(envelope.party().map(str::to_owned));
        leg.phase_ends = Some(turn.now.instant + remaining);
        leg.peer_streams = streams;
        leg.sequence = envelope.device.as_ref().and_then(|device| device.seq).map(Sequence::after);
        if let Some(event_id) = event_id {
            leg.see(&event_id);
        }
        leg
    }

    /// The call is wanted.
    pub fn admit(&mut self, turn: &mut Turn<'_>) -> Fate {
        if !matches!(self.phase, Phase::Asked { .. }) {
            return turn.ignore(Ignored::Stale);
        }
        let Phase::Asked { offer } = std::mem::replace(&mut self.phase, Phase::Answering) else {
            return ControlFlow::Continue(());
        };
        let streams = self.peer_streams.take();
        self.set_peer_streams(turn, streams);
        let offer = PeerOffer { sdp: offer, streams: None };
        if let Course::Answer(exchange, offer) = self.negotiation.receive_offer(offer) {
            self.have_answered(turn, exchange, offer)?;
        }
        let party = self.party.clone().flatten();
        let candidates = self.early_candidates.take(party.as_deref());
        let dropped = self.pass_candidates(turn, candidates);
        turn.ignored.add_many(Ignored::Candidates, dropped);
        ControlFlow::Continue(())
    }

    pub fn refuse(&self, turn: &mut Turn<'_>, refusal: Refusal) -> Fate {
        if !matches!(self.phase, Phase::Asked { .. } | Phase::Answering) {
            return turn.ignore(Ignored::Stale);
        }
        let farewell = match refusal {
            Refusal::Declined => Farewell::Reject(Reason::UserHangup),
            Refusal::Busy => Farewell::Reject(Reason::UserBusy),
            Refusal::Ignored => Farewell::Silent,
        };
        end(Verdict::Refused(refusal), farewell)
    }

    /// Media has made the answer to the invitation. As we are ICE-lite, it has all of our candidates.
    pub(super) fn send_answer(&mut self, turn: &mut Turn<'_>, answer: String, streams: Vec<Stream>) {
        self.say(turn, Kind::Answer { answer, streams: Some(streams) });
        match self.peer.version {
            Version::V1 => {
                self.say(turn, Kind::Candidates(vec![Candidate::end()]));
                self.phase = Phase::Answered;
                self.phase_ends = Some(turn.now.instant + SELECT_TIMEOUT);
            }
            Version::V0 => self.establish(turn),
        }
        self.expect_connection(turn);
    }

    pub(super) fn accept_selection(&mut self, turn: &mut Turn<'_>, from: &Envelope, selected: &str) -> Fate {
        if self.is_outgoing || !self.is_with(from.party()) {
            return self.ignore_stray(turn, from);
        }
        let is_ours = selected == turn.settings.party_id;
        match self.phase {
            Phase::Answered if is_ours => {
                self.establish(turn);
                self.offer_streams(turn);
                ControlFlow::Continue(())
            }
            Phase::Answered => end(Verdict::NotSelected, Farewell::Silent),
            // Ours, before we have answered: it was answered by a process that is no more.
            Phase::Asked { .. } | Phase::Answering if is_ours => {
                end(Verdict::Leftover, Farewell::Hangup(Reason::UnknownError))
            }
            Phase::Asked { .. } | Phase::Answering => end(Verdict::TakenElsewhere, Farewell::Silent),
            Phase::Offering { .. } | Phase::Ringing | Phase::Established => turn.ignore(Ignored::OutOfOrder),
        }
    }

    /// An event of our own user: of another session, or of this one before it was started.
    pub fn receive_own(&mut self, turn: &mut Turn<'_>, content: &Content) -> Fate {
        let is_echo = content.envelope.party_id.as_ref() == Some(&turn.settings.party_id);
        if !matches!(self.phase, Phase::Asked { .. } | Phase::Answering) {
            return turn.ignore(if is_echo { Ignored::Echo } else { Ignored::OutOfOrder });
        }
        match content.kind {
            Kind::Answer { .. } if is_echo => end(Verdict::Leftover, Farewell::Hangup(Reason::UnknownError)),
            Kind::Answer { .. } | Kind::Reject(_) | Kind::Hangup(_) => end(Verdict::TakenElsewhere, Farewell::Silent),
            _ => turn.ignore(if is_echo { Ignored::Echo } else { Ignored::OutOfOrder }),
        }
    }
}
