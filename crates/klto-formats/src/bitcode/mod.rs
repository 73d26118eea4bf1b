//! LLVM bitcode: what klto must know of an object without starting a tool.
//!
//! A bitcode object is a bitstream: identification, module, symbol table and string table blocks, raw or
//! behind a wrapper header (<https://llvm.org/docs/BitCodeFormat.html>). Of the module's values only uses and
//! some definitions are decoded. klto reads the stream itself: the crates for it, `llvm-bitcode` 0.4 and
//! `llvm-bitstream` 0.0.3, reserve memory by lengths that the file claims, so that wrong bytes end the
//! process.

mod assembly;
mod assembly_places;
mod bitstream;
mod codes;
mod cursor;
mod definitions;
mod index;
mod instructions;
mod symbols;
#[cfg(test)]
mod tests;

use crate::FormatError;
use bitstream::{Bitstream, Event};

pub use assembly::assembly;
pub use assembly_places::differ_only_in_assembly_places;
pub use bitstream::is_bitcode;
pub use definitions::{Definitions, definitions};
pub use index::{ImportedModule, imported_modules, index_digest};
pub use symbols::{Symbol, symbols};

/// Block identifiers; `llvm/Bitcode/LLVMBitCodes.h`, `bitc::BlockIDs`.
mod block {
    pub(super) const MODULE: u32 = 8;
    pub(super) const CONSTANTS: u32 = 11;
    pub(super) const FUNCTION: u32 = 12;
    pub(super) const SYMBOLS: u32 = 14;
    pub(super) const METADATA: u32 = 15;
    pub(super) const METADATA_ATTACHMENT: u32 = 16;
    pub(super) const TYPES: u32 = 17;
    pub(super) const USE_LIST: u32 = 18;
    pub(super) const MODULE_PATHS: u32 = 19;
    pub(super) const GLOBAL_VALUE_SUMMARY: u32 = 20;
    pub(super) const METADATA_KINDS: u32 = 22;
    pub(super) const STRING_TABLE: u32 = 23;
    pub(super) const SYMBOL_TABLE: u32 = 25;
}

/// Whether a module of the object has a ThinLTO summary.
///
/// The summary of full LTO is another block and does not count.
///
/// # Errors
/// The bytes are not a bitstream.
pub fn has_thin_summary(bytes: &[u8]) -> Result<bool, FormatError> {
    let mut stream = Bitstream::open(bytes)?;
    loop {
        match stream.next()? {
            Event::Enter(block::MODULE) => {}
            Event::Enter(block::GLOBAL_VALUE_SUMMARY) => return Ok(true),
            Event::Enter(_) => stream.skip_block()?,
            Event::Leave | Event::Record => {}
            Event::End => return Ok(false),
        }
    }
}
