//! The session: what all conversations with shims share.
//!
//! In: a [`Request`] from a shim. Out: a [`Reply`]. Which handler answers is decided here by the
//! tool's role; the handlers are `compile/mod.rs`, `linker.rs`, `archives.rs`, `reader.rs`,
//! `after_compile.rs`, `sub_makes.rs`, `initcalls.rs` and `symbol_lister.rs`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use klto_core::{report, run_captured};
use klto_exec::{Engine, Slots, ToolIdentity, tool_identity};
use klto_store::{DirectoryMemo, StatMemo};
use klto_wire::{Finished, Reply, Request, ShimRole};

use crate::archives::Archives;
use crate::compile::{Ahead, Sources};
use crate::journal::Journal;
use crate::log::Log;
use crate::memory::Memory;
use crate::recipe::Caller;
use crate::scratch::Scratch;
use crate::sub_makes::RunningMakes;
use crate::timeline::Timeline;
use crate::unit::{Contents, Native};

/// Environment variables by name.
type Variables = Vec<(OsString, OsString)>;

/// What the session adds to a tree, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct LtoAdditions {
    /// Whether the session adds the LTO flags; kbuild does where the tree has the option.
    pub adds_flags: bool,
    /// The largest function that is imported, where the user says it.
    pub import_limit: Option<u32>,
    /// `-I` for headers that go before the tree's own.
    pub first_arguments: Vec<OsString>,
    /// The linker, for units that no linker call asks for.
    pub linker: Option<PathBuf>,
    /// The lister of symbols, which kbuild's script for initcalls runs.
    pub symbol_lister: Option<PathBuf>,
}

/// One build.
pub(crate) struct Session {
    pub scratch: Scratch,
    /// The kernel's source tree.
    pub source: PathBuf,
    /// Sources and headers that compiles read.
    pub sources: Sources,
    /// Where headers are looked for.
    pub directories: DirectoryMemo,
    pub journal: Mutex<Journal>,
    pub additions: LtoAdditions,
    /// Read first by compiles whose lines may not matter; `None` for a compiler that cannot tell.
    pub line_header: Option<PathBuf>,
    /// Whether each unit is optimized as a whole.
    pub full: bool,
    pub memory: Memory,
    pub engine: Engine,
    pub slots: Slots,
    pub memo: StatMemo,
    pub log: Arc<Log>,
    pub timeline: Timeline,
    /// The makes under make.
    pub makes: RunningMakes,
    /// Compiles that make has not asked for yet.
    pub ahead: Ahead,
    /// The archives of kbuild's directories.
    pub archives: Archives,
    /// What was decoded from bitcode in this build.
    pub contents: Contents,
    /// What stands for the bitcode objects of finished units in later links.
    pub natives: Mutex<HashMap<PathBuf, Native>>,
    /// Held while an object is made native, so that two readers do not do it twice.
    pub making_native: Mutex<()>,
    /// The first result that was found to differ from the store's where kbuild does not look at how a call ends:
    /// at the head of a pipe.
    wrong_result: Mutex<Option<anyhow::Error>>,
    identities: Mutex<HashMap<(PathBuf, Variables), Arc<ToolIdentity>>>,
}

/// What a [`Session`] is made of; each is what its field of this name is.
pub(crate) struct SessionParts {
    pub scratch: Scratch,
    pub source: PathBuf,
    pub journal: Journal,
    pub additions: LtoAdditions,
    pub line_header: Option<PathBuf>,
    pub full: bool,
    pub memory: Memory,
    pub engine: Engine,
    pub slots: Slots,
    pub memo: StatMemo,
    pub log: Arc<Log>,
    pub timeline: Timeline,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a handler decides.
pub(crate) enum Answer {
    /// The last reply.
    Reply(Reply),
    /// Run this, then let the session go on with the continuation.
    Then { run: Run, next: Continuation },
}

/// A call that the shim is to run.
pub(crate) struct Run {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub directory: PathBuf,
    /// The session gets what it prints.
    pub quiet: bool,
}

impl Run {
    /// A call as it was asked for, but for its arguments.
    pub fn with_arguments(request: &Request, arguments: Vec<OsString>) -> Self {
        Self {
            program: request.program.clone(),
            arguments,
            directory: request.directory.clone(),
            quiet: false,
        }
    }
}

/// What the session does after the shim has run a tool.
pub(crate) type Continuation = Box<dyn FnOnce(&Session, Finished) -> anyhow::Result<Answer> + Send>;

impl Session {
    pub fn new(parts: SessionParts) -> Self {
        Self {
            scratch: parts.scratch,
            source: parts.source,
            sources: Sources::default(),
            directories: DirectoryMemo::default(),
            journal: Mutex::new(parts.journal),
            additions: parts.additions,
            line_header: parts.line_header,
            full: parts.full,
            memory: parts.memory,
            engine: parts.engine,
            slots: parts.slots,
            memo: parts.memo,
            log: parts.log,
            timeline: parts.timeline,
            makes: RunningMakes::default(),
            ahead: Ahead::default(),
            archives: Archives::default(),
            contents: Contents::default(),
            natives: Mutex::default(),
            making_native: Mutex::default(),
            wrong_result: Mutex::default(),
            identities: Mutex::default(),
        }
    }

