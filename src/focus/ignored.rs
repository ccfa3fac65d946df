//! Events and inputs that were not acted on, by reason: for the metrics. A well-behaved client moves few of these.

/// The label in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// Our own event, come back.
    Echo,
    /// For a call that is not ours or not known.
    UnknownCall,
    /// For a call that has ended.
    EndedCall,
    /// Seen before.
    Repeated,
    /// From somebody who is not in the call, or another of the opponent's clients.
    Stranger,
    /// Not at this point of the call, e.g. `select_answer` to the caller.
    OutOfOrder,
    /// Older than its lifetime.
    Expired,
    /// An offer that gives way to ours.
    Glare,
    /// Candidates beyond their limit, one by one.
    Candidates,
    /// To another session of ours.
    OtherSession,
    /// A to-device message that names another device than the one that encrypted it.
    WrongDevice,
    /// Media answers what is no longer asked, or acts on a leg that has ended.
    Stale,
    /// A leg that media cannot offer to was left as it is.
    NoOffer,
    /// Our offer to change a call went unanswered.
    Unanswered,
    /// A refusal was not sent, as there are too many.
    Silenced,
}

const ALL: [Ignored; 15] = [
    Ignored::Echo,
    Ignored::UnknownCall,
    Ignored::EndedCall,
    Ignored::Repeated,
    Ignored::Stranger,
    Ignored::OutOfOrder,
    Ignored::Expired,
    Ignored::Glare,
    Ignored::Candidates,
    Ignored::OtherSession,
    Ignored::WrongDevice,
    Ignored::Stale,
    Ignored::NoOffer,
    Ignored::Unanswered,
    Ignored::Silenced,
];

impl Ignored {
    pub fn as_str(self) -> &'static str {
        match self {
            Ignored::Echo => "echo",
            Ignored::UnknownCall => "unknown-call",
            Ignored::EndedCall => "ended-call",
            Ignored::Repeated => "repeated",
            Ignored::Stranger => "stranger",
            Ignored::OutOfOrder => "out-of-order",
            Ignored::Expired => "expired",
            Ignored::Glare => "glare",
            Ignored::Candidates => "candidates",
            Ignored::OtherSession => "other-session",
            Ignored::WrongDevice => "wrong-device",
            Ignored::Stale => "stale",
            Ignored::NoOffer => "no-offer",
            Ignored::Unanswered => "unanswered",
            Ignored::Silenced => "silenced",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoredCounts([u64; ALL.len()]);

impl IgnoredCounts {
    pub(super) fn add(&mut self, reason: Ignored) {
        self.add_many(reason, 1);
    }

    pub(super) fn add_many(&mut self, reason: Ignored, count: usize) {
        self.0[reason as usize] += count as u64;
    }

    pub fn get(&self, reason: Ignored) -> u64 {
        self.0[reason as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (Ignored, u64)> + '_ {
        ALL.into_iter().map(|reason| (reason, self.get(reason)))
    }
}
