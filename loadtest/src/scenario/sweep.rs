//! How many a server bears: doubled until it does not, then halved in between.

use crate::report::Stage;

/// Above this part of the packets lost for good, in percent, people notice.
const MOST_LOSS_PERCENT: f64 = 0.1;
/// Above this, a hundredth of the packets later than the jitter of a good network.
const MOST_DELAY_P99_MS: f64 = 5.0;
/// The knee is known when both sides of it differ by less than this part.
const PRECISION: f64 = 0.1;

/// Whether the server did its work.
pub fn bears(stage: &Stage) -> bool {
    stage.loss_after_repair <= MOST_LOSS_PERCENT
        && stage.delay.p99 <= MOST_DELAY_P99_MS
        && stage.silent_streams == 0
        && stage.disconnected == 0
}

/// Which size to try next.
#[derive(Debug, Clone)]
pub struct Search {
    largest: usize,
    borne: Option<usize>,
    too_many: Option<usize>,
    next: Option<usize>,
}

impl Search {
    pub fn new(first: usize, largest: usize) -> Search {
        Search { largest, borne: None, too_many: None, next: Some(first.clamp(1, largest.max(1))) }
    }

    pub fn next(&self) -> Option<usize> {
        self.next
    }

    pub fn tell(&mut self, size: usize, borne: bool) {
        if borne {
            self.borne = Some(size);
        } else {
            self.too_many = Some(size);
        }
        self.next = match (self.borne, self.too_many) {
            (Some(borne), None) if borne >= self.largest => None,
            (Some(borne), None) => Some((borne * 2).min(self.largest)),
            (None, Some(1)) => None,
            (None, Some(too_many)) => Some(too_many / 2),
            (Some(borne), Some(too_many)) => {
                let middle = borne.midpoint(too_many);
                let precise = (too_many - borne) as f64 <= PRECISION * borne as f64;
                (!precise && middle > borne && middle < too_many).then_some(middle)
            }
            (None, None) => None,
        };
    }

    /// The largest size that was borne.
    pub fn knee(&self) -> Option<usize> {
        self.borne
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(first: usize, largest: usize, limit: usize) -> (Option<usize>, Vec<usize>) {
        let mut search = Search::new(first, largest);
        let mut tried = Vec::new();
        while let Some(size) = search.next() {
            tried.push(size);
            search.tell(size, size <= limit);
        }
        (search.knee(), tried)
    }

    #[test]
    fn the_knee_is_found() {
        assert_eq!(search(50, 1000, 333), (Some(325), vec![50, 100, 200, 400, 300, 350, 325]));
        assert_eq!(search(50, 1000, 5000), (Some(1000), vec![50, 100, 200, 400, 800, 1000]));
        assert_eq!(search(50, 1000, 10).0, Some(10));
        assert_eq!(search(4, 100, 0).0, None);
    }

    #[test]
    fn every_sign_of_overload_counts() {
        let fine = Stage::default();
        assert!(bears(&fine));
        assert!(!bears(&Stage { loss_after_repair: 0.2, ..fine.clone() }));
        assert!(!bears(&Stage { silent_streams: 1, ..fine.clone() }));
        assert!(!bears(&Stage { disconnected: 1, ..fine.clone() }));
        let mut late = fine;
        late.delay.p99 = 6.0;
        assert!(!bears(&late));
    }
}
