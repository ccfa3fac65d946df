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
