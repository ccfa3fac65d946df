//! A client that does as the specification says, over a network that takes its time: however both sides' wishes cross, in
//! the end each knows what the other sends.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// An opponent with perfect negotiation (W3C WebRTC §10.7).
struct Client {
    is_polite: bool,
    /// It waits for the answer to its offer.
    has_offered: bool,
    /// Something changed that has yet to be offered.
    needs_offer: bool,
    holds: bool,
    /// Our streams, as it was told.
    streams: Vec<Stream>,
}

impl Client {
    fn sdp(&self) -> String {
        sdp(&[(if self.holds { "sendonly" } else { "sendrecv" }, "alice")])
    }

    fn offer(&mut self) -> Option<Kind> {
        if self.has_offered {
            self.needs_offer = true;
            return None;
        }
        (self.has_offered, self.needs_offer) = (true, false);
        Some(negotiate(true, self.sdp()))
    }

    /// What it says to what it hears.
    fn hear(&mut self, kind: Kind) -> Option<Kind> {
        match kind {
            Kind::Negotiate { description: Description { is_offer: true, .. }, streams, .. } => {
                if self.has_offered && !self.is_polite {
                    return None;
                }
                self.needs_offer |= std::mem::take(&mut self.has_offered);
                self.streams = streams.unwrap();
                Some(negotiate(false, self.sdp()))
            }
            Kind::Negotiate { streams, .. } => {
                assert!(self.has_offered, "an answer to nothing");
                self.has_offered = false;
                self.streams = streams.unwrap();
                None
            }
            Kind::StreamsChanged(streams) => {
                self.streams = streams;
                None
            }
            Kind::AssertedIdentity(_) => None,
            kind => panic!("{kind:?}"),
        }
    }
}

struct World {
    bench: Bench,
    leg: LegId,
    call_id: String,
    client: Client,
    to_client: VecDeque<Kind>,
    to_us: VecDeque<Kind>,
    media: VecDeque<Media>,
    /// What media was asked to offer last, if that still stands.
    offering: Option<(Exchange, Vec<Stream>)>,
    /// Our streams, as media was asked for them and the client took them.
    agreed: Vec<Stream>,
    wanted: Vec<Stream>,
    held: bool,
}

impl World {
    fn new(client_calls: bool) -> World {
        let mut bench = Bench::new();
        let (leg, call_id) = if client_calls { (bench.established(), "c".to_owned()) } else { bench.taken() };
        let client = Client {
            is_polite: !client_calls,
            has_offered: false,
            needs_offer: false,
            holds: false,
            streams: vec![camera()],
        };
        World {
            bench,
            leg,
            call_id,
            client,
            to_client: VecDeque::new(),
            to_us: VecDeque::new(),
            media: VecDeque::new(),
            offering: None,
            agreed: vec![camera()],
            wanted: vec![camera()],
            held: false,
        }
    }

    fn step(&mut self, (what, how): (u8, u8)) {
        match what % 6 {
            0 => {
                self.client.holds = how & 1 == 0;
                let offer = self.client.offer();
                self.to_us.extend(offer);
            }
            1 => {
                let muted = Stream { audio_muted: how & 2 == 0, ..camera() };
                self.wanted = if how & 1 == 0 { vec![muted] } else { vec![muted, screen()] };
                self.bench.focus.streams_changed(self.bench.now, self.leg, self.wanted.clone());
            }
            2 => self.deliver_to_client(),
            3 => self.deliver_to_us(),
            4 => self.serve_media(),
            _ => {
                self.bench.now.instant += Duration::from_millis(u64::from(how) * 4);
                self.bench.focus.handle_timeout(self.bench.now);
            }
        }
        self.take();
    }

    fn take(&mut self) {
        for out in self.bench.outs() {
            match out {
                Said(kind) => self.to_client.push_back(kind),
                Out::Media(Media::Held(held)) => self.held = held,
                Out::Media(Media::PeerStreams(streams)) => assert_eq!(streams, alice_streams()),
                Out::Media(Media::Rollback { exchange }) => {
                    let (ours, _) = self.offering.take().unwrap();
                    assert_eq!(exchange, ours);
                }
                Out::Media(Media::Answer { exchange, .. }) => {
                    let (ours, streams) = self.offering.take().unwrap();
                    assert_eq!(exchange, ours);
                    self.agreed = streams;
                }
                Out::Media(command) => {
                    if let Media::CreateOffer { exchange, streams } = &command {
                        self.offering = Some((*exchange, streams.clone()));
                    }
                    self.media.push_back(command);
                }
                out => panic!("{out:?}"),
            }
        }
    }

    fn deliver_to_client(&mut self) {
        let Some(kind) = self.to_client.pop_front() else { return };
        let said = self.client.hear(kind);
        self.to_us.extend(said);
        if self.client.needs_offer {
            let offer = self.client.offer();
            self.to_us.extend(offer);
        }
    }

    fn deliver_to_us(&mut self) {
        let Some(kind) = self.to_us.pop_front() else { return };
        let event = self.bench.event(ALICE, envelope(&self.call_id, "alice1"), kind);
        self.bench.focus.receive(self.bench.now, vec![event]);
    }

    fn serve_media(&mut self) {
        let Some(command) = self.media.pop_front() else { return };
        let describe = |streams: &[Stream]| {
            let sections: Vec<(&str, &str)> = streams.iter().map(|stream| ("sendrecv", stream.id.as_str())).collect();
            Ok(sdp(&sections))
        };
        let (focus, now) = (&mut self.bench.focus, self.bench.now);
        match command {
            Media::Offer { exchange, .. } => focus.media_answer(now, self.leg, exchange, describe(&self.agreed)),
            Media::CreateOffer { exchange, streams } => {
                focus.media_offer(now, self.leg, exchange, describe(&streams));
            }
            command => panic!("{command:?}"),
        }
    }

    /// Everything arrives, and nothing more is wished.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.serve_media();
            self.take();
            self.deliver_to_client();
            self.deliver_to_us();
            self.take();
        }
        for out in self.bench.wait_s(2) {
            let Said(kind @ Kind::StreamsChanged(_)) = out else { panic!("{out:?}") };
            self.client.hear(kind);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn in_the_end_each_knows_what_the_other_sends(
        client_calls in any::<bool>(),
        steps in prop::collection::vec(any::<(u8, u8)>(), 0..100),
    ) {
        let mut world = World::new(client_calls);
        for step in steps {
            world.step(step);
        }
        world.settle();
        prop_assert!(world.to_us.is_empty() && world.to_client.is_empty() && world.media.is_empty());
        prop_assert!(!world.client.has_offered && world.offering.is_none());
        prop_assert_eq!(world.held, world.client.holds);
        prop_assert_eq!(&world.client.streams, &world.wanted);
    }
}
