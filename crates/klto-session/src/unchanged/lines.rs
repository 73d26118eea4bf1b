//! Whether it shows in what was made on which lines the tokens of a source are.
//!
//! In: sources in which nothing has changed but comments and blanks, and tokens are on other lines. Out: the first
//! target that may show it. Of most objects the journal knows on the lines of which files they depend; for a few
//! other targets, as `asm-offsets.s`, the compiler is asked now. Its answer holds for the lines of before as well:
//! where the same tokens are read, the first `__LINE__` is at the same place.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use klto_core::{die_with_parent, normalize};
use klto_formats::c_source::CSource;
use klto_kbuild::front_end::FrontEnd;
use klto_kbuild::record::{self, RecordedCompile};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::Watch;
use super::readers::targets_that_read;
use crate::archives::record_beside;
use crate::begun;
use crate::compile::{LineUse, can_tell, placed_header, with_header};
use crate::journal::{Journal, SourceFiles};

/// Of so many targets the compiler is asked whatever else there is.
const FEW_ASKED: usize = 64;

/// Of more than one of so many readers the compiler is not asked: it would take longer than make, which finds most
/// results in the store (0.6 s of a processor against 0.06 s for each reader; Linux 6.12, LLVM 22).
const READERS_FOR_ONE_ASKED: usize = 20;

impl Watch {
    /// Why lines of these sources may show in what is made of them.
    pub(super) fn why_lines_count(&self, sources: &[PathBuf]) -> Option<String> {
        if sources.is_empty() {
            return None;
        }
        match self.target_that_shows_lines(sources) {
            Ok(target) => target.map(|target| {
                let target = target.display();
                format!("{target} may show on which lines tokens are")
            }),
            Err(error) => Some(error.to_string()),
        }
    }

    fn target_that_shows_lines(&self, sources: &[PathBuf]) -> io::Result<Option<PathBuf>> {
        let read = targets_that_read(&self.roots.output, sources)?;
        let targets: BTreeSet<PathBuf> = read.into_iter().map(|(target, _)| target).collect();
        if begun::is_under_way(&self.scratch()) {
            return Err(io::Error::other("a build has not ended"));
        }
        let (known, bitcode) = Journal::read_lines_read(&self.scratch().join("journal"))?;
        let moved: SourceFiles = sources.iter().cloned().collect();
        let most_asked = FEW_ASKED.max(targets.len() / READERS_FOR_ONE_ASKED);
        let mut unknown = Vec::new();
        for target in targets {
            let has_more_words = self.adds_flags && bitcode.contains(&target);
            match known.get(&target) {
                Some(read) if read.is_disjoint(&moved) => {}
                // The record of a call to which klto gives more has kbuild's words alone.
                None if !has_more_words && unknown.len() < most_asked => unknown.push(target),
                _ => return Ok(Some(target)),
            }
        }
        // By whatever path the compiler reads a file, its name is the last part.
        let names: BTreeSet<&OsStr> = moved.iter().filter_map(|file| file.file_name()).collect();
        let shows = |target: &&PathBuf| {
            let read = self.lines_read_for(target);
            read.is_none_or(|read| read.iter().any(|name| names.contains(name.as_os_str())))
        };
        Ok(unknown.par_iter().find_first(shows).cloned())
    }

    /// The names of files on whose lines a target depends, as its compiler says; `None` where it cannot be asked, or
    /// does not say all.
    fn lines_read_for(&self, target: &Path) -> Option<Vec<OsString>> {
        let text = fs_err::read(record_beside(&self.roots.output.join(target))).ok()?;
        let compile = RecordedCompile::of(&text)?;
        if !self.may_be_asked(&compile, &text) {
            return None;
        }
        let header = placed_header(&self.scratch())?;
        let mut call = Command::new(&compile.program);
        call.args(with_header(&header, &compile.only_read()))
            .current_dir(&self.roots.output)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        let answer = die_with_parent(&mut call).output().ok()?;
        let uses = LineUse::of(&[answer.stdout, answer.stderr].concat(), Some(&header))?;
        let files = uses.files.iter();
        let names = files.filter_map(|file| file.file_name());
        (answer.status.success() && uses.is_known).then(|| names.map(ToOwned::to_owned).collect())
    }

    /// Whether the compiler of a record's call says of all files where their lines count. It does not of a program of
    /// the host, which reads that one's headers.
    fn may_be_asked(&self, compile: &RecordedCompile, record: &[u8]) -> bool {
        let output = &self.roots.output;
        let front = FrontEnd::of(&compile.arguments);
        // It warns of nothing in headers of the system.
        let is_in_a_tree = |directory: &PathBuf| {
            let directory = normalize(&output.join(directory));
            let mut roots = [&self.roots.source, output].into_iter();
            roots.any(|root| directory.starts_with(root) || root.starts_with(&directory))
        };
        if front.reads_other_files
            || !can_tell(&front, &compile.arguments)
            || front.system.iter().any(is_in_a_tree)
            || !self.is_compiler(compile)
        {
            return false;
        }
        let source = compile.source();
        let files = record::prerequisites(record).chain(source.as_deref());
        let files: Vec<PathBuf> = files.map(|path| output.join(path)).collect();
        files.par_iter().all(|file| {
            let text = std::fs::read(file);
            text.is_ok_and(|text| !CSource::read(&text).hides_lines)
        })
    }

    /// Whether the program of a call is a tool of the build, as PATH finds it.
    fn is_compiler(&self, compile: &RecordedCompile) -> bool {
        let path = self.environment.iter().find(|(name, _)| name == "PATH");
        let directories = path.map(|(_, path)| std::env::split_paths(path).collect::<Vec<_>>());
        let places = directories.unwrap_or_default().into_iter();
        // Of an absolute path that is the path itself.
        let mut places = places.map(|place| place.join(&compile.program));
        let found = places.find(|place| place.is_file());
        let found = found.and_then(|place| fs_err::canonicalize(place).ok());
        let is_that = |known: &PathBuf| fs_err::canonicalize(known).ok() == found;
        found.is_some() && self.programs.iter().any(is_that)
    }

    fn scratch(&self) -> PathBuf {
        self.file.with_file_name("")
    }
}
