//! What a client sent and we did not act on, by reason: for the metrics. A well-behaved client moves none of these.

/// The label in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// A message of the other dialect, e.g. `answer` in v1.
    WrongDialect,
    /// Not at this point of the session, e.g. `sync_state` without a resume.
    OutOfOrder,
    /// A field that does not hold what it should, e.g. a candidate that is no JSON.
    Malformed,
    /// A list or text beyond its limit.
    Oversized,
    /// Not covered by the token.
    NotPermitted,
    /// `simulate`, `update_layers` and what else is only heard.
    Ignored,
    /// A message for a session that has gone, or from a socket that was replaced.
    Stale,
    DataMalformed,
    DataOversized,
    DataNotPermitted,
    /// Sent again after a resume, and known already.
    DataRepeated,
    /// A payload that is not passed between participants.
    DataNotForwarded,
    DataTooFast,
}

const ALL: [Dropped; 13] = [
    Dropped::WrongDialect,
    Dropped::OutOfOrder,
    Dropped::Malformed,
    Dropped::Oversized,
    Dropped::NotPermitted,
    Dropped::Ignored,
    Dropped::Stale,
    Dropped::DataMalformed,
    Dropped::DataOversized,
    Dropped::DataNotPermitted,
    Dropped::DataRepeated,
    Dropped::DataNotForwarded,
    Dropped::DataTooFast,
];

impl Dropped {
    pub fn as_str(self) -> &'static str {
        match self {
            Dropped::WrongDialect => "wrong-dialect",
            Dropped::OutOfOrder => "out-of-order",
            Dropped::Malformed => "malformed",
            Dropped::Oversized => "oversized",
            Dropped::NotPermitted => "not-permitted",
            Dropped::Ignored => "ignored",
            Dropped::Stale => "stale",
            Dropped::DataMalformed => "data-malformed",
            Dropped::DataOversized => "data-oversized",
            Dropped::DataNotPermitted => "data-not-permitted",
            Dropped::DataRepeated => "data-repeated",
            Dropped::DataNotForwarded => "data-not-forwarded",
            Dropped::DataTooFast => "data-too-fast",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DroppedCounts([u64; ALL.len()]);

impl DroppedCounts {
    pub fn add(&mut self, reason: Dropped) {
        self.0[reason as usize] += 1;
    }

    pub fn get(&self, reason: Dropped) -> u64 {
        self.0[reason as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (Dropped, u64)> + '_ {
        ALL.into_iter().map(|reason| (reason, self.get(reason)))
    }
}
