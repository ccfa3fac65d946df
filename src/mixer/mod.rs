//! The mixer: for callers who can take one audio stream only, all the others' audio in one.
//!
//! ```text
//!  push(source, packet) ─▶ Source: JitterBuffer ─▶ Decoder ─▶ time_scale ─┐ a frame every tick
//!  push(source, packet) ─▶ Source: …                                      ├─▶ sum ─▶ Mix: Limiter, encoder ─▶ listeners
//!                                                                         └─▶ sum without himself ─▶ Mix ─▶ one who speaks
//! ```
//!
//! One [`Mixer`] serves a room. It knows no sockets and no clock: packets come in with their arrival times, [`Mixer::tick`] is
//! called every 20 ms and gives packets out, so an hour takes seconds under test. In the steady state a tick allocates
//! nothing: buffers are made when a source or a listener is added.
//!
//! What is mixed: the few who speak loudest, as the room's forwarding chooses them ([`Loudest`]), and of them only those who
//! are above the noise floor. A source whose packets tell their level (RFC 6464) is decoded only while it is mixed; one that
//! does not is decoded always. Levels stay as they are: nobody is made louder or fainter but where the sum would not fit.
//!
//! What is sent: mono Opus, 20 ms a packet, always, also while all are silent (3 bytes then). With DTX off a listener's
//! jitter buffer stays settled, its connection open, and a client that takes missing packets for a dead call is not misled.

mod decoder;
mod delay;
mod g711;
mod jitter_buffer;
mod limiter;
mod listener;
mod mix;
mod source;
#[cfg(test)]
mod test_kit;
#[cfg(test)]
mod tests;
mod time_scale;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sfu::{Codec, Loudest};
use listener::{Listener, Numbers, Route};
use mix::Mix;
use source::Source;

/// Hz, of RTP timestamps and of all that is mixed. What Opus runs at.
pub const SAMPLE_RATE: u32 = 48_000;

/// Samples of a tick.
pub const FRAME: usize = 960;

/// Time between two ticks: what a packet holds.
pub const TICK: Duration = Duration::from_millis(20);

const SAMPLES_PER_MS: i64 = SAMPLE_RATE as i64 / 1000;

/// So many are mixed at once unless told otherwise. More than a handful at a time cannot be followed, and each one's noise
/// adds up.
pub const PLACES: usize = 6;

/// What is fainter, −dBov, is no voice: rooms are at −60 and below when the client suppresses noise, as all do by default.
const QUIET: u8 = 60;

/// Who was quiet for so long is no longer mixed: longer than any pause between two sentences.
const QUIET_FOR: Duration = Duration::from_secs(2);

/// −dBov of no sound at all (RFC 6464 §3).
const SILENCE: u8 = 127;

/// A tick that comes later than so many others is not made up for: the machine had stopped.
const MAX_CATCH_UP: u64 = 5;

/// Names a source of one mixer; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(u32);

/// Names a listener of one mixer; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(u32);

/// A packet of a source, decrypted.
#[derive(Debug, Clone)]
pub struct AudioPacket {
    /// Opus, RED of Opus, PCMU or PCMA; others are refused.
    pub codec: Codec,
    /// Without wrapping around, as [`MediaPacket`](crate::transport::MediaPacket) has it.
    pub sequence: u64,
    /// The first packet of another SSRC: numbers and timestamps start over.
    pub restarted: bool,
    /// In the codec's clock rate: 48 kHz, or 8 kHz for G.711.
    pub timestamp: u32,
    /// Kept until it sounds, not copied.
    pub payload: Arc<[u8]>,
    /// −dBov, 0 to 127 (RFC 6464), where the sender tells.
    pub level: Option<u8>,
    pub arrival: Instant,
}

/// Where a listener's stream begins. RFC 3550 §5.1 asks for random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start {
    pub sequence: u16,
    pub timestamp: u32,
}

/// A packet for a listener: 20 ms of Opus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MixedPacket<'a> {
    pub sequence: u16,
    /// 48 kHz.
    pub timestamp: u32,
    /// The first one of the stream (RFC 3551 §4.1).
    pub marker: bool,
    pub payload: &'a [u8],
}

#[derive(Debug)]
pub struct Mixer {
    epoch: Instant,
    /// The number of the tick that comes next.
    next: u64,
    loudest: Loudest<SourceId>,
    sources: BTreeMap<SourceId, Microphone>,
    listeners: BTreeMap<ListenerId, Listener>,
    /// For those who do not speak, without and with protection against loss.
    common: [Mix; 2],
    sum: Box<[f32; FRAME]>,
    without: Box<[f32; FRAME]>,
    last_source: u32,
    last_listener: u32,
}

