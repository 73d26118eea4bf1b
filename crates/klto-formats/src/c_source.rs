//! What of a C source or header can matter to a compile without debug information: its tokens and their
//! lines, the options of Kconfig that it mentions, the headers that it names in quotes.
//!
//! In: the bytes of a file. Out: the same for all files that differ in comments and blanks alone, as long
//! as no token moves to another line. It expands nothing and follows no include.

mod essence;
mod lines;
mod srcversion;

use std::collections::BTreeSet;

pub use lines::hides_lines;

/// A file as a compile sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CSource {
    /// The text with each run of blanks and comments as one blank. Line ends are kept, those within comments
    /// as [`COMMENT_LINE_END`], and those after the last token are left out. Two files with equal canonical
    /// text have the same tokens on the same lines.
    pub canonical: Vec<u8>,
    /// Options that it mentions anywhere, with `CONFIG_`, as scripts/basic/fixdep.c finds them.
    pub options: BTreeSet<Vec<u8>>,
    /// Names in `#include "…"`, for which the directory of this file is searched first.
    pub quoted_includes: BTreeSet<Vec<u8>>,
    /// Names of headers for whose existence it asks, by `__has_include` or `__has_include_next`; and names with
    /// `..` that it includes, of which the path does not tell where else they were looked for.
    pub asked_headers: BTreeSet<Vec<u8>>,
    /// Whether it includes a header whose name is not written out in the directive.
    pub computes_includes: bool,
    /// Whether it makes names of options by pasting (`CONFIG_##name`).
    pub pastes_options: bool,
    /// Whether the assembler may be told to read a file; see [`names_assembler_files`]. Comments do not count
    /// where it is certain that they are some.
    pub names_assembler_files: bool,
    /// Whether it has the assembler read a file as text of its own, by `.include`: symbols that the text defines
    /// are in the symbol table of bitcode, and no dependency file names it.
    pub names_assembler_text: bool,
    /// Whether lines of its tokens, or of another file's, may matter though the compiler, asked for each
    /// `__LINE__` that it expands, says nothing of them.
    pub hides_lines: bool,
    /// A word by which it asks for more than files: the clock, or a header that the word does not name.
    pub asks: Option<&'static str>,
}

/// A line end within a comment: no directive ends there.
pub const COMMENT_LINE_END: u8 = 1;

/// Words of [`asks`].
const ASKING: [&str; 6] = [
    "__DATE__",
    "__TIME__",
    "__TIMESTAMP__",
    "__has_embed",
    "__builtin_COLUMN",
    "__builtin_source_location",
];

/// What directives of the assembler that read files look like, or the begin of one: the rest is joined to it
/// by the preprocessor, or is an argument of the assembler's own macro.
const ASSEMBLER_FILES: [&[u8]; 5] = [b"incbin", b".include", b".inc\"", b".inc\\", b".\\\\"];

/// What canonical text begins with, where it is tokens on their lines.
const LINES: &[u8] = b"lines:";

const HAS_INCLUDE: &str = "__has_include";

/// What names of options begin with.
const OPTION: &[u8] = b"CONFIG_";

/// Whether a text of C may tell the assembler to read a file: `.incbin` or `.include`, in letters of any case.
pub fn names_assembler_files(text: &[u8]) -> bool {
    let text = text.to_ascii_lowercase();
    ASSEMBLER_FILES.iter().any(|word| contains(&text, word))
}

/// The first word in a text of C that makes a result depend on something else than the files that were read.
pub fn asks(text: &[u8]) -> Option<&'static str> {
    let mut words = ASKING.into_iter();
    words.find(|word| {
        let places = memchr::memmem::find_iter(text, word.as_bytes());
        let is_end = |place: Option<usize>| {
            let byte = place.and_then(|place| text.get(place));
            byte.is_none_or(|byte| !is_word(*byte))
        };
        let mut whole = places
            .filter(|place| is_end(place.checked_sub(1)) && is_end(place.checked_add(word.len())));
        whole.next().is_some()
    })
}

