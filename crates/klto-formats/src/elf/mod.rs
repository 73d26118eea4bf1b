//! ELF objects: symbols and section names of both classes and byte orders, and changed objects.
//!
//! In: the bytes of an object. Out: owned views, or a new object in which nothing has moved. Tables are
//! read by the `object` crate. Of code only calls of the function tracer's entry are looked at.

mod extend;
mod listing;
mod mcount;
mod rename;
#[cfg(test)]
pub(crate) mod sample;

use object::Endianness;
use object::elf::{self as format, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, SectionTable, Sym, SymbolTable};

use crate::FormatError;

pub use extend::add_undefined_symbols;
pub use listing::{Listing, listing};
pub use mcount::{CodePlace, entry_calls, record_entry_calls, recorded_entries};
pub use rename::rename_symbols;

/// Where a symbol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// In another object.
    Undefined,
    /// In a section of this object.
    Defined,
    /// Wherever the linker makes room for it.
    Common,
    /// At a fixed value, as a CRC.
    Absolute,
}

/// Who sees a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// This object.
    Local,
    /// Every object.
    Global,
    /// Every object, unless another defines it too.
    Weak,
}

/// What a symbol names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Code.
    Function,
    /// A variable, also a common or thread-local one.
    Object,
    /// A section; such a symbol often has no name of its own.
    Section,
    /// The source file.
    File,
    /// Not said, or something else.
    Other,
}

/// A symbol of an ELF object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// The name; may be empty.
    pub name: Vec<u8>,
    /// Where it is.
    pub place: Place,
    /// Who sees it.
    pub binding: Binding,
    /// What it names.
    pub kind: Kind,
    /// Its value: in a relocatable object the offset in its section, if absolute the value itself.
    pub value: u64,
}

/// Whether `bytes` start as an ELF file does.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(&format::ELFMAG)
}

/// The symbols of `.symtab` in its order, without the null symbol; none if there is no `.symtab`.
///
/// # Errors
/// The bytes are not ELF, or a table reaches past its bounds.
pub fn symbols(bytes: &[u8]) -> Result<Vec<Symbol>, FormatError> {
    match class(bytes)? {
        Class::Elf32 => symbols_of::<FileHeader32<Endianness>>(bytes),
        Class::Elf64 => symbols_of::<FileHeader64<Endianness>>(bytes),
    }
}

/// The names of all sections in the order of the section table, without the null section.
///
/// # Errors
/// The bytes are not ELF, or a table reaches past its bounds.
pub fn section_names(bytes: &[u8]) -> Result<Vec<Vec<u8>>, FormatError> {
    match class(bytes)? {
        Class::Elf32 => section_names_of::<FileHeader32<Endianness>>(bytes),
        Class::Elf64 => section_names_of::<FileHeader64<Endianness>>(bytes),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Elf32,
    Elf64,
}

fn class(bytes: &[u8]) -> Result<Class, FormatError> {
    match object::FileKind::parse(bytes) {
        Ok(object::FileKind::Elf32) => Ok(Class::Elf32),
        Ok(object::FileKind::Elf64) => Ok(Class::Elf64),
        _ => Err(error(0, "an ELF header")),
    }
}

const fn error(offset: u64, expected: &'static str) -> FormatError {
    FormatError::new("ELF", offset, expected)
}

/// The tables of an object that the readers share.
struct Tables<'a, H: FileHeader> {
    endian: H::Endian,
    /// Offset of the section header table.
    sections_at: u64,
    sections: SectionTable<'a, H>,
    symbols: SymbolTable<'a, H>,
}

