//! The header of an RTP packet (RFC 3550 §5.1) and its extension elements (RFC 8285).
//!
//! [`HeaderWriter`] puts one in front of a payload that the egress is about to encrypt; it reserves the elements whose
//! value is known only when the packet leaves (transport-wide sequence number, send time). [`Packet`] reads one back: load
//! generator, tests, and whoever has to look at a packet that did not come through str0m.

const VERSION: u8 = 2;
const FIXED_LEN: usize = 12;
const PADDING: u8 = 0x20;
const EXTENSION: u8 = 0x10;
const CSRC_COUNT: u8 = 0x0f;
const MARKER: u8 = 0x80;

const ONE_BYTE_PROFILE: u16 = 0xbede;
/// The low four bits are for applications (RFC 8285 §4.3).
const TWO_BYTE_PROFILE: u16 = 0x1000;
/// Reserved in the one-byte form: a reader stops there (RFC 8285 §4.2).
const ONE_BYTE_STOP: u8 = 15;

/// The fields of the fixed header that differ from packet to packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    pub marker: bool,
    /// 0..=127.
    pub payload_type: u8,
    pub sequence: u16,
    /// Ticks of the codec's clock.
    pub timestamp: u32,
    pub ssrc: u32,
}

/// How elements are written. All of a packet's have the same form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Ids 1..=14, values of 1..=16 bytes. Every receiver understands it.
    OneByte,
    /// Ids 1..=255, values of 0..=255 bytes. Only for receivers that negotiated `a=extmap-allow-mixed`.
    TwoByte,
}

impl Form {
    /// Whether a value of `len` bytes under `id` can be written in this form.
    pub fn fits(self, id: u8, len: usize) -> bool {
        match self {
            Form::OneByte => (1..ONE_BYTE_STOP).contains(&id) && (1..=16).contains(&len),
            Form::TwoByte => id != 0 && len <= 255,
        }
    }

    /// The form that also fits a value of `len` bytes under `id`: start with [`Form::OneByte`] and ask for each element
    /// that may be long, such as dependency descriptors.
    #[must_use]
    pub fn with(self, id: u8, len: usize) -> Form {
        if self.fits(id, len) { self } else { Form::TwoByte }
    }
}

/// Appends a header to a buffer. Nothing is allocated while the buffer's capacity lasts.
///
/// All positions are in bytes from the first byte of the header.
pub struct HeaderWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    form: Form,
}

impl<'a> HeaderWriter<'a> {
    pub fn new(out: &'a mut Vec<u8>, header: Header, form: Form) -> Self {
        let start = out.len();
        let mut fixed = [0; FIXED_LEN];
        fixed[0] = VERSION << 6;
        fixed[1] = header.payload_type & !MARKER | if header.marker { MARKER } else { 0 };
        fixed[2..4].copy_from_slice(&header.sequence.to_be_bytes());
        fixed[4..8].copy_from_slice(&header.timestamp.to_be_bytes());
        fixed[8..12].copy_from_slice(&header.ssrc.to_be_bytes());
        out.extend_from_slice(&fixed);
        HeaderWriter { out, start, form }
    }

    /// Adds an element and says where its value is. `None`, and nothing is written, when it does not
    /// [fit](Form::fits) the form, or all elements together would exceed the 256 KiB of the length field.
    pub fn element(&mut self, id: u8, value: &[u8]) -> Option<usize> {
        self.open(id, value.len())?;
        let at = self.out.len() - self.start;
        self.out.extend_from_slice(value);
        Some(at)
    }

    /// Adds an element of `len` zero bytes, to be filled in later at the position that is returned. Otherwise as
    /// [`element`](Self::element).
    pub fn reserve(&mut self, id: u8, len: usize) -> Option<usize> {
        self.open(id, len)?;
        let at = self.out.len() - self.start;
        self.out.resize(self.out.len() + len, 0);
        Some(at)
    }

    /// Ends the header; the payload goes behind it. Returns the header's length.
    pub fn finish(self) -> usize {
        let len = self.out.len() - self.start;
        if len == FIXED_LEN {
            return len;
        }
        let len = len.next_multiple_of(4);
        self.out.resize(self.start + len, 0);
        let words = ((len - FIXED_LEN - 4) / 4) as u16;
        self.out[self.start + 14..][..2].copy_from_slice(&words.to_be_bytes());
        len
    }

