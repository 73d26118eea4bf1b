//! The table of calls to the function tracer's entry: section `__mcount_loc`.
//!
//! In: an object compiled with `-pg` whose compiler leaves the table to another tool. Out: the same
//! object with the table, as scripts/recordmcount makes it: the address of each call to `__fentry__`,
//! `mcount` or `_mcount` in the sections that the kernel traces. A call anywhere else becomes a no-op.
//!
//! recordmcount takes each relocation against these names for a call, and leaves out
//! kernel/trace/ftrace.o, which takes the address. Link-time optimization can move such a
//! reference into any object, so here the instruction decides.

use object::elf::{
    self as format, FileHeader64, R_AARCH64_ABS64, R_AARCH64_CALL26, R_X86_64_64, R_X86_64_PC32,
    R_X86_64_PLT32, RelocationType,
};
use object::read::elf::{FileHeader, Rela, SectionHeader, Sym};
use object::{Endianness, SectionIndex, SymbolIndex};

use super::extend::{AddressTable, add_address_table};
use super::{Class, Tables, class, error};
use crate::FormatError;

type Header = FileHeader64<Endianness>;

/// The section's name.
pub const TABLE: &[u8] = b"__mcount_loc";

const ENTRIES: [&[u8]; 3] = [b"__fentry__", b"mcount", b"_mcount"];

/// Sections in which calls are recorded (scripts/recordmcount.c, is_mcounted_section_name); the
/// first is a prefix.
const TRACED_SECTIONS: [&[u8]; 9] = [
    b".text",
    b".init.text",
    b".ref.text",
    b".sched.text",
    b".spinlock.text",
    b".irqentry.text",
    b".softirqentry.text",
    b".kprobes.text",
    b".cpuidle.text",
];

/// How an instruction set calls the entry.
struct CallShape {
    relocations: &'static [RelocationType],
    /// An absolute relocation of 64 bits.
    absolute: RelocationType,
    /// The instruction's bytes up to the relocated field.
    before_field: &'static [u8],
    no_op: &'static [u8],
}

const X86_64: CallShape = CallShape {
    relocations: &[R_X86_64_PC32, R_X86_64_PLT32],
    absolute: R_X86_64_64,
    before_field: &[0xe8],
    no_op: &[0x0f, 0x1f, 0x44, 0x00, 0x00],
};

const ARM64: CallShape = CallShape {
    relocations: &[R_AARCH64_CALL26],
    absolute: R_AARCH64_ABS64,
    before_field: &[],
    no_op: &[0x1f, 0x20, 0x03, 0xd5],
};

/// A place in an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodePlace {
    /// The section's name.
    pub section: Vec<u8>,
    /// Offset in the section.
    pub offset: u64,
}

/// One call of the tracer's entry.
struct Call {
    section: SectionIndex,
    /// Where its instruction begins.
    offset: u64,
    /// Where its relocation's entry lies in the file.
    relocation_at: u64,
    is_traced: bool,
}

/// The object with its table; unchanged if it has one or calls no entry.
///
/// # Errors
/// The bytes are no 64-bit object for x86_64 or arm64, or a section with calls has only weak
/// symbols, so that the table cannot name it.
pub fn record_entry_calls(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let object = Traced::of(bytes)?;
    if object.table()?.is_some() {
        return Ok(bytes.to_vec());
    }
    let calls = object.calls()?;
    let mut addresses = Vec::new();
    for call in calls.iter().filter(|call| call.is_traced) {
        addresses.push(object.address(call)?);
    }
    let mut bytes = bytes.to_vec();
    for call in calls.iter().filter(|call| !call.is_traced) {
        object.write_no_op(call, &mut bytes)?;
    }
    if addresses.is_empty() {
        return Ok(bytes);
    }
    let table = AddressTable {
        name: TABLE,
        relocation: object.shape.absolute,
        addresses,
    };
    add_address_table(&bytes, &table)
}

/// Where the calls are that a table must have, in the order of the relocations.
///
/// # Errors
/// As [`record_entry_calls`].
pub fn entry_calls(bytes: &[u8]) -> Result<Vec<CodePlace>, FormatError> {
    let object = Traced::of(bytes)?;
    let calls = object.calls()?.into_iter().filter(|call| call.is_traced);
    calls
        .map(|call| object.place(call.section, call.offset))
        .collect()
}

