//! Anything in any order, against what must hold whatever happens: a call is answered once, nothing is said after its end,
//! every leg has one verdict and ends, media sees exchanges as a peer connection allows them, and little is kept.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const BOB: &str = "@bob:x";
const BOBS: &str = "!bob:x";

/// Numbers that each step reads as it needs them.
type Step = (u8, u8, u8, u8);

/// A peer connection's signalling state.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Signalling {
    Stable,
    Making(Exchange),
    HaveOurs(Exchange),
    HaveTheirs(Exchange),
}

#[derive(Debug)]
struct Seen {
    signalling: Signalling,
    has_media: bool,
    has_ended: bool,
    verdicts: u32,
}

#[derive(Debug, Default)]
struct Said {
    invites: u32,
    answers: u32,
    is_over: bool,
}

struct Model {
    focus: Focus,
    now: Now,
    legs: HashMap<LegId, Seen>,
    /// By room and call id.
    said: HashMap<(String, String), Said>,
    ended: HashMap<(String, String), Instant>,
    asked: Vec<LegId>,
    ours: Vec<(String, String)>,
    heard: Vec<Event>,
    events: u64,
}

impl Model {
    fn new() -> Model {
        let limits = Limits { legs: 6, legs_per_user: 4, invites_per_user_per_minute: 1000, refusals_per_second: 1000 };
        Model {
            focus: Focus::new(Settings { limits, ..settings() }),
            now: Now { instant: Instant::now(), unix_ms: 1_750_000_000_000 },
            legs: HashMap::new(),
            said: HashMap::new(),
            ended: HashMap::new(),
            asked: Vec::new(),
            ours: Vec::new(),
            heard: Vec::new(),
            events: 0,
        }
    }

    fn step(&mut self, (what, a, b, c): Step) {
        match what % 16 {
            0..=2 => self.invite(a, b),
            3..=6 => self.opponent(a, b, c),
            7 => self.own_user(a, b, c),
            8 => self.repeat(a, b),
            9 => self.ring(a),
            10..=11 => self.decide(a, b),
            12..=13 => self.media(a, b, c),
            14 => self.drive(a, b),
            _ => self.wait(a, b),
        }
        self.take_outputs();
        let focus = &self.focus;
        assert!(focus.legs() <= 6 && focus.by_user.values().all(|legs| legs.len() <= 4));
        assert_eq!(focus.timers.len(), focus.armed.len());
        assert!(focus.legs.values().all(|leg| leg.deadline().is_none_or(|at| at > self.now.instant)));
    }

    fn party(b: u8) -> Envelope {
        match b % 4 {
            0 => envelope_v0(""),
            n => envelope("", &format!("party{n}")),
        }
    }

    /// One of few call ids, or one of ours.
    fn call_id(&self, a: u8, room: &str) -> String {
        let ours = || self.ours.iter().rev().filter(|(of, _)| of == room).nth(usize::from(a % 3));
        match a % 2 {
            0 => ours().map_or_else(|| "0a".into(), |(_, call_id)| call_id.clone()),
            _ => format!("{}c", a % 8),
        }
    }

    fn hear(&mut self, sender: &str, room: &str, envelope: Envelope, kind: Kind) {
        self.events += 1;
        let event = Event {
            origin: Origin::Room { room: room.into(), is_direct: true },
            sender: sender.into(),
            content: Content { envelope, kind },
            age: Duration::ZERO,
            event_id: Some(format!("${}", self.events)),
        };
        self.heard.push(event.clone());
        self.focus.receive(self.now, vec![event]);
    }

    fn invite(&mut self, a: u8, b: u8) {
        let (sender, room) = user(a);
        let streams = (b & 4 != 0).then(|| vec![Stream::new("alice", Purpose::Usermedia)]);
        let offer = if b & 0xf8 == 0 { "garbage".into() } else { theirs() };
        let kind = Kind::Invite { offer, lifetime: Duration::from_secs(60), invitee: None, streams };
        // Below and above any id of ours.
        let call_id = format!("{}c", a % 8);
        self.hear(sender, room, Envelope { call_id, ..Model::party(b) }, kind);
    }

    fn opponent(&mut self, a: u8, b: u8, c: u8) {
        let (sender, room) = user(c);
        let envelope = Envelope { call_id: self.call_id(a, room), ..Model::party(b) };
        let kind = match c % 12 {
            0 => hangup(),
            1 => Kind::Reject(Reason::UserBusy),
            2..=4 => select(if b & 16 == 0 { PARTY } else { "other" }),
            5..=6 => answer(),
            7..=8 => negotiate(true, theirs()),
            9 => negotiate(false, theirs()),
            10 => Kind::Candidates(vec![candidate(1); usize::from(b)]),
            _ => Kind::StreamsChanged(vec![Stream::new(b.to_string(), Purpose::Usermedia)]),
        };
        self.hear(sender, room, envelope, kind);
    }

