//! What the index of one backend says of the modules that it imports from.
//!
//! In: the index that the thin-link wrote (`.thinlto.bc`). Out: of each module, whether nothing but variables
//! is imported from it; a digest of the index. Facts: `llvm/Bitcode/LLVMBitCodes.h`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use klto_core::{Digest, KeyBuilder};

use super::bitstream::{Bitstream, Event, Record};
use super::block;
use crate::FormatError;

/// A module of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedModule {
    /// Its path as the thin-link named it.
    pub path: Vec<u8>,
    /// Identifiers of what the index has of it (`GlobalValue::getGUID`), if these are variables of external
    /// linkage alone that refer to nothing; otherwise `None`.
    pub variables: Option<BTreeSet<u64>>,
}

/// `bitc::GlobalValueSummarySymtabCodes`.
mod summary_code {
    pub(super) const COMBINED_FUNCTION: u64 = 4;
    pub(super) const COMBINED_FUNCTION_PROFILE: u64 = 5;
    pub(super) const COMBINED_VARIABLE: u64 = 6;
    pub(super) const COMBINED_ALIAS: u64 = 8;
    pub(super) const VERSION: u64 = 10;
    pub(super) const VALUE_GUID: u64 = 16;
    /// Names of locals, type tests, lists of symbols with CFI, flags, counts, contexts: all of them of a
    /// function, an alias, or the whole index.
    pub(super) const OF_OTHERS: [u64; 18] = [
        9, 11, 12, 13, 14, 15, 17, 18, 20, 21, 22, 24, 25, 28, 29, 30, 31, 32,
    ];
}

/// `bitc::ModulePathSymtabCodes`.
mod path_code {
    pub(super) const ENTRY: u64 = 1;
    pub(super) const HASH: u64 = 2;
}

/// Versions of the summary of LLVM 13 to 22; in others a record may say something else.
const VERSIONS: std::ops::RangeInclusive<u64> = 9..=13;

/// The modules of an index, the backend's own among them.
///
/// # Errors
/// The bytes are not a bitstream.
pub fn imported_modules(index: &[u8]) -> Result<Vec<ImportedModule>, FormatError> {
    let mut stream = Bitstream::open(index)?;
    let mut summaries = Summaries::default();
    loop {
        match stream.next()? {
            Event::End => break,
            Event::Leave
            | Event::Enter(block::MODULE | block::MODULE_PATHS | block::GLOBAL_VALUE_SUMMARY) => {}
            Event::Enter(_) => stream.skip_block()?,
            Event::Record => match stream.block() {
                Some(block::MODULE_PATHS) => summaries.add_path(stream.record()),
                Some(block::GLOBAL_VALUE_SUMMARY) => summaries.add(stream.record()),
                _ => {}
            },
        }
    }
    Ok(summaries.modules())
}

#[derive(Default)]
struct Summaries {
    paths: BTreeMap<u64, Vec<u8>>,
    identifiers: HashMap<u64, u64>,
    variables: BTreeMap<u64, BTreeSet<u64>>,
    /// Modules of which there is something else.
    others: BTreeSet<u64>,
    has_known_version: bool,
    has_unknown_record: bool,
}

impl Summaries {
    fn add_path(&mut self, record: &Record<'_>) {
        if let (path_code::ENTRY, Some((number, path))) =
            (record.code, record.operands.split_first())
        {
            // A character above 127 is extended where `char` is signed.
            let path = path.iter().map(|character| *character as u8);
            self.paths.insert(*number, path.collect());
        }
    }

    fn add(&mut self, record: &Record<'_>) {
        use summary_code::{
            COMBINED_ALIAS, COMBINED_FUNCTION, COMBINED_FUNCTION_PROFILE, COMBINED_VARIABLE,
            OF_OTHERS, VALUE_GUID, VERSION,
        };
        match (record.code, record.operands.as_slice()) {
            (VERSION, [version]) => self.has_known_version = VERSIONS.contains(version),
            (VALUE_GUID, [value, identifier]) => {
                self.identifiers.insert(*value, *identifier);
            }
            (VALUE_GUID, [value, upper, lower]) => {
                self.identifiers.insert(*value, (upper << 32) | lower);
            }
            // Value, module, flags of the symbol and of the variable, then references.
            (COMBINED_VARIABLE, [value, module, flags, _]) if flags & 0xf == 0 => {
                match self.identifiers.get(value) {
                    Some(identifier) => {
                        self.variables
                            .entry(*module)
                            .or_default()
                            .insert(*identifier);
                    }
                    None => self.has_unknown_record = true,
                }
            }
            (
                COMBINED_VARIABLE | COMBINED_FUNCTION | COMBINED_FUNCTION_PROFILE | COMBINED_ALIAS,
                [_, module, ..],
            ) => drop(self.others.insert(*module)),
            (code, _) if OF_OTHERS.contains(&code) => {}
            _ => self.has_unknown_record = true,
        }
    }

    fn modules(mut self) -> Vec<ImportedModule> {
        let is_known = self.has_known_version && !self.has_unknown_record;
        let mut modules = Vec::new();
        for (number, path) in self.paths {
            let variables = self.variables.remove(&number);
            let is_all = is_known && !self.others.contains(&number);
            let variables = variables.filter(|_| is_all);
            modules.push(ImportedModule { path, variables });
        }
        modules
    }
}

/// Digest of an index without the hashes of the modules in `unhashed`. A hash is of all that is in a module,
/// and counts where the backend makes names of it.
///
/// # Errors
/// The bytes are not a bitstream.
pub fn index_digest(index: &[u8], unhashed: &BTreeSet<Vec<u8>>) -> Result<Digest, FormatError> {
    let mut stream = Bitstream::open(index)?;
    let mut key = KeyBuilder::new("index", 1);
    let mut is_unhashed = false;
    loop {
        match stream.next()? {
            Event::End => return Ok(key.finish()),
            Event::Enter(block) => drop(key.field("enter", &block.to_le_bytes())),
            Event::Leave => drop(key.field("leave", b"")),
            Event::Record => {
                let record = stream.record();
                let is_path = stream.block() == Some(block::MODULE_PATHS);
                match (is_path, record.code, record.operands.split_first()) {
                    (true, path_code::ENTRY, Some((_, path))) => {
                        let path: Vec<u8> = path.iter().map(|character| *character as u8).collect();
                        is_unhashed = unhashed.contains(&path);
                    }
                    (true, path_code::HASH, _) if is_unhashed => continue,
                    _ => {}
                }
                let numbers = record.operands.iter();
                let numbers: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
                key.field("record", &record.code.to_le_bytes())
                    .field("operands", &numbers)
                    .field("blob", record.blob.unwrap_or_default());
            }
        }
    }
}
