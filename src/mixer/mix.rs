//! Mix: one stream that is encoded, for one listener or for all who would hear the same.
//!
//! A listener is moved between the common mix and one of his own as he begins and ends to speak. What the new encoder is
//! given continues what the old one was given, so it first encodes what everybody has heard already, to know the signal; and its first packet relies on no other, as the decoder knows only those of the old one.

use opus::{Application, Bitrate, Channels, Encoder};

use super::limiter::Limiter;
use super::{FRAME, SAMPLE_RATE};

/// Bits per second of every stream. At this rate Opus encodes speech with its transform alone, which takes a third of the
/// time; it needs some more bits than with linear prediction to sound as well, and 48 kb/s are nothing to a line that takes
/// a call.
const BITRATE: i32 = 48_000;

/// Of 0 to 10. Above 6 the encoder analyses whether it is given speech, at four times the cost.
const COMPLEXITY: i32 = 5;

/// The largest packet of one frame (RFC 6716 §3.4), which the bit rate never comes near.
const MAX_PACKET: usize = 1275;

/// 20 ms of silence: code, in full band, that there is no sound.
const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];

/// After so many silent frames nothing of a sound is left in either codec: silence is sent without encoding it, for as long
/// as it lasts. Half a second.
const SILENT_FRAMES: u32 = 25;

/// From this loss on, percent, the encoder repeats each frame coarsely in the packet after it (in-band FEC). Below 6 it
/// does not, however it is told to.
const LEAST_PROTECTED: u8 = 10;

#[derive(Debug)]
pub(super) struct Mix {
    encoder: Encoder,
    signal: Signal,
    /// The tick that was encoded last.
    tick: Option<u64>,
    /// Frames without a sound, one after the other.
    silent: u32,
    /// The next packet shall be understood without those before it.
    independent: bool,
    packet: Box<[u8; MAX_PACKET]>,
    packet_len: usize,
}

/// Frames that an encoder needs to know a signal as well as one that has encoded all of it: filters, pitch, energies.
const WARM_UP: usize = 3;

/// Where a mix has come to.
#[derive(Debug, Clone)]
pub(super) struct Signal {
    limiter: Limiter,
    /// What was encoded last, and where in it the oldest frame is.
    frames: [[f32; FRAME]; WARM_UP],
    oldest: usize,
}

impl Signal {
    fn new() -> Self {
        Signal { limiter: Limiter::new(), frames: [[0.0; FRAME]; WARM_UP], oldest: 0 }
    }

    /// Limits the tick's sum.
    fn add(&mut self, sum: &[f32; FRAME]) -> &[f32; FRAME] {
        let frame = &mut self.frames[self.oldest];
        self.oldest = (self.oldest + 1) % WARM_UP;
        frame.copy_from_slice(sum);
        self.limiter.apply(frame);
        frame
    }
}

impl Mix {
    pub fn new() -> Self {
        // Constants that Opus knows: fails only without memory. Application: what it chooses at our rate is said above.
        let mut encoder =
            Encoder::new(SAMPLE_RATE, Channels::Mono, Application::Audio).expect("a rate that Opus knows");
        let set = encoder.set_bitrate(Bitrate::Bits(BITRATE)).and_then(|()| encoder.set_complexity(COMPLEXITY));
        debug_assert!(set.is_ok(), "{set:?}");
        let packet = Box::new([0; MAX_PACKET]);
        Mix { encoder, signal: Signal::new(), tick: None, silent: 0, independent: false, packet, packet_len: 0 }
    }

    /// Of the packets a share of `percent` is lost; 0 turns protection off.
    pub fn protect(&mut self, percent: u8) {
        let percent = if percent == 0 { 0 } else { percent.clamp(LEAST_PROTECTED, 100) };
        let set = self.encoder.set_inband_fec(percent > 0);
        let set = set.and_then(|()| self.encoder.set_packet_loss_perc(percent.into()));
        debug_assert!(set.is_ok(), "{set:?}");
    }

    pub fn signal(&self) -> &Signal {
        &self.signal
    }

    /// Somebody comes to hear this from `tick` on who has heard `signal` so far, or nothing.
    pub fn take_over(&mut self, tick: u64, signal: Option<&Signal>) {
        let running = self.tick.is_some_and(|last| last + 1 == tick);
        self.independent = true;
        if running {
            return;
        }
        // Fails for no argument, and there is none.
        let _ = self.encoder.reset_state();
        self.silent = 0;
        self.signal = signal.cloned().unwrap_or_else(Signal::new);
        let (newer, older) = self.signal.frames.split_at(self.signal.oldest);
        for frame in older.iter().chain(newer) {
            let _ = self.encoder.encode_float(frame, &mut self.packet[..]);
        }
    }

    /// Encodes the tick's sum; once in a tick.
    pub fn encode(&mut self, tick: u64, sum: &[f32; FRAME]) {
        let frame = self.signal.add(sum);
        self.tick = Some(tick);
        let independent = std::mem::take(&mut self.independent);
        if independent {
            let _ = self.encoder.set_prediction_disabled(true);
        }
        let silent = frame.iter().all(|sample| *sample == 0.0);
        self.silent = if silent { self.silent.saturating_add(1) } else { 0 };
        let encoded = match self.silent > SILENT_FRAMES {
            true => None,
            // Has no reason to fail: the frame is finite and of the right length.
            false => self.encoder.encode_float(frame, &mut self.packet[..]).ok(),
        };
        self.packet_len = encoded.unwrap_or_else(|| {
            self.packet[..SILENCE.len()].copy_from_slice(&SILENCE);
            SILENCE.len()
        });
        if independent {
            let _ = self.encoder.set_prediction_disabled(false);
        }
    }

    pub fn packet(&self) -> &[u8] {
        &self.packet[..self.packet_len]
    }
}
