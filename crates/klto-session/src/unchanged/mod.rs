//! Whether anything that a build could read has changed since the last one that succeeded. If nothing
//! has, make has nothing to do and is not run; if only sources have, `remake.rs` says what is to be made.
//!
//! In: a build before it starts. Out: what has changed. No list of what kbuild reads is needed: every
//! file of the source tree and of the output tree counts, by its stat, a source that a compile read by
//! its content where the stat differs, without comments that nothing shows (`comments.rs`), and so do
//! make's words, the environment, the host's and the user's names, the tools, every program in PATH,
//! files that the configuration, make's words and makefiles name, and what package managers note of a
//! change of the system. Any doubt runs make: a file system whose stamps cannot be trusted, a goal that
//! does more than make files, an option whose files may be anywhere, a tree that changed while the build
//! ran.
//!
//! Stats are taken 25 ms after the last process of the build has ended, so that a later change has
//! other stamps (the argument is at `StatMemo` in `klto-store`).

mod comments;
mod elsewhere;
mod lines;
mod makefiles;
mod named;
mod readers;
mod refusal;
mod remake;
mod repository;
mod surroundings;
mod trees;
mod watched;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use klto_core::{KeyBuilder, publish};
use klto_kbuild::{Config, LtoBuild, UpstreamLto};
use klto_store::{StatMemo, has_trusted_stamps};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};
use serde::{Deserialize, Serialize};

use crate::build::Settings;
use crate::compile::Sources;
use crate::scratch::{SCRATCH_NAME, Scratch};
use crate::session::{Session, lock, tool_environment};
use crate::sub_makes::{LeaveOut, SubMakes, add_makes};
use elsewhere::FilesElsewhere;
use makefiles::{Makefiles, asks_git};
use named::Variables;
use refusal::{checks_comments, refuse};
use repository::{Repository, is_of_repository, keeps_release};
use surroundings::{KLTO, flag_that_leads_out, outside, variables};
use trees::{
    Change, ChangedSource, Contents, Facts, Knowledge, Looked, Roots, digest, is_input,
    is_of_output, is_of_tree, of_file,
};

pub(crate) use lines::forget_lines_read_by_others;
pub(crate) use refusal::adjusts_exports;
pub(crate) use surroundings::VOLATILE;
pub(crate) use trees::of_file as stamp;
pub(crate) use watched::run_watched;

/// The file with the state, in the scratch directory.
const COMPLETE: &str = "complete";
/// The file with what was so after the last build where that failed, instead of [`COMPLETE`].
const FAILED: &str = "failed";
const MAGIC: &[u8; 8] = b"kltoall9";
/// The makefile of goals that make packages, which asks git in Linux.
const PACKAGES: &str = "scripts/Makefile.package";
/// More than twice the longest tick of Linux.
const TICK: Duration = Duration::from_millis(25);

/// What was so after the last build that succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    facts: Facts,
    /// What tells a source that changed from one that was touched, or differs in comments alone.
    contents: Contents,
    /// Files that make the tools what they are.
    tools: Vec<(PathBuf, [u8; 32])>,
    /// Files outside of both trees that were read, or that makefiles name.
    elsewhere: Vec<(PathBuf, [u8; 32])>,
    /// The makes of that build.
    makes: SubMakes,
    /// Targets that builds after it began to make again, and failed.
    unfinished: BTreeSet<PathBuf>,
}

/// What differs from the last build that succeeded.
#[derive(Debug)]
pub(crate) enum Difference {
    /// Nothing that a build could see.
    Nothing,
    /// Comments and blanks of these sources, below the source tree, and what is made of them shows none, nor on
    /// which lines the rest is.
    Comments(Vec<PathBuf>),
    /// The content of these sources that compiles read, below the source tree, and nothing else.
    Sources(Vec<PathBuf>),
    /// Something else: what it is.
    Other(String),
}

/// The trees as a build has left them.
pub(crate) struct Stock(Looked);

