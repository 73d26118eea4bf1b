//! What modpost reads of a source for a module's `srcversion`.
//!
//! In: a text. Out: the bytes that count. It is no reader of C: modpost's own idea of comments and strings decides.

/// The bytes that scripts/mod/sumversion.c takes of a source: block comments and blanks are left out, `//`
/// comments are not, and a quote begins a string wherever it stands.
pub(super) fn of_srcversion(text: &[u8]) -> Vec<u8> {
    let mut taken = Vec::with_capacity(text.len());
    let mut place = 0;
    while let Some(byte) = text.get(place) {
        let rest = &text[place..];
        if rest.starts_with(b"\\\n") {
            place += 2;
        } else if rest.starts_with(b"/*") {
            // As `parse_comment` there: the slash of `/*/` ends it too.
            let end = memchr::memmem::find(&rest[1..], b"*/");
            place += end.map_or(rest.len(), |end| end + 3);
        } else if *byte == b'"' {
            let is_end = |at: &usize| rest[*at] == b'"' && rest[*at - 1] != b'\\';
            let end = (1..rest.len()).find(is_end);
            let length = end.map_or(rest.len(), |end| end + 1);
            taken.extend(&rest[..length]);
            place += length;
        } else {
            if !byte.is_ascii_whitespace() {
                taken.push(*byte);
            }
            place += 1;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_srcversion_is_made_of() {
        let of = |text: &str| String::from_utf8(of_srcversion(text.as_bytes())).unwrap();
        assert_eq!(of("int  a; /* b */ // c d\n"), "inta;//cd");
        assert_eq!(of("f(\"a  /* b\"); \\\nint c;"), "f(\"a  /* b\");intc;");
        assert_eq!(of("\"a\\\" b\" c"), "\"a\\\" b\"c");
        assert_eq!(of("/*/// a */ b"), "//a*/b");
        assert_eq!(of("a /* open"), "a");
        assert_eq!(of("\"open  b"), "\"open  b");
    }
}
