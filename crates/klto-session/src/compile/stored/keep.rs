//! What ran goes into the store.
//!
//! In: a compile whose call has ended. Out: its dependency file as kbuild's own call would have written it, and
//! object and list of what was read in the store, unless something speaks against that.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use klto_core::{Digest, Failure, normalize, publish};
use klto_exec::ToolCall;
use klto_formats::bitcode::{differ_only_in_assembly_places, is_bitcode};
use klto_formats::depfile::Depfile;
use klto_kbuild::compile::backend_flags;
use klto_lower::{Grain, Place, Reads};
use klto_store::has_trusted_stamps;

use super::{
    Expected, GRANULARITY, InputFile, READS_BY_ASSEMBLER, StoredCompile, last_change, lines_read,
};
use crate::compile::line_use::LineUse;
use crate::compile::previous::Previous;
use crate::journal::SourceFiles;
use crate::session::{Session, tool_environment};

/// Sets of files that are kept for one call, the latest first: configurations differ in what they include.
const MOST_READS: usize = 8;
/// More than the clocks of two machines differ by: a server that keeps files stamps them by its own.
const OTHER_CLOCK: Duration = Duration::from_secs(600);
/// A time of change without a part below a millisecond, in nanoseconds, is one of whole seconds.
const COARSE: i64 = 1_000_000;

/// How a compile that ran was kept.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::compile) struct Kept {
    /// The bitcode is the former one, which is the same code.
    pub is_same_code: bool,
    /// Why the store does not have it, if so.
    pub not_stored: Option<String>,
    /// See [`super::Found::lines_read`].
    pub lines_read: Option<SourceFiles>,
}

/// What the store does with a result.
enum Storing {
    /// Nothing, for this reason.
    No(String),
    /// It has the same, of a compile that read so.
    Known(Reads),
    /// It gets it, with what was read.
    Under([(Grain, Digest); 2], Reads),
}

impl StoredCompile {
    /// After the compiler has run with success and has said nothing but where it expands `__LINE__` (`uses`): the
    /// dependency file as kbuild's own call would have written it, and all of it in the store. Where `previous` is
    /// the same code, it takes the place of what the compiler wrote, in the store as well; but never by the key of
    /// [`Grain::Bytes`].
    ///
    /// # Errors
    /// A [`Failure`] where the store had another result. Otherwise something could not be read or written:
    /// the call is to be done as it is written.
    pub fn keep(
        &self,
        session: &Session,
        previous: Option<Previous>,
        uses: &LineUse,
    ) -> anyhow::Result<Kept> {
        let storing = self.storing(session, uses)?;
        let is_same_code = previous.is_some_and(Previous::put_back);
        let mut by_line = None;
        let not_stored = match storing {
            Storing::No(reason) => Some(reason),
            Storing::Known(reads) => {
                by_line = lines_read(&reads);
                None
            }
            Storing::Under(keys, reads) => {
                let mut keys = Vec::from(keys);
                keys.retain(|(grain, _)| !is_same_code || *grain == Grain::Tokens);
                let keys: Vec<Digest> = keys.into_iter().map(|(_, key)| key).collect();
                session.engine.keep_output(&keys, &self.object);
                by_line = lines_read(&reads);
                let mut known = self.known_reads(session);
                known.retain(|other| *other != reads);
                known.insert(0, reads);
                known.truncate(MOST_READS);
                let known = postcard::to_stdvec(&known)?;
                session.engine.keep_bytes(self.call, &known);
                None
            }
        };
        Ok(Kept {
            is_same_code,
            not_stored,
            lines_read: by_line,
        })
    }

