//! Source: one microphone that is mixed. Packets come when the network brings them, a frame of sound goes out every tick.
//!
//! Between the two lies the delay that [`Delay`] asks for. A source that plays later than it should is played faster, one
//! that plays sooner is played slower; that is also how a clock that is not ours is followed. What is lost is recovered from
//! the packet after it, else concealed; what is concealed for too long fades into silence. Where nothing comes any more
//! (DTX, muted), silence is played, and what comes after it starts at its proper time. The mixer owns the sources.

use std::sync::Arc;

use super::decoder::{self, CONCEALED_STEP, Decoder, LONGEST_PACKET};
use super::delay::Delay;
use super::g711::{self, Law};
use super::jitter_buffer::{Coding, Held, JitterBuffer};
use super::time_scale::{self, LONGEST, Likeness};
use super::{AudioPacket, FRAME, SAMPLES_PER_MS};
use crate::rtp::red;
use crate::rtp::sequence::extend_timestamp;
use crate::sfu::Codec;

#[cfg(test)]
mod tests;

const MS: i64 = SAMPLES_PER_MS;

/// A payload of one Ethernet packet at most: what is longer is not audio.
const MAX_PAYLOAD: usize = 1500;

/// Sequence numbers that jump further are those of another stream.
const MAX_JUMP: u64 = 1000;

/// Playing so much too late is worth making it shorter, samples. Less than a voice's longest period could not be cut.
const SLACK_LATE: i64 = 15 * MS;
/// Playing so much too early risks gaps, samples.
const SLACK_EARLY: i64 = 5 * MS;
/// Further off than this it jumps, samples: to play faster would take seconds.
const MAX_ERROR: i64 = 400 * MS;
/// Ticks between two cuts, so that speech is at most a quarter faster.
const CUT_EVERY: u32 = 3;

/// Concealment is played at full gain for so long, samples; then it would begin to sound like a machine …
const CONCEALED_FULL: usize = 60 * MS as usize;
/// … and has faded out by now.
const CONCEALED_MAX: usize = 120 * MS as usize;
/// Where a sound is broken off or begins in its middle, it fades over so many samples: heard as no click.
const EDGE: usize = 5 * MS as usize;
/// A sound that stops is continued, fading, for so long, samples.
const ENDING: usize = 10 * MS as usize;

/// Weight of the newest packet in the share of lost ones: 64 packets are a bit more than a second.
const LOSS_WEIGHT: f32 = 1.0 / 64.0;
/// With this share lost it pays to wait for the next packet, which may bring a copy of the lost one …
const LOSSY: f32 = 0.03;
/// … and with this one no more.
const LOSSLESS: f32 = 0.01;

#[derive(Debug)]
pub(super) struct Source {
    packets: JitterBuffer,
    delay: Delay,
    decoder: Decoder,
    clock: Option<Clock>,
    state: State,
    /// Decoded and not yet played.
    pcm: Vec<f32>,
    /// The gain that was reached at the end of `pcm`: below 1 where concealment or silence ended.
    edge: f32,
    /// Of the samples at the end of `pcm`, so many were concealed one after the other.
    concealed: usize,
    loss: f32,
    lossy: bool,
    ticks_since_cut: u32,
    frame: [f32; FRAME],
}

/// What the timestamps and numbers count.
#[derive(Debug, Clone, Copy)]
struct Clock {
    coding: Coding,
    timestamp: u64,
    newest: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Silent,
    Playing {
        /// The timestamp that the end of `pcm` stands for.
        next: i64,
        /// Samples that were concealed while nothing was there: what turns up is played, and later than it should; what is
        /// known to be lost is already covered.
        ahead: i64,
    },
}

impl Source {
    pub fn new() -> Self {
        Source {
            packets: JitterBuffer::new(),
            delay: Delay::new(),
            decoder: Decoder::new(),
            clock: None,
            state: State::Silent,
            // A tick's rest, the longest packet and a period more.
            pcm: Vec::with_capacity(2 * LONGEST_PACKET + LONGEST),
            edge: 0.0,
            concealed: 0,
            loss: 0.0,
            lossy: false,
            ticks_since_cut: 0,
            frame: [0.0; FRAME],
        }
    }

