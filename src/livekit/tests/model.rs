//! A model of the rooms: who is there, which tracks they have, who must hear of it and in which order. An offer
//! publishes every pending track; nothing else of media is modelled.

use std::collections::{BTreeMap, VecDeque};

use super::super::Rooms;
use crate::sfu::*;

#[derive(Default)]
pub struct Model {
    pub members: BTreeMap<ParticipantId, Member>,
    pub events: VecDeque<Event>,
    /// Commands that change nothing the model knows, as they came.
    pub commands: Vec<String>,
    pub data: Vec<(ParticipantId, DataChannel, Vec<u8>)>,
    next: u64,
}

pub struct Member {
    pub info: ParticipantInfo,
    pub pending: Vec<TrackInfo>,
    pub signal: bool,
    room: String,
    negotiation: Negotiation,
    offers: u32,
}

const PENDING_MAX: usize = 20;

impl Model {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn emit(&mut self, to: ParticipantId, kind: EventKind) {
        self.events.push_back(Event { to, kind });
    }

    fn peers(&self, id: ParticipantId) -> Vec<ParticipantId> {
        let Some(member) = self.members.get(&id) else { return Vec::new() };
        let peers = self.members.iter().filter(|(peer, other)| **peer != id && other.room == member.room);
        peers.map(|(peer, _)| *peer).collect()
    }

    /// A change of `id`, told to those who may know of it.
    pub fn change(&mut self, id: ParticipantId, change: impl FnOnce(&mut Member)) {
        let Some(member) = self.members.get_mut(&id) else { return };
        change(member);
        member.info.version += 1;
        let info = member.info.clone();
        self.emit(id, EventKind::ParticipantsChanged([info.clone()].into()));
        if !info.permissions.hidden {
            for peer in self.peers(id) {
                self.emit(peer, EventKind::ParticipantsChanged([info.clone()].into()));
            }
        }
    }

    /// Every published track of the others gets a section.
    fn sections(&self, id: ParticipantId) -> Vec<(String, Sid)> {
        let peers = self.peers(id).into_iter().map(|peer| &self.members[&peer].info);
        let tracks = peers.filter(|peer| !peer.permissions.hidden).flat_map(|peer| &peer.tracks);
        tracks.enumerate().map(|(mid, track)| (mid.to_string(), track.sid.clone())).collect()
    }

    fn renegotiate(&mut self, id: ParticipantId) {
        let mid_to_track = self.sections(id);
        let member = self.members.get_mut(&id).expect("a peer is a member");
        member.offers += 1;
        let kind = match member.negotiation {
            Negotiation::Single => EventKind::SectionsRequired { audio: 1, video: 0 },
            Negotiation::Dual => {
                EventKind::Offer(Description { id: member.offers, sdp: "v=0".to_owned(), mid_to_track })
            }
        };
        self.emit(id, kind);
    }

    pub fn remove(&mut self, id: ParticipantId, reason: LeaveReason) {
        self.change(id, |member| {
            member.info.state = ParticipantState::Disconnected;
            member.info.leave_reason = Some(reason);
            member.info.tracks.clear();
        });
        let peers = self.peers(id);
        if self.members.remove(&id).is_some() {
            self.emit(id, EventKind::Left(reason));
        }
        for peer in peers {
            self.renegotiate(peer);
        }
    }

    pub fn unpublish(&mut self, id: ParticipantId) {
        let Some(track) = self.members.get(&id).and_then(|member| member.info.tracks.first()) else { return };
        let sid = track.sid.clone();
        self.change(id, |member| member.info.tracks.retain(|track| track.sid != sid));
    }
}

impl Rooms for Model {
    fn join(&mut self, now: Now, room: &str, options: JoinOptions) -> Result<ParticipantId, JoinError> {
        if !options.create_room && self.members.values().all(|member| member.room != room) {
            return Err(JoinError::RoomMissing);
        }
        let same = |member: &Member| member.room == room && member.info.identity == options.identity;
        if let Some(older) = self.members.iter().find(|(_, member)| same(member)).map(|(id, _)| *id) {
            self.remove(older, LeaveReason::DuplicateIdentity);
        }
        let id = ParticipantId(self.number());
        let info = ParticipantInfo {
            sid: Sid(format!("PA_{}", id.0).into()),
            identity: options.identity,
            name: options.name,
            metadata: options.metadata,
            attributes: options.attributes,
            state: ParticipantState::Joined,
            tracks: Vec::new(),
            permissions: options.permissions,
            version: 1,
            joined_at_ms: now.unix_ms,
            is_publisher: false,
            client_protocol: options.client_protocol,
            leave_reason: None,
        };
        let hidden = info.permissions.hidden;
        let (room, negotiation) = (room.to_owned(), options.negotiation);
        self.members
            .insert(id, Member { info: info.clone(), pending: Vec::new(), signal: true, room, negotiation, offers: 0 });
        for peer in self.peers(id) {
            if !hidden {
                self.emit(peer, EventKind::ParticipantsChanged([info.clone()].into()));
            }
        }
        if options.negotiation == Negotiation::Dual {
            self.renegotiate(id);
        }
        Ok(id)
    }

    fn info(&self, id: ParticipantId) -> Option<ParticipantInfo> {
        self.members.get(&id).map(|member| member.info.clone())
    }

