//! Comes in: the bytes of a module or another object. Goes out: the lists that a loader or a
//! reader of it goes by, in the file's order.
//!
//! Does not compare, and does not know which list is right.

use anyhow::{Context as _, Result, bail};
use klto_core::Failure;
use object::{Endian as _, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use crate::image::parse_elf;

/// The `key=value` pairs of the module's `.modinfo` section, in order.
///
/// # Errors
/// `module` is no ELF file or has no `.modinfo`.
pub fn modinfo(module: &[u8]) -> Result<Vec<(String, String)>> {
    let file = parse_elf(module)?;
    let section = file
        .section_by_name(".modinfo")
        .ok_or_else(|| Failure::bad_input("the module has no section .modinfo"))?;
    let data = section.data().context("reading .modinfo")?;
    // Sections of one link are padded with zeroes, so empty strings stand between the pairs.
    let texts = data
        .split(|byte| *byte == 0)
        .filter(|text| !text.is_empty());
    let pair = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        let (key, value) = text.split_once('=').unwrap_or((&text, ""));
        (key.to_owned(), value.to_owned())
    };
    Ok(texts.map(pair).collect())
}

/// The names of all sections of `object`, in order.
///
/// # Errors
/// `object` is no ELF file, or a name is not UTF-8.
pub fn section_list(object: &[u8]) -> Result<Vec<String>> {
    let file = parse_elf(object)?;
    file.sections()
        .map(|section| {
            Ok(section
                .name()
                .context("reading a section's name")?
                .to_owned())
        })
        .collect()
}

/// The names of all symbols of `object`, defined or not, in symbol table order. Names of
/// sections and source files are left out.
///
/// # Errors
/// `object` is no ELF file, or a name is not UTF-8.
pub fn symbol_list(object: &[u8]) -> Result<Vec<String>> {
    let file = parse_elf(object)?;
    let mut names = Vec::new();
    for symbol in file.symbols() {
        if matches!(symbol.kind(), SymbolKind::File | SymbolKind::Section) {
            continue;
        }
        let name = symbol.name().context("reading a symbol's name")?;
        if !name.is_empty() {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The symbols that the module imports and the checksums it expects of them, in the order of its
/// `__versions` section; none without `CONFIG_MODVERSIONS`.
///
/// An entry is `struct modversion_info` (`include/linux/module.h`): a `long` and a name, 64 bytes
/// together.
///
/// # Errors
/// `module` is no ELF file, or an entry is cut short or holds no 32-bit checksum.
pub fn module_versions(module: &[u8]) -> Result<Vec<(String, u32)>> {
    const ENTRY_SIZE: usize = 64;
    let file = parse_elf(module)?;
    let Some(section) = file.section_by_name("__versions") else {
        return Ok(Vec::new());
    };
    let data = section.data().context("reading __versions")?;
    if !data.len().is_multiple_of(ENTRY_SIZE) {
        bail!(Failure::bad_input("__versions ends within an entry"));
    }
    let crc_size = if file.is_64() { 8 } else { 4 };
    let entry = |entry: &[u8]| {
        let (crc, name) = entry.split_at_checked(crc_size)?;
        let crc = if file.is_64() {
            let long = crc.try_into().ok()?;
            u32::try_from(file.endianness().read_u64(long)).ok()?
        } else {
            let long = crc.try_into().ok()?;
            file.endianness().read_u32(long)
        };
        let name = name.split(|byte| *byte == 0).next()?;
        Some((String::from_utf8_lossy(name).into_owned(), crc))
    };
    data.chunks(ENTRY_SIZE)
        .map(|bytes| entry(bytes).context("reading an entry of __versions"))
        .collect()
}