/// Looks at one build from its beginning to its end.
pub(crate) struct Watch {
    facts: Facts,
    /// Files of the output tree whose time is still to come.
    ahead: Vec<PathBuf>,
    roots: Roots,
    /// With the state.
    file: PathBuf,
    stamps: [[u8; 32]; 2],
    programs: Vec<PathBuf>,
    /// What the programs are given.
    environment: Vec<(OsString, OsString)>,
    state: Option<State>,
    /// The trees as the last build has left them, if it failed and no state is known.
    failed: Option<State>,
    /// Makefiles of the source tree.
    makefiles: Vec<PathBuf>,
    /// Directories to which links of the source tree lead.
    linked: BTreeSet<PathBuf>,
    /// Of make's words and of the environment.
    variables: Variables,
    config: Config,
    /// Whether klto gives compiles flags and headers of which kbuild's records do not tell.
    adds_flags: bool,
    /// Why all comments count in this build.
    checks_comments: Option<&'static str>,
    /// Why sources that differ in comments alone are not the same, once that was looked at.
    comments_count: OnceLock<String>,
    /// Before it looked at anything.
    begun: SystemTime,
}

impl Watch {
    /// Takes stock before the build.
    ///
    /// # Errors
    ///
    /// Why this build can never be answered without make.
    pub fn begin(build: &LtoBuild, settings: &Settings) -> Result<Self, String> {
        refuse(build, &settings.environment)?;
        if let Some(flag) = flag_that_leads_out(build, &settings.environment) {
            return Err(format!("the compiler reads other trees: {flag}"));
        }
        if settings.environment.get("MAKEFILES").is_some() {
            return Err("MAKEFILES is set".into());
        }
        let begun = SystemTime::now();
        let roots = trusted_roots(build)?;
        let looked = roots.look(None).map_err(|error| error.to_string())?;
        let mut facts = looked.facts;
        let tools = build.toolchain.tools().iter();
        let programs: Vec<PathBuf> = tools.filter_map(|tool| tool.resolved.clone()).collect();
        facts.extend(outside(build, settings, &programs));
        // The journal of another place begins anew.
        let place = roots.output.as_os_str().as_bytes();
        facts.insert("the place of the output tree".into(), digest(place));
        if let Some(repository) = &roots.repository {
            facts.extend(repository.facts().map_err(|error| error.to_string())?);
        }
        let pairs = settings.environment.iter();
        let pairs: Vec<_> = pairs
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let environment = tool_environment(&pairs);
        let file = roots.output.join(SCRATCH_NAME).join(COMPLETE);
        Ok(Self {
            facts,
            // Before what is in it.
            stamps: stamps(&file),
            state: State::read(&file),
            failed: State::read(&file.with_file_name(FAILED)),
            file,
            roots,
            programs,
            environment,
            makefiles: looked.makefiles,
            linked: looked.linked,
            variables: variables(build, &settings.environment),
            ahead: looked.ahead,
            config: build.config.clone(),
            adds_flags: build.upstream == UpstreamLto::Absent,
            checks_comments: checks_comments(build, &settings.environment),
            comments_count: OnceLock::new(),
            begun,
        })
    }

    /// What is not as the last build left it.
    pub fn difference(&self, build: &LtoBuild, settings: &Settings) -> Difference {
        let changed = match self.changed_sources() {
            Err(what) => return Difference::Other(what),
            Ok(changed) => changed,
        };
        if let Some(name) = self.changed_repository() {
            if let Some(makefile) = self.makefile_that_asks_git() {
                let what = format!("{name} has changed, and {} asks git", makefile.display());
                return Difference::Other(what);
            }
            if !keeps_release(build, settings) {
                let what = format!("{name} has changed, and with it the kernel's release");
                return Difference::Other(what);
            }
        }
        let of = |change| {
            let sources = changed.iter().filter(move |source| source.change == change);
            sources.map(|source| source.file.clone())
        };
        let lines: Vec<PathBuf> = of(Change::Lines).collect();
        let comments: Vec<PathBuf> = of(Change::Comments).chain(lines.clone()).collect();
        let sources: Vec<PathBuf> = of(Change::Content).chain(comments.clone()).collect();
        if sources.is_empty() && !self.is_unfinished() {
            return Difference::Nothing;
        }
        if !comments.is_empty() && sources.len() == comments.len() {
            let why = self.why_comments_count(&comments);
            match why.or_else(|| self.why_lines_count(&lines)) {
                None => return Difference::Comments(comments),
                Some(why) => _ = self.comments_count.set(why),
            }
        }
        Difference::Sources(sources)
    }

    fn is_unfinished(&self) -> bool {
        let state = self.state.as_ref();
        state.is_some_and(|state| !state.unfinished.is_empty())
    }

