//! One build, from a resolved plan to the end of make.
//!
//! This is the table of contents of a session: scratch directory and lock, journal, engine and store,
//! jobserver, socket, fork servers, make, and what is written down at the end.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use anyhow::Context as _;
use klto_core::{Failure, with_causes};
use klto_exec::Engine;
use klto_fork::ForkServer;
use klto_kbuild::{
    Environment, Jobs as KbuildJobs, LtoBuild, MakeOption, Parallelism, Role, UpstreamLto,
    compat_headers,
};
use klto_store::{StatMemo, Store, StoreError};
use klto_wire::{SHIMS_VARIABLE, SOCKET_VARIABLE};

use crate::begun;
use crate::compile::{MODE_MARKER, place_header};
use crate::jobs::Jobs;
use crate::journal::Journal;
use crate::log::{LOG, Log, note_without_make, tell};
use crate::make::{end_orphans, run_make};
use crate::memory::Memory;
use crate::progress::Display;
use crate::scratch::{SCRATCH_NAME, Scratch};
use crate::server::Server;
use crate::session::{LtoAdditions, Session, SessionParts, lock};
use crate::timeline::Timeline;
use crate::tools::{
    Extent, MAKE, PERL, find_program, identify_tools, shim_table, start_fork_servers,
};
use crate::unchanged::{
    Difference, Watch, adjusts_exports, forget_in, forget_lines_read_by_others, run_watched,
};

/// Where results are kept between builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreChoice {
    /// The store's directory; `None` when there is no place for one.
    pub root: Option<PathBuf>,
    /// Bytes that it may hold.
    pub limit: u64,
    /// The share of hits that are run again and compared, in percent.
    pub verify_percent: u8,
}

impl StoreChoice {
    /// Every result is made again: nothing is answered from memory, or begun ahead to be made twice.
    const fn checks_all(&self) -> bool {
        self.verify_percent >= 100
    }
}

/// What a build needs besides its plan.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The store.
    pub store: StoreChoice,
    /// The largest function that is imported, in LLVM's instructions; the tree's own limit without it.
    pub import_limit: Option<u32>,
    /// The most bytes of memory that full links may take together; at most what the machine has left.
    pub memory_limit: Option<u64>,
    /// The shim's executable.
    pub shim_program: PathBuf,
    /// What make inherits.
    pub environment: Environment,
    /// Where klto was started, and make runs.
    pub directory: PathBuf,
}

/// Runs the build; how make ended.
pub fn run(mut build: LtoBuild, settings: &Settings) -> anyhow::Result<ExitStatus> {
    if build.is_dry() {
        return become_dry_make(build, settings);
    }
    // First: it takes over descriptors that MAKEFLAGS names by number.
    let jobs = Jobs::open(&build.parallelism)?;
    let quiet = is_quiet(&build);
    let Some(opened) = open_if_changed(&build, settings, quiet)? else {
        return Ok(ExitStatus::default());
    };
    let Opened {
        files,
        watch,
        difference,
    } = opened;
    let (session, mut make) = start_session(&mut build, settings, jobs, files, quiet)?;
    session
        .log
        .line(&format!("make runs: {}", why_make_runs(&difference)));
    if watch.is_err() {
        forget_in(&session.scratch)?;
    }
    if !is_as_klto_left_it(&watch, &difference) {
        forget_lines_read_by_others(&session)?;
    }
    session.remove_objects_with_changed_assembler_files()?;
    let extent = match difference {
        Difference::Sources(_) => Extent::Edit,
        _ => Extent::Whole,
    };
    let known = watch.as_ref().ok();
    let known = known.filter(|_| !settings.store.checks_all());
    let surroundings = known.and_then(|watch| watch.surroundings(&difference));
    let answers = surroundings.and_then(|surroundings| session.place_for_answers(&surroundings));
    let served = (answers.as_deref(), extent);
    let mut run_make = || run_make_in(&session, (&build, settings), served, &mut make);
    let status = match watch {
        Ok(watch) => run_watched(&session, watch, &difference, &mut run_make)?,
        Err(_) => run_make()?,
    };
    finish(&session);
    match session.take_wrong_result() {
        Some(error) => {
            forget_in(&session.scratch)?;
            Err(error)
        }
        None => Ok(status),
    }
}

