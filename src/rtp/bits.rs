//! Reads and writes fields that do not end at byte borders. Used by the dependency descriptor.

/// Reads from the most significant bit on. Past the end it gives zeros and remembers that it did.
#[derive(Debug, Clone)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, at: 0 }
    }

    /// The next `count` bits, at most 32; `None` past the end.
    pub fn read(&mut self, count: usize) -> Option<u32> {
        let end = self.at + count;
        if end > self.bytes.len() * 8 {
            return None;
        }
        let value = (self.at..end).fold(0, |value, bit| {
            let byte = self.bytes[bit / 8];
            value << 1 | u32::from(byte >> (7 - bit % 8) & 1)
        });
        self.at = end;
        Some(value)
    }

    pub fn flag(&mut self) -> Option<bool> {
        Some(self.read(1)? != 0)
    }

    /// A value below `count`, in the fewest bits (AV1 specification §4.10.7, `ns`).
    pub fn below(&mut self, count: u32) -> Option<u32> {
        let width = count.checked_ilog2()? + 1;
        let short = (1 << width) - count;
        let value = self.read(width as usize - 1)?;
        if value < short { Some(value) } else { Some((value << 1) - short + self.read(1)?) }
    }

    /// Bits read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bits that are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }
}

/// Writes into a buffer from the most significant bit on.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    bytes: &'a mut [u8],
    /// In bits.
    at: usize,
}

impl<'a> BitWriter<'a> {
    pub fn new(bytes: &'a mut [u8]) -> Self {
        BitWriter { bytes, at: 0 }
    }

    /// The lower `count` bits of `value`; `None` when there is no room for them.
    pub fn write(&mut self, value: u32, count: usize) -> Option<()> {
        if self.at + count > self.bytes.len() * 8 {
            return None;
        }
        for shift in (0..count).rev() {
            let (byte, bit) = (&mut self.bytes[self.at / 8], 7 - self.at % 8);
            *byte = *byte & !(1 << bit) | ((value >> shift & 1) as u8) << bit;
            self.at += 1;
        }
        Some(())
    }

    /// The next `count` bits of `reader`.
    pub fn copy(&mut self, reader: &mut BitReader<'_>, count: usize) -> Option<()> {
        let mut left = count;
        while left > 0 {
            let step = left.min(32);
            self.write(reader.read(step)?, step)?;
            left -= step;
        }
        Some(())
    }

    /// Fills the last byte with zeros and gives the length in bytes.
    pub fn finish(mut self) -> usize {
        while !self.at.is_multiple_of(8) && self.write(0, 1).is_some() {}
        self.at / 8
    }
}

#[cfg(test)]
impl BitWriter<'_> {
    /// The reverse of [`BitReader::below`].
    pub fn write_below(&mut self, value: u32, count: u32) -> Option<()> {
        let width = count.ilog2() as usize + 1;
        let short = (1 << width) - count;
        if value < short { self.write(value, width - 1) } else { self.write(value + short, width) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(fields in prop::collection::vec((any::<u32>(), 1usize..=32), 0..40)) {
            let mut bytes = [0xff; 160];
            let mut writer = BitWriter::new(&mut bytes);
            for (value, count) in &fields {
                writer.write(*value, *count).unwrap();
            }
            let len = writer.finish();
            let mut reader = BitReader::new(&bytes[..len]);
            for (value, count) in &fields {
                let mask = u32::MAX >> (32 - count);
                prop_assert_eq!(reader.read(*count), Some(value & mask));
            }
            prop_assert!(reader.remaining() < 8);
            prop_assert_eq!(reader.read(8), None);
        }

        #[test]
        fn bounded_values_take_the_fewest_bits(count in 1u32..80, pick in any::<u32>()) {
            let value = pick % count;
            let mut bytes = [0; 2];
            let mut writer = BitWriter::new(&mut bytes);
            writer.write_below(value, count).unwrap();
            let mut reader = BitReader::new(&bytes);
            prop_assert_eq!(reader.below(count), Some(value));
            prop_assert!(reader.position() as f64 <= f64::from(count).log2().ceil());
        }
    }

    #[test]
    fn nothing_is_written_past_the_end() {
        let mut bytes = [0; 1];
        let mut writer = BitWriter::new(&mut bytes);
        assert_eq!(writer.write(1, 9), None);
        assert_eq!(writer.write(0xff, 8), Some(()));
        assert_eq!((writer.write(1, 1), writer.finish()), (None, 1));
        assert_eq!(BitReader::new(&[]).below(0), None);
    }
}
