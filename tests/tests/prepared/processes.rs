//! The processes of a build, as /proc shows them.
//!
//! A process belongs to a build when it works in its output tree, or names it among its arguments or
//! in its environment.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A living process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub id: i32,
    /// Its parent's id.
    pub parent: i32,
    /// The file that it runs.
    pub program: PathBuf,
    /// Program name and arguments, with a space after each.
    pub command: String,
}

impl Process {
    /// Sends it a signal.
    pub fn kill(&self, signal: Signal) {
        let _ = kill_process(Pid::from_raw(self.id).unwrap(), signal);
    }

    /// Whether it runs a program of this name.
    pub fn runs(&self, name: &str) -> bool {
        self.program.file_name().is_some_and(|found| found == name)
    }

    /// A tool that is asked for its version alone, or what it would start; so is a fork server that waits for
    /// calls.
    pub fn says_what_it_is(&self) -> bool {
        let words = || self.command.split_whitespace();
        words().any(|word| word == "-###") || words().next_back() == Some("--version")
    }

    /// A backend: clang that reads bitcode.
    pub fn is_backend(&self) -> bool {
        self.runs("clang") && self.command.contains(" -x ir ")
    }

    /// A compile of a file of the tree.
    pub fn is_compile(&self) -> bool {
        self.runs("clang") && self.command.contains(" -DKBUILD_MODNAME=")
    }

    /// The compile of a module of one object, which its shim waits for.
    pub fn is_single_module_compile(&self) -> bool {
        self.is_compile() && self.command.contains(".klto/single/")
    }
}

/// The living processes of the build in `output`, zombies apart.
pub fn of_build(output: &Path) -> Vec<Process> {
    living(output, |_| true).collect()
}

/// Those of them for which `wanted` holds.
fn living(output: &Path, wanted: impl Fn(&Process) -> bool) -> impl Iterator<Item = Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(move |id| look(id, output, &wanted))
}

/// A compile lasts a third of a second, and other builds may run beside: whose process it is, which takes
/// longest, is asked last.
fn look(id: i32, output: &Path, wanted: &impl Fn(&Process) -> bool) -> Option<Process> {
    let place = PathBuf::from(format!("/proc/{id}"));
    let program = std::fs::read_link(place.join("exe")).ok()?;
    let command = std::fs::read(place.join("cmdline")).ok()?;
    let stat = std::fs::read_to_string(place.join("stat")).ok()?;
    let mut after_name = stat.rsplit_once(") ")?.1.split(' ');
    let state = after_name.next()?;
    let parent = after_name.next()?.parse().ok()?;
    let works_there = || {
        std::fs::read_link(place.join("cwd")).is_ok_and(|directory| directory.starts_with(output))
    };
    let names_it = |text: &[u8]| {
        let wanted = output.as_os_str().as_bytes();
        memchr::memmem::find(text, wanted).is_some()
    };
    let in_environment = || std::fs::read(place.join("environ")).is_ok_and(|text| names_it(&text));
    if matches!(state, "Z" | "X") || command.is_empty() {
        return None;
    }
    let process = Process {
        id,
        parent,
        program,
        command: String::from_utf8_lossy(&command).replace('\0', " "),
    };
    let belongs = || works_there() || names_it(&command) || in_environment();
    (wanted(&process) && belongs()).then_some(process)
}

/// Asks again and again until there is an answer; `None` when there is none in time.
pub fn wait_for<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || begin.elapsed() > limit {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The first process of the build for which `wanted` holds.
///
/// # Panics
/// None came in a minute.
pub fn await_process(output: &Path, what: &str, wanted: impl Fn(&Process) -> bool) -> Process {
    let found = wait_for(Duration::from_secs(60), || living(output, &wanted).next());
    found.unwrap_or_else(|| panic!("no {what} came in {}", output.display()))
}

/// Fails unless nothing of the build lives after `limit`.
pub fn assert_all_gone(output: &Path, limit: Duration) {
    let gone = wait_for(limit, || of_build(output).is_empty().then_some(()));
    let left = of_build(output);
    assert!(
        gone.is_some(),
        "{limit:?} after the end there live {left:#?}"
    );
}
