//! The assembly texts of a bitcode object: module-level asm and inline asm.
//!
//! In: the object. Out: the decoded strings, which are not visible in the raw bytes. It does not
//! know what the texts say; see `assembler.rs`.

use super::bitstream::{Bitstream, Event, Record};
use super::block;
use crate::FormatError;

/// `MODULE_CODE_ASM`.
const MODULE_ASM: u64 = 4;

/// Every module-level asm text and every inline-asm string of the object, in order of appearance.
///
/// Inline-asm strings are as in LLVM IR: operands are `$0` or `${0:c}`, and `$$` is a dollar sign.
///
/// # Errors
/// The bytes are not a bitstream, or an inline-asm record is cut short.
pub fn assembly(bytes: &[u8]) -> Result<Vec<Vec<u8>>, FormatError> {
    let mut stream = Bitstream::open(bytes)?;
    let mut texts = Vec::new();
    loop {
        match stream.next()? {
            Event::Enter(block::MODULE | block::FUNCTION | block::CONSTANTS) => {}
            Event::Enter(_) => stream.skip_block()?,
            Event::Leave => {}
            Event::Record => texts.extend(text_of_record(&stream)?),
            Event::End => return Ok(texts),
        }
    }
}

fn text_of_record(stream: &Bitstream<'_>) -> Result<Option<Vec<u8>>, FormatError> {
    let record = stream.record();
    match (stream.block(), record.code) {
        (Some(block::MODULE), MODULE_ASM) => Ok(Some(string(&record.operands))),
        (Some(block::CONSTANTS), code) => match inline_asm_length_index(code) {
            Some(index) => match inline_asm(record, index) {
                Some(text) => Ok(Some(text)),
                None => Err(stream.error("an inline-asm record with its whole text")),
            },
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// The place of the text's length in the four versions of `CST_CODE_INLINEASM`.
///
/// All are flags, length, text, length, constraints; the newest has the function type before that.
fn inline_asm_length_index(code: u64) -> Option<usize> {
    match code {
        18 | 23 | 28 => Some(1),
        30 => Some(2),
        _ => None,
    }
}

fn inline_asm(record: &Record<'_>, index: usize) -> Option<Vec<u8>> {
    let length = usize::try_from(*record.operands.get(index)?).ok()?;
    let text = record.operands.get(index.checked_add(1)?..)?;
    Some(string(text.get(..length)?))
}

/// LLVM sign-extends a character above 127 where `char` is signed, so only the low byte counts.
fn string(characters: &[u64]) -> Vec<u8> {
    characters
        .iter()
        .map(|character| *character as u8)
        .collect()
}