    /// Writes the dependency file, and says what the store does with what the compiler wrote.
    fn storing(&self, session: &Session, uses: &LineUse) -> anyhow::Result<Storing> {
        let mut reads = self.reads_of_depfile()?;
        self.write_depfile(&reads)?;
        if let Some(reason) = &self.not_stored {
            return Ok(Storing::No(reason.clone()));
        }
        let files = self.input_files(session, &reads.files)?;
        let for_assembler = files.iter().find(|file| file.source.names_assembler_files);
        if let Some(file) = for_assembler.filter(|_| self.is_native) {
            // It looks in the directory of the call first, and kbuild's own call has another.
            anyhow::bail!("{} {READS_BY_ASSEMBLER}", file.path.display());
        }
        if let Some(reason) = self.why_not_stored(&files)? {
            return Ok(Storing::No(reason));
        }
        if !session.engine.is_as_identified(self.tool) {
            let reason = "the compiler has just been replaced".to_owned();
            return Ok(Storing::No(reason));
        }
        reads.by_line = self.by_line(uses, &files)?;
        if let Some(expected) = self.expected {
            return match self.is_as_expected(session, expected)? {
                true => Ok(Storing::Known(reads)),
                false => Err(self.differs()),
            };
        }
        let passed = self.passed_over(session, &files);
        for path in &passed {
            // It may have come after the compiler looked for it.
            if self.is_young(path)? {
                let reason = format!("{} has just been written", path.display());
                return Ok(Storing::No(reason));
            }
        }
        let passed = passed.into_iter();
        let root = Path::new("/");
        reads.passed_over = passed.map(|path| self.roots.place(root, &path)).collect();
        let keys = self.keys(session, &files, &reads.by_line)?;
        Ok(Storing::Under(keys, reads))
    }

    /// Whether the object that was made again is what the store has. Bitcode may be the same code with other
    /// places of inline assembly; then it takes the object's place, as it would have without the check.
    fn is_as_expected(&self, session: &Session, expected: Expected) -> anyhow::Result<bool> {
        let fresh = fs_err::read(&self.object)?;
        if Digest::of_bytes(&fresh) == expected.object {
            return Ok(true);
        }
        if self.is_native || !is_bitcode(&fresh) {
            return Ok(false);
        }
        let Some(stored) = session.engine.find_bytes(expected.key) else {
            // A collection has removed it; the fresh one stays.
            return Ok(true);
        };
        // A doubt is no difference: machine code decides.
        let is_same = differ_only_in_assembly_places(&stored, &fresh).unwrap_or(false)
            || self.to_machine_code(session, &stored)? == self.to_machine_code(session, &fresh)?;
        if is_same {
            publish(&self.object, &stored)?;
        }
        Ok(is_same)
    }

    /// What the compiler makes of bitcode by itself, with the flags of this compile.
    fn to_machine_code(&self, session: &Session, bitcode: &[u8]) -> anyhow::Result<Vec<u8>> {
        let place = tempfile::tempdir_in(session.scratch.path(""))?;
        let [from, to] = ["bitcode", "native"].map(|name| place.path().join(name));
        fs_err::write(&from, bitcode)?;
        let mut arguments = backend_flags(&self.normal.arguments).arguments;
        arguments
            .extend(["-Wno-unused-command-line-argument", "-c", "-x", "ir"].map(OsString::from));
        arguments.extend([from.into(), "-o".into(), to.clone().into()]);
        let (status, printed) = session.engine.call(&ToolCall {
            program: &self.program,
            arguments,
            directory: &self.roots.output,
            environment: &tool_environment(&[]),
        })?;
        let printed = String::from_utf8_lossy(&printed);
        anyhow::ensure!(status.success(), "compiling bitcode again: {printed}");
        Ok(fs_err::read(&to)?)
    }

    fn differs(&self) -> anyhow::Error {
        let (kind, label, call) = (self.kind(), &self.label, self.call);
        Failure::build(format!(
            "{kind} of {label}: the store's result differs from a fresh run (call {call}); run \
             `klto cache clear`, and report this with the file .klto/log"
        ))
        .into()
    }

