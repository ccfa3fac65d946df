//! Whether packets queue up on the way: from how their one-way delay changes.
//!
//! The two clocks are unrelated, so only differences of delay mean anything. Packets sent close together become one sample
//! (their mean delay, which evens out jitter and bursts); samples are smoothed; a line is fitted through the last half
//! second. If it rises faster than a threshold and the delay stands above the lowest seen, the path is overused. The
//! threshold follows the noise of the path: so jitter is no alarm, and a flow that fills its queues does not starve ours.
//!
//! Source: draft-ietf-rmcat-gcc-02 §5.2–5.4, with the line fit of later libwebrtc. Its smoothing and window count samples; these
//! count time, since a connection with one camera makes thirty samples a second and one with ten makes three times that.

use super::Micros;

/// Packets sent within this time are one sample.
const GROUP: Micros = 10_000;

/// Time constant of the smoothing.
const SMOOTHING_MS: f32 = 60.0;

/// The line is fitted through samples of this time.
const WINDOW: Micros = 500_000;
const WINDOW_SAMPLES: usize = 48;

/// A line needs this many samples.
const MIN_SAMPLES: usize = 6;

/// The slope is told as the growth of delay over this time: libwebrtc's 60 samples × a gain of 4, for the same threshold.
const HORIZON_MS: f32 = 240.0;

/// Threshold of that growth, and how it follows it, per millisecond: up slowly, down faster (gcc-02 §5.4 as in libwebrtc).
const INITIAL_THRESHOLD_MS: f32 = 12.5;
const THRESHOLD_MS: std::ops::RangeInclusive<f32> = 6.0..=600.0;
const THRESHOLD_UP: f32 = 0.0087;
const THRESHOLD_DOWN: f32 = 0.039;
/// A growth this far above the threshold is a sudden drop of capacity, not noise to adapt to.
const MAX_ADAPT_MS: f32 = 15.0;
/// The most time that one sample may count for.
const MAX_ADAPT_STEP_MS: f32 = 100.0;

/// Growth must last this long.
const OVERUSE_TIME: Micros = 20_000;

/// Below this no growth is an overuse: noise of radio links.
const MIN_QUEUE_MS: f32 = 10.0;

/// A queue that stays above this is drained even though it does not grow.
const STANDING_QUEUE_MS: f32 = 60.0;

/// The lowest delay is that of this time or twice as much: long enough to see the queue empty, short enough to follow clocks
/// that drift apart (100 ppm: 2 ms).
const BASE_WINDOW: Micros = 10_000_000;

/// A standing queue that has not become this much shorter within [`PATIENCE`] though we send less is not ours: another flow
/// keeps it, or the route has become longer. It then counts as part of the path, and for a while only growth is minded:
/// who gives way to every queue that others make is left with nothing.
const SHRINKING: f32 = 0.8;
const PATIENCE: Micros = 3_000_000;
/// By then the lowest delay has mostly been measured anew.
const SHARED_TIME: Micros = BASE_WINDOW;

/// No queue is this long: the receiver's clock jumped, or it makes the times up.
const MAX_DELAY_CHANGE: Micros = 10_000_000;

/// Weight of the newest difference in the jitter: half that of RFC 3550 §6.4.1, since a burst through a bottleneck has a
/// steady difference of its own.
const JITTER_WEIGHT: f32 = 1.0 / 32.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Usage {
    #[default]
    Normal,
    /// The queue is getting shorter.
    Draining,
    /// A long queue that does not change.
    Standing,
    /// The queue is getting longer.
    Overuse,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    sent: Micros,
    /// Smoothed, relative to the origin.
    delay_ms: f32,
}

#[derive(Debug, Default)]
struct Group {
    first_sent: Micros,
    packets: u32,
    /// Sums over the packets, relative to `first_sent` and to the origin.
    sent: Micros,
    delay: Micros,
}

#[derive(Debug)]
pub struct Delay {
    /// The delay of the first packet: all others are told relative to it.
    origin: Option<Micros>,
    group: Group,
    window: [Sample; WINDOW_SAMPLES],
    /// Samples taken so far; the latest lies at `count - 1` modulo the window's length.
    count: usize,
    /// How many of them make the line.
    len: usize,
    smoothed_ms: f32,
    threshold_ms: f32,
    growth_ms: f32,
    overused_for: Option<Micros>,
    usage: Usage,
    base: Base,
    /// Since when the queue stands, and how long it was then.
    standing: Option<(Micros, f32)>,
    /// The queue is taken for that of others until then.
    shared_until: Micros,
    /// The last packet's delay, and how much such delays differ on average, in microseconds.
    last_delay: Micros,
    jitter: f32,
}