    fn room_of(&self, id: ParticipantId) -> Option<RoomInfo> {
        let room = &self.members.get(&id)?.room;
        Some(RoomInfo {
            sid: Sid(format!("RM_{room}").into()),
            name: room.clone(),
            metadata: String::new(),
            num_participants: self.peers(id).len() as u32 + 1,
            num_publishers: 0,
            created_at_ms: 1_799_999_999_500,
            empty_timeout: 300,
            departure_timeout: 20,
            max_participants: 0,
        })
    }

    fn others(&self, id: ParticipantId) -> Vec<ParticipantInfo> {
        let peers = self.peers(id).into_iter().map(|peer| self.members[&peer].info.clone());
        peers.filter(|peer| !peer.permissions.hidden).collect()
    }

    fn ids_in_room_of(&self, id: ParticipantId) -> Vec<(ParticipantId, Sid, String)> {
        let members = self.peers(id).into_iter().chain(self.members.contains_key(&id).then_some(id));
        let entry = |id| (id, self.members[&id].info.sid.clone(), self.members[&id].info.identity.clone());
        members.map(entry).collect()
    }

    fn offer(&mut self, _: Now, id: ParticipantId, offer_id: u32, sdp: &str) {
        if sdp != "v=0" {
            return self.remove(id, LeaveReason::StateMismatch);
        }
        let Some(member) = self.members.get_mut(&id) else { return };
        let published: Vec<TrackInfo> = std::mem::take(&mut member.pending);
        let first = member.info.state == ParticipantState::Joined && member.negotiation == Negotiation::Single;
        if !published.is_empty() || first {
            let publishes = !published.is_empty();
            self.change(id, |member| {
                member.info.state = ParticipantState::Active;
                member.info.is_publisher |= publishes;
                member.info.tracks.extend(published.into_iter().enumerate().map(|(mid, mut track)| {
                    track.codec = track.announced.codec.or(Some(Codec::Vp8));
                    track.mid = Some(mid.to_string());
                    track
                }));
            });
            if publishes {
                for peer in self.peers(id) {
                    self.renegotiate(peer);
                }
            }
        }
        let mid_to_track = self.sections(id);
        self.emit(id, EventKind::Answer(Description { id: offer_id, sdp: "v=0".to_owned(), mid_to_track }));
    }

    fn answer(&mut self, _: Now, id: ParticipantId, offer_id: u32, _: &str) {
        let Some(member) = self.members.get(&id) else { return };
        if member.offers == offer_id && member.info.state == ParticipantState::Joined {
            self.change(id, |member| member.info.state = ParticipantState::Active);
        }
    }

    fn add_track(&mut self, _: Now, id: ParticipantId, track: NewTrack) -> Result<TrackInfo, AddTrackError> {
        let sid = Sid(format!("TR_{}", self.number()).into());
        let member = self.members.get_mut(&id).ok_or(AddTrackError::NotAllowed)?;
        if member.pending.iter().chain(&member.info.tracks).any(|other| other.announced.cid == track.cid) {
            return Err(AddTrackError::AlreadyPublished);
        }
        if member.pending.len() >= PENDING_MAX {
            return Err(AddTrackError::LimitExceeded);
        }
        let info = TrackInfo {
            sid,
            codec: None,
            mid: None,
            muted: track.muted,
            simulcast: track.layers.len() > 1,
            scalable: false,
            layers: track.layers.clone(),
            announced: track,
        };
        member.pending.push(info.clone());
        Ok(info)
    }

    fn set_muted(&mut self, _: Now, id: ParticipantId, track: &Sid, muted: bool) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        if let Some(pending) = member.pending.iter_mut().find(|pending| pending.sid == *track) {
            pending.muted = muted;
            return true;
        }
        let known = member.info.tracks.iter().any(|published| published.sid == *track);
        if known {
            self.change(id, |member| {
                for published in member.info.tracks.iter_mut().filter(|published| published.sid == *track) {
                    published.muted = muted;
                }
            });
        }
        known
    }

    fn subscribe(&mut self, _: Now, _: ParticipantId, tracks: &[Sid], on: bool) {
        self.commands.push(format!("subscribe {tracks:?} {on}"));
    }

    fn track_settings(&mut self, _: Now, _: ParticipantId, tracks: &[Sid], settings: TrackSettings) {
        let TrackSettings { disabled, quality, width, height, fps, priority } = settings;
        self.commands.push(format!("settings {tracks:?} {disabled} {quality:?} {width}x{height} {fps} {priority}"));
    }

    fn update_metadata(
        &mut self,
        id: ParticipantId,
        name: Option<String>,
        metadata: Option<String>,
        attributes: BTreeMap<String, String>,
    ) {
        self.change(id, |member| {
            member.info.name = name.unwrap_or(member.info.name.clone());
            member.info.metadata = metadata.unwrap_or(member.info.metadata.clone());
            member.info.attributes.extend(attributes);
            member.info.attributes.retain(|_, value| !value.is_empty());
        });
    }

    fn send_data(&mut self, to: ParticipantId, channel: DataChannel, message: &[u8]) {
        self.data.push((to, channel, message.to_vec()));
    }

    fn leave(&mut self, _: Now, id: ParticipantId, reason: LeaveReason) {
        self.remove(id, reason);
    }

    fn signal_lost(&mut self, _: Now, id: ParticipantId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.signal = false;
        if member.info.state == ParticipantState::Joined {
            self.remove(id, LeaveReason::SignalClosed);
        }
    }

    fn signal_resumed(&mut self, _: Now, id: ParticipantId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.signal = true;
            if member.negotiation == Negotiation::Dual {
                self.renegotiate(id);
            }
        }
    }
}
