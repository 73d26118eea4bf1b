//! What a module shows to a backend that imports some of its variables and nothing else.
//!
//! In: the object. Out: a digest of each global variable's definition, and one of what every import brings
//! along. If these are what they were, importing these variables gives what it gave, whatever else of the
//! module has changed. Numbers of types, constants and metadata differ from module to module, so a definition
//! is written out with numbers of its own, in the order in which it reaches them.
//!
//! Facts: `llvm/Bitcode/LLVMBitCodes.h`; `IRMover.cpp` for what an import brings along. Anything that is not
//! known here makes the module or the variable opaque: then the whole object counts.

use std::collections::{BTreeMap, HashMap};

use klto_core::{Digest, KeyBuilder};
use md5::{Digest as _, Md5};

use super::bitstream::{Bitstream, Event, Record};
use super::block;
use super::codes::{
    constant as constant_code, metadata as metadata_code, module as module_code,
    type_of as type_code,
};
use super::cursor::Cursor;
use crate::FormatError;

/// The definitions of a module that can be imported by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definitions {
    /// Digest of the target and of all named metadata, as the module's flags.
    pub module: Digest,
    /// Digests of variables of external linkage by the identifier that a summary has for them
    /// (`GlobalValue::getGUID`). One with an initializer that refers to other symbols is not among them.
    pub variables: BTreeMap<u64, Digest>,
    /// Their identifiers in the order of the module, in which an importer has their symbols.
    pub order: Vec<u64>,
}

/// Operands of `MODULE_CODE_GLOBALVAR`, behind the place of its name.
mod variable {
    pub(super) const TYPE: usize = 0;
    pub(super) const INITIALIZER: usize = 2;
    pub(super) const LINKAGE: usize = 3;
    pub(super) const SECTION: usize = 5;
    pub(super) const COMDAT: usize = 11;
    pub(super) const ATTRIBUTES: usize = 12;
    pub(super) const PARTITION: usize = 14;
    pub(super) const PARTITION_LENGTH: usize = 15;
}

/// The version in which names are in the string table.
const STRING_TABLE_VERSION: u64 = 2;
/// Kernels nest initializers less deep; more makes a definition opaque.
const DEEPEST: usize = 64;

/// Reads a module; `None` for one of which nothing can be told apart.
///
/// # Errors
/// The bytes are not a bitstream.
pub fn definitions(bytes: &[u8]) -> Result<Option<Definitions>, FormatError> {
    let Some((module, strings)) = Module::read(bytes)? else {
        return Ok(None);
    };
    Ok(module.definitions(strings))
}

/// One record of a table, by which others refer to it.
struct Entry {
    code: u64,
    operands: Vec<u64>,
}

impl Entry {
    fn of(record: &Record<'_>) -> Self {
        Self {
            code: record.code,
            operands: record.operands.clone(),
        }
    }
}

/// A metadata node or string.
enum Metadata {
    String(Vec<u8>),
    Record(Entry),
}

#[derive(Default)]
struct Module {
    version: u64,
    /// Triple and data layout.
    target: Vec<Entry>,
    sections: Vec<Vec<u64>>,
    variables: Vec<(usize, Entry)>,
    /// Variables, functions, aliases: the first values.
    symbols: usize,
    types: Vec<Entry>,
    struct_name: Option<Vec<u64>>,
    /// By type, then code and operands; values after the symbols.
    constants: Vec<(u64, Entry)>,
    metadata: Vec<Metadata>,
    metadata_name: Option<Vec<u64>>,
    named: Vec<(Vec<u64>, Vec<u64>)>,
    /// Values to which metadata is attached.
    attached: Vec<u64>,
}