impl Delay {
    pub fn new() -> Self {
        Delay {
            origin: None,
            group: Group::default(),
            window: [Sample::default(); WINDOW_SAMPLES],
            count: 0,
            len: 0,
            smoothed_ms: 0.0,
            threshold_ms: INITIAL_THRESHOLD_MS,
            growth_ms: 0.0,
            overused_for: None,
            usage: Usage::Normal,
            base: Base::default(),
            standing: None,
            shared_until: 0,
            last_delay: 0,
            jitter: 0.0,
        }
    }

    /// A packet that arrived, in the order of sending; one that was reported late is skipped. Returns whether the
    /// receiver's clock jumped; then nothing is known of the path any more.
    pub fn received(&mut self, sent: Micros, arrival: Micros) -> bool {
        let delay = arrival.saturating_sub(sent);
        let origin = *self.origin.get_or_insert(delay);
        let has_jumped = delay.saturating_sub(origin).saturating_abs() > MAX_DELAY_CHANGE;
        if has_jumped {
            *self = Delay { origin: Some(delay), ..Delay::new() };
        }
        if sent < self.group.first_sent {
            return has_jumped;
        }
        let delay = delay - self.origin.unwrap_or(delay);
        let difference = (delay - std::mem::replace(&mut self.last_delay, delay)).abs();
        self.jitter += (difference as f32 - self.jitter) * JITTER_WEIGHT;
        if self.group.packets > 0 && sent - self.group.first_sent >= GROUP {
            self.close_group();
        }
        if self.group.packets == 0 {
            self.group.first_sent = sent;
        }
        self.group.packets += 1;
        self.group.sent += sent - self.group.first_sent;
        self.group.delay += delay;
        has_jumped
    }

    /// What the samples since the last call say: an overuse anywhere among them counts.
    pub fn usage(&mut self) -> Usage {
        let usage = self.usage;
        if usage == Usage::Overuse {
            self.usage = Usage::Normal;
        }
        usage
    }

    /// How long the queue is that we are to blame for.
    pub fn queue_ms(&self) -> f32 {
        let now = self.group.first_sent;
        if now < self.shared_until { 0.0 } else { self.delay_above_base_ms() }
    }

    /// How much longer than the lowest the delay is. Jitter is subtracted: the lowest was met when luck was best.
    fn delay_above_base_ms(&self) -> f32 {
        let above = self.smoothed_ms - self.base.lowest_ms().unwrap_or(self.smoothed_ms);
        (above - self.jitter / 1000.0).max(0.0)
    }

    /// How much the delay of one packet differs from that of the next, in seconds.
    pub fn jitter(&self) -> f64 {
        f64::from(self.jitter) / 1e6
    }

    fn close_group(&mut self) {
        let group = std::mem::take(&mut self.group);
        self.group.first_sent = group.first_sent;
        let packets = Micros::from(group.packets);
        let sent = group.first_sent + group.sent / packets;
        let delay_ms = (group.delay / packets) as f32 / 1000.0;
        let previous = self.count.checked_sub(1).map(|last| self.window[last % WINDOW_SAMPLES].sent);
        let step = previous.map_or(WINDOW, |previous| sent - previous);
        let step_ms = step as f32 / 1000.0;

        if self.count == 0 || step >= WINDOW {
            // After a pause the line starts anew.
            self.smoothed_ms = delay_ms;
            self.len = 0;
        } else {
            self.smoothed_ms += (delay_ms - self.smoothed_ms) * step_ms / (step_ms + SMOOTHING_MS);
        }
        self.base.observe(sent, self.smoothed_ms);
        self.window[self.count % WINDOW_SAMPLES] = Sample { sent, delay_ms: self.smoothed_ms };
        self.count += 1;
        self.len = (self.len + 1).min(WINDOW_SAMPLES);
        while sent - self.window[(self.count - self.len) % WINDOW_SAMPLES].sent > WINDOW {
            self.len -= 1;
        }
        self.detect(sent, step);
    }