    /// A packet that came at `time`, in samples of the mixer. False if it was of no use: garbage, a duplicate, too late.
    pub fn push(&mut self, packet: &AudioPacket, time: i64) -> bool {
        let Some((coding, from)) = coding(packet) else { return false };
        let frame = packet.payload.get(from..).unwrap_or_default();
        let samples = decoder::samples(coding, frame).filter(|_| packet.payload.len() <= MAX_PAYLOAD);
        let Some(samples) = samples else { return false };
        let known = self.clock.filter(|clock| {
            !packet.restarted && clock.coding == coding && clock.newest.abs_diff(packet.sequence) <= MAX_JUMP
        });
        // A cycle up, so that what comes late does not fall below zero.
        let extended = extend_timestamp(known.map_or(1 << 32, |clock| clock.timestamp), packet.timestamp);
        let timestamp = match coding {
            Coding::Opus => extended as i64,
            Coding::G711(_) => extended as i64 * g711::RATIO as i64,
        };
        let newest = match known {
            Some(clock) if self.delay.observe(time - timestamp) => clock.newest.max(packet.sequence),
            _ => {
                self.restart();
                self.delay.observe(time - timestamp);
                packet.sequence
            }
        };
        self.clock = Some(Clock { coding, timestamp: extended, newest });
        let payload = Arc::clone(&packet.payload);
        self.packets.insert(Held { sequence: packet.sequence, timestamp, samples, coding, payload, from })
    }

    /// Another stream takes the place of the former. What is decoded of that still sounds.
    fn restart(&mut self) {
        self.packets.restart();
        self.delay.restart();
        if matches!(self.state, State::Playing { .. }) {
            self.end();
        }
        self.decoder.restart();
    }

    /// Makes the frame of the tick at `time`, in samples of the mixer. False while there is only silence.
    pub fn play(&mut self, time: i64) -> bool {
        let Some(due) = self.due(time) else { return false };
        self.ticks_since_cut += 1;
        if matches!(self.state, State::Silent) && self.pcm.is_empty() {
            self.drop_until(due - MAX_ERROR);
            let starts = self.packets.front().is_some_and(|packet| packet.timestamp < due + FRAME as i64);
            if !starts {
                return false;
            }
        }
        self.fill(due);
        self.follow(due);
        debug_assert!(self.pcm.len() >= FRAME);
        self.frame.copy_from_slice(&self.pcm[..FRAME]);
        self.pcm.copy_within(FRAME.., 0);
        self.pcm.truncate(self.pcm.len() - FRAME);
        true
    }

    /// Lets the tick at `time` pass unheard, at no cost.
    pub fn skip(&mut self, time: i64) {
        self.pcm.clear();
        self.state = State::Silent;
        self.edge = 0.0;
        if let Some(due) = self.due(time) {
            self.drop_until(due);
        }
    }

    /// What was played last.
    pub fn frame(&self) -> &[f32; FRAME] {
        &self.frame
    }

    pub fn frame_mut(&mut self) -> &mut [f32; FRAME] {
        &mut self.frame
    }

    /// The timestamp of what should sound at `time`. Where packets are lost, there has to be time for the next one.
    fn due(&self, time: i64) -> Option<i64> {
        self.delay.due(time, if self.lossy { FRAME as i64 } else { 0 })
    }

    /// Drops what ended by the timestamp `due`.
    fn drop_until(&mut self, due: i64) {
        while self.packets.front().is_some_and(|packet| packet.end() <= due) {
            self.packets.pop();
        }
    }

    /// Until a frame is there; `due` is what should sound first.
    fn fill(&mut self, due: i64) {
        while self.pcm.len() < FRAME {
            match self.state {
                State::Silent => self.wait(due + self.pcm.len() as i64),
                State::Playing { next, ahead } => self.advance(next, ahead),
            }
        }
    }

    /// Silence, or the beginning of a sound whose time has come.
    fn wait(&mut self, due: i64) {
        self.edge = 0.0;
        let rest = FRAME - self.pcm.len();
        let wait = self.packets.front().map_or(i64::MAX, |packet| packet.timestamp.saturating_sub(due));
        let silence = wait.clamp(0, rest as i64) as usize;
        self.pcm.resize(self.pcm.len() + silence, 0.0);
        if silence < rest
            && let Some(packet) = self.packets.front()
        {
            self.concealed = 0;
            self.state = State::Playing { next: packet.timestamp, ahead: 0 };
        }
    }

    /// The next packet, or what stands in for it.
    fn advance(&mut self, next: i64, ahead: i64) {
        let in_order = self.packets.in_order();
        let Some(packet) = self.packets.front() else {
            // It may be late only.
            self.conceal(FRAME);
            self.keep_playing(next, ahead + FRAME as i64);
            return;
        };
        let gap = packet.timestamp - next;
        if gap <= 0 {
            self.decode(next);
        } else if ahead > 0 {
            let covered = ahead.min(gap);
            self.state = State::Playing { next: next + covered, ahead: 0 };
            if covered == gap {
                self.note_loss(!in_order);
            }
        } else if in_order {
            // Nothing is missing: the sender was silent.
            self.end();
        } else if gap < CONCEALED_STEP {
            self.state = State::Playing { next: packet.timestamp, ahead: 0 };
        } else if gap <= packet.samples {
            let samples = (gap - gap % CONCEALED_STEP) as usize;
            let pcm = self.decoder.recover(packet, samples);
            append(&mut self.pcm, pcm, self.edge, self.edge);
            self.state = State::Playing { next: packet.timestamp, ahead: 0 };
            self.note_loss(true);
        } else {
            self.conceal(FRAME.min((gap - gap % CONCEALED_STEP) as usize));
            self.keep_playing(next + gap.min(FRAME as i64), 0);
            self.note_loss(true);
        }
    }

