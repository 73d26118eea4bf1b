//! The LLVM bitstream container: bytes come in, blocks and records go out, in order.
//!
//! Abbreviations, also those of BLOCKINFO, are followed here. What a block or a record means is
//! for the reader of the events. Facts: <https://llvm.org/docs/BitCodeFormat.html>.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::cursor::{Cursor, WIDEST};
use crate::FormatError;

const MAGIC: &[u8] = b"BC\xc0\xde";
const WRAPPER_MAGIC: &[u8] = &0x0B17_C0DE_u32.to_le_bytes();

/// The abbreviation id width outside of all blocks.
const TOP_WIDTH: u32 = 2;
/// LLVM nests four; more is damage.
const DEEPEST: usize = 64;
/// The block that holds abbreviations of other blocks.
const BLOCK_INFO: u32 = 0;
/// The BLOCKINFO record that names the block of the abbreviations that follow.
const SET_BLOCK: u64 = 1;

/// Abbreviation ids that every block has.
mod id {
    pub(super) const END_BLOCK: u64 = 0;
    pub(super) const ENTER_BLOCK: u64 = 1;
    pub(super) const DEFINE: u64 = 2;
    pub(super) const UNABBREVIATED: u64 = 3;
    pub(super) const FIRST_DEFINED: u64 = 4;
}

/// What comes next in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A block with this identifier starts.
    Enter(u32),
    /// The block ends.
    Leave,
    /// A record of the block; see [`Bitstream::record`].
    Record,
    /// The stream ends.
    End,
}

/// One record.
#[derive(Default)]
pub(super) struct Record<'a> {
    /// What it is, in terms of its block.
    pub(super) code: u64,
    /// Its numbers, with the elements of an array at the end.
    pub(super) operands: Vec<u64>,
    /// The bytes of a blob.
    pub(super) blob: Option<&'a [u8]>,
}

#[derive(Clone, Copy)]
enum Scalar {
    Literal(u64),
    Fixed(u32),
    Variable(u32),
    Char6,
}

enum Tail {
    Nothing,
    Array(Scalar),
    Blob,
}

/// The shape of a record; the first scalar is the record's code.
struct Abbreviation {
    scalars: Vec<Scalar>,
    tail: Tail,
}

/// A block that has started and not ended.
struct Scope {
    block: u32,
    id_width: u32,
    /// Bits that are left in the file where the block ends.
    remaining_at_end: u64,
    abbreviations: Vec<Rc<Abbreviation>>,
}

/// A reader of one stream.
pub(super) struct Bitstream<'a> {
    cursor: Cursor<'a>,
    scopes: Vec<Scope>,
    /// Abbreviations from BLOCKINFO by block.
    shared: BTreeMap<u32, Vec<Rc<Abbreviation>>>,
    record: Record<'a>,
}

/// Whether `bytes` start as bitcode does, raw or in a wrapper.
pub fn is_bitcode(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) || bytes.starts_with(WRAPPER_MAGIC)
}