    fn own_user(&mut self, a: u8, b: u8, c: u8) {
        let (_, room) = user(c);
        let party = if b & 1 == 0 { PARTY } else { "other" };
        let envelope = envelope(&self.call_id(a, room), party);
        let kind = match c % 4 {
            0 => answer(),
            1 => hangup(),
            2 => Kind::Reject(Reason::UserHangup),
            _ => negotiate(true, ours()),
        };
        self.hear(BOT, room, envelope, kind);
    }

    /// Some of what was heard once more, in one sync response.
    fn repeat(&mut self, a: u8, b: u8) {
        let skip = usize::from(a) % (self.heard.len() + 1);
        let again: Vec<Event> = self.heard.iter().skip(skip).take(usize::from(b % 8)).cloned().collect();
        self.focus.receive(self.now, again);
    }

    fn ring(&mut self, a: u8) {
        let (user, room) = user(a);
        let ring = Ring { room: room.into(), user: user.into(), ..ring() };
        if let Ok(leg) = self.focus.ring(self.now, ring) {
            let call_id = self.focus.call(leg).unwrap().call_id.clone();
            self.ours.push((room.into(), call_id));
            self.legs.insert(leg, seen());
        }
    }

    fn decide(&mut self, a: u8, b: u8) {
        if self.asked.is_empty() {
            return;
        }
        let leg = self.asked.swap_remove(usize::from(a) % self.asked.len());
        match b % 8 {
            0 => self.focus.refuse(self.now, leg, Refusal::Busy),
            1 => self.focus.refuse(self.now, leg, Refusal::Ignored),
            _ => self.focus.admit(self.now, leg),
        }
    }

    /// Media does what it was asked for, or something that nobody asked for.
    fn media(&mut self, a: u8, b: u8, c: u8) {
        let Some(leg) = self.any_leg(a) else { return };
        let result = match c % 16 {
            0 => Err(MediaError::Failed),
            1 => Ok("garbage".to_owned()),
            _ => Ok(ours()),
        };
        let is_good = c % 16 > 1;
        let seen = self.legs.get_mut(&leg).unwrap();
        match (b % 8, seen.signalling) {
            (0, _) => self.focus.media_connected(self.now, leg),
            (1, _) => self.focus.media_lost(self.now, leg),
            (2, _) => self.focus.media_answer(self.now, leg, u32::from(c), result),
            (3, _) => self.focus.media_offer(self.now, leg, 1000 + u32::from(c), result),
            (_, Signalling::Making(exchange)) => {
                seen.signalling = if is_good { Signalling::HaveOurs(exchange) } else { Signalling::Stable };
                self.focus.media_offer(self.now, leg, exchange, result);
            }
            (_, Signalling::HaveTheirs(exchange)) => {
                seen.signalling = Signalling::Stable;
                self.focus.media_answer(self.now, leg, exchange, result);
            }
            _ => {}
        }
    }

    fn drive(&mut self, a: u8, b: u8) {
        let Some(leg) = self.any_leg(a) else { return };
        let muted = Stream { audio_muted: b & 16 == 0, ..camera() };
        match b % 12 {
            0 => self.focus.end(self.now, leg, Cause::Over),
            1 => self.focus.left(self.now, DM, ALICE),
            2 => self.focus.send_failed(self.now, leg, "m.call.negotiate"),
            3 => self.focus.room_lost(self.now, BOBS),
            4 => self.focus.assert_identity(
                self.now,
                leg,
                Some(Identity { id: Some(b.to_string()), ..Identity::default() }),
            ),
            5..=7 => self.focus.streams_changed(self.now, leg, vec![muted]),
            _ => self.focus.streams_changed(self.now, leg, vec![muted, screen()]),
        }
    }

    fn wait(&mut self, a: u8, b: u8) {
        let ms = if b.is_multiple_of(4) { u64::from(a) * 500 } else { u64::from(a) * 10 };
        self.now.instant += Duration::from_millis(ms);
        self.now.unix_ms += ms;
        self.focus.handle_timeout(self.now);
    }

    /// One that lives, or did.
    fn any_leg(&self, a: u8) -> Option<LegId> {
        let mut legs: Vec<LegId> = self.legs.keys().copied().collect();
        legs.sort_unstable();
        legs.iter().rev().nth(usize::from(a) % 8 % legs.len().max(1)).copied()
    }

    fn take_outputs(&mut self) {
        let mut taken = 0;
        while let Some(output) = self.focus.poll_output() {
            taken += 1;
            match output {
                Output::Asked { leg, call, .. } => self.asked(leg, call),
                Output::Send { leg, to, event_type, content } => self.said(leg, to, event_type, &content),
                Output::Media { leg, command } => self.commanded(leg, command),
                Output::Established { leg } => assert_eq!(self.legs[&leg].verdicts, 0),
                Output::Verdict { leg, call, .. } => self.judged(leg, call),
            }
        }
        assert!(taken <= 100, "{taken} outputs of one step");
    }

