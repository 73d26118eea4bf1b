//! Files outside of both trees that makefiles of a kernel name: by an absolute path, a path that leads out of
//! a tree, or behind variables of make's words, of the environment or of makefiles.
//!
//! In: makefiles, variables. Out: paths. It reads makefiles as text and does not run make: what only a
//! function of make can make up, as `$(shell pwd)` or `$(dir $(lastword $(MAKEFILE_LIST)))`, is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use klto_core::normalize;
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::makefiles::Makefiles;
use super::trees::Roots;

/// The words that a variable of make may be.
pub(super) type Variables = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

/// A variable with more words is a list, as `obj-y`, and no part of a path; nor has a word more meanings.
const MOST: usize = 8;
/// Variables in variables.
const DEEPEST: usize = 4;
/// A makefile is smaller.
const LARGEST: u64 = 1 << 20;
/// Files there change without a stamp that says so.
const WITHOUT_STAMPS: [&str; 3] = ["/dev", "/proc", "/sys"];

/// What makefiles name outside of both trees.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NamedElsewhere {
    /// What they include, there or not.
    pub included: BTreeSet<PathBuf>,
    /// Files that they name otherwise, there or not, and directories in which they look for files by a pattern;
    /// recipes may write them.
    pub named: BTreeSet<PathBuf>,
}

/// What the makefiles of a kernel name outside of both trees, and what the files name that they include.
pub(super) fn named_elsewhere(
    roots: &Roots,
    makefiles: &[PathBuf],
    variables: &Variables,
) -> NamedElsewhere {
    let is_of_kernel = |makefile: &&PathBuf| {
        let place = makefile.strip_prefix(&roots.source);
        place.is_ok_and(|place| Makefiles::Kernel.includes(place))
    };
    let mut search = Search {
        roots,
        variables: variables.clone(),
    };
    let mut unread: BTreeSet<PathBuf> = makefiles.iter().filter(is_of_kernel).cloned().collect();
    let (mut seen, mut read) = (unread.clone(), Vec::new());
    let mut found = BTreeSet::new();
    while !unread.is_empty() {
        let new: Vec<Makefile> = unread.par_iter().filter_map(Makefile::read).collect();
        for (name, words) in new.iter().flat_map(|makefile| &makefile.assignments) {
            let known = search.variables.entry(name.clone()).or_default();
            known.extend(words.iter().cloned());
        }
        read.extend(new);
        // Of all: a new variable may lead further in what was read before.
        let places = read.par_iter().flat_map_iter(|makefile: &Makefile| {
            let lines = makefile.lines.iter();
            lines.flat_map(|line| search.places(makefile, line))
        });
        found = places.collect();
        let included = found.iter().filter_map(|place| match place {
            Place::Included(path) => Some(path),
            Place::Named(_) | Place::Searched(_) => None,
        });
        unread = included
            .filter(|path| !seen.contains(*path))
            .cloned()
            .collect();
        seen.extend(unread.iter().cloned());
    }
    let mut elsewhere = NamedElsewhere::default();
    for place in found {
        match place {
            Place::Included(path) if roots.is_elsewhere(&path) => {
                elsewhere.included.insert(path);
            }
            Place::Named(path) if roots.is_elsewhere(&path) && may_be_file(&path) => {
                elsewhere.named.insert(path);
            }
            Place::Searched(path) if roots.is_elsewhere(&path) && path.is_dir() => {
                elsewhere.named.insert(path);
            }
            _ => {}
        }
    }
    elsewhere
}

/// Whether a path is that of a file, or of one that may come; a word of a recipe may only look like one.
fn may_be_file(path: &Path) -> bool {
    !path.is_dir() && path.parent().is_some_and(Path::is_dir)
}

impl Roots {
    /// Whether a place is outside of both trees, where stamps say what changes.
    pub(super) fn is_elsewhere(&self, place: &Path) -> bool {
        let mut trees = [&self.source, &self.output].into_iter();
        let mut without_stamps = WITHOUT_STAMPS.iter();
        !trees.any(|tree| place.starts_with(tree) || tree.starts_with(place))
            && !without_stamps.any(|system| place.starts_with(system))
    }
}

