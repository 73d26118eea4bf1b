//! What makefiles name: sources of the tree, files outside of both trees, git.
//!
//! In: the text of a makefile and its place. Out: whether it names a source or asks git; paths. It does not
//! run make: a name that only make can make up is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use klto_core::normalize;
use memchr::memmem::Finder;
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::trees::Roots;

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
            // Wherever that leads.
            _ => {
                let parts = rest
                    .components()
                    .filter(|part| matches!(part, Component::Normal(_)));
                source.ends_with(parts.collect::<PathBuf>())
            }
        }
    })
}

/// Whether a makefile runs git, as in `$(shell git describe)`.
pub(super) fn asks_git(makefile: &[u8]) -> bool {
    let lines = makefile.split(|byte| *byte == b'\n');
    let runs_a_shell = |line: &[u8]| {
        let mut signs = [&b"$(shell"[..], b"`", b"!="].into_iter();
        signs.any(|sign| memchr::memmem::find(line, sign).is_some())
    };
    let names_git = |line: &[u8]| {
        let mut words = line.split(|byte| !byte.is_ascii_alphanumeric() && !b"-_.".contains(byte));
        words.any(|word| word == b"git")
    };
    lines
        .into_iter()
        .any(|line| runs_a_shell(line) && names_git(line))
}

/// Variables of make that stand for places outside of both trees.
pub(super) type Variables = BTreeMap<Vec<u8>, BTreeSet<PathBuf>>;

/// Files there change without a stamp that says so.
const WITHOUT_STAMPS: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Makefiles are smaller.
const LARGEST: u64 = 1 << 20;

/// Files outside of both trees that makefiles of a kernel name: by an absolute path, a path
/// that leads out of a tree, or behind a variable with such a value, which is one of `variables` or one of
/// their own. What such a file names counts too.
pub(super) fn named_elsewhere(
    roots: &Roots,
    makefiles: &[PathBuf],
    variables: &Variables,
) -> BTreeSet<PathBuf> {
    let is_of_kernel = |makefile: &&PathBuf| {
        let place = makefile.strip_prefix(&roots.source);
        place.is_ok_and(|place| Makefiles::Kernel.includes(place))
    };
    let makefiles = makefiles.par_iter().filter(is_of_kernel);
    let read = |path: &PathBuf| Some((path.clone(), std::fs::read(path).ok()?));
    let mut unread: Vec<(PathBuf, Vec<u8>)> = makefiles.filter_map(read).collect();
    let mut variables = variables.clone();
    let mut found = BTreeSet::new();
    while !unread.is_empty() {
        for (makefile, text) in &unread {
            let named = Named { roots, makefile };
            named.add_variables(text, &mut variables);
        }
        let files = unread.par_iter().flat_map_iter(|(makefile, text)| {
            let named = Named { roots, makefile };
            let lines = text.split(|byte| *byte == b'\n');
            let files = lines.flat_map(|line| named.files(line, &variables));
            files.collect::<Vec<_>>()
        });
        let files: BTreeSet<PathBuf> = files.collect();
        let new: Vec<PathBuf> = files.difference(&found).cloned().collect();
        unread = new
            .iter()
            .filter(|path| may_be_makefile(path))
            .filter_map(read)
            .collect();
        found.extend(new);
    }
    found
}

fn may_be_makefile(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| {
        let is_program = metadata.permissions().mode() & 0o111 != 0;
        metadata.is_file() && !is_program && metadata.len() <= LARGEST
    })
}

/// Words of a line that may be paths, behind an option or not; a comment has none.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_comment = line.trim_ascii_start().starts_with(b"#");
    let line = if is_comment { &[] } else { line };
    let words = line.split(|byte| byte.is_ascii_whitespace() || b"'\"`,;:=|&<>".contains(byte));
    words.map(|word| {
        let start = match word.first() {
            Some(b'-') => word.iter().position(|byte| b"/$".contains(byte)),
            _ => Some(0),
        };
        let word = word.get(start.unwrap_or(word.len())..).unwrap_or_default();
        // Of a function's last argument.
        let count = |sign: u8| word.iter().filter(|byte| **byte == sign).count();
        let more = count(b')').saturating_sub(count(b'('));
        let ends = word
            .iter()
            .rev()
            .take(more)
            .take_while(|byte| **byte == b')');
        let length = word.len() - ends.count();
        word.get(..length).unwrap_or_default()
    })
}

/// What one makefile names.
struct Named<'a> {
    roots: &'a Roots,
    makefile: &'a Path,
}

