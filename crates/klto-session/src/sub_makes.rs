//! The makes under make: which ones each object is made under, and which need not run.
//!
//! In: every make that a recipe starts, before it runs. Out: the makes above a call of a tool; for a make,
//! whether it is left out. That rests on what the last complete build saw (`unchanged/remake.rs`): a make of
//! a directory with the same arguments, directory and environment has nothing to do when nothing that it
//! reads has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};

use klto_core::{KeyBuilder, normalize};
use klto_kbuild::{
    directory_of_make, makes_a_directory, makes_boot_image, makes_the_tree, makes_tools,
};
use klto_wire::Request;
use serde::{Deserialize, Serialize};

use crate::recipe::{Caller, Process, Recipe};
use crate::session::{Answer, Session, as_called, ended, lock};
use crate::unchanged::{VOLATILE, stamp};

/// How a make is called: digest of its arguments and directory.
pub(crate) type MakeCall = [u8; 32];

/// The makes of a build by what tells one from another: digest of call and environment.
pub(crate) type SubMakes = BTreeMap<[u8; 32], SubMake>;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubMake {
    /// How it is called.
    pub call: MakeCall,
    /// Whether it makes what is in directories, and began before anything was linked.
    pub is_of_directory: bool,
}

/// Adds makes of a later build; one that is not always of a directory is none.
pub(crate) fn add_makes(known: &mut SubMakes, later: SubMakes) {
    for (identity, make) in later {
        let known = known.entry(identity).or_insert(make);
        known.is_of_directory &= make.is_of_directory;
    }
}

/// Variables of make's that differ from run to run, as [`VOLATILE`] ones do.
const NOT_COMPARED: [&str; 3] = ["MAKE_RESTARTS", "MAKE_TERMERR", "MAKE_TERMOUT"];

/// Which makes are left out of a build.
#[derive(Debug, Clone)]
pub(crate) struct LeaveOut {
    /// The makes of the last complete build.
    pub known: SubMakes,
    /// Calls of those above what is made again.
    pub needed: BTreeSet<MakeCall>,
    /// vmlinux, of which the last complete build has made the boot image; nothing where a later one may have
    /// changed it.
    pub vmlinux: Option<KeptFile>,
    /// Whether the makes of tools look at none of the sources that have changed.
    pub without_tools: bool,
}

/// A file that is as it was, by its stat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptFile {
    path: PathBuf,
    was: [u8; 32],
}

impl KeptFile {
    /// As the file is now.
    pub fn now(path: PathBuf) -> Self {
        let was = stamp(&path);
        Self { path, was }
    }

    fn is_kept(&self) -> bool {
        stamp(&self.path) == self.was
    }
}

/// Which makes are left out, as far as that is known.
#[derive(Debug)]
enum Decision {
    /// It is being found out.
    Pending,
    /// These, or none.
    Made(Option<LeaveOut>),
    /// It cannot be known what has to be made: nothing goes on.
    Failed,
}

/// The makes of this build.
#[derive(Debug)]
pub(crate) struct RunningMakes {
    decision: Mutex<Decision>,
    decided: Condvar,
    /// Everything in directories is made, and what reads it has begun.
    directories_are_made: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// With the directory of which each makes something.
    running: HashMap<Process, (MakeCall, Option<PathBuf>)>,
    makes: SubMakes,
    left_out: usize,
    /// Objects that a compile or a link was called for.
    made: BTreeSet<PathBuf>,
}

impl Default for RunningMakes {
    /// No make is left out.
    fn default() -> Self {
        Self {
            decision: Mutex::new(Decision::Made(None)),
            decided: Condvar::new(),
            directories_are_made: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }
}

/// A decision to be made; where it is dropped without one, makes fail.
#[must_use]
pub(crate) struct Undecided<'a>(&'a RunningMakes);

impl Undecided<'_> {
    /// From now on the makes that `leave_out` allows are left out; none with `None`.
    pub fn decide(self, leave_out: Option<LeaveOut>) {
        self.0.set(Decision::Made(leave_out));
    }
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        let is_pending = matches!(*lock(&self.0.decision), Decision::Pending);
        if is_pending {
            self.0.set(Decision::Failed);
        }
    }
}