    /// The fact of a directory in which git has written since the last build.
    fn changed_repository(&self) -> Option<&str> {
        let state = self.state.as_ref()?;
        let names = state.facts.keys().chain(self.facts.keys());
        let mut names = names.filter(|name| is_of_repository(name));
        let changed = names.find(|name| self.facts.get(*name) != state.facts.get(*name));
        changed.map(String::as_str)
    }

    /// A makefile that a build of the kernel reads and that asks git itself.
    fn makefile_that_asks_git(&self) -> Option<&Path> {
        let makefiles = self.makefiles.par_iter();
        let asks = |makefile: &&PathBuf| {
            let place = makefile.strip_prefix(&self.roots.source);
            place.is_ok_and(|place| {
                Makefiles::Kernel.includes(place) && place != Path::new(PACKAGES)
            }) && std::fs::read(makefile).is_ok_and(|text| asks_git(&text))
        };
        makefiles.find_first(asks).map(PathBuf::as_path)
    }

    /// Nothing has changed but what git has written: the next build need not ask for the release again.
    pub fn remember_repository(&self, written: &Path) -> anyhow::Result<()> {
        let (Some(state), Some(_)) = (&self.state, self.changed_repository()) else {
            return Ok(());
        };
        let _lock = Scratch::open(written)?;
        if self.is_outrun() {
            return Ok(());
        }
        let of_repository = |(name, _): &(&String, &[u8; 32])| is_of_repository(name);
        let others = state.facts.iter().filter(|pair| !of_repository(pair));
        let facts = others.chain(self.facts.iter().filter(of_repository));
        let state = State {
            facts: facts.map(|(name, fact)| (name.clone(), *fact)).collect(),
            ..state.clone()
        };
        Ok(state.write(&self.file)?)
    }

    /// Sources with another stat than after the last build; what has changed besides, if anything. What git
    /// has written is no source.
    fn changed_sources(&self) -> Result<BTreeSet<ChangedSource>, String> {
        let Some(state) = &self.state else {
            return Err("no build that ended well is known".to_owned());
        };
        let mut sources = BTreeSet::new();
        for name in state.facts.keys().chain(self.facts.keys()) {
            if self.facts.get(name) == state.facts.get(name) || is_of_repository(name) {
                continue;
            }
            let changed = match name.as_str() {
                "output " => "the top directory of the output tree has changed".to_owned(),
                "source " => "the top directory of the source tree has changed".to_owned(),
                name => format!("{name} has changed"),
            };
            let (Some(known), true) = (state.contents.get(name), self.facts.contains_key(name))
            else {
                return Err(changed);
            };
            let looked = self.roots.changed_sources(name, known);
            sources.extend(looked.map_err(|what| format!("{what} has changed"))?);
        }
        let mut outside = state.tools.iter().chain(&state.elsewhere);
        if let Some((file, _)) = outside.find(|(file, known)| of_file(file) != *known) {
            return Err(format!("{} has changed", file.display()));
        }
        match self.file.with_file_name("journal").is_file() {
            true => Ok(sources),
            false => Err("the journal is gone".to_owned()),
        }
    }

    /// Sources with another content than after the last build, and a time before its end: for make nothing
    /// has changed.
    fn sources_with_old_times(&self) -> io::Result<Vec<PathBuf>> {
        let Some(state) = self.last_known() else {
            return Ok(Vec::new());
        };
        let name = if self.state.is_some() {
            COMPLETE
        } else {
            FAILED
        };
        let mut built = fs_err::metadata(self.file.with_file_name(name))?.modified()?;
        if !self.ahead.is_empty() {
            // The clock was set back: targets may be younger than that file.
            built = built.max(self.begun);
        }
        let mut sources = Vec::new();
        for (name, known) in &state.contents {
            let now = self.facts.get(name);
            if now.is_some() && now != state.facts.get(name) {
                sources.extend(self.roots.changed_contents(name, known, built)?);
            }
        }
        Ok(sources)
    }

    /// A name for the tools, the environment, make's words and all else outside of the trees, where these are
    /// as the last build that succeeded left them.
    pub fn surroundings(&self, difference: &Difference) -> Option<String> {
        let state = match difference {
            Difference::Sources(_) => self.state.as_ref()?,
            _ => return None,
        };
        let mut key = KeyBuilder::new("surroundings", 1);
        let outside = |name: &str| !is_of_tree(name) && !is_of_repository(name);
        for (name, fact) in self.facts.iter().filter(|(name, _)| outside(name)) {
            key.field("name", name.as_bytes()).field("fact", fact);
        }
        for (file, stat) in &state.tools {
            let file = file.as_os_str().as_bytes();
            key.field("tool", file).field("stat", stat);
        }
        Some(key.finish().to_hex())
    }