impl CSource {
    /// Reads a file.
    ///
    /// A file with anything by which a compiler might see other tokens than this reader is taken as it is: a
    /// splice within the begin or end of a comment or in a literal, a carriage return or another odd byte, a
    /// raw string, an apostrophe within a word.
    pub fn read(text: &[u8]) -> Self {
        let mut reader = Reader {
            rest: text,
            canonical: Vec::with_capacity(text.len()),
            quoted_includes: BTreeSet::new(),
            blank: false,
            at_line_start: true,
            computes_includes: false,
            is_odd: has_odd_text(text),
            embeds: false,
            moves_lines: false,
            upward: BTreeSet::new(),
        };
        reader.run();
        let asked = asked_headers(text);
        let asks_for_header = asked.is_none().then_some(HAS_INCLUDE);
        let asks_for_bytes = reader.embeds.then_some("#embed");
        let canonical = match reader.is_odd {
            true => [b"bytes:", text].concat(),
            false => [LINES, &reader.canonical[..]].concat(),
        };
        Self {
            names_assembler_files: names_assembler_files(&canonical),
            names_assembler_text: contains(&canonical.to_ascii_lowercase(), b".include"),
            hides_lines: reader.moves_lines || hides_lines(text),
            canonical,
            options: options(text),
            quoted_includes: reader.quoted_includes,
            computes_includes: reader.computes_includes,
            pastes_options: pastes_options(text),
            asked_headers: &asked.unwrap_or_default() | &reader.upward,
            asks: asks(text).or(asks_for_header).or(asks_for_bytes),
        }
    }

    /// The canonical text without lines that have no token: the same for two files with the same tokens, wherever
    /// their lines are.
    pub fn tokens(&self) -> Vec<u8> {
        lines::without_empty_lines(&self.canonical)
    }
}

fn has_odd_text(text: &[u8]) -> bool {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let is_odd = |byte: &u8| matches!(*byte, b'\r' | COMMENT_LINE_END | 0x0b);
    text.iter().any(is_odd)
        || text.starts_with(BYTE_ORDER_MARK)
        || contains(text, b"R\"")
        || contains(text, b"R\\\n")
        || splices_within_delimiters(text)
        || splices_after_blanks(text)
}

/// Whether `CONFIG_` and the beginning of a name stand before `##`, or a bare `CONFIG_` is an argument of a macro.
fn pastes_options(text: &[u8]) -> bool {
    let is_argument = |place: usize| {
        let after = text.get(place + OPTION.len()..).unwrap_or_default();
        matches!(after.trim_ascii_start().first(), Some(b',' | b')'))
    };
    let is_begin = |place: usize| {
        let before = text.get(..place).unwrap_or_default().trim_ascii_end();
        let before = before.strip_suffix(b"\\").unwrap_or(before);
        let before = before.trim_ascii_end();
        let bytes = before.iter().rev();
        let length = bytes.take_while(|byte| is_word(**byte)).count();
        let word = before.get(before.len() - length..).unwrap_or_default();
        word.starts_with(OPTION)
    };
    memchr::memmem::find_iter(text, OPTION).any(is_argument)
        || memchr::memmem::find_iter(text, b"##").any(is_begin)
}

/// Whether a `/` or `*` is followed by a splice; clang takes blanks before the line end for one too.
fn splices_within_delimiters(text: &[u8]) -> bool {
    memchr::memchr_iter(b'\\', text).any(|place| {
        let (before, after) = text.split_at(place);
        let after = after.get(1..).unwrap_or_default();
        matches!(before.last(), Some(b'/' | b'*')) && after.trim_ascii_start().len() < after.len()
    })
}

/// Whether blanks stand between a backslash and the line end: clang takes that for a splice.
fn splices_after_blanks(text: &[u8]) -> bool {
    memchr::memchr_iter(b'\\', text).any(|place| {
        let after = text.get(place + 1..).unwrap_or_default();
        let blanks = after.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
        let blanks = blanks.count();
        blanks > 0 && after.get(blanks) == Some(&b'\n')
    })
}

