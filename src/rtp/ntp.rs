//! Wall-clock time as RTP carries it: whole in sender reports, its middle in receiver reports, a slice of it in the
//! abs-send-time extension. Egress writes it, whoever pairs streams or measures round trips reads it.

use std::time::Duration;

/// Seconds from 1900 to 1970 (RFC 868).
const UNIX_EPOCH_SECONDS: u64 = 2_208_988_800;

/// Seconds since 1900 in 32.32 fixed point, wrapping in 2036 as the wire does (RFC 3550 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// `since` is the time passed since 1970.
    pub fn from_unix(since: Duration) -> Self {
        let seconds = since.as_secs().wrapping_add(UNIX_EPOCH_SECONDS);
        let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
        NtpTime(seconds << 32 | fraction)
    }

    /// The middle 32 bits, in units of 1/65536 s: what a receiver report returns as LSR (RFC 3550 §6.4.1).
    pub fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// The value of the abs-send-time extension: seconds in 6.18 fixed point, so it wraps every 64 s
    /// (`http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`).
    pub fn absolute_send_time(self) -> [u8; 3] {
        let [.., a, b, c] = ((self.0 >> 14) as u32).to_be_bytes();
        [a, b, c]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_1900() {
        assert_eq!(NtpTime::from_unix(Duration::ZERO).0, 0x83aa_7e80_0000_0000);
        let half = NtpTime::from_unix(Duration::new(1, 500_000_000));
        assert_eq!(half.0, 0x83aa_7e81_8000_0000);
        assert_eq!(half.middle(), 0x7e81_8000);
        assert_eq!(NtpTime::from_unix(Duration::new(0, 999_999_999)).0 >> 32, 0x83aa_7e80);
        // 2036-02-07 06:28:16.
        assert_eq!(NtpTime::from_unix(Duration::from_secs((1 << 32) - UNIX_EPOCH_SECONDS)).0, 0);
    }

    #[test]
    fn cuts_the_send_time_to_six_and_eighteen_bits() {
        // 63.5 s: all six bits of the seconds, and the upper one of the fraction.
        let time = NtpTime(63 << 32 | 1 << 31);
        assert_eq!(time.absolute_send_time(), [0xfe, 0, 0]);
        assert_eq!(NtpTime(64 << 32 | 1 << 14).absolute_send_time(), [0, 0, 1]);
    }
}
