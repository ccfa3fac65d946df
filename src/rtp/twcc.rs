//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): when each packet of
//! a connection, numbered across its streams, arrived.
//!
//! [`Feedback`] is read by the egress for its bandwidth estimate. [`write`] is for who receives: load generator and tests.

use super::rtcp::{self, Writer};

/// Of arrival times: 250 µs.
pub const TICKS_PER_SECOND: i64 = 4000;
/// A unit of the reference time, 64 ms.
const TICKS_PER_REFERENCE: i64 = 256;
const FIXED_LEN: usize = 8;

const IS_VECTOR: u16 = 0x8000;
const IS_TWO_BIT: u16 = 0x4000;
const MAX_RUN: usize = 0x1fff;
const ONE_BIT_STATUSES: usize = 14;
const TWO_BIT_STATUSES: usize = 7;

/// How a packet's arrival is told (§3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symbol {
    NotReceived = 0,
    /// One unsigned byte of ticks since the arrival before.
    SmallDelta = 1,
    /// Two signed bytes of ticks.
    LargeDelta = 2,
}

impl Symbol {
    fn read(bits: u16) -> Option<Symbol> {
        match bits & 3 {
            0 => Some(Symbol::NotReceived),
            1 => Some(Symbol::SmallDelta),
            2 => Some(Symbol::LargeDelta),
            _ => None,
        }
    }

    /// Bytes of its delta.
    fn delta_len(self) -> usize {
        self as usize
    }
}

/// One packet of feedback. Reading checked that all of its chunks and deltas are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feedback<'a> {
    pub sender: u32,
    /// The stream that the feedback is addressed to; says nothing about the packets, which are of all streams.
    pub media: u32,
    /// The transport-wide sequence number of the first packet.
    pub base_sequence: u16,
    /// How many packets are reported on, from the first.
    pub count: u16,
    /// What arrival times count from: in 64 ms since a moment of the receiver's choice, 24 bits that wrap.
    pub reference_time: u32,
    /// Counts packets of feedback, wrapping: a gap is a lost one.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> Feedback<'a> {
    /// Of what follows the RTCP header. `None` when a chunk or a delta is missing, or a status has no meaning.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (sender, media, rest) = rtcp::read_feedback(body)?;
        let (&[base_high, base_low, count_high, count_low, time @ .., feedback_count], rest) =
            rest.split_first_chunk::<FIXED_LEN>()?;
        let [high, middle, low] = time;
        let count = u16::from_be_bytes([count_high, count_low]);
        let (chunks_len, deltas_len) = measure(rest, count)?;
        Some(Feedback {
            sender,
            media,
            base_sequence: u16::from_be_bytes([base_high, base_low]),
            count,
            reference_time: u32::from_be_bytes([0, high, middle, low]),
            feedback_count,
            chunks: &rest[..chunks_len],
            deltas: rest.get(chunks_len..chunks_len + deltas_len)?,
        })
    }

    /// Each packet as (transport-wide sequence number, arrival in ticks of 250 µs since the reference time, or `None` when
    /// it did not arrive). At most 65,535; arrivals go back where packets were reordered, and may even be negative.
    pub fn arrivals(&self) -> Arrivals<'a> {
        Arrivals {
            sequence: self.base_sequence,
            left: self.count,
            chunks: self.chunks,
            chunk: 0,
            chunk_left: 0,
            deltas: self.deltas,
            time: 0,
        }
    }

    /// The reference time in ticks of 250 µs, to add to [`arrivals`](Self::arrivals). Wraps after 2³² of them.
    pub fn reference_ticks(&self) -> i64 {
        i64::from(self.reference_time) * TICKS_PER_REFERENCE
    }
}

/// Bytes of the chunks for `count` packets at the start of `bytes`, and of the deltas that they promise. Costs a step for
/// each chunk, not for each packet.
fn measure(bytes: &[u8], count: u16) -> Option<(usize, usize)> {
    let (mut left, mut chunks_len, mut deltas_len) = (usize::from(count), 0, 0);
    while left > 0 {
        let chunk = u16::from_be_bytes(*bytes.get(chunks_len..)?.first_chunk()?);
        chunks_len += 2;
        // A run of length zero says nothing; nobody writes one.
        let statuses = chunk_len(chunk).min(left);
        if statuses == 0 {
            return None;
        }
        left -= statuses;
        if chunk & IS_VECTOR == 0 {
            deltas_len += statuses * chunk_symbol(chunk, 0)?.delta_len();
        } else {
            for at in 0..statuses {
                deltas_len += chunk_symbol(chunk, at)?.delta_len();
            }
        }
    }
    Some((chunks_len, deltas_len))
}

