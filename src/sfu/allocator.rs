//! Allocator: which video flows to one subscriber in which layer, so that all of it fits what its network carries.
//!
//! A subscriber's participant owns one. The room tells it every new estimate of the connection
//! ([`Allocator::observe`]) and, when it is due, what the subscriber wants ([`Allocator::allocate`]); the answer becomes
//! caps and pauses of its DownTracks.
//!
//! The rules:
//! 1. Audio is counted off first and never touched.
//! 2. Everybody's lowest layer comes before anybody's second: screen shares first, then what the client gave a priority,
//!    then by size on screen, then by who spoke last.
//! 3. What is left upgrades in the same order, those of equal rank in turns.
//! 4. What does not flow yet has to fit into the least estimate of the last seconds with a reserve; what flows stays as
//!    long as it fits into the present one. The gap between the two keeps pictures from flapping.
//! 5. When not even one lowest layer fits, the most important video is sent all the same if it exceeds the estimate by
//!    a little: a picture with losses tells more than none, and estimates err.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::layer_selector::Target;

/// Unless the network gets worse, an allocation lasts this long: a picture that changes its size twice a second is
/// worse than a small one.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// When the subscriber itself asks for something else it is answered at once, but not for each of the dozens of settings
/// that a client sends when its layout changes.
const ON_DEMAND_INTERVAL: Duration = Duration::from_millis(100);

/// An estimate below this share of the one last used is a network that got worse. In percent.
const COLLAPSE_PERCENT: u64 = 90;

/// The least estimate is remembered for one to two of these. An estimator probes upwards every few seconds and falls
/// back when the probe fails: upgrades wait until it has not fallen for a while.
const GENERATION: Duration = Duration::from_millis(1250);

/// For so long after the first estimate of a path the newest counts: the path is being measured, and each is better than the
/// last.
const RAMP: Duration = Duration::from_secs(2);

/// Meanwhile one this far above the one last used is answered before its turn, in percent of it: a call should not begin,
/// nor go on after an outage, with a second of small pictures.
const RISE_PERCENT: u64 = 110;

/// How much of the least estimate upgrades may fill. The rest is for what they turn out to cost: encoders exceed their
/// measured rate by motion and keyframes, and losses are sent twice.
const UPGRADE_PERCENT: u64 = 85;

/// When the network collapses this soon after an upgrade, it was the upgrade.
const PROOF: Duration = Duration::from_secs(3);

/// After that nothing as large is tried for so long, twice as long when it fails again: what comes for a second and goes is
/// worse than what does not come. mediasoup waits 10 s after each downgrade; we can wait longer, since an estimate that rises
/// ends the waiting.
const SETBACK: Duration = Duration::from_secs(30);
const MAX_SETBACKS: u32 = 2;

/// How much larger may be tried meanwhile, in percent of what failed.
const SETBACK_PERCENT: u64 = 90;

/// An estimate that much above the one that was mistaken is another network, in percent of it.
const RELIEF_PERCENT: u64 = 120;

/// What rule 5 allows, in percent of the estimate.
const OVERSEND_PERCENT: u64 = 150;

/// Until the first estimate we send as if the network carried this, bits per second: a speaker in high resolution and a
/// gallery, which nine of ten connections do carry.
const RAMP_START: u64 = 2_000_000;

/// And twice as much every second, until this: then there is a client that gives no feedback, and it gets what it asks for.
const RAMP_STEPS: u32 = 4;

/// What may be sent of a video, and what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub target: Target,
    /// Bits per second on the wire, overhead included.
    pub bitrate: u64,
}

impl Step {
    fn quality(&self) -> (u8, u8) {
        (self.target.spatial, self.target.temporal)
    }
}

/// How much a video matters to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rank {
    pub screen_share: bool,
    /// As LiveKit's `UpdateTrackSettings.priority`: 1 is the highest, 0 is not set.
    pub priority: u32,
    /// Pixels on screen, or what the layer wanted has.
    pub pixels: u64,
    /// 0 = has the floor, 1 = had it before, …
    pub speaker: usize,
}

/// A video that the subscriber wants and that is being sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want<K> {
    pub key: K,
    pub rank: Rank,
    /// From the least to the one asked for, both in quality and in bitrate. Without any it is left out.
    pub steps: Vec<Step>,
    /// How many of them are the lowest layer, which comes before anybody's upgrades.
    pub base: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation<K> {
    /// What may flow of every want, in order of importance; `None` = paused.
    pub videos: Vec<(K, Option<Step>)>,
    /// Bits per second that are sent with this, audio included.
    pub bitrate: u64,
    /// Bits per second that would be sent if the network carried it: what probing is good for.
    pub desired: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Allocator<K> {
    /// Which path the estimates are of.
    path: u32,
    estimate: Option<u64>,
    least: Least,
    /// The estimate of the last run.
    used: Option<u64>,
    /// What the last run gave, bits per second, and whether more was wanted.
    given: u64,
    is_short: bool,
    first_run: Option<Instant>,
    last_run: Option<Instant>,
    /// The quality that flows.
    flowing: BTreeMap<K, (u8, u8)>,
    /// The last upgrade, and when it was.
    tried: Option<(Instant, Attempt)>,
    /// The one that failed, and until when it counts.
    failed: Option<(Instant, Attempt)>,
    /// In a row.
    failures: u32,
}

/// An upgrade: what it made of all that is sent, and the least estimate that promised to carry it.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    bitrate: u64,
    least: u64,
}