/// Where a word leads.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Included(PathBuf),
    Named(PathBuf),
    /// The directory of a pattern.
    Searched(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineKind {
    Include,
    Recipe,
    Other,
}

/// A line with what may be paths in it.
struct Line {
    kind: LineKind,
    words: Vec<Vec<u8>>,
}

/// A makefile as far as it names files.
struct Makefile {
    path: PathBuf,
    lines: Vec<Line>,
    /// Variables that are given a few words.
    assignments: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
}

impl Makefile {
    fn read(path: &PathBuf) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let is_makefile = metadata.is_file() && metadata.len() <= LARGEST;
        let text = is_makefile.then(|| std::fs::read(path).ok()).flatten()?;
        Some(Self::of(path, &text))
    }

    fn of(path: &Path, text: &[u8]) -> Self {
        let (mut lines, mut assignments) = (Vec::new(), Vec::new());
        for line in joined_lines(text) {
            let (kind, rest) = kind_of(&line);
            if kind == LineKind::Other
                && let Some((name, value)) = assignment(rest)
            {
                let words: Vec<Vec<u8>> = words(value).collect();
                if words.len() <= MOST {
                    assignments.push((name.to_vec(), words));
                }
            }
            // Without either nothing leads anywhere.
            let leads = |word: &Vec<u8>| {
                kind == LineKind::Include || word.iter().any(|byte| b"/$".contains(byte))
            };
            let words: Vec<Vec<u8>> = words(rest).filter(leads).collect();
            if !words.is_empty() {
                lines.push(Line { kind, words });
            }
        }
        Self {
            path: path.to_owned(),
            lines,
            assignments,
        }
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}

/// The lines of a makefile, those with a backslash at their end joined with the next, without comments.
fn joined_lines(text: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = with_comments(text);
    lines.iter_mut().for_each(remove_comment);
    lines
}

/// Removes what follows the first `#` that begins a word.
pub(super) fn remove_comment(line: &mut Vec<u8>) {
    let is_comment = |place: &usize| {
        let before = place.checked_sub(1).and_then(|before| line.get(before));
        before.is_none_or(u8::is_ascii_whitespace)
    };
    let comment = memchr::memchr_iter(b'#', line).find(is_comment);
    line.truncate(comment.unwrap_or(line.len()));
}

/// The lines of a makefile, joined.
pub(super) fn with_comments(text: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    for part in text.split(|byte| *byte == b'\n') {
        let part = part.strip_suffix(b"\r").unwrap_or(part);
        match part.strip_suffix(b"\\") {
            Some(part) => {
                line.extend_from_slice(part);
                line.push(b' ');
            }
            None => {
                line.extend_from_slice(part);
                lines.push(std::mem::take(&mut line));
            }
        }
    }
    lines.push(line);
    lines
}

/// What a line is, and the rest of it that can name files.
fn kind_of(line: &[u8]) -> (LineKind, &[u8]) {
    if line.starts_with(b"\t") {
        return (LineKind::Recipe, line);
    }
    let line = line.trim_ascii_start();
    let directive = line
        .split(u8::is_ascii_whitespace)
        .next()
        .unwrap_or_default();
    match directive {
        b"include" | b"-include" | b"sinclude" => {
            let rest = line.get(directive.len()..).unwrap_or_default();
            (LineKind::Include, rest)
        }
        _ => (LineKind::Other, line),
    }
}

/// The variable that a line sets, and its value.
fn assignment(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (before, after) = line.split_at_checked(memchr::memchr(b'=', line)?)?;
    let mut words = before.split(|byte| byte.is_ascii_whitespace() || b":?+!".contains(byte));
    let name = words.rfind(|word| !word.is_empty())?;
    Some((name, after.get(1..)?))
}

/// Words that may be paths, without what may stand before and behind a path: signs of a recipe, an option,
/// the end of a function.
fn words(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let is_between = |byte: &u8| byte.is_ascii_whitespace() || b"'\"`,;:=|&<>".contains(byte);
    let words = text.split(is_between).map(|word| {
        let start = word.iter().position(|byte| !b"@+".contains(byte));
        let word = word.get(start.unwrap_or(word.len())..).unwrap_or_default();
        let start = match word.first() {
            Some(b'-') => word.iter().position(|byte| b"/$".contains(byte)),
            _ => Some(0),
        };
        let word = word.get(start.unwrap_or(word.len())..).unwrap_or_default();
        let count = |signs: &[u8]| word.iter().filter(|byte| signs.contains(byte)).count();
        let more = count(b")}").saturating_sub(count(b"({"));
        let ends = word.iter().rev().take(more);
        let ends = ends.take_while(|byte| b")}".contains(byte)).count();
        word.get(..word.len() - ends).unwrap_or_default().to_vec()
    });
    words.filter(|word| !word.is_empty())
}

struct Search<'a> {
    roots: &'a Roots,
    variables: Variables,
}

