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
use memchr::memmem::Finder;
use rayon::iter::{IntoParallelIterator as _, IntoParallelRefIterator as _, ParallelIterator as _};

use super::Watch;
use super::readers::targets_that_read;
use crate::archives::record_beside;
use crate::begun;
use crate::compile::{LineUse, MODE_MARKER, can_tell, placed_header, with_header};
use crate::journal::{Journal, SourceFiles};
use crate::session::{Session, lock};

/// Of more targets the compiler is not asked: it would take longer than make.
const MOST_ASKED: usize = 64;

/// Somebody else may have built in the output tree: of objects whose records do not have klto's mark nothing is
/// known any more, for it may be he who has made them.
///
/// # Errors
/// The journal cannot be written.
pub(crate) fn forget_lines_read_by_others(session: &Session) -> io::Result<()> {
    let known = lock(&session.journal);
    let objects: Vec<PathBuf> = known
        .objects_with_lines_read()
        .map(Path::to_owned)
        .collect();
    drop(known);
    let mark = Finder::new(MODE_MARKER);
    let is_marked = |object: &Path| {
        let record = std::fs::read(record_beside(&session.scratch.output().join(object)));
        record.is_ok_and(|record| {
            record::command(&record).is_some_and(|command| mark.find(command).is_some())
        })
    };
    let others = objects.par_iter().filter(|object| !is_marked(object));
    let others: Vec<&PathBuf> = others.collect();
    let mut journal = lock(&session.journal);
    let mut others = others.into_iter();
    others.try_for_each(|object| journal.set_lines_read(object, None))
}

/// What a compiler is asked: which lines a target depends on.
struct Question {
    /// The call that made the target.
    compile: RecordedCompile,
    /// All that it read.
    files: Vec<PathBuf>,
}

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
        let mut unknown = Vec::new();
        for target in targets {
            let has_more_words = self.adds_flags && bitcode.contains(&target);
            match known.get(&target) {
                Some(read) if read.is_disjoint(&moved) => {}
                // The record of a call to which klto gives more has kbuild's words alone.
                None if !has_more_words && unknown.len() < MOST_ASKED => unknown.push(target),
                _ => return Ok(Some(target)),
            }
        }
        let mut questions = Vec::new();
        for target in unknown {
            match self.question(&target) {
                Some(question) => questions.push((target, question)),
                None => return Ok(Some(target)),
            }
        }
        let found = self.one_that_shows_lines(&questions, &moved);
        Ok(found.map(Path::to_owned))
    }

    /// A target whose compiler says, or does not deny, that it depends on lines of one of the `moved` files.
    fn one_that_shows_lines<'a>(
        &self,
        questions: &'a [(PathBuf, Question)],
        moved: &SourceFiles,
    ) -> Option<&'a Path> {
        let read = questions.iter().flat_map(|(_, question)| &question.files);
        let read: BTreeSet<&PathBuf> = read.collect();
        let hides = |file: &&PathBuf| {
            let text = std::fs::read(file);
            text.map_or(true, |text| CSource::read(&text).hides_lines)
        };
        let hiding: BTreeSet<&PathBuf> = read.into_par_iter().filter(hides).collect();
        let of_hiding = |(_, question): &&(PathBuf, Question)| {
            question.files.iter().any(|file| hiding.contains(file))
        };
        if let Some((target, _)) = questions.iter().find(of_hiding) {
            return Some(target);
        }
        // By whatever path the compiler reads a file, its name is the last part.
        let names: BTreeSet<&OsStr> = moved.iter().filter_map(|file| file.file_name()).collect();
        let shows = |(_, question): &&(PathBuf, Question)| {
            let read = self.lines_read_for(question);
            read.is_none_or(|read| read.iter().any(|name| names.contains(name.as_os_str())))
        };
        let found = questions.par_iter().find_first(shows);
        found.map(|(target, _)| target.as_path())
    }

    /// What to ask a target's compiler; `None` where it cannot be asked, or does not say of all files where their
    /// lines count. It does not of a program of the host, which reads that one's headers.
    fn question(&self, target: &Path) -> Option<Question> {
        let output = &self.roots.output;
        let record = fs_err::read(record_beside(&output.join(target))).ok()?;
        let compile = RecordedCompile::of(&record)?;
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
            || !self.is_compiler(&compile)
        {
            return None;
        }
        let source = compile.source();
        let files = record::prerequisites(&record).chain(source.as_deref());
        let files = files.map(|path| output.join(path)).collect();
        Some(Question { compile, files })
    }

    /// The names of files on whose lines a target depends, as its compiler says; `None` where it does not say all.
    fn lines_read_for(&self, question: &Question) -> Option<Vec<OsString>> {
        let header = placed_header(&self.scratch())?;
        let mut call = Command::new(&question.compile.program);
        call.args(with_header(&header, &question.compile.only_read()))
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