impl Module {
    /// The only module of an object and the string table.
    fn read(bytes: &[u8]) -> Result<Option<(Self, &[u8])>, FormatError> {
        let mut stream = Bitstream::open(bytes)?;
        let mut module = None;
        let mut strings: Option<&[u8]> = None;
        let mut current_type = 0;
        loop {
            match stream.next()? {
                Event::End => break,
                Event::Leave => {}
                Event::Enter(block::MODULE) if module.is_none() => module = Some(Self::default()),
                // Another module, or an order of uses that is not the natural one.
                Event::Enter(block::MODULE | block::USE_LIST) => return Ok(None),
                Event::Enter(
                    block::CONSTANTS | block::METADATA | block::TYPES | block::STRING_TABLE,
                ) => {}
                Event::Enter(_) => stream.skip_block()?,
                Event::Record => {
                    let record = stream.record();
                    let Some(module) = module.as_mut() else {
                        continue;
                    };
                    let known = match stream.block() {
                        Some(block::STRING_TABLE) => {
                            strings = strings.or(record.blob);
                            true
                        }
                        Some(block::MODULE) => module.add(record),
                        Some(block::TYPES) => module.add_type(record),
                        Some(block::CONSTANTS) => module.add_constant(record, &mut current_type),
                        Some(block::METADATA) => module.add_metadata(record),
                        _ => true,
                    };
                    if !known {
                        return Ok(None);
                    }
                }
            }
        }
        let module = module.filter(|module| module.version >= STRING_TABLE_VERSION);
        Ok(module.zip(strings))
    }

    /// Adds a record of the module's own; whether it shows to importers what is known here.
    fn add(&mut self, record: &Record<'_>) -> bool {
        use module_code::{
            ALIAS, ASSEMBLY, DATA_LAYOUT, FUNCTION, GLOBAL_VARIABLE, IFUNC, SECTION_NAME, TRIPLE,
            VERSION,
        };
        match record.code {
            VERSION => self.version = record.operands.first().copied().unwrap_or(0),
            TRIPLE | DATA_LAYOUT => self.target.push(Entry::of(record)),
            // Versions of symbols come along with every import.
            ASSEMBLY => {
                let text: Vec<u8> = record.operands.iter().map(|byte| *byte as u8).collect();
                return memchr::memmem::find(&text, b".symver").is_none();
            }
            SECTION_NAME => self.sections.push(record.operands.clone()),
            GLOBAL_VARIABLE | FUNCTION | ALIAS | IFUNC => {
                if record.code == GLOBAL_VARIABLE {
                    self.variables.push((self.symbols, Entry::of(record)));
                }
                self.symbols += 1;
                return self.constants.is_empty();
            }
            _ => {}
        }
        true
    }

    fn add_type(&mut self, record: &Record<'_>) -> bool {
        match record.code {
            type_code::NUMBER_OF_ENTRIES => {}
            type_code::STRUCT_NAME => self.struct_name = Some(record.operands.clone()),
            type_code::STRUCT_NAMED => {
                let mut entry = Entry::of(record);
                // A struct is known by its name: packed, number of elements, these, name.
                let elements = entry.operands.len() as u64;
                entry.operands.insert(1.min(entry.operands.len()), elements);
                entry
                    .operands
                    .extend(self.struct_name.take().unwrap_or_default());
                self.types.push(entry);
            }
            _ => {
                let mut entry = Entry::of(record);
                // The name of an opaque struct.
                entry
                    .operands
                    .extend(self.struct_name.take().unwrap_or_default());
                self.types.push(entry);
            }
        }
        true
    }

    fn add_constant(&mut self, record: &Record<'_>, current_type: &mut u64) -> bool {
        match record.code {
            constant_code::SET_TYPE => {
                *current_type = record.operands.first().copied().unwrap_or(0)
            }
            _ => self.constants.push((*current_type, Entry::of(record))),
        }
        true
    }

    /// Adds a record of the module's metadata; whether its strings could be read.
    fn add_metadata(&mut self, record: &Record<'_>) -> bool {
        use metadata_code::{
            DECLARATION_ATTACHMENT, INDEX, INDEX_OFFSET, KIND, NAME, NAMED_NODE, STRINGS,
        };
        match record.code {
            STRINGS => {
                let Some(strings) = strings_of(record) else {
                    return false;
                };
                self.metadata
                    .extend(strings.into_iter().map(Metadata::String));
            }
            NAME => self.metadata_name = Some(record.operands.clone()),
            NAMED_NODE => {
                let name = self.metadata_name.take().unwrap_or_default();
                self.named.push((name, record.operands.clone()));
            }
            DECLARATION_ATTACHMENT => self.attached.extend(record.operands.first()),
            KIND | INDEX_OFFSET | INDEX => {}
            _ => self.metadata.push(Metadata::Record(Entry::of(record))),
        }
        true
    }