impl<'a> Bitstream<'a> {
    /// A reader at the first block.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (stream, base) = unwrap(bytes)?;
        let Some(blocks) = stream.strip_prefix(MAGIC) else {
            return Err(FormatError::new("bitcode", base, "the bitcode magic"));
        };
        Ok(Self {
            cursor: Cursor::new(blocks, base + MAGIC.len() as u64),
            scopes: Vec::new(),
            shared: BTreeMap::new(),
            record: Record::default(),
        })
    }

    /// The next event. Definitions of abbreviations are not events.
    pub(super) fn next(&mut self) -> Result<Event, FormatError> {
        loop {
            let Some(scope) = self.scopes.last() else {
                // Files may be padded; a block header alone has 64 bits.
                if self.cursor.remaining() < 64 {
                    return Ok(Event::End);
                }
                if self.cursor.fixed(TOP_WIDTH)? != id::ENTER_BLOCK {
                    return Err(self.cursor.error("a block"));
                }
                match self.enter()? {
                    Some(block) => return Ok(Event::Enter(block)),
                    None => continue,
                }
            };
            match self.cursor.fixed(scope.id_width)? {
                id::END_BLOCK => {
                    self.cursor.align()?;
                    self.scopes.pop();
                    return Ok(Event::Leave);
                }
                id::ENTER_BLOCK => {
                    if let Some(block) = self.enter()? {
                        return Ok(Event::Enter(block));
                    }
                }
                id::DEFINE => self.define()?,
                id::UNABBREVIATED => {
                    read_unabbreviated(&mut self.cursor, &mut self.record)?;
                    return Ok(Event::Record);
                }
                defined => {
                    self.read_abbreviated(defined)?;
                    return Ok(Event::Record);
                }
            }
        }
    }

    /// The record of the last event.
    pub(super) fn record(&self) -> &Record<'a> {
        &self.record
    }

    /// The innermost block.
    pub(super) fn block(&self) -> Option<u32> {
        self.scopes.last().map(|scope| scope.block)
    }

    /// The error that `expected` is not here.
    pub(super) fn error(&self, expected: &'static str) -> FormatError {
        self.cursor.error(expected)
    }

    /// Goes past the end of the innermost block without reading it; no [`Event::Leave`] follows.
    pub(super) fn skip_block(&mut self) -> Result<(), FormatError> {
        let Some(scope) = self.scopes.pop() else {
            return Ok(());
        };
        match self.cursor.remaining().checked_sub(scope.remaining_at_end) {
            Some(bits) => self.cursor.skip(bits),
            None => Err(self.cursor.error("an earlier end of the block")),
        }
    }

    /// Reads a block header. BLOCKINFO is read whole and gives `None`.
    fn enter(&mut self) -> Result<Option<u32>, FormatError> {
        let block = u32::try_from(self.cursor.variable(8)?)
            .map_err(|_| self.cursor.error("a block identifier of 32 bits"))?;
        let id_width = match self.cursor.variable(4)? {
            width @ 2..=32 => width as u32,
            _ => return Err(self.cursor.error("an abbreviation width of 2 to 32")),
        };
        self.cursor.align()?;
        let bits = self.cursor.fixed(32)? * 32;
        let Some(remaining_at_end) = self.cursor.remaining().checked_sub(bits) else {
            return Err(self.cursor.error("a block that ends in the file"));
        };
        if self.scopes.len() >= DEEPEST {
            return Err(self.cursor.error("at most 64 nested blocks"));
        }
        if block == BLOCK_INFO {
            self.read_block_info(id_width)?;
            return Ok(None);
        }
        self.scopes.push(Scope {
            block,
            id_width,
            remaining_at_end,
            abbreviations: self.shared.get(&block).cloned().unwrap_or_default(),
        });
        Ok(Some(block))
    }

    fn define(&mut self) -> Result<(), FormatError> {
        let abbreviation = Rc::new(read_definition(&mut self.cursor)?);
        if let Some(scope) = self.scopes.last_mut() {
            scope.abbreviations.push(abbreviation);
        }
        Ok(())
    }

    fn read_block_info(&mut self, id_width: u32) -> Result<(), FormatError> {
        let mut block = None;
        loop {
            match self.cursor.fixed(id_width)? {
                id::END_BLOCK => return self.cursor.align(),
                id::DEFINE => {
                    let Some(block) = block else {
                        return Err(self.cursor.error("the block of the abbreviation"));
                    };
                    let abbreviation = Rc::new(read_definition(&mut self.cursor)?);
                    self.shared.entry(block).or_default().push(abbreviation);
                }
                id::UNABBREVIATED => {
                    read_unabbreviated(&mut self.cursor, &mut self.record)?;
                    if self.record.code == SET_BLOCK {
                        let number = self.record.operands.first();
                        block = number.and_then(|number| u32::try_from(*number).ok());
                    }
                }
                _ => return Err(self.cursor.error("an unabbreviated record of BLOCKINFO")),
            }
        }
    }

    fn read_abbreviated(&mut self, defined: u64) -> Result<(), FormatError> {
        let Self {
            cursor,
            scopes,
            record,
            ..
        } = self;
        let index = defined.checked_sub(id::FIRST_DEFINED);
        let abbreviation = scopes
            .last()
            .and_then(|scope| scope.abbreviations.get(index? as usize));
        let Some((code, scalars)) = abbreviation.and_then(|found| found.scalars.split_first())
        else {
            return Err(cursor.error("a defined abbreviation"));
        };
        record.operands.clear();
        record.blob = None;
        record.code = read_scalar(cursor, *code)?;
        for scalar in scalars {
            record.operands.push(read_scalar(cursor, *scalar)?);
        }
        match abbreviation.map(|found| &found.tail) {
            Some(Tail::Array(element)) => read_array(cursor, *element, &mut record.operands),
            Some(Tail::Blob) => {
                record.blob = Some(read_blob(cursor)?);
                Ok(())
            }
            Some(Tail::Nothing) | None => Ok(()),
        }
    }
}