/// How many packets a chunk is about.
fn chunk_len(chunk: u16) -> usize {
    match chunk & (IS_VECTOR | IS_TWO_BIT) {
        IS_VECTOR => ONE_BIT_STATUSES,
        flags if flags & IS_VECTOR != 0 => TWO_BIT_STATUSES,
        _ => usize::from(chunk) & MAX_RUN,
    }
}

/// The status of a chunk's packet number `at`.
fn chunk_symbol(chunk: u16, at: usize) -> Option<Symbol> {
    match chunk & (IS_VECTOR | IS_TWO_BIT) {
        IS_VECTOR => Symbol::read(chunk >> (ONE_BIT_STATUSES - 1 - at) & 1),
        flags if flags & IS_VECTOR != 0 => Symbol::read(chunk >> (2 * (TWO_BIT_STATUSES - 1 - at))),
        _ => Symbol::read(chunk >> 13),
    }
}

/// See [`Feedback::arrivals`].
#[derive(Debug, Clone)]
pub struct Arrivals<'a> {
    sequence: u16,
    left: u16,
    chunks: &'a [u8],
    chunk: u16,
    /// Packets of `chunk` still to come.
    chunk_left: usize,
    deltas: &'a [u8],
    time: i64,
}

impl Iterator for Arrivals<'_> {
    type Item = (u16, Option<i64>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        if self.chunk_left == 0 {
            let (chunk, rest) = self.chunks.split_first_chunk()?;
            self.chunks = rest;
            self.chunk = u16::from_be_bytes(*chunk);
            self.chunk_left = chunk_len(self.chunk);
        }
        let symbol = chunk_symbol(self.chunk, chunk_len(self.chunk) - self.chunk_left)?;
        self.chunk_left -= 1;
        let (delta, rest) = self.deltas.split_at_checked(symbol.delta_len())?;
        self.deltas = rest;
        let arrival = match *delta {
            [ticks] => Some(i64::from(ticks)),
            [high, low] => Some(i64::from(i16::from_be_bytes([high, low]))),
            _ => None,
        };
        self.time += arrival.unwrap_or(0);
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        Some((sequence, arrival.map(|_| self.time)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.into(), Some(self.left.into()))
    }
}

impl ExactSizeIterator for Arrivals<'_> {}

/// What [`write`] writes besides the arrivals; the fields are those of [`Feedback`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heading {
    pub sender: u32,
    pub media: u32,
    pub base_sequence: u16,
    pub reference_time: u32,
    pub feedback_count: u8,
}

/// Appends a packet of feedback about `arrivals`, the first of which is that of the base sequence number: for each packet
/// its arrival in ticks of 250 µs since the reference time, or `None` when it did not arrive.
///
/// Returns how many it wrote. Fewer than all when two arrivals lie more than 8 s apart, the most that a delta can say, or
/// there are more than 65,535: the rest belongs into the next packet.
pub fn write(out: &mut Vec<u8>, heading: &Heading, arrivals: &[Option<i64>]) -> usize {
    let arrivals = &arrivals[..writable(arrivals)];
    let mut writer = rtcp::Writer::feedback(
        out,
        rtcp::TRANSPORT_FEEDBACK,
        rtcp::FORMAT_TRANSPORT_WIDE,
        heading.sender,
        heading.media,
    );
    writer.word(u32::from(heading.base_sequence) << 16 | arrivals.len() as u32);
    writer.word(heading.reference_time << 8 | u32::from(heading.feedback_count));
    write_chunks(&mut writer, arrivals);
    for delta in deltas(arrivals).flatten() {
        match u8::try_from(delta) {
            Ok(small) => writer.bytes(&[small]),
            Err(_) => writer.bytes(&(delta as i16).to_be_bytes()),
        }
    }
    writer.finish();
    arrivals.len()
}

/// How many of the arrivals one packet can tell.
fn writable(arrivals: &[Option<i64>]) -> usize {
    let fits = |delta: &Option<i64>| delta.is_none_or(|delta| i16::try_from(delta).is_ok());
    deltas(arrivals).take(u16::MAX.into()).take_while(fits).count()
}

/// For each packet that arrived, the ticks since the one before it in the order of sequence numbers.
fn deltas(arrivals: &[Option<i64>]) -> impl Iterator<Item = Option<i64>> + Clone {
    arrivals.iter().scan(0, |before, arrival| {
        Some(arrival.map(|arrival| {
            let delta = arrival.saturating_sub(*before);
            *before = arrival;
            delta
        }))
    })
}

