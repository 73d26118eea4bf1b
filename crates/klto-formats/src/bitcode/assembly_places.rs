//! Whether two objects differ in nothing but the places of inline assembly in the source.
//!
//! clang notes where each text of inline assembly stands, as a number in metadata (`!srcloc`), for messages
//! of the assembler. The number changes with every character before it, in any header; nothing that a backend
//! writes depends on it. Two objects are compared record by record. They may differ in integer constants to
//! which `!srcloc` leads and nothing else, and in what counts bits or bytes of the file: offsets, an index, a
//! hash.
//!
//! A constant that code uses too would be the same constant, so every use of a value is looked at. What is
//! not known here counts as a use.
//!
//! Facts: `llvm/Bitcode/LLVMBitCodes.h`; `BitcodeWriter.cpp` for the order of blocks and of numbers.

use std::collections::{BTreeSet, VecDeque};

use super::bitstream::{Bitstream, Event, Record};
use super::block;
use super::codes::{constant as constant_code, metadata as metadata_code, module as module_code};
use super::instructions::{Instruction, Type};
use crate::FormatError;

/// `VST_CODE_FNENTRY` of the module's symbols: value, offset of its function.
const FUNCTION_ENTRY: u64 = 3;

/// Operands of symbols that are values, plus one; behind the place of the name.
const INITIALIZER: [usize; 1] = [4];
const OF_FUNCTION: [usize; 3] = [12, 15, 16];
const FUNCTION_TYPE: usize = 2;
const IS_DECLARATION: usize = 4;
/// The same of an alias, which is no less than the value.
const ALIASED: usize = 4;

/// See the head of the file.
///
/// # Errors
/// The bytes of one of them are not a bitstream.
pub fn differ_only_in_assembly_places(old: &[u8], new: &[u8]) -> Result<bool, FormatError> {
    let (mut old, mut new) = (Bitstream::open(old)?, Bitstream::open(new)?);
    let mut walk = Walk::default();
    loop {
        let event = new.next()?;
        if old.next()? != event {
            return Ok(false);
        }
        let goes_on = match event {
            Event::End => return Ok(true),
            Event::Enter(block) => walk.enter(block),
            Event::Leave => walk.leave(),
            Event::Record => walk.record(old.record(), new.record()),
        };
        if goes_on.is_none() {
            return Ok(false);
        }
    }
}

/// What has been read of both. A function that gives `None` has met a difference that counts.
#[derive(Default)]
struct Walk {
    blocks: Vec<u32>,
    has_module: bool,
    types: Vec<Type>,
    /// Variables, functions, aliases: the first values.
    symbols: u64,
    /// Values that symbols are defined by.
    of_symbols: BTreeSet<u64>,
    /// Types of the functions whose bodies are still to come.
    bodies: VecDeque<u64>,
    constants: u64,
    /// Operands of constants of the module that are made of others.
    of_constants: BTreeSet<u64>,
    /// Constants that differ.
    moved: BTreeSet<u64>,
    place_kind: Option<u64>,
    module_metadata: u64,
    /// Metadata that is a constant that differs.
    moved_metadata: BTreeSet<u64>,
    /// Nodes of such.
    places: BTreeSet<u64>,
    /// Operands of all nodes.
    of_nodes: BTreeSet<u64>,
    /// In a function: the next number of a value, and of metadata.
    next_value: u64,
    next_metadata: u64,
}

fn require(holds: bool) -> Option<()> {
    holds.then_some(())
}

fn are_disjoint(one: &BTreeSet<u64>, other: &BTreeSet<u64>) -> Option<()> {
    require(one.is_disjoint(other))
}

impl Walk {
    fn is_in_function(&self) -> bool {
        self.blocks.contains(&block::FUNCTION)
    }