    /// What the compiler says that it read, and what no dependency file names.
    fn reads_of_depfile(&self) -> anyhow::Result<Reads> {
        let bytes = fs_err::read(&self.depfile)?;
        let depfile =
            Depfile::read(&bytes).with_context(|| format!("reading {}", self.depfile.display()))?;
        let system = match self.front.leaves_out_system {
            true => self.absolute(&self.front.system),
            false => Vec::new(),
        };
        let mut reads = Reads {
            files: Vec::new(),
            system: Vec::new(),
            by_line: Vec::new(),
            passed_over: Vec::new(),
        };
        for file in depfile.files {
            let file = PathBuf::from(OsString::from_vec(file));
            let absolute = normalize(&self.normal.directory.join(&file));
            if self.line_header.as_ref() == Some(&absolute) {
                continue;
            }
            anyhow::ensure!(
                self.is_same_file(&file, &absolute)?,
                "{} leads behind a link",
                file.display()
            );
            if system.iter().any(|root| absolute.starts_with(root)) {
                reads.system.push(u32::try_from(reads.files.len())?);
            }
            reads
                .files
                .push(self.roots.place(Path::new("/"), &absolute));
        }
        for file in &self.front.more_inputs {
            reads.system.push(u32::try_from(reads.files.len())?);
            reads.files.push(self.roots.place(&self.roots.output, file));
        }
        Ok(reads)
    }

    /// The files in which the lines of tokens matter, by their place: all of them where the compiler may not have
    /// named every one. It warns of nothing in headers of the system, which are outside of both trees.
    fn by_line(&self, uses: &LineUse, files: &[InputFile]) -> io::Result<Vec<u32>> {
        let mut used = BTreeSet::new();
        let mut is_known = uses.is_known;
        for file in &uses.files {
            let absolute = normalize(&self.normal.directory.join(file));
            is_known &= self.is_same_file(file, &absolute)?;
            used.insert(absolute);
        }
        let paths: BTreeSet<&PathBuf> = files.iter().map(|file| &file.path).collect();
        let is_in_a_tree = |directory: &PathBuf| {
            let roots = [&self.roots.source, &self.roots.output];
            let mut roots = roots.into_iter();
            roots.any(|root| directory.starts_with(root) || root.starts_with(directory))
        };
        // One file may have two names, and the compiler knows the first.
        let same = files.iter().filter(|file| used.contains(&file.path));
        let same: BTreeSet<Digest> = same.map(|file| file.source.bytes).collect();
        let is_known = is_known
            && used.iter().all(|path| paths.contains(path))
            && !self.absolute(&self.front.system).iter().any(is_in_a_tree)
            && !files.iter().any(|file| file.source.hides_lines);
        let is_by_line = |file: &InputFile| {
            !is_known
                || same.contains(&file.source.bytes)
                || matches!(file.place, Place::Elsewhere(_))
        };
        let places = (0..).zip(files);
        let by_line = places.filter(|(_, file)| is_by_line(file));
        Ok(by_line.map(|(place, _)| place).collect())
    }

    fn why_not_stored(&self, files: &[InputFile]) -> io::Result<Option<String>> {
        for file in files {
            if let Some(word) = file.source.asks {
                return Ok(Some(format!("{} asks for {word}", file.path.display())));
            }
            if file.source.names_assembler_text {
                let path = file.path.display();
                return Ok(Some(format!("{path} has the assembler include a file")));
            }
            if self.is_young(&file.path)? {
                return Ok(Some(format!(
                    "{} has just been written",
                    file.path.display()
                )));
            }
        }
        Ok(None)
    }

    /// Whether a file may have been written after the compile began.
    fn is_young(&self, path: &Path) -> io::Result<bool> {
        let file = fs_err::File::open(path)?;
        let link = fs_err::symlink_metadata(path)?;
        let is_link = link.is_symlink();
        if is_link && last_change(&link)? + GRANULARITY > self.begin {
            return Ok(true);
        }
        let metadata = file.metadata()?;
        let is_coarse = metadata.ctime_nsec() % COARSE == 0;
        let margin = match is_coarse || !has_trusted_stamps(file.file()) {
            true => OTHER_CLOCK,
            false => GRANULARITY,
        };
        Ok(last_change(&metadata)? + margin > self.begin)
    }
}