    fn asked(&mut self, leg: LegId, call: CallKey) {
        let key = key(&call);
        if let Some(ended) = self.ended.get(&key) {
            assert!(self.now.instant > *ended + content::MAX_LIFETIME, "{call:?} has ended not long ago");
            self.said.remove(&key);
        }
        assert!(self.legs.insert(leg, seen()).is_none());
        self.asked.push(leg);
    }

    fn said(&mut self, leg: Option<LegId>, to: Address, event_type: &str, content: &serde_json::Value) {
        assert!(leg.is_none_or(|leg| self.legs[&leg].verdicts == 0), "{event_type} after the verdict");
        let content = Content::parse(event_type, content).expect("what can be read");
        assert_eq!(content.envelope.party_id.as_deref(), Some(PARTY));
        let Address::Room(room) = to else { panic!("{to:?}") };
        let key = (room, content.envelope.call_id);
        if self.ended.get(&key).is_some_and(|ended| self.now.instant > *ended + content::MAX_LIFETIME) {
            // The id may be used for another call by now.
            self.said.remove(&key);
            self.ended.remove(&key);
        }
        let said = self.said.entry(key).or_default();
        assert!(!said.is_over, "{event_type} after the end");
        match content.kind {
            Kind::Invite { .. } => said.invites += 1,
            Kind::Answer { .. } => said.answers += 1,
            Kind::Hangup(_) | Kind::Reject(_) => said.is_over = true,
            Kind::Negotiate { .. } | Kind::StreamsChanged(_) | Kind::AssertedIdentity(_) => {
                assert_eq!(content.envelope.version, Version::V1);
            }
            Kind::Candidates(_) | Kind::SelectAnswer { .. } => {}
        }
        assert!(said.invites + said.answers <= 1, "{said:?}");
    }

    fn commanded(&mut self, leg: LegId, command: Media) {
        let seen = self.legs.get_mut(&leg).unwrap();
        assert!(!seen.has_ended && seen.verdicts == 0, "{command:?} after the end");
        seen.has_media = true;
        seen.signalling = match (command, seen.signalling) {
            (Media::Offer { exchange, .. }, Signalling::Stable) => Signalling::HaveTheirs(exchange),
            (Media::CreateOffer { exchange, .. }, Signalling::Stable) => Signalling::Making(exchange),
            (Media::Answer { exchange, .. }, Signalling::HaveOurs(ours)) if exchange == ours => Signalling::Stable,
            (Media::Rollback { exchange }, Signalling::Making(ours) | Signalling::HaveOurs(ours)) => {
                assert_eq!(exchange, ours);
                Signalling::Stable
            }
            (Media::End, state) => {
                seen.has_ended = true;
                state
            }
            (Media::Candidates(candidates), state) => {
                assert!(!candidates.is_empty() && candidates.len() <= 255);
                state
            }
            (Media::PeerStreams(_) | Media::Held(_), state) => state,
            (command, state) => panic!("{command:?} in {state:?}"),
        };
    }

    fn judged(&mut self, leg: Option<LegId>, call: CallKey) {
        if let Some(seen) = leg.map(|leg| self.legs.get_mut(&leg).unwrap()) {
            seen.verdicts += 1;
            assert_eq!(seen.verdicts, 1);
            assert_eq!(seen.has_ended, seen.has_media, "media that began was ended");
        }
        self.ended.insert(key(&call), self.now.instant);
    }

    /// Nothing keeps a call alive whose media is gone and whose opponent is silent.
    fn finish(mut self) {
        for leg in self.focus.leg_ids() {
            self.focus.media_lost(self.now, leg);
        }
        self.now.instant += Duration::from_secs(600);
        self.focus.handle_timeout(self.now);
        self.take_outputs();
        assert!(self.legs.values().all(|seen| seen.verdicts == 1), "{:?}", self.legs);
        assert!(self.focus.by_call.is_empty() && self.focus.by_user.is_empty() && self.focus.timers.is_empty());
    }
}

fn user(n: u8) -> (&'static str, &'static str) {
    if n & 0x40 == 0 { (ALICE, DM) } else { (BOB, BOBS) }
}

fn seen() -> Seen {
    Seen { signalling: Signalling::Stable, has_media: false, has_ended: false, verdicts: 0 }
}

fn key(call: &CallKey) -> (String, String) {
    let Scope::Room(room) = &call.scope else { panic!("{call:?}") };
    (room.clone(), call.call_id.clone())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(steps in prop::collection::vec(any::<Step>(), 0..200)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.finish();
    }
}