/// Whether nobody else, and no other klto, has built in the output tree since the last build.
fn is_as_klto_left_it(watch: &Result<Watch, String>, difference: &Difference) -> bool {
    match difference {
        Difference::Other(_) => watch.as_ref().is_ok_and(Watch::finds_outputs_as_left),
        // Nothing but sources differs.
        _ => true,
    }
}

/// A build that runs make.
struct Opened {
    files: Files,
    watch: Result<Watch, String>,
    /// Why it does.
    difference: Difference,
}

/// What it needs to know of the builds before.
struct Files {
    store: Option<Store>,
    scratch: Scratch,
    memo: StatMemo,
}

/// Looks whether make has anything to do, and waits until no other klto builds in the same tree; `None` where it
/// has nothing, which is said.
fn open_if_changed(
    build: &LtoBuild,
    settings: &Settings,
    quiet: bool,
) -> anyhow::Result<Option<Opened>> {
    let (mut watch, mut difference) = look(build, settings);
    if matches!(difference, Difference::Nothing) {
        if let Ok(watch) = &watch {
            // Where the tree cannot be written, the next build asks for the release again.
            let _ = watch.remember_repository(build.tree.written());
        }
        say_without_make(build, &difference, quiet);
        return Ok(None);
    }
    let store = open_store(&settings.store)?;
    // An external module's own tree: the kernel's may be read-only, or shared.
    let scratch = Scratch::open(build.tree.written())?;
    if watch.as_ref().is_ok_and(Watch::is_outrun) {
        (watch, difference) = look(build, settings);
        if matches!(difference, Difference::Nothing) {
            say_without_make(build, &difference, quiet);
            return Ok(None);
        }
    }
    let memo = StatMemo::open(&scratch.path("stat-memo"));
    if matches!(difference, Difference::Comments(_)) {
        match watch.and_then(|watch| watch.make_outputs_newer(&memo)) {
            Ok(()) => {
                say_without_make(build, &difference, quiet);
                return Ok(None);
            }
            Err(why) => (watch, difference) = look_again(&why, build, settings),
        }
    }
    let files = Files {
        store,
        scratch,
        memo,
    };
    Ok(Some(Opened {
        files,
        watch,
        difference,
    }))
}

/// Opens what the tools' calls need: the session, and the make to run.
fn start_session(
    build: &mut LtoBuild,
    settings: &Settings,
    jobs: Jobs,
    files: Files,
    quiet: bool,
) -> anyhow::Result<(Arc<Session>, Command)> {
    let Files {
        store,
        scratch,
        memo,
    } = files;
    let (journal, is_behind) = open_journal(&scratch, build)?;
    let display = Display::of_output(quiet, is_verbose(build, &settings.environment));
    let log = Arc::new(Log::create(&scratch.path(LOG), display)?);
    let timeline = Timeline::create(&scratch.path("timeline"))?;
    if is_behind {
        log.line("journal: begun anew, the machine stopped in the last build");
    }
    let notices = Arc::clone(&log);
    let engine = Engine::new(store, settings.store.verify_percent, move |line: &str| {
        notices.line(line);
        tell(line);
    });
    let additions = additions(build, settings, &scratch)?;
    let shims = place_shims(build, settings, &scratch)?;
    build.hook_by_path(&shims);
    add_mode_marker(build, settings, journal.identifier())?;
    let mut make = make_command(build, settings, &shims);
    jobs.configure(&mut make, &build.make_flags);
    let line_header = place_header(&scratch, build.llvm.major)?;
    let session = Session::new(SessionParts {
        scratch,
        line_header,
        source: build.tree.source.clone(),
        journal,
        additions,
        full: build.full,
        memory: Memory::new(settings.memory_limit),
        engine,
        slots: jobs.slots,
        memo,
        log,
        timeline,
    });
    Ok((Arc::new(session), make))
}