/// A source and what it is to the room.
#[derive(Debug)]
struct Microphone {
    source: Source,
    /// Who does not hear it.
    owner: Option<ListenerId>,
    /// Its packets tell their level.
    levelled: bool,
    /// When it was last above the noise.
    audible: Option<Instant>,
    /// It has a place.
    heard: bool,
    /// What its last frame was mixed with.
    gain: f32,
    /// It sounds in this tick.
    sounding: bool,
    /// Fades out, then it is gone.
    removed: bool,
}

impl Mixer {
    /// Of at most `places` sources at once; 0 = all.
    pub fn new(now: Instant, places: usize) -> Self {
        Mixer {
            epoch: now,
            next: 0,
            loudest: Loudest::new(places),
            sources: BTreeMap::new(),
            listeners: BTreeMap::new(),
            common: [Mix::new(), Mix::new()],
            sum: Box::new([0.0; FRAME]),
            without: Box::new([0.0; FRAME]),
            last_source: 0,
            last_listener: 0,
        }
    }

    /// Somebody who hears the mix from the next tick on.
    pub fn add_listener(&mut self, start: Start) -> ListenerId {
        self.last_listener += 1;
        let id = ListenerId(self.last_listener);
        self.listeners.insert(id, Listener::new(start));
        id
    }

    /// His sources stay, and are heard by all.
    pub fn remove_listener(&mut self, id: ListenerId) {
        self.listeners.remove(&id);
    }

    /// A microphone, which `owner` does not hear: a caller who gets the mix and is in it.
    pub fn add_source(&mut self, owner: Option<ListenerId>) -> SourceId {
        self.last_source += 1;
        let id = SourceId(self.last_source);
        let source = Source::new();
        let microphone = Microphone {
            source,
            owner,
            levelled: false,
            audible: None,
            heard: false,
            gain: 0.0,
            sounding: false,
            removed: false,
        };
        self.sources.insert(id, microphone);
        id
    }

    /// Fades out within the next tick.
    pub fn remove_source(&mut self, id: SourceId) {
        self.loudest.remove(id);
        if let Some(microphone) = self.sources.get_mut(&id) {
            microphone.removed = true;
            microphone.heard = false;
        }
    }

    /// False if it was of no use: garbage, a duplicate, too late, not of a source that is there.
    pub fn push(&mut self, id: SourceId, packet: &AudioPacket) -> bool {
        let time = self.samples(packet.arrival);
        let Some(microphone) = self.sources.get_mut(&id).filter(|microphone| !microphone.removed) else {
            return false;
        };
        let taken = microphone.source.push(packet, time);
        if taken && let Some(level) = packet.level {
            microphone.levelled = true;
            microphone.show(&mut self.loudest, id, packet.arrival, level.min(SILENCE));
        }
        taken
    }

