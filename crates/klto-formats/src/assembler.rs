//! Which files an assembly text makes the assembler read: `.incbin` and `.include`.
//!
//! In: module-level asm, inline asm or an assembly source. Out: the paths, or that they cannot be
//! known from the text. It looks at words, not at statements: a comment or a string that holds a
//! directive counts, so that nothing is missed.

/// The files that an assembly text reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesRead {
    /// These, in order, as the text names them; often none. The assembler looks in its current
    /// directory and then in its `-I` directories. An included file is a text that reads on.
    Literal(Vec<Vec<u8>>),
    /// Files whose names the text does not say.
    Unknown,
}

/// The directives that read a file. LLVM compares directives without regard to case.
const DIRECTIVES: [&[u8]; 2] = [b"incbin", b"include"];

/// The files that `text` reads.
///
/// A path counts as literal if it is one string in double quotes without escapes, macro arguments
/// (`\file`) and inline-asm operands (`$0`, `${0}`), and nothing but `,` or the end of the
/// statement follows. Directives whose name comes from a macro argument or an operand, as `.\name`
/// or `.inc\()bin`, and texts with `.altmacro` give [`FilesRead::Unknown`].
pub fn files_read(text: &[u8]) -> FilesRead {
    let mut paths = Vec::new();
    let mut rest = text;
    while let Some(dot) = rest.iter().position(|byte| *byte == b'.') {
        rest = rest.get(dot + 1..).unwrap_or_default();
        let length = rest.iter().take_while(|byte| is_word(**byte)).count();
        let (word, after) = rest.split_at(length);
        if is_directive(word) {
            match literal_path(after) {
                Some(path) => paths.push(path.to_vec()),
                None => return FilesRead::Unknown,
            }
        } else if word.eq_ignore_ascii_case(b"altmacro") || may_become_directive(word, after) {
            return FilesRead::Unknown;
        }
    }
    FilesRead::Literal(paths)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_directive(word: &[u8]) -> bool {
    DIRECTIVES
        .iter()
        .any(|directive| word.eq_ignore_ascii_case(directive))
}

/// Whether a macro argument or an operand after `word` can complete the name of a directive.
fn may_become_directive(word: &[u8], after: &[u8]) -> bool {
    let starts = |directive: &&[u8]| {
        let start = directive.get(..word.len());
        start.is_some_and(|start| word.eq_ignore_ascii_case(start))
    };
    matches!(after.first(), Some(b'\\' | b'$')) && DIRECTIVES.iter().any(starts)
}

/// The path after a directive, if it is a plain string.
fn literal_path(after: &[u8]) -> Option<&[u8]> {
    let quoted = skip_blanks(after).strip_prefix(b"\"")?;
    let length = quoted.iter().position(|byte| *byte == b'"')?;
    let (path, end) = quoted.split_at(length);
    if path.is_empty() || path.iter().any(|byte| matches!(byte, b'\\' | b'$' | b'\n')) {
        return None;
    }
    match skip_blanks(end.get(1..)?).first() {
        None | Some(b'\n' | b'\r' | b';' | b',' | b'#' | b'/') => Some(path),
        Some(_) => None,
    }
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let blanks = text.iter().take_while(|byte| is_blank(byte)).count();
    text.get(blanks..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(paths: &[&str]) -> FilesRead {
        FilesRead::Literal(paths.iter().map(|path| path.as_bytes().to_vec()).collect())
    }

    #[test]
    fn a_text_without_directives_reads_nothing() {
        let text = b".section .text\n1: nop; .word \\x\n.Linclude_\\@: .includes \"a\"\nincbin";
        assert_eq!(files_read(text), literal(&[]));
        assert_eq!(files_read(b""), literal(&[]));
        assert_eq!(files_read(b"."), literal(&[]));
    }

    #[test]
    fn quoted_paths_are_literal() {
        let cases: [(&str, &[&str]); 6] = [
            (".incbin \"a.bin\"", &["a.bin"]),
            ("\t.incbin\t\"a b\" , 4, 8\n", &["a b"]),
            ("x: .include\"m.s\"; .incbin \"n\" # note", &["m.s", "n"]),
            ("/* c */.incbin \"a\" /* d */", &["a"]),
            (".INCBIN \"A\"\r\n", &["A"]),
            (
                "nop\n.incbin \"kernel/config_data.gz\"\n.previous",
                &["kernel/config_data.gz"],
            ),
        ];
        for (text, paths) in cases {
            assert_eq!(files_read(text.as_bytes()), literal(paths), "{text}");
        }
    }

    #[test]
    fn anything_else_is_unknown() {
        let cases = [
            ".macro m file\n.incbin \\file\n.endm",
            ".incbin \"\\file\"",
            ".incbin \"dir/\\name\\().bin\"",
            ".incbin $0",
            ".incbin \"${0:c}\"",
            ".incbin path.bin",
            ".incbin 'a'",
            ".incbin \"a\"\"b\"",
            ".incbin \"a\" \"b\"",
            ".incbin \"a",
            ".incbin \"a\nb\"",
            ".incbin \"\"",
            ".incbin",
            ".incbin /* c */ \"a\"",
            ".incbin\\() \"a\"",
            ".incbin \"a\"\n.include \\b",
            ".ascii \".incbin \\\"a\\\"\"",
            "/* .incbin of a file */",
            ".irp d, bin\n.inc\\d \"a\"\n.endr",
            ".\\d \"a\"",
            ".${0:c} \"a\"",
            ".altmacro\n",
        ];
        for text in cases {
            assert_eq!(files_read(text.as_bytes()), FilesRead::Unknown, "{text}");
        }
    }
}