    /// Whether all in the output tree is as this klto has left it.
    pub fn finds_outputs_as_left(&self) -> bool {
        let of_klto = |(name, _): &(&String, &[u8; 32])| is_of_output(name) || *name == KLTO;
        self.state.as_ref().is_some_and(|state| {
            let before = state.facts.iter().filter(of_klto);
            before.eq(self.facts.iter().filter(of_klto))
        })
    }

    /// What the last build has left, be it that it failed.
    fn last_known(&self) -> Option<&State> {
        self.state.as_ref().or(self.failed.as_ref())
    }

    /// Whether another build has ended since this one began to look.
    pub fn is_outrun(&self) -> bool {
        stamps(&self.file) != self.stamps
    }

    /// A build begins to change things: nothing is complete.
    fn forget(&self) -> io::Result<()> {
        forget(&self.file)
    }

    /// Takes stock after the build.
    pub fn stock(&self, session: &Session) -> io::Result<Stock> {
        std::thread::sleep(TICK);
        self.look_again(&session.memo, &session.sources)
    }

    fn look_again(&self, memo: &StatMemo, sources: &Sources) -> io::Result<Stock> {
        let known = self.last_known();
        let knowledge = Knowledge {
            memo,
            sources,
            before: known.map(|state| &state.contents),
        };
        Ok(Stock(self.roots.look(Some(&knowledge))?))
    }

    /// Whether a file of the source tree or the configuration has changed since the build began: nobody knows
    /// which of the two was read.
    fn is_changed_since(&self, stock: &Stock) -> bool {
        let now = &stock.0.facts;
        let names = self.facts.keys().chain(now.keys());
        let mut inputs = names.filter(|name| is_input(name));
        inputs.any(|name| self.facts.get(name) != now.get(name))
    }

    /// The build has succeeded. Nothing is kept when a file of the source tree or the configuration changed
    /// in the meantime. Makes were left out by `leave_out`, if by any.
    pub fn keep(
        mut self,
        session: &Session,
        stock: Stock,
        leave_out: Option<LeaveOut>,
    ) -> anyhow::Result<()> {
        if self.is_changed_since(&stock) {
            session.log.line(
                "not complete: the source tree or the configuration changed during the build",
            );
            return Ok(());
        }
        let tools = match self.known_tools() {
            Some(tools) => tools,
            None => self.tools(session)?,
        };
        if let Some(object) = object_elsewhere(session) {
            let line = format!("not complete: {} is in no tree", object.display());
            session.log.line(&line);
            return Ok(());
        }
        let elsewhere = match self.files_elsewhere(session)? {
            FilesElsewhere::Known(files) => files,
            FilesElsewhere::Changed(file) => {
                let file = file.display();
                session
                    .log
                    .line(&format!("not complete: {file} changed during the build"));
                return Ok(());
            }
        };
        self.facts.retain(|name, _| !is_of_tree(name));
        self.facts.extend(stock.0.facts);
        let mut makes = leave_out.map_or_else(SubMakes::new, |leave_out| leave_out.known);
        add_makes(&mut makes, session.makes.seen());
        let state = State {
            facts: self.facts,
            contents: stock.0.contents,
            tools,
            elsewhere,
            makes,
            unfinished: BTreeSet::new(),
        };
        Ok(state.write(&self.file)?)
    }

    /// What makes the tools what they are, if the last build had the same.
    fn known_tools(&self) -> Option<Vec<(PathBuf, [u8; 32])>> {
        let state = self.state.as_ref()?;
        let outside = |facts: &Facts| -> Facts {
            let facts = facts.iter().filter(|(name, _)| !is_of_tree(name));
            facts
                .map(|(name, digest)| (name.clone(), *digest))
                .collect()
        };
        let mut tools = state.tools.iter();
        let is_same = outside(&state.facts) == outside(&self.facts)
            && tools.all(|(file, known)| of_file(file) == *known);
        is_same.then(|| state.tools.clone())
    }

