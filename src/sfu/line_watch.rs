//! LineWatch: every few seconds the room judges everybody's line and tells what changed (LiveKit's `connection_quality`). One
//! timer for a room, and one event for a participant, however many there are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::arrivals::Arrivals;
use super::connection_quality::{ConnectionQuality, Line};
use super::event::{EventKind, LineState};
use super::info::{ParticipantId, ParticipantState};
use super::participant::Participant;
use super::room::Room;
use super::timers::{Alarm, Timer};
use super::track::Track;
use super::{Now, TrackKey, Turn};

/// LiveKit's.
const INTERVAL: Duration = Duration::from_secs(5);

/// Browsers check consent at least every six seconds (RFC 7675 §5.1), so that who is silent for longer is gone, or will
/// soon be taken for it.
const SILENT: Duration = Duration::from_secs(7);

#[derive(Debug, Default)]
pub(super) struct LineWatch {
    alarm: Alarm,
    /// What everybody knows.
    told: BTreeMap<ParticipantId, ConnectionQuality>,
}

impl Room {
    /// Somebody is there whose line has to be judged.
    pub fn watch_lines(&mut self, now: Now, turn: &mut Turn) {
        self.lines.alarm.set(now.instant + INTERVAL, Timer::Lines(self.id), &mut turn.timers);
    }

    pub fn lines_due(&mut self, now: Now, at: Instant, turn: &mut Turn) {
        if !self.lines.alarm.ring(at) {
            return;
        }
        let before = std::mem::take(&mut self.lines.told);
        let (mut all, mut changed) = (Vec::new(), Vec::new());
        for (id, quality, opinion) in self.judge(now) {
            let told = before.get(&id);
            let quality = told.map_or(quality, |told| told.towards(quality));
            self.lines.told.insert(id, quality);
            let Some(participant) = self.participants.get(&id) else { continue };
            let state = LineState { participant: participant.sid.clone(), quality, opinion };
            if participant.permissions.hidden {
                // Only its own client may know that it is there.
                if told != Some(&quality) {
                    turn.emit(id, EventKind::LineStates(Arc::new([state])));
                }
                continue;
            }
            if told != Some(&quality) {
                changed.push(state.clone());
            }
            all.push(state);
        }
        let (all, changed): (Arc<[LineState]>, Arc<[LineState]>) = (all.into(), changed.into());
        for id in self.lines.told.keys() {
            let states = if before.contains_key(id) { &changed } else { &all };
            if !states.is_empty() {
                turn.emit(*id, EventKind::LineStates(states.clone()));
            }
        }
        if !self.lines.told.is_empty() {
            self.watch_lines(now, turn);
        }
    }

    fn judge(&mut self, now: Now) -> Vec<(ParticipantId, ConnectionQuality, f32)> {
        let mut judged = Vec::new();
        for id in self.participant_ids() {
            let Some(participant) = self.participants.get(&id) else { continue };
            if participant.state != ParticipantState::Active {
                continue;
            }
            let mut line = downstream(participant);
            let (loss, jitter) = upstream(&mut self.tracks, &participant.published);
            line.loss = line.loss.max(loss);
            line.jitter = jitter;
            let silent = participant.last_heard().is_none_or(|at| now.instant.saturating_duration_since(at) > SILENT);
            let quality = if silent { ConnectionQuality::Lost } else { line.quality() };
            judged.push((id, quality, if silent { 1.0 } else { line.opinion() }));
        }
        judged
    }
}

/// Loss and jitter on the way to us, of these tracks since they were asked last.
fn upstream(tracks: &mut BTreeMap<TrackKey, Track>, published: &[TrackKey]) -> (f32, Duration) {
    let (mut expected, mut lost, mut jitter) = (0, 0, Duration::ZERO);
    for key in published {
        let Some(track) = tracks.get_mut(key) else { continue };
        for counted in track.arrivals.iter_mut().map(Arrivals::take).filter(|counted| counted.expected > 0) {
            expected += counted.expected;
            lost += counted.lost;
            jitter = jitter.max(counted.jitter);
        }
    }
    (if expected == 0 { 0.0 } else { lost as f32 / expected as f32 }, jitter)
}

fn downstream(participant: &Participant) -> Line {
    let Some(transport) = participant.sending().map(|connection| &connection.transport) else {
        return Line::default();
    };
    Line {
        loss: transport.loss(),
        round_trip: transport.round_trip(),
        wanted: participant.desired,
        carried: transport.estimate(),
        // Receivers report that of the whole way, the publisher's line included.
        jitter: Duration::ZERO,
    }
}
