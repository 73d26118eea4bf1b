//! A compile whose object can be found in the store, or put there.
//!
//! In: a call of the compiler. Out: the object and the dependency file in their places; or the call to run,
//! and after it the same in the store. What the keys cover is said in `klto-lower/src/compile.rs`.
//!
//! A file that changes while the compiler reads must not be taken for what it read: nothing is stored when an
//! input was written after the compile began, or so shortly before that its stamps cannot tell.

mod keep;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use klto_core::{Digest, Storable, normalize, publish};
use klto_formats::c_source::{asks, names_assembler_files, options};
use klto_formats::depfile::Depfile;
use klto_kbuild::compile::CompileCall;
use klto_kbuild::front_end::{FrontEnd, PathUse, assembler_not_followed, names_source, with_paths};
use klto_lower::{CompileCallParts, Grain, Place, Reads, call_key, result_key};
use klto_wire::Request;

use super::NATIVE;
use super::call::{NormalCall, Roots};
use super::line_use::{LineUse, can_tell, with_header};
use super::passed_over::passed_over;
use super::sources::Source;
use crate::journal::SourceFiles;
use crate::session::{Run, Session, tool_environment};

/// Variables after which a compile depends on more than its key says.
const NOT_FOLLOWED: [&str; 9] = [
    "CCC_OVERRIDE_OPTIONS",
    "CLANG_CONFIG_FILE_SYSTEM_DIR",
    "CLANG_CONFIG_FILE_USER_DIR",
    "CLANG_NO_DEFAULT_CONFIG",
    "COMPILER_PATH",
    "CPATH",
    "C_INCLUDE_PATH",
    "GCC_EXEC_PREFIX",
    "SYSROOT",
];

const READS_BY_ASSEMBLER: &str = "may have the assembler read a file";

/// The options of a configuration, as every source includes them.
const AUTOCONF: &str = "include/generated/autoconf.h";

/// A change that is younger than this when the compile begins may have been made after it; see
/// `klto-store/src/memo.rs`.
const GRANULARITY: Duration = Duration::from_millis(20);
/// One compile.
pub(super) struct StoredCompile {
    label: String,
    program: PathBuf,
    normal: NormalCall,
    front: FrontEnd,
    roots: Roots,
    call: Digest,
    /// The identity of the compiler.
    tool: Digest,
    /// What the call itself mentions.
    options: BTreeSet<Vec<u8>>,
    /// Absolute, as all paths here.
    source: PathBuf,
    object: PathBuf,
    depfile: PathBuf,
    /// As kbuild's call names it: the target of the dependency file.
    target: Vec<u8>,
    begin: SystemTime,
    /// Whether the object is machine code.
    is_native: bool,
    /// Why the store is left alone, if so.
    not_stored: Option<String>,
    /// The header by which the compiler says where it expands `__LINE__`; `None` where all lines count anyway.
    line_header: Option<PathBuf>,
    /// A result that is to be made again and compared.
    expected: Option<Expected>,
}

/// A result in the store.
#[derive(Debug, Clone, Copy)]
struct Expected {
    key: Digest,
    /// Digest of the object.
    object: Digest,
}

/// A result that was in the store, and is in its place now.
#[derive(Debug)]
pub(super) struct Found {
    /// The files on whose lines it depends; `None` where it may be those of all.
    pub lines_read: Option<SourceFiles>,
}

/// A file that a compile reads.
pub(super) struct InputFile {
    place: Place,
    /// Absolute, without `.` and `..`.
    pub path: PathBuf,
    pub source: Arc<Source>,
}

impl InputFile {
    fn is_autoconf(&self) -> bool {
        match &self.place {
            Place::Output(path) | Place::Source(path) => path == Path::new(AUTOCONF),
            Place::Elsewhere(_) => false,
        }
    }
}

/// Why a compile is done as it is written.
fn why_not_followed(request: &Request, arguments: &[OsString], front: &FrontEnd) -> Option<String> {
    let set = |name: &&str| request.environment.iter().any(|(known, _)| known == name);
    if let Some(name) = NOT_FOLLOWED.iter().find(|name| set(name)) {
        return Some(format!("{name} is set"));
    }
    let asked = |word: &OsString| asks(word.as_bytes());
    let asked = arguments.iter().find_map(asked);
    let asked = asked.map(|word| format!("a macro asks for {word}"));
    front.not_storable.clone().or(asked)
}