/// The estimate by which so much would be sent: upgrades leave a reserve, so what is looked for must be more than
/// what is wanted.
pub fn needed_for(desired: u64) -> u64 {
    desired.saturating_mul(100) / UPGRADE_PERCENT
}

/// The least estimate of this generation and of the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Least {
    since: Option<Instant>,
    this: u64,
    before: Option<u64>,
    first: Option<Instant>,
}

/// What may be spent on video, bits per second.
#[derive(Debug, Clone, Copy)]
struct Budget {
    keep: u64,
    upgrade: u64,
    /// For the only one, by rule 5.
    oversend_keep: u64,
    oversend_start: u64,
}

/// A want while it is being served.
struct Served<'a, K> {
    want: &'a Want<K>,
    /// Steps given.
    given: usize,
    /// The quality that flowed before.
    before: Option<(u8, u8)>,
}

impl<K: Copy + Ord> Allocator<K> {
    pub fn new() -> Self {
        Allocator {
            path: 0,
            estimate: None,
            least: Least::default(),
            used: None,
            given: 0,
            is_short: false,
            first_run: None,
            last_run: None,
            flowing: BTreeMap::new(),
            tried: None,
            failed: None,
            failures: 0,
        }
    }

    /// The connection's estimate, bits per second. `path`: another number when an outage lies between this estimate and the
    /// last. True when [`Self::allocate`] should not wait: the network got so much worse, or turns out so much better while
    /// it is being measured.
    pub fn observe(&mut self, now: Instant, path: u32, estimate: u64) -> bool {
        if path != self.path {
            // Neither what it carried nor what it failed to carry says anything about the new one.
            self.path = path;
            self.least = Least::default();
            (self.tried, self.failed, self.failures) = (None, None, 0);
        }
        self.estimate = Some(estimate);
        self.least.observe(now, estimate);
        let collapsed = estimate < percent(self.used.unwrap_or(self.given), COLLAPSE_PERCENT);
        if collapsed
            && let Some((at, attempt)) = self.tried
            && now.saturating_duration_since(at) < PROOF
        {
            self.tried = None;
            self.failed = Some((now + SETBACK * (1 << self.failures), attempt));
            self.failures = (self.failures + 1).min(MAX_SETBACKS - 1);
        }
        collapsed || self.rises(now, estimate)
    }

    fn rises(&self, now: Instant, estimate: u64) -> bool {
        let is_more = self.used.is_none_or(|used| estimate > percent(used, RISE_PERCENT));
        self.is_short && is_more && self.least.is_measuring(now) && self.run_on_demand(now) <= now
    }

    /// When to run because time passed; `None` before the first run.
    pub fn next_run(&self) -> Option<Instant> {
        Some(self.last_run? + INTERVAL)
    }

    /// The connection is up: what was shared out before reached nobody, and need not last.
    pub fn begin(&mut self) {
        self.last_run = None;
    }

    /// When to run because the subscriber's wishes changed at `now`.
    pub fn run_on_demand(&self, now: Instant) -> Instant {
        self.last_run.map_or(now, |last| now.max(last + ON_DEMAND_INTERVAL))
    }

    /// Shares out what the network carries. `audio`: bits per second of the subscriber's audio.
    pub fn allocate(&mut self, now: Instant, audio: u64, wants: &[Want<K>]) -> Allocation<K> {
        self.first_run.get_or_insert(now);
        self.last_run = Some(now);
        self.used = self.estimate;
        let budget = self.budget(now, audio);
        let mut served: Vec<Served<'_, K>> = wants
            .iter()
            .filter(|want| !want.steps.is_empty())
            .map(|want| Served { want, given: 0, before: self.flowing.get(&want.key).copied() })
            .collect();
        served.sort_by_key(|s| (importance(&s.want.rank), s.want.rank.speaker, s.want.key));
        let mut spent = 0;
        give_base(&mut served, budget, &mut spent);
        give_upgrades(&mut served, budget, &mut spent);
        give_one(&mut served, budget, &mut spent);
        let bitrate = audio.saturating_add(spent);
        // While the path is being measured, the estimate falls for reasons of its own.
        let is_attempt = !self.least.is_measuring(now) && served.iter().any(Served::is_upgraded);
        if let Some(least) = self.least.get().filter(|_| is_attempt) {
            // The one before has proved itself.
            if self.tried.is_some() {
                self.failures = 0;
            }
            self.tried = Some((now, Attempt { bitrate, least }));
        }
        let videos: Vec<(K, Option<Step>)> = served.iter().map(|s| (s.want.key, s.step())).collect();
        self.flowing = videos.iter().filter_map(|(key, step)| Some((*key, (*step)?.quality()))).collect();
        let desired = served.iter().filter_map(|s| s.want.steps.last()).map(|step| step.bitrate).sum::<u64>();
        let desired = audio.saturating_add(desired);
        (self.given, self.is_short) = (bitrate, bitrate < desired);
        Allocation { videos, bitrate, desired }
    }