/// The names that `__has_include` is asked; `None` where one is not written out.
fn asked_headers(text: &[u8]) -> Option<BTreeSet<Vec<u8>>> {
    let mut names = BTreeSet::new();
    for place in memchr::memmem::find_iter(text, HAS_INCLUDE) {
        let after = text.get(place + HAS_INCLUDE.len()..).unwrap_or_default();
        let after = skip_blanks(after.strip_prefix(b"_next").unwrap_or(after));
        let Some(operand) = after.strip_prefix(b"(") else {
            // `defined(__has_include)` asks for nothing; a macro may ask by another name.
            let before = text.get(..place).unwrap_or_default().trim_ascii_end();
            let before = before.strip_suffix(b"(").unwrap_or(before).trim_ascii_end();
            let tests = [&b"defined"[..], b"ifdef", b"ifndef"];
            match tests.iter().any(|test| before.ends_with(test)) {
                true => continue,
                false => return None,
            }
        };
        let operand = skip_blanks(operand);
        let close = match operand.first() {
            Some(b'<') => b'>',
            Some(b'"') => b'"',
            _ => return None,
        };
        let name = operand.get(1..).unwrap_or_default();
        let end = name
            .iter()
            .position(|byte| *byte == close || *byte == b'\n')?;
        names.insert(name.get(..end)?.to_vec());
    }
    Some(names)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// Names of options in any text: `CONFIG_` where no word goes on, and what follows it.
pub fn options(text: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    for place in memchr::memmem::find_iter(text, OPTION) {
        let goes_on = place.checked_sub(1).and_then(|before| text.get(before));
        if goes_on.is_some_and(|byte| is_word(*byte)) {
            continue;
        }
        let word = text.get(place..).unwrap_or_default();
        let length = word.iter().take_while(|byte| is_word(**byte)).count();
        let word = word.get(..length).unwrap_or_default();
        // The value of an option that is `m` stands under this name, and the name of an option may end so.
        for name in [Some(word), word.strip_suffix(b"_MODULE")] {
            found.extend(name.filter(|name| name.len() > OPTION.len()).map(Vec::from));
        }
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

struct Reader<'a> {
    rest: &'a [u8],
    canonical: Vec<u8>,
    quoted_includes: BTreeSet<Vec<u8>>,
    /// Blanks or comments came since the last byte that was written.
    blank: bool,
    /// Nothing but blanks came since the last line end outside of comments.
    at_line_start: bool,
    computes_includes: bool,
    is_odd: bool,
    embeds: bool,
    /// A directive may say another line.
    moves_lines: bool,
    /// Names with `..` that are included.
    upward: BTreeSet<Vec<u8>>,
}

impl Reader<'_> {
    fn run(&mut self) {
        while let Some((byte, after)) = self.rest.split_first() {
            match (byte, after.first()) {
                (b'/', Some(b'*')) => self.block_comment(),
                (b'/', Some(b'/')) => self.line_comment(),
                (b'"' | b'\'', _) => self.quoted(*byte),
                (b'\n', _) => {
                    self.canonical.push(b'\n');
                    (self.blank, self.at_line_start) = (false, true);
                    self.rest = after;
                }
                (b'#', _) if self.at_line_start => self.directive(),
                (b' ' | b'\t' | b'\r' | 0x0b | 0x0c, _) => {
                    self.blank = true;
                    self.rest = after;
                }
                (b'\\', Some(b'\n')) | (b'%', Some(b':')) if self.at_line_start => {
                    self.take(2);
                    // A directive, or its begin.
                    let next = skip_blanks(self.rest).first();
                    self.moves_lines |= *byte == b'%'
                        || matches!(next, Some(b'#' | b'%' | b'/' | b'\\' | 0x0b | 0x0c));
                }
                // A splice: the blank after it counts, unlike one at the start of a line.
                (b'\\', _) => self.take(1 + usize::from(after.first() == Some(&b'\n'))),
                _ => self.take(1),
            }
        }
        self.forget_last_lines();
    }

    /// Lines without a token after the last one. A splice keeps its line end.
    fn forget_last_lines(&mut self) {
        let is_end = |byte: &&u8| matches!(**byte, b'\n' | COMMENT_LINE_END);
        let ends = self.canonical.iter().rev().take_while(is_end).count();
        let kept = self.canonical.len() - ends;
        let last = kept
            .checked_sub(1)
            .and_then(|last| self.canonical.get(last));
        if last != Some(&b'\\') {
            self.canonical.truncate(kept);
        }
    }

    /// Writes the next bytes as they are.
    fn take(&mut self, count: usize) {
        if self.blank && !self.at_line_start {
            self.canonical.push(b' ');
        }
        (self.blank, self.at_line_start) = (false, false);
        let (taken, after) = self.rest.split_at(count.min(self.rest.len()));
        self.canonical.extend_from_slice(taken);
        self.rest = after;
    }

    fn block_comment(&mut self) {
        let body = self.rest.get(2..).unwrap_or_default();
        let length = memchr::memmem::find(body, b"*/").map_or(body.len(), |end| end + 2);
        let (comment, after) = body.split_at(length);
        let lines = comment.iter().filter(|byte| **byte == b'\n').count();
        self.canonical
            .extend(std::iter::repeat_n(COMMENT_LINE_END, lines));
        self.blank = true;
        self.rest = after;
    }

    /// To the end of its line; a splice continues it.
    fn line_comment(&mut self) {
        loop {
            let length = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
            let (line, after) = self.rest.split_at(length);
            self.rest = after;
            if after.is_empty() || !line.trim_ascii_end().ends_with(b"\\") {
                self.blank = true;
                return;
            }
            self.canonical.push(COMMENT_LINE_END);
            self.rest = after.get(1..).unwrap_or_default();
        }
    }

    /// A string or character literal, or the rest of the line where it does not end there: the
    /// apostrophe of `#error don't` begins none.
    fn quoted(&mut self, quote: u8) {
        // `1'000` of C23, or `don't` where nothing is compiled.
        let prefixes = [b'L', b'U', b'u', b'8'];
        let last = self.canonical.last().filter(|_| !self.blank);
        let in_word = last.is_some_and(|byte| is_word(*byte) && !prefixes.contains(byte));
        self.is_odd |= quote == b'\'' && in_word;
        let mut length = 1;
        while let Some(byte) = self.rest.get(length) {
            match byte {
                b'\\' => {
                    let spliced = self.rest.get(length..).unwrap_or_default();
                    let spliced = spliced.get(1..).unwrap_or_default().first();
                    self.is_odd |= spliced == Some(&b'\n');
                    length += 2;
                }
                b'\n' => {
                    // A splice behind an escape, as in `"\\⏎n"`.
                    self.is_odd |= self.rest.get(length - 1) == Some(&b'\\');
                    break;
                }
                byte if *byte == quote => {
                    length += 1;
                    break;
                }
                _ => length += 1,
            }
        }
        self.take(length);
    }

    /// `#`; and of an include the name, in which nothing begins a comment.
    fn directive(&mut self) {
        let after = skip_blanks(self.rest.get(1..).unwrap_or_default());
        let length = after.iter().take_while(|byte| is_word(**byte)).count();
        let (word, after) = after.split_at(length);
        let name = skip_blanks(after);
        let includes = matches!(word, b"include" | b"include_next" | b"import");
        let is_plain = matches!(name.first(), Some(b'"' | b'<'));
        self.computes_includes |= includes && !is_plain;
        // What is embedded is read byte for byte.
        self.embeds |= word == b"embed";
        let is_number = word.first().is_some_and(u8::is_ascii_digit);
        // Something else than its name comes next, or the name goes on in the next line.
        let is_hidden = word.is_empty() && !matches!(after.first(), None | Some(b'\n'))
            || after.starts_with(b"\\\n");
        self.moves_lines |= word == b"line" || is_number || is_hidden;
        self.computes_includes |= is_hidden;
        let close = match (word, name.first()) {
            (b"include" | b"include_next" | b"import", Some(b'"')) => b'"',
            (b"include" | b"include_next" | b"import", Some(b'<')) => b'>',
            _ => return self.take(1),
        };
        let named = name.get(1..).unwrap_or_default();
        let line = memchr::memchr(b'\n', named).unwrap_or(named.len());
        let line = named.get(..line).unwrap_or_default();
        let Some(end) = memchr::memchr(close, line) else {
            return self.take(1);
        };
        let named = line.get(..end).unwrap_or_default();
        if close == b'"' {
            self.quoted_includes.insert(named.to_vec());
        }
        if named.split(|byte| *byte == b'/').any(|part| part == b"..") {
            self.upward.insert(named.to_vec());
        }
        let begin = self.rest.len() - name.len();
        self.take(begin + 1 + end + 1);
    }
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
    let count = blanks.count();
    text.get(count..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(CSource::read(text.as_bytes()).canonical).unwrap()
    }

    fn is_same(one: &str, other: &str) -> bool {
        canonical(one) == canonical(other)
    }

    #[test]
    fn comments_and_blanks_do_not_count() {
        assert!(is_same(
            "int a; /* one */\n",
            "int  a;\t/* another, longer */ \n"
        ));
        assert!(is_same("int a; // one\nint b;", "int a;\nint b;"));
        assert!(is_same("/* a\n * b */ int c;", "/* x\n y */   int c;"));
        assert!(is_same("a/**/b", "a b"));
        assert!(is_same("#define A(x) #x /* c */\n", "  #define A(x) #x\n"));
        assert!(is_same("// a \\\n b\nint c;", "// x\\\n y\nint c;"));
        assert!(is_same("int a;\n", "int a;\n\n/* the\n end */ // x\n"));
    }

    #[test]
    fn what_a_compiler_sees_counts() {
        for (one, other) in [
            ("int a;", "int b;"),
            ("int a;\n", "\nint a;\n"),
            ("f(a\\ \n b)", "f(a\\ \nb)"),
            ("/* a */ int b;", "/* a\n */ int b;"),
            ("ab", "a b"),
            ("#define F (x)", "#define F(x)"),
            ("\"a  b\"", "\"a b\""),
            ("\"/* a */\"", "\"/* b */\""),
            ("'\"' /* a */", "'\"' b"),
            ("\"\\\"/*\" a /**/", "\"\\\"/*\" b /**/"),
            ("a\\\n b", "a\\\nb"),
            ("/* a \\*/ b", "/* a \\*/ c"),
            ("#define A /* x\n */ 1\n", "#define A\n 1\n"),
            (
                "#if 0\ndon't /* b */\n#endif",
                "#if 0\ndon't /* c */\n#endif",
            ),
            ("#include <a//b.h>\n", "#include <a//c.h>\n"),
            ("a /\\\n* b */ c", "a /\\\n* d */ c"),
            ("// a\nb", "// a\\\nb"),
            ("#define A \\", "#define A \\\n"),
            ("\"abc\\\r\n /* x */\";", "\"abc\\\r\n /* y */\";"),
            ("R\"(a\" /* x */ \")\"", "R\"(a\" /* y */ \")\""),
            ("// x\rint b = 1;", "// x\rint b = 2;"),
            ("\"a\\\\\nn\" \"/* 1 */\"", "\"a\\\\\nn\" \"/* 2 */\""),
            ("1'0; \"' /* x */\"", "1'0; \"' /* y */\""),
            ("#if 0\n\u{1}\n#endif", "#if 0\n/*\n*/\n#endif"),
        ] {
            assert!(!is_same(one, other), "{one:?} and {other:?}");
        }
    }

    #[test]
    fn options_are_found_anywhere() {
        let text =
            "#ifdef CONFIG_A\nIS_ENABLED(CONFIG_B_MODULE) /* CONFIG_C */ MY_CONFIG_D CONFIG_";
        let found = CSource::read(text.as_bytes()).options;
        let wanted = ["CONFIG_A", "CONFIG_B", "CONFIG_B_MODULE", "CONFIG_C"];
        let wanted = wanted.map(|name| name.as_bytes().to_vec());
        assert_eq!(found, BTreeSet::from(wanted));
    }

    #[test]
    fn pasted_options_and_computed_includes_are_noticed() {
        let pastes = |text: &str| CSource::read(text.as_bytes()).pastes_options;
        assert!(pastes("#define A(o) IS_ENABLED(CONFIG_##o)"));
        assert!(pastes("#define A(o) CONFIG_X_ \\\n ## o"));
        assert!(pastes("PASTE(CONFIG_ , o)"));
        assert!(!pastes("#define A(o) o##CONFIG_X /* CONFIG_* */"));
        let computes = |text: &str| CSource::read(text.as_bytes()).computes_includes;
        assert!(computes("#include TRACE_INCLUDE(x)"));
        assert!(computes("#include /* c */ \"a.h\""));
        assert!(computes("#/**/include \"a.h\""));
        assert!(!computes("#include \"a.h\"\n#include <b.h>"));
    }

    #[test]
    fn directives_of_the_assembler_that_read_files_are_noticed() {
        let names = |text: &str| CSource::read(text.as_bytes()).names_assembler_files;
        assert!(names("asm(\".incbin \\\"logo.bin\\\"\");"));
        assert!(names("asm(\".include <a.s>\"); // '"));
        assert!(names("#define D \".inc\" \"bin\""));
        assert!(names("asm(\".INCBIN \\\"logo.bin\\\"\");"));
        assert!(names(r#"asm(".macro m what\n.\\what \"a\"\n.endm");"#));
        assert!(!names(r#"printk("done.\n");"#));
        assert!(!names("/* asm(\".include <a.h>\") */\n#include \"a.h\"\n"));
    }

    #[test]
    fn quoted_includes_are_listed() {
        let text = "#include \"a.h\"\n # include_next \"b/c.h\" // x\n#include <d.h>\n/*\n#include \"no.h\"\n*/";
        let found = CSource::read(text.as_bytes()).quoted_includes;
        let wanted = ["a.h", "b/c.h"].map(|name| name.as_bytes().to_vec());
        assert_eq!(found, BTreeSet::from(wanted));
    }

    #[test]
    fn the_clock_is_noticed() {
        assert_eq!(CSource::read(b"puts(__TIME__)").asks, Some("__TIME__"));
        assert_eq!(CSource::read(b"puts(\"\")").asks, None);
        assert_eq!(CSource::read(b"LUT__TIMESTAMP__SHIFT").asks, None);
        assert_eq!(CSource::read(b"#embed \"x\"").asks, Some("#embed"));
    }

    #[test]
    fn headers_that_are_asked_for_are_listed() {
        let text = "#if defined(__has_include) && __has_include_next(<a.h>)\n# if __has_include (\"b.h\")\n";
        let found = CSource::read(text.as_bytes());
        let wanted = ["a.h", "b.h"].map(|name| name.as_bytes().to_vec());
        assert_eq!(found.asked_headers, BTreeSet::from(wanted));
        assert_eq!(found.asks, None);
        for text in ["#if __has_include(NAME)", "#define HAS __has_include"] {
            let unknown = CSource::read(text.as_bytes());
            assert_eq!(unknown.asks, Some("__has_include"));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "[ \\\\\n\"'/*#a-cCONFIG_]{0,60}") {
            let once = CSource::read(text.as_bytes());
            prop_assert!(once.canonical.len() <= text.len() + LINES.len());
        }
    }
}