impl Search<'_> {
    /// The places to which the words of a line lead: of what is included all, of others those that may be
    /// outside of the trees.
    fn places(&self, makefile: &Makefile, line: &Line) -> Vec<Place> {
        let Roots { source, output, .. } = self.roots;
        // As make or a shell finds it; lists of objects are relative to their makefile.
        let from: &[&Path] = match line.kind {
            LineKind::Include | LineKind::Recipe => &[source, output],
            LineKind::Other => &[makefile.directory()],
        };
        let mut places = Vec::new();
        for text in line
            .words
            .iter()
            .flat_map(|word| self.expanded(makefile, word, DEEPEST))
        {
            let path = Path::new(OsStr::from_bytes(&text));
            let leads_out = path.is_absolute() || memchr::memmem::find(&text, b"..").is_some();
            if !leads_out && line.kind != LineKind::Include {
                continue;
            }
            for place in from.iter().map(|base| normalize(&base.join(path))) {
                match line.kind {
                    LineKind::Include => places.extend(matching(place).map(Place::Included)),
                    // kbuild enters it.
                    LineKind::Other if text.ends_with(b"/") => {
                        let makefiles = ["Kbuild", "Makefile"].map(|name| place.join(name));
                        if makefiles.iter().any(|makefile| makefile.is_file()) {
                            places.extend(makefiles.map(Place::Included));
                        }
                    }
                    _ if is_pattern(&text) => {
                        places.extend(place.parent().map(|parent| Place::Searched(parent.into())));
                    }
                    _ => places.push(Place::Named(place)),
                }
            }
        }
        places
    }

    /// What a word may be with its variables replaced; nothing where one is not known.
    fn expanded(&self, makefile: &Makefile, word: &[u8], depth: usize) -> Vec<Vec<u8>> {
        let Some(place) = memchr::memchr(b'$', word) else {
            return vec![word.to_vec()];
        };
        let (before, reference) = word.split_at(place);
        let Some((name, after)) = reference_of(reference).filter(|_| depth > 0) else {
            return Vec::new();
        };
        let mut expanded = Vec::new();
        for value in self.values(makefile, name) {
            let word = [before, &value, after].concat();
            expanded.extend(self.expanded(makefile, &word, depth - 1));
        }
        expanded.truncate(MOST);
        expanded
    }

    fn values(&self, makefile: &Makefile, name: &[u8]) -> Vec<Vec<u8>> {
        let Roots { source, output, .. } = self.roots;
        let directory = makefile.directory();
        let place = match name {
            b"srctree" | b"abs_srctree" => source.clone(),
            b"objtree" | b"abs_objtree" | b"CURDIR" => output.clone(),
            b"src" => directory.to_owned(),
            b"obj" => output.join(directory.strip_prefix(source).unwrap_or(directory)),
            _ => {
                let words = self.variables.get(name);
                let words = words.filter(|words| words.len() <= MOST);
                return words.into_iter().flatten().cloned().collect();
            }
        };
        vec![place.into_os_string().into_encoded_bytes()]
    }
}

/// The name of the variable to which a text refers at its beginning, and what follows.
fn reference_of(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let open = [(b"$(", b')'), (b"${", b'}')].into_iter();
    let mut begun = open.filter_map(|(start, end)| Some((text.strip_prefix(start)?, end)));
    let (inside, end) = begun.next()?;
    let (name, rest) = inside.split_at_checked(memchr::memchr(end, inside)?)?;
    Some((name, rest.get(1..)?))
}

fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[".contains(byte))
}

/// A place, or for a pattern its directory and what matches there.
fn matching(place: PathBuf) -> impl Iterator<Item = PathBuf> {
    let pattern = place.to_string_lossy();
    let (found, place) = match is_pattern(pattern.as_bytes()) {
        true => (
            glob::glob(&pattern).ok(),
            place.parent().map(Path::to_owned),
        ),
        false => (None, Some(place.clone())),
    };
    found.into_iter().flatten().flatten().chain(place)
}

#[cfg(test)]
mod tests {
    use klto_core::publish;

    use super::*;

    /// Trees with a directory beside them.
    struct Vendor {
        roots: Roots,
        directory: PathBuf,
        _place: tempfile::TempDir,
    }

    impl Vendor {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let root = place.path();
            let source = root.join("source");
            fs_err::create_dir(root.join("vendor")).unwrap();
            Self {
                roots: Roots {
                    config: source.join(".config"),
                    source,
                    repository: None,
                    output: root.join("output"),
                },
                directory: root.join("vendor"),
                _place: place,
            }
        }

