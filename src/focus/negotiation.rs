//! Whose turn it is in a call's exchanges of offers and answers: the pattern of perfect negotiation (W3C WebRTC §10.7).
//!
//! When both sides offer at once, the polite one takes its offer back. The callee of a call is the polite one. A
//! [`Leg`](super::leg) does what this says; media is slow to answer, so every exchange has a number, and what comes for
//! an older one is known by it.

use super::streams::Stream;

/// One exchange of an offer and an answer. Counts up within a leg.
pub type Exchange = u32;

#[derive(Debug)]
pub(super) struct Negotiation {
    is_polite: bool,
    last: Exchange,
    state: State,
}

#[derive(Debug)]
enum State {
    Stable,
    /// Media makes our offer.
    Making(Exchange),
    /// Our offer is on its way, or with the peer.
    Offered(Exchange),
    /// Media answers the peer's offer. One that came meanwhile waits.
    Answering(Exchange, Option<PeerOffer>),
}

/// An offer of the peer's, as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PeerOffer {
    pub sdp: String,
    pub streams: Option<Vec<Stream>>,
}

/// What to do with an offer of the peer's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Have media answer it.
    Answer(Exchange, PeerOffer),
    /// Take ours back, then have media answer it.
    Yield { ours: Exchange, theirs: Exchange, offer: PeerOffer },
    /// Both offered, and ours stands.
    Ignore,
    /// It is kept until media has answered the one before.
    Wait,
}

impl Negotiation {
    pub fn new(is_polite: bool) -> Negotiation {
        Negotiation { is_polite, last: 0, state: State::Stable }
    }

    pub fn is_stable(&self) -> bool {
        matches!(self.state, State::Stable)
    }

    /// Begins an exchange with an offer of ours; only when stable.
    pub fn offer(&mut self) -> Exchange {
        let exchange = self.next();
        self.state = State::Making(exchange);
        exchange
    }

    /// Media has made the offer. False: of an exchange that is no more.
    pub fn made(&mut self, exchange: Exchange) -> bool {
        let is_current = matches!(self.state, State::Making(current) if current == exchange);
        if is_current {
            self.state = State::Offered(exchange);
        }
        is_current
    }

    /// Media cannot make it. False: of an exchange that is no more.
    pub fn not_made(&mut self, exchange: Exchange) -> bool {
        let is_current = matches!(self.state, State::Making(current) if current == exchange);
        if is_current {
            self.state = State::Stable;
        }
        is_current
    }

    pub fn receive_offer(&mut self, offer: PeerOffer) -> Course {
        match &mut self.state {
            State::Stable => Course::Answer(self.answer(), offer),
            State::Making(_) | State::Offered(_) if !self.is_polite => Course::Ignore,
            State::Making(ours) | State::Offered(ours) => {
                let ours = *ours;
                Course::Yield { ours, theirs: self.answer(), offer }
            }
            // Only the newest counts: a peer that offers again has given up the one before.
            State::Answering(_, waiting) => {
                *waiting = Some(offer);
                Course::Wait
            }
        }
    }

    /// The peer answers our offer. `None` when there is none to answer.
    pub fn receive_answer(&mut self) -> Option<Exchange> {
        let State::Offered(exchange) = self.state else { return None };
        self.state = State::Stable;
        Some(exchange)
    }

    /// Media has answered the peer's offer; gives the one that waits. `None`: of an exchange that is no more.
    pub fn answered(&mut self, exchange: Exchange) -> Option<Option<PeerOffer>> {
        match &mut self.state {
            State::Answering(current, waiting) if *current == exchange => {
                let waiting = waiting.take();
                self.state = State::Stable;
                Some(waiting)
            }
            _ => None,
        }
    }

    /// Takes back an offer of ours that nobody answers.
    pub fn give_up(&mut self) -> Option<Exchange> {
        let (State::Making(exchange) | State::Offered(exchange)) = self.state else { return None };
        self.state = State::Stable;
        Some(exchange)
    }

    fn answer(&mut self) -> Exchange {
        let exchange = self.next();
        self.state = State::Answering(exchange, None);
        exchange
    }

    fn next(&mut self) -> Exchange {
        self.last = self.last.wrapping_add(1);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(sdp: &str) -> PeerOffer {
        PeerOffer { sdp: sdp.into(), streams: None }
    }

    #[test]
    fn exchanges_follow_each_other() {
        let mut ours = Negotiation::new(true);
        assert_eq!(ours.offer(), 1);
        assert!(!ours.is_stable() && ours.receive_answer().is_none(), "not offered yet");
        assert!(!ours.made(7) && ours.made(1) && !ours.made(1));
        assert_eq!(ours.receive_answer(), Some(1));
        assert!(ours.is_stable() && ours.receive_answer().is_none(), "answered already");
        assert_eq!(ours.receive_offer(offer("a")), Course::Answer(2, offer("a")));
        assert!(ours.answered(1).is_none(), "of an exchange that is over");
        assert!(ours.answered(2).is_some_and(|waiting| waiting.is_none()) && ours.is_stable());
    }

    #[test]
    fn the_polite_side_yields() {
        for made in [false, true] {
            let mut polite = Negotiation::new(true);
            polite.offer();
            assert!(!made || polite.made(1));
            assert_eq!(polite.receive_offer(offer("a")), Course::Yield { ours: 1, theirs: 2, offer: offer("a") });
            assert!(!polite.made(1) && !polite.not_made(1) && polite.receive_answer().is_none(), "taken back");
            assert!(polite.answered(2).is_some());
        }
    }

    #[test]
    fn the_impolite_side_stands() {
        let mut impolite = Negotiation::new(false);
        impolite.offer();
        assert_eq!(impolite.receive_offer(offer("a")), Course::Ignore);
        assert!(impolite.made(1));
        assert_eq!(impolite.receive_offer(offer("a")), Course::Ignore);
        assert_eq!(impolite.receive_answer(), Some(1));
        assert_eq!(impolite.receive_offer(offer("a")), Course::Answer(2, offer("a")), "no collision now");
    }

    #[test]
    fn the_newest_of_many_offers_waits() {
        let mut negotiation = Negotiation::new(true);
        assert_eq!(negotiation.receive_offer(offer("a")), Course::Answer(1, offer("a")));
        assert_eq!(negotiation.receive_offer(offer("second")), Course::Wait);
        assert_eq!(negotiation.receive_offer(offer("third")), Course::Wait);
        let next = negotiation.answered(1).flatten().unwrap();
        assert_eq!(next.sdp, "third");
    }

    #[test]
    fn an_offer_can_be_given_up() {
        let mut negotiation = Negotiation::new(false);
        assert_eq!(negotiation.give_up(), None);
        negotiation.offer();
        assert_eq!(negotiation.give_up(), Some(1));
        negotiation.offer();
        assert!(negotiation.not_made(2) && negotiation.is_stable());
        negotiation.receive_offer(offer("a"));
        assert_eq!(negotiation.give_up(), None, "theirs is not ours to give up");
    }
}