    fn decode(&mut self, next: i64) {
        let Some(packet) = self.packets.pop() else { return };
        if packet.end() <= next {
            return;
        }
        let known = (next - packet.timestamp).max(0) as usize;
        let pcm = self.decoder.decode(&packet);
        let pcm = pcm.get(known..).unwrap_or_default();
        let edge = if self.edge < 1.0 { EDGE.min(pcm.len()) } else { 0 };
        append(&mut self.pcm, &pcm[..edge], self.edge, 1.0);
        self.pcm.extend_from_slice(&pcm[edge..]);
        self.edge = 1.0;
        self.concealed = 0;
        self.state = State::Playing { next: packet.end(), ahead: 0 };
        self.note_loss(false);
    }

    fn conceal(&mut self, samples: usize) {
        let pcm = self.decoder.conceal(samples);
        self.concealed += samples;
        let faded = self.concealed.saturating_sub(CONCEALED_FULL) as f32 / (CONCEALED_MAX - CONCEALED_FULL) as f32;
        let gain = self.edge.min(1.0 - faded).max(0.0);
        append(&mut self.pcm, pcm, self.edge, gain);
        self.edge = gain;
    }

    /// Unless concealment has gone on for too long.
    fn keep_playing(&mut self, next: i64, ahead: i64) {
        let silent = self.concealed >= CONCEALED_MAX;
        self.state = if silent { State::Silent } else { State::Playing { next, ahead } };
    }

    /// Breaks off without a click.
    fn end(&mut self) {
        if self.edge > 0.0 {
            let pcm = self.decoder.conceal(ENDING);
            append(&mut self.pcm, pcm, self.edge, 0.0);
        }
        self.edge = 0.0;
        self.state = State::Silent;
    }

    fn note_loss(&mut self, lost: bool) {
        let share = if lost { 1.0 } else { 0.0 };
        self.loss += (share - self.loss) * LOSS_WEIGHT;
        self.lossy = self.loss > if self.lossy { LOSSLESS } else { LOSSY };
    }

    /// Comes closer to where it should be: a frame is there, whose beginning should be `due`.
    fn follow(&mut self, due: i64) {
        let State::Playing { next, ahead: 0 } = self.state else { return };
        let late = due - (next - self.pcm.len() as i64);
        if late.abs() > MAX_ERROR {
            self.end();
            self.drop_until(due);
            return;
        }
        if self.edge < 1.0 || self.ticks_since_cut < CUT_EVERY {
            return;
        }
        let changed = if late > SLACK_LATE {
            if self.pcm.len() < 2 * FRAME && self.packets.front().is_some_and(|packet| packet.timestamp == next) {
                self.decode(next);
            }
            let most = (late as usize).min(self.pcm.len() - FRAME);
            time_scale::shorten(&mut self.pcm, most, likeness(late))
        } else if late < -SLACK_EARLY {
            time_scale::lengthen(&mut self.pcm, late.unsigned_abs() as usize, likeness(late))
        } else {
            return;
        };
        if changed > 0 {
            self.ticks_since_cut = 0;
        }
    }
}

/// What a cut must resemble: the further off, the less it matters how it sounds.
fn likeness(late: i64) -> Likeness {
    match late.abs() / MS {
        0..25 => Likeness(0.85),
        25..60 => Likeness(0.5),
        _ => Likeness(-1.0),
    }
}

/// Adds `pcm`, its gain going from one value to the other.
fn append(out: &mut Vec<f32>, pcm: &[f32], from: f32, to: f32) {
    let step = (to - from) / pcm.len().max(1) as f32;
    out.extend(pcm.iter().enumerate().map(|(n, sample)| sample * (from + step * n as f32)));
}

/// How a packet is coded, and where its frame begins.
fn coding(packet: &AudioPacket) -> Option<(Coding, usize)> {
    match packet.codec {
        Codec::Opus => Some((Coding::Opus, 0)),
        Codec::Red => Some((Coding::Opus, red::Primary::parse(&packet.payload)?.from)),
        Codec::Pcmu => Some((Coding::G711(Law::Mu), 0)),
        Codec::Pcma => Some((Coding::G711(Law::A), 0)),
        _ => None,
    }
}
