//! Offers and answers between the opponent and media, at the beginning of a call and within it; and how media fares.

use std::ops::ControlFlow;

use super::super::content::{Description, Kind};
use super::super::description::outline;
use super::super::event::Media;
use super::super::negotiation::{Course, Exchange, PeerOffer};
use super::super::reason::Reason;
use super::super::streams::Stream;
use super::super::verdict::{Farewell, MediaError, Verdict};
use super::{
    CONNECT_TIMEOUT, Fate, Ignored, LOST_TIMEOUT, Leg, MAX_CANDIDATES, MEDIA_TIMEOUT, NEGOTIATE_TIMEOUT, Phase, Turn,
    end,
};

impl Leg {
    // --- the opponent's descriptions ---------------------------------------------------------------------------------

    pub(super) fn accept_description(
        &mut self,
        turn: &mut Turn<'_>,
        description: Description,
        streams: Option<Vec<Stream>>,
    ) -> Fate {
        let Description { is_offer, sdp } = description;
        if !is_offer {
            return self.accept_negotiated(turn, sdp, streams);
        }
        match self.negotiation.receive_offer(PeerOffer { sdp, streams }) {
            Course::Answer(exchange, offer) => self.have_answered(turn, exchange, offer),
            Course::Yield { ours, theirs, offer } => {
                self.streams.take_back();
                self.command(turn, Media::Rollback { exchange: ours });
                self.have_answered(turn, theirs, offer)
            }
            Course::Ignore => turn.ignore(Ignored::Glare),
            Course::Wait => ControlFlow::Continue(()),
        }
    }

    /// The answer to our offer within the call.
    fn accept_negotiated(&mut self, turn: &mut Turn<'_>, sdp: String, streams: Option<Vec<Stream>>) -> Fate {
        let Some(exchange) = self.negotiation.receive_answer() else { return turn.ignore(Ignored::OutOfOrder) };
        self.negotiation_ends = None;
        let Some(outline) = outline(&sdp) else { return self.bad_description() };
        self.streams.settle();
        if streams.is_some() {
            self.set_peer_streams(turn, streams);
        }
        self.hold(turn, outline.holds);
        self.candidates_left = MAX_CANDIDATES;
        self.command(turn, Media::Answer { exchange, sdp });
        self.offer_streams(turn);
        ControlFlow::Continue(())
    }

    pub(super) fn have_answered(&mut self, turn: &mut Turn<'_>, exchange: Exchange, offer: PeerOffer) -> Fate {
        let PeerOffer { sdp, streams } = offer;
        let Some(outline) = outline(&sdp) else { return self.bad_description() };
        // One that says nothing of streams leaves them as they are.
        if streams.is_some() {
            self.set_peer_streams(turn, streams);
        }
        self.hold(turn, outline.holds);
        self.candidates_left = MAX_CANDIDATES;
        self.negotiation_ends = Some(turn.now.instant + MEDIA_TIMEOUT);
        self.command(turn, Media::Offer { exchange, sdp });
        ControlFlow::Continue(())
    }

    /// A peer that waits for an answer which cannot come would take no offer any more.
    fn bad_description(&self) -> Fate {
        end(Verdict::BadDescription, self.farewell(Reason::UnknownError))
    }

    pub(super) fn set_peer_streams(&mut self, turn: &mut Turn<'_>, streams: Option<Vec<Stream>>) {
        self.peer_streams = streams.clone();
        self.command(turn, Media::PeerStreams(streams));
    }

    pub(super) fn hold(&mut self, turn: &mut Turn<'_>, is_held: bool) {
        if self.is_held != is_held {
            self.is_held = is_held;
            self.command(turn, Media::Held(is_held));
        }
    }

    // --- media's descriptions -----------------------------------------------------------------------------------------

    pub fn media_answer(
        &mut self,
        turn: &mut Turn<'_>,
        exchange: Exchange,
        answer: Result<String, MediaError>,
    ) -> Fate {
        let Some(waiting) = self.negotiation.answered(exchange) else { return turn.ignore(Ignored::Stale) };
        self.negotiation_ends = None;
        let (sdp, outline) = match readable(answer) {
            Ok(description) => description,
            Err(error) => return end(Verdict::MediaFailed(error), self.farewell(error.reason())),
        };
        let streams = self.streams.tell(outline);
        if matches!(self.phase, Phase::Answering) {
            self.send_answer(turn, sdp, streams);
        } else {
            let description = Description { is_offer: false, sdp };
            // Says nothing, but must be there: readers that hold to the specification would take no answer without it.
            let lifetime = Some(NEGOTIATE_TIMEOUT);
            self.say(turn, Kind::Negotiate { description, lifetime, streams: Some(streams) });
        }
        if let Some(offer) = waiting
            && let Course::Answer(exchange, offer) = self.negotiation.receive_offer(offer)
        {
            return self.have_answered(turn, exchange, offer);
        }
        self.offer_streams(turn);
        ControlFlow::Continue(())
    }