impl StoredCompile {
    /// `arguments` with `call.output`; the reason, where the call is done as it is written. What the result
    /// depends on besides goes into `more`.
    pub fn of(
        session: &Session,
        request: &Request,
        (call, arguments, more): (&CompileCall, &[OsString], &[OsString]),
        label: String,
    ) -> anyhow::Result<Result<Self, String>> {
        let front = FrontEnd::of(arguments);
        if let Some(reason) = why_not_followed(request, arguments, &front) {
            return Ok(Err(reason));
        }
        let Some(depfile) = front.depfile.clone() else {
            return Ok(Err("it writes no dependency file".into()));
        };
        let environment = tool_environment(&request.environment);
        let identity = session.identity(&request.program, &environment)?;
        // Bitcode must not depend on whether it is stored.
        let not_stored = match &identity.storable {
            Storable::No(reason) => Some(reason.clone()),
            Storable::Yes => session
                .engine
                .store()
                .is_none()
                .then(|| "there is no store".into()),
        };
        let roots = Roots {
            source: session.source.clone(),
            output: request.directory.clone(),
        };
        let mut normal = NormalCall::of(arguments, &call.source, &front, &roots);
        normal.key_arguments.extend(more.iter().cloned());
        let call_key = call_key(&CompileCallParts {
            tool: identity.digest,
            arguments: &normal.key_arguments,
            directory: normal.key_directory.as_ref().map(|directory| {
                // clang takes the working directory from PWD where that is another name of it.
                let pwd = request.environment.iter().find(|(name, _)| name == "PWD");
                let pwd = pwd.map_or(&b""[..], |(_, pwd)| pwd.as_bytes());
                let both = [directory.as_os_str().as_bytes(), b"\0", pwd].concat();
                PathBuf::from(OsString::from_vec(both))
            }),
        });
        let line_header = session.line_header.clone();
        let line_header = line_header.filter(|_| can_tell(&front, arguments));
        let words = normal.key_arguments.iter();
        let options = words.flat_map(|word| options(word.as_bytes())).collect();
        Ok(Ok(Self {
            label,
            program: request.program.clone(),
            source: request.directory.join(&call.source),
            object: request.directory.join(&call.output),
            depfile: request.directory.join(depfile),
            target: call.output.as_os_str().as_bytes().to_vec(),
            call: call_key,
            tool: identity.digest,
            options,
            normal,
            front,
            roots,
            begin: SystemTime::now(),
            is_native: false,
            not_stored,
            line_header,
            expected: None,
        }))
    }

    /// Of a call whose object is machine code.
    pub fn native(mut self) -> Self {
        let words = &self.normal.arguments;
        // As `-DREAD=.incbin`, or the word after `-D`.
        let for_assembler = words
            .iter()
            .map(OsString::as_os_str)
            .find(|word| names_assembler_files(word.as_bytes()));
        let reason = match (
            for_assembler.or(assembler_not_followed(words)),
            names_source(words),
        ) {
            (Some(word), _) => Some(format!("{} {READS_BY_ASSEMBLER}", word.display())),
            (None, Some(word)) => Some(format!("{} names the source", word.display())),
            (None, None) => None,
        };
        self.not_stored = self.not_stored.or(reason);
        self.is_native = true;
        self
    }

    /// With this target of the dependency file.
    pub fn with_target(self, target: &OsStr) -> Self {
        Self {
            target: target.as_bytes().to_vec(),
            ..self
        }
    }

    /// With these places of what the compiler writes, which no key depends on; both absolute.
    pub fn written_to(mut self, object: PathBuf, depfile: PathBuf) -> Self {
        self.normal.arguments = with_paths(&self.normal.arguments, &|path, used| match used {
            PathUse::Object => object.clone().into(),
            PathUse::Depfile => depfile.clone().into(),
            PathUse::Source | PathUse::Read | PathUse::Prefix => path.into(),
        });
        Self {
            object,
            depfile,
            ..self
        }
    }

