//! What was counted between two looks.

/// Times in microseconds: one to a minute, within 1 %.
pub type Histogram = hdrhistogram::Histogram<u64>;

const LONGEST_MICROS: u64 = 60_000_000;

/// Counts of all clients of a worker since the window began.
#[derive(Debug, Clone)]
pub struct Window {
    /// RTP packets that came, retransmissions among them: what the server forwarded.
    pub packets: u64,
    /// Bytes of them, with headers.
    pub bytes: u64,
    /// Of the packets, those on a retransmission SSRC.
    pub retransmissions: u64,
    /// Distinct media packets, up to the highest number of every stream.
    pub expected: u64,
    /// Of those, never seen on their own SSRC at their first chance.
    pub lost: u64,
    /// Of the lost, brought back by retransmissions.
    pub recovered: u64,
    pub duplicates: u64,
    /// Streams whose numbers began anew.
    pub restarts: u64,
    /// Packets thrown away on purpose, to act a bad network.
    pub dropped_down: u64,
    pub dropped_up: u64,
    /// Packets that could not be opened with the negotiated keys, of those that were tried.
    pub forged: u64,
    pub opened: u64,
    /// Packets of no known stream.
    pub unknown: u64,
    /// Packets that came before the handshake was done: nobody can open them, so they are gone.
    pub early: u64,
    /// Pictures that a viewer could not go on with: a packet was lost for good, or no keyframe came in time. Each is a request
    /// for a keyframe.
    pub broken_pictures: u64,
    pub nacks_sent: u64,
    /// By publishers, of all layers.
    pub sent: u64,
    pub keyframes_wanted: u64,
    /// Streams that should flow, and of those the ones that did not give a packet.
    pub streams: u64,
    pub silent_streams: u64,
    /// Connections lost.
    pub disconnected: u64,
    /// From the publisher's socket to ours, sampled.
    pub delay: Histogram,
    /// From the start of joining to media connected.
    pub join: Histogram,
    /// From the start of joining to the first packet of sound, or to a whole keyframe.
    pub first_frame: Histogram,
    /// From asking for another layer to its first packet.
    pub switch: Histogram,
    /// From missing a packet to its retransmission.
    pub recovery: Histogram,
    /// The longest pause of any stream, in microseconds.
    pub longest_pause: u64,
}

impl Default for Window {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_MICROS, 3).expect("sound bounds");
        Window {
            packets: 0,
            bytes: 0,
            retransmissions: 0,
            expected: 0,
            lost: 0,
            recovered: 0,
            duplicates: 0,
            restarts: 0,
            dropped_down: 0,
            dropped_up: 0,
            forged: 0,
            opened: 0,
            unknown: 0,
            early: 0,
            broken_pictures: 0,
            nacks_sent: 0,
            sent: 0,
            keyframes_wanted: 0,
            streams: 0,
            silent_streams: 0,
            disconnected: 0,
            delay: histogram(),
            join: histogram(),
            first_frame: histogram(),
            switch: histogram(),
            recovery: histogram(),
            longest_pause: 0,
        }
    }
}

impl Window {
    /// Adds what another worker counted in the same time.
    pub fn add(&mut self, other: &Window) {
        let add = |mine: &mut u64, theirs: u64| *mine += theirs;
        add(&mut self.packets, other.packets);
        add(&mut self.bytes, other.bytes);
        add(&mut self.retransmissions, other.retransmissions);
        add(&mut self.expected, other.expected);
        add(&mut self.lost, other.lost);
        add(&mut self.recovered, other.recovered);
        add(&mut self.duplicates, other.duplicates);
        add(&mut self.restarts, other.restarts);
        add(&mut self.dropped_down, other.dropped_down);
        add(&mut self.dropped_up, other.dropped_up);
        add(&mut self.forged, other.forged);
        add(&mut self.opened, other.opened);
        add(&mut self.unknown, other.unknown);
        add(&mut self.early, other.early);
        add(&mut self.broken_pictures, other.broken_pictures);
        add(&mut self.nacks_sent, other.nacks_sent);
        add(&mut self.sent, other.sent);
        add(&mut self.keyframes_wanted, other.keyframes_wanted);
        add(&mut self.streams, other.streams);
        add(&mut self.silent_streams, other.silent_streams);
        add(&mut self.disconnected, other.disconnected);
        for (mine, theirs) in [
            (&mut self.delay, &other.delay),
            (&mut self.join, &other.join),
            (&mut self.first_frame, &other.first_frame),
            (&mut self.switch, &other.switch),
            (&mut self.recovery, &other.recovery),
        ] {
            mine.add(theirs).expect("the same bounds");
        }
        self.longest_pause = self.longest_pause.max(other.longest_pause);
    }

    /// The part of what was expected that did not come by itself.
    pub fn loss(&self) -> f64 {
        ratio(self.lost, self.expected)
    }

    /// The part that did not come at all.
    pub fn loss_after_repair(&self) -> f64 {
        ratio(self.lost.saturating_sub(self.recovered), self.expected)
    }
}

/// Adds a time to a histogram; what is longer than its range counts as its end.
pub fn record(histogram: &mut Histogram, micros: u64) {
    histogram.saturating_record(micros.max(1));
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_add_up() {
        let mut all = Window::default();
        for loss in [0, 10] {
            let mut one =
                Window { expected: 500, lost: loss, recovered: loss / 2, longest_pause: loss, ..Default::default() };
            record(&mut one.delay, 100 + loss);
            all.add(&one);
        }
        assert_eq!((all.expected, all.lost, all.longest_pause), (1000, 10, 10));
        assert_eq!((all.loss(), all.loss_after_repair()), (0.01, 0.005));
        assert_eq!((all.delay.len(), all.delay.max()), (2, 110));
        assert_eq!(Window::default().loss(), 0.0);
    }

    #[test]
    fn times_beyond_the_range_are_its_end() {
        let mut histogram = Window::default().delay;
        record(&mut histogram, u64::MAX);
        record(&mut histogram, 0);
        assert!(histogram.max() >= LONGEST_MICROS && histogram.min() == 1);
    }
}