    /// Holds one conversation; `exchange` sends a reply and, for [`Reply::RunThenReport`], waits for
    /// what the shim reports.
    pub fn converse(
        &self,
        request: Request,
        caller: Caller,
        exchange: &mut dyn FnMut(&Reply) -> std::io::Result<Option<Finished>>,
    ) -> std::io::Result<()> {
        let mut answer = match request.role {
            ShimRole::Compiler => self.compiler(request, caller),
            ShimRole::Linker => self.linker(request, caller),
            ShimRole::ObjectRewriter | ShimRole::ObjectReader => self.reader(request),
            ShimRole::Archiver => self.archiver(request),
            ShimRole::AfterCompile => self.after_compile(request),
            ShimRole::Make => Ok(self.sub_make(request, caller)),
            ShimRole::Perl => self.perl(request, caller),
            ShimRole::SymbolLister => self.symbol_lister(request),
        };
        let reply = loop {
            match answer {
                Ok(Answer::Reply(reply)) => break reply,
                Ok(Answer::Then { run, next }) => match exchange(&run.into())? {
                    Some(finished) => answer = next(self, finished),
                    None => return Ok(()),
                },
                Err(error) => break failed(&error),
            }
        };
        exchange(&reply).map(|_| ())
    }

    /// The store's result was wrong, and what is answered is right: the build fails at its end.
    pub fn note_wrong_result(&self, error: anyhow::Error) {
        self.log.line(&format!("wrong {error:#}"));
        lock(&self.wrong_result).get_or_insert(error);
    }

    /// What the build fails for, if so.
    pub fn take_wrong_result(&self) -> Option<anyhow::Error> {
        lock(&self.wrong_result).take()
    }

    /// Where shims keep the compiler's answers to probes; without a place it is asked each time.
    pub fn place_for_answers(&self, surroundings: &str) -> Option<PathBuf> {
        let place = self.scratch.place_for_answers(surroundings);
        let note = |error: &std::io::Error| {
            self.log
                .line(&format!("warning no place for answers: {error}"))
        };
        place.inspect_err(note).ok()
    }

    /// The identity of a tool as it runs in `environment`.
    pub fn identity(
        &self,
        program: &Path,
        environment: &[(OsString, OsString)],
    ) -> anyhow::Result<Arc<ToolIdentity>> {
        let key = (program.to_owned(), environment.to_vec());
        if let Some(identity) = lock(&self.identities).get(&key) {
            return Ok(Arc::clone(identity));
        }
        let identity = tool_identity(program, environment, &|path| self.memo.digest(path))?;
        self.engine.know_tool(&identity);
        let identity = Arc::new(identity);
        lock(&self.identities).insert(key, Arc::clone(&identity));
        Ok(identity)
    }
}

impl From<Run> for Reply {
    fn from(run: Run) -> Self {
        Self::RunThenReport {
            program: run.program,
            arguments: run.arguments,
            directory: run.directory,
            quiet: run.quiet,
        }
    }
}

/// A call that is over and said nothing, or said it itself.
pub(crate) fn ended(code: u8) -> Answer {
    Answer::Reply(Reply::ended(code))
}

/// What the tool itself prints for a call, to hold klto's answer against.
pub(crate) fn printed_by_tool(request: &Request) -> anyhow::Result<Vec<u8>> {
    let tool = run_captured(&request.program, &request.arguments, &request.directory);
    let tool = tool.with_context(|| format!("starting {}", request.program.display()))?;
    Ok(tool.stdout)
}

/// Variables that a tool which klto starts itself is given; each can change what it does.
pub(crate) fn tool_environment(request: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
    const PASSED: [&str; 5] = [
        "CCC_OVERRIDE_OPTIONS",
        "CLANG_NO_DEFAULT_CONFIG",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "PATH",
    ];
    let passed = |name: &OsString| PASSED.iter().any(|known| name == known);
    let mut environment: Vec<_> = request
        .iter()
        .filter(|(name, _)| passed(name))
        .cloned()
        .collect();
    environment.push(("LC_ALL".into(), "C".into()));
    environment.sort();
    environment
}

/// The answer to a shim for a failure that klto explains.
pub(crate) fn failed(error: &anyhow::Error) -> Reply {
    let (text, status) = report(error);
    Reply::said(status.code(), text.into_bytes())
}

/// Have the tool run as it was called.
pub(crate) fn as_called(request: Request) -> Answer {
    Answer::Reply(Reply::Exec {
        program: request.program,
        arguments: request.arguments,
    })
}
