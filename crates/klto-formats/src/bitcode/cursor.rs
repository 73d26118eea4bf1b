//! Bits of a bitstream, least significant first: fixed and variable width numbers, alignment.
//!
//! It does not know what the numbers mean; see `bitstream.rs` for that.

use crate::FormatError;

/// The widest number that an abbreviation may ask for; `BitCodeAbbrevOp::MaxChunkSize`.
pub(super) const WIDEST: u32 = 32;

/// A place in a bitstream.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    /// Where the stream starts in the file; for errors.
    base: u64,
    /// The next bit.
    bit: u64,
    /// Number of bits.
    end: u64,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`, which stand at `base` in their file.
    pub(super) fn new(bytes: &'a [u8], base: u64) -> Self {
        let end = (bytes.len() as u64).saturating_mul(8);
        Self {
            bytes,
            base,
            bit: 0,
            end,
        }
    }

    /// Number of bits that are left.
    pub(super) fn remaining(&self) -> u64 {
        self.end - self.bit
    }

    /// The error that `expected` is not here.
    #[cold]
    pub(super) fn error(&self, expected: &'static str) -> FormatError {
        FormatError::new("bitcode", self.base.saturating_add(self.bit / 8), expected)
    }

    /// Goes forward by `bits`.
    pub(super) fn skip(&mut self, bits: u64) -> Result<(), FormatError> {
        if bits > self.remaining() {
            return Err(self.error("more bits"));
        }
        self.bit += bits;
        Ok(())
    }

    /// Goes to the next multiple of 32 bits.
    pub(super) fn align(&mut self) -> Result<(), FormatError> {
        self.skip(self.bit.wrapping_neg() % 32)
    }

    /// A number of `width` bits, at most [`WIDEST`].
    #[inline]
    pub(super) fn fixed(&mut self, width: u32) -> Result<u64, FormatError> {
        let start = self.bit;
        self.skip(u64::from(width))?;
        let rest = self.bytes.get((start / 8) as usize..).unwrap_or_default();
        let word = match rest.first_chunk() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => last_word(rest),
        };
        // At most 7 bits are shifted out, so that 57 are left.
        Ok((word >> (start % 8)) & ((1_u64 << width.min(WIDEST)) - 1))
    }

    /// A number in groups of `width` bits; the first bit of a group says that another follows.
    #[inline]
    pub(super) fn variable(&mut self, width: u32) -> Result<u64, FormatError> {
        let more = 1_u64 << (width.clamp(1, WIDEST) - 1);
        let mut group = self.fixed(width)?;
        let mut value = group & (more - 1);
        let mut shift = 0_u32;
        while group & more != 0 {
            shift += width - 1;
            group = self.fixed(width)?;
            let low = group & (more - 1);
            let placed = low.checked_shl(shift).unwrap_or(0);
            if placed.checked_shr(shift) != Some(low) {
                return Err(self.error("a number of at most 64 bits"));
            }
            value |= placed;
        }
        Ok(value)
    }

    /// The next `length` bytes; the cursor must stand at a byte.
    pub(super) fn take_bytes(&mut self, length: u64) -> Result<&'a [u8], FormatError> {
        let start = self.bit / 8;
        self.skip(length.saturating_mul(8))?;
        let taken = start as usize..(start + length) as usize;
        self.bytes
            .get(taken)
            .ok_or_else(|| self.error("more bytes"))
    }
}

#[cold]
fn last_word(rest: &[u8]) -> u64 {
    let mut chunk = [0; 8];
    for (to, from) in chunk.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_le_bytes(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_least_significant_bit() {
        let mut cursor = Cursor::new(&[0b1010_0110, 0xff, 0x01], 0);
        assert_eq!(cursor.fixed(3), Ok(0b110));
        assert_eq!(cursor.fixed(5), Ok(0b10100));
        assert_eq!(cursor.fixed(0), Ok(0));
        assert_eq!(cursor.fixed(9), Ok(0x1ff));
        assert_eq!(cursor.remaining(), 7);
        assert_eq!(cursor.fixed(8).unwrap_err().offset, 2);
    }

    #[test]
    fn every_place_and_width_is_read() {
        let bytes: Vec<u8> = (0..24_u8).map(|byte| byte.wrapping_mul(37)).collect();
        let bit = |at: u64| u64::from(bytes[(at / 8) as usize] >> (at % 8) & 1);
        for start in 0..160 {
            for width in 0..=32 {
                let mut cursor = Cursor::new(&bytes, 0);
                cursor.skip(start).unwrap();
                let expected: u64 = (0..u64::from(width)).map(|n| bit(start + n) << n).sum();
                assert_eq!(cursor.fixed(width), Ok(expected), "{width} at {start}");
            }
        }
    }

    #[test]
    fn variable_numbers_end_at_the_first_group_without_continuation() {
        // 0b1_00001, 0b0_00011 as six-bit groups: 1 + (3 << 5).
        let mut cursor = Cursor::new(&[0b1110_0001, 0b0000_0000], 0);
        assert_eq!(cursor.variable(6), Ok(1 + (3 << 5)));
        let mut endless = Cursor::new(&[0xff; 32], 0);
        assert!(endless.variable(6).is_err());
        assert!(Cursor::new(&[0xff; 4], 0).variable(1).is_err());
        assert_eq!(Cursor::new(&[0x7f], 0).variable(1), Ok(0));
    }

    #[test]
    fn the_greatest_number_fits() {
        // Twelve groups of five bits hold 60; the last holds four.
        let mut bits: Vec<bool> = [true; 72].to_vec();
        bits.extend([true, true, true, true, false, false]);
        let mut bytes = vec![0; 16];
        for (at, bit) in bits.iter().enumerate() {
            bytes[at / 8] |= u8::from(*bit) << (at % 8);
        }
        assert_eq!(Cursor::new(&bytes, 0).variable(6), Ok(u64::MAX));
    }
}
