//! Comes in: symbol names of objects that went through LTO. Goes out: the names that the source
//! gave, and the list of those that LTO left changed.
//!
//! Does not know whether a changed name was necessary.

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSymbol as _, SymbolKind};

use crate::image::parse_elf;

/// What ThinLTO puts between a promoted local's name and the digest of its module.
const PROMOTED: &str = ".llvm.";

/// The names of `object` that contain `.llvm.`: locals that ThinLTO promoted and nobody put back.
///
/// In symbol table order; a vmlinux, a module or an object will do. LLVM makes these names in
/// `ModuleSummaryIndex::getGlobalNameForLocal`.
///
/// # Errors
/// `object` is no ELF file, or its string table is damaged.
pub fn promoted_names(object: &[u8]) -> Result<Vec<String>> {
    let file = parse_elf(object)?;
    let mut names = Vec::new();
    for symbol in file.symbols() {
        if matches!(symbol.kind(), SymbolKind::File | SymbolKind::Section) {
            continue;
        }
        let name = symbol.name_bytes().context("reading a symbol's name")?;
        let name = String::from_utf8_lossy(name);
        if name.contains(PROMOTED) {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

/// `name` without what LTO and CFI add: `.llvm.N` of a promoted local, `.cfi` and `.cfi_jt` of a
/// function and its jump table entry, `.N` of a local that full LTO renamed.
pub fn base_name(name: &str) -> &str {
    let name = name
        .find(PROMOTED)
        .and_then(|at| name.get(..at))
        .unwrap_or(name);
    let name = name.strip_suffix(".cfi_jt").unwrap_or(name);
    let name = name.strip_suffix(".cfi").unwrap_or(name);
    match name.rsplit_once('.') {
        Some((base, number)) if !base.is_empty() && is_number(number) => base,
        _ => name,
    }
}

/// Whether `text` is a decimal number.
pub(crate) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_name_takes_off_what_lto_adds_and_nothing_else() {
        assert_eq!(base_name("foo.llvm.1234"), "foo");
        assert_eq!(base_name("foo.cfi_jt"), "foo");
        assert_eq!(base_name("foo.cfi.llvm.9"), "foo");
        assert_eq!(base_name("foo.17"), "foo");
        assert_eq!(base_name("foo7"), "foo7");
        assert_eq!(base_name("foo.constprop"), "foo.constprop");
        assert_eq!(base_name(".7"), ".7");
    }
}