/// The stream in a wrapper, and its offset in the file.
fn unwrap(bytes: &[u8]) -> Result<(&[u8], u64), FormatError> {
    if !bytes.starts_with(WRAPPER_MAGIC) {
        return Ok((bytes, 0));
    }
    // Five little-endian words: magic, version, offset, size, processor.
    let word = |at: usize| {
        let chunk = bytes.get(at..).and_then(|rest| rest.first_chunk());
        chunk.map(|chunk| u32::from_le_bytes(*chunk) as usize)
    };
    let stream = word(8).zip(word(12)).and_then(|(offset, size)| {
        let stream = bytes.get(offset..offset.checked_add(size)?)?;
        Some((stream, offset as u64))
    });
    stream.ok_or(FormatError::new("bitcode", 8, "a wrapper of a bitstream"))
}

fn read_unabbreviated<'a>(
    cursor: &mut Cursor<'a>,
    record: &mut Record<'a>,
) -> Result<(), FormatError> {
    record.blob = None;
    record.operands.clear();
    record.code = cursor.variable(6)?;
    read_array(cursor, Scalar::Variable(6), &mut record.operands)
}

/// Reads the definition of an abbreviation, from its number of operands on.
fn read_definition(cursor: &mut Cursor<'_>) -> Result<Abbreviation, FormatError> {
    let mut left = cursor.variable(5)?;
    let mut scalars = Vec::new();
    let mut tail = Tail::Nothing;
    while left > 0 {
        left -= 1;
        match read_operand(cursor)? {
            Operand::Scalar(scalar) => scalars.push(scalar),
            Operand::Blob if left == 0 => tail = Tail::Blob,
            Operand::Array if left == 1 => {
                left = 0;
                tail = match read_operand(cursor)? {
                    // Elements without bits would make the length of the array a free choice.
                    Operand::Scalar(Scalar::Literal(_)) | Operand::Array | Operand::Blob => {
                        return Err(cursor.error("an encoding of array elements"));
                    }
                    Operand::Scalar(element) => Tail::Array(element),
                };
            }
            Operand::Array | Operand::Blob => {
                return Err(cursor.error("an array or a blob at the end of an abbreviation"));
            }
        }
    }
    if scalars.is_empty() {
        return Err(cursor.error("a record code in an abbreviation"));
    }
    Ok(Abbreviation { scalars, tail })
}

enum Operand {
    Scalar(Scalar),
    Array,
    Blob,
}

fn read_operand(cursor: &mut Cursor<'_>) -> Result<Operand, FormatError> {
    if cursor.fixed(1)? == 1 {
        return Ok(Operand::Scalar(Scalar::Literal(cursor.variable(8)?)));
    }
    let encoding = cursor.fixed(3)?;
    let scalar = match encoding {
        1 | 2 => match (cursor.variable(5)?, encoding) {
            // A number of no bits is zero.
            (0, _) => Scalar::Literal(0),
            (width, 1) if width <= u64::from(WIDEST) => Scalar::Fixed(width as u32),
            (width, _) if width <= u64::from(WIDEST) => Scalar::Variable(width as u32),
            _ => return Err(cursor.error("a width of at most 32 bits")),
        },
        3 => return Ok(Operand::Array),
        4 => Scalar::Char6,
        5 => return Ok(Operand::Blob),
        _ => return Err(cursor.error("an encoding of 1 to 5")),
    };
    Ok(Operand::Scalar(scalar))
}

#[inline]
fn read_scalar(cursor: &mut Cursor<'_>, scalar: Scalar) -> Result<u64, FormatError> {
    match scalar {
        Scalar::Literal(value) => Ok(value),
        Scalar::Fixed(width) => cursor.fixed(width),
        Scalar::Variable(width) => cursor.variable(width),
        Scalar::Char6 => Ok(u64::from(char6(cursor.fixed(6)?))),
    }
}

/// Reads a length and that many elements.
fn read_array(
    cursor: &mut Cursor<'_>,
    element: Scalar,
    operands: &mut Vec<u64>,
) -> Result<(), FormatError> {
    let length = cursor.variable(6)?;
    if length > cursor.remaining() {
        return Err(cursor.error("an array that ends in the file"));
    }
    for _ in 0..length {
        operands.push(read_scalar(cursor, element)?);
    }
    Ok(())
}

fn read_blob<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], FormatError> {
    let length = cursor.variable(6)?;
    cursor.align()?;
    let blob = cursor.take_bytes(length)?;
    cursor.align()?;
    Ok(blob)
}

fn char6(value: u64) -> u8 {
    const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._";
    ALPHABET[(value % 64) as usize]
}
