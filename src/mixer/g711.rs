//! G.711 (PCMU, PCMA), as gateways to telephones send it: 8 kHz, a byte a sample. Decoded to the mixer's 48 kHz.

/// Samples of the mixer for one of G.711.
pub(super) const RATIO: usize = 6;

/// Taps of the interpolation filter for each of the `RATIO` phases: passes 3.4 kHz, and holds what the lower rate mirrors
/// above 4.6 kHz down by 40 dB.
const TAPS: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Law {
    Mu,
    A,
}

#[derive(Debug)]
pub(super) struct Expander {
    /// By phase.
    filter: [[f32; TAPS]; RATIO],
    /// The last samples, oldest first.
    history: [f32; TAPS],
}

impl Expander {
    pub fn new() -> Self {
        let mut filter = [[0.0; TAPS]; RATIO];
        let length = TAPS * RATIO;
        for (phase, taps) in filter.iter_mut().enumerate() {
            for (tap, weight) in taps.iter_mut().enumerate() {
                // The newest sample comes last, so its tap is the first of the impulse.
                let at = (TAPS - 1 - tap) * RATIO + phase;
                let x = (at as f32 - (length - 1) as f32 / 2.0) / RATIO as f32 * std::f32::consts::PI;
                let sinc = if x == 0.0 { 1.0 } else { x.sin() / x };
                let turn = (at as f32 + 0.5) / length as f32 * std::f32::consts::TAU;
                let hann = 0.5 - 0.5 * turn.cos();
                *weight = sinc * hann;
            }
            let sum: f32 = taps.iter().sum();
            taps.iter_mut().for_each(|weight| *weight /= sum);
        }
        Expander { filter, history: [0.0; TAPS] }
    }

    /// Decodes `payload` into `RATIO` times as many samples. Returns how many: no more than fit.
    pub fn expand(&mut self, law: Law, payload: &[u8], out: &mut [f32]) -> usize {
        let mut written = 0;
        for (byte, samples) in payload.iter().zip(out.chunks_exact_mut(RATIO)) {
            self.history.rotate_left(1);
            self.history[TAPS - 1] = f32::from(linear(law, *byte)) / 32_768.0;
            for (sample, taps) in samples.iter_mut().zip(&self.filter) {
                *sample = self.history.iter().zip(taps).map(|(sample, tap)| sample * tap).sum();
            }
            written += RATIO;
        }
        written
    }

    /// Forgets what came before.
    pub fn reset(&mut self) {
        self.history = [0.0; TAPS];
    }
}

/// ITU-T G.711, to 16 bits.
fn linear(law: Law, byte: u8) -> i16 {
    let (inverted, bias) = match law {
        Law::Mu => (!byte, 0x84),
        Law::A => (byte ^ 0x55, 8),
    };
    let exponent = i32::from(inverted >> 4 & 7);
    let mantissa = i32::from(inverted & 0xf);
    let (magnitude, negative) = match law {
        Law::Mu => ((((mantissa << 3) + bias) << exponent) - bias, inverted & 0x80 != 0),
        Law::A if exponent == 0 => ((mantissa << 4) + bias, inverted & 0x80 == 0),
        Law::A => (((mantissa << 4) + bias + 0x100) << (exponent - 1), inverted & 0x80 == 0),
    };
    // At most 32,256.
    if negative { -magnitude as i16 } else { magnitude as i16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_as_the_tables_of_the_recommendation() {
        for (law, byte, expected) in [
            (Law::Mu, 0xff, 0),
            (Law::Mu, 0x7f, 0),
            (Law::Mu, 0x80, 32_124),
            (Law::Mu, 0x00, -32_124),
            (Law::Mu, 0xf0, 120),
            (Law::A, 0xd5, 8),
            (Law::A, 0x55, -8),
            (Law::A, 0xaa, 32_256),
            (Law::A, 0x2a, -32_256),
        ] {
            assert_eq!(linear(law, byte), expected, "{law:?} {byte:#x}");
        }
    }

    #[test]
    fn a_tone_of_speech_keeps_its_level_and_gains_no_mirror() {
        // The closest code to each sample of a tone: what an encoder does.
        let code = |value: f32| {
            let closest = |byte: &u8| (f32::from(linear(Law::Mu, *byte)) - value).abs();
            (0..=255u8).min_by(|a, b| closest(a).total_cmp(&closest(b))).unwrap()
        };
        let wave = |n: usize| (n as f32 * 1000.0 / 8000.0 * std::f32::consts::TAU).sin() * 10_000.0;
        let payload: Vec<u8> = (0..1600).map(|n| code(wave(n))).collect();
        let mut out = vec![0.0; payload.len() * RATIO + 5];
        assert_eq!(Expander::new().expand(Law::Mu, &payload, &mut out), 9600);
        let steady = &out[4800..9600];
        let level = crate::mixer::test_kit::goertzel(steady, 1000.0) / (10_000.0 / 32_768.0);
        assert!((0.95..1.05).contains(&level), "{level}");
        let mirror = crate::mixer::test_kit::goertzel(steady, 7000.0) / (10_000.0 / 32_768.0);
        assert!(mirror < 0.01, "{mirror}");
    }
}