    pub fn media_offer(&mut self, turn: &mut Turn<'_>, exchange: Exchange, offer: Result<String, MediaError>) -> Fate {
        let (sdp, streams) = match readable(offer) {
            Ok(description) => description,
            Err(error) => return self.media_cannot_offer(turn, exchange, error),
        };
        if !self.negotiation.made(exchange) {
            return turn.ignore(Ignored::Stale);
        }
        let streams = self.streams.propose(streams);
        if let Phase::Offering { lifetime } = self.phase {
            // The phase ends before an answer could be late.
            self.negotiation_ends = None;
            self.send_invite(turn, lifetime, sdp, streams);
        } else {
            self.negotiation_ends = Some(turn.now.instant + NEGOTIATE_TIMEOUT);
            let description = Description { is_offer: true, sdp };
            self.say(turn, Kind::Negotiate { description, lifetime: Some(NEGOTIATE_TIMEOUT), streams: Some(streams) });
        }
        ControlFlow::Continue(())
    }

    /// Within a call, it goes on with what it has.
    fn media_cannot_offer(&mut self, turn: &mut Turn<'_>, exchange: Exchange, error: MediaError) -> Fate {
        if !self.negotiation.not_made(exchange) {
            return turn.ignore(Ignored::Stale);
        }
        self.negotiation_ends = None;
        if self.is_unsent() {
            return end(Verdict::MediaFailed(error), Farewell::Silent);
        }
        turn.ignored.add(Ignored::NoOffer);
        self.offer_streams(turn);
        ControlFlow::Continue(())
    }

    pub(super) fn negotiation_over(&mut self, turn: &mut Turn<'_>) -> Fate {
        self.negotiation_ends = None;
        let Some(exchange) = self.negotiation.give_up() else {
            return end(Verdict::MediaSlow, self.farewell(Reason::UnknownError));
        };
        if self.is_unsent() {
            return end(Verdict::MediaSlow, Farewell::Silent);
        }
        turn.ignored.add(Ignored::Unanswered);
        self.streams.give_up();
        self.command(turn, Media::Rollback { exchange });
        self.offer_streams(turn);
        ControlFlow::Continue(())
    }

    // --- our streams --------------------------------------------------------------------------------------------------

    pub fn streams_changed(&mut self, turn: &mut Turn<'_>, streams: Vec<Stream>) -> Fate {
        self.streams.want(streams);
        self.offer_streams(turn);
        ControlFlow::Continue(())
    }

    /// Offers what has yet to be offered, if it is our turn and the peer can take it; else tells what is muted.
    pub(super) fn offer_streams(&mut self, turn: &mut Turn<'_>) {
        let can_offer = matches!(self.phase, Phase::Established) && self.is_v1() && self.peer_streams.is_some();
        if can_offer && self.negotiation.is_stable() && self.streams.needs_offer() {
            self.have_offered(turn);
        } else {
            self.update(turn);
        }
    }

    pub(super) fn have_offered(&mut self, turn: &mut Turn<'_>) {
        let exchange = self.negotiation.offer();
        let streams = self.streams.ask();
        self.negotiation_ends = Some(turn.now.instant + MEDIA_TIMEOUT);
        self.command(turn, Media::CreateOffer { exchange, streams });
    }

    // --- the connection -----------------------------------------------------------------------------------------------

    pub(super) fn expect_connection(&mut self, turn: &mut Turn<'_>) {
        if !self.is_connected {
            let at = turn.now.instant + CONNECT_TIMEOUT;
            self.connection_ends = Some((at, Verdict::NeverConnected, Reason::IceTimeout));
        }
    }

    pub fn media_connected(&mut self) -> Fate {
        self.is_connected = true;
        self.connection_ends = None;
        ControlFlow::Continue(())
    }

    /// The client has some time to restart ICE.
    pub fn media_lost(&mut self, turn: &mut Turn<'_>) -> Fate {
        if self.is_connected {
            self.is_connected = false;
            let at = turn.now.instant + LOST_TIMEOUT;
            self.connection_ends = Some((at, Verdict::ConnectionLost, Reason::IceFailed));
        }
        ControlFlow::Continue(())
    }
}

/// A description of media's, and the streams in it.
fn readable(description: Result<String, MediaError>) -> Result<(String, Vec<String>), MediaError> {
    let sdp = description?;
    let streams = outline(&sdp).ok_or(MediaError::Failed)?.streams;
    Ok((sdp, streams))
}
