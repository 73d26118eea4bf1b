//! The symbols of a linked program as `llvm-nm` prints them, in its default format.
//!
//! In: the bytes of an executable. Out: the text, byte for byte (llvm/tools/llvm-nm/llvm-nm.cpp,
//! llvm/Object/ELFObjectFile.h); or nothing, where the tool must say.

use object::Endianness;
use object::elf::{self as format, FileHeader64, SectionHeader64, Sym64};
use object::read::elf::{FileHeader as _, SectionHeader as _, Sym as _};

use super::Tables;

type Header = FileHeader64<Endianness>;

/// How a listing is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Without an option: by name.
    ByName,
    /// `-n`: by address, undefined symbols first.
    ByAddress,
    /// `-S`: by name, with sizes.
    WithSizes,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line<'a> {
    name: &'a [u8],
    address: u64,
    size: u64,
    letter: u8,
    defined: bool,
}

/// The text; `None` for what is no 64-bit executable of x86_64 or arm64 or has no symbols, and where the
/// order of two lines is open.
pub fn listing(bytes: &[u8], listing: Listing) -> Option<Vec<u8>> {
    if object::FileKind::parse(bytes) != Ok(object::FileKind::Elf64) {
        return None;
    }
    let tables = Tables::<Header>::read(bytes).ok()?;
    let header = Header::parse(bytes).ok()?;
    let endian = tables.endian;
    let machine = header.e_machine(endian);
    let is_known = machine == format::EM_X86_64 || machine == format::EM_AARCH64;
    if header.e_type(endian) == format::ET_REL || !is_known {
        return None;
    }
    let letters: Vec<u8> = tables
        .sections
        .iter()
        .map(|section| section_letter(&tables, section))
        .collect();
    let mut lines = Vec::with_capacity(tables.symbols.len());
    for symbol in tables.symbols.iter().skip(1) {
        let kind = symbol.st_type();
        if kind == format::STT_FILE || kind == format::STT_SECTION {
            continue;
        }
        let name = tables.symbols.symbol_name(endian, symbol).ok()?;
        let is_mapping = name.starts_with(b"$d") || name.starts_with(b"$x");
        if machine == format::EM_AARCH64 && is_mapping {
            continue;
        }
        lines.push(Line {
            name,
            address: symbol.st_value(endian),
            size: symbol.st_size(endian),
            letter: symbol_letter(symbol, &letters, endian)?,
            defined: symbol.st_shndx(endian) != format::SHN_UNDEF,
        });
    }
    // Of none the tool says so on standard error.
    (!lines.is_empty()).then(|| write(lines, listing)).flatten()
}

/// What a local symbol in the section has; `?` where nothing fits.
fn section_letter(tables: &Tables<'_, Header>, section: &SectionHeader64<Endianness>) -> u8 {
    let endian = tables.endian;
    let (kind, flags) = (section.sh_type(endian), section.sh_flags(endian));
    let has = |flag: format::SectionFlags| flags.contains(flag);
    match kind {
        _ if has(format::SHF_EXECINSTR) => b't',
        format::SHT_NOBITS => b'b',
        _ if has(format::SHF_ALLOC) && has(format::SHF_WRITE) => b'd',
        _ if has(format::SHF_ALLOC) => b'r',
        _ => {
            let name = tables.sections.section_name(endian, section);
            match name.is_ok_and(|name| name.starts_with(b".debug")) {
                true => b'N',
                false if has(format::SHF_WRITE) => b'?',
                false => b'n',
            }
        }
    }
}

