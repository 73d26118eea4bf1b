//! kbuild's record of a target: the `.cmd` file beside it, with the command that made it and what that read
//! (scripts/basic/fixdep.c).
//!
//! In: its text. Out: its parts. It does not know whether they still hold.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::compile::CompileCall;

/// A call of a compiler as a record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCompile {
    /// As the command names it.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// What may stand for more than itself in a command: to a shell, or, as `$`, to make.
const SPECIAL: &[u8] = b"$`;|&<>()";

/// What has a compiler preprocess alone, in a third of the time that parsing takes too, and write nothing. It says
/// nothing of `__LINE__` in a pragma that the parser reads, as `unroll`.
const ONLY_READ: [&str; 4] = ["-E", "-o", "/dev/null", "-Wno-unused-command-line-argument"];

/// The command of a record.
pub fn command(record: &[u8]) -> Option<&[u8]> {
    value(record, &[b"savedcmd_", b"cmd_"])
}

/// The source that it compiled.
pub fn source(record: &[u8]) -> Option<&Path> {
    value(record, &[b"source_"]).map(|source| Path::new(OsStr::from_bytes(source)))
}

fn value<'a>(record: &'a [u8], names: &[&[u8]]) -> Option<&'a [u8]> {
    let mut lines = record.split(|byte| *byte == b'\n');
    let line = lines.find(|line| names.iter().any(|name| line.starts_with(name)))?;
    let sign = line.windows(4).position(|letters| letters == b" := ")?;
    line.get(sign + 4..)
}

/// The files that it lists as read, beside the source: without `autoconf.h`, and without options.
pub fn prerequisites(record: &[u8]) -> impl Iterator<Item = &Path> {
    let lines = record.split(|byte| *byte == b'\n');
    lines.filter_map(|line| {
        let path = line.strip_prefix(b"  ")?.strip_suffix(b"\\")?.trim_ascii();
        let is_path = !path.is_empty() && !path.starts_with(b"$");
        is_path.then(|| Path::new(OsStr::from_bytes(path)))
    })
}

impl RecordedCompile {
    /// The first call of a record's command, where that compiles one C source; `None` too for one in which there is
    /// more than words.
    pub fn of(record: &[u8]) -> Option<Self> {
        let words = shlex::bytes::split(command(record)?)?;
        let mut call = words.into_iter().take_while(|word| word != b";");
        let program = OsString::from_vec(call.next()?);
        let arguments: Vec<OsString> = call.map(OsString::from_vec).collect();
        let is_special =
            |word: &OsString| word.as_bytes().iter().any(|byte| SPECIAL.contains(byte));
        let is_plain = !is_special(&program) && !arguments.iter().any(is_special);
        let is_compile = is_plain && CompileCall::parse(&arguments).is_some();
        is_compile.then_some(Self { program, arguments })
    }

    /// The arguments of a call that has the preprocessor read the same, and writes nothing.
    pub fn only_read(&self) -> Vec<OsString> {
        let mut arguments = Vec::with_capacity(self.arguments.len());
        let mut words = self.arguments.iter();
        while let Some(word) = words.next() {
            let text = word.as_bytes();
            if text == b"-o" {
                words.next();
            } else if text != b"-c" && text != b"-S" && !text.starts_with(b"-Wp,-M") {
                arguments.push(word.clone());
            }
        }
        // Some flags are for what does not run.
        arguments.extend(ONLY_READ.map(OsString::from));
        arguments
    }

    /// The source that it compiles.
    pub fn source(&self) -> Option<PathBuf> {
        CompileCall::parse(&self.arguments).map(|call| call.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "savedcmd_init/a.o := clang-22 -Wp,-MMD,init/.a.o.d -Iinclude -DNAME='\"a b\"' -c -o init/a.o \
        /src/init/a.c ; ./objtool --x init/a.o > $@\n\nsource_init/a.o := /src/init/a.c\n\ndeps_init/a.o := \\\n    \
        $(wildcard include/config/X) \\\n  /src/include/x.h \\\n  include/generated/y.h \\\n\ninit/a.o: $(deps_init/a.o)\n";

    #[test]
    fn parts_of_a_record() {
        let record = RECORD.as_bytes();
        assert_eq!(source(record), Some(Path::new("/src/init/a.c")));
        let files = ["/src/include/x.h", "include/generated/y.h"].map(Path::new);
        assert!(prerequisites(record).eq(files));
        let compile = RecordedCompile::of(record).unwrap();
        assert_eq!(compile.program, "clang-22");
        assert_eq!(compile.source(), Some("/src/init/a.c".into()));
        let kept = ["-Iinclude", "-DNAME=\"a b\"", "/src/init/a.c"];
        let read = kept.into_iter().chain(ONLY_READ).map(OsString::from);
        assert_eq!(compile.only_read(), read.collect::<Vec<_>>());
    }

    #[test]
    fn a_command_that_is_no_compile_is_none() {
        for command in [
            "sed s/a/b/ x > y",
            "clang -c -o a.o a.S",
            "clang $(flags) -c -o a.o a.c",
            "clang -c -o a.o a.c; echo",
            "(clang -c -o a.o a.c)",
            "clang -c -o a.o 'a.c",
        ] {
            let record = format!("cmd_a.o := {command}\n");
            assert_eq!(RecordedCompile::of(record.as_bytes()), None, "{command}");
        }
    }
}
