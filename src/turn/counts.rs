//! What a worker's TURN server did, for metrics.

use super::answer::Refusal;

/// Everything but `allocations` only ever grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// That there are now.
    pub allocations: u64,
    /// Allocations ever made.
    pub allocated: u64,
    /// Binding requests answered.
    pub bindings: u64,
    /// From clients to peers outside this server.
    pub to_peers: Relayed,
    /// From clients to our own media or to relayed addresses of ours.
    pub in_process: Relayed,
    /// To clients, wherever it came from.
    pub to_clients: Relayed,
    refused: [u64; REFUSALS.len()],
    dropped: [u64; DROPS.len()],
}

/// Payload only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relayed {
    pub packets: u64,
    pub bytes: u64,
}

/// Why something was not answered or not relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// No STUN, no ChannelData, or not as long as it says.
    Malformed,
    /// A response, or a method that we do not have.
    Unexpected,
    /// The source has had its answers for now.
    Unanswered,
    NoAllocation,
    NoChannel,
    NoPermission,
    /// The peer's address or port is closed.
    Denied,
    /// Above the byte rate of the allocation or the user.
    OverRate,
    /// To more addresses than anybody needs.
    TooManyAddresses,
    /// Would not fit a datagram.
    TooLong,
}

const REFUSALS: [Refusal; 12] = [
    Refusal::BadRequest,
    Refusal::Unauthenticated,
    Refusal::Forbidden,
    Refusal::UnknownAttribute,
    Refusal::AllocationMismatch,
    Refusal::StaleNonce,
    Refusal::AddressFamilyNotSupported,
    Refusal::WrongCredentials,
    Refusal::UnsupportedTransport,
    Refusal::PeerAddressFamilyMismatch,
    Refusal::QuotaReached,
    Refusal::InsufficientCapacity,
];

const DROPS: [Dropped; 10] = [
    Dropped::Malformed,
    Dropped::Unexpected,
    Dropped::Unanswered,
    Dropped::NoAllocation,
    Dropped::NoChannel,
    Dropped::NoPermission,
    Dropped::Denied,
    Dropped::OverRate,
    Dropped::TooManyAddresses,
    Dropped::TooLong,
];

impl Counts {
    /// Requests refused, by cause.
    pub fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> {
        REFUSALS.into_iter().zip(self.refused)
    }

    /// What was dropped without an answer, by cause.
    pub fn dropped(&self) -> impl Iterator<Item = (Dropped, u64)> {
        DROPS.into_iter().zip(self.dropped)
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        if let Some(index) = REFUSALS.iter().position(|r| *r == refusal) {
            self.refused[index] += 1;
        }
    }

    pub(super) fn drop(&mut self, dropped: Dropped) {
        self.dropped[dropped as usize] += 1;
    }
}

impl Relayed {
    pub(super) fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

impl Dropped {
    /// For a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Dropped::Malformed => "malformed",
            Dropped::Unexpected => "unexpected",
            Dropped::Unanswered => "unanswered",
            Dropped::NoAllocation => "no_allocation",
            Dropped::NoChannel => "no_channel",
            Dropped::NoPermission => "no_permission",
            Dropped::Denied => "denied",
            Dropped::OverRate => "over_rate",
            Dropped::TooManyAddresses => "too_many_addresses",
            Dropped::TooLong => "too_long",
        }
    }
}
