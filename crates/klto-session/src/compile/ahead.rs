//! Compiles that begin before make asks for them.
//!
//! In: what has to be made again after an edit. Out: bitcode in the store, where make's own call finds it. make reads
//! its makefiles for a while before it calls the first compiler; what it will call is known from the last build.
//!
//! Nothing rests on that: such a compile has the same keys as any other, so that another call than the one expected, or
//! one after a file has changed again, finds nothing. What the compiler writes lies in the scratch directory,
//! for make goes by the times of kbuild's own files.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use klto_exec::{Slot, ToolCall};
use klto_kbuild::compile::CompileCall;
use klto_wire::{Request, Role, SENT_VARIABLES};

use super::stored::StoredCompile;
use crate::session::{Session, lock};

/// The compiles of a build that make has not asked for yet.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// By the label of the compile.
    compiles: Mutex<HashMap<String, State>>,
    ended: Condvar,
    /// Dropped when no more are to begin.
    go_on: Mutex<Option<Sender<()>>>,
    is_over: Receiver<()>,
}

/// How far one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Ended(Outcome),
}

/// How one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The bitcode is in the store.
    Stored,
    /// The compiler has said something, which kbuild's own call has to say.
    Said,
    /// Make's call is one like any other.
    Nothing,
}

/// One that runs; it has ended when this is dropped.
struct Running<'a> {
    ahead: &'a Ahead,
    label: String,
    outcome: Outcome,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let label = std::mem::take(&mut self.label);
        lock(&self.ahead.compiles).insert(label, State::Ended(self.outcome));
        self.ahead.ended.notify_all();
    }
}

impl Default for Ahead {
    fn default() -> Self {
        let (go_on, is_over) = bounded(0);
        Self {
            compiles: Mutex::default(),
            ended: Condvar::new(),
            go_on: Mutex::new(Some(go_on)),
            is_over,
        }
    }
}

impl Ahead {
    /// No more begin: make itself has its slots filled from now on.
    pub fn stop(&self) {
        lock(&self.go_on).take();
    }

    /// Make asks for a compile: how that one ended, where it had begun.
    pub(super) fn take(&self, label: &str) -> Option<Outcome> {
        self.stop();
        let is_running =
            |compiles: &mut HashMap<String, State>| compiles.get(label) == Some(&State::Running);
        let compiles = self.ended.wait_while(lock(&self.compiles), is_running);
        let mut compiles = compiles.unwrap_or_else(PoisonError::into_inner);
        match compiles.remove(label) {
            Some(State::Ended(outcome)) => Some(outcome),
            Some(State::Running) | None => None,
        }
    }

    /// One begins; `None` after [`Self::stop`].
    fn begin(&self, label: String) -> Option<Running<'_>> {
        let go_on = lock(&self.go_on);
        go_on.as_ref()?;
        lock(&self.compiles).insert(label.clone(), State::Running);
        Some(Running {
            ahead: self,
            label,
            outcome: Outcome::Nothing,
        })
    }
}

/// A call that make is expected to have done.
struct ExpectedCall {
    /// With the variables that a shim sends.
    request: Request,
    to_bitcode: CompileCall,
    arguments: Vec<OsString>,
    /// All variables.
    environment: Vec<(OsString, OsString)>,
    label: String,
}

impl Session {
    /// Compiles what make will ask for, in slots that it does not use, until it asks for the first.
    pub(crate) fn compile_ahead(&self, objects: &BTreeSet<PathBuf>) {
        if self.engine.store().is_none() {
            return;
        }
        let calls = objects
            .iter()
            .filter_map(|object| self.expected_call(object));
        let calls: Vec<ExpectedCall> = calls.collect();
        // With what a build left that was killed.
        let place = self.scratch.path("ahead");
        let _ = std::fs::remove_dir_all(&place);
        if calls.is_empty() || std::fs::create_dir_all(&place).is_err() {
            return;
        }
        let crew = self.slots.crew(calls.len());
        let place = place.as_path();
        std::thread::scope(|scope| {
            for call in calls {
                let slot: Option<Slot> = select! {
                    recv(crew.arrivals) -> slot => slot.ok(),
                    recv(self.ahead.is_over) -> _ => None,
                };
                let running =
                    slot.and_then(|slot| Some((slot, self.ahead.begin(call.label.clone())?)));
                let Some((slot, mut running)) = running else {
                    return;
                };
                scope.spawn(move || {
                    let outcome = self.compile_before_make(&call, place);
                    running.outcome = outcome.unwrap_or(Outcome::Nothing);
                    drop(running);
                    drop(slot);
                });
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
        let environment = journal.recipe(object)?.environment;
        drop(journal);
        let sent = environment.iter();
        let sent = sent.filter(|(name, _)| SENT_VARIABLES.iter().any(|known| name == known));
        let request = Request {
            role: Role::Compiler,
            program: record.program,
            arguments: record.arguments,
            directory: record.directory,
            environment: sent.cloned().collect(),
        };
        let call = CompileCall::parse(&request.arguments)?;
        let (to_bitcode, arguments) = self.to_bitcode(&request, &call, object).ok()?;
        let label = self
            .scratch
            .object_name(&request.directory, &to_bitcode.output);
        Some(ExpectedCall {
            request,
            to_bitcode,
            arguments,
            environment,
            label: label.display().to_string(),
        })
    }

    fn compile_before_make(&self, call: &ExpectedCall, place: &Path) -> anyhow::Result<Outcome> {
        let start = Instant::now();
        let parts = (&call.to_bitcode, call.arguments.as_slice(), &[][..]);
        let Ok(stored) = StoredCompile::of(self, &call.request, parts, call.label.clone())? else {
            return Ok(Outcome::Nothing);
        };
        let place = tempfile::tempdir_in(place)?;
        let object = place.path().join("object");
        let mut stored = stored.written_to(object, place.path().join("depfile"));
        if !stored.is_storable() || stored.find(self) {
            return Ok(Outcome::Nothing);
        }
        let run = stored.run();
        let (status, printed) = self.engine.call(&ToolCall {
            program: &run.program,
            arguments: run.arguments,
            directory: &run.directory,
            environment: &call.environment,
        })?;
        self.timeline.ended(start, "compile", "ran", &call.label);
        match status.code() {
            Some(0) if printed.is_empty() => {}
            Some(_) => return Ok(Outcome::Said),
            None => return Ok(Outcome::Nothing),
        }
        Ok(match stored.keep(self)? {
            None => Outcome::Stored,
            Some(_) => Outcome::Nothing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn make_waits_for_a_compile_that_has_begun_and_begins_the_others() {
        let ahead = Ahead::default();
        let mut running = ahead.begin("a.o".to_owned()).unwrap();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| ahead.take("a.o"));
            while lock(&ahead.go_on).is_some() {
                std::thread::yield_now();
            }
            assert!(!asked.is_finished());
            running.outcome = Outcome::Stored;
            drop(running);
            assert_eq!(asked.join().unwrap(), Some(Outcome::Stored));
        });
        assert_eq!(ahead.take("a.o"), None);
        assert!(ahead.begin("b.o".to_owned()).is_none());
        assert_eq!(ahead.take("b.o"), None);
    }
}