    fn enter(&mut self, block: u32) -> Option<()> {
        match block {
            // An order of uses that is not the natural one.
            block::USE_LIST => return None,
            block::MODULE => {
                require(!self.has_module)?;
                self.has_module = true;
            }
            block::FUNCTION => {
                let number = usize::try_from(self.bodies.pop_front()?).ok()?;
                let Type::Function { parameters, .. } = self.types.get(number)? else {
                    return None;
                };
                self.next_value = self.symbols + self.constants + parameters.len() as u64;
                self.next_metadata = self.module_metadata;
            }
            _ => {}
        }
        self.blocks.push(block);
        Some(())
    }

    fn leave(&mut self) -> Option<()> {
        match self.blocks.pop()? {
            block::CONSTANTS if !self.is_in_function() => {
                are_disjoint(&self.moved, &self.of_symbols)?;
                are_disjoint(&self.moved, &self.of_constants)
            }
            block::METADATA => are_disjoint(&self.places, &self.of_nodes),
            block::FUNCTION => {
                let is_of_module = |number: &u64| *number < self.module_metadata;
                self.moved_metadata.retain(is_of_module);
                self.places.retain(is_of_module);
                self.of_nodes.retain(is_of_module);
                Some(())
            }
            _ => Some(()),
        }
    }

    fn record(&mut self, old: &Record<'_>, new: &Record<'_>) -> Option<()> {
        require(old.code == new.code)?;
        let differs = old.operands != new.operands || old.blob != new.blob;
        let block = *self.blocks.last()?;
        let place = match (block, new.code) {
            (block::MODULE, module_code::SYMBOLS_OFFSET | module_code::HASH)
            | (block::METADATA, metadata_code::INDEX_OFFSET | metadata_code::INDEX) => {
                return Some(());
            }
            (block::SYMBOLS, FUNCTION_ENTRY) if !self.is_in_function() => {
                return require(without_offset(old) == without_offset(new));
            }
            (block::CONSTANTS, constant_code::INTEGER) if !self.is_in_function() => {
                differs.then_some(self.symbols + self.constants)
            }
            _ => {
                require(!differs)?;
                None
            }
        };
        self.moved.extend(place);
        match block {
            block::TYPES => self.types.extend(Type::of(new)),
            block::MODULE => self.add_symbol(new)?,
            block::CONSTANTS => self.add_constant(new)?,
            block::METADATA_KINDS => self.add_kind(new),
            block::METADATA => self.add_metadata(new)?,
            block::METADATA_ATTACHMENT => self.check_attachment(new)?,
            block::FUNCTION => self.check_instruction(new)?,
            _ => {}
        }
        Some(())
    }

    fn add_symbol(&mut self, record: &Record<'_>) -> Option<()> {
        let operand = |place: usize| record.operands.get(place).copied().unwrap_or(0);
        let values: &[usize] = match record.code {
            module_code::GLOBAL_VARIABLE => &INITIALIZER,
            module_code::FUNCTION => {
                if operand(IS_DECLARATION) == 0 {
                    self.bodies.push_back(operand(FUNCTION_TYPE));
                }
                &OF_FUNCTION
            }
            module_code::ALIAS | module_code::IFUNC => {
                self.of_symbols.insert(operand(ALIASED));
                &[]
            }
            _ => return Some(()),
        };
        // Numbers of constants come after those of all symbols.
        require(self.constants == 0)?;
        self.symbols += 1;
        let values = values
            .iter()
            .filter_map(|place| operand(*place).checked_sub(1));
        self.of_symbols.extend(values);
        Some(())
    }

    fn add_constant(&mut self, record: &Record<'_>) -> Option<()> {
        if record.code == constant_code::SET_TYPE {
            return Some(());
        }
        let mut plain = constant_code::PLAIN.iter().chain(&constant_code::ASSEMBLY);
        let is_plain = plain.any(|code| *code == record.code);
        let operands = record.operands.iter().filter(|_| !is_plain);
        if self.is_in_function() {
            self.next_value += 1;
            let mut operands = operands;
            return require(!operands.any(|operand| self.moved.contains(operand)));
        }
        self.of_constants.extend(operands);
        self.constants += 1;
        Some(())
    }

