//! Calls in virtual time: opponents whose events are written by hand, and a media side that answers when it is told to.

mod batches;
mod client;
mod conference;
mod exchanges;
mod incoming;
mod limits;
mod model;
mod outgoing;

use std::time::{Duration, Instant};

use super::content::Description;
use super::*;

const BOT: &str = "@bot:x";
const ALICE: &str = "@alice:x";
const DM: &str = "!dm:x";
const PARTY: &str = "BOTDEVICE";

/// What came out, with events as their readers see them.
#[derive(Debug, Clone, PartialEq)]
enum Out {
    Asked(LegId, Option<LegId>),
    Said(Kind),
    Media(Media),
    Established,
    Verdict(Verdict),
}

use Out::{Asked, Established, Said};

struct Bench {
    focus: Focus,
    now: Now,
    events: u64,
}

fn settings() -> Settings {
    Settings {
        user_id: BOT.into(),
        party_id: PARTY.into(),
        session_id: "sfu".into(),
        limits: Limits::default(),
        seed: 7,
    }
}

impl Bench {
    fn new() -> Bench {
        Bench::with(settings())
    }

    fn with(settings: Settings) -> Bench {
        let now = Now { instant: Instant::now(), unix_ms: 1_750_000_000_000 };
        Bench { focus: Focus::new(settings), now, events: 0 }
    }

    fn event(&mut self, sender: &str, envelope: Envelope, kind: Kind) -> Event {
        self.events += 1;
        Event {
            origin: Origin::Room { room: DM.into(), is_direct: true },
            sender: sender.into(),
            content: Content { envelope, kind },
            age: Duration::ZERO,
            event_id: Some(format!("${}", self.events)),
        }
    }

    /// An event in call "c" from a client of Alice's.
    fn hear(&mut self, party: &str, kind: Kind) -> Vec<Out> {
        self.hear_from(ALICE, envelope("c", party), kind)
    }

    fn hear_from(&mut self, sender: &str, envelope: Envelope, kind: Kind) -> Vec<Out> {
        let event = self.event(sender, envelope, kind);
        self.hear_batch(vec![event])
    }

    fn hear_batch(&mut self, events: Vec<Event>) -> Vec<Out> {
        self.focus.receive(self.now, events);
        self.outs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.focus.poll_output()).collect()
    }

    fn outs(&mut self) -> Vec<Out> {
        self.outputs().into_iter().map(out).collect()
    }

    fn wait(&mut self, time: Duration) -> Vec<Out> {
        self.now.instant += time;
        self.now.unix_ms += time.as_millis() as u64;
        self.focus.handle_timeout(self.now);
        self.outs()
    }

    fn wait_s(&mut self, seconds: u64) -> Vec<Out> {
        self.wait(Duration::from_secs(seconds))
    }

    fn act(&mut self, act: impl FnOnce(&mut Focus, Now)) -> Vec<Out> {
        act(&mut self.focus, self.now);
        self.outs()
    }

    fn media_answers(&mut self, leg: LegId, exchange: Exchange, sdp: String) -> Vec<Out> {
        self.act(|focus, now| focus.media_answer(now, leg, exchange, Ok(sdp)))
    }

    fn media_offers(&mut self, leg: LegId, exchange: Exchange, sdp: String) -> Vec<Out> {
        self.act(|focus, now| focus.media_offer(now, leg, exchange, Ok(sdp)))
    }

    fn ignored(&self, reason: Ignored) -> u64 {
        self.focus.ignored().get(reason)
    }

    /// Alice's call is asked about.
    fn asked(&mut self) -> LegId {
        let outs = self.hear("alice1", invite());
        let [Asked(leg, None)] = outs[..] else { panic!("{outs:?}") };
        leg
    }

    /// Our answer to Alice is sent, not selected.
    fn answered(&mut self) -> LegId {
        let leg = self.asked();
        self.act(|focus, now| focus.admit(now, leg));
        self.act(|focus, now| focus.streams_changed(now, leg, vec![camera()]));
        let outs = self.media_answers(leg, 1, ours());
        assert!(matches!(outs[0], Said(Kind::Answer { .. })), "{outs:?}");
        leg
    }

    /// Alice's call, connected.
    fn established(&mut self) -> LegId {
        let leg = self.answered();
        assert_eq!(self.hear("alice1", select(PARTY)), [Established]);
        self.focus.media_connected(self.now, leg);
        leg
    }

    /// Alice's clients ring. Gives the call's id, too.
    fn ringing(&mut self) -> (LegId, String) {
        let leg = self.focus.ring(self.now, ring()).unwrap();
        assert_eq!(self.outs(), [Out::Media(Media::CreateOffer { exchange: 1, streams: vec![camera()] })]);
        let outs = self.media_offers(leg, 1, ours());
        assert!(matches!(outs[0], Said(Kind::Invite { .. })), "{outs:?}");
        (leg, self.focus.call(leg).unwrap().call_id.clone())
    }

    /// A client of Alice's has answered us, and media is connected.
    fn taken(&mut self) -> (LegId, String) {
        let (leg, call_id) = self.ringing();
        let outs = self.hear_from(ALICE, envelope(&call_id, "alice1"), answer());
        assert_eq!(outs.last(), Some(&Established));
        self.focus.media_connected(self.now, leg);
        (leg, call_id)
    }

    /// Nothing is left of any call but its memory.
    fn assert_empty(&self) {
        let focus = &self.focus;
        assert!(focus.legs.is_empty() && focus.by_call.is_empty() && focus.by_user.is_empty());
        assert!(focus.timers.is_empty() && focus.armed.is_empty());
    }
}

