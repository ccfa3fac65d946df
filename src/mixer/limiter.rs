//! Limiter: keeps a mix within what can be encoded. A mix that fits passes untouched; of one that would not, the gain goes
//! down before the peak comes, as little as needed, and back up slowly enough not to be heard as pumping.
//!
//! It looks one block ahead, so that is what it delays.

use super::{FRAME, SAMPLES_PER_MS};

/// Full scale is 1. The codec adds some ripple to what it is given: 0.9 dB are left for it.
pub(super) const CEILING: f32 = 0.9;

/// Samples of a block: the gain falls within one, 2.5 ms.
const BLOCK: usize = (5 * SAMPLES_PER_MS / 2) as usize;

/// What is left of the way up to 1 after a block: 63 % of it are gone after 200 ms.
const RELEASE: f32 = 0.9876;

#[derive(Debug, Clone)]
pub(super) struct Limiter {
    /// What came last, and is still to be given out.
    held: [f32; BLOCK],
    /// The gain that `held` allows.
    allowed: f32,
    /// The gain at the end of what was given out.
    gain: f32,
}

impl Limiter {
    pub fn new() -> Self {
        Limiter { held: [0.0; BLOCK], allowed: 1.0, gain: 1.0 }
    }

    /// Replaces what comes in with what goes out, within ±`CEILING`, one block later.
    pub fn apply(&mut self, frame: &mut [f32; FRAME]) {
        for block in frame.chunks_exact_mut(BLOCK) {
            let allowed = allowed(block);
            // At its borders a block's gain is at most what either side allows, so it is in between, too.
            let recovered = 1.0 - (1.0 - self.gain) * RELEASE;
            let end = recovered.min(self.allowed).min(allowed);
            let step = (end - self.gain) / BLOCK as f32;
            for (n, (held, coming)) in self.held.iter_mut().zip(block).enumerate() {
                let limited = *held * (self.gain + step * n as f32);
                *held = *coming;
                // For what rounding adds.
                *coming = limited.clamp(-CEILING, CEILING);
            }
            (self.gain, self.allowed) = (end, allowed);
        }
    }
}

fn allowed(block: &[f32]) -> f32 {
    let peak = block.iter().fold(0.0f32, |peak, sample| peak.max(sample.abs()));
    if peak > CEILING { CEILING / peak } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(limiter: &mut Limiter, input: &[f32]) -> Vec<f32> {
        let mut frames: Vec<[f32; FRAME]> = input.chunks_exact(FRAME).map(|frame| frame.try_into().unwrap()).collect();
        frames.iter_mut().for_each(|frame| limiter.apply(frame));
        frames.concat()
    }

    fn tone(amplitude: f32, len: usize) -> Vec<f32> {
        (0..len).map(|n| amplitude * (n as f32 * 0.05).sin()).collect()
    }

    #[test]
    fn what_fits_is_only_delayed() {
        let input = tone(0.89, 5 * FRAME);
        let output = run(&mut Limiter::new(), &input);
        assert_eq!(output[BLOCK..], input[..input.len() - BLOCK]);
    }

    #[test]
    fn a_steady_mix_is_turned_down_evenly() {
        let output = run(&mut Limiter::new(), &tone(3.0, 50 * FRAME));
        // Every period of a steady tone peaks alike: the gain does not pump.
        let peaks = output[10 * FRAME..].chunks(FRAME).map(|frame| frame.iter().fold(0.0f32, |p, s| p.max(s.abs())));
        for peak in peaks {
            assert!((CEILING * 0.97..=CEILING).contains(&peak), "{peak}");
        }
    }

    #[test]
    fn recovers_slowly() {
        let mut limiter = Limiter::new();
        run(&mut limiter, &tone(1.8, 5 * FRAME));
        assert!(limiter.gain < 0.52);
        run(&mut limiter, &tone(0.1, 5 * FRAME));
        assert!((0.6..0.8).contains(&limiter.gain), "{}", limiter.gain);
        run(&mut limiter, &tone(0.1, 100 * FRAME));
        assert!(limiter.gain > 0.999, "{}", limiter.gain);
    }

    proptest! {
        #[test]
        fn nothing_leaves_its_range(seed: u64, loudest in 0.5f32..50.0) {
            let mut dice = fastrand::Rng::with_seed(seed);
            let input: Vec<f32> = (0..20 * FRAME)
                .map(|n| if dice.u32(0..500) == 0 { loudest } else { (n as f32 * 0.07).sin() * dice.f32() * loudest * 0.3 })
                .collect();
            let output = run(&mut Limiter::new(), &input);
            // The clamp only takes what rounding adds: without it the same would hold within a millionth.
            prop_assert!(output.iter().all(|sample| sample.abs() <= CEILING));
            let flat = |samples: &[f32]| samples.iter().all(|sample| sample.abs() == samples[0].abs());
            let clipped = |(after, before): &(&[f32], &[f32])| after[0].abs() == CEILING && flat(after) && !flat(before);
            let clipped = output[BLOCK..].windows(3).zip(input.windows(3)).filter(clipped).count();
            prop_assert_eq!(clipped, 0, "flat tops");
        }
    }
}
