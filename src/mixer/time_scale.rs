//! Plays faster or slower without changing the pitch: one period of the voice is taken out, or played twice, where the
//! signal resembles itself (waveform-similarity overlap-add). So a source's delay follows its target.

use super::SAMPLES_PER_MS;

/// Periods of a voice, samples: 400 Hz …
const SHORTEST: usize = (5 * SAMPLES_PER_MS / 2) as usize;
/// … to 67 Hz.
pub(super) const LONGEST: usize = 15 * SAMPLES_PER_MS as usize;

/// Every so many samples are compared at first, then all in the neighbourhood of the best.
const STRIDE: usize = 4;

/// Below this mean square a frame is noise that nobody listens to, −50 dB: any cut will do.
const FAINT: f32 = 1e-5;

/// What a shift has to resemble the signal, 1 = the same, for the overlap not to be heard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Likeness(pub f32);

/// Takes out one period of at most `most` samples near the front. Returns how many were taken out, 0 if there is no good
/// place.
pub(super) fn shorten(pcm: &mut Vec<f32>, most: usize, wanted: Likeness) -> usize {
    let Some(period) = period(pcm, most, wanted) else { return 0 };
    let (first, second) = pcm.split_at_mut(period);
    cross_fade(first, &second[..period]);
    pcm.copy_within(2 * period.., period);
    pcm.truncate(pcm.len() - period);
    period
}

/// Plays one period of at most `most` samples near the front twice. Returns how many samples were added.
pub(super) fn lengthen(pcm: &mut Vec<f32>, most: usize, wanted: Likeness) -> usize {
    let Some(period) = period(pcm, most, wanted) else { return 0 };
    let len = pcm.len();
    pcm.resize(len + period, 0.0);
    pcm.copy_within(period..len, 2 * period);
    // Now: the first period, room for another, and from its second period on what there was. The room goes from what would
    // have followed the first to what leads up to the second.
    let (first, rest) = pcm.split_at_mut(period);
    let (room, second) = rest.split_at_mut(period);
    room.copy_from_slice(&second[..period]);
    cross_fade(room, first);
    period
}

/// `from` becomes `to` on the way.
fn cross_fade(from: &mut [f32], to: &[f32]) {
    let step = 1.0 / from.len() as f32;
    for (n, (from, to)) in from.iter_mut().zip(to).enumerate() {
        let share = (n as f32 + 0.5) * step;
        *from += (to - *from) * share;
    }
}

/// The shift of at most `most` samples at which the beginning of the signal is most like itself.
fn period(pcm: &[f32], most: usize, wanted: Likeness) -> Option<usize> {
    let longest = most.min(LONGEST).min(pcm.len() / 2);
    if longest < SHORTEST {
        return None;
    }
    let energy: f32 = pcm[..2 * longest].iter().map(|sample| sample * sample).sum();
    if energy < FAINT * (2 * longest) as f32 {
        return Some(longest);
    }
    let coarse = best(pcm, (SHORTEST..=longest).step_by(STRIDE), longest, STRIDE)?;
    let near = coarse.0.saturating_sub(STRIDE).max(SHORTEST)..=(coarse.0 + STRIDE).min(longest);
    let (shift, likeness) = best(pcm, near, longest, 1)?;
    (likeness >= wanted.0).then_some(shift)
}

fn best(pcm: &[f32], shifts: impl Iterator<Item = usize>, window: usize, stride: usize) -> Option<(usize, f32)> {
    shifts.map(|shift| (shift, likeness(pcm, shift, window, stride))).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Normalised cross-correlation of the first `window` samples with those `shift` later.
fn likeness(pcm: &[f32], shift: usize, window: usize, stride: usize) -> f32 {
    let (mut product, mut here, mut there) = (0.0, 0.0, 0.0);
    for (a, b) in pcm[..window].iter().zip(&pcm[shift..]).step_by(stride) {
        product += a * b;
        here += a * a;
        there += b * b;
    }
    product / (here * there).sqrt().max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mixer::FRAME;

    const STRICT: Likeness = Likeness(0.85);

    fn tone(hz: f32, len: usize) -> Vec<f32> {
        (0..len).map(|n| 0.5 * (n as f32 * hz / 48_000.0 * std::f32::consts::TAU).sin()).collect()
    }

    /// A tone has no faster change than its own.
    fn steepest(pcm: &[f32]) -> f32 {
        pcm.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_tone_has_no_seam() {
        for hz in [110.0, 300.0, 440.0, 1000.0, 3000.0] {
            let whole = tone(hz, 2 * FRAME);
            let mut shorter = whole.clone();
            let taken = shorten(&mut shorter, LONGEST, STRICT);
            assert!((SHORTEST..=LONGEST).contains(&taken), "{hz}");
            assert_eq!(shorter.len(), whole.len() - taken);
            assert!(steepest(&shorter) < steepest(&whole) * 1.1, "{hz}");
            assert_eq!(shorter.last(), whole.last());

            let mut longer = whole.clone();
            let added = lengthen(&mut longer, LONGEST, STRICT);
            assert!((SHORTEST..=LONGEST).contains(&added), "{hz}");
            assert_eq!(longer.len(), whole.len() + added);
            assert!(steepest(&longer) < steepest(&whole) * 1.1, "{hz}");
            assert_eq!((longer[0], longer.last()), (whole[0], whole.last()));
        }
    }

    #[test]
    fn what_resembles_nothing_is_left_alone_unless_it_must() {
        let mut dice = fastrand::Rng::with_seed(3);
        let noise: Vec<f32> = (0..2 * FRAME).map(|_| dice.f32() - 0.5).collect();
        assert_eq!(shorten(&mut noise.clone(), LONGEST, STRICT), 0);
        assert_ne!(shorten(&mut noise.clone(), LONGEST, Likeness(-1.0)), 0);
        // Faint noise is cut anywhere.
        let mut faint: Vec<f32> = noise.iter().map(|sample| sample / 1000.0).collect();
        assert_eq!(shorten(&mut faint, LONGEST, STRICT), LONGEST);
    }

    proptest! {
        #[test]
        fn any_length_is_safe(len in 0usize..2000, most in 0usize..2000, likeness in -1.0f32..1.0, hz in 50f32..4000.0) {
            let whole = tone(hz, len);
            let (mut shorter, mut longer) = (whole.clone(), whole.clone());
            let taken = shorten(&mut shorter, most, Likeness(likeness));
            let added = lengthen(&mut longer, most, Likeness(likeness));
            prop_assert_eq!((shorter.len() + taken, longer.len()), (len, len + added));
            prop_assert!(taken <= most && added <= most);
        }
    }
}
