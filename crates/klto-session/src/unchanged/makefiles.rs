//! What makefiles name: sources, git.
//!
//! In: the text of a makefile and its place. Out: whether it names a source or asks git.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use klto_core::normalize;
use memchr::memmem::Finder;

use super::named::{remove_comment, with_comments};

/// Which makefiles may name a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Makefiles {
    /// Those of other directories, without tools: a source's own makefile runs in any case.
    OtherDirectories,
    /// Those of [`TOOLS_OF_KERNEL`].
    Tools,
    /// All that a build of the kernel reads: of tools those in [`TOOLS_OF_KERNEL`].
    Kernel,
}

/// Tools that a build of the kernel makes, and what makes them.
const TOOLS_OF_KERNEL: [&str; 5] = [
    "tools/objtool",
    "tools/bpf/resolve_btfids",
    "tools/lib",
    "tools/build",
    "tools/scripts",
];

impl Makefiles {
    /// Whether a makefile, below the source tree, is one of them.
    pub fn includes(self, makefile: &Path) -> bool {
        let is_of_kernel = || {
            TOOLS_OF_KERNEL
                .iter()
                .any(|place| makefile.starts_with(place))
        };
        let is_of_tools = makefile.starts_with("tools");
        match self {
            Self::OtherDirectories => !is_of_tools,
            Self::Tools => is_of_kernel(),
            Self::Kernel => !is_of_tools || is_of_kernel(),
        }
    }
}

/// Whether a makefile names a source: by its path from there, from the root of the tree, or behind a
/// variable.
pub(super) fn names(text: &[u8], makefile: &Path, source: &Path, makefiles: Makefiles) -> bool {
    let directory = makefile.parent().unwrap_or(makefile);
    if makefiles == Makefiles::OtherDirectories && source.parent() == Some(directory) {
        return false;
    }
    let name = source.file_name().unwrap_or_default().as_bytes();
    Finder::new(name).find_iter(text).any(|place| {
        let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./$(){}".contains(byte);
        let before = text.get(..place).unwrap_or_default();
        let start = before.iter().rposition(|byte| !is_of_word(byte));
        let start = start.map_or(0, |start| start + 1);
        let word = text.get(start..place + name.len()).unwrap_or_default();
        let end_of_variable = word.iter().rposition(|byte| matches!(byte, b')' | b'}'));
        let (variable, rest) = word.split_at(end_of_variable.map_or(0, |end| end + 1));
        let path = |bytes| Path::new(OsStr::from_bytes(bytes));
        let rest = path(rest.strip_prefix(b"/").unwrap_or(rest));
        match variable {
            b"" => normalize(&directory.join(rest)) == source || normalize(rest) == source,
            b"$(src)" | b"$(obj)" => normalize(&directory.join(rest)) == source,
            b"$(srctree)" | b"$(objtree)" => normalize(rest) == source,
            // Wherever that leads. `$(KVM)/eventfd.o` lists no object of fs; a source may be named by a variable
            // that the user sets.
            _ => {
                let is_object = source.extension().is_some_and(|end| end == "o");
                let values = plain_values(text, variable).filter(|_| is_object);
                let values = values.unwrap_or_else(|| vec![b""]);
                values.into_iter().any(|value| {
                    let place = path(value).join(rest);
                    let parts = place.components();
                    let parts = parts.filter(|part| matches!(part, Component::Normal(_)));
                    source.ends_with(parts.collect::<PathBuf>())
                })
            }
        }
    })
}

/// What a makefile itself gives the variable of a reference, as `$(KVM)`; `None` where that refers to others, or
/// it gives nothing.
fn plain_values<'a>(text: &'a [u8], reference: &[u8]) -> Option<Vec<&'a [u8]>> {
    let name = reference.get(2..reference.len().checked_sub(1)?)?;
    let lines = text.split(|byte| *byte == b'\n');
    let values = lines.filter_map(|line| {
        let rest = line.trim_ascii().strip_prefix(name)?.trim_ascii_start();
        let signs = rest.iter().position(|byte| *byte == b'=')?;
        let (signs, value) = rest.split_at(signs + 1);
        let is_assignment = signs.iter().all(|byte| b":?+=".contains(byte));
        is_assignment.then_some(value.trim_ascii())
    });
    let values: Vec<&[u8]> = values.collect();
    let are_plain = values.iter().all(|value| !value.contains(&b'$'));
    (are_plain && !values.is_empty()).then_some(values)
}