    fn tools(&self, session: &Session) -> anyhow::Result<Vec<(PathBuf, [u8; 32])>> {
        let mut tools = Vec::new();
        for program in &self.programs {
            for file in &session.identity(program, &self.environment)?.files {
                // A new file beside it may be found first.
                let places = [Some(file.as_path()), file.parent()];
                let places = places.into_iter().flatten();
                tools.extend(places.map(|place| (place.to_owned(), of_file(place))));
            }
        }
        tools.sort();
        tools.dedup();
        Ok(tools)
    }

    /// A build that left makes out has failed, and nothing has changed that these may read: the last one that
    /// succeeded still says what need not be made, and `targets` are to be made again in any case.
    pub fn keep_unfinished(self, stock: Stock, targets: BTreeSet<PathBuf>) -> anyhow::Result<()> {
        let is_changed =
            self.is_changed_since(&stock) || self.unexpected(&stock, &targets).is_some();
        let Some(mut state) = self.state.clone().filter(|_| !is_changed) else {
            return self.keep_failed(stock);
        };
        state.facts.retain(|name, _| !is_of_output(name));
        let outputs = stock.0.facts.into_iter();
        state
            .facts
            .extend(outputs.filter(|(name, _)| is_of_output(name)));
        state.unfinished.extend(targets);
        Ok(state.write(&self.file)?)
    }

    /// A build has failed, and what it has made is newer than what it was made of, also where a source gets
    /// its content and its time of before back. Nothing is kept when a source changed in the meantime.
    pub fn keep_failed(&self, stock: Stock) -> anyhow::Result<()> {
        if self.is_changed_since(&stock) {
            return Ok(());
        }
        let state = State {
            facts: stock.0.facts,
            contents: stock.0.contents,
            ..State::default()
        };
        Ok(state.write(&self.file.with_file_name(FAILED))?)
    }
}

/// An object that a compile has made outside of the output tree, where no record is read.
fn object_elsewhere(session: &Session) -> Option<PathBuf> {
    let journal = lock(&session.journal);
    let mut objects = journal.compiles().map(|(object, _)| object);
    let object = objects.find(|object| object.is_absolute() && object.is_file());
    object.map(Path::to_owned)
}

/// Of a build that cannot be watched nothing is known either.
pub(crate) fn forget_in(scratch: &Scratch) -> io::Result<()> {
    forget(&scratch.path(COMPLETE))
}

/// Removes the file with the state, and that of a build that failed.
fn forget(file: &Path) -> io::Result<()> {
    for file in [file.to_owned(), file.with_file_name(FAILED)] {
        match fs_err::remove_file(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// What tells whether another build has ended: stamps of the file with the state and of that of a build that
/// failed.
fn stamps(file: &Path) -> [[u8; 32]; 2] {
    [file.to_owned(), file.with_file_name(FAILED)].map(|file| of_file(&file))
}

impl State {
    fn read(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let (checksum, payload) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
        let whole = digest(payload) == *checksum;
        whole.then(|| postcard::from_bytes(payload).ok()).flatten()
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let payload = postcard::to_stdvec(self).map_err(io::Error::other)?;
        publish(path, &[MAGIC, &digest(&payload)[..], &payload].concat())
    }
}

/// The two trees, if a stat in them stands for content.
fn trusted_roots(build: &LtoBuild) -> Result<Roots, String> {
    let canonical = |path: &Path| fs_err::canonicalize(path).map_err(|error| error.to_string());
    let source = canonical(&build.tree.source)?;
    let repository = Repository::elsewhere(&source).map_err(|error| error.to_string())?;
    let roots = Roots {
        source,
        repository,
        output: canonical(&build.tree.output)?,
        config: build.tree.config.clone(),
    };
    if roots.source == roots.output {
        // What changes during a build could be the build's own work.
        return Err("sources and objects share one tree".into());
    }
    let trees = [&roots.source, &roots.output].into_iter();
    for root in trees.chain(roots.repository.iter().flat_map(Repository::roots)) {
        let opened = std::fs::File::open(root).map_err(|error| error.to_string())?;
        let changed = opened
            .metadata()
            .map_err(|error| error.to_string())?
            .ctime_nsec();
        // No part below a millisecond: a file system that stores seconds.
        if changed % 1_000_000 == 0 || !has_trusted_stamps(&opened) {
            return Err(format!(
                "the stamps of {} cannot be trusted",
                root.display()
            ));
        }
    }
    Ok(roots)
}
