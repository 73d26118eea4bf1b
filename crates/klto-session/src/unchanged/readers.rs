//! Who reads a source, by kbuild's own records: the `.cmd` file beside each target that a tool has made
//! (scripts/basic/fixdep.c) names all that was read for it.
//!
//! In: the output tree, sources. Out: targets. It does not know what a target is.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use klto_core::normalize;
use memchr::memmem::Finder;
use rayon::Scope;

use crate::scratch::SCRATCH_NAME;
use crate::session::lock;

/// Ends of targets that are made when a user asks for one, and of which nothing is made.
const ON_DEMAND: [&[u8]; 4] = [b".i", b".ll", b".lst", b".symtypes"];

/// The targets below `output` for which one of `sources` was read; both relative to their trees.
pub(super) fn targets_that_read(
    output: &Path,
    sources: &[PathBuf],
) -> io::Result<BTreeSet<(PathBuf, PathBuf)>> {
    let named = sources.iter().filter_map(|source| {
        let name = source.file_name()?.as_bytes().to_vec();
        Some((source.as_path(), Finder::new(&name).into_owned()))
    });
    let search = Search {
        output,
        sources: named.collect(),
        found: Mutex::default(),
        failure: Mutex::default(),
    };
    rayon::scope(|scope| search.enter(scope, output.to_owned()));
    match search.failure.into_inner().unwrap_or_default() {
        Some(error) => Err(error),
        None => Ok(search.found.into_inner().unwrap_or_default()),
    }
}

struct Search<'a> {
    output: &'a Path,
    /// Each with the search for its name.
    sources: Vec<(&'a Path, Finder<'static>)>,
    /// Targets and what they read.
    found: Mutex<BTreeSet<(PathBuf, PathBuf)>>,
    failure: Mutex<Option<io::Error>>,
}

impl Search<'_> {
    fn enter<'s>(&'s self, scope: &Scope<'s>, directory: PathBuf) {
        if let Err(error) = self.look(scope, &directory) {
            *lock(&self.failure) = Some(error);
        }
    }

    fn look<'s>(&'s self, scope: &Scope<'s>, directory: &Path) -> io::Result<()> {
        for entry in fs_err::read_dir(directory)? {
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
            let text = fs_err::read(entry.path())?;
            if ON_DEMAND.iter().any(|end| target.ends_with(end)) {
                continue;
            }
            let target = directory.join(OsStr::from_bytes(target));
            let target = target.strip_prefix(self.output).unwrap_or(&target);
            for (source, name) in &self.sources {
                if names(&text, source, name) {
                    let pair = (target.to_owned(), source.to_path_buf());
                    lock(&self.found).insert(pair);
                }
            }
        }
        Ok(())
    }
}

/// Whether a word of `text` is a path to `source`, from any directory.
fn names(text: &[u8], source: &Path, name: &Finder<'_>) -> bool {
    let is_end =
        |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b')' | b'\\' | b'"' | b'\'');
    name.find_iter(text).any(|place| {
        let (before, after) = text.split_at(place);
        let length = name.needle().len();
        if !after.get(length).is_none_or(is_end) {
            return false;
        }
        let start = before
            .iter()
            .rposition(|byte| is_end(byte) || matches!(byte, b'(' | b'='));
        let start = start.map_or(0, |start| start + 1);
        let word = text.get(start..place + length).unwrap_or_default();
        normalize(Path::new(OsStr::from_bytes(word))).ends_with(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_found_under_each_of_its_paths() {
        let reads = |text: &str| {
            let source = Path::new("lib/a.c");
            names(text.as_bytes(), source, &Finder::new("a.c"))
        };
        assert!(reads("source_x := /src/lib/a.c\n"));
        assert!(reads("  ../lib/a.c \\\n"));
        assert!(reads("  kernel/../lib/a.c"));
        assert!(reads("clang -c -o a.o ./lib/a.c\n"));
        assert!(reads("$(wildcard ../lib/a.c)"));
        assert!(!reads("  ../lib/a.c.orig \\\n"));
        assert!(!reads("  ../lib/aa.c lib/b/a.c mylib/a.c"));
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
            ("init/main.o", "/src/init/main.c"),
        ] {
            klto_core::publish(&output.join(place), text.as_bytes()).unwrap();
        }
        let source = PathBuf::from("init/main.c");
        let found = targets_that_read(output, std::slice::from_ref(&source)).unwrap();
        let expected = ["init/main.o", "top"].map(|target| (target.into(), source.clone()));
        assert_eq!(found, BTreeSet::from(expected));
    }
}