impl RunningMakes {
    /// From now on makes wait for a decision which of them are left out.
    pub fn decide_later(&self) -> Undecided<'_> {
        self.directories_are_made.store(false, Relaxed);
        self.set(Decision::Pending);
        Undecided(self)
    }

    fn set(&self, decision: Decision) {
        *lock(&self.decision) = decision;
        self.decided.notify_all();
    }

    /// The link of vmlinux.o has begun: a make of a directory may now read what it gives.
    pub fn directories_are_made(&self) {
        self.directories_are_made.store(true, Relaxed);
    }

    /// All makes that ran.
    pub fn seen(&self) -> SubMakes {
        lock(&self.seen).makes.clone()
    }

    /// How many makes ran, and how many were left out.
    pub fn counts(&self) -> (usize, usize) {
        let seen = lock(&self.seen);
        (seen.makes.len(), seen.left_out)
    }

    /// The makes above a call that makes `object`, the nearest first, without the one that klto itself runs;
    /// `None` where one of them was not seen, or is of a directory that the object is not in: another may
    /// list it too.
    pub fn above(&self, caller: Caller, object: &Path) -> Option<Vec<MakeCall>> {
        let mut above = caller.makes_above()?;
        above.pop();
        let seen = lock(&self.seen);
        let makes = above.iter().map(|process| seen.running.get(process));
        let makes: Vec<_> = makes.collect::<Option<_>>()?;
        let (_, directory) = makes.first()?;
        let is_within = directory
            .as_ref()
            .is_none_or(|directory| object.starts_with(directory));
        is_within.then(|| makes.iter().map(|(call, _)| *call).collect())
    }

    /// A tool is called to make `object`.
    pub fn note_made(&self, object: &Path) {
        lock(&self.seen).made.insert(object.to_owned());
    }

    /// One of `objects` for which no tool was called.
    pub fn not_made<'a>(&self, objects: &'a BTreeSet<PathBuf>) -> Option<&'a Path> {
        let seen = lock(&self.seen);
        let mut objects = objects.iter();
        objects
            .find(|object| !seen.made.contains(*object))
            .map(PathBuf::as_path)
    }

    /// Waits until it is decided which makes are left out; `false` where that failed.
    fn wait_for_decision(&self) -> bool {
        let is_pending = |decision: &mut Decision| matches!(decision, Decision::Pending);
        let decision = self.decided.wait_while(lock(&self.decision), is_pending);
        let decision = decision.unwrap_or_else(PoisonError::into_inner);
        matches!(*decision, Decision::Made(_))
    }

    /// A make begins; whether it is left out.
    fn begins(&self, process: Process, recipe: &Recipe, arguments: &[OsString]) -> bool {
        let (call, identity) = (call(recipe), identity(recipe));
        let is_early = !self.directories_are_made.load(Relaxed);
        let is_of_directory = makes_a_directory(arguments) && is_early;
        let decision = lock(&self.decision);
        let leave_out = match &*decision {
            Decision::Made(leave_out) => leave_out.as_ref(),
            Decision::Pending | Decision::Failed => None,
        };
        let is_left_out = leave_out.is_some_and(|leave_out| {
            let known = leave_out.known.get(&identity);
            let vmlinux = leave_out.vmlinux.as_ref();
            let has_nothing_new = known.is_some_and(|make| {
                let is_of_kept = || vmlinux.is_some_and(KeptFile::is_kept);
                is_of_directory && make.is_of_directory
                    || is_early && makes_boot_image(arguments) && is_of_kept()
                    || leave_out.without_tools && makes_tools(arguments)
            });
            has_nothing_new && !leave_out.needed.contains(&call)
        });
        let mut seen = lock(&self.seen);
        if is_left_out {
            seen.left_out += 1;
            return true;
        }
        let directory = directory_of_make(arguments).map(normalize);
        seen.running.insert(process, (call, directory));
        let make = SubMake {
            call,
            is_of_directory,
        };
        add_makes(&mut seen.makes, BTreeMap::from([(identity, make)]));
        false
    }
}

impl Session {
    /// Answers a make that a recipe starts.
    pub(crate) fn sub_make(&self, request: Request, caller: Caller) -> Answer {
        // The make of the tree has much to do before it starts others.
        if !makes_the_tree(&request.arguments) && !self.makes.wait_for_decision() {
            return ended(2);
        }
        let process = caller.process();
        let process = process.and_then(|process| Some((process, caller.itself()?)));
        let is_left_out = process.is_some_and(|(process, recipe)| {
            self.makes.begins(process, &recipe, &request.arguments)
        });
        match is_left_out {
            true => ended(0),
            false => as_called(request),
        }
    }
}

