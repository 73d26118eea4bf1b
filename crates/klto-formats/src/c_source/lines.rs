//! What remains of a source where the lines of its tokens do not matter, and whether a compiler can tell if they
//! do.
//!
//! In: canonical text, or any text. Out: text that is the same wherever lines without a token stand. It does not
//! know which macros mention `__LINE__`.

use super::{COMMENT_LINE_END, LINES, contains, is_word};

/// What text without lines begins with, so that it is equal to no text with them.
const TOKENS: &[u8] = b"tokens:";

/// Words by which a source reads lines other than by `__LINE__`, or keeps the compiler from telling where that is
/// expanded.
const HIDING: [&[u8]; 6] = [
    b"__builtin_LINE",
    b"__builtin_##",
    b"__builtin_ ##",
    // The name of an unnamed type has its line.
    b"__PRETTY_FUNCTION__",
    b"FUNCSIG",
    b"system_header",
];

/// The warning that klto asks for, and the groups in which it is.
const WARNINGS: [&[u8]; 5] = [
    b"-Weverything",
    b"-Wdeprecated",
    b"-Wdeprecated-pragma",
    b"-Wpedantic",
    b"-Wpedantic-macros",
];

/// Whether a text of C, or a word of a call, may read lines unnoticed.
pub fn hides_lines(text: &[u8]) -> bool {
    HIDING.iter().any(|word| contains(text, word)) || names_warning(text) || splices_words(text)
}

/// Whether one of [`WARNINGS`] is named, or a warning of which the whole name is not written in one piece.
fn names_warning(text: &[u8]) -> bool {
    memchr::memmem::find_iter(text, b"-W").any(|place| {
        let name = text.get(place..).unwrap_or_default();
        let is_part = |byte: &&u8| is_word(**byte) || **byte == b'-';
        let (name, after) = name.split_at(name.iter().take_while(is_part).count());
        // As `\x64`, but not what stands for no letter.
        let escape = after.strip_prefix(b"\\").and_then(<[u8]>::first);
        let is_escaped = escape.is_some_and(|byte| !b"\"'?abeEfnrtv".contains(byte));
        let close = [&b"\""[..], b"\\\""];
        let goes_on = close.iter().any(|quote| {
            let rest = after.strip_prefix(*quote).map(<[u8]>::trim_ascii_start);
            rest.is_some_and(|rest| rest.starts_with(quote))
        });
        WARNINGS.contains(&name) || is_escaped || goes_on
    })
}

/// Whether a line end is spliced within a word.
fn splices_words(text: &[u8]) -> bool {
    memchr::memmem::find_iter(text, b"\\\n").any(|place| {
        let (before, after) = text.split_at(place);
        let next = after.get(2);
        before.last().is_some_and(|byte| is_word(*byte)) && next.is_some_and(|byte| is_word(*byte))
    })
}

/// Canonical text without lines that have no token. What is kept of line ends tells apart what is on one line, for
/// some warnings do; and a line end behind a splice stays, for it ends a directive. Text that was taken as it is
/// stays so.
pub(super) fn without_empty_lines(canonical: &[u8]) -> Vec<u8> {
    let Some(text) = canonical.strip_prefix(LINES) else {
        return canonical.to_vec();
    };
    let mut kept = Vec::with_capacity(canonical.len());
    kept.extend(TOKENS);
    for byte in text {
        let is_at_start = kept.ends_with(b"\n") || kept.len() == TOKENS.len();
        match *byte {
            COMMENT_LINE_END if is_at_start || kept.ends_with(&[COMMENT_LINE_END]) => {}
            b'\n' if is_at_start && !kept.ends_with(b"\\\n") => {}
            b'\n' => {
                kept.pop_if(|last| *last == COMMENT_LINE_END);
                kept.push(b'\n');
            }
            byte => kept.push(byte),
        }
    }
    kept
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
            (
                "#define A 1\nint b;",
                "/*\n */ #define A 1 /*\n*/\n\n\nint b;",
            ),
            ("f() /*\n*/ ;", "f() /*\n\n\n*/ ;"),
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
            ("if (a) /*\n*/ ;", "if (a) ;"),
            ("R\\\n\"(a\n\nb)\"", "R\\\n\"(a\nb)\""),
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
            "f(__builtin_LI\\\nNE());",
            "#define B(x) __builtin_##x()",
            "puts(__PRETTY_FUNCTION__);",
            "puts(__FUNCSIG__);",
            "#pragma GCC system_header",
            "#pragma GCC diagnostic ignored \"-Wdeprecated\"",
            "#pragma GCC diagnostic ignored \"-Wpedantic-macros\"",
            "#pragma GCC diagnostic ignored \"-Wdep\" \"recated\"",
            "#pragma GCC diagnostic ignored \"-Wdeprecate\\x64\"",
            "#pragma GCC diagnostic ignored \"-Wdeprecated-\\\npragma\"",
            "_Pragma(\"GCC diagnostic ignored \\\"-Wdeprecated\\\"\")",
            "_Pragma(\"GCC diagnostic ignored \\\"-Wdeprecate\\\\x64\\\"\")",
            "_Pragma(\"GCC diagnostic ignored \\\"-Wdep\\\" \\\"recated\\\"\")",
            "#pragma GCC diagnostic ignored \"-W\\deprecated\"",
            "#line 5",
            "\\\n\x0c#line 5",
            " # 5 \"a.c\"",
            "#li\\\nne 5",
            "# \\\n5",
            "\\\n#line 5",
            "/* a */ \\\n /* b */ #line 5",
            "# /**/ line 5",
            "#\x0cline 5",
            "%:line 5",
        ] {
            assert!(hides(text), "{text}");
        }
        for text in [
            "f(__LINE__);",
            "#pragma GCC diagnostic ignored \"-Wdeprecated-declarations\"",
            "#define A(x) #x\nint line;",
            "#ifdef A\n#endif\n#\n",
            "\t\\reg = 1\n",
            "#define A(x) \\\n\t#x \\\n\\\n",
            "_Pragma(\"GCC diagnostic ignored \\\"-Wunused\\\"\")",
            "puts(\"Mem-Wr-Inval\\n\");",
            "/* a */ \\\n\tif (b)\n",
            "}",
            "",
        ] {
            assert!(!hides(text), "{text}");
        }
    }
}
