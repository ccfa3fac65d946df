//! Decoder: what a source sends, as samples; and for what is lost, samples that are hardly missed.

use opus::Channels;

use super::g711::{self, Expander};
use super::jitter_buffer::{Coding, Held};
use super::{SAMPLE_RATE, SAMPLES_PER_MS};

/// The longest packet, 120 ms (RFC 6716 §2.1.4).
pub(super) const LONGEST_PACKET: usize = 120 * SAMPLES_PER_MS as usize;

/// Opus conceals multiples of this, 2.5 ms.
pub(super) const CONCEALED_STEP: i64 = 5 * SAMPLES_PER_MS / 2;

#[derive(Debug)]
pub(super) struct Decoder {
    opus: opus::Decoder,
    g711: Expander,
    /// Of what came last.
    coding: Coding,
    pcm: Box<[f32; LONGEST_PACKET]>,
}

/// How many samples a frame holds, if it is one.
pub(super) fn samples(coding: Coding, frame: &[u8]) -> Option<i64> {
    let samples = match coding {
        Coding::Opus => opus::packet::get_nb_samples(frame, SAMPLE_RATE).ok()?,
        Coding::G711(_) => frame.len() * g711::RATIO,
    };
    (1..=LONGEST_PACKET).contains(&samples).then_some(samples as i64)
}

impl Decoder {
    pub fn new() -> Self {
        // One channel: voices are mixed for one. Fails for other arguments, or without memory.
        let opus = opus::Decoder::new(SAMPLE_RATE, Channels::Mono).expect("a rate that Opus knows");
        let pcm = Box::new([0.0; LONGEST_PACKET]);
        Decoder { opus, g711: Expander::new(), coding: Coding::Opus, pcm }
    }

    /// As many samples as the packet holds; concealed if it turns out to be none.
    pub fn decode(&mut self, packet: &Held) -> &[f32] {
        self.coding = packet.coding;
        let samples = packet.samples.clamp(0, LONGEST_PACKET as i64) as usize;
        match packet.coding {
            Coding::Opus => self.opus(packet.frame(), samples, false),
            Coding::G711(law) => {
                let decoded = self.g711.expand(law, packet.frame(), &mut self.pcm[..samples]);
                limit(&mut self.pcm[..decoded])
            }
        }
    }

    /// The `samples` before `next`, from the copy of them that it may bring (in-band FEC); else concealed.
    pub fn recover(&mut self, next: &Held, samples: usize) -> &[f32] {
        match next.coding {
            Coding::Opus => self.opus(next.frame(), samples, true),
            Coding::G711(_) => self.conceal(samples),
        }
    }

    /// `samples` that continue what came last, fainter and fainter.
    pub fn conceal(&mut self, samples: usize) -> &[f32] {
        match self.coding {
            Coding::Opus => self.opus(&[], samples, false),
            Coding::G711(_) => {
                self.g711.reset();
                let pcm = &mut self.pcm[..samples.min(LONGEST_PACKET)];
                pcm.fill(0.0);
                pcm
            }
        }
    }

    /// An empty frame is concealed. `samples` is what the frame holds, else a multiple of [`CONCEALED_STEP`].
    fn opus(&mut self, frame: &[u8], samples: usize, earlier: bool) -> &[f32] {
        let pcm = &mut self.pcm[..samples.min(LONGEST_PACKET)];
        let decoded = self.opus.decode_float(frame, pcm, earlier);
        let decoded = decoded.or_else(|_| self.opus.decode_float(&[], pcm, false)).unwrap_or(0);
        pcm[decoded.min(samples)..].fill(0.0);
        limit(pcm)
    }

    /// Another encoder's packets come next.
    pub fn restart(&mut self) {
        // Fails for no argument, and there is none.
        let _ = self.opus.reset_state();
        self.g711.reset();
    }
}

/// Garbage decodes to anything, and a loud signal beyond the scale.
#[allow(clippy::manual_clamp, reason = "makes a number of NaN, which clamp keeps")]
fn limit(pcm: &mut [f32]) -> &[f32] {
    pcm.iter_mut().for_each(|sample| *sample = sample.max(-1.0).min(1.0));
    pcm
}
