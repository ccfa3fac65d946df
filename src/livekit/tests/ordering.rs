//! Whatever happens in whatever order, every client gets a conversation it can follow.

use std::collections::{HashMap, HashSet};

use livekit_protocol as proto;
use proptest::prelude::*;
use proto::participant_info::State;
use proto::signal_response::Message;

use super::*;
use crate::sfu::LeaveReason;

/// One socket's end: follows the conversation and complains.
struct Client {
    identity: String,
    dialect: Dialect,
    heard: usize,
    /// Version of everyone announced and not gone, by sid.
    versions: HashMap<String, u32>,
    tracks: HashSet<String>,
    /// What it said last about its own tracks.
    muted: HashMap<String, bool>,
    said_goodbye: bool,
    closed: bool,
}

impl Client {
    fn new(who: Who, dialect: Dialect) -> Client {
        Client {
            identity: who.to_string(),
            dialect,
            heard: 0,
            versions: HashMap::new(),
            tracks: HashSet::new(),
            muted: HashMap::new(),
            said_goodbye: false,
            closed: false,
        }
    }

    fn hear(&mut self, outgoing: Outgoing) {
        assert!(!self.closed, "nothing comes after a close");
        let message = match outgoing {
            Outgoing::Message(response) => response.message.clone().expect("no empty message"),
            Outgoing::Close(code) => {
                assert_eq!(code == 1000, self.said_goodbye, "1000 right after a leave, and only there");
                self.closed = true;
                return;
            }
        };
        assert!(!self.said_goodbye, "nothing but a close comes after a leave");
        match self.heard {
            0 => {
                assert!(matches!(message, Message::Join(_) | Message::Reconnect(_) | Message::Leave(_)), "{message:?}")
            }
            1 => assert!(matches!(message, Message::RefreshToken(_)), "{message:?}"),
            _ => assert!(!matches!(message, Message::Join(_) | Message::Reconnect(_)), "{message:?}"),
        }
        self.heard += 1;
        match message {
            Message::Join(join) => {
                assert_eq!(join.subscriber_primary, self.dialect == Dialect::V0);
                join.participant.iter().chain(&join.other_participants).for_each(|info| self.announce(info));
            }
            Message::Update(update) => update.participants.iter().for_each(|info| self.announce(info)),
            Message::Offer(description) => {
                assert_eq!(self.dialect, Dialect::V0, "v1 is never offered anything");
                self.describe(&description);
            }
            Message::MediaSectionsRequirement(_) => assert_eq!(self.dialect, Dialect::V1),
            Message::Answer(description) => self.describe(&description),
            Message::TrackPublished(published) => {
                let track = published.track.expect("a track");
                self.muted.insert(track.sid, track.muted);
            }
            Message::Leave(_) => self.said_goodbye = true,
            _ => {}
        }
    }

    fn announce(&mut self, info: &proto::ParticipantInfo) {
        let hidden = info.permission.as_ref().expect("permissions").hidden;
        assert!(!hidden || info.identity == self.identity, "the hidden are never announced");
        if info.state() == State::Disconnected {
            self.versions.remove(&info.sid);
            return;
        }
        let version = self.versions.insert(info.sid.clone(), info.version);
        assert!(version.is_none_or(|version| info.version > version), "{} goes back to {}", info.sid, info.version);
        for track in &info.tracks {
            assert!(!track.mime_type.is_empty() && !track.codecs[0].mime_type.is_empty());
            self.tracks.insert(track.sid.clone());
            if let Some(muted) = self.muted.get(&track.sid) {
                assert_eq!(track.muted, *muted, "a stale update would start a fight over mute");
            }
        }
    }

    /// Media of a track nobody announced is thrown away.
    fn describe(&self, description: &proto::SessionDescription) {
        for track in description.mid_to_track_id.values() {
            assert!(self.tracks.contains(track), "{track} was not announced");
        }
    }
}

/// Who: one of a few identities.
type Who = usize;