    fn add_kind(&mut self, record: &Record<'_>) {
        if let (metadata_code::KIND, Some((number, name))) =
            (record.code, record.operands.split_first())
            && name
                .iter()
                .copied()
                .eq(b"srcloc".iter().copied().map(u64::from))
        {
            self.place_kind = Some(*number);
        }
    }

    fn add_metadata(&mut self, record: &Record<'_>) -> Option<()> {
        use metadata_code::{
            DECLARATION_ATTACHMENT, DISTINCT_NODE, KIND, NAME, NAMED_NODE, NODE, STRINGS, VALUE,
        };
        let number = match self.is_in_function() {
            true => self.next_metadata,
            false => self.module_metadata,
        };
        let operands = record.operands.as_slice();
        let mut taken = 1;
        match (record.code, operands) {
            (STRINGS, [count, ..]) => taken = *count,
            (VALUE, [_, value]) => {
                if self.moved.contains(value) {
                    self.moved_metadata.insert(number);
                }
            }
            (NODE | DISTINCT_NODE, _) => {
                // Zero is no node.
                let of_node = operands.iter().filter_map(|operand| operand.checked_sub(1));
                let of_node: Vec<u64> = of_node.collect();
                if of_node
                    .iter()
                    .any(|operand| self.moved_metadata.contains(operand))
                {
                    self.places.insert(number);
                }
                self.of_nodes.extend(of_node);
            }
            (NAMED_NODE, _) => {
                taken = 0;
                require(!operands.iter().any(|node| self.is_moved(*node)))?;
            }
            (DECLARATION_ATTACHMENT, [_, attached @ ..]) => {
                taken = 0;
                let mut nodes = attached.iter().skip(1).step_by(2);
                require(!nodes.any(|node| self.is_moved(*node)))?;
            }
            (NAME | KIND, _) => taken = 0,
            // Debug information, and what a later version may bring.
            _ => require(self.moved.is_empty())?,
        }
        match self.is_in_function() {
            true => self.next_metadata = number.checked_add(taken)?,
            false => self.module_metadata = number.checked_add(taken)?,
        }
        Some(())
    }

    fn is_moved(&self, metadata: u64) -> bool {
        self.places.contains(&metadata) || self.moved_metadata.contains(&metadata)
    }

    /// `[instruction, (kind, node)…]`; of the function itself without the instruction.
    fn check_attachment(&self, record: &Record<'_>) -> Option<()> {
        let (is_of_instruction, pairs) = match record.operands.as_slice() {
            [_, pairs @ ..] if record.operands.len() % 2 == 1 => (true, pairs),
            pairs => (false, pairs),
        };
        let mut pairs = pairs.chunks_exact(2);
        require(pairs.all(|pair| {
            let is_place = is_of_instruction && pair.first() == self.place_kind.as_ref();
            is_place || !pair.get(1).is_some_and(|node| self.is_moved(*node))
        }))
    }

    fn check_instruction(&mut self, record: &Record<'_>) -> Option<()> {
        if self.moved.is_empty() {
            return Some(());
        }
        let read = Instruction::read(record, &self.types, self.next_value)?;
        require(!read.values.iter().any(|value| self.moved.contains(value)))?;
        require(!read.metadata.iter().any(|number| self.is_moved(*number)))?;
        self.next_value += u64::from(read.is_value);
        Some(())
    }
}

/// The numbers of `VST_CODE_FNENTRY` but the offset.
fn without_offset<'a>(record: &'a Record<'_>) -> Vec<&'a u64> {
    let operands = record.operands.iter().enumerate();
    let kept = operands.filter(|(place, _)| *place != 1);
    kept.map(|(_, number)| number).collect()
}
