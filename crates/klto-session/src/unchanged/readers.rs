//! Who reads a source, by kbuild's own records: the `.cmd` file beside each target that a tool has made
//! (scripts/basic/fixdep.c) has the command, and names all that was read for it.
//!
//! In: the output tree, sources. Out: targets. It does not know what a target is.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use fs_err::DirEntry;
use klto_core::normalize;
use klto_kbuild::front_end::FrontEnd;
use klto_kbuild::record;
use memchr::memmem::Finder;
use rayon::Scope;

use super::TICK;
use crate::compile::last_change;
use crate::scratch::SCRATCH_NAME;
use crate::session::lock;

/// Ends of targets that are made when a user asks for one, and of which nothing is made.
const ON_DEMAND: [&[u8]; 4] = [b".i", b".ll", b".lst", b".symtypes"];

/// Whether a target in `directory` is made only when a user asks for it. So is an assembly listing, but where
/// no object is made of its source: then something reads it, as `bounds.s`.
pub(super) fn is_on_demand(directory: &Path, target: &[u8]) -> bool {
    if let Some(stem) = target.strip_suffix(b".s") {
        let record = [b".".as_slice(), stem, b".o.cmd"].concat();
        return directory.join(OsStr::from_bytes(&record)).exists();
    }
    ON_DEMAND.iter().any(|end| target.ends_with(end))
}

/// The targets below `output` for which one of `sources` was read; both relative to their trees.
pub(super) fn targets_that_read(
    output: &Path,
    sources: &[PathBuf],
) -> io::Result<BTreeSet<(PathBuf, PathBuf)>> {
    readers(output, sources, &|_, _| true)
}

/// Why the target of a record may show more of one of `sources` than its tokens and their lines: its command
/// reads the source otherwise than by the C preprocessor, or shows columns.
pub(super) fn why_more_than_tokens_show(
    output: &Path,
    sources: &[PathBuf],
) -> io::Result<Option<String>> {
    let found = readers(output, sources, &|record, source| {
        !is_preprocessed(record, source)
    })?;
    Ok(found.first().map(|(target, source)| {
        let (target, source) = (target.display(), source.display());
        format!("{target} shows more than tokens of {source}")
    }))
}

/// Targets with a source that their records name, where `counts` says so of record and source.
fn readers(
    output: &Path,
    sources: &[PathBuf],
    counts: &(dyn Fn(&[u8], &Path) -> bool + Sync),
) -> io::Result<BTreeSet<(PathBuf, PathBuf)>> {
    let mut by_name: HashMap<&[u8], Vec<&PathBuf>> = HashMap::new();
    for source in sources {
        let name = source.file_name().unwrap_or_default();
        by_name.entry(name.as_bytes()).or_default().push(source);
    }
    let names = Names::of(by_name.keys().copied());
    let found = Mutex::new(BTreeSet::new());
    for_each_record(output, None, &|target, record| {
        let texts = names.texts(record).into_iter();
        let named = texts.flat_map(paths).flat_map(|path| {
            let of_name = by_name.get(last_part(path)).into_iter().flatten();
            of_name.filter(move |source| is_path_to(path, source))
        });
        let named: BTreeSet<&PathBuf> = named.copied().collect();
        let read = named.into_iter().filter(|source| counts(record, source));
        let read: Vec<_> = read
            .map(|source| (target.to_owned(), source.clone()))
            .collect();
        lock(&found).extend(read);
    })?;
    Ok(found.into_inner().unwrap_or_default())
}

/// Last parts of paths that are looked for in records.
struct Names<'a> {
    /// `None` for many.
    finders: Option<Vec<Finder<'a>>>,
}

/// So many names are searched for one by one, which is faster than a look at each word of each record.
const SEARCHED: usize = 8;

impl<'a> Names<'a> {
    fn of(names: impl ExactSizeIterator<Item = &'a [u8]>) -> Self {
        let are_few = names.len() <= SEARCHED;
        Self {
            finders: are_few.then(|| names.map(Finder::new).collect()),
        }
    }

    /// Parts of a record that together have every word in which one of the names occurs.
    fn texts<'r>(&self, record: &'r [u8]) -> Vec<&'r [u8]> {
        let Some(finders) = &self.finders else {
            return vec![record];
        };
        let places = finders.iter().flat_map(|name| name.find_iter(record));
        places.map(|place| word_at(record, place)).collect()
    }
}

