//! A network path in virtual time: a bottleneck with a queue, random loss and jitter, senders that follow their estimate,
//! and receivers that give transport-wide feedback as browsers do. Deterministic for a seed.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::super::{Estimator, Micros, Probe, START_BITRATE};

const MILLISECOND: Micros = 1000;
const STEP: Micros = MILLISECOND;
const MTU: usize = 1200;
const FRAME_INTERVAL: Micros = 33_333;

/// The receiver's clock starts anywhere, here shortly before its reference time wraps.
const RECEIVER_CLOCK: Micros = 0xff_ff00 * 64_000;

#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// Bits per second.
    pub rate: f64,
    /// The longest queue; what would wait longer is dropped.
    pub queue: Micros,
    /// Each way.
    pub propagation: Micros,
    /// A packet takes this much more or less, independently of others.
    pub jitter: Micros,
    /// Share lost at random.
    pub loss: f64,
    /// The same for feedback.
    pub feedback_loss: f64,
    /// How much faster the receiver's clock runs.
    pub drift: f64,
}

impl Link {
    pub fn new(rate: f64) -> Self {
        Link {
            rate,
            queue: 400 * MILLISECOND,
            propagation: 25 * MILLISECOND,
            jitter: 0,
            loss: 0.0,
            feedback_loss: 0.0,
            drift: 0.0,
        }
    }
}

/// What a sender has to send.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Told to the estimator.
    pub desired: f64,
    /// Sent is the lowest of this, what is desired and the estimate.
    pub at_most: f64,
    /// Thirty frames a second of varying size, every hundredth five times as large; else an even stream.
    pub frames: bool,
}

impl Source {
    pub fn video(desired: f64) -> Self {
        Source { desired, at_most: f64::INFINITY, frames: true }
    }
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    owner: Owner,
    number: u64,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Owner {
    Sender(usize),
    /// Sends at a constant rate, whatever happens.
    Constant,
    /// Additive increase, multiplicative decrease of a window: a download.
    Window,
}

pub struct Sender {
    pub estimator: Estimator,
    pub source: Source,
    pub feedback_interval: Micros,
    /// While true, no feedback gets back.
    pub mute: bool,
    pub starts_at: Micros,
    next_number: u64,
    next_frame: Micros,
    frames: u64,
    backlog: usize,
    budget: f64,
    probe: Option<(Probe, u32, usize)>,
    arrivals: BTreeMap<u64, Micros>,
    fresh: Vec<u64>,
    expected: u64,
    next_feedback: Micros,
    feedback: VecDeque<Feedback>,
    pub padding_bytes: usize,
    /// When, and bits per second.
    pub probes: Vec<(Micros, u64)>,
    pub received_bytes: usize,
}

/// On its way to the sender.
struct Feedback {
    arrives_at: Micros,
    reference_time: u32,
    packets: Vec<(u16, Option<i64>)>,
}

/// Every 100 ms.
#[derive(Debug, Clone)]
pub struct Record {
    pub at: Micros,
    /// Of each sender, bits per second; the start rate before there is one.
    pub estimates: Vec<f64>,
    pub queue_ms: f64,
}

impl Record {
    pub fn seconds(&self) -> f64 {
        self.at as f64 / 1e6
    }
}

pub struct Path {
    start: Instant,
    pub now: Micros,
    pub link: Link,
    pub senders: Vec<Sender>,
    /// Bits per second of constant cross traffic.
    pub constant: f64,
    pub constant_lost: u64,
    pub constant_received: u64,
    /// Packets under way of a download; 0 = there is none.
    pub window: f64,
    pub window_received_bytes: usize,
    window_in_flight: u64,
    window_events: VecDeque<(Micros, bool)>,
    window_reduced: Micros,
    constant_budget: f64,
    queue: VecDeque<(Micros, Packet)>,
    queued_bytes: usize,
    free_at: Micros,
    random: fastrand::Rng,
    pub records: Vec<Record>,
}

impl Path {
    pub fn new(seed: u64, link: Link, source: Source) -> Self {
        let mut path = Path {
            start: Instant::now(),
            now: 0,
            link,
            senders: Vec::new(),
            constant: 0.0,
            constant_lost: 0,
            constant_received: 0,
            window: 0.0,
            window_received_bytes: 0,
            window_in_flight: 0,
            window_events: VecDeque::new(),
            window_reduced: 0,
            constant_budget: 0.0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            free_at: 0,
            random: fastrand::Rng::with_seed(seed),
            records: Vec::new(),
        };
        path.add(source);
        path
    }

    pub fn add(&mut self, source: Source) {
        self.senders.push(Sender {
            estimator: Estimator::new(),
            source,
            feedback_interval: 100 * MILLISECOND,
            mute: false,
            starts_at: self.now,
            next_number: 65_000,
            next_frame: self.now,
            frames: 0,
            backlog: 0,
            budget: 0.0,
            probe: None,
            arrivals: BTreeMap::new(),
            fresh: Vec::new(),
            expected: 65_000,
            next_feedback: self.now,
            feedback: VecDeque::new(),
            padding_bytes: 0,
            probes: Vec::new(),
            received_bytes: 0,
        });
    }