    fn detect(&mut self, now: Micros, step: Micros) {
        let Some(slope) = self.slope() else {
            self.usage = Usage::Normal;
            return;
        };
        let growth_ms = slope * HORIZON_MS;
        let previous = std::mem::replace(&mut self.growth_ms, growth_ms);
        let queue_ms = self.delay_above_base_ms();
        self.doubt_standing_queue(now, queue_ms);
        if growth_ms > self.threshold_ms && queue_ms > MIN_QUEUE_MS {
            let lasted = self.overused_for.map_or(0, |lasted| lasted + step);
            self.overused_for = Some(lasted);
            if lasted >= OVERUSE_TIME && growth_ms >= previous {
                self.usage = Usage::Overuse;
                // Patience is for a queue that does not change.
                self.standing = None;
            }
        } else {
            self.overused_for = None;
            if self.usage != Usage::Overuse {
                // Above a standing queue even a slow change for the better is one.
                let draining = if self.standing.is_some() { self.threshold_ms / 2.0 } else { self.threshold_ms };
                self.usage = if growth_ms < -draining {
                    Usage::Draining
                } else if self.standing.is_some() {
                    Usage::Standing
                } else {
                    Usage::Normal
                };
            }
        }
        self.adapt_threshold(growth_ms.abs(), step);
    }

    fn doubt_standing_queue(&mut self, now: Micros, queue_ms: f32) {
        if queue_ms <= STANDING_QUEUE_MS || now < self.shared_until {
            self.standing = None;
            return;
        }
        let (since, then_ms) = *self.standing.get_or_insert((now, queue_ms));
        if queue_ms < then_ms * SHRINKING {
            self.standing = Some((now, queue_ms));
        } else if now - since > PATIENCE {
            self.standing = None;
            self.shared_until = now + SHARED_TIME;
        }
    }

    fn adapt_threshold(&mut self, growth_ms: f32, step: Micros) {
        if growth_ms > self.threshold_ms + MAX_ADAPT_MS {
            return;
        }
        let gain = if growth_ms < self.threshold_ms { THRESHOLD_DOWN } else { THRESHOLD_UP };
        let step_ms = (step as f32 / 1000.0).min(MAX_ADAPT_STEP_MS);
        // A long step with a high gain would overshoot what it follows.
        let share = (gain * step_ms).min(1.0);
        let threshold = self.threshold_ms + share * (growth_ms - self.threshold_ms);
        self.threshold_ms = threshold.clamp(*THRESHOLD_MS.start(), *THRESHOLD_MS.end());
    }

    /// Of the line through the window: delay over sending time, without unit.
    fn slope(&self) -> Option<f32> {
        if self.len < MIN_SAMPLES {
            return None;
        }
        let samples = (self.count - self.len..self.count).map(|index| self.window[index % WINDOW_SAMPLES]);
        let newest = self.window[(self.count - 1) % WINDOW_SAMPLES];
        let points =
            samples.map(|sample| ((sample.sent - newest.sent) as f32 / 1000.0, sample.delay_ms - newest.delay_ms));
        let (mut sum_x, mut sum_y, mut sum_xx, mut sum_xy) = (0.0, 0.0, 0.0, 0.0);
        for (x, y) in points {
            sum_x += x;
            sum_y += y;
            sum_xx += x * x;
            sum_xy += x * y;
        }
        let count = self.len as f32;
        let spread = sum_xx - sum_x * sum_x / count;
        (spread > 0.0).then(|| (sum_xy - sum_x * sum_y / count) / spread)
    }
}

/// The lowest delay of the present and the last window.
#[derive(Debug, Default)]
struct Base {
    since: Micros,
    present_ms: Option<f32>,
    last_ms: Option<f32>,
}

impl Base {
    fn observe(&mut self, now: Micros, delay_ms: f32) {
        if self.present_ms.is_none() {
            self.since = now;
        } else if now - self.since > BASE_WINDOW {
            self.since = now;
            self.last_ms = self.present_ms.take();
        }
        self.present_ms = Some(self.present_ms.map_or(delay_ms, |lowest| lowest.min(delay_ms)));
    }

    fn lowest_ms(&self) -> Option<f32> {
        let present = self.present_ms?;
        Some(self.last_ms.map_or(present, |last| last.min(present)))
    }
}
