//! Comes in: the bytes of a linked ELF kernel. Goes out: bytes, words and symbol names by
//! virtual address.
//!
//! The kernel's tables of functions come in two forms, see [`EntryForm`]. Knows no table by name,
//! except that the initcall table tells which form the kernel has.

use std::cmp::Reverse;
use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use klto_core::Failure;
use object::elf::SHF_ALLOC;
use object::{
    Architecture, Endian as _, Endianness, Object as _, ObjectSection as _, ObjectSymbol as _,
    SectionFlags, SymbolKind,
};

use crate::names::base_name;

/// How a table of functions names its functions.
///
/// `CONFIG_HAVE_ARCH_PREL32_RELOCATIONS` decides (`include/linux/init.h`, `include/linux/pci.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryForm {
    /// A signed 32-bit distance from the entry's own address: a link-time constant, also in a
    /// kernel that relocates itself.
    Relative32,
    /// The function's address, 4 or 8 bytes.
    Pointer,
}

/// A linked kernel, by address.
pub(crate) struct Image<'data> {
    architecture: Architecture,
    endianness: Endianness,
    is_64: bool,
    loaded: Vec<(u64, &'data [u8])>,
    globals: HashMap<&'data str, u64>,
    symbols: Vec<Symbol<'data>>,
}

struct Symbol<'data> {
    address: u64,
    name: &'data str,
    kind: SymbolKind,
}

