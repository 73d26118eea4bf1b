//! Comes in: an AArch64 object. Goes out: how many acquire loads its code has.
//!
//! With LTO, arm64's `READ_ONCE` must be an acquire load (`arch/arm64/include/asm/rwonce.h`). A
//! plain build has those of `smp_load_acquire`, so only two counts side by side prove something.
//! Does not know which load a `READ_ONCE` made.

use anyhow::{Context as _, Result, bail};
use klto_core::Failure;
use object::elf::SHF_EXECINSTR;
use object::{
    Architecture, Object as _, ObjectSection as _, ObjectSymbol as _, SectionFlags, SectionIndex,
};

use crate::image::parse_elf;

/// How many `LDAR`, `LDAPR` and `LDAPUR` instructions of any width the executable sections of
/// `object` hold. Exclusive loads (`LDAXR`), which atomics use, do not count.
///
/// # Errors
/// `object` is no ELF file for AArch64.
pub fn acquire_loads(object: &[u8]) -> Result<usize> {
    let file = parse_elf(object)?;
    if file.architecture() != Architecture::Aarch64 {
        bail!(Failure::bad_input("the object is not for AArch64"));
    }
    let mut count = 0;
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
            continue;
        };
        if sh_flags.contains(SHF_EXECINSTR) {
            let code = section.data().context("reading a section")?;
            let marks = mapping_symbols(&file, section.index(), section.address());
            count += count_in(code, &marks);
        }
    }
    Ok(count)
}

/// What follows a mapping symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Code,
    Data,
}

/// The mapping symbols of a section by offset: `$x` begins code and `$d` data ("ELF for the Arm
/// 64-bit Architecture", section Mapping symbols).
fn mapping_symbols(
    file: &object::File<'_>,
    section: SectionIndex,
    address: u64,
) -> Vec<(u64, Content)> {
    let mut marks = Vec::new();
    for symbol in file.symbols() {
        if symbol.section_index() != Some(section) {
            continue;
        }
        let content = match symbol.name_bytes() {
            Ok(b"$x") => Content::Code,
            Ok(b"$d") => Content::Data,
            Ok(name) if name.starts_with(b"$x.") => Content::Code,
            Ok(name) if name.starts_with(b"$d.") => Content::Data,
            _ => continue,
        };
        if let Some(offset) = symbol.address().checked_sub(address) {
            marks.push((offset, content));
        }
    }
    // Stable: of two marks at one offset the later one in the symbol table holds.
    marks.sort_by_key(|(offset, _)| *offset);
    marks
}

fn count_in(code: &[u8], marks: &[(u64, Content)]) -> usize {
    let mut marks = marks.iter().peekable();
    let mut content = Content::Code;
    let mut count = 0;
    let (words, _) = code.as_chunks::<4>();
    for (offset, word) in (0_u64..).step_by(4).zip(words) {
        while let Some((_, next)) = marks.next_if(|(start, _)| *start <= offset) {
            content = *next;
        }
        // Instructions are little-endian also where data is not.
        if content == Content::Code && is_acquire_load(u32::from_le_bytes(*word)) {
            count += 1;
        }
    }
    count
}

/// The encodings of the Arm Architecture Reference Manual, "Loads and Stores". Bits 31 and 30
/// give the width.
const fn is_acquire_load(word: u32) -> bool {
    // LDARB, LDARH, LDAR: Rs and Rt2 all ones.
    let ldar = word & 0x3fff_fc00 == 0x08df_fc00;
    // LDAPRB, LDAPRH, LDAPR: Rs all ones.
    let ldapr = word & 0x3fff_fc00 == 0x38bf_c000;
    // LDAPUR and its narrow and signed forms; bits 23 and 22 are zero in STLUR.
    let ldapur = word & 0x3f20_0c00 == 0x1900_0000 && word & 0x00c0_0000 != 0;
    ldar || ldapr || ldapur
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_between_code_is_not_counted() {
        let code: Vec<u8> = [0xc8df_fc20_u32; 4]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!(count_in(&code, &[]), 4);
        let marks = [(4, Content::Data), (12, Content::Code)];
        assert_eq!(count_in(&code, &marks), 2);
        assert_eq!(count_in(&code[..7], &marks), 1);
    }
}
