//! What the rooms tell: each [`EventKind`] becomes the message the client expects.
//!
//! The rooms send events in the order they must arrive: a track's `update` before any SDP that carries it. Nothing here
//! holds back or reorders.

use std::sync::Arc;

use livekit_protocol as proto;
use proto::signal_response::Message;

use super::session::Session;
use super::signalling::Turn;
use super::{Dropped, Rooms, data, translate};
use crate::sfu::{DataChannel, EventKind, ParticipantInfo, ParticipantState};

impl Session {
    pub(super) fn event<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, kind: EventKind) {
        match kind {
            EventKind::ParticipantsChanged(infos) => self.participants_changed(turn, infos),
            EventKind::Answer(answer) => self.send(turn, Message::Answer(translate::description("answer", answer))),
            EventKind::Offer(offer) if self.dialect.server_offers() => {
                self.send(turn, Message::Offer(translate::description("offer", offer)));
            }
            EventKind::SectionsRequired { audio, video } if !self.dialect.server_offers() => {
                let required = proto::MediaSectionsRequirement { num_audios: audio, num_videos: video };
                self.send(turn, Message::MediaSectionsRequirement(required));
            }
            // The rooms keep to the negotiation they were asked for; the client could only be confused.
            EventKind::Offer(_) | EventKind::SectionsRequired { .. } => turn.count(Dropped::WrongDialect),
            EventKind::SpeakersChanged(speakers) => {
                let speakers = speakers.iter().map(translate::speaker).collect();
                self.send(turn, Message::SpeakersChanged(proto::SpeakersChanged { speakers }));
            }
            EventKind::StreamStates(states) => {
                let stream_states = states.iter().map(translate::stream_state).collect();
                self.send(turn, Message::StreamStateUpdate(proto::StreamStateUpdate { stream_states }));
            }
            EventKind::LineStates(states) => {
                let knows_lost = self.knows_lost();
                let updates = states.iter().map(|state| translate::line_state(state, knows_lost)).collect();
                self.send(turn, Message::ConnectionQuality(proto::ConnectionQualityUpdate { updates }));
            }
            EventKind::QualityWanted { track, codec, highest } => {
                let update = translate::subscribed_quality(&track, codec, highest);
                self.send(turn, Message::SubscribedQualityUpdate(update));
            }
            EventKind::TrackSubscribed(sid) => {
                self.send(turn, Message::TrackSubscribed(proto::TrackSubscribed { track_sid: sid.to_string() }));
            }
            EventKind::Muted(sid) => {
                self.send(turn, Message::Mute(proto::MuteTrackRequest { sid: sid.to_string(), muted: true }));
            }
            EventKind::SubscriptionFailed(sid) => self.send(
                turn,
                Message::SubscriptionResponse(proto::SubscriptionResponse {
                    track_sid: sid.to_string(),
                    err: proto::SubscriptionError::SeCodecUnsupported as i32,
                }),
            ),
            EventKind::DataReceived { channel, message } => self.data_received(turn, channel, &message),
            EventKind::Left(reason) => self.left(turn, reason),
            // For the log and the metrics; the client knows by its own means.
            EventKind::Verdict(_) => {}
        }
    }

    fn participants_changed<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, infos: Arc<[ParticipantInfo]>) {
        if self.socket.is_none() {
            for gone in infos.iter().filter(|info| info.state == ParticipantState::Disconnected) {
                self.miss(gone);
            }
        }
        if let Some(socket) = self.socket {
            let update = turn.update(&infos);
            turn.send(socket, update);
        }
        if let Some(me) = infos.iter().find(|info| info.sid == self.sid) {
            self.publications.announced(&me.tracks);
            if self.adopt(me) {
                self.send_token(turn);
            }
            self.publish_queued(turn);
        }
    }

    fn data_received<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, channel: DataChannel, message: &[u8]) {
        let sender = data::Sender {
            sid: self.sid.as_str(),
            identity: &self.identity,
            hidden: self.permissions.hidden,
            may_publish: self.permissions.can_publish_data,
        };
        let packet = match self.upstream.accept(turn.now.instant, &sender, channel, message) {
            Ok(packet) => packet,
            Err(reason) => return turn.count(reason),
        };
        for (id, sid, identity) in turn.rooms.ids_in_room_of(self.id) {
            if id != self.id && packet.to.includes(sid.as_str(), &identity) {
                turn.rooms.send_data(id, channel, &packet.message);
            }
        }
    }
}