    fn definitions(&self, strings: &[u8]) -> Option<Definitions> {
        let (mut variables, mut order) = (BTreeMap::new(), Vec::new());
        for (value, entry) in &self.variables {
            let name = entry.operands.first().zip(entry.operands.get(1));
            let name = name.and_then(|(start, length)| {
                let start = usize::try_from(*start).ok()?;
                let end = start.checked_add(usize::try_from(*length).ok()?)?;
                strings.get(start..end)
            })?;
            if self.attached.contains(&(*value as u64)) {
                continue;
            }
            let fields = entry.operands.get(2..).unwrap_or_default();
            if let Some(digest) = self.variable(name, fields) {
                variables.insert(identifier(name), digest);
                order.push(identifier(name));
            }
        }
        Some(Definitions {
            module: self.shared()?,
            variables,
            order,
        })
    }

    /// What every import brings along.
    fn shared(&self) -> Option<Digest> {
        let mut writer = Writer::new(self, "imported-module");
        for entry in &self.target {
            writer.numbers(&[entry.code]);
            writer.numbers(&entry.operands);
        }
        for (name, nodes) in &self.named {
            writer.numbers(name);
            for node in nodes {
                writer.metadata(*node)?;
            }
        }
        Some(writer.key.finish())
    }

    /// A variable of external linkage that is defined here.
    fn variable(&self, name: &[u8], fields: &[u64]) -> Option<Digest> {
        let field = |place: usize| fields.get(place).copied().unwrap_or(0);
        let with_more = [
            variable::COMDAT,
            variable::ATTRIBUTES,
            variable::PARTITION_LENGTH,
        ];
        let is_plain = with_more.iter().all(|place| field(*place) == 0);
        let initializer = field(variable::INITIALIZER).checked_sub(1)?;
        if field(variable::LINKAGE) != 0 || !is_plain {
            return None;
        }
        let mut writer = Writer::new(self, "imported-variable");
        writer.key.field("name", name);
        writer.type_of(field(variable::TYPE))?;
        writer.constant(initializer)?;
        match field(variable::SECTION).checked_sub(1) {
            Some(section) => writer.numbers(self.sections.get(usize::try_from(section).ok()?)?),
            None => writer.numbers(&[]),
        }
        let numbered = [
            variable::TYPE,
            variable::INITIALIZER,
            variable::SECTION,
            variable::PARTITION,
        ];
        let plain = fields.iter().enumerate();
        let plain = plain.filter(|(place, _)| !numbered.contains(place));
        let plain: Vec<u64> = plain.map(|(_, field)| *field).collect();
        writer.numbers(&plain);
        Some(writer.key.finish())
    }
}

/// Writes a definition out; what it refers to stands where it is first met.
struct Writer<'a> {
    module: &'a Module,
    key: KeyBuilder,
    types: HashMap<u64, u64>,
    constants: HashMap<u64, u64>,
    nodes: HashMap<u64, u64>,
    depth: usize,
}

impl<'a> Writer<'a> {
    fn new(module: &'a Module, kind: &str) -> Self {
        Self {
            module,
            key: KeyBuilder::new(kind, 1),
            types: HashMap::new(),
            constants: HashMap::new(),
            nodes: HashMap::new(),
            depth: 0,
        }
    }

    fn numbers(&mut self, numbers: &[u64]) {
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        self.key.field("numbers", &bytes);
    }

    /// Whether `number` is met for the first time; its own number is written.
    fn is_first(&mut self, kind: &str, number: u64) -> bool {
        let met = match kind {
            "type" => &mut self.types,
            "constant" => &mut self.constants,
            _ => &mut self.nodes,
        };
        let next = met.len() as u64;
        let own = *met.entry(number).or_insert(next);
        self.key.field(kind, &own.to_le_bytes());
        own == next
    }

    /// Goes one level down, if that is not too deep.
    fn within(&mut self, write: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.depth += 1;
        let written = (self.depth < DEEPEST).then(|| write(self)).flatten();
        self.depth -= 1;
        written
    }

