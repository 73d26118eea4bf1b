//! Carries out actions: from the store where a result is known, by the tool otherwise.
//!
//! # States of an action
//!
//! | from | to | when |
//! |---|---|---|
//! | waiting | looked up | a worker with a slot takes it |
//! | looked up | hit | the store has the key and its blobs are whole |
//! | looked up | running | it has not, or the action may not be stored |
//! | hit | checked | the share of hits that are run again says so |
//! | running | stored | exit code 0, and the output passes the caller's check |
//! | running | failed | anything else, as an input that changed meanwhile; no further action starts |
//!
//! A tool writes beside its output's place, and only a checked output is moved there, so that a killed engine
//! leaves the old file or none. What the tool prints names the action's label, not that place. A store that
//! fails, or is too slow to be of use, is reported once and not used again: the build goes on without it
//! (`engine/stored.rs`).

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{bounded, select};
use klto_core::{Action, Digest, Input, KeyBuilder, Outcome, Storable, die_with_parent};
use klto_store::{Store, StoredResult};
use rustix::fs::{MemfdFlags, memfd_create};

mod stored;

use stored::{Pace, Tools};

use crate::progress::Progress;
use crate::slots::{Slot, Slots};

/// How an action came to its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The store had the result.
    Hit,
    /// The tool ran.
    Ran,
    /// The tool ran although the store had the result, and both were equal.
    Checked,
}

impl How {
    /// The word for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Ran => "ran",
            Self::Checked => "checked",
        }
    }
}

/// An action that is over.
#[derive(Debug, Clone)]
pub struct Completed {
    /// Place of the action in the list that was given.
    pub index: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// Where the result came from.
    pub how: How,
    /// When it began.
    pub start: Instant,
    /// Wall time.
    pub duration: Duration,
}

/// Says why an output file's content is wrong, if it is.
pub type OutputCheck<'a> = dyn Fn(&Action, &[u8]) -> Result<(), String> + Sync + 'a;

/// The socket of each program's fork server.
pub type ForkServers = HashMap<PathBuf, PathBuf>;

/// Runs actions; one for a session.
pub struct Engine {
    store: Option<Store>,
    fork_servers: Mutex<ForkServers>,
    store_failed: AtomicBool,
    pace: Pace,
    tools: Tools,
    verify_percent: u8,
    cancelled: AtomicBool,
    notice: Box<dyn Fn(&str) + Send + Sync>,
}