    /// As logs name the object.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// As logs name what is done.
    pub const fn kind(&self) -> &'static str {
        match self.is_native {
            true => NATIVE,
            false => "compile",
        }
    }

    /// Where the object goes; absolute.
    pub fn object(&self) -> &Path {
        &self.object
    }

    /// The key of the call.
    pub const fn call_key(&self) -> Digest {
        self.call
    }

    /// Whether the store may have its result.
    pub fn is_storable(&self) -> bool {
        self.not_stored.is_none()
    }

    /// Of a source that kbuild has just written, as those of modpost, the stamps do not tell yet whether it
    /// changes while the compiler reads. A moment later they do.
    pub fn wait_for_source(&mut self) {
        let age = || {
            let changed = last_change(&fs_err::metadata(&self.source).ok()?).ok()?;
            // A time to come will not pass soon.
            self.begin.duration_since(changed).ok()
        };
        if self.not_stored.is_none()
            && let Some(rest) = age().and_then(|age| GRANULARITY.checked_sub(age))
        {
            std::thread::sleep(rest + Duration::from_millis(1));
            self.begin = SystemTime::now();
        }
    }

    /// The call to run when nothing is found.
    pub fn run(&self) -> Run {
        Run {
            program: self.program.clone(),
            arguments: match &self.line_header {
                Some(header) => with_header(header, &self.normal.arguments),
                None => self.normal.arguments.clone(),
            },
            directory: self.normal.directory.clone(),
            quiet: true,
        }
    }

    /// What the call of [`Self::run`] has said of lines; `None` where it has anything else to say.
    pub fn line_use(&self, printed: &[u8]) -> Option<LineUse> {
        LineUse::of(printed, self.line_header.as_deref())
    }

    /// Puts object and dependency file in their places, if the store has them.
    pub fn find(&mut self, session: &Session) -> Option<Found> {
        if self.not_stored.is_some() {
            return None;
        }
        for reads in self.known_reads(session) {
            let Some(keys) = self.keys_now(session, &reads) else {
                continue;
            };
            let [_, (_, by_tokens)] = keys;
            for (_, key) in keys {
                let Some(result) = session.engine.find(key) else {
                    continue;
                };
                if session.engine.is_chosen_for_verification(key) {
                    let object = result.outputs.first().copied();
                    self.expected = object.map(|object| Expected { key, object });
                    return None;
                }
                let fetched = session
                    .engine
                    .fetch_output(&result, &self.object, &self.label);
                if fetched && self.write_depfile(&reads).is_ok() {
                    // The key of bytes says nothing of lines: the same files may have been read by others.
                    let is_of_these = key == by_tokens || session.engine.find(by_tokens).is_some();
                    let lines_read = lines_read(&reads).filter(|_| is_of_these);
                    return Some(Found { lines_read });
                }
            }
        }
        None
    }

    fn known_reads(&self, session: &Session) -> Vec<Reads> {
        let bytes = session.engine.find_bytes(self.call).unwrap_or_default();
        postcard::from_bytes(&bytes).unwrap_or_default()
    }

    /// The keys for these files as they are now; `None` when the compile would read others.
    fn keys_now(&self, session: &Session, reads: &Reads) -> Option<[(Grain, Digest); 2]> {
        let files = self.input_files(session, &reads.files).ok()?;
        let passed = reads.passed_over.iter().map(|place| self.roots.path(place));
        let passed: BTreeSet<PathBuf> = passed.collect();
        match self.passed_over(session, &files) == passed {
            true => self.keys(session, &files, &reads.by_line).ok(),
            false => None,
        }
    }

    fn input_files(&self, session: &Session, places: &[Place]) -> io::Result<Vec<InputFile>> {
        let read = |place: &Place| {
            let path = self.roots.path(place);
            let source = session.sources.get(&path, &session.memo)?;
            let place = place.clone();
            Ok(InputFile {
                place,
                path,
                source,
            })
        };
        places.iter().map(read).collect()
    }

    fn keys(
        &self,
        session: &Session,
        files: &[InputFile],
        by_line: &[u32],
    ) -> io::Result<[(Grain, Digest); 2]> {
        let configuration = match files.iter().find(|file| file.is_autoconf()) {
            Some(file) => session.sources.configuration(&file.path, &session.memo)?,
            None => Arc::default(),
        };
        let others = files.iter().filter(|file| !file.is_autoconf());
        let mentioned = others.flat_map(|file| &file.source.options);
        let mentioned: BTreeSet<&[u8]> =
            mentioned.chain(&self.options).map(Vec::as_slice).collect();
        let mut values: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
        for option in mentioned {
            values.insert(option, configuration.get(option).map(Vec::as_slice));
            let module = [option, b"_MODULE"].concat();
            if let Some((name, value)) = configuration.get_key_value(&module) {
                values.insert(name, Some(value));
            }
        }
        let by_tokens = !self.front.shows_columns;
        // kbuild's fixdep does not see these either; here another tree would get the result.
        let whole = files.iter().any(|file| file.source.pastes_options);
        let of_bytes = files.iter().map(|file| (&file.place, file.source.bytes));
        let no_sources = self.absolute(&self.front.more_inputs);
        let is_by_line = |place| by_line.binary_search(&place).is_ok();
        let of_tokens = (0..).zip(files);
        let of_tokens = of_tokens.filter(|(_, file)| whole || !file.is_autoconf());
        let is_source = |file: &InputFile| by_tokens && !no_sources.contains(&file.path);
        let of_tokens = of_tokens.map(|(place, file)| match is_source(file) {
            true if is_by_line(place) => (&file.place, file.source.lines),
            true => (&file.place, file.source.tokens),
            false => (&file.place, file.source.bytes),
        });
        let (of_bytes, of_tokens): (Vec<_>, Vec<_>) = (of_bytes.collect(), of_tokens.collect());
        let key = |grain, files: &[_]| (grain, result_key(self.call, grain, files, &values));
        Ok([key(Grain::Bytes, &of_bytes), key(Grain::Tokens, &of_tokens)])
    }

    fn passed_over(&self, session: &Session, files: &[InputFile]) -> BTreeSet<PathBuf> {
        let searched = self.absolute(&self.front.searched);
        passed_over(files, &searched, &session.directories)
    }

    /// Where a path has `..` behind a link, the text without it names another file.
    fn is_same_file(&self, path: &Path, absolute: &Path) -> io::Result<bool> {
        let has_parent = path.components().any(|part| part == Component::ParentDir);
        if !has_parent {
            return Ok(true);
        }
        let identity = |path: &Path| {
            let metadata = fs_err::metadata(path)?;
            io::Result::Ok((metadata.dev(), metadata.ino()))
        };
        let named = self.normal.directory.join(path);
        Ok(identity(&named)? == identity(absolute)?)
    }

    /// Paths of kbuild's call without `.` and `..`.
    fn absolute(&self, paths: &[PathBuf]) -> Vec<PathBuf> {
        let absolute = |path: &PathBuf| normalize(&self.roots.output.join(path));
        paths.iter().map(absolute).collect()
    }

    fn write_depfile(&self, reads: &Reads) -> io::Result<()> {
        let is_listed = |place: &usize| {
            let place = u32::try_from(*place);
            !place.is_ok_and(|place| reads.system.contains(&place))
        };
        let places = reads.files.iter().enumerate();
        let listed = places.filter(|(place, _)| is_listed(place));
        let depfile = Depfile {
            target: self.target.clone(),
            files: listed
                .map(|(_, place)| self.as_kbuild_names(place))
                .collect(),
        };
        publish(&self.depfile, &depfile.to_bytes())
    }

    fn as_kbuild_names(&self, place: &Place) -> Vec<u8> {
        let path = match place {
            // clang leaves out a leading `./`.
            Place::Source(path) if self.normal.source_prefix == Path::new("./") => path.clone(),
            Place::Source(path) => self.normal.source_prefix.join(path),
            Place::Output(path) | Place::Elsewhere(path) => path.clone(),
        };
        path.into_os_string().into_vec()
    }
}

/// The files of the source tree on whose lines a result depends; `None` where it may be those of all.
fn lines_read(reads: &Reads) -> Option<SourceFiles> {
    let file = |place: &u32| reads.files.get(usize::try_from(*place).ok()?);
    let of_source = |place: &Place| match place {
        Place::Source(path) => Some(path.clone()),
        Place::Output(_) | Place::Elsewhere(_) => None,
    };
    let files = reads.by_line.iter().filter_map(file).filter_map(of_source);
    (reads.by_line.len() < reads.files.len()).then(|| files.collect())
}

/// When a file was written or its stat changed, whichever came last.
pub(crate) fn last_change(metadata: &Metadata) -> io::Result<SystemTime> {
    let seconds = Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
    let rest = Duration::from_nanos(u64::try_from(metadata.ctime_nsec()).unwrap_or(0));
    let changed = SystemTime::UNIX_EPOCH + seconds + rest;
    Ok(metadata.modified()?.max(changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shims_send_the_variables_that_are_refused() {
        for name in NOT_FOLLOWED {
            assert!(klto_wire::SENT_VARIABLES.contains(&name), "{name}");
        }
    }
}
