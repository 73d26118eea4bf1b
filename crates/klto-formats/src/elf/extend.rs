//! More sections and undefined symbols for a 64-bit ELF object, without moving anything that is in it.
//!
//! New contents, the grown tables and another section header table are put at the end of the file. No
//! index of a section or symbol changes, so every relocation stays right.

use object::elf::{self as format, FileHeader64, Rela64, SectionHeader64, Sym64};
use object::pod::{bytes_of, from_bytes_mut};
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, I64, SectionIndex, U16, U32, U64};

use super::{Class, Tables, class, error};
use crate::FormatError;

type Header = FileHeader64<Endianness>;
type Section = SectionHeader64<Endianness>;

/// A section of numbers that the linker fills in: each is an address in the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddressTable {
    pub name: &'static [u8],
    /// The type of an absolute relocation of 64 bits.
    pub relocation: format::RelocationType,
    /// Index of a symbol, and what is added to its value.
    pub addresses: Vec<(u32, i64)>,
}

/// The object with `table` in a section of its own, loaded at run time.
pub(super) fn add_address_table(
    bytes: &[u8],
    table: &AddressTable,
) -> Result<Vec<u8>, FormatError> {
    let mut object = Extension::of(bytes)?;
    let endian = object.endian;
    let symbols = small(object.symbols.0)?;
    // The linker writes the numbers.
    let numbers = vec![0; table.addresses.len() * 8];
    let (target, row) = object.add_section(table.name, format::SHT_PROGBITS, &numbers)?;
    row.sh_flags = U64::new(endian, format::SHF_ALLOC);
    row.sh_entsize = U64::new(endian, 8);
    let mut entries = Vec::new();
    for (place, (symbol, addend)) in table.addresses.iter().enumerate() {
        let info = u64::from(*symbol) << 32 | u64::from(table.relocation.0);
        entries.extend_from_slice(bytes_of(&Rela64 {
            r_offset: U64::new(endian, place as u64 * 8),
            r_info: U64::new(endian, info),
            r_addend: I64::new(endian, *addend),
        }));
    }
    let name = [b".rela", table.name].concat();
    let (_, row) = object.add_section(&name, format::SHT_RELA, &entries)?;
    row.sh_link = U32::new(endian, symbols);
    row.sh_info = U32::new(endian, target);
    row.sh_entsize = U64::new(endian, size_of::<Rela64<Endianness>>() as u64);
    object.finish()
}

/// The object with one more undefined global symbol for each name.
///
/// # Errors
/// The bytes are no 64-bit ELF object with a symbol table, or it has a table of extended section
/// indices, which would have to grow too.
pub fn add_undefined_symbols(bytes: &[u8], names: &[Vec<u8>]) -> Result<Vec<u8>, FormatError> {
    if names.is_empty() {
        return Ok(bytes.to_vec());
    }
    let mut object = Extension::of(bytes)?;
    let is_extended =
        |section: &Section| section.sh_type(object.endian) == format::SHT_SYMTAB_SHNDX;
    if object.sections.iter().any(is_extended) {
        return Err(error(0, "a plain symbol table"));
    }
    let (symbols, strings) = (object.symbols.0, object.strings.0);
    let mut table = object.contents(symbols)?;
    for name in names {
        let st_name = object.add_string(strings, name)?;
        table.extend(bytes_of(&Sym64 {
            st_name: U32::new(object.endian, st_name),
            st_info: format::STB_GLOBAL | format::STT_NOTYPE,
            st_other: format::STV_DEFAULT.into(),
            st_shndx: U16::new(object.endian, format::SHN_UNDEF),
            st_value: U64::new(object.endian, 0),
            st_size: U64::new(object.endian, 0),
        }));
    }
    object.replace(symbols, &table);
    object.finish()
}

/// An object that grows at its end.
struct Extension {
    bytes: Vec<u8>,
    endian: Endianness,
    /// The section header table, the null section first.
    sections: Vec<Section>,
    symbols: SectionIndex,
    /// Names of symbols.
    strings: SectionIndex,
    /// Names of sections; often the same section.
    names: SectionIndex,
    /// How many of the sections are new.
    rows: usize,
    /// Their names, which go to the end of [`Extension::names`].
    new_names: Vec<u8>,
}

impl Extension {
    fn of(bytes: &[u8]) -> Result<Self, FormatError> {
        if class(bytes)? != Class::Elf64 {
            return Err(error(4, "a 64-bit object"));
        }
        let tables = Tables::<Header>::read(bytes)?;
        let header = Header::parse(bytes).map_err(|_| error(0, "an ELF header"))?;
        let names = header
            .shstrndx(tables.endian, bytes)
            .map_err(|_| error(62, "the index of section names"))?;
        if tables.symbols.section().0 == 0 {
            return Err(error(tables.sections_at, "a symbol table"));
        }
        Ok(Self {
            bytes: bytes.to_vec(),
            endian: tables.endian,
            sections: tables.sections.iter().copied().collect(),
            symbols: tables.symbols.section(),
            strings: tables.symbols.string_section(),
            names: SectionIndex(names as usize),
            rows: 0,
            new_names: Vec::new(),
        })
    }