impl Engine {
    /// An engine over `store`, if there is one. `verify_percent` of the hits are run again and
    /// compared; `notice` receives lines for the user, as that the store is damaged.
    pub fn new(
        store: Option<Store>,
        verify_percent: u8,
        notice: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            fork_servers: Mutex::default(),
            store_failed: AtomicBool::new(false),
            pace: Pace::default(),
            tools: Tools::default(),
            verify_percent,
            cancelled: AtomicBool::new(false),
            notice: Box::new(notice),
        }
    }

    /// Tools that have a fork server run in it from now on.
    pub fn use_fork_servers(&self, sockets: ForkServers) {
        *self.fork_servers() = sockets;
    }

    fn fork_servers(&self) -> MutexGuard<'_, ForkServers> {
        let servers = self.fork_servers.lock();
        servers.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether [`Engine::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Starts no further action.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Runs `actions`, the first of them in the slot that the caller holds, more of them as slots come. After
    /// a failure no action starts; the result lists those that are over, by index. `progress` says how far it
    /// is in the meantime.
    pub fn run(
        &self,
        actions: &[Action],
        slots: &Slots,
        check: &OutputCheck<'_>,
        progress: &Progress,
    ) -> Vec<Completed> {
        progress.start(actions.len());
        let batch = Batch {
            engine: self,
            actions,
            inputs: actions.iter().map(input_stamps).collect(),
            check,
            progress,
            queue: Mutex::new((0..actions.len()).collect()),
            completed: Mutex::default(),
            failed: AtomicBool::new(false),
        };
        let crew = slots.crew(actions.len().saturating_sub(1));
        let (over, is_over) = bounded::<()>(0);
        std::thread::scope(|scope| {
            let batch = &batch;
            // The scope's thread waits for slots; it must not end while the lent worker runs.
            scope.spawn(move || {
                batch.work();
                drop(over);
            });
            loop {
                select! {
                    recv(crew.arrivals) -> slot => match slot {
                        Ok(slot) => { scope.spawn(move || batch.work_in(slot)); }
                        Err(_) => break,
                    },
                    recv(is_over) -> _ => break,
                }
            }
            drop(crew);
        });
        let mut completed = batch
            .completed
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        completed.sort_by_key(|completed| completed.index);
        completed
    }

    fn notice(&self, text: &str) {
        (self.notice)(text);
    }

    fn perform(
        &self,
        (action, inputs): (&Action, &[Stamp]),
        check: &OutputCheck<'_>,
    ) -> (Outcome, How) {
        let key = action.key();
        let storable = action.storable == Storable::Yes;
        if let Some(result) = storable.then(|| self.find(key)).flatten() {
            if self.is_chosen_for_verification(key) {
                return (self.verify(action, key, &result, check), How::Checked);
            }
            if self.fetch(action, &result) {
                return (
                    Outcome::Done {
                        stderr: result.stderr,
                    },
                    How::Hit,
                );
            }
        }
        let outcome = self.run_tool(action, check);
        if let (Outcome::Done { stderr }, Some(input)) = (&outcome, changed_input(action, inputs)) {
            for output in action.output_places() {
                let _ = fs_err::remove_file(output);
            }
            let failed = Outcome::Failed {
                stderr: stderr.clone(),
                reason: format!("{} changed while it ran; build again", input.display()),
            };
            return (failed, How::Ran);
        }
        let storable = storable && self.is_as_identified(action.tool_identity);
        if let (Outcome::Done { stderr }, true) = (&outcome, storable) {
            let places = action.output_places();
            let outputs: Vec<&Path> = places.iter().map(PathBuf::as_path).collect();
            self.keep(&[key], &outputs, stderr);
        }
        (outcome, How::Ran)
    }

    /// Whether an action will run its tool: nothing is stored for it, or that is to be made again. It may run
    /// also where this says no, when what is stored turns out to be damaged.
    pub fn will_run(&self, action: &Action) -> bool {
        let key = action.key();
        let is_reused = action.storable == Storable::Yes && !self.is_chosen_for_verification(key);
        !is_reused || self.find(key).is_none()
    }

    /// Whether a hit is to be made again and compared. It is a share of the keys that differs from process to
    /// process, so that every entry has its turn.
    pub fn is_chosen_for_verification(&self, key: Digest) -> bool {
        let mut mixed = KeyBuilder::new("verify", 1);
        mixed
            .digest("key", key)
            .field("process", &std::process::id().to_le_bytes());
        let draw = u16::from(mixed.finish().as_bytes()[0]) * 100 / 256;
        draw < u16::from(self.verify_percent)
    }

    fn verify(
        &self,
        action: &Action,
        key: Digest,
        stored: &StoredResult,
        check: &OutputCheck<'_>,
    ) -> Outcome {
        let outcome = self.run_tool(action, check);
        if !matches!(outcome, Outcome::Done { .. }) {
            return outcome;
        }
        let fresh: Result<Vec<_>, _> = action
            .output_places()
            .iter()
            .map(|path| Digest::of_file(path))
            .collect();
        match fresh {
            Ok(fresh) if fresh == stored.outputs => outcome,
            Ok(_) => Outcome::Failed {
                stderr: Vec::new(),
                reason: format!(
                    "the store's result differs from a fresh run (key {key}); run `klto cache clear`, and report this with the file .klto/log"
                ),
            },
            Err(error) => Outcome::Failed {
                stderr: Vec::new(),
                reason: error.to_string(),
            },
        }
    }
}

/// What tells a file from the one that was there before: inode, size, time; `None` of a file that is not
/// there.
pub(crate) type Stamp = Option<(u64, u64, SystemTime)>;

pub(crate) fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
}

fn input_stamps(action: &Action) -> Vec<Stamp> {
    let stamp = |input: &Input| stamp(&action.directory.join(&input.path));
    action.inputs.iter().map(stamp).collect()
}

/// An input that is not what it was: the key speaks of another one than the tool may have read.
fn changed_input<'a>(action: &'a Action, before: &[Stamp]) -> Option<&'a Path> {
    let now = input_stamps(action);
    let mut inputs = action.inputs.iter().zip(before).zip(now);
    inputs.find_map(|((input, before), now)| (*before != now).then_some(input.path.as_path()))
}

/// The actions of one call of [`Engine::run`].
struct Batch<'a> {
    engine: &'a Engine,
    actions: &'a [Action],
    /// What the inputs of each were at the beginning.
    inputs: Vec<Vec<Stamp>>,
    check: &'a OutputCheck<'a>,
    progress: &'a Progress,
    queue: Mutex<VecDeque<usize>>,
    completed: Mutex<Vec<Completed>>,
    failed: AtomicBool,
}

impl Batch<'_> {
    fn work_in(&self, slot: Slot) {
        self.work();
        drop(slot);
    }

    fn work(&self) {
        while let Some(index) = self.next() {
            let Some(action) = self.actions.get(index) else {
                continue;
            };
            let start = Instant::now();
            self.progress.begin(index, &action.label);
            let inputs = self.inputs.get(index).map_or(&[][..], Vec::as_slice);
            let (outcome, how) = self.engine.perform((action, inputs), self.check);
            self.progress.end(index, how);
            if matches!(outcome, Outcome::Failed { .. }) {
                self.failed.store(true, Ordering::Relaxed);
            }
            let completed = Completed {
                index,
                outcome,
                how,
                start,
                duration: start.elapsed(),
            };
            self.completed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(completed);
        }
    }

    fn next(&self) -> Option<usize> {
        if self.failed.load(Ordering::Relaxed) || self.engine.cancelled.load(Ordering::Relaxed) {
            return None;
        }
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

/// A call of a tool that is no action.
#[derive(Debug)]
pub struct ToolCall<'a> {
    /// The executable.
    pub program: &'a Path,
    /// Without the program's name.
    pub arguments: Vec<OsString>,
    /// Where it runs.
    pub directory: &'a Path,
    /// All of it.
    pub environment: &'a [(OsString, OsString)],
}

impl Engine {
    /// Runs the tool and moves checked outputs to their places.
    fn run_tool(&self, action: &Action, check: &OutputCheck<'_>) -> Outcome {
        let mut beside = action.clone();
        for output in &mut beside.outputs {
            let mut name = output.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}.tmp", std::process::id()));
            *output = output.with_file_name(name);
        }
        let named = |printed| with_label(printed, &beside);
        let outcome = self.run_beside(&beside, check).and_then(|stderr| {
            for (from, to) in beside.output_places().iter().zip(action.output_places()) {
                fs_err::rename(from, to).map_err(|error| (Vec::new(), error.to_string()))?;
            }
            Ok(stderr)
        });
        match outcome {
            Ok(stderr) => Outcome::Done {
                stderr: named(stderr),
            },
            Err((stderr, reason)) => {
                let stderr = named(stderr);
                for output in &beside.output_places() {
                    let _ = fs_err::remove_file(output);
                }
                Outcome::Failed { stderr, reason }
            }
        }
    }

    fn run_beside(
        &self,
        action: &Action,
        check: &OutputCheck<'_>,
    ) -> Result<Vec<u8>, (Vec<u8>, String)> {
        let plain = |error: std::io::Error| (Vec::new(), error.to_string());
        let places = action.output_places();
        for parent in places.iter().filter_map(|output| output.parent()) {
            fs_err::create_dir_all(parent).map_err(plain)?;
        }
        let edited = action.edits.and_then(|place| action.inputs.get(place));
        if let (Some(input), Some(output)) = (edited, places.first()) {
            fs_err::copy(action.directory.join(&input.path), output).map_err(plain)?;
        }
        let (status, printed) = self
            .launch(action)
            .map_err(|error| (Vec::new(), format!("{}: {error}", action.program.display())))?;
        match (status.code(), status.signal()) {
            (Some(0), _) => {}
            (Some(code), _) => return Err((printed, format!("exit code {code}"))),
            (None, Some(signal)) => return Err((printed, format!("killed by signal {signal}"))),
            (None, None) => return Err((printed, "ended without a status".into())),
        }
        for path in &places {
            let bytes = fs_err::read(path).map_err(|error| (printed.clone(), error.to_string()))?;
            check(action, &bytes).map_err(|reason| (printed.clone(), reason))?;
        }
        Ok(printed)
    }

    fn launch(&self, action: &Action) -> io::Result<(ExitStatus, Vec<u8>)> {
        self.call(&ToolCall {
            program: &action.program,
            arguments: action.command_arguments(),
            directory: &action.directory,
            environment: &action.environment,
        })
    }

    /// Runs a call in a slot of the caller's: the tool's end, and all that it printed.
    ///
    /// # Errors
    /// The tool cannot be started, or the build was stopped.
    pub fn call(&self, call: &ToolCall<'_>) -> io::Result<(ExitStatus, Vec<u8>)> {
        let stopped = || io::Error::other("the build was stopped");
        if self.is_cancelled() {
            return Err(stopped());
        }
        let socket = self.fork_servers().get(call.program).cloned();
        if let Some(socket) = socket
            && let Ok(ended) = run_forked(call, &socket)
        {
            return Ok(ended);
        }
        if self.is_cancelled() {
            return Err(stopped());
        }
        let mut command = Command::new(call.program);
        command
            .args(&call.arguments)
            .current_dir(call.directory)
            .stdin(Stdio::null());
        command
            .env_clear()
            .envs(call.environment.iter().map(|(name, value)| (name, value)));
        let output = die_with_parent(&mut command).output()?;
        let mut printed = output.stdout;
        printed.extend_from_slice(&output.stderr);
        Ok((output.status, printed))
    }
}

/// What a tool printed, with the action's label where it names its output.
fn with_label(printed: Vec<u8>, action: &Action) -> Vec<u8> {
    let Some(output) = action.outputs.first().map(|output| output.as_os_str()) else {
        return printed;
    };
    let finder = memchr::memmem::Finder::new(output.as_bytes());
    let mut named = Vec::with_capacity(printed.len());
    let mut rest = 0;
    for place in finder.find_iter(&printed) {
        named.extend_from_slice(printed.get(rest..place).unwrap_or_default());
        named.extend_from_slice(action.label.as_bytes());
        rest = place + output.len();
    }
    named.extend_from_slice(printed.get(rest..).unwrap_or_default());
    named
}

fn run_forked(call: &ToolCall<'_>, socket: &Path) -> anyhow::Result<(ExitStatus, Vec<u8>)> {
    let words = std::iter::once(call.program.as_os_str());
    let nothing = File::open("/dev/null")?;
    let mut printed = File::from(memfd_create("printed", MemfdFlags::CLOEXEC)?);
    let descriptors = [nothing.as_fd(), printed.as_fd(), printed.as_fd()];
    let status = klto_fork::run(
        socket,
        words.chain(call.arguments.iter().map(OsString::as_os_str)),
        call.environment.iter().cloned(),
        call.directory,
        descriptors,
    )?;
    let mut text = Vec::new();
    printed.rewind()?;
    printed.read_to_end(&mut text)?;
    Ok((status, text))
}

#[cfg(test)]
mod tests;
