//! RTCP (RFC 3550 §6, feedback of RFC 4585 and RFC 5104): what receivers tell us about what we send, and what we tell them.
//!
//! [`packets`] reads a decrypted datagram, compound or reduced-size (RFC 5506), without allocating; a hostile one costs at
//! most the time to walk over its bytes and 65,535 arrivals. The `write` functions append one packet each to a buffer: called
//! one after another they make a compound packet, which begins with a report (RFC 3550 §6.1). The egress reads and writes
//! with it, load generator and tests play the other end.

mod feedback;
mod report;
#[cfg(test)]
mod tests;

pub use feedback::{
    FullIntraRequest, FullIntraRequests, LostSequences, Nack, PictureLoss, RemoteBitrate, write_full_intra_request,
    write_nack, write_picture_loss, write_remote_bitrate,
};
pub use report::{
    Goodbye, ReceiverReport, ReportBlock, ReportBlocks, SenderInfo, SenderReport, Ssrcs, write_cname, write_goodbye,
    write_receiver_report, write_sender_report,
};

use super::twcc;

const VERSION: u8 = 2;
const PADDING: u8 = 0x20;
/// The low bits of the first byte: a number of blocks, or the format of feedback.
const COUNT: u8 = 0x1f;
const HEADER_LEN: usize = 4;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// RTPFB, transport layer feedback (RFC 4585 §6.2).
pub(super) const TRANSPORT_FEEDBACK: u8 = 205;
/// PSFB, payload-specific feedback (RFC 4585 §6.3).
const PAYLOAD_FEEDBACK: u8 = 206;

/// Packets that the transport-wide feedback in one datagram may report on. An honest report, sent several times a second, is
/// about hundreds. Runs of lost packets are so short to write that a datagram could ask for millions of steps.
const MAX_ARRIVALS: u16 = u16::MAX;

const FORMAT_NACK: u8 = 1;
pub(super) const FORMAT_TRANSPORT_WIDE: u8 = 15;
const FORMAT_PICTURE_LOSS: u8 = 1;
const FORMAT_FULL_INTRA_REQUEST: u8 = 4;
const FORMAT_APPLICATION: u8 = 15;

/// Whether a datagram that shares its port with RTP is RTCP (RFC 5761 §4). True for encrypted ones too.
pub fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [first, 192..=223, ..] if first >> 6 == VERSION)
}

/// A packet that somebody here acts upon. Kinds that nobody does are skipped: source descriptions, application-defined
/// packets, extended reports, and feedback of other formats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Packet<'a> {
    SenderReport(SenderReport<'a>),
    ReceiverReport(ReceiverReport<'a>),
    Goodbye(Goodbye<'a>),
    Nack(Nack<'a>),
    PictureLoss(PictureLoss),
    FullIntraRequest(FullIntraRequest<'a>),
    RemoteBitrate(RemoteBitrate<'a>),
    TransportWide(twcc::Feedback<'a>),
}

/// The packets in a datagram.
pub fn packets(datagram: &[u8]) -> Packets<'_> {
    Packets { rest: datagram, malformed: 0, arrivals_left: MAX_ARRIVALS }
}

/// See [`packets`].
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    rest: &'a [u8],
    malformed: u32,
    arrivals_left: u16,
}

impl Packets<'_> {
    /// Packets so far that were left out because their content contradicts itself, or goes on about more arrivals than one
    /// datagram may. Bytes after a wrong length or version count as one.
    pub fn malformed(&self) -> u32 {
        self.malformed
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        while !self.rest.is_empty() {
            let Some((kind, count, body, rest)) = split(self.rest) else {
                self.rest = &[];
                self.malformed += 1;
                break;
            };
            self.rest = rest;
            match read(kind, count, body).and_then(|packet| self.spend(packet)) {
                Ok(Some(packet)) => return Some(packet),
                Ok(None) => {}
                Err(Malformed) => self.malformed += 1,
            }
        }
        None
    }
}

impl Packets<'_> {
    fn spend<'a>(&mut self, packet: Option<Packet<'a>>) -> Result<Option<Packet<'a>>, Malformed> {
        if let Some(Packet::TransportWide(feedback)) = packet {
            self.arrivals_left = self.arrivals_left.checked_sub(feedback.count).ok_or(Malformed)?;
        }
        Ok(packet)
    }
}

