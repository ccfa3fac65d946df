//! The RTCP of a receiver: reports and NACKs out, sender reports in (RFC 3550 §6.4, RFC 4585 §6.2.1).

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const TRANSPORT_FEEDBACK: u8 = 205;
const GENERIC_NACK: u8 = 1;

/// Report blocks that one packet can count.
const MOST_BLOCKS: usize = 31;

/// One stream in a receiver report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// Of the packets expected since the last report, in 1/256.
    pub fraction_lost: u8,
    /// 24 bits, two's complement; clamped by the caller.
    pub total_lost: u32,
    /// Highest sequence number with its cycles above.
    pub highest: u32,
    /// In ticks of the stream's clock.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's time; 0 = none came.
    pub last_report: u32,
    /// 1/65536 s since then.
    pub delay: u32,
}

/// The header of any RTCP packet; the length is filled in by [`finish`].
fn begin(out: &mut Vec<u8>, count: u8, packet_type: u8, sender: u32) -> usize {
    let start = out.len();
    out.extend([0x80 | count, packet_type, 0, 0]);
    out.extend(sender.to_be_bytes());
    start
}

/// Writes the length in words, minus one.
pub(super) fn finish(out: &mut [u8], start: usize) {
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

pub(super) fn begin_feedback(out: &mut Vec<u8>, format: u8, sender: u32, media: u32) -> usize {
    let start = begin(out, format, TRANSPORT_FEEDBACK, sender);
    out.extend(media.to_be_bytes());
    start
}

/// Appends receiver reports, as many as the blocks need; an empty one for no blocks.
pub fn write_receiver_reports(out: &mut Vec<u8>, sender: u32, blocks: &[ReportBlock]) {
    let mut rest = blocks;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MOST_BLOCKS));
        let start = begin(out, now.len() as u8, RECEIVER_REPORT, sender);
        for block in now {
            out.extend(block.ssrc.to_be_bytes());
            out.extend((u32::from(block.fraction_lost) << 24 | block.total_lost & 0xff_ffff).to_be_bytes());
            for field in [block.highest, block.jitter, block.last_report, block.delay] {
                out.extend(field.to_be_bytes());
            }
        }
        finish(out, start);
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
}

/// Appends a generic NACK for one stream. `lost` ascends, across the wrap too.
pub fn write_nack(out: &mut Vec<u8>, sender: u32, media: u32, lost: impl IntoIterator<Item = u16>) {
    let mut entries: Vec<(u16, u16)> = Vec::new();
    for sequence in lost {
        match entries.last_mut() {
            Some((first, following)) if (1..=16).contains(&sequence.wrapping_sub(*first)) => {
                *following |= 1 << (sequence.wrapping_sub(*first) - 1);
            }
            _ => entries.push((sequence, 0)),
        }
    }
    if entries.is_empty() {
        return;
    }
    let start = begin_feedback(out, GENERIC_NACK, sender, media);
    for (first, following) in entries {
        out.extend(first.to_be_bytes());
        out.extend(following.to_be_bytes());
    }
    finish(out, start);
}

/// The sender reports of a compound packet: (SSRC, middle 32 bits of the NTP time).
pub fn sender_reports(mut compound: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    std::iter::from_fn(move || {
        loop {
            let head: &[u8; 4] = compound.first_chunk()?;
            let length = 4 * (usize::from(u16::from_be_bytes([head[2], head[3]])) + 1);
            let (packet, rest) = compound.split_at_checked(length)?;
            compound = rest;
            if packet[1] == SENDER_REPORT && packet.len() >= 16 {
                let word = |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
                return Some((word(4), word(8) << 16 | word(12) >> 16));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nack_packs_neighbours() {
        let mut out = Vec::new();
        write_nack(&mut out, 1, 2, [65_534, 65_535, 0, 14, 15, 40]);
        let expected: Vec<u8> = [
            &[0x81, 205, 0, 5][..],
            &[0, 0, 0, 1, 0, 0, 0, 2],
            // 65534 with +1, +2 and +16; 15 is 17 away.
            &[0xff, 0xfe, 0b1000_0000, 0b0000_0011],
            &[0, 15, 0, 0],
            &[0, 40, 0, 0],
        ]
        .concat();
        assert_eq!(out, expected);
        out.clear();
        write_nack(&mut out, 1, 2, []);
        assert!(out.is_empty());
    }

    #[test]
    fn reports_are_split_at_31_blocks() {
        let mut out = Vec::new();
        let blocks = [ReportBlock { ssrc: 9, total_lost: 0xff_ffff, ..Default::default() }; 40];
        write_receiver_reports(&mut out, 7, &blocks);
        assert_eq!(out.len(), 2 * 8 + 40 * 24);
        assert_eq!((out[0], out[1]), (0x80 | 31, 201));
        assert_eq!(u16::from_be_bytes([out[2], out[3]]), 1 + 31 * 6);
        let second = 8 + 31 * 24;
        assert_eq!((out[second], out[second + 1]), (0x80 | 9, 201));
    }

    #[test]
    fn sender_reports_are_found_in_compounds() {
        let mut out = Vec::new();
        write_receiver_reports(&mut out, 7, &[]);
        let start = begin(&mut out, 0, SENDER_REPORT, 0xfeed);
        out.extend([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
        out.extend([0; 12]);
        finish(&mut out, start);
        assert_eq!(sender_reports(&out).collect::<Vec<_>>(), [(0xfeed, 0x3344_5566)]);
        out.truncate(out.len() - 1);
        assert_eq!(sender_reports(&out).count(), 0);
    }
}