    pub fn run(&mut self, seconds: f64) {
        let end = self.now + (seconds * 1e6) as Micros;
        while self.now < end {
            self.now += STEP;
            self.serve();
            for index in 0..self.senders.len() {
                self.receive_feedback(index);
                self.send(index);
                self.give_feedback(index);
            }
            self.send_constant();
            self.send_window();
            if self.now % (100 * MILLISECOND) == 0 {
                let estimates = self.senders.iter().map(|sender| sender.estimate()).collect();
                let queue_ms = self.queued_bytes as f64 * 8e3 / self.link.rate;
                self.records.push(Record { at: self.now, estimates, queue_ms });
            }
        }
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_micros(self.now as u64)
    }

    /// Passes what the bottleneck has had time for.
    fn serve(&mut self) {
        while let Some(&(queued, packet)) = self.queue.front() {
            let takes = (packet.bytes as f64 * 8e6 / self.link.rate) as Micros;
            let done = self.free_at.max(queued) + takes;
            if done > self.now {
                break;
            }
            self.queue.pop_front();
            self.queued_bytes -= packet.bytes;
            self.free_at = done;
            self.deliver(done, packet);
        }
    }

    fn deliver(&mut self, at: Micros, packet: Packet) {
        let is_lost = self.random.f64() < self.link.loss;
        let jitter = self.random.i64(0..=2 * self.link.jitter);
        let arrival = at + self.link.propagation + jitter;
        match packet.owner {
            Owner::Sender(index) if !is_lost => {
                let sender = &mut self.senders[index];
                sender.arrivals.insert(packet.number, arrival);
                sender.fresh.push(packet.number);
                sender.received_bytes += packet.bytes;
            }
            Owner::Sender(_) => {}
            Owner::Constant => self.constant_received += u64::from(!is_lost),
            Owner::Window => {
                self.window_received_bytes += packet.bytes;
                self.window_events.push_back((at + 2 * self.link.propagation, !is_lost));
            }
        }
    }

    fn enqueue(&mut self, packet: Packet) -> bool {
        if self.queued_bytes as f64 * 8e6 / self.link.rate > self.link.queue as f64 {
            return false;
        }
        self.queued_bytes += packet.bytes;
        self.queue.push_back((self.now, packet));
        true
    }

    fn send_constant(&mut self) {
        self.constant_budget += self.constant * STEP as f64 / 8e6;
        while self.constant_budget >= MTU as f64 {
            self.constant_budget -= MTU as f64;
            let packet = Packet { owner: Owner::Constant, number: 0, bytes: MTU };
            if !self.enqueue(packet) {
                self.constant_lost += 1;
            }
        }
    }

    fn send_window(&mut self) {
        while let Some(&(at, is_received)) = self.window_events.front() {
            if at > self.now {
                break;
            }
            self.window_events.pop_front();
            self.window_in_flight -= 1;
            if is_received {
                self.window += if self.window > 0.0 { 1.0 / self.window } else { 0.0 };
            } else if self.now - self.window_reduced > 300 * MILLISECOND {
                self.window = (self.window / 2.0).max(2.0f64.min(self.window));
                self.window_reduced = self.now;
            }
        }
        while (self.window_in_flight as f64) < self.window.floor() {
            self.window_in_flight += 1;
            let packet = Packet { owner: Owner::Window, number: 0, bytes: MTU };
            if !self.enqueue(packet) {
                self.window_events.push_back((self.now + 4 * self.link.propagation, false));
                self.window_events.make_contiguous().sort_by_key(|(at, _)| *at);
                break;
            }
        }
    }

    fn send(&mut self, index: usize) {
        let now = self.instant();
        let sender = &mut self.senders[index];
        if self.now < sender.starts_at {
            return;
        }
        sender.estimator.set_desired(now, sender.source.desired as u64);
        if sender.estimator.next_timeout().is_some_and(|at| at <= now)
            && let Some(probe) = sender.estimator.poll_probe(now)
        {
            sender.probes.push((self.now, probe.bitrate));
            sender.probe = Some((probe, 0, 0));
        }
        let rate = sender.estimate().min(sender.source.desired).min(sender.source.at_most);
        sender.produce(self.now, rate, &mut self.random);
        let pace = match &sender.probe {
            Some((probe, ..)) => probe.bitrate as f64,
            None if sender.source.frames => rate * 2.5,
            None => rate,
        };
        sender.budget = (sender.budget + pace * STEP as f64 / 8e6).min(pace * 0.01 + MTU as f64);
        let mut packets = Vec::new();
        while let Some((bytes, is_padding)) = sender.next_packet() {
            sender.budget -= bytes as f64;
            let probe = sender.probe.map(|(probe, ..)| probe.id);
            if let Some((probe, packets, sent)) = &mut sender.probe {
                *packets += 1;
                *sent += bytes;
                if *packets >= probe.min_packets && *sent >= probe.min_bytes {
                    sender.probe = None;
                    sender.budget = 0.0;
                }
            }
            sender.padding_bytes += if is_padding { bytes } else { 0 };
            sender.estimator.sent(now, sender.next_number, bytes, probe);
            packets.push(Packet { owner: Owner::Sender(index), number: sender.next_number, bytes });
            sender.next_number += 1;
        }
        for packet in packets {
            self.enqueue(packet);
        }
    }

