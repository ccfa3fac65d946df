//! We call them.

use std::ops::ControlFlow;
use std::time::Duration;

use super::super::call::{CallKey, LegId};
use super::super::content::{Candidate, Kind};
use super::super::description::outline;
use super::super::envelope::Envelope;
use super::super::event::Media;
use super::super::peer::Peer;
use super::super::reason::Reason;
use super::super::streams::Stream;
use super::super::verdict::{Farewell, Verdict};
use super::{Fate, Ignored, Leg, Phase, Turn, end};

impl Leg {
    pub fn outgoing(turn: &mut Turn<'_>, id: LegId, call: CallKey, lifetime: Duration, streams: Vec<Stream>) -> Leg {
        let mut leg = Leg::new(id, Peer::unknown(call), true, Phase::Offering { lifetime });
        leg.streams.want(streams);
        leg.have_offered(turn);
        leg
    }

    /// Media has made the offer: all of the opponent's clients ring. As we are ICE-lite, it has all of our candidates.
    pub(super) fn send_invite(&mut self, turn: &mut Turn<'_>, lifetime: Duration, offer: String, streams: Vec<Stream>) {
        let invitee = Some(self.call().user.clone());
        self.say(turn, Kind::Invite { offer, lifetime, invitee, streams: Some(streams) });
        self.say(turn, Kind::Candidates(vec![Candidate::end()]));
        self.phase = Phase::Ringing;
        self.phase_ends = Some(turn.now.instant + lifetime);
    }

    /// The first client to answer has the call; the others learn so.
    pub(super) fn accept_answer(
        &mut self,
        turn: &mut Turn<'_>,
        from: &Envelope,
        sdp: String,
        streams: Option<Vec<Stream>>,
    ) -> Fate {
        if !self.is_ringing() {
            return self.ignore_stray(turn, from);
        }
        self.peer.version = from.version;
        self.party = Some(from.party().map(str::to_owned));
        let Some(outline) = outline(&sdp) else {
            return end(Verdict::BadDescription, Farewell::Hangup(Reason::UnknownError));
        };
        let Some(exchange) = self.negotiation.receive_answer() else { return turn.ignore(Ignored::OutOfOrder) };
        self.streams.settle();
        self.set_peer_streams(turn, streams);
        self.hold(turn, outline.holds);
        self.command(turn, Media::Answer { exchange, sdp });
        let candidates = std::mem::take(&mut self.early_candidates).take(from.party());
        let dropped = self.pass_candidates(turn, candidates);
        turn.ignored.add_many(Ignored::Candidates, dropped);
        self.select(turn, from);
        self.establish(turn);
        self.expect_connection(turn);
        self.offer_streams(turn);
        ControlFlow::Continue(())
    }

    /// Declined, on all of the opponent's clients; those that ring learn so. When one has answered, it is too late.
    pub(super) fn accept_reject(&mut self, turn: &mut Turn<'_>, from: &Envelope, reason: Reason) -> Fate {
        if !self.is_ringing() {
            return self.ignore_stray(turn, from);
        }
        self.select(turn, from);
        end(Verdict::Declined(reason), Farewell::Silent)
    }

    fn select(&mut self, turn: &mut Turn<'_>, from: &Envelope) {
        if let Some(party) = from.party() {
            self.say(turn, Kind::SelectAnswer { selected_party_id: party.to_owned() });
        }
    }
}
