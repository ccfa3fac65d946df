//! Whose a packet is that carries no name: which worker has the connection of its sender's address. Each worker holds its own
//! list, told by the others, so that no packet waits for a lock. Part of [`Post`](super::post::Post).
//!
//! Only addresses are listed that proved to know the password of a connection, so nobody can make the list grow from
//! outside. The first to prove an address keeps it until it gives it up: who knows one password must not be able to turn
//! another's packets away by writing that address on its own.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use crate::sfu::WorkerId;

pub(super) struct Owners {
    here: WorkerId,
    own: HashSet<SocketAddr>,
    /// In the order of their proofs; only addresses that another worker has proved to it, too.
    claims: HashMap<SocketAddr, Vec<WorkerId>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Proved(WorkerId, SocketAddr),
    GaveUp(WorkerId, SocketAddr),
    LostAll(WorkerId),
}

impl Owners {
    pub fn new(here: WorkerId) -> Owners {
        Owners { here, own: HashSet::new(), claims: HashMap::new() }
    }

    /// The other worker that packets from this address go to. `None`: they stay here, where they are known or not.
    pub fn elsewhere(&self, address: &SocketAddr) -> Option<WorkerId> {
        let first = self.claims.get(address)?.first()?;
        (*first != self.here).then_some(*first)
    }

    pub fn hear(&mut self, news: News) {
        match news {
            News::Proved(worker, address) => self.claim(worker, address),
            News::GaveUp(worker, address) => self.give_up(worker, address),
            News::LostAll(worker) => self.give_up_all(worker),
        }
    }

    fn claim(&mut self, worker: WorkerId, address: SocketAddr) {
        if worker == self.here {
            self.own.insert(address);
            // Without others there is nothing to be told apart.
            if let Some(claims) = self.claims.get_mut(&address) {
                claims.push(worker);
            }
            return;
        }
        let own = self.own.contains(&address).then_some(self.here);
        let claims = self.claims.entry(address).or_insert_with(|| own.into_iter().collect());
        if !claims.contains(&worker) {
            claims.push(worker);
        }
    }

    fn give_up(&mut self, worker: WorkerId, address: SocketAddr) {
        if worker == self.here {
            self.own.remove(&address);
        }
        if let Some(claims) = self.claims.get_mut(&address) {
            claims.retain(|claimant| *claimant != worker);
            if claims.iter().all(|claimant| *claimant == self.here) {
                self.claims.remove(&address);
            }
        }
    }

    fn give_up_all(&mut self, worker: WorkerId) {
        if worker == self.here {
            self.own.clear();
        }
        let here = self.here;
        self.claims.retain(|_, claims| {
            claims.retain(|claimant| *claimant != worker);
            claims.iter().any(|claimant| *claimant != here)
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn worker(index: usize) -> WorkerId {
        WorkerId::new(index).unwrap()
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn the_first_proof_counts_until_it_is_given_up() {
        let mut owners = Owners::new(worker(0));
        owners.claim(worker(0), address(1));
        owners.claim(worker(2), address(1));
        assert_eq!(owners.elsewhere(&address(1)), None, "ours came first");
        owners.claim(worker(2), address(2));
        owners.claim(worker(0), address(2));
        owners.claim(worker(1), address(2));
        assert_eq!(owners.elsewhere(&address(2)), Some(worker(2)));
        owners.give_up(worker(2), address(2));
        assert_eq!(owners.elsewhere(&address(2)), None);
        owners.give_up(worker(0), address(2));
        assert_eq!(owners.elsewhere(&address(2)), Some(worker(1)));
        owners.give_up(worker(0), address(1));
        assert_eq!(owners.elsewhere(&address(1)), Some(worker(2)));
        owners.give_up_all(worker(2));
        assert_eq!(owners.elsewhere(&address(1)), None);
        assert_eq!(owners.elsewhere(&address(2)), Some(worker(1)));
    }

    proptest! {
        /// Against a list of who claims what in which order.
        #[test]
        fn like_a_list(steps in prop::collection::vec((0usize..3, 0u16..4, 0usize..5), 0..60)) {
            let mut owners = Owners::new(worker(0));
            let mut list: Vec<(u16, usize)> = Vec::new();
            for (index, port, step) in steps {
                match step {
                    0..=2 if !list.contains(&(port, index)) => {
                        owners.claim(worker(index), address(port));
                        list.push((port, index));
                    }
                    3 => {
                        owners.give_up(worker(index), address(port));
                        list.retain(|entry| *entry != (port, index));
                    }
                    4 => {
                        owners.give_up_all(worker(index));
                        list.retain(|(_, claimant)| *claimant != index);
                    }
                    _ => {}
                }
                for port in 0..4 {
                    let first = list.iter().find(|(p, _)| *p == port).map(|(_, index)| *index);
                    let expected = first.filter(|index| *index != 0).map(worker);
                    prop_assert_eq!(owners.elsewhere(&address(port)), expected);
                }
            }
            for index in 0..3 {
                owners.give_up_all(worker(index));
            }
            prop_assert!(owners.own.is_empty() && owners.claims.is_empty());
        }
    }
}
