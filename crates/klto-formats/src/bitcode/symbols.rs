//! The symbols of a bitcode object from its own symbol table, as a linker reads it.
//!
//! In: the object. Out: its symbols, also those that module-level asm defines or uses. The table
//! is one blob, its names are in the string table that follows; layout: `llvm/Object/IRSymtab.h`.

use super::bitstream::{Bitstream, Event};
use super::block;
use crate::FormatError;

/// A symbol of a bitcode object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// The name in the object file that would be made of it; may be empty for a local of asm.
    pub name: Vec<u8>,
    /// It is used and not defined.
    pub undefined: bool,
    /// Its binding is weak.
    pub weak: bool,
    /// It is a common variable.
    pub common: bool,
    /// It is visible to other objects: its binding is global or weak.
    pub global: bool,
    /// It is code.
    pub executable: bool,
    /// Something that LLVM does not see uses it: `llvm.used`, or module-level asm.
    pub used: bool,
}

/// Versions of the table in which a symbol has the layout that is read here.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=4;
/// The code of the only record in a symbol or string table block.
const BLOB: u64 = 1;
/// Header words: version, producer (2), modules (2), comdats (2), symbols (2).
const MODULES_AT: usize = 12;
const SYMBOLS_AT: usize = 28;
/// Symbol words: name (2), name in the IR (2), comdat index, flags.
const SYMBOL_SIZE: usize = 24;
const FLAGS_AT: usize = 20;

/// `storage::Symbol::FlagBits`; bits 0 and 1 are the visibility.
mod flag {
    pub(super) const UNDEFINED: u32 = 1 << 3;
    pub(super) const WEAK: u32 = 1 << 4;
    pub(super) const COMMON: u32 = 1 << 5;
    pub(super) const USED: u32 = 1 << 7;
    pub(super) const GLOBAL: u32 = 1 << 10;
    pub(super) const FORMAT_SPECIFIC: u32 = 1 << 11;
    pub(super) const EXECUTABLE: u32 = 1 << 13;
}

/// The symbols of the object in the order of its table, without LLVM's own (`llvm.*`).
///
/// # Errors
/// The bytes are not a bitstream; or the object has no symbol table for all of its modules, or
/// one of an unknown version. `llvm-nm` builds a table in the latter cases.
pub fn symbols(bytes: &[u8]) -> Result<Vec<Symbol>, FormatError> {
    let tables = find_tables(bytes)?;
    let header = |at| word(tables.symbols, at).ok_or_else(|| tables.error("a header"));
    if !VERSIONS.contains(&header(0)?) {
        return Err(tables.error("version 1 to 4"));
    }
    if header(MODULES_AT + 4)? != tables.modules {
        // Concatenated objects keep the table of the first one.
        return Err(tables.error("the symbols of every module"));
    }
    let start = header(SYMBOLS_AT)? as usize;
    let count = header(SYMBOLS_AT + 4)? as usize;
    let range = count
        .checked_mul(SYMBOL_SIZE)
        .and_then(|size| tables.symbols.get(start..start.checked_add(size)?));
    let Some(range) = range else {
        return Err(tables.error("all symbols in the table"));
    };
    let mut symbols = Vec::with_capacity(count);
    for entry in range.chunks_exact(SYMBOL_SIZE) {
        let symbol = read_symbol(entry, tables.strings);
        symbols.extend(symbol.ok_or_else(|| tables.error("a name in the string table"))?);
    }
    Ok(symbols)
}

struct Tables<'a> {
    symbols: &'a [u8],
    strings: &'a [u8],
    /// Number of module blocks in the object.
    modules: u32,
    /// Where the symbol table is, for errors.
    offset: u64,
}

impl Tables<'_> {
    fn error(&self, expected: &'static str) -> FormatError {
        FormatError::new("bitcode symbol table", self.offset, expected)
    }
}

/// Finds the first symbol table and the first string table after it, as LLVM does.
fn find_tables(bytes: &[u8]) -> Result<Tables<'_>, FormatError> {
    let mut stream = Bitstream::open(bytes)?;
    let mut symbols = None;
    let mut strings = None;
    let mut modules = 0;
    loop {
        match stream.next()? {
            Event::Enter(block::SYMBOL_TABLE | block::STRING_TABLE) | Event::Leave => {}
            Event::Enter(block) => {
                modules += u32::from(block == block::MODULE);
                stream.skip_block()?;
            }
            Event::Record => {
                if stream.record().code == BLOB {
                    let table = stream.record().blob;
                    match stream.block() {
                        Some(block::SYMBOL_TABLE) => symbols = symbols.or(table),
                        _ if symbols.is_some() => strings = strings.or(table),
                        _ => {}
                    }
                }
            }
            Event::End => break,
        }
    }
    let (Some(symbols), Some(strings)) = (symbols, strings) else {
        return Err(stream.error("a symbol table and its string table"));
    };
    let offset = (symbols.as_ptr() as u64).wrapping_sub(bytes.as_ptr() as u64);
    Ok(Tables {
        symbols,
        strings,
        modules,
        offset,
    })
}

/// A symbol; `Some(None)` if it is one of LLVM's own, `None` if its name is outside the table.
fn read_symbol(entry: &[u8], strings: &[u8]) -> Option<Option<Symbol>> {
    let flags = word(entry, FLAGS_AT)?;
    if flags & flag::FORMAT_SPECIFIC != 0 {
        return Some(None);
    }
    let start = word(entry, 0)? as usize;
    let end = start.checked_add(word(entry, 4)? as usize)?;
    Some(Some(Symbol {
        name: strings.get(start..end)?.to_vec(),
        undefined: flags & flag::UNDEFINED != 0,
        weak: flags & flag::WEAK != 0,
        common: flags & flag::COMMON != 0,
        // A weak symbol that only asm uses lacks the flag.
        global: flags & (flag::GLOBAL | flag::WEAK) != 0,
        executable: flags & flag::EXECUTABLE != 0,
        used: flags & flag::USED != 0,
    }))
}

fn word(table: &[u8], at: usize) -> Option<u32> {
    let chunk = table.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*chunk))
}