#[derive(Debug, Clone)]
enum Step {
    Join {
        who: Who,
        v1: bool,
        hidden: bool,
        publisher: bool,
    },
    Say {
        who: Who,
        said: Box<Said>,
    },
    /// Something about the newest track of `who`.
    Mute {
        who: Who,
        muted: bool,
    },
    Drop(Who),
    Resume {
        who: Who,
        own_sid: bool,
    },
    Remove {
        who: Who,
        shutdown: bool,
    },
    Unpublish(Who),
    Data {
        who: Who,
        message: Vec<u8>,
    },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..4usize;
    prop_oneof![
        3 => (who.clone(), any::<bool>(), prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(who, v1, hidden, publisher)| Step::Join { who, v1, hidden, publisher }),
        10 => (who.clone(), said()).prop_map(|(who, said)| Step::Say { who, said: Box::new(said) }),
        2 => (who.clone(), any::<bool>()).prop_map(|(who, muted)| Step::Mute { who, muted }),
        1 => who.clone().prop_map(Step::Drop),
        2 => (who.clone(), prop::bool::weighted(0.8)).prop_map(|(who, own_sid)| Step::Resume { who, own_sid }),
        1 => (who.clone(), any::<bool>()).prop_map(|(who, shutdown)| Step::Remove { who, shutdown }),
        1 => who.clone().prop_map(Step::Unpublish),
        1 => (who, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(who, message)| Step::Data { who, message }),
        1 => (1..400u64).prop_map(Step::Wait),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    let sid = prop_oneof![(0..40u32).prop_map(|n| format!("TR_{n}")), "\\PC{0,8}"];
    let sids = prop::collection::vec(sid.clone(), 0..3);
    let description = |r#type: &'static str| {
        (0..4u32, prop::bool::weighted(0.95)).prop_map(move |(id, good)| proto::SessionDescription {
            r#type: if id == 3 { "pranswer" } else { r#type }.to_owned(),
            sdp: if good { "v=0" } else { "" }.to_owned(),
            id,
            ..Default::default()
        })
    };
    prop_oneof![
        8 => description("offer").prop_map(Said::Offer),
        4 => description("answer").prop_map(Said::Answer),
        2 => ("\\PC{0,20}", any::<bool>()).prop_map(|(candidate_init, last)| {
            Said::Trickle(proto::TrickleRequest { candidate_init, r#final: last, ..Default::default() })
        }),
        8 => (-1..4i32, 0..3u32, any::<bool>(), 0..5i32).prop_map(|(r#type, cid, muted, source)| {
            let cid = format!("{type}-{cid}");
            Said::AddTrack(proto::AddTrackRequest { r#type, cid, muted, source, ..Default::default() })
        }),
        2 => (sids.clone(), any::<bool>()).prop_map(|(track_sids, subscribe)| {
            Said::Subscription(proto::UpdateSubscription { track_sids, subscribe, ..Default::default() })
        }),
        2 => (sids, any::<bool>(), any::<i32>(), any::<u32>()).prop_map(|(track_sids, disabled, quality, width)| {
            let settings = proto::UpdateTrackSettings { track_sids, disabled, quality, width, ..Default::default() };
            Said::TrackSetting(settings)
        }),
        1 => Just(Said::Leave(Default::default())),
        1 => any::<i64>().prop_map(Said::Ping),
        1 => any::<i64>().prop_map(|timestamp| Said::PingReq(proto::Ping { timestamp, rtt: 0 })),
        2 => "\\PC{0,8}".prop_map(|name| Said::UpdateMetadata(proto::UpdateParticipantMetadata { name, ..Default::default() })),
        1 => sid.prop_map(|sid| {
            let track = Some(proto::TrackInfo { sid, ..Default::default() });
            let publish_tracks = vec![proto::TrackPublishedResponse { cid: String::new(), track }];
            Said::SyncState(proto::SyncState { publish_tracks, ..Default::default() })
        }),
        1 => Just(Said::Simulate(Default::default())),
        1 => Just(Said::PublishDataTrackRequest(Default::default())),
    ]
}

/// The latest socket of each identity, and everyone who ever listened.
struct Play {
    rig: Rig,
    clients: HashMap<SocketId, Client>,
    current: HashMap<Who, (SocketId, Dialect, String)>,
}

impl Play {
    fn step(&mut self, step: Step) {
        let rig = &mut self.rig;
        match step {
            Step::Join { who, v1, hidden, publisher } => {
                let dialect = if v1 { Dialect::V1 } else { Dialect::V0 };
                let mut request = request(&who.to_string(), dialect);
                request.permissions.hidden = hidden;
                request.permissions.can_publish = publisher;
                request.permissions.can_update_metadata = publisher;
                if publisher && v1 {
                    request.add_tracks = vec![microphone("joined")];
                    request.publisher_offer = Some(offer(1));
                }
                let socket = rig.join(request).expect("the room is created");
                let sid = rig.sid(socket);
                self.clients.insert(socket, Client::new(who, dialect));
                self.current.insert(who, (socket, dialect, sid));
            }
            Step::Say { who, said } => {
                if let Some((socket, ..)) = self.current.get(&who) {
                    rig.say(*socket, *said);
                }
            }
            Step::Mute { who, muted } => {
                let Some((socket, ..)) = self.current.get(&who) else { return };
                let Some(id) = rig.signalling.participant(*socket) else { return };
                let member = &rig.rooms.members[&id];
                let Some(track) = member.pending.iter().chain(&member.info.tracks).next_back() else { return };
                let sid = track.sid.to_string();
                self.clients.get_mut(socket).expect("a client").muted.insert(sid.clone(), muted);
                rig.say(*socket, Said::Mute(proto::MuteTrackRequest { sid, muted }));
            }
            Step::Drop(who) => {
                if let Some((socket, ..)) = self.current.get(&who) {
                    rig.close(*socket);
                    self.clients.get_mut(socket).expect("a client").closed = true;
                }
            }
            Step::Resume { who, own_sid } => {
                let Some((old, dialect, sid)) = self.current.get_mut(&who) else { return };
                let reconnect = Some(if own_sid { sid.clone() } else { "PA_other".to_owned() });
                let socket =
                    rig.join(JoinRequest { reconnect, ..request(&who.to_string(), *dialect) }).expect("an answer");
                let mut client = Client::new(who, *dialect);
                if own_sid && rig.signalling.participant(socket).is_some() {
                    // It is the same client: what it knew, it knows.
                    let known = &self.clients[old];
                    client.tracks.clone_from(&known.tracks);
                    client.muted.clone_from(&known.muted);
                    *old = socket;
                }
                self.clients.insert(socket, client);
            }
            Step::Remove { who, shutdown } => {
                let Some(id) = self.current.get(&who).and_then(|(socket, ..)| rig.signalling.participant(*socket))
                else {
                    return;
                };
                rig.rooms.remove(id, if shutdown { LeaveReason::ServerShutdown } else { LeaveReason::Removed });
                rig.settle();
            }
            Step::Unpublish(who) => {
                let Some(id) = self.current.get(&who).and_then(|(socket, ..)| rig.signalling.participant(*socket))
                else {
                    return;
                };
                rig.rooms.unpublish(id);
                rig.settle();
            }
            Step::Data { who, message } => {
                let Some(id) = self.current.get(&who).and_then(|(socket, ..)| rig.signalling.participant(*socket))
                else {
                    return;
                };
                let kind = crate::sfu::EventKind::DataReceived { channel: crate::sfu::DataChannel::Reliable, message };
                rig.rooms.events.push_back(crate::sfu::Event { to: id, kind });
                rig.settle();
            }
            Step::Wait(seconds) => rig.wait(Duration::from_secs(seconds)),
        }
        for (socket, outgoing) in std::mem::take(&mut self.rig.received) {
            let client = self.clients.get_mut(&socket).expect("only sockets that were opened hear something");
            outgoing.into_iter().for_each(|outgoing| client.hear(outgoing));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_client_can_follow(steps in prop::collection::vec(step(), 0..60)) {
        let mut play = Play { rig: Rig::new(), clients: HashMap::new(), current: HashMap::new() };
        for step in steps {
            play.step(step);
        }
        // Everyone who is still listening is still answered, whatever the others did.
        for (who, (socket, ..)) in play.current.clone() {
            let alive = play.rig.signalling.participant(socket).is_some();
            prop_assert_eq!(alive, !play.clients[&socket].closed);
            if alive {
                play.rig.say(socket, Said::Ping(1));
                let last = play.rig.messages(socket);
                prop_assert!(matches!(last[..], [Message::Pong(_)]), "{who}: {last:?}");
            }
        }
    }

    #[test]
    fn bytes_of_any_kind_are_no_danger(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20)) {
        let mut rig = Rig::new();
        let alice = rig.join(request("alice", Dialect::V0)).expect("a room");
        for frame in frames {
            if let Ok(proto::SignalRequest { message: Some(said) }) = crate::livekit::decode_request(&frame) {
                rig.say(alice, said);
            }
        }
    }
}