impl Named<'_> {
    /// The files outside of both trees that a line names; of those that are not there what it includes.
    fn files(&self, line: &[u8], variables: &Variables) -> Vec<PathBuf> {
        let Roots { source, output, .. } = self.roots;
        let directive = line.trim_ascii_start();
        let mut includes = [&b"include "[..], b"-include ", b"sinclude "].into_iter();
        let is_included = includes.any(|include| directive.starts_with(include));
        // As make finds it, or a recipe; a list of objects is relative to its makefile.
        let from: &[&Path] = match is_included || line.starts_with(b"\t") {
            true => &[source, output],
            false => &[self.directory()],
        };
        let places = words(line).flat_map(|word| self.places(word, from, variables));
        let counts = |place: &PathBuf| place.is_file() || is_included && !place.exists();
        places.filter(counts).collect()
    }

    fn directory(&self) -> &Path {
        self.makefile.parent().unwrap_or(self.makefile)
    }

    /// The places outside of both trees to which a word may lead, if it is relative from one of `from`.
    fn places(&self, word: &[u8], from: &[&Path], variables: &Variables) -> Vec<PathBuf> {
        let Roots { source, output, .. } = self.roots;
        let (variable, rest) = behind_variable(word);
        let path = Path::new(OsStr::from_bytes(rest));
        let bases: Vec<&Path> = match variable {
            None if path.is_absolute() => vec![Path::new("/")],
            None if memchr::memmem::find(rest, b"..").is_none() => Vec::new(),
            None => from.to_vec(),
            Some(b"srctree" | b"abs_srctree") => vec![source],
            Some(b"objtree" | b"abs_objtree" | b"CURDIR") => vec![output],
            Some(b"src" | b"obj") => vec![self.directory()],
            Some(name) => {
                let places = variables.get(name).into_iter().flatten();
                places.map(PathBuf::as_path).collect()
            }
        };
        let is_path = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._+-@".contains(byte);
        if rest.iter().any(|byte| !is_path(byte)) {
            return Vec::new();
        }
        let below = Path::new(OsStr::from_bytes(match variable {
            Some(_) => rest.strip_prefix(b"/").unwrap_or(rest),
            None => rest,
        }));
        let places = bases.into_iter().map(|base| normalize(&base.join(below)));
        let elsewhere = places.filter(|place| {
            let mut trees = [source.as_path(), output].into_iter();
            let mut without_stamps = WITHOUT_STAMPS.iter().map(Path::new);
            let is_elsewhere =
                !trees.any(|tree| place.starts_with(tree) || tree.starts_with(place));
            is_elsewhere && !without_stamps.any(|system| place.starts_with(system))
        });
        elsewhere.collect()
    }

    /// Adds variables to which the makefile gives a place elsewhere.
    fn add_variables(&self, text: &[u8], variables: &mut Variables) {
        for line in text.split(|byte| *byte == b'\n') {
            let Some(sign) = memchr::memchr(b'=', line) else {
                continue;
            };
            let (before, after) = line.split_at(sign);
            let mut words =
                before.split(|byte| byte.is_ascii_whitespace() || b":?+".contains(byte));
            let name = words.rfind(|word| !word.is_empty()).unwrap_or_default();
            let value = after.get(1..).unwrap_or_default().trim_ascii();
            let places = self.places(value, &[&self.roots.source], variables);
            if !places.is_empty() {
                variables.entry(name.to_vec()).or_default().extend(places);
            }
        }
    }
}

/// The name of the variable with which a word begins, and the rest of the word.
fn behind_variable(word: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let open = [(b"$(", b')'), (b"${", b'}')].into_iter();
    let mut begun = open.filter_map(|(start, end)| Some((word.strip_prefix(start)?, end)));
    let ended = begun.next().and_then(|(inside, end)| {
        let length = memchr::memchr(end, inside)?;
        inside.split_at_checked(length)
    });
    match ended {
        Some((name, rest)) => (Some(name), rest.get(1..).unwrap_or_default()),
        None => (None, word),
    }
}

#[cfg(test)]
mod tests {
    use klto_core::publish;

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
    fn files_elsewhere_are_named_in_many_ways() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let [source, output, vendor] = ["source", "output", "vendor"].map(|name| root.join(name));
        let roots = Roots {
            source: source.clone(),
            repository: None,
            output,
            config: source.join(".config"),
        };
        let makefile = source.join("fs/Makefile");
        let file = vendor.join("a.mk");
        publish(&file, b"").unwrap();
        let variables = Variables::from([(b"VENDOR".to_vec(), BTreeSet::from([vendor.clone()]))]);
        let named = |text: &str| {
            let text = text.replace("/VENDOR/", &format!("{}/", vendor.display()));
            publish(&makefile, text.as_bytes()).unwrap();
            named_elsewhere(&roots, std::slice::from_ref(&makefile), &variables)
        };
        for text in [
            "include /VENDOR/a.mk\n",
            "-include $(VENDOR)/a.mk # of ours\n",
            "include ${VENDOR}/a.mk",
            "include $(wildcard $(VENDOR)/a.mk)",
            "x := $(if $(A),$(shell cat $(VENDOR)/a.mk),)",
            "include $(srctree)/../vendor/a.mk",
            "include ../vendor/a.mk",
            "include $(src)/../../vendor/a.mk",
            "export DIR ?= $(srctree)/../vendor\ninclude $(DIR)/a.mk",
            "LDFLAGS += --script=/VENDOR/a.mk",
            "LDFLAGS += -T/VENDOR/a.mk",
            "\tcat ../vendor/a.mk > $@",
        ] {
            assert_eq!(named(text), BTreeSet::from([file.clone()]), "{text}");
        }
        for text in [
            "# include /VENDOR/a.mk\n",
            "include $(srctree)/fs/../a.mk",
            "include $(UNKNOWN)/a.mk",
            "x := $(VENDOR)/b.mk",
            "x := /dev/null /proc/cpuinfo",
            "sed 's/^[a-z]*//' /",
        ] {
            assert_eq!(named(text), BTreeSet::new(), "{text}");
        }
        // What it names in turn.
        publish(&file, b"include $(VENDOR)/b.mk\n").unwrap();
        let both = BTreeSet::from([file.clone(), vendor.join("b.mk")]);
        assert_eq!(named("include $(VENDOR)/a.mk\n"), both);
    }

    #[test]
    fn makefiles_that_run_git_are_told_apart() {
        for text in [
            "x := $(shell git rev-parse HEAD)\n",
            "a\nx != cd $(srctree) && git log\n",
            "\techo `git log`",
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