/// Takes the chunk that tells most packets in its two bytes, over and over.
fn write_chunks(writer: &mut Writer<'_>, arrivals: &[Option<i64>]) {
    let mut symbols = deltas(arrivals).map(|delta| match delta {
        None => Symbol::NotReceived,
        Some(0..=255) => Symbol::SmallDelta,
        Some(_) => Symbol::LargeDelta,
    });
    let mut left = arrivals.len();
    while let Some(first) = symbols.clone().next() {
        let run = symbols.clone().take(MAX_RUN).take_while(|symbol| *symbol == first).count();
        let one_bit = !symbols.clone().take(ONE_BIT_STATUSES).any(|symbol| symbol == Symbol::LargeDelta);
        let vector_len = if one_bit { ONE_BIT_STATUSES } else { TWO_BIT_STATUSES }.min(left);
        let (chunk, len) = if run >= vector_len {
            ((first as u16) << 13 | run as u16, run)
        } else if one_bit {
            (IS_VECTOR | vector(symbols.clone(), ONE_BIT_STATUSES, 1), vector_len)
        } else {
            (IS_VECTOR | IS_TWO_BIT | vector(symbols.clone(), TWO_BIT_STATUSES, 2), vector_len)
        };
        writer.bytes(&chunk.to_be_bytes());
        symbols.by_ref().take(len).for_each(drop);
        left -= len;
    }
}

