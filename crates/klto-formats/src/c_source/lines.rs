//! What remains of a source when the lines of its tokens do not matter, and whether a compiler can tell if they do.
//!
//! In: canonical text, or any text. Out: text that is the same wherever lines without a token stand. It does not
//! know which macros mention `__LINE__`.

use super::{COMMENT_LINE_END, LINES, contains, is_word};

/// What text without lines begins with, so that it is equal to no text with them.
const TOKENS: &[u8] = b"tokens:";

/// Words by which a source reads lines other than by `__LINE__`, or keeps the compiler from telling where that is
/// expanded: in a system header, and where the warning is ignored by its own name or that of a group.
const HIDING: [&[u8]; 6] = [
    b"__builtin_LINE",
    b"system_header",
    b"-Weverything",
    b"-Wdeprecated\"",
    b"-Wdeprecated-pragma",
    b"-Wpedantic-macros",
];

/// Whether a text of C may read lines unnoticed; see [`HIDING`]. A word of it may be spliced.
pub fn hides_lines(text: &[u8]) -> bool {
    HIDING.iter().any(|word| contains(text, word))
}

/// Canonical text without lines that have no token. A line end behind a splice stays, for it ends a directive;
/// text that was taken as it is stays so.
pub(super) fn without_empty_lines(canonical: &[u8]) -> Vec<u8> {
    let Some(text) = canonical.strip_prefix(LINES) else {
        return canonical.to_vec();
    };
    let mut kept = Vec::with_capacity(canonical.len());
    kept.extend(TOKENS);
    let is_token = |byte: &&u8| **byte != COMMENT_LINE_END;
    for byte in text.iter().filter(is_token) {
        let is_empty = *byte == b'\n' && (kept.ends_with(b"\n") || kept == TOKENS);
        if !is_empty || kept.ends_with(b"\\\n") {
            kept.push(*byte);
        }
    }
    kept
}

/// Whether the name of a macro may stand at the end of the text, with its arguments in another file.
pub(super) fn ends_with_name(canonical: &[u8]) -> bool {
    let text = canonical.strip_prefix(LINES).unwrap_or(canonical);
    let ends = memchr::memrchr_iter(b'\n', text);
    // With the lines that are spliced to it.
    let mut ends = ends.filter(|end| !text[..*end].ends_with(b"\\"));
    let begin = ends.next().map_or(0, |end| end + 1);
    let is_comment_end = |byte: &u8| *byte == COMMENT_LINE_END;
    let line = text.get(begin..).unwrap_or_default();
    let comment = line.iter().take_while(|byte| is_comment_end(byte)).count();
    let line = line.get(comment..).unwrap_or_default().trim_ascii_start();
    line.last().is_some_and(|byte| is_word(*byte)) && !line.starts_with(b"#")
}

#[cfg(test)]
mod tests {
    use super::super::CSource;

    fn tokens(text: &str) -> String {
        String::from_utf8(CSource::read(text.as_bytes()).tokens()).unwrap()
    }

    #[test]
    fn lines_without_a_token_do_not_count() {
        for (one, other) in [
            (
                "int a;\nint b;\n",
                "\n/* one\n two */\nint a;\n\n// x\n\nint b;",
            ),
            ("int a;", "/* a\n */ int a;"),
            ("#define A 1\nint b;", "#define A /*\n */ 1\n\n\nint b;"),
            ("#define A \\\n 1\n", "\n#define A \\\n 1\n\n"),
        ] {
            assert_eq!(tokens(one), tokens(other), "{one:?} and {other:?}");
        }
    }

    #[test]
    fn what_ends_a_directive_or_splits_tokens_counts() {
        for (one, other) in [
            ("int a;\nint b;", "int a; int b;"),
            ("#define A \\\n\n1\n", "#define A \\\n1\n"),
            ("#define A\n1\n", "#define A 1\n"),
            ("a\nb", "ab"),
            ("a\\\nb", "a\nb"),
            ("a /*\n*/ b", "ab"),
            ("int a;\r\n", "\nint a;\r\n"),
            ("f(\"a\\\n\nb\")", "f(\"a\\\nb\")"),
        ] {
            assert_ne!(tokens(one), tokens(other), "{one:?} and {other:?}");
        }
    }

    #[test]
    fn what_hides_lines_is_noticed() {
        let hides = |text: &str| CSource::read(text.as_bytes()).hides_lines;
        for text in [
            "f(__builtin_LINE());",
            "#pragma GCC system_header",
            "#pragma GCC diagnostic ignored \"-Wdeprecated\"",
            "_Pragma(\"clang diagnostic ignored \\\"-Weverything\\\"\")",
            "#line 5",
            " # 5 \"a.c\"",
            "#li\\\nne 5",
            "# \\\n5",
            "X",
            "#endif\nX // a\n\n",
            "a\\\nX",
        ] {
            assert!(hides(text), "{text}");
        }
        for text in [
            "f(__LINE__);",
            "#pragma GCC diagnostic ignored \"-Wdeprecated-declarations\"",
            "#define A(x) #x\nint line;",
            "#ifdef A\n#endif",
            "#define A \\\n b \\\n X\n",
            "int a;\n/* a\n */ #define A X\n",
            "}",
            "",
        ] {
            assert!(!hides(text), "{text}");
        }
    }
}
