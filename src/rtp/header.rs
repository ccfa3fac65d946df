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
            Some(form) => Extensions { form, rest: self.elements, cut: false },
            None => Extensions { form: Form::OneByte, rest: &[], cut: false },
        }
    }
}

/// See [`Packet::extensions`].
#[derive(Debug, Clone)]
pub struct Extensions<'a> {
    form: Form,
    rest: &'a [u8],
    cut: bool,
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
    /// Whether it ended at an element that is cut short or reserved.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    fn end<T>(&mut self) -> Option<T> {
        self.rest = &[];
        self.cut = true;
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc_shared::marshal::Unmarshal;

    use super::*;

    const HEADER: Header =
        Header { marker: true, payload_type: 96, sequence: 0x1234, timestamp: 0x5566_7788, ssrc: 0x99aa_bbcc };

    #[test]
    fn writes_the_fixed_header() {
        let mut bytes = vec![7];
        assert_eq!(HeaderWriter::new(&mut bytes, HEADER, Form::OneByte).finish(), 12);
        assert_eq!(bytes, [7, 0x80, 0xe0, 0x12, 0x34, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc]);
    }

    #[test]
    fn writes_both_forms() {
        let mut bytes = vec![7];
        let mut writer = HeaderWriter::new(&mut bytes, HEADER, Form::OneByte);
        assert_eq!(writer.element(4, b"mid"), Some(17));
        assert_eq!(writer.reserve(3, 2), Some(21));
        assert_eq!(writer.finish(), 24);
        assert_eq!(bytes[1], 0x90);
        assert_eq!(bytes[13..], [0xbe, 0xde, 0, 2, 0x42, b'm', b'i', b'd', 0x31, 0, 0, 0]);

        let mut bytes = Vec::new();
        let mut writer = HeaderWriter::new(&mut bytes, HEADER, Form::TwoByte);
        assert_eq!(writer.element(4, &[]), Some(18));
        assert_eq!(writer.element(200, &[1; 17]), Some(20));
        assert_eq!(writer.finish(), 40);
        assert_eq!(bytes[12..21], [0x10, 0, 0, 6, 4, 0, 200, 17, 1]);
        assert_eq!(bytes[37..], [0, 0, 0]);
    }

    #[test]
    fn refuses_what_the_form_cannot_say() {
        for (form, id, len, fits) in [
            (Form::OneByte, 1, 1, true),
            (Form::OneByte, 14, 16, true),
            (Form::OneByte, 14, 17, false),
            (Form::OneByte, 14, 0, false),
            (Form::OneByte, 15, 1, false),
            (Form::OneByte, 0, 1, false),
            (Form::TwoByte, 255, 255, true),
            (Form::TwoByte, 1, 0, true),
            (Form::TwoByte, 1, 256, false),
            (Form::TwoByte, 0, 1, false),
        ] {
            let mut bytes = Vec::new();
            let mut writer = HeaderWriter::new(&mut bytes, HEADER, form);
            assert_eq!(writer.reserve(id, len).is_some(), fits, "{form:?} {id} {len}");
            assert_eq!(writer.finish() > 12, fits);
            assert_eq!(Packet::parse(&bytes).unwrap().extensions().count(), usize::from(fits));
            assert_eq!(form.with(id, len) == form, fits || form == Form::TwoByte);
        }
    }

    #[test]
    fn refuses_more_elements_than_the_length_can_say() {
        let mut bytes = Vec::new();
        let mut writer = HeaderWriter::new(&mut bytes, HEADER, Form::TwoByte);
        while writer.reserve(1, 255).is_some() {}
        let len = writer.finish();
        assert!((261_000..=12 + 4 + 4 * 65_535).contains(&len), "{len}");
        assert_eq!(Packet::parse(&bytes).expect("a packet").header_len, len);
    }

    #[test]
    fn reads_contributors_padding_and_foreign_extensions() {
        let mut bytes = vec![0xb2, 0x60, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5];
        bytes.extend([0x12, 0x34, 0, 1, 0x10, 9, 0, 0]);
        bytes.extend(b"payload\0\0\x03");
        let packet = Packet::parse(&bytes).expect("a packet");
        assert_eq!(packet.header_len, 28);
        assert_eq!(packet.header, Header { marker: false, payload_type: 96, sequence: 1, timestamp: 2, ssrc: 3 });
        assert_eq!(packet.extensions().count(), 0, "of an unknown profile");
        assert_eq!(packet.payload(), Some(&b"payload"[..]));
        for (last, expected) in [(10, Some(&b""[..])), (11, None), (0, None)] {
            *bytes.last_mut().unwrap() = last;
            assert_eq!(Packet::parse(&bytes).unwrap().payload(), expected);
        }
        for len in 0..28 {
            assert_eq!(Packet::parse(&bytes[..len]), None, "cut to {len}");
        }
        assert_eq!(Packet::parse(&bytes[..28]).unwrap().payload(), None, "padding without a byte");
        bytes[0] = 0x72;
        assert_eq!(Packet::parse(&bytes), None, "version 1");
    }

    #[test]
    fn stops_where_elements_end() {
        let parse = |profile: [u8; 2], elements: [u8; 8]| {
            let fixed = [0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
            let bytes = [&fixed[..], &profile, &[0, 2], &elements].concat();
            let packet = Packet::parse(&bytes).expect("a packet");
            packet.extensions().map(|(id, value)| (id, value.to_vec())).collect::<Vec<_>>()
        };
        let one_byte = |elements| parse([0xbe, 0xde], elements);
        let two_byte = |elements| parse([0x10, 0x05], elements);
        assert_eq!(one_byte([0, 0x10, 7, 0, 0, 0x21, 8, 9]), [(1, vec![7]), (2, vec![8, 9])]);
        assert_eq!(one_byte([0x10, 7, 0xf0, 1, 0x20, 8, 0, 0]), [(1, vec![7])], "reserved id");
        assert_eq!(one_byte([0x10, 7, 0x01, 1, 0x20, 8, 0, 0]), [(1, vec![7])], "padding with a length");
        assert_eq!(one_byte([0x10, 7, 0x2f, 1, 1, 1, 1, 1]), [(1, vec![7])], "cut short");
        assert_eq!(two_byte([0, 1, 0, 15, 2, 8, 9, 0]), [(1, vec![]), (15, vec![8, 9])]);
        assert_eq!(two_byte([1, 1, 7, 2, 4, 1, 1, 1]), [(1, vec![7])], "cut short");
        assert_eq!(two_byte([1, 5, 7, 7, 7, 7, 7, 2]), [(1, vec![7; 5])], "an id without a length");
    }

    fn elements() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
        let len = prop_oneof![8 => 1usize..=16, 1 => 0usize..60];
        let element = (1u8..=14, len).prop_flat_map(|(id, len)| (Just(id), prop::collection::vec(any::<u8>(), len)));
        prop::collection::vec(element, 0..8).prop_map(|mut elements| {
            elements.sort_by_key(|element| element.0);
            elements.dedup_by_key(|element| element.0);
            elements
        })
    }

    proptest! {
        #[test]
        fn is_read_by_us_and_by_others(
            elements in elements(),
            (marker, payload_type, sequence, timestamp, ssrc) in (any::<bool>(), 0u8..128, any::<u16>(), any::<u32>(), any::<u32>()),
            payload in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let header = Header { marker, payload_type, sequence, timestamp, ssrc };
            let form = elements.iter().fold(Form::OneByte, |form, (id, value)| form.with(*id, value.len()));
            let mut bytes = Vec::new();
            let mut writer = HeaderWriter::new(&mut bytes, header, form);
            let mut reserved = Vec::new();
            for (at, (id, value)) in elements.iter().enumerate() {
                if at % 2 == 0 {
                    writer.element(*id, value).expect("a form that fits");
                } else {
                    reserved.push((writer.reserve(*id, value.len()).expect("a form that fits"), value));
                }
            }
            let header_len = writer.finish();
            for (at, value) in reserved {
                bytes[at..at + value.len()].copy_from_slice(value);
            }
            bytes.extend(&payload);

            let packet = Packet::parse(&bytes).expect("a packet");
            prop_assert_eq!(packet.header, header);
            prop_assert_eq!(packet.header_len, header_len);
            prop_assert_eq!(packet.payload(), Some(&payload[..]));
            let read: Vec<_> = packet.extensions().map(|(id, value)| (id, value.to_vec())).collect();
            prop_assert_eq!(&read, &elements);
            for (id, value) in &elements {
                prop_assert_eq!(packet.extension(*id), Some(&value[..]));
            }
            prop_assert_eq!(packet.extension(99), None);

            let mut rest = &bytes[..];
            let others = rtc_rtp::Header::unmarshal(&mut rest).expect("a header");
            prop_assert_eq!(rest, &payload[..]);
            prop_assert_eq!((others.marker, others.payload_type, others.sequence_number), (marker, payload_type, sequence));
            prop_assert_eq!((others.timestamp, others.ssrc), (timestamp, ssrc));
            let read: Vec<_> = others.extensions.iter().map(|element| (element.id, element.payload.to_vec())).collect();
            prop_assert_eq!(read, elements);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.header_len <= bytes.len());
                prop_assert!(packet.extensions().all(|(_, value)| value.len() <= bytes.len()));
                prop_assert!(packet.payload().is_none_or(|payload| payload.len() <= bytes.len() - packet.header_len));
            }
        }
    }
}