    /// Puts `contents` at the next multiple of `align`; where they begin.
    fn append(&mut self, align: usize, contents: &[u8]) -> u64 {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(align), 0);
        let place = self.bytes.len() as u64;
        self.bytes.extend_from_slice(contents);
        place
    }

    fn contents(&self, section: usize) -> Result<Vec<u8>, FormatError> {
        let row = self.sections.get(section);
        let data = row.and_then(|row| row.data(self.endian, self.bytes.as_slice()).ok());
        Ok(data
            .ok_or_else(|| error(0, "a table in the file"))?
            .to_vec())
    }

    /// Other contents for a table, at the end of the file.
    fn replace(&mut self, section: usize, contents: &[u8]) {
        let place = self.append(8, contents);
        let endian = self.endian;
        if let Some(row) = self.sections.get_mut(section) {
            row.sh_offset = U64::new(endian, place);
            row.sh_size = U64::new(endian, contents.len() as u64);
        }
    }

    fn add_string(&mut self, section: usize, text: &[u8]) -> Result<u32, FormatError> {
        let mut table = self.contents(section)?;
        let place = small(table.len())?;
        table.extend_from_slice(text);
        table.push(0);
        self.replace(section, &table);
        Ok(place)
    }

    /// One more section; its index, and its row, whose name is complete after [`Extension::finish`].
    fn add_section(
        &mut self,
        name: &[u8],
        kind: format::SectionType,
        contents: &[u8],
    ) -> Result<(u32, &mut Section), FormatError> {
        let place = self.append(8, contents);
        let offset = small(self.new_names.len())?;
        let index = self.sections.len();
        self.new_names.extend_from_slice(name);
        self.new_names.push(0);
        let endian = self.endian;
        self.rows += 1;
        self.sections.push(Section {
            // Relative to the new names until the table is written.
            sh_name: U32::new(endian, offset),
            sh_type: U32::new(endian, kind),
            sh_flags: U64::new(endian, format::SectionFlags(0)),
            sh_addr: U64::new(endian, 0),
            sh_offset: U64::new(endian, place),
            sh_size: U64::new(endian, contents.len() as u64),
            sh_link: U32::new(endian, 0),
            sh_info: U32::new(endian, 0),
            sh_addralign: U64::new(endian, 8),
            sh_entsize: U64::new(endian, 0),
        });
        let row = self.sections.last_mut();
        let row = row.ok_or_else(|| error(0, "a section header table"))?;
        Ok((small(index)?, row))
    }

    /// The file with the names of the new sections, and its table of all sections at the end.
    fn finish(mut self) -> Result<Vec<u8>, FormatError> {
        let mut names = self.contents(self.names.0)?;
        let first_new = self.sections.len() - self.rows;
        for row in self.sections.iter_mut().skip(first_new) {
            let offset = small(names.len())?.checked_add(row.sh_name.get(self.endian));
            let offset = offset.ok_or_else(|| error(0, "names in 4 GiB"))?;
            row.sh_name = U32::new(self.endian, offset);
        }
        if self.rows > 0 {
            names.extend_from_slice(&self.new_names);
            self.replace(self.names.0, &names);
        }
        // A number that does not fit stands in the null section (System V ABI, chapter 4: e_shnum).
        let all = self.sections.len() as u64;
        let plain = u16::try_from(all).ok();
        let plain = plain.filter(|count| *count < format::SHN_LORESERVE);
        if let (None, Some(null)) = (plain, self.sections.first_mut()) {
            null.sh_size = U64::new(self.endian, all);
        }
        let table: Vec<u8> = self.sections.iter().flat_map(bytes_of).copied().collect();
        let place = self.append(8, &table);
        let (header, _) =
            from_bytes_mut::<Header>(&mut self.bytes).map_err(|()| error(0, "an ELF header"))?;
        header.e_shoff = U64::new(self.endian, place);
        header.e_shnum = U16::new(self.endian, plain.unwrap_or(0));
        Ok(self.bytes)
    }
}

fn small<T: TryInto<u32>>(number: T) -> Result<u32, FormatError> {
    number
        .try_into()
        .map_err(|_| error(0, "an index of 32 bits"))
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::super::{Binding, Place, section_names, symbols};
    use super::*;

    #[test]
    fn undefined_symbols_come_after_all_others() {
        for sample in &Sample::ALL[2..] {
            let old = sample.object();
            let new = add_undefined_symbols(&old, &[b"one".to_vec(), b"two".to_vec()]).unwrap();
            let (before, after) = (symbols(&old).unwrap(), symbols(&new).unwrap());
            assert_eq!(after[..before.len()], before);
            let names: Vec<&[u8]> = after[before.len()..]
                .iter()
                .map(|symbol| {
                    assert_eq!(symbol.place, Place::Undefined);
                    assert_eq!(symbol.binding, Binding::Global);
                    &symbol.name[..]
                })
                .collect();
            assert_eq!(names, [b"one", b"two"]);
            assert_eq!(section_names(&new).unwrap(), section_names(&old).unwrap());
        }
    }

    #[test]
    fn nothing_to_add_gives_equal_bytes_and_32_bits_are_refused() {
        for sample in Sample::ALL {
            let bytes = sample.object();
            assert_eq!(add_undefined_symbols(&bytes, &[]).unwrap(), bytes);
        }
        let narrow = Sample::ALL[0].object();
        assert!(add_undefined_symbols(&narrow, &[b"one".to_vec()]).is_err());
    }
}