    fn type_of(&mut self, number: u64) -> Option<()> {
        if !self.is_first("type", number) {
            return Some(());
        }
        let entry = self.module.types.get(usize::try_from(number).ok()?)?;
        let operands = entry.operands.as_slice();
        // Which operands are plain, and which are types.
        let (plain, types, more) = match entry.code {
            type_code::POINTER => (operands.get(1..)?, operands.get(..1)?, &[][..]),
            type_code::ARRAY | type_code::VECTOR => {
                (operands.get(..1)?, operands.get(1..2)?, operands.get(2..)?)
            }
            type_code::STRUCT_ANONYMOUS | type_code::FUNCTION => {
                (operands.get(..1)?, operands.get(1..)?, &[][..])
            }
            type_code::STRUCT_NAMED => {
                // The count is of all operands before it was put in.
                let count = usize::try_from(*operands.get(1)?).ok()?.checked_sub(1)?;
                let end = count.checked_add(2)?;
                (
                    operands.get(..2)?,
                    operands.get(2..end)?,
                    operands.get(end..)?,
                )
            }
            type_code::OPAQUE_POINTER => (operands, &[][..], &[][..]),
            code if type_code::SCALARS.contains(&code) => (operands, &[][..], &[][..]),
            _ => return None,
        };
        self.numbers(&[entry.code]);
        self.numbers(plain);
        self.numbers(more);
        self.within(|writer| types.iter().try_for_each(|number| writer.type_of(*number)))
    }

    fn constant(&mut self, value: u64) -> Option<()> {
        // A symbol is no constant of its own.
        let place = usize::try_from(value)
            .ok()?
            .checked_sub(self.module.symbols)?;
        if !self.is_first("constant", value) {
            return Some(());
        }
        let (of_type, entry) = self.module.constants.get(place)?;
        self.type_of(*of_type)?;
        self.numbers(&[entry.code]);
        match entry.code {
            constant_code::AGGREGATE => {
                self.numbers(&[entry.operands.len() as u64]);
                let elements = entry.operands.iter();
                self.within(|writer| {
                    elements
                        .copied()
                        .try_for_each(|value| writer.constant(value))
                })
            }
            code if constant_code::PLAIN.contains(&code) => {
                self.numbers(&entry.operands);
                Some(())
            }
            _ => None,
        }
    }

    fn metadata(&mut self, number: u64) -> Option<()> {
        if !self.is_first("metadata", number) {
            return Some(());
        }
        match self.module.metadata.get(usize::try_from(number).ok()?)? {
            Metadata::String(text) => {
                self.key.field("string", text);
                Some(())
            }
            Metadata::Record(entry) if entry.code == metadata_code::VALUE => {
                let [of_type, value] = entry.operands[..] else {
                    return None;
                };
                self.type_of(of_type)?;
                self.constant(value)
            }
            Metadata::Record(entry) if entry.code == metadata_code::NODE => {
                self.numbers(&[entry.code, entry.operands.len() as u64]);
                self.within(|writer| {
                    entry.operands.iter().try_for_each(|operand| {
                        // Zero is no node.
                        match operand.checked_sub(1) {
                            Some(number) => writer.metadata(number),
                            None => {
                                writer.numbers(&[]);
                                Some(())
                            }
                        }
                    })
                })
            }
            Metadata::Record(_) => None,
        }
    }
}

/// `METADATA_STRINGS`: count, and where the characters begin in the blob, behind the lengths.
fn strings_of(record: &Record<'_>) -> Option<Vec<Vec<u8>>> {
    let [count, start] = record.operands[..] else {
        return None;
    };
    let (lengths, mut characters) = record
        .blob?
        .split_at_checked(usize::try_from(start).ok()?)?;
    let mut lengths = Cursor::new(lengths, 0);
    let mut strings = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(lengths.variable(6).ok()?).ok()?;
        let (string, rest) = characters.split_at_checked(length)?;
        strings.push(string.to_vec());
        characters = rest;
    }
    Some(strings)
}

/// What a summary calls a symbol of external linkage: the first eight bytes of its name's MD5.
fn identifier(name: &[u8]) -> u64 {
    // LLVM's mark for a name that is not to be mangled.
    let name = name.strip_prefix(b"\x01").unwrap_or(name);
    let digest = Md5::digest(name);
    u64::from_le_bytes(digest.first_chunk().copied().unwrap_or_default())
}