    fn budget(&self, now: Instant, audio: u64) -> Budget {
        let (Some(present), Some(least)) = (self.estimate, self.least.get()) else {
            // Nothing says that what flows is too much, nor that one video is.
            let upgrade = self.ramp(now).saturating_sub(audio);
            return Budget { keep: u64::MAX, upgrade, oversend_keep: u64::MAX, oversend_start: u64::MAX };
        };
        let mistaken =
            |(until, failed): &(Instant, Attempt)| now < *until && least < percent(failed.least, RELIEF_PERCENT);
        let known = self.failed.filter(mistaken).map(|(_, failed)| percent(failed.bitrate, SETBACK_PERCENT));
        let least = percent(least, UPGRADE_PERCENT).min(known.unwrap_or(u64::MAX));
        Budget {
            keep: present.saturating_sub(audio),
            upgrade: least.saturating_sub(audio),
            oversend_keep: percent(present, OVERSEND_PERCENT).saturating_sub(audio),
            oversend_start: percent(least, OVERSEND_PERCENT).saturating_sub(audio),
        }
    }

    fn ramp(&self, now: Instant) -> u64 {
        let seconds = self.first_run.map_or(0, |first| now.saturating_duration_since(first).as_secs());
        match u32::try_from(seconds) {
            Ok(seconds) if seconds < RAMP_STEPS => RAMP_START << seconds,
            _ => u64::MAX,
        }
    }
}

/// Rule 2.
fn give_base<K>(served: &mut [Served<'_, K>], budget: Budget, spent: &mut u64) {
    let passes = served.iter().map(|s| s.want.base).max().unwrap_or(0);
    for pass in 0..passes {
        for one in served.iter_mut().filter(|s| s.given == pass && pass < s.want.base) {
            one.try_next(budget.keep, budget.upgrade, spent);
        }
    }
}

/// Rule 3.
fn give_upgrades<K>(served: &mut [Served<'_, K>], budget: Budget, spent: &mut u64) {
    for equals in served.chunk_by_mut(|a, b| importance(&a.want.rank) == importance(&b.want.rank)) {
        let mut more = true;
        while std::mem::take(&mut more) {
            for one in equals.iter_mut().filter(|s| s.given >= s.want.base.max(1)) {
                more |= one.try_next(budget.keep, budget.upgrade, spent);
            }
        }
    }
}

/// Rule 5.
fn give_one<K>(served: &mut [Served<'_, K>], budget: Budget, spent: &mut u64) {
    if served.iter().all(|s| s.given == 0)
        && let Some(first) = served.first_mut()
    {
        first.try_next(budget.oversend_keep, budget.oversend_start, spent);
    }
}

impl<K> Served<'_, K> {
    fn step(&self) -> Option<Step> {
        self.want.steps.get(self.given.checked_sub(1)?).copied()
    }

    fn is_upgraded(&self) -> bool {
        self.step().map(|step| step.quality()) > self.before
    }

    /// Takes the next step if all that is spent then fits. `keep` counts for what flows already, `upgrade` for the rest.
    fn try_next(&mut self, keep: u64, upgrade: u64, spent: &mut u64) -> bool {
        let Some(next) = self.want.steps.get(self.given) else { return false };
        let more = next.bitrate.saturating_sub(self.step().map_or(0, |step| step.bitrate));
        let flows = self.before.is_some_and(|before| next.quality() <= before);
        let limit = if flows { keep } else { upgrade.min(keep) };
        if spent.saturating_add(more) > limit {
            return false;
        }
        *spent += more;
        self.given += 1;
        true
    }
}

/// Smaller comes first. Sizes count by their magnitude, so that the tiles of a gallery are equals although their layout
/// rounds them differently.
fn importance(rank: &Rank) -> (bool, u32, Reverse<Option<u32>>) {
    (!rank.screen_share, rank.priority.wrapping_sub(1), Reverse(rank.pixels.checked_ilog2()))
}

fn percent(value: u64, percent: u64) -> u64 {
    // Estimates are far below 2^57.
    value.saturating_mul(percent) / 100
}

impl Least {
    fn observe(&mut self, now: Instant, estimate: u64) {
        let first = *self.first.get_or_insert(now);
        if self.is_measuring(now) {
            *self = Least { since: Some(now), this: estimate, before: None, first: Some(first) };
            return;
        }
        let age = self.since.map(|since| now.saturating_duration_since(since));
        match age {
            Some(age) if age < GENERATION => self.this = self.this.min(estimate),
            _ => {
                self.before = age.map(|_| self.this);
                self.this = estimate;
                self.since = Some(now);
            }
        }
    }

    fn is_measuring(&self, now: Instant) -> bool {
        self.first.is_none_or(|first| now.saturating_duration_since(first) < RAMP)
    }

    fn get(&self) -> Option<u64> {
        self.since?;
        Some(self.before.map_or(self.this, |before| before.min(self.this)))
    }
}

#[cfg(test)]
mod tests;
