//! Sender and receiver reports, the sender's name, and goodbyes (RFC 3550 §6.4–6.6).

use super::{GOODBYE, RECEIVER_REPORT, SENDER_REPORT, SOURCE_DESCRIPTION, Writer};
use crate::rtp::ntp::NtpTime;

const REPORT_BLOCK_LEN: usize = 24;
/// What the five bits of the count can say.
const MAX_COUNT: usize = 31;
/// The SDES item (RFC 3550 §6.5.1).
const ITEM_CNAME: u8 = 1;

/// What a sender says of one of its streams (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    pub ssrc: u32,
    /// When the report was sent, by the sender's clock.
    pub ntp: NtpTime,
    /// The same moment in ticks of the stream's clock.
    pub rtp_timestamp: u32,
    /// Sent since the stream began.
    pub packets: u32,
    /// Bytes of payload sent since the stream began, without headers and padding.
    pub octets: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SenderReport<'a> {
    pub info: SenderInfo,
    pub reports: ReportBlocks<'a>,
}

impl<'a> SenderReport<'a> {
    pub(super) fn read(count: u8, body: &'a [u8]) -> Option<Self> {
        let (info, rest) = body.split_first_chunk::<24>()?;
        let word = |at: usize| u32::from_be_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        let info = SenderInfo {
            ssrc: word(0),
            ntp: NtpTime(u64::from(word(4)) << 32 | u64::from(word(8))),
            rtp_timestamp: word(12),
            packets: word(16),
            octets: word(20),
        };
        Some(SenderReport { info, reports: ReportBlocks::read(count, rest)? })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub ssrc: u32,
    pub reports: ReportBlocks<'a>,
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn read(count: u8, body: &'a [u8]) -> Option<Self> {
        let (ssrc, rest) = body.split_first_chunk()?;
        Some(ReceiverReport { ssrc: u32::from_be_bytes(*ssrc), reports: ReportBlocks::read(count, rest)? })
    }
}

/// What a receiver says of one stream (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The stream.
    pub ssrc: u32,
    /// Lost since the report before, in 1/256 of what was expected.
    pub fraction_lost: u8,
    /// Lost since the stream began; negative when duplicates outnumber losses. 24 bits on the wire.
    pub packets_lost: i32,
    /// The highest sequence number received, with the receiver's count of rollovers above it.
    pub highest_sequence: u32,
    /// In ticks of the stream's clock.
    pub jitter: u32,
    /// The middle of the NTP time in the last sender report that arrived; zero before the first.
    pub last_sender_report: u32,
    /// Since that report arrived, in 1/65536 s.
    pub delay: u32,
}

/// Iterates over the blocks of a report, at most 31.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReportBlocks<'a> {
    rest: &'a [u8],
}

impl<'a> ReportBlocks<'a> {
    /// Profile-specific extensions may follow the blocks; nobody uses them.
    fn read(count: u8, rest: &'a [u8]) -> Option<Self> {
        Some(ReportBlocks { rest: rest.get(..usize::from(count) * REPORT_BLOCK_LEN)? })
    }
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.rest.split_first_chunk::<REPORT_BLOCK_LEN>()?;
        self.rest = rest;
        let word = |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        Some(ReportBlock {
            ssrc: word(0),
            fraction_lost: block[4],
            // Shifted to the top and back, for the sign.
            packets_lost: (word(4) << 8) as i32 >> 8,
            highest_sequence: word(8),
            jitter: word(12),
            last_sender_report: word(16),
            delay: word(20),
        })
    }
}

/// Streams end (RFC 3550 §6.6). Not that the participant leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goodbye<'a> {
    pub ssrcs: Ssrcs<'a>,
}

impl<'a> Goodbye<'a> {
    pub(super) fn read(count: u8, body: &'a [u8]) -> Option<Self> {
        Some(Goodbye { ssrcs: Ssrcs { rest: body.get(..usize::from(count) * 4)? } })
    }
}

/// Iterates over a list of SSRCs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ssrcs<'a> {
    pub(super) rest: &'a [u8],
}

impl Iterator for Ssrcs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (ssrc, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u32::from_be_bytes(*ssrc))
    }
}

/// Appends a sender report without report blocks: what we receive is reported on by str0m.
pub fn write_sender_report(out: &mut Vec<u8>, info: &SenderInfo) {
    let mut writer = Writer::new(out, SENDER_REPORT, 0);
    writer.word(info.ssrc);
    writer.bytes(&info.ntp.0.to_be_bytes());
    writer.word(info.rtp_timestamp);
    writer.word(info.packets);
    writer.word(info.octets);
    writer.finish();
}

/// Appends a receiver report of the first 31 `blocks`.
pub fn write_receiver_report(out: &mut Vec<u8>, ssrc: u32, blocks: &[ReportBlock]) {
    let blocks = &blocks[..blocks.len().min(MAX_COUNT)];
    let mut writer = Writer::new(out, RECEIVER_REPORT, blocks.len() as u8);
    writer.word(ssrc);
    for block in blocks {
        writer.word(block.ssrc);
        let packets_lost = block.packets_lost.clamp(-(1 << 23), (1 << 23) - 1) as u32;
        writer.word(u32::from(block.fraction_lost) << 24 | packets_lost & 0xff_ffff);
        writer.word(block.highest_sequence);
        writer.word(block.jitter);
        writer.word(block.last_sender_report);
        writer.word(block.delay);
    }
    writer.finish();
}

/// Appends a source description with the canonical name of one stream's sender, cut to 255 bytes: receivers synchronise
/// streams of the same name (RFC 3550 §6.5.1).
pub fn write_cname(out: &mut Vec<u8>, ssrc: u32, cname: &str) {
    let len = (0..=cname.len().min(255)).rev().find(|at| cname.is_char_boundary(*at)).unwrap_or(0);
    let cname = &cname[..len];
    let mut writer = Writer::new(out, SOURCE_DESCRIPTION, 1);
    writer.word(ssrc);
    writer.bytes(&[ITEM_CNAME, cname.len() as u8]);
    writer.bytes(cname.as_bytes());
    // At least one zero byte ends the list of items.
    writer.bytes(&[0]);
    writer.finish();
}

/// Appends a goodbye for the first 31 `ssrcs`, without a reason.
pub fn write_goodbye(out: &mut Vec<u8>, ssrcs: &[u32]) {
    let ssrcs = &ssrcs[..ssrcs.len().min(MAX_COUNT)];
    let mut writer = Writer::new(out, GOODBYE, ssrcs.len() as u8);
    for ssrc in ssrcs {
        writer.word(*ssrc);
    }
    writer.finish();
}