/// The journal, and whether it begins anew because the machine stopped in the last build.
fn open_journal(scratch: &Scratch, build: &LtoBuild) -> anyhow::Result<(Journal, bool)> {
    let file = scratch.path("journal");
    let is_behind = begun::begin(scratch)? && file.exists();
    if is_behind {
        fs_err::remove_file(&file)?;
    }
    let journal = Journal::open(&file, &place_of_trees(build)).context("opening klto's journal")?;
    Ok((journal, is_behind))
}

/// Where the tools run, and where klto's directory is: what the journal has of them is absolute.
fn place_of_trees(build: &LtoBuild) -> Vec<u8> {
    let places = [build.tree.output.as_path(), build.tree.written()].map(|place| {
        let place = fs_err::canonicalize(place).unwrap_or_else(|_| place.to_owned());
        place.into_os_string().into_vec()
    });
    places.join(&0)
}

/// Puts shims in front of the tools; their directory.
fn place_shims(
    build: &LtoBuild,
    settings: &Settings,
    scratch: &Scratch,
) -> anyhow::Result<PathBuf> {
    let hooked = build.hooks.iter().map(|(_, hook)| hook.name());
    let perl = find_program(PERL, settings).map(|_| PERL);
    let names = hooked.chain([MAKE]).chain(perl);
    let stand_ins = build.steps.iter().filter_map(|step| step.stand_in());
    scratch.place_shims(&settings.shim_program, names, stand_ins)
}

/// What [`run`] would do now, for the user; nothing is written.
pub fn forecast(build: &LtoBuild, settings: &Settings) -> anyhow::Result<String> {
    let (watch, difference) = look(build, settings);
    let (sources, watch) = match (&difference, watch) {
        (Difference::Sources(sources), Ok(watch)) => (sources, watch),
        (Difference::Nothing, _) => {
            return Ok("make does not run: nothing has changed since the last build\n".to_owned());
        }
        (Difference::Comments(sources), _) => {
            let sources = first_and_count(sources);
            return Ok(format!(
                "make does not run: nothing has changed but comments in {sources}\n"
            ));
        }
        _ => return Ok(format!("make runs: {}\n", why_make_runs(&difference))),
    };
    let mut text = String::new();
    for source in sources {
        text += &format!("make runs: source {} has changed\n", source.display());
    }
    for target in watch.targets(sources)? {
        text += &format!("make again: {}\n", target.display());
    }
    Ok(text)
}

fn look(build: &LtoBuild, settings: &Settings) -> (Result<Watch, String>, Difference) {
    let watch = Watch::begin(build, settings);
    let difference = match &watch {
        Ok(watch) => watch.difference(build, settings),
        Err(why) => Difference::Other(why.clone()),
    };
    (watch, difference)
}

/// The end of a build that needs no make: says so, and notes it for `klto explain`.
fn say_without_make(build: &LtoBuild, difference: &Difference, quiet: bool) {
    let what = match difference {
        Difference::Comments(sources) => {
            format!(
                "nothing has changed but comments in {}",
                first_and_count(sources)
            )
        }
        _ => "nothing has changed since the last build".to_owned(),
    };
    if !quiet {
        println!("  KLTO    {what}");
    }
    note_without_make(&build.tree.written().join(SCRATCH_NAME).join(LOG), &what);
}

/// Looks again when outputs could not be made newer, for the reason `why`: their times may have changed.
fn look_again(
    why: &str,
    build: &LtoBuild,
    settings: &Settings,
) -> (Result<Watch, String>, Difference) {
    match look(build, settings) {
        (watch, sources @ Difference::Sources(_)) => (watch, sources),
        (watch, _) => (watch, Difference::Other(why.to_owned())),
    }
}

