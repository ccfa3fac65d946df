//! Packets one way through a server: numbered, with the time in them. They look like RTP, as what TURN relays mostly is.

use crate::sink::{Window, record};

/// RTP's header, then the time and the number.
pub const LEAST_BYTES: usize = 24;
/// Version 2 (RFC 3550 §5.1).
const VERSION: u8 = 0x80;
/// Any dynamic one.
const PAYLOAD_TYPE: u8 = 96;

/// What a packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Which flow it belongs to.
    pub flow: u32,
    pub sequence: u32,
    /// Unix time in nanoseconds: the kernel stamps arrivals on the same clock.
    pub sent: u64,
}

impl Probe {
    /// Fills the head of a packet; what follows stays.
    pub fn write(&self, packet: &mut [u8]) {
        packet[..2].copy_from_slice(&[VERSION, PAYLOAD_TYPE]);
        packet[2..4].copy_from_slice(&(self.sequence as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        packet[8..12].copy_from_slice(&self.flow.to_be_bytes());
        packet[12..20].copy_from_slice(&self.sent.to_be_bytes());
        packet[20..LEAST_BYTES].copy_from_slice(&[0; LEAST_BYTES - 20]);
    }

    pub fn read(packet: &[u8]) -> Option<Probe> {
        let head: &[u8; LEAST_BYTES] = packet.first_chunk()?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        (head[..2] == [VERSION, PAYLOAD_TYPE]).then(|| Probe {
            sequence: word(4),
            flow: word(8),
            sent: u64::from(word(12)) << 32 | u64::from(word(16)),
        })
    }
}

/// One direction of one allocation.
#[derive(Debug, Clone, Default)]
pub struct Flow {
    /// The next to send.
    next: u32,
    /// The highest that came.
    highest: Option<u32>,
    in_window: bool,
}

impl Flow {
    pub fn number(&mut self) -> u32 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        number
    }

    /// A packet of `bytes` came at `at`, Unix time in nanoseconds.
    pub fn receive(&mut self, probe: &Probe, bytes: usize, at: u64, window: &mut Window) {
        self.in_window = true;
        window.packets += 1;
        window.bytes += bytes as u64;
        record(&mut window.delay, at.saturating_sub(probe.sent) / 1000);
        let ahead = match self.highest {
            None => 1,
            Some(highest) => probe.sequence.wrapping_sub(highest) as i32,
        };
        match ahead {
            1.. => {
                window.expected += ahead as u64;
                window.lost += ahead as u64 - 1;
                self.highest = Some(probe.sequence);
            }
            0 => window.duplicates += 1,
            _ => window.lost = window.lost.saturating_sub(1),
        }
    }

    pub fn end_window(&mut self, window: &mut Window) {
        window.streams += 1;
        window.silent_streams += u64::from(!std::mem::take(&mut self.in_window));
    }

    /// Traffic ends: what is under way is not missed when it begins again.
    pub fn pause(&mut self) {
        self.highest = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_says_what_was_written() {
        let probe = Probe { flow: 0xfedc_ba98, sequence: 0x1234_5678, sent: 0x1122_3344_5566_7788 };
        let mut packet = vec![9; 60];
        probe.write(&mut packet);
        assert_eq!(Probe::read(&packet), Some(probe));
        assert_eq!(&packet[LEAST_BYTES..], [9; 36]);
        assert_eq!((Probe::read(&packet[..20]), Probe::read(&[0; 60])), (None, None));
    }

    #[test]
    fn losses_late_ones_and_silence_are_counted() {
        let (mut flow, mut window) = (Flow::default(), Window::default());
        for sequence in [5, 6, 9, 8, 9, u32::MAX.wrapping_add(11)] {
            flow.receive(&Probe { flow: 0, sequence, sent: 1000 }, 100, 301_000, &mut window);
        }
        assert_eq!((window.packets, window.bytes, window.expected), (6, 600, 6));
        assert_eq!((window.lost, window.duplicates), (1, 1));
        assert_eq!(window.delay.max(), 300);
        flow.end_window(&mut window);
        flow.end_window(&mut window);
        assert_eq!((window.streams, window.silent_streams), (2, 1));
        flow.pause();
        flow.receive(&Probe { flow: 0, sequence: 500, sent: 0 }, 100, 0, &mut window);
        assert_eq!((window.lost, window.expected), (1, 7));
    }
}
