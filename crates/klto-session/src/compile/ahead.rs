//! Compiles that begin before make asks for them.
//!
//! In: objects of the sources that were edited. Out: bitcode in the store, where make's own call finds it.
//! make reads its makefiles for a while before it calls the first compiler; what it will call is known from
//! the last build.
//!
//! Nothing rests on that: such a compile has the same keys as any other, so that another call than the one
//! expected, or one after a file has changed again, finds nothing. What the compiler writes lies in the
//! scratch directory, for make goes by the times of kbuild's own files.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use klto_core::Digest;
use klto_exec::{Slot, ToolCall};
use klto_kbuild::compile::CompileCall;
use klto_wire::{Request, SENT_VARIABLES, ShimRole};

use super::previous::Previous;
use super::stored::StoredCompile;
use crate::session::{Session, lock};

/// The compiles of a build that make has not asked for yet.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// By the key of the call.
    compiles: Mutex<HashMap<Digest, Compile>>,
    ended: Condvar,
    /// What ends the wait of those that are to begin.
    may_begin: (Sender<()>, Receiver<()>),
    /// Dropped when no more are to begin.
    go_on: Mutex<Option<Sender<()>>>,
    is_over: Receiver<()>,
}

#[derive(Debug)]
struct Compile {
    label: String,
    /// `None` while it runs.
    outcome: Option<AheadResult>,
}

/// How one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AheadResult {
    /// The bitcode is in the store: that of the last build, where it is the same code.
    Stored { is_same_code: bool },
    /// The compiler has said something, which kbuild's own call has to say.
    HasMessages,
    /// Make's call is one like any other.
    NothingKept,
}

/// One that runs; it has ended when this is dropped.
struct Running<'a> {
    ahead: &'a Ahead,
    call: Digest,
    outcome: AheadResult,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(compile) = lock(&self.ahead.compiles).get_mut(&self.call) {
            compile.outcome = Some(self.outcome);
        }
        self.ahead.ended.notify_all();
    }
}

impl Default for Ahead {
    fn default() -> Self {
        let (go_on, is_over) = bounded(0);
        Self {
            compiles: Mutex::default(),
            ended: Condvar::new(),
            may_begin: bounded(1),
            go_on: Mutex::new(Some(go_on)),
            is_over,
        }
    }
}

impl Ahead {
    /// The tools can be called: compiles may begin.
    pub fn start(&self) {
        // There is room for the one message.
        let _ = self.may_begin.0.try_send(());
    }

    /// No more begin: make itself has its slots filled from now on, or has ended.
    pub fn stop(&self) {
        lock(&self.go_on).take();
    }

    /// Make asks for a compile: how that one ended, where it had begun.
    pub(super) fn take(&self, call: Digest) -> Option<AheadResult> {
        self.stop();
        let is_running = |compiles: &mut HashMap<Digest, Compile>| {
            compiles.get(&call).is_some_and(|one| one.outcome.is_none())
        };
        let compiles = self.ended.wait_while(lock(&self.compiles), is_running);
        let mut compiles = compiles.unwrap_or_else(PoisonError::into_inner);
        compiles.remove(&call).and_then(|compile| compile.outcome)
    }

    /// What was compiled and make has not asked for at all.
    pub fn left(&self) -> BTreeSet<String> {
        let compiles = std::mem::take(&mut *lock(&self.compiles));
        let ran = compiles.into_values().filter(|compile| {
            let outcome = compile.outcome;
            matches!(
                outcome,
                Some(AheadResult::Stored { .. } | AheadResult::HasMessages)
            )
        });
        ran.map(|compile| compile.label).collect()
    }

    /// One begins; `None` after [`Self::stop`].
    fn begin(&self, call: Digest, label: String) -> Option<Running<'_>> {
        let go_on = lock(&self.go_on);
        go_on.as_ref()?;
        let outcome = None;
        lock(&self.compiles).insert(call, Compile { label, outcome });
        Some(Running {
            ahead: self,
            call,
            outcome: AheadResult::NothingKept,
        })
    }
}

/// A call that make is expected to have done.
struct ExpectedCall {
    stored: StoredCompile,
    environment: Vec<(OsString, OsString)>,
    label: String,
}

impl Session {
    /// Compiles what make will ask for, in slots that it does not use, until it asks for the first.
    pub(crate) fn compile_ahead(&self, objects: &BTreeSet<PathBuf>) {
        let place = self.scratch.path("ahead");
        // The name of a dependency file stands in a list with commas.
        let is_fit = self.engine.store().is_some() && !place.as_os_str().as_bytes().contains(&b',');
        // What a build left that was killed.
        let _ = std::fs::remove_dir_all(&place);
        if !is_fit || std::fs::create_dir_all(&place).is_err() {
            return;
        }
        let is_over = &self.ahead.is_over;
        select! {
            recv(self.ahead.may_begin.1) -> _ => {}
            recv(is_over) -> _ => return,
        }
        let calls = objects
            .iter()
            .filter_map(|object| self.expected_call(object));
        let calls: Vec<ExpectedCall> = calls.collect();
        let place = place.as_path();
        std::thread::scope(|scope| {
            // Given up before the running ones end: make needs the slots.
            let crew = self.slots.crew(calls.len());
            for call in calls {
                let slot: Option<Slot> = select! {
                    recv(crew.arrivals) -> slot => slot.ok(),
                    recv(is_over) -> _ => None,
                };
                let Some(slot) = slot else { return };
                let Some(mut running) =
                    self.ahead.begin(call.stored.call_key(), call.label.clone())
                else {
                    return;
                };
                let compile = move || {
                    let outcome = self.compile_before_make(call, place);
                    running.outcome = outcome.unwrap_or(AheadResult::NothingKept);
                    drop(running);
                    drop(slot);
                };
                if std::thread::Builder::new()
                    .spawn_scoped(scope, compile)
                    .is_err()
                {
                    return;
                }
            }
        });
    }