/// Whether make and kbuild say nothing: `-s`, as a word or in MAKEFLAGS.
fn is_quiet(build: &LtoBuild) -> bool {
    let both = [&build.arguments, build.make_flags.arguments()];
    both.into_iter()
        .any(|arguments| arguments.has(MakeOption::Silent))
}

/// Whether kbuild shows commands: a 1 in `KBUILD_VERBOSE`, or in `V` where make has it as a word (Makefile).
fn is_verbose(build: &LtoBuild, environment: &Environment) -> bool {
    let both = [build.make_flags.arguments(), &build.arguments];
    let word = |name: &str| {
        let assignments = both
            .into_iter()
            .flat_map(|arguments| arguments.assignments());
        let of_name = assignments.filter(|assignment| assignment.name == name);
        of_name
            .last()
            .map(|assignment| assignment.value.as_os_str())
    };
    let value = word("KBUILD_VERBOSE").or_else(|| word("V"));
    let value = value.or_else(|| environment.get("KBUILD_VERBOSE"));
    value.is_some_and(|value| value.as_bytes().contains(&b'1'))
}

/// Names sources: the first, and how many more there are.
fn first_and_count(sources: &[PathBuf]) -> String {
    let first = sources
        .first()
        .map_or_else(String::new, |first| first.display().to_string());
    match sources.len() {
        0 | 1 => first,
        count => format!("{first} and {} more", count - 1),
    }
}

fn why_make_runs(difference: &Difference) -> String {
    match difference {
        Difference::Nothing => String::new(),
        Difference::Other(why) => why.clone(),
        Difference::Comments(sources) | Difference::Sources(sources) => match sources.first() {
            Some(first) => format!("source {} has changed", first.display()),
            None => "the last build has failed".to_owned(),
        },
    }
}

/// make, between the start and the end of all that serves its tools.
fn run_make_in(
    session: &Arc<Session>,
    (build, settings): (&LtoBuild, &Settings),
    (answers, extent): (Option<&Path>, Extent),
    make: &mut Command,
) -> anyhow::Result<ExitStatus> {
    if !adjusts_exports(build) {
        let journal = lock(&session.journal);
        session.archives.begin(&journal, session.scratch.output());
    }
    let server = Server::start(Arc::clone(session), answers)?;
    make.env(SOCKET_VARIABLE, server.socket());
    let fork_servers = start_fork_servers((build, settings), extent, (session, &server.socket()))?;
    identify_tools(session, build, make);
    if !settings.store.checks_all() {
        session.ahead.start();
    }
    let cancelled = Arc::clone(session);
    let status = run_make(make, move || {
        cancelled.ahead.stop();
        cancelled.engine.cancel();
    });
    session.ahead.stop();
    let own: Vec<u32> = fork_servers.iter().map(ForkServer::id).collect();
    end_orphans(&own);
    // Calls whose shims have just ended may still clean up.
    drop(fork_servers);
    status
}

/// Another command line for each mode, and for each klto, which may add other flags and headers: kbuild makes
/// an object again when its command changes.
fn add_mode_marker(build: &mut LtoBuild, settings: &Settings, journal: &str) -> anyhow::Result<()> {
    let mode = if build.full { "full" } else { "thin" };
    let version = env!("CARGO_PKG_VERSION").replace(['.', '-', '+'], "_");
    let mut mode = format!("{mode}_{journal}_{version}");
    if let Some(limit) = settings.import_limit {
        mode.push_str(&format!("_{limit}"));
    }
    build.append_variable("KCFLAGS", &format!("{MODE_MARKER}{mode}"))
}