/// Whether a record that names `source` is that of a compile which shows no columns, and which has the source
/// from the C preprocessor alone.
fn is_preprocessed(record: &[u8], source: &Path) -> bool {
    let (Some(command), Some(compiled)) = (record::command(record), record::source(record)) else {
        return false;
    };
    let words = command.split(u8::is_ascii_whitespace);
    let words: Vec<&[u8]> = words.filter(|word| !word.is_empty()).collect();
    // Checks of comments, in commands that end with them.
    if words
        .iter()
        .any(|word| word.ends_with(b"kernel-doc") || word.ends_with(b"kernel-doc.py"))
    {
        return false;
    }
    let is_read_first = |place: usize| {
        let before = place.checked_sub(1).and_then(|before| words.get(before));
        before.is_some_and(|word| *word == b"-include")
    };
    let is_read_otherwise = |(place, word): (usize, &&[u8])| {
        let is_input = *word == compiled.as_os_str().as_bytes() || is_read_first(place);
        !is_input && names(word, source)
    };
    let by_preprocessor = !words.iter().enumerate().any(is_read_otherwise);
    let arguments = words.iter().map(|word| OsStr::from_bytes(word).to_owned());
    by_preprocessor && !FrontEnd::of(&arguments.collect::<Vec<_>>()).shows_columns
}

/// What happens with a target and the text of its record.
type Visit<'a> = &'a (dyn Fn(&Path, &[u8]) + Sync);

/// Visits each record below `output` that was written after `since`, if that is given, by the place of its
/// target there.
fn for_each_record(output: &Path, since: Option<SystemTime>, visit: Visit<'_>) -> io::Result<()> {
    let search = Search {
        output,
        since,
        visit,
        failure: Mutex::default(),
    };
    rayon::scope(|scope| search.enter(scope, output.to_owned()));
    match search.failure.into_inner().unwrap_or_default() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

struct Search<'a> {
    output: &'a Path,
    since: Option<SystemTime>,
    visit: Visit<'a>,
    failure: Mutex<Option<io::Error>>,
}

impl Search<'_> {
    /// Whether a record was written after the time that is asked for; one that is gone was not.
    fn is_young(&self, record: &DirEntry) -> bool {
        self.since.is_none_or(|since| {
            let written = record
                .metadata()
                .and_then(|metadata| last_change(&metadata));
            written.is_ok_and(|written| written + TICK > since)
        })
    }

    fn enter<'s>(&'s self, scope: &Scope<'s>, directory: PathBuf) {
        if let Err(error) = self.look(scope, &directory) {
            *lock(&self.failure) = Some(error);
        }
    }

    fn look<'s>(&'s self, scope: &Scope<'s>, directory: &Path) -> io::Result<()> {
        let entries = match fs_err::read_dir(directory) {
            // A make that begins beside this tries things out in `.tmp_7`, and removes that.
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory != self.output => {
                return Ok(());
            }
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                if name != SCRATCH_NAME {
                    let path = entry.path();
                    scope.spawn(move |scope| self.enter(scope, path));
                }
                continue;
            }
            let record = name.as_bytes().strip_prefix(b".");
            let Some(target) = record.and_then(|record| record.strip_suffix(b".cmd")) else {
                continue;
            };
            if is_on_demand(directory, target) || !self.is_young(&entry) {
                continue;
            }
            let text = match fs_err::read(entry.path()) {
                // A make that runs beside this replaces it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text?,
            };
            let target = directory.join(OsStr::from_bytes(target));
            (self.visit)(target.strip_prefix(self.output).unwrap_or(&target), &text);
        }
        Ok(())
    }
}

/// Whether a byte stands between words of a record: in lists of make and in commands of a shell.
fn is_between_words(byte: &u8) -> bool {
    byte.is_ascii_whitespace()
        || matches!(
            byte,
            b'(' | b')' | b'\\' | b'"' | b'\'' | b'`' | b';' | b'|' | b'&' | b'<' | b'>'
        )
}

/// The word of a record in which `place` is.
fn word_at(record: &[u8], place: usize) -> &[u8] {
    let (before, after) = record.split_at(place);
    let start = before.iter().rposition(is_between_words);
    let length = after.iter().position(is_between_words);
    let end = length.map_or(record.len(), |length| place + length);
    let start = start.map_or(0, |start| start + 1);
    record.get(start..end).unwrap_or_default()
}