    /// As the last build had it; `None` where that made no bitcode.
    fn expected_call(&self, object: &Path) -> Option<ExpectedCall> {
        let journal = lock(&self.journal);
        if journal.native_reader(object).is_some() {
            return None;
        }
        let record = journal.compile(object)?.clone();
        let mut environment = journal.recipe(object)?.environment;
        drop(journal);
        for (_, value) in environment.iter_mut().filter(|(name, _)| name == "PWD") {
            // As the shell does before it calls the compiler.
            if !is_same_directory(Path::new(value), &record.directory) {
                *value = record.directory.clone().into();
            }
        }
        let sent = environment.iter();
        let sent = sent.filter(|(name, _)| SENT_VARIABLES.iter().any(|known| name == known));
        let request = Request {
            role: ShimRole::Compiler,
            program: record.program,
            arguments: record.arguments,
            directory: record.directory,
            environment: sent.cloned().collect(),
        };
        let call = CompileCall::parse(&request.arguments)?;
        let (call, arguments) = self.to_bitcode(&request, &call, object).ok()?;
        let label = self.scratch.object_name(&request.directory, &call.output);
        let label = label.display().to_string();
        let parts = (&call, arguments.as_slice(), &[][..]);
        let stored = StoredCompile::of(self, &request, parts, label.clone());
        let stored = stored.ok()?.ok()?;
        stored.is_storable().then_some(ExpectedCall {
            stored,
            environment,
            label,
        })
    }

    fn compile_before_make(&self, call: ExpectedCall, place: &Path) -> anyhow::Result<AheadResult> {
        let start = Instant::now();
        let place = tempfile::tempdir_in(place)?;
        let (object, depfile) = (place.path().join("object"), place.path().join("depfile"));
        let previous = Previous::copied(call.stored.object(), &object, place.path());
        let mut stored = call.stored.written_to(object, depfile);
        if stored.find(self).is_some() {
            return Ok(AheadResult::NothingKept);
        }
        let run = stored.run();
        let (status, printed) = self.engine.call(&ToolCall {
            program: &run.program,
            arguments: run.arguments,
            directory: &run.directory,
            environment: &call.environment,
        })?;
        let Some(code) = status.code() else {
            return Ok(AheadResult::NothingKept);
        };
        self.timeline.ended(start, "compile", "ran", &call.label);
        let uses = stored.line_use(&printed);
        let Some(uses) = uses.filter(|_| code == 0) else {
            return Ok(AheadResult::HasMessages);
        };
        let kept = stored.keep(self, Some(previous), &uses)?;
        Ok(match kept.not_stored {
            None => AheadResult::Stored {
                is_same_code: kept.is_same_code,
            },
            Some(_) => AheadResult::NothingKept,
        })
    }
}

fn is_same_directory(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    one.is_absolute() && identity(one).is_some_and(|one| Some(one) == identity(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: AheadResult = AheadResult::Stored {
        is_same_code: false,
    };

    #[test]
    fn make_waits_for_a_compile_that_has_begun_and_begins_the_others() {
        let ahead = Ahead::default();
        let [one, other] = ["a", "b"].map(|text| Digest::of_bytes(text.as_bytes()));
        let mut running = ahead.begin(one, "a.o".to_owned()).unwrap();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| ahead.take(one));
            while lock(&ahead.go_on).is_some() {
                std::thread::yield_now();
            }
            assert!(!asked.is_finished());
            running.outcome = STORED;
            drop(running);
            assert_eq!(asked.join().unwrap(), Some(STORED));
        });
        assert_eq!(ahead.take(one), None);
        assert!(ahead.begin(other, "b.o".to_owned()).is_none());
        assert_eq!(ahead.take(other), None);
    }

    #[test]
    fn what_make_did_not_ask_for_is_left() {
        let ahead = Ahead::default();
        let call = Digest::of_bytes(b"a");
        let mut running = ahead.begin(call, "a.o".to_owned()).unwrap();
        running.outcome = AheadResult::HasMessages;
        drop(running);
        drop(ahead.begin(Digest::of_bytes(b"b"), "found.o".to_owned()));
        assert_eq!(ahead.left(), BTreeSet::from(["a.o".to_owned()]));
        assert_eq!(ahead.take(call), None);
    }
}
