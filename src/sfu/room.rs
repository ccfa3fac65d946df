//! A room: its participants and tracks, who comes, who goes, and what the others are told. Owned by [`Sfu`](super::Sfu).
//!
//! The rest of a room's work is beside it: [`publication`](super::publication), [`subscription`](super::subscription),
//! [`forwarding`](super::forwarding) and [`updates`](super::updates).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::active_speaker::ActiveSpeaker;
use super::dominant_speaker::DominantSpeaker;
use super::event::{EventKind, Verdict};
use super::info::{LeaveReason, ParticipantId, ParticipantInfo, ParticipantState, RoomInfo, Sid};
use super::line_watch::LineWatch;
use super::loudest::Loudest;
use super::participant::Participant;
use super::participants::Participants;
use super::timers::{Alarm, Timer};
use super::track::Track;
use super::updates::Updates;
use super::{JOIN_TIMEOUT, JoinError, JoinOptions, Negotiation, Now, RoomId, Side, TrackKey, Turn};

/// A peer not heard for this long is gone: browsers check consent every five seconds at the latest (RFC 7675), and
/// LiveKit gives up after 10 s disconnected and 5 s failed.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// A client answers an offer at once or not at all.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomOptions {
    /// How long a room waits for its first participant.
    pub empty_timeout: Duration,
    /// How long it stays after the last one left.
    pub departure_timeout: Duration,
    /// 0 = no limit.
    pub max_participants: u32,
    pub metadata: String,
    /// So many microphones are forwarded at once, those of who spoke last; 0 = all.
    pub forward_loudest: u32,
}

impl Default for RoomOptions {
    /// LiveKit's times: clients that reconnect count on finding their room again.
    fn default() -> Self {
        RoomOptions {
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            max_participants: 0,
            metadata: String::new(),
            forward_loudest: 0,
        }
    }
}

pub(super) struct Room {
    pub id: RoomId,
    sid: Sid,
    name: String,
    options: RoomOptions,
    created_at_ms: u64,
    pub participants: Participants,
    pub tracks: BTreeMap<TrackKey, Track>,
    pub last_track: u64,
    pub speakers: ActiveSpeaker<ParticipantId>,
    pub floor: DominantSpeaker<ParticipantId>,
    pub loudest: Loudest<TrackKey>,
    pub speakers_alarm: Alarm,
    pub updates: Updates,
    pub lines: LineWatch,
    ever_joined: bool,
    /// When the room ends unless somebody comes.
    ends_at: Option<Instant>,
    alarm: Alarm,
}