/// What may be paths in a text of a record: its words, and what commas, colons or equals signs leave of them,
/// which are part of a path or stand before it.
fn paths(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = text.split(is_between_words);
    let words = words.filter(|word| !word.is_empty());
    words.flat_map(|word| {
        let is_between_parts = |byte: &u8| matches!(byte, b',' | b':' | b'=');
        let has_parts = word.iter().any(is_between_parts);
        let parts = has_parts.then(|| word.split(is_between_parts));
        std::iter::once(word).chain(parts.into_iter().flatten())
    })
}

/// The part of a path behind the last slash.
fn last_part(path: &[u8]) -> &[u8] {
    let slash = memchr::memrchr(b'/', path);
    let (_, name) = path.split_at(slash.map_or(0, |slash| slash + 1));
    name
}

/// Whether a word of `text` is a path to `source`, from any directory.
fn names(text: &[u8], source: &Path) -> bool {
    paths(text).any(|path| is_path_to(path, source))
}

fn is_path_to(word: &[u8], source: &Path) -> bool {
    normalize(Path::new(OsStr::from_bytes(word))).ends_with(source)
}

/// A file that keeps its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// Absolute, without links.
    pub path: PathBuf,
    /// Below the source tree, for a file of it: whatever ends so leads there.
    pub ending: Option<PathBuf>,
    pub time: SystemTime,
}

/// Such files by the last part of their path.
pub(super) type WrittenFiles = HashMap<OsString, Vec<Written>>;

impl Written {
    /// Whether a word of a record leads to the file; kbuild calls its tools in `output`. `real` has paths without links.
    fn is_named(&self, word: &[u8], output: &Path, real: &Mutex<RealPaths>) -> bool {
        let ends_so = |ending: &PathBuf| is_path_to(word, ending);
        let path = normalize(&output.join(OsStr::from_bytes(word)));
        self.ending.as_ref().is_some_and(ends_so) || self.path == path || {
            let known = lock(real).get(&path).cloned();
            let found = known.unwrap_or_else(|| {
                let found = std::fs::canonicalize(&path).ok();
                lock(real).insert(path, found.clone());
                found
            });
            found.as_ref() == Some(&self.path)
        }
    }
}

type RealPaths = HashMap<PathBuf, Option<PathBuf>>;

/// Targets below `output` that are older than one of the files that their records name: make would make
/// them again, if it were asked for them.
pub(super) fn older_targets(output: &Path, files: &WrittenFiles) -> io::Result<BTreeSet<PathBuf>> {
    let names = Names::of(files.keys().map(|name| name.as_bytes()));
    let found = Mutex::new(BTreeSet::new());
    let real = Mutex::default();
    for_each_record(output, None, &|target, record| {
        let texts = names.texts(record);
        let modified = || std::fs::metadata(output.join(target)).and_then(|made| made.modified());
        let Some(made) = texts.first().and_then(|_| modified().ok()) else {
            return;
        };
        let is_newer = |path: &[u8]| {
            let known = files.get(OsStr::from_bytes(last_part(path)));
            let mut newer = known.into_iter().flatten();
            newer.any(|file| file.time > made && file.is_named(path, output, &real))
        };
        if texts.into_iter().flat_map(paths).any(is_newer) {
            lock(&found).insert(target.to_owned());
        }
    })?;
    Ok(found.into_inner().unwrap_or_default())
}

/// kbuild's record of the Kconfig files that the configuration was made of.
const KCONFIG_RECORD: &str = "include/config/auto.conf.cmd";

/// Files outside of both trees that were read, by kbuild's records; if `since` is given, by those that were
/// written after it.
pub(super) fn read_elsewhere(
    source: &Path,
    output: &Path,
    since: Option<SystemTime>,
) -> io::Result<BTreeSet<PathBuf>> {
    let found = Mutex::new(BTreeSet::new());
    for_each_record(output, since, &|_, record| {
        let elsewhere = listed_elsewhere(record, source, output);
        lock(&found).extend(elsewhere.map(|path| normalize(&output.join(path))));
    })?;
    let mut found = found.into_inner().unwrap_or_default();
    match fs_err::read(output.join(KCONFIG_RECORD)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        record => {
            let record = record?;
            let elsewhere = listed_elsewhere(&record, source, output);
            found.extend(elsewhere.map(|path| normalize(&source.join(path))));
        }
    }
    found.retain(|path| {
        let place = std::fs::canonicalize(path)
            .ok()
            .filter(|place| place.is_file());
        place.is_some_and(|place| !place.starts_with(source) && !place.starts_with(output))
    });
    Ok(found)
}

