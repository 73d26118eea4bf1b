//! Which files of a compile read the lines of their own tokens: those where `__LINE__` is expanded.
//!
//! In: what a compiler says that first read klto's header. Out: the names of those files, if it said nothing else.
//! The header marks `__LINE__` as deprecated, so that the compiler warns of each place that uses it, through
//! whatever macros. In every other file tokens may move to other lines, and the object is the same, as long as it
//! has no debug information and nothing else that holds places. A source may hide such a place; what tells that is
//! in `klto-formats/src/c_source/lines.rs` and `klto-kbuild/src/front_end.rs`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use klto_core::publish;
use klto_formats::c_source::hides_lines;
use klto_kbuild::OLDEST_LLVM_WITH_DEPRECATED_MACROS;
use klto_kbuild::front_end::FrontEnd;
use klto_wire::MOST_PRINTED;

use crate::scratch::Scratch;

/// Read before everything else. `final` keeps the mark through `#undef` and `#pragma pop_macro`. By the condition
/// the compiler says whether it says anything: after `-w` it does not. No key holds this text or the flags below:
/// where they change so that other files are named, the key of the call gets another version.
const HEADER: &str = r#"#pragma clang deprecated(__LINE__, "klto")
#pragma clang final(__LINE__)
#if __LINE__
#endif
"#;

/// The name under which a compile includes the header: the same for all output trees, as the length of a path
/// would move all places in the bitcode.
const NAME: &str = "klto-line.h";

/// What has the compiler warn, and in a form that is known. A pragma in the header would do the former too, but
/// every look at a warning takes longer in a compiler that has met one.
const FLAGS: [&str; 10] = [
    "-Wdeprecated-pragma",
    "-Wno-error=deprecated-pragma",
    "-fmacro-backtrace-limit=1",
    "-fno-caret-diagnostics",
    "-fno-color-diagnostics",
    "-fdiagnostics-show-option",
    "-fdiagnostics-show-category=none",
    "-fdiagnostics-format=clang",
    "-fshow-column",
    "-fshow-source-location",
];

/// How a warning ends; the place stands before it.
const WARNING: &[u8] =
    b": warning: macro '__LINE__' has been marked as deprecated: klto [-Wdeprecated-pragma]";

/// What follows a warning, after its place.
const NOTES: [&[u8]; 3] = [
    b": note: expanded from macro '",
    b": note: expanded from here",
    b": note: macro marked 'deprecated' here",
];

/// What follows a note where macros are left out.
const SKIPPED: &[u8] = b"note: (skipping ";

/// Where a warning is, before it: the files that include its file.
const INCLUDED_FROM: [&[u8]; 2] = [b"In file included from ", b"                 from "];

/// Whether a compiler that is called so can say where it expands `__LINE__`, and nothing else depends on lines.
pub(crate) fn can_tell(front: &FrontEnd, arguments: &[OsString]) -> bool {
    let hides = |word: &OsString| hides_lines(word.as_bytes());
    !front.shows_columns && !front.hides_lines && !arguments.iter().any(hides)
}

/// Files in which `__LINE__` is expanded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LineUse {
    /// Whether the compiler would have named them.
    pub is_known: bool,
    /// As the compiler names them.
    pub files: BTreeSet<PathBuf>,
}

/// Puts the header into the scratch directory, with no other beside it; its path, where compilers of this major
/// version of LLVM know what it says.
pub(crate) fn place_header(scratch: &Scratch, llvm: u32) -> io::Result<Option<PathBuf>> {
    if llvm < OLDEST_LLVM_WITH_DEPRECATED_MACROS {
        return Ok(None);
    }
    let directory = scratch.path("");
    if placed_header(&directory).is_none() {
        publish(&header_in(&directory), HEADER.as_bytes())?;
    }
    Ok(Some(header_in(&directory)))
}

/// The header in a scratch directory, if a build has put it there.
pub(crate) fn placed_header(scratch: &Path) -> Option<PathBuf> {
    let path = header_in(scratch);
    let text = fs_err::read(&path).ok()?;
    (text == HEADER.as_bytes()).then_some(path)
}

fn header_in(scratch: &Path) -> PathBuf {
    scratch.join("include").join(NAME)
}