impl<'data> Image<'data> {
    /// Reads the sections and symbols of `bytes`; fails where it is no ELF file with symbols.
    pub(crate) fn parse(bytes: &'data [u8]) -> Result<Self> {
        let file = parse_elf(bytes)?;
        let mut image = Self {
            architecture: file.architecture(),
            endianness: file.endianness(),
            is_64: file.is_64(),
            loaded: Vec::new(),
            globals: HashMap::new(),
            symbols: Vec::new(),
        };
        for section in file.sections() {
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
                continue;
            };
            if sh_flags.contains(SHF_ALLOC) {
                let data = section.data().context("reading a section of the kernel")?;
                image.loaded.push((section.address(), data));
            }
        }
        image.read_symbols(&file);
        if image.symbols.is_empty() {
            bail!(Failure::bad_input("the kernel has no symbol table"));
        }
        Ok(image)
    }

    fn read_symbols(&mut self, file: &object::File<'data>) {
        for symbol in file.symbols().filter(|symbol| symbol.is_definition()) {
            // The names that tables need are ASCII: another one cannot be asked for.
            let Ok(name) = symbol.name() else { continue };
            let address = symbol.address();
            if symbol.is_global() {
                self.globals.insert(name, address);
            }
            self.symbols.push(Symbol {
                address,
                name,
                kind: symbol.kind(),
            });
        }
        self.symbols.sort_by_key(|symbol| symbol.address);
    }

    /// The address of a global symbol, if the kernel defines it.
    pub(crate) fn global(&self, name: &str) -> Option<u64> {
        self.globals.get(name).copied()
    }

    /// The address range between two global symbols that the linker script sets.
    pub(crate) fn range(&self, start: &str, end: &str) -> Result<std::ops::Range<u64>> {
        let find = |name: &str| {
            self.global(name)
                .ok_or_else(|| Failure::bad_input(format!("the kernel has no symbol {name}")))
        };
        let range = find(start)?..find(end)?;
        if range.start > range.end {
            bail!(Failure::bad_input(format!("{end} lies before {start}")));
        }
        if range.start < range.end {
            self.bytes(range.start, range.end - range.start)
                .with_context(|| format!("reading from {start} to {end}"))?;
        }
        Ok(range)
    }

    /// The file's bytes for `length` bytes at `address`, which one section must hold.
    pub(crate) fn bytes(&self, address: u64, length: u64) -> Result<&'data [u8]> {
        let found = self.loaded.iter().find_map(|(start, data)| {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            let end = offset.checked_add(usize::try_from(length).ok()?)?;
            data.get(offset..end)
        });
        found.with_context(|| format!("no section holds {length} bytes at {address:#x}"))
    }

    /// The 16-bit word at `address`.
    pub(crate) fn read_u16(&self, address: u64) -> Result<u16> {
        let bytes = self.bytes(address, 2)?.try_into()?;
        Ok(self.endianness.read_u16(bytes))
    }

    /// The 32-bit word at `address`.
    pub(crate) fn read_u32(&self, address: u64) -> Result<u32> {
        let bytes = self.bytes(address, 4)?.try_into()?;
        Ok(self.endianness.read_u32(bytes))
    }

    /// The size of a pointer, in bytes.
    pub(crate) fn pointer_size(&self) -> u64 {
        if self.is_64 { 8 } else { 4 }
    }

    /// The size of a table entry of `form`, in bytes.
    pub(crate) fn entry_size(&self, form: EntryForm) -> u64 {
        match form {
            EntryForm::Relative32 => 4,
            EntryForm::Pointer => self.pointer_size(),
        }
    }

    /// The address that the table entry at `address` names.
    pub(crate) fn target(&self, form: EntryForm, address: u64) -> Result<u64> {
        match form {
            EntryForm::Relative32 => {
                let distance = self.read_u32(address)?.cast_signed();
                let target = address.wrapping_add_signed(i64::from(distance));
                Ok(if self.is_64 {
                    target
                } else {
                    target & u64::from(u32::MAX)
                })
            }
            EntryForm::Pointer if self.is_64 => {
                let bytes = self.bytes(address, 8)?.try_into()?;
                Ok(self.endianness.read_u64(bytes))
            }
            EntryForm::Pointer => Ok(u64::from(self.read_u32(address)?)),
        }
    }

    /// Which form the kernel's tables have.
    ///
    /// Each initcall entry carries a symbol `__initcall_…`, so the smallest distance between two
    /// of them is the size of an entry. Where that says nothing, the architecture does: those that
    /// select `HAVE_ARCH_PREL32_RELOCATIONS` are x86 and arm64.
    pub(crate) fn entry_form(&self) -> EntryForm {
        match self.smallest_initcall_distance() {
            Some(4) if self.is_64 => return EntryForm::Relative32,
            Some(8) if self.is_64 => return EntryForm::Pointer,
            _ => {}
        }
        match self.architecture {
            Architecture::Aarch64 | Architecture::X86_64 | Architecture::I386 => {
                EntryForm::Relative32
            }
            _ => EntryForm::Pointer,
        }
    }

    fn smallest_initcall_distance(&self) -> Option<u64> {
        let range = self.global("__initcall_start")?..self.global("__initcall_end")?;
        let addresses: Vec<u64> = self
            .symbols
            .iter()
            .filter(|symbol| range.contains(&symbol.address) && is_initcall_entry(symbol.name))
            .map(|symbol| symbol.address)
            .collect();
        addresses
            .windows(2)
            .filter_map(|pair| pair[1].checked_sub(pair[0]))
            .filter(|distance| *distance > 0)
            .min()
    }

    /// The name of the entry symbol `__initcall_…` at `address`.
    pub(crate) fn initcall_entry_name(&self, address: u64) -> Option<&'data str> {
        self.at(address)
            .iter()
            .map(|symbol| symbol.name)
            .find(|name| is_initcall_entry(name))
    }

    /// The name of the function at `address`.
    ///
    /// Of several names the one that `hint` contains is taken, then functions go before plain
    /// labels, then the shorter name, so that two builds name an aliased function alike.
    pub(crate) fn function_at(&self, address: u64, hint: &str) -> Result<&'data str> {
        self.at(address)
            .iter()
            .filter(|symbol| is_code_name(symbol))
            .min_by_key(|symbol| {
                let base = base_name(symbol.name);
                let hinted = if hint.contains(base) { base.len() } else { 0 };
                let label = symbol.kind != SymbolKind::Text;
                (Reverse(hinted), label, symbol.name.len(), symbol.name)
            })
            .map(|symbol| symbol.name)
            .with_context(|| format!("no function symbol stands at {address:#x}"))
    }

    fn at(&self, address: u64) -> &[Symbol<'data>] {
        let from = self.symbols.partition_point(|s| s.address < address);
        let to = self.symbols.partition_point(|s| s.address <= address);
        self.symbols.get(from..to).unwrap_or_default()
    }
}

/// Parses any ELF file.
pub(crate) fn parse_elf(bytes: &[u8]) -> Result<object::File<'_>> {
    object::File::parse(bytes).map_err(|error| {
        Failure::bad_input(format!("this is no readable ELF file: {error}")).into()
    })
}

/// `__initcall_foo7` names an entry, `__initcall_start` and `__initcall_end` the table's bounds.
fn is_initcall_entry(name: &str) -> bool {
    name.starts_with("__initcall_") && name != "__initcall_start" && name != "__initcall_end"
}

/// Mapping symbols of the Arm ELF ABI (`$x`, `$d`) and assembler labels name no function.
fn is_code_name(symbol: &Symbol<'_>) -> bool {
    let kind = matches!(
        symbol.kind,
        SymbolKind::Text | SymbolKind::Label | SymbolKind::Unknown
    );
    kind && !symbol.name.is_empty() && !symbol.name.starts_with(['$', '.'])
}