/// Paths that stand alone on a line of a record's lists, and are written as those of files elsewhere; the source
/// has a line of its own (scripts/basic/fixdep.c).
fn listed_elsewhere<'a>(
    record: &'a [u8],
    source: &'a Path,
    output: &'a Path,
) -> impl Iterator<Item = &'a Path> {
    let is_below = |path: &[u8], root: &Path| {
        let rest = path.strip_prefix(root.as_os_str().as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"/"))
    };
    let lines = record.split(|byte| *byte == b'\n');
    lines.filter_map(move |line| {
        let compiled = line.strip_prefix(b"source_").and_then(|rest| {
            let sign = memchr::memmem::find(rest, b" := ")?;
            rest.get(sign + 4..)
        });
        let path = compiled.unwrap_or(line).trim_ascii();
        let path = path.strip_suffix(b"\\").unwrap_or(path).trim_ascii();
        let leads_out = path.starts_with(b"../");
        let is_elsewhere =
            path.starts_with(b"/") && !is_below(path, source) && !is_below(path, output);
        let is_alone = || !path.contains(&b' ');
        let is_listed = compiled.is_some() || line.starts_with(b" ") || line.starts_with(b"\t");
        (is_listed && (leads_out || is_elsewhere) && is_alone())
            .then(|| Path::new(OsStr::from_bytes(path)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_found_under_each_of_its_paths() {
        let reads = |text: &str| {
            let source = Path::new("lib/a.c");
            names(text.as_bytes(), source)
        };
        assert!(reads("source_x := /src/lib/a.c\n"));
        assert!(reads("  ../lib/a.c \\\n"));
        assert!(reads("  kernel/../lib/a.c"));
        assert!(reads("clang -c -o a.o ./lib/a.c\n"));
        assert!(reads("$(wildcard ../lib/a.c)"));
        assert!(!reads("  ../lib/a.c.orig \\\n"));
        assert!(!reads("  ../lib/aa.c lib/b/a.c mylib/a.c"));
        let header = Path::new("include/dt-bindings/clock/qcom,sm8550.h");
        assert!(names(
            b"  ../include/dt-bindings/clock/qcom,sm8550.h \\\n",
            header
        ));
        assert!(names(b"-Wp,-MMD,lib/.a.o.d", Path::new("lib/.a.o.d")));
    }

    #[test]
    fn a_record_lists_what_lies_outside_of_both_trees() {
        let record = b"savedcmd_a.o := clang -o a.o /vendor/a.c\n\nsource_a.o := /vendor/a.c\n\ndeps_a.o := \\\n  \
            $(wildcard include/config/X) \\\n  /vendor/a.h \\\n  ../../b.h \\\n  /src/c.h \\\n\na.o: $(deps_a.o)\n";
        let found = listed_elsewhere(record, Path::new("/src"), Path::new("/src/out"));
        let wanted = ["/vendor/a.c", "/vendor/a.h", "../../b.h"].map(Path::new);
        assert_eq!(found.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_record_says_who_reads_more_than_tokens() {
        let is_preprocessed = |command: &str, source: &str| {
            let record = format!(
                "savedcmd_a.o := {command}\n\nsource_a.o := /src/a.c\n\ndeps_a.o := \\\n  /src/include/x.h \\\n"
            );
            let path = Path::new(source);
            assert!(names(record.as_bytes(), path));
            super::is_preprocessed(record.as_bytes(), path)
        };
        let compile = "clang -include /src/include/x.h -O2 -c -o a.o /src/a.c ; objtool a.o";
        for source in ["a.c", "include/x.h"] {
            assert!(is_preprocessed(compile, source));
            assert!(!is_preprocessed(&format!("{compile} -gdwarf-5"), source));
        }
        assert!(!is_preprocessed(
            "sed /src/include/x.h > a.o",
            "include/x.h"
        ));
        let record = b"savedcmd_a.c := sed /src/include/x.h > a.c\n";
        let path = Path::new("include/x.h");
        assert!(!super::is_preprocessed(record, path));
    }

    #[test]
    fn files_elsewhere_are_found_in_records() {
        let place = tempfile::tempdir().unwrap();
        let root = fs_err::canonicalize(place.path()).unwrap();
        let [source, output, sdk] = ["linux", "linux/out", "sdk"].map(|name| root.join(name));
        let before = SystemTime::now();
        let later = before + std::time::Duration::from_secs(3600);
        for header in ["reg.h", "near.h", "Kconfig"] {
            klto_core::publish(&sdk.join(header), b"").unwrap();
        }
        klto_core::publish(&source.join("a.h"), b"").unwrap();
        let record = format!(
            "savedcmd_a.o := clang {0}/reg.h -c a.c\n\ndeps_a.o := \\\n  {1}/a.h \\\n  {0}/reg.h \\\n  \
             ../../sdk/near.h \\\n  ../a.h \\\n  {0}/gone.h \\\n",
            sdk.display(),
            source.display()
        );
        klto_core::publish(&output.join(".a.o.cmd"), record.as_bytes()).unwrap();
        let record = "deps_config := \\\n\tinit/Kconfig \\\n\t../sdk/Kconfig \\\n";
        klto_core::publish(&output.join(KCONFIG_RECORD), record.as_bytes()).unwrap();
        let expected = ["reg.h", "near.h", "Kconfig"].map(|name| sdk.join(name));
        for since in [None, Some(before)] {
            let found = read_elsewhere(&source, &output, since).unwrap();
            assert_eq!(found, BTreeSet::from(expected.clone()));
        }
        let found = read_elsewhere(&source, &output, Some(later)).unwrap();
        assert_eq!(found, BTreeSet::from([sdk.join("Kconfig")]));
    }

    #[test]
    fn targets_older_than_a_source_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path();
        let write = |place: &str, text: &str| {
            klto_core::publish(&output.join(place), text.as_bytes()).unwrap();
        };
        for target in ["fs/old.o", "fs/other.o"] {
            write(target, "");
        }
        write(
            "fs/.old.o.cmd",
            "deps_fs/old.o := \\\n  ../include/soc,x.h \\\n",
        );
        write(
            "fs/.other.o.cmd",
            "deps_fs/other.o := \\\n  ../include/y.h \\\n",
        );
        write("fs/.gone.o.cmd", "  ../include/x.h \\\n");
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        let older = |name: &str, path: PathBuf, ending: Option<&str>, time| {
            let ending = ending.map(PathBuf::from);
            let file = Written { path, ending, time };
            let files = WrittenFiles::from([(name.into(), vec![file])]);
            older_targets(output, &files).unwrap()
        };
        let old = BTreeSet::from(["fs/old.o".into()]);
        let source = |time| {
            let ending = "include/soc,x.h";
            older(
                "soc,x.h",
                Path::new("/src").join(ending),
                Some(ending),
                time,
            )
        };
        assert_eq!(source(later), old);
        assert_eq!(source(SystemTime::UNIX_EPOCH), BTreeSet::new());
        // Another file than the one in the output tree has such an end.
        write("gen/z.h", "");
        write("other/gen/z.h", "");
        write("fs/.old.o.cmd", "  ./gen/z.h \\\n");
        write("fs/.other.o.cmd", "  other/gen/z.h \\\n");
        let output = fs_err::canonicalize(output).unwrap();
        assert_eq!(older("z.h", output.join("gen/z.h"), None, later), old);
        // As scripts/dtc/include-prefixes.
        std::os::unix::fs::symlink(output.join("gen"), output.join("link")).unwrap();
        write("fs/.old.o.cmd", "  link/z.h \\\n");
        assert_eq!(older("z.h", output.join("gen/z.h"), None, later), old);
    }

    #[test]
    fn targets_are_found_in_all_directories_but_kltos_own() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path();
        for (place, text) in [
            ("init/.main.o.cmd", "source_init/main.o := /src/init/main.c"),
            (
                "init/.other.o.cmd",
                "source_init/other.o := /src/init/other.c",
            ),
            (".top.cmd", "/src/init/main.c"),
            (".klto/.x.cmd", "/src/init/main.c"),
            ("init/.main.i.cmd", "/src/init/main.c"),
            ("init/.main.s.cmd", "/src/init/main.c"),
            ("kernel/.bounds.s.cmd", "/src/init/main.c"),
            ("init/main.o", "/src/init/main.c"),
        ] {
            klto_core::publish(&output.join(place), text.as_bytes()).unwrap();
        }
        let source = PathBuf::from("init/main.c");
        let found = targets_that_read(output, std::slice::from_ref(&source)).unwrap();
        let expected =
            ["init/main.o", "kernel/bounds.s", "top"].map(|target| (target.into(), source.clone()));
        let expected = BTreeSet::from(expected);
        assert_eq!(found, expected);
        let others = (0..=SEARCHED).map(|number| PathBuf::from(format!("lib/{number}.c")));
        let many: Vec<PathBuf> = others.chain([source]).collect();
        assert_eq!(targets_that_read(output, &many).unwrap(), expected);
    }
}