/// The call whose compiler reads `header` first, and says of each place no more than it must.
pub(crate) fn with_header(header: &Path, arguments: &[OsString]) -> Vec<OsString> {
    let mut searched = OsString::from("-I");
    searched.push(header.parent().unwrap_or(header));
    let first = ["-include", NAME].map(OsString::from);
    let last = FLAGS.map(OsString::from).into_iter().chain([searched]);
    let all = first.into_iter().chain(arguments.iter().cloned());
    all.chain(last).collect()
}

impl LineUse {
    /// By what a compiler printed after it read `header`; `None` where it has something else to say.
    pub fn of(printed: &[u8], header: Option<&Path>) -> Option<Self> {
        let mut uses = Self::default();
        if printed.len() > MOST_PRINTED {
            return None;
        }
        for line in printed.split(|byte| *byte == b'\n') {
            if let Some(place) = line.strip_suffix(WARNING) {
                let file = file_of(place)?;
                if Some(file.as_path()) == header {
                    uses.is_known = true;
                } else {
                    uses.files.insert(file);
                }
            } else if !is_beside_a_warning(line) {
                return None;
            }
        }
        Some(uses)
    }
}

fn is_beside_a_warning(line: &[u8]) -> bool {
    let is_note = || {
        NOTES.iter().any(|note| {
            let place = memchr::memmem::find(line, note).and_then(|at| line.get(..at));
            place.and_then(file_of).is_some()
        })
    };
    let is_count =
        || line.ends_with(b" warnings generated.") || line.ends_with(b" warning generated.");
    line.is_empty()
        || INCLUDED_FROM.iter().any(|begin| line.starts_with(begin))
        || line.starts_with(SKIPPED)
        || is_note()
        || is_count()
}

/// Of `file:line:column`.
fn file_of(place: &[u8]) -> Option<PathBuf> {
    let mut parts = place.rsplitn(3, |byte| *byte == b':');
    let mut is_number = || {
        let part = parts.next()?;
        let is_number = !part.is_empty() && part.iter().all(u8::is_ascii_digit);
        is_number.then_some(())
    };
    is_number()?;
    is_number()?;
    let file = parts.next().filter(|file| !file.is_empty())?;
    Some(PathBuf::from(OsString::from_vec(file.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "In file included from <built-in>:1:
/o/.klto/line.h:3:5: warning: macro '__LINE__' has been marked as deprecated: klto [-Wdeprecated-pragma]
/o/.klto/line.h:1:42: note: macro marked 'deprecated' here
In file included from fs/a.c:1:
In file included from ./include/a.h:7:
                 from ./include/c.h:7:
./include/b.h:3:31: warning: macro '__LINE__' has been marked as deprecated: klto [-Wdeprecated-pragma]
./include/b.h:1:26: note: expanded from macro 'W'
/o/.klto/line.h:1:42: note: macro marked 'deprecated' here
fs/a.c:2:17: warning: macro '__LINE__' has been marked as deprecated: klto [-Wdeprecated-pragma]
note: (skipping 2 expansions in backtrace; use -fmacro-backtrace-limit=0 to see all)
/o/.klto/line.h:1:42: note: macro marked 'deprecated' here
3 warnings generated.
";
    const PLACE: &str = "/o/.klto/line.h";

    #[test]
    fn files_are_named_by_the_place_of_use() {
        let uses = LineUse::of(SAID.as_bytes(), Some(Path::new(PLACE))).unwrap();
        assert!(uses.is_known);
        assert_eq!(
            uses.files,
            BTreeSet::from(["./include/b.h".into(), "fs/a.c".into()])
        );
    }

    #[test]
    fn nothing_is_known_of_a_compiler_that_does_not_warn() {
        let uses = LineUse::of(b"", Some(Path::new(PLACE))).unwrap();
        assert!(!uses.is_known && uses.files.is_empty());
    }

    #[test]
    fn any_other_word_is_a_message() {
        for line in [
            "fs/a.c:3:1: warning: unused variable 'a' [-Wunused-variable]",
            "fs/a.c:3:1: error: unknown type name 'x'",
            "fs/a.c:3:1: note: declared here",
            "clang: warning: argument unused during compilation: '-x'",
            "fs/a.c:3:1: warning: a: note: expanded from macro 'B' [-W#pragma-messages]",
            "Killed",
        ] {
            let said = format!("{SAID}{line}\n");
            assert_eq!(
                LineUse::of(said.as_bytes(), Some(Path::new(PLACE))),
                None,
                "{line}"
            );
        }
        let much = b"\n".repeat(MOST_PRINTED + 1);
        assert_eq!(LineUse::of(&much, None), None);
    }
}
