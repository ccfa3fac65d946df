//! Candidates that come before it is known which of the peer's clients the call is with.
//!
//! One client, or a malicious one, may send as many events as its homeserver lets it: what is kept is bounded for each
//! party and in parties. We are ICE-lite and learn addresses from the peer's checks, so a candidate lost costs nothing.

use std::collections::HashMap;

use super::content::Candidate;

/// What is kept of one party; as many as one event may bring.
pub(super) const MAX_PER_PARTY: usize = 64;

/// Clients of one user that may send candidates before they have answered.
pub(super) const MAX_PARTIES: usize = 8;

/// Candidates by party; `None` is the only client that version 0 knows.
#[derive(Debug, Default)]
pub(super) struct CandidateBuffers {
    parties: HashMap<Option<String>, Vec<Candidate>>,
}

impl CandidateBuffers {
    /// Gives how many did not fit.
    pub fn push(&mut self, party: Option<&str>, candidates: Vec<Candidate>) -> usize {
        let party = party.map(str::to_owned);
        if self.parties.len() >= MAX_PARTIES && !self.parties.contains_key(&party) {
            return candidates.len();
        }
        let kept = self.parties.entry(party).or_default();
        let room = MAX_PER_PARTY - kept.len();
        let dropped = candidates.len().saturating_sub(room);
        kept.extend(candidates.into_iter().take(room));
        dropped
    }

    pub fn take(&mut self, party: Option<&str>) -> Vec<Candidate> {
        self.parties.remove(&party.map(str::to_owned)).unwrap_or_default()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.parties.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_are_kept_apart() {
        let mut buffers = CandidateBuffers::default();
        assert_eq!(buffers.push(Some("a"), vec![Candidate::end(); 2]), 0);
        assert_eq!(buffers.push(Some("b"), vec![Candidate::end()]), 0);
        assert_eq!(buffers.push(None, vec![Candidate::end(); 3]), 0);
        assert_eq!(buffers.take(Some("a")).len(), 2);
        assert_eq!(buffers.take(Some("a")).len(), 0);
        assert_eq!((buffers.take(None).len(), buffers.take(Some("b")).len()), (3, 1));
    }

    #[test]
    fn a_flood_is_dropped() {
        let mut buffers = CandidateBuffers::default();
        assert_eq!(buffers.push(Some("a"), vec![Candidate::end(); 60]), 0);
        assert_eq!(buffers.push(Some("a"), vec![Candidate::end(); 10_000]), 9_996);
        for party in 0..1000 {
            buffers.push(Some(&format!("party{party}")), vec![Candidate::end(); 100]);
        }
        assert_eq!(buffers.len(), MAX_PARTIES * MAX_PER_PARTY);
    }
}