impl<'a, H: FileHeader<Endian = Endianness>> Tables<'a, H> {
    fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let header = H::parse(bytes).map_err(|_| error(0, "an ELF header"))?;
        let endian = header
            .endian()
            .map_err(|_| error(5, "a known byte order"))?;
        let sections_at = header.e_shoff(endian).into();
        let sections = header
            .sections(endian, bytes)
            .map_err(|_| error(sections_at, "a section header table"))?;
        let symbols = sections
            .symbols(endian, bytes, format::SHT_SYMTAB)
            .map_err(|_| error(sections_at, "a symbol table and its string table"))?;
        Ok(Self {
            endian,
            sections_at,
            sections,
            symbols,
        })
    }
}

fn symbols_of<H: FileHeader<Endian = Endianness>>(
    bytes: &[u8],
) -> Result<Vec<Symbol>, FormatError> {
    let tables = Tables::<H>::read(bytes)?;
    let endian = tables.endian;
    let read = |symbol: &H::Sym| {
        let name = tables.symbols.symbol_name(endian, symbol);
        let name = name.map_err(|_| error(tables.sections_at, "symbol names in a string table"))?;
        Ok(Symbol {
            name: name.to_vec(),
            place: place(symbol.st_shndx(endian)),
            binding: binding(symbol.st_bind()),
            kind: kind(symbol.st_type()),
            value: symbol.st_value(endian).into(),
        })
    };
    tables.symbols.iter().skip(1).map(read).collect()
}

fn section_names_of<H: FileHeader<Endian = Endianness>>(
    bytes: &[u8],
) -> Result<Vec<Vec<u8>>, FormatError> {
    let tables = Tables::<H>::read(bytes)?;
    let read = |section: &H::SectionHeader| {
        let name = tables.sections.section_name(tables.endian, section);
        name.map(<[u8]>::to_vec)
            .map_err(|_| error(tables.sections_at, "section names in a string table"))
    };
    tables.sections.iter().skip(1).map(read).collect()
}

fn place(section: format::SymbolSection) -> Place {
    match section {
        format::SHN_UNDEF => Place::Undefined,
        format::SHN_ABS => Place::Absolute,
        format::SHN_COMMON => Place::Common,
        _ => Place::Defined,
    }
}

fn binding(binding: format::SymbolBind) -> Binding {
    match binding {
        format::STB_LOCAL => Binding::Local,
        format::STB_WEAK => Binding::Weak,
        _ => Binding::Global,
    }
}

fn kind(kind: format::SymbolType) -> Kind {
    match kind {
        format::STT_FUNC | format::STT_GNU_IFUNC => Kind::Function,
        format::STT_OBJECT | format::STT_COMMON | format::STT_TLS => Kind::Object,
        format::STT_SECTION => Kind::Section,
        format::STT_FILE => Kind::File,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::sample::Sample;
    use super::*;

    #[test]
    fn symbols_and_sections_are_read_in_every_class_and_byte_order() {
        for sample in Sample::ALL {
            let bytes = sample.object();
            assert!(is_elf(&bytes));
            let symbols = symbols(&bytes).unwrap();
            let names: Vec<&[u8]> = symbols.iter().map(|symbol| &symbol.name[..]).collect();
            assert_eq!(names, [&b"local.llvm.42"[..], b"crc", b"used", b"common"]);
            let places = symbols.iter().map(|symbol| symbol.place);
            assert!(places.eq([
                Place::Defined,
                Place::Absolute,
                Place::Undefined,
                Place::Common
            ]));
            assert_eq!(symbols[0].binding, Binding::Local);
            assert_eq!(symbols[0].kind, Kind::Function);
            assert_eq!(symbols[1].value, 0x1234_5678);
            assert_eq!(symbols[2].binding, Binding::Weak);
            let sections = section_names(&bytes).unwrap();
            assert_eq!(sections, [&b".symtab"[..], b".strtab"]);
        }
    }

    #[test]
    fn wrong_bytes_are_an_error() {
        assert_eq!(symbols(b"").unwrap_err().expected, "an ELF header");
        assert!(section_names(b"\x7fELF").is_err());
        let bytes = Sample::ALL[0].object();
        for length in 0..bytes.len() {
            assert!(symbols(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
