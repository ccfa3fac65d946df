//! Feedback of receivers: lost packets, wanted key frames, and the bitrate that they think they can take.

use super::{
    FORMAT_APPLICATION, FORMAT_FULL_INTRA_REQUEST, FORMAT_NACK, FORMAT_PICTURE_LOSS, PAYLOAD_FEEDBACK, Ssrcs,
    TRANSPORT_FEEDBACK, Writer, read_feedback,
};

/// A generic NACK (RFC 4585 §6.2.1): packets that `sender` wants again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nack<'a> {
    pub sender: u32,
    /// The stream that the packets belong to.
    pub media: u32,
    /// At most 17 for each four bytes of the packet, in the order of the packet.
    pub lost: LostSequences<'a>,
}

impl<'a> Nack<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (sender, media, entries) = read_feedback(body)?;
        let whole = !entries.is_empty() && entries.len() % 4 == 0;
        whole.then_some(Nack { sender, media, lost: LostSequences { entries, next: 0, following: 0 } })
    }
}

/// Iterates over the sequence numbers of a [`Nack`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LostSequences<'a> {
    entries: &'a [u8],
    /// The number that bit 0 of `following` stands for.
    next: u16,
    following: u16,
}

impl Iterator for LostSequences<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.following == 0 {
            let (&[id_high, id_low, mask_high, mask_low], rest) = self.entries.split_first_chunk()?;
            self.entries = rest;
            let id = u16::from_be_bytes([id_high, id_low]);
            self.following = u16::from_be_bytes([mask_high, mask_low]);
            self.next = id.wrapping_add(1);
            return Some(id);
        }
        let skipped = self.following.trailing_zeros();
        let lost = self.next.wrapping_add(skipped as u16);
        self.next = lost.wrapping_add(1);
        // Twice, because a shift by 16 is none.
        self.following = self.following >> skipped >> 1;
        Some(lost)
    }
}

/// `sender` cannot decode and wants a key frame (RFC 4585 §6.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureLoss {
    pub sender: u32,
    /// The stream.
    pub media: u32,
}

impl PictureLoss {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let (sender, media, _) = read_feedback(body)?;
        Some(PictureLoss { sender, media })
    }
}

/// `sender` wants key frames of the streams in `requests` (RFC 5104 §4.3.1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FullIntraRequest<'a> {
    pub sender: u32,
    pub requests: FullIntraRequests<'a>,
}

impl<'a> FullIntraRequest<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (sender, _, entries) = read_feedback(body)?;
        let whole = !entries.is_empty() && entries.len() % 8 == 0;
        whole.then_some(FullIntraRequest { sender, requests: FullIntraRequests { entries } })
    }
}

/// Iterates over (SSRC, number of the request). The same number again is the same request, repeated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FullIntraRequests<'a> {
    entries: &'a [u8],
}

impl Iterator for FullIntraRequests<'_> {
    type Item = (u32, u8);

    fn next(&mut self) -> Option<(u32, u8)> {
        let (&[a, b, c, d, number, ..], rest) = self.entries.split_first_chunk::<8>()?;
        self.entries = rest;
        Some((u32::from_be_bytes([a, b, c, d]), number))
    }
}

const REMB: [u8; 4] = *b"REMB";

/// A receiver's estimate of the bitrate that it can take in all (draft-alvestrand-rmcat-remb §2.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RemoteBitrate<'a> {
    pub sender: u32,
    /// Bits per second; the largest number there is when the packet says more.
    pub bitrate: u64,
    /// The streams that it was estimated from.
    pub ssrcs: Ssrcs<'a>,
}

impl<'a> RemoteBitrate<'a> {
    /// Tells it from other application layer feedback.
    pub(super) fn is_one(body: &[u8]) -> bool {
        body.get(8..12) == Some(&REMB[..])
    }

    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (sender, _, rest) = read_feedback(body)?;
        let (&[_, _, _, _, count, high, middle, low], rest) = rest.split_first_chunk()?;
        let mantissa = u64::from(u32::from_be_bytes([0, high & 0x03, middle, low]));
        let exponent = u32::from(high >> 2);
        let fits = mantissa.leading_zeros() >= exponent;
        let bitrate = if fits { mantissa << exponent } else { u64::MAX };
        Some(RemoteBitrate { sender, bitrate, ssrcs: Ssrcs { rest: rest.get(..usize::from(count) * 4)? } })
    }
}

/// Appends NACKs for the packets in `lost`, given in rising order (numbers wrap); nothing when there are none.
pub fn write_nack(out: &mut Vec<u8>, sender: u32, media: u32, lost: impl IntoIterator<Item = u16>) {
    let mut lost = lost.into_iter();
    let Some(mut id) = lost.next() else {
        return;
    };
    let mut writer = Writer::feedback(out, TRANSPORT_FEEDBACK, FORMAT_NACK, sender, media);
    let mut following = 0u16;
    for sequence in lost {
        match sequence.wrapping_sub(id) {
            0 => {}
            distance @ 1..=16 => following |= 1 << (distance - 1),
            _ => {
                writer.word(u32::from(id) << 16 | u32::from(following));
                (id, following) = (sequence, 0);
            }
        }
    }
    writer.word(u32::from(id) << 16 | u32::from(following));
    writer.finish();
}

/// Appends a picture loss indication.
pub fn write_picture_loss(out: &mut Vec<u8>, sender: u32, media: u32) {
    Writer::feedback(out, PAYLOAD_FEEDBACK, FORMAT_PICTURE_LOSS, sender, media).finish();
}

/// Appends a full intra request for each (SSRC, number of the request).
pub fn write_full_intra_request(out: &mut Vec<u8>, sender: u32, requests: &[(u32, u8)]) {
    // The streams are named in the entries, the header's place for one stays empty (RFC 5104 §4.3.1.2).
    let mut writer = Writer::feedback(out, PAYLOAD_FEEDBACK, FORMAT_FULL_INTRA_REQUEST, sender, 0);
    for (ssrc, number) in requests {
        writer.word(*ssrc);
        writer.word(u32::from(*number) << 24);
    }
    writer.finish();
}

/// Appends an estimate of `bitrate` bits per second, cut to 18 significant bits, from the first 255 `ssrcs`.
pub fn write_remote_bitrate(out: &mut Vec<u8>, sender: u32, bitrate: u64, ssrcs: &[u32]) {
    let ssrcs = &ssrcs[..ssrcs.len().min(255)];
    let exponent = (64 - bitrate.leading_zeros()).saturating_sub(18);
    let mut writer = Writer::feedback(out, PAYLOAD_FEEDBACK, FORMAT_APPLICATION, sender, 0);
    writer.bytes(&REMB);
    writer.word((ssrcs.len() as u32) << 24 | exponent << 18 | (bitrate >> exponent) as u32);
    for ssrc in ssrcs {
        writer.word(*ssrc);
    }
    writer.finish();
}