/// The first packet as (type, count or format, what follows the header without padding), and what follows the packet.
fn split(bytes: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let (&[first, kind, high, low], _) = bytes.split_first_chunk::<HEADER_LEN>()?;
    if first >> 6 != VERSION {
        return None;
    }
    let len = HEADER_LEN + 4 * usize::from(u16::from_be_bytes([high, low]));
    let (packet, rest) = bytes.split_at_checked(len)?;
    let mut body = &packet[HEADER_LEN..];
    if first & PADDING != 0 {
        let padding = usize::from(*body.last()?);
        if padding == 0 {
            return None;
        }
        body = &body[..body.len().checked_sub(padding)?];
    }
    Some((kind, first & COUNT, body, rest))
}

/// A packet whose counts promise more than there is, or than is accepted.
struct Malformed;

fn read(kind: u8, count: u8, body: &[u8]) -> Result<Option<Packet<'_>>, Malformed> {
    let packet = match (kind, count) {
        (SENDER_REPORT, _) => SenderReport::read(count, body).map(Packet::SenderReport),
        (RECEIVER_REPORT, _) => ReceiverReport::read(count, body).map(Packet::ReceiverReport),
        (GOODBYE, _) => Goodbye::read(count, body).map(Packet::Goodbye),
        (TRANSPORT_FEEDBACK, FORMAT_NACK) => Nack::read(body).map(Packet::Nack),
        (TRANSPORT_FEEDBACK, FORMAT_TRANSPORT_WIDE) => twcc::Feedback::read(body).map(Packet::TransportWide),
        (PAYLOAD_FEEDBACK, FORMAT_PICTURE_LOSS) => PictureLoss::read(body).map(Packet::PictureLoss),
        (PAYLOAD_FEEDBACK, FORMAT_FULL_INTRA_REQUEST) => FullIntraRequest::read(body).map(Packet::FullIntraRequest),
        (PAYLOAD_FEEDBACK, FORMAT_APPLICATION) if !RemoteBitrate::is_one(body) => return Ok(None),
        (PAYLOAD_FEEDBACK, FORMAT_APPLICATION) => RemoteBitrate::read(body).map(Packet::RemoteBitrate),
        _ => return Ok(None),
    };
    packet.map(Some).ok_or(Malformed)
}

/// Sender and media SSRC, with which all feedback begins (RFC 4585 §6.1), and what follows.
pub(super) fn read_feedback(body: &[u8]) -> Option<(u32, u32, &[u8])> {
    let (&[a, b, c, d, e, f, g, h], rest) = body.split_first_chunk()?;
    Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]), rest))
}

/// A packet being appended. Filled up to whole words with zeros, and its length written, at the end.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut Vec<u8>, kind: u8, count: u8) -> Self {
        let start = out.len();
        out.extend_from_slice(&[VERSION << 6 | count & COUNT, kind, 0, 0]);
        Writer { out, start }
    }

    /// Begins a packet of feedback with its two SSRCs.
    pub(super) fn feedback(out: &'a mut Vec<u8>, kind: u8, format: u8, sender: u32, media: u32) -> Self {
        let mut writer = Writer::new(out, kind, format);
        writer.word(sender);
        writer.word(media);
        writer
    }

    pub(super) fn word(&mut self, word: u32) {
        self.bytes(&word.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn finish(self) {
        let len = (self.out.len() - self.start).next_multiple_of(4);
        self.out.resize(self.start + len, 0);
        let words = (len / 4 - 1) as u16;
        self.out[self.start + 2..][..2].copy_from_slice(&words.to_be_bytes());
    }
}
