//! What the client says: each `SignalRequest` finds its answer here, or is dropped and counted.

use livekit_protocol as proto;
use proto::request_response::{Reason, Request};
use proto::signal_request::Message as Said;
use proto::signal_response::Message;
use serde::Deserialize;

use super::session::Session;
use super::signalling::Turn;
use super::{Dropped, Rooms};
use crate::sfu::LeaveReason;

/// `candidate_init`, bytes. A candidate line is below 300.
const CANDIDATE_MAX: usize = 8 * 1024;

/// Metadata, and all attributes together, bytes: LiveKit's limit. Everyone in the room is told.
const METADATA_MAX: usize = 64 * 1024;

/// A display name, bytes: LiveKit's limit.
const NAME_MAX: usize = 256;

/// `RTCIceCandidateInit`, as far as everyone writes it.
#[derive(Deserialize)]
struct CandidateInit {
    #[serde(default, rename = "candidate")]
    _candidate: String,
}

impl Session {
    pub(super) fn request<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, said: Said) {
        match said {
            Said::Offer(offer) => self.offer(turn, offer),
            Said::Answer(answer) => self.answer(turn, answer),
            Said::Trickle(trickle) => self.trickle(turn, trickle),
            Said::AddTrack(request) => self.add_track(turn, request),
            Said::Mute(request) => self.mute(turn, request),
            Said::Subscription(request) => self.subscription(turn, request),
            Said::TrackSetting(request) => self.track_setting(turn, request),
            Said::SyncState(state) => self.sync_state(turn, state),
            Said::Leave(_) => turn.rooms.leave(turn.now, self.id, LeaveReason::ClientInitiated),
            Said::Ping(_) => self.send(turn, Message::Pong(turn.now.unix_ms as i64)),
            Said::PingReq(ping) => self.send(
                turn,
                Message::PongResp(proto::Pong {
                    last_ping_timestamp: ping.timestamp,
                    timestamp: turn.now.unix_ms as i64,
                }),
            ),
            Said::UpdateMetadata(request) => self.update_metadata(turn, request),
            Said::UpdateAudioTrack(request) => self.unsupported(turn, 0, Some(Request::UpdateAudioTrack(request))),
            Said::UpdateVideoTrack(request) => self.unsupported(turn, 0, Some(Request::UpdateVideoTrack(request))),
            Said::PublishDataTrackRequest(request) => {
                self.unsupported(turn, 0, Some(Request::PublishDataTrack(request)));
            }
            Said::UnpublishDataTrackRequest(request) => {
                self.unsupported(turn, 0, Some(Request::UnpublishDataTrack(request)));
            }
            Said::StoreDataBlobRequest(request) => self.unsupported(turn, request.request_id, None),
            Said::GetDataBlobRequest(request) => self.unsupported(turn, request.request_id, None),
            Said::UpdateDataSubscription(_) => self.unsupported(turn, 0, None),
            // Who may subscribe is decided by the token: a publisher's own list of subscribers is taken as "everybody".
            // End-to-end encryption, not this list, keeps media from those who shall not have it.
            Said::SubscriptionPermission(_) => {}
            // Test scenarios of the client libraries, and a message nobody reads any more.
            #[allow(deprecated)]
            Said::Simulate(_) | Said::UpdateLayers(_) => turn.count(Dropped::Ignored),
        }
    }

    /// v0: the publisher's offer. v1: the only kind there is.
    pub(super) fn offer<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, offer: proto::SessionDescription) {
        if offer.r#type != "offer" {
            return turn.count(Dropped::Malformed);
        }
        turn.rooms.offer(turn.now, self.id, offer.id, &offer.sdp);
    }

    fn answer<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, answer: proto::SessionDescription) {
        if !self.dialect.server_offers() {
            return turn.count(Dropped::WrongDialect);
        }
        if answer.r#type != "answer" {
            return turn.count(Dropped::Malformed);
        }
        turn.rooms.answer(turn.now, self.id, answer.id, &answer.sdp);
    }

    /// We are ICE-lite: the client's checks tell us its addresses, so candidates are only looked at for their form.
    fn trickle<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, trickle: proto::TrickleRequest) {
        let init = &trickle.candidate_init;
        if init.len() > CANDIDATE_MAX {
            turn.count(Dropped::Oversized);
        } else if !trickle.r#final && serde_json::from_str::<CandidateInit>(init).is_err() {
            turn.count(Dropped::Malformed);
        }
    }

    fn update_metadata<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, request: proto::UpdateParticipantMetadata) {
        let id = request.request_id;
        let attributes: usize = request.attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
        let (reason, text) = if !self.permissions.can_update_metadata {
            (Reason::NotAllowed, "the token does not allow changing name, metadata and attributes")
        } else if request.name.len() > NAME_MAX || request.metadata.len() > METADATA_MAX || attributes > METADATA_MAX {
            (Reason::LimitExceeded, "name, metadata or attributes are too large")
        } else {
            let given = |text: &String| (!text.is_empty()).then(|| text.clone());
            turn.rooms.update_metadata(
                self.id,
                given(&request.name),
                given(&request.metadata),
                request.attributes.clone().into_iter().collect(),
            );
            (Reason::Ok, "")
        };
        self.respond(turn, id, reason, text, Some(Request::UpdateMetadata(request)));
    }

    fn unsupported<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, request_id: u32, request: Option<Request>) {
        self.respond(turn, request_id, Reason::UnsupportedType, "not supported by this server", request);
    }
}

impl Session {
    /// What the client of a resumed session believes. Where it is wrong, only a fresh join helps.
    pub(super) fn sync_state<R: Rooms>(&mut self, turn: &mut Turn<'_, R>, state: proto::SyncState) {
        if !std::mem::take(&mut self.resumed) {
            return turn.count(Dropped::OutOfOrder);
        }
        let published = turn.rooms.info(self.id).map(|me| me.tracks).unwrap_or_default();
        let known =
            |sid: &str| published.iter().any(|track| track.sid.as_str() == sid) || self.publications.is_pending(sid);
        let mut claimed = state.publish_tracks.iter().filter_map(|published| published.track.as_ref());
        if !claimed.all(|track| known(&track.sid)) {
            return turn.rooms.leave(turn.now, self.id, LeaveReason::StateMismatch);
        }
        if let Some(subscription) = state.subscription {
            self.subscription(turn, subscription);
        }
        let disabled =
            proto::UpdateTrackSettings { track_sids: state.track_sids_disabled, disabled: true, ..Default::default() };
        if !disabled.track_sids.is_empty() {
            self.track_setting(turn, disabled);
        }
    }
}