/// `-n`, `-q` and `-t`: no tool needs the session, but make compares command lines, so they are those
/// of a build. Nothing of klto's is written.
fn become_dry_make(mut build: LtoBuild, settings: &Settings) -> anyhow::Result<ExitStatus> {
    let scratch = build.tree.written().join(SCRATCH_NAME);
    let scratch = fs_err::canonicalize(&scratch).unwrap_or(scratch);
    let shims = scratch.join("shims");
    build.hook_by_path(&shims);
    let journal = Journal::read_identifier(&scratch.join("journal"), &place_of_trees(&build));
    // Without a journal everything is made again.
    add_mode_marker(&mut build, settings, journal.as_deref().unwrap_or("new"))?;
    let mut make = make_command(&build, settings, &shims);
    match &build.parallelism {
        Parallelism::Jobs(KbuildJobs::Number(count)) => drop(make.arg(format!("-j{count}"))),
        Parallelism::Jobs(KbuildJobs::Unlimited) => drop(make.arg("-j")),
        Parallelism::Inherited(_) => {}
    }
    let error = make.exec();
    Err(Failure::environment(format!("starting make: {error}")).into())
}

fn additions(
    build: &LtoBuild,
    settings: &Settings,
    scratch: &Scratch,
) -> anyhow::Result<LtoAdditions> {
    let adds_flags = build.upstream == UpstreamLto::Absent;
    let headers = compat_headers(&build.tree, build.full);
    let mut first_arguments = Vec::new();
    if adds_flags && !headers.is_empty() {
        let directory = scratch.unpack_compat(&headers)?;
        let mut argument = std::ffi::OsString::from("-I");
        argument.push(match build.tree.external_module {
            // kbuild compiles a module in the kernel's output tree.
            Some(_) => scratch.output().join(directory),
            None => directory,
        });
        first_arguments.push(argument);
    }
    let linker = build.toolchain.tool(Role::Linker).resolved.clone();
    let symbol_lister = build.toolchain.tool(Role::SymbolLister).resolved.clone();
    Ok(LtoAdditions {
        import_limit: settings.import_limit,
        adds_flags,
        first_arguments,
        linker,
        symbol_lister,
    })
}

/// The store; without one that can be written the build goes on and says so. One that others may
/// write is refused: its results could be anybody's.
fn open_store(choice: &StoreChoice) -> anyhow::Result<Option<Store>> {
    let Some(root) = &choice.root else {
        return Ok(None);
    };
    match Store::open(root, choice.limit) {
        Ok(store) => Ok(Some(store)),
        Err(error @ StoreError::Unsafe { .. }) => Err(error.into_failure().into()),
        Err(error) => {
            let why = with_causes(&error);
            tell(&format!(
                "klto: warning: the build goes on without the store: {why}"
            ));
            Ok(None)
        }
    }
}

fn make_command(build: &LtoBuild, settings: &Settings, shims: &Path) -> Command {
    // make calls itself by this name: the shim's.
    let program = find_program(MAKE, settings).unwrap_or_else(|| MAKE.into());
    let mut make = Command::new(program);
    make.arg0(MAKE)
        .current_dir(&settings.directory)
        .args(build.arguments.words());
    make.env_clear().envs(settings.environment.iter());
    make.env(SHIMS_VARIABLE, shim_table(build, settings));
    let mut path = shims.as_os_str().to_owned();
    if let Some(old) = settings.environment.get("PATH") {
        path.push(":");
        path.push(old);
    }
    make.env("PATH", path);
    make
}

/// What is kept for the next build; a failure here costs time, not rightness.
fn finish(session: &Session) {
    let synced = lock(&session.journal).sync();
    if let Err(error) = synced.and_then(|()| begun::end(&session.scratch)) {
        session
            .log
            .line(&format!("warning the journal is not on disk yet: {error}"));
    }
    if let Err(error) = session.memo.save() {
        session
            .log
            .line(&format!("warning the stat memo was not saved: {error}"));
    }
    if let Err(error) = session.timeline.flush() {
        session
            .log
            .line(&format!("warning the timeline was not written: {error}"));
    }
    let Some(store) = session.engine.store() else {
        return;
    };
    let noted = store.note_build(&session.timeline.counts());
    for error in [noted.err(), store.collect_when_due().err()]
        .into_iter()
        .flatten()
    {
        session
            .log
            .line(&format!("warning the store was not cleaned: {error}"));
    }
}
