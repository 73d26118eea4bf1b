//! What genksyms prints, and declarations of which it prints the same.
//!
//! A symbol's version is the CRC-32 of its declaration with all types in it written out, each token followed
//! by a blank (scripts/genksyms/genksyms.c, `expand_and_crc_sym`). That of `char foo[ab];` is the CRC of
//! `char foo [ ab ] `, so a name between the brackets can be chosen that gives any version. Such declarations
//! take the place of megabytes of preprocessed source whose versions are known.
//!
//! In: names and versions. Out: text for genksyms. Whether it really prints the same is for it to say.

use crate::{FormatError, symbol_versions};

/// One more than the bits of a CRC, so that some choice of letters gives every one, and then some.
const LETTERS: usize = 48;

/// The exported names and their versions, in order, in what genksyms printed: a linker script before Linux
/// 5.19, lines `#SYMVER foo 0x12345678` since.
///
/// # Errors
/// The text holds anything else.
pub fn printed_versions(text: &[u8]) -> Result<Vec<(Vec<u8>, u32)>, FormatError> {
    if !text.starts_with(b"#") {
        return symbol_versions::parse(text);
    }
    let mut at = 0;
    let mut versions = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let version = std::str::from_utf8(line).ok().and_then(parse_line);
        versions.push(version.ok_or_else(|| error(at))?);
        at += line.len();
    }
    Ok(versions)
}

fn parse_line(line: &str) -> Option<(Vec<u8>, u32)> {
    let mut words = line.strip_prefix("#SYMVER ")?.split_ascii_whitespace();
    let (name, version) = (words.next()?, words.next()?);
    let version = u32::from_str_radix(version.strip_prefix("0x")?, 16).ok()?;
    words.next().is_none().then(|| (name.into(), version))
}

/// Declarations of exported symbols that have these versions; `None` where no choice of letters gives one.
pub fn declarations(versions: &[(Vec<u8>, u32)]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for (name, version) in versions {
        let letters = letters_for(name, *version)?;
        for part in [
            b"char ",
            &name[..],
            b"[",
            &letters,
            b"];\n__GENKSYMS_EXPORT_SYMBOL(",
            name,
            b");\n",
        ] {
            text.extend_from_slice(part);
        }
    }
    Some(text)
}

/// A name of letters `a` and `b` between the brackets. The CRC is linear: each `b` in place of an `a` flips
/// the same bits whatever the others are, so the choice is a system of equations over one bit.
fn letters_for(name: &[u8], version: u32) -> Option<[u8; LETTERS]> {
    let crc = |letters: &[u8]| {
        let mut hasher = crc32fast::Hasher::new();
        for part in [b"char ", name, b" [ ", letters, b" ] "] {
            hasher.update(part);
        }
        hasher.finalize()
    };
    let mut letters = [b'a'; LETTERS];
    let unchanged = crc(&letters);
    // For each bit a sum of flips that has it as its highest, and which letters are in the sum.
    let mut sums: [Option<(u32, u64)>; 32] = [None; 32];
    for place in 0..LETTERS {
        let mut flipped = letters;
        *flipped.get_mut(place)? = b'b';
        let (mut flips, mut chosen) = (crc(&flipped) ^ unchanged, 1_u64 << place);
        while let Some(highest) = flips.checked_ilog2() {
            let sum = sums.get_mut(highest as usize)?;
            match *sum {
                Some((other, places)) => {
                    flips ^= other;
                    chosen ^= places;
                }
                None => {
                    *sum = Some((flips, chosen));
                    break;
                }
            }
        }
    }
    let (mut wanted, mut chosen) = (version ^ unchanged, 0_u64);
    while let Some(highest) = wanted.checked_ilog2() {
        let (flips, places) = (*sums.get(highest as usize)?)?;
        wanted ^= flips;
        chosen ^= places;
    }
    for (place, letter) in letters.iter_mut().enumerate() {
        if chosen >> place & 1 == 1 {
            *letter = b'b';
        }
    }
    Some(letters)
}

const fn error(offset: usize) -> FormatError {
    FormatError::new(
        "genksyms' output",
        offset as u64,
        "a line #SYMVER NAME VERSION",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let of_6_12 = b"#SYMVER foo 0x7b341516\n#SYMVER __bar 0x0000000f\n";
        let versions = [(b"foo".to_vec(), 0x7b34_1516), (b"__bar".to_vec(), 0xf)];
        assert_eq!(printed_versions(of_6_12).unwrap(), versions);
        let of_5_10 = b"__crc_foo = 0x7b341516;\n__crc___bar = 0x0000000f;\n";
        assert_eq!(printed_versions(of_5_10).unwrap(), versions);
        assert_eq!(printed_versions(b""), Ok(vec![]));
        for text in [
            "#SYMVER foo 7b341516\n",
            "#SYMVER foo\n",
            "#SYMVER a 0x1 b\n",
            "#x\n",
        ] {
            assert!(printed_versions(text.as_bytes()).is_err(), "{text}");
        }
    }

    /// genksyms of Linux 6.12 prints 0x7b341516 for `char foo[aab];`.
    #[test]
    fn a_version_is_the_crc_of_the_declaration() {
        assert_eq!(crc32fast::hash(b"char foo [ aab ] "), 0x7b34_1516);
    }

    #[test]
    fn every_version_has_a_declaration() {
        for version in [0, 1, 0x7b34_1516, 0xdead_beef, u32::MAX] {
            let letters = letters_for(b"jbd2_log_start_commit", version).unwrap();
            let declared = [b"char jbd2_log_start_commit [ ", &letters[..], b" ] "].concat();
            assert_eq!(crc32fast::hash(&declared), version);
        }
        let text = declarations(&[(b"foo".to_vec(), 7), (b"bar".to_vec(), 8)]).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert!(text.ends_with("];\n__GENKSYMS_EXPORT_SYMBOL(bar);\n"));
    }
}