    /// Writes what goes before an element's value, and before the first element what goes before all of them.
    fn open(&mut self, id: u8, len: usize) -> Option<()> {
        let used = self.out.len() - self.start;
        let fits = self.form.fits(id, len) && used + 2 + len <= usize::from(u16::MAX) * 4;
        if !fits {
            return None;
        }
        if used == FIXED_LEN {
            self.out[self.start] |= EXTENSION;
            let profile = match self.form {
                Form::OneByte => ONE_BYTE_PROFILE,
                Form::TwoByte => TWO_BYTE_PROFILE,
            };
            self.out.extend_from_slice(&profile.to_be_bytes());
            self.out.extend_from_slice(&[0, 0]);
        }
        match self.form {
            Form::OneByte => self.out.push(id << 4 | (len - 1) as u8),
            Form::TwoByte => self.out.extend_from_slice(&[id, len as u8]),
        }
        Some(())
    }
}

/// A packet as received, encrypted or not: SRTP leaves the header clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    pub header: Header,
    /// Bytes in front of the payload.
    pub header_len: usize,
    /// The packet ends in padding. Where that starts can be told only of a decrypted packet: [`payload`](Self::payload).
    pub padded: bool,
    profile: u16,
    elements: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None` when it is not RTP version 2 or ends within the header. Any RTCP packet reads as RTP too; tell them apart
    /// first with [`rtcp::is_rtcp`](super::rtcp::is_rtcp).
    pub fn parse(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let (fixed, _) = bytes.split_first_chunk::<FIXED_LEN>()?;
        if fixed[0] >> 6 != VERSION {
            return None;
        }
        let header = Header {
            marker: fixed[1] & MARKER != 0,
            payload_type: fixed[1] & !MARKER,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
        };
        let mut header_len = FIXED_LEN + 4 * usize::from(fixed[0] & CSRC_COUNT);
        let (mut profile, mut elements) = (0, &[][..]);
        if fixed[0] & EXTENSION != 0 {
            let &[profile_high, profile_low, words_high, words_low] = bytes.get(header_len..)?.first_chunk()?;
            let len = 4 * usize::from(u16::from_be_bytes([words_high, words_low]));
            profile = u16::from_be_bytes([profile_high, profile_low]);
            elements = bytes.get(header_len + 4..header_len + 4 + len)?;
            header_len += 4 + len;
        }
        let rest = bytes.get(header_len..)?;
        Some(Packet { header, header_len, padded: fixed[0] & PADDING != 0, profile, elements, rest })
    }

    /// The payload without padding. Of a decrypted packet only; `None` when its padding is longer than what there is.
    pub fn payload(&self) -> Option<&'a [u8]> {
        if !self.padded {
            return Some(self.rest);
        }
        match *self.rest.last()? {
            0 => None,
            padding => self.rest.get(..self.rest.len().checked_sub(padding.into())?),
        }
    }

    /// The value of the first element with this id.
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        self.extensions().find(|element| element.0 == id).map(|element| element.1)
    }

    /// All elements as (id, value), up to the first that is cut short or reserved.
    pub fn extensions(&self) -> Extensions<'a> {
        let form = match self.profile {
            ONE_BYTE_PROFILE => Some(Form::OneByte),
            profile if profile & 0xfff0 == TWO_BYTE_PROFILE => Some(Form::TwoByte),
            _ => None,
        };
        match form {
            Some(form) => Extensions { form, rest: self.elements },
            None => Extensions { form: Form::OneByte, rest: &[] },
        }
    }
}

/// See [`Packet::extensions`].
#[derive(Debug, Clone)]
pub struct Extensions<'a> {
    form: Form,
    rest: &'a [u8],
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            let (id, len, rest) = match self.form {
                // An id without a length is one byte of padding, in both forms.
                _ if first == 0 => {
                    self.rest = rest;
                    continue;
                }
                Form::OneByte if matches!(first >> 4, 0 | ONE_BYTE_STOP) => return self.end(),
                Form::OneByte => (first >> 4, usize::from(first & 0x0f) + 1, rest),
                Form::TwoByte => match rest.split_first() {
                    Some((&len, rest)) => (first, usize::from(len), rest),
                    None => return self.end(),
                },
            };
            let Some((value, rest)) = rest.split_at_checked(len) else {
                return self.end();
            };
            self.rest = rest;
            return Some((id, value));
        }
    }
}

impl Extensions<'_> {
    fn end<T>(&mut self) -> Option<T> {
        self.rest = &[];
        None
    }
}