    /// What share of the packets to a listener is lost, 0 to 1, as its receiver reports tell.
    pub fn set_loss(&mut self, id: ListenerId, share: f32) {
        let Some(listener) = self.listeners.get_mut(&id) else { return };
        listener.set_loss(share);
        let percent = self.listeners.values().map(Listener::loss_percent).max();
        self.common[1].protect(percent.unwrap_or(0));
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_tick(&self) -> Instant {
        // Wraps after 2^32 ticks, which is years.
        self.epoch + TICK * u32::try_from(self.next).unwrap_or(u32::MAX)
    }

    /// Mixes what is due by `now`, and gives each listener's packets to `send`. Nothing if it comes too soon; more than one
    /// tick if it comes late.
    pub fn tick(&mut self, now: Instant, mut send: impl FnMut(ListenerId, MixedPacket<'_>)) {
        let elapsed = now.saturating_duration_since(self.epoch).as_nanos() / TICK.as_nanos();
        let due = u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(1);
        let missed = due.saturating_sub(self.next).saturating_sub(MAX_CATCH_UP);
        if missed > 0 {
            self.next += missed;
            self.listeners.values_mut().for_each(|listener| listener.pause(missed));
        }
        while self.next < due {
            self.play();
            self.encode();
            self.send(&mut send);
            self.sources.retain(|_, microphone| !microphone.removed || microphone.gain > 0.0);
            self.next += 1;
        }
    }

    /// Every source's frame, and their sum.
    fn play(&mut self) {
        let time = self.next as i64 * FRAME as i64;
        let now = self.next_tick();
        let listened = !self.listeners.is_empty();
        self.sum.fill(0.0);
        for (id, microphone) in &mut self.sources {
            if !listened {
                microphone.skip(time);
            }
            microphone.sounding = listened && microphone.play(&mut self.loudest, *id, now, time);
            if !microphone.sounding {
                continue;
            }
            add(&mut self.sum, microphone.source.frame(), 1.0);
            let owner = microphone.owner.and_then(|owner| self.listeners.get_mut(&owner));
            if let Some(listener) = owner {
                listener.spoke = Some(self.next);
            }
        }
    }

    /// Every mix that somebody hears, once.
    fn encode(&mut self) {
        let tick = self.next;
        for (id, listener) in &mut self.listeners {
            let route = listener.choose(tick);
            if listener.route != Some(route) {
                let heard = match listener.route {
                    Some(Route::Own) => Some(listener.own.signal().clone()),
                    Some(Route::Common { protected }) => Some(self.common[usize::from(protected)].signal().clone()),
                    None => None,
                };
                let mix = match route {
                    Route::Own => &mut listener.own,
                    Route::Common { protected } => &mut self.common[usize::from(protected)],
                };
                mix.take_over(tick, heard.as_ref());
                listener.route = Some(route);
            }
            if route == Route::Own {
                self.without.copy_from_slice(&self.sum[..]);
                let own = self.sources.values().filter(|source| source.sounding && source.owner == Some(*id));
                own.for_each(|microphone| add(&mut self.without, microphone.source.frame(), -1.0));
                listener.own.encode(tick, &self.without);
            }
        }
        for (protected, mix) in [false, true].into_iter().zip(&mut self.common) {
            let wanted = Some(Route::Common { protected });
            if self.listeners.values().any(|listener| listener.route == wanted) {
                mix.encode(tick, &self.sum);
            }
        }
    }

    fn send(&mut self, send: &mut impl FnMut(ListenerId, MixedPacket<'_>)) {
        for (id, listener) in &mut self.listeners {
            let Numbers { sequence, timestamp, first } = listener.number();
            let payload = match listener.route {
                Some(Route::Common { protected }) => self.common[usize::from(protected)].packet(),
                _ => listener.own.packet(),
            };
            send(*id, MixedPacket { sequence, timestamp, marker: first, payload });
        }
    }

    /// Since the mixer began, or before.
    fn samples(&self, at: Instant) -> i64 {
        let since = |from: Instant, to: Instant| {
            let nanoseconds = to.saturating_duration_since(from).as_nanos();
            i64::try_from(nanoseconds * u128::from(SAMPLE_RATE) / 1_000_000_000).unwrap_or(i64::MAX)
        };
        since(self.epoch, at) - since(at, self.epoch)
    }
}

impl Microphone {
    /// Gives it a place or takes it, now that it is known to be at `level`, in −dBov.
    fn show(&mut self, loudest: &mut Loudest<SourceId>, id: SourceId, now: Instant, level: u8) {
        if level <= QUIET {
            self.audible = Some(now);
        }
        let audible = self.audible.is_some_and(|at| now.saturating_duration_since(at) < QUIET_FOR);
        self.heard = audible && loudest.admits(now, id, level);
        if !audible {
            loudest.remove(id);
        }
    }

    /// Whether it sounds in this tick; its frame is what to mix.
    fn play(&mut self, loudest: &mut Loudest<SourceId>, id: SourceId, now: Instant, time: i64) -> bool {
        if self.gain == 0.0 && !self.heard && (self.levelled || self.removed) {
            self.skip(time);
            return false;
        }
        let sounds = self.source.play(time);
        if !self.levelled && !self.removed {
            let level = if sounds { level(self.source.frame()) } else { SILENCE };
            self.show(loudest, id, now, level);
        }
        let from = self.gain;
        self.gain = if self.heard { 1.0 } else { 0.0 };
        if sounds && from != self.gain {
            fade(self.source.frame_mut(), from, self.gain);
        }
        sounds && from + self.gain > 0.0
    }

    fn skip(&mut self, time: i64) {
        self.source.skip(time);
        self.gain = 0.0;
    }
}

fn add(sum: &mut [f32; FRAME], frame: &[f32; FRAME], gain: f32) {
    sum.iter_mut().zip(frame).for_each(|(sum, sample)| *sum += sample * gain);
}

fn fade(frame: &mut [f32; FRAME], from: f32, to: f32) {
    let step = (to - from) / FRAME as f32;
    frame.iter_mut().enumerate().for_each(|(n, sample)| *sample *= from + step * n as f32);
}

/// −dBov as RFC 6464 has it: a square wave at full scale is 0.
fn level(frame: &[f32; FRAME]) -> u8 {
    let mean = frame.iter().map(|sample| sample * sample).sum::<f32>() / FRAME as f32;
    (-10.0 * mean.log10()).clamp(0.0, f32::from(SILENCE)) as u8
}
