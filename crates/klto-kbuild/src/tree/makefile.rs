//! The first Makefile that make reads: a kernel's, or that of an output directory.
//!
//! In: a file. Out: the source tree, its version, and what an output directory's Makefile exports.
//! It follows one `include`, and does not evaluate anything.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::versions::{Behaviour, KernelVersion};

/// A kernel's top Makefile, found directly or through an output directory's.
#[derive(Debug)]
pub(super) struct Makefile {
    pub(super) source: PathBuf,
    pub(super) version: KernelVersion,
    exports: Vec<(String, String)>,
}

impl Makefile {
    /// Reads `path`; nothing if it is no kernel's. Paths in it are relative to `directory`.
    pub(super) fn of_kernel(path: &Path, directory: &Path) -> Result<Option<Self>> {
        let Some(text) = read(path)? else {
            return Ok(None);
        };
        if let Some(found) = Self::top(path, &text, Vec::new())? {
            return Ok(Some(found));
        }
        let Some(included) = included(&text) else {
            return Ok(None);
        };
        let included = directory.join(included);
        match read(&included)? {
            Some(inner) => Self::top(&included, &inner, exports(&text)),
            None => Ok(None),
        }
    }

    /// The value that an output directory's Makefile exports.
    pub(super) fn exports(&self, name: &str) -> Option<&str> {
        let found = self.exports.iter().find(|(exported, _)| exported == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, behaviour: Behaviour) -> bool {
        behaviour.is_of(self.version, &self.source)
    }

    /// U-Boot, BusyBox and others took over the version lines and scripts/Kbuild.include, but not
    /// this header, which trees of headers for module builds have too.
    fn top(path: &Path, text: &str, exports: Vec<(String, String)>) -> Result<Option<Self>> {
        let Some(version) = version(text) else {
            return Ok(None);
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let source = fs_err::canonicalize(directory).context("resolving the source tree")?;
        let marks = ["scripts/Kbuild.include", "include/linux/moduleparam.h"];
        let kernel = marks.iter().all(|mark| source.join(mark).is_file());
        Ok(kernel.then_some(Self {
            source,
            version,
            exports,
        }))
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs_err::read(path).context("looking for a kernel tree")?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn version(text: &str) -> Option<KernelVersion> {
    let number = |name: &str| {
        let mut lines = text.lines().filter_map(assignment);
        lines.find(|(found, _)| *found == name)?.1.parse().ok()
    };
    Some(KernelVersion {
        version: number("VERSION")?,
        patchlevel: number("PATCHLEVEL")?,
        sublevel: number("SUBLEVEL").unwrap_or(0),
    })
}

fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    Some((name.trim_end_matches(':').trim(), value.trim()))
}

/// The Makefile that the only `include` line names, as kbuild generates it.
fn included(text: &str) -> Option<&str> {
    let mut includes = text
        .lines()
        .filter_map(|line| line.strip_prefix("include "));
    let first = includes.next()?.trim();
    (includes.next().is_none() && first.ends_with("/Makefile")).then_some(first)
}

fn exports(text: &str) -> Vec<(String, String)> {
    let lines = text
        .lines()
        .filter_map(|line| assignment(line.strip_prefix("export ")?));
    lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