/// The first `len` symbols in `bits` bits each, the first on top; "not received" where there are fewer.
fn vector(symbols: impl Iterator<Item = Symbol>, len: usize, bits: u32) -> u16 {
    let symbols = symbols.chain(std::iter::repeat(Symbol::NotReceived));
    symbols.take(len).fold(0, |vector, symbol| vector << bits | symbol as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc_rtcp::packet::{self as other, Packet as _};
    use rtc_rtcp::transport_feedbacks::transport_layer_cc::{
        PacketStatusChunk, StatusChunkTypeTcc, SymbolTypeTcc, TYPE_TCC_DELTA_SCALE_FACTOR, TransportLayerCc,
    };

    use super::*;
    use crate::rtp::rtcp::{Packet, packets};

    const HEADING: Heading =
        Heading { sender: 1, media: 2, base_sequence: 0xfffe, reference_time: 0x00ab_cdef, feedback_count: 7 };

    fn read(bytes: &[u8]) -> Feedback<'_> {
        match packets(bytes).next() {
            Some(Packet::TransportWide(feedback)) => feedback,
            other => panic!("{other:?} instead of feedback"),
        }
    }

    fn arrivals(bytes: &[u8]) -> Vec<Option<i64>> {
        read(bytes).arrivals().map(|(_, arrival)| arrival).collect()
    }

    /// A packet around chunks and deltas.
    fn feedback(count: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 9];
        bytes.extend(count.to_be_bytes());
        bytes.extend([0, 0, 1, 0]);
        bytes.extend(rest);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes[3] = (bytes.len() / 4 - 1) as u8;
        bytes
    }

    #[test]
    fn reads_every_chunk() {
        for (count, rest, expected) in [
            // A run of three small deltas.
            (3, &[0x20, 3, 4, 0, 255][..], vec![Some(4), Some(4), Some(259)]),
            // A run longer than the count.
            (1, &[0x20, 3, 4], vec![Some(4)]),
            // One bit each: lost, received, then to the end of the count lost.
            (3, &[0x90, 0, 8], vec![None, Some(8), None]),
            // Two bits each: large, lost, small.
            (3, &[0xe1, 0x00, 0xff, 0xff, 3], vec![Some(-1), None, Some(2)]),
            (2, &[0x00, 2], vec![None, None]),
            (0, &[], vec![]),
        ] {
            let bytes = feedback(count, rest);
            assert_eq!(arrivals(&bytes), expected, "{rest:x?}");
            assert_eq!(read(&bytes).base_sequence, 9);
            assert_eq!(read(&bytes).reference_ticks(), 256);
        }
    }

    #[test]
    fn refuses_what_is_not_whole() {
        for (count, rest, what) in [
            (1, &[][..], "no chunk"),
            (15, &[0x80, 0], "one chunk of two"),
            (8, &[0x20, 8, 1, 2, 3], "three deltas of eight"),
            (4, &[0xd5, 0, 1, 1], "two deltas of four"),
            (65_535, &[0x3f, 0xff, 0, 0], "forged count"),
            (5, &[0x00, 0, 0, 5], "empty run"),
            (1, &[0x60, 1, 0, 0], "a run without meaning"),
            (1, &[0xf0, 0, 0, 0], "a status without meaning"),
        ] {
            let bytes = feedback(count, rest);
            let mut found = packets(&bytes);
            assert_eq!((found.next(), found.malformed()), (None, 1), "{what}");
        }
    }

    /// 36 bytes can speak of all the numbers there are, not of more.
    #[test]
    fn the_largest_count_is_the_most_work() {
        let bytes = feedback(65_535, &[0x1f, 0xff].repeat(9));
        assert_eq!(read(&bytes).arrivals().len(), 65_535);
        assert_eq!(arrivals(&bytes), vec![None; 65_535]);
    }

    #[test]
    fn a_datagram_of_large_counts_is_cut() {
        let bytes = feedback(30_000, &[0x1f, 0xff].repeat(4)).repeat(20);
        let mut found = packets(&bytes);
        assert_eq!(found.by_ref().count(), 2);
        assert_eq!(found.malformed(), 18);
    }

    #[test]
    fn wraps_around() {
        let mut bytes = Vec::new();
        assert_eq!(write(&mut bytes, &HEADING, &[Some(-5), None, Some(1000), Some(999)]), 4);
        let feedback = read(&bytes);
        assert_eq!((feedback.sender, feedback.media, feedback.count), (1, 2, 4));
        assert_eq!((feedback.reference_time, feedback.feedback_count), (0x00ab_cdef, 7));
        let found: Vec<_> = feedback.arrivals().collect();
        assert_eq!(found, [(0xfffe, Some(-5)), (0xffff, None), (0, Some(1000)), (1, Some(999))]);
    }

    #[test]
    fn leaves_the_rest_for_the_next() {
        let mut bytes = Vec::new();
        assert_eq!(write(&mut bytes, &HEADING, &[Some(0), None, Some(32_767), None, Some(65_535), Some(0)]), 4);
        assert_eq!(arrivals(&bytes), [Some(0), None, Some(32_767), None]);
        assert_eq!(write(&mut bytes, &HEADING, &vec![None; 70_000]), 65_535);
    }

    /// Small deltas and chunks that fit: 100 packets that arrived in order take one chunk.
    #[test]
    fn writes_runs_where_they_are_shorter() {
        let mut bytes = Vec::new();
        let arrivals: Vec<_> = (0..100).map(|at| Some(at * 4)).collect();
        write(&mut bytes, &HEADING, &arrivals);
        assert_eq!(bytes.len(), (20usize + 2 + 100).next_multiple_of(4));
    }

    /// What webrtc-rs understands: the statuses of its chunks with its deltas.
    fn read_by_others(bytes: &[u8]) -> Vec<Option<i64>> {
        let packets = other::unmarshal(&mut &bytes[..]).expect("RTCP");
        let feedback = packets[0].as_any().downcast_ref::<TransportLayerCc>().expect("feedback");
        assert_eq!(feedback.header().length as usize * 4 + 4, bytes.len());
        let mut statuses = Vec::new();
        for chunk in &feedback.packet_chunks {
            match chunk {
                PacketStatusChunk::RunLengthChunk(run) => {
                    assert_eq!(run.type_tcc, StatusChunkTypeTcc::RunLengthChunk);
                    statuses.extend(vec![run.packet_status_symbol; run.run_length.into()]);
                }
                PacketStatusChunk::StatusVectorChunk(vector) => statuses.extend(vector.symbol_list.iter().copied()),
            }
        }
        statuses.truncate(feedback.packet_status_count.into());
        let mut deltas = feedback.recv_deltas.iter();
        let mut time = 0;
        let statuses = statuses.into_iter().map(|status| {
            (status != SymbolTypeTcc::PacketNotReceived).then(|| {
                time += deltas.next().expect("a delta").delta / TYPE_TCC_DELTA_SCALE_FACTOR;
                time
            })
        });
        statuses.collect()
    }

    fn arrival_times() -> impl Strategy<Value = Vec<Option<i64>>> {
        let gap = prop_oneof![6 => Just(None), 10 => (0i64..256).prop_map(Some), 1 => (-2000i64..9000).prop_map(Some)];
        let group = (gap, prop_oneof![3 => 1usize..3, 1 => 1usize..40]);
        prop::collection::vec(group, 1..30).prop_map(|groups| {
            let mut time = 100;
            let gaps = groups.into_iter().flat_map(|(gap, count)| vec![gap; count]);
            gaps.map(|gap| {
                gap.map(|gap| {
                    time += gap;
                    time
                })
            })
            .collect()
        })
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(times in arrival_times()) {
            let mut bytes = Vec::new();
            prop_assert_eq!(write(&mut bytes, &HEADING, &times), times.len());
            prop_assert_eq!(arrivals(&bytes), times.clone());
            prop_assert_eq!(read_by_others(&bytes), times);
        }

        #[test]
        fn any_bytes_are_survived(count: u16, rest in prop::collection::vec(any::<u8>(), 0..60)) {
            let bytes = feedback(count, &rest);
            if let Some(Packet::TransportWide(feedback)) = packets(&bytes).next() {
                prop_assert_eq!(feedback.arrivals().count(), usize::from(count));
            }
        }
    }
}
