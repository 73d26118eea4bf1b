//! Recipes as make started them.
//!
//! In: the process that called a tool. Out: the process below make that the call belongs to, with its
//! arguments, directory and environment: all that is needed to run that line of the recipe again.
//! It is found in /proc while the shim waits, so that neither make nor the recipe notices, and nothing
//! has to be taken out of what they print.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use klto_kbuild::MakeFlags;
use klto_wire::SOCKET_VARIABLE;
use rustix::net::sockopt::socket_peercred;

use crate::session::{Session, lock};

/// One line of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The program, most often a shell, and its arguments.
    pub arguments: Vec<OsString>,
    /// The working directory.
    pub directory: PathBuf,
    /// The whole environment, sorted by name, but for what belongs to one build only: klto's socket,
    /// MFLAGS, and the jobserver in MAKEFLAGS.
    pub environment: Vec<(OsString, OsString)>,
}

/// The process at the other end of a shim's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller(i32);

impl Caller {
    /// Who connected; a process of another PID namespace has no number here.
    pub fn of(stream: &UnixStream) -> Self {
        Self(socket_peercred(stream).map_or(0, |credentials| credentials.pid.as_raw_pid()))
    }

    /// The calling process; `None` where /proc does not show it.
    pub fn process(self) -> Option<Process> {
        Process::of(self.0)
    }

    /// Its standard output, as /proc shows it.
    pub fn standard_output(self) -> PathBuf {
        proc(self.0, "fd/1")
    }

    /// The calling process as a recipe of its own.
    pub fn itself(self) -> Option<Recipe> {
        Recipe::of_process(self.0)
    }

    /// Every make above the call, the nearest first.
    pub fn makes_above(self) -> Option<Vec<Process>> {
        let this = i32::try_from(std::process::id()).ok()?;
        let mut makes = Vec::new();
        let mut process = parent_of(self.0)?;
        while process != this {
            let name = std::fs::read(proc(process, "comm")).ok()?;
            if name == b"make\n" {
                makes.push(Process::of(process)?);
            }
            process = parent_of(process)?;
        }
        Some(makes)
    }

    /// The shell commands that the call belongs to.
    pub fn commands(self) -> Option<String> {
        match self.recipe()?.arguments.as_slice() {
            [_, option, commands] if option == "-c" => commands.to_str().map(str::to_owned),
            _ => None,
        }
    }

    /// The recipe that the call belongs to; `None` where /proc does not show it.
    fn recipe(self) -> Option<Recipe> {
        let mut process = self.0;
        loop {
            let parent = parent_of(process)?;
            let name = std::fs::read(proc(parent, "comm")).ok()?;
            if name == b"make\n" {
                return Recipe::of_process(process);
            }
            process = parent;
        }
    }
}

/// A process, told from a later one with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub number: i32,
    /// When it started, in clock ticks since the machine did.
    pub start: u64,
}

impl Process {
    fn of(number: i32) -> Option<Self> {
        let start = stat(number)?.split(' ').nth(19)?.parse().ok()?;
        Some(Self { number, start })
    }
}

impl Recipe {
    fn of_process(process: i32) -> Option<Self> {
        let arguments = strings(&std::fs::read(proc(process, "cmdline")).ok()?);
        let directory = std::fs::read_link(proc(process, "cwd")).ok()?;
        let variables = strings(&std::fs::read(proc(process, "environ")).ok()?);
        let mut environment: Vec<_> = variables.iter().filter_map(variable).collect();
        environment.sort();
        environment.dedup_by(|a, b| a.0 == b.0);
        Some(Self {
            arguments,
            directory,
            environment,
        })
    }
}

impl Session {
    /// Notes which recipe makes `object`, and under which makes. A recipe that is not noted is one that
    /// nobody can ask for.
    pub(crate) fn keep_recipe(&self, object: &Path, caller: Caller) -> std::io::Result<()> {
        self.makes.note_made(object);
        let Some(recipe) = caller.recipe() else {
            return Ok(());
        };
        let makes = self.makes.above(caller, object);
        let mut journal = lock(&self.journal);
        journal.set_recipe(object, &recipe)?;
        journal.set_makes(object, makes)
    }
}

fn proc(process: i32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/{file}"))
}

/// /proc/PID/stat from its third field on; the second, a name in parentheses, may hold anything.
fn stat(process: i32) -> Option<String> {
    let stat = std::fs::read_to_string(proc(process, "stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

fn parent_of(process: i32) -> Option<i32> {
    let parent = stat(process)?.split(' ').nth(1)?.parse().ok()?;
    (parent > 1).then_some(parent)
}

/// Strings that each end with a zero byte.
fn strings(bytes: &[u8]) -> Vec<OsString> {
    let text = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    let strings = text.split(|byte| *byte == 0);
    strings
        .map(|bytes| OsString::from_vec(bytes.to_vec()))
        .collect()
}

fn variable(text: &OsString) -> Option<(OsString, OsString)> {
    let bytes = text.clone().into_vec();
    let place = bytes.iter().position(|byte| *byte == b'=')?;
    let name = OsString::from_vec(bytes.get(..place)?.to_vec());
    let value = OsString::from_vec(bytes.get(place + 1..)?.to_vec());
    let of_this_build = [SOCKET_VARIABLE, "MFLAGS"];
    if of_this_build.iter().any(|known| name == OsStr::new(known)) {
        return None;
    }
    let value = match name == OsStr::new("MAKEFLAGS") {
        true => MakeFlags::parse(&value).without_jobserver(),
        false => value,
    };
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_build_is_left_out() {
        let kept = |text: &str| variable(&text.into());
        assert_eq!(kept("KLTO_SOCKET=/tmp/klto-1/s"), None);
        assert_eq!(kept("MFLAGS=-j2"), None);
        assert_eq!(kept("A=b=c"), Some(("A".into(), "b=c".into())));
        let flags = kept("MAKEFLAGS=rR -j2 --jobserver-auth=3,4 -- LLVM=1")
            .unwrap()
            .1;
        assert!(!flags.to_string_lossy().contains("jobserver"), "{flags:?}");
        assert!(flags.to_string_lossy().contains("LLVM=1"), "{flags:?}");
    }

    /// The shell stands for make.
    #[test]
    fn the_line_that_make_started_is_found_through_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let make = directory.path().join("make");
        std::os::unix::fs::symlink("/bin/sh", &make).unwrap();
        let mut child = std::process::Command::new(&make)
            .args(["-c", "sh -c 'sleep 60; :' recipe; :"])
            .env("KLTO_SOCKET", "here")
            .env("A", "b")
            .spawn()
            .unwrap();
        let child_of = |parent: i32| {
            let children = proc(parent, &format!("task/{parent}/children"));
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            loop {
                let text = std::fs::read_to_string(&children).unwrap();
                let first = text.split_whitespace().next().map(str::to_owned);
                let is_shell = |pid: &String| {
                    std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default() != b"make\n"
                };
                if let Some(pid) = first.filter(is_shell) {
                    break pid.parse::<i32>().unwrap();
                }
                assert!(std::time::Instant::now() < deadline);
            }
        };
        let shell = child_of(i32::try_from(child.id()).unwrap());
        let recipe = Caller(child_of(shell)).recipe().unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(child_of(shell)).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        child.wait().unwrap();
        assert_eq!(recipe.arguments, ["sh", "-c", "sleep 60; :", "recipe"]);
        assert!(recipe.environment.contains(&("A".into(), "b".into())));
        assert!(
            recipe
                .environment
                .iter()
                .all(|(name, _)| name != "KLTO_SOCKET")
        );
    }
}
