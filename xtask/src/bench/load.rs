//! A `klto make -j2` that runs in the background: the load, and the session that shims talk to.
//!
//! In: klto's program and a configured tree. Out: the environment that make gave its recipes. A
//! build that ends is started again from nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fs_err as fs;
use klto_core::die_with_parent;
use rustix::process::{Pid, Signal, kill_process};

use super::JOBS;
use crate::cache::Cache;
use crate::kernel::{self, Configuration, Tree};
use crate::sources;

/// Variables by name.
pub(super) type Environment = BTreeMap<OsString, OsString>;

/// How long klto may take to start make.
const START_LIMIT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(50);

/// The running build.
pub(super) struct Load {
    klto: PathBuf,
    source: PathBuf,
    root: PathBuf,
    tree: &'static Tree,
    running: Option<(Child, Environment)>,
}

impl Load {
    /// Prepares the build; nothing runs yet.
    pub fn new(cache: &Cache, klto: &Path) -> Result<Self> {
        let tree = Tree::named("5.10")?;
        Ok(Self {
            klto: klto.to_owned(),
            source: sources::fetch(cache, tree)?,
            root: cache.benchmarks()?.join("load"),
            tree,
            running: None,
        })
    }

    /// The environment of a session that runs now.
    pub fn environment(&mut self) -> Result<Environment> {
        if let Some((child, environment)) = &mut self.running
            && child.try_wait()?.is_none()
        {
            return Ok(environment.clone());
        }
        self.start()
    }

    fn start(&mut self) -> Result<Environment> {
        if self.root.exists() {
            fs::remove_dir_all(&self.root)?;
        }
        let output = self.root.join("kernel");
        let configuration = Configuration::default();
        kernel::configure(self.tree, &self.source, &output, configuration)?;
        let mut make = Command::new(&self.klto);
        make.args(["make", "--lto=thin", "--silent", JOBS])
            .args(kernel::make_arguments(self.tree, &self.source, &output))
            .args(self.tree.goals(configuration))
            .env("KLTO_CACHE", self.root.join("store"))
            // Cargo sets it for the programs that it runs; every tool would look there first.
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = die_with_parent(&mut make)
            .spawn()
            .context("starting the build in the background")?;
        let environment = environment_of_make(child.id());
        let (_, environment) = self.running.insert((child, environment?));
        Ok(environment.clone())
    }
}

impl Drop for Load {
    /// klto ends make and all below it when it is asked to stop.
    fn drop(&mut self) {
        let Some((mut child, _)) = self.running.take() else {
            return;
        };
        if let Some(process) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(process, Signal::TERM);
        }
        let _ = child.wait();
    }
}

/// The environment of the make that klto starts, as soon as it runs.
fn environment_of_make(klto: u32) -> Result<Environment> {
    let children = format!("/proc/{klto}/task/{klto}/children");
    let mut waited = Duration::ZERO;
    while waited < START_LIMIT {
        let listed = fs::read_to_string(&children).unwrap_or_default();
        for child in listed.split_whitespace() {
            let bytes = fs::read(format!("/proc/{child}/environ")).unwrap_or_default();
            let environment = parse_environment(&bytes);
            // Before it becomes make, the child has klto's own environment.
            if environment.contains_key(&OsString::from("KLTO_SOCKET")) {
                return Ok(environment);
            }
        }
        std::thread::sleep(START_POLL);
        waited += START_POLL;
    }
    bail!("the build in the background did not start make")
}

fn parse_environment(bytes: &[u8]) -> Environment {
    let entry = |entry: &[u8]| {
        let equals = entry.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (entry.get(..equals)?, entry.get(equals + 1..)?);
        Some((
            OsString::from_vec(name.to_vec()),
            OsString::from_vec(value.to_vec()),
        ))
    };
    bytes.split(|byte| *byte == 0).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_read_from_proc() {
        let environment = parse_environment(b"A=1\0B=x=y\0\0");
        assert_eq!(environment[&OsString::from("B")], "x=y");
        assert_eq!(environment.len(), 2);
    }
}