fn call(recipe: &Recipe) -> MakeCall {
    let mut key = KeyBuilder::new("make-call", 1);
    for argument in &recipe.arguments {
        key.field("argument", argument.as_bytes());
    }
    key.field("directory", recipe.directory.as_os_str().as_bytes());
    *key.finish().as_bytes()
}

fn identity(recipe: &Recipe) -> [u8; 32] {
    let mut key = KeyBuilder::new("make", 1);
    key.field("call", &call(recipe));
    for (name, value) in &recipe.environment {
        let mut others = VOLATILE.iter().chain(&NOT_COMPARED);
        if others.all(|other| name != other) {
            key.field("name", name.as_bytes())
                .field("value", value.as_bytes());
        }
    }
    *key.finish().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(directory: &str) -> Recipe {
        Recipe {
            arguments: ["make", "-f", "scripts/Makefile.build", directory]
                .map(OsString::from)
                .to_vec(),
            directory: "/out".into(),
            environment: vec![("_".into(), "x".into())],
        }
    }

    fn begins(makes: &RunningMakes, process: u64, recipe: &Recipe) -> bool {
        let process = Process {
            number: 7,
            start: process,
        };
        makes.begins(process, recipe, &recipe.arguments[1..])
    }

    #[test]
    fn known_makes_of_directories_are_left_out_until_vmlinux_is_linked() {
        let (fs, mm, boot) = (
            recipe("obj=fs"),
            recipe("obj=mm"),
            recipe("obj=arch/x86/boot"),
        );
        let first = RunningMakes::default();
        for (number, recipe) in [&fs, &mm, &boot].into_iter().enumerate() {
            assert!(!begins(&first, number as u64, recipe));
        }
        first.directories_are_made();
        let late = recipe("obj=init");
        assert!(!begins(&first, 9, &late));

        let second = RunningMakes::default();
        second.decide_later().decide(Some(LeaveOut {
            known: first.seen(),
            needed: BTreeSet::from([call(&mm)]),
            vmlinux: None,
            without_tools: false,
        }));
        let terminal = Recipe {
            environment: vec![("_".into(), "y".into())],
            ..fs.clone()
        };
        assert!(begins(&second, 1, &terminal));
        for (number, recipe) in [&mm, &boot, &late, &recipe("obj=new")]
            .into_iter()
            .enumerate()
        {
            assert!(!begins(&second, number as u64, recipe), "{recipe:?}");
        }
        assert_eq!(second.counts(), (4, 1));
        second.directories_are_made();
        assert!(!begins(&second, 9, &fs));
    }

    #[test]
    fn makes_of_the_boot_image_are_left_out_while_vmlinux_is_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vmlinux");
        fs_err::write(&path, "old").unwrap();
        let boot = recipe("obj=arch/x86/boot");
        let first = RunningMakes::default();
        assert!(!begins(&first, 1, &boot));
        let leave_out = |vmlinux| LeaveOut {
            known: first.seen(),
            needed: BTreeSet::new(),
            vmlinux,
            without_tools: false,
        };
        let is_left_out = |vmlinux: Option<KeptFile>| {
            let makes = RunningMakes::default();
            makes.decide_later().decide(Some(leave_out(vmlinux)));
            begins(&makes, 1, &boot)
        };
        let kept = Some(KeptFile::now(path.clone()));
        assert!(is_left_out(kept.clone()));
        assert!(!is_left_out(None));
        let late = RunningMakes::default();
        late.decide_later().decide(Some(leave_out(kept.clone())));
        late.directories_are_made();
        assert!(!begins(&late, 1, &boot));
        fs_err::write(&path, "other").unwrap();
        assert!(!is_left_out(kept));
    }

    #[test]
    fn makes_wait_for_the_decision() {
        let makes = RunningMakes::default();
        assert!(makes.wait_for_decision());
        let undecided = makes.decide_later();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| makes.wait_for_decision());
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!waits.is_finished());
            undecided.decide(None);
            assert!(waits.join().unwrap());
        });
        drop(makes.decide_later());
        assert!(!makes.wait_for_decision());
    }
}