/// The entries of an object's table, in order; none if it has no table.
///
/// # Errors
/// As [`record_entry_calls`].
pub fn recorded_entries(bytes: &[u8]) -> Result<Vec<CodePlace>, FormatError> {
    let object = Traced::of(bytes)?;
    let Some(table) = object.table()? else {
        return Ok(Vec::new());
    };
    let mut places = Vec::new();
    for (target, entries, _) in object.relocations()? {
        if target != table {
            continue;
        }
        for entry in entries {
            let symbol = SymbolIndex(entry.r_sym(object.tables.endian, false) as usize);
            let (section, value) = object.defined(symbol)?;
            let offset = value.wrapping_add_signed(entry.r_addend.get(object.tables.endian));
            places.push(object.place(section, offset)?);
        }
    }
    Ok(places)
}

type Entries<'a> = &'a [format::Rela64<Endianness>];

struct Traced<'a> {
    bytes: &'a [u8],
    tables: Tables<'a, Header>,
    shape: &'static CallShape,
}

impl<'a> Traced<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, FormatError> {
        if class(bytes)? != Class::Elf64 {
            return Err(error(4, "a 64-bit object"));
        }
        let tables = Tables::<Header>::read(bytes)?;
        let header = Header::parse(bytes).map_err(|_| error(0, "an ELF header"))?;
        let shape = match header.e_machine(tables.endian) {
            format::EM_X86_64 => &X86_64,
            format::EM_AARCH64 => &ARM64,
            _ => return Err(error(18, "code for x86_64 or arm64")),
        };
        Ok(Self {
            bytes,
            tables,
            shape,
        })
    }

    fn table(&self) -> Result<Option<SectionIndex>, FormatError> {
        // The null section has no name.
        for (index, _) in self.tables.sections.enumerate().skip(1) {
            if self.section_name(index)? == TABLE {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    fn section_name(&self, index: SectionIndex) -> Result<&'a [u8], FormatError> {
        let at = self.tables.sections_at;
        let section = self.tables.sections.section(index);
        let section = section.map_err(|_| error(at, "a section"))?;
        let name = self
            .tables
            .sections
            .section_name(self.tables.endian, section);
        name.map_err(|_| error(at, "section names in a string table"))
    }

    /// Each table of relocations: the section that it is for, its entries, and where they lie.
    fn relocations(&self) -> Result<Vec<(SectionIndex, Entries<'a>, u64)>, FormatError> {
        let endian = self.tables.endian;
        let at = self.tables.sections_at;
        let mut found = Vec::new();
        for section in self.tables.sections.iter() {
            let rows = section.rela(endian, self.bytes);
            let rows = rows.map_err(|_| error(at, "relocations in the file"))?;
            if let Some((rows, _)) = rows {
                let target = SectionIndex(section.sh_info(endian) as usize);
                found.push((target, rows, section.sh_offset(endian)));
            }
        }
        Ok(found)
    }

    fn calls(&self) -> Result<Vec<Call>, FormatError> {
        let endian = self.tables.endian;
        let mut calls = Vec::new();
        for (target, entries, at) in self.relocations()? {
            let Some(code) = self.code(target)? else {
                continue;
            };
            let is_traced = is_traced(self.section_name(target)?);
            for (place, entry) in entries.iter().enumerate() {
                let field = entry.r_offset(endian);
                let known = self
                    .shape
                    .relocations
                    .contains(&entry.r_type(endian, false));
                if known
                    && self.is_entry(SymbolIndex(entry.r_sym(endian, false) as usize))?
                    && let Some(offset) = self.call_at(code, field)
                {
                    calls.push(Call {
                        section: target,
                        offset,
                        relocation_at: at + (place * size_of_val(entry)) as u64,
                        is_traced,
                    });
                }
            }
        }
        Ok(calls)
    }

    /// The contents of an executable section.
    fn code(&self, index: SectionIndex) -> Result<Option<&'a [u8]>, FormatError> {
        let endian = self.tables.endian;
        let at = self.tables.sections_at;
        let section = self.tables.sections.section(index);
        let section = section.map_err(|_| error(at, "a section with relocations"))?;
        let is_code = section.sh_type(endian) == format::SHT_PROGBITS
            && section.sh_flags(endian).contains(format::SHF_EXECINSTR);
        let data = section.data(endian, self.bytes);
        let data = data.map_err(|_| error(at, "code in the file"))?;
        Ok(is_code.then_some(data))
    }

    fn is_entry(&self, index: SymbolIndex) -> Result<bool, FormatError> {
        let at = self.tables.sections_at;
        let symbol = self.tables.symbols.symbol(index);
        let symbol = symbol.map_err(|_| error(at, "a symbol of a relocation"))?;
        let name = self.tables.symbols.symbol_name(self.tables.endian, symbol);
        let name = name.map_err(|_| error(at, "symbol names in a string table"))?;
        Ok(ENTRIES.contains(&name))
    }

    /// Where the call begins whose field is at `field`; nothing if that is no call.
    fn call_at(&self, code: &[u8], field: u64) -> Option<u64> {
        let begin = field.checked_sub(self.shape.before_field.len() as u64)?;
        let bytes = code.get(usize::try_from(begin).ok()?..)?;
        bytes.starts_with(self.shape.before_field).then_some(begin)
    }

    /// A symbol and an addend for the call, whatever the linker does with other definitions.
    fn address(&self, call: &Call) -> Result<(u32, i64), FormatError> {
        let endian = self.tables.endian;
        let weak = || {
            error(
                self.tables.sections_at,
                "a symbol that is not weak in each traced section",
            )
        };
        let mut function = None;
        for (index, symbol) in self.tables.symbols.enumerate() {
            let section = self.tables.symbols.symbol_section(endian, symbol, index);
            let is_here = section.ok().flatten() == Some(call.section);
            if !is_here || symbol.st_bind() == format::STB_WEAK {
                continue;
            }
            let is_local = symbol.st_bind() == format::STB_LOCAL;
            if is_local || symbol.st_type() == format::STT_FUNC {
                function = Some((index, symbol.st_value(endian)));
                if is_local {
                    break;
                }
            }
        }
        let (symbol, value) = function.ok_or_else(weak)?;
        let symbol = u32::try_from(symbol.0).map_err(|_| weak())?;
        Ok((symbol, call.offset.wrapping_sub(value).cast_signed()))
    }

    fn write_no_op(&self, call: &Call, bytes: &mut [u8]) -> Result<(), FormatError> {
        let endian = self.tables.endian;
        let section = self.tables.sections.section(call.section);
        let section = section.map_err(|_| error(self.tables.sections_at, "a section"))?;
        let code_at = section.sh_offset(endian) + call.offset;
        // The type is the lower half of r_info, which follows r_offset; NONE is 0 everywhere.
        let type_at = call.relocation_at + if self.is_little() { 8 } else { 12 };
        for (at, new) in [(code_at, self.shape.no_op), (type_at, &[0; 4])] {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let place = bytes.get_mut(at..at.saturating_add(new.len()));
            let place = place.ok_or_else(|| error(0, "code in the file"))?;
            place.copy_from_slice(new);
        }
        Ok(())
    }

    fn is_little(&self) -> bool {
        self.tables.endian == Endianness::Little
    }

    fn defined(&self, index: SymbolIndex) -> Result<(SectionIndex, u64), FormatError> {
        let at = self.tables.sections_at;
        let symbol = self.tables.symbols.symbol(index);
        let symbol = symbol.map_err(|_| error(at, "a symbol of a relocation"))?;
        let endian = self.tables.endian;
        let section = self.tables.symbols.symbol_section(endian, symbol, index);
        let section = section.ok().flatten();
        let section = section.ok_or_else(|| error(at, "a symbol of a section"))?;
        Ok((section, symbol.st_value(endian)))
    }

    fn place(&self, section: SectionIndex, offset: u64) -> Result<CodePlace, FormatError> {
        Ok(CodePlace {
            section: self.section_name(section)?.to_vec(),
            offset,
        })
    }
}

fn is_traced(section: &[u8]) -> bool {
    let [text, others @ ..] = &TRACED_SECTIONS;
    section.starts_with(text) || others.contains(&section)
}