/// `None` for a symbol of a kind that kernels do not have; `letters` are those of the sections.
fn symbol_letter(symbol: &Sym64<Endianness>, letters: &[u8], endian: Endianness) -> Option<u8> {
    let kind = symbol.st_type();
    let index = symbol.st_shndx(endian);
    let upper_if = |upper: bool, letter: u8| match upper {
        true => letter.to_ascii_uppercase(),
        false => letter,
    };
    let letter = match (symbol.st_bind(), index) {
        (format::STB_WEAK, _) => {
            let letter = if kind == format::STT_OBJECT {
                b'v'
            } else {
                b'w'
            };
            upper_if(index != format::SHN_UNDEF, letter)
        }
        (_, format::SHN_UNDEF) => b'U',
        (binding @ (format::STB_LOCAL | format::STB_GLOBAL), _) => {
            let letter = match index {
                format::SHN_ABS => b'a',
                index => *letters.get(usize::from(index.0))?,
            };
            upper_if(binding == format::STB_GLOBAL, letter)
        }
        _ => return None,
    };
    let is_odd = letter == b'?' || kind == format::STT_GNU_IFUNC || kind == format::STT_COMMON;
    (!is_odd).then_some(letter)
}

fn write(mut lines: Vec<Line<'_>>, listing: Listing) -> Option<Vec<u8>> {
    let by_name = |one: &Line, other: &Line| {
        let order = one.name.cmp(other.name).then(one.size.cmp(&other.size));
        order.then(one.address.cmp(&other.address))
    };
    let by_address = |one: &Line, other: &Line| {
        let order = one.defined.cmp(&other.defined);
        let order = order.then(one.address.cmp(&other.address));
        order
            .then(one.name.cmp(other.name))
            .then(one.size.cmp(&other.size))
    };
    let compare: &dyn Fn(&Line, &Line) -> std::cmp::Ordering = match listing {
        Listing::ByAddress => &by_address,
        Listing::ByName | Listing::WithSizes => &by_name,
    };
    lines.sort_unstable_by(compare);
    let is_open = |pair: &[Line]| match pair {
        [one, other] => compare(one, other).is_eq() && one != other,
        _ => false,
    };
    if lines.windows(2).any(is_open) {
        return None;
    }
    let mut text = Vec::with_capacity(lines.len() * 48);
    for line in lines {
        match line.defined {
            true => push_hexadecimal(&mut text, line.address),
            false => text.extend([b' '; 16]),
        }
        text.push(b' ');
        if listing == Listing::WithSizes {
            match line.defined {
                true => push_hexadecimal(&mut text, line.size),
                false => text.extend([b' '; 16]),
            }
            text.push(b' ');
        }
        text.extend([line.letter, b' ']);
        text.extend(line.name);
        text.push(b'\n');
    }
    Some(text)
}

/// Sixteen digits.
fn push_hexadecimal(text: &mut Vec<u8>, value: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |place: u32| DIGITS[usize::from((value >> (4 * place)) as u8 & 15)];
    text.extend((0..16).rev().map(digit));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, address: u64, letter: u8) -> Line<'_> {
        Line {
            name: name.as_bytes(),
            address,
            size: 8,
            letter,
            defined: letter != b'U',
        }
    }

    fn text(lines: &[Line<'_>], listing: Listing) -> Option<String> {
        write(lines.to_vec(), listing).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn lines_are_in_the_order_that_is_asked_for() {
        let lines = [line("b", 16, b'T'), line("u", 0, b'U'), line("a", 17, b't')];
        let by_address = "                 U u\n0000000000000010 T b\n0000000000000011 t a\n";
        assert_eq!(text(&lines, Listing::ByAddress).unwrap(), by_address);
        let by_name = "0000000000000011 t a\n0000000000000010 T b\n                 U u\n";
        assert_eq!(text(&lines, Listing::ByName).unwrap(), by_name);
        let with_sizes = "0000000000000011 0000000000000008 t a\n";
        assert_eq!(text(&lines[2..], Listing::WithSizes).unwrap(), with_sizes);
        let open = [line("a", 1, b't'), line("a", 1, b'T')];
        assert_eq!(text(&open, Listing::ByName), None);
        assert!(text(&[open[0]; 2], Listing::ByName).is_some());
    }

    #[test]
    fn what_is_no_program_is_left_to_the_tool() {
        assert_eq!(listing(b"BC\xc0\xde", Listing::ByName), None);
    }
}