/// Whether a makefile may list an object of its own directory: by name, or by a pattern.
pub(super) fn may_list(text: &[u8], object: &Path) -> bool {
    let name = object.file_name().unwrap_or_default().as_bytes();
    [name, b"wildcard", b"%.o"]
        .iter()
        .any(|word| Finder::new(word).find(text).is_some())
}

/// Whether a makefile names git, as in `$(shell git describe)` and in recipes.
pub(super) fn asks_git(makefile: &[u8]) -> bool {
    if Finder::new("git").find(makefile).is_none() {
        return false;
    }
    let names_git = |mut line: Vec<u8>| {
        // In a recipe it is the shell's.
        if !line.starts_with(b"\t") {
            remove_comment(&mut line);
        }
        let mut words = line.split(|byte| !byte.is_ascii_alphanumeric() && !b"-_.".contains(byte));
        words.any(|word| word == b"git")
    };
    with_comments(makefile).into_iter().any(names_git)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_makefile_names_a_source_by_many_paths() {
        let makefile = Path::new("drivers/su/Makefile");
        let names_of = |text: &str, makefiles| {
            names(text.as_bytes(), makefile, Path::new("fs/a.c"), makefiles)
        };
        let names = |text: &str| names_of(text, Makefiles::OtherDirectories);
        for text in [
            "x := $(shell grep -q x $(srctree)/fs/a.c)",
            "$(obj)/b.o: $(src)/../../fs/a.c",
            "cat ../../fs/a.c",
            "cat fs/a.c",
            "$(fs-dir)/a.c",
            "$(srctree)/$(fs)/a.c",
            "${K}/fs/a.c",
        ] {
            assert!(names(text), "{text}");
        }
        for text in [
            "a.c",
            "$(src)/a.c",
            "$(srctree)/lib/a.c",
            "fs/gen_a.c",
            "$(x)/lib/a.c",
        ] {
            assert!(!names(text), "{text}");
        }
        assert!(names("fs-dir ?= ../../lib\nx := $(fs-dir)/a.c"));
        let others = Makefiles::OtherDirectories;
        let object = Path::new("fs/a.o");
        let lists = |text: &str| super::names(text.as_bytes(), makefile, object, others);
        assert!(lists("fs-dir := ../../fs\nobj-y += $(fs-dir)/a.o"));
        assert!(!lists("fs-dir ?= ../../lib\nobj-y += $(fs-dir)/a.o"));
        assert!(lists("fs-dir ?= $(lib)\nobj-y += $(fs-dir)/a.o"));
        let (makefile, source) = (Path::new("fs/Makefile"), Path::new("fs/a.c"));
        let tools = |place: &str, makefiles: Makefiles| makefiles.includes(Path::new(place));
        assert!(tools("tools/objtool/Makefile", Makefiles::Kernel));
        assert!(!tools("tools/perf/Makefile.perf", Makefiles::Kernel));
        assert!(!tools(
            "tools/objtool/Makefile",
            Makefiles::OtherDirectories
        ));
        assert!(tools("tools/objtool/Makefile", Makefiles::Tools));
        assert!(!tools("fs/Makefile", Makefiles::Tools));
        let own = |makefiles| super::names(b"$(src)/a.c", makefile, source, makefiles);
        assert!(!own(Makefiles::OtherDirectories));
        assert!(own(Makefiles::Kernel));
    }

    #[test]
    fn makefiles_that_run_git_are_told_apart() {
        for text in [
            "x := $(shell git rev-parse HEAD)\n",
            "a\nx != cd $(srctree) && git log\n",
            "\techo `git log`",
            "x := $(shell cd $(src) && \\\n git log)\n",
            "\tgit rev-parse HEAD > $@\n",
            "\techo \"/* # of $$(git describe) */\" > $@\n",
        ] {
            assert!(asks_git(text.as_bytes()), "{text}");
        }
        for text in [
            "# see git log\n",
            "x := $(shell cat .gitignore)\n",
            "x := $(shell ls)\n# git\n",
        ] {
            assert!(!asks_git(text.as_bytes()), "{text}");
        }
    }
}