        /// What fs/Makefile names with this text, below the directory beside the trees.
        fn named(&self, text: &str) -> (Vec<String>, Vec<String>) {
            let directory = self.directory.to_str().unwrap();
            let text = text.replace("/VENDOR", directory);
            let makefile = self.roots.source.join("fs/Makefile");
            publish(&makefile, text.as_bytes()).unwrap();
            let variables = [("VENDOR", directory), ("BOARD", "b"), ("SDK", "../vendor")];
            let variables = variables.map(|(name, value)| {
                let words = BTreeSet::from([value.as_bytes().to_vec()]);
                (name.as_bytes().to_vec(), words)
            });
            let found = named_elsewhere(&self.roots, &[makefile], &Variables::from(variables));
            let below = |files: BTreeSet<PathBuf>| {
                let files = files
                    .into_iter()
                    .map(|file| match file.strip_prefix(directory) {
                        Ok(place) => place.to_str().unwrap().to_owned(),
                        Err(_) => file.to_str().unwrap().to_owned(),
                    });
                files.collect::<Vec<_>>()
            };
            (below(found.included), below(found.named))
        }
    }

    #[test]
    fn included_files_are_found_there_or_not() {
        let vendor = Vendor::new();
        for text in [
            "include /VENDOR/a.mk\n",
            "  -include\t$(VENDOR)/a.mk # of ours\n",
            "include ${VENDOR}/a.mk",
            "include $(wildcard $(VENDOR)/a.mk)",
            "include $(srctree)/../vendor/a.mk",
            "include ../vendor/a.mk",
            "include $(SDK)/a.mk\r\n",
            "include $(src)/../../vendor/a.mk",
            "include \\\n\t$(VENDOR)/a.mk",
            "export DIR ?= $(srctree)/../vendor # ours\ninclude $(DIR)/a.mk",
            "TOP := $(abspath $(srctree)/..)\ninclude $(TOP)/vendor/a.mk",
            "DIR = $(TOP)/vendor\nTOP := $(srctree)/..\nsinclude $(DIR)/a.mk",
        ] {
            assert_eq!(
                vendor.named(text),
                (vec!["a.mk".to_owned()], vec![]),
                "{text}"
            );
        }
        for text in [
            "# include /VENDOR/a.mk\n",
            "include $(srctree)/fs/../a.mk",
            "include $(UNKNOWN)/a.mk",
            "include $(DIR)/a.mk\nDIR = $(DIR)/x\n",
        ] {
            assert_eq!(vendor.named(text), (vec![], vec![]), "{text}");
        }
        publish(&vendor.directory.join("drv/Makefile"), b"").unwrap();
        let entered = ["drv/Kbuild", "drv/Makefile"].map(str::to_owned);
        let (included, _) = vendor.named("obj-y += ../../vendor/drv/\n");
        assert_eq!(included, entered);
    }

    #[test]
    fn other_files_are_found_there_or_not() {
        let vendor = Vendor::new();
        publish(&vendor.directory.join("b/a.lds"), b"").unwrap();
        let file = vec!["b/a.lds".to_owned()];
        for text in [
            "x := $(if $(A),$(shell cat $(VENDOR)/b/a.lds),)",
            "LDFLAGS += --script=/VENDOR/b/a.lds",
            "LDFLAGS += -T/VENDOR/b/a.lds",
            "\t@cat ../vendor/b/a.lds > $@",
            "\t@/VENDOR/b/a.lds",
            "x := $(VENDOR)/$(BOARD)/a.lds",
        ] {
            assert_eq!(vendor.named(text), (vec![], file.clone()), "{text}");
        }
        let new = vendor.named("x := $(VENDOR)/b.lds /dev/null");
        assert_eq!(new, (vec![], vec!["b.lds".to_owned()]));
        let searched = vendor.named("obj-y += $(wildcard $(srctree)/../vendor/b/*.c)");
        assert_eq!(searched, (vec![], vec!["b".to_owned()]));
        for text in [
            "x := $(VENDOR) $(VENDOR)/b/",
            "sed 's/^[a-z]*//' /",
            "x := ...",
        ] {
            assert_eq!(vendor.named(text), (vec![], vec![]), "{text}");
        }
    }

    #[test]
    fn what_is_included_includes_more() {
        let vendor = Vendor::new();
        let write = |file: &str, text: &str| {
            publish(&vendor.directory.join(file), text.as_bytes()).unwrap();
        };
        write("a.mk", "OURS := $(VENDOR)/b\ninclude $(OURS)/*.mk\n");
        write("b/c.mk", "");
        let in_tree = vendor.roots.source.join("fs/rules.inc");
        publish(&in_tree, b"include $(OURS)/d.mk\n").unwrap();
        let text = "include $(srctree)/fs/rules.inc\ninclude $(VENDOR)/a.mk\n";
        let all = ["a.mk", "b", "b/c.mk", "b/d.mk"].map(str::to_owned);
        assert_eq!(vendor.named(text), (all.to_vec(), vec![]));
    }
}
