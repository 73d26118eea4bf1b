//! Symbol versions (CRCs) in the linker scripts that genksyms writes.
//!
//! In: the text. Out: exported names and their CRCs. Facts: `scripts/genksyms/genksyms.c` before
//! Linux 5.19, with and without `-R` (relative CRCs). Newer trees keep `#SYMVER` lines instead.

use crate::FormatError;

const PREFIX: &[u8] = b"__crc_";

/// The exported names, without `__crc_`, and their CRCs, in order.
///
/// Both shapes may be mixed:
///
/// ```text
/// __crc_foo = 0x12345678;
/// SECTIONS { .rodata : ALIGN(4) { __crc_foo = .; LONG(0x12345678); } }
/// ```
///
/// # Errors
/// The text holds anything else, or a number of more than 32 bits.
pub fn parse(text: &[u8]) -> Result<Vec<(Vec<u8>, u32)>, FormatError> {
    let mut tokens = Tokens { text, at: 0 };
    let mut versions = Vec::new();
    while let Some(token) = tokens.next() {
        let version = if token == b"SECTIONS" {
            tokens.expect(b"{ .rodata : ALIGN ( 4 ) {", "an output section .rodata")?;
            let name = tokens.next().unwrap_or_default();
            let name = exported_name(name).ok_or_else(|| tokens.error("a __crc_ symbol"))?;
            tokens.expect(b"= . ; LONG (", "a value in the section")?;
            let crc = tokens.number()?;
            tokens.expect(b") ; } }", "the end of the output section")?;
            (name, crc)
        } else {
            let name = exported_name(token).ok_or_else(|| tokens.error("a __crc_ symbol"))?;
            tokens.expect(b"=", "an assignment")?;
            let crc = tokens.number()?;
            tokens.expect(b";", "the end of the assignment")?;
            (name, crc)
        };
        versions.push(version);
    }
    Ok(versions)
}

fn exported_name(token: &[u8]) -> Option<Vec<u8>> {
    let name = token.strip_prefix(PREFIX)?;
    (!name.is_empty()).then(|| name.to_vec())
}

/// Words and single marks.
struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.text.get(self.at..)?;
        let start = rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let token = rest.get(start..)?;
        let word = token.iter().take_while(|byte| is_word(**byte)).count();
        let length = word.max(1);
        self.at += start + length;
        token.get(..length)
    }

    /// Takes the tokens that `text` names with blanks between them.
    fn expect(&mut self, text: &[u8], expected: &'static str) -> Result<(), FormatError> {
        for token in text.split(|byte| *byte == b' ') {
            if self.next() != Some(token) {
                return Err(self.error(expected));
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Result<u32, FormatError> {
        let digits = self.next().and_then(|token| token.strip_prefix(b"0x"));
        let number = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        number.ok_or_else(|| self.error("a hexadecimal number of 32 bits"))
    }

    fn error(&self, expected: &'static str) -> FormatError {
        FormatError::new("symbol versions", self.at as u64, expected)
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_read_in_order() {
        let text = b"__crc_foo = 0x12345678;\n__crc_b.1=0x0000000f;\n\
            SECTIONS { .rodata : ALIGN(4) { __crc_bar = .; LONG(0xdeadbeef); } }\n";
        let expected = [
            (b"foo".to_vec(), 0x1234_5678),
            (b"b.1".to_vec(), 0xf),
            (b"bar".to_vec(), 0xdead_beef),
        ];
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn no_exports_give_no_versions() {
        assert_eq!(parse(b" \n"), Ok(vec![]));
    }

    #[test]
    fn anything_else_is_an_error() {
        let cases: [&[u8]; 9] = [
            b"foo = 0x1;",
            b"__crc_ = 0x1;",
            b"__crc_foo = 1;",
            b"__crc_foo = 0x;",
            b"__crc_foo = 0x+1;",
            b"__crc_foo = 0x123456789;",
            b"__crc_foo = 0x1",
            b"SECTIONS { .data : ALIGN(4) { __crc_a = .; LONG(0x1); } }",
            b"SECTIONS { .rodata : ALIGN(4) { __crc_a = .; LONG(0x1); }",
        ];
        for text in cases {
            assert!(parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }
}