fn out(output: Output) -> Out {
    match output {
        Output::Asked { leg, instead_of, .. } => Asked(leg, instead_of),
        Output::Send { event_type, content, to, .. } => {
            let parse = match to {
                Address::Room(_) => Content::parse,
                Address::Device { .. } => Content::parse_to_device,
            };
            Said(parse(event_type, &content).expect("we write what can be read").kind)
        }
        Output::Media { command, .. } => Out::Media(command),
        Output::Established { .. } => Established,
        Output::Verdict { verdict, .. } => Out::Verdict(verdict),
    }
}

fn ring() -> Ring {
    Ring { room: DM.into(), user: ALICE.into(), lifetime: RING_TIME, streams: vec![camera()] }
}

fn envelope(call_id: &str, party: &str) -> Envelope {
    Envelope { call_id: call_id.into(), party_id: Some(party.into()), version: Version::V1, device: None }
}

fn envelope_v0(call_id: &str) -> Envelope {
    Envelope { call_id: call_id.into(), party_id: None, version: Version::V0, device: None }
}

fn camera() -> Stream {
    Stream::new("room", Purpose::Usermedia)
}

fn screen() -> Stream {
    Stream::new("screen", Purpose::Screenshare)
}

/// A description with a section for each direction and stream.
fn sdp(sections: &[(&str, &str)]) -> String {
    let section = |(mid, (direction, stream)): (usize, &(&str, &str))| {
        format!("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:{mid}\r\na={direction}\r\na=msid:{stream} t{mid}\r\n")
    };
    let sections: String = sections.iter().enumerate().map(section).collect();
    format!("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n{sections}")
}

fn ours() -> String {
    sdp(&[("sendrecv", "room")])
}

fn theirs() -> String {
    sdp(&[("sendrecv", "alice")])
}

fn alice_streams() -> Option<Vec<Stream>> {
    Some(vec![Stream::new("alice", Purpose::Usermedia)])
}

fn invite() -> Kind {
    Kind::Invite { offer: theirs(), lifetime: Duration::from_secs(60), invitee: None, streams: alice_streams() }
}

fn answer() -> Kind {
    Kind::Answer { answer: theirs(), streams: alice_streams() }
}

fn select(party: &str) -> Kind {
    Kind::SelectAnswer { selected_party_id: party.into() }
}

fn negotiate(is_offer: bool, sdp: String) -> Kind {
    let lifetime = is_offer.then(|| Duration::from_secs(60));
    Kind::Negotiate { description: Description { is_offer, sdp }, lifetime, streams: alice_streams() }
}

/// As we say it.
fn negotiated(is_offer: bool, sdp: String, streams: &[Stream]) -> Out {
    let lifetime = Some(Duration::from_secs(30));
    Said(Kind::Negotiate { description: Description { is_offer, sdp }, lifetime, streams: Some(streams.to_vec()) })
}

fn candidate(number: usize) -> Candidate {
    let candidate = format!("candidate:{number} 1 udp 1 192.0.2.1 {number} typ host");
    Candidate { candidate, sdp_mid: Some("0".into()), sdp_m_line_index: Some(0) }
}

fn hangup() -> Kind {
    Kind::Hangup(Reason::UserHangup)
}

fn media(command: Media) -> Out {
    Out::Media(command)
}

fn verdict(verdict: Verdict) -> Out {
    Out::Verdict(verdict)
}

fn said_end_of_candidates() -> Out {
    Said(Kind::Candidates(vec![Candidate::end()]))
}