impl Room {
    pub fn new(now: Now, id: RoomId, name: &str, options: RoomOptions, turn: &mut Turn) -> Self {
        Room {
            id,
            sid: turn.ids.room(),
            name: name.to_owned(),
            loudest: Loudest::new(options.forward_loudest as usize),
            options,
            created_at_ms: now.unix_ms,
            participants: Participants::default(),
            tracks: BTreeMap::new(),
            last_track: 0,
            speakers: ActiveSpeaker::new(),
            floor: DominantSpeaker::new(),
            speakers_alarm: Alarm::default(),
            updates: Updates::default(),
            lines: LineWatch::default(),
            ever_joined: false,
            ends_at: None,
            alarm: Alarm::default(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn track_count(&self) -> usize {
        self.tracks.len()
    }

    pub fn info(&self) -> RoomInfo {
        let visible = || self.participants.values().filter(|p| !p.permissions.hidden);
        RoomInfo {
            sid: self.sid.clone(),
            name: self.name.clone(),
            metadata: self.options.metadata.clone(),
            num_participants: visible().count() as u32,
            num_publishers: visible().filter(|p| !p.sections.is_empty()).count() as u32,
            created_at_ms: self.created_at_ms,
            empty_timeout: self.options.empty_timeout.as_secs() as u32,
            departure_timeout: self.options.departure_timeout.as_secs() as u32,
            max_participants: self.options.max_participants,
        }
    }

    pub fn participant_ids(&self) -> Vec<ParticipantId> {
        self.participants.keys().copied().collect()
    }

    pub fn by_identity(&self, identity: &str) -> Option<ParticipantId> {
        self.participants.values().find(|p| p.identity == identity).map(|p| p.id)
    }

    pub fn identities(&self) -> Vec<(ParticipantId, Sid, String)> {
        self.participants.values().map(|p| (p.id, p.sid.clone(), p.identity.clone())).collect()
    }

    pub fn participant_info(&self, id: ParticipantId) -> Option<ParticipantInfo> {
        let participant = self.participants.get(&id)?;
        let mut info = participant.info();
        info.is_publisher = !participant.sections.is_empty();
        let tracks = participant.published.iter().filter_map(|key| self.tracks.get(key)).filter(|t| t.is_published());
        info.tracks = tracks.map(|t| t.info.clone()).collect();
        Some(info)
    }

    pub fn others(&self, id: ParticipantId) -> Vec<ParticipantInfo> {
        let mut ids = self.participant_ids();
        ids.retain(|other| *other != id && self.participants.get(other).is_some_and(|p| !p.permissions.hidden));
        ids.into_iter().filter_map(|other| self.participant_info(other)).collect()
    }

    // --- coming ------------------------------------------------------------------------------------------------

    pub fn join(
        &mut self,
        now: Now,
        id: ParticipantId,
        options: JoinOptions,
        turn: &mut Turn,
    ) -> Result<(), JoinError> {
        let limit = self.options.max_participants as usize;
        if limit != 0 && self.participants.len() >= limit {
            return Err(JoinError::RoomFull);
        }
        self.ever_joined = true;
        self.ends_at = None;
        let mut participant = Participant::new(now, id, options, turn);
        participant.wake_at(now.instant + JOIN_TIMEOUT, self.id, turn);
        let offers_downstream = participant.negotiation == Negotiation::Dual && participant.permissions.can_subscribe;
        let auto_subscribe = participant.auto_subscribe;
        self.participants.insert(participant);
        if offers_downstream {
            self.open_subscriber(now, id, turn);
        }
        // Before it is active, so that its first description carries everybody.
        if auto_subscribe {
            self.subscribe_to_all(now, id, turn);
        }
        self.introduce(now, id, turn);
        Ok(())
    }

    pub fn became_active(&mut self, now: Now, id: ParticipantId, side: Side, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if participant.state != ParticipantState::Joined || participant.primary_side() != side {
            return;
        }
        participant.state = ParticipantState::Active;
        let after = participant.age(now);
        participant.wake_at(now.instant + SILENCE_TIMEOUT, self.id, turn);
        turn.emit(id, EventKind::Verdict(Verdict::Connected { after }));
        self.tell_itself(id, turn);
        self.introduce(now, id, turn);
        self.tell_current_speakers(id, turn);
        self.watch_lines(now, turn);
    }

    // --- going -------------------------------------------------------------------------------------------------

    pub fn leave(&mut self, now: Now, id: ParticipantId, reason: LeaveReason, turn: &mut Turn) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if participant.state == ParticipantState::Joined {
            let verdict = Verdict::Failed { reason: participant.failure(reason), after: participant.age(now) };
            turn.emit(id, EventKind::Verdict(verdict));
        }
        participant.state = ParticipantState::Disconnected;
        participant.leave_reason = Some(reason);
        participant.version += 1;
        let published = std::mem::take(&mut participant.published);
        let subscribed: Vec<TrackKey> = participant.subscribed.keys().copied().collect();
        for key in subscribed {
            self.drop_down_track(key, id);
            self.update_dynacast(now, key, turn);
        }
        for key in published {
            self.remove_track(now, key, turn);
        }
        self.speakers.remove(id);
        self.floor.remove(id);
        self.tell_others(id, turn);
        let Some(participant) = self.participants.remove(&id) else { return };
        for connection in participant.publisher.iter().chain(&participant.subscriber) {
            connection.forget(turn);
        }
        turn.emit(id, EventKind::Left(reason));
        self.watch_emptiness(now, turn);
    }

    /// Whether the participant can stay and wait for its client to resume.
    pub fn signal_lost(&mut self, now: Now, id: ParticipantId) -> bool {
        let Some(participant) = self.participants.get_mut(&id) else { return true };
        participant.signal_lost_at = Some(now.instant);
        participant.media_alive()
    }

    pub fn signal_resumed(&mut self, now: Now, id: ParticipantId, turn: &mut Turn) {
        if let Some(participant) = self.participants.get_mut(&id) {
            participant.signal_lost_at = None;
        }
        self.repeat_mutes(id, turn);
        self.repeat_allocation(id, turn);
        self.restart_subscriber(now, id, turn);
    }

    /// A connection of the participant is closed for good: the client closed it, or its handshake failed. No restart
    /// brings it back, only a fresh join.
    pub fn connection_closed(&mut self, id: ParticipantId, turn: &mut Turn) {
        let Some(participant) = self.participants.get(&id) else { return };
        let reason = match participant.state {
            ParticipantState::Joined => LeaveReason::JoinTimeout,
            _ if participant.signal_lost_at.is_some() => LeaveReason::ConnectionTimeout,
            _ => LeaveReason::StateMismatch,
        };
        turn.leaving.push((id, reason));
    }

    /// The participant's alarm rang. `Some`: it has to leave.
    pub fn participant_due(
        &mut self,
        now: Now,
        at: Instant,
        id: ParticipantId,
        turn: &mut Turn,
    ) -> Option<LeaveReason> {
        let participant = self.participants.get_mut(&id)?;
        if !participant.alarm.ring(at) {
            return None;
        }
        let since = |start: Instant| now.instant.saturating_duration_since(start);
        let silent_since = participant.last_heard().unwrap_or(participant.joined_at.instant);
        let (deadline, reason) = match participant.state {
            ParticipantState::Joined => (participant.joined_at.instant + JOIN_TIMEOUT, LeaveReason::JoinTimeout),
            _ => (silent_since + SILENCE_TIMEOUT, LeaveReason::ConnectionTimeout),
        };
        if deadline <= now.instant {
            return Some(reason);
        }
        participant.wake_at(deadline, self.id, turn);
        if let Some(offered_at) = participant.downstream.offered_at {
            if since(offered_at) >= ANSWER_TIMEOUT {
                return Some(LeaveReason::StateMismatch);
            }
            participant.wake_at(offered_at + ANSWER_TIMEOUT, self.id, turn);
        }
        if let Some(due) = participant.downstream.due {
            if due <= now.instant {
                participant.downstream.due = None;
                self.negotiate(now, id, turn);
            } else {
                participant.wake_at(due, self.id, turn);
            }
        }
        None
    }

    // --- telling -----------------------------------------------------------------------------------------------

    pub fn update_metadata(
        &mut self,
        id: ParticipantId,
        name: Option<String>,
        metadata: Option<String>,
        attributes: BTreeMap<String, String>,
        turn: &mut Turn,
    ) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if let Some(name) = name {
            participant.name = name;
        }
        if let Some(metadata) = metadata {
            participant.metadata = metadata;
        }
        for (key, value) in attributes {
            if value.is_empty() {
                participant.attributes.remove(&key);
            } else {
                participant.attributes.insert(key, value);
            }
        }
        self.changed(id, turn);
    }

    // --- the room's own end -------------------------------------------------------------------------------------

    pub fn watch_emptiness(&mut self, now: Now, turn: &mut Turn) {
        if !self.participants.is_empty() {
            return;
        }
        let wait = if self.ever_joined { self.options.departure_timeout } else { self.options.empty_timeout };
        let ends_at = now.instant + wait;
        self.ends_at = Some(ends_at);
        self.alarm.set(ends_at, Timer::Room(self.id), &mut turn.timers);
    }

    pub fn is_over(&mut self, now: Now, at: Instant, turn: &mut Turn) -> bool {
        if !self.alarm.ring(at) {
            return false;
        }
        match self.ends_at {
            Some(ends_at) if ends_at <= now.instant => self.participants.is_empty(),
            Some(ends_at) => {
                self.alarm.set(ends_at, Timer::Room(self.id), &mut turn.timers);
                false
            }
            None => false,
        }
    }
}
