//! New names for symbols of an ELF object, without moving anything that is in it.
//!
//! A new string table, the old one followed by the new names, is put at the end of the file. The
//! table may also hold the section names (LLVM merges `.shstrtab` into `.strtab`); their offsets
//! stay right because the old contents come first.

use std::collections::BTreeMap;

use object::elf::{self as format, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, SymbolIndex};

use super::{Class, Tables, class, error};
use crate::FormatError;

/// Where the fields are that change; <https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html>.
struct Layout {
    /// Size of a section header.
    section: u64,
    /// Place of `sh_offset` in it; `sh_size` follows.
    section_offset: u64,
    /// Size of the two fields.
    word: u64,
    /// Size of a symbol, which starts with `st_name`.
    symbol: u64,
}

const ELF32: Layout = Layout {
    section: 40,
    section_offset: 16,
    word: 4,
    symbol: 16,
};
const ELF64: Layout = Layout {
    section: 64,
    section_offset: 24,
    word: 8,
    symbol: 24,
};

/// The object with the symbols of `.symtab` renamed: `new_name` gives the new name of a symbol, or
/// `None` where it stays. Symbols without a name are not asked for.
///
/// Equal bytes come back if nothing is renamed.
///
/// # Errors
/// The bytes are not ELF, a table reaches past its bounds, a new name holds a NUL, or the string
/// table is loaded at run time and so cannot move.
pub fn rename_symbols(
    bytes: &[u8],
    new_name: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<u8>, FormatError> {
    match class(bytes)? {
        Class::Elf32 => rename::<FileHeader32<Endianness>>(bytes, new_name, &ELF32),
        Class::Elf64 => rename::<FileHeader64<Endianness>>(bytes, new_name, &ELF64),
    }
}

fn rename<H: FileHeader<Endian = Endianness>>(
    bytes: &[u8],
    new_name: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
    layout: &Layout,
) -> Result<Vec<u8>, FormatError> {
    let tables = Tables::<H>::read(bytes)?;
    let renamed = new_names(&tables, new_name)?;
    if renamed.is_empty() {
        return Ok(bytes.to_vec());
    }
    let at = tables.sections_at;
    let symbols_index = tables.symbols.section();
    let strings_index = tables.symbols.string_section();
    let header = |index| {
        tables
            .sections
            .section(index)
            .map_err(|_| error(at, "a section"))
    };
    let (symbols, strings) = (header(symbols_index)?, header(strings_index)?);
    if strings.sh_flags(tables.endian).contains(format::SHF_ALLOC) {
        return Err(error(at, "a string table that is not loaded"));
    }
    let data = strings.data(tables.endian, bytes);
    let mut table = data
        .map_err(|_| error(at, "a string table in the file"))?
        .to_vec();
    if table.last() != Some(&0) {
        table.push(0);
    }
    let mut patch = Patch {
        bytes: bytes.to_vec(),
        endian: tables.endian,
    };
    let symbols_at = symbols.sh_offset(tables.endian).into();
    let mut offsets = BTreeMap::new();
    for (index, name) in renamed {
        let offset = *offsets.entry(name).or_insert_with_key(|name| {
            let offset = table.len() as u64;
            table.extend(name);
            table.push(0);
            offset
        });
        patch.number(symbols_at + index.0 as u64 * layout.symbol, 4, offset)?;
    }
    let offset_at = at + strings_index.0 as u64 * layout.section + layout.section_offset;
    patch.number(offset_at, layout.word, bytes.len() as u64)?;
    patch.number(offset_at + layout.word, layout.word, table.len() as u64)?;
    patch.bytes.extend(table);
    Ok(patch.bytes)
}

/// The symbols whose name changes, with their new names.
fn new_names<H: FileHeader<Endian = Endianness>>(
    tables: &Tables<'_, H>,
    new_name: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<(SymbolIndex, Vec<u8>)>, FormatError> {
    let mut renamed = Vec::new();
    for (index, symbol) in tables.symbols.enumerate() {
        let old = tables.symbols.symbol_name(tables.endian, symbol);
        let old = old.map_err(|_| error(tables.sections_at, "symbol names in a string table"))?;
        if old.is_empty() {
            continue;
        }
        match new_name(old) {
            Some(new) if new.contains(&0) => {
                return Err(error(tables.sections_at, "new names without NUL"));
            }
            Some(new) if new != old => renamed.push((index, new)),
            _ => {}
        }
    }
    Ok(renamed)
}

/// A file in which numbers change.
struct Patch {
    bytes: Vec<u8>,
    endian: Endianness,
}

impl Patch {
    /// Writes `value` in `size` bytes, 4 or 8, at `offset`.
    fn number(&mut self, offset: u64, size: u64, value: u64) -> Result<(), FormatError> {
        let narrow = || u32::try_from(value).map_err(|_| error(offset, "an offset of 32 bits"));
        let encoded = match (self.endian, size) {
            (Endianness::Little, 8) => value.to_le_bytes().to_vec(),
            (Endianness::Big, 8) => value.to_be_bytes().to_vec(),
            (Endianness::Little, _) => narrow()?.to_le_bytes().to_vec(),
            (Endianness::Big, _) => narrow()?.to_be_bytes().to_vec(),
        };
        let start = offset as usize;
        let place = self
            .bytes
            .get_mut(start..start.saturating_add(encoded.len()));
        match place {
            Some(place) => place.copy_from_slice(&encoded),
            None => return Err(error(offset, "a table in the file")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::super::{section_names, symbols};
    use super::*;

    fn drop_suffix(name: &[u8]) -> Option<Vec<u8>> {
        let at = name.windows(6).position(|part| part == b".llvm.")?;
        Some(name[..at].to_vec())
    }

    #[test]
    fn only_the_asked_name_changes() {
        for sample in Sample::ALL {
            let old = sample.object();
            let new = rename_symbols(&old, &drop_suffix).unwrap();
            let mut expected = symbols(&old).unwrap();
            expected[0].name = b"local".to_vec();
            assert_eq!(symbols(&new).unwrap(), expected);
            assert_eq!(section_names(&new).unwrap(), section_names(&old).unwrap());
        }
    }

    #[test]
    fn nothing_to_rename_gives_equal_bytes() {
        let old = Sample::ALL[3].object();
        assert_eq!(rename_symbols(&old, &|_| None).unwrap(), old);
        let same = rename_symbols(&old, &|name| Some(name.to_vec())).unwrap();
        assert_eq!(same, old);
    }

    #[test]
    fn a_name_with_nul_is_refused() {
        let old = Sample::ALL[0].object();
        let error = rename_symbols(&old, &|_| Some(b"a\0b".to_vec())).unwrap_err();
        assert_eq!(error.expected, "new names without NUL");
    }
}