    fn give_feedback(&mut self, index: usize) {
        let sender = &mut self.senders[index];
        if self.now < sender.next_feedback {
            return;
        }
        sender.next_feedback = self.now + sender.feedback_interval;
        let now = self.now;
        let arrivals = &sender.arrivals;
        let (fresh, later) = sender.fresh.iter().partition(|number| arrivals[*number] <= now);
        let fresh: Vec<u64> = fresh;
        sender.fresh = later;
        let (Some(first), Some(last)) = (fresh.iter().min(), fresh.iter().max()) else { return };
        let first = sender.expected.min(*first);
        let clock = |at: Micros| RECEIVER_CLOCK + at + (at as f64 * self.link.drift) as Micros;
        let reference = clock(arrivals.get(&first).copied().unwrap_or(now)) / 64_000;
        let packets = (first..=*last).map(|number| {
            let arrival = arrivals.get(&number).filter(|arrival| **arrival <= now);
            (number as u16, arrival.map(|arrival| (clock(*arrival) - reference * 64_000) / 250))
        });
        let packets = packets.collect();
        sender.expected = sender.expected.max(last + 1);
        if !sender.mute && self.random.f64() >= self.link.feedback_loss {
            let arrives_at = now + self.link.propagation;
            let reference_time = reference as u32 & 0xff_ffff;
            sender.feedback.push_back(Feedback { arrives_at, reference_time, packets });
        }
        let keep = sender.expected.saturating_sub(1000);
        sender.arrivals = sender.arrivals.split_off(&keep);
        sender.fresh.retain(|number| *number >= keep);
    }

    fn receive_feedback(&mut self, index: usize) {
        let now = self.instant();
        let sender = &mut self.senders[index];
        while sender.feedback.front().is_some_and(|feedback| feedback.arrives_at <= self.now) {
            let Some(feedback) = sender.feedback.pop_front() else { break };
            sender.estimator.feedback(now, feedback.reference_time, feedback.packets);
        }
    }

    /// Mean, lowest and highest estimate of a sender between two times in seconds.
    pub fn estimates(&self, sender: usize, from: f64, to: f64) -> (f64, f64, f64) {
        let seen: Vec<f64> = self.between(from, to).map(|record| record.estimates[sender]).collect();
        assert!(!seen.is_empty());
        let mean = seen.iter().sum::<f64>() / seen.len() as f64;
        (mean, seen.iter().copied().fold(f64::INFINITY, f64::min), seen.iter().copied().fold(0.0, f64::max))
    }

    /// Mean and 95th percentile of the queue in milliseconds.
    pub fn queue_ms(&self, from: f64, to: f64) -> (f64, f64) {
        let mut seen: Vec<f64> = self.between(from, to).map(|record| record.queue_ms).collect();
        seen.sort_by(f64::total_cmp);
        (seen.iter().sum::<f64>() / seen.len() as f64, seen[seen.len() * 95 / 100])
    }

    pub fn between(&self, from: f64, to: f64) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| (from..=to).contains(&record.seconds()))
    }
}

impl Sender {
    pub fn estimate(&self) -> f64 {
        self.estimator.estimate().unwrap_or(START_BITRATE) as f64
    }

    fn produce(&mut self, now: Micros, rate: f64, random: &mut fastrand::Rng) {
        if !self.source.frames {
            // The pacer is the source.
            self.backlog = MTU;
            return;
        }
        while now >= self.next_frame {
            self.next_frame += FRAME_INTERVAL;
            self.frames += 1;
            let is_key = self.frames % 100 == 1;
            // Key frames of five times the size take a twenty-fifth of the rate.
            let size = if is_key { 5.0 } else { 0.8 + 0.32 * random.f64() };
            let behind = self.backlog as f64 > rate / 8.0 * 0.1;
            // An encoder drops frames when the pacer cannot keep up.
            if !behind {
                self.backlog += (rate * FRAME_INTERVAL as f64 / 8e6 * size) as usize;
            }
        }
    }

    /// Bytes of the next packet that may leave now, and whether it is padding.
    fn next_packet(&mut self) -> Option<(usize, bool)> {
        if self.budget <= 0.0 {
            return None;
        }
        if self.backlog > 0 {
            let bytes = self.backlog.min(MTU);
            self.backlog = if self.source.frames { self.backlog - bytes } else { MTU };
            return Some((bytes.max(60), false));
        }
        self.probe.is_some().then_some((MTU / 2, true))
    }
}
