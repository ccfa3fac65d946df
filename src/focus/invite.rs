//! Which invitations become legs, and what is said to the others.

use std::collections::HashSet;

use super::call::{CallKey, LegId, Scope};
use super::content::Kind;
use super::description::outline;
use super::event::{Event, Origin, Output};
use super::leg::{Invitation, Leg, Turn};
use super::peer::Peer;
use super::reason::Reason;
use super::verdict::{Farewell, Verdict};
use super::{Focus, Ignored, Settings};
use crate::sfu::Now;

/// Calls that one sync response both begins and closes: its reader must not answer them on the way.
#[derive(Debug, Default)]
pub(super) struct Closed {
    hung_up: HashSet<(Scope, String)>,
    /// Another session of our user has it or declined it; or this one, before it was started.
    taken: HashSet<(Scope, String)>,
}

impl Closed {
    pub fn in_batch(events: &[Event], settings: &Settings) -> Closed {
        let mut closed = Closed::default();
        for event in events {
            // A to-device message is sent to us alone and delivered once: what is not closed yet is in time.
            let Origin::Room { room, .. } = &event.origin else { continue };
            let call = || (Scope::Room(room.clone()), event.content.envelope.call_id.clone());
            match event.content.kind {
                Kind::Hangup(_) => closed.hung_up.insert(call()),
                Kind::Answer { .. } | Kind::Reject(_) if event.sender == settings.user_id => {
                    closed.taken.insert(call())
                }
                _ => continue,
            };
        }
        closed
    }

    pub fn is_hung_up(&self, call: &CallKey) -> bool {
        self.hung_up.contains(&(call.scope.clone(), call.call_id.clone()))
    }

    fn contains(&self, call: &CallKey) -> bool {
        self.is_hung_up(call) || self.taken.contains(&(call.scope.clone(), call.call_id.clone()))
    }
}

impl Focus {
    /// An invitation to a call that is not known.
    pub(super) fn invited(&mut self, now: Now, call: CallKey, event: Event, closed: &Closed) {
        let Event { origin, content, age, event_id, .. } = event;
        let envelope = content.envelope;
        let Kind::Invite { offer, lifetime, invitee, streams } = content.kind else { return };
        let peer = Peer::new(call.clone(), &envelope);
        let is_for_us = match invitee {
            Some(invitee) => invitee == self.settings.user_id,
            // To anybody in the room: among others it is for them, and refusing would end it for all.
            None => matches!(origin, Origin::Room { is_direct: true, .. } | Origin::ToDevice { .. }),
        };
        if !is_for_us {
            return self.dismiss(now, peer, Verdict::NotForUs, Farewell::Silent);
        }
        let Some(remaining) = lifetime.checked_sub(age).filter(|left| !left.is_zero()) else {
            return self.dismiss(now, peer, Verdict::Expired, Farewell::Silent);
        };
        if closed.contains(&call) {
            return self.dismiss(now, peer, Verdict::Missed, Farewell::Silent);
        }
        let limits = self.settings.limits;
        if !self.rates.allows_invite(now.instant, &call.user, &limits) {
            return self.turn_away(now, peer, Verdict::TooOften);
        }
        if outline(&offer).is_none() {
            return self.dismiss(now, peer, Verdict::BadDescription, Farewell::Reject(Reason::UnknownError));
        }
        let instead_of = match self.settle_glare(now, &call) {
            Ok(replaced) => replaced,
            Err(farewell) => return self.dismiss(now, peer, Verdict::LostGlare, farewell),
        };
        self.end_earlier(now, &call, envelope.party(), peer.session.as_deref());
        if self.by_user.get(&call.user).is_some_and(|legs| legs.len() >= limits.legs_per_user) {
            return self.turn_away(now, peer, Verdict::UserBusy);
        }
        if self.legs.len() >= limits.legs {
            return self.turn_away(now, peer, Verdict::Full);
        }
        let id = self.next_id();
        let mut turn = Turn { now, settings: &self.settings, outputs: &mut self.outputs, ignored: &mut self.ignored };
        let invitation = Invitation { call, envelope, offer, streams, remaining, event_id, instead_of };
        let leg = Leg::incoming(&mut turn, id, invitation);
        self.insert(id, leg);
    }

    /// Both sides call at once: the smaller call id wins, unless the opponent does not know of our call yet. Gives our leg
    /// that ended, or what is said to a call that lost.
    fn settle_glare(&mut self, now: Now, call: &CallKey) -> Result<Option<LegId>, Farewell> {
        let Some(ours) = self
            .legs_with(call)
            .into_iter()
            .find(|id| self.legs.get(id).is_some_and(|leg| leg.is_unsent() || leg.is_ringing()))
        else {
            return Ok(None);
        };
        let wins = self.legs.get(&ours).is_some_and(|leg| leg.is_ringing() && leg.call().call_id <= call.call_id);
        if wins {
            // Also to those that do not see the glare, whose invitation would go on ringing.
            return Err(Farewell::Reject(Reason::Replaced));
        }
        self.act(now, ours, |leg, _| leg.give_way(Reason::Replaced));
        Ok(Some(ours))
    }

    /// A client that calls anew has given up its call before, whatever became of it.
    fn end_earlier(&mut self, now: Now, call: &CallKey, party: Option<&str>, session: Option<&str>) {
        for id in self.legs_with(call) {
            let Some(leg) = self.legs.get(&id).filter(|leg| call.device.is_some() || leg.is_with(party)) else {
                continue;
            };
            let reason = if leg.session() == session { Reason::Replaced } else { Reason::NewSession };
            self.act(now, id, |leg, _| leg.give_way(reason));
        }
    }

    /// Legs with the same opponent at the same place.
    fn legs_with(&self, call: &CallKey) -> Vec<LegId> {
        let is_same = |leg: &Leg| leg.call().scope == call.scope && leg.call().device == call.device;
        let of_user = self.by_user.get(&call.user).map(Vec::as_slice).unwrap_or_default();
        of_user.iter().copied().filter(|id| self.legs.get(id).is_some_and(is_same)).collect()
    }

    /// Refuses because of a limit, unless too many are: then nothing is said.
    fn turn_away(&mut self, now: Now, peer: Peer, verdict: Verdict) {
        let may_say = self.rates.allows_refusal(now.instant, &self.settings.limits);
        if !may_say {
            self.ignored.add(Ignored::Silenced);
        }
        self.dismiss(now, peer, verdict, if may_say { Farewell::Reject(Reason::UserBusy) } else { Farewell::Silent });
    }

    /// The one thing that is said of a call that never was a leg.
    fn dismiss(&mut self, now: Now, mut peer: Peer, verdict: Verdict, farewell: Farewell) {
        peer.say_farewell(&self.settings, &mut self.outputs, None, farewell);
        self.outputs.push_back(Output::Verdict { leg: None, call: peer.call.clone(), verdict });
        if farewell == Farewell::Silent {
            self.ended.insert(now.instant, peer.call);
        } else {
            self.bury(now, peer.call);
        }
    }

    /// A call that a process before this one answered: whoever is in it waits in vain.
    pub(super) fn hang_up_leftover(&mut self, now: Now, peer: Peer) {
        if self.rates.allows_refusal(now.instant, &self.settings.limits) {
            self.hang_up(now, peer);
        } else {
            self.ignored.add(Ignored::Silenced);
        }
    }

    pub(super) fn hang_up(&mut self, now: Now, peer: Peer) {
        self.dismiss(now, peer, Verdict::Leftover, Farewell::Hangup(Reason::UnknownError));
    }
}
